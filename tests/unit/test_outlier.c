/* Who is left out for what calls come to: each rule, how long, and never too many. */
#include <cb/lb.h>
#include <criterion/criterion.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MS 1000000ull
#define S  1000000000ull

static cb_outlier *set_of(uint32_t n, const cb_outlier_opts *opts) {
    cb_outlier *o = NULL;
    cr_assert_eq(cb_outlier_new(&o, opts), CB_OK, "%s", cb_last_error());
    for (uint32_t i = 0; i < n; i++)
        cr_assert_eq(cb_outlier_add(o), (int)i);
    return o;
}

static cb_outlier_stats stats(const cb_outlier *o, uint32_t i) {
    cb_outlier_stats s = {.size = sizeof s};
    cr_assert_eq(cb_outlier_stats_get(o, i, &s), CB_OK);
    return s;
}

/* Calls in their order: + . worked, e error, f failed, c no way; which one (from 1) leaves it out, and by which rule.
 */
Test(outlier, calls) {
    static const struct {
        cb_outlier_opts o;
        const char *calls;
        int at, rule;
    } rows[] = {
        {{.size = sizeof(cb_outlier_opts)}, "ffffccccceeeee", 0, 0},
        {{.size = sizeof(cb_outlier_opts), .max_fails = 3}, "f+f+f", 5, CB_OUTLIER_BY_FAILS},
        {{.size = sizeof(cb_outlier_opts), .max_fails = 3}, "eeeee", 0, 0},
        {{.size = sizeof(cb_outlier_opts), .max_fails = 2}, "cf", 2, CB_OUTLIER_BY_FAILS},
        {{.size = sizeof(cb_outlier_opts), .consecutive_errors = 3}, "ee+eef", 6, CB_OUTLIER_BY_CONSECUTIVE},
        {{.size = sizeof(cb_outlier_opts), .consecutive_errors = 3}, "ee+ff+ce", 0, 0},
        {{.size = sizeof(cb_outlier_opts), .connect_fails = 2}, "cfc+cc", 6, CB_OUTLIER_BY_CONNECT},
        {{.size = sizeof(cb_outlier_opts), .connect_fails = 2}, "cecfc+", 0, 0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cb_outlier *o = set_of(2, &rows[i].o);
        int at = 0;
        for (int k = 0; rows[i].calls[k]; k++) {
            const char c = rows[i].calls[k];
            const int result = c == '+'   ? CB_OUTLIER_WORKED
                               : c == 'e' ? CB_OUTLIER_ERROR
                               : c == 'f' ? CB_OUTLIER_FAILED
                                          : CB_OUTLIER_CONNECT;
            if (cb_outlier_report(o, 0, result, 0, (cb_time)(k + 1) * MS) == 1) at = k + 1;
        }
        cr_expect_eq(at, rows[i].at, "row %zu: call %d", i, at);
        cr_expect_eq(stats(o, 0).rule, rows[i].rule, "row %zu", i);
        cr_expect_eq(cb_outlier_take(o), at ? 0 : CB_ENOENT);
        cr_expect_eq(cb_outlier_take(o), CB_ENOENT);
        cb_outlier_free(o);
    }
}

/* An interval of 100 calls for each of ten: so many errors in a hundred, and so much latency, of each. */
static void interval(cb_outlier *o, uint32_t n, const int *errors, const uint64_t *ms, cb_time from) {
    for (int k = 0; k < 100; k++)
        for (uint32_t i = 0; i < n; i++)
            (void)cb_outlier_report(o, i, k < errors[i] ? CB_OUTLIER_ERROR : CB_OUTLIER_WORKED, (ms ? ms[i] : 5) * MS,
                                    from + (cb_time)k * 50 * MS);
    (void)cb_outlier_run(o, from + 10 * S);
}

Test(outlier, rates_and_latencies) {
    enum { N = 10 };
    static const struct {
        cb_outlier_opts o;
        int errors[N];
        uint64_t ms[N];
        const char *out; /* for each: x */
        int rule;
    } rows[] = {
        {{.size = sizeof(cb_outlier_opts), .error_percent = 50},
         {0, 49, 50, 2},
         {0},
         "..x.......",
         CB_OUTLIER_BY_ERRORS},
        {{.size = sizeof(cb_outlier_opts), .error_percent = 50, .min_requests = 101}, {0, 0, 50}, {0}, "..........", 0},
        {{.size = sizeof(cb_outlier_opts), .success_deviations = 1900},
         {1, 2, 1, 30, 2, 1, 1, 2, 1, 1},
         {0},
         "...x......",
         CB_OUTLIER_BY_SUCCESS},
        {{.size = sizeof(cb_outlier_opts), .success_deviations = 1900},
         {30, 30, 30, 30, 30, 30, 30, 30, 30, 30},
         {0},
         "..........",
         0},
        {{.size = sizeof(cb_outlier_opts), .success_deviations = 1900, .min_endpoints = 11},
         {1, 2, 1, 30},
         {0},
         "..........",
         0},
        {{.size = sizeof(cb_outlier_opts), .latency_percent = 300},
         {0},
         {10, 11, 12, 9, 35, 10, 29, 10, 10, 10},
         "....x.....",
         CB_OUTLIER_BY_LATENCY},
        {{.size = sizeof(cb_outlier_opts), .latency_percent = 300},
         {0},
         {10, 10, 100, 100, 100, 100, 100, 100, 100, 100},
         "..........",
         0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cb_outlier *o = set_of(N, &rows[i].o);
        interval(o, N, rows[i].errors, rows[i].o.latency_percent ? rows[i].ms : NULL, 1 * S);
        for (uint32_t k = 0; k < N; k++) {
            const bool out = cb_outlier_is_out(o, k, 12 * S) == 1;
            cr_expect_eq(out, rows[i].out[k] == 'x', "row %zu, endpoint %u", i, k);
            if (out) cr_expect_eq(stats(o, k).rule, rows[i].rule);
        }
        cb_outlier_free(o);
    }
}

/* An interval that nobody closed for long is of no use: no judgement by it. */
Test(outlier, what_is_old_judges_nobody) {
    cb_outlier *o = set_of(4, CB_OPTS(cb_outlier_opts, .error_percent = 10, .max_eject_percent = 100));
    for (int k = 0; k < 50; k++)
        (void)cb_outlier_report(o, 0, CB_OUTLIER_ERROR, 0, S);
    cr_expect_eq(cb_outlier_run(o, 500 * S), 0);
    cr_expect_eq(cb_outlier_is_out(o, 0, 500 * S), 0);
    cb_outlier_free(o);
}

/* Each time longer, up to the most; an interval without makes it one less; back by the clock changes nothing. */
Test(outlier, repetition_makes_it_longer) {
    cb_outlier *o = set_of(
        2, CB_OPTS(cb_outlier_opts, .connect_fails = 1, .eject_ms = 1000, .max_eject_ms = 3500, .interval_ms = 10000));
    static const uint64_t ms[] = {1000, 2000, 3000, 3500, 3500};
    cb_time now = 1 * S;
    for (size_t i = 0; i < sizeof ms / sizeof *ms; i++) {
        cr_expect_eq(cb_outlier_report(o, 0, CB_OUTLIER_CONNECT, 0, now), 1);
        cr_expect_eq(stats(o, 0).out_until - now, ms[i] * MS, "the %zu. time", i + 1);
        cr_expect_eq(cb_outlier_is_out(o, 0, now + ms[i] * MS - 1), 1);
        now += ms[i] * MS;
        cr_expect_eq(cb_outlier_is_out(o, 0, now), 0);
    }
    (void)cb_outlier_run(o, now += 10 * S);
    const uint32_t times = stats(o, 0).times;
    cr_expect_geq(times, 3);
    (void)cb_outlier_run(o, now += 10 * S);
    (void)cb_outlier_run(o, now += 10 * S);
    cr_expect_eq(stats(o, 0).times, times - 2, "%u", stats(o, 0).times);
    (void)cb_outlier_run(o, now += 1000 * S);
    cr_expect_eq(stats(o, 0).times, 0, "nobody was asked for many intervals");
    cr_expect_eq(cb_outlier_report(o, 0, CB_OUTLIER_CONNECT, 0, now), 1);
    const uint64_t left = stats(o, 0).out_until - now;
    now -= 50 * S;
    (void)cb_outlier_run(o, now);
    cr_expect_eq(stats(o, 0).out_until - now, left);
    cr_expect_eq(cb_outlier_readmit(o, 0), CB_OK);
    cr_expect_eq(cb_outlier_is_out(o, 0, now), 0);
    cb_outlier_free(o);
}

/* Whatever 200,000 random calls come to, with endpoints that leave and return: never more than the share, one stays. */
Test(outlier, the_share_is_never_exceeded) {
    static const uint32_t percents[] = {1, 10, 33, 50, 99, 100};
    uint64_t chance = 99;
    for (size_t p = 0; p < sizeof percents / sizeof *percents; p++) {
        const uint32_t n = 1 + (uint32_t)(p * 3);
        bool here[20];
        uint64_t ejected = 0, spared = 0;
        cb_outlier *o =
            set_of(n, CB_OPTS(cb_outlier_opts, .consecutive_errors = 2, .connect_fails = 1, .error_percent = 30,
                              .latency_percent = 150, .success_deviations = 500, .min_requests = 3, .interval_ms = 100,
                              .eject_ms = 200, .max_eject_ms = 1000, .max_eject_percent = percents[p]));
        memset(here, 1, sizeof here);
        for (int k = 0; k < 40000; k++) {
            chance = chance * 6364136223846793005u + 1442695040888963407u;
            const uint32_t i = (uint32_t)(chance >> 33) % n;
            const cb_time now = (cb_time)(k + 1) * MS;
            if (chance >> 62 == 0 && k % 50 == 0) {
                uint32_t out = 0;
                for (uint32_t e = 0; e < n; e++)
                    out += cb_outlier_is_out(o, e, now) == 1;
                if (!out ||
                    here[i]) { /* who returns, or goes, while nobody is out: the share is of those that are there */
                    here[i] = !here[i] || out > 0;
                    cb_outlier_present(o, i, here[i]);
                }
            }
            (void)cb_outlier_report(o, i, (int)(chance >> 40) & 3, (1 + (chance >> 50) % 20) * MS, now);
            uint32_t out = 0, all = 0;
            for (uint32_t e = 0; e < n; e++) {
                all += here[e];
                out += here[e] && cb_outlier_is_out(o, e, now) == 1;
            }
            cr_assert(out * 100 <= all * percents[p] && (out == 0 || out < all), "%u of %u with %u percent", out, all,
                      percents[p]);
        }
        for (uint32_t e = 0; e < n; e++) {
            const cb_outlier_stats s = stats(o, e);
            for (int r = 0; r < CB_OUTLIER_RULES; r++)
                ejected += s.ejections[r];
            spared += s.spared;
        }
        cr_expect_gt(spared, 0, "%u percent", percents[p]);
        if (n * percents[p] / 100 >= 1 && n > 1) cr_expect_gt(ejected, 0, "%u percent of %u", percents[p], n);
        cb_outlier_free(o);
    }
}

Test(outlier, what_is_wrong_is_said) {
    static const struct {
        cb_outlier_opts o;
        const char *says;
    } rows[] = {{{.size = sizeof(cb_outlier_opts), .error_percent = 101}, "error_percent is 101"},
                {{.size = sizeof(cb_outlier_opts), .latency_percent = 100}, "latency_percent is 100"},
                {{.size = sizeof(cb_outlier_opts), .max_eject_percent = 101}, "max_eject_percent is 101"},
                {{.size = sizeof(cb_outlier_opts), .eject_ms = 2, .max_eject_ms = 1}, "max_eject_ms (1)"}};
    cb_outlier *o = NULL;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cr_expect_eq(cb_outlier_new(&o, &rows[i].o), CB_EINVAL);
        cr_expect(strstr(cb_last_error(), rows[i].says), "%s", cb_last_error());
    }
    o = set_of(1, NULL);
    cr_expect_eq(cb_outlier_report(o, 1, 0, 0, 0), CB_ENOENT);
    cr_expect_eq(cb_outlier_report(o, 0, 4, 0, 0), CB_EINVAL);
    cr_expect_eq(cb_outlier_is_out(o, 1, 0), CB_ENOENT);
    cr_expect_eq(cb_outlier_present(o, 1, 0), CB_ENOENT);
    cr_expect_eq(cb_outlier_readmit(o, 1), CB_ENOENT);
    cr_expect_null(cb_outlier_rule_name(CB_OUTLIER_RULES));
    cr_expect_str_eq(cb_outlier_rule_name(CB_OUTLIER_BY_LATENCY), "latency");
    cb_outlier_free(o);
    cb_outlier_free(NULL);
}

/* ---- in a pool ---- */

static uint64_t picks(const cb_lb_pool *p, uint32_t i) {
    cb_lb_backend_stats s = {.size = sizeof s};
    cr_assert_eq(cb_lb_pool_stats_get(p, i, &s), CB_OK);
    return s.picks;
}

static cb_lb_pool *pool_of(int policy, uint32_t n, uint32_t weight, const cb_outlier_opts *rules, int strict) {
    cb_lb_pool *p = NULL;
    cr_assert_eq(cb_lb_pool_new(&p, CB_OPTS(cb_lb_pool_opts, .policy = policy, .seed = 7, .outliers = rules,
                                            .down_is_out = (uint8_t)strict)),
                 CB_OK);
    for (uint32_t i = 0; i < n; i++)
        cr_assert_eq(cb_lb_pool_add(p, CB_OPTS(cb_lb_backend, .id = 1 + i, .weight = weight)), (int)i);
    return p;
}

static void call(cb_lb_pool *p, uint32_t times) {
    for (uint32_t k = 0; k < times; k++) {
        const cb_time now = (cb_time)(k + 1) * MS;
        const int64_t i = cb_lb_pool_pick(p, CB_OPTS(cb_lb_call, .now = now, .hash = (k + 1) * 0x9e3779b97f4a7c15u));
        if (i >= 0) (void)cb_lb_pool_done(p, (uint32_t)i, CB_LB_WORKED, MS, now);
    }
}

/* A share of a tenth is a tenth of what others get, by each policy that goes by weight, also of a weight of 1. */
Test(outlier, pools_heed_shares) {
    static const int policies[] = {CB_LB_ROUND_ROBIN, CB_LB_POWER_OF_TWO, CB_LB_IP_HASH, CB_LB_MAGLEV};
    for (size_t i = 0; i < sizeof policies / sizeof *policies; i++) {
        for (uint32_t weight = 1; weight <= 500; weight += 499) {
            cb_lb_pool *p = pool_of(policies[i], 3, weight, NULL, 0);
            cr_assert_eq(cb_lb_pool_share(p, 1, 10), CB_OK);
            call(p, 21000);
            cr_expect_float_eq((double)picks(p, 1) / 1000, 1, 0.15, "%s: %llu", cb_lb_policy_name(policies[i]),
                               (unsigned long long)picks(p, 1));
            cr_expect_float_eq((double)picks(p, 0) / 10000, 1, 0.05, "%s", cb_lb_policy_name(policies[i]));
            cr_assert_eq(cb_lb_pool_share(p, 1, 100), CB_OK);
            const uint64_t had = picks(p, 0);
            call(p, 300); /* nobody catches up on what it did not get */
            cr_expect_float_eq((double)(picks(p, 0) - had) / 100, 1, 0.3, "%s: %llu of 300",
                               cb_lb_policy_name(policies[i]), (unsigned long long)(picks(p, 0) - had));
            cr_assert_eq(cb_lb_pool_share(p, 1, 0), CB_OK);
            const uint64_t before = picks(p, 1);
            call(p, 1000);
            cr_expect_eq(picks(p, 1), before, "%s: down", cb_lb_policy_name(policies[i]));
            cb_lb_pool_free(p);
        }
    }
}

/* All are down: they are tried, or not, as was asked for. Who is only left out comes before who is down. */
Test(outlier, pools_when_all_are_down) {
    for (int strict = 0; strict < 2; strict++) {
        cb_lb_pool *p = pool_of(CB_LB_ROUND_ROBIN, 3, 5,
                                CB_OPTS(cb_outlier_opts, .connect_fails = 1, .max_eject_percent = 100), strict);
        cb_lb_pool_share(p, 0, 0);
        cb_lb_pool_share(p, 1, 0);
        cr_expect_eq(cb_lb_pool_pick(p, CB_OPTS(cb_lb_call, .now = 1)), 2);
        cr_expect_eq(cb_lb_pool_done(p, 2, CB_LB_NO_WAY, 0, 2), 0, "it is the last one that is there");
        cr_expect_eq(cb_lb_pool_pick(p, CB_OPTS(cb_lb_call, .now = 3)), 2);
        const int64_t other = cb_lb_pool_pick(p, CB_OPTS(cb_lb_call, .now = 3, .tried = 4));
        cr_expect_eq(other >= 0, !strict, "the last way: who is down");
        cb_lb_pool_share(p, 1, 50);
        cr_expect_eq(cb_lb_pool_done(p, 2, CB_LB_NO_WAY, 0, 4), 1);
        cr_expect_eq(cb_lb_pool_pick(p, CB_OPTS(cb_lb_call, .now = 5)), 1);
        cb_lb_pool_share(p, 1, 0);
        for (int i = 0; i < 4; i++)
            cr_expect_eq(cb_lb_pool_pick(p, CB_OPTS(cb_lb_call, .now = 5)), 2, "left out comes before down");
        cb_lb_pool_share(p, 2, 0);
        cr_expect_eq(cb_lb_pool_pick(p, CB_OPTS(cb_lb_call, .now = 5)) >= 0, !strict);
        cr_expect_eq(cb_lb_pool_share(p, 2, 101), CB_EINVAL);
        cr_expect_eq(cb_lb_pool_share(p, 3, 1), CB_ENOENT);
        cb_lb_pool_free(p);
    }
}
