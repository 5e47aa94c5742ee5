/* The part of a loop that cores may touch: its time, its memory, and what it does at the end of a turn. No descriptors
 * and no system calls, so that what uses only this runs as well in a test or a simulation. */
#ifndef CB_LOOP_TURN_H
#define CB_LOOP_TURN_H

#include "base/blocks.h"
#include "loop/loop_int.h"
#include "telemetry/count.h"
#include <stdbool.h>

/* The first member of struct cb_loop. */
typedef struct cb_turn {
    cb_blocks blocks; /* with the allocator of all that lives on the loop */
    const cb_log *log;
    cb_cells *cells; /* what is counted with; NULL: nothing is counted */
    cb_time (*clock)(const struct cb_turn *turn);
    void (*stir)(
        struct cb_turn *turn); /* work was queued between two turns; NULL: whoever runs the loop looks anyway */
    cb_list defers, idles, graves;
    cb_time now;
    bool fresh;   /* now is the time of this turn */
    bool in_turn; /* inside cb_loop_run() or cb_loop_step() */
    bool patient; /* whoever runs the loop calls cb_turn_idle() before it waits */
} cb_turn;

void cb_turn_init(cb_turn *turn, const cb_alloc *alloc, const cb_log *log, cb_time (*clock)(const cb_turn *turn));
bool cb_turn_has_leftovers(const cb_turn *turn);
void cb_turn_run_leftovers(cb_turn *turn); /* what waits for the end of the turn */
void cb_turn_idle(cb_turn *turn);          /* and what waits for the loop to be idle */

/* cb_loop_now(), where each instruction counts. */
static inline cb_time cb_turn_now(const cb_loop *loop) {
    const cb_turn *turn = (const cb_turn *)(const void *)loop;
    return turn->fresh ? turn->now : cb_loop_now(loop);
}

/* What objects of this loop count with; valid as long as the loop. */
static inline const cb_cells *cb_loop_cells(const cb_loop *loop) {
    return ((const cb_turn *)(const void *)loop)->cells;
}

#endif
