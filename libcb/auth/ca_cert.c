#include "auth/ca_cert.h"
#include "base/error.h"
#include "transport/peer.h"
#include <arpa/inet.h>
#include <gnutls/crypto.h>
#include <stdio.h>
#include <string.h>

enum { SERIAL = 16, COMMON_NAME_MAX = 64, NAME_MAX_BYTES = 253, LABEL_MAX = 63, URI_MAX = 2048 };

unsigned cb_cert_ip(const char *name, uint8_t out[16]) {
    if (inet_pton(AF_INET, name, out) == 1) return 4;
    return inet_pton(AF_INET6, name, out) == 1 ? 16 : 0;
}

int cb_cert_check_name(const char *name) {
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_";
    uint8_t ip[16];
    const char *p = name;
    if (!name || !*name) return cb_fail(CB_EINVAL, "an empty name cannot be certified");
    if (cb_cert_ip(name, ip)) return CB_OK;
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

int cb_cert_check_uri(const char *uri) {
    static const char scheme[] = "abcdefghijklmnopqrstuvwxyz0123456789+-.";
    if (!uri || strlen(uri) > URI_MAX) return cb_fail(CB_EINVAL, "a URI name has at most %d bytes", URI_MAX);
    size_t n = strspn(uri, scheme);
    for (const char *p = uri; *p; p++) {
        if (*p <= ' ' || *p > '~' || strchr("\"<>\\^`{|},", *p)) n = 0;
    }
    if (n == 0 || uri[n] != ':' || !uri[n + 1]) return cb_fail(CB_EINVAL, "\"%.80s\" is not a URI", uri);
    if (strncmp(uri, "spiffe:", 7) != 0) return CB_OK;
    return cb_spiffe_id_ok(uri) ? CB_OK
                                : cb_fail(CB_EINVAL, "\"%.80s\" is not a SPIFFE ID (spiffe://trust-domain/path)", uri);
}

int cb_key_wrap(gnutls_privkey_t *out, gnutls_x509_privkey_t from) {
    gnutls_privkey_t key;
    int rc = gnutls_privkey_init(&key);
    if (rc >= 0 && (rc = gnutls_privkey_import_x509(key, from, GNUTLS_PRIVKEY_IMPORT_AUTO_RELEASE)) < 0) {
        gnutls_privkey_deinit(key);
    }
    if (rc < 0) {
        gnutls_x509_privkey_deinit(from);
        return tls_fail(rc, "cannot hold a key");
    }
    *out = key;
    return CB_OK;
}

int cb_cert_public(gnutls_pubkey_t *out, gnutls_privkey_t key) {
    gnutls_pubkey_t pub = NULL;
    int rc = gnutls_pubkey_init(&pub);
    if (rc >= 0) rc = gnutls_pubkey_import_privkey(pub, key, 0, 0);
    if (rc < 0) {
        if (pub) gnutls_pubkey_deinit(pub);
        return tls_fail(rc, "cannot take the public part of a key");
    }
    *out = pub;
    return CB_OK;
}

static int add_san(gnutls_x509_crt_t crt, gnutls_x509_subject_alt_name_t type, const void *data, size_t len) {
    return gnutls_x509_crt_set_subject_alt_name(crt, type, data, (unsigned)len, GNUTLS_FSAN_APPEND);
}

static int set_names(gnutls_x509_crt_t crt, const cb_cert_plan *plan) {
    int rc = 0;
    for (size_t i = 0; rc >= 0 && i < plan->names_len; i++) {
        const char *name = plan->names[i];
        uint8_t ip[16];
        unsigned ip_len = cb_cert_ip(name, ip);
        rc = ip_len ? add_san(crt, GNUTLS_SAN_IPADDRESS, ip, ip_len)
                    : add_san(crt, GNUTLS_SAN_DNSNAME, name, strlen(name));
    }
    for (size_t i = 0; rc >= 0 && i < plan->uris_len; i++) {
        rc = add_san(crt, GNUTLS_SAN_URI, plan->uris[i], strlen(plan->uris[i]));
    }
    return rc;
}

static int set_serial(gnutls_x509_crt_t crt) {
    uint8_t serial[SERIAL];
    int rc = gnutls_rnd(GNUTLS_RND_NONCE, serial, sizeof serial);
    serial[0] = (uint8_t)((serial[0] & 0x7f) | 0x40); /* positive, and always of full length */
    return rc < 0 ? rc : gnutls_x509_crt_set_serial(crt, serial, sizeof serial);
}

/* Without a subject the names are the subject, and critical (RFC 5280, 4.2.1.6). */
static int set_names_critical(gnutls_x509_crt_t crt) {
    gnutls_datum_t der = {NULL, 0};
    unsigned critical;
    int rc = gnutls_x509_crt_get_extension_by_oid2(crt, "2.5.29.17", 0, &der, &critical);
    if (rc >= 0) rc = gnutls_x509_crt_set_extension_by_oid(crt, "2.5.29.17", der.data, der.size, 1);
    gnutls_free(der.data);
    return rc;
}

static int set_dn(gnutls_x509_crt_t crt, const char *oid, const char *text) {
    size_t len = text ? strlen(text) : 0;
    return len == 0 || len > COMMON_NAME_MAX ? 0 : gnutls_x509_crt_set_dn_by_oid(crt, oid, 0, text, (unsigned)len);
}

static int set_subject(gnutls_x509_crt_t crt, const cb_cert_plan *plan) {
    int rc = set_dn(crt, GNUTLS_OID_X520_ORGANIZATION_NAME, plan->organization);
    return rc < 0 ? rc : set_dn(crt, GNUTLS_OID_X520_COMMON_NAME, plan->common_name);
}

static int permit(gnutls_x509_name_constraints_t nc, gnutls_x509_subject_alt_name_t type, const char *cidr,
                  bool excluded) {
    gnutls_datum_t range = {NULL, 0};
    int rc = gnutls_x509_cidr_to_rfc5280(cidr, &range);
    if (rc >= 0) {
        rc = excluded ? gnutls_x509_name_constraints_add_excluded(nc, type, &range)
                      : gnutls_x509_name_constraints_add_permitted(nc, type, &range);
    }
    gnutls_free(range.data);
    return rc;
}

/* Constraints of one kind say nothing about the others: a family of addresses without a
 * range is excluded as a whole. */
static int set_constraints(gnutls_x509_crt_t crt, const cb_cert_plan *plan) {
    gnutls_x509_name_constraints_t nc;
    bool ranges[2] = {false, false}; /* of IPv4, of IPv6 */
    int rc = plan->permitted_len ? gnutls_x509_name_constraints_init(&nc) : 1;
    if (rc != 0) return rc < 0 ? rc : 0;
    for (size_t i = 0; rc >= 0 && i < plan->permitted_len; i++) {
        const char *text = plan->permitted[i];
        gnutls_datum_t name = {(uint8_t *)(uintptr_t)text, (unsigned)strlen(text)};
        bool range = strchr(text, '/') != NULL;
        if (range) ranges[strchr(text, ':') != NULL] = true;
        rc = range ? permit(nc, GNUTLS_SAN_IPADDRESS, text, false)
                   : gnutls_x509_name_constraints_add_permitted(nc, GNUTLS_SAN_DNSNAME, &name);
    }
    if (rc >= 0 && !ranges[0]) rc = permit(nc, GNUTLS_SAN_IPADDRESS, "0.0.0.0/0", true);
    if (rc >= 0 && !ranges[1]) rc = permit(nc, GNUTLS_SAN_IPADDRESS, "::/0", true);
    if (rc >= 0) rc = gnutls_x509_crt_set_name_constraints(crt, nc, 1);
    gnutls_x509_name_constraints_deinit(nc);
    return rc;
}

static int set_authority(gnutls_x509_crt_t crt, const cb_cert_plan *plan) {
    int rc = gnutls_x509_crt_set_basic_constraints(crt, 1, plan->path_len);
    if (rc >= 0) rc = gnutls_x509_crt_set_key_usage(crt, GNUTLS_KEY_KEY_CERT_SIGN | GNUTLS_KEY_CRL_SIGN);
    return rc < 0 ? rc : set_constraints(crt, plan);
}

static int set_usage(gnutls_x509_crt_t crt, const cb_cert_plan *plan, gnutls_pubkey_t key) {
    static const struct {
        const char *purpose[2];
    } profiles[] = {
        [CB_CERT_BOTH] = {{GNUTLS_KP_TLS_WWW_SERVER, GNUTLS_KP_TLS_WWW_CLIENT}},
        [CB_CERT_SERVER] = {{GNUTLS_KP_TLS_WWW_SERVER}},
        [CB_CERT_CLIENT] = {{GNUTLS_KP_TLS_WWW_CLIENT}},
        [CB_CERT_SVID] = {{GNUTLS_KP_TLS_WWW_SERVER, GNUTLS_KP_TLS_WWW_CLIENT}},
        [CB_CERT_OCSP] = {{GNUTLS_KP_OCSP_SIGNING}},
    };
    static const uint8_t der_null[] = {5, 0}, status_request[] = {0x30, 3, 2, 1, 5};
    if (plan->profile == CB_CERT_AUTHORITY) return set_authority(crt, plan);
    unsigned usage = GNUTLS_KEY_DIGITAL_SIGNATURE;
    bool server = plan->profile == CB_CERT_BOTH || plan->profile == CB_CERT_SERVER;
    if (server && gnutls_pubkey_get_pk_algorithm(key, NULL) == GNUTLS_PK_RSA) usage |= GNUTLS_KEY_KEY_ENCIPHERMENT;
    int rc = gnutls_x509_crt_set_basic_constraints(crt, 0, -1);
    if (rc >= 0) rc = gnutls_x509_crt_set_key_usage(crt, usage);
    for (size_t i = 0; rc >= 0 && i < 2; i++) {
        const char *purpose = profiles[plan->profile].purpose[i];
        if (purpose) rc = gnutls_x509_crt_set_key_purpose_oid(crt, purpose, 0);
    }
    if (rc >= 0 && plan->profile == CB_CERT_OCSP) {
        rc = gnutls_x509_crt_set_extension_by_oid(crt, "1.3.6.1.5.5.7.48.1.5", der_null, sizeof der_null, 0);
    }
    if (rc < 0 || !plan->must_staple) return rc;
    return gnutls_x509_crt_set_extension_by_oid(crt, "1.3.6.1.5.5.7.1.24", status_request, sizeof status_request, 0);
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

int cb_cert_build(gnutls_x509_crt_t *out, const cb_cert_plan *plan, gnutls_pubkey_t key, gnutls_x509_crt_t issuer,
                  gnutls_privkey_t issuer_key) {
    gnutls_x509_crt_t crt;
    int rc = gnutls_x509_crt_init(&crt);
    if (rc < 0) return tls_fail(rc, "cannot make a certificate");
    if (!issuer) issuer = crt;
    rc = gnutls_x509_crt_set_version(crt, 3);
    if (rc >= 0) rc = set_serial(crt);
    if (rc >= 0) rc = gnutls_x509_crt_set_activation_time(crt, plan->not_before);
    if (rc >= 0) rc = gnutls_x509_crt_set_expiration_time(crt, plan->not_after);
    if (rc >= 0) rc = set_subject(crt, plan);
    if (rc >= 0) rc = set_names(crt, plan);
    if (rc >= 0 && !plan->organization && !plan->common_name) rc = set_names_critical(crt);
    if (rc >= 0) rc = gnutls_x509_crt_set_pubkey(crt, key);
    if (rc >= 0) rc = set_usage(crt, plan, key);
    if (rc >= 0) rc = set_key_ids(crt, issuer);
    if (rc >= 0) rc = gnutls_x509_crt_privkey_sign(crt, issuer, issuer_key, GNUTLS_DIG_UNKNOWN, 0); /* = what fits */
    if (rc < 0) {
        gnutls_x509_crt_deinit(crt);
        return tls_fail(rc, "cannot make a certificate");
    }
    *out = crt;
    return CB_OK;
}

int cb_cert_serial(gnutls_x509_crt_t crt, char out[48]) {
    uint8_t serial[20];
    size_t len = sizeof serial;
    int rc = gnutls_x509_crt_get_serial(crt, serial, &len);
    if (rc < 0) return tls_fail(rc, "cannot read a serial number");
    for (size_t i = 0; i < len; i++) {
        snprintf(out + 2 * i, 3, "%02x", serial[i]);
    }
    return CB_OK;
}
