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

static int write_whole(const char *path, const struct cb_ca_place *file) {
    struct stat old;
    bool there = file->keep && stat(file->path, &old) == 0;
    if (unlink(path) < 0 && errno != ENOENT) return cb_fail_errno(errno, "%s", path);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, there ? 0600 : file->mode);
    if (fd < 0) return cb_fail_errno(errno, "%s", path);
    size_t done = 0;
    int err = 0;
    while (done < file->text.size && !err) {
        ssize_t n = write(fd, file->text.data + done, file->text.size - done);
        if (n >= 0) done += (size_t)n;
        if (n < 0 && errno != EINTR) err = errno;
    }
    bool mine = !there || (old.st_uid == geteuid() && old.st_gid == getegid());
    if (!err && !mine && fchown(fd, old.st_uid, old.st_gid) < 0) err = errno;
    if (!err && there && fchmod(fd, old.st_mode & 07777) < 0) err = errno;
    if (!err && fsync(fd) < 0) err = errno;
    if (close(fd) < 0 && !err) err = errno;
    if (!err) return CB_OK;
    unlink(path);
    return cb_fail_errno(err, "%s", path);
}

int cb_ca_replace(const struct cb_ca_place *files, size_t n) {
    char fresh[FILES_MAX][CB_CA_PATH];
    size_t written = 0;
    int rc = n <= FILES_MAX ? CB_OK : cb_fail(CB_EINVAL, "more than %d files at once", FILES_MAX);
    for (size_t i = 0; rc >= 0 && i < n; i++) {
        if (snprintf(fresh[i], CB_CA_PATH, "%s.new", files[i].path) >= CB_CA_PATH) {
            rc = cb_fail(CB_EINVAL, "%s: the path is too long", files[i].path);
        }
        if (rc >= 0) rc = write_whole(fresh[i], &files[i]);
        if (rc >= 0) written++;
    }
    for (size_t i = 0; rc >= 0 && i < n; i++) {
        if (rename(fresh[i], files[i].path) < 0) rc = cb_fail_errno(errno, "%s", files[i].path);
    }
    for (size_t i = 0; rc < 0 && i < written; i++) {
        unlink(fresh[i]);
    }
    return rc;
}

int cb_ca_write(const char *dir, const char *stem, const struct cb_ca_file *files, size_t n) {
    char path[FILES_MAX][CB_CA_PATH];
    struct cb_ca_place places[FILES_MAX];
    int rc = n <= FILES_MAX ? CB_OK : cb_fail(CB_EINVAL, "more than %d files at once", FILES_MAX);
    for (size_t i = 0; rc >= 0 && i < n; i++) {
        rc = cb_ca_path(path[i], dir, stem, files[i].tail);
        places[i] = (struct cb_ca_place){path[i], files[i].text, files[i].mode, false};
    }
    return rc < 0 ? rc : cb_ca_replace(places, n);
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
