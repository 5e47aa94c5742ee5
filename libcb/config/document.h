/* The values of a document as a tree. F1. Its depth is bounded, so what walks it may recurse. */
#ifndef CB_CONFIG_DOCUMENT_H
#define CB_CONFIG_DOCUMENT_H

#include "base/buf.h"
#include "config/scan.h"
#include <cb/document.h>
#include <stdbool.h>

enum {
    CB_DOC_DEPTH = CB_CONFIG_DEPTH,
    CB_DOC_MEMBERS = 4096,
    CB_DOC_ITEMS = 65536,
    CB_DOC_NAME = 1024,
    CB_DOC_TEXT_BYTES = 16 << 20 /* of what is written from documents */
};

enum cb_doc_kind { CB_DOC_NULL = 1, CB_DOC_FALSE, CB_DOC_TRUE, CB_DOC_NUMBER, CB_DOC_TEXT, CB_DOC_LIST, CB_DOC_OBJECT };

typedef struct cb_doc_value cb_doc_value;

/* A place in a container. The hash of a member's name stands here, so that a search does not visit every value. */
typedef struct cb_doc_item {
    cb_doc_value *value;
    uint32_t hash;
} cb_doc_item;

struct cb_doc_value {
    char *name; /* of a member, unescaped; NULL */
    cb_doc_item *items;
    uint32_t name_len, len; /* len: bytes of a text or number, or how many are within */
    uint32_t cap, at;       /* at: where its name or itself begins in the text that was parsed */
    uint32_t kind;          /* enum cb_doc_kind */
    char text[];            /* TEXT: unescaped; NUMBER: as written; NUL-terminated */
};

struct cb_document {
    cb_doc_value *root;
    size_t used; /* bytes that its text has at least */
};

/* ---- document.c ---- */

/* The tree of a text; *used is its size. text may be changed: comments become spaces. */
int cb_doc_read(cb_doc_value **out, size_t *used, char *text, size_t len, uint32_t *error_at);
/* The same of a text that stays as it is; mistake may be NULL. `what` names it in details. */
int cb_doc_parse(cb_doc_value **out, size_t *used, cb_slice text, const char *what, cb_document_mistake *mistake);
void cb_doc_free(cb_doc_value *v); /* with all within; NULL is fine */
int cb_doc_clone(cb_doc_value **out, const cb_doc_value *v);
size_t cb_doc_used(const cb_doc_value *v); /* with all within */
uint32_t cb_doc_height(const cb_doc_value *v);
bool cb_doc_equal(const cb_doc_value *a, const cb_doc_value *b, bool numbers_by_value);

/* The place of a member in an object, or -1. */
int64_t cb_doc_find(const cb_doc_value *object, const char *name, size_t len);
int cb_doc_name(cb_doc_value *v, const char *name, size_t len); /* NULL: none */
/* v becomes the item at `index` of a container; a member must be new. On failure it is still the caller's. */
int cb_doc_insert(cb_doc_value *container, size_t index, cb_doc_value *v);
cb_doc_value *cb_doc_take(cb_doc_value *container, size_t index); /* the caller's from now on */

/* ---- document_pointer.c ---- */

/* Walks a pointer one token at a time. */
typedef struct cb_doc_walk {
    const char *rest;
    char token[CB_DOC_NAME + 1]; /* unescaped */
    size_t len;
} cb_doc_walk;

/* 1: a token was read; 0: the end; CB_EINVAL. */
int cb_doc_token(cb_doc_walk *w);
/* The place that a token names in a container, or -1. */
int64_t cb_doc_place(const cb_doc_value *container, const cb_doc_walk *w);
/* The value at a pointer: CB_ENOENT, CB_EINVAL. */
int cb_doc_at(cb_doc_value **out, cb_doc_value *root, const char *pointer);
/* The container of what a pointer names, its depth (the root's is 1), and w at the last token. "" is CB_ENOENT. */
int cb_doc_parent(cb_doc_value **out, uint32_t *depth, cb_doc_value *root, const char *pointer, cb_doc_walk *w);
int cb_doc_push(cb_buf *pointer, const char *name, size_t len); /* "/" and the name, escaped */

/* ---- document_text.c ---- */

int cb_doc_write(cb_buf *out, const cb_doc_value *v, bool lines);
int cb_doc_quote(cb_buf *out, const char *text, size_t len);
char *cb_doc_text_of(cb_buf *b, int *rc); /* the buffer's memory as a text; frees it and gives NULL when *rc < 0 */

#endif
