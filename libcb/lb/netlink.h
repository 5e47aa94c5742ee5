/* Messages of the kernel's routing, neighbour and socket tables: what the datapath asks for and what it reads of the
 * answers. Bytes in, facts out: nothing here opens a socket. */
#ifndef CB_LB_NETLINK_H
#define CB_LB_NETLINK_H

#include <cb/base.h>
#include <stdbool.h>

enum { CB_NL_REQUEST_MAX = 160 };

/* ---- requests; each returns its length ---- */
/* family: 4 or 6; addresses: 4 or 16 bytes. */
size_t cb_nl_ask_route(uint8_t out[CB_NL_REQUEST_MAX], uint32_t seq, int family, const uint8_t *address);
size_t cb_nl_ask_neighbour(uint8_t out[CB_NL_REQUEST_MAX], uint32_t seq, int family, const uint8_t *address,
                           uint32_t ifindex);
/* Makes the kernel look for it, as a packet to it would. */
size_t cb_nl_use_neighbour(uint8_t out[CB_NL_REQUEST_MAX], uint32_t seq, int family, const uint8_t *address,
                           uint32_t ifindex);
size_t cb_nl_ask_link(uint8_t out[CB_NL_REQUEST_MAX], uint32_t seq, uint32_t ifindex);
/* All TCP sockets of a family that belong to a peer: established and later, half-open and TIME_WAIT. */
size_t cb_nl_ask_sockets(uint8_t out[CB_NL_REQUEST_MAX], uint32_t seq, int family);

/* ---- answers ---- */
/* One message of a datagram; its length is sure to be there. */
typedef struct cb_nl_message {
    uint16_t type, flags;
    uint32_t seq;
    cb_slice body; /* behind the header */
} cb_nl_message;

/* Takes the next message off `rest`. False: none is left, or what is there is cut short (then rest is not empty). */
bool cb_nl_next(cb_slice *rest, cb_nl_message *out);
/* Of a message of type NLMSG_ERROR: the errno value, 0 for an acknowledgement; EBADMSG when it is cut short. */
int cb_nl_error(cb_slice body);

enum cb_nl_way { CB_NL_UNICAST = 0, CB_NL_LOCAL = 1, CB_NL_NOWHERE = 2 };

typedef struct cb_nl_route {
    int way; /* enum cb_nl_way */
    uint32_t ifindex;
    uint32_t mtu;       /* 0 = the route does not say */
    uint8_t hop_family; /* 4 or 6 when there is a router; 0 = on the link */
    uint8_t hop[16];
    uint8_t source_family; /* 4 or 6 when the kernel says which address it would send from; else 0 */
    uint8_t source[16];
} cb_nl_route;

typedef struct cb_nl_neighbour {
    bool has_mac;
    bool valid; /* the MAC may be used */
    bool fresh; /* ... and was confirmed not long ago */
    uint8_t mac[6];
} cb_nl_neighbour;

typedef struct cb_nl_link {
    uint32_t ifindex, mtu;
    bool up, ethernet;
    uint8_t mac[6];
} cb_nl_link;

/* Ends of a socket, as in a packet that the peer sends: bytes of addresses (IPv4 as ::ffff:a.b.c.d) and ports as on
 * the wire. */
typedef struct cb_nl_socket {
    uint8_t peer[16], own[16];
    uint8_t peer_port[2], own_port[2];
} cb_nl_socket;

/* Read one message. False: it is not of this kind, or malformed. */
bool cb_nl_read_route(cb_nl_route *out, const cb_nl_message *m);
bool cb_nl_read_neighbour(cb_nl_neighbour *out, const cb_nl_message *m);
bool cb_nl_read_link(cb_nl_link *out, const cb_nl_message *m);
bool cb_nl_read_socket(cb_nl_socket *out, const cb_nl_message *m);

#endif
