#include "auth/acme_read.h"
#include "base/error.h"
#include <string.h>

/* cJSON recurses: nesting is bounded before it sees the text. */
static bool too_deep(cb_slice body) {
    unsigned depth = 0;
    bool quoted = false;
    for (size_t i = 0; i < body.len; i++) {
        const uint8_t c = body.base[i];
        if (quoted) {
            if (c == '\\') i++;
            if (c == '"') quoted = false;
        } else if (c == '"') {
            quoted = true;
        } else if (c == '{' || c == '[') {
            if (++depth > CB_ACME_DEPTH) return true;
        } else if ((c == '}' || c == ']') && depth > 0) {
            depth--;
        }
    }
    return false;
}

cJSON *cb_acme_json(cb_slice body) {
    const char *end = NULL;
    if (body.len == 0 || body.len > CB_ACME_ANSWER_BYTES || memchr(body.base, 0, body.len)) {
        cb_fail(CB_EPROTO, "%zu bytes that are no JSON text", body.len);
        return NULL;
    }
    if (too_deep(body)) {
        cb_fail(CB_EPROTO, "JSON nested deeper than %d", CB_ACME_DEPTH);
        return NULL;
    }
    cJSON *json = cJSON_ParseWithLengthOpts((const char *)body.base, body.len, &end, 0);
    size_t used = json ? (size_t)(end - (const char *)body.base) : 0;
    while (json && used < body.len && strchr(" \t\r\n", body.base[used]))
        used++;
    if (cJSON_IsObject(json) && used == body.len) return json;
    cJSON_Delete(json);
    cb_fail(CB_EPROTO, "not one JSON object (%zu bytes)", body.len);
    return NULL;
}
