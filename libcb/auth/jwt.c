#include "auth/jwt.h"
#include "auth/base64url.h"
#include "base/error.h"
#include "base/mem.h"
#include <math.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <string.h>

int cb_jwt_refuse(int32_t *reason, int why, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    cb_vfail(CB_EAUTH, fmt, ap);
    va_end(ap);
    if (reason) *reason = why;
    return CB_EAUTH;
}

/* ---- the three parts and the header ---- */

static int cut(cb_jws *s, cb_slice token, size_t max_bytes, int32_t *reason) {
    const uint8_t *dot[5] = {0}, *end = token.base + token.len;
    size_t dots = 0;
    if (!token.len) return cb_jwt_refuse(reason, CB_JWT_SIZE, "the token is empty");
    if (token.len > max_bytes)
        return cb_jwt_refuse(reason, CB_JWT_SIZE, "a token of %zu bytes: at most %zu are taken", token.len, max_bytes);
    for (const uint8_t *p = token.base; dots < 5 && (p = memchr(p, '.', (size_t)(end - p))); p++)
        dot[dots++] = p;
    if (dots == 4) return cb_jwt_refuse(reason, CB_JWT_ENCRYPTED, "an encrypted token (five parts)");
    if (dots != 2) return cb_jwt_refuse(reason, CB_JWT_FORMAT, "a token has three parts");
    s->head = (cb_slice){token.base, (size_t)(dot[0] - token.base)};
    s->payload = (cb_slice){dot[0] + 1, (size_t)(dot[1] - dot[0]) - 1};
    s->sig = (cb_slice){dot[1] + 1, (size_t)(end - dot[1]) - 1};
    s->signed_bytes = (cb_slice){token.base, (size_t)(dot[1] - token.base)};
    return CB_OK;
}

static int read_json(cb_json *j, char *text, size_t len, cb_json_node *nodes, size_t room, int32_t *reason) {
    int fault = cb_json_read(j, text, len, nodes, room);
    if (!fault && nodes->kind == CB_JSON_OBJECT) return CB_OK;
    if (!fault) return cb_jwt_refuse(reason, CB_JWT_JSON, "header and claims must be objects");
    if (reason) *reason = fault == CB_JSON_TWICE ? CB_JWT_DUPLICATE : CB_JWT_JSON;
    return CB_EAUTH; /* with the reader's detail */
}

static int read_text(const cb_jws *s, const char *name, const char **out, int32_t *reason) {
    const cb_json_node *at = cb_json_get(&s->header, s->nodes, name, strlen(name));
    *out = NULL;
    if (!at) return CB_OK;
    if (at->kind != CB_JSON_TEXT)
        return cb_jwt_refuse(reason, CB_JWT_HEADER, "\"%s\" of the header must be a text", name);
    *out = s->header.text + at->at;
    return CB_OK;
}

/* jku, x5u, jwk and x5c are not looked at: keys come from the set only. */
static int read_header(cb_jws *s, int32_t *reason) {
    const char *alg = NULL;
    int rc = read_text(s, "alg", &alg, reason);
    if (rc == CB_OK) rc = read_text(s, "kid", &s->kid, reason);
    if (rc == CB_OK) rc = read_text(s, "typ", &s->typ, reason);
    if (rc < 0) return rc;
    if (cb_json_get(&s->header, s->nodes, "crit", 4))
        return cb_jwt_refuse(reason, CB_JWT_CRIT, "\"crit\" asks for extensions; none is known here");
    if (cb_json_get(&s->header, s->nodes, "b64", 3))
        return cb_jwt_refuse(reason, CB_JWT_UNENCODED, "unencoded payloads (b64) are not taken");
    s->jwa = alg ? cb_jwa_find(alg, strlen(alg)) : NULL;
    if (!s->jwa) return cb_jwt_refuse(reason, CB_JWT_ALG, "alg \"%.40s\" is not known here", alg ? alg : "(missing)");
    if (s->kid && (!*s->kid || strlen(s->kid) > CB_JWK_KID_BYTES))
        return cb_jwt_refuse(reason, CB_JWT_KID, "a kid must have 1 to %d bytes", CB_JWK_KID_BYTES);
    return CB_OK;
}

int cb_jws_read(cb_jws *s, cb_slice token, size_t max_bytes, int32_t *reason) {
    int rc = cut(s, token, max_bytes, reason);
    if (rc < 0) return rc;
    if (s->head.len > cb_base64url_chars(CB_JWT_HEADER_BYTES))
        return cb_jwt_refuse(reason, CB_JWT_SIZE, "a header of more than %d bytes", CB_JWT_HEADER_BYTES);
    int64_t n = cb_base64url_decode(s->text, s->head.base, s->head.len);
    if (n < 0) return cb_jwt_refuse(reason, CB_JWT_BASE64, "the header is not strict base64url");
    rc = read_json(&s->header, s->text, (size_t)n, s->nodes, CB_JWT_HEADER_NODES, reason);
    if (rc == CB_OK) rc = read_header(s, reason);
    if (rc < 0) return rc;
    if (s->sig.len > cb_base64url_chars(CB_JWK_SIG_BYTES))
        return cb_jwt_refuse(reason, CB_JWT_SIG_FORM, "a signature of more than %d bytes", CB_JWK_SIG_BYTES);
    n = cb_base64url_decode(s->sig_bytes, s->sig.base, s->sig.len);
    if (n < 0) return cb_jwt_refuse(reason, CB_JWT_BASE64, "the signature is not strict base64url");
    s->sig_len = (size_t)n;
    return CB_OK;
}

/* ---- the signature ---- */

/* Keys of that name; those without a name match any, and a token without one matches any. */
static const cb_jwk *find_key(const cb_jws *s, const cb_jwks *keys, int32_t *reason) {
    const cb_slice sig = {s->sig_bytes, s->sig_len};
    int verdict = CB_JWT_UNKNOWN_KEY, tries = 0;
    for (size_t i = 0; i < keys->len && tries < CB_JWT_TRIES; i++) {
        const cb_jwk *key = keys->keys + i;
        if (s->kid && key->kid && strcmp(s->kid, key->kid) != 0) continue;
        if (key->jwa->alg != s->jwa->alg) {
            if (verdict == CB_JWT_UNKNOWN_KEY && (s->kid || keys->len == 1)) verdict = CB_JWT_KEY_ALG;
            continue;
        }
        tries++;
        verdict = cb_jwk_verify(key, s->signed_bytes, sig);
        if (verdict == CB_JWT_GOOD) return key;
    }
    static const char *const said[] = {[CB_JWT_UNKNOWN_KEY] = "no key of the set is meant",
                                       [CB_JWT_KEY_ALG] = "alg is not that of the key",
                                       [CB_JWT_SIG_FORM] = "this cannot be a signature of that key: length or range",
                                       [CB_JWT_SIGNATURE] = "the signature is wrong"};
    cb_jwt_refuse(reason, verdict, "%s (alg %s, kid \"%.64s\")", said[verdict], s->jwa->name, s->kid ? s->kid : "");
    return NULL;
}

/* ---- claims ---- */

/* A block with room for `lead` bytes, the table of the document, and its text. */
static int read_block(void **block, size_t lead, cb_slice text, cb_json *claims, size_t *bytes, int32_t *reason) {
    const size_t head = (lead + 15) & ~(size_t)15, nodes = cb_json_room((const char *)text.base, text.len);
    const size_t size = head + nodes * sizeof(cb_json_node) + text.len + 1;
    char *made = cb_mem_get(&cb_alloc_libc, size);
    if (!made) return cb_fail(CB_ENOMEM, "no memory for a token");
    cb_json_node *table = (cb_json_node *)(void *)(made + head);
    char *copy = (char *)(table + nodes);
    memset(made, 0, head);
    if (text.len) memcpy(copy, text.base, text.len);
    copy[text.len] = '\0';
    int rc = read_json(claims, copy, text.len, table, nodes, reason);
    if (rc < 0) {
        cb_mem_free(&cb_alloc_libc, made);
        return rc;
    }
    *block = made;
    *bytes = size;
    return CB_OK;
}

int cb_jwt_payload(void **block, size_t lead, cb_slice payload, cb_json *claims, size_t *bytes, int32_t *reason) {
    char *text = cb_mem_get(&cb_alloc_libc, cb_base64url_room(payload.len) + 1);
    if (!text) return cb_fail(CB_ENOMEM, "no memory for a token");
    int64_t n = cb_base64url_decode(text, payload.base, payload.len);
    int rc = n < 0 ? cb_jwt_refuse(reason, CB_JWT_BASE64, "the claims are not strict base64url")
                   : read_block(block, lead, (cb_slice){(const uint8_t *)text, (size_t)n}, claims, bytes, reason);
    cb_mem_free(&cb_alloc_libc, text);
    return rc;
}

int cb_jwt_date(const cb_json *claims, const char *name, double *out, int32_t *reason) {
    const cb_json_node *at = cb_json_get(claims, claims->nodes, name, strlen(name));
    *out = NAN;
    if (!at) return CB_OK;
    if (at->kind != CB_JSON_NUMBER) return cb_jwt_refuse(reason, CB_JWT_CLAIM, "\"%s\" must be a number", name);
    *out = cb_json_number(claims, at);
    if (*out >= 0 && *out < 9007199254740992.0) return CB_OK;
    return cb_jwt_refuse(reason, CB_JWT_CLAIM, "\"%s\" is no date", name);
}

static int claim_text(const cb_json *j, const cb_json_node *object, const char *name, const char **out,
                      int32_t *reason) {
    const cb_json_node *at = cb_json_get(j, object, name, strlen(name));
    *out = NULL;
    if (!at) return CB_OK;
    if (at->kind != CB_JSON_TEXT) return cb_jwt_refuse(reason, CB_JWT_CLAIM, "\"%s\" must be a text", name);
    *out = j->text + at->at;
    return CB_OK;
}

static int check_audience(const cb_json *j, int32_t *reason) {
    const cb_json_node *aud = cb_json_get(j, j->nodes, "aud", 3);
    bool fine = !aud || aud->kind == CB_JSON_TEXT || aud->kind == CB_JSON_LIST;
    if (aud && aud->kind == CB_JSON_LIST)
        for (const cb_json_node *at = cb_json_first(j, aud); at; at = cb_json_next(j, aud, at))
            fine = fine && at->kind == CB_JSON_TEXT;
    return fine ? CB_OK : cb_jwt_refuse(reason, CB_JWT_CLAIM, "\"aud\" must be a text or a list of texts");
}

/* RFC 7800 3.1. A confirmation that is not understood cannot be judged, so it is refused. */
static int read_binding(cb_jwt *t, int32_t *reason) {
    const cb_json *j = &t->claims;
    const cb_json_node *cnf = cb_json_get(j, j->nodes, "cnf", 3);
    if (!cnf) return CB_OK;
    if (cnf->kind != CB_JSON_OBJECT) return cb_jwt_refuse(reason, CB_JWT_CLAIM, "\"cnf\" must be an object");
    int rc = claim_text(j, cnf, "x5t#S256", &t->bound_cert, reason);
    if (rc == CB_OK) rc = claim_text(j, cnf, "jkt", &t->bound_key, reason);
    if (rc == CB_OK && !t->bound_cert && !t->bound_key)
        rc = cb_jwt_refuse(reason, CB_JWT_BINDING, "\"cnf\" has no binding that is known here");
    return rc;
}

static int read_claims(cb_jwt *t, int32_t *reason) {
    const cb_json *j = &t->claims;
    int rc = claim_text(j, j->nodes, "iss", &t->issuer, reason);
    if (rc == CB_OK) rc = claim_text(j, j->nodes, "sub", &t->subject, reason);
    if (rc == CB_OK) rc = claim_text(j, j->nodes, "jti", &t->jti, reason);
    if (rc == CB_OK) rc = cb_jwt_date(j, "exp", &t->exp, reason);
    if (rc == CB_OK) rc = cb_jwt_date(j, "nbf", &t->nbf, reason);
    if (rc == CB_OK) rc = cb_jwt_date(j, "iat", &t->iat, reason);
    if (rc == CB_OK) rc = check_audience(j, reason);
    return rc == CB_OK ? read_binding(t, reason) : rc;
}

static char *copy_text(char **at, const char *text) {
    if (!text) return NULL;
    char *copy = *at;
    size_t n = strlen(text) + 1;
    memcpy(copy, text, n);
    *at += n;
    return copy;
}

int cb_jwt_open(cb_jwt **out, cb_slice token, const cb_jwks *keys, size_t max_bytes, int32_t *reason) {
    cb_jws s;
    void *block = NULL;
    cb_json claims;
    size_t bytes = 0;
    int rc = cb_jws_read(&s, token, max_bytes, reason);
    if (rc < 0) return rc;
    const cb_jwk *key = find_key(&s, keys, reason);
    if (!key) return CB_EAUTH;
    size_t texts = (s.typ ? strlen(s.typ) + 1 : 0) + (key->kid ? strlen(key->kid) + 1 : 0);
    rc = cb_jwt_payload(&block, sizeof(cb_jwt) + texts, s.payload, &claims, &bytes, reason);
    if (rc < 0) return rc;
    cb_jwt *t = block;
    char *at = (char *)(t + 1);
    atomic_init(&t->refs, 1);
    t->alg = key->jwa->alg;
    t->typ = copy_text(&at, s.typ);
    t->kid = copy_text(&at, key->kid);
    t->claims = claims;
    t->bytes = bytes;
    memcpy(t->print, key->print, sizeof t->print);
    rc = read_claims(t, reason);
    if (rc < 0) {
        cb_mem_free(&cb_alloc_libc, t);
        return rc;
    }
    *out = t;
    return CB_OK;
}

int cb_jwt_from_claims(cb_jwt **out, cb_slice json, const char *issuer, int32_t *reason) {
    void *block = NULL;
    cb_json claims;
    size_t bytes = 0;
    int rc = read_block(&block, sizeof(cb_jwt) + strlen(issuer) + 1, json, &claims, &bytes, reason);
    if (rc < 0) return rc;
    cb_jwt *t = block;
    char *at = (char *)(t + 1);
    const char *own = copy_text(&at, issuer);
    atomic_init(&t->refs, 1);
    t->claims = claims;
    t->bytes = bytes;
    rc = read_claims(t, reason);
    if (rc < 0) {
        cb_mem_free(&cb_alloc_libc, t);
        return rc;
    }
    if (!t->issuer) t->issuer = own;
    *out = t;
    return CB_OK;
}

cb_jwt *cb_jwt_ref(cb_jwt *t) {
    atomic_fetch_add_explicit(&t->refs, 1, memory_order_relaxed);
    return t;
}

void cb_jwt_unref(cb_jwt *t) {
    if (t && atomic_fetch_sub_explicit(&t->refs, 1, memory_order_acq_rel) == 1) cb_mem_free(&cb_alloc_libc, t);
}
