#include "config/document.h"
#include "base/error.h"
#include "base/json_lex.h"
#include "base/mem.h"
#include "base/utf8.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const cb_alloc *const heap = &cb_alloc_libc;

/* ---- values ---- */

static cb_doc_value *value_new(uint32_t kind, size_t len) {
    cb_doc_value *v = cb_mem_new(heap, sizeof *v + len + 1);
    if (!v) {
        cb_fail(CB_ENOMEM, "no memory for a document");
        return NULL;
    }
    v->kind = kind;
    v->len = (uint32_t)len;
    return v;
}

void cb_doc_free(cb_doc_value *v) {
    if (!v) return;
    for (uint32_t i = 0; v->items && i < v->len; i++)
        cb_doc_free(v->items[i].value);
    cb_mem_free(heap, v->items);
    cb_mem_free(heap, v->name);
    cb_mem_free(heap, v);
}

static bool contains(const cb_doc_value *v) {
    return v->kind >= CB_DOC_LIST;
}

/* FNV-1a: who knows it can make names that collide, and gets a search that compares them all; an object is bounded. */
static uint32_t hash_of(const char *name, size_t len) {
    uint32_t h = 2166136261u;
    for (size_t i = 0; i < len; i++)
        h = (h ^ (unsigned char)name[i]) * 16777619u;
    return h;
}

int64_t cb_doc_find(const cb_doc_value *object, const char *name, size_t len) {
    const uint32_t hash = hash_of(name, len);
    for (uint32_t i = 0; i < object->len; i++) {
        const cb_doc_value *v = object->items[i].value;
        if (object->items[i].hash == hash && v->name_len == len && memcmp(v->name, name, len) == 0) return i;
    }
    return -1;
}

int cb_doc_name(cb_doc_value *v, const char *name, size_t len) {
    char *copy = NULL;
    if (len > CB_DOC_NAME) return cb_fail(CB_ELIMIT, "a name of %zu bytes; %d are the most", len, CB_DOC_NAME);
    if (name) {
        copy = cb_mem_get(heap, len + 1);
        if (!copy) return cb_fail(CB_ENOMEM, "no memory for a document");
        memcpy(copy, name, len);
        copy[len] = '\0';
    }
    cb_mem_free(heap, v->name);
    v->name = copy;
    v->name_len = (uint32_t)len;
    return CB_OK;
}

static int grow(cb_doc_value *c) {
    const uint32_t cap = c->cap ? c->cap * 2 : 4;
    cb_doc_item *items = cb_mem_grow(heap, c->items, cap * sizeof *items);
    if (!items) return cb_fail(CB_ENOMEM, "no memory for a document");
    c->items = items;
    c->cap = cap;
    return CB_OK;
}

int cb_doc_insert(cb_doc_value *c, size_t index, cb_doc_value *v) {
    const uint32_t most = c->kind == CB_DOC_OBJECT ? CB_DOC_MEMBERS : CB_DOC_ITEMS;
    if (c->len >= most)
        return cb_fail(CB_ELIMIT, "%s are the most", c->kind == CB_DOC_OBJECT ? "4096 members" : "65536 items");
    if (c->len == c->cap && grow(c) < 0) return CB_ENOMEM;
    memmove(c->items + index + 1, c->items + index, (c->len - index) * sizeof *c->items);
    c->items[index] = (cb_doc_item){.value = v, .hash = v->name ? hash_of(v->name, v->name_len) : 0};
    c->len++;
    return CB_OK;
}

cb_doc_value *cb_doc_take(cb_doc_value *c, size_t index) {
    cb_doc_value *v = c->items[index].value;
    c->len--;
    memmove(c->items + index, c->items + index + 1, (c->len - index) * sizeof *c->items);
    return v;
}

int cb_doc_clone(cb_doc_value **out, const cb_doc_value *v) {
    cb_doc_value *copy = value_new(v->kind, contains(v) ? 0 : v->len);
    int rc = copy ? CB_OK : CB_ENOMEM;
    if (rc == CB_OK && !contains(v)) memcpy(copy->text, v->text, v->len);
    if (rc == CB_OK && v->name) rc = cb_doc_name(copy, v->name, v->name_len);
    for (uint32_t i = 0; rc == CB_OK && contains(v) && i < v->len; i++) {
        cb_doc_value *child = NULL;
        rc = cb_doc_clone(&child, v->items[i].value);
        if (rc == CB_OK) rc = cb_doc_insert(copy, i, child);
        if (rc < 0) cb_doc_free(child);
    }
    if (rc < 0) {
        cb_doc_free(copy);
        return rc;
    }
    *out = copy;
    return CB_OK;
}

/* What its text has at least: quotes, a colon and a comma, but no escapes. */
size_t cb_doc_used(const cb_doc_value *v) {
    size_t n = 1 + (v->name ? v->name_len + 3u : 0);
    if (!contains(v)) return n + v->len + (v->kind == CB_DOC_TEXT ? 2 : 0);
    for (uint32_t i = 0; i < v->len; i++)
        n += cb_doc_used(v->items[i].value);
    return n;
}

uint32_t cb_doc_height(const cb_doc_value *v) {
    uint32_t most = 0;
    for (uint32_t i = 0; contains(v) && i < v->len; i++) {
        const uint32_t h = cb_doc_height(v->items[i].value);
        if (h > most) most = h;
    }
    return contains(v) ? most + 1 : 0;
}

/* ---- the same ---- */

/* A decimal number without its zeros: digits, and the power of ten of the last one. */
typedef struct decimal {
    char digits[64];
    int n;
    bool minus, huge; /* huge: the exponent is not worth counting */
    int64_t power;
} decimal;

static void decimal_of(decimal *d, const cb_doc_value *v) {
    const char *p = v->text;
    bool point = false;
    *d = (decimal){.minus = *p == '-'};
    for (p += d->minus; *p && *p != 'e' && *p != 'E'; p++) {
        if (*p == '.') {
            point = true;
            continue;
        }
        d->power -= point;
        if (d->n || *p != '0') d->digits[d->n++] = *p; /* a number of the scanner has 60 characters at most */
    }
    if (*p) {
        const char *e = p + 1 + (p[1] == '+' || p[1] == '-');
        d->huge = strlen(e + strspn(e, "0")) > 12;
        if (!d->huge) d->power += strtoll(p + 1, NULL, 10);
    }
    for (; d->n && d->digits[d->n - 1] == '0'; d->n--)
        d->power++;
    if (!d->n) *d = (decimal){.n = 0};
}

static bool same_number(const cb_doc_value *a, const cb_doc_value *b) {
    decimal x, y;
    if (a->len == b->len && memcmp(a->text, b->text, a->len) == 0) return true;
    decimal_of(&x, a);
    decimal_of(&y, b);
    return !x.huge && !y.huge && x.minus == y.minus && x.power == y.power && x.n == y.n &&
           memcmp(x.digits, y.digits, (size_t)x.n) == 0;
}

bool cb_doc_equal(const cb_doc_value *a, const cb_doc_value *b, bool by_value) {
    if (a->kind != b->kind) return false;
    if (by_value && a->kind == CB_DOC_NUMBER) return same_number(a, b);
    if (a->len != b->len) return false;
    if (!contains(a)) return memcmp(a->text, b->text, a->len) == 0;
    for (uint32_t i = 0; i < a->len; i++) {
        const cb_doc_value *x = a->items[i].value, *y = b->items[i].value;
        if (a->kind == CB_DOC_OBJECT && (x->name_len != y->name_len || memcmp(x->name, y->name, x->name_len) != 0)) {
            const int64_t at = cb_doc_find(b, x->name, x->name_len);
            if (at < 0) return false;
            y = b->items[at].value;
        }
        if (!cb_doc_equal(x, y, by_value)) return false;
    }
    return true;
}

/* ---- reading ---- */

static size_t unescape(char *out, const char *text, size_t len) {
    size_t to = 0;
    for (size_t at = 0; at < len;) {
        const char *wrong;
        uint32_t code;
        if (text[at] != '\\') {
            out[to++] = text[at++];
            continue;
        }
        at += cb_json_lex_escape(text + at, len - at, &code, &wrong); /* the scanner has seen that it is one */
        to += cb_utf8_put(out + to, code);
    }
    out[to] = '\0';
    return to;
}

static uint32_t kind_of(char c) {
    static const char first[] = "nft\"[{";
    static const uint32_t kinds[] = {CB_DOC_NULL, CB_DOC_FALSE, CB_DOC_TRUE, CB_DOC_TEXT, CB_DOC_LIST, CB_DOC_OBJECT};
    const char *found = strchr(first, c);
    return found ? kinds[found - first] : CB_DOC_NUMBER;
}

static cb_doc_value *value_of(const char *text, const cb_config_spot *spot) {
    const char *from = text + spot->value;
    const uint32_t kind = kind_of(*from);
    const size_t len = kind == CB_DOC_TEXT ? spot->value_len - 2 : kind == CB_DOC_NUMBER ? spot->value_len : 0;
    cb_doc_value *v = value_new(kind, len);
    if (v && kind == CB_DOC_NUMBER) memcpy(v->text, from, len);
    if (v && kind == CB_DOC_TEXT) v->len = (uint32_t)unescape(v->text, from + 1, len);
    if (v) v->at = spot->key;
    return v;
}

/* A member's name stands from its quote to the one before the colon; escapes make it no longer. */
static int name_member(cb_doc_value *v, const char *text, const cb_config_spot *spot) {
    char name[6 * CB_DOC_NAME + 2];
    size_t len = 0;
    for (const char *p = text + spot->key + 1; p[len] != '"'; len += p[len] == '\\' ? 2 : 1)
        if (len >= 6 * CB_DOC_NAME) return cb_fail(CB_ELIMIT, "a name is longer than %d bytes", CB_DOC_NAME);
    len = unescape(name, text + spot->key + 1, len);
    return cb_doc_name(v, name, len);
}

typedef struct level {
    cb_doc_value *value;
    size_t end;
} level;

static int add(cb_doc_value *parent, cb_doc_value *v, const char *text, const cb_config_spot *spot) {
    if (parent->kind == CB_DOC_OBJECT) {
        int rc = name_member(v, text, spot);
        if (rc < 0) return rc;
        if (cb_doc_find(parent, v->name, v->name_len) >= 0)
            return cb_fail(CB_EINVAL, "the member \"%.60s\" is there twice", v->name);
    }
    return cb_doc_insert(parent, parent->len, v);
}

static int build(cb_doc_value **out, const cb_config_scan *scan, const char *text, uint32_t *error_at) {
    level levels[CB_DOC_DEPTH + 1];
    size_t depth = 0;
    for (size_t i = 0; i < scan->n; i++) {
        const cb_config_spot *spot = cb_config_scan_at(scan, i);
        while (depth && spot->value >= levels[depth - 1].end)
            depth--;
        cb_doc_value *v = value_of(text, spot);
        int rc = !v ? CB_ENOMEM : depth ? add(levels[depth - 1].value, v, text, spot) : CB_OK;
        if (rc < 0) {
            *error_at = spot->key;
            cb_doc_free(v);
            return rc;
        }
        if (i == 0) *out = v; /* the caller frees it with all that is within */
        if (contains(v)) levels[depth++] = (level){.value = v, .end = (size_t)spot->value + spot->value_len};
    }
    return CB_OK;
}

int cb_doc_read(cb_doc_value **out, size_t *used, char *text, size_t len, uint32_t *error_at) {
    cb_config_scan scan;
    cb_doc_value *root = NULL;
    cb_config_scan_init(&scan);
    int rc = cb_config_scan_text(&scan, text, len);
    *error_at = scan.error_at;
    if (rc == CB_OK) rc = build(&root, &scan, text, error_at);
    cb_config_scan_free(&scan);
    if (rc < 0) {
        cb_doc_free(root);
        return rc;
    }
    *used = cb_doc_used(root);
    *out = root;
    return CB_OK;
}

static int tell_mistake(cb_document_mistake *out, int rc, const char *what, const char *text, uint32_t at) {
    uint32_t line, column;
    char why[232];
    snprintf(why, sizeof why, "%s", cb_last_error());
    cb_config_line_column(text, at, &line, &column);
    if (out && out->size >= sizeof *out) {
        out->line = line;
        out->column = column;
        memcpy(out->text, why, sizeof why);
    }
    return cb_fail(rc, "%s:%u:%u: %s", what, line, column, why);
}

int cb_doc_parse(cb_doc_value **out, size_t *used, cb_slice text, const char *what, cb_document_mistake *mistake) {
    uint32_t at = 0;
    if (text.len > CB_DOCUMENT_BYTES) return cb_fail(CB_ELIMIT, "%s is larger than 1 MiB", what);
    char *copy = cb_mem_get(heap, text.len + 1);
    if (!copy) return cb_fail(CB_ENOMEM, "no memory for a document of %zu bytes", text.len);
    if (text.len) memcpy(copy, text.base, text.len);
    copy[text.len] = '\0';
    int rc = cb_doc_read(out, used, copy, text.len, &at);
    if (rc == CB_EINVAL || rc == CB_ELIMIT) rc = tell_mistake(mistake, rc, what, copy, at);
    cb_mem_free(heap, copy);
    return rc;
}

/* ---- documents ---- */

static int wrap(cb_document **out, cb_doc_value *root, size_t used) {
    cb_document *d = cb_mem_new(heap, sizeof *d);
    if (!d) {
        cb_doc_free(root);
        return cb_fail(CB_ENOMEM, "no memory for a document");
    }
    *d = (cb_document){.root = root, .used = used};
    *out = d;
    return CB_OK;
}

int cb_document_parse(cb_document **out, cb_slice text, cb_document_mistake *mistake) {
    cb_doc_value *root = NULL;
    size_t used = 0;
    if (!out) return cb_fail(CB_EINVAL, "cb_document_parse: out is NULL");
    int rc = cb_doc_parse(&root, &used, text, "document", mistake);
    return rc < 0 ? rc : wrap(out, root, used);
}

int cb_document_copy(cb_document **out, const cb_document *d) {
    cb_doc_value *root = NULL;
    if (!out || !d) return cb_fail(CB_EINVAL, "cb_document_copy: %s is NULL", !out ? "out" : "d");
    int rc = cb_doc_clone(&root, d->root);
    return rc < 0 ? rc : wrap(out, root, d->used);
}

void cb_document_free(cb_document *d) {
    if (!d) return;
    cb_doc_free(d->root);
    cb_mem_free(heap, d);
}

int cb_document_equal(const cb_document *a, const cb_document *b) {
    return cb_doc_equal(a->root, b->root, false);
}
