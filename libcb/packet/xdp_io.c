/* A cb_packet_io over AF_XDP: datagrams from frames and into frames, beside a UDP socket for all that AF_XDP cannot do.
 * Part of libcb-xdp. */
#include "packet/xdp_io.h"
#include "base/addr.h"
#include "base/error.h"
#include "base/opts.h"
#include "lb/mix.h"
#include "packet/frame.h"
#include "packet/peers.h"
#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#define SECOND ((cb_time)1000000000)

enum {
    LEARNT_S = 30, /* an answer goes where the question came from */
    ROUTE_S = 1,   /* how long the kernel's word is good */
    UNKNOWN_MS = 20,
    PAYLOAD_AT = 64, /* in a chunk: FRAME_HEADERS, and aligned */
    TTL = 64
};
_Static_assert((int)PAYLOAD_AT >= (int)FRAME_HEADERS, "headers fit before the payload");

/* ---- who a datagram is from ---- */

static void learn(xdp_io *x, const frame_udp *u) {
    const cb_time now = cb_loop_now(x->loop);
    cb_peer_way *w = cb_peers_find(&x->peers, &u->remote, now, true);
    memcpy(w->learnt_mac, u->source_mac, sizeof w->learnt_mac);
    w->learnt_until = now + LEARNT_S * SECOND;
}

static bool link_local(const cb_packet_addr *a) {
    return a->family == 6 && a->ip[0] == 0xfe && (a->ip[1] & 0xc0) == 0x80;
}

static bool for_us(const xdp_io *x, const frame_udp *u) {
    if (u->local.port != x->local.port) return false;
    return x->any || (u->local.family == x->local.family && memcmp(u->local.ip, x->local.ip, 16) == 0);
}

/* A frame of the program: true when it holds a datagram for us. */
static bool read_frame(xdp_io *x, const cb_xsk_frame *f, frame_udp *u) {
    switch (frame_read(u, f->data, f->len, x->verify)) {
    case FRAME_OK:
        if (for_us(x, u)) return true;
        x->counts.xdp_other++;
        return false;
    case FRAME_CHECKSUM:
        x->counts.xdp_checksum++;
        return false;
    case FRAME_FRAGMENT:
    case FRAME_OTHER:
        x->counts.xdp_other++;
        return false;
    default:
        x->counts.xdp_malformed++;
        return false;
    }
}

/* False: the user has closed everything. */
static bool deliver(xdp_io *x, const cb_xsk_frame *f) {
    frame_udp u;
    if (!read_frame(x, f, &u)) {
        cb_xsk_release(x->xsk, f);
        return true;
    }
    cb_packet p = {.size = sizeof p,
                   .data = u.payload,
                   .len = u.len,
                   .room = f->room - (size_t)(u.payload - f->data),
                   .local = u.local,
                   .remote = u.remote,
                   .ecn = u.ecn,
                   .path = CB_PACKET_XDP,
                   .token = x};
    if (link_local(&p.remote)) p.remote.scope = x->interface;
    if (link_local(&p.local)) p.local.scope = x->interface;
    learn(x, &u);
    x->counts.xdp_rx_packets++;
    x->counts.xdp_rx_bytes += u.len;
    x->current = f;
    x->current_mac = u.source_mac;
    if (!cb_packet_io_deliver(x->io, &p)) return false;
    if (x->current) cb_xsk_release(x->xsk, f); /* it was not answered in its own frame */
    x->current = NULL;
    return true;
}

static void on_frames(cb_xsk *xsk, const cb_xsk_frame *frames, size_t n, void *user) {
    (void)xsk;
    for (size_t i = 0; i < n; i++)
        if (!deliver(user, &frames[i])) return;
}

static void on_frames_end(cb_xsk *xsk, void *user) {
    (void)xsk;
    cb_packet_io_batch_end(((xdp_io *)user)->io);
}

static void on_frames_writable(cb_xsk *xsk, void *user) {
    (void)xsk;
    cb_packet_io_writable(((xdp_io *)user)->io);
}

static void on_frames_down(cb_xsk *xsk, int rc, void *user) {
    xdp_io *x = user;
    (void)xsk;
    x->down = true;
    cb_packet_io_down(x->io, rc);
}

/* ---- what the socket beside it gets ---- */

static void on_socket_packet(cb_packet_io *socket, const cb_packet *p, void *user) {
    (void)socket;
    cb_packet_io_deliver(((xdp_io *)user)->io, p);
}

static void on_socket_end(cb_packet_io *socket, void *user) {
    (void)socket;
    cb_packet_io_batch_end(((xdp_io *)user)->io);
}

static void on_socket_writable(cb_packet_io *socket, void *user) {
    (void)socket;
    cb_packet_io_writable(((xdp_io *)user)->io);
}

static int by_socket(xdp_io *x, const cb_packet_addr *local, const cb_packet_addr *remote, uint32_t ecn,
                     cb_slice data) {
    x->counts.xdp_unresolved++;
    if (x->socket) return cb_packet_io_send(x->socket, local, remote, ecn, data);
    x->counts.tx_dropped++;
    return CB_OK;
}

/* ---- where a datagram goes ---- */

/* What the kernel's tables say, asked again when that is old. NULL: nothing of use. */
static const cb_peer_way *route_to(xdp_io *x, const cb_packet_addr *remote) {
    const cb_time now = cb_loop_now(x->loop);
    cb_peer_way *w = cb_peers_find(&x->peers, remote, now, true);
    if (now < w->route_until) return w->routed ? w : NULL;
    cb_next_hop hop;
    cb_neighbour_ask(&x->netlink, x->interface, remote, &hop);
    w->routed = hop.here;
    w->route_until = now + (hop.here ? ROUTE_S * SECOND : UNKNOWN_MS * (SECOND / 1000));
    w->route_mtu = hop.mtu && hop.mtu < x->mtu ? hop.mtu : x->mtu;
    memcpy(w->route_mac, hop.mac, sizeof w->route_mac);
    if (hop.sourced)
        memcpy(w->source, hop.source, sizeof w->source);
    else
        w->routed = w->routed && !x->any;
    /* Nobody heard of it for a while: this one goes through the kernel, which then asks whether it is still there. */
    return w->routed && !(hop.old && x->socket) ? w : NULL;
}

static bool own_address(const xdp_io *x, const cb_packet_addr *a) {
    for (uint32_t i = 0; i < x->n_own; i++)
        if (x->own[i].family == a->family && memcmp(x->own[i].ip, a->ip, 16) == 0) return true;
    return false;
}

/* Fills the source. False: only the kernel can say it, or may refuse it. */
static bool find_source(const xdp_io *x, const cb_packet_addr *local, const cb_peer_way *route, frame_head *h) {
    const uint8_t family = h->remote.family;
    if (local) {
        if (local->family != family || !own_address(x, local)) return false;
        h->local = *local;
    } else if (!x->any) {
        if (x->local.family != family) return false;
        h->local = x->local;
    } else if (route) {
        h->local = (cb_packet_addr){.family = family};
        memcpy(h->local.ip, route->source, sizeof h->local.ip);
    } else {
        return false;
    }
    h->local.port = x->local.port;
    return true;
}

/* Headers for a datagram of `total` bytes with IP header, to h->remote and from h->local if that is known. mac: where
 * the peer was heard from just now, or NULL. False: there is no way by AF_XDP. */
static bool find_way(xdp_io *x, const cb_packet_addr *local, const uint8_t *mac, size_t total, frame_head *h) {
    const bool small = total <= FRAME_IP_MIN_MTU; /* fits each path, or may be cut by a router of IPv4 */
    if (total > x->mtu || (h->remote.scope && h->remote.scope != x->interface)) return false;
    if (small && !mac && (local || !x->any)) {
        const cb_peer_way *w = cb_peers_find(&x->peers, &h->remote, cb_loop_now(x->loop), false);
        if (w && cb_loop_now(x->loop) < w->learnt_until) mac = w->learnt_mac;
    }
    const cb_peer_way *route = small && mac ? NULL : route_to(x, &h->remote);
    if (!(small && mac) && (!route || total > route->route_mtu)) return false;
    if (!h->local.family && !find_source(x, local, route, h)) return false;
    memcpy(h->to_mac, mac ? mac : route->route_mac, sizeof h->to_mac);
    memcpy(h->from_mac, cb_xsk_mac(x->xsk), sizeof h->from_mac);
    h->may_fragment = small && !x->no_fragment;
    h->ttl = TTL;
    h->id = (uint16_t)cb_lb_mix(x->seed + x->sent++);
    uint64_t word;
    memcpy(&word, h->remote.ip + 8, sizeof word);
    h->flow = (uint32_t)cb_lb_mix(x->seed ^ word ^ h->remote.port) & 0xfffff;
    return true;
}

static size_t ip_bytes(uint8_t family, size_t len) {
    return len + frame_headers(family) - FRAME_ETH;
}

/* The frame is the kernel's when this returns 1. */
static int send_frame(xdp_io *x, const cb_xsk_frame *of, uint8_t *payload, size_t len, const frame_head *h) {
    const uint32_t head = frame_headers(h->remote.family);
    const cb_xsk_frame f = {.data = payload - head, .len = (uint32_t)len + head, .chunk = of->chunk};
    frame_write(payload, (uint32_t)len, h);
    int n = cb_xsk_send(x->xsk, &f, 1);
    if (n == 0) {
        cb_xsk_flush(x->xsk);
        n = cb_xsk_send(x->xsk, &f, 1);
    }
    if (n != 1) return n;
    x->counts.xdp_tx_packets++;
    x->counts.xdp_tx_bytes += len;
    return 1;
}

/* ---- the driver ---- */

static int xdp_reply(void *self, const cb_packet *p, size_t len, uint32_t ecn) {
    xdp_io *x = self;
    const cb_slice data = {p->data, len};
    frame_head h = {.local = p->local, .remote = p->remote, .ecn = (uint8_t)ecn};
    if (!p->token) return cb_packet_io_reply(x->socket, p, len, ecn);
    if (x->down || !find_way(x, NULL, x->current_mac, ip_bytes(p->remote.family, len), &h))
        return by_socket(x, &p->local, &p->remote, ecn, data);
    const int n = send_frame(x, x->current, p->data, len, &h);
    if (n < 0) return by_socket(x, &p->local, &p->remote, ecn, data);
    if (!n) return CB_EAGAIN;
    x->current = NULL;
    return CB_OK;
}

static uint8_t *xdp_reserve(void *self, size_t want) {
    xdp_io *x = self;
    x->by_socket = x->down || want + FRAME_IP6 + FRAME_UDP > x->mtu;
    if (x->by_socket) {
        if (x->socket) return cb_packet_io_reserve(x->socket, want);
        return want <= sizeof x->nowhere ? x->nowhere : NULL;
    }
    if (!x->has_reserved) {
        x->has_reserved = cb_xsk_take(x->xsk, &x->reserved) == CB_OK;
        if (!x->has_reserved) { /* what was committed in this turn holds chunks too */
            cb_xsk_flush(x->xsk);
            x->has_reserved = cb_xsk_take(x->xsk, &x->reserved) == CB_OK;
        }
    }
    return x->has_reserved ? x->reserved.data + PAYLOAD_AT : NULL;
}

static int xdp_commit(void *self, const cb_packet_addr *local, const cb_packet_addr *remote, uint32_t ecn, size_t len) {
    xdp_io *x = self;
    if (x->by_socket && x->socket) {
        x->counts.xdp_unresolved++;
        return cb_packet_io_commit(x->socket, local, remote, ecn, len);
    }
    if (x->by_socket) return by_socket(x, local, remote, ecn, (cb_slice){x->nowhere, len});
    frame_head h = {.remote = *remote, .ecn = (uint8_t)ecn};
    uint8_t *payload = x->reserved.data + PAYLOAD_AT;
    if (!find_way(x, local, NULL, ip_bytes(remote->family, len), &h))
        return by_socket(x, local, remote, ecn, (cb_slice){payload, len});
    const int n = send_frame(x, &x->reserved, payload, len, &h);
    if (n < 0) return by_socket(x, local, remote, ecn, (cb_slice){payload, len});
    if (!n) return CB_EAGAIN;
    x->has_reserved = false;
    return CB_OK;
}

static void xdp_flush(void *self) {
    xdp_io *x = self;
    cb_xsk_flush(x->xsk);
    if (x->socket) cb_packet_io_flush(x->socket);
}

static void xdp_local(void *self, cb_packet_addr *out) {
    *out = ((xdp_io *)self)->local;
}

static void xdp_stats(void *self, cb_packet_io_stats *out) {
    xdp_io *x = self;
    cb_xsk_stats k = {.size = sizeof k};
    cb_packet_io_stats s = {.size = sizeof s};
    if (cb_xsk_stats_get(x->xsk, &k) < 0) k = (cb_xsk_stats){.size = sizeof k};
    if (x->socket) cb_packet_io_stats_get(x->socket, &s);
    *out = x->counts;
    out->size = sizeof *out;
    out->rx_packets = s.rx_packets + out->xdp_rx_packets;
    out->rx_bytes = s.rx_bytes + out->xdp_rx_bytes;
    out->tx_packets = s.tx_packets + out->xdp_tx_packets;
    out->tx_bytes = s.tx_bytes + out->xdp_tx_bytes;
    out->rx_calls = s.rx_calls + k.rx_calls;
    out->tx_calls = s.tx_calls + k.tx_calls;
    out->tx_dropped += s.tx_dropped;
    out->xdp_ring_full = k.rx_ring_full;
    out->xdp_fill_empty = k.rx_fill_empty;
    out->xdp_dropped = k.rx_dropped;
    out->xdp_invalid = k.rx_invalid + k.tx_invalid;
    out->rcvbuf_bytes = s.rcvbuf_bytes;
    out->sndbuf_bytes = s.sndbuf_bytes;
    out->xdp_frames = k.frames;
    out->xdp_frames_free = k.frames_free;
    out->xdp = !x->down;
    out->xdp_zero_copy = k.zero_copy;
    out->xdp_native = k.native;
    out->gso = s.gso;
    out->gro = s.gro;
    out->ecn = x->socket ? s.ecn : 1;
}

/* ---- rules ---- */

static int change_rule(xdp_io *x, const cb_packet_addr *a, bool add) {
    char text[CB_ADDR_TEXT];
    cb_addr whole = {.v4 = {.sin_family = AF_INET}};
    if (a->family == 4) {
        memcpy(&whole.v4.sin_addr, a->ip, 4);
    } else {
        whole = (cb_addr){.v6 = {.sin6_family = AF_INET6}};
        memcpy(&whole.v6.sin6_addr, a->ip, 16);
    }
    cb_addr_host(&whole, text);
    const cb_xsk_rule rule = {.size = sizeof rule, .address = text, .port = x->local.port};
    cb_xsk_program *p = cb_xsk_program_of(x->xsk);
    return add ? cb_xsk_program_add(p, &rule) : cb_xsk_program_remove(p, &rule);
}

static void remove_rules(xdp_io *x) {
    while (x->n_rules)
        change_rule(x, &x->own[--x->n_rules], false);
}

/* May this address of the host be one of ours? Loopback never comes in from outside. */
static bool wanted(const xdp_io *x, const struct ifaddrs *i, cb_packet_addr *out) {
    *out = (cb_packet_addr){.family = 0};
    if (!i->ifa_addr) return false;
    if (i->ifa_addr->sa_family == AF_INET) {
        const struct sockaddr_in *v4 = (const void *)i->ifa_addr;
        out->family = 4;
        memcpy(out->ip, &v4->sin_addr, 4);
        return out->ip[0] != 127 && (x->local.family == 4 || !x->v6_only);
    }
    if (i->ifa_addr->sa_family != AF_INET6 || x->local.family != 6) return false;
    const struct sockaddr_in6 *v6 = (const void *)i->ifa_addr;
    out->family = 6;
    memcpy(out->ip, &v6->sin6_addr, 16);
    if (IN6_IS_ADDR_LINKLOCAL(&v6->sin6_addr)) return if_nametoindex(i->ifa_name) == x->interface;
    return !IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr);
}

static int collect_own(xdp_io *x) {
    struct ifaddrs *all = NULL;
    if (!x->any) {
        x->own[x->n_own++] = x->local;
        return CB_OK;
    }
    if (getifaddrs(&all) < 0) return cb_fail_errno(errno, "reading this host's addresses");
    for (const struct ifaddrs *i = all; i && x->n_own < XDP_IO_OWN; i = i->ifa_next)
        if (wanted(x, i, &x->own[x->n_own]) && !own_address(x, &x->own[x->n_own])) x->n_own++;
    freeifaddrs(all);
    return CB_OK;
}

static int add_rules(xdp_io *x) {
    int rc = collect_own(x);
    while (rc == CB_OK && x->n_rules < x->n_own) {
        rc = change_rule(x, &x->own[x->n_rules], true);
        x->n_rules += rc == CB_OK;
    }
    return rc == CB_ELIMIT && x->socket ? CB_OK : rc; /* the rest comes by the socket */
}

/* ---- life ---- */

static void xdp_close(void *self) {
    xdp_io *x = self;
    remove_rules(x);
    cb_xsk_free(x->xsk);
    cb_packet_io_free(x->socket);
    if (x->netlink.fd >= 0) close(x->netlink.fd);
    x->netlink.fd = -1;
}

static void xdp_destroy(void *self) {
    xdp_io *x = self;
    cb_peers_clear(&x->peers, &cb_alloc_libc);
    cb_mem_free(&cb_alloc_libc, x);
}

static int open_socket(xdp_io *x, const char *listen, const cb_packet_io_opts *opts) {
    static const cb_packet_ops ops = {.size = sizeof ops,
                                      .on_packet = on_socket_packet,
                                      .on_batch_end = on_socket_end,
                                      .on_writable = on_socket_writable};
    cb_packet_io_opts o;
    int rc = cb_opts_read(&o, sizeof o, opts, "cb_packet_io_opts");
    if (rc < 0) return rc;
    o.ops = &ops;
    o.user = x;
    return cb_packet_io_open(&x->socket, x->loop, listen, &o);
}

static int read_listen(xdp_io *x, const char *listen) {
    cb_addr a;
    int rc = cb_addr_parse(&a, listen, 0);
    if (rc < 0) return rc;
    cb_addr_unmap(&a);
    x->local.port = cb_addr_port(&a);
    x->local.family = a.sa.sa_family == AF_INET ? 4 : 6;
    if (x->local.family == 4)
        memcpy(x->local.ip, &a.v4.sin_addr, 4);
    else
        memcpy(x->local.ip, &a.v6.sin6_addr, 16);
    static const uint8_t any[16];
    x->any = memcmp(x->local.ip, any, sizeof any) == 0;
    if (!x->socket && !x->local.port)
        return cb_fail(CB_EINVAL, "cb_packet_io_open_xdp: listen \"%s\": without a socket the port must be said",
                       listen);
    if (x->socket) x->local.port = cb_packet_io_local(x->socket).port;
    if (link_local(&x->local)) x->local.scope = x->interface;
    return CB_OK;
}

static int open_xsk(xdp_io *x, const cb_xsk_opts *xsk) {
    static const cb_xsk_ops ops = {.size = sizeof ops,
                                   .on_frames = on_frames,
                                   .on_batch_end = on_frames_end,
                                   .on_writable = on_frames_writable,
                                   .on_down = on_frames_down};
    cb_xsk_opts o = *xsk;
    if (o.ops)
        return cb_fail(CB_EINVAL, "cb_packet_io_open_xdp: ops of cb_xsk_opts is not for it; use cb_packet_io_opts");
    o.ops = &ops;
    o.user = x;
    int rc = cb_xsk_open(&x->xsk, x->loop, &o);
    if (rc < 0) return rc;
    x->mtu = cb_xsk_mtu(x->xsk);
    x->interface = cb_xsk_interface(x->xsk);
    return CB_OK;
}

static int start(xdp_io *x, const char *listen, const cb_packet_io_opts *opts, const cb_xsk_opts *xsk) {
    if (getrandom(&x->seed, sizeof x->seed, 0) != sizeof x->seed) return cb_fail_errno(errno, "getrandom");
    int rc = cb_peers_init(&x->peers, &cb_alloc_libc, x->seed);
    if (rc == CB_OK) rc = cb_neighbour_open(&x->netlink);
    x->netlink.look = xsk->no_socket;
    if (rc == CB_OK) rc = open_xsk(x, xsk);
    if (rc == CB_OK && !xsk->no_socket) rc = open_socket(x, listen, opts);
    if (rc == CB_OK) rc = read_listen(x, listen);
    return rc == CB_OK ? add_rules(x) : rc;
}

int cb_packet_io_open_xdp(cb_packet_io **out, cb_loop *loop, const char *listen, const cb_packet_io_opts *opts,
                          const cb_xsk_opts *xsk) {
    static const cb_packet_driver driver = {.size = sizeof driver,
                                            .reserve = xdp_reserve,
                                            .commit = xdp_commit,
                                            .reply = xdp_reply,
                                            .flush = xdp_flush,
                                            .local = xdp_local,
                                            .stats = xdp_stats,
                                            .close = xdp_close,
                                            .destroy = xdp_destroy};
    cb_packet_io_opts o;
    cb_xsk_opts k;
    if (!out || !loop || !listen)
        return cb_fail(CB_EINVAL, "cb_packet_io_open_xdp: %s is NULL", !out ? "out" : !loop ? "loop" : "listen");
    int rc = cb_opts_read(&o, sizeof o, opts, "cb_packet_io_opts");
    if (rc == CB_OK) rc = cb_opts_read(&k, sizeof k, xsk, "cb_xsk_opts");
    if (rc < 0) return rc;
    xdp_io *x = cb_mem_new(&cb_alloc_libc, sizeof *x);
    if (!x) return cb_fail(CB_ENOMEM, "no memory for packet I/O");
    x->loop = loop;
    x->netlink.fd = -1;
    x->v6_only = o.v6_only;
    x->no_fragment = o.no_fragment;
    x->verify = !k.no_checksum;
    rc = start(x, listen, opts, &k);
    if (rc == CB_OK) rc = cb_packet_io_new(&x->io, loop, opts, &driver, x);
    if (rc < 0) {
        xdp_close(x);
        xdp_destroy(x);
        return rc;
    }
    *out = x->io;
    return CB_OK;
}
