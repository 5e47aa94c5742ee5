/* What workers of two processes tell each other: a packet that reached the wrong one, or that a socket is read
 * elsewhere. Both are on one host and belong to one service; a message is read as carefully as any other. */
#ifndef CB_TRANSPORT_MAIL_H
#define CB_TRANSPORT_MAIL_H

#include "loop/udp.h"

enum cb_mail_kind {
    CB_MAIL_PACKET = 1,
    CB_MAIL_REST = 2 /* a newer generation reads the socket whose cookie the data is */
};

enum {
    CB_MAIL_HEAD = 60,   /* u8 kind, u8 ECN, u16 length, local and remote address, each in 28 bytes; host byte order */
    CB_MAIL_MAX = 64000, /* bytes of a message: some of these, one after the other */
    CB_MAIL_COOKIE = 8
};

/* Returns how many bytes it wrote; 0 = there is no room. */
size_t cb_mail_write(uint8_t *out, size_t cap, enum cb_mail_kind kind, const cb_datagram *d);
/* Takes the next one from the front of *at; d->data points into it. False: the end, or nonsense, which ends it too. */
bool cb_mail_read(uint8_t **at, size_t *left, enum cb_mail_kind *kind, cb_datagram *d);

#endif
