/* A mixer of 64 bits for numbers that no stranger chooses (the finalizer of SplitMix64): places of members in a table,
 * and what tables have to have in common. Part of the format: it never changes. */
#ifndef CB_LB_MIX_H
#define CB_LB_MIX_H

#include <stdint.h>

static inline uint64_t cb_lb_mix(uint64_t x) {
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

#endif
