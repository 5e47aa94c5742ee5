/* What must not get into logs and traces: secrets in fields and in URLs. F1. */
#ifndef CB_TELEMETRY_REDACT_H
#define CB_TELEMETRY_REDACT_H

#include <cb/base.h>
#include <stdbool.h>

enum { CB_REDACT_MAX = 2048 }; /* bytes of a text that are looked at; what is longer is cut */

#define CB_REDACTED "REDACTED"

/* Does a field of this name (in any case) carry a secret: credentials, cookies, tokens, keys, signatures? */
bool cb_redact_field(cb_slice name);
/* Is the value of such a field a URL, in which only parts are secret? */
bool cb_redact_is_url(cb_slice name);
/* The path with query (or a whole URL) with REDACTED for the values of parameters whose names look secret, for those
 * of the path (";name=value") too, and for a password before the host. `out` has CB_REDACT_MAX bytes, and is used only
 * when there is something to hide or to cut; *cut says whether it was cut. */
cb_slice cb_redact_url(cb_slice url, char *out, bool *cut);

#endif
