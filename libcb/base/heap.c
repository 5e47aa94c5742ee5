#include "base/heap.h"
#include "base/error.h"
#include "base/mem.h"

void cb_heap_init(cb_heap *h, const cb_alloc *alloc) {
    *h = (cb_heap){.alloc = alloc};
}

void cb_heap_free(cb_heap *h) {
    for (size_t i = 0; i < h->len; i++)
        h->at[i]->pos = 0;
    cb_mem_free(h->alloc, h->at);
    cb_heap_init(h, h->alloc);
}

static void place(cb_heap *h, size_t i, cb_heap_node *n) {
    h->at[i] = n;
    n->pos = i + 1;
}

static void sift_up(cb_heap *h, size_t i, cb_heap_node *n) {
    while (i) {
        size_t parent = (i - 1) / 2;
        if (h->at[parent]->key <= n->key) break;
        place(h, i, h->at[parent]);
        i = parent;
    }
    place(h, i, n);
}

static void sift_down(cb_heap *h, size_t i, cb_heap_node *n) {
    for (;;) {
        size_t child = i * 2 + 1;
        if (child >= h->len) break;
        if (child + 1 < h->len && h->at[child + 1]->key < h->at[child]->key) child++;
        if (h->at[child]->key >= n->key) break;
        place(h, i, h->at[child]);
        i = child;
    }
    place(h, i, n);
}

static void settle(cb_heap *h, size_t i, cb_heap_node *n) {
    if (i && h->at[(i - 1) / 2]->key > n->key) {
        sift_up(h, i, n);
    } else {
        sift_down(h, i, n);
    }
}

int cb_heap_set(cb_heap *h, cb_heap_node *n, uint64_t key) {
    if (!n->pos) {
        if (h->len == h->cap) {
            size_t cap = h->cap ? h->cap * 2 : 16;
            cb_heap_node **at = cb_mem_grow(h->alloc, h->at, cap * sizeof *at);
            if (!at) return cb_fail(CB_ENOMEM, "no memory for %zu deadlines", cap);
            h->at = at;
            h->cap = cap;
        }
        n->key = key;
        sift_up(h, h->len++, n);
        return CB_OK;
    }
    n->key = key;
    settle(h, n->pos - 1, n);
    return CB_OK;
}

void cb_heap_del(cb_heap *h, cb_heap_node *n) {
    if (!n->pos) return;
    size_t i = n->pos - 1;
    n->pos = 0;
    cb_heap_node *last = h->at[--h->len];
    if (last != n) settle(h, i, last);
}
