/* Signing, claims, the cache of verdicts, revocation, and proofs of possession. */
#include "auth/base64url.h"
#include "auth/dpop.h"
#include "support/jwt_keys.h"
#include "support/moved.h"
#include <cb/auth.h>
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NOW = 1700000000 };

#define ED_JWK "{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"kid\":\"ed\"," ED_X "," ED_D "}"
#define EC_JWK "{\"kty\":\"EC\",\"crv\":\"P-256\"," EC_XY "," EC_D "}"

static const cb_jwt_rules open_rules = {.size = sizeof open_rules, .issuer = "me", .any_audience = 1};
static const cb_jwt_facts facts = {.size = sizeof facts, .now_s = NOW};

static cb_jwt_signer *signer(const char *jwk, const char *secret, int alg) {
    cb_jwt_signer *s = NULL;
    cr_assert_eq(cb_jwt_signer_new(&s, CB_OPTS(cb_jwt_signer_opts, .jwk = cb_slice_str(jwk),
                                               .secret = cb_slice_str(secret), .alg = alg)),
                 CB_OK, "%s", cb_last_error());
    return s;
}

static cb_jwks *set_of(const char *json) {
    cb_jwks *set = NULL;
    cr_assert_eq(cb_jwks_new(&set, CB_OPTS(cb_jwks_opts, .json = cb_slice_str(json), .symmetric = 1)), CB_OK, "%s",
                 cb_last_error());
    return set;
}

static char *make(const cb_jwt_signer *s, const char *more) {
    char *token = NULL;
    const cb_jwt_field claims[] = {{.name = "iss", .text = "me"},        {.name = "sub", .text = "joe"},
                                   {.name = "jti", .text = "one"},       {.name = "iat", .number = NOW - 10},
                                   {.name = "exp", .number = NOW + 300}, {.name = "x", .json = more ? more : "null"}};
    cr_assert_eq(cb_jwt_sign(&token, s, NULL, 0, claims, 6), CB_OK, "%s", cb_last_error());
    return token;
}

Test(jwt_use, signs_with_every_kind_of_key) {
    const char *rsa = "{\"kty\":\"RSA\",\"n\":\"" RSA_N "\",\"e\":\"AQAB\"," RSA_PRIVATE_PART "}";
    const struct {
        const char *jwk, *secret;
        int alg, made;
    } rows[] = {{rsa, NULL, CB_JWT_RS256, CB_JWT_RS256},
                {rsa, NULL, CB_JWT_RS384, CB_JWT_RS384},
                {rsa, NULL, CB_JWT_RS512, CB_JWT_RS512},
                {rsa, NULL, CB_JWT_PS256, CB_JWT_PS256},
                {rsa, NULL, CB_JWT_PS384, CB_JWT_PS384},
                {rsa, NULL, CB_JWT_PS512, CB_JWT_PS512},
                {EC_JWK, NULL, 0, CB_JWT_ES256},
                {ED_JWK, NULL, 0, CB_JWT_EDDSA},
                {NULL, HS_SECRET, CB_JWT_HS256, CB_JWT_HS256}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cb_jwt_signer *s = signer(rows[i].jwk, rows[i].secret, rows[i].alg);
        cb_jwk_opts hs = {.size = sizeof hs, .secret = cb_slice_str(rows[i].secret), .alg = CB_JWT_HS256};
        const cb_jwk_opts *one = &hs;
        cb_jwks *set = NULL;
        cb_jwt *t = NULL;
        cr_expect_eq(cb_jwt_signer_alg(s), rows[i].made);
        cr_assert_eq(cb_jwks_new(&set, CB_OPTS(cb_jwks_opts, .json = cb_slice_str(cb_jwt_signer_jwk(s)), .keys = &one,
                                               .keys_len = rows[i].secret != NULL,
                                               .rsa_alg = rows[i].secret || rows[i].jwk != rsa ? 0 : rows[i].alg)),
                     CB_OK, "%s", cb_last_error());
        char *token = make(s, "{\"roles\":[\"a\",\"b\"],\"a/b\":{\"~\":\"\\u00e4\\ud83d\\ude00\"},\"n\":-12.5e1}");
        cr_assert_eq(cb_jwt_verify(&t, cb_slice_str(token), set, &open_rules, &facts, NULL), CB_OK, "%zu: %s", i,
                     cb_last_error());
        cb_claim c, item;
        uint32_t it = 0;
        cr_expect_str_eq(cb_jwt_subject(t), "joe");
        cr_expect_eq(cb_jwt_has(t, "/x/roles", "b"), 1);
        cr_expect_eq(cb_jwt_has(t, "/x/roles", "c"), 0);
        cr_expect_eq(cb_jwt_has(t, "x", "roles"), 1);
        cr_expect_str_eq(cb_jwt_text(t, "/x/roles/1"), "b");
        cr_expect_null(cb_jwt_text(t, "/x/roles/01"));
        cr_expect_null(cb_jwt_text(t, "/x/roles/2"));
        cr_expect_str_eq(cb_jwt_text(t, "/x/a~1b/~0"), "\xc3\xa4\xf0\x9f\x98\x80");
        cr_expect(cb_jwt_claim(t, "/x/n", &c) == CB_OK && c.kind == CB_CLAIM_NUMBER && c.number == -125);
        cr_expect(cb_jwt_claim(t, "/x/roles", &c) == CB_OK && c.len == 2);
        cr_expect(cb_jwt_claim_next(t, &c, &it, &item) == CB_OK && memcmp(item.text.base, "a", 2) == 0);
        cr_expect_eq(cb_jwt_claim_next(t, &c, &it, &item), CB_OK);
        cr_expect_eq(cb_jwt_claim_next(t, &c, &it, &item), CB_ENOENT);
        cb_jwt_unref(t);
        cb_jwt_text_free(token);
        cb_jwks_unref(set);
        cb_jwt_signer_unref(s);
    }
}

Test(jwt_use, what_cannot_be_signed) {
    static const cb_jwt_field bad[][2] = {{{.name = "alg", .text = "none"}, {.name = "x", .text = ""}},
                                          {{.name = "x", .text = "a"}, {.name = "x", .text = "b"}},
                                          {{.name = "x", .json = "{\"a\":1,\"a\":2}"}, {.name = "y", .text = ""}},
                                          {{.name = "x", .json = "1,\"exp\":2"}, {.name = "y", .text = ""}},
                                          {{.name = "x", .text = "\xff"}, {.name = "y", .text = ""}},
                                          {{.name = NULL, .text = "a"}, {.name = "y", .text = ""}}};
    cb_jwt_signer *s = signer(ED_JWK, NULL, 0);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char *token = NULL;
        cr_expect_eq(cb_jwt_sign(&token, s, bad[i], 2, NULL, 0), CB_EINVAL, "%zu", i);
    }
    cb_jwt_signer_unref(s);
}

Test(jwt_use, scope_and_audience) {
    cb_jwt_signer *s = signer(ED_JWK, NULL, 0);
    cb_jwks *set = set_of(cb_jwt_signer_jwk(s));
    const cb_jwt_field claims[] = {{.name = "scope", .text = "openid read write"},
                                   {.name = "aud", .json = "[\"a\",\"b\"]"}};
    const cb_jwt_rules any = {.size = sizeof any, .any_issuer = 1, .any_audience = 1, .exp_optional = 1};
    char *token = NULL;
    cb_jwt *t = NULL;
    cr_assert_eq(cb_jwt_sign(&token, s, NULL, 0, claims, 2), CB_OK);
    cr_assert_eq(cb_jwt_verify(&t, cb_slice_str(token), set, &any, &facts, NULL), CB_OK, "%s", cb_last_error());
    cr_expect(cb_jwt_has_scope(t, "read") && !cb_jwt_has_scope(t, "rea") && !cb_jwt_has_scope(t, "read write"));
    cr_expect_str_eq(cb_jwt_audience(t, 1), "b");
    cr_expect_null(cb_jwt_audience(t, 2));
    int32_t reason = 0;
    cr_expect_eq(cb_jwt_check(t, &open_rules, &facts, &reason), CB_EAUTH);
    cr_expect_eq(reason, CB_JWT_ISSUER);
    cr_expect_eq(cb_jwt_check(t, CB_OPTS(cb_jwt_rules, .any_audience = 1), &facts, NULL), CB_EINVAL);
    cr_expect_eq(cb_jwt_check(t, CB_OPTS(cb_jwt_rules, .issuer = "me"), &facts, NULL), CB_EINVAL);
    cr_expect_eq(cb_jwt_check(t, &any, CB_OPTS(cb_jwt_facts, .jkt = NULL), NULL), CB_EINVAL);
    cb_jwt_unref(t);
    cb_jwt_text_free(token);
    cb_jwks_unref(set);
    cb_jwt_signer_unref(s);
}

/* A hit is judged anew: other rules, later times, changed keys and revocations count at once. */
Test(jwt_use, cache_judges_anew) {
    cb_jwt_signer *s = signer(ED_JWK, NULL, 0);
    cb_jwks *set = set_of("{\"keys\":[{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"kid\":\"ed\"," ED_X "}]}");
    cb_jwks *grown = set_of("{\"keys\":[{\"kty\":\"EC\",\"crv\":\"P-256\"," EC_XY
                            "},{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"kid\":\"ed\"," ED_X "}]}");
    cb_jwks *rotated = set_of("{\"keys\":[{\"kty\":\"EC\",\"crv\":\"P-256\",\"kid\":\"ed\"," EC_XY "}]}");
    cb_jwt_cache *cache = NULL;
    cb_revocations *gone = NULL;
    cr_assert_eq(cb_jwt_cache_new(&cache, CB_OPTS(cb_jwt_cache_opts, .ttl_s = 60)), CB_OK);
    cr_assert_eq(cb_revocations_new(&gone, 0), CB_OK);
    char *token = make(s, NULL);
    const cb_jwt_rules revocable = {.size = sizeof revocable, .issuer = "me", .any_audience = 1, .revocations = gone};
    const cb_jwt_rules other = {.size = sizeof other, .issuer = "you", .any_audience = 1};
    const struct {
        const cb_jwks *keys;
        const cb_jwt_rules *rules;
        int64_t now_s;
        int rc, reason;
        uint64_t hits;
    } steps[] = {{set, &open_rules, NOW, CB_OK, CB_JWT_GOOD, 0},
                 {set, &open_rules, NOW + 1, CB_OK, CB_JWT_GOOD, 1},
                 {grown, &open_rules, NOW + 1, CB_OK, CB_JWT_GOOD, 2},
                 {set, &other, NOW + 1, CB_EAUTH, CB_JWT_ISSUER, 3},
                 {rotated, &open_rules, NOW + 1, CB_EAUTH, CB_JWT_KEY_ALG, 3},
                 {set, &revocable, NOW + 1, CB_OK, CB_JWT_GOOD, 4},
                 {set, &open_rules, NOW + 61, CB_OK, CB_JWT_GOOD, 4},
                 {set, &open_rules, NOW + 62, CB_OK, CB_JWT_GOOD, 5},
                 {set, &open_rules, NOW + 400, CB_EAUTH, CB_JWT_EXPIRED, 5}};
    cb_jwt_cache_stats stats = {.size = sizeof stats};
    int32_t reason = 0;
    cb_jwt *t = NULL;
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        const cb_jwt_facts at = {.size = sizeof at, .now_s = steps[i].now_s};
        t = NULL;
        int rc = cb_jwt_cache_verify(cache, &t, cb_slice_str(token), steps[i].keys, steps[i].rules, &at, &reason);
        cr_expect(rc == steps[i].rc && reason == steps[i].reason, "step %zu: %s", i, cb_jwt_reason_text(reason));
        cb_jwt_cache_stats_get(cache, &stats);
        cr_expect_eq(stats.hits, steps[i].hits, "step %zu: %d hits", i, (int)stats.hits);
        cb_jwt_unref(t);
    }
    cb_metrics *m = NULL;
    cr_assert_eq(cb_metrics_new(&m, NULL), CB_OK);
    cr_assert_eq(cb_jwt_cache_metrics(cache, m, "edge"), CB_OK, "%s", cb_last_error());
    cr_expect_eq(cb_jwt_cache_metrics(cache, m, "edge"), CB_EEXIST);
    cb_jwt_cache_stats_get(cache, &stats);
    moved_scrape(m);
    EXPECT_MOVED(m, 5, "cb_jwt_cache_lookups", "edge", "hit");
    EXPECT_MOVED(m, 4, "cb_jwt_cache_lookups", "edge", "miss");
    EXPECT_MOVED(m, stats.refused, "cb_jwt_cache_lookups", "edge", "refused");
    EXPECT_MOVED(m, stats.tokens, "cb_jwt_cache_tokens", "edge");
    EXPECT_MOVED(m, stats.bytes, "cb_jwt_cache_bytes", "edge");
    cb_metrics_unref(m); /* the cache holds it */
    cr_assert_eq(cb_jwt_cache_verify(cache, &t, cb_slice_str(token), set, &revocable, &facts, &reason), CB_OK);
    cb_jwt_unref(t);
    cr_assert_eq(
        cb_revocations_add(gone, CB_OPTS(cb_revocation, .issuer = "me", .jti = "one", .until_s = NOW + 400), NOW),
        CB_OK);
    cr_expect_eq(cb_jwt_cache_verify(cache, &t, cb_slice_str(token), set, &revocable, &facts, &reason), CB_EAUTH);
    cr_expect_eq(reason, CB_JWT_REVOKED);
    cb_jwt_cache_flush(cache);
    cb_jwt_cache_stats_get(cache, &stats);
    cr_expect(stats.tokens == 0 && stats.bytes == 0);
    cb_jwt_text_free(token);
    cb_revocations_unref(gone);
    cb_jwt_cache_unref(cache);
    cb_jwks_unref(set);
    cb_jwks_unref(grown);
    cb_jwks_unref(rotated);
    cb_jwt_signer_unref(s);
}

Test(jwt_use, cache_is_bounded) {
    cb_jwt_signer *s = signer(NULL, HS_SECRET, CB_JWT_HS256);
    cb_jwk_opts hs = {.size = sizeof hs, .secret = cb_slice_str(HS_SECRET), .alg = CB_JWT_HS256};
    const cb_jwk_opts *one = &hs;
    cb_jwks *set = NULL;
    cb_jwt_cache *cache = NULL;
    cb_jwt_cache_stats stats = {.size = sizeof stats};
    cr_assert_eq(cb_jwks_new(&set, CB_OPTS(cb_jwks_opts, .keys = &one, .keys_len = 1)), CB_OK);
    cr_assert_eq(cb_jwt_cache_new(&cache, CB_OPTS(cb_jwt_cache_opts, .max_tokens = 128, .max_bytes = 64 * 1024)),
                 CB_OK);
    for (int i = 0; i < 1000; i++) {
        char more[32];
        cb_jwt *t = NULL;
        snprintf(more, sizeof more, "%d", i);
        char *token = make(s, more);
        cr_assert_eq(cb_jwt_cache_verify(cache, &t, cb_slice_str(token), set, &open_rules, &facts, NULL), CB_OK);
        cb_jwt_unref(t);
        cb_jwt_text_free(token);
    }
    cb_jwt_cache_stats_get(cache, &stats);
    cr_expect(stats.tokens > 0 && stats.tokens <= 128 && stats.bytes <= 64 * 1024, "%d tokens", (int)stats.tokens);
    cb_metrics *m = NULL;
    cr_assert_eq(cb_metrics_new(&m, NULL), CB_OK);
    cr_assert_eq(cb_jwt_cache_metrics(cache, m, NULL), CB_OK);
    moved_scrape(m);
    EXPECT_MOVED(m, 1000 - stats.tokens, "cb_jwt_cache_evicted_tokens", "");
    cb_metrics_unref(m);
    cb_jwt_cache_unref(cache);
    cb_jwks_unref(set);
    cb_jwt_signer_unref(s);
}

Test(jwt_use, revocations) {
    cb_revocations *gone = NULL;
    cb_jwt_signer *s = signer(ED_JWK, NULL, 0);
    cb_jwks *set = set_of(cb_jwt_signer_jwk(s));
    char *token = make(s, NULL);
    cb_jwt *t = NULL;
    cr_assert_eq(cb_jwt_verify(&t, cb_slice_str(token), set, &open_rules, &facts, NULL), CB_OK);
    const struct {
        cb_revocation what;
        int rc, hit;
    } rows[] = {
        {{.size = sizeof(cb_revocation), .issuer = "me", .jti = "two", .until_s = NOW + 9}, CB_OK, 0},
        {{.size = sizeof(cb_revocation), .issuer = "you", .jti = "one", .until_s = NOW + 9}, CB_OK, 0},
        {{.size = sizeof(cb_revocation), .issuer = "me", .jti = "one", .until_s = NOW + 9}, CB_OK, 1},
        {{.size = sizeof(cb_revocation), .issuer = "me", .subject = "joe", .before_s = NOW - 11, .until_s = NOW + 9},
         CB_OK,
         0},
        {{.size = sizeof(cb_revocation), .issuer = "me", .subject = "joe", .before_s = NOW - 10, .until_s = NOW + 9},
         CB_OK,
         1},
        {{.size = sizeof(cb_revocation), .issuer = "me", .before_s = NOW, .until_s = NOW + 9}, CB_OK, 1},
        {{.size = sizeof(cb_revocation), .issuer = "me", .until_s = NOW + 9}, CB_EINVAL, 0},
        {{.size = sizeof(cb_revocation), .jti = "one", .until_s = NOW + 9}, CB_EINVAL, 0}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        int32_t reason = 0;
        cr_assert_eq(cb_revocations_new(&gone, 2), CB_OK);
        cr_expect_eq(cb_revocations_add(gone, &rows[i].what, NOW), rows[i].rc, "%zu", i);
        const cb_jwt_rules r = {.size = sizeof r, .issuer = "me", .any_audience = 1, .revocations = gone};
        cb_jwt_check(t, &r, &facts, &reason);
        cr_expect_eq(reason == CB_JWT_REVOKED, rows[i].hit, "%zu", i);
        cb_revocations_unref(gone);
    }
    cr_assert_eq(cb_revocations_new(&gone, 2), CB_OK);
    for (int i = 0; i < 4; i++) {
        char jti[8];
        snprintf(jti, sizeof jti, "%d", i);
        int rc = cb_revocations_add(gone, CB_OPTS(cb_revocation, .issuer = "me", .jti = jti, .until_s = NOW + 9),
                                    i == 3 ? NOW + 10 : NOW);
        cr_expect_eq(rc, i == 2 ? CB_ELIMIT : CB_OK, "%d", i);
    }
    cb_revocations_unref(gone);
    cb_jwt_unref(t);
    cb_jwt_text_free(token);
    cb_jwks_unref(set);
    cb_jwt_signer_unref(s);
}

/* ---- proofs ---- */

#define RFC9449                                                                                                        \
    "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0RscEJo" \
    "RjQyVVFVZldWQVdC"                                                                                                 \
    "RnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIsImNydiI6IlAtMjU2In19."                    \
    "eyJqdGkiOiItQndDM0VTYzZhY2MybFRjIi"                                                                               \
    "wiaHRtIjoiUE9TVCIsImh0dSI6Imh0dHBzOi8vc2VydmVyLmV4YW1wbGUuY29tL3Rva2VuIiwiaWF0IjoxNTYyMjYyNjE2fQ.2-"              \
    "GxA6T8lP4vfrg8v-FdWP0A0zdrj8"                                                                                     \
    "igiMLvqRMUvwnQg4PtFLbdLXiOSsX0x7NVY-FNyJK70nfbV37xRZT3Lg"

Test(dpop, rfc_9449_example) {
    cb_dpop *d = NULL;
    char jkt[CB_DPOP_JKT_BYTES] = "";
    int32_t reason = 0;
    cb_dpop_request r = {.size = sizeof r,
                         .proof = cb_slice_str(RFC9449),
                         .method = "POST",
                         .url = "https://server.example.com/token",
                         .now_s = 1562262617};
    cb_dpop_proof p;
    cr_assert_eq(cb_dpop_new(&d, NULL), CB_OK);
    cr_assert_eq(cb_dpop_read(&p, &r, 60, 10, &reason), CB_OK, "%s", cb_last_error());
    cr_expect_str_eq(p.jkt, "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I");
    /* The object is new: it may have forgotten what a predecessor saw, and asks for a nonce. */
    cr_expect_eq(cb_dpop_verify(d, &r, jkt, &reason), CB_EAUTH);
    cr_expect_eq(reason, CB_JWT_DPOP_NONCE);
    cb_dpop_unref(d);
}

typedef struct proof_row {
    const char *name, *header, *claims; /* claims: after jti, htm, htu and iat where NULL stands for the good ones */
    int reason;
} proof_row;

#define PHEAD "{\"typ\":\"dpop+jwt\",\"alg\":\"ES256\",\"jwk\":{\"kty\":\"EC\",\"crv\":\"P-256\"," EC_XY "}}"
#define PCLAIMS(jti, htm, htu, iat, more)                                                                              \
    "{\"jti\":\"" jti "\",\"htm\":\"" htm "\",\"htu\":\"" htu "\",\"iat\":" iat more "}"
#define ATH ",\"ath\":\"fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEo\"" /* of RFC 9449 7.1's token */
#define U   "https://api.example/a"

static const proof_row proofs[] = {
    {"good", PHEAD, PCLAIMS("1", "GET", U, "1700000000", ATH), CB_JWT_GOOD},
    {"again", PHEAD, PCLAIMS("1", "GET", U, "1700000000", ATH), CB_JWT_DPOP_REPLAY},
    {"again with another time", PHEAD, PCLAIMS("1", "GET", U, "1700000005", ATH), CB_JWT_DPOP_REPLAY},
    {"htu written otherwise", PHEAD, PCLAIMS("2", "GET", "HTTPS://API.example:443/b/../%61?x#y", "1700000000", ATH),
     CB_JWT_GOOD},
    {"htm", PHEAD, PCLAIMS("3", "POST", U, "1700000000", ATH), CB_JWT_DPOP_METHOD},
    {"htm in small letters", PHEAD, PCLAIMS("3", "get", U, "1700000000", ATH), CB_JWT_DPOP_METHOD},
    {"htu of another host", PHEAD, PCLAIMS("3", "GET", "https://evil.example/a", "1700000000", ATH), CB_JWT_DPOP_URL},
    {"htu of another path", PHEAD, PCLAIMS("3", "GET", U "/", "1700000000", ATH), CB_JWT_DPOP_URL},
    {"htu in clear", PHEAD, PCLAIMS("3", "GET", "http://api.example/a", "1700000000", ATH), CB_JWT_DPOP_URL},
    {"htu with a user", PHEAD, PCLAIMS("3", "GET", "https://api.example@evil.example/a", "1700000000", ATH),
     CB_JWT_DPOP_URL},
    {"no ath", PHEAD, PCLAIMS("3", "GET", U, "1700000000", ""), CB_JWT_DPOP_TOKEN},
    {"ath of another token", PHEAD, PCLAIMS("3", "GET", U, "1700000000", ",\"ath\":\"AAAA\""), CB_JWT_DPOP_TOKEN},
    {"too old", PHEAD, PCLAIMS("3", "GET", U, "1699999939", ATH), CB_JWT_TOO_OLD},
    {"in the future", PHEAD, PCLAIMS("3", "GET", U, "1700000011", ATH), CB_JWT_NOT_YET},
    {"iat a text", PHEAD, PCLAIMS("3", "GET", U, "\"1700000000\"", ATH), CB_JWT_CLAIM},
    {"no jti", PHEAD, "{\"htm\":\"GET\",\"htu\":\"" U "\",\"iat\":1700000000" ATH "}", CB_JWT_CLAIM},
    {"jti empty", PHEAD, PCLAIMS("", "GET", U, "1700000000", ATH), CB_JWT_CLAIM},
    {"nonce of another server", PHEAD, PCLAIMS("3", "GET", U, "1700000000", ATH ",\"nonce\":\"AAAA\""),
     CB_JWT_DPOP_NONCE},
    {"typ", "{\"typ\":\"JWT\",\"alg\":\"ES256\",\"jwk\":{}}", PCLAIMS("3", "GET", U, "1700000000", ATH), CB_JWT_TYPE},
    {"no jwk", "{\"typ\":\"dpop+jwt\",\"alg\":\"ES256\"}", PCLAIMS("3", "GET", U, "1700000000", ATH), CB_JWT_DPOP_KEY},
    {"jwk with its private part",
     "{\"typ\":\"dpop+jwt\",\"alg\":\"ES256\",\"jwk\":{\"kty\":\"EC\",\"crv\":\"P-256\"," EC_XY "," EC_D "}}",
     PCLAIMS("3", "GET", U, "1700000000", ATH), CB_JWT_DPOP_KEY},
    {"jwk oct", "{\"typ\":\"dpop+jwt\",\"alg\":\"ES256\",\"jwk\":{\"kty\":\"oct\",\"k\":\"AAAA\"}}",
     PCLAIMS("3", "GET", U, "1700000000", ATH), CB_JWT_DPOP_KEY},
    {"HS256", "{\"typ\":\"dpop+jwt\",\"alg\":\"HS256\",\"jwk\":{\"kty\":\"oct\",\"k\":\"AAAA\"}}",
     PCLAIMS("3", "GET", U, "1700000000", ATH), CB_JWT_ALG},
    {"alg of another curve",
     "{\"typ\":\"dpop+jwt\",\"alg\":\"ES384\",\"jwk\":{\"kty\":\"EC\",\"crv\":\"P-256\"," EC_XY "}}",
     PCLAIMS("3", "GET", U, "1700000000", ATH), CB_JWT_DPOP_KEY},
    {"another key in the header",
     "{\"typ\":\"dpop+jwt\",\"alg\":\"ES256\",\"jwk\":{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"l8tFrhx-"
     "34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs\","
     "\"y\":\"9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA\"}}",
     PCLAIMS("3", "GET", U, "1700000000", ATH), CB_JWT_SIGNATURE},
};

static char *sign_proof(const char *header, const char *claims) {
    static cb_json_node nodes[32];
    char copy[1024];
    cb_json j;
    cb_jwk key;
    uint8_t sig[CB_JWK_SIG_BYTES];
    strcpy(copy, EC_JWK);
    cr_assert_eq(cb_json_read(&j, copy, strlen(copy), nodes, 32), 0);
    cr_assert_eq(cb_jwk_read(&key, &j, nodes, CB_JWK_SIGN, 0), CB_OK);
    char *out = malloc(4096);
    size_t n = cb_base64url_encode(out, header, strlen(header));
    out[n++] = '.';
    n += cb_base64url_encode(out + n, claims, strlen(claims));
    int64_t len = cb_jwk_sign(&key, (cb_slice){(uint8_t *)out, n}, sig);
    out[n++] = '.';
    cb_base64url_encode(out + n, sig, (size_t)len);
    cb_jwk_clear(&key);
    return out;
}

static int verify(cb_dpop *d, const char *header, const char *claims, int64_t now_s, int32_t *reason) {
    char jkt[CB_DPOP_JKT_BYTES];
    char *proof = sign_proof(header, claims);
    int rc = cb_dpop_verify(d,
                            CB_OPTS(cb_dpop_request, .proof = cb_slice_str(proof), .method = "GET", .url = U "?q=1",
                                    .access_token = cb_slice_str("Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU"),
                                    .now_s = now_s),
                            jkt, reason);
    free(proof);
    return rc;
}

Test(dpop, each_proof_gets_its_reason) {
    cb_dpop *d = NULL;
    int32_t reason = 0;
    cr_assert_eq(cb_dpop_new(&d, NULL), CB_OK);
    verify(d, PHEAD, PCLAIMS("0", "GET", U, "1699999900", ATH), 1699999900, &reason); /* begins to remember */
    for (size_t i = 0; i < sizeof proofs / sizeof *proofs; i++) {
        int rc = verify(d, proofs[i].header, proofs[i].claims, NOW, &reason);
        cr_expect_eq(rc, proofs[i].reason ? CB_EAUTH : CB_OK, "%s", proofs[i].name);
        cr_expect_eq(reason, proofs[i].reason, "%s: %s (%s)", proofs[i].name, cb_jwt_reason_text(reason),
                     cb_last_error());
    }
    cb_dpop_unref(d);
}

Test(dpop, nonces_and_limits) {
    cb_dpop *d = NULL;
    char nonce[CB_DPOP_NONCE_BYTES], claims[512];
    int32_t reason = 0;
    cr_assert_eq(cb_dpop_new(&d, CB_OPTS(cb_dpop_opts, .need_nonce = 1, .max_proofs = 3, .nonce_s = 100)), CB_OK);
    cb_dpop_nonce(d, NOW, nonce);
    for (int i = 0; i < 5; i++) {
        snprintf(claims, sizeof claims, PCLAIMS("%d", "GET", U, "1700000000", ATH ",\"nonce\":\"%s\""), i, nonce);
        verify(d, PHEAD, claims, NOW, &reason);
        cr_expect_eq(reason, i < 3 ? CB_JWT_GOOD : CB_JWT_DPOP_FULL, "%d: %s", i, cb_jwt_reason_text(reason));
    }
    snprintf(claims, sizeof claims, PCLAIMS("9", "GET", U, "1700000250", ATH ",\"nonce\":\"%s\""), nonce);
    verify(d, PHEAD, claims, NOW + 250, &reason);
    cr_expect_eq(reason, CB_JWT_DPOP_NONCE);
    cb_dpop_nonce(d, NOW + 250, nonce);
    snprintf(claims, sizeof claims, PCLAIMS("9", "GET", U, "1700000250", ATH ",\"nonce\":\"%s\""), nonce);
    cr_expect_eq(verify(d, PHEAD, claims, NOW + 250, &reason), CB_OK, "%s", cb_last_error());
    cb_dpop_unref(d);
}

Test(dpop, bound_tokens) {
    cb_jwt_signer *s = signer(ED_JWK, NULL, 0);
    cb_jwks *set = set_of(cb_jwt_signer_jwk(s));
    const uint8_t cert[32] = {1, 2, 3}, wrong[32] = {4};
    char print[44], cnf[128];
    cb_base64url_encode(print, cert, 32);
    snprintf(cnf, sizeof cnf, "{\"x5t#S256\":\"%s\",\"jkt\":\"abc\"}", print);
    const cb_jwt_field claims[] = {
        {.name = "iss", .text = "me"}, {.name = "exp", .number = NOW + 9}, {.name = "cnf", .json = cnf}};
    const struct {
        const uint8_t *cert;
        const char *jkt;
        int rc;
    } rows[] = {{cert, "abc", CB_OK},
                {wrong, "abc", CB_EAUTH},
                {cert, "abd", CB_EAUTH},
                {NULL, "abc", CB_EAUTH},
                {cert, NULL, CB_EAUTH}};
    char *token = NULL;
    cr_assert_eq(cb_jwt_sign(&token, s, NULL, 0, claims, 3), CB_OK);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cb_jwt *t = NULL;
        const cb_jwt_facts f = {.size = sizeof f, .now_s = NOW, .cert_sha256 = rows[i].cert, .jkt = rows[i].jkt};
        cr_expect_eq(cb_jwt_verify(&t, cb_slice_str(token), set, &open_rules, &f, NULL), rows[i].rc, "%zu", i);
        cb_jwt_unref(t);
    }
    cb_jwt_text_free(token);
    cb_jwks_unref(set);
    cb_jwt_signer_unref(s);
}

/* ---- threads: one cache, one memory of proofs and one list of revocations for all ---- */

typedef struct shared {
    cb_jwt_cache *cache;
    cb_dpop *dpop;
    cb_revocations *gone;
    cb_jwks *set;
    char *tokens[8], *proofs[8];
    _Atomic int taken;
} shared;

static void *work(void *user) {
    shared *s = user;
    const cb_jwt_rules r = {.size = sizeof r, .issuer = "me", .any_audience = 1, .revocations = s->gone};
    for (int i = 0; i < 64; i++) {
        char jkt[CB_DPOP_JKT_BYTES], jti[16];
        cb_jwt *t = NULL;
        if (cb_jwt_cache_verify(s->cache, &t, cb_slice_str(s->tokens[i % 8]), s->set, &r, &facts, NULL) == CB_OK)
            cb_jwt_unref(t);
        snprintf(jti, sizeof jti, "other-%d", i);
        cb_revocations_add(s->gone, CB_OPTS(cb_revocation, .issuer = "me", .jti = jti, .until_s = NOW + 9), NOW);
        if (i % 8 == 7) cb_jwt_cache_flush(s->cache);
        if (i < 8 && cb_dpop_verify(s->dpop,
                                    CB_OPTS(cb_dpop_request, .proof = cb_slice_str(s->proofs[i]), .method = "GET",
                                            .url = U, .now_s = NOW),
                                    jkt, NULL) == CB_OK)
            s->taken++;
    }
    return NULL;
}

Test(jwt_use, shared_by_threads) {
    shared s = {0};
    pthread_t threads[4];
    char nonce[CB_DPOP_NONCE_BYTES], claims[512];
    cb_jwt_signer *key = signer(ED_JWK, NULL, 0);
    s.set = set_of(cb_jwt_signer_jwk(key));
    cr_assert_eq(cb_jwt_cache_new(&s.cache, NULL), CB_OK);
    cr_assert_eq(cb_dpop_new(&s.dpop, NULL), CB_OK);
    cr_assert_eq(cb_revocations_new(&s.gone, 0), CB_OK);
    cb_dpop_nonce(s.dpop, NOW, nonce);
    for (int i = 0; i < 8; i++) {
        char more[8];
        snprintf(more, sizeof more, "%d", i);
        s.tokens[i] = make(key, more);
        snprintf(claims, sizeof claims, PCLAIMS("%d", "GET", U, "1700000000", ",\"nonce\":\"%s\""), i, nonce);
        s.proofs[i] = sign_proof(PHEAD, claims);
    }
    for (int i = 0; i < 4; i++)
        cr_assert_eq(pthread_create(threads + i, NULL, work, &s), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    cr_expect_eq(s.taken, 8, "each proof once, whichever thread sees it: %d", s.taken);
    for (int i = 0; i < 8; i++) {
        cb_jwt_text_free(s.tokens[i]);
        free(s.proofs[i]);
    }
    cb_revocations_unref(s.gone);
    cb_dpop_unref(s.dpop);
    cb_jwt_cache_unref(s.cache);
    cb_jwks_unref(s.set);
    cb_jwt_signer_unref(key);
}
