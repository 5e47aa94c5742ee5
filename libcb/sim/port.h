/* A bound UDP port of a simulated host: what plain sockets and those below QUIC have in common. */
#ifndef CB_SIM_PORT_H
#define CB_SIM_PORT_H

#include "sim/sim_int.h"

struct sim_socket_port {
    sim_port *next; /* another one of the same number */
    cb_sim_host *host;
    cb_list touched;                                /* in a turn: it got something */
    cb_addr local;                                  /* with its number; the address may be "any" */
    bool both;                                      /* :: for IPv4, too */
    void (*receive)(sim_port *port, sim_packet *p); /* the packet is freed after it; the port may be closed in it */
    void (*unreachable)(sim_port *port, const sim_packet *icmp); /* may be NULL */
    void (*batch_end)(sim_port *port);                           /* after all that came in one turn; may be NULL */
};

/* The way of packets from here to `to`. */
typedef struct sim_route {
    cb_sim_host *host, *target; /* target NULL: an address of nobody */
    const sim_path *path;
    cb_addr from, to;
} sim_route;

/* Binds p->local (port 0: chooses one). The caller has filled receive and batch_end. CB_EEXIST, CB_EINVAL (no such
 * address on this host), CB_ENOMEM. */
int sim_port_open(sim_port *p, cb_sim_host *h, const cb_addr *bind, bool v6_only);
void sim_port_close(sim_port *p);
/* source NULL: what the port is bound to, else the host's first address of the family. 0, or an errno value. */
int sim_port_route(const sim_port *p, sim_route *out, const cb_addr *source, const cb_addr *to);
/* 0, or CB_ENOMEM. */
int sim_route_send(const sim_route *r, unsigned ecn, const uint8_t *data, size_t len);

/* The packets that wait for a host go to their ports: part of its turn. */
void sim_ports_receive(cb_sim_host *h);

#endif
