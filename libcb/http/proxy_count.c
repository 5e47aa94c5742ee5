#include "http/proxy_count.h"
#include "base/error.h"
#include "base/mem.h"
#include "http/proxy_int.h"
#include <stdio.h>
#include <string.h>
#include <time.h>

static const char *const classes[CB_COUNT_CLASSES] = {"none", "1xx", "2xx", "3xx", "4xx", "5xx"};
static const char *const rule_labels[CB_OUTLIER_RULES] = {"none",       "failures",     "consecutive", "connect",
                                                          "error_rate", "success_rate", "latency"};
static const char no_tenant[] = "", other_tenant[] = "_other";

static cb_table_cells *counts_of(const cb_pass *pass) {
    return pass->table->counts;
}

static int class_of(int status) {
    const int class = status / 100;
    return class < CB_COUNT_CLASSES ? class : 0;
}

static cb_cell *series_get(const cb_table_cells *t, cb_cell **at, enum cb_metric_row family, const char *a,
                           const char *b, const char *c, const char *d) {
    const cb_slice values[] = {cb_slice_str(a), cb_slice_str(b), cb_slice_str(c), cb_slice_str(d)};
    return *at = cb_cells_series(t->cells, family, values);
}

/* A cell of a family with up to four labels, got once. */
static inline cb_cell *series(const cb_table_cells *t, cb_cell **at, enum cb_metric_row family, const char *a,
                              const char *b, const char *c, const char *d) {
    return *at ? *at : series_get(t, at, family, a, b, c, d);
}

/* ---- tables ---- */

static void target_begin(const cb_table_cells *t, cb_target_cells *c, const char *group, const char *url) {
    series(t, &c->ejections, CB_F_ORIGIN_EJECTIONS, group, url, NULL, NULL);
    series(t, &c->active, CB_F_ORIGIN_ACTIVE, group, url, NULL, NULL);
    cb_cell_set(series(t, &c->up, CB_F_ORIGIN_UP, group, url, NULL, NULL), 1);
}

static bool group_begin(cb_table_cells *t, cb_group_cells *c, const cb_router_group_def *def, const cb_alloc *alloc) {
    const char *name = def->opts.name;
    series(t, &c->active, CB_F_PROXY_ACTIVE, name, NULL, NULL, NULL);
    series(t, &c->tunnels, CB_F_PROXY_TUNNELS, name, NULL, NULL, NULL);
    series(t, &c->retries, CB_F_PROXY_RETRIES, name, NULL, NULL, NULL);
    series(t, &c->first, CB_F_ORIGIN_FIRST, name, NULL, NULL, NULL);
    if (!def->n_origins) return true;
    c->targets = cb_mem_new(alloc, def->n_origins * sizeof *c->targets);
    for (size_t i = 0; c->targets && i < def->n_origins; i++)
        target_begin(t, &c->targets[i], name, def->origins[i].url);
    return c->targets != NULL;
}

int cb_proxy_count_begin(cb_proxy_table *table) {
    const cb_router *r = table->router;
    const cb_alloc *alloc = table->proxy->alloc;
    const cb_cells *cells = cb_loop_cells(table->proxy->loop);
    if (!cells) return CB_OK;
    cb_table_cells *t = table->counts = cb_mem_new(alloc, sizeof *t);
    if (!t) return cb_fail(CB_ENOMEM, "no memory to count");
    t->cells = cells;
    cb_map_init(&t->tenants, alloc, cb_loop_hash_key(table->proxy->loop));
    t->groups = cb_mem_new(alloc, (r->n_groups + 1) * sizeof *t->groups);
    t->routes = cb_mem_new(alloc, (r->n_routes + 1) * sizeof *t->routes);
    bool good = t->groups && t->routes;
    for (size_t i = 0; i < r->n_groups && good; i++)
        good = group_begin(t, &t->groups[i], r->groups[i], alloc);
    return good ? CB_OK : cb_fail(CB_ENOMEM, "no memory to count");
}

static void release_all(cb_cell **at, size_t n) {
    for (size_t i = 0; i < n; i++)
        cb_cell_release(at[i]);
}

static void reasons_end(cb_reason_cells *r) {
    for (size_t i = 0; i < r->n; i++)
        cb_cell_release(r->at[i].cell);
}

static void tenant_end(cb_tenant_cells *c) {
    release_all(c->requests, CB_COUNT_CLASSES);
    release_all(c->bytes, 2);
}

static void group_end(cb_group_cells *c, size_t n_targets, const cb_alloc *alloc) {
    for (size_t i = 0; c->targets && i < n_targets; i++) {
        cb_target_cells *target = &c->targets[i];
        cb_cell *own[] = {target->up, target->ejections, target->active};
        release_all(own, 3);
        release_all(target->requests, CB_COUNT_CLASSES);
        release_all(target->outliers, CB_OUTLIER_RULES);
        reasons_end(&target->failures);
    }
    cb_cell *own[] = {c->active, c->tunnels, c->retries, c->first};
    release_all(own, 4);
    reasons_end(&c->failures);
    cb_mem_free(alloc, c->targets);
}

void cb_proxy_count_end(cb_proxy_table *table) {
    cb_table_cells *t = table->counts;
    const cb_router *r = table->router;
    const cb_alloc *alloc = table->proxy->alloc;
    size_t it = 0;
    cb_slice key;
    if (!t) return;
    for (size_t i = 0; t->groups && i < r->n_groups; i++)
        group_end(&t->groups[i], r->groups[i]->n_origins, alloc);
    for (size_t i = 0; t->routes && i < r->n_routes; i++) {
        cb_cell_release(t->routes[i].seconds);
        tenant_end(&t->routes[i].own);
    }
    for (cb_tenant_cells *c; (c = cb_map_next(&t->tenants, &it, &key)) != NULL;) {
        tenant_end(c);
        cb_mem_free(alloc, c);
    }
    cb_map_free(&t->tenants);
    cb_mem_free(alloc, t->groups);
    cb_mem_free(alloc, t->routes);
    cb_mem_free(alloc, t);
    table->counts = NULL;
}

/* ---- what happens to a pass ---- */

static void count_reason(cb_table_cells *t, cb_reason_cells *r, enum cb_metric_row family, const char *a, const char *b,
                         const char *reason) {
    const bool origin = family == CB_F_ORIGIN_FAILURES;
    cb_cell *fresh = NULL;
    for (size_t i = 0; i < r->n; i++) {
        if (r->at[i].reason != reason) continue;
        cb_cell_add(r->at[i].cell, 1);
        return;
    }
    series(t, &fresh, family, a, origin ? b : reason, origin ? reason : NULL, NULL);
    cb_cell_add(fresh, 1);
    if (r->n == CB_COUNT_REASONS) {
        cb_cell_release(fresh);
        return;
    }
    r->at[r->n].reason = reason;
    r->at[r->n++].cell = fresh;
}

static cb_group_cells *group_of(const cb_pass *pass) {
    cb_table_cells *t = counts_of(pass);
    return t && pass->group ? &t->groups[pass->group->def->index] : NULL;
}

void cb_pass_count_routed(cb_pass *pass) {
    cb_group_cells *g = group_of(pass);
    if (g) cb_cell_move(g->active, 1);
}

void cb_pass_count_attempt(cb_pass *pass, int by) {
    cb_group_cells *g = group_of(pass);
    if (g) cb_cell_move(g->targets[pass->peer].active, by);
}

void cb_pass_count_tunnel(cb_pass *pass, int by) {
    cb_group_cells *g = group_of(pass);
    if (g) cb_cell_move(g->tunnels, by);
}

void cb_pass_count_retry(cb_pass *pass) {
    cb_group_cells *g = group_of(pass);
    if (g) cb_cell_add(g->retries, 1);
}

void cb_pass_count_answered(cb_pass *pass, int status) {
    cb_group_cells *g = group_of(pass);
    if (!g) return;
    cb_target_cells *target = &g->targets[pass->peer];
    const cb_router_group_def *def = pass->group->def;
    const int class = class_of(status);
    cb_origin_count_up(pass->group, pass->peer);
    cb_cell_add(series(counts_of(pass), &target->requests[class], CB_F_ORIGIN_REQUESTS, def->opts.name,
                       def->origins[pass->peer].url, classes[class], NULL),
                1);
}

void cb_pass_count_blame(cb_pass *pass, const char *reason) {
    cb_group_cells *g = group_of(pass);
    if (!g) return;
    cb_target_cells *target = &g->targets[pass->peer];
    const cb_router_group_def *def = pass->group->def;
    const char *url = def->origins[pass->peer].url;
    count_reason(counts_of(pass), &target->failures, CB_F_ORIGIN_FAILURES, def->opts.name, url, reason);
    if (!pass->answered_at)
        cb_cell_add(
            series(counts_of(pass), &target->requests[0], CB_F_ORIGIN_REQUESTS, def->opts.name, url, classes[0], NULL),
            1);
}

static cb_target_cells *target_of(const cb_origin_group *g, size_t peer) {
    const cb_table_cells *t = g->table->counts;
    return t ? &t->groups[g->def->index].targets[peer] : NULL;
}

void cb_origin_count_up(const cb_origin_group *g, size_t peer) {
    const cb_target_cells *target = target_of(g, peer);
    const cb_time now = cb_loop_now(g->table->proxy->loop);
    if (target) cb_cell_set(target->up, g->lb.peers[peer].share && cb_lb_out_until(&g->lb, peer) <= now);
}

void cb_origin_count_out(const cb_origin_group *g, size_t peer) {
    cb_target_cells *target = target_of(g, peer);
    const int rule = g->lb.outlier.at[peer].rule;
    if (!target) return;
    cb_cell_set(target->up, 0);
    cb_cell_add(target->ejections, 1);
    cb_cell_add(series(g->table->counts, &target->outliers[rule], CB_F_ORIGIN_OUTLIERS, g->def->opts.name,
                       g->def->origins[peer].url, rule_labels[rule], NULL),
                1);
}

/* ---- the end of a pass ---- */

static const char *tenant_of(const cb_pass *pass) {
    const cb_principal *who = pass->auth ? cb_authn_principal(pass->auth->call) : NULL;
    if (who && who->tenant) return who->tenant;
    return pass->route && pass->route->tenant ? pass->route->tenant : no_tenant;
}

/* Those of a tenant that is not the route's own are found by name; beyond a limit they are others. */
static cb_tenant_cells *cells_of_tenant(cb_pass *pass, const char **tenant) {
    cb_table_cells *t = counts_of(pass);
    const cb_route *route = pass->route;
    char key[CB_ROUTE_TENANT_MAX + 32];
    const char *own = route->tenant ? route->tenant : no_tenant;
    if (*tenant == own || strcmp(*tenant, own) == 0) return &t->routes[route->index].own;
    for (int round = 0; round < 2; round++) {
        const int n = snprintf(key, sizeof key, "%zu %s", route->index, *tenant);
        const size_t len = n > 0 && (size_t)n < sizeof key ? (size_t)n : sizeof key - 1;
        cb_tenant_cells *c = cb_map_get(&t->tenants, key, len);
        if (c) return c;
        if (t->tenants.len >= CB_COUNT_TENANTS && round == 0) {
            *tenant = other_tenant;
            continue;
        }
        c = cb_mem_new(pass->proxy->alloc, sizeof *c);
        if (c && cb_map_put(&t->tenants, key, len, c) == CB_OK) return c;
        cb_mem_free(pass->proxy->alloc, c);
        return NULL;
    }
    return NULL;
}

static void count_bytes(cb_pass *pass, cb_tenant_cells *c, const char *tenant) {
    static const char *const directions[] = {"in", "out"};
    const uint64_t bytes[] = {pass->bytes_in, pass->bytes_out};
    for (int i = 0; i < 2; i++)
        if (bytes[i])
            cb_cell_add(
                series(counts_of(pass), &c->bytes[i], CB_F_PROXY_BYTES, pass->route->name, tenant, directions[i], NULL),
                bytes[i]);
}

static void count_seconds(cb_pass *pass, cb_time took) {
    cb_cell **at = &counts_of(pass)->routes[pass->route->index].seconds;
    cb_cell *c = series(counts_of(pass), at, CB_F_PROXY_SECONDS, pass->route->name, NULL, NULL, NULL);
    const cb_pass_notes *n = pass->notes;
    if (!c || !n || !n->traced || !(n->context.flags & CB_TRACE_SAMPLED)) {
        cb_cell_observe(c, took);
        return;
    }
    struct timespec wall;
    clock_gettime(CLOCK_REALTIME_COARSE, &wall);
    cb_exemplar e = {.size = sizeof e, .time_ms = (int64_t)wall.tv_sec * 1000 + wall.tv_nsec / 1000000};
    memcpy(e.trace_id, n->context.trace_id, sizeof e.trace_id);
    memcpy(e.span_id, n->context.span_id, sizeof e.span_id);
    cb_histogram_add_exemplar((cb_histogram *)(void *)c, took, &e);
}

/* What took no time, by the loop's clock, is not worth a place in a histogram. */
static void count_phases(const cb_pass *pass, const cb_cells *cells) {
    static const enum cb_cell_id phases[CB_ACCESS_PHASES] = {[CB_ACCESS_HEAD] = CB_C_PROXY_PHASE_HEAD,
                                                             [CB_ACCESS_AUTH] = CB_C_PROXY_PHASE_AUTH,
                                                             [CB_ACCESS_WAIT] = CB_C_PROXY_PHASE_WAIT,
                                                             [CB_ACCESS_CONNECT] = CB_C_PROXY_PHASE_CONNECT,
                                                             [CB_ACCESS_BODY] = CB_C_PROXY_PHASE_BODY};
    const cb_pool_times *t = &pass->times;
    const cb_time now = cb_loop_now(pass->proxy->loop);
    uint64_t ns[CB_ACCESS_PHASES];
    if (pass->started == pass->front->started && t->sent == pass->started && now == pass->answered_at) return;
    const uint32_t happened = cb_pass_phases(pass, ns);
    for (int i = 0; i < CB_ACCESS_PHASES; i++)
        if (happened & 1u << i && ns[i] && i != CB_ACCESS_FIRST_BYTE) cb_cells_observe(cells, phases[i], ns[i]);
}

/* Those that a gate or the proxy's own rules refused, and those without a route. True: it was one. */
static bool count_refused(const cb_cells *cells, const char *reason) {
    static const struct {
        const char *reason;
        enum cb_cell_id cell;
    } rows[] = {{"unauthorized", CB_C_PROXY_REFUSED_UNAUTHORIZED},
                {"forbidden", CB_C_PROXY_REFUSED_FORBIDDEN},
                {"bad_credentials", CB_C_PROXY_REFUSED_BAD_CREDENTIALS},
                {"auth_unavailable", CB_C_PROXY_REFUSED_AUTH_UNAVAILABLE},
                {"early_data", CB_C_PROXY_REFUSED_EARLY_DATA},
                {"method", CB_C_PROXY_REFUSED_METHOD},
                {"connect", CB_C_PROXY_REFUSED_CONNECT},
                {"loop", CB_C_PROXY_REFUSED_LOOP},
                {"no_host", CB_C_PROXY_UNROUTED_NO_HOST},
                {"no_route", CB_C_PROXY_UNROUTED_NO_ROUTE},
                {"bad_path", CB_C_PROXY_UNROUTED_BAD_PATH},
                {"ambiguous_path", CB_C_PROXY_UNROUTED_AMBIGUOUS_PATH}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (strcmp(rows[i].reason, reason) != 0) continue;
        cb_cells_add(cells, rows[i].cell, 1);
        return true;
    }
    return false;
}

void cb_pass_count_end(cb_pass *pass) {
    cb_table_cells *t = counts_of(pass);
    if (!t) return;
    const char *tenant = tenant_of(pass);
    const int class = class_of(pass->status);
    const bool refused = pass->reason && count_refused(t->cells, pass->reason);
    cb_group_cells *g = group_of(pass);
    if (!g) return;
    cb_cell_move(g->active, -1);
    if (pass->reason && !refused)
        count_reason(t, &g->failures, CB_F_PROXY_FAILURES, pass->group->def->opts.name, NULL, pass->reason);
    count_seconds(pass, cb_loop_now(pass->proxy->loop) - pass->started);
    if (pass->times.sent) {
        if (pass->answered_at) cb_cell_observe(g->first, pass->answered_at - pass->times.sent);
        count_phases(pass, t->cells);
    }
    cb_tenant_cells *c = cells_of_tenant(pass, &tenant);
    if (!c) return;
    cb_cell_add(series(t, &c->requests[class], CB_F_PROXY_REQUESTS, pass->route->name, pass->group->def->opts.name,
                       tenant, classes[class]),
                1);
    count_bytes(pass, c, tenant);
}
