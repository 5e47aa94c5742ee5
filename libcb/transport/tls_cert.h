/* Reading certificate chains and keys from PEM files. */
#ifndef CB_TRANSPORT_TLS_CERT_H
#define CB_TRANSPORT_TLS_CERT_H

#include "transport/client_hello.h"
#include "transport/tls_identity.h"
#include <stdbool.h>

/* A whole file of at most 4 MiB; free data with gnutls_free(). `open_to_others` (may be NULL): mode & 077. */
int cb_tls_file_read(const char *path, gnutls_datum_t *out, bool *open_to_others);

/* Reads a chain, its key and its OCSP answer, checks that they belong together, and reports each DNS name of the leaf
 * (on_name may be NULL). Nothing is held on failure. */
int cb_tls_cert_load(cb_tls_cert *out, const cb_identity_opts *source, int (*on_name)(void *user, const char *name),
                     void *user);
void cb_tls_cert_clear(cb_tls_cert *cert);

#endif
