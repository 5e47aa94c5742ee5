#include "auth/ca_der.h"
#include "base/mem.h"
#include <stdio.h>
#include <time.h>

static const cb_alloc *const heap = &cb_alloc_libc;

int cb_der_encode(asn1_node node, gnutls_datum_t *out) {
    char why[ASN1_MAX_ERROR_DESCRIPTION_SIZE];
    int len = 0, rc = asn1_der_coding(node, "", NULL, &len, why);
    if (rc != ASN1_MEM_ERROR) return rc;
    out->data = cb_mem_get(heap, (size_t)len);
    out->size = (unsigned)len;
    return out->data ? asn1_der_coding(node, "", out->data, &len, why) : ASN1_MEM_ALLOC_ERROR;
}

int cb_der_put_time(asn1_node node, const char *field, int64_t at) {
    char name[64], text[32];
    struct tm tm;
    time_t when = (time_t)at;
    gmtime_r(&when, &tm);
    bool utc = tm.tm_year < 150; /* until 2049 (RFC 5280, 4.1.2.5) */
    strftime(text, sizeof text, "%Y%m%d%H%M%SZ", &tm);
    int rc = asn1_write_value(node, field, utc ? "utcTime" : "generalTime", 1);
    snprintf(name, sizeof name, "%s.%s", field, utc ? "utcTime" : "generalTime");
    return rc ? rc : asn1_write_value(node, name, utc ? text + 2 : text, 0);
}

int cb_der_put_general_time(asn1_node node, const char *field, int64_t at) {
    char text[32];
    struct tm tm;
    time_t when = (time_t)at;
    gmtime_r(&when, &tm);
    strftime(text, sizeof text, "%Y%m%d%H%M%SZ", &tm);
    return asn1_write_value(node, field, text, 0);
}

int cb_der_put_algorithm(asn1_node node, const char *field, const char *oid, bool null_parameters) {
    char name[64];
    snprintf(name, sizeof name, "%s.algorithm", field);
    int rc = asn1_write_value(node, name, oid, 1);
    snprintf(name, sizeof name, "%s.parameters", field);
    return rc                ? rc
           : null_parameters ? asn1_write_value(node, name, "\x05\x00", 2)
                             : asn1_write_value(node, name, NULL, 0);
}

int cb_der_put_sign(asn1_node node, const char *field, gnutls_sign_algorithm_t sign) {
    return cb_der_put_algorithm(node, field, gnutls_sign_get_oid(sign), sign == GNUTLS_SIGN_RSA_SHA256);
}

int cb_der_put_extension(asn1_node node, const char *list, const char *oid, const void *der, size_t len) {
    char name[64];
    int rc = asn1_write_value(node, list, "NEW", 1);
    snprintf(name, sizeof name, "%s.?LAST.extnID", list);
    if (!rc) rc = asn1_write_value(node, name, oid, 1);
    snprintf(name, sizeof name, "%s.?LAST.critical", list);
    if (!rc) rc = asn1_write_value(node, name, "FALSE", 1);
    snprintf(name, sizeof name, "%s.?LAST.extnValue", list);
    return rc ? rc : asn1_write_value(node, name, der, (int)len);
}

size_t cb_der_number(uint64_t n, uint8_t out[CB_DER_NUMBER]) {
    size_t len = 0;
    for (unsigned shift = 64; shift > 0; shift -= 8) {
        uint8_t byte = (uint8_t)(n >> (shift - 8));
        if (len == 0 && byte == 0 && shift > 8) continue;
        if (len == 0 && byte >= 0x80) out[2 + len++] = 0;
        out[2 + len++] = byte;
    }
    out[0] = 2;
    out[1] = (uint8_t)len;
    return 2 + len;
}

gnutls_sign_algorithm_t cb_der_sign_of(gnutls_privkey_t key) {
    unsigned bits = 0;
    int pk = gnutls_privkey_get_pk_algorithm(key, &bits);
    if (pk == GNUTLS_PK_RSA) return GNUTLS_SIGN_RSA_SHA256;
    if (pk == GNUTLS_PK_EDDSA_ED25519) return GNUTLS_SIGN_EDDSA_ED25519;
    return bits > 256 ? GNUTLS_SIGN_ECDSA_SHA384 : GNUTLS_SIGN_ECDSA_SHA256;
}
