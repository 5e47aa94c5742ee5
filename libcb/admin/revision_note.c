#include "admin/revision_note.h"
#include "base/error.h"
#include "base/mem.h"
#include "base/utf8.h"
#include "config/document.h"
#include <cb/revisions.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static int check(const char *what, const char *text, size_t most) {
    const size_t n = text ? strlen(text) : 0;
    bool good = n <= most && (!n || cb_utf8_valid(text, n));
    for (size_t i = 0; good && i < n; i++)
        good = (unsigned char)text[i] >= 0x20 && text[i] != 0x7f;
    return good ? CB_OK : cb_fail(CB_EINVAL, "%s: UTF-8 without control characters, at most %zu bytes", what, most);
}

static int member(cb_buf *out, const char *name, const char *text) {
    if (!text || !*text) return CB_OK;
    int rc = cb_buf_printf(out, ",\"%s\":", name);
    return rc < 0 ? rc : cb_doc_quote(out, text, strlen(text));
}

static int number(cb_buf *out, const char *name, uint64_t n) {
    return n ? cb_buf_printf(out, ",\"%s\":%" PRIu64, name, n) : CB_OK;
}

static int write_with(cb_buf *out, const cb_revision_note *n, const char *pointer) {
    int rc = cb_buf_text(out, "{\"how\":");
    if (rc == CB_OK) rc = cb_doc_quote(out, n->how, strlen(n->how));
    if (rc == CB_OK) rc = member(out, "by", n->actor);
    if (rc == CB_OK) rc = member(out, "why", n->reason);
    if (rc == CB_OK) rc = member(out, "file", n->file);
    if (rc == CB_OK) rc = number(out, "from", n->from);
    if (rc == CB_OK) rc = number(out, "before", n->before);
    if (rc == CB_OK) rc = member(out, "at", pointer);
    return rc < 0 ? rc : cb_buf_text(out, "}");
}

int cb_revision_note_write(cb_buf *out, const cb_revision_note *n) {
    const size_t begin = out->len;
    int rc = check("actor", n->actor, CB_REVISIONS_NAME_BYTES);
    if (rc == CB_OK) rc = check("reason", n->reason, CB_REVISIONS_REASON_BYTES);
    if (rc == CB_OK) rc = write_with(out, n, n->pointer);
    if (rc == CB_OK && out->len - begin > CB_STORE_NOTE_BYTES) {
        out->len = begin;
        rc = write_with(out, n, NULL);
    }
    if (rc == CB_OK && out->len - begin > CB_STORE_NOTE_BYTES)
        rc = cb_fail(CB_EINVAL, "actor and reason together are too long");
    return rc;
}

static char *copy_text(char **at, const char *text, size_t len) {
    char *copy = *at;
    if (len) memcpy(copy, text, len);
    copy[len] = '\0';
    *at += len + 1;
    return copy;
}

static const cb_doc_value *find(const cb_doc_value *root, const char *name, uint32_t kind) {
    const int64_t i = root && root->kind == CB_DOC_OBJECT ? cb_doc_find(root, name, strlen(name)) : -1;
    const cb_doc_value *v = i < 0 ? NULL : root->items[i].value;
    return v && v->kind == kind ? v : NULL;
}

int cb_revision_note_read(cb_revision_note *out, char **bytes, cb_slice text) {
    static const char *const names[] = {"by", "why", "how", "at"};
    const char **const parts[] = {&out->actor, &out->reason, &out->how, &out->pointer};
    cb_doc_value *root = NULL;
    size_t used;
    char *at = cb_mem_get(&cb_alloc_libc, text.len + 8);
    if (!at) return cb_fail(CB_ENOMEM, "no memory for a revision");
    *out = (cb_revision_note){.actor = "", .reason = "", .how = "", .pointer = ""};
    *bytes = at;
    int rc = cb_doc_parse(&root, &used, text, "note", NULL);
    if (rc < 0 || !find(root, "how", CB_DOC_TEXT)) {
        if (text.len) out->reason = copy_text(&at, (const char *)text.base, text.len);
        cb_doc_free(rc < 0 ? NULL : root);
        return CB_OK;
    }
    for (size_t i = 0; i < 4; i++) {
        const cb_doc_value *v = find(root, names[i], CB_DOC_TEXT);
        if (v) *parts[i] = copy_text(&at, v->text, v->len);
    }
    const cb_doc_value *file = find(root, "file", CB_DOC_TEXT), *from = find(root, "from", CB_DOC_NUMBER),
                       *before = find(root, "before", CB_DOC_NUMBER);
    if (file && file->len == CB_REVISION_HASH) memcpy(out->file, file->text, CB_REVISION_HASH + 1);
    out->from = from ? strtoull(from->text, NULL, 10) : 0;
    out->before = before ? strtoull(before->text, NULL, 10) : 0;
    cb_doc_free(root);
    return CB_OK;
}
