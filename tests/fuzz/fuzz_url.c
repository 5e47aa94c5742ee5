/* A URL that is taken must be safe to put into a request line, and must read the same when written again. */
#include "http/url.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static char text[4096], again[8192];
    cb_url a, b;
    if (size >= sizeof text) return 0;
    memcpy(text, data, size);
    text[size] = '\0';
    if (cb_url_parse(&a, text) < 0) return 0;
    for (size_t i = 0; i < a.target.len; i++)
        if (a.target.base[i] <= ' ' || a.target.base[i] >= 0x7f) abort();
    snprintf(again, sizeof again, "%s://%s%s%.*s", a.tls ? "https" : "http", a.authority, a.add_slash ? "/" : "",
             (int)a.target.len, (const char *)a.target.base);
    if (cb_url_parse(&b, again) < 0 || b.add_slash || strcmp(a.host, b.host) != 0 || a.port != b.port) abort();
    return 0;
}
