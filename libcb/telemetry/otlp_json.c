/* OTLP/JSON: protobuf's JSON mapping with OTLP's own rules: IDs in hexadecimal, enumerations as numbers, 64-bit
 * integers as text. */
#include "telemetry/otlp.h"
#include "telemetry/text.h"
#include <inttypes.h>
#include <math.h>
#include <stdbool.h>

enum { TEXT_MAX = 4096 };

/* The first failure stays. */
typedef struct out {
    cb_buf *to;
    int rc;
} out;

static void put(out *o, const char *text) {
    if (o->rc >= 0) o->rc = cb_buf_text(o->to, text);
}

static void put_text(out *o, cb_slice text) {
    if (o->rc >= 0) o->rc = cb_text_json(o->to, text, TEXT_MAX);
}

static void put_hex(out *o, const char *name, const uint8_t *bytes, size_t n) {
    put(o, name);
    put(o, ":\"");
    if (o->rc >= 0) o->rc = cb_text_hex(o->to, bytes, n);
    put(o, "\"");
}

static void put_integer(out *o, const char *name, int64_t v, bool quoted) {
    if (o->rc >= 0) o->rc = cb_buf_printf(o->to, quoted ? "%s:\"%" PRId64 "\"" : "%s:%" PRId64, name, v);
}

static void value(out *o, const cb_attribute *a) {
    switch (a->type) {
    case CB_ATTRIBUTE_INT:
        put_integer(o, "\"intValue\"", a->integer, true);
        break;
    case CB_ATTRIBUTE_DOUBLE: /* NaN and infinities are texts in this mapping */
        put(o, "\"doubleValue\":");
        if (isnan(a->number))
            put(o, "\"NaN\"");
        else if (isinf(a->number))
            put(o, a->number < 0 ? "\"-Infinity\"" : "\"Infinity\"");
        else if (o->rc >= 0)
            o->rc = cb_buf_printf(o->to, "%.17g", a->number);
        break;
    case CB_ATTRIBUTE_BOOL:
        put(o, a->integer ? "\"boolValue\":true" : "\"boolValue\":false");
        break;
    default:
        put(o, "\"stringValue\":");
        put_text(o, a->text);
    }
}

static void attributes(out *o, const cb_attribute *list, size_t n, bool more) {
    for (size_t i = 0; i < n; i++) {
        put(o, i > 0 || more ? ",{\"key\":" : "{\"key\":");
        put_text(o, cb_slice_str(list[i].key));
        put(o, ",\"value\":{");
        value(o, &list[i]);
        put(o, "}}");
    }
}

static void events(out *o, const cb_span *s) {
    for (size_t i = 0; i < s->events_len; i++) {
        put(o, i > 0 ? ",{" : "{");
        put_integer(o, "\"timeUnixNano\"", s->events[i].time_ns, true);
        put(o, ",\"name\":");
        put_text(o, cb_slice_str(s->events[i].name));
        put(o, ",\"attributes\":[");
        attributes(o, s->events[i].attributes, s->events[i].attributes_len, false);
        put(o, "]}");
    }
}

/* A comma stands before each span; the request leaves the first one out. */
static int span(cb_buf *to, const cb_span *s) {
    out o = {.to = to};
    put(&o, ",{");
    put_hex(&o, "\"traceId\"", s->context->trace_id, sizeof s->context->trace_id);
    put_hex(&o, ",\"spanId\"", s->context->span_id, sizeof s->context->span_id);
    if (s->parent) put_hex(&o, ",\"parentSpanId\"", s->parent->span_id, sizeof s->parent->span_id);
    if (s->tracestate.len > 0) {
        put(&o, ",\"traceState\":");
        put_text(&o, s->tracestate);
    }
    put(&o, ",\"name\":");
    put_text(&o, cb_slice_str(s->name));
    put_integer(&o, ",\"kind\"", s->kind ? s->kind : CB_SPAN_INTERNAL, false);
    put_integer(&o, ",\"startTimeUnixNano\"", s->start_ns, true);
    put_integer(&o, ",\"endTimeUnixNano\"", s->end_ns, true);
    put_integer(&o, ",\"flags\"", s->context->flags, false);
    put(&o, ",\"attributes\":[");
    attributes(&o, s->attributes, s->attributes_len, false);
    put(&o, "],\"events\":[");
    events(&o, s);
    put(&o, "]");
    if (s->status != CB_SPAN_UNSET) {
        put_integer(&o, ",\"status\":{\"code\"", s->status, false);
        if (s->status_text) put(&o, ",\"message\":");
        if (s->status_text) put_text(&o, cb_slice_str(s->status_text));
        put(&o, "}");
    }
    put(&o, "}");
    return o.rc;
}

static int request(cb_buf *to, const cb_otlp_resource *r, cb_slice spans) {
    out o = {.to = to};
    const cb_attribute name = {.key = "service.name", .text = cb_slice_str(r->service_name)};
    put(&o, "{\"resourceSpans\":[{\"resource\":{\"attributes\":[");
    attributes(&o, &name, 1, false);
    attributes(&o, r->attributes, r->attributes_len, true);
    put(&o, "]},\"scopeSpans\":[{\"scope\":{\"name\":\"libcb\",\"version\":");
    put_text(&o, cb_slice_str(cb_version_text()));
    put(&o, "},\"spans\":[");
    if (o.rc >= 0 && spans.len > 0) o.rc = cb_buf_add(to, spans.base + 1, spans.len - 1);
    put(&o, "]}]}]}");
    return o.rc;
}

const cb_otlp_form cb_otlp_json = {.content_type = "application/json", .span = span, .request = request};
