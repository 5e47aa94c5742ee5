/* cb/handoff.h - what a process gives to its successor: bytes and descriptors by name, in one bounded message over a
 * unix stream socket (socketpair(2), SCM_RIGHTS).
 *
 * A program that replaces itself without losing a connection starts its successor with one end of a socketpair, fills a
 * handoff (listening sockets by cb_http_server_save() or cb_quic_endpoint_save(), secrets by cb_group_save() and
 * cb_tickets_save(), steering by cb_steering_fds(), what else it likes by cb_handoff_put()) and sends it. The successor
 * opens everything from it at rest, answers with a handoff of its own groups (cb_group_meet()), is told to go, and
 * starts (cb_http_server_resume()); then the predecessor drains. docs/guide/embedding.md shows it, cb-edge does it.
 *
 * The message holds keys: keep the socket between the two processes. Thread-safe, except for _free. */
#ifndef CB_HANDOFF_H
#define CB_HANDOFF_H

#include <cb/base.h>

CB_BEGIN

typedef struct cb_handoff cb_handoff;

enum cb_handoff_limits {
    CB_HANDOFF_NAME = 200,      /* bytes of a name */
    CB_HANDOFF_BYTES = 1 << 20, /* of everything but descriptors */
    CB_HANDOFF_FDS = 4096       /* descriptors; both processes need room for them (RLIMIT_NOFILE) */
};

/* An empty one. CB_EINVAL (out), CB_ENOMEM. */
CB_API int cb_handoff_new(cb_handoff **out);
/* Closes its descriptors and wipes its bytes. NULL is fine. */
CB_API void cb_handoff_free(cb_handoff *h);

/* Copies bytes under a name. CB_EINVAL (no or too long a name), CB_EEXIST (it has bytes already), CB_ELIMIT, CB_ENOMEM.
 */
CB_API int cb_handoff_put(cb_handoff *h, const char *name, cb_slice bytes);
/* Adds a duplicate of fd under a name, which may have several, and bytes too. Errors as above; CB_ESYS. */
CB_API int cb_handoff_put_fd(cb_handoff *h, const char *name, int fd);

/* The bytes of a name, valid while h lives. CB_ENOENT: it has none. */
CB_API int cb_handoff_get(const cb_handoff *h, const char *name, cb_slice *out);
/* Writes up to cap of the descriptors of a name, in the order they were put in, and returns how many there are. They
 * stay h's: duplicate what is to outlive it. */
CB_API int cb_handoff_fds(const cb_handoff *h, const char *name, int32_t *out, size_t cap);

/* Sends it whole over a connected unix stream socket, blocking or not, within timeout_ms. CB_ETIMEOUT, CB_ECLOSED (the
 * other side went away), CB_ESYS. After a failure the socket is of no use. */
CB_API int cb_handoff_send(const cb_handoff *h, int sock, uint32_t timeout_ms);
/* Receives one. What is not a handoff, of another version, too large or contradicts itself is refused: CB_EPROTO with
 * the reason. CB_ETIMEOUT, CB_ECLOSED, CB_ESYS (also: no descriptors are left), CB_ENOMEM. */
CB_API int cb_handoff_receive(cb_handoff **out, int sock, uint32_t timeout_ms);

CB_END
#endif
