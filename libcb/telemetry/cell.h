/* What one meter has of a series: the memory that is counted in. */
#ifndef CB_TELEMETRY_CELL_H
#define CB_TELEMETRY_CELL_H

#include "base/list.h"
#include "telemetry/metric_bounds.h"
#include <cb/metrics.h>
#include <stdatomic.h>

struct cb_series;
struct cb_exemplars;

/* Written by its meter's thread alone, read by who renders. */
typedef struct cb_cell {
    _Atomic uint64_t value; /* of a counter or gauge; the sum of a histogram */
    struct cb_series *series;
    cb_meter *meter;
    const cb_bounds *bounds;        /* of a histogram */
    struct cb_exemplars *exemplars; /* NULL: not remembered */
    cb_list in_series, in_meter;
    uint32_t refs;
    _Atomic uint64_t buckets[]; /* of a histogram: fine ones */
} cb_cell;

static inline void cb_cell_grow(_Atomic uint64_t *at, uint64_t n) {
    atomic_store_explicit(at, atomic_load_explicit(at, memory_order_relaxed) + n, memory_order_relaxed);
}

/* NULL counts nothing, in each of these: what was to be counted is not wanted, or had no memory. */
static inline void cb_cell_add(cb_cell *c, uint64_t n) {
    if (c) cb_cell_grow(&c->value, n);
}

static inline void cb_cell_move(cb_cell *gauge, int64_t n) {
    cb_cell_add(gauge, (uint64_t)n);
}

static inline void cb_cell_set(cb_cell *gauge, int64_t value) {
    if (gauge) atomic_store_explicit(&gauge->value, (uint64_t)value, memory_order_relaxed);
}

static inline void cb_cell_observe(cb_cell *histogram, uint64_t value) {
    if (!histogram) return;
    cb_cell_grow(&histogram->buckets[cb_bounds_find(histogram->bounds, value)], 1);
    cb_cell_grow(&histogram->value, value);
}

#endif
