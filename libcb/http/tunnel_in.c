#include "http/tunnel_in.h"
#include "base/error.h"
#include "base/mem.h"

bool cb_tunnel_has_capsules(cb_slice protocol) {
    return cb_slice_eq(protocol, "connect-udp") || cb_slice_eq(protocol, "connect-ip");
}

static int on_datagram(void *user, cb_slice payload) {
    cb_tunnel_in *t = user;
    return cb_exchange_in_datagram(t->x, payload);
}

static int on_other(void *user, cb_slice bytes) {
    cb_tunnel_in *t = user;
    t->passed += bytes.len;
    return cb_exchange_in_body(t->x, bytes);
}

/* RFC 9297, 3.4. Somebody must want the datagrams. */
static bool carries_capsules(const cb_exchange *x, bool asked) {
    if (!x->connect || !x->ops->on_datagram) return false;
    if (asked || cb_tunnel_has_capsules(x->protocol)) return true;
    cb_slice v = cb_fields_get(&x->in, "capsule-protocol");
    return v.len >= 2 && v.base[0] == '?' && v.base[1] == '1' && (v.len == 2 || v.base[2] == ';');
}

int cb_tunnel_in_feed(cb_tunnel_in **at, cb_exchange *x, bool asked, cb_slice bytes, size_t *passed) {
    static const cb_capsule_ops ops = {on_datagram, on_other};
    cb_tunnel_in *t = *at;
    *passed = bytes.len;
    if (!t && !carries_capsules(x, asked)) return cb_exchange_in_body(x, bytes);
    if (!t) {
        t = cb_mem_new(x->alloc, sizeof *t);
        if (!t) return cb_fail(CB_ENOMEM, "no memory for reading capsules");
        cb_capsules_init(&t->capsules, x->alloc, &ops, t);
        *at = t;
    }
    t->x = x;
    t->passed = 0;
    int rc = cb_capsules_feed(&t->capsules, bytes);
    *passed = t->passed;
    return rc;
}

int cb_tunnel_in_end(const cb_tunnel_in *t) {
    return t ? cb_capsules_end(&t->capsules) : CB_OK;
}

void cb_tunnel_in_free(cb_tunnel_in *t, const cb_alloc *alloc) {
    if (!t) return;
    cb_capsules_free(&t->capsules);
    cb_mem_free(alloc, t);
}
