/* What a loop counts about itself, and how others count on it. */
#include "loop/loop_int.h"
#include "loop/turn.h"
#include "support/moved.h"
#include "telemetry/cells.h"
#include <cb/sim.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

static cb_loop *counting(cb_metrics **m) {
    cb_loop *loop = NULL;
    cr_assert_eq(cb_metrics_new(m, NULL), CB_OK);
    cr_assert_eq(cb_loop_new(&loop, CB_OPTS(cb_loop_opts, .metrics = *m)), CB_OK, "%s", cb_last_error());
    return loop;
}

static void work_20_ms(cb_loop *loop, void *user) {
    (void)loop;
    (void)user;
    usleep(20000);
}

static void nothing(cb_loop *loop, void *user) {
    (void)loop;
    (void)user;
}

static void *post_from_outside(void *loop) {
    cr_assert_eq(cb_loop_post(loop, nothing, NULL), CB_OK);
    return NULL;
}

static void fired(cb_alarm *alarm, cb_time now) {
    (void)alarm;
    (void)now;
}

Test(loop_meters, what_is_due_at_once_is_not_late) {
    cb_metrics *m;
    cb_loop *loop = counting(&m);
    cb_alarm at_once;
    cb_alarm_init(&at_once, loop, fired);
    cr_assert_eq(cb_alarm_set(&at_once, 0), CB_OK);
    cr_assert_eq(cb_loop_step(loop), CB_OK);
    cr_assert_eq(cb_loop_step(loop), CB_OK);
    cr_assert_eq(cb_alarm_at(&at_once), CB_NEVER);
    EXPECT_MOVED(m, 0, "cb_loop_timer_delay_seconds");
    cb_loop_free(loop);
    cb_metrics_unref(m);
}

Test(loop_meters, work_and_waiting_are_told_apart) {
    cb_metrics *m;
    cb_loop *loop = counting(&m);
    cb_timer *soon = NULL, *later = NULL, *never = NULL;
    cr_assert_eq(cb_timer_start(&soon, loop, 1, 0, work_20_ms, NULL), CB_OK);
    cr_assert_eq(cb_timer_start(&later, loop, 100, 0, nothing, NULL), CB_OK);
    cr_assert_eq(cb_loop_run(loop), CB_OK);
    EXPECT_MOVED_IN(m, 0.02, 0.075, "cb_loop_busy_seconds");
    EXPECT_MOVED_IN(m, 0.05, 0.5, "cb_loop_wait_seconds");
    EXPECT_MOVED_IN(m, 2, 20, "cb_loop_turns");
    EXPECT_MOVED(m, moved(m, "cb_loop_turns", NULL), "cb_loop_turn_seconds");
    cr_assert(moved_sum(m, "cb_loop_turn_seconds", NULL) == moved(m, "cb_loop_busy_seconds", NULL));
    EXPECT_MOVED(m, 2, "cb_loop_timer_delay_seconds");
    cr_assert_lt(moved_sum(m, "cb_loop_timer_delay_seconds", NULL), 0.1);

    cr_assert_eq(cb_timer_start(&never, loop, 100000, 0, nothing, NULL), CB_OK);
    cr_assert_eq(cb_loop_step(loop), CB_OK);
    EXPECT_MOVED(m, 1, "cb_loop_timers");
    EXPECT_MOVED(m, 1, "cb_loops");
    cb_timer_free(soon);
    cb_timer_free(later);
    cb_timer_free(never);
    cb_loop_free(loop);
    EXPECT_MOVED(m, 0, "cb_loops");
    EXPECT_MOVED_IN(m, 0.02, 0.075, "cb_loop_busy_seconds"); /* what was counted stays */
    cb_metrics_unref(m);
}

static void watched(cb_watch *w, unsigned events, void *user) {
    char byte;
    (void)w;
    (void)events;
    cr_assert_eq(read(*(int *)user, &byte, 1), 1);
}

Test(loop_meters, tasks_and_watches_are_counted) {
    cb_metrics *m;
    cb_loop *loop = counting(&m);
    pthread_t thread;
    cb_watch *watch = NULL;
    int ends[2];
    cr_assert_eq(pipe(ends), 0);
    cr_assert_eq(cb_watch_new(&watch, loop, ends[0], CB_READABLE, watched, &ends[0]), CB_OK);
    cr_assert_eq(pthread_create(&thread, NULL, post_from_outside, loop), 0);
    cr_assert_eq(pthread_join(thread, NULL), 0);
    cr_assert_eq(cb_loop_post(loop, nothing, NULL), CB_OK);
    cr_assert_eq(write(ends[1], "x", 1), 1);
    cr_assert_eq(cb_loop_step(loop), CB_OK);
    EXPECT_MOVED(m, 2, "cb_loop_tasks");
    EXPECT_MOVED(m, 1, "cb_loop_watches");
    cb_watch_free(watch);
    cr_assert_eq(cb_loop_step(loop), CB_OK);
    EXPECT_MOVED(m, 0, "cb_loop_watches");
    EXPECT_MOVED(m, 2, "cb_loop_turns");
    EXPECT_MOVED(m, 0, "cb_loop_wait_seconds"); /* between two steps it is the caller who waits */
    cb_loop_free(loop);
    cb_metrics_unref(m);
    close(ends[0]);
    close(ends[1]);
}

Test(loop_meters, loops_of_a_simulation_share_a_registry) {
    cb_metrics *m = NULL;
    cb_sim *sim = NULL;
    cb_sim_host *a = NULL, *b = NULL;
    cb_timer *timer = NULL;
    cr_assert_eq(cb_metrics_new(&m, NULL), CB_OK);
    cr_assert_eq(cb_sim_new(&sim, CB_OPTS(cb_sim_opts, .metrics = m)), CB_OK);
    cr_assert_eq(cb_sim_host_new(&a, sim, "a", "10.0.0.1"), CB_OK);
    cr_assert_eq(cb_sim_host_new(&b, sim, "b", "10.0.0.2"), CB_OK);
    EXPECT_MOVED(m, 2, "cb_loops");
    cr_assert_eq(cb_timer_start(&timer, cb_sim_host_loop(a), 5, 5, nothing, NULL), CB_OK);
    cr_assert_eq(cb_sim_run_until(sim, 50 * CB_MS), CB_OK);
    EXPECT_MOVED(m, 10, "cb_loop_timer_delay_seconds");
    EXPECT_MOVED_IN(m, 10, 12, "cb_loop_turns");
    EXPECT_MOVED(m, 1, "cb_loop_timers");
    cb_timer_free(timer);
    cb_sim_free(sim);
    EXPECT_MOVED(m, 0, "cb_loops");
    cb_metrics_unref(m);
}

Test(loop_meters, who_counts_nothing_has_no_cells) {
    cb_loop *loop = NULL;
    cr_assert_eq(cb_loop_new(&loop, NULL), CB_OK);
    cr_assert_null(cb_loop_cells(loop));
    cr_assert_null(cb_cells_series(cb_loop_cells(loop), CB_F_LOOP_TURNS, NULL));
    cb_cells_add(NULL, CB_C_LOOP_TURNS, 1);
    cb_cells_move(NULL, CB_C_LOOPS, 1);
    cb_cells_set(NULL, CB_C_LOOPS, 1);
    cb_cells_observe(NULL, CB_C_LOOP_TURN, 1);
    cb_cell_add(NULL, 1);
    cb_cell_move(NULL, -1);
    cb_cell_set(NULL, 1);
    cb_cell_observe(NULL, 1);
    cb_cell_release(NULL);
    cb_cells_free(NULL);
    cb_loop_free(loop);
}

Test(loop_meters, a_family_that_the_program_has_otherwise_is_refused) {
    cb_metrics *m = NULL;
    cb_metric *f = NULL;
    cb_loop *loop = NULL;
    cr_assert_eq(cb_metrics_new(&m, NULL), CB_OK);
    cr_assert_eq(cb_metrics_define(
                     &f, m, CB_OPTS(cb_metric_opts, .name = "cb_loop_turns", .help = "Mine.", .kind = CB_METRIC_GAUGE)),
                 CB_OK);
    cr_assert_eq(cb_loop_new(&loop, CB_OPTS(cb_loop_opts, .metrics = m)), CB_EEXIST);
    cr_assert(strstr(cb_last_error(), "cb_loop_turns"));
    cb_metrics_unref(m);
}

Test(loop_meters, every_cell_is_a_series_of_its_own) {
    cb_metrics *m;
    cb_loop *loop = counting(&m);
    const cb_cells *cells = cb_loop_cells(loop);
    for (size_t i = 0; i < CB_CELLS; i++) {
        cr_assert_not_null(cells->at[i]);
        cr_assert_eq(cells->at[i]->refs, 1, "cell %zu is another one, too", i);
    }
    cb_loop_free(loop);
    cb_metrics_unref(m);
}
