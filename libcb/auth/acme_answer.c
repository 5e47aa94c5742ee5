/* Answers to challenges. */
#include "auth/acme_jws.h"
#include "auth/acme_read.h"
#include "base/error.h"
#include <cb/acme.h>
#include <stdio.h>
#include <string.h>

int64_t cb_acme_http01(char *out, size_t cap, const char *thumbprint, cb_slice path) {
    static const char prefix[] = "/.well-known/acme-challenge/";
    const size_t skip = sizeof prefix - 1;
    if (!out || cap < CB_ACME_HTTP01_BYTES)
        return cb_fail(CB_EINVAL, "cb_acme_http01: out has fewer than %d bytes", CB_ACME_HTTP01_BYTES);
    if (!thumbprint || strlen(thumbprint) != CB_ACME_THUMBPRINT ||
        !cb_web_is_token(thumbprint, CB_ACME_THUMBPRINT, CB_ACME_THUMBPRINT)) {
        return cb_fail(CB_EINVAL, "cb_acme_http01: not a thumbprint");
    }
    if (path.len <= skip || memcmp(path.base, prefix, skip) != 0 ||
        !cb_web_is_token((const char *)path.base + skip, path.len - skip, CB_ACME_TOKEN_BYTES)) {
        return CB_ENOENT;
    }
    return snprintf(out, cap, "%.*s.%s", (int)(path.len - skip), (const char *)path.base + skip, thumbprint);
}
