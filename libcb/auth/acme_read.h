/* Reading what an ACME server says, which is not trusted. */
#ifndef CB_AUTH_ACME_READ_H
#define CB_AUTH_ACME_READ_H

#include "base/buf.h"
#include <cjson/cJSON.h>
#include <stdbool.h>

enum { CB_ACME_URL_BYTES = 1024, CB_ACME_DEPTH = 16, CB_ACME_ANSWER_BYTES = 131072, CB_ACME_TOKEN_BYTES = 256 };

/* One JSON object of bounded depth, to be freed with cJSON_Delete(); NULL with the detail. */
cJSON *cb_acme_json(cb_slice body);
/* Is the media type of a Content-Type (without parameters) this one? */
bool cb_acme_is_type(cb_slice content_type, const char *want);
/* CB_EPROTO unless url is harmless https text of the same origin as base (any origin with `any`). */
int cb_acme_url_check(const char *url, const char *base, bool any, const char *what);
/* Only base64url characters, 1 to max of them. */
bool cb_acme_is_token(const char *text, size_t len, size_t max);
/* Copies text without bytes that trouble terminals and logs. */
void cb_acme_plain(char *out, size_t cap, const char *text);
/* Retry-After: seconds or an HTTP-date, in milliseconds since 1970; 0 when absent or senseless. At most a week ahead.
 */
int64_t cb_acme_retry_after(cb_slice value, int64_t now_ms);
/* RFC 3339; seconds since 1970, or CB_EPROTO. */
int64_t cb_acme_date(const char *text);
/* A JSON string with quotes. */
int cb_acme_put_text(cb_buf *out, const char *text);

#endif
