/* HTTP/3 between a server and a client of libcb in virtual time: what is counted is both ends, QUIC and HTTP/3. */
#include "paths.h"
#include <string.h>

enum { LARGE = 1 << 20, AT_ONCE = 8 };

static struct {
    cb_sim *sim;
    cb_sim_host *near, *far;
    cb_identity *id, *roots;
    cb_http_server *server;
    cb_http_client *client;
    uint64_t left; /* of the large answer */
    size_t begin, open;
    bool large;
} world;

/* ---- the server ---- */

static int pump(cb_exchange *x, void *user) {
    static const uint8_t block[65536];
    (void)user;
    while (world.left) {
        int64_t n = cb_exchange_write(x, (cb_slice){block, world.left < sizeof block ? world.left : sizeof block});
        if (n < 0) return n == CB_EAGAIN ? CB_OK : (int)n;
        world.left -= (uint64_t)n;
    }
    return cb_exchange_finish(x);
}

static int serve(cb_exchange *x, void *user) {
    static const uint8_t kib[1024];
    const cb_field fields[] = {{cb_slice_str("content-type"), cb_slice_str("text/html; charset=utf-8")},
                               {cb_slice_str("etag"), cb_slice_str("\"65f1-400\"")}};
    if (!world.large) return cb_exchange_send(x, 200, fields, 2, (cb_slice){kib, sizeof kib});
    int rc = cb_exchange_reply(x, 200, fields, 2);
    world.left = LARGE;
    return rc < 0 ? rc : pump(x, user);
}

/* ---- the client ---- */

static void ask(void);

static void on_close(cb_exchange *x, int rc, void *user) {
    (void)user;
    MUST(rc == CB_OK && cb_exchange_status(x) == 200);
    world.open--;
    ask();
    if (!world.open) cb_sim_stop(world.sim);
}

static void ask(void) {
    static const cb_exchange_ops ops = {.size = sizeof ops, .on_close = on_close};
    cb_exchange *x;
    while (world.begin && world.open < (world.large ? 1 : AT_ONCE)) {
        world.begin--;
        world.open++;
        MUST(cb_http_request(&x, world.client, CB_OPTS(cb_request, .url = "https://server/articles/why-edges-matter"),
                             &ops, NULL) == CB_OK);
    }
}

static void client_new(void) {
    MUST(cb_http_client_new(&world.client, cb_sim_host_loop(world.near),
                            CB_OPTS(cb_http_client_opts, .identity = world.roots, .versions = CB_HTTP_3)) == CB_OK);
}

static void prepare(void) {
    static const cb_exchange_ops serving = {.size = sizeof serving, .on_head = serve, .on_writable = pump};
    const cb_sim_link_opts line = {.size = sizeof line, .delay_us = 5000, .rate_bps = 200000000};
    memset(&world, 0, sizeof world);
    MUST(cb_identity_new(&world.id, CB_OPTS(cb_identity_opts, .cert_file = budget_cert, .key_file = budget_key)) ==
         CB_OK);
    MUST(cb_identity_new(&world.roots, CB_OPTS(cb_identity_opts, .ca_file = budget_ca)) == CB_OK);
    MUST(cb_sim_new(&world.sim, CB_OPTS(cb_sim_opts, .seed = 7)) == CB_OK);
    MUST(cb_sim_host_new(&world.near, world.sim, "client", "10.0.0.1") == CB_OK);
    MUST(cb_sim_host_new(&world.far, world.sim, "server", "10.0.0.2") == CB_OK);
    MUST(cb_sim_connect(world.near, world.far, &line, &line, NULL, NULL) == CB_OK);
    MUST(cb_http_server_new(&world.server, cb_sim_host_loop(world.far),
                            CB_OPTS(cb_http_server_opts, .listen = ":443", .identity = world.id, .versions = CB_HTTP_3,
                                    .cc = CB_CC_CUBIC, .ops = &serving)) == CB_OK);
    client_new();
}

static void prepare_large(void) {
    prepare();
    world.large = true;
}

static void run(size_t times) {
    world.begin = times;
    ask();
    MUST(cb_sim_run(world.sim) == CB_OK);
    MUST(!world.open && !world.begin);
}

/* A connection each time, with one small request on it. */
static void run_anew(size_t times) {
    for (size_t i = 0; i < times; i++) {
        run(1);
        cb_http_client_free(world.client);
        client_new();
    }
}

static void clean(void) {
    cb_http_client_free(world.client);
    cb_http_server_free(world.server);
    cb_sim_free(world.sim);
    cb_identity_unref(world.id);
    cb_identity_unref(world.roots);
}

const path paths_quic[] = {{"h3-request", prepare, run, clean, 50, 400},
                           {"h3-bulk-mib", prepare_large, run, clean, 2, 8},
                           {"quic-handshake", prepare, run_anew, clean, 2, 20},
                           {.name = NULL}};
