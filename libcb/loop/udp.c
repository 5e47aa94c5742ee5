#include "base/error.h"
#include "loop/udp_priv.h"
#include <errno.h>
#include <fcntl.h>
#include <netinet/udp.h>
#include <string.h>
#include <unistd.h>

enum { BUFFER_DEFAULT = 4 * 1024 * 1024 };

/* ---- socket options ---- */

static bool turn_on(int fd, int level, int name, int value) {
    return setsockopt(fd, level, name, &value, sizeof value) == 0;
}

/* What the kernel granted; it keeps twice that for its own bookkeeping. */
static uint32_t set_buffer(int fd, int force, int plain, uint32_t bytes) {
    int want = (int)bytes;
    int got = 0;
    socklen_t len = sizeof got;
    if (getsockopt(fd, SOL_SOCKET, plain, &got, &len) == 0 && got / 2 >= want) return (uint32_t)got / 2; /* adopted */
    if (!turn_on(fd, SOL_SOCKET, force, want)) turn_on(fd, SOL_SOCKET, plain, want);
    if (getsockopt(fd, SOL_SOCKET, plain, &got, &len) < 0 || got < 0) return 0;
    return (uint32_t)got / 2;
}

static void set_buffers(cb_udp *u) {
    uint32_t rcv = u->o.rcvbuf_bytes ? u->o.rcvbuf_bytes : BUFFER_DEFAULT;
    uint32_t snd = u->o.sndbuf_bytes ? u->o.sndbuf_bytes : BUFFER_DEFAULT;
    if (rcv > INT32_MAX / 2) rcv = INT32_MAX / 2;
    if (snd > INT32_MAX / 2) snd = INT32_MAX / 2;
    u->stats.rcvbuf = set_buffer(u->fd, SO_RCVBUFFORCE, SO_RCVBUF, rcv);
    u->stats.sndbuf = set_buffer(u->fd, SO_SNDBUFFORCE, SO_SNDBUF, snd);
    if ((u->stats.rcvbuf >= rcv && u->stats.sndbuf >= snd) || u->loop->udp_warned) return;
    u->loop->udp_warned = true;
    cb_log_line(u->loop->turn.log, CB_LOG_WARN, "udp",
                "socket buffers are %u (receive) and %u (send) bytes instead of %u and %u; raise them with sysctl "
                "net.core.rmem_max=%u net.core.wmem_max=%u or give CAP_NET_ADMIN",
                u->stats.rcvbuf, u->stats.sndbuf, rcv, snd, rcv, snd);
}

static void set_features(cb_udp *u) {
    bool v6 = u->o.bind.sa.sa_family == AF_INET6;
    int fd = u->fd;
    /* An IPv6 socket that takes both families needs the IPv4 settings too; where it does not, they fail. */
    turn_on(fd, IPPROTO_IP, IP_PKTINFO, 1);
    if (v6) turn_on(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1);
    if (!u->o.no_ecn) {
        bool v4_ecn = turn_on(fd, IPPROTO_IP, IP_RECVTOS, 1);
        bool v6_ecn = v6 && turn_on(fd, IPPROTO_IPV6, IPV6_RECVTCLASS, 1);
        u->stats.ecn = v6 ? v6_ecn : v4_ecn;
    }
    if (!u->o.no_pmtud) { /* DF on, and no opinion of the kernel about the path: QUIC probes by itself */
        turn_on(fd, IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_PROBE);
        if (v6) turn_on(fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_PMTUDISC_PROBE);
    }
    if (u->o.on_unreachable) {
        turn_on(fd, IPPROTO_IP, IP_RECVERR, 1);
        if (v6) turn_on(fd, IPPROTO_IPV6, IPV6_RECVERR, 1);
    }
    u->stats.gro = !u->o.no_gro && turn_on(fd, SOL_UDP, UDP_GRO, 1);
    u->stats.gso = !u->o.no_gso && turn_on(fd, SOL_UDP, UDP_SEGMENT, 0);
}

static bool any_address(const cb_addr *a) {
    return a->sa.sa_family == AF_INET6 && IN6_IS_ADDR_UNSPECIFIED(&a->v6.sin6_addr);
}

static int open_socket(cb_udp *u) {
    int type = SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC;
    u->fd = socket(u->o.bind.sa.sa_family, type, 0);
    if (u->fd < 0 && errno == EAFNOSUPPORT && any_address(&u->o.bind) && !u->o.v6_only) {
        /* A kernel without IPv6: both families means the other one. */
        in_port_t port = u->o.bind.v6.sin6_port;
        memset(&u->o.bind, 0, sizeof u->o.bind);
        u->o.bind.v4.sin_family = AF_INET;
        u->o.bind.v4.sin_port = port;
        u->fd = socket(AF_INET, type, 0);
    }
    return u->fd < 0 ? cb_fail_errno(errno, "opening a UDP socket") : CB_OK;
}

static int bind_socket(cb_udp *u) {
    char text[CB_ADDR_TEXT];
    socklen_t len = sizeof u->local;
    if (u->o.bind.sa.sa_family == AF_INET6) turn_on(u->fd, IPPROTO_IPV6, IPV6_V6ONLY, u->o.v6_only);
    if (u->o.reuseport && !turn_on(u->fd, SOL_SOCKET, SO_REUSEPORT, 1)) return cb_fail_errno(errno, "SO_REUSEPORT");
    if (bind(u->fd, &u->o.bind.sa, cb_addr_len(&u->o.bind)) < 0)
        return cb_fail_errno(errno, "binding UDP %s", cb_addr_text(&u->o.bind, text));
    if (getsockname(u->fd, &u->local.sa, &len) < 0) return cb_fail_errno(errno, "getsockname");
    return CB_OK;
}

/* Takes over a bound socket: what the predecessor set is set again, for it may have been another version. */
static int adopt_socket(cb_udp *u) {
    int type = 0, flags = fcntl(u->fd, F_GETFL);
    socklen_t type_len = sizeof type, len = sizeof u->local;
    if (getsockopt(u->fd, SOL_SOCKET, SO_TYPE, &type, &type_len) < 0 || getsockname(u->fd, &u->local.sa, &len) < 0)
        return cb_fail_errno(errno, "descriptor %d", u->fd);
    if (type != SOCK_DGRAM || !cb_addr_len(&u->local) || !cb_addr_port(&u->local))
        return cb_fail(CB_EINVAL, "descriptor %d is not a bound UDP socket", u->fd);
    if (flags < 0 || fcntl(u->fd, F_SETFL, flags | O_NONBLOCK) < 0 || fcntl(u->fd, F_SETFD, FD_CLOEXEC) < 0)
        return cb_fail_errno(errno, "descriptor %d", u->fd);
    u->o.bind = u->local;
    set_buffers(u);
    set_features(u);
    return CB_OK;
}

/* ---- life ---- */

void cb_udp_watch(cb_udp *u) {
    cb_watch_events(u->watch, (u->resting ? 0U : CB_READABLE) | (u->blocked ? CB_WRITABLE : 0U));
}

void cb_udp_rest(cb_udp *u, bool rest) {
    if (u->closed || !u->watch) return;
    u->resting = rest;
    cb_udp_watch(u);
}

void cb_udp_give_back(cb_udp *u) {
    if (u->closed || !u->o.fd) return;
    cb_watch_free(u->watch);
    u->watch = NULL;
    u->fd = -1;
}

uint64_t cb_udp_cookie(const cb_udp *u) {
    uint64_t cookie = 0;
    socklen_t len = sizeof cookie;
    return getsockopt(u->fd, SOL_SOCKET, SO_COOKIE, &cookie, &len) < 0 ? 0 : cookie;
}

static void on_ready(cb_watch *w, unsigned events, void *user) {
    cb_udp *u = user;
    (void)w;
    if (events & CB_WRITABLE && u->blocked) {
        u->blocked = false;
        cb_udp_send_queued(u);
        if (!u->blocked) cb_udp_watch(u);
        if (!u->blocked && u->starved) {
            u->starved = false;
            if (u->o.on_writable) u->o.on_writable(u, u->o.user);
        }
    }
    if (events & CB_READABLE && !u->closed && !u->resting) cb_udp_read(u);
}

static void on_turn_end(cb_defer *d) {
    cb_udp_flush(CB_CONTAINER(d, cb_udp, defer));
}

static void bury(cb_grave *g) {
    cb_udp *u = CB_CONTAINER(g, cb_udp, grave);
    const cb_alloc *a = cb_loop_alloc(u->loop);
    cb_mem_free(a, u->arena);
    cb_mem_free(a, u->trains);
    cb_mem_free(a, u);
}

static int open_kernel(cb_udp *u) {
    if (!u->loop->udp_area) u->loop->udp_area = cb_mem_get(cb_loop_alloc(u->loop), sizeof(cb_udp_area));
    if (!u->loop->udp_area) return cb_fail(CB_ENOMEM, "no memory to read UDP");
    int rc = u->fd >= 0 ? adopt_socket(u) : open_socket(u);
    if (rc == CB_OK && !u->o.fd) {
        set_buffers(u);
        set_features(u);
        rc = bind_socket(u);
    }
    if (rc == CB_OK) rc = cb_watch_new(&u->watch, u->loop, u->fd, CB_READABLE, on_ready, u);
    if (rc < 0 && u->fd >= 0 && !u->o.fd) close(u->fd);
    return rc;
}

static void close_kernel(cb_udp *u) {
    cb_watch_free(u->watch);
    if (u->fd >= 0) close(u->fd);
    u->fd = -1;
}

const struct cb_udp_port cb_udp_kernel = {open_kernel, close_kernel, cb_udp_send_queued};

int cb_udp_open(cb_udp **out, cb_loop *loop, const cb_udp_opts *opts) {
    int family = opts->bind.sa.sa_family;
    if (!opts->on_datagram || (opts->fd <= 0 && family != AF_INET && family != AF_INET6))
        return cb_fail(CB_EINVAL, "cb_udp_open: needs an address to bind and on_datagram");
    cb_udp *u = cb_mem_new(cb_loop_alloc(loop), sizeof *u);
    if (!u) return cb_fail(CB_ENOMEM, "no memory for a UDP socket");
    u->o = *opts;
    u->loop = loop;
    if (u->o.fd < 0) u->o.fd = 0;
    u->fd = u->o.fd ? u->o.fd : -1;
    cb_defer_init(&u->defer, loop, on_turn_end);
    int rc = loop->udp_port->open(u);
    if (rc < 0) {
        cb_mem_free(cb_loop_alloc(loop), u);
        return rc;
    }
    cb_cells_move(loop->turn.cells, CB_C_UDP_SOCKETS, 1);
    *out = u;
    return CB_OK;
}

void cb_udp_close(cb_udp *u) {
    if (!u || u->closed) return;
    u->closed = true;
    cb_cells_move(u->loop->turn.cells, CB_C_UDP_SOCKETS, -1);
    cb_defer_cancel(&u->defer);
    u->loop->udp_port->close(u);
    cb_loop_bury(u->loop, &u->grave, bury);
}

int cb_udp_fd(const cb_udp *u) {
    return u->fd;
}

const cb_addr *cb_udp_local(const cb_udp *u) {
    return &u->local;
}

const cb_udp_stats *cb_udp_stats_get(const cb_udp *u) {
    return &u->stats;
}
