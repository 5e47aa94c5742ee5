/* The sockets of QUIC endpoints on simulated hosts. */
#ifndef CB_SIM_UDP_H
#define CB_SIM_UDP_H

#include "loop/udp.h"

extern const struct cb_udp_port sim_udp_port;

#endif
