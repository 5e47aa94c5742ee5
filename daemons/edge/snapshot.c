/* From a configuration file to what workers use: router, identities, tickets, groups. Nothing here opens a socket. */
#include "telemetry.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

edge_listener *edge_listener_ref(edge_listener *l) {
    atomic_fetch_add(&l->refs, 1);
    return l;
}

void edge_listener_unref(edge_listener *l) {
    if (!l || atomic_fetch_sub(&l->refs, 1) > 1) return;
    cb_identity_unref(l->identity);
    cb_tickets_unref(l->tickets);
    cb_group_unref(l->group);
    cb_config_unref(l->config);
    free(l->key);
    free(l);
}

edge_snapshot *edge_snapshot_ref(edge_snapshot *s) {
    atomic_fetch_add(&s->refs, 1);
    return s;
}

void edge_snapshot_unref(edge_snapshot *s) {
    if (!s || atomic_fetch_sub(&s->refs, 1) > 1) return;
    for (edge_use *u = s->uses, *next; u; u = next) {
        next = u->next;
        edge_listener_unref(u->listener);
        cb_identity_unref(u->fresh);
        free(u);
    }
    edge_trust_drop(s);
    edge_tracing_unref(s->tracing);
    cb_router_unref(s->router);
    edge_shares_unref(s->shares);
    edge_auth_free(s->auth);
    cb_tickets_unref(s->tickets);
    free(s->tickets_key);
    cb_config_unref(s->config);
    free(s);
}

/* A mistake that only shows when a file is read or an object made. */
static int complain(edge_source *from, const char *where, const char *name, const char *more) {
    return edge_wrong(from, cb_last_error(), "/%s%s%s%s", where, name[0] ? "/" : "", name, more);
}

/* ---- origins ---- */

static int make_group(edge_snapshot *s, const edge_group_conf *g, edge_source *from, const edge *e) {
    cb_identity *identity = NULL;
    cb_router *r = s->router;
    int rc = edge_trust_group(&identity, g, from, e);
    if (rc == CB_OK && identity) rc = edge_trust_keep(s, g->name, identity);
    if (rc < 0) {
        cb_identity_unref(identity);
        return rc;
    }
    cb_outlier_opts outliers;
    cb_origin_group_opts o = {.size = sizeof o,
                              .name = g->name,
                              .identity = identity,
                              .server_name = g->server_name,
                              .host = g->host,
                              .tenant = g->tenant,
                              .owner = g->owner,
                              .policy = g->policy + CB_LB_ROUND_ROBIN,
                              .versions = g->versions,
                              .connect_timeout_ms = (uint32_t)g->connect_timeout_ms,
                              .response_timeout_ms = (uint32_t)g->response_timeout_ms,
                              .idle_timeout_ms = (uint32_t)g->idle_timeout_ms,
                              .tunnel_timeout_ms = (uint32_t)g->tunnel_timeout_ms,
                              .keep_alive_ms = (uint32_t)g->keep_alive_ms,
                              .max_conns = (uint32_t)g->max_connections,
                              .max_idle = (uint32_t)g->max_idle,
                              .max_queue = (uint32_t)g->max_queue,
                              .max_fails = (uint32_t)g->max_fails,
                              .fail_window_ms = (uint32_t)g->fail_window_ms,
                              .fail_out_ms = (uint32_t)g->fail_out_ms,
                              .retries = (uint32_t)g->retries,
                              .no_retry = g->retries == 0,
                              .verify = (uint8_t)g->verify,
                              .tls13_only = (uint8_t)!g->tls12,
                              .send_proxy = (uint8_t)g->proxy_protocol,
                              .client_cert = (uint8_t)g->client_cert,
                              .down_is_out = g->health && g->health->when_all_down};
    if (g->health && g->health->outliers) {
        edge_outliers_of(&outliers, g->health->outliers);
        o.outliers = &outliers;
    }
    rc = cb_router_group(r, &o);
    cb_identity_unref(identity);
    const edge_origin_conf *origins = g->origins.at;
    for (size_t i = 0; i < g->origins.len && rc == CB_OK; i++)
        rc = cb_router_origin(r, g->name,
                              CB_OPTS(cb_origin_opts, .url = origins[i].url, .weight = (uint32_t)origins[i].weight,
                                      .priority = (uint32_t)origins[i].priority));
    return rc < 0 ? complain(from, "groups", g->name, "") : CB_OK;
}

static int make_route(edge_snapshot *s, const edge_route_conf *r, edge_source *from) {
    cb_route_auth auth;
    int has = edge_auth_route(&auth, s->auth, r, from);
    if (has < 0 && has != CB_ENOENT) return has;
    const cb_route_opts o = {.size = sizeof o,
                             .host = r->host,
                             .path = r->path,
                             .group = r->group,
                             .tenant = r->tenant,
                             .auth = has == CB_OK ? &auth : NULL};
    int rc = cb_router_route(s->router, &o);
    if (has == CB_OK) edge_auth_route_done(&auth);
    return rc;
}

static int make_router(edge_snapshot *s, edge_source *from, const edge *e) {
    const edge_conf *c = s->conf;
    const edge_group_conf *groups = c->groups.at;
    const edge_route_conf *routes = c->routes.at;
    const char *const *trusted = c->trusted_proxies.at;
    int rc = cb_router_new(&s->router), worst = CB_OK;
    char name[24];
    if (rc < 0) return rc;
    for (size_t i = 0; i < c->groups.len; i++) {
        rc = make_group(s, &groups[i], from, e);
        if (rc < 0) worst = rc;
    }
    for (size_t i = 0; i < c->routes.len && worst == CB_OK; i++) {
        snprintf(name, sizeof name, "%zu", i);
        if (make_route(s, &routes[i], from) < 0) worst = complain(from, "routes", name, "");
    }
    for (size_t i = 0; i < c->trusted_proxies.len; i++) {
        snprintf(name, sizeof name, "%zu", i);
        if (cb_router_trust(s->router, trusted[i]) < 0) worst = complain(from, "trusted_proxies", name, "");
    }
    return worst;
}

/* ---- session tickets ---- */

/* The ring of before goes on where nothing about it has changed: with it, what it remembers of early data. */
static int make_tickets(edge_snapshot *s, const edge *e, edge_source *from) {
    cb_seal *seal = NULL;
    const edge_snapshot *before = e ? e->now : NULL;
    const edge_tickets_conf *t = s->conf->tickets;
    const char *path = s->conf->ticket_key_file;
    if (asprintf(&s->tickets_key, "%lld %lld %lld %lld %d %s %s", (long long)t->rotate_s, (long long)t->lifetime_s,
                 (long long)t->lead_s, (long long)t->skew_s, t->follow, path ? path : "",
                 s->conf->state_key ? s->conf->state_key : "") < 0) {
        s->tickets_key = NULL;
        return CB_ENOMEM;
    }
    if (before && strcmp(before->tickets_key, s->tickets_key) == 0) {
        s->tickets = cb_tickets_ref(before->tickets);
        return CB_OK;
    }
    if (s->conf->state_key && path &&
        cb_seal_new(&seal, CB_OPTS(cb_seal_opts, .key = s->conf->state_key, .make = 1,
                                   .old_keys = s->conf->state_old_keys.at, .n_old_keys = s->conf->state_old_keys.len)) <
            0)
        return complain(from, "state_key", "", "");
    const cb_tickets_opts o = {.size = sizeof o,
                               .file = path,
                               .seal = seal,
                               .rotate_s = (uint32_t)t->rotate_s,
                               .lifetime_s = (uint32_t)t->lifetime_s,
                               .lead_s = (uint32_t)t->lead_s,
                               .skew_s = (uint32_t)t->skew_s,
                               .follow = (uint8_t)t->follow,
                               .handoff = e ? e->inherited : NULL,
                               .handoff_name = "tickets"};
    int rc = cb_tickets_new(&s->tickets, &o);
    if (rc < 0) rc = complain(from, path ? "ticket_key_file" : "tickets", "", "");
    cb_seal_unref(seal);
    return rc < 0 ? rc : CB_OK;
}

void edge_snapshot_turn_keys(const edge_snapshot *s, const cb_log *log) {
    static char said[256]; /* the main thread's */
    const char *why = cb_tickets_rotate(s->tickets, 0) < 0 ? cb_last_error() : "";
    if (*why && strcmp(why, said) != 0) edge_say(log, CB_LOG_WARN, "ticket keys: %s", why);
    if (!*why && *said) edge_say(log, CB_LOG_INFO, "ticket keys: all is well again");
    snprintf(said, sizeof said, "%s", why);
}

/* ---- listeners ---- */

/* What a server is opened with and cannot change, as text: certificates and limits change under open sockets. */
static char *key_of(const edge_listener_conf *l, const edge_snapshot *s) {
    const edge_conf *c = s->conf;
    const edge_tls_conf *t = l->tls;
    char *key = NULL;
    int n = asprintf(&key, "%s %s %u %d %d %lld tls %d %d %d %d %s cc %d %s", l->name, l->address, l->versions,
                     l->proxy_protocol, l->redirect_to_https, (long long)l->max_connections, t != NULL,
                     t ? t->tls12 : 0, t ? t->early_data : 0, t ? t->client_certificates : 0, s->tickets_key,
                     c->congestion_control, c->server_name ? c->server_name : "");
    return n < 0 ? NULL : key;
}

static edge_listener *known(const edge_snapshot *before, const char *key) {
    for (edge_use *u = before ? before->uses : NULL; u; u = u->next)
        if (strcmp(u->listener->key, key) == 0) return u->listener;
    return NULL;
}

static edge_place *place_of(const edge *e, const char *conf_address) {
    for (edge_place *p = e ? e->places : NULL; p; p = p->next)
        if (strcmp(p->conf_address, conf_address) == 0) return p;
    return NULL;
}

static int make_worker_group(edge_listener *l, edge *e, const edge_place *place, const edge_conf *c) {
    char name[EDGE_NAME];
    cb_slice kept;
    edge_name(name, l->conf->address, "group");
    const bool inherits = e && e->inherited && !place && cb_handoff_get(e->inherited, name, &kept) == CB_OK;
    const edge_quic_lb_conf *lb = c->quic_lb;
    const cb_dcid_hook dcids = e && c->forwarding ? edge_forwarding_dcids(e) : (cb_dcid_hook){.size = 0};
    const cb_group_opts o = {.size = sizeof o,
                             .workers = edge_workers_of(c),
                             .secret_file = c->quic_secret_file,
                             .server_id = lb ? lb->server_id : NULL,
                             .server_id_config = lb ? (uint32_t)lb->rotation : 0,
                             .cid_key_file = lb ? lb->cid_key_file : NULL,
                             .steering = e && e->steering ? &e->hook : NULL,
                             .dcids = dcids.opened ? &dcids : NULL,
                             .predecessor = place ? place->group : NULL,
                             .handoff = inherits ? e->inherited : NULL,
                             .handoff_name = inherits ? name : NULL};
    return cb_group_new(&l->group, &o);
}

/* The detail of the error names a field of cb_group_opts. */
static const char *group_at_fault(const edge_conf *c) {
    return c->quic_lb && !strstr(cb_last_error(), "secret_file") ? "quic_lb" : "quic_secret_file";
}

static int fill_listener(edge_listener *l, edge_snapshot *s, edge_source *from, edge *e) {
    const edge_place *place = place_of(e, l->conf->address);
    if (place) memcpy(l->address, place->address, sizeof l->address); /* port 0 was chosen */
    if (l->conf->tls) l->tickets = cb_tickets_ref(s->tickets);
    int rc = make_worker_group(l, e, place, s->conf);
    if (rc == CB_ELIMIT) return complain(from, "listeners", l->conf->name, "/address");
    return rc < 0 ? complain(from, group_at_fault(s->conf), "", "") : CB_OK;
}

static int make_listener(edge_use **out, edge_snapshot *s, edge *e, const edge_listener_conf *conf, edge_source *from) {
    edge_use *u = calloc(1, sizeof *u);
    char *key = u ? key_of(conf, s) : NULL;
    int rc = key ? CB_OK : CB_ENOMEM;
    if (rc == CB_OK && conf->tls) rc = edge_trust_listener(&u->fresh, conf, s->conf, from, e);
    edge_listener *old = rc == CB_OK && e ? known(e->now, key) : NULL;
    if (old) {
        u->listener = edge_listener_ref(old);
        free(key);
        *out = u;
        return CB_OK;
    }
    edge_listener *l = rc == CB_OK ? calloc(1, sizeof *l) : NULL;
    if (!l) {
        free(key);
        if (u) cb_identity_unref(u->fresh);
        free(u);
        return rc < 0 ? rc : CB_ENOMEM;
    }
    atomic_init(&l->refs, 1);
    l->conf = conf;
    l->config = cb_config_ref(s->config);
    l->key = key;
    l->identity = u->fresh;
    u->fresh = NULL;
    u->listener = l;
    snprintf(l->address, sizeof l->address, "%s", conf->address);
    *out = u;
    return fill_listener(l, s, from, e);
}

uint32_t edge_workers_of(const edge_conf *c) {
    return c->workers ? (uint32_t)c->workers : edge_cpus();
}

int edge_snapshot_load(edge_snapshot **out, edge_source *from, edge *e) {
    edge_snapshot *s = calloc(1, sizeof *s);
    if (!s) return CB_ENOMEM;
    atomic_init(&s->refs, 1);
    const size_t before = from->n;
    int rc = cb_config_parse(&s->config, &edge_schema, from->text, from->name, edge_wrong_at, from);
    if (rc < 0) {
        if (from->n == before) edge_wrong(from, cb_last_error(), "%s", ""); /* no place in it to name */
        edge_snapshot_unref(s);
        return rc;
    }
    s->conf = cb_config_root(s->config);
    const edge_listener_conf *listeners = s->conf->listeners.at;
    rc = edge_auth_new(&s->auth, s->conf, from, e);
    if (rc == CB_OK) rc = make_router(s, from, e);
    if (rc == CB_OK) rc = edge_shares_new(&s->shares, s->conf);
    if (edge_acme_check_files(s->conf, from) < 0) rc = CB_EINVAL;
    if (make_tickets(s, e, from) < 0) {
        edge_snapshot_unref(s);
        return CB_EINVAL;
    }
    for (size_t i = s->conf->listeners.len; i-- > 0;) {
        edge_use *u = NULL;
        int one = make_listener(&u, s, e, &listeners[i], from);
        if (one < 0) rc = one;
        if (!u) continue;
        u->next = s->uses;
        s->uses = u;
    }
    if (rc < 0) {
        edge_snapshot_unref(s);
        return rc;
    }
    edge_trust_tell(s, from, NULL);
    *out = s;
    return CB_OK;
}

void edge_snapshot_certificates(edge_snapshot *s) {
    for (edge_use *u = s->uses; u; u = u->next) {
        if (!u->fresh) continue;
        cb_identity_swap(u->listener->identity, u->fresh);
        cb_identity_unref(u->fresh);
        u->fresh = NULL;
    }
}

/* ---- addresses that stay ---- */

const char *edge_name(char out[EDGE_NAME], const char *conf_address, const char *what) {
    snprintf(out, EDGE_NAME, "%s %s", what, conf_address);
    return out;
}

static void place_free(edge_place *p) {
    cb_group_unref(p->group);
    free(p->conf_address);
    free(p);
}

static edge_place *place_add(edge *e, const edge_listener *l) {
    edge_place *p = calloc(1, sizeof *p);
    if (!p || !(p->conf_address = strdup(l->conf->address))) {
        free(p);
        return NULL;
    }
    p->next = e->places;
    e->places = p;
    return p;
}

int edge_snapshot_settle(edge *e, const edge_snapshot *s) {
    for (const edge_use *u = s->uses; u; u = u->next) {
        const edge_listener *l = u->listener;
        edge_place *p = place_of(e, l->conf->address);
        if (!p && !(p = place_add(e, l))) return CB_ENOMEM;
        cb_group_unref(p->group);
        p->group = cb_group_ref(l->group);
        memcpy(p->address, l->address, sizeof p->address);
    }
    return CB_OK;
}

void edge_places_free(edge *e) {
    while (e->places) {
        edge_place *p = e->places;
        e->places = p->next;
        place_free(p);
    }
}
