#include "lb/policy.h"
#include "base/error.h"
#include "base/mem.h"

/* Smooth weighted round robin: everyone gains its weight, the richest pays for all. */
static size_t pick_round_robin(cb_lb_peer *peers, size_t n, size_t turn, uint64_t hash) {
    size_t best = n;
    int64_t total = 0;
    (void)turn, (void)hash;
    for (size_t i = 0; i < n; i++) {
        if (!peers[i].usable) continue;
        peers[i].credit += peers[i].weight;
        total += peers[i].weight;
        if (best == n || peers[i].credit > peers[best].credit) best = i;
    }
    peers[best].credit -= total;
    return best;
}

/* Fewest by weight; equals take turns. */
static size_t pick_least(cb_lb_peer *peers, size_t n, size_t turn, uint64_t hash) {
    size_t best = n;
    (void)hash;
    for (size_t k = 0; k < n; k++) {
        size_t i = (turn + k) % n;
        if (!peers[i].usable) continue;
        if (best == n ||
            (uint64_t)peers[i].active * peers[best].weight < (uint64_t)peers[best].active * peers[i].weight)
            best = i;
    }
    return best;
}

static const cb_lb_chooser policies[] = {
    [CB_LB_DEFAULT] = {"round_robin", pick_round_robin},
    [CB_LB_ROUND_ROBIN] = {"round_robin", pick_round_robin},
    [CB_LB_LEAST_CONNECTIONS] = {"least_connections", pick_least},
};

const cb_lb_chooser *cb_lb_policy_get(int kind) {
    if (kind < 0 || (size_t)kind >= sizeof policies / sizeof *policies) return NULL;
    return &policies[kind];
}

int cb_lb_init(cb_lb *lb, const cb_alloc *alloc, int kind, size_t n) {
    *lb = (cb_lb){.policy = cb_lb_policy_get(kind), .n = n, .alloc = alloc};
    if (!lb->policy) return cb_fail(CB_EINVAL, "balancing policy %d is not known", kind);
    if (!n) return CB_OK;
    lb->peers = cb_mem_new(alloc, n * sizeof *lb->peers);
    if (!lb->peers) return cb_fail(CB_ENOMEM, "no memory for %zu origins", n);
    for (size_t i = 0; i < n; i++)
        lb->peers[i].weight = 1;
    return CB_OK;
}

void cb_lb_free(cb_lb *lb) {
    cb_mem_free(lb->alloc, lb->peers);
    lb->peers = NULL;
    lb->n = 0;
}

int64_t cb_lb_begin(cb_lb *lb, cb_time now, uint64_t hash, uint64_t tried) {
    size_t in = 0, left = 0;
    for (size_t i = 0; i < lb->n; i++) {
        cb_lb_peer *p = &lb->peers[i];
        bool fresh = !p->held && (i >= 64 || !(tried >> i & 1));
        p->usable = fresh && now >= p->out;
        left += fresh;
        in += p->usable;
    }
    if (!left) return -1;
    if (!in)
        for (size_t i = 0; i < lb->n; i++)
            lb->peers[i].usable = !lb->peers[i].held && (i >= 64 || !(tried >> i & 1));
    size_t i = lb->policy->pick(lb->peers, lb->n, lb->turn, hash);
    lb->turn = (i + 1) % lb->n;
    lb->peers[i].active++;
    return (int64_t)i;
}

void cb_lb_end(cb_lb *lb, size_t i) {
    if (lb->peers[i].active) lb->peers[i].active--;
}

bool cb_lb_fail(cb_lb *lb, size_t i, cb_time now) {
    cb_lb_peer *p = &lb->peers[i];
    if (!p->fails || now - p->window > lb->window) {
        p->fails = 0;
        p->window = now;
    }
    if (++p->fails < lb->max_fails) return false;
    bool was_in = now >= p->out;
    p->fails = 0;
    p->out = now + lb->out;
    return was_in;
}

void cb_lb_good(cb_lb *lb, size_t i) {
    lb->peers[i].out = 0;
}
