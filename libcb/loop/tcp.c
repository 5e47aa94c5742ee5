#include "loop/tcp.h"
#include "base/error.h"
#include "loop/turn.h"
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { BACKLOG_DEFAULT = 4096, ACCEPTS_A_TURN = 64, FASTOPEN_QUEUE = 256 };
enum { TARGET_TEXT = sizeof(struct sockaddr_un) + sizeof "unix:" };

static const cb_time STARVED_FOR = 100 * CB_MS, UNIX_AGAIN = 5 * CB_MS;

struct cb_tcp_listener {
    cb_tcp_listener_opts o;
    cb_loop *loop;
    cb_watch *watch;
    cb_alarm recover; /* armed while accepting rests for lack of descriptors or memory */
    cb_grave grave;
    cb_time complained;
    cb_addr local;
    int fd;
    bool paused, freed;
};

static bool set_option(int fd, int level, int name, int value) {
    return setsockopt(fd, level, name, &value, sizeof value) == 0;
}

/* ---- listening ---- */

static void update_events(cb_tcp_listener *l) {
    bool rest = l->paused || cb_alarm_at(&l->recover) != CB_NEVER;
    cb_watch_events(l->watch, rest ? 0 : CB_READABLE);
}

static void on_recover(cb_alarm *a, cb_time now) {
    (void)now;
    update_events(CB_CONTAINER(a, cb_tcp_listener, recover));
}

static void count_starving(const cb_cells *cells, int err) {
    if (err == EMFILE || err == ENFILE)
        cb_cells_add(cells, CB_C_TCP_ACCEPT_ERRORS_DESCRIPTORS, 1);
    else if (err == ENOMEM || err == ENOBUFS)
        cb_cells_add(cells, CB_C_TCP_ACCEPT_ERRORS_MEMORY, 1);
    else
        cb_cells_add(cells, CB_C_TCP_ACCEPT_ERRORS_OTHER, 1);
}

static void starve(cb_tcp_listener *l, int err) {
    char text[CB_ADDR_TEXT];
    cb_time now = cb_loop_now(l->loop);
    count_starving(cb_loop_cells(l->loop), err);
    if (!l->complained || now - l->complained >= CB_SEC) {
        l->complained = now;
        cb_log_line(cb_loop_log(l->loop), CB_LOG_WARN, "tcp", "%s: accepting rests for 100 ms: %s",
                    cb_addr_text(&l->local, text), strerrordesc_np(err));
    }
    cb_alarm_set(&l->recover, now + STARVED_FOR); /* on ENOMEM: the level-triggered watch tries again at once */
    update_events(l);
}

/* Errors of the one connection that was to be accepted, not of the listener (accept(2)). */
static bool passing(int err) {
    static const int list[] = {ECONNABORTED, EINTR,        EPROTO,   ENOPROTOOPT, EHOSTDOWN,   ENONET,
                               EPERM,        EHOSTUNREACH, ENETDOWN, EOPNOTSUPP,  ENETUNREACH, ETIMEDOUT};
    for (size_t i = 0; i < sizeof list / sizeof *list; i++)
        if (err == list[i]) return true;
    return false;
}

static void on_incoming(cb_watch *w, unsigned events, void *user) {
    cb_tcp_listener *l = user;
    (void)w;
    (void)events;
    for (int i = 0; i < ACCEPTS_A_TURN && !l->freed && !l->paused; i++) {
        cb_addr remote;
        socklen_t len = sizeof remote;
        memset(&remote, 0, sizeof remote);
        int fd = accept4(l->fd, &remote.sa, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            if (passing(errno)) {
                cb_cells_add(cb_loop_cells(l->loop), CB_C_TCP_ACCEPT_ERRORS_PEER, 1);
                continue;
            }
            if (errno != EAGAIN) starve(l, errno);
            return;
        }
        cb_addr_unmap(&remote);
        cb_cells_add(cb_loop_cells(l->loop), CB_C_TCP_ACCEPTED, 1);
        l->o.on_accept(l, fd, &remote, l->o.user);
    }
}

static int open_listener(cb_tcp_listener *l) {
    char text[CB_ADDR_TEXT];
    cb_addr *b = &l->o.bind;
    int type = SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC;

    l->fd = socket(b->sa.sa_family, type, 0);
    if (l->fd < 0 && errno == EAFNOSUPPORT && b->sa.sa_family == AF_INET6 && !l->o.v6_only &&
        IN6_IS_ADDR_UNSPECIFIED(&b->v6.sin6_addr)) {
        /* A kernel without IPv6: both families means the other one. */
        uint16_t port = cb_addr_port(b);
        memset(b, 0, sizeof *b);
        b->v4.sin_family = AF_INET;
        cb_addr_set_port(b, port);
        l->fd = socket(AF_INET, type, 0);
    }
    if (l->fd < 0) return cb_fail_errno(errno, "opening a TCP socket");
    set_option(l->fd, SOL_SOCKET, SO_REUSEADDR, 1);
    if (b->sa.sa_family == AF_INET6) set_option(l->fd, IPPROTO_IPV6, IPV6_V6ONLY, l->o.v6_only);
    if (l->o.reuseport && !set_option(l->fd, SOL_SOCKET, SO_REUSEPORT, 1)) return cb_fail_errno(errno, "SO_REUSEPORT");
    if (bind(l->fd, &b->sa, cb_addr_len(b)) < 0) return cb_fail_errno(errno, "binding TCP %s", cb_addr_text(b, text));
    uint32_t backlog = l->o.backlog ? l->o.backlog : BACKLOG_DEFAULT;
    if (listen(l->fd, backlog > INT32_MAX ? INT32_MAX : (int)backlog) < 0)
        return cb_fail_errno(errno, "listening on TCP %s", cb_addr_text(b, text));
    return CB_OK;
}

static int adopt_listener(cb_tcp_listener *l) {
    int listening = 0;
    socklen_t len = sizeof listening;
    if (getsockopt(l->fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &len) < 0)
        return cb_fail_errno(errno, "descriptor %d", l->fd);
    if (!listening) return cb_fail(CB_EINVAL, "descriptor %d is not a listening socket", l->fd);
    int flags = fcntl(l->fd, F_GETFL);
    if (flags < 0 || fcntl(l->fd, F_SETFL, flags | O_NONBLOCK) < 0 || fcntl(l->fd, F_SETFD, FD_CLOEXEC) < 0)
        return cb_fail_errno(errno, "descriptor %d", l->fd);
    return CB_OK;
}

static int ready_listener(cb_tcp_listener *l) {
    socklen_t len = sizeof l->local;
    int rc = l->o.fd > 0 ? adopt_listener(l) : open_listener(l);
    if (rc < 0) return rc;
    set_option(l->fd, IPPROTO_TCP, TCP_NODELAY, 1); /* accepted sockets inherit it: one call less for each */
    if (l->o.fastopen) set_option(l->fd, IPPROTO_TCP, TCP_FASTOPEN, FASTOPEN_QUEUE);
    if (getsockname(l->fd, &l->local.sa, &len) < 0) return cb_fail_errno(errno, "getsockname");
    return cb_watch_new(&l->watch, l->loop, l->fd, CB_READABLE, on_incoming, l);
}

int cb_tcp_listen(cb_tcp_listener **out, cb_loop *loop, const cb_tcp_listener_opts *opts) {
    int family = opts->bind.sa.sa_family;
    if (!opts->on_accept || (opts->fd <= 0 && family != AF_INET && family != AF_INET6))
        return cb_fail(CB_EINVAL, "cb_tcp_listen: needs an address to bind and on_accept");
    int rc = cb_loop_needs_kernel(loop, "TCP");
    if (rc < 0) return rc;
    cb_tcp_listener *l = cb_mem_new(cb_loop_alloc(loop), sizeof *l);
    if (!l) return cb_fail(CB_ENOMEM, "no memory for a TCP listener");
    l->o = *opts;
    l->loop = loop;
    l->fd = opts->fd > 0 ? opts->fd : -1;
    cb_alarm_init(&l->recover, loop, on_recover);
    rc = ready_listener(l);
    if (rc < 0) {
        if (opts->fd <= 0 && l->fd >= 0) close(l->fd);
        cb_mem_free(cb_loop_alloc(loop), l);
        return rc;
    }
    *out = l;
    return CB_OK;
}

const cb_addr *cb_tcp_listener_local(const cb_tcp_listener *l) {
    return &l->local;
}

int cb_tcp_listener_fd(const cb_tcp_listener *l) {
    return l->fd;
}

void cb_tcp_listener_pause(cb_tcp_listener *l, bool paused) {
    if (l->freed) return;
    if (paused && !l->paused) cb_cells_add(cb_loop_cells(l->loop), CB_C_TCP_PAUSES, 1);
    l->paused = paused;
    update_events(l);
}

static void bury_listener(cb_grave *g) {
    cb_tcp_listener *l = CB_CONTAINER(g, cb_tcp_listener, grave);
    cb_mem_free(cb_loop_alloc(l->loop), l);
}

void cb_tcp_listener_free(cb_tcp_listener *l) {
    if (!l || l->freed) return;
    l->freed = true;
    cb_alarm_stop(&l->recover);
    cb_watch_free(l->watch);
    if (l->fd >= 0) close(l->fd);
    cb_loop_bury(l->loop, &l->grave, bury_listener);
}

void cb_tcp_listener_give_back(cb_tcp_listener *l) {
    if (!l || l->freed || l->o.fd <= 0) return;
    cb_watch_free(l->watch);
    l->watch = NULL;
    l->fd = -1;
}

/* ---- connecting ---- */

struct cb_tcp_connector {
    cb_loop *loop;
    cb_watch *watch;
    cb_alarm limit;
    cb_time timeout, began;
    cb_grave grave;
    cb_addr remote;
    struct sockaddr_un un; /* instead of remote, when its family is set */
    cb_alarm again;        /* its queue was full */
    cb_tcp_connect_fn fn;
    void *user;
    int fd;
    bool done;
};

static void bury_connector(cb_grave *g) {
    cb_tcp_connector *c = CB_CONTAINER(g, cb_tcp_connector, grave);
    cb_mem_free(cb_loop_alloc(c->loop), c);
}

/* err: 0 or an errno. Connections to unix sockets are none of TCP. */
static void count_connect(const cb_tcp_connector *c, int err) {
    const cb_cells *cells = cb_loop_cells(c->loop);
    if (!cells || c->un.sun_family) return;
    switch (err) {
    case 0:
        cb_cells_add(cells, CB_C_TCP_CONNECTS_OK, 1);
        cb_cells_observe(cells, CB_C_TCP_CONNECT, cb_loop_now(c->loop) - c->began);
        break;
    case ECONNREFUSED:
        cb_cells_add(cells, CB_C_TCP_CONNECTS_REFUSED, 1);
        break;
    case EHOSTUNREACH:
    case ENETUNREACH:
        cb_cells_add(cells, CB_C_TCP_CONNECTS_UNREACHABLE, 1);
        break;
    case ETIMEDOUT:
        cb_cells_add(cells, CB_C_TCP_CONNECTS_TIMEOUT, 1);
        break;
    case ECANCELED:
        cb_cells_add(cells, CB_C_TCP_CONNECTS_CANCELLED, 1);
        break;
    default:
        cb_cells_add(cells, CB_C_TCP_CONNECTS_OTHER, 1);
        break;
    }
}

/* Ends the connector; the descriptor goes to the caller, or is closed. */
static int finish(cb_tcp_connector *c, bool keep_fd) {
    int fd = c->fd;
    c->done = true;
    cb_alarm_stop(&c->limit);
    cb_alarm_stop(&c->again);
    cb_watch_free(c->watch);
    if (!keep_fd) close(fd);
    cb_loop_bury(c->loop, &c->grave, bury_connector);
    return fd;
}

/* Whom it connects to, for people. */
static const char *target(const cb_tcp_connector *c, char out[TARGET_TEXT]) {
    if (!c->un.sun_family) return cb_addr_text(&c->remote, out);
    snprintf(out, TARGET_TEXT, "unix:%s", c->un.sun_path);
    return out;
}

static void on_connected(cb_watch *w, unsigned events, void *user) {
    cb_tcp_connector *c = user;
    char text[TARGET_TEXT];
    int err = 0;
    socklen_t len = sizeof err;
    (void)w;
    (void)events;
    if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &err, &len) < 0) err = errno;
    int fd = finish(c, err == 0);
    count_connect(c, err);
    c->fn(err ? cb_fail_errno(err, "connecting to %s", target(c, text)) : fd, c->user);
}

static void on_limit(cb_alarm *a, cb_time now) {
    cb_tcp_connector *c = CB_CONTAINER(a, cb_tcp_connector, limit);
    char text[TARGET_TEXT];
    (void)now;
    finish(c, false);
    count_connect(c, ETIMEDOUT);
    c->fn(cb_fail(CB_ETIMEOUT, "connecting to %s: no answer within %llu ms", target(c, text),
                  (unsigned long long)(c->timeout / CB_MS)),
          c->user);
}

static int watch(cb_tcp_connector *c) {
    return cb_watch_new(&c->watch, c->loop, c->fd, CB_WRITABLE, on_connected, c);
}

static int start_connecting(cb_tcp_connector *c) {
    char text[TARGET_TEXT];
    c->fd = socket(c->remote.sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0) return cb_fail_errno(errno, "opening a TCP socket");
    set_option(c->fd, IPPROTO_TCP, TCP_NODELAY, 1);
    if (connect(c->fd, &c->remote.sa, cb_addr_len(&c->remote)) < 0 && errno != EINPROGRESS) {
        count_connect(c, errno);
        return cb_fail_errno(errno, "connecting to %s", target(c, text));
    }
    return watch(c);
}

/* A unix socket connects at once or not at all; EAGAIN says that its queue is full. */
static int try_unix(cb_tcp_connector *c) {
    char text[TARGET_TEXT];
    if (connect(c->fd, (const struct sockaddr *)&c->un, sizeof c->un) == 0) return watch(c);
    if (errno == EAGAIN) return cb_alarm_set(&c->again, cb_loop_now(c->loop) + UNIX_AGAIN);
    if (errno == ENOENT) /* nobody is there, as when a port is closed */
        return cb_fail(CB_EUNREACH, "connecting to %s: there is no such socket", target(c, text));
    return cb_fail_errno(errno, "connecting to %s", target(c, text));
}

static void on_again(cb_alarm *a, cb_time now) {
    cb_tcp_connector *c = CB_CONTAINER(a, cb_tcp_connector, again);
    (void)now;
    int rc = try_unix(c);
    if (rc == CB_OK) return;
    finish(c, false);
    c->fn(rc, c->user);
}

static int start_unix(cb_tcp_connector *c) {
    c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0) return cb_fail_errno(errno, "opening a unix socket");
    return try_unix(c);
}

static int connector_new(cb_tcp_connector **out, cb_loop *loop, cb_time timeout, cb_tcp_connect_fn fn, void *user) {
    int rc = cb_loop_needs_kernel(loop, "TCP");
    if (rc < 0) return rc;
    cb_tcp_connector *c = cb_mem_new(cb_loop_alloc(loop), sizeof *c);
    if (!c) return cb_fail(CB_ENOMEM, "no memory to connect");
    c->loop = loop;
    c->timeout = timeout;
    c->began = cb_loop_now(loop);
    c->fn = fn;
    c->user = user;
    c->fd = -1;
    cb_alarm_init(&c->limit, loop, on_limit);
    cb_alarm_init(&c->again, loop, on_again);
    *out = c;
    return CB_OK;
}

/* rc is what starting it gave: a connector that did not start goes. */
static int started(cb_tcp_connector **out, cb_tcp_connector *c, int rc) {
    if (rc == CB_OK && c->timeout && c->timeout != CB_NEVER)
        rc = cb_alarm_set(&c->limit, cb_loop_now(c->loop) + c->timeout);
    if (rc == CB_OK) {
        *out = c;
        return CB_OK;
    }
    cb_watch_free(c->watch);
    cb_alarm_stop(&c->limit);
    cb_alarm_stop(&c->again);
    if (c->fd >= 0) close(c->fd);
    cb_mem_free(cb_loop_alloc(c->loop), c);
    return rc;
}

int cb_tcp_connect(cb_tcp_connector **out, cb_loop *loop, const cb_addr *remote, cb_time timeout, cb_tcp_connect_fn fn,
                   void *user) {
    cb_tcp_connector *c = NULL;
    int rc = connector_new(&c, loop, timeout, fn, user);
    if (rc < 0) return rc;
    c->remote = *remote;
    return started(out, c, start_connecting(c));
}

int cb_unix_connect(cb_tcp_connector **out, cb_loop *loop, const char *path, cb_time timeout, cb_tcp_connect_fn fn,
                    void *user) {
    cb_tcp_connector *c = NULL;
    struct sockaddr_un un;
    int rc = cb_unix_addr(&un, path);
    if (rc == CB_OK) rc = connector_new(&c, loop, timeout, fn, user);
    if (rc < 0) return rc;
    c->un = un;
    return started(out, c, start_unix(c));
}

void cb_tcp_connect_cancel(cb_tcp_connector *c) {
    if (!c || c->done) return;
    finish(c, false);
    count_connect(c, ECANCELED);
}
