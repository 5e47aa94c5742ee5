/* OpenTelemetry's traces (opentelemetry-proto 1.5, trace/v1 and collector/trace/v1) as protobuf and as JSON. */
#ifndef CB_TELEMETRY_OTLP_H
#define CB_TELEMETRY_OTLP_H

#include "base/buf.h"
#include <cb/trace.h>

enum { CB_OTLP_LIST_MAX = 128 };

/* What a request says about who sends. */
typedef struct cb_otlp_resource {
    const char *service_name;
    const cb_attribute *attributes;
    size_t attributes_len;
} cb_otlp_resource;

typedef struct cb_otlp_form {
    const char *content_type;
    /* Adds one span to those that wait; the spans of a request stand behind each other. CB_ELIMIT, CB_ENOMEM: what was
     * added of it is the caller's to cut. */
    int (*span)(cb_buf *out, const cb_span *s);
    /* A request with these spans. */
    int (*request)(cb_buf *out, const cb_otlp_resource *r, cb_slice spans);
} cb_otlp_form;

extern const cb_otlp_form cb_otlp_proto, cb_otlp_json;

#endif
