/* Where spans go: a tracer of the configuration, shared by the workers, which sends on the side thread. */
#include "telemetry.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { RETIRE_MS = 2000, RETIRE_TICK_MS = 20 };

struct edge_tracing {
    edge *edge;
    _Atomic unsigned refs;
    char *key; /* what it was made from, as text */
    cb_tracer *tracer;
    cb_sampler *sampler;
    int from;
    cb_timer *tick; /* nobody adds any more: what waits has a moment to leave */
    uint32_t ticks;
};

static void tracing_free(edge_tracing *t) {
    cb_timer_free(t->tick);
    cb_tracer_free(t->tracer);
    cb_sampler_free(t->sampler);
    free(t->key);
    free(t);
}

/* ---- the end of one, on the side thread ---- */

static bool is_empty(const edge_tracing *t) {
    cb_tracer_stats s = {.size = sizeof s};
    return cb_tracer_stats_get(t->tracer, &s) < 0 || s.added == s.sent + s.dropped_failed;
}

static void end(edge_tracing *t) {
    atomic_fetch_sub(&t->edge->retiring, 1);
    tracing_free(t);
}

static void on_tick(cb_loop *loop, void *user) {
    edge_tracing *t = user;
    (void)loop;
    if (is_empty(t) || ++t->ticks > RETIRE_MS / RETIRE_TICK_MS) end(t);
}

static void retire(cb_loop *loop, void *user) {
    edge_tracing *t = user;
    cb_tracer_flush(t->tracer);
    if (is_empty(t) || cb_timer_start(&t->tick, loop, RETIRE_TICK_MS, RETIRE_TICK_MS, on_tick, t) < 0) end(t);
}

edge_tracing *edge_tracing_ref(edge_tracing *t) {
    if (t) atomic_fetch_add(&t->refs, 1);
    return t;
}

void edge_tracing_unref(edge_tracing *t) {
    if (!t || atomic_fetch_sub(&t->refs, 1) > 1) return;
    atomic_fetch_add(&t->edge->retiring, 1);
    if (cb_loop_post(edge_side_loop(t->edge), retire, t) < 0) atomic_fetch_sub(&t->edge->retiring, 1);
}

void edge_tracing_wait(const edge *e) {
    const struct timespec step = {.tv_nsec = RETIRE_TICK_MS * 1000000L};
    while (atomic_load(&e->retiring))
        nanosleep(&step, NULL);
}

/* ---- the making of one ---- */

/* Everything that a tracer is made with; files count by their content's look. */
static char *key_of(const edge_tracing_conf *c, const char *secret) {
    const char *files[] = {c->ca_file, c->cert_file, c->key_file};
    const cb_config_pair *pairs = c->resource.at;
    char *key = NULL;
    size_t len = 0;
    FILE *f = open_memstream(&key, &len);
    if (!f) return NULL;
    fprintf(f, "%s|%s|%s|%lld %lld %lld %d %d %d %d", c->url, c->service_name, secret ? secret : "",
            (long long)c->one_in, (long long)c->per_second, (long long)c->slow_ms, c->errors, c->decide_anew, c->trust,
            c->format);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        struct stat st = {.st_size = 0};
        if (files[i] && stat(files[i], &st) < 0) st.st_size = -1;
        fprintf(f, "|%s %lld.%09ld %lld", files[i] ? files[i] : "", (long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec,
                (long long)st.st_size);
    }
    for (size_t i = 0; i < c->resource.len; i++)
        fprintf(f, "|%s=%s", pairs[i].name, pairs[i].text);
    if (fclose(f) == 0) return key;
    free(key);
    return NULL;
}

typedef struct making {
    edge_tracing *t;
    cb_tracer_opts o;
    cb_loop *loop;
} making;

static int do_make(edge *e, void *arg) {
    making *m = arg;
    int rc = cb_tracer_new(&m->t->tracer, m->loop ? m->loop : edge_side_loop(e), &m->o);
    return rc == CB_OK && e ? cb_tracer_metrics(m->t->tracer, edge_metrics(e), "requests") : rc;
}

static int make_sampler(edge_tracing *t, const edge_tracing_conf *c) {
    return cb_sampler_new(&t->sampler, CB_OPTS(cb_sampler_opts, .ratio = 1.0 / (double)c->one_in,
                                               .slow_ms = (uint32_t)c->slow_ms, .per_second = (double)c->per_second,
                                               .errors = (uint8_t)c->errors, .not_parent = (uint8_t)c->decide_anew));
}

static int make_identity(cb_identity **out, const edge_tracing_conf *c) {
    if (!c->ca_file && !c->cert_file) return CB_OK;
    return cb_identity_new(
        out, CB_OPTS(cb_identity_opts, .ca_file = c->ca_file, .cert_file = c->cert_file, .key_file = c->key_file));
}

/* service.* and host.name as OpenTelemetry names them, then what the configuration adds. */
static size_t make_resource(cb_attribute *out, const edge_tracing_conf *c, const char *host, char instance[300]) {
    const cb_config_pair *pairs = c->resource.at;
    size_t n = 0;
    snprintf(instance, 300, "%s:%ld", host, (long)getpid());
    out[n++] = (cb_attribute){.key = "service.version", .text = cb_slice_str(cb_version_text())};
    out[n++] = (cb_attribute){.key = "service.instance.id", .text = cb_slice_str(instance)};
    out[n++] = (cb_attribute){.key = "host.name", .text = cb_slice_str(host)};
    for (size_t i = 0; i < c->resource.len; i++)
        out[n++] = (cb_attribute){.key = pairs[i].name, .text = cb_slice_str(pairs[i].text)};
    return n;
}

static int fill(edge_tracing *t, const edge_tracing_conf *c, const char *secret, edge *e, cb_loop *loop) {
    cb_attribute resource[3 + EDGE_RESOURCE_MAX];
    char host[256] = "", instance[300];
    cb_identity *identity = NULL;
    gethostname(host, sizeof host - 1);
    int rc = make_identity(&identity, c);
    if (rc == CB_OK) rc = make_sampler(t, c);
    making m = {.t = t,
                .loop = loop,
                .o = {.size = sizeof m.o,
                      .url = c->url,
                      .service_name = c->service_name,
                      .authorization = secret,
                      .identity = identity,
                      .resource = resource,
                      .resource_len = make_resource(resource, c, host, instance),
                      .json = c->format}};
    if (rc == CB_OK) rc = loop ? do_make(e, &m) : edge_side_do(e, do_make, &m);
    cb_identity_unref(identity);
    return rc;
}

static edge_tracing *tracing_new(edge *e, const edge_tracing_conf *c) {
    edge_tracing *t = calloc(1, sizeof *t);
    if (!t) return NULL;
    atomic_init(&t->refs, 1);
    t->edge = e;
    t->from = c->trust;
    return t;
}

static void forget(char *text) {
    if (text) explicit_bzero(text, strlen(text));
    free(text);
}

/* One that nothing has changed about goes on, with what it gathers. */
int edge_tracing_prepare(edge *e, edge_snapshot *next, edge_source *from) {
    const edge_tracing_conf *c = next->conf->tracing;
    char *secret = NULL, *key = NULL;
    if (!c || next->tracing) return CB_OK;
    if (c->authorization_file && edge_read_secret(&secret, c->authorization_file, from) < 0)
        return edge_wrong(from, cb_last_error(), "/tracing/authorization_file");
    int rc = (key = key_of(c, secret)) ? CB_OK : CB_ENOMEM;
    const edge_snapshot *now = e->now != next ? e->now : NULL;
    if (rc == CB_OK && now && now->tracing && strcmp(now->tracing->key, key) == 0) {
        next->tracing = edge_tracing_ref(now->tracing);
    } else if (rc == CB_OK && (rc = edge_side_begin(e)) == CB_OK) {
        edge_tracing *t = tracing_new(e, c);
        rc = t ? fill(t, c, secret, e, NULL) : CB_ENOMEM;
        if (t) t->key = key;
        if (t) key = NULL;
        if (rc == CB_OK) next->tracing = t;
        if (rc < 0 && t) tracing_free(t);
    }
    forget(key);
    forget(secret);
    return rc < 0 ? edge_wrong(from, cb_last_error(), "/tracing") : CB_OK;
}

/* Makes one on a loop that never runs: mistakes show, and nothing is sent. */
int edge_tracing_check(const edge_conf *c, edge_source *from) {
    cb_loop *loop = NULL;
    char *secret = NULL;
    if (!c->tracing) return CB_OK;
    if (c->tracing->authorization_file && edge_read_secret(&secret, c->tracing->authorization_file, from) < 0)
        return edge_wrong(from, cb_last_error(), "/tracing/authorization_file");
    edge_tracing *t = tracing_new(NULL, c->tracing);
    int rc = t ? cb_loop_new(&loop, NULL) : CB_ENOMEM;
    if (rc == CB_OK) rc = fill(t, c->tracing, secret, NULL, loop);
    if (rc < 0) edge_wrong(from, cb_last_error(), "/tracing");
    if (t) tracing_free(t);
    cb_loop_free(loop);
    forget(secret);
    return rc;
}

void edge_tracing_use(cb_proxy *p, const edge_tracing *t) {
    cb_proxy_set_tracing(p, t ? t->tracer : NULL, t ? t->sampler : NULL, t ? t->from : CB_TRACE_FROM_ALL);
}

int edge_tracing_stats(const edge_tracing *t, cb_tracer_stats *out) {
    return cb_tracer_stats_get(t->tracer, out);
}
