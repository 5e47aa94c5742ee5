#include <cb/base.h>
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

int cb_error_set(int rc, const char *detail) {
    if (!detail) detail = "";
    size_t n = strnlen(detail, sizeof last_detail - 1);
    memmove(last_detail, detail, n); /* the detail may be the last one itself */
    last_detail[n] = '\0';
    return rc;
}
