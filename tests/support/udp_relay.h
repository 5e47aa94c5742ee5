/* A UDP path with a will of its own, between a client and a server on loopback: it can swallow everything, and rebind
 * as a NAT does. */
#ifndef CB_TEST_UDP_RELAY_H
#define CB_TEST_UDP_RELAY_H

#include "base/addr.h"
#include "loop/loop_int.h"

enum { RELAY_CLIENTS = 16 };

typedef struct udp_relay {
    cb_loop *loop;
    int front;
    uint16_t port; /* of the front, on 127.0.0.1 */
    cb_addr server;
    cb_watch *front_watch;
    struct relay_side {
        struct udp_relay *relay;
        struct sockaddr_in client;
        int back;
        cb_watch *watch;
    } side[RELAY_CLIENTS];
    size_t sides, passed, swallowed;
    bool blocked;
} udp_relay;

/* Listens on 127.0.0.1:port (0: any) and passes on to 127.0.0.1:server_port. */
void udp_relay_open(udp_relay *r, cb_loop *loop, uint16_t port, uint16_t server_port);
void udp_relay_rebind(udp_relay *r); /* from now on the server sees other ports */
void udp_relay_close(udp_relay *r);

#endif
