/* JSON pointers (RFC 6901). */
#include "base/error.h"
#include "base/mem.h"
#include "base/utf8.h"
#include "config/document.h"
#include <string.h>

int cb_doc_token(cb_doc_walk *w) {
    const char *p = w->rest;
    w->len = 0;
    if (!*p) return 0;
    if (*p++ != '/') return cb_fail(CB_EINVAL, "\"%.60s\" is no JSON pointer: a part begins with \"/\"", w->rest);
    for (; *p && *p != '/'; p++) {
        char c = *p;
        if (c == '~') {
            c = *++p;
            if (c != '0' && c != '1')
                return cb_fail(CB_EINVAL,
                               "\"%.60s\" is no JSON pointer: \"~\" is written \"~0\", \"/\" within a name "
                               "\"~1\"",
                               w->rest);
            c = c == '0' ? '~' : '/';
        }
        if (w->len == CB_DOC_NAME)
            return cb_fail(CB_EINVAL, "a part of a JSON pointer is longer than %d bytes", CB_DOC_NAME);
        w->token[w->len++] = c;
    }
    w->token[w->len] = '\0';
    w->rest = p;
    if (!cb_utf8_valid(w->token, w->len)) return cb_fail(CB_EINVAL, "a JSON pointer is UTF-8");
    return 1;
}

/* An index is "0", or digits that do not begin with 0. */
static int64_t index_of(const cb_doc_walk *w, uint32_t len) {
    int64_t n = 0;
    if (!w->len || w->len > 7 || (w->len > 1 && w->token[0] == '0')) return -1;
    for (size_t i = 0; i < w->len; i++) {
        if (w->token[i] < '0' || w->token[i] > '9') return -1;
        n = n * 10 + (w->token[i] - '0');
    }
    return n < len ? n : -1;
}

int64_t cb_doc_place(const cb_doc_value *c, const cb_doc_walk *w) {
    if (c->kind == CB_DOC_OBJECT) return cb_doc_find(c, w->token, w->len);
    return c->kind == CB_DOC_LIST ? index_of(w, c->len) : -1;
}

int cb_doc_at(cb_doc_value **out, cb_doc_value *root, const char *pointer) {
    cb_doc_walk w = {.rest = pointer};
    cb_doc_value *at = root;
    int more;
    while ((more = cb_doc_token(&w)) > 0) {
        const int64_t i = at ? cb_doc_place(at, &w) : -1;
        at = i < 0 ? NULL : at->items[i].value; /* the rest is read all the same: it may be no pointer */
    }
    if (more < 0) return more;
    if (!at) return cb_fail(CB_ENOENT, "there is nothing at \"%.200s\"", pointer);
    *out = at;
    return CB_OK;
}

int cb_doc_parent(cb_doc_value **out, uint32_t *depth, cb_doc_value *root, const char *pointer, cb_doc_walk *w) {
    cb_doc_value *at = root;
    *w = (cb_doc_walk){.rest = pointer};
    *depth = 1;
    int rc = cb_doc_token(w);
    if (rc < 0) return rc;
    if (rc == 0) return cb_fail(CB_ENOENT, "the whole document is part of nothing");
    while (*w->rest) {
        const int64_t i = cb_doc_place(at, w);
        if (i < 0) return cb_fail(CB_ENOENT, "there is nothing at \"%.*s\"", (int)(w->rest - pointer), pointer);
        at = at->items[i].value;
        ++*depth;
        rc = cb_doc_token(w);
        if (rc < 0) return rc;
    }
    if (at->kind < CB_DOC_LIST) return cb_fail(CB_ENOENT, "\"%.200s\" is within something that has no parts", pointer);
    *out = at;
    return CB_OK;
}

int cb_doc_push(cb_buf *pointer, const char *name, size_t len) {
    int rc = cb_buf_add(pointer, "/", 1);
    for (size_t i = 0; i < len && rc == CB_OK; i++) {
        const char *as = name[i] == '~' ? "~0" : name[i] == '/' ? "~1" : NULL;
        rc = as ? cb_buf_add(pointer, as, 2) : cb_buf_add(pointer, name + i, 1);
    }
    return rc;
}

const char *cb_document_string(const cb_document *d, const char *pointer) {
    cb_doc_value *v = NULL;
    return cb_doc_at(&v, d->root, pointer) == CB_OK && v->kind == CB_DOC_TEXT ? v->text : NULL;
}

int cb_document_has(const cb_document *d, const char *pointer) {
    cb_doc_value *v = NULL;
    return cb_doc_at(&v, d->root, pointer) == CB_OK;
}

int64_t cb_document_count(const cb_document *d, const char *pointer) {
    cb_doc_value *v = NULL;
    int rc = cb_doc_at(&v, d->root, pointer);
    if (rc < 0) return rc;
    return v->kind >= CB_DOC_LIST ? (int64_t)v->len : 0;
}

const char *cb_document_member(const cb_document *d, const char *pointer, size_t index) {
    cb_doc_value *v = NULL;
    const bool good = cb_doc_at(&v, d->root, pointer) == CB_OK && v->kind == CB_DOC_OBJECT && index < v->len;
    return good ? v->items[index].value->name : NULL;
}

int cb_document_where(cb_slice text, const char *pointer, uint32_t *line, uint32_t *column) {
    cb_doc_value *root = NULL, *at;
    cb_doc_walk w = {.rest = pointer};
    size_t used;
    int more;
    int rc = cb_doc_parse(&root, &used, text, "document", NULL);
    if (rc < 0) return rc;
    at = root;
    while ((more = cb_doc_token(&w)) > 0) {
        const int64_t i = cb_doc_place(at, &w);
        if (i < 0) break;
        at = at->items[i].value;
    }
    if (more >= 0) cb_config_line_column((const char *)text.base, at->at, line, column);
    cb_doc_free(root);
    return more < 0 ? more : CB_OK;
}
