/* Clients that move: to another local address on request, or because the host's addresses changed. */
#include "base/error.h"
#include "loop/netwatch.h"
#include "transport/quic_endpoint_int.h"

/* The old socket stays until the new path is proven: packets that are on their way to it still count. source: the local
 * address behind `bind`, which may be "any"; NULL = not known. */
static int migrate(ep_conn *c, const cb_addr *bind, const cb_addr *source, bool at_once) {
    cb_quic_endpoint *e = c->e;
    cb_quic_conn *core = &c->core;
    ep_socket *s = cb_mem_new(e->alloc, sizeof *s);
    if (!s) return cb_fail(CB_ENOMEM, "no memory for a socket");
    s->owner = c;
    cb_quic_endpoint_drop_sockets(c, &core->local);
    int rc = cb_quic_endpoint_socket(e, s, bind);
    if (rc < 0) {
        cb_mem_free(e->alloc, s);
        return rc;
    }
    rc = cb_quic_core_migrate(core, cb_udp_local(s->udp), at_once, cb_loop_now(e->loop));
    if (rc < 0) {
        cb_quic_endpoint_drop_socket(s);
        return rc;
    }
    const cb_addr *local = cb_udp_local(s->udp);
    c->source_before = c->source;
    c->source = source ? *source : *local;
    cb_addr_set_port(&c->source, cb_addr_port(local));
    return CB_OK;
}

/* ---- where packets leave from ---- */

void cb_quic_endpoint_heard_at(ep_conn *c, const cb_addr *local) {
    if (c->source_before.sa.sa_family && cb_addr_port(&c->source_before) == cb_addr_port(local)) return;
    if (!c->source.sa.sa_family || cb_addr_is_any(&c->source) || !c->e->pinned) c->source = *local;
}

const cb_addr *cb_quic_endpoint_source(const ep_conn *c, const cb_addr *local) {
    const uint16_t port = cb_addr_port(local);
    if (c->source.sa.sa_family && cb_addr_port(&c->source) == port) return &c->source;
    if (c->source_before.sa.sa_family && cb_addr_port(&c->source_before) == port) return &c->source_before;
    return NULL;
}

void cb_quic_endpoint_source_gone(cb_quic_endpoint *e, const cb_addr *remote) {
    for (cb_list *l = e->conns.next; !e->pinned && l != &e->conns; l = l->next) {
        ep_conn *c = CB_CONTAINER(l, ep_conn, all);
        if (cb_addr_equal(&c->core.remote, remote)) c->source = c->source_before = (cb_addr){0};
    }
}

/* ---- moving ---- */

static int may_migrate(const cb_quic_conn *core) {
    if (core->phase != CB_QUIC_OPEN) return cb_fail(CB_ECLOSED, "the connection is closed");
    if (core->server) return cb_fail(CB_EINVAL, "cb_quic_conn_migrate: only clients migrate");
    return core->handshaken && !core->busy ? CB_OK : CB_EAGAIN;
}

static int any_address(cb_addr *out, const cb_quic_conn *core) {
    return cb_addr_parse(out, core->remote.sa.sa_family == AF_INET6 ? "[::]:0" : "0.0.0.0:0", 0);
}

int cb_quic_conn_migrate(cb_quic_conn *core, const char *local) {
    ep_conn *c = ep_of(core);
    cb_addr bind;
    int rc = may_migrate(core);
    if (rc == CB_OK) rc = local ? cb_addr_parse(&bind, local, 0) : any_address(&bind, core);
    if (rc < 0) return rc;
    if (core->remote.sa.sa_family == AF_INET6 && bind.sa.sa_family == AF_INET)
        return cb_fail(CB_EINVAL, "cb_quic_conn_migrate: \"%s\" is IPv4, the peer is reached by IPv6", local);
    /* Where the old address is gone there is nothing to go on with until the new one is proven. */
    return migrate(c, &bind, NULL, c->source.sa.sa_family && !cb_net_has_address(c->e->loop, &c->source));
}

/* At once: packets from the address before have no way any more, or soon will not have one. The new path gets a
 * connection ID of its own (RFC 9000, 9.5), and its proof follows. */
static bool follow(ep_conn *c) {
    cb_addr now, any;
    if (may_migrate(&c->core) != CB_OK || !c->source.sa.sa_family) return false;
    const int rc = cb_net_source(c->e->loop, &c->core.remote, &now);
    if (rc != CB_ENOTSUP && (rc < 0 || cb_addr_same_host(&now, &c->source))) return false;
    return any_address(&any, &c->core) == CB_OK && migrate(c, &any, rc == CB_OK ? &now : NULL, true) == CB_OK;
}

void cb_quic_endpoint_pin(cb_quic_endpoint *e) {
    e->pinned = true;
}

size_t cb_quic_endpoint_follow(cb_quic_endpoint *e) {
    size_t n = 0;
    if (e->server || e->dead || e->closed) return 0;
    for (cb_list *l = e->conns.next; l != &e->conns; l = l->next)
        n += follow(CB_CONTAINER(l, ep_conn, all));
    return n;
}
