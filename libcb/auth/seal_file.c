/* Sealed files. */
#include "auth/disk.h"
#include "base/buf.h"
#include "base/error.h"
#include "base/mem.h"
#include <cb/seal.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PATH_ROOM = 4096, HEAD_ROOM = 2048 };

static int replace(const char *path, cb_slice bytes) {
    char fresh[PATH_ROOM];
    int n = snprintf(fresh, sizeof fresh, "%s.new", path);
    if (n < 0 || (size_t)n >= sizeof fresh) return cb_fail(CB_EINVAL, "%.80s...: the path is too long", path);
    if (unlink(fresh) < 0 && errno != ENOENT) return cb_fail_errno(errno, "%s", fresh);
    int fd = open(fresh, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) return cb_fail_errno(errno, "%s", fresh);
    int err = cb_disk_write(fd, bytes);
    if (!err && fsync(fd) < 0) err = errno;
    if (close(fd) < 0 && !err) err = errno;
    if (!err && rename(fresh, path) < 0) err = errno;
    if (err) {
        unlink(fresh);
        return cb_fail_errno(err, "%s", path);
    }
    err = cb_disk_sync_folder(path); /* the new name is on the disk only when the folder is */
    return err ? cb_fail_errno(err, "the folder of %s", path) : CB_OK;
}

int cb_seal_write(const cb_seal *s, const char *path, const char *purpose, cb_slice plain) {
    uint8_t *sealed = NULL;
    size_t len = 0;
    if (!path) return cb_fail(CB_EINVAL, "cb_seal_write: path is NULL");
    int rc = cb_seal_close(s, purpose, plain, &sealed, &len);
    if (rc == CB_OK) rc = replace(path, (cb_slice){sealed, len});
    cb_seal_free(sealed, len);
    return rc;
}

static int read_file(cb_buf *into, const char *path) {
    struct stat st;
    ssize_t n = 1;
    int rc = CB_OK, fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0) return cb_fail_errno(errno, "%s", path);
    if (fstat(fd, &st) < 0) rc = cb_fail_errno(errno, "%s", path);
    if (rc == CB_OK && !S_ISREG(st.st_mode)) rc = cb_fail(CB_EINVAL, "%s: not a regular file", path);
    while (rc == CB_OK && n) {
        rc = cb_buf_reserve(into, 16384);
        if (rc == CB_ELIMIT) rc = cb_fail(rc, "%s: larger than any sealed file", path);
        n = rc < 0 ? 0 : read(fd, into->base + into->len, 16384);
        if (n > 0) into->len += (size_t)n;
        if (n < 0 && errno != EINTR) rc = cb_fail_errno(errno, "%s", path);
    }
    close(fd);
    return rc;
}

int cb_seal_read(const cb_seal *s, const char *path, const char *purpose, uint8_t **out, size_t *len, int32_t *stale) {
    cb_buf sealed;
    if (!path) return cb_fail(CB_EINVAL, "cb_seal_read: path is NULL");
    cb_buf_init(&sealed, &cb_alloc_libc, CB_SEAL_BYTES_MAX + HEAD_ROOM + 16384);
    int rc = read_file(&sealed, path);
    if (rc == CB_OK) {
        rc = cb_seal_open(s, purpose, cb_buf_slice(&sealed), out, len, stale);
        char why[256];
        snprintf(why, sizeof why, "%s", cb_last_error());
        if (rc < 0) rc = cb_fail(rc, "%s: %s", path, why);
    }
    cb_buf_free(&sealed);
    return rc;
}

int cb_seal_renew(const cb_seal *s, const char *path, const char *purpose, int force) {
    uint8_t *plain = NULL;
    size_t len = 0;
    int32_t stale = 0;
    int rc = cb_seal_read(s, path, purpose, &plain, &len, &stale);
    if (rc == CB_OK && (stale || force)) {
        rc = cb_seal_write(s, path, purpose, (cb_slice){plain, len});
        if (rc == CB_OK) rc = 1;
    }
    cb_seal_free(plain, len);
    return rc;
}
