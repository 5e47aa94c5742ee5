/* What comes into an endpoint: packets to their connections, first packets to new ones, and answers without state. */
#include "base/error.h"
#include "base/log.h"
#include "base/siphash.h"
#include "transport/quic_endpoint_int.h"
#include "transport/quic_token.h"
#include <errno.h>
#include <gnutls/gnutls.h>
#include <string.h>
#include <sys/socket.h>

enum { ANSWER_MAX = 1200, MAILS_A_TURN = 16 };

/* --- answers without state --- */

static void send_version_negotiation(cb_quic_endpoint *e, ep_socket *sock, const cb_datagram *d,
                                     const ngtcp2_version_cid *in) {
    uint8_t packet[ANSWER_MAX], random = 0;
    if (!e->server || d->len < CB_QUIC_PACKET_MIN) return;
    (void)cb_loop_random(e->loop, &random, 1);
    size_t n = cb_quic_version_packet(packet, sizeof packet, in, e->o.version == 1, random);
    if (!n) return;
    e->stats.version_negotiations++;
    cb_cells_add(e->cells, CB_C_QUIC_VERSIONS_NEGOTIATED_OUT, 1);
    cb_quic_endpoint_send(sock, d, packet, n);
}

static bool may_reset(cb_quic_endpoint *e) {
    cb_time now = cb_loop_now(e->loop);
    if (now - e->resets_since >= CB_SEC) {
        e->resets_since = now;
        e->resets_left = RESETS_A_SECOND;
    }
    if (!e->resets_left) {
        cb_cells_add(e->cells, CB_C_QUIC_RESETS_HELD, 1);
        return false;
    }
    e->resets_left--;
    return true;
}

static void send_reset(cb_quic_endpoint *e, ep_socket *sock, const cb_datagram *d, const ngtcp2_version_cid *in) {
    uint8_t packet[64], random[32];
    if (!e->server || !may_reset(e) || cb_loop_random(e->loop, random, sizeof random) < 0) return;
    size_t n = cb_quic_reset_packet(packet, sizeof packet, e->keys->reset, in->dcid, in->dcidlen, d->len, random);
    if (!n) return;
    e->stats.stateless_resets++;
    cb_cells_add(e->cells, CB_C_QUIC_RESETS_OUT, 1);
    cb_quic_endpoint_send(sock, d, packet, n);
}

static void send_retry(cb_quic_endpoint *e, ep_socket *sock, const cb_datagram *d, const ngtcp2_pkt_hd *hd) {
    uint8_t packet[ANSWER_MAX], token[NGTCP2_STATELESS_RESET_TOKENLEN];
    ngtcp2_cid scid;
    if (cb_quic_endpoint_cid(e, &scid, token) < 0) return;
    size_t n =
        cb_quic_retry_packet(packet, sizeof packet, e->keys->token, hd, &scid, &d->remote, cb_loop_wall(e->loop));
    if (!n) return;
    e->stats.retries_sent++;
    cb_cells_add(e->cells, CB_C_QUIC_RETRIES_OUT, 1);
    cb_quic_endpoint_send(sock, d, packet, n);
}

static void send_refusal(cb_quic_endpoint *e, ep_socket *sock, const cb_datagram *d, const ngtcp2_pkt_hd *hd,
                         uint64_t code) {
    uint8_t packet[ANSWER_MAX];
    ngtcp2_ssize n =
        ngtcp2_crypto_write_connection_close(packet, sizeof packet, hd->version, &hd->scid, &hd->dcid, code, NULL, 0);
    e->stats.refused++;
    if (n > 0) cb_quic_endpoint_send(sock, d, packet, (size_t)n);
}

/* --- new connections --- */

typedef struct address_proof {
    ngtcp2_cid odcid;
    ngtcp2_token_type type;
    bool retried;
} address_proof;

/* False: answered without state. */
static bool prove_address(cb_quic_endpoint *e, ep_socket *sock, const cb_datagram *d, const ngtcp2_pkt_hd *hd,
                          address_proof *out) {
    *out = (address_proof){.odcid = hd->dcid, .type = NGTCP2_TOKEN_TYPE_UNKNOWN};
    uint64_t wall = hd->tokenlen ? cb_loop_wall(e->loop) : 0;
    switch (cb_quic_token_check(e->keys->token, hd, &d->remote, wall, &out->odcid)) {
    case CB_QUIC_TOKEN_RETRY:
        cb_cells_add(e->cells, CB_C_QUIC_TOKENS_RETRY, 1);
        out->type = NGTCP2_TOKEN_TYPE_RETRY;
        out->retried = true;
        return true;
    case CB_QUIC_TOKEN_NEW:
        cb_cells_add(e->cells, CB_C_QUIC_TOKENS_NEW_TOKEN, 1);
        out->type = NGTCP2_TOKEN_TYPE_NEW_TOKEN;
        return true;
    case CB_QUIC_TOKEN_INVALID:
        cb_cells_add(e->cells, CB_C_QUIC_TOKENS_BAD, 1);
        cb_cells_add(e->cells, CB_C_QUIC_REFUSED_TOKEN, 1);
        send_refusal(e, sock, d, hd, NGTCP2_INVALID_TOKEN);
        return false;
    case CB_QUIC_TOKEN_NONE:
        cb_cells_add(e->cells, CB_C_QUIC_TOKENS_NONE, 1);
        break;
    }
    bool retry = e->o.retry == 1 || (e->o.retry == 0 && e->handshakes > e->o.retry_above);
    if (retry) send_retry(e, sock, d, hd);
    return !retry;
}

static int open_server(cb_quic_endpoint *e, ep_conn *c, const cb_datagram *d, const ngtcp2_pkt_hd *hd,
                       const address_proof *proof) {
    uint8_t reset_token[NGTCP2_STATELESS_RESET_TOKENLEN];
    cb_quic_core_init init = {
        .host = &cb_quic_endpoint_host,
        .opts = &e->o,
        .alloc = e->alloc,
        .log = e->log,
        .loop = e->loop,
        .aead = e->aead,
        .cc_below = cb_quic_endpoint_below(e, &d->remote),
        .local = &d->local,
        .remote = &d->remote,
        .now = cb_loop_now(e->loop),
        .dcid = hd->scid,
        .version = hd->version,
        .original_dcid = proof->odcid,
        .retry_scid = proof->retried ? &hd->dcid : NULL,
        .token_type = proof->type,
        .reset_token = reset_token,
    };
    if (proof->type != NGTCP2_TOKEN_TYPE_UNKNOWN) init.token = (cb_slice){hd->token, hd->tokenlen};
    cb_tls_opts tls = {
        .loop = e->loop,
        .server = true,
        .quic = true,
        .early_data = e->o.early_data,
        .request_client_cert = e->o.request_client_cert == 1,
        .require_client_cert = e->o.request_client_cert == 2,
        .identity = e->identity,
        .tickets = e->tickets,
        .ticket_context = e->ticket_context,
        .alpn = e->alpn,
    };
    int rc = cb_quic_endpoint_cid(e, &init.scid, reset_token);
    if (rc >= 0) rc = cb_tls_session_new(&init.tls, e->alloc, &tls);
    if (rc >= 0) rc = cb_quic_core_open(&c->core, &init, true);
    if (rc < 0) return rc;
    cb_quic_endpoint_may_wait(c);
    c->first_dcid = hd->dcid;
    c->told_dcid = !proof->retried; /* after a Retry the ID is ours */
    if (c->told_dcid) cb_group_dcid_opened(e->group, (cb_slice){hd->dcid.data, hd->dcid.datalen});
    rc = cb_quic_endpoint_route(e, &init.scid, &c->route);
    if (rc >= 0) rc = cb_quic_endpoint_route(e, &hd->dcid, &c->route);
    return rc;
}

/* --- to others --- */

/* To its owner, in this process or in another one. */
static int give(cb_quic_endpoint *e, cb_owner to, const cb_datagram *d) {
    if (!e->batch && cb_group_linked(e->group)) {
        e->batch = cb_mem_get(e->alloc, sizeof *e->batch);
        if (e->batch) e->batch->len = 0;
    }
    int rc = cb_group_hand_over(e->group, to, d, e->batch);
    if (rc == CB_OK) {
        e->stats.handed_over++;
        cb_cells_add(e->cells, CB_C_QUIC_HANDED_OVER_OUT, 1);
    }
    return rc;
}

/* The first packet of a connection, while we drain and a newer generation of this service takes what is new. */
static bool hand_on(cb_quic_endpoint *e, const cb_datagram *d, const ngtcp2_cid *dcid) {
    cb_owner to;
    if (!(e->refusing || e->superseded) || !cb_group_linked(e->group)) return false;
    uint64_t hash = cb_siphash(e->keys->cid.mask_key, dcid->data, dcid->datalen);
    return cb_group_newest(e->group, cb_addr_port(cb_udp_local(e->main.udp)), hash, &to) && give(e, to, d) == CB_OK;
}

static void accept_conn(cb_quic_endpoint *e, ep_socket *sock, const cb_datagram *d) {
    ngtcp2_pkt_hd hd;
    address_proof proof;
    ep_conn *c = NULL;
    if (!e->server || ngtcp2_accept(&hd, d->data, d->len) != 0) {
        e->stats.malformed++;
        cb_cells_add(e->cells, CB_C_QUIC_MALFORMED, 1);
        return;
    }
    if (hand_on(e, d, &hd.dcid)) return;
    if (e->refusing || e->conns_now >= e->o.max_conns) {
        cb_cells_add(e->cells, e->refusing ? CB_C_QUIC_REFUSED_DRAINING : CB_C_QUIC_REFUSED_FULL, 1);
        send_refusal(e, sock, d, &hd, NGTCP2_CONNECTION_REFUSED);
        return;
    }
    if (!prove_address(e, sock, d, &hd, &proof)) return;
    int rc = cb_quic_endpoint_conn_new(e, &c);
    if (rc >= 0) rc = open_server(e, c, d, &hd, &proof);
    if (rc < 0) {
        cb_log_line(e->log, CB_LOG_WARN, "quic", "cannot take a connection: %s", cb_last_error());
        if (c) cb_quic_endpoint_conn_drop(c);
        return;
    }
    e->stats.conns_total++;
    cb_cells_add(e->cells, CB_C_QUIC_OPENED_SERVER, 1);
    cb_quic_core_feed(&c->core, &d->local, &d->remote, d->ecn, d->data, d->len, cb_loop_now(e->loop));
}

/* --- routing --- */

static void answer_from_tomb(ep_tomb *t, ep_socket *sock) {
    uint32_t hits = ++t->hits;
    if (!t->packet_len || (hits & (hits - 1))) return; /* after 1, 2, 4, 8, ... packets (RFC 9000, 10.2.1) */
    cb_datagram to = {.local = t->local, .remote = t->remote};
    cb_quic_endpoint_send(sock, &to, t->packet, t->packet_len);
}

/* A connection ID of this server with another worker or process in it. True: dealt with. What was handed over already
 * only goes on to a newer generation, so that nothing goes round in circles. */
static bool hand_over(cb_quic_endpoint *e, const cb_datagram *d, const ngtcp2_version_cid *in, bool handed) {
    cb_quic_lb_info owner;
    uint8_t generation = e->keys->generation;
    if (!e->server) return false;
    if (cb_quic_lb_decode(&e->keys->cid, (cb_slice){in->dcid, in->dcidlen}, &owner) != CB_QUIC_LB_OURS) return false;
    const bool newer = cb_generation_after(owner.generation, generation);
    if (owner.generation == generation && owner.worker == e->o.worker) return false;
    if (handed && !newer) return false;
    cb_owner to = {owner.generation, owner.worker, cb_addr_port(cb_udp_local(e->main.udp))};
    int rc = give(e, to, d);
    /* Of a successor's successor only our successor knows. */
    if (rc == CB_ENOENT && newer && cb_group_newest(e->group, to.port, owner.worker, &to)) rc = give(e, to, d);
    if (rc != CB_ENOENT) return true;
    /* A process before this one that nobody told us of may live still, and would answer by itself: a reset would kill
     * its connection. */
    return !cb_group_linked(e->group) && (uint8_t)(owner.generation + 1) == generation;
}

/* A client's: does this packet end with a stateless reset token of one of its connections (RFC 9000, 10.3.1)? */
static ep_conn *find_reset(cb_quic_endpoint *e, const cb_datagram *d) {
    enum { TOKEN = NGTCP2_STATELESS_RESET_TOKENLEN, PEER_CIDS = 16 };
    ngtcp2_cid_token peer[PEER_CIDS];
    if (d->len < TOKEN + NGTCP2_MIN_STATELESS_RESET_RANDLEN) return NULL;
    for (cb_list *l = e->conns.next; l != &e->conns; l = l->next) {
        ep_conn *c = CB_CONTAINER(l, ep_conn, all);
        if (!cb_addr_equal(&c->core.remote, &d->remote)) continue;
        size_t n = ngtcp2_conn_get_active_dcid(c->core.ng, NULL);
        n = n <= PEER_CIDS ? ngtcp2_conn_get_active_dcid(c->core.ng, peer) : 0;
        for (size_t i = 0; i < n; i++) {
            bool same = gnutls_memcmp(peer[i].token, d->data + d->len - TOKEN, TOKEN) == 0;
            if (peer[i].token_present && same) return c;
        }
    }
    return NULL;
}

static void unknown_short(cb_quic_endpoint *e, ep_socket *sock, const cb_datagram *d, const ngtcp2_version_cid *in) {
    ep_conn *c = e->server ? NULL : find_reset(e, d);
    if (e->server) send_reset(e, sock, d, in);
    if (c) {
        cb_quic_core_feed(&c->core, cb_udp_local(sock->udp), &d->remote, d->ecn, d->data, d->len, cb_loop_now(e->loop));
    }
}

static void packet(cb_quic_endpoint *e, ep_socket *sock, const cb_datagram *d, bool handed) {
    ngtcp2_version_cid in;
    if (e->closed) return;
    int rv = d->len ? ngtcp2_pkt_decode_version_cid(&in, d->data, d->len, e->cid_len) : NGTCP2_ERR_INVALID_ARGUMENT;
    const bool refused_v2 = e->server && e->o.version == 1 && in.version == NGTCP2_PROTO_VER_V2;
    if (rv == NGTCP2_ERR_VERSION_NEGOTIATION || (rv == 0 && refused_v2)) {
        send_version_negotiation(e, sock, d, &in);
        return;
    }
    if (rv != 0) {
        e->stats.malformed++;
        cb_cells_add(e->cells, CB_C_QUIC_MALFORMED, 1);
        return;
    }
    ep_route *route = cb_quic_endpoint_lookup(e, in.dcid, in.dcidlen);
    if (route && route->kind == ROUTE_CONN) {
        ep_conn *c = CB_CONTAINER(route, ep_conn, route);
        const cb_addr *local = e->server ? &d->local : cb_udp_local(sock->udp);
        if (!e->server) cb_quic_endpoint_heard_at(c, &d->local);
        cb_quic_core_feed(&c->core, local, &d->remote, d->ecn, d->data, d->len, cb_loop_now(e->loop));
    } else if (route) {
        answer_from_tomb(CB_CONTAINER(route, ep_tomb, route), sock);
    } else if (!hand_over(e, d, &in, handed)) {
        if (d->data[0] & 0x80)
            accept_conn(e, sock, d);
        else
            unknown_short(e, sock, d, &in);
    }
}

void cb_quic_endpoint_packet(cb_quic_endpoint *e, ep_socket *sock, const cb_datagram *d) {
    e->depth++;
    packet(e, sock, d, false);
    e->depth--;
}

/* Only an attempt from whose peer nothing has come yet fails by it, and only when the quoted packet names our
 * connection ID, which nobody off the path can know: ICMP is not authenticated (RFC 9000, 14.2.1 and 21.12). */
void cb_quic_endpoint_unreachable(cb_quic_endpoint *e, int err, const cb_addr *remote, cb_slice quote) {
    ngtcp2_version_cid in;
    char text[CB_ADDR_TEXT];
    if (e->closed) return;
    if (err == EINVAL || err == EADDRNOTAVAIL || err == ENETUNREACH) cb_quic_endpoint_source_gone(e, remote);
    if (!quote.len || !(quote.base[0] & 0x80)) return;
    if (ngtcp2_pkt_decode_version_cid(&in, quote.base, quote.len, e->cid_len) != 0) return;
    ep_route *route = cb_map_get(&e->cids, in.scid, in.scidlen);
    if (!route || route->kind != ROUTE_CONN) return;
    cb_quic_conn *c = &CB_CONTAINER(route, ep_conn, route)->core;
    if (c->rx_packets || c->handshaken || !cb_addr_equal(&c->remote, remote)) return;
    cb_quic_core_finish(c, CB_EUNREACH, false, "%s: %s", cb_addr_text(remote, text),
                        err == ECONNREFUSED ? "refused: nobody listens on that UDP port" : strerrordesc_np(err));
}

static void flush_batch(cb_quic_endpoint *e) {
    if (e->batch && !e->closed) cb_group_flush(e->group, e->batch);
}

void cb_quic_endpoint_batch_end(cb_udp *u, void *user) {
    (void)u;
    flush_batch(((ep_socket *)user)->e);
}

/* Somebody newer reads one of our sockets: two readers would only take each other's packets. */
static void rest(cb_quic_endpoint *e, uint64_t cookie) {
    for (cb_list *l = e->sockets.next; l != &e->sockets; l = l->next) {
        cb_udp *u = CB_CONTAINER(l, ep_socket, link)->udp;
        if (cb_udp_cookie(u) != cookie) continue;
        cb_udp_rest(u, true);
        e->superseded = true;
    }
}

static void take(cb_quic_endpoint *e, enum cb_mail_kind kind, cb_datagram *d) {
    uint64_t cookie;
    if (kind == CB_MAIL_PACKET) {
        cb_cells_add(e->cells, CB_C_QUIC_HANDED_OVER_IN, 1);
        packet(e, &e->main, d, true);
    } else if (d->len == sizeof cookie) {
        memcpy(&cookie, d->data, sizeof cookie);
        rest(e, cookie);
    }
}

void cb_quic_endpoint_strays(cb_watch *w, unsigned events, void *user) {
    cb_quic_endpoint *e = user;
    cb_list strays;
    (void)w;
    (void)events;
    cb_list_init(&strays);
    cb_group_take(e->group, &e->inbox, &strays);
    e->depth++;
    while (!cb_list_empty(&strays)) {
        cb_stray *s = CB_CONTAINER(strays.next, cb_stray, link);
        cb_list_del(&s->link);
        take(e, s->kind, &s->d);
        cb_stray_free(s);
    }
    e->depth--;
    flush_batch(e);
}

void cb_quic_endpoint_read_mail(cb_watch *w, unsigned events, void *user) {
    cb_quic_endpoint *e = user;
    enum cb_mail_kind kind;
    cb_datagram d;
    (void)w;
    (void)events;
    e->depth++;
    for (int i = 0; i < MAILS_A_TURN && !e->closed; i++) {
        ssize_t n = recv(e->inbox.mail[0], e->mail, CB_MAIL_MAX, MSG_DONTWAIT);
        if (n <= 0) break;
        uint8_t *at = e->mail;
        size_t left = (size_t)n;
        while (!e->closed && cb_mail_read(&at, &left, &kind, &d))
            take(e, kind, &d);
    }
    e->depth--;
    flush_batch(e);
}
