#include "transport/sessions_file.h"
#include "base/error.h"
#include "base/mem.h"
#include "base/siphash.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAGIC = 8, COUNT = 4, CHECK = 8, HEAD = MAGIC + COUNT, ENTRY = 3 * 8 + 3 * 2, COUNT_MAX = 65536 };

static const char magic[] = "CBSESS1\n";
static const uint8_t check_key[16] = "libcb sessions";

/* --- one session --- */

cb_saved_session *cb_saved_session_new(cb_slice key, cb_slice session, cb_slice extra) {
    if (key.len > UINT16_MAX || session.len > UINT16_MAX || extra.len > UINT16_MAX) return NULL;
    cb_saved_session *e = cb_mem_get(&cb_alloc_libc, sizeof *e + key.len + session.len + extra.len);
    if (!e) return NULL;
    memset(e, 0, sizeof *e);
    cb_list_init(&e->link);
    e->key_len = (uint16_t)key.len;
    e->session_len = (uint16_t)session.len;
    e->extra_len = (uint16_t)extra.len;
    memcpy(e->bytes, key.base, key.len);
    memcpy(e->bytes + key.len, session.base, session.len);
    if (extra.len) memcpy(e->bytes + key.len + session.len, extra.base, extra.len);
    return e;
}

void cb_saved_session_free(cb_saved_session *e) {
    if (!e) return;
    cb_list_del(&e->link);
    cb_mem_wipe(e->bytes + e->key_len, e->session_len); /* holds the resumption secret */
    cb_mem_free(&cb_alloc_libc, e);
}

cb_slice cb_saved_session_data(const cb_saved_session *e) {
    return (cb_slice){e->bytes + e->key_len, e->session_len};
}

cb_slice cb_saved_session_extra(const cb_saved_session *e) {
    return (cb_slice){e->bytes + e->key_len + e->session_len, e->extra_len};
}

void cb_saved_sessions_free(cb_list *all) {
    while (!cb_list_empty(all)) {
        cb_saved_session_free(CB_CONTAINER(all->next, cb_saved_session, link));
    }
}

/* --- bytes --- */

static uint64_t get(const uint8_t *p, size_t n) {
    uint64_t v = 0;
    for (size_t i = 0; i < n; i++) {
        v = v << 8 | p[i];
    }
    return v;
}

static void put(uint8_t *p, size_t n, uint64_t v) {
    for (size_t i = 0; i < n; i++) {
        p[i] = (uint8_t)(v >> (8 * (n - 1 - i)));
    }
}

/* The length of the session at p; 0: there is no whole and plausible one. */
static size_t decode_one(cb_list *out, const uint8_t *p, size_t len, int *rc) {
    if (len < ENTRY) return 0;
    size_t key = get(p + 24, 2), session = get(p + 26, 2), extra = get(p + 28, 2);
    if (len - ENTRY < key + session + extra || key < 2 || session == 0) return 0;
    if (memchr(p + ENTRY, 0, key) != p + ENTRY + key - 1) return 0;
    uint64_t made = get(p + 8, 8), expires = get(p + 16, 8);
    if (made > INT64_MAX || expires > INT64_MAX || expires < made || expires - made > CB_SESSION_LIFE_MAX_S) return 0;
    const uint8_t *body = p + ENTRY;
    cb_saved_session *e = cb_saved_session_new((cb_slice){body, key}, (cb_slice){body + key, session},
                                               (cb_slice){body + key + session, extra});
    if (!e) {
        *rc = CB_ENOMEM;
        return 0;
    }
    e->id = get(p, 8);
    e->made = (int64_t)made;
    e->expires = (int64_t)expires;
    e->stored = true;
    cb_list_add_tail(out, &e->link);
    return ENTRY + key + session + extra;
}

int cb_sessions_decode(cb_list *out, cb_slice file) {
    enum { VERSION = 6 };
    if (file.len < MAGIC || memcmp(file.base, magic, VERSION) != 0 || file.base[MAGIC - 1] != '\n') {
        return cb_fail(CB_EINVAL, "not a file of saved sessions");
    }
    if (file.base[VERSION] != magic[VERSION]) return cb_fail(CB_ENOTSUP, "saved by another version of libcb");
    if (file.len < HEAD + CHECK) return cb_fail(CB_EPROTO, "the file of saved sessions is cut off");
    const uint8_t *p = file.base + HEAD, *end = file.base + file.len - CHECK;
    if (get(end, CHECK) != cb_siphash(check_key, file.base, file.len - CHECK)) {
        return cb_fail(CB_EPROTO, "the file of saved sessions is damaged: its checksum is wrong");
    }
    cb_list all;
    cb_list_init(&all);
    int rc = CB_EPROTO;
    uint64_t left = get(file.base + MAGIC, COUNT);
    for (; left > 0 && left <= COUNT_MAX; left--) {
        size_t n = decode_one(&all, p, (size_t)(end - p), &rc);
        if (n == 0) break;
        p += n;
    }
    if (left > 0 || p != end) {
        cb_saved_sessions_free(&all);
        return cb_fail(rc, rc == CB_ENOMEM ? "no memory for saved sessions" : "the file of saved sessions is damaged");
    }
    while (!cb_list_empty(&all)) {
        cb_list *l = all.next;
        cb_list_del(l);
        cb_list_add_tail(out, l);
    }
    return CB_OK;
}

static int encode_one(cb_buf *out, const cb_saved_session *e) {
    uint8_t head[ENTRY];
    put(head, 8, e->id);
    put(head + 8, 8, (uint64_t)e->made);
    put(head + 16, 8, (uint64_t)e->expires);
    put(head + 24, 2, e->key_len);
    put(head + 26, 2, e->session_len);
    put(head + 28, 2, e->extra_len);
    int rc = cb_buf_add(out, head, sizeof head);
    return rc < 0 ? rc : cb_buf_add(out, e->bytes, (size_t)e->key_len + e->session_len + e->extra_len);
}

int cb_sessions_encode(cb_buf *out, cb_list *all) {
    size_t bytes = HEAD + CHECK, n = 0;
    uint8_t head[HEAD], check[CHECK];
    cb_list *first = all;
    for (cb_list *l = all->prev; l != all && n < COUNT_MAX; l = l->prev) {
        const cb_saved_session *e = CB_CONTAINER(l, cb_saved_session, link);
        bytes += ENTRY + (size_t)e->key_len + e->session_len + e->extra_len;
        if (bytes > CB_SESSIONS_FILE_MAX) break;
        first = l;
        n++;
    }
    memcpy(head, magic, MAGIC);
    put(head + MAGIC, COUNT, n);
    int rc = cb_buf_add(out, head, sizeof head);
    for (cb_list *l = first; l != all && rc >= 0; l = l->next) {
        cb_saved_session *e = CB_CONTAINER(l, cb_saved_session, link);
        e->writing = true;
        rc = encode_one(out, e);
    }
    if (rc < 0) return rc;
    put(check, CHECK, cb_siphash(check_key, out->base, out->len));
    return cb_buf_add(out, check, sizeof check);
}

/* --- the file --- */

static cb_sessions_stamp stamp_of(const struct stat *st) {
    return (cb_sessions_stamp){st->st_mtim, st->st_ino, st->st_size};
}

bool cb_sessions_file_changed(const char *path, const cb_sessions_stamp *stamp) {
    struct stat st;
    if (stat(path, &st) < 0) return stamp->inode != 0;
    return st.st_ino != stamp->inode || st.st_size != stamp->size || st.st_mtim.tv_sec != stamp->mtime.tv_sec ||
           st.st_mtim.tv_nsec != stamp->mtime.tv_nsec;
}

static int check_file(const char *path, const struct stat *st) {
    if (!S_ISREG(st->st_mode)) return cb_fail(CB_EINVAL, "%s: not a regular file", path);
    if (st->st_uid != geteuid()) return cb_fail(CB_EINVAL, "%s: belongs to another user", path);
    if (st->st_mode & 077) {
        return cb_fail(CB_EINVAL, "%s: others may read these sessions (mode %o, must be 0600)", path,
                       (unsigned)st->st_mode & 0777);
    }
    if (st->st_size > CB_SESSIONS_FILE_MAX) return cb_fail(CB_EINVAL, "%s: larger than any file of sessions", path);
    return st->st_size == 0 ? CB_ENOENT : CB_OK;
}

static int read_all(cb_list *out, const char *path, int fd, size_t size) {
    uint8_t *raw = cb_mem_get(&cb_alloc_libc, size);
    if (!raw) return cb_fail(CB_ENOMEM, "no memory for saved sessions");
    size_t len = 0;
    ssize_t n = 1;
    while (len < size && n > 0) {
        n = pread(fd, raw + len, size - len, (off_t)len);
        if (n > 0) len += (size_t)n;
    }
    int rc = n < 0 ? cb_fail_errno(errno, "%s", path) : cb_sessions_decode(out, (cb_slice){raw, len});
    if (n >= 0 && rc < 0) {
        char why[160];
        snprintf(why, sizeof why, "%s", cb_last_error());
        rc = cb_fail(rc, "%s: %s", path, why);
    }
    cb_mem_wipe(raw, size);
    cb_mem_free(&cb_alloc_libc, raw);
    return rc;
}

int cb_sessions_file_read(cb_list *out, const char *path, cb_sessions_stamp *stamp) {
    struct stat st;
    *stamp = (cb_sessions_stamp){0};
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0) return cb_fail_errno(errno, "%s", path);
    int rc = fstat(fd, &st) < 0 ? cb_fail_errno(errno, "%s", path) : check_file(path, &st);
    if (rc == CB_OK || rc == CB_ENOENT) *stamp = stamp_of(&st);
    if (rc == CB_OK) rc = read_all(out, path, fd, (size_t)st.st_size);
    close(fd);
    return rc;
}

int cb_sessions_file_write(const char *path, cb_slice content, cb_sessions_stamp *stamp) {
    char temp[4096];
    struct stat st;
    int len = snprintf(temp, sizeof temp, "%s.new", path);
    if (len < 0 || (size_t)len >= sizeof temp) return cb_fail(CB_EINVAL, "%s: the path is too long", path);
    if (unlink(temp) < 0 && errno != ENOENT) return cb_fail_errno(errno, "%s", temp);
    int fd = open(temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) return cb_fail_errno(errno, "%s", temp);
    size_t done = 0;
    ssize_t n = 1;
    errno = ENOSPC; /* what a short write means */
    while (done < content.len && n > 0) {
        n = write(fd, content.base + done, content.len - done);
        if (n > 0) done += (size_t)n;
    }
    bool ok = done == content.len && fsync(fd) == 0 && fstat(fd, &st) == 0 && rename(temp, path) == 0;
    int err = errno;
    close(fd);
    if (ok) {
        *stamp = stamp_of(&st);
        return CB_OK;
    }
    unlink(temp);
    return cb_fail_errno(err, "%s", path);
}
