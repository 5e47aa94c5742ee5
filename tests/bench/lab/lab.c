#include "lab.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { APP_TICK_MS = 5 };

static const uint8_t zeros[65536];

/* ---- the two ends ---- */

static bool put(lab_flow *f, uint64_t bytes, int fin) {
    size_t n = bytes < sizeof zeros ? (size_t)bytes : sizeof zeros;
    int64_t took = cb_quic_stream_write(f->down, f->stream, (cb_slice){zeros, n}, fin && n == bytes);
    return took == (int64_t)n && n;
}

static void pour(lab_flow *f) {
    if (f->app_mbit > 0 || !f->down) return;
    while (put(f, sizeof zeros, 0)) {}
}

static void app_tick(cb_loop *loop, void *user) {
    lab_flow *f = user;
    (void)loop;
    if (!f->down) return;
    if (f->app_mbit <= 0) {
        pour(f);
        return;
    }
    f->owed += f->app_mbit * 1e6 / 8 * APP_TICK_MS / 1e3;
    if (f->owed >= 1 && put(f, (uint64_t)f->owed, 0)) f->owed = 0;
}

static int64_t on_request(cb_quic_conn *c, int64_t stream, cb_slice data, int fin, void *user) {
    lab_flow *f = user;
    f->down = c;
    f->stream = stream;
    if (!fin) return (int64_t)data.len;
    if (!f->bytes) {
        pour(f);
        return (int64_t)data.len;
    }
    for (uint64_t left = f->bytes; left;) {
        uint64_t n = left < sizeof zeros ? left : sizeof zeros;
        if (!put(f, n, n == left)) break; /* the send buffer holds any answer that a lab asks for */
        left -= n;
    }
    return (int64_t)data.len;
}

static int on_writable(cb_quic_conn *c, int64_t stream, void *user) {
    lab_flow *f = user;
    (void)stream;
    if (!f->bytes && c == f->down) pour(f);
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
    lab_flow *f = user;
    (void)stream;
    if (c == f->up) f->received += data.len;
    if (fin) f->done_s = lab_now(f->lab) - f->start_s;
    return (int64_t)data.len;
}

static void on_close(cb_quic_conn *c, int rc, void *user) {
    lab_flow *f = user;
    if (f->up == c) f->up = NULL;
    if (rc < 0 && rc != CB_ECLOSED)
        fprintf(stderr, "flow %zu (%s) ended: %s: %s\n", f->number, cb_cc_name(f->cc), cb_strerror(rc),
                cb_last_error());
}

static void on_server_close(cb_quic_conn *c, int rc, void *user) {
    lab_flow *f = user;
    (void)rc;
    if (f->down == c) f->down = NULL;
}

static const cb_quic_conn_ops server_ops = {.size = sizeof server_ops,
                                            .on_stream_data = on_request,
                                            .on_stream_writable = on_writable,
                                            .on_close = on_server_close};
static const cb_quic_conn_ops client_ops = {
    .size = sizeof client_ops, .on_handshake = on_handshake, .on_stream_data = on_answer, .on_close = on_close};

/* ---- making it ---- */

static int make_identity(lab *l) {
    char dir[] = "/tmp/cc-lab-XXXXXX", roots[64], command[64];
    char *cert = NULL, *key = NULL;
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
    snprintf(command, sizeof command, "rm -r '%s'", dir);
    if (system(command) != 0) fprintf(stderr, "%s was left behind\n", dir);
    return rc;
}

static void start(cb_sim *sim, void *user) {
    lab_flow *f = user;
    char remote[48];
    (void)sim;
    snprintf(remote, sizeof remote, "10.0.%zu.1:443", f->number);
    if (cb_quic_connect(&f->up, f->client, remote, "server") == CB_OK) return;
    fprintf(stderr, "flow %zu cannot begin: %s\n", f->number, cb_last_error());
    f->up = NULL;
}

/* The earlier connection makes room; what it brought does not count. */
static void start_again(cb_sim *sim, void *user) {
    lab_flow *f = user;
    if (f->up) cb_quic_conn_close(f->up, 0, NULL);
    f->down = NULL;
    f->received = 0;
    start(sim, user);
}

static int schedule(lab *l, lab_flow *f) {
    if (f->prior_s <= 0) return lab_at(l, f->start_s, start, f);
    double first = f->start_s > f->prior_s ? f->start_s - f->prior_s : 0;
    int rc = lab_at(l, first, start, f);
    return rc == CB_OK ? lab_at(l, f->start_s, start_again, f) : rc;
}

static int make_hosts(lab *l, lab_flow *f) {
    char name[32], address[32];
    snprintf(name, sizeof name, "server-%zu", f->number);
    snprintf(address, sizeof address, "10.0.%zu.1", f->number);
    int rc = cb_sim_host_new(&f->server_host, l->sim, name, address);
    snprintf(name, sizeof name, "client-%zu", f->number);
    snprintf(address, sizeof address, "10.0.%zu.2", f->number);
    if (rc == CB_OK) rc = cb_sim_host_new(&f->client_host, l->sim, name, address);
    if (rc == CB_OK)
        rc = cb_sim_link_new(&f->back, l->sim, CB_OPTS(cb_sim_link_opts, .delay_us = (uint64_t)(l->rtt_ms * 500)));
    if (rc == CB_OK) rc = cb_sim_path(f->server_host, f->client_host, NULL, &l->bottleneck, 1);
    return rc == CB_OK ? cb_sim_path(f->client_host, f->server_host, NULL, &f->back, 1) : rc;
}

int lab_add(lab *l, const lab_flow *wanted) {
    if (l->n == LAB_FLOWS) return CB_ELIMIT;
    lab_flow *f = &l->flows[l->n];
    *f = *wanted;
    f->lab = l;
    f->number = l->n++;
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
    int rc = make_hosts(l, f);
    cb_loop *loop = cb_sim_host_loop(f->server_host);
    cb_timer *tick = NULL; /* goes with the simulation */
    if (rc == CB_OK) rc = cb_quic_listen(&f->server, loop, ":443", &server);
    if (rc == CB_OK) rc = cb_quic_client(&f->client, cb_sim_host_loop(f->client_host), NULL, &client);
    if (rc == CB_OK && f->app_mbit > 0) rc = cb_timer_start(&tick, loop, APP_TICK_MS, APP_TICK_MS, app_tick, f);
    return rc == CB_OK ? schedule(l, f) : rc;
}

int lab_open(lab *l, uint64_t seed, double rtt_ms, const cb_sim_link_opts *bottleneck) {
    l->rtt_ms = rtt_ms;
    int rc = cb_sim_new(&l->sim, CB_OPTS(cb_sim_opts, .seed = seed));
    if (rc == CB_OK) rc = make_identity(l);
    return rc == CB_OK ? cb_sim_link_new(&l->bottleneck, l->sim, bottleneck) : rc;
}

void lab_close(lab *l) {
    for (size_t i = 0; i < l->n; i++) {
        cb_quic_endpoint_free(l->flows[i].client);
        cb_quic_endpoint_free(l->flows[i].server);
    }
    cb_sim_free(l->sim);
    cb_identity_unref(l->identity);
    cb_identity_unref(l->roots);
    cb_ca_free(l->ca);
}

/* Beside IPv4 and UDP a short header with the client's connection ID of 8 bytes, 2 to 4 of packet number, the tag, and
 * a STREAM frame with 1 to 8 of offset. */
double lab_payload_share(uint32_t wire_bytes) {
    enum { IP_UDP = 28, SHORT_HEADER = 1 + 8 + 2, TAG = 16, FRAME = 1 + 1 + 4 };
    return wire_bytes ? (double)(wire_bytes - IP_UDP - SHORT_HEADER - TAG - FRAME) / wire_bytes : 0;
}
