/* Work that would block a loop (files, tokens): on a thread of libuv's pool, which all loops of the process share. */
#ifndef CB_LOOP_WORK_H
#define CB_LOOP_WORK_H

#include "loop/loop_int.h"

typedef struct cb_work cb_work;

typedef struct cb_work_ops {
    void (*run)(void *job);  /* on another thread, unless the work is forgotten before it begins */
    void (*done)(void *job); /* then on the loop's, unless the work was forgotten; the handle is gone */
    void (*drop)(void *job); /* last, once, on the loop's: frees the job */
} cb_work_ops;

/* Keeps the loop running until done. CB_ENOTSUP (a virtual loop), CB_ENOMEM; the job is the caller's then. */
int cb_work_start(cb_work **out, cb_loop *loop, const cb_work_ops *ops, void *job);
/* The owner goes away: done is not called any more. What runs goes on running, what waits for a thread does not begin.
 * NULL is fine. */
void cb_work_forget(cb_work *w);

#endif
