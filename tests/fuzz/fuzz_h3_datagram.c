/* The Quarter Stream ID of HTTP/3 datagrams: what is read is written again. Settings of a control stream beside. */
#include "http/h3_datagram.h"
#include "http/h3_settings.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    int64_t stream, again;
    cb_slice payload, rest;
    uint8_t head[CB_H3_DATAGRAM_HEAD_MAX];
    if (cb_h3_datagram_read((cb_slice){data, size}, &stream, &payload) == CB_OK) {
        if (stream < 0 || stream % 4 || payload.base + payload.len != data + size) abort();
        size_t n = cb_h3_datagram_head(head, stream);
        if (n > size - payload.len) abort(); /* ours is never longer */
        if (cb_h3_datagram_read((cb_slice){head, n}, &again, &rest) < 0 || again != stream || rest.len) abort();
    }
    cb_h3_settings whole = {0}, pieces = {0};
    cb_h3_settings_feed(&whole, (cb_slice){data, size});
    for (size_t i = 0; i < size; i++)
        cb_h3_settings_feed(&pieces, (cb_slice){data + i, 1});
    if (whole.connect != pieces.connect || whole.state != pieces.state) abort();
    return 0;
}
