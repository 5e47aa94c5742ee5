/* The TCP half of cb_http_server: HTTP/1.1 and HTTP/2 on channels, chosen by ALPN, or by the preface on clear text. */
#include "base/error.h"
#include "http/server_int.h"
#include "transport/client_hello.h"
#include <string.h>
#include <unistd.h>

static int start(cb_server_conn *c, int version) {
    cb_http_server *s = c->server;
    cb_channel *ch = c->drive.ch;
    cb_tls_session *tls = cb_channel_tls(ch);
    cb_hconn_env env;
    cb_hconn *h = NULL;
    if (!(s->opts.versions & (uint32_t)version)) return cb_fail(CB_EPROTO, "HTTP/%d is not offered here", version);
    cb_server_env(c, &env, tls, cb_channel_remote(ch), cb_channel_local(ch));
    env.sink = &c->drive.sink;
    int rc = version == CB_HTTP_2 ? cb_h2_new(&h, &env) : cb_h1_new(&h, &env);
    if (rc == CB_OK) cb_server_conn_ready(c, h);
    return rc;
}

static void on_open(cb_drive *d) {
    cb_server_conn *c = CB_CONTAINER(d, cb_server_conn, drive);
    cb_tls_session *tls = cb_channel_tls(d->ch);
    if (!tls) { /* the first bytes tell the version; they may take as long as an idle connection may */
        cb_alarm_set(&d->alarm, cb_loop_now(d->loop) + c->server->limits.idle_timeout_ms * CB_MS);
        return;
    }
    const char *alpn = cb_tls_session_alpn(tls);
    if (strcmp(alpn, CB_ALPN_ACME) == 0) { /* the handshake was all that it wanted */
        cb_drive_end(d, CB_OK, false);
        return;
    }
    int rc = start(c, strcmp(alpn, "h2") == 0 ? CB_HTTP_2 : CB_HTTP_1);
    if (rc < 0) cb_drive_end(d, rc, false);
}

/* HTTP/2 begins with "PRI * HTTP/2.0" (RFC 9113, 3.4), and no HTTP/1.1 method does with "PRI ". */
static int on_first(cb_drive *d, cb_slice bytes) {
    cb_server_conn *c = CB_CONTAINER(d, cb_server_conn, drive);
    if (memcmp(bytes.base, "PRI ", bytes.len) != 0) return start(c, CB_HTTP_1);
    if (bytes.len == 4) return start(c, CB_HTTP_2);
    cb_time due = cb_loop_now(d->loop) + c->server->limits.head_timeout_ms * CB_MS;
    if (due < cb_alarm_at(&d->alarm)) cb_alarm_set(&d->alarm, due);
    return CB_EAGAIN;
}

static const cb_drive_ops tcp_ops = {
    .open = on_open, .first = on_first, .ended = cb_server_conn_ended, .gone = cb_server_conn_gone};

static void on_accept(cb_tcp_listener *l, int fd, const cb_addr *remote, void *user) {
    (void)l;
    cb_http_server *s = user;
    cb_server_conn *c = s->n_conns < s->opts.max_conns ? cb_mem_new(s->alloc, sizeof *c) : NULL;
    if (!c) {
        cb_cells_add(cb_loop_cells(s->loop), CB_C_HTTP_DROPPED, 1);
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
                                  .ops = &cb_drive_channel_ops,
                                  .user = &c->drive,
                                  .handshake_timeout = s->limits.head_timeout_ms * CB_MS,
                                  .write_timeout = s->limits.send_timeout_ms * CB_MS,
                                  .accept_proxy_header = s->opts.proxy_protocol};
    c->server = s;
    cb_drive_init(&c->drive, s->loop, &tcp_ops);
    int rc = cb_channel_new(&c->drive.ch, s->loop, fd, remote, &opts);
    if (rc == CB_OK) {
        cb_server_conn_add(c);
        return;
    }
    cb_log_line(s->log, CB_LOG_WARN, "http", "%s: a connection was dropped: %s", s->address, cb_last_error());
    close(fd);
    cb_mem_free(s->alloc, c);
}

void cb_server_tcp_pause(cb_http_server *s, bool pause) {
    if (s->tcp) cb_tcp_listener_pause(s->tcp, pause);
    for (uint32_t i = 0; i < s->n_further; i++)
        cb_tcp_listener_pause(s->further[i], pause);
}

void cb_server_tcp_close(cb_http_server *s) {
    cb_unix_leave(&s->place);
    cb_tcp_listener_free(s->tcp);
    s->tcp = NULL;
    while (s->n_further)
        cb_tcp_listener_free(s->further[--s->n_further]);
}

void cb_server_tcp_give_back(cb_http_server *s) {
    if (s->place.ours) return; /* it opened that itself */
    cb_tcp_listener_give_back(s->tcp);
    for (uint32_t i = 0; i < s->n_further; i++)
        cb_tcp_listener_give_back(s->further[i]);
}

int cb_server_tcp_open(cb_http_server *s, const cb_addr *bind) {
    const uint32_t given = s->opts.n_fds - s->n_udp;
    cb_tcp_listener_opts opts = {
        .bind = *bind, .fd = s->opts.tcp_fd, .reuseport = s->opts.group != NULL, .on_accept = on_accept, .user = s};
    if (given) opts.fd = s->fds[0];
    int rc = cb_tcp_listen(&s->tcp, s->loop, &opts);
    if (rc == CB_OK && given > 1 && !(s->further = cb_mem_new(s->alloc, given * sizeof(cb_tcp_listener *))))
        rc = cb_fail(CB_ENOMEM, "HTTP server");
    for (uint32_t i = 1; i < given && rc == CB_OK; i++) {
        opts.fd = s->fds[i];
        rc = cb_tcp_listen(&s->further[s->n_further], s->loop, &opts);
        s->n_further += rc == CB_OK;
    }
    if (rc == CB_OK && s->opts.at_rest) cb_server_tcp_pause(s, true);
    return rc;
}
