/* An OCSP answer that a server sends along with its certificate (RFC 6066, 8; RFC 6960). */
#ifndef CB_TRANSPORT_TLS_STAPLE_H
#define CB_TRANSPORT_TLS_STAPLE_H

#include <cb/base.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <stdbool.h>

typedef struct cb_tls_staple {
    gnutls_ocsp_data_st data;         /* what GnuTLS sends; response.data NULL = there is none */
    int64_t this_update, next_update; /* -1: it does not say */
    bool good;                        /* neither revoked nor unknown */
    char *file;
} cb_tls_staple;

/* Reads an answer (DER or PEM) about `leaf`, signed by `issuer` or by whom that delegated. CB_EINVAL (the detail names
 * the file): no answer, a refusal, about another certificate, or not signed so. An old one is read: see below. */
int cb_tls_staple_read(cb_tls_staple *out, const char *file, gnutls_x509_crt_t leaf, gnutls_x509_crt_t issuer);
void cb_tls_staple_clear(cb_tls_staple *s);
/* May it be sent now? Good, and within its time, by five minutes of clocks that differ. */
bool cb_tls_staple_usable(const cb_tls_staple *s, int64_t now_s);

/* Has the certificate the must-staple feature (RFC 7633, 4.2.3.1)? */
bool cb_tls_must_staple(gnutls_x509_crt_t crt);

#endif
