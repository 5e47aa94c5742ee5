/* Building X.509 certificates for the development CA. */
#ifndef CB_AUTH_CA_CERT_H
#define CB_AUTH_CA_CERT_H

#include <cb/ca.h>
#include <gnutls/x509.h>
#include <stdbool.h>

typedef struct cb_cert_plan {
    const char *common_name; /* left out when longer than 64 bytes, the limit of X.509 */
    const char *const *names;
    size_t names_len;
    int64_t not_before, not_after;
    bool authority;
} cb_cert_plan;

/* Only what DNS and certificates allow: host names, "*." in front of one, IP addresses. CB_EINVAL names the flaw. */
int cb_cert_check_name(const char *name);
int cb_key_generate(gnutls_x509_privkey_t *out, int key_type);
/* A certificate for `key`, signed by the issuer; issuer NULL makes a self-signed one. */
int cb_cert_build(gnutls_x509_crt_t *out, const cb_cert_plan *plan, gnutls_x509_privkey_t key, gnutls_x509_crt_t issuer,
                  gnutls_x509_privkey_t issuer_key);

#endif
