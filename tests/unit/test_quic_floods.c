/* Floods behind the handshake: a peer that really encrypts sends what costs it next to nothing, over and over. The
 * connection ends with the error that fits, or the work, the answers and the memory stay bounded, and others are
 * served.
 */
#include "base/mem.h"
#include "support/counting.h"
#include "support/quic_fixture.h"
#include "support/raw_quic.h"
#include "transport/quic_endpoint_int.h"
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PACKET = 1150, PROTOCOL_VIOLATION = 0x0a, CID_LIMIT = 0x09, SLACK = 96 << 10 };

static counting in_use; /* memory of the server's loop */

/* --- what is sent --- */

typedef struct flood {
    const char *name;
    void (*fill)(cb_buf *b, unsigned k); /* one frame, or all of a packet; k counts the calls */
    unsigned packets;
    bool single;   /* one frame a packet, and what comes back is waited for */
    uint64_t code; /* the connection ends so; 0: it lives */
} flood;

static void ping(cb_buf *b, unsigned k) {
    (void)k;
    cb_buf_add(b, "\x01", 1);
}

static void path_challenge(cb_buf *b, unsigned k) {
    uint8_t f[9] = {0x1a, (uint8_t)k, (uint8_t)(k >> 8), (uint8_t)(k >> 16)};
    cb_buf_add(b, f, sizeof f);
}

static void max_data(cb_buf *b, unsigned k) {
    (void)k;
    cb_buf_add(b, "\x10\x7f\xff", 3);
}

static void data_blocked(cb_buf *b, unsigned k) {
    (void)k;
    cb_buf_add(b, "\x14\x05", 2);
}

static void streams_blocked(cb_buf *b, unsigned k) {
    (void)k;
    cb_buf_add(b, "\x16\x05", 2);
}

static void empty_stream(cb_buf *b, unsigned k) {
    (void)k;
    cb_buf_add(b, "\x0a\0\0", 3);
}

static void empty_datagram(cb_buf *b, unsigned k) {
    (void)k;
    cb_buf_add(b, "\x31\0", 2);
}

static void datagram(cb_buf *b, unsigned k) {
    static const uint8_t body[1000];
    (void)k;
    cb_buf_add(b, "\x31\x43\xe8", 3);
    cb_buf_add(b, body, sizeof body);
}

static void new_cid(cb_buf *b, unsigned seq, unsigned retire) {
    uint8_t tail[24] = {(uint8_t)seq, (uint8_t)(seq >> 8), 0xcc};
    memset(tail + 8, (int)(seq & 0xff), 16); /* the reset token */
    tail[8] = (uint8_t)(seq >> 8);
    cb_buf_add(b, "\x18", 1);
    raw_varint(b, seq);
    raw_varint(b, retire);
    cb_buf_add(b, "\x08", 1);
    cb_buf_add(b, tail, sizeof tail);
}

static void same_cid(cb_buf *b, unsigned k) {
    (void)k;
    new_cid(b, 1, 0);
}

static void cids_in_turn(cb_buf *b, unsigned k) {
    new_cid(b, k + 1, k + 1); /* each retires all before */
}

static void retire_cid(cb_buf *b, unsigned k) { /* in packets to the newest: the one that is used must not be retired */
    cb_buf_add(b, "\x19", 1);
    raw_varint(b, k);
}

static const flood floods[] = {
    {"PING", ping, 200, false, 0},
    {"PATH_CHALLENGE", path_challenge, 200, false, 0},
    {"MAX_DATA", max_data, 200, false, 0},
    {"DATA_BLOCKED", data_blocked, 200, false, 0},
    {"STREAMS_BLOCKED", streams_blocked, 200, false, 0},
    {"empty STREAM frames", empty_stream, 200, false, 0},
    {"empty datagrams", empty_datagram, 200, false, 0},
    {"datagrams", datagram, 200, false, 0},
    {"NEW_CONNECTION_ID, one", same_cid, 200, false, 0},
    {"NEW_CONNECTION_ID, each retires the last", cids_in_turn, 400, true, 0},
    {"RETIRE_CONNECTION_ID as they come", retire_cid, 400, true, PROTOCOL_VIOLATION},
};

static void send_flood(raw_quic *r, const flood *f) {
    cb_buf b;
    unsigned k = 0;
    cb_buf_init(&b, NULL, 4096);
    for (unsigned n = 0; n < f->packets && !r->closed; n++) {
        b.len = 0;
        if (f->fill == retire_cid) memcpy(r->dcid, r->last_cid, r->dcid_len = r->last_cid_len);
        do {
            f->fill(&b, k++);
        } while (!f->single && b.len + 32 < PACKET && f->fill != datagram);
        uint64_t given = r->frames[0x18];
        raw_frames(r, RAW_APP, b.base, b.len);
        for (int ms = 0; f->fill == retire_cid && r->frames[0x18] == given && !r->closed && ms < 500; ms++)
            raw_turn(r, 1); /* until there is another one */
        if (f->single || n % 16 == 15) (void)raw_answered(r);
    }
    cb_buf_free(&b);
    if (!r->closed) raw_turn(r, 30);
}

static void endpoint_stats(cb_quic_endpoint *e, cb_quic_endpoint_stats *out) {
    *out = (cb_quic_endpoint_stats){.size = sizeof *out};
    cb_quic_endpoint_stats_get(e, out);
}

Test(quic_floods, behind_the_handshake, .timeout = 60) {
    const cb_alloc alloc = counting_alloc(&in_use);
    qt_world w;
    qt_world_make(&w);
    cb_loop_free(w.loop);
    cr_assert_eq(cb_loop_new(&w.loop, CB_OPTS(cb_loop_opts, .alloc = &alloc)), CB_OK);
    w.client_loop = w.loop;
    cb_quic_opts so = qt_server_opts(&w), co = qt_client_opts(&w);
    so.max_datagram_bytes = 1200;
    qt_listen(&w, &so);
    qt_client_open(&w, &co);
    w.server.echo = false;
    for (size_t i = 0; i < sizeof floods / sizeof *floods; i++) {
        const flood *f = &floods[i];
        raw_quic r;
        cb_quic_endpoint_stats before, after;
        raw_make(&r, w.loop, "test", NULL, NULL);
        raw_client(&r, w.remote, "server.test");
        cr_assert(raw_connect(&r), "%s: no connection", f->name);
        raw_turn(&r, 20);
        endpoint_stats(w.server.endpoint, &before);
        size_t memory = in_use.now;
        send_flood(&r, f);
        endpoint_stats(w.server.endpoint, &after);
        uint64_t in = after.rx_bytes - before.rx_bytes, out = after.tx_bytes - before.tx_bytes;
        cr_expect_eq(r.closed, f->code != 0, "%s: closed %d with 0x%x", f->name, r.closed, (unsigned)r.close_code);
        if (f->code) cr_expect_eq(r.close_code, f->code, "%s: 0x%x", f->name, (unsigned)r.close_code);
        cr_expect_leq(out, f->single ? 3 * in : in + in / 4, "%s: %lu bytes out for %lu", f->name, out, in);
        cr_expect_leq(in_use.now, memory + SLACK, "%s: %zu bytes more", f->name, in_use.now - memory);
        if (!r.closed) raw_frames(&r, RAW_APP, "\x1c\0\0\0\0", 5);
        raw_turn(&r, 5);
        raw_drop(&r);
    }
    w.client.handshakes = w.client.fins = w.client.closes = 0;
    w.server.echo = true;
    qt_connect(&w);
    cr_assert(qt_until(&w, &w.client.handshakes, 1), "no honest connection: %s", w.client.detail);
    qt_send(&w.client, 100000);
    cr_assert(qt_until(&w, &w.client.fins, 1));
    w.client.after_close = w.server.after_close = 0; /* callbacks of the many connections before */
    qt_world_drop(&w);
}

/* --- before the handshake: first packets from addresses that never answer --- */

enum { INITIALS = 400, ROUNDS = 8, HONEST = 12, RETRY_ABOVE = 16, INITIAL_MAX = 1500 };

typedef struct initial {
    size_t len;
    uint8_t bytes[INITIAL_MAX];
} initial;

/* Real first packets, each with a ClientHello and connection IDs of its own. */
static initial *make_initials(qt_world *w, unsigned n) {
    initial *all = calloc(n, sizeof *all);
    cb_quic_opts co = qt_client_opts(w);
    qt_client_open(w, &co);
    cb_quic_endpoint *e = w->client.endpoint;
    for (unsigned i = 0; i < n; i++) {
        cb_quic_train train;
        qt_connect(w);
        ep_conn *c = CB_CONTAINER(e->conns.prev, ep_conn, all);
        cb_quic_core_write(&c->core, all[i].bytes, INITIAL_MAX, cb_loop_now(w->loop), &train);
        cr_assert(train.len >= 1200);
        all[i].len = train.len;
        cb_quic_core_finish(&c->core, CB_OK, false, "only its first packet is wanted");
        cb_quic_endpoint_finish(c);
    }
    cb_quic_endpoint_free(e);
    w->client.endpoint = NULL;
    cb_loop_step(w->loop);
    return all;
}

/* All of 127.0.0.0/8 is ours: a source address for each packet, without any right. */
static void send_from(int fd, const cb_addr *to, const initial *p, unsigned n) {
    union {
        struct cmsghdr head;
        uint8_t room[CMSG_SPACE(sizeof(struct in_pktinfo))];
    } control = {0};
    struct iovec iov = {(void *)(uintptr_t)p->bytes, p->len};
    struct msghdr m = {.msg_name = (void *)(uintptr_t)&to->sa,
                       .msg_namelen = cb_addr_len(to),
                       .msg_iov = &iov,
                       .msg_iovlen = 1,
                       .msg_control = control.room,
                       .msg_controllen = sizeof control.room};
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    struct in_pktinfo info = {.ipi_spec_dst.s_addr = htonl(0x7f100000U + n)};
    c->cmsg_level = IPPROTO_IP;
    c->cmsg_type = IP_PKTINFO;
    c->cmsg_len = CMSG_LEN(sizeof info);
    memcpy(CMSG_DATA(c), &info, sizeof info);
    (void)sendmsg(fd, &m, 0);
}

Test(quic_floods, first_packets_from_nowhere, .timeout = 60) {
    const cb_alloc alloc = counting_alloc(&in_use);
    qt_world w;
    cb_quic_endpoint_stats before, after;
    qt_world_make(&w);
    cb_loop_free(w.loop);
    cr_assert_eq(cb_loop_new(&w.loop, CB_OPTS(cb_loop_opts, .alloc = &alloc)), CB_OK);
    w.client_loop = w.loop;
    cb_quic_opts so = qt_server_opts(&w), co = qt_client_opts(&w);
    so.retry_above = RETRY_ABOVE;
    so.handshake_timeout_ms = 2000;
    qt_listen(&w, &so);
    initial *all = make_initials(&w, INITIALS);
    cb_addr to = *cb_quic_endpoint_addr(w.server.endpoint);
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    qt_client_open(&w, &co);
    w.client.handshakes = w.server.handshakes = w.client.closes = w.server.closes = 0;
    endpoint_stats(w.server.endpoint, &before);
    size_t memory = in_use.now, most = 0;
    int honest = 0;
    for (unsigned round = 0; round < ROUNDS; round++) {
        for (unsigned i = 0; i < INITIALS; i++) {
            send_from(fd, &to, &all[i], round * INITIALS + i);
            if (i % 32 == 31) qt_turn(&w, 1);
            if (in_use.now > most) most = in_use.now;
            if (round > 1 && i % 200 == 50) {
                qt_connect(&w); /* in the middle of it */
                honest++;
            }
        }
        /* the addresses of the last round are given up after a while; others stand in for them */
    }
    cr_expect(qt_until(&w, &w.client.handshakes, honest), "only %d of %d honest clients came in: %s",
              w.client.handshakes, honest, w.client.detail);
    endpoint_stats(w.server.endpoint, &after);
    uint64_t in = after.rx_bytes - before.rx_bytes, out = after.tx_bytes - before.tx_bytes;
    uint64_t retries = after.retries_sent - before.retries_sent, taken = after.conns_total - before.conns_total;
    cr_expect_geq(after.rx_datagrams - before.rx_datagrams, ROUNDS * INITIALS / 2, "the flood did not arrive");
    cr_expect_leq(out, 3 * in, "%lu bytes out for %lu", out, in);
    cr_expect_gt(retries, taken, "%lu Retry, %lu connections", retries, taken);
    cr_expect_leq(most, memory + (RETRY_ABOVE + HONEST + 4) * (128U << 10), "%zu bytes", most - memory);
    /* it is over: the half-open ones time out, and nobody is asked to prove an address any more */
    for (int i = 0; i < 60 && w.server.endpoint->handshakes; i++)
        qt_turn(&w, 100);
    cr_expect_eq(w.server.endpoint->handshakes, 0);
    endpoint_stats(w.server.endpoint, &before);
    cb_quic_endpoint_free(w.client.endpoint); /* a fresh client has no token */
    cb_loop_step(w.loop);
    w.client.handshakes = 0;
    qt_client_open(&w, &co);
    qt_connect(&w);
    cr_expect(qt_until(&w, &w.client.handshakes, 1));
    endpoint_stats(w.server.endpoint, &after);
    cr_expect_eq(after.retries_sent, before.retries_sent, "Retry goes on after the flood");
    close(fd);
    free(all);
    w.client.after_close = w.server.after_close = 0;
    qt_world_drop(&w);
}
