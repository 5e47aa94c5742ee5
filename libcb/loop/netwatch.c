#include "loop/netwatch.h"
#include "base/error.h"
#include <errno.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define SETTLE (2 * CB_MS) /* an address that moves comes as several messages */

struct cb_netwatch {
    cb_loop *loop;
    cb_watch *watch;
    cb_alarm alarm;
    cb_grave grave;
    cb_netwatch_fn fn;
    void *user;
    int fd;
};

/* ---- what happens ---- */

static bool matters(uint16_t type) {
    static const uint16_t types[] = {RTM_NEWADDR, RTM_DELADDR, RTM_NEWROUTE, RTM_DELROUTE, RTM_NEWLINK, RTM_DELLINK};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (types[i] == type) return true;
    return false;
}

/* Several messages in one datagram; each is as long as it says, and no longer than what is left. */
static bool look_through(const uint8_t *at, size_t len) {
    struct nlmsghdr h;
    while (len >= sizeof h) {
        memcpy(&h, at, sizeof h);
        if (h.nlmsg_len < sizeof h || h.nlmsg_len > len) return false;
        if (matters(h.nlmsg_type)) return true;
        const size_t step = NLMSG_ALIGN(h.nlmsg_len);
        if (step >= len) return false;
        at += step;
        len -= step;
    }
    return false;
}

static void on_readable(cb_watch *watch, unsigned events, void *user) {
    (void)watch;
    (void)events;
    cb_netwatch *w = user;
    size_t cap;
    uint8_t *buf = cb_loop_scratch(w->loop, &cap);
    bool changed = false;
    for (;;) {
        struct sockaddr_nl from;
        socklen_t from_len = sizeof from;
        memset(&from, 0, sizeof from);
        ssize_t n = recvfrom(w->fd, buf, cap, MSG_DONTWAIT, (struct sockaddr *)(void *)&from, &from_len);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && errno == ENOBUFS) changed = true; /* some were lost: there were many */
        if (n < 0 && errno != ENOBUFS) break;
        if (n > 0 && from.nl_pid == 0) changed |= look_through(buf, (size_t)n); /* only the kernel's word counts */
    }
    if (changed && cb_alarm_at(&w->alarm) == CB_NEVER) cb_alarm_set(&w->alarm, cb_loop_now(w->loop) + SETTLE);
}

static void on_alarm(cb_alarm *a, cb_time now) {
    (void)now;
    cb_netwatch *w = CB_CONTAINER(a, cb_netwatch, alarm);
    w->fn(w->user);
}

/* ---- life ---- */

static void bury(cb_grave *g) {
    cb_netwatch *w = CB_CONTAINER(g, cb_netwatch, grave);
    cb_mem_free(cb_loop_alloc(w->loop), w);
}

static int subscribe(int fd) {
    const struct sockaddr_nl me = {.nl_family = AF_NETLINK,
                                   .nl_groups = RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR |
                                                RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_ROUTE};
    return bind(fd, (const struct sockaddr *)(const void *)&me, sizeof me);
}

int cb_netwatch_new(cb_netwatch **out, cb_loop *loop, cb_netwatch_fn fn, void *user) {
    cb_netwatch *w = cb_mem_new(cb_loop_alloc(loop), sizeof *w);
    if (!w) return cb_fail(CB_ENOMEM, "watching the network");
    w->loop = loop;
    w->fn = fn;
    w->user = user;
    cb_alarm_init(&w->alarm, loop, on_alarm);
    w->fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE);
    int rc = w->fd < 0 || subscribe(w->fd) < 0 ? cb_fail_errno(errno, "watching the network (netlink)") : CB_OK;
    if (rc == CB_OK) rc = cb_watch_new(&w->watch, loop, w->fd, CB_READABLE, on_readable, w);
    if (rc < 0) {
        if (w->fd >= 0) close(w->fd);
        cb_mem_free(cb_loop_alloc(loop), w);
        return rc;
    }
    *out = w;
    return CB_OK;
}

void cb_netwatch_free(cb_netwatch *w) {
    if (!w) return;
    cb_watch_free(w->watch);
    cb_alarm_stop(&w->alarm);
    close(w->fd);
    cb_loop_bury(w->loop, &w->grave, bury);
}

/* ---- what is so now ---- */

bool cb_net_has_address(cb_loop *loop, const cb_addr *at) {
    cb_addr probe = *at;
    if (cb_loop_is_virtual(loop)) return true;
    int fd = socket(at->sa.sa_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return true; /* not known: do not act on it */
    cb_addr_set_port(&probe, 0);
    const bool gone = bind(fd, &probe.sa, cb_addr_len(&probe)) < 0 && errno == EADDRNOTAVAIL;
    close(fd);
    return !gone;
}

int cb_net_source(cb_loop *loop, const cb_addr *remote, cb_addr *out) {
    socklen_t len = sizeof *out;
    int rc = cb_loop_needs_kernel(loop, "the source of packets");
    if (rc < 0) return rc;
    int fd = socket(remote->sa.sa_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return cb_fail_errno(errno, "socket");
    memset(out, 0, sizeof *out);
    const bool ok = connect(fd, &remote->sa, cb_addr_len(remote)) == 0 && getsockname(fd, &out->sa, &len) == 0;
    const int err = errno;
    close(fd);
    if (!ok) return cb_fail(CB_EUNREACH, "no route: %s", strerrordesc_np(err));
    if (cb_addr_is_any(out))
        return cb_fail(CB_EUNREACH, "no address to send from"); /* the next one comes, and is told of */
    cb_addr_set_port(out, 0);
    return CB_OK;
}
