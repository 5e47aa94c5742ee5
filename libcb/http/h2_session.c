/* The nghttp2 session of a connection: its memory, its options, and the SETTINGS that it begins with. */
#include "base/blocks.h"
#include "base/error.h"
#include "base/mem.h"
#include "http/h2_conn.h"
#include <string.h>

enum {
    WINDOW_STREAMS = 16, /* the connection's window, in windows of a stream: that many readers may stand still before
                          * they hold up the others */
    FRAMES_MIN = 16384,
    RATE_SPAN = 10 /* seconds, see rate.h */
};

/* ---- memory ---- */

/* nghttp2 takes and gives some small pieces with each request. */
static void *get(const h2_conn *c, size_t size) {
    return c->plain_malloc ? cb_small_get(c->m.h.env.alloc, size) : cb_mem_get(c->m.h.env.alloc, size);
}

static void put(const h2_conn *c, void *p) {
    if (c->plain_malloc)
        cb_small_put(c->m.h.env.alloc, p);
    else
        cb_mem_free(c->m.h.env.alloc, p);
}

/* A session's buffer for frames is one block of 16 KiB, of which heads rarely fill more than a few hundred bytes. */
static void *mem_malloc(size_t size, void *user) {
    h2_conn *c = user;
    if (!size) return NULL;
    if (size < FRAMES_MIN || size > CB_SPARSE || c->frames) return get(c, size);
    return c->frames = cb_sparse_get(c->m.h.env.alloc);
}

static void mem_free(void *p, void *user) {
    h2_conn *c = user;
    if (!p || p != c->frames) {
        put(c, p);
        return;
    }
    cb_sparse_put(c->m.h.env.alloc, p);
    c->frames = NULL;
}

static void *mem_calloc(size_t n, size_t size, void *user) {
    const h2_conn *c = user;
    if (!n || !size || n > SIZE_MAX / size) return NULL;
    void *p = get(c, n * size);
    return p ? memset(p, 0, n * size) : NULL;
}

static void *mem_realloc(void *p, size_t size, void *user) {
    h2_conn *c = user;
    if (!p) return mem_malloc(size, user);
    if (p != c->frames)
        return c->plain_malloc ? cb_small_grow(c->m.h.env.alloc, p, size) : cb_mem_grow(c->m.h.env.alloc, p, size);
    if (size && size <= CB_SPARSE) return p;
    void *grown = size ? get(c, size) : NULL;
    if (grown) memcpy(grown, p, CB_SPARSE);
    if (grown || !size) mem_free(p, user);
    return grown;
}

/* ---- the session ---- */

static int make_option(nghttp2_option **out, const cb_http_limits *l) {
    nghttp2_option *o;
    if (nghttp2_option_new(&o)) return cb_fail(CB_ENOMEM, "no memory for an HTTP/2 session");
    nghttp2_option_set_no_auto_window_update(o, 1);
    nghttp2_option_set_no_closed_streams(o, 1);
    nghttp2_option_set_max_reserved_remote_streams(o, 0); /* no push */
    nghttp2_option_set_max_deflate_dynamic_table_size(o, l->table_bytes);
    nghttp2_option_set_max_continuations(o, l->max_continuations);
    nghttp2_option_set_builtin_recv_extension_type(o, NGHTTP2_PRIORITY_UPDATE);
    for (unsigned type = NGHTTP2_CONTINUATION + 1; type < 256;
         type++) /* to be counted: nghttp2 is silent about others */
        if (type != NGHTTP2_PRIORITY_UPDATE) nghttp2_option_set_user_recv_extension_type(o, (uint8_t)type);
    nghttp2_option_set_max_send_header_block_length(o, 1024 * 1024);
    /* nghttp2's own limits of that kind stay behind ours. */
    nghttp2_option_set_stream_reset_rate_limit(o, 1000 + (uint64_t)l->max_resets_per_s * RATE_SPAN,
                                               33 + (uint64_t)l->max_resets_per_s);
    nghttp2_option_set_max_outbound_ack(o, 1000 + (size_t)l->max_settings_per_s * RATE_SPAN);
    *out = o;
    return CB_OK;
}

static int make_session(h2_conn *c) {
    nghttp2_option *option = NULL;
    nghttp2_session_callbacks *callbacks = NULL;
    int rc = make_option(&option, c->m.h.env.limits);
    if (rc < 0) return rc;
    rc = h2_callbacks(&callbacks);
    if (rc == CB_OK) {
        rc = (c->m.h.env.server ? nghttp2_session_server_new3 : nghttp2_session_client_new3)(&c->ng, callbacks, c,
                                                                                             option, &c->mem);
        if (rc) rc = cb_fail(CB_ENOMEM, "no memory for an HTTP/2 session");
        nghttp2_session_callbacks_del(callbacks);
    }
    nghttp2_option_del(option);
    return rc;
}

static int first_settings(h2_conn *c) {
    const cb_http_limits *l = c->m.h.env.limits;
    uint32_t window = l->stream_window_bytes < INT32_MAX ? l->stream_window_bytes : INT32_MAX;
    nghttp2_settings_entry e[8];
    size_t n = 0;
    e[n++] = (nghttp2_settings_entry){NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, window};
    e[n++] = (nghttp2_settings_entry){NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, l->max_head_bytes};
    e[n++] = (nghttp2_settings_entry){NGHTTP2_SETTINGS_HEADER_TABLE_SIZE, l->table_bytes};
    e[n++] = (nghttp2_settings_entry){NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES, 1};
    if (c->m.h.env.server) {
        e[n++] = (nghttp2_settings_entry){NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, l->max_streams};
        e[n++] = (nghttp2_settings_entry){NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL, 1};
    } else {
        e[n++] = (nghttp2_settings_entry){NGHTTP2_SETTINGS_ENABLE_PUSH, 0};
    }
    int rc = nghttp2_submit_settings(c->ng, NGHTTP2_FLAG_NONE, e, n);
    uint64_t all = (uint64_t)window * WINDOW_STREAMS;
    if (all > INT32_MAX) all = INT32_MAX;
    if (all < NGHTTP2_INITIAL_CONNECTION_WINDOW_SIZE) all = NGHTTP2_INITIAL_CONNECTION_WINDOW_SIZE;
    if (!rc) rc = nghttp2_session_set_local_window_size(c->ng, NGHTTP2_FLAG_NONE, 0, (int32_t)all);
    return rc ? cb_fail(rc == NGHTTP2_ERR_NOMEM ? CB_ENOMEM : CB_EINVAL, "HTTP/2 settings: %s", nghttp2_strerror(rc))
              : CB_OK;
}

int h2_session_new(h2_conn *c) {
    c->mem = (nghttp2_mem){
        .mem_user_data = c, .malloc = mem_malloc, .free = mem_free, .calloc = mem_calloc, .realloc = mem_realloc};
    c->plain_malloc = cb_alloc_is_libc(c->m.h.env.alloc);
    int rc = make_session(c);
    return rc == CB_OK ? first_settings(c) : rc;
}
