/* Raw streams over a connection: send buffers that are kept until acknowledged, received bytes that wait for the
 * user, and the calls of cb/quic.h for both. */
#include "transport/quic_stream.h"
#include "base/chain.h"
#include "base/error.h"
#include "base/list.h"
#include "base/map.h"
#include "base/mem.h"
#include "base/opts.h"
#include "transport/quic_conn.h"
#include <string.h>

typedef struct raw_stream {
    int64_t id;
    cb_list ready; /* linked while it has something to send and may */
    cb_chain tx, rx;
    size_t pulled;   /* what the last pull offered */
    uint64_t code;   /* of its close */
    bool pulled_fin; /* with FIN */
    bool fin, fin_sent, blocked, shut, wants_room;
    bool rx_fin, rx_done, refused, in_data, again;
    bool closed; /* both sides are over; the user has not taken everything yet */
} raw_stream;

typedef struct raw_app {
    cb_quic_app app;
    cb_quic_conn *c;
    cb_quic_conn_ops ops;
    void *user;
    cb_map streams;
    cb_list ready;
    unsigned calls; /* of the user's into us that are on the stack and call him back */
    bool known;     /* the user has heard of the connection */
    bool gone;      /* closed inside such a call: its end frees */
} raw_app;

static const cb_quic_app_ops raw_ops;

static raw_app *raw_of(cb_quic_conn *c) {
    return c->app && c->app->ops == &raw_ops ? (raw_app *)c->app : NULL;
}

static raw_stream *find(raw_app *r, int64_t id) {
    return cb_map_get(&r->streams, &id, sizeof id);
}

static void stream_free(raw_app *r, raw_stream *s) {
    cb_map_del(&r->streams, &s->id, sizeof s->id);
    cb_list_del(&s->ready);
    cb_chain_free(&s->tx);
    cb_chain_free(&s->rx);
    cb_mem_free(r->c->alloc, s);
}

static raw_stream *stream_new(raw_app *r, int64_t id) {
    raw_stream *s = cb_mem_new(r->c->alloc, sizeof *s);
    if (!s) return NULL;
    s->id = id;
    cb_list_init(&s->ready);
    cb_chain_init(&s->tx, r->c->alloc);
    cb_chain_init(&s->rx, r->c->alloc);
    if (cb_map_put(&r->streams, &s->id, sizeof s->id, s) < 0) {
        cb_mem_free(r->c->alloc, s);
        return NULL;
    }
    return s;
}

static bool peer_opened(const raw_app *r, int64_t id) {
    return ((id & 1) == 0) == r->c->server;
}

static bool is_bidi(int64_t id) {
    return (id & 2) == 0;
}

/* --- sending --- */

static bool has_more(const raw_stream *s) {
    return !s->shut && !s->blocked && (cb_chain_ready(&s->tx) > 0 || (s->fin && !s->fin_sent));
}

static void queue(raw_app *r, raw_stream *s) {
    if (!has_more(s)) return;
    if (cb_list_empty(&s->ready)) cb_list_add_tail(&r->ready, &s->ready);
    cb_quic_conn_wake(r->c);
}

static int raw_pull(cb_quic_app *app, int64_t *stream, bool *fin, cb_slice *vec, size_t n) {
    raw_app *r = (raw_app *)app;
    if (cb_list_empty(&r->ready)) {
        *stream = -1;
        return 0;
    }
    raw_stream *s = CB_CONTAINER(r->ready.next, raw_stream, ready);
    size_t got = cb_chain_peek(&s->tx, vec, n);
    s->pulled = 0;
    for (size_t i = 0; i < got; i++) {
        s->pulled += vec[i].len;
    }
    s->pulled_fin = s->fin && s->pulled == cb_chain_ready(&s->tx);
    *stream = s->id;
    *fin = s->pulled_fin;
    return (int)got;
}

static int raw_committed(cb_quic_app *app, int64_t id, size_t bytes) {
    raw_app *r = (raw_app *)app;
    raw_stream *s = find(r, id);
    if (!s) return CB_OK;
    cb_chain_take(&s->tx, bytes);
    if (s->pulled_fin && bytes == s->pulled) s->fin_sent = true;
    cb_list_del(&s->ready);
    if (has_more(s)) cb_list_add_tail(&r->ready, &s->ready); /* one packet each in turn */
    return CB_OK;
}

static void raw_blocked(cb_quic_app *app, int64_t id) {
    raw_stream *s = find((raw_app *)app, id);
    if (!s) return;
    s->blocked = true;
    cb_list_del(&s->ready);
}

static void raw_unblocked(cb_quic_app *app, int64_t id) {
    raw_app *r = (raw_app *)app;
    raw_stream *s = find(r, id);
    if (!s) return;
    s->blocked = false;
    queue(r, s);
}

static void raw_shut(cb_quic_app *app, int64_t id) {
    raw_stream *s = find((raw_app *)app, id);
    if (!s) return;
    s->shut = true;
    cb_list_del(&s->ready);
}

static size_t room(const raw_app *r, const raw_stream *s) {
    size_t max = r->c->opts->stream_send_bytes;
    return s->tx.len < max ? max - s->tx.len : 0;
}

static int told(raw_app *r, int rc) {
    if (rc < 0 && r->c->phase == CB_QUIC_OPEN)
        cb_quic_core_finish(r->c, CB_EUSER, true, "a callback of the user failed");
    return CB_OK;
}

static void raw_acked(cb_quic_app *app, int64_t id, uint64_t bytes) {
    raw_app *r = (raw_app *)app;
    raw_stream *s = find(r, id);
    if (!s) return;
    cb_chain_drop(&s->tx, (size_t)bytes);
    if (!s->wants_room || s->shut || room(r, s) * 2 < r->c->opts->stream_send_bytes) return;
    s->wants_room = false;
    if (r->ops.on_stream_writable) told(r, r->ops.on_stream_writable(r->c, id, r->user));
}

/* --- receiving --- */

static int finish_stream(raw_app *r, raw_stream *s) {
    int64_t id = s->id;
    uint64_t code = s->code;
    stream_free(r, s);
    if (peer_opened(r, id)) cb_quic_conn_extend_streams(r->c, is_bidi(id), 1);
    return r->ops.on_stream_close ? told(r, r->ops.on_stream_close(r->c, id, code, r->user)) : CB_OK;
}

/* Offers bytes to the user; returns how many were taken, < 0 when the connection is at its end. */
static int64_t offer(raw_app *r, raw_stream *s, cb_slice data, bool fin) {
    int64_t n = (int64_t)data.len;
    r->known = true;
    if (r->ops.on_stream_data) {
        s->in_data = true;
        n = r->ops.on_stream_data(r->c, s->id, data, fin, r->user);
        s->in_data = false;
    }
    if (n < 0) {
        told(r, (int)n);
        return -1;
    }
    if ((size_t)n > data.len) n = (int64_t)data.len;
    if (n) cb_quic_conn_credit(r->c, s->closed ? -1 : s->id, (size_t)n);
    if (fin && (size_t)n == data.len) s->rx_done = true;
    return r->c->phase == CB_QUIC_OPEN ? n : -1;
}

static void drop_received(raw_app *r, raw_stream *s) {
    cb_quic_conn_credit(r->c, -1, s->rx.len);
    cb_chain_free(&s->rx);
    s->rx_done = true;
}

/* What waits goes to the user, until he takes less than there is. */
static int deliver(raw_app *r, raw_stream *s) {
    do {
        s->again = false;
        cb_slice piece = {NULL, 0};
        size_t got = cb_chain_peek(&s->rx, &piece, 1);
        if (!got && (!s->rx_fin || s->rx_done)) break;
        bool last = s->rx_fin && piece.len == s->rx.len;
        int64_t n = offer(r, s, piece, last);
        if (n < 0) return CB_OK;
        cb_chain_drop(&s->rx, (size_t)n);
        if (s->refused) {
            drop_received(r, s);
            break;
        }
        if ((size_t)n < piece.len && !s->again) return CB_OK;
    } while (s->rx.len > 0 || (s->rx_fin && !s->rx_done));
    return s->closed ? finish_stream(r, s) : CB_OK;
}

static int raw_recv(cb_quic_app *app, int64_t id, unsigned flags, cb_slice data) {
    raw_app *r = (raw_app *)app;
    raw_stream *s = find(r, id);
    if (!s || s->rx_done) {
        cb_quic_conn_credit(r->c, id, data.len);
        return CB_OK;
    }
    if (flags & CB_QUIC_FIN) s->rx_fin = true;
    size_t taken = 0;
    if (s->rx.len == 0) {
        do {
            s->again = false;
            cb_slice rest = {data.base ? data.base + taken : NULL, data.len - taken};
            int64_t n = offer(r, s, rest, s->rx_fin);
            if (n < 0) return CB_OK;
            taken += (size_t)n;
        } while (s->again && !s->refused && taken < data.len);
    }
    if (s->refused) {
        cb_quic_conn_credit(r->c, -1, data.len - taken);
        return CB_OK;
    }
    if (taken == data.len) return CB_OK;
    int rc = cb_chain_add(&s->rx, data.base + taken, data.len - taken);
    return rc < 0 ? cb_fail(rc, "no memory for received data") : CB_OK;
}

static int raw_stream_open(cb_quic_app *app, int64_t id) {
    raw_app *r = (raw_app *)app;
    if (!stream_new(r, id)) return cb_fail(CB_ENOMEM, "no memory for a stream");
    r->known = true;
    return r->ops.on_stream_open ? told(r, r->ops.on_stream_open(r->c, id, r->user)) : CB_OK;
}

static int raw_reset(cb_quic_app *app, int64_t id, uint64_t code) {
    raw_app *r = (raw_app *)app;
    raw_stream *s = find(r, id);
    if (!s) return CB_OK;
    drop_received(r, s);
    return r->ops.on_stream_reset ? told(r, r->ops.on_stream_reset(r->c, id, code, r->user)) : CB_OK;
}

static int raw_stop(cb_quic_app *app, int64_t id, uint64_t code) {
    raw_app *r = (raw_app *)app;
    raw_stream *s = find(r, id);
    if (!s) return CB_OK;
    raw_shut(app, id);
    return r->ops.on_stream_reset ? told(r, r->ops.on_stream_reset(r->c, id, code, r->user)) : CB_OK;
}

static int raw_stream_close(cb_quic_app *app, int64_t id, uint64_t code) {
    raw_app *r = (raw_app *)app;
    raw_stream *s = find(r, id);
    if (!s) return CB_OK;
    s->closed = true;
    s->shut = true;
    s->code = code;
    cb_list_del(&s->ready);
    if (code != UINT64_MAX) drop_received(r, s);
    return s->rx.len == 0 ? finish_stream(r, s) : CB_OK;
}

/* --- the connection --- */

static int raw_ready(cb_quic_app *app) {
    raw_app *r = (raw_app *)app;
    if (r->c->server || r->c->handshaken || !r->ops.on_streams_available) return CB_OK;
    return told(r, r->ops.on_streams_available(r->c, r->user)); /* early data may go out */
}

static int raw_handshake(cb_quic_app *app) {
    raw_app *r = (raw_app *)app;
    r->known = true;
    return r->ops.on_handshake ? told(r, r->ops.on_handshake(r->c, r->user)) : CB_OK;
}

static int raw_early_rejected(cb_quic_app *app) {
    raw_app *r = (raw_app *)app;
    for (;;) {
        size_t it = 0;
        raw_stream *s = cb_map_next(&r->streams, &it, NULL);
        if (!s) return CB_OK;
        int64_t id = s->id;
        stream_free(r, s);
        if (r->ops.on_stream_close) told(r, r->ops.on_stream_close(r->c, id, UINT64_MAX, r->user));
    }
}

static int raw_datagram(cb_quic_app *app, cb_slice data) {
    raw_app *r = (raw_app *)app;
    r->known = true;
    return r->ops.on_datagram ? told(r, r->ops.on_datagram(r->c, data, r->user)) : CB_OK;
}

static int raw_path_change(cb_quic_app *app) {
    raw_app *r = (raw_app *)app;
    return r->ops.on_path_change ? told(r, r->ops.on_path_change(r->c, r->user)) : CB_OK;
}

static void raw_streams_available(cb_quic_app *app) {
    raw_app *r = (raw_app *)app;
    if (r->ops.on_streams_available) told(r, r->ops.on_streams_available(r->c, r->user));
}

static void release(raw_app *r) {
    for (;;) {
        size_t it = 0;
        raw_stream *s = cb_map_next(&r->streams, &it, NULL);
        if (!s) break;
        stream_free(r, s);
    }
    cb_map_free(&r->streams);
    cb_mem_free(r->c->alloc, r);
}

static void raw_closed(cb_quic_app *app, int rc) {
    raw_app *r = (raw_app *)app;
    /* A server's user hears nothing of connections that never came to be. */
    if (r->ops.on_close && (r->known || !r->c->server)) r->ops.on_close(r->c, rc, r->user);
    r->gone = true;
    if (!r->calls) release(r);
}

static const cb_quic_app_ops raw_ops = {
    .ready = raw_ready,
    .handshake = raw_handshake,
    .early_rejected = raw_early_rejected,
    .recv = raw_recv,
    .stream_open = raw_stream_open,
    .stream_reset = raw_reset,
    .stream_stop = raw_stop,
    .stream_close = raw_stream_close,
    .datagram = raw_datagram,
    .path_change = raw_path_change,
    .pull = raw_pull,
    .committed = raw_committed,
    .blocked = raw_blocked,
    .unblocked = raw_unblocked,
    .shut = raw_shut,
    .acked = raw_acked,
    .streams_available = raw_streams_available,
    .closed = raw_closed,
};

int cb_quic_raw_new(cb_quic_app **out, cb_quic_conn *c, const cb_quic_conn_ops *ops, void *user) {
    static const uint8_t no_key[16]; /* stream IDs come in order: a flood cannot choose them */
    raw_app *r = cb_mem_new(c->alloc, sizeof *r);
    if (!r) return cb_fail(CB_ENOMEM, "no memory for a connection");
    r->app.ops = &raw_ops;
    r->c = c;
    if (ops) r->ops = *ops;
    r->user = user;
    cb_map_init(&r->streams, c->alloc, no_key);
    cb_list_init(&r->ready);
    *out = &r->app;
    return CB_OK;
}

/* --- cb/quic.h --- */

int cb_quic_conn_handle(cb_quic_conn *c, const cb_quic_conn_ops *ops, void *user) {
    raw_app *r = raw_of(c);
    if (!r) return cb_fail(CB_ECLOSED, "the connection is closed");
    int rc = ops ? cb_opts_read(&r->ops, sizeof r->ops, ops, "cb_quic_conn_ops") : CB_OK;
    if (rc == CB_OK) r->user = user;
    return rc;
}

static int usable(cb_quic_conn *c, raw_app **r) {
    if (c->phase != CB_QUIC_OPEN) return cb_fail(CB_ECLOSED, "the connection is closed");
    *r = raw_of(c);
    return *r ? CB_OK : cb_fail(CB_EAGAIN, "the handshake has not come so far yet");
}

int cb_quic_stream_open(cb_quic_conn *c, int bidi, int64_t *stream) {
    raw_app *r = NULL;
    int64_t id = -1;
    int rc = usable(c, &r);
    if (rc < 0) return rc;
    rc = cb_quic_conn_open_stream(c, bidi != 0, &id);
    if (rc < 0) return rc;
    if (!stream_new(r, id)) {
        cb_quic_conn_reset_stream(c, id, 0);
        cb_quic_conn_stop_stream(c, id, 0);
        return cb_fail(CB_ENOMEM, "no memory for a stream");
    }
    *stream = id;
    return CB_OK;
}

int64_t cb_quic_stream_write(cb_quic_conn *c, int64_t stream, cb_slice data, int fin) {
    raw_app *r = NULL;
    int rc = usable(c, &r);
    if (rc < 0) return rc;
    raw_stream *s = find(r, stream);
    if (!s || s->shut || s->fin) return cb_fail(CB_ECLOSED, "stream %lld takes no more data", (long long)stream);
    if (!is_bidi(stream) && peer_opened(r, stream)) {
        return cb_fail(CB_EINVAL, "stream %lld is the peer's alone to write", (long long)stream);
    }
    size_t n = room(r, s);
    if (n > data.len) n = data.len;
    if (n < data.len) s->wants_room = true;
    if (n && cb_chain_add(&s->tx, data.base, n) < 0) return cb_fail(CB_ENOMEM, "no memory for stream data");
    if (n == data.len && fin) s->fin = true;
    queue(r, s);
    return n || n == data.len ? (int64_t)n : CB_EAGAIN;
}

void cb_quic_stream_resume(cb_quic_conn *c, int64_t stream) {
    raw_app *r = NULL;
    if (usable(c, &r) < 0) return;
    raw_stream *s = find(r, stream);
    if (!s) return;
    if (s->in_data) {
        s->again = true;
    } else if (s->rx.len) {
        r->calls++;
        (void)deliver(r, s);
        if (!--r->calls && r->gone) release(r);
    }
}

int cb_quic_stream_reset(cb_quic_conn *c, int64_t stream, uint64_t app_error) {
    raw_app *r = NULL;
    int rc = usable(c, &r);
    if (rc < 0) return rc;
    raw_stream *s = find(r, stream);
    if (!s) return cb_fail(CB_ENOENT, "no stream %lld", (long long)stream);
    s->shut = true;
    cb_list_del(&s->ready);
    if (!s->in_data)
        drop_received(r, s);
    else
        s->refused = s->rx_done = true;
    if (is_bidi(stream) || !peer_opened(r, stream)) cb_quic_conn_reset_stream(c, stream, app_error);
    if (is_bidi(stream) || peer_opened(r, stream)) cb_quic_conn_stop_stream(c, stream, app_error);
    return CB_OK;
}
