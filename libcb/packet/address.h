/* Between addresses as the kernel takes them and those of cb/packet.h. */
#ifndef CB_PACKET_ADDRESS_H
#define CB_PACKET_ADDRESS_H

#include "base/addr.h"
#include <cb/packet.h>

void cb_packet_addr_from(cb_packet_addr *out, const cb_addr *a);
void cb_packet_addr_to(cb_addr *out, const cb_packet_addr *a);

#endif
