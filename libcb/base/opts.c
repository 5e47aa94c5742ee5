#include "base/opts.h"
#include "base/error.h"
#include <string.h>

enum { SIZE_SANE = 64 * 1024 }; /* no options struct is larger; more is an uninitialised one */

static int sane_size(size_t *size, const void *src, size_t least, const char *name) {
    memcpy(size, src, sizeof *size);
    if (*size >= least && *size <= SIZE_SANE) return CB_OK;
    return cb_fail(CB_EINVAL, "%s: its size member is %zu; set it to sizeof(%s)", name, *size, name);
}

static int unknown_tail(const uint8_t *bytes, size_t known, size_t size, const char *name) {
    for (size_t i = known; i < size; i++)
        if (bytes[i])
            return cb_fail(CB_E2BIG, "%s: a member beyond byte %zu is set, which libcb %s does not know", name, known,
                           cb_version_text());
    return CB_OK;
}

int cb_opts_read(void *dst, size_t dst_size, const void *src, const char *name) {
    size_t size = 0;
    if (!src) {
        memset(dst, 0, dst_size);
        memcpy(dst, &dst_size, sizeof dst_size);
        return CB_OK;
    }
    int rc = sane_size(&size, src, sizeof size, name);
    if (rc == CB_OK) rc = unknown_tail(src, dst_size, size, name);
    if (rc < 0) return rc;
    size_t known = size < dst_size ? size : dst_size;
    memcpy(dst, src, known);
    memset((uint8_t *)dst + known, 0, dst_size - known);
    memcpy(dst, &dst_size, sizeof dst_size);
    return CB_OK;
}

int cb_ops_check(const void *ops, size_t known, const char *name) {
    size_t size = 0;
    int rc = sane_size(&size, ops, known, name);
    return rc < 0 ? rc : unknown_tail(ops, known, size, name);
}

int cb_stats_give(void *out, const void *all, size_t known, const char *name) {
    size_t size = 0, filled = 0;
    if (!out) return cb_fail(CB_EINVAL, "%s: out is NULL", name);
    int rc = sane_size(&size, out, sizeof size, name);
    if (rc < 0) return rc;
    filled = size < known ? size : known;
    memcpy(out, all, filled);
    memset((uint8_t *)out + filled, 0, size - filled);
    memcpy(out, &filled, sizeof filled);
    return CB_OK;
}
