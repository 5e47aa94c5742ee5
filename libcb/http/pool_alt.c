/* Alternative services (RFC 7838) of the origins of a pool: what responses say is noted, an alternative that does not
 * serve the origin is dropped. */
#include "http/pool_int.h"
#include <string.h>

enum { MISDIRECTED = 421 };

static void note(cb_origin *o, const cb_exchange *x) {
    size_t n = 0;
    bool more = false;
    const cb_field *f = cb_exchange_fields(x, &n);
    for (size_t i = 0; i < n; i++) {
        if (f[i].name.len != 7 || !cb_slice_eq(f[i].name, "alt-svc")) continue;
        cb_dest_alt_svc(o->dest, &o->pool->dests, f[i].value, more, cb_loop_now(o->pool->loop));
        more = true;
    }
    if (more) cb_cells_add(cb_loop_cells(o->pool->loop), CB_C_POOL_ALTERNATIVES_TOLD, 1);
}

/* It is not, or no more, an alternative of this origin (RFC 7838, 6): its connection gets nothing new. */
static void misdirected(cb_origin *o, cb_pool_conn *c) {
    char text[CB_ADDR_TEXT];
    cb_dest_alt_drop(o->dest, c->alt, c->alt_port);
    cb_cells_add(cb_loop_cells(o->pool->loop), CB_C_POOL_ALTERNATIVES_DROPPED, 1);
    cb_list_del(&c->avail);
    if (c->drive.h) c->drive.h->vt->drain(c->drive.h);
    cb_log_line(o->pool->log, CB_LOG_INFO, "pool", "%s: the alternative %s does not serve it (421)", o->name,
                cb_addr_text(&c->at, text));
}

bool cb_pool_on_response(cb_exchange *x, void *user) {
    cb_pool_req *r = user;
    cb_origin *o = r->origin;
    if (!o->dest || !o->t.alt_svc) return false;
    if (x->status != MISDIRECTED) {
        note(o, x);
        return false;
    }
    if (!r->conn || !r->conn->alt_port) return false; /* Alt-Svc in it is to be ignored */
    misdirected(o, r->conn);
    return !r->has_body && !r->no_retry && !r->retried;
}
