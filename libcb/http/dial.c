#include "http/dial.h"
#include <string.h>

void cb_dial_addr(cb_addr *out, const cb_host_address *h, uint16_t port) {
    memset(out, 0, sizeof *out);
    if (h->family == CB_FAMILY_V4) {
        out->v4.sin_family = AF_INET;
        memcpy(&out->v4.sin_addr, h->bytes, 4);
    } else {
        out->v6.sin6_family = AF_INET6;
        memcpy(&out->v6.sin6_addr, h->bytes, 16);
        out->v6.sin6_scope_id = h->scope;
    }
    cb_addr_set_port(out, port);
}

void cb_dial_add(cb_dial *d, const cb_addr *at, bool late) {
    for (size_t i = 0; i < d->n; i++)
        if (cb_addr_equal(&d->to[i].at, at)) return;
    if (d->n == CB_DIAL_MAX) return;
    d->to[d->n].at = *at;
    d->to[d->n].tried = false;
    d->to[d->n++].late = late;
}

/* The first that is left, of a family (0: of any). */
static const cb_addr *find(cb_dial *d, int family, bool late) {
    for (size_t i = 0; i < d->n; i++) {
        if (d->to[i].tried || d->to[i].late != late) continue;
        if (family && d->to[i].at.sa.sa_family != family) continue;
        d->to[i].tried = true;
        d->last = d->to[i].at.sa.sa_family;
        return &d->to[i].at;
    }
    return NULL;
}

const cb_addr *cb_dial_next(cb_dial *d) {
    const int first = d->first == AF_INET ? AF_INET : AF_INET6;
    const int want = !d->last ? first : d->last == AF_INET ? AF_INET6 : AF_INET;
    for (int late = 0; late < 2; late++) {
        const cb_addr *at = find(d, want, late);
        if (!at) at = find(d, 0, late);
        if (at) return at;
    }
    return NULL;
}

void cb_dial_again(cb_dial *d, const cb_addr *at) {
    for (size_t i = 0; i < d->n; i++)
        if (cb_addr_equal(&d->to[i].at, at)) {
            d->to[i].tried = false;
            d->to[i].late = true;
        }
}

bool cb_dial_has(const cb_dial *d, int family) {
    for (size_t i = 0; i < d->n; i++)
        if (!d->to[i].tried && (!family || d->to[i].at.sa.sa_family == family)) return true;
    return false;
}
