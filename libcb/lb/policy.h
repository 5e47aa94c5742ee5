/* Which origin is next, and which are left out for a while. F1: time is an argument. */
#ifndef CB_LB_POLICY_H
#define CB_LB_POLICY_H

#include <cb/proxy.h>
#include <stdbool.h>

typedef struct cb_lb_peer {
    uint32_t weight; /* >= 1 */
    uint32_t active; /* exchanges that run */
    int64_t credit;  /* of smooth weighted round robin */
    bool usable;     /* set before each pick */
    bool held;       /* not to be used, whatever the others are like */
    uint32_t fails;  /* within the window */
    cb_time window;  /* when the window began */
    cb_time out;     /* left out until then; 0 = in */
} cb_lb_peer;

/* One way to choose. pick() returns the index of a usable peer; at least one is. More policies (ring hash, P2C, EWMA)
 * are more rows: `hash` is of what should stay together (0: nothing). */
typedef struct cb_lb_chooser {
    const char *name;
    size_t (*pick)(cb_lb_peer *peers, size_t n, size_t turn, uint64_t hash);
} cb_lb_chooser;

const cb_lb_chooser *cb_lb_policy_get(int kind); /* NULL: not known */

typedef struct cb_lb {
    const cb_lb_chooser *policy;
    cb_lb_peer *peers;
    size_t n, turn;
    uint32_t max_fails;
    cb_time window, out;
    const cb_alloc *alloc;
} cb_lb;

int cb_lb_init(cb_lb *lb, const cb_alloc *alloc, int kind, size_t n); /* weights are 1; set them after */
void cb_lb_free(cb_lb *lb);
/* The next peer, or -1 when every peer is held or its bit in `tried` (peers from 64 on have no bit). Peers that are out
 * come only when no other is left. The choice counts as active until cb_lb_end(). */
int64_t cb_lb_begin(cb_lb *lb, cb_time now, uint64_t hash, uint64_t tried);
void cb_lb_end(cb_lb *lb, size_t i);
bool cb_lb_fail(cb_lb *lb, size_t i, cb_time now); /* true: this one took it out */
void cb_lb_good(cb_lb *lb, size_t i);              /* it answered: back in (failures of its window still count) */

#endif
