/* The writer from inside. */
#ifndef CB_LB_WRITER_H
#define CB_LB_WRITER_H

#include "lb/table.h"

enum { CB_LB_COMMITS = 32 };

/* A member as its owner wants it. */
typedef struct cb_lb_want {
    uint32_t id;
    uint16_t weight;
    uint8_t state;
    bool leaves;
    uint64_t acked;
    uint64_t buried; /* dead: the version that had given away all that it had; 0 = not yet */
    cb_time buried_at;
} cb_lb_want;

struct cb_lb_writer {
    cb_alloc alloc; /* the table's, which may go first */
    cb_lb_table *t;
    cb_lb_writer_opts o;
    cb_lb_want *wants; /* CB_LB_MEMBERS_MAX */
    size_t n_wants;
    cb_lb_share *shares; /* scratch: CB_LB_MEMBERS_MAX */
    uint32_t *give;      /* scratch, by slot: buckets that it has too many */
    uint8_t *record;     /* room for one that moves every bucket */
    uint8_t *idle;       /* a bit for each bucket that its old owner has reported */
    uint32_t n_idle;
    uint16_t next_slot;
    bool begun, stirred; /* the first run was; something has happened since the last */
    bool waits;          /* somebody who was dead, for others to know that */
    uint32_t surplus;    /* buckets that are not where they should be */
    uint64_t acked;      /* what every living member has applied */
    uint64_t announced_version;
    cb_time announced_at, step_at;
    struct {
        uint32_t version;
        cb_time at;
    } commits[CB_LB_COMMITS]; /* when buckets changed hands last; the oldest first */
    size_t n_commits;
    cb_lb_writer_stats stats;
};

static inline uint8_t *cb_lb_body(cb_lb_writer *w) {
    return w->record + CB_LB_HEAD;
}

/* Buckets that lose their second owner now, written to the body of the record: those of dead ones, those reported idle,
 * those that moved up to version `expired` (0 = none; *forced counts these). The length of the body. */
size_t cb_lb_plan_settle(cb_lb_writer *w, uint32_t expired, uint32_t *forced);
/* Buckets of dead members, and who takes them. */
size_t cb_lb_plan_rescue(cb_lb_writer *w);
/* At most `most` buckets that should move, and to whom. Sets surplus. */
size_t cb_lb_plan_moves(cb_lb_writer *w, uint32_t most);

#endif
