/* mtls_server - an HTTPS server for clients with certificates only: it greets each by name, over HTTP/1.1, /2 and /3.
 *
 *   mtls_server :8443 cert.pem key.pem clients-ca.pem [clients.crl]      SIGHUP: another revocation list is there
 *   curl --cacert ca.pem --cert me.pem --key me-key.pem https://localhost:8443/ */
#include <cb.h>
#include <signal.h>
#include <stdio.h>

static int greet(cb_exchange *x, void *user) {
    char text[512];
    const cb_peer *peer = cb_exchange_peer(x); /* never NULL: without a certificate nobody gets here */
    const char *id = cb_peer_spiffe_id(peer);
    (void)user;
    snprintf(text, sizeof text, "hello %s\n", *id ? id : cb_peer_subject(peer));
    return cb_exchange_send_text(x, 200, text);
}

static void reread(cb_loop *loop, void *identity) {
    (void)loop;
    if (cb_identity_refresh(identity) < 0) fprintf(stderr, "mtls_server: %s\n", cb_last_error());
}

static void quit(cb_loop *loop, void *server) {
    (void)loop;
    cb_http_server_drain(server, 5000);
}

int main(int argc, char **argv) {
    static const cb_exchange_ops ops = {.size = sizeof ops, .on_end = greet};
    cb_loop *loop = NULL;
    cb_identity *me = NULL;
    cb_http_server *server = NULL;

    if (argc < 5) {
        fprintf(stderr, "usage: mtls_server LISTEN CERT KEY CLIENT_CA [CRL]\n");
        return 2;
    }
    int rc = cb_loop_new(&loop, NULL);
    if (rc == CB_OK) rc = cb_identity_new(&me, CB_OPTS(cb_identity_opts, .cert_file = argv[2], .key_file = argv[3]));
    if (rc == CB_OK)
        rc = cb_identity_trust(me, CB_OPTS(cb_trust_opts, .ca_file = argv[4], .crl_file = argc > 5 ? argv[5] : NULL,
                                           .clients = CB_CLIENTS_REQUIRE));
    if (rc == CB_OK)
        rc = cb_http_server_new(&server, loop,
                                CB_OPTS(cb_http_server_opts, .listen = argv[1], .identity = me, .ops = &ops));
    if (rc == CB_OK) rc = cb_loop_on_signal(loop, SIGHUP, reread, me);
    if (rc == CB_OK) rc = cb_loop_on_signal(loop, SIGTERM, quit, server);
    if (rc == CB_OK) printf("serving on %s\n", cb_http_server_address(server));
    fflush(stdout);
    if (rc == CB_OK) rc = cb_loop_run(loop);
    if (rc < 0) fprintf(stderr, "mtls_server: %s: %s\n", cb_strerror(rc), cb_last_error());

    cb_http_server_free(server);
    cb_identity_unref(me);
    cb_loop_free(loop);
    return rc < 0;
}
