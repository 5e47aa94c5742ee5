/* cb/seal.h - state files that only their owner can read: AES-256-GCM envelopes, each with a data key of its own, which
 * is wrapped by a key in a file or by an RSA key on a PKCS#11 token.
 *
 *   cb_seal_new(&seal, CB_OPTS(cb_seal_opts, .key = "/etc/cb/state.key", .make = 1));
 *   cb_seal_write(seal, "/var/lib/cb/tokens", "tokens", bytes);
 *   cb_seal_read(seal, "/var/lib/cb/tokens", "tokens", &plain, &len, NULL);
 *
 * A purpose is part of what is authenticated: a file sealed for one is not taken for another. An envelope tells its
 * purpose and the key's number to anybody, and nothing else. It does not tell an old content from a newer one: whoever
 * can write the file can put back what was there before. The format is in docs/guide/auth.md.
 *
 * A cb_seal never changes after it was made; any thread may use it. All calls block (files, tokens): not on a loop. */
#ifndef CB_SEAL_H
#define CB_SEAL_H

#include <cb/base.h>

CB_BEGIN

typedef struct cb_seal cb_seal;

enum { CB_SEAL_KEY_BYTES = 32, CB_SEAL_PURPOSE_MAX = 64, CB_SEAL_BYTES_MAX = 16 * 1024 * 1024 };

typedef struct cb_seal_opts {
    size_t size;
    const char *key; /* what seals: a file of 32 random bytes with mode 0600, or a pkcs11: URL of a private RSA key of
                      * 2,048 bits or more (as key_file of cb_identity_opts); or */
    cb_slice secret; /* 32 bytes, copied */
    const char *const *old_keys; /* as `key`; they open only, for files that were sealed before a rotation */
    size_t n_old_keys;           /* at most 7 */
    int32_t make;                /* 1: a key file that is absent is made */
    uint32_t reserved;
} cb_seal_opts;

/* CB_EINVAL (out, key and secret: one of the two; not 32 bytes; no RSA key), CB_EPERM (others may read the file),
 * CB_ENOENT, CB_EAUTH (the token's PIN), CB_ESYS, CB_ETLS, CB_ENOMEM, CB_E2BIG. */
CB_API int cb_seal_new(cb_seal **out, const cb_seal_opts *opts);
CB_API cb_seal *cb_seal_ref(cb_seal *seal);
CB_API void cb_seal_unref(cb_seal *seal); /* NULL is fine; wipes the keys at the end */

/* Seals bytes for a purpose (1 to 64 bytes: letters, digits, "-", "_", "."). *out is to be freed with cb_seal_free().
 * CB_EINVAL (purpose), CB_ELIMIT (more than 16 MiB), CB_ETLS (the key does not work), CB_ENOMEM. */
CB_API int cb_seal_close(const cb_seal *seal, const char *purpose, cb_slice plain, uint8_t **out, size_t *len);
/* Opens them. *stale (may be NULL) is 1 when an old key was needed: seal them again. CB_EPROTO: no envelope, or one
 * that was changed or cut; CB_EINVAL: sealed for another purpose; CB_ENOENT: by a key that is not here (the detail has
 * its number); CB_ENOTSUP: by a newer version; CB_EAUTH, CB_ETLS: the token; CB_ELIMIT, CB_ENOMEM. */
CB_API int cb_seal_open(const cb_seal *seal, const char *purpose, cb_slice sealed, uint8_t **out, size_t *len,
                        int32_t *stale);
/* Wipes and frees what the calls above and below gave. NULL is fine. */
CB_API void cb_seal_free(uint8_t *bytes, size_t len);

/* Seals into a file: written beside it (mode 0600), synced, and renamed over it, so that after a crash there is the old
 * content or the new. Also CB_ENOENT, CB_EPERM, CB_ESYS. */
CB_API int cb_seal_write(const cb_seal *seal, const char *path, const char *purpose, cb_slice plain);
/* Opens a regular file. Errors of both. */
CB_API int cb_seal_read(const cb_seal *seal, const char *path, const char *purpose, uint8_t **out, size_t *len,
                        int32_t *stale);
/* Seals a file again when an old key sealed it: 1, or 0 when there was nothing to do. `force`: in any case, with a new
 * data key. Errors of both. */
CB_API int cb_seal_renew(const cb_seal *seal, const char *path, const char *purpose, int force);

/* What an envelope tells anybody. */
typedef struct cb_seal_label {
    size_t size;
    char purpose[CB_SEAL_PURPOSE_MAX + 1];
    char key_id[17];  /* the key's number, hexadecimal */
    uint8_t on_token; /* 1: the key is on a token */
    uint8_t reserved[5];
} cb_seal_label;

/* Reads it from the bytes' beginning; nothing is proven. CB_EPROTO: no envelope. CB_ENOTSUP, CB_EINVAL (out). */
CB_API int cb_seal_label_read(cb_seal_label *out, cb_slice sealed);
/* The number of the key that seals: 16 hexadecimal digits; lives as long as the object. */
CB_API const char *cb_seal_key_id(const cb_seal *seal);

CB_END
#endif
