#include "base/error.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { DETAIL_BYTES = 1024 };

static _Thread_local char last_detail[DETAIL_BYTES];

static const char *const names[] = {
    [-CB_OK] = "CB_OK: success",
    [-CB_EINVAL] = "CB_EINVAL: not valid",
    [-CB_ENOMEM] = "CB_ENOMEM: out of memory",
    [-CB_EAGAIN] = "CB_EAGAIN: not now, try again later",
    [-CB_ECLOSED] = "CB_ECLOSED: closed",
    [-CB_ETIMEOUT] = "CB_ETIMEOUT: timed out",
    [-CB_EPROTO] = "CB_EPROTO: the peer broke the protocol",
    [-CB_ETLS] = "CB_ETLS: TLS failed",
    [-CB_EAUTH] = "CB_EAUTH: authentication failed",
    [-CB_EDNS] = "CB_EDNS: name resolution failed",
    [-CB_ESYS] = "CB_ESYS: a system call failed",
    [-CB_ELIMIT] = "CB_ELIMIT: a limit was reached",
    [-CB_E2BIG] = "CB_E2BIG: options newer than this library",
    [-CB_ENOTSUP] = "CB_ENOTSUP: not supported",
    [-CB_EUSER] = "CB_EUSER: a callback failed",
    [-CB_ENOENT] = "CB_ENOENT: not found",
    [-CB_EEXIST] = "CB_EEXIST: exists already or in use",
    [-CB_EPERM] = "CB_EPERM: permission denied",
    [-CB_EUNREACH] = "CB_EUNREACH: the peer cannot be reached",
};

const char *cb_strerror(int rc) {
    if (rc >= 0) return names[0];
    if (rc < -(int)(sizeof names / sizeof *names) + 1) return "unknown error";
    return names[-rc];
}

const char *cb_last_error(void) {
    return last_detail;
}

int cb_vfail(int rc, const char *fmt, va_list ap) {
    /* By way of a copy: the arguments may include the detail of an earlier failure. */
    char text[DETAIL_BYTES];
    if (vsnprintf(text, sizeof text, fmt, ap) < 0) text[0] = '\0';
    memcpy(last_detail, text, sizeof last_detail);
    return rc;
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
