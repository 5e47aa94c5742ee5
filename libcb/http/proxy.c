#include "base/error.h"
#include "base/mem.h"
#include "base/opts.h"
#include "http/fields.h"
#include "http/proxy_int.h"
#include <string.h>

void cb_proxy_ref(cb_proxy *p) {
    p->refs++;
}

void cb_proxy_unref(cb_proxy *p) {
    if (--p->refs) return;
    while (!cb_list_empty(&p->spare)) {
        cb_pass *pass = CB_CONTAINER(p->spare.next, cb_pass, link);
        cb_list_del(&pass->link);
        cb_mem_free(p->alloc, pass);
    }
    while (!cb_list_empty(&p->spare_auth))
        cb_pass_auth_destroy(CB_CONTAINER(p->spare_auth.next, cb_pass_auth, link));
    while (!cb_list_empty(&p->spare_notes))
        cb_pass_notes_destroy(CB_CONTAINER(p->spare_notes.next, cb_pass_notes, link));
    cb_relay_free(&p->forward);
    cb_mem_free(p->alloc, p->via);
    cb_mem_free(p->alloc, p);
}

void cb_proxy_arm(cb_proxy *p, cb_time at) {
    if (at < cb_alarm_at(&p->alarm)) cb_alarm_set(&p->alarm, at);
}

/* Ends what has waited too long and looks for the next. An exchange that is still waiting for a connection is the
 * pool's concern: its limits are others. */
static void expire_list(cb_origin_group *g, int which, cb_time now, cb_time *next) {
    cb_list *list = &g->waits[which];
    while (!cb_list_empty(list)) {
        cb_pass *pass = CB_CONTAINER(list->next, cb_pass, wait);
        cb_time at = pass->last + g->limits[which];
        if (at > now) {
            if (at < *next) *next = at;
            return;
        }
        if (which == CB_WAIT_HEAD && pass->back && cb_pool_phase(pass->back) < CB_PHASE_SENT) {
            pass->last = now;
            cb_list_del(&pass->wait);
            cb_list_add_tail(list, &pass->wait);
            if (!g->limits[which]) return;
            continue;
        }
        cb_list_del(&pass->wait);
        cb_pass_expire(pass);
    }
}

static void expire(cb_alarm *a, cb_time now) {
    cb_proxy *p = CB_CONTAINER(a, cb_proxy, alarm);
    cb_time next = CB_NEVER;
    cb_proxy_ref(p);
    for (cb_list *l = p->tables.next, *after; l != &p->tables; l = after) {
        cb_proxy_table *t = CB_CONTAINER(l, cb_proxy_table, link);
        t->refs++;
        for (size_t i = 0; i < t->router->n_groups; i++)
            for (int w = 0; w < CB_WAITS; w++)
                expire_list(&t->groups[i], w, now, &next);
        after = l->next;
        cb_proxy_table_unref(t);
    }
    if (!p->freed && next != CB_NEVER) cb_proxy_arm(p, next);
    cb_proxy_unref(p);
}

int cb_proxy_new(cb_proxy **out, cb_loop *loop, const cb_proxy_opts *opts) {
    if (!out || !loop) return cb_fail(CB_EINVAL, "cb_proxy_new: %s is NULL", !out ? "out" : "loop");
    cb_proxy_opts o;
    int rc = cb_opts_read(&o, sizeof o, opts, "cb_proxy_opts");
    if (rc < 0) return rc;
    const char *via = o.via ? o.via : "libcb";
    if (!o.router) return cb_fail(CB_EINVAL, "cb_proxy_opts: router is missing");
    if (!cb_field_name_ok(cb_slice_str(via)))
        return cb_fail(CB_EINVAL, "cb_proxy_opts: via \"%s\" is not one word", via);
    if (o.https_port > 65535) return cb_fail(CB_EINVAL, "cb_proxy_opts: https_port %u", o.https_port);
    if (o.trace_from > CB_TRACE_FROM_NOBODY)
        return cb_fail(CB_EINVAL, "cb_proxy_opts: trace_from %u is not known", o.trace_from);
    cb_proxy *p = cb_mem_new(cb_loop_alloc(loop), sizeof *p);
    if (!p) return cb_fail(CB_ENOMEM, "no memory for a proxy");
    p->loop = loop;
    p->alloc = cb_loop_alloc(loop);
    p->refs = 1;
    p->log = o.log;
    p->tracer = o.tracer;
    p->sampler = o.sampler;
    p->trace_from = o.trace_from;
    p->https_port = o.https_port ? o.https_port : 443;
    p->no_forwarded = o.no_forwarded;
    p->no_x_forwarded = o.no_x_forwarded;
    cb_list_init(&p->tables);
    cb_list_init(&p->pools);
    cb_list_init(&p->passes);
    cb_list_init(&p->spare);
    cb_list_init(&p->spare_auth);
    cb_list_init(&p->spare_notes);
    cb_relay_init(&p->forward, p->alloc);
    cb_alarm_init(&p->alarm, loop, expire);
    p->via = cb_mem_text(p->alloc, via);
    rc = p->via ? cb_resolver_new(&p->resolver, loop, CB_OPTS(cb_resolver_opts, .servers = o.resolver))
                : cb_fail(CB_ENOMEM, "no memory for a proxy");
    if (rc == CB_OK) rc = cb_authn_worker_new(&p->asks, loop);
    if (rc == CB_OK) rc = cb_proxy_table_new(&p->table, p, o.router);
    if (rc < 0)
        cb_proxy_free(p);
    else
        *out = p;
    return rc;
}

const cb_exchange_ops *cb_proxy_exchange_ops(void) {
    return &cb_proxy_new_ops;
}

const cb_exchange_ops *cb_proxy_redirect_ops(void) {
    return &cb_proxy_new_redirect_ops;
}

int cb_proxy_swap(cb_proxy *p, cb_router *router) {
    if (!p || !router) return cb_fail(CB_EINVAL, "cb_proxy_swap: %s is NULL", !p ? "p" : "router");
    cb_proxy_table *t = NULL;
    int rc = cb_proxy_table_new(&t, p, router);
    if (rc < 0) return rc;
    cb_proxy_table_inherit(t, p->table);
    cb_proxy_table_unref(p->table);
    p->table = t;
    cb_cells_add(cb_loop_cells(p->loop), CB_C_PROXY_SWAPS, 1);
    return CB_OK;
}

void cb_proxy_set_log(cb_proxy *p, cb_access_log *log) {
    p->log = log;
}

int cb_proxy_set_tracing(cb_proxy *p, cb_tracer *tracer, cb_sampler *sampler, int trace_from) {
    if (trace_from < CB_TRACE_FROM_ALL || trace_from > CB_TRACE_FROM_NOBODY)
        return cb_fail(CB_EINVAL, "cb_proxy_set_tracing: trace_from %d is not known", trace_from);
    p->tracer = tracer;
    p->sampler = sampler;
    p->trace_from = (uint8_t)trace_from;
    return CB_OK;
}

int cb_proxy_stats_get(const cb_proxy *p, cb_proxy_stats *out) {
    return cb_stats_give(out, &p->stats, sizeof p->stats, "cb_proxy_stats");
}

void cb_proxy_free(cb_proxy *p) {
    if (!p || p->freed) return;
    p->freed = true;
    while (!cb_list_empty(&p->passes))
        cb_pass_cut(CB_CONTAINER(p->passes.next, cb_pass, link));
    cb_alarm_stop(&p->alarm);
    cb_proxy_table_unref(p->table);
    p->table = NULL;
    /* Tables live until the passes are buried; connections and names end here. */
    for (cb_list *l = p->pools.next; l != &p->pools; l = l->next) {
        cb_proxy_pool *pool = CB_CONTAINER(l, cb_proxy_pool, link);
        cb_pool_free(pool->pool);
        pool->pool = NULL;
    }
    for (cb_list *l = p->tables.next; l != &p->tables; l = l->next)
        cb_proxy_table_opas_free(CB_CONTAINER(l, cb_proxy_table, link));
    cb_http_client_free(p->agents);
    p->agents = NULL;
    cb_authn_worker_free(p->asks);
    p->asks = NULL;
    if (p->resolver) cb_resolver_free(p->resolver);
    p->resolver = NULL;
    cb_proxy_unref(p);
}
