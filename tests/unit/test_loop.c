#include "base/mem.h"
#include "loop/loop_int.h"
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static cb_loop *loop_or_die(void) {
    cb_loop *loop = NULL;
    cr_assert_eq(cb_loop_new(&loop, NULL), CB_OK, "%s", cb_last_error());
    return loop;
}

static cb_time clock_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (cb_time)t.tv_sec * CB_SEC + (cb_time)t.tv_nsec;
}

static void count_task(cb_loop *loop, void *user) {
    (void)loop;
    ++*(int *)user;
}

static void stop_task(cb_loop *loop, void *user) {
    (void)user;
    cb_loop_stop(loop);
}

Test(loop, an_empty_loop_ends_at_once) {
    cb_loop *loop = loop_or_die();
    int ran = 0;
    cr_assert_eq(cb_loop_alive(loop), 0);
    cr_assert_eq(cb_loop_run(loop), CB_OK);
    cr_assert_eq(cb_loop_on_signal(loop, SIGUSR2, count_task, &ran), CB_OK);
    cr_assert_eq(cb_loop_alive(loop), 0);
    cr_assert_eq(cb_loop_run(loop), CB_OK);
    cr_assert_eq(cb_loop_post(loop, count_task, &ran), CB_OK);
    cr_assert_eq(cb_loop_alive(loop), 1);
    cr_assert_eq(cb_loop_run(loop), CB_OK);
    cr_assert_eq(ran, 1);
    cb_loop_free(loop);
    cb_loop_free(NULL);
}

Test(loop, bad_arguments_are_named) {
    cb_loop *loop = NULL;
    cb_loop_opts o = {.size = 3};
    cb_timer *timer = NULL;
    cr_assert_eq(cb_loop_new(&loop, &o), CB_EINVAL);
    cr_assert(strstr(cb_last_error(), "cb_loop_opts"));
    loop = loop_or_die();
    static const int wrong[] = {0, -1, 4711, SIGKILL, SIGSTOP};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        cr_expect_eq(cb_loop_on_signal(loop, wrong[i], count_task, NULL), CB_EINVAL, "signal %d", wrong[i]);
    cr_assert_eq(cb_loop_on_signal(loop, SIGUSR1, NULL, NULL), CB_OK);
    cr_assert_eq(cb_timer_start(&timer, loop, 1, 0, NULL, NULL), CB_EINVAL);
    cr_assert_null(timer);
    cb_watch *w = NULL;
    cr_assert(cb_watch_new(&w, loop, 99999, CB_READABLE, NULL, NULL) < 0);
    cr_assert_null(w);
    cb_loop_free(loop);
}

/* ---- memory ---- */

typedef struct purse {
    size_t live;
    int until_failure;
} purse;

static void *purse_realloc(void *p, size_t size, void *user) {
    purse *s = user;
    if (!size) {
        s->live--;
        free(p);
        return NULL;
    }
    if (s->until_failure == 0) return NULL;
    s->until_failure--;
    s->live += p == NULL;
    return realloc(p, size);
}

Test(loop, without_memory_it_fails_whole) {
    for (int allowed = 0; allowed < 8; allowed++) {
        purse s = {.until_failure = allowed};
        cb_alloc a = {purse_realloc, &s};
        cb_loop *loop = NULL;
        cb_timer *t = NULL;
        int ran = 0;
        int rc = cb_loop_new(&loop, CB_OPTS(cb_loop_opts, .alloc = &a));
        if (rc == CB_OK) {
            rc = cb_timer_start(&t, loop, 0, 0, count_task, &ran);
            cr_assert_eq(rc == CB_OK, t != NULL);
            cb_timer_free(t);
            cr_assert_eq(cb_loop_on_signal(loop, SIGUSR2, count_task, &ran) == CB_OK, allowed >= 5, "%d", allowed);
            cb_loop_free(loop);
        } else {
            cr_assert_eq(rc, CB_ENOMEM);
        }
        cr_assert_eq(s.live, 0);
    }
}

/* ---- alarms ---- */

enum { ALARMS = 60 };
typedef struct probe {
    cb_alarm alarm;
    cb_time due, fired;
    int *order, rank;
} probe;

static void probe_fire(cb_alarm *a, cb_time now) {
    probe *p = CB_CONTAINER(a, probe, alarm);
    (void)now;
    p->fired = clock_now();
    p->rank = (*p->order)++;
}

/* One round of alarms, each in its order and never early. How late the most punctual was. */
static cb_time alarm_round(cb_loop *loop) {
    static probe p[ALARMS];
    int order = 0;
    cb_time start = cb_loop_now(loop), best = CB_NEVER;
    for (int i = 0; i < ALARMS; i++) {
        p[i] = (probe){.order = &order};
        cb_alarm_init(&p[i].alarm, loop, probe_fire);
        p[i].due = start + (cb_time)((i * 37) % ALARMS) * 200000 + 100000; /* 0.1 .. 12 ms */
        cr_assert_eq(cb_alarm_set(&p[i].alarm, p[i].due), CB_OK);
    }
    cb_alarm_stop(&p[5].alarm);
    cr_assert_eq(cb_alarm_at(&p[5].alarm), CB_NEVER);
    cr_assert_eq(cb_alarm_set(&p[6].alarm, CB_NEVER), CB_OK);
    cr_assert_eq(cb_loop_run(loop), CB_OK);
    cr_assert_eq(order, ALARMS - 2);
    for (int i = 0; i < ALARMS; i++) {
        if (i == 5 || i == 6) {
            cr_assert_eq(p[i].fired, 0);
            continue;
        }
        cr_assert(p[i].fired >= p[i].due);
        if (p[i].fired - p[i].due < best) best = p[i].fired - p[i].due;
        for (int k = 0; k < ALARMS; k++)
            if (p[k].fired && p[k].due < p[i].due) cr_assert(p[k].rank < p[i].rank);
    }
    return best;
}

Test(loop, alarms_fire_in_order_never_early_and_near_ones_precisely) {
    cb_loop *loop = loop_or_die();
    cb_time best = CB_NEVER;
    /* A busy machine may hold this process back for a whole round, but hardly for every one. */
    for (int i = 0; i < 20 && best >= 900000; i++)
        best = alarm_round(loop);
    cr_assert(best < 900000, "even the most precise alarm was %llu ns late", (unsigned long long)best);
    cb_loop_free(loop);
}

typedef struct again {
    cb_alarm alarm;
    int left;
} again;

static void fire_again(cb_alarm *a, cb_time now) {
    again *g = CB_CONTAINER(a, again, alarm);
    cr_assert_eq(cb_alarm_at(a), CB_NEVER);
    if (--g->left) cb_alarm_set(a, now - 1);
}

Test(loop, an_alarm_in_the_past_does_not_starve_descriptors) {
    cb_loop *loop = loop_or_die();
    again g = {.left = 1000000};
    cb_alarm_init(&g.alarm, loop, fire_again);
    cb_alarm_set(&g.alarm, 1);
    cr_assert_eq(cb_loop_timeout_ms(loop), 0);
    cb_loop_post(loop, stop_task, NULL);
    cr_assert_eq(cb_loop_run(loop), CB_OK);
    cr_assert(g.left > 999000);
    cb_alarm_stop(&g.alarm);
    cr_assert_eq(cb_loop_run(loop), CB_OK);
    cb_loop_free(loop);
}

typedef struct free_self {
    cb_timer *t;
    int calls, limit;
} free_self;

static void tick(cb_loop *loop, void *user) {
    (void)loop;
    free_self *f = user;
    if (++f->calls < f->limit) return;
    cb_timer_free(f->t);
    f->t = NULL;
}

Test(loop, timers_repeat_and_may_be_freed_inside) {
    cb_loop *loop = loop_or_die();
    free_self once = {.limit = 99}, thrice = {.limit = 3}, self = {.limit = 1};
    cb_timer *never = NULL;
    cr_assert_eq(cb_timer_start(&once.t, loop, 0, 0, tick, &once), CB_OK);
    cr_assert_eq(cb_timer_start(&thrice.t, loop, 1, 1, tick, &thrice), CB_OK);
    cr_assert_eq(cb_timer_start(&self.t, loop, 1, 0, tick, &self), CB_OK);
    cr_assert_eq(cb_timer_start(&never, loop, UINT64_MAX, UINT64_MAX, tick, &self), CB_OK);
    cr_assert_eq(cb_loop_alive(loop), 1);
    cb_timer_free(never);
    cr_assert_eq(cb_loop_run(loop), CB_OK);
    cr_assert(once.calls == 1 && once.t);
    cr_assert(thrice.calls == 3 && !thrice.t);
    cr_assert(self.calls == 1 && !self.t);
    cb_timer_free(once.t);
    cb_timer_free(NULL);
    cb_loop_free(loop);
}

/* ---- deferred work and burials ---- */

typedef struct job {
    cb_defer defer;
    cb_grave grave;
    struct job *next;
    char *trace;
    char name;
    cb_loop *loop;
} job;

static void job_bury(cb_grave *g) {
    job *j = CB_CONTAINER(g, job, grave);
    strncat(j->trace, "+", 2);
}

static void job_run(cb_defer *d) {
    job *j = CB_CONTAINER(d, job, defer);
    strncat(j->trace, &j->name, 1);
    cb_loop_bury(j->loop, &j->grave, job_bury);
    if (j->next) cb_defer_later(&j->next->defer);
}

Test(loop, deferred_work_runs_once_in_order_and_the_dead_are_buried_after_it) {
    cb_loop *loop = loop_or_die();
    char trace[32] = "";
    job c = {.trace = trace, .name = 'c', .loop = loop};
    job b = {.trace = trace, .name = 'b', .loop = loop};
    job a = {.trace = trace, .name = 'a', .loop = loop, .next = &c};
    job x = {.trace = trace, .name = 'x', .loop = loop};
    job *all[] = {&a, &b, &c, &x};
    for (int i = 0; i < 4; i++)
        cb_defer_init(&all[i]->defer, loop, job_run);
    while (cb_loop_timeout_ms(loop) == 0)
        cb_loop_step(loop);
    cb_defer_later(&a.defer);
    cb_defer_later(&x.defer);
    cb_defer_later(&b.defer);
    cb_defer_later(&a.defer);
    cb_defer_cancel(&x.defer);
    cr_assert_eq(cb_loop_timeout_ms(loop), 0);
    cr_assert_eq(cb_loop_step(loop), CB_OK);
    cr_assert_str_eq(trace, "abc+++");
    cb_defer_later(&a.defer); /* what is still due runs when the loop goes */
    cb_loop_free(loop);
    cr_assert_str_eq(trace, "abc+++ac++");
}

/* ---- work that waits for company ---- */

typedef struct company {
    cb_defer defer;
    cb_loop *loop;
    cb_watch *watch;
    int fds[2];
    int served, limit; /* turns in which the descriptor was ready, and how many there are to be */
    int runs, served_then;
} company;

static void company_run(cb_defer *d) {
    company *c = CB_CONTAINER(d, company, defer);
    if (c->runs++ == 0) c->served_then = c->served;
    if (c->served == c->limit) cb_loop_stop(c->loop);
}

/* Level-triggered and never read: ready in each turn. */
static void company_served(cb_watch *w, unsigned events, void *user) {
    company *c = user;
    (void)events;
    cb_defer_idle(&c->defer);
    if (++c->served == c->limit) cb_watch_events(w, 0);
}

static company serve(int limit) {
    company c = {.loop = loop_or_die(), .limit = limit};
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, c.fds), 0);
    cr_assert_eq(write(c.fds[1], "x", 1), 1);
    cb_defer_init(&c.defer, c.loop, company_run);
    cr_assert_eq(cb_watch_new(&c.watch, c.loop, c.fds[0], CB_READABLE, company_served, &c), CB_OK);
    cr_assert_eq(cb_loop_run(c.loop), CB_OK);
    cb_watch_free(c.watch);
    cb_loop_free(c.loop);
    close(c.fds[0]);
    close(c.fds[1]);
    return c;
}

Test(loop, idle_work_waits_while_descriptors_are_ready_but_not_for_ever) {
    company few = serve(5);
    for (int i = 0; i < 1000 && few.runs != 1; i++) /* five turns take some microseconds, unless others take the time */
        few = serve(5);
    cr_assert_eq(few.runs, 1, "%d runs", few.runs);
    cr_assert_eq(few.served_then, 5);
    company many = serve(1000);
    cr_assert(many.runs > 10, "%d runs", many.runs);
    cr_assert_lt(many.served_then, 100);
}

Test(loop, idle_work_on_a_foreign_loop_is_done_in_the_same_step) {
    company c = {.loop = loop_or_die(), .limit = -1};
    cb_defer_init(&c.defer, c.loop, company_run);
    cb_defer_idle(&c.defer);
    cr_assert_eq(cb_loop_timeout_ms(c.loop), 0);
    cr_assert_eq(cb_loop_step(c.loop), CB_OK);
    cr_assert_eq(c.runs, 1);
    cb_loop_free(c.loop);
}

static void defer_idle_and_stop(cb_loop *loop, void *user) {
    company *c = user;
    cb_defer_idle(&c->defer);
    cb_loop_stop(loop);
}

Test(loop, idle_work_is_done_before_a_stopped_loop_returns) {
    company c = {.loop = loop_or_die(), .limit = -1};
    cb_defer_init(&c.defer, c.loop, company_run);
    cr_assert_eq(cb_loop_post(c.loop, defer_idle_and_stop, &c), CB_OK);
    cr_assert_eq(cb_loop_run(c.loop), CB_OK);
    cr_assert_eq(c.runs, 1);
    cb_loop_free(c.loop);
}

static int forever_runs;
static void forever_run(cb_defer *d) {
    forever_runs++;
    cb_defer_later(d);
}

Test(loop, work_that_defers_itself_for_ever_lets_others_run) {
    cb_loop *loop = loop_or_die();
    cb_defer d;
    forever_runs = 0;
    cb_defer_init(&d, loop, forever_run);
    cb_defer_later(&d);
    cb_loop_post(loop, stop_task, NULL);
    cr_assert_eq(cb_loop_run(loop), CB_OK);
    cr_assert(forever_runs > 0);
    cb_defer_cancel(&d);
    cb_loop_free(loop);
}

/* ---- tasks from other threads ---- */

enum { THREADS = 4, POSTS = 500 };
typedef struct poster {
    cb_loop *loop;
    int id, next[THREADS], *total;
} poster;
typedef struct parcel {
    poster *p;
    int id, n;
} parcel;
static parcel parcels[THREADS][POSTS];

static void take_parcel(cb_loop *loop, void *user) {
    parcel *k = user;
    (void)loop;
    cr_assert_eq(k->p->next[k->id]++, k->n, "thread %d out of order", k->id);
    if (++*k->p->total == THREADS * POSTS) cb_loop_release(loop);
}

typedef struct thread_arg {
    poster *p;
    int id;
} thread_arg;

static void *post_many(void *arg) {
    thread_arg *t = arg;
    for (int i = 0; i < POSTS; i++) {
        parcels[t->id][i] = (parcel){t->p, t->id, i};
        if (cb_loop_post(t->p->loop, take_parcel, &parcels[t->id][i]) != CB_OK) abort();
    }
    return NULL;
}

Test(loop, tasks_of_many_threads_arrive_all_and_in_order) {
    cb_loop *loop = loop_or_die();
    int total = 0;
    poster p = {.loop = loop, .total = &total};
    thread_arg args[THREADS];
    pthread_t t[THREADS];
    cb_loop_hold(loop);
    for (int i = 0; i < THREADS; i++) {
        args[i] = (thread_arg){&p, i};
        cr_assert_eq(pthread_create(&t[i], NULL, post_many, &args[i]), 0);
    }
    cr_assert_eq(cb_loop_run(loop), CB_OK);
    for (int i = 0; i < THREADS; i++)
        pthread_join(t[i], NULL);
    cr_assert_eq(total, THREADS * POSTS);
    cb_loop_post(loop, count_task, &total); /* dropped, not leaked */
    cb_loop_free(loop);
    cr_assert_eq(total, THREADS * POSTS);
}

static void *stop_it(void *loop) {
    cb_loop_stop(loop);
    return NULL;
}

Test(loop, another_thread_stops_it) {
    cb_loop *loop = loop_or_die();
    pthread_t t;
    for (int i = 0; i < 20; i++) { /* before or after run begins: both end it */
        cb_loop_hold(loop);
        cr_assert_eq(pthread_create(&t, NULL, stop_it, loop), 0);
        cr_assert_eq(cb_loop_run(loop), CB_OK);
        pthread_join(t, NULL);
        cb_loop_release(loop);
    }
    cb_loop_free(loop);
}

static void nest(cb_loop *loop, void *user) {
    int *rc = user;
    rc[0] = cb_loop_run(loop);
    rc[1] = cb_loop_step(loop);
    cb_time first = cb_loop_now(loop);
    cb_time until = clock_now() + 1000000;
    while (clock_now() < until)
        continue;
    rc[2] = cb_loop_now(loop) == first;
}

Test(loop, no_nesting_and_one_time_a_turn) {
    cb_loop *loop = loop_or_die();
    int rc[3] = {0};
    cb_loop_post(loop, nest, rc);
    cr_assert_eq(cb_loop_run(loop), CB_OK);
    cr_assert(rc[0] == CB_EINVAL && rc[1] == CB_EINVAL && rc[2] == 1);
    cb_loop_free(loop);
}

/* ---- signals ---- */

static void raise_task(cb_loop *loop, void *user) {
    (void)loop;
    (void)user;
    raise(SIGUSR1);
}

static void count_and_stop(cb_loop *loop, void *user) {
    ++*(int *)user;
    cb_loop_stop(loop);
}

Test(loop, signals_reach_their_newest_handler) {
    cb_loop *loop = loop_or_die();
    int old = 0, now = 0;
    cb_loop_hold(loop);
    cr_assert_eq(cb_loop_on_signal(loop, SIGUSR1, count_task, &old), CB_OK);
    cr_assert_eq(cb_loop_on_signal(loop, SIGUSR1, count_and_stop, &now), CB_OK);
    cb_loop_post(loop, raise_task, NULL);
    cr_assert_eq(cb_loop_run(loop), CB_OK);
    cr_assert(old == 0 && now == 1);
    raise(SIGUSR1);
    cr_assert_eq(cb_loop_run(loop), CB_OK);
    cr_assert_eq(now, 2);
    cr_assert_eq(cb_loop_on_signal(loop, SIGUSR1, NULL, NULL), CB_OK);
    cr_assert_eq(cb_loop_on_signal(loop, SIGUSR1, count_and_stop, &now), CB_OK);
    cb_loop_free(loop);
}

/* ---- descriptors ---- */

typedef struct pipe_end {
    cb_watch *w;
    int fd, calls;
    unsigned events;
    size_t bytes;
    bool free_it;
} pipe_end;

static void on_end(cb_watch *w, unsigned events, void *user) {
    pipe_end *e = user;
    char data[64];
    e->calls++;
    e->events |= events;
    ssize_t n = events & CB_READABLE ? read(e->fd, data, sizeof data) : 0;
    if (n > 0) e->bytes += (size_t)n;
    if (!e->free_it) return;
    cb_watch_free(w);
    close(e->fd);
    e->w = NULL;
}

static void foreign_turn(cb_loop *loop) {
    struct pollfd p = {.fd = cb_loop_fd(loop), .events = POLLIN};
    int64_t ms = cb_loop_timeout_ms(loop);
    poll(&p, 1, ms < 0 || ms > 2000 ? 2000 : (int)ms);
    cr_assert_eq(cb_loop_step(loop), CB_OK);
}

Test(loop, a_foreign_loop_drives_it) {
    cb_loop *loop = loop_or_die();
    int s[2], ran = 0;
    pipe_end e = {.fd = -1};
    while (cb_loop_timeout_ms(loop) == 0)
        foreign_turn(loop);
    cr_assert_eq(cb_loop_timeout_ms(loop), -1);
    int fd = cb_loop_fd(loop);
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, s), 0);
    e.fd = s[0];
    cr_assert_eq(cb_watch_new(&e.w, loop, s[0], CB_READABLE, on_end, &e), CB_OK);
    cr_assert_eq(cb_loop_timeout_ms(loop), 0); /* libuv has yet to tell epoll */
    foreign_turn(loop);
    cr_assert_eq(cb_loop_timeout_ms(loop), -1);
    cr_assert_eq(write(s[1], "x", 1), 1);
    foreign_turn(loop);
    cr_assert(e.calls == 1 && e.bytes == 1 && e.events == CB_READABLE);

    /* A timer alone makes the descriptor readable or bounds the wait; so does a post. */
    cb_timer *t = NULL;
    cb_time start = clock_now();
    cr_assert_eq(cb_timer_start(&t, loop, 1, 0, count_task, &ran), CB_OK);
    while (!ran)
        foreign_turn(loop);
    cr_assert(clock_now() - start >= CB_MS);
    cr_assert(clock_now() - start < CB_SEC);
    cb_timer_free(t);
    cr_assert_eq(cb_timer_start(&t, loop, 60000, 0, count_task, &ran), CB_OK);
    cr_assert(cb_loop_timeout_ms(loop) > 59000 && cb_loop_timeout_ms(loop) <= 60000);
    cb_timer_free(t);
    cb_loop_post(loop, count_task, &ran);
    cr_assert_eq(cb_loop_timeout_ms(loop), 0);
    foreign_turn(loop);
    cr_assert_eq(ran, 2);

    /* Pausing and resuming is picked up at once, too. */
    cb_watch_events(e.w, 0);
    cr_assert_eq(write(s[1], "y", 1), 1);
    foreign_turn(loop);
    cr_assert_eq(e.calls, 1);
    cb_watch_events(e.w, CB_READABLE | CB_WRITABLE);
    foreign_turn(loop);
    cr_assert(e.calls == 2 && e.events == (CB_READABLE | CB_WRITABLE));
    cr_assert_eq(cb_loop_fd(loop), fd);
    cb_watch_free(e.w);
    close(s[0]);
    close(s[1]);
    cb_loop_free(loop);
}

Test(loop, a_near_alarm_wakes_the_foreign_descriptor) {
    cb_loop *loop = loop_or_die();
    int order = 0;
    probe p = {.order = &order};
    cb_alarm_init(&p.alarm, loop, probe_fire);
    while (cb_loop_timeout_ms(loop) == 0)
        foreign_turn(loop);
    cb_alarm_set(&p.alarm, clock_now() + 500000);
    struct pollfd fd = {.fd = cb_loop_fd(loop), .events = POLLIN};
    cr_assert_eq(poll(&fd, 1, 2000), 1);
    cb_loop_step(loop);
    cr_assert_eq(order, 1);
    cr_assert_eq(cb_loop_timeout_ms(loop), -1);
    cr_assert_eq(poll(&fd, 1, 0), 0, "the timer descriptor was not cleared");
    cb_loop_free(loop);
}

Test(loop, a_watch_may_go_inside_its_callback_and_its_number_be_reused) {
    cb_loop *loop = loop_or_die();
    for (int i = 0; i < 50; i++) {
        int s[2];
        cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, s), 0);
        pipe_end e = {.fd = s[0], .free_it = true};
        cr_assert_eq(cb_watch_new(&e.w, loop, s[0], CB_READABLE, on_end, &e), CB_OK);
        cr_assert_eq(write(s[1], "z", 1), 1);
        cr_assert_eq(cb_loop_run(loop), CB_OK); /* ends: nothing is left */
        cr_assert(e.calls == 1 && e.bytes == 1 && !e.w);
        close(s[1]);
    }
    cb_loop_free(loop);
}

static void on_reset(cb_watch *w, unsigned events, void *user) {
    pipe_end *e = user;
    char c;
    e->events |= events;
    if (++e->calls < 3) return; /* ignore it twice: it must come again */
    cr_assert(read(e->fd, &c, 1) < 0 && errno == ECONNRESET);
    cb_watch_free(w);
}

Test(loop, a_pending_socket_error_is_reported_until_it_is_read) {
    cb_loop *loop = loop_or_die();
    int s[2];
    /* A stream socket whose peer closed with unread data is reset. */
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, s), 0);
    pipe_end e = {.fd = s[0]};
    cr_assert_eq(write(s[0], "unread", 6), 6);
    close(s[1]);
    cr_assert_eq(cb_watch_new(&e.w, loop, s[0], CB_READABLE, on_reset, &e), CB_OK);
    cr_assert_eq(cb_loop_run(loop), CB_OK);
    cr_assert(e.calls == 3 && (e.events & CB_READABLE));
    close(s[0]);
    cb_loop_free(loop);
}

static void never_called(cb_watch *w, unsigned events, void *user) {
    (void)w;
    (void)events;
    (void)user;
    cr_assert(false, "called");
}

Test(loop, watches_refuse_what_they_cannot_watch) {
    cb_loop *loop = loop_or_die();
    cb_watch *w = NULL;
    int s[2];
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, s), 0);
    cr_expect_eq(cb_watch_new(NULL, loop, s[0], CB_READABLE, never_called, NULL), CB_EINVAL);
    cr_expect_eq(cb_watch_new(&w, NULL, s[0], CB_READABLE, never_called, NULL), CB_EINVAL);
    cr_expect_eq(cb_watch_new(&w, loop, -1, CB_READABLE, never_called, NULL), CB_EINVAL);
    cr_expect_eq(cb_watch_new(&w, loop, s[0], 4, never_called, NULL), CB_EINVAL);
    cr_expect_eq(cb_watch_new(&w, loop, s[0], CB_READABLE, NULL, NULL), CB_EINVAL);
    int file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    cr_expect_eq(cb_watch_new(&w, loop, file, CB_READABLE, never_called, NULL), CB_EPERM, "%s", cb_last_error());
    close(file);
    cr_expect_null(w);
    cr_assert_eq(cb_watch_new(&w, loop, s[0], CB_READABLE, never_called, NULL), CB_OK);
    cr_expect_eq(cb_watch_events(w, 8), CB_EINVAL);
    cb_watch *second = NULL;
    cr_expect_eq(cb_watch_new(&second, loop, s[0], CB_READABLE, never_called, NULL), CB_EEXIST, "%s", cb_last_error());
    cr_expect_null(second);
    cb_watch_free(w);
    cb_watch_free(NULL);
    close(s[0]);
    close(s[1]);
    cb_loop_free(loop);
}

Test(loop, random_bytes_differ_and_leave_no_trace) {
    cb_loop *loop = loop_or_die();
    uint8_t a[100], b[100], big[2000] = {0};
    for (int i = 0; i < 30; i++) {
        cr_assert_eq(cb_loop_random(loop, a, sizeof a), CB_OK);
        cr_assert_eq(cb_loop_random(loop, b, sizeof b), CB_OK);
        cr_assert(memcmp(a, b, sizeof a) != 0);
    }
    cr_assert_eq(cb_loop_random(loop, big, sizeof big), CB_OK);
    cr_assert(memcmp(big + 1000, big + 1500, 500) != 0);
    size_t cap = 0;
    cr_assert(cb_loop_scratch(loop, &cap) != NULL && cap == 65536);
    cb_loop *other = loop_or_die();
    cr_assert(memcmp(cb_loop_hash_key(loop), cb_loop_hash_key(other), 16) != 0);
    cb_loop_free(other);
    cb_loop_free(loop);
}

/* ---- what outlives its owner ---- */

typedef struct lingerer {
    cb_orphan orphan;
    cb_grave grave;
    cb_loop *loop;
    cb_watch *w;
    int *cuts, *buried;
} lingerer;

static void lingerer_bury(cb_grave *g) {
    lingerer *l = CB_CONTAINER(g, lingerer, grave);
    ++*l->buried;
    cb_mem_free(NULL, l);
}

static void lingerer_cut(cb_orphan *o) {
    lingerer *l = CB_CONTAINER(o, lingerer, orphan);
    ++*l->cuts;
    cb_watch_free(l->w);
    cb_orphan_gone(o);
    cb_loop_bury(l->loop, &l->grave, lingerer_bury);
}

Test(loop, what_lingers_is_cut_when_the_loop_goes) {
    cb_loop *loop = loop_or_die();
    int s[2], cuts = 0, buried = 0;
    lingerer *all[3];
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, s), 0);
    for (int i = 0; i < 3; i++) {
        all[i] = cb_mem_new(NULL, sizeof *all[i]);
        *all[i] = (lingerer){.loop = loop, .cuts = &cuts, .buried = &buried};
        cb_loop_adopt(loop, &all[i]->orphan, lingerer_cut);
        cb_loop_adopt(loop, &all[i]->orphan, lingerer_cut); /* twice is once */
    }
    cr_assert_eq(cb_watch_new(&all[0]->w, loop, s[0], CB_READABLE, on_end, NULL), CB_OK);
    cb_orphan_gone(&all[1]->orphan); /* ended by itself */
    cb_orphan_gone(&all[1]->orphan);
    cb_mem_free(NULL, all[1]);
    cb_loop_free(loop);
    cr_assert(cuts == 2 && buried == 2);
    close(s[0]);
    close(s[1]);
}
