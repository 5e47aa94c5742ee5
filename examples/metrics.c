/* metrics - a server that counts its visitors and how long it took to serve them, for Prometheus.
 *   cc metrics.c $(pkg-config --cflags --libs libcb) && ./a.out 127.0.0.1:8080 & curl http://127.0.0.1:8080/metrics */
#include <cb.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static cb_metrics *metrics;
static cb_meter *meter; /* of the one thread that there is */
static cb_counter *visits;
static cb_histogram *took;

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static int serve(cb_exchange *x, void *user) {
    (void)user;
    cb_slice path = cb_exchange_path(x);
    if (path.len == 8 && memcmp(path.base, "/metrics", 8) == 0) return cb_exchange_send_metrics(x, metrics);
    uint64_t begin = now_ns();
    int rc = cb_exchange_send_text(x, 200, "hello\n");
    cb_counter_add(visits, 1);
    cb_histogram_add(took, now_ns() - begin);
    return rc;
}

static int count(void) {
    cb_metric *v, *t;
    int rc = cb_metrics_new(&metrics, NULL);
    if (rc == CB_OK) rc = cb_metrics_add_system(metrics, NULL); /* the process, interfaces, the kernel's counters */
    if (rc == CB_OK) rc = cb_meter_new(&meter, metrics);
    if (rc == CB_OK)
        rc = cb_metrics_define(
            &v, metrics, CB_OPTS(cb_metric_opts, .name = "visits", .help = "Pages served.", .kind = CB_METRIC_COUNTER));
    if (rc == CB_OK)
        rc = cb_metrics_define(&t, metrics,
                               CB_OPTS(cb_metric_opts, .name = "serve_seconds", .help = "Time to serve a page.",
                                       .unit = "seconds", .decimals = 9, .kind = CB_METRIC_HISTOGRAM));
    if (rc == CB_OK) rc = cb_meter_counter(&visits, meter, v, NULL);
    if (rc == CB_OK) rc = cb_meter_histogram(&took, meter, t, NULL);
    return rc;
}

static void quit(cb_loop *loop, void *server) {
    (void)loop;
    cb_http_server_drain(server, 1000);
}

int main(int argc, char **argv) {
    static const cb_exchange_ops ops = {.size = sizeof ops, .on_end = serve};
    cb_http_server *server = NULL;
    cb_loop *loop = NULL;
    int rc = count();
    if (rc == CB_OK) rc = cb_loop_new(&loop, CB_OPTS(cb_loop_opts, .metrics = metrics));
    if (rc == CB_OK)
        rc = cb_http_server_new(
            &server, loop, CB_OPTS(cb_http_server_opts, .listen = argc > 1 ? argv[1] : "127.0.0.1:8080", .ops = &ops));
    if (rc == CB_OK) rc = cb_loop_on_signal(loop, SIGTERM, quit, server);
    if (rc == CB_OK) rc = cb_loop_run(loop);
    if (rc < 0) fprintf(stderr, "metrics: %s: %s\n", cb_strerror(rc), cb_last_error());
    cb_http_server_free(server);
    cb_loop_free(loop);
    cb_meter_free(meter);
    cb_metrics_unref(metrics);
    return rc < 0;
}
