/* What is different between two documents. */
#include "base/error.h"
#include "base/mem.h"
#include "config/document.h"
#include <stdio.h>
#include <string.h>

typedef struct differ {
    cb_buf pointer, before, after;
    size_t bytes; /* that were told */
    cb_document_change_fn fn;
    void *user;
} differ;

static int differ_begin(differ *d, cb_document_change_fn fn, void *user) {
    *d = (differ){.fn = fn, .user = user};
    cb_buf_init(&d->pointer, &cb_alloc_libc, CB_DOC_TEXT_BYTES);
    cb_buf_init(&d->before, &cb_alloc_libc, CB_DOC_TEXT_BYTES);
    cb_buf_init(&d->after, &cb_alloc_libc, CB_DOC_TEXT_BYTES);
    return fn ? CB_OK : cb_fail(CB_EINVAL, "cb_document_diff: fn is NULL");
}

static void differ_end(differ *d) {
    cb_buf_free(&d->pointer);
    cb_buf_free(&d->before);
    cb_buf_free(&d->after);
}

static int value_text(cb_buf *b, const cb_doc_value *v) {
    b->len = 0;
    if (!v) return CB_OK;
    int rc = cb_doc_write(b, v, false);
    return rc < 0 ? rc : cb_buf_add(b, "", 1);
}

static int tell(differ *d, const cb_doc_value *before, const cb_doc_value *after) {
    int rc = value_text(&d->before, before);
    if (rc == CB_OK) rc = value_text(&d->after, after);
    if (rc == CB_OK) rc = cb_buf_add(&d->pointer, "", 1);
    if (rc < 0) return rc;
    d->bytes += d->pointer.len + d->before.len + d->after.len;
    if (d->bytes > CB_DOC_TEXT_BYTES) return cb_fail(CB_ELIMIT, "the differences are more than 16 MiB");
    const cb_document_change c = {.pointer = (const char *)d->pointer.base,
                                  .before = before ? (const char *)d->before.base : NULL,
                                  .after = after ? (const char *)d->after.base : NULL};
    d->fn(&c, d->user);
    d->pointer.len--;
    return CB_OK;
}

static int compare(differ *d, const cb_doc_value *a, const cb_doc_value *b);

/* One of a and b may be NULL. */
static int within(differ *d, const char *name, size_t len, const cb_doc_value *a, const cb_doc_value *b) {
    const size_t before = d->pointer.len;
    int rc = cb_doc_push(&d->pointer, name, len);
    if (rc == CB_OK) rc = a && b ? compare(d, a, b) : tell(d, a, b);
    d->pointer.len = before;
    return rc;
}

static int within_list(differ *d, uint32_t index, const cb_doc_value *a, const cb_doc_value *b) {
    char name[16];
    const int n = snprintf(name, sizeof name, "%u", index);
    return within(d, name, (size_t)n, a, b);
}

static int compare_objects(differ *d, const cb_doc_value *a, const cb_doc_value *b) {
    int rc = CB_OK;
    for (uint32_t i = 0; i < a->len && rc == CB_OK; i++) {
        const cb_doc_value *x = a->items[i].value;
        const int64_t at = cb_doc_find(b, x->name, x->name_len);
        rc = within(d, x->name, x->name_len, x, at < 0 ? NULL : b->items[at].value);
    }
    for (uint32_t i = 0; i < b->len && rc == CB_OK; i++) {
        const cb_doc_value *y = b->items[i].value;
        if (cb_doc_find(a, y->name, y->name_len) < 0) rc = within(d, y->name, y->name_len, NULL, y);
    }
    return rc;
}

static bool same(const cb_doc_value *a, uint32_t i, const cb_doc_value *b, uint32_t k) {
    return cb_doc_equal(a->items[i].value, b->items[k].value, false);
}

static int compare_lists(differ *d, const cb_doc_value *a, const cb_doc_value *b) {
    const uint32_t less = a->len < b->len ? a->len : b->len;
    uint32_t head = 0, tail = 0;
    int rc = CB_OK;
    while (head < less && same(a, head, b, head))
        head++;
    while (tail < less - head && same(a, a->len - tail - 1, b, b->len - tail - 1))
        tail++;
    const uint32_t pairs = less - tail;
    for (uint32_t i = head; i < pairs && rc == CB_OK; i++)
        rc = within_list(d, i, a->items[i].value, b->items[i].value);
    for (uint32_t i = a->len - tail; i > pairs && rc == CB_OK; i--)
        rc = within_list(d, i - 1, a->items[i - 1].value, NULL);
    for (uint32_t i = pairs; i < b->len - tail && rc == CB_OK; i++)
        rc = within_list(d, i, NULL, b->items[i].value);
    return rc;
}

static int compare(differ *d, const cb_doc_value *a, const cb_doc_value *b) {
    if (a->kind == CB_DOC_OBJECT && b->kind == CB_DOC_OBJECT) return compare_objects(d, a, b);
    if (a->kind == CB_DOC_LIST && b->kind == CB_DOC_LIST) return compare_lists(d, a, b);
    return cb_doc_equal(a, b, false) ? CB_OK : tell(d, a, b);
}

int cb_document_diff(const cb_document *a, const cb_document *b, cb_document_change_fn fn, void *user) {
    differ d;
    int rc = differ_begin(&d, fn, user);
    if (rc == CB_OK && (!a || !b)) rc = cb_fail(CB_EINVAL, "cb_document_diff: two documents are needed");
    if (rc == CB_OK) rc = compare(&d, a->root, b->root);
    differ_end(&d);
    return rc;
}

/* ---- as text ---- */

typedef struct writer {
    cb_buf out;
    int rc;
    bool any;
} writer;

static void put(writer *w, const char *text) {
    if (w->rc == CB_OK) w->rc = cb_buf_text(&w->out, text);
}

static void patch_line(const cb_document_change *c, void *user) {
    writer *w = user;
    put(w, w->any ? ",{\"op\":\"" : "{\"op\":\"");
    w->any = true;
    put(w, !c->after ? "remove" : c->before ? "replace" : "add");
    put(w, "\",\"path\":");
    if (w->rc == CB_OK) w->rc = cb_doc_quote(&w->out, c->pointer, strlen(c->pointer));
    if (c->after) {
        put(w, ",\"value\":");
        put(w, c->after);
    }
    put(w, "}");
}

static void side(writer *w, const char *sign, const char *pointer, const char *value) {
    if (!value) return;
    put(w, sign);
    put(w, *pointer ? pointer : "(the whole document)");
    put(w, ": ");
    put(w, value);
    put(w, "\n");
}

static void text_line(const cb_document_change *c, void *user) {
    side(user, "- ", c->pointer, c->before);
    side(user, "+ ", c->pointer, c->after);
}

static int diff_as(char **out, const cb_document *a, const cb_document *b, cb_document_change_fn fn, const char *begin,
                   const char *end) {
    writer w = {.rc = CB_OK};
    if (!out) return cb_fail(CB_EINVAL, "cb_document_diff: out is NULL");
    cb_buf_init(&w.out, &cb_alloc_libc, 2 * (size_t)CB_DOC_TEXT_BYTES);
    put(&w, begin);
    int rc = cb_document_diff(a, b, fn, &w);
    put(&w, end);
    if (rc == CB_OK) rc = w.rc;
    char *text = cb_doc_text_of(&w.out, &rc);
    if (text) *out = text;
    return rc;
}

int cb_document_diff_patch(char **out, const cb_document *a, const cb_document *b) {
    return diff_as(out, a, b, patch_line, "[", "]");
}

int cb_document_diff_text(char **out, const cb_document *a, const cb_document *b) {
    return diff_as(out, a, b, text_line, "", "");
}
