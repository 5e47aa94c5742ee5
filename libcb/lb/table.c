/* The table: its words, its counts, and who looks up. */
#include "lb/table.h"
#include "base/error.h"
#include "base/mem.h"
#include "base/opts.h"
#include "base/siphash.h"
#include "lb/mix.h"
#include <string.h>

uint64_t cb_lb_hash(const uint8_t *key, const void *data, size_t len) {
    return cb_siphash(key, data, len);
}

uint32_t cb_lb_bucket(uint64_t hash, uint32_t buckets) {
    return (uint32_t)((hash >> 32) * buckets >> 32);
}

int cb_lb_table_new(cb_lb_table **out, const cb_lb_table_opts *opts) {
    cb_lb_table_opts o;
    if (!out) return cb_fail(CB_EINVAL, "cb_lb_table_new: out is NULL");
    int rc = cb_opts_read(&o, sizeof o, opts, "cb_lb_table_opts");
    if (rc < 0) return rc;
    const cb_alloc *a = o.alloc ? o.alloc : &cb_alloc_libc;
    cb_lb_table *t = cb_mem_new(a, sizeof *t);
    if (!t) return cb_fail(CB_ENOMEM, "no memory for a forwarding table");
    t->alloc = *a;
    if (o.key) memcpy(t->key, o.key, sizeof t->key);
    *out = t;
    return CB_OK;
}

void cb_lb_table_free(cb_lb_table *t) {
    if (!t) return;
    const cb_alloc a = t->alloc;
    cb_mem_free(&a, (void *)t->words);
    cb_mem_free(&a, t->draft);
    cb_mem_wipe(t->key, sizeof t->key);
    cb_mem_free(&a, t);
}

/* ---- changes ---- */

static uint32_t id_of(const cb_lb_table *t, uint16_t slot) {
    return slot == CB_LB_NONE ? 0 : t->seats[slot].id;
}

static uint64_t worth(const cb_lb_table *t, uint32_t bucket, cb_lb_place p) {
    const uint64_t owners = (uint64_t)id_of(t, p.first) << 32 | id_of(t, p.second);
    return cb_lb_mix(cb_lb_mix((uint64_t)bucket + 1) + cb_lb_mix(owners) + p.announced);
}

static void count(cb_lb_table *t, cb_lb_place p, uint32_t by) { /* by: 1, or -1 as it wraps */
    const int phase = cb_lb_place_phase(p);
    if (p.first == CB_LB_NONE)
        t->unowned += by;
    else
        t->seats[p.first].first += by;
    if (phase == CB_LB_ANNOUNCED) {
        t->announced += by;
        t->seats[p.first].going += by;
        t->seats[p.second].coming += by;
    } else if (phase == CB_LB_MOVED) {
        t->moved += by;
        t->seats[p.second].leaving += by;
    }
}

void cb_lb_table_put(cb_lb_table *t, uint32_t bucket, cb_lb_place to) {
    const cb_lb_place from = cb_lb_table_place(t, bucket);
    if (to.second == CB_LB_NONE) to.announced = false;
    count(t, from, UINT32_MAX);
    count(t, to, 1);
    t->content += worth(t, bucket, to) - worth(t, bucket, from);
    atomic_store_explicit(&t->words[bucket], cb_lb_word_of(to), memory_order_release);
}

void cb_lb_table_begin(cb_lb_table *t, uint32_t buckets) {
    for (uint32_t i = 0; i < t->seats_used; i++)
        t->seats[i] = (cb_lb_seat){0};
    t->seats_used = t->members = t->announced = t->moved = t->unowned = 0;
    t->content = cb_lb_mix(buckets);
    t->buckets = buckets;
}

void cb_lb_table_first(cb_lb_table *t, uint32_t bucket, cb_lb_place to) {
    count(t, to, 1);
    t->content += worth(t, bucket, to);
    atomic_store_explicit(&t->words[bucket], cb_lb_word_of(to), memory_order_release);
}

static uint64_t seat_worth(const cb_lb_seat *s) {
    return cb_lb_mix(cb_lb_mix(~(uint64_t)s->id) + ((uint64_t)s->weight << 8 | s->state));
}

void cb_lb_table_sit(cb_lb_table *t, uint16_t slot, uint32_t id, uint16_t weight, uint8_t state) {
    cb_lb_seat *s = &t->seats[slot];
    if (s->id) t->content -= seat_worth(s);
    t->members += (id != 0) - (uint32_t)(s->id != 0);
    s->id = id;
    s->weight = weight;
    s->state = state;
    if (id) t->content += seat_worth(s);
    if (slot >= t->seats_used) t->seats_used = slot + 1U;
    atomic_store_explicit(&t->ids[slot], id, memory_order_relaxed);
}

int cb_lb_table_seat(const cb_lb_table *t, uint32_t id) {
    for (uint32_t i = 0; i < t->seats_used; i++)
        if (t->seats[i].id == id) return (int)i;
    return -1;
}

static size_t shares_of(const cb_lb_table *t, cb_lb_share *shares, int state) {
    size_t n = 0;
    for (uint32_t i = 0; i < t->seats_used; i++) {
        const cb_lb_seat *s = &t->seats[i];
        if (!s->id || s->state != state || !s->weight) continue;
        shares[n++] = (cb_lb_share){.id = s->id, .weight = s->weight, .tag = i};
    }
    return n;
}

size_t cb_lb_table_shares(const cb_lb_table *t, cb_lb_share *shares) {
    const size_t n = shares_of(t, shares, CB_LB_UP);
    return n ? n : shares_of(t, shares, CB_LB_DRAINING);
}

/* ---- looking up: threads beside the one that changes it ---- */

static uint32_t who(const cb_lb_table *t, uint16_t slot) {
    return slot == CB_LB_NONE ? 0 : atomic_load_explicit(&t->ids[slot], memory_order_relaxed);
}

static void look(const cb_lb_table *t, uint32_t bucket, cb_lb_owner *out) {
    const cb_lb_place p = cb_lb_place_of(atomic_load_explicit(&t->words[bucket], memory_order_acquire));
    *out = (cb_lb_owner){
        .bucket = bucket, .first = who(t, p.first), .second = who(t, p.second), .phase = cb_lb_place_phase(p)};
}

int cb_lb_table_lookup(const cb_lb_table *t, uint64_t hash, cb_lb_owner *out) {
    if (!t->buckets) return CB_ENOENT;
    look(t, cb_lb_bucket(hash, t->buckets), out);
    return out->first ? CB_OK : CB_ENOENT;
}

int cb_lb_table_bucket(const cb_lb_table *t, uint32_t bucket, cb_lb_owner *out) {
    if (!out || bucket >= t->buckets)
        return cb_fail(CB_EINVAL, "there is no bucket %u in a table of %u", (unsigned)bucket, (unsigned)t->buckets);
    look(t, bucket, out);
    return CB_OK;
}

const uint64_t *cb_lb_table_words(const cb_lb_table *t, size_t *n) {
    _Static_assert(sizeof(_Atomic uint64_t) == sizeof(uint64_t), "one word");
    if (n) *n = t->buckets;
    return t->buckets ? (const uint64_t *)(const void *)t->words : NULL;
}

int cb_lb_table_member(const cb_lb_table *t, size_t i, cb_lb_member_stats *out) {
    for (uint32_t slot = 0; slot < t->seats_used; slot++) {
        const cb_lb_seat *s = &t->seats[slot];
        if (!s->id || i--) continue;
        const cb_lb_member_stats all = {.id = s->id,
                                        .weight = s->weight,
                                        .state = s->state,
                                        .slot = slot,
                                        .first = s->first,
                                        .coming = s->coming,
                                        .leaving = s->leaving};
        return cb_stats_give(out, &all, sizeof all, "cb_lb_member_stats");
    }
    return CB_ENOENT;
}

int cb_lb_table_stats_get(const cb_lb_table *t, cb_lb_table_stats *out) {
    const cb_lb_table_stats all = {.version = t->version,
                                   .chain = t->chain,
                                   .content = t->content,
                                   .epoch = t->epoch,
                                   .buckets = t->buckets,
                                   .members = t->members,
                                   .announced = t->announced,
                                   .moved = t->moved,
                                   .unowned = t->unowned};
    return cb_stats_give(out, &all, sizeof all, "cb_lb_table_stats");
}
