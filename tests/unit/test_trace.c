#include "base/mem.h"
#include "support/http_fixture.h"
#include "support/moved.h"
#include "telemetry/otlp.h"
#include <cb/trace.h>
#include <criterion/criterion.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#define GOOD "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

Test(trace, traceparent) {
    static const struct {
        const char *text;
        int rc, flags;
    } rows[] = {
        {GOOD, CB_OK, 1},
        {"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00", CB_OK, 0},
        {"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-ff", CB_OK, 3}, /* unknown flags are not sent on */
        {"cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", CB_OK, 1}, /* a later version */
        {"cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-the-future-brings", CB_OK, 1},
        {"cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.what-the-future-brings", CB_EPROTO, 0},
        {GOOD "-more", CB_EPROTO, 0},
        {"ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", CB_EPROTO, 0},
        {"00-00000000000000000000000000000000-00f067aa0ba902b7-01", CB_EPROTO, 0},
        {"00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", CB_EPROTO, 0},
        {"00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01", CB_EPROTO, 0},
        {"00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-001", CB_EPROTO, 0},
        {"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0x", CB_EPROTO, 0},
        {"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1", CB_EPROTO, 0},
        {"0-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01x", CB_EPROTO, 0},
        {"00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", CB_EPROTO, 0},
        {" 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", CB_EPROTO, 0},
        {"", CB_EPROTO, 0},
    };
    char text[CB_TRACEPARENT_BYTES + 1];
    cb_trace_context c = {.size = sizeof c};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        c = (cb_trace_context){.size = sizeof c};
        cr_expect_eq(cb_trace_context_parse(&c, cb_slice_str(rows[i].text)), rows[i].rc, "%s", rows[i].text);
        if (rows[i].rc == CB_OK) cr_expect_eq(c.flags, rows[i].flags, "%s", rows[i].text);
    }
    cr_assert_eq(cb_trace_context_parse(&c, cb_slice_str(GOOD)), CB_OK);
    cb_trace_context_text(&c, text);
    cr_expect_str_eq(text, GOOD);
    c.size = 0;
    cr_expect_eq(cb_trace_context_parse(&c, cb_slice_str(GOOD)), CB_EINVAL);
}

Test(trace, a_child_keeps_the_trace) {
    cb_trace_context parent = {.size = sizeof parent}, child = parent, other = parent, fresh = parent;
    static const uint8_t zero[16];
    cr_assert_eq(cb_trace_context_parse(&parent, cb_slice_str(GOOD)), CB_OK);
    cr_assert_eq(cb_trace_context_new(&child, &parent), CB_OK);
    cr_assert_eq(cb_trace_context_new(&other, &parent), CB_OK);
    cr_assert_eq(cb_trace_context_new(&fresh, NULL), CB_OK);
    cr_expect_eq(memcmp(child.trace_id, parent.trace_id, 16), 0);
    cr_expect_neq(memcmp(child.span_id, parent.span_id, 8), 0);
    cr_expect_neq(memcmp(child.span_id, other.span_id, 8), 0);
    cr_expect_neq(memcmp(fresh.trace_id, parent.trace_id, 16), 0);
    cr_expect_neq(memcmp(fresh.trace_id, zero, 16), 0);
    cr_expect_eq(child.flags, CB_TRACE_SAMPLED);
    cr_expect_eq(fresh.flags, CB_TRACE_RANDOM);
}

Test(trace, tracestate) {
    char many[600] = "", longer[600];
    static const struct {
        const char *text;
        int valid;
    } rows[] = {
        {"congo=t61rcWkgMzE", 1},
        {"rojo=00f067aa0ba902b7,congo=t61rcWkgMzE", 1},
        {"a=1 , \tb=2,,", 1},
        {"fw529a3039@dt=FfYk6P", 1},
        {"0a=1", 1},
        {"a=has inner space", 1},
        {"", 0},
        {",", 0},
        {"a", 0},
        {"a=", 0},
        {"=b", 0},
        {"A=1", 0},
        {"_a=1", 0},
        {"a=1,a=2", 0},
        {"a=b=c", 0},
        {"a=\x01", 0},
        {"a=\xc3\xa4", 0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        cr_expect_eq(cb_tracestate_valid(cb_slice_str(rows[i].text)), rows[i].valid, "%s", rows[i].text);
    for (int i = 0; i < 33; i++)
        snprintf(many + strlen(many), sizeof many - strlen(many), "%sk%d=1", i ? "," : "", i);
    cr_expect_eq(cb_tracestate_valid(cb_slice_str(many)), 0, "33 members");
    *strrchr(many, ',') = '\0';
    cr_expect_eq(cb_tracestate_valid(cb_slice_str(many)), 1, "32 members");
    memset(longer, 'a', sizeof longer);
    longer[1] = '=';
    cr_expect_eq(cb_tracestate_valid((cb_slice){(const uint8_t *)longer, 259}), 0, "a value of 257");
    cr_expect_eq(cb_tracestate_valid((cb_slice){(const uint8_t *)longer, 258}), 1, "a value of 256");
}

static cb_sampler *sampler(cb_sampler_opts o) {
    cb_sampler *s = NULL;
    o.size = sizeof o;
    cr_assert_eq(cb_sampler_new(&s, &o), CB_OK, "%s", cb_last_error());
    return s;
}

Test(trace, sampling_by_ratio_is_the_same_everywhere) {
    static const double ratios[] = {0, 0.01, 0.5, 1};
    enum { TRACES = 4000 };
    int before = 0;
    for (size_t i = 0; i < 4; i++) {
        cb_sampler *a = sampler((cb_sampler_opts){.ratio = ratios[i]}),
                   *b = sampler((cb_sampler_opts){.ratio = ratios[i]});
        int n = 0;
        for (int k = 0; k < TRACES; k++) {
            cb_trace_context c = {.size = sizeof c};
            cr_assert_eq(cb_trace_context_new(&c, NULL), CB_OK);
            int sampled = cb_sampler_begin(a, &c, NULL, 1);
            cr_expect_eq(sampled, cb_sampler_begin(b, &c, NULL, 1));
            cr_expect_eq(c.flags & CB_TRACE_SAMPLED, sampled);
            n += sampled;
        }
        double sigma = sqrt(TRACES * ratios[i] * (1 - ratios[i]));
        cr_expect(fabs(n - TRACES * ratios[i]) <= 6 * sigma, "%d of %d at %g", n, TRACES, ratios[i]);
        cr_expect_geq(n, before);
        before = n;
        cb_sampler_free(a);
        cb_sampler_free(b);
    }
}

Test(trace, sampling_by_rate_parent_and_end) {
    cb_trace_context parent = {.size = sizeof parent}, c = parent;
    cr_assert_eq(cb_trace_context_parse(&parent, cb_slice_str(GOOD)), CB_OK);
    cr_assert_eq(cb_trace_context_new(&c, NULL), CB_OK);
    cb_sampler *s = sampler((cb_sampler_opts){.ratio = 1, .per_second = 10});
    int n = 0;
    for (uint64_t ms = 0; ms < 5000; ms += 10)
        n += cb_sampler_begin(s, &c, NULL, 1000000000 + ms * 1000000);
    cr_expect(n >= 59 && n <= 60, "ten at once and ten each second: %d", n);
    cb_sampler_free(s);

    s = sampler((cb_sampler_opts){.ratio = 0, .errors = 1, .slow_ms = 100});
    cr_expect_eq(cb_sampler_begin(s, &c, &parent, 1), 1, "the caller decided");
    parent.flags = 0;
    cr_expect_eq(cb_sampler_begin(s, &c, &parent, 1), 0);
    cr_expect_eq(cb_sampler_keep(s, &c, 0, 99999999), 0);
    cr_expect_eq(cb_sampler_keep(s, &c, 0, 100000000), 1);
    cr_expect_eq(cb_sampler_keep(s, &c, 1, 0), 1);
    cb_sampler_free(s);

    s = sampler((cb_sampler_opts){.ratio = 1, .not_parent = 1});
    cr_expect_eq(cb_sampler_begin(s, &c, &parent, 1), 1);
    cr_expect_eq(cb_sampler_keep(s, &c, 0, 0), 1);
    cb_sampler_free(s);

    static const cb_sampler_opts bad[] = {
        {.ratio = -0.1}, {.ratio = 1.1}, {.ratio = NAN}, {.per_second = -1}, {.per_second = INFINITY}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        cb_sampler_opts o = bad[i];
        o.size = sizeof o;
        cr_expect_eq(cb_sampler_new(&s, &o), CB_EINVAL, "row %zu", i);
    }
}

static const cb_attribute about[] = {
    {.key = "text", .text = {(const uint8_t *)"a\"\x01\xff\xC3\xA4", 6}},
    {.key = "int", .type = CB_ATTRIBUTE_INT, .integer = -5},
    {.key = "double", .type = CB_ATTRIBUTE_DOUBLE, .number = 0.5},
    {.key = "nan", .type = CB_ATTRIBUTE_DOUBLE, .number = NAN},
    {.key = "bool", .type = CB_ATTRIBUTE_BOOL, .integer = 7},
};

Test(trace, a_request_as_json) {
    cb_trace_context c = {.size = sizeof c}, parent = c;
    cb_buf spans, body;
    cr_assert_eq(cb_trace_context_parse(&c, cb_slice_str(GOOD)), CB_OK);
    cr_assert_eq(
        cb_trace_context_parse(&parent, cb_slice_str("00-4bf92f3577b34da6a3ce929d0e0e4736-1111111111111111-01")),
        CB_OK);
    const cb_span_event event = {.name = "retry", .time_ns = 1500};
    const cb_span s = {.size = sizeof s,
                       .context = &c,
                       .parent = &parent,
                       .name = "GET /",
                       .kind = CB_SPAN_SERVER,
                       .start_ns = 1000,
                       .end_ns = 2000,
                       .attributes = about,
                       .attributes_len = 5,
                       .events = &event,
                       .events_len = 1,
                       .status = CB_SPAN_ERROR,
                       .status_text = "no",
                       .tracestate = cb_slice_str("a=1")};
    cb_buf_init(&spans, &cb_alloc_libc, 1 << 16);
    cb_buf_init(&body, &cb_alloc_libc, 1 << 16);
    cr_assert_eq(cb_otlp_json.span(&spans, &s), CB_OK);
    cr_assert_eq(cb_otlp_json.request(
                     &body, &(cb_otlp_resource){.service_name = "me", .attributes = about + 1, .attributes_len = 1},
                     cb_buf_slice(&spans)),
                 CB_OK);
    cr_assert_eq(cb_buf_add(&body, "", 1), CB_OK);
    char want[2048];
    snprintf(
        want, sizeof want,
        "{\"resourceSpans\":[{\"resource\":{\"attributes\":[{\"key\":\"service.name\",\"value\":{\"stringValue\":"
        "\"me\"}},"
        "{\"key\":\"int\",\"value\":{\"intValue\":\"-5\"}}]},\"scopeSpans\":[{\"scope\":{\"name\":\"libcb\","
        "\"version\":\"%s\"},"
        "\"spans\":[{\"traceId\":\"4bf92f3577b34da6a3ce929d0e0e4736\",\"spanId\":\"00f067aa0ba902b7\","
        "\"parentSpanId\":\"1111111111111111\",\"traceState\":\"a=1\",\"name\":\"GET "
        "/\",\"kind\":2,\"startTimeUnixNano\":\"1000\","
        "\"endTimeUnixNano\":\"2000\",\"flags\":1,\"attributes\":[{\"key\":\"text\",\"value\":{\"stringValue\":"
        "\"a\\\"\\u0001\xEF\xBF\xBD\xC3\xA4\"}},{\"key\":\"int\",\"value\":{\"intValue\":\"-5\"}},"
        "{\"key\":\"double\",\"value\":{\"doubleValue\":0.5}},{\"key\":\"nan\",\"value\":{\"doubleValue\":\"NaN\"}},"
        "{\"key\":\"bool\",\"value\":{\"boolValue\":true}}],\"events\":[{\"timeUnixNano\":\"1500\",\"name\":\"retry\","
        "\"attributes\":[]}],\"status\":{\"code\":2,\"message\":\"no\"}}]}]}]}",
        cb_version_text());
    cr_expect_str_eq((const char *)body.base, want);
    cb_buf_free(&spans);
    cb_buf_free(&body);
}

/* A collector whose answers are written down before: a status for each request, the last one for all that follow. */
typedef struct collector {
    http_world w;
    cb_tracer *t;
    int answers[8], n_answers, asked, spans;
} collector;

static int64_t take_body(cb_exchange *x, cb_slice data, void *user) {
    (void)x;
    collector *c = user;
    for (size_t i = 0; i + 8 <= data.len; i++)
        c->spans += memcmp(data.base + i, "\"spanId\"", 8) == 0;
    return (int64_t)data.len;
}

static int answer(cb_exchange *x, void *user) {
    collector *c = user;
    int i = c->asked < c->n_answers ? c->asked : c->n_answers - 1;
    c->asked++;
    return cb_exchange_send_text(x, c->answers[i], "{}");
}

static void open_collector(collector *c, cb_tracer_opts o) {
    static const cb_exchange_ops ops = {.size = sizeof ops, .on_body = take_body, .on_end = answer};
    http_world_open(&c->w);
    http_serve(&c->w, (cb_http_server_opts){.ops = &ops, .user = c});
    o.size = sizeof o;
    o.url = c->w.url;
    o.service_name = "test";
    o.json = 1;
    cr_assert_eq(cb_tracer_new(&c->t, c->w.loop, &o), CB_OK, "%s", cb_last_error());
}

static int add_spans(cb_tracer *t, int n) {
    cb_trace_context c = {.size = sizeof c};
    int rc = CB_OK;
    for (int i = 0; i < n && rc == CB_OK; i++) {
        rc = cb_trace_context_new(&c, NULL);
        if (rc == CB_OK)
            rc = cb_tracer_add(
                t, CB_OPTS(cb_span, .context = &c, .name = "a span", .attributes = about, .attributes_len = 5));
    }
    return rc;
}

static cb_tracer_stats stats(cb_tracer *t) {
    cb_tracer_stats s = {.size = sizeof s};
    cr_assert_eq(cb_tracer_stats_get(t, &s), CB_OK);
    return s;
}

/* Turns until nothing waits. */
static void settle(collector *c) {
    for (int i = 0; i < 20000 && stats(c->t).waiting_bytes > 0; i++) {
        cb_loop_step(c->w.loop);
        struct timespec ms = {.tv_nsec = 1000000};
        nanosleep(&ms, NULL);
    }
    cr_assert_eq(stats(c->t).waiting_bytes, 0, "spans still wait");
}

static void close_collector(collector *c) {
    cb_tracer_free(c->t);
    http_world_close(&c->w);
}

Test(trace, batches_arrive) {
    collector c = {.answers = {200}, .n_answers = 1};
    open_collector(&c, (cb_tracer_opts){.batch_spans = 10, .batch_ms = 20});
    cr_assert_eq(add_spans(c.t, 95), CB_OK);
    settle(&c);
    cb_tracer_stats s = stats(c.t);
    cr_expect_eq(s.sent, 95);
    cr_expect_eq(s.requests, 10);
    cr_expect_eq(c.spans, 95);
    cr_expect_eq(s.dropped_full + s.dropped_failed + s.failures, 0);
    cr_assert_eq(add_spans(c.t, 1), CB_OK);
    cb_tracer_flush(c.t);
    settle(&c);
    cr_expect_eq(c.spans, 96);
    close_collector(&c);
}

Test(trace, what_is_refused_for_now_is_sent_again) {
    collector c = {.answers = {503, 429, 200}, .n_answers = 3};
    open_collector(&c, (cb_tracer_opts){.batch_ms = 1});
    cr_assert_eq(add_spans(c.t, 3), CB_OK);
    settle(&c);
    cb_tracer_stats s = stats(c.t);
    cr_expect_eq(s.sent, 3);
    cr_expect_eq(s.requests, 3);
    cr_expect_eq(s.failures, 2);
    close_collector(&c);
}

Test(trace, what_is_refused_for_good_is_counted) {
    collector c = {.answers = {400}, .n_answers = 1};
    open_collector(&c, (cb_tracer_opts){.batch_ms = 1});
    cr_assert_eq(add_spans(c.t, 3), CB_OK);
    settle(&c);
    cb_tracer_stats s = stats(c.t);
    cr_expect_eq(s.dropped_failed, 3);
    cr_expect_eq(s.requests, 1);
    cr_assert_eq(cb_tracer_metrics(c.t, c.w.metrics, "otlp"), CB_OK, "%s", cb_last_error());
    moved_scrape(c.w.metrics);
    EXPECT_MOVED(c.w.metrics, 3, "cb_trace_spans", "otlp");
    EXPECT_MOVED(c.w.metrics, 0, "cb_trace_sent_spans", "otlp");
    EXPECT_MOVED(c.w.metrics, 3, "cb_trace_dropped_spans", "otlp", "failed");
    EXPECT_MOVED(c.w.metrics, 1, "cb_trace_requests", "otlp");
    EXPECT_MOVED(c.w.metrics, 1, "cb_trace_failed_requests", "otlp");
    close_collector(&c);
}

Test(trace, a_dead_collector_costs_bounded_memory) {
    collector c = {.answers = {503}, .n_answers = 1};
    open_collector(&c, (cb_tracer_opts){.queue_bytes = 20000, .retry_s = 1, .batch_spans = 8, .batch_ms = 1});
    int rc = CB_OK, added = 0;
    while (rc == CB_OK && added < 1000) {
        rc = add_spans(c.t, 1);
        added += rc == CB_OK;
        cb_loop_step(c.w.loop);
    }
    cr_expect_eq(rc, CB_ELIMIT);
    cb_tracer_stats s = stats(c.t);
    cr_expect(s.waiting_bytes <= 20000 && s.waiting_bytes > 10000, "%d bytes", (int)s.waiting_bytes);
    cr_expect_eq(s.dropped_full, 1);
    cr_assert_eq(cb_tracer_metrics(c.t, c.w.metrics, NULL), CB_OK, "%s", cb_last_error());
    cr_expect_eq(cb_tracer_metrics(c.t, c.w.metrics, NULL), CB_EEXIST);
    moved_scrape(c.w.metrics);
    EXPECT_MOVED(c.w.metrics, 1, "cb_trace_dropped_spans", "", "full");
    EXPECT_MOVED_IN(c.w.metrics, 10000, 20000, "cb_trace_waiting_bytes", "");
    for (int i = 0; i < 20000 && stats(c.t).dropped_failed == 0; i++) {
        cb_loop_step(c.w.loop);
        struct timespec ms = {.tv_nsec = 1000000};
        nanosleep(&ms, NULL);
    }
    cr_expect_eq(add_spans(c.t, 1), CB_OK, "there is room again");
    close_collector(&c); /* with spans that wait */
}

enum { ADDERS = 3, EACH = 2000 };

static void *adder(void *user) {
    return add_spans(user, EACH) == CB_OK ? user : NULL;
}

Test(trace, any_thread_may_add) {
    collector c = {.answers = {200}, .n_answers = 1};
    pthread_t threads[ADDERS];
    open_collector(&c, (cb_tracer_opts){.batch_ms = 1});
    for (int i = 0; i < ADDERS; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, adder, c.t), 0);
    for (int i = 0; i < 50; i++)
        cb_loop_step(c.w.loop);
    for (int i = 0; i < ADDERS; i++) {
        void *good = NULL;
        pthread_join(threads[i], &good);
        cr_expect_eq(good, c.t);
    }
    settle(&c);
    cr_expect_eq(c.spans, ADDERS * EACH);
    close_collector(&c);
}

Test(trace, bad_options_and_spans_are_named) {
    cb_trace_context c = {.size = sizeof c};
    collector k = {.answers = {200}, .n_answers = 1};
    cb_tracer *t = NULL;
    open_collector(&k, (cb_tracer_opts){0});
    static const cb_attribute no_key[1];
    static const struct {
        cb_tracer_opts o;
        const char *text;
    } rows[] = {
        {{.service_name = "x"}, "url"},
        {{.url = "http://a"}, "service_name"},
        {{.url = "ftp://a", .service_name = "x"}, "ftp"},
        {{.url = "http://u@a/", .service_name = "x"}, "u@a"},
        {{.url = "http://a", .service_name = "x", .queue_bytes = 1u << 30}, "queue_bytes"},
        {{.url = "http://a", .service_name = "x", .resource = no_key, .resource_len = 1}, "has no key"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cb_tracer_opts o = rows[i].o;
        o.size = sizeof o;
        cr_expect_eq(cb_tracer_new(&t, k.w.loop, &o), CB_EINVAL, "row %zu", i);
        cr_expect(strstr(cb_last_error(), rows[i].text), "row %zu: %s", i, cb_last_error());
    }
    cr_assert_eq(cb_trace_context_new(&c, NULL), CB_OK);
    cr_expect_eq(cb_tracer_add(k.t, CB_OPTS(cb_span, .name = "x")), CB_EINVAL);
    cr_expect_eq(cb_tracer_add(k.t, CB_OPTS(cb_span, .context = &c)), CB_EINVAL);
    cr_expect_eq(cb_tracer_add(k.t, CB_OPTS(cb_span, .context = &c, .name = "x", .attributes_len = 129)), CB_EINVAL);
    close_collector(&k);
}
