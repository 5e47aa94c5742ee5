#include "auth/ca_int.h"
#include "base/error.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FILES_MAX = 4 };

int cb_ca_path(char out[CB_CA_PATH], const char *dir, const char *stem, const char *tail) {
    int n = snprintf(out, CB_CA_PATH, "%s/%s%s", dir, stem, tail);
    return n > 0 && n < CB_CA_PATH ? CB_OK : cb_fail(CB_EINVAL, "%s/%s: the path is too long", dir, stem);
}

static int write_whole(const char *path, const gnutls_datum_t *text, mode_t mode) {
    if (unlink(path) < 0 && errno != ENOENT) return cb_fail_errno(errno, "%s", path);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    if (fd < 0) return cb_fail_errno(errno, "%s", path);
    size_t done = 0;
    int err = 0;
    while (done < text->size && !err) {
        ssize_t n = write(fd, text->data + done, text->size - done);
        if (n >= 0) done += (size_t)n;
        if (n < 0 && errno != EINTR) err = errno;
    }
    if (!err && fsync(fd) < 0) err = errno;
    if (close(fd) < 0 && !err) err = errno;
    if (!err) return CB_OK;
    unlink(path);
    return cb_fail_errno(err, "%s", path);
}

int cb_ca_write(const char *dir, const char *stem, const struct cb_ca_file *files, size_t n) {
    char place[FILES_MAX][CB_CA_PATH], fresh[FILES_MAX][CB_CA_PATH];
    size_t written = 0;
    int rc = n <= FILES_MAX ? CB_OK : cb_fail(CB_EINVAL, "more than %d files at once", FILES_MAX);
    for (size_t i = 0; rc >= 0 && i < n; i++) {
        rc = cb_ca_path(place[i], dir, stem, files[i].tail);
        if (rc >= 0 && snprintf(fresh[i], CB_CA_PATH, "%s.new", place[i]) >= CB_CA_PATH) {
            rc = cb_fail(CB_EINVAL, "%s: the path is too long", place[i]);
        }
        if (rc >= 0) rc = write_whole(fresh[i], &files[i].text, files[i].mode);
        if (rc >= 0) written++;
    }
    for (size_t i = 0; rc >= 0 && i < n; i++) {
        if (rename(fresh[i], place[i]) < 0) rc = cb_fail_errno(errno, "%s", place[i]);
    }
    for (size_t i = 0; rc < 0 && i < written; i++) {
        unlink(fresh[i]);
    }
    return rc;
}

int cb_ca_lock(const char *dir, bool make, int *out) {
    if (make && mkdir(dir, 0700) < 0 && errno != EEXIST) return cb_fail_errno(errno, "%s", dir);
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return cb_fail_errno(errno, "%s", dir);
    while (flock(fd, LOCK_EX) < 0) {
        int err = errno;
        if (err == EINTR) continue;
        close(fd);
        return cb_fail_errno(err, "%s", dir);
    }
    *out = fd;
    return CB_OK;
}
