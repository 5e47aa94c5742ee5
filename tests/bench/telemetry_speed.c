/* What counting and rendering cost: prints nanoseconds of processor time of a counter, of a histogram, and of one
 * rendering of SERIES series in each format. telemetry_speed [SERIES] */
#include <cb/metrics.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { TIMES = 20000000, EACH_FAMILY = 100 };

static double now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static int drop(cb_slice piece, void *user) {
    *(size_t *)user += piece.len;
    return 0;
}

/* Counters of two labels, a hundred in a family. */
static int fill(cb_metrics *m, cb_meter *meter, int series) {
    static const char *const labels[] = {"route", "code"};
    cb_metric *f = NULL;
    cb_counter *c = NULL;
    char name[32], route[32], code[8];
    for (int i = 0, in_family = 0, families = 0; i < series; i++) {
        snprintf(name, sizeof name, "bench_%d", families);
        if (in_family == 0 &&
            cb_metrics_define(&f, m,
                              CB_OPTS(cb_metric_opts, .name = name, .help = "A family of the benchmark.",
                                      .kind = CB_METRIC_COUNTER, .labels = labels, .labels_len = 2)) < 0)
            return -1;
        snprintf(route, sizeof route, "/some/route/%d", i);
        snprintf(code, sizeof code, "%d", 200 + i % 300);
        const cb_slice values[] = {cb_slice_str(route), cb_slice_str(code)};
        if (cb_meter_counter(&c, meter, f, values) < 0) return -1;
        cb_counter_add(c, (uint64_t)i * 7919);
        if (++in_family == EACH_FAMILY) in_family = 0, families++;
    }
    return 0;
}

int main(int argc, char **argv) {
    int series = argc > 1 ? atoi(argv[1]) : 5000;
    cb_metrics *m = NULL, *small = NULL;
    cb_meter *meter = NULL, *own = NULL;
    cb_metric *f = NULL, *g = NULL;
    cb_counter *c = NULL;
    cb_histogram *h = NULL;
    if (cb_metrics_new(&small, NULL) < 0 || cb_meter_new(&own, small) < 0 ||
        cb_metrics_define(&f, small, CB_OPTS(cb_metric_opts, .name = "a", .help = "a", .kind = CB_METRIC_COUNTER)) <
            0 ||
        cb_metrics_define(&g, small,
                          CB_OPTS(cb_metric_opts, .name = "b_seconds", .help = "b", .unit = "seconds", .decimals = 9,
                                  .kind = CB_METRIC_HISTOGRAM)) < 0 ||
        cb_meter_counter(&c, own, f, NULL) < 0 || cb_meter_histogram(&h, own, g, NULL) < 0 ||
        cb_metrics_new(&m, NULL) < 0 || cb_meter_new(&meter, m) < 0 || fill(m, meter, series) < 0) {
        fprintf(stderr, "telemetry_speed: %s\n", cb_last_error());
        return 1;
    }
    double begin = now_ns();
    for (int i = 0; i < TIMES; i++)
        cb_counter_add(c, 1);
    printf("counter %.3f\n", (now_ns() - begin) / TIMES);
    uint64_t x = 88172645463325252;
    begin = now_ns();
    for (int i = 0; i < TIMES; i++) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        cb_histogram_add(h, x >> 34); /* up to a second */
    }
    printf("histogram %.3f\n", (now_ns() - begin) / TIMES);
    static const char *const formats[] = {"text", "openmetrics", "protobuf"};
    for (int i = 0; i < 3; i++) {
        size_t bytes = 0;
        begin = now_ns();
        for (int k = 0; k < 20; k++)
            if (cb_metrics_render(m, i, 0, drop, &bytes) < 0) return 1;
        printf("%s %.0f\n", formats[i], (now_ns() - begin) / 20);
    }
    cb_meter_free(own);
    cb_meter_free(meter);
    cb_metrics_unref(small);
    cb_metrics_unref(m);
    return 0;
}
