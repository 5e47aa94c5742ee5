/* What answers tls-alpn-01 (RFC 8737): a certificate for a name, while somebody validates it. */
#ifndef CB_TRANSPORT_TLS_ALPN01_H
#define CB_TRANSPORT_TLS_ALPN01_H

#include "transport/tls_identity.h"

typedef struct cb_alpn01_cert cb_alpn01_cert;

/* A reference on the certificate for a lower-case server name; NULL: nobody waits for its validation. */
cb_alpn01_cert *cb_alpn01_find(cb_alpn01 *a, const char *name);
const cb_tls_cert *cb_alpn01_cert_of(const cb_alpn01_cert *cert);
void cb_alpn01_cert_unref(cb_alpn01_cert *cert); /* NULL is fine */
/* The server name by which a name is validated: lower case; of an IP address the name of its reverse mapping (RFC 8738,
 * 6). CB_EINVAL: it is none. */
int cb_alpn01_server_name(char *out, size_t cap, const char *name);

#endif
