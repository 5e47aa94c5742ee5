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
                           .failures = peer->fails && now - peer->window <= g->lb.window ? peer->fails : 0,
                           .held = peer->held,
                           .out_ms = peer->out > now ? (uint32_t)((peer->out - now + CB_MS - 1) / CB_MS) : 0};
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

int cb_proxy_hold(cb_proxy *p, const char *group, uint32_t number, int held) {
    if (!p || !p->table || !group) return cb_fail(CB_EINVAL, "cb_proxy_hold: p and group are needed");
    for (size_t i = 0; i < p->table->router->n_groups; i++) {
        cb_origin_group *g = &p->table->groups[i];
        if (strcmp(g->def->opts.name, group) != 0) continue;
        if (number >= g->def->n_origins)
            return cb_fail(CB_ENOENT, "group \"%s\" has no origin %u: it has %zu", group, number, g->def->n_origins);
        g->lb.peers[number].held = held != 0;
        if (!held) cb_lb_good(&g->lb, number);
        return CB_OK;
    }
    return cb_fail(CB_ENOENT, "there is no group \"%s\"", group);
}
