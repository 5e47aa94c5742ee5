/* The QUIC half of cb_http_server: one endpoint, HTTP/3 on each of its connections. */
#include "base/error.h"
#include "http/server_int.h"
#include "transport/quic_app.h"

/* RFC 9114, 8.1. */
enum { H3_NO_ERROR = 0x100, H3_INTERNAL_ERROR = 0x102 };

enum {
    UNI_STREAMS = 16,      /* the peer needs three; the rest is for extensions, which are ignored */
    DATAGRAM_BYTES = 65535 /* RFC 9221, 3: "any that fits a packet" */
};

struct h3_conn {
    cb_server_conn base;
    cb_quic_conn *qc;
    bool ending;
};

static void h3_end(cb_server_conn *base, int rc) {
    struct h3_conn *c = CB_CONTAINER(base, struct h3_conn, base);
    char peer[CB_ADDR_TEXT];
    if (c->ending) return;
    c->ending = true;
    cb_http_server *s = base->server;
    if (rc < 0 && cb_log_on(s->log, CB_LOG_DEBUG))
        cb_log_line(s->log, CB_LOG_DEBUG, "http", "%s: closed: %s: %s", cb_addr_text(&base->h->env.remote, peer),
                    cb_strerror(rc), cb_last_error());
    cb_quic_conn_close(c->qc, rc == CB_OK || rc == CB_ECLOSED ? H3_NO_ERROR : H3_INTERNAL_ERROR, "");
}

static const cb_server_conn_kind h3_kind = {.end = h3_end};

static int make(cb_quic_app **out, cb_quic_conn *qc, void *user) {
    cb_http_server *s = user;
    struct h3_conn *c = cb_mem_new(s->alloc, sizeof *c);
    if (!c) return cb_fail(CB_ENOMEM, "HTTP/3 connection");
    cb_hconn_env env;
    cb_hconn *h = NULL;
    cb_server_env(s, &env, cb_tls_session_sni(cb_quic_conn_tls(qc)), cb_quic_conn_peer_addr(qc),
                  cb_quic_conn_local_addr(qc));
    env.alt_svc = NULL;
    env.owner_user = &c->base;
    c->qc = qc;
    int rc = cb_h3_new(&h, &env, qc);
    if (rc < 0) {
        cb_mem_free(s->alloc, c);
        return rc;
    }
    cb_server_conn_init(&c->base, s, &h3_kind);
    cb_server_conn_ready(&c->base, h);
    *out = cb_h3_app(h);
    return CB_OK;
}

int cb_server_h3_open(cb_http_server *s, const cb_addr *bind) {
    const cb_http_server_opts *o = &s->opts;
    const cb_quic_app_factory factory = {.make = make, .user = s};
    const cb_quic_opts opts = {.size = sizeof opts,
                               .alpn = "h3",
                               .identity = o->identity,
                               .tickets = s->tickets,
                               .group = o->group,
                               .worker = o->worker,
                               .cc = o->cc,
                               .idle_timeout_ms = s->limits.idle_timeout_ms,
                               .handshake_timeout_ms = s->limits.head_timeout_ms,
                               .max_streams_bidi = s->limits.max_streams,
                               .max_streams_uni = UNI_STREAMS,
                               .stream_window_bytes = s->limits.stream_window_bytes,
                               .max_datagram_bytes = DATAGRAM_BYTES,
                               .retry_above = o->retry_above,
                               .max_conns = o->max_conns,
                               .rcvbuf_bytes = o->rcvbuf_bytes,
                               .sndbuf_bytes = o->sndbuf_bytes,
                               .retry = o->retry,
                               .early_data = o->early_data,
                               .request_client_cert = o->request_client_cert};
    return cb_quic_endpoint_open(&s->quic, s->loop, bind, true, &opts, &factory);
}
