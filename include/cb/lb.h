/* cb/lb.h - which server gets what: a table of buckets that many hosts share, hashing to keep things together, and the
 * policies of a balancer over a pool. Nothing here opens a socket, reads a clock or draws a random number.
 *
 * The forwarding table. Flows hash to buckets, buckets belong to members. Every host of a PoP forwards, so all hosts
 * need the same table, and a bucket that moves must not tear the flows that live in it. So there is one writer and a
 * log:
 *
 *   cb_lb_table_new(&table, CB_OPTS(cb_lb_table_opts, .key = secret));     on each host
 *   cb_lb_table_apply(table, record);                                      for each record, in order
 *   cb_lb_table_lookup(table, cb_lb_hash(key, tuple, sizeof tuple), &owner);   owner.first, and owner.second
 *
 *   cb_lb_writer_new(&writer, CB_OPTS(cb_lb_writer_opts, .table = table, .publish = send_to_all, .epoch = 1));  on one
 *   cb_lb_writer_member(writer, CB_OPTS(cb_lb_member, .id = 7, .weight = 100));
 *   cb_lb_writer_run(writer, now);     writes what is due to the log, and says when to come again
 *
 * The first records seed the table by weighted Maglev; from then on only those buckets move that have to. A bucket
 * moves in two phases: first all hosts learn its new owner as the second one (who is asked when the first has no such
 * flow), then the two change places, and the old one stays second until it has no flow there any more. The same log
 * gives the same table everywhere, whatever the compiler, the byte order or the version of libcb.
 * docs/design/forwarding.md has the format and the reasons, docs/guide/lb.md how to use it. */
#ifndef CB_LB_H
#define CB_LB_H

#include <cb/health.h>

CB_BEGIN

typedef struct cb_lb_table cb_lb_table;
typedef struct cb_lb_writer cb_lb_writer;
typedef struct cb_lb_pool cb_lb_pool;

enum cb_lb_limits {
    CB_LB_BUCKETS = 65537,       /* the default: a prime, as all sizes of tables are */
    CB_LB_BUCKETS_MAX = 4194301, /* a table has 8 bytes for each */
    CB_LB_MEMBERS_MAX = 4096,
    CB_LB_WEIGHT_MAX = 65535,
    CB_LB_KEY_BYTES = 16,
    CB_LB_GEO_BYTES = 16 /* of the name of a place, with its NUL */
};

/* ---- hashing ---- */
/* SipHash-2-4 of a tuple or name by a secret key of CB_LB_KEY_BYTES bytes, so that strangers cannot aim at a bucket. */
CB_API uint64_t cb_lb_hash(const uint8_t *key, const void *data, size_t len);
/* The bucket of a hash: its upper 32 bits times the size of the table, shifted by 32. */
CB_API uint32_t cb_lb_bucket(uint64_t hash, uint32_t buckets);

/* How a member is. */
enum cb_lb_state {
    CB_LB_UP = 0,
    CB_LB_DRAINING = 1, /* gets nothing new; what it has leaves by the two phases */
    CB_LB_DEAD = 2      /* its flows are lost: its buckets are taken at once */
};

/* A member of a table, or of a choice by rendezvous or Maglev. */
typedef struct cb_lb_member {
    size_t size;
    uint32_t id;     /* not 0; the same on all hosts. Order and choice depend on it, and on nothing else */
    uint32_t weight; /* up to CB_LB_WEIGHT_MAX; 0 = as draining */
    int32_t state;   /* enum cb_lb_state */
    uint32_t reserved;
} cb_lb_member;

/* Rendezvous hashing with weights: the index of the member that this hash belongs to, by computing a score for each. No
 * table; a change moves what it must and nothing else; balance is that of chance. Members that are not up are left out.
 * CB_ENOENT (no member is up and has weight), CB_EINVAL (members, a size or a weight). */
CB_API int64_t cb_lb_rendezvous(const cb_lb_member *members, size_t n, uint64_t hash);
/* Maglev hashing with weights: fills owners[0..buckets-1] with indices of members, each as often as its weight says, to
 * less than one. The same members give the same table in any order of them; a change moves some buckets more than it
 * must. buckets is a prime of at most CB_LB_BUCKETS_MAX, seed any number. CB_EINVAL (which), CB_EEXIST (two members
 * with one ID), CB_ENOENT (no member is up and has weight), CB_ENOMEM. */
CB_API int cb_lb_maglev(uint32_t *owners, uint32_t buckets, const cb_lb_member *members, size_t n, uint64_t seed);

/* ---- the table ---- */
typedef struct cb_lb_table_opts {
    size_t size;
    const cb_alloc *alloc; /* NULL = malloc */
    const uint8_t *key;    /* CB_LB_KEY_BYTES, copied: chains the log; the same on all hosts. NULL = all zero */
} cb_lb_table_opts;

/* Makes an empty table. One thread at a time applies and loads; at the same time others may look up, from the first
 * record on that was applied before they began. CB_EINVAL (out), CB_ENOMEM, CB_E2BIG. */
CB_API int cb_lb_table_new(cb_lb_table **out, const cb_lb_table_opts *opts);
CB_API void cb_lb_table_free(cb_lb_table *t);

/* Applies the next record of the log, wholly or not at all. CB_EEXIST: it was applied before. CB_EAGAIN: one before it
 * is missing. CB_EPERM: it is of a writer that another has replaced. CB_EPROTO: it is damaged, of a table with another
 * key or history, or says what cannot be. CB_ENOMEM. */
CB_API int cb_lb_table_apply(cb_lb_table *t, cb_slice record);

enum cb_lb_phase {
    CB_LB_STABLE = 0,    /* second is 0 */
    CB_LB_ANNOUNCED = 1, /* second will be first */
    CB_LB_MOVED = 2      /* second was first, and may still have flows */
};

/* Whose a bucket is. */
typedef struct cb_lb_owner {
    uint32_t bucket;
    uint32_t first;  /* ID of a member; 0 = nobody's */
    uint32_t second; /* whom the first one passes on what it does not know; 0 = nobody */
    int32_t phase;   /* enum cb_lb_phase */
} cb_lb_owner;

/* Whose this hash is. CB_ENOENT: nobody's, or the table is empty. */
CB_API int cb_lb_table_lookup(const cb_lb_table *t, uint64_t hash, cb_lb_owner *out);
/* Whose a bucket is, nobody's too. CB_EINVAL: there is no such bucket. */
CB_API int cb_lb_table_bucket(const cb_lb_table *t, uint32_t bucket, cb_lb_owner *out);

/* A member as the table has it. */
typedef struct cb_lb_member_stats {
    size_t size; /* set by the caller */
    uint32_t id, weight;
    int32_t state;    /* enum cb_lb_state */
    uint32_t slot;    /* its number in the words of buckets */
    uint32_t first;   /* buckets that it is first in */
    uint32_t coming;  /* ... is announced for */
    uint32_t leaving; /* ... is still second in */
    uint32_t reserved;
} cb_lb_member_stats;

/* The i-th member, in no order. CB_ENOENT: there are no more. CB_EINVAL (out, size). */
CB_API int cb_lb_table_member(const cb_lb_table *t, size_t i, cb_lb_member_stats *out);

typedef struct cb_lb_table_stats {
    size_t size;      /* set by the caller */
    uint64_t version; /* number of the latest record */
    uint64_t chain;   /* hash of all records up to it */
    uint64_t content; /* hash of what the table says: equal tables, equal content, however they came about */
    uint32_t epoch;   /* of the writer */
    uint32_t buckets, members;
    uint32_t announced, moved; /* buckets in these phases */
    uint32_t unowned;
} cb_lb_table_stats;

/* CB_EINVAL (out, size). */
CB_API int cb_lb_table_stats_get(const cb_lb_table *t, cb_lb_table_stats *out);

/* The buckets as they are in memory, for a datapath: one aligned word each, read and written as a whole. Bits 0-15 are
 * the first owner's slot, 16-31 the second's (65535 = none), 32-62 the version of the latest change, 63 is set while
 * the second is announced. NULL while the table is empty; the place never changes afterwards. */
CB_API const uint64_t *cb_lb_table_words(const cb_lb_table *t, size_t *n);

/* All of a table, for hosts that join and writers that start again; to be freed by cb_lb_table_saved_free(). CB_EINVAL
 * (out), CB_ENOENT (the table is empty), CB_ENOMEM. */
CB_API int cb_lb_table_save(const cb_lb_table *t, uint8_t **out, size_t *len);
/* Takes over a saved table of the same key, unless this one has a newer writer or version (CB_EPERM). CB_EPROTO
 * (damaged, another key, another number of buckets), CB_ENOMEM. On failure nothing changes. */
CB_API int cb_lb_table_load(cb_lb_table *t, cb_slice saved);
CB_API void cb_lb_table_saved_free(uint8_t *saved);

/* ---- the writer: one for all hosts ---- */
typedef struct cb_lb_writer_opts {
    size_t size;
    cb_lb_table *table; /* borrowed; nobody else applies to it. Required */
    /* Takes a record that all hosts are to apply, in order; it is borrowed for the call. A negative result stops the
     * run, and the record will come again. NULL: nobody else has the table. */
    int (*publish)(cb_slice record, void *user);
    void *user;
    uint32_t epoch;          /* required: larger than that of every writer before */
    uint32_t buckets;        /* of a new table; a prime; 0 = CB_LB_BUCKETS */
    uint64_t seed;           /* of a new table */
    uint32_t moves_per_step; /* buckets that begin to move at a time; 0 = a sixteenth of all, local: all */
    uint32_t step_ms;        /* between two beginnings; 0 = 1,000, local: none */
    uint32_t ack_ms;         /* how long members may take to apply an announcement; 0 = 2,000 */
    uint32_t settle_ms;      /* how long an old owner stays second at most; 0 = 3,600,000 */
    uint8_t local;           /* 1: nobody else has the table, and no flows stay behind: buckets move in one step */
    uint8_t reserved[7];
} cb_lb_writer_opts;

/* Makes a writer. Its clock is the caller's: `now` below. Of one thread. A table that is not empty is gone on with.
 * CB_EINVAL (out; the detail names the field), CB_EPERM (epoch), CB_ENOMEM, CB_E2BIG. */
CB_API int cb_lb_writer_new(cb_lb_writer **out, const cb_lb_writer_opts *opts);
CB_API void cb_lb_writer_free(cb_lb_writer *w);

/* Adds a member or changes it; takes effect with the next run. One that was dead is up again when all have applied
 * what gave its buckets away (or after ack_ms): until then it must not take packets. CB_EINVAL (id, weight, state),
 * CB_ELIMIT (too many). */
CB_API int cb_lb_writer_member(cb_lb_writer *w, const cb_lb_member *member);
/* The member leaves: it drains first unless it is dead, and is struck off when nothing is left to it. CB_ENOENT. */
CB_API int cb_lb_writer_remove(cb_lb_writer *w, uint32_t id);
/* A member has applied the log up to this version. Announced moves go on when all have, or after ack_ms. CB_ENOENT. */
CB_API int cb_lb_writer_ack(cb_lb_writer *w, uint32_t id, uint64_t version);
/* The old owner of a moved bucket has no flow in it any more. 1: it counts. 0: it does not, for the bucket is not in
 * that phase, the member not its second owner, or some host may still send new flows there: report again later.
 * CB_EINVAL: there is no such bucket. */
CB_API int cb_lb_writer_idle(cb_lb_writer *w, uint32_t id, uint32_t bucket, cb_time now);
/* Writes what is due. What publish returned; CB_ENOMEM. */
CB_API int cb_lb_writer_run(cb_lb_writer *w, cb_time now);
/* When to run again although nothing happens; UINT64_MAX = never. */
CB_API cb_time cb_lb_writer_next(const cb_lb_writer *w);

typedef struct cb_lb_writer_stats {
    size_t size; /* set by the caller */
    uint64_t records;
    uint64_t moves;   /* buckets that were given another owner, without those of the seed */
    uint64_t taken;   /* ... of these at once, from the dead */
    uint64_t late;    /* times that an announcement went on without some member's word */
    uint64_t forced;  /* buckets that lost their second owner by settle_ms */
    uint32_t waiting; /* buckets that have still to move */
    uint32_t reserved;
} cb_lb_writer_stats;

/* CB_EINVAL (out, size). */
CB_API int cb_lb_writer_stats_get(const cb_lb_writer *w, cb_lb_writer_stats *out);

/* The member that a change of health makes of one with this weight: up with its percentage of the weight (1 at least),
 * draining, or dead; not known yet: up, or dead where that counts as down. For cb_lb_writer_member(). CB_EINVAL. */
CB_API int cb_lb_member_health(cb_lb_member *out, uint32_t weight, const cb_health_change *change);

/* ---- pools ---- */
/* How the next backend is chosen. All heed weights. */
enum cb_lb_policy {
    CB_LB_DEFAULT = 0,           /* CB_LB_POWER_OF_TWO */
    CB_LB_ROUND_ROBIN = 1,       /* in turns; with weights smoothly, not in bursts */
    CB_LB_LEAST_CONNECTIONS = 2, /* fewest calls that run */
    CB_LB_POWER_OF_TWO = 3,      /* two by chance, and of these the one with fewer calls */
    CB_LB_IP_HASH = 4,           /* by rendezvous: what has one hash stays with one backend while that is there */
    CB_LB_RING_HASH = 5, /* by a hash ring with bounded loads: the same, but nobody gets far more than its share */
    CB_LB_MAGLEV = 6,    /* by a Maglev table: the same, fast with many backends */
    CB_LB_LATENCY = 7    /* two by chance, and of these the one that lets wait less: smoothed latency times calls */
};

/* Which groups come first. Groups of equal rank share the calls (active-active); the others stand by until too little
 * of the better ones is left (active-passive). */
enum cb_lb_prefer {
    CB_LB_PREFER_NONE = 0,     /* all share */
    CB_LB_PREFER_PRIORITY = 1, /* the lowest */
    CB_LB_PREFER_COST = 2,     /* the lowest */
    CB_LB_PREFER_LATENCY = 3,  /* the lowest; within a fifth of it is equal */
    CB_LB_PREFER_GEO = 4       /* that of the call; then the lowest priority */
};

typedef struct cb_lb_pool_opts {
    size_t size;
    const cb_alloc *alloc;           /* NULL = malloc */
    int32_t policy;                  /* enum cb_lb_policy */
    int32_t prefer;                  /* enum cb_lb_prefer */
    uint64_t seed;                   /* for chance: another for each pool, or all hosts choose alike */
    uint32_t load_percent;           /* ring hash: what one may have of its share, above 100; 0 = 125 */
    uint32_t spill_percent;          /* groups of a rank serve while so much of their weight is in; 1 to 100; 0 = 50 */
    uint32_t max_fails;              /* failures within fail_window_ms that take a backend out; 0 = 3 */
    uint32_t fail_window_ms;         /* 0 = 10,000 */
    uint32_t fail_out_ms;            /* how long; 0 = 10,000. When all are out, all are tried */
    uint32_t smooth_ms;              /* latency: in what time an old measurement fades; 0 = 10,000 */
    const cb_outlier_opts *outliers; /* rules instead of the three fields above; NULL = these */
    uint8_t down_is_out;             /* 1: backends with a share of 0 are not even tried when all are down */
    uint8_t reserved[7];
} cb_lb_pool_opts;

/* Makes an empty pool, of one thread. CB_EINVAL (out; the detail names the field), CB_ENOMEM, CB_E2BIG. */
CB_API int cb_lb_pool_new(cb_lb_pool **out, const cb_lb_pool_opts *opts);
CB_API void cb_lb_pool_free(cb_lb_pool *p);

/* A group of backends, with its labels. */
typedef struct cb_lb_group {
    size_t size;
    const char *geo;     /* where it is, up to 15 bytes: "eu-west"; NULL = nowhere */
    uint32_t weight;     /* its share beside groups of equal rank; 0 = 1 */
    uint32_t priority;   /* 0 is first */
    uint32_t cost;       /* in whatever unit */
    uint32_t latency_us; /* of the way there */
} cb_lb_group;

/* Adds a group and gives its number; backends may name it from then on. Without any, there is one group 0. CB_EINVAL
 * (geo), CB_ELIMIT (4,096), CB_ENOMEM. */
CB_API int cb_lb_pool_group(cb_lb_pool *p, const cb_lb_group *group);
/* Changes the labels of a group. CB_EINVAL (geo), CB_ENOENT. */
CB_API int cb_lb_pool_label(cb_lb_pool *p, uint32_t group, const cb_lb_group *labels);

typedef struct cb_lb_backend {
    size_t size;
    uint32_t id;     /* not 0; of one kind in all pools that are to choose alike by hash */
    uint32_t weight; /* up to CB_LB_WEIGHT_MAX; 0 = gets nothing */
    uint32_t group;  /* as cb_lb_pool_group() numbered it */
    uint32_t reserved;
} cb_lb_backend;

/* Adds a backend and gives its number: 0, 1 and so on. CB_EINVAL (id, weight), CB_EEXIST (the ID), CB_ENOENT (group),
 * CB_ELIMIT (4,096), CB_ENOMEM. */
CB_API int cb_lb_pool_add(cb_lb_pool *p, const cb_lb_backend *backend);
/* Another weight; up 0: it gets nothing until it is 1 again. CB_ENOENT, CB_EINVAL. */
CB_API int cb_lb_pool_set(cb_lb_pool *p, uint32_t backend, uint32_t weight, int up);

/* What checks say of it: percent of its weight that it may have now; 0: it is down, and comes only when all others are,
 * too. cb_health_change has such a weight. CB_ENOENT, CB_EINVAL (percent). */
CB_API int cb_lb_pool_share(cb_lb_pool *p, uint32_t backend, uint32_t percent);

/* What is asked for. */
typedef struct cb_lb_call {
    size_t size;
    cb_time now;
    uint64_t hash;   /* of what should stay together (cb_lb_hash()); 0 = nothing: policies by hash go by chance */
    uint64_t tried;  /* backends that this call has tried, as bits; those from 64 on have none */
    const char *geo; /* where the caller is; NULL = unknown */
} cb_lb_call;

/* The number of the backend that gets the call, which runs there until cb_lb_pool_done(). CB_ENOENT: none is left. */
CB_API int64_t cb_lb_pool_pick(cb_lb_pool *p, const cb_lb_call *call);

enum cb_lb_result {
    CB_LB_UNKNOWN = 0, /* says nothing about the backend: the caller gave up */
    CB_LB_WORKED = 1,
    CB_LB_FAILED = 2, /* no answer */
    CB_LB_ERROR = 3,  /* it answered that it failed; only rules of `outliers` take it out for that */
    CB_LB_NO_WAY = 4  /* as FAILED: it could not be connected to */
};

/* A call is over. latency_ns: until its answer; 0 = not measured. 1: this failure took the backend out; else 0.
 * CB_ENOENT, CB_EINVAL (result). */
CB_API int cb_lb_pool_done(cb_lb_pool *p, uint32_t backend, int result, uint64_t latency_ns, cb_time now);

typedef struct cb_lb_backend_stats {
    size_t size; /* set by the caller */
    uint64_t picks;
    uint64_t latency_ns; /* smoothed; 0 = not measured */
    cb_time out_until;   /* 0 = in */
    uint32_t id, weight, group, active;
    uint8_t up;
    uint8_t share; /* percent */
    uint8_t rule;  /* enum cb_outlier_rule: the last one that took it out */
    uint8_t reserved[5];
} cb_lb_backend_stats;

/* CB_ENOENT: there is no such backend. CB_EINVAL (out, size). */
CB_API int cb_lb_pool_stats_get(const cb_lb_pool *p, uint32_t backend, cb_lb_backend_stats *out);

/* The name of a policy, such as "power_of_two"; NULL: there is none of this number. Static storage. */
CB_API const char *cb_lb_policy_name(int policy);

CB_END
#endif
