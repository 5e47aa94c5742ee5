/* Writing DER by libtasn1: what CRLs and OCSP responses share. A put_ function gives a code of libtasn1, 0 =
 * ASN1_SUCCESS. */
#ifndef CB_AUTH_CA_DER_H
#define CB_AUTH_CA_DER_H

#include <gnutls/abstract.h>
#include <libtasn1.h>
#include <stdbool.h>
#include <stdint.h>

enum { CB_DER_NUMBER = 11 };

extern const asn1_static_node cb_ca_asn1[];

/* The element as DER, of libc's heap: cb_mem_free(&cb_alloc_libc, ...). */
int cb_der_encode(asn1_node node, gnutls_datum_t *out);
/* A Time (RFC 5280, 4.1.2.5), and a GeneralizedTime. */
int cb_der_put_time(asn1_node node, const char *field, int64_t at);
int cb_der_put_general_time(asn1_node node, const char *field, int64_t at);
/* An AlgorithmIdentifier; its parameters are NULL or absent. The second one knows which signatures want what. */
int cb_der_put_algorithm(asn1_node node, const char *field, const char *oid, bool null_parameters);
int cb_der_put_sign(asn1_node node, const char *field, gnutls_sign_algorithm_t sign);
/* One more at the end of a list of extensions, not critical. */
int cb_der_put_extension(asn1_node node, const char *list, const char *oid, const void *der, size_t len);
/* An INTEGER that is not negative, in as few bytes as DER allows; returns how many. */
size_t cb_der_number(uint64_t n, uint8_t out[CB_DER_NUMBER]);
/* By which algorithm an authority's key signs. */
gnutls_sign_algorithm_t cb_der_sign_of(gnutls_privkey_t key);

#endif
