/* How long packets waited: exact mean and maximum, and percentiles from buckets that are about 1.6 % wide. */
#ifndef CB_SIM_WAITS_H
#define CB_SIM_WAITS_H

#include <stdint.h>

enum { SIM_WAIT_BITS = 6, SIM_WAIT_BUCKETS = (64 - SIM_WAIT_BITS + 1) << SIM_WAIT_BITS };

typedef struct sim_waits {
    uint64_t n, max;
    double sum;
    uint64_t bucket[SIM_WAIT_BUCKETS];
} sim_waits;

void sim_waits_add(sim_waits *w, uint64_t ns);
uint64_t sim_waits_mean(const sim_waits *w);
/* The value that this share (0 to 1) of the packets did not exceed: the middle of its bucket, at most max. */
uint64_t sim_waits_at(const sim_waits *w, double share);

#endif
