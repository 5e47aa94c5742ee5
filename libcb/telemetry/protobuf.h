/* Writes protocol buffers (the wire format of proto2 and proto3) into a buffer, from front to back. A message inside
 * another is written into a buffer of its own and then added, because its length comes first. */
#ifndef CB_TELEMETRY_PROTOBUF_H
#define CB_TELEMETRY_PROTOBUF_H

#include "base/buf.h"
#include <string.h>

enum { CB_PB_VARINT = 0, CB_PB_FIXED64 = 1, CB_PB_BYTES = 2 };

static inline int cb_pb_raw_varint(cb_buf *out, uint64_t v) {
    uint8_t b[10];
    size_t n = 0;
    for (; v > 0x7F; v >>= 7)
        b[n++] = (uint8_t)(v | 0x80);
    b[n++] = (uint8_t)v;
    return cb_buf_add(out, b, n);
}

static inline int cb_pb_varint(cb_buf *out, uint32_t field, uint64_t v) {
    int rc = cb_pb_raw_varint(out, field << 3 | CB_PB_VARINT);
    return rc < 0 ? rc : cb_pb_raw_varint(out, v);
}

/* sint32 and sint64: small negative numbers stay short. */
static inline uint64_t cb_pb_zigzag(int64_t v) {
    return (uint64_t)v << 1 ^ (uint64_t)(v >> 63);
}

static inline int cb_pb_fixed64(cb_buf *out, uint32_t field, uint64_t v) {
    uint8_t b[8];
    for (int i = 0; i < 8; i++)
        b[i] = (uint8_t)(v >> (8 * i));
    int rc = cb_pb_raw_varint(out, field << 3 | CB_PB_FIXED64);
    return rc < 0 ? rc : cb_buf_add(out, b, sizeof b);
}

static inline int cb_pb_double(cb_buf *out, uint32_t field, double v) {
    uint64_t bits;
    memcpy(&bits, &v, sizeof bits);
    return cb_pb_fixed64(out, field, bits);
}

static inline int cb_pb_bytes(cb_buf *out, uint32_t field, const void *data, size_t len) {
    int rc = cb_pb_raw_varint(out, field << 3 | CB_PB_BYTES);
    if (rc >= 0) rc = cb_pb_raw_varint(out, len);
    return rc < 0 ? rc : cb_buf_add(out, data, len);
}

static inline int cb_pb_text(cb_buf *out, uint32_t field, const char *text) {
    return cb_pb_bytes(out, field, text, strlen(text));
}

#endif
