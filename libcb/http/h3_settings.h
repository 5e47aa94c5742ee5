/* Finds SETTINGS_ENABLE_CONNECT_PROTOCOL (RFC 9220, 5) at the beginning of a server's control stream. nghttp3 1.8
 * checks and reports the other settings, but leaves this one out on a client. A core. */
#ifndef CB_HTTP_H3_SETTINGS_H
#define CB_HTTP_H3_SETTINGS_H

#include <cb/base.h>
#include <stdbool.h>

typedef struct cb_h3_settings {
    uint64_t value, id, left; /* left: bytes of the SETTINGS frame */
    uint8_t state, need;      /* need: bytes of the integer that are to come */
    bool connect, bad;        /* found, and 1; neither 0 nor 1 */
} cb_h3_settings;             /* zeroed: at the beginning of the stream */

/* Reads bytes of the stream; what follows SETTINGS, or is none, is left alone. */
void cb_h3_settings_feed(cb_h3_settings *s, cb_slice in);

#endif
