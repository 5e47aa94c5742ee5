#include "http/ws_key.h"
#include "base/base64.h"
#include "base/error.h"
#include <gnutls/crypto.h>
#include <string.h>

void cb_ws_key(char out[CB_WS_KEY + 1], const uint8_t random[16]) {
    cb_base64_encode(out, random, 16);
}

int cb_ws_accept(char out[CB_WS_ACCEPT + 1], cb_slice key) {
    static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    uint8_t text[CB_WS_KEY + sizeof guid], digest[20];
    if (key.len != CB_WS_KEY) return cb_fail(CB_EINVAL, "Sec-WebSocket-Key has %zu bytes, not %d", key.len, CB_WS_KEY);
    memcpy(text, key.base, CB_WS_KEY);
    memcpy(text + CB_WS_KEY, guid, sizeof guid - 1);
    if (gnutls_hash_fast(GNUTLS_DIG_SHA1, text, CB_WS_KEY + sizeof guid - 1, digest) < 0)
        return cb_fail(CB_ESYS, "SHA-1 is not available");
    cb_base64_encode(out, digest, sizeof digest);
    return CB_OK;
}
