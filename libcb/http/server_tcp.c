/* The TCP half of cb_http_server: HTTP/1.1 and HTTP/2 on channels, chosen by ALPN, or by the preface on clear text. */
#include "base/error.h"
#include "http/server_int.h"
#include "transport/channel.h"
#include <string.h>
#include <unistd.h>

/* RFC 9113, 3.4. No HTTP/1.1 method is "PRI": three bytes tell. */
static const char h2_preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
enum { TELLING = 3 };

struct tcp_conn {
    cb_server_conn base;
    cb_channel *ch;
    cb_sink sink;
    uint8_t first[TELLING]; /* clear text: bytes that came before the version was clear */
    uint8_t n_first;
    bool waits;  /* framing took less than it was given */
    bool ending; /* shutting down: input is thrown away */
};

static struct tcp_conn *of(cb_server_conn *c) {
    return CB_CONTAINER(c, struct tcp_conn, base);
}

static size_t sink_room(cb_sink *s) {
    return cb_channel_room(CB_CONTAINER(s, struct tcp_conn, sink)->ch);
}

static int sink_write(cb_sink *s, const cb_slice *v, size_t n) {
    return cb_channel_write(CB_CONTAINER(s, struct tcp_conn, sink)->ch, v, n);
}

static void note_end(struct tcp_conn *c, int rc) {
    char peer[CB_ADDR_TEXT];
    const cb_log *log = c->base.server->log;
    if (rc == CB_OK || !cb_log_on(log, CB_LOG_DEBUG)) return;
    const char *why = cb_last_error();
    cb_log_line(log, CB_LOG_DEBUG, "http", "%s: closed: %s%s%s", cb_addr_text(cb_channel_remote(c->ch), peer),
                cb_strerror(rc), *why ? ": " : "", why);
}

static void tcp_more(cb_server_conn *base) {
    struct tcp_conn *c = of(base);
    if (!c->waits) return;
    c->waits = false;
    cb_channel_resume(c->ch);
}

/* Framing is over. What it wrote still leaves, unless the server itself goes. */
static void tcp_end(cb_server_conn *base, int rc) {
    struct tcp_conn *c = of(base);
    if (!c->ending) {
        c->ending = true;
        note_end(c, rc);
        cb_server_conn_drop_h(base, rc, false);
        if (!base->server->freed) {
            cb_channel_shutdown(c->ch);
            tcp_more(base);
        }
    }
    if (!base->server->freed || !c->ch) return;
    cb_channel_free(c->ch);
    c->ch = NULL;
    cb_server_conn_gone(base);
}

static const cb_server_conn_kind tcp_kind = {.end = tcp_end, .more = tcp_more};

static int start(struct tcp_conn *c, int version) {
    cb_http_server *s = c->base.server;
    cb_hconn_env env;
    cb_hconn *h = NULL;
    cb_tls_session *tls = cb_channel_tls(c->ch);
    if (!(s->opts.versions & (uint32_t)version)) return cb_fail(CB_EPROTO, "HTTP/%d is not offered here", version);
    cb_server_env(s, &env, tls ? cb_tls_session_sni(tls) : "", cb_channel_remote(c->ch), cb_channel_local(c->ch));
    env.owner_user = &c->base;
    env.sink = &c->sink;
    int rc = version == CB_HTTP_2 ? cb_h2_new(&h, &env) : cb_h1_new(&h, &env);
    if (rc < 0) return rc;
    cb_alarm_stop(&c->base.alarm); /* of the time before */
    cb_server_conn_ready(&c->base, h);
    return CB_OK;
}

static void on_open(cb_channel *ch, void *user) {
    struct tcp_conn *c = user;
    cb_http_server *s = c->base.server;
    cb_tls_session *tls = cb_channel_tls(ch);
    if (!tls) {
        /* Clear text: the first bytes tell the version; they may take as long as an idle connection may. */
        cb_alarm_set(&c->base.alarm, cb_loop_now(s->loop) + s->limits.idle_timeout_ms * CB_MS);
        return;
    }
    int rc = start(c, strcmp(cb_tls_session_alpn(tls), "h2") == 0 ? CB_HTTP_2 : CB_HTTP_1);
    if (rc < 0)
        tcp_end(&c->base, rc);
    else
        cb_server_conn_flush(&c->base); /* HTTP/2: SETTINGS go first */
}

/* Keeps bytes until they tell the version; then framing gets them. How many of `data` are still to be fed, or < 0. */
static int64_t sniff(struct tcp_conn *c, cb_slice *data) {
    while (c->n_first < TELLING && data->len) {
        c->first[c->n_first++] = *data->base++;
        data->len--;
    }
    const bool prefix = memcmp(c->first, h2_preface, c->n_first) == 0;
    if (prefix && c->n_first < TELLING) {
        cb_time due = cb_loop_now(c->base.server->loop) + c->base.server->limits.head_timeout_ms * CB_MS;
        if (due < cb_alarm_at(&c->base.alarm)) cb_alarm_set(&c->base.alarm, due);
        return 0;
    }
    return start(c, prefix ? CB_HTTP_2 : CB_HTTP_1);
}

static int64_t feed(struct tcp_conn *c, cb_slice data) {
    cb_hconn *h = c->base.h;
    cb_server_conn_enter(&c->base);
    int64_t n = h->vt->feed(h, data, cb_loop_now(c->base.server->loop));
    if (!cb_server_conn_leave(&c->base)) return (int64_t)data.len;
    if (n < 0) {
        tcp_end(&c->base, (int)n);
        return (int64_t)data.len;
    }
    return n;
}

static int64_t on_data(cb_channel *ch, cb_slice data, void *user) {
    (void)ch;
    struct tcp_conn *c = user;
    const int64_t all = (int64_t)data.len;
    if (c->ending) return all;
    if (!c->base.h) {
        int64_t rc = sniff(c, &data);
        if (rc < 0) tcp_end(&c->base, (int)rc);
        if (rc < 0 || !c->base.h) return all;
        /* Three bytes never pause framing: they are less than a request line or a preface. */
        feed(c, (cb_slice){c->first, c->n_first});
        if (c->ending || data.len == 0) return all;
    }
    int64_t n = feed(c, data);
    if (c->ending || n >= (int64_t)data.len) return all;
    c->waits = true;
    return all - (int64_t)data.len + n;
}

static void on_turn(cb_channel *ch, void *user) {
    (void)ch;
    struct tcp_conn *c = user;
    if (!c->ending) cb_server_conn_flush(&c->base);
}

static void on_eof(cb_channel *ch, void *user) {
    (void)ch;
    struct tcp_conn *c = user;
    cb_hconn *h = c->base.h;
    if (c->ending) return;
    if (!h) {
        tcp_end(&c->base, CB_OK);
        return;
    }
    cb_server_conn_enter(&c->base);
    int rc = h->vt->eof(h, cb_loop_now(c->base.server->loop));
    if (!cb_server_conn_leave(&c->base)) return;
    if (rc < 0)
        tcp_end(&c->base, rc);
    else
        cb_server_conn_flush(&c->base);
}

static void on_drain(cb_channel *ch, void *user) {
    (void)ch;
    struct tcp_conn *c = user;
    if (!c->ending) cb_server_conn_flush(&c->base);
}

static void on_close(cb_channel *ch, int rc, void *user) {
    struct tcp_conn *c = user;
    cb_http_server *s = c->base.server;
    if (!c->ending) {
        c->ending = true;
        if (!c->base.h && rc < 0 && s->opts.identity) s->stats.handshakes_failed++;
        note_end(c, rc);
        cb_server_conn_drop_h(&c->base, rc == CB_OK ? CB_ECLOSED : rc, false);
    }
    if (!c->ch) return; /* a callback freed the server */
    c->ch = NULL;
    cb_channel_free(ch);
    cb_server_conn_gone(&c->base);
}

static const cb_channel_ops channel_ops = {.on_open = on_open,
                                           .on_data = on_data,
                                           .on_turn = on_turn,
                                           .on_eof = on_eof,
                                           .on_drain = on_drain,
                                           .on_close = on_close};

static void on_accept(cb_tcp_listener *l, int fd, const cb_addr *remote, void *user) {
    (void)l;
    cb_http_server *s = user;
    struct tcp_conn *c = s->n_conns < s->opts.max_conns ? cb_mem_new(s->alloc, sizeof *c) : NULL;
    if (!c) {
        close(fd);
        return;
    }
    const cb_tls_opts tls = {.server = true,
                             .tls12 = s->opts.tls12,
                             .request_client_cert = s->opts.request_client_cert >= 1,
                             .require_client_cert = s->opts.request_client_cert == 2,
                             .identity = s->opts.identity,
                             .tickets = s->tickets,
                             .ticket_context = s->ticket_context,
                             .alpn = s->alpn};
    const cb_channel_opts opts = {.tls = s->opts.identity ? &tls : NULL,
                                  .ops = &channel_ops,
                                  .user = c,
                                  .handshake_timeout = s->limits.head_timeout_ms * CB_MS,
                                  .write_timeout = s->limits.send_timeout_ms * CB_MS,
                                  .accept_proxy_header = s->opts.proxy_protocol};
    c->sink = (cb_sink){.room = sink_room, .write = sink_write};
    int rc = cb_channel_new(&c->ch, s->loop, fd, remote, &opts);
    if (rc < 0) {
        cb_log_line(s->log, CB_LOG_WARN, "http", "%s: a connection was dropped: %s", s->address, cb_last_error());
        close(fd);
        cb_mem_free(s->alloc, c);
        return;
    }
    cb_server_conn_init(&c->base, s, &tcp_kind);
}

int cb_server_tcp_open(cb_http_server *s, const cb_addr *bind) {
    const cb_tcp_listener_opts opts = {
        .bind = *bind, .fd = s->opts.tcp_fd, .reuseport = s->opts.group != NULL, .on_accept = on_accept, .user = s};
    return cb_tcp_listen(&s->tcp, s->loop, &opts);
}
