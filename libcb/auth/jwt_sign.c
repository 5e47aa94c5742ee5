#include "auth/base64url.h"
#include "auth/jwk.h"
#include "base/buf.h"
#include "base/error.h"
#include "base/mem.h"
#include "base/opts.h"
#include <inttypes.h>
#include <stdatomic.h>
#include <string.h>

enum { TOKEN_BYTES = 64 * 1024 };

struct cb_jwt_signer {
    _Atomic uint32_t refs;
    cb_jwk key;
};

static int read_jwk(cb_jwk *key, cb_slice jwk, int alg, char **kid) {
    size_t room = cb_json_room((const char *)jwk.base, jwk.len);
    cb_json j;
    if (jwk.len > TOKEN_BYTES) return cb_fail(CB_EINVAL, "a JWK of more than %d bytes", TOKEN_BYTES);
    char *text = cb_mem_get(&cb_alloc_libc, jwk.len + 1);
    cb_json_node *nodes = cb_mem_get(&cb_alloc_libc, room * sizeof *nodes);
    int rc = text && nodes ? CB_OK : cb_fail(CB_ENOMEM, "no memory for a key");
    if (rc == CB_OK) {
        memcpy(text, jwk.base, jwk.len);
        rc = cb_json_read(&j, text, jwk.len, nodes, room) ? CB_EINVAL : cb_jwk_read(key, &j, j.nodes, CB_JWK_SIGN, alg);
    }
    const char *name = rc == CB_OK ? cb_json_text(&j, j.nodes, "kid") : NULL;
    if (name && !(*kid = cb_mem_text(&cb_alloc_libc, name))) rc = cb_fail(CB_ENOMEM, "no memory for a key");
    if (text) cb_mem_wipe(text, jwk.len);
    cb_mem_free(&cb_alloc_libc, text);
    cb_mem_free(&cb_alloc_libc, nodes);
    return rc;
}

static int read_key(cb_jwk *key, const cb_jwt_signer_opts *o) {
    char *kid = NULL;
    int rc = CB_OK, alg = o->alg ? o->alg : CB_JWT_ALG_DEFAULT;
    if (o->secret.len)
        rc = cb_jwk_from_secret(key, o->secret, alg);
    else if (o->pem.len)
        rc = cb_jwk_from_pem(key, o->pem, CB_JWK_SIGN, alg);
    else
        rc = read_jwk(key, o->jwk, alg, &kid);
    if (rc == CB_OK) rc = cb_jwk_name(key, o->kid ? o->kid : kid);
    cb_mem_free(&cb_alloc_libc, kid);
    return rc;
}

int cb_jwt_signer_new(cb_jwt_signer **out, const cb_jwt_signer_opts *opts) {
    cb_jwt_signer_opts o;
    if (!out || !opts) return cb_fail(CB_EINVAL, "cb_jwt_signer_new: out and opts are needed");
    int rc = cb_opts_read(&o, sizeof o, opts, "cb_jwt_signer_opts");
    if (rc < 0) return rc;
    if (!!o.pem.len + !!o.jwk.len + !!o.secret.len != 1)
        return cb_fail(CB_EINVAL, "cb_jwt_signer_opts: one of pem, jwk and secret is needed");
    cb_jwt_signer *s = cb_mem_new(&cb_alloc_libc, sizeof *s);
    if (!s) return cb_fail(CB_ENOMEM, "no memory for a key");
    atomic_init(&s->refs, 1);
    rc = read_key(&s->key, &o);
    if (rc < 0) {
        cb_jwt_signer_unref(s);
        return rc;
    }
    *out = s;
    return CB_OK;
}

cb_jwt_signer *cb_jwt_signer_ref(cb_jwt_signer *s) {
    atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
    return s;
}

void cb_jwt_signer_unref(cb_jwt_signer *s) {
    if (!s || atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) != 1) return;
    cb_jwk_clear(&s->key);
    cb_mem_free(&cb_alloc_libc, s);
}

int cb_jwt_signer_alg(const cb_jwt_signer *s) {
    return s->key.jwa->alg;
}

const char *cb_jwt_signer_thumbprint(const cb_jwt_signer *s) {
    return s->key.json ? s->key.thumbprint : NULL;
}

const char *cb_jwt_signer_jwk(const cb_jwt_signer *s) {
    return s->key.json;
}

/* ---- writing ---- */

/* json goes in as it is, once our own reader takes it. */
static int put_json(cb_buf *b, const cb_jwt_field *f) {
    size_t len = strlen(f->json), room = cb_json_room(f->json, len);
    char *copy = cb_mem_text(&cb_alloc_libc, f->json);
    cb_json_node *nodes = cb_mem_get(&cb_alloc_libc, room * sizeof *nodes);
    cb_json j;
    int rc = copy && nodes ? CB_OK : cb_fail(CB_ENOMEM, "no memory for a token");
    if (rc == CB_OK && cb_json_read(&j, copy, len, nodes, room)) rc = CB_EINVAL;
    cb_mem_free(&cb_alloc_libc, copy);
    cb_mem_free(&cb_alloc_libc, nodes);
    return rc == CB_OK ? cb_buf_add(b, f->json, len) : rc;
}

static int put_field(cb_buf *b, const cb_jwt_field *f) {
    int rc = cb_buf_text(b, b->len > 1 ? "," : "");
    if (rc == CB_OK) rc = cb_json_quote(b, f->name);
    if (rc == CB_OK) rc = cb_buf_text(b, ":");
    if (rc < 0) return rc;
    if (f->text) return cb_json_quote(b, f->text);
    return f->json ? put_json(b, f) : cb_buf_printf(b, "%" PRId64, f->number);
}

static bool among(const cb_jwt_field *fields, size_t len, const char *name) {
    for (size_t i = 0; i < len; i++)
        if (strcmp(fields[i].name, name) == 0) return true;
    return false;
}

static int put_fields(cb_buf *b, const cb_jwt_field *fields, size_t len) {
    int rc = CB_OK;
    for (size_t i = 0; i < len && rc == CB_OK; i++) {
        if (!fields[i].name) return cb_fail(CB_EINVAL, "field %zu has no name", i);
        if (among(fields, i, fields[i].name))
            return cb_fail(CB_EINVAL, "field \"%.60s\" is there twice", fields[i].name);
        rc = put_field(b, fields + i);
    }
    return rc == CB_OK ? cb_buf_text(b, "}") : rc;
}

static int put_header(cb_buf *b, const cb_jwk *key, const cb_jwt_field *header, size_t len) {
    static const char *const ours[] = {"alg", "kid", "crit", "b64"};
    for (size_t i = 0; i < len; i++)
        if (!header[i].name) return cb_fail(CB_EINVAL, "header field %zu has no name", i);
    for (size_t i = 0; i < sizeof ours / sizeof *ours; i++)
        if (among(header, len, ours[i])) return cb_fail(CB_EINVAL, "\"%s\" of the header is not for callers", ours[i]);
    int rc = cb_buf_text(b, "{");
    if (rc == CB_OK) rc = put_field(b, &(cb_jwt_field){.name = "alg", .text = key->jwa->name});
    if (rc == CB_OK && !among(header, len, "typ")) rc = put_field(b, &(cb_jwt_field){.name = "typ", .text = "JWT"});
    if (rc == CB_OK && key->kid) rc = put_field(b, &(cb_jwt_field){.name = "kid", .text = key->kid});
    return rc == CB_OK ? put_fields(b, header, len) : rc;
}

static int put_base64(cb_buf *to, const void *bytes, size_t n) {
    int rc = cb_buf_reserve(to, cb_base64url_chars(n) + 1);
    if (rc == CB_OK) to->len += cb_base64url_encode((char *)to->base + to->len, bytes, n);
    return rc;
}

int cb_jwt_sign(char **out, const cb_jwt_signer *s, const cb_jwt_field *header, size_t header_len,
                const cb_jwt_field *claims, size_t claims_len) {
    uint8_t sig[CB_JWK_SIG_BYTES];
    cb_buf part, token;
    int64_t sig_len = 0;
    if (!out || !s) return cb_fail(CB_EINVAL, "cb_jwt_sign: out and signer are needed");
    cb_buf_init(&part, &cb_alloc_libc, TOKEN_BYTES);
    cb_buf_init(&token, &cb_alloc_libc, (size_t)2 * TOKEN_BYTES);
    int rc = put_header(&part, &s->key, header, header_len);
    if (rc == CB_OK) rc = put_base64(&token, part.base, part.len);
    part.len = 0;
    if (rc == CB_OK) rc = cb_buf_text(&part, "{");
    if (rc == CB_OK) rc = put_fields(&part, claims, claims_len);
    if (rc == CB_OK) rc = cb_buf_text(&token, ".");
    if (rc == CB_OK) rc = put_base64(&token, part.base, part.len);
    if (rc == CB_OK) sig_len = cb_jwk_sign(&s->key, cb_buf_slice(&token), sig);
    if (sig_len < 0) rc = (int)sig_len;
    if (rc == CB_OK) rc = cb_buf_text(&token, ".");
    if (rc == CB_OK) rc = put_base64(&token, sig, (size_t)sig_len);
    if (rc == CB_OK && !(*out = cb_mem_text(&cb_alloc_libc, (char *)token.base)))
        rc = cb_fail(CB_ENOMEM, "no memory for a token");
    cb_buf_free(&part);
    cb_buf_free(&token);
    return rc;
}

void cb_jwt_text_free(char *text) {
    cb_mem_free(&cb_alloc_libc, text);
}
