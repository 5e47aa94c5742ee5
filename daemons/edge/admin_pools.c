/* Groups and their origins, as all workers together see them, and taking origins out and in. */
#include "admin.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* An origin of one worker. Texts are copies: each worker has a router of its own time. */
typedef struct origin_row {
    char group[EDGE_LABEL], url[EDGE_URL];
    cb_proxy_origin at;
} origin_row;

static void see_origin(const cb_proxy_origin *o, void *user) {
    edge_part *part = user;
    origin_row *row = edge_part_row(part, sizeof *row);
    if (!row) return;
    row->at = *o;
    row->at.group = row->at.url = NULL;
    snprintf(row->group, sizeof row->group, "%s", o->group);
    snprintf(row->url, sizeof row->url, "%s", o->url);
}

static void look_origins(edge_part *part, const void *arg) {
    (void)arg;
    if (part->worker->proxy) cb_proxy_origins(part->worker->proxy, see_origin, part);
}

/* What all workers together say of one. */
typedef struct origin_sum {
    cb_proxy_origin all;
    uint32_t workers, down; /* down: workers that leave it out */
    uint32_t unwell;        /* workers that were told that it is down by its checks */
} origin_sum;

/* Rows are in the order of the configuration: the place is where it was for the one before, or somewhere. */
static const origin_row *find(const edge_part *part, size_t place, const char *group, size_t number) {
    const origin_row *rows = part->rows;
    for (size_t i = 0; i < part->n; i++) {
        const origin_row *row = &rows[(place + i) % part->n];
        if (row->at.number == number && strncmp(row->group, group, EDGE_LABEL - 1) == 0) return row;
    }
    return NULL;
}

static origin_sum sum_of(const edge *e, const edge_part *parts, size_t place, const char *group, size_t number) {
    origin_sum s = {.workers = 0};
    for (uint32_t i = 0; i < e->n_workers; i++) {
        const origin_row *row = parts[i].there && parts[i].n ? find(&parts[i], place, group, number) : NULL;
        if (!row) continue;
        const cb_proxy_origin *o = &row->at;
        s.workers++;
        s.down += o->out_ms > 0;
        s.unwell += o->share == 0;
        s.all.spared += o->spared;
        if (o->out_ms) s.all.rule = o->rule;
        s.all.held |= o->held;
        s.all.active += o->active;
        s.all.conns += o->conns;
        s.all.idle += o->idle;
        s.all.connecting += o->connecting;
        s.all.waiting += o->waiting;
        s.all.requests += o->requests;
        s.all.opened += o->opened;
        s.all.failed += o->failed;
        if (o->out_ms > s.all.out_ms) s.all.out_ms = o->out_ms;
    }
    return s;
}

static const char *state_of(const origin_sum *s) {
    if (s->all.held) return "out";
    if (s->workers && s->unwell == s->workers) return "down";
    return s->workers && s->down == s->workers ? "down" : s->down ? "failing" : "up";
}

/* What checks say of it; nothing is put for one that is not checked. */
static void put_health(const edge *e, cb_json_out *o, size_t place) {
    cb_health_status h = {.size = sizeof h};
    const cb_time now = cb_loop_now(e->loop);
    if (edge_checks_status(e, place, &h) < 0) return;
    cb_json_put_object(o, "health");
    cb_json_put_str(o, "state", cb_health_state_name(h.state));
    cb_json_put_str(o, "cause", cb_health_cause_name(h.cause));
    cb_json_put_uint(o, "since_ms", now > h.since ? (now - h.since) / 1000000 : 0);
    cb_json_put_int(o, "weight_percent", h.weight);
    cb_json_put_str(o, "reason", h.reason);
    cb_json_put_str(o, "last", h.last);
    cb_json_put_uint(o, "passed", h.passed);
    cb_json_put_uint(o, "failed", h.failed);
    cb_json_put_uint(o, "flaps", h.flaps);
    cb_json_put_uint(o, "suppressed_ms", h.until > now ? (h.until - now) / 1000000 : 0);
    cb_json_put_end(o);
}

static void put_origin(const edge *e, cb_json_out *o, const edge_origin_conf *conf, size_t number, size_t place,
                       const origin_sum *s) {
    cb_json_put_object(o, NULL);
    cb_json_put_uint(o, "number", number);
    cb_json_put_str(o, "url", conf->url);
    cb_json_put_int(o, "weight", conf->weight);
    cb_json_put_int(o, "priority", conf->priority);
    cb_json_put_str(o, "state", state_of(s));
    cb_json_put_bool(o, "out", (int)s->all.held);
    cb_json_put_int(o, "workers_down", s->down);
    cb_json_put_int(o, "back_in_ms", s->all.out_ms);
    cb_json_put_str(o, "left_out_for", s->all.out_ms ? cb_outlier_rule_name(s->all.rule) : NULL);
    cb_json_put_uint(o, "spared", s->all.spared);
    cb_json_put_int(o, "active", s->all.active);
    cb_json_put_object(o, "connections");
    cb_json_put_int(o, "open", s->all.conns);
    cb_json_put_int(o, "idle", s->all.idle);
    cb_json_put_int(o, "connecting", s->all.connecting);
    cb_json_put_uint(o, "opened", s->all.opened);
    cb_json_put_uint(o, "failed", s->all.failed);
    cb_json_put_end(o);
    cb_json_put_int(o, "waiting", s->all.waiting);
    cb_json_put_uint(o, "requests", s->all.requests);
    put_health(e, o, place);
    cb_json_put_end(o);
}

static void put_group(const edge *e, const edge_part *parts, cb_json_out *o, const edge_group_conf *g, size_t place) {
    const edge_origin_conf *origins = g->origins.at;
    cb_json_put_object(o, NULL);
    cb_json_put_str(o, "group", g->name);
    cb_json_put_str(o, "policy", cb_lb_policy_name(g->policy + CB_LB_ROUND_ROBIN));
    cb_json_put_str(o, "owner", g->owner);
    cb_json_put_str(o, "tenant", g->tenant);
    cb_json_put_list(o, "origins");
    for (size_t i = 0; i < g->origins.len; i++) {
        const origin_sum s = sum_of(e, parts, place + i, g->name, i);
        put_origin(e, o, &origins[i], i, place + i, &s);
    }
    cb_json_put_end(o);
    cb_json_put_end(o);
}

static bool may_see(const cb_admin_call *call, const edge_group_conf *g) {
    const cb_admin_principal *who = cb_admin_who(call);
    return who->rights & CB_RIGHT_READ || cb_admin_of_tenant(who, g->tenant);
}

typedef struct pools_arg {
    char group[EDGE_LABEL]; /* "" = all */
} pools_arg;

static void done_pools(edge *e, const edge_part *parts, const void *arg, cb_admin_call *call) {
    const edge_group_conf *groups = e->now->conf->groups.at;
    const pools_arg *wanted = arg;
    cb_json_out *o = call ? cb_admin_json(call) : NULL;
    const bool all = !*wanted->group;
    size_t place = 0, found = 0;
    if (!call) return;
    if (all) cb_json_put_object(o, NULL);
    if (all) cb_json_put_list(o, "items");
    for (size_t i = 0; i < e->now->conf->groups.len; place += groups[i++].origins.len) {
        if (!all && strncmp(groups[i].name, wanted->group, EDGE_LABEL - 1) != 0) continue;
        if (!may_see(call, &groups[i])) continue;
        put_group(e, parts, o, &groups[i], place);
        found++;
    }
    if (all) cb_json_put_end(o);
    if (all) cb_json_put_null(o, "next");
    if (all) cb_json_put_end(o);
    if (all || found)
        cb_admin_send(call, 200);
    else
        cb_admin_problem(call, 404, "there is no such group");
}

static int get_pools(cb_admin_call *call, void *user) {
    pools_arg arg = {.group = ""};
    const char *group = cb_admin_param(call, "group");
    snprintf(arg.group, sizeof arg.group, "%s", group ? group : "");
    return edge_ask(user, call,
                    &(edge_question){.look = look_origins,
                                     .done = done_pools,
                                     .row_size = sizeof(origin_row),
                                     .arg = &arg,
                                     .arg_size = sizeof arg});
}

/* ---- events ---- */

/* What is known of each origin, in the order of the configuration: the first letter of its state; '?' = nothing. */
static char *known_states(edge *e) {
    const edge_group_conf *groups = e->now->conf->groups.at;
    size_t n = 0;
    for (size_t i = 0; i < e->now->conf->groups.len; i++)
        n += groups[i].origins.len;
    if (e->origin_states && e->origin_states_len == n && e->origin_states_of == e->now) return e->origin_states;
    free(e->origin_states);
    e->origin_states = malloc(n + 1);
    e->origin_states_len = n;
    e->origin_states_of = e->now;
    if (e->origin_states) memset(e->origin_states, '?', n);
    return e->origin_states;
}

static void tell_origin(edge *e, const char *group, size_t number, const char *state) {
    edge_event(e, "origin", "{\"group\":\"%s\",\"number\":%zu,\"state\":\"%s\"}", group, number, state);
}

static void done_watch(edge *e, const edge_part *parts, const void *arg, cb_admin_call *call) {
    const edge_group_conf *groups = e->now->conf->groups.at;
    char *known = known_states(e);
    size_t place = 0;
    (void)arg, (void)call;
    e->origins_watched = false;
    for (size_t i = 0; known && i < e->now->conf->groups.len; i++)
        for (size_t k = 0; k < groups[i].origins.len; k++, place++) {
            const origin_sum s = sum_of(e, parts, place, groups[i].name, k);
            const char *state = state_of(&s);
            if (known[place] != '?' && known[place] != *state) tell_origin(e, groups[i].name, k, state);
            known[place] = *state;
            if (*state != 'u') e->origins_watched = true; /* until it is up again */
        }
}

void edge_pools_watch(edge *e) {
    static const edge_question q = {.look = look_origins, .done = done_watch, .row_size = sizeof(origin_row)};
    if (edge_ask(e, NULL, &q) < 0) edge_say_of(e->log, CB_LOG_WARN, "admin", "%s", cb_last_error());
}

/* ---- PUT /v1/pools/{group}/origins/{n} ---- */

typedef struct hold_body {
    int32_t out;
} hold_body;

static const cb_config_rule hold_rules[] = {
    {.name = "out",
     .offset = offsetof(hold_body, out),
     .kind = CB_CONFIG_BOOL,
     .required = 1,
     .doc =
         "true: it gets nothing new, until it is put in again or the configuration changes. false: it is in, also when "
         "failures had taken it out."},
    {.name = NULL}};
static const cb_config_schema hold_schema = {
    .size = sizeof hold_schema, .title = "An origin, out or in", .members = hold_rules, .root_size = sizeof(hold_body)};

typedef struct hold_arg {
    char group[EDGE_LABEL];
    uint32_t number;
    bool out;
} hold_arg;

static void look_hold(edge_part *part, const void *arg) {
    const hold_arg *h = arg;
    if (part->worker->proxy) cb_proxy_hold(part->worker->proxy, h->group, h->number, h->out);
    look_origins(part, arg); /* and how it is now */
}

static void done_hold(edge *e, const edge_part *parts, const void *arg, cb_admin_call *call) {
    const hold_arg *h = arg;
    const edge_group_conf *groups = e->now->conf->groups.at;
    size_t place = 0;
    edge_say(e->log, CB_LOG_INFO, "group %s: origin %u is %s", h->group, h->number, h->out ? "out" : "in");
    tell_origin(e, h->group, h->number, h->out ? "out" : "up");
    char *known = known_states(e);
    for (size_t i = 0; i < e->now->conf->groups.len; place += groups[i++].origins.len) {
        const edge_origin_conf *origins = groups[i].origins.at;
        if (strcmp(groups[i].name, h->group) != 0 || h->number >= groups[i].origins.len) continue;
        const origin_sum s = sum_of(e, parts, place + h->number, h->group, h->number);
        if (known) known[place + h->number] = h->out ? 'o' : 'u';
        e->origins_watched = true;
        if (!call) return;
        put_origin(e, cb_admin_json(call), &origins[h->number], h->number, place + h->number, &s);
        cb_admin_send(call, 200);
        return;
    }
    if (call) cb_admin_problem(call, 404, "the configuration has changed meanwhile");
}

static const edge_group_conf *group_named(const edge *e, const char *name) {
    const edge_group_conf *groups = e->now->conf->groups.at;
    for (size_t i = 0; i < e->now->conf->groups.len; i++)
        if (strcmp(groups[i].name, name) == 0) return &groups[i];
    return NULL;
}

static int put_origin_out(cb_admin_call *call, void *user) {
    const edge_group_conf *g = group_named(user, cb_admin_param(call, "group"));
    const hold_body *body = cb_admin_document(call);
    const char *text = cb_admin_param(call, "n");
    char *end = NULL;
    unsigned long n = strtoul(text, &end, 10);
    if (!g) return cb_admin_problem(call, 404, "there is no such group");
    if (*text < '0' || *text > '9' || *end || n >= g->origins.len || strlen(g->name) >= EDGE_LABEL)
        return cb_admin_problem(call, 404, "the group has no such origin");
    hold_arg arg = {.number = (uint32_t)n, .out = body->out};
    snprintf(arg.group, sizeof arg.group, "%s", g->name);
    return edge_ask(
        user, call,
        &(edge_question){
            .look = look_hold, .done = done_hold, .row_size = sizeof(origin_row), .arg = &arg, .arg_size = sizeof arg});
}

int edge_admin_pools(edge *e, cb_admin *a) {
    static const cb_admin_resource rows[] = {{.size = sizeof rows[0],
                                              .method = "GET",
                                              .path = "/v1/pools",
                                              .id = "getPools",
                                              .summary = "Groups of origins, and how each origin is",
                                              .rights = CB_RIGHT_READ | CB_RIGHT_READ_TENANT,
                                              .handle = get_pools},
                                             {.size = sizeof rows[0],
                                              .method = "GET",
                                              .path = "/v1/pools/{group}",
                                              .id = "getPool",
                                              .summary = "One group of origins",
                                              .rights = CB_RIGHT_READ | CB_RIGHT_READ_TENANT,
                                              .handle = get_pools},
                                             {.size = sizeof rows[0],
                                              .method = "PUT",
                                              .path = "/v1/pools/{group}/origins/{n}",
                                              .id = "putOrigin",
                                              .summary = "Take an origin out, or put it in again",
                                              .rights = CB_RIGHT_OPERATE,
                                              .flags = CB_ADMIN_CHANGES,
                                              .document = &hold_schema,
                                              .handle = put_origin_out}};
    return edge_admin_add(a, rows, sizeof rows / sizeof *rows, e);
}
