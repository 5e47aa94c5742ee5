/* What hosts of a PoP say to each other about their forwarding table: one request of a follower, one answer of the
 * writer. Little-endian.
 *
 *   request  "cbnq"  format 1  flags 1  zero 2  id 4  writer 4  buckets 4  epoch 4  instance 8  key check 8  version 8
 *            chain 8  applied 8  load 4  members 4  idle 4  table 4  |  members times: id 4, sum of its address 4  |
 *            idle times: bucket 4  |  table
 *   answer   "cbnr"  format 1  status 1  flags 1  zero 1  writer 4  epoch 4  heartbeat 4  text 4  records 4  table 4
 *            version 8  |  text  |  records times: length 4, bytes  |  table
 */
#ifndef CB_LB_NODE_WIRE_H
#define CB_LB_NODE_WIRE_H

#include "base/buf.h"
#include "lb/log.h"
#include <cb/lb.h>
#include <stdbool.h>

enum {
    CB_LB_ASK_HEAD = 80,
    CB_LB_ASK_MEMBER = 8,
    CB_LB_ANSWER_HEAD = 40,
    CB_LB_WIRE_FORMAT = 1,
    CB_LB_IDLE_MAX = 8192, /* buckets in a request */
    CB_LB_TEXT_MAX = 255
};

enum cb_lb_ask_flag {
    CB_LB_ASK_LEAVES = 1, /* about to stop */
    CB_LB_ASK_LOST = 2    /* has another history: wants a whole table */
};

/* A request; slices point into its bytes. */
typedef struct cb_lb_ask {
    uint8_t flags; /* enum cb_lb_ask_flag, or-ed */
    uint32_t id, writer, buckets, epoch;
    uint64_t instance; /* random, of this start of the host */
    uint64_t key_check;
    uint64_t version, chain; /* of its table; 0 = it has none */
    uint64_t applied;
    uint32_t load;
    size_t n_members, n_idle;
    cb_slice members, idle, table;
} cb_lb_ask;

static inline uint32_t cb_lb_ask_member_id(const cb_lb_ask *a, size_t i) {
    return (uint32_t)cb_lb_get(a->members.base + i * CB_LB_ASK_MEMBER, 4);
}
static inline uint32_t cb_lb_ask_member_sum(const cb_lb_ask *a, size_t i) {
    return (uint32_t)cb_lb_get(a->members.base + i * CB_LB_ASK_MEMBER + 4, 4);
}
static inline uint32_t cb_lb_ask_idle(const cb_lb_ask *a, size_t i) {
    return (uint32_t)cb_lb_get(a->idle.base + i * 4, 4);
}

enum cb_lb_status {
    CB_LB_STATUS_OK = 0,
    CB_LB_STATUS_REFUSED = 1 /* text says why */
};

enum cb_lb_answer_flag { CB_LB_ANSWER_SEND_TABLE = 1 /* the next request is to bring the host's table */ };

typedef struct cb_lb_answer {
    uint8_t status; /* enum cb_lb_status */
    uint8_t flags;  /* enum cb_lb_answer_flag, or-ed */
    uint32_t writer, epoch, heartbeat_ms;
    uint64_t version; /* the writer's latest */
    size_t n_records;
    cb_slice text; /* what is wrong; for people */
    cb_slice records, table;
} cb_lb_answer;

/* CB_EPROTO: the detail says what is wrong with the bytes. */
int cb_lb_ask_read(cb_lb_ask *a, cb_slice bytes);
int cb_lb_answer_read(cb_lb_answer *a, cb_slice bytes);
/* The next record of an answer; at begins at 0. False: there are no more. */
bool cb_lb_answer_next(const cb_lb_answer *a, size_t *at, cb_slice *record);
/* What is left of a request when all of it was added: head, members, idle, table. CB_ELIMIT, CB_ENOMEM. */
int cb_lb_ask_write(cb_buf *out, const cb_lb_ask *a);
int cb_lb_answer_write(cb_buf *out, const cb_lb_answer *a);
/* Adds one to the records of an answer. */
int cb_lb_answer_add(cb_buf *records, cb_slice record);

#endif
