#include "sim/waits.h"

/* Below 2^BITS a bucket a value; above, 2^BITS buckets a power of two. */
static unsigned bucket_of(uint64_t ns) {
    if (ns >> SIM_WAIT_BITS == 0) return (unsigned)ns;
    unsigned high = 63 - (unsigned)__builtin_clzll(ns), shift = high - SIM_WAIT_BITS;
    return ((shift + 1) << SIM_WAIT_BITS) + (unsigned)(ns >> shift & ((1u << SIM_WAIT_BITS) - 1));
}

static uint64_t middle_of(unsigned bucket) {
    if (bucket >> SIM_WAIT_BITS == 0) return bucket;
    unsigned shift = (bucket >> SIM_WAIT_BITS) - 1;
    uint64_t low = (uint64_t)(1u << SIM_WAIT_BITS | (bucket & ((1u << SIM_WAIT_BITS) - 1))) << shift;
    return low + ((uint64_t)1 << shift) / 2;
}

void sim_waits_add(sim_waits *w, uint64_t ns) {
    w->n++;
    w->sum += (double)ns;
    if (ns > w->max) w->max = ns;
    w->bucket[bucket_of(ns)]++;
}

uint64_t sim_waits_mean(const sim_waits *w) {
    return w->n ? (uint64_t)(w->sum / (double)w->n) : 0;
}

uint64_t sim_waits_at(const sim_waits *w, double share) {
    uint64_t rank = (uint64_t)(share * (double)w->n), seen = 0;
    if (!w->n) return 0;
    if (rank >= w->n) return w->max;
    for (unsigned i = 0; i < SIM_WAIT_BUCKETS; i++) {
        seen += w->bucket[i];
        if (seen > rank) return middle_of(i) < w->max ? middle_of(i) : w->max;
    }
    return w->max;
}
