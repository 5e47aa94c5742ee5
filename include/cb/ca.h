/* cb/ca.h - a small certificate authority in a directory, for development and tests.
 *
 * The directory (mode 0700) holds ca.pem, ca-key.pem and one NAME.pem / NAME-key.pem for each leaf; keys have mode
 * 0600. Calls block (files, key generation): not for a loop that serves. An object is used by one thread at a time;
 * several processes may open one directory. */
#ifndef CB_CA_H
#define CB_CA_H

#include <cb/base.h>

CB_BEGIN

typedef struct cb_ca cb_ca;

enum cb_key_type {
    CB_KEY_DEFAULT = 0, /* CB_KEY_ECDSA_P256 */
    CB_KEY_ECDSA_P256 = 1,
    CB_KEY_ECDSA_P384 = 2,
    CB_KEY_RSA_2048 = 3,
    CB_KEY_ED25519 = 4
};

typedef struct cb_ca_opts {
    size_t size;
    const char *dir;         /* required; made when absent */
    const char *common_name; /* of a new root; NULL = "libcb development CA" */
    uint32_t days;           /* of a new root; 0 = 825 */
    int32_t key_type;        /* enum cb_key_type of a new root; 0 = CB_KEY_ECDSA_P384 here */
} cb_ca_opts;

/* Opens the authority in dir, or makes it. CB_EINVAL (out, dir missing, key_type, files that are no CA), CB_ENOENT (no
 * folder above dir), CB_EPERM, CB_ESYS, CB_ETLS (GnuTLS cannot make a key), CB_ENOMEM, CB_E2BIG. */
CB_API int cb_ca_open(cb_ca **out, const cb_ca_opts *opts);

typedef struct cb_leaf_opts {
    size_t size;
    const char *const *names; /* DNS names, wildcards and IP addresses; the first names the files */
    size_t names_len;         /* at least 1 */
    const char *file_stem;    /* NULL = the first name, "*" as "_" */
    uint32_t days;            /* 0 = 90 */
    int32_t key_type;         /* enum cb_key_type */
    int64_t not_before_s;     /* seconds since 1970; 0 = an hour ago (tests use it for expired certificates) */
} cb_leaf_opts;

/* Makes a key and a certificate, for servers and clients alike, and writes both files all or nothing. cert_path and
 * key_path (may be NULL) get the paths, to be freed with cb_ca_text_free(). CB_EINVAL (names, days, key_type,
 * file_stem: the detail says which), CB_EPERM, CB_ESYS, CB_ETLS, CB_ENOMEM, CB_E2BIG. */
CB_API int cb_ca_issue(cb_ca *ca, const cb_leaf_opts *opts, char **cert_path, char **key_path);
/* Frees a path. NULL is fine. */
CB_API void cb_ca_text_free(char *text);
/* Frees the object; the files stay. NULL is fine. */
CB_API void cb_ca_free(cb_ca *ca);

CB_END
#endif
