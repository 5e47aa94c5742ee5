/* What nghttp3 tells about received frames. */
#include "base/error.h"
#include "http/h3_conn.h"

/* ---- field sections ---- */

static int begin_request(h3_conn *c, h3_stream *s) {
    cb_exchange *x = NULL;
    s->began = true;
    if (cb_hconn_exchange(&c->h, &x) < 0) {
        c->below->reset_stream(c->qc, s->id, NGHTTP3_H3_INTERNAL_ERROR);
        c->below->stop_stream(c->qc, s->id, NGHTTP3_H3_INTERNAL_ERROR);
        return 0;
    }
    h3_attach(c, s, x);
    x->started = s->head.since ? s->head.since : c->now;
    x->early = c->below->in_early_data(c->qc);
    if (++c->n_opened >= c->h.env.limits->max_requests && !c->h.draining) h3_drain(&c->h);
    return 0;
}

static int begin_headers(nghttp3_conn *ng, int64_t id, void *user, void *stream_user) {
    h3_conn *c = user;
    h3_stream *s = stream_user ? stream_user : h3_stream_find(c, id);
    if (c->closed) return NGHTTP3_ERR_CALLBACK_FAILURE;
    if (!s && !(s = h3_stream_new(c, id))) return NGHTTP3_ERR_CALLBACK_FAILURE;
    nghttp3_conn_set_stream_user_data(ng, id, s);
    s->section_rc = CB_OK;
    return c->h.env.server && !s->began ? begin_request(c, s) : 0;
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
    if (!s || !s->x || s->section_rc < 0) return 0;
    cb_slice n = text(name), v = text(value);
    s->section_rc = n.len && n.base[0] == ':' ? cb_exchange_in_pseudo(s->x, n, v) : cb_exchange_in_field(s->x, n, v);
    return 0;
}

static int end_headers(nghttp3_conn *ng, int64_t id, int fin, void *user, void *stream_user) {
    (void)ng, (void)id;
    h3_conn *c = user;
    h3_stream *s = stream_user;
    if (!s || !s->x) return 0;
    cb_list_del(&s->head.link);
    int rc = s->section_rc;
    if (rc == CB_OK) rc = cb_exchange_in_head(s->x, fin);
    if (rc < 0) {
        h3_stream_failed(c, s, rc);
        return 0;
    }
    if (!s->x || !c->h.env.server) return 0;
    if (!fin && !s->x->connect && !s->x->end_in) cb_quiet_touch(&c->bodies, &s->body, c->now);
    return 0;
}

static int begin_trailers(nghttp3_conn *ng, int64_t id, void *user, void *stream_user) {
    (void)ng, (void)id, (void)user;
    h3_stream *s = stream_user;
    if (s) s->section_rc = CB_OK;
    return 0;
}

static int recv_trailer(nghttp3_conn *ng, int64_t id, int32_t token, nghttp3_rcbuf *name, nghttp3_rcbuf *value,
                        uint8_t flags, void *user, void *stream_user) {
    (void)ng, (void)id, (void)token, (void)flags, (void)user;
    h3_stream *s = stream_user;
    if (!s || !s->x || s->section_rc < 0) return 0;
    s->section_rc = cb_exchange_in_trailer(s->x, text(name), text(value));
    return 0;
}

static int end_trailers(nghttp3_conn *ng, int64_t id, int fin, void *user, void *stream_user) {
    (void)ng, (void)id, (void)fin;
    h3_stream *s = stream_user;
    if (s && s->x && !s->x->failing && s->section_rc < 0) h3_stream_failed(user, s, s->section_rc);
    return 0;
}

/* ---- bodies ---- */

static int recv_data(nghttp3_conn *ng, int64_t id, const uint8_t *data, size_t len, void *user, void *stream_user) {
    (void)ng;
    h3_conn *c = user;
    h3_stream *s = stream_user;
    if (c->closed) return NGHTTP3_ERR_CALLBACK_FAILURE;
    c->fed += len;
    if (!s || !s->x || s->x->failing) {
        c->below->credit(c->qc, id, len);
        return 0;
    }
    if (!cb_list_empty(&s->body.link)) cb_quiet_touch(&c->bodies, &s->body, c->now);
    s->owed += len;
    size_t passed = len;
    int rc = s->x->connect ? cb_tunnel_in_feed(&s->tunnel, s->x, s->capsules, (cb_slice){data, len}, &passed)
                           : cb_exchange_in_body(s->x, (cb_slice){data, len});
    h3_credit(c, s, len - passed);
    if (rc < 0) h3_stream_failed(c, s, rc);
    return c->closed ? NGHTTP3_ERR_CALLBACK_FAILURE : 0;
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
    if (!s || !s->x || s->x->failing) return 0;
    cb_list_del(&s->body.link);
    int rc = cb_tunnel_in_end(s->tunnel);
    if (rc == CB_OK) rc = cb_exchange_in_end(s->x);
    if (rc < 0) h3_stream_failed(c, s, rc);
    return c->closed ? NGHTTP3_ERR_CALLBACK_FAILURE : 0;
}

static int acked_stream_data(nghttp3_conn *ng, int64_t id, uint64_t len, void *user, void *stream_user) {
    (void)ng, (void)id;
    h3_conn *c = user;
    h3_stream *s = stream_user;
    if (!s) return 0;
    if (len > s->out.len) len = s->out.len;
    cb_chain_drop(&s->out, (size_t)len);
    c->h.queued -= (size_t)len;
    if (!s->out.len) cb_list_del(&s->send.link);
    if (s->x && !s->fin && cb_list_empty(&s->writable)) cb_list_add_tail(&c->writable, &s->writable);
    return 0;
}

/* ---- what nghttp3 decides ---- */

static int stream_close(nghttp3_conn *ng, int64_t id, uint64_t code, void *user, void *stream_user) {
    (void)ng, (void)stream_user;
    h3_conn *c = user;
    if (!c->closed) h3_stream_over(c, id, code);
    return c->closed ? NGHTTP3_ERR_CALLBACK_FAILURE : 0;
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
    c->below->reset_stream(c->qc, id, code);
    if (c->h.env.server && code == NGHTTP3_H3_MESSAGE_ERROR &&
        cb_rate_over(&c->resets, c->h.env.limits->max_resets_per_s, c->now)) {
        h3_limit(c, "resets");
        h3_fail(c, NGHTTP3_H3_EXCESSIVE_LOAD, "too many malformed requests");
        return NGHTTP3_ERR_CALLBACK_FAILURE;
    }
    if (!s) return 0;
    s->was_reset = true;
    h3_close(c, s, cb_fail(CB_EPROTO, "the message is malformed"));
    return 0;
}

/* RFC 9114, 5.2: the client learns which of its requests will not be processed. */
static int got_goaway(nghttp3_conn *ng, int64_t id, void *user) {
    (void)ng;
    h3_conn *c = user;
    if (c->h.env.server) return 0;
    c->h.draining = true;
    for (cb_list *i = c->streams.next; i != &c->streams;) {
        h3_stream *s = CB_CONTAINER(i, h3_stream, link);
        i = i->next;
        if (!s->x || s->id < id || s->x->head_in) continue;
        s->x->refused = true;
        s->was_reset = true;
        c->below->reset_stream(c->qc, s->id, NGHTTP3_H3_REQUEST_CANCELLED);
        c->below->stop_stream(c->qc, s->id, NGHTTP3_H3_REQUEST_CANCELLED);
        h3_close(c, s, cb_fail(CB_EAGAIN, "the peer did not process the request"));
        i = c->streams.next; /* the user may have changed the list */
    }
    if (c->h.env.owner->capacity) c->h.env.owner->capacity(&c->h);
    return c->closed ? NGHTTP3_ERR_CALLBACK_FAILURE : 0;
}

static int recv_settings(nghttp3_conn *ng, const nghttp3_settings *settings, void *user) {
    (void)ng;
    h3_conn *c = user;
    c->settings_in = true;
    c->peer_datagram = settings->h3_datagram != 0;
    h3_send_late(c);
    return c->closed ? NGHTTP3_ERR_CALLBACK_FAILURE : 0;
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
