/* Asks the kernel where a packet would go: its route, and the Ethernet address of the next hop (rtnetlink). */
#ifndef CB_PACKET_NEIGHBOUR_H
#define CB_PACKET_NEIGHBOUR_H

#include <cb/packet.h>
#include <stdbool.h>

typedef struct cb_next_hop {
    bool here; /* the route leaves by this interface, and the neighbour's address is known */
    bool old;  /* known, but not heard of for a while: the kernel should be given a packet to ask again */
    uint8_t mac[6];
    uint32_t mtu; /* of the route, as far as it is known; 0 = the interface's */
    bool sourced;
    uint8_t source[16]; /* the address that the kernel would send from, if `sourced` */
} cb_next_hop;

typedef struct cb_neighbours {
    int fd; /* -1: not open */
    uint32_t sequence;
    bool look; /* ask the kernel to look for whom it does not know; else a packet through its stack does that */
} cb_neighbours;

int cb_neighbour_open(cb_neighbours *n); /* CB_ESYS; the caller closes fd */
/* Where to for `remote` by the interface? It waits for the kernel only, never for the network. */
void cb_neighbour_ask(cb_neighbours *n, uint32_t interface, const cb_packet_addr *remote, cb_next_hop *out);

#endif
