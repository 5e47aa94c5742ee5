/* A FIFO of bytes in chunks that do not move: append at the tail, hand out from a cursor, drop at the
 * head. Between cursor and head lie bytes that were handed out and are not yet released (QUIC: sent,
 * not acknowledged). Appending small pieces fills the last chunk; chunks start small and grow to 16 KiB,
 * so a short message costs little and a long one few allocations. */
#ifndef CB_BASE_CHAIN_H
#define CB_BASE_CHAIN_H

#include <cb/base.h>

typedef struct cb_chunk cb_chunk;

typedef struct cb_chain {
    cb_chunk *head, *tail, *cursor;
    size_t len;        /* bytes held in all */
    size_t taken;      /* of these, before the cursor */
    size_t head_off;   /* dropped bytes in head */
    size_t cursor_off; /* bytes of the cursor's chunk before the cursor */
    const cb_alloc *alloc;
} cb_chain;

void cb_chain_init(cb_chain *c, const cb_alloc *alloc);
void cb_chain_free(cb_chain *c);                             /* everything goes; still usable */
int cb_chain_add(cb_chain *c, const void *data, size_t len); /* all or nothing: CB_ENOMEM */
/* The same for several: what does not fit the last chunk goes into one, as far as a chunk reaches. */
int cb_chain_addv(cb_chain *c, const cb_slice *v, size_t n);
/* Up to n slices from the cursor on; returns how many. Does not move the cursor. */
size_t cb_chain_peek(const cb_chain *c, cb_slice *out, size_t n);
void cb_chain_take(cb_chain *c, size_t bytes); /* moves the cursor; bytes <= len - taken */
void cb_chain_drop(cb_chain *c, size_t bytes); /* releases from the head; moves the cursor if needed */
static inline size_t cb_chain_ready(const cb_chain *c) {
    return c->len - c->taken;
}

#endif
