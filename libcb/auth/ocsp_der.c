/* OCSP responses as DER (RFC 6960, 4.2.1). */
#include "auth/ca_der.h"
#include "auth/ocsp.h"
#include "base/error.h"
#include "base/mem.h"
#include <gnutls/crypto.h>
#include <gnutls/ocsp.h>

static const cb_alloc *const heap = &cb_alloc_libc;

int cb_ocsp_key_hash(gnutls_x509_crt_t crt, gnutls_digest_algorithm_t hash, uint8_t *out) {
    gnutls_pubkey_t pub = NULL;
    gnutls_datum_t spki = {NULL, 0};
    asn1_node tree = NULL, node = NULL;
    uint8_t bits[2048];
    int len = 0, rc = gnutls_pubkey_init(&pub);
    if (rc >= 0) rc = gnutls_pubkey_import_x509(pub, crt, 0);
    if (rc >= 0) rc = gnutls_pubkey_export2(pub, GNUTLS_X509_FMT_DER, &spki);
    int arc = rc >= 0 ? asn1_array2tree(cb_ca_asn1, &tree, NULL) : 0;
    if (rc >= 0 && !arc) arc = asn1_create_element(tree, "CBCA.SubjectPublicKeyInfo", &node);
    if (rc >= 0 && !arc) arc = asn1_der_decoding(&node, spki.data, (int)spki.size, NULL);
    len = sizeof bits;
    if (rc >= 0 && !arc) arc = asn1_read_value(node, "subjectPublicKey", bits, &len); /* len comes in bits */
    if (rc >= 0 && !arc) rc = gnutls_hash_fast(hash, bits, (size_t)len / 8, out);
    asn1_delete_structure(&node);
    asn1_delete_structure(&tree);
    gnutls_free(spki.data);
    if (pub) gnutls_pubkey_deinit(pub);
    return rc < 0 || arc
               ? cb_fail(CB_ETLS, "cannot hash a public key: %s", arc ? asn1_strerror(arc) : gnutls_strerror(rc))
               : CB_OK;
}

/* --- a put_ function gives a code of libtasn1 --- */

static int put_octets(asn1_node node, const char *name, const gnutls_datum_t *d) {
    return asn1_write_value(node, name, d->data, (int)d->size);
}

static int put_status(asn1_node node, const cb_ca_entry *e) {
#define STATUS "responses.?LAST.certStatus"
    if (!e || !e->revoked_s) return asn1_write_value(node, STATUS, e ? "good" : "unknown", 1);
    const uint8_t reason = (uint8_t)e->reason;
    int rc = asn1_write_value(node, STATUS, "revoked", 1);
    if (!rc) rc = cb_der_put_general_time(node, STATUS ".revoked.revocationTime", e->revoked_s);
    if (rc) return rc;
    return e->reason == CB_REVOKE_UNSPECIFIED ? asn1_write_value(node, STATUS ".revoked.revocationReason", NULL, 0)
                                              : asn1_write_value(node, STATUS ".revoked.revocationReason", &reason, 1);
#undef STATUS
}

static int put_single(asn1_node node, const cb_ocsp_single *s, const cb_ocsp_plan *p) {
    int rc = asn1_write_value(node, "responses", "NEW", 1);
    if (!rc) rc = cb_der_put_algorithm(node, "responses.?LAST.certID.hashAlgorithm", s->hash_oid, true);
    if (!rc) rc = put_octets(node, "responses.?LAST.certID.issuerNameHash", &s->name_hash);
    if (!rc) rc = put_octets(node, "responses.?LAST.certID.issuerKeyHash", &s->key_hash);
    if (!rc) rc = put_octets(node, "responses.?LAST.certID.serialNumber", &s->serial);
    if (!rc) rc = put_status(node, s->entry);
    if (!rc) rc = cb_der_put_general_time(node, "responses.?LAST.thisUpdate", p->this_update);
    return rc ? rc : cb_der_put_general_time(node, "responses.?LAST.nextUpdate", p->next_update);
}

static int put_responder(asn1_node node, const cb_ocsp_signer *signer) {
    int rc = asn1_write_value(node, "responderID", signer->crt ? "byKey" : "byName", 1);
    if (rc) return rc;
    return signer->crt ? asn1_write_value(node, "responderID.byKey", signer->key_hash, sizeof signer->key_hash)
                       : put_octets(node, "responderID.byName", &signer->name);
}

static int put_data(asn1_node node, const cb_ocsp_plan *p, const cb_ocsp_signer *signer) {
    int rc = put_responder(node, signer);
    if (!rc) rc = cb_der_put_general_time(node, "producedAt", p->this_update);
    for (size_t i = 0; !rc && i < p->len; i++) {
        rc = put_single(node, &p->singles[i], p);
    }
    if (rc || p->nonce.size == 0) return rc ? rc : asn1_write_value(node, "responseExtensions", NULL, 0);
    return cb_der_put_extension(node, "responseExtensions", GNUTLS_OCSP_NONCE, p->nonce.data, p->nonce.size);
}

static int put_cert(asn1_node node, gnutls_x509_crt_t crt) {
    gnutls_datum_t der = {NULL, 0};
    if (!crt) return asn1_write_value(node, "certs", NULL, 0);
    if (gnutls_x509_crt_export2(crt, GNUTLS_X509_FMT_DER, &der) < 0) return ASN1_MEM_ALLOC_ERROR;
    int rc = asn1_write_value(node, "certs", "NEW", 1);
    if (!rc) rc = put_octets(node, "certs.?LAST", &der);
    gnutls_free(der.data);
    return rc;
}

static int put_response(asn1_node node, const gnutls_datum_t *basic) {
    const uint8_t successful = 0;
    int rc = asn1_write_value(node, "responseStatus", &successful, 1);
    if (!rc) rc = asn1_write_value(node, "responseBytes.responseType", "1.3.6.1.5.5.7.48.1.1", 1);
    return rc ? rc : put_octets(node, "responseBytes.response", basic);
}

int cb_ocsp_encode(gnutls_datum_t *out, asn1_node definitions, const cb_ocsp_plan *plan, const cb_ocsp_signer *signer) {
    asn1_node data = NULL, basic = NULL, response = NULL;
    gnutls_datum_t tbs = {NULL, 0}, signature = {NULL, 0}, body = {NULL, 0};
    gnutls_sign_algorithm_t sign = cb_der_sign_of(signer->key);
    int grc = 0, rc = asn1_create_element(definitions, "CBCA.ResponseData", &data);
    if (!rc) rc = asn1_create_element(definitions, "CBCA.BasicOCSPResponse", &basic);
    if (!rc) rc = asn1_create_element(definitions, "CBCA.OCSPResponse", &response);
    if (!rc) rc = put_data(data, plan, signer);
    if (!rc) rc = cb_der_encode(data, &tbs);
    if (!rc) grc = gnutls_privkey_sign_data2(signer->key, sign, 0, &tbs, &signature);
    if (!rc && grc >= 0) rc = put_octets(basic, "tbsResponseData", &tbs);
    if (!rc && grc >= 0) rc = cb_der_put_sign(basic, "signatureAlgorithm", sign);
    if (!rc && grc >= 0) rc = asn1_write_value(basic, "signature", signature.data, (int)signature.size * 8);
    if (!rc && grc >= 0) rc = put_cert(basic, signer->crt);
    if (!rc && grc >= 0) rc = cb_der_encode(basic, &body);
    if (!rc && grc >= 0) rc = put_response(response, &body);
    if (!rc && grc >= 0) rc = cb_der_encode(response, out);
    asn1_delete_structure(&data);
    asn1_delete_structure(&basic);
    asn1_delete_structure(&response);
    cb_mem_free(heap, tbs.data);
    cb_mem_free(heap, body.data);
    gnutls_free(signature.data);
    if (grc < 0) return cb_fail(CB_ETLS, "cannot sign an OCSP response: %s", gnutls_strerror(grc));
    return rc ? cb_fail(CB_ETLS, "cannot write an OCSP response: %s", asn1_strerror(rc)) : CB_OK;
}
