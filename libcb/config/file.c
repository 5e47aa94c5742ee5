#include "base/buf.h"
#include "base/error.h"
#include "base/mem.h"
#include "config/scan.h"
#include <cb/config.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

static int read_all(int fd, cb_buf *into, const char *file) {
    for (;;) {
        int rc = cb_buf_reserve(into, 16384);
        if (rc == CB_ELIMIT) return cb_fail(CB_ELIMIT, "%s: larger than 1 MiB", file);
        if (rc < 0) return rc;
        ssize_t n = read(fd, into->base + into->len, 16384);
        if (n == 0) return CB_OK;
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return cb_fail_errno(errno, "%s", file);
        into->len += (size_t)n;
    }
}

int cb_config_load(cb_config **out, const cb_config_schema *schema, const char *file, cb_config_error_fn on_error,
                   void *user) {
    if (!out || !schema || !file)
        return cb_fail(CB_EINVAL, "cb_config_load: %s is NULL", !out ? "out" : !schema ? "schema" : "file");
    cb_buf text;
    struct stat st;
    int fd = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return cb_fail_errno(errno, "%s", file);
    cb_buf_init(&text, &cb_alloc_libc, CB_CONFIG_BYTES + 16384 + 1);
    int rc = fstat(fd, &st) < 0     ? cb_fail_errno(errno, "%s", file)
             : !S_ISREG(st.st_mode) ? cb_fail(CB_EINVAL, "%s: not a regular file", file)
                                    : read_all(fd, &text, file);
    close(fd);
    if (rc == CB_OK) rc = cb_config_parse(out, schema, cb_buf_slice(&text), file, on_error, user);
    cb_buf_free(&text);
    return rc;
}
