/* Apart from error.c, so that libcb-xdp can have its own copy: the detail itself lives in libcb only. */
#include "base/error.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { DETAIL_BYTES = 1024 };

int cb_vfail(int rc, const char *fmt, va_list ap) {
    /* By way of a copy: the arguments may include the detail of an earlier failure. */
    char text[DETAIL_BYTES];
    if (vsnprintf(text, sizeof text, fmt, ap) < 0) text[0] = '\0';
    return cb_error_set(rc, text);
}

int cb_fail(int rc, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    cb_vfail(rc, fmt, ap);
    va_end(ap);
    return rc;
}

static int from_errno(int err) {
    switch (err) {
    case EEXIST:
    case EADDRINUSE:
        return CB_EEXIST;
    case EPERM:
    case EACCES:
        return CB_EPERM;
    case ENOENT:
        return CB_ENOENT;
    case ENOMEM:
    case EMFILE:
    case ENFILE:
    case ENOBUFS:
        return CB_ENOMEM;
    case ETIMEDOUT:
        return CB_ETIMEOUT;
    case ECONNREFUSED:
    case ECONNRESET:
    case EHOSTUNREACH:
    case ENETUNREACH:
    case ENETDOWN:
    case EHOSTDOWN:
        return CB_EUNREACH;
    default:
        return CB_ESYS;
    }
}

int cb_fail_errno(int err, const char *fmt, ...) {
    char text[DETAIL_BYTES];
    va_list ap;
    va_start(ap, fmt);
    if (vsnprintf(text, sizeof text, fmt, ap) < 0) text[0] = '\0';
    va_end(ap);
    const char *name = strerrordesc_np(err);
    if (!name) return cb_fail(from_errno(err), "%s: errno %d", text, err);
    return cb_fail(from_errno(err), "%s: %s", text, name);
}
