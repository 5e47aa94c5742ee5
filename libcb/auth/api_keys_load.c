/* The two files of API keys. */
#include "auth/api_keys.h"
#include "auth/file.h"
#include "base/error.h"
#include "base/mem.h"
#include <errno.h>
#include <fcntl.h>
#include <gnutls/crypto.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FILE_BYTES = 8 << 20, HASH_KEY_BYTES = 32 };

static int make_hash_key(const char *path, uint8_t out[HASH_KEY_BYTES]) {
    if (gnutls_rnd(GNUTLS_RND_KEY, out, HASH_KEY_BYTES) < 0) return cb_fail(CB_ETLS, "no random bytes");
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) return cb_fail_errno(errno, "hash key \"%s\"", path);
    bool good = write(fd, out, HASH_KEY_BYTES) == HASH_KEY_BYTES && fsync(fd) == 0;
    int err = errno;
    if (close(fd) == 0 && good) return CB_OK;
    unlink(path);
    return cb_fail_errno(err, "hash key \"%s\"", path);
}

static int read_hash_key(const char *path, uint8_t out[HASH_KEY_BYTES]) {
    uint8_t bytes[HASH_KEY_BYTES + 1];
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return cb_fail_errno(errno, "hash key \"%s\"", path);
    int rc = fstat(fd, &st) < 0 ? cb_fail_errno(errno, "hash key \"%s\"", path) : CB_OK;
    if (rc == CB_OK && st.st_mode & 077)
        rc = cb_fail(CB_EINVAL, "hash key \"%s\": others may read it (chmod 600)", path);
    ssize_t n = rc == CB_OK ? read(fd, bytes, sizeof bytes) : 0;
    if (rc == CB_OK && n != HASH_KEY_BYTES)
        rc = cb_fail(CB_EINVAL, "hash key \"%s\": it must have %d bytes", path, HASH_KEY_BYTES);
    if (rc == CB_OK) memcpy(out, bytes, HASH_KEY_BYTES);
    cb_mem_wipe(bytes, sizeof bytes);
    close(fd);
    return rc;
}

int cb_api_keys_load(cb_api_keys **out, const char *keys_file, const char *hash_key_file, int make) {
    uint8_t hash_key[HASH_KEY_BYTES];
    char *text = NULL, why[400];
    size_t len = 0;
    if (!out || !hash_key_file) return cb_fail(CB_EINVAL, "cb_api_keys_load: out and hash_key_file are needed");
    int rc = read_hash_key(hash_key_file, hash_key);
    if (rc == CB_ENOENT && make) rc = make_hash_key(hash_key_file, hash_key);
    if (rc == CB_OK && keys_file) rc = cb_file_read(&text, &len, keys_file, "API keys", FILE_BYTES);
    if (rc == CB_OK) {
        rc = cb_api_keys_new(out, (cb_slice){(const uint8_t *)text, len}, (cb_slice){hash_key, sizeof hash_key});
        if (rc < 0 && keys_file) {
            snprintf(why, sizeof why, "%s", cb_last_error());
            cb_fail(rc, "API keys \"%s\": %s", keys_file, why);
        }
    }
    cb_mem_free(&cb_alloc_libc, text);
    cb_mem_wipe(hash_key, sizeof hash_key);
    return rc;
}
