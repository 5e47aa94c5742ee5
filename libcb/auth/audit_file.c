#include "auth/audit_file.h"
#include "base/error.h"
#include "base/mem.h"
#include "transport/tls_cert.h"
#include <errno.h>
#include <fcntl.h>
#include <gnutls/x509.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CHUNK = 1024 * 1024 };

static int64_t feed_all(cb_audit_verifier *v, int fd, const char *path, uint8_t *chunk) {
    size_t have = 0;
    for (;;) {
        ssize_t n = read(fd, chunk + have, CHUNK - have);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return cb_fail_errno(errno, "%s", path);
        if (n == 0) return (int64_t)have;
        have += (size_t)n;
        int64_t used = cb_audit_verifier_feed(v, (cb_slice){chunk, have});
        if (used < 0) return used;
        have -= (size_t)used;
        memmove(chunk, chunk + used, have);
    }
}

int cb_audit_fd_verify(int fd, const char *path, const cb_audit_verify_opts *opts, cb_audit_report *report,
                       cb_audit_place *place) {
    cb_audit_verifier *v = NULL;
    struct stat st;
    if (fstat(fd, &st) < 0) return cb_fail_errno(errno, "%s", path);
    if (!S_ISREG(st.st_mode)) return cb_fail(CB_EINVAL, "%s: not a regular file", path);
    uint8_t *chunk = cb_mem_get(&cb_alloc_libc, CHUNK);
    int rc = chunk ? cb_audit_verifier_new(&v, opts) : cb_fail(CB_ENOMEM, "no memory to verify %s", path);
    int64_t left = rc < 0 ? rc : feed_all(v, fd, path, chunk);
    if (rc == CB_OK) {
        rc = left < 0 && left != CB_EPROTO ? (int)left : CB_OK;
        int verdict = rc < 0 ? rc : cb_audit_verifier_end(v, (cb_slice){chunk, left > 0 ? (size_t)left : 0}, report);
        rc = verdict;
        cb_audit_verifier_place(v, place);
    }
    cb_audit_verifier_free(v);
    cb_mem_free(&cb_alloc_libc, chunk);
    return rc;
}

int cb_audit_verify(const char *path, const cb_audit_verify_opts *opts, cb_audit_report *report) {
    cb_audit_place place;
    if (!path) return cb_fail(CB_EINVAL, "cb_audit_verify: path is NULL");
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return cb_fail_errno(errno, "%s", path);
    int rc = cb_audit_fd_verify(fd, path, opts, report, &place);
    close(fd);
    return rc;
}

/* ---- the key ---- */

static int make_key(const char *file) {
    gnutls_x509_privkey_t x = NULL;
    gnutls_datum_t pem = {NULL, 0};
    int grc = gnutls_x509_privkey_init(&x);
    if (grc >= 0) grc = gnutls_x509_privkey_generate(x, GNUTLS_PK_EDDSA_ED25519, 0, 0);
    if (grc >= 0) grc = gnutls_x509_privkey_export2_pkcs8(x, GNUTLS_X509_FMT_PEM, NULL, GNUTLS_PKCS_PLAIN, &pem);
    gnutls_x509_privkey_deinit(x);
    if (grc < 0) return cb_fail(CB_ETLS, "%s: cannot make a key: %s", file, gnutls_strerror(grc));
    int rc = CB_OK, fd = open(file, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) rc = cb_fail_errno(errno, "%s", file);
    errno = ENOSPC; /* what a short write means */
    if (fd >= 0 && (write(fd, pem.data, pem.size) != (ssize_t)pem.size || fsync(fd) < 0)) {
        rc = cb_fail_errno(errno, "%s", file);
        unlink(file);
    }
    if (fd >= 0) close(fd);
    cb_mem_wipe(pem.data, pem.size);
    gnutls_free(pem.data);
    return rc;
}

static int use_pem(gnutls_privkey_t key, const gnutls_datum_t *pem, uint8_t pub[CB_AUDIT_HASH], const char *file) {
    gnutls_datum_t x = {NULL, 0};
    gnutls_ecc_curve_t curve = GNUTLS_ECC_CURVE_INVALID;
    int grc = gnutls_privkey_import_x509_raw(key, pem, GNUTLS_X509_FMT_PEM, NULL, 0);
    if (grc >= 0) grc = gnutls_privkey_export_ecc_raw(key, &curve, &x, NULL, NULL);
    bool fine = grc >= 0 && curve == GNUTLS_ECC_CURVE_ED25519 && x.size == CB_AUDIT_HASH;
    if (fine) memcpy(pub, x.data, CB_AUDIT_HASH);
    gnutls_free(x.data);
    return fine ? CB_OK : cb_fail(CB_EINVAL, "%s: not a private Ed25519 key in PEM", file);
}

int cb_audit_key_open(gnutls_privkey_t *out, uint8_t pub[CB_AUDIT_HASH], const char *file) {
    gnutls_datum_t pem;
    bool loose = false;
    int rc = access(file, F_OK) < 0 && errno == ENOENT ? make_key(file) : CB_OK;
    if (rc == CB_OK) rc = cb_tls_file_read(file, &pem, &loose);
    if (rc < 0) return rc;
    gnutls_privkey_t key = NULL;
    if (loose) rc = cb_fail(CB_EPERM, "%s: others may read this key; it must be of mode 0600", file);
    if (rc == CB_OK && gnutls_privkey_init(&key) < 0) rc = cb_fail(CB_ENOMEM, "no memory for a key");
    if (rc == CB_OK) rc = use_pem(key, &pem, pub, file);
    cb_mem_wipe(pem.data, pem.size);
    gnutls_free(pem.data);
    if (rc < 0 && key) gnutls_privkey_deinit(key);
    if (rc == CB_OK) *out = key;
    return rc;
}
