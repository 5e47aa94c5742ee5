/* An endpoint's life: options, sockets, connecting, the end; and its part of cb/quic.h. */
#include "base/error.h"
#include "base/log.h"
#include "base/opts.h"
#include "transport/quic_aead_choice.h"
#include "transport/quic_cc.h"
#include "transport/quic_endpoint_int.h"
#include "transport/quic_stream.h"
#include <gnutls/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SESSIONS_KEPT = 256 };

/* --- options --- */

static void or_default(uint32_t *value, uint32_t otherwise) {
    if (!*value) *value = otherwise;
}

static void fill_defaults(cb_quic_opts *o) {
    or_default(&o->idle_timeout_ms, 30000);
    or_default(&o->handshake_timeout_ms, 10000);
    or_default(&o->max_streams_bidi, 100);
    or_default(&o->max_streams_uni, 100);
    or_default(&o->stream_window_bytes, 256 << 10);
    or_default(&o->conn_window_bytes, 1 << 20);
    or_default(&o->max_window_bytes, 16 << 20);
    or_default(&o->stream_send_bytes, 256 << 10);
    or_default(&o->retry_above, 256);
    or_default(&o->max_conns, 100000);
    if (o->max_window_bytes < o->conn_window_bytes) o->max_window_bytes = o->conn_window_bytes;
    if (o->max_window_bytes < o->stream_window_bytes) o->max_window_bytes = o->stream_window_bytes;
}

static int check(const cb_quic_opts *o, bool server) {
    if (!o->alpn || !*o->alpn) return cb_fail(CB_EINVAL, "cb_quic_opts.alpn: a protocol name is required");
    if (server && !o->identity) return cb_fail(CB_EINVAL, "cb_quic_opts.identity: a server needs a certificate");
    if (o->retry > 2) return cb_fail(CB_EINVAL, "cb_quic_opts.retry %u: 0, 1 or 2", o->retry);
    if (o->request_client_cert > 2) {
        return cb_fail(CB_EINVAL, "cb_quic_opts.request_client_cert %u: 0, 1 or 2", o->request_client_cert);
    }
    if (o->verify > CB_VERIFY_NONE) return cb_fail(CB_EINVAL, "cb_quic_opts.verify %u: no such value", o->verify);
    if (o->version > 2) return cb_fail(CB_EINVAL, "cb_quic_opts.version %u: 0, 1 or 2", o->version);
    if (!server && (o->n_fds || o->at_rest)) return cb_fail(CB_EINVAL, "cb_quic_opts: fds and at_rest are of servers");
    if (o->n_fds && !o->fds) return cb_fail(CB_EINVAL, "cb_quic_opts.fds is NULL");
    if (o->max_datagram_bytes > 65535) {
        return cb_fail(CB_EINVAL, "cb_quic_opts.max_datagram_bytes %u: at most 65,535", o->max_datagram_bytes);
    }
    return CB_OK;
}

/* What a client remembers of us for early data must be true when it comes back (RFC 9000, 7.4.1). */
int cb_quic_endpoint_bind_tickets(cb_quic_endpoint *e, const char *app) {
    const cb_quic_opts *o = &e->o;
    cb_buf b;
    cb_buf_init(&b, e->alloc, 65536);
    int rc = cb_buf_printf(&b, "quic %s %u %u %u %u %u %s|%s", o->early_data ? "early" : "", o->max_streams_bidi,
                           o->max_streams_uni, o->stream_window_bytes, o->conn_window_bytes, o->max_datagram_bytes, app,
                           e->tenant ? e->tenant : "");
    char *text = rc >= 0 ? cb_mem_get(e->alloc, b.len + 1) : NULL;
    if (text) {
        memcpy(text, b.base, b.len);
        text[b.len] = '\0';
        cb_mem_free(e->alloc, e->ticket_context);
        e->ticket_context = text;
    }
    cb_buf_free(&b);
    return text ? CB_OK : cb_fail(CB_ENOMEM, "no memory for an endpoint");
}

/* Takes its own copies and references of what the options point to. */
static int adopt(cb_quic_endpoint *e, const cb_quic_opts *opts) {
    int rc = cb_opts_read(&e->o, sizeof e->o, opts, "cb_quic_opts");
    if (rc >= 0) rc = check(&e->o, e->server);
    if (rc >= 0) rc = cb_quic_cc_choose(e->o.cc, getenv("CBR_CC"));
    if (rc < 0) return rc;
    e->o.cc = rc;
    rc = cb_quic_aead_choose(&e->aead, e->o.aead, getenv("CBR_AEAD"), e->log);
    if (rc < 0) return rc;
    fill_defaults(&e->o);
    if (e->o.ops && (rc = cb_opts_read(&e->ops, sizeof e->ops, e->o.ops, "cb_quic_conn_ops")) < 0) return rc;
    e->o.ops = &e->ops;
    if (!(e->alpn = cb_mem_text(e->alloc, e->o.alpn))) return cb_fail(CB_ENOMEM, "no memory for an endpoint");
    e->o.alpn = e->alpn;
    if (e->o.ticket_context && !(e->tenant = cb_mem_text(e->alloc, e->o.ticket_context)))
        return cb_fail(CB_ENOMEM, "no memory for an endpoint");
    e->o.ticket_context = e->tenant;
    rc = cb_quic_endpoint_bind_tickets(e, "");
    if (rc < 0) return rc;
    if (e->o.identity)
        e->identity = cb_identity_ref(e->o.identity);
    else
        rc = cb_identity_new(&e->identity, NULL);
    if (rc < 0) return rc;
    if (e->o.group)
        e->group = cb_group_ref(e->o.group);
    else
        rc = cb_group_new(&e->group, NULL);
    if (rc < 0) return rc;
    e->keys = cb_group_keys_of(e->group);
    e->cid_len = e->server ? cb_quic_lb_cid_bytes(&e->keys->cid) : CB_QUIC_CID_CLIENT;
    if (!e->server) return cb_session_cache_new(&e->cache, e->alloc, SESSIONS_KEPT, e->o.sessions);
    if (e->o.tickets)
        e->tickets = cb_tickets_ref(e->o.tickets);
    else
        rc = cb_tickets_new(&e->tickets, NULL);
    return rc < 0 ? rc : CB_OK;
}

/* --- sockets --- */

static bool on_datagram(cb_udp *u, cb_datagram *d, void *user) {
    ep_socket *sock = user;
    cb_quic_endpoint *e = sock->e;
    (void)u;
    cb_quic_endpoint_packet(e, sock, d);
    return !e->closed;
}

static void on_unreachable(cb_udp *u, int err, const cb_addr *remote, cb_slice quote, void *user) {
    (void)u;
    ep_socket *sock = user;
    cb_quic_endpoint_unreachable(sock->e, err, remote, quote);
}

static void on_writable(cb_udp *u, void *user) {
    ep_socket *sock = user;
    (void)u;
    cb_defer_later(&sock->e->flush);
}

static int open_socket(cb_quic_endpoint *e, ep_socket *sock, const cb_addr *bind, int fd) {
    cb_udp_opts o = {
        .bind = *bind,
        .fd = fd,
        .rcvbuf_bytes = e->o.rcvbuf_bytes,
        .sndbuf_bytes = e->o.sndbuf_bytes,
        .reuseport = e->server && cb_group_workers(e->group) > 1,
        .no_gso = e->o.no_gso,
        .no_gro = e->o.no_gro,
        .no_ecn = e->o.no_ecn,
        .no_pmtud = e->o.no_pmtud,
        .on_datagram = on_datagram,
        .on_writable = on_writable,
        .on_unreachable = e->server ? NULL : on_unreachable,
        .on_batch_end = e->server ? cb_quic_endpoint_batch_end : NULL,
        .user = sock,
    };
    sock->e = e;
    int rc = cb_udp_open(&sock->udp, e->loop, &o);
    if (rc >= 0) cb_list_add_tail(&e->sockets, &sock->link);
    return rc;
}

int cb_quic_endpoint_socket(cb_quic_endpoint *e, ep_socket *sock, const cb_addr *bind) {
    return open_socket(e, sock, bind, 0);
}

void cb_quic_endpoint_drop_socket(ep_socket *s) {
    cb_list_del(&s->link);
    cb_udp_close(s->udp);
    if (s->owner || s->further) cb_mem_free(s->e->alloc, s);
}

void cb_quic_endpoint_drop_sockets(ep_conn *owner, const cb_addr *keep_local) {
    cb_quic_endpoint *e = owner->e;
    for (cb_list *l = e->sockets.next, *next; l != &e->sockets; l = next) {
        next = l->next;
        ep_socket *s = CB_CONTAINER(l, ep_socket, link);
        if (s->owner != owner) continue;
        if (keep_local && cb_addr_equal(cb_udp_local(s->udp), keep_local)) continue;
        if (!keep_local) cb_udp_flush(s->udp); /* the last packet may be in it */
        cb_quic_endpoint_drop_socket(s);
    }
}

static void rest_all(cb_quic_endpoint *e, bool rest) {
    for (cb_list *l = e->sockets.next; l != &e->sockets; l = l->next)
        cb_udp_rest(CB_CONTAINER(l, ep_socket, link)->udp, rest);
}

/* New connections are ours from here on. */
static void begin(cb_quic_endpoint *e) {
    uint16_t port = cb_addr_port(cb_udp_local(e->main.udp));
    if (e->steered) cb_group_activate(e->group, cb_udp_fd(e->main.udp));
    for (cb_list *l = e->sockets.next; e->o.n_fds && l != &e->sockets; l = l->next)
        cb_group_tell_rest(e->group, port, cb_udp_cookie(CB_CONTAINER(l, ep_socket, link)->udp));
}

/* On a virtual loop there is no other worker who could hand over. */
static int join_group(cb_quic_endpoint *e) {
    if (cb_loop_is_virtual(e->loop)) return CB_OK;
    uint16_t port = cb_addr_port(cb_udp_local(e->main.udp));
    int fd = e->o.n_fds ? -1 : cb_udp_fd(e->main.udp);
    int rc = cb_group_join(e->group, &e->inbox, e->o.worker, port, fd, &e->steered);
    if (rc < 0) return rc;
    e->joined = true;
    return cb_watch_new(&e->inbox_watch, e->loop, e->inbox.wake, CB_READABLE, cb_quic_endpoint_strays, e);
}

/* The first socket that was taken over is the main one; what more there is is read only. */
static int open_further(cb_quic_endpoint *e) {
    int rc = CB_OK;
    for (uint32_t i = 1; i < e->o.n_fds && rc == CB_OK; i++) {
        ep_socket *s = cb_mem_new(e->alloc, sizeof *s);
        if (!s) return cb_fail(CB_ENOMEM, "no memory for a socket");
        s->further = true;
        rc = open_socket(e, s, cb_udp_local(e->main.udp), e->o.fds[i]);
        if (rc < 0) cb_mem_free(e->alloc, s);
    }
    return rc;
}

static int open_main(cb_quic_endpoint *e, const cb_addr *bind) {
    int rc = open_socket(e, &e->main, bind, e->o.n_fds ? e->o.fds[0] : 0);
    if (rc == CB_OK) rc = open_further(e);
    if (rc < 0) return rc;
    cb_addr_text(cb_udp_local(e->main.udp), e->local_text);
    if (!e->server) return CB_OK;
    if (e->o.at_rest) rest_all(e, true);
    rc = join_group(e);
    if (rc == CB_OK && !e->o.at_rest && cb_group_linked(e->group)) begin(e);
    return rc;
}

/* --- the end --- */

static void release(cb_quic_endpoint *e) {
    cb_map_free(&e->cids);
    cb_mem_free(e->alloc, e->batch);
    cb_mem_free(e->alloc, e->mail);
    cb_session_cache_free(e->cache);
    cb_identity_unref(e->identity);
    cb_tickets_unref(e->tickets);
    cb_group_unref(e->group);
    cb_mem_free(e->alloc, e->tokens);
    cb_mem_free(e->alloc, e->paths);
    cb_mem_free(e->alloc, e->alpn);
    cb_mem_free(e->alloc, e->tenant);
    cb_mem_free(e->alloc, e->ticket_context);
    cb_mem_free(e->alloc, e);
}

static void bury_last(cb_grave *g) {
    release(CB_CONTAINER(g, cb_quic_endpoint, grave));
}

/* Ends every connection and closes the sockets. Not inside a call of the library. */
static void close_all(cb_quic_endpoint *e) {
    while (!cb_list_empty(&e->conns)) {
        ep_conn *c = CB_CONTAINER(e->conns.next, ep_conn, all);
        cb_quic_core_finish(&c->core, CB_OK, true, "the endpoint was closed here");
        cb_quic_endpoint_finish(c);
    }
    while (!cb_list_empty(&e->tombs)) {
        cb_quic_endpoint_tomb_free(CB_CONTAINER(e->tombs.next, ep_tomb, link));
    }
    e->closed = true;
    cb_watch_free(e->inbox_watch);
    cb_watch_free(e->mail_watch);
    if (e->batch && e->joined) cb_group_flush(e->group, e->batch);
    if (e->joined) cb_group_leave(e->group, &e->inbox);
    while (!cb_list_empty(&e->sockets)) {
        ep_socket *s = CB_CONTAINER(e->sockets.next, ep_socket, link);
        cb_udp_flush(s->udp);
        cb_quic_endpoint_drop_socket(s);
    }
    cb_defer_cancel(&e->flush);
    cb_alarm_stop(&e->again);
    cb_loop_bury(e->loop, &e->grave, bury_last);
}

static void bury_first(cb_grave *g) {
    close_all(CB_CONTAINER(g, cb_quic_endpoint, grave));
}

void cb_quic_endpoint_free(cb_quic_endpoint *e) {
    if (!e || e->dead) return;
    e->dead = true;
    e->refusing = true;
    if (e->depth)
        cb_loop_bury(e->loop, &e->grave, bury_first); /* one of its connections is on the stack */
    else
        close_all(e);
}

/* --- the start --- */

static int open_mail(cb_quic_endpoint *e) {
    if (e->mail_watch) return CB_OK;
    if (!e->mail && !(e->mail = cb_mem_get(e->alloc, CB_MAIL_MAX))) return cb_fail(CB_ENOMEM, "no memory for mail");
    int rc = cb_group_open_mail(e->group, &e->inbox);
    if (rc < 0) return rc;
    return cb_watch_new(&e->mail_watch, e->loop, e->inbox.mail[0], CB_READABLE, cb_quic_endpoint_read_mail, e);
}

/* What was to be taken over stays the caller's when opening fails. */
void cb_quic_endpoint_give_back(cb_quic_endpoint *e) {
    for (cb_list *l = e->sockets.next; e->o.n_fds && l != &e->sockets; l = l->next)
        cb_udp_give_back(CB_CONTAINER(l, ep_socket, link)->udp);
}

int cb_quic_endpoint_open(cb_quic_endpoint **out, cb_loop *loop, const cb_addr *bind, bool server,
                          const cb_quic_opts *opts, const cb_quic_app_factory *factory) {
    const cb_alloc *alloc = cb_loop_alloc(loop);
    cb_quic_endpoint *e = cb_mem_new(alloc, sizeof *e);
    if (!e) return cb_fail(CB_ENOMEM, "no memory for an endpoint");
    e->loop = loop;
    e->alloc = alloc;
    e->log = cb_loop_log(loop);
    e->cells = cb_loop_cells(loop);
    e->server = server;
    e->factory = *factory;
    cb_map_init(&e->cids, alloc, cb_loop_hash_key(loop));
    cb_list_init(&e->conns);
    cb_list_init(&e->dirty);
    cb_list_init(&e->tombs);
    e->tombs_max = TOMBS_MAX;
    cb_list_init(&e->sockets);
    cb_defer_init(&e->flush, loop, cb_quic_endpoint_flush);
    cb_alarm_init(&e->again, loop, cb_quic_endpoint_again);
    int rc = adopt(e, opts);
    if (rc >= 0 && bind) rc = open_main(e, bind);
    if (rc >= 0 && e->joined && cb_group_linked(e->group)) rc = open_mail(e);
    if (rc < 0) {
        cb_quic_endpoint_give_back(e);
        cb_quic_endpoint_free(e);
        return rc;
    }
    *out = e;
    return CB_OK;
}

void cb_quic_endpoint_resume(cb_quic_endpoint *e) {
    if (!e->server || e->dead || !e->o.at_rest) return;
    e->o.at_rest = 0;
    rest_all(e, false);
    begin(e);
}

size_t cb_quic_endpoint_fds(const cb_quic_endpoint *e, int32_t *out, size_t cap) {
    size_t n = 0;
    for (cb_list *l = e->sockets.next; l != &e->sockets; l = l->next, n++)
        if (n < cap) out[n] = cb_udp_fd(CB_CONTAINER(l, ep_socket, link)->udp);
    return n;
}

int cb_quic_endpoint_save(cb_quic_endpoint *e, cb_handoff *h, const char *name) {
    if (!e->joined || e->dead) return cb_fail(CB_EINVAL, "cb_quic_endpoint_save: not a server");
    int rc = open_mail(e);
    for (cb_list *l = e->sockets.next; name && l != &e->sockets && rc == CB_OK; l = l->next)
        rc = cb_handoff_put_fd(h, name, cb_udp_fd(CB_CONTAINER(l, ep_socket, link)->udp));
    return rc;
}

int cb_quic_endpoint_conn_new(cb_quic_endpoint *e, ep_conn **out) {
    ep_conn *c = cb_mem_new(e->alloc, sizeof *c);
    if (!c) return cb_fail(CB_ENOMEM, "no memory for a connection");
    c->route.kind = ROUTE_CONN;
    c->e = e;
    c->core.alloc = e->alloc;
    cb_list_add_tail(&e->conns, &c->all);
    cb_list_init(&c->dirty);
    cb_alarm_init(&c->alarm, e->loop, cb_quic_endpoint_tick);
    c->handshaking = true;
    e->handshakes++;
    e->conns_now++;
    cb_cells_move(e->cells, CB_SIDE(e->server, QUIC_CONNECTIONS), 1);
    cb_cells_move(e->cells, CB_SIDE(e->server, QUIC_UNDER_WAY), 1);
    *out = c;
    return CB_OK;
}

void cb_quic_endpoint_conn_drop(ep_conn *c) {
    cb_quic_endpoint *e = c->e;
    cb_quic_endpoint_unroute_all(e, &c->route); /* rare: when memory is short, or options are wrong */
    cb_list_del(&c->all);
    cb_list_del(&c->dirty);
    cb_alarm_stop(&c->alarm);
    e->conns_now--;
    cb_cells_move(e->cells, CB_SIDE(e->server, QUIC_CONNECTIONS), -1);
    cb_quic_endpoint_handshake_over(c);
    cb_quic_core_free(&c->core);
    cb_mem_free(e->alloc, c->name);
    cb_mem_free(e->alloc, c);
}

/* --- connecting --- */

static void keep_early_params(void *user, cb_buf *out) {
    ep_conn *c = user;
    uint8_t params[512];
    ngtcp2_ssize n = ngtcp2_conn_encode_0rtt_transport_params(c->core.ng, params, sizeof params);
    if (n > 0) (void)cb_buf_add(out, params, (size_t)n);
}

static cb_slice token_for(const cb_quic_endpoint *e, const cb_addr *remote) {
    for (unsigned i = 0; e->tokens && i < TOKENS_KEPT; i++) {
        ep_token *t = &e->tokens[(e->next_token - 1 - i) % TOKENS_KEPT];
        if (t->len && cb_addr_equal(&t->remote, remote)) {
            cb_slice found = {t->bytes, t->len};
            t->len = 0; /* once (RFC 9000, 8.1.3) */
            return found;
        }
    }
    return (cb_slice){NULL, 0};
}

/* tried: the version before this one, 0 = it is the first. */
static int open_client(ep_conn *c, const cb_addr *remote, const char *server_name, uint32_t version, uint32_t tried) {
    cb_quic_endpoint *e = c->e;
    char key[CB_ADDR_TEXT];
    uint8_t reset_token[NGTCP2_STATELESS_RESET_TOKENLEN], dcid[18];
    /* By address, beside the name: an attempt on an address that never answered must not use up a ticket, nor win a
     * race because it may send early data. */
    cb_addr_text(remote, key);
    cb_quic_core_init init = {
        .host = &cb_quic_endpoint_host,
        .opts = &e->o,
        .alloc = e->alloc,
        .log = e->log,
        .loop = e->loop,
        .aead = e->aead,
        .cc_below = cb_quic_endpoint_below(e, remote),
        .local = cb_udp_local(e->main.udp),
        .remote = remote,
        .now = cb_loop_now(e->loop),
        .version = version,
        .original_version = tried,
        .token = token_for(e, remote),
    };
    if (init.token.len) init.token_type = NGTCP2_TOKEN_TYPE_NEW_TOKEN;
    cb_tls_opts tls = {
        .loop = e->loop,
        .quic = true,
        .early_data = e->o.early_data,
        .identity = e->identity,
        .alpn = e->alpn,
        .server_name = server_name,
        .verify = e->o.verify,
        .cache = e->cache,
        .cache_key = key,
        .cache_any = c->elsewhere,
        .ticket_extra = keep_early_params,
        .user = c,
    };
    int rc = cb_loop_random(e->loop, dcid, sizeof dcid);
    if (rc < 0) return rc;
    ngtcp2_cid_init(&init.dcid, dcid, sizeof dcid);
    rc = cb_quic_endpoint_cid(e, &init.scid, reset_token);
    if (rc >= 0) rc = cb_tls_session_new(&init.tls, e->alloc, &tls);
    if (rc >= 0) rc = tried ? cb_quic_core_reopen(&c->core, &init) : cb_quic_core_open(&c->core, &init, false);
    if (rc < 0) return rc;
    cb_quic_endpoint_may_wait(c);
    return cb_quic_endpoint_route(e, &init.scid, &c->route);
}

int cb_quic_endpoint_reopen(ep_conn *c, uint32_t version) {
    const cb_addr remote = c->core.remote;
    const uint32_t tried = ngtcp2_conn_get_client_chosen_version(c->core.ng);
    cb_quic_endpoint_unroute_all(c->e, &c->route);
    return open_client(c, &remote, c->name, version, tried);
}

int cb_quic_endpoint_connect(cb_quic_conn **out, cb_quic_endpoint *e, const cb_addr *remote, const char *server_name,
                             const cb_quic_app_factory *factory, bool elsewhere) {
    ep_conn *c = NULL;
    int rc = CB_OK;
    if (e->server) return cb_fail(CB_EINVAL, "cb_quic_connect: this endpoint is a server");
    if (e->dead || e->refusing) return cb_fail(CB_ECLOSED, "the endpoint is closed");
    if (!factory) factory = &e->factory;
    if (!e->main.udp) {
        cb_addr any = {.sa.sa_family = remote->sa.sa_family};
        rc = open_main(e, &any);
    }
    if (rc >= 0) rc = cb_quic_endpoint_conn_new(e, &c);
    const bool v2 = e->o.version == 2;
    if (rc >= 0) c->elsewhere = elsewhere;
    if (rc >= 0 && v2 && server_name && !(c->name = cb_mem_text(e->alloc, server_name)))
        rc = cb_fail(CB_ENOMEM, "no memory for a name");
    if (rc >= 0) rc = open_client(c, remote, server_name, v2 ? NGTCP2_PROTO_VER_V2 : NGTCP2_PROTO_VER_V1, 0);
    if (rc >= 0) rc = factory->make(&c->core.app, &c->core, factory->user);
    if (rc < 0) {
        if (c) cb_quic_endpoint_conn_drop(c);
        return rc;
    }
    e->stats.conns_total++;
    cb_cells_add(e->cells, CB_C_QUIC_OPENED_CLIENT, 1);
    cb_quic_endpoint_host.wake(&c->core);
    *out = &c->core;
    return CB_OK;
}

/* --- cb/quic.h --- */

static int make_raw(cb_quic_app **out, cb_quic_conn *c, void *user) {
    cb_quic_endpoint *e = user;
    return cb_quic_raw_new(out, c, &e->ops, e->o.user);
}

static int open_raw(cb_quic_endpoint **out, cb_loop *loop, const cb_addr *bind, bool server, const cb_quic_opts *opts) {
    cb_quic_endpoint *e = NULL;
    int rc = cb_quic_endpoint_open(&e, loop, bind, server, opts, &(cb_quic_app_factory){make_raw, NULL});
    if (rc < 0) return rc;
    e->factory.user = e;
    *out = e;
    return CB_OK;
}

int cb_quic_listen(cb_quic_endpoint **out, cb_loop *loop, const char *listen, const cb_quic_opts *opts) {
    cb_addr bind;
    if (!out || !loop || !listen)
        return cb_fail(CB_EINVAL, "cb_quic_listen: %s is NULL", !out ? "out" : !loop ? "loop" : "listen");
    int rc = cb_addr_parse(&bind, listen, 0);
    return rc < 0 ? rc : open_raw(out, loop, &bind, true, opts);
}

int cb_quic_client(cb_quic_endpoint **out, cb_loop *loop, const char *bind, const cb_quic_opts *opts) {
    if (!out || !loop) return cb_fail(CB_EINVAL, "cb_quic_client: %s is NULL", !out ? "out" : "loop");
    cb_addr addr;
    int rc = bind ? cb_addr_parse(&addr, bind, 0) : CB_OK;
    return rc < 0 ? rc : open_raw(out, loop, bind ? &addr : NULL, false, opts);
}

int cb_quic_connect(cb_quic_conn **out, cb_quic_endpoint *e, const char *remote, const char *server_name) {
    cb_addr addr;
    if (!out || !e || !remote)
        return cb_fail(CB_EINVAL, "cb_quic_connect: %s is NULL", !out ? "out" : !e ? "e" : "remote");
    int rc = cb_addr_parse(&addr, remote, 0);
    if (rc < 0) return rc;
    if (!cb_addr_port(&addr)) return cb_fail(CB_EINVAL, "cb_quic_connect: \"%s\" has no port", remote);
    return cb_quic_endpoint_connect(out, e, &addr, server_name, NULL, false);
}

const char *cb_quic_endpoint_local(const cb_quic_endpoint *e) {
    return e->local_text;
}

const cb_addr *cb_quic_endpoint_addr(const cb_quic_endpoint *e) {
    return e->main.udp && !e->closed ? cb_udp_local(e->main.udp) : NULL;
}

void cb_quic_endpoint_refuse(cb_quic_endpoint *e) {
    e->refusing = true;
}

int cb_quic_endpoint_stats_get(const cb_quic_endpoint *e, cb_quic_endpoint_stats *out) {
    cb_quic_endpoint_stats s = e->stats;
    s.conns_now = e->conns_now;
    if (e->main.udp && !e->closed) {
        const cb_udp_stats *u = cb_udp_stats_get(e->main.udp);
        s.rx_datagrams = u->rx_datagrams;
        s.rx_bytes = u->rx_bytes;
        s.tx_datagrams = u->tx_datagrams;
        s.tx_bytes = u->tx_bytes;
        s.rx_calls = u->rx_calls;
        s.tx_calls = u->tx_calls;
        s.tx_dropped = u->tx_dropped;
        s.rcvbuf_bytes = u->rcvbuf;
        s.sndbuf_bytes = u->sndbuf;
        s.gso = u->gso;
        s.gro = u->gro;
        s.ecn = u->ecn;
    }
    s.steering = e->steered;
    s.aead = (uint8_t)e->aead->id;
    return cb_stats_give(out, &s, sizeof s, "cb_quic_endpoint_stats");
}
