#include "auth/ca_int.h"
#include "base/error.h"
#include "base/mem.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FIELDS = 6 };
#define HEAD "libcb ca index 1\n"

static const cb_alloc *const heap = &cb_alloc_libc;

/* The whole file with a NUL behind it; an absent one is empty. */
static int slurp(const char *path, char **out, size_t *len) {
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    *out = NULL;
    *len = 0;
    if (fd < 0 && errno == ENOENT) return CB_OK;
    if (fd < 0) return cb_fail_errno(errno, "%s", path);
    int rc = fstat(fd, &st) < 0 ? cb_fail_errno(errno, "%s", path) : CB_OK;
    if (rc >= 0 && !(*out = cb_mem_new(heap, (size_t)st.st_size + 1))) rc = cb_fail(CB_ENOMEM, "%s: no memory", path);
    while (rc >= 0 && *len < (size_t)st.st_size) {
        ssize_t n = read(fd, *out + *len, (size_t)st.st_size - *len);
        if (n < 0 && errno != EINTR) rc = cb_fail_errno(errno, "%s", path);
        if (n == 0) break;
        if (n > 0) *len += (size_t)n;
    }
    close(fd);
    return rc;
}

static bool number(const char *text, int64_t *out) {
    char *end;
    errno = 0;
    *out = strtoll(text, &end, 10);
    return *text && !*end && errno == 0;
}

cb_ca_entry *cb_ca_index_find(const cb_ca_index *index, const char *serial) {
    for (size_t i = index->len; i-- > 0;) { /* the newest are asked for most */
        if (strcmp(index->entries[i].serial, serial) == 0) return &index->entries[i];
    }
    return NULL;
}

static int add_issued(cb_ca_index *x, char *const f[FIELDS]) {
    cb_ca_entry e = {.size = sizeof e, .serial = f[1], .names = f[5]};
    int64_t profile;
    if (!number(f[2], &e.not_before_s) || !number(f[3], &e.not_after_s) || !number(f[4], &profile)) return CB_EINVAL;
    e.profile = (int32_t)profile;
    if ((x->len & (x->len - 1)) == 0) { /* full at each power of two */
        cb_ca_entry *grown = cb_mem_grow(heap, x->entries, (x->len ? 2 * x->len : 1) * sizeof e);
        if (!grown) return CB_ENOMEM;
        x->entries = grown;
    }
    x->entries[x->len++] = e;
    return CB_OK;
}

static int add_line(cb_ca_index *x, char *line) {
    char *f[FIELDS] = {0};
    size_t n = 0;
    for (char *rest = line; n < FIELDS && rest;) {
        f[n++] = strsep(&rest, "\t");
        if (n == FIELDS && rest) return CB_EINVAL;
    }
    if (n == 6 && strcmp(f[0], "issued") == 0) return add_issued(x, f);
    int64_t a, b;
    if (n != 4 || !number(f[2], &a) || !number(f[3], &b)) return CB_EINVAL;
    if (strcmp(f[0], "revoked") == 0) {
        cb_ca_entry *e = cb_ca_index_find(x, f[1]);
        if (!e) return CB_EINVAL;
        e->revoked_s = a;
        e->reason = (int32_t)b;
        return CB_OK;
    }
    if (strcmp(f[0], "crl") != 0 || !number(f[1], &a) || a <= 0) return CB_EINVAL;
    x->crl_number = (uint64_t)a;
    return CB_OK;
}

int cb_ca_index_read(cb_ca_index *out, const char *dir) {
    char path[CB_CA_PATH];
    cb_ca_index x = {0};
    size_t len, line = 1;
    int rc = cb_ca_path(path, dir, "index", "");
    if (rc >= 0) rc = slurp(path, &x.text, &len);
    if (rc >= 0 && x.text && len >= strlen(HEAD)) {
        if (strncmp(x.text, HEAD, strlen(HEAD)) != 0) rc = cb_fail(CB_EINVAL, "%s: not an index of a CA", path);
        char *p = x.text + strlen(HEAD), *end;
        for (; rc >= 0 && (end = memchr(p, '\n', len - (size_t)(p - x.text))); p = end + 1) {
            *end = '\0';
            line++;
            rc = strlen(p) == (size_t)(end - p) ? add_line(&x, p) : CB_EINVAL;
            if (rc == CB_EINVAL) cb_fail(rc, "%s:%zu: the index is damaged here", path, line);
            if (rc == CB_ENOMEM) cb_fail(rc, "%s: no memory", path);
        }
    }
    if (rc < 0) {
        cb_ca_index_clear(&x);
        return rc;
    }
    *out = x;
    return CB_OK;
}

void cb_ca_index_clear(cb_ca_index *index) {
    cb_mem_free(heap, index->entries);
    cb_mem_free(heap, index->text);
    *index = (cb_ca_index){0};
}

/* Where the last whole line ends: what stands behind it is what a crash left. */
static int whole_end(int fd, off_t *out) {
    char tail[4096];
    struct stat st;
    if (fstat(fd, &st) < 0) return errno;
    for (off_t end = st.st_size; end > 0;) {
        size_t n = end < (off_t)sizeof tail ? (size_t)end : sizeof tail;
        ssize_t got = pread(fd, tail, n, end - (off_t)n);
        if (got != (ssize_t)n) return got < 0 ? errno : EIO;
        for (size_t i = n; i-- > 0;) {
            if (tail[i] != '\n') continue;
            *out = end - (off_t)n + (off_t)i + 1;
            return *out < st.st_size && ftruncate(fd, *out) < 0 ? errno : 0;
        }
        end -= (off_t)n;
    }
    *out = 0;
    return st.st_size > 0 && ftruncate(fd, 0) < 0 ? errno : 0;
}

int cb_ca_index_add(const char *dir, const char *line, bool lazy) {
    char path[CB_CA_PATH], *text = NULL;
    off_t end = 0;
    int rc = cb_ca_path(path, dir, "index", "");
    if (rc < 0) return rc;
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) return cb_fail_errno(errno, "%s", path);
    int err = whole_end(fd, &end);
    int n = err ? 0 : asprintf(&text, "%s%s\n", end ? "" : HEAD, line);
    if (n < 0) {
        close(fd);
        return cb_fail(CB_ENOMEM, "%s: no memory", path);
    }
    for (int done = 0; !err && done < n;) {
        ssize_t put = pwrite(fd, text + done, (size_t)(n - done), end + done);
        if (put >= 0) done += (int)put;
        if (put < 0 && errno != EINTR) err = errno;
    }
    free(text);
    if (!err && !lazy && fdatasync(fd) < 0) err = errno;
    if (err && end && ftruncate(fd, end) < 0) err = errno; /* half a line is cut at the next one, too */
    close(fd);
    return err ? cb_fail_errno(err, "%s", path) : CB_OK;
}
