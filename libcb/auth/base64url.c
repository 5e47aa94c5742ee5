#include "auth/base64url.h"

/* The value of each character plus one; 0 = none of the alphabet. */
static const uint8_t values[256] = {
    ['A'] = 1,  ['B'] = 2,  ['C'] = 3,  ['D'] = 4,  ['E'] = 5,  ['F'] = 6,  ['G'] = 7,  ['H'] = 8,
    ['I'] = 9,  ['J'] = 10, ['K'] = 11, ['L'] = 12, ['M'] = 13, ['N'] = 14, ['O'] = 15, ['P'] = 16,
    ['Q'] = 17, ['R'] = 18, ['S'] = 19, ['T'] = 20, ['U'] = 21, ['V'] = 22, ['W'] = 23, ['X'] = 24,
    ['Y'] = 25, ['Z'] = 26, ['a'] = 27, ['b'] = 28, ['c'] = 29, ['d'] = 30, ['e'] = 31, ['f'] = 32,
    ['g'] = 33, ['h'] = 34, ['i'] = 35, ['j'] = 36, ['k'] = 37, ['l'] = 38, ['m'] = 39, ['n'] = 40,
    ['o'] = 41, ['p'] = 42, ['q'] = 43, ['r'] = 44, ['s'] = 45, ['t'] = 46, ['u'] = 47, ['v'] = 48,
    ['w'] = 49, ['x'] = 50, ['y'] = 51, ['z'] = 52, ['0'] = 53, ['1'] = 54, ['2'] = 55, ['3'] = 56,
    ['4'] = 57, ['5'] = 58, ['6'] = 59, ['7'] = 60, ['8'] = 61, ['9'] = 62, ['-'] = 63, ['_'] = 64};
static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

int64_t cb_base64url_decode(void *out, const void *text, size_t len) {
    const uint8_t *p = text, *end = p + len / 4 * 4;
    uint8_t *to = out;
    for (; p < end; p += 4, to += 3) {
        uint32_t a = values[p[0]], b = values[p[1]], c = values[p[2]], d = values[p[3]];
        if (!a || !b || !c || !d) return CB_EINVAL;
        uint32_t bits = (a - 1) << 18 | (b - 1) << 12 | (c - 1) << 6 | (d - 1);
        to[0] = (uint8_t)(bits >> 16);
        to[1] = (uint8_t)(bits >> 8);
        to[2] = (uint8_t)bits;
    }
    size_t rest = len % 4;
    if (rest == 1) return CB_EINVAL;
    if (rest) {
        uint32_t a = values[p[0]], b = values[p[1]], c = rest == 3 ? values[p[2]] : 1;
        if (!a || !b || !c) return CB_EINVAL;
        uint32_t bits = (a - 1) << 18 | (b - 1) << 12 | (c - 1) << 6;
        if (bits & (rest == 2 ? 0xffffu : 0xffu)) return CB_EINVAL;
        *to++ = (uint8_t)(bits >> 16);
        if (rest == 3) *to++ = (uint8_t)(bits >> 8);
    }
    return to - (uint8_t *)out;
}

size_t cb_base64url_encode(char *out, const void *bytes, size_t n) {
    const uint8_t *p = bytes;
    char *to = out;
    for (; n >= 3; n -= 3, p += 3) {
        uint32_t bits = (uint32_t)p[0] << 16 | (uint32_t)p[1] << 8 | p[2];
        *to++ = alphabet[bits >> 18];
        *to++ = alphabet[bits >> 12 & 63];
        *to++ = alphabet[bits >> 6 & 63];
        *to++ = alphabet[bits & 63];
    }
    if (n) {
        uint32_t bits = (uint32_t)p[0] << 16 | (n == 2 ? (uint32_t)p[1] << 8 : 0);
        *to++ = alphabet[bits >> 18];
        *to++ = alphabet[bits >> 12 & 63];
        if (n == 2) *to++ = alphabet[bits >> 6 & 63];
    }
    *to = '\0';
    return (size_t)(to - out);
}
