/* The inside of a cb_lb_core: what its files share. */
#ifndef CB_LB_NODE_INT_H
#define CB_LB_NODE_INT_H

#include "base/mem.h"
#include "lb/node_core.h"

#define CB_LB_MS ((cb_time)1000000)

enum { CB_LB_FLAPS = 5, CB_LB_RING_BYTES = 8 << 20, CB_LB_ANSWER_BYTES = 1 << 20 };

typedef struct cb_lb_host {
    /* configured */
    uint32_t id, weight, sum; /* sum: of its address, as hosts compare it */
    char *address, *control, *peer;
    bool removed;
    /* by the operator */
    uint32_t given;
    bool drained;
    /* by health checks */
    int health;
    uint32_t percent;
    /* what the writer knows of it */
    bool heard, dead, sick, held_back, stops, knows_all, told;
    uint8_t told_state, flaps;
    bool told_leaves;
    uint32_t told_weight, load;
    uint64_t instance, replaced; /* of its start; of the one before, which must not speak any more */
    cb_time twice_until;         /* two hosts have its ID */
    cb_time heard_at, row_since, died_at;
    uint32_t epoch;
    uint64_t version, chain, acked;
    bool lost; /* has another history */
    void *held;
    cb_time held_until;
    char trouble[CB_LB_NODE_TEXT];
} cb_lb_host;

typedef struct cb_lb_kept { /* a record for those who are behind */
    uint8_t *bytes;
    size_t len;
    uint64_t chain;
} cb_lb_kept;

struct cb_lb_core {
    cb_alloc alloc;
    cb_lb_node_opts o; /* its pointers are not kept */
    cb_lb_core_ops ops;
    cb_lb_table *t;
    cb_lb_host *hosts; /* by ID */
    size_t n_hosts;
    uint64_t key_check, instance;
    uint8_t key[CB_LB_KEY_BYTES];
    uint32_t heartbeat_ms; /* a follower's: what the writer says */
    uint64_t applied;      /* the version that the datapath has */
    cb_time table_again;   /* the datapath did not take it; 0 = it did */
    uint64_t records, tables;
    char trouble[CB_LB_NODE_TEXT];
    int phase_told;
    /* the disk */
    bool dirty, saving;
    uint32_t epoch, epoch_saving, epoch_saved; /* that we have written, or will */
    cb_time save_at;
    /* follower */
    bool asking, lost, send_table, refused, spoken;
    cb_time asked_at, ask_at, contact_at, began_at;
    uint8_t *idle; /* a bit for each bucket */
    size_t n_idle, idle_buckets, idle_from;
    uint32_t load;
    bool leaves;
    /* writer */
    cb_lb_writer *w;
    bool started; /* the epoch is chosen */
    cb_time start_until, writing_since, raised_at;
    uint32_t epoch_heard;
    cb_lb_kept *ring; /* records from base_version + 1 on */
    size_t ring_n, ring_cap, ring_bytes;
    uint64_t base_version, base_chain;
    uint64_t refusals, deaths, rises;
    uint32_t silent;
    bool refusal_told;
    cb_time refusal_at;
};

static inline bool cb_lb_core_leads(const cb_lb_core *c) {
    return c->o.writer == c->o.id;
}
static inline cb_time cb_lb_core_lease(const cb_lb_core *c) {
    return (cb_time)c->heartbeat_ms * c->o.misses * CB_LB_MS;
}

cb_lb_host *cb_lb_host_find(const cb_lb_core *c, uint32_t id);
int cb_lb_host_add(cb_lb_core *c, uint32_t id); /* one that is not configured: it leaves */
int cb_lb_core_phase(const cb_lb_core *c, cb_time now);
void cb_lb_core_say(cb_lb_core *c, int level, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* Sets a text of trouble, and logs it when it is another one. fmt NULL: it is over. */
void cb_lb_core_trouble(cb_lb_core *c, char text[CB_LB_NODE_TEXT], const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
void cb_lb_core_push(cb_lb_core *c, cb_time now); /* the table has changed: to the datapath, and later to the disk */

/* node_lead.c */
void cb_lb_lead_init(cb_lb_core *c, cb_time now);
void cb_lb_lead_free(cb_lb_core *c);
void cb_lb_lead_run(cb_lb_core *c, cb_time now);
cb_time cb_lb_lead_next(const cb_lb_core *c, cb_time now);
void cb_lb_lead_forget(cb_lb_core *c, cb_lb_host *h); /* what is held is answered */
/* node_health.c: leases, and what the table is to have */
void cb_lb_lead_leases(cb_lb_core *c, cb_time now);
cb_time cb_lb_lead_lease_next(const cb_lb_core *c, cb_time now);
int cb_lb_lead_wishes(cb_lb_core *c);
/* A living host that does not know all members, and could send nothing to who is new; NULL: all know all. */
const cb_lb_host *cb_lb_lead_blind(const cb_lb_core *c);
void cb_lb_lead_heard(cb_lb_core *c, cb_lb_host *h, cb_time now);

/* node_follow.c */
void cb_lb_follow_run(cb_lb_core *c, cb_time now);
cb_time cb_lb_follow_next(const cb_lb_core *c, cb_time now);

/* node_saved.c */
int cb_lb_saved_read(cb_lb_core *c, cb_slice saved);

#endif
