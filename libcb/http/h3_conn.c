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

static void stream_quiet(h3_stream *s) {
    cb_list_del(&s->head.link);
    cb_list_del(&s->body.link);
    cb_list_del(&s->send.link);
    cb_list_del(&s->writable);
}

h3_stream *h3_stream_new(h3_conn *c, int64_t id) {
    _Static_assert(sizeof(h3_stream) <= CB_BLOCK_MIN, "a stream fits the smallest block");
    h3_stream *s = cb_block_get(c->h.env.alloc, CB_BLOCK_MIN);
    if (!s) {
        cb_fail(CB_ENOMEM, "no memory for a stream");
        return NULL;
    }
    *s = (h3_stream){.id = id, .open = true, .hash_next = *bucket_of(c, id)};
    *bucket_of(c, id) = s;
    cb_chain_init(&s->out, c->h.env.alloc);
    cb_list *lists[] = {&s->link, &s->head.link, &s->body.link, &s->send.link, &s->writable};
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        cb_list_init(lists[i]);
    cb_list_add_tail(&c->streams, &s->link);
    return s;
}

void h3_attach(h3_conn *c, h3_stream *s, cb_exchange *x) {
    s->x = x;
    s->attached = true;
    x->frame = s;
    x->stream_id = s->id;
    if (!c->h.env.server) cb_exchange_attach(x, &c->h);
}

void h3_stream_unhash(h3_conn *c, h3_stream *s) {
    h3_stream **at = bucket_of(c, s->id);
    while (*at && *at != s)
        at = &(*at)->hash_next;
    if (*at) *at = s->hash_next;
}

static void stream_free(h3_conn *c, h3_stream *s) {
    cb_list_del(&s->link);
    cb_chain_free(&s->out);
    cb_fields_free(&s->kept);
    cb_tunnel_in_free(s->tunnel, c->h.env.alloc);
    cb_block_put(c->h.env.alloc, s, CB_BLOCK_MIN);
}

void h3_stream_drop(h3_conn *c, h3_stream *s) {
    if (s->open || s->attached) return;
    h3_stream_unhash(c, s);
    stream_quiet(s);
    if (c->h.env.server && !c->closed) {
        nghttp3_conn_set_max_client_streams_bidi(c->ng, ++c->max_bidi);
        c->below->extend_streams(c->qc, true, 1);
    }
    c->h.queued -= s->out.len;
    stream_free(c, s);
}

static void destroy(h3_conn *c) {
    if (c->ng) nghttp3_conn_del(c->ng);
    while (!cb_list_empty(&c->streams))
        stream_free(c, CB_CONTAINER(c->streams.next, h3_stream, link));
    cb_mem_free(c->h.env.alloc, c);
}

void h3_enter(h3_conn *c) {
    c->depth++;
}

void h3_leave(h3_conn *c) {
    if (--c->depth == 0 && c->freed && !c->h.env.loop) destroy(c);
}

/* ---- helpers of the other files ---- */

void h3_limit(h3_conn *c, const char *what) {
    if (c->h.env.owner->limit) c->h.env.owner->limit(&c->h, what);
}

static void wake_owner(h3_conn *c) {
    if (!c->closed && c->h.env.owner->wake) c->h.env.owner->wake(&c->h);
}

int h3_fail(h3_conn *c, uint64_t code, const char *reason) {
    c->failed = true;
    return c->below->fail(c->qc, code, reason);
}

int h3_failed(h3_conn *c, int error) {
    if (c->failed || c->closed) return cb_fail(CB_EPROTO, "HTTP/3: %s", nghttp3_strerror(error));
    if (error == NGHTTP3_ERR_QPACK_HEADER_TOO_LARGE) { /* above 64 KiB: it cannot be skipped, and is not our mistake */
        h3_limit(c, "head bytes");
        return h3_fail(c, NGHTTP3_H3_EXCESSIVE_LOAD, "a field is too large");
    }
    return h3_fail(c, nghttp3_err_infer_quic_app_error_code(error), nghttp3_strerror(error));
}

void h3_close(h3_conn *c, h3_stream *s, int rc) {
    cb_exchange *x = s->x;
    (void)c;
    if (!x) return;
    s->x = NULL;
    stream_quiet(s);
    cb_exchange_closed(x, rc);
}

void h3_stream_failed(h3_conn *c, h3_stream *s, int rc) {
    cb_exchange *x = s->x;
    if (!x || rc == CB_ECLOSED) return;
    if (rc == CB_ELIMIT) h3_limit(c, x->fail_status == 413 ? "body bytes" : "head bytes");
    /* What is malformed is reset (RFC 9114, 4.1.2); what is only too much gets its status. */
    if (c->h.env.server && !x->head_out && x->fail_status != 400 && (rc == CB_ELIMIT || rc == CB_EPROTO)) {
        cb_list_del(&s->body.link);
        cb_exchange_fail_status(x, x->fail_status);
        return;
    }
    s->x = NULL;
    stream_quiet(s);
    cb_exchange_abort(x, rc);
}

void h3_credit(h3_conn *c, h3_stream *s, size_t n) {
    if (n > s->owed) n = s->owed;
    s->owed -= n;
    if (n && !c->closed) c->below->credit(c->qc, s->open ? s->id : -1, n);
}

/* ---- the exchange's side ---- */

static void h3_reset(cb_hconn *h, cb_exchange *x, int code) {
    static const uint64_t codes[] = {
        [CB_RESET_CANCEL] = NGHTTP3_H3_REQUEST_CANCELLED, [CB_RESET_REFUSED] = NGHTTP3_H3_REQUEST_REJECTED,
        [CB_RESET_INTERNAL] = NGHTTP3_H3_INTERNAL_ERROR,  [CB_RESET_PROTOCOL] = NGHTTP3_H3_MESSAGE_ERROR,
        [CB_RESET_CALM] = NGHTTP3_H3_EXCESSIVE_LOAD,      [CB_RESET_CONNECT] = NGHTTP3_H3_CONNECT_ERROR};
    h3_conn *c = h3_of(h);
    h3_stream *s = x->frame;
    if (!s || s->was_reset) return;
    s->was_reset = true;
    s->x = NULL;
    stream_quiet(s);
    if (!s->open || c->closed) return;
    bool known = code >= 0 && (size_t)code < sizeof codes / sizeof *codes;
    uint64_t h3_code = known ? codes[code] : NGHTTP3_H3_INTERNAL_ERROR;
    /* A client has no use for REQUEST_REJECTED (RFC 9114, 4.1.1). */
    if (!h->env.server && h3_code == NGHTTP3_H3_REQUEST_REJECTED) h3_code = NGHTTP3_H3_REQUEST_CANCELLED;
    nghttp3_conn_shutdown_stream_write(c->ng, s->id);
    c->below->reset_stream(c->qc, s->id, h3_code);
    if (s->stopped || x->end_in) return;
    s->stopped = true;
    nghttp3_conn_shutdown_stream_read(c->ng, s->id);
    c->below->stop_stream(c->qc, s->id, h3_code);
}

static void h3_took(cb_hconn *h, cb_exchange *x, size_t n) {
    h3_conn *c = h3_of(h);
    h3_stream *s = x->frame;
    if (!s) return;
    if (!cb_list_empty(&s->body.link)) cb_quiet_touch(&c->bodies, &s->body, c->now);
    h3_credit(c, s, n);
}

static void h3_detach(cb_hconn *h, cb_exchange *x) {
    h3_conn *c = h3_of(h);
    h3_stream *s = x->frame;
    if (!s) return;
    x->frame = NULL;
    s->x = NULL;
    s->attached = false;
    h3_credit(c, s, s->owed);
    stream_quiet(s);
    if (c->closed) return;
    if (h->n_exchanges <= 1) wake_owner(c); /* idle time begins, a drain may be over */
    h3_stream_drop(c, s);
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
    if (c->h.n_exchanges || !c->ready) { /* a handshake has its own time limit */
        c->idle_since = 0;
        c->rests = false;
        return;
    }
    if (!c->idle_since) c->idle_since = c->now;
    if (c->h.draining && !c->h.env.server) c->drained = true;
}

static cb_time round_trips(const h3_conn *c) {
    cb_time t = 3 * c->below->rtt(c->qc);
    if (t < 10 * CB_MS) t = 10 * CB_MS;
    return t < CB_SEC ? t : CB_SEC;
}

static int h3_flush(cb_hconn *h, cb_time now) {
    h3_conn *c = h3_of(h);
    if (c->closed) return CB_OK;
    c->now = now;
    if (c->drain_asked && h->env.server && !c->drain_at && !c->final_goaway) c->drain_at = now + round_trips(c);
    settle(c);
    c->told = CB_NEVER; /* the owner asks for the deadline now */
    return CB_OK;
}

static cb_time h3_deadline(const cb_hconn *h) {
    const h3_conn *c = h3_of(h);
    const cb_http_limits *l = h->env.limits;
    if (c->closed) return CB_NEVER;
    cb_time t = cb_quiet_deadline(&c->bodies, l->body_timeout_ms * CB_MS);
    t = cb_time_min(t, cb_quiet_deadline(&c->heads, l->head_timeout_ms * CB_MS));
    t = cb_time_min(t, cb_quiet_deadline(&c->sends, l->send_timeout_ms * CB_MS));
    if (c->drain_at) t = cb_time_min(t, c->drain_at);
    if (c->linger_at && !c->drained) t = cb_time_min(t, c->linger_at);
    if (c->idle_since && !c->rests && c->below->rest) t = cb_time_min(t, c->idle_since + CB_TRIM);
    if (c->idle_since && !c->drain_asked) t = cb_time_min(t, c->idle_since + l->idle_timeout_ms * CB_MS);
    return t;
}

void h3_told(h3_conn *c) {
    cb_time due = h3_deadline(&c->h);
    if (due >= c->told) return;
    c->told = due;
    wake_owner(c);
}

static void expire_heads(h3_conn *c, cb_time now) {
    cb_time span = c->h.env.limits->head_timeout_ms * CB_MS;
    while (cb_quiet_deadline(&c->heads, span) <= now) {
        h3_stream *s = CB_CONTAINER(cb_quiet_first(&c->heads), h3_stream, head);
        cb_list_del(&s->head.link);
        h3_limit(c, "head timeout");
        if (s->x) {
            cb_exchange_fail_status(s->x, 408);
            continue;
        }
        s->was_reset = s->stopped = true;
        nghttp3_conn_shutdown_stream_read(c->ng, s->id);
        c->below->stop_stream(c->qc, s->id, NGHTTP3_H3_REQUEST_INCOMPLETE);
        c->below->reset_stream(c->qc, s->id, NGHTTP3_H3_REQUEST_INCOMPLETE);
    }
}

/* No byte of a request's body for too long: 408, unless it is our user who holds it up. */
static void expire_bodies(h3_conn *c, cb_time now) {
    cb_time span = c->h.env.limits->body_timeout_ms * CB_MS;
    while (cb_quiet_deadline(&c->bodies, span) <= now) {
        h3_stream *s = CB_CONTAINER(cb_quiet_first(&c->bodies), h3_stream, body);
        if (s->x && cb_exchange_in_blocked(s->x)) {
            cb_quiet_touch(&c->bodies, &s->body, now);
            continue;
        }
        cb_list_del(&s->body.link);
        if (!s->x) continue;
        h3_limit(c, "body timeout");
        cb_exchange_fail_status(s->x, 408);
    }
}

/* A stream whose peer gives no credit, or a connection that sends nothing. Else it only waits for its turn. */
static void expire_sends(h3_conn *c, cb_time now) {
    cb_time span = c->h.env.limits->send_timeout_ms * CB_MS;
    while (cb_quiet_deadline(&c->sends, span) <= now) {
        h3_stream *s = CB_CONTAINER(cb_quiet_first(&c->sends), h3_stream, send);
        if (!s->blocked && c->sent_at + span > now) {
            cb_quiet_touch(&c->sends, &s->send, now);
            continue;
        }
        cb_list_del(&s->send.link);
        h3_limit(c, "send timeout");
        if (s->x) h3_stream_failed(c, s, cb_fail(CB_ETIMEOUT, "the peer takes no bytes of the stream"));
    }
}

static void final_goaway(h3_conn *c, cb_time now) {
    c->drain_at = 0;
    if (c->final_goaway) return;
    c->final_goaway = true;
    c->linger_at = now + round_trips(c);
    nghttp3_conn_shutdown(c->ng);
    c->below->wake(c->qc);
}

static int h3_expire(cb_hconn *h, cb_time now) {
    h3_conn *c = h3_of(h);
    if (c->closed) return CB_OK;
    h3_enter(c);
    c->now = now;
    expire_heads(c, now);
    expire_bodies(c, now);
    if (!c->closed) expire_sends(c, now);
    if (!c->closed && c->drain_at && c->drain_at <= now) final_goaway(c, now);
    if (!c->closed && c->linger_at && c->linger_at <= now) c->drained = true;
    if (!c->closed && c->idle_since && !c->rests && c->below->rest && c->idle_since + CB_TRIM <= now) {
        c->rests = true;
        c->below->rest(c->qc);
    }
    bool idle = c->idle_since && c->idle_since + h->env.limits->idle_timeout_ms * CB_MS <= now;
    if (!c->closed && idle && !c->drain_asked) h3_drain(h);
    wake_owner(c);
    h3_leave(c);
    return CB_OK;
}

/* RFC 9114, 5.2: first a GOAWAY that refuses nothing, and some round trips later one that names the last stream. */
void h3_drain(cb_hconn *h) {
    h3_conn *c = h3_of(h);
    if (c->closed || c->drain_asked) return;
    c->drain_asked = h->draining = true;
    if (h->env.server && c->ready) {
        nghttp3_conn_submit_shutdown_notice(c->ng);
        c->below->wake(c->qc);
    }
    wake_owner(c);
}

static bool h3_done(const cb_hconn *h) {
    const h3_conn *c = h3_of(h);
    return c->closed || (c->drained && !h->n_exchanges);
}

static size_t h3_capacity(const cb_hconn *h) {
    const h3_conn *c = h3_of(h);
    if (c->closed || c->failed || h->draining || !c->ready || c->no_streams) return 0;
    return h->env.limits->max_streams > h->n_exchanges ? h->env.limits->max_streams - h->n_exchanges : 0;
}

void h3_closed(cb_hconn *h, int rc) {
    h3_conn *c = h3_of(h);
    if (c->closed) return;
    h3_enter(c);
    c->closed = true;
    cb_hconn_end_all(h, rc);
    h3_leave(c);
}

static void bury(cb_grave *g) {
    destroy(CB_CONTAINER(g, h3_conn, grave));
}

static void h3_free(cb_hconn *h) {
    h3_conn *c = h3_of(h);
    if (c->freed) return;
    h3_closed(h, CB_ECLOSED);
    c->freed = true;
    if (h->env.loop)
        cb_loop_bury(h->env.loop, &c->grave, bury);
    else if (!c->depth)
        destroy(c);
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
    .closed = h3_closed,
    .free = h3_free,
    .open = h3_open,
    .send_head = h3_send_head,
    .room = h3_room,
    .send_body = h3_send_body,
    .send_trailers = h3_send_trailers,
    .reset = h3_reset,
    .took = h3_took,
    .send_datagram = h3_send_datagram,
    .detach = h3_detach,
};

/* ---- construction ---- */

int h3_start(h3_conn *c) {
    const cb_http_limits *l = c->h.env.limits;
    nghttp3_settings settings;
    nghttp3_settings_default(&settings);
    settings.max_field_section_size = l->max_head_bytes;
    settings.qpack_max_dtable_capacity = l->table_bytes;
    settings.qpack_encoder_max_dtable_capacity = c->h.env.server ? l->reply_table_bytes : l->table_bytes;
    settings.qpack_blocked_streams = l->max_streams < BLOCKED_STREAMS ? l->max_streams : BLOCKED_STREAMS;
    settings.enable_connect_protocol = c->h.env.server;
    settings.h3_datagram = 1;
    int error = c->h.env.server ? nghttp3_conn_server_new(&c->ng, &h3_callbacks, &settings, &c->mem, c)
                                : nghttp3_conn_client_new(&c->ng, &h3_callbacks, &settings, &c->mem, c);
    if (error) return cb_fail(CB_ENOMEM, "no memory for HTTP/3");
    cb_h3_control_init(&c->control);
    c->peer = (cb_h3_settings){0};
    if (!c->h.env.server) return CB_OK;
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
    cb_hconn_init(&c->h, &h3_vt, env);
    c->app.ops = &h3_app_ops;
    c->qc = qc;
    c->below = below;
    c->told = CB_NEVER;
    c->mem = mem_of(c->h.env.alloc);
    cb_list *lists[] = {&c->streams, &c->heads, &c->bodies, &c->sends, &c->writable};
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        cb_list_init(lists[i]);
    int rc = h3_start(c);
    if (rc < 0) {
        destroy(c);
        return rc;
    }
    *out = &c->h;
    return CB_OK;
}

struct cb_quic_app *cb_h3_app(cb_hconn *h) {
    return &h3_of(h)->app;
}
