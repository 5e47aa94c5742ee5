/* Private keys on PKCS#11 tokens, named by URLs (RFC 7512) wherever the name of a key file may stand. The PIN comes
 * from the file that the URL names (?pin-source=file:/path, not open to others) or from the environment: GNUTLS_PIN. A
 * module that p11-kit does not know may be named, too (?module-path=/path). */
#ifndef CB_TRANSPORT_TOKEN_KEY_H
#define CB_TRANSPORT_TOKEN_KEY_H

#include <cb/base.h>
#include <gnutls/abstract.h>
#include <stdbool.h>

bool cb_token_is_url(const char *text); /* NULL is none */

/* Opens the key; blocks. Signing by it blocks, too, for as long as the token takes; several threads may sign at a time.
 * pub (may be NULL) gets its public part. CB_EINVAL: the URL, or what it names, cannot be used (the detail says what:
 * no module, no token, no key), CB_EAUTH: the PIN is missing or wrong; CB_EPERM: its file is open to others; CB_ENOENT,
 * CB_ESYS, CB_ENOMEM. */
int cb_token_key_open(gnutls_privkey_t *out, gnutls_pubkey_t *pub, const char *url);
/* Is it the key of this certificate? GnuTLS cannot tell by itself: it signs something. CB_EINVAL: it is not. */
int cb_token_key_check(gnutls_privkey_t key, gnutls_x509_crt_t crt, const char *url, const char *cert_file);

#endif
