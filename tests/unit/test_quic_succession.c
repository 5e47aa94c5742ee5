/* A server's place is taken by another one, in this process or as if in another: connections stay with whom they began,
 * new ones come to the successor. */
#include "support/quic_fixture.h"
#include "transport/quic_endpoint_int.h"
#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#ifdef CB_HAVE_XDP
#include <cb/xdp.h>
#endif

typedef struct succession {
    qt_world w;
    cb_group *before, *after;
    cb_quic_endpoint *old, *young;
    qt_side taken; /* what the successor was told */
    cb_quic_conn *kept;
} succession;

static cb_quic_endpoint_stats stats_of(const cb_quic_endpoint *e) {
    cb_quic_endpoint_stats s = {.size = sizeof s};
    cb_quic_endpoint_stats_get(e, &s);
    return s;
}

static void open_old(succession *s, const cb_steering_hook *hook) {
    memset(s, 0, sizeof *s);
    qt_world_make(&s->w);
    cr_assert_eq(cb_group_new(&s->before, CB_OPTS(cb_group_opts, .workers = 2, .generation = 254, .steering = hook)),
                 CB_OK);
    cb_quic_opts so = qt_server_opts(&s->w), co = qt_client_opts(&s->w);
    so.group = s->before;
    qt_listen(&s->w, &so);
    s->old = s->w.server.endpoint;
    s->w.server.echo = true;
    qt_client_open(&s->w, &co);
    qt_connect(&s->w);
    cr_assert(qt_until(&s->w, &s->w.client.handshakes, 1));
    cr_assert(qt_until(&s->w, &s->w.server.handshakes, 1));
    s->kept = s->w.client.conn;
}

static void open_young(succession *s, const int32_t *fds, uint32_t n) {
    cb_quic_opts o = qt_server_opts(&s->w);
    s->taken = (qt_side){.w = &s->w, .echo = true, .take = SIZE_MAX};
    o.group = s->after;
    o.user = &s->taken;
    o.at_rest = 1;
    o.fds = fds;
    o.n_fds = n;
    int rc = cb_quic_listen(&s->young, s->w.loop, s->w.remote, &o);
    cr_assert_eq(rc, CB_OK, "%s", cb_last_error());
    cr_assert_str_eq(cb_quic_endpoint_local(s->young), s->w.remote);
}

/* The old connection works, and nobody resets it. */
static void kept_works(succession *s) {
    cb_quic_conn *latest = s->w.client.conn;
    int fins = s->w.client.fins;
    s->w.client.conn = s->kept;
    qt_send(&s->w.client, 60000);
    cr_assert(qt_until(&s->w, &s->w.client.fins, fins + 1), "the old connection: %s", s->w.client.detail);
    s->w.client.conn = latest;
    cr_assert_eq(s->w.client.closes, 0, "%s", s->w.client.detail);
}

static void connect_new(succession *s) {
    int before = s->w.client.handshakes;
    qt_connect(&s->w);
    cr_assert(qt_until(&s->w, &s->w.client.handshakes, before + 1), "a new connection: %s", s->w.client.detail);
    int fins = s->w.client.fins;
    qt_send(&s->w.client, 60000);
    cr_assert(qt_until(&s->w, &s->w.client.fins, fins + 1), "a new connection: %s", s->w.client.detail);
}

/* A first packet that still comes to the old one, as from its socket's queue. */
static void first_packet_is_handed_on(succession *s) {
    uint8_t p[1500];
    cb_quic_train t;
    uint64_t before = stats_of(s->young).conns_total;
    qt_connect(&s->w);
    ep_conn *c = CB_CONTAINER(s->w.client.endpoint->conns.prev, ep_conn, all);
    cb_quic_core_write(&c->core, p, sizeof p, cb_loop_now(s->w.loop), &t);
    cb_datagram d = {.local = *cb_quic_endpoint_addr(s->old),
                     .remote = *cb_quic_endpoint_addr(s->w.client.endpoint),
                     .data = p,
                     .len = t.len};
    d.remote.v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int handshakes = s->w.client.handshakes;
    cb_quic_endpoint_packet(s->old, &s->old->main, &d);
    cb_quic_endpoint_batch_end(NULL, &s->old->main);
    cr_assert(qt_until(&s->w, &s->w.client.handshakes, handshakes + 1), "%s", s->w.client.detail);
    cr_assert_eq(stats_of(s->young).conns_total, before + 1);
    cr_assert_eq(stats_of(s->old).refused, 0);
}

static void whole_story(succession *s) {
    kept_works(s); /* the successor is open, and rests */
    connect_new(s);
    cr_assert_eq(stats_of(s->old).conns_total, 2);
    cr_assert_eq(stats_of(s->young).conns_total, 0);
    cb_quic_endpoint_resume(s->young);
    qt_turn(&s->w, 20);
    connect_new(s);
    kept_works(s);
    cb_quic_endpoint_refuse(s->old);
    for (int i = 0; i < 3; i++)
        connect_new(s);
    kept_works(s);
    first_packet_is_handed_on(s);
    cr_assert_eq(stats_of(s->old).conns_total, 2);
    cr_assert_eq(stats_of(s->young).conns_total, 5);
    cr_assert(qt_until(&s->w, &s->taken.handshakes, 5));
    cr_assert_eq(stats_of(s->young).stateless_resets + stats_of(s->old).stateless_resets, 0);
    cr_assert_eq(s->w.client.closes, 0, "%s", s->w.client.detail);
    /* The old one ends; the new one goes on. */
    cb_quic_endpoint_free(s->old);
    s->w.server.endpoint = NULL;
    cr_assert(qt_until(&s->w, &s->w.client.closes, 2));
    s->w.client.closes = 0; /* one record is kept for all connections */
    connect_new(s);
}

static void close_both(succession *s) {
    cb_quic_endpoint_free(s->young);
    qt_turn(&s->w, 5);
    qt_world_drop(&s->w);
    cb_group_unref(s->after);
    cb_group_unref(s->before);
}

Test(quic_succession, in_one_process) {
    static succession s;
    open_old(&s, NULL);
    cr_assert_eq(cb_group_new(&s.after, CB_OPTS(cb_group_opts, .workers = 2, .predecessor = s.before)), CB_OK);
    cr_assert_eq(cb_group_generation(s.after), 255);
    const int32_t fd = fcntl(cb_udp_fd(s.old->main.udp), F_DUPFD_CLOEXEC, 3);
    open_young(&s, &fd, 1);
    whole_story(&s);
    close_both(&s);
}

/* Two groups that know nothing of each other but by handoffs: the same as two processes. */
static void hand_off(succession *s, const cb_steering_hook *hook, bool with_sockets) {
    cb_handoff *there = NULL, *back = NULL;
    int32_t fds[4];
    cr_assert_eq(cb_handoff_new(&there), CB_OK);
    cr_assert_eq(cb_handoff_new(&back), CB_OK);
    cr_assert_eq(cb_quic_endpoint_save(s->old, there, "udp"), CB_OK);
    cr_assert_eq(cb_group_save(s->before, there, "group"), CB_OK);
    cr_assert_eq(cb_group_new(&s->after, CB_OPTS(cb_group_opts, .workers = 2, .handoff = there, .handoff_name = "group",
                                                 .steering = hook)),
                 CB_OK, "%s", cb_last_error());
    cr_assert_eq(cb_group_generation(s->after), 255);
    int n = cb_handoff_fds(there, "udp", fds, 4);
    cr_assert_eq(n, 1);
    fds[0] = with_sockets ? fcntl(fds[0], F_DUPFD_CLOEXEC, 3) : 0;
    open_young(s, with_sockets ? fds : NULL, with_sockets ? 1 : 0);
    cr_assert_eq(cb_group_save(s->after, back, "group"), CB_OK);
    cr_assert_eq(cb_group_meet(s->before, back, "group"), CB_OK, "%s", cb_last_error());
    cr_assert_eq(cb_group_meet(s->before, back, "other"), CB_ENOENT);
    cb_handoff_free(there);
    cb_handoff_free(back);
}

Test(quic_succession, across_processes_in_user_space) {
    static succession s;
    open_old(&s, NULL);
    hand_off(&s, NULL, true);
    whole_story(&s);
    close_both(&s);
}

Test(quic_succession, across_processes_in_the_kernel) {
#ifdef CB_HAVE_XDP
    static succession s;
    cb_steering *first = NULL, *second = NULL;
    int32_t fds[CB_STEERING_FDS];
    int rc = cb_steering_new(&first, NULL);
    if (rc == CB_EPERM || rc == CB_ENOTSUP) cr_skip_test("%s", cb_last_error());
    cb_steering_hook hook = cb_steering_hook_of(first);
    open_old(&s, &hook);
    cr_assert_eq(stats_of(s.old).steering, 1);
    cb_steering_fds(first, fds);
    cr_assert_eq(cb_steering_new(&second, CB_OPTS(cb_steering_opts, .adopt_fds = fds)), CB_OK);
    cb_steering_hook next = cb_steering_hook_of(second);
    hand_off(&s, &next, false);
    cr_assert_eq(stats_of(s.young).steering, 1);
    whole_story(&s);
    close_both(&s);
    cb_steering_free(first);
    cb_steering_free(second);
#else
    cr_skip_test("built without libcb-xdp");
#endif
}

Test(quic_succession, a_fifth_generation_is_refused) {
    qt_world w;
    cb_group *g[6] = {NULL};
    cb_quic_endpoint *e[6] = {NULL};
    qt_world_make(&w);
    cb_quic_opts o = qt_server_opts(&w);
    char listen[64] = "127.0.0.1:0";
    for (int i = 0; i < 4; i++) {
        cb_group_opts go = {.size = sizeof go, .workers = 2, .predecessor = i ? g[i - 1] : NULL};
        cr_assert_eq(cb_group_new(&g[i], &go), CB_OK, "%s", cb_last_error());
        o.group = g[i];
        cr_assert_eq(cb_quic_listen(&e[i], w.loop, listen, &o), CB_OK, "%s", cb_last_error());
        snprintf(listen, sizeof listen, "%s", cb_quic_endpoint_local(e[i]));
    }
    cr_assert_eq(cb_group_new(&g[4], CB_OPTS(cb_group_opts, .predecessor = g[3])), CB_ELIMIT);
    cr_assert(strstr(cb_last_error(), "4 generations"), "%s", cb_last_error());
    cb_quic_endpoint_free(e[1]); /* not the oldest */
    cr_assert_eq(cb_group_new(&g[4], CB_OPTS(cb_group_opts, .predecessor = g[3])), CB_ELIMIT);
    cb_quic_endpoint_free(e[0]);
    cr_assert_eq(cb_group_new(&g[4], CB_OPTS(cb_group_opts, .predecessor = g[3])), CB_OK);
    cb_quic_endpoint_free(e[2]);
    cb_quic_endpoint_free(e[3]);
    for (int i = 0; i < 5; i++)
        cb_group_unref(g[i]);
    qt_turn(&w, 2);
    qt_world_drop(&w);
}

/* Several sockets come to one endpoint: each is read. */
Test(quic_succession, fewer_workers_than_before) {
    enum { CLIENTS = 16 };
    qt_world w;
    cb_quic_endpoint *clients[CLIENTS];
    cb_group *g = NULL, *n = NULL;
    cb_quic_endpoint *old[2] = {NULL}, *young = NULL;
    int32_t fds[2];
    qt_world_make(&w);
    cr_assert_eq(cb_group_new(&g, CB_OPTS(cb_group_opts, .workers = 2)), CB_OK);
    cb_quic_opts o = qt_server_opts(&w), co = qt_client_opts(&w);
    o.group = g;
    snprintf(w.remote, sizeof w.remote, "127.0.0.1:0");
    for (uint32_t i = 0; i < 2; i++) {
        o.worker = i;
        cr_assert_eq(cb_quic_listen(&old[i], w.loop, w.remote, &o), CB_OK, "%s", cb_last_error());
        snprintf(w.remote, sizeof w.remote, "%s", cb_quic_endpoint_local(old[i]));
        fds[i] = fcntl(cb_udp_fd(old[i]->main.udp), F_DUPFD_CLOEXEC, 3);
    }
    cr_assert_eq(cb_group_new(&n, CB_OPTS(cb_group_opts, .predecessor = g)), CB_OK);
    o.group = n;
    o.worker = 0;
    o.fds = fds;
    o.n_fds = 2;
    cr_assert_eq(cb_quic_listen(&young, w.loop, w.remote, &o), CB_OK, "%s", cb_last_error());
    for (uint32_t i = 0; i < 2; i++)
        cb_quic_endpoint_free(old[i]);
    for (int i = 0; i < CLIENTS; i++) { /* each from a port of its own: an even chance for each socket */
        qt_client_open(&w, &co);
        clients[i] = w.client.endpoint;
        qt_connect(&w);
        cr_assert(qt_until(&w, &w.client.handshakes, i + 1), "%d: %s", i, w.client.detail);
    }
    for (int i = 0; i < CLIENTS; i++)
        cb_quic_endpoint_free(clients[i]);
    w.client.endpoint = NULL;
    cb_quic_endpoint_free(young);
    qt_turn(&w, 5);
    qt_world_drop(&w);
    cb_group_unref(g);
    cb_group_unref(n);
}

/* When opening fails, the descriptors are still the caller's. */
Test(quic_succession, sockets_come_back_when_opening_fails) {
    qt_world w;
    cb_quic_endpoint *e = NULL;
    int pipes[2];
    qt_world_make(&w);
    cb_quic_opts o = qt_server_opts(&w);
    qt_listen(&w, &o);
    cr_assert_eq(pipe(pipes), 0);
    const int32_t fds[2] = {fcntl(cb_udp_fd(w.server.endpoint->main.udp), F_DUPFD_CLOEXEC, 3), pipes[0]};
    o.fds = fds;
    o.n_fds = 2;
    cr_assert_lt(cb_quic_listen(&e, w.loop, w.remote, &o), 0);
    qt_turn(&w, 2);
    cr_assert_geq(fcntl(fds[0], F_GETFD), 0);
    cr_assert_geq(fcntl(fds[1], F_GETFD), 0);
    close(fds[0]);
    close(pipes[0]);
    close(pipes[1]);
    qt_world_drop(&w);
}
