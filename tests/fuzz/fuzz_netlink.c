/* The kernel's answers about routes, neighbours, links and sockets: whatever they say, reading stays in bounds, ends,
 * and takes no more than there is. */
#include "lb/netlink.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    cb_slice rest = {data, size};
    cb_nl_message m;
    size_t before = rest.len;
    while (cb_nl_next(&rest, &m)) {
        cb_nl_route route;
        cb_nl_neighbour neighbour;
        cb_nl_link link;
        cb_nl_socket ends;
        if (rest.len >= before || m.body.base < data || m.body.base + m.body.len > data + size) abort();
        before = rest.len;
        const int err = cb_nl_error(m.body);
        if (err < 0 || err > 4095) abort();
        if (cb_nl_read_route(&route, &m) && route.hop_family != 0 && route.hop_family != 4 && route.hop_family != 6)
            abort();
        if (cb_nl_read_neighbour(&neighbour, &m) && neighbour.fresh && !neighbour.valid) abort();
        if (cb_nl_read_neighbour(&neighbour, &m) && neighbour.valid && !neighbour.has_mac) abort();
        (void)cb_nl_read_link(&link, &m);
        (void)cb_nl_read_socket(&ends, &m);
    }
    return 0;
}
