/* The keys of WebSocket's HTTP/1.1 handshake (RFC 6455, 4). F1. */
#ifndef CB_HTTP_WS_KEY_H
#define CB_HTTP_WS_KEY_H

#include <cb/base.h>

enum { CB_WS_KEY = 24, CB_WS_ACCEPT = 28 };

void cb_ws_key(char out[CB_WS_KEY + 1], const uint8_t random[16]); /* Sec-WebSocket-Key */
int cb_ws_accept(char out[CB_WS_ACCEPT + 1], cb_slice key);        /* Sec-WebSocket-Accept; CB_EINVAL, CB_ESYS */

#endif
