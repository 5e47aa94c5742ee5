/* Taking certificates back: revocation in the index, and CRLs (RFC 5280, 5), which libtasn1 encodes. */
#include "auth/ca_der.h"
#include "auth/ca_int.h"
#include "base/error.h"
#include "base/mem.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { CRL_DAYS = 7, CRL_DAYS_MAX = 366 };

static const cb_alloc *const heap = &cb_alloc_libc;

/* --- the index --- */

static int read_serial(const char *text, char out[CB_SERIAL_TEXT]) {
    size_t n = 0;
    for (const char *p = text ? text : ""; *p; p++) {
        static const char hex[] = "0123456789abcdef";
        char c = *p >= 'A' && *p <= 'F' ? (char)(*p - 'A' + 'a') : *p;
        if (c == ':') continue;
        if (!strchr(hex, c) || n >= 40)
            return cb_fail(CB_EINVAL, "\"%.60s\" is not a serial number in hexadecimal", text);
        out[n++] = c;
    }
    out[n] = '\0';
    return n ? CB_OK : cb_fail(CB_EINVAL, "no serial number");
}

static bool reason_known(int reason) {
    return (reason >= CB_REVOKE_UNSPECIFIED && reason <= CB_REVOKE_CESSATION) ||
           reason == CB_REVOKE_PRIVILEGE_WITHDRAWN;
}

int cb_ca_revoke(cb_ca *ca, const char *serial_text, int reason) {
    if (!ca) return cb_fail(CB_EINVAL, "cb_ca_revoke: ca is NULL");
    char serial[CB_SERIAL_TEXT], line[128];
    cb_ca_index index = {0};
    int lock = -1, rc = read_serial(serial_text, serial);
    if (rc >= 0 && !reason_known(reason)) rc = cb_fail(CB_EINVAL, "no such reason to revoke: %d", reason);
    if (rc >= 0) rc = cb_ca_lock(ca->dir, false, &lock);
    if (rc >= 0) rc = cb_ca_index_read(&index, ca->dir);
    const cb_ca_entry *e = rc >= 0 ? cb_ca_index_find(&index, serial) : NULL;
    if (rc >= 0 && !e) rc = cb_fail(CB_ENOENT, "%s: this authority issued no certificate %s", ca->dir, serial);
    if (rc >= 0 && e->revoked_s) rc = cb_fail(CB_EEXIST, "%s: certificate %s is revoked already", ca->dir, serial);
    if (rc >= 0) {
        snprintf(line, sizeof line, "revoked\t%s\t%lld\t%d", serial, (long long)time(NULL), reason);
        rc = cb_ca_index_add(ca->dir, line, false);
    }
    if (lock >= 0) close(lock);
    cb_ca_index_clear(&index);
    return rc;
}

int cb_ca_list(cb_ca *ca, int (*fn)(const cb_ca_entry *entry, void *user), void *user) {
    if (!ca || !fn) return cb_fail(CB_EINVAL, "cb_ca_list: ca or fn is NULL");
    cb_ca_index index;
    int rc = cb_ca_index_read(&index, ca->dir);
    if (rc < 0) return rc;
    for (size_t i = 0; i < index.len && rc == 0; i++) {
        rc = fn(&index.entries[i], user);
    }
    cb_ca_index_clear(&index);
    return rc < 0 ? rc : CB_OK;
}

/* --- the list --- */

static int put_revoked(asn1_node node, const cb_ca_entry *e) {
    uint8_t serial[CB_SERIAL_TEXT / 2];
    size_t len = sizeof serial;
    gnutls_datum_t hex = {(uint8_t *)(uintptr_t)e->serial, (unsigned)strlen(e->serial)};
    if (gnutls_hex_decode(&hex, serial, &len) < 0) return ASN1_VALUE_NOT_VALID;
    int rc = asn1_write_value(node, "revokedCertificates", "NEW", 1);
    if (!rc) rc = asn1_write_value(node, "revokedCertificates.?LAST.userCertificate", serial, (int)len);
    if (!rc) rc = cb_der_put_time(node, "revokedCertificates.?LAST.revocationDate", e->revoked_s);
    if (e->reason == CB_REVOKE_UNSPECIFIED) { /* says nothing, and so is not said (RFC 5280, 5.3.1) */
        return rc ? rc : asn1_write_value(node, "revokedCertificates.?LAST.crlEntryExtensions", NULL, 0);
    }
    const uint8_t reason[] = {10, 1, (uint8_t)e->reason};
    return rc ? rc
              : cb_der_put_extension(node, "revokedCertificates.?LAST.crlEntryExtensions", "2.5.29.21", reason,
                                     sizeof reason);
}

struct crl_plan {
    const cb_ca_index *index;
    int64_t now, next;
    uint64_t number;
    gnutls_sign_algorithm_t sign;
};

static int put_list(asn1_node node, const cb_ca *ca, const struct crl_plan *p) {
    uint8_t number[CB_DER_NUMBER], id[2 + 2 + 64] = {0x30, 0, 0x80, 0};
    size_t revoked = 0, id_len = sizeof id - 4, number_len = cb_der_number(p->number, number);
    gnutls_datum_t dn = {NULL, 0};
    if (gnutls_x509_crt_get_subject_key_id(ca->crt, id + 4, &id_len, NULL) < 0) return ASN1_VALUE_NOT_FOUND;
    id[1] = (uint8_t)(id_len + 2); /* AuthorityKeyIdentifier with a keyIdentifier */
    id[3] = (uint8_t)id_len;
    if (gnutls_x509_crt_get_raw_dn(ca->crt, &dn) < 0) return ASN1_MEM_ALLOC_ERROR;
    int rc = asn1_write_value(node, "version", "\x01", 1);
    if (!rc) rc = cb_der_put_sign(node, "signature", p->sign);
    if (!rc) rc = asn1_write_value(node, "issuer", dn.data, (int)dn.size);
    gnutls_free(dn.data);
    if (!rc) rc = cb_der_put_time(node, "thisUpdate", p->now);
    if (!rc) rc = cb_der_put_time(node, "nextUpdate", p->next);
    for (size_t i = 0; !rc && i < p->index->len; i++) {
        const cb_ca_entry *e = &p->index->entries[i];
        if (!e->revoked_s || e->not_after_s + CB_DAY < p->now) continue;
        rc = put_revoked(node, e);
        revoked++;
    }
    if (!rc && !revoked) rc = asn1_write_value(node, "revokedCertificates", NULL, 0);
    if (!rc) rc = cb_der_put_extension(node, "crlExtensions", "2.5.29.35", id, id_len + 4);
    return rc ? rc : cb_der_put_extension(node, "crlExtensions", "2.5.29.20", number, number_len);
}

static int build(const cb_ca *ca, const struct crl_plan *p, gnutls_datum_t *der) {
    asn1_node tree = NULL, tbs_node = NULL, list = NULL;
    gnutls_datum_t tbs = {NULL, 0}, signature = {NULL, 0};
    int grc = 0, rc = asn1_array2tree(cb_ca_asn1, &tree, NULL);
    if (!rc) rc = asn1_create_element(tree, "CBCA.TBSCertList", &tbs_node);
    if (!rc) rc = asn1_create_element(tree, "CBCA.CertificateList", &list);
    if (!rc) rc = put_list(tbs_node, ca, p);
    if (!rc) rc = cb_der_encode(tbs_node, &tbs);
    if (!rc) grc = gnutls_privkey_sign_data2(ca->key, p->sign, 0, &tbs, &signature);
    if (!rc && !grc) rc = asn1_write_value(list, "tbsCertList", tbs.data, (int)tbs.size);
    if (!rc && !grc) rc = cb_der_put_sign(list, "signatureAlgorithm", p->sign);
    if (!rc && !grc) rc = asn1_write_value(list, "signature", signature.data, (int)signature.size * 8);
    if (!rc && !grc) rc = cb_der_encode(list, der);
    asn1_delete_structure(&list);
    asn1_delete_structure(&tbs_node);
    asn1_delete_structure(&tree);
    cb_mem_free(heap, tbs.data);
    gnutls_free(signature.data);
    if (grc < 0) return cb_fail(CB_ETLS, "cannot sign a CRL: %s", gnutls_strerror(grc));
    return rc ? cb_fail(CB_ETLS, "cannot write a CRL: %s", asn1_strerror(rc)) : CB_OK;
}

int cb_ca_crl(cb_ca *ca, uint32_t next_update_s, char **out) {
    if (!ca) return cb_fail(CB_EINVAL, "cb_ca_crl: ca is NULL");
    if (next_update_s > CRL_DAYS_MAX * (uint32_t)CB_DAY) return cb_fail(CB_EINVAL, "cb_ca_crl: more than 366 days");
    char line[128];
    cb_ca_index index = {0};
    gnutls_datum_t der = {NULL, 0}, pem = {NULL, 0};
    struct crl_plan plan = {.index = &index, .now = (int64_t)time(NULL), .sign = cb_der_sign_of(ca->key)};
    plan.next = plan.now + (next_update_s ? next_update_s : CRL_DAYS * CB_DAY);
    int lock = -1, rc = cb_ca_lock(ca->dir, false, &lock);
    if (rc >= 0) rc = cb_ca_index_read(&index, ca->dir);
    plan.number = index.crl_number + 1;
    if (rc >= 0) rc = build(ca, &plan, &der);
    if (rc >= 0 && gnutls_pem_base64_encode2("X509 CRL", &der, &pem) < 0)
        rc = cb_fail(CB_ENOMEM, "no memory for a CRL");
    if (rc >= 0) { /* the number is taken before the list is seen */
        snprintf(line, sizeof line, "crl\t%" PRIu64 "\t%lld\t%lld", plan.number, (long long)plan.now,
                 (long long)plan.next);
        rc = cb_ca_index_add(ca->dir, line, false);
    }
    const struct cb_ca_file file = {".crl", pem, 0644};
    if (rc >= 0) rc = cb_ca_write(ca->dir, "ca", &file, 1);
    if (rc >= 0 && out && !(*out = cb_mem_text(heap, (const char *)pem.data)))
        rc = cb_fail(CB_ENOMEM, "no memory for a CRL");
    if (lock >= 0) close(lock);
    cb_ca_index_clear(&index);
    cb_mem_free(heap, der.data);
    gnutls_free(pem.data);
    return rc;
}
