#include "lb/netlink.h"
#include <errno.h>
#include <linux/if.h>
#include <linux/if_arp.h>
#include <linux/inet_diag.h>
#include <linux/neighbour.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

/* TCP's states as the kernel numbers them (include/net/tcp_states.h): all but CLOSE (7) and LISTEN (10). */
enum { TCP_STATES = 0x1fff & ~(1 << 0 | 1 << 7 | 1 << 10), IPPROTO_OF_TCP = 6 };

/* ---- requests ---- */

/* Header and fixed part; attributes follow by put_attribute(). */
static size_t begin(uint8_t *out, uint16_t type, uint16_t flags, uint32_t seq, const void *fixed, size_t len) {
    const struct nlmsghdr h = {.nlmsg_len = (uint32_t)(sizeof h + len),
                               .nlmsg_type = type,
                               .nlmsg_flags = NLM_F_REQUEST | flags,
                               .nlmsg_seq = seq};
    memset(out, 0, CB_NL_REQUEST_MAX);
    memcpy(out, &h, sizeof h);
    memcpy(out + sizeof h, fixed, len);
    return sizeof h + NLMSG_ALIGN(len);
}

static size_t put_attribute(uint8_t *out, size_t at, uint16_t type, const void *value, size_t len) {
    const struct rtattr a = {.rta_len = (uint16_t)RTA_LENGTH(len), .rta_type = type};
    memcpy(out + at, &a, sizeof a);
    memcpy(out + at + RTA_LENGTH(0), value, len);
    at += RTA_SPACE(len);
    const uint32_t whole = (uint32_t)at;
    memcpy(out, &whole, sizeof whole); /* nlmsg_len comes first */
    return at;
}

static uint8_t af_of(int family) {
    return family == 4 ? AF_INET : AF_INET6;
}

static size_t bytes_of(int family) {
    return family == 4 ? 4 : 16;
}

size_t cb_nl_ask_route(uint8_t out[CB_NL_REQUEST_MAX], uint32_t seq, int family, const uint8_t *address) {
    const struct rtmsg r = {.rtm_family = af_of(family), .rtm_dst_len = (uint8_t)(8 * bytes_of(family))};
    size_t at = begin(out, RTM_GETROUTE, 0, seq, &r, sizeof r);
    return put_attribute(out, at, RTA_DST, address, bytes_of(family));
}

size_t cb_nl_ask_neighbour(uint8_t out[CB_NL_REQUEST_MAX], uint32_t seq, int family, const uint8_t *address,
                           uint32_t ifindex) {
    const struct ndmsg n = {.ndm_family = af_of(family), .ndm_ifindex = (int)ifindex};
    size_t at = begin(out, RTM_GETNEIGH, 0, seq, &n, sizeof n);
    return put_attribute(out, at, NDA_DST, address, bytes_of(family));
}

size_t cb_nl_use_neighbour(uint8_t out[CB_NL_REQUEST_MAX], uint32_t seq, int family, const uint8_t *address,
                           uint32_t ifindex) {
    const struct ndmsg n = {
        .ndm_family = af_of(family), .ndm_ifindex = (int)ifindex, .ndm_state = NUD_NONE, .ndm_flags = NTF_USE};
    size_t at = begin(out, RTM_NEWNEIGH, NLM_F_ACK | NLM_F_CREATE, seq, &n, sizeof n);
    return put_attribute(out, at, NDA_DST, address, bytes_of(family));
}

size_t cb_nl_ask_link(uint8_t out[CB_NL_REQUEST_MAX], uint32_t seq, uint32_t ifindex) {
    const struct ifinfomsg i = {.ifi_family = AF_UNSPEC, .ifi_index = (int)ifindex};
    return begin(out, RTM_GETLINK, 0, seq, &i, sizeof i);
}

size_t cb_nl_ask_sockets(uint8_t out[CB_NL_REQUEST_MAX], uint32_t seq, int family) {
    const struct inet_diag_req_v2 r = {
        .sdiag_family = af_of(family), .sdiag_protocol = IPPROTO_OF_TCP, .idiag_states = TCP_STATES};
    return begin(out, SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, seq, &r, sizeof r);
}

/* ---- answers ---- */

bool cb_nl_next(cb_slice *rest, cb_nl_message *out) {
    struct nlmsghdr h;
    if (rest->len < sizeof h) return false;
    memcpy(&h, rest->base, sizeof h);
    if (h.nlmsg_len < sizeof h || h.nlmsg_len > rest->len) return false;
    out->type = h.nlmsg_type;
    out->flags = h.nlmsg_flags;
    out->seq = h.nlmsg_seq;
    out->body = (cb_slice){rest->base + sizeof h, h.nlmsg_len - sizeof h};
    size_t step = NLMSG_ALIGN((size_t)h.nlmsg_len);
    if (step > rest->len) step = rest->len; /* the last one need not be padded */
    rest->base += step;
    rest->len -= step;
    return true;
}

int cb_nl_error(cb_slice body) {
    int32_t negative;
    if (body.len < sizeof negative) return EBADMSG;
    memcpy(&negative, body.base, sizeof negative);
    return negative > 0 || negative < -4095 ? EBADMSG : -negative;
}

typedef struct attribute {
    uint16_t type;
    cb_slice value;
} attribute;

/* Takes the next attribute off `rest`. False: none is left, or it does not fit. */
static bool next_attribute(cb_slice *rest, attribute *out) {
    struct rtattr a;
    if (rest->len < sizeof a) return false;
    memcpy(&a, rest->base, sizeof a);
    if (a.rta_len < sizeof a || a.rta_len > rest->len) return false;
    out->type = a.rta_type & NLA_TYPE_MASK;
    out->value = (cb_slice){rest->base + sizeof a, a.rta_len - sizeof a};
    size_t step = RTA_ALIGN((size_t)a.rta_len);
    if (step > rest->len) step = rest->len;
    rest->base += step;
    rest->len -= step;
    return true;
}

/* The fixed part of a message; what follows stays in *rest. */
static bool take_fixed(cb_slice *rest, const cb_nl_message *m, uint16_t type, void *out, size_t len) {
    if (m->type != type || m->body.len < len) return false;
    memcpy(out, m->body.base, len);
    const size_t step = NLMSG_ALIGN(len) < m->body.len ? NLMSG_ALIGN(len) : m->body.len;
    *rest = (cb_slice){m->body.base + step, m->body.len - step};
    return true;
}

static bool take(void *out, size_t len, cb_slice value) {
    if (value.len != len) return false;
    memcpy(out, value.base, len);
    return true;
}

/* The next hop: an address by itself, or (RTA_VIA) behind its family, which may be another one than the route's. */
static bool read_hop(cb_nl_route *out, uint16_t family, cb_slice value) {
    out->hop_family = family == AF_INET ? 4 : 6;
    if (family != AF_INET && family != AF_INET6) return false;
    return take(out->hop, bytes_of(out->hop_family), value);
}

static bool read_via(cb_nl_route *out, cb_slice value) {
    uint16_t family;
    if (value.len < sizeof family) return false;
    memcpy(&family, value.base, sizeof family);
    return read_hop(out, family, (cb_slice){value.base + sizeof family, value.len - sizeof family});
}

/* The address that the kernel would send from. */
static bool read_source(cb_nl_route *out, uint16_t family, cb_slice value) {
    out->source_family = family == AF_INET ? 4 : 6;
    return take(out->source, bytes_of(out->source_family), value);
}

static bool read_metrics(cb_nl_route *out, cb_slice rest) {
    attribute a;
    while (next_attribute(&rest, &a))
        if (a.type == RTAX_MTU && !take(&out->mtu, sizeof out->mtu, a.value)) return false;
    return rest.len == 0;
}

static bool read_route_attribute(cb_nl_route *out, const struct rtmsg *r, const attribute *a) {
    switch (a->type) {
    case RTA_OIF:
        return take(&out->ifindex, sizeof out->ifindex, a->value);
    case RTA_GATEWAY:
        return read_hop(out, r->rtm_family, a->value);
    case RTA_VIA:
        return read_via(out, a->value);
    case RTA_PREFSRC:
        return read_source(out, r->rtm_family, a->value);
    case RTA_METRICS:
        return read_metrics(out, a->value);
    default:
        return true;
    }
}

bool cb_nl_read_route(cb_nl_route *out, const cb_nl_message *m) {
    struct rtmsg r;
    cb_slice rest;
    attribute a;
    *out = (cb_nl_route){.way = CB_NL_NOWHERE};
    if (!take_fixed(&rest, m, RTM_NEWROUTE, &r, sizeof r)) return false;
    if (r.rtm_family != AF_INET && r.rtm_family != AF_INET6) return false;
    if (r.rtm_type == RTN_UNICAST) out->way = CB_NL_UNICAST;
    if (r.rtm_type == RTN_LOCAL) out->way = CB_NL_LOCAL;
    while (next_attribute(&rest, &a))
        if (!read_route_attribute(out, &r, &a)) return false;
    return rest.len == 0;
}

bool cb_nl_read_neighbour(cb_nl_neighbour *out, const cb_nl_message *m) {
    enum { USABLE = NUD_REACHABLE | NUD_STALE | NUD_DELAY | NUD_PROBE | NUD_PERMANENT };
    enum { FRESH = NUD_REACHABLE | NUD_DELAY | NUD_PROBE | NUD_PERMANENT };
    struct ndmsg n;
    cb_slice rest;
    attribute a;
    *out = (cb_nl_neighbour){.has_mac = false};
    if (!take_fixed(&rest, m, RTM_NEWNEIGH, &n, sizeof n)) return false;
    while (next_attribute(&rest, &a)) {
        if (a.type != NDA_LLADDR) continue;
        if (!take(out->mac, sizeof out->mac, a.value)) return false;
        out->has_mac = true;
    }
    out->valid = out->has_mac && (n.ndm_state & USABLE);
    out->fresh = out->has_mac && (n.ndm_state & FRESH);
    return rest.len == 0;
}

bool cb_nl_read_link(cb_nl_link *out, const cb_nl_message *m) {
    struct ifinfomsg i;
    cb_slice rest;
    attribute a;
    *out = (cb_nl_link){.up = false};
    if (!take_fixed(&rest, m, RTM_NEWLINK, &i, sizeof i)) return false;
    out->ifindex = (uint32_t)i.ifi_index;
    out->up = i.ifi_flags & IFF_UP;
    out->ethernet = i.ifi_type == ARPHRD_ETHER;
    while (next_attribute(&rest, &a)) {
        if (a.type == IFLA_MTU && !take(&out->mtu, sizeof out->mtu, a.value)) return false;
        if (a.type == IFLA_ADDRESS && out->ethernet && !take(out->mac, sizeof out->mac, a.value)) return false;
    }
    return rest.len == 0;
}

static void keep_address(uint8_t out[16], int family, const uint32_t address[4]) {
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    if (family == AF_INET6) {
        memcpy(out, address, 16);
        return;
    }
    memcpy(out, mapped, sizeof mapped);
    memcpy(out + sizeof mapped, address, 4);
}

bool cb_nl_read_socket(cb_nl_socket *out, const cb_nl_message *m) {
    struct inet_diag_msg d;
    cb_slice rest;
    memset(out, 0, sizeof *out);
    if (!take_fixed(&rest, m, SOCK_DIAG_BY_FAMILY, &d, sizeof d)) return false;
    if (d.idiag_family != AF_INET && d.idiag_family != AF_INET6) return false;
    keep_address(out->own, d.idiag_family, d.id.idiag_src);
    keep_address(out->peer, d.idiag_family, d.id.idiag_dst);
    memcpy(out->own_port, &d.id.idiag_sport, 2);
    memcpy(out->peer_port, &d.id.idiag_dport, 2);
    return true;
}
