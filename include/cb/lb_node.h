/* cb/lb_node.h - a host's part in the forwarding table of its PoP: who may write, how the log travels, who is alive.
 *
 * All hosts of a PoP have one forwarding table (cb/lb.h). One of them, by configuration, is its writer; the others
 * follow. Each has a cb_lb_node:
 *
 *   cb_lb_node_new(&node, loop, CB_OPTS(cb_lb_node_opts, .id = 2, .writer = 1, .members = members, .n_members = 3,
 *                  .key = key, .identity = mine, .state_file = "/var/lib/cb/lb.state", .ops = &ops));
 *
 * Followers ask the writer over HTTP/2 with certificates on both sides: a request says what the host has and has
 * applied, and the answer, which waits for news up to a heartbeat, has the records that are missing or a whole table.
 * A host whose writer is away goes on with the table that it has, which it also keeps in its state file. The writer
 * takes members out that are silent for some heartbeats, and all again when they are back for a while; it never
 * declares more than a share of them dead, for then it is likely the writer that is cut off. Hosts whose configuration
 * does not fit (another key, another number of buckets, one ID twice, other members) are told so, on both sides.
 *
 * Times are the monotonic clock's: no jump of the calendar does harm. docs/design/forwarding.md says how the log
 * travels, docs/guide/lb.md how to run it. Everything belongs to the loop's thread. */
#ifndef CB_LB_NODE_H
#define CB_LB_NODE_H

#include <cb/lb.h>
#include <cb/loop.h>
#include <cb/tls.h>

CB_BEGIN

typedef struct cb_lb_node cb_lb_node;

/* A host of the PoP, the same on all of them. */
typedef struct cb_lb_node_member {
    size_t size;
    uint32_t id;         /* not 0, and no other's */
    uint32_t weight;     /* its share, up to CB_LB_WEIGHT_MAX; 0 = 100. The writer's configuration counts */
    const char *address; /* where packets for it go; NULL = not compared. Hosts that have another one are told */
    const char *control; /* "192.0.2.7:7946", "[2001:db8::7]:7946", "edge7.example:7946": where the writer listens for
                          * the others; required for the writer */
    const char *peer;    /* what its certificate has to say (cb_peer_is()): a SPIFFE ID, a DNS name or an address. NULL:
                          * the writer's is verified for the host of `control`, and any certificate of the authority may
                          * speak for this member */
} cb_lb_node_member;

typedef struct cb_lb_node_ops {
    size_t size;
    /* The table has changed: give it to the datapath. Only when this has returned >= 0 the writer hears that the host
     * has applied it; it is called again each heartbeat until then. CB_EPERM: it has a
     * newer one, of the process before, which is no trouble. */
    int (*on_table)(cb_lb_node *n, const cb_lb_table *table, void *user);
    /* Something else has: members, troubles, the contact to the writer. */
    void (*on_state)(cb_lb_node *n, void *user);
} cb_lb_node_ops;

typedef struct cb_lb_node_opts {
    size_t size;
    uint32_t id;                      /* who we are; one of members */
    uint32_t writer;                  /* who writes; one of members, the same on all hosts */
    const cb_lb_node_member *members; /* required; copied */
    size_t n_members;                 /* up to CB_LB_MEMBERS_MAX */
    const uint8_t *key;        /* CB_LB_KEY_BYTES, copied: of the table's chain; required, the same on all hosts */
    cb_identity *identity;     /* referenced: our certificate, and the authority of all members'. Required where
                                * there is more than one member */
    const char *listen;        /* writer: where to listen; NULL = its `control` */
    const char *state_file;    /* of mode 0600, replaced as a whole; required on the writer, whose epoch is kept
                                * there. NULL: a follower begins without a table */
    const cb_lb_node_ops *ops; /* borrowed; NULL = nobody is called */
    void *user;
    uint64_t seed;             /* of a new table */
    uint32_t buckets;          /* a prime, the same on all hosts; 0 = CB_LB_BUCKETS */
    uint32_t heartbeat_ms;     /* writer: an answer waits for news so long; 50 to 60,000; 0 = 1,000 */
    uint32_t misses;           /* writer: heartbeats without a word until a member is dead; 3 to 100; 0 = 3 */
    uint32_t rise_ms;          /* writer: how long it has to be back, doubled each time that it dies again within ten
                                * minutes (up to 32 times); 0 = misses heartbeats */
    uint32_t min_live_percent; /* writer: never are fewer of the members alive because they are silent or because
                                * cb_lb_node_state() said so; 1 to 100; 0 = 50 */
    uint32_t start_ms;         /* writer: how long to wait for the others at the start, who may have a newer table; 0 =
                                * 5,000. It ends when all were heard */
    uint32_t moves_per_step, step_ms, ack_ms, settle_ms; /* writer: as cb_lb_writer_opts */
} cb_lb_node_opts;

/* Reads the state file, opens the writer's listener, and begins. A state file of another key or another number of
 * buckets, and one that is damaged, is put aside as FILE.bad with a log line, and the node begins without it.
 * CB_EINVAL (the detail names the field), CB_EPERM (the state file is open to others, or may not be read), CB_EEXIST
 * (the address is in use), CB_ETLS, CB_ESYS, CB_ENOMEM, CB_E2BIG. */
CB_API int cb_lb_node_new(cb_lb_node **out, cb_loop *loop, const cb_lb_node_opts *opts);
/* Writes the state file if it is not up to date (blocks for that), and ends. NULL is fine. */
CB_API void cb_lb_node_free(cb_lb_node *n);

/* The table, which lives as long as the node. It may be empty. On the writer it can be ahead of what on_table() was
 * called for, by records that are not on the disk yet. */
CB_API const cb_lb_table *cb_lb_node_table(const cb_lb_node *n);
/* Where it listens, with the real port; "" = nowhere. */
CB_API const char *cb_lb_node_address(const cb_lb_node *n);

/* Other members, weights, addresses or names (a reload of the configuration); id and writer stay as they are. On the
 * writer new members come into the table when they are heard and all others know them, and members that are missing now
 * leave it by draining. All or nothing: errors as cb_lb_node_new(). */
CB_API int cb_lb_node_members(cb_lb_node *n, const cb_lb_node_member *members, size_t n_members);

/* This host has no flow of this bucket any more, where it is second after a move (cb_forward_idle()). It is told with
 * the next request; say it again while the bucket stays so. CB_EINVAL (no such bucket), CB_ENOMEM. */
CB_API int cb_lb_node_idle(cb_lb_node *n, uint32_t bucket);
/* How busy this host is, in thousandths; the writer shows it, and whoever makes weights from load finds it there. */
CB_API void cb_lb_node_load(cb_lb_node *n, uint32_t permille);
/* This host is about to stop (1): the writer drains it. 0: it stays after all. */
CB_API void cb_lb_node_leave(cb_lb_node *n, int leaves);

/* Writer: what health checks say of a member: enum cb_lb_state, and which share of its weight it should have (slow
 * start, load), 1 to 1,000 percent; 0 = 100. CB_ENOTSUP (another host is the writer; the detail says which), CB_ENOENT,
 * CB_EINVAL. */
CB_API int cb_lb_node_state(cb_lb_node *n, uint32_t id, int state, uint32_t percent);
/* Writer: an operator drains a member, or lets it back (0). Kept in the state file. Errors as above. */
CB_API int cb_lb_node_drain(cb_lb_node *n, uint32_t id, int drains);
/* Writer: an operator gives a member another weight; 0 = the configured one again. Kept in the state file. Errors as
 * above. */
CB_API int cb_lb_node_weight(cb_lb_node *n, uint32_t id, uint32_t weight);

/* How a node is. */
enum cb_lb_node_phase {
    CB_LB_NODE_STARTING = 0, /* writer: waits for the others, or for its epoch to be on the disk */
    CB_LB_NODE_WRITING = 1,
    CB_LB_NODE_JOINING = 2,   /* follower: has not spoken with the writer yet; it may have a table from its file */
    CB_LB_NODE_FOLLOWING = 3, /* has all that the writer has told */
    CB_LB_NODE_ALONE = 4,     /* the writer does not answer; it goes on with the table that it has */
    CB_LB_NODE_REFUSED = 5    /* the writer refuses it: trouble says why */
};

enum { CB_LB_NODE_TEXT = 256 };

typedef struct cb_lb_node_stats {
    size_t size; /* set by the caller */
    uint32_t id, writer;
    int32_t phase; /* enum cb_lb_node_phase */
    int32_t self;  /* enum cb_lb_state of this host in the table; -1 = it is not in it */
    uint64_t version, chain, content;
    uint32_t epoch, buckets, members;
    uint32_t announced, moved, unowned; /* buckets, as in cb_lb_table_stats */
    uint64_t applied;                   /* the version that on_table() has taken */
    uint64_t contact_ms;                /* follower: since the writer answered last; UINT64_MAX = it never did */
    uint64_t records;                   /* that were applied, or written */
    uint64_t tables;                    /* whole ones that were taken over, or given to others */
    uint64_t refused;                   /* writer: requests that were */
    uint64_t deaths, rises;             /* writer: by silence */
    uint32_t silent;                    /* writer: members that are silent and not declared dead, as too many are */
    uint32_t unsaved;                   /* 1: the state file is not up to date */
    cb_lb_writer_stats writes;          /* writer; else zero */
    char trouble[CB_LB_NODE_TEXT];      /* for people; "" = none */
} cb_lb_node_stats;

/* CB_EINVAL (out, size). */
CB_API int cb_lb_node_stats_get(const cb_lb_node *n, cb_lb_node_stats *out);

/* A member as this node knows it. Followers know what is configured and in the table. */
typedef struct cb_lb_node_info {
    size_t size; /* set by the caller */
    uint32_t id;
    uint32_t weight;  /* configured */
    uint32_t given;   /* by the operator; 0 = none */
    uint32_t percent; /* by health checks */
    int32_t state;    /* enum cb_lb_state in the table; -1 = it is not in it */
    int32_t health;   /* enum cb_lb_state, as cb_lb_node_state() said */
    uint32_t table_weight;
    uint32_t first, coming, leaving; /* buckets, as in cb_lb_member_stats */
    uint32_t load;                   /* thousandths; UINT32_MAX = unknown */
    uint64_t heard_ms;               /* writer: since its last word; UINT64_MAX = never. 0 for the node itself */
    uint64_t acked;                  /* writer: the version that it has applied */
    uint8_t drained;                 /* by the operator */
    uint8_t stops;                   /* it said that it is about to */
    uint8_t dead;                    /* by silence */
    uint8_t held;                    /* silent, but not declared dead, as too many are */
    uint8_t removed;                 /* not configured any more; it leaves */
    uint8_t reserved[3];
    char address[64], control[128];
    char trouble[CB_LB_NODE_TEXT]; /* writer: what does not fit there; "" = nothing */
} cb_lb_node_info;

/* The i-th member, by ID. CB_ENOENT: there are no more. CB_EINVAL (out, size). */
CB_API int cb_lb_node_member_get(const cb_lb_node *n, size_t i, cb_lb_node_info *out);

/* Shows it in a registry from now on, as the families cb_lb_* of docs/metrics.md, until it is freed. CB_EINVAL,
 * CB_EEXIST, CB_ENOMEM. */
CB_API int cb_lb_node_metrics(cb_lb_node *n, cb_metrics *m);

/* ---- the secret of a PoP: a file that all hosts have, and keys that are made from it ---- */

enum { CB_LB_SECRET_BYTES = 32 };

/* Reads CB_LB_SECRET_BYTES bytes. CB_EINVAL (secret, path; the file has another length), CB_EPERM (it is open to
 * others, or may not be read), CB_ENOENT, CB_ESYS. */
CB_API int cb_lb_secret_read(uint8_t *secret, const char *path);
/* CB_LB_KEY_BYTES bytes for a purpose, by HKDF with SHA-256 (RFC 5869): salt "libcb forwarding", info the purpose.
 * cb-edge has "chain" (of the table), "hash" (of flows) and "tag N" (of encapsulations). CB_EINVAL, CB_ETLS. */
CB_API int cb_lb_secret_key(uint8_t *key, const uint8_t *secret, const char *purpose);
/* The hash of a flow as the datapath makes it: of source and destination address, both ports and the protocol, as on
 * the wire. Addresses are texts with ports, "192.0.2.1:1234" or "[2001:db8::1]:1234", of one family; protocol: 6 or 17.
 * CB_EINVAL names the text. */
CB_API int cb_lb_flow_hash(uint64_t *out, const uint8_t *key, const char *source, const char *destination,
                           int protocol);

/* Names for people: "writing", "up". Static; NULL for what is none. */
CB_API const char *cb_lb_node_phase_name(int phase);
CB_API const char *cb_lb_state_name(int state);

CB_END
#endif
