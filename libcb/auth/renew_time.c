#include "auth/renew_time.h"

enum { TEN_DAYS = 10 * 86400, JITTER = 20, SHIFT_MAX = 20 };

int64_t cb_renew_at(int64_t begin, int64_t end, uint32_t spread) {
    const int64_t life = end > begin ? end - begin : 0;
    const int64_t due = life < TEN_DAYS ? life / 2 : life / 3 * 2;
    return begin + due - (int64_t)((double)(life / JITTER) * spread / UINT32_MAX);
}

uint32_t cb_renew_wait(uint32_t failures, uint32_t min_s, uint32_t max_s, uint32_t spread) {
    const uint32_t shift = failures > SHIFT_MAX ? SHIFT_MAX : failures ? failures - 1 : 0;
    uint64_t wait = (uint64_t)min_s << shift;
    if (wait > max_s) wait = max_s;
    wait -= (uint64_t)((double)(wait / 4) * spread / UINT32_MAX);
    return wait ? (uint32_t)wait : 1;
}
