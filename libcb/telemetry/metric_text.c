/* Prometheus text 0.0.4 and OpenMetrics 1.0.0. */
#include "telemetry/metric_shape.h"
#include "telemetry/text.h"
#include <cb/metrics.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const uint64_t tens[] = {1,        10,        100,        1000,        10000,        100000,       1000000,
                                10000000, 100000000, 1000000000, 10000000000, 100000000000, 1000000000000};

int cb_metric_number(cb_buf *out, uint64_t magnitude, bool negative, uint32_t decimals) {
    char text[48];
    char *end = text + sizeof text, *p = end;
    uint64_t whole = magnitude / tens[decimals], part = magnitude % tens[decimals];
    if (part > 0) {
        uint32_t digits = decimals;
        for (; part % 10 == 0; part /= 10)
            digits--;
        for (; digits > 0; digits--, part /= 10)
            *--p = (char)('0' + part % 10);
        *--p = '.';
    }
    do
        *--p = (char)('0' + whole % 10);
    while ((whole /= 10) > 0);
    if (negative) *--p = '-';
    return cb_buf_add(out, p, (size_t)(end - p));
}

/* A bound, as short as it can be and always with a point or an exponent, so that both formats name the same series. */
static void bound_text(char out[40], double bound) {
    bool plain = bound >= 1e-6 && bound < 1e15;
    for (int digits = 1; digits <= 22; digits++) {
        snprintf(out, 40, plain ? "%.*f" : "%.*e", digits, bound);
        if (strtod(out, NULL) == bound) return;
    }
}

static int escaped(cb_buf *out, const char *text, bool quotes) {
    int rc = CB_OK;
    for (const char *p = text; *p && rc >= 0; p++) {
        const char *e = *p == '\\' ? "\\\\" : *p == '\n' ? "\\n" : *p == '"' && quotes ? "\\\"" : NULL;
        rc = e ? cb_buf_text(out, e) : cb_buf_add(out, p, 1);
    }
    return rc;
}

int cb_metric_text_begin(cb_buf *out, const cb_metric_shape *f, bool openmetrics) {
    static const char *const kinds[] = {"unknown", "counter", "gauge", "histogram"};
    const char *end = f->kind == CB_METRIC_COUNTER && !openmetrics ? "_total" : "";
    int rc = cb_buf_printf(out, "# HELP %s%s ", f->name, end);
    if (rc >= 0) rc = escaped(out, f->help, openmetrics);
    if (rc >= 0) rc = cb_buf_printf(out, "\n# TYPE %s%s %s\n", f->name, end, kinds[f->kind]);
    if (rc >= 0 && openmetrics && f->unit) rc = cb_buf_printf(out, "# UNIT %s %s\n", f->name, f->unit);
    return rc;
}

/* name_suffix{labels,le="..."} and a blank. */
static int head(cb_buf *out, const cb_metric_shape *f, const char *suffix, const char *labels, const char *le) {
    int rc = cb_buf_text(out, f->name);
    if (rc >= 0 && *suffix) rc = cb_buf_text(out, suffix);
    if (rc >= 0 && (*labels || le)) rc = cb_buf_text(out, "{");
    if (rc >= 0 && *labels) rc = cb_buf_text(out, labels);
    if (rc >= 0 && le) rc = cb_buf_text(out, *labels ? ",le=\"" : "le=\"");
    if (rc >= 0 && le) rc = cb_buf_text(out, le);
    if (rc >= 0 && le) rc = cb_buf_text(out, "\"");
    if (rc >= 0 && (*labels || le)) rc = cb_buf_text(out, "}");
    return rc < 0 ? rc : cb_buf_text(out, " ");
}

static int exemplar(cb_buf *out, const cb_metric_shape *f, const cb_sample_exemplar *e) {
    int rc = cb_buf_text(out, " # {trace_id=\"");
    if (rc >= 0) rc = cb_text_hex(out, e->trace_id, 16);
    if (rc >= 0) rc = cb_buf_text(out, "\",span_id=\"");
    if (rc >= 0) rc = cb_text_hex(out, e->span_id, 8);
    if (rc >= 0) rc = cb_buf_text(out, "\"} ");
    if (rc >= 0) rc = cb_metric_number(out, e->value, false, f->decimals);
    if (rc >= 0 && e->time_ms > 0) rc = cb_buf_text(out, " ");
    if (rc >= 0 && e->time_ms > 0) rc = cb_metric_number(out, (uint64_t)e->time_ms, false, 3);
    return rc;
}

static int line(cb_buf *out, const cb_metric_shape *f, uint64_t magnitude, bool negative, uint32_t decimals,
                const cb_sample_exemplar *e) {
    int rc = cb_metric_number(out, magnitude, negative, decimals);
    if (rc >= 0 && e && e->there) rc = exemplar(out, f, e);
    return rc < 0 ? rc : cb_buf_add(out, "\n", 1);
}

static int histogram(cb_buf *out, const cb_metric_shape *f, const cb_metric_sample *s, const cb_sample_exemplar *e) {
    const cb_bounds *b = f->bounds;
    uint64_t count = 0;
    uint32_t fine = 0;
    int rc = CB_OK;
    for (uint32_t i = 0; i <= b->n_classic && rc >= 0; i++) {
        char le[40] = "+Inf";
        uint32_t end = i < b->n_classic ? b->classic[i] : b->n;
        for (; fine < end; fine++)
            count += s->sums[1 + fine];
        if (i < b->n_classic) bound_text(le, b->le[i]);
        rc = head(out, f, "_bucket", s->labels, le);
        if (rc >= 0) rc = line(out, f, count, false, 0, e ? &e[i] : NULL);
    }
    if (rc >= 0) rc = head(out, f, "_sum", s->labels, NULL);
    if (rc >= 0) rc = line(out, f, s->sums[0], false, f->decimals, NULL);
    if (rc >= 0) rc = head(out, f, "_count", s->labels, NULL);
    return rc < 0 ? rc : line(out, f, count, false, 0, NULL);
}

int cb_metric_text_sample(cb_buf *out, const cb_metric_shape *f, const cb_metric_sample *s, bool openmetrics) {
    const cb_sample_exemplar *e = openmetrics ? s->exemplars : NULL;
    if (f->kind == CB_METRIC_HISTOGRAM) return histogram(out, f, s, e);
    bool negative = f->kind == CB_METRIC_GAUGE && (int64_t)s->sums[0] < 0;
    int rc = head(out, f, f->kind == CB_METRIC_COUNTER ? "_total" : "", s->labels, NULL);
    return rc < 0 ? rc : line(out, f, negative ? 0 - s->sums[0] : s->sums[0], negative, f->decimals, e);
}
