/* What an AF_XDP socket and its program know of the interface they are on. */
#ifndef CB_PACKET_INTERFACE_H
#define CB_PACKET_INTERFACE_H

#include <net/if.h>
#include <stdint.h>

typedef struct xsk_interface {
    char name[IFNAMSIZ];
    uint32_t index, mtu;
    uint8_t mac[6];
} xsk_interface;

#endif
