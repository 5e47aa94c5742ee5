/* Any bytes as a key set: keys that can be used, notes for the others, no crash, no leak. */
#include <cb/auth.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    cb_jwks *set = NULL;
    if (!size) return 0;
    int rc = cb_jwks_new(&set, CB_OPTS(cb_jwks_opts, .json = {data, size}, .symmetric = 1));
    if ((rc == CB_OK) != (set != NULL)) abort();
    for (size_t i = 0; set && i < cb_jwks_len(set); i++) {
        if (!*cb_jwt_alg_text(cb_jwks_alg(set, i))) abort();
        if (cb_jwks_kid(set, i) && !cb_jwks_has(set, cb_jwks_kid(set, i))) abort();
        if (cb_jwks_alg(set, i) > CB_JWT_HS512 && strlen(cb_jwks_thumbprint(set, i)) != 43) abort();
    }
    cb_jwks_unref(set);
    cb_jwt_signer *s = NULL;
    if (cb_jwt_signer_new(&s, CB_OPTS(cb_jwt_signer_opts, .jwk = {data, size})) == CB_OK) cb_jwt_signer_unref(s);
    return 0;
}
