/* One connection to an origin: from a connected socket, or from nothing for QUIC, to framing and back. */
#include "base/error.h"
#include "http/pool_int.h"
#include "transport/proxy_header.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static cb_pool_conn *conn_of(cb_drive *d) {
    return CB_CONTAINER(d, cb_pool_conn, drive);
}

/* ---- life ---- */

static void conn_bury(cb_grave *g) {
    cb_pool_conn *c = CB_CONTAINER(g, cb_pool_conn, grave);
    cb_mem_free(cb_loop_alloc(c->drive.loop), c);
}

static int conn_new(cb_pool_conn **out, cb_leg *leg, const cb_addr *at, const cb_drive_ops *ops) {
    cb_origin *o = cb_opening_origin(leg->op);
    cb_pool_conn *c = cb_mem_new(o->pool->alloc, sizeof *c);
    if (!c) return cb_fail(CB_ENOMEM, "connection");
    cb_list_init(&c->link);
    cb_list_init(&c->avail);
    cb_drive_init(&c->drive, o->pool->loop, ops);
    cb_stall_init(c);
    c->leg = leg;
    c->is_quic = leg->quic;
    c->origin = o;
    c->at = *at;
    c->began = cb_loop_now(o->pool->loop);
    if (leg->alt) {
        c->alt_port = leg->port;
        if (strcmp(leg->host, o->host) != 0) memcpy(c->alt, leg->host, sizeof c->alt);
    }
    cb_origin_hold(o);
    *out = c;
    return CB_OK;
}

static void on_gone(cb_drive *d) {
    cb_pool_conn *c = conn_of(d);
    cb_list_del(&c->link);
    cb_list_del(&c->avail);
    cb_alarm_stop(&c->watch);
    c->gone = true;
    if (!c->users) cb_loop_bury(d->loop, &c->grave, conn_bury);
    cb_origin_unref(c->origin);
}

static void lost(cb_pool_conn *c, int rc) {
    cb_leg *leg = c->leg;
    c->leg = NULL;
    if (leg) cb_leg_lost(leg, c, rc);
}

/* The end is decided: of an attempt, of one that is not wanted, or of an open connection. */
static void on_ended(cb_drive *d, int rc) {
    cb_pool_conn *c = conn_of(d);
    cb_origin *o = c->origin;
    if (c->leg && rc == CB_OK) rc = cb_fail(CB_ECLOSED, "the origin closed the connection during the handshake");
    lost(c, rc);
    if (!c->open) return;
    char text[CB_ADDR_TEXT];
    c->open = false;
    o->stats.conns--;
    cb_pool_conn_idle(c, false);
    cb_pool_count_closed(c, rc);
    if (c->is_quic && !c->silent) o->quic_conns--;
    cb_list_del(&c->avail);
    cb_alarm_stop(&c->watch);
    if (rc < 0)
        cb_log_line(o->pool->log, CB_LOG_DEBUG, "pool", "%s: connection to %s closed: %s: %s", o->name,
                    cb_addr_text(&c->at, text), cb_strerror(rc), cb_last_error());
    if (!o->pool->freed) cb_origin_wake(o); /* what waits may need another one */
}

void cb_pool_conn_idle(cb_pool_conn *c, bool idle) {
    const int change = (int)idle - (int)c->idle;
    if (!change) return;
    c->idle = idle;
    c->origin->stats.idle += (uint32_t)change;
    cb_cells_move(cb_loop_cells(c->drive.loop), CB_C_POOL_IDLE, change);
}

void cb_pool_conn_offer(cb_pool_conn *c) {
    if (!c->open || c->drive.ending || c->silent) return;
    cb_origin *o = c->origin;
    cb_list_del(&c->avail);
    cb_list_add_tail(&o->avail, &c->avail);
    if (o->stats.queued || o->stats.idle > o->pool->opts.max_idle || o->pool->draining) cb_origin_wake(o);
}

void cb_pool_conn_released(cb_pool_conn *c) {
    c->users--;
    if (c->gone && !c->users) cb_loop_bury(c->drive.loop, &c->grave, conn_bury);
    if (!c->open || c->drive.ending || !c->drive.h) return;
    if (c->drive.h->n_exchanges == 0) cb_pool_conn_idle(c, true);
    cb_pool_conn_offer(c);
}

static cb_tls_session *tls_of(const cb_pool_conn *c) {
    return c->drive.qc ? cb_quic_conn_tls(c->drive.qc) : cb_channel_tls(c->drive.ch);
}

void cb_pool_conn_opened(cb_pool_conn *c) {
    cb_origin *o = c->origin;
    const int version = c->drive.h->vt->version;
    cb_list_del(&c->link);
    cb_list_add_tail(&o->conns, &c->link);
    c->leg = NULL;
    c->open = true;
    c->version = version;
    c->ready = cb_loop_now(o->pool->loop);
    o->stats.conns++;
    cb_pool_conn_idle(c, true);
    o->stats.opened++;
    o->quic_conns += c->is_quic;
    o->pool->stats.opened[version]++;
    const cb_tls_session *tls = tls_of(c);
    const bool resumed = tls && cb_tls_session_resumed(tls);
    o->pool->stats.resumed += resumed;
    cb_pool_count_opened(c, resumed);
    o->known = true;
    o->multiplexes = version != CB_HTTP_1;
    cb_pool_conn_offer(c);
    if (o->pool->draining) c->drive.h->vt->drain(c->drive.h);
}

void cb_pool_conn_dropped(cb_pool_conn *c) {
    c->leg = NULL;
    cb_list_del(&c->link);
    if (c->connector) { /* there is nothing yet that could end in order */
        cb_tcp_connect_cancel(c->connector);
        c->connector = NULL;
        on_gone(&c->drive);
        return;
    }
    cb_list_add_tail(&c->origin->conns, &c->link); /* so that it goes with the pool */
    cb_drive_end(&c->drive, CB_ECLOSED, true);
}

/* ---- framing ---- */

static void on_capacity(cb_hconn *h) {
    cb_pool_conn *c = conn_of(h->env.owner_user);
    if (c->leg && c->drive.h == h && h->vt->capacity(h) > 0) {
        cb_leg_won(c->leg, c);
        /* Early data: now, in the burst of the first packet; the pacer would hold back a second one for too long. */
        if (c->drive.qc && cb_quic_conn_in_early_data(c->drive.qc)) cb_origin_dispatch(c->origin);
        return;
    }
    if (h->vt->capacity(h) > 0) cb_pool_conn_offer(c);
}

static void on_limit(cb_hconn *h, const char *what) {
    cb_pool_conn *c = conn_of(h->env.owner_user);
    cb_cells_add(cb_loop_cells(c->drive.loop), CB_C_POOL_LIMITS, 1);
    cb_log_line(c->origin->pool->log, CB_LOG_DEBUG, "pool", "%s: limit reached: %s", c->origin->name, what);
}

static const cb_hconn_owner_ops owner_ops = {
    .wake = cb_drive_on_wake, .capacity = on_capacity, .limit = on_limit, .gone = cb_drive_on_gone};

static void fill_env(cb_pool_conn *c, cb_hconn_env *env, const cb_addr *local) {
    cb_pool *p = c->origin->pool;
    *env = (cb_hconn_env){.loop = p->loop,
                          .alloc = p->alloc,
                          .log = p->log,
                          .cells = cb_loop_cells(p->loop),
                          .limits = &p->limits,
                          .owner = &owner_ops,
                          .owner_user = &c->drive,
                          .sink = &c->drive.sink,
                          .scheme = c->origin->t.tls ? "https" : "http",
                          .sni = c->origin->t.tls ? c->origin->sni : "",
                          .tls = tls_of(c),
                          .remote = c->at,
                          .local = *local};
}

/* ---- TCP ---- */

/* What ALPN chose, or what was known before: enum cb_http_version, or < 0. */
static int version_of(const cb_pool_conn *c) {
    const uint32_t offered = c->origin->t.versions;
    cb_tls_session *tls = cb_channel_tls(c->drive.ch);
    const char *alpn = tls ? cb_tls_session_alpn(tls) : "";
    if (!tls) return offered & CB_HTTP_1 ? CB_HTTP_1 : CB_HTTP_2;
    if (strcmp(alpn, "h2") == 0 && offered & CB_HTTP_2) return CB_HTTP_2;
    if ((strcmp(alpn, "http/1.1") == 0 || !*alpn) && offered & CB_HTTP_1) return CB_HTTP_1;
    return cb_fail(CB_EPROTO, "the origin does not speak HTTP/2 (ALPN \"%s\")", alpn);
}

static void on_open(cb_drive *d) {
    cb_pool_conn *c = conn_of(d);
    cb_hconn_env env;
    cb_hconn *h = NULL;
    fill_env(c, &env, cb_channel_local(d->ch));
    int rc = version_of(c);
    if (rc > 0) rc = rc == CB_HTTP_2 ? cb_h2_new(&h, &env) : cb_h1_new(&h, &env);
    if (rc < 0) {
        cb_drive_end(d, rc, true);
        return;
    }
    cb_drive_run(d, h);
    if (c->leg && h->vt->capacity(h) > 0) cb_leg_won(c->leg, c);
}

static const cb_drive_ops tcp_ops = {.open = on_open, .ended = on_ended, .gone = on_gone};

/* The PROXY header comes before everything else; a fresh socket takes it whole. */
static int send_proxy_header(const cb_pool_conn *c, int fd) {
    const cb_pool_target *t = &c->origin->t;
    uint8_t header[128];
    if (!t->send_proxy) return CB_OK;
    int n = cb_proxy_header_write(header, t->send_proxy, t->proxy_src, t->proxy_dst);
    if (n < 0) return n;
    ssize_t sent = send(fd, header, (size_t)n, MSG_NOSIGNAL);
    if (sent < 0) return cb_fail_errno(errno, "PROXY header");
    return sent == n ? CB_OK : cb_fail(CB_ESYS, "PROXY header: only %zd of %d bytes were taken", sent, n);
}

static const char *tcp_alpn(uint32_t versions) {
    if ((versions & (CB_HTTP_1 | CB_HTTP_2)) == (CB_HTTP_1 | CB_HTTP_2)) return "h2,http/1.1";
    return versions & CB_HTTP_2 ? "h2" : "http/1.1";
}

/* fd is owned from here. */
static int run_on(cb_pool_conn *c, int fd) {
    cb_origin *o = c->origin;
    cb_pool *p = o->pool;
    const cb_tls_opts tls = {.tls12 = o->t.tls12,
                             .identity = o->t.identity,
                             .alpn = tcp_alpn(o->t.versions),
                             .server_name = o->sni,
                             .verify = o->t.verify,
                             .cache = p->sessions,
                             .cache_key = o->name};
    const cb_channel_opts opts = {.tls = o->t.tls ? &tls : NULL,
                                  .ops = &cb_drive_channel_ops,
                                  .user = &c->drive,
                                  .handshake_timeout = p->opts.connect_timeout,
                                  .write_timeout = p->limits.send_timeout_ms * CB_MS};
    int rc = send_proxy_header(c, fd);
    if (rc == CB_OK) rc = cb_channel_new(&c->drive.ch, p->loop, fd, &c->at, &opts);
    if (rc < 0) close(fd);
    return rc;
}

static void on_connect(int fd_or_rc, void *user) {
    cb_pool_conn *c = user;
    char text[CB_ADDR_TEXT], why[POOL_WHY_BYTES];
    c->connector = NULL;
    int rc = fd_or_rc < 0 ? fd_or_rc : run_on(c, fd_or_rc);
    if (rc == CB_OK) {
        c->connected = cb_loop_now(c->drive.loop);
        cb_leg_connected(c->leg, c);
        return;
    }
    cb_addr_text(&c->at, text);
    snprintf(why, sizeof why, "%s", cb_last_error());
    if (!strstr(why, text)) cb_fail(rc, "%s: %s", text, why); /* else it names the address itself */
    lost(c, rc);
    on_gone(&c->drive);
}

int cb_pool_conn_tcp(cb_pool_conn **out, cb_leg *leg, const cb_addr *at) {
    cb_pool_conn *c = NULL;
    int rc = conn_new(&c, leg, at, &tcp_ops);
    if (rc == CB_OK)
        rc = at->sa.sa_family == AF_UNIX
                 ? cb_unix_connect(&c->connector, c->drive.loop, cb_unix_path(leg->host), 0, on_connect, c)
                 : cb_tcp_connect(&c->connector, c->drive.loop, at, 0, on_connect, c);
    if (rc < 0) {
        if (c) on_gone(&c->drive);
        return rc;
    }
    *out = c;
    return CB_OK;
}

/* ---- QUIC ---- */

static const cb_drive_ops quic_ops = {.ended = on_ended, .gone = on_gone};

static int make(cb_quic_app **out, cb_quic_conn *qc, void *user) {
    cb_pool_conn *c = user;
    cb_hconn_env env;
    cb_hconn *h = NULL;
    c->drive.qc = qc;
    fill_env(c, &env, cb_quic_conn_local_addr(qc));
    env.sink = NULL;
    int rc = cb_h3_new(&h, &env, qc);
    if (rc < 0) {
        c->drive.qc = NULL;
        return rc;
    }
    cb_drive_run(&c->drive, h);
    *out = cb_h3_app(h);
    return CB_OK;
}

static int endpoint_open(cb_origin *o, int family) {
    cb_pool *p = o->pool;
    cb_addr any;
    memset(&any, 0, sizeof any);
    any.sa.sa_family = (sa_family_t)family;
    const cb_quic_app_factory none = {.make = make};
    const cb_quic_opts opts = {.size = sizeof opts,
                               .alpn = "h3",
                               .identity = o->t.identity,
                               .cc = p->opts.cc,
                               .idle_timeout_ms = p->limits.idle_timeout_ms,
                               .handshake_timeout_ms = (uint32_t)(p->opts.connect_timeout / CB_MS),
                               .max_streams_uni = 16,
                               .stream_window_bytes = p->limits.stream_window_bytes,
                               .fixed_stream_window = 1,
                               .max_datagram_bytes = 65535,
                               .early_data = o->t.early_data,
                               .verify = o->t.verify,
                               .sessions = p->opts.sessions};
    cb_quic_endpoint **e = &o->quic[family == AF_INET6];
    int rc = cb_quic_endpoint_open(e, p->loop, &any, false, &opts, &none);
    if (rc == CB_OK && p->opts.follows) cb_quic_endpoint_pin(*e);
    return rc;
}

int cb_pool_conn_quic(cb_pool_conn **out, cb_leg *leg, const cb_addr *at) {
    cb_pool_conn *c = NULL;
    int rc = conn_new(&c, leg, at, &quic_ops);
    if (rc < 0) return rc;
    cb_origin *o = c->origin;
    cb_quic_endpoint **e = &o->quic[at->sa.sa_family == AF_INET6];
    cb_quic_conn *qc = NULL;
    c->factory = (cb_quic_app_factory){.make = make, .user = c};
    if (!*e) rc = endpoint_open(o, at->sa.sa_family);
    if (rc == CB_OK) rc = cb_quic_endpoint_connect(&qc, *e, at, o->sni, &c->factory, cb_opening_is_rescue(leg->op));
    if (rc == CB_OK) {
        *out = c;
        return CB_OK;
    }
    on_gone(&c->drive);
    return rc;
}
