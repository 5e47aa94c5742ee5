/* Pools: how each policy shares, what stays together, and which group serves. Chance comes from fixed seeds. */
#include <cb/lb.h>
#include <criterion/criterion.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define S 1000000000ull

static const uint8_t key[CB_LB_KEY_BYTES] = "a pool for tests";

static uint64_t hash_of(uint64_t i) {
    return cb_lb_hash(key, &i, sizeof i);
}

static cb_lb_pool *pool_of(int policy, int prefer, uint32_t n, const uint32_t *weights) {
    cb_lb_pool *p;
    int rc = cb_lb_pool_new(&p, CB_OPTS(cb_lb_pool_opts, .policy = policy, .prefer = prefer, .seed = 4711));
    cr_assert_eq(rc, CB_OK, "%s", cb_last_error());
    for (uint32_t i = 0; i < n; i++)
        cr_assert_eq(cb_lb_pool_add(p, CB_OPTS(cb_lb_backend, .id = 100 + i, .weight = weights ? weights[i] : 1)),
                     (int)i);
    return p;
}

static uint32_t pick(cb_lb_pool *p, cb_time now, uint64_t hash) {
    const int64_t i = cb_lb_pool_pick(p, CB_OPTS(cb_lb_call, .now = now, .hash = hash));
    cr_assert_geq(i, 0, "%s", cb_last_error());
    return (uint32_t)i;
}

static uint64_t picks(const cb_lb_pool *p, uint32_t i) {
    cb_lb_backend_stats s = {.size = sizeof s};
    cr_assert_eq(cb_lb_pool_stats_get(p, i, &s), CB_OK);
    return s.picks;
}

static void done(cb_lb_pool *p, uint32_t i, uint64_t ms, cb_time now) {
    cr_assert_eq(cb_lb_pool_done(p, i, CB_LB_WORKED, ms * 1000000, now), 0);
}

/* So many calls, of which 40 run at a time and end in their order. */
static void work(cb_lb_pool *p, uint32_t calls) {
    enum { RUN = 40 };
    uint32_t at[RUN];
    for (uint32_t i = 0; i < calls + RUN; i++) {
        const cb_time now = (i + 1) * 1000000ull;
        if (i >= RUN) done(p, at[i % RUN], 10, now);
        if (i < calls) at[i % RUN] = pick(p, now, hash_of(i));
    }
}

/* By weight: those by chance no worse than chance would (13.8 with two degrees of freedom is met once in a thousand),
 * those by what runs to 8 %, for calls are whole; a ring within its bound. */
Test(lb_pool, policies_share_by_weight) {
    enum { CALLS = 60000 };
    static const uint32_t weights[] = {1, 2, 3};
    for (int policy = CB_LB_DEFAULT; policy <= CB_LB_LATENCY; policy++) {
        cb_lb_pool *p = pool_of(policy, 0, 3, weights);
        double chi = 0;
        work(p, CALLS);
        for (uint32_t i = 0; i < 3; i++) {
            const double due = CALLS * weights[i] / 6.0, got = (double)picks(p, i);
            chi += (got - due) * (got - due) / due;
            cr_expect_float_eq(got / due, 1, policy == CB_LB_RING_HASH ? 0.25 : 0.08, "%s: %u has %.0f of %.0f",
                               cb_lb_policy_name(policy), i, got, due);
        }
        const bool whole = policy == CB_LB_LEAST_CONNECTIONS || policy == CB_LB_LATENCY;
        if (policy != CB_LB_RING_HASH && !whole)
            cr_expect_lt(chi, 13.8, "%s: chi-square %.1f", cb_lb_policy_name(policy), chi);
        cb_lb_pool_free(p);
    }
    cr_expect_null(cb_lb_policy_name(8));
    cr_expect_null(cb_lb_policy_name(-1));
    cr_expect_str_eq(cb_lb_policy_name(CB_LB_DEFAULT), "power_of_two");
}

/* Twenty backends of equal weight; a hash ring is less even than chance, its bound holds. */
Test(lb_pool, policies_share_evenly) {
    enum { N = 20, CALLS = 40000 };
    for (int policy = CB_LB_ROUND_ROBIN; policy <= CB_LB_LATENCY; policy++) {
        cb_lb_pool *p = pool_of(policy, 0, N, NULL);
        double chi = 0;
        work(p, CALLS);
        for (uint32_t i = 0; i < N; i++) {
            const double due = (double)CALLS / N, got = (double)picks(p, i);
            chi += (got - due) * (got - due) / due;
        }
        cr_expect_lt(chi, policy == CB_LB_RING_HASH ? 1000 : 43.8, "%s: chi-square %.1f of 19",
                     cb_lb_policy_name(policy), chi); /* once in a thousand */
        cb_lb_pool_free(p);
    }
}

/* Two by chance and the idler one: the fullest has far less to do than by chance alone. */
Test(lb_pool, two_choices_are_better_than_one) {
    enum { N = 1000, CALLS = 1000 };
    uint32_t most[2] = {0};
    for (int k = 0; k < 2; k++) {
        cb_lb_pool *p = pool_of(k ? CB_LB_POWER_OF_TWO : CB_LB_IP_HASH, 0, N, NULL);
        for (uint32_t i = 0; i < CALLS; i++)
            (void)pick(p, 1, k ? 0 : hash_of(i));
        for (uint32_t i = 0; i < N; i++)
            if (picks(p, i) > most[k]) most[k] = (uint32_t)picks(p, i);
        cb_lb_pool_free(p);
    }
    cr_expect_leq(most[1], 4, "%u at one", most[1]);
    cr_expect_geq(most[0], 6, "%u at one", most[0]);
}

/* By hash: the same goes to the same; when one is out only its own move, and they come back. */
Test(lb_pool, what_belongs_together_stays) {
    static const int policies[] = {CB_LB_IP_HASH, CB_LB_RING_HASH, CB_LB_MAGLEV};
    enum { N = 10, KEYS = 3000 };
    for (size_t k = 0; k < 3; k++) {
        cb_lb_pool *p = pool_of(policies[k], 0, N, NULL), *other = pool_of(policies[k], 0, 0, NULL);
        uint32_t owner[KEYS], lost = 0, got[N] = {0};
        for (uint32_t i = N; i-- > 0;) /* the same ones, in another order: the same choices */
            cr_assert_geq(cb_lb_pool_add(other, CB_OPTS(cb_lb_backend, .id = 100 + i, .weight = 1)), 0);
        for (uint64_t i = 0; i < KEYS; i++) {
            done(p, owner[i] = pick(p, 1, hash_of(i)), 0, 1);
            const uint32_t same = pick(other, 1, hash_of(i));
            done(other, same, 0, 1);
            cr_assert_eq(owner[i], N - 1 - same, "%s", cb_lb_policy_name(policies[k]));
        }
        cr_assert_eq(cb_lb_pool_set(p, 3, 1, 0), CB_OK);
        for (uint64_t i = 0; i < KEYS; i++) {
            const uint32_t now = pick(p, 1, hash_of(i));
            done(p, now, 0, 1);
            lost += owner[i] == 3;
            if (owner[i] == 3) got[now]++;
            cr_assert(owner[i] == 3 ? now != 3 : now == owner[i], "%s: key %d", cb_lb_policy_name(policies[k]), (int)i);
        }
        for (uint32_t i = 0; i < N; i++)
            if (i != 3) cr_expect_gt(got[i], lost / 40, "%s: what it had is shared", cb_lb_policy_name(policies[k]));
        cr_assert_eq(cb_lb_pool_set(p, 3, 1, 1), CB_OK);
        for (uint64_t i = 0; i < KEYS; i++) {
            const uint32_t now = pick(p, 1, hash_of(i));
            done(p, now, 0, 1);
            cr_assert_eq(now, owner[i]);
        }
        cb_lb_pool_free(p);
        cb_lb_pool_free(other);
    }
}

/* Everybody asks for one thing: nobody gets more than its share and a quarter. */
Test(lb_pool, a_ring_bounds_loads) {
    enum { N = 10, CALLS = 400 };
    cb_lb_pool *p = pool_of(CB_LB_RING_HASH, 0, N, NULL);
    for (uint32_t i = 0; i < CALLS; i++)
        (void)pick(p, 1, 7);
    uint32_t busy = 0;
    for (uint32_t i = 0; i < N; i++) {
        cr_expect_leq(picks(p, i), 50, "%u has %d", i, (int)picks(p, i)); /* 1.25 times 40 */
        busy += picks(p, i) == 50;
    }
    cr_expect_geq(busy, 7, "the first ones on the ring are full before the next gets any");
    cb_lb_pool_free(p);
}

Test(lb_pool, who_answers_soon_is_asked_more) {
    static const uint64_t ms[] = {10, 10, 50};
    cb_lb_pool *p = pool_of(CB_LB_LATENCY, 0, 3, NULL);
    cb_time now = S;
    for (int i = 0; i < 3000; i++, now += S / 1000) {
        const uint32_t at = pick(p, now, 0);
        done(p, at, ms[at], now);
    }
    cr_expect_lt(picks(p, 2), 100, "%d of 3000", (int)picks(p, 2));
    cr_expect_float_eq((double)picks(p, 0) / (double)picks(p, 1), 1, 0.2);
    /* one that has become slow is left at once */
    const uint64_t before = picks(p, 0);
    for (int i = 0; i < 1000; i++, now += S / 1000) {
        const uint32_t at = pick(p, now, 0);
        done(p, at, at == 0 ? 500 : ms[at], now);
    }
    cr_expect_lt(picks(p, 0) - before, 20, "%d of 1000", (int)(picks(p, 0) - before));
    /* and asked again later: it may have become better */
    const uint64_t then = picks(p, 0);
    for (int i = 0; i < 3000; i++, now += S / 10) {
        const uint32_t at = pick(p, now, 0);
        done(p, at, 10, now);
    }
    cr_expect_gt(picks(p, 0) - then, 500, "%d of 3000", (int)(picks(p, 0) - then));
    cb_lb_pool_free(p);
}

/* ---- failures ---- */

Test(lb_pool, failures_take_out_for_a_while) {
    cb_lb_pool *p = pool_of(CB_LB_ROUND_ROBIN, 0, 2, NULL);
    int took = 0;
    for (int i = 0; i < 6; i++) {
        const uint32_t at = pick(p, S, 0);
        took += cb_lb_pool_done(p, at, at == 0 ? CB_LB_FAILED : CB_LB_WORKED, 0, S);
    }
    cr_expect_eq(took, 1);
    cb_lb_backend_stats s = {.size = sizeof s};
    cr_assert_eq(cb_lb_pool_stats_get(p, 0, &s), CB_OK);
    cr_expect_eq(s.out_until, 11 * S);
    for (int i = 0; i < 4; i++)
        done(p, pick(p, 2 * S, 0), 0, 2 * S);
    cr_expect_eq(picks(p, 0), 3);
    cr_expect_eq(cb_lb_pool_pick(p, CB_OPTS(cb_lb_call, .now = 2 * S, .tried = 2)), 0, "tried although it is out");
    cr_expect_eq(cb_lb_pool_pick(p, CB_OPTS(cb_lb_call, .now = 2 * S, .tried = 3)), CB_ENOENT);
    cr_expect_neq(pick(p, 12 * S, 0), pick(p, 12 * S, 0), "in again");
    cr_assert_eq(cb_lb_pool_set(p, 0, 1, 0), CB_OK);
    cr_assert_eq(cb_lb_pool_set(p, 1, 0, 1), CB_OK);
    cr_expect_eq(cb_lb_pool_pick(p, CB_OPTS(cb_lb_call, .now = 2 * S)), CB_ENOENT, "one is not up, one has no weight");
    cb_lb_pool_free(p);
}

/* ---- groups ---- */

/* Three backends in each of three groups. */
static cb_lb_pool *groups_of(int policy, int prefer, const cb_lb_group *g) {
    cb_lb_pool *p = pool_of(policy, prefer, 0, NULL);
    for (uint32_t i = 0; i < 3; i++)
        cr_assert_eq(cb_lb_pool_group(p, &g[i]), (int)i, "%s", cb_last_error());
    for (uint32_t i = 0; i < 9; i++)
        cr_assert_eq(cb_lb_pool_add(p, CB_OPTS(cb_lb_backend, .id = i + 1, .weight = 1, .group = i / 3)), (int)i);
    return p;
}

/* What the groups get of so many calls. */
static void shares(cb_lb_pool *p, uint32_t *got, uint32_t calls, const char *geo) {
    got[0] = got[1] = got[2] = 0;
    for (uint32_t i = 0; i < calls; i++) {
        const int64_t at = cb_lb_pool_pick(p, CB_OPTS(cb_lb_call, .now = S, .geo = geo));
        cr_assert_geq(at, 0);
        got[at / 3]++;
        done(p, (uint32_t)at, 0, S);
    }
}

static void up(cb_lb_pool *p, uint32_t from, uint32_t to, int is) {
    for (uint32_t i = from; i < to; i++)
        cr_assert_eq(cb_lb_pool_set(p, i, 1, is), CB_OK);
}

#define GROUP(...)                                                                                                     \
    { .size = sizeof(cb_lb_group), __VA_ARGS__ }

Test(lb_pool, active_passive) {
    static const cb_lb_group g[] = {GROUP(.priority = 1), GROUP(.priority = 0), GROUP(.priority = 2)};
    cb_lb_pool *p = groups_of(CB_LB_DEFAULT, CB_LB_PREFER_PRIORITY, g);
    uint32_t got[3];
    shares(p, got, 300, NULL);
    cr_expect_eq(got[1], 300);
    up(p, 3, 4, 0); /* two thirds are in */
    shares(p, got, 300, NULL);
    cr_expect_eq(got[1], 300);
    up(p, 4, 5, 0); /* one third: too little */
    shares(p, got, 300, NULL);
    cr_expect_eq(got[0], 300);
    up(p, 0, 3, 0);
    shares(p, got, 300, NULL);
    cr_expect_eq(got[2], 300);
    up(p, 7, 9, 0); /* nowhere enough: the best of what is left */
    shares(p, got, 300, NULL);
    cr_expect_eq(got[1], 300);
    up(p, 5, 6, 0);
    shares(p, got, 300, NULL);
    cr_expect_eq(got[2], 300);
    up(p, 0, 9, 1);
    shares(p, got, 300, NULL);
    cr_expect_eq(got[1], 300);
    cb_lb_pool_free(p);
}

/* Of equal rank: by weight, and by how much of each is in. */
Test(lb_pool, active_active) {
    static const cb_lb_group g[] = {GROUP(.weight = 1), GROUP(.weight = 2), GROUP(.weight = 3)};
    cb_lb_pool *p = groups_of(CB_LB_ROUND_ROBIN, CB_LB_PREFER_NONE, g);
    uint32_t got[3];
    shares(p, got, 6000, NULL);
    for (int i = 0; i < 3; i++)
        cr_expect_float_eq((double)got[i], 1000 * (i + 1), 150, "group %d has %u", i, got[i]);
    up(p, 6, 8, 0); /* a third of the last one is left: as much as the first one has */
    shares(p, got, 4000, NULL);
    cr_expect_float_eq((double)got[0], 1000, 150);
    cr_expect_float_eq((double)got[1], 2000, 150);
    cr_expect_float_eq((double)got[2], 1000, 150);
    cb_lb_pool_free(p);
    /* a hash stays with its group */
    p = groups_of(CB_LB_MAGLEV, CB_LB_PREFER_NONE, g);
    for (uint64_t i = 1; i < 200; i++) {
        const uint32_t first = pick(p, S, hash_of(i));
        for (int k = 0; k < 5; k++)
            cr_assert_eq(pick(p, S, hash_of(i)), first);
    }
    cb_lb_pool_free(p);
}

Test(lb_pool, cost_latency_and_place) {
    static const cb_lb_group g[] = {
        GROUP(.geo = "eu-west", .cost = 3, .latency_us = 10000, .priority = 1),
        GROUP(.geo = "us-east", .cost = 1, .latency_us = 11900, .priority = 0),
        GROUP(.geo = "eu-west", .cost = 1, .latency_us = 90000, .priority = 2),
    };
    static const struct {
        int prefer;
        const char *geo;
        bool serves[3];
    } rows[] = {
        {CB_LB_PREFER_COST, NULL, {false, true, true}},       {CB_LB_PREFER_LATENCY, NULL, {true, true, false}},
        {CB_LB_PREFER_GEO, "eu-west", {true, false, false}},  {CB_LB_PREFER_GEO, "us-east", {false, true, false}},
        {CB_LB_PREFER_GEO, "ap-south", {false, true, false}}, {CB_LB_PREFER_GEO, NULL, {false, true, false}},
        {CB_LB_PREFER_NONE, "eu-west", {true, true, true}},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        cb_lb_pool *p = groups_of(CB_LB_DEFAULT, rows[i].prefer, g);
        uint32_t got[3];
        shares(p, got, 300, rows[i].geo);
        for (int k = 0; k < 3; k++)
            cr_expect_eq(got[k] > 0, rows[i].serves[k], "row %zu: group %d has %u", i, k, got[k]);
        cb_lb_pool_free(p);
    }
    cb_lb_pool *p = groups_of(CB_LB_DEFAULT, CB_LB_PREFER_LATENCY, g);
    uint32_t got[3];
    cr_assert_eq(cb_lb_pool_label(p, 2, CB_OPTS(cb_lb_group, .latency_us = 500)), CB_OK); /* measured anew */
    shares(p, got, 300, NULL);
    cr_expect_eq(got[2], 300);
    cb_lb_pool_free(p);
}

Test(lb_pool, what_is_refused) {
    cb_lb_pool *p;
    const cb_lb_pool_opts bad[] = {
        {.size = sizeof bad[0], .policy = 8},          {.size = sizeof bad[0], .policy = -1},
        {.size = sizeof bad[0], .prefer = 5},          {.size = sizeof bad[0], .load_percent = 100},
        {.size = sizeof bad[0], .spill_percent = 101},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        cr_expect_eq(cb_lb_pool_new(&p, &bad[i]), CB_EINVAL, "row %zu", i);
    cr_expect_eq(cb_lb_pool_new(NULL, NULL), CB_EINVAL);
    cr_assert_eq(cb_lb_pool_new(&p, NULL), CB_OK);
    cr_expect_eq(cb_lb_pool_pick(p, CB_OPTS(cb_lb_call, .now = 1)), CB_ENOENT, "empty");
    cr_expect_eq(cb_lb_pool_add(p, CB_OPTS(cb_lb_backend, .weight = 1)), CB_EINVAL);
    cr_expect_eq(cb_lb_pool_add(p, CB_OPTS(cb_lb_backend, .id = 1, .weight = 65536)), CB_EINVAL);
    cr_expect_eq(cb_lb_pool_add(p, CB_OPTS(cb_lb_backend, .id = 1, .weight = 1, .group = 1)), CB_ENOENT);
    cr_expect_eq(cb_lb_pool_add(p, CB_OPTS(cb_lb_backend, .id = 1, .weight = 1)), 0);
    cr_expect_eq(cb_lb_pool_add(p, CB_OPTS(cb_lb_backend, .id = 1, .weight = 1)), CB_EEXIST);
    cr_expect_eq(cb_lb_pool_group(p, CB_OPTS(cb_lb_group, .geo = "sixteen bytes it")), CB_EINVAL);
    cr_expect_eq(cb_lb_pool_label(p, 1, CB_OPTS(cb_lb_group, .cost = 1)), CB_ENOENT);
    cr_expect_eq(cb_lb_pool_set(p, 1, 1, 1), CB_ENOENT);
    cr_expect_eq(cb_lb_pool_set(p, 0, 65536, 1), CB_EINVAL);
    cr_expect_eq(cb_lb_pool_done(p, 0, 5, 0, 1), CB_EINVAL);
    cr_expect_eq(cb_lb_pool_done(p, 1, CB_LB_WORKED, 0, 1), CB_ENOENT);
    cb_lb_backend_stats s = {.size = sizeof s};
    cr_expect_eq(cb_lb_pool_stats_get(p, 1, &s), CB_ENOENT);
    cb_lb_pool_free(p);
    cb_lb_pool_free(NULL);
}
