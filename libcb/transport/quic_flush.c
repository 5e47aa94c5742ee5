/* What leaves an endpoint: packets of woken connections at the end of a turn, and connections at their end. */
#include "base/error.h"
#include "base/log.h"
#include "transport/quic_endpoint_int.h"
#include "transport/quic_token.h"
#include <string.h>

enum { TRAIN_BYTES = 65000, TRAINS_A_TURN = 32, TOMB_PTOS = 3 };

/* --- connection IDs --- */

int cb_quic_endpoint_route(cb_quic_endpoint *e, const ngtcp2_cid *cid, ep_route *route) {
    e->last_len = 0;
    return cb_map_put(&e->cids, cid->data, cid->datalen, route);
}

void cb_quic_endpoint_unroute(cb_quic_endpoint *e, const ngtcp2_cid *cid) {
    e->last_len = 0;
    (void)cb_map_del(&e->cids, cid->data, cid->datalen);
}

ep_route *cb_quic_endpoint_lookup(cb_quic_endpoint *e, const uint8_t *cid, size_t len) {
    if (len == e->last_len && len && memcmp(cid, e->last_cid, len) == 0) return e->last_route;
    ep_route *route = cb_map_get(&e->cids, cid, len);
    if (route && len <= sizeof e->last_cid) {
        memcpy(e->last_cid, cid, len);
        e->last_len = len;
        e->last_route = route;
    }
    return route;
}

int cb_quic_endpoint_cid(cb_quic_endpoint *e, ngtcp2_cid *cid, uint8_t token[NGTCP2_STATELESS_RESET_TOKENLEN]) {
    uint8_t nonce[16];
    do {
        int rc = cb_loop_random(e->loop, nonce, sizeof nonce);
        if (rc < 0) return rc;
        ngtcp2_cid_init(cid, nonce, CB_QUIC_CID_CLIENT);
        if (!e->server) continue;
        rc = cb_quic_lb_encode(&e->keys->cid, cid->data, sizeof cid->data, nonce, e->o.worker, e->keys->generation);
        if (rc < 0) return rc;
        cid->datalen = (size_t)rc;
    } while (cb_map_get(&e->cids, cid->data, cid->datalen));
    return cb_quic_reset_token(e->keys->reset, cid, token) ? CB_OK : cb_fail(CB_ETLS, "cannot derive a reset token");
}

/* --- what a connection asks of its driver --- */

static cb_time host_now(cb_quic_conn *c) {
    return cb_loop_now(c->loop);
}

static void host_random(cb_quic_conn *c, void *out, size_t len) {
    if (cb_loop_random(c->loop, out, len) < 0) memset(out, 0, len); /* only varies what need not be secret */
}

static void host_wake(cb_quic_conn *core) {
    ep_conn *c = ep_of(core);
    if (!cb_list_empty(&c->dirty) || core->phase == CB_QUIC_ENDED) return;
    cb_list_add_tail(&c->e->dirty, &c->dirty);
    cb_defer_idle(&c->e->flush);
}

static int host_new_cid(cb_quic_conn *core, ngtcp2_cid *cid, uint8_t token[NGTCP2_STATELESS_RESET_TOKENLEN]) {
    ep_conn *c = ep_of(core);
    int rc = cb_quic_endpoint_cid(c->e, cid, token);
    return rc < 0 ? rc : cb_quic_endpoint_route(c->e, cid, &c->route);
}

static void host_drop_cid(cb_quic_conn *core, const ngtcp2_cid *cid) {
    cb_quic_endpoint_unroute(ep_of(core)->e, cid);
}

static int host_make_app(cb_quic_conn *core, cb_quic_app **out) {
    cb_quic_endpoint *e = ep_of(core)->e;
    return e->factory.make(out, core, e->factory.user);
}

void cb_quic_endpoint_handshake_over(ep_conn *c) {
    if (!c->handshaking) return;
    c->handshaking = false;
    c->e->handshakes--;
    if (c->told_dcid) cb_group_dcid_closed(c->e->group, (cb_slice){c->first_dcid.data, c->first_dcid.datalen});
    cb_cells_move(c->e->cells, CB_SIDE(c->e->server, QUIC_UNDER_WAY), -1);
}

static void host_handshaken(cb_quic_conn *core) {
    cb_quic_endpoint_handshake_over(ep_of(core));
}

static size_t host_make_token(cb_quic_conn *core, uint8_t *out, size_t cap) {
    const ngtcp2_path *path = ngtcp2_conn_get_path(core->ng);
    cb_addr remote;
    memset(&remote, 0, sizeof remote);
    memcpy(&remote, path->remote.addr, path->remote.addrlen);
    return cb_quic_token_make(ep_of(core)->e->keys->token, &remote, cb_loop_wall(core->loop), out, cap);
}

static void host_keep_token(cb_quic_conn *core, cb_slice token) {
    cb_quic_endpoint *e = ep_of(core)->e;
    if (token.len > CB_QUIC_TOKEN_MAX) return;
    if (!e->tokens && !(e->tokens = cb_mem_new(e->alloc, TOKENS_KEPT * sizeof *e->tokens))) return;
    ep_token *t = &e->tokens[e->next_token++ % TOKENS_KEPT];
    t->remote = core->remote;
    t->len = token.len;
    memcpy(t->bytes, token.base, token.len);
}

static int host_other_version(cb_quic_conn *core, uint32_t version) {
    return cb_quic_endpoint_reopen(ep_of(core), version);
}

static void host_path_learned(cb_quic_conn *core, bool lossy) {
    cb_quic_endpoint *e = ep_of(core)->e;
    if (!e->paths) {
        if (!lossy || !(e->paths = cb_mem_new(e->alloc, sizeof *e->paths))) return;
        (void)cb_loop_random(e->loop, e->paths->key,
                             sizeof e->paths->key); /* without it strangers may find collisions */
    }
    cb_path_memory_put(e->paths, &core->remote, lossy, cb_loop_now(e->loop));
}

int cb_quic_endpoint_below(const cb_quic_endpoint *e, const cb_addr *remote) {
    return e->paths && cb_path_memory_lossy(e->paths, remote, cb_loop_now(e->loop)) ? CB_CC_BBR : 0;
}

const cb_quic_host_ops cb_quic_endpoint_host = {
    .now = host_now,
    .random = host_random,
    .wake = host_wake,
    .new_cid = host_new_cid,
    .drop_cid = host_drop_cid,
    .make_app = host_make_app,
    .handshaken = host_handshaken,
    .make_token = host_make_token,
    .keep_token = host_keep_token,
    .path_learned = host_path_learned,
    .other_version = host_other_version,
};

/* --- sending --- */

static ep_socket *socket_for(ep_conn *c, const cb_addr *local) {
    cb_quic_endpoint *e = c->e;
    if (e->server || e->sockets.next == e->sockets.prev) return &e->main;
    for (cb_list *l = e->sockets.next; l != &e->sockets; l = l->next) {
        ep_socket *s = CB_CONTAINER(l, ep_socket, link);
        if (cb_addr_port(cb_udp_local(s->udp)) == cb_addr_port(local)) return s;
    }
    return &e->main;
}

static void commit(ep_conn *c, ep_socket *s, const cb_quic_train *t) {
    const cb_addr *from = c->e->server ? &t->local : cb_quic_endpoint_source(c, &t->local);
    cb_udp_commit(s->udp, from, &t->remote, t->ecn, t->len, t->segment);
}

/* A train is built in the main socket's area and copied in the rare case that it belongs to another. */
static bool send_train(ep_conn *c, uint8_t *buf, const cb_quic_train *t) {
    ep_socket *s = socket_for(c, &t->local);
    if (s != &c->e->main) {
        uint8_t *other = cb_udp_reserve(s->udp, t->len);
        if (!other) return true; /* counts as lost */
        memcpy(other, buf, t->len);
    }
    commit(c, s, t);
    return true;
}

/* False: the socket is full. */
static bool flush_conn(ep_conn *c) {
    cb_quic_endpoint *e = c->e;
    cb_time now = cb_loop_now(e->loop);
    cb_quic_train train;
    uint8_t *buf = cb_udp_reserve(e->main.udp, TRAIN_BYTES);
    if (!buf) return false;
    cb_list_del(&c->dirty);
    cb_quic_core_write(&c->core, buf, TRAIN_BYTES, now, &train);
    if (train.len) send_train(c, buf, &train);
    if (c->core.phase == CB_QUIC_CLOSING) {
        cb_quic_endpoint_finish(c);
        return true;
    }
    if (train.more && cb_list_empty(&c->dirty)) cb_list_add_tail(&e->dirty, &c->dirty);
    /* The grain of QUIC's timers (RFC 9002, 6.1.2). Pacing makes up for being late, and finer sleeps cost more
     * processor time than they smooth. */
    cb_time deadline = cb_quic_core_deadline(&c->core);
    if (deadline < now + CB_MS) deadline = now + CB_MS;
    cb_time wake = cb_quic_core_wake(&c->core);
    if (wake < deadline) deadline = wake;
    /* An alarm that is set earlier stays: it asks again when it fires, and setting it at each packet costs more. */
    if (deadline < cb_alarm_at(&c->alarm) && cb_alarm_set(&c->alarm, deadline) < 0) {
        cb_quic_core_finish(&c->core, CB_ENOMEM, false, "no memory for a deadline");
    }
    return true;
}

void cb_quic_endpoint_flush(cb_defer *d) {
    cb_quic_endpoint *e = CB_CONTAINER(d, cb_quic_endpoint, flush);
    size_t trains = 0;
    if (e->closed) return;
    e->depth++;
    while (!cb_list_empty(&e->dirty)) {
        ep_conn *c = CB_CONTAINER(e->dirty.next, ep_conn, dirty);
        if (c->core.phase == CB_QUIC_CLOSING) {
            cb_list_del(&c->dirty);
            cb_quic_endpoint_finish(c);
            continue;
        }
        if (!flush_conn(c)) break;                      /* on_writable goes on */
        if (++trains >= TRAINS_A_TURN + e->conns_now) { /* let packets in before more goes out */
            (void)cb_alarm_set(&e->again, cb_loop_now(e->loop));
            break;
        }
    }
    e->depth--;
}

void cb_quic_endpoint_again(cb_alarm *a, cb_time now) {
    cb_quic_endpoint *e = CB_CONTAINER(a, cb_quic_endpoint, again);
    (void)now;
    cb_defer_idle(&e->flush);
}

void cb_quic_endpoint_tick(cb_alarm *a, cb_time now) {
    ep_conn *c = CB_CONTAINER(a, ep_conn, alarm);
    cb_time deadline = cb_quic_core_deadline(&c->core), wake = cb_quic_core_wake(&c->core);
    if (wake < deadline) deadline = wake;
    if (deadline > now) {
        (void)cb_alarm_set(a, deadline); /* it had a place just now */
        return;
    }
    c->e->depth++;
    cb_quic_core_expire(&c->core, now);
    c->e->depth--;
}

static void on_signed(void *user) {
    ep_conn *c = user;
    cb_quic_endpoint *e = c->e;
    e->depth++;
    cb_quic_core_signed(&c->core);
    e->depth--;
}

void cb_quic_endpoint_may_wait(ep_conn *c) {
    if (!cb_loop_is_virtual(c->e->loop)) cb_tls_session_on_signed(c->core.tls, c->e->loop, on_signed, c);
}

void cb_quic_endpoint_send(ep_socket *sock, const cb_datagram *to, const uint8_t *packet, size_t len) {
    uint8_t *buf = cb_udp_reserve(sock->udp, len);
    if (!buf) return;
    memcpy(buf, packet, len);
    cb_udp_commit(sock->udp, sock->e->server ? &to->local : NULL, &to->remote, 0, len, len);
}

/* --- the end of a connection --- */

void cb_quic_endpoint_tomb_free(ep_tomb *t) {
    for (size_t i = 0; i < t->cids; i++) {
        cb_quic_endpoint_unroute(t->e, &t->cid[i]);
    }
    cb_alarm_stop(&t->alarm);
    cb_list_del(&t->link);
    t->e->tombs_now--;
    cb_cells_move(t->e->cells, CB_C_QUIC_DRAINING, -1);
    cb_mem_free(t->e->alloc, t);
}

static void tomb_over(cb_alarm *a, cb_time now) {
    (void)now;
    cb_quic_endpoint_tomb_free(CB_CONTAINER(a, ep_tomb, alarm));
}

/* The connection's IDs, ours and (server) the client's first choice. 0: more than `max`. */
static size_t collect_cids(ep_conn *c, ngtcp2_cid *out, size_t max) {
    size_t n = ngtcp2_conn_get_scid(c->core.ng, NULL);
    if (n + 1 > max) return 0;
    n = ngtcp2_conn_get_scid(c->core.ng, out);
    if (c->e->server) out[n++] = c->first_dcid;
    return n;
}

static void bury_tomb(ep_conn *c, const ngtcp2_cid *cids, size_t n, const uint8_t *packet, const cb_quic_train *train) {
    cb_quic_endpoint *e = c->e;
    ep_tomb *t = cb_mem_new(e->alloc, sizeof *t + train->len);
    if (!t) return;
    t->route.kind = ROUTE_TOMB;
    t->e = e;
    cb_alarm_init(&t->alarm, e->loop, tomb_over);
    t->packet_len = train->len;
    if (train->len) {
        memcpy(t->packet, packet, train->len);
        t->ecn = train->ecn;
        t->local = train->local;
        t->remote = train->remote;
    }
    if (e->tombs_now >= e->tombs_max) cb_quic_endpoint_tomb_free(CB_CONTAINER(e->tombs.next, ep_tomb, link));
    cb_list_add_tail(&e->tombs, &t->link);
    e->tombs_now++;
    cb_cells_move(e->cells, CB_C_QUIC_DRAINING, 1);
    for (size_t i = 0; i < n; i++) {
        if (cb_quic_endpoint_route(e, &cids[i], &t->route) == CB_OK) t->cid[t->cids++] = cids[i];
    }
    cb_time wait = TOMB_PTOS * ngtcp2_conn_get_pto(c->core.ng);
    if (cb_alarm_set(&t->alarm, cb_loop_now(e->loop) + wait) < 0) cb_quic_endpoint_tomb_free(t);
}

static void bury_conn(cb_grave *g) {
    ep_conn *c = CB_CONTAINER(g, ep_conn, grave);
    const cb_alloc *alloc = c->core.alloc;
    cb_quic_core_free(&c->core);
    cb_mem_free(alloc, c->name);
    cb_mem_free(alloc, c);
}

void cb_quic_endpoint_unroute_all(cb_quic_endpoint *e, const ep_route *route) {
    void *value;
    do {
        size_t it = 0;
        cb_slice key;
        while ((value = cb_map_next(&e->cids, &it, &key)) != NULL && value != route) {}
        if (value) {
            ngtcp2_cid cid;
            ngtcp2_cid_init(&cid, key.base, key.len);
            cb_quic_endpoint_unroute(e, &cid);
        }
    } while (value);
}

static void unroute(ep_conn *c, const ngtcp2_cid *cids, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (cb_map_get(&c->e->cids, cids[i].data, cids[i].datalen) == &c->route) {
            cb_quic_endpoint_unroute(c->e, &cids[i]);
        }
    }
    if (!n) cb_quic_endpoint_unroute_all(c->e, &c->route);
}

void cb_quic_endpoint_finish(ep_conn *c) {
    cb_quic_endpoint *e = c->e;
    enum { CIDS = sizeof((ep_tomb *)NULL)->cid / sizeof(ngtcp2_cid) };
    ngtcp2_cid cids[CIDS];
    cb_quic_train train = {0};
    bool told = c->core.send_close; /* we close: repeat it to who has not heard */
    bool draining = ngtcp2_conn_in_draining_period(c->core.ng);
    uint8_t *buf = told ? cb_udp_reserve(e->main.udp, CB_QUIC_PACKET_MAX) : NULL;
    if (buf) {
        cb_quic_core_last_packet(&c->core, buf, CB_QUIC_PACKET_MAX, cb_loop_now(e->loop), &train);
    }
    size_t n = collect_cids(c, cids, CIDS);
    unroute(c, cids, n);
    if (!e->dead && (train.len || draining)) bury_tomb(c, cids, n, buf, &train);
    if (train.len) send_train(c, buf, &train);
    if (!c->core.handshaken) e->stats.handshakes_failed++;
    cb_quic_endpoint_handshake_over(c);
    cb_alarm_stop(&c->alarm);
    cb_list_del(&c->all);
    cb_list_del(&c->dirty);
    e->conns_now--;
    cb_cells_move(e->cells, CB_SIDE(e->server, QUIC_CONNECTIONS), -1);
    cb_quic_endpoint_drop_sockets(c, NULL);
    e->depth++;
    cb_quic_core_end(&c->core);
    e->depth--;
    cb_loop_bury(e->loop, &c->grave, bury_conn);
}
