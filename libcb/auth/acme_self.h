/* Certificates that we make for ourselves: answers to tls-alpn-01, and placeholders. */
#ifndef CB_AUTH_ACME_SELF_H
#define CB_AUTH_ACME_SELF_H

#include "base/buf.h"

typedef struct cb_acme_self {
    const char *const *names; /* DNS names, IP addresses */
    size_t names_len;
    const char *common_name; /* of the subject and issuer */
    const char *key_auth;    /* tls-alpn-01 (RFC 8737, 3); NULL = none */
    int64_t now_s;
    int days;
} cb_acme_self;

/* A fresh ECDSA P-256 key and a self-signed certificate for it, added to pem. CB_ETLS, CB_ENOMEM, CB_ELIMIT. */
int cb_acme_self_signed(cb_buf *pem, const cb_acme_self *o);

#endif
