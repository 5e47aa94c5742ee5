/* What the fuzz targets of HTTP/2 and HTTP/3 share: counted memory, an owner, and users that do something of
 * everything. Whatever comes in: every exchange that a user saw is closed once, and no memory is left. */
#ifndef TESTS_FUZZ_HTTP_H
#define TESTS_FUZZ_HTTP_H

#include "http/hconn.h"
#include <stdlib.h>
#include <string.h>

typedef struct fuzz {
    cb_hconn *h;
    cb_hconn_env env;
    cb_http_limits limits;
    cb_alloc alloc;
    cb_sink sink;
    size_t live;
    unsigned opened, closed;
    size_t out, room;
    cb_exchange *held; /* takes nothing until it is resumed */
    cb_time now;
    uint64_t sum;
} fuzz;

static void *fuzz_realloc(void *ptr, size_t size, void *user) {
    fuzz *f = user;
    size_t *old = ptr ? (size_t *)ptr - 2 : NULL;
    f->live -= old ? *old : 0;
    if (!size) {
        free(old);
        return NULL;
    }
    size_t *fresh = realloc(old, size + 2 * sizeof(size_t));
    if (!fresh) abort();
    *fresh = size;
    f->live += size;
    return fresh + 2;
}

static size_t fuzz_room(cb_sink *s) {
    fuzz *f = CB_CONTAINER(s, fuzz, sink);
    return f->room > f->out ? f->room - f->out : 0;
}
static int fuzz_write(cb_sink *s, const cb_slice *v, size_t n) {
    fuzz *f = CB_CONTAINER(s, fuzz, sink);
    for (size_t i = 0; i < n; i++) {
        f->out += v[i].len;
        for (size_t k = 0; k < v[i].len; k++)
            f->sum += v[i].base[k];
    }
    return CB_OK;
}

/* ---- a server's user ---- */

static int fuzz_on_head(cb_exchange *x, void *user) {
    fuzz *f = user;
    cb_slice t = cb_exchange_path(x);
    uint8_t last = t.len ? t.base[t.len - 1] : 0;
    f->opened++;
    if (x->connect) return cb_exchange_reply(x, 200, NULL, 0);
    switch (last) {
    case 'e':
        return cb_exchange_send_text(x, 200, "early");
    case 'f':
        return CB_EUSER;
    case 'r':
        cb_exchange_reset(x, CB_RESET_REFUSED);
        return CB_OK;
    case 'h':
        f->held = x;
        return CB_OK;
    case 'i':
        return cb_exchange_reply(x, 103, NULL, 0);
    default:
        return CB_OK;
    }
}
static int64_t fuzz_on_body(cb_exchange *x, cb_slice data, void *user) {
    fuzz *f = user;
    for (size_t k = 0; k < data.len; k++)
        f->sum += data.base[k];
    if (f->held == x) return (int64_t)(data.len / 2);
    if (x->tunnel) cb_exchange_write(x, data);
    return (int64_t)data.len;
}
static int fuzz_on_end(cb_exchange *x, void *user) {
    (void)user;
    static const uint8_t big[100000];
    const cb_field trailer = {cb_slice_str("x"), cb_slice_str("y")};
    if (!x->server) return CB_OK;
    if (x->tunnel) return cb_exchange_finish(x);
    if (x->head_out) return CB_OK;
    cb_slice t = cb_exchange_path(x);
    if (t.len > 1 && t.base[1] == 'b') return cb_exchange_send(x, 200, NULL, 0, (cb_slice){big, sizeof big});
    int rc = cb_exchange_reply(x, 200, NULL, 0);
    if (rc == CB_OK) cb_exchange_write(x, cb_slice_str("hello"));
    return rc < 0 ? rc : cb_exchange_finish_trailers(x, &trailer, 1);
}
static int fuzz_on_datagram(cb_exchange *x, cb_slice payload, void *user) {
    (void)user;
    cb_exchange_datagram_send(x, payload);
    return CB_OK;
}
static void fuzz_on_close(cb_exchange *x, int rc, void *user) {
    (void)rc;
    fuzz *f = user;
    f->closed++;
    if (f->held == x) f->held = NULL;
}
static int fuzz_on_response(cb_exchange *x, void *user) {
    (void)user;
    size_t n;
    const cb_field *fields = cb_exchange_fields(x, &n);
    for (size_t i = 0; i < n; i++)
        if (!cb_field_name_ok(fields[i].name) || !cb_field_value_ok(fields[i].value)) abort();
    return CB_OK;
}
static const cb_exchange_ops fuzz_server_ops = {.size = sizeof fuzz_server_ops,
                                                .on_head = fuzz_on_head,
                                                .on_body = fuzz_on_body,
                                                .on_end = fuzz_on_end,
                                                .on_datagram = fuzz_on_datagram,
                                                .on_close = fuzz_on_close};
static const cb_exchange_ops fuzz_client_ops = {.size = sizeof fuzz_client_ops,
                                                .on_head = fuzz_on_response,
                                                .on_body = fuzz_on_body,
                                                .on_end = fuzz_on_end,
                                                .on_datagram = fuzz_on_datagram,
                                                .on_close = fuzz_on_close};

static void fuzz_new(cb_hconn *h, cb_exchange *x) {
    cb_exchange_handle(x, &fuzz_server_ops, h->env.owner_user);
}
static const cb_hconn_owner_ops fuzz_owner = {.exchange_new = fuzz_new};

static inline void fuzz_init(fuzz *f, bool server) {
    memset(f, 0, sizeof *f);
    f->now = 1000 * CB_SEC;
    f->room = 1 << 20;
    f->alloc = (cb_alloc){fuzz_realloc, f};
    f->sink = (cb_sink){.room = fuzz_room, .write = fuzz_write};
    cb_http_limits small = {.size = sizeof small,
                            .max_head_bytes = 4096,
                            .max_fields = 30,
                            .max_target_bytes = 256,
                            .max_streams = 8,
                            .max_body_bytes = 50000,
                            .stream_window_bytes = 65535,
                            .send_buffer_bytes = 20000};
    if (cb_http_limits_fill(&f->limits, &small) < 0) abort();
    f->env = (cb_hconn_env){.alloc = &f->alloc,
                            .limits = &f->limits,
                            .owner = &fuzz_owner,
                            .owner_user = f,
                            .sink = &f->sink,
                            .scheme = "https",
                            .sni = "",
                            .server = server};
}

/* A client's request; protocol "" is a plain one. */
static inline void fuzz_request(fuzz *f, const char *method, const char *protocol, bool end) {
    cb_exchange *x;
    const cb_head head = {.method = cb_slice_str(method),
                          .scheme = cb_slice_str("https"),
                          .authority = cb_slice_str("a"),
                          .path = cb_slice_str("/"),
                          .protocol = cb_slice_str(protocol),
                          .length = -1};
    if (cb_exchange_new(&x, NULL, &f->alloc, false, &f->limits) < 0) abort();
    cb_exchange_handle(x, &fuzz_client_ops, f);
    f->opened++;
    int rc = f->h->vt->open(f->h, x);
    if (rc == CB_OK) rc = cb_exchange_send_request(x, &head, end);
    if (rc < 0) {
        cb_exchange_closed(x, rc);
        return;
    }
    if (!end) cb_exchange_write(x, cb_slice_str("some body"));
}

static inline void fuzz_time(fuzz *f, cb_time span) {
    f->now += span;
    for (int i = 0; f->h->vt->deadline(f->h) <= f->now; i++) {
        if (f->h->vt->expire(f->h, f->now) < 0 || f->h->vt->flush(f->h, f->now) < 0) return;
        if (i > 100) abort();
    }
}

static inline void fuzz_check(const fuzz *f) {
    if (f->opened != f->closed || f->live) abort();
}

#endif
