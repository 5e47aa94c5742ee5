/* A check by an ICMP echo request: by a ping socket where the kernel lets us have one, else by a raw one. F3. */
#include "base/error.h"
#include "http/dial.h"
#include "lb/probe.h"
#include "lb/probe_wire.h"
#include <errno.h>
#include <linux/icmp.h>
#include <netinet/icmp6.h>
#include <netinet/ip.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PACKETS_A_TURN = 16 };

typedef struct icmp {
    cb_probe *probe;
    cb_lookup *lookup;
    cb_watch *watch;
    cb_addr at;
    cb_icmp_echo echo;
    int fd;
} icmp;

static const char *whom(const icmp *i, char out[CB_ADDR_TEXT]) {
    return cb_addr_host(&i->at, out);
}

static int no_right(void) {
    return cb_fail(CB_EPERM, "this process has no right to send ICMP: net.ipv4.ping_group_range has to include its "
                             "group (also for version 6), or it needs CAP_NET_RAW");
}

static int open_socket(icmp *i) {
    const int family = i->at.sa.sa_family, protocol = family == AF_INET ? IPPROTO_ICMP : IPPROTO_ICMPV6;
    const int flags = SOCK_NONBLOCK | SOCK_CLOEXEC;
    i->fd = socket(family, SOCK_DGRAM | flags, protocol);
    if (i->fd >= 0) return CB_OK;
    i->fd = socket(family, SOCK_RAW | flags, protocol);
    i->echo.raw = true;
    if (i->fd >= 0) return CB_OK;
    return errno == EPERM || errno == EACCES ? no_right() : cb_fail_errno(errno, "opening an ICMP socket");
}

/* A raw socket hears everything: only replies and errors are of use. Without a filter it works as well. */
static void set_filter(const icmp *i) {
    if (!i->echo.raw) return;
    if (i->echo.v6) {
        struct icmp6_filter f;
        ICMP6_FILTER_SETBLOCKALL(&f);
        ICMP6_FILTER_SETPASS(ICMP6_ECHO_REPLY, &f);
        ICMP6_FILTER_SETPASS(ICMP6_DST_UNREACH, &f);
        (void)setsockopt(i->fd, IPPROTO_ICMPV6, ICMP6_FILTER, &f, sizeof f);
    } else {
        const struct icmp_filter f = {.data = ~(1u << ICMP_ECHOREPLY | 1u << ICMP_DEST_UNREACH)};
        (void)setsockopt(i->fd, SOL_RAW, ICMP_FILTER, &f, sizeof f);
    }
}

/* A ping socket tells errors of the way only to who asks for them. */
static void ask_for_errors(const icmp *i) {
    const int one = 1;
    if (i->echo.v6)
        (void)setsockopt(i->fd, IPPROTO_IPV6, IPV6_RECVERR, &one, sizeof one);
    else
        (void)setsockopt(i->fd, IPPROTO_IP, IP_RECVERR, &one, sizeof one);
}

static void judge(const icmp *i, cb_slice packet) {
    char text[CB_ADDR_TEXT], took[24];
    int code = 0;
    const int answer = cb_icmp_read(&i->echo, packet, &code);
    cb_probe_took(i->probe, took);
    if (answer == CB_ICMP_REPLY) cb_probe_over(i->probe, true, "%s replied after %s", whom(i, text), took);
    if (answer == CB_ICMP_UNREACHABLE)
        cb_probe_over(i->probe, false, "%s is unreachable (ICMP code %d) after %s", whom(i, text), code, took);
}

static void on_readable(cb_watch *w, unsigned events, void *user) {
    icmp *i = user;
    uint8_t bytes[512];
    char text[CB_ADDR_TEXT];
    (void)w, (void)events;
    for (int k = 0; k < PACKETS_A_TURN && !i->probe->is_over; k++) {
        const ssize_t n = recv(i->fd, bytes, sizeof bytes, 0);
        if (n >= 0) {
            judge(i, (cb_slice){bytes, (size_t)n});
            continue;
        }
        if (errno == EAGAIN || errno == EINTR) return;
        cb_fail_errno(errno, "ICMP echo to %s", whom(i, text));
        cb_probe_failed(i->probe);
    }
}

static int ask(icmp *i) {
    uint8_t out[CB_ICMP_ECHO_BYTES];
    char text[CB_ADDR_TEXT];
    i->echo.v6 = i->at.sa.sa_family == AF_INET6;
    int rc = cb_loop_random(i->probe->loop, i->echo.token, sizeof i->echo.token);
    if (rc == CB_OK) rc = cb_loop_random(i->probe->loop, &i->echo.id, sizeof i->echo.id);
    if (rc == CB_OK) rc = cb_loop_random(i->probe->loop, &i->echo.seq, sizeof i->echo.seq);
    if (rc == CB_OK) rc = open_socket(i);
    if (rc < 0) return rc;
    set_filter(i);
    ask_for_errors(i);
    cb_addr_set_port(&i->at, 0);
    if (connect(i->fd, &i->at.sa, cb_addr_len(&i->at)) < 0)
        return cb_fail_errno(errno, "ICMP echo to %s", whom(i, text));
    cb_icmp_request(out, &i->echo);
    if (send(i->fd, out, sizeof out, MSG_NOSIGNAL) < 0) return cb_fail_errno(errno, "ICMP echo to %s", whom(i, text));
    return cb_watch_new(&i->watch, i->probe->loop, i->fd, CB_READABLE, on_readable, i);
}

static void on_name(int rc, const cb_host_address *at, size_t n, void *user) {
    icmp *i = user;
    i->lookup = NULL;
    (void)n;
    if (rc == CB_OK) cb_dial_addr(&i->at, at, 0);
    if (rc == CB_OK) rc = ask(i);
    if (rc < 0) cb_probe_failed(i->probe);
}

static int icmp_begin(cb_probe *p) {
    icmp *i = cb_mem_new(p->alloc, sizeof *i);
    if (!i) return cb_fail(CB_ENOMEM, "no memory for a check");
    i->probe = p;
    i->fd = -1;
    p->state = i;
    return cb_resolver_lookup(&i->lookup, p->resolver, p->conf->host, CB_FAMILY_ANY, on_name, i);
}

static void icmp_end(cb_probe *p) {
    icmp *i = p->state;
    if (!i) return;
    cb_lookup_cancel(i->lookup);
    cb_watch_free(i->watch);
    if (i->fd >= 0) close(i->fd);
    cb_mem_free(p->alloc, i);
    p->state = NULL;
}

const cb_probe_kind cb_probe_icmp = {.name = "icmp", .begin = icmp_begin, .end = icmp_end, .needs_address = true};
