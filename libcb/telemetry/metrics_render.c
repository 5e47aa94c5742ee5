#include "base/error.h"
#include "base/mem.h"
#include "telemetry/metrics_int.h"
#include <math.h>
#include <string.h>

enum { FAMILY_MAX_BYTES = 256 << 20, PIECE = 32 << 10 };

/* One rendering: a family is written under its lock into memory, and leaves when the lock is free again. */
typedef struct rendering {
    int format;
    cb_buf out;
    cb_pb proto;    /* writes to out */
    uint64_t *sums; /* room for the largest series */
    cb_sample_exemplar exemplars[CB_METRIC_BOUNDS_MAX + 1];
} rendering;

/* What the collectors set no more is gone. */
static void collect(cb_metrics *m) {
    pthread_mutex_lock(&m->collecting);
    if (m->own) {
        for (cb_list *n = m->own->cells.next; n != &m->own->cells; n = n->next)
            CB_CONTAINER(n, cb_cell, in_meter)->refs = 0;
        for (cb_collector *c = m->collectors; c; c = c->next)
            c->collect(m->own, c->user);
        for (cb_list *n = m->own->cells.next, *next; n != &m->own->cells; n = next) {
            cb_cell *c = CB_CONTAINER(n, cb_cell, in_meter);
            next = n->next;
            if (c->refs > 0) continue;
            pthread_mutex_t *lock = &c->series->family->lock;
            pthread_mutex_lock(lock);
            cb_cell_drop(c);
            pthread_mutex_unlock(lock);
        }
    }
    pthread_mutex_unlock(&m->collecting);
}

static int series(rendering *r, const cb_metric *f, const cb_series *s) {
    cb_metric_sample sample = {.labels = s->labels, .values = s->values, .sums = r->sums};
    cb_series_sum(s, r->sums);
    if (f->exemplars && r->format != CB_METRICS_TEXT) {
        uint32_t n = f->shape.bounds ? f->shape.bounds->n_classic + 1 : 1;
        for (uint32_t i = 0; i < n; i++)
            cb_series_exemplar(s, i, &r->exemplars[i]);
        sample.exemplars = r->exemplars;
    }
    if (r->format == CB_METRICS_PROTOBUF) return cb_metric_proto_sample(&r->proto, &f->shape, &sample);
    return cb_metric_text_sample(&r->out, &f->shape, &sample, r->format == CB_METRICS_OPENMETRICS);
}

/* A family without series is not shown. */
static int family(rendering *r, cb_metric *f, int64_t now_ms) {
    int rc = CB_OK;
    pthread_mutex_lock(&f->lock);
    cb_metric_prune(f, now_ms);
    bool some = !cb_list_empty(&f->series), message = r->format == CB_METRICS_PROTOBUF;
    size_t mark = 0;
    if (some) {
        rc = message ? cb_metric_proto_begin(&r->proto, &f->shape, &mark)
                     : cb_metric_text_begin(&r->out, &f->shape, r->format == CB_METRICS_OPENMETRICS);
    }
    for (cb_list *n = f->series.next; n != &f->series && rc >= 0; n = n->next)
        rc = series(r, f, CB_CONTAINER(n, cb_series, node));
    if (some && message) cb_pb_close(&r->proto, mark);
    if (message && rc >= 0) rc = r->proto.rc;
    pthread_mutex_unlock(&f->lock);
    return rc;
}

static int give(rendering *r, size_t least, int (*write)(cb_slice, void *), void *user) {
    int rc = CB_OK;
    if (r->out.len > 0 && r->out.len >= least) {
        rc = write(cb_buf_slice(&r->out), user);
        r->out.len = 0;
    }
    return rc;
}

/* Families are only added, so the list can be walked when its lock was held once for each step. */
static cb_metric *next_family(cb_metrics *m, cb_metric *f) {
    pthread_mutex_lock(&m->lock);
    cb_metric *next = f ? f->next : m->families;
    pthread_mutex_unlock(&m->lock);
    return next;
}

int cb_metrics_render(cb_metrics *m, int format, int64_t now_ms, int (*write)(cb_slice piece, void *user), void *user) {
    if (!m || !write) return cb_fail(CB_EINVAL, "cb_metrics_render: m and write are needed");
    if (format < CB_METRICS_TEXT || format > CB_METRICS_PROTOBUF)
        return cb_fail(CB_EINVAL, "cb_metrics_render: format %d is none", format);
    rendering *r = cb_mem_new(&m->alloc, sizeof *r + (1 + CB_BOUNDS_FINE_MAX) * sizeof *r->sums);
    if (!r) return cb_fail(CB_ENOMEM, "no memory to render metrics");
    r->format = format;
    r->sums = (uint64_t *)(void *)(r + 1);
    cb_buf_init(&r->out, &m->alloc, FAMILY_MAX_BYTES);
    r->proto.out = &r->out;
    collect(m);
    int rc = CB_OK;
    for (cb_metric *f = next_family(m, NULL); f && rc >= 0; f = next_family(m, f)) {
        rc = family(r, f, now_ms);
        if (rc >= 0) rc = give(r, PIECE, write, user);
    }
    if (rc >= 0 && format == CB_METRICS_OPENMETRICS) rc = cb_buf_text(&r->out, "# EOF\n");
    if (rc >= 0) rc = give(r, 0, write, user);
    cb_buf_free(&r->out);
    cb_mem_free(&m->alloc, r);
    return rc < 0 ? rc : CB_OK;
}

int cb_metrics_value(cb_metrics *m, const char *name, const cb_slice *values, double *out) {
    if (!m || !name || !out) return cb_fail(CB_EINVAL, "cb_metrics_value: m, name and out are needed");
    cb_metric *f = cb_metrics_find(m, name);
    if (!f) return cb_fail(CB_ENOENT, "metric %s: there is no such family", name);
    uint64_t sums[1 + CB_BOUNDS_FINE_MAX], count = 0;
    cb_buf key;
    cb_buf_init(&key, &m->alloc, SIZE_MAX);
    pthread_mutex_lock(&f->lock);
    int rc = cb_series_key(&key, f, values);
    const cb_series *s = rc >= 0 ? cb_map_get(&f->by_values, key.base, key.len) : NULL;
    if (rc >= 0 && !s) rc = cb_fail(CB_ENOENT, "metric %s: there is no such series", name);
    if (s) cb_series_sum(s, sums);
    pthread_mutex_unlock(&f->lock);
    cb_buf_free(&key);
    if (rc < 0) return rc;
    for (uint32_t i = 0; f->shape.bounds && i < f->shape.bounds->n; i++)
        count += sums[1 + i];
    if (f->shape.kind == CB_METRIC_GAUGE)
        *out = (double)(int64_t)sums[0] / pow(10, f->shape.decimals);
    else
        *out = f->shape.bounds ? (double)count : (double)sums[0] / pow(10, f->shape.decimals);
    return CB_OK;
}
