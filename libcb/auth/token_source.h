/* When a token is renewed. */
#ifndef CB_AUTH_TOKEN_SOURCE_H
#define CB_AUTH_TOKEN_SOURCE_H

#include <stdint.h>

/* How long after a token of this lifetime came the next is asked for: 80 % of it, less up to a tenth of the lifetime by
 * chance (random: any number); a second at least. */
int64_t cb_token_renew_ms(int64_t lifetime_ms, uint32_t random);
/* And after the n-th failure in a row (from 1): 1 s, twice as long each time up to 60 s, less up to a quarter. */
int64_t cb_token_retry_ms(unsigned n, uint32_t random);

#endif
