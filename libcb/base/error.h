/* Results with a detail for the person: `return cb_fail(CB_EINVAL, "listen \"%s\": ...", text);` */
#ifndef CB_BASE_ERROR_H
#define CB_BASE_ERROR_H

#include <cb/base.h>
#include <stdarg.h>

/* Stores the detail for this thread and returns rc. Long texts are cut. */
int cb_fail(int rc, const char *fmt, ...) __attribute__((format(printf, 2, 3), cold));
int cb_vfail(int rc, const char *fmt, va_list ap) __attribute__((format(printf, 2, 0), cold));

/* As cb_fail, with ": " and errno's text after it; picks CB_EEXIST, CB_EPERM, CB_ENOENT, CB_ENOMEM,
 * CB_EUNREACH or CB_ETIMEOUT where errno says so, else CB_ESYS. err is an errno value. */
int cb_fail_errno(int err, const char *fmt, ...) __attribute__((format(printf, 2, 3), cold));

#endif
