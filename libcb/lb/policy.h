/* A pool of backends: whose turn is it, and who is left out for a while. F1: time and chance are arguments. */
#ifndef CB_LB_POLICY_H
#define CB_LB_POLICY_H

#include "lb/outlier.h"
#include <cb/lb.h>
#include <stdbool.h>

typedef struct cb_lb_peer {
    uint32_t id;     /* for hashing */
    uint32_t weight; /* 0: gets nothing */
    uint32_t share;  /* percent of its weight that it may have now; 0: it is down */
    uint32_t power;  /* what comes of the two, in a unit of all peers: see cb_lb_prepare() */
    uint32_t group;
    uint32_t active;     /* calls that run */
    int64_t credit;      /* of smooth weighted round robin */
    bool usable;         /* set before each pick */
    bool held;           /* not to be used, whatever the others are like */
    uint64_t latency;    /* nanoseconds, smoothed; 0 = not measured */
    cb_time measured_at; /* when it was */
    uint64_t picks;
} cb_lb_peer;

typedef struct cb_lb_site { /* a group */
    char geo[CB_LB_GEO_BYTES];
    uint32_t weight, priority, cost, latency_us;
    uint64_t whole, usable; /* powers of its peers; set before each pick */
    uint64_t rank;          /* likewise: the lower, the better */
} cb_lb_site;

typedef struct cb_lb_point { /* of a hash ring */
    uint64_t at;
    uint32_t peer;
} cb_lb_point;

typedef struct cb_lb cb_lb;

/* One way to choose. pick() returns the index of a usable peer; at least one is. */
typedef struct cb_lb_chooser {
    const char *name;
    size_t (*pick)(cb_lb *lb, cb_time now, uint64_t hash);
    bool by_hash;      /* asks what should stay together */
    bool by_latency;   /* asks how long each lets one wait */
    bool ring, maglev; /* needs these */
} cb_lb_chooser;

const cb_lb_chooser *cb_lb_policy_get(int kind); /* NULL: not known */

struct cb_lb {
    const cb_lb_chooser *policy;
    cb_lb_peer *peers;
    cb_lb_site *sites; /* one at least */
    size_t n, n_sites, turn;
    int prefer;
    uint32_t load_percent, spill_percent;
    cb_outlier outlier; /* who is left out for what calls came to; numbers as those of peers */
    uint32_t unit;      /* of powers: 1, or 100 while some have a part of their share */
    bool strict;        /* who is down is not even tried when all are */
    cb_time smooth;
    uint64_t chance;   /* state of the generator */
    bool stale;        /* peers or weights have changed: ring and table must be made anew */
    cb_lb_point *ring; /* in order */
    uint32_t *owners;  /* by Maglev */
    size_t n_ring;
    uint32_t buckets;
    const cb_alloc *alloc;
};

/* Peers with weight 1, numbered from 1, in one group; change them before the first pick, or set stale. Nobody is left
 * out before cb_lb_rules(). */
int cb_lb_init(cb_lb *lb, const cb_alloc *alloc, int kind, size_t n);
int cb_lb_sites(cb_lb *lb, size_t n); /* so many groups, of weight 1 */
void cb_lb_free(cb_lb *lb);
/* The next peer, or -1 when every peer is held, without weight, or its bit in `tried` (peers from 64 on have no bit).
 * Peers that are out come only when no other is left, those that are down after them. hash: of what should stay
 * together; 0 = nothing. geo: where the caller is, or NULL. The choice counts as active until cb_lb_end(). */
int64_t cb_lb_begin(cb_lb *lb, cb_time now, uint64_t hash, uint64_t tried, const char *geo);
void cb_lb_end(cb_lb *lb, size_t i);
int cb_lb_rules(cb_lb *lb, const cb_outlier_opts *rules); /* before the first pick. CB_EINVAL */
/* The rules of a pool that only counts failures: so many in a window take out, and the next answer brings back in. */
cb_outlier_opts cb_lb_simple_rules(uint32_t max_fails, uint32_t window_ms, uint32_t out_ms);
/* What became of a call, by enum cb_outlier_result. true: this one took it out. */
bool cb_lb_report(cb_lb *lb, size_t i, int result, uint64_t latency_ns, cb_time now);
void cb_lb_allow(cb_lb *lb, size_t i, uint32_t percent); /* what checks say: 0 = down */
void cb_lb_hold(cb_lb *lb, size_t i, bool held);
static inline cb_time cb_lb_out_until(const cb_lb *lb, size_t i) {
    return lb->outlier.at[i].until;
}
void cb_lb_took(cb_lb *lb, size_t i, uint64_t latency_ns, cb_time now); /* how long it let a caller wait */

uint64_t cb_lb_chance(cb_lb *lb);
/* When stale: powers, and the ring or table. While everybody has all of its share, or none, power is weight. CB_ENOMEM
 */
int cb_lb_prepare(cb_lb *lb);
void cb_lb_choose_site(cb_lb *lb, uint64_t hash, const char *geo); /* leaves one group's peers usable */
uint64_t cb_lb_latency(const cb_lb *lb, size_t i, cb_time now);    /* as believed now */

#endif
