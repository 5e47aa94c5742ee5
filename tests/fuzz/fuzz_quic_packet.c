/* Packets into a server that has a connection under way. Input: records of a flag octet, a 16-bit length and bytes.
 * Flag bit 0: put the server's own connection ID in (behind a short or a long header); bit 1: overwrite the version
 * with v1; bit 2: from another address. Nothing reaches the network: the answers go to a socket that nobody reads. */
#include "transport/quic_endpoint_int.h"
#include <cb/ca.h>
#include <cb/quic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static cb_loop *loop;
static cb_quic_endpoint *server;
static cb_addr from[2];
static ngtcp2_cid known;

static int64_t take(cb_quic_conn *c, int64_t stream, cb_slice data, int fin, void *user) {
    (void)user;
    (void)cb_quic_stream_write(c, stream, data, fin);
    return (int64_t)data.len;
}

static const cb_quic_conn_ops ops = {.size = sizeof ops, .on_stream_data = take};

/* A live handshake gives connection IDs that lead somewhere. */
static void start_connection(void) {
    cb_quic_endpoint *client = NULL;
    cb_quic_conn *c = NULL;
    cb_quic_opts o = {.size = sizeof o, .alpn = "fuzz", .verify = CB_VERIFY_NONE};
    if (cb_quic_client(&client, loop, "127.0.0.1:0", &o) < 0) abort();
    if (cb_quic_connect(&c, client, cb_quic_endpoint_local(server), "server.test") < 0) abort();
    for (int i = 0; i < 100 && !c->handshaken; i++)
        cb_loop_step(loop);
    ep_conn *s = CB_CONTAINER(server->conns.next, ep_conn, all);
    ngtcp2_cid all[8];
    if (ngtcp2_conn_get_scid(s->core.ng, NULL) <= 8 && ngtcp2_conn_get_scid(s->core.ng, all)) known = all[0];
    c->phase = CB_QUIC_CLOSING; /* the client vanishes without a word */
    cb_quic_endpoint_free(client);
    cb_loop_step(loop);
}

static cb_identity *make_identity(void) {
    static const char *const names[] = {"server.test"};
    static const char *const made[] = {"ca.pem", "ca-key.pem", "leaf.pem", "leaf-key.pem"};
    char dir[] = "/tmp/cb-fuzz-XXXXXX", cert[64], key[64];
    cb_ca *ca = NULL;
    cb_identity *id = NULL;
    if (!mkdtemp(dir) || cb_ca_open(&ca, CB_OPTS(cb_ca_opts, .dir = dir)) < 0) abort();
    if (cb_ca_issue(ca, CB_OPTS(cb_leaf_opts, .names = names, .names_len = 1, .file_stem = "leaf"), NULL, NULL) < 0) {
        abort();
    }
    snprintf(cert, sizeof cert, "%s/leaf.pem", dir);
    snprintf(key, sizeof key, "%s/leaf-key.pem", dir);
    if (cb_identity_new(&id, CB_OPTS(cb_identity_opts, .cert_file = cert, .key_file = key)) < 0) abort();
    cb_ca_free(ca);
    for (size_t i = 0; i < sizeof made / sizeof made[0]; i++) {
        snprintf(cert, sizeof cert, "%s/%s", dir, made[i]);
        unlink(cert);
    }
    rmdir(dir);
    return id;
}

static void start(void) {
    cb_identity *id = make_identity();
    cb_quic_opts o = {.size = sizeof o, .alpn = "fuzz", .identity = id, .ops = &ops, .max_datagram_bytes = 1000};
    if (cb_loop_new(&loop, NULL) < 0 || cb_quic_listen(&server, loop, "127.0.0.1:0", &o) < 0) abort();
    cb_identity_unref(id);
    cb_addr_parse(&from[0], "127.0.0.1:9", 0);
    cb_addr_parse(&from[1], "127.0.0.1:19", 0);
}

static void throw(uint8_t flags, const uint8_t *data, size_t len) {
    uint8_t *p = malloc(len ? len : 1);
    if (!p) abort();
    if (len) memcpy(p, data, len);
    size_t at = len && p[0] & 0x80 ? 6 : 1;
    if (flags & 1 && len >= at + known.datalen) {
        memcpy(p + at, known.data, known.datalen);
        if (at == 6) p[5] = (uint8_t)known.datalen;
    }
    if (flags & 2 && len >= 5) memcpy(p + 1, "\0\0\0\1", 4);
    cb_datagram d = {.local = *cb_quic_endpoint_addr(server), .remote = from[flags >> 2 & 1], .data = p, .len = len};
    cb_quic_endpoint_packet(server, &server->main, &d);
    free(p);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (!loop) start();
    if (!server->conns_now) start_connection();
    while (size >= 3) {
        size_t len = (size_t)data[1] << 8 | data[2];
        if (len > size - 3) len = size - 3;
        throw(data[0], data + 3, len);
        data += 3 + len;
        size -= 3 + len;
    }
    cb_loop_step(loop);
    while (server->conns_now > 50) { /* half-open ones would pile up */
        ep_conn *c = CB_CONTAINER(server->conns.prev, ep_conn, all);
        cb_quic_core_finish(&c->core, CB_OK, false, "enough");
        cb_quic_endpoint_finish(c);
        cb_loop_step(loop);
    }
    return 0;
}
