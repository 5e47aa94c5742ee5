/* A host's part in a forwarding table without sockets, clock, disk and dice: requests, answers, times and saved bytes
 * come in and go out. libcb/lb/node.c drives it; tests/unit/test_lb_node.c plays a whole PoP with it. */
#ifndef CB_LB_NODE_CORE_H
#define CB_LB_NODE_CORE_H

#include "lb/node_wire.h"
#include "lb/table.h"
#include <cb/lb_node.h>

typedef struct cb_lb_core cb_lb_core;

typedef struct cb_lb_core_ops {
    void (*answer)(void *held, cb_slice answer, void *user); /* exactly once for each cb_lb_core_asked() */
    int (*table)(void *user);                                /* as cb_lb_node_ops.on_table */
    void (*state)(void *user);
    void (*log)(int level, const char *text, void *user);
    void *user;
} cb_lb_core_ops;

/* As cb_lb_node_opts, checked and with defaults; saved: what cb_lb_core_save() gave before, or nothing. instance: a
 * random number. CB_EINVAL (members; the detail says what), CB_EPROTO (saved: of another key, or damaged), CB_ENOMEM.
 */
int cb_lb_core_new(cb_lb_core **out, const cb_lb_node_opts *o, const cb_lb_core_ops *ops, const cb_alloc *alloc,
                   cb_slice saved, uint64_t instance, cb_time now);
void cb_lb_core_free(cb_lb_core *c); /* what is held is not answered */
int cb_lb_core_members(cb_lb_core *c, const cb_lb_node_member *members, size_t n, cb_time now);
/* Fills what is 0 with its default; CB_EINVAL names the field. */
int cb_lb_core_opts(cb_lb_node_opts *o);

/* Follower: 1: *out has a request to send, until it is answered or not; 0: nothing is to be asked now. */
int cb_lb_core_ask(cb_lb_core *c, cb_buf *out, cb_time now);
void cb_lb_core_answered(cb_lb_core *c, cb_slice answer, cb_time now);
void cb_lb_core_unanswered(cb_lb_core *c, cb_time now); /* cb_last_error() says why */

/* Writer: somebody asks, whose certificate fits the ID that the request has. from: its address, for people. */
void cb_lb_core_asked(cb_lb_core *c, cb_slice ask, const char *from, void *held, cb_time now);
/* Somebody was turned away before that, for his certificate: counted, and said at times. */
void cb_lb_core_stranger(cb_lb_core *c, const char *from, const char *why, cb_time now);
/* Whoever asked this is gone. */
void cb_lb_core_gone(cb_lb_core *c, const void *held);

/* What is due, and when to come again. */
void cb_lb_core_run(cb_lb_core *c, cb_time now);
cb_time cb_lb_core_next(const cb_lb_core *c, cb_time now);

/* 1: *out is to be put on the disk (free it with cb_lb_table_saved_free()), and cb_lb_core_saved() called; 0: nothing
 * is, or not yet; CB_ENOMEM. force: though it is early. */
int cb_lb_core_save(cb_lb_core *c, uint8_t **out, size_t *len, int force, cb_time now);
void cb_lb_core_saved(cb_lb_core *c, int rc, cb_time now);

int cb_lb_core_idle(cb_lb_core *c, uint32_t bucket, cb_time now);
void cb_lb_core_load(cb_lb_core *c, uint32_t permille);
void cb_lb_core_leave(cb_lb_core *c, int leaves, cb_time now);
int cb_lb_core_state(cb_lb_core *c, uint32_t id, int state, uint32_t percent, cb_time now);
int cb_lb_core_drain(cb_lb_core *c, uint32_t id, int drains, cb_time now);
int cb_lb_core_weight(cb_lb_core *c, uint32_t id, uint32_t weight, cb_time now);

const cb_lb_table *cb_lb_core_table(const cb_lb_core *c);
void cb_lb_core_stats(const cb_lb_core *c, cb_lb_node_stats *out, cb_time now);
int cb_lb_core_info(const cb_lb_core *c, size_t i, cb_lb_node_info *out, cb_time now);
/* Configured or leaving; NULL: nobody of this ID. */
const struct cb_lb_host *cb_lb_core_host(const cb_lb_core *c, uint32_t id);

#endif
