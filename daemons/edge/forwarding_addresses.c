/* VIPs are addresses of every host: without them on lo the kernel does not take what the datapath delivers. */
#include "forwarding.h"
#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <linux/if_addr.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

typedef struct place { /* an address */
    int family;
    uint8_t bytes[16];
    size_t len;
} place;

static bool read_address(place *p, const char *text) {
    *p = (place){.family = AF_INET, .len = 4};
    if (inet_pton(AF_INET, text, p->bytes) == 1) return true;
    *p = (place){.family = AF_INET6, .len = 16};
    return inet_pton(AF_INET6, text, p->bytes) == 1;
}

/* On any interface: somebody may prefer a dummy one. */
static bool is_here(const struct ifaddrs *all, const place *p) {
    for (const struct ifaddrs *a = all; a; a = a->ifa_next) {
        const struct sockaddr *sa = a->ifa_addr;
        if (!sa || sa->sa_family != p->family) continue;
        const void *bytes = p->family == AF_INET
                                ? (const void *)&((const struct sockaddr_in *)(const void *)sa)->sin_addr
                                : &((const struct sockaddr_in6 *)(const void *)sa)->sin6_addr;
        if (!memcmp(bytes, p->bytes, p->len)) return true;
    }
    return false;
}

/* RTM_NEWADDR (rtnetlink(7)); an errno value. */
static int add_address(const place *p) {
    struct {
        struct nlmsghdr head;
        struct ifaddrmsg address;
        uint8_t attributes[64];
    } ask = {.head = {.nlmsg_len = NLMSG_LENGTH(sizeof ask.address),
                      .nlmsg_type = RTM_NEWADDR,
                      .nlmsg_flags = NLM_F_REQUEST | NLM_F_CREATE | NLM_F_ACK},
             .address = {.ifa_family = (uint8_t)p->family,
                         .ifa_prefixlen = (uint8_t)(p->len * 8),
                         .ifa_flags = p->family == AF_INET6 ? IFA_F_NODAD : 0,
                         .ifa_scope = RT_SCOPE_UNIVERSE,
                         .ifa_index = if_nametoindex("lo")}};
    struct {
        struct nlmsghdr head;
        struct nlmsgerr error;
        uint8_t rest[256];
    } answer;
    for (int kind = IFA_ADDRESS; kind <= IFA_LOCAL; kind++) {
        struct rtattr *a = (struct rtattr *)(void *)((uint8_t *)&ask + NLMSG_ALIGN(ask.head.nlmsg_len));
        a->rta_type = (unsigned short)kind;
        a->rta_len = (unsigned short)RTA_LENGTH(p->len);
        memcpy(RTA_DATA(a), p->bytes, p->len);
        ask.head.nlmsg_len = NLMSG_ALIGN(ask.head.nlmsg_len) + RTA_ALIGN(a->rta_len);
    }
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE), error = 0;
    if (fd < 0 || send(fd, &ask, ask.head.nlmsg_len, 0) < 0 || recv(fd, &answer, sizeof answer, 0) < 0) error = errno;
    if (!error && answer.head.nlmsg_type == NLMSG_ERROR) error = -answer.error.error;
    if (fd >= 0) close(fd);
    return error == EEXIST ? 0 : error;
}

void edge_addresses_look(const edge *e, const edge_forwarding_conf *c) {
    const edge_forward_vip_conf *v = c->vips.at;
    struct ifaddrs *all = NULL;
    if (!c->vips.len || getifaddrs(&all) < 0) return;
    for (size_t i = 0; i < c->vips.len; i++) {
        place p;
        bool before = false;
        for (size_t k = 0; k < i; k++)
            before |= strcmp(v[k].address, v[i].address) == 0;
        if (before || !read_address(&p, v[i].address) || is_here(all, &p)) continue; /* prefixes are somebody else's */
        const int error = c->add_addresses ? add_address(&p) : 0;
        if (!c->add_addresses)
            edge_say_of(e->log, CB_LOG_WARN, "lb",
                        "VIP %s is no address of this host: put it on lo (ip address add %s dev lo), or set "
                        "add_addresses",
                        v[i].address, v[i].address);
        else if (error)
            edge_say_of(e->log, CB_LOG_ERROR, "lb", "VIP %s cannot be added to lo: %s", v[i].address, strerror(error));
        else
            edge_say_of(e->log, CB_LOG_INFO, "lb", "VIP %s was added to lo", v[i].address);
    }
    freeifaddrs(all);
}
