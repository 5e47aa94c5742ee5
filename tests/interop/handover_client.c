/* handover_client - requests one after the other, and what became of each, with times of the machine's clock
 * (CLOCK_MONOTONIC, seconds): for tests and figures of handovers.
 *   handover_client [-f] [-n COUNT] [-i MILLISECONDS] [-m METHOD] [-r RESOLVER] [-s SESSIONS] [-v VERSIONS] CA URL
 * -f follows the network. A pause in a body of 5 ms and more is a line "gap BEGIN END", the end of a request a line
 * "end START HEAD END RC STATUS VERSION BYTES SHA256 DETAIL", where the client stands at last a line "stats ...". */
#include <cb.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define GAP 0.005

struct run {
    cb_loop *loop;
    cb_metrics *metrics;
    cb_http_client *client;
    cb_request req;
    long left, interval_ms;
    cb_timer *timer;
    gnutls_hash_hd_t hash;
    double start, head, last;
    unsigned long long bytes;
    int status, version, worst;
};

static double now(void) {
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static int begin(struct run *r);

static int on_head(cb_exchange *x, void *user) {
    struct run *r = user;
    r->status = cb_exchange_status(x);
    r->version = cb_exchange_version(x);
    r->head = r->last = now();
    return CB_OK;
}

static int64_t on_body(cb_exchange *x, cb_slice data, void *user) {
    struct run *r = user;
    const double t = now();
    (void)x;
    if (t - r->last >= GAP) printf("gap %.6f %.6f\n", r->last, t);
    r->last = t;
    r->bytes += data.len;
    gnutls_hash(r->hash, data.base, data.len);
    return (int64_t)data.len;
}

static void on_timer(cb_loop *loop, void *user) {
    struct run *r = user;
    cb_timer_free(r->timer);
    r->timer = NULL;
    if (begin(r) < 0) cb_loop_stop(loop);
}

static void on_close(cb_exchange *x, int rc, void *user) {
    struct run *r = user;
    uint8_t sum[32];
    char hex[65];
    gnutls_hash_deinit(r->hash, sum);
    for (size_t i = 0; i < sizeof sum; i++)
        snprintf(hex + 2 * i, 3, "%02x", sum[i]);
    printf("end %.6f %.6f %.6f %d %d %d %llu %s %s\n", r->start, r->head, now(), rc, r->status, r->version, r->bytes,
           hex, rc < 0 ? cb_last_error() : "");
    if (rc < 0) r->worst = 1;
    if (--r->left <= 0)
        cb_loop_stop(cb_exchange_loop(x));
    else if (cb_timer_start(&r->timer, r->loop, (uint64_t)r->interval_ms, 0, on_timer, r) < 0)
        cb_loop_stop(r->loop);
}

static int begin(struct run *r) {
    static const cb_exchange_ops ops = {
        .size = sizeof ops, .on_head = on_head, .on_body = on_body, .on_close = on_close};
    cb_exchange *x = NULL;
    r->start = now();
    r->head = 0;
    r->bytes = 0;
    r->status = r->version = 0;
    if (gnutls_hash_init(&r->hash, GNUTLS_DIG_SHA256) < 0) return CB_ENOMEM;
    return cb_http_request(&x, r->client, &r->req, &ops, r);
}

static void report(const struct run *r) {
    cb_http_client_stats s = {.size = sizeof s};
    if (!r->client || cb_http_client_stats_get(r->client, &s) < 0) return;
    double counted = -1;
    cb_metrics_value(r->metrics, "cb_pool_migrated_connections", NULL, &counted);
    printf("stats h1=%llu h2=%llu h3=%llu failed=%llu retried=%llu moved=%llu silent=%llu migrated=%llu changes=%llu "
           "resumed=%llu counted=%.0f\n",
           (unsigned long long)s.opened_h1, (unsigned long long)s.opened_h2, (unsigned long long)s.opened_h3,
           (unsigned long long)s.failed, (unsigned long long)s.retried, (unsigned long long)s.moved,
           (unsigned long long)s.silent, (unsigned long long)s.migrated, (unsigned long long)s.network_changes,
           (unsigned long long)s.resumed, counted);
}

int main(int argc, char **argv) {
    struct run r = {.req = {.size = sizeof r.req}, .left = 1};
    cb_http_client_opts o = {.size = sizeof o};
    cb_identity *roots = NULL;
    cb_sessions *sessions = NULL;
    const char *file = NULL;
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (int c; (c = getopt(argc, argv, "fn:i:m:r:s:v:")) != -1;)
        switch (c) {
        case 'f':
            o.follow_network = 1;
            break;
        case 'n':
            r.left = atol(optarg);
            break;
        case 'i':
            r.interval_ms = atol(optarg);
            break;
        case 'm':
            r.req.method = optarg;
            break;
        case 'r':
            o.resolver = optarg;
            break;
        case 's':
            file = optarg;
            break;
        case 'v':
            o.versions = (uint32_t)atol(optarg);
            break;
        default:
            return 2;
        }
    if (optind + 2 != argc) return 2;
    r.req.url = argv[optind + 1];
    int rc = cb_metrics_new(&r.metrics, NULL);
    if (rc == CB_OK) rc = cb_loop_new(&r.loop, CB_OPTS(cb_loop_opts, .metrics = r.metrics));
    if (rc == CB_OK) rc = cb_identity_new(&roots, CB_OPTS(cb_identity_opts, .ca_file = argv[optind]));
    if (rc == CB_OK && file) rc = cb_sessions_new(&sessions, CB_OPTS(cb_sessions_opts, .file = file));
    o.identity = roots;
    o.sessions = sessions;
    if (rc == CB_OK) rc = cb_http_client_new(&r.client, r.loop, &o);
    if (rc == CB_OK) rc = begin(&r);
    if (rc == CB_OK) rc = cb_loop_run(r.loop);
    if (rc < 0) fprintf(stderr, "handover_client: %s: %s\n", cb_strerror(rc), cb_last_error());
    report(&r);
    cb_timer_free(r.timer);
    cb_http_client_free(r.client);
    cb_identity_unref(roots);
    cb_sessions_unref(sessions);
    cb_loop_free(r.loop);
    cb_metrics_unref(r.metrics);
    return rc < 0 || r.worst;
}
