/* The inside of an identity: an immutable view of certificates, keys and roots that handshakes hold on to. */
#ifndef CB_TRANSPORT_TLS_IDENTITY_H
#define CB_TRANSPORT_TLS_IDENTITY_H

#include "transport/tls_staple.h"
#include "transport/tls_trust.h"
#include <gnutls/abstract.h>

/* One chain with its key. */
typedef struct cb_tls_cert {
    gnutls_pcert_st *chain;
    unsigned chain_len;
    gnutls_privkey_t key;
    unsigned ability; /* enum cb_sig_ability that a client needs for it */
    bool slow;        /* its key is on a token: signing blocks */
    bool must_staple;
    int64_t begins, expires;
    int64_t above_begins, above_expires; /* of the one above it in the chain that expires first; 0 = there is none */
    cb_tls_staple staple;
} cb_tls_cert;

/* Which protocol versions a session may use. */
enum cb_tls_flavour { CB_TLS_13, CB_TLS_12, CB_TLS_QUIC, CB_TLS_FLAVOURS };

/* Immutable but for the system's roots, which are read at the first need. Shared between threads. */
typedef struct cb_identity_view cb_identity_view;

cb_identity_view *cb_identity_view_get(cb_identity *id); /* a reference on the current one */
/* Is it the current one? The caller holds a reference on it. */
bool cb_identity_view_is_current(cb_identity *id, const cb_identity_view *view);
cb_identity_view *cb_identity_view_ref(cb_identity_view *view);
void cb_identity_view_unref(cb_identity_view *view);
/* The rule for a lower-case name ("" = none): its own, one with a wildcard, or that for all others. */
const cb_tls_trust *cb_identity_view_trust(const cb_identity_view *view, const char *name);
/* With roots for verifying a peer by that last one: reads the system's when it has no ca_file. CB_ETLS: none are to be
 * had. */
int cb_identity_view_need_roots(cb_identity_view *view);
gnutls_priority_t cb_identity_view_priority(const cb_identity_view *view, enum cb_tls_flavour flavour);
/* 32 bytes that stand for what a client is and whom it trusts: its rule and its certificate. */
const uint8_t *cb_identity_view_client_digest(const cb_identity_view *view);
/* The certificate for a lower-case name ("" = none) and a client's abilities (0 = not known). NULL: there is none. */
const cb_tls_cert *cb_identity_view_choose(const cb_identity_view *view, const char *name, unsigned abilities);
/* Is there a certificate for that name? */
bool cb_identity_view_named(const cb_identity_view *view, const char *name);
/* What answers tls-alpn-01; NULL: nothing does. Lives as long as the view. */
cb_alpn01 *cb_identity_view_alpn01(const cb_identity_view *view);
/* May signing by one of its keys block? */
bool cb_identity_view_slow(const cb_identity_view *view);
/* The certificate callback of every credential made here; lives with the sessions. */
int cb_tls_retrieve_cert(gnutls_session_t session, const struct gnutls_cert_retr_st *info, gnutls_pcert_st **certs,
                         unsigned *certs_len, gnutls_ocsp_data_st **ocsp, unsigned *ocsp_len, gnutls_privkey_t *key,
                         unsigned *flags);

#endif
