/* telemetry_cost - requests to a server of ours, on a loop that counts or on one that does not. Under callgrind, told
 * not to collect at the start, only what the server's loop does is collected; scripts/bench telemetry compares the two.
 *
 *   telemetry_cost h1|h1-tls|h3 on|off COUNT CERT KEY CA */
#include <cb.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#if __has_include(<valgrind/callgrind.h>)
#include <valgrind/callgrind.h>
#else
#define CALLGRIND_TOGGLE_COLLECT ((void)0)
#endif

enum { WARM = 200, AT_ONCE = 8, BODY = 1024 };

struct run {
    cb_http_client *client;
    cb_request request;
    char url[96];
    unsigned begun, done, most;
    int rc;
};

static const cb_exchange_ops ask_ops;

static int ask(struct run *r) {
    cb_exchange *x = NULL;
    if (r->begun == r->most) return CB_OK;
    r->begun++;
    return cb_http_request(&x, r->client, &r->request, &ask_ops, r);
}

static void answered(cb_exchange *x, int rc, void *user) {
    struct run *r = user;
    r->done++;
    if (rc == CB_OK && cb_exchange_status(x) != 200) rc = CB_EPROTO;
    if (rc == CB_OK) rc = ask(r);
    if (rc < 0 && r->rc == CB_OK) r->rc = rc;
}

static const cb_exchange_ops ask_ops = {.size = sizeof ask_ops, .on_close = answered};

static int answer(cb_exchange *x, void *user) {
    return cb_exchange_send(x, 200, NULL, 0, (cb_slice){user, BODY});
}

/* Until `most` requests are answered: turns of both loops, one after the other. */
static int turn_until(struct run *r, cb_loop *server, cb_loop *client, unsigned most, bool collect) {
    r->most = most;
    for (unsigned i = 0; i < AT_ONCE && r->rc == CB_OK; i++)
        r->rc = ask(r);
    while (r->rc == CB_OK && r->done < most) {
        if (collect) CALLGRIND_TOGGLE_COLLECT;
        cb_loop_step(server);
        if (collect) CALLGRIND_TOGGLE_COLLECT;
        cb_loop_step(client);
    }
    return r->rc;
}

int main(int argc, char **argv) {
    static uint8_t body[BODY];
    const bool h3 = argc == 7 && strcmp(argv[1], "h3") == 0, tls = h3 || (argc == 7 && strcmp(argv[1], "h1-tls") == 0);
    const uint32_t version = h3 ? CB_HTTP_3 : CB_HTTP_1;
    cb_exchange_ops ops = {.size = sizeof ops, .on_end = answer};
    cb_metrics *metrics = NULL;
    cb_loop *server_loop = NULL, *client_loop = NULL;
    cb_identity *me = NULL, *roots = NULL;
    cb_http_server *server = NULL;
    struct run r = {.request = {.size = sizeof r.request, .versions = version}};
    int rc = argc == 7 ? CB_OK : CB_EINVAL;
    if (rc == CB_OK && strcmp(argv[2], "on") == 0) rc = cb_metrics_new(&metrics, NULL);
    if (rc == CB_OK) rc = cb_loop_new(&server_loop, CB_OPTS(cb_loop_opts, .metrics = metrics));
    if (rc == CB_OK) rc = cb_loop_new(&client_loop, NULL);
    if (rc == CB_OK && tls)
        rc = cb_identity_new(&me, CB_OPTS(cb_identity_opts, .cert_file = argv[4], .key_file = argv[5]));
    if (rc == CB_OK) rc = cb_identity_new(&roots, CB_OPTS(cb_identity_opts, .ca_file = argv[6]));
    if (rc == CB_OK)
        rc = cb_http_server_new(&server, server_loop,
                                CB_OPTS(cb_http_server_opts, .listen = "127.0.0.1:0", .identity = me,
                                        .versions = version, .ops = &ops, .user = body));
    if (rc == CB_OK)
        rc = cb_http_client_new(&r.client, client_loop,
                                CB_OPTS(cb_http_client_opts, .identity = roots, .versions = version,
                                        .max_conns_per_host = AT_ONCE, .server_name = "localhost"));
    if (rc == CB_OK) {
        snprintf(r.url, sizeof r.url, "http%s://%s/", tls ? "s" : "", cb_http_server_address(server));
        r.request.url = r.url;
        rc = turn_until(&r, server_loop, client_loop, WARM, false);
        const unsigned count = (unsigned)strtoul(argv[3], NULL, 10);
        if (rc == CB_OK) rc = turn_until(&r, server_loop, client_loop, WARM + count, true);
    }
    if (rc < 0) fprintf(stderr, "telemetry_cost: %s: %s\n", cb_strerror(rc), cb_last_error());
    cb_http_client_free(r.client);
    cb_http_server_free(server);
    cb_identity_unref(me);
    cb_identity_unref(roots);
    cb_loop_free(client_loop);
    cb_loop_free(server_loop);
    cb_metrics_unref(metrics);
    return rc < 0;
}
