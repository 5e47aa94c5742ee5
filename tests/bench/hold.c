/* hold - opens many connections, asks once on each, and holds them until its standard input ends.
 *
 *   hold -n 10000 -2 --ca ca.pem --to 127.0.0.1:8443 https://localhost:8443/1k
 *
 * Prints "held N" when every one was answered. With -1, -2 or -3 for the HTTP version; each connection belongs to a
 * client of its own. At most 64 of them are being opened at any time. */
#include <cb.h>
#include <getopt.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { AT_ONCE = 64, IDLE_MS = 3600 * 1000 };

struct hold {
    cb_loop *loop;
    cb_identity *trust;
    const char *url, *to;
    cb_http_client **clients;
    unsigned versions, wanted, begun, answered, open;
    int rc;
};

static void begin(struct hold *h);

static void on_close(cb_exchange *x, int rc, void *user) {
    struct hold *h = user;
    if (rc == CB_OK && cb_exchange_status(x) != 200) rc = CB_EPROTO;
    if (rc < 0 && h->rc == CB_OK) {
        h->rc = rc;
        fprintf(stderr, "hold: connection %u: %s: %s\n", h->answered, cb_strerror(rc), cb_last_error());
        cb_loop_stop(h->loop);
    }
    h->open--;
    h->answered++;
    begin(h);
    if (h->answered != h->wanted || h->rc < 0) return;
    printf("held %u\n", h->answered);
    fflush(stdout);
}

static const cb_exchange_ops ops = {.size = sizeof ops, .on_close = on_close};

static int begin_one(struct hold *h) {
    static const cb_http_limits limits = {.size = sizeof limits, .idle_timeout_ms = IDLE_MS};
    const cb_request request = {.size = sizeof request, .url = h->url, .connect_to = h->to};
    cb_http_client **client = &h->clients[h->begun++];
    cb_exchange *x = NULL;
    int rc = cb_http_client_new(client, h->loop,
                                CB_OPTS(cb_http_client_opts, .identity = h->trust, .versions = h->versions,
                                        .limits = &limits, .idle_timeout_ms = IDLE_MS));
    return rc < 0 ? rc : cb_http_request(&x, *client, &request, &ops, h);
}

static void begin(struct hold *h) {
    while (h->rc == CB_OK && h->begun < h->wanted && h->open < AT_ONCE) {
        h->open++;
        h->rc = begin_one(h);
    }
}

static void finish(cb_loop *loop, void *user) {
    (void)user;
    cb_loop_stop(loop);
}

static void *wait_for_end(void *loop) {
    char byte;
    while (read(STDIN_FILENO, &byte, 1) > 0) {}
    cb_loop_post(loop, finish, NULL);
    return NULL;
}

static int run(struct hold *h, const char *ca) {
    pthread_t thread;
    int rc = cb_loop_new(&h->loop, NULL);
    if (rc == CB_OK && ca) rc = cb_identity_new(&h->trust, CB_OPTS(cb_identity_opts, .ca_file = ca));
    if (rc < 0) return rc;
    if (pthread_create(&thread, NULL, wait_for_end, h->loop) != 0) return CB_ESYS;
    begin(h);
    rc = h->rc;
    if (rc == CB_OK) rc = cb_loop_run(h->loop);
    if (rc == CB_OK) rc = h->rc;
    return rc;
}

int main(int argc, char **argv) {
    static const struct option longs[] = {
        {"ca", required_argument, NULL, 'C'}, {"to", required_argument, NULL, 'T'}, {NULL, 0, NULL, 0}};
    struct hold h = {.wanted = 1000, .versions = CB_HTTP_1};
    const char *ca = NULL;
    for (int c; (c = getopt_long(argc, argv, "n:123", longs, NULL)) != -1;) {
        if (c == 'n')
            h.wanted = (unsigned)strtoul(optarg, NULL, 10);
        else if (c == 'C')
            ca = optarg;
        else if (c == 'T')
            h.to = optarg;
        else if (c >= '1' && c <= '3')
            h.versions = c == '1' ? CB_HTTP_1 : c == '2' ? CB_HTTP_2 : CB_HTTP_3;
        else
            argc = 0;
    }
    if (optind + 1 != argc || !h.wanted || h.wanted > 1000000) {
        fprintf(stderr, "usage: %s [-n connections] [-1|-2|-3] [--ca FILE] [--to ADDRESS:PORT] URL\n", argv[0]);
        return 2;
    }
    h.url = argv[optind];
    h.clients = calloc(h.wanted, sizeof *h.clients);
    int rc = h.clients ? run(&h, ca) : CB_ENOMEM;
    if (rc < 0) fprintf(stderr, "hold: %s: %s\n", cb_strerror(rc), cb_last_error());
    _exit(rc < 0); /* ten thousand connections need not take leave one by one */
}
