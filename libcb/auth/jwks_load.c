#include "base/error.h"
#include "base/mem.h"
#include "base/opts.h"
#include <cb/auth.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>

enum { FILE_BYTES = 1024 * 1024 };

static int read_file(const char *path, char **out, size_t *len) {
    FILE *f = fopen(path, "rbe");
    if (!f) return cb_fail_errno(errno, "keys \"%s\"", path);
    char *text = cb_mem_get(&cb_alloc_libc, FILE_BYTES + 1);
    int rc = text ? CB_OK : cb_fail(CB_ENOMEM, "no memory for \"%s\"", path);
    if (rc == CB_OK) *len = fread(text, 1, FILE_BYTES + 1, f);
    if (rc == CB_OK && ferror(f)) rc = cb_fail_errno(errno, "keys \"%s\"", path);
    if (rc == CB_OK && *len > FILE_BYTES) rc = cb_fail(CB_ELIMIT, "keys \"%s\": more than 1 MiB", path);
    fclose(f);
    if (rc < 0) {
        cb_mem_free(&cb_alloc_libc, text);
        return rc;
    }
    *out = text;
    return CB_OK;
}

int cb_jwks_load(cb_jwks **out, const char *path, int alg, const cb_jwks_opts *opts) {
    cb_jwks_opts o;
    char *text = NULL, why[512];
    size_t len = 0, at = 0;
    if (!out || !path) return cb_fail(CB_EINVAL, "cb_jwks_load: out and path are needed");
    int rc = cb_opts_read(&o, sizeof o, opts, "cb_jwks_opts");
    if (rc == CB_OK) rc = read_file(path, &text, &len);
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
