/* A loop in virtual time: a world that somebody simulates drives it. Nothing of it is the kernel's: no descriptor, no
 * clock, no thread; what needs those answers CB_ENOTSUP. */
#ifndef CB_LOOP_VIRTUAL_H
#define CB_LOOP_VIRTUAL_H

#include "base/addr.h"
#include "loop/loop_int.h"

struct cb_udp_port;
extern const struct cb_udp_port cb_udp_kernel;

/* What a loop asks of its world; `world` is what cb_loop_virtual_new() was given. */
typedef struct cb_virtual_ops {
    cb_time (*now)(void *world);
    uint64_t (*wall)(void *world); /* nanoseconds since 1970 */
    void (*random)(void *world, void *out, size_t len);
    void (*stir)(void *world); /* between two turns: there is work now, or earlier than cb_loop_virtual_next() said */
    void (*wake)(void *world); /* from any thread: there may be posted tasks, or cb_loop_stop() was called */
    size_t (*resolve)(void *world, const char *name, cb_addr *out, size_t cap); /* how many; 0 = no such name */
    const struct cb_udp_port *udp;
} cb_virtual_ops;

/* Errors as cb_loop_new(). */
int cb_loop_virtual_new(cb_loop **out, const cb_loop_opts *o, const cb_virtual_ops *ops, void *world);
void cb_loop_virtual_free(cb_loop *loop);
void *cb_loop_world(const cb_loop *loop);
/* One turn at the world's time: receive(world), posted tasks, alarms, deferred work. */
void cb_loop_virtual_turn(cb_loop *loop, void (*receive)(void *world));
/* When the next turn is due: 0 = at once, CB_NEVER. */
cb_time cb_loop_virtual_next(const cb_loop *loop);
bool cb_loop_virtual_stopped(cb_loop *loop); /* cb_loop_stop() was called; true once */
/* What a name means in this loop's world. */
size_t cb_loop_virtual_resolve(const cb_loop *loop, const char *name, cb_addr *out, size_t cap);

#endif
