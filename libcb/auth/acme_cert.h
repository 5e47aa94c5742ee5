/* Certificates of ACME orders: the request, and whether what came is what was asked for. */
#ifndef CB_AUTH_ACME_CERT_H
#define CB_AUTH_ACME_CERT_H

#include "base/buf.h"
#include <stdbool.h>

enum { CB_ACME_CERT_ID = 128, CB_ACME_CHAIN = 10 };

typedef struct cb_acme_cert {
    int64_t not_before_s, not_after_s;
    uint32_t spread; /* for cb_renew_at(): a number that the certificate has by chance */
    uint32_t reserved;
    char id[CB_ACME_CERT_ID]; /* RFC 9773 4.1; empty when it has no authority key identifier */
} cb_acme_cert;

int cb_acme_make_key(cb_buf *pem, int key_type);
int cb_acme_make_csr(cb_buf *der, cb_slice key_pem, const char *const *names, size_t n);
/* CB_EPROTO unless pem is a chain whose first certificate is for this key and exactly these names, valid now, and each
 * is signed by the next. */
int cb_acme_chain_check(cb_slice pem, cb_slice key_pem, const char *const *names, size_t n, int64_t now_s);
/* Of the first certificate in pem. der may be NULL. */
int cb_acme_cert_read(cb_acme_cert *out, cb_slice pem, cb_buf *der);
/* Is the first certificate in pem one for these names and no others? */
bool cb_acme_cert_has_names(cb_slice pem, const char *const *names, size_t n);

#endif
