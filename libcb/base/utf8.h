/* UTF-8 (RFC 3629): no overlong forms, no surrogates, nothing above U+10FFFF. */
#ifndef CB_BASE_UTF8_H
#define CB_BASE_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The length of the sequence at p, of which `left` bytes (at least 1) are there; 0 when it is not valid. */
size_t cb_utf8_len(const unsigned char *p, size_t left);
/* Writes a code point (no surrogate, at most U+10FFFF) and returns its length, 1 to 4. */
size_t cb_utf8_put(char *out, uint32_t code);
bool cb_utf8_valid(const void *text, size_t len);

#endif
