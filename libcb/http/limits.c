#include "base/opts.h"
#include "http/hconn.h"

int cb_http_limits_fill(cb_http_limits *out, const cb_http_limits *in) {
    static const cb_http_limits d = {.max_head_bytes = 65536,
                                     .max_fields = 100,
                                     .max_target_bytes = 8192,
                                     .max_streams = 128,
                                     .head_timeout_ms = 10000,
                                     .body_timeout_ms = 30000,
                                     .idle_timeout_ms = 60000,
                                     .send_timeout_ms = 30000,
                                     .max_resets_per_s = 20,
                                     .max_settings_per_s = 50,
                                     .max_continuations = 8,
                                     .table_bytes = 4096,
                                     .stream_window_bytes = 262144,
                                     .send_buffer_bytes = 262144,
                                     .max_requests = 100000};
    cb_http_limits l;
    int rc = cb_opts_read(&l, sizeof l, in, "cb_http_limits");
    if (rc < 0) return rc;
    const struct {
        uint32_t *at;
        uint32_t value;
    } fill[] = {{&l.max_head_bytes, d.max_head_bytes},
                {&l.max_fields, d.max_fields},
                {&l.max_target_bytes, d.max_target_bytes},
                {&l.max_streams, d.max_streams},
                {&l.head_timeout_ms, d.head_timeout_ms},
                {&l.body_timeout_ms, d.body_timeout_ms},
                {&l.idle_timeout_ms, d.idle_timeout_ms},
                {&l.send_timeout_ms, d.send_timeout_ms},
                {&l.max_resets_per_s, d.max_resets_per_s},
                {&l.max_settings_per_s, d.max_settings_per_s},
                {&l.max_continuations, d.max_continuations},
                {&l.table_bytes, d.table_bytes},
                {&l.stream_window_bytes, d.stream_window_bytes},
                {&l.send_buffer_bytes, d.send_buffer_bytes},
                {&l.max_requests, d.max_requests}};
    for (size_t i = 0; i < sizeof fill / sizeof *fill; i++)
        if (!*fill[i].at) *fill[i].at = fill[i].value;
    *out = l;
    return CB_OK;
}
