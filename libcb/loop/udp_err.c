#include "loop/udp_priv.h"
#include <errno.h>
#include <linux/errqueue.h>
#include <string.h>

enum { ERRORS_A_CALL = 64, QUOTE = 576 };

/* Routes come and go, and a firewall may change its mind; but these say that this packet found nobody. */
static bool says_unreachable(uint32_t err) {
    return err == ECONNREFUSED || err == EHOSTUNREACH || err == ENETUNREACH || err == EACCES;
}

static bool read_error(struct msghdr *m, struct sock_extended_err *out) {
    for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
        if (!(c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_RECVERR) &&
            !(c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_RECVERR))
            continue;
        memcpy(out, CMSG_DATA(c), sizeof *out);
        return out->ee_origin == SO_EE_ORIGIN_ICMP || out->ee_origin == SO_EE_ORIGIN_ICMP6;
    }
    return false;
}

void cb_udp_unreachable(cb_udp *u, int err, const cb_addr *remote, cb_slice quote) {
    if (u->o.on_unreachable && says_unreachable((uint32_t)err)) u->o.on_unreachable(u, err, remote, quote, u->o.user);
}

bool cb_udp_take_errors(cb_udp *u) {
    bool any = false;
    if (!u->o.on_unreachable) return false;
    for (int i = 0; i < ERRORS_A_CALL && !u->closed; i++) {
        uint8_t quote[QUOTE];
        udp_control control;
        cb_addr remote;
        struct sock_extended_err e;
        struct iovec iov = {quote, sizeof quote};
        struct msghdr m = {.msg_name = &remote,
                           .msg_namelen = sizeof remote,
                           .msg_iov = &iov,
                           .msg_iovlen = 1,
                           .msg_control = &control,
                           .msg_controllen = sizeof control};
        memset(&remote, 0, sizeof remote);
        ssize_t n = recvmsg(u->fd, &m, MSG_ERRQUEUE | MSG_DONTWAIT);
        if (n < 0) break;
        if (!read_error(&m, &e)) continue;
        any = true;
        cb_udp_count_icmp(u->loop->turn.cells, (int)e.ee_errno);
        cb_addr_unmap(&remote);
        cb_udp_unreachable(u, (int)e.ee_errno, &remote, (cb_slice){quote, (size_t)n});
    }
    return any;
}
