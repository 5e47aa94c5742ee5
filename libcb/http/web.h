/* Reading what servers of the web say that are not trusted: media types, URLs, waits, texts for people. */
#ifndef CB_HTTP_WEB_H
#define CB_HTTP_WEB_H

#include "base/buf.h"
#include <stdbool.h>

enum { CB_WEB_URL_BYTES = 1024 };

/* Is the media type of a Content-Type (without parameters) this one? */
bool cb_web_is_type(cb_slice content_type, const char *want);
/* CB_EPROTO unless url is harmless https text of the same origin as base (any origin with `any`). */
int cb_web_url_check(const char *url, const char *base, bool any, const char *what);
/* Only base64url characters, 1 to max of them. */
bool cb_web_is_token(const char *text, size_t len, size_t max);
/* Copies text without bytes that trouble terminals and logs. */
void cb_web_plain(char *out, size_t cap, const char *text);
/* Retry-After: seconds or an HTTP-date, in milliseconds since 1970; 0 when absent or senseless. At most a week ahead.
 */
int64_t cb_web_retry_after(cb_slice value, int64_t now_ms);
/* RFC 3339; seconds since 1970, or CB_EPROTO. */
int64_t cb_web_date(const char *text);
/* A JSON string with quotes. */
int cb_web_put_text(cb_buf *out, const char *text);

#endif
