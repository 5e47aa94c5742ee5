/* Records of the log: their bytes.
 *
 *   kind 1  format 1  zero 2  epoch 4  version 8  chain before 8  |  what it says  |  chain 8
 *
 * Little-endian throughout. The chain is SipHash-2-4 by the table's key of all bytes before it. */
#ifndef CB_LB_LOG_H
#define CB_LB_LOG_H

#include "lb/maglev.h"
#include <cb/lb.h>

enum cb_lb_kind {
    CB_LB_GENESIS = 1,  /* buckets 4, seed 8: an empty table */
    CB_LB_MEMBER = 2,   /* id 4, slot 2, weight 2, state 1, zero 3: a new one, or a change of one */
    CB_LB_REMOVE = 3,   /* id 4: has no bucket any more */
    CB_LB_SEED = 4,     /* nothing: nobody has a bucket; Maglev gives all */
    CB_LB_ANNOUNCE = 5, /* n times bucket 4, slot 2: the slot becomes second of a stable bucket, and is to be first */
    CB_LB_COMMIT = 6,   /* nothing: in all announced buckets first and second change places */
    CB_LB_TAKE = 7,     /* n times bucket 4, slot 2: the slot becomes first at once; who had moved away stays second */
    CB_LB_SETTLE = 8,   /* n times bucket 4: nobody is second any more */
    CB_LB_WRITER = 9    /* nothing: another writer goes on (its epoch is larger) */
};

enum { CB_LB_HEAD = 24, CB_LB_CHAIN = 8, CB_LB_MOVE = 6, CB_LB_FORMAT = 1 };

/* A record as it was read; body points into its bytes. */
typedef struct cb_lb_record {
    int kind;
    uint32_t epoch;
    uint64_t version, before, chain;
    cb_slice body;
} cb_lb_record;

typedef struct cb_lb_move {
    uint32_t bucket;
    uint16_t slot;
} cb_lb_move;

static inline void cb_lb_put(uint8_t *to, uint64_t x, unsigned bytes) {
    for (unsigned i = 0; i < bytes; i++)
        to[i] = (uint8_t)(x >> (8 * i));
}

static inline uint64_t cb_lb_get(const uint8_t *from, unsigned bytes) {
    uint64_t x = 0;
    for (unsigned i = 0; i < bytes; i++)
        x |= (uint64_t)from[i] << (8 * i);
    return x;
}

static inline cb_lb_move cb_lb_move_at(cb_slice body, size_t i) {
    const uint8_t *p = body.base + i * CB_LB_MOVE;
    return (cb_lb_move){(uint32_t)cb_lb_get(p, 4), (uint16_t)cb_lb_get(p + 4, 2)};
}

/* Reads the frame, and nothing of what it says. CB_EPROTO. */
int cb_lb_record_read(cb_lb_record *r, cb_slice bytes, const uint8_t *key);
/* Writes the frame around a body that begins at CB_LB_HEAD; sets the chain. The length of all. */
size_t cb_lb_record_write(uint8_t *bytes, cb_lb_record *r, size_t body, const uint8_t *key);

#endif
