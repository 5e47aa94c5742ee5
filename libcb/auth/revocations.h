#ifndef CB_AUTH_REVOCATIONS_H
#define CB_AUTH_REVOCATIONS_H

#include <cb/auth.h>
#include <stdbool.h>

/* Was a token with these claims revoked? NULL and NAN: it has none. */
bool cb_revocations_hit(cb_revocations *r, const char *issuer, const char *jti, const char *subject, double iat);
/* cb_jwt_check() with rules and facts that were read. */
int cb_jwt_check_read(const cb_jwt *t, const cb_jwt_rules *r, const cb_jwt_facts *f, int32_t *reason);

#endif
