/* sim_download - a real HTTP/3 download across a simulated bottleneck: what it reaches, and how long packets queue.
 *   sim_download CERT KEY CA [RATE_MBIT [RTT_MS [BUFFER_BDP [CC [MIB]]]]]
 * The certificate is for "server" (cbctl ca dev --dir ca server). CC: cubic (the default), reno, bbr, bbrv3. */
#include <cb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t left, got; /* bytes to serve, and that arrived */
static int result = CB_ECLOSED;

/* ---- the server ---- */

static int pump(cb_exchange *x, void *user) {
    static const uint8_t block[65536];
    (void)user;
    while (left) {
        int64_t n = cb_exchange_write(x, (cb_slice){block, left < sizeof block ? left : sizeof block});
        if (n < 0) return n == CB_EAGAIN ? CB_OK : (int)n;
        left -= (uint64_t)n;
    }
    return cb_exchange_finish(x);
}

static int serve(cb_exchange *x, void *user) {
    int rc = cb_exchange_reply(x, 200, NULL, 0);
    return rc < 0 ? rc : pump(x, user);
}

/* ---- the client ---- */

static int64_t on_body(cb_exchange *x, cb_slice data, void *user) {
    (void)x;
    (void)user;
    got += data.len;
    return (int64_t)data.len;
}

static void on_close(cb_exchange *x, int rc, void *user) {
    (void)x;
    result = rc;
    if (rc < 0) fprintf(stderr, "sim_download: %s: %s\n", cb_strerror(rc), cb_last_error());
    cb_sim_stop(user);
}

static void report(const cb_sim *sim, const cb_sim_link *down) {
    cb_sim_link_stats s = {.size = sizeof s};
    double seconds = (double)cb_sim_now(sim) / 1e9;
    cb_sim_link_stats_get(down, &s);
    printf("goodput %.2f Mbit/s, %.3f s; queue: mean %.1f ms, p95 %.1f ms, max %.1f ms; %llu of %llu packets dropped\n",
           (double)got * 8 / 1e6 / seconds, seconds, (double)s.wait_mean_ns / 1e6, (double)s.wait_p95_ns / 1e6,
           (double)s.wait_max_ns / 1e6, (unsigned long long)s.drop_queue, (unsigned long long)s.in_packets);
}

int main(int argc, char **argv) {
    static const cb_exchange_ops serving = {.size = sizeof serving, .on_head = serve, .on_writable = pump};
    static const cb_exchange_ops getting = {.size = sizeof getting, .on_body = on_body, .on_close = on_close};
    if (argc < 4) {
        fputs("usage: sim_download CERT KEY CA [RATE_MBIT [RTT_MS [BUFFER_BDP [CC [MIB]]]]]\n", stderr);
        return 2;
    }
    const double mbit = argc > 4 ? atof(argv[4]) : 20, rtt_ms = argc > 5 ? atof(argv[5]) : 40;
    const cb_sim_link_opts up = {.size = sizeof up, .delay_us = (uint64_t)(rtt_ms * 500)};
    cb_sim_link_opts down = up;
    down.rate_bps = (uint64_t)(mbit * 1e6);
    down.buffer_bdp = argc > 6 ? atof(argv[6]) : 1;
    const int cc = cb_cc_parse(argc > 7 ? argv[7] : "cubic");
    left = (argc > 8 ? strtoull(argv[8], NULL, 10) : 20) << 20;

    cb_identity *id = NULL, *roots = NULL;
    cb_sim *sim = NULL;
    cb_sim_host *near, *far;
    cb_sim_link *down_link = NULL;
    cb_http_server *server = NULL;
    cb_http_client *client = NULL;
    cb_exchange *x;
    int rc = cc < 0 ? cc : cb_identity_new(&id, CB_OPTS(cb_identity_opts, .cert_file = argv[1], .key_file = argv[2]));
    if (rc == CB_OK) rc = cb_identity_new(&roots, CB_OPTS(cb_identity_opts, .ca_file = argv[3]));
    if (rc == CB_OK) rc = cb_sim_new(&sim, NULL);
    if (rc == CB_OK) rc = cb_sim_host_new(&near, sim, "client", "10.0.0.1");
    if (rc == CB_OK) rc = cb_sim_host_new(&far, sim, "server", "10.0.0.2");
    if (rc == CB_OK) rc = cb_sim_connect(near, far, &up, &down, NULL, &down_link);
    if (rc == CB_OK)
        rc = cb_http_server_new(&server, cb_sim_host_loop(far),
                                CB_OPTS(cb_http_server_opts, .listen = ":443", .identity = id, .versions = CB_HTTP_3,
                                        .cc = cc, .ops = &serving));
    if (rc == CB_OK)
        rc = cb_http_client_new(&client, cb_sim_host_loop(near),
                                CB_OPTS(cb_http_client_opts, .identity = roots, .versions = CB_HTTP_3));
    if (rc == CB_OK)
        rc = cb_http_request(&x, client, CB_OPTS(cb_request, .url = "https://server/large"), &getting, sim);
    if (rc == CB_OK) rc = cb_sim_run(sim);
    if (rc < 0) fprintf(stderr, "sim_download: %s: %s\n", cb_strerror(rc), cb_last_error());
    if (rc == CB_OK && result == CB_OK) report(sim, down_link);
    cb_http_client_free(client);
    cb_http_server_free(server);
    cb_sim_free(sim);
    cb_identity_unref(id);
    cb_identity_unref(roots);
    return rc == CB_OK && result == CB_OK ? 0 : 1;
}
