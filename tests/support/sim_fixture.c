#include "support/sim_fixture.h"
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void on_arrival(cb_sim_socket *s, const cb_sim_datagram *d, void *user) {
    st_pair *p = user;
    (void)s;
    cr_assert_lt(p->count, (size_t)ST_KEPT);
    st_arrival *got = &p->got[p->count++];
    snprintf(p->last_from, sizeof p->last_from, "%s", d->from);
    *got = (st_arrival){.at = cb_sim_now(p->sim), .ecn = d->ecn};
    if (d->data.len < sizeof got->number) return;
    memcpy(&got->number, d->data.base, sizeof got->number);
    for (size_t i = sizeof got->number; i < d->data.len; i++)
        got->flipped = (uint8_t)(got->flipped + __builtin_popcount(d->data.base[i] ^ 0x5au));
    if (got->number < p->sent) got->sent = p->sent_at[got->number];
}

static void ignore(cb_sim_socket *s, const cb_sim_datagram *d, void *user) {
    (void)s;
    (void)d;
    (void)user;
}

st_pair *st_make(uint64_t seed, const cb_sim_link_opts *there, const cb_sim_link_opts *back) {
    st_pair *p = calloc(1, sizeof *p);
    cr_assert_not_null(p);
    cb_sim_link_opts perfect = {.size = sizeof perfect};
    int rc = cb_sim_new(&p->sim, CB_OPTS(cb_sim_opts, .seed = seed));
    if (rc == CB_OK) rc = cb_sim_host_new(&p->a, p->sim, "a", "10.0.0.1");
    if (rc == CB_OK) rc = cb_sim_host_new(&p->b, p->sim, "b", "10.0.0.2");
    if (rc == CB_OK) rc = cb_sim_connect(p->a, p->b, there, back ? back : &perfect, &p->ab, &p->ba);
    if (rc == CB_OK) rc = cb_sim_socket_new(&p->from, p->a, 0, ignore, p);
    if (rc == CB_OK) rc = cb_sim_socket_new(&p->to, p->b, 7000, on_arrival, p);
    cr_assert_eq(rc, CB_OK, "%s", cb_last_error());
    return p;
}

void st_drop(st_pair *p) {
    cb_sim_free(p->sim);
    free(p);
}

void st_send(st_pair *p, size_t n, unsigned ecn) {
    uint8_t payload[ST_PAYLOAD];
    memset(payload, 0x5a, sizeof payload);
    for (size_t i = 0; i < n; i++) {
        uint32_t number = p->sent++;
        cr_assert_lt(number, (uint32_t)ST_KEPT);
        p->sent_at[number] = cb_sim_now(p->sim);
        memcpy(payload, &number, sizeof number);
        int rc = cb_sim_socket_send(p->from, "10.0.0.2:7000", (cb_slice){payload, sizeof payload}, ecn);
        cr_assert_eq(rc, CB_OK, "%s", cb_last_error());
    }
}

typedef struct train {
    st_pair *p;
    size_t left;
    cb_time every;
    unsigned ecn;
} train;

static void on_due(cb_sim *sim, void *user) {
    train *t = user;
    st_send(t->p, 1, t->ecn);
    if (--t->left)
        cb_sim_at(sim, cb_sim_now(sim) + t->every, on_due, t);
    else
        free(t);
}

void st_send_each(st_pair *p, size_t n, cb_time every, unsigned ecn) {
    train *t = malloc(sizeof *t);
    cr_assert_not_null(t);
    *t = (train){p, n, every, ecn};
    cr_assert_eq(cb_sim_at(p->sim, cb_sim_now(p->sim), on_due, t), CB_OK);
}

void st_run(st_pair *p) {
    int rc = cb_sim_run(p->sim);
    cr_assert_eq(rc, CB_OK, "%s", cb_last_error());
}

void st_until(cb_sim *sim, cb_time t) {
    int rc = cb_sim_run_until(sim, t);
    cr_assert_eq(rc, CB_OK, "%s", cb_last_error());
    cr_assert_eq(cb_sim_now(sim), t);
}

cb_sim_link_stats st_stats(const cb_sim_link *l) {
    cb_sim_link_stats s = {.size = sizeof s};
    cr_assert_eq(cb_sim_link_stats_get(l, &s), CB_OK);
    return s;
}

cb_sim_host_stats st_host_stats(const cb_sim_host *h) {
    cb_sim_host_stats s = {.size = sizeof s};
    cr_assert_eq(cb_sim_host_stats_get(h, &s), CB_OK);
    return s;
}
