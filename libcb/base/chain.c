#include "base/chain.h"
#include "base/blocks.h"
#include "base/error.h"
#include "base/mem.h"
#include <string.h>

struct cb_chunk {
    struct cb_chunk *next;
    uint32_t len, cap;
    uint8_t data[];
};

/* Sizes with the header, as the allocator sees them. An emptied chain keeps a chunk up to CHUNK_KEEP, so
 * that a ping-pong of short messages does not allocate and an idle connection does not hold 16 KiB. */
enum { CHUNK_MIN = CB_BLOCK_MIN, CHUNK_MAX = CB_BLOCK, CHUNK_KEEP = 2048, CHUNK_HEAD = sizeof(struct cb_chunk) };

void cb_chain_init(cb_chain *c, const cb_alloc *alloc) {
    *c = (cb_chain){.alloc = alloc};
}

static void free_chunk(const cb_alloc *alloc, cb_chunk *k) {
    cb_block_put(alloc, k, k->cap + CHUNK_HEAD);
}

static void free_chunks(const cb_alloc *alloc, cb_chunk *k) {
    while (k) {
        cb_chunk *next = k->next;
        free_chunk(alloc, k);
        k = next;
    }
}

void cb_chain_free(cb_chain *c) {
    free_chunks(c->alloc, c->head);
    cb_chain_init(c, c->alloc);
}

static cb_chunk *chunk_new(const cb_alloc *alloc, size_t want, size_t previous) {
    size_t size = previous * 2 > CHUNK_MIN ? previous * 2 : CHUNK_MIN;
    while (size < CHUNK_MAX && size - CHUNK_HEAD < want)
        size *= 2;
    if (size > CHUNK_MAX) size = CHUNK_MAX;
    cb_chunk *k = cb_block_get(alloc, size);
    if (!k) return NULL;
    k->next = NULL;
    k->len = 0;
    k->cap = (uint32_t)(size - CHUNK_HEAD);
    return k;
}

/* Empty chunks for `len` bytes beyond those that fit the tail, as a list; *out NULL when none is needed. */
static int make_room(const cb_chain *c, size_t len, cb_chunk **out) {
    size_t room = c->tail ? c->tail->cap - c->tail->len : 0;
    size_t previous = c->tail ? c->tail->cap + CHUNK_HEAD : 0;
    cb_chunk **link = out;
    *out = NULL;
    while (len > room) {
        cb_chunk *k = chunk_new(c->alloc, len - room, previous);
        if (!k) {
            free_chunks(c->alloc, *out);
            return cb_fail(CB_ENOMEM, "no memory for %zu queued bytes", len);
        }
        *link = k;
        link = &k->next;
        room += k->cap;
        previous = k->cap + CHUNK_HEAD;
    }
    return CB_OK;
}

/* Room was made. */
static void fill(cb_chain *c, cb_slice from) {
    while (from.len) {
        cb_chunk *k = c->tail;
        size_t n = k->cap - k->len;
        if (n > from.len) n = from.len;
        memcpy(k->data + k->len, from.base, n);
        k->len += (uint32_t)n;
        from.base += n;
        from.len -= n;
        if (from.len) c->tail = k->next;
    }
}

int cb_chain_addv(cb_chain *c, const cb_slice *v, size_t n) {
    cb_chunk *fresh = NULL;
    size_t len = 0;
    for (size_t i = 0; i < n; i++)
        len += v[i].len;
    if (!len) return CB_OK;
    int rc = make_room(c, len, &fresh);
    if (rc < 0) return rc;
    if (!c->tail) {
        c->head = c->tail = c->cursor = fresh;
    } else {
        c->tail->next = fresh;
    }
    c->len += len;
    for (size_t i = 0; i < n; i++)
        fill(c, v[i]);
    return CB_OK;
}

int cb_chain_add(cb_chain *c, const void *data, size_t len) {
    return cb_chain_addv(c, &(cb_slice){data, len}, 1);
}

size_t cb_chain_peek(const cb_chain *c, cb_slice *out, size_t n) {
    size_t count = 0;
    size_t off = c->cursor_off;
    for (const cb_chunk *k = c->cursor; k && count < n; k = k->next, off = 0)
        if (k->len > off) out[count++] = (cb_slice){k->data + off, k->len - off};
    return count;
}

void cb_chain_take(cb_chain *c, size_t bytes) {
    if (bytes > cb_chain_ready(c)) bytes = cb_chain_ready(c);
    c->taken += bytes;
    while (bytes) {
        size_t here = c->cursor->len - c->cursor_off;
        if (bytes <= here) {
            c->cursor_off += bytes;
            return;
        }
        bytes -= here;
        c->cursor = c->cursor->next;
        c->cursor_off = 0;
    }
}

static void drop_head(cb_chain *c) {
    cb_chunk *k = c->head;
    c->head = k->next;
    if (c->cursor == k) {
        c->cursor = k->next;
        c->cursor_off = 0;
    }
    if (c->tail == k) c->tail = NULL;
    c->head_off = 0;
    free_chunk(c->alloc, k);
}

/* Everything has been released: start again at the front of a small last chunk. */
static void settle_empty(cb_chain *c) {
    while (c->head && c->head != c->tail)
        drop_head(c);
    if (!c->head) return;
    if (c->head->cap + CHUNK_HEAD > CHUNK_KEEP) {
        drop_head(c);
        return;
    }
    c->head->len = 0;
    c->head_off = 0;
    c->cursor = c->head;
    c->cursor_off = 0;
}

void cb_chain_drop(cb_chain *c, size_t bytes) {
    if (bytes > c->len) bytes = c->len;
    if (bytes > c->taken) cb_chain_take(c, bytes - c->taken);
    c->len -= bytes;
    c->taken -= bytes;
    if (!c->len) {
        settle_empty(c);
        return;
    }
    while (bytes) {
        size_t here = c->head->len - c->head_off;
        if (bytes < here) {
            c->head_off += bytes;
            return;
        }
        bytes -= here;
        drop_head(c);
    }
}
