/* Groups of backends, and what is made of all peers at once: the ring, and the table by Maglev. */
#include "base/error.h"
#include "base/mem.h"
#include "lb/maglev.h"
#include "lb/mix.h"
#include "lb/policy.h"
#include <stdlib.h>
#include <string.h>

/* ---- which group ---- */

/* Latencies within a fifth of each other are equal. */
static uint64_t latency_rank(const cb_lb *lb, const cb_lb_site *s) {
    uint32_t least = UINT32_MAX;
    for (size_t i = 0; i < lb->n_sites; i++)
        if (lb->sites[i].usable && lb->sites[i].latency_us < least) least = lb->sites[i].latency_us;
    return s->latency_us <= least || s->latency_us - least <= least / 5 ? 0 : s->latency_us;
}

static uint64_t rank_of(const cb_lb *lb, const cb_lb_site *s, const char *geo) {
    switch (lb->prefer) {
    case CB_LB_PREFER_PRIORITY:
        return s->priority;
    case CB_LB_PREFER_COST:
        return s->cost;
    case CB_LB_PREFER_LATENCY:
        return latency_rank(lb, s);
    case CB_LB_PREFER_GEO: {
        const bool here = geo && *geo && strcmp(geo, s->geo) == 0;
        return (uint64_t)!here << 32 | s->priority;
    }
    default:
        return 0;
    }
}

static void weigh(cb_lb *lb, const char *geo) {
    for (size_t i = 0; i < lb->n_sites; i++)
        lb->sites[i].whole = lb->sites[i].usable = 0;
    for (size_t i = 0; i < lb->n; i++) {
        const cb_lb_peer *p = &lb->peers[i];
        lb->sites[p->group].whole += p->power;
        if (p->usable) lb->sites[p->group].usable += p->power;
    }
    for (size_t i = 0; i < lb->n_sites; i++)
        lb->sites[i].rank = rank_of(lb, &lb->sites[i], geo);
}

/* The best rank of which enough is usable; else the best of which anything is. */
static uint64_t serving_rank(const cb_lb *lb) {
    uint64_t rank = UINT64_MAX, enough = UINT64_MAX;
    for (size_t i = 0; i < lb->n_sites; i++) {
        const cb_lb_site *s = &lb->sites[i];
        uint64_t whole = 0, usable = 0;
        if (!s->usable) continue;
        if (s->rank < rank) rank = s->rank;
        for (size_t k = 0; k < lb->n_sites; k++) {
            if (lb->sites[k].rank != s->rank) continue;
            whole += lb->sites[k].whole;
            usable += lb->sites[k].usable;
        }
        if (usable * 100 >= whole * lb->spill_percent && s->rank < enough) enough = s->rank;
    }
    return enough != UINT64_MAX ? enough : rank;
}

/* Groups of one rank share by their weight and by what is usable of them; one hash stays with one group. */
void cb_lb_choose_site(cb_lb *lb, uint64_t hash, const char *geo) {
    weigh(lb, geo);
    const uint64_t rank = serving_rank(lb);
    size_t best = lb->n_sites;
    double best_wait = 0;
    for (size_t i = 0; i < lb->n_sites; i++) {
        const cb_lb_site *s = &lb->sites[i];
        if (!s->usable || s->rank != rank || !s->weight) continue;
        const double share = (double)s->weight * (double)s->usable / (double)s->whole;
        const double wait = (double)cb_lb_age(UINT32_MAX - (uint32_t)i, hash) / share;
        if (best < lb->n_sites && wait >= best_wait) continue;
        best = i;
        best_wait = wait;
    }
    for (size_t i = 0; i < lb->n && best < lb->n_sites; i++)
        lb->peers[i].usable = lb->peers[i].usable && lb->peers[i].group == best;
}

/* ---- the ring ---- */

enum { POINTS = 160, POINTS_MAX = 1 << 18 };

static int by_place(const void *a, const void *b) {
    const cb_lb_point *x = a, *y = b;
    if (x->at != y->at) return x->at < y->at ? -1 : 1;
    return x->peer < y->peer ? -1 : x->peer > y->peer;
}

/* POINTS for a peer on average, by weight. */
static size_t points_of(const cb_lb *lb, size_t i, uint64_t weights) {
    const uint64_t all = lb->n * POINTS < POINTS_MAX ? lb->n * POINTS : POINTS_MAX;
    const uint64_t n = (all * lb->peers[i].power + weights / 2) / weights;
    return lb->peers[i].power && !n ? 1 : (size_t)n;
}

static int make_ring(cb_lb *lb, uint64_t weights) {
    size_t n = 0, at = 0;
    for (size_t i = 0; i < lb->n; i++)
        n += points_of(lb, i, weights);
    cb_lb_point *ring = cb_mem_get(lb->alloc, n * sizeof *ring);
    if (!ring) return cb_fail(CB_ENOMEM, "no memory for a ring of %zu points", n);
    for (size_t i = 0; i < lb->n; i++) {
        const size_t points = points_of(lb, i, weights);
        for (size_t k = 0; k < points; k++)
            ring[at++] = (cb_lb_point){cb_lb_mix(cb_lb_mix(lb->peers[i].id) + k + 1), (uint32_t)i};
    }
    qsort(ring, n, sizeof *ring, by_place);
    cb_mem_free(lb->alloc, lb->ring);
    lb->ring = ring;
    lb->n_ring = n;
    return CB_OK;
}

/* ---- the table ---- */

/* A hundred buckets for each, where a table of that size is to be had. */
static uint32_t buckets_for(size_t n) {
    static const uint32_t primes[] = {1021, 4093, 16381, CB_LB_BUCKETS};
    enum { SIZES = sizeof primes / sizeof primes[0] };
    for (size_t i = 0; i < SIZES; i++)
        if (primes[i] >= 100 * n) return primes[i];
    return primes[SIZES - 1];
}

static int make_owners(cb_lb *lb, uint64_t powers) {
    const uint32_t buckets = buckets_for(lb->n);
    cb_lb_share *shares = cb_mem_get(lb->alloc, lb->n * sizeof *shares);
    uint32_t *owners = cb_mem_get(lb->alloc, buckets * sizeof *owners);
    int rc = shares && owners ? CB_OK : cb_fail(CB_ENOMEM, "no memory for a table of %u buckets", (unsigned)buckets);
    const uint32_t unit = (uint32_t)(powers / UINT32_MAX) + 1; /* quotas want sums of 32 bits */
    for (size_t i = 0; i < lb->n && rc == CB_OK; i++)
        shares[i] = (cb_lb_share){.id = lb->peers[i].id, .weight = lb->peers[i].power / unit, .tag = (uint32_t)i};
    if (rc == CB_OK) {
        (void)cb_lb_quotas(shares, lb->n, buckets); /* somebody has weight */
        rc = cb_lb_maglev_fill(owners, buckets, shares, lb->n, 0, lb->alloc);
    }
    cb_mem_free(lb->alloc, shares);
    if (rc < 0) {
        cb_mem_free(lb->alloc, owners);
        return rc;
    }
    cb_mem_free(lb->alloc, lb->owners);
    lb->owners = owners;
    lb->buckets = buckets;
    return CB_OK;
}

/* A share of a small weight is no whole number: then all count in hundredths. Who is down keeps its own power, for when
 * all are and one is tried nevertheless. */
static void set_powers(cb_lb *lb) {
    uint32_t unit = 1;
    for (size_t i = 0; i < lb->n; i++)
        if (lb->peers[i].share && lb->peers[i].share < 100) unit = 100;
    for (size_t i = 0; i < lb->n; i++) {
        cb_lb_peer *p = &lb->peers[i];
        if (unit != lb->unit) p->credit = p->credit * (int64_t)unit / (lb->unit ? lb->unit : unit); /* in powers, too */
        p->power = unit == 1 ? p->weight : p->weight * (p->share ? p->share : 100);
    }
    lb->unit = unit;
}

int cb_lb_prepare(cb_lb *lb) {
    uint64_t weights = 0;
    int rc = CB_OK;
    set_powers(lb);
    for (size_t i = 0; i < lb->n; i++)
        weights += lb->peers[i].power;
    if (weights && lb->policy->ring) rc = make_ring(lb, weights);
    if (weights && lb->policy->maglev) rc = make_owners(lb, weights);
    if (rc == CB_OK) lb->stale = false;
    return rc;
}
