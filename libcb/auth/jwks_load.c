#include "auth/file.h"
#include "base/error.h"
#include "base/mem.h"
#include "base/opts.h"
#include <cb/auth.h>
#include <stdbool.h>
#include <stdio.h>

enum { FILE_BYTES = 1024 * 1024 };

int cb_jwks_load(cb_jwks **out, const char *path, int alg, const cb_jwks_opts *opts) {
    cb_jwks_opts o;
    char *text = NULL, why[512];
    size_t len = 0, at = 0;
    if (!out || !path) return cb_fail(CB_EINVAL, "cb_jwks_load: out and path are needed");
    int rc = cb_opts_read(&o, sizeof o, opts, "cb_jwks_opts");
    if (rc == CB_OK) rc = cb_file_read(&text, &len, path, "keys", FILE_BYTES);
    if (rc < 0) return rc;
    while (at < len && (text[at] == ' ' || text[at] == '\t' || text[at] == '\r' || text[at] == '\n'))
        at++;
    const cb_slice all = {(const uint8_t *)text, len};
    const cb_jwk_opts pem = {.size = sizeof pem, .pem = all, .alg = alg};
    const cb_jwk_opts *one = &pem;
    bool json = at < len && text[at] == '{';
    if (!json && o.keys_len) {
        rc = cb_fail(CB_EINVAL, "a PEM file is the only key");
    } else {
        o.json = json ? all : (cb_slice){0};
        if (!json) {
            o.keys = &one;
            o.keys_len = 1;
        }
        rc = cb_jwks_new(out, &o);
    }
    cb_mem_wipe(text, len);
    cb_mem_free(&cb_alloc_libc, text);
    if (rc >= 0) return rc;
    snprintf(why, sizeof why, "%s", cb_last_error());
    return cb_fail(rc, "keys \"%s\": %s", path, why);
}
