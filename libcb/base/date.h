/* Dates of the Gregorian calendar in UTC. */
#ifndef CB_BASE_DATE_H
#define CB_BASE_DATE_H

#include <stdint.h>

enum { CB_DATE_BYTES = 64 };

/* RFC 3339 with milliseconds: "2026-11-25T21:08:38.123Z". ms: since 1970. */
void cb_date_text(char out[CB_DATE_BYTES], int64_t ms);

#endif
