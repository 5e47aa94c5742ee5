/* Gates: each kind of credential good and bad, how they combine, what a refusal says. */
#include "auth/authn_int.h"
#include "auth/base64url.h"
#include "auth/jwk.h"
#include "support/counting.h"
#include "support/jwt_keys.h"
#include "support/tls_fixture.h"
#include <criterion/criterion.h>
#include <gnutls/crypto.h>
#include <gnutls/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { NOW = 1700000000, FIELDS = 6 };

#define ED_JWK "{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"kid\":\"ed\"," ED_X "," ED_D "}"
#define EC_JWK "{\"kty\":\"EC\",\"crv\":\"P-256\"," EC_XY "," EC_D "}"
#define EC_PUB "{\"kty\":\"EC\",\"crv\":\"P-256\"," EC_XY "}"
#define ROLES  "urn:zitadel:iam:org:project:roles"

/* ---- tokens ---- */

static char *sign(const char *issuer, const char *more) {
    cb_jwt_signer *s = NULL;
    char *token = NULL;
    const cb_jwt_field claims[] = {{.name = "iss", .text = issuer},
                                   {.name = "sub", .text = "joe"},
                                   {.name = "exp", .number = NOW + 300},
                                   {.name = "x", .json = "null"}};
    cb_jwt_field all[12];
    size_t n = 3;
    memcpy(all, claims, sizeof claims);
    /* more: "name=json;name=json" */
    char copy[1024], *at = copy;
    snprintf(copy, sizeof copy, "%s", more ? more : "");
    for (char *item; (item = strsep(&at, ";")) && *item;) {
        char *eq = strchr(item, '=');
        *eq = '\0';
        if (strcmp(item, "sub") == 0)
            all[1] = (cb_jwt_field){.name = "sub", .json = eq + 1};
        else if (strcmp(item, "exp") == 0)
            all[2] = (cb_jwt_field){.name = "exp", .json = eq + 1};
        else
            all[n++] = (cb_jwt_field){.name = item, .json = eq + 1};
    }
    cr_assert_eq(cb_jwt_signer_new(&s, CB_OPTS(cb_jwt_signer_opts, .jwk = cb_slice_str(ED_JWK))), CB_OK);
    cr_assert_eq(cb_jwt_sign(&token, s, NULL, 0, all, n), CB_OK, "%s", cb_last_error());
    cb_jwt_signer_unref(s);
    return token;
}

static cb_authn_source *jwt_source(const char *name, const char *issuer, cb_dpop *dpop, cb_revocations *gone,
                                   const cb_authn_claims *claims) {
    cb_jwks *keys = NULL;
    cb_authn_source *s = NULL;
    const cb_jwt_rules rules = {.size = sizeof rules, .issuer = issuer, .any_audience = 1, .revocations = gone};
    cr_assert_eq(cb_jwks_new(&keys, CB_OPTS(cb_jwks_opts, .json = cb_slice_str("{\"kty\":\"OKP\",\"crv\":\"Ed25519\","
                                                                               "\"kid\":\"ed\"," ED_X "}"))),
                 CB_OK);
    cr_assert_eq(cb_authn_source_jwt(&s, CB_OPTS(cb_authn_jwt_opts, .name = name, .keys = keys, .rules = &rules,
                                                 .dpop = dpop, .claims = claims)),
                 CB_OK, "%s", cb_last_error());
    cb_jwks_unref(keys);
    return s;
}

static cb_authn *gate_of(cb_authn_opts o) {
    cb_authn *a = NULL;
    o.size = sizeof o;
    cr_assert_eq(cb_authn_new(&a, &o), CB_OK, "%s", cb_last_error());
    for (size_t i = 0; i < o.n_sources; i++)
        cb_authn_source_unref(o.sources[i]);
    return a;
}

/* ---- requests: "name: value" each ---- */

typedef struct asked {
    cb_field at[FIELDS];
    size_t n;
    cb_authn_request r;
} asked;

static asked *ask(asked *q, const char *first, const char *second, const char *third) {
    const char *const lines[] = {first, second, third};
    memset(q, 0, sizeof *q);
    for (size_t i = 0; i < 3; i++) {
        const char *colon = lines[i] ? strstr(lines[i], ": ") : NULL;
        if (!colon) continue;
        q->at[q->n++] = (cb_field){{(const uint8_t *)lines[i], (size_t)(colon - lines[i])}, cb_slice_str(colon + 2)};
    }
    q->r = (cb_authn_request){.size = sizeof q->r,
                              .fields = q->at,
                              .n_fields = q->n,
                              .method = cb_slice_str("GET"),
                              .scheme = cb_slice_str("https"),
                              .authority = cb_slice_str("api.example"),
                              .path = cb_slice_str("/a?q=1"),
                              .now_s = NOW};
    return q;
}

static int go(cb_authn_call *c, cb_authn *a, const char *line) {
    asked q;
    return cb_authn_begin(c, a, &ask(&q, line, NULL, NULL)->r, NULL, NULL);
}

static int bear(cb_authn_call *c, cb_authn *a, char *token) {
    char line[4096];
    snprintf(line, sizeof line, "authorization: Bearer %s", token);
    cb_jwt_text_free(token);
    return go(c, a, line);
}

static const char *challenge(const cb_authn_call *c, size_t i) {
    static char text[1024];
    size_t n = 0;
    const cb_field *f = cb_authn_challenges(c, &n);
    if (i >= n) return "";
    snprintf(text, sizeof text, "%.*s: %.*s", (int)f[i].name.len, (const char *)f[i].name.base, (int)f[i].value.len,
             (const char *)f[i].value.base);
    return text;
}

Test(authn, bearer_tokens) {
    const cb_authn_claims claims = {.size = sizeof claims, .tenant = "org", .roles = ROLES};
    const char *const scopes[] = {"read", "write"};
    cb_revocations *gone = NULL;
    cb_authn_call *c = NULL;
    cb_claim claim;
    cr_assert_eq(cb_revocations_new(&gone, 0), CB_OK);
    cb_authn_source *s = jwt_source("staff", "me", NULL, gone, &claims);
    cb_authn *a = gate_of((cb_authn_opts){
        .sources = &s, .n_sources = 1, .realm = "shop", .need_tenant = 1, .scopes = scopes, .n_scopes = 2});
    cr_assert_eq(cb_authn_call_new(&c, NULL), CB_OK);
    const char good[] = "org=\"acme\";scope=\"read write\";" ROLES "={\"admin\":{\"1\":\"x\"},\"dev\":{}}";

    cr_expect_eq(bear(c, a, sign("me", good)), CB_OK, "%s", cb_authn_reason(c));
    const cb_principal *p = cb_authn_principal(c);
    cr_expect_str_eq(p->subject, "joe");
    cr_expect_str_eq(p->tenant, "acme");
    cr_expect_str_eq(p->source, "staff");
    cr_expect_eq(p->kind, CB_AUTHN_JWT);
    cr_expect_eq(p->n_roles, 2);
    cr_expect(cb_authn_has_role(c, "admin") && cb_authn_has_role(c, "dev") && !cb_authn_has_role(c, "adm"));
    cr_expect_eq(cb_authn_claim(c, "/iss", &claim), CB_OK);
    cr_expect_eq(cb_authn_status(c), 200);
    cr_expect_str_eq(cb_authn_reason(c), "");

    static const struct {
        const char *name, *issuer, *more;
        int status;
        const char *reason, *challenge;
    } rows[] = {
        {"expired", "me", "exp=1600000000", 401, "expired",
         "www-authenticate: Bearer realm=\"shop\", error=\"invalid_token\", error_description=\"expired\""},
        {"another issuer", "them", "", 401, "issuer",
         "www-authenticate: Bearer realm=\"shop\", error=\"invalid_token\", error_description=\"issuer\""},
        {"no tenant", "me", "scope=\"read write\"", 403, "tenant", ""},
        {"a tenant that is a list", "me", "scope=\"read write\";org=[\"acme\"]", 403, "tenant", ""},
        {"an empty tenant", "me", "scope=\"read write\";org=\"\"", 403, "tenant", ""},
        {"half the scopes", "me", "org=\"acme\";scope=\"read\"", 403, "scope",
         "www-authenticate: Bearer realm=\"shop\", error=\"insufficient_scope\", error_description=\"scope\", "
         "scope=\"read write\""},
        {"no subject", "me", "sub=null;org=\"acme\"", 401, "claim",
         "www-authenticate: Bearer realm=\"shop\", error=\"invalid_token\", error_description=\"claim\""},
        {"an empty subject", "me", "sub=\"\";org=\"acme\"", 403, "subject", ""},
        {"bound to a key that nobody proves", "me", "cnf={\"jkt\":\"0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I\"}",
         401, "binding",
         "www-authenticate: Bearer realm=\"shop\", error=\"invalid_token\", error_description=\"binding\""},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cr_expect_eq(bear(c, a, sign(rows[i].issuer, rows[i].more)), CB_EAUTH, "%s", rows[i].name);
        cr_expect_eq(cb_authn_status(c), rows[i].status, "%s: %d", rows[i].name, cb_authn_status(c));
        cr_expect_str_eq(cb_authn_reason(c), rows[i].reason, "%s: %s", rows[i].name, cb_authn_reason(c));
        cr_expect_str_eq(challenge(c, 0), rows[i].challenge, "%s: %s", rows[i].name, challenge(c, 0));
    }
    cr_assert_eq(
        cb_revocations_add(
            gone, CB_OPTS(cb_revocation, .issuer = "me", .subject = "joe", .before_s = NOW, .until_s = NOW + 600), NOW),
        CB_OK);
    cr_expect_eq(bear(c, a, sign("me", good)), CB_EAUTH);
    cr_expect_str_eq(cb_authn_reason(c), "revoked");
    cb_authn_call_free(c);
    cb_authn_unref(a);
    cb_revocations_unref(gone);
}

Test(authn, what_is_no_credential) {
    static const struct {
        const char *line;
        int status;
        const char *reason, *challenge;
    } rows[] = {
        {NULL, 401, "no-credentials", "www-authenticate: Bearer realm=\"api\""},
        {"authorization: Basic am9lOmpvZQ==", 401, "scheme", "www-authenticate: Bearer realm=\"api\""},
        {"authorization: DPoP a.b.c", 401, "scheme", "www-authenticate: Bearer realm=\"api\""},
        {"authorization: Bearer", 400, "syntax",
         "www-authenticate: Bearer realm=\"api\", error=\"invalid_request\", error_description=\"syntax\""},
        {"authorization: Bearer a b", 400, "syntax",
         "www-authenticate: Bearer realm=\"api\", error=\"invalid_request\", error_description=\"syntax\""},
        {"authorization: bearer a.b.c", 401, "base64",
         "www-authenticate: Bearer realm=\"api\", error=\"invalid_token\", error_description=\"base64\""},
        {"authorization: ", 401, "scheme", "www-authenticate: Bearer realm=\"api\""},
    };
    cb_authn_source *s = jwt_source("staff", "me", NULL, NULL, NULL);
    cb_authn *a = gate_of((cb_authn_opts){.sources = &s, .n_sources = 1});
    cb_authn_call *c = NULL;
    asked q;
    cr_assert_eq(cb_authn_call_new(&c, NULL), CB_OK);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cr_expect_eq(go(c, a, rows[i].line), CB_EAUTH, "%s", rows[i].line);
        cr_expect_eq(cb_authn_status(c), rows[i].status, "%s: %d", rows[i].line, cb_authn_status(c));
        cr_expect_str_eq(cb_authn_reason(c), rows[i].reason, "%s: %s", rows[i].line, cb_authn_reason(c));
        cr_expect_str_eq(challenge(c, 0), rows[i].challenge, "%s: %s", rows[i].line, challenge(c, 0));
    }
    /* Two are one too many, also when they are the same. */
    char *token = sign("me", NULL), line[2048];
    snprintf(line, sizeof line, "authorization: Bearer %s", token);
    cr_expect_eq(cb_authn_begin(c, a, &ask(&q, line, line, NULL)->r, NULL, NULL), CB_EAUTH);
    cr_expect_eq(cb_authn_status(c), 400);
    cr_expect_eq(cb_authn_begin(c, a, &ask(&q, line, NULL, NULL)->r, NULL, NULL), CB_OK);
    q.r.now_s = 0;
    cr_expect_eq(cb_authn_begin(c, a, &q.r, NULL, NULL), CB_EINVAL);
    cr_expect_eq(cb_authn_begin(c, NULL, &q.r, NULL, NULL), CB_EINVAL);
    cb_jwt_text_free(token);
    cb_authn_call_free(c);
    cb_authn_call_free(NULL);
    cb_authn_unref(a);
}

/* ---- proofs of possession ---- */

static void prove(char line[2560], const char *token, const char *jti, const char *url, const char *nonce) {
    static cb_json_node nodes[32];
    const char head[] = "{\"typ\":\"dpop+jwt\",\"alg\":\"ES256\",\"jwk\":" EC_PUB "}";
    char jwk[512], claims[1024], text[2048], ath[64];
    uint8_t sig[CB_JWK_SIG_BYTES], sum[32];
    cb_json j;
    cb_jwk key;
    strcpy(jwk, EC_JWK);
    cr_assert_eq(cb_json_read(&j, jwk, strlen(jwk), nodes, 32), 0);
    cr_assert_eq(cb_jwk_read(&key, &j, nodes, CB_JWK_SIGN, 0), CB_OK);
    gnutls_hash_fast(GNUTLS_DIG_SHA256, token, strlen(token), sum);
    cb_base64url_encode(ath, sum, 32);
    snprintf(claims, sizeof claims, "{\"jti\":\"%s\",\"htm\":\"GET\",\"htu\":\"%s\",\"iat\":%d,\"ath\":\"%s\"%s%s%s}",
             jti, url, NOW, ath, *nonce ? ",\"nonce\":\"" : "", nonce, *nonce ? "\"" : "");
    size_t n = cb_base64url_encode(text, head, strlen(head));
    text[n++] = '.';
    n += cb_base64url_encode(text + n, claims, strlen(claims));
    int64_t len = cb_jwk_sign(&key, (cb_slice){(uint8_t *)text, n}, sig);
    cr_assert(len > 0);
    text[n++] = '.';
    cb_base64url_encode(text + n, sig, (size_t)len);
    cb_jwk_clear(&key);
    snprintf(line, 2560, "dpop: %s", text);
}

static const char *thumbprint(void) {
    static char print[64];
    cb_jwks *set = NULL;
    cr_assert_eq(cb_jwks_new(&set, CB_OPTS(cb_jwks_opts, .json = cb_slice_str(EC_PUB))), CB_OK);
    snprintf(print, sizeof print, "%s", cb_jwks_thumbprint(set, 0));
    cb_jwks_unref(set);
    return print;
}

static int prove_it(cb_authn_call *c, cb_authn *a, const char *token, const char *jti, const char *url,
                    const char *nonce) {
    char auth[2048], proof[2560];
    asked q;
    snprintf(auth, sizeof auth, "authorization: DPoP %s", token);
    prove(proof, token, jti, url, nonce);
    return cb_authn_begin(c, a, &ask(&q, auth, proof, NULL)->r, NULL, NULL);
}

Test(authn, proofs_of_possession) {
    cb_dpop *dpop = NULL;
    cb_authn_call *c = NULL;
    char cnf[256], nonce[CB_DPOP_NONCE_BYTES];
    asked q;
    cr_assert_eq(cb_dpop_new(&dpop, CB_OPTS(cb_dpop_opts, .need_nonce = 1)), CB_OK);
    cb_authn_source *s = jwt_source("staff", "me", dpop, NULL, NULL);
    cb_authn *a = gate_of((cb_authn_opts){.sources = &s, .n_sources = 1});
    cr_assert_eq(cb_authn_call_new(&c, NULL), CB_OK);
    snprintf(cnf, sizeof cnf, "cnf={\"jkt\":\"%s\"}", thumbprint());
    char *bound = sign("me", cnf), *loose = sign("me", NULL), line[2048];

    cr_expect_eq(prove_it(c, a, bound, "1", "https://api.example/a", ""), CB_EAUTH);
    cr_expect_str_eq(cb_authn_reason(c), "dpop-nonce");
    cr_expect(strstr(challenge(c, 0), "DPoP realm=\"api\", error=\"use_dpop_nonce\""), "%s", challenge(c, 0));
    cr_expect_str_eq(challenge(c, 1), "www-authenticate: Bearer realm=\"api\"");
    cr_assert(sscanf(challenge(c, 2), "dpop-nonce: %47s", nonce) == 1, "%s", challenge(c, 2));
    cr_expect_eq(prove_it(c, a, bound, "1", "https://api.example/a", nonce), CB_OK, "%s", cb_authn_reason(c));
    cr_expect_eq(prove_it(c, a, bound, "1", "https://api.example/a", nonce), CB_EAUTH);
    cr_expect_str_eq(cb_authn_reason(c), "dpop-replay");
    cr_expect(strstr(challenge(c, 0), "error=\"invalid_dpop_proof\""), "%s", challenge(c, 0));
    cr_expect_eq(prove_it(c, a, bound, "2", "https://evil.example/a", nonce), CB_EAUTH);
    cr_expect_str_eq(cb_authn_reason(c), "dpop-url");
    /* A token that is bound to nothing is none for this scheme, and leaves no trace. */
    cr_expect_eq(prove_it(c, a, loose, "3", "https://api.example/a", nonce), CB_EAUTH);
    cr_expect_str_eq(cb_authn_reason(c), "binding");
    /* A bound one is none for Bearer, with a proof or without (RFC 9449, 7.2). */
    snprintf(line, sizeof line, "authorization: Bearer %s", bound);
    cr_expect_eq(go(c, a, line), CB_EAUTH);
    cr_expect_str_eq(cb_authn_reason(c), "binding");
    snprintf(line, sizeof line, "authorization: DPoP %s", bound);
    cr_expect_eq(go(c, a, line), CB_EAUTH);
    cr_expect_str_eq(cb_authn_reason(c), "no-proof");
    char proof[2560];
    prove(proof, bound, "4", "https://api.example/a", nonce);
    cr_expect_eq(cb_authn_begin(c, a, &ask(&q, line, proof, proof)->r, NULL, NULL), CB_EAUTH);
    cr_expect_str_eq(cb_authn_reason(c), "two-proofs");
    cr_expect_eq(cb_authn_begin(c, a, &ask(&q, line, proof, NULL)->r, NULL, NULL), CB_OK, "%s", cb_authn_reason(c));
    cr_expect(cb_authn_reads(a, cb_slice_str("dpop")) && cb_authn_reads(a, cb_slice_str("authorization")));
    cr_expect(!cb_authn_reads(a, cb_slice_str("x-api-key")));
    cb_jwt_text_free(bound);
    cb_jwt_text_free(loose);
    cb_authn_call_free(c);
    cb_authn_unref(a);
    cb_dpop_unref(dpop);
}

/* ---- API keys ---- */

static const uint8_t hash_key[32] = "thirty-two bytes of a hash key .";

static cb_authn_source *key_source(char key[CB_API_KEY_BYTES], cb_revocations *gone, int64_t expires_s) {
    const char *const roles[] = {"reader", "a \"quoted\" one"};
    cb_api_keys *maker = NULL, *keys = NULL;
    cb_authn_source *s = NULL;
    char *line = NULL, text[2048];
    const cb_slice secret = {hash_key, sizeof hash_key};
    cr_assert_eq(cb_api_keys_new(&maker, cb_slice_str(""), secret), CB_OK);
    cr_assert_eq(cb_api_key_make(key, &line, maker,
                                 CB_OPTS(cb_api_key_opts, .subject = "robot", .tenant = "acme", .roles = roles,
                                         .n_roles = 2, .now_s = NOW, .expires_s = expires_s)),
                 CB_OK, "%s", cb_last_error());
    cr_expect(!strstr(line, key + 16), "the line gives the secret away");
    snprintf(text, sizeof text, "# keys\n\n%s\r\n", line);
    cr_assert_eq(cb_api_keys_new(&keys, cb_slice_str(text), secret), CB_OK, "%s", cb_last_error());
    cr_expect_eq(cb_api_keys_len(keys), 1);
    cr_assert_eq(cb_authn_source_api_key(
                     &s, CB_OPTS(cb_authn_api_key_opts, .name = "robots", .keys = keys, .revocations = gone)),
                 CB_OK, "%s", cb_last_error());
    cb_jwt_text_free(line);
    cb_api_keys_unref(maker);
    cb_api_keys_unref(keys);
    return s;
}

Test(authn, api_keys) {
    char key[CB_API_KEY_BYTES], line[128], id[16];
    cb_revocations *gone = NULL;
    cb_authn_call *c = NULL;
    asked q;
    cr_assert_eq(cb_revocations_new(&gone, 0), CB_OK);
    cb_authn_source *s = key_source(key, gone, NOW + 10);
    cb_authn *a = gate_of((cb_authn_opts){.sources = &s, .n_sources = 1, .need_tenant = 1});
    cr_assert_eq(cb_authn_call_new(&c, NULL), CB_OK);
    snprintf(line, sizeof line, "x-api-key: %s", key);
    cr_expect_eq(go(c, a, line), CB_OK, "%s", cb_authn_reason(c));
    cr_expect_str_eq(cb_authn_principal(c)->subject, "robot");
    cr_expect_str_eq(cb_authn_principal(c)->tenant, "acme");
    cr_expect(cb_authn_has_role(c, "a \"quoted\" one"));
    for (size_t i = 11; i < strlen(line); i++) { /* every character counts */
        char other[128];
        memcpy(other, line, sizeof other);
        other[i] = other[i] == 'A' ? 'B' : 'A';
        if (strcmp(other, line) == 0) continue;
        cr_expect_eq(go(c, a, other), CB_EAUTH, "character %zu", i);
        cr_expect_eq(cb_authn_status(c), 401);
    }
    cr_expect_str_eq(
        challenge(c, 0),
        "www-authenticate: ApiKey realm=\"api\", error=\"invalid_token\", error_description=\"unknown-key\"");
    cr_expect_eq(cb_authn_begin(c, a, &ask(&q, line, line, NULL)->r, NULL, NULL), CB_EAUTH);
    cr_expect_eq(cb_authn_status(c), 400);
    ask(&q, line, NULL, NULL)->r.now_s = NOW + 10;
    cr_expect_eq(cb_authn_begin(c, a, &q.r, NULL, NULL), CB_EAUTH);
    cr_expect_str_eq(cb_authn_reason(c), "expired");
    snprintf(id, sizeof id, "%.12s", key + 4);
    cr_assert_eq(
        cb_revocations_add(gone, CB_OPTS(cb_revocation, .issuer = "robots", .jti = id, .until_s = NOW + 60), NOW),
        CB_OK);
    cr_expect_eq(go(c, a, line), CB_EAUTH);
    cr_expect_str_eq(cb_authn_reason(c), "revoked");
    cb_authn_call_free(c);
    cb_authn_unref(a);
    cb_revocations_unref(gone);
}

#define HASH "0000000000000000000000000000000000000000000000000000000000000000"

Test(authn, bad_key_files) {
    static const struct {
        const char *text, *says;
    } rows[] = {
        {"nonsense", "line 1"},
        {"\n[]", "line 2: it is no JSON object"},
        {"{\"key\":\"short\",\"hash\":\"" HASH "\",\"sub\":\"a\"}", "\"key\" must be 12"},
        {"{\"key\":\"abcdefghij-l\",\"hash\":\"" HASH "\",\"sub\":\"a\"}", "\"key\" must be 12"},
        {"{\"key\":\"abcdefghijkl\",\"hash\":\"00\",\"sub\":\"a\"}", "\"hash\" must be 64"},
        {"{\"key\":\"abcdefghijkl\",\"hash\":\"" HASH "\"}", "\"sub\" is missing"},
        {"{\"key\":\"abcdefghijkl\",\"hash\":\"" HASH "\",\"sub\":\"\"}", "\"sub\" is missing"},
        {"{\"key\":\"abcdefghijkl\",\"hash\":\"" HASH "\",\"sub\":\"a\",\"exp\":\"soon\"}", "seconds since 1970"},
        {"{\"key\":\"abcdefghijkl\",\"hash\":\"" HASH "\",\"sub\":\"a\",\"sub\":\"b\"}", "twice"},
        {"{\"key\":\"abcdefghijkl\",\"hash\":\"" HASH "\",\"sub\":\"a\"}\n"
         "{\"key\":\"abcdefghijkl\",\"hash\":\"" HASH "\",\"sub\":\"b\"}",
         "line 2: the key \"abcdefghijkl\" is there twice"},
    };
    cb_api_keys *keys = NULL;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cr_expect_eq(cb_api_keys_new(&keys, cb_slice_str(rows[i].text), (cb_slice){hash_key, 32}), CB_EINVAL, "row %zu",
                     i);
        cr_expect(strstr(cb_last_error(), rows[i].says), "row %zu: %s", i, cb_last_error());
    }
    cr_expect_eq(cb_api_keys_new(&keys, cb_slice_str(""), cb_slice_str("short")), CB_EINVAL);
    cr_expect_eq(cb_api_keys_load(&keys, "/nonexistent/keys", "/nonexistent/hash-key", 0), CB_ENOENT);
}

/* ---- certificates ---- */

static cb_peer *issue(tls_pki *p, const char *name, const char *uri) {
    char *cert = NULL, *key = NULL;
    gnutls_x509_crt_t crt;
    gnutls_datum_t der;
    cb_peer *peer = NULL;
    const char *const names[] = {name}, *const uris[] = {uri};
    cr_assert_eq(
        cb_ca_issue_pem(p->ca,
                        CB_OPTS(cb_leaf_opts, .names = names, .names_len = name != NULL, .uris = uris,
                                .uris_len = uri != NULL, .profile = uri && !name ? CB_CERT_SVID : CB_CERT_CLIENT),
                        &cert, &key),
        CB_OK, "%s", cb_last_error());
    const gnutls_datum_t pem = {(unsigned char *)cert, (unsigned)strlen(cert)};
    gnutls_x509_crt_init(&crt);
    cr_assert_eq(gnutls_x509_crt_import(crt, &pem, GNUTLS_X509_FMT_PEM), 0);
    cr_assert_eq(gnutls_x509_crt_export2(crt, GNUTLS_X509_FMT_DER, &der), 0);
    cr_assert_eq(cb_peer_read(&peer, &(cb_slice){der.data, der.size}, 1), CB_OK, "%s", cb_last_error());
    gnutls_free(der.data);
    gnutls_x509_crt_deinit(crt);
    cb_ca_text_free(cert);
    cb_ca_text_free(key);
    return peer;
}

static cb_authn_source *cert_source(int32_t subject, cb_revocations *gone) {
    const cb_authn_claims claims = {.size = sizeof claims, .tenant_is = "acme", .roles = "dns"};
    cb_authn_source *s = NULL;
    cr_assert_eq(cb_authn_source_mtls(&s, CB_OPTS(cb_authn_mtls_opts, .name = "machines", .claims = &claims,
                                                  .subject = subject, .revocations = gone)),
                 CB_OK, "%s", cb_last_error());
    return s;
}

Test(authn, client_certificates) {
    tls_pki p;
    cb_revocations *gone = NULL;
    cb_authn_call *c = NULL;
    cb_claim claim;
    asked q;
    tls_pki_make(&p);
    cr_assert_eq(cb_revocations_new(&gone, 0), CB_OK);
    cb_authn_source *s = cert_source(CB_AUTHN_NAME_ANY, gone), *strict = cert_source(CB_AUTHN_NAME_SPIFFE, NULL);
    cb_authn *a = gate_of((cb_authn_opts){.sources = &s, .n_sources = 1, .need_tenant = 1});
    cb_authn *b = gate_of((cb_authn_opts){.sources = &strict, .n_sources = 1});
    cr_assert_eq(cb_authn_call_new(&c, NULL), CB_OK);
    ask(&q, NULL, NULL, NULL)->r.now_s = (int64_t)time(NULL);
    cr_expect_eq(cb_authn_begin(c, a, &q.r, NULL, NULL), CB_EAUTH);
    cr_expect_eq(cb_authn_status(c), 403, "no challenge brings a certificate: %d", cb_authn_status(c));
    cr_expect_str_eq(cb_authn_reason(c), "no-certificate");

    cb_peer *svid = issue(&p, NULL, "spiffe://example.org/web"), *named = issue(&p, "client.example.org", NULL);
    q.r.peer = svid;
    for (int i = 0; i < 2; i++) {
        cr_expect_eq(cb_authn_begin(c, i ? b : a, &q.r, NULL, NULL), CB_OK, "%s", cb_authn_reason(c));
        const cb_principal *who = cb_authn_principal(c);
        cr_expect_str_eq(who->subject, "spiffe://example.org/web");
        cr_expect_str_eq(who->spiffe_id, "spiffe://example.org/web");
        cr_expect_str_eq(who->tenant, "acme");
        cr_expect(who->with_cert && who->kind == CB_AUTHN_MTLS);
    }
    cr_expect_eq(cb_authn_claim(c, "/uri/0", &claim), CB_OK);
    cr_expect_eq(cb_authn_claim(c, "sha256", &claim), CB_OK);
    cr_expect_eq(claim.text.len, 64);

    q.r.peer = named;
    cr_expect_eq(cb_authn_begin(c, a, &q.r, NULL, NULL), CB_OK, "%s", cb_authn_reason(c));
    cr_expect_str_eq(cb_authn_principal(c)->subject, "client.example.org");
    cr_expect(cb_authn_has_role(c, "client.example.org") && !cb_authn_principal(c)->spiffe_id);
    cr_expect_eq(cb_authn_begin(c, b, &q.r, NULL, NULL), CB_EAUTH);
    cr_expect_str_eq(cb_authn_reason(c), "subject");
    cr_assert_eq(cb_revocations_add(gone,
                                    CB_OPTS(cb_revocation, .issuer = "machines", .jti = cb_peer_serial(named),
                                            .until_s = q.r.now_s + 60),
                                    q.r.now_s),
                 CB_OK);
    cr_expect_eq(cb_authn_begin(c, a, &q.r, NULL, NULL), CB_EAUTH);
    cr_expect_str_eq(cb_authn_reason(c), "revoked");
    q.r.peer = svid;
    cr_expect_eq(cb_authn_begin(c, a, &q.r, NULL, NULL), CB_OK, "%s", cb_authn_reason(c));
    q.r.now_s += 400 * 86400;
    cr_expect_eq(cb_authn_begin(c, a, &q.r, NULL, NULL), CB_EAUTH);
    cr_expect_str_eq(cb_authn_reason(c), "certificate-expired");
    cb_peer_unref(svid);
    cb_peer_unref(named);
    cb_authn_call_free(c);
    cb_authn_unref(a);
    cb_authn_unref(b);
    cb_revocations_unref(gone);
    tls_pki_drop(&p);
}

/* ---- combinations ---- */

/* Each credential absent, good or bad, in gates of one and of all. */
Test(authn, any_and_all) {
    static const struct {
        char token, key; /* '-', 'g'ood, 'b'ad */
        int any, all;
    } rows[] = {{'-', '-', 401, 401}, {'g', '-', 200, 401}, {'b', '-', 401, 401},
                {'-', 'g', 200, 401}, {'-', 'b', 401, 401}, {'g', 'g', 200, 200},
                {'g', 'b', 401, 401}, {'b', 'g', 401, 401}, {'b', 'b', 401, 401}};
    char key[CB_API_KEY_BYTES], auth[2048], field[128];
    const cb_authn_claims claims = {.size = sizeof claims, .tenant = "org", .roles = "roles"};
    cb_authn_source *both[] = {jwt_source("staff", "me", NULL, NULL, &claims), key_source(key, NULL, 0)};
    cb_authn *gates[2];
    cb_authn_call *c = NULL;
    asked q;
    cr_assert_eq(cb_authn_call_new(&c, NULL), CB_OK);
    for (int all = 0; all < 2; all++)
        cr_assert_eq(cb_authn_new(&gates[all], CB_OPTS(cb_authn_opts, .sources = both, .n_sources = 2, .all = all)),
                     CB_OK);
    char *token = sign("me", "org=\"acme\";roles=[\"admin\"]");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        snprintf(auth, sizeof auth, "authorization: Bearer %s%s", token, rows[i].token == 'b' ? "A" : "");
        snprintf(field, sizeof field, "x-api-key: %.*s", rows[i].key == 'b' ? 20 : 99, key);
        for (int all = 0; all < 2; all++) {
            ask(&q, rows[i].token == '-' ? NULL : auth, rows[i].key == '-' ? NULL : field, NULL);
            cb_authn_begin(c, gates[all], &q.r, NULL, NULL);
            cr_expect_eq(cb_authn_status(c), all ? rows[i].all : rows[i].any, "row %zu, all %d: %d %s", i, all,
                         cb_authn_status(c), cb_authn_reason(c));
        }
    }
    /* With all, roles count together and the first is the identity; with one, only its own do. */
    snprintf(auth, sizeof auth, "authorization: Bearer %s", token);
    snprintf(field, sizeof field, "x-api-key: %s", key);
    cr_expect_eq(cb_authn_begin(c, gates[1], &ask(&q, auth, field, NULL)->r, NULL, NULL), CB_OK);
    cr_expect(cb_authn_has_role(c, "admin") && cb_authn_has_role(c, "reader"));
    cr_expect_str_eq(cb_authn_principal(c)->subject, "joe");
    cr_expect_eq(cb_authn_begin(c, gates[0], &q.r, NULL, NULL), CB_OK);
    cr_expect(cb_authn_has_role(c, "admin") && !cb_authn_has_role(c, "reader"));
    cb_jwt_text_free(token);
    token = sign("me", "org=\"other\"");
    snprintf(auth, sizeof auth, "authorization: Bearer %s", token);
    cr_expect_eq(cb_authn_begin(c, gates[1], &ask(&q, auth, field, NULL)->r, NULL, NULL), CB_EAUTH);
    cr_expect_eq(cb_authn_status(c), 403, "two tenants");
    cb_jwt_text_free(token);
    cb_authn_call_free(c);
    for (int i = 0; i < 2; i++) {
        cb_authn_unref(gates[i]);
        cb_authn_source_unref(both[i]);
    }
}

/* Two issuers behind one gate: each token is taken by its own. */
Test(authn, two_issuers) {
    cb_authn_source *both[] = {jwt_source("ours", "us", NULL, NULL, NULL),
                               jwt_source("theirs", "them", NULL, NULL, NULL)};
    cb_authn *a = gate_of((cb_authn_opts){.sources = both, .n_sources = 2});
    cb_authn_call *c = NULL;
    cr_assert_eq(cb_authn_call_new(&c, NULL), CB_OK);
    cr_expect_eq(bear(c, a, sign("them", NULL)), CB_OK);
    cr_expect_str_eq(cb_authn_principal(c)->source, "theirs");
    cr_expect_eq(bear(c, a, sign("us", NULL)), CB_OK);
    cr_expect_str_eq(cb_authn_principal(c)->source, "ours");
    /* What the token's own issuer says against it is told, not that the other one does not know it. */
    cr_expect_eq(bear(c, a, sign("them", "exp=1600000000")), CB_EAUTH);
    cr_expect_str_eq(cb_authn_reason(c), "expired");
    cr_expect_eq(bear(c, a, sign("nobody", NULL)), CB_EAUTH);
    cr_expect_str_eq(cb_authn_reason(c), "issuer");
    cb_authn_call_free(c);
    cb_authn_unref(a);
}

/* ---- somebody else knows ---- */

typedef struct oracle {
    cb_authn_call *waits;
    int rc, cancelled, released, ended;
    const char *claims; /* NULL: later */
} oracle;

static int look(cb_authn_call *call, cb_slice token, void *user) {
    oracle *o = user;
    (void)token;
    if (o->claims) cb_authn_answer(call, CB_OK, cb_slice_str(o->claims));
    if (o->rc == CB_EAGAIN) o->waits = call;
    return o->rc;
}

static void cancel(cb_authn_call *call, void *user) {
    oracle *o = user;
    cr_expect_eq(o->waits, call);
    o->waits = NULL;
    o->cancelled++;
}

static void release(void *user) {
    ((oracle *)user)->released++;
}

static void ended(cb_authn_call *call, int rc, void *user) {
    oracle *o = user;
    (void)call;
    o->ended = rc == CB_OK ? 200 : cb_authn_status(call);
}

Test(authn, opaque_tokens) {
    static const cb_authn_token_ops ops = {.size = sizeof ops, .look = look, .cancel = cancel, .release = release};
    static const struct {
        const char *claims;
        int rc, status;
        const char *reason;
    } rows[] = {
        {"{\"sub\":\"joe\"}", CB_OK, 200, ""},
        {"{\"sub\":\"joe\",\"exp\":1600000000}", CB_OK, 401, "expired"},
        {"{\"sub\":\"joe\",\"nbf\":1800000000}", CB_OK, 401, "not-yet"},
        {"{\"sub\":\"joe\",\"exp\":\"x\"}", CB_OK, 401, "claim"},
        {"{\"sub\":\"joe\",\"cnf\":{\"jkt\":\"x\"}}", CB_OK, 401, "binding"},
        {"{\"sub\":\"joe\",\"cnf\":{\"x5t#S256\":\"x\"}}", CB_OK, 401, "binding"},
        {"{\"sub\":3}", CB_OK, 403, "subject"},
        {"[]", CB_OK, 503, "provider"},
        {"{\"sub\":", CB_OK, 503, "provider"},
        {NULL, CB_OK, 503, "provider"},
        {NULL, CB_EAUTH, 401, "not-active"},
        {NULL, CB_ETIMEOUT, 503, "provider"},
    };
    oracle o = {.rc = CB_OK};
    cb_authn_source *s = NULL;
    cb_authn_call *c = NULL;
    asked q;
    cr_assert_eq(cb_authn_source_token(&s, CB_OPTS(cb_authn_token_opts, .name = "idp", .ops = &ops, .user = &o)),
                 CB_OK);
    cb_authn *a = gate_of((cb_authn_opts){.sources = &s, .n_sources = 1});
    cr_assert_eq(cb_authn_call_new(&c, NULL), CB_OK);
    ask(&q, "authorization: Bearer opaque", NULL, NULL);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        o = (oracle){.rc = rows[i].rc, .claims = rows[i].claims};
        cb_authn_begin(c, a, &q.r, ended, &o);
        cr_expect_eq(cb_authn_status(c), rows[i].status, "row %zu: %d %s", i, cb_authn_status(c), cb_authn_reason(c));
        cr_expect_str_eq(cb_authn_reason(c), rows[i].reason, "row %zu: %s", i, cb_authn_reason(c));
        cr_expect_eq(o.ended, 0, "row %zu: told although it ended at once", i);
    }
    cr_expect_str_eq(challenge(c, 0), "retry-after: 1");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) { /* the same, later */
        if (!rows[i].claims && rows[i].rc == CB_OK) continue;
        o = (oracle){.rc = CB_EAGAIN};
        cr_expect_eq(cb_authn_begin(c, a, &q.r, ended, &o), CB_EAGAIN);
        cr_assert_eq(o.waits, c);
        cb_authn_answer(c, rows[i].rc, cb_slice_str(rows[i].claims));
        cr_expect_eq(o.ended, rows[i].status, "row %zu: %d", i, o.ended);
        cb_authn_answer(c, CB_OK, cb_slice_str("{\"sub\":\"eve\"}")); /* nobody asks any more */
        cr_expect_eq(cb_authn_status(c), rows[i].status);
    }
    o = (oracle){.rc = CB_EAGAIN};
    cr_expect_eq(cb_authn_begin(c, a, &q.r, ended, &o), CB_EAGAIN);
    cb_authn_call_reset(c);
    cr_expect(o.cancelled == 1 && !o.ended);
    cr_expect_eq(cb_authn_begin(c, a, &q.r, NULL, NULL), CB_EINVAL, "nobody to tell");
    cr_expect_eq(o.cancelled, 2);
    cb_authn_call_free(c);
    cb_authn_unref(a);
    cr_expect_eq(o.released, 1);
}

Test(authn, what_cannot_be_made) {
    cb_authn_source *s = jwt_source("staff", "me", NULL, NULL, NULL), *none = NULL;
    cb_authn *a = NULL;
    const char *const bad_scope[] = {"a b"}, *const quote[] = {"a\"b"};
    const cb_authn_claims two = {.size = sizeof two, .tenant = "org", .tenant_is = "acme"};
    cr_expect_eq(cb_authn_new(&a, NULL), CB_EINVAL);
    cr_expect_eq(cb_authn_new(&a, CB_OPTS(cb_authn_opts, .sources = &s, .n_sources = 9)), CB_EINVAL);
    cr_expect_eq(cb_authn_new(&a, CB_OPTS(cb_authn_opts, .sources = &none, .n_sources = 1)), CB_EINVAL);
    cr_expect_eq(cb_authn_new(&a, CB_OPTS(cb_authn_opts, .sources = &s, .n_sources = 1, .realm = "a\"")), CB_EINVAL);
    cr_expect_eq(
        cb_authn_new(&a, CB_OPTS(cb_authn_opts, .sources = &s, .n_sources = 1, .scopes = bad_scope, .n_scopes = 1)),
        CB_EINVAL);
    cr_expect_eq(
        cb_authn_new(&a, CB_OPTS(cb_authn_opts, .sources = &s, .n_sources = 1, .scopes = quote, .n_scopes = 1)),
        CB_EINVAL);
    cr_expect_eq(cb_authn_source_mtls(&none, CB_OPTS(cb_authn_mtls_opts, .name = "x", .claims = &two)), CB_EINVAL);
    cr_expect_eq(cb_authn_source_mtls(&none, NULL), CB_EINVAL);
    cr_expect_eq(cb_authn_source_mtls(&none, CB_OPTS(cb_authn_mtls_opts, .name = "x", .subject = 9)), CB_EINVAL);
    cr_expect_eq(cb_authn_source_jwt(&none, CB_OPTS(cb_authn_jwt_opts, .name = "x")), CB_EINVAL);
    cr_expect_eq(cb_authn_source_token(&none, CB_OPTS(cb_authn_token_opts, .name = "x")), CB_EINVAL);
    cr_expect_eq(cb_authn_source_api_key(&none, CB_OPTS(cb_authn_api_key_opts, .name = "x")), CB_EINVAL);
    cb_authn_source_unref(s);
    cb_authn_source_unref(NULL);
    cb_authn_unref(NULL);
}
