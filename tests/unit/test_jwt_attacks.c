/* Tokens that must be refused, each with its exact reason. */
#include "auth/base64url.h"
#include "auth/jwk.h"
#include "support/jwt_keys.h"
#include <cb/auth.h>
#include <criterion/criterion.h>
#include <gnutls/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NOW            1700000000
#define GOOD           "{\"iss\":\"https://issuer.example\",\"aud\":\"edge\",\"sub\":\"joe\",\"exp\":1700000300}"
#define CLAIMS(more)   "{\"iss\":\"https://issuer.example\",\"aud\":\"edge\",\"exp\":1700000300," more "}"
#define HEAD(alg, kid) "{\"alg\":\"" alg "\",\"kid\":\"" kid "\",\"typ\":\"at+jwt\"}"
#define HEAD_AND(more) "{\"alg\":\"ES256\",\"kid\":\"ec\",\"typ\":\"at+jwt\"," more "}"
#define DEEP10         "[[[[[[[[[["
#define UP10           "]]]]]]]]]]"
#define A64            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

enum { KEY_RSA, KEY_EC, KEY_ED, KEY_HS, KEY_PS, KEY_ES_SECRET /* HS256 with text of the public key */, KEYS };

typedef struct row {
    const char *name, *header, *claims;
    int key;                     /* that signs */
    void (*mangle)(char *token); /* afterwards */
    int reason;
} row;

static cb_jwk keys[KEYS];

static void read_key(int at, const char *text, int alg) {
    static cb_json_node nodes[64];
    char copy[4096];
    cb_json j;
    snprintf(copy, sizeof copy, "%s", text);
    cr_assert_eq(cb_json_read(&j, copy, strlen(copy), nodes, 64), 0);
    cr_assert_eq(cb_jwk_read(keys + at, &j, nodes, CB_JWK_SIGN, alg), CB_OK, "%s", cb_last_error());
}

static void open_keys(void) {
    const char *rsa = "{\"kty\":\"RSA\",\"n\":\"" RSA_N "\",\"e\":\"AQAB\"," RSA_PRIVATE_PART "}";
    read_key(KEY_RSA, rsa, CB_JWT_RS256);
    read_key(KEY_PS, rsa, CB_JWT_PS256);
    read_key(KEY_EC, "{\"kty\":\"EC\",\"crv\":\"P-256\"," EC_XY "," EC_D "}", 0);
    read_key(KEY_ED, "{\"kty\":\"OKP\",\"crv\":\"Ed25519\"," ED_X "," ED_D "}", 0);
    cr_assert_eq(cb_jwk_from_secret(keys + KEY_HS, cb_slice_str(HS_SECRET), CB_JWT_HS256), CB_OK, "%s",
                 cb_last_error());
    /* What an attacker does: our own interface refuses such a secret. */
    keys[KEY_ES_SECRET] = (cb_jwk){.jwa = cb_jwa_get(CB_JWT_HS256), .secret = (uint8_t *)strdup(RSA_PUBLIC_PEM)};
    keys[KEY_ES_SECRET].secret_len = strlen(RSA_PUBLIC_PEM);
}

static void close_keys(void) {
    free(keys[KEY_ES_SECRET].secret);
    keys[KEY_ES_SECRET] = (cb_jwk){0};
    for (int i = 0; i < KEYS; i++)
        cb_jwk_clear(keys + i);
}

TestSuite(jwt_attacks, .init = open_keys, .fini = close_keys);

static char *sign_raw(const char *header, size_t header_len, const char *claims, size_t claims_len, const cb_jwk *key) {
    uint8_t sig[CB_JWK_SIG_BYTES];
    char *token = malloc(2 * (header_len + claims_len) + 4096);
    size_t n = cb_base64url_encode(token, header, header_len);
    token[n++] = '.';
    n += cb_base64url_encode(token + n, claims, claims_len);
    int64_t len = cb_jwk_sign(key, (cb_slice){(uint8_t *)token, n}, sig);
    cr_assert_gt(len, 0, "%s", cb_last_error());
    token[n++] = '.';
    cb_base64url_encode(token + n, sig, (size_t)len);
    return token;
}

static cb_jwks *open_set(void) {
    static const char set[] =
        "{\"keys\":[{\"kty\":\"RSA\",\"kid\":\"rsa\",\"alg\":\"RS256\",\"use\":\"sig\",\"n\":\"" RSA_N
        "\",\"e\":\"AQAB\"},"
        "{\"kty\":\"RSA\",\"kid\":\"ps\",\"alg\":\"PS256\",\"n\":\"" RSA_N "\",\"e\":\"AQAB\"},"
        "{\"kty\":\"EC\",\"kid\":\"ec\",\"crv\":\"P-256\"," EC_XY "},"
        "{\"kty\":\"OKP\",\"kid\":\"ed\",\"crv\":\"Ed25519\"," ED_X "}]}";
    cb_jwk_opts hs = {.size = sizeof hs, .secret = cb_slice_str(HS_SECRET), .kid = "hs", .alg = CB_JWT_HS256};
    const cb_jwk_opts *one = &hs;
    cb_jwks *out = NULL;
    cr_assert_eq(cb_jwks_new(&out, CB_OPTS(cb_jwks_opts, .json = cb_slice_str(set), .keys = &one, .keys_len = 1)),
                 CB_OK, "%s", cb_last_error());
    cr_assert_eq(cb_jwks_len(out), 5, "%s", cb_jwks_note(out, 0));
    return out;
}

static const char *const audiences[] = {"edge"};
static const cb_jwt_rules rules = {.size = sizeof rules,
                                   .issuer = "https://issuer.example",
                                   .audiences = audiences,
                                   .audiences_len = 1,
                                   .typ = "at+jwt"};
static const cb_jwt_facts facts = {.size = sizeof facts, .now_s = NOW};

/* ---- what is done to a signed token ---- */

static char *last_part(char *t) {
    return strrchr(t, '.') + 1;
}

static void set_sig(char *t, const uint8_t *sig, size_t n) {
    cb_base64url_encode(last_part(t), sig, n);
}

static void no_sig(char *t) {
    *last_part(t) = '\0';
}

static void flip_sig(char *t) {
    char *p = last_part(t) + 10;
    *p = *p == 'A' ? 'B' : 'A';
}

static void flip_claims(char *t) {
    char *p = strchr(t, '.') + 20;
    *p = *p == 'A' ? 'B' : 'A';
}

static void pad(char *t) {
    strcat(t, "==");
}

static void space_end(char *t) {
    strcat(t, " ");
}

static void newline_end(char *t) {
    strcat(t, "\n");
}

static void space_front(char *t) {
    memmove(t + 1, t, strlen(t) + 1);
    *t = ' ';
}

static void space_claims(char *t) {
    char *p = strchr(t, '.') + 1;
    memmove(p + 1, p, strlen(p) + 1);
    *p = ' ';
}

static void standard_alphabet(char *t) {
    *(last_part(t) + 5) = '+';
}

static void slash_alphabet(char *t) {
    *(last_part(t) + 5) = '/';
}

/* 64 bytes end in a character of which four bits are unused. */
static void unused_bits(char *t) {
    static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    char *p = t + strlen(t) - 1;
    *p = alphabet[(strchr(alphabet, *p) - alphabet) | 1];
}

static void lone_character(char *t) {
    *(last_part(t) + 85) = '\0';
}

static void bad_header_char(char *t) {
    t[2] = '!';
}

static void two_parts(char *t) {
    *(last_part(t) - 1) = '\0';
}

static void four_parts(char *t) {
    strcat(t, ".AAAA");
}

static void five_parts(char *t) {
    strcat(t, ".AAAA.AAAA");
}

static void many_parts(char *t) {
    strcat(t, ".....");
}

static void empty(char *t) {
    *t = '\0';
}

static void dots_only(char *t) {
    strcpy(t, "..");
}

static void zero_rs(char *t) {
    set_sig(t, (uint8_t[64]){0}, 64);
}

static void zero_r(char *t) {
    uint8_t sig[66];
    cb_base64url_decode(sig, last_part(t), strlen(last_part(t)));
    memset(sig, 0, 32);
    set_sig(t, sig, 64);
}

static void s_of_order(char *t) {
    uint8_t sig[66];
    cb_base64url_decode(sig, last_part(t), strlen(last_part(t)));
    memcpy(sig + 32, cb_jwa_get(CB_JWT_ES256)->order, 32);
    set_sig(t, sig, 64);
}

static void all_ones(char *t) {
    uint8_t sig[64];
    memset(sig, 0xff, sizeof sig);
    set_sig(t, sig, 64);
}

static void short_sig(char *t) {
    uint8_t sig[66];
    cb_base64url_decode(sig, last_part(t), strlen(last_part(t)));
    set_sig(t, sig, 63);
}

static void long_sig(char *t) {
    uint8_t sig[68] = {0};
    cb_base64url_decode(sig, last_part(t), strlen(last_part(t)));
    set_sig(t, sig, 66);
}

static void der_sig(char *t) {
    uint8_t sig[66];
    gnutls_datum_t der = {0}, r = {.data = sig, .size = 32}, s = {.data = sig + 32, .size = 32};
    cb_base64url_decode(sig, last_part(t), strlen(last_part(t)));
    cr_assert_eq(gnutls_encode_rs_value(&der, &r, &s), 0);
    set_sig(t, der.data, der.size);
    gnutls_free(der.data);
}

/* S + L, which lax verifiers take for the same signature. */
static void ed_plus_order(char *t) {
    static const uint8_t order[32] = {0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58,       0xd6,
                                      0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, [31] = 0x10};
    uint8_t sig[66];
    unsigned carry = 0;
    cb_base64url_decode(sig, last_part(t), strlen(last_part(t)));
    for (size_t i = 0; i < 32; i++) {
        carry += (unsigned)sig[32 + i] + order[i];
        sig[32 + i] = (uint8_t)carry;
        carry >>= 8;
    }
    set_sig(t, sig, 64);
}

static void rsa_short(char *t) {
    uint8_t sig[260] = {0};
    set_sig(t, sig, 255);
}

static void rsa_zero(char *t) {
    uint8_t sig[256] = {0};
    set_sig(t, sig, 256);
}

static void huge_sig(char *t) {
    char *p = last_part(t);
    memset(p, 'A', 2000);
    p[2000] = '\0';
}

static const row rows[] = {
    /* the algorithm */
    {"none", "{\"alg\":\"none\",\"typ\":\"at+jwt\"}", GOOD, KEY_EC, no_sig, CB_JWT_ALG},
    {"NONE", "{\"alg\":\"NONE\",\"typ\":\"at+jwt\"}", GOOD, KEY_EC, no_sig, CB_JWT_ALG},
    {"nOnE", "{\"alg\":\"nOnE\",\"typ\":\"at+jwt\"}", GOOD, KEY_EC, no_sig, CB_JWT_ALG},
    {"none with a signature", "{\"alg\":\"none\",\"kid\":\"ec\"}", GOOD, KEY_EC, NULL, CB_JWT_ALG},
    {"no alg", "{\"kid\":\"ec\",\"typ\":\"at+jwt\"}", GOOD, KEY_EC, NULL, CB_JWT_ALG},
    {"empty alg", HEAD("", "ec"), GOOD, KEY_EC, NULL, CB_JWT_ALG},
    {"alg in small letters", HEAD("es256", "ec"), GOOD, KEY_EC, NULL, CB_JWT_ALG},
    {"alg with a space", HEAD("ES256 ", "ec"), GOOD, KEY_EC, NULL, CB_JWT_ALG},
    {"alg a number", "{\"alg\":256,\"kid\":\"ec\"}", GOOD, KEY_EC, NULL, CB_JWT_HEADER},
    {"alg a list", "{\"alg\":[\"ES256\"],\"kid\":\"ec\"}", GOOD, KEY_EC, NULL, CB_JWT_HEADER},
    {"alg null", "{\"alg\":null,\"kid\":\"ec\"}", GOOD, KEY_EC, NULL, CB_JWT_HEADER},
    {"unknown alg ES256K", HEAD("ES256K", "ec"), GOOD, KEY_EC, NULL, CB_JWT_ALG},
    {"an algorithm of encryption", HEAD("RSA-OAEP", "rsa"), GOOD, KEY_RSA, NULL, CB_JWT_ALG},
    {"confusion: HS256 with the public key as secret", HEAD("HS256", "rsa"), GOOD, KEY_ES_SECRET, NULL, CB_JWT_KEY_ALG},
    {"confusion without kid", "{\"alg\":\"HS256\",\"typ\":\"at+jwt\"}", GOOD, KEY_ES_SECRET, NULL, CB_JWT_SIGNATURE},
    {"confusion with the secret's kid", HEAD("HS256", "hs"), GOOD, KEY_ES_SECRET, NULL, CB_JWT_SIGNATURE},
    {"PS256 with a key of RS256", HEAD("PS256", "rsa"), GOOD, KEY_PS, NULL, CB_JWT_KEY_ALG},
    {"RS256 with a key of PS256", HEAD("RS256", "ps"), GOOD, KEY_RSA, NULL, CB_JWT_KEY_ALG},
    {"PS256 says a signature of RS256", HEAD("PS256", "ps"), GOOD, KEY_RSA, NULL, CB_JWT_SIGNATURE},
    {"RS512 with a key of RS256", HEAD("RS512", "rsa"), GOOD, KEY_RSA, NULL, CB_JWT_KEY_ALG},
    {"ES384 with a key on P-256", HEAD("ES384", "ec"), GOOD, KEY_EC, NULL, CB_JWT_KEY_ALG},
    {"EdDSA with a key on P-256", HEAD("EdDSA", "ec"), GOOD, KEY_ED, NULL, CB_JWT_KEY_ALG},
    {"ES256 with a key of Ed25519", HEAD("ES256", "ed"), GOOD, KEY_EC, NULL, CB_JWT_KEY_ALG},
    {"Ed448", HEAD("Ed448", "ed"), GOOD, KEY_ED, NULL, CB_JWT_ALG},
    /* kid */
    {"kid unknown", HEAD("ES256", "other"), GOOD, KEY_EC, NULL, CB_JWT_UNKNOWN_KEY},
    {"kid a path", HEAD("ES256", "../../../../dev/null"), GOOD, KEY_EC, NULL, CB_JWT_UNKNOWN_KEY},
    {"kid SQL", HEAD("ES256", "x' UNION SELECT 'a'--"), GOOD, KEY_EC, NULL, CB_JWT_UNKNOWN_KEY},
    {"kid a command", HEAD("ES256", "ec|sleep 9"), GOOD, KEY_EC, NULL, CB_JWT_UNKNOWN_KEY},
    {"kid with NUL", HEAD("ES256", "ec\\u0000x"), GOOD, KEY_EC, NULL, CB_JWT_JSON},
    {"kid too long", HEAD("ES256", A64 A64 A64 A64 "a"), GOOD, KEY_EC, NULL, CB_JWT_KID},
    {"kid empty", HEAD("ES256", ""), GOOD, KEY_EC, NULL, CB_JWT_KID},
    {"kid an object", "{\"alg\":\"ES256\",\"kid\":{}}", GOOD, KEY_EC, NULL, CB_JWT_HEADER},
    {"kid of another key", HEAD("ES256", "hs"), GOOD, KEY_EC, NULL, CB_JWT_KEY_ALG},
    /* keys in the header are not looked at */
    {"jwk of the attacker", "{\"alg\":\"HS256\",\"jwk\":{\"kty\":\"oct\",\"k\":\"AAAA\"},\"typ\":\"at+jwt\"}", GOOD,
     KEY_ES_SECRET, NULL, CB_JWT_SIGNATURE},
    {"jku", "{\"alg\":\"HS256\",\"jku\":\"https://evil.example/jwks\",\"kid\":\"evil\"}", GOOD, KEY_ES_SECRET, NULL,
     CB_JWT_UNKNOWN_KEY},
    {"x5u", "{\"alg\":\"HS256\",\"x5u\":\"https://evil.example/c\",\"kid\":\"evil\"}", GOOD, KEY_ES_SECRET, NULL,
     CB_JWT_UNKNOWN_KEY},
    {"x5c", "{\"alg\":\"HS256\",\"x5c\":[\"MIIB\"],\"kid\":\"hs\"}", GOOD, KEY_ES_SECRET, NULL, CB_JWT_SIGNATURE},
    /* extensions */
    {"crit", HEAD_AND("\"crit\":[\"exp\"],\"exp\":1"), GOOD, KEY_EC, NULL, CB_JWT_CRIT},
    {"crit empty", HEAD_AND("\"crit\":[]"), GOOD, KEY_EC, NULL, CB_JWT_CRIT},
    {"crit no list", HEAD_AND("\"crit\":\"b64\""), GOOD, KEY_EC, NULL, CB_JWT_CRIT},
    {"crit b64", HEAD_AND("\"crit\":[\"b64\"],\"b64\":false"), GOOD, KEY_EC, NULL, CB_JWT_CRIT},
    {"b64 false", HEAD_AND("\"b64\":false"), GOOD, KEY_EC, NULL, CB_JWT_UNENCODED},
    {"zip has no meaning here, typ wrong", "{\"alg\":\"ES256\",\"kid\":\"ec\",\"zip\":\"DEF\"}", GOOD, KEY_EC, NULL,
     CB_JWT_TYPE},
    /* form */
    {"empty", HEAD("ES256", "ec"), GOOD, KEY_EC, empty, CB_JWT_SIZE},
    {"dots only", HEAD("ES256", "ec"), GOOD, KEY_EC, dots_only, CB_JWT_JSON},
    {"two parts", HEAD("ES256", "ec"), GOOD, KEY_EC, two_parts, CB_JWT_FORMAT},
    {"four parts", HEAD("ES256", "ec"), GOOD, KEY_EC, four_parts, CB_JWT_FORMAT},
    {"JWE", HEAD("ES256", "ec"), GOOD, KEY_EC, five_parts, CB_JWT_ENCRYPTED},
    {"many parts", HEAD("ES256", "ec"), GOOD, KEY_EC, many_parts, CB_JWT_FORMAT},
    {"padding", HEAD("ES256", "ec"), GOOD, KEY_EC, pad, CB_JWT_BASE64},
    {"a space behind", HEAD("ES256", "ec"), GOOD, KEY_EC, space_end, CB_JWT_BASE64},
    {"a newline behind", HEAD("ES256", "ec"), GOOD, KEY_EC, newline_end, CB_JWT_BASE64},
    {"a space in front", HEAD("ES256", "ec"), GOOD, KEY_EC, space_front, CB_JWT_BASE64},
    {"a space in the claims", HEAD("ES256", "ec"), GOOD, KEY_EC, space_claims, CB_JWT_SIGNATURE},
    {"plus for minus", HEAD("ES256", "ec"), GOOD, KEY_EC, standard_alphabet, CB_JWT_BASE64},
    {"slash for underscore", HEAD("ES256", "ec"), GOOD, KEY_EC, slash_alphabet, CB_JWT_BASE64},
    {"unused bits set", HEAD("ES256", "ec"), GOOD, KEY_EC, unused_bits, CB_JWT_BASE64},
    {"a lone character", HEAD("ES256", "ec"), GOOD, KEY_EC, lone_character, CB_JWT_BASE64},
    {"a header of other characters", HEAD("ES256", "ec"), GOOD, KEY_EC, bad_header_char, CB_JWT_BASE64},
    /* signatures */
    {"no signature", HEAD("ES256", "ec"), GOOD, KEY_EC, no_sig, CB_JWT_SIG_FORM},
    {"no signature, HS256", HEAD("HS256", "hs"), GOOD, KEY_HS, no_sig, CB_JWT_SIG_FORM},
    {"no signature, RS256", HEAD("RS256", "rsa"), GOOD, KEY_RSA, no_sig, CB_JWT_SIG_FORM},
    {"a bit of the signature", HEAD("ES256", "ec"), GOOD, KEY_EC, flip_sig, CB_JWT_SIGNATURE},
    {"a bit of the claims", HEAD("RS256", "rsa"), GOOD, KEY_RSA, flip_claims, CB_JWT_SIGNATURE},
    {"psychic: r and s zero", HEAD("ES256", "ec"), GOOD, KEY_EC, zero_rs, CB_JWT_SIG_FORM},
    {"r zero", HEAD("ES256", "ec"), GOOD, KEY_EC, zero_r, CB_JWT_SIG_FORM},
    {"s is the order", HEAD("ES256", "ec"), GOOD, KEY_EC, s_of_order, CB_JWT_SIG_FORM},
    {"r and s all ones", HEAD("ES256", "ec"), GOOD, KEY_EC, all_ones, CB_JWT_SIG_FORM},
    {"a byte short", HEAD("ES256", "ec"), GOOD, KEY_EC, short_sig, CB_JWT_SIG_FORM},
    {"two bytes long", HEAD("ES256", "ec"), GOOD, KEY_EC, long_sig, CB_JWT_SIG_FORM},
    {"DER", HEAD("ES256", "ec"), GOOD, KEY_EC, der_sig, CB_JWT_SIG_FORM},
    {"Ed25519, S + L", HEAD("EdDSA", "ed"), GOOD, KEY_ED, ed_plus_order, CB_JWT_SIG_FORM},
    {"Ed25519, all zero", HEAD("EdDSA", "ed"), GOOD, KEY_ED, zero_rs, CB_JWT_SIGNATURE},
    {"Ed25519, a byte short", HEAD("Ed25519", "ed"), GOOD, KEY_ED, short_sig, CB_JWT_SIG_FORM},
    {"RSA, a byte short", HEAD("RS256", "rsa"), GOOD, KEY_RSA, rsa_short, CB_JWT_SIG_FORM},
    {"RSA, zero", HEAD("RS256", "rsa"), GOOD, KEY_RSA, rsa_zero, CB_JWT_SIGNATURE},
    {"a huge signature", HEAD("RS256", "rsa"), GOOD, KEY_RSA, huge_sig, CB_JWT_SIG_FORM},
    {"signed by another key", HEAD("ES256", "ec"), GOOD, KEY_ED, NULL, CB_JWT_SIGNATURE},
    /* JSON */
    {"header no JSON", "alg=ES256", GOOD, KEY_EC, NULL, CB_JWT_JSON},
    {"header a list", "[\"ES256\"]", GOOD, KEY_EC, NULL, CB_JWT_JSON},
    {"header cut", "{\"alg\":\"ES256\"", GOOD, KEY_EC, NULL, CB_JWT_JSON},
    {"header twice", HEAD("ES256", "ec") "{}", GOOD, KEY_EC, NULL, CB_JWT_JSON},
    {"alg twice", "{\"alg\":\"none\",\"alg\":\"ES256\",\"kid\":\"ec\"}", GOOD, KEY_EC, NULL, CB_JWT_DUPLICATE},
    {"alg twice by an escape", "{\"alg\":\"ES256\",\"al\\u0067\":\"none\",\"kid\":\"ec\"}", GOOD, KEY_EC, NULL,
     CB_JWT_DUPLICATE},
    {"a comment", "{/**/\"alg\":\"ES256\"}", GOOD, KEY_EC, NULL, CB_JWT_JSON},
    {"single quotes", "{'alg':'ES256'}", GOOD, KEY_EC, NULL, CB_JWT_JSON},
    {"a comma too many", "{\"alg\":\"ES256\",}", GOOD, KEY_EC, NULL, CB_JWT_JSON},
    {"a byte order mark", "\xef\xbb\xbf" HEAD("ES256", "ec"), GOOD, KEY_EC, NULL, CB_JWT_JSON},
    {"header nested", HEAD_AND("\"x\":" DEEP10 DEEP10 UP10 UP10), GOOD, KEY_EC, NULL, CB_JWT_JSON},
    {"claims nested", HEAD("ES256", "ec"), CLAIMS("\"x\":" DEEP10 DEEP10 UP10 UP10), KEY_EC, NULL, CB_JWT_JSON},
    {"exp twice", HEAD("ES256", "ec"), CLAIMS("\"exp\":9999999999"), KEY_EC, NULL, CB_JWT_DUPLICATE},
    {"a member twice, deep", HEAD("ES256", "ec"), CLAIMS("\"x\":{\"a\":1,\"a\":2}"), KEY_EC, NULL, CB_JWT_DUPLICATE},
    {"aud twice by an escape", HEAD("ES256", "ec"), CLAIMS("\"\\u0061ud\":\"other\""), KEY_EC, NULL, CB_JWT_DUPLICATE},
    {"UTF-8 broken", HEAD("ES256", "ec"), CLAIMS("\"sub\":\"\xc3\x28\""), KEY_EC, NULL, CB_JWT_JSON},
    {"UTF-8 overlong", HEAD("ES256", "ec"), CLAIMS("\"sub\":\"\xc0\xaf\""), KEY_EC, NULL, CB_JWT_JSON},
    {"half a surrogate", HEAD("ES256", "ec"), CLAIMS("\"sub\":\"\\ud800\""), KEY_EC, NULL, CB_JWT_JSON},
    {"NUL by an escape", HEAD("ES256", "ec"), CLAIMS("\"sub\":\"admin\\u0000\""), KEY_EC, NULL, CB_JWT_JSON},
    {"text behind the claims", HEAD("ES256", "ec"), GOOD "{}", KEY_EC, NULL, CB_JWT_JSON},
    {"claims a list", HEAD("ES256", "ec"), "[]", KEY_EC, NULL, CB_JWT_JSON},
    {"claims empty", HEAD("ES256", "ec"), "", KEY_EC, NULL, CB_JWT_JSON},
    {"a number too long", HEAD("ES256", "ec"),
     CLAIMS("\"x\":"
            "1111111111111111111111111111111111111111111111111111111111111"),
     KEY_EC, NULL, CB_JWT_JSON},
    /* claims */
    {"typ of an ID token", "{\"alg\":\"ES256\",\"kid\":\"ec\",\"typ\":\"JWT\"}", GOOD, KEY_EC, NULL, CB_JWT_TYPE},
    {"no typ", "{\"alg\":\"ES256\",\"kid\":\"ec\"}", GOOD, KEY_EC, NULL, CB_JWT_TYPE},
    {"another issuer", HEAD("ES256", "ec"), "{\"iss\":\"https://evil.example\",\"aud\":\"edge\",\"exp\":1700000300}",
     KEY_EC, NULL, CB_JWT_ISSUER},
    {"issuer and a slash", HEAD("ES256", "ec"),
     "{\"iss\":\"https://issuer.example/\",\"aud\":\"edge\",\"exp\":1700000300}", KEY_EC, NULL, CB_JWT_ISSUER},
    {"no issuer", HEAD("ES256", "ec"), "{\"aud\":\"edge\",\"exp\":1700000300}", KEY_EC, NULL, CB_JWT_ISSUER},
    {"issuer a list", HEAD("ES256", "ec"), "{\"iss\":[\"https://issuer.example\"],\"aud\":\"edge\",\"exp\":1700000300}",
     KEY_EC, NULL, CB_JWT_CLAIM},
    {"another audience", HEAD("ES256", "ec"),
     "{\"iss\":\"https://issuer.example\",\"aud\":\"edges\",\"exp\":1700000300}", KEY_EC, NULL, CB_JWT_AUDIENCE},
    {"audience in capitals", HEAD("ES256", "ec"),
     "{\"iss\":\"https://issuer.example\",\"aud\":[\"EDGE\"],\"exp\":1700000300}", KEY_EC, NULL, CB_JWT_AUDIENCE},
    {"audience empty", HEAD("ES256", "ec"), "{\"iss\":\"https://issuer.example\",\"aud\":[],\"exp\":1700000300}",
     KEY_EC, NULL, CB_JWT_AUDIENCE},
    {"audience an object", HEAD("ES256", "ec"),
     "{\"iss\":\"https://issuer.example\",\"aud\":{\"edge\":1},\"exp\":1700000300}", KEY_EC, NULL, CB_JWT_CLAIM},
    {"audience with a number", HEAD("ES256", "ec"),
     "{\"iss\":\"https://issuer.example\",\"aud\":[\"edge\",1],\"exp\":1700000300}", KEY_EC, NULL, CB_JWT_CLAIM},
    {"no exp", HEAD("ES256", "ec"), "{\"iss\":\"https://issuer.example\",\"aud\":\"edge\"}", KEY_EC, NULL,
     CB_JWT_NO_EXPIRY},
    {"EXP for exp", HEAD("ES256", "ec"), "{\"iss\":\"https://issuer.example\",\"aud\":\"edge\",\"EXP\":1700000300}",
     KEY_EC, NULL, CB_JWT_NO_EXPIRY},
    {"expired", HEAD("ES256", "ec"), "{\"iss\":\"https://issuer.example\",\"aud\":\"edge\",\"exp\":1699999970}", KEY_EC,
     NULL, CB_JWT_EXPIRED},
    {"exp a text", HEAD("ES256", "ec"), "{\"iss\":\"https://issuer.example\",\"aud\":\"edge\",\"exp\":\"1700000300\"}",
     KEY_EC, NULL, CB_JWT_CLAIM},
    {"exp huge", HEAD("ES256", "ec"), "{\"iss\":\"https://issuer.example\",\"aud\":\"edge\",\"exp\":1e400}", KEY_EC,
     NULL, CB_JWT_CLAIM},
    {"exp above 2^53", HEAD("ES256", "ec"),
     "{\"iss\":\"https://issuer.example\",\"aud\":\"edge\",\"exp\":9007199254740993}", KEY_EC, NULL, CB_JWT_CLAIM},
    {"exp negative", HEAD("ES256", "ec"), "{\"iss\":\"https://issuer.example\",\"aud\":\"edge\",\"exp\":-1}", KEY_EC,
     NULL, CB_JWT_CLAIM},
    {"exp null", HEAD("ES256", "ec"), "{\"iss\":\"https://issuer.example\",\"aud\":\"edge\",\"exp\":null}", KEY_EC,
     NULL, CB_JWT_CLAIM},
    {"exp true", HEAD("ES256", "ec"), "{\"iss\":\"https://issuer.example\",\"aud\":\"edge\",\"exp\":true}", KEY_EC,
     NULL, CB_JWT_CLAIM},
    {"exp a fraction ago", HEAD("ES256", "ec"),
     "{\"iss\":\"https://issuer.example\",\"aud\":\"edge\",\"exp\":1699999969.5}", KEY_EC, NULL, CB_JWT_EXPIRED},
    {"not yet", HEAD("ES256", "ec"), CLAIMS("\"nbf\":1700000031"), KEY_EC, NULL, CB_JWT_NOT_YET},
    {"issued in the future", HEAD("ES256", "ec"), CLAIMS("\"iat\":1700000031"), KEY_EC, NULL, CB_JWT_NOT_YET},
    {"nbf a text", HEAD("ES256", "ec"), CLAIMS("\"nbf\":\"0\""), KEY_EC, NULL, CB_JWT_CLAIM},
    {"bound to a certificate", HEAD("ES256", "ec"), CLAIMS("\"cnf\":{\"x5t#S256\":\"AAAA\"}"), KEY_EC, NULL,
     CB_JWT_BINDING},
    {"bound to a key", HEAD("ES256", "ec"), CLAIMS("\"cnf\":{\"jkt\":\"AAAA\"}"), KEY_EC, NULL, CB_JWT_BINDING},
    {"bound to something else", HEAD("ES256", "ec"), CLAIMS("\"cnf\":{\"kid\":\"AAAA\"}"), KEY_EC, NULL,
     CB_JWT_BINDING},
    {"cnf a text", HEAD("ES256", "ec"), CLAIMS("\"cnf\":\"AAAA\""), KEY_EC, NULL, CB_JWT_CLAIM},
};

Test(jwt_attacks, each_is_refused_with_its_reason) {
    cb_jwks *set = open_set();
    cb_jwt_cache *cache = NULL;
    cr_assert_eq(cb_jwt_cache_new(&cache, NULL), CB_OK);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const row *r = rows + i;
        char *token = sign_raw(r->header, strlen(r->header), r->claims, strlen(r->claims), keys + r->key);
        if (r->mangle) r->mangle(token);
        for (int cached = 0; cached < 3; cached++) {
            cb_jwt *t = NULL;
            int32_t reason = -1;
            int rc = cached ? cb_jwt_cache_verify(cache, &t, cb_slice_str(token), set, &rules, &facts, &reason)
                            : cb_jwt_verify(&t, cb_slice_str(token), set, &rules, &facts, &reason);
            cr_expect_eq(rc, CB_EAUTH, "%s: %d", r->name, rc);
            cr_expect_eq(reason, r->reason, "%s: %s (%s), not %s", r->name, cb_jwt_reason_text(reason), cb_last_error(),
                         cb_jwt_reason_text(r->reason));
            cr_expect_null(t);
        }
        free(token);
    }
    cb_jwt_cache_unref(cache);
    cb_jwks_unref(set);
}

/* The same forms without a fault: so the reasons above come from the fault alone. */
Test(jwt_attacks, the_good_ones_pass) {
    static const struct {
        const char *header, *claims;
        int key;
    } good[] = {{HEAD("ES256", "ec"), GOOD, KEY_EC},
                {HEAD("RS256", "rsa"), GOOD, KEY_RSA},
                {HEAD("PS256", "ps"), GOOD, KEY_PS},
                {HEAD("EdDSA", "ed"), GOOD, KEY_ED},
                {HEAD("Ed25519", "ed"), GOOD, KEY_ED},
                {HEAD("HS256", "hs"), GOOD, KEY_HS},
                {"{\"alg\":\"ES256\",\"typ\":\"application/AT+JWT\"}", GOOD, KEY_EC},
                {HEAD_AND("\"jku\":\"https://evil.example\""), GOOD, KEY_EC},
                {HEAD("ES256", "ec"), CLAIMS("\"nbf\":1700000030,\"iat\":1.70000003e9"), KEY_EC},
                {HEAD("ES256", "ec"),
                 "{\"iss\":\"https://issuer.example\",\"aud\":[\"a\",\"edge\"],\"exp\":1699999970.5}", KEY_EC}};
    cb_jwks *set = open_set();
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        cb_jwt *t = NULL;
        int32_t reason = -1;
        char *token = sign_raw(good[i].header, strlen(good[i].header), good[i].claims, strlen(good[i].claims),
                               keys + good[i].key);
        cr_expect_eq(cb_jwt_verify(&t, cb_slice_str(token), set, &rules, &facts, &reason), CB_OK, "%zu: %s", i,
                     cb_last_error());
        cr_expect_eq(reason, CB_JWT_GOOD);
        cb_jwt_unref(t);
        free(token);
    }
    cb_jwks_unref(set);
}

Test(jwt_attacks, raw_nul_and_size) {
    static const char nul[] = "{\"alg\":\"ES256\",\"kid\":\"ec\",\"typ\":\"at+jwt\0\"}";
    static char large[9000];
    cb_jwks *set = open_set();
    cb_jwt *t = NULL;
    int32_t reason = 0;
    char *token = sign_raw(nul, sizeof nul - 1, GOOD, strlen(GOOD), keys + KEY_EC);
    cr_expect_eq(cb_jwt_verify(&t, cb_slice_str(token), set, &rules, &facts, &reason), CB_EAUTH);
    cr_expect_eq(reason, CB_JWT_JSON);
    free(token);
    memset(large, 'A', sizeof large);
    cr_expect_eq(cb_jwt_verify(&t, (cb_slice){(uint8_t *)large, sizeof large}, set, &rules, &facts, &reason), CB_EAUTH);
    cr_expect_eq(reason, CB_JWT_SIZE);
    cb_jwks_unref(set);
}

/* Keys that a set leaves out, each with a note that has these words. */
Test(jwt_attacks, keys_that_are_left_out) {
    static const struct {
        const char *name, *jwk, *note;
    } bad[] = {
        {"RSA of 1024 bits", "{\"kty\":\"RSA\",\"n\":\"" RSA_1024_N "\",\"e\":\"AQAB\"}", "1024 bits"},
        {"e = 1", "{\"kty\":\"RSA\",\"n\":\"" RSA_N "\",\"e\":\"AQ\"}", "exponent"},
        {"e = 3", "{\"kty\":\"RSA\",\"n\":\"" RSA_N "\",\"e\":\"Aw\"}", "exponent"},
        {"e even", "{\"kty\":\"RSA\",\"n\":\"" RSA_N "\",\"e\":\"AQAC\"}", "exponent"},
        {"private part", "{\"kty\":\"EC\",\"crv\":\"P-256\"," EC_XY "," EC_D "}", "private"},
        {"oct", "{\"kty\":\"oct\",\"alg\":\"HS256\",\"k\":\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\"}",
         "not allowed"},
        {"use enc", "{\"kty\":\"EC\",\"use\":\"enc\",\"crv\":\"P-256\"," EC_XY "}", "use"},
        {"key_ops", "{\"kty\":\"EC\",\"key_ops\":[\"sign\"],\"crv\":\"P-256\"," EC_XY "}", "key_ops"},
        {"alg of another curve", "{\"kty\":\"EC\",\"alg\":\"ES384\",\"crv\":\"P-256\"," EC_XY "}", "cannot do"},
        {"alg of encryption", "{\"kty\":\"RSA\",\"alg\":\"RSA-OAEP\",\"n\":\"" RSA_N "\",\"e\":\"AQAB\"}", "alg"},
        {"RSA with alg HS256", "{\"kty\":\"RSA\",\"alg\":\"HS256\",\"n\":\"" RSA_N "\",\"e\":\"AQAB\"}", "cannot do"},
        {"crv secp256k1", "{\"kty\":\"EC\",\"crv\":\"secp256k1\"," EC_XY "}", "crv"},
        {"kty unknown", "{\"kty\":\"AKP\",\"alg\":\"ES256\"}", "kty"},
        {"off the curve",
         "{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU\",\"y\":"
         "\"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU\"}",
         "not on P-256"},
        {"x short", "{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"f83O\",\"y\":\"f83O\"}", "bytes"},
        {"Ed25519 of small order",
         "{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\"}", "small"},
        {"Ed25519 not reduced",
         "{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"7v_______________________________________38\"}", "point"},
        {"kid too long", "{\"kty\":\"EC\",\"kid\":\"" A64 A64 A64 A64 "a\",\"crv\":\"P-256\"," EC_XY "}", "kid"},
        {"no object", "7", "object"},
    };
    char text[8192];
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        cb_jwks *set = NULL;
        snprintf(text, sizeof text, "{\"keys\":[%s,{\"kty\":\"OKP\",\"kid\":\"ed\",\"crv\":\"Ed25519\"," ED_X "}]}",
                 bad[i].jwk);
        cr_assert_eq(cb_jwks_new(&set, CB_OPTS(cb_jwks_opts, .json = cb_slice_str(text))), CB_OK, "%s: %s", bad[i].name,
                     cb_last_error());
        const char *note = cb_jwks_note(set, 0);
        cr_expect_eq(cb_jwks_len(set), 1, "%s", bad[i].name);
        cr_expect(note && strstr(note, bad[i].note), "%s: %s", bad[i].name, note ? note : "(no note)");
        cb_jwks_unref(set);
    }
}

Test(jwt_attacks, secrets_that_are_key_files) {
    static const char *const bad[] = {
        RSA_PUBLIC_PEM, "\n \t" RSA_PUBLIC_PEM, "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABAQ==",
        RSA_PUBLIC,     "x\n" RSA_PUBLIC_PEM,   "short"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        cb_jwk_opts one = {.size = sizeof one, .secret = cb_slice_str(bad[i]), .alg = CB_JWT_HS256};
        const cb_jwk_opts *list = &one;
        cb_jwks *set = NULL;
        cr_expect_eq(cb_jwks_new(&set, CB_OPTS(cb_jwks_opts, .keys = &list, .keys_len = 1)), CB_EINVAL, "%zu", i);
    }
    cb_jwk_opts pem = {.size = sizeof pem, .pem = cb_slice_str(RSA_PUBLIC_PEM), .alg = CB_JWT_HS256};
    const cb_jwk_opts *list = &pem;
    cb_jwks *set = NULL;
    cr_expect_eq(cb_jwks_new(&set, CB_OPTS(cb_jwks_opts, .keys = &list, .keys_len = 1)), CB_EINVAL);
    pem.alg = CB_JWT_RS256;
    cr_expect_eq(cb_jwks_new(&set, CB_OPTS(cb_jwks_opts, .keys = &list, .keys_len = 1)), CB_OK, "%s", cb_last_error());
    cb_jwks_unref(set);
}
