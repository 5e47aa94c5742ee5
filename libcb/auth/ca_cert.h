/* Building X.509 certificates. */
#ifndef CB_AUTH_CA_CERT_H
#define CB_AUTH_CA_CERT_H

#include <cb/ca.h>
#include <gnutls/abstract.h>
#include <gnutls/x509.h>
#include <stdbool.h>

enum { CB_CERT_AUTHORITY = -1 }; /* beside enum cb_cert_profile */

typedef struct cb_cert_plan {
    const char *organization, *common_name; /* NULL = none; left out when longer than 64 bytes, the limit of X.509 */
    const char *const *names, *const *uris;
    size_t names_len, uris_len;
    int64_t not_before, not_after;
    int profile;  /* enum cb_cert_profile or CB_CERT_AUTHORITY */
    int path_len; /* of an authority */
    const char *const *permitted;
    size_t permitted_len;
    bool must_staple;
} cb_cert_plan;

/* Only what DNS and certificates allow: host names, "*." in front of one, IP addresses. CB_EINVAL names the flaw. */
int cb_cert_check_name(const char *name);
/* Only what a URI name may be: a scheme, printable ASCII; spiffe: by the rules of SPIFFE-ID. */
int cb_cert_check_uri(const char *uri);
/* 4 or 16 and the address when the name is one, else 0. */
unsigned cb_cert_ip(const char *name, uint8_t out[16]);
int cb_key_generate(gnutls_x509_privkey_t *out, int key_type);
/* Takes over `from`, also when it fails. */
int cb_key_wrap(gnutls_privkey_t *out, gnutls_x509_privkey_t from);
int cb_cert_public(gnutls_pubkey_t *out, gnutls_privkey_t key);
/* A certificate for `key`, signed by the issuer; issuer NULL makes a self-signed one by issuer_key. */
int cb_cert_build(gnutls_x509_crt_t *out, const cb_cert_plan *plan, gnutls_pubkey_t key, gnutls_x509_crt_t issuer,
                  gnutls_privkey_t issuer_key);
/* The serial number in lower-case hexadecimal. */
int cb_cert_serial(gnutls_x509_crt_t crt, char out[48]);

#endif
