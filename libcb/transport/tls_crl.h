/* Revocation lists of one file (RFC 5280, 5): read, authenticated and sorted once, asked by handshakes. */
#ifndef CB_TRANSPORT_TLS_CRL_H
#define CB_TRANSPORT_TLS_CRL_H

#include <cb/base.h>
#include <gnutls/x509.h>
#include <stdbool.h>

typedef struct cb_crl_set cb_crl_set;

/* Reads PEM (any number of lists) or DER (one). Each must be signed by one of the n certificates. CB_EINVAL: the file
 * is none, a list is signed by nobody of these, or has a critical extension (delta and indirect lists; RFC 5280, 5.2);
 * the detail names the file and the list. */
int cb_crl_set_read(cb_crl_set **out, const char *file, cb_slice data, const gnutls_x509_crt_t *issuers, unsigned n);
void cb_crl_set_free(cb_crl_set *set);

enum cb_crl_verdict {
    CB_CRL_GOOD,
    CB_CRL_REVOKED,  /* this certificate, or the one of its issuer */
    CB_CRL_STALE,    /* a new list was due */
    CB_CRL_UNCOVERED /* there is no list of its issuer */
};

/* Stale lists count like others with `stale_ok`. *at (may be NULL): when it was revoked, or when a list was due. */
enum cb_crl_verdict cb_crl_set_judge(const cb_crl_set *set, gnutls_x509_crt_t crt, int64_t now_s, bool stale_ok,
                                     int64_t *at);

/* Each list: its issuer's name, since when it is, and when the next one is due (-1: it does not say). */
size_t cb_crl_set_len(const cb_crl_set *set);
int64_t cb_crl_set_due(const cb_crl_set *set, size_t i, const char **issuer, int64_t *since);

#endif
