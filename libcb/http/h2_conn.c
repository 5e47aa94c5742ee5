#include "http/h2_conn.h"
#include "base/blocks.h"
#include "base/error.h"
#include "base/mem.h"
#include <string.h>

/* ---- streams ---- */

h2_stream *h2_stream_new(h2_conn *c, cb_exchange *x) {
    _Static_assert(sizeof(h2_stream) <= CB_BLOCK_MIN, "a stream fits the smallest block");
    h2_stream *s = cb_mux_stream_new(&c->m, sizeof *s);
    if (s) cb_mux_attach(&c->m, &s->m, x);
    return s;
}

static void destroy(cb_mux *m) {
    h2_conn *c = h2_of(&m->h);
    if (c->ng && m->h.n_served) {
        cb_cells_observe(m->h.env.cells, CB_C_HTTP_HPACK_IN, nghttp2_session_get_hd_inflate_dynamic_table_size(c->ng));
        cb_cells_observe(m->h.env.cells, CB_C_HTTP_HPACK_OUT, nghttp2_session_get_hd_deflate_dynamic_table_size(c->ng));
    }
    nghttp2_session_del(c->ng);
    cb_mux_free_streams(m);
    cb_mem_free(m->h.env.alloc, c);
}

/* A call of the owner begins; it ends with cb_mux_leave(). */
static void enter(h2_conn *c, cb_time now) {
    cb_mux_enter(&c->m);
    c->m.now = now;
}

/* ---- helpers of the other files ---- */

void h2_calm(h2_conn *c, const char *what) {
    if (c->ended) return;
    c->ended = true;
    cb_mux_limit(&c->m, what);
    nghttp2_session_terminate_session(c->ng, NGHTTP2_ENHANCE_YOUR_CALM);
}

static int to_sink(h2_conn *c, const cb_slice *v, size_t n) {
    int rc = c->m.h.env.sink->write(c->m.h.env.sink, v, n);
    if (rc < 0) c->rc = rc;
    return rc;
}

static int push_batch(h2_conn *c) {
    const cb_slice all = {c->batch, c->batched};
    c->batched = 0;
    return all.len ? to_sink(c, &all, 1) : CB_OK;
}

int h2_write(h2_conn *c, const cb_slice *v, size_t n) {
    c->wrote = true;
    if (!c->batch) return to_sink(c, v, n);
    for (size_t i = 0; i < n; i++) {
        for (cb_slice in = v[i]; in.len;) {
            size_t part = H2_BATCH - c->batched < in.len ? H2_BATCH - c->batched : in.len;
            memcpy(c->batch + c->batched, in.base, part);
            c->batched += part;
            in.base += part;
            in.len -= part;
            if (c->batched == H2_BATCH && push_batch(c) < 0) return c->rc;
        }
    }
    return CB_OK;
}

bool h2_has_room(const h2_conn *c) {
    return c->m.h.env.sink->room(c->m.h.env.sink) > c->batched;
}

static void credit(cb_mux *m, cb_mux_stream *stream, size_t n) {
    h2_conn *c = h2_of(&m->h);
    const h2_stream *s = (const h2_stream *)stream;
    if (stream->open)
        nghttp2_session_consume(c->ng, s->id, n);
    else
        nghttp2_session_consume_connection(c->ng, n);
    cb_mux_wake(m);
}

/* ---- the exchange's side ---- */

static void h2_reset(cb_hconn *h, cb_exchange *x, int code) {
    static const uint32_t codes[] = {
        [CB_RESET_CANCEL] = NGHTTP2_CANCEL,           [CB_RESET_REFUSED] = NGHTTP2_REFUSED_STREAM,
        [CB_RESET_INTERNAL] = NGHTTP2_INTERNAL_ERROR, [CB_RESET_PROTOCOL] = NGHTTP2_PROTOCOL_ERROR,
        [CB_RESET_CALM] = NGHTTP2_ENHANCE_YOUR_CALM,  [CB_RESET_CONNECT] = NGHTTP2_CONNECT_ERROR};
    h2_conn *c = h2_of(h);
    /* What is queued stays when it has ended already: a frame of it may be half-way out. */
    const h2_stream *s = (const h2_stream *)cb_mux_reset(h, x);
    if (!s) return;
    bool known = code >= 0 && (size_t)code < sizeof codes / sizeof *codes;
    nghttp2_submit_rst_stream(c->ng, NGHTTP2_FLAG_NONE, s->id, known ? codes[code] : NGHTTP2_INTERNAL_ERROR);
    cb_mux_wake(&c->m);
}

/* ---- the owner's side ---- */

/* What follows from the number of open exchanges. */
static void settle(h2_conn *c) {
    if (c->m.h.n_exchanges) {
        c->m.idle_since = 0;
        return;
    }
    if (!c->m.idle_since) c->m.idle_since = c->m.now;
    if (c->m.h.draining && !c->m.h.env.server && !c->m.final_goaway) {
        c->m.final_goaway = true;
        nghttp2_session_terminate_session(c->ng, NGHTTP2_NO_ERROR);
    }
}

/* nghttp2 gave up in a state in which it cannot send; the peer should still hear why. */
static int fatal(h2_conn *c, int error) {
    if (c->rc < 0) return c->rc;
    if (c->m.closed) return cb_fail(CB_ECLOSED, "the connection is closed");
    uint32_t code = NGHTTP2_INTERNAL_ERROR;
    int rc = CB_EPROTO;
    switch (error) {
    case NGHTTP2_ERR_NOMEM:
        rc = CB_ENOMEM;
        break;
    case NGHTTP2_ERR_TOO_MANY_CONTINUATIONS:
        cb_mux_limit(&c->m, "CONTINUATION frames");
        code = NGHTTP2_ENHANCE_YOUR_CALM;
        break;
    case NGHTTP2_ERR_FLOODED:
        cb_mux_limit(&c->m, "frames to be acknowledged");
        code = NGHTTP2_ENHANCE_YOUR_CALM;
        break;
    default:
        code = NGHTTP2_PROTOCOL_ERROR;
        break;
    }
    if (error != NGHTTP2_ERR_BAD_CLIENT_MAGIC) {
        uint32_t last = (uint32_t)nghttp2_session_get_last_proc_stream_id(c->ng);
        uint8_t goaway[17] = {0, 0, 8, NGHTTP2_GOAWAY};
        for (int i = 0; i < 4; i++) {
            goaway[9 + i] = (uint8_t)(last >> (24 - 8 * i));
            goaway[13 + i] = (uint8_t)(code >> (24 - 8 * i));
        }
        h2_write(c, &(cb_slice){goaway, sizeof goaway}, 1);
    }
    c->ended = true;
    return c->rc = cb_fail(rc, "HTTP/2: %s", nghttp2_strerror(error));
}

static int64_t h2_feed(cb_hconn *h, cb_slice in, cb_time now) {
    h2_conn *c = h2_of(h);
    if (c->m.closed) return cb_fail(CB_ECLOSED, "the connection is closed");
    if (c->rc < 0) return c->rc;
    enter(c, now);
    ssize_t n = nghttp2_session_mem_recv(c->ng, in.base, in.len);
    int64_t rc = n < 0 ? fatal(c, (int)n) : (int64_t)in.len;
    if (rc >= 0) {
        settle(c);
        if (nghttp2_session_want_write(c->ng) || !nghttp2_session_want_read(c->ng)) cb_mux_wake(&c->m);
    }
    cb_mux_leave(&c->m);
    return rc;
}

static int make_frames(h2_conn *c) {
    do {
        while (!c->m.closed && h2_has_room(c)) {
            const uint8_t *data;
            ssize_t n = nghttp2_session_mem_send(c->ng, &data);
            if (n < 0) return fatal(c, (int)n);
            if (!n) break;
            if (h2_write(c, &(cb_slice){data, (size_t)n}, 1) < 0) return c->rc;
        }
    } while (!c->m.closed && cb_mux_deliver_writable(&c->m));
    return CB_OK;
}

static int write_frames(h2_conn *c) {
    uint8_t batch[H2_BATCH];
    c->batch = batch;
    c->batched = 0;
    int rc = make_frames(c);
    int pushed = c->m.closed ? CB_OK : push_batch(c);
    c->batch = NULL;
    c->batched = 0;
    return rc < 0 ? rc : pushed;
}

static int h2_flush(cb_hconn *h, cb_time now) {
    h2_conn *c = h2_of(h);
    if (c->m.closed) return CB_OK;
    if (c->rc < 0) return c->rc;
    enter(c, now);
    c->wrote = false;
    if (c->m.drain_asked && !c->m.drain_at && !c->m.final_goaway) c->m.drain_at = now + CB_SEC;
    settle(c);
    int rc = write_frames(c);
    if (!c->m.closed) {
        bool stuck = !h2_has_room(c);
        if (!stuck)
            c->stall_since = 0;
        else if (c->wrote || !c->stall_since)
            c->stall_since = now;
        while (!cb_list_empty(&c->fresh))
            cb_quiet_touch(&c->m.sends, CB_CONTAINER(c->fresh.next, cb_quiet, link), now);
        settle(c);
    }
    cb_mux_leave(&c->m);
    return rc;
}

static int h2_eof(cb_hconn *h, cb_time now) {
    h2_conn *c = h2_of(h);
    c->m.now = now;
    if (c->m.closed || c->rc < 0) return c->rc;
    if (!h->n_exchanges) {
        c->over = true;
        return CB_OK;
    }
    return c->rc = cb_fail(CB_ECLOSED, "the peer closed the connection with %zu exchanges open", h->n_exchanges);
}

static cb_time h2_deadline(const cb_hconn *h) {
    const h2_conn *c = h2_of(h);
    const cb_http_limits *l = h->env.limits;
    if (c->m.closed || c->rc < 0) return CB_NEVER;
    cb_time t = cb_quiet_deadline(&c->m.bodies, l->body_timeout_ms * CB_MS);
    t = cb_time_min(t, cb_quiet_deadline(&c->m.sends, l->send_timeout_ms * CB_MS));
    if (c->section) t = cb_time_min(t, c->section_since + l->head_timeout_ms * CB_MS);
    if (c->stall_since) t = cb_time_min(t, c->stall_since + l->send_timeout_ms * CB_MS);
    if (c->m.drain_at) t = cb_time_min(t, c->m.drain_at);
    if (c->m.idle_since && !c->m.final_goaway) t = cb_time_min(t, c->m.idle_since + l->idle_timeout_ms * CB_MS);
    return t;
}

/* A stream whose peer gives no credit. What waits for the connection is the matter of stall_since. */
static void expire_sends(h2_conn *c, cb_time now) {
    cb_time span = c->m.h.env.limits->send_timeout_ms * CB_MS;
    while (cb_quiet_deadline(&c->m.sends, span) <= now) {
        h2_stream *s = CB_CONTAINER(cb_quiet_first(&c->m.sends), h2_stream, m.send);
        bool closed_window = s->m.open && (nghttp2_session_get_stream_remote_window_size(c->ng, s->id) <= 0 ||
                                           nghttp2_session_get_remote_window_size(c->ng) <= 0);
        if (!closed_window) {
            cb_quiet_touch(&c->m.sends, &s->m.send, now);
            continue;
        }
        cb_list_del(&s->m.send.link);
        cb_mux_limit(&c->m, "send timeout");
        if (!s->m.x) {
            nghttp2_submit_rst_stream(c->ng, NGHTTP2_FLAG_NONE, s->id, NGHTTP2_CANCEL);
            continue;
        }
        cb_mux_failed(&c->m, &s->m, cb_fail(CB_ETIMEOUT, "the peer takes no bytes of the stream"));
    }
}

static int expire_conn(h2_conn *c, cb_time now) {
    const cb_http_limits *l = c->m.h.env.limits;
    if (c->stall_since && c->stall_since + l->send_timeout_ms * CB_MS <= now) {
        cb_mux_limit(&c->m, "send timeout");
        return c->rc = cb_fail(CB_ETIMEOUT, "the peer takes no bytes");
    }
    if (c->section && c->section_since + l->head_timeout_ms * CB_MS <= now) {
        c->section = NULL;
        h2_calm(c, "head timeout");
    }
    if (c->m.drain_at && c->m.drain_at <= now) h2_final_goaway(c);
    if (c->m.idle_since && !c->m.final_goaway && c->m.idle_since + l->idle_timeout_ms * CB_MS <= now) {
        c->m.final_goaway = c->m.h.draining = true;
        c->m.drain_at = 0;
        nghttp2_session_terminate_session(c->ng, NGHTTP2_NO_ERROR);
    }
    return CB_OK;
}

static int h2_expire(cb_hconn *h, cb_time now) {
    h2_conn *c = h2_of(h);
    if (c->m.closed || c->rc < 0) return c->rc;
    enter(c, now);
    int rc = expire_conn(c, now);
    if (rc == CB_OK) {
        cb_mux_expire_bodies(&c->m, now);
        if (!c->m.closed) expire_sends(c, now);
        cb_mux_wake(&c->m);
    }
    cb_mux_leave(&c->m);
    return rc;
}

void h2_final_goaway(h2_conn *c) {
    c->m.drain_at = 0;
    if (c->m.final_goaway) return;
    c->m.final_goaway = true;
    nghttp2_submit_goaway(c->ng, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(c->ng), NGHTTP2_NO_ERROR,
                          NULL, 0);
    cb_mux_wake(&c->m);
}

/* RFC 9113, 6.8: first a GOAWAY that refuses nothing, and a round trip later one that names the last stream. */
void h2_drain(cb_hconn *h) {
    h2_conn *c = h2_of(h);
    if (c->m.closed || c->m.drain_asked) return;
    c->m.drain_asked = h->draining = true;
    if (h->env.server) {
        nghttp2_submit_shutdown_notice(c->ng);
        nghttp2_submit_ping(c->ng, NGHTTP2_FLAG_NONE, (const uint8_t *)"cb-drain");
    }
    cb_mux_wake(&c->m);
}

static bool h2_done(const cb_hconn *h) {
    const h2_conn *c = h2_of(h);
    if (c->m.closed || c->over || c->rc < 0) return true;
    if (nghttp2_session_want_write(c->ng) || nghttp2_session_want_read(c->ng)) return false;
    return c->ended || !h->n_exchanges;
}

static size_t h2_capacity(const cb_hconn *h) {
    const h2_conn *c = h2_of(h);
    if (c->m.closed || c->over || c->ended || c->rc < 0 || h->draining || !nghttp2_session_check_request_allowed(c->ng))
        return 0;
    uint32_t max = c->m.settings_in
                       ? nghttp2_session_get_remote_settings(c->ng, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS)
                       : NGHTTP2_INITIAL_MAX_CONCURRENT_STREAMS;
    if (max > h->env.limits->max_streams) max = h->env.limits->max_streams;
    return max > h->n_exchanges ? max - h->n_exchanges : 0;
}

static const cb_hconn_vt h2_vt = {
    .version = CB_HTTP_2,
    .feed = h2_feed,
    .eof = h2_eof,
    .flush = h2_flush,
    .deadline = h2_deadline,
    .expire = h2_expire,
    .drain = h2_drain,
    .done = h2_done,
    .capacity = h2_capacity,
    .closed = cb_mux_closed,
    .free = cb_mux_free,
    .open = h2_open,
    .send_head = h2_send_head,
    .room = cb_mux_room,
    .send_body = cb_mux_send_body,
    .send_trailers = h2_send_trailers,
    .reset = h2_reset,
    .took = cb_mux_took,
    .send_datagram = h2_send_datagram,
    .detach = cb_mux_detach,
};

/* ---- construction ---- */

static const cb_mux_ops mux_ops = {.credit = credit, .output = h2_output, .destroy = destroy};

int cb_h2_new(cb_hconn **out, const cb_hconn_env *env) {
    h2_conn *c = cb_mem_new(env->alloc, sizeof *c);
    if (!c) return cb_fail(CB_ENOMEM, "no memory for an HTTP/2 connection");
    cb_mux_init(&c->m, &h2_vt, &mux_ops, env);
    cb_list_init(&c->fresh);
    int rc = h2_session_new(c);
    if (rc < 0) {
        destroy(&c->m);
        return rc;
    }
    *out = &c->m.h;
    return CB_OK;
}
