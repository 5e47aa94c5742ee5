#include "base/error.h"
#include "loop/udp_priv.h"
#include <errno.h>
#include <netinet/udp.h>
#include <string.h>

enum { GSO_SEGMENTS = 64, GSO_BYTES_V4 = 65507, GSO_BYTES_V6 = 65487, RESERVE_MAX = 65000 };

/* ---- building in place ---- */

static bool make_arena(cb_udp *u) {
    const cb_alloc *a = cb_loop_alloc(u->loop);
    if (u->arena) return true;
    u->arena = cb_mem_get(a, UDP_TX_ARENA);
    u->trains = cb_mem_get(a, UDP_TX_ENTRIES * sizeof *u->trains);
    if (u->arena && u->trains) return true;
    cb_mem_free(a, u->arena);
    cb_mem_free(a, u->trains);
    u->arena = NULL;
    u->trains = NULL;
    return false;
}

uint8_t *cb_udp_reserve(cb_udp *u, size_t want) {
    if (u->closed || want > RESERVE_MAX) return NULL;
    if (!u->blocked && u->arena && (UDP_TX_ARENA - u->filled < want || u->count == UDP_TX_ENTRIES)) cb_udp_flush(u);
    if (u->blocked) { /* what is built now would be old when it leaves */
        u->starved = true;
        return NULL;
    }
    return make_arena(u) ? u->arena + u->filled : NULL;
}

static bool same_path(const udp_train *t, const cb_addr *local, const cb_addr *remote, unsigned ecn) {
    if (t->ecn != ecn || t->has_local != (local != NULL)) return false;
    if (memcmp(&t->remote, remote, cb_addr_len(remote)) != 0) return false;
    return !local || memcmp(&t->local, local, cb_addr_len(local)) == 0;
}

/* Packets that were committed one by one to one peer become one train when they fit its step. */
static bool lengthen(cb_udp *u, const cb_addr *local, const cb_addr *remote, unsigned ecn, size_t len, size_t segment) {
    if (u->count == u->first) return false;
    udp_train *t = &u->trains[u->count - 1];
    bool fits = segment == t->segment || (len <= segment && len < t->segment);
    if (!fits || t->len % t->segment || t->off + t->len != u->filled || !same_path(t, local, remote, ecn)) return false;
    t->len += len;
    return true;
}

void cb_udp_commit(cb_udp *u, const cb_addr *local, const cb_addr *remote, unsigned ecn, size_t len, size_t segment) {
    if (u->closed || !u->arena || !len || len > UDP_TX_ARENA - u->filled || u->count == UDP_TX_ENTRIES) return;
    if (!segment || segment > len) segment = len;
    ecn &= 3;
    if (!u->o.merge || !lengthen(u, local, remote, ecn, len, segment)) {
        udp_train *t = &u->trains[u->count++];
        *t = (udp_train){.off = u->filled, .len = len, .segment = segment, .has_local = local, .ecn = (uint8_t)ecn};
        memcpy(&t->remote, remote, cb_addr_len(remote));
        if (local) memcpy(&t->local, local, cb_addr_len(local));
    }
    u->filled += len;
    cb_defer_later(&u->defer);
}

/* ---- sending ---- */

/* Writes one control message at *used and advances it. */
static void put_control(uint8_t *control, size_t *used, int level, int type, const void *data, size_t len) {
    struct cmsghdr *c = (struct cmsghdr *)(void *)(control + *used);
    c->cmsg_level = level;
    c->cmsg_type = type;
    c->cmsg_len = CMSG_LEN(len);
    memcpy(CMSG_DATA(c), data, len);
    *used += CMSG_SPACE(len);
}

static void put_source(uint8_t *control, size_t *used, const cb_addr *local, bool v4) {
    cb_addr from = *local;
    cb_addr_unmap(&from);
    if (v4 && from.sa.sa_family == AF_INET && from.v4.sin_addr.s_addr != INADDR_ANY) {
        struct in_pktinfo info = {.ipi_spec_dst = from.v4.sin_addr};
        put_control(control, used, IPPROTO_IP, IP_PKTINFO, &info, sizeof info);
    } else if (!v4 && from.sa.sa_family == AF_INET6 && !IN6_IS_ADDR_UNSPECIFIED(&from.v6.sin6_addr)) {
        struct in6_pktinfo info = {.ipi6_addr = from.v6.sin6_addr, .ipi6_ifindex = from.v6.sin6_scope_id};
        put_control(control, used, IPPROTO_IPV6, IPV6_PKTINFO, &info, sizeof info);
    }
}

/* The remote as this socket takes it: on an IPv6 socket, IPv4 is written mapped. */
static socklen_t put_name(const cb_udp *u, cb_addr *out, const cb_addr *remote) {
    cb_addr to = *remote;
    cb_addr_unmap(&to);
    if (u->local.sa.sa_family == AF_INET6 && to.sa.sa_family == AF_INET) {
        memset(out, 0, sizeof *out);
        out->v6.sin6_family = AF_INET6;
        out->v6.sin6_port = to.v4.sin_port;
        out->v6.sin6_addr.s6_addr[10] = out->v6.sin6_addr.s6_addr[11] = 0xff;
        memcpy(out->v6.sin6_addr.s6_addr + 12, &to.v4.sin_addr, 4);
    } else {
        *out = to;
    }
    return cb_addr_len(out);
}

static void build(cb_udp *u, int i, const udp_train *t, size_t off, size_t len) {
    cb_udp_area *area = u->loop->udp_area;
    struct msghdr *h = &area->tx[i].msg_hdr;
    uint8_t *control = area->tx_control[i].bytes;
    size_t used = 0;
    cb_addr to = t->remote;

    cb_addr_unmap(&to);
    bool v4 = to.sa.sa_family == AF_INET;
    memset(control, 0, UDP_TX_CONTROL);
    if (t->has_local) put_source(control, &used, &t->local, v4);
    if (t->ecn && u->stats.ecn) {
        int tos = t->ecn;
        put_control(control, &used, v4 ? IPPROTO_IP : IPPROTO_IPV6, v4 ? IP_TOS : IPV6_TCLASS, &tos, sizeof tos);
    }
    if (len > t->segment) {
        uint16_t segment = (uint16_t)t->segment;
        put_control(control, &used, SOL_UDP, UDP_SEGMENT, &segment, sizeof segment);
    }
    area->tx_iov[i] = (struct iovec){u->arena + off, len};
    *h = (struct msghdr){.msg_name = &area->tx_name[i],
                         .msg_namelen = put_name(u, &area->tx_name[i], &t->remote),
                         .msg_iov = &area->tx_iov[i],
                         .msg_iovlen = 1,
                         .msg_control = used ? control : NULL,
                         .msg_controllen = used};
}

/* How much of a train one message may carry. */
static size_t message_bytes(const cb_udp *u, const udp_train *t, size_t left) {
    size_t most = t->remote.sa.sa_family == AF_INET ? GSO_BYTES_V4 : GSO_BYTES_V6;
    size_t n = u->stats.gso ? most / t->segment : 1;
    if (n > GSO_SEGMENTS) n = GSO_SEGMENTS;
    if (n < 1) n = 1;
    n *= t->segment;
    return n < left ? n : left;
}

static int build_batch(cb_udp *u) {
    int n = 0;
    for (size_t i = u->first; i < u->count; i++) {
        const udp_train *t = &u->trains[i];
        for (size_t done = 0; done < t->len;) {
            if (n == UDP_TX_MSGS) return n;
            size_t len = message_bytes(u, t, t->len - done);
            build(u, n++, t, t->off + done, len);
            done += len;
        }
    }
    return n;
}

/* The first `bytes` of the first train are done with. Returns how many datagrams they were. */
static uint64_t consume(cb_udp *u, size_t bytes) {
    udp_train *t = &u->trains[u->first];
    uint64_t datagrams = (bytes + t->segment - 1) / t->segment;
    t->off += bytes;
    t->len -= bytes;
    if (!t->len) u->first++;
    return datagrams;
}

static void note_sent(cb_udp *u, int n) {
    cb_udp_area *area = u->loop->udp_area;
    size_t all = 0, datagrams = 0, segmented = 0;
    for (int i = 0; i < n; i++) {
        size_t bytes = area->tx_iov[i].iov_len, cut = consume(u, bytes);
        all += bytes;
        datagrams += cut;
        segmented += cut > 1;
    }
    u->stats.tx_bytes += all;
    u->stats.tx_datagrams += datagrams;
    if (u->loop->turn.cells) cb_udp_count_out(u->loop->turn.cells, all, datagrams, segmented);
    u->last_errno = 0;
    if (!u->gso_trial) return;
    u->gso_trial = false;
    cb_cells_add(u->loop->turn.cells, CB_C_UDP_GSO_REFUSED, 1);
    cb_log_line(u->loop->turn.log, CB_LOG_INFO, "udp",
                "the device does not take segmented messages; sending datagrams one by one from now on");
}

static void note_failed(cb_udp *u, int err) {
    char text[CB_ADDR_TEXT];
    const udp_train *t = &u->trains[u->first];
    size_t bytes = u->loop->udp_area->tx_iov[0].iov_len;

    if ((err == EIO || err == EINVAL) && bytes > t->segment) {
        u->stats.gso = false;
        u->gso_trial = true;
        return;
    }
    if (u->gso_trial) {
        /* Alone it does not leave either: the path or the address is to blame, for the whole train. */
        u->gso_trial = false;
        u->stats.gso = true;
        bytes = t->len;
    }
    if (err != u->last_errno && cb_log_on(u->loop->turn.log, CB_LOG_INFO))
        cb_log_line(u->loop->turn.log, CB_LOG_INFO, "udp", "sending %zu bytes to %s failed: %s", bytes,
                    cb_addr_text(&t->remote, text), strerrordesc_np(err));
    u->last_errno = err;
    cb_udp_unreachable(u, err, &t->remote, (cb_slice){u->arena + t->off, bytes});
    const uint64_t dropped = consume(u, bytes);
    u->stats.tx_dropped += dropped;
    cb_udp_count_drop(u->loop->turn.cells, err, dropped);
}

void cb_udp_send_queued(cb_udp *u) {
    while (u->first < u->count) {
        int n = build_batch(u);
        u->stats.tx_calls++;
        int sent = sendmmsg(u->fd, u->loop->udp_area->tx, (unsigned)n, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent > 0) {
            note_sent(u, sent);
        } else if (errno == EAGAIN) {
            u->blocked = true;
            cb_cells_add(u->loop->turn.cells, CB_C_UDP_BLOCKED, 1);
            cb_udp_watch(u);
            return;
        } else if (errno != EINTR) {
            const int err = errno;
            if (!cb_udp_take_errors(u)) note_failed(u, err); /* else the error was about an earlier packet */
        }
    }
    u->first = u->count = 0;
    u->filled = 0;
}

void cb_udp_flush(cb_udp *u) {
    if (u->closed || u->blocked) return;
    cb_defer_cancel(&u->defer);
    u->loop->udp_port->send(u);
}
