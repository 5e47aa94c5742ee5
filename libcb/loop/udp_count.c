/* What UDP sockets count: for a message or a system call at a time, not for each datagram. */
#include "loop/udp_priv.h"
#include <errno.h>

void cb_udp_count_in(const cb_cells *cells, size_t bytes, size_t datagrams, unsigned ecn) {
    static const uint16_t marks[] = {CB_C_UDP_ECN_NOT_ECT, CB_C_UDP_ECN_ECT_1, CB_C_UDP_ECN_ECT_0, CB_C_UDP_ECN_CE};
    cb_cells_add(cells, CB_C_UDP_DATAGRAMS_IN, datagrams);
    cb_cells_add(cells, CB_C_UDP_BYTES_IN, bytes);
    cb_cells_add(cells, marks[ecn & 3], datagrams);
    if (datagrams > 1) cb_cells_add(cells, CB_C_UDP_SEGMENTED_IN, 1);
}

void cb_udp_count_out(const cb_cells *cells, size_t bytes, size_t datagrams, size_t segmented) {
    cb_cells_add(cells, CB_C_UDP_DATAGRAMS_OUT, datagrams);
    cb_cells_add(cells, CB_C_UDP_BYTES_OUT, bytes);
    cb_cells_add(cells, CB_C_UDP_SEGMENTED_OUT, segmented);
    cb_cells_observe(cells, CB_C_UDP_BATCH_OUT, datagrams);
}

void cb_udp_count_drop(const cb_cells *cells, int err, uint64_t datagrams) {
    switch (err) {
    case EHOSTUNREACH:
    case ENETUNREACH:
    case ECONNREFUSED:
    case EADDRNOTAVAIL:
        cb_cells_add(cells, CB_C_UDP_DROPPED_UNREACHABLE, datagrams);
        break;
    case EPERM:
    case EACCES:
        cb_cells_add(cells, CB_C_UDP_DROPPED_FORBIDDEN, datagrams);
        break;
    case EMSGSIZE:
        cb_cells_add(cells, CB_C_UDP_DROPPED_TOO_BIG, datagrams);
        break;
    default:
        cb_cells_add(cells, CB_C_UDP_DROPPED_OTHER, datagrams);
        break;
    }
}

void cb_udp_count_icmp(const cb_cells *cells, int err) {
    switch (err) {
    case ECONNREFUSED:
        cb_cells_add(cells, CB_C_UDP_ICMP_REFUSED, 1);
        break;
    case EHOSTUNREACH:
    case ENETUNREACH:
        cb_cells_add(cells, CB_C_UDP_ICMP_UNREACHABLE, 1);
        break;
    case EMSGSIZE:
        cb_cells_add(cells, CB_C_UDP_ICMP_TOO_BIG, 1);
        break;
    default:
        cb_cells_add(cells, CB_C_UDP_ICMP_OTHER, 1);
        break;
    }
}
