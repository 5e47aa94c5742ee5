#include "base/blocks.h"
#include "base/mem.h"
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

enum { PAGE = 4096, SLAB_BLOCKS = 64, SMALL_BYTES = 512 << 10 /* spare small pieces a loop at most */ };

/* The address sanitizer must see each use after free, so it gets no stock. */
#if defined(__SANITIZE_ADDRESS__)
#define NO_STOCK 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define NO_STOCK 1
#endif
#endif

static bool has_room(size_t len, size_t size) {
#ifdef NO_STOCK
    (void)len, (void)size;
    return false;
#else
    return len < 128 || len * size < (size_t)512 << 10; /* of each size: 5 MiB a loop at most */
#endif
}

static size_t index_of(size_t size) {
    size_t i = 0;
    while (i < CB_BLOCK_SIZES - 1 && (size_t)CB_BLOCK_MIN << i < size)
        i++;
    return i;
}

static void *pass_through(void *ptr, size_t size, void *user) {
    cb_blocks *b = user;
    return b->under.realloc(ptr, size, b->under.user);
}

static cb_blocks *stock_of(const cb_alloc *a) {
    return a && a->realloc == pass_through ? a->user : NULL;
}

bool cb_alloc_is_libc(const cb_alloc *a) {
    const cb_blocks *b = stock_of(a);
    if (b) a = &b->under;
    return !a || a->realloc == cb_alloc_libc.realloc;
}

void cb_blocks_init(cb_blocks *b, const cb_alloc *under) {
    b->alloc = (cb_alloc){pass_through, b};
    b->under = *under;
    for (size_t i = 0; i < CB_BLOCK_SIZES; i++) {
        b->sizes[i].spare = NULL;
        b->sizes[i].len = 0;
    }
    b->sparse.spare = b->sparse.slabs = NULL;
    b->sparse.n_fresh = 0;
    memset(&b->small, 0, sizeof b->small);
}

static void *pop(void **list) {
    void *block = *list;
    *list = *(void **)block;
    return block;
}

void cb_blocks_free(cb_blocks *b) {
    for (size_t i = 0; i < CB_BLOCK_SIZES; i++) {
        while (b->sizes[i].spare) {
            cb_mem_free(&b->under, pop(&b->sizes[i].spare));
        }
        b->sizes[i].len = 0;
    }
    for (size_t i = 0; i < CB_SMALL_SIZES; i++) {
        while (b->small.spare[i]) {
            free(pop(&b->small.spare[i]));
        }
    }
    b->small.bytes = 0;
    while (b->sparse.slabs) {
        cb_mem_free(&b->under, pop(&b->sparse.slabs));
    }
    b->sparse.spare = NULL;
    b->sparse.n_fresh = 0;
}

void *cb_block_get(const cb_alloc *a, size_t size) {
    cb_blocks *b = stock_of(a);
    size_t i = index_of(size);
    if (!b || !b->sizes[i].spare) return cb_mem_get(a, size);
    b->sizes[i].len--;
    return pop(&b->sizes[i].spare);
}

void cb_block_put(const cb_alloc *a, void *block, size_t size) {
    cb_blocks *b = stock_of(a);
    size_t i = index_of(size);
    if (!b || !has_room(b->sizes[i].len, size)) {
        cb_mem_free(a, block);
        return;
    }
    *(void **)block = b->sizes[i].spare;
    b->sizes[i].spare = block;
    b->sizes[i].len++;
}

static bool add_slab(cb_blocks *b) {
    uint8_t *slab = cb_mem_get(&b->under, (size_t)SLAB_BLOCKS * CB_SPARSE + 2 * PAGE);
    if (!slab) return false;
    *(void **)(void *)slab = b->sparse.slabs;
    b->sparse.slabs = slab;
    uintptr_t past_link = (uintptr_t)slab + sizeof(void *);
    b->sparse.fresh = slab + ((past_link + PAGE - 1) / PAGE * PAGE - (uintptr_t)slab);
    b->sparse.n_fresh = SLAB_BLOCKS;
    return true;
}

void *cb_sparse_get(const cb_alloc *a) {
    cb_blocks *b = stock_of(a);
    if (!b || !has_room(0, CB_SPARSE)) return cb_mem_get(a, CB_SPARSE);
    if (b->sparse.spare) return pop(&b->sparse.spare);
    if (!b->sparse.n_fresh && !add_slab(b)) return NULL;
    void *block = b->sparse.fresh;
    b->sparse.fresh += CB_SPARSE;
    b->sparse.n_fresh--;
    return block;
}

void cb_sparse_put(const cb_alloc *a, void *block) {
    cb_blocks *b = stock_of(a);
    if (!b || !has_room(0, CB_SPARSE)) {
        cb_mem_free(a, block);
        return;
    }
    *(void **)block = b->sparse.spare;
    b->sparse.spare = block;
}

/* --- small pieces --- */

/* A piece of class i has at least 16 * i + 8 usable bytes, which is what malloc() rounds up to. */
static size_t class_bytes(size_t i) {
    return 16 * i + 8;
}

void *cb_small_get(const cb_alloc *a, size_t size) {
    cb_blocks *b = stock_of(a);
    if (!b || size > CB_SMALL_MAX) return malloc(size);
    size_t i = (size + 7) / 16;
    if (!b->small.spare[i]) return malloc(class_bytes(i));
    b->small.bytes -= class_bytes(i);
    return pop(&b->small.spare[i]);
}

void *cb_small_new(const cb_alloc *a, size_t size) {
    void *p = cb_small_get(a, size);
    return p ? memset(p, 0, size) : NULL;
}

void *cb_small_grow(const cb_alloc *a, void *p, size_t size) {
    return p ? realloc(p, size) : cb_small_get(a, size);
}

void cb_small_put(const cb_alloc *a, void *p) {
    cb_blocks *b = stock_of(a);
    size_t usable = p ? malloc_usable_size(p) : 0;
    if (!b || !has_room(0, 0) || usable < class_bytes(1) || usable > CB_SMALL_MAX ||
        b->small.bytes + usable > SMALL_BYTES) {
        free(p);
        return;
    }
    size_t i = (usable - 8) / 16;
    *(void **)p = b->small.spare[i];
    b->small.spare[i] = p;
    b->small.bytes += class_bytes(i);
}
