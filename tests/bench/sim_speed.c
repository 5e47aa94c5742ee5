/* sim_speed - how many simulated packets a second of processor time goes through.
 *   sim_speed quic MIB     one QUIC connection, 1 Gbit/s, 10 ms
 *   sim_speed plain COUNT  datagrams of 1,200 bytes between plain sockets: the simulation alone
 * Prints: packets, seconds of processor time, seconds of virtual time. */
#include <cb.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static cb_sim *sim;
static cb_sim_host *near, *far;
static cb_sim_link *there, *back;
static uint64_t left;
static const uint8_t zeros[65536];

static double cpu(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int fail(const char *what) {
    fprintf(stderr, "sim_speed: %s: %s\n", what, cb_last_error());
    return 1;
}

static int network(void) {
    const cb_sim_link_opts line = {.size = sizeof line, .rate_bps = 1000000000, .delay_us = 5000, .buffer_bdp = 2};
    int rc = cb_sim_new(&sim, NULL);
    if (rc == CB_OK) rc = cb_sim_host_new(&near, sim, "near", "10.0.0.1");
    if (rc == CB_OK) rc = cb_sim_host_new(&far, sim, "far", "10.0.0.2");
    return rc < 0 ? rc : cb_sim_connect(near, far, &line, NULL, &there, &back);
}

static int run(void) {
    cb_sim_link_stats a = {.size = sizeof a}, b = {.size = sizeof b};
    double begin = cpu();
    if (cb_sim_run(sim) < 0) return fail("run");
    double took = cpu() - begin;
    cb_sim_link_stats_get(there, &a);
    cb_sim_link_stats_get(back, &b);
    printf("%llu %.6f %.6f\n", (unsigned long long)(a.in_packets + b.in_packets), took, (double)cb_sim_now(sim) / 1e9);
    return left ? fail("not all was sent") : 0;
}

/* ---- quic ---- */

static int64_t on_data(cb_quic_conn *c, int64_t stream, cb_slice data, int fin, void *user) {
    (void)c;
    (void)stream;
    (void)user;
    if (fin) cb_sim_stop(sim);
    return (int64_t)data.len;
}

static int pump(cb_quic_conn *c, int64_t stream, void *user) {
    (void)user;
    while (left) {
        size_t n = left < sizeof zeros ? (size_t)left : sizeof zeros;
        int64_t rc = cb_quic_stream_write(c, stream, (cb_slice){zeros, n}, n == left);
        if (rc <= 0) return CB_OK;
        left -= (uint64_t)rc;
    }
    return CB_OK;
}

static int on_handshake(cb_quic_conn *c, void *user) {
    int64_t stream;
    int rc = cb_quic_stream_open(c, 1, &stream);
    return rc < 0 ? rc : pump(c, stream, user);
}

static int quic(const char *dir) {
    static const cb_quic_conn_ops server_ops = {.size = sizeof server_ops, .on_stream_data = on_data};
    static const cb_quic_conn_ops client_ops = {
        .size = sizeof client_ops, .on_handshake = on_handshake, .on_stream_writable = pump};
    static const char *const names[] = {"far"};
    char *cert = NULL, *key = NULL, root[256];
    cb_ca *ca = NULL;
    cb_identity *id = NULL, *roots = NULL;
    cb_quic_endpoint *server = NULL, *client = NULL;
    cb_quic_conn *c;
    snprintf(root, sizeof root, "%s/ca.pem", dir);
    int rc = cb_ca_open(&ca, CB_OPTS(cb_ca_opts, .dir = dir, .key_type = CB_KEY_ED25519));
    if (rc == CB_OK)
        rc = cb_ca_issue(ca, CB_OPTS(cb_leaf_opts, .names = names, .names_len = 1, .key_type = CB_KEY_ED25519), &cert,
                         &key);
    if (rc == CB_OK) rc = cb_identity_new(&id, CB_OPTS(cb_identity_opts, .cert_file = cert, .key_file = key));
    if (rc == CB_OK) rc = cb_identity_new(&roots, CB_OPTS(cb_identity_opts, .ca_file = root));
    if (rc == CB_OK)
        rc = cb_quic_listen(&server, cb_sim_host_loop(far), ":443",
                            CB_OPTS(cb_quic_opts, .alpn = "x", .identity = id, .ops = &server_ops));
    if (rc == CB_OK)
        rc = cb_quic_client(
            &client, cb_sim_host_loop(near), NULL,
            CB_OPTS(cb_quic_opts, .alpn = "x", .identity = roots, .ops = &client_ops, .stream_send_bytes = 8 << 20));
    if (rc == CB_OK) rc = cb_quic_connect(&c, client, "10.0.0.2:443", "far");
    int status = rc < 0 ? fail("quic") : run();
    cb_quic_endpoint_free(client);
    cb_quic_endpoint_free(server);
    cb_identity_unref(id);
    cb_identity_unref(roots);
    cb_ca_text_free(cert);
    cb_ca_text_free(key);
    cb_ca_free(ca);
    return status;
}

/* ---- plain ---- */

static void ignore(cb_sim_socket *s, const cb_sim_datagram *d, void *user) {
    (void)s;
    (void)d;
    (void)user;
}

/* As fast as the line: a hundred of 1,228 bytes each take 982.4 us. */
static void send_some(cb_sim *world, void *socket) {
    for (int i = 0; i < 100 && left; i++, left--)
        cb_sim_socket_send(socket, "10.0.0.2:7", (cb_slice){zeros, 1200}, 0);
    if (left) cb_sim_at(world, cb_sim_now(world) + 982400, send_some, socket);
}

static int plain(void) {
    cb_sim_socket *from, *to;
    int rc = cb_sim_socket_new(&from, near, 0, ignore, NULL);
    if (rc == CB_OK) rc = cb_sim_socket_new(&to, far, 7, ignore, NULL);
    if (rc == CB_OK) rc = cb_sim_at(sim, 0, send_some, from);
    return rc < 0 ? fail("plain") : run();
}

int main(int argc, char **argv) {
    char dir[] = "/tmp/sim-speed-XXXXXX", command[64];
    if (argc != 3) {
        fputs("usage: sim_speed quic MIB | sim_speed plain COUNT\n", stderr);
        return 2;
    }
    const bool is_quic = strcmp(argv[1], "quic") == 0;
    left = strtoull(argv[2], NULL, 10) << (is_quic ? 20 : 0);
    if (network() < 0) return fail("network");
    if (!is_quic) {
        int status = plain();
        cb_sim_free(sim);
        return status;
    }
    if (!mkdtemp(dir)) return fail("no folder");
    int status = quic(dir);
    cb_sim_free(sim);
    snprintf(command, sizeof command, "rm -r %s", dir);
    return system(command) || status;
}
