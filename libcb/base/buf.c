#include "base/buf.h"
#include "base/error.h"
#include "base/mem.h"
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { BUF_MIN = 128 };

void cb_buf_init(cb_buf *b, const cb_alloc *alloc, size_t max) {
    *b = (cb_buf){.max = max, .alloc = alloc};
}

void cb_buf_free(cb_buf *b) {
    cb_mem_free(b->alloc, b->base);
    cb_buf_init(b, b->alloc, b->max);
}

int cb_buf_grow(cb_buf *b, size_t more) {
    if (b->len > b->max || more > b->max - b->len)
        return cb_fail(CB_ELIMIT, "a buffer would grow past its limit of %zu bytes", b->max);
    size_t want = b->len + more;
    size_t cap = b->cap > SIZE_MAX / 2 ? want : b->cap * 2;
    if (cap < BUF_MIN) cap = BUF_MIN;
    if (cap < want) cap = want;
    if (cap > b->max) cap = b->max;
    /* One byte more than we say: vsnprintf() ends its text with NUL, also in a buffer filled to the brim. */
    uint8_t *base = cap < SIZE_MAX ? cb_mem_grow(b->alloc, b->base, cap + 1) : NULL;
    if (!base) return cb_fail(CB_ENOMEM, "no memory for a buffer of %zu bytes", cap);
    b->base = base;
    b->cap = cap;
    return CB_OK;
}

int cb_buf_add(cb_buf *b, const void *data, size_t len) {
    if (!len) return CB_OK;
    int rc = cb_buf_reserve(b, len);
    if (rc < 0) return rc;
    memcpy(b->base + b->len, data, len);
    b->len += len;
    return CB_OK;
}

int cb_buf_text(cb_buf *b, const char *text) {
    return cb_buf_add(b, text, strlen(text));
}

int cb_buf_printf(cb_buf *b, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    size_t room = b->base ? b->cap - b->len + 1 : 0;
    int n = vsnprintf(room ? (char *)b->base + b->len : NULL, room, fmt, ap);
    va_end(ap);
    if (n < 0) return cb_fail(CB_EINVAL, "a text could not be formatted");
    if ((size_t)n >= room && n > 0) {
        int rc = cb_buf_reserve(b, (size_t)n);
        if (rc < 0) return rc;
        va_start(ap, fmt);
        vsnprintf((char *)b->base + b->len, (size_t)n + 1, fmt, ap);
        va_end(ap);
    }
    b->len += (size_t)n;
    return CB_OK;
}

void cb_buf_drop(cb_buf *b, size_t n) {
    if (n >= b->len) {
        b->len = 0;
        return;
    }
    if (n) memmove(b->base, b->base + n, b->len - n);
    b->len -= n;
}
