/* The way to the members: routes, neighbours and links as the kernel has them. Part of libcb-xdp. */
#include "base/error.h"
#include "base/log.h"
#include "lb/forward_int.h"
#include <errno.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

enum { ANSWER_BYTES = 16384, ANSWER_MS = 500, LINKS = 16 };

int fw_netlink_open(int *fd, int protocol) {
    const struct timeval limit = {.tv_usec = ANSWER_MS * 1000};
    const int on = 1;
    if (*fd >= 0) return CB_OK;
    *fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol);
    if (*fd < 0) return cb_fail_errno(errno, "opening a netlink socket");
    (void)setsockopt(*fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    (void)setsockopt(*fd, SOL_NETLINK, NETLINK_EXT_ACK, &on, sizeof on);
    return CB_OK;
}

/* What one look at all members shares. */
typedef struct look {
    cb_forward *f;
    uint8_t *answer; /* ANSWER_BYTES */
    cb_nl_link links[LINKS];
    size_t links_n;
    uint32_t mtu; /* the least of all ways */
} look;

/* Sends a request and finds the answer to it: CB_OK with *out (which points into l->answer), the errno value (> 0) that
 * the kernel answers with, or a failure of the socket itself. */
static int ask(look *l, const uint8_t *request, size_t len, uint32_t seq, cb_nl_message *out) {
    if (send(l->f->routes, request, len, 0) != (ssize_t)len) return cb_fail_errno(errno, "asking for a route");
    for (;;) {
        ssize_t n = recv(l->f->routes, l->answer, ANSWER_BYTES, 0);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return cb_fail_errno(n < 0 ? errno : EPIPE, "reading the answer about a route");
        cb_slice rest = {l->answer, (size_t)n};
        while (cb_nl_next(&rest, out)) {
            if (out->seq != seq) continue;
            if (out->type != NLMSG_ERROR) return CB_OK;
            return cb_nl_error(out->body);
        }
    }
}

static const uint8_t *bytes_of(const uint8_t address[16], int family) {
    return family == 4 ? address + 12 : address;
}

static int ask_route(look *l, const fw_member_entry *m, cb_nl_route *out) {
    uint8_t request[CB_NL_REQUEST_MAX];
    cb_nl_message answer;
    const int family = fw_member_family(m);
    const uint32_t seq = ++l->f->seq;
    int rc = ask(l, request, cb_nl_ask_route(request, seq, family, bytes_of(m->address, family)), seq, &answer);
    if (rc) return rc;
    return cb_nl_read_route(out, &answer) ? CB_OK : EBADMSG;
}

static int ask_link(look *l, uint32_t ifindex, cb_nl_link *out) {
    uint8_t request[CB_NL_REQUEST_MAX];
    cb_nl_message answer;
    for (size_t i = 0; i < l->links_n; i++) {
        *out = l->links[i];
        if (out->ifindex == ifindex) return CB_OK;
    }
    const uint32_t seq = ++l->f->seq;
    int rc = ask(l, request, cb_nl_ask_link(request, seq, ifindex), seq, &answer);
    if (rc) return rc;
    if (!cb_nl_read_link(out, &answer)) return EBADMSG;
    if (l->links_n < LINKS) l->links[l->links_n++] = *out;
    return CB_OK;
}

/* Nothing is known of it: then *out is not valid. < 0: the socket failed. */
static int ask_neighbour(look *l, int family, const uint8_t *address, uint32_t ifindex, cb_nl_neighbour *out) {
    uint8_t request[CB_NL_REQUEST_MAX];
    cb_nl_message answer;
    const uint32_t seq = ++l->f->seq;
    int rc = ask(l, request, cb_nl_ask_neighbour(request, seq, family, address, ifindex), seq, &answer);
    *out = (cb_nl_neighbour){.has_mac = false};
    if (rc == CB_OK && !cb_nl_read_neighbour(out, &answer)) out->valid = false;
    return rc < 0 ? rc : CB_OK;
}

static int use_neighbour(look *l, int family, const uint8_t *address, uint32_t ifindex) {
    uint8_t request[CB_NL_REQUEST_MAX];
    cb_nl_message answer;
    const uint32_t seq = ++l->f->seq;
    return ask(l, request, cb_nl_use_neighbour(request, seq, family, address, ifindex), seq, &answer);
}

/* ---- one member ---- */

static void no_way(fw_member_entry *m, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void no_way(fw_member_entry *m, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(m->why, sizeof m->why, fmt, ap);
    va_end(ap);
    m->ifindex = 0;
}

static uint32_t least(uint32_t a, uint32_t b) {
    return !a ? b : !b || a < b ? a : b;
}

static void keep_way(look *l, fw_member_entry *m, const cb_nl_route *r, const cb_nl_link *link,
                     const cb_nl_neighbour *n) {
    const uint32_t told = m->mtu ? m->mtu : l->f->underlay_mtu;
    m->ifindex = r->ifindex;
    m->way_mtu = least(least(told, r->mtu), link->mtu);
    memcpy(m->next_hop, n->mac, sizeof m->next_hop);
    memcpy(m->source, link->mac, sizeof m->source);
    m->why[0] = '\0';
    l->mtu = least(l->mtu, m->way_mtu);
}

/* The route and the link are good for it, or `why` says what is wrong. */
static bool may_go(fw_member_entry *m, const cb_nl_route *r, const cb_nl_link *link) {
    char name[IF_NAMESIZE] = "?";
    (void)if_indextoname(r->ifindex, name);
    if (r->way == CB_NL_LOCAL)
        no_way(m, "the address is one of this host");
    else if (r->way != CB_NL_UNICAST || !r->ifindex)
        no_way(m, "there is no route");
    else if (!link->up)
        no_way(m, "%s is down", name);
    else if (!link->ethernet)
        no_way(m, "%s is no Ethernet", name);
    else if (r->hop_family && m->encapsulation == CB_FORWARD_MAC)
        no_way(m, "it is behind a router, and MAC rewriting reaches stations of a link only");
    else
        return true;
    return false;
}

static int find_way(look *l, fw_member_entry *m) {
    cb_nl_route r;
    cb_nl_link link = {.up = false};
    cb_nl_neighbour n;
    int rc = ask_route(l, m, &r);
    if (rc == CB_OK && r.ifindex) rc = ask_link(l, r.ifindex, &link);
    if (rc > 0) no_way(m, "there is no route: %s", strerrordesc_np(rc) ? strerrordesc_np(rc) : "?");
    if (rc) return rc < 0 ? rc : CB_OK;
    if (!may_go(m, &r, &link)) return CB_OK;
    const int family = r.hop_family ? r.hop_family : fw_member_family(m);
    const uint8_t *hop = r.hop_family ? r.hop : bytes_of(m->address, family);
    rc = ask_neighbour(l, family, hop, r.ifindex, &n);
    const bool known = n.valid;
    if (rc == CB_OK && !n.fresh) rc = use_neighbour(l, family, hop, r.ifindex);
    if (rc >= 0 && !known) rc = ask_neighbour(l, family, hop, r.ifindex, &n); /* it may have been quick */
    if (rc < 0) return rc;
    if (n.valid)
        keep_way(l, m, &r, &link, &n);
    else
        no_way(m, "its %s does not answer yet (%s)", r.hop_family ? "router" : "host", family == 4 ? "ARP" : "ND");
    return CB_OK;
}

/* ---- all ---- */

static int resolve_one(look *l, fw_member_entry *m) {
    const uint32_t before = m->ifindex;
    if (m->id == l->f->id) {
        m->why[0] = '\0';
        return 0;
    }
    int rc = find_way(l, m);
    if (rc < 0) return rc;
    if (before && !m->ifindex)
        cb_log_line(l->f->log, CB_LOG_WARN, "forward", "member %u cannot be reached: %s", (unsigned)m->id, m->why);
    if (!before && m->ifindex)
        cb_log_line(l->f->log, CB_LOG_INFO, "forward", "member %u can be reached", (unsigned)m->id);
    rc = fw_member_write(l->f, m);
    return rc < 0 ? rc : m->ifindex == 0;
}

static int resolve(cb_forward *f) {
    uint8_t answer[ANSWER_BYTES];
    look l = {.f = f, .answer = answer};
    int unresolved = 0;
    int rc = fw_netlink_open(&f->routes, NETLINK_ROUTE);
    for (size_t i = 0; i < f->members.n && rc >= 0; i++) {
        rc = resolve_one(&l, fw_member_at(f, i));
        if (rc > 0) unresolved++;
    }
    if (rc < 0) {
        if (f->routes >= 0) close(f->routes); /* what is left of an answer goes with it */
        f->routes = -1;
        return rc;
    }
    f->unresolved = (uint32_t)unresolved;
    if (l.mtu && !f->underlay_mtu)
        __atomic_store_n(&f->control->underlay_mtu, (uint16_t)least(l.mtu, UINT16_MAX), __ATOMIC_RELAXED);
    return unresolved;
}

int cb_forward_resolve(cb_forward *f) {
    FW_LOCK(f);
    fw_attach_watch(f);
    int rc = resolve(f);
    FW_UNLOCK(f);
    return rc;
}
