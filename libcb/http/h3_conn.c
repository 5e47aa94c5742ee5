#include "http/h3_conn.h"
#include "base/blocks.h"
#include "base/error.h"
#include "base/mem.h"
#include <string.h>

enum { BLOCKED_STREAMS = 100 };

/* ---- memory ---- */

static void *mem_malloc(size_t size, void *user) {
    return size ? cb_mem_get(user, size) : NULL;
}
static void mem_free(void *p, void *user) {
    cb_mem_free(user, p);
}
static void *mem_calloc(size_t n, size_t size, void *user) {
    if (!n || !size || n > SIZE_MAX / size) return NULL;
    return cb_mem_new(user, n * size);
}
static void *mem_realloc(void *p, size_t size, void *user) {
    return cb_mem_grow(user, p, size);
}

/* nghttp3 takes and gives eight small pieces with each request. */
static void *small_malloc(size_t size, void *user) {
    return cb_small_get(user, size);
}
static void small_free(void *p, void *user) {
    cb_small_put(user, p);
}
static void *small_calloc(size_t n, size_t size, void *user) {
    if (size && n > SIZE_MAX / size) return NULL;
    return cb_small_new(user, n * size);
}
static void *small_realloc(void *p, size_t size, void *user) {
    return cb_small_grow(user, p, size);
}

static nghttp3_mem mem_of(const cb_alloc *alloc) {
    void *user = (void *)(uintptr_t)alloc;
    if (cb_alloc_is_libc(alloc)) return (nghttp3_mem){user, small_malloc, small_free, small_calloc, small_realloc};
    return (nghttp3_mem){user, mem_malloc, mem_free, mem_calloc, mem_realloc};
}

static h3_stream **bucket_of(const h3_conn *c, int64_t id) {
    return (h3_stream **)(uintptr_t)&c->buckets[(uint64_t)id / 4 % H3_BUCKETS]; // NOLINT(performance-no-int-to-ptr)
}

h3_stream *h3_stream_find(const h3_conn *c, int64_t id) {
    h3_stream *s = *bucket_of(c, id);
    while (s && s->id != id)
        s = s->hash_next;
    return s;
}

h3_stream *h3_stream_new(h3_conn *c, int64_t id) {
    _Static_assert(sizeof(h3_stream) <= CB_BLOCK_MIN, "a stream fits the smallest block");
    h3_stream *s = cb_mux_stream_new(&c->m, sizeof *s);
    if (!s) return NULL;
    s->id = id;
    s->m.open = true;
    s->hash_next = *bucket_of(c, id);
    *bucket_of(c, id) = s;
    return s;
}

void h3_attach(h3_conn *c, h3_stream *s, cb_exchange *x) {
    x->stream_id = s->id;
    cb_mux_attach(&c->m, &s->m, x);
}

void h3_stream_unhash(h3_conn *c, h3_stream *s) {
    h3_stream **at = bucket_of(c, s->id);
    while (*at && *at != s)
        at = &(*at)->hash_next;
    if (*at) *at = s->hash_next;
}

static void dropped(cb_mux *m, cb_mux_stream *stream) {
    h3_conn *c = h3_of(&m->h);
    h3_stream_unhash(c, (h3_stream *)stream);
    if (!m->h.env.server || m->closed) return;
    nghttp3_conn_set_max_client_streams_bidi(c->ng, ++c->max_bidi);
    c->below->extend_streams(c->qc, true, 1);
}

static void destroy(cb_mux *m) {
    h3_conn *c = h3_of(&m->h);
    if (c->ng) nghttp3_conn_del(c->ng);
    cb_mux_free_streams(m);
    cb_mem_free(m->h.env.alloc, c);
}

static void credit(cb_mux *m, cb_mux_stream *stream, size_t n) {
    h3_conn *c = h3_of(&m->h);
    const h3_stream *s = (const h3_stream *)stream;
    c->below->credit(c->qc, stream->open ? s->id : -1, n);
}

/* ---- helpers of the other files ---- */

int h3_fail(h3_conn *c, uint64_t code, const char *reason) {
    c->failed = true;
    return c->below->fail(c->qc, code, reason);
}

int h3_failed(h3_conn *c, int error) {
    if (c->failed || c->m.closed) return cb_fail(CB_EPROTO, "HTTP/3: %s", nghttp3_strerror(error));
    if (error == NGHTTP3_ERR_QPACK_HEADER_TOO_LARGE) { /* above 64 KiB: it cannot be skipped, and is not our mistake */
        cb_mux_limit(&c->m, "head bytes");
        return h3_fail(c, NGHTTP3_H3_EXCESSIVE_LOAD, "a field is too large");
    }
    return h3_fail(c, nghttp3_err_infer_quic_app_error_code(error), nghttp3_strerror(error));
}

/* ---- the exchange's side ---- */

static void h3_reset(cb_hconn *h, cb_exchange *x, int code) {
    static const uint64_t codes[] = {
        [CB_RESET_CANCEL] = NGHTTP3_H3_REQUEST_CANCELLED, [CB_RESET_REFUSED] = NGHTTP3_H3_REQUEST_REJECTED,
        [CB_RESET_INTERNAL] = NGHTTP3_H3_INTERNAL_ERROR,  [CB_RESET_PROTOCOL] = NGHTTP3_H3_MESSAGE_ERROR,
        [CB_RESET_CALM] = NGHTTP3_H3_EXCESSIVE_LOAD,      [CB_RESET_CONNECT] = NGHTTP3_H3_CONNECT_ERROR};
    h3_conn *c = h3_of(h);
    h3_stream *s = (h3_stream *)cb_mux_reset(h, x);
    if (!s) return;
    bool known = code >= 0 && (size_t)code < sizeof codes / sizeof *codes;
    uint64_t h3_code = known ? codes[code] : NGHTTP3_H3_INTERNAL_ERROR;
    /* A client has no use for REQUEST_REJECTED (RFC 9114, 4.1.1). */
    if (!h->env.server && h3_code == NGHTTP3_H3_REQUEST_REJECTED) h3_code = NGHTTP3_H3_REQUEST_CANCELLED;
    nghttp3_conn_shutdown_stream_write(c->ng, s->id);
    h3_reset_stream(c, s->id, h3_code);
    if (s->stopped || x->end_in) return;
    s->stopped = true;
    nghttp3_conn_shutdown_stream_read(c->ng, s->id);
    c->below->stop_stream(c->qc, s->id, h3_code);
}

/* ---- the owner's side ---- */

static int64_t h3_feed(cb_hconn *h, cb_slice in, cb_time now) {
    (void)h, (void)in, (void)now;
    return cb_fail(CB_ENOTSUP, "HTTP/3 is fed by QUIC");
}

static int h3_eof(cb_hconn *h, cb_time now) {
    (void)h, (void)now;
    return CB_OK;
}

/* What follows from the number of open exchanges. */
static void settle(h3_conn *c) {
    if (c->m.h.n_exchanges || !c->ready) { /* a handshake has its own time limit */
        c->m.idle_since = 0;
        c->rests = false;
        return;
    }
    if (!c->m.idle_since) c->m.idle_since = c->m.now;
    if (c->m.h.draining && !c->m.h.env.server) c->drained = true;
}

static cb_time round_trips(const h3_conn *c) {
    cb_time t = 3 * c->below->rtt(c->qc);
    if (t < 10 * CB_MS) t = 10 * CB_MS;
    return t < CB_SEC ? t : CB_SEC;
}

/* A client whose handshake is not complete has had no answer yet: how far it is nobody knows, and its request comes
 * with the end of the handshake. */
static bool refuses_later(const h3_conn *c) {
    return c->m.drain_asked && c->m.h.env.server && !c->m.drain_at && !c->m.final_goaway &&
           !c->below->in_early_data(c->qc);
}

static int h3_flush(cb_hconn *h, cb_time now) {
    h3_conn *c = h3_of(h);
    if (c->m.closed) return CB_OK;
    c->m.now = now;
    if (refuses_later(c)) c->m.drain_at = now + round_trips(c);
    settle(c);
    c->told = CB_NEVER; /* the owner asks for the deadline now */
    return CB_OK;
}

static cb_time h3_deadline(const cb_hconn *h) {
    const h3_conn *c = h3_of(h);
    const cb_http_limits *l = h->env.limits;
    if (c->m.closed) return CB_NEVER;
    cb_time t = cb_quiet_deadline(&c->m.bodies, l->body_timeout_ms * CB_MS);
    t = cb_time_min(t, cb_quiet_deadline(&c->heads, l->head_timeout_ms * CB_MS));
    t = cb_time_min(t, cb_quiet_deadline(&c->m.sends, l->send_timeout_ms * CB_MS));
    if (c->m.drain_at) t = cb_time_min(t, c->m.drain_at);
    if (c->linger_at && !c->drained) t = cb_time_min(t, c->linger_at);
    if (c->m.idle_since && !c->rests && c->below->rest) t = cb_time_min(t, c->m.idle_since + CB_TRIM);
    if (c->m.idle_since && !c->m.drain_asked) t = cb_time_min(t, c->m.idle_since + l->idle_timeout_ms * CB_MS);
    return t;
}

void h3_told(h3_conn *c) {
    cb_time due = h3_deadline(&c->m.h);
    if (due >= c->told) return;
    c->told = due;
    cb_mux_wake(&c->m);
}

static void expire_heads(h3_conn *c, cb_time now) {
    cb_time span = c->m.h.env.limits->head_timeout_ms * CB_MS;
    while (cb_quiet_deadline(&c->heads, span) <= now) {
        h3_stream *s = CB_CONTAINER(cb_quiet_first(&c->heads), h3_stream, m.head);
        cb_list_del(&s->m.head.link);
        cb_mux_limit(&c->m, "head timeout");
        if (s->m.x) {
            cb_exchange_fail_status(s->m.x, 408);
            continue;
        }
        s->m.was_reset = s->stopped = true;
        nghttp3_conn_shutdown_stream_read(c->ng, s->id);
        c->below->stop_stream(c->qc, s->id, NGHTTP3_H3_REQUEST_INCOMPLETE);
        h3_reset_stream(c, s->id, NGHTTP3_H3_REQUEST_INCOMPLETE);
    }
}

/* A stream whose peer gives no credit, or a connection that sends nothing. Else it only waits for its turn. */
static void expire_sends(h3_conn *c, cb_time now) {
    cb_time span = c->m.h.env.limits->send_timeout_ms * CB_MS;
    while (cb_quiet_deadline(&c->m.sends, span) <= now) {
        h3_stream *s = CB_CONTAINER(cb_quiet_first(&c->m.sends), h3_stream, m.send);
        if (!s->blocked && c->sent_at + span > now) {
            cb_quiet_touch(&c->m.sends, &s->m.send, now);
            continue;
        }
        cb_list_del(&s->m.send.link);
        cb_mux_limit(&c->m, "send timeout");
        if (s->m.x) cb_mux_failed(&c->m, &s->m, cb_fail(CB_ETIMEOUT, "the peer takes no bytes of the stream"));
    }
}

static void count_goaway(const h3_conn *c) {
    cb_cells_add(c->m.h.env.cells, c->m.h.env.server ? CB_C_HTTP_GOAWAYS_SERVER_OUT : CB_C_HTTP_GOAWAYS_CLIENT_OUT, 1);
}

static void final_goaway(h3_conn *c, cb_time now) {
    c->m.drain_at = 0;
    if (c->m.final_goaway) return;
    c->m.final_goaway = true;
    c->linger_at = now + round_trips(c);
    count_goaway(c);
    nghttp3_conn_shutdown(c->ng);
    c->below->wake(c->qc);
}

static int h3_expire(cb_hconn *h, cb_time now) {
    h3_conn *c = h3_of(h);
    if (c->m.closed) return CB_OK;
    cb_mux_enter(&c->m);
    c->m.now = now;
    expire_heads(c, now);
    cb_mux_expire_bodies(&c->m, now);
    if (!c->m.closed) expire_sends(c, now);
    if (!c->m.closed && c->m.drain_at && c->m.drain_at <= now) final_goaway(c, now);
    if (!c->m.closed && c->linger_at && c->linger_at <= now) c->drained = true;
    if (!c->m.closed && c->m.idle_since && !c->rests && c->below->rest && c->m.idle_since + CB_TRIM <= now) {
        c->rests = true;
        c->below->rest(c->qc);
    }
    bool idle = c->m.idle_since && c->m.idle_since + h->env.limits->idle_timeout_ms * CB_MS <= now;
    if (!c->m.closed && idle && !c->m.drain_asked) h3_drain(h);
    cb_mux_wake(&c->m);
    cb_mux_leave(&c->m);
    return CB_OK;
}

/* RFC 9114, 5.2: first a GOAWAY that refuses nothing, and some round trips later one that names the last stream. */
void h3_drain(cb_hconn *h) {
    h3_conn *c = h3_of(h);
    if (c->m.closed || c->m.drain_asked) return;
    c->m.drain_asked = h->draining = true;
    if (h->env.server && c->ready) {
        count_goaway(c);
        nghttp3_conn_submit_shutdown_notice(c->ng);
        c->below->wake(c->qc);
    }
    cb_mux_wake(&c->m);
}

static bool h3_done(const cb_hconn *h) {
    const h3_conn *c = h3_of(h);
    return c->m.closed || (c->drained && !h->n_exchanges);
}

static size_t h3_capacity(const cb_hconn *h) {
    const h3_conn *c = h3_of(h);
    if (c->m.closed || c->failed || h->draining || !c->ready || c->no_streams) return 0;
    return h->env.limits->max_streams > h->n_exchanges ? h->env.limits->max_streams - h->n_exchanges : 0;
}

static const cb_hconn_vt h3_vt = {
    .version = CB_HTTP_3,
    .feed = h3_feed,
    .eof = h3_eof,
    .flush = h3_flush,
    .deadline = h3_deadline,
    .expire = h3_expire,
    .drain = h3_drain,
    .done = h3_done,
    .capacity = h3_capacity,
    .closed = cb_mux_closed,
    .free = cb_mux_free,
    .open = h3_open,
    .send_head = h3_send_head,
    .room = cb_mux_room,
    .send_body = cb_mux_send_body,
    .send_trailers = h3_send_trailers,
    .reset = h3_reset,
    .took = cb_mux_took,
    .send_datagram = h3_send_datagram,
    .detach = cb_mux_detach,
};

/* ---- construction ---- */

static const cb_mux_ops mux_ops = {.credit = credit, .output = h3_output, .dropped = dropped, .destroy = destroy};

int h3_start(h3_conn *c) {
    const cb_http_limits *l = c->m.h.env.limits;
    nghttp3_settings settings;
    nghttp3_settings_default(&settings);
    settings.max_field_section_size = l->max_head_bytes;
    settings.qpack_max_dtable_capacity = l->table_bytes;
    settings.qpack_encoder_max_dtable_capacity = c->m.h.env.server ? l->reply_table_bytes : l->table_bytes;
    settings.qpack_blocked_streams = l->max_streams < BLOCKED_STREAMS ? l->max_streams : BLOCKED_STREAMS;
    settings.enable_connect_protocol = c->m.h.env.server;
    settings.h3_datagram = 1;
    int error = c->m.h.env.server ? nghttp3_conn_server_new(&c->ng, &h3_callbacks, &settings, &c->mem, c)
                                  : nghttp3_conn_client_new(&c->ng, &h3_callbacks, &settings, &c->mem, c);
    if (error) return cb_fail(CB_ENOMEM, "no memory for HTTP/3");
    cb_h3_control_init(&c->control);
    c->peer = (cb_h3_settings){0};
    if (!c->m.h.env.server) return CB_OK;
    c->max_bidi = l->max_streams;
    nghttp3_conn_set_max_client_streams_bidi(c->ng, c->max_bidi);
    nghttp3_conn_set_max_concurrent_streams(c->ng, l->max_streams);
    return CB_OK;
}

int h3_bind(h3_conn *c) {
    int64_t id[3];
    for (size_t i = 0; i < 3; i++) {
        int rc = c->below->open_stream(c->qc, false, &id[i]);
        if (rc == CB_EAGAIN) return h3_fail(c, NGHTTP3_H3_GENERAL_PROTOCOL_ERROR, "the peer takes no control streams");
        if (rc < 0) return rc;
    }
    int error = nghttp3_conn_bind_control_stream(c->ng, id[0]);
    if (!error) error = nghttp3_conn_bind_qpack_streams(c->ng, id[1], id[2]);
    if (error) return h3_failed(c, error);
    c->below->wake(c->qc);
    return CB_OK;
}

int cb_h3_new_on(cb_hconn **out, const cb_hconn_env *env, cb_quic_conn *qc, const h3_below *below) {
    h3_conn *c = cb_mem_new(env->alloc, sizeof *c);
    if (!c) return cb_fail(CB_ENOMEM, "no memory for an HTTP/3 connection");
    cb_mux_init(&c->m, &h3_vt, &mux_ops, env);
    cb_list_init(&c->heads);
    c->app.ops = &h3_app_ops;
    c->qc = qc;
    c->below = below;
    c->told = CB_NEVER;
    c->mem = mem_of(c->m.h.env.alloc);
    int rc = h3_start(c);
    if (rc < 0) {
        destroy(&c->m);
        return rc;
    }
    *out = &c->m.h;
    return CB_OK;
}

struct cb_quic_app *cb_h3_app(cb_hconn *h) {
    return &h3_of(h)->app;
}
