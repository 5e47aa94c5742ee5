#include <cb/ca.h>

#include "auth/ca_cert.h"
#include "base/error.h"
#include "base/mem.h"
#include "base/opts.h"
#include "transport/tls_cert.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { PATH_BYTES = 4096, ROOT_DAYS = 825, LEAF_DAYS = 90, DAY = 86400, DAYS_MAX = 36500 };

struct cb_ca {
    char *dir;
    gnutls_x509_crt_t crt;
    gnutls_x509_privkey_t key;
};

static const cb_alloc *const heap = &cb_alloc_libc;

static int path_of(char out[PATH_BYTES], const char *dir, const char *stem, const char *tail) {
    int n = snprintf(out, PATH_BYTES, "%s/%s%s", dir, stem, tail);
    return n > 0 && n < PATH_BYTES ? CB_OK : cb_fail(CB_EINVAL, "%s/%s: the path is too long", dir, stem);
}

/* --- files --- */

static int write_whole(const char *path, const gnutls_datum_t *pem, mode_t mode) {
    if (unlink(path) < 0 && errno != ENOENT) return cb_fail_errno(errno, "%s", path);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    if (fd < 0) return cb_fail_errno(errno, "%s", path);
    size_t done = 0;
    int err = 0;
    while (done < pem->size && !err) {
        ssize_t n = write(fd, pem->data + done, pem->size - done);
        if (n >= 0) done += (size_t)n;
        if (n < 0 && errno != EINTR) err = errno;
    }
    if (!err && fsync(fd) < 0) err = errno;
    if (close(fd) < 0 && !err) err = errno;
    if (!err) return CB_OK;
    unlink(path);
    return cb_fail_errno(err, "%s", path);
}

/* Both files are whole beside their places before the first takes its place. */
static int write_pair(const char *dir, const char *stem, const gnutls_datum_t *crt, const gnutls_datum_t *key) {
    char path[4][PATH_BYTES]; /* certificate, key, and each while it is new */
    static const char *const tails[4] = {".pem", "-key.pem", ".pem.new", "-key.pem.new"};
    int rc = CB_OK;
    for (size_t i = 0; i < 4 && rc >= 0; i++) {
        rc = path_of(path[i], dir, stem, tails[i]);
    }
    if (rc < 0) return rc;
    rc = write_whole(path[2], crt, 0644);
    if (rc >= 0) rc = write_whole(path[3], key, 0600);
    if (rc >= 0 && rename(path[3], path[1]) < 0) rc = cb_fail_errno(errno, "%s", path[1]);
    if (rc >= 0 && rename(path[2], path[0]) < 0) rc = cb_fail_errno(errno, "%s", path[0]);
    if (rc < 0) {
        unlink(path[2]);
        unlink(path[3]);
    }
    return rc;
}

static int save(const char *dir, const char *stem, gnutls_x509_crt_t crt, gnutls_x509_privkey_t key) {
    gnutls_datum_t crt_pem = {NULL, 0}, key_pem = {NULL, 0};
    int grc = gnutls_x509_crt_export2(crt, GNUTLS_X509_FMT_PEM, &crt_pem);
    if (grc >= 0) grc = gnutls_x509_privkey_export2_pkcs8(key, GNUTLS_X509_FMT_PEM, NULL, GNUTLS_PKCS_PLAIN, &key_pem);
    int rc = grc < 0 ? cb_fail(CB_ETLS, "%s/%s: cannot write it as PEM: %s", dir, stem, gnutls_strerror(grc))
                     : write_pair(dir, stem, &crt_pem, &key_pem);
    if (key_pem.data) cb_mem_wipe(key_pem.data, key_pem.size);
    gnutls_free(crt_pem.data);
    gnutls_free(key_pem.data);
    return rc;
}

/* --- the authority --- */

static int load(cb_ca *ca, const char *crt_path, const char *key_path) {
    gnutls_datum_t pem;
    unsigned critical = 0;
    int rc = cb_tls_file_read(crt_path, &pem, NULL);
    if (rc < 0) return rc;
    int grc = gnutls_x509_crt_init(&ca->crt);
    if (grc >= 0) grc = gnutls_x509_crt_import(ca->crt, &pem, GNUTLS_X509_FMT_PEM);
    gnutls_free(pem.data);
    if (grc < 0) return cb_fail(CB_EINVAL, "%s: not a PEM certificate: %s", crt_path, gnutls_strerror(grc));
    if (gnutls_x509_crt_get_ca_status(ca->crt, &critical) <= 0) {
        return cb_fail(CB_EINVAL, "%s: the certificate is not that of an authority", crt_path);
    }
    rc = cb_tls_file_read(key_path, &pem, NULL);
    if (rc < 0) return rc;
    grc = gnutls_x509_privkey_init(&ca->key);
    if (grc >= 0) grc = gnutls_x509_privkey_import2(ca->key, &pem, GNUTLS_X509_FMT_PEM, NULL, 0);
    cb_mem_wipe(pem.data, pem.size);
    gnutls_free(pem.data);
    if (grc < 0) return cb_fail(CB_EINVAL, "%s: not a PEM private key: %s", key_path, gnutls_strerror(grc));
    uint8_t a[32], b[32];
    size_t a_len = sizeof a, b_len = sizeof b;
    bool same = gnutls_x509_crt_get_key_id(ca->crt, GNUTLS_KEYID_USE_SHA256, a, &a_len) >= 0 &&
                gnutls_x509_privkey_get_key_id(ca->key, GNUTLS_KEYID_USE_SHA256, b, &b_len) >= 0 &&
                memcmp(a, b, sizeof a) == 0;
    return same ? CB_OK : cb_fail(CB_EINVAL, "%s is not the key of %s", key_path, crt_path);
}

static int make(cb_ca *ca, const cb_ca_opts *o) {
    int64_t now = (int64_t)time(NULL);
    cb_cert_plan plan = {
        .common_name = o->common_name ? o->common_name : "libcb development CA",
        .not_before = now - 3600,
        .not_after = now + (int64_t)(o->days ? o->days : ROOT_DAYS) * DAY,
        .authority = true,
    };
    int rc = cb_key_generate(&ca->key, o->key_type ? o->key_type : CB_KEY_ECDSA_P384);
    if (rc >= 0) rc = cb_cert_build(&ca->crt, &plan, ca->key, NULL, NULL);
    return rc >= 0 ? save(ca->dir, "ca", ca->crt, ca->key) : rc;
}

static int load_or_make(cb_ca *ca, const cb_ca_opts *o) {
    char crt_path[PATH_BYTES], key_path[PATH_BYTES];
    int rc = path_of(crt_path, ca->dir, "ca", ".pem");
    if (rc >= 0) rc = path_of(key_path, ca->dir, "ca", "-key.pem");
    if (rc < 0) return rc;
    bool no_crt = access(crt_path, F_OK) < 0 && errno == ENOENT;
    bool no_key = access(key_path, F_OK) < 0 && errno == ENOENT;
    if (no_crt && no_key) return make(ca, o);
    if (no_crt || no_key) {
        return cb_fail(CB_EINVAL, "%s: %s is missing beside %s", ca->dir, no_crt ? "ca.pem" : "ca-key.pem",
                       no_crt ? "ca-key.pem" : "ca.pem");
    }
    return load(ca, crt_path, key_path);
}

/* One process at a time makes the root; the lock goes with the descriptor. */
static int lock_dir(const char *dir, int *out) {
    if (mkdir(dir, 0700) < 0 && errno != EEXIST) return cb_fail_errno(errno, "%s", dir);
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return cb_fail_errno(errno, "%s", dir);
    if (flock(fd, LOCK_EX) < 0) {
        int err = errno;
        close(fd);
        return cb_fail_errno(err, "%s", dir);
    }
    *out = fd;
    return CB_OK;
}

int cb_ca_open(cb_ca **out, const cb_ca_opts *opts) {
    if (!out) return cb_fail(CB_EINVAL, "cb_ca_open: out is NULL");
    cb_ca_opts o;
    int lock = -1, rc = cb_opts_read(&o, sizeof o, opts, "cb_ca_opts");
    if (rc < 0) return rc;
    if (!o.dir || !*o.dir) return cb_fail(CB_EINVAL, "cb_ca_opts: no dir");
    if (o.days > DAYS_MAX) return cb_fail(CB_EINVAL, "cb_ca_opts: %u days are more than 100 years", o.days);
    cb_ca *ca = cb_mem_new(heap, sizeof *ca);
    if (!ca || !(ca->dir = cb_mem_text(heap, o.dir))) {
        cb_ca_free(ca);
        return cb_fail(CB_ENOMEM, "no memory for a CA");
    }
    rc = lock_dir(ca->dir, &lock);
    if (rc >= 0) rc = load_or_make(ca, &o);
    if (lock >= 0) close(lock);
    if (rc < 0) {
        cb_ca_free(ca);
        return rc;
    }
    *out = ca;
    return CB_OK;
}

void cb_ca_free(cb_ca *ca) {
    if (!ca) return;
    if (ca->crt) gnutls_x509_crt_deinit(ca->crt);
    if (ca->key) gnutls_x509_privkey_deinit(ca->key);
    cb_mem_free(heap, ca->dir);
    cb_mem_free(heap, ca);
}

/* --- leaves --- */

static int check_leaf(const cb_leaf_opts *o) {
    if (!o->names || o->names_len == 0) return cb_fail(CB_EINVAL, "a certificate needs a name");
    if (o->days > DAYS_MAX) return cb_fail(CB_EINVAL, "%u days are more than 100 years", o->days);
    for (size_t i = 0; i < o->names_len; i++) {
        int rc = cb_cert_check_name(o->names[i]);
        if (rc < 0) return rc;
    }
    const char *stem = o->file_stem;
    if (stem && (!*stem || *stem == '.' || strchr(stem, '/') || strcmp(stem, "ca") == 0)) {
        return cb_fail(CB_EINVAL, "\"%s\" cannot name a certificate's files", stem);
    }
    return CB_OK;
}

/* "*" and ":" trouble shells and other systems; "ca" is taken. */
static int stem_of(char out[PATH_BYTES], const cb_leaf_opts *o) {
    const char *from = o->file_stem ? o->file_stem : o->names[0];
    int n = snprintf(out, PATH_BYTES, "%s%s", from, strcmp(from, "ca") == 0 ? "_" : "");
    if (n < 0 || n >= 256) return cb_fail(CB_EINVAL, "\"%.40s...\" is too long to name files", from);
    for (char *p = out; *p; p++) {
        if (*p == '*' || *p == ':') *p = '_';
    }
    return CB_OK;
}

static int give_path(char **out, const char *dir, const char *stem, const char *tail) {
    char path[PATH_BYTES];
    if (!out) return CB_OK;
    int rc = path_of(path, dir, stem, tail);
    if (rc < 0) return rc;
    *out = cb_mem_text(heap, path);
    return *out ? CB_OK : cb_fail(CB_ENOMEM, "no memory for a path");
}

int cb_ca_issue(cb_ca *ca, const cb_leaf_opts *opts, char **cert_path, char **key_path) {
    if (!ca) return cb_fail(CB_EINVAL, "cb_ca_issue: ca is NULL");
    cb_leaf_opts o;
    char stem[PATH_BYTES], *crt_text = NULL, *key_text = NULL;
    gnutls_x509_crt_t crt = NULL;
    gnutls_x509_privkey_t key = NULL;
    int rc = cb_opts_read(&o, sizeof o, opts, "cb_leaf_opts");
    if (rc >= 0) rc = check_leaf(&o);
    if (rc >= 0) rc = stem_of(stem, &o);
    if (rc < 0) return rc;
    int64_t begin = o.not_before_s ? o.not_before_s : (int64_t)time(NULL) - 3600;
    int64_t end = begin + (int64_t)(o.days ? o.days : LEAF_DAYS) * DAY;
    int64_t ca_end = (int64_t)gnutls_x509_crt_get_expiration_time(ca->crt);
    cb_cert_plan plan = {
        .common_name = o.names[0],
        .names = o.names,
        .names_len = o.names_len,
        .not_before = begin,
        .not_after = end < ca_end ? end : ca_end,
    };
    rc = cb_key_generate(&key, o.key_type ? o.key_type : CB_KEY_ECDSA_P256);
    if (rc >= 0) rc = cb_cert_build(&crt, &plan, key, ca->crt, ca->key);
    if (rc >= 0) rc = give_path(cert_path ? &crt_text : NULL, ca->dir, stem, ".pem");
    if (rc >= 0) rc = give_path(key_path ? &key_text : NULL, ca->dir, stem, "-key.pem");
    if (rc >= 0) rc = save(ca->dir, stem, crt, key);
    if (crt) gnutls_x509_crt_deinit(crt);
    if (key) gnutls_x509_privkey_deinit(key);
    if (rc < 0) {
        cb_ca_text_free(crt_text);
        cb_ca_text_free(key_text);
        return rc;
    }
    if (cert_path) *cert_path = crt_text;
    if (key_path) *key_path = key_text;
    return CB_OK;
}

void cb_ca_text_free(char *text) {
    cb_mem_free(heap, text);
}
