/* cb/trace.h - distributed tracing: W3C trace context, sampling, and export by OTLP over HTTP.
 *
 * A request that comes in carries a context (traceparent and tracestate); a program makes one of its own below it,
 * sends that on, and when its part is over adds a span to a tracer, which gathers spans and sends them in batches.
 * Nothing waits for the collector: spans that find no room, or that it does not take in time, are dropped and counted.
 *
 * Sources: W3C Trace Context Level 2; OpenTelemetry Protocol 1.5 (OTLP/HTTP, protobuf and JSON).
 *
 * Threads. A tracer sends on the loop that made it; cb_tracer_add() and the statistics are thread-safe. A cb_sampler is
 * thread-safe. */
#ifndef CB_TRACE_H
#define CB_TRACE_H

#include <cb/loop.h>
#include <cb/tls.h>

CB_BEGIN

/* ---- context ---- */

enum { CB_TRACEPARENT_BYTES = 55 };

enum cb_trace_flag {
    CB_TRACE_SAMPLED = 1, /* the caller records this trace */
    CB_TRACE_RANDOM = 2   /* the last seven bytes of the trace ID are random */
};

/* Where in which trace somebody is. */
typedef struct cb_trace_context {
    size_t size;
    uint8_t trace_id[16]; /* not all zero */
    uint8_t span_id[8];   /* not all zero */
    uint8_t flags;        /* of enum cb_trace_flag */
    uint8_t reserved[7];
} cb_trace_context;

/* Reads a traceparent field: version 00 exactly; of later versions what is known. CB_EPROTO (malformed, all zero, or
 * version ff: a new trace begins then), CB_EINVAL (out, out->size). */
CB_API int cb_trace_context_parse(cb_trace_context *out, cb_slice traceparent);
/* The field of version 00, with a NUL behind it. */
CB_API void cb_trace_context_text(const cb_trace_context *context, char out[CB_TRACEPARENT_BYTES + 1]);
/* A context below `parent`: its trace and flags and a new span ID; NULL: a new trace, not sampled. Thread-safe.
 * CB_EINVAL, CB_ETLS (no random bytes). */
CB_API int cb_trace_context_new(cb_trace_context *out, const cb_trace_context *parent);
/* May a tracestate field be sent on? 1: at most 512 bytes and 32 well-formed members, each key once; otherwise 0, and
 * it is left out (W3C Trace Context 3.3). */
CB_API int cb_tracestate_valid(cb_slice tracestate);

/* ---- sampling ---- */

typedef struct cb_sampler cb_sampler;

typedef struct cb_sampler_opts {
    size_t size;
    double ratio;       /* of new traces, 0 to 1, by their ID: all that use the same ratio choose the same traces */
    double per_second;  /* new traces at most; 0 = no limit */
    uint32_t slow_ms;   /* keep spans that took at least so long, sampled or not; 0 = no */
    uint8_t errors;     /* 1: keep spans that failed, sampled or not */
    uint8_t not_parent; /* 1: decide anew where a caller has decided already */
    uint8_t reserved[2];
} cb_sampler_opts;

/* CB_EINVAL (out; ratio, per_second: out of range), CB_ENOMEM, CB_E2BIG. */
CB_API int cb_sampler_new(cb_sampler **out, const cb_sampler_opts *opts);
CB_API void cb_sampler_free(cb_sampler *s); /* NULL is fine */
/* At the beginning: sets or clears CB_TRACE_SAMPLED of a context that was made below `parent` (NULL: there is none).
 * Returns 1 when it is sampled. now: cb_loop_now(). */
CB_API int cb_sampler_begin(cb_sampler *s, cb_trace_context *context, const cb_trace_context *parent, cb_time now);
/* At the end: 1 when the span is to be added to a tracer. */
CB_API int cb_sampler_keep(const cb_sampler *s, const cb_trace_context *context, int failed, uint64_t duration_ns);

/* ---- spans ---- */

enum cb_span_kind {
    CB_SPAN_INTERNAL = 1,
    CB_SPAN_SERVER = 2,
    CB_SPAN_CLIENT = 3,
    CB_SPAN_PRODUCER = 4,
    CB_SPAN_CONSUMER = 5
};

enum cb_span_status { CB_SPAN_UNSET = 0, CB_SPAN_OK = 1, CB_SPAN_ERROR = 2 };

enum cb_attribute_type { CB_ATTRIBUTE_TEXT = 0, CB_ATTRIBUTE_INT = 1, CB_ATTRIBUTE_DOUBLE = 2, CB_ATTRIBUTE_BOOL = 3 };

/* A name and a value; names are those of OpenTelemetry's semantic conventions where they have one. */
typedef struct cb_attribute {
    const char *key;
    cb_slice text;   /* invalid UTF-8 becomes U+FFFD; cut at 4,096 bytes */
    int64_t integer; /* of CB_ATTRIBUTE_INT; of CB_ATTRIBUTE_BOOL 0 or 1 */
    double number;
    int32_t type; /* enum cb_attribute_type */
    uint32_t reserved;
} cb_attribute;

/* Something that happened during a span. */
typedef struct cb_span_event {
    const char *name;
    int64_t time_ns; /* since 1970 */
    const cb_attribute *attributes;
    size_t attributes_len;
} cb_span_event;

/* A part of a trace that is over. Everything is copied during the call that it is given to. */
typedef struct cb_span {
    size_t size;
    const cb_trace_context *context; /* required */
    const cb_trace_context *parent;  /* NULL: the first of its trace */
    const char *name;                /* required */
    const char *status_text;         /* of CB_SPAN_ERROR; NULL = none */
    cb_slice tracestate;
    int64_t start_ns, end_ns; /* since 1970 */
    const cb_attribute *attributes;
    size_t attributes_len; /* at most 128 */
    const cb_span_event *events;
    size_t events_len; /* at most 128 */
    int32_t kind;      /* enum cb_span_kind; 0 = CB_SPAN_INTERNAL */
    int32_t status;    /* enum cb_span_status */
} cb_span;

/* ---- export ---- */

typedef struct cb_tracer cb_tracer;

typedef struct cb_tracer_opts {
    size_t size;
    const char *url;              /* of the collector; "/v1/traces" is added where there is no path; required */
    const char *service_name;     /* service.name; required */
    const char *authorization;    /* field of that name; NULL = none. Never logged */
    const cb_attribute *resource; /* further attributes of the process, such as service.instance.id */
    size_t resource_len;
    cb_identity *identity; /* for https: roots, and a certificate to show; NULL = the system's roots */
    uint32_t queue_bytes;  /* that wait, encoded; 0 = 4 MiB, at most 256 MiB */
    uint32_t batch_spans;  /* sent together; 0 = 512 */
    uint32_t batch_ms;     /* the longest that a span waits for others; 0 = 1,000 */
    uint32_t timeout_ms;   /* of one request; 0 = 10,000 */
    uint32_t retry_s;      /* how long a batch is tried when the collector does not take it; 0 = 60 */
    uint32_t json;         /* 1: OTLP/JSON, 0: protobuf */
} cb_tracer_opts;

typedef struct cb_tracer_stats {
    size_t size;             /* set by the caller */
    uint64_t added;          /* spans that found room */
    uint64_t sent;           /* that the collector took */
    uint64_t dropped_full;   /* for which there was no room */
    uint64_t dropped_failed; /* that the collector refused, or did not take in time */
    uint64_t requests;
    uint64_t failures; /* requests that failed or were refused */
    uint64_t waiting_bytes;
} cb_tracer_stats;

/* A tracer that sends on this loop; it does not keep the loop alive. CB_EINVAL (out, loop; the detail names the
 * option), CB_ENOMEM, CB_ETLS, CB_E2BIG. */
CB_API int cb_tracer_new(cb_tracer **out, cb_loop *loop, const cb_tracer_opts *opts);
/* Adds a span; thread-safe, never waits. CB_EINVAL (context, name, counts), CB_ELIMIT (no room: dropped and counted),
 * CB_ENOMEM. */
CB_API int cb_tracer_add(cb_tracer *t, const cb_span *span);
/* Sends what waits now rather than when a batch is full; on the loop's thread. */
CB_API void cb_tracer_flush(cb_tracer *t);
/* CB_EINVAL (out, size). */
CB_API int cb_tracer_stats_get(cb_tracer *t, cb_tracer_stats *out);
/* Shows its statistics in a registry from now on, as the families cb_trace_* of docs/metrics.md with this
 * value of their label "name" (NULL = ""), until it is freed. Once. CB_EINVAL, CB_EEXIST, CB_ENOMEM. */
CB_API int cb_tracer_metrics(cb_tracer *t, cb_metrics *m, const char *name);
/* What waits is dropped. Nobody may be adding. NULL is fine. */
CB_API void cb_tracer_free(cb_tracer *t);

CB_END
#endif
