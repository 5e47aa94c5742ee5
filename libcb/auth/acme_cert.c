#include "auth/acme_cert.h"
#include "auth/acme_jws.h"
#include "auth/ca_cert.h"
#include "base/error.h"
#include "base/mem.h"
#include <gnutls/x509.h>
#include <string.h>
#include <strings.h>

enum { NAME_BYTES = 256 };

static int tls_fail(int rc, int grc, const char *what) {
    return cb_fail(grc == GNUTLS_E_MEMORY_ERROR ? CB_ENOMEM : rc, "%s: %s", what, gnutls_strerror(grc));
}

static gnutls_datum_t datum(cb_slice s) {
    return (gnutls_datum_t){(uint8_t *)(uintptr_t)s.base, (unsigned)s.len};
}

static int add_and_free(cb_buf *to, gnutls_datum_t *from) {
    int rc = cb_buf_add(to, from->data, from->size);
    if (from->data) cb_mem_wipe(from->data, from->size);
    gnutls_free(from->data);
    from->data = NULL;
    return rc;
}

int cb_acme_make_key(cb_buf *pem, int key_type) {
    gnutls_x509_privkey_t key;
    gnutls_datum_t text = {NULL, 0};
    int rc = cb_key_generate(&key, key_type ? key_type : CB_KEY_ECDSA_P256);
    if (rc < 0) return rc;
    int grc = gnutls_x509_privkey_export2_pkcs8(key, GNUTLS_X509_FMT_PEM, NULL, GNUTLS_PKCS_PLAIN, &text);
    gnutls_x509_privkey_deinit(key);
    return grc < 0 ? tls_fail(CB_ETLS, grc, "cannot write a key") : add_and_free(pem, &text);
}

static int read_key(gnutls_x509_privkey_t *out, cb_slice pem) {
    const gnutls_datum_t data = datum(pem);
    int grc = gnutls_x509_privkey_init(out);
    if (grc < 0) return tls_fail(CB_ETLS, grc, "a key");
    grc = gnutls_x509_privkey_import2(*out, &data, GNUTLS_X509_FMT_PEM, NULL, 0);
    if (grc >= 0) return CB_OK;
    gnutls_x509_privkey_deinit(*out);
    return tls_fail(CB_EINVAL, grc, "not a private key in PEM");
}

static int fill_csr(gnutls_x509_crq_t crq, gnutls_x509_privkey_t key, const char *const *names, size_t n) {
    int grc = gnutls_x509_crq_set_version(crq, 1);
    for (size_t i = 0; grc >= 0 && i < n; i++) {
        uint8_t ip[16];
        const unsigned len = cb_cert_ip(names[i], ip);
        grc = len ? gnutls_x509_crq_set_subject_alt_name(crq, GNUTLS_SAN_IPADDRESS, ip, len, GNUTLS_FSAN_APPEND)
                  : gnutls_x509_crq_set_subject_alt_name(crq, GNUTLS_SAN_DNSNAME, names[i], (unsigned)strlen(names[i]),
                                                         GNUTLS_FSAN_APPEND);
    }
    if (grc >= 0) grc = gnutls_x509_crq_set_key(crq, key);
    return grc >= 0 ? gnutls_x509_crq_sign2(crq, key, GNUTLS_DIG_UNKNOWN, 0) : grc;
}

int cb_acme_make_csr(cb_buf *der, cb_slice key_pem, const char *const *names, size_t n) {
    gnutls_x509_privkey_t key;
    gnutls_x509_crq_t crq = NULL;
    gnutls_datum_t out = {NULL, 0};
    int rc = read_key(&key, key_pem);
    if (rc < 0) return rc;
    int grc = gnutls_x509_crq_init(&crq);
    if (grc >= 0) grc = fill_csr(crq, key, names, n);
    if (grc >= 0) grc = gnutls_x509_crq_export2(crq, GNUTLS_X509_FMT_DER, &out);
    if (crq) gnutls_x509_crq_deinit(crq);
    gnutls_x509_privkey_deinit(key);
    return grc < 0 ? tls_fail(CB_ETLS, grc, "cannot make a certificate request") : add_and_free(der, &out);
}

/* --- what came --- */

static int read_chain(gnutls_x509_crt_t chain[CB_ACME_CHAIN], unsigned *n, cb_slice pem) {
    const gnutls_datum_t data = datum(pem);
    *n = CB_ACME_CHAIN;
    int grc =
        gnutls_x509_crt_list_import(chain, n, &data, GNUTLS_X509_FMT_PEM, GNUTLS_X509_CRT_LIST_IMPORT_FAIL_IF_EXCEED);
    if (grc > 0) return CB_OK;
    *n = 0;
    return cb_fail(CB_EPROTO, "the certificate chain is not PEM, or longer than %d: %s", CB_ACME_CHAIN,
                   gnutls_strerror(grc));
}

static void free_chain(gnutls_x509_crt_t *chain, unsigned n) {
    for (unsigned i = 0; i < n; i++)
        gnutls_x509_crt_deinit(chain[i]);
}

static bool is_name(const char *want, int type, const uint8_t *san, size_t len) {
    uint8_t ip[16];
    const unsigned ip_len = cb_cert_ip(want, ip);
    if (ip_len) return type == GNUTLS_SAN_IPADDRESS && len == ip_len && memcmp(ip, san, len) == 0;
    return type == GNUTLS_SAN_DNSNAME && strlen(want) == len && strncasecmp(want, (const char *)san, len) == 0;
}

/* CB_OK when the names are those: none missing, none beside them. */
static int check_names(gnutls_x509_crt_t leaf, const char *const *names, size_t n) {
    for (int pass = 0; pass < 2; pass++) { /* 0: nothing beside; 1: nothing missing */
        for (size_t i = 0; i < (pass ? n : 1); i++) {
            bool found = false;
            uint8_t san[NAME_BYTES];
            for (unsigned at = 0;; at++) {
                size_t len = sizeof san;
                int type = gnutls_x509_crt_get_subject_alt_name(leaf, at, san, &len, NULL);
                if (type == GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE) break;
                if (type < 0) return cb_fail(CB_EPROTO, "the certificate has a name that cannot be read");
                bool one = pass && is_name(names[i], type, san, len);
                for (size_t k = 0; !pass && !one && k < n; k++)
                    one = is_name(names[k], type, san, len);
                if (!pass && !one) return cb_fail(CB_EPROTO, "the certificate has a name that was not asked for");
                found = found || one;
            }
            if (pass && !found) return cb_fail(CB_EPROTO, "the certificate is not for %s", names[i]);
        }
    }
    return CB_OK;
}

static int check_key(gnutls_x509_crt_t leaf, cb_slice key_pem) {
    uint8_t a[32], b[32];
    size_t a_len = sizeof a, b_len = sizeof b;
    gnutls_x509_privkey_t key;
    int rc = read_key(&key, key_pem);
    if (rc < 0) return rc;
    const bool same = gnutls_x509_crt_get_key_id(leaf, GNUTLS_KEYID_USE_SHA256, a, &a_len) >= 0 &&
                      gnutls_x509_privkey_get_key_id(key, GNUTLS_KEYID_USE_SHA256, b, &b_len) >= 0 &&
                      memcmp(a, b, sizeof a) == 0;
    gnutls_x509_privkey_deinit(key);
    return same ? CB_OK : cb_fail(CB_EPROTO, "the certificate is for another key");
}

static int check_links(gnutls_x509_crt_t *chain, unsigned n) {
    for (unsigned i = 0; i + 1 < n; i++) {
        unsigned status = 0;
        int grc =
            gnutls_x509_crt_verify(chain[i], &chain[i + 1], 1,
                                   GNUTLS_VERIFY_DISABLE_TIME_CHECKS | GNUTLS_VERIFY_ALLOW_X509_V1_CA_CRT, &status);
        if (grc < 0 || status) return cb_fail(CB_EPROTO, "certificate %u of the chain is not signed by the next", i);
    }
    return CB_OK;
}

int cb_acme_chain_check(cb_slice pem, cb_slice key_pem, const char *const *names, size_t n, int64_t now_s) {
    gnutls_x509_crt_t chain[CB_ACME_CHAIN];
    unsigned len;
    int rc = read_chain(chain, &len, pem);
    if (rc < 0) return rc;
    rc = check_key(chain[0], key_pem);
    if (rc >= 0) rc = check_names(chain[0], names, n);
    if (rc >= 0) rc = check_links(chain, len);
    if (rc >= 0 && gnutls_x509_crt_get_expiration_time(chain[0]) <= now_s) {
        rc = cb_fail(CB_EPROTO, "the certificate has expired already");
    }
    free_chain(chain, len);
    return rc;
}

bool cb_acme_cert_has_names(cb_slice pem, const char *const *names, size_t n) {
    gnutls_x509_crt_t chain[CB_ACME_CHAIN];
    unsigned len;
    if (read_chain(chain, &len, pem) < 0) return false;
    const bool same = check_names(chain[0], names, n) >= 0;
    free_chain(chain, len);
    return same;
}

static int make_id(cb_acme_cert *out, gnutls_x509_crt_t leaf) {
    uint8_t aki[64], serial[64];
    size_t aki_len = sizeof aki, serial_len = sizeof serial;
    cb_buf b;
    if (gnutls_x509_crt_get_authority_key_id(leaf, aki, &aki_len, NULL) < 0 ||
        gnutls_x509_crt_get_serial(leaf, serial, &serial_len) < 0) {
        return CB_OK;
    }
    if (serial_len >= sizeof out->spread)
        memcpy(&out->spread, serial + serial_len - sizeof out->spread, sizeof out->spread);
    cb_buf_init(&b, &cb_alloc_libc, 256);
    int rc = cb_acme_base64url(&b, aki, aki_len);
    if (rc >= 0) rc = cb_buf_text(&b, ".");
    if (rc >= 0) rc = cb_acme_base64url(&b, serial, serial_len);
    if (rc >= 0 && b.len < sizeof out->id) memcpy(out->id, b.base, b.len); /* else it has none that is short enough */
    cb_buf_free(&b);
    return rc;
}

int cb_acme_cert_read(cb_acme_cert *out, cb_slice pem, cb_buf *der) {
    gnutls_x509_crt_t chain[CB_ACME_CHAIN];
    gnutls_datum_t raw = {NULL, 0};
    unsigned len;
    int rc = read_chain(chain, &len, pem);
    if (rc < 0) return rc;
    memset(out, 0, sizeof *out);
    out->not_before_s = (int64_t)gnutls_x509_crt_get_activation_time(chain[0]);
    out->not_after_s = (int64_t)gnutls_x509_crt_get_expiration_time(chain[0]);
    rc = make_id(out, chain[0]);
    if (rc >= 0 && der) {
        int grc = gnutls_x509_crt_export2(chain[0], GNUTLS_X509_FMT_DER, &raw);
        rc = grc < 0 ? tls_fail(CB_ETLS, grc, "a certificate") : add_and_free(der, &raw);
    }
    free_chain(chain, len);
    return rc;
}
