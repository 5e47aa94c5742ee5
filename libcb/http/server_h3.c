/* The QUIC half of cb_http_server: one endpoint, HTTP/3 on each of its connections. */
#include "base/error.h"
#include "http/server_int.h"
#include <stdio.h>

enum {
    UNI_STREAMS = 16,      /* the peer needs three; the rest is for extensions, which are ignored */
    DATAGRAM_BYTES = 65535 /* RFC 9221, 3: any that fits a packet */
};

static const cb_drive_ops h3_ops = {.ended = cb_server_conn_ended, .gone = cb_server_conn_gone};

static int make(cb_quic_app **out, cb_quic_conn *qc, void *user) {
    cb_http_server *s = user;
    cb_server_conn *c = cb_mem_new(s->alloc, sizeof *c);
    cb_hconn_env env;
    cb_hconn *h = NULL;
    if (!c) return cb_fail(CB_ENOMEM, "HTTP/3 connection");
    c->server = s;
    cb_drive_init(&c->drive, s->loop, &h3_ops);
    c->drive.qc = qc;
    cb_server_env(c, &env, cb_quic_conn_tls(qc), cb_quic_conn_peer_addr(qc), cb_quic_conn_local_addr(qc));
    env.alt_svc = NULL; /* it is there already */
    int rc = cb_h3_new(&h, &env, qc);
    if (rc < 0) {
        cb_mem_free(s->alloc, c);
        return rc;
    }
    cb_server_conn_add(c);
    cb_server_conn_ready(c, h);
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
                               .fixed_stream_window = 1,
                               .max_datagram_bytes = DATAGRAM_BYTES,
                               .retry_above = o->retry_above,
                               .max_conns = o->max_conns,
                               .rcvbuf_bytes = o->rcvbuf_bytes,
                               .sndbuf_bytes = o->sndbuf_bytes,
                               .retry = o->retry,
                               .early_data = o->early_data,
                               .request_client_cert = o->request_client_cert,
                               .ticket_context = o->ticket_context,
                               .at_rest = o->at_rest != 0,
                               .fds = s->n_udp ? s->fds + o->n_fds - s->n_udp : NULL,
                               .n_fds = s->n_udp};
    int rc = cb_quic_endpoint_open(&s->quic, s->loop, bind, true, &opts, &factory);
    return rc < 0 ? rc : cb_server_h3_bind(s);
}

int cb_server_h3_bind(cb_http_server *s) {
    char settings[48];
    if (!s->quic) return CB_OK;
    snprintf(settings, sizeof settings, "h3 %u %u", s->limits.max_head_bytes, s->limits.table_bytes);
    return cb_quic_endpoint_bind_tickets(s->quic, settings);
}
