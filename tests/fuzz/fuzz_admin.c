/* What strangers write into a request to an administration interface: the target (what it leads to decides what
 * somebody may do, so it must read the same when it is written again), entity tags, keys, and IDs of events. */
#include "admin/match.h"
#include "admin/replay.h"
#include "admin/ring.h"
#include "admin/router.h"
#include "base/mem.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int nothing(cb_admin_call *call, void *user) {
    (void)call;
    (void)user;
    return CB_OK;
}

static const char *const paths[] = {
    "/livez",        "/v1/config", "/v1/config/{path...}", "/v1/pools/{group}", "/v1/pools/{group}/origins/{n}",
    "/v1/pools/all", "/{any}/x"};

static const cb_admin_router *routes(void) {
    static cb_admin_router r;
    static char ids[8][4];
    if (r.n) return &r;
    cb_admin_router_init(&r, &cb_alloc_libc);
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        snprintf(ids[i], sizeof ids[i], "r%zu", i);
        const cb_admin_resource row = {.size = sizeof row,
                                       .method = i % 2 ? "PUT" : "GET",
                                       .path = paths[i],
                                       .id = ids[i],
                                       .summary = "x",
                                       .handle = nothing};
        if (cb_admin_router_add(&r, &row, NULL, NULL) < 0) abort();
    }
    return &r;
}

/* A segment of text: what must never be in one. */
static void check_segment(const char *s) {
    if (!*s || strcmp(s, ".") == 0 || strcmp(s, "..") == 0) abort();
    for (; *s; s++)
        if (*s == '/' || *s == '\\' || (unsigned char)*s < 0x20 || *s == 0x7f) abort();
}

static size_t encode(char *out, const char *text) {
    size_t n = 0;
    for (; *text; text++)
        n += (size_t)sprintf(out + n, "%%%02x", (unsigned char)*text);
    return n;
}

/* Everything in percent signs must lead to the same. */
static void check_again(const cb_admin_target *t) {
    char *text = malloc(40000);
    size_t n = 0;
    cb_admin_target again;
    for (uint32_t i = 0; i < t->n_segments; i++) {
        check_segment(t->segments[i]);
        text[n++] = '/';
        n += encode(text + n, t->segments[i]);
    }
    if (!t->n_segments) text[n++] = '/';
    for (uint32_t i = 0; i < t->n_query; i++) {
        text[n++] = i ? '&' : '?';
        n += encode(text + n, t->names[i]);
        text[n++] = '=';
        n += encode(text + n, t->values[i]);
    }
    if (cb_admin_target_read(&again, &cb_alloc_libc, (cb_slice){(const uint8_t *)text, n})) abort();
    if (strcmp(again.path, t->path) != 0 || again.n_segments != t->n_segments || again.n_query != t->n_query) abort();
    for (uint32_t i = 0; i < t->n_query; i++)
        if (strcmp(cb_admin_target_query(&again, t->names[i]), t->values[i]) != 0) abort();
    cb_admin_target_free(&again, &cb_alloc_libc);
    free(text);
}

static void check_target(cb_slice in) {
    cb_admin_target t;
    char allow[64];
    if (!cb_admin_target_read(&t, &cb_alloc_libc, in)) {
        check_again(&t);
        const cb_admin_row *row = cb_admin_router_find(routes(), &t, cb_slice_str("GET"), false, allow);
        const char *rest = row ? cb_admin_row_param(row, &t, "path") : NULL;
        if (rest && !strstr(t.path, rest)) abort();
        if (row && strcmp(row->r.path, "/livez") == 0 && strcmp(t.path, "/livez") != 0) abort();
    }
    cb_admin_target_free(&t, &cb_alloc_libc);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    cb_admin_ring ring;
    if (size == 0 || size > 8192) return 0;
    const cb_slice in = {data + 1, size - 1};
    switch (data[0] & 3) {
    case 0:
        check_target(in);
        break;
    case 1: /* what lists the tag goes on with If-Match; what does not fails */
        if (cb_admin_match(in, (cb_slice){0}, "\"1\"", false) == CB_MATCH_GO && !memchr(in.base, '*', in.len) &&
            !memmem(in.base, in.len, "\"1\"", 3))
            abort();
        (void)cb_admin_match((cb_slice){0}, in, "W/\"1\"", true);
        break;
    case 2: {
        const cb_slice key = cb_replay_key(in);
        if (key.len > CB_REPLAY_KEY) abort();
        for (size_t i = 0; i < key.len; i++)
            if (key.base[i] <= ' ' || key.base[i] >= 0x7f) abort();
        break;
    }
    default:
        if (cb_ring_init(&ring, &cb_alloc_libc, 4, 1000, 0xabc) < 0) abort();
        for (int i = 0; i < 6; i++)
            if (cb_ring_add(&ring, "x", cb_slice_str("1")) < 0) abort();
        if (cb_ring_after(&ring, in) > ring.next) abort();
        cb_ring_free(&ring);
    }
    return 0;
}
