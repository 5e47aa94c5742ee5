/* Weighted Maglev: how a table begins. Part of the format of logs: what these give never changes. */
#ifndef CB_LB_MAGLEV_H
#define CB_LB_MAGLEV_H

#include <cb/lb.h>
#include <stdbool.h>

bool cb_lb_is_prime(uint32_t n);
int cb_lb_member_check(const cb_lb_member *m); /* CB_EINVAL */

/* Someone who shares a table. */
typedef struct cb_lb_share {
    uint32_t id;
    uint32_t weight;
    uint32_t tag;   /* what owners[] gets */
    uint32_t have;  /* buckets that are its own already */
    uint32_t quota; /* buckets that are its due */
    uint32_t rest;  /* what the quota leaves over, in parts of the sum of weights */
} cb_lb_share;

/* Sets quotas that add up to `buckets`, each the whole number below or above what the weight says: above first for
 * those who have so many, then by the largest remainders, then by the lower ID. Sorts by ID. False: nobody has weight.
 */
bool cb_lb_quotas(cb_lb_share *shares, size_t n, uint32_t buckets);
/* Fills owners[0..buckets-1] by quotas: whoever has the least for its weight takes the next free bucket of its
 * permutation. Shares are in order of their IDs. CB_ENOMEM. */
int cb_lb_maglev_fill(uint32_t *owners, uint32_t buckets, const cb_lb_share *shares, size_t n, uint64_t seed,
                      const cb_alloc *alloc);
/* Rendezvous: how long this one waits for this hash, below 2^39; divided by its weight, the least wins. */
uint64_t cb_lb_age(uint32_t id, uint64_t hash);

#endif
