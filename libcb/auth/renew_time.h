/* When to renew a certificate, whoever issued it, and when to try again. */
#ifndef CB_AUTH_RENEW_TIME_H
#define CB_AUTH_RENEW_TIME_H

#include <stdint.h>

/* After two thirds of its life, half of one under ten days; earlier by up to a twentieth of its life, which `spread` (0
 * to UINT32_MAX, 0 = not at all) says, so that certificates that were issued together are not all renewed together.
 * Seconds since 1970. */
int64_t cb_renew_at(int64_t not_before_s, int64_t not_after_s, uint32_t spread);
/* How many seconds to wait after the nth failure in a row (1 = the first): min_s, and twice as long each time, up to
 * max_s; less by up to a quarter, by `spread`. */
uint32_t cb_renew_wait(uint32_t failures, uint32_t min_s, uint32_t max_s, uint32_t spread);

#endif
