/* What nghttp3 tells about received frames. */
#include "base/error.h"
#include "http/h3_conn.h"

/* ---- field sections ---- */

static int begin_request(h3_conn *c, h3_stream *s) {
    cb_exchange *x = NULL;
    s->began = true;
    if (cb_hconn_exchange(&c->m.h, &x) < 0) {
        h3_reset_stream(c, s->id, NGHTTP3_H3_INTERNAL_ERROR);
        c->below->stop_stream(c->qc, s->id, NGHTTP3_H3_INTERNAL_ERROR);
        return 0;
    }
    h3_attach(c, s, x);
    x->started = s->m.head.since ? s->m.head.since : c->m.now;
    x->early = c->below->in_early_data(c->qc);
    cb_mux_count_request(&c->m);
    return 0;
}

static int begin_headers(nghttp3_conn *ng, int64_t id, void *user, void *stream_user) {
    h3_conn *c = user;
    h3_stream *s = stream_user ? stream_user : h3_stream_find(c, id);
    if (c->m.closed) return NGHTTP3_ERR_CALLBACK_FAILURE;
    if (!s && !(s = h3_stream_new(c, id))) return NGHTTP3_ERR_CALLBACK_FAILURE;
    nghttp3_conn_set_stream_user_data(ng, id, s);
    s->m.section_rc = CB_OK;
    return c->m.h.env.server && !s->began ? begin_request(c, s) : 0;
}

static cb_slice text(nghttp3_rcbuf *b) {
    nghttp3_vec v = nghttp3_rcbuf_get_buf(b);
    return (cb_slice){v.base, v.len};
}

static int recv_header(nghttp3_conn *ng, int64_t id, int32_t token, nghttp3_rcbuf *name, nghttp3_rcbuf *value,
                       uint8_t flags, void *user, void *stream_user) {
    (void)ng, (void)id, (void)token, (void)flags, (void)user;
    h3_stream *s = stream_user;
    /* After the first error the section is still decoded, because QPACK's state must go on; nothing is kept of it. */
    if (!s || !s->m.x || s->m.section_rc < 0) return 0;
    cb_slice n = text(name), v = text(value);
    s->m.section_rc =
        n.len && n.base[0] == ':' ? cb_exchange_in_pseudo(s->m.x, n, v) : cb_exchange_in_field(s->m.x, n, v);
    return 0;
}

static int end_headers(nghttp3_conn *ng, int64_t id, int fin, void *user, void *stream_user) {
    (void)ng, (void)id;
    h3_conn *c = user;
    h3_stream *s = stream_user;
    if (!s || !s->m.x) return 0;
    cb_list_del(&s->m.head.link);
    if (!s->m.x->failing) cb_mux_head(&c->m, &s->m, fin);
    return 0;
}

static int begin_trailers(nghttp3_conn *ng, int64_t id, void *user, void *stream_user) {
    (void)ng, (void)id, (void)user;
    h3_stream *s = stream_user;
    if (s) s->m.section_rc = CB_OK;
    return 0;
}

static int recv_trailer(nghttp3_conn *ng, int64_t id, int32_t token, nghttp3_rcbuf *name, nghttp3_rcbuf *value,
                        uint8_t flags, void *user, void *stream_user) {
    (void)ng, (void)id, (void)token, (void)flags, (void)user;
    h3_stream *s = stream_user;
    if (!s || !s->m.x || s->m.section_rc < 0) return 0;
    s->m.section_rc = cb_exchange_in_trailer(s->m.x, text(name), text(value));
    return 0;
}

static int end_trailers(nghttp3_conn *ng, int64_t id, int fin, void *user, void *stream_user) {
    (void)ng, (void)id, (void)fin;
    h3_conn *c = user;
    h3_stream *s = stream_user;
    if (s && s->m.x && !s->m.x->failing && s->m.section_rc < 0) cb_mux_failed(&c->m, &s->m, s->m.section_rc);
    return 0;
}

/* ---- bodies ---- */

static int recv_data(nghttp3_conn *ng, int64_t id, const uint8_t *data, size_t len, void *user, void *stream_user) {
    (void)ng;
    h3_conn *c = user;
    h3_stream *s = stream_user;
    if (c->m.closed) return NGHTTP3_ERR_CALLBACK_FAILURE;
    c->fed += len;
    if (!s || !s->m.x || s->m.x->failing) {
        c->below->credit(c->qc, id, len);
        return 0;
    }
    cb_mux_data(&c->m, &s->m, (cb_slice){data, len});
    return c->m.closed ? NGHTTP3_ERR_CALLBACK_FAILURE : 0;
}

static int deferred_consume(nghttp3_conn *ng, int64_t id, size_t consumed, void *user, void *stream_user) {
    (void)ng, (void)stream_user;
    h3_conn *c = user;
    c->below->credit(c->qc, id, consumed);
    return 0;
}

static int end_stream(nghttp3_conn *ng, int64_t id, void *user, void *stream_user) {
    (void)ng, (void)id;
    h3_conn *c = user;
    h3_stream *s = stream_user;
    if (!s || !s->m.x || s->m.x->failing) return 0;
    cb_mux_end(&c->m, &s->m);
    return c->m.closed ? NGHTTP3_ERR_CALLBACK_FAILURE : 0;
}

static int acked_stream_data(nghttp3_conn *ng, int64_t id, uint64_t len, void *user, void *stream_user) {
    (void)ng, (void)id;
    h3_conn *c = user;
    h3_stream *s = stream_user;
    if (!s) return 0;
    if (len > s->m.out.len) len = s->m.out.len;
    cb_chain_drop(&s->m.out, (size_t)len);
    c->m.h.queued -= (size_t)len;
    if (!s->m.out.len) cb_list_del(&s->m.send.link);
    if (s->m.x && !s->m.fin && cb_list_empty(&s->m.writable)) cb_list_add_tail(&c->m.writable, &s->m.writable);
    return 0;
}

/* ---- what nghttp3 decides ---- */

static int stream_close(nghttp3_conn *ng, int64_t id, uint64_t code, void *user, void *stream_user) {
    (void)ng, (void)stream_user;
    h3_conn *c = user;
    if (!c->m.closed) h3_stream_over(c, id, code);
    return c->m.closed ? NGHTTP3_ERR_CALLBACK_FAILURE : 0;
}

static int stop_sending(nghttp3_conn *ng, int64_t id, uint64_t code, void *user, void *stream_user) {
    (void)ng;
    h3_conn *c = user;
    h3_stream *s = stream_user;
    if (s) s->stopped = true;
    c->below->stop_stream(c->qc, id, code);
    return 0;
}

/* A malformed message, or a request after the final GOAWAY. */
static int reset_stream(nghttp3_conn *ng, int64_t id, uint64_t code, void *user, void *stream_user) {
    (void)ng;
    h3_conn *c = user;
    h3_stream *s = stream_user;
    h3_reset_stream(c, id, code);
    if (c->m.h.env.server && code == NGHTTP3_H3_MESSAGE_ERROR &&
        cb_rate_over(&c->m.resets, c->m.h.env.limits->max_resets_per_s, c->m.now)) {
        cb_mux_limit(&c->m, "resets");
        h3_fail(c, NGHTTP3_H3_EXCESSIVE_LOAD, "too many malformed requests");
        return NGHTTP3_ERR_CALLBACK_FAILURE;
    }
    if (!s) return 0;
    s->m.was_reset = true;
    cb_mux_close(&s->m, cb_fail(CB_EPROTO, "the message is malformed"));
    return 0;
}

/* RFC 9114, 5.2: the client learns which of its requests will not be processed. */
static int got_goaway(nghttp3_conn *ng, int64_t id, void *user) {
    (void)ng;
    h3_conn *c = user;
    const bool server = c->m.h.env.server;
    cb_cells_add(c->m.h.env.cells, server ? CB_C_HTTP_GOAWAYS_SERVER_IN : CB_C_HTTP_GOAWAYS_CLIENT_IN, 1);
    if (server) return 0;
    c->m.h.draining = true;
    for (cb_list *i = c->m.streams.next; i != &c->m.streams;) {
        h3_stream *s = CB_CONTAINER(i, h3_stream, m.link);
        i = i->next;
        if (!s->m.x || s->id < id || s->m.x->head_in) continue;
        s->m.x->refused = true;
        s->m.was_reset = true;
        h3_reset_stream(c, s->id, NGHTTP3_H3_REQUEST_CANCELLED);
        c->below->stop_stream(c->qc, s->id, NGHTTP3_H3_REQUEST_CANCELLED);
        cb_mux_close(&s->m, cb_fail(CB_EAGAIN, "the peer did not process the request"));
        i = c->m.streams.next; /* the user may have changed the list */
    }
    if (c->m.h.env.owner->capacity) c->m.h.env.owner->capacity(&c->m.h);
    return c->m.closed ? NGHTTP3_ERR_CALLBACK_FAILURE : 0;
}

static int recv_settings(nghttp3_conn *ng, const nghttp3_settings *settings, void *user) {
    (void)ng;
    h3_conn *c = user;
    c->m.settings_in = true;
    c->peer_datagram = settings->h3_datagram != 0;
    h3_send_late(c);
    return c->m.closed ? NGHTTP3_ERR_CALLBACK_FAILURE : 0;
}

const nghttp3_callbacks h3_callbacks = {.acked_stream_data = acked_stream_data,
                                        .stream_close = stream_close,
                                        .recv_data = recv_data,
                                        .deferred_consume = deferred_consume,
                                        .begin_headers = begin_headers,
                                        .recv_header = recv_header,
                                        .end_headers = end_headers,
                                        .begin_trailers = begin_trailers,
                                        .recv_trailer = recv_trailer,
                                        .end_trailers = end_trailers,
                                        .stop_sending = stop_sending,
                                        .end_stream = end_stream,
                                        .reset_stream = reset_stream,
                                        .shutdown = got_goaway,
                                        .recv_settings = recv_settings};
