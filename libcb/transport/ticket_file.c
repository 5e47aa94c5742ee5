#include "transport/ticket_file.h"
#include "base/error.h"
#include "base/mem.h"
#include <errno.h>
#include <fcntl.h>
#include <gnutls/crypto.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static const uint8_t magic[8] = "CBTICK1\n";
enum { ENTRY = 8 + 32, FILE_SIZE = CB_TICKET_RING_BYTES, SEALED_MAX = 2048 };
static const char purpose[] = "tickets";

int cb_ticket_ring_turn(cb_ticket_ring *ring, int64_t made) {
    cb_ticket_key fresh = {.made = made};
    int rc = gnutls_rnd(GNUTLS_RND_KEY, fresh.secret, sizeof fresh.secret);
    if (rc < 0) return cb_fail(CB_ETLS, "no random bytes for a ticket key: %s", gnutls_strerror(rc));
    memmove(&ring->keys[1], &ring->keys[0], (CB_TICKET_RING - 1) * sizeof fresh);
    ring->keys[0] = fresh;
    cb_mem_wipe(&fresh, sizeof fresh);
    return CB_OK;
}

int cb_ticket_ring_sealing(const cb_ticket_ring *ring, int64_t now) {
    int last = 0;
    for (int i = 0; i < CB_TICKET_RING && ring->keys[i].made; i++) {
        last = i;
        if (ring->keys[i].made <= now) break;
    }
    return last;
}

bool cb_ticket_ring_due(const cb_ticket_ring *ring, const cb_ticket_turns *turns, int64_t now) {
    int64_t age = now - ring->keys[0].made;
    return ring->keys[0].made == 0 || age >= (int64_t)turns->rotate_s - turns->lead_s ||
           age < -(int64_t)turns->rotate_s;
}

int cb_ticket_ring_renew(cb_ticket_ring *ring, const cb_ticket_turns *turns, int64_t now) {
    if (ring->keys[0].made > now + turns->rotate_s) cb_mem_wipe(ring, sizeof *ring);
    bool first = ring->keys[0].made == 0; /* nobody else seals yet */
    return cb_ticket_ring_turn(ring, first ? now : now + turns->lead_s);
}

static cb_ticket_stamp stamp_of(const struct stat *st) {
    return (cb_ticket_stamp){st->st_mtim, st->st_ino};
}

bool cb_ticket_file_changed(const char *path, const cb_ticket_stamp *stamp) {
    struct stat st;
    if (stat(path, &st) < 0) return true;
    return st.st_ino != stamp->inode || st.st_mtim.tv_sec != stamp->mtime.tv_sec ||
           st.st_mtim.tv_nsec != stamp->mtime.tv_nsec;
}

void cb_ticket_ring_write(const cb_ticket_ring *ring, uint8_t out[FILE_SIZE]) {
    memcpy(out, magic, sizeof magic);
    for (size_t i = 0; i < CB_TICKET_RING; i++) {
        uint8_t *p = out + sizeof magic + i * ENTRY;
        for (size_t b = 0; b < 8; b++) {
            p[b] = (uint8_t)((uint64_t)ring->keys[i].made >> (56 - 8 * b));
        }
        memcpy(p + 8, ring->keys[i].secret, 32);
    }
}

int cb_ticket_ring_read(const char *path, const uint8_t *in, size_t len, cb_ticket_ring *out) {
    if (len != FILE_SIZE || memcmp(in, magic, sizeof magic) != 0) {
        return cb_fail(CB_EINVAL, "%s: not a ring of ticket keys", path);
    }
    for (size_t i = 0; i < CB_TICKET_RING; i++) {
        const uint8_t *p = in + sizeof magic + i * ENTRY;
        uint64_t made = 0;
        for (size_t b = 0; b < 8; b++) {
            made = made << 8 | p[b];
        }
        if (made > INT64_MAX / 2)
            return cb_fail(CB_EINVAL, "%s: not a ring of ticket keys: a time that never comes", path);
        out->keys[i].made = (int64_t)made;
        memcpy(out->keys[i].secret, p + 8, 32);
    }
    return out->keys[0].made > 0 ? CB_OK : cb_fail(CB_EINVAL, "%s: a ring without a key", path);
}

/* Opens and locks the file that has the name now. The lock lies on the file itself and rotation replaces the file, so
 * whoever waited for the lock of a replaced one tries again. */
static int open_locked(const char *path, bool wait, int *out, struct stat *st) {
    for (int tries = 0; tries < 16; tries++) {
        struct stat named;
        int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
        if (fd < 0) return cb_fail_errno(errno, "%s", path);
        if (flock(fd, wait ? LOCK_EX : LOCK_EX | LOCK_NB) < 0 || fstat(fd, st) < 0) {
            int err = errno;
            close(fd);
            return err == EWOULDBLOCK ? CB_EAGAIN : cb_fail_errno(err, "%s", path);
        }
        if (stat(path, &named) == 0 && named.st_ino == st->st_ino && named.st_dev == st->st_dev) {
            *out = fd;
            return CB_OK;
        }
        close(fd);
    }
    return cb_fail(CB_ESYS, "%s: is replaced again and again by others", path);
}

/* A new file beside the old one, renamed over it: readers see the old ring or the new one. It is not synced: after a
 * crash an empty file counts as absent, and all that is lost is resumption. */
static int replace(const char *path, cb_slice content, struct stat *st) {
    char temp[4096];
    int len = snprintf(temp, sizeof temp, "%s.new", path);
    if (len < 0 || (size_t)len >= sizeof temp) return cb_fail(CB_EINVAL, "%s: the path is too long", path);
    if (unlink(temp) < 0 && errno != ENOENT) return cb_fail_errno(errno, "%s", temp);
    int fd = open(temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) return cb_fail_errno(errno, "%s", temp);
    errno = ENOSPC; /* what a short write means */
    bool ok =
        write(fd, content.base, content.len) == (ssize_t)content.len && fstat(fd, st) == 0 && rename(temp, path) == 0;
    int err = errno;
    close(fd);
    if (ok) return CB_OK;
    unlink(temp);
    return cb_fail_errno(err, "%s", path);
}

static int replace_ring(const char *path, const cb_ticket_ring *ring, struct stat *st, const cb_seal *seal) {
    uint8_t raw[FILE_SIZE], *sealed = NULL;
    size_t len = sizeof raw;
    cb_ticket_ring_write(ring, raw);
    int rc = seal ? cb_seal_close(seal, purpose, (cb_slice){raw, sizeof raw}, &sealed, &len) : CB_OK;
    if (rc == CB_OK) rc = replace(path, (cb_slice){seal ? sealed : raw, len}, st);
    cb_seal_free(sealed, len);
    cb_mem_wipe(raw, sizeof raw);
    return rc;
}

static int open_ring(const char *path, cb_slice raw, cb_ticket_ring *out, const cb_seal *seal, bool *stale) {
    cb_seal_label label = {.size = sizeof label};
    uint8_t *plain = NULL;
    size_t len = 0;
    int32_t old = 0;
    char why[256];
    const bool sealed = cb_seal_label_read(&label, raw) == CB_OK;
    if (!seal && sealed) return cb_fail(CB_EINVAL, "%s: sealed, and there is no key to open it", path);
    if (!seal) return cb_ticket_ring_read(path, raw.base, raw.len, out);
    if (!sealed)
        return cb_fail(CB_EINVAL, "%s: not sealed; remove it, or seal it by \"cbctl seal close --purpose %s\"", path,
                       purpose);
    int rc = cb_seal_open(seal, purpose, raw, &plain, &len, &old);
    snprintf(why, sizeof why, "%s", cb_last_error());
    if (rc < 0) return cb_fail(CB_EINVAL, "%s: %s", path, why);
    *stale = old != 0;
    rc = cb_ticket_ring_read(path, plain, len, out);
    cb_seal_free(plain, len);
    return rc;
}

static int read_ring(const char *path, int fd, const struct stat *st, cb_ticket_ring *out, const cb_seal *seal,
                     bool *stale) {
    uint8_t raw[SEALED_MAX];
    *stale = false;
    if (!S_ISREG(st->st_mode)) return cb_fail(CB_EINVAL, "%s: not a regular file", path);
    if (st->st_mode & 077) {
        return cb_fail(CB_EINVAL, "%s: others may read these ticket keys (mode %o, must be 0600)", path,
                       (unsigned)st->st_mode & 0777);
    }
    ssize_t n = pread(fd, raw, sizeof raw, 0);
    if (n < 0) return cb_fail_errno(errno, "%s", path);
    int rc = n == 0 ? CB_OK : open_ring(path, (cb_slice){raw, (size_t)n}, out, seal, stale);
    cb_mem_wipe(raw, sizeof raw);
    return rc;
}

int cb_ticket_file_read(const char *path, cb_ticket_ring *ring, cb_ticket_stamp *stamp, const cb_seal *seal) {
    bool stale;
    struct stat st;
    cb_ticket_ring found = {0};
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0) return cb_fail_errno(errno, "%s", path);
    int rc = fstat(fd, &st) < 0 ? cb_fail_errno(errno, "%s", path) : read_ring(path, fd, &st, &found, seal, &stale);
    if (rc >= 0 && found.keys[0].made == 0) rc = cb_fail(CB_ENOENT, "%s: empty", path);
    if (rc >= 0) {
        *ring = found;
        *stamp = stamp_of(&st);
    }
    cb_mem_wipe(&found, sizeof found);
    close(fd);
    return rc;
}

int cb_ticket_file_sync(const char *path, cb_ticket_ring *ring, cb_ticket_stamp *stamp, int64_t now,
                        const cb_ticket_turns *turns, const cb_seal *seal, bool force, bool wait) {
    int fd = -1;
    bool stale;
    struct stat st;
    cb_ticket_ring found = {0};
    int rc = open_locked(path, wait, &fd, &st);
    if (rc < 0) return rc;
    rc = read_ring(path, fd, &st, &found, seal, &stale);
    bool turn = force || cb_ticket_ring_due(&found, turns, now);
    if (rc >= 0 && turn) rc = cb_ticket_ring_renew(&found, turns, now);
    if (rc >= 0 && (turn || stale)) rc = replace_ring(path, &found, &st, seal);
    if (rc >= 0) {
        *ring = found;
        *stamp = stamp_of(&st);
    }
    cb_mem_wipe(&found, sizeof found);
    close(fd); /* gives the lock back */
    return rc;
}
