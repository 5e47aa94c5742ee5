/* Base64url without padding (RFC 4648 5, RFC 7515 2), strictly: one text for each sequence of bytes. */
#ifndef CB_AUTH_BASE64URL_H
#define CB_AUTH_BASE64URL_H

#include <cb/base.h>

/* How many bytes a text of len characters holds at most, and how many characters n bytes take. */
static inline size_t cb_base64url_room(size_t len) {
    return len / 4 * 3 + 2;
}
static inline size_t cb_base64url_chars(size_t n) {
    return (n * 4 + 2) / 3;
}
/* Decodes into out (cb_base64url_room() bytes, may begin where text does) and returns the length; CB_EINVAL for any
 * other character, padding, a lone last character, or unused bits that are not zero. */
int64_t cb_base64url_decode(void *out, const void *text, size_t len);
/* Encodes n bytes, with a NUL after them (cb_base64url_chars() + 1 bytes). Returns the length without it. */
size_t cb_base64url_encode(char *out, const void *bytes, size_t n);

#endif
