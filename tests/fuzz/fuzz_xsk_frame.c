/* Ethernet frames from outside: what is taken lies inside of the frame, is taken again when it is written anew, and is
 * not taken with one bit changed where the checksums stand guard. */
#include "packet/frame.h"
#include <stdlib.h>
#include <string.h>

static void write_again(const frame_udp *u) {
    frame_udp again;
    frame_head h = {.local = u->local, .remote = u->remote, .ttl = 64, .ecn = u->ecn};
    const uint32_t head = frame_headers(u->remote.family);
    uint8_t *copy = malloc(head + u->len + 1);
    memcpy(copy + head, u->payload, u->len);
    frame_write(copy + head, u->len, &h);
    /* From there to here: what was the destination may be one that nothing comes from. */
    const enum frame_kind kind = frame_read(&again, copy, head + u->len, true);
    if (kind != FRAME_OK && kind != FRAME_MALFORMED) abort();
    if (kind == FRAME_OK) {
        if (again.len != u->len || again.ecn != u->ecn || !cb_packet_addr_equal(&again.remote, &u->local) ||
            !cb_packet_addr_equal(&again.local, &u->remote) || memcmp(again.payload, u->payload, u->len) != 0)
            abort();
        if (u->len) {
            copy[head] ^= 1;
            if (frame_read(&again, copy, head + u->len, true) != FRAME_CHECKSUM) abort();
        }
    }
    free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    for (int verify = 0; verify < 2; verify++) {
        frame_udp u;
        uint8_t *frame = malloc(size ? size : 1);
        memcpy(frame, data, size);
        const enum frame_kind kind = frame_read(&u, frame, size, verify);
        if (memcmp(frame, data, size) != 0) abort();
        if (kind == FRAME_OK) {
            if (u.payload < frame || u.payload > frame + size || u.len > size - (size_t)(u.payload - frame)) abort();
            if (u.remote.family != u.local.family) abort();
            if (u.remote.port && u.local.port && u.len <= 65000) write_again(&u);
        }
        free(frame);
    }
    return 0;
}
