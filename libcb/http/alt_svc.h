/* The Alt-Svc field (RFC 7838, 3): where else an origin serves. */
#ifndef CB_HTTP_ALT_SVC_H
#define CB_HTTP_ALT_SVC_H

#include <cb/base.h>
#include <stdbool.h>

enum { CB_ALT_HOST_BYTES = 255, CB_ALT_VALUE_BYTES = 4096, CB_ALT_MA_MAX = 30 * 86400 };

/* One alternative of protocol h3; those of others are no use to us and are left out. */
typedef struct cb_alt_value {
    char host[CB_ALT_HOST_BYTES + 1]; /* lower case, without brackets; "" = the origin's own */
    uint16_t port;
    bool persist;  /* survives a change of the network */
    uint32_t ma_s; /* fresh for so long; at most CB_ALT_MA_MAX */
} cb_alt_value;

/* Reads a field value. Returns how many alternatives were written to out, in the sender's order of preference: at most
 * cap, the rest is left out. *clear: the origin takes back all that it said (RFC 7838, 3). CB_EPROTO: malformed, all of
 * it is to be ignored; CB_ELIMIT: longer than CB_ALT_VALUE_BYTES. */
int cb_alt_svc_read(cb_slice value, cb_alt_value *out, size_t cap, bool *clear);

#endif
