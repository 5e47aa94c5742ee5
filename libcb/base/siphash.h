/* SipHash-2-4 (Aumasson, Bernstein 2012): a keyed hash for tables and masks that strangers feed. */
#ifndef CB_BASE_SIPHASH_H
#define CB_BASE_SIPHASH_H

#include <stddef.h>
#include <stdint.h>

uint64_t cb_siphash(const uint8_t key[16], const void *data, size_t len);

#endif
