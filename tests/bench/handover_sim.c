/* handover_sim - how long an HTTP/3 download pauses when the client's address changes, in virtual time.
 *   handover_sim address RTT_MS MOVES   the address is replaced, and the client is told that the network changed
 *   handover_sim nat RTT_MS MOVES       a NAT before the client forgets its mappings; nobody is told
 * 20 Mbit/s with a buffer of one bandwidth-delay product. Prints the longest time without a byte after each change, in
 * milliseconds. */
#include <cb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MS 1000000ULL

static cb_sim *sim;
static cb_sim_host *near, *far;
static uint64_t received;
static int ended;

static int fail(const char *what) {
    fprintf(stderr, "handover_sim: %s: %s\n", what, cb_last_error());
    return 1;
}

/* ---- a server without an end ---- */

static int pump(cb_exchange *x, void *user) {
    static const uint8_t zeros[16384];
    (void)user;
    for (;;) {
        int64_t n = cb_exchange_write(x, (cb_slice){zeros, sizeof zeros});
        if (n < 0) return n == CB_EAGAIN ? CB_OK : (int)n;
    }
}

static int on_request(cb_exchange *x, void *user) {
    int rc = cb_exchange_reply(x, 200, NULL, 0);
    return rc < 0 ? rc : pump(x, user);
}

/* ---- a client that counts ---- */

static int64_t on_body(cb_exchange *x, cb_slice data, void *user) {
    (void)x;
    (void)user;
    received += data.len;
    return (int64_t)data.len;
}

static void on_close(cb_exchange *x, int rc, void *user) {
    (void)x;
    (void)user;
    ended = rc < 0 ? rc : 1;
}

static uint64_t pause_in(cb_time span) {
    const cb_time end = cb_sim_now(sim) + span;
    cb_time last = cb_sim_now(sim), longest = 0;
    for (uint64_t seen = received; cb_sim_now(sim) < end && !ended;) {
        (void)cb_sim_run_until(sim, cb_sim_now(sim) + MS / 10);
        if (cb_sim_now(sim) - last > longest) longest = cb_sim_now(sim) - last;
        if (received != seen) last = cb_sim_now(sim);
        seen = received;
    }
    return longest;
}

static int change(cb_http_client *client, cb_sim_nat *nat, int i) {
    static char now[24] = "10.0.0.1";
    char next[24];
    if (nat) return cb_sim_nat_rebind(nat, NULL);
    snprintf(next, sizeof next, "10.0.%d.%d", 1 + i / 200, 1 + i % 200);
    int rc = cb_sim_host_add_address(near, next, 1);
    if (rc == CB_OK) rc = cb_sim_host_remove_address(near, now);
    if (rc == CB_OK) rc = cb_http_client_network_changed(client);
    memcpy(now, next, sizeof now);
    return rc;
}

static int measure(cb_http_client *client, int is_nat, int moves) {
    static const cb_exchange_ops ops = {.size = sizeof ops, .on_body = on_body, .on_close = on_close};
    cb_sim_nat *nat = NULL;
    cb_exchange *x = NULL;
    int rc = is_nat ? cb_sim_nat_new(&nat, near, CB_OPTS(cb_sim_nat_opts, .address = "192.0.2.1")) : CB_OK;
    if (rc == CB_OK)
        rc = cb_http_request(&x, client, CB_OPTS(cb_request, .url = "https://far/", .versions = CB_HTTP_3), &ops, NULL);
    if (rc < 0) return fail("request");
    (void)pause_in(5000 * MS);
    for (int i = 0; i < moves && !ended; i++) {
        if (change(client, nat, i) < 0) return fail("change");
        printf("%.1f\n", (double)pause_in(2500 * MS) / MS);
    }
    return ended ? fail("the download ended") : 0;
}

static int run(const char *dir, int is_nat, unsigned rtt_ms, int moves) {
    static const cb_exchange_ops server_ops = {.size = sizeof server_ops, .on_head = on_request, .on_writable = pump};
    static const char *const names[] = {"far"};
    const cb_sim_link_opts line = {
        .size = sizeof line, .rate_bps = 20000000, .delay_us = rtt_ms * 500, .buffer_bdp = 1};
    char *cert = NULL, *key = NULL, root[256];
    cb_ca *ca = NULL;
    cb_identity *id = NULL, *roots = NULL;
    cb_http_server *server = NULL;
    cb_http_client *client = NULL;
    snprintf(root, sizeof root, "%s/ca.pem", dir);
    int rc = cb_sim_new(&sim, NULL);
    if (rc == CB_OK) rc = cb_sim_host_new(&near, sim, "near", "10.0.0.1");
    if (rc == CB_OK) rc = cb_sim_host_new(&far, sim, "far", "10.9.9.9");
    if (rc == CB_OK) rc = cb_sim_connect(near, far, &line, NULL, NULL, NULL);
    if (rc == CB_OK) rc = cb_ca_open(&ca, CB_OPTS(cb_ca_opts, .dir = dir, .key_type = CB_KEY_ED25519));
    if (rc == CB_OK)
        rc = cb_ca_issue(ca, CB_OPTS(cb_leaf_opts, .names = names, .names_len = 1, .key_type = CB_KEY_ED25519), &cert,
                         &key);
    if (rc == CB_OK) rc = cb_identity_new(&id, CB_OPTS(cb_identity_opts, .cert_file = cert, .key_file = key));
    if (rc == CB_OK) rc = cb_identity_new(&roots, CB_OPTS(cb_identity_opts, .ca_file = root));
    if (rc == CB_OK)
        rc = cb_http_server_new(
            &server, cb_sim_host_loop(far),
            CB_OPTS(cb_http_server_opts, .listen = ":443", .identity = id, .versions = CB_HTTP_3, .ops = &server_ops));
    if (rc == CB_OK)
        rc = cb_http_client_new(&client, cb_sim_host_loop(near),
                                CB_OPTS(cb_http_client_opts, .identity = roots, .versions = CB_HTTP_3));
    int status = rc < 0 ? fail("set-up") : measure(client, is_nat, moves);
    cb_http_client_free(client);
    cb_http_server_free(server);
    cb_identity_unref(id);
    cb_identity_unref(roots);
    cb_ca_text_free(cert);
    cb_ca_text_free(key);
    cb_ca_free(ca);
    cb_sim_free(sim);
    return status;
}

int main(int argc, char **argv) {
    char dir[] = "/tmp/handover-sim-XXXXXX", command[64];
    const int is_nat = argc == 4 && strcmp(argv[1], "nat") == 0;
    if (argc != 4 || (!is_nat && strcmp(argv[1], "address") != 0)) {
        fputs("usage: handover_sim address|nat RTT_MS MOVES\n", stderr);
        return 2;
    }
    if (!mkdtemp(dir)) return fail("no folder");
    int status = run(dir, is_nat, (unsigned)atoi(argv[2]), atoi(argv[3]));
    snprintf(command, sizeof command, "rm -r %s", dir);
    return system(command) || status;
}
