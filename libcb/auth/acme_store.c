#include "auth/acme_store.h"
#include "base/error.h"
#include "base/mem.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static bool ends_with(const char *name, const char *end) {
    const size_t n = strlen(name), len = strlen(end);
    return n > len && strcmp(name + n - len, end) == 0;
}

/* What a process left that was killed while it wrote. The next write of the same file would take it over. */
static void drop_unfinished(const cb_acme_store *s) {
    static const char *const ends[] = {".pem~", ".order~", ".key~", ".new~", ".json~"};
    const int copy = openat(s->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = copy < 0 ? NULL : fdopendir(copy);
    if (copy >= 0 && !d) close(copy);
    for (struct dirent *e; d && (e = readdir(d));)
        for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
            if (ends_with(e->d_name, ends[i])) unlinkat(s->fd, e->d_name, 0);
    if (d) closedir(d);
}

int cb_acme_store_open(cb_acme_store *s, const char *dir) {
    s->fd = -1;
    s->dir = cb_mem_text(&cb_alloc_libc, dir);
    if (!s->dir) return cb_fail(CB_ENOMEM, "no memory for a path");
    if (mkdir(dir, 0700) < 0 && errno != EEXIST) return cb_fail_errno(errno, "%s", dir);
    s->fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (s->fd < 0) return cb_fail_errno(errno, "%s", dir);
    if (flock(s->fd, LOCK_EX | LOCK_NB) == 0) {
        drop_unfinished(s);
        return CB_OK;
    }
    if (errno == EWOULDBLOCK) return cb_fail(CB_EEXIST, "%s: another process uses it", dir);
    return cb_fail_errno(errno, "%s", dir);
}

void cb_acme_store_close(cb_acme_store *s) {
    if (s->fd >= 0) close(s->fd);
    cb_mem_free(&cb_alloc_libc, s->dir);
    s->fd = -1;
    s->dir = NULL;
}

int cb_acme_store_read(const cb_acme_store *s, const char *file, cb_buf *out) {
    uint8_t piece[4096];
    int fd = openat(s->fd, file, O_RDONLY | O_CLOEXEC | O_NOFOLLOW), rc = CB_OK;
    if (fd < 0) return cb_fail_errno(errno, "%s/%s", s->dir, file);
    while (rc >= 0) {
        ssize_t n = read(fd, piece, sizeof piece);
        if (n == 0) break;
        if (n < 0 && errno == EINTR) continue;
        rc = n < 0 ? cb_fail_errno(errno, "%s/%s", s->dir, file) : cb_buf_add(out, piece, (size_t)n);
    }
    cb_mem_wipe(piece, sizeof piece);
    close(fd);
    return rc;
}

static int write_all(int fd, cb_slice data) {
    while (data.len) {
        ssize_t n = write(fd, data.base, data.len);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return errno;
        data.base += n;
        data.len -= (size_t)n;
    }
    return fsync(fd) < 0 ? errno : 0;
}

int cb_acme_store_write(const cb_acme_store *s, const char *file, cb_slice data) {
    char fresh[320];
    snprintf(fresh, sizeof fresh, "%s~", file);
    int fd = openat(s->fd, fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) return cb_fail_errno(errno, "%s/%s", s->dir, fresh);
    int err = fchmod(fd, 0600) < 0 ? errno : write_all(fd, data);
    if (close(fd) < 0 && !err) err = errno;
    if (err) {
        unlinkat(s->fd, fresh, 0);
        return cb_fail_errno(err, "%s/%s", s->dir, fresh);
    }
    return cb_acme_store_rename(s, fresh, file);
}

int cb_acme_store_rename(const cb_acme_store *s, const char *from, const char *to) {
    if (renameat(s->fd, from, s->fd, to) < 0 || fsync(s->fd) < 0) return cb_fail_errno(errno, "%s/%s", s->dir, to);
    return CB_OK;
}

int cb_acme_store_remove(const cb_acme_store *s, const char *file) {
    if (unlinkat(s->fd, file, 0) < 0 && errno != ENOENT) return cb_fail_errno(errno, "%s/%s", s->dir, file);
    return CB_OK;
}

void cb_acme_store_name(char out[300], const char *name, const char *tail) {
    snprintf(out, 300, "%.260s%s", name, tail);
    for (char *p = out; *p; p++) {
        if (*p == '*' || *p == ':' || *p == '/') *p = '_';
        if (*p >= 'A' && *p <= 'Z') *p = (char)(*p - 'A' + 'a');
    }
}
