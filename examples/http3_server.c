/* http3_server - says hello over HTTP/1.1, /2 and /3 on one port.
 *   cc http3_server.c $(pkg-config --cflags --libs libcb) && ./a.out :8443 cert.pem key.pem */
#include <cb.h>
#include <signal.h>
#include <stdio.h>

static int hello(cb_exchange *x, void *user) {
    (void)user;
    return cb_exchange_send_text(x, 200, "hello from the edge\n");
}

static void quit(cb_loop *loop, void *server) {
    (void)loop;
    cb_http_server_drain(server, 5000);
}

int main(int argc, char **argv) {
    static const cb_exchange_ops ops = {.size = sizeof ops, .on_end = hello};
    cb_loop *loop = NULL;
    cb_identity *me = NULL;
    cb_http_server *server = NULL;

    if (argc != 4) {
        fprintf(stderr, "usage: http3_server LISTEN CERT KEY\n");
        return 2;
    }
    int rc = cb_loop_new(&loop, NULL);
    if (rc == CB_OK) rc = cb_identity_new(&me, CB_OPTS(cb_identity_opts, .cert_file = argv[2], .key_file = argv[3]));
    if (rc == CB_OK)
        rc = cb_http_server_new(&server, loop,
                                CB_OPTS(cb_http_server_opts, .listen = argv[1], .identity = me, .ops = &ops));
    if (rc == CB_OK) rc = cb_loop_on_signal(loop, SIGTERM, quit, server);
    if (rc == CB_OK) rc = cb_loop_run(loop);
    if (rc < 0) fprintf(stderr, "http3_server: %s: %s\n", cb_strerror(rc), cb_last_error());

    cb_http_server_free(server);
    cb_identity_unref(me);
    cb_loop_free(loop);
    return rc < 0;
}
