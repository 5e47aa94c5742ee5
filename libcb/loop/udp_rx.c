#include "loop/udp_priv.h"
#include <errno.h>
#include <netinet/udp.h>
#include <string.h>

enum { READS_A_TURN = 4 };

/* What the kernel tells beside the bytes. */
typedef struct rx_facts {
    cb_addr local;
    size_t segment; /* of a GRO train; 0 = one datagram */
    uint8_t ecn;
} rx_facts;

static void note_local6(cb_addr *out, const struct in6_pktinfo *info, in_port_t port) {
    memset(out, 0, sizeof *out);
    out->v6.sin6_family = AF_INET6;
    out->v6.sin6_port = port;
    out->v6.sin6_addr = info->ipi6_addr;
    if (IN6_IS_ADDR_LINKLOCAL(&info->ipi6_addr)) out->v6.sin6_scope_id = info->ipi6_ifindex;
    cb_addr_unmap(out);
}

static void note_local4(cb_addr *out, const struct in_pktinfo *info, in_port_t port) {
    memset(out, 0, sizeof *out);
    out->v4.sin_family = AF_INET;
    out->v4.sin_port = port;
    out->v4.sin_addr = info->ipi_addr;
}

static void read_control(struct msghdr *m, in_port_t port, rx_facts *f) {
    for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
        const void *data = CMSG_DATA(c);
        int value = 0;
        if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
            struct in_pktinfo info;
            memcpy(&info, data, sizeof info);
            note_local4(&f->local, &info, port);
        } else if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO) {
            struct in6_pktinfo info;
            memcpy(&info, data, sizeof info);
            note_local6(&f->local, &info, port);
        } else if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_TOS) {
            f->ecn = *(const uint8_t *)data & 3;
        } else if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_TCLASS) {
            memcpy(&value, data, sizeof value);
            f->ecn = (uint8_t)(value & 3);
        } else if (c->cmsg_level == SOL_UDP && c->cmsg_type == UDP_GRO) {
            memcpy(&value, data, sizeof value);
            f->segment = value > 0 ? (size_t)value : 0;
        }
    }
}

static in_port_t local_port(const cb_udp *u) {
    return u->local.sa.sa_family == AF_INET ? u->local.v4.sin_port : u->local.v6.sin6_port;
}

/* One message: a datagram, or a train that the kernel glued together. False: stop reading. */
static bool deliver(cb_udp *u, struct mmsghdr *m, uint8_t *data) {
    rx_facts f = {.local = u->local};
    cb_udp_area *area = u->loop->udp_area;
    cb_datagram d = {.remote = area->rx_name[m - area->rx]};
    size_t left = m->msg_len;

    read_control(&m->msg_hdr, local_port(u), &f);
    cb_addr_unmap(&d.remote);
    if (m->msg_hdr.msg_flags & MSG_TRUNC) return true; /* cannot be: the room is the largest datagram */
    size_t segment = f.segment && f.segment < left ? f.segment : left;
    if (u->loop->turn.cells)
        cb_udp_count_in(u->loop->turn.cells, left, segment < left ? (left + segment - 1) / segment : 1, f.ecn);
    do {
        size_t len = segment < left ? segment : left;
        d.local = f.local;
        d.ecn = f.ecn;
        d.data = data;
        d.len = len;
        u->stats.rx_datagrams++;
        u->stats.rx_bytes += len;
        if (!u->o.on_datagram(u, &d, u->o.user) || u->closed) return false;
        data += len;
        left -= len;
    } while (left);
    return true;
}

static int receive(cb_udp *u) {
    cb_udp_area *area = u->loop->udp_area;
    for (int i = 0; i < UDP_RX_MSGS; i++) {
        struct msghdr *h = &area->rx[i].msg_hdr;
        area->rx_iov[i] = (struct iovec){area->rx_data[i], 65536};
        *h = (struct msghdr){.msg_name = &area->rx_name[i],
                             .msg_namelen = sizeof area->rx_name[i],
                             .msg_iov = &area->rx_iov[i],
                             .msg_iovlen = 1,
                             .msg_control = &area->rx_control[i],
                             .msg_controllen = sizeof area->rx_control[i]};
    }
    u->stats.rx_calls++;
    return recvmmsg(u->fd, area->rx, UDP_RX_MSGS, MSG_DONTWAIT, NULL);
}

void cb_udp_read(cb_udp *u) {
    cb_udp_area *area = u->loop->udp_area;
    for (int reads = 0; reads < READS_A_TURN; reads++) {
        int n = receive(u);
        if (n < 0) {
            const int err = errno;
            if (cb_udp_take_errors(u)) continue;
            if (err != EAGAIN && err != EINTR)
                cb_log_line(u->loop->turn.log, CB_LOG_DEBUG, "udp", "recvmmsg failed (errno %d)", err);
            return;
        }
        bool go_on = true;
        u->loop->served += (unsigned)n;
        const uint64_t before = u->stats.rx_datagrams;
        for (int i = 0; i < n && go_on; i++)
            go_on = deliver(u, &area->rx[i], area->rx_data[i]);
        cb_cells_observe(u->loop->turn.cells, CB_C_UDP_BATCH_IN, u->stats.rx_datagrams - before);
        if (u->closed) return;
        if (u->o.on_batch_end) u->o.on_batch_end(u, u->o.user);
        if (u->closed || !go_on || n < UDP_RX_MSGS) return;
    }
}
