/* What the drivers of libcb use of a loop: alarms in nanoseconds, work at the end of a turn, descriptors. */
#ifndef CB_LOOP_INT_H
#define CB_LOOP_INT_H

#include "base/heap.h"
#include "base/list.h"
#include "base/log.h"
#include "base/mem.h"
#include <cb/loop.h>
#include <stdbool.h>

#define CB_NEVER UINT64_MAX
#define CB_MS    ((cb_time)1000000)
#define CB_SEC   ((cb_time)1000000000)

const cb_alloc *cb_loop_alloc(const cb_loop *loop);
const cb_log *cb_loop_log(const cb_loop *loop);
/* Random bytes from the kernel's generator; the loop keeps a small stock. Aborts never; CB_ESYS. */
int cb_loop_random(cb_loop *loop, void *out, size_t len);
uint64_t cb_loop_wall(const cb_loop *loop);   /* the calendar: nanoseconds since 1970 */
bool cb_loop_is_virtual(const cb_loop *loop); /* one of a simulation (loop/virtual.h) */
/* CB_OK, or CB_ENOTSUP on a virtual loop, with the detail that `what` is not to be had there. */
int cb_loop_needs_kernel(const cb_loop *loop, const char *what);
const uint8_t *cb_loop_hash_key(const cb_loop *loop); /* 16 random bytes of this loop, for its maps */

/* A deadline, embedded in its owner. Precise to the timerfd (tens of microseconds) when near, to a
 * millisecond when far. Setting it again moves it; CB_NEVER stops it; firing stops it first. */
typedef struct cb_alarm cb_alarm;
struct cb_alarm {
    cb_heap_node node;
    void (*fire)(cb_alarm *alarm, cb_time now);
    cb_loop *loop;
};
void cb_alarm_init(cb_alarm *a, cb_loop *loop, void (*fire)(cb_alarm *alarm, cb_time now));
int cb_alarm_set(cb_alarm *a, cb_time at); /* CB_ENOMEM only when newly armed */
void cb_alarm_stop(cb_alarm *a);
static inline cb_time cb_alarm_at(const cb_alarm *a) {
    return a->node.pos ? a->node.key : CB_NEVER;
}

/* Work for the end of this turn (after the descriptors that were ready have been handled, before the
 * loop waits): flushing what the turn produced, in one go. Embedded; deferring twice runs it once;
 * work deferred while running runs before the loop waits too. */
typedef struct cb_defer cb_defer;
struct cb_defer {
    cb_list link;
    void (*run)(cb_defer *defer);
    cb_loop *loop;
};
void cb_defer_init(cb_defer *d, cb_loop *loop, void (*run)(cb_defer *defer));
void cb_defer_later(cb_defer *d);
/* For work that costs less in one piece, as packets that could be fuller: on a loop of cb_loop_run() it waits until no
 * descriptor is ready any more, but for some dozen of them and a quarter of a millisecond at most. It delays nothing
 * that could be done at once: instead of waiting the loop does it. Elsewhere the same as cb_defer_later(). */
void cb_defer_idle(cb_defer *d);
void cb_defer_cancel(cb_defer *d);

/* As cb_loop_post(), and drop is called by cb_loop_free() when the task has not run then: it owns what it is about. */
int cb_loop_post_owner(cb_loop *loop, cb_task_fn fn, void (*drop)(void *user), void *user);

/* A large scratch area for one read at a time (64 KiB); valid until the caller returns to the loop. Not
 * re-entrant: take what you need out of it before calling code that may use it. */
uint8_t *cb_loop_scratch(cb_loop *loop, size_t *cap);

/* Keeps cb_loop_run() going while something exists that no watch or alarm represents. Watches and armed
 * alarms count by themselves. */
void cb_loop_hold(cb_loop *loop);
void cb_loop_release(cb_loop *loop);

/* Something that lives on for a while after its owner freed it, as a socket that lingers. When the loop is freed before
 * it has come to its end, cut() ends it at once. It leaves by cb_orphan_gone(), also inside cut(). */
typedef struct cb_orphan cb_orphan;
struct cb_orphan {
    cb_list link;
    void (*cut)(cb_orphan *orphan);
};
void cb_loop_adopt(cb_loop *loop, cb_orphan *orphan, void (*cut)(cb_orphan *orphan));
static inline void cb_orphan_gone(cb_orphan *orphan) {
    if (orphan->cut) cb_list_del(&orphan->link);
    orphan->cut = NULL;
}

/* Frees memory after the current turn of the loop, when no library call can be on the stack any more
 * (decision 2: deferred destroy). */
typedef struct cb_grave cb_grave;
struct cb_grave {
    cb_list link;
    void (*bury)(cb_grave *grave);
};
void cb_loop_bury(cb_loop *loop, cb_grave *grave, void (*bury)(cb_grave *grave));

#endif
