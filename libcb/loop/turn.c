/* What cores use of a loop: see turn.h. */
#include "loop/turn.h"

enum { ROUNDS_MAX = 16 };

void cb_turn_init(cb_turn *turn, const cb_alloc *alloc, const cb_log *log, cb_time (*clock)(const cb_turn *turn)) {
    cb_blocks_init(&turn->blocks, alloc);
    turn->log = log;
    turn->cells = NULL;
    turn->clock = clock;
    turn->stir = NULL;
    cb_list_init(&turn->defers);
    cb_list_init(&turn->idles);
    cb_list_init(&turn->graves);
    turn->now = 0;
    turn->fresh = turn->in_turn = turn->patient = false;
}

/* A loop begins with its turn. */
static cb_turn *of(const cb_loop *loop) {
    return (cb_turn *)(uintptr_t)loop;
}

cb_time cb_loop_now(const cb_loop *loop) {
    cb_turn *turn = of(loop);
    if (turn->fresh) return turn->now;
    if (!turn->in_turn) return turn->clock(turn);
    turn->now = turn->clock(turn);
    turn->fresh = true;
    return turn->now;
}

const cb_alloc *cb_loop_alloc(const cb_loop *loop) {
    return &of(loop)->blocks.alloc;
}

const cb_log *cb_loop_log(const cb_loop *loop) {
    return of(loop)->log;
}

/* ---- deferred work and burials ---- */

void cb_defer_init(cb_defer *d, cb_loop *loop, void (*run)(cb_defer *defer)) {
    cb_list_init(&d->link);
    d->run = run;
    d->loop = loop;
}

static void stirred(cb_turn *turn) {
    if (!turn->in_turn && turn->stir) turn->stir(turn);
}

void cb_defer_later(cb_defer *d) {
    if (!cb_list_empty(&d->link)) return;
    cb_list_add_tail(&of(d->loop)->defers, &d->link);
    stirred(of(d->loop));
}

void cb_defer_idle(cb_defer *d) {
    cb_turn *turn = of(d->loop);
    if (!turn->patient)
        cb_defer_later(d);
    else if (cb_list_empty(&d->link))
        cb_list_add_tail(&turn->idles, &d->link);
}

void cb_defer_cancel(cb_defer *d) {
    cb_list_del(&d->link);
}

void cb_loop_bury(cb_loop *loop, cb_grave *grave, void (*bury)(cb_grave *grave)) {
    grave->bury = bury;
    cb_list_add_tail(&of(loop)->graves, &grave->link);
    stirred(of(loop));
}

static void take_all(cb_list *from, cb_list *to) {
    cb_list_init(to);
    if (cb_list_empty(from)) return;
    *to = *from;
    to->next->prev = to;
    to->prev->next = to;
    cb_list_init(from);
}

bool cb_turn_has_leftovers(const cb_turn *turn) {
    return !cb_list_empty(&turn->defers) || !cb_list_empty(&turn->idles) || !cb_list_empty(&turn->graves);
}

/* In rounds with an end: work that defers itself for ever must not starve the descriptors. */
void cb_turn_run_leftovers(cb_turn *turn) {
    cb_list batch;
    for (int round = 0; round < ROUNDS_MAX && !(cb_list_empty(&turn->defers) && cb_list_empty(&turn->graves));
         round++) {
        take_all(&turn->defers, &batch);
        while (!cb_list_empty(&batch)) {
            cb_defer *d = CB_CONTAINER(batch.next, cb_defer, link);
            cb_list_del(&d->link);
            d->run(d);
        }
        if (!cb_list_empty(&turn->defers)) continue; /* the dead may still be needed by those */
        take_all(&turn->graves, &batch);
        while (!cb_list_empty(&batch)) {
            cb_grave *g = CB_CONTAINER(batch.next, cb_grave, link);
            cb_list_del(&g->link);
            g->bury(g);
        }
    }
}

void cb_turn_idle(cb_turn *turn) {
    cb_list batch;
    take_all(&turn->idles, &batch);
    while (!cb_list_empty(&batch)) {
        cb_defer *d = CB_CONTAINER(batch.next, cb_defer, link);
        cb_list_del(&d->link);
        d->run(d);
    }
    cb_turn_run_leftovers(turn);
}
