/* traced_proxy LISTEN CERT KEY CA ORIGIN COLLECTOR - a reverse proxy that traces every request; SIGTERM ends it, and
 * what waits for the collector goes out before. */
#include <cb.h>
#include <cb/trace.h>
#include <signal.h>
#include <stdio.h>

static void quit(cb_loop *loop, void *tracer) {
    cb_tracer_stats stats = {.size = sizeof stats};
    cb_tracer_flush(tracer);
    cb_tracer_stats_get(tracer, &stats);
    printf("%llu spans\n", (unsigned long long)stats.added);
    fflush(stdout);
    cb_loop_stop(loop);
}

int main(int argc, char **argv) {
    cb_loop *loop = NULL;
    cb_identity *me = NULL, *roots = NULL;
    cb_router *router = NULL;
    cb_tracer *tracer = NULL;
    cb_proxy *proxy = NULL;
    cb_http_server *srv = NULL;
    if (argc != 7) return 2;
    int rc = cb_loop_new(&loop, NULL);
    if (rc == CB_OK) rc = cb_identity_new(&me, CB_OPTS(cb_identity_opts, .cert_file = argv[2], .key_file = argv[3]));
    if (rc == CB_OK) rc = cb_identity_new(&roots, CB_OPTS(cb_identity_opts, .ca_file = argv[4]));
    if (rc == CB_OK)
        rc = cb_tracer_new(&tracer, loop,
                           CB_OPTS(cb_tracer_opts, .url = argv[6], .service_name = "traced-proxy", .batch_ms = 50));
    if (rc == CB_OK) rc = cb_router_new(&router);
    if (rc == CB_OK) rc = cb_router_group(router, CB_OPTS(cb_origin_group_opts, .name = "web", .identity = roots));
    if (rc == CB_OK) rc = cb_router_origin(router, "web", CB_OPTS(cb_origin_opts, .url = argv[5]));
    if (rc == CB_OK) rc = cb_router_route(router, CB_OPTS(cb_route_opts, .group = "web"));
    if (rc == CB_OK) rc = cb_proxy_new(&proxy, loop, CB_OPTS(cb_proxy_opts, .router = router, .tracer = tracer));
    if (rc == CB_OK)
        rc = cb_http_server_new(&srv, loop,
                                CB_OPTS(cb_http_server_opts, .listen = argv[1], .identity = me,
                                        .ops = cb_proxy_exchange_ops(), .user = proxy));
    if (rc == CB_OK) rc = cb_loop_on_signal(loop, SIGTERM, quit, tracer);
    if (rc == CB_OK) {
        printf("listening on %s\n", cb_http_server_address(srv));
        fflush(stdout);
        rc = cb_loop_run(loop);
    }
    if (rc < 0) fprintf(stderr, "traced_proxy: %s: %s\n", cb_strerror(rc), cb_last_error());
    cb_http_server_free(srv);
    cb_proxy_free(proxy);
    cb_router_unref(router);
    cb_tracer_free(tracer);
    cb_identity_unref(me);
    cb_identity_unref(roots);
    cb_loop_free(loop);
    return rc < 0;
}
