#include "telemetry/text.h"
#include "base/utf8.h"
#include <stdbool.h>

static const char digits[] = "0123456789abcdef";

/* The next character of value at *at, as it will stand: its bytes, and how many of value it took. */
static cb_slice next(cb_slice value, size_t at, size_t *took) {
    size_t n = cb_utf8_len(value.base + at, value.len - at);
    bool good = n > 0 && value.base[at] != 0;
    *took = good ? n : 1;
    return good ? (cb_slice){value.base + at, n} : (cb_slice){(const uint8_t *)"\xEF\xBF\xBD", 3};
}

int cb_text_clean(cb_buf *out, cb_slice value, size_t max) {
    int rc = CB_OK;
    for (size_t i = 0, used = 0, took; i < value.len && rc >= 0; i += took) {
        cb_slice c = next(value, i, &took);
        if ((used += c.len) > max) break;
        rc = cb_buf_add(out, c.base, c.len);
    }
    return rc;
}

int cb_text_json(cb_buf *out, cb_slice value, size_t max) {
    int rc = cb_buf_add(out, "\"", 1);
    for (size_t i = 0, used = 0, took; i < value.len && rc >= 0; i += took) {
        cb_slice c = next(value, i, &took);
        if ((used += c.len) > max) break;
        uint8_t b = *c.base;
        if (b == '"' || b == '\\')
            rc = cb_buf_add(out, (const char[]){'\\', (char)b}, 2);
        else if (b < 0x20 || b == 0x7F)
            rc = cb_buf_add(out, (const char[]){'\\', 'u', '0', '0', digits[b >> 4], digits[b & 15]}, 6);
        else
            rc = cb_buf_add(out, c.base, c.len);
    }
    return rc < 0 ? rc : cb_buf_add(out, "\"", 1);
}

int cb_text_hex(cb_buf *out, const uint8_t *bytes, size_t n) {
    int rc = CB_OK;
    for (size_t i = 0; i < n && rc >= 0; i++)
        rc = cb_buf_add(out, (const char[]){digits[bytes[i] >> 4], digits[bytes[i] & 15]}, 2);
    return rc;
}
