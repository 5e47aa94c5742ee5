/* Base64 with padding (RFC 4648 4). */
#ifndef CB_BASE_BASE64_H
#define CB_BASE_BASE64_H

#include <stddef.h>

/* How many characters n bytes take, without the NUL. */
static inline size_t cb_base64_chars(size_t n) {
    return (n + 2) / 3 * 4;
}
/* Writes them, and a NUL. */
void cb_base64_encode(char *out, const void *bytes, size_t n);

#endif
