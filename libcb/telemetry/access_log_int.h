/* What the proxy asks of an access log. */
#ifndef CB_TELEMETRY_ACCESS_LOG_INT_H
#define CB_TELEMETRY_ACCESS_LOG_INT_H

#include <cb/access_log.h>

/* Names, in lower case, of the response fields that its lines have. */
const char *const *cb_access_log_response_fields(const cb_access_log *log, size_t *n);

#endif
