#include "base/utf8.h"

size_t cb_utf8_len(const unsigned char *p, size_t left) {
    static const struct {
        unsigned char from, to, second_from, second_to;
        size_t len;
    } forms[] = {{0x00, 0x7f, 0x80, 0xbf, 1}, {0xc2, 0xdf, 0x80, 0xbf, 2}, {0xe0, 0xe0, 0xa0, 0xbf, 3},
                 {0xe1, 0xec, 0x80, 0xbf, 3}, {0xed, 0xed, 0x80, 0x9f, 3}, {0xee, 0xef, 0x80, 0xbf, 3},
                 {0xf0, 0xf0, 0x90, 0xbf, 4}, {0xf1, 0xf3, 0x80, 0xbf, 4}, {0xf4, 0xf4, 0x80, 0x8f, 4}};
    for (size_t f = 0; f < sizeof forms / sizeof *forms; f++) {
        if (*p < forms[f].from || *p > forms[f].to) continue;
        if (forms[f].len > left) return 0;
        if (forms[f].len > 1 && (p[1] < forms[f].second_from || p[1] > forms[f].second_to)) return 0;
        for (size_t i = 2; i < forms[f].len; i++)
            if ((p[i] & 0xc0) != 0x80) return 0;
        return forms[f].len;
    }
    return 0;
}

size_t cb_utf8_put(char *out, uint32_t code) {
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    size_t n = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    for (size_t i = n; i-- > 1; code >>= 6)
        out[i] = (char)(0x80 | (code & 0x3f));
    out[0] = (char)((0xf00 >> n & 0xff) | code);
    return n;
}

bool cb_utf8_valid(const void *text, size_t len) {
    const unsigned char *p = text;
    for (size_t at = 0, n = 0; at < len; at += n) {
        n = cb_utf8_len(p + at, len - at);
        if (!n) return false;
    }
    return true;
}
