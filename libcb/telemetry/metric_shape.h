/* What a family of metrics is, and one series of it at one moment: what a format needs to know. */
#ifndef CB_TELEMETRY_METRIC_SHAPE_H
#define CB_TELEMETRY_METRIC_SHAPE_H

#include "telemetry/metric_bounds.h"
#include "telemetry/protobuf.h"
#include <stdbool.h>

typedef struct cb_metric_shape {
    char *name, *help, *unit; /* unit may be NULL */
    char **labels;            /* their names */
    uint32_t n_labels;
    int32_t kind;
    uint32_t decimals;
    cb_bounds *bounds; /* of a histogram */
} cb_metric_shape;

typedef struct cb_sample_exemplar {
    bool there;
    uint8_t trace_id[16], span_id[8];
    uint64_t value;
    int64_t time_ms;
} cb_sample_exemplar;

typedef struct cb_metric_sample {
    const char *labels, *values;         /* as in a series */
    const uint64_t *sums;                /* value (of a gauge: signed), then fine buckets */
    const cb_sample_exemplar *exemplars; /* NULL, or one of a counter; of a histogram one a classic bucket and +Inf */
} cb_metric_sample;

/* Each writes a family: _begin before its series, _sample for each. CB_ELIMIT, CB_ENOMEM. */
int cb_metric_text_begin(cb_buf *out, const cb_metric_shape *f, bool openmetrics);
int cb_metric_text_sample(cb_buf *out, const cb_metric_shape *f, const cb_metric_sample *s, bool openmetrics);
/* A family is one message: it ends by cb_pb_close(p, mark). */
int cb_metric_proto_begin(cb_pb *p, const cb_metric_shape *f, size_t *mark);
int cb_metric_proto_sample(cb_pb *p, const cb_metric_shape *f, const cb_metric_sample *s);

/* An integer of a family, in its unit: exact, without trailing zeros. */
int cb_metric_number(cb_buf *out, uint64_t magnitude, bool negative, uint32_t decimals);

#endif
