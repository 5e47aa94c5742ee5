/* Ethernet addresses of peers by their IP addresses: learnt from what they sent, and asked of the kernel's tables. A
 * bounded table: a set has few places, and who was used least recently goes. */
#ifndef CB_PACKET_PEERS_H
#define CB_PACKET_PEERS_H

#include "base/mem.h"
#include <cb/packet.h>
#include <stdbool.h>

enum { PEERS_SETS = 1024, PEERS_WAYS = 4 };

typedef struct cb_peer_way {
    uint8_t ip[16];
    uint8_t family; /* 0: the place is empty */
    uint8_t learnt_mac[6];
    uint8_t route_mac[6];
    bool routed;          /* route_mac, route_mtu and source are good: the peer is reached by this interface */
    cb_time learnt_until; /* 0 = never */
    cb_time route_until;  /* the kernel need not be asked before */
    cb_time used;
    uint32_t route_mtu;
    uint8_t source[16]; /* the address that the kernel would send from */
} cb_peer_way;

typedef struct cb_peers {
    cb_peer_way *ways;
    uint64_t seed; /* strangers choose addresses, and must not be able to aim at a set */
} cb_peers;

int cb_peers_init(cb_peers *p, const cb_alloc *a, uint64_t seed); /* CB_ENOMEM */
void cb_peers_clear(cb_peers *p, const cb_alloc *a);
/* The place of this address; NULL when there is none and make is false. */
cb_peer_way *cb_peers_find(cb_peers *p, const cb_packet_addr *a, cb_time now, bool make);

#endif
