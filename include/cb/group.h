/* cb/group.h - what the workers of one service share, so that each connection has exactly one owner.
 *
 * A service runs one loop a thread. Each worker opens the same address with SO_REUSEPORT; the group holds the secrets
 * that must be equal in all of them (address-validation tokens, stateless reset, connection-ID mask) and finds the
 * worker that owns a QUIC connection by its connection ID: in the kernel when a cb_steering is given, else by handing
 * strays over in user space. A single-loop program needs no group: servers make a private one. Thread-safe, reference
 * counted, allocates with malloc(). */
#ifndef CB_GROUP_H
#define CB_GROUP_H

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
} cb_steering_hook;

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
} cb_group_opts;

/* Gives a group with one reference. CB_EINVAL (the detail names the field; a secret_file that others may read or that
 * is no secret), CB_ENOENT (no folder for it), CB_EPERM, CB_ESYS, CB_ETLS (no key derivation), CB_ENOMEM, CB_E2BIG. */
CB_API int cb_group_new(cb_group **out, const cb_group_opts *opts);
/* One more reference; returns g. */
CB_API cb_group *cb_group_ref(cb_group *g);
CB_API void cb_group_unref(cb_group *g); /* NULL is fine */

CB_END
#endif
