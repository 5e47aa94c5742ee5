/* How long a loop works, and how long it waits: what tells that a worker is at its limit. One reading of the clock a
 * turn is all that it costs, where it is counted. */
#include "loop/loop_priv.h"
#include <time.h>

void cb_loop_begins(cb_loop *loop) {
    const cb_cells *cells = loop->turn.cells;
    const cb_time now = cb_loop_now(loop);
    if (loop->waited_since) cb_cells_add(cells, CB_C_LOOP_WAIT, now - loop->waited_since);
    loop->waited_since = 0;
    loop->worked_since = now;
    cb_cells_set(cells, CB_C_LOOP_TIMERS, (int64_t)loop->alarms.len);
}

void cb_loop_ends(cb_loop *loop) {
    const cb_cells *cells = loop->turn.cells;
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    const cb_time now = (cb_time)t.tv_sec * CB_SEC + (cb_time)t.tv_nsec;
    cb_cells_add(cells, CB_C_LOOP_TURNS, 1);
    cb_cells_add(cells, CB_C_LOOP_BUSY, now - loop->worked_since);
    cb_cells_observe(cells, CB_C_LOOP_TURN, now - loop->worked_since);
    loop->worked_since = 0;
    loop->waited_since = now;
}
