/* io.prometheus.client (metrics.proto of Prometheus' client_model): the form in which native histograms travel. */
#include "telemetry/metric_shape.h"
#include "telemetry/protobuf.h"
#include <cb/metrics.h>
#include <math.h>

enum { MESSAGE_MAX = 1 << 20 };

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

/* A message inside another: filled by `fill`, then added as a field. */
static int nested(cb_buf *out, uint32_t field, int (*fill)(cb_buf *, const void *), const void *arg) {
    cb_buf inner;
    cb_buf_init(&inner, out->alloc, MESSAGE_MAX);
    int rc = fill(&inner, arg);
    if (rc >= 0) rc = cb_pb_bytes(out, field, inner.base, inner.len);
    cb_buf_free(&inner);
    return rc;
}

static double in_unit(uint64_t value, bool is_signed, uint32_t decimals) {
    return (is_signed ? (double)(int64_t)value : (double)value) / pow(10, decimals);
}

typedef struct pair {
    const char *name, *value;
} pair;

static int fill_label(cb_buf *out, const void *arg) {
    const pair *p = arg;
    int rc = cb_pb_text(out, LABEL_NAME, p->name);
    return rc < 0 ? rc : cb_pb_text(out, LABEL_VALUE, p->value);
}

typedef struct place {
    const cb_metric_shape *family;
    const cb_metric_sample *sample;
    const cb_sample_exemplar *exemplar;
    uint64_t count;
    double bound;
} place;

static void hex(char *out, const uint8_t *bytes, size_t n) {
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < n; i++) {
        *out++ = digits[bytes[i] >> 4];
        *out++ = digits[bytes[i] & 15];
    }
    *out = '\0';
}

static int fill_time(cb_buf *out, const void *arg) {
    int64_t ms = *(const int64_t *)arg;
    int rc = cb_pb_varint(out, TIME_SECONDS, (uint64_t)(ms / 1000));
    return rc < 0 ? rc : cb_pb_varint(out, TIME_NANOS, (uint64_t)(ms % 1000) * 1000000);
}

static int fill_exemplar(cb_buf *out, const void *arg) {
    const place *at = arg;
    const cb_sample_exemplar *e = at->exemplar;
    char trace[33], span[17];
    hex(trace, e->trace_id, 16);
    hex(span, e->span_id, 8);
    int rc = nested(out, EXEMPLAR_LABEL, fill_label, &(pair){"trace_id", trace});
    if (rc >= 0) rc = nested(out, EXEMPLAR_LABEL, fill_label, &(pair){"span_id", span});
    if (rc >= 0) rc = cb_pb_double(out, EXEMPLAR_VALUE, in_unit(e->value, false, at->family->decimals));
    return rc < 0 || e->time_ms <= 0 ? rc : nested(out, EXEMPLAR_TIME, fill_time, &e->time_ms);
}

static int fill_bucket(cb_buf *out, const void *arg) {
    const place *at = arg;
    int rc = cb_pb_varint(out, BUCKET_COUNT, at->count);
    if (rc >= 0) rc = cb_pb_double(out, BUCKET_BOUND, at->bound);
    return rc < 0 || !at->exemplar || !at->exemplar->there ? rc : nested(out, BUCKET_EXEMPLAR, fill_exemplar, at);
}

typedef struct span {
    int32_t offset;
    uint32_t length;
} span;

static int fill_span(cb_buf *out, const void *arg) {
    const span *s = arg;
    int rc = cb_pb_varint(out, SPAN_OFFSET, cb_pb_zigzag(s->offset));
    return rc < 0 ? rc : cb_pb_varint(out, SPAN_LENGTH, s->length);
}

/* The exponential buckets that hold something, as runs of neighbours, and each count as the difference to the one
 * before it. `deltas` are gathered beside, because they follow all spans. */
static int native(cb_buf *out, cb_buf *deltas, const cb_bounds *b, const uint64_t *fine) {
    span run = {0};
    int next = 0;      /* the index after the run */
    bool first = true; /* the first span's offset is an index, others count from the end of the one before */
    uint64_t before = 0;
    int rc = CB_OK;
    for (uint32_t i = 0; i < b->n && rc >= 0;) {
        int index = b->native[i];
        uint64_t count = 0;
        for (; i < b->n && b->native[i] == index; i++)
            count += fine[i];
        if (count == 0 || index == b->native[0]) continue;
        if (run.length > 0 && index != next) {
            rc = nested(out, HISTOGRAM_SPAN, fill_span, &run);
            run.length = 0;
        }
        if (run.length++ == 0) run.offset = first ? index : index - next;
        if (rc >= 0) rc = cb_pb_varint(deltas, HISTOGRAM_DELTA, cb_pb_zigzag((int64_t)(count - before)));
        before = count;
        next = index + 1;
        first = false;
    }
    if (rc >= 0 && run.length > 0) rc = nested(out, HISTOGRAM_SPAN, fill_span, &run);
    return rc < 0 ? rc : cb_buf_add(out, deltas->base, deltas->len);
}

static int classic(cb_buf *out, const place *at, uint64_t *total) {
    const cb_bounds *b = at->family->bounds;
    place p = *at;
    uint32_t fine = 0;
    int rc = CB_OK;
    for (uint32_t i = 0; i <= b->n_classic && rc >= 0; i++) {
        uint32_t end = i < b->n_classic ? b->classic[i] : b->n;
        for (; fine < end; fine++)
            p.count += at->sample->sums[1 + fine];
        p.bound = i < b->n_classic ? b->le[i] : INFINITY;
        p.exemplar = at->sample->exemplars ? &at->sample->exemplars[i] : NULL;
        rc = nested(out, HISTOGRAM_BUCKET, fill_bucket, &p);
    }
    *total = p.count;
    return rc;
}

static int fill_histogram(cb_buf *out, const void *arg) {
    const place *at = arg;
    const cb_bounds *b = at->family->bounds;
    const uint64_t *fine = at->sample->sums + 1;
    uint64_t zero = 0, total = 0;
    cb_buf deltas;
    for (uint32_t i = 0; i < b->n && b->native[i] == b->native[0]; i++)
        zero += fine[i];
    cb_buf_init(&deltas, out->alloc, MESSAGE_MAX);
    int rc = classic(out, at, &total);
    if (rc >= 0) rc = cb_pb_varint(out, HISTOGRAM_COUNT, total);
    if (rc >= 0) rc = cb_pb_double(out, HISTOGRAM_SUM, in_unit(at->sample->sums[0], false, at->family->decimals));
    if (rc >= 0) rc = cb_pb_varint(out, HISTOGRAM_SCHEMA, cb_pb_zigzag(CB_BOUNDS_SCHEMA));
    if (rc >= 0) rc = cb_pb_double(out, HISTOGRAM_ZERO_THRESHOLD, b->zero);
    if (rc >= 0) rc = cb_pb_varint(out, HISTOGRAM_ZERO_COUNT, zero);
    if (rc >= 0) rc = native(out, &deltas, b, fine);
    cb_buf_free(&deltas);
    return rc;
}

static int fill_value(cb_buf *out, const void *arg) {
    const place *at = arg;
    const cb_sample_exemplar *e = at->sample->exemplars;
    place p = *at;
    p.exemplar = e;
    int rc = cb_pb_double(out, VALUE,
                          in_unit(at->sample->sums[0], at->family->kind == CB_METRIC_GAUGE, at->family->decimals));
    return rc < 0 || !e || !e->there ? rc : nested(out, COUNTER_EXEMPLAR, fill_exemplar, &p);
}

static int fill_metric(cb_buf *out, const void *arg) {
    static const struct {
        uint32_t field;
        int (*fill)(cb_buf *, const void *);
    } kinds[] = {[CB_METRIC_COUNTER] = {METRIC_COUNTER, fill_value},
                 [CB_METRIC_GAUGE] = {METRIC_GAUGE, fill_value},
                 [CB_METRIC_HISTOGRAM] = {METRIC_HISTOGRAM, fill_histogram}};
    const place *at = arg;
    const char *value = at->sample->values;
    int rc = CB_OK;
    for (uint32_t i = 0; i < at->family->n_labels && rc >= 0; i++, value += strlen(value) + 1)
        rc = nested(out, METRIC_LABEL, fill_label, &(pair){at->family->labels[i], value});
    return rc < 0 ? rc : nested(out, kinds[at->family->kind].field, kinds[at->family->kind].fill, at);
}

int cb_metric_proto_begin(cb_buf *body, const cb_metric_shape *f) {
    static const uint8_t types[] = {[CB_METRIC_COUNTER] = 0, [CB_METRIC_GAUGE] = 1, [CB_METRIC_HISTOGRAM] = 4};
    int rc = cb_pb_raw_varint(body, FAMILY_NAME << 3 | CB_PB_BYTES);
    const char *end = f->kind == CB_METRIC_COUNTER ? "_total" : "";
    if (rc >= 0) rc = cb_pb_raw_varint(body, strlen(f->name) + strlen(end));
    if (rc >= 0) rc = cb_buf_text(body, f->name);
    if (rc >= 0) rc = cb_buf_text(body, end);
    if (rc >= 0) rc = cb_pb_text(body, FAMILY_HELP, f->help);
    if (rc >= 0) rc = cb_pb_varint(body, FAMILY_TYPE, types[f->kind]);
    return rc < 0 || !f->unit ? rc : cb_pb_text(body, FAMILY_UNIT, f->unit);
}

int cb_metric_proto_sample(cb_buf *body, const cb_metric_shape *f, const cb_metric_sample *s) {
    return nested(body, FAMILY_METRIC, fill_metric, &(place){.family = f, .sample = s});
}

int cb_metric_proto_end(cb_buf *out, const cb_buf *body) {
    int rc = cb_pb_raw_varint(out, body->len);
    return rc < 0 ? rc : cb_buf_add(out, body->base, body->len);
}
