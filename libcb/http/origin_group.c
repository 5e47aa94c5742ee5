/* Groups of origins on one loop: balancers, pools that survive reloads, and the origins in them. */
#include "base/error.h"
#include "base/mem.h"
#include "http/proxy_int.h"
#include <string.h>

/* ---- pools: groups with the same limits share one, and a reload finds it again ---- */

static cb_pool_opts pool_opts(const cb_proxy *p, const cb_origin_group_opts *o) {
    return (cb_pool_opts){
        .resolver = p->resolver,
        .connect_timeout = o->connect_timeout_ms * CB_MS,
        .idle_timeout = o->keep_alive_ms * CB_MS,
        .max_conns = o->max_conns,
        .max_idle = o->max_idle,
        .max_queue = o->max_queue,
    };
}

static bool same_opts(const cb_pool_opts *a, const cb_pool_opts *b) {
    return a->connect_timeout == b->connect_timeout && a->idle_timeout == b->idle_timeout &&
           a->max_conns == b->max_conns && a->max_idle == b->max_idle && a->max_queue == b->max_queue;
}

static int pool_get(cb_proxy_pool **out, cb_proxy *p, const cb_origin_group_opts *o) {
    cb_pool_opts opts = pool_opts(p, o);
    for (cb_list *l = p->pools.next; l != &p->pools; l = l->next) {
        cb_proxy_pool *known = CB_CONTAINER(l, cb_proxy_pool, link);
        if (!same_opts(&known->opts, &opts)) continue;
        known->refs++;
        *out = known;
        return CB_OK;
    }
    cb_proxy_pool *pool = cb_mem_new(p->alloc, sizeof *pool);
    if (!pool) return cb_fail(CB_ENOMEM, "no memory for a pool of connections");
    int rc = cb_pool_new(&pool->pool, p->loop, &opts);
    if (rc < 0) {
        cb_mem_free(p->alloc, pool);
        return rc;
    }
    pool->opts = opts;
    pool->refs = 1;
    cb_list_add_tail(&p->pools, &pool->link);
    *out = pool;
    return CB_OK;
}

static void pool_unref(cb_proxy *p, cb_proxy_pool *pool) {
    if (!pool || --pool->refs) return;
    cb_list_del(&pool->link);
    if (pool->pool) cb_pool_free(pool->pool);
    cb_mem_free(p->alloc, pool);
}

/* ---- groups ---- */

/* The same number for one origin in all workers and on all hosts, after every reload: what stays together by hash
 * stays there. */
static uint32_t id_of(const cb_origin_group *g, size_t i) {
    static const uint8_t key[CB_LB_KEY_BYTES];
    const char *url = g->def->origins[i].url;
    uint32_t id = (uint32_t)cb_lb_hash(key, url, strlen(url));
    for (size_t k = 0; k < i; k++) {
        if (g->lb.peers[k].id != id) continue;
        id++; /* one URL twice, or chance */
        k = 0;
    }
    return id;
}

/* Origins of one priority are a group of the balancer. */
static int share_out(cb_origin_group *g) {
    uint32_t sites = 0;
    for (size_t i = 0; i < g->def->n_origins; i++) {
        cb_lb_peer *p = &g->lb.peers[i];
        p->group = sites;
        for (size_t k = 0; k < i && p->group == sites; k++)
            if (g->def->origins[k].priority == g->def->origins[i].priority) p->group = g->lb.peers[k].group;
        sites += p->group == sites;
        p->weight = g->def->origins[i].weight;
        p->id = id_of(g, i);
    }
    g->lb.prefer = CB_LB_PREFER_PRIORITY;
    int rc = cb_lb_sites(&g->lb, sites);
    for (size_t i = 0; i < g->def->n_origins && rc == CB_OK; i++)
        g->lb.sites[g->lb.peers[i].group].priority = g->def->origins[i].priority;
    return rc;
}

static void group_fini(cb_proxy *p, cb_origin_group *g) {
    for (size_t i = 0; g->targets && i < g->def->n_origins; i++) {
        cb_origin_unref(g->targets[i].origin);
        cb_origin_unref(g->targets[i].tunnel);
    }
    cb_mem_free(p->alloc, g->targets);
    cb_lb_free(&g->lb);
    pool_unref(p, g->pool);
}

static int group_init(cb_origin_group *g, cb_proxy_table *t, const cb_router_group_def *def) {
    cb_proxy *p = t->proxy;
    const cb_origin_group_opts *o = &def->opts;
    g->def = def;
    g->table = t;
    for (int i = 0; i < CB_WAITS; i++)
        cb_list_init(&g->waits[i]);
    g->limits[CB_WAIT_HEAD] = o->response_timeout_ms * CB_MS;
    g->limits[CB_WAIT_BODY] = o->idle_timeout_ms * CB_MS;
    g->limits[CB_WAIT_TUNNEL] = o->tunnel_timeout_ms * CB_MS;
    int rc = cb_lb_init(&g->lb, p->alloc, o->policy, def->n_origins);
    if (rc == CB_OK) rc = pool_get(&g->pool, p, o);
    if (rc < 0 || !def->n_origins) return rc;
    g->targets = cb_mem_new(p->alloc, def->n_origins * sizeof *g->targets);
    if (!g->targets) return cb_fail(CB_ENOMEM, "no memory for %zu origins", def->n_origins);
    const cb_outlier_opts simple = cb_lb_simple_rules(o->max_fails, o->fail_window_ms, o->fail_out_ms);
    g->lb.strict = o->down_is_out;
    rc = cb_lb_rules(&g->lb, o->outliers ? o->outliers : &simple);
    if (rc < 0) return rc;
    for (size_t i = 0; i < def->n_origins; i++)
        g->targets[i].def = &def->origins[i];
    rc = cb_loop_random(p->loop, &g->lb.chance, sizeof g->lb.chance);
    return rc < 0 ? rc : share_out(g);
}

int cb_proxy_table_new(cb_proxy_table **out, cb_proxy *p, cb_router *router) {
    cb_proxy_table *t = cb_mem_new(p->alloc, sizeof *t);
    if (!t) return cb_fail(CB_ENOMEM, "no memory for a routing table");
    t->proxy = p;
    t->refs = 1;
    t->router = cb_router_ref(router);
    cb_list_add_tail(&p->tables, &t->link);
    t->groups = cb_mem_new(p->alloc, (router->n_groups + 1) * sizeof *t->groups);
    int rc = t->groups ? CB_OK : cb_fail(CB_ENOMEM, "no memory for %zu origin groups", router->n_groups);
    for (size_t i = 0; i < router->n_groups && rc == CB_OK; i++)
        rc = group_init(&t->groups[i], t, router->groups[i]);
    if (rc == CB_OK) rc = cb_proxy_count_begin(t);
    if (rc < 0)
        cb_proxy_table_unref(t);
    else
        *out = t;
    return rc;
}

void cb_proxy_table_unref(cb_proxy_table *t) {
    if (!t || --t->refs) return;
    for (size_t i = 0; t->groups && i < t->router->n_groups; i++)
        if (t->groups[i].def) group_fini(t->proxy, &t->groups[i]);
    cb_list_del(&t->link);
    cb_proxy_count_end(t);
    cb_proxy_table_opas_free(t);
    cb_mem_free(t->proxy->alloc, t->groups);
    cb_router_unref(t->router);
    cb_mem_free(t->proxy->alloc, t);
}

uint32_t cb_origin_group_tunnel_versions(const cb_origin_group *g) {
    uint32_t versions = g->def->opts.versions;
    return !versions || versions & CB_HTTP_1 ? CB_HTTP_1 : versions;
}

int cb_origin_group_open(cb_origin **out, cb_origin_group *g, size_t peer, const cb_pass *pass) {
    const cb_origin_group_opts *o = &g->def->opts;
    cb_proxy_target *t = &g->targets[peer];
    cb_origin **slot = pass->upgrade ? &t->tunnel : &t->origin;
    cb_addr src, dst;
    cb_pool_target want = {.host = t->def->host,
                           .port = t->def->port,
                           .tls = t->def->tls,
                           .tls12 = !o->tls13_only,
                           .verify = o->verify,
                           .send_proxy = o->send_proxy,
                           .versions = pass->upgrade ? cb_origin_group_tunnel_versions(g) : o->versions,
                           .server_name = o->server_name,
                           .identity = o->identity};
    if (!o->send_proxy) {
        int rc = *slot ? CB_OK : cb_origin_get(slot, g->pool->pool, &want);
        if (rc < 0) return rc;
        *out = *slot;
        return CB_OK;
    }
    /* With a PROXY header a connection stands for one client. */
    if (cb_addr_parse(&src, pass->remote, 0) == CB_OK &&
        cb_addr_parse(&dst, cb_exchange_local(pass->front), 0) == CB_OK) {
        want.proxy_src = &src;
        want.proxy_dst = &dst;
    }
    cb_origin_unref(*slot);
    *slot = NULL;
    int rc = cb_origin_get(slot, g->pool->pool, &want);
    if (rc == CB_OK) *out = *slot;
    return rc;
}
