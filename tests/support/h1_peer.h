/* One end of an HTTP/1.1 connection in memory, with a log of what its exchange saw: for tests and fuzz targets. */
#ifndef CB_TESTS_H1_PEER_H
#define CB_TESTS_H1_PEER_H

#include "base/error.h"
#include "base/mem.h"
#include "http/hconn.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct h1_peer {
    cb_sink sink; /* first */
    cb_hconn *h;
    cb_http_limits limits;
    cb_alloc alloc;
    char out[1 << 18];
    size_t out_len;
    size_t room;
    bool shut;
    char log[1 << 16];
    size_t log_len;
    uint64_t body; /* bytes since the last other event */
    size_t allocs, live;
    size_t fail_after; /* allocations from this one on fail; 0: none */
    size_t wakes;
    int rc;         /* of the first failing call */
    cb_exchange *x; /* the last one seen */
    int act;        /* what the callbacks do, for tests */
    int opened, closed;
    void *user;
} h1_peer;

static inline void h1_flush_log(h1_peer *p);

static inline void h1_log(h1_peer *p, const char *fmt, ...) {
    va_list ap;
    h1_flush_log(p);
    va_start(ap, fmt);
    int n = vsnprintf(p->log + p->log_len, sizeof p->log - p->log_len, fmt, ap);
    va_end(ap);
    if (n > 0 && p->log_len + (size_t)n < sizeof p->log) p->log_len += (size_t)n;
}

static inline void h1_flush_log(h1_peer *p) {
    if (!p->body) return;
    unsigned long long n = p->body;
    p->body = 0;
    h1_log(p, "body %llu;", n);
}

static inline size_t h1_sink_room(cb_sink *s) {
    h1_peer *p = (h1_peer *)s;
    return p->room;
}

static inline int h1_sink_write(cb_sink *s, const cb_slice *v, size_t n) {
    h1_peer *p = (h1_peer *)s;
    for (size_t i = 0; i < n; i++) {
        size_t len = v[i].len;
        if (len > sizeof p->out - 1 - p->out_len) len = sizeof p->out - 1 - p->out_len;
        if (len) memcpy(p->out + p->out_len, v[i].base, len);
        p->out_len += len;
        p->room = p->room > v[i].len ? p->room - v[i].len : 0;
    }
    p->out[p->out_len] = '\0';
    return CB_OK;
}

static inline void h1_sink_shut(cb_sink *s) {
    ((h1_peer *)s)->shut = true;
}

static inline void *h1_realloc(void *ptr, size_t size, void *user) {
    h1_peer *p = user;
    if (!size) {
        if (ptr) p->live--;
        free(ptr);
        return NULL;
    }
    if (p->fail_after && p->allocs >= p->fail_after) return NULL;
    p->allocs++;
    if (!ptr) p->live++;
    return realloc(ptr, size);
}

static inline void h1_on_wake(cb_hconn *h) {
    ((h1_peer *)h->env.owner_user)->wakes++;
}

/* owner: exchange_new of a server gives each exchange its handler. */
static inline void h1_peer_open(h1_peer *p, bool server, const cb_hconn_owner_ops *owner) {
    static const char date[] = "Sun, 06 Nov 1994 08:49:37 GMT";
    if (!p->room) p->room = SIZE_MAX;
    p->sink.room = h1_sink_room;
    p->sink.write = h1_sink_write;
    p->alloc = (cb_alloc){h1_realloc, p};
    cb_http_limits asked = p->limits;
    asked.size = sizeof asked;
    cb_http_limits_fill(&p->limits, &asked);
    cb_hconn_env env = {.alloc = &p->alloc,
                        .limits = &p->limits,
                        .owner = owner,
                        .owner_user = p,
                        .sink = &p->sink,
                        .scheme = "http",
                        .sni = "",
                        .date = server ? date : NULL,
                        .server = server};
    p->rc = cb_h1_new(&p->h, &env);
}

/* Feeds bytes in pieces of `step` (0: one piece, SIZE_MAX - n: seeded random pieces) and flushes after each. */
static inline void h1_peer_feed(h1_peer *p, const void *data, size_t len, size_t step, cb_time now) {
    const uint8_t *at = data;
    uint32_t seed = (uint32_t)(SIZE_MAX - step) * 2654435761U + 1;
    size_t kept = 0; /* offered and not taken */
    while (p->rc >= 0 && (len || kept)) {
        size_t n = step == 0 ? len : step;
        if (step > SIZE_MAX / 2) {
            seed ^= seed << 13, seed ^= seed >> 17, seed ^= seed << 5;
            n = seed % 40 + 1;
        }
        n = n < len ? n : len;
        size_t offer = kept + n;
        /* an exact copy, so that sanitizers see every read past it */
        uint8_t *copy = malloc(offer ? offer : 1);
        memcpy(copy, at - kept, offer);
        int64_t took = p->h->vt->feed(p->h, (cb_slice){copy, offer}, now);
        free(copy);
        at += n;
        len -= n;
        if (took < 0) {
            p->rc = (int)took;
            break;
        }
        kept = offer - (size_t)took;
        int rc = p->h->vt->flush(p->h, now);
        if (rc < 0) p->rc = rc;
        if (!len && kept && !took) break; /* paused */
    }
}

static inline void h1_peer_eof(h1_peer *p, cb_time now) {
    if (p->rc < 0) return;
    int rc = p->h->vt->eof(p->h, now);
    if (rc >= 0) rc = p->h->vt->flush(p->h, now);
    if (rc < 0) p->rc = rc;
}

static inline void h1_peer_close(h1_peer *p) {
    if (!p->h) return;
    p->h->vt->closed(p->h, p->rc < 0 ? p->rc : CB_ECLOSED);
    p->h->vt->free(p->h);
    p->h = NULL;
    h1_flush_log(p);
}

#endif
