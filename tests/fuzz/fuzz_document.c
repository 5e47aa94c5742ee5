/* Two documents, a pointer and a patch, separated by NUL: whatever they are, a change is whole or nothing, and what is
 * different between two documents leads from one to the other. */
#include <cb/config.h>
#include <cb/document.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static cb_slice piece(const uint8_t **at, size_t *left) {
    const uint8_t *end = *left ? memchr(*at, 0, *left) : NULL;
    const cb_slice s = {*at, end ? (size_t)(end - *at) : *left};
    *at += end ? s.len + 1 : s.len;
    *left -= end ? s.len + 1 : s.len;
    return s;
}

static char *text_of(const cb_document *d) {
    char *text = NULL;
    if (cb_document_text(&text, d, "", CB_DOCUMENT_COMPACT) < 0) abort();
    return text;
}

/* What was written means the same when it is read again. */
static void check_text(const cb_document *d) {
    char *text = text_of(d), *again = NULL;
    cb_document *copy = NULL;
    int rc = cb_document_parse(&copy, cb_slice_str(text), NULL);
    if (rc < 0 && strlen(text) <= CB_DOCUMENT_BYTES) abort(); /* escapes may make it longer than a document can be */
    if (rc == CB_OK) again = text_of(copy);
    if (rc == CB_OK && (strcmp(text, again) != 0 || !cb_document_equal(d, copy))) abort();
    cb_document_free(copy);
    cb_config_text_free(again);
    cb_config_text_free(text);
}

static void check_diff(const cb_document *a, const cb_document *b) {
    char *patch = NULL, *text = NULL;
    cb_document *copy = NULL;
    if (cb_document_diff_text(&text, a, b) == CB_OK && cb_document_equal(a, b) != !*text) abort();
    if (cb_document_diff_patch(&patch, a, b) == CB_OK && cb_document_copy(&copy, a) == CB_OK) {
        int rc = cb_document_patch(copy, "", cb_slice_str(patch), NULL);
        if (rc == CB_OK && !cb_document_equal(copy, b)) abort();
        if (rc < 0 && rc != CB_ELIMIT) abort();
    }
    cb_document_free(copy);
    cb_config_text_free(patch);
    cb_config_text_free(text);
}

static int apply(cb_document *d, int how, const char *pointer, cb_slice patch) {
    cb_document_mistake m = {.size = sizeof m};
    switch (how) {
    case 0:
        return cb_document_put(d, pointer, patch, &m);
    case 1:
        return cb_document_merge(d, pointer, patch, &m);
    case 2:
        return cb_document_patch(d, pointer, patch, &m);
    default:
        return cb_document_remove(d, pointer);
    }
}

static void change(const cb_document *d, const char *pointer, cb_slice patch) {
    for (int how = 0; how < 4; how++) {
        cb_document *copy = NULL;
        if (cb_document_copy(&copy, d) < 0) return;
        int rc = apply(copy, how, pointer, patch);
        if (rc < 0 && !cb_document_equal(copy, d)) abort();
        check_text(copy);
        check_diff(d, copy);
        cb_document_free(copy);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const cb_slice first = piece(&data, &size), second = piece(&data, &size), at = piece(&data, &size);
    cb_document *a = NULL, *b = NULL;
    uint32_t line = 0, column = 0;
    char *pointer = calloc(1, at.len + 1);
    if (pointer && at.len) memcpy(pointer, at.base, at.len);
    cb_document_mistake m = {.size = sizeof m};
    int rc = cb_document_parse(&a, first, &m);
    if (rc == CB_EINVAL && (!m.line || !m.column || !*m.text)) abort();
    if (cb_document_parse(&b, second, NULL) == CB_OK && a) check_diff(a, b);
    if (pointer && a) {
        check_text(a);
        change(a, pointer, (cb_slice){data, size});
        rc = cb_document_where(first, pointer, &line, &column);
        if (rc == CB_OK && (!line || !column)) abort();
    }
    cb_document_free(a);
    cb_document_free(b);
    free(pointer);
    return 0;
}
