/* What the datapath asks the kernel's tables, and what it makes of answers. */
#include <criterion/criterion.h>

#ifndef CB_HAVE_XDP

Test(netlink, needs_libcb_xdp) {
    cr_skip_test("built without libcb-xdp (libbpf, clang, bpftool)");
}

#else

#include "lb/netlink.h"
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if.h>
#include <linux/if_arp.h>
#include <linux/inet_diag.h>
#include <linux/neighbour.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* ---- messages made by hand ---- */

typedef struct message {
    _Alignas(8) uint8_t bytes[1024];
    size_t len;
} message;

static void start(message *m, uint16_t type, const void *fixed, size_t len) {
    memset(m, 0, sizeof *m);
    const struct nlmsghdr h = {.nlmsg_len = (uint32_t)(sizeof h + len), .nlmsg_type = type, .nlmsg_seq = 7};
    memcpy(m->bytes, &h, sizeof h);
    memcpy(m->bytes + sizeof h, fixed, len);
    m->len = sizeof h + NLMSG_ALIGN(len);
}

static void add(message *m, uint16_t type, const void *value, size_t len) {
    const struct rtattr a = {.rta_len = (uint16_t)RTA_LENGTH(len), .rta_type = type};
    memcpy(m->bytes + m->len, &a, sizeof a);
    memcpy(m->bytes + m->len + sizeof a, value, len);
    m->len += RTA_SPACE(len);
    const uint32_t whole = (uint32_t)m->len;
    memcpy(m->bytes, &whole, sizeof whole);
}

static cb_nl_message first(const message *m) {
    cb_slice rest = {m->bytes, m->len};
    cb_nl_message out;
    cr_assert(cb_nl_next(&rest, &out));
    cr_assert(out.seq == 7 && rest.len == 0);
    return out;
}

static const uint8_t mac[6] = {2, 0, 0, 0, 0, 9};
static const uint8_t router4[4] = {192, 0, 2, 254}, router6[16] = {0x20, 1, 0xd, 0xb8, [15] = 1};

static message route(uint8_t type, uint32_t ifindex) {
    message m;
    const struct rtmsg r = {.rtm_family = AF_INET, .rtm_type = type};
    start(&m, RTM_NEWROUTE, &r, sizeof r);
    if (ifindex) add(&m, RTA_OIF, &ifindex, sizeof ifindex);
    return m;
}

Test(netlink, routes_say_where_a_packet_leaves_and_who_is_next) {
    cb_nl_route r;
    message m = route(RTN_UNICAST, 4);
    cb_nl_message one = first(&m);
    cr_assert(cb_nl_read_route(&r, &one));
    cr_expect(r.way == CB_NL_UNICAST && r.ifindex == 4 && r.hop_family == 0 && r.mtu == 0);

    const uint32_t mtu = 1400, lock = 1;
    message metrics = {.len = 0};
    start(&metrics, 0, "", 0);
    add(&metrics, RTAX_LOCK, &lock, 4);
    add(&metrics, RTAX_MTU, &mtu, 4);
    add(&m, RTA_GATEWAY, router4, 4);
    add(&m, RTA_METRICS | NLA_F_NESTED, metrics.bytes + NLMSG_HDRLEN, metrics.len - NLMSG_HDRLEN);
    one = first(&m);
    cr_assert(cb_nl_read_route(&r, &one));
    cr_expect(r.hop_family == 4 && !memcmp(r.hop, router4, 4) && r.mtu == 1400 && !r.source_family);
    add(&m, RTA_PREFSRC, "\xc0\0\2\7", 4);
    one = first(&m);
    cr_assert(cb_nl_read_route(&r, &one));
    cr_expect(r.source_family == 4 && !memcmp(r.source, "\xc0\0\2\7", 4));
    add(&m, RTA_PREFSRC, router6, 16); /* of another family */
    one = first(&m);
    cr_expect(!cb_nl_read_route(&r, &one));

    m = route(RTN_UNICAST, 4); /* IPv4 by an IPv6 router (RFC 5549) */
    uint8_t via[18] = {AF_INET6 & 255, AF_INET6 >> 8};
    const uint16_t family = AF_INET6;
    memcpy(via, &family, 2);
    memcpy(via + 2, router6, 16);
    add(&m, RTA_VIA, via, sizeof via);
    one = first(&m);
    cr_assert(cb_nl_read_route(&r, &one));
    cr_expect(r.hop_family == 6 && !memcmp(r.hop, router6, 16));

    m = route(RTN_LOCAL, 1);
    one = first(&m);
    cr_expect(cb_nl_read_route(&r, &one) && r.way == CB_NL_LOCAL);
    m = route(RTN_UNREACHABLE, 0);
    one = first(&m);
    cr_expect(cb_nl_read_route(&r, &one) && r.way == CB_NL_NOWHERE);
}

Test(netlink, neighbours_are_usable_by_their_state) {
    static const struct {
        uint16_t state;
        bool valid, fresh;
    } table[] = {{NUD_REACHABLE, true, true},   {NUD_STALE, true, false},    {NUD_DELAY, true, true},
                 {NUD_PROBE, true, true},       {NUD_PERMANENT, true, true}, {NUD_FAILED, false, false},
                 {NUD_INCOMPLETE, false, false}};
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        const struct ndmsg n = {.ndm_family = AF_INET, .ndm_state = table[i].state};
        cb_nl_neighbour out;
        message m;
        start(&m, RTM_NEWNEIGH, &n, sizeof n);
        cb_nl_message one = first(&m);
        cr_expect(cb_nl_read_neighbour(&out, &one) && !out.valid, "without a MAC, state %d", table[i].state);
        add(&m, NDA_LLADDR, mac, sizeof mac);
        one = first(&m);
        cr_assert(cb_nl_read_neighbour(&out, &one));
        cr_expect(out.valid == table[i].valid && out.fresh == table[i].fresh, "state %d", table[i].state);
        cr_expect(!memcmp(out.mac, mac, 6));
        add(&m, NDA_LLADDR, mac, 4); /* InfiniBand and the like have other lengths */
        one = first(&m);
        cr_expect(!cb_nl_read_neighbour(&out, &one));
    }
}

Test(netlink, links_and_sockets) {
    const struct ifinfomsg i = {.ifi_index = 9, .ifi_flags = IFF_UP, .ifi_type = ARPHRD_ETHER};
    const uint32_t mtu = 9000;
    cb_nl_link link;
    message m;
    start(&m, RTM_NEWLINK, &i, sizeof i);
    add(&m, IFLA_MTU, &mtu, 4);
    add(&m, IFLA_ADDRESS, mac, 6);
    cb_nl_message one = first(&m);
    cr_assert(cb_nl_read_link(&link, &one));
    cr_expect(link.ifindex == 9 && link.mtu == 9000 && link.up && link.ethernet && !memcmp(link.mac, mac, 6));

    struct inet_diag_msg d = {.idiag_family = AF_INET};
    d.id.idiag_sport = htons(443);
    d.id.idiag_dport = htons(50000);
    d.id.idiag_src[0] = htonl(0xc6336401);
    d.id.idiag_dst[0] = htonl(0xcb007109);
    cb_nl_socket s;
    start(&m, SOCK_DIAG_BY_FAMILY, &d, sizeof d);
    one = first(&m);
    cr_assert(cb_nl_read_socket(&s, &one));
    cr_expect(!memcmp(s.own, "\0\0\0\0\0\0\0\0\0\0\xff\xff\xc6\x33\x64\x01", 16));
    cr_expect(!memcmp(s.peer, "\0\0\0\0\0\0\0\0\0\0\xff\xff\xcb\x00\x71\x09", 16));
    cr_expect(!memcmp(s.own_port, "\x01\xbb", 2) && !memcmp(s.peer_port, "\xc3\x50", 2));
    d.idiag_family = AF_UNIX;
    start(&m, SOCK_DIAG_BY_FAMILY, &d, sizeof d);
    one = first(&m);
    cr_expect(!cb_nl_read_socket(&s, &one));
}

Test(netlink, what_is_cut_short_or_too_long_is_refused) {
    message m = route(RTN_UNICAST, 4);
    add(&m, RTA_GATEWAY, router4, 4);
    cb_nl_route r;
    cb_nl_message out;
    for (size_t len = 0; len < m.len; len++) {
        cb_slice rest = {m.bytes, len};
        cr_expect(!cb_nl_next(&rest, &out), "%zu of %zu bytes", len, m.len);
        if (len < sizeof(struct nlmsghdr)) continue;
        message shorter = m; /* the header agrees, the attributes do not */
        const uint32_t whole = (uint32_t)len;
        memcpy(shorter.bytes, &whole, 4);
        rest = (cb_slice){shorter.bytes, len};
        cr_assert(cb_nl_next(&rest, &out));
        bool clean =
            len == NLMSG_LENGTH(sizeof(struct rtmsg)) || len == NLMSG_LENGTH(sizeof(struct rtmsg)) + RTA_SPACE(4);
        cr_expect_eq(cb_nl_read_route(&r, &out), clean, "%zu of %zu bytes", len, m.len);
    }
    m = route(RTN_UNICAST, 4);
    add(&m, RTA_GATEWAY, router6, 16); /* of another family than the route */
    out = first(&m);
    cr_expect(!cb_nl_read_route(&r, &out));
    m = route(RTN_UNICAST, 4);
    add(&m, RTA_VIA, "x", 1);
    out = first(&m);
    cr_expect(!cb_nl_read_route(&r, &out));
    cr_expect_eq(cb_nl_error((cb_slice){(const uint8_t *)"ab", 2}), EBADMSG);
    const int32_t refused = -EPERM, positive = 5;
    cr_expect_eq(cb_nl_error((cb_slice){(const uint8_t *)&refused, 4}), EPERM);
    cr_expect_eq(cb_nl_error((cb_slice){(const uint8_t *)&positive, 4}), EBADMSG);
}

/* ---- requests, answered by the kernel that runs: asking for the loopback needs no right ---- */

static cb_nl_message ask(int protocol, const uint8_t *request, size_t len, uint8_t answer[8192]) {
    cb_nl_message m;
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol);
    cr_assert_eq(send(fd, request, len, 0), (ssize_t)len);
    ssize_t n = recv(fd, answer, 8192, 0);
    cr_assert(n > 0);
    close(fd);
    cb_slice rest = {answer, (size_t)n};
    cr_assert(cb_nl_next(&rest, &m));
    return m;
}

Test(netlink, the_kernel_understands_the_requests) {
    static const uint8_t loopback4[4] = {127, 0, 0, 1}, loopback6[16] = {[15] = 1};
    uint8_t request[CB_NL_REQUEST_MAX], answer[8192];
    cb_nl_route r;
    cb_nl_message m = ask(NETLINK_ROUTE, request, cb_nl_ask_route(request, 7, 4, loopback4), answer);
    cr_assert(m.seq == 7 && cb_nl_read_route(&r, &m));
    cr_expect(r.way == CB_NL_LOCAL);
    m = ask(NETLINK_ROUTE, request, cb_nl_ask_route(request, 8, 6, loopback6), answer);
    if (m.type != NLMSG_ERROR) cr_expect(cb_nl_read_route(&r, &m) && r.way == CB_NL_LOCAL); /* no IPv6: an error */
    cb_nl_link link;
    m = ask(NETLINK_ROUTE, request, cb_nl_ask_link(request, 9, r.ifindex ? r.ifindex : 1), answer);
    cr_assert(cb_nl_read_link(&link, &m));
    cr_expect(!link.ethernet && link.mtu > 0);
    m = ask(NETLINK_ROUTE, request, cb_nl_ask_neighbour(request, 10, 4, (const uint8_t *)"\xc0\0\2\1", 1), answer);
    cr_assert_eq(m.type, NLMSG_ERROR, "a neighbour on the loopback?");
    cr_expect_eq(cb_nl_error(m.body), ENOENT);
}

Test(netlink, sockets_of_the_kernel_are_read) {
    uint8_t request[CB_NL_REQUEST_MAX], answer[8192];
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)}, c;
    socklen_t len = sizeof a;
    int listener = socket(AF_INET, SOCK_STREAM, 0), client = socket(AF_INET, SOCK_STREAM, 0);
    cr_assert_eq(bind(listener, (struct sockaddr *)&a, sizeof a), 0);
    cr_assert_eq(listen(listener, 1), 0);
    cr_assert_eq(getsockname(listener, (struct sockaddr *)&a, &len), 0);
    cr_assert_eq(connect(client, (struct sockaddr *)&a, sizeof a), 0);
    len = sizeof c;
    cr_assert_eq(getsockname(client, (struct sockaddr *)&c, &len), 0);
    int found = 0, fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
    size_t n = cb_nl_ask_sockets(request, 3, 4);
    cr_assert_eq(send(fd, request, n, 0), (ssize_t)n);
    for (bool over = false; !over;) {
        ssize_t got = recv(fd, answer, sizeof answer, 0);
        cr_assert(got > 0);
        cb_slice rest = {answer, (size_t)got};
        cb_nl_message m;
        while (cb_nl_next(&rest, &m)) {
            cb_nl_socket s;
            over = over || m.type == NLMSG_DONE;
            cr_assert_neq(m.type, NLMSG_ERROR);
            if (!cb_nl_read_socket(&s, &m)) continue;
            found += !memcmp(s.own_port, &a.sin_port, 2) && !memcmp(s.peer_port, &c.sin_port, 2) &&
                     !memcmp(s.own + 12, &a.sin_addr, 4);
        }
        cr_assert_eq(rest.len, 0, "the end of a datagram cannot be read");
    }
    cr_expect_eq(found, 1, "the accepted side of our connection, and no listener");
    close(fd);
    close(client);
    close(listener);
}

#endif
