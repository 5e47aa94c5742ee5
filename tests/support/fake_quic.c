#include "support/fake_quic.h"
#include "base/error.h"
#include "http/h3_conn.h"
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static fq_side *side_of(const cb_quic_conn *c) {
    return (fq_side *)(uintptr_t)c;
}

fq_stream *fake_quic_stream(fake_quic *q, int64_t id) {
    for (size_t i = 0; i < q->n; i++)
        if (q->streams[i].id == id) return &q->streams[i];
    return NULL;
}

static bool one_way(int64_t id) {
    return id & 2;
}

static fq_stream *add_stream(fake_quic *q, int side, bool bidi) {
    fq_side *s = &q->side[side];
    if (s->opened[bidi] >= s->limit[bidi]) return NULL;
    cr_assert_lt(q->n, FQ_STREAMS, "more streams than the test has room for");
    fq_stream *t = &q->streams[q->n++];
    *t = (fq_stream){.id = s->opened[bidi]++ * 4 + (bidi ? 0 : 2) + side};
    for (int i = 0; i < 2; i++) {
        cb_buf_init(&t->way[i].sent, NULL, 1 << 26);
        t->way[i].max = q->p->limits[1 - i].stream_window_bytes;
        t->way[i].spans = calloc(FQ_SPANS, sizeof(fq_span));
    }
    t->seen[side] = true;
    return t;
}

/* ---- what the application asks for ---- */

static int open_stream(cb_quic_conn *c, bool bidi, int64_t *stream) {
    fq_side *s = side_of(c);
    fq_stream *t = add_stream(s->q, s->index, bidi);
    if (!t) return CB_EAGAIN;
    *stream = t->id;
    return CB_OK;
}
static void wake(cb_quic_conn *c) {
    (void)c;
}
static void credit(cb_quic_conn *c, int64_t id, size_t bytes) {
    fq_side *s = side_of(c);
    fq_stream *t = fake_quic_stream(s->q, id);
    s->credited += bytes;
    cr_assert_leq(s->credited, s->received, "more credit than was received");
    s->q->side[1 - s->index].conn_max += bytes;
    if (!t) return;
    fq_way *w = &t->way[1 - s->index];
    w->max += bytes;
    cr_assert_leq(w->max, w->delivered + s->q->p->limits[s->index].stream_window_bytes, "stream %d: too much credit",
                  (int)id);
}
static void reset_stream(cb_quic_conn *c, int64_t id, uint64_t code) {
    fq_side *s = side_of(c);
    fq_stream *t = fake_quic_stream(s->q, id);
    if (t) fake_quic_reset(s->q, s->index, id, code);
}
static void stop_stream(cb_quic_conn *c, int64_t id, uint64_t code) {
    fq_side *s = side_of(c);
    fake_quic_stop_stream(s->q, s->index, id, code);
}
static void extend_streams(cb_quic_conn *c, bool bidi, size_t n) {
    fq_side *s = side_of(c), *other = &s->q->side[1 - s->index];
    bool was_out = other->opened[bidi] >= other->limit[bidi];
    other->limit[bidi] += (int64_t)n;
    if (was_out && other->app && other->app->ops->streams_available) other->app->ops->streams_available(other->app);
}
static int fail(cb_quic_conn *c, uint64_t error, const char *reason) {
    fq_side *s = side_of(c);
    if (!s->error) {
        s->error = error;
        snprintf(s->reason, sizeof s->reason, "%s", reason);
    }
    return cb_fail(CB_EPROTO, "%s", reason);
}
static int datagram(cb_quic_conn *c, const cb_slice *v, size_t n) {
    fq_side *s = side_of(c);
    if (s->no_datagrams) return cb_fail(CB_ENOTSUP, "the peer takes no datagrams");
    uint16_t len = 0;
    for (size_t i = 0; i < n; i++)
        len = (uint16_t)(len + v[i].len);
    if (len > 1200) return cb_fail(CB_ELIMIT, "too long");
    cb_buf_add(&s->dgrams, &len, 2);
    for (size_t i = 0; i < n; i++)
        cb_buf_add(&s->dgrams, v[i].base, v[i].len);
    return CB_OK;
}
static cb_time now(const cb_quic_conn *c) {
    return side_of(c)->q->p->now;
}
static cb_time rtt(const cb_quic_conn *c) {
    (void)c;
    return 20 * CB_MS;
}
static bool in_early_data(const cb_quic_conn *c) {
    return side_of(c)->early;
}
static void rest(cb_quic_conn *c) {
    side_of(c)->rests++;
}
const h3_below fake_quic_below = {open_stream, wake,     credit, reset_stream, stop_stream,   extend_streams,
                                  fail,        datagram, now,    rtt,          in_early_data, rest};

/* ---- raw ---- */

int64_t fake_quic_open(fake_quic *q, int side, bool bidi) {
    fq_stream *t = add_stream(q, side, bidi);
    cr_assert(t, "no stream left");
    return t->id;
}
void fake_quic_send(fake_quic *q, int side, int64_t id, const void *data, size_t len, bool fin) {
    fq_way *w = &fake_quic_stream(q, id)->way[side];
    cr_assert_eq(cb_buf_add(&w->sent, data, len), CB_OK);
    w->offset += len;
    q->side[side].conn_sent += len;
    w->fin = w->fin || fin;
}
void fake_quic_reset(fake_quic *q, int side, int64_t id, uint64_t code) {
    fq_way *w = &fake_quic_stream(q, id)->way[side];
    if (w->reset || w->fin_delivered) return;
    w->reset = w->shut = true;
    w->reset_code = code;
    w->n_spans = w->first_span = 0; /* nothing of it is sent again */
}
void fake_quic_stop_stream(fake_quic *q, int side, int64_t id, uint64_t code) {
    fq_stream *t = fake_quic_stream(q, id);
    if (!t) return;
    fq_way *w = &t->way[1 - side];
    w->unread = true; /* as ngtcp2: nothing more is given to the application */
    if (w->stop || w->fin_delivered || w->reset) return;
    w->stop = true;
    w->stop_code = code;
}

/* ---- life ---- */

fake_quic *fake_quic_start(pair *p) {
    fake_quic *q = calloc(1, sizeof *q);
    q->p = p;
    q->streams = calloc(FQ_STREAMS, sizeof *q->streams);
    for (int i = 0; i < 2; i++) {
        q->side[i].q = q;
        q->side[i].index = i;
        q->side[i].limit[0] = 16;
        q->side[i].limit[1] = i == 0 ? p->limits[1].max_streams : 0;
        q->side[i].conn_max = 4ULL * p->limits[1 - i].stream_window_bytes;
        cb_buf_init(&q->side[i].dgrams, NULL, 1 << 20);
        cr_assert_eq(cb_h3_new_on(&p->side[i], &p->env[i], (cb_quic_conn *)&q->side[i], &fake_quic_below), CB_OK);
        q->side[i].app = cb_h3_app(p->side[i]);
    }
    return q;
}

static void end_side(fake_quic *q, int i, int rc) {
    fq_side *s = &q->side[i];
    if (!s->app) return;
    cb_quic_app *app = s->app;
    s->app = NULL;
    app->ops->closed(app, rc);
}

static void failed(fake_quic *q, int i, int rc) {
    q->side[i].failed = true;
    q->p->rc[i] = rc;
    end_side(q, i, rc);
    end_side(q, 1 - i, CB_ECLOSED);
}

void fake_quic_ready(fake_quic *q) {
    q->started = true;
    for (int i = 1; i >= 0; i--) {
        int rc = q->side[i].app ? q->side[i].app->ops->ready(q->side[i].app) : CB_OK;
        if (rc < 0) failed(q, i, rc);
    }
}

void fake_quic_reject_early(fake_quic *q) {
    fq_side *s = &q->side[0];
    for (size_t k = 0; k < q->n; k++)
        for (int i = 0; i < 2; i++) {
            cr_assert(q->streams[k].id & 1 || !q->streams[k].seen[1], "the server knows early streams");
            cb_buf_free(&q->streams[k].way[i].sent);
            free(q->streams[k].way[i].spans);
        }
    q->n = 0;
    s->opened[0] = s->opened[1] = 0;
    s->conn_sent = 0;
    int rc = s->app->ops->early_rejected(s->app);
    cr_assert_eq(rc, CB_OK);
}

void fake_quic_only_server(fake_quic *q) {
    cb_quic_app *app = q->side[0].app;
    q->side[0].app = NULL;
    app->ops->closed(app, CB_ECLOSED);
    q->started = true;
    cr_assert_eq(q->side[1].app->ops->ready(q->side[1].app), CB_OK);
}

/* ---- a step ---- */

static uint64_t sum_of(const uint8_t *p, size_t n) {
    uint64_t h = 1469598103934665603ULL;
    for (size_t i = 0; i < n; i++)
        h = (h ^ p[i]) * 1099511628211ULL;
    return h;
}

/* Takes what one call of pull offers; false: there was nothing. */
static bool pull_once(fake_quic *q, int i) {
    fq_side *s = &q->side[i];
    cb_slice v[16];
    int64_t id;
    bool fin;
    if (s->conn_sent >= s->conn_max) return false;
    int n = s->app->ops->pull(s->app, &id, &fin, v, 16);
    if (n < 0) failed(q, i, n);
    if (n < 0 || id < 0 || (n == 0 && !fin)) return false;
    fq_stream *t = fake_quic_stream(q, id);
    fq_way *w = t ? &t->way[i] : NULL;
    if (!w || w->shut) {
        s->app->ops->shut(s->app, id);
        return true;
    }
    size_t total = 0, max = 1 + pair_random(q->p, 3000);
    for (int k = 0; k < n; k++)
        total += v[k].len;
    if (total && w->offset >= w->max) {
        w->blocked = true;
        s->app->ops->blocked(s->app, id);
        return true;
    }
    size_t take = total < max ? total : max;
    if (take > w->max - w->offset) take = w->max - w->offset;
    if (take > s->conn_max - s->conn_sent) take = s->conn_max - s->conn_sent;
    size_t left = take;
    for (int k = 0; k < n && left; k++) {
        size_t len = v[k].len < left ? v[k].len : left;
        cr_assert_lt(w->n_spans, FQ_SPANS);
        w->spans[w->n_spans++] = (fq_span){v[k].base, len, sum_of(v[k].base, len)};
        cb_buf_add(&w->sent, v[k].base, len);
        left -= len;
    }
    w->offset += take;
    s->conn_sent += take;
    if (fin && take == total) w->fin = true;
    int rc = s->app->ops->committed(s->app, id, take);
    if (rc < 0) failed(q, i, rc);
    return rc >= 0;
}

/* A side without application takes everything. */
static bool take_raw(fake_quic *q, fq_stream *t, int from) {
    fq_way *w = &t->way[from];
    bool any = w->sent.len || (w->fin && !w->fin_delivered) || (w->reset && !w->reset_delivered);
    q->side[from].conn_max += w->sent.len;
    w->max += w->sent.len;
    w->delivered += w->sent.len;
    cb_buf_drop(&w->sent, w->sent.len);
    w->fin_delivered = w->fin && !w->reset;
    w->reset_delivered = w->reset;
    t->seen[1 - from] = true;
    return any;
}

static bool deliver_way(fake_quic *q, fq_stream *t, int from) {
    fq_way *w = &t->way[from];
    fq_side *to = &q->side[1 - from];
    bool any = false;
    int rc = CB_OK;
    if (!to->app) return take_raw(q, t, from);
    if (!t->seen[1 - from] && (w->sent.len || w->fin || w->reset)) {
        t->seen[1 - from] = true;
        rc = to->app->ops->stream_open(to->app, t->id);
    }
    if (rc >= 0 && w->unread && w->sent.len) { /* thrown away, with its credit */
        to->received += w->sent.len;
        to->credited += w->sent.len;
        q->side[from].conn_max += w->sent.len;
        w->delivered += w->sent.len;
        w->acked = w->offset;
        w->n_spans = w->first_span = 0;
        cb_buf_drop(&w->sent, w->sent.len);
        any = true;
    }
    if (rc >= 0 && w->reset && !w->reset_delivered) {
        w->reset_delivered = any = true;
        to->received += w->sent.len; /* the final size counts for the connection */
        to->credited += w->sent.len;
        q->side[from].conn_max += w->sent.len;
        cb_buf_drop(&w->sent, w->sent.len);
        rc = to->app->ops->stream_reset(to->app, t->id, w->reset_code);
    } else if (rc >= 0 && !w->reset && (w->sent.len || (w->fin && !w->fin_delivered))) {
        size_t n = w->sent.len ? 1 + pair_random(q->p, (uint32_t)w->sent.len) : 0;
        if (n > 1500) n = 1500;
        uint8_t *piece = malloc(n ? n : 1);
        if (n) memcpy(piece, w->sent.base, n);
        cb_buf_drop(&w->sent, n);
        w->delivered += n;
        to->received += n;
        bool fin = w->fin && !w->sent.len;
        w->fin_delivered = fin;
        any = true;
        if (!w->unread)
            rc = to->app->ops->recv(to->app, t->id, (fin ? CB_QUIC_FIN : 0) | (to->early ? CB_QUIC_EARLY : 0),
                                    (cb_slice){piece, n});
        free(piece);
    }
    if (rc < 0) failed(q, 1 - from, rc);
    return any;
}

static bool deliver_stop(fake_quic *q, fq_stream *t, int from) {
    fq_way *w = &t->way[from];
    fq_side *s = &q->side[from];
    if (!w->stop || w->stop_delivered) return false;
    w->stop_delivered = true;
    fake_quic_reset(q, from, t->id, w->stop_code);
    int rc = s->app ? s->app->ops->stream_stop(s->app, t->id, w->stop_code) : CB_OK;
    if (rc < 0) failed(q, from, rc);
    return true;
}

static bool ack_way(fake_quic *q, fq_stream *t, int from) {
    fq_way *w = &t->way[from];
    bool any = false;
    while (!q->hold_acks && q->side[from].app && w->first_span < w->n_spans) {
        fq_span *p = &w->spans[w->first_span];
        if (w->acked + p->len > w->delivered || !pair_random(q->p, 4)) break;
        cr_assert_eq(sum_of(p->at, p->len), p->sum, "stream %d: bytes changed before they were acknowledged",
                     (int)t->id);
        w->first_span++;
        if (w->first_span == w->n_spans) w->first_span = w->n_spans = 0;
        w->acked += p->len;
        uint64_t len = p->len;
        any = true;
        q->side[from].app->ops->acked(q->side[from].app, t->id, len);
    }
    if (w->blocked && w->offset < w->max && q->side[from].app) {
        w->blocked = false;
        any = true;
        q->side[from].app->ops->unblocked(q->side[from].app, t->id);
    }
    return any;
}

/* Both directions of a stream are over for a side: it hears so, once. */
static bool close_stream(fake_quic *q, fq_stream *t, int side) {
    fq_way *out = &t->way[side], *in = &t->way[1 - side];
    bool mine = (t->id & 1) == side, any = false;
    bool out_over =
        (one_way(t->id) && !mine) || (out->fin_delivered && out->acked == out->offset) || out->reset_delivered;
    bool in_over = (one_way(t->id) && mine) || in->fin_delivered || in->reset_delivered;
    if (out_over && in_over && !t->closed[side] && t->seen[side] && q->side[side].app && !q->hold_acks) {
        t->closed[side] = any = true;
        uint64_t code = out->reset ? out->reset_code : in->reset ? in->reset_code : UINT64_MAX;
        int rc = q->side[side].app->ops->stream_close(q->side[side].app, t->id, code);
        if (rc < 0) failed(q, side, rc);
    }
    return any;
}

static bool deliver_datagrams(fake_quic *q, int from) {
    fq_side *s = &q->side[from], *to = &q->side[1 - from];
    bool any = false;
    while (s->dgrams.len && to->app) {
        uint16_t len;
        memcpy(&len, s->dgrams.base, 2);
        uint8_t *copy = malloc(len ? len : 1);
        memcpy(copy, s->dgrams.base + 2, len);
        cb_buf_drop(&s->dgrams, 2 + (size_t)len);
        int rc = to->app->ops->datagram(to->app, (cb_slice){copy, len});
        free(copy);
        any = true;
        if (rc < 0) failed(q, 1 - from, rc);
    }
    return any;
}

bool fake_quic_step(fake_quic *q) {
    bool any = false;
    if (!q->started) return false;
    for (int i = 0; i < 2; i++)
        for (int n = 0; n < 64 && q->side[i].app && !q->p->pipe[i].hold; n++) {
            if (!pull_once(q, i)) break;
            any = true;
        }
    for (size_t k = 0; k < q->n; k++)
        for (int i = 0; i < 2; i++) {
            if (!q->p->pipe[i].hold && deliver_way(q, &q->streams[k], i)) any = true;
            if (!q->p->pipe[1 - i].hold && deliver_stop(q, &q->streams[k], i)) any = true;
            if (ack_way(q, &q->streams[k], i)) any = true;
            if (close_stream(q, &q->streams[k], i)) any = true;
        }
    for (int i = 0; i < 2; i++)
        any = deliver_datagrams(q, i) || any;
    /* Late acknowledgements are still to come. */
    for (size_t k = 0; k < q->n && !any && !q->hold_acks; k++)
        for (int i = 0; i < 2; i++)
            any = any || (q->side[i].app && q->streams[k].way[i].first_span < q->streams[k].way[i].n_spans &&
                          q->streams[k].way[i].acked < q->streams[k].way[i].delivered);
    return any;
}

void fake_quic_stop(fake_quic *q) {
    for (int i = 0; i < 2; i++)
        end_side(q, i, CB_ECLOSED);
    for (size_t k = 0; k < q->n; k++)
        for (int i = 0; i < 2; i++) {
            cb_buf_free(&q->streams[k].way[i].sent);
            free(q->streams[k].way[i].spans);
        }
    for (int i = 0; i < 2; i++)
        cb_buf_free(&q->side[i].dgrams);
    free(q->streams);
    free(q);
}
