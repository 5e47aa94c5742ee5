/* What a client sends to its provider: forms (RFC 6749 appendix B), who it is (2.3), assertions (RFC 7523). */
#ifndef CB_AUTH_OIDC_FORM_H
#define CB_AUTH_OIDC_FORM_H

#include "auth/oidc_meta.h"
#include "base/buf.h"

enum { CB_OIDC_FORM_BYTES = 131072 };

/* Adds name=value; value NULL: nothing. */
int cb_oidc_form_add(cb_buf *form, const char *name, const char *value);
/* Adds who we are to the form; with client_secret_basic, authorization gets the field's value instead. random: 16 bytes
 * that nobody has seen, for the jti of an assertion. */
int cb_oidc_form_client(cb_buf *form, cb_buf *authorization, const cb_oidc_conf *conf, const uint8_t random[16],
                        int64_t now_s);
/* An assertion of a key about its subject, good for a minute. *out: cb_jwt_text_free(). */
int cb_oidc_assertion(char **out, const cb_jwt_signer *key, const char *subject, const char *audience,
                      const uint8_t random[16], int64_t now_s);

#endif
