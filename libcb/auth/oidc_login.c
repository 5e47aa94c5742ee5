/* Logins, and the key files of service accounts. */
#include "auth/base64url.h"
#include "auth/oidc_form.h"
#include "auth/oidc_int.h"
#include "base/error.h"
#include "base/mem.h"
#include "base/opts.h"
#include "http/web.h"
#include <gnutls/crypto.h>
#include <stdio.h>
#include <string.h>

enum { RANDOM = 32, TEXT = 44, URL_BYTES = 8192, QUERY_BYTES = 8192, ACCOUNT_BYTES = 65536 };

static const cb_alloc *const heap = &cb_alloc_libc;

struct cb_oidc_login {
    char state[TEXT], nonce[TEXT], verifier[TEXT];
    char *issuer, *redirect_uri, *url;
    char *code; /* of the last answer */
    uint32_t max_age_s;
    bool openid, need_iss;
};

/* ---- the way there ---- */

static int random_text(char out[TEXT]) {
    uint8_t bytes[RANDOM];
    if (gnutls_rnd(GNUTLS_RND_KEY, bytes, sizeof bytes) < 0) return cb_fail(CB_ETLS, "no random bytes");
    cb_base64url_encode(out, bytes, sizeof bytes);
    cb_mem_wipe(bytes, sizeof bytes);
    return CB_OK;
}

static bool has_word(const char *words, const char *word) {
    const size_t n = strlen(word);
    for (const char *at = words; (at = strstr(at, word)); at += n)
        if ((at == words || at[-1] == ' ') && (at[n] == ' ' || !at[n])) return true;
    return false;
}

static int make_url(cb_oidc_login *l, const cb_oidc *o, const char *endpoint, const cb_oidc_login_opts *opts) {
    uint8_t digest[RANDOM];
    char challenge[TEXT], age[16] = "";
    cb_buf form, url;
    if (gnutls_hash_fast(GNUTLS_DIG_SHA256, l->verifier, strlen(l->verifier), digest) < 0)
        return cb_fail(CB_ETLS, "no SHA-256");
    cb_base64url_encode(challenge, digest, sizeof digest);
    snprintf(age, sizeof age, "%u", opts->max_age_s);
    const struct {
        const char *name, *value;
    } fields[] = {{"response_type", "code"},
                  {"client_id", o->conf.client_id},
                  {"redirect_uri", opts->redirect_uri},
                  {"scope", opts->scope ? opts->scope : "openid"},
                  {"state", l->state},
                  {"nonce", l->openid ? l->nonce : NULL},
                  {"code_challenge", challenge},
                  {"code_challenge_method", "S256"},
                  {"prompt", opts->prompt},
                  {"login_hint", opts->login_hint},
                  {"acr_values", opts->acr_values},
                  {"resource", opts->resource},
                  {"max_age", opts->max_age_s ? age : NULL}};
    int rc = CB_OK;
    cb_buf_init(&form, heap, URL_BYTES);
    cb_buf_init(&url, heap, URL_BYTES);
    for (size_t i = 0; rc >= 0 && i < sizeof fields / sizeof *fields; i++)
        rc = cb_oidc_form_add(&form, fields[i].name, fields[i].value);
    if (rc >= 0) rc = cb_buf_printf(&url, "%s%c", endpoint, strchr(endpoint, '?') ? '&' : '?');
    if (rc >= 0) rc = cb_buf_add(&url, form.base, form.len);
    if (rc >= 0) rc = cb_buf_add(&url, "", 1);
    if (rc >= 0) l->url = cb_mem_text(heap, (const char *)url.base);
    cb_buf_free(&form);
    cb_buf_free(&url);
    if (rc == CB_ELIMIT) return cb_fail(CB_EINVAL, "cb_oidc_login_opts: a URL of more than %d bytes", URL_BYTES);
    return rc < 0 || l->url ? rc : cb_fail(CB_ENOMEM, "no memory for a login");
}

static int fill(cb_oidc_login *l, const cb_oidc *o, const cb_oidc_meta *meta, const cb_oidc_login_opts *opts) {
    const char *endpoint = meta->endpoints[CB_OIDC_AUTHORIZATION];
    if (!endpoint) return cb_fail(CB_ENOTSUP, "%s has no authorization endpoint", o->conf.issuer);
    if (meta->no_s256) return cb_fail(CB_ENOTSUP, "%s does not know the code challenge S256", o->conf.issuer);
    l->openid = !opts->scope || has_word(opts->scope, "openid");
    l->need_iss = meta->iss_parameter;
    l->max_age_s = opts->max_age_s;
    l->issuer = cb_mem_text(heap, o->conf.issuer);
    l->redirect_uri = cb_mem_text(heap, opts->redirect_uri);
    if (!l->issuer || !l->redirect_uri) return cb_fail(CB_ENOMEM, "no memory for a login");
    int rc = random_text(l->state);
    if (rc == CB_OK) rc = random_text(l->nonce);
    if (rc == CB_OK) rc = random_text(l->verifier);
    return rc == CB_OK ? make_url(l, o, endpoint, opts) : rc;
}

int cb_oidc_login_new(cb_oidc_login **out, cb_oidc *o, const cb_oidc_login_opts *given) {
    cb_oidc_login_opts opts;
    if (!out || !o || !given) return cb_fail(CB_EINVAL, "cb_oidc_login_new: out, o and opts are needed");
    int rc = cb_opts_read(&opts, sizeof opts, given, "cb_oidc_login_opts");
    if (rc < 0) return rc;
    if (!opts.redirect_uri || !*opts.redirect_uri)
        return cb_fail(CB_EINVAL, "cb_oidc_login_opts: redirect_uri is needed");
    if (!o->conf.client_id) return cb_fail(CB_EINVAL, "cb_oidc_opts: client_id is needed for logins");
    cb_oidc_meta *meta = cb_oidc_meta_get(o);
    if (!meta) return cb_fail(CB_EAGAIN, "nothing is known of %s yet", o->conf.issuer);
    cb_oidc_login *l = cb_mem_new(heap, sizeof *l);
    rc = l ? fill(l, o, meta, &opts) : cb_fail(CB_ENOMEM, "no memory for a login");
    cb_oidc_meta_unref(meta);
    if (rc < 0) {
        cb_oidc_login_free(l);
        return rc;
    }
    *out = l;
    return CB_OK;
}

void cb_oidc_login_free(cb_oidc_login *l) {
    if (!l) return;
    if (l->code) cb_mem_wipe(l->code, strlen(l->code));
    cb_mem_free(heap, l->code);
    cb_mem_free(heap, l->url);
    cb_mem_free(heap, l->redirect_uri);
    cb_mem_free(heap, l->issuer);
    cb_mem_wipe(l, sizeof *l);
    cb_mem_free(heap, l);
}

const char *cb_oidc_login_url(const cb_oidc_login *l) {
    return l->url;
}

const char *cb_oidc_login_state(const cb_oidc_login *l) {
    return l->state;
}

/* ---- the way back ---- */

static int hex(char c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* Decodes in place; NULL when it is no form text, or has a NUL. */
static char *decode(char *text) {
    char *to = text;
    for (const char *at = text; *at; at++) {
        char c = *at == '+' ? ' ' : *at;
        if (c == '%') {
            const int high = hex(at[1]), low = high < 0 ? -1 : hex(at[2]);
            if (high < 0 || low < 0 || !(high | low)) return NULL;
            c = (char)(high << 4 | low);
            at += 2;
        }
        *to++ = c;
    }
    *to = '\0';
    return text;
}

enum { CODE, STATE, ISS, ERROR, DESCRIPTION, PARAMETERS };

static int read_query(char *text, char *found[PARAMETERS]) {
    static const char *const names[PARAMETERS] = {"code", "state", "iss", "error", "error_description"};
    char *save = NULL;
    for (char *pair = strtok_r(text, "&", &save); pair; pair = strtok_r(NULL, "&", &save)) {
        char *value = strchr(pair, '=');
        if (value) *value++ = '\0';
        char *name = decode(pair);
        for (size_t i = 0; name && i < PARAMETERS; i++) {
            if (strcmp(name, names[i]) != 0) continue;
            if (found[i]) return cb_fail(CB_EPROTO, "login: \"%s\" is there twice", names[i]);
            found[i] = value ? decode(value) : pair + strlen(pair);
            if (!found[i]) return cb_fail(CB_EPROTO, "login: \"%s\" is no text", names[i]);
        }
    }
    return CB_OK;
}

/* Every byte is looked at, whatever it is. */
static bool same(const char *a, const char *b) {
    unsigned diff = strlen(a) != strlen(b);
    for (size_t i = 0; !diff && a[i]; i++)
        diff |= (unsigned char)a[i] ^ (unsigned char)b[i];
    return !diff;
}

static int judge(const cb_oidc_login *l, char *const found[PARAMETERS], char *error) {
    char code[64], words[200];
    if (!found[STATE] || !same(found[STATE], l->state))
        return cb_fail(CB_EAUTH, "login: the state is %s: another login, or none of ours",
                       found[STATE] ? "another" : "missing");
    if (found[ISS] ? strcmp(found[ISS], l->issuer) != 0 : l->need_iss)
        return cb_fail(CB_EAUTH, "login: the answer is %s issuer", found[ISS] ? "of another" : "without");
    if (found[ERROR]) {
        cb_web_plain(code, sizeof code, found[ERROR]);
        cb_web_plain(words, sizeof words, found[DESCRIPTION]);
        if (error) snprintf(error, sizeof code, "%s", code);
        return cb_fail(CB_EAUTH, "login: %s%s%s", code, *words ? ": " : "", words);
    }
    return found[CODE] && *found[CODE] ? CB_OK : cb_fail(CB_EPROTO, "login: there is no code");
}

int cb_oidc_login_answer(cb_oidc_login *l, cb_slice query, cb_oidc_request_opts *request, char *error) {
    char *found[PARAMETERS] = {NULL};
    if (error) *error = '\0';
    if (!l || !request) return cb_fail(CB_EINVAL, "cb_oidc_login_answer: l and request are needed");
    if (query.len > QUERY_BYTES) return cb_fail(CB_EPROTO, "login: a query of more than %d bytes", QUERY_BYTES);
    char *text = cb_mem_new(heap, query.len + 1);
    if (!text) return cb_fail(CB_ENOMEM, "no memory for a login");
    if (query.len) memcpy(text, query.base, query.len);
    int rc = read_query(text, found);
    if (rc == CB_OK) rc = judge(l, found, error);
    char *code = rc == CB_OK ? cb_mem_text(heap, found[CODE]) : NULL;
    cb_mem_wipe(text, query.len);
    cb_mem_free(heap, text);
    if (rc < 0) return rc;
    if (!code) return cb_fail(CB_ENOMEM, "no memory for a login");
    cb_mem_free(heap, l->code);
    l->code = code;
    request->type = CB_OIDC_CODE;
    request->code = code;
    request->redirect_uri = l->redirect_uri;
    request->verifier = l->verifier;
    request->nonce = l->openid ? l->nonce : NULL;
    request->max_age_s = l->openid ? l->max_age_s : 0;
    return CB_OK;
}

/* ---- key files ---- */

static int read_account(cb_jwt_signer **key, char *id, size_t cap, const cb_json *j) {
    const char *type = cb_json_text(j, j->nodes, "type"), *kid = cb_json_text(j, j->nodes, "keyId");
    const char *pem = cb_json_text(j, j->nodes, "key");
    const bool application = type && strcmp(type, "application") == 0;
    if (!type || (!application && strcmp(type, "serviceaccount") != 0))
        return cb_fail(CB_EINVAL, "its type is neither serviceaccount nor application");
    const char *who = cb_json_text(j, j->nodes, application ? "clientId" : "userId");
    if (!kid || !pem || !who || !*who)
        return cb_fail(CB_EINVAL, "keyId, key or %s is missing", application ? "clientId" : "userId");
    if (strlen(who) >= cap) return cb_fail(CB_ELIMIT, "the id has %zu bytes", strlen(who));
    int rc = cb_jwt_signer_new(key, CB_OPTS(cb_jwt_signer_opts, .pem = cb_slice_str(pem), .kid = kid));
    if (rc < 0) return rc;
    memcpy(id, who, strlen(who) + 1);
    return application ? CB_OIDC_CLIENT_CREDENTIALS : CB_OIDC_JWT_BEARER;
}

int cb_oidc_account_read(cb_jwt_signer **key, char *id, size_t cap, cb_slice json) {
    char why[300];
    cb_json j;
    if (!key || !id) return cb_fail(CB_EINVAL, "cb_oidc_account_read: key and id are needed");
    if (json.len > ACCOUNT_BYTES) return cb_fail(CB_EINVAL, "key file: more than %d bytes", ACCOUNT_BYTES);
    int rc = cb_json_open(&j, json);
    if (rc == CB_OK) {
        rc = j.nodes->kind == CB_JSON_OBJECT ? read_account(key, id, cap, &j) : cb_fail(CB_EINVAL, "not an object");
        snprintf(why, sizeof why, "%s", cb_last_error());
        cb_json_close(&j);
    } else {
        snprintf(why, sizeof why, "%s", cb_last_error());
        rc = rc < 0 ? rc : CB_EINVAL;
    }
    return rc < 0 ? cb_fail(rc, "key file: %s", why) : rc;
}
