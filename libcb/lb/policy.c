/* The policies, and the pool that they choose from. */
#include "lb/policy.h"
#include "base/error.h"
#include "base/mem.h"
#include "lb/maglev.h"
#include "lb/mix.h"

uint64_t cb_lb_chance(cb_lb *lb) {
    return cb_lb_mix(lb->chance += 0x9e3779b97f4a7c15u);
}

/* ---- in turns, and by what runs ---- */

/* Smooth weighted round robin: everyone gains its weight, the richest pays for all. */
static size_t pick_round_robin(cb_lb *lb, cb_time now, uint64_t hash) {
    size_t best = lb->n;
    int64_t total = 0;
    (void)now, (void)hash;
    for (size_t i = 0; i < lb->n; i++) {
        cb_lb_peer *p = &lb->peers[i];
        if (!p->usable) continue;
        p->credit += p->power;
        total += p->power;
        if (best == lb->n || p->credit > lb->peers[best].credit) best = i;
    }
    lb->peers[best].credit -= total;
    return best;
}

static bool idler(const cb_lb_peer *a, const cb_lb_peer *b) {
    return (uint64_t)a->active * b->power < (uint64_t)b->active * a->power;
}

/* Fewest by weight; equals take turns. */
static size_t pick_least(cb_lb *lb, cb_time now, uint64_t hash) {
    size_t best = lb->n;
    (void)now, (void)hash;
    for (size_t k = 0; k < lb->n; k++) {
        const size_t i = (lb->turn + k) % lb->n;
        if (!lb->peers[i].usable) continue;
        if (best == lb->n || idler(&lb->peers[i], &lb->peers[best])) best = i;
    }
    return best;
}

/* A usable peer but one, each as often as its weight says; lb->n: there is none. */
static size_t draw(cb_lb *lb, size_t but) {
    uint64_t total = 0;
    for (size_t i = 0; i < lb->n; i++)
        if (lb->peers[i].usable && i != but) total += lb->peers[i].power;
    if (!total) return lb->n;
    uint64_t left = cb_lb_chance(lb) % total;
    for (size_t i = 0; i < lb->n; i++) {
        if (!lb->peers[i].usable || i == but) continue;
        if (left < lb->peers[i].power) return i;
        left -= lb->peers[i].power;
    }
    return lb->n;
}

/* Two by chance, and of these the one with less to do: nearly as good as the least of all, and nobody's state has to be
 * fresh for it (Mitzenmacher 2001). */
static size_t pick_two(cb_lb *lb, cb_time now, uint64_t hash) {
    (void)now, (void)hash;
    const size_t a = draw(lb, lb->n), b = draw(lb, a);
    return b < lb->n && idler(&lb->peers[b], &lb->peers[a]) ? b : a;
}

/* The same by how long each lets one wait, times what it has to do already. */
static size_t pick_latency(cb_lb *lb, cb_time now, uint64_t hash) {
    (void)hash;
    const size_t a = draw(lb, lb->n), b = draw(lb, a);
    if (b == lb->n) return a;
    const cb_lb_peer *x = &lb->peers[a], *y = &lb->peers[b];
    const double mine = (double)cb_lb_latency(lb, a, now) * (x->active + 1.0) / x->power;
    const double other = (double)cb_lb_latency(lb, b, now) * (y->active + 1.0) / y->power;
    return other < mine ? b : a;
}

/* ---- by hash ---- */

static size_t pick_rendezvous(cb_lb *lb, cb_time now, uint64_t hash) {
    size_t best = lb->n;
    uint64_t best_age = 0;
    (void)now;
    for (size_t i = 0; i < lb->n; i++) {
        const cb_lb_peer *p = &lb->peers[i];
        if (!p->usable) continue;
        const uint64_t age = cb_lb_age(p->id, hash);
        if (best < lb->n && age * lb->peers[best].power >= best_age * p->power) continue;
        best = i;
        best_age = age;
    }
    return best;
}

/* Consistent hashing with bounded loads (Mirrokni, Thorup, Zadimoghaddam 2017): who has its share and a quarter of it
 * passes on to the next on the ring. */
static size_t pick_ring(cb_lb *lb, cb_time now, uint64_t hash) {
    uint64_t weights = 0, active = 1;
    size_t low = 0, high = lb->n_ring;
    if (!lb->n_ring) return pick_rendezvous(lb, now, hash);
    for (size_t i = 0; i < lb->n; i++) {
        if (!lb->peers[i].usable) continue;
        weights += lb->peers[i].power;
        active += lb->peers[i].active;
    }
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        if (lb->ring[middle].at < hash)
            low = middle + 1;
        else
            high = middle;
    }
    for (size_t k = 0; k < lb->n_ring; k++) {
        const size_t i = lb->ring[(low + k) % lb->n_ring].peer;
        const cb_lb_peer *p = &lb->peers[i];
        if (!p->usable) continue;
        const double most = (double)active * p->power / (double)weights * lb->load_percent / 100;
        if (p->active < most) return i; /* rounded up: one more than is whole */
    }
    return pick_rendezvous(lb, now, hash);
}

static size_t pick_maglev(cb_lb *lb, cb_time now, uint64_t hash) {
    enum { TRIES = 4 };
    uint64_t h = hash;
    for (int k = 0; k < TRIES && lb->owners; k++, h = cb_lb_mix(h + 1)) {
        const size_t i = lb->owners[cb_lb_bucket(h, lb->buckets)];
        if (lb->peers[i].usable) return i;
    }
    return pick_rendezvous(lb, now, hash);
}

static const cb_lb_chooser policies[] = {
    [CB_LB_DEFAULT] = {.name = "power_of_two", .pick = pick_two},
    [CB_LB_ROUND_ROBIN] = {.name = "round_robin", .pick = pick_round_robin},
    [CB_LB_LEAST_CONNECTIONS] = {.name = "least_connections", .pick = pick_least},
    [CB_LB_POWER_OF_TWO] = {.name = "power_of_two", .pick = pick_two},
    [CB_LB_IP_HASH] = {.name = "ip_hash", .pick = pick_rendezvous, .by_hash = true},
    [CB_LB_RING_HASH] = {.name = "ring_hash", .pick = pick_ring, .by_hash = true, .ring = true},
    [CB_LB_MAGLEV] = {.name = "maglev", .pick = pick_maglev, .by_hash = true, .maglev = true},
    [CB_LB_LATENCY] = {.name = "latency", .pick = pick_latency, .by_latency = true},
};

const cb_lb_chooser *cb_lb_policy_get(int kind) {
    if (kind < 0 || (size_t)kind >= sizeof policies / sizeof *policies) return NULL;
    return &policies[kind];
}

/* ---- the pool ---- */

int cb_lb_sites(cb_lb *lb, size_t n) {
    cb_lb_site *sites = cb_mem_new(lb->alloc, n * sizeof *sites);
    if (!sites) return cb_fail(CB_ENOMEM, "no memory for %zu groups of backends", n);
    cb_mem_free(lb->alloc, lb->sites);
    lb->sites = sites;
    lb->n_sites = n;
    for (size_t i = 0; i < n; i++)
        sites[i].weight = 1;
    return CB_OK;
}

int cb_lb_init(cb_lb *lb, const cb_alloc *alloc, int kind, size_t n) {
    *lb = (cb_lb){.policy = cb_lb_policy_get(kind),
                  .n = n,
                  .alloc = alloc,
                  .load_percent = 125,
                  .spill_percent = 50,
                  .smooth = 10000000000u,
                  .stale = true};
    if (!lb->policy) return cb_fail(CB_EINVAL, "balancing policy %d is not known", kind);
    int rc = cb_outlier_init(&lb->outlier, NULL, alloc);
    if (rc < 0 || !n) return rc;
    lb->peers = cb_mem_new(alloc, n * sizeof *lb->peers);
    if (!lb->peers) return cb_fail(CB_ENOMEM, "no memory for %zu origins", n);
    for (size_t i = 0; i < n; i++) {
        lb->peers[i].id = (uint32_t)i + 1;
        lb->peers[i].weight = 1;
        lb->peers[i].share = 100;
        if (rc >= 0) rc = cb_outlier_add(&lb->outlier);
    }
    if (rc >= 0) rc = cb_lb_sites(lb, 1);
    if (rc < 0) cb_lb_free(lb);
    return rc;
}

void cb_lb_free(cb_lb *lb) {
    cb_outlier_fini(&lb->outlier);
    cb_mem_free(lb->alloc, lb->peers);
    cb_mem_free(lb->alloc, lb->sites);
    cb_mem_free(lb->alloc, lb->ring);
    cb_mem_free(lb->alloc, lb->owners);
    lb->peers = NULL;
    lb->sites = NULL;
    lb->ring = NULL;
    lb->owners = NULL;
    lb->n = lb->n_sites = lb->n_ring = 0;
}

static bool fresh(size_t i, uint64_t tried) {
    return i >= 64 || !(tried >> i & 1);
}

static bool may_go(const cb_lb *lb, size_t i, uint64_t tried) {
    const cb_lb_peer *p = &lb->peers[i];
    return p->power && !p->held && fresh(i, tried) && (p->share || !lb->strict);
}

/* True: somebody is. Those that are out only when no other is left, those that are down when not even these are. */
static bool mark_usable(cb_lb *lb, cb_time now, uint64_t tried) {
    size_t in = 0, alive = 0, left = 0;
    for (size_t i = 0; i < lb->n; i++) {
        cb_lb_peer *p = &lb->peers[i];
        const bool may = may_go(lb, i, tried);
        p->usable = may && p->share && !cb_outlier_has_out(&lb->outlier, i, now);
        left += may;
        alive += may && p->share;
        in += p->usable;
    }
    for (size_t i = 0; i < lb->n && !in; i++)
        lb->peers[i].usable = may_go(lb, i, tried) && (lb->peers[i].share || !alive);
    return left != 0;
}

int64_t cb_lb_begin(cb_lb *lb, cb_time now, uint64_t hash, uint64_t tried, const char *geo) {
    if (lb->stale) (void)cb_lb_prepare(lb); /* without memory rendezvous does the same, slowly */
    if (!mark_usable(lb, now, tried)) return -1;
    hash = hash ? cb_lb_mix(hash) : cb_lb_chance(lb);
    if (lb->n_sites > 1) cb_lb_choose_site(lb, hash, geo);
    const size_t i = lb->n == 1 ? 0 : lb->policy->pick(lb, now, hash);
    lb->turn = (i + 1) % lb->n;
    lb->peers[i].active++;
    lb->peers[i].picks++;
    return (int64_t)i;
}

void cb_lb_end(cb_lb *lb, size_t i) {
    if (lb->peers[i].active) lb->peers[i].active--;
}

int cb_lb_rules(cb_lb *lb, const cb_outlier_opts *rules) {
    cb_outlier fresh_set;
    int rc = cb_outlier_init(&fresh_set, rules, lb->alloc);
    if (rc == CB_OK) lb->outlier.o = fresh_set.o;
    return rc;
}

cb_outlier_opts cb_lb_simple_rules(uint32_t max_fails, uint32_t window_ms, uint32_t out_ms) {
    return (cb_outlier_opts){.size = sizeof(cb_outlier_opts),
                             .max_fails = max_fails,
                             .fail_window_ms = window_ms,
                             .eject_ms = out_ms,
                             .max_eject_ms = out_ms,
                             .max_eject_percent = 100,
                             .last_too = 1,
                             .answer_readmits = 1};
}

bool cb_lb_report(cb_lb *lb, size_t i, int result, uint64_t latency_ns, cb_time now) {
    return cb_outlier_report(&lb->outlier, (uint32_t)i, result, latency_ns, now) == 1;
}

static void see_present(cb_lb *lb, size_t i) {
    const cb_lb_peer *p = &lb->peers[i];
    (void)cb_outlier_present(&lb->outlier, (uint32_t)i, p->share && !p->held);
}

void cb_lb_allow(cb_lb *lb, size_t i, uint32_t percent) {
    cb_lb_peer *p = &lb->peers[i];
    const uint32_t share = percent < 100 ? percent : 100;
    if (p->share == share) return;
    p->share = share;
    lb->stale = true;
    see_present(lb, i);
}

void cb_lb_hold(cb_lb *lb, size_t i, bool held) {
    lb->peers[i].held = held;
    see_present(lb, i);
}

/* ---- latency ---- */

/* Up at once, down by and by: who has become slow is found out by its first slow answer. */
void cb_lb_took(cb_lb *lb, size_t i, uint64_t latency_ns, cb_time now) {
    cb_lb_peer *p = &lb->peers[i];
    const uint64_t believed = p->latency ? cb_lb_latency(lb, i, now) : 0;
    const double age = now > p->measured_at ? (double)(now - p->measured_at) : 0;
    if (latency_ns > INT64_MAX) latency_ns = INT64_MAX;
    if (latency_ns >= believed)
        p->latency = latency_ns;
    else
        p->latency = believed - (uint64_t)((double)(believed - latency_ns) * (age + 1e6) / (age + (double)lb->smooth));
    if (!p->latency) p->latency = 1;
    p->measured_at = now;
}

/* Who was not asked for long may have become better; who was never asked is as good as the best. */
uint64_t cb_lb_latency(const cb_lb *lb, size_t i, cb_time now) {
    const cb_lb_peer *p = &lb->peers[i];
    if (p->latency) {
        const double age = now > p->measured_at ? (double)(now - p->measured_at) : 0;
        const double fades = (double)lb->smooth / ((double)lb->smooth + age);
        return (uint64_t)((double)p->latency * fades * fades) + 1;
    }
    uint64_t least = UINT64_MAX;
    for (size_t k = 0; k < lb->n; k++)
        if (lb->peers[k].latency && lb->peers[k].latency < least) least = lb->peers[k].latency;
    return least == UINT64_MAX ? 1 : least;
}
