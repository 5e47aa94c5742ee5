/* Origins of a proxy as administration sees them: how they are, and out and in. */
#include "base/error.h"
#include "http/proxy_int.h"
#include <string.h>

static void add_pool(cb_proxy_origin *out, const cb_origin *o) {
    cb_origin_stats s;
    if (!o) return;
    cb_origin_stats_get(o, &s);
    out->conns += s.conns;
    out->idle += s.idle;
    out->connecting += s.connecting;
    out->waiting += s.queued;
    out->opened += s.opened;
    out->failed += s.failed;
    out->requests += s.requests;
}

static void tell(const cb_proxy *p, const cb_origin_group *g, size_t i,
                 void (*fn)(const cb_proxy_origin *origin, void *user), void *user) {
    const cb_lb_peer *peer = &g->lb.peers[i];
    const cb_time now = cb_loop_now(p->loop);
    cb_proxy_origin out = {.size = sizeof out,
                           .group = g->def->opts.name,
                           .url = g->def->origins[i].url,
                           .number = (uint32_t)i,
                           .weight = peer->weight,
                           .active = peer->active,
                           .held = peer->held,
                           .share = peer->share};
    const cb_time until = cb_lb_out_until(&g->lb, i);
    cb_outlier_stats seen = {.size = sizeof seen};
    (void)cb_outlier_stats_get(&g->lb.outlier, (uint32_t)i, &seen);
    out.failures = seen.fails;
    out.rule = seen.rule;
    out.spared = seen.spared;
    out.out_ms = until > now ? (uint32_t)((until - now + CB_MS - 1) / CB_MS) : 0;
    add_pool(&out, g->targets[i].origin);
    if (g->targets[i].tunnel != g->targets[i].origin) add_pool(&out, g->targets[i].tunnel);
    fn(&out, user);
}

int cb_proxy_origins(const cb_proxy *p, void (*fn)(const cb_proxy_origin *origin, void *user), void *user) {
    if (!p || !p->table || !fn) return cb_fail(CB_EINVAL, "cb_proxy_origins: p and fn are needed");
    for (size_t i = 0; i < p->table->router->n_groups; i++)
        for (size_t k = 0; k < p->table->groups[i].def->n_origins; k++)
            tell(p, &p->table->groups[i], k, fn, user);
    return CB_OK;
}

static cb_origin_group *group_named(const cb_proxy_table *t, const char *name) {
    for (size_t i = 0; i < t->router->n_groups; i++)
        if (strcmp(t->groups[i].def->opts.name, name) == 0) return &t->groups[i];
    return NULL;
}

static int origin_named(cb_origin_group **out, const cb_proxy *p, const char *group, uint32_t number) {
    cb_origin_group *g = group_named(p->table, group);
    if (!g) return cb_fail(CB_ENOENT, "there is no group \"%s\"", group);
    if (number >= g->def->n_origins)
        return cb_fail(CB_ENOENT, "group \"%s\" has no origin %u: it has %zu", group, number, g->def->n_origins);
    *out = g;
    return CB_OK;
}

int cb_proxy_hold(cb_proxy *p, const char *group, uint32_t number, int held) {
    if (!p || !p->table || !group) return cb_fail(CB_EINVAL, "cb_proxy_hold: p and group are needed");
    cb_origin_group *g = NULL;
    int rc = origin_named(&g, p, group, number);
    if (rc < 0) return rc;
    cb_lb_hold(&g->lb, number, held != 0);
    if (!held) (void)cb_outlier_readmit(&g->lb.outlier, number);
    return CB_OK;
}

/* ---- what others say of them, and what they do themselves ---- */

int cb_proxy_allow(cb_proxy *p, const char *group, uint32_t number, uint32_t percent) {
    if (!p || !p->table || !group) return cb_fail(CB_EINVAL, "cb_proxy_allow: p and group are needed");
    if (percent > 100) return cb_fail(CB_EINVAL, "cb_proxy_allow: %u percent; 100 is the most", (unsigned)percent);
    cb_origin_group *g = NULL;
    int rc = origin_named(&g, p, group, number);
    if (rc < 0) return rc;
    cb_lb_allow(&g->lb, number, percent);
    cb_origin_count_up(g, number);
    return CB_OK;
}

static void inherit(cb_origin_group *g, size_t i, const cb_origin_group *before) {
    for (size_t k = 0; k < before->def->n_origins; k++) {
        if (strcmp(before->def->origins[k].url, g->def->origins[i].url) != 0) continue;
        cb_lb_allow(&g->lb, i, before->lb.peers[k].share);
        cb_origin_count_up(g, i);
        return;
    }
}

void cb_proxy_table_inherit(cb_proxy_table *t, const cb_proxy_table *before) {
    for (size_t i = 0; i < t->router->n_groups; i++) {
        const cb_origin_group *known = group_named(before, t->groups[i].def->opts.name);
        for (size_t k = 0; known && k < t->groups[i].def->n_origins; k++)
            inherit(&t->groups[i], k, known);
    }
}

void cb_origin_group_tell_out(cb_origin_group *g) {
    const cb_proxy *p = g->table->proxy;
    const cb_time now = cb_loop_now(p->loop);
    for (int64_t i; (i = cb_outlier_take(&g->lb.outlier)) >= 0;) {
        const cb_outlier_endpoint *e = &g->lb.outlier.at[i];
        const uint64_t ns = e->until > now ? e->until - now : 0;
        g->table->proxy->stats.origins_out++;
        cb_origin_count_out(g, (size_t)i);
        cb_log_line(cb_loop_log(p->loop), CB_LOG_WARN, "proxy", "%s is left out for %llu ms: %s",
                    g->def->origins[i].url, (unsigned long long)(ns / CB_MS), cb_outlier_rule_name(e->rule));
    }
}
