#include "lb/aes_schedule.h"

/* Multiplication in GF(2^8) modulo x^8 + x^4 + x^3 + x + 1. No table, no branch on the key. */
static uint8_t gf_mul(uint8_t a, uint8_t b) {
    uint8_t sum = 0;
    for (int i = 0; i < 8; i++) {
        sum ^= (uint8_t)(-(b >> i & 1) & a);
        a = (uint8_t)(a << 1 ^ (-(a >> 7) & 0x1b));
    }
    return sum;
}

/* The S-box (FIPS 197, 5.1.1): the inverse, a to the power of 254, and the affine transformation. */
static uint8_t sub(uint8_t a) {
    uint8_t power = a, inverse = 1;
    for (int i = 1; i < 8; i++) {
        power = gf_mul(power, power);
        inverse = gf_mul(inverse, power);
    }
    uint8_t out = 0x63;
    for (int turn = 0; turn < 5; turn++)
        out ^= (uint8_t)(inverse << turn | inverse >> (8 - turn));
    return out;
}

static uint32_t sub_word(uint32_t w) {
    return (uint32_t)sub((uint8_t)(w >> 24)) << 24 | (uint32_t)sub((uint8_t)(w >> 16)) << 16 |
           (uint32_t)sub((uint8_t)(w >> 8)) << 8 | sub((uint8_t)w);
}

void cb_aes_schedule(uint32_t out[CB_AES_WORDS], const uint8_t key[16]) {
    uint8_t round = 1;
    for (int i = 0; i < 4; i++)
        out[i] = (uint32_t)key[4 * i] << 24 | (uint32_t)key[4 * i + 1] << 16 | (uint32_t)key[4 * i + 2] << 8 |
                 key[4 * i + 3];
    for (int i = 4; i < CB_AES_WORDS; i++) {
        uint32_t w = out[i - 1];
        if (i % 4 == 0) {
            w = sub_word(w << 8 | w >> 24) ^ (uint32_t)round << 24;
            round = gf_mul(round, 2);
        }
        out[i] = out[i - 4] ^ w;
    }
}
