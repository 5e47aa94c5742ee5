#include "loop/tcp.h"
#include "support/moved.h"
#include <criterion/criterion.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

typedef struct hall {
    cb_loop *loop;
    int accepted, expected;
    int fds[256];
    cb_addr remote;
    bool free_it, pause_it;
    int result, results;
    const char *detail;
} hall;

static void on_guest(cb_tcp_listener *l, int fd, const cb_addr *remote, void *user) {
    hall *h = user;
    h->fds[h->accepted++] = fd;
    h->remote = *remote;
    if (h->free_it) cb_tcp_listener_free(l);
    if (h->pause_it) cb_tcp_listener_pause(l, true);
    if (h->accepted >= h->expected) cb_loop_stop(h->loop);
}

static void on_result(int fd_or_rc, void *user) {
    hall *h = user;
    h->result = fd_or_rc;
    h->results++;
    if (fd_or_rc < 0) cb_loop_stop(h->loop);
}

static cb_addr address(const char *text) {
    cb_addr a;
    cr_assert_eq(cb_addr_parse(&a, text, 0), CB_OK, "%s", cb_last_error());
    return a;
}

static cb_loop *counting(cb_metrics **m, const cb_log *log) {
    cb_loop *loop = NULL;
    cr_assert_eq(cb_metrics_new(m, NULL), CB_OK);
    cr_assert_eq(cb_loop_new(&loop, CB_OPTS(cb_loop_opts, .metrics = *m, .log = log)), CB_OK, "%s", cb_last_error());
    return loop;
}

static cb_tcp_listener *listen_on(cb_loop *loop, const char *bind, hall *h, cb_tcp_listener_opts o) {
    cb_tcp_listener *l = NULL;
    h->loop = loop;
    o.bind = address(bind);
    o.on_accept = on_guest;
    o.user = h;
    cr_assert_eq(cb_tcp_listen(&l, loop, &o), CB_OK, "%s", cb_last_error());
    return l;
}

static cb_addr with_port(const char *host, const cb_tcp_listener *l) {
    cb_addr a = address(host);
    cb_addr_set_port(&a, cb_addr_port(cb_tcp_listener_local(l)));
    return a;
}

static void give_up(cb_loop *loop, void *user) {
    *(bool *)user = true;
    cb_loop_stop(loop);
}

static void run_until(cb_loop *loop, hall *h, int expected) {
    cb_timer *t = NULL;
    bool late = false;
    h->expected = expected;
    cb_timer_start(&t, loop, 2000, 0, give_up, &late);
    if (h->accepted < expected) cb_loop_run(loop);
    cb_timer_free(t);
    cr_assert(!late, "%d of %d connections came", h->accepted, expected);
}

static void close_all(hall *h) {
    for (int i = 0; i < h->accepted; i++)
        close(h->fds[i]);
}

static int plain_client(const cb_addr *to) {
    int fd = socket(to->sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(connect(fd, &to->sa, cb_addr_len(to)), 0);
    return fd;
}

static bool has_ipv6(void) {
    int fd = socket(AF_INET6, SOCK_STREAM, 0);
    struct sockaddr_in6 a = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    bool yes = fd >= 0 && bind(fd, (struct sockaddr *)&a, sizeof a) == 0;
    if (fd >= 0) close(fd);
    return yes;
}

Test(tcp, connecting_and_accepting_in_both_families) {
    static const struct {
        const char *bind, *to, *remote;
        int family;
    } rows[] = {{"127.0.0.1:0", "127.0.0.1:0", "127.0.0.1", AF_INET},
                {"[::1]:0", "[::1]:0", "::1", AF_INET6},
                {"[::]:0", "127.0.0.1:0", "127.0.0.1", AF_INET}};
    bool v6 = has_ipv6();
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (rows[i].bind[0] == '[' && !v6) continue;
        cb_metrics *m;
        cb_loop *loop = counting(&m, NULL);
        hall h = {0};
        char text[CB_ADDR_TEXT];
        int nodelay = 0;
        socklen_t len = sizeof nodelay;
        cb_tcp_listener *l = listen_on(loop, rows[i].bind, &h, (cb_tcp_listener_opts){.fastopen = true});
        cb_addr to = with_port(rows[i].to, l);
        cb_tcp_connector *c = NULL;
        cr_assert_eq(cb_tcp_connect(&c, loop, &to, CB_SEC, on_result, &h), CB_OK);
        run_until(loop, &h, 1);
        while (!h.results)
            cb_loop_step(loop);
        cr_assert(h.result >= 0);
        cr_expect_str_eq(cb_addr_host(&h.remote, text), rows[i].remote);
        cr_expect_eq(h.remote.sa.sa_family, rows[i].family);
        cr_assert_eq(getsockopt(h.fds[0], IPPROTO_TCP, TCP_NODELAY, &nodelay, &len), 0);
        cr_expect(nodelay == 1);
        cr_assert_eq(write(h.result, "hi", 2), 2);
        while (read(h.fds[0], text, sizeof text) != 2)
            continue;
        close(h.result);
        close_all(&h);
        cb_tcp_listener_free(l);
        cr_assert_eq(cb_loop_run(loop), CB_OK);
        EXPECT_MOVED(m, 1, "cb_tcp_listener_accepted_connections");
        EXPECT_MOVED(m, 1, "cb_tcp_connects", "ok");
        EXPECT_MOVED(m, 1, "cb_tcp_connect_seconds");
        cb_loop_free(loop);
        cb_metrics_unref(m);
    }
}

Test(tcp, refused_cancelled_and_silent) {
    cb_metrics *m;
    cb_loop *loop = counting(&m, NULL);
    hall h = {0};
    cb_tcp_connector *c = NULL;
    h.loop = loop;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cb_addr to = address("127.0.0.1:0");
    socklen_t len = sizeof to;
    cr_assert(bind(fd, &to.sa, cb_addr_len(&to)) == 0 && getsockname(fd, &to.sa, &len) == 0);

    int rc = cb_tcp_connect(&c, loop, &to, CB_SEC, on_result, &h);
    if (rc == CB_OK) {
        cb_loop_run(loop);
        rc = h.result;
        cr_expect_eq(h.results, 1);
    }
    cr_expect_eq(rc, CB_EUNREACH);
    cr_expect(strstr(cb_last_error(), "127.0.0.1:"));

    /* A listener that accepts nobody: once its queue is full, the kernel answers no more. */
    cr_assert_eq(listen(fd, 0), 0);
    int fill[2] = {plain_client(&to), -1};
    h = (hall){.loop = loop};
    cb_tcp_connector *many[8];
    for (int i = 0; i < 8; i++)
        cr_assert_eq(cb_tcp_connect(&many[i], loop, &to, 20 * CB_MS, on_result, &h), CB_OK);
    cb_tcp_connect_cancel(many[0]);
    cb_tcp_connect_cancel(many[0]);
    cb_loop_run(loop);
    cr_expect_eq(h.result, CB_ETIMEOUT);
    cr_expect(strstr(cb_last_error(), "20 ms"));
    cb_loop_run(loop); /* the rest, until nothing is left */
    cb_loop_run(loop);
    while (cb_loop_alive(loop))
        cb_loop_run(loop);
    cr_expect(h.results == 7, "%d results", h.results);
    close(fill[0]);
    close(fd);

    to = address("255.255.255.255:9"); /* TCP goes to one host */
    cr_expect_eq(cb_tcp_connect(&c, loop, &to, CB_SEC, on_result, &h), CB_EUNREACH);
    EXPECT_MOVED(m, 1, "cb_tcp_connects", "unreachable");
    to = (cb_addr){.sa = {.sa_family = AF_UNSPEC}};
    cr_expect(cb_tcp_connect(&c, loop, &to, CB_SEC, on_result, &h) < 0);
    EXPECT_MOVED(m, 1, "cb_tcp_connects", "refused");
    EXPECT_MOVED(m, 1, "cb_tcp_connects", "cancelled");
    const double ok = moved(m, "cb_tcp_connects", "ok", NULL), timeouts = moved(m, "cb_tcp_connects", "timeout", NULL);
    cr_expect(ok + timeouts == 7 && timeouts >= 5, "%g in time, %g not", ok, timeouts);
    cb_loop_free(loop);
    cb_metrics_unref(m);
}

Test(tcp, a_paused_listener_takes_nobody_until_it_goes_on) {
    cb_metrics *m;
    cb_loop *loop = counting(&m, NULL);
    hall h = {.pause_it = true};
    int clients[5];
    cb_tcp_listener *l = listen_on(loop, "127.0.0.1:0", &h, (cb_tcp_listener_opts){0});
    cb_addr to = *cb_tcp_listener_local(l);
    for (int i = 0; i < 5; i++)
        clients[i] = plain_client(&to);
    run_until(loop, &h, 1);
    for (int i = 0; i < 5; i++)
        cb_loop_step(loop);
    cr_assert_eq(h.accepted, 1);
    cb_tcp_listener_pause(l, true);
    h.pause_it = false;
    cb_tcp_listener_pause(l, false);
    run_until(loop, &h, 5);
    for (int i = 0; i < 5; i++)
        close(clients[i]);
    close_all(&h);
    cb_tcp_listener_free(l);
    EXPECT_MOVED(m, 1, "cb_tcp_listener_pauses");
    EXPECT_MOVED(m, 5, "cb_tcp_listener_accepted_connections");
    cb_loop_free(loop);
    cb_metrics_unref(m);
}

static int complaints;
static void count_complaints(int level, const char *module, const char *text, void *user) {
    (void)user;
    complaints += level == CB_LOG_WARN && !strcmp(module, "tcp") && strstr(text, "Too many open files");
}

Test(tcp, out_of_descriptors_it_rests_and_goes_on_by_itself) {
    cb_metrics *m;
    cb_log log = {.write = count_complaints};
    hall h = {0};
    struct rlimit old, low;
    complaints = 0;
    cb_loop *loop = counting(&m, &log);
    cb_tcp_listener *l = listen_on(loop, "127.0.0.1:0", &h, (cb_tcp_listener_opts){0});
    while (cb_loop_timeout_ms(loop) == 0)
        cb_loop_step(loop);
    int client = plain_client(cb_tcp_listener_local(l));
    cr_assert_eq(getrlimit(RLIMIT_NOFILE, &old), 0);
    int probe = dup(client);
    low = (struct rlimit){(rlim_t)probe, old.rlim_max};
    close(probe);
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &low), 0);
    for (int i = 0; i < 10; i++)
        cb_loop_step(loop);
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &old), 0);
    cr_assert(complaints == 1 && h.accepted == 0, "%d %d", complaints, h.accepted);
    run_until(loop, &h, 1);
    close(client);
    close_all(&h);
    cb_tcp_listener_free(l);
    EXPECT_MOVED(m, 1, "cb_tcp_listener_errors", "descriptors");
    cb_loop_free(loop);
    cb_metrics_unref(m);
}

Test(tcp, freeing_inside_and_many_at_once) {
    cb_loop *loop = NULL;
    hall h = {0}, once = {.free_it = true};
    int clients[150];
    cb_loop_new(&loop, NULL);
    cb_tcp_listener *l = listen_on(loop, "127.0.0.1:0", &h, (cb_tcp_listener_opts){0});
    for (int i = 0; i < 150; i++)
        clients[i] = plain_client(cb_tcp_listener_local(l));
    cb_loop_step(loop);
    cr_assert(h.accepted > 0 && h.accepted <= 64, "one turn took %d", h.accepted);
    run_until(loop, &h, 150);
    for (int i = 0; i < 150; i++)
        close(clients[i]);
    close_all(&h);
    cb_tcp_listener_free(l);

    l = listen_on(loop, "127.0.0.1:0", &once, (cb_tcp_listener_opts){0});
    clients[0] = plain_client(cb_tcp_listener_local(l));
    clients[1] = plain_client(cb_tcp_listener_local(l));
    run_until(loop, &once, 1);
    cr_assert_eq(cb_loop_run(loop), CB_OK);
    cr_assert_eq(once.accepted, 1);
    close(clients[0]);
    close(clients[1]);
    close_all(&once);
    cb_loop_free(loop);
}

Test(tcp, opening) {
    cb_loop *loop = NULL;
    hall h = {0};
    cb_tcp_listener *l = NULL, *same = NULL, *adopted = NULL;
    cb_loop_new(&loop, NULL);
    l = listen_on(loop, "127.0.0.1:0", &h, (cb_tcp_listener_opts){0});
    cb_tcp_listener_opts o = {.bind = *cb_tcp_listener_local(l), .on_accept = on_guest, .user = &h};
    cr_expect_eq(cb_tcp_listen(&same, loop, &o), CB_EEXIST);
    cr_expect(strstr(cb_last_error(), "127.0.0.1:"));
    o.bind.sa.sa_family = AF_UNIX;
    cr_expect_eq(cb_tcp_listen(&same, loop, &o), CB_EINVAL);
    o = (cb_tcp_listener_opts){.on_accept = on_guest, .user = &h, .fd = dup(cb_tcp_listener_fd(l))};
    cr_assert_eq(cb_tcp_listen(&adopted, loop, &o), CB_OK);
    cr_expect(cb_addr_equal(cb_tcp_listener_local(adopted), cb_tcp_listener_local(l)));
    cb_tcp_listener_free(l);
    int client = plain_client(cb_tcp_listener_local(adopted));
    run_until(loop, &h, 1);
    o.fd = client; /* a socket, but not a listening one: refused, and still the caller's */
    cr_expect_eq(cb_tcp_listen(&same, loop, &o), CB_EINVAL);
    cr_expect_eq(close(client), 0);
    close_all(&h);
    cb_tcp_listener_free(adopted);
    cb_tcp_listener_free(NULL);
    cb_loop_free(loop);
}
