#include "auth/audit_file.h"
#include "auth/audit_set.h"
#include "base/error.h"
#include "base/mem.h"
#include "base/opts.h"
#include "transport/tls_cert.h"
#include <errno.h>
#include <fcntl.h>
#include <gnutls/x509.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CHUNK = 1024 * 1024 };

/* `have` bytes are in the chunk already; gives how many were not taken. */
static int64_t feed_all(cb_audit_verifier *v, int fd, const char *path, uint8_t *chunk, size_t have) {
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

static int finish(cb_audit_verifier *v, int rc, cb_slice rest, cb_audit_report *report, cb_audit_place *place) {
    if (rc == CB_OK || rc == CB_EPROTO) rc = cb_audit_verifier_end(v, rest, report);
    if (place) cb_audit_verifier_place(v, place);
    return rc;
}

int cb_audit_fd_verify(int fd, const char *path, const cb_audit_verify_opts *opts, cb_audit_report *report,
                       cb_audit_place *place) {
    cb_audit_verifier *v = NULL;
    uint8_t *chunk = cb_mem_get(&cb_alloc_libc, CHUNK);
    int rc = chunk ? cb_audit_verifier_new(&v, opts) : cb_fail(CB_ENOMEM, "no memory to verify %s", path);
    if (rc == CB_OK) {
        int64_t left = feed_all(v, fd, path, chunk, 0);
        rc = finish(v, left < 0 ? (int)left : CB_OK, (cb_slice){chunk, left > 0 ? (size_t)left : 0}, report, place);
    }
    cb_audit_verifier_free(v);
    cb_mem_free(&cb_alloc_libc, chunk);
    return rc;
}

static int open_file(const char *path) {
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return cb_fail_errno(errno, "%s", path);
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode)) return fd;
    close(fd);
    return cb_fail(CB_EINVAL, "%s: not a regular file", path);
}

/* How many of the files that lie before the path belong to its log: without a gap, back to one that began anew. */
static size_t of_this_log(const cb_audit_set *set, int fd, const char *path) {
    uint8_t room[CB_AUDIT_LINK_BYTES];
    cb_audit_frame f;
    char name[CB_AUDIT_PATH];
    size_t n = 0;
    if (cb_audit_set_link(fd, path, room, &f) < 0) return 0;
    uint64_t number = f.u.link.number;
    for (bool goes_on = f.seq > 1; goes_on && n < set->len && set->numbers[set->len - 1 - n] == --number; n++) {
        int one = cb_audit_set_name(name, path, number) < 0 ? -1 : open_file(name);
        goes_on = one >= 0 && cb_audit_set_link(one, name, room, &f) == CB_OK && f.seq > 1;
        if (one >= 0) close(one);
    }
    return n;
}

/* The files before, then the file itself. What one does not take is the beginning of the next: then it is flawed. */
static int feed_set(cb_audit_verifier *v, const char *path, int fd, const cb_audit_set *set, uint8_t *chunk,
                    int64_t *left) {
    static const uint8_t nothing[8];
    char name[CB_AUDIT_PATH];
    for (size_t i = set->len - of_this_log(set, fd, path); i < set->len; i++) {
        int rc = cb_audit_set_name(name, path, set->numbers[i]);
        int one = rc < 0 ? rc : open_file(name);
        if (one < 0) return one;
        if (lseek(one, 0, SEEK_END) == 0) /* as wrong as zeros are */
            *left = cb_audit_verifier_feed(v, (cb_slice){nothing, sizeof nothing});
        else
            *left = lseek(one, 0, SEEK_SET) == 0 ? feed_all(v, one, name, chunk, (size_t)*left) : CB_ESYS;
        close(one);
        if (*left < 0) return (int)*left;
    }
    *left = feed_all(v, fd, path, chunk, (size_t)*left);
    return *left < 0 ? (int)*left : CB_OK;
}

static int verify_set(const char *path, int fd, const cb_audit_verify_opts *opts, cb_audit_report *report) {
    cb_audit_verifier *v = NULL;
    cb_audit_set set;
    int64_t left = 0;
    int rc = cb_audit_set_list(&set, path);
    if (rc < 0) return rc;
    uint8_t *chunk = cb_mem_get(&cb_alloc_libc, CHUNK);
    rc = chunk ? cb_audit_verifier_new(&v, opts) : cb_fail(CB_ENOMEM, "no memory to verify %s", path);
    if (rc == CB_OK) {
        rc = feed_set(v, path, fd, &set, chunk, &left);
        rc = finish(v, rc, (cb_slice){chunk, left > 0 ? (size_t)left : 0}, report, NULL);
    }
    cb_audit_verifier_free(v);
    cb_mem_free(&cb_alloc_libc, chunk);
    cb_audit_set_free(&set);
    return rc;
}

int cb_audit_verify(const char *path, const cb_audit_verify_opts *opts, cb_audit_report *report) {
    cb_audit_verify_opts o;
    if (!path) return cb_fail(CB_EINVAL, "cb_audit_verify: path is NULL");
    int rc = cb_opts_read(&o, sizeof o, opts, "cb_audit_verify_opts");
    int fd = rc < 0 ? rc : open_file(path);
    if (fd < 0) return fd;
    rc = o.alone ? cb_audit_fd_verify(fd, path, &o, report, NULL) : verify_set(path, fd, &o, report);
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
