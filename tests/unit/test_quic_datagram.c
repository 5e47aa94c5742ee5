#include "base/mem.h"
#include "support/moved.h"
#include "support/quic_fixture.h"
#include "transport/quic_dgram.h"
#include <criterion/criterion.h>
#include <string.h>

static void start(qt_world *w, uint32_t server_takes, uint32_t client_takes) {
    qt_world_make(w);
    cb_quic_opts so = qt_server_opts(w), co = qt_client_opts(w);
    so.max_datagram_bytes = server_takes;
    co.max_datagram_bytes = client_takes;
    qt_listen(w, &so);
    qt_client_open(w, &co);
    qt_connect(w);
    cr_assert_eq(cb_quic_datagram_send(w->client.conn, cb_slice_str("early")), CB_EAGAIN);
    cr_assert(qt_until(w, &w->client.handshakes, 1));
    cr_assert(qt_until(w, &w->server.handshakes, 1));
}

Test(quic_datagram, echo_of_every_size_that_fits) {
    qt_world w;
    uint8_t data[2000];
    memset(data, 'x', sizeof data);
    start(&w, 65535, 65535);
    size_t max = cb_quic_datagram_max(w.client.conn);
    cr_assert_geq(max, 1100);
    for (size_t n = 0; n <= max; n += n + 97 > max && n < max ? max - n : 97) {
        int before = w.client.datagrams;
        cr_assert_eq(cb_quic_datagram_send(w.client.conn, (cb_slice){data, n}), CB_OK, "%zu", n);
        cr_assert(qt_until(&w, &w.client.datagrams, before + 1), "%zu of %zu", n, max);
        cr_assert_eq(w.client.datagram_len, n);
    }
    /* the path was probed meanwhile: larger packets are possible than at first */
    cr_assert_gt(cb_quic_datagram_max(w.client.conn), 1350, "%zu", cb_quic_datagram_max(w.client.conn));
    max = cb_quic_datagram_max(w.client.conn);
    cr_assert_eq(cb_quic_datagram_send(w.client.conn, (cb_slice){data, max + 1}), CB_ELIMIT);
    int before = w.client.datagrams;
    cr_assert_eq(cb_quic_datagram_send(w.client.conn, (cb_slice){data, max}), CB_OK);
    cr_assert(qt_until(&w, &w.client.datagrams, before + 1));
    EXPECT_MOVED(w.metrics, 2 * w.client.datagrams, "cb_quic_datagram_frames", "out");
    EXPECT_MOVED(w.metrics, 2 * w.client.datagrams, "cb_quic_datagram_frames", "in");
    EXPECT_MOVED(w.metrics, 1, "cb_quic_dropped_datagram_frames", "too_big");
    qt_world_drop(&w);
}

Test(quic_datagram, the_queue_is_bounded) {
    qt_world w;
    uint8_t data[1000] = {1};
    int n = 0, rc;
    start(&w, 65535, 0);
    while ((rc = cb_quic_datagram_send(w.client.conn, (cb_slice){data, sizeof data})) == CB_OK)
        cr_assert_lt(++n, 100);
    cr_assert_eq(rc, CB_EAGAIN);
    cr_assert_eq(n, 65);
    EXPECT_MOVED(w.metrics, 1, "cb_quic_dropped_datagram_frames", "full");
    cr_assert(qt_until(&w, &w.server.datagrams, 60)); /* loss is allowed, on loopback none is expected */
    cr_assert_eq(cb_quic_datagram_send(w.client.conn, (cb_slice){data, sizeof data}), CB_OK);
    cr_assert_eq(cb_quic_datagram_send(w.server.conn, cb_slice_str("back")), CB_ENOTSUP);
    qt_world_drop(&w);
}

Test(quic_datagram, peers_that_take_none_or_little) {
    qt_world w;
    uint8_t data[200] = {0};
    start(&w, 0, 0);
    cr_assert_eq(cb_quic_datagram_max(w.client.conn), 0);
    cr_assert_eq(cb_quic_datagram_send(w.client.conn, cb_slice_str("x")), CB_ENOTSUP);
    qt_world_drop(&w);
    start(&w, 100, 100);
    cr_assert_eq(cb_quic_datagram_max(w.client.conn), 97);
    cr_assert_eq(cb_quic_datagram_send(w.client.conn, (cb_slice){data, 98}), CB_ELIMIT);
    cr_assert_eq(cb_quic_datagram_send(w.client.conn, (cb_slice){data, 97}), CB_OK);
    cr_assert(qt_until(&w, &w.client.datagrams, 1));
    cr_assert_eq(w.client.datagram_len, 97);
    cr_assert_eq(w.client.closes, 0);
    qt_world_drop(&w);
}

/* The ring against a plain list: sizes that wrap in every way. */
Test(quic_datagram, ring) {
    cb_quic_dgrams q = {0};
    static uint8_t data[65000];
    static struct {
        size_t len;
        uint8_t first;
    } model[40000];
    size_t head = 0, tail = 0, held = 0;
    uint32_t seed = 12345;
    for (int i = 0; i < 30000; i++) {
        seed = seed * 1103515245 + 12345;
        bool add = (seed >> 16) % 5 < 3;
        seed = seed * 1103515245 + 12345;
        size_t len = (seed >> 16) % 8 == 0 ? (seed >> 8) % 30000 : (seed >> 16) % 1500;
        if (add) {
            cb_slice v[3] = {{data, len / 3}, {NULL, 0}, {data + len / 3, len - len / 3}};
            data[0] = (uint8_t)i;
            int rc = cb_quic_dgrams_add(&q, &cb_alloc_libc, v, 3);
            if (rc == CB_OK) {
                model[tail].len = len;
                model[tail++].first = (uint8_t)i;
                held += len;
            } else {
                cr_assert_eq(rc, CB_EAGAIN);
                cr_assert_geq(held + 2 * (tail - head) + 2 * (len + 4) + 30004, CB_QUIC_DGRAMS_MAX); /* gaps */
            }
        } else if (head < tail) {
            cb_slice s = cb_quic_dgrams_first(&q);
            cr_assert_eq(s.len, model[head].len);
            if (s.len > 3) cr_assert_eq(s.base[0], model[head].first);
            cb_quic_dgrams_pop(&q);
            held -= model[head++].len;
        }
        cr_assert_eq(q.count, tail - head);
    }
    cr_assert_eq(cb_quic_dgrams_add(&q, &cb_alloc_libc, &(cb_slice){data, 65001}, 1), CB_ELIMIT);
    cb_quic_dgrams_free(&q, &cb_alloc_libc);
}
