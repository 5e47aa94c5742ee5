/* cclab - one cell of the congestion laboratory: flows of real QUIC endpoints over one bottleneck, in virtual time.
 *
 *   cclab --rate 20 --rtt 40 --buffer 2 --seconds 30 --flow cubic --flow bbrv3@5
 *
 * Prints one JSON object. All data crosses the same drop-tail link of --rate Mbit/s with half of the round trip; ACKs
 * come back over lines of their own with the other half. Figures count from --warm seconds on (default: a fifth of the
 * run). --prior S: before its start each flow had another connection
 * of S seconds, so that its server has met the path. --series FILE writes queue and rates over time as CSV. */
#include "lab/lab.h"
#include <getopt.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PROBE_MS = 100 };

/* What is counted of a flow after the warm-up. */
typedef struct count {
    uint64_t received_before;                               /* in order, when the warm-up ended */
    uint64_t sent_bytes, sent_packets, dropped, probe_mark; /* on the wire */
    uint32_t *delays_us;                                    /* one-way, of each packet that arrived */
    size_t delays, delays_max;
    uint64_t last_ns;
    double change_sum, rfc3550, rfc3550_sum;
} count;

typedef struct cell {
    lab lab;
    double rate_mbit, rtt_ms, buffer_bdp, loss_percent, seconds, warm_s, mark_bdp, jitter_ms, police_mbit, seed, bytes,
        prior_s;
    lab_flow wanted[LAB_FLOWS];
    count counts[LAB_FLOWS];
    size_t n;
    uint32_t wire_max;
    const char *series_file;
    FILE *series;
    uint64_t wait_ns; /* of the latest packet */
} cell;

/* ---- what the bottleneck sees ---- */

static void keep_delay(count *f, uint64_t ns) {
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
    cell *c = user;
    if (p->event == CB_SIM_DELIVERED) c->wait_ns = p->wait_ns;
    if (p->wire_bytes > c->wire_max) c->wire_max = p->wire_bytes;
    if (lab_now(&c->lab) < c->warm_s) return;
    for (size_t i = 0; i < c->n; i++) {
        count *f = &c->counts[i];
        if (c->lab.flows[i].client_host != p->to) continue;
        if (p->event == CB_SIM_DELIVERED) {
            keep_delay(f, p->at - p->sent_at);
            return;
        }
        f->sent_packets++;
        f->sent_bytes += p->wire_bytes;
        f->dropped += p->event == CB_SIM_DROPPED;
    }
}

static void on_probe(cb_sim *sim, void *user) {
    cell *c = user;
    (void)sim;
    fprintf(c->series, "%.1f,%.3f", lab_now(&c->lab), (double)c->wait_ns / 1e6);
    for (size_t i = 0; i < c->n; i++) {
        uint64_t received = c->lab.flows[i].received;
        fprintf(c->series, ",%.3f", (double)(received - c->counts[i].probe_mark) * 8 / (PROBE_MS * 1e3));
        c->counts[i].probe_mark = received;
    }
    fputc('\n', c->series);
    lab_at(&c->lab, lab_now(&c->lab) + PROBE_MS / 1e3, on_probe, c);
}

static void on_warm(cb_sim *sim, void *user) {
    cell *c = user;
    (void)sim;
    cb_sim_link_stats_reset(c->lab.bottleneck);
    for (size_t i = 0; i < c->n; i++)
        c->counts[i].received_before = c->lab.flows[i].received;
}

/* ---- what came out ---- */

static int by_size(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static double goodput(const cell *c, size_t i) {
    double seconds = c->seconds - c->warm_s;
    return (double)(c->lab.flows[i].received - c->counts[i].received_before) * 8 / seconds / 1e6;
}

/* What was sent beyond what arrived in order, of what was sent: retransmissions, and what was under way at the end. */
static double resent(const cell *c, size_t i) {
    double wire = (double)c->counts[i].sent_bytes * lab_payload_share(c->wire_max);
    double share = wire > 0 ? 1 - (double)(c->lab.flows[i].received - c->counts[i].received_before) / wire : 0;
    return share > 0 ? 100 * share : 0;
}

static void print_flow(const cell *c, size_t i) {
    const lab_flow *flow = &c->lab.flows[i];
    const count *f = &c->counts[i];
    double n = f->delays > 1 ? (double)f->delays - 1 : 1, pdv = 0;
    cb_quic_conn_stats s = {.size = sizeof s};
    if (f->delays) {
        qsort(f->delays_us, f->delays, sizeof *f->delays_us, by_size);
        pdv = (double)(f->delays_us[f->delays * 95 / 100] - f->delays_us[0]) / 1e3;
    }
    if (flow->down) cb_quic_conn_stats_get(flow->down, &s);
    printf("{\"cc\": \"%s\", \"ran\": \"%s\", \"below\": \"%s\", \"start\": %g, \"goodput\": %.4f, \"done\": %.4f, ",
           cb_cc_name(flow->cc), cb_cc_name(s.cc), cb_cc_name(s.cc_below), flow->start_s, goodput(c, i), flow->done_s);
    printf("\"jitter\": %.5f, \"rfc3550\": %.5f, \"pdv95\": %.3f, \"packets\": %" PRIu64
           ", \"dropped\": %.4f, \"resent\": %.3f, \"min_rtt_ms\": %.3f}",
           f->change_sum / n, f->rfc3550_sum / n, pdv, f->sent_packets,
           f->sent_packets ? 100.0 * (double)f->dropped / (double)f->sent_packets : 0, resent(c, i),
           (double)s.min_rtt_ns / 1e6);
}

static void print_all(const cell *c) {
    cb_sim_link_stats s = {.size = sizeof s};
    double sum = 0, squares = 0;
    cb_sim_link_stats_get(c->lab.bottleneck, &s);
    printf("{\"capacity\": %.4f, \"results\": [", c->rate_mbit * lab_payload_share(c->wire_max));
    for (size_t i = 0; i < c->n; i++) {
        double g = goodput(c, i);
        sum += g;
        squares += g * g;
        if (i) printf(", ");
        print_flow(c, i);
    }
    printf("], \"goodput\": %.4f, \"jain\": %.4f, ", sum, squares > 0 ? sum * sum / ((double)c->n * squares) : 0);
    printf("\"queue_mean\": %.4f, \"queue_p95\": %.4f, \"queue_p99\": %.4f, \"queue_max\": %.4f, \"marked\": %" PRIu64
           ", \"digest\": \"%016" PRIx64 "\"}\n",
           (double)s.wait_mean_ns / 1e6, (double)s.wait_p95_ns / 1e6, (double)s.wait_p99_ns / 1e6,
           (double)s.wait_max_ns / 1e6, s.marked, cb_sim_digest(c->lab.sim));
}

/* ---- the command line ---- */

static int usage(void) {
    fputs("usage: cclab --rate MBIT --rtt MS [--buffer BDP] [--loss PERCENT] [--seconds S] [--warm S] [--seed N]\n"
          "             [--jitter MS] [--mark BDP] [--police MBIT] [--bytes N] [--prior S] [--series FILE] --flow "
          "CONTROL[@START]...\n",
          stderr);
    return 2;
}

static int want_flow(cell *c, const char *text) {
    char name[16];
    const char *at = strchr(text, '@');
    if (c->n == LAB_FLOWS) return usage();
    snprintf(name, sizeof name, "%.*s", (int)(at ? at - text : (long)strlen(text)), text);
    int cc = cb_cc_parse(name);
    c->wanted[c->n++] = (lab_flow){.cc = cc, .start_s = at ? atof(at + 1) : 0};
    return cc < 0 ? cc : CB_OK;
}

static int parse(cell *c, int argc, char **argv) {
    const struct {
        const char *name;
        double *number;
    } rows[] = {{"rate", &c->rate_mbit},    {"rtt", &c->rtt_ms},      {"buffer", &c->buffer_bdp},
                {"loss", &c->loss_percent}, {"seconds", &c->seconds}, {"warm", &c->warm_s},
                {"jitter", &c->jitter_ms},  {"mark", &c->mark_bdp},   {"police", &c->police_mbit},
                {"seed", &c->seed},         {"bytes", &c->bytes},     {"prior", &c->prior_s}};
    enum { ROWS = sizeof rows / sizeof *rows, FLOW = ROWS, SERIES };
    struct option options[ROWS + 3] = {[FLOW] = {"flow", 1, NULL, FLOW}, [SERIES] = {"series", 1, NULL, SERIES}};
    for (int i = 0; i < ROWS; i++)
        options[i] = (struct option){rows[i].name, 1, NULL, i};
    for (int o; (o = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        int rc = CB_OK;
        if (o >= 0 && o < ROWS) *rows[o].number = atof(optarg);
        if (o == SERIES) c->series_file = optarg;
        if (o == FLOW) rc = want_flow(c, optarg);
        if (o == '?') rc = usage();
        if (rc != CB_OK) return rc;
    }
    return c->rate_mbit > 0 && c->rtt_ms > 0 && c->n && optind == argc ? CB_OK : usage();
}

static int run(cell *c) {
    double bdp = c->rate_mbit * 1e6 / 8 * c->rtt_ms / 1e3;
    const cb_sim_link_opts o = {.size = sizeof o,
                                .rate_bps = (uint64_t)(c->rate_mbit * 1e6),
                                .delay_us = (uint64_t)(c->rtt_ms * 500),
                                .buffer_bytes = (uint64_t)(c->buffer_bdp * bdp),
                                .loss = c->loss_percent / 100,
                                .jitter_us = (uint64_t)(c->jitter_ms * 1000),
                                .police_bps = (uint64_t)(c->police_mbit * 1e6),
                                .mark_bytes = (uint64_t)(c->mark_bdp * bdp)};
    if (c->warm_s < 0) c->warm_s = c->seconds / 5;
    int rc = lab_open(&c->lab, (uint64_t)c->seed, c->rtt_ms, &o);
    if (rc == CB_OK) cb_sim_link_tap(c->lab.bottleneck, on_packet, c);
    for (size_t i = 0; i < c->n && rc == CB_OK; i++) {
        c->wanted[i].bytes = (uint64_t)c->bytes;
        c->wanted[i].prior_s = c->prior_s;
        rc = lab_add(&c->lab, &c->wanted[i]);
    }
    if (rc == CB_OK) rc = lab_at(&c->lab, c->warm_s, on_warm, c);
    if (rc == CB_OK && c->series) rc = lab_at(&c->lab, 0, on_probe, c);
    return rc == CB_OK ? lab_run(&c->lab, c->seconds) : rc;
}

int main(int argc, char **argv) {
    static cell c = {.buffer_bdp = 1, .seconds = 30, .seed = 1, .warm_s = -1};
    int rc = parse(&c, argc, argv);
    if (rc > 0) return rc;
    if (rc == CB_OK && c.series_file && !(c.series = fopen(c.series_file, "w"))) {
        perror(c.series_file);
        return 1;
    }
    if (rc == CB_OK) rc = run(&c);
    if (rc == CB_OK) print_all(&c);
    if (rc < 0) fprintf(stderr, "cclab: %s: %s\n", cb_strerror(rc), cb_last_error());
    lab_close(&c.lab);
    for (size_t i = 0; i < c.n; i++)
        free(c.counts[i].delays_us);
    if (c.series) fclose(c.series);
    return rc < 0;
}
