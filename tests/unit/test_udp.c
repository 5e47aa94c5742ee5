#include "loop/udp_priv.h"
#include "support/moved.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Loopback never refuses to send, so these tests may fail the call: it replaces libc's in the test program. Other tests
 * send from several threads. */
static _Thread_local struct {
    int err, times, only_segmented;
    int messages; /* that went through */
} fault;

int sendmmsg(int fd, struct mmsghdr *v, unsigned int n, int flags);
int sendmmsg(int fd, struct mmsghdr *v, unsigned int n, int flags) {
    bool segmented = v[0].msg_hdr.msg_iov[0].iov_len > 1200;
    if (fault.times && (segmented || !fault.only_segmented)) {
        fault.times--;
        errno = fault.err;
        return -1;
    }
    int sent = (int)syscall(SYS_sendmmsg, fd, v, n, flags);
    if (sent > 0) fault.messages += sent;
    return sent;
}

enum { KEPT = 400 };

typedef struct sink {
    cb_loop *loop;
    size_t count, expected, batches, writables, bytes;
    struct {
        cb_addr local, remote;
        uint8_t ecn, first, last;
        size_t len;
    } got[KEPT];
    bool echo, close_it, refuse;
} sink;

static bool keep(cb_udp *u, cb_datagram *d, void *user) {
    sink *s = user;
    if (s->count < KEPT) {
        s->got[s->count].local = d->local;
        s->got[s->count].remote = d->remote;
        s->got[s->count].ecn = d->ecn;
        s->got[s->count].len = d->len;
        s->got[s->count].first = d->len ? d->data[0] : 0;
        s->got[s->count].last = d->len ? d->data[d->len - 1] : 0;
    }
    s->count++;
    s->bytes += d->len;
    if (s->echo && d->len) {
        uint8_t *p = cb_udp_reserve(u, d->len);
        cr_assert_not_null(p);
        memcpy(p, d->data, d->len);
        cb_udp_commit(u, &d->local, &d->remote, d->ecn, d->len, d->len);
    }
    if (s->close_it) cb_udp_close(u);
    if (s->expected && s->count >= s->expected) cb_loop_stop(s->loop);
    return !s->refuse;
}

static void batch_end(cb_udp *u, void *user) {
    (void)u;
    ((sink *)user)->batches++;
}

static void writable(cb_udp *u, void *user) {
    (void)u;
    sink *s = user;
    s->writables++;
    cb_loop_stop(s->loop);
}

static cb_addr address(const char *text) {
    cb_addr a;
    cr_assert_eq(cb_addr_parse(&a, text, 0), CB_OK, "%s", cb_last_error());
    return a;
}

static cb_loop *counting(cb_metrics **m) {
    cb_loop *loop = NULL;
    cr_assert_eq(cb_metrics_new(m, NULL), CB_OK);
    cr_assert_eq(cb_loop_new(&loop, CB_OPTS(cb_loop_opts, .metrics = *m)), CB_OK, "%s", cb_last_error());
    return loop;
}

static cb_udp *open_udp(cb_loop *loop, const char *bind, sink *s, cb_udp_opts o) {
    cb_udp *u = NULL;
    s->loop = loop;
    o.bind = address(bind);
    o.on_datagram = keep;
    o.on_batch_end = batch_end;
    o.on_writable = writable;
    o.user = s;
    cr_assert_eq(cb_udp_open(&u, loop, &o), CB_OK, "%s", cb_last_error());
    return u;
}

static void give_up(cb_loop *loop, void *user) {
    *(bool *)user = true;
    cb_loop_stop(loop);
}

/* Runs until the sink has what it expects, at most a second. */
static void run_until(cb_loop *loop, sink *s, size_t expected) {
    cb_timer *t = NULL;
    bool late = false;
    s->expected = expected;
    cb_timer_start(&t, loop, 1000, 0, give_up, &late);
    if (s->count < expected) cb_loop_run(loop);
    cb_timer_free(t);
    cr_assert(!late, "%zu of %zu datagrams came", s->count, expected);
}

static void run_some(cb_loop *loop) {
    for (int i = 0; i < 5; i++)
        cr_assert_eq(cb_loop_step(loop), CB_OK);
}

/* n datagrams of `segment` bytes and one of `tail`; each begins and ends with its number. */
static size_t fill_train(uint8_t *p, size_t n, size_t segment, size_t tail) {
    for (size_t i = 0; i < n; i++)
        memset(p + i * segment, (int)i, segment);
    memset(p + n * segment, (int)n, tail);
    return n * segment + tail;
}

static cb_addr with_port(const char *host, const cb_udp *u) {
    cb_addr a = address(host);
    cb_addr_set_port(&a, cb_addr_port(cb_udp_local(u)));
    return a;
}

static bool has_ipv6(void) {
    int fd = socket(AF_INET6, SOCK_DGRAM, 0);
    struct sockaddr_in6 a = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    bool yes = fd >= 0 && bind(fd, (struct sockaddr *)&a, sizeof a) == 0;
    if (fd >= 0) close(fd);
    return yes;
}

Test(udp, trains_arrive_whole_with_ecn_and_addresses) {
    static const struct {
        const char *bind, *from, *to, *local, *remote;
        bool no_gso, no_gro, v6;
    } rows[] = {
        {"127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1", "127.0.0.1", false, false, false},
        {"127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1", "127.0.0.1", true, false, false},
        {"127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1", "127.0.0.1", false, true, false},
        {"0.0.0.0:0", "0.0.0.0:0", "127.0.0.3:0", "127.0.0.3", "127.0.0.2", false, false, false},
        {"[::1]:0", "[::1]:0", "[::1]:0", "::1", "::1", false, false, true},
        {"[::1]:0", "[::1]:0", "[::1]:0", "::1", "::1", true, true, true},
        {"[::]:0", "0.0.0.0:0", "127.0.0.3:0", "127.0.0.3", "127.0.0.2", false, false, true},
        {"0.0.0.0:0", "[::]:0", "127.0.0.3:0", "127.0.0.3", "127.0.0.2", false, false, true},
        {"[::]:0", "[::]:0", "[::1]:0", "::1", "::1", false, false, true},
    };
    bool v6 = has_ipv6();
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
        if (rows[r].v6 && !v6) continue;
        cb_metrics *m;
        cb_loop *loop = counting(&m);
        sink in = {0}, out = {0};
        char text[CB_ADDR_TEXT];
        cb_udp *server = open_udp(loop, rows[r].bind, &in, (cb_udp_opts){.no_gro = rows[r].no_gro});
        cb_udp *client = open_udp(loop, rows[r].from, &out, (cb_udp_opts){.no_gso = rows[r].no_gso});
        cb_addr to = with_port(rows[r].to, server);
        cb_addr from = address(rows[r].remote);
        in.echo = true;
        size_t sent = 0;
        for (unsigned ecn = 0; ecn < 4; ecn++) {
            uint8_t *p = cb_udp_reserve(client, 50 * 1200);
            cr_assert_not_null(p);
            size_t len = fill_train(p, 40, 1200, 7);
            cb_udp_commit(client, &from, &to, ecn, len, 1200);
            sent += len;
        }
        run_until(loop, &out, 4 * 41); /* everything came back */
        cr_assert(in.count == 4 * 41 && in.bytes == sent && out.bytes == sent);
        for (size_t i = 0; i < in.count; i++) {
            cr_expect(in.got[i].len == (i % 41 == 40 ? 7 : 1200), "row %zu: datagram %zu has %zu bytes", r, i,
                      in.got[i].len);
            cr_expect(in.got[i].first == i % 41 && in.got[i].last == i % 41);
            cr_expect_eq(in.got[i].ecn, i / 41, "row %zu: ECN %u of datagram %zu", r, in.got[i].ecn, i);
            cr_expect_str_eq(cb_addr_host(&in.got[i].local, text), rows[r].local);
            cr_expect_str_eq(cb_addr_host(&in.got[i].remote, text), rows[r].remote);
            cr_expect_eq(cb_addr_port(&in.got[i].local), cb_addr_port(cb_udp_local(server)));
            cr_expect_eq(cb_addr_port(&in.got[i].remote), cb_addr_port(cb_udp_local(client)));
            cr_expect(in.got[i].remote.sa.sa_family == from.sa.sa_family);
            cr_expect_str_eq(cb_addr_host(&out.got[i].remote, text),
                             rows[r].local); /* answers leave from where we sent to */
        }
        const cb_udp_stats *st = cb_udp_stats_get(client);
        cr_expect_eq(st->gso, !rows[r].no_gso);
        cr_expect_eq(cb_udp_stats_get(server)->gro, !rows[r].no_gro);
        cr_expect(st->tx_datagrams == 4 * 41 && st->tx_bytes == sent && st->tx_dropped == 0);
        cr_expect(st->rx_datagrams == 4 * 41 && st->rx_bytes == sent);
        cr_expect(st->tx_calls == (rows[r].no_gso ? 3 : 1), "row %zu: %llu calls", r, (unsigned long long)st->tx_calls);
        cr_expect(in.batches > 0 && st->rcvbuf > 0 && st->sndbuf > 0 && st->ecn);
        const char *const ways[] = {"in", "out"}, *const marks[] = {"not_ect", "ect_1", "ect_0", "ce"};
        for (size_t i = 0; i < 2; i++) {
            EXPECT_MOVED(m, 2 * 4 * 41, "cb_udp_socket_datagrams", ways[i]);
            EXPECT_MOVED(m, 2 * sent, "cb_udp_socket_bytes", ways[i]);
            cr_expect(moved_sum(m, "cb_udp_socket_batch_datagrams", ways[i], NULL) == 2 * 4 * 41);
        }
        for (size_t i = 0; i < 4; i++)
            EXPECT_MOVED(m, 2 * 41, "cb_udp_socket_received_marks", marks[i]);
        EXPECT_MOVED(m, rows[r].no_gso ? 0 : 4, "cb_udp_socket_segmented_messages", "out");
        if (r == 0) EXPECT_MOVED_IN(m, 4, 8, "cb_udp_socket_segmented_messages", "in");
        EXPECT_MOVED(m, 2, "cb_udp_open_sockets");
        cb_udp_close(client);
        cb_udp_close(server);
        EXPECT_MOVED(m, 0, "cb_udp_open_sockets");
        cb_loop_free(loop);
        cb_metrics_unref(m);
    }
}

Test(udp, single_packets_of_a_path_leave_as_one_train_if_asked) {
    for (int merge = 0; merge < 2; merge++) {
        cb_loop *loop = NULL;
        sink in = {0}, out = {0};
        cb_loop_new(&loop, NULL);
        cb_udp *server = open_udp(loop, "127.0.0.1:0", &in, (cb_udp_opts){0});
        cb_udp *client = open_udp(loop, "127.0.0.1:0", &out, (cb_udp_opts){.merge = merge});
        /* 1000 1000 600 | 900 | 1400: a shorter one ends a train, a longer one begins another. */
        static const size_t sizes[] = {1000, 1000, 600, 900, 1400};
        fault.messages = 0;
        for (size_t i = 0; i < 5; i++) {
            uint8_t *p = cb_udp_reserve(client, 1500);
            memset(p, (int)i, sizes[i]);
            cb_udp_commit(client, NULL, cb_udp_local(server), 0, sizes[i], 0);
        }
        cb_udp_commit(client, NULL, cb_udp_local(server), 0, 0, 0); /* nothing: nothing */
        cb_udp_flush(client);
        cr_assert_eq(cb_udp_stats_get(client)->tx_calls, 1);
        cr_assert_eq(fault.messages, merge ? 3 : 5, "%d messages", fault.messages);
        run_until(loop, &in, 5);
        for (size_t i = 0; i < 5; i++)
            cr_expect(in.got[i].len == sizes[i] && in.got[i].first == i);
        cr_expect(cb_udp_stats_get(client)->tx_datagrams == 5);
        cb_udp_close(client);
        cb_udp_close(server);
        cb_loop_free(loop);
    }
}

Test(udp, very_long_trains_are_cut_at_the_kernels_limits) {
    static const struct {
        size_t segment, len;
    } rows[] = {{1200, 64800}, {100, 20000}, {1472, 65000}, {64999, 65000}, {65000, 65000}, {1, 300}};
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
        cb_loop *loop = NULL;
        sink in = {0}, out = {0};
        cb_loop_new(&loop, NULL);
        cb_udp *server = open_udp(loop, "127.0.0.1:0", &in, (cb_udp_opts){0});
        cb_udp *client = open_udp(loop, "127.0.0.1:0", &out, (cb_udp_opts){0});
        cr_assert_null(cb_udp_reserve(client, 65001));
        uint8_t *p = cb_udp_reserve(client, rows[r].len);
        memset(p, 'q', rows[r].len);
        cb_udp_commit(client, NULL, cb_udp_local(server), 0, rows[r].len, rows[r].segment);
        run_until(loop, &in, (rows[r].len + rows[r].segment - 1) / rows[r].segment);
        cr_expect(in.bytes == rows[r].len && cb_udp_stats_get(client)->tx_dropped == 0, "row %zu", r);
        cr_expect(cb_udp_stats_get(client)->gso);
        cb_udp_close(client);
        cb_udp_close(server);
        cb_loop_free(loop);
    }
}

Test(udp, without_segmentation_offload_it_goes_on_one_by_one) {
    static const struct {
        int err;
        bool real; /* by a socket without checksums, where the kernel refuses segments */
    } rows[] = {{0, true}, {EIO, false}, {EINVAL, false}};
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
        cb_metrics *m;
        cb_loop *loop = counting(&m);
        sink in = {0}, out = {0};
        int on = 1;
        cb_udp *server = open_udp(loop, "127.0.0.1:0", &in, (cb_udp_opts){0});
        cb_udp *client = open_udp(loop, "127.0.0.1:0", &out, (cb_udp_opts){0});
        if (rows[r].real)
            cr_assert_eq(setsockopt(cb_udp_fd(client), SOL_SOCKET, SO_NO_CHECK, &on, sizeof on), 0);
        else
            fault.err = rows[r].err, fault.times = 1000, fault.only_segmented = 1;
        for (int k = 0; k < 2; k++) {
            uint8_t *p = cb_udp_reserve(client, 13000);
            size_t len = fill_train(p, 10, 1200, 500);
            cb_udp_commit(client, NULL, cb_udp_local(server), 2, len, 1200);
            run_until(loop, &in, (size_t)(k + 1) * 11);
        }
        for (size_t i = 0; i < 22; i++)
            cr_expect(in.got[i].first == i % 11 && in.got[i].ecn == 2);
        cr_expect(!cb_udp_stats_get(client)->gso && cb_udp_stats_get(client)->tx_dropped == 0, "row %zu", r);
        fault.times = fault.only_segmented = 0;
        cb_udp_close(client);
        cb_udp_close(server);
        EXPECT_MOVED(m, 1, "cb_udp_socket_segmentation_refusals");
        cb_loop_free(loop);
        cb_metrics_unref(m);
    }
}

Test(udp, an_error_drops_its_message_only) {
    cb_metrics *m;
    cb_loop *loop = counting(&m);
    sink in = {0}, out = {0};
    cb_udp *server = open_udp(loop, "127.0.0.1:0", &in, (cb_udp_opts){0});
    cb_udp *client = open_udp(loop, "127.0.0.1:0", &out, (cb_udp_opts){0});
    cb_addr nowhere = address("255.255.255.255:9"), port0 = address("127.0.0.1:0");
    const cb_addr *to[] = {cb_udp_local(server), &nowhere, &port0, cb_udp_local(server)};
    for (size_t i = 0; i < 4; i++) {
        uint8_t *p = cb_udp_reserve(client, 4000);
        memset(p, (int)i, 4000);
        cb_udp_commit(client, NULL, to[i], 0, 4000, 1000);
    }
    run_until(loop, &in, 8);
    cr_assert(in.got[0].first == 0 && in.got[4].first == 3);
    cr_assert_eq(cb_udp_stats_get(client)->tx_dropped, 8);
    cr_assert(cb_udp_stats_get(client)->gso, "a bad address must not switch segmentation off");

    static const int errs[] = {ECONNREFUSED, EHOSTUNREACH, EMSGSIZE, EPERM, ENOBUFS};
    for (size_t i = 0; i < sizeof errs / sizeof *errs; i++) {
        fault.err = errs[i], fault.times = 1;
        for (size_t k = 0; k < 2; k++) {
            uint8_t *p = cb_udp_reserve(client, 100);
            memset(p, (int)k, 100);
            cb_udp_commit(client, NULL, cb_udp_local(server), (unsigned)k, 100, 100);
        }
        run_until(loop, &in, 8 + i + 1);
        cr_expect(in.got[8 + i].first == 1);
        cr_expect_eq(cb_udp_stats_get(client)->tx_dropped, 8 + i + 1, "errno %d", errs[i]);
    }
    cb_udp_close(client);
    cb_udp_close(server);
    EXPECT_MOVED(m, 2, "cb_udp_socket_dropped_datagrams", "unreachable");
    EXPECT_MOVED(m, 4 + 1, "cb_udp_socket_dropped_datagrams", "forbidden"); /* a broadcast, EPERM */
    EXPECT_MOVED(m, 1, "cb_udp_socket_dropped_datagrams", "too_big");
    EXPECT_MOVED(m, 4 + 1, "cb_udp_socket_dropped_datagrams", "other"); /* port 0, ENOBUFS */
    cb_loop_free(loop);
    cb_metrics_unref(m);
}

Test(udp, a_full_socket_keeps_what_it_has_and_says_when_there_is_room) {
    cb_metrics *m;
    cb_loop *loop = counting(&m);
    sink in = {0}, out = {0};
    cb_udp *server = open_udp(loop, "127.0.0.1:0", &in, (cb_udp_opts){0});
    cb_udp *client = open_udp(loop, "127.0.0.1:0", &out, (cb_udp_opts){0});
    uint8_t *p = cb_udp_reserve(client, 3000);
    fill_train(p, 2, 1000, 1000);
    cb_udp_commit(client, NULL, cb_udp_local(server), 0, 3000, 1000);
    fault.err = EAGAIN, fault.times = 3;
    cb_udp_flush(client);
    cr_assert_null(cb_udp_reserve(client, 1));
    cb_udp_flush(client); /* waits for the socket: no call */
    cr_assert_eq(fault.times, 2);
    cr_assert_eq(cb_loop_run(loop), CB_OK); /* until on_writable */
    cr_assert(out.writables == 1 && fault.times == 0);
    cr_assert_not_null(cb_udp_reserve(client, 1));
    run_until(loop, &in, 3);
    cr_assert(in.got[2].first == 2);
    run_some(loop);
    cr_assert_eq(out.writables, 1);
    cr_assert_eq(cb_udp_stats_get(client)->tx_dropped, 0);

    fault.err = EAGAIN, fault.times = 1; /* closed while full: dropped without a word */
    p = cb_udp_reserve(client, 10);
    memset(p, 0, 10);
    cb_udp_commit(client, NULL, cb_udp_local(server), 0, 10, 10);
    cb_udp_flush(client);
    cb_udp_close(client);
    cb_udp_close(client);
    cr_assert_null(cb_udp_reserve(client, 10)); /* dead, but its memory lives until the turn ends */
    run_some(loop);
    cr_assert_eq(in.count, 3);
    cb_udp_close(server);
    EXPECT_MOVED(m, 4, "cb_udp_socket_blocks");
    cb_loop_free(loop);
    cb_metrics_unref(m);
    fault.times = 0;
}

Test(udp, more_than_the_area_holds_leaves_in_several_calls) {
    cb_loop *loop = NULL;
    sink in = {0}, out = {0};
    cb_loop_new(&loop, NULL);
    cb_udp *server = open_udp(loop, "127.0.0.1:0", &in, (cb_udp_opts){0});
    cb_udp *client = open_udp(loop, "127.0.0.1:0", &out, (cb_udp_opts){0});
    for (int i = 0; i < 8; i++) {
        uint8_t *p = cb_udp_reserve(client, 60000);
        cr_assert_not_null(p);
        memset(p, i, 60000);
        cb_udp_commit(client, NULL, cb_udp_local(server), 0, 60000, 30000);
        if (i == 5) run_until(loop, &in, 12); /* small receive buffers must not lose anything here */
    }
    run_until(loop, &in, 16);
    for (size_t i = 0; i < 16; i++)
        cr_expect(in.got[i].first == i / 2);
    for (int i = 0; i < 700; i++) { /* more single trains than the table has places */
        uint8_t *p = cb_udp_reserve(client, 2);
        memset(p, i % 2, 2);
        cb_udp_commit(client, NULL, cb_udp_local(server), i % 2 ? 1 : 2, 2, 1);
        if (i % 100 == 99) run_until(loop, &in, 16 + (size_t)(i + 1) * 2);
    }
    cr_expect(cb_udp_stats_get(client)->tx_dropped == 0);
    cb_udp_close(client);
    cb_udp_close(server);
    cb_loop_free(loop);
}

Test(udp, the_receiver_may_stop_or_close_inside_a_train) {
    for (int how = 0; how < 2; how++) {
        cb_loop *loop = NULL;
        sink in = {0}, out = {0};
        cb_loop_new(&loop, NULL);
        cb_udp *server = open_udp(loop, "127.0.0.1:0", &in, (cb_udp_opts){0});
        cb_udp *client = open_udp(loop, "127.0.0.1:0", &out, (cb_udp_opts){0});
        in.refuse = how == 0;
        in.close_it = how == 1;
        uint8_t *p = cb_udp_reserve(client, 10000);
        fill_train(p, 9, 1000, 1000);
        cb_udp_commit(client, NULL, cb_udp_local(server), 0, 10000, 1000);
        run_until(loop, &in, 1);
        run_some(loop);
        cr_assert_eq(in.count, 1, "%zu", in.count);
        cb_udp_close(client);
        if (how == 0) cb_udp_close(server);
        cb_loop_free(loop);
    }
}

static int warnings;
static void count_warnings(int level, const char *module, const char *text, void *user) {
    (void)module;
    (void)user;
    warnings += level == CB_LOG_WARN && strstr(text, "net.core.rmem_max") && strstr(text, "net.core.wmem_max");
}

Test(udp, opening) {
    cb_loop *loop = NULL;
    cb_log log = {.write = count_warnings};
    sink s = {0};
    warnings = 0;
    cr_assert_eq(cb_loop_new(&loop, CB_OPTS(cb_loop_opts, .log = &log)), CB_OK);
    uint32_t huge = 256U << 20;
    cb_udp *a = open_udp(loop, "127.0.0.1:0", &s, (cb_udp_opts){.rcvbuf_bytes = huge, .sndbuf_bytes = huge});
    cb_udp *b = NULL, *c = NULL;
    cb_udp *d = open_udp(loop, "127.0.0.1:0", &s, (cb_udp_opts){.rcvbuf_bytes = huge, .sndbuf_bytes = huge});
    const cb_udp_stats *st = cb_udp_stats_get(a);
    cr_expect_eq(warnings, st->rcvbuf < huge || st->sndbuf < huge); /* one for both sockets */
    cb_udp_opts o = {.bind = *cb_udp_local(a), .on_datagram = keep, .user = &s};
    cr_expect_eq(cb_udp_open(&b, loop, &o), CB_EEXIST);
    cr_expect(strstr(cb_last_error(), "127.0.0.1:") && !b);
    o.on_datagram = NULL;
    cr_expect_eq(cb_udp_open(&b, loop, &o), CB_EINVAL);
    o = (cb_udp_opts){.on_datagram = keep};
    cr_expect_eq(cb_udp_open(&b, loop, &o), CB_EINVAL);
    o.bind = address("192.0.2.77:0"); /* not ours */
    cr_expect_eq(cb_udp_open(&b, loop, &o), CB_ESYS);
    b = open_udp(loop, "127.0.0.1:0", &s, (cb_udp_opts){.reuseport = true, .no_ecn = true, .no_pmtud = true});
    o = (cb_udp_opts){.bind = *cb_udp_local(b), .on_datagram = keep, .user = &s, .reuseport = true};
    cr_expect_eq(cb_udp_open(&c, loop, &o), CB_OK);
    cr_expect(!cb_udp_stats_get(b)->ecn && cb_udp_stats_get(c)->ecn);
    cb_udp *all[] = {a, b, c, d, NULL};
    for (size_t i = 0; i < 5; i++)
        cb_udp_close(all[i]);
    cr_assert_eq(cb_loop_run(loop), CB_OK); /* nothing keeps it alive but the graves */
    cb_loop_free(loop);
}

typedef struct refusals {
    sink in; /* first: what open_udp() hands to the other callbacks */
    int count, err;
    cb_addr remote;
    uint8_t first;
    size_t len;
} refusals;

static void unreachable(cb_udp *u, int err, const cb_addr *remote, cb_slice quote, void *user) {
    refusals *r = user;
    (void)u;
    r->count++;
    r->err = err;
    r->remote = *remote;
    r->len = quote.len;
    if (quote.len) r->first = quote.base[0];
}

static void say(cb_udp *u, const cb_addr *to, uint8_t byte) {
    uint8_t *p = cb_udp_reserve(u, 1200);
    cr_assert_not_null(p);
    memset(p, byte, 1200);
    cb_udp_commit(u, NULL, to, 0, 1200, 1200);
    cb_udp_flush(u);
}

Test(udp, who_asks_for_it_hears_that_nobody_is_there) {
    static const struct {
        const char *bind, *host;
        bool v6;
    } rows[] = {{"127.0.0.1:0", "127.0.0.1:0", false}, {"[::1]:0", "[::1]:0", true}, {"[::]:0", "127.0.0.1:0", true}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cb_metrics *m;
        sink in = {0};
        refusals r = {0};
        if (rows[i].v6 && !has_ipv6()) continue;
        cb_loop *loop = counting(&m);
        cb_udp *server = open_udp(loop, rows[i].host, &in, (cb_udp_opts){0});
        cb_udp *gone = open_udp(loop, rows[i].host, &in, (cb_udp_opts){0});
        cb_udp *client = open_udp(loop, rows[i].bind, &r.in, (cb_udp_opts){.on_unreachable = unreachable});
        cb_addr nobody = *cb_udp_local(gone);
        cb_udp_close(gone);
        for (uint8_t k = 1; k < 10; k += 2) { /* the error of one packet must not cost the one after it */
            say(client, &nobody, k);
            say(client, cb_udp_local(server), (uint8_t)(k + 1));
        }
        run_until(loop, &in, 5);
        run_some(loop);
        cr_expect_eq(in.count, 5, "row %zu: %zu came", i, in.count);
        cr_expect_eq(cb_udp_stats_get(client)->tx_dropped, 0, "row %zu", i);
        cr_expect_eq(r.count, 5, "row %zu: told %d times", i, r.count);
        cr_expect_eq(r.err, ECONNREFUSED, "row %zu", i);
        cr_expect(cb_addr_equal(&r.remote, &nobody), "row %zu: another address", i);
        cr_expect_eq(r.first, 9, "row %zu: another packet", i);
        cr_expect_gt(r.len, 100, "row %zu: %zu bytes of it", i, r.len);
        uint64_t calls = cb_udp_stats_get(client)->rx_calls;
        run_some(loop);
        cr_expect_eq(cb_udp_stats_get(client)->rx_calls, calls, "row %zu: it is woken again and again", i);
        cb_udp_close(client);
        cb_udp_close(server);
        EXPECT_MOVED(m, 5, "cb_udp_socket_icmp_errors", "refused");
        cb_loop_free(loop);
        cb_metrics_unref(m);
    }
}

Test(udp, no_route_is_told_too) {
    cb_loop *loop = NULL;
    refusals r = {0};
    cb_loop_new(&loop, NULL);
    cb_udp *client = open_udp(loop, "127.0.0.1:0", &r.in, (cb_udp_opts){.on_unreachable = unreachable});
    fault.err = ENETUNREACH, fault.times = 1;
    cb_addr to = address("127.0.0.1:9");
    say(client, &to, 7);
    cr_expect_eq(r.count, 1);
    cr_expect_eq(r.err, ENETUNREACH);
    cr_expect_eq(r.first, 7);
    fault.err = EPERM, fault.times = 1;
    say(client, &to, 8);
    cr_expect_eq(r.count, 1, "not every error says that nobody is there");
    cr_expect_eq(cb_udp_stats_get(client)->tx_dropped, 2);
    cb_udp_close(client);
    cb_loop_free(loop);
}

/* Which ICMP error there was is up to routers that no test has: their errno values are. */
Test(udp, icmp_errors_are_told_apart) {
    static const struct {
        int err;
        const char *error;
    } rows[] = {{ECONNREFUSED, "refused"},
                {EHOSTUNREACH, "unreachable"},
                {ENETUNREACH, "unreachable"},
                {EMSGSIZE, "too_big"},
                {EACCES, "other"}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cb_metrics *m;
        cb_loop *loop = counting(&m);
        cb_udp_count_icmp(cb_loop_cells(loop), rows[i].err);
        EXPECT_MOVED(m, 1, "cb_udp_socket_icmp_errors", rows[i].error);
        cb_loop_free(loop);
        cb_metrics_unref(m);
    }
}
