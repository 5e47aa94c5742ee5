#include "base/error.h"
#include "base/mem.h"
#include "base/opts.h"
#include "telemetry/metrics_int.h"
#include <gnutls/crypto.h>
#include <math.h>
#include <string.h>

enum { NAME_MAX_BYTES = 128, HELP_MAX_BYTES = 1024, SERIES = 1000, SERIES_MOST = 100000, IDLE_S = 600, DECIMALS = 12 };

int cb_metrics_new(cb_metrics **out, const cb_metrics_opts *opts) {
    cb_metrics_opts o;
    uint8_t hash_key[16];
    int rc = cb_opts_read(&o, sizeof o, opts, "cb_metrics_opts");
    if (rc < 0) return rc;
    if (!out) return cb_fail(CB_EINVAL, "cb_metrics_new: out is needed");
    if (gnutls_rnd(GNUTLS_RND_NONCE, hash_key, sizeof hash_key) < 0) return cb_fail(CB_ETLS, "no random bytes");
    const cb_alloc *alloc = o.alloc ? o.alloc : &cb_alloc_libc;
    cb_metrics *m = cb_mem_new(alloc, sizeof *m);
    if (!m) return cb_fail(CB_ENOMEM, "no memory for metrics");
    atomic_init(&m->refs, 1);
    m->alloc = *alloc;
    m->max_series = o.max_series ? o.max_series : SERIES_MOST;
    m->idle_ms = (o.idle_s ? o.idle_s : IDLE_S) * INT64_C(1000);
    memcpy(m->hash_key, hash_key, sizeof hash_key);
    m->families_end = &m->families;
    pthread_mutex_init(&m->lock, NULL);
    pthread_mutex_init(&m->collecting, NULL);
    cb_map_init(&m->by_name, &m->alloc, m->hash_key);
    *out = m;
    return CB_OK;
}

cb_metrics *cb_metrics_ref(cb_metrics *m) {
    atomic_fetch_add_explicit(&m->refs, 1, memory_order_relaxed);
    return m;
}

static void shape_free(cb_metric_shape *s, const cb_alloc *alloc) {
    for (uint32_t i = 0; i < s->n_labels && s->labels; i++)
        cb_mem_free(alloc, s->labels[i]);
    cb_mem_free(alloc, s->labels);
    cb_mem_free(alloc, s->name);
    cb_mem_free(alloc, s->help);
    cb_mem_free(alloc, s->unit);
    cb_bounds_free(s->bounds, alloc);
}

static void family_free(cb_metric *f) {
    const cb_alloc *alloc = &f->registry->alloc;
    while (!cb_list_empty(&f->series))
        cb_series_drop(CB_CONTAINER(f->series.next, cb_series, node));
    cb_map_free(&f->by_values);
    pthread_mutex_destroy(&f->lock);
    shape_free(&f->shape, alloc);
    cb_mem_free(alloc, f);
}

/* A meter's cells go, and what they counted stays, unless it only mirrors. */
static void meter_close(cb_meter *meter) {
    while (!cb_list_empty(&meter->cells)) {
        cb_cell *c = CB_CONTAINER(meter->cells.next, cb_cell, in_meter);
        pthread_mutex_t *lock = &c->series->family->lock;
        pthread_mutex_lock(lock);
        cb_cell_drop(c);
        pthread_mutex_unlock(lock);
    }
    cb_mem_free(&meter->registry->alloc, meter);
}

static void collector_free(cb_metrics *m, cb_collector *c) {
    if (c->drop) c->drop(c->user);
    cb_mem_free(&m->alloc, c);
}

void cb_metrics_unref(cb_metrics *m) {
    if (!m || atomic_fetch_sub_explicit(&m->refs, 1, memory_order_acq_rel) != 1) return;
    if (m->own) meter_close(m->own);
    for (cb_collector *c = m->collectors, *next; c; c = next) {
        next = c->next;
        collector_free(m, c);
    }
    for (cb_metric *f = m->families, *next; f; f = next) {
        next = f->next;
        family_free(f);
    }
    cb_map_free(&m->by_name);
    pthread_mutex_destroy(&m->collecting);
    pthread_mutex_destroy(&m->lock);
    cb_alloc alloc = m->alloc;
    cb_mem_free(&alloc, m);
}

/* ---- families ---- */

static bool is_name(const char *text) {
    size_t len = text ? strlen(text) : 0;
    if (len == 0 || len > NAME_MAX_BYTES || !(text[0] >= 'a' && text[0] <= 'z')) return false;
    return strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789_") == len;
}

static bool ends_in(const char *text, const char *end) {
    size_t len = strlen(text), n = strlen(end);
    return len > n && text[len - n - 1] == '_' && strcmp(text + len - n, end) == 0;
}

static int check_labels(const cb_metric_opts *o) {
    if (o->labels_len > CB_METRIC_LABELS_MAX)
        return cb_fail(CB_EINVAL, "metric %s: %zu labels; %d are the most", o->name, o->labels_len,
                       CB_METRIC_LABELS_MAX);
    for (size_t i = 0; i < o->labels_len; i++) {
        if (!is_name(o->labels[i]) || strcmp(o->labels[i], "le") == 0)
            return cb_fail(CB_EINVAL, "metric %s: label %zu is no name for one", o->name, i);
        for (size_t k = 0; k < i; k++)
            if (strcmp(o->labels[i], o->labels[k]) == 0)
                return cb_fail(CB_EINVAL, "metric %s: label %s is there twice", o->name, o->labels[i]);
    }
    return CB_OK;
}

static int check(const cb_metric_opts *o) {
    static const char *const endings[] = {"total", "bucket", "sum", "count", "created"};
    if (!is_name(o->name))
        return cb_fail(CB_EINVAL, "metric \"%s\": a name is [a-z][a-z0-9_]*, at most %d bytes", o->name ? o->name : "",
                       NAME_MAX_BYTES);
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++)
        if (ends_in(o->name, endings[i]))
            return cb_fail(CB_EINVAL, "metric %s: a name does not end in _%s: formats add that", o->name, endings[i]);
    if (o->kind < CB_METRIC_COUNTER || o->kind > CB_METRIC_HISTOGRAM)
        return cb_fail(CB_EINVAL, "metric %s: kind %d is none", o->name, o->kind);
    if (!o->help || !*o->help || strlen(o->help) > HELP_MAX_BYTES)
        return cb_fail(CB_EINVAL, "metric %s: help is needed, at most %d bytes", o->name, HELP_MAX_BYTES);
    if (o->unit && *o->unit && !(is_name(o->unit) && ends_in(o->name, o->unit)))
        return cb_fail(CB_EINVAL, "metric %s: the name must end in its unit, _%s", o->name, o->unit);
    if (o->decimals > DECIMALS) return cb_fail(CB_EINVAL, "metric %s: decimals above %d", o->name, DECIMALS);
    if (o->max_series > SERIES_MOST) return cb_fail(CB_EINVAL, "metric %s: max_series above %d", o->name, SERIES_MOST);
    return check_labels(o);
}

static int make_bounds(cb_metric_shape *s, const cb_metric_opts *o, const cb_alloc *alloc) {
    double one = pow(10, -(double)o->decimals);
    double min = o->min != 0 ? o->min : one > 1e-6 ? one : 1e-6;
    return cb_bounds_new(&s->bounds, alloc, min, o->max != 0 ? o->max : min * 1e9, o->decimals, o->bounds,
                         o->bounds_len);
}

static int make_shape(cb_metric_shape *s, const cb_metric_opts *o, const cb_alloc *alloc) {
    *s = (cb_metric_shape){.kind = o->kind, .decimals = o->decimals};
    s->name = cb_mem_text(alloc, o->name);
    s->help = cb_mem_text(alloc, o->help);
    bool whole = s->name && s->help;
    if (o->unit && *o->unit) whole = (s->unit = cb_mem_text(alloc, o->unit)) && whole;
    if (o->labels_len > 0) whole = (s->labels = cb_mem_new(alloc, o->labels_len * sizeof *s->labels)) && whole;
    for (size_t i = 0; i < o->labels_len && whole; i++) {
        whole = (s->labels[i] = cb_mem_text(alloc, o->labels[i])) != NULL;
        s->n_labels++;
    }
    int rc = whole ? CB_OK : cb_fail(CB_ENOMEM, "no memory for a metric");
    if (rc == CB_OK && o->kind == CB_METRIC_HISTOGRAM) rc = make_bounds(s, o, alloc);
    if (rc < 0) shape_free(s, alloc);
    return rc;
}

static bool same_bounds(const cb_bounds *a, const cb_bounds *b) {
    if (!a || !b) return a == b;
    return a->n == b->n && a->n_classic == b->n_classic && memcmp(a->upper, b->upper, a->n * sizeof *a->upper) == 0 &&
           memcmp(a->classic, b->classic, a->n_classic * sizeof *a->classic) == 0;
}

static bool same_text(const char *a, const char *b) {
    return a && b ? strcmp(a, b) == 0 : a == b;
}

static bool same_shape(const cb_metric_shape *a, const cb_metric_shape *b) {
    if (a->kind != b->kind || a->decimals != b->decimals || a->n_labels != b->n_labels) return false;
    if (!same_text(a->help, b->help) || !same_text(a->unit, b->unit)) return false;
    for (uint32_t i = 0; i < a->n_labels; i++)
        if (strcmp(a->labels[i], b->labels[i]) != 0) return false;
    return same_bounds(a->bounds, b->bounds);
}

/* Takes the shape over. With the registry's lock held. */
static int add_family(cb_metric **out, cb_metrics *m, cb_metric_shape *shape, const cb_metric_opts *o) {
    cb_metric *f = cb_mem_new(&m->alloc, sizeof *f);
    int rc =
        f ? cb_map_put(&m->by_name, shape->name, strlen(shape->name), f) : cb_fail(CB_ENOMEM, "no memory for a metric");
    if (rc < 0) {
        cb_mem_free(&m->alloc, f);
        return rc;
    }
    f->registry = m;
    f->shape = *shape;
    f->max_series = o->max_series ? o->max_series : SERIES;
    f->exemplars = o->exemplars && o->kind != CB_METRIC_GAUGE;
    pthread_mutex_init(&f->lock, NULL);
    cb_map_init(&f->by_values, &m->alloc, m->hash_key);
    cb_list_init(&f->series);
    *m->families_end = f;
    m->families_end = &f->next;
    *out = f;
    return CB_OK;
}

int cb_metrics_define(cb_metric **out, cb_metrics *m, const cb_metric_opts *opts) {
    cb_metric_opts o;
    cb_metric_shape shape;
    int rc = cb_opts_read(&o, sizeof o, opts, "cb_metric_opts");
    if (rc < 0) return rc;
    if (!out || !m) return cb_fail(CB_EINVAL, "cb_metrics_define: out and m are needed");
    if ((rc = check(&o)) < 0 || (rc = make_shape(&shape, &o, &m->alloc)) < 0) return rc;
    pthread_mutex_lock(&m->lock);
    cb_metric *f = cb_map_get(&m->by_name, o.name, strlen(o.name));
    bool same = f && same_shape(&f->shape, &shape);
    if (same)
        *out = f;
    else if (f)
        rc = cb_fail(CB_EEXIST, "metric %s is defined already, and otherwise", o.name);
    else
        rc = add_family(out, m, &shape, &o);
    pthread_mutex_unlock(&m->lock);
    if (f || rc < 0) shape_free(&shape, &m->alloc);
    return rc;
}

cb_metric *cb_metrics_find(const cb_metrics *m, const char *name) {
    cb_metrics *inside = (cb_metrics *)m; /* the lock is no part of what a reader sees */
    pthread_mutex_lock(&inside->lock);
    cb_metric *f = name ? cb_map_get(&m->by_name, name, strlen(name)) : NULL;
    pthread_mutex_unlock(&inside->lock);
    return f;
}

/* ---- meters and collectors ---- */

int cb_meter_new(cb_meter **out, cb_metrics *m) {
    if (!out || !m) return cb_fail(CB_EINVAL, "cb_meter_new: out and m are needed");
    cb_meter *meter = cb_mem_new(&m->alloc, sizeof *meter);
    if (!meter) return cb_fail(CB_ENOMEM, "no memory for a meter");
    meter->registry = cb_metrics_ref(m);
    cb_list_init(&meter->cells);
    *out = meter;
    return CB_OK;
}

void cb_meter_free(cb_meter *meter) {
    if (!meter) return;
    cb_metrics *m = meter->registry;
    meter_close(meter);
    cb_metrics_unref(m);
}

int cb_metrics_collector(cb_metrics *m, cb_metrics_collect collect, void *user) {
    return cb_metrics_collect_with(m, collect, user, NULL);
}

int cb_metrics_collect_with(cb_metrics *m, cb_metrics_collect collect, void *user, void (*drop)(void *user)) {
    if (!m || !collect) return cb_fail(CB_EINVAL, "cb_metrics_collector: m and collect are needed");
    cb_collector *c = cb_mem_new(&m->alloc, sizeof *c);
    if (!c) return cb_fail(CB_ENOMEM, "no memory for a collector");
    *c = (cb_collector){.collect = collect, .user = user, .drop = drop};
    int rc = CB_OK;
    pthread_mutex_lock(&m->collecting);
    if (!m->own && (m->own = cb_mem_new(&m->alloc, sizeof *m->own))) {
        *m->own = (cb_meter){.registry = m, .mirrors = true};
        cb_list_init(&m->own->cells);
    }
    if (m->own) {
        cb_collector **end = &m->collectors;
        while (*end)
            end = &(*end)->next;
        *end = c;
    } else {
        rc = cb_fail(CB_ENOMEM, "no memory for a meter");
    }
    pthread_mutex_unlock(&m->collecting);
    if (rc < 0) cb_mem_free(&m->alloc, c);
    return rc;
}

void cb_metrics_collector_remove(cb_metrics *m, cb_metrics_collect collect, void *user) {
    if (!m) return;
    pthread_mutex_lock(&m->collecting);
    for (cb_collector **at = &m->collectors; *at; at = &(*at)->next) {
        cb_collector *c = *at;
        if (c->collect != collect || c->user != user) continue;
        *at = c->next;
        collector_free(m, c);
        break;
    }
    pthread_mutex_unlock(&m->collecting);
}
