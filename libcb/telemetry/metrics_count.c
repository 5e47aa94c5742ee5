/* What runs where things happen: a load and a store in memory that only this thread writes. */
#include "base/error.h"
#include "telemetry/cells.h"
#include "telemetry/metrics_int.h"
#include <string.h>

static int get(cb_cell **out, cb_meter *meter, cb_metric *f, const cb_slice *values, int kind) {
    if (!out || !meter || !f) return cb_fail(CB_EINVAL, "a metric's series: out, meter and family are needed");
    if (f->registry != meter->registry || f->shape.kind != kind)
        return cb_fail(CB_EINVAL, "metric %s: it is of another registry or kind", f->shape.name);
    return cb_cell_get(out, meter, f, values);
}

void cb_cell_release(cb_cell *c) {
    if (!c) return;
    pthread_mutex_t *lock = &c->series->family->lock;
    pthread_mutex_lock(lock);
    if (--c->refs == 0) cb_cell_drop(c);
    pthread_mutex_unlock(lock);
}

int cb_meter_counter(cb_counter **out, cb_meter *meter, cb_metric *family, const cb_slice *values) {
    return get((cb_cell **)out, meter, family, values, CB_METRIC_COUNTER);
}

int cb_meter_gauge(cb_gauge **out, cb_meter *meter, cb_metric *family, const cb_slice *values) {
    return get((cb_cell **)out, meter, family, values, CB_METRIC_GAUGE);
}

int cb_meter_histogram(cb_histogram **out, cb_meter *meter, cb_metric *family, const cb_slice *values) {
    return get((cb_cell **)out, meter, family, values, CB_METRIC_HISTOGRAM);
}

void cb_counter_release(cb_counter *c) {
    cb_cell_release((cb_cell *)c);
}

void cb_gauge_release(cb_gauge *g) {
    cb_cell_release((cb_cell *)g);
}

void cb_histogram_release(cb_histogram *h) {
    cb_cell_release((cb_cell *)h);
}

void cb_counter_add(cb_counter *c, uint64_t n) {
    cb_cell_grow(&c->cell.value, n);
}

void cb_counter_set(cb_counter *c, uint64_t total) {
    atomic_store_explicit(&c->cell.value, total, memory_order_relaxed);
}

void cb_gauge_add(cb_gauge *g, int64_t n) {
    cb_cell_grow(&g->cell.value, (uint64_t)n);
}

void cb_gauge_set(cb_gauge *g, int64_t value) {
    atomic_store_explicit(&g->cell.value, (uint64_t)value, memory_order_relaxed);
}

void cb_histogram_add(cb_histogram *h, uint64_t value) {
    cb_cell_observe(&h->cell, value);
}

static void remember(cb_cell *c, uint32_t slot, uint64_t value, const cb_exemplar *e) {
    struct cb_exemplar_slot *s = &c->exemplars->slots[slot];
    uint32_t turn = atomic_load_explicit(&s->turn, memory_order_relaxed);
    uint64_t w[5];
    memcpy(w, e->trace_id, 16);
    memcpy(w + 2, e->span_id, 8);
    w[3] = value;
    w[4] = (uint64_t)e->time_ms;
    atomic_store_explicit(&s->turn, turn + 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_release);
    for (int i = 0; i < 5; i++)
        atomic_store_explicit(&s->words[i], w[i], memory_order_relaxed);
    atomic_store_explicit(&s->turn, turn + 2 ? turn + 2 : 2, memory_order_release);
}

void cb_counter_add_exemplar(cb_counter *c, uint64_t n, const cb_exemplar *exemplar) {
    cb_counter_add(c, n);
    if (c->cell.exemplars && exemplar) remember(&c->cell, 0, n, exemplar);
}

void cb_histogram_add_exemplar(cb_histogram *h, uint64_t value, const cb_exemplar *exemplar) {
    cb_histogram_add(h, value);
    if (!h->cell.exemplars || !exemplar) return;
    const cb_bounds *b = h->cell.bounds;
    uint32_t fine = cb_bounds_find(b, value), slot = 0;
    while (slot < b->n_classic && fine >= b->classic[slot])
        slot++;
    remember(&h->cell, slot, value, exemplar);
}
