#include "base/mem.h"
#include "telemetry/metric_bounds.h"
#include <cb/metrics.h>
#include <criterion/criterion.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct world {
    cb_metrics *m;
    cb_meter *meter;
    char text[65536];
    size_t len;
} world;

static void begin(world *w, const cb_metrics_opts *opts) {
    cr_assert_eq(cb_metrics_new(&w->m, opts), CB_OK, "%s", cb_last_error());
    cr_assert_eq(cb_meter_new(&w->meter, w->m), CB_OK, "%s", cb_last_error());
}

static void end(world *w) {
    cb_meter_free(w->meter);
    cb_metrics_unref(w->m);
}

static int gather(cb_slice piece, void *user) {
    world *w = user;
    if (w->len + piece.len >= sizeof w->text) return CB_ELIMIT;
    memcpy(w->text + w->len, piece.base, piece.len);
    w->len += piece.len;
    w->text[w->len] = '\0';
    return CB_OK;
}

static const char *shown(world *w, int format, int64_t now_ms) {
    w->len = 0;
    w->text[0] = '\0';
    cr_assert_eq(cb_metrics_render(w->m, format, now_ms, gather, w), CB_OK, "%s", cb_last_error());
    return w->text;
}

static cb_metric *family(world *w, const cb_metric_opts *o) {
    cb_metric *f = NULL;
    cr_assert_eq(cb_metrics_define(&f, w->m, o), CB_OK, "%s", cb_last_error());
    return f;
}

#define FAMILY(w, ...) family(w, CB_OPTS(cb_metric_opts, .help = "Something.", __VA_ARGS__))

static cb_counter *counter(world *w, cb_metric *f, const char *a, const char *b) {
    cb_counter *c = NULL;
    const cb_slice values[] = {cb_slice_str(a), cb_slice_str(b)};
    cr_assert_eq(cb_meter_counter(&c, w->meter, f, values), CB_OK, "%s", cb_last_error());
    return c;
}

Test(metrics, the_three_kinds_as_text) {
    static const double bounds[] = {0.001, 0.0025, 10};
    static const char *const labels[] = {"code", "host"};
    world w;
    cb_gauge *g = NULL;
    cb_histogram *h = NULL;
    begin(&w, NULL);
    cb_metric *c = FAMILY(&w, .name = "requests", .kind = CB_METRIC_COUNTER, .labels = labels, .labels_len = 2);
    cb_metric *t = FAMILY(&w, .name = "offset_seconds", .kind = CB_METRIC_GAUGE, .unit = "seconds", .decimals = 3);
    cb_metric *d = FAMILY(&w, .name = "wait_seconds", .kind = CB_METRIC_HISTOGRAM, .unit = "seconds", .decimals = 9,
                          .bounds = bounds, .bounds_len = 3);
    FAMILY(&w, .name = "never", .kind = CB_METRIC_COUNTER);
    cb_counter_add(counter(&w, c, "200", "a\"b\\c\nd"), 41);
    cb_counter_add(counter(&w, c, "200", "a\"b\\c\nd"), 1);
    cb_counter_add(counter(&w, c, "404", ""), 7);
    cr_assert_eq(cb_meter_gauge(&g, w.meter, t, NULL), CB_OK);
    cb_gauge_set(g, 0);
    cb_gauge_add(g, -1250);
    cr_assert_eq(cb_meter_histogram(&h, w.meter, d, NULL), CB_OK);
    cb_histogram_add(h, 1000000); /* the bound itself belongs below it */
    cb_histogram_add(h, 1000001);
    cb_histogram_add(h, 50000000000);
    cr_expect_str_eq(
        shown(&w, CB_METRICS_TEXT, 0),
        "# HELP requests_total Something.\n# TYPE requests_total counter\n"
        "requests_total{code=\"200\",host=\"a\\\"b\\\\c\\nd\"} 42\nrequests_total{code=\"404\",host=\"\"} 7\n"
        "# HELP offset_seconds Something.\n# TYPE offset_seconds gauge\noffset_seconds -1.25\n"
        "# HELP wait_seconds Something.\n# TYPE wait_seconds histogram\n"
        "wait_seconds_bucket{le=\"0.001\"} 1\nwait_seconds_bucket{le=\"0.0025\"} 2\n"
        "wait_seconds_bucket{le=\"10.0\"} 2\nwait_seconds_bucket{le=\"+Inf\"} 3\n"
        "wait_seconds_sum 50.002000001\nwait_seconds_count 3\n");
    const char *open = shown(&w, CB_METRICS_OPENMETRICS, 0);
    cr_expect(strstr(open, "# TYPE requests counter\nrequests_total{"), "%s", open);
    cr_expect(strstr(open, "# TYPE wait_seconds histogram\n# UNIT wait_seconds seconds\n"), "%s", open);
    cr_expect(strlen(open) > 6 && strcmp(open + strlen(open) - 6, "# EOF\n") == 0, "%s", open);
    end(&w);
}

Test(metrics, wrong_definitions_are_named) {
    static const char *const le[] = {"le"}, *const twice[] = {"a", "a"}, *const big[] = {"A"};
    static const double falling[] = {1, 0.5}, outside[] = {1e-9};
    static const struct {
        cb_metric_opts o;
        const char *text;
    } rows[] = {
        {{.name = NULL}, "a name is"},
        {{.name = "Upper"}, "a name is"},
        {{.name = "1st"}, "a name is"},
        {{.name = "requests_total"}, "does not end in _total"},
        {{.name = "x_bucket"}, "does not end in _bucket"},
        {{.name = "x", .kind = 9}, "kind 9"},
        {{.name = "x", .kind = 1, .help = ""}, "help is needed"},
        {{.name = "x", .kind = 1, .unit = "seconds"}, "must end in its unit, _seconds"},
        {{.name = "x", .kind = 1, .decimals = 13}, "decimals"},
        {{.name = "x", .kind = 1, .labels = le, .labels_len = 1}, "label 0"},
        {{.name = "x", .kind = 1, .labels = big, .labels_len = 1}, "label 0"},
        {{.name = "x", .kind = 1, .labels = twice, .labels_len = 2}, "label a is there twice"},
        {{.name = "x", .kind = 1, .labels = twice, .labels_len = 9}, "9 labels"},
        {{.name = "x", .kind = 1, .max_series = 1000000}, "max_series"},
        {{.name = "x", .kind = 3, .bounds = falling, .bounds_len = 2, .decimals = 9}, "does not rise"},
        {{.name = "x", .kind = 3, .bounds = outside, .bounds_len = 1, .decimals = 9}, "is not in the range"},
        {{.name = "x", .kind = 3, .min = 1, .max = 1e13}, "the range"},
        {{.name = "x", .kind = 3, .min = 2, .max = 1}, "the range"},
        {{.name = "x", .kind = 3, .min = NAN}, "the range"},
    };
    world w;
    begin(&w, NULL);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cb_metric_opts o = rows[i].o;
        cb_metric *f = NULL;
        o.size = sizeof o;
        if (!o.help) o.help = "Something.";
        cr_expect_eq(cb_metrics_define(&f, w.m, &o), CB_EINVAL, "row %zu", i);
        cr_expect(strstr(cb_last_error(), rows[i].text), "row %zu: %s", i, cb_last_error());
        cr_expect_null(f);
    }
    cr_expect_str_eq(shown(&w, CB_METRICS_TEXT, 0), "");
    end(&w);
}

Test(metrics, a_name_means_one_thing) {
    static const char *const labels[] = {"a"};
    world w;
    cb_metric *other = NULL;
    cb_gauge *g = NULL;
    begin(&w, NULL);
    cb_metric *f = FAMILY(&w, .name = "x", .kind = CB_METRIC_COUNTER);
    cr_expect_eq(FAMILY(&w, .name = "x", .kind = CB_METRIC_COUNTER), f);
    cr_expect_eq(cb_metrics_find(w.m, "x"), f);
    cr_expect_null(cb_metrics_find(w.m, "x_total"));
    const cb_metric_opts gauge = {.size = sizeof gauge, .name = "x", .help = "Something.", .kind = CB_METRIC_GAUGE};
    const cb_metric_opts more = {.size = sizeof more,
                                 .name = "x",
                                 .help = "Something.",
                                 .kind = CB_METRIC_COUNTER,
                                 .labels = labels,
                                 .labels_len = 1};
    cr_expect_eq(cb_metrics_define(&other, w.m, &gauge), CB_EEXIST);
    cr_expect_eq(cb_metrics_define(&other, w.m, &more), CB_EEXIST);
    cr_expect_eq(cb_meter_gauge(&g, w.meter, f, NULL), CB_EINVAL);
    end(&w);
}

Test(metrics, labels_are_capped_and_cleaned) {
    static const char *const labels[] = {"a", "b"};
    world w;
    char value[16], longer[600];
    double v = 0;
    begin(&w, NULL);
    cb_metric *f =
        FAMILY(&w, .name = "x", .kind = CB_METRIC_COUNTER, .labels = labels, .labels_len = 2, .max_series = 10);
    memset(longer, 'y', sizeof longer);
    longer[sizeof longer - 1] = '\0';
    cb_counter_add(counter(&w, f, "bad\xff\xc3", longer), 1);
    for (int i = 0; i < 100; i++) {
        snprintf(value, sizeof value, "%d", i);
        cb_counter_add(counter(&w, f, value, "b"), 1);
    }
    const cb_slice overflow[] = {cb_slice_str("_other"), cb_slice_str("_other")};
    cr_expect_eq(cb_metrics_value(w.m, "x", overflow, &v), CB_OK);
    cr_expect_eq(v, 91);
    const char *text = shown(&w, CB_METRICS_TEXT, 0);
    const char *cleaned = strstr(text, "a=\"bad\xEF\xBF\xBD\xEF\xBF\xBD\",b=\"");
    cr_assert(cleaned, "%s", text);
    cr_expect_eq(strspn(strstr(cleaned, "b=\"") + 3, "y"), 256);
    const cb_slice absent[] = {cb_slice_str("no"), cb_slice_str("no")};
    cr_expect_eq(cb_metrics_value(w.m, "x", absent, &v), CB_ENOENT);
    cr_expect_eq(cb_metrics_value(w.m, "y", absent, &v), CB_ENOENT);
    end(&w);
}

Test(metrics, the_registry_has_a_cap_of_its_own) {
    static const char *const labels[] = {"a", "b"};
    world w;
    char value[16];
    begin(&w, CB_OPTS(cb_metrics_opts, .max_series = 5));
    for (int k = 0; k < 2; k++) {
        cb_metric *f = FAMILY(&w, .name = k ? "y" : "x", .kind = CB_METRIC_COUNTER, .labels = labels, .labels_len = 2);
        for (int i = 0; i < 20; i++) {
            snprintf(value, sizeof value, "%d", i);
            cb_counter_add(counter(&w, f, value, "b"), 1);
        }
    }
    const char *text = shown(&w, CB_METRICS_TEXT, 0);
    cr_expect(strstr(text, "x_total{a=\"_other\",b=\"_other\"} 15\n") &&
                  strstr(text, "y_total{a=\"_other\",b=\"_other\"} 20\n"),
              "%s", text);
    end(&w);
}

Test(metrics, what_a_meter_counted_outlives_it) {
    world w;
    cb_meter *second = NULL;
    cb_counter *a = NULL, *b = NULL;
    cb_gauge *g = NULL;
    cb_histogram *h = NULL;
    double v = 0;
    begin(&w, NULL);
    cb_metric *f = FAMILY(&w, .name = "x", .kind = CB_METRIC_COUNTER),
              *l = FAMILY(&w, .name = "l", .kind = CB_METRIC_GAUGE);
    cb_metric *d = FAMILY(&w, .name = "d", .kind = CB_METRIC_HISTOGRAM);
    cr_assert_eq(cb_meter_new(&second, w.m), CB_OK);
    cr_assert_eq(cb_meter_counter(&a, w.meter, f, NULL), CB_OK);
    cr_assert_eq(cb_meter_counter(&b, second, f, NULL), CB_OK);
    cr_expect_neq(a, b);
    cb_counter_add(a, 3);
    cb_counter_add(b, 4);
    cr_assert_eq(cb_meter_gauge(&g, second, l, NULL), CB_OK);
    cb_gauge_set(g, 9);
    cr_assert_eq(cb_meter_histogram(&h, second, d, NULL), CB_OK);
    cb_histogram_add(h, 100);
    cb_meter_free(second);
    cr_expect_eq(cb_metrics_value(w.m, "x", NULL, &v), CB_OK);
    cr_expect_eq(v, 7);
    cr_expect_eq(cb_metrics_value(w.m, "d", NULL, &v), CB_OK);
    cr_expect_eq(v, 1);
    shown(&w, CB_METRICS_TEXT, 1);
    cr_expect_eq(cb_metrics_value(w.m, "l", NULL, &v), CB_ENOENT, "a gauge of nobody is gone");
    end(&w);
}

Test(metrics, idle_series_go_and_may_come_back) {
    static const char *const labels[] = {"a", "b"};
    world w;
    begin(&w, CB_OPTS(cb_metrics_opts, .idle_s = 60));
    cb_metric *f = FAMILY(&w, .name = "x", .kind = CB_METRIC_COUNTER, .labels = labels, .labels_len = 2);
    cb_counter *c = counter(&w, f, "1", "2");
    cb_counter_add(c, 5);
    cr_expect_eq(counter(&w, f, "1", "2"), c);
    cb_counter_release(c);
    cr_expect(strstr(shown(&w, CB_METRICS_TEXT, 1000), "} 5\n"), "got twice, released once: held");
    cb_counter_release(c);
    cr_expect(strstr(shown(&w, CB_METRICS_TEXT, 2000), "} 5\n"));
    c = counter(&w, f, "1", "2");
    cb_counter_add(c, 1);
    cr_expect(strstr(shown(&w, CB_METRICS_TEXT, 70000), "} 6\n"), "it came back in time");
    cb_counter_release(c);
    cr_expect(strstr(shown(&w, CB_METRICS_TEXT, 80000), "} 6\n"));
    cr_expect(strstr(shown(&w, CB_METRICS_TEXT, 139999), "} 6\n"));
    cr_expect_str_eq(shown(&w, CB_METRICS_TEXT, 140000), "");
    end(&w);
}

typedef struct mirrored {
    cb_metrics *m;
    int left; /* calls that set something */
} mirrored;

static void mirror(cb_meter *meter, void *user) {
    mirrored *state = user;
    cb_metrics *m = state->m;
    cb_counter *c = NULL;
    cb_gauge *g = NULL;
    cb_metric *f = NULL, *l = NULL;
    cr_assert_eq(cb_metrics_define(&f, m, CB_OPTS(cb_metric_opts, .name = "x", .help = "Something.", .kind = 1)),
                 CB_OK);
    cr_assert_eq(cb_metrics_define(&l, m, CB_OPTS(cb_metric_opts, .name = "l", .help = "Something.", .kind = 2)),
                 CB_OK);
    if (state->left <= 0) return;
    state->left--;
    cr_assert_eq(cb_meter_counter(&c, meter, f, NULL), CB_OK);
    cb_counter_set(c, 1000);
    cr_assert_eq(cb_meter_gauge(&g, meter, l, NULL), CB_OK);
    cb_gauge_set(g, 3);
}

Test(metrics, collectors_show_what_is_counted_elsewhere) {
    mirrored state = {.left = 2};
    world w;
    begin(&w, NULL);
    state.m = w.m;
    cr_assert_eq(cb_metrics_collector(w.m, mirror, &state), CB_OK);
    for (int i = 0; i < 2; i++) {
        const char *text = shown(&w, CB_METRICS_TEXT, 0);
        cr_expect(strstr(text, "x_total 1000\n") && strstr(text, "l 3\n"), "%s", text);
    }
    cr_expect_str_eq(shown(&w, CB_METRICS_TEXT, 0), "", "what is not set again is gone");
    state.left = 5;
    cb_metrics_collector_remove(w.m, mirror, &state);
    shown(&w, CB_METRICS_TEXT, 0);
    cr_expect_eq(state.left, 5);
    end(&w);
}

/* Every integer falls where its exponential and its classic bound say, over the whole range. */
Test(metrics, buckets_are_exact) {
    static const double classic[] = {0.00012, 0.005, 0.75, 12.5};
    cb_bounds *b = NULL;
    cr_assert_eq(cb_bounds_new(&b, &cb_alloc_libc, 1e-6, 1e3, 9, classic, 4), CB_OK, "%s", cb_last_error());
    uint64_t v = 0;
    for (int i = 0; i < 200000; i++) {
        uint32_t k = cb_bounds_find(b, v);
        cr_assert(v <= b->upper[k] && (k == 0 || v > b->upper[k - 1]), "%llu in bucket %u", (unsigned long long)v, k);
        for (uint32_t c = 0; c < 4; c++)
            cr_assert_eq(k < b->classic[c], (double)v <= classic[c] * 1e9, "%llu at %g", (unsigned long long)v,
                         classic[c]);
        if (k > 0 && k + 1 < b->n && b->native[k] != b->native[0]) {
            double upper = exp2(b->native[k] / 8.0) * 1e9, lower = exp2((b->native[k] - 1) / 8.0) * 1e9;
            cr_assert((double)v <= upper * (1 + 1e-9) && (double)v > lower * (1 - 1e-9), "%llu: %g to %g",
                      (unsigned long long)v, lower, upper);
        }
        v += v / 5000 + 1 + (uint64_t)(i % 7);
    }
    cr_expect_gt(v, UINT64_C(1000000000000));
    cr_expect_eq(cb_bounds_find(b, UINT64_MAX), b->n - 1);
    cb_bounds_free(b, &cb_alloc_libc);
}

Test(metrics, whole_numbers_have_whole_buckets) {
    static const double classic[] = {1, 2, 3, 10};
    cb_bounds *b = NULL;
    cr_assert_eq(cb_bounds_new(&b, &cb_alloc_libc, 1, 1000, 0, classic, 4), CB_OK, "%s", cb_last_error());
    for (uint64_t v = 0; v < 12; v++)
        for (uint32_t c = 0; c < 4; c++)
            cr_expect_eq(cb_bounds_find(b, v) < b->classic[c], (double)v <= classic[c], "%d at %g", (int)v, classic[c]);
    cb_bounds_free(b, &cb_alloc_libc);
}

Test(metrics, exemplars_of_the_last_values) {
    static const double bounds[] = {0.001, 1};
    world w;
    cb_histogram *h = NULL;
    cb_counter *c = NULL;
    cb_exemplar e = {.size = sizeof e, .time_ms = 1700000000123, .trace_id = {0xAB}, .span_id = {1, 2}};
    begin(&w, NULL);
    cb_metric *f = FAMILY(&w, .name = "d_seconds", .kind = CB_METRIC_HISTOGRAM, .decimals = 9, .bounds = bounds,
                          .bounds_len = 2, .exemplars = 1);
    cb_metric *n = FAMILY(&w, .name = "n", .kind = CB_METRIC_COUNTER, .exemplars = 1);
    cr_assert_eq(cb_meter_histogram(&h, w.meter, f, NULL), CB_OK);
    cr_assert_eq(cb_meter_counter(&c, w.meter, n, NULL), CB_OK);
    cb_histogram_add_exemplar(h, 400000, &e);
    cb_histogram_add_exemplar(h, 500000, &e);
    cb_histogram_add(h, 600000);
    cb_counter_add_exemplar(c, 2, &e);
    const char *text = shown(&w, CB_METRICS_OPENMETRICS, 0);
    cr_expect(strstr(text, "d_seconds_bucket{le=\"0.001\"} 3 # {trace_id=\"ab000000000000000000000000000000\","
                           "span_id=\"0102000000000000\"} 0.0005 1700000000.123\n"),
              "%s", text);
    cr_expect(strstr(text, "d_seconds_bucket{le=\"1.0\"} 3\n"), "%s", text);
    cr_expect(strstr(text, "n_total 2 # {trace_id=\"ab"), "%s", text);
    cr_expect(!strstr(shown(&w, CB_METRICS_TEXT, 0), "#  {"), "text 0.0.4 has none");
    end(&w);
}

Test(metrics, what_scrapers_accept) {
    static const struct {
        const char *accept;
        int format;
    } rows[] = {
        {"", CB_METRICS_TEXT},
        {"*/*", CB_METRICS_TEXT},
        {"text/html", CB_METRICS_TEXT},
        {"text/plain;version=0.0.4", CB_METRICS_TEXT},
        {"application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/"
         "plain;version=0.0.4;"
         "q=0.5,*/*;q=0.1",
         CB_METRICS_OPENMETRICS},
        {"application/openmetrics-text; version=0.0.1", CB_METRICS_TEXT},
        {"application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited,application/"
         "openmetrics-text;version=1.0.0;q=0.8",
         CB_METRICS_PROTOBUF},
        {"application/vnd.google.protobuf;proto=other;encoding=delimited", CB_METRICS_TEXT},
        {"application/vnd.google.protobuf;encoding=text", CB_METRICS_TEXT},
        {"application/openmetrics-text;q=0, text/plain", CB_METRICS_TEXT},
        {"Application/OpenMetrics-Text ; version = 1.0.0 ; q=0.9 , text/plain;q=0.1", CB_METRICS_OPENMETRICS},
        {"application/openmetrics-text;q=2", CB_METRICS_TEXT},
        {"application/openmetrics-text;q=0.1x", CB_METRICS_TEXT},
        {",,;;=,q", CB_METRICS_TEXT},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        cr_expect_eq(cb_metrics_negotiate(cb_slice_str(rows[i].accept)), rows[i].format, "%s", rows[i].accept);
}

static int refuse(cb_slice piece, void *user) {
    (void)piece, (void)user;
    return CB_EUSER;
}

Test(metrics, a_reader_that_refuses_stops_it) {
    world w;
    begin(&w, NULL);
    cb_metric *f = FAMILY(&w, .name = "x", .kind = CB_METRIC_COUNTER);
    cb_counter *c = NULL;
    cr_assert_eq(cb_meter_counter(&c, w.meter, f, NULL), CB_OK);
    cr_expect_eq(cb_metrics_render(w.m, CB_METRICS_TEXT, 0, refuse, NULL), CB_EUSER);
    cr_expect_eq(cb_metrics_render(w.m, 7, 0, refuse, NULL), CB_EINVAL);
    cr_expect_eq(cb_metrics_render(w.m, 0, 0, NULL, NULL), CB_EINVAL);
    end(&w);
}

enum { WORKERS = 4, ROUNDS = 20000 };

static void *work(void *user) {
    static const char *const labels[] = {"a"};
    cb_metrics *m = user;
    cb_meter *meter = NULL;
    cb_metric *f = NULL, *d = NULL;
    cb_counter *c = NULL;
    cb_histogram *h = NULL;
    const cb_metric_opts x = {
        .size = sizeof x, .name = "x", .help = "x.", .kind = 1, .labels = labels, .labels_len = 1};
    const cb_metric_opts y = {.size = sizeof y, .name = "y", .help = "y.", .kind = 3, .exemplars = 1};
    const cb_exemplar e = {.size = sizeof e, .time_ms = 5};
    if (cb_meter_new(&meter, m) < 0 || cb_metrics_define(&f, m, &x) < 0 || cb_metrics_define(&d, m, &y) < 0)
        return NULL;
    if (cb_meter_histogram(&h, meter, d, NULL) < 0) return NULL;
    for (int i = 0; i < ROUNDS; i++) {
        char text[8];
        snprintf(text, sizeof text, "%d", i % 5);
        const cb_slice value = cb_slice_str(text);
        if (cb_meter_counter(&c, meter, f, &value) < 0) return NULL;
        cb_counter_add(c, 1);
        cb_histogram_add_exemplar(h, (uint64_t)i, &e);
        cb_counter_release(c);
    }
    cb_meter_free(meter);
    return user;
}

Test(metrics, threads_lose_nothing) {
    world w;
    pthread_t t[WORKERS];
    double sum = 0, v = 0;
    begin(&w, NULL);
    for (int i = 0; i < WORKERS; i++)
        cr_assert_eq(pthread_create(&t[i], NULL, work, w.m), 0);
    for (int i = 0; i < 50; i++)
        shown(&w, i % 3, 1);
    for (int i = 0; i < WORKERS; i++) {
        void *good = NULL;
        pthread_join(t[i], &good);
        cr_expect_eq(good, w.m);
    }
    for (int i = 0; i < 5; i++) {
        char text[8];
        snprintf(text, sizeof text, "%d", i);
        const cb_slice value = cb_slice_str(text);
        cr_assert_eq(cb_metrics_value(w.m, "x", &value, &v), CB_OK);
        sum += v;
    }
    cr_expect_eq(sum, WORKERS * ROUNDS);
    cr_expect_eq(cb_metrics_value(w.m, "y", NULL, &v), CB_OK);
    cr_expect_eq(v, WORKERS * ROUNDS);
    end(&w);
}
