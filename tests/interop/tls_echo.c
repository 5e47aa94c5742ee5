/* tls_echo - a TLS server on libcb's channel that sends back what it gets: for independent TLS clients. Built by
 * test_tls_peers.py against the library's internal headers.
 *
 *   tls_echo cert.pem key.pem [12] [tickets=FILE] [ca=FILE]     12: TLS 1.2 too; ca: clients must show a certificate
 *
 * Prints "port N", then a line for each connection that opened ("open ALPN resumed|full") or closed ("close RC
 * detail"). SIGHUP reads the identity again and turns the ticket ring. */
#include "loop/tcp.h"
#include "transport/channel.h"
#include <signal.h>
#include <stdio.h>
#include <string.h>

static cb_tls_opts tls = {.server = true, .alpn = "h2,http/1.1"};
static cb_loop *loop;

static void on_open(cb_channel *c, void *user) {
    (void)user;
    printf("open %s %s\n", cb_tls_session_alpn(cb_channel_tls(c)),
           cb_tls_session_resumed(cb_channel_tls(c)) ? "resumed" : "full");
}

static int64_t on_data(cb_channel *c, cb_slice data, void *user) {
    (void)user;
    int rc = cb_channel_write(c, &data, 1);
    return rc < 0 ? rc : (int64_t)data.len;
}

static void on_eof(cb_channel *c, void *user) {
    (void)user;
    cb_channel_shutdown(c);
}

static void on_close(cb_channel *c, int rc, void *user) {
    (void)c;
    (void)user;
    printf("close %d %s\n", rc, rc < 0 ? cb_last_error() : "");
}

static void on_accept(cb_tcp_listener *l, int fd, const cb_addr *remote, void *user) {
    static const cb_channel_ops ops = {.on_open = on_open, .on_data = on_data, .on_eof = on_eof, .on_close = on_close};
    cb_channel *c;
    (void)l;
    (void)user;
    if (cb_channel_new(&c, loop, fd, remote, &(cb_channel_opts){.tls = &tls, .ops = &ops}) < 0) puts(cb_last_error());
}

static void reload(cb_loop *l, void *user) {
    (void)l;
    (void)user;
    int rc = cb_identity_reload(tls.identity);
    if (rc >= 0 && tls.tickets) rc = cb_tickets_rotate(tls.tickets, 1);
    printf("reload %d\n", rc);
}

static void quit(cb_loop *l, void *user) {
    (void)user;
    cb_loop_stop(l);
}

int main(int argc, char **argv) {
    cb_tcp_listener *listener;
    cb_tcp_listener_opts o = {.on_accept = on_accept};
    const char *tickets = NULL, *ca = NULL;
    for (int i = 3; i < argc; i++) {
        if (strcmp(argv[i], "12") == 0) tls.tls12 = true;
        if (strncmp(argv[i], "tickets=", 8) == 0) tickets = argv[i] + 8;
        if (strncmp(argv[i], "ca=", 3) == 0) ca = argv[i] + 3;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    tls.require_client_cert = ca != NULL;
    cb_addr_parse(&o.bind, "127.0.0.1:0", 0);
    int rc = cb_loop_new(&loop, NULL);
    if (rc >= 0) {
        rc = cb_identity_new(&tls.identity,
                             CB_OPTS(cb_identity_opts, .cert_file = argv[1], .key_file = argv[2], .ca_file = ca));
    }
    if (rc >= 0 && tickets) rc = cb_tickets_new(&tls.tickets, CB_OPTS(cb_tickets_opts, .file = tickets));
    if (rc >= 0) rc = cb_tcp_listen(&listener, loop, &o);
    if (rc >= 0) rc = cb_loop_on_signal(loop, SIGHUP, reload, NULL);
    if (rc >= 0) rc = cb_loop_on_signal(loop, SIGTERM, quit, NULL);
    if (rc < 0) {
        fprintf(stderr, "tls_echo: %s\n", cb_last_error());
        return 1;
    }
    printf("port %u\n", cb_addr_port(cb_tcp_listener_local(listener)));
    cb_loop_run(loop);
    return 0;
}
