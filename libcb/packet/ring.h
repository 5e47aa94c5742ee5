/* The four rings of an AF_XDP socket (Documentation/networking/af_xdp.rst): one side produces, the other consumes, one
 * of them is the kernel. Indices only grow and wrap at 2^32; a place is index & mask. The kernel's index is read with
 * acquire and ours is written with release, so that what lies between them is seen. */
#ifndef CB_PACKET_RING_H
#define CB_PACKET_RING_H

#include <linux/if_xdp.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct xsk_ring {
    _Atomic uint32_t *producer, *consumer, *flags;
    void *desc;          /* uint64_t in fill and completion, struct xdp_desc in rx and tx */
    uint32_t size, mask; /* size: a power of two */
    uint32_t mine;       /* our index, perhaps not published yet */
    uint32_t theirs;     /* the kernel's, as it was last read */
} xsk_ring;

static inline uint64_t *xsk_ring_addr(const xsk_ring *r, uint32_t index) {
    return (uint64_t *)r->desc + (index & r->mask);
}

static inline struct xdp_desc *xsk_ring_desc(const xsk_ring *r, uint32_t index) {
    return (struct xdp_desc *)r->desc + (index & r->mask);
}

/* For what we produce (fill, tx): how many places are free, at least `want` if there are so many. What the kernel
 * claims is bounded: there are never more than `size`. */
static inline uint32_t xsk_ring_room(xsk_ring *r, uint32_t want) {
    uint32_t used = r->mine - r->theirs;
    if (r->size - used < want) {
        r->theirs = atomic_load_explicit(r->consumer, memory_order_acquire);
        used = r->mine - r->theirs;
        if (used > r->size) used = r->size;
    }
    return r->size - used;
}

static inline void xsk_ring_publish(xsk_ring *r) {
    atomic_store_explicit(r->producer, r->mine, memory_order_release);
}

/* For what we consume (rx, completion): how many wait. */
static inline uint32_t xsk_ring_waiting(xsk_ring *r) {
    if (r->theirs == r->mine) r->theirs = atomic_load_explicit(r->producer, memory_order_acquire);
    const uint32_t n = r->theirs - r->mine;
    return n < r->size ? n : r->size;
}

static inline void xsk_ring_consumed(xsk_ring *r) {
    atomic_store_explicit(r->consumer, r->mine, memory_order_release);
}

/* Produced by us, and not consumed yet. */
static inline uint32_t xsk_ring_pending(xsk_ring *r) {
    r->theirs = atomic_load_explicit(r->consumer, memory_order_acquire);
    return r->mine - r->theirs;
}

static inline bool xsk_ring_needs_wakeup(const xsk_ring *r) {
    return atomic_load_explicit(r->flags, memory_order_relaxed) & XDP_RING_NEED_WAKEUP;
}

#endif
