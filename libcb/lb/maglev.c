/* Maglev hashing (Eisenbud et al., NSDI 2016) with weights, in integers only: the same everywhere. */
#include "lb/maglev.h"
#include "base/error.h"
#include "base/mem.h"
#include "lb/mix.h"
#include <stdlib.h>

static const uint32_t FREE = UINT32_MAX;

bool cb_lb_is_prime(uint32_t n) {
    if (n < 4) return n > 1;
    if (n % 2 == 0) return false;
    for (uint32_t d = 3; (uint64_t)d * d <= n; d += 2)
        if (n % d == 0) return false;
    return true;
}

/* ---- quotas ---- */

static int by_id(const void *a, const void *b) {
    const cb_lb_share *x = a, *y = b;
    return x->id < y->id ? -1 : x->id > y->id;
}

static bool keeps(const cb_lb_share *s) {
    return s->rest && s->have > s->quota;
}

static int by_claim(const void *a, const void *b) {
    const cb_lb_share *x = a, *y = b;
    if (keeps(x) != keeps(y)) return keeps(x) ? -1 : 1;
    if (x->rest != y->rest) return x->rest > y->rest ? -1 : 1;
    return by_id(a, b);
}

bool cb_lb_quotas(cb_lb_share *shares, size_t n, uint32_t buckets) {
    uint64_t sum = 0; /* below 2^28; buckets times a weight is below 2^38 */
    uint32_t left = buckets;
    for (size_t i = 0; i < n; i++)
        sum += shares[i].weight;
    if (!sum) return false;
    for (size_t i = 0; i < n; i++) {
        const uint64_t exact = (uint64_t)buckets * shares[i].weight;
        shares[i].quota = (uint32_t)(exact / sum);
        shares[i].rest = (uint32_t)(exact % sum);
        left -= shares[i].quota;
    }
    qsort(shares, n, sizeof *shares, by_claim);
    for (size_t i = 0; i < left; i++) /* as many have a rest, at least */
        shares[i].quota++;
    qsort(shares, n, sizeof *shares, by_id);
    return true;
}

/* ---- filling ---- */

typedef struct taker {
    uint32_t at, skip; /* the next place of its permutation, and the way to the one after it */
    uint32_t took;
    uint32_t share;
} taker;

typedef struct filling {
    uint32_t *owners;
    uint32_t buckets;
    const cb_lb_share *shares;
    taker *heap; /* whoever has the least for its weight is first */
    size_t n;
} filling;

static bool before(const filling *f, const taker *a, const taker *b) {
    const uint64_t x = (uint64_t)(a->took + 1) * f->shares[b->share].weight;
    const uint64_t y = (uint64_t)(b->took + 1) * f->shares[a->share].weight;
    return x != y ? x < y : a->share < b->share;
}

static void sift(filling *f, size_t i) {
    const taker moving = f->heap[i];
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= f->n) break;
        if (child + 1 < f->n && before(f, &f->heap[child + 1], &f->heap[child])) child++;
        if (!before(f, &f->heap[child], &moving)) break;
        f->heap[i] = f->heap[child];
        i = child;
    }
    f->heap[i] = moving;
}

static void take(filling *f) {
    taker *t = &f->heap[0];
    while (f->owners[t->at] != FREE)
        t->at = (uint32_t)(((uint64_t)t->at + t->skip) % f->buckets);
    f->owners[t->at] = f->shares[t->share].tag;
    if (++t->took == f->shares[t->share].quota) f->heap[0] = f->heap[--f->n];
    if (f->n) sift(f, 0);
}

int cb_lb_maglev_fill(uint32_t *owners, uint32_t buckets, const cb_lb_share *shares, size_t n, uint64_t seed,
                      const cb_alloc *alloc) {
    filling f = {.owners = owners, .buckets = buckets, .shares = shares};
    f.heap = cb_mem_get(alloc, n * sizeof *f.heap);
    if (!f.heap) return cb_fail(CB_ENOMEM, "no memory to fill a table of %zu members", n);
    for (size_t i = 0; i < n; i++) {
        if (!shares[i].quota) continue;
        const uint64_t h = cb_lb_mix(seed + shares[i].id * 0x9e3779b97f4a7c15u);
        f.heap[f.n++] = (taker){
            .at = (uint32_t)(h % buckets), .skip = (uint32_t)(cb_lb_mix(h) % (buckets - 1)) + 1, .share = (uint32_t)i};
    }
    for (size_t i = f.n; i-- > 0;)
        sift(&f, i);
    for (uint32_t b = 0; b < buckets; b++)
        owners[b] = FREE;
    while (f.n)
        take(&f);
    cb_mem_free(alloc, f.heap);
    return CB_OK;
}

/* ---- for those who need no log ---- */

int cb_lb_member_check(const cb_lb_member *m) {
    if (m->size < sizeof *m) return cb_fail(CB_EINVAL, "a member's size is not set");
    if (!m->id) return cb_fail(CB_EINVAL, "a member's id is 0");
    if (m->weight > CB_LB_WEIGHT_MAX)
        return cb_fail(CB_EINVAL, "member %u: weight is %u; %d is the most", (unsigned)m->id, (unsigned)m->weight,
                       CB_LB_WEIGHT_MAX);
    if (m->state < CB_LB_UP || m->state > CB_LB_DEAD)
        return cb_fail(CB_EINVAL, "member %u: state %d is not one of enum cb_lb_state", (unsigned)m->id, (int)m->state);
    return CB_OK;
}

static int share_out(cb_lb_share *shares, size_t n, const cb_lb_member *members, uint32_t buckets) {
    for (size_t i = 0; i < n; i++)
        shares[i] = (cb_lb_share){
            .id = members[i].id, .weight = members[i].state == CB_LB_UP ? members[i].weight : 0, .tag = (uint32_t)i};
    if (!cb_lb_quotas(shares, n, buckets)) return cb_fail(CB_ENOENT, "no member is up and has weight");
    for (size_t i = 1; i < n; i++)
        if (shares[i].id == shares[i - 1].id)
            return cb_fail(CB_EEXIST, "two members have the ID %u", (unsigned)shares[i].id);
    return CB_OK;
}

int cb_lb_maglev(uint32_t *owners, uint32_t buckets, const cb_lb_member *members, size_t n, uint64_t seed) {
    if (!owners || !members || !n || n > CB_LB_MEMBERS_MAX)
        return cb_fail(CB_EINVAL, "cb_lb_maglev: %s",
                       !owners   ? "owners is NULL"
                       : members ? "there are no members, or too many"
                                 : "members is NULL");
    if (buckets > CB_LB_BUCKETS_MAX || !cb_lb_is_prime(buckets))
        return cb_fail(CB_EINVAL, "cb_lb_maglev: buckets is %u; it has to be a prime of at most %d", (unsigned)buckets,
                       CB_LB_BUCKETS_MAX);
    for (size_t i = 0; i < n; i++) {
        int rc = cb_lb_member_check(&members[i]);
        if (rc < 0) return rc;
    }
    cb_lb_share *shares = cb_mem_get(&cb_alloc_libc, n * sizeof *shares);
    if (!shares) return cb_fail(CB_ENOMEM, "no memory for %zu members", n);
    int rc = share_out(shares, n, members, buckets);
    if (rc == CB_OK) rc = cb_lb_maglev_fill(owners, buckets, shares, n, seed, &cb_alloc_libc);
    cb_mem_free(&cb_alloc_libc, shares);
    return rc;
}

/* ---- rendezvous ---- */

/* The upper half of m * m, or one less. */
static uint64_t square(uint64_t m) {
    const uint64_t high = m >> 32, low = (uint32_t)m;
    return high * high + (high * low >> 31);
}

/* -log2(x / 2^64) for x > 0, with 32 bits behind the point: the whole part is that of leading zeros, and each squaring
 * of what remains (1 <= m < 2) gives the next bit. */
static uint64_t minus_log2(uint64_t x) {
    const unsigned zeros = (unsigned)__builtin_clzll(x);
    uint64_t m = x << zeros, bits = 0;
    for (int i = 0; i < 32; i++) {
        const uint64_t next = square(m);
        const bool two = next >> 63;
        m = two ? next : next << 1;
        bits = bits << 1 | two;
    }
    return ((uint64_t)(zeros + 1) << 32) - bits;
}

uint64_t cb_lb_age(uint32_t id, uint64_t hash) {
    return minus_log2(cb_lb_mix(hash ^ cb_lb_mix(id)) | 1);
}

int64_t cb_lb_rendezvous(const cb_lb_member *members, size_t n, uint64_t hash) {
    int64_t best = -1;
    uint64_t best_age = 0;
    if (!members && n) return cb_fail(CB_EINVAL, "cb_lb_rendezvous: members is NULL");
    for (size_t i = 0; i < n; i++) {
        const cb_lb_member *m = &members[i];
        int rc = cb_lb_member_check(m);
        if (rc < 0) return rc;
        if (m->state != CB_LB_UP || !m->weight) continue;
        /* Each waits for a time of its own, exponential by its weight; the first one gets it. */
        const uint64_t age = cb_lb_age(m->id, hash);
        const bool wins = best < 0 || age * members[best].weight < best_age * m->weight ||
                          (age * members[best].weight == best_age * m->weight && m->id < members[best].id);
        if (!wins) continue;
        best = (int64_t)i;
        best_age = age;
    }
    return best >= 0 ? best : cb_fail(CB_ENOENT, "no member is up and has weight");
}
