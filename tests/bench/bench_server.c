/* bench_server - answers /1k and /bulk from memory over HTTP/1.1, /2 and /3: what a server on libcb costs without a
 * file system.
 *
 *   bench_server 127.0.0.1:8443 cert.pem key.pem BULK_MIB
 *
 * SIGUSR1: a line with what QUIC has seen. */
#include <cb.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PIECE = 1 << 16 };

static uint8_t piece[PIECE];
static uint64_t bulk_bytes;

/* The bulk answer: how far it is lies in the user pointer, as bytes left. */
static int more(cb_exchange *x, void *user) {
    uint64_t left = (uint64_t)(uintptr_t)user;
    static cb_exchange_ops ops = {.size = sizeof ops, .on_writable = more};
    while (left > 0) {
        int64_t n = cb_exchange_write(x, (cb_slice){piece, left < PIECE ? left : PIECE});
        if (n < 0 && n != CB_EAGAIN) return (int)n;
        if (n == CB_EAGAIN) break;
        left -= (uint64_t)n;
    }
    cb_exchange_handle(x, &ops, (void *)(uintptr_t)left);
    return left == 0 ? cb_exchange_finish(x) : CB_OK;
}

static int answer(cb_exchange *x, void *user) {
    cb_slice path = cb_exchange_path(x);
    (void)user;
    if (path.len == 3 && memcmp(path.base, "/1k", 3) == 0)
        return cb_exchange_send(x, 200, NULL, 0, (cb_slice){piece, 1024});
    if (path.len == 5 && memcmp(path.base, "/bulk", 5) == 0) {
        int rc = cb_exchange_reply(x, 200, NULL, 0);
        return rc == CB_OK ? more(x, (void *)(uintptr_t)bulk_bytes) : rc;
    }
    return cb_exchange_send_text(x, 404, "/1k or /bulk\n");
}

static void quit(cb_loop *loop, void *srv) {
    (void)srv;
    cb_loop_stop(loop);
}

static void tell(cb_loop *loop, void *srv) {
    cb_quic_endpoint_stats s = {.size = sizeof s};
    (void)loop;
    if (cb_http_server_quic_stats_get(srv, &s) < 0) return;
    printf("{\"rx_datagrams\": %llu, \"rx_bytes\": %llu, \"tx_bytes\": %llu, \"conns\": %llu, \"retries\": %llu}\n",
           (unsigned long long)s.rx_datagrams, (unsigned long long)s.rx_bytes, (unsigned long long)s.tx_bytes,
           (unsigned long long)s.conns_total, (unsigned long long)s.retries_sent);
    fflush(stdout);
}

int main(int argc, char **argv) {
    static const cb_exchange_ops ops = {.size = sizeof ops, .on_end = answer};
    cb_loop *loop = NULL;
    cb_identity *me = NULL;
    cb_http_server *srv = NULL;
    int rc = argc == 5 ? CB_OK : CB_EINVAL;
    memset(piece, 'x', sizeof piece);
    if (rc == CB_OK) bulk_bytes = strtoull(argv[4], NULL, 10) << 20;
    if (rc == CB_OK) rc = cb_loop_new(&loop, NULL);
    if (rc == CB_OK) rc = cb_identity_new(&me, CB_OPTS(cb_identity_opts, .cert_file = argv[2], .key_file = argv[3]));
    if (rc == CB_OK)
        rc = cb_http_server_new(&srv, loop,
                                CB_OPTS(cb_http_server_opts, .listen = argv[1], .identity = me, .ops = &ops));
    if (rc == CB_OK) rc = cb_loop_on_signal(loop, SIGTERM, quit, srv);
    if (rc == CB_OK) rc = cb_loop_on_signal(loop, SIGUSR1, tell, srv);
    if (rc == CB_OK) rc = cb_loop_run(loop);
    if (rc < 0) fprintf(stderr, "bench_server: %s: %s\n", cb_strerror(rc), cb_last_error());
    cb_http_server_free(srv);
    cb_identity_unref(me);
    cb_loop_free(loop);
    return rc < 0;
}
