/* A pool when the network below it changes: addresses of this host come and go, routes move. */
#include "base/error.h"
#include "http/pool_int.h"
#include "loop/netwatch.h"

/* TCP cannot move. What stands on an address that is gone would only wait for its time limits. */
static void leave_lost_address(cb_pool_conn *c) {
    char text[CB_ADDR_TEXT];
    const cb_addr *local = c->drive.ch ? cb_channel_local(c->drive.ch) : NULL;
    if (!c->open || c->drive.ending || !local || local->sa.sa_family == AF_UNIX ||
        cb_net_has_address(c->drive.loop, local))
        return;
    c->excused = true;
    cb_fail(CB_ECLOSED, "the local address %s is gone", cb_addr_text(local, text));
    cb_drive_end(&c->drive, CB_ECLOSED, true);
}

/* Callbacks may end connections and free the pool, which looks for all it has in its lists: nothing leaves them here.
 * What has been seen goes to the end, where what is new is, too. */
static bool seen(uint64_t *mark, const cb_pool *p) {
    if (*mark == p->network) return true;
    *mark = p->network;
    return false;
}

static void to_the_end(cb_list *all, cb_list *l) {
    cb_list_del(l);
    cb_list_add_tail(all, l);
}

static void origin_changed(cb_origin *o) {
    cb_origin_hold(o);
    while (!cb_list_empty(&o->conns)) {
        cb_pool_conn *c = CB_CONTAINER(o->conns.next, cb_pool_conn, link);
        if (seen(&c->network, o->pool)) break;
        to_the_end(&o->conns, &c->link);
        leave_lost_address(c);
    }
    for (int i = 0; i < 2; i++) {
        const uint64_t moved = o->quic[i] ? cb_quic_endpoint_follow(o->quic[i]) : 0;
        o->pool->stats.migrated += moved;
        cb_cells_add(cb_loop_cells(o->pool->loop), CB_C_POOL_MIGRATED, moved);
    }
    cb_origin_unref(o);
}

void cb_pool_network_changed(cb_pool *p) {
    if (p->freed) return;
    cb_dests_network_changed(&p->dests);
    if (p->opts.resolver) cb_resolver_flush(p->opts.resolver);
    p->refs++;
    p->network++;
    cb_cells_add(cb_loop_cells(p->loop), CB_C_POOL_NETWORK, 1);
    while (!p->freed && !cb_list_empty(&p->list)) {
        cb_origin *o = CB_CONTAINER(p->list.next, cb_origin, link);
        if (seen(&o->network, p)) break;
        to_the_end(&p->list, &o->link);
        origin_changed(o);
    }
    cb_pool_unref(p);
}

const cb_pool_stats *cb_pool_stats_of(const cb_pool *p) {
    return &p->stats;
}
