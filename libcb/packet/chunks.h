/* Who has which chunk of the memory that an AF_XDP socket shares with the kernel. */
#ifndef CB_PACKET_CHUNKS_H
#define CB_PACKET_CHUNKS_H

#include "base/mem.h"
#include <stdbool.h>

enum chunk_owner { CHUNK_FREE, CHUNK_KERNEL, CHUNK_USER };

typedef struct cb_chunks {
    uint32_t *stack; /* the free ones; the last in is the next out: it is warm */
    uint8_t *owner;
    uint32_t total, free, user;
} cb_chunks;

int cb_chunks_init(cb_chunks *c, const cb_alloc *a, uint32_t total); /* all free; CB_ENOMEM */
void cb_chunks_clear(cb_chunks *c, const cb_alloc *a);
/* One of the free ones for `to`; UINT32_MAX: there is none. */
uint32_t cb_chunks_take(cb_chunks *c, enum chunk_owner to);
/* Changes hands. False: `from` does not have it (or there is no such chunk), and nothing happened. */
bool cb_chunks_pass(cb_chunks *c, uint32_t chunk, enum chunk_owner from, enum chunk_owner to);

#endif
