#include "http/alt_svc.h"
#include "base/error.h"
#include "http/fields.h"
#include <string.h>

enum { MA_DEFAULT = 86400, TEXT_BYTES = 300 };

/* What is still to be read; errors are sticky. */
struct reader {
    const uint8_t *at, *end;
    bool bad;
};

static bool next_is(const struct reader *r, char c) {
    return r->at < r->end && *r->at == (uint8_t)c;
}

static void skip_space(struct reader *r) {
    while (next_is(r, ' ') || next_is(r, '\t'))
        r->at++;
}

static bool take(struct reader *r, char c) {
    if (!next_is(r, c)) return false;
    r->at++;
    return true;
}

static cb_slice read_token(struct reader *r) {
    const uint8_t *from = r->at;
    while (r->at < r->end && cb_token_lower[*r->at])
        r->at++;
    if (r->at == from) r->bad = true;
    return (cb_slice){from, (size_t)(r->at - from)};
}

/* A quoted-string without its quotes and backslashes, in out; too long a one is bad. */
static cb_slice read_quoted(struct reader *r, uint8_t out[TEXT_BYTES]) {
    size_t n = 0;
    if (!take(r, '"')) r->bad = true;
    while (!r->bad && !take(r, '"')) {
        (void)take(r, '\\');
        if (r->at == r->end || n == TEXT_BYTES || *r->at == 0x7f || (*r->at < ' ' && *r->at != '\t'))
            r->bad = true;
        else
            out[n++] = *r->at++;
    }
    return (cb_slice){out, n};
}

static cb_slice read_value(struct reader *r, uint8_t out[TEXT_BYTES]) {
    return next_is(r, '"') ? read_quoted(r, out) : read_token(r);
}

/* A decimal number; `most` when it is larger than that, -1 when it is none. */
static int64_t number(cb_slice s, int64_t most) {
    int64_t n = 0;
    for (size_t i = 0; i < s.len; i++) {
        if (s.base[i] < '0' || s.base[i] > '9') return -1;
        if (n <= most) n = n * 10 + (s.base[i] - '0');
    }
    if (s.len == 0) return -1;
    return n < most ? n : most;
}

static bool host_byte(uint8_t c, bool bracketed) {
    if (bracketed && c == ':') return true;
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_';
}

/* [uri-host] ":" port */
static bool read_authority(cb_alt_value *v, cb_slice text) {
    size_t colon = text.len, n = 0;
    while (colon && text.base[colon - 1] != ':')
        colon--;
    if (!colon--) return false;
    const int64_t port = number((cb_slice){text.base + colon + 1, text.len - colon - 1}, 65536);
    if (port < 1 || port > 65535) return false;
    v->port = (uint16_t)port;
    const bool bracketed = colon && text.base[0] == '[';
    if (bracketed && (colon < 4 || text.base[colon - 1] != ']')) return false;
    const size_t from = bracketed, to = colon - bracketed;
    if (to - from > CB_ALT_HOST_BYTES) return false;
    for (size_t i = from; i < to; i++) {
        const uint8_t c = text.base[i], low = c >= 'A' && c <= 'Z' ? (uint8_t)(c + 32) : c;
        if (!host_byte(low, bracketed)) return false;
        v->host[n++] = (char)low;
    }
    v->host[n] = '\0';
    return true;
}

static void read_parameters(struct reader *r, cb_alt_value *v) {
    uint8_t text[TEXT_BYTES];
    for (skip_space(r); !r->bad && take(r, ';'); skip_space(r)) {
        skip_space(r);
        const cb_slice name = read_token(r);
        if (r->bad || !take(r, '=')) {
            r->bad = true;
            return;
        }
        const cb_slice value = read_value(r, text);
        if (cb_slice_ieq(name, "ma")) {
            const int64_t ma = number(value, CB_ALT_MA_MAX);
            if (ma < 0)
                r->bad = true;
            else
                v->ma_s = (uint32_t)ma;
        } else if (cb_slice_ieq(name, "persist")) {
            v->persist = cb_slice_eq(value, "1"); /* other values are to be ignored */
        }
    }
}

/* True: it is of use. */
static bool read_one(struct reader *r, cb_alt_value *v) {
    uint8_t text[TEXT_BYTES];
    *v = (cb_alt_value){.ma_s = MA_DEFAULT};
    const cb_slice protocol = read_token(r);
    if (!take(r, '=')) r->bad = true;
    if (r->bad) return false;
    const cb_slice authority = read_quoted(r, text);
    if (r->bad) return false;
    const bool ours = cb_slice_eq(protocol, "h3"); /* exactly so: it is a percent-encoded ALPN name */
    const bool good = read_authority(v, authority);
    if (ours && !good) r->bad = true;
    read_parameters(r, v);
    return ours && !r->bad;
}

int cb_alt_svc_read(cb_slice value, cb_alt_value *out, size_t cap, bool *clear) {
    struct reader r = {value.base, value.base + value.len, false};
    cb_alt_value v;
    size_t n = 0;
    *clear = false;
    if (value.len > CB_ALT_VALUE_BYTES) return cb_fail(CB_ELIMIT, "Alt-Svc: %zu bytes", value.len);
    while (r.end > r.at && (r.end[-1] == ' ' || r.end[-1] == '\t'))
        r.end--;
    skip_space(&r);
    if (cb_slice_eq((cb_slice){r.at, (size_t)(r.end - r.at)}, "clear")) { /* case-sensitive */
        *clear = true;
        return 0;
    }
    while (!r.bad && r.at < r.end) { /* empty elements are allowed in a list (RFC 9110, 5.6.1.2) */
        skip_space(&r);
        if (take(&r, ',')) continue;
        if (read_one(&r, &v) && n < cap) out[n++] = v;
        skip_space(&r);
        if (r.at < r.end && !take(&r, ',')) r.bad = true;
    }
    return r.bad ? cb_fail(CB_EPROTO, "Alt-Svc: malformed near byte %zu", (size_t)(r.at - value.base)) : (int)n;
}
