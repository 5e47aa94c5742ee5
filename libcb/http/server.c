/* cb_http_server: its life, its address, what its connections have in common. */
#include "base/error.h"
#include "base/opts.h"
#include "http/fields.h"
#include "http/server_int.h"
#include "transport/quic_app.h"
#include "transport/tls_identity.h"
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { PORT_TRIES = 16, SPARE_EXCHANGES = 1024, SPARE_BYTES = 16384 };

/* ---- the Date field: one text for all, refreshed while there are connections ---- */

static void date_refresh(cb_http_server *s) {
    const uint64_t wall = cb_loop_wall(s->loop);
    const time_t seconds = (time_t)(wall / CB_SEC);
    struct tm tm;
    gmtime_r(&seconds, &tm);
    static const char days[] = "SunMonTueWedThuFriSat";
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    char text[64]; /* by hand: strftime follows the locale */
    snprintf(text, sizeof text, "%.3s, %02d %.3s %04d %02d:%02d:%02d GMT", days + 3 * tm.tm_wday, tm.tm_mday,
             months + 3 * tm.tm_mon, tm.tm_year + 1900, tm.tm_hour, tm.tm_min, tm.tm_sec);
    memcpy(s->date, text, sizeof s->date - 1);
    cb_alarm_set(&s->date_alarm, cb_loop_now(s->loop) + CB_SEC - wall % CB_SEC);
}

static void on_date(cb_alarm *a, cb_time now) {
    (void)now;
    cb_http_server *s = CB_CONTAINER(a, cb_http_server, date_alarm);
    if (s->n_conns) date_refresh(s);
}

/* ---- connections ---- */

static cb_server_conn *conn_of(cb_drive *d) {
    return CB_CONTAINER(d, cb_server_conn, drive);
}

void cb_server_conn_add(cb_server_conn *c) {
    cb_http_server *s = c->server;
    cb_list_init(&c->link);
    cb_list_add_tail(&s->conns, &c->link);
    c->accepted = cb_loop_now(s->loop);
    c->number = ++s->stats.conns_total;
    if (s->n_conns++ == 0 && cb_alarm_at(&s->date_alarm) == CB_NEVER) date_refresh(s);
    if (s->tcp && !s->paused && s->n_conns >= s->opts.max_conns) {
        s->paused = true;
        cb_server_tcp_pause(s, true);
        cb_log_line(s->log, CB_LOG_WARN, "http", "%s: %zu connections (max_conns): accepting pauses", s->address,
                    s->n_conns);
    }
}

static uint64_t *conn_counter(cb_http_server *s, const cb_hconn *h) {
    if (h->vt->version == CB_HTTP_3) return &s->stats.conns_h3;
    return h->vt->version == CB_HTTP_2 ? &s->stats.conns_h2 : &s->stats.conns_h1;
}

void cb_server_conn_ready(cb_server_conn *c, cb_hconn *h) {
    ++*conn_counter(c->server, h);
    h->accepted = c->accepted;
    cb_server_count_opened(c, h);
    if (c->drive.ch && h->env.tls) h->secured = cb_loop_now(c->server->loop); /* QUIC: framing hears of it */
    cb_drive_run(&c->drive, h);
    if (!c->server->draining) return;
    h->linger_until = c->server->linger_until;
    h->vt->drain(h); /* its handshake was under way when draining began */
}

void cb_server_conn_ended(cb_drive *d, int rc) {
    cb_server_conn *c = conn_of(d);
    cb_http_server *s = c->server;
    char text[CB_ADDR_TEXT];
    if (d->h) {
        --*conn_counter(s, d->h);
        cb_server_count_closed(s, d->h, rc);
    } else if (rc < 0 && d->ch && s->opts.identity) {
        s->stats.handshakes_failed++;
    }
    if (rc == CB_OK || s->freed || !cb_log_on(s->log, CB_LOG_DEBUG)) return;
    const cb_addr *peer = d->h ? &d->h->env.remote : cb_channel_remote(d->ch);
    cb_log_line(s->log, CB_LOG_DEBUG, "http", "%s: %s: %s: %s", cb_addr_text(peer, text),
                d->h ? "connection closed" : "handshake failed", cb_strerror(rc), cb_last_error());
}

static void conn_bury(cb_grave *g) {
    cb_server_conn *c = CB_CONTAINER(g, cb_server_conn, grave);
    cb_mem_free(c->server->alloc, c);
}

static cb_exchange *take_spare(cb_http_server *s) {
    if (s->n_spare == 0) return NULL;
    cb_exchange *x = CB_CONTAINER(s->spare.prev, cb_exchange, link);
    cb_list_del(&x->link);
    s->n_spare--;
    return x;
}

static void server_bury(cb_grave *g) {
    cb_http_server *s = CB_CONTAINER(g, cb_http_server, grave);
    cb_identity_unref(s->opts.identity);
    cb_tickets_unref(s->tickets);
    cb_group_unref(s->opts.group);
    cb_server_count_end(s);
    cb_mem_free(s->alloc, s->label);
    cb_mem_free(s->alloc, s->server_name);
    cb_mem_free(s->alloc, s->tenant);
    cb_mem_free(s->alloc, s->ticket_context);
    cb_mem_free(s->alloc, s->fds);
    cb_mem_free(s->alloc, s->further);
    while (s->n_spare)
        cb_exchange_destroy(take_spare(s));
    cb_mem_free(s->alloc, s);
}

static void check_drained(cb_http_server *s) {
    if (s->draining && !s->freed && !s->told && s->n_conns == 0) cb_defer_later(&s->drained);
}

void cb_server_conn_gone(cb_drive *d) {
    cb_server_conn *c = conn_of(d);
    cb_http_server *s = c->server;
    cb_list_del(&c->link);
    s->n_conns--;
    cb_loop_bury(s->loop, &c->grave, conn_bury);
    if (s->n_conns == 0) cb_alarm_stop(&s->date_alarm);
    if (s->paused && s->tcp && s->n_conns < s->opts.max_conns) {
        s->paused = false;
        cb_server_tcp_pause(s, false);
    }
    if (s->freed && s->n_conns == 0)
        cb_loop_bury(s->loop, &s->grave, server_bury); /* after the connection: first in, first out */
    check_drained(s);
}

/* ---- what framing tells ---- */

/* The host of an authority as names of certificates and rules are written; "" for an IPv6 address and what is none. */
static bool host_of(cb_slice authority, char host[256]) {
    const uint8_t *colon = authority.len ? memchr(authority.base, ':', authority.len) : NULL;
    size_t len = colon ? (size_t)(colon - authority.base) : authority.len;
    if (authority.len && authority.base[0] == '[') len = 0;
    if (len > 0 && authority.base[len - 1] == '.') len--;
    if (len >= 256) return false;
    for (size_t i = 0; i < len; i++)
        host[i] =
            (char)(authority.base[i] >= 'A' && authority.base[i] <= 'Z' ? authority.base[i] + 32 : authority.base[i]);
    host[len] = '\0';
    return true;
}

/* Is the host none that this connection's certificate stands for (RFC 9110, 15.5.20; RFC 9113, 9.1.2), or does it ask
 * for other client certificates than the name that the connection was opened for? */
static bool misdirected(const cb_http_server *s, const cb_exchange *x) {
    const char *sni = cb_exchange_sni(x);
    char host[256];
    if (!s->opts.identity || cb_slice_ieq(cb_exchange_authority(x), sni)) return false;
    if (!host_of(cb_exchange_authority(x), host)) return true;
    if (strcmp(host, sni) == 0) return false;
    cb_identity_view *view = cb_identity_view_get(s->opts.identity);
    bool other = cb_identity_view_trust(view, host) != cb_identity_view_trust(view, sni);
    if (!other && *sni && *host)
        other = cb_identity_view_choose(view, host, 0) != cb_identity_view_choose(view, sni, 0);
    cb_identity_view_unref(view);
    return other;
}

/* The connection is of before: what is asked of clients has changed, and this one would not get in any more. */
static bool expelled(cb_http_server *s, cb_exchange *x) {
    cb_hconn *h = x->conn;
    char peer[CB_ADDR_TEXT];
    if (!s->opts.identity || !h->env.tls || cb_tls_session_still_welcome(h->env.tls, s->opts.identity)) return false;
    cb_log_line(s->log, CB_LOG_INFO, "http", "%s: its connection ends: %s", cb_addr_text(&h->env.remote, peer),
                cb_last_error());
    h->vt->drain(h);
    cb_drive_later(&conn_of(h->env.owner_user)->drive);
    return true;
}

static int gate_head(cb_exchange *x, void *user) {
    cb_http_server *s = user;
    const bool out = expelled(s, x);
    if (out || misdirected(s, x)) {
        cb_server_count_misdirected(s, out);
        return cb_exchange_send_text(x, 421,
                                     out ? "421: the certificate of this connection is not good any more\n"
                                         : "421: this connection is for another host\n");
    }
    cb_exchange_handle(x, s->opts.ops, s->opts.user);
    return s->opts.ops && s->opts.ops->on_head ? s->opts.ops->on_head(x, s->opts.user) : CB_OK;
}

static const cb_exchange_ops gate_ops = {.size = sizeof gate_ops, .on_head = gate_head};

static void on_keep(cb_exchange *x, void *user) {
    cb_http_server *s = user;
    if (s->freed || s->n_spare >= SPARE_EXCHANGES || x->in.arena.cap + x->trailers.arena.cap > SPARE_BYTES) {
        cb_exchange_destroy(x);
        return;
    }
    cb_list_init(&x->link);
    cb_list_add_tail(&s->spare, &x->link);
    s->n_spare++;
}

static cb_exchange *on_spare(cb_hconn *h) {
    return take_spare(conn_of(h->env.owner_user)->server);
}

static void on_exchange_new(cb_hconn *h, cb_exchange *x) {
    cb_server_conn *c = conn_of(h->env.owner_user);
    c->server->stats.exchanges_total++;
    c->server->stats.exchanges_now++;
    cb_server_count_begun(c, x);
    x->on_keep = on_keep;
    x->keep_user = c->server;
    cb_exchange_handle(x, &gate_ops, c->server);
}

static void on_exchange_done(cb_hconn *h, cb_exchange *x) {
    cb_server_conn *c = conn_of(h->env.owner_user);
    c->server->stats.exchanges_now--;
    cb_server_count_done(c, x);
}

static void on_limit(cb_hconn *h, const char *what) {
    cb_server_conn *c = conn_of(h->env.owner_user);
    char peer[CB_ADDR_TEXT];
    c->server->stats.limits_hit++;
    cb_server_count_limit(c->server, what);
    if (cb_log_on(c->server->log, CB_LOG_DEBUG))
        cb_log_line(c->server->log, CB_LOG_DEBUG, "http", "%s: limit reached: %s", cb_addr_text(&h->env.remote, peer),
                    what);
}

static const cb_hconn_owner_ops owner_ops = {.exchange_new = on_exchange_new,
                                             .exchange_done = on_exchange_done,
                                             .spare = on_spare,
                                             .wake = cb_drive_on_wake,
                                             .limit = on_limit,
                                             .gone = cb_drive_on_gone};

void cb_server_env(cb_server_conn *c, cb_hconn_env *env, cb_tls_session *tls, const cb_addr *remote,
                   const cb_addr *local) {
    cb_http_server *s = c->server;
    *env = (cb_hconn_env){.loop = s->loop,
                          .alloc = s->alloc,
                          .log = s->log,
                          .cells = cb_server_cells(s),
                          .limits = &s->limits,
                          .owner = &owner_ops,
                          .owner_user = &c->drive,
                          .scheme = s->opts.identity ? "https" : "http",
                          .sni = tls ? cb_tls_session_sni(tls) : "",
                          .tls = tls,
                          .server_name = s->server_name,
                          .alt_svc = s->alt_svc[0] ? s->alt_svc : NULL,
                          .date = s->date,
                          .remote = *remote,
                          .local = *local,
                          .server = true,
                          .early_any = s->opts.early_data == 2};
}

/* ---- draining ---- */

/* By way of a list of its own: what a callback does to the server in between must not confuse the walk. */
static void end_all(cb_http_server *s, int rc) {
    cb_list batch;
    cb_list_init(&batch);
    while (!cb_list_empty(&s->conns)) {
        cb_list *l = s->conns.next;
        cb_list_del(l);
        cb_list_add_tail(&batch, l);
    }
    while (!cb_list_empty(&batch)) {
        cb_server_conn *c = CB_CONTAINER(batch.next, cb_server_conn, link);
        cb_list_del(&c->link);
        cb_list_add_tail(&s->conns, &c->link);
        cb_drive_end(&c->drive, rc, s->freed);
    }
}

static void on_drain_deadline(cb_alarm *a, cb_time now) {
    (void)now;
    cb_http_server *s = CB_CONTAINER(a, cb_http_server, drain_alarm);
    cb_log_line(s->log, CB_LOG_INFO, "http", "%s: drain deadline: closing %zu connections", s->address, s->n_conns);
    end_all(s, cb_fail(CB_ECLOSED, "the server stops"));
    check_drained(s);
}

static void on_all_gone(cb_defer *d) {
    cb_http_server *s = CB_CONTAINER(d, cb_http_server, drained);
    if (s->freed || s->told || s->n_conns) return;
    s->told = true;
    cb_alarm_stop(&s->drain_alarm);
    cb_quic_endpoint_free(s->quic);
    s->quic = NULL;
    if (s->on_drained) s->on_drained(s->loop, s->on_drained_user);
}

static int drain(cb_http_server *s, uint64_t deadline_ms, bool yields) {
    if (!s) return cb_fail(CB_EINVAL, "no server");
    cb_time at = cb_loop_now(s->loop) + (deadline_ms > UINT32_MAX ? UINT32_MAX : deadline_ms) * CB_MS;
    if (s->told) return CB_OK;
    if (at < cb_alarm_at(&s->drain_alarm)) {
        int rc = cb_alarm_set(&s->drain_alarm, at);
        if (rc < 0) return rc;
    }
    if (s->draining) return CB_OK;
    s->draining = true;
    cb_cells_add(cb_server_cells(s), CB_C_HTTP_DRAINS, 1);
    if (yields) s->place.ours = false; /* the path is the successor's */
    if (yields) s->linger_until = cb_loop_now(s->loop) + (at - cb_loop_now(s->loop)) / 2;
    cb_server_tcp_close(s);
    if (s->quic) cb_quic_endpoint_refuse(s->quic);
    for (cb_list *l = s->conns.next; l != &s->conns; l = l->next) {
        cb_server_conn *c = CB_CONTAINER(l, cb_server_conn, link);
        if (!c->drive.h) continue;
        c->drive.h->linger_until = s->linger_until;
        c->drive.h->vt->drain(c->drive.h);
        cb_drive_later(&c->drive);
    }
    check_drained(s);
    return CB_OK;
}

int cb_http_server_drain(cb_http_server *s, uint64_t deadline_ms) {
    return drain(s, deadline_ms, false);
}

int cb_http_server_yield(cb_http_server *s, uint64_t deadline_ms) {
    return drain(s, deadline_ms, true);
}

void cb_http_server_resume(cb_http_server *s) {
    if (!s->opts.at_rest || s->freed) return;
    s->opts.at_rest = 0;
    if (!s->paused) cb_server_tcp_pause(s, false);
    if (s->quic) cb_quic_endpoint_resume(s->quic);
}

static size_t tcp_fds(const cb_http_server *s, int32_t *out, size_t cap) {
    size_t n = 0;
    if (s->tcp && n++ < cap) out[0] = cb_tcp_listener_fd(s->tcp);
    for (uint32_t i = 0; i < s->n_further; i++)
        if (n++ < cap) out[n - 1] = cb_tcp_listener_fd(s->further[i]);
    return n;
}

int cb_http_server_fds(const cb_http_server *s, int32_t *out, size_t cap) {
    size_t n = tcp_fds(s, out, cap);
    size_t used = n < cap ? n : cap;
    return (int)(n + (s->quic ? cb_quic_endpoint_fds(s->quic, out + used, cap - used) : 0));
}

int cb_http_server_save(cb_http_server *s, cb_handoff *h, const char *name) {
    if (s->freed) return cb_fail(CB_ECLOSED, "%s is closed", s->address);
    int32_t fds[CB_HTTP_SERVER_FDS];
    int rc = CB_OK;
    for (size_t i = 0, n = tcp_fds(s, fds, CB_HTTP_SERVER_FDS); i < n && rc == CB_OK; i++)
        rc = cb_handoff_put_fd(h, name, fds[i]);
    return rc == CB_OK && s->quic ? cb_quic_endpoint_save(s->quic, h, s->draining ? NULL : name) : rc;
}

void cb_http_server_on_drained(cb_http_server *s, cb_task_fn done, void *user) {
    s->on_drained = done;
    s->on_drained_user = user;
}

/* ---- life ---- */

static int check_versions(cb_http_server_opts *o) {
    const uint32_t all = CB_HTTP_1 | CB_HTTP_2 | CB_HTTP_3;
    const uint32_t fit = o->identity ? all : CB_HTTP_1 | CB_HTTP_2;
    if (o->versions & ~all) return cb_fail(CB_EINVAL, "versions: 0x%x has unknown bits", o->versions);
    if (o->versions == CB_HTTP_3 && !o->identity) return cb_fail(CB_EINVAL, "versions: HTTP/3 needs an identity");
    o->versions = o->versions ? o->versions & fit : fit;
    return CB_OK;
}

static int bind_tickets(cb_http_server *s) {
    cb_buf b;
    const char *tenant = s->opts.ticket_context;
    if (tenant && !(s->tenant = cb_mem_text(s->alloc, tenant))) return cb_fail(CB_ENOMEM, "ticket_context");
    s->opts.ticket_context = s->tenant;
    cb_buf_init(&b, s->alloc, 65536);
    int rc = cb_buf_printf(&b, "http %s cert=%u|%s", s->alpn, s->opts.request_client_cert, tenant ? tenant : "");
    if (rc == CB_OK) rc = cb_buf_add(&b, "", 1);
    if (rc == CB_OK)
        s->ticket_context = (char *)b.base;
    else
        cb_buf_free(&b);
    return rc < 0 ? cb_fail(rc, "ticket_context") : CB_OK;
}

static int server_fill(cb_http_server *s, const cb_http_server_opts *opts) {
    int rc = cb_opts_read(&s->opts, sizeof s->opts, opts, "cb_http_server_opts");
    cb_http_server_opts *o = &s->opts;
    cb_identity *identity = o->identity;
    cb_group *group = o->group;
    cb_tickets *tickets = o->tickets;
    o->identity = NULL; /* ours only from here on: server_bury() drops what is set */
    o->group = NULL;
    o->tickets = NULL;
    if (rc < 0) return rc;
    if (!o->listen) return cb_fail(CB_EINVAL, "listen: an address is required, such as \":8443\"");
    if (o->early_data > 2) return cb_fail(CB_EINVAL, "early_data: %u is not 0, 1 or 2", o->early_data);
    if (o->request_client_cert > 2)
        return cb_fail(CB_EINVAL, "request_client_cert: %u is not 0, 1 or 2", o->request_client_cert);
    if (o->retry > 2) return cb_fail(CB_EINVAL, "retry: %u is not 0, 1 or 2", o->retry);
    if (o->server_name && !cb_field_value_ok(cb_slice_str(o->server_name)))
        return cb_fail(CB_EINVAL, "server_name: not a field value");
    rc = o->ops ? cb_ops_check(o->ops, sizeof *o->ops, "cb_exchange_ops") : CB_OK;
    if (rc == CB_OK) rc = cb_http_limits_fill(&s->limits, o->limits);
    if (rc < 0) return rc;
    o->limits = &s->limits;
    o->identity = identity ? cb_identity_ref(identity) : NULL;
    o->group = group ? cb_group_ref(group) : NULL;
    rc = check_versions(o);
    if (rc < 0) return rc;
    if (o->max_conns == 0) o->max_conns = 100000;
    if (o->server_name && !(s->server_name = cb_mem_text(s->alloc, o->server_name)))
        return cb_fail(CB_ENOMEM, "server_name");
    if (!(s->label = cb_mem_text(s->alloc, o->name ? o->name : o->listen))) return cb_fail(CB_ENOMEM, "name");
    o->name = s->label;
    cb_server_count_start(s);
    snprintf(s->alpn, sizeof s->alpn, "%s%s%s", o->versions & CB_HTTP_2 ? "h2" : "", (o->versions & 3) == 3 ? "," : "",
             o->versions & CB_HTTP_1 ? "http/1.1" : "");
    rc = bind_tickets(s);
    if (rc < 0) return rc;
    if (tickets)
        s->tickets = cb_tickets_ref(tickets);
    else if (identity)
        rc = cb_tickets_new(&s->tickets, NULL);
    return rc;
}

static int open_on(cb_http_server *s, cb_addr *at) {
    const uint32_t v = s->opts.versions;
    int rc = CB_OK;
    if (v & (CB_HTTP_1 | CB_HTTP_2)) {
        rc = cb_server_tcp_open(s, at);
        if (rc < 0) return rc;
        cb_addr_set_port(at, cb_addr_port(cb_tcp_listener_local(s->tcp)));
    }
    if (v & CB_HTTP_3) {
        rc = cb_server_h3_open(s, at);
        if (rc < 0) return rc;
        cb_addr_set_port(at, cb_addr_port(cb_quic_endpoint_addr(s->quic)));
    }
    return CB_OK;
}

/* The sockets that were given: TCP to tcp_fd and further_fds, UDP to udp_fds. */
static int sort_fds(cb_http_server *s) {
    cb_http_server_opts *o = &s->opts;
    if (!o->fds || o->n_fds > CB_HTTP_SERVER_FDS || o->tcp_fd > 0)
        return cb_fail(CB_EINVAL, "fds: 1 to %d descriptors, without tcp_fd beside them", CB_HTTP_SERVER_FDS);
    s->fds = cb_mem_new(s->alloc, o->n_fds * sizeof *s->fds);
    if (!s->fds) return cb_fail(CB_ENOMEM, "HTTP server");
    for (uint32_t i = 0, tcp = 0; i < o->n_fds; i++) { /* TCP to the front, UDP to the back */
        int type = 0;
        socklen_t len = sizeof type;
        if (o->fds[i] <= 0 || getsockopt(o->fds[i], SOL_SOCKET, SO_TYPE, &type, &len) < 0)
            return cb_fail(CB_EINVAL, "fds: descriptor %d is not a socket", o->fds[i]);
        if (type == SOCK_STREAM)
            s->fds[tcp++] = o->fds[i];
        else
            s->fds[o->n_fds - 1 - s->n_udp++] = o->fds[i];
    }
    return CB_OK;
}

/* Given, and of no use for the versions that are served: nobody would read them. */
static void close_unneeded(cb_http_server *s) {
    const uint32_t n_tcp = s->opts.n_fds - s->n_udp;
    for (uint32_t i = 0; i < s->opts.n_fds; i++)
        if (i < n_tcp ? !s->tcp : !s->quic) close(s->fds[i]);
    cb_mem_free(s->alloc, s->fds);
    s->fds = NULL;
    s->opts.n_fds = s->n_udp = 0;
}

/* With port 0 the kernel chooses for TCP, and UDP must get the same: that can fail by chance, so it is tried again. */
static int server_open(cb_http_server *s) {
    const char *path = cb_unix_path(s->opts.listen);
    cb_addr wanted, at;
    int rc = path ? CB_OK : cb_addr_parse(&wanted, s->opts.listen, 0);
    if (rc == CB_OK && s->opts.n_fds) rc = sort_fds(s);
    if (rc == CB_OK && path) {
        rc = cb_server_unix_open(s, path);
        if (rc == CB_OK) close_unneeded(s);
        return rc;
    }
    if (rc < 0) return rc;
    const bool any = cb_addr_port(&wanted) == 0 && s->opts.tcp_fd <= 0 && !s->opts.n_fds;
    for (int i = 0; i < (any ? PORT_TRIES : 1); i++) {
        at = wanted;
        rc = open_on(s, &at);
        if (rc != CB_EEXIST) break;
        cb_server_tcp_give_back(s);
        cb_server_tcp_close(s);
    }
    if (rc < 0) return rc;
    close_unneeded(s);
    cb_addr_text(&at, s->address);
    if (s->quic && s->tcp && !s->opts.alt_svc)
        snprintf(s->alt_svc, sizeof s->alt_svc, "h3=\":%u\"; ma=86400",
                 s->opts.alt_svc_port ? s->opts.alt_svc_port : cb_addr_port(&at));
    return CB_OK;
}

int cb_http_server_new(cb_http_server **out, cb_loop *loop, const cb_http_server_opts *opts) {
    if (!out || !loop) return cb_fail(CB_EINVAL, "cb_http_server_new: %s is NULL", !out ? "out" : "loop");
    const cb_alloc *alloc = cb_loop_alloc(loop);
    cb_http_server *s = cb_mem_new(alloc, sizeof *s);
    if (!s) return cb_fail(CB_ENOMEM, "HTTP server");
    s->loop = loop;
    s->alloc = alloc;
    s->log = cb_loop_log(loop);
    cb_list_init(&s->conns);
    cb_list_init(&s->spare);
    cb_alarm_init(&s->date_alarm, loop, on_date);
    cb_alarm_init(&s->drain_alarm, loop, on_drain_deadline);
    cb_defer_init(&s->drained, loop, on_all_gone);
    int rc = server_fill(s, opts);
    if (rc == CB_OK) rc = server_open(s);
    if (rc < 0) {
        cb_server_tcp_give_back(s);
        if (s->quic) cb_quic_endpoint_give_back(s->quic);
        cb_http_server_free(s);
        return rc;
    }
    s->opts.listen = s->address;
    cb_log_line(s->log, CB_LOG_DEBUG, "http", "listening on %s (%s%s%s)", s->address, s->tcp ? s->alpn : "",
                s->tcp && s->quic ? "," : "", s->quic ? "h3" : "");
    *out = s;
    return CB_OK;
}

int cb_http_server_set_limits(cb_http_server *s, const cb_http_limits *limits) {
    cb_http_limits fresh;
    int rc = cb_http_limits_fill(&fresh, limits);
    if (rc < 0) return rc;
    const cb_http_limits old = s->limits;
    s->limits = fresh;
    rc = cb_server_h3_bind(s);
    if (rc < 0) s->limits = old;
    return rc;
}

const char *cb_http_server_address(const cb_http_server *s) {
    return s->address;
}

int cb_http_server_stats_get(const cb_http_server *s, cb_http_server_stats *out) {
    cb_http_server_stats all = s->stats;
    cb_quic_endpoint_stats quic = {.size = sizeof quic};
    int rc = s->quic ? cb_quic_endpoint_stats_get(s->quic, &quic) : CB_OK;
    all.handshakes_failed += quic.handshakes_failed;
    return rc < 0 ? rc : cb_stats_give(out, &all, sizeof all, "cb_http_server_stats");
}

int cb_http_server_quic_stats_get(const cb_http_server *s, cb_quic_endpoint_stats *out) {
    if (!s->quic) return cb_fail(CB_ENOENT, "%s: this server has no HTTP/3", s->address);
    return cb_quic_endpoint_stats_get(s->quic, out);
}

void cb_http_server_free(cb_http_server *s) {
    if (!s || s->freed) return;
    s->freed = true;
    cb_server_tcp_close(s);
    cb_alarm_stop(&s->drain_alarm);
    cb_defer_cancel(&s->drained);
    s->n_conns++; /* keeps the memory while connections leave one by one */
    end_all(s, CB_ECLOSED);
    cb_quic_endpoint_free(s->quic);
    s->quic = NULL;
    if (--s->n_conns) return; /* the last one to go buries it */
    cb_alarm_stop(&s->date_alarm);
    cb_loop_bury(s->loop, &s->grave, server_bury);
}
