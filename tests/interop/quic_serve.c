/* quic_serve ADDRESS:PORT CERT KEY MODE - answers every request of HTTP/3 with "small\n", its few bytes written by hand
 * on cb_quic_*. MODE: "retry" always sends Retry; "v2" moves clients of version 1 that can to version 2. SIGTERM ends
 * it. */
#include <cb.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

static int on_handshake(cb_quic_conn *c, void *user) {
    static const uint8_t settings[] = {0, 4, 0};
    int64_t control;
    (void)user;
    int rc = cb_quic_stream_open(c, 0, &control);
    if (rc < 0) return rc;
    int64_t n = cb_quic_stream_write(c, control, (cb_slice){settings, sizeof settings}, 0);
    return n < 0 ? (int)n : CB_OK;
}

static int64_t on_stream_data(cb_quic_conn *c, int64_t stream, cb_slice data, int fin, void *user) {
    static const uint8_t answer[] = {1, 3, 0, 0, 0xd9, 0, 6, 's', 'm', 'a', 'l', 'l', '\n'}; /* :status 200 */
    (void)user;
    if (stream % 4 == 0 && fin) cb_quic_stream_write(c, stream, (cb_slice){answer, sizeof answer}, 1);
    return (int64_t)data.len;
}

static void quit(cb_loop *loop, void *user) {
    (void)user;
    cb_loop_stop(loop);
}

int main(int argc, char **argv) {
    static const cb_quic_conn_ops ops = {
        .size = sizeof ops, .on_handshake = on_handshake, .on_stream_data = on_stream_data};
    cb_loop *loop = NULL;
    cb_identity *me = NULL;
    cb_quic_endpoint *server = NULL;
    if (argc != 5) return 2;
    int rc = cb_loop_new(&loop, NULL);
    if (rc == CB_OK) rc = cb_identity_new(&me, CB_OPTS(cb_identity_opts, .cert_file = argv[2], .key_file = argv[3]));
    if (rc == CB_OK)
        rc = cb_quic_listen(&server, loop, argv[1],
                            CB_OPTS(cb_quic_opts, .alpn = "h3", .identity = me, .ops = &ops,
                                    .retry = strcmp(argv[4], "retry") == 0, .version = strcmp(argv[4], "v2") ? 0 : 2));
    if (rc == CB_OK) rc = cb_loop_on_signal(loop, SIGTERM, quit, NULL);
    if (rc == CB_OK) rc = cb_loop_run(loop);
    if (rc < 0) fprintf(stderr, "quic_serve: %s\n", cb_last_error());
    cb_quic_endpoint_free(server);
    cb_identity_unref(me);
    cb_loop_free(loop);
    return rc < 0;
}
