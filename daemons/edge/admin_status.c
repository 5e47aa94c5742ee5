/* How it is: the process, its listeners and routes, and what will expire. */
#include "admin.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

int edge_admin_add(cb_admin *a, const cb_admin_resource *rows, size_t n, edge *e) {
    int rc = CB_OK;
    for (size_t i = 0; i < n && rc == CB_OK; i++)
        rc = cb_admin_add(a, &rows[i], e);
    return rc;
}

/* ---- GET /v1/status ---- */

typedef struct totals {
    cb_proxy_stats proxy;
    uint64_t connections, draining;
} totals;

static void look_status(edge_part *part, const void *arg) {
    const edge_worker *w = part->worker;
    totals *t = edge_part_row(part, sizeof *t);
    cb_http_server_stats s = {.size = sizeof s};
    (void)arg;
    if (!t) return;
    t->proxy.size = sizeof t->proxy;
    if (w->proxy) cb_proxy_stats_get(w->proxy, &t->proxy);
    for (const edge_server *at = w->servers; at; at = at->next) {
        if (cb_http_server_stats_get(at->http, &s) < 0) continue;
        t->connections += s.conns_h1 + s.conns_h2 + s.conns_h3;
        t->draining += at->draining;
    }
}

static void put_process(edge *e, cb_json_out *o) {
    const char *why;
    const bool ready = edge_is_ready(e, &why);
    const time_t now = time(NULL);
    cb_json_put_str(o, "name", EDGE_WHAT);
    cb_json_put_str(o, "version", cb_version_text());
    cb_json_put_int(o, "pid", getpid());
    cb_json_put_int(o, "started_at", e->started_s);
    cb_json_put_int(o, "uptime_s", now - e->started_s);
    cb_json_put_str(o, "file", e->file);
    cb_json_put_uint(o, "revision", edge_revision(e));
    cb_json_put_int(o, "workers", e->n_workers);
    cb_json_put_bool(o, "ready", ready);
    cb_json_put_str(o, "why", why);
    cb_json_put_bool(o, "draining", e->stopping);
    cb_json_put_int(o, "processes", 1 + edge_elders(e));
    cb_json_put_bool(o, "upgrading", e->upgrade != NULL);
}

static void done_status(edge *e, const edge_part *parts, const void *arg, cb_admin_call *call) {
    cb_json_out *o = call ? cb_admin_json(call) : NULL;
    totals sum = {.connections = 0};
    uint32_t answered = 0;
    (void)arg;
    if (!call) return;
    for (uint32_t i = 0; i < e->n_workers; i++) {
        const totals *t = parts[i].rows;
        if (!parts[i].there || !parts[i].n) continue;
        answered++;
        sum.connections += t->connections;
        sum.proxy.requests += t->proxy.requests;
        sum.proxy.active += t->proxy.active;
        sum.proxy.tunnels += t->proxy.tunnels;
        sum.proxy.retries += t->proxy.retries;
        sum.proxy.failed += t->proxy.failed;
        sum.proxy.refused += t->proxy.refused;
    }
    cb_json_put_object(o, NULL);
    put_process(e, o);
    cb_json_put_int(o, "workers_answered", answered);
    cb_json_put_object(o, "totals");
    cb_json_put_uint(o, "connections", sum.connections);
    cb_json_put_uint(o, "requests", sum.proxy.requests);
    cb_json_put_uint(o, "active", sum.proxy.active);
    cb_json_put_uint(o, "tunnels", sum.proxy.tunnels);
    cb_json_put_uint(o, "retries", sum.proxy.retries);
    cb_json_put_uint(o, "failed", sum.proxy.failed);
    cb_json_put_uint(o, "refused", sum.proxy.refused);
    cb_json_put_end(o);
    cb_json_put_end(o);
    cb_admin_send(call, 200);
}

static int get_status(cb_admin_call *call, void *user) {
    static const edge_question q = {.look = look_status, .done = done_status, .row_size = sizeof(totals)};
    return edge_ask(user, call, &q);
}

/* ---- GET /v1/listeners ---- */

typedef struct listener_row {
    const edge_listener *listener; /* only to compare */
    bool draining;
    cb_http_server_stats stats;
} listener_row;

static void look_listeners(edge_part *part, const void *arg) {
    (void)arg;
    for (const edge_server *s = part->worker->servers; s; s = s->next) {
        listener_row *row = edge_part_row(part, sizeof *row);
        if (!row) return;
        row->listener = s->listener;
        row->draining = s->draining;
        row->stats.size = sizeof row->stats;
        cb_http_server_stats_get(s->http, &row->stats);
    }
}

static void sum_listener(const edge *e, const edge_part *parts, const edge_listener *l, cb_http_server_stats *sum) {
    for (uint32_t i = 0; i < e->n_workers; i++) {
        const listener_row *rows = parts[i].rows;
        for (size_t k = 0; k < parts[i].n; k++) {
            const cb_http_server_stats *s = &rows[k].stats;
            if (rows[k].listener != l) continue;
            sum->conns_h1 += s->conns_h1;
            sum->conns_h2 += s->conns_h2;
            sum->conns_h3 += s->conns_h3;
            sum->conns_total += s->conns_total;
            sum->exchanges_total += s->exchanges_total;
            sum->exchanges_now += s->exchanges_now;
            sum->handshakes_failed += s->handshakes_failed;
            sum->limits_hit += s->limits_hit;
        }
    }
}

static void put_versions(cb_json_out *o, const edge_listener_conf *l) {
    static const char *const names[] = {"h1", "h2", "h3"};
    const uint32_t versions = l->versions ? l->versions : l->tls ? 7 : 3;
    cb_json_put_list(o, "versions");
    for (size_t i = 0; i < 3; i++)
        if (versions >> i & 1) cb_json_put_str(o, NULL, names[i]);
    cb_json_put_end(o);
}

static void put_listener(cb_json_out *o, const edge_listener *l, const cb_http_server_stats *s) {
    cb_json_put_object(o, NULL);
    cb_json_put_str(o, "name", l->conf->name);
    cb_json_put_str(o, "address", l->address);
    cb_json_put_bool(o, "tls", l->conf->tls != NULL);
    put_versions(o, l->conf);
    cb_json_put_object(o, "connections");
    cb_json_put_uint(o, "h1", s->conns_h1);
    cb_json_put_uint(o, "h2", s->conns_h2);
    cb_json_put_uint(o, "h3", s->conns_h3);
    cb_json_put_uint(o, "ever", s->conns_total);
    cb_json_put_end(o);
    cb_json_put_uint(o, "requests", s->exchanges_total);
    cb_json_put_uint(o, "active", s->exchanges_now);
    cb_json_put_uint(o, "handshakes_failed", s->handshakes_failed);
    cb_json_put_uint(o, "limits_hit", s->limits_hit);
    cb_json_put_end(o);
}

static void done_listeners(edge *e, const edge_part *parts, const void *arg, cb_admin_call *call) {
    cb_json_out *o = call ? cb_admin_json(call) : NULL;
    (void)arg;
    if (!call) return;
    cb_json_put_object(o, NULL);
    cb_json_put_list(o, "items");
    for (const edge_use *u = e->now->uses; u; u = u->next) {
        cb_http_server_stats sum = {.size = sizeof sum};
        sum_listener(e, parts, u->listener, &sum);
        put_listener(o, u->listener, &sum);
    }
    cb_json_put_end(o);
    cb_json_put_null(o, "next");
    cb_json_put_end(o);
    cb_admin_send(call, 200);
}

static int get_listeners(cb_admin_call *call, void *user) {
    static const edge_question q = {.look = look_listeners, .done = done_listeners, .row_size = sizeof(listener_row)};
    return edge_ask(user, call, &q);
}

/* ---- GET /v1/routes ---- */

static const edge_group_conf *group_of(const edge_conf *c, const char *name) {
    const edge_group_conf *groups = c->groups.at;
    for (size_t i = 0; i < c->groups.len; i++)
        if (strcmp(groups[i].name, name) == 0) return &groups[i];
    return NULL;
}

static void put_route(cb_json_out *o, const edge_route_conf *r, const char *tenant, size_t number) {
    const cb_config_list *names = r->auth && r->auth->all.len ? &r->auth->all : r->auth ? &r->auth->any : NULL;
    cb_json_put_object(o, NULL);
    cb_json_put_uint(o, "number", number);
    cb_json_put_str(o, "host", r->host);
    cb_json_put_str(o, "path", r->path);
    cb_json_put_str(o, "group", r->group);
    cb_json_put_str(o, "tenant", tenant);
    cb_json_put_list(o, "identities");
    for (size_t i = 0; names && i < names->len; i++)
        cb_json_put_str(o, NULL, ((const char *const *)names->at)[i]);
    cb_json_put_end(o);
    cb_json_put_end(o);
}

static int get_routes(cb_admin_call *call, void *user) {
    const edge *e = user;
    const edge_conf *c = e->now->conf;
    const edge_route_conf *routes = c->routes.at;
    const cb_admin_principal *who = cb_admin_who(call);
    const char *cursor = cb_admin_cursor(call);
    char next[24] = "", *end = NULL;
    unsigned long long at = cursor ? strtoull(cursor, &end, 10) : 0;
    uint32_t room = cb_admin_limit(call);
    if (cursor && (!*cursor || *end)) return cb_admin_problem(call, 400, "that cursor is not of this list");
    cb_admin_page_begin(call);
    for (; at < c->routes.len; at++) {
        const edge_group_conf *g = group_of(c, routes[at].group);
        const char *tenant = routes[at].tenant ? routes[at].tenant : g ? g->tenant : NULL;
        if (!(who->rights & CB_RIGHT_READ) && !cb_admin_of_tenant(who, tenant)) continue;
        if (!room--) {
            snprintf(next, sizeof next, "%llu", at);
            break;
        }
        put_route(cb_admin_json(call), &routes[at], tenant, at);
    }
    return cb_admin_page_end(call, *next ? next : NULL);
}

/* ---- GET /v1/certificates ---- */

typedef struct put {
    cb_json_out *o;
    const char *place, *name;
} put;

static void put_item(const cb_identity_item *item, void *user) {
    static const char *const kinds[] = {[CB_IDENTITY_CERTIFICATE] = "certificate",
                                        [CB_IDENTITY_CHAIN] = "chain",
                                        [CB_IDENTITY_OCSP] = "ocsp",
                                        [CB_IDENTITY_ROOTS] = "authority",
                                        [CB_IDENTITY_CRL] = "crl"};
    const put *p = user;
    cb_json_put_object(p->o, NULL);
    cb_json_put_str(p->o, "kind", kinds[item->kind]);
    cb_json_put_str(p->o, "place", p->place);
    cb_json_put_str(p->o, "of", p->name);
    cb_json_put_str(p->o, "name", item->name);
    if (item->file) cb_json_put_str(p->o, "file", item->file);
    if (item->since_s > 0) cb_json_put_int(p->o, "since", item->since_s);
    if (item->until_s > 0) cb_json_put_int(p->o, "until", item->until_s);
    if (item->kind == CB_IDENTITY_CERTIFICATE) {
        cb_json_put_list(p->o, "names");
        for (size_t i = 0; i < item->names_len; i++)
            cb_json_put_str(p->o, NULL, item->names[i]);
        cb_json_put_end(p->o);
        cb_json_put_bool(p->o, "must_staple", item->must_staple);
    }
    if (item->kind == CB_IDENTITY_OCSP) cb_json_put_bool(p->o, "good", !item->bad);
    cb_json_put_end(p->o);
}

static void put_acme(const edge_acme_item *item, void *user) {
    const put *p = user;
    cb_json_put_object(p->o, NULL);
    cb_json_put_str(p->o, "kind", "acme");
    cb_json_put_str(p->o, "place", "issuer");
    cb_json_put_str(p->o, "of", item->issuer);
    cb_json_put_str(p->o, "name", item->certificate);
    cb_json_put_str(p->o, "state", item->state);
    if (item->due_s) cb_json_put_int(p->o, "due", item->due_s);
    cb_json_put_int(p->o, "failures", item->failures);
    cb_json_put_end(p->o);
}

static int get_certificates(cb_admin_call *call, void *user) {
    const edge *e = user;
    put p = {.o = cb_admin_json(call), .place = "listener"};
    cb_json_put_object(p.o, NULL);
    cb_json_put_list(p.o, "items");
    for (const edge_use *u = e->now->uses; u; u = u->next) {
        p.name = u->listener->conf->name;
        if (u->listener->identity) cb_identity_list(u->listener->identity, put_item, &p);
    }
    p.place = "group";
    for (const edge_origin_trust *t = e->now->origins; t; t = t->next) {
        p.name = t->name;
        cb_identity_list(t->identity, put_item, &p);
    }
    p.place = "admin";
    p.name = "listen";
    if (e->admin_identity) cb_identity_list(e->admin_identity, put_item, &p);
    edge_acme_list(e->acme, put_acme, &p);
    cb_json_put_end(p.o);
    cb_json_put_null(p.o, "next");
    cb_json_put_end(p.o);
    return cb_admin_send(call, 200);
}

int edge_admin_status(edge *e, cb_admin *a) {
    static const cb_admin_resource rows[] = {
        {.size = sizeof rows[0],
         .method = "GET",
         .path = "/v1/status",
         .id = "getStatus",
         .summary = "The process, and totals of all workers",
         .rights = CB_RIGHT_READ,
         .handle = get_status},
        {.size = sizeof rows[0],
         .method = "GET",
         .path = "/v1/listeners",
         .id = "getListeners",
         .summary = "Addresses that are served, with what goes on there",
         .rights = CB_RIGHT_READ,
         .handle = get_listeners},
        {.size = sizeof rows[0],
         .method = "GET",
         .path = "/v1/routes",
         .id = "getRoutes",
         .summary = "Which group a request goes to",
         .rights = CB_RIGHT_READ | CB_RIGHT_READ_TENANT,
         .flags = CB_ADMIN_PAGES,
         .handle = get_routes},
        {.size = sizeof rows[0],
         .method = "GET",
         .path = "/v1/certificates",
         .id = "getCertificates",
         .summary = "Certificates, authorities, revocation lists and OCSP answers, and when they expire",
         .rights = CB_RIGHT_READ,
         .handle = get_certificates}};
    return edge_admin_add(a, rows, sizeof rows / sizeof *rows, e);
}
