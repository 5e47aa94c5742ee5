#include "support/h3_bytes.h"
#include <string.h>

void h3_number(cb_buf *b, uint8_t first, unsigned bits, size_t n) {
    uint8_t max = (uint8_t)((1U << bits) - 1), byte = (uint8_t)(first | (n < max ? n : max));
    cb_buf_add(b, &byte, 1);
    if (n < max) return;
    for (n -= max;; n >>= 7) {
        byte = (uint8_t)(n < 128 ? n : (n & 127) | 128);
        cb_buf_add(b, &byte, 1);
        if (n < 128) return;
    }
}

void h3_frame(cb_buf *b, uint8_t type, const void *data, size_t len) {
    uint8_t h[5] = {type, (uint8_t)(0x80 | len >> 24), (uint8_t)(len >> 16), (uint8_t)(len >> 8), (uint8_t)len};
    if (len >> 14) {
        cb_buf_add(b, h, sizeof h);
    } else {
        h[3] |= 0x40;
        cb_buf_add(b, h, 1);
        cb_buf_add(b, h + 3, 2);
    }
    cb_buf_add(b, data, len);
}

void h3_headers(cb_buf *b, const char *lines) {
    enum { HEADERS = 1 };
    cb_buf block;
    cb_buf_init(&block, NULL, 1 << 20);
    cb_buf_add(&block, "\0\0", 2);
    while (*lines) {
        size_t n = strcspn(lines, "\n");
        const char *sep = strstr(lines, "= ");
        size_t name = (size_t)(sep - lines), value = n - name - 2;
        h3_number(&block, 0x20, 3, name);
        cb_buf_add(&block, lines, name);
        h3_number(&block, 0, 7, value);
        cb_buf_add(&block, sep + 2, value);
        lines += n + (lines[n] == '\n');
    }
    h3_frame(b, HEADERS, block.base, block.len);
    cb_buf_free(&block);
}
