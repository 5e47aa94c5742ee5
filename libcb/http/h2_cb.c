/* What nghttp2 tells about received frames. Calls into the session from here only submit; they never read or write. */
#include "base/error.h"
#include "http/h2_conn.h"
#include <string.h>

static h2_stream *stream_of(nghttp2_session *ng, int32_t id) {
    return nghttp2_session_get_stream_user_data(ng, id);
}

/* ---- field sections ---- */

static int begin_request(h2_conn *c, int32_t id) {
    cb_exchange *x = NULL;
    if (c->m.closed) return NGHTTP2_ERR_CALLBACK_FAILURE;
    if (cb_hconn_exchange(&c->m.h, &x) < 0) return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    h2_stream *s = h2_stream_new(c, x);
    if (!s) {
        cb_exchange_closed(x, CB_ENOMEM);
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    }
    s->id = id;
    s->m.open = true;
    x->stream_id = id;
    x->started = c->m.now;
    nghttp2_session_set_stream_user_data(c->ng, id, s);
    c->section = s;
    c->section_since = c->m.now;
    cb_mux_count_request(&c->m);
    return 0;
}

static int on_begin_headers(nghttp2_session *ng, const nghttp2_frame *frame, void *user) {
    h2_conn *c = user;
    h2_stream *s = stream_of(ng, frame->hd.stream_id);
    if (!s && c->m.h.env.server && frame->headers.cat == NGHTTP2_HCAT_REQUEST)
        return begin_request(c, frame->hd.stream_id);
    c->section = s;
    c->section_since = c->m.now;
    if (s) {
        s->m.section_rc = CB_OK;
        s->in_trailer = s->m.x && s->m.x->head_in;
    }
    return 0;
}

static int on_header(nghttp2_session *ng, const nghttp2_frame *frame, const uint8_t *name, size_t name_len,
                     const uint8_t *value, size_t value_len, uint8_t flags, void *user) {
    (void)ng, (void)frame, (void)flags;
    h2_conn *c = user;
    h2_stream *s = c->section;
    /* After the first error the section is still decoded, because HPACK's state must go on; nothing is kept of it. */
    if (!s || !s->m.x || s->m.section_rc < 0) return 0;
    cb_slice n = {name, name_len}, v = {value, value_len};
    if (s->in_trailer)
        s->m.section_rc = cb_exchange_in_trailer(s->m.x, n, v);
    else if (name_len && name[0] == ':')
        s->m.section_rc = cb_exchange_in_pseudo(s->m.x, n, v);
    else
        s->m.section_rc = cb_exchange_in_field(s->m.x, n, v);
    return 0;
}

/* nghttp2 would leave such a field out; RFC 9113, 8.2.1 calls the message malformed. */
static int on_invalid_header(nghttp2_session *ng, const nghttp2_frame *frame, const uint8_t *name, size_t name_len,
                             const uint8_t *value, size_t value_len, uint8_t flags, void *user) {
    (void)ng, (void)frame, (void)value, (void)value_len, (void)flags;
    h2_conn *c = user;
    char text[64];
    if (c->section && c->section->m.section_rc == CB_OK)
        c->section->m.section_rc = cb_fail(CB_EPROTO, "field \"%s\" is malformed",
                                           cb_text_escape(text, sizeof text, (cb_slice){name, name_len}));
    return 0;
}

static void section_over(h2_conn *c, h2_stream *s, bool end) {
    c->section = NULL;
    if (!s->m.x || s->m.x->failing) return;
    if (!s->in_trailer)
        cb_mux_head(&c->m, &s->m, end);
    else if (s->m.section_rc < 0)
        cb_mux_failed(&c->m, &s->m, s->m.section_rc);
    else if (end)
        cb_mux_end(&c->m, &s->m);
}

/* ---- bodies ---- */

static int on_data(nghttp2_session *ng, uint8_t flags, int32_t id, const uint8_t *data, size_t len, void *user) {
    (void)flags;
    h2_conn *c = user;
    h2_stream *s = stream_of(ng, id);
    if (c->m.closed) return NGHTTP2_ERR_CALLBACK_FAILURE;
    if (!s || !s->m.x || s->m.x->failing) {
        nghttp2_session_consume(ng, id, len);
        return 0;
    }
    cb_mux_data(&c->m, &s->m, (cb_slice){data, len});
    return c->m.closed ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
}

/* ---- frames ---- */

/* A peer that reads gives credit back: for a stream and for the connection, at most so many times for one frame of ours
 * or one of these pieces of it. What is beyond that counts as the rest does. */
enum { UPDATES_A_FRAME = 4, BYTES_AN_UPDATE = 128, UPDATES_EARNED_MAX = 1 << 16 };

static void earn_updates(h2_conn *c, size_t len) {
    c->earned += UPDATES_A_FRAME + (uint32_t)(len / BYTES_AN_UPDATE);
    if (c->earned > UPDATES_EARNED_MAX) c->earned = UPDATES_EARNED_MAX;
}

static bool too_many_updates(h2_conn *c, uint32_t max) {
    if (!c->earned) return cb_rate_over(&c->updates, max, c->m.now);
    c->earned--;
    return false;
}

/* Frames that cost us something and the peer nothing. */
static int on_begin_frame(nghttp2_session *ng, const nghttp2_frame_hd *hd, void *user) {
    (void)ng;
    h2_conn *c = user;
    uint32_t max = c->m.h.env.limits->max_settings_per_s;
    if (c->ended) return 0;
    switch (hd->type) {
    case NGHTTP2_SETTINGS:
        if (cb_rate_over(&c->settings, max, c->m.now)) h2_calm(c, "SETTINGS frames");
        break;
    case NGHTTP2_PING:
        if (cb_rate_over(&c->pings, max, c->m.now)) h2_calm(c, "PING frames");
        break;
    case NGHTTP2_PRIORITY:
    case NGHTTP2_PRIORITY_UPDATE:
        if (cb_rate_over(&c->priorities, max, c->m.now)) h2_calm(c, "PRIORITY frames");
        break;
    case NGHTTP2_WINDOW_UPDATE:
        if (too_many_updates(c, max)) h2_calm(c, "WINDOW_UPDATE frames");
        break;
    default:
        if (hd->type > NGHTTP2_CONTINUATION && cb_rate_over(&c->unknown, max, c->m.now)) h2_calm(c, "unknown frames");
        break;
    }
    return 0;
}

/* Frames of types that we do not know are counted and left. */
static int on_extension(nghttp2_session *ng, void **payload, const nghttp2_frame_hd *hd, void *user) {
    (void)ng, (void)payload, (void)hd, (void)user;
    return NGHTTP2_ERR_CANCEL;
}

static void got_data(h2_conn *c, const nghttp2_frame *frame, bool end) {
    h2_stream *s = stream_of(c->ng, frame->hd.stream_id);
    if (!end && frame->hd.length == frame->data.padlen &&
        cb_rate_over(&c->empties, c->m.h.env.limits->max_settings_per_s, c->m.now))
        h2_calm(c, "empty DATA frames");
    if (s && end && s->m.x && !s->m.x->failing) cb_mux_end(&c->m, &s->m);
}

static void got_settings(h2_conn *c, const nghttp2_frame *frame) {
    if (frame->hd.flags & NGHTTP2_FLAG_ACK) return;
    c->m.settings_in = true;
    h2_send_late(c);
    if (!c->m.h.env.server && c->m.h.env.owner->capacity) c->m.h.env.owner->capacity(&c->m.h);
}

static void got_goaway(h2_conn *c, const nghttp2_frame *frame) {
    char peer[CB_ADDR_TEXT];
    cb_log_line(c->m.h.env.log, CB_LOG_DEBUG, "h2", "GOAWAY from %s: error %u, last stream %d",
                cb_addr_text(&c->m.h.env.remote, peer), (unsigned)frame->goaway.error_code,
                (int)frame->goaway.last_stream_id);
    const bool server = c->m.h.env.server;
    cb_cells_add(c->m.h.env.cells, server ? CB_C_HTTP_GOAWAYS_SERVER_IN : CB_C_HTTP_GOAWAYS_CLIENT_IN, 1);
    if (server) return;
    c->m.h.draining = true;
    if (c->m.h.env.owner->capacity) c->m.h.env.owner->capacity(&c->m.h);
}

/* NO_ERROR only says that the rest is not wanted. */
static void count_reset(const h2_conn *c, uint32_t error, bool out) {
    const bool server = c->m.h.env.server;
    if (error == NGHTTP2_NO_ERROR) return;
    cb_cells_add(c->m.h.env.cells,
                 server ? (out ? CB_C_HTTP_RESETS_SERVER_OUT : CB_C_HTTP_RESETS_SERVER_IN)
                        : (out ? CB_C_HTTP_RESETS_CLIENT_OUT : CB_C_HTTP_RESETS_CLIENT_IN),
                 1);
}

static int on_frame_recv(nghttp2_session *ng, const nghttp2_frame *frame, void *user) {
    h2_conn *c = user;
    bool end = frame->hd.flags & NGHTTP2_FLAG_END_STREAM;
    switch (frame->hd.type) {
    case NGHTTP2_HEADERS:
        if (c->section) section_over(c, c->section, end);
        break;
    case NGHTTP2_DATA:
        got_data(c, frame, end);
        break;
    case NGHTTP2_RST_STREAM: {
        const h2_stream *s = stream_of(ng, frame->hd.stream_id);
        bool early = s && s->m.x && !s->m.x->end_out;
        count_reset(c, frame->rst_stream.error_code, false);
        if (early && c->m.h.env.server && cb_rate_over(&c->m.resets, c->m.h.env.limits->max_resets_per_s, c->m.now))
            h2_calm(c, "resets");
        break;
    }
    case NGHTTP2_SETTINGS:
        got_settings(c, frame);
        break;
    case NGHTTP2_GOAWAY:
        got_goaway(c, frame);
        break;
    case NGHTTP2_PING:
        if ((frame->hd.flags & NGHTTP2_FLAG_ACK) && c->m.drain_at && !memcmp(frame->ping.opaque_data, "cb-drain", 8))
            h2_final_goaway(c);
        break;
    default:
        break;
    }
    return c->m.closed ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
}

static int on_invalid_frame(nghttp2_session *ng, const nghttp2_frame *frame, int error, void *user) {
    (void)ng;
    const h2_conn *c = user;
    char peer[CB_ADDR_TEXT];
    cb_log_line(c->m.h.env.log, CB_LOG_DEBUG, "h2", "bad frame from %s: type %u, stream %d: %s",
                cb_addr_text(&c->m.h.env.remote, peer), frame->hd.type, (int)frame->hd.stream_id,
                nghttp2_strerror(error));
    return 0;
}

/* ---- what went out ---- */

/* The response is complete and the request is not: the rest is not wanted (RFC 9113, 8.1). A tunnel's directions end
 * one by one. */
static void sent_end(h2_conn *c, int32_t id) {
    const h2_stream *s = stream_of(c->ng, id);
    if (!c->m.h.env.server || !s || !s->m.x || s->m.x->tunnel) return;
    if (nghttp2_session_get_stream_remote_close(c->ng, id)) return;
    nghttp2_submit_rst_stream(c->ng, NGHTTP2_FLAG_NONE, id, NGHTTP2_NO_ERROR);
}

static int on_frame_send(nghttp2_session *ng, const nghttp2_frame *frame, void *user) {
    (void)ng;
    h2_conn *c = user;
    switch (frame->hd.type) {
    case NGHTTP2_HEADERS:
    case NGHTTP2_DATA:
        earn_updates(c, frame->hd.length);
        if (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) sent_end(c, frame->hd.stream_id);
        break;
    case NGHTTP2_RST_STREAM: {
        /* A peer can have streams reset by breaking rules as well as by RST_STREAM: both are work for nothing. */
        uint32_t e = frame->rst_stream.error_code;
        count_reset(c, e, true);
        if (c->m.h.env.server && !c->ended && e != NGHTTP2_NO_ERROR && e != NGHTTP2_CANCEL &&
            e != NGHTTP2_INTERNAL_ERROR && e != NGHTTP2_CONNECT_ERROR &&
            cb_rate_over(&c->m.resets, c->m.h.env.limits->max_resets_per_s, c->m.now))
            h2_calm(c, "resets");
        break;
    }
    case NGHTTP2_GOAWAY:
        cb_cells_add(c->m.h.env.cells, c->m.h.env.server ? CB_C_HTTP_GOAWAYS_SERVER_OUT : CB_C_HTTP_GOAWAYS_CLIENT_OUT,
                     1);
        if (frame->goaway.error_code != NGHTTP2_NO_ERROR) c->ended = true;
        break;
    default:
        break;
    }
    return 0;
}

/* A request that could not be sent any more (the peer said GOAWAY): the exchange may go elsewhere. */
static int on_frame_not_send(nghttp2_session *ng, const nghttp2_frame *frame, int error, void *user) {
    (void)error;
    h2_conn *c = user;
    if (frame->hd.type != NGHTTP2_HEADERS || c->m.h.env.server) return 0;
    h2_stream *s = stream_of(ng, frame->hd.stream_id);
    if (s && s->m.x && !s->m.x->head_in) s->refused = true;
    return 0;
}

static int close_reason(h2_conn *c, const h2_stream *s, uint32_t error) {
    const cb_exchange *x = s->m.x;
    if (!c->m.h.env.server && !x->head_in && (error == NGHTTP2_REFUSED_STREAM || s->refused)) {
        s->m.x->refused = true;
        return cb_fail(CB_EAGAIN, "the peer did not process the request");
    }
    if (error == NGHTTP2_NO_ERROR && x->failing) return CB_OK; /* on_close gets the reason */
    if (error == NGHTTP2_NO_ERROR && x->end_in && (x->end_out || !c->m.h.env.server)) return CB_OK;
    if (error == NGHTTP2_NO_ERROR) return cb_fail(CB_ECLOSED, "the stream ended early");
    bool ours = error == NGHTTP2_PROTOCOL_ERROR || error == NGHTTP2_FLOW_CONTROL_ERROR ||
                error == NGHTTP2_STREAM_CLOSED || error == NGHTTP2_FRAME_SIZE_ERROR;
    return cb_fail(ours ? CB_EPROTO : CB_ECLOSED, "the stream was reset: %s", nghttp2_http2_strerror(error));
}

static int on_stream_close(nghttp2_session *ng, int32_t id, uint32_t error, void *user) {
    h2_conn *c = user;
    h2_stream *s = stream_of(ng, id);
    if (!s) return 0;
    s->m.open = false;
    if (c->section == s) c->section = NULL;
    if (s->m.x)
        cb_mux_close(&s->m, close_reason(c, s, error));
    else
        cb_mux_drop(&c->m, &s->m);
    if (!c->m.h.env.server && c->m.h.env.owner->capacity && !c->m.h.draining) c->m.h.env.owner->capacity(&c->m.h);
    return 0;
}

int h2_callbacks(nghttp2_session_callbacks **out) {
    nghttp2_session_callbacks *cb;
    if (nghttp2_session_callbacks_new(&cb)) return cb_fail(CB_ENOMEM, "no memory for an HTTP/2 session");
    nghttp2_session_callbacks_set_on_begin_headers_callback(cb, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback(cb, on_header);
    nghttp2_session_callbacks_set_on_invalid_header_callback(cb, on_invalid_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, on_data);
    nghttp2_session_callbacks_set_on_begin_frame_callback(cb, on_begin_frame);
    nghttp2_session_callbacks_set_unpack_extension_callback(cb, on_extension);
    nghttp2_session_callbacks_set_on_frame_recv_callback(cb, on_frame_recv);
    nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(cb, on_invalid_frame);
    nghttp2_session_callbacks_set_on_frame_send_callback(cb, on_frame_send);
    nghttp2_session_callbacks_set_on_frame_not_send_callback(cb, on_frame_not_send);
    nghttp2_session_callbacks_set_on_stream_close_callback(cb, on_stream_close);
    nghttp2_session_callbacks_set_send_data_callback(cb, h2_on_send_data);
    *out = cb;
    return CB_OK;
}
