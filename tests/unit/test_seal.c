/* Sealed files: what was sealed comes back, every changed byte is seen, keys turn, and mistakes are told. */
#include "support/scratch.h"
#include <cb.h>
#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const uint8_t one[32] = "the first secret, of 32 bytes  ", two[32] = "another one of 32 bytes, for .. ";
static const cb_slice text = {(const uint8_t *)"state of a program", 18};

static cb_seal *seal_of(const uint8_t secret[32]) {
    cb_seal *s = NULL;
    cr_assert_eq(cb_seal_new(&s, CB_OPTS(cb_seal_opts, .secret = {secret, 32})), CB_OK, "%s", cb_last_error());
    return s;
}

static char folder[64];

static void path_of(char out[128], const char *name) {
    if (!*folder) {
        scratch_folder(folder, sizeof folder, "seal");
    }
    snprintf(out, 128, "%s/%s", folder, name);
}

Test(seal, comes_back) {
    cb_seal *s = seal_of(one);
    uint8_t *a = NULL, *b = NULL, *plain = NULL;
    size_t a_len = 0, b_len = 0, len = 0;
    int32_t stale = 9;
    cr_assert_eq(cb_seal_close(s, "tokens", text, &a, &a_len), CB_OK);
    cr_assert_eq(cb_seal_close(s, "tokens", text, &b, &b_len), CB_OK);
    cr_expect_eq(a_len, b_len);
    cr_expect_neq(memcmp(a + 20, b + 20, 12), 0, "a nonce comes once");
    cr_expect_neq(memcmp(a + a_len - 34, b + b_len - 34, 34), 0);
    cr_expect_null(memmem(a, a_len, text.base, text.len));
    cr_assert_eq(cb_seal_open(s, "tokens", (cb_slice){a, a_len}, &plain, &len, &stale), CB_OK, "%s", cb_last_error());
    cr_expect(len == text.len && memcmp(plain, text.base, len) == 0);
    cr_expect_eq(stale, 0);
    cb_seal_free(plain, len);
    cb_seal_free(b, b_len);
    cr_assert_eq(cb_seal_close(s, "empty", (cb_slice){NULL, 0}, &b, &b_len), CB_OK);
    cr_assert_eq(cb_seal_open(s, "empty", (cb_slice){b, b_len}, &plain, &len, NULL), CB_OK);
    cr_expect_eq(len, 0);
    cb_seal_free(plain, len);
    cb_seal_free(b, b_len);
    cb_seal_label l = {.size = sizeof l};
    cr_assert_eq(cb_seal_label_read(&l, (cb_slice){a, a_len}), CB_OK);
    cr_expect_str_eq(l.purpose, "tokens");
    cr_expect_str_eq(l.key_id, cb_seal_key_id(s));
    cr_expect_eq(strlen(l.key_id), 16);
    cr_expect_eq(l.on_token, 0);
    cb_seal_free(a, a_len);
    cb_seal_unref(cb_seal_ref(s));
    cb_seal_unref(s);
    cb_seal_unref(NULL);
    cb_seal_free(NULL, 0);
}

Test(seal, every_bit_counts) {
    cb_seal *s = seal_of(one);
    uint8_t *e = NULL, *plain = NULL;
    size_t n = 0, len = 0;
    cr_assert_eq(cb_seal_close(s, "tokens", text, &e, &n), CB_OK);
    for (size_t i = 0; i < n; i++) {
        for (int bit = 0; bit < 8; bit++) {
            e[i] ^= (uint8_t)(1 << bit);
            int rc = cb_seal_open(s, "tokens", (cb_slice){e, n}, &plain, &len, NULL);
            cr_expect(rc == CB_EPROTO || rc == CB_ENOTSUP || rc == CB_EINVAL || rc == CB_ENOENT, "byte %zu bit %d: %d",
                      i, bit, rc);
            e[i] ^= (uint8_t)(1 << bit);
        }
    }
    for (size_t i = 0; i < n; i++)
        cr_expect_lt(cb_seal_open(s, "tokens", (cb_slice){e, i}, &plain, &len, NULL), 0, "cut to %zu", i);
    cr_expect_null(plain);
    cr_expect_eq(cb_seal_open(s, "tickets", (cb_slice){e, n}, &plain, &len, NULL), CB_EINVAL);
    cr_expect_not_null(strstr(cb_last_error(), "tokens"));
    cb_seal_free(e, n);
    cb_seal_unref(s);
}

Test(seal, keys_turn) {
    char new_key[128], old_key[128], file[128];
    cb_seal *old = NULL, *new = NULL;
    uint8_t *plain = NULL;
    size_t len = 0;
    int32_t stale = 0;
    struct stat st;
    path_of(new_key, "turn-new.key");
    path_of(old_key, "turn-old.key");
    path_of(file, "turn");
    const char *olds[] = {old_key};
    cr_assert_eq(cb_seal_new(&old, CB_OPTS(cb_seal_opts, .key = old_key)), CB_ENOENT);
    cr_assert_eq(cb_seal_new(&old, CB_OPTS(cb_seal_opts, .key = old_key, .make = 1)), CB_OK, "%s", cb_last_error());
    cr_assert_eq(stat(old_key, &st), 0);
    cr_expect_eq(st.st_mode & 0777, 0600);
    cr_expect_eq(st.st_size, 32);
    cr_assert_eq(cb_seal_write(old, file, "tokens", text), CB_OK, "%s", cb_last_error());
    cr_assert_eq(stat(file, &st), 0);
    cr_expect_eq(st.st_mode & 0777, 0600);
    cr_expect_eq(cb_seal_renew(old, file, "tokens", 0), 0);
    cr_expect_eq(cb_seal_renew(old, file, "tokens", 1), 1);
    cr_assert_eq(cb_seal_new(&new, CB_OPTS(cb_seal_opts, .key = new_key, .make = 1)), CB_OK);
    cr_expect_eq(cb_seal_read(new, file, "tokens", &plain, &len, NULL), CB_ENOENT);
    cr_expect_not_null(strstr(cb_last_error(), cb_seal_key_id(old)), "%s", cb_last_error());
    cb_seal_unref(new);
    cr_assert_eq(cb_seal_new(&new, CB_OPTS(cb_seal_opts, .key = new_key, .old_keys = olds, .n_old_keys = 1)), CB_OK);
    cr_assert_eq(cb_seal_read(new, file, "tokens", &plain, &len, &stale), CB_OK, "%s", cb_last_error());
    cr_expect_eq(stale, 1);
    cb_seal_free(plain, len);
    cr_expect_eq(cb_seal_renew(new, file, "tokens", 0), 1);
    cr_expect_eq(cb_seal_renew(new, file, "tokens", 0), 0);
    cr_expect_eq(cb_seal_read(old, file, "tokens", &plain, &len, NULL), CB_ENOENT);
    cb_seal_unref(old);
    cb_seal_unref(new);
    unlink(old_key);
    unlink(new_key);
    unlink(file);
    (void)rmdir(folder);
    *folder = '\0';
}

Test(seal, mistakes) {
    char key[128], file[128], long_purpose[80];
    cb_seal *s = NULL, *good = seal_of(one), *other = seal_of(two);
    uint8_t *out = NULL;
    size_t len = 0;
    path_of(key, "bad.key");
    path_of(file, "bad");
    memset(long_purpose, 'a', sizeof long_purpose - 1);
    long_purpose[79] = '\0';
    cr_expect_eq(cb_seal_new(NULL, NULL), CB_EINVAL);
    cr_expect_eq(cb_seal_new(&s, NULL), CB_EINVAL);
    cr_expect_eq(cb_seal_new(&s, CB_OPTS(cb_seal_opts, .key = key, .secret = {one, 32})), CB_EINVAL);
    cr_expect_eq(cb_seal_new(&s, CB_OPTS(cb_seal_opts, .secret = {one, 31})), CB_EINVAL);
    cr_expect_eq(cb_seal_new(&s, CB_OPTS(cb_seal_opts, .secret = {one, 32}, .n_old_keys = 8)), CB_EINVAL);
    int fd = open(key, O_CREAT | O_WRONLY, 0600);
    cr_assert_eq(write(fd, one, 31), 31);
    cr_expect_eq(cb_seal_new(&s, CB_OPTS(cb_seal_opts, .key = key)), CB_EINVAL);
    cr_assert_eq(write(fd, one, 1), 1);
    cr_assert_eq(fchmod(fd, 0640), 0);
    cr_expect_eq(cb_seal_new(&s, CB_OPTS(cb_seal_opts, .key = key)), CB_EPERM, "%s", cb_last_error());
    close(fd);
    cr_expect_null(s);
    cr_expect_eq(cb_seal_close(good, "", text, &out, &len), CB_EINVAL);
    cr_expect_eq(cb_seal_close(good, "a b", text, &out, &len), CB_EINVAL);
    cr_expect_eq(cb_seal_close(good, long_purpose, text, &out, &len), CB_EINVAL);
    cr_expect_eq(cb_seal_close(good, "x", (cb_slice){one, CB_SEAL_BYTES_MAX + 1}, &out, &len), CB_ELIMIT);
    cr_expect_eq(cb_seal_close(NULL, "x", text, &out, &len), CB_EINVAL);
    cr_expect_eq(cb_seal_read(good, file, "x", &out, &len, NULL), CB_ENOENT);
    cr_expect_eq(cb_seal_read(good, "/tmp", "x", &out, &len, NULL), CB_EINVAL);
    cr_expect_eq(cb_seal_read(good, key, "x", &out, &len, NULL), CB_EPROTO);
    cr_expect_not_null(strstr(cb_last_error(), key), "%s", cb_last_error());
    cr_expect_eq(cb_seal_write(good, "/nonexistent/x", "x", text), CB_ENOENT);
    cr_assert_eq(cb_seal_write(good, file, "x", text), CB_OK);
    cr_expect_eq(cb_seal_read(other, file, "x", &out, &len, NULL), CB_ENOENT);
    cr_expect_null(out);
    cb_seal_unref(good);
    cb_seal_unref(other);
    unlink(key);
    unlink(file);
    (void)rmdir(folder);
    *folder = '\0';
}
