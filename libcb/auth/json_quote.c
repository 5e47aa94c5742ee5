#include "auth/json.h"
#include "base/error.h"
#include "base/utf8.h"
#include <string.h>

int cb_json_quote(cb_buf *b, const char *text) {
    size_t len = strlen(text);
    if (!cb_utf8_valid(text, len)) return cb_fail(CB_EINVAL, "\"%.60s\" is not UTF-8", text);
    int rc = cb_buf_text(b, "\"");
    for (size_t i = 0; i < len && rc == CB_OK; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c < 0x20)
            rc = cb_buf_printf(b, "\\u%04x", c);
        else
            rc = c == '"' || c == '\\' ? cb_buf_printf(b, "\\%c", c) : cb_buf_add(b, text + i, 1);
    }
    return rc == CB_OK ? cb_buf_text(b, "\"") : rc;
}
