#include "telemetry/otlp.h"
#include "telemetry/protobuf.h"
#include "telemetry/text.h"
#include <string.h>

enum { TEXT_MAX = 4096 };

enum { REQUEST_RESOURCE_SPANS = 1 };
enum { RS_RESOURCE = 1, RS_SCOPE_SPANS = 2 };
enum { RESOURCE_ATTRIBUTES = 1 };
enum { SS_SCOPE = 1, SS_SPANS = 2 };
enum { SCOPE_NAME = 1, SCOPE_VERSION = 2 };
enum {
    SPAN_TRACE_ID = 1,
    SPAN_SPAN_ID = 2,
    SPAN_STATE = 3,
    SPAN_PARENT = 4,
    SPAN_NAME = 5,
    SPAN_KIND = 6,
    SPAN_START = 7,
    SPAN_END = 8,
    SPAN_ATTRIBUTES = 9,
    SPAN_EVENTS = 11,
    SPAN_STATUS = 15,
    SPAN_FLAGS = 16
};
enum { EVENT_TIME = 1, EVENT_NAME = 2, EVENT_ATTRIBUTES = 3 };
enum { STATUS_MESSAGE = 2, STATUS_CODE = 3 };
enum { KV_KEY = 1, KV_VALUE = 2 };
enum { ANY_STRING = 1, ANY_BOOL = 2, ANY_INT = 3, ANY_DOUBLE = 4 };

static void clean(cb_pb *p, uint32_t field, cb_slice text) {
    size_t at = cb_pb_open(p, field);
    if (p->rc >= 0) p->rc = cb_text_clean(p->out, text, TEXT_MAX);
    cb_pb_close(p, at);
}

static void attribute(cb_pb *p, uint32_t field, const cb_attribute *a) {
    size_t at = cb_pb_open(p, field);
    clean(p, KV_KEY, cb_slice_str(a->key));
    size_t value = cb_pb_open(p, KV_VALUE);
    switch (a->type) {
    case CB_ATTRIBUTE_INT:
        cb_pb_varint(p, ANY_INT, (uint64_t)a->integer);
        break;
    case CB_ATTRIBUTE_DOUBLE:
        cb_pb_double(p, ANY_DOUBLE, a->number);
        break;
    case CB_ATTRIBUTE_BOOL:
        cb_pb_varint(p, ANY_BOOL, a->integer != 0);
        break;
    default:
        clean(p, ANY_STRING, a->text);
    }
    cb_pb_close(p, value);
    cb_pb_close(p, at);
}

static void attributes(cb_pb *p, uint32_t field, const cb_attribute *list, size_t n) {
    for (size_t i = 0; i < n; i++)
        attribute(p, field, &list[i]);
}

static int span(cb_buf *out, const cb_span *s) {
    cb_pb p = {.out = out};
    size_t at = cb_pb_open(&p, SS_SPANS);
    cb_pb_bytes(&p, SPAN_TRACE_ID, s->context->trace_id, sizeof s->context->trace_id);
    cb_pb_bytes(&p, SPAN_SPAN_ID, s->context->span_id, sizeof s->context->span_id);
    if (s->tracestate.len > 0) clean(&p, SPAN_STATE, s->tracestate);
    if (s->parent) cb_pb_bytes(&p, SPAN_PARENT, s->parent->span_id, sizeof s->parent->span_id);
    clean(&p, SPAN_NAME, cb_slice_str(s->name));
    cb_pb_varint(&p, SPAN_KIND, s->kind ? (uint64_t)s->kind : CB_SPAN_INTERNAL);
    cb_pb_fixed64(&p, SPAN_START, (uint64_t)s->start_ns);
    cb_pb_fixed64(&p, SPAN_END, (uint64_t)s->end_ns);
    attributes(&p, SPAN_ATTRIBUTES, s->attributes, s->attributes_len);
    for (size_t i = 0; i < s->events_len; i++) {
        size_t event = cb_pb_open(&p, SPAN_EVENTS);
        cb_pb_fixed64(&p, EVENT_TIME, (uint64_t)s->events[i].time_ns);
        clean(&p, EVENT_NAME, cb_slice_str(s->events[i].name));
        attributes(&p, EVENT_ATTRIBUTES, s->events[i].attributes, s->events[i].attributes_len);
        cb_pb_close(&p, event);
    }
    if (s->status != CB_SPAN_UNSET) {
        size_t status = cb_pb_open(&p, SPAN_STATUS);
        if (s->status_text) clean(&p, STATUS_MESSAGE, cb_slice_str(s->status_text));
        cb_pb_varint(&p, STATUS_CODE, (uint64_t)s->status);
        cb_pb_close(&p, status);
    }
    cb_pb_fixed32(&p, SPAN_FLAGS, s->context->flags);
    cb_pb_close(&p, at);
    return p.rc;
}

static int request(cb_buf *out, const cb_otlp_resource *r, cb_slice spans) {
    cb_pb p = {.out = out};
    const cb_attribute name = {.key = "service.name", .text = cb_slice_str(r->service_name)};
    size_t whole = cb_pb_open(&p, REQUEST_RESOURCE_SPANS), resource = cb_pb_open(&p, RS_RESOURCE);
    attribute(&p, RESOURCE_ATTRIBUTES, &name);
    attributes(&p, RESOURCE_ATTRIBUTES, r->attributes, r->attributes_len);
    cb_pb_close(&p, resource);
    size_t in_scope = cb_pb_open(&p, RS_SCOPE_SPANS), scope = cb_pb_open(&p, SS_SCOPE);
    cb_pb_text(&p, SCOPE_NAME, "libcb");
    cb_pb_text(&p, SCOPE_VERSION, cb_version_text());
    cb_pb_close(&p, scope);
    cb_pb_raw(&p, spans.base, spans.len);
    cb_pb_close(&p, in_scope);
    cb_pb_close(&p, whole);
    return p.rc;
}

const cb_otlp_form cb_otlp_proto = {.content_type = "application/x-protobuf", .span = span, .request = request};
