#include "base/blocks.h"
#include "base/mem.h"
#include <stdbool.h>

/* The address sanitizer must see each use after free, so it gets no stock. */
#if defined(__SANITIZE_ADDRESS__)
#define NO_STOCK 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define NO_STOCK 1
#endif
#endif

static bool has_room(const cb_blocks *b) {
#ifdef NO_STOCK
    (void)b;
    return false;
#else
    return b->len < 128; /* 2 MiB a loop */
#endif
}

static void *pass_through(void *ptr, size_t size, void *user) {
    cb_blocks *b = user;
    return b->under.realloc(ptr, size, b->under.user);
}

static cb_blocks *stock_of(const cb_alloc *a) {
    return a && a->realloc == pass_through ? a->user : NULL;
}

void cb_blocks_init(cb_blocks *b, const cb_alloc *under) {
    b->alloc = (cb_alloc){pass_through, b};
    b->under = *under;
    b->spare = NULL;
    b->len = 0;
}

void cb_blocks_free(cb_blocks *b) {
    while (b->spare) {
        void *block = b->spare;
        b->spare = *(void **)block;
        cb_mem_free(&b->under, block);
    }
    b->len = 0;
}

void *cb_block_get(const cb_alloc *a) {
    cb_blocks *b = stock_of(a);
    if (!b || !b->spare) return cb_mem_get(a, CB_BLOCK);
    void *block = b->spare;
    b->spare = *(void **)block;
    b->len--;
    return block;
}

void cb_block_put(const cb_alloc *a, void *block) {
    cb_blocks *b = stock_of(a);
    if (!b || !has_room(b)) {
        cb_mem_free(a, block);
        return;
    }
    *(void **)block = b->spare;
    b->spare = block;
    b->len++;
}
