/* Documents as text. */
#include "base/error.h"
#include "base/mem.h"
#include "config/document.h"
#include <stdio.h>
#include <string.h>

int cb_doc_quote(cb_buf *out, const char *text, size_t len) {
    int rc = cb_buf_add(out, "\"", 1);
    for (size_t i = 0, from = 0; i <= len && rc == CB_OK; i++) {
        const unsigned char c = i < len ? (unsigned char)text[i] : 0;
        if (i < len && c >= 0x20 && c != '"' && c != '\\' && c != 0x7f) continue;
        rc = cb_buf_add(out, text + from, i - from);
        from = i + 1;
        if (i == len || rc < 0) break;
        rc = c == '"' || c == '\\' ? cb_buf_printf(out, "\\%c", c)
             : c == '\n'           ? cb_buf_text(out, "\\n")
             : c == '\t'           ? cb_buf_text(out, "\\t")
                                   : cb_buf_printf(out, "\\u%04x", c);
    }
    return rc < 0 ? rc : cb_buf_add(out, "\"", 1);
}

static int line(cb_buf *out, uint32_t depth) {
    return cb_buf_printf(out, "\n%*s", 2 * (int)depth, "");
}

static int write_value(cb_buf *out, const cb_doc_value *v, bool lines, uint32_t depth);

static int write_container(cb_buf *out, const cb_doc_value *v, bool lines, uint32_t depth) {
    const bool object = v->kind == CB_DOC_OBJECT;
    int rc = cb_buf_add(out, object ? "{" : "[", 1);
    for (uint32_t i = 0; i < v->len && rc == CB_OK; i++) {
        const cb_doc_value *child = v->items[i].value;
        if (i) rc = cb_buf_add(out, ",", 1);
        if (rc == CB_OK && lines) rc = line(out, depth + 1);
        if (rc == CB_OK && object) rc = cb_doc_quote(out, child->name, child->name_len);
        if (rc == CB_OK && object) rc = cb_buf_text(out, lines ? ": " : ":");
        if (rc == CB_OK) rc = write_value(out, child, lines, depth + 1);
    }
    if (rc == CB_OK && lines && v->len) rc = line(out, depth);
    return rc < 0 ? rc : cb_buf_add(out, object ? "}" : "]", 1);
}

static int write_value(cb_buf *out, const cb_doc_value *v, bool lines, uint32_t depth) {
    static const char *const words[] = {[CB_DOC_NULL] = "null", [CB_DOC_FALSE] = "false", [CB_DOC_TRUE] = "true"};
    switch (v->kind) {
    case CB_DOC_NUMBER:
        return cb_buf_add(out, v->text, v->len);
    case CB_DOC_TEXT:
        return cb_doc_quote(out, v->text, v->len);
    case CB_DOC_LIST:
    case CB_DOC_OBJECT:
        return write_container(out, v, lines, depth);
    default:
        return cb_buf_text(out, words[v->kind]);
    }
}

int cb_doc_write(cb_buf *out, const cb_doc_value *v, bool lines) {
    int rc = write_value(out, v, lines, 0);
    return rc == CB_OK && lines ? cb_buf_add(out, "\n", 1) : rc;
}

char *cb_doc_text_of(cb_buf *b, int *rc) {
    if (*rc == CB_OK) *rc = cb_buf_add(b, "", 1);
    if (*rc == CB_OK) return (char *)b->base;
    cb_buf_free(b);
    return NULL;
}

int cb_document_text(char **out, const cb_document *d, const char *pointer, enum cb_document_form form) {
    cb_doc_value *v = NULL;
    cb_buf b;
    if (!out || !d || !pointer) return cb_fail(CB_EINVAL, "cb_document_text: out, d and pointer are needed");
    int rc = cb_doc_at(&v, d->root, pointer);
    if (rc < 0) return rc;
    cb_buf_init(&b, &cb_alloc_libc, CB_DOC_TEXT_BYTES);
    rc = cb_doc_write(&b, v, form == CB_DOCUMENT_LINES);
    char *text = cb_doc_text_of(&b, &rc);
    if (text) *out = text;
    return rc;
}
