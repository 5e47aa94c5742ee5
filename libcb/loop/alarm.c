/* Deadlines in a heap of ours. libuv's timer wakes the loop for far ones (its grain is a millisecond), a
 * timerfd for near ones; what is due is then taken from the heap. */
#include "base/error.h"
#include "loop/loop_priv.h"
#include <errno.h>
#include <sys/timerfd.h>
#include <unistd.h>

static const cb_time NEAR = 2 * CB_MS;

static void on_far(uv_timer_t *timer) { /* waking was the point */
    cb_loop *loop = timer->data;
    loop->far_at = CB_NEVER;
}

static void on_near(uv_poll_t *poll, int status, int events) {
    (void)status;
    (void)events;
    cb_loop *loop = poll->data;
    loop->near_fired = true;
    loop->near_at = CB_NEVER;
}

int cb_alarms_open(cb_loop *loop) {
    loop->near_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (loop->near_fd < 0) return cb_fail_errno(errno, "event loop: timerfd_create");
    int rc = uv_poll_init(&loop->uv, &loop->near, loop->near_fd);
    if (rc == 0) {
        loop->near.data = loop;
        rc = uv_poll_start(&loop->near, UV_READABLE, on_near);
    }
    return rc < 0 ? cb_fail_errno(-rc, "event loop: timer descriptor") : CB_OK;
}

void cb_alarms_run(cb_loop *loop) {
    size_t most = loop->alarms.len; /* an alarm that sets itself to the past waits for the next turn */
    if (!most) return;
    cb_time now = cb_loop_now(loop);
    while (most--) {
        cb_heap_node *n = cb_heap_min(&loop->alarms);
        if (!n || n->key > now) return;
        cb_alarm *a = CB_CONTAINER(n, cb_alarm, node);
        cb_heap_del(&loop->alarms, n);
        if (n->key)
            cb_cells_observe(loop->turn.cells, CB_C_LOOP_LATE, now - n->key); /* 0 is "at once" and never late */
        a->fire(a, now);
    }
}

static void set_near(cb_loop *loop, cb_time at) {
    struct itimerspec when = {.it_value = {.tv_sec = (time_t)(at / CB_SEC), .tv_nsec = (long)(at % CB_SEC)}};
    if (timerfd_settime(loop->near_fd, TFD_TIMER_ABSTIME, &when, NULL) < 0) return;
    loop->near_at = at;
    loop->near_fired = false; /* setting it anew also made it unreadable */
}

static void set_far(cb_loop *loop, cb_time at) {
    uint64_t at_ms = at / CB_MS + (at % CB_MS != 0);
    if (loop->turn.now / CB_MS != uv_now(&loop->uv)) uv_update_time(&loop->uv); /* it waits from its idea of now */
    if (at == loop->far_at) return;
    loop->far_at = at;
    uint64_t now_ms = uv_now(&loop->uv);
    uv_timer_start(&loop->far, on_far, at_ms > now_ms ? at_ms - now_ms : 0, 0);
}

bool cb_alarms_arm(cb_loop *loop) {
    const cb_heap_node *n = cb_heap_min(&loop->alarms);
    cb_time now = cb_loop_now(loop);
    loop->turn.now = now;
    bool due = n && n->key <= now;
    bool near = n && !due && n->key - now < NEAR;
    if (near && n->key != loop->near_at) set_near(loop, n->key);
    if (n && !due && !near) {
        set_far(loop, n->key);
    } else if (loop->far_at != CB_NEVER) {
        uv_timer_stop(&loop->far);
        loop->far_at = CB_NEVER;
    }
    if (loop->near_fired) {
        uint64_t ticks;
        if (read(loop->near_fd, &ticks, sizeof ticks) < 0 && errno != EAGAIN)
            cb_log_line(loop->turn.log, CB_LOG_WARN, "loop", "reading the timer descriptor failed (errno %d)", errno);
        loop->near_fired = false;
    }
    return due;
}

void cb_alarm_init(cb_alarm *a, cb_loop *loop, void (*fire)(cb_alarm *alarm, cb_time now)) {
    *a = (cb_alarm){.fire = fire, .loop = loop};
}

int cb_alarm_set(cb_alarm *a, cb_time at) {
    cb_loop *loop = a->loop;
    if (at == CB_NEVER) {
        cb_alarm_stop(a);
        return CB_OK;
    }
    if (a->node.pos && a->node.key == at) return CB_OK;
    int rc = cb_heap_set(&loop->alarms, &a->node, at);
    /* Between the steps of a foreign loop nobody else would arm the descriptor that it waits for. */
    if (rc != CB_OK || loop->turn.in_turn || cb_heap_min(&loop->alarms) != &a->node) return rc;
    if (loop->ops)
        loop->ops->stir(loop->world);
    else
        cb_alarms_arm(loop);
    return rc;
}

void cb_alarm_stop(cb_alarm *a) {
    cb_heap_del(&a->loop->alarms, &a->node);
}

/* ---- the public timers ---- */

struct cb_timer {
    cb_alarm alarm;
    cb_time repeat;
    cb_task_fn fn;
    void *user;
};

static cb_time from_ms(uint64_t ms) {
    return ms > (CB_NEVER >> 1) / CB_MS ? CB_NEVER >> 1 : ms * CB_MS;
}

static void timer_fire(cb_alarm *alarm, cb_time now) {
    cb_timer *t = CB_CONTAINER(alarm, cb_timer, alarm);
    if (t->repeat) {
        cb_time next = alarm->node.key + t->repeat; /* no drift */
        if (next <= now) next = now + t->repeat;    /* and no burst after a standstill */
        cb_alarm_set(alarm, next);                  /* cannot fail: its place in the heap has just become free */
    }
    t->fn(alarm->loop, t->user); /* last: it may free t */
}

int cb_timer_start(cb_timer **out, cb_loop *loop, uint64_t first_ms, uint64_t repeat_ms, cb_task_fn fn, void *user) {
    if (!out || !loop || !fn)
        return cb_fail(CB_EINVAL, "cb_timer_start: %s is NULL", !out ? "out" : !loop ? "loop" : "fn");
    cb_timer *t = cb_mem_new(cb_loop_alloc(loop), sizeof *t);
    if (!t) return cb_fail(CB_ENOMEM, "no memory for a timer");
    cb_alarm_init(&t->alarm, loop, timer_fire);
    t->repeat = from_ms(repeat_ms);
    t->fn = fn;
    t->user = user;
    int rc = cb_alarm_set(&t->alarm, cb_loop_now(loop) + from_ms(first_ms));
    if (rc < 0) {
        cb_mem_free(cb_loop_alloc(loop), t);
        return rc;
    }
    *out = t;
    return CB_OK;
}

void cb_timer_free(cb_timer *timer) {
    if (!timer) return;
    cb_alarm_stop(&timer->alarm);
    cb_mem_free(cb_loop_alloc(timer->alarm.loop), timer);
}
