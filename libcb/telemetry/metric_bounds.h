/* The buckets of a histogram family. Exponential ones (schema 3 of Prometheus' native histograms: eight a power of two)
 * and the classic ones are counted at once: each bound of either kind bounds a fine bucket, so both are exact. */
#ifndef CB_TELEMETRY_METRIC_BOUNDS_H
#define CB_TELEMETRY_METRIC_BOUNDS_H

#include <cb/base.h>

enum {
    CB_BOUNDS_SCHEMA = 3,
    CB_BOUNDS_CELLS = 16 + 60 * 16, /* a value's highest bit and the four after it name one */
    CB_BOUNDS_FINE_MAX = 8 * 40 + 64 + 4
};

typedef struct cb_bounds {
    uint32_t n;         /* fine buckets; the last has no bound */
    uint32_t n_classic; /* without +Inf */
    uint64_t *upper;    /* [n] the largest value of each; UINT64_MAX at the end */
    int16_t *native;    /* [n] the index of its exponential bucket; that of bucket 0, the zero bucket, means nothing */
    uint16_t *classic;  /* [n_classic] how many fine buckets are under that bound */
    double *le;         /* [n_classic] the bound in the unit */
    double zero;        /* the bound of the zero bucket in the unit */
    uint16_t start[CB_BOUNDS_CELLS];
} cb_bounds;

/* NULL bounds: the usual ones for seconds. CB_EINVAL (the detail says which bound), CB_ENOMEM. */
int cb_bounds_new(cb_bounds **out, const cb_alloc *alloc, double min, double max, uint32_t decimals,
                  const double *classic, size_t n_classic);
void cb_bounds_free(cb_bounds *b, const cb_alloc *alloc);

/* Which fine bucket a value belongs to. A cell of the table spans a sixteenth of a power of two, so few steps follow.
 */
static inline uint32_t cb_bounds_find(const cb_bounds *b, uint64_t value) {
    uint32_t cell = (uint32_t)value;
    if (value >= 16) {
        uint32_t high = 63 - (uint32_t)__builtin_clzll(value);
        cell = 16 + (high - 4) * 16 + ((uint32_t)(value >> (high - 4)) & 15);
    }
    uint32_t i = b->start[cell];
    while (value > b->upper[i])
        i++;
    return i;
}

#endif
