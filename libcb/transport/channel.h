/* A channel: one TCP connection, with TLS on it or not. What HTTP/1.1 and HTTP/2 ride on, at both ends. */
#ifndef CB_TRANSPORT_CHANNEL_H
#define CB_TRANSPORT_CHANNEL_H

#include "base/addr.h"
#include "loop/loop_int.h"
#include "transport/tls_session.h"

typedef struct cb_channel cb_channel;

/* All are called from the loop, never from inside a cb_channel_ call (cb_channel_resume excepted: it may call on_data
 * and on_turn). After on_close the handle is gone; until then it may be used and freed inside every callback. In
 * on_close, cb_last_error() has the detail of rc. Members may be NULL. */
typedef struct cb_channel_ops {
    void (*on_open)(cb_channel *c, void *user); /* connected and, with TLS, handshake done */
    int64_t (*on_data)(cb_channel *c, cb_slice data,
                       void *user);              /* bytes taken; fewer pauses until cb_channel_resume();
                                                  * < 0 closes the channel with that result */
    void (*on_turn)(cb_channel *c, void *user);  /* after all data of this turn: time to answer */
    void (*on_eof)(cb_channel *c, void *user);   /* the peer sends no more */
    void (*on_drain)(cb_channel *c, void *user); /* queued fell to low_water after room was 0 */
    /* Last, once. CB_OK: after cb_channel_shutdown(). CB_ECLOSED: the peer broke it off (with TLS also: it closed
     * without close_notify); CB_ETIMEOUT: handshake or output; CB_ETLS, CB_EAUTH, CB_EPROTO: TLS, PROXY header. */
    void (*on_close)(cb_channel *c, int rc, void *user);
} cb_channel_ops;

typedef struct cb_channel_opts {
    const cb_tls_opts *tls; /* NULL = clear text. Read during the call */
    const cb_channel_ops *ops;
    void *user;
    cb_time handshake_timeout; /* 0 = 10 s */
    size_t high_water;         /* queued output above which the owner should stop; 0 = 256 KiB */
    size_t low_water;          /* 0 = 64 KiB */
    cb_time write_timeout;    /* no byte accepted by the kernel for so long while output waits: CB_ETIMEOUT; 0 = 60 s */
    bool accept_proxy_header; /* server: a PROXY v1/v2 header must come first (see cb_channel_remote) */
} cb_channel_opts;

int cb_channel_new(cb_channel **out, cb_loop *loop, int fd, const cb_addr *remote,
                   const cb_channel_opts *opts); /* owns fd on success */
/* Appends to the output; it leaves at the end of the turn in few system calls. Takes all or fails (CB_ENOMEM,
 * CB_ECLOSED); the caller keeps below cb_channel_room(). Data is copied (or sealed) during the call. */
int cb_channel_write(cb_channel *c, const cb_slice *v, size_t n);
size_t cb_channel_room(const cb_channel *c); /* high_water - queued, or 0 */
size_t cb_channel_queued(const cb_channel *c);
void cb_channel_resume(cb_channel *c); /* takes up kept data, then reads again */
void cb_channel_pause(cb_channel *c);  /* stops reading (on_data stops) */
void cb_channel_shutdown(
    cb_channel *c); /* sends what is queued, close_notify, FIN; on_close when done (linger <= 2 s) */
/* Ends one direction: what is queued goes out, then close_notify and FIN; reading goes on, on_eof and on_close come as
 * ever. The owner still shuts the channel down when it has read enough. */
void cb_channel_end_output(cb_channel *c);
void cb_channel_abort(cb_channel *c, int rc); /* closes now; on_close(rc) at the end of the turn */
/* Forget the channel: ops are not called any more (on_close neither); it shuts down by itself. */
void cb_channel_free(cb_channel *c);
const cb_addr *cb_channel_remote(const cb_channel *c); /* with PROXY protocol: the address that it named */
const cb_addr *cb_channel_peer(const cb_channel *c);   /* the TCP peer */
const cb_addr *cb_channel_local(const cb_channel *c);
cb_tls_session *cb_channel_tls(const cb_channel *c); /* NULL = clear text */
int cb_channel_fd(const cb_channel *c);
void cb_channel_set_user(cb_channel *c, const cb_channel_ops *ops, void *user);

#endif
