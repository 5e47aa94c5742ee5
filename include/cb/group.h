/* cb/group.h - what the workers of one service share, so that each connection has exactly one owner.
 *
 * A service runs one loop a thread. Each worker opens the same address with SO_REUSEPORT; the group holds the secrets
 * that must be equal in all of them (address-validation tokens, stateless reset, connection-ID mask) and finds the
 * worker that owns a QUIC connection by its connection ID: in the kernel when a cb_steering is given, else by handing
 * strays over in user space. A single-loop program needs no group: servers make a private one. Thread-safe, reference
 * counted, allocates with malloc().
 *
 * Groups succeed each other: in one process when a server is opened anew at its address, and across processes when a
 * program is replaced. A successor has the secrets and the server ID of its predecessor and the next generation, so
 * that everybody can tell whose packet it is, and passes packets of the older ones to them. */
#ifndef CB_GROUP_H
#define CB_GROUP_H

#include <cb/handoff.h>
#include <cb/tls.h>

CB_BEGIN

typedef struct cb_group cb_group;

/* A way to steer packets in the kernel (libcb-xdp's cb_steering_hook_of() gives one). */
typedef struct cb_steering_hook {
    size_t size;
    /* Called on the thread of the worker that opened fd, a bound UDP socket with SO_REUSEPORT, which it borrows. < 0:
     * steering is off for it, user space hands over. */
    int (*add)(uint32_t worker, uint32_t generation, int fd, const uint8_t cid_key[16], void *user);
    void *user; /* must outlive the group */
    /* From now on new connections at the address of fd go to this generation; until then they go to the one that was
     * there first. NULL: there is no such choice. */
    int (*activate)(uint32_t generation, int fd, void *user);
} cb_steering_hook;

/* Who wants to know which connection IDs that clients chose belong to handshakes here: a balancer in front, which asks
 * another host for handshakes that it does not find here (libcb-xdp's cb_forward_dcid_hook() gives one). */
typedef struct cb_dcid_hook {
    size_t size;
    /* A server has accepted a connection whose first packet had this ID, of 8 to 20 bytes (after a Retry the ID is
     * ours, and nobody is told). Called on the thread of the worker, and by several at once; it must not call libcb's
     * servers. What it returns changes nothing for the connection. NULL: nobody is told. */
    int (*opened)(cb_slice dcid, void *user);
    /* The handshake is over in one way or the other: the client has IDs of ours now, or is gone. Exactly once for each
     * `opened`. NULL: nobody is told. */
    void (*closed)(cb_slice dcid, void *user);
    void *user; /* must outlive the group */
} cb_dcid_hook;

typedef struct cb_group_opts {
    size_t size;
    uint32_t workers;          /* how many loops will join; 0 = 1, at most 256 */
    uint32_t generation;       /* of this process, 0..255; successive processes count up */
    const char *secret_file;   /* 32 random bytes shared by several processes or hosts, made with mode 0600 if absent;
                                * NULL = random for this process */
    const char *server_id;     /* QUIC-LB server ID as hex; NULL = 8 random bytes for this process */
    uint32_t server_id_config; /* QUIC-LB configuration rotation, 0..6 */
    uint32_t reserved;
    const cb_steering_hook *steering; /* copied; NULL = hand over in user space */
    cb_group *predecessor;            /* a group of this process whose addresses this one takes over, see below */
    const cb_handoff *handoff;        /* or one of the process before, as cb_group_save() put it there; */
    const char *handoff_name;         /* under this name */
    const char *cid_key_file;  /* 16 random bytes, mode 0600, that the load balancers have, too: connection IDs are
                                * encrypted by them (CB_QUIC_LB_AES_ONE). NULL = everybody can read the server ID */
    const cb_dcid_hook *dcids; /* copied; NULL = nobody is told, or with a predecessor who it told */
} cb_group_opts;

enum cb_group_limits {
    CB_GROUP_GENERATIONS = 4 /* that may live at one time: a fifth is refused */
};

/* Gives a group with one reference. With a predecessor or a handoff, generation, secret_file, server_id,
 * server_id_config and cid_key_file are theirs and what opts say of them is not looked at; with a predecessor, steering
 * NULL is that of the predecessor. CB_ELIMIT: CB_GROUP_GENERATIONS are alive already; CB_EPROTO: what the handoff has
 * is no group; CB_ENOENT: it has none of that name. CB_EINVAL (the detail names the field; a secret_file or
 * cid_key_file that others may read or that is no secret), CB_ENOENT (no folder for it; no cid_key_file), CB_EPERM,
 * CB_ESYS, CB_ETLS (no key derivation), CB_ENOMEM, CB_E2BIG. */
CB_API int cb_group_new(cb_group **out, const cb_group_opts *opts);
/* One more reference; returns g. */
CB_API cb_group *cb_group_ref(cb_group *g);
CB_API void cb_group_unref(cb_group *g); /* NULL is fine */

/* Of which generation it is. */
CB_API uint32_t cb_group_generation(const cb_group *g);
/* May a successor begin? CB_ELIMIT: not yet, the oldest of CB_GROUP_GENERATIONS still has servers. */
CB_API int cb_group_room(cb_group *g);
/* Puts into h what a successor needs: the secrets, and the way to each worker, whose server was saved before
 * (cb_http_server_save(), cb_quic_endpoint_save()), and to those of older processes. CB_EEXIST (the name is taken),
 * CB_ELIMIT, CB_ENOMEM, CB_ESYS. */
CB_API int cb_group_save(cb_group *g, cb_handoff *h, const char *name);
/* The predecessor learns from its successor's group, saved by the successor in the same way, where packets of the
 * successor go. CB_ENOENT, CB_EPROTO, CB_ENOMEM, CB_ESYS. */
CB_API int cb_group_meet(cb_group *g, const cb_handoff *h, const char *name);

CB_END
#endif
