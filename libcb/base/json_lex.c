#include "base/json_lex.h"
#include <string.h>

enum { NUMBER_BYTES = 60 }; /* cJSON reads no more */

static size_t digits(const char *text, size_t len, size_t at) {
    const size_t from = at;
    while (at < len && text[at] >= '0' && text[at] <= '9')
        at++;
    return at - from;
}

size_t cb_json_lex_number(const char *text, size_t len, const char **wrong) {
    size_t at = len && text[0] == '-', n = digits(text, len, at);
    *wrong = "this is not a number of JSON";
    if (!n || (n > 1 && text[at] == '0')) return 0;
    at += n;
    if (at < len && text[at] == '.') {
        n = digits(text, len, ++at);
        if (!n) return 0;
        at += n;
    }
    if (at < len && (text[at] == 'e' || text[at] == 'E')) {
        at++;
        if (at < len && (text[at] == '+' || text[at] == '-')) at++;
        n = digits(text, len, at);
        if (!n) return 0;
        at += n;
    }
    if (at <= NUMBER_BYTES) return at;
    *wrong = "this number is too long";
    return 0;
}

/* The four digits of "\uXXXX" at the beginning of text; -1: it is not that. */
static int unicode(const char *text, size_t len) {
    int v = 0;
    if (len < 6 || text[0] != '\\' || text[1] != 'u') return -1;
    for (size_t i = 2; i < 6; i++) {
        const char c = text[i];
        const int d = c >= '0' && c <= '9'   ? c - '0'
                      : c >= 'a' && c <= 'f' ? c - 'a' + 10
                      : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                             : -1;
        if (d < 0) return -1;
        v = v << 4 | d;
    }
    return v;
}

size_t cb_json_lex_escape(const char *text, size_t len, uint32_t *code, const char **wrong) {
    static const char from[] = "\"\\/bfnrt", means[] = "\"\\/\b\f\n\r\t";
    const char *found = len > 1 && text[1] ? strchr(from, text[1]) : NULL;
    if (found) {
        *code = (uint32_t)means[found - from];
        return 2;
    }
    const int v = unicode(text, len);
    *wrong = v < 0 ? "this escape is not one of JSON's" : "\\u0000 cannot be part of a text";
    if (v <= 0) return 0;
    *code = (uint32_t)v;
    if (v < 0xd800 || v > 0xdfff) return 6;
    const int low = v < 0xdc00 ? unicode(text + 6, len - 6) : -1;
    *wrong = "half of a surrogate pair";
    if (low < 0xdc00 || low > 0xdfff) return 0;
    *code = 0x10000 + (((uint32_t)v & 0x3ff) << 10) + ((uint32_t)low & 0x3ff);
    return 12;
}
