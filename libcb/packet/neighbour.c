#include "packet/neighbour.h"
#include "base/error.h"
#include "lb/netlink.h"
#include <errno.h>
#include <linux/netlink.h>
#include <string.h>
#include <sys/socket.h>

enum { ANSWER = 4096, TRIES = 8 };

int cb_neighbour_open(cb_neighbours *n) {
    n->fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    return n->fd < 0 ? cb_fail_errno(errno, "opening a netlink socket") : CB_OK;
}

/* The kernel answers before send() returns; what is left of an earlier question is passed over. */
static bool ask(const cb_neighbours *n, const uint8_t *question, size_t len, uint8_t *bytes, cb_nl_message *out) {
    if (send(n->fd, question, len, MSG_DONTWAIT) < 0) return false;
    for (int i = 0; i < TRIES; i++) {
        const ssize_t got = recv(n->fd, bytes, ANSWER, MSG_DONTWAIT);
        if (got < 0) return false;
        cb_slice rest = {bytes, (size_t)got};
        if (cb_nl_next(&rest, out) && out->seq == n->sequence) return true;
    }
    return false;
}

typedef struct hop {
    uint32_t interface;
    int family;
    const uint8_t *ip;
} hop;

/* The next hop to remote. False: there is none, or it is not a single machine elsewhere. */
static bool ask_route(cb_neighbours *n, const cb_packet_addr *remote, cb_nl_route *route, hop *next) {
    uint8_t question[CB_NL_REQUEST_MAX], bytes[ANSWER];
    cb_nl_message m;
    const size_t len = cb_nl_ask_route(question, ++n->sequence, remote->family, remote->ip);
    if (!ask(n, question, len, bytes, &m) || !cb_nl_read_route(route, &m) || route->way != CB_NL_UNICAST) return false;
    *next = (hop){route->ifindex, remote->family, remote->ip};
    if (route->hop_family) *next = (hop){route->ifindex, route->hop_family, route->hop};
    return true;
}

static bool ask_neighbour(cb_neighbours *n, const hop *next, cb_next_hop *out) {
    uint8_t question[CB_NL_REQUEST_MAX], bytes[ANSWER];
    cb_nl_message m;
    cb_nl_neighbour found;
    const size_t len = cb_nl_ask_neighbour(question, ++n->sequence, next->family, next->ip, next->interface);
    if (!ask(n, question, len, bytes, &m) || !cb_nl_read_neighbour(&found, &m) || !found.valid) return false;
    memcpy(out->mac, found.mac, sizeof out->mac);
    out->old = !found.fresh;
    return true;
}

/* Makes the kernel look for it, as a packet would. What it says to that is passed over by the next question. */
static void look_for(cb_neighbours *n, const hop *next) {
    uint8_t question[CB_NL_REQUEST_MAX];
    const size_t len = cb_nl_use_neighbour(question, ++n->sequence, next->family, next->ip, next->interface);
    (void)!send(n->fd, question, len, MSG_DONTWAIT);
}

void cb_neighbour_ask(cb_neighbours *n, uint32_t interface, const cb_packet_addr *remote, cb_next_hop *out) {
    cb_nl_route route = {.way = CB_NL_UNICAST};
    hop next = {remote->scope, remote->family, remote->ip};
    *out = (cb_next_hop){.here = false};
    if (!remote->scope && !ask_route(n, remote, &route, &next)) return; /* link-local: on that link */
    if (next.interface != interface) return;
    out->mtu = route.mtu;
    out->sourced = route.source_family == remote->family;
    memcpy(out->source, route.source, sizeof out->source);
    out->here = ask_neighbour(n, &next, out);
    if (n->look && (!out->here || out->old)) look_for(n, &next);
}
