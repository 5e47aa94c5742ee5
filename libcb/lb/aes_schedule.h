/* The key schedule of AES-128 (FIPS 197, 5.2), for programs that have their own rounds: bpf/fw_cid.h. Nettle has one
 * too, but what is inside its contexts is its own business, and libcb-xdp needs nothing else of it. */
#ifndef CB_LB_AES_SCHEDULE_H
#define CB_LB_AES_SCHEDULE_H

#include <stdint.h>

enum { CB_AES_WORDS = 44 };

/* w[0..43] of FIPS 197: the first byte of a word is its most significant one. */
void cb_aes_schedule(uint32_t out[CB_AES_WORDS], const uint8_t key[16]);

#endif
