/* Peers that really encrypt and then say anything at all: whatever comes of it, the process lives, the connection ends
 * or goes on, and honest ones are served. Where exactly which error is due stands in the error table. */
#include "support/quic_fixture.h"
#include "support/raw_quic.h"
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

typedef struct wild {
    qt_world w;
    raw_quic r;
    uint32_t seed;
    bool client; /* ours is attacked */
    bool up;     /* there is a connection */
    void (*prepare)(raw_quic *r);
} wild;

static uint32_t any(wild *g, uint32_t below) {
    g->seed = g->seed * 1103515245 + 12345;
    return (g->seed >> 8) % below;
}

static void begin(wild *g, bool client) {
    memset(g, 0, sizeof *g);
    g->client = client;
    g->seed = 1;
    qt_world_make(&g->w);
    cb_quic_opts so = qt_server_opts(&g->w), co = qt_client_opts(&g->w);
    so.request_client_cert = 1;
    qt_listen(&g->w, &so);
    qt_client_open(&g->w, &co);
}

/* A new peer whose first flight is on its way. What TLS says from `hold` on is kept back. */
static void meet(wild *g, enum raw_level hold) {
    char cert[160], key[160], remote[32];
    tls_pki *pki = &g->w.pki;
    raw_make(&g->r, g->w.loop, "test", g->client ? tls_pki_path(pki, "leaf.pem", cert) : NULL,
             g->client ? tls_pki_path(pki, "leaf-key.pem", key) : NULL);
    g->r.user = g;
    g->r.prepare = g->prepare;
    g->r.hold_from = hold;
    g->up = true;
    if (!g->client) {
        raw_client(&g->r, g->w.remote, "server.test");
        raw_flush(&g->r);
        return;
    }
    snprintf(remote, sizeof remote, "127.0.0.1:%u", raw_port(&g->r));
    cr_assert_eq(cb_quic_connect(&g->w.client.conn, g->w.client.endpoint, remote, "server.test"), CB_OK);
}

static void part(wild *g) {
    if (!g->up) return;
    if (!g->r.closed) raw_frames(&g->r, g->r.confirmed ? RAW_APP : RAW_INITIAL, "\x1c\0\0\0\0", 5);
    raw_turn(&g->r, 1);
    raw_drop(&g->r);
    g->up = false;
}

static void end(wild *g) {
    part(g);
    g->w.client.handshakes = g->w.client.fins = g->w.client.closes = 0;
    qt_connect(&g->w);
    cr_assert(qt_until(&g->w, &g->w.client.handshakes, 1), "no honest connection: %s", g->w.client.detail);
    qt_send(&g->w.client, 100000);
    cr_assert(qt_until(&g->w, &g->w.client.fins, 1), "%s", g->w.client.detail);
    g->w.client.after_close = 0;
    qt_world_drop(&g->w);
}

/* Every TLS message, with a body of nothing and of something, at every level, before and after the handshake. */
static void say_tls(wild *g, enum raw_level at, uint8_t type, size_t len, bool behind) {
    uint8_t body[64];
    cb_buf b;
    meet(g, at == RAW_APP ? RAW_LEVELS : at == RAW_INITIAL && !g->client ? RAW_HANDSHAKE : at);
    raw_wait(&g->r, at == RAW_APP ? &g->r.confirmed : &g->r.tx[at].have);
    for (size_t i = 0; i < len; i++)
        body[i] = (uint8_t)any(g, 256);
    cb_buf_init(&b, NULL, 256);
    raw_varint(&b, 6);
    raw_varint(&b, g->r.crypto_sent[at] + (behind ? 0 : g->r.crypto[at].len));
    raw_varint(&b, 4 + len);
    const uint8_t head[] = {type, 0, 0, (uint8_t)len};
    cb_buf_add(&b, head, sizeof head);
    cb_buf_add(&b, body, len);
    raw_frames(&g->r, at, b.base, b.len);
    cb_buf_free(&b);
    raw_turn(&g->r, 1);
    g->r.hold_from = RAW_LEVELS;
    raw_flush(&g->r);
    raw_turn(&g->r, 1);
    part(g);
}

static void any_tls_message(bool client) {
    static const uint8_t types[] = {0, 1, 2, 4, 5, 6, 8, 11, 13, 14, 15, 16, 20, 24, 67, 254, 255};
    wild g;
    begin(&g, client);
    for (enum raw_level at = RAW_INITIAL; at <= RAW_APP; at++)
        for (size_t t = 0; t < sizeof types; t++)
            for (size_t len = 0; len <= 40; len += 20)
                say_tls(&g, at, types[t], len, len != 20);
    end(&g);
}

Test(quic_wild, any_tls_message_to_our_server, .timeout = 60) {
    any_tls_message(false);
}

Test(quic_wild, any_tls_message_to_our_client, .timeout = 60) {
    any_tls_message(true);
}

/* Parameters with any numbers, some left out, some cut short. */
static void any_params(raw_quic *r) {
    wild *g = r->user;
    uint64_t ids[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0xa, 0xb, 0xc, 0xd, 0xe, 0xf, 0x10, 0x11, 0x20, 0x2ab2};
    for (uint32_t n = 1 + any(g, 2); n; n--) {
        uint8_t value[64];
        uint64_t id = ids[any(g, sizeof ids / sizeof *ids)];
        size_t len = any(g, 3) ? (size_t)1 << any(g, 4) : any(g, sizeof value);
        for (size_t i = 0; i < sizeof value; i++)
            value[i] = any(g, 4) ? (uint8_t)any(g, 256) : 0xff;
        if (len == 2 || len == 4 || len == 8)
            value[0] = (uint8_t)((value[0] & 0x3f) | (len == 2 ? 0x40 : len == 4 ? 0x80 : 0xc0));
        raw_param_drop(r, id);
        if (any(g, 8)) raw_param_add(r, id, value, len);
    }
    if (!any(g, 8)) r->params.len -= any(g, (uint32_t)r->params.len);
}

static void any_transport_parameters(bool client) {
    wild g;
    begin(&g, client);
    g.prepare = any_params;
    int through = 0;
    for (int i = 0; i < 150; i++) {
        meet(&g, RAW_LEVELS);
        for (int ms = 0; ms < 200 && !g.r.closed && !g.r.confirmed; ms++)
            raw_turn(&g.r, 1);
        through += g.r.confirmed;
        if (g.r.confirmed && !g.r.closed) raw_frames(&g.r, RAW_APP, "\x0b\x00\x05hello", 8);
        raw_turn(&g.r, 1);
        part(&g);
    }
    cr_assert_gt(through, 10, "%d: the numbers are too wild to test anything behind the handshake", through);
    end(&g);
}

Test(quic_wild, any_transport_parameters_to_our_server, .timeout = 60) {
    any_transport_parameters(false);
}

Test(quic_wild, any_transport_parameters_to_our_client, .timeout = 60) {
    any_transport_parameters(true);
}

/* Frames of every type with any numbers in them. */
static uint64_t any_number(wild *g) {
    static const uint64_t nice[] = {
        0, 1, 2, 3, 4, 5, 8, 255, 1200, 65536, 262144, (uint64_t)1 << 60, ((uint64_t)1 << 62) - 1};
    return any(g, 3) ? nice[any(g, sizeof nice / sizeof *nice)] : any(g, 100);
}

static void any_frame(wild *g, cb_buf *b) {
    uint8_t type = (uint8_t)any(g, 0x33);
    raw_varint(b, type == 0x1c || type == 0x1d ? 1 : type); /* closing is no attack */
    for (uint32_t n = any(g, 6); n; n--)
        raw_varint(b, any_number(g));
    for (uint32_t n = any(g, 30); n; n--) {
        uint8_t byte = (uint8_t)any(g, 256);
        cb_buf_add(b, &byte, 1);
    }
}

static void any_frames(bool client) {
    int closed = 0;
    wild g;
    begin(&g, client);
    for (int i = 0; i < 600; i++) {
        if (!g.up || g.r.closed) {
            closed += g.up;
            part(&g);
            meet(&g, RAW_LEVELS);
            cr_assert(raw_wait(&g.r, &g.r.confirmed), "round %d: no handshake", i);
        }
        cb_buf b;
        cb_buf_init(&b, NULL, 4096);
        do
            any_frame(&g, &b);
        while (any(&g, 3) && b.len < 800);
        raw_frames(&g.r, RAW_APP, b.base, b.len);
        cb_buf_free(&b);
        if (i % 4 == 0) raw_turn(&g.r, 1);
    }
    cr_assert_gt(closed, 50);
    end(&g);
}

Test(quic_wild, any_frames_to_our_server, .timeout = 60) {
    any_frames(false);
}

Test(quic_wild, any_frames_to_our_client, .timeout = 60) {
    any_frames(true);
}
