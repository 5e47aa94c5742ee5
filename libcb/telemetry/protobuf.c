#include "telemetry/protobuf.h"
#include <string.h>

enum { VARINT = 0, FIXED64 = 1, BYTES = 2, FIXED32 = 5, VARINT_MAX = 10 };

void cb_pb_raw(cb_pb *p, const void *data, size_t len) {
    if (p->rc >= 0) p->rc = cb_buf_add(p->out, data, len);
}

static size_t encode(uint8_t b[VARINT_MAX], uint64_t v) {
    size_t n = 0;
    for (; v > 0x7F; v >>= 7)
        b[n++] = (uint8_t)(v | 0x80);
    b[n++] = (uint8_t)v;
    return n;
}

static void number(cb_pb *p, uint64_t v) {
    uint8_t b[VARINT_MAX];
    cb_pb_raw(p, b, encode(b, v));
}

static void tag(cb_pb *p, uint32_t field, uint32_t type) {
    number(p, field << 3 | type);
}

void cb_pb_varint(cb_pb *p, uint32_t field, uint64_t v) {
    tag(p, field, VARINT);
    number(p, v);
}

void cb_pb_sint(cb_pb *p, uint32_t field, int64_t v) {
    cb_pb_varint(p, field, (uint64_t)v << 1 ^ (v < 0 ? UINT64_MAX : 0));
}

static void fixed(cb_pb *p, uint64_t v, size_t n) {
    uint8_t b[8];
    for (size_t i = 0; i < n; i++)
        b[i] = (uint8_t)(v >> (8 * i));
    cb_pb_raw(p, b, n);
}

void cb_pb_fixed64(cb_pb *p, uint32_t field, uint64_t v) {
    tag(p, field, FIXED64);
    fixed(p, v, 8);
}

void cb_pb_fixed32(cb_pb *p, uint32_t field, uint32_t v) {
    tag(p, field, FIXED32);
    fixed(p, v, 4);
}

void cb_pb_double(cb_pb *p, uint32_t field, double v) {
    uint64_t bits;
    memcpy(&bits, &v, sizeof bits);
    cb_pb_fixed64(p, field, bits);
}

void cb_pb_bytes(cb_pb *p, uint32_t field, const void *data, size_t len) {
    tag(p, field, BYTES);
    number(p, len);
    cb_pb_raw(p, data, len);
}

void cb_pb_text(cb_pb *p, uint32_t field, const char *text) {
    cb_pb_bytes(p, field, text, strlen(text));
}

size_t cb_pb_open_delimited(cb_pb *p) {
    size_t mark = p->out->len;
    cb_pb_raw(p, "", 1); /* room for a length below 128, which most have */
    return mark;
}

size_t cb_pb_open(cb_pb *p, uint32_t field) {
    tag(p, field, BYTES);
    return cb_pb_open_delimited(p);
}

void cb_pb_close(cb_pb *p, size_t mark) {
    uint8_t b[VARINT_MAX];
    if (p->rc < 0) return;
    size_t len = p->out->len - mark - 1, n = encode(b, len);
    cb_pb_raw(p, b, n - 1);
    if (p->rc < 0) return;
    if (n > 1) memmove(p->out->base + mark + n, p->out->base + mark + 1, len);
    memcpy(p->out->base + mark, b, n);
}
