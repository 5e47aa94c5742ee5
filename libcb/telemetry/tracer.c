/* Spans wait in batches, encoded, until the loop has sent them: one request at a time. */
#include "base/error.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/opts.h"
#include "http/fetch.h"
#include "http/url.h"
#include "http/web.h"
#include "loop/loop_int.h"
#include "telemetry/otlp.h"
#include "telemetry/shown.h"
#include <cb/trace.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum {
    QUEUE = 4 << 20,
    QUEUE_MOST = 256 << 20,
    BATCH_SPANS = 512,
    BATCH_MS = 1000,
    TIMEOUT_MS = 10000,
    RETRY_S = 60,
    BACKOFF_MS = 500,
    BACKOFF_MOST_MS = 10000,
    ANSWER_BYTES = 64 << 10,
    RESOURCE_MOST = 64
};
static const cb_alloc *const heap = &cb_alloc_libc;

typedef struct batch {
    struct batch *next;
    cb_buf spans;
    uint32_t n;
} batch;

struct cb_tracer {
    cb_shown *shown;       /* NULL: in no registry */
    _Atomic uint32_t refs; /* the owner's, and one for each task that is posted */
    cb_loop *loop;
    const cb_log *log;
    cb_http_client *client;
    const cb_otlp_form *form;
    cb_tracer_opts o;
    char *url, *service_name, *authorization;
    cb_attribute *resource; /* with their texts copied */
    /* of the loop's thread */
    cb_fetch fetch;
    batch *sending; /* what the request under way carries, or the next attempt will */
    cb_buf body;
    cb_timer *timer;
    int64_t since_ms; /* of the first attempt to send it */
    uint32_t backoff_ms;
    bool freed, failing; /* failing: the last request failed, and that was logged */
    /* of all threads */
    pthread_mutex_t lock;
    batch *first, **end, *last;
    size_t bytes; /* of all batches that wait, and of the one that is being sent */
    bool told;    /* the loop knows that something waits */
    cb_tracer_stats stats;
};

static int64_t wall_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* ---- batches ---- */

static void batch_free(batch *b) {
    if (!b) return;
    cb_buf_free(&b->spans);
    cb_mem_free(heap, b);
}

static batch *batch_add(cb_tracer *t) {
    batch *b = cb_mem_new(heap, sizeof *b);
    if (!b) return NULL;
    cb_buf_init(&b->spans, heap, t->o.queue_bytes);
    *t->end = b;
    t->end = &b->next;
    return t->last = b;
}

/* The first batch, if it is full or may go as it is. */
static batch *batch_take(cb_tracer *t, bool any) {
    pthread_mutex_lock(&t->lock);
    batch *b = t->first;
    if (b && b->n > 0 && (any || b->n >= t->o.batch_spans || b->next)) {
        t->first = b->next;
        if (!t->first) {
            t->end = &t->first;
            t->last = NULL;
        }
    } else {
        b = NULL;
    }
    if (!t->first) t->told = false;
    pthread_mutex_unlock(&t->lock);
    return b;
}

/* ---- sending, on the loop's thread ---- */

static void pump(cb_tracer *t, bool any);

static void on_timer(cb_loop *loop, void *user) {
    (void)loop;
    cb_tracer *t = user;
    cb_timer_free(t->timer);
    t->timer = NULL;
    pump(t, true);
}

static void wait_ms(cb_tracer *t, int64_t ms) {
    if (!t->timer && cb_timer_start(&t->timer, t->loop, (uint64_t)(ms > 0 ? ms : 0), 0, on_timer, t) < 0)
        t->timer = NULL;
}

/* The batch is over: taken, or given up. */
static void settle(cb_tracer *t, bool taken) {
    pthread_mutex_lock(&t->lock);
    t->bytes -= t->sending->spans.len;
    *(taken ? &t->stats.sent : &t->stats.dropped_failed) += t->sending->n;
    pthread_mutex_unlock(&t->lock);
    batch_free(t->sending);
    t->sending = NULL;
    t->backoff_ms = 0;
    t->body.len = 0;
}

static void tell(cb_tracer *t, bool failed, int status, int rc) {
    if (failed && !t->failing && rc < 0)
        cb_log_line(t->log, CB_LOG_WARN, "trace", "%s does not take spans: %s", t->url, cb_last_error());
    else if (failed && !t->failing)
        cb_log_line(t->log, CB_LOG_WARN, "trace", "%s does not take spans: status %d", t->url, status);
    else if (!failed && t->failing)
        cb_log_line(t->log, CB_LOG_INFO, "trace", "%s takes spans again", t->url);
    t->failing = failed;
}

static void on_answer(cb_fetch *f, cb_exchange *x, int rc) {
    cb_tracer *t = CB_CONTAINER(f, cb_tracer, fetch);
    int status = rc == CB_OK ? cb_exchange_status(x) : 0;
    bool taken = status >= 200 && status < 300;
    bool later = rc < 0 || status == 429 || status == 502 || status == 503 || status == 504;
    int64_t now = wall_ms(), at = rc == CB_OK ? cb_web_retry_after(cb_exchange_field(x, "retry-after"), now) : 0;
    int64_t until = t->since_ms + t->o.retry_s * INT64_C(1000);
    tell(t, !taken, status, rc);
    pthread_mutex_lock(&t->lock);
    t->stats.failures += !taken;
    pthread_mutex_unlock(&t->lock);
    if (taken || !later || now >= until) {
        settle(t, taken);
        pump(t, false);
        return;
    }
    t->backoff_ms = t->backoff_ms ? t->backoff_ms * 2 : BACKOFF_MS;
    if (t->backoff_ms > BACKOFF_MOST_MS) t->backoff_ms = BACKOFF_MOST_MS;
    int64_t wait = at > now ? at - now : (int64_t)t->backoff_ms;
    wait_ms(t, wait < until - now ? wait : until - now);
}

static int ask(cb_tracer *t) {
    const cb_field authorization = {cb_slice_str("authorization"), cb_slice_str(t->authorization)};
    const cb_fetch_request request = {.method = "POST",
                                      .url = t->url,
                                      .accept = t->form->content_type,
                                      .content_type = t->form->content_type,
                                      .body = cb_buf_slice(&t->body),
                                      .fields = &authorization,
                                      .n_fields = t->authorization ? 1 : 0,
                                      .timeout_ms = t->o.timeout_ms};
    pthread_mutex_lock(&t->lock);
    t->stats.requests++;
    pthread_mutex_unlock(&t->lock);
    return cb_fetch_start(&t->fetch, t->client, &request);
}

/* Starts a request when none is under way and something is to go. `any`: a batch that is not full may go too. */
static void pump(cb_tracer *t, bool any) {
    const cb_otlp_resource resource = {t->service_name, t->resource, t->o.resource_len};
    while (!t->fetch.x) {
        if (!t->sending) {
            if (!(t->sending = batch_take(t, any))) break;
            t->since_ms = wall_ms();
            any = false;
            if (t->form->request(&t->body, &resource, cb_buf_slice(&t->sending->spans)) < 0) {
                settle(t, false);
                continue;
            }
        } else if (t->timer) {
            return; /* the next attempt has its time */
        }
        if (ask(t) >= 0) return;
        settle(t, false);
    }
    pthread_mutex_lock(&t->lock);
    bool more = t->first != NULL;
    pthread_mutex_unlock(&t->lock);
    if (more && !t->fetch.x) wait_ms(t, t->o.batch_ms);
}

static void tracer_unref(cb_tracer *t) {
    if (atomic_fetch_sub_explicit(&t->refs, 1, memory_order_acq_rel) != 1) return;
    while (t->first) {
        batch *b = t->first;
        t->first = b->next;
        batch_free(b);
    }
    for (size_t i = 0; t->resource && i < t->o.resource_len; i++) {
        cb_mem_free(heap, (char *)t->resource[i].key);
        cb_mem_free(heap, (uint8_t *)t->resource[i].text.base);
    }
    cb_mem_free(heap, t->resource);
    cb_mem_free(heap, t->url);
    cb_mem_free(heap, t->service_name);
    if (t->authorization) cb_mem_wipe(t->authorization, strlen(t->authorization));
    cb_mem_free(heap, t->authorization);
    pthread_mutex_destroy(&t->lock);
    cb_mem_free(heap, t);
}

static void on_told(cb_loop *loop, void *user) {
    (void)loop;
    cb_tracer *t = user;
    if (!t->freed) pump(t, false);
    tracer_unref(t);
}

/* ---- adding, on any thread ---- */

static int check_span(const cb_span *s) {
    if (!s || s->size < sizeof *s) return cb_fail(CB_EINVAL, "span: it, and its size, are needed");
    if (!s->context || !s->name) return cb_fail(CB_EINVAL, "span: context and name are needed");
    if (s->attributes_len > CB_OTLP_LIST_MAX || s->events_len > CB_OTLP_LIST_MAX)
        return cb_fail(CB_EINVAL, "span %s: more than %d attributes or events", s->name, CB_OTLP_LIST_MAX);
    for (size_t i = 0; i < s->attributes_len; i++)
        if (!s->attributes[i].key) return cb_fail(CB_EINVAL, "span %s: attribute %zu has no key", s->name, i);
    return CB_OK;
}

/* With the lock held. */
static int queue(cb_tracer *t, const cb_span *s) {
    batch *b = t->last && t->last->n < t->o.batch_spans ? t->last : batch_add(t);
    if (!b) return cb_fail(CB_ENOMEM, "no memory for spans");
    size_t before = b->spans.len;
    int rc = t->form->span(&b->spans, s);
    size_t grown = b->spans.len - before;
    if (rc >= 0 && t->bytes + grown > t->o.queue_bytes) rc = CB_ELIMIT;
    if (rc < 0) {
        b->spans.len = before;
        t->stats.dropped_full++;
        return cb_fail(rc, "span %s: no room among those that wait", s->name);
    }
    b->n++;
    t->bytes += grown;
    t->stats.added++;
    return CB_OK;
}

int cb_tracer_add(cb_tracer *t, const cb_span *span) {
    if (!t) return cb_fail(CB_EINVAL, "cb_tracer_add: t is needed");
    int rc = check_span(span);
    if (rc < 0) return rc;
    pthread_mutex_lock(&t->lock);
    rc = queue(t, span);
    /* The loop is told of the first span, and of each batch that is full. */
    bool tell_loop = rc == CB_OK && (!t->told || t->last->n == t->o.batch_spans);
    if (tell_loop) t->told = true;
    pthread_mutex_unlock(&t->lock);
    if (!tell_loop) return rc;
    atomic_fetch_add_explicit(&t->refs, 1, memory_order_relaxed);
    if (cb_loop_post(t->loop, on_told, t) < 0) { /* the next span tries again */
        atomic_fetch_sub_explicit(&t->refs, 1, memory_order_relaxed);
        pthread_mutex_lock(&t->lock);
        t->told = false;
        pthread_mutex_unlock(&t->lock);
    }
    return rc;
}

void cb_tracer_flush(cb_tracer *t) {
    if (t) pump(t, true);
}

int cb_tracer_stats_get(cb_tracer *t, cb_tracer_stats *out) {
    cb_tracer_stats all;
    if (!t) return cb_fail(CB_EINVAL, "cb_tracer_stats_get: t is needed");
    pthread_mutex_lock(&t->lock);
    all = t->stats;
    all.waiting_bytes = t->bytes;
    pthread_mutex_unlock(&t->lock);
    return cb_stats_give(out, &all, sizeof all, "cb_tracer_stats");
}

static int stats_for_metrics(void *t, void *out) {
    return cb_tracer_stats_get(t, out);
}

int cb_tracer_metrics(cb_tracer *t, cb_metrics *m, const char *name) {
    static const cb_shown_row rows[] = {{CB_F_TRACE_ADDED, offsetof(cb_tracer_stats, added), NULL},
                                        {CB_F_TRACE_SENT, offsetof(cb_tracer_stats, sent), NULL},
                                        {CB_F_TRACE_DROPPED, offsetof(cb_tracer_stats, dropped_full), "full"},
                                        {CB_F_TRACE_DROPPED, offsetof(cb_tracer_stats, dropped_failed), "failed"},
                                        {CB_F_TRACE_REQUESTS, offsetof(cb_tracer_stats, requests), NULL},
                                        {CB_F_TRACE_FAILURES, offsetof(cb_tracer_stats, failures), NULL},
                                        {CB_F_TRACE_WAITING, offsetof(cb_tracer_stats, waiting_bytes), NULL}};
    static const cb_shown_what what = {rows, sizeof rows / sizeof *rows, sizeof(cb_tracer_stats), stats_for_metrics};
    if (!t) return cb_fail(CB_EINVAL, "cb_tracer_metrics: t is needed");
    return cb_shown_begin(&t->shown, m, name, &what, t);
}

/* ---- making one ---- */

static int read_opts(cb_tracer_opts *o, const cb_tracer_opts *opts) {
    int rc = cb_opts_read(o, sizeof *o, opts, "cb_tracer_opts");
    if (rc < 0) return rc;
    if (!o->url || !o->service_name || !*o->service_name)
        return cb_fail(CB_EINVAL, "tracer: url and service_name are needed");
    if (o->queue_bytes > QUEUE_MOST) return cb_fail(CB_EINVAL, "tracer: queue_bytes above %d", QUEUE_MOST);
    if (o->resource_len > RESOURCE_MOST)
        return cb_fail(CB_EINVAL, "tracer: more than %d resource attributes", RESOURCE_MOST);
    for (size_t i = 0; i < o->resource_len; i++)
        if (!o->resource[i].key) return cb_fail(CB_EINVAL, "tracer: resource attribute %zu has no key", i);
    const struct {
        uint32_t *at, usual;
    } defaults[] = {{&o->queue_bytes, QUEUE},
                    {&o->batch_spans, BATCH_SPANS},
                    {&o->batch_ms, BATCH_MS},
                    {&o->timeout_ms, TIMEOUT_MS},
                    {&o->retry_s, RETRY_S}};
    for (size_t i = 0; i < sizeof defaults / sizeof *defaults; i++)
        if (*defaults[i].at == 0) *defaults[i].at = defaults[i].usual;
    return CB_OK;
}

/* The URL with the usual path where it has none. */
static int make_url(char **out, const char *url) {
    cb_url u;
    char text[CB_WEB_URL_BYTES];
    int rc = cb_url_parse(&u, url);
    if (rc < 0) return rc;
    const char *scheme_end = strstr(url, "://"), *path = scheme_end ? strchr(scheme_end + 3, '/') : NULL;
    size_t base = path && path[1] == '\0' ? (size_t)(path - url) : strlen(url);
    int n = snprintf(text, sizeof text, "%.*s%s", (int)base, url, path && path[1] ? "" : "/v1/traces");
    if (n < 0 || n >= (int)sizeof text)
        return cb_fail(CB_EINVAL, "tracer: the url is longer than %d bytes", CB_WEB_URL_BYTES);
    *out = cb_mem_text(heap, text);
    return *out ? CB_OK : cb_fail(CB_ENOMEM, "no memory for a tracer");
}

static int copy_texts(cb_tracer *t) {
    bool whole = (t->service_name = cb_mem_text(heap, t->o.service_name)) != NULL;
    if (t->o.authorization) whole = (t->authorization = cb_mem_text(heap, t->o.authorization)) && whole;
    if (t->o.resource_len > 0)
        whole = (t->resource = cb_mem_new(heap, t->o.resource_len * sizeof *t->resource)) && whole;
    for (size_t i = 0; whole && i < t->o.resource_len; i++) {
        const cb_attribute *from = &t->o.resource[i];
        t->resource[i] = *from;
        t->resource[i].text = (cb_slice){0};
        whole = (t->resource[i].key = cb_mem_text(heap, from->key)) != NULL;
        if (!whole || from->text.len == 0) continue;
        uint8_t *text = cb_mem_get(heap, from->text.len);
        whole = text != NULL;
        if (text) memcpy(text, from->text.base, from->text.len);
        t->resource[i].text = (cb_slice){text, text ? from->text.len : 0};
    }
    return whole ? CB_OK : cb_fail(CB_ENOMEM, "no memory for a tracer");
}

int cb_tracer_new(cb_tracer **out, cb_loop *loop, const cb_tracer_opts *opts) {
    cb_tracer_opts o;
    if (!out || !loop) return cb_fail(CB_EINVAL, "cb_tracer_new: out and loop are needed");
    int rc = read_opts(&o, opts);
    if (rc < 0) return rc;
    cb_tracer *t = cb_mem_new(heap, sizeof *t);
    if (!t) return cb_fail(CB_ENOMEM, "no memory for a tracer");
    atomic_init(&t->refs, 1);
    t->o = o;
    t->loop = loop;
    t->log = cb_loop_log(loop);
    t->form = o.json ? &cb_otlp_json : &cb_otlp_proto;
    t->end = &t->first;
    pthread_mutex_init(&t->lock, NULL);
    cb_buf_init(&t->body, heap, SIZE_MAX);
    cb_fetch_init(&t->fetch, ANSWER_BYTES, on_answer);
    rc = make_url(&t->url, o.url);
    if (rc == CB_OK) rc = copy_texts(t);
    if (rc == CB_OK) rc = cb_http_client_new(&t->client, loop, CB_OPTS(cb_http_client_opts, .identity = o.identity));
    if (rc < 0) {
        cb_tracer_free(t);
        return rc;
    }
    *out = t;
    return CB_OK;
}

void cb_tracer_free(cb_tracer *t) {
    if (!t) return;
    cb_shown_end(t->shown);
    t->shown = NULL;
    t->freed = true;
    cb_fetch_free(&t->fetch);
    cb_timer_free(t->timer);
    cb_http_client_free(t->client);
    batch_free(t->sending);
    cb_buf_free(&t->body);
    tracer_unref(t);
}
