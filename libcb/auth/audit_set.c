#include "auth/audit_set.h"
#include "auth/disk.h"
#include "base/error.h"
#include "base/mem.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <gnutls/crypto.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum { DIGITS = 6, FILES_MAX = 100000 };

static int name_of(char out[CB_AUDIT_PATH], const char *path, const char *tail) {
    int n = snprintf(out, CB_AUDIT_PATH, "%s%s", path, tail);
    return n > 0 && n < CB_AUDIT_PATH ? CB_OK : cb_fail(CB_EINVAL, "%.80s...: the path is too long", path);
}

int cb_audit_set_name(char out[CB_AUDIT_PATH], const char *path, uint64_t number) {
    char tail[32];
    snprintf(tail, sizeof tail, ".%0*" PRIu64, DIGITS, number);
    return name_of(out, path, tail);
}

int cb_audit_folder_sync(const char *path) {
    int err = cb_disk_sync_folder(path);
    return err ? cb_fail_errno(err, "the folder of %s", path) : CB_OK;
}

/* ---- which there are ---- */

/* The number in "BASE.NNNNNN"; 0: it is no such name. */
static uint64_t number_in(const char *name, const char *base) {
    const size_t n = strlen(base);
    if (strncmp(name, base, n) != 0 || name[n] != '.') return 0;
    const char *digits = name + n + 1;
    const size_t len = strspn(digits, "0123456789");
    return len >= DIGITS && len <= 18 && !digits[len] ? strtoull(digits, NULL, 10) : 0;
}

static int by_number(const void *a, const void *b) {
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static int collect(cb_audit_set *out, DIR *dir, const char *base) {
    size_t cap = 0;
    for (struct dirent *e; (e = readdir(dir));) {
        const uint64_t number = number_in(e->d_name, base);
        if (!number || out->len == FILES_MAX) continue;
        if (out->len == cap) {
            cap = cap ? cap * 2 : 16;
            uint64_t *more = cb_mem_grow(&cb_alloc_libc, out->numbers, cap * sizeof *more);
            if (!more) return cb_fail(CB_ENOMEM, "no memory for the files of a log");
            out->numbers = more;
        }
        out->numbers[out->len++] = number;
    }
    if (out->len) qsort(out->numbers, out->len, sizeof *out->numbers, by_number);
    return CB_OK;
}

int cb_audit_set_list(cb_audit_set *out, const char *path) {
    char folder[CB_AUDIT_PATH];
    const char *slash = strrchr(path, '/');
    *out = (cb_audit_set){.numbers = NULL};
    int n = snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash - path) + 1 : 1, slash ? path : ".");
    if (n <= 0 || n >= CB_AUDIT_PATH) return cb_fail(CB_EINVAL, "%.80s...: the path is too long", path);
    DIR *dir = opendir(folder);
    if (!dir) return cb_fail_errno(errno, "the folder of %s", path);
    int rc = collect(out, dir, slash ? slash + 1 : path);
    closedir(dir);
    if (rc < 0) cb_audit_set_free(out);
    return rc;
}

void cb_audit_set_free(cb_audit_set *set) {
    cb_mem_free(&cb_alloc_libc, set->numbers);
    *set = (cb_audit_set){.numbers = NULL};
}

int cb_audit_set_link(int fd, const char *path, uint8_t room[CB_AUDIT_LINK_BYTES], cb_audit_frame *out) {
    const char *why;
    ssize_t n = pread(fd, room, CB_AUDIT_LINK_BYTES, 0);
    if (n < 0) return cb_fail_errno(errno, "%s", path);
    if (cb_audit_frame_read((cb_slice){room, (size_t)n}, out, &why) == CB_OK && out->kind == 'L') return CB_OK;
    return cb_fail(CB_EPROTO, "%s: not the beginning of an audit log", path);
}

/* ---- putting aside ---- */

static int last_name(char out[CB_AUDIT_PATH], const char *path, const cb_audit_set *set) {
    return cb_audit_set_name(out, path, set->numbers[set->len - 1]);
}

int cb_audit_set_recover(const char *path, const cb_audit_set *set) {
    char name[CB_AUDIT_PATH];
    struct stat a, b;
    int rc = name_of(name, path, ".new");
    if (rc < 0) return rc;
    if (unlink(name) < 0 && errno != ENOENT) return cb_fail_errno(errno, "%s", name);
    if (!set->len) return CB_OK;
    rc = last_name(name, path, set);
    if (rc < 0 || stat(path, &a) < 0 || stat(name, &b) < 0) return rc;
    if (a.st_ino != b.st_ino || a.st_dev != b.st_dev) return CB_OK;
    return unlink(name) < 0 ? cb_fail_errno(errno, "%s", name) : CB_OK;
}

int cb_audit_set_joined(int fd, const char *path, const cb_audit_set *set) {
    uint8_t room[CB_AUDIT_LINK_BYTES], check[CB_AUDIT_CHECK_BYTES], hash[CB_AUDIT_HASH];
    cb_audit_frame f;
    char name[CB_AUDIT_PATH];
    int rc = cb_audit_set_link(fd, path, room, &f);
    if (rc < 0 || !set->len || f.u.link.number == 1 || set->numbers[set->len - 1] != f.u.link.number - 1 || f.seq == 1)
        return rc; /* alone here, or begun anew */
    rc = last_name(name, path, set);
    int before = rc < 0 ? rc : open(name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (before < 0) return rc < 0 ? rc : cb_fail_errno(errno, "%s", name);
    const off_t end = lseek(before, 0, SEEK_END);
    const bool whole = end >= (off_t)sizeof check &&
                       pread(before, check, sizeof check, end - (off_t)sizeof check) == (ssize_t)sizeof check;
    close(before);
    if (whole) cb_audit_hash(check, sizeof check, hash);
    if (whole && memcmp(hash, f.prev, sizeof hash) == 0) return CB_OK;
    return cb_fail(CB_EPROTO, "%s does not go on from the end of %s", path, name);
}

int cb_audit_set_fresh(const char *path, cb_slice bytes, uint32_t mode) {
    char name[CB_AUDIT_PATH];
    int rc = name_of(name, path, ".new");
    if (rc < 0) return rc;
    (void)unlink(name); /* of an attempt that failed */
    int fd = open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, (mode_t)mode);
    if (fd < 0) return cb_fail_errno(errno, "%s", name);
    int err = flock(fd, LOCK_EX | LOCK_NB) < 0 ? errno : cb_disk_write(fd, bytes);
    if (!err && fsync(fd) < 0) err = errno;
    if (!err) return fd;
    close(fd);
    unlink(name);
    return cb_fail_errno(err, "%s", name);
}

int cb_audit_set_turn(const char *path, uint64_t number) {
    char old[CB_AUDIT_PATH], fresh[CB_AUDIT_PATH];
    int rc = cb_audit_set_name(old, path, number);
    if (rc == CB_OK) rc = name_of(fresh, path, ".new");
    if (rc < 0) return rc;
    /* Two names for a moment, so that the path never lacks a file and no file is ever replaced by another. */
    if (link(path, old) < 0) return cb_fail_errno(errno, "%s", old);
    rc = rename(fresh, path) < 0 ? cb_fail_errno(errno, "%s", path) : CB_OK;
    if (rc < 0) {
        unlink(old);
        return rc;
    }
    rc = cb_audit_folder_sync(path);
    if (rc < 0) (void)rename(old, path); /* as if nothing had been: the new file has no record yet */
    return rc;
}

int cb_audit_set_aside(int fd, const char *path, int64_t time_us, char name[CB_AUDIT_PATH],
                       uint8_t hash[CB_AUDIT_HASH]) {
    struct stat st;
    char tail[48];
    if (fstat(fd, &st) < 0) return cb_fail_errno(errno, "%s", path);
    int rc = cb_audit_file_hash(fd, path, 0, (uint64_t)st.st_size, hash);
    snprintf(tail, sizeof tail, ".flawed-%" PRId64, time_us);
    if (rc == CB_OK) rc = name_of(name, path, tail);
    if (rc < 0) return rc;
    if (link(path, name) < 0) return cb_fail_errno(errno, "%s", name);
    return unlink(path) < 0 ? cb_fail_errno(errno, "%s", path) : cb_audit_folder_sync(path);
}

/* ---- small things ---- */

int cb_audit_file_hash(int fd, const char *path, uint64_t from, uint64_t bytes, uint8_t out[CB_AUDIT_HASH]) {
    uint8_t part[4096];
    gnutls_hash_hd_t h;
    if (gnutls_hash_init(&h, GNUTLS_DIG_SHA256) < 0) return cb_fail(CB_ETLS, "no SHA-256");
    ssize_t n = 1;
    for (uint64_t done = 0; done < bytes && n > 0; done += (uint64_t)n) {
        n = pread(fd, part, sizeof part, (off_t)(from + done));
        if (n > 0) gnutls_hash(h, part, (size_t)n);
    }
    int err = errno;
    gnutls_hash_deinit(h, out);
    return n < 0 ? cb_fail_errno(err, "%s", path) : CB_OK;
}

int cb_audit_small_write(const char *path, const char *text) {
    char fresh[CB_AUDIT_PATH];
    int rc = name_of(fresh, path, ".new");
    if (rc < 0) return rc;
    int fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (fd < 0) return cb_fail_errno(errno, "%s", fresh);
    int err = cb_disk_write(fd, cb_slice_str(text));
    if (close(fd) < 0 && !err) err = errno;
    if (!err && rename(fresh, path) < 0) err = errno;
    if (err) unlink(fresh);
    return err ? cb_fail_errno(err, "%s", path) : CB_OK;
}
