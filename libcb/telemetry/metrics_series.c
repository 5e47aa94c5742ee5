#include "base/error.h"
#include "base/mem.h"
#include "telemetry/metrics_int.h"
#include "telemetry/text.h"
#include <string.h>

enum { VALUE_MAX_BYTES = 256 };
static const char other[] = "_other";

static size_t n_sums(const cb_metric *f) {
    return f->shape.bounds ? 1 + f->shape.bounds->n : 1;
}

int cb_series_key(cb_buf *key, const cb_metric *f, const cb_slice *values) {
    int rc = CB_OK;
    if (!values && f->shape.n_labels > 0)
        return cb_fail(CB_EINVAL, "metric %s: values of its labels are needed", f->shape.name);
    for (uint32_t i = 0; i < f->shape.n_labels && rc >= 0; i++) {
        rc = cb_text_clean(key, values[i], VALUE_MAX_BYTES);
        if (rc >= 0) rc = cb_buf_add(key, "", 1);
    }
    return rc;
}

static int other_key(cb_buf *key, const cb_metric *f) {
    int rc = CB_OK;
    key->len = 0;
    for (uint32_t i = 0; i < f->shape.n_labels && rc >= 0; i++)
        rc = cb_buf_add(key, other, sizeof other);
    return rc;
}

/* a="x",b="y" with the escapes that both text formats have. */
static int labels_text(cb_buf *out, const cb_metric_shape *shape, const char *values) {
    int rc = CB_OK;
    for (uint32_t i = 0; i < shape->n_labels && rc >= 0; i++, values += strlen(values) + 1) {
        rc = cb_buf_printf(out, "%s%s=\"", i > 0 ? "," : "", shape->labels[i]);
        for (const char *p = values; *p && rc >= 0; p++) {
            const char *escaped = *p == '"' ? "\\\"" : *p == '\\' ? "\\\\" : *p == '\n' ? "\\n" : NULL;
            rc = escaped ? cb_buf_text(out, escaped) : cb_buf_add(out, p, 1);
        }
        if (rc >= 0) rc = cb_buf_text(out, "\"");
    }
    return rc < 0 ? rc : cb_buf_add(out, "", 1);
}

static int series_new(cb_series **out, cb_metric *f, const cb_buf *key) {
    const cb_alloc *alloc = &f->registry->alloc;
    cb_buf text;
    cb_buf_init(&text, alloc, SIZE_MAX);
    int rc = cb_buf_add(&text, key->base, key->len); /* the values come first: their end is known */
    if (rc >= 0) rc = labels_text(&text, &f->shape, (const char *)key->base);
    cb_series *s = rc >= 0 ? cb_mem_new(alloc, sizeof *s) : NULL;
    if (rc >= 0 && !s) rc = cb_fail(CB_ENOMEM, "no memory for a series");
    if (rc >= 0) rc = cb_map_put(&f->by_values, key->base, key->len, s);
    if (rc < 0) {
        cb_mem_free(alloc, s);
        cb_buf_free(&text);
        return rc;
    }
    s->family = f;
    s->values = (char *)text.base;
    s->labels = s->values + key->len;
    s->key_len = key->len;
    cb_list_init(&s->cells);
    cb_list_add_tail(&f->series, &s->node);
    atomic_fetch_add_explicit(&f->registry->n_series, 1, memory_order_relaxed);
    *out = s;
    return CB_OK;
}

void cb_series_drop(cb_series *s) {
    cb_metrics *m = s->family->registry;
    while (!cb_list_empty(&s->cells))
        cb_cell_drop(CB_CONTAINER(s->cells.next, cb_cell, in_series));
    cb_map_del(&s->family->by_values, s->values, s->key_len);
    cb_list_del(&s->node);
    cb_mem_free(&m->alloc, s->base);
    cb_mem_free(&m->alloc, s->values);
    cb_mem_free(&m->alloc, s);
    atomic_fetch_sub_explicit(&m->n_series, 1, memory_order_relaxed);
}

void cb_metric_prune(cb_metric *f, int64_t now_ms) {
    cb_list *node = f->series.next;
    while (node != &f->series) {
        cb_series *s = CB_CONTAINER(node, cb_series, node);
        node = node->next;
        if (!cb_list_empty(&s->cells))
            s->idle_since_ms = 0;
        else if (!s->base || (s->idle_since_ms && now_ms - s->idle_since_ms >= f->registry->idle_ms))
            cb_series_drop(s);
        else if (!s->idle_since_ms)
            s->idle_since_ms = now_ms;
    }
}

static int find_series(cb_series **out, cb_metric *f, const cb_slice *values) {
    cb_metrics *m = f->registry;
    cb_buf key;
    cb_buf_init(&key, &m->alloc, CB_METRIC_LABELS_MAX * (VALUE_MAX_BYTES + 1));
    int rc = cb_series_key(&key, f, values);
    cb_series *s = rc >= 0 ? cb_map_get(&f->by_values, key.base, key.len) : NULL;
    bool full =
        f->by_values.len >= f->max_series || atomic_load_explicit(&m->n_series, memory_order_relaxed) >= m->max_series;
    if (rc >= 0 && !s && full && f->shape.n_labels > 0 && (rc = other_key(&key, f)) >= 0)
        s = cb_map_get(&f->by_values, key.base, key.len);
    if (rc >= 0 && !s) rc = series_new(&s, f, &key);
    cb_buf_free(&key);
    *out = s;
    return rc < 0 ? rc : CB_OK;
}

static cb_cell *cell_new(cb_meter *meter, cb_series *s) {
    const cb_metric *f = s->family;
    const cb_alloc *alloc = &meter->registry->alloc;
    uint32_t slots = !f->exemplars ? 0 : f->shape.bounds ? f->shape.bounds->n_classic + 1 : 1;
    cb_cell *c = cb_mem_new(alloc, sizeof *c + (n_sums(f) - 1) * sizeof *c->buckets);
    if (!c) return NULL;
    if (slots > 0 && !(c->exemplars = cb_mem_new(alloc, sizeof *c->exemplars + slots * sizeof *c->exemplars->slots))) {
        cb_mem_free(alloc, c);
        return NULL;
    }
    if (slots > 0) c->exemplars->n = slots;
    c->series = s;
    c->meter = meter;
    c->bounds = f->shape.bounds;
    cb_list_add_tail(&s->cells, &c->in_series);
    cb_list_add_tail(&meter->cells, &c->in_meter);
    s->idle_since_ms = 0;
    return c;
}

int cb_cell_get(cb_cell **out, cb_meter *meter, cb_metric *f, const cb_slice *values) {
    cb_series *s = NULL;
    cb_cell *mine = NULL;
    pthread_mutex_lock(&f->lock);
    int rc = find_series(&s, f, values);
    for (cb_list *n = rc == CB_OK ? s->cells.next : NULL; n && n != &s->cells && !mine; n = n->next)
        if (CB_CONTAINER(n, cb_cell, in_series)->meter == meter) mine = CB_CONTAINER(n, cb_cell, in_series);
    if (rc == CB_OK && !mine && !(mine = cell_new(meter, s))) {
        if (cb_list_empty(&s->cells) && !s->base) cb_series_drop(s);
        rc = cb_fail(CB_ENOMEM, "no memory for a series");
    }
    if (rc == CB_OK) {
        mine->refs++;
        *out = mine;
    }
    pthread_mutex_unlock(&f->lock);
    return rc;
}

/* What it counted is kept for its series. Without memory for that the series loses it, and its reader sees a reset. */
static void keep(cb_cell *c) {
    cb_series *s = c->series;
    const cb_metric *f = s->family;
    if (f->shape.kind == CB_METRIC_GAUGE || c->meter->mirrors) return;
    if (!s->base && !(s->base = cb_mem_new(&f->registry->alloc, n_sums(f) * sizeof *s->base))) return;
    s->base[0] += atomic_load_explicit(&c->value, memory_order_relaxed);
    for (size_t i = 1; i < n_sums(f); i++)
        s->base[i] += atomic_load_explicit(&c->buckets[i - 1], memory_order_relaxed);
}

void cb_cell_drop(cb_cell *c) {
    const cb_alloc *alloc = &c->meter->registry->alloc;
    keep(c);
    cb_list_del(&c->in_series);
    cb_list_del(&c->in_meter);
    cb_mem_free(alloc, c->exemplars);
    cb_mem_free(alloc, c);
}

void cb_series_sum(const cb_series *s, uint64_t *sums) {
    size_t n = n_sums(s->family);
    if (s->base)
        memcpy(sums, s->base, n * sizeof *sums);
    else
        memset(sums, 0, n * sizeof *sums);
    for (const cb_list *l = s->cells.next; l != &s->cells; l = l->next) {
        const cb_cell *c = CB_CONTAINER(l, cb_cell, in_series);
        sums[0] += atomic_load_explicit(&c->value, memory_order_relaxed);
        for (size_t i = 1; i < n; i++)
            sums[i] += atomic_load_explicit(&c->buckets[i - 1], memory_order_relaxed);
    }
}

/* One reading of a slot; false while its writer is at it: another scrape will have it. */
static bool read_slot(const struct cb_exemplar_slot *slot, cb_sample_exemplar *out) {
    uint64_t w[5];
    uint32_t turn = atomic_load_explicit(&slot->turn, memory_order_acquire);
    if (turn == 0 || turn & 1) return false;
    for (int i = 0; i < 5; i++)
        w[i] = atomic_load_explicit(&slot->words[i], memory_order_relaxed);
    atomic_thread_fence(memory_order_acquire);
    if (atomic_load_explicit(&slot->turn, memory_order_relaxed) != turn) return false;
    memcpy(out->trace_id, w, 16);
    memcpy(out->span_id, w + 2, 8);
    out->value = w[3];
    out->time_ms = (int64_t)w[4];
    return out->there = true;
}

void cb_series_exemplar(const cb_series *s, uint32_t slot, cb_sample_exemplar *out) {
    out->there = false;
    for (const cb_list *l = s->cells.next; l != &s->cells; l = l->next) {
        const cb_exemplars *all = CB_CONTAINER(l, cb_cell, in_series)->exemplars;
        cb_sample_exemplar one = {0};
        if (all && slot < all->n && read_slot(&all->slots[slot], &one) && (!out->there || one.time_ms > out->time_ms))
            *out = one;
    }
}
