/* Checks of origins: made by the main thread, once for all workers, who get what comes of them as shares. */
#include "admin.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- shares: what the main thread writes, and workers read ---- */

typedef struct share {
    char *group;
    uint32_t number; /* in its group */
    bool checked;
    _Atomic uint32_t percent;
} share;

struct edge_shares {
    _Atomic unsigned refs;
    size_t n; /* all origins of the configuration, in its order */
    share at[];
};

static void shares_free(edge_shares *s) {
    for (size_t i = 0; i < s->n; i++)
        if (s->at[i].number == 0) free(s->at[i].group); /* all of a group have the first one's text */
    free(s);
}

int edge_shares_new(edge_shares **out, const edge_conf *c) {
    const edge_group_conf *g = c->groups.at;
    size_t n = 0, at = 0;
    for (size_t i = 0; i < c->groups.len; i++)
        n += g[i].origins.len;
    edge_shares *s = calloc(1, sizeof *s + n * sizeof s->at[0]);
    if (!s) return cb_error_set(CB_ENOMEM, "no memory for the health of origins");
    atomic_init(&s->refs, 1);
    s->n = n;
    for (size_t i = 0; i < c->groups.len; i++) {
        char *name = strdup(g[i].name);
        for (size_t k = 0; k < g[i].origins.len; k++, at++) {
            s->at[at].group = name;
            s->at[at].number = (uint32_t)k;
            s->at[at].checked = name && g[i].health && g[i].health->check;
            atomic_init(&s->at[at].percent, 100);
        }
    }
    *out = s;
    return CB_OK;
}

edge_shares *edge_shares_ref(edge_shares *s) {
    atomic_fetch_add(&s->refs, 1);
    return s;
}

void edge_shares_unref(edge_shares *s) {
    if (s && atomic_fetch_sub(&s->refs, 1) == 1) shares_free(s);
}

/* On the worker's thread. */
static void apply(cb_loop *loop, void *worker) {
    edge_worker *w = worker;
    (void)loop;
    for (size_t i = 0; w->shares && w->proxy && i < w->shares->n; i++) {
        share *s = &w->shares->at[i];
        if (s->checked) (void)cb_proxy_allow(w->proxy, s->group, s->number, atomic_load(&s->percent));
    }
}

void edge_checks_use(edge_worker *w, const edge_snapshot *s) {
    edge_shares_unref(w->shares);
    w->shares = edge_shares_ref(s->shares);
    apply(w->loop, w);
    for (size_t i = 0; i < w->shares->n; i++) /* of an origin that is not checked any more nothing is known */
        if (!w->shares->at[i].checked && w->shares->at[i].group)
            (void)cb_proxy_allow(w->proxy, w->shares->at[i].group, w->shares->at[i].number, 100);
}

/* ---- the monitor ---- */

/* An origin that is checked. */
typedef struct watched {
    char *key;    /* all that makes it what it is, as text: what has not changed goes on over a reload */
    uint32_t id;  /* in the monitor */
    size_t place; /* among all origins of the configuration */
    bool kept;
} watched;

struct edge_checks {
    cb_monitor *monitor;
    watched *at, *next;
    size_t n, n_next;
    uint32_t ids;
};

static watched *by_id(const edge_checks *c, uint32_t id) {
    for (size_t i = 0; i < c->n; i++)
        if (c->at[i].id == id) return &c->at[i];
    return NULL;
}

static void on_change(const cb_health_change *change, void *user) {
    edge *e = user;
    const watched *w = by_id(e->checks, change->id);
    if (!w || !e->now || w->place >= e->now->shares->n) return;
    atomic_store(&e->now->shares->at[w->place].percent, change->weight);
    edge_post_all(e, apply);
    if (e->admin && change->from != change->to) edge_pools_watch(e);
}

static cb_identity *trust_of(const edge_snapshot *s, const char *group) {
    for (const edge_origin_trust *t = s->origins; t; t = t->next)
        if (strcmp(t->name, group) == 0) return t->identity;
    return NULL;
}

static char *key_of(const edge_group_conf *g, const char *url, bool own_trust) {
    const edge_health_conf *h = g->health;
    const edge_check_conf *c = h->check;
    const edge_damping_conf *d = c->damping;
    char *key = NULL, *command = strdup("");
    for (size_t i = 0; i < c->command.len && command; i++) {
        char *more = NULL;
        if (asprintf(&more, "%s\n%s", command, ((const char *const *)c->command.at)[i]) < 0) more = NULL;
        free(command);
        command = more;
    }
    const int n = asprintf(
        &key,
        "%s\n%s\n%d %d %lld %lld %lld %lld %lld %lld %lld %lld\n%lld %lld %lld %lld "
        "%d\n%s\n%s\n%s\n%s\n%s\n%s\n%s\n%s\n%x "
        "%x %d %d %d\n%s\n%s\n%s",
        g->name, url, c->kind, c->start, (long long)c->port, (long long)c->interval_ms, (long long)c->fast_interval_ms,
        (long long)c->timeout_ms, (long long)c->jitter_percent, (long long)c->rise, (long long)c->fall,
        (long long)h->slow_start_ms, (long long)d->half_life_ms, (long long)d->suppress, (long long)d->reuse,
        (long long)d->max_ms, d->off, c->method, c->path, c->host ? c->host : "", c->statuses, c->body ? c->body : "",
        c->service, c->send ? c->send : "", c->expect ? c->expect : "", c->versions, g->versions, g->verify, g->tls12,
        own_trust, g->server_name ? g->server_name : "", g->host ? g->host : "", command ? command : "");
    free(command);
    return n < 0 ? NULL : key;
}

static void list_free(watched *at, size_t n) {
    for (size_t i = 0; i < n; i++)
        free(at[i].key);
    free(at);
}

static int complain(edge_source *from, const char *group) {
    return edge_wrong(from, cb_last_error(), "/groups/%s/health/check", group);
}

/* An origin of the configuration to come: one that goes on, or one that is checked from now on; what becomes of it is
 * told only after the commit, for until then no row is its own. */
static int watch(edge *e, watched *w, const edge_snapshot *next, const edge_group_conf *g, const char *url) {
    edge_checks *c = e->checks;
    edge_check made;
    w->key = key_of(g, url, trust_of(next, g->name) != NULL);
    if (!w->key) return cb_error_set(CB_ENOMEM, "no memory for a check");
    for (size_t i = 0; i < c->n; i++) {
        if (c->at[i].kept || strcmp(c->at[i].key, w->key) != 0) continue;
        c->at[i].kept = true;
        w->id = c->at[i].id;
        return CB_OK;
    }
    edge_check_of(&made, g, url);
    made.check.id = w->id = ++c->ids;
    made.check.identity = trust_of(next, g->name);
    const int rc = cb_monitor_add(c->monitor, &made.check);
    if (rc < 0) w->id = 0;
    return rc;
}

static int begin(edge *e, const edge_conf *conf) {
    if (e->checks) return CB_OK;
    edge_checks *c = e->checks = calloc(1, sizeof *c);
    if (!c) return cb_error_set(CB_ENOMEM, "no memory for checks");
    return cb_monitor_new(&c->monitor, e->loop,
                          CB_OPTS(cb_monitor_opts, .on_change = on_change, .user = e, .resolver = conf->resolver));
}

int edge_checks_prepare(edge *e, edge_snapshot *next, edge_source *from) {
    const edge_group_conf *g = next->conf->groups.at;
    size_t place = 0;
    int rc = begin(e, next->conf);
    edge_checks *c = e->checks;
    if (rc == CB_OK && next->shares->n && !(c->next = calloc(next->shares->n, sizeof *c->next)))
        rc = cb_error_set(CB_ENOMEM, "no memory for checks");
    if (rc < 0) return edge_wrong(from, cb_last_error(), "/groups");
    for (size_t i = 0; i < next->conf->groups.len; i++) {
        const edge_origin_conf *o = g[i].origins.at;
        const bool checked = g[i].health && g[i].health->check;
        for (size_t k = 0; k < g[i].origins.len; k++, place++) {
            if (!checked) continue;
            watched *w = &c->next[c->n_next++];
            w->place = place;
            if (watch(e, w, next, &g[i], o[k].url) < 0) return complain(from, g[i].name);
        }
    }
    return CB_OK;
}

static void forget_next(edge_checks *c) {
    list_free(c->next, c->n_next);
    c->next = NULL;
    c->n_next = 0;
    for (size_t i = 0; i < c->n; i++)
        c->at[i].kept = false;
}

void edge_checks_commit(edge *e, edge_snapshot *next) {
    edge_checks *c = e->checks;
    const edge_group_conf *g = next->conf->groups.at;
    for (size_t i = 0; i < c->n; i++)
        if (!c->at[i].kept) (void)cb_monitor_remove(c->monitor, c->at[i].id);
    for (size_t i = 0; i < c->n_next; i++) {
        const watched *w = &c->next[i];
        cb_health_status s = {.size = sizeof s};
        if (cb_monitor_status(c->monitor, w->id, &s) == CB_OK)
            atomic_store(&next->shares->at[w->place].percent, s.weight);
        for (size_t k = 0; k < next->conf->groups.len; k++) { /* certificates as they are now in the files */
            cb_identity *id =
                strcmp(g[k].name, next->shares->at[w->place].group) == 0 ? trust_of(next, g[k].name) : NULL;
            if (id) (void)cb_monitor_trust(c->monitor, w->id, id);
        }
    }
    watched *before = c->at;
    const size_t n = c->n;
    c->at = c->next;
    c->n = c->n_next;
    c->next = NULL;
    c->n_next = 0;
    list_free(before, n);
}

void edge_checks_abort(edge *e) {
    edge_checks *c = e->checks;
    if (!c) return;
    for (size_t i = 0; i < c->n_next; i++)
        if (c->next[i].id && !by_id(c, c->next[i].id)) (void)cb_monitor_remove(c->monitor, c->next[i].id);
    forget_next(c);
}

int edge_checks_status(const edge *e, size_t place, cb_health_status *out) {
    const edge_checks *c = e->checks;
    for (size_t i = 0; c && i < c->n; i++)
        if (c->at[i].place == place) return cb_monitor_status(c->monitor, c->at[i].id, out);
    return CB_ENOENT;
}

void edge_checks_free(edge *e) {
    edge_checks *c = e->checks;
    if (!c) return;
    cb_monitor_free(c->monitor);
    list_free(c->next, c->n_next);
    list_free(c->at, c->n);
    free(c);
    e->checks = NULL;
}
