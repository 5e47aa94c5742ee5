/* One endpoint that is checked, in virtual time: what results come to, when checks are due, ramps, flaps, clocks. */
#include <cb/lb.h>
#include <criterion/criterion.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MS 1000000ull
#define S  1000000000ull

static cb_health *health(const cb_health_opts *o, cb_time now) {
    cb_health *h = NULL;
    cr_assert_eq(cb_health_new(&h, o, now), CB_OK, "%s", cb_last_error());
    return h;
}

static cb_health_status status(const cb_health *h, cb_time now) {
    cb_health_status s = {.size = sizeof s};
    cr_assert_eq(cb_health_status_get(h, &s, now), CB_OK);
    return s;
}

static int feed(cb_health *h, bool passed, cb_time now) {
    return cb_health_feed(h, CB_OPTS(cb_health_result, .passed = passed, .reason = passed ? "good" : "bad"), now);
}

/* The next check, with its result at once. Returns when it was. */
static cb_time check(cb_health *h, bool passed) {
    for (;;) {
        const cb_time at = cb_health_next(h);
        cr_assert_neq(at, UINT64_MAX);
        const int action = cb_health_run(h, at);
        if (action != CB_HEALTH_CHECK) continue;
        (void)feed(h, passed, at);
        return at;
    }
}

/* Results as a text, + and -, and the state after each: u, d, ? */
Test(health, rise_and_fall) {
    static const struct {
        uint32_t rise, fall;
        const char *results, *states;
    } rows[] = {
        {2, 3, "+", "u"},
        {2, 3, "-", "d"}, /* the first one decides alone */
        {2, 3, "+--+---++", "uuuuuuddu"},
        {2, 3, "+--+--+--+---", "uuuuuuuuuuuud"},
        {1, 1, "+-+-", "udud"},
        {3, 1, "+-++-+++",
         "udddd"
         "ddu"},
        {2, 2, "-+-+-++", "ddddddu"},
        {5, 2, "-++++-+++++",
         "dddddddddd"
         "u"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cb_health *h = health(CB_OPTS(cb_health_opts, .rise = rows[i].rise, .fall = rows[i].fall, .no_damping = 1), 0);
        cr_expect_eq(status(h, 0).state, CB_HEALTH_UNKNOWN);
        for (size_t k = 0; rows[i].results[k]; k++) {
            const cb_time at = check(h, rows[i].results[k] == '+');
            const int state = status(h, at).state, want = rows[i].states[k] == 'u' ? CB_HEALTH_UP : CB_HEALTH_DOWN;
            cr_expect_eq(state, want, "row %zu, after %zu: %s", i, k, cb_health_state_name(state));
        }
        cb_health_free(h);
    }
}

/* 200 endpoints, 400 random results each: against a model that counts by itself. */
Test(health, rise_and_fall_hold_for_random_results) {
    uint64_t chance = 17;
    for (int round = 0; round < 200; round++) {
        const uint32_t rise = 1 + (uint32_t)round % 5, fall = 1 + (uint32_t)round / 5 % 5;
        cb_health *h =
            health(CB_OPTS(cb_health_opts, .rise = rise, .fall = fall, .no_damping = 1, .seed = (uint64_t)round), 5);
        uint32_t row = 0;
        bool up = false, last = false, known = false;
        for (int i = 0; i < 400; i++) {
            chance = chance * 6364136223846793005u + 1442695040888963407u;
            const bool passed = chance >> 60 < 4 + (uint64_t)(round % 9);
            const cb_time at = check(h, passed);
            row = known && passed == last ? row + 1 : 1;
            last = passed;
            if (!known || row >= (passed ? rise : fall)) up = passed;
            known = true;
            cr_assert_eq(status(h, at).state, up ? CB_HEALTH_UP : CB_HEALTH_DOWN, "round %d, result %d", round, i);
        }
        const cb_health_status s = status(h, cb_health_next(h));
        cr_expect_eq(s.passed + s.failed, 400);
        cb_health_free(h);
    }
}

/* Intervals with jitter: even over the whole range (chi-square with 19 degrees of freedom is above 43.8 once in a
 * thousand), none outside, and endpoints of different seeds do not come together. */
Test(health, jitter_is_even_and_bounded) {
    enum { N = 20000, BINS = 20 };
    int bins[BINS] = {0};
    double chi = 0;
    cb_health *h = health(CB_OPTS(cb_health_opts, .interval_ms = 1000, .jitter_percent = 20, .seed = 4711), 0);
    cb_time before = check(h, true);
    for (int i = 0; i < N; i++) {
        const cb_time at = check(h, true), gap = at - before;
        cr_assert(gap >= 800 * MS && gap <= 1200 * MS, "%llu", (unsigned long long)gap);
        size_t bin = (size_t)((gap - 800 * MS) * BINS / (400 * MS + 1));
        bins[bin]++;
        before = at;
    }
    for (int i = 0; i < BINS; i++)
        chi += (bins[i] - N / BINS) * (double)(bins[i] - N / BINS) / (N / BINS);
    cr_expect_lt(chi, 43.8, "chi-square %.1f", chi);
    cb_health_free(h);
    /* the first checks of 500 endpoints within a fast interval: in each tenth of it some */
    int tenths[10] = {0};
    for (uint64_t seed = 0; seed < 500; seed++) {
        cb_health *one = health(CB_OPTS(cb_health_opts, .interval_ms = 5000, .seed = seed * 7919), 3 * S);
        const cb_time first = cb_health_next(one) - 3 * S;
        cr_assert_lt(first, 1 * S);
        tenths[first / (100 * MS)]++;
        cb_health_free(one);
    }
    for (int i = 0; i < 10; i++)
        cr_expect(tenths[i] > 20 && tenths[i] < 90, "%d", tenths[i]);
}

Test(health, doubt_makes_checks_fast) {
    const cb_health_opts o = {
        .size = sizeof o, .interval_ms = 10000, .fast_interval_ms = 500, .no_jitter = 1, .fall = 3, .rise = 2};
    cb_health *h = health(&o, 0);
    cr_expect_eq(check(h, true), 0);
    static const struct {
        bool passed;
        uint64_t after_ms; /* when this check comes after the one before */
    } rows[] = {{true, 10000},  {false, 10000}, {false, 500}, {false, 500},
                {false, 10000}, {true, 10000},  {true, 500},  {true, 10000}};
    cb_time before = 0;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const cb_time at = check(h, rows[i].passed);
        cr_expect_eq(at - before, rows[i].after_ms * MS, "row %zu: %llu", i, (unsigned long long)(at - before));
        before = at;
    }
    /* somebody has doubts: at once, but no sooner than a fast interval after the last */
    cb_health_suspect(h, before + 100 * MS);
    cr_expect_eq(cb_health_next(h), before + 500 * MS);
    cb_health_suspect(h, before + 3000 * MS);
    cr_expect_eq(cb_health_next(h), before + 500 * MS, "what is due sooner stays");
    before = check(h, true);
    cb_health_suspect(h, before + 3000 * MS);
    cr_expect_eq(cb_health_next(h), before + 3000 * MS);
    cb_health_free(h);
}

Test(health, a_check_that_does_not_end_has_failed) {
    const cb_health_opts o = {.size = sizeof o, .interval_ms = 5000, .timeout_ms = 700, .no_jitter = 1, .fall = 1};
    cb_health *h = health(&o, S);
    cr_expect_eq(cb_health_run(h, S), CB_HEALTH_CHECK);
    cr_expect_eq(cb_health_run(h, S + 1), CB_HEALTH_WAIT, "one check at a time");
    cr_expect_eq(cb_health_next(h), S + 700 * MS);
    cr_expect_eq(cb_health_run(h, S + 700 * MS), CB_HEALTH_GIVE_UP);
    cb_health_status s = status(h, S + 700 * MS);
    cr_expect_eq(s.state, CB_HEALTH_DOWN);
    cr_expect_eq(s.timeouts, 1);
    cr_expect_str_eq(s.reason, "no answer within 700 ms");
    cr_expect_eq(feed(h, true, S + 701 * MS), CB_EAGAIN, "it came too late");
    cr_expect_eq(status(h, S + 701 * MS).state, CB_HEALTH_DOWN);
    cb_health_free(h);
}

Test(health, slow_start) {
    const cb_health_opts o = {.size = sizeof o,
                              .interval_ms = 60000,
                              .no_jitter = 1,
                              .rise = 1,
                              .fall = 1,
                              .slow_start_ms = 10000,
                              .slow_start_percent = 20};
    cb_health *h = health(&o, 0);
    cr_expect_eq(status(h, 0).weight, 100, "not known: it counts as up");
    cb_time at = check(h, true);
    cr_expect_eq(status(h, at).weight, 100, "it was used all the time");
    at = check(h, false);
    cr_expect_eq(status(h, at).weight, 0);
    at = check(h, true);
    uint32_t before = status(h, at).weight, steps = 0;
    cr_expect_eq(before, 20);
    for (cb_time t = at; t < at + 10 * S;) { /* changes come at each step, and only there */
        t = cb_health_next(h);
        cr_expect_eq(cb_health_run(h, t), CB_HEALTH_WAIT);
        const uint32_t w = status(h, t).weight;
        cr_expect_gt(w, before);
        before = w;
        steps++;
    }
    cr_expect_eq(before, 100);
    cr_expect_eq(steps, 20);
    cr_expect_eq(status(h, at + 5 * S).weight, 60);
    cb_health_change c = {.size = sizeof c};
    uint32_t ramps = 0, last = 0;
    while (cb_health_take(h, &c) == CB_OK) {
        ramps += c.cause == CB_HEALTH_BY_RAMP;
        last = c.weight;
        cr_expect_eq(c.from, c.to == CB_HEALTH_UP && c.cause == CB_HEALTH_BY_RAMP ? CB_HEALTH_UP : c.from);
    }
    cr_expect_eq(ramps, CB_HEALTH_EVENTS, "the oldest went");
    cr_expect_eq(last, 100);
    cb_health_free(h);
    /* one that counts as down before its first result begins low, too */
    cb_health_opts cold = o;
    cold.unknown_is_down = 1;
    h = health(&cold, 0);
    cr_expect_eq(status(h, 0).weight, 0);
    at = check(h, true);
    cr_expect_eq(status(h, at).weight, 20);
    cb_health_free(h);
}

/* The third fall within a minute leaves it out although checks pass; the penalty halves each minute. */
Test(health, flaps_are_damped) {
    const cb_health_opts o = {
        .size = sizeof o, .interval_ms = 1000, .fast_interval_ms = 1000, .no_jitter = 1, .rise = 1, .fall = 1};
    cb_health *h = health(&o, 0);
    cb_time at = check(h, true);
    for (int i = 0; i < 2; i++) {
        check(h, false);
        at = check(h, true);
        cr_expect_eq(status(h, at).state, CB_HEALTH_UP, "fall %d", i);
    }
    check(h, false);
    at = check(h, true);
    cb_health_status s = status(h, at);
    cr_expect_eq(s.state, CB_HEALTH_DOWN);
    cr_expect_eq(s.cause, CB_HEALTH_BY_DAMPING);
    cr_expect_eq(s.flaps, 3);
    cr_expect_eq(s.suppressed, 1);
    cr_expect(s.penalty > 2800 && s.penalty < 3000, "%u", s.penalty);
    /* 2,950 or so fades to 750 in a little under two half lives */
    cr_expect(s.until > at + 115 * S && s.until < at + 120 * S, "%llu", (unsigned long long)(s.until - at));
    const cb_time until = s.until;
    while (cb_health_next(h) < until)
        at = check(h, true);
    cr_expect_eq(status(h, at).state, CB_HEALTH_DOWN);
    cr_expect_eq(cb_health_run(h, until), CB_HEALTH_WAIT);
    s = status(h, until);
    cr_expect_eq(s.state, CB_HEALTH_UP);
    cr_expect(s.penalty > 740 && s.penalty < 752, "%u", s.penalty);
    /* each one told, with the reason that a person needs */
    cb_health_change c = {.size = sizeof c};
    bool told = false;
    for (uint64_t n = 1; cb_health_take(h, &c) == CB_OK; n++) {
        cr_expect_eq(c.number, n);
        told |= c.cause == CB_HEALTH_BY_DAMPING && c.until == until && strstr(c.reason, "up and down");
    }
    cr_expect(told);
    cb_health_free(h);
    /* whatever it does, it is never left out for longer than flap_max_ms after its last fall */
    cb_health_opts worst = o;
    worst.flap_max_ms = 30000;
    h = health(&worst, 0);
    for (int i = 0; i < 201; i++)
        at = check(h, i % 2 == 0);
    s = status(h, at);
    cr_expect_leq(s.until, at + 30 * S);
    cr_expect_gt(s.until, at + 28 * S);
    cb_health_free(h);
    cb_health_opts off = o;
    off.no_damping = 1;
    h = health(&off, 0);
    for (int i = 0; i < 200; i++)
        at = check(h, i % 2 != 0);
    s = status(h, at);
    cr_expect_eq(s.state, CB_HEALTH_UP);
    cr_expect_eq(s.flaps, 99);
    cr_expect_eq(s.suppressed, 0);
    cb_health_free(h);
}

Test(health, operators_decide) {
    const cb_health_opts o = {.size = sizeof o, .rise = 1, .fall = 1, .no_jitter = 1, .slow_start_ms = 1000};
    cb_health *h = health(&o, 0);
    cb_time at = check(h, true);
    cr_expect_eq(cb_health_override(h, CB_HEALTH_FORCE_DRAIN, "disk change", at), 1);
    cb_health_status s = status(h, at);
    cr_expect_eq(s.state, CB_HEALTH_DRAINING);
    cr_expect_eq(s.weight, 0);
    cr_expect_str_eq(s.reason, "an operator said so: disk change");
    at = check(h, false);
    cr_expect_eq(status(h, at).state, CB_HEALTH_DRAINING, "checks go on, and do not decide");
    cr_expect_eq(cb_health_override(h, CB_HEALTH_FORCE_UP, NULL, at), 1);
    cr_expect_eq(status(h, at).state, CB_HEALTH_UP);
    cr_expect_eq(status(h, at).weight, 100);
    cr_expect_eq(cb_health_override(h, CB_HEALTH_FORCE_UP, NULL, at), 0);
    cr_expect_eq(cb_health_override(h, CB_HEALTH_AS_CHECKED, NULL, at), 1);
    cr_expect_eq(status(h, at).state, CB_HEALTH_DOWN);
    cr_expect_eq(cb_health_override(h, CB_HEALTH_FORCE_DOWN, "x", at), 1, "the cause is another");
    cr_expect_eq(cb_health_override(h, 9, NULL, at), CB_EINVAL);
    cb_health_free(h);
}

/* Hours at once: one check is due, not many; what ran then says nothing. Back by an hour: checks go on as planned. */
Test(health, clocks_may_jump) {
    const cb_health_opts o = {.size = sizeof o,
                              .interval_ms = 1000,
                              .timeout_ms = 500,
                              .no_jitter = 1,
                              .fall = 1,
                              .rise = 1,
                              .flap_suppress = 900};
    cb_health *h = health(&o, 7200 * S);
    cb_time at = check(h, true) + 3600 * S;
    int checks = 0;
    for (cb_time t = at; t < at + 10 * S; t += 10 * MS) {
        if (cb_health_run(h, t) != CB_HEALTH_CHECK) continue;
        checks++;
        feed(h, true, t);
    }
    cr_expect_eq(checks, 10, "%d checks in ten seconds", checks);
    /* asleep in the middle of a check */
    at = cb_health_next(h);
    cr_expect_eq(cb_health_run(h, at), CB_HEALTH_CHECK);
    at += 3600 * S;
    cr_expect_eq(cb_health_run(h, at), CB_HEALTH_GIVE_UP);
    cb_health_status s = status(h, at);
    cr_expect_eq(s.state, CB_HEALTH_UP);
    cr_expect_eq(s.voided, 1);
    cr_expect_eq(s.failed, 0);
    cr_expect_leq(cb_health_next(h), at + 1 * S);
    at = check(h, true);
    /* back by an hour, idle */
    at -= 3600 * S;
    checks = 0;
    for (cb_time t = at; t < at + 10 * S; t += 10 * MS) {
        if (cb_health_run(h, t) != CB_HEALTH_CHECK) continue;
        checks++;
        feed(h, true, t);
    }
    cr_expect_geq(checks, 9, "%d", checks);
    cr_expect_leq(checks, 10, "%d", checks);
    /* back while a check runs: it still has its time, and no more than that */
    at = cb_health_next(h);
    cr_expect_eq(cb_health_run(h, at), CB_HEALTH_CHECK);
    at -= 1800 * S;
    cr_expect_eq(cb_health_run(h, at), CB_HEALTH_WAIT);
    cr_expect_eq(cb_health_next(h), at + 500 * MS);
    cr_expect_eq(cb_health_run(h, at + 500 * MS), CB_HEALTH_GIVE_UP);
    /* back while it is left out: for as long as was said, not for an hour more */
    at = check(h, true);
    s = status(h, at);
    cr_assert_eq(s.cause, CB_HEALTH_BY_DAMPING);
    const uint64_t left = s.until - at;
    at -= 100 * S;
    (void)cb_health_run(h, at);
    cr_expect_eq(status(h, at).until - at, left);
    cb_health_free(h);
}

Test(health, what_is_wrong_is_said) {
    static const struct {
        cb_health_opts o;
        const char *says;
    } rows[] = {
        {{.size = sizeof(cb_health_opts), .jitter_percent = 51}, "jitter_percent is 51"},
        {{.size = sizeof(cb_health_opts), .slow_start_percent = 101}, "slow_start_percent is 101"},
        {{.size = sizeof(cb_health_opts), .flap_suppress = 500}, "flap_suppress (500)"},
        {{.size = sizeof(cb_health_opts), .interval_ms = 100, .fast_interval_ms = 200}, "fast_interval_ms (200)"},
        {{.size = 0}, "size"}};
    cb_health *h = NULL;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cr_expect_eq(cb_health_new(&h, &rows[i].o, 0), CB_EINVAL);
        cr_expect(strstr(cb_last_error(), rows[i].says), "%zu: %s", i, cb_last_error());
    }
    cr_expect_eq(cb_health_new(NULL, NULL, 0), CB_EINVAL);
    h = health(NULL, 0);
    cr_expect_eq(cb_health_feed(h, NULL, 0), CB_EINVAL);
    cr_expect_eq(feed(h, true, 0), CB_EAGAIN);
    cr_expect_null(cb_health_state_name(4));
    cr_expect_null(cb_health_cause_name(-1));
    cb_health_free(h);
    cb_health_free(NULL);
}

/* What a table makes of it. */
Test(health, changes_become_members) {
    static const struct {
        int to;
        uint32_t weight, own, state, wants;
    } rows[] = {{CB_HEALTH_UP, 100, 200, CB_LB_UP, 200},
                {CB_HEALTH_UP, 25, 200, CB_LB_UP, 50},
                {CB_HEALTH_UP, 10, 3, CB_LB_UP, 1},
                {CB_HEALTH_DOWN, 0, 200, CB_LB_DEAD, 200},
                {CB_HEALTH_DRAINING, 0, 7, CB_LB_DRAINING, 7},
                {CB_HEALTH_UNKNOWN, 100, 7, CB_LB_UP, 7},
                {CB_HEALTH_UNKNOWN, 0, 7, CB_LB_DEAD, 7}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cb_lb_member m;
        const cb_health_change c = {.size = sizeof c, .id = 9, .to = rows[i].to, .weight = rows[i].weight};
        cr_assert_eq(cb_lb_member_health(&m, rows[i].own, &c), CB_OK);
        cr_expect_eq(m.id, 9);
        cr_expect_eq((uint32_t)m.state, rows[i].state, "row %zu", i);
        cr_expect_eq(m.weight, rows[i].wants, "row %zu: %u", i, m.weight);
    }
    cr_expect_eq(cb_lb_member_health(NULL, 1, NULL), CB_EINVAL);
}
