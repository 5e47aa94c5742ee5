#include "transport/mail.h"
#include <string.h>

enum { ADDRESS = 28 };
_Static_assert(sizeof(cb_addr) == ADDRESS, "the form of a message is that of every version");
_Static_assert(4 + 2 * ADDRESS == CB_MAIL_HEAD, "kind, ECN, length and two addresses");

size_t cb_mail_write(uint8_t *out, size_t cap, enum cb_mail_kind kind, const cb_datagram *d) {
    const uint16_t len = (uint16_t)d->len;
    if (d->len > CB_MAIL_MAX - CB_MAIL_HEAD || cap < CB_MAIL_HEAD + d->len) return 0;
    out[0] = (uint8_t)kind;
    out[1] = d->ecn & 3;
    memcpy(out + 2, &len, sizeof len);
    memcpy(out + 4, &d->local, ADDRESS);
    memcpy(out + 4 + ADDRESS, &d->remote, ADDRESS);
    memcpy(out + CB_MAIL_HEAD, d->data, d->len);
    return CB_MAIL_HEAD + d->len;
}

bool cb_mail_read(uint8_t **at, size_t *left, enum cb_mail_kind *kind, cb_datagram *d) {
    uint16_t len;
    uint8_t *in = *at;
    if (*left < CB_MAIL_HEAD) return false;
    memcpy(&len, in + 2, sizeof len);
    memset(d, 0, sizeof *d);
    memcpy(&d->local, in + 4, ADDRESS);
    memcpy(&d->remote, in + 4 + ADDRESS, ADDRESS);
    if (len > *left - CB_MAIL_HEAD || !cb_addr_len(&d->local) || !cb_addr_len(&d->remote)) return false;
    if (in[0] == CB_MAIL_PACKET)
        *kind = CB_MAIL_PACKET;
    else if (in[0] == CB_MAIL_REST && len == CB_MAIL_COOKIE)
        *kind = CB_MAIL_REST;
    else
        return false;
    d->ecn = in[1] & 3;
    d->data = in + CB_MAIL_HEAD;
    d->len = len;
    *at += CB_MAIL_HEAD + len;
    *left -= (size_t)CB_MAIL_HEAD + len;
    return true;
}
