/* What claims say, by name or by pointer. */
#include "auth/claims.h"
#include "base/error.h"
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

const cb_json_node *cb_claims_find(const cb_json *j, const char *path) {
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

void cb_claims_give(const cb_json *j, const cb_json_node *at, cb_claim *out) {
    *out = (cb_claim){.kind = kind_of(at), .node = (uint32_t)(at - j->nodes)};
    if (at->name) out->name = (cb_slice){(const uint8_t *)j->text + at->name, at->name_len};
    if (at->kind == CB_JSON_TEXT || at->kind == CB_JSON_NUMBER) out->text = cb_json_slice(j, at);
    if (at->kind == CB_JSON_NUMBER) out->number = cb_json_number(j, at);
    if (at->kind == CB_JSON_TRUE) out->number = 1;
    if (at->kind == CB_JSON_LIST || at->kind == CB_JSON_OBJECT) out->len = at->len;
}

int cb_claims_next(const cb_json *j, const cb_claim *of, uint32_t *it, cb_claim *out) {
    if (of->node >= j->len) return CB_ENOENT;
    const cb_json_node *object = j->nodes + of->node;
    const cb_json_node *at = *it ? (*it < object->next ? j->nodes + *it : NULL) : cb_json_first(j, object);
    if (!at || at <= object) return CB_ENOENT;
    *it = at->next;
    cb_claims_give(j, at, out);
    return CB_OK;
}

static bool text_is(const cb_json *j, const cb_json_node *at, const char *text, size_t len) {
    return at->kind == CB_JSON_TEXT && at->len == len && memcmp(j->text + at->at, text, len) == 0;
}

bool cb_claims_has(const cb_json *j, const char *path, const char *text) {
    const cb_json_node *of = cb_claims_find(j, path);
    size_t len = strlen(text);
    if (!of) return false;
    if (of->kind == CB_JSON_OBJECT) return cb_json_get(j, of, text, len) != NULL;
    if (of->kind != CB_JSON_LIST) return text_is(j, of, text, len);
    for (const cb_json_node *at = cb_json_first(j, of); at; at = cb_json_next(j, of, at))
        if (text_is(j, at, text, len)) return true;
    return false;
}

static bool scalar(const cb_json *j, const cb_json_node *at, cb_slice *value) {
    if (at->kind == CB_JSON_TRUE || at->kind == CB_JSON_FALSE)
        *value = cb_slice_str(at->kind == CB_JSON_TRUE ? "true" : "false");
    else if (at->kind == CB_JSON_TEXT || at->kind == CB_JSON_NUMBER)
        *value = cb_json_slice(j, at);
    else
        return false;
    return true;
}

bool cb_claims_value(const cb_json *j, const cb_json_node *of, uint32_t *it, cb_slice *value) {
    if (!of) return false;
    if (of->kind != CB_JSON_LIST && of->kind != CB_JSON_OBJECT) return (*it)++ == 0 && scalar(j, of, value);
    for (const cb_json_node *at = *it ? (*it < of->next ? j->nodes + *it : NULL) : cb_json_first(j, of); at;
         at = cb_json_next(j, of, at)) {
        *it = at->next;
        if (of->kind == CB_JSON_OBJECT) {
            *value = (cb_slice){(const uint8_t *)j->text + at->name, at->name_len};
            return true;
        }
        if (scalar(j, at, value)) return true;
    }
    *it = of->next;
    return false;
}

bool cb_claims_has_scope(const cb_json *j, const char *scope) {
    size_t len = strlen(scope);
    const char *p = cb_claims_text(j, "scope");
    if (!len || strchr(scope, ' ')) return false;
    if (!p) return cb_claims_has(j, "scope", scope);
    while (*p) {
        size_t n = strcspn(p, " ");
        if (n == len && memcmp(p, scope, n) == 0) return true;
        p += n + (p[n] == ' ');
    }
    return false;
}

const char *cb_claims_text(const cb_json *j, const char *path) {
    const cb_json_node *at = cb_claims_find(j, path);
    return cb_json_is(at, CB_JSON_TEXT) ? j->text + at->at : NULL;
}

bool cb_claims_date(const cb_json *j, const char *name, int64_t *out) {
    const cb_json_node *at = cb_json_get(j, j->nodes, name, strlen(name));
    double v = cb_json_is(at, CB_JSON_NUMBER) ? cb_json_number(j, at) : -1;
    *out = 0;
    if (!at) return true;
    if (!(v >= 0 && v <= 9007199254740992.0)) return false;
    *out = (int64_t)v;
    return true;
}
