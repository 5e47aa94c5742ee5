#include "loop/virtual.h"
#include "loop/loop_priv.h"

static cb_loop *of(const cb_turn *turn) {
    return (cb_loop *)(uintptr_t)turn; /* its first member */
}

static cb_time world_now(const cb_turn *turn) {
    const cb_loop *loop = of(turn);
    return loop->ops->now(loop->world);
}

static void stir(cb_turn *turn) {
    const cb_loop *loop = of(turn);
    loop->ops->stir(loop->world);
}

int cb_loop_virtual_new(cb_loop **out, const cb_loop_opts *o, const cb_virtual_ops *ops, void *world) {
    cb_loop *loop;
    int rc = cb_loop_blank(&loop, o);
    if (rc < 0) return rc;
    loop->turn.clock = world_now;
    loop->turn.stir = stir;
    loop->ops = ops;
    loop->world = world;
    loop->udp_port = ops->udp;
    ops->random(world, loop->hash_key, sizeof loop->hash_key);
    *out = loop;
    return CB_OK;
}

void cb_loop_virtual_free(cb_loop *loop) {
    if (loop) cb_loop_destroy(loop);
}

void *cb_loop_world(const cb_loop *loop) {
    return loop->world;
}

void cb_loop_virtual_turn(cb_loop *loop, void (*receive)(void *world)) {
    loop->turn.in_turn = true;
    loop->turn.fresh = false;
    cb_cells_add(loop->turn.cells, CB_C_LOOP_TURNS, 1);
    receive(loop->world);
    if (cb_loop_has_posts(loop)) cb_loop_run_posts(loop);
    cb_alarms_run(loop);
    cb_turn_run_leftovers(&loop->turn);
    cb_cells_set(loop->turn.cells, CB_C_LOOP_TIMERS, (int64_t)loop->alarms.len);
    loop->turn.fresh = loop->turn.in_turn = false;
}

cb_time cb_loop_virtual_next(const cb_loop *loop) {
    if (cb_turn_has_leftovers(&loop->turn) || cb_loop_has_posts(loop)) return 0;
    const cb_heap_node *n = cb_heap_min(&loop->alarms);
    return n ? n->key : CB_NEVER;
}

bool cb_loop_virtual_stopped(cb_loop *loop) {
    return atomic_load_explicit(&loop->stop, memory_order_relaxed) && atomic_exchange(&loop->stop, false);
}

size_t cb_loop_virtual_resolve(const cb_loop *loop, const char *name, cb_addr *out, size_t cap) {
    return loop->ops->resolve(loop->world, name, out, cap);
}
