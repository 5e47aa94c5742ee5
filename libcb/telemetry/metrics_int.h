/* The inside of a registry of metrics; only libcb/telemetry/ looks at it. */
#ifndef CB_TELEMETRY_METRICS_INT_H
#define CB_TELEMETRY_METRICS_INT_H

#include "base/map.h"
#include "telemetry/cell.h"
#include "telemetry/metric_shape.h"
#include <cb/metrics.h>
#include <pthread.h>

typedef struct cb_series cb_series;

/* The handles of the interface: a cell seen as what its family is. */
struct cb_counter {
    cb_cell cell;
};
struct cb_gauge {
    cb_cell cell;
};
struct cb_histogram {
    cb_cell cell;
};

/* The last exemplar of each classic bucket; a counter has one. A seqlock guards each: odd while it is written. */
typedef struct cb_exemplars {
    uint32_t n;
    struct cb_exemplar_slot {
        _Atomic uint32_t turn;
        _Atomic uint64_t words[5]; /* trace ID, span ID, value, time */
    } slots[];
} cb_exemplars;

struct cb_series {
    cb_list node; /* of the family, in the order of their making */
    cb_metric *family;
    char *labels; /* as text: a="x",b="y" */
    char *values; /* of the labels, each NUL-terminated, in one piece with `labels` */
    cb_list cells;
    size_t key_len;        /* of `values` */
    int64_t idle_since_ms; /* no meter holds it; 0 = not seen so */
    uint64_t *base;        /* what meters left that have ended: value, then buckets; NULL: nothing */
};

struct cb_metric {
    cb_metric *next; /* in the order of definition */
    cb_metrics *registry;
    cb_metric_shape shape;
    uint32_t max_series, exemplars;
    pthread_mutex_t lock; /* guards what follows, and the lists of each series */
    cb_map by_values;
    cb_list series;
};

typedef struct cb_collector {
    struct cb_collector *next;
    cb_metrics_collect collect;
    void *user;
    void (*drop)(void *user); /* NULL, or frees user when the collector goes */
} cb_collector;

struct cb_metrics {
    _Atomic uint32_t refs, n_series;
    cb_alloc alloc;
    uint32_t max_series;
    int64_t idle_ms;
    uint8_t hash_key[16];
    pthread_mutex_t lock; /* guards the list and the map of families */
    cb_metric *families, **families_end;
    cb_map by_name;
    pthread_mutex_t collecting; /* guards collectors, and is held while they run */
    cb_collector *collectors;
    cb_meter *own; /* what collectors write with */
};

struct cb_meter {
    cb_metrics *registry;
    cb_list cells;
    bool mirrors; /* it shows what is counted elsewhere: nothing of it stays */
};

/* metrics.c: as cb_metrics_collector(), and drop(user) at its end; on failure user is still the caller's. */
int cb_metrics_collect_with(cb_metrics *m, cb_metrics_collect collect, void *user, void (*drop)(void *user));

/* metrics_series.c: with the family's lock held */
void cb_cell_drop(cb_cell *c);
void cb_series_drop(cb_series *s);
int cb_cell_get(cb_cell **out, cb_meter *meter, cb_metric *family, const cb_slice *values);
/* What all cells of a series amount to: value, then the buckets of a histogram. */
void cb_series_sum(const cb_series *s, uint64_t *sums);
void cb_series_exemplar(const cb_series *s, uint32_t slot, cb_sample_exemplar *out);
/* Series that nobody holds since idle_ms go; now_ms as at the rendering. */
void cb_metric_prune(cb_metric *f, int64_t now_ms);
/* The key of a series in a family's map; returns its length. values NULL only without labels. */
int cb_series_key(cb_buf *key, const cb_metric *f, const cb_slice *values);

#endif
