/* Weights by load, in a closed loop: servers that answer to their weights with a delay, and reports that are late. */
#include <cb/lb.h>
#include <criterion/criterion.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define MS 1000000ull
#define S  1000000000ull

enum { N = 5, HISTORY = 64 };

typedef struct world {
    cb_lb_adapt *a;
    double capacity[N], load, noise;
    int64_t past[HISTORY][N]; /* weights, each second */
    uint64_t chance, seconds;
    uint32_t delay_s, average_s, changes, last_change;
    double average[N];
} world;

static void begin(world *w, const cb_lb_adapt_opts *o, uint32_t delay_s) {
    memset(w, 0, sizeof *w);
    cr_assert_eq(cb_lb_adapt_new(&w->a, o), CB_OK, "%s", cb_last_error());
    for (int i = 0; i < N; i++) {
        w->capacity[i] = 100;
        cr_assert_eq(cb_lb_adapt_add(w->a, 1000), i);
    }
    for (int t = 0; t < HISTORY; t++)
        for (int i = 0; i < N; i++)
            w->past[t][i] = 1000;
    w->load = 300;
    w->delay_s = delay_s;
}

/* The load that a server shows now is that of the weights some seconds ago. */
static double load_of(const world *w, int i) {
    const int64_t *then = w->past[(w->seconds + HISTORY - 1 - w->delay_s) % HISTORY];
    int64_t sum = 0;
    for (int k = 0; k < N; k++)
        sum += then[k];
    return w->load * (double)then[i] / (double)sum / w->capacity[i];
}

static int64_t sum_of(const world *w) {
    int64_t sum = 0;
    for (int i = 0; i < N; i++)
        sum += cb_lb_adapt_weight(w->a, (uint32_t)i);
    return sum;
}

static void run(world *w, uint32_t seconds) {
    for (uint32_t t = 0; t < seconds; t++) {
        const cb_time now = ++w->seconds * S;
        for (int i = 0; i < N; i++) {
            w->chance = w->chance * 6364136223846793005u + 1442695040888963407u;
            const double noise = 1 + w->noise * ((double)(w->chance >> 40) / (double)(1 << 24) * 2 - 1);
            const double load = load_of(w, i) * noise;
            w->average[i] += (load - w->average[i]) / (w->average_s && w->seconds > 1 ? w->average_s : 1);
            cr_assert_eq(cb_lb_adapt_report(w->a, (uint32_t)i, w->average[i], now), CB_OK);
        }
        const int changed = cb_lb_adapt_run(w->a, now);
        w->changes += changed == 1;
        if (changed) w->last_change = (uint32_t)w->seconds;
        for (int i = 0; i < N; i++)
            w->past[w->seconds % HISTORY][i] = cb_lb_adapt_weight(w->a, (uint32_t)i);
    }
}

/* How often a server's load crosses the mean by more than so much: what swings does it again and again. */
static int swings(world *w, uint32_t seconds, double by) {
    int crossed = 0, side[N] = {0};
    for (uint32_t t = 0; t < seconds; t++) {
        double mean = 0;
        run(w, 1);
        for (int i = 0; i < N; i++)
            mean += load_of(w, i) / N;
        for (int i = 0; i < N; i++) {
            const double off = load_of(w, i) / mean - 1;
            const int now = off > by ? 1 : off < -by ? -1 : 0;
            crossed += now && side[i] && now != side[i];
            if (now) side[i] = now;
        }
    }
    return crossed;
}

/* A server with half and one with twice the capacity, at delays up to 20 s (two steps): loads become equal to within
 * the dead band, nobody swings across the mean on the way, and then nothing moves any more. */
Test(lb_adapt, a_delayed_loop_settles) {
    for (uint32_t delay = 0; delay <= 20; delay += 5) {
        world w;
        begin(&w, NULL, delay);
        w.capacity[1] = 50;
        w.capacity[3] = 200;
        const int crossed = swings(&w, 600, 0.06);
        cr_expect_leq(crossed, 1, "delay %u: %d swings", delay, crossed);
        double least = 1e9, most = 0;
        for (int i = 0; i < N; i++) {
            least = fmin(least, load_of(&w, i));
            most = fmax(most, load_of(&w, i));
        }
        cr_expect_lt(most / least, 1.11, "delay %u: %.3f to %.3f", delay, least, most);
        cr_expect_eq(sum_of(&w), 5000, "delay %u", delay);
        cr_expect_lt(w.last_change, 400, "delay %u: still moved after %u s", delay, w.last_change);
        cb_lb_adapt_free(w.a);
    }
}

/* The same loop with ten times the gain and no dead band to speak of swings: the test can see it. */
Test(lb_adapt, the_test_sees_a_loop_that_swings) {
    world w;
    begin(
        &w,
        CB_OPTS(cb_lb_adapt_opts, .gain_percent = 100, .max_step_percent = 100, .dead_band_percent = 1, .smooth_ms = 1),
        20);
    w.capacity[1] = 50;
    w.capacity[3] = 200;
    cr_expect_gt(swings(&w, 600, 0.06), 10);
    cb_lb_adapt_free(w.a);
}

/* The kernel's load is an average over a minute: with steps of ten seconds weights go on while what they did does not
 * show yet, and too far; with steps of a minute they do not. */
Test(lb_adapt, averages_want_longer_steps) {
    static const struct {
        uint32_t step_ms;
        double least, most; /* how far below its place the slow server is sent */
    } rows[] = {{10000, 0.75, 0.93}, {60000, 0.95, 1.06}};
    for (size_t r = 0; r < 2; r++) {
        world w;
        begin(&w, CB_OPTS(cb_lb_adapt_opts, .step_ms = rows[r].step_ms), 1);
        w.average_s = 60;
        w.capacity[1] = 50;
        double lowest = 1e9;
        for (int t = 0; t < 7200; t++) {
            run(&w, 1);
            lowest = fmin(lowest, (double)cb_lb_adapt_weight(w.a, 1));
        }
        const double place = 5000 * 50 / 450.0;
        cr_expect(lowest / place > rows[r].least && lowest / place < rows[r].most,
                  "steps of %u: down to %.2f of its place", rows[r].step_ms, lowest / place);
        cr_expect_float_eq((double)cb_lb_adapt_weight(w.a, 1) / place, 1, 0.08);
        cb_lb_adapt_free(w.a);
    }
}

/* Reports that jitter by 10 % around equal loads move next to nothing; a whole table is behind these weights. */
Test(lb_adapt, noise_moves_little) {
    world w;
    begin(&w, NULL, 5);
    w.noise = 0.1;
    run(&w, 3600);
    for (uint32_t i = 0; i < N; i++)
        cr_expect_float_eq((double)cb_lb_adapt_weight(w.a, i) / 1000, 1, 0.08, "%lld",
                           (long long)cb_lb_adapt_weight(w.a, i));
    cr_expect_lt(w.changes, 150, "%u changes in 720 steps", w.changes);
    cr_expect_eq(sum_of(&w), 5000);
    cb_lb_adapt_free(w.a);
}

/* A server becomes slow in the middle: its weight falls; and well again: it returns. Never by more than a step. */
Test(lb_adapt, follows_what_happens) {
    world w;
    begin(&w, NULL, 5);
    run(&w, 100);
    cr_expect_eq(w.changes, 0, "equal loads move nothing");
    w.capacity[2] = 40;
    int64_t before = cb_lb_adapt_weight(w.a, 2);
    for (int i = 0; i < 400; i++) {
        run(&w, 1);
        const int64_t now = cb_lb_adapt_weight(w.a, 2);
        cr_assert(now * 10 >= before * 9 - 10, "%lld after %lld", (long long)now, (long long)before);
        before = now;
    }
    cr_expect(before < 550 && before > 400, "%lld", (long long)before);
    w.capacity[2] = 100;
    run(&w, 600);
    before = cb_lb_adapt_weight(w.a, 2);
    cr_expect(before > 900 && before < 1100, "%lld", (long long)before);
    cr_expect_eq(sum_of(&w), 5000);
    cb_lb_adapt_free(w.a);
}

Test(lb_adapt, bounds_hold) {
    world w;
    begin(&w, NULL, 0);
    w.capacity[0] = 0.5; /* next to nothing */
    w.capacity[4] = 100000;
    run(&w, 2000);
    cr_expect_eq(cb_lb_adapt_weight(w.a, 0), 200, "min_percent: %lld", (long long)cb_lb_adapt_weight(w.a, 0));
    cr_expect_leq(cb_lb_adapt_weight(w.a, 4), 3000, "max_percent");
    cr_expect_eq(sum_of(&w), 5000);
    cb_lb_adapt_free(w.a);
}

/* Who does not report keeps its weight, and so do all when only one does. */
Test(lb_adapt, unknown_loads_keep_weights) {
    cb_lb_adapt *a = NULL;
    cr_assert_eq(cb_lb_adapt_new(&a, NULL), CB_OK);
    for (int i = 0; i < 3; i++)
        cr_assert_eq(cb_lb_adapt_add(a, 100), i);
    cr_expect_eq(cb_lb_adapt_next(a), UINT64_MAX);
    for (cb_time t = 1; t < 60; t++) {
        cb_lb_adapt_report(a, 0, 0.9, t * S);
        cr_expect_eq(cb_lb_adapt_run(a, t * S), 0);
    }
    for (cb_time t = 60; t < 200; t++) {
        cb_lb_adapt_report(a, 0, 0.9, t * S);
        cb_lb_adapt_report(a, 1, 0.3, t * S);
        (void)cb_lb_adapt_run(a, t * S);
    }
    cr_expect_eq(cb_lb_adapt_weight(a, 2), 100);
    cr_expect_lt(cb_lb_adapt_weight(a, 0), 60);
    cr_expect_eq(cb_lb_adapt_weight(a, 0) + cb_lb_adapt_weight(a, 1), 200);
    /* its reports become old; NaN and -1 are none; one that left does not count */
    const int64_t kept = cb_lb_adapt_weight(a, 0);
    for (cb_time t = 300; t < 400; t++) {
        cb_lb_adapt_report(a, 1, 0.1, t * S);
        cb_lb_adapt_report(a, 2, t % 2 ? -1 : NAN, t * S);
        cr_expect_eq(cb_lb_adapt_run(a, t * S), 0);
    }
    cr_expect_eq(cb_lb_adapt_weight(a, 0), kept);
    cb_lb_adapt_present(a, 0, 0);
    for (cb_time t = 400; t < 500; t++) {
        cb_lb_adapt_report(a, 0, 5, t * S);
        cb_lb_adapt_report(a, 1, 0.1, t * S);
        cr_expect_eq(cb_lb_adapt_run(a, t * S), 0);
    }
    /* the clock goes back by an hour: steps go on */
    cb_lb_adapt_present(a, 0, 1);
    int steps = 0;
    for (cb_time t = 3900; t < 4000; t++) {
        const cb_time now = t < 3950 ? t * S : (t - 3600) * S;
        cb_lb_adapt_report(a, 0, 0.1, now);
        cb_lb_adapt_report(a, 1, 0.9, now);
        steps += cb_lb_adapt_run(a, now) == 1 && t >= 3950;
    }
    cr_expect_geq(steps, 4, "%d", steps);
    cr_expect_eq(cb_lb_adapt_report(a, 3, 0, 0), CB_ENOENT);
    cr_expect_eq(cb_lb_adapt_present(a, 3, 0), CB_ENOENT);
    cr_expect_eq(cb_lb_adapt_weight(a, 3), CB_ENOENT);
    cr_expect_eq(cb_lb_adapt_add(a, 0), CB_EINVAL);
    cb_lb_adapt_free(a);
    cb_lb_adapt_free(NULL);
    cr_expect_eq(cb_lb_adapt_new(&a, CB_OPTS(cb_lb_adapt_opts, .gain_percent = 101)), CB_EINVAL);
    cr_expect(strstr(cb_last_error(), "gain_percent is 101"), "%s", cb_last_error());
}

/* Whoever does next to nothing differs by much, and that is of no consequence. */
Test(lb_adapt, idle_servers_are_left_alone) {
    world w;
    begin(&w, CB_OPTS(cb_lb_adapt_opts, .idle_percent = 30), 5);
    w.capacity[1] = 50;
    w.load = 100; /* of 450: 22 % on average, and 40 % there */
    run(&w, 600);
    cr_expect_eq(w.changes, 0);
    w.load = 200;
    run(&w, 600);
    cr_expect_gt(w.changes, 3);
    cb_lb_adapt_free(w.a);
}

/* A table behind it: what load says becomes members, and buckets follow. */
Test(lb_adapt, a_table_follows) {
    cb_lb_table *t = NULL;
    cb_lb_writer *writer = NULL;
    world w;
    begin(&w, NULL, 5);
    w.capacity[0] = 50;
    cr_assert_eq(cb_lb_table_new(&t, NULL), CB_OK);
    cr_assert_eq(cb_lb_writer_new(&writer, CB_OPTS(cb_lb_writer_opts, .table = t, .epoch = 1, .local = 1)), CB_OK);
    for (int round = 0; round < 120; round++) {
        for (uint32_t i = 0; i < N; i++)
            cr_assert_eq(cb_lb_writer_member(writer, CB_OPTS(cb_lb_member, .id = i + 1,
                                                             .weight = (uint32_t)cb_lb_adapt_weight(w.a, i))),
                         CB_OK);
        cr_assert_eq(cb_lb_writer_run(writer, w.seconds * S), CB_OK);
        run(&w, 5);
    }
    cb_lb_member_stats m = {.size = sizeof m};
    uint32_t first = 0;
    for (size_t i = 0; cb_lb_table_member(t, i, &m) == CB_OK; i++)
        if (m.id == 1) first = m.first;
    cr_expect_float_eq(first * 5000.0 / CB_LB_BUCKETS / (double)cb_lb_adapt_weight(w.a, 0), 1, 0.01);
    cr_expect_lt(first, CB_LB_BUCKETS / 7);
    cb_lb_writer_free(writer);
    cb_lb_table_free(t);
    cb_lb_adapt_free(w.a);
}
