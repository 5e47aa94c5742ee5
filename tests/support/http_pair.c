#include "support/http_pair.h"
#include "base/error.h"
#include "base/mem.h"
#include "support/fake_quic.h"
#include <criterion/criterion.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

uint32_t pair_random(pair *p, uint32_t below) {
    p->seed = p->seed * 1664525U + 1013904223U;
    return below ? (p->seed >> 8) % below : 0;
}

uint8_t pattern_at(uint64_t i) {
    return (uint8_t)(i * 131 + (i >> 8) * 7 + (i >> 16));
}

/* ---- memory that is counted ---- */

static void *counted(void *ptr, size_t size, void *user) {
    pair *p = user;
    size_t *old = ptr ? (size_t *)ptr - 2 : NULL;
    size_t before = old ? *old : 0;
    if (!size) {
        p->live -= before;
        free(old);
        return NULL;
    }
    if (p->fail_at && size > before && --p->fail_at == 0) {
        p->failed = true;
        return NULL;
    }
    size_t *fresh = realloc(old, size + 2 * sizeof(size_t));
    if (!fresh) return NULL;
    *fresh = size;
    p->live += size - before;
    if (p->live > p->peak) p->peak = p->live;
    return fresh + 2;
}

/* ---- owner ---- */

static int side_of(const cb_hconn *h) {
    return h->env.server ? 1 : 0;
}
static void on_new(cb_hconn *h, cb_exchange *x) {
    pair *p = h->env.owner_user;
    p->fresh++;
    cb_exchange_handle(x, p->serve, p->serve_user);
}
static void on_done(cb_hconn *h, cb_exchange *x) {
    (void)x;
    pair *p = h->env.owner_user;
    p->done[side_of(h)]++;
}
static void on_wake(cb_hconn *h) {
    pair *p = h->env.owner_user;
    p->woken[side_of(h)]++;
}
static void on_capacity(cb_hconn *h) {
    pair *p = h->env.owner_user;
    p->capacity++;
}
static void on_limit(cb_hconn *h, const char *what) {
    pair *p = h->env.owner_user;
    snprintf(p->limit[side_of(h)], sizeof p->limit[0], "%s", what);
}
static void on_gone(cb_hconn *h, int rc) {
    pair *p = h->env.owner_user;
    int i = side_of(h);
    p->gone[i] = true;
    if (rc < 0 && !p->rc[i]) p->rc[i] = rc;
}
static const cb_hconn_owner_ops owner = {.exchange_new = on_new,
                                         .exchange_done = on_done,
                                         .wake = on_wake,
                                         .capacity = on_capacity,
                                         .limit = on_limit,
                                         .gone = on_gone};

/* ---- the pipe ---- */

static size_t sink_room(cb_sink *s) {
    pair_pipe *q = CB_CONTAINER(s, pair_pipe, sink);
    return q->bytes.len < q->cap ? q->cap - q->bytes.len : 0;
}
static int sink_write(cb_sink *s, const cb_slice *v, size_t n) {
    pair_pipe *q = CB_CONTAINER(s, pair_pipe, sink);
    for (size_t i = 0; i < n; i++) {
        int rc = cb_buf_add(&q->bytes, v[i].base, v[i].len);
        if (rc < 0) return rc;
    }
    return CB_OK;
}

void pair_init(pair *p, int version) {
    memset(p, 0, sizeof *p);
    p->version = version;
    p->now = 1000 * CB_SEC;
    p->seed = 7;
    p->alloc = (cb_alloc){counted, p};
    for (int i = 0; i < 2; i++) {
        cb_http_limits_fill(&p->limits[i], NULL);
        p->pipe[i].sink = (cb_sink){.room = sink_room, .write = sink_write};
        p->pipe[i].cap = 64 * 1024;
        cb_buf_init(&p->pipe[i].bytes, NULL, 1 << 24);
        p->env[i] = (cb_hconn_env){.alloc = &p->alloc,
                                   .limits = &p->limits[i],
                                   .owner = &owner,
                                   .owner_user = p,
                                   .sink = &p->pipe[i].sink,
                                   .scheme = "https",
                                   .sni = "",
                                   .server = i == 1};
        cb_addr_parse(&p->env[i].remote, "127.0.0.1:4433", 0);
        p->env[i].local = p->env[i].remote;
    }
}

void pair_start(pair *p) {
    if (p->version == CB_HTTP_3) {
        p->quic = fake_quic_start(p);
        if (!p->hold_ready) fake_quic_ready(p->quic);
        return;
    }
    for (int i = 0; i < 2; i++)
        cr_assert_eq(cb_h2_new(&p->side[i], &p->env[i]), CB_OK, "%s", cb_last_error());
}

static void fail_side(pair *p, int i, int rc) {
    if (p->gone[i]) return;
    p->rc[i] = rc;
    p->gone[i] = true;
    p->side[i]->vt->closed(p->side[i], rc);
}

static bool carry(pair *p, int from) {
    pair_pipe *q = &p->pipe[from];
    int to = 1 - from;
    bool any = false;
    while (q->bytes.len && !q->hold && !p->gone[to]) {
        size_t n = 1 + pair_random(p, pair_random(p, 4) ? 40000 : 20);
        if (n > q->bytes.len) n = q->bytes.len;
        /* A copy of its own size, so that reading beyond it shows. */
        uint8_t *piece = malloc(n);
        memcpy(piece, q->bytes.base, n);
        cb_buf_drop(&q->bytes, n);
        int64_t rc = p->side[to]->vt->feed(p->side[to], (cb_slice){piece, n}, p->now);
        free(piece);
        any = true;
        if (rc < 0) fail_side(p, to, (int)rc);
        if (!pair_random(p, 3)) break;
    }
    return any;
}

bool pair_step(pair *p) {
    bool any = false;
    for (int i = 0; i < 2; i++) {
        unsigned woken = p->woken[i];
        p->woken[i] = 0;
        size_t before = p->pipe[i].bytes.len;
        if (!p->gone[i]) {
            int rc = p->side[i]->vt->flush(p->side[i], p->now);
            if (rc < 0) fail_side(p, i, rc);
        }
        any = any || woken || p->pipe[i].bytes.len != before;
    }
    if (p->quic) return fake_quic_step(p->quic) || any;
    bool a = carry(p, 0), b = carry(p, 1);
    return any || a || b;
}

void pair_run(pair *p) {
    for (int n = 0; pair_step(p); n++)
        cr_assert_lt(n, 1000000, "the pair never comes to rest");
}

void pair_pass(pair *p, cb_time span) {
    p->now += span;
    for (int i = 0; i < 2; i++) {
        if (p->gone[i]) continue;
        for (int n = 0; !p->gone[i] && p->side[i]->vt->deadline(p->side[i]) <= p->now; n++) {
            cr_assert_lt(n, 1000, "expire() does not move the deadline");
            int rc = p->side[i]->vt->expire(p->side[i], p->now);
            if (rc < 0) fail_side(p, i, rc);
            if (!p->gone[i] && (rc = p->side[i]->vt->flush(p->side[i], p->now)) < 0) fail_side(p, i, rc);
        }
    }
    pair_run(p);
}

void pair_stop(pair *p) {
    for (int i = 0; i < 2; i++) {
        if (!p->quic) p->side[i]->vt->closed(p->side[i], CB_ECLOSED);
        cb_buf_free(&p->pipe[i].bytes);
    }
    if (p->quic) fake_quic_stop(p->quic);
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(p->side[i]->n_exchanges, 0, "exchanges are left on side %d", i);
        p->side[i]->vt->free(p->side[i]);
    }
    cr_assert_eq(p->live, 0, "%zu bytes are left", p->live);
}

/* ---- calls ---- */

static int call_head_in(cb_exchange *x, void *user) {
    call *c = user;
    c->heads++;
    c->status = cb_exchange_status(x);
    cb_slice v = cb_exchange_field(x, "x-echo");
    snprintf(c->header, sizeof c->header, "%.*s", (int)v.len, v.base ? (const char *)v.base : "");
    return CB_OK;
}
static int call_info(cb_exchange *x, int status, void *user) {
    (void)x;
    call *c = user;
    c->infos++;
    c->info_status = status;
    return CB_OK;
}
static int64_t call_body(cb_exchange *x, cb_slice data, void *user) {
    (void)x;
    call *c = user;
    if (c->stalled) return CB_EAGAIN;
    for (size_t i = 0; i < data.len && c->count_only; i++)
        c->sum += data.base[i] != pattern_at(c->received + i);
    c->received += data.len;
    if (!c->count_only) cr_assert_eq(cb_buf_add(&c->body, data.base, data.len), CB_OK);
    return (int64_t)data.len;
}
static int call_end(cb_exchange *x, void *user) {
    call *c = user;
    size_t n;
    const cb_field *f = cb_exchange_trailers(x, &n);
    c->ends++;
    for (size_t i = 0; i < n; i++)
        if (cb_slice_eq(f[i].name, "x-trailer"))
            snprintf(c->trailer, sizeof c->trailer, "%.*s", (int)f[i].value.len, (const char *)f[i].value.base);
    return CB_OK;
}
static int call_writable(cb_exchange *x, void *user) {
    (void)x;
    call *c = user;
    c->writable = true;
    call_pump(c);
    return CB_OK;
}
static int call_datagram(cb_exchange *x, cb_slice payload, void *user) {
    (void)x;
    call *c = user;
    cb_buf_add(&c->datagrams, payload.base, payload.len);
    return cb_buf_add(&c->datagrams, ";", 1);
}
static void call_close(cb_exchange *x, int rc, void *user) {
    (void)x;
    call *c = user;
    c->closes++;
    c->rc = rc;
    c->x = NULL;
    if (rc < 0) snprintf(c->reason, sizeof c->reason, "%s", cb_last_error());
}
static const cb_exchange_ops call_ops = {.size = sizeof call_ops,
                                         .on_head = call_head_in,
                                         .on_info = call_info,
                                         .on_body = call_body,
                                         .on_end = call_end,
                                         .on_writable = call_writable,
                                         .on_datagram = call_datagram,
                                         .on_close = call_close};

void call_pump(call *c) {
    uint8_t piece[5000];
    while (c->x && (c->source.len || c->repeat)) {
        cb_slice data = c->source;
        if (!data.len) {
            size_t n = c->repeat < sizeof piece ? c->repeat : sizeof piece;
            for (size_t i = 0; i < n; i++)
                piece[i] = pattern_at(c->received + i);
            data = (cb_slice){piece, n};
        }
        int64_t n = cb_exchange_write(c->x, data);
        if (n == CB_EAGAIN) return;
        cr_assert_geq(n, 0, "write: %s", cb_last_error());
        if (c->source.len) {
            c->source.base += n;
            c->source.len -= (size_t)n;
        } else {
            c->repeat -= (size_t)n;
            c->received += (uint64_t)n;
        }
    }
    if (!c->x || c->no_finish) return;
    c->no_finish = true;
    const cb_field t = {cb_slice_str("x-trailer"), cb_slice_str("from the client")};
    cr_assert_eq(cb_exchange_finish_trailers(c->x, &t, c->send_trailer), CB_OK, "finish: %s", cb_last_error());
}

int call_try(pair *p, call *c, const call_head *h) {
    static const call_head get = {.method = "GET", .path = "/", .end = true};
    if (!h) h = &get;
    bool plain = !strcmp(h->method, "CONNECT") && !h->protocol;
    cb_head head = {.method = cb_slice_str(h->method),
                    .scheme = cb_slice_str(plain       ? ""
                                           : h->scheme ? h->scheme
                                                       : "https"),
                    .authority = cb_slice_str("example.org"),
                    .path = cb_slice_str(plain     ? ""
                                         : h->path ? h->path
                                                   : "/"),
                    .protocol = cb_slice_str(h->protocol),
                    .fields = h->fields,
                    .n = h->n,
                    .length = -1};
    cb_buf_init(&c->body, NULL, 1 << 26);
    cb_buf_init(&c->datagrams, NULL, 1 << 20);
    c->rc = 1;
    int rc = cb_exchange_new(&c->x, NULL, &p->alloc, false, &p->limits[0]);
    if (rc < 0) return rc;
    cb_exchange_handle(c->x, &call_ops, c);
    rc = p->side[0]->vt->open(p->side[0], c->x);
    if (rc == CB_OK) rc = cb_exchange_send_request(c->x, &head, h->end);
    if (rc < 0 && c->x) {
        cb_exchange_closed(c->x, rc);
        return rc;
    }
    if (!h->end) call_pump(c);
    return rc;
}

void call_start(pair *p, call *c, const call_head *h) {
    cr_assert_eq(call_try(p, c, h), CB_OK, "request: %s", cb_last_error());
}

void call_free(call *c) {
    cb_buf_free(&c->body);
    cb_buf_free(&c->datagrams);
}
