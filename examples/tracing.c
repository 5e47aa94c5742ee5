/* tracing - a trace of two spans, sent to a collector by OTLP: tracing http://127.0.0.1:4318 [TRACEPARENT]
 *   cc tracing.c $(pkg-config --cflags --libs libcb) */
#include <cb.h>
#include <stdbool.h>
#include <stdio.h>
#include <time.h>

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

int main(int argc, char **argv) {
    cb_trace_context caller = {.size = sizeof caller}, request = caller, query = caller;
    cb_tracer_stats stats = {.size = sizeof stats};
    cb_loop *loop = NULL;
    cb_tracer *tracer = NULL;
    char field[CB_TRACEPARENT_BYTES + 1];

    if (argc < 2) {
        fprintf(stderr, "usage: tracing COLLECTOR [TRACEPARENT]\n");
        return 2;
    }
    /* What came with the request, if it is sound: our spans go below it. */
    bool called = argc > 2 && cb_trace_context_parse(&caller, cb_slice_str(argv[2])) == CB_OK;
    int rc = cb_loop_new(&loop, NULL);
    if (rc == CB_OK)
        rc = cb_tracer_new(&tracer, loop, CB_OPTS(cb_tracer_opts, .url = argv[1], .service_name = "tracing-example"));
    if (rc == CB_OK) rc = cb_trace_context_new(&request, called ? &caller : NULL);
    if (rc == CB_OK) rc = cb_trace_context_new(&query, &request);
    if (rc == CB_OK) {
        const cb_attribute about[] = {
            {.key = "http.request.method", .text = cb_slice_str("GET")},
            {.key = "http.response.status_code", .type = CB_ATTRIBUTE_INT, .integer = 500},
        };
        int64_t end = now_ns();
        rc = cb_tracer_add(tracer, CB_OPTS(cb_span, .context = &query, .parent = &request, .name = "query",
                                           .kind = CB_SPAN_CLIENT, .start_ns = end - 2000000, .end_ns = end - 1000000));
        if (rc == CB_OK)
            rc = cb_tracer_add(tracer, CB_OPTS(cb_span, .context = &request, .parent = called ? &caller : NULL,
                                               .name = "GET /", .kind = CB_SPAN_SERVER, .start_ns = end - 3000000,
                                               .end_ns = end, .attributes = about, .attributes_len = 2,
                                               .status = CB_SPAN_ERROR, .status_text = "the database is asleep"));
    }
    if (rc == CB_OK) cb_tracer_flush(tracer);
    if (rc == CB_OK) rc = cb_loop_run(loop); /* until they are sent, or given up */
    if (rc == CB_OK) rc = cb_tracer_stats_get(tracer, &stats);
    if (rc < 0) fprintf(stderr, "tracing: %s: %s\n", cb_strerror(rc), cb_last_error());
    cb_trace_context_text(&request, field);
    printf("%s: %llu sent, %llu dropped\n", field, (unsigned long long)stats.sent,
           (unsigned long long)(stats.dropped_full + stats.dropped_failed));
    cb_tracer_free(tracer);
    cb_loop_free(loop);
    return rc < 0 || stats.sent != 2;
}
