/* The inside of an authority: its key, its files, and the index of what it issued. */
#ifndef CB_AUTH_CA_INT_H
#define CB_AUTH_CA_INT_H

#include "auth/ca_cert.h"
#include <cb/renewal.h>

enum { CB_CA_PATH = 4096, CB_DAY = 86400, CB_SERIAL_TEXT = 48, CB_CA_NAMES = 100, CB_CA_NAME = 2100 };

struct cb_ca {
    char *dir, *chain; /* PEM of ca.pem when leaves carry it, NULL for a root */
    char *organization;
    gnutls_x509_crt_t crt;
    gnutls_privkey_t key;
    gnutls_x509_name_constraints_t constraints; /* NULL = none */
    uint32_t max_leaf_s;
    bool lazy;
};

/* Where the authority's key is (ca.c): the path of ca-key.pem, or the URL in ca-key.url. CB_ENOENT: neither is there.
 */
int cb_ca_key_place(char out[CB_CA_PATH], const char *dir);
/* The private key in a file or, by URL, on a token (ca.c). CB_EINVAL when it is not that of the certificate. */
int cb_ca_key_load(gnutls_privkey_t *out, gnutls_x509_crt_t crt, const char *crt_path, const char *key_path);

/* --- files (ca_files.c) --- */
struct cb_ca_file {
    const char *tail; /* behind the stem: ".pem" */
    gnutls_datum_t text;
    unsigned mode;
};
int cb_ca_path(char out[CB_CA_PATH], const char *dir, const char *stem, const char *tail);
struct cb_ca_place {
    const char *path;
    gnutls_datum_t text;
    unsigned mode;
    bool keep; /* the owner and the mode of the file that is there */
};
int cb_ca_replace(const struct cb_ca_place *files, size_t n);
/* All files are whole beside their places before the first takes its place; the last one is placed last. */
int cb_ca_write(const char *dir, const char *stem, const struct cb_ca_file *files, size_t n);
/* One process at a time changes a directory; closing the descriptor unlocks. Makes the directory when `make`. */
int cb_ca_lock(const char *dir, bool make, int *fd);

/* --- the index (ca_index.c): lines, "issued SERIAL FROM UNTIL PROFILE NAMES", "revoked SERIAL WHEN REASON" and
 * "crl NUMBER WHEN UNTIL", separated by tabs. What has no newline was not finished and counts as never written. --- */
typedef struct cb_ca_index {
    cb_ca_entry *entries; /* in the order of the file; their texts are in `text` */
    size_t len;
    uint64_t crl_number; /* the last, 0 = none yet */
    char *text;
} cb_ca_index;
int cb_ca_index_read(cb_ca_index *out, const char *dir);
void cb_ca_index_clear(cb_ca_index *index);
cb_ca_entry *cb_ca_index_find(const cb_ca_index *index, const char *serial);
/* Adds a line (without newline). Called with the lock of the directory. */
int cb_ca_index_add(const char *dir, const char *line, bool lazy);

/* The names of a request, checked against what opts allow, as a plan to certify (ca_csr.c). Texts are in `text`. */
typedef struct cb_csr {
    gnutls_x509_crq_t crq;
    gnutls_pubkey_t pub;
    const char **names, **uris;
    size_t names_len, uris_len;
    char *text;
} cb_csr;
/* An alternative name as text. CB_EINVAL: of a kind, or with characters, that are not certified. */
int cb_ca_name_text(int type, const char *from, size_t len, char to[CB_CA_NAME]);
int cb_csr_read(cb_csr *out, cb_slice request, const cb_leaf_opts *opts);
void cb_csr_clear(cb_csr *csr);

/* A new key and a certificate for it, which the index knows, as PEM (ca.c). */
int cb_ca_make_leaf(cb_ca *ca, const cb_leaf_opts *o, gnutls_datum_t *crt, gnutls_datum_t *key);
/* The dates of the certificate in a file; nothing when there is none that can be read (ca_renew.c). */
void cb_renew_dates(const char *cert_file, cb_renew_result *r);
/* Wipes and frees what that gave. */
void cb_ca_wipe(gnutls_datum_t *pem);

#endif
