#include "base/opts.h"
#include "base/error.h"
#include <string.h>

enum { SIZE_SANE = 64 * 1024 }; /* no options struct is larger; more is an uninitialised one */

int cb_opts_read(void *dst, size_t dst_size, const void *src, const char *name) {
    size_t size = 0;
    if (!src) {
        memset(dst, 0, dst_size);
        memcpy(dst, &dst_size, sizeof dst_size);
        return CB_OK;
    }
    memcpy(&size, src, sizeof size);
    if (size < sizeof size || size > SIZE_SANE)
        return cb_fail(CB_EINVAL, "%s: its size member is %zu; set it to sizeof(%s)", name, size, name);
    const uint8_t *bytes = src;
    for (size_t i = dst_size; i < size; i++)
        if (bytes[i])
            return cb_fail(CB_E2BIG, "%s: a member beyond byte %zu is set, which libcb %s does not know", name,
                           dst_size, cb_version_text());
    size_t known = size < dst_size ? size : dst_size;
    memcpy(dst, src, known);
    memset((uint8_t *)dst + known, 0, dst_size - known);
    memcpy(dst, &dst_size, sizeof dst_size);
    return CB_OK;
}
