#include "auth/ca_cert.h"
#include "base/error.h"
#include <arpa/inet.h>
#include <gnutls/crypto.h>
#include <string.h>

enum { SERIAL = 16, COMMON_NAME_MAX = 64, NAME_MAX_BYTES = 253, LABEL_MAX = 63 };

static unsigned ip_literal(const char *name, uint8_t out[16]) {
    if (inet_pton(AF_INET, name, out) == 1) return 4;
    return inet_pton(AF_INET6, name, out) == 1 ? 16 : 0;
}

int cb_cert_check_name(const char *name) {
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_";
    uint8_t ip[16];
    const char *p = name;
    if (!name || !*name) return cb_fail(CB_EINVAL, "an empty name cannot be certified");
    if (ip_literal(name, ip)) return CB_OK;
    if (strlen(name) > NAME_MAX_BYTES) return cb_fail(CB_EINVAL, "\"%.40s...\" is longer than a DNS name", name);
    if (p[0] == '*' && p[1] == '.') p += 2;
    while (true) {
        size_t label = strspn(p, allowed);
        if (label == 0 || label > LABEL_MAX || (p[label] && p[label] != '.')) {
            return cb_fail(CB_EINVAL,
                           "\"%s\" is neither a DNS name (in ASCII, \"*\" only as the first label) nor an IP address",
                           name);
        }
        if (!p[label]) return CB_OK;
        p += label + 1;
    }
}

static int tls_fail(int rc, const char *what) {
    return cb_fail(rc == GNUTLS_E_MEMORY_ERROR ? CB_ENOMEM : CB_ETLS, "%s: %s", what, gnutls_strerror(rc));
}

int cb_key_generate(gnutls_x509_privkey_t *out, int key_type) {
    static const struct {
        gnutls_pk_algorithm_t algorithm;
        unsigned bits;
    } kinds[] = {
        [CB_KEY_ECDSA_P256] = {GNUTLS_PK_ECDSA, GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_SECP256R1)},
        [CB_KEY_ECDSA_P384] = {GNUTLS_PK_ECDSA, GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_SECP384R1)},
        [CB_KEY_RSA_2048] = {GNUTLS_PK_RSA, 2048},
        [CB_KEY_ED25519] = {GNUTLS_PK_EDDSA_ED25519, GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_ED25519)},
    };
    if (key_type <= 0 || (size_t)key_type >= sizeof kinds / sizeof *kinds) {
        return cb_fail(CB_EINVAL, "no such key type: %d", key_type);
    }
    gnutls_x509_privkey_t key;
    int rc = gnutls_x509_privkey_init(&key);
    if (rc < 0) return tls_fail(rc, "cannot make a key");
    rc = gnutls_x509_privkey_generate(key, kinds[key_type].algorithm, kinds[key_type].bits, 0);
    if (rc < 0) {
        gnutls_x509_privkey_deinit(key);
        return tls_fail(rc, "cannot make a key");
    }
    *out = key;
    return CB_OK;
}

static int set_names(gnutls_x509_crt_t crt, const cb_cert_plan *plan) {
    for (size_t i = 0; i < plan->names_len; i++) {
        const char *name = plan->names[i];
        uint8_t ip[16];
        unsigned ip_len = ip_literal(name, ip);
        int rc = ip_len
                     ? gnutls_x509_crt_set_subject_alt_name(crt, GNUTLS_SAN_IPADDRESS, ip, ip_len, GNUTLS_FSAN_APPEND)
                     : gnutls_x509_crt_set_subject_alt_name(crt, GNUTLS_SAN_DNSNAME, name, (unsigned)strlen(name),
                                                            GNUTLS_FSAN_APPEND);
        if (rc < 0) return rc;
    }
    return 0;
}

static int set_serial(gnutls_x509_crt_t crt) {
    uint8_t serial[SERIAL];
    int rc = gnutls_rnd(GNUTLS_RND_NONCE, serial, sizeof serial);
    serial[0] = (uint8_t)((serial[0] & 0x7f) | 0x40); /* positive, and always of full length */
    return rc < 0 ? rc : gnutls_x509_crt_set_serial(crt, serial, sizeof serial);
}

static int set_subject(gnutls_x509_crt_t crt, const cb_cert_plan *plan) {
    static const char organisation[] = "libcb development";
    size_t len = strlen(plan->common_name);
    int rc =
        gnutls_x509_crt_set_dn_by_oid(crt, GNUTLS_OID_X520_ORGANIZATION_NAME, 0, organisation, sizeof organisation - 1);
    if (rc < 0 || len == 0 || len > COMMON_NAME_MAX) return rc;
    return gnutls_x509_crt_set_dn_by_oid(crt, GNUTLS_OID_X520_COMMON_NAME, 0, plan->common_name, (unsigned)len);
}

static int set_usage(gnutls_x509_crt_t crt, const cb_cert_plan *plan, gnutls_x509_privkey_t key) {
    if (plan->authority) {
        int rc = gnutls_x509_crt_set_basic_constraints(crt, 1, 0);
        return rc < 0 ? rc : gnutls_x509_crt_set_key_usage(crt, GNUTLS_KEY_KEY_CERT_SIGN | GNUTLS_KEY_CRL_SIGN);
    }
    unsigned usage = GNUTLS_KEY_DIGITAL_SIGNATURE;
    if (gnutls_x509_privkey_get_pk_algorithm(key) == GNUTLS_PK_RSA) usage |= GNUTLS_KEY_KEY_ENCIPHERMENT;
    int rc = gnutls_x509_crt_set_basic_constraints(crt, 0, -1);
    if (rc >= 0) rc = gnutls_x509_crt_set_key_usage(crt, usage);
    if (rc >= 0) rc = gnutls_x509_crt_set_key_purpose_oid(crt, GNUTLS_KP_TLS_WWW_SERVER, 0);
    if (rc >= 0) rc = gnutls_x509_crt_set_key_purpose_oid(crt, GNUTLS_KP_TLS_WWW_CLIENT, 0);
    return rc;
}

static int set_key_ids(gnutls_x509_crt_t crt, gnutls_x509_crt_t issuer) {
    uint8_t id[64];
    size_t len = sizeof id;
    int rc = gnutls_x509_crt_get_key_id(crt, 0, id, &len);
    if (rc >= 0) rc = gnutls_x509_crt_set_subject_key_id(crt, id, len);
    len = sizeof id;
    if (rc >= 0) rc = gnutls_x509_crt_get_subject_key_id(issuer, id, &len, NULL);
    return rc < 0 ? rc : gnutls_x509_crt_set_authority_key_id(crt, id, len);
}

int cb_cert_build(gnutls_x509_crt_t *out, const cb_cert_plan *plan, gnutls_x509_privkey_t key, gnutls_x509_crt_t issuer,
                  gnutls_x509_privkey_t issuer_key) {
    gnutls_x509_crt_t crt;
    int rc = gnutls_x509_crt_init(&crt);
    if (rc < 0) return tls_fail(rc, "cannot make a certificate");
    if (!issuer) {
        issuer = crt;
        issuer_key = key;
    }
    rc = gnutls_x509_crt_set_version(crt, 3);
    if (rc >= 0) rc = set_serial(crt);
    if (rc >= 0) rc = gnutls_x509_crt_set_activation_time(crt, plan->not_before);
    if (rc >= 0) rc = gnutls_x509_crt_set_expiration_time(crt, plan->not_after);
    if (rc >= 0) rc = set_subject(crt, plan);
    if (rc >= 0) rc = set_names(crt, plan);
    if (rc >= 0) rc = gnutls_x509_crt_set_key(crt, key);
    if (rc >= 0) rc = set_usage(crt, plan, key);
    if (rc >= 0) rc = set_key_ids(crt, issuer);
    if (rc >= 0)
        rc = gnutls_x509_crt_sign2(crt, issuer, issuer_key, GNUTLS_DIG_UNKNOWN, 0); /* = what fits the issuer's key */
    if (rc < 0) {
        gnutls_x509_crt_deinit(crt);
        return tls_fail(rc, "cannot make a certificate");
    }
    *out = crt;
    return CB_OK;
}
