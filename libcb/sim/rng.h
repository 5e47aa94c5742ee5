/* Random numbers that follow from a seed: splitmix64 to spread it, xoshiro256++ (Blackman, Vigna) for the rest. Not for
 * secrets. */
#ifndef CB_SIM_RNG_H
#define CB_SIM_RNG_H

#include <stdbool.h>
#include <stdint.h>

typedef struct sim_rng {
    uint64_t s[4];
} sim_rng;

static inline uint64_t sim_mix(uint64_t x) {
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

/* Generators of one seed and different streams have nothing to do with each other. */
static inline void sim_rng_init(sim_rng *r, uint64_t seed, uint64_t stream) {
    uint64_t x = sim_mix(seed + 0x9e3779b97f4a7c15u) ^ sim_mix(stream * 0xd1342543de82ef95u + 1);
    for (int i = 0; i < 4; i++)
        r->s[i] = sim_mix(x += 0x9e3779b97f4a7c15u);
}

static inline uint64_t sim_rng_next(sim_rng *r) {
    uint64_t *s = r->s, sum = s[0] + s[3], out = (sum << 23 | sum >> 41) + s[0], t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = s[3] << 45 | s[3] >> 19;
    return out;
}

/* [0, 1) */
static inline double sim_rng_unit(sim_rng *r) {
    return (double)(sim_rng_next(r) >> 11) * 0x1p-53;
}

/* [0, n); n > 0. The bias is below n / 2^64. */
static inline uint64_t sim_rng_below(sim_rng *r, uint64_t n) {
    return (uint64_t)(((unsigned __int128)sim_rng_next(r) * n) >> 64);
}

/* True with this probability; draws nothing for 0. */
static inline bool sim_rng_hit(sim_rng *r, double probability) {
    return probability > 0 && sim_rng_unit(r) < probability;
}

#endif
