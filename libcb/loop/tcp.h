/* TCP sockets without a protocol on them: listening and connecting. What flows is transport/channel.h. */
#ifndef CB_LOOP_TCP_H
#define CB_LOOP_TCP_H

#include "base/addr.h"
#include "loop/loop_int.h"

typedef struct cb_tcp_listener cb_tcp_listener;
typedef struct cb_tcp_connector cb_tcp_connector;

typedef struct cb_tcp_listener_opts {
    cb_addr bind;
    int fd;           /* > 0: an already listening socket (socket activation, hot restart); owned on success */
    uint32_t backlog; /* 0 = 4096, capped by the kernel */
    bool v6_only, reuseport, fastopen;
    /* A new non-blocking, close-on-exec socket with TCP_NODELAY; owned by the callee. */
    void (*on_accept)(cb_tcp_listener *l, int fd, const cb_addr *remote, void *user);
    void *user;
} cb_tcp_listener_opts;

/* On EMFILE/ENFILE/ENOBUFS accepting pauses for 100 ms and says so in the log, at most once a second. */
int cb_tcp_listen(cb_tcp_listener **out, cb_loop *loop, const cb_tcp_listener_opts *opts);
const cb_addr *cb_tcp_listener_local(const cb_tcp_listener *l);
int cb_tcp_listener_fd(const cb_tcp_listener *l);
void cb_tcp_listener_pause(cb_tcp_listener *l, bool paused);
void cb_tcp_listener_free(cb_tcp_listener *l);
/* A socket that was adopted stays open when the listener is freed. Nothing is accepted after this. */
void cb_tcp_listener_give_back(cb_tcp_listener *l);

/* Connects one address. fd >= 0 on success (owned by the callee), else a cb_error with the detail set. The
 * connector frees itself after the callback; cb_tcp_connect_cancel() before that suppresses the callback.
 * A failure that shows at once is returned, without a callback. timeout 0 or CB_NEVER: only the kernel's. */
typedef void (*cb_tcp_connect_fn)(int fd_or_rc, void *user);
int cb_tcp_connect(cb_tcp_connector **out, cb_loop *loop, const cb_addr *remote, cb_time timeout, cb_tcp_connect_fn fn,
                   void *user);
/* The same to a unix socket in the file system, of type SOCK_STREAM. When its queue is full the connector tries again
 * until the time is over. Nobody listening there, or no such file, is CB_EUNREACH; no right to it is CB_EPERM. */
int cb_unix_connect(cb_tcp_connector **out, cb_loop *loop, const char *path, cb_time timeout, cb_tcp_connect_fn fn,
                    void *user);
void cb_tcp_connect_cancel(cb_tcp_connector *c);

#endif
