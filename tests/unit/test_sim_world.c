/* Time, hosts, sockets, loops of a simulation. */
#include "base/mem.h"
#include "loop/loop_int.h"
#include "loop/tcp.h"
#include "loop/udp.h"
#include "support/sim_fixture.h"
#include <cb/http.h>
#include <cb/resolver.h>
#include <criterion/criterion.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

/* ---- time ---- */

typedef struct note {
    cb_time at[16];
    int n;
    int value;
} note;

static void on_time(cb_sim *sim, void *user) {
    note *t = user;
    t->at[t->n++] = cb_sim_now(sim);
}

static void on_timer(cb_loop *loop, void *user) {
    note *t = user;
    t->at[t->n++] = cb_loop_now(loop);
}

static void stop(cb_sim *sim, void *user) {
    (void)user;
    cb_sim_stop(sim);
}

static void stop_loop(cb_loop *loop, void *user) {
    (void)user;
    cb_loop_stop(loop);
}

static void run_inside(cb_sim *sim, void *user) {
    note *t = user;
    t->value = cb_sim_run(sim);
    cb_sim_free(sim); /* does nothing in here */
}

Test(sim_world, scripts_and_timers_keep_the_time) {
    note scripts = {.n = 0}, timers = {.n = 0};
    cb_sim *sim;
    cb_sim_host *h;
    cb_timer *once, *again;
    cr_assert_eq(cb_sim_new(&sim, NULL), CB_OK);
    cr_assert_eq(cb_sim_now(sim), 0);
    cr_assert_eq(cb_sim_host_new(&h, sim, "h", "10.0.0.1"), CB_OK);
    cb_loop *loop = cb_sim_host_loop(h);
    cb_sim_at(sim, 3 * ST_S, on_time, &scripts);
    cb_sim_at(sim, ST_S, on_time, &scripts);
    cr_assert_eq(cb_timer_start(&once, loop, 1500, 0, on_timer, &timers), CB_OK);
    cr_assert_eq(cb_timer_start(&again, loop, 1000, 1000, on_timer, &timers), CB_OK);
    st_until(sim, 3500 * ST_MS);
    cr_assert_eq(scripts.n, 2);
    cr_assert(scripts.at[0] == ST_S && scripts.at[1] == 3 * ST_S);
    cr_assert_eq(timers.n, 4);
    cr_assert(timers.at[0] == ST_S && timers.at[1] == 1500 * ST_MS && timers.at[2] == 2 * ST_S &&
              timers.at[3] == 3 * ST_S);
    cb_sim_at(sim, 0, on_time, &scripts); /* the past is now */
    st_until(sim, cb_sim_now(sim));
    cr_assert_eq(scripts.at[2], 3500 * ST_MS);
    cr_assert_eq(cb_sim_run_until(sim, 5), CB_OK, "a time that has passed");
    cr_assert_eq(cb_sim_now(sim), 3500 * ST_MS);
    cb_timer_free(once);
    cb_timer_free(again);
    cr_assert_eq(cb_sim_run(sim), CB_OK);
    cr_assert_eq(cb_sim_now(sim), 3500 * ST_MS, "nothing was left");
    cb_sim_free(sim);
}

static void on_ping(cb_sim_socket *s, const cb_sim_datagram *d, void *user) {
    ++*(int *)user;
    cb_sim_socket_send(s, d->from, d->data, 0);
}

Test(sim_world, a_run_comes_to_an_end) {
    note t = {.n = 0};
    int pings = 0;
    cb_sim *sim;
    cb_sim_host *a, *b;
    cb_sim_socket *sa, *sb;
    cb_timer *forever;
    cr_assert_eq(cb_sim_new(&sim, CB_OPTS(cb_sim_opts, .max_time_ms = 10000)), CB_OK);
    cr_assert_eq(cb_sim_host_new(&a, sim, "a", "10.0.0.1"), CB_OK);
    cr_assert_eq(cb_sim_host_new(&b, sim, "b", "10.0.0.2"), CB_OK);
    /* more time than allowed */
    cr_assert_eq(cb_timer_start(&forever, cb_sim_host_loop(a), 3000, 3000, on_timer, &t), CB_OK);
    cr_assert_eq(cb_sim_run(sim), CB_ETIMEOUT);
    cr_assert(strstr(cb_last_error(), "max_time_ms"));
    cr_assert_eq(t.n, 3);
    cr_assert_eq(cb_sim_now(sim), 10 * ST_S);
    cb_timer_free(forever);
    /* inside of itself */
    cb_sim_at(sim, 0, run_inside, &t);
    cr_assert_eq(cb_sim_run(sim), CB_OK);
    cr_assert_eq(t.value, CB_EINVAL);
    /* stopped by a callback, and by a loop */
    cb_sim_at(sim, 11 * ST_S, stop, NULL);
    cr_assert_eq(cb_sim_run_until(sim, 20 * ST_S), CB_OK);
    cr_assert_eq(cb_sim_now(sim), 11 * ST_S);
    cb_timer *once;
    cr_assert_eq(cb_timer_start(&once, cb_sim_host_loop(b), 1000, 0, stop_loop, NULL), CB_OK);
    cr_assert_eq(cb_sim_run_until(sim, 20 * ST_S), CB_OK);
    cr_assert_eq(cb_sim_now(sim), 12 * ST_S);
    cb_timer_free(once);
    st_until(sim, 20 * ST_S);
    /* two that play ping pong over a line without any delay */
    cr_assert_eq(cb_sim_connect(a, b, NULL, NULL, NULL, NULL), CB_OK);
    cr_assert_eq(cb_sim_socket_new(&sa, a, 1, on_ping, &pings), CB_OK);
    cr_assert_eq(cb_sim_socket_new(&sb, b, 2, on_ping, &pings), CB_OK);
    cr_assert_eq(cb_sim_socket_send(sa, "b:2", (cb_slice){(const uint8_t *)"x", 1}, 0), CB_OK);
    cr_assert_eq(cb_sim_run_until(sim, 21 * ST_S), CB_ELIMIT);
    cr_assert(strstr(cb_last_error(), "time does not move"), "%s", cb_last_error());
    cr_assert_eq(cb_sim_now(sim), 20 * ST_S);
    cr_assert_gt(pings, 100000);
    cb_sim_free(sim);
    /* events */
    cr_assert_eq(cb_sim_new(&sim, CB_OPTS(cb_sim_opts, .max_events = 50)), CB_OK);
    cr_assert_eq(cb_sim_host_new(&a, sim, "a", "10.0.0.1"), CB_OK);
    cr_assert_eq(cb_sim_socket_new(&sa, a, 1, on_ping, &pings), CB_OK);
    cr_assert_eq(cb_sim_socket_send(sa, "10.0.0.1:1", (cb_slice){(const uint8_t *)"x", 1}, 0), CB_OK);
    cr_assert_eq(cb_sim_run(sim), CB_ELIMIT);
    cr_assert(strstr(cb_last_error(), "max_events"), "%s", cb_last_error());
    cb_sim_free(sim);
}

Test(sim_world, simulations_do_not_know_of_each_other) {
    const cb_sim_link_opts o = {.size = sizeof o, .rate_bps = 1000000, .delay_us = 3000, .loss = 0.1, .jitter_us = 900};
    st_pair *alone = st_make(5, &o, NULL);
    st_send_each(alone, 500, 5 * ST_MS, 0);
    st_run(alone);
    st_pair *one = st_make(5, &o, NULL), *two = st_make(6, &o, NULL);
    st_send_each(one, 500, 5 * ST_MS, 0);
    st_send_each(two, 500, 5 * ST_MS, 0);
    for (cb_time t = 0; t < 3 * ST_S; t += 7 * ST_MS) {
        st_until(one->sim, t);
        st_until(two->sim, t);
    }
    st_run(one);
    st_run(two);
    cr_assert_eq(cb_sim_digest(one->sim), cb_sim_digest(alone->sim));
    cr_assert_neq(cb_sim_digest(two->sim), cb_sim_digest(alone->sim));
    cb_sim_link *const foreign[] = {two->ab};
    cr_assert_eq(cb_sim_path(one->a, two->b, NULL, NULL, 0), CB_EINVAL);
    cr_assert_eq(cb_sim_path(one->a, one->b, NULL, foreign, 1), CB_EINVAL);
    cr_assert_eq(cb_sim_connect(one->a, two->b, NULL, NULL, NULL, NULL), CB_EINVAL);
    st_drop(alone);
    st_drop(one);
    st_drop(two);
}

/* ---- hosts and sockets ---- */

Test(sim_world, names_and_addresses_are_checked) {
    static const struct {
        const char *name, *addresses;
        int rc;
        const char *says;
    } rows[] = {
        {"", "10.0.0.9", CB_EINVAL, "name"},
        {"Upper", "10.0.0.9", CB_EINVAL, "Upper"},
        {"under_score", "10.0.0.9", CB_EINVAL, "under_score"},
        {"first", "10.0.0.9", CB_EEXIST, "first"},
        {"x", "", CB_EINVAL, ""},
        {"x", "10.0.0.9,", CB_EINVAL, ""},
        {"x", "10.0.0.9:80", CB_EINVAL, "port"},
        {"x", "nonsense", CB_EINVAL, "nonsense"},
        {"x", "0.0.0.0", CB_EINVAL, "0.0.0.0"},
        {"x", "10.0.0.9,10.0.0.1", CB_EEXIST, "first"},
        {"x", "10.0.0.9,fd00::9,::", CB_EINVAL, "::"},
        {"x", "10.0.0.9,fd00::9", CB_OK, ""}, /* nothing was left of those before */
    };
    cb_sim *sim;
    cb_sim_host *first, *h;
    cr_assert_eq(cb_sim_new(&sim, NULL), CB_OK);
    cr_assert_eq(cb_sim_host_new(&first, sim, "first", "10.0.0.1"), CB_OK);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        cr_assert_eq(cb_sim_host_new(&h, sim, rows[i].name, rows[i].addresses), rows[i].rc, "row %zu", i);
        if (rows[i].rc < 0) cr_assert(strstr(cb_last_error(), rows[i].says), "row %zu: %s", i, cb_last_error());
    }
    cr_assert_str_eq(cb_sim_host_name(h), "x");
    cr_assert_eq(cb_sim_host_add_address(h, "10.0.0.1", 0), CB_EEXIST);
    cr_assert_eq(cb_sim_host_add_address(h, "10.0.0.9", 0), CB_EEXIST);
    cr_assert_eq(cb_sim_host_add_address(h, "10.0.0.10:1", 0), CB_EINVAL);
    cr_assert_eq(cb_sim_host_remove_address(h, "10.0.0.1"), CB_ENOENT);
    cr_assert_eq(cb_sim_host_remove_address(h, "10.0.0.9"), CB_OK);
    cr_assert_eq(cb_sim_host_remove_address(h, "10.0.0.9"), CB_ENOENT);
    cr_assert_eq(cb_sim_host_add_address(first, "10.0.0.9", 0), CB_EEXIST, "it stays its host's");
    cr_assert_eq(cb_sim_host_add_address(h, "10.0.0.9", 1), CB_OK);
    cr_assert_eq(cb_sim_new(&sim, CB_OPTS(cb_sim_opts, .wall_s = -1)), CB_EINVAL);
    cr_assert(strstr(cb_last_error(), "wall_s"));
    cb_sim_free(sim);
}

typedef struct inbox {
    int n;
    char from[64], to[64], text[32];
    unsigned ecn;
    bool free_it;
} inbox;

static void on_text(cb_sim_socket *s, const cb_sim_datagram *d, void *user) {
    inbox *b = user;
    b->n++;
    b->ecn = d->ecn;
    snprintf(b->from, sizeof b->from, "%s", d->from);
    snprintf(b->to, sizeof b->to, "%s", d->to);
    snprintf(b->text, sizeof b->text, "%.*s", (int)d->data.len, (const char *)d->data.base);
    if (b->free_it) cb_sim_socket_free(s);
}

static int send_text(cb_sim_socket *s, const char *to, const char *text) {
    return cb_sim_socket_send(s, to, cb_slice_str(text), 0);
}

Test(sim_world, datagrams_go_where_they_should) {
    inbox at_a = {0}, at_b = {0};
    cb_sim *sim;
    cb_sim_host *a, *b, *c;
    cb_sim_socket *sa, *sb, *other;
    cr_assert_eq(cb_sim_new(&sim, NULL), CB_OK);
    cr_assert_eq(cb_sim_host_new(&a, sim, "a", "10.0.0.1,fd00::1"), CB_OK);
    cr_assert_eq(cb_sim_host_new(&b, sim, "b", "10.0.0.2,10.0.0.3,fd00::2"), CB_OK);
    cr_assert_eq(cb_sim_host_new(&c, sim, "c", "fd00::3"), CB_OK);
    cr_assert_eq(cb_sim_connect(a, b, CB_OPTS(cb_sim_link_opts, .delay_us = 10), NULL, NULL, NULL), CB_OK);
    cr_assert_eq(cb_sim_socket_new(&sa, a, 0, on_text, &at_a), CB_OK);
    cr_assert_eq(cb_sim_socket_new(&sb, b, 7000, on_text, &at_b), CB_OK);
    cr_assert_eq(cb_sim_socket_new(&other, b, 7000, on_text, &at_b), CB_EEXIST);
    cr_assert_eq(cb_sim_socket_port(sb), 7000);
    cr_assert_geq(cb_sim_socket_port(sa), 49152);
    char from4[64], from6[64];
    snprintf(from4, sizeof from4, "10.0.0.1:%u", cb_sim_socket_port(sa));
    snprintf(from6, sizeof from6, "[fd00::1]:%u", cb_sim_socket_port(sa));
    const struct {
        const char *to, *from, *in;
    } rows[] = {
        {"b:7000", from4, "10.0.0.2:7000"},
        {"10.0.0.3:7000", from4, "10.0.0.3:7000"},
        {"[fd00::2]:7000", from6, "[fd00::2]:7000"},
        {"[::ffff:10.0.0.2]:7000", from4, "10.0.0.2:7000"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        cr_assert_eq(send_text(sa, rows[i].to, "hello"), CB_OK, "row %zu: %s", i, cb_last_error());
        cr_assert_eq(cb_sim_run(sim), CB_OK);
        cr_assert_eq(at_b.n, (int)i + 1);
        cr_assert_str_eq(at_b.from, rows[i].from);
        cr_assert_str_eq(at_b.to, rows[i].in);
        cr_assert_str_eq(at_b.text, "hello");
    }
    cr_assert_eq(cb_sim_socket_send(sb, at_b.from, cb_slice_str("back"), 3), CB_OK);
    cr_assert_eq(cb_sim_run(sim), CB_OK);
    cr_assert(at_a.n == 1 && at_a.ecn == 3 && !strcmp(at_a.text, "back"));
    cr_assert_eq(send_text(sa, "a:1", "nobody listens"), CB_OK);
    cr_assert_eq(send_text(sa, "10.9.9.9:1", "nobody has it"), CB_OK);
    cr_assert_eq(send_text(sa, "c:1", "no path"), CB_EUNREACH);
    cr_assert(strstr(cb_last_error(), "cb_sim_path"), "%s", cb_last_error());
    cr_assert_eq(send_text(sa, "nohost:1", ""), CB_ENOENT);
    cr_assert_eq(send_text(sa, "b:70000", ""), CB_ENOENT);
    cr_assert_eq(send_text(sa, "10.0.0.2", ""), CB_EINVAL);
    cr_assert_eq(cb_sim_socket_send(sa, "b:1", cb_slice_str(""), 4), CB_EINVAL);
    static const uint8_t large[65508];
    cr_assert_eq(cb_sim_socket_send(sa, "b:1", (cb_slice){large, sizeof large}, 0), CB_EINVAL);
    /* freed in its own callback, with more on the way */
    at_b.free_it = true;
    cr_assert_eq(send_text(sa, "b:7000", "one"), CB_OK);
    cr_assert_eq(send_text(sa, "b:7000", "two"), CB_OK);
    cr_assert_eq(cb_sim_run(sim), CB_OK);
    cr_assert_str_eq(at_b.text, "one");
    cb_sim_host_stats s = st_host_stats(a), t = st_host_stats(b);
    cr_assert_eq(s.drop_nobody, 1);
    cr_assert_eq(s.drop_no_route, 1);
    cr_assert_eq(s.drop_port, 1);
    cr_assert_eq(t.drop_port, 1);
    cr_assert_eq(t.rx_packets, 5);
    cr_assert_eq(s.tx_packets, 8);
    cb_sim_free(sim);
}

Test(sim_world, addresses_come_and_go) {
    inbox at_b = {0}, at_a = {0};
    cb_sim *sim;
    cb_sim_host *a, *b;
    cb_sim_link *slow, *fast;
    cb_sim_socket *sa, *sb;
    cr_assert_eq(cb_sim_new(&sim, NULL), CB_OK);
    cr_assert_eq(cb_sim_host_new(&a, sim, "a", "10.0.0.1"), CB_OK);
    cr_assert_eq(cb_sim_host_new(&b, sim, "b", "10.0.0.2"), CB_OK);
    cr_assert_eq(cb_sim_connect(a, b, CB_OPTS(cb_sim_link_opts, .delay_us = 10000), NULL, &slow, NULL), CB_OK);
    cr_assert_eq(cb_sim_socket_new(&sa, a, 5, on_text, &at_a), CB_OK);
    cr_assert_eq(cb_sim_socket_new(&sb, b, 7000, on_text, &at_b), CB_OK);
    /* what is on its way to the old address is lost; the next packet leaves from the new one, over its own link */
    cr_assert_eq(send_text(sb, "10.0.0.1:5", "late"), CB_OK);
    cr_assert_eq(cb_sim_host_remove_address(a, "10.0.0.1"), CB_OK);
    cr_assert_eq(send_text(sa, "b:7000", "x"), CB_EUNREACH);
    cr_assert_eq(cb_sim_host_add_address(a, "10.0.0.77", 1), CB_OK);
    cr_assert_eq(cb_sim_link_new(&fast, sim, CB_OPTS(cb_sim_link_opts, .delay_us = 1000)), CB_OK);
    cr_assert_eq(cb_sim_path(a, b, "10.0.0.77", &fast, 1), CB_OK);
    cr_assert_eq(send_text(sa, "b:7000", "new"), CB_OK);
    cr_assert_eq(cb_sim_run(sim), CB_OK);
    cr_assert_eq(at_a.n, 0);
    cr_assert_eq(st_host_stats(a).drop_address, 1);
    cr_assert_str_eq(at_b.from, "10.0.0.77:5");
    cr_assert_eq(st_stats(fast).out_packets, 1);
    cr_assert_eq(st_stats(slow).out_packets, 0);
    /* back again, and preferred */
    cr_assert_eq(cb_sim_host_add_address(a, "10.0.0.1", 1), CB_OK);
    cr_assert_eq(send_text(sa, "b:7000", "old"), CB_OK);
    cr_assert_eq(cb_sim_run(sim), CB_OK);
    cr_assert_str_eq(at_b.from, "10.0.0.1:5");
    cr_assert_eq(st_stats(slow).out_packets, 1);
    cb_sim_free(sim);
}

/* ---- NAT ---- */

Test(sim_world, a_nat_translates_forgets_and_rebinds) {
    inbox inside = {0}, outside = {0};
    cb_sim *sim;
    cb_sim_host *a, *b;
    cb_sim_nat *nat, *second;
    cb_sim_socket *sa, *sb, *sc;
    char first[64], again[64];
    cr_assert_eq(cb_sim_new(&sim, NULL), CB_OK);
    cr_assert_eq(cb_sim_host_new(&a, sim, "a", "192.168.0.2,fd00::1"), CB_OK);
    cr_assert_eq(cb_sim_host_new(&b, sim, "b", "10.0.0.2,fd00::2"), CB_OK);
    cr_assert_eq(cb_sim_connect(a, b, CB_OPTS(cb_sim_link_opts, .delay_us = 1000), NULL, NULL, NULL), CB_OK);
    cr_assert_eq(cb_sim_nat_new(&nat, a, CB_OPTS(cb_sim_nat_opts, .idle_ms = 0)), CB_EINVAL);
    cr_assert(strstr(cb_last_error(), "address"));
    cr_assert_eq(cb_sim_nat_new(&nat, a, CB_OPTS(cb_sim_nat_opts, .address = "10.0.0.2")), CB_EEXIST);
    cr_assert_eq(cb_sim_nat_new(&nat, a, CB_OPTS(cb_sim_nat_opts, .address = "203.0.113.1", .idle_ms = 30000)), CB_OK);
    cr_assert_eq(cb_sim_nat_new(&second, a, CB_OPTS(cb_sim_nat_opts, .address = "203.0.113.2")), CB_EEXIST);
    cr_assert_eq(cb_sim_socket_new(&sa, a, 5, on_text, &inside), CB_OK);
    cr_assert_eq(cb_sim_socket_new(&sb, b, 7000, on_text, &outside), CB_OK);
    cr_assert_eq(cb_sim_socket_new(&sc, b, 7001, on_text, &outside), CB_OK);
    /* out and back in */
    cr_assert_eq(send_text(sa, "b:7000", "q"), CB_OK);
    cr_assert_eq(cb_sim_run(sim), CB_OK);
    cr_assert_eq(strncmp(outside.from, "203.0.113.1:", 12), 0, "%s", outside.from);
    snprintf(first, sizeof first, "%s", outside.from);
    cr_assert_eq(send_text(sb, first, "r"), CB_OK);
    cr_assert_eq(cb_sim_run(sim), CB_OK);
    cr_assert(inside.n == 1 && !strcmp(inside.to, "192.168.0.2:5") && !strcmp(inside.from, "10.0.0.2:7000"));
    /* nobody else comes in, and not by the inner address either */
    cr_assert_eq(send_text(sc, first, "no"), CB_OK);
    cr_assert_eq(send_text(sb, "192.168.0.2:5", "no"), CB_OK);
    cr_assert_eq(cb_sim_run(sim), CB_OK);
    cr_assert_eq(inside.n, 1);
    cr_assert_eq(st_host_stats(a).drop_nat, 2);
    /* another flow gets another port; the first keeps its own */
    cr_assert_eq(send_text(sa, "b:7001", "q"), CB_OK);
    cr_assert_eq(cb_sim_run(sim), CB_OK);
    cr_assert_str_neq(outside.from, first);
    cr_assert_eq(send_text(sa, "b:7000", "q"), CB_OK);
    cr_assert_eq(cb_sim_run(sim), CB_OK);
    cr_assert_str_eq(outside.from, first);
    cr_assert_eq(cb_sim_nat_flows(nat), 2);
    /* IPv6 is not translated */
    cr_assert_eq(send_text(sa, "[fd00::2]:7000", "q"), CB_OK);
    cr_assert_eq(cb_sim_run(sim), CB_OK);
    cr_assert_str_eq(outside.from, "[fd00::1]:5");
    /* 30 s of silence */
    st_until(sim, cb_sim_now(sim) + 29 * ST_S);
    cr_assert_eq(send_text(sa, "b:7000", "q"), CB_OK);
    st_until(sim, cb_sim_now(sim) + 29 * ST_S);
    cr_assert_eq(cb_sim_nat_flows(nat), 1);
    cr_assert_eq(send_text(sb, first, "r"), CB_OK);
    cr_assert_eq(cb_sim_run(sim), CB_OK);
    cr_assert_eq(inside.n, 2, "a packet from either side keeps it");
    st_until(sim, cb_sim_now(sim) + 31 * ST_S);
    cr_assert_eq(cb_sim_nat_flows(nat), 0);
    cr_assert_eq(send_text(sb, first, "late"), CB_OK);
    cr_assert_eq(send_text(sa, "b:7000", "q"), CB_OK);
    cr_assert_eq(cb_sim_run(sim), CB_OK);
    cr_assert_eq(inside.n, 2);
    snprintf(again, sizeof again, "%s", outside.from);
    cr_assert_str_neq(again, first);
    /* rebinding: another port, another address */
    cr_assert_eq(cb_sim_nat_rebind(nat, NULL), CB_OK);
    cr_assert_eq(send_text(sa, "b:7000", "q"), CB_OK);
    cr_assert_eq(cb_sim_run(sim), CB_OK);
    cr_assert_str_neq(outside.from, again);
    cr_assert_eq(strncmp(outside.from, "203.0.113.1:", 12), 0);
    cr_assert_eq(cb_sim_nat_rebind(nat, "10.0.0.2"), CB_EEXIST);
    cr_assert_eq(cb_sim_nat_flows(nat), 1, "nothing changed");
    cr_assert_eq(cb_sim_nat_rebind(nat, "203.0.113.9"), CB_OK);
    cr_assert_eq(send_text(sa, "b:7000", "q"), CB_OK);
    cr_assert_eq(cb_sim_run(sim), CB_OK);
    cr_assert_eq(strncmp(outside.from, "203.0.113.9:", 12), 0, "%s", outside.from);
    cr_assert_eq(send_text(sb, again, "late"), CB_OK);
    cr_assert_eq(send_text(sb, outside.from, "r"), CB_OK);
    cr_assert_eq(cb_sim_run(sim), CB_OK);
    cr_assert_eq(inside.n, 3);
    cr_assert_eq(cb_sim_nat_rebind(nat, "203.0.113.1"), CB_OK, "an address may come back");
    cb_sim_free(sim);
}

Test(sim_world, a_nat_has_only_so_many_ports) {
    enum { SOCKETS = 60, PEERS = 1100 };
    static char to[32];
    inbox box = {0};
    cb_sim *sim;
    cb_sim_host *a, *b;
    cb_sim_nat *nat;
    cr_assert_eq(cb_sim_new(&sim, NULL), CB_OK);
    cr_assert_eq(cb_sim_host_new(&a, sim, "a", "192.168.0.2"), CB_OK);
    cr_assert_eq(cb_sim_host_new(&b, sim, "b", "10.0.0.2"), CB_OK);
    cr_assert_eq(cb_sim_connect(a, b, NULL, NULL, NULL, NULL), CB_OK);
    cr_assert_eq(cb_sim_nat_new(&nat, a, CB_OPTS(cb_sim_nat_opts, .address = "203.0.113.1")), CB_OK);
    for (int i = 0; i < SOCKETS; i++) {
        cb_sim_socket *s;
        cr_assert_eq(cb_sim_socket_new(&s, a, 0, on_text, &box), CB_OK);
        for (int k = 1; k <= PEERS; k++) {
            snprintf(to, sizeof to, "10.0.0.2:%d", k);
            cr_assert_eq(send_text(s, to, "x"), CB_OK);
        }
        cr_assert_eq(cb_sim_run(sim), CB_OK);
    }
    cr_assert_eq(cb_sim_nat_flows(nat), 64512);
    cr_assert_eq(st_host_stats(a).drop_nat, SOCKETS * PEERS - 64512);
    cb_sim_free(sim);
}

/* ---- loops ---- */

static void on_tcp(int fd_or_rc, void *user) {
    (void)fd_or_rc;
    (void)user;
}

static void on_fd(cb_watch *w, unsigned events, void *user) {
    (void)w;
    (void)events;
    (void)user;
}

Test(sim_world, what_needs_the_kernel_is_refused) {
    cb_sim *sim;
    cb_sim_host *h;
    cb_watch *w;
    cb_tcp_connector *c;
    cb_http_server *srv;
    cr_assert_eq(cb_sim_new(&sim, NULL), CB_OK);
    cr_assert_eq(cb_sim_host_new(&h, sim, "h", "10.0.0.1"), CB_OK);
    cb_loop *loop = cb_sim_host_loop(h);
    cb_addr to;
    cb_addr_parse(&to, "127.0.0.1:1", 0);
    cr_assert_eq(cb_watch_new(&w, loop, 0, CB_READABLE, on_fd, NULL), CB_ENOTSUP);
    cr_assert_eq(cb_tcp_connect(&c, loop, &to, 0, on_tcp, NULL), CB_ENOTSUP);
    cr_assert_eq(cb_loop_on_signal(loop, SIGUSR1, on_timer, NULL), CB_ENOTSUP);
    cr_assert_eq(cb_http_server_new(&srv, loop, CB_OPTS(cb_http_server_opts, .listen = ":80")), CB_ENOTSUP);
    cr_assert(strstr(cb_last_error(), "TCP"), "%s", cb_last_error());
    cr_assert_eq(cb_loop_run(loop), CB_ENOTSUP);
    cr_assert(strstr(cb_last_error(), "cb_sim_run"), "%s", cb_last_error());
    cr_assert_eq(cb_loop_step(loop), CB_ENOTSUP);
    cr_assert_eq(cb_loop_fd(loop), -1);
    cr_assert_eq(cb_loop_timeout_ms(loop), -1);
    cb_loop_free(loop); /* the simulation does that */
    st_until(sim, ST_S);
    cr_assert_eq(cb_loop_now(loop), ST_S);
    cb_sim_free(sim);
}

typedef struct answer {
    int rc, calls;
    size_t n;
    uint8_t first[4];
} answer;

static void on_lookup(int rc, const cb_host_address *at, size_t n, void *user) {
    answer *a = user;
    a->rc = rc;
    a->calls++;
    a->n = n;
    if (n) memcpy(a->first, at[0].bytes, 4);
}

Test(sim_world, names_of_hosts_resolve) {
    cb_sim *sim;
    cb_sim_host *h, *b;
    cb_resolver *r;
    cr_assert_eq(cb_sim_new(&sim, NULL), CB_OK);
    cr_assert_eq(cb_sim_host_new(&h, sim, "h", "10.0.0.1"), CB_OK);
    cr_assert_eq(cb_sim_host_new(&b, sim, "b.example", "10.0.0.2,fd00::2"), CB_OK);
    cr_assert_eq(cb_resolver_new(&r, cb_sim_host_loop(h), NULL), CB_OK, "%s", cb_last_error());
    static const struct {
        const char *name;
        int family, rc;
        size_t n;
    } rows[] = {
        {"b.example", CB_FAMILY_ANY, CB_OK, 2},   {"B.EXAMPLE", CB_FAMILY_V4, CB_OK, 1},
        {"b.example", CB_FAMILY_V6, CB_OK, 1},    {"h", CB_FAMILY_V6, CB_EDNS, 0},
        {"c.example", CB_FAMILY_ANY, CB_EDNS, 0}, {"10.0.0.7", CB_FAMILY_ANY, CB_OK, 1},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        answer a = {.rc = 1};
        cr_assert_eq(cb_resolver_lookup(NULL, r, rows[i].name, rows[i].family, on_lookup, &a), CB_OK);
        cr_assert_eq(a.calls, 0, "never inside the call");
        cr_assert_eq(cb_sim_run(sim), CB_OK);
        cr_assert_eq(a.calls, 1);
        cr_assert_eq(a.rc, rows[i].rc, "row %zu", i);
        cr_assert_eq(a.n, rows[i].n, "row %zu", i);
    }
    cb_resolver_free(r);
    cb_sim_free(sim);
}

static void *post_from_elsewhere(void *loop) {
    static note seen;
    seen.n = 0;
    cb_loop_post(loop, on_timer, &seen);
    return &seen;
}

Test(sim_world, tasks_may_be_posted) {
    cb_sim *sim;
    cb_sim_host *h;
    note here = {.n = 0};
    cr_assert_eq(cb_sim_new(&sim, NULL), CB_OK);
    cr_assert_eq(cb_sim_host_new(&h, sim, "h", "10.0.0.1"), CB_OK);
    cr_assert_eq(cb_loop_post(cb_sim_host_loop(h), on_timer, &here), CB_OK);
    cr_assert_eq(cb_sim_run(sim), CB_OK);
    cr_assert_eq(here.n, 1);
    pthread_t t;
    void *seen;
    cr_assert_eq(pthread_create(&t, NULL, post_from_elsewhere, cb_sim_host_loop(h)), 0);
    cr_assert_eq(pthread_join(t, &seen), 0);
    cr_assert_eq(cb_sim_run(sim), CB_OK);
    cr_assert_eq(((note *)seen)->n, 1);
    cb_sim_free(sim);
}

static bool swallow(cb_udp *u, cb_datagram *d, void *user) {
    (void)u;
    *(cb_datagram *)user = *d;
    return true;
}

static void on_unreachable(cb_udp *u, int err, const cb_addr *remote, cb_slice quote, void *user) {
    (void)u;
    (void)err;
    (void)remote;
    (void)quote;
    ++*(int *)user;
}

Test(sim_world, sockets_below_quic) {
    static const struct {
        const char *bind;
        bool v6_only;
        int rc;
    } rows[] = {
        {"10.0.0.1:443", false, CB_OK},      {"10.0.0.1:443", false, CB_EEXIST},
        {"10.0.0.9:443", false, CB_OK},      {"[::]:443", true, CB_OK},
        {"[fd00::1]:443", false, CB_EEXIST}, {"0.0.0.0:443", false, CB_EEXIST},
        {"10.0.0.8:443", false, CB_EINVAL},  {"[::]:0", false, CB_OK},
        {"0.0.0.0:0", false, CB_OK},         {"[::ffff:10.0.0.9]:1", false, CB_OK},
    };
    enum { N = sizeof rows / sizeof rows[0] };
    cb_sim *sim;
    cb_sim_host *h;
    cb_udp *u[N] = {NULL};
    cb_datagram d;
    cr_assert_eq(cb_sim_new(&sim, NULL), CB_OK);
    cr_assert_eq(cb_sim_host_new(&h, sim, "h", "10.0.0.1,10.0.0.9,fd00::1"), CB_OK);
    cb_loop *loop = cb_sim_host_loop(h);
    for (size_t i = 0; i < N; i++) {
        cb_udp_opts o = {.v6_only = rows[i].v6_only, .on_datagram = swallow, .user = &d};
        cb_addr_parse(&o.bind, rows[i].bind, 0);
        cr_assert_eq(cb_udp_open(&u[i], loop, &o), rows[i].rc, "row %zu: %s", i, cb_last_error());
    }
    for (size_t i = 0; i < N; i++)
        cb_udp_close(u[i]);
    int told = 0;
    cb_udp_opts o = {.on_datagram = swallow, .on_unreachable = on_unreachable, .user = &told};
    cb_addr_parse(&o.bind, "0.0.0.0:0", 0);
    cb_udp *one;
    cr_assert_eq(cb_udp_open(&one, loop, &o), CB_OK);
    cb_sim_host *far;
    cr_assert_eq(cb_sim_host_new(&far, sim, "far", "10.0.0.20,fd00::20"), CB_OK);
    static const char *const nowhere[] = {"10.0.0.20:1", "[fd00::20]:1"};
    for (size_t i = 0; i < 2; i++) {
        cb_addr to;
        cb_addr_parse(&to, nowhere[i], 0);
        cr_assert_not_null(cb_udp_reserve(one, 100));
        cb_udp_commit(one, NULL, &to, 0, 100, 100);
        cb_udp_flush(one);
        cr_assert_eq(told, (int)i + 1, "no path; then no address of the family");
    }
    cr_assert_eq(cb_udp_stats_get(one)->tx_dropped, 2);
    cb_udp_close(one);
    cb_sim_free(sim);
}

/* ---- memory ---- */

typedef struct miser {
    long left, live;
} miser;

static void *stingy(void *p, size_t size, void *user) {
    miser *m = user;
    if (size == 0) {
        if (p) m->live--;
        free(p);
        return NULL;
    }
    if (m->left-- <= 0) return NULL;
    if (!p) m->live++;
    return realloc(p, size);
}

static int small_story(const cb_alloc *alloc) {
    cb_sim *sim = NULL;
    cb_sim_host *a, *b;
    cb_sim_nat *nat;
    cb_sim_socket *sa, *sb;
    cb_sim_link *ab;
    cb_sim_traffic *t;
    inbox box = {0};
    int rc = cb_sim_new(&sim, CB_OPTS(cb_sim_opts, .alloc = alloc));
    if (rc == CB_OK) rc = cb_sim_host_new(&a, sim, "a", "10.0.0.1");
    if (rc == CB_OK) rc = cb_sim_host_new(&b, sim, "b", "10.0.0.2");
    if (rc == CB_OK)
        rc = cb_sim_connect(a, b, CB_OPTS(cb_sim_link_opts, .delay_us = 10, .duplicate = 1, .rate_bps = 1000000), NULL,
                            &ab, NULL);
    if (rc == CB_OK) rc = cb_sim_nat_new(&nat, a, CB_OPTS(cb_sim_nat_opts, .address = "203.0.113.1"));
    if (rc == CB_OK) rc = cb_sim_socket_new(&sa, a, 1, on_text, &box);
    if (rc == CB_OK) rc = cb_sim_socket_new(&sb, b, 2, on_text, &box);
    if (rc == CB_OK) rc = cb_sim_traffic_new(&t, ab, CB_OPTS(cb_sim_traffic_opts, .rate_bps = 1000000));
    if (rc == CB_OK) rc = cb_sim_at(sim, ST_S, stop, NULL);
    for (int i = 0; i < 3 && rc == CB_OK; i++)
        rc = send_text(sa, "b:2", "hello");
    if (rc == CB_OK) rc = cb_sim_run(sim);
    cb_sim_free(sim);
    return rc;
}

Test(sim_world, no_memory_is_an_error_and_no_leak) {
    long needed = 0;
    for (; needed < 10000; needed++) {
        miser m = {.left = needed};
        int rc = small_story(&(cb_alloc){stingy, &m});
        cr_assert_eq(m.live, 0, "%ld of %ld are left", m.live, needed);
        if (rc == CB_OK) break;
        cr_assert_eq(rc, CB_ENOMEM, "%ld: %s: %s", needed, cb_strerror(rc), cb_last_error());
    }
    cr_assert(needed > 30 && needed < 10000, "%ld", needed);
}
