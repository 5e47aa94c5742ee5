/* Figures for `top`, from two scrapes and what the daemon says of itself and of its origins. */
#include "text.h"
#include "top.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* The families and labels that are read; docs/metrics.md has them. */
#define REQUESTS          "cb_http_server_requests"
#define REQUEST_SECONDS   "cb_http_server_request_seconds"
#define ACTIVE            "cb_http_server_active_requests"
#define CONNECTIONS       "cb_http_server_connections"
#define BODY_BYTES        "cb_http_server_body_bytes"
#define HANDSHAKES        "cb_tls_handshakes"
#define FAILED_HANDSHAKES "cb_tls_failed_handshakes"
#define ORIGIN_REQUESTS   "cb_origin_requests"
#define ORIGIN_ACTIVE     "cb_origin_active_requests"
#define GROUP_SECONDS     "cb_origin_response_seconds"

typedef struct pair {
    const prom_page *before, *now;
    double interval_s;
} pair;

/* ---- figures ---- */

/* NaN + x is x: what one side does not have counts as nothing. */
static double rate(const pair *p, const char *family, const char *const *match) {
    const double now = prom_sum(p->now, family, match), before = prom_sum(p->before, family, match);
    if (isnan(now)) return NAN;
    const double more = now - (isnan(before) ? 0 : before);
    return more > 0 ? more / p->interval_s : 0; /* less: the daemon is another one now */
}

static void quantiles(const pair *p, const char *family, const char *const *match, double q[3], double *mean) {
    prom_histogram *h = malloc(2 * sizeof *h);
    static const double at[3] = {0.5, 0.9, 0.99};
    for (int i = 0; i < 3; i++)
        q[i] = NAN;
    *mean = NAN;
    if (!h) return;
    if (prom_histogram_read(&h[0], p->now, family, match)) {
        if (prom_histogram_read(&h[1], p->before, family, match)) prom_histogram_since(&h[0], &h[1]);
        for (int i = 0; i < 3; i++)
            q[i] = prom_quantile(&h[0], at[i]);
        *mean = h[0].count > 0 ? h[0].sum / h[0].count : NAN;
    }
    free(h);
}

static void read_requests(top_view *v, const pair *p) {
    static const char *const classes[] = {"", "1xx", "2xx", "3xx", "4xx", "5xx"};
    double q[3];
    v->requests = rate(p, REQUESTS, NULL);
    v->requests_total = prom_sum(p->now, REQUESTS, NULL);
    v->running = prom_sum(p->now, ACTIVE, NULL);
    for (int i = 1; i < 6; i++) {
        v->class[i] = rate(p, REQUESTS, (const char *const[]){"class", classes[i], NULL});
        if (isnan(v->class[i]) && !isnan(v->requests)) v->class[i] = 0; /* none yet */
    }
    quantiles(p, REQUEST_SECONDS, NULL, q, &v->mean);
    v->p50 = q[0];
    v->p90 = q[1];
    v->p99 = q[2];
    v->bytes_in = rate(p, BODY_BYTES, (const char *const[]){"direction", "in", NULL});
    v->bytes_out = rate(p, BODY_BYTES, (const char *const[]){"direction", "out", NULL});
}

static void read_connections(top_view *v, const pair *p) {
    static const char *const versions[TOP_VERSIONS] = {"1.1", "2", "3"};
    static const char *const server[] = {"side", "server", NULL};
    v->connections = prom_sum(p->now, CONNECTIONS, NULL);
    for (int i = 0; i < TOP_VERSIONS; i++)
        v->by_version[i] = prom_sum(p->now, CONNECTIONS, (const char *const[]){"version", versions[i], NULL});
    v->handshakes = rate(p, HANDSHAKES, server);
    v->handshakes_failed = rate(p, FAILED_HANDSHAKES, server);
}

static void read_process(top_view *v, const pair *p) {
    const double waited = rate(p, "cb_loop_wait_seconds", NULL), worked = rate(p, "cb_loop_busy_seconds", NULL);
    v->workers = prom_sum(p->now, "cb_edge_workers", NULL);
    v->busy = waited + worked > 0 ? worked / (waited + worked) : NAN;
    v->cpu = rate(p, "process_cpu_seconds", NULL);
    v->memory = prom_sum(p->now, "process_resident_memory_bytes", NULL);
    v->descriptors = prom_sum(p->now, "process_open_fds", NULL);
    v->draining = prom_sum(p->now, "cb_edge_draining", NULL);
}

/* ---- what the daemon says ---- */

static const json_node *first_of(const json_node *o, const char *const *names) {
    for (; o && *names; names++) {
        const json_node *v = json_get(o, *names);
        if (v) return v;
    }
    return NULL;
}

/* Cut at whole characters. */
static void keep(char *to, size_t cap, const char *text) {
    char *safe = cbctl_safe(text, strlen(text));
    size_t n = safe ? strlen(safe) : 0;
    if (n >= cap) n = cap - 1;
    while (n && safe[n] && ((unsigned char)safe[n] & 0xc0) == 0x80)
        n--;
    if (n) memcpy(to, safe, n);
    to[n] = '\0';
    free(safe);
}

static void keep_cell(char *to, size_t cap, const json_node *v) {
    char *cell = v ? cbctl_json_cell(v) : NULL;
    keep(to, cap, cell ? cell : "");
    free(cell);
}

static void read_status(top_view *v, const pair *p, const json_node *status) {
    const json_node *pid = json_get(status, "pid");
    char version[TOP_NAME - 16] = "", name[16] = "";
    keep_cell(name, sizeof name, first_of(status, (const char *const[]){"name", "daemon", NULL}));
    keep_cell(version, sizeof version, json_get(status, "version"));
    snprintf(v->version, sizeof v->version, "%s%s%s", name, *name && *version ? " " : "", version);
    keep_cell(v->revision, sizeof v->revision, json_get(status, "revision"));
    v->pid = json_number(pid);
    const double began = prom_sum(p->now, "process_start_time_seconds", NULL);
    v->uptime_s = isnan(began) ? NAN : difftime(time(NULL), 0) - began;
    if (v->uptime_s < 0) v->uptime_s = 0;
}

/* ---- origins ---- */

static top_origin *origin(top_view *v, const char *group, const char *name) {
    for (size_t i = 0; i < v->n_origins; i++)
        if (strcmp(v->origins[i].group, group) == 0 && strcmp(v->origins[i].name, name) == 0) return &v->origins[i];
    if (v->n_origins == TOP_ORIGINS) {
        v->n_left_out++;
        return NULL;
    }
    top_origin *o = &v->origins[v->n_origins++];
    *o = (top_origin){.requests = NAN, .errors = NAN, .p50 = NAN, .p99 = NAN, .active = NAN, .connections = NAN};
    keep(o->group, sizeof o->group, group);
    keep(o->name, sizeof o->name, name);
    return o;
}

/* "out" before "up": an operator's word counts. */
static void read_state(top_origin *o, const json_node *from) {
    const json_node *state = json_get(from, "state"), *up = NULL;
    if (json_is(json_get(from, "out"), JSON_TRUE)) {
        keep(o->state, sizeof o->state, "out");
        return;
    }
    up = first_of(from, (const char *const[]){"up", "healthy", NULL});
    if (json_is(state, JSON_TEXT))
        keep(o->state, sizeof o->state, state->text);
    else if (json_is(up, JSON_TRUE) || json_is(up, JSON_FALSE))
        keep(o->state, sizeof o->state, json_is(up, JSON_TRUE) ? "up" : "down");
}

static void read_pools(top_view *v, const json_node *pools) {
    static const char *const group_names[] = {"group", "name", NULL}, *const origin_names[] = {"url", "origin", "name",
                                                                                               NULL};
    const json_node *items = json_is(pools, JSON_LIST) ? pools : json_get(pools, "items"), *g, *o;
    for (g = json_first(items); g; g = g->next) {
        const json_node *group = first_of(g, group_names);
        for (o = json_first(json_get(g, "origins")); o; o = o->next) {
            const json_node *name = first_of(o, origin_names);
            if (!json_is(group, JSON_TEXT) || !json_is(name, JSON_TEXT)) continue;
            top_origin *to = origin(v, group->text, name->text);
            if (!to) continue;
            read_state(to, o);
            to->connections = json_number(json_get(json_get(o, "connections"), "open"));
            to->active = json_number(json_get(o, "active"));
        }
    }
}

/* Origins that only metrics know. */
static void find_origins(top_view *v, const prom_page *p) {
    const prom_family *f = prom_find(p, ORIGIN_REQUESTS);
    for (size_t i = 0; f && i < f->n; i++) {
        const prom_sample *s = &p->samples[f->first + i];
        (void)origin(v, prom_label_of(p, s, "group"), prom_label_of(p, s, "origin"));
    }
}

static void read_figures(top_origin *o, const pair *p) {
    const char *const all[] = {"group", o->group, "origin", o->name, NULL};
    const char *const failed[] = {"group", o->group, "origin", o->name, "class", "5xx", NULL};
    const char *const none[] = {"group", o->group, "origin", o->name, "class", "none", NULL};
    double q[3], mean;
    o->requests = rate(p, ORIGIN_REQUESTS, all);
    const double bad = rate(p, ORIGIN_REQUESTS, failed), nothing = rate(p, ORIGIN_REQUESTS, none);
    o->errors = isnan(o->requests) ? NAN : (isnan(bad) ? 0 : bad) + (isnan(nothing) ? 0 : nothing);
    quantiles(p, GROUP_SECONDS, (const char *const[]){"group", o->group, NULL}, q, &mean);
    o->p50 = q[0];
    o->p99 = q[2];
    const double active = prom_sum(p->now, ORIGIN_ACTIVE, all);
    if (!isnan(active)) o->active = active;
}

/* ---- all of it ---- */

static int by_name(const void *a, const void *b) {
    const top_origin *x = a, *y = b;
    const int group = strcmp(x->group, y->group);
    return group ? group : strcmp(x->name, y->name);
}

static int by_state(const void *a, const void *b) {
    const top_origin *x = a, *y = b;
    const int tone = (int)cbctl_tone_of(y->state) - (int)cbctl_tone_of(x->state);
    const int state = tone ? tone : strcmp(x->state, y->state);
    return state ? state : by_name(a, b);
}

/* The larger one first, what is not known last. */
static int larger(double x, double y, const void *a, const void *b) {
    const double l = isnan(x) ? -1 : x, r = isnan(y) ? -1 : y;
    return l > r ? -1 : l < r ? 1 : by_name(a, b);
}

static int by_requests(const void *a, const void *b) {
    return larger(((const top_origin *)a)->requests, ((const top_origin *)b)->requests, a, b);
}

static int by_errors(const void *a, const void *b) {
    return larger(((const top_origin *)a)->errors, ((const top_origin *)b)->errors, a, b);
}

static int by_latency(const void *a, const void *b) {
    return larger(((const top_origin *)a)->p99, ((const top_origin *)b)->p99, a, b);
}

void top_sort(top_view *v, enum top_sort by) {
    static int (*const orders[TOP_SORTS])(const void *, const void *) = {by_name, by_state, by_requests, by_errors,
                                                                         by_latency};
    qsort(v->origins, v->n_origins, sizeof *v->origins, orders[by]);
}

void top_read_nothing(top_view *v) {
    static const prom_page empty;
    top_read(v, &empty, &empty, 1, NULL, NULL);
}

void top_read(top_view *v, const prom_page *before, const prom_page *now, double interval_s, const json_node *status,
              const json_node *pools) {
    const pair p = {before, now, interval_s};
    v->interval_s = interval_s;
    v->n_origins = v->n_left_out = 0;
    read_status(v, &p, status);
    read_requests(v, &p);
    read_connections(v, &p);
    read_process(v, &p);
    read_pools(v, pools);
    find_origins(v, now);
    for (size_t i = 0; i < v->n_origins; i++)
        read_figures(&v->origins[i], &p);
}
