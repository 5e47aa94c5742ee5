/* Spare blocks of 16 KiB. Queues take and give these all the time; through malloc(), a queue that fills and empties
 * lets the C library trim the heap and fault it in again, which costs more than the encryption of what was queued
 * (measured: TLS at 11 instead of 20 Gbit for a second of CPU). */
#ifndef CB_BASE_BLOCKS_H
#define CB_BASE_BLOCKS_H

#include <cb/base.h>

#define CB_BLOCK 16384

typedef struct cb_blocks {
    cb_alloc alloc; /* an allocator that knows this stock; what is no block passes through to `under` */
    cb_alloc under;
    void *spare; /* a list through the blocks' first word */
    size_t len;
} cb_blocks;

/* The struct must stay where it is: its `alloc` points to it. */
void cb_blocks_init(cb_blocks *b, const cb_alloc *under);
void cb_blocks_free(cb_blocks *b); /* gives the spare blocks back */

/* Memory of CB_BLOCK bytes: from the stock behind `a` if there is one, else from `a` itself. Put with the same `a`. */
void *cb_block_get(const cb_alloc *a);
void cb_block_put(const cb_alloc *a, void *block);

#endif
