/* On the writer: members are checked, and their loads heeded, and both go into the shares of the table. */
#include "forwarding.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ADAPT_SCALE = 10 }; /* weights by load are whole numbers */

typedef struct watched { /* a member */
    uint32_t id, weight;
    int64_t number;           /* of adapt */
    int state;                /* enum cb_lb_state, by checks */
    uint32_t checked, loaded; /* percent, by checks and by load */
} watched;

struct edge_watch {
    edge_forwarding *f;
    cb_monitor *monitor;
    cb_lb_adapt *adapt;
    watched *members;
    size_t n;
    bool drains; /* who is down keeps what it has */
};

static watched *watched_of(edge_watch *w, uint32_t id) {
    for (size_t i = 0; i < w->n; i++)
        if (w->members[i].id == id) return &w->members[i];
    return NULL;
}

static void tell(const edge_watch *w, const watched *m) {
    uint32_t percent = m->checked * m->loaded / 100;
    if (!percent) percent = 1;
    if (w->f->node) (void)cb_lb_node_state(w->f->node, m->id, m->state, percent > 1000 ? 1000 : percent);
}

static void on_change(const cb_health_change *c, void *user) {
    edge_watch *w = user;
    watched *m = watched_of(w, c->id);
    if (!m) return;
    m->state = c->to == CB_HEALTH_DOWN ? (w->drains ? CB_LB_DRAINING : CB_LB_DEAD)
                                       : (c->to == CB_HEALTH_DRAINING ? CB_LB_DRAINING : CB_LB_UP);
    m->checked = c->weight ? c->weight : 100;
    if (w->adapt && m->number >= 0) (void)cb_lb_adapt_present(w->adapt, (uint32_t)m->number, m->state == CB_LB_UP);
    tell(w, m);
}

/* ---- making ---- */

static int add_check(edge_watch *w, const edge_forward_health_conf *h, const edge_forward_member_conf *m) {
    char address[80], name[32];
    const bool six = strchr(m->address, ':') != NULL;
    snprintf(address, sizeof address, six ? "[%s]:%lld" : "%s:%lld", m->address, (long long)h->port);
    snprintf(name, sizeof name, "%lld", (long long)m->id);
    const cb_health_opts o = {.size = sizeof o,
                              .interval_ms = (uint32_t)h->interval_ms,
                              .timeout_ms = (uint32_t)h->timeout_ms,
                              .rise = (uint32_t)h->rise,
                              .fall = (uint32_t)h->fall,
                              .slow_start_ms = (uint32_t)h->slow_start_ms};
    return cb_monitor_add(w->monitor, CB_OPTS(cb_check, .id = (uint32_t)m->id, .address = address, .name = name,
                                              .kind = h->kind == EDGE_CHECK_TCP ? CB_CHECK_TCP : CB_CHECK_HTTP,
                                              .group = "members", .health = &o, .tls = h->kind == EDGE_CHECK_HTTPS,
                                              .identity = w->f->roots, .server_name = h->host,
                                              .verify = (uint8_t)h->verify, .path = h->path, .host = h->host));
}

static int add_all(edge_watch *w, const edge_forwarding_conf *c) {
    const edge_forward_health_conf *h = c->health;
    const edge_forward_member_conf *m = c->members.at;
    int rc = CB_OK;
    for (size_t i = 0; i < c->members.len && rc == CB_OK; i++) {
        watched *to = &w->members[w->n++];
        const int64_t scaled = m[i].weight * ADAPT_SCALE;
        *to = (watched){.id = (uint32_t)m[i].id, .number = -1, .checked = 100, .loaded = 100};
        to->weight = (uint32_t)(scaled > CB_LB_WEIGHT_MAX ? m[i].weight : scaled);
        if (h->kind != EDGE_CHECK_NONE) rc = add_check(w, h, &m[i]);
        if (rc == CB_OK && w->adapt) {
            to->number = cb_lb_adapt_add(w->adapt, to->weight);
            rc = to->number < 0 ? (int)to->number : CB_OK;
        }
    }
    return rc;
}

static int make(edge_watch *w, edge_forwarding *f, const edge_forwarding_conf *c) {
    const edge_forward_health_conf *h = c->health;
    w->f = f;
    w->drains = h->down == EDGE_DOWN_DRAIN;
    w->members = calloc(c->members.len, sizeof *w->members);
    int rc = w->members ? CB_OK : cb_error_set(CB_ENOMEM, "no memory for checks");
    if (rc == CB_OK && h->kind != EDGE_CHECK_NONE)
        rc = cb_monitor_new(&w->monitor, f->e->loop, CB_OPTS(cb_monitor_opts, .on_change = on_change, .user = w));
    if (rc == CB_OK && h->by_load)
        rc = cb_lb_adapt_new(&w->adapt, CB_OPTS(cb_lb_adapt_opts, .step_ms = (uint32_t)h->load_step_ms,
                                                .min_percent = (uint32_t)h->load_min_percent,
                                                .max_percent = (uint32_t)h->load_max_percent));
    return rc == CB_OK ? add_all(w, c) : rc;
}

/* What checks said of a member is not said any more. */
static void unsay(const edge_forwarding *f, uint32_t id) {
    if (f->node) (void)cb_lb_node_state(f->node, id, CB_LB_UP, 100);
}

/* Who was not well stays so until the first result: a reload must not give it flows. */
static void carry_over(const edge_forwarding *f, const watched *was) {
    edge_watch *w = f->watch;
    watched *m = w ? watched_of(w, was->id) : NULL;
    if (!m) {
        unsay(f, was->id);
        return;
    }
    if (w->monitor) {
        m->state = was->state == CB_LB_DEAD && w->drains ? CB_LB_DRAINING : was->state;
        m->checked = was->checked;
    }
    if (w->adapt) m->loaded = was->loaded;
    if (w->adapt && m->number >= 0) (void)cb_lb_adapt_present(w->adapt, (uint32_t)m->number, m->state == CB_LB_UP);
    tell(w, m);
}

/* Gives the members to whoever wants to know what was said of them. */
static watched *stop(edge_forwarding *f, size_t *n) {
    edge_watch *w = f->watch;
    *n = w ? w->n : 0;
    if (!w) return NULL;
    watched *members = w->members;
    f->watch = NULL;
    cb_monitor_free(w->monitor);
    cb_lb_adapt_free(w->adapt);
    free(w);
    return members;
}

void edge_watch_end(edge_forwarding *f) {
    size_t n;
    watched *members = stop(f, &n);
    for (size_t i = 0; i < n; i++)
        unsay(f, members[i].id);
    free(members);
}

void edge_watch_begin(edge_forwarding *f, const edge_forwarding_conf *c) {
    size_t n;
    watched *before = stop(f, &n);
    if (c->health && c->id == c->writer && f->node) {
        f->watch = calloc(1, sizeof *f->watch);
        if (!f->watch || make(f->watch, f, c) < 0) {
            edge_say_of(f->e->log, CB_LOG_ERROR, "lb", "members are not checked: %s",
                        f->watch ? cb_last_error() : "no memory");
            edge_watch_end(f);
        }
    }
    for (size_t i = 0; i < n; i++)
        carry_over(f, &before[i]);
    free(before);
}

/* ---- loads ---- */

void edge_watch_tick(edge_forwarding *f) {
    edge_watch *w = f->watch;
    const cb_time now = cb_loop_now(f->e->loop);
    cb_lb_node_info m = {.size = sizeof m};
    if (!w || !w->adapt) return;
    for (size_t i = 0; cb_lb_node_member_get(f->node, i, &m) == CB_OK; i++) {
        const watched *to = watched_of(w, m.id);
        const bool fresh = to && m.load != UINT32_MAX && !m.dead && m.heard_ms < 10000;
        if (to) (void)cb_lb_adapt_report(w->adapt, (uint32_t)to->number, fresh ? m.load / 1000.0 : NAN, now);
    }
    if (cb_lb_adapt_run(w->adapt, now) != 1) return;
    for (size_t i = 0; i < w->n; i++) {
        watched *to = &w->members[i];
        const int64_t weight = cb_lb_adapt_weight(w->adapt, (uint32_t)to->number);
        if (weight <= 0) continue;
        to->loaded = (uint32_t)(weight * 100 / to->weight);
        if (!to->loaded) to->loaded = 1;
        tell(w, to);
    }
}
