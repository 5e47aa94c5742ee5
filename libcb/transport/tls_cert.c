#include "transport/tls_cert.h"
#include "base/error.h"
#include "base/mem.h"
#include "transport/token_key.h"
#include <errno.h>
#include <fcntl.h>
#include <gnutls/x509.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FILE_MAX = 4 << 20, CHAIN_MAX = 16 };

static int read_all(int fd, uint8_t *to, size_t len) {
    while (len > 0) {
        ssize_t n = read(fd, to, len);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return errno;
        if (n == 0) return EIO; /* it became shorter under our hands */
        to += n;
        len -= (size_t)n;
    }
    return 0;
}

int cb_tls_file_read(const char *path, gnutls_datum_t *out, bool *open_to_others) {
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &st) < 0) {
        int err = errno;
        if (fd >= 0) close(fd);
        return cb_fail_errno(err, "%s", path);
    }
    int rc = CB_OK;
    uint8_t *data = NULL;
    if (!S_ISREG(st.st_mode)) {
        rc = cb_fail(CB_EINVAL, "%s: not a regular file", path);
    } else if (st.st_size == 0) {
        rc = cb_fail(CB_EINVAL, "%s: the file is empty", path);
    } else if (st.st_size > FILE_MAX) {
        rc = cb_fail(CB_EINVAL, "%s: larger than %d bytes", path, FILE_MAX);
    } else if (!(data = gnutls_malloc((size_t)st.st_size))) {
        rc = cb_fail(CB_ENOMEM, "%s: no memory", path);
    } else {
        int err = read_all(fd, data, (size_t)st.st_size);
        if (err) rc = cb_fail_errno(err, "%s", path);
    }
    close(fd);
    if (rc < 0) {
        gnutls_free(data);
        return rc;
    }
    if (open_to_others) *open_to_others = (st.st_mode & 077) != 0;
    *out = (gnutls_datum_t){data, (unsigned)st.st_size};
    return CB_OK;
}

static unsigned ability_of(gnutls_x509_crt_t crt) {
    unsigned bits = 0;
    int pk = gnutls_x509_crt_get_pk_algorithm(crt, &bits);
    switch (pk) {
    case GNUTLS_PK_ECDSA:
        return bits <= 256 ? CB_SIG_ECDSA_P256 : bits <= 384 ? CB_SIG_ECDSA_P384 : CB_SIG_ECDSA_P521;
    case GNUTLS_PK_RSA:
        return CB_SIG_RSA;
    case GNUTLS_PK_RSA_PSS:
        return CB_SIG_RSA_PSS;
    case GNUTLS_PK_EDDSA_ED25519:
        return CB_SIG_ED25519;
    case GNUTLS_PK_EDDSA_ED448:
        return CB_SIG_ED448;
    default:
        return 0;
    }
}

static int report_names(gnutls_x509_crt_t crt, int (*on_name)(void *user, const char *name), void *user) {
    for (unsigned i = 0;; i++) {
        char name[CB_SNI_MAX];
        size_t size = sizeof name - 1;
        int type = gnutls_x509_crt_get_subject_alt_name(crt, i, name, &size, NULL);
        if (type == GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE) return CB_OK;
        if (type == GNUTLS_E_SHORT_MEMORY_BUFFER) continue; /* longer than a host name can be */
        if (type < 0) return CB_OK;                         /* no alternative names that can be read */
        if (type != GNUTLS_SAN_DNSNAME) continue;
        name[size] = '\0';
        if (strlen(name) != size || size == 0) continue; /* a NUL inside: somebody plays tricks */
        int rc = on_name(user, name);
        if (rc < 0) return rc;
    }
}

static int same_key(gnutls_x509_crt_t crt, gnutls_privkey_t key) {
    uint8_t a[64], b[64];
    size_t a_len = sizeof a, b_len = sizeof b;
    gnutls_pubkey_t pub;
    int rc = gnutls_pubkey_init(&pub);
    if (rc < 0) return rc;
    rc = gnutls_pubkey_import_privkey(pub, key, 0, 0);
    if (rc >= 0) rc = gnutls_pubkey_get_key_id(pub, GNUTLS_KEYID_USE_SHA256, a, &a_len);
    if (rc >= 0) rc = gnutls_x509_crt_get_key_id(crt, GNUTLS_KEYID_USE_SHA256, b, &b_len);
    gnutls_pubkey_deinit(pub);
    if (rc < 0) return rc;
    return a_len == b_len && memcmp(a, b, a_len) == 0;
}

static gnutls_datum_t text_of(const char *pem) {
    return (gnutls_datum_t){(unsigned char *)(uintptr_t)pem, (unsigned)strlen(pem)};
}

static int read_key(gnutls_privkey_t *out, const gnutls_datum_t *pem, const char *from) {
    gnutls_x509_privkey_t x = NULL;
    gnutls_privkey_t key = NULL;
    int grc = gnutls_x509_privkey_init(&x);
    if (grc >= 0) grc = gnutls_x509_privkey_import2(x, pem, GNUTLS_X509_FMT_PEM, NULL, 0);
    if (grc >= 0) grc = gnutls_privkey_init(&key);
    if (grc >= 0) grc = gnutls_privkey_import_x509(key, x, GNUTLS_PRIVKEY_IMPORT_AUTO_RELEASE);
    if (grc >= 0) {
        *out = key;
        return CB_OK;
    }
    if (x) gnutls_x509_privkey_deinit(x);
    if (key) gnutls_privkey_deinit(key);
    bool encrypted = grc == GNUTLS_E_DECRYPTION_FAILED;
    return cb_fail(CB_EINVAL, "%s: not an unencrypted PEM private key%s%s", from, encrypted ? "" : ": ",
                   encrypted ? "" : gnutls_strerror(grc));
}

static int load_key(gnutls_privkey_t *out, const char *path) {
    gnutls_datum_t pem;
    bool loose = false;
    int rc = cb_tls_file_read(path, &pem, &loose);
    if (rc < 0) return rc;
    rc = read_key(out, &pem, path);
    cb_mem_wipe(pem.data, pem.size);
    gnutls_free(pem.data);
    if (rc >= 0 && loose) cb_fail(CB_OK, "warning: %s: others may read this private key (chmod 600)", path);
    return rc;
}

static int read_chain(const gnutls_datum_t *pem, const char *from, gnutls_x509_crt_t **list, unsigned *len) {
    int grc = gnutls_x509_crt_list_import2(list, len, pem, GNUTLS_X509_FMT_PEM, 0);
    return grc < 0 ? cb_fail(CB_EINVAL, "%s: no PEM certificate in it: %s", from, gnutls_strerror(grc)) : CB_OK;
}

static int load_chain(const char *path, gnutls_x509_crt_t **list, unsigned *len) {
    gnutls_datum_t pem;
    int rc = cb_tls_file_read(path, &pem, NULL);
    if (rc < 0) return rc;
    rc = read_chain(&pem, path, list, len);
    gnutls_free(pem.data);
    return rc;
}

static void free_list(gnutls_x509_crt_t *list, unsigned len) {
    for (unsigned i = 0; i < len; i++) {
        gnutls_x509_crt_deinit(list[i]);
    }
    gnutls_free(list);
}

static int take_key(cb_tls_cert *cert, gnutls_x509_crt_t leaf, const cb_identity_opts *f) {
    const bool token = cert->slow = !f->pem && cb_token_is_url(f->key_file);
    const gnutls_datum_t pem = text_of(f->pem ? f->pem : "");
    int rc = f->pem  ? read_key(&cert->key, &pem, f->key_file)
             : token ? cb_token_key_open(&cert->key, NULL, f->key_file)
                     : load_key(&cert->key, f->key_file);
    if (rc < 0) return rc;
    if ((cert->ability = ability_of(leaf)) == 0)
        return cb_fail(CB_EINVAL, "%s: a key type that TLS 1.3 has no signature for", f->cert_file);
    if (token) return cb_token_key_check(cert->key, leaf, f->key_file, f->cert_file);
    int same = same_key(leaf, cert->key);
    if (same < 0) return cb_fail(CB_EINVAL, "%s: %s", f->key_file, gnutls_strerror(same));
    return same ? CB_OK : cb_fail(CB_EINVAL, "%s is not the key of %s", f->key_file, f->cert_file);
}

/* Puts the list in order, too. */
static int take_chain(cb_tls_cert *cert, gnutls_x509_crt_t *list, unsigned len, const char *cert_file) {
    if (!(cert->chain = gnutls_calloc(len, sizeof *cert->chain))) return cb_fail(CB_ENOMEM, "%s", cert_file);
    int grc = gnutls_pcert_import_x509_list(cert->chain, list, &len, GNUTLS_X509_CRT_LIST_SORT);
    cert->chain_len = grc >= 0 ? len : 0;
    return grc < 0 ? cb_fail(CB_EINVAL, "%s: not a chain: %s", cert_file, gnutls_strerror(grc)) : CB_OK;
}

static gnutls_x509_crt_t issuer_in(gnutls_x509_crt_t leaf, gnutls_x509_crt_t *list, unsigned len) {
    for (unsigned i = 0; i < len; i++)
        if (gnutls_x509_crt_check_issuer(leaf, list[i])) return list[i];
    return NULL;
}

static int take_staple(cb_tls_cert *cert, gnutls_x509_crt_t *list, unsigned len, const cb_identity_opts *f) {
    gnutls_x509_crt_t *more = NULL, issuer = issuer_in(list[0], list, len);
    unsigned more_len = 0;
    int rc = !issuer && f->issuer_file ? load_chain(f->issuer_file, &more, &more_len) : CB_OK;
    if (rc < 0) return rc;
    if (!issuer) issuer = issuer_in(list[0], more, more_len);
    if (issuer)
        rc = cb_tls_staple_read(&cert->staple, f->ocsp_file, list[0], issuer);
    else
        rc = cb_fail(CB_EINVAL, "%s: cannot be checked: the issuer's certificate is %s", f->ocsp_file,
                     f->issuer_file ? "not in issuer_file" : "neither in cert_file nor in issuer_file");
    free_list(more, more_len);
    return rc;
}

int cb_tls_cert_load(cb_tls_cert *out, const cb_identity_opts *source, int (*on_name)(void *user, const char *name),
                     void *user) {
    cb_identity_opts named = *source, *f = &named;
    if (f->pem) f->cert_file = f->key_file = "pem"; /* as errors call it */
    const gnutls_datum_t pem = text_of(f->pem ? f->pem : "");
    gnutls_x509_crt_t *list = NULL;
    unsigned len = 0;
    cb_tls_cert cert = {0};
    int rc = f->pem ? read_chain(&pem, f->cert_file, &list, &len) : load_chain(f->cert_file, &list, &len);
    if (rc < 0) return rc;
    if (len > CHAIN_MAX) rc = cb_fail(CB_EINVAL, "%s: more than %d certificates in one chain", f->cert_file, CHAIN_MAX);
    if (rc >= 0) rc = take_key(&cert, list[0], f);
    if (rc >= 0) rc = take_chain(&cert, list, len, f->cert_file);
    if (rc >= 0 && on_name) rc = report_names(list[0], on_name, user);
    if (rc >= 0 && f->ocsp_file) rc = take_staple(&cert, list, len, f);
    cert.begins = gnutls_x509_crt_get_activation_time(list[0]);
    cert.expires = gnutls_x509_crt_get_expiration_time(list[0]);
    cert.must_staple = cb_tls_must_staple(list[0]);
    for (unsigned i = 1; i < len; i++) {
        const int64_t at = gnutls_x509_crt_get_expiration_time(list[i]);
        if (cert.above_expires && at >= cert.above_expires) continue;
        cert.above_expires = at;
        cert.above_begins = gnutls_x509_crt_get_activation_time(list[i]);
    }
    free_list(list, len);
    if (rc < 0) {
        cb_tls_cert_clear(&cert);
        return rc;
    }
    *out = cert;
    return CB_OK;
}

void cb_tls_cert_clear(cb_tls_cert *cert) {
    for (unsigned i = 0; i < cert->chain_len; i++) {
        gnutls_pcert_deinit(&cert->chain[i]);
    }
    gnutls_free(cert->chain);
    if (cert->key) gnutls_privkey_deinit(cert->key);
    cb_tls_staple_clear(&cert->staple);
    *cert = (cb_tls_cert){0};
}
