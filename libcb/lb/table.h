/* The forwarding table from inside. */
#ifndef CB_LB_TABLE_H
#define CB_LB_TABLE_H

#include "lb/log.h"
#include <cb/lb.h>
#include <stdatomic.h>
#include <stdbool.h>

enum { CB_LB_NONE = 0xffff };

typedef struct cb_lb_seat { /* of a member; free when id is 0 */
    uint32_t id;
    uint16_t weight;
    uint8_t state;
    uint32_t first, coming, leaving; /* buckets, as in cb_lb_member_stats */
    uint32_t going;                  /* of the first: announced for another */
} cb_lb_seat;

/* What a word of a bucket says. */
typedef struct cb_lb_place {
    uint16_t first, second; /* slots or CB_LB_NONE */
    bool announced;
    uint32_t version; /* of the latest change */
} cb_lb_place;

struct cb_lb_table {
    cb_alloc alloc;
    uint8_t key[CB_LB_KEY_BYTES];
    uint64_t version, chain, content, seed;
    uint32_t epoch, buckets, members, announced, moved, unowned;
    uint32_t seats_used;                     /* no seat from here on was ever taken */
    _Atomic uint64_t *words;                 /* of all buckets; NULL while empty */
    _Atomic uint32_t ids[CB_LB_MEMBERS_MAX]; /* of seats, for those who look up */
    cb_lb_seat seats[CB_LB_MEMBERS_MAX];
    uint32_t *draft; /* owners by Maglev, between check and do */
};

static inline cb_lb_place cb_lb_place_of(uint64_t word) {
    return (cb_lb_place){.first = (uint16_t)word,
                         .second = (uint16_t)(word >> 16),
                         .announced = word >> 63,
                         .version = (uint32_t)(word >> 32) & INT32_MAX};
}

static inline uint64_t cb_lb_word_of(cb_lb_place p) {
    return (uint64_t)p.first | (uint64_t)p.second << 16 | (uint64_t)(p.version & INT32_MAX) << 32 |
           (uint64_t)p.announced << 63;
}

static inline cb_lb_place cb_lb_table_place(const cb_lb_table *t, uint32_t bucket) {
    return cb_lb_place_of(atomic_load_explicit(&t->words[bucket], memory_order_relaxed));
}

static inline int cb_lb_place_phase(cb_lb_place p) {
    return p.second == CB_LB_NONE ? CB_LB_STABLE : p.announced ? CB_LB_ANNOUNCED : CB_LB_MOVED;
}

/* Who has the bucket when what is announced has happened. */
static inline uint16_t cb_lb_place_final(cb_lb_place p) {
    return p.second != CB_LB_NONE && p.announced ? p.second : p.first;
}

int cb_lb_table_seat(const cb_lb_table *t, uint32_t id);               /* -1: no such member */
void cb_lb_table_put(cb_lb_table *t, uint32_t bucket, cb_lb_place to); /* keeps the counts */
void cb_lb_table_sit(cb_lb_table *t, uint16_t slot, uint32_t id, uint16_t weight, uint8_t state); /* id 0: frees it */
void cb_lb_table_begin(cb_lb_table *t, uint32_t buckets); /* no seats and no counts; then for each bucket: */
void cb_lb_table_first(cb_lb_table *t, uint32_t bucket, cb_lb_place to);
/* May this record be applied now? Gets what memory it will need, so that cb_lb_table_do() cannot fail. */
int cb_lb_table_check(cb_lb_table *t, const cb_lb_record *r);
void cb_lb_table_do(cb_lb_table *t, const cb_lb_record *r);
/* Who may be given buckets: those that are up, or if there are none, those that drain. Gives their number; shares has
 * room for CB_LB_MEMBERS_MAX; the tag is the slot. */
size_t cb_lb_table_shares(const cb_lb_table *t, cb_lb_share *shares);
/* Is this a saved table of that epoch and version? Whether it is whole says cb_lb_table_load(). */
bool cb_lb_saved_is(cb_slice in, uint32_t buckets, uint32_t epoch, uint64_t version);

#endif
