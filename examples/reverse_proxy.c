/* A reverse proxy over HTTP/1.1, HTTP/2 and HTTP/3: reverse_proxy :8443 cert.pem key.pem http://127.0.0.1:8080 ...
 * With several origins, requests go round; one that fails is left out for a while. */
#include <cb.h>
#include <signal.h>
#include <stdio.h>

static void quit(cb_loop *loop, void *srv) {
    (void)loop;
    cb_http_server_drain(srv, 5000);
}

static void drained(cb_loop *loop, void *user) {
    (void)user;
    cb_loop_stop(loop); /* kept connections to origins would hold it */
}

int main(int argc, char **argv) {
    cb_loop *loop = NULL;
    cb_identity *me = NULL;
    cb_router *router = NULL;
    cb_proxy *proxy = NULL;
    cb_http_server *srv = NULL;
    if (argc < 5) {
        fprintf(stderr, "usage: reverse_proxy LISTEN CERT KEY ORIGIN...\n");
        return 2;
    }
    int rc = cb_loop_new(&loop, NULL);
    if (rc == CB_OK) rc = cb_identity_new(&me, CB_OPTS(cb_identity_opts, .cert_file = argv[2], .key_file = argv[3]));
    if (rc == CB_OK) rc = cb_router_new(&router);
    if (rc == CB_OK) rc = cb_router_group(router, CB_OPTS(cb_origin_group_opts, .name = "origins"));
    for (int i = 4; i < argc && rc == CB_OK; i++)
        rc = cb_router_origin(router, "origins", CB_OPTS(cb_origin_opts, .url = argv[i]));
    if (rc == CB_OK) rc = cb_router_route(router, CB_OPTS(cb_route_opts, .group = "origins"));
    if (rc == CB_OK) rc = cb_proxy_new(&proxy, loop, CB_OPTS(cb_proxy_opts, .router = router));
    if (rc == CB_OK)
        rc = cb_http_server_new(&srv, loop,
                                CB_OPTS(cb_http_server_opts, .listen = argv[1], .identity = me,
                                        .ops = cb_proxy_exchange_ops(), .user = proxy));
    if (rc == CB_OK) rc = cb_loop_on_signal(loop, SIGTERM, quit, srv);
    if (rc == CB_OK) rc = cb_loop_on_signal(loop, SIGINT, quit, srv);
    if (rc == CB_OK) {
        cb_http_server_on_drained(srv, drained, NULL);
        printf("https://%s\n", cb_http_server_address(srv));
        fflush(stdout);
        rc = cb_loop_run(loop);
    }
    if (rc < 0) fprintf(stderr, "reverse_proxy: %s: %s\n", cb_strerror(rc), cb_last_error());
    cb_http_server_free(srv);
    cb_proxy_free(proxy);
    cb_router_unref(router);
    cb_identity_unref(me);
    cb_loop_free(loop);
    return rc < 0;
}
