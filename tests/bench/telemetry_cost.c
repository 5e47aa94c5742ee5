/* telemetry_cost - requests to a server of ours, or through a proxy, on a loop that counts or on one that does not.
 * Under callgrind, told not to collect at the start, only what the server's loop does is collected; scripts/bench
 * telemetry compares the two.
 *
 *   telemetry_cost [proxied-]h1|h1-tls|h3 on|off COUNT CERT KEY CA */
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

/* What is measured: a server, and a proxy to an origin on the client's loop where it is `proxied`. */
struct world {
    bool tls, h3, proxied;
    cb_metrics *metrics;
    cb_loop *server_loop, *client_loop;
    cb_identity *me, *roots;
    cb_http_server *server, *origin;
    cb_router *router;
    cb_proxy *proxy;
};

static int open_proxy(struct world *w, const cb_exchange_ops *answers, void *body) {
    char url[96];
    int rc = cb_http_server_new(
        &w->origin, w->client_loop,
        CB_OPTS(cb_http_server_opts, .listen = "127.0.0.1:0", .versions = CB_HTTP_1, .ops = answers, .user = body));
    if (rc < 0) return rc;
    snprintf(url, sizeof url, "http://%s", cb_http_server_address(w->origin));
    rc = cb_router_new(&w->router);
    if (rc == CB_OK) rc = cb_router_group(w->router, CB_OPTS(cb_origin_group_opts, .name = "web", .tenant = "acme"));
    if (rc == CB_OK) rc = cb_router_origin(w->router, "web", CB_OPTS(cb_origin_opts, .url = url));
    if (rc == CB_OK) rc = cb_router_route(w->router, CB_OPTS(cb_route_opts, .group = "web"));
    if (rc == CB_OK) rc = cb_proxy_new(&w->proxy, w->server_loop, CB_OPTS(cb_proxy_opts, .router = w->router));
    return rc;
}

static int open_world(struct world *w, struct run *r, char **argv, const cb_exchange_ops *answers, void *body) {
    const uint32_t version = w->h3 ? CB_HTTP_3 : CB_HTTP_1;
    int rc = strcmp(argv[2], "on") == 0 ? cb_metrics_new(&w->metrics, NULL) : CB_OK;
    if (rc == CB_OK) rc = cb_loop_new(&w->server_loop, CB_OPTS(cb_loop_opts, .metrics = w->metrics));
    if (rc == CB_OK) rc = cb_loop_new(&w->client_loop, NULL);
    if (rc == CB_OK && w->tls)
        rc = cb_identity_new(&w->me, CB_OPTS(cb_identity_opts, .cert_file = argv[4], .key_file = argv[5]));
    if (rc == CB_OK) rc = cb_identity_new(&w->roots, CB_OPTS(cb_identity_opts, .ca_file = argv[6]));
    if (rc == CB_OK && w->proxied) rc = open_proxy(w, answers, body);
    if (rc == CB_OK)
        rc = cb_http_server_new(&w->server, w->server_loop,
                                CB_OPTS(cb_http_server_opts, .listen = "127.0.0.1:0", .identity = w->me,
                                        .versions = version, .ops = w->proxied ? cb_proxy_exchange_ops() : answers,
                                        .user = w->proxied ? (void *)w->proxy : body));
    if (rc == CB_OK)
        rc = cb_http_client_new(&r->client, w->client_loop,
                                CB_OPTS(cb_http_client_opts, .identity = w->roots, .versions = version,
                                        .max_conns_per_host = AT_ONCE, .server_name = "localhost"));
    return rc;
}

static void close_world(struct world *w) {
    cb_http_server_free(w->server);
    cb_proxy_free(w->proxy);
    cb_router_unref(w->router);
    cb_http_server_free(w->origin);
    cb_identity_unref(w->me);
    cb_identity_unref(w->roots);
    cb_loop_free(w->client_loop);
    cb_loop_free(w->server_loop);
    cb_metrics_unref(w->metrics);
}

int main(int argc, char **argv) {
    static uint8_t body[BODY];
    static const cb_exchange_ops answers = {.size = sizeof answers, .on_end = answer};
    struct world w = {0};
    struct run r = {.request = {.size = sizeof r.request}};
    if (argc != 7) {
        fputs("usage: telemetry_cost [proxied-]h1|h1-tls|h3 on|off COUNT CERT KEY CA\n", stderr);
        return 2;
    }
    const char *way = argv[1];
    w.proxied = strncmp(way, "proxied-", 8) == 0;
    if (w.proxied) way += 8;
    w.h3 = strcmp(way, "h3") == 0;
    w.tls = w.h3 || strcmp(way, "h1-tls") == 0;
    r.request.versions = w.h3 ? CB_HTTP_3 : CB_HTTP_1;
    int rc = open_world(&w, &r, argv, &answers, body);
    if (rc == CB_OK) {
        snprintf(r.url, sizeof r.url, "http%s://%s/", w.tls ? "s" : "", cb_http_server_address(w.server));
        r.request.url = r.url;
        rc = turn_until(&r, w.server_loop, w.client_loop, WARM, false);
        const unsigned count = (unsigned)strtoul(argv[3], NULL, 10);
        if (rc == CB_OK) rc = turn_until(&r, w.server_loop, w.client_loop, WARM + count, true);
    }
    if (rc < 0) fprintf(stderr, "telemetry_cost: %s: %s\n", cb_strerror(rc), cb_last_error());
    cb_http_client_free(r.client);
    close_world(&w);
    return rc < 0;
}
