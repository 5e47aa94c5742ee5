/* What a verified token says. */
#include "auth/jwt.h"
#include "base/error.h"
#include <math.h>
#include <string.h>

/* ---- paths ---- */

/* One step of an RFC 6901 pointer against a name: ~1 is a slash, ~0 a tilde. */
static bool step_is(const char *step, size_t len, const char *name, size_t name_len) {
    size_t n = 0;
    for (size_t i = 0; i < len; i++, n++) {
        char c = step[i];
        if (c == '~' && i + 1 < len && (step[i + 1] == '0' || step[i + 1] == '1')) c = step[++i] == '1' ? '/' : '~';
        if (n == name_len || name[n] != c) return false;
    }
    return n == name_len;
}

static const cb_json_node *step_into(const cb_json *j, const cb_json_node *of, const char *step, size_t len) {
    size_t index = 0;
    const cb_json_node *at = cb_json_first(j, of);
    if (of->kind == CB_JSON_LIST) {
        if (!len || len > 5 || (len > 1 && *step == '0')) return NULL;
        for (size_t i = 0; i < len; i++) {
            if (step[i] < '0' || step[i] > '9') return NULL;
            index = index * 10 + (size_t)(step[i] - '0');
        }
        while (at && index--)
            at = cb_json_next(j, of, at);
        return at;
    }
    while (at && !step_is(step, len, j->text + at->name, at->name_len))
        at = cb_json_next(j, of, at);
    return at;
}

static const cb_json_node *find(const cb_jwt *t, const char *path) {
    const cb_json *j = &t->claims;
    const cb_json_node *at = j->nodes;
    if (*path != '/') return cb_json_get(j, at, path, strlen(path));
    while (at && *path == '/') {
        size_t n = strcspn(++path, "/");
        at = step_into(j, at, path, n);
        path += n;
    }
    return at;
}

static int32_t kind_of(const cb_json_node *at) {
    static const int32_t kinds[] = {
        [CB_JSON_NULL] = CB_CLAIM_NULL,     [CB_JSON_FALSE] = CB_CLAIM_BOOL, [CB_JSON_TRUE] = CB_CLAIM_BOOL,
        [CB_JSON_NUMBER] = CB_CLAIM_NUMBER, [CB_JSON_TEXT] = CB_CLAIM_TEXT,  [CB_JSON_LIST] = CB_CLAIM_LIST,
        [CB_JSON_OBJECT] = CB_CLAIM_OBJECT};
    return kinds[at->kind];
}

static int give(const cb_jwt *t, const cb_json_node *at, cb_claim *out) {
    const cb_json *j = &t->claims;
    *out = (cb_claim){.kind = kind_of(at), .node = (uint32_t)(at - j->nodes)};
    if (at->name) out->name = (cb_slice){(const uint8_t *)j->text + at->name, at->name_len};
    if (at->kind == CB_JSON_TEXT || at->kind == CB_JSON_NUMBER) out->text = cb_json_slice(j, at);
    if (at->kind == CB_JSON_NUMBER) out->number = cb_json_number(j, at);
    if (at->kind == CB_JSON_TRUE) out->number = 1;
    if (at->kind == CB_JSON_LIST || at->kind == CB_JSON_OBJECT) out->len = at->len;
    return CB_OK;
}

int cb_jwt_claim(const cb_jwt *t, const char *path, cb_claim *out) {
    const cb_json_node *at = find(t, path);
    return at ? give(t, at, out) : cb_fail(CB_ENOENT, "the token has no claim \"%.80s\"", path);
}

int cb_jwt_claim_next(const cb_jwt *t, const cb_claim *of, uint32_t *it, cb_claim *out) {
    const cb_json *j = &t->claims;
    if (of->node >= j->len) return CB_ENOENT;
    const cb_json_node *object = j->nodes + of->node;
    const cb_json_node *at = *it ? (*it < object->next ? j->nodes + *it : NULL) : cb_json_first(j, object);
    if (!at || at <= object) return CB_ENOENT;
    *it = at->next;
    return give(t, at, out);
}

static bool text_is(const cb_json *j, const cb_json_node *at, const char *text, size_t len) {
    return at->kind == CB_JSON_TEXT && at->len == len && memcmp(j->text + at->at, text, len) == 0;
}

int cb_jwt_has(const cb_jwt *t, const char *path, const char *text) {
    const cb_json *j = &t->claims;
    const cb_json_node *of = find(t, path);
    size_t len = strlen(text);
    if (!of) return 0;
    if (of->kind == CB_JSON_OBJECT) return cb_json_get(j, of, text, len) != NULL;
    if (of->kind != CB_JSON_LIST) return text_is(j, of, text, len);
    for (const cb_json_node *at = cb_json_first(j, of); at; at = cb_json_next(j, of, at))
        if (text_is(j, at, text, len)) return 1;
    return 0;
}

int cb_jwt_has_scope(const cb_jwt *t, const char *scope) {
    size_t len = strlen(scope);
    const char *p = cb_jwt_text(t, "scope");
    if (!len || strchr(scope, ' ')) return 0;
    if (!p) return cb_jwt_has(t, "scope", scope);
    while (*p) {
        size_t n = strcspn(p, " ");
        if (n == len && memcmp(p, scope, n) == 0) return 1;
        p += n + (p[n] == ' ');
    }
    return 0;
}

const char *cb_jwt_text(const cb_jwt *t, const char *path) {
    const cb_json_node *at = find(t, path);
    return cb_json_is(at, CB_JSON_TEXT) ? t->claims.text + at->at : NULL;
}

const char *cb_jwt_audience(const cb_jwt *t, size_t i) {
    const cb_json *j = &t->claims;
    const cb_json_node *aud = cb_json_get(j, j->nodes, "aud", 3);
    if (!aud) return NULL;
    if (aud->kind == CB_JSON_TEXT) return i ? NULL : j->text + aud->at;
    const cb_json_node *at = cb_json_first(j, aud);
    while (at && i--)
        at = cb_json_next(j, aud, at);
    return at ? j->text + at->at : NULL;
}

const char *cb_jwt_issuer(const cb_jwt *t) {
    return t->issuer;
}

const char *cb_jwt_subject(const cb_jwt *t) {
    return t->subject;
}

const char *cb_jwt_type(const cb_jwt *t) {
    return t->typ;
}

const char *cb_jwt_kid(const cb_jwt *t) {
    return t->kid;
}

int cb_jwt_algorithm(const cb_jwt *t) {
    return t->alg;
}

int64_t cb_jwt_expires(const cb_jwt *t) {
    return isnan(t->exp) ? 0 : (int64_t)t->exp;
}

const char *cb_jwt_bound_cert(const cb_jwt *t) {
    return t->bound_cert;
}

const char *cb_jwt_bound_key(const cb_jwt *t) {
    return t->bound_key;
}
