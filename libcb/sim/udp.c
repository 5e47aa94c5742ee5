#include "sim/udp.h"
#include "base/error.h"
#include "loop/udp_priv.h"
#include "sim/port.h"
#include <errno.h>
#include <string.h>

enum { BUFFER_DEFAULT = 4 << 20 }; /* nothing is limited by it: a turn takes all that has come */

typedef struct sim_udp {
    sim_port port;
    cb_udp *u;
} sim_udp;

static void receive(sim_port *port, sim_packet *p) {
    cb_udp *u = CB_CONTAINER(port, sim_udp, port)->u;
    cb_datagram d = {
        .local = p->to, .remote = p->from, .ecn = u->stats.ecn ? p->ecn : 0, .data = p->data, .len = p->len};
    u->stats.rx_datagrams++;
    u->stats.rx_bytes += p->len;
    if (u->loop->turn.cells) cb_udp_count_in(u->loop->turn.cells, p->len, 1, d.ecn);
    (void)u->o.on_datagram(u, &d, u->o.user);
}

static void unreachable(sim_port *port, const sim_packet *icmp) {
    cb_udp *u = CB_CONTAINER(port, sim_udp, port)->u;
    cb_udp_count_icmp(u->loop->turn.cells, ECONNREFUSED);
    cb_udp_unreachable(u, ECONNREFUSED, &icmp->from, (cb_slice){icmp->data, icmp->len});
}

static void batch_end(sim_port *port) {
    cb_udp *u = CB_CONTAINER(port, sim_udp, port)->u;
    u->stats.rx_calls++;
    if (u->o.on_batch_end) u->o.on_batch_end(u, u->o.user);
}

static int open_port(cb_udp *u) {
    cb_sim_host *h = cb_loop_world(u->loop);
    sim_udp *s = cb_mem_new(cb_loop_alloc(u->loop), sizeof *s);
    if (!s) return cb_fail(CB_ENOMEM, "no memory for a UDP socket");
    s->u = u;
    s->port.receive = receive;
    s->port.unreachable = unreachable;
    s->port.batch_end = batch_end;
    int rc = sim_port_open(&s->port, h, &u->o.bind, u->o.v6_only);
    if (rc < 0) {
        cb_mem_free(cb_loop_alloc(u->loop), s);
        return rc;
    }
    u->behind = s;
    u->local = s->port.local;
    u->stats.gso = !u->o.no_gso;
    u->stats.gro = !u->o.no_gro;
    u->stats.ecn = !u->o.no_ecn;
    u->stats.rcvbuf = u->o.rcvbuf_bytes ? u->o.rcvbuf_bytes : BUFFER_DEFAULT;
    u->stats.sndbuf = u->o.sndbuf_bytes ? u->o.sndbuf_bytes : BUFFER_DEFAULT;
    return CB_OK;
}

static void close_port(cb_udp *u) {
    sim_udp *s = u->behind;
    sim_port_close(&s->port);
    cb_mem_free(cb_loop_alloc(u->loop), s);
    u->behind = NULL;
}

static void send_train(cb_udp *u, const udp_train *t) {
    const sim_udp *s = u->behind;
    sim_route route;
    uint64_t datagrams = (t->len + t->segment - 1) / t->segment;
    int err = sim_port_route(&s->port, &route, t->has_local ? &t->local : NULL, &t->remote);
    if (err) {
        s->port.host->stats.drop_no_route += datagrams;
        u->stats.tx_dropped += datagrams;
        cb_udp_count_drop(u->loop->turn.cells, err, datagrams);
        cb_udp_unreachable(u, err, &t->remote, (cb_slice){u->arena + t->off, t->segment});
        return;
    }
    for (size_t done = 0; done < t->len; done += t->segment) {
        size_t len = t->len - done < t->segment ? t->len - done : t->segment;
        if (sim_route_send(&route, u->stats.ecn ? t->ecn : 0, u->arena + t->off + done, len) < 0) return;
    }
    u->stats.tx_datagrams += datagrams;
    u->stats.tx_bytes += t->len;
    u->stats.tx_calls++;
    if (u->loop->turn.cells) cb_udp_count_out(u->loop->turn.cells, t->len, datagrams, datagrams > 1);
}

static void send_trains(cb_udp *u) {
    while (u->first < u->count) {
        send_train(u, &u->trains[u->first]);
        u->first++;
    }
    u->first = u->count = 0;
    u->filled = 0;
}

const struct cb_udp_port sim_udp_port = {open_port, close_port, send_trains};
