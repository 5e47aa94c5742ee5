#include "http/h3_datagram.h"
#include "base/error.h"

static const uint64_t quarter_max = ((uint64_t)1 << 60) - 1;

int cb_h3_datagram_read(cb_slice in, int64_t *stream, cb_slice *payload) {
    if (!in.len) return cb_fail(CB_EPROTO, "an empty HTTP/3 datagram");
    size_t n = (size_t)1 << (in.base[0] >> 6);
    if (in.len < n) return cb_fail(CB_EPROTO, "an HTTP/3 datagram of %zu bytes ends in its stream ID", in.len);
    uint64_t v = in.base[0] & 0x3f;
    for (size_t i = 1; i < n; i++)
        v = v << 8 | in.base[i];
    if (v > quarter_max) return cb_fail(CB_EPROTO, "an HTTP/3 datagram for a stream that cannot be");
    *stream = (int64_t)(v * 4);
    *payload = (cb_slice){in.base + n, in.len - n};
    return CB_OK;
}

size_t cb_h3_datagram_head(uint8_t out[CB_H3_DATAGRAM_HEAD_MAX], int64_t stream) {
    uint64_t v = (uint64_t)stream / 4;
    unsigned log = v < 1U << 6 ? 0 : v < 1U << 14 ? 1 : v < 1U << 30 ? 2 : 3;
    size_t n = (size_t)1 << log;
    for (size_t i = 0; i < n; i++)
        out[i] = (uint8_t)(v >> (8 * (n - 1 - i)));
    out[0] |= (uint8_t)(log << 6);
    return n;
}
