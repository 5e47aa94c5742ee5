/* W3C Trace Context Level 2: the fields traceparent and tracestate. */
#include "base/error.h"
#include <cb/trace.h>
#include <stdbool.h>
#include <string.h>

enum { STATE_BYTES = 512, STATE_MEMBERS = 32, KEY_BYTES = 256, VALUE_BYTES = 256 };

/* Two lower-case digits; -1 for anything else: upper case is not allowed. */
static int octet(const uint8_t *p) {
    int v = 0;
    for (int i = 0; i < 2; i++) {
        if (p[i] >= '0' && p[i] <= '9')
            v = v * 16 + p[i] - '0';
        else if (p[i] >= 'a' && p[i] <= 'f')
            v = v * 16 + p[i] - 'a' + 10;
        else
            return -1;
    }
    return v;
}

/* n octets, of which one at least is not zero. */
static bool id(uint8_t *out, const uint8_t *p, size_t n) {
    uint8_t any = 0;
    for (size_t i = 0; i < n; i++) {
        int v = octet(p + 2 * i);
        if (v < 0) return false;
        any |= out[i] = (uint8_t)v;
    }
    return any != 0;
}

int cb_trace_context_parse(cb_trace_context *out, cb_slice t) {
    enum { TRACE = 3, SPAN = 36, FLAGS = 53 };
    cb_trace_context c = {.size = sizeof c};
    if (!out || out->size < sizeof c)
        return cb_fail(CB_EINVAL, "cb_trace_context_parse: out, and its size, are needed");
    if (t.len < CB_TRACEPARENT_BYTES) return cb_fail(CB_EPROTO, "traceparent of %zu bytes", t.len);
    int version = octet(t.base), flags = octet(t.base + FLAGS);
    bool dashes = t.base[TRACE - 1] == '-' && t.base[SPAN - 1] == '-' && t.base[FLAGS - 1] == '-';
    bool end = t.len == CB_TRACEPARENT_BYTES || (version > 0 && t.base[CB_TRACEPARENT_BYTES] == '-');
    if (version < 0 || version == 0xFF || flags < 0 || !dashes || !end)
        return cb_fail(CB_EPROTO, "traceparent is malformed");
    if (!id(c.trace_id, t.base + TRACE, 16) || !id(c.span_id, t.base + SPAN, 8))
        return cb_fail(CB_EPROTO, "traceparent has an ID that is none");
    c.flags = (uint8_t)flags & (CB_TRACE_SAMPLED | CB_TRACE_RANDOM);
    *out = c;
    return CB_OK;
}

void cb_trace_context_text(const cb_trace_context *c, char out[CB_TRACEPARENT_BYTES + 1]) {
    static const char digits[] = "0123456789abcdef";
    uint8_t bytes[1 + 16 + 8 + 1] = {0};
    memcpy(bytes + 1, c->trace_id, 16);
    memcpy(bytes + 17, c->span_id, 8);
    bytes[25] = c->flags;
    for (size_t i = 0; i < sizeof bytes; i++) {
        if (i == 1 || i == 17 || i == 25) *out++ = '-';
        *out++ = digits[bytes[i] >> 4];
        *out++ = digits[bytes[i] & 15];
    }
    *out = '\0';
}

static bool key_byte(uint8_t c, bool first) {
    if ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9')) return true;
    return !first && (c == '_' || c == '-' || c == '*' || c == '/' || c == '@');
}

/* key=value: the length of the key, or 0 when it is malformed. */
static size_t member(cb_slice m) {
    const uint8_t *equals = memchr(m.base, '=', m.len);
    size_t key = equals ? (size_t)(equals - m.base) : 0, value = equals ? m.len - key - 1 : 0;
    if (key == 0 || key > KEY_BYTES || value == 0 || value > VALUE_BYTES || m.base[m.len - 1] == ' ') return 0;
    for (size_t i = 0; i < key; i++)
        if (!key_byte(m.base[i], i == 0)) return 0;
    for (size_t i = key + 1; i < m.len; i++)
        if (m.base[i] < 0x20 || m.base[i] > 0x7E || m.base[i] == '=' || m.base[i] == ',') return 0;
    return key;
}

int cb_tracestate_valid(cb_slice s) {
    cb_slice keys[STATE_MEMBERS];
    size_t n = 0, at = 0;
    if (s.len == 0 || s.len > STATE_BYTES) return 0;
    while (at < s.len) {
        const uint8_t *comma = memchr(s.base + at, ',', s.len - at);
        cb_slice m = {s.base + at, comma ? (size_t)(comma - s.base) - at : s.len - at};
        at += m.len + 1;
        while (m.len > 0 && (*m.base == ' ' || *m.base == '\t'))
            m.base++, m.len--;
        while (m.len > 0 && (m.base[m.len - 1] == ' ' || m.base[m.len - 1] == '\t'))
            m.len--;
        if (m.len == 0) continue; /* empty members are allowed */
        size_t key = member(m);
        if (key == 0 || n == STATE_MEMBERS) return 0;
        for (size_t i = 0; i < n; i++)
            if (keys[i].len == key && memcmp(keys[i].base, m.base, key) == 0) return 0;
        keys[n++] = (cb_slice){m.base, key};
    }
    return n > 0;
}
