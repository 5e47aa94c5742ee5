/* Certificates that we make for ourselves: answers to tls-alpn-01, and placeholders. */
#include "auth/acme_self.h"
#include "auth/acme_jws.h"
#include "auth/ca_cert.h"
#include "base/error.h"
#include "base/mem.h"
#include <cb/acme.h>
#include <gnutls/crypto.h>
#include <gnutls/x509.h>
#include <string.h>

enum { SHA256 = 32, SERIAL = 16, BACKDATE_S = 3600, DAY_S = 86400, PEM_BYTES = 65536 };

static const char acme_identifier[] = "1.3.6.1.5.5.7.1.31"; /* id-pe-acmeIdentifier */

static int tls_fail(int grc) {
    return cb_fail(grc == GNUTLS_E_MEMORY_ERROR ? CB_ENOMEM : CB_ETLS, "cannot make a certificate: %s",
                   gnutls_strerror(grc));
}

static int set_names(gnutls_x509_crt_t crt, const char *const *names, size_t n) {
    int grc = 0;
    for (size_t i = 0; grc >= 0 && i < n; i++) {
        uint8_t ip[16];
        const unsigned len = cb_cert_ip(names[i], ip);
        grc = len ? gnutls_x509_crt_set_subject_alt_name(crt, GNUTLS_SAN_IPADDRESS, ip, len, GNUTLS_FSAN_APPEND)
                  : gnutls_x509_crt_set_subject_alt_name(crt, GNUTLS_SAN_DNSNAME, names[i], (unsigned)strlen(names[i]),
                                                         GNUTLS_FSAN_APPEND);
    }
    return grc;
}

static int set_key_auth(gnutls_x509_crt_t crt, const char *key_auth) {
    uint8_t value[2 + SHA256] = {0x04, SHA256}; /* an OCTET STRING */
    int grc = gnutls_hash_fast(GNUTLS_DIG_SHA256, key_auth, strlen(key_auth), value + 2);
    return grc < 0 ? grc : gnutls_x509_crt_set_extension_by_oid(crt, acme_identifier, value, sizeof value, 1);
}

static int fill(gnutls_x509_crt_t crt, gnutls_x509_privkey_t key, const cb_acme_self *o) {
    uint8_t serial[SERIAL];
    int grc = gnutls_rnd(GNUTLS_RND_NONCE, serial, sizeof serial);
    serial[0] = (uint8_t)((serial[0] & 0x7f) | 0x40); /* positive, and of full length */
    if (grc >= 0) grc = gnutls_x509_crt_set_version(crt, 3);
    if (grc >= 0) grc = gnutls_x509_crt_set_serial(crt, serial, sizeof serial);
    if (grc >= 0) grc = gnutls_x509_crt_set_activation_time(crt, (time_t)(o->now_s - BACKDATE_S));
    if (grc >= 0) grc = gnutls_x509_crt_set_expiration_time(crt, (time_t)(o->now_s + (int64_t)o->days * DAY_S));
    if (grc >= 0)
        grc = gnutls_x509_crt_set_dn_by_oid(crt, GNUTLS_OID_X520_COMMON_NAME, 0, o->common_name,
                                            (unsigned)strlen(o->common_name));
    if (grc >= 0) grc = set_names(crt, o->names, o->names_len);
    if (grc >= 0 && o->key_auth) grc = set_key_auth(crt, o->key_auth);
    if (grc >= 0) grc = gnutls_x509_crt_set_key(crt, key);
    return grc >= 0 ? gnutls_x509_crt_sign2(crt, crt, key, GNUTLS_DIG_SHA256, 0) : grc;
}

static int add_and_free(cb_buf *to, gnutls_datum_t *from) {
    int rc = cb_buf_add(to, from->data, from->size);
    if (from->data) cb_mem_wipe(from->data, from->size);
    gnutls_free(from->data);
    from->data = NULL;
    return rc;
}

int cb_acme_self_signed(cb_buf *pem, const cb_acme_self *o) {
    gnutls_x509_privkey_t key;
    gnutls_x509_crt_t crt = NULL;
    gnutls_datum_t key_text = {NULL, 0}, crt_text = {NULL, 0};
    int rc = cb_key_generate(&key, CB_KEY_ECDSA_P256);
    if (rc < 0) return rc;
    int grc = gnutls_x509_crt_init(&crt);
    if (grc >= 0) grc = fill(crt, key, o);
    if (grc >= 0) grc = gnutls_x509_privkey_export2_pkcs8(key, GNUTLS_X509_FMT_PEM, NULL, GNUTLS_PKCS_PLAIN, &key_text);
    if (grc >= 0) grc = gnutls_x509_crt_export2(crt, GNUTLS_X509_FMT_PEM, &crt_text);
    if (crt) gnutls_x509_crt_deinit(crt);
    gnutls_x509_privkey_deinit(key);
    rc = add_and_free(pem, &key_text);
    if (rc >= 0) rc = add_and_free(pem, &crt_text);
    gnutls_free(crt_text.data);
    return grc < 0 ? tls_fail(grc) : rc;
}

int cb_acme_placeholder(char **pem, const char *const *names, size_t names_len, int64_t now_s) {
    cb_buf text;
    if (!pem || !names || names_len == 0) return cb_fail(CB_EINVAL, "cb_acme_placeholder: pem or names are missing");
    for (size_t i = 0; i < names_len; i++) {
        int rc = cb_cert_check_name(names[i]);
        if (rc < 0) return rc;
    }
    const cb_acme_self o = {.names = names,
                            .names_len = names_len,
                            .common_name = "placeholder: waiting for a certificate",
                            .days = 30,
                            .now_s = now_s};
    cb_buf_init(&text, &cb_alloc_libc, PEM_BYTES);
    int rc = cb_acme_self_signed(&text, &o);
    if (rc >= 0) rc = cb_buf_add(&text, "", 1);
    if (rc < 0) {
        cb_buf_free(&text);
        return rc;
    }
    *pem = (char *)text.base; /* of cb_alloc_libc, as cb_acme_text_free() expects */
    return CB_OK;
}

void cb_acme_text_free(char *text) {
    if (text) cb_mem_wipe(text, strlen(text));
    cb_mem_free(&cb_alloc_libc, text);
}
