/* io.prometheus.client (metrics.proto of Prometheus' client_model): the form in which native histograms travel. */
#include "telemetry/metric_shape.h"
#include "telemetry/protobuf.h"
#include <cb/metrics.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { FAMILY_NAME = 1, FAMILY_HELP = 2, FAMILY_TYPE = 3, FAMILY_METRIC = 4, FAMILY_UNIT = 5 };
enum { METRIC_LABEL = 1, METRIC_GAUGE = 2, METRIC_COUNTER = 3, METRIC_HISTOGRAM = 7 };
enum { LABEL_NAME = 1, LABEL_VALUE = 2 };
enum { VALUE = 1, COUNTER_EXEMPLAR = 2 };
enum {
    HISTOGRAM_COUNT = 1,
    HISTOGRAM_SUM = 2,
    HISTOGRAM_BUCKET = 3,
    HISTOGRAM_SCHEMA = 5,
    HISTOGRAM_ZERO_THRESHOLD = 6,
    HISTOGRAM_ZERO_COUNT = 7,
    HISTOGRAM_SPAN = 12,
    HISTOGRAM_DELTA = 13
};
enum { BUCKET_COUNT = 1, BUCKET_BOUND = 2, BUCKET_EXEMPLAR = 3 };
enum { SPAN_OFFSET = 1, SPAN_LENGTH = 2 };
enum { EXEMPLAR_LABEL = 1, EXEMPLAR_VALUE = 2, EXEMPLAR_TIME = 3 };
enum { TIME_SECONDS = 1, TIME_NANOS = 2 };

static double in_unit(uint64_t value, bool is_signed, uint32_t decimals) {
    return (is_signed ? (double)(int64_t)value : (double)value) / pow(10, decimals);
}

static void label(cb_pb *p, uint32_t field, const char *name, const char *value) {
    size_t at = cb_pb_open(p, field);
    cb_pb_text(p, LABEL_NAME, name);
    cb_pb_text(p, LABEL_VALUE, value);
    cb_pb_close(p, at);
}

static const char *hex(char *out, const uint8_t *bytes, size_t n) {
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < n; i++) {
        out[2 * i] = digits[bytes[i] >> 4];
        out[2 * i + 1] = digits[bytes[i] & 15];
    }
    out[2 * n] = '\0';
    return out;
}

static void exemplar(cb_pb *p, uint32_t field, const cb_metric_shape *f, const cb_sample_exemplar *e) {
    char text[33];
    if (!e || !e->there) return;
    size_t at = cb_pb_open(p, field);
    label(p, EXEMPLAR_LABEL, "trace_id", hex(text, e->trace_id, 16));
    label(p, EXEMPLAR_LABEL, "span_id", hex(text, e->span_id, 8));
    cb_pb_double(p, EXEMPLAR_VALUE, in_unit(e->value, false, f->decimals));
    if (e->time_ms > 0) {
        size_t time = cb_pb_open(p, EXEMPLAR_TIME);
        cb_pb_varint(p, TIME_SECONDS, (uint64_t)(e->time_ms / 1000));
        cb_pb_varint(p, TIME_NANOS, (uint64_t)(e->time_ms % 1000) * 1000000);
        cb_pb_close(p, time);
    }
    cb_pb_close(p, at);
}

/* The exponential buckets that hold something. */
typedef struct native {
    uint32_t n;
    int16_t index[CB_BOUNDS_FINE_MAX];
    uint64_t count[CB_BOUNDS_FINE_MAX];
    uint64_t zero; /* in the zero bucket */
} native;

static void gather(native *out, const cb_bounds *b, const uint64_t *fine) {
    out->n = 0;
    out->zero = 0;
    for (uint32_t i = 0; i < b->n; i++) {
        if (b->native[i] == b->native[0])
            out->zero += fine[i];
        else if (fine[i] > 0 && out->n > 0 && out->index[out->n - 1] == b->native[i])
            out->count[out->n - 1] += fine[i];
        else if (fine[i] > 0) {
            out->index[out->n] = b->native[i];
            out->count[out->n++] = fine[i];
        }
    }
}

/* Runs of neighbours. An offset counts from the end of the run before it; the first is an index. */
static void spans(cb_pb *p, const native *h) {
    int end = 0;
    for (uint32_t i = 0, run; i < h->n; i = run) {
        for (run = i + 1; run < h->n && h->index[run] == h->index[i] + (int)(run - i);)
            run++;
        size_t at = cb_pb_open(p, HISTOGRAM_SPAN);
        cb_pb_sint(p, SPAN_OFFSET, h->index[i] - end);
        cb_pb_varint(p, SPAN_LENGTH, run - i);
        cb_pb_close(p, at);
        end = h->index[run - 1] + 1;
    }
}

/* Each count as the difference to the one before it. */
static void deltas(cb_pb *p, const native *h) {
    for (uint32_t i = 0; i < h->n; i++)
        cb_pb_sint(p, HISTOGRAM_DELTA, (int64_t)(h->count[i] - (i > 0 ? h->count[i - 1] : 0)));
}

static uint64_t classic(cb_pb *p, const cb_metric_shape *f, const cb_metric_sample *s) {
    const cb_bounds *b = f->bounds;
    uint64_t count = 0;
    uint32_t fine = 0;
    for (uint32_t i = 0; i <= b->n_classic; i++) {
        uint32_t end = i < b->n_classic ? b->classic[i] : b->n;
        for (; fine < end; fine++)
            count += s->sums[1 + fine];
        size_t at = cb_pb_open(p, HISTOGRAM_BUCKET);
        cb_pb_varint(p, BUCKET_COUNT, count);
        cb_pb_double(p, BUCKET_BOUND, i < b->n_classic ? b->le[i] : INFINITY);
        if (s->exemplars) exemplar(p, BUCKET_EXEMPLAR, f, &s->exemplars[i]);
        cb_pb_close(p, at);
    }
    return count;
}

static void histogram(cb_pb *p, const cb_metric_shape *f, const cb_metric_sample *s) {
    native h;
    gather(&h, f->bounds, s->sums + 1);
    uint64_t total = classic(p, f, s);
    cb_pb_varint(p, HISTOGRAM_COUNT, total);
    cb_pb_double(p, HISTOGRAM_SUM, in_unit(s->sums[0], false, f->decimals));
    cb_pb_sint(p, HISTOGRAM_SCHEMA, CB_BOUNDS_SCHEMA);
    cb_pb_double(p, HISTOGRAM_ZERO_THRESHOLD, f->bounds->zero);
    cb_pb_varint(p, HISTOGRAM_ZERO_COUNT, h.zero);
    spans(p, &h);
    deltas(p, &h);
}

static void value(cb_pb *p, const cb_metric_shape *f, const cb_metric_sample *s) {
    cb_pb_double(p, VALUE, in_unit(s->sums[0], f->kind == CB_METRIC_GAUGE, f->decimals));
    exemplar(p, COUNTER_EXEMPLAR, f, s->exemplars);
}

int cb_metric_proto_begin(cb_pb *p, const cb_metric_shape *f, size_t *mark) {
    static const uint8_t types[] = {[CB_METRIC_COUNTER] = 0, [CB_METRIC_GAUGE] = 1, [CB_METRIC_HISTOGRAM] = 4};
    char name[256];
    snprintf(name, sizeof name, "%s%s", f->name, f->kind == CB_METRIC_COUNTER ? "_total" : "");
    *mark = cb_pb_open_delimited(p);
    cb_pb_text(p, FAMILY_NAME, name);
    cb_pb_text(p, FAMILY_HELP, f->help);
    cb_pb_varint(p, FAMILY_TYPE, types[f->kind]);
    if (f->unit) cb_pb_text(p, FAMILY_UNIT, f->unit);
    return p->rc;
}

int cb_metric_proto_sample(cb_pb *p, const cb_metric_shape *f, const cb_metric_sample *s) {
    static const struct {
        uint32_t field;
        void (*write)(cb_pb *, const cb_metric_shape *, const cb_metric_sample *);
    } kinds[] = {[CB_METRIC_COUNTER] = {METRIC_COUNTER, value},
                 [CB_METRIC_GAUGE] = {METRIC_GAUGE, value},
                 [CB_METRIC_HISTOGRAM] = {METRIC_HISTOGRAM, histogram}};
    const char *text = s->values;
    size_t metric = cb_pb_open(p, FAMILY_METRIC);
    for (uint32_t i = 0; i < f->n_labels; i++, text += strlen(text) + 1)
        label(p, METRIC_LABEL, f->labels[i], text);
    size_t at = cb_pb_open(p, kinds[f->kind].field);
    kinds[f->kind].write(p, f, s);
    cb_pb_close(p, at);
    cb_pb_close(p, metric);
    return p->rc;
}
