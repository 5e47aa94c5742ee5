/* Spare blocks of 16 KiB, and of the small sizes that short messages need. Queues take and give these all the time;
 * through malloc(), a queue that fills and empties lets the C library trim the heap and fault it in again, which costs
 * more than the encryption of what was queued (measured: TLS at 11 instead of 20 Gbit for a second of CPU). */
#ifndef CB_BASE_BLOCKS_H
#define CB_BASE_BLOCKS_H

#include <cb/base.h>
#include <stdbool.h>
#include <stdint.h>

#define CB_BLOCK 16384
enum { CB_BLOCK_MIN = 512, CB_BLOCK_SIZES = 6 };   /* 512, 1024, ... CB_BLOCK */
#define CB_SPARSE 20480                            /* whole pages */
enum { CB_SMALL_MAX = 1032, CB_SMALL_SIZES = 65 }; /* the usable sizes of malloc(): 24, 40, ... CB_SMALL_MAX */

typedef struct cb_blocks {
    cb_alloc alloc; /* an allocator that knows this stock; what is no block passes through to `under` */
    cb_alloc under;
    struct {
        void *spare; /* a list through the blocks' first word */
        size_t len;
    } sizes[CB_BLOCK_SIZES];
    struct {
        void *spare;    /* as above */
        void *slabs;    /* a list through their first word */
        uint8_t *fresh; /* blocks that nobody has had yet */
        size_t n_fresh;
    } sparse;
    struct {
        void *spare[CB_SMALL_SIZES]; /* as above */
        size_t bytes;
    } small;
} cb_blocks;

/* The struct must stay where it is: its `alloc` points to it. */
void cb_blocks_init(cb_blocks *b, const cb_alloc *under);
void cb_blocks_free(cb_blocks *b); /* gives the spare blocks back */

/* Memory of `size` bytes, a power of two from CB_BLOCK_MIN to CB_BLOCK: from the stock behind `a` if there is one, else
 * from `a` itself. Put with the same `a` and size. */
void *cb_block_get(const cb_alloc *a, size_t size);
void cb_block_put(const cb_alloc *a, void *block, size_t size);

/* Memory of up to CB_SPARSE bytes for somebody who will rarely touch more than its beginning: it lies on pages of its
 * own, and those that are never touched cost nothing. From malloc() it would be cut out of pages in use. The stock
 * keeps what it has; the allocator behind it serves in large pieces. Put with the same `a`. */
void *cb_sparse_get(const cb_alloc *a);
void cb_sparse_put(const cb_alloc *a, void *block);

/* For libraries that take and give small pieces with each request: malloc(), calloc(), realloc() and free() with spare
 * pieces before them. To be used with an allocator of which cb_alloc_is_libc() says yes. */
void *cb_small_get(const cb_alloc *a, size_t size);
void *cb_small_new(const cb_alloc *a, size_t size); /* zeroed */
void *cb_small_grow(const cb_alloc *a, void *p, size_t size);
void cb_small_put(const cb_alloc *a, void *p); /* NULL is fine */

/* Is it malloc() in the end, perhaps with a stock before it? Libraries that allocate much may then call it directly. */
bool cb_alloc_is_libc(const cb_alloc *a);

#endif
