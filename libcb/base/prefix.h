/* Prefixes of IP addresses. IPv4 is kept v4-mapped, so that one comparison serves both families. */
#ifndef CB_BASE_PREFIX_H
#define CB_BASE_PREFIX_H

#include <cb/base.h>
#include <stdbool.h>

typedef struct cb_prefix {
    uint8_t bytes[16];
    uint8_t bits;
} cb_prefix;

/* Reads "10.0.0.0/8", "2001:db8::/32" or "::1"; bits beyond the length are dropped. CB_EINVAL. */
int cb_prefix_parse(cb_prefix *out, const char *text);
/* Is the address, v4-mapped where it is IPv4, within? */
bool cb_prefix_has(const cb_prefix *p, const uint8_t address[16]);
/* The bytes of "192.0.2.1" (v4-mapped) or "2001:db8::1"; *shift is 96 or 0: where its own bits begin. */
bool cb_prefix_address(uint8_t out[16], const char *text, uint8_t *shift);

#endif
