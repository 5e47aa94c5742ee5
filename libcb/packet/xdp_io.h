/* The inside of a cb_packet_io over AF_XDP. */
#ifndef CB_PACKET_XDP_IO_H
#define CB_PACKET_XDP_IO_H

#include "packet/neighbour.h"
#include "packet/peers.h"
#include <cb/xsk.h>

enum { XDP_IO_OWN = CB_XSK_RULES };

typedef struct xdp_io {
    cb_packet_io *io;
    cb_loop *loop;
    cb_xsk *xsk;
    cb_packet_io *socket; /* beside it; NULL: none */
    cb_neighbours netlink;
    uint32_t interface, mtu;
    cb_packet_addr local;
    cb_packet_addr own[XDP_IO_OWN + 1]; /* addresses that are served; the last place is for trying */
    uint32_t n_own, n_rules;
    bool any, v6_only, no_fragment, verify, down;
    cb_peers peers;
    uint64_t seed, sent;
    const cb_xsk_frame *current; /* the one whose datagram the user has; NULL: it was sent back */
    const uint8_t *current_mac;
    cb_xsk_frame reserved;
    bool has_reserved;
    bool by_socket; /* the last reserve was of the socket, or of `nowhere` */
    uint8_t nowhere[CB_PACKET_MAX];
    cb_packet_io_stats counts; /* what is counted here; the rest is asked */
} xdp_io;

#endif
