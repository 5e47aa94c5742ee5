/* Texts of the network, made fit for what telemetry leaves in. */
#ifndef CB_TELEMETRY_TEXT_H
#define CB_TELEMETRY_TEXT_H

#include "base/buf.h"

/* Adds value as valid UTF-8 without NUL: what is neither becomes U+FFFD. At most max bytes, cut between characters. */
int cb_text_clean(cb_buf *out, cb_slice value, size_t max);
/* The same as a JSON string with its quotes; max counts before escapes. */
int cb_text_json(cb_buf *out, cb_slice value, size_t max);
/* Bytes as lower-case hexadecimal digits. */
int cb_text_hex(cb_buf *out, const uint8_t *bytes, size_t n);

#endif
