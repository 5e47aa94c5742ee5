/* A cb_packet_io over a UDP socket, or a simulated one: whatever the loop has. */
#include "base/error.h"
#include "base/opts.h"
#include "loop/udp.h"
#include "packet/address.h"
#include <string.h>

typedef struct sock_io {
    cb_packet_io *io; /* NULL while it is being made */
    cb_loop *loop;
    cb_udp *udp;
} sock_io;

/* ---- in ---- */

static bool on_datagram(cb_udp *u, cb_datagram *d, void *user) {
    sock_io *s = user;
    cb_packet p = {.size = sizeof p, .data = d->data, .len = d->len, .room = d->len, .ecn = d->ecn};
    (void)u;
    cb_packet_addr_from(&p.local, &d->local);
    cb_packet_addr_from(&p.remote, &d->remote);
    return cb_packet_io_deliver(s->io, &p);
}

static void on_batch_end(cb_udp *u, void *user) {
    (void)u;
    cb_packet_io_batch_end(((sock_io *)user)->io);
}

static void on_writable(cb_udp *u, void *user) {
    (void)u;
    cb_packet_io_writable(((sock_io *)user)->io);
}

/* ---- out ---- */

static uint8_t *sock_reserve(void *self, size_t want) {
    return cb_udp_reserve(((sock_io *)self)->udp, want);
}

static int sock_commit(void *self, const cb_packet_addr *local, const cb_packet_addr *remote, uint32_t ecn,
                       size_t len) {
    cb_addr from, to;
    cb_packet_addr_to(&to, remote);
    if (local) cb_packet_addr_to(&from, local);
    cb_udp_commit(((sock_io *)self)->udp, local ? &from : NULL, &to, ecn, len, len);
    return CB_OK;
}

static int sock_reply(void *self, const cb_packet *p, size_t len, uint32_t ecn) {
    uint8_t *room = sock_reserve(self, len);
    if (!room) return CB_EAGAIN;
    memcpy(room, p->data, len);
    return sock_commit(self, &p->local, &p->remote, ecn, len);
}

static void sock_flush(void *self) {
    cb_udp_flush(((sock_io *)self)->udp);
}

/* ---- the rest ---- */

static void sock_local(void *self, cb_packet_addr *out) {
    cb_packet_addr_from(out, cb_udp_local(((sock_io *)self)->udp));
}

static void sock_stats(void *self, cb_packet_io_stats *out) {
    const cb_udp_stats *s = cb_udp_stats_get(((sock_io *)self)->udp);
    out->rx_packets = s->rx_datagrams;
    out->rx_bytes = s->rx_bytes;
    out->tx_packets = s->tx_datagrams;
    out->tx_bytes = s->tx_bytes;
    out->rx_calls = s->rx_calls;
    out->tx_calls = s->tx_calls;
    out->tx_dropped = s->tx_dropped;
    out->rcvbuf_bytes = s->rcvbuf;
    out->sndbuf_bytes = s->sndbuf;
    out->gso = s->gso;
    out->gro = s->gro;
    out->ecn = s->ecn;
}

static void sock_close(void *self) {
    cb_udp_close(((sock_io *)self)->udp);
}

static void sock_destroy(void *self) {
    sock_io *s = self;
    cb_mem_free(cb_loop_alloc(s->loop), s);
}

static int open_socket(sock_io *s, const char *listen, const cb_packet_io_opts *o) {
    cb_udp_opts u = {.rcvbuf_bytes = o->rcvbuf_bytes,
                     .sndbuf_bytes = o->sndbuf_bytes,
                     .v6_only = o->v6_only,
                     .reuseport = o->reuseport,
                     .no_gso = o->no_gso,
                     .no_gro = o->no_gro,
                     .no_ecn = o->no_ecn,
                     .no_pmtud = !o->no_fragment,
                     .merge = o->merge,
                     .on_datagram = on_datagram,
                     .on_batch_end = on_batch_end,
                     .on_writable = on_writable,
                     .user = s};
    int rc = cb_addr_parse(&u.bind, listen, 0);
    return rc < 0 ? rc : cb_udp_open(&s->udp, s->loop, &u);
}

int cb_packet_io_open(cb_packet_io **out, cb_loop *loop, const char *listen, const cb_packet_io_opts *opts) {
    static const cb_packet_driver driver = {.size = sizeof driver,
                                            .reserve = sock_reserve,
                                            .commit = sock_commit,
                                            .reply = sock_reply,
                                            .flush = sock_flush,
                                            .local = sock_local,
                                            .stats = sock_stats,
                                            .close = sock_close,
                                            .destroy = sock_destroy};
    cb_packet_io_opts o;
    if (!out || !loop || !listen)
        return cb_fail(CB_EINVAL, "cb_packet_io_open: %s is NULL", !out ? "out" : !loop ? "loop" : "listen");
    int rc = cb_opts_read(&o, sizeof o, opts, "cb_packet_io_opts");
    if (rc < 0) return rc;
    sock_io *s = cb_mem_new(cb_loop_alloc(loop), sizeof *s);
    if (!s) return cb_fail(CB_ENOMEM, "no memory for packet I/O");
    s->loop = loop;
    rc = open_socket(s, listen, &o);
    if (rc == CB_OK) {
        rc = cb_packet_io_new(&s->io, loop, opts, &driver, s);
        if (rc < 0) cb_udp_close(s->udp);
    }
    if (rc < 0) {
        cb_mem_free(cb_loop_alloc(loop), s);
        return rc;
    }
    *out = s->io;
    return CB_OK;
}
