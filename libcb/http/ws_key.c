#include "http/ws_key.h"
#include "base/error.h"
#include <gnutls/crypto.h>
#include <string.h>

static void base64(char *out, const uint8_t *in, size_t n) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < n; i += 3) {
        uint32_t v = (uint32_t)in[i] << 16 | (i + 1 < n ? (uint32_t)in[i + 1] << 8 : 0) | (i + 2 < n ? in[i + 2] : 0);
        *out++ = digits[v >> 18];
        *out++ = digits[v >> 12 & 63];
        *out++ = i + 1 < n ? digits[v >> 6 & 63] : '=';
        *out++ = i + 2 < n ? digits[v & 63] : '=';
    }
    *out = '\0';
}

void cb_ws_key(char out[CB_WS_KEY + 1], const uint8_t random[16]) {
    base64(out, random, 16);
}

int cb_ws_accept(char out[CB_WS_ACCEPT + 1], cb_slice key) {
    static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    uint8_t text[CB_WS_KEY + sizeof guid], digest[20];
    if (key.len != CB_WS_KEY) return cb_fail(CB_EINVAL, "Sec-WebSocket-Key has %zu bytes, not %d", key.len, CB_WS_KEY);
    memcpy(text, key.base, CB_WS_KEY);
    memcpy(text + CB_WS_KEY, guid, sizeof guid - 1);
    if (gnutls_hash_fast(GNUTLS_DIG_SHA1, text, CB_WS_KEY + sizeof guid - 1, digest) < 0)
        return cb_fail(CB_ESYS, "SHA-1 is not available");
    base64(out, digest, sizeof digest);
    return CB_OK;
}
