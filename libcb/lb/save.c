/* A whole table as bytes:
 *
 *   "cblb"  format 4  buckets 4  epoch 4  version 8  chain 8  seed 8  members 4  |
 *   members times: id 4, slot 2, weight 2, state 1, zero 3  |  buckets times: word 8  |  SipHash of all before, 8
 *
 * Little-endian; words as in cb_lb_table_words(). */
#include "base/error.h"
#include "base/mem.h"
#include "base/siphash.h"
#include "lb/table.h"
#include <string.h>

enum { HEAD = 44, SEAT = 12, WORD = 8, SUM = 8, FORMAT = 1 };

static const uint8_t magic[4] = {'c', 'b', 'l', 'b'};

static size_t size_of(uint32_t buckets, uint32_t members) {
    return HEAD + (size_t)members * SEAT + (size_t)buckets * WORD + SUM;
}

int cb_lb_table_save(const cb_lb_table *t, uint8_t **out, size_t *len) {
    if (!out || !len) return cb_fail(CB_EINVAL, "cb_lb_table_save: out or len is NULL");
    if (!t->buckets) return cb_fail(CB_ENOENT, "the table is empty");
    *len = size_of(t->buckets, t->members);
    uint8_t *p = *out = cb_mem_get(&cb_alloc_libc, *len);
    if (!p) return cb_fail(CB_ENOMEM, "no memory for a copy of a table (%zu bytes)", *len);
    memcpy(p, magic, sizeof magic);
    cb_lb_put(p + 4, FORMAT, 4);
    cb_lb_put(p + 8, t->buckets, 4);
    cb_lb_put(p + 12, t->epoch, 4);
    cb_lb_put(p + 16, t->version, 8);
    cb_lb_put(p + 24, t->chain, 8);
    cb_lb_put(p + 32, t->seed, 8);
    cb_lb_put(p + 40, t->members, 4);
    p += HEAD;
    for (uint32_t i = 0; i < t->seats_used; i++) {
        const cb_lb_seat *s = &t->seats[i];
        if (!s->id) continue;
        cb_lb_put(p, s->id, 4);
        cb_lb_put(p + 4, i, 2);
        cb_lb_put(p + 6, s->weight, 2);
        cb_lb_put(p + 8, s->state, 4);
        p += SEAT;
    }
    for (uint32_t b = 0; b < t->buckets; b++, p += WORD)
        cb_lb_put(p, cb_lb_word_of(cb_lb_table_place(t, b)), WORD);
    cb_lb_put(p, cb_siphash(t->key, *out, (size_t)(p - *out)), SUM);
    return CB_OK;
}

void cb_lb_table_saved_free(uint8_t *saved) {
    cb_mem_free(&cb_alloc_libc, saved);
}

/* ---- reading ---- */

typedef struct saved {
    uint32_t buckets, epoch, members;
    uint64_t version, chain, seed;
    const uint8_t *seats, *words;
} saved;

static int head_read(saved *s, const cb_lb_table *t, cb_slice in) {
    if (in.len < HEAD + SUM || memcmp(in.base, magic, sizeof magic) != 0 || cb_lb_get(in.base + 4, 4) != FORMAT)
        return cb_fail(CB_EPROTO, "this is not a saved table of libcb %s", cb_version_text());
    const uint8_t *p = in.base;
    *s = (saved){.buckets = (uint32_t)cb_lb_get(p + 8, 4),
                 .epoch = (uint32_t)cb_lb_get(p + 12, 4),
                 .version = cb_lb_get(p + 16, 8),
                 .chain = cb_lb_get(p + 24, 8),
                 .seed = cb_lb_get(p + 32, 8),
                 .members = (uint32_t)cb_lb_get(p + 40, 4),
                 .seats = p + HEAD};
    const bool fits = s->members <= CB_LB_MEMBERS_MAX && s->buckets <= CB_LB_BUCKETS_MAX &&
                      cb_lb_is_prime(s->buckets) && s->version <= INT32_MAX &&
                      in.len == size_of(s->buckets, s->members);
    if (!fits) return cb_fail(CB_EPROTO, "a saved table of %zu bytes is cut, or has impossible sizes", in.len);
    s->words = s->seats + (size_t)s->members * SEAT;
    if (cb_siphash(t->key, p, in.len - SUM) != cb_lb_get(p + in.len - SUM, SUM))
        return cb_fail(CB_EPROTO, "a saved table is damaged, or has another key");
    if (t->buckets && t->buckets != s->buckets)
        return cb_fail(CB_EPROTO, "a saved table has %u buckets, this one %u", (unsigned)s->buckets,
                       (unsigned)t->buckets);
    if (s->epoch < t->epoch || (s->epoch == t->epoch && s->version < t->version))
        return cb_fail(CB_EPERM, "a saved table is older (writer %u, version %llu) than this one (%u, %llu)",
                       (unsigned)s->epoch, (unsigned long long)s->version, (unsigned)t->epoch,
                       (unsigned long long)t->version);
    return CB_OK;
}

bool cb_lb_saved_is(cb_slice in, uint32_t buckets, uint32_t epoch, uint64_t version) {
    return in.len >= HEAD && cb_lb_get(in.base + 8, 4) == buckets && cb_lb_get(in.base + 12, 4) == epoch &&
           cb_lb_get(in.base + 16, 8) == version;
}

static uint16_t slot_at(const uint8_t *seat) {
    return (uint16_t)cb_lb_get(seat + 4, 2);
}

/* Sets taken[slot]. Members with one ID are found by the caller's order: slots rise. */
static int seats_check(const saved *s, uint8_t *taken) {
    for (uint32_t i = 0; i < s->members; i++) {
        const uint8_t *p = s->seats + (size_t)i * SEAT;
        const uint32_t id = (uint32_t)cb_lb_get(p, 4);
        const bool good = id && slot_at(p) < CB_LB_MEMBERS_MAX && cb_lb_get(p + 8, 4) <= CB_LB_DEAD &&
                          (!i || slot_at(p) > slot_at(p - SEAT));
        if (!good) return cb_fail(CB_EPROTO, "a saved table has a member that cannot be");
        for (uint32_t k = 0; k < i; k++)
            if (cb_lb_get(s->seats + (size_t)k * SEAT, 4) == id)
                return cb_fail(CB_EPROTO, "a saved table has two members %u", (unsigned)id);
        taken[slot_at(p)] = 1;
    }
    return CB_OK;
}

static int words_check(const saved *s, const uint8_t *taken) {
    uint32_t unowned = 0;
    for (uint32_t b = 0; b < s->buckets; b++) {
        const cb_lb_place p = cb_lb_place_of(cb_lb_get(s->words + (size_t)b * WORD, WORD));
        const bool owned = p.first != CB_LB_NONE, shared = p.second != CB_LB_NONE;
        const bool good =
            (!owned || (p.first < CB_LB_MEMBERS_MAX && taken[p.first])) &&
            (!shared || (owned && p.second != p.first && p.second < CB_LB_MEMBERS_MAX && taken[p.second])) &&
            (shared || !p.announced) && p.version <= s->version;
        if (!good) return cb_fail(CB_EPROTO, "a saved table has nobody for bucket %u", (unsigned)b);
        unowned += !owned;
    }
    if (unowned && unowned != s->buckets) return cb_fail(CB_EPROTO, "a saved table is seeded in part");
    return CB_OK;
}

/* In place: who looks up meanwhile finds old and new owners, but never none. */
static void take_over(cb_lb_table *t, const saved *s) {
    const uint32_t seats_before = t->seats_used;
    cb_lb_table_begin(t, s->buckets);
    for (uint32_t i = 0; i < s->members; i++) {
        const uint8_t *p = s->seats + (size_t)i * SEAT;
        cb_lb_table_sit(t, slot_at(p), (uint32_t)cb_lb_get(p, 4), (uint16_t)cb_lb_get(p + 6, 2), p[8]);
    }
    for (uint32_t b = 0; b < s->buckets; b++)
        cb_lb_table_first(t, b, cb_lb_place_of(cb_lb_get(s->words + (size_t)b * WORD, WORD)));
    for (uint32_t i = 0; i < seats_before; i++)
        if (!t->seats[i].id) atomic_store_explicit(&t->ids[i], 0, memory_order_relaxed);
    t->seed = s->seed;
    t->epoch = s->epoch;
    t->version = s->version;
    t->chain = s->chain;
}

int cb_lb_table_load(cb_lb_table *t, cb_slice in) {
    saved s = {0};
    int rc = head_read(&s, t, in);
    if (rc < 0) return rc;
    uint8_t *taken = cb_mem_new(&t->alloc, CB_LB_MEMBERS_MAX);
    rc = taken ? seats_check(&s, taken) : cb_fail(CB_ENOMEM, "no memory to load a table");
    if (rc == CB_OK) rc = words_check(&s, taken);
    cb_mem_free(&t->alloc, taken);
    if (rc < 0) return rc;
    if (!t->buckets) {
        cb_mem_free(&t->alloc, (void *)t->words);
        t->words = cb_mem_get(&t->alloc, (size_t)s.buckets * sizeof *t->words);
    }
    if (!t->words) return cb_fail(CB_ENOMEM, "no memory for %u buckets", (unsigned)s.buckets);
    take_over(t, &s);
    return CB_OK;
}
