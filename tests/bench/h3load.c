/* h3load - asks one URL many times over HTTP/1.1, /2 or /3 and prints what came back as one JSON line.
 *
 *   h3load -n 40000 -c 8 -m 32 -3 --ca ca.pem https://localhost:8443/1k
 *
 * Each of the -c clients keeps -m requests open; with HTTP/2 and /3 they share one connection, with HTTP/1.1 each has
 * its own. Built on the public client API, so that a benchmark needs no load generator that Debian 12 lacks. */
#include <cb.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct load {
    cb_loop *loop;
    cb_http_client *clients[1024];
    cb_request request;
    uint64_t wanted, begun, done, failed, bytes, bad_status;
    cb_time started;
    uint32_t *latency_us; /* one for each request */
    size_t latencies;
    char failure[256]; /* the first one */
};

struct job {
    struct load *load;
    cb_http_client *client;
    cb_time begun;
};

static void begin(struct job *job);

static int64_t on_body(cb_exchange *x, cb_slice data, void *user) {
    (void)x;
    ((struct job *)user)->load->bytes += data.len;
    return (int64_t)data.len;
}

static int on_head(cb_exchange *x, void *user) {
    if (cb_exchange_status(x) != 200) ((struct job *)user)->load->bad_status++;
    return CB_OK;
}

static void on_close(cb_exchange *x, int rc, void *user) {
    struct job *job = user;
    struct load *load = job->load;
    (void)x;
    if (rc == CB_OK) {
        load->done++;
        load->latency_us[load->latencies++] = (uint32_t)((cb_loop_now(load->loop) - job->begun) / 1000);
    } else {
        if (load->failed++ == 0)
            snprintf(load->failure, sizeof load->failure, "%s: %s", cb_strerror(rc), cb_last_error());
    }
    begin(job);
}

static const cb_exchange_ops ops = {.size = sizeof ops, .on_head = on_head, .on_body = on_body, .on_close = on_close};

static void begin(struct job *job) {
    struct load *load = job->load;
    while (load->begun < load->wanted) {
        load->begun++;
        job->begun = cb_loop_now(load->loop);
        cb_exchange *x = NULL;
        int rc = cb_http_request(&x, job->client, &load->request, &ops, job);
        if (rc == CB_OK) return;
        if (load->failed++ == 0)
            snprintf(load->failure, sizeof load->failure, "%s: %s", cb_strerror(rc), cb_last_error());
    }
    if (load->done + load->failed == load->wanted) cb_loop_stop(load->loop);
}

static int by_value(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static double percentile_ms(const struct load *load, double p) {
    if (load->latencies == 0) return 0;
    size_t at = (size_t)(p * (double)(load->latencies - 1));
    return (double)load->latency_us[at] / 1000;
}

static void print(struct load *load, double seconds) {
    qsort(load->latency_us, load->latencies, sizeof *load->latency_us, by_value);
    printf("{\"requests\": %" PRIu64 ", \"failed\": %" PRIu64 ", \"not_200\": %" PRIu64 ", \"bytes\": %" PRIu64
           ", \"seconds\": %.4f, \"p50_ms\": %.3f, \"p99_ms\": %.3f, \"failure\": \"%s\"}\n",
           load->done, load->failed, load->bad_status, load->bytes, seconds, percentile_ms(load, 0.5),
           percentile_ms(load, 0.99), load->failure);
}

static int usage(const char *name) {
    fprintf(stderr,
            "usage: %s [-n requests] [-c clients] [-m open requests a client] [-1|-2|-3] [-t seconds] --ca FILE URL\n",
            name);
    return 2;
}

static void too_late(cb_loop *loop, void *user) {
    (void)user;
    cb_loop_stop(loop);
}

int main(int argc, char **argv) {
    static const struct option longs[] = {{"ca", required_argument, NULL, 'C'}, {NULL, 0, NULL, 0}};
    static struct load load = {.wanted = 1000};
    const char *ca = NULL;
    unsigned clients = 1, open = 1, versions = CB_HTTP_3, seconds = 60;
    for (int c; (c = getopt_long(argc, argv, "n:c:m:t:123", longs, NULL)) != -1;) {
        switch (c) {
        case 'n':
            load.wanted = strtoull(optarg, NULL, 10);
            break;
        case 'c':
            clients = (unsigned)strtoul(optarg, NULL, 10);
            break;
        case 'm':
            open = (unsigned)strtoul(optarg, NULL, 10);
            break;
        case 't':
            seconds = (unsigned)strtoul(optarg, NULL, 10);
            break;
        case 'C':
            ca = optarg;
            break;
        case '1':
            versions = CB_HTTP_1;
            break;
        case '2':
            versions = CB_HTTP_2;
            break;
        case '3':
            versions = CB_HTTP_3;
            break;
        default:
            return usage(argv[0]);
        }
    }
    if (optind + 1 != argc || clients == 0 || clients > 1024 || open == 0 || open > 10000 || load.wanted == 0 ||
        load.wanted > 100000000)
        return usage(argv[0]);

    load.request = (cb_request){.size = sizeof load.request, .url = argv[optind]};
    load.latency_us = calloc(load.wanted, sizeof *load.latency_us);
    struct job *jobs = calloc((size_t)clients * open, sizeof *jobs);
    cb_identity *trust = NULL;
    cb_timer *limit = NULL;
    int rc = load.latency_us && jobs ? CB_OK : CB_ENOMEM;
    if (rc == CB_OK) rc = cb_loop_new(&load.loop, NULL);
    if (rc == CB_OK && ca) rc = cb_identity_new(&trust, CB_OPTS(cb_identity_opts, .ca_file = ca));
    for (unsigned i = 0; rc == CB_OK && i < clients; i++)
        rc = cb_http_client_new(&load.clients[i], load.loop,
                                CB_OPTS(cb_http_client_opts, .identity = trust, .versions = versions,
                                        .max_conns_per_host = versions == CB_HTTP_1 ? open : 1,
                                        .max_idle_per_host = versions == CB_HTTP_1 ? open : 1));
    if (rc == CB_OK) rc = cb_timer_start(&limit, load.loop, (uint64_t)seconds * 1000, 0, too_late, NULL);
    if (rc == CB_OK) {
        load.started = cb_loop_now(load.loop);
        for (unsigned i = 0; i < clients * open; i++) {
            jobs[i] = (struct job){.load = &load, .client = load.clients[i / open]};
            begin(&jobs[i]);
        }
        rc = cb_loop_run(load.loop);
        print(&load, (double)(cb_loop_now(load.loop) - load.started) / 1e9);
    }
    if (rc < 0) fprintf(stderr, "h3load: %s: %s\n", cb_strerror(rc), cb_last_error());
    int good = rc == CB_OK && load.done == load.wanted && load.bad_status == 0;

    load.wanted = load.begun; /* what still closes begins nothing new */
    for (unsigned i = 0; i < clients; i++)
        cb_http_client_free(load.clients[i]);
    cb_timer_free(limit);
    cb_identity_unref(trust);
    cb_loop_free(load.loop);
    free(jobs);
    free(load.latency_us);
    return good ? 0 : 1;
}
