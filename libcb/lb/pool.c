/* Pools for embedders: the balancer of policy.h behind a handle, whose backends come one by one. */
#include "base/error.h"
#include "base/mem.h"
#include "base/opts.h"
#include "lb/policy.h"
#include <string.h>

#define MS 1000000ull

enum { BACKENDS_MAX = 4096 };

struct cb_lb_pool {
    cb_alloc alloc;
    cb_lb lb;
    size_t groups; /* that were added */
};

const char *cb_lb_policy_name(int policy) {
    const cb_lb_chooser *c = cb_lb_policy_get(policy);
    return c ? c->name : NULL;
}

static uint32_t or_default(uint32_t value, uint32_t standard) {
    return value ? value : standard;
}

static int check(const cb_lb_pool_opts *o) {
    if (!cb_lb_policy_get(o->policy))
        return cb_fail(CB_EINVAL, "cb_lb_pool_opts: policy %d is not one of enum cb_lb_policy", (int)o->policy);
    if (o->prefer < CB_LB_PREFER_NONE || o->prefer > CB_LB_PREFER_GEO)
        return cb_fail(CB_EINVAL, "cb_lb_pool_opts: prefer %d is not one of enum cb_lb_prefer", (int)o->prefer);
    if (o->load_percent && o->load_percent <= 100)
        return cb_fail(CB_EINVAL, "cb_lb_pool_opts: load_percent is %u; it has to be above 100",
                       (unsigned)o->load_percent);
    if (o->spill_percent > 100)
        return cb_fail(CB_EINVAL, "cb_lb_pool_opts: spill_percent is %u; 1 to 100 are possible",
                       (unsigned)o->spill_percent);
    return CB_OK;
}

int cb_lb_pool_new(cb_lb_pool **out, const cb_lb_pool_opts *opts) {
    cb_lb_pool_opts o;
    if (!out) return cb_fail(CB_EINVAL, "cb_lb_pool_new: out is NULL");
    int rc = cb_opts_read(&o, sizeof o, opts, "cb_lb_pool_opts");
    if (rc == CB_OK) rc = check(&o);
    if (rc < 0) return rc;
    const cb_alloc *a = o.alloc ? o.alloc : &cb_alloc_libc;
    cb_lb_pool *p = cb_mem_new(a, sizeof *p);
    if (!p) return cb_fail(CB_ENOMEM, "no memory for a pool of backends");
    p->alloc = *a;
    const cb_outlier_opts simple = cb_lb_simple_rules(or_default(o.max_fails, 3), or_default(o.fail_window_ms, 10000),
                                                      or_default(o.fail_out_ms, 10000));
    rc = cb_lb_init(&p->lb, &p->alloc, o.policy, 0);
    if (rc == CB_OK) rc = cb_lb_rules(&p->lb, o.outliers ? o.outliers : &simple);
    if (rc == CB_OK) rc = cb_lb_sites(&p->lb, 1);
    if (rc < 0) {
        cb_lb_pool_free(p);
        return rc;
    }
    p->lb.prefer = o.prefer;
    p->lb.chance = o.seed;
    p->lb.load_percent = or_default(o.load_percent, 125);
    p->lb.spill_percent = or_default(o.spill_percent, 50);
    p->lb.strict = o.down_is_out;
    p->lb.smooth = or_default(o.smooth_ms, 10000) * MS;
    *out = p;
    return CB_OK;
}

void cb_lb_pool_free(cb_lb_pool *p) {
    if (!p) return;
    const cb_alloc a = p->alloc;
    cb_lb_free(&p->lb);
    cb_mem_free(&a, p);
}

/* ---- groups ---- */

static int site_of(cb_lb_site *s, const cb_lb_group *group) {
    cb_lb_group g;
    int rc = cb_opts_read(&g, sizeof g, group, "cb_lb_group");
    if (rc < 0) return rc;
    const size_t len = g.geo ? strlen(g.geo) : 0;
    if (len >= CB_LB_GEO_BYTES)
        return cb_fail(CB_EINVAL, "cb_lb_group: geo \"%.32s\" has %zu bytes; %d are the most", g.geo, len,
                       CB_LB_GEO_BYTES - 1);
    *s = (cb_lb_site){
        .weight = or_default(g.weight, 1), .priority = g.priority, .cost = g.cost, .latency_us = g.latency_us};
    if (len) memcpy(s->geo, g.geo, len);
    return CB_OK;
}

int cb_lb_pool_group(cb_lb_pool *p, const cb_lb_group *group) {
    cb_lb_site s;
    int rc = site_of(&s, group);
    if (rc < 0) return rc;
    if (p->groups == BACKENDS_MAX) return cb_fail(CB_ELIMIT, "a pool has at most %d groups", BACKENDS_MAX);
    if (p->groups == p->lb.n_sites) {
        cb_lb_site *more = cb_mem_grow(&p->alloc, p->lb.sites, (p->groups + 1) * sizeof *more);
        if (!more) return cb_fail(CB_ENOMEM, "no memory for a group of backends");
        p->lb.sites = more;
        p->lb.n_sites = p->groups + 1;
    }
    p->lb.sites[p->groups] = s;
    return (int)p->groups++;
}

int cb_lb_pool_label(cb_lb_pool *p, uint32_t group, const cb_lb_group *labels) {
    cb_lb_site s;
    if (group >= p->lb.n_sites) return cb_fail(CB_ENOENT, "there is no group %u", (unsigned)group);
    int rc = site_of(&s, labels);
    if (rc == CB_OK) p->lb.sites[group] = s;
    return rc;
}

/* ---- backends ---- */

static int weight_check(uint32_t weight) {
    if (weight <= CB_LB_WEIGHT_MAX) return CB_OK;
    return cb_fail(CB_EINVAL, "a backend's weight is %u; %d is the most", (unsigned)weight, CB_LB_WEIGHT_MAX);
}

static int missing(uint32_t backend) {
    return cb_fail(CB_ENOENT, "there is no backend %u", (unsigned)backend);
}

int cb_lb_pool_add(cb_lb_pool *p, const cb_lb_backend *backend) {
    cb_lb_backend b;
    cb_lb *lb = &p->lb;
    int rc = cb_opts_read(&b, sizeof b, backend, "cb_lb_backend");
    if (rc == CB_OK) rc = weight_check(b.weight);
    if (rc < 0) return rc;
    if (!b.id) return cb_fail(CB_EINVAL, "a backend's id is 0");
    if (b.group >= lb->n_sites) return cb_fail(CB_ENOENT, "there is no group %u", (unsigned)b.group);
    for (size_t i = 0; i < lb->n; i++)
        if (lb->peers[i].id == b.id) return cb_fail(CB_EEXIST, "two backends have the ID %u", (unsigned)b.id);
    if (lb->n == BACKENDS_MAX) return cb_fail(CB_ELIMIT, "a pool has at most %d backends", BACKENDS_MAX);
    cb_lb_peer *more = cb_mem_grow(&p->alloc, lb->peers, (lb->n + 1) * sizeof *more);
    if (!more) return cb_fail(CB_ENOMEM, "no memory for a backend");
    lb->peers = more;
    rc = cb_outlier_add(&lb->outlier);
    if (rc < 0) return rc;
    more[lb->n] = (cb_lb_peer){.id = b.id, .weight = b.weight, .share = 100, .group = b.group};
    lb->stale = true;
    return (int)lb->n++;
}

int cb_lb_pool_set(cb_lb_pool *p, uint32_t backend, uint32_t weight, int up) {
    if (backend >= p->lb.n) return missing(backend);
    int rc = weight_check(weight);
    if (rc < 0) return rc;
    cb_lb_peer *peer = &p->lb.peers[backend];
    if (peer->weight != weight) p->lb.stale = true;
    peer->weight = weight;
    cb_lb_hold(&p->lb, backend, !up);
    return CB_OK;
}

int cb_lb_pool_share(cb_lb_pool *p, uint32_t backend, uint32_t percent) {
    if (backend >= p->lb.n) return missing(backend);
    if (percent > 100) return cb_fail(CB_EINVAL, "a backend's share is %u percent; 100 is the most", (unsigned)percent);
    cb_lb_allow(&p->lb, backend, percent);
    return CB_OK;
}

/* ---- calls ---- */

int64_t cb_lb_pool_pick(cb_lb_pool *p, const cb_lb_call *call) {
    cb_lb_call c;
    int rc = cb_opts_read(&c, sizeof c, call, "cb_lb_call");
    if (rc < 0) return rc;
    const int64_t i = cb_lb_begin(&p->lb, c.now, c.hash, c.tried, c.geo);
    return i >= 0 ? i : cb_fail(CB_ENOENT, "no backend is left");
}

int cb_lb_pool_done(cb_lb_pool *p, uint32_t backend, int result, uint64_t latency_ns, cb_time now) {
    if (backend >= p->lb.n) return missing(backend);
    static const int results[] = {[CB_LB_WORKED] = CB_OUTLIER_WORKED,
                                  [CB_LB_FAILED] = CB_OUTLIER_FAILED,
                                  [CB_LB_ERROR] = CB_OUTLIER_ERROR,
                                  [CB_LB_NO_WAY] = CB_OUTLIER_CONNECT};
    if (result < CB_LB_UNKNOWN || result > CB_LB_NO_WAY)
        return cb_fail(CB_EINVAL, "%d is not one of enum cb_lb_result", result);
    cb_lb_end(&p->lb, backend);
    if (latency_ns) cb_lb_took(&p->lb, backend, latency_ns, now);
    return result != CB_LB_UNKNOWN && cb_lb_report(&p->lb, backend, results[result], latency_ns, now);
}

int cb_lb_pool_stats_get(const cb_lb_pool *p, uint32_t backend, cb_lb_backend_stats *out) {
    if (backend >= p->lb.n) return missing(backend);
    const cb_lb_peer *peer = &p->lb.peers[backend];
    const cb_lb_backend_stats all = {.picks = peer->picks,
                                     .latency_ns = peer->latency,
                                     .out_until = cb_lb_out_until(&p->lb, backend),
                                     .id = peer->id,
                                     .weight = peer->weight,
                                     .group = peer->group,
                                     .active = peer->active,
                                     .up = !peer->held,
                                     .share = (uint8_t)peer->share,
                                     .rule = p->lb.outlier.at[backend].rule};
    return cb_stats_give(out, &all, sizeof all, "cb_lb_backend_stats");
}
