/* Intrusive min-heap of 64-bit keys: the position lies in the node, so removal is O(log n). */
#ifndef CB_BASE_HEAP_H
#define CB_BASE_HEAP_H

#include <cb/base.h>

typedef struct cb_heap_node {
    uint64_t key;
    size_t pos; /* 1-based position; 0 = not in a heap */
} cb_heap_node;

typedef struct cb_heap {
    cb_heap_node **at;
    size_t len, cap;
    const cb_alloc *alloc;
} cb_heap;

void cb_heap_init(cb_heap *h, const cb_alloc *alloc);
void cb_heap_free(cb_heap *h);
int cb_heap_set(cb_heap *h, cb_heap_node *n, uint64_t key); /* inserts or moves; CB_ENOMEM on insert */
void cb_heap_del(cb_heap *h, cb_heap_node *n);              /* not in the heap: nothing */
static inline cb_heap_node *cb_heap_min(const cb_heap *h) {
    return h->len ? h->at[0] : NULL;
}

#endif
