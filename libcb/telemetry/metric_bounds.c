#include "telemetry/metric_bounds.h"
#include "base/error.h"
#include "base/mem.h"
#include <cb/metrics.h>
#include <math.h>
#include <string.h>

enum { PER_OCTAVE = 1 << CB_BOUNDS_SCHEMA };

static const double usual[] = {0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10};

/* The largest integer that is not above the bound: 0.005 s is 5,000,000 ns, whatever its nearest double is. */
static uint64_t whole(double bound, uint32_t decimals) {
    double v = bound * pow(10, decimals);
    if (v >= 18446744073709549568.0) return UINT64_MAX - 1;
    double near = nearbyint(v);
    return (uint64_t)(fabs(v - near) < near * 1e-12 ? near : floor(v));
}

static double native_bound(int index) {
    return exp2((double)index / PER_OCTAVE);
}

static int check(double min, double max, const double *classic, size_t n) {
    if (!(min > 0) || !(max > min) || !isfinite(max) || max / min > 1e12)
        return cb_fail(CB_EINVAL, "metric: the range %g to %g is not one (0 < min < max <= 1e12 * min)", min, max);
    if (n > CB_METRIC_BOUNDS_MAX)
        return cb_fail(CB_EINVAL, "metric: %zu bounds; %d are the most", n, CB_METRIC_BOUNDS_MAX);
    for (size_t i = 0; i < n; i++) {
        if (!isfinite(classic[i]) || classic[i] < min || classic[i] > max)
            return cb_fail(CB_EINVAL, "metric: bound %g is not in the range %g to %g", classic[i], min, max);
        if (i > 0 && classic[i] <= classic[i - 1])
            return cb_fail(CB_EINVAL, "metric: bound %g does not rise above the one before it", classic[i]);
    }
    return CB_OK;
}

/* Merges both kinds of bounds. Bounds between which no integer lies become one. */
static void merge(cb_bounds *b, double min, double max, uint32_t decimals) {
    int index = (int)ceil(log2(min) * PER_OCTAVE - 1e-9), last = (int)ceil(log2(max) * PER_OCTAVE - 1e-9);
    uint32_t n = 0, c = 0;
    b->zero = native_bound(index);
    while (index <= last || c < b->n_classic) {
        uint64_t native = index <= last ? whole(native_bound(index), decimals) : UINT64_MAX;
        uint64_t classic = c < b->n_classic ? whole(b->le[c], decimals) : UINT64_MAX;
        uint64_t bound = native < classic ? native : classic;
        if (n == 0 || bound > b->upper[n - 1]) {
            b->upper[n] = bound;
            b->native[n++] = (int16_t)index;
        }
        if (classic == bound) b->classic[c++] = (uint16_t)n;
        if (native == bound) index++;
    }
    b->upper[n] = UINT64_MAX;
    b->native[n++] = (int16_t)(last + 1);
    b->n = n;
}

static void index_cells(cb_bounds *b) {
    uint32_t i = 0;
    for (uint32_t cell = 0; cell < CB_BOUNDS_CELLS; cell++) {
        uint32_t high = cell / 16 + 3;
        uint64_t lowest = cell < 16 ? cell : (uint64_t)(16 + cell % 16) << (high - 4);
        while (b->upper[i] < lowest)
            i++;
        b->start[cell] = (uint16_t)i;
    }
}

int cb_bounds_new(cb_bounds **out, const cb_alloc *alloc, double min, double max, uint32_t decimals,
                  const double *classic, size_t n_classic) {
    double fitting[sizeof usual / sizeof *usual];
    if (!classic) {
        n_classic = 0;
        for (size_t i = 0; i < sizeof usual / sizeof *usual; i++)
            if (usual[i] >= min && usual[i] <= max) fitting[n_classic++] = usual[i];
        classic = fitting;
    }
    int rc = check(min, max, classic, n_classic);
    if (rc < 0) return rc;
    size_t fine = CB_BOUNDS_FINE_MAX;
    cb_bounds *b = cb_mem_new(alloc, sizeof *b + fine * (sizeof *b->upper + sizeof *b->native) +
                                         n_classic * (sizeof *b->le + sizeof *b->classic));
    if (!b) return cb_fail(CB_ENOMEM, "no memory for a histogram's bounds");
    b->upper = (uint64_t *)(void *)(b + 1);
    b->le = (double *)(void *)(b->upper + fine);
    b->native = (int16_t *)(void *)(b->le + n_classic);
    b->classic = (uint16_t *)(void *)(b->native + fine);
    b->n_classic = (uint32_t)n_classic;
    if (n_classic > 0) memcpy(b->le, classic, n_classic * sizeof *classic);
    merge(b, min, max, decimals);
    index_cells(b);
    *out = b;
    return CB_OK;
}

void cb_bounds_free(cb_bounds *b, const cb_alloc *alloc) {
    cb_mem_free(alloc, b);
}
