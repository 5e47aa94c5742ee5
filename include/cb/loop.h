/* cb/loop.h - one loop a thread: timers, signals, tasks from other threads, and foreign loops.
 *
 * Every handle belongs to the loop that made it and is used on the loop's thread only: the thread that runs it, or that
 * made it and runs nothing yet. cb_loop_post() and cb_loop_stop() are the calls that any thread may make. A loop does
 * not survive fork(): a child makes its own. */
#ifndef CB_LOOP_H
#define CB_LOOP_H

#include <cb/metrics.h>

CB_BEGIN

typedef struct cb_loop cb_loop;
typedef struct cb_timer cb_timer;

/* A piece of work that a loop runs on its own thread. */
typedef void (*cb_task_fn)(cb_loop *loop, void *user);

typedef struct cb_loop_opts {
    size_t size;
    const cb_alloc *alloc; /* copied; NULL = malloc. Objects of this loop inherit it */
    const cb_log *log;     /* borrowed for the life of the loop; NULL = silent */
    cb_metrics *metrics;   /* referenced by the loop: what happens on it is counted there, in the families of
                            * docs/metrics.md; NULL = nothing is counted. Several loops may share one */
} cb_loop_opts;

/* Makes a loop; free it with cb_loop_free(). opts may be NULL. CB_EINVAL (out, size), CB_ESYS (no descriptors are
 * left), CB_EEXIST (the registry has a family with a name of libcb's, defined otherwise), CB_ENOMEM, CB_E2BIG. */
CB_API int cb_loop_new(cb_loop **out, const cb_loop_opts *opts);

/* Runs until cb_loop_stop(), or until nothing is left that could wake the loop (no live server,
 * connection, endpoint, timer or pending task; signal handlers do not keep a loop alive).
 * CB_OK, or CB_ESYS. Must not be called from inside the loop (CB_EINVAL). */
CB_API int cb_loop_run(cb_loop *loop);

/* Handles what is ready now and returns without waiting. CB_OK, CB_ESYS or CB_EINVAL as above. */
CB_API int cb_loop_step(cb_loop *loop);

/* Makes cb_loop_run() return after the current turn; when it is not running, the next one returns at once. Any thread,
 * and signal handlers, may call it while the loop exists. */
CB_API void cb_loop_stop(cb_loop *loop);

/* For foreign event loops: a descriptor that polls readable when cb_loop_step() has work to do. It
 * stays the same for the life of the loop; the caller does not close it. */
CB_API int cb_loop_fd(const cb_loop *loop);

/* For foreign event loops: after how many milliseconds cb_loop_step() must be called even when the
 * descriptor is quiet; 0 = now, -1 = no need. Ask again after each step and after each call that may
 * have queued work. */
CB_API int64_t cb_loop_timeout_ms(const cb_loop *loop);

/* Is there anything left that could wake this loop? 1 or 0. cb_loop_run() returns when it is 0. */
CB_API int cb_loop_alive(const cb_loop *loop);

/* The time of the current turn, read once a turn. */
CB_API cb_time cb_loop_now(const cb_loop *loop);

/* Runs fn on the loop's thread in one of its next turns, in the order of posting. Any thread may call
 * this while the loop exists. CB_EINVAL (no loop, no fn), CB_ENOMEM; CB_ECLOSED when the loop is being freed. Tasks
 * that have not run when the loop is freed are dropped. */
CB_API int cb_loop_post(cb_loop *loop, cb_task_fn fn, void *user);

/* Calls fn on the loop's thread whenever the process gets signum; replaces the loop's earlier handler
 * for it; fn NULL removes it. Loops of several threads may watch one signal: each is told. CB_EINVAL (signum),
 * CB_ENOMEM, CB_ESYS. */
CB_API int cb_loop_on_signal(cb_loop *loop, int signum, cb_task_fn fn, void *user);

/* Calls fn after first_ms, then each repeat_ms (0 = once). The timer is the caller's to free, also
 * after it has fired and also inside fn. Times above some centuries are cut. CB_EINVAL (no loop, no fn), CB_ENOMEM. */
CB_API int cb_timer_start(cb_timer **out, cb_loop *loop, uint64_t first_ms, uint64_t repeat_ms, cb_task_fn fn,
                          void *user);
/* fn is not called any more. NULL is fine. */
CB_API void cb_timer_free(cb_timer *timer);

/* A descriptor that the loop watches, level-triggered: fn is told as long as there is something to read, or room to
 * write; an error of the descriptor counts as all that was asked for. A watch keeps the loop going. It does not own fd,
 * which stays open while it is watched. */
typedef struct cb_watch cb_watch;
enum cb_watch_event { CB_READABLE = 1, CB_WRITABLE = 2 };
typedef void (*cb_watch_fn)(cb_watch *w, unsigned events, void *user);

/* events: bits of enum cb_watch_event; 0 = nothing yet. CB_EINVAL (out, loop, fn, fd, events), CB_EEXIST (this loop
 * watches fd already), CB_EPERM (a plain file, which is always ready), CB_ENOTSUP (a simulation's loop has no
 * descriptors), CB_ESYS, CB_ENOMEM. */
CB_API int cb_watch_new(cb_watch **out, cb_loop *loop, int fd, unsigned events, cb_watch_fn fn, void *user);
/* Asks for other events from now on; 0 pauses. It costs no system call when they are the same. CB_EINVAL, CB_ESYS. */
CB_API int cb_watch_events(cb_watch *w, unsigned events);
/* fn is not called again, and fd may be closed at once; also inside fn. NULL is fine. */
CB_API void cb_watch_free(cb_watch *w);

/* Frees the loop. Every object made on it must have been freed before (their closing callbacks that
 * are still due run here). From inside the loop it does nothing. NULL is fine. */
CB_API void cb_loop_free(cb_loop *loop);

CB_END
#endif
