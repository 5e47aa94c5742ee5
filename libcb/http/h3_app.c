/* What the QUIC connection tells HTTP/3. Inside these calls nothing is sent: what changed goes out when QUIC pulls. */
#include "base/error.h"
#include "http/h3_conn.h"
#include "http/h3_datagram.h"

enum { VECTORS = 16 };

h3_conn *h3_of_app(cb_quic_app *app) {
    return CB_CONTAINER(app, h3_conn, app);
}

static bool request_stream(int64_t id) {
    return (id & 3) == 0;
}

static bool peer_opened(const h3_conn *c, int64_t id) {
    return ((id & 1) == 0) == c->m.h.env.server;
}

/* Begins a call from QUIC. */
static h3_conn *enter(cb_quic_app *app) {
    h3_conn *c = h3_of_app(app);
    cb_mux_enter(&c->m);
    c->m.now = c->below->now(c->qc);
    return c;
}

/* Ends one that can only have put deadlines off. */
static int leave_later(h3_conn *c, int rc) {
    if (rc >= 0 && c->failed) rc = CB_EPROTO;
    cb_mux_leave(&c->m);
    return rc;
}

static int leave(h3_conn *c, int rc) {
    if (!c->m.closed) h3_told(c);
    return leave_later(c, rc);
}

/* ---- life ---- */

static int on_ready(cb_quic_app *app) {
    h3_conn *c = enter(app);
    c->ready = true;
    int rc = h3_bind(c);
    if (rc == CB_OK && !c->m.h.env.server && c->m.h.env.owner->capacity) c->m.h.env.owner->capacity(&c->m.h);
    return leave(c, rc);
}

/* 0-RTT was refused: the server has seen nothing of what was sent, so everything may be sent again. */
static int on_early_rejected(cb_quic_app *app) {
    h3_conn *c = enter(app);
    c->m.h.draining = true; /* nothing new while the old is taken away */
    while (!cb_list_empty(&c->m.streams)) {
        h3_stream *s = CB_CONTAINER(c->m.streams.next, h3_stream, m.link);
        s->m.open = false;
        s->m.was_reset = true;
        if (s->m.x) {
            s->m.x->refused = true;
            cb_mux_close(&s->m, cb_fail(CB_EAGAIN, "the server did not take early data"));
        }
        if (c->m.streams.next != &s->m.link) continue;
        if (s->m.attached) { /* its user is on the stack: it forgets the stream later */
            cb_list_del(&s->m.link);
            h3_stream_unhash(c, s);
            continue;
        }
        cb_mux_drop(&c->m, &s->m);
    }
    c->m.h.draining = c->m.drain_asked;
    nghttp3_conn_del(c->ng);
    c->ng = NULL;
    c->m.settings_in = c->no_streams = false;
    c->m.n_late = 0;
    int rc = h3_start(c);
    if (rc == CB_OK) rc = h3_bind(c);
    if (rc == CB_OK && c->m.h.env.owner->capacity) c->m.h.env.owner->capacity(&c->m.h);
    return leave(c, rc);
}

static void on_closed(cb_quic_app *app, int rc) {
    h3_conn *c = h3_of_app(app);
    const cb_hconn_owner_ops *owner = c->m.h.env.owner;
    cb_mux_enter(&c->m);
    cb_mux_closed(&c->m.h, rc < 0 ? rc : CB_ECLOSED);
    c->qc = NULL;
    if (owner->gone) owner->gone(&c->m.h, rc);
    cb_mux_leave(&c->m);
}

/* ---- streams ---- */

static int on_stream_open(cb_quic_app *app, int64_t id) {
    h3_conn *c = enter(app);
    int rc = CB_OK;
    if (!request_stream(id) && cb_rate_over(&c->uni_streams, c->m.h.env.limits->max_settings_per_s, c->m.now)) {
        cb_mux_limit(&c->m, "unidirectional streams"); /* the three that are of use come once */
        rc = h3_fail(c, NGHTTP3_H3_EXCESSIVE_LOAD, "too many unidirectional streams");
    } else if (request_stream(id) && c->m.h.env.server) {
        h3_stream *s = h3_stream_find(c, id);
        if (!s) s = h3_stream_new(c, id);
        if (s)
            cb_quiet_touch(&c->heads, &s->m.head, c->m.now);
        else
            rc = CB_ENOMEM;
    }
    return leave(c, rc);
}

/* Reads along on the peer's control stream: a client until the SETTINGS are there; and what comes there for ever
 * (PRIORITY_UPDATE, unknown frames) costs the peer nothing, so it has a rate. *hold: the last byte must wait. */
static int scan_control(h3_conn *c, int64_t id, cb_slice data, bool *hold) {
    enum { FRAME = 16 }; /* bytes of an ordinary one */
    cb_slice frames = data;
    if ((id & 3) != (c->m.h.env.server ? 2 : 3) || !data.len) return CB_OK;
    if (c->control.id < 0) {
        if (cb_h3_control_find(&c->control, id, &frames) < 0)
            return h3_fail(c, NGHTTP3_H3_EXCESSIVE_LOAD, "many streams and no control stream");
        if (id == c->control.id) cb_h3_settings_feed(&c->peer, (cb_slice){(const uint8_t *)"", 1}); /* its type */
    }
    if (id != c->control.id) return CB_OK;
    if (!c->m.settings_in && !c->m.h.env.server) cb_h3_settings_feed(&c->peer, frames);
    if (c->peer.bad) return h3_fail(c, NGHTTP3_H3_SETTINGS_ERROR, "ENABLE_CONNECT_PROTOCOL is neither 0 nor 1");
    *hold = cb_h3_control_feed(&c->control, frames);
    if (c->control.error) return h3_fail(c, c->control.error, "a frame of the control stream is wrong");
    uint64_t per_s = (uint64_t)c->m.h.env.limits->max_settings_per_s * FRAME;
    if (!cb_rate_over_n(&c->control_bytes, per_s, data.len, c->m.now)) return CB_OK;
    cb_mux_limit(&c->m, "control stream bytes");
    return h3_fail(c, NGHTTP3_H3_EXCESSIVE_LOAD, "too much on the control stream");
}

/* The held byte goes together with the one after it. Returns what nghttp3 says. */
static nghttp3_ssize read_control(h3_conn *c, int64_t id, cb_slice data, bool fin, bool hold) {
    nghttp3_ssize first = 0;
    if (c->control.holds && data.len) {
        const uint8_t two[2] = {c->control.held, *data.base++};
        c->control.holds = false;
        data.len--;
        first = nghttp3_conn_read_stream(c->ng, id, two, sizeof two, fin && !data.len);
        if (first < 0 || c->m.closed) return first;
    }
    if (hold && data.len) {
        c->control.held = data.base[--data.len];
        c->control.holds = true;
    }
    if (!data.len && (first || !fin)) return first;
    nghttp3_ssize n = nghttp3_conn_read_stream(c->ng, id, data.base, data.len, fin);
    return n < 0 ? n : first + n;
}

/* A stream that the peer ends before its time: work for nothing (RFC 9114, 10.5). */
static int too_many_resets(h3_conn *c, const h3_stream *s) {
    bool early = !s->m.x || !s->m.x->end_out;
    if (!c->m.h.env.server || !early || !cb_rate_over(&c->m.resets, c->m.h.env.limits->max_resets_per_s, c->m.now))
        return CB_OK;
    cb_mux_limit(&c->m, "resets");
    return h3_fail(c, NGHTTP3_H3_EXCESSIVE_LOAD, "too many streams are reset");
}

/* A stream that ends without a request costs its client this stream only. */
static bool no_request(h3_conn *c, int64_t id, int *rc) {
    h3_stream *s = c->m.h.env.server && request_stream(id) ? h3_stream_find(c, id) : NULL;
    if (!s || s->began) return false;
    cb_list_del(&s->m.head.link);
    s->m.was_reset = true;
    h3_reset_stream(c, id, NGHTTP3_H3_REQUEST_INCOMPLETE);
    *rc = too_many_resets(c, s);
    return true;
}

/* A body that is not as long as its message said, and the like: nghttp3 would end the connection, and it is an error of
 * the stream (RFC 9114, 4.1.2). */
static int bad_message(h3_conn *c, int64_t id, size_t left) {
    h3_stream *s = h3_stream_find(c, id);
    if (!s) return h3_failed(c, NGHTTP3_ERR_MALFORMED_HTTP_MESSAGING);
    if (left) c->below->credit(c->qc, id, left);
    cb_list_del(&s->m.head.link);
    int rc = too_many_resets(c, s);
    if (rc < 0) return rc;
    if (!s->stopped) c->below->stop_stream(c->qc, id, NGHTTP3_H3_MESSAGE_ERROR);
    if (!s->m.was_reset) h3_reset_stream(c, id, NGHTTP3_H3_MESSAGE_ERROR);
    s->stopped = s->m.was_reset = true;
    nghttp3_conn_shutdown_stream_write(c->ng, id);
    if (nghttp3_conn_shutdown_stream_read(c->ng, id)) return h3_fail(c, NGHTTP3_H3_INTERNAL_ERROR, "QPACK");
    cb_mux_close(&s->m, cb_fail(CB_EPROTO, "the message is malformed"));
    return CB_OK;
}

/* Frames that carry nothing. */
static int count_frames(h3_conn *c, int64_t id, cb_slice data) {
    h3_stream *s = request_stream(id) ? h3_stream_find(c, id) : NULL;
    const uint64_t idle = s ? cb_h3_frames_idle(&s->frames, data) : 0;
    if (!idle || !cb_rate_over_n(&c->idle_frames, c->m.h.env.limits->max_settings_per_s, idle, c->m.now)) return CB_OK;
    cb_mux_limit(&c->m, "empty and unknown frames");
    return h3_fail(c, NGHTTP3_H3_EXCESSIVE_LOAD, "too many frames that carry nothing");
}

static int on_recv(cb_quic_app *app, int64_t id, unsigned flags, cb_slice data) {
    h3_conn *c = enter(app);
    bool hold = false;
    int rc = scan_control(c, id, data, &hold);
    if (rc == CB_OK) rc = count_frames(c, id, data);
    if (rc < 0) return leave(c, rc);
    if ((flags & CB_QUIC_FIN) && !data.len && no_request(c, id, &rc)) return leave(c, rc);
    const bool fin = flags & CB_QUIC_FIN;
    c->fed = 0;
    nghttp3_ssize n = id == c->control.id ? read_control(c, id, data, fin, hold)
                                          : nghttp3_conn_read_stream(c->ng, id, data.base, data.len, fin);
    if (c->m.closed) {
        cb_mux_leave(&c->m);
        return CB_OK;
    }
    bool bare_end = fin && !data.len && n == NGHTTP3_ERR_H3_FRAME_UNEXPECTED; /* of a message that has not begun */
    if ((n == NGHTTP3_ERR_MALFORMED_HTTP_MESSAGING || bare_end) && request_stream(id))
        return leave(c, bad_message(c, id, data.len > c->fed ? data.len - c->fed : 0));
    if (n < 0) return leave(c, h3_failed(c, (int)n));
    if (n > 0) c->below->credit(c->qc, id, (size_t)n);
    return leave(c, CB_OK);
}

static int on_stream_reset(cb_quic_app *app, int64_t id, uint64_t code) {
    h3_conn *c = enter(app);
    h3_stream *s = h3_stream_find(c, id);
    int rc = CB_OK;
    if (nghttp3_conn_shutdown_stream_read(c->ng, id)) rc = h3_fail(c, NGHTTP3_H3_INTERNAL_ERROR, "QPACK");
    if (rc < 0 || !s) return leave(c, rc);
    cb_list_del(&s->m.head.link);
    cb_list_del(&s->m.body.link);
    cb_cells_add(c->m.h.env.cells, c->m.h.env.server ? CB_C_HTTP_RESETS_SERVER_IN : CB_C_HTTP_RESETS_CLIENT_IN, 1);
    if (s->stopped) return leave(c, CB_OK); /* as we asked: what we send goes on */
    rc = too_many_resets(c, s);
    if (!s->m.was_reset) {
        s->m.was_reset = true;
        nghttp3_conn_shutdown_stream_write(c->ng, id);
        h3_reset_stream(c, id, NGHTTP3_H3_REQUEST_CANCELLED);
    }
    if (!s->m.x) return leave(c, rc);
    if (!c->m.h.env.server && code == NGHTTP3_H3_REQUEST_REJECTED && !s->m.x->head_in) {
        s->m.x->refused = true;
        cb_mux_close(&s->m, cb_fail(CB_EAGAIN, "the peer did not process the request"));
    } else {
        cb_mux_close(&s->m, cb_fail(CB_ECLOSED, "the peer reset the stream with 0x%llx", (unsigned long long)code));
    }
    return leave(c, rc);
}

static int on_stream_stop(cb_quic_app *app, int64_t id, uint64_t code) {
    h3_conn *c = enter(app);
    h3_stream *s = h3_stream_find(c, id);
    nghttp3_conn_shutdown_stream_write(c->ng, id);
    if (!s) return leave(c, CB_OK);
    s->m.mute = true;
    cb_list_del(&s->m.send.link);
    if (!c->m.h.env.server || !s->m.x) return leave(c, CB_OK); /* a response may come all the same, or a reset */
    int rc = too_many_resets(c, s);
    if (!s->stopped) {
        s->stopped = true;
        nghttp3_conn_shutdown_stream_read(c->ng, id);
        c->below->stop_stream(c->qc, id, NGHTTP3_H3_REQUEST_CANCELLED);
    }
    cb_mux_close(&s->m, cb_fail(CB_ECLOSED, "the peer does not read the response: 0x%llx", (unsigned long long)code));
    return leave(c, rc);
}

static int close_reason(const h3_conn *c, const h3_stream *s, uint64_t code) {
    const cb_exchange *x = s->m.x;
    if (x->failing && x->end_out) return CB_OK; /* on_close gets the reason */
    if (x->end_in && (x->end_out || !c->m.h.env.server)) return CB_OK;
    if (code == NGHTTP3_H3_NO_ERROR || code == UINT64_MAX) return cb_fail(CB_ECLOSED, "the stream ended early");
    return cb_fail(CB_ECLOSED, "the stream was closed with 0x%llx", (unsigned long long)code);
}

/* Called when nghttp3 is through with it: a stream may end before its fields can be decoded (RFC 9204, 2.1.2). */
void h3_stream_over(h3_conn *c, int64_t id, uint64_t code) {
    h3_stream *s = h3_stream_find(c, id);
    if (s) {
        s->m.open = false;
        if (s->m.x)
            cb_mux_close(&s->m, close_reason(c, s, code));
        else
            cb_mux_drop(&c->m, &s->m);
    } else if (peer_opened(c, id)) {
        if (request_stream(id)) nghttp3_conn_set_max_client_streams_bidi(c->ng, ++c->max_bidi);
        c->below->extend_streams(c->qc, request_stream(id), 1);
    }
    if (!c->m.closed && !c->m.h.env.server && c->m.h.env.owner->capacity && !c->m.h.draining)
        c->m.h.env.owner->capacity(&c->m.h);
}

static int on_stream_close(cb_quic_app *app, int64_t id, uint64_t code) {
    h3_conn *c = enter(app);
    int error = nghttp3_conn_close_stream(c->ng, id, code == UINT64_MAX ? NGHTTP3_H3_NO_ERROR : code);
    if (c->m.closed) error = 0;
    if (error && error != NGHTTP3_ERR_STREAM_NOT_FOUND) return leave(c, h3_failed(c, error));
    if (!c->m.closed && (error || !request_stream(id))) h3_stream_over(c, id, code);
    return leave(c, CB_OK);
}

static int on_datagram(cb_quic_app *app, cb_slice data) {
    h3_conn *c = enter(app);
    int64_t id;
    cb_slice payload;
    if (cb_h3_datagram_read(data, &id, &payload) < 0)
        return leave(c, h3_fail(c, 0x33 /* H3_DATAGRAM_ERROR */, cb_last_error()));
    h3_stream *s = h3_stream_find(c, id);
    /* For a stream that is not there (yet, or any more) it is dropped: RFC 9297, 2.1. */
    if (!s || !s->m.x || !s->m.x->head_in) return leave(c, CB_OK);
    int rc = cb_exchange_in_datagram(s->m.x, payload);
    if (rc < 0) cb_mux_failed(&c->m, &s->m, rc);
    return leave(c, CB_OK);
}

/* ---- sending ---- */

static int on_pull(cb_quic_app *app, int64_t *stream, bool *fin, cb_slice *vec, size_t n) {
    h3_conn *c = h3_of_app(app);
    nghttp3_vec v[VECTORS];
    int end = 0;
    *stream = -1;
    *fin = false;
    if (c->m.closed || !c->ng) return 0;
    nghttp3_ssize count = nghttp3_conn_writev_stream(c->ng, stream, &end, v, n < VECTORS ? n : VECTORS);
    if (count < 0) return h3_failed(c, (int)count);
    for (nghttp3_ssize i = 0; i < count; i++)
        vec[i] = (cb_slice){v[i].base, v[i].len};
    *fin = end != 0;
    return (int)count;
}

/* The response is on its way and the request is not complete: the rest is not wanted (RFC 9114, 4.1). */
static void stop_reading(h3_conn *c, h3_stream *s) {
    if (!c->m.h.env.server || !s->m.x || !s->m.fin || s->m.x->end_in || s->m.x->tunnel || s->stopped) return;
    if (cb_chain_ready(&s->m.out)) return;
    s->stopped = true;
    nghttp3_conn_shutdown_stream_read(c->ng, s->id);
    c->below->stop_stream(c->qc, s->id, NGHTTP3_H3_NO_ERROR);
}

static int on_committed(cb_quic_app *app, int64_t id, size_t bytes) {
    h3_conn *c = enter(app);
    int error = nghttp3_conn_add_write_offset(c->ng, id, bytes);
    if (error) return leave(c, h3_failed(c, error));
    c->sent_at = c->m.now;
    h3_stream *s = request_stream(id) ? h3_stream_find(c, id) : NULL;
    if (s) {
        if (s->m.out.len) cb_quiet_touch(&c->m.sends, &s->m.send, c->m.now);
        stop_reading(c, s);
    }
    return leave_later(c, CB_OK);
}

static void on_blocked(cb_quic_app *app, int64_t id) {
    h3_conn *c = h3_of_app(app);
    h3_stream *s = h3_stream_find(c, id);
    nghttp3_conn_block_stream(c->ng, id);
    if (s) s->blocked = true;
}

static void on_unblocked(cb_quic_app *app, int64_t id) {
    h3_conn *c = h3_of_app(app);
    h3_stream *s = h3_stream_find(c, id);
    nghttp3_conn_unblock_stream(c->ng, id);
    if (s) s->blocked = false;
}

static void on_shut(cb_quic_app *app, int64_t id) {
    nghttp3_conn_shutdown_stream_write(h3_of_app(app)->ng, id);
}

static void on_acked(cb_quic_app *app, int64_t id, uint64_t bytes) {
    h3_conn *c = enter(app);
    int error = nghttp3_conn_add_ack_offset(c->ng, id, bytes);
    if (error) h3_failed(c, error);
    h3_stream *s = request_stream(id) ? h3_stream_find(c, id) : NULL;
    if (s && s->m.out.len) cb_quiet_touch(&c->m.sends, &s->m.send, c->m.now);
    cb_mux_deliver_writable(&c->m);
    leave(c, CB_OK);
}

static void on_streams_available(cb_quic_app *app) {
    h3_conn *c = enter(app);
    c->no_streams = false;
    if (!c->m.h.env.server && c->m.h.env.owner->capacity) c->m.h.env.owner->capacity(&c->m.h);
    leave(c, CB_OK);
}

/* What must not go as early data may go now. */
static int on_handshake(cb_quic_app *app) {
    h3_conn *c = enter(app);
    if (c->m.h.env.server) c->m.h.secured = c->m.now;
    if (c->m.drain_asked) cb_mux_wake(&c->m); /* that waited for it */
    if (!c->m.h.env.server && c->m.h.env.owner->capacity) c->m.h.env.owner->capacity(&c->m.h);
    return leave(c, CB_OK);
}

const cb_quic_app_ops h3_app_ops = {.ready = on_ready,
                                    .handshake = on_handshake,
                                    .early_rejected = on_early_rejected,
                                    .recv = on_recv,
                                    .stream_open = on_stream_open,
                                    .stream_reset = on_stream_reset,
                                    .stream_stop = on_stream_stop,
                                    .stream_close = on_stream_close,
                                    .datagram = on_datagram,
                                    .pull = on_pull,
                                    .committed = on_committed,
                                    .blocked = on_blocked,
                                    .unblocked = on_unblocked,
                                    .shut = on_shut,
                                    .acked = on_acked,
                                    .streams_available = on_streams_available,
                                    .closed = on_closed};
