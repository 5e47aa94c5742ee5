/* cclab - one cell of the congestion laboratory: flows of real QUIC endpoints over one bottleneck, in virtual time.
 *
 *   cclab --rate 20 --rtt 40 --buffer 2 --seconds 30 --flow cubic --flow bbrv3@5
 *
 * Prints one JSON object. Each flow has a server and a client host of its own; all data crosses the same drop-tail link
 * of
 * --rate Mbit/s with half of the round trip, ACKs come back over lines of their own with the other half. Figures count
 * from
 * --warm seconds on (default: a fifth of the run). --series FILE writes queue and rates over time as CSV. */
#include <cb.h>
#include <getopt.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FLOWS_MAX = 16, PROBE_MS = 100 };

typedef struct flow {
    struct lab *lab;
    char name[16];
    int cc;
    double start_s;
    cb_sim_host *server_host, *client_host;
    cb_quic_endpoint *server, *client;
    cb_quic_conn *up, *down;                                   /* the client's and the server's end */
    uint64_t received, received_before;                        /* in order: all, and before the warm-up ended */
    uint64_t sent_bytes, arrived_bytes, sent_packets, dropped; /* on the wire, after the warm-up */
    uint64_t probe_received;
    double done_s; /* the end of --bytes */
    /* one-way delay */
    uint32_t *delays_us; /* of each packet that arrived after the warm-up */
    size_t delays, delays_max;
    uint64_t last_ns;
    double change_sum, rfc3550, rfc3550_sum;
} flow;

typedef struct lab {
    cb_sim *sim;
    cb_sim_link *bottleneck;
    cb_ca *ca;
    cb_identity *identity, *roots;
    double rate_mbit, rtt_ms, buffer_bdp, loss_percent, seconds, warm_s, mark_bdp, jitter_ms, police_mbit;
    uint64_t seed, bytes;
    flow flows[FLOWS_MAX];
    size_t n;
    uint32_t wire_max;
    FILE *series;
    uint64_t wait_ns; /* of the latest packet */
} lab;

static const uint8_t zeros[65536];

static cb_time warm_of(const lab *l) {
    return (cb_time)(l->warm_s * 1e9);
}

/* ---- the two ends ---- */

static void fill(cb_quic_conn *c, int64_t stream) {
    while (cb_quic_stream_write(c, stream, (cb_slice){zeros, sizeof zeros}, 0) == (int64_t)sizeof zeros) {}
}

static void answer(flow *f, cb_quic_conn *c, int64_t stream) {
    static uint8_t body[1 << 20];
    if (!f->lab->bytes) {
        fill(c, stream);
        return;
    }
    for (uint64_t left = f->lab->bytes; left;) {
        size_t n = left < sizeof body ? (size_t)left : sizeof body;
        int64_t took = cb_quic_stream_write(c, stream, (cb_slice){body, n}, n == left);
        if (took <= 0) return;
        left -= (uint64_t)took;
    }
}

static int64_t on_request(cb_quic_conn *c, int64_t stream, cb_slice data, int fin, void *user) {
    flow *f = user;
    f->down = c;
    if (fin) answer(f, c, stream);
    return (int64_t)data.len;
}

static int on_writable(cb_quic_conn *c, int64_t stream, void *user) {
    flow *f = user;
    if (!f->lab->bytes) fill(c, stream);
    return CB_OK;
}

static int on_handshake(cb_quic_conn *c, void *user) {
    int64_t stream;
    (void)user;
    int rc = cb_quic_stream_open(c, 1, &stream);
    if (rc < 0) return rc;
    return cb_quic_stream_write(c, stream, (cb_slice){zeros, 1}, 1) == 1 ? CB_OK : CB_EPROTO;
}

static int64_t on_answer(cb_quic_conn *c, int64_t stream, cb_slice data, int fin, void *user) {
    flow *f = user;
    (void)c, (void)stream;
    f->received += data.len;
    if (cb_sim_now(f->lab->sim) < warm_of(f->lab)) f->received_before = f->received;
    if (fin) f->done_s = (double)cb_sim_now(f->lab->sim) / 1e9 - f->start_s;
    return (int64_t)data.len;
}

static void on_close(cb_quic_conn *c, int rc, void *user) {
    flow *f = user;
    (void)c;
    f->up = NULL;
    if (rc < 0 && rc != CB_ECLOSED)
        fprintf(stderr, "cclab: a %s flow ended: %s: %s\n", f->name, cb_strerror(rc), cb_last_error());
}

static void on_server_close(cb_quic_conn *c, int rc, void *user) {
    (void)c, (void)rc;
    ((flow *)user)->down = NULL;
}

static const cb_quic_conn_ops server_ops = {.size = sizeof server_ops,
                                            .on_stream_data = on_request,
                                            .on_stream_writable = on_writable,
                                            .on_close = on_server_close};
static const cb_quic_conn_ops client_ops = {
    .size = sizeof client_ops, .on_handshake = on_handshake, .on_stream_data = on_answer, .on_close = on_close};

/* ---- what the bottleneck sees ---- */

static flow *flow_of(lab *l, const cb_sim_packet *p) {
    for (size_t i = 0; i < l->n; i++)
        if (l->flows[i].client_host == p->to) return &l->flows[i];
    return NULL;
}

static void keep_delay(flow *f, uint64_t ns) {
    if (f->delays == f->delays_max) {
        size_t more = f->delays_max ? 2 * f->delays_max : 65536;
        uint32_t *grown = realloc(f->delays_us, more * sizeof *grown);
        if (!grown) return;
        f->delays_us = grown;
        f->delays_max = more;
    }
    if (f->delays) {
        double change = fabs((double)ns - (double)f->last_ns) / 1e6;
        f->change_sum += change;
        f->rfc3550 += (change - f->rfc3550) / 16;
        f->rfc3550_sum += f->rfc3550;
    }
    f->last_ns = ns;
    f->delays_us[f->delays++] = (uint32_t)(ns / 1000);
}

static void on_packet(const cb_sim_packet *p, void *user) {
    lab *l = user;
    flow *f = flow_of(l, p);
    if (p->event == CB_SIM_DELIVERED) l->wait_ns = p->wait_ns;
    if (!f) return;
    if (p->wire_bytes > l->wire_max) l->wire_max = p->wire_bytes;
    if (p->at < warm_of(l)) return;
    switch (p->event) {
    case CB_SIM_ENTERED:
        f->sent_packets++;
        f->sent_bytes += p->wire_bytes;
        break;
    case CB_SIM_DROPPED:
        f->sent_packets++;
        f->sent_bytes += p->wire_bytes;
        f->dropped++;
        break;
    case CB_SIM_DELIVERED:
        f->arrived_bytes += p->wire_bytes;
        keep_delay(f, p->at - p->sent_at);
        break;
    }
}

static void on_probe(cb_sim *sim, void *user) {
    lab *l = user;
    cb_time now = cb_sim_now(sim);
    fprintf(l->series, "%.1f,%.3f", (double)now / 1e9, (double)l->wait_ns / 1e6);
    for (size_t i = 0; i < l->n; i++) {
        flow *f = &l->flows[i];
        fprintf(l->series, ",%.3f", (double)(f->received - f->probe_received) * 8 / (PROBE_MS * 1e3));
        f->probe_received = f->received;
    }
    fputc('\n', l->series);
    cb_sim_at(sim, now + PROBE_MS * UINT64_C(1000000), on_probe, l);
}

static void on_warm(cb_sim *sim, void *user) {
    (void)sim;
    cb_sim_link_stats_reset(((lab *)user)->bottleneck);
}

/* ---- making it ---- */

static int make_identity(lab *l) {
    char dir[] = "/tmp/cclab-XXXXXX";
    char *cert = NULL, *key = NULL, roots[64];
    const char *names[] = {"server"};
    if (!mkdtemp(dir)) return CB_ESYS;
    snprintf(roots, sizeof roots, "%s/ca.pem", dir);
    /* Ed25519: its signatures have one length, so that every run has the same packets. */
    int rc = cb_ca_open(&l->ca, CB_OPTS(cb_ca_opts, .dir = dir, .key_type = CB_KEY_ED25519));
    if (rc == CB_OK)
        rc = cb_ca_issue(l->ca, CB_OPTS(cb_leaf_opts, .names = names, .names_len = 1, .key_type = CB_KEY_ED25519),
                         &cert, &key);
    if (rc == CB_OK) rc = cb_identity_new(&l->identity, CB_OPTS(cb_identity_opts, .cert_file = cert, .key_file = key));
    if (rc == CB_OK) rc = cb_identity_new(&l->roots, CB_OPTS(cb_identity_opts, .ca_file = roots));
    cb_ca_text_free(cert);
    cb_ca_text_free(key);
    char command[128];
    snprintf(command, sizeof command, "rm -r '%s'", dir);
    return system(command) == 0 || rc < 0 ? rc : CB_ESYS;
}

static void start(cb_sim *sim, void *user) {
    flow *f = user;
    (void)sim;
    char remote[48];
    snprintf(remote, sizeof remote, "10.0.%zu.1:443", (size_t)(f - f->lab->flows));
    if (cb_quic_connect(&f->up, f->client, remote, "server") < 0) {
        fprintf(stderr, "cclab: a %s flow cannot begin: %s\n", f->name, cb_last_error());
        f->up = NULL;
    }
}

static int make_flow(lab *l, size_t i) {
    flow *f = &l->flows[i];
    char name[32], address[32];
    int rc = snprintf(name, sizeof name, "server-%zu", i) > 0 ? CB_OK : CB_EINVAL;
    snprintf(address, sizeof address, "10.0.%zu.1", i);
    if (rc == CB_OK) rc = cb_sim_host_new(&f->server_host, l->sim, name, address);
    snprintf(name, sizeof name, "client-%zu", i);
    snprintf(address, sizeof address, "10.0.%zu.2", i);
    if (rc == CB_OK) rc = cb_sim_host_new(&f->client_host, l->sim, name, address);
    cb_sim_link *back = NULL;
    if (rc == CB_OK)
        rc = cb_sim_link_new(&back, l->sim, CB_OPTS(cb_sim_link_opts, .delay_us = (uint64_t)(l->rtt_ms * 500)));
    if (rc == CB_OK) rc = cb_sim_path(f->server_host, f->client_host, NULL, &l->bottleneck, 1);
    if (rc == CB_OK) rc = cb_sim_path(f->client_host, f->server_host, NULL, &back, 1);
    const cb_quic_opts both = {.size = sizeof both,
                               .alpn = "lab",
                               .cc = f->cc,
                               .idle_timeout_ms = 600000,
                               .handshake_timeout_ms = 60000,
                               .stream_window_bytes = 1u << 28,
                               .conn_window_bytes = 1u << 28,
                               .max_window_bytes = 1u << 28,
                               .stream_send_bytes = 1u << 27};
    cb_quic_opts server = both, client = both;
    server.identity = l->identity;
    server.ops = &server_ops;
    client.identity = l->roots;
    client.ops = &client_ops;
    server.user = client.user = f;
    if (rc == CB_OK) rc = cb_quic_listen(&f->server, cb_sim_host_loop(f->server_host), ":443", &server);
    if (rc == CB_OK) rc = cb_quic_client(&f->client, cb_sim_host_loop(f->client_host), NULL, &client);
    if (rc == CB_OK) rc = cb_sim_at(l->sim, (cb_time)(f->start_s * 1e9), start, f);
    return rc;
}

static int make_bottleneck(lab *l) {
    const cb_sim_link_opts o = {.size = sizeof o,
                                .rate_bps = (uint64_t)(l->rate_mbit * 1e6),
                                .delay_us = (uint64_t)(l->rtt_ms * 500),
                                .buffer_bdp = l->buffer_bdp,
                                .buffer_rtt_us = (uint64_t)(l->rtt_ms * 1000),
                                .loss = l->loss_percent / 100,
                                .jitter_us = (uint64_t)(l->jitter_ms * 1000),
                                .police_bps = (uint64_t)(l->police_mbit * 1e6),
                                .mark_bytes = (uint64_t)(l->mark_bdp * l->rate_mbit * 1e6 / 8 * l->rtt_ms / 1e3)};
    int rc = cb_sim_link_new(&l->bottleneck, l->sim, &o);
    if (rc == CB_OK) cb_sim_link_tap(l->bottleneck, on_packet, l);
    return rc;
}

/* ---- what came out ---- */

static int by_size(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

/* The share of a full packet that is stream data: beside IPv4 and UDP a short header with the client's connection ID of
 * 8 bytes, 2 to 4 of packet number, the tag, and a STREAM frame with 1 to 8 of offset. */
static double payload_share(const lab *l) {
    enum { IP_UDP = 28, SHORT_HEADER = 1 + 8 + 2, TAG = 16, FRAME = 1 + 1 + 4 };
    return l->wire_max ? (double)(l->wire_max - IP_UDP - SHORT_HEADER - TAG - FRAME) / l->wire_max : 0;
}

static double goodput(const flow *f, double seconds) {
    return (double)(f->received - f->received_before) * 8 / seconds / 1e6;
}

static void print_flow(flow *f, double seconds) {
    double n = f->delays > 1 ? (double)f->delays - 1 : 1, resent = 0, pdv = 0;
    if (f->sent_bytes)
        resent = 100 * (1 - (double)(f->received - f->received_before) / payload_share(f->lab) / (double)f->sent_bytes);
    if (f->delays) {
        qsort(f->delays_us, f->delays, sizeof *f->delays_us, by_size);
        pdv = (double)(f->delays_us[f->delays * 95 / 100] - f->delays_us[0]) / 1e3;
    }
    cb_quic_conn_stats s = {.size = sizeof s};
    if (f->down) cb_quic_conn_stats_get(f->down, &s);
    printf("{\"cc\": \"%s\", \"ran\": \"%s\", \"start\": %g, \"goodput\": %.4f, \"done\": %.4f, \"jitter\": %.5f, "
           "\"rfc3550\": %.5f, "
           "\"pdv95\": %.3f, \"packets\": %" PRIu64 ", \"dropped\": %.4f, \"resent\": %.3f, \"min_rtt_ms\": %.3f}",
           f->name, cb_cc_name(s.cc), f->start_s, goodput(f, seconds), f->done_s, f->change_sum / n, f->rfc3550_sum / n,
           pdv, f->sent_packets, f->sent_packets ? 100.0 * (double)f->dropped / (double)f->sent_packets : 0,
           resent > 0 ? resent : 0, (double)s.min_rtt_ns / 1e6);
}

static void print_all(lab *l) {
    cb_sim_link_stats s = {.size = sizeof s};
    double seconds = l->seconds - l->warm_s, sum = 0, squares = 0;
    cb_sim_link_stats_get(l->bottleneck, &s);
    printf("{\"capacity\": %.4f, \"results\": [", l->rate_mbit * payload_share(l));
    for (size_t i = 0; i < l->n; i++) {
        double g = goodput(&l->flows[i], seconds);
        sum += g;
        squares += g * g;
        if (i) printf(", ");
        print_flow(&l->flows[i], seconds);
    }
    printf("], \"goodput\": %.4f, \"jain\": %.4f, \"queue_mean\": %.4f, \"queue_p95\": %.4f, \"queue_p99\": %.4f, "
           "\"queue_max\": %.4f, "
           "\"marked\": %" PRIu64 ", \"digest\": \"%016" PRIx64 "\"}\n",
           sum, squares > 0 ? sum * sum / ((double)l->n * squares) : 0, (double)s.wait_mean_ns / 1e6,
           (double)s.wait_p95_ns / 1e6, (double)s.wait_p99_ns / 1e6, (double)s.wait_max_ns / 1e6, s.marked,
           cb_sim_digest(l->sim));
}

/* ---- the command line ---- */

static int usage(void) {
    fputs("usage: cclab --rate MBIT --rtt MS [--buffer BDP] [--loss PERCENT] [--seconds S] [--warm S] [--seed N]\n"
          "             [--jitter MS] [--mark BDP] [--police MBIT] [--bytes N] [--series FILE] --flow "
          "CONTROL[@START]...\n",
          stderr);
    return 2;
}

static int add_flow(lab *l, const char *text) {
    if (l->n == FLOWS_MAX) return CB_ELIMIT;
    flow *f = &l->flows[l->n++];
    const char *at = strchr(text, '@');
    f->lab = l;
    snprintf(f->name, sizeof f->name, "%.*s", (int)(at ? at - text : (long)strlen(text)), text);
    f->start_s = at ? atof(at + 1) : 0;
    f->cc = cb_cc_parse(f->name);
    return f->cc;
}

static int parse(lab *l, int argc, char **argv) {
    static const struct option options[] = {
        {"rate", 1, NULL, 'r'},    {"rtt", 1, NULL, 't'},    {"buffer", 1, NULL, 'b'}, {"loss", 1, NULL, 'l'},
        {"seconds", 1, NULL, 's'}, {"warm", 1, NULL, 'w'},   {"seed", 1, NULL, 'S'},   {"flow", 1, NULL, 'f'},
        {"bytes", 1, NULL, 'n'},   {"series", 1, NULL, 'o'}, {"jitter", 1, NULL, 'j'}, {"police", 1, NULL, 'p'},
        {"mark", 1, NULL, 'm'},    {NULL, 0, NULL, 0}};
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        double *number = c == 'r'   ? &l->rate_mbit
                         : c == 't' ? &l->rtt_ms
                         : c == 'b' ? &l->buffer_bdp
                         : c == 'l' ? &l->loss_percent
                         : c == 's' ? &l->seconds
                         : c == 'w' ? &l->warm_s
                         : c == 'j' ? &l->jitter_ms
                         : c == 'p' ? &l->police_mbit
                         : c == 'm' ? &l->mark_bdp
                                    : NULL;
        if (number) {
            *number = atof(optarg);
        } else if (c == 'S' || c == 'n') {
            *(c == 'S' ? &l->seed : &l->bytes) = strtoull(optarg, NULL, 10);
        } else if (c == 'f') {
            int rc = add_flow(l, optarg);
            if (rc < 0) return rc;
        } else if (c != 'o' || !(l->series = fopen(optarg, "w"))) {
            return usage();
        }
    }
    return l->rate_mbit > 0 && l->rtt_ms > 0 && l->n && optind == argc ? CB_OK : usage();
}

static int run(lab *l) {
    int rc = cb_sim_new(&l->sim, CB_OPTS(cb_sim_opts, .seed = l->seed));
    if (rc == CB_OK) rc = make_identity(l);
    if (rc == CB_OK) rc = make_bottleneck(l);
    for (size_t i = 0; i < l->n && rc == CB_OK; i++)
        rc = make_flow(l, i);
    if (rc == CB_OK) rc = cb_sim_at(l->sim, warm_of(l), on_warm, l);
    if (rc == CB_OK && l->series) rc = cb_sim_at(l->sim, 0, on_probe, l);
    if (rc == CB_OK) rc = cb_sim_run_until(l->sim, (cb_time)(l->seconds * 1e9));
    return rc;
}

int main(int argc, char **argv) {
    static lab l = {.buffer_bdp = 1, .seconds = 30, .seed = 1, .warm_s = -1};
    int rc = parse(&l, argc, argv);
    if (rc > 0) return rc;
    if (l.warm_s < 0) l.warm_s = l.seconds / 5;
    if (rc == CB_OK) rc = run(&l);
    if (rc == CB_OK) print_all(&l);
    if (rc < 0) fprintf(stderr, "cclab: %s: %s\n", cb_strerror(rc), cb_last_error());
    for (size_t i = 0; i < l.n; i++) {
        cb_quic_endpoint_free(l.flows[i].client);
        cb_quic_endpoint_free(l.flows[i].server);
        free(l.flows[i].delays_us);
    }
    cb_sim_free(l.sim);
    cb_identity_unref(l.identity);
    cb_identity_unref(l.roots);
    cb_ca_free(l.ca);
    if (l.series) fclose(l.series);
    return rc < 0;
}
