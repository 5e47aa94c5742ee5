#include "support/quic_fixture.h"
#include <criterion/criterion.h>

Test(quic, handshake_and_echo) {
    qt_world w;
    qt_world_make(&w);
    qt_start(&w);
    cr_assert_str_eq(cb_quic_conn_alpn(w.client.conn), "test");
    cr_assert_str_eq(cb_quic_conn_alpn(w.server.conn), "test");
    cr_assert_str_eq(cb_quic_conn_sni(w.server.conn), "server.test");
    qt_send(&w.client, 5000);
    cr_assert(qt_until(&w, &w.client.fins, 1));
    cr_assert_eq(w.client.bytes, 5000);
    cr_assert_eq(w.client.sum, qt_sum_of(5000));
    cr_assert(qt_until(&w, &w.client.stream_closes, 1));
    cr_assert(qt_until(&w, &w.server.stream_closes, 1));
    cb_quic_conn_close(w.client.conn, 0, "done");
    cr_assert(qt_until(&w, &w.client.closes, 1));
    cr_assert(qt_until(&w, &w.server.closes, 1));
    cr_assert_eq(w.client.close_rc, CB_OK);
    cr_assert_eq(w.server.close_rc, CB_OK, "%s", w.server.detail);
    qt_world_drop(&w);
}

Test(quic, megabytes_both_ways) {
    enum { SIZE = 16 << 20 };
    qt_world w;
    qt_world_make(&w);
    qt_start(&w);
    qt_send(&w.client, SIZE);
    cr_assert(qt_until_bytes(&w, &w.client.bytes, SIZE), "%llu", (unsigned long long)w.client.bytes);
    cr_assert(qt_until(&w, &w.client.fins, 1));
    uint64_t sum = qt_sum_of(SIZE);
    cr_assert_eq(w.server.sum, sum);
    cr_assert_eq(w.client.sum, sum);
    qt_world_drop(&w);
}
