/* cb/metrics.h - counters, gauges and histograms that Prometheus scrapes.
 *
 * A registry (cb_metrics) holds families; a family holds series, one for each set of label values. What a thread counts
 * it counts with its own meter (cb_meter), in memory that only it writes: no lock, no shared cache line, no allocation.
 * Rendering adds the meters up. What a meter has counted stays when it ends; its gauges go.
 *
 * Values are integers, and a family's `decimals` says what one of them is worth in the unit that is shown: nanoseconds
 * with 9 are shown as seconds, so that nothing is rounded on the way.
 *
 * Formats: Prometheus text 0.0.4, OpenMetrics 1.0 with exemplars, and the protobuf form of Prometheus, where histograms
 * are native ones (exponential, schema 3: a bucket is at most 9.1 % wide) beside their classic buckets.
 *
 * Threads. A registry and its families are thread-safe. A meter and what is got from it belong to one thread; another
 * may free them when that thread has ended. */
#ifndef CB_METRICS_H
#define CB_METRICS_H

#include <cb/base.h>

CB_BEGIN

typedef struct cb_metrics cb_metrics;     /* a registry, shared by reference */
typedef struct cb_metric cb_metric;       /* a family; lives as long as its registry */
typedef struct cb_meter cb_meter;         /* what one thread counts with */
typedef struct cb_counter cb_counter;     /* the part that one meter has of a series */
typedef struct cb_gauge cb_gauge;         /* as above; a series' value is the sum of its parts */
typedef struct cb_histogram cb_histogram; /* as above */

enum cb_metric_kind {
    CB_METRIC_COUNTER = 1,  /* only grows; shown with _total */
    CB_METRIC_GAUGE = 2,    /* goes up and down */
    CB_METRIC_HISTOGRAM = 3 /* how values are spread */
};

enum cb_metrics_format {
    CB_METRICS_TEXT = 0,        /* Prometheus text 0.0.4 */
    CB_METRICS_OPENMETRICS = 1, /* OpenMetrics 1.0.0, with exemplars */
    CB_METRICS_PROTOBUF = 2     /* io.prometheus.client.MetricFamily, length-delimited */
};

enum { CB_METRIC_LABELS_MAX = 8, CB_METRIC_BOUNDS_MAX = 64 };

typedef struct cb_metrics_opts {
    size_t size;
    uint32_t max_series;   /* of all families together; 0 = 100,000 */
    uint32_t idle_s;       /* a series that no meter holds is dropped so long after a rendering saw it so; 0 = 600 */
    const cb_alloc *alloc; /* NULL = malloc(); called on any thread */
} cb_metrics_opts;

/* What a family is. Texts are copied. */
typedef struct cb_metric_opts {
    size_t size;
    const char *name; /* [a-z][a-z0-9_]*, at most 128 bytes, ends in "_" unit when there is one, without "_total" */
    const char *help; /* one sentence; required */
    const char *unit; /* base unit: "seconds", "bytes", "ratio" ...; NULL = none */
    const char *const *labels; /* names of labels: as name; not "le" */
    size_t labels_len;         /* at most CB_METRIC_LABELS_MAX */
    const double *bounds;      /* histogram: upper bounds of the classic buckets, in the unit, rising; NULL = the 14 of
                                * http.server.request.duration from 0.005 to 10, if they are in the range */
    size_t bounds_len;         /* at most CB_METRIC_BOUNDS_MAX */
    double min, max;           /* histogram: values up to min are one bucket and those above max another; 0 = 1e-6, or
                                * the value of 1 if that is more, and 1e9 times min; at most 1e12 times */
    uint32_t max_series; /* then further label values share one series, in which each label is "_other"; 0 = 1,000;
                          * at most 100,000 */
    int32_t kind;        /* enum cb_metric_kind */
    uint32_t decimals;   /* an integer 1 is ten to the power of minus this in the unit; at most 12 */
    uint32_t exemplars;  /* 1: a counter or histogram remembers exemplars */
} cb_metric_opts;

/* CB_EINVAL (out), CB_ENOMEM, CB_E2BIG. */
CB_API int cb_metrics_new(cb_metrics **out, const cb_metrics_opts *opts);
CB_API cb_metrics *cb_metrics_ref(cb_metrics *m);
/* Meters hold a reference of their own. NULL is fine. */
CB_API void cb_metrics_unref(cb_metrics *m);

/* Defines a family, or gives the one of that name when it was defined the same way. CB_EINVAL (the detail says what),
 * CB_EEXIST (defined otherwise), CB_ENOMEM, CB_E2BIG. */
CB_API int cb_metrics_define(cb_metric **out, cb_metrics *m, const cb_metric_opts *opts);
/* The family of that name, without "_total", or NULL. */
CB_API cb_metric *cb_metrics_find(const cb_metrics *m, const char *name);

/* ---- counting ---- */

/* A meter for the calling thread. CB_EINVAL (out, m), CB_ENOMEM. */
CB_API int cb_meter_new(cb_meter **out, cb_metrics *m);
/* Frees everything that was got from it too. What was counted stays in the registry. NULL is fine. */
CB_API void cb_meter_free(cb_meter *meter);

/* The meter's part of a series: values holds one slice a label of the family, in its order (invalid UTF-8 becomes
 * U+FFFD; cut at 256 bytes; NULL for a family without labels). Not for the hot path: it takes a lock. Give it back with
 * the matching _release, as often as it was got. CB_EINVAL (out; a family of another registry or kind), CB_ENOMEM. At a
 * limit on series it gives the series "_other". */
CB_API int cb_meter_counter(cb_counter **out, cb_meter *meter, cb_metric *family, const cb_slice *values);
CB_API int cb_meter_gauge(cb_gauge **out, cb_meter *meter, cb_metric *family, const cb_slice *values);
CB_API int cb_meter_histogram(cb_histogram **out, cb_meter *meter, cb_metric *family, const cb_slice *values);
/* NULL is fine. */
CB_API void cb_counter_release(cb_counter *c);
CB_API void cb_gauge_release(cb_gauge *g);
CB_API void cb_histogram_release(cb_histogram *h);

CB_API void cb_counter_add(cb_counter *c, uint64_t n);
/* For what is counted elsewhere (the kernel, a device): the total so far. */
CB_API void cb_counter_set(cb_counter *c, uint64_t total);
CB_API void cb_gauge_add(cb_gauge *g, int64_t n); /* n may be negative */
CB_API void cb_gauge_set(cb_gauge *g, int64_t value);
CB_API void cb_histogram_add(cb_histogram *h, uint64_t value);

/* What links a value to a trace. */
typedef struct cb_exemplar {
    size_t size;
    uint8_t trace_id[16];
    uint8_t span_id[8];
    int64_t time_ms; /* since 1970; 0 = not said */
} cb_exemplar;

/* The same with an exemplar, of which the last one is kept: of a counter one, of a histogram one a classic bucket. A
 * family without `exemplars` counts only. */
CB_API void cb_counter_add_exemplar(cb_counter *c, uint64_t n, const cb_exemplar *exemplar);
CB_API void cb_histogram_add_exemplar(cb_histogram *h, uint64_t value, const cb_exemplar *exemplar);

/* ---- reading ---- */

/* Called before each rendering, on its thread and one at a time, to set what nobody counts as it happens (memory, the
 * age of a certificate): with a meter of the registry's own. */
typedef void (*cb_metrics_collect)(cb_meter *meter, void *user);
/* CB_EINVAL, CB_ENOMEM. */
CB_API int cb_metrics_collector(cb_metrics *m, cb_metrics_collect collect, void *user);
/* Takes it away, when no rendering is under way any more. */
CB_API void cb_metrics_collector_remove(cb_metrics *m, cb_metrics_collect collect, void *user);

/* What a machine tells about itself, as bits. */
enum cb_system_part {
    CB_SYSTEM_PROCESS = 1,    /* process_*: processor time, memory, descriptors, threads */
    CB_SYSTEM_INTERFACES = 2, /* cb_interface_*: for each network interface */
    CB_SYSTEM_KERNEL = 4      /* cb_ip_*, cb_icmp_*, cb_tcp_*, cb_udp_*, cb_softnet_* of the network namespace */
};

typedef struct cb_system_opts {
    size_t size;
    uint32_t parts; /* of enum cb_system_part; 0 = all */
    uint32_t reserved;
    const char *proc; /* NULL = "/proc" */
    const char *sys;  /* NULL = "/sys" */
} cb_system_opts;

/* Adds a collector for them, for as long as the registry lives. What the kernel does not tell is not shown. Each
 * rendering reads some small files. CB_EINVAL (m, parts), CB_ENOMEM, CB_E2BIG. */
CB_API int cb_metrics_add_system(cb_metrics *m, const cb_system_opts *opts);

/* The format that the value of an Accept field asks for (by quality, then in the order of its list); CB_METRICS_TEXT
 * for what is unknown, malformed or empty. */
CB_API int cb_metrics_negotiate(cb_slice accept);
/* The Content-Type of a format. Static. */
CB_API const char *cb_metrics_content_type(int format);

/* Writes all families in the order of their definition, in pieces; write returns < 0 to stop, which is returned. now_ms
 * (since 1970) is for idle series only. Blocks nobody who counts, and others who define or get series only for the
 * family at hand. CB_EINVAL (m, write, format), CB_ENOMEM. */
CB_API int cb_metrics_render(cb_metrics *m, int format, int64_t now_ms, int (*write)(cb_slice piece, void *user),
                             void *user);
/* The value of one series now, in the unit (of a histogram: how many values were added); CB_ENOENT: there is no such
 * family or series; CB_EINVAL. For tests and dashboards of programs themselves. */
CB_API int cb_metrics_value(cb_metrics *m, const char *name, const cb_slice *values, double *out);

CB_END
#endif
