#include "http/h2_conn.h"
#include "base/blocks.h"
#include "base/error.h"
#include "base/mem.h"
#include <string.h>

/* ---- streams ---- */

h2_stream *h2_stream_new(h2_conn *c, cb_exchange *x) {
    _Static_assert(sizeof(h2_stream) <= CB_BLOCK_MIN, "a stream fits the smallest block");
    h2_stream *s = cb_block_get(c->h.env.alloc, CB_BLOCK_MIN);
    if (!s) return NULL;
    *s = (h2_stream){.x = x, .attached = true};
    cb_chain_init(&s->out, c->h.env.alloc);
    cb_list_init(&s->body.link);
    cb_list_init(&s->send.link);
    cb_list_init(&s->writable);
    cb_list_init(&s->link);
    cb_list_add_tail(&c->streams, &s->link);
    x->frame = s;
    if (!c->h.env.server) cb_exchange_attach(x, &c->h);
    return s;
}

static void stream_free(h2_conn *c, h2_stream *s) {
    cb_list_del(&s->link);
    cb_chain_free(&s->out);
    cb_fields_free(&s->kept);
    cb_tunnel_in_free(s->tunnel, c->h.env.alloc);
    cb_block_put(c->h.env.alloc, s, CB_BLOCK_MIN);
}

static void stream_quiet(h2_stream *s) {
    cb_list_del(&s->body.link);
    cb_list_del(&s->send.link);
    cb_list_del(&s->writable);
}

void h2_stream_drop(h2_conn *c, h2_stream *s) {
    if (s->open || s->attached) return;
    stream_quiet(s);
    c->h.queued -= s->out.len;
    stream_free(c, s);
}

static void destroy(h2_conn *c) {
    nghttp2_session_del(c->ng);
    while (!cb_list_empty(&c->streams))
        stream_free(c, CB_CONTAINER(c->streams.next, h2_stream, link));
    cb_mem_free(c->h.env.alloc, c);
}

static void enter(h2_conn *c, cb_time now) {
    c->depth++;
    if (now) c->now = now;
}

/* After this c may be gone. */
static void leave(h2_conn *c) {
    if (--c->depth == 0 && c->freed && !c->h.env.loop) destroy(c);
}

/* ---- helpers of the other files ---- */

void h2_wake(h2_conn *c) {
    if (!c->closed && c->h.env.owner->wake) c->h.env.owner->wake(&c->h);
}

void h2_limit(h2_conn *c, const char *what) {
    if (c->h.env.owner->limit) c->h.env.owner->limit(&c->h, what);
}

void h2_calm(h2_conn *c, const char *what) {
    if (c->ended) return;
    c->ended = true;
    h2_limit(c, what);
    nghttp2_session_terminate_session(c->ng, NGHTTP2_ENHANCE_YOUR_CALM);
}

static int to_sink(h2_conn *c, const cb_slice *v, size_t n) {
    int rc = c->h.env.sink->write(c->h.env.sink, v, n);
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
    return c->h.env.sink->room(c->h.env.sink) > c->batched;
}

void h2_close(h2_conn *c, h2_stream *s, int rc) {
    cb_exchange *x = s->x;
    if (!x) return;
    s->x = NULL;
    stream_quiet(s);
    (void)c;
    cb_exchange_closed(x, rc);
}

void h2_stream_failed(h2_conn *c, h2_stream *s, int rc) {
    cb_exchange *x = s->x;
    if (!x || rc == CB_ECLOSED) return;
    if (rc == CB_ELIMIT) h2_limit(c, x->fail_status == 413 ? "body bytes" : "head bytes");
    /* What is malformed is reset (RFC 9113, 8.1.1); what is only too much gets its status. */
    if (c->h.env.server && !x->head_out && x->fail_status != 400 && (rc == CB_ELIMIT || rc == CB_EPROTO)) {
        cb_list_del(&s->body.link);
        cb_exchange_fail_status(x, x->fail_status);
        return;
    }
    s->x = NULL;
    stream_quiet(s);
    cb_exchange_abort(x, rc);
}

void h2_credit(h2_conn *c, h2_stream *s, size_t n) {
    if (n > s->owed) n = s->owed;
    s->owed -= n;
    if (!n || c->closed) return;
    if (s->open)
        nghttp2_session_consume(c->ng, s->id, n);
    else
        nghttp2_session_consume_connection(c->ng, n);
    h2_wake(c);
}

/* ---- the exchange's side ---- */

static void h2_reset(cb_hconn *h, cb_exchange *x, int code) {
    static const uint32_t codes[] = {
        [CB_RESET_CANCEL] = NGHTTP2_CANCEL,           [CB_RESET_REFUSED] = NGHTTP2_REFUSED_STREAM,
        [CB_RESET_INTERNAL] = NGHTTP2_INTERNAL_ERROR, [CB_RESET_PROTOCOL] = NGHTTP2_PROTOCOL_ERROR,
        [CB_RESET_CALM] = NGHTTP2_ENHANCE_YOUR_CALM,  [CB_RESET_CONNECT] = NGHTTP2_CONNECT_ERROR};
    h2_conn *c = h2_of(h);
    h2_stream *s = x->frame;
    if (!s || s->was_reset) return;
    s->was_reset = true;
    s->x = NULL;
    stream_quiet(s);
    if (!s->open || c->closed) return; /* what is queued stays: a frame of it may be half-way out */
    bool known = code >= 0 && (size_t)code < sizeof codes / sizeof *codes;
    nghttp2_submit_rst_stream(c->ng, NGHTTP2_FLAG_NONE, s->id, known ? codes[code] : NGHTTP2_INTERNAL_ERROR);
    h2_wake(c);
}

static void h2_took(cb_hconn *h, cb_exchange *x, size_t n) {
    h2_conn *c = h2_of(h);
    h2_stream *s = x->frame;
    if (!s) return;
    if (!cb_list_empty(&s->body.link)) cb_quiet_touch(&c->bodies, &s->body, c->now);
    h2_credit(c, s, n);
}

static void h2_detach(cb_hconn *h, cb_exchange *x) {
    h2_conn *c = h2_of(h);
    h2_stream *s = x->frame;
    if (!s) return;
    x->frame = NULL;
    s->x = NULL;
    s->attached = false;
    h2_credit(c, s, s->owed);
    stream_quiet(s);
    if (c->closed) return;
    h2_wake(c); /* idle time begins, a drain may be over */
    h2_stream_drop(c, s);
}

/* ---- the owner's side ---- */

/* What follows from the number of open exchanges. */
static void settle(h2_conn *c) {
    if (c->h.n_exchanges) {
        c->idle_since = 0;
        return;
    }
    if (!c->idle_since) c->idle_since = c->now;
    if (c->h.draining && !c->h.env.server && !c->final_goaway) {
        c->final_goaway = true;
        nghttp2_session_terminate_session(c->ng, NGHTTP2_NO_ERROR);
    }
}

/* nghttp2 gave up in a state in which it cannot send; the peer should still hear why. */
static int fatal(h2_conn *c, int error) {
    if (c->rc < 0) return c->rc;
    if (c->closed) return cb_fail(CB_ECLOSED, "the connection is closed");
    uint32_t code = NGHTTP2_INTERNAL_ERROR;
    int rc = CB_EPROTO;
    switch (error) {
    case NGHTTP2_ERR_NOMEM:
        rc = CB_ENOMEM;
        break;
    case NGHTTP2_ERR_TOO_MANY_CONTINUATIONS:
        h2_limit(c, "CONTINUATION frames");
        code = NGHTTP2_ENHANCE_YOUR_CALM;
        break;
    case NGHTTP2_ERR_FLOODED:
        h2_limit(c, "frames to be acknowledged");
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
    if (c->closed) return cb_fail(CB_ECLOSED, "the connection is closed");
    if (c->rc < 0) return c->rc;
    enter(c, now);
    ssize_t n = nghttp2_session_mem_recv(c->ng, in.base, in.len);
    int64_t rc = n < 0 ? fatal(c, (int)n) : (int64_t)in.len;
    if (rc >= 0) {
        settle(c);
        if (nghttp2_session_want_write(c->ng) || !nghttp2_session_want_read(c->ng)) h2_wake(c);
    }
    leave(c);
    return rc;
}

/* Tells the streams that sent something and have room again. True when there was one. */
static bool deliver_writable(h2_conn *c) {
    bool any = false;
    cb_list todo;
    cb_list_init(&todo);
    while (!cb_list_empty(&c->writable)) {
        cb_list *l = c->writable.next;
        cb_list_del(l);
        cb_list_add_tail(&todo, l);
    }
    while (!cb_list_empty(&todo)) {
        h2_stream *s = CB_CONTAINER(todo.next, h2_stream, writable);
        cb_list_del(&s->writable);
        if (!s->x || s->fin || !cb_hconn_out_ready(&c->h, s->out.len)) continue;
        any = true;
        cb_exchange_out_writable(s->x);
    }
    return any;
}

static int make_frames(h2_conn *c) {
    do {
        while (!c->closed && h2_has_room(c)) {
            const uint8_t *data;
            ssize_t n = nghttp2_session_mem_send(c->ng, &data);
            if (n < 0) return fatal(c, (int)n);
            if (!n) break;
            if (h2_write(c, &(cb_slice){data, (size_t)n}, 1) < 0) return c->rc;
        }
    } while (!c->closed && deliver_writable(c));
    return CB_OK;
}

static int write_frames(h2_conn *c) {
    uint8_t batch[H2_BATCH];
    c->batch = batch;
    c->batched = 0;
    int rc = make_frames(c);
    int pushed = c->closed ? CB_OK : push_batch(c);
    c->batch = NULL;
    c->batched = 0;
    return rc < 0 ? rc : pushed;
}

static int h2_flush(cb_hconn *h, cb_time now) {
    h2_conn *c = h2_of(h);
    if (c->closed) return CB_OK;
    if (c->rc < 0) return c->rc;
    enter(c, now);
    c->wrote = false;
    if (c->drain_asked && !c->drain_at && !c->final_goaway) c->drain_at = now + CB_SEC;
    settle(c);
    int rc = write_frames(c);
    if (!c->closed) {
        bool stuck = !h2_has_room(c);
        if (!stuck)
            c->stall_since = 0;
        else if (c->wrote || !c->stall_since)
            c->stall_since = now;
        while (!cb_list_empty(&c->fresh))
            cb_quiet_touch(&c->sends, CB_CONTAINER(c->fresh.next, cb_quiet, link), now);
        settle(c);
    }
    leave(c);
    return rc;
}

static int h2_eof(cb_hconn *h, cb_time now) {
    h2_conn *c = h2_of(h);
    c->now = now;
    if (c->closed || c->rc < 0) return c->rc;
    if (!h->n_exchanges) {
        c->over = true;
        return CB_OK;
    }
    return c->rc = cb_fail(CB_ECLOSED, "the peer closed the connection with %zu exchanges open", h->n_exchanges);
}

static cb_time h2_deadline(const cb_hconn *h) {
    const h2_conn *c = h2_of(h);
    const cb_http_limits *l = h->env.limits;
    if (c->closed || c->rc < 0) return CB_NEVER;
    cb_time t = cb_quiet_deadline(&c->bodies, l->body_timeout_ms * CB_MS);
    t = cb_time_min(t, cb_quiet_deadline(&c->sends, l->send_timeout_ms * CB_MS));
    if (c->section) t = cb_time_min(t, c->section_since + l->head_timeout_ms * CB_MS);
    if (c->stall_since) t = cb_time_min(t, c->stall_since + l->send_timeout_ms * CB_MS);
    if (c->drain_at) t = cb_time_min(t, c->drain_at);
    if (c->idle_since && !c->final_goaway) t = cb_time_min(t, c->idle_since + l->idle_timeout_ms * CB_MS);
    return t;
}

/* No byte of a request's body for too long: 408, unless it is our user who holds it up. */
static void expire_bodies(h2_conn *c, cb_time now) {
    cb_time span = c->h.env.limits->body_timeout_ms * CB_MS;
    while (cb_quiet_deadline(&c->bodies, span) <= now) {
        h2_stream *s = CB_CONTAINER(cb_quiet_first(&c->bodies), h2_stream, body);
        if (s->x && cb_exchange_in_blocked(s->x)) {
            cb_quiet_touch(&c->bodies, &s->body, now);
            continue;
        }
        cb_list_del(&s->body.link);
        if (!s->x) continue;
        h2_limit(c, "body timeout");
        cb_exchange_fail_status(s->x, 408);
    }
}

/* A stream whose peer gives no credit. What waits for the connection is the matter of stall_since. */
static void expire_sends(h2_conn *c, cb_time now) {
    cb_time span = c->h.env.limits->send_timeout_ms * CB_MS;
    while (cb_quiet_deadline(&c->sends, span) <= now) {
        h2_stream *s = CB_CONTAINER(cb_quiet_first(&c->sends), h2_stream, send);
        bool closed_window = s->open && (nghttp2_session_get_stream_remote_window_size(c->ng, s->id) <= 0 ||
                                         nghttp2_session_get_remote_window_size(c->ng) <= 0);
        if (!closed_window) {
            cb_quiet_touch(&c->sends, &s->send, now);
            continue;
        }
        cb_list_del(&s->send.link);
        h2_limit(c, "send timeout");
        if (!s->x) {
            nghttp2_submit_rst_stream(c->ng, NGHTTP2_FLAG_NONE, s->id, NGHTTP2_CANCEL);
            continue;
        }
        h2_stream_failed(c, s, cb_fail(CB_ETIMEOUT, "the peer takes no bytes of the stream"));
    }
}

static int expire_conn(h2_conn *c, cb_time now) {
    const cb_http_limits *l = c->h.env.limits;
    if (c->stall_since && c->stall_since + l->send_timeout_ms * CB_MS <= now) {
        h2_limit(c, "send timeout");
        return c->rc = cb_fail(CB_ETIMEOUT, "the peer takes no bytes");
    }
    if (c->section && c->section_since + l->head_timeout_ms * CB_MS <= now) {
        c->section = NULL;
        h2_calm(c, "head timeout");
    }
    if (c->drain_at && c->drain_at <= now) h2_final_goaway(c);
    if (c->idle_since && !c->final_goaway && c->idle_since + l->idle_timeout_ms * CB_MS <= now) {
        c->final_goaway = c->h.draining = true;
        c->drain_at = 0;
        nghttp2_session_terminate_session(c->ng, NGHTTP2_NO_ERROR);
    }
    return CB_OK;
}

static int h2_expire(cb_hconn *h, cb_time now) {
    h2_conn *c = h2_of(h);
    if (c->closed || c->rc < 0) return c->rc;
    enter(c, now);
    int rc = expire_conn(c, now);
    if (rc == CB_OK) {
        expire_bodies(c, now);
        if (!c->closed) expire_sends(c, now);
        h2_wake(c);
    }
    leave(c);
    return rc;
}

void h2_final_goaway(h2_conn *c) {
    c->drain_at = 0;
    if (c->final_goaway) return;
    c->final_goaway = true;
    nghttp2_submit_goaway(c->ng, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(c->ng), NGHTTP2_NO_ERROR,
                          NULL, 0);
    h2_wake(c);
}

/* RFC 9113, 6.8: first a GOAWAY that refuses nothing, and a round trip later one that names the last stream. */
void h2_drain(cb_hconn *h) {
    h2_conn *c = h2_of(h);
    if (c->closed || c->drain_asked) return;
    c->drain_asked = h->draining = true;
    if (h->env.server) {
        nghttp2_submit_shutdown_notice(c->ng);
        nghttp2_submit_ping(c->ng, NGHTTP2_FLAG_NONE, (const uint8_t *)"cb-drain");
    }
    h2_wake(c);
}

static bool h2_done(const cb_hconn *h) {
    const h2_conn *c = h2_of(h);
    if (c->closed || c->over || c->rc < 0) return true;
    if (nghttp2_session_want_write(c->ng) || nghttp2_session_want_read(c->ng)) return false;
    return c->ended || !h->n_exchanges;
}

static size_t h2_capacity(const cb_hconn *h) {
    const h2_conn *c = h2_of(h);
    if (c->closed || c->over || c->ended || c->rc < 0 || h->draining || !nghttp2_session_check_request_allowed(c->ng))
        return 0;
    uint32_t max = c->settings_in ? nghttp2_session_get_remote_settings(c->ng, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS)
                                  : NGHTTP2_INITIAL_MAX_CONCURRENT_STREAMS;
    if (max > h->env.limits->max_streams) max = h->env.limits->max_streams;
    return max > h->n_exchanges ? max - h->n_exchanges : 0;
}

static void h2_closed(cb_hconn *h, int rc) {
    h2_conn *c = h2_of(h);
    if (c->closed) return;
    enter(c, 0);
    c->closed = true;
    cb_hconn_end_all(h, rc);
    leave(c);
}

static void bury(cb_grave *g) {
    destroy(CB_CONTAINER(g, h2_conn, grave));
}

static void h2_free(cb_hconn *h) {
    h2_conn *c = h2_of(h);
    if (c->freed) return;
    h2_closed(h, CB_ECLOSED);
    c->freed = true;
    if (h->env.loop)
        cb_loop_bury(h->env.loop, &c->grave, bury);
    else if (!c->depth)
        destroy(c);
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
    .closed = h2_closed,
    .free = h2_free,
    .open = h2_open,
    .send_head = h2_send_head,
    .room = h2_room,
    .send_body = h2_send_body,
    .send_trailers = h2_send_trailers,
    .reset = h2_reset,
    .took = h2_took,
    .send_datagram = h2_send_datagram,
    .detach = h2_detach,
};

/* ---- construction ---- */

int cb_h2_new(cb_hconn **out, const cb_hconn_env *env) {
    h2_conn *c = cb_mem_new(env->alloc, sizeof *c);
    if (!c) return cb_fail(CB_ENOMEM, "no memory for an HTTP/2 connection");
    cb_hconn_init(&c->h, &h2_vt, env);
    cb_list *lists[] = {&c->streams, &c->bodies, &c->fresh, &c->sends, &c->writable};
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        cb_list_init(lists[i]);
    int rc = h2_session_new(c);
    if (rc < 0) {
        destroy(c);
        return rc;
    }
    *out = &c->h;
    return CB_OK;
}
