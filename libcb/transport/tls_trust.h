/* Whom a side lets in: roots, revocation lists, names and pins. One rule of an identity, immutable once it is read. */
#ifndef CB_TRANSPORT_TLS_TRUST_H
#define CB_TRANSPORT_TLS_TRUST_H

#include "transport/tls_crl.h"
#include <cb/peer.h>
#include <cb/tls.h>
#include <gnutls/gnutls.h>

/* A deep copy of cb_trust_opts: what a rule is read from, again and again. */
typedef struct cb_trust_source {
    cb_trust_opts o; /* its texts are ours; host is lower case, "" = all others */
    char **texts;    /* all of them, for the end */
    size_t texts_len;
} cb_trust_source;

int cb_trust_source_copy(cb_trust_source *out, const cb_trust_opts *o);
void cb_trust_source_clear(cb_trust_source *s);

typedef struct cb_tls_trust {
    char *host;  /* lower case; "" = all others */
    int clients; /* enum cb_clients */
    uint32_t max_chain;
    bool own_roots, stale_crl, pins_report, require_staple;
    gnutls_certificate_credentials_t credentials;
    cb_crl_set *crls;
    char **names;
    size_t names_len;
    uint8_t (*pins)[32];
    size_t pins_len;
    const cb_log *log;
    int64_t roots_expire; /* the first of them; 0 = the system's, not looked at */
    char *crl_file, *ca_file;
    uint8_t digest[32]; /* stands for all of this: sessions that began under another are not resumed */
} cb_tls_trust;

int cb_tls_trust_load(cb_tls_trust *out, const cb_trust_source *s);
void cb_tls_trust_clear(cb_tls_trust *t);

/* Does a client's chain lead to a root of it, as in a handshake? CB_EAUTH. */
int cb_tls_trust_verify(const cb_tls_trust *t, const cb_peer *peer);
/* Does it ask for more than a chain to a root? */
bool cb_tls_trust_asks(const cb_tls_trust *t);
/* What is asked for beyond a chain to a root: revocation, names, pins. CB_OK, or CB_EAUTH with the reason as detail and
 * the alert that fits. `chain`: what was sent, the peer's own first. */
int cb_tls_trust_judge(const cb_tls_trust *t, const cb_peer *peer, int64_t now_s, int *alert);

#endif
