/* cb/xdp.h - libcb-xdp (-lcb-xdp): what libcb does with programs inside the kernel.
 *
 * Loading them needs CAP_BPF (or root) on most systems; libcb itself never does. Today: steering of QUIC packets. */
#ifndef CB_XDP_H
#define CB_XDP_H

#include <cb/group.h>

CB_BEGIN

/* Steers packets of a SO_REUSEPORT group to the worker and process that own their connection, by the connection IDs of
 * cb/quic_lb.h (in the default form of 19 bytes). Packets whose destination ID was chosen by a client are spread over
 * the workers of the current generation by a keyed hash of that ID, so a handshake stays with one worker.
 *
 * When a socket is closed, the kernel forgets it and nobody else's packets move. Thread-safe except for _free. Nothing
 * is pinned in a file system: a successor process is handed the descriptors (cb_steering_fds). */
typedef struct cb_steering cb_steering;

enum cb_steering_limits {
    CB_STEERING_FDS = 3,         /* descriptors that a successor needs */
    CB_STEERING_GENERATIONS = 4, /* processes that may overlap: generation g replaces g - 4 */
    CB_STEERING_ADDRESSES = 16   /* addresses at which the workers of one steering may listen */
};

typedef struct cb_steering_opts {
    size_t size;
    const int32_t *adopt_fds; /* CB_STEERING_FDS descriptors of the predecessor, which are duplicated; NULL = begin
                               * anew. Adopting, and adding sockets at addresses where others are steered already,
                               * needs no right */
} cb_steering_opts;

/* opts may be NULL. CB_EPERM: BPF may not be used by this process; CB_ENOTSUP: the kernel lacks it; CB_EINVAL: these
 * are not the descriptors of a steering; CB_ENOMEM, CB_ESYS, CB_E2BIG. */
CB_API int cb_steering_new(cb_steering **out, const cb_steering_opts *opts);

/* Puts a worker's bound SO_REUSEPORT socket under steering. The object borrows fd during the call only. worker and
 * generation: 0..255. cid_key: 16 bytes, the same in every call and process (mask_key of cb_quic_lb_opts).
 * Workers may listen at several addresses: sockets of one address form a group. CB_EINVAL (numbers, key, or the socket
 * is not of that kind), CB_EEXIST (the socket is steered already), CB_ELIMIT (more addresses than
 * CB_STEERING_ADDRESSES), CB_EPERM (a new address, and the right to load BPF was dropped), CB_ESYS.
 * New connections at an address go to the generation that came there first, until another is activated. */
CB_API int cb_steering_add(cb_steering *s, uint32_t worker, uint32_t generation, int fd, const uint8_t *cid_key);

/* From now on new connections go to this generation. CB_EINVAL: it has no workers at any address; CB_ESYS. */
CB_API int cb_steering_activate(cb_steering *s, uint32_t generation);
/* The same at the address of the socket fd only. */
CB_API int cb_steering_activate_at(cb_steering *s, uint32_t generation, int fd);

/* For cb_group_opts.steering; valid while s lives. */
CB_API cb_steering_hook cb_steering_hook_of(cb_steering *s);

/* Writes CB_STEERING_FDS descriptors, which s keeps and which close on exec: duplicate them, or pass them on by
 * SCM_RIGHTS. */
CB_API void cb_steering_fds(const cb_steering *s, int32_t *fds);

/* What became of the packets. */
typedef struct cb_steering_stats {
    size_t size;      /* set by the caller */
    uint64_t by_cid;  /* packets that went to their owner */
    uint64_t by_hash; /* packets with a client's ID, or without an owner, that went by hash */
    uint64_t gone;    /* of those: the ID has our form, but its owner is not there */
} cb_steering_stats;

/* Of all generations since the program was loaded. CB_EINVAL (size), CB_ENOMEM, CB_ESYS. */
CB_API int cb_steering_stats_get(const cb_steering *s, cb_steering_stats *out);

/* Sockets that were added stay under steering as long as they live. NULL is fine. */
CB_API void cb_steering_free(cb_steering *s);

CB_END
#endif
