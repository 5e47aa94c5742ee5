/* Is a token good? Keys are a JWK set or a PEM file: jwt_check KEYS ISSUER AUDIENCE TOKEN */
#include <cb.h>
#include <stdio.h>
#include <time.h>

int main(int argc, char **argv) {
    cb_jwks *keys = NULL;
    cb_jwt *token = NULL;
    int32_t reason = 0;

    if (argc != 5) {
        fprintf(stderr, "usage: jwt_check KEYS ISSUER AUDIENCE TOKEN\n");
        return 2;
    }
    const char *audience = argv[3];
    const cb_jwt_rules rules = {.size = sizeof rules, .issuer = argv[2], .audiences = &audience, .audiences_len = 1};
    int rc = cb_jwks_load(&keys, argv[1], CB_JWT_ALG_DEFAULT, NULL);
    if (rc == CB_OK)
        rc = cb_jwt_verify(&token, cb_slice_str(argv[4]), keys, &rules, CB_OPTS(cb_jwt_facts, .now_s = time(NULL)),
                           &reason);
    if (rc < 0)
        fprintf(stderr, "jwt_check: %s: %s\n", reason ? cb_jwt_reason_text(reason) : cb_strerror(rc), cb_last_error());
    else
        printf("good: subject %s, expires %lld\n", cb_jwt_subject(token) ? cb_jwt_subject(token) : "-",
               (long long)cb_jwt_expires(token));

    cb_jwt_unref(token);
    cb_jwks_unref(keys);
    return rc < 0;
}
