/* The inside of an OCSP responder: what answers are made of (ocsp.c) and how they are written (ocsp_der.c). */
#ifndef CB_AUTH_OCSP_H
#define CB_AUTH_OCSP_H

#include "auth/ca_int.h"
#include <libtasn1.h>

/* One certificate of a request, and what is said about it. */
typedef struct cb_ocsp_single {
    const char *hash_oid;
    gnutls_datum_t name_hash, key_hash, serial;
    const cb_ca_entry *entry; /* NULL = unknown */
} cb_ocsp_single;

typedef struct cb_ocsp_plan {
    const cb_ocsp_single *singles;
    size_t len;
    int64_t this_update, next_update;
    gnutls_datum_t nonce; /* the extension's value as it came; size 0 = none */
} cb_ocsp_plan;

typedef struct cb_ocsp_signer {
    gnutls_privkey_t key;
    gnutls_x509_crt_t crt; /* the delegate's, which goes along; NULL = the authority signs */
    gnutls_datum_t name;   /* DER of the authority's name, by which clients that trust it find its key; borrowed */
    uint8_t key_hash[20];  /* of a delegate: SHA-1 of its public key, for its name need not be its own */
} cb_ocsp_signer;

/* A signed response, of libc's heap. CB_ETLS, CB_ENOMEM. */
int cb_ocsp_encode(gnutls_datum_t *out, asn1_node definitions, const cb_ocsp_plan *plan, const cb_ocsp_signer *signer);
/* SHA-1 and so on of the bytes of the certificate's public key, without tag, length and unused bits. */
int cb_ocsp_key_hash(gnutls_x509_crt_t crt, gnutls_digest_algorithm_t hash, uint8_t *out);

#endif
