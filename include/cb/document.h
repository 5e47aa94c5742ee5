/* cb/document.h - JSON documents that are changed: parts by pointer, patches, differences.
 *
 * A document keeps what JSON means: its members in their order, its numbers as they were written (integers of 64 bits
 * and decimal fractions stay what they are), no comments. Its own form of text, which cb_document_text() gives, is JSON
 * (RFC 8259) with two spaces a level, or without white space.
 *
 * Pointers are those of RFC 6901: "" is the whole document, "/groups/web/origins/0" an item, "~1" a slash within a name
 * and "~0" a tilde. A pointer that is not one is CB_EINVAL in every function; one that leads nowhere is CB_ENOENT.
 *
 * Documents are bounded, given and made: 1 MiB, 32 levels, 4,096 members an object, 65,536 items an array, names of
 * 1,024 bytes. A change beyond that is CB_ELIMIT. A change that fails has changed nothing.
 *
 * No function here asks the system for anything but memory. A document is used by one thread at a time; one that nobody
 * changes may be read by several. */
#ifndef CB_DOCUMENT_H
#define CB_DOCUMENT_H

#include <cb/base.h>

CB_BEGIN

typedef struct cb_document cb_document;

enum {
    CB_DOCUMENT_BYTES = 1 << 20,
    CB_DOCUMENT_PATCH_OPS = 512 /* operations of a JSON patch */
};

enum cb_document_form {
    CB_DOCUMENT_LINES = 0,  /* a member a line, two spaces a level, a newline at the end */
    CB_DOCUMENT_COMPACT = 1 /* no white space */
};

/* Where a text stops to be JSON, and why. */
typedef struct cb_document_mistake {
    size_t size;           /* set by the caller */
    uint32_t line, column; /* from 1; the column counts bytes */
    char text[232];
} cb_document_mistake;

/* Reads JSON in UTF-8, also with // and block comments. Members that appear twice are refused, so is U+0000 in a text.
 * mistake may be NULL; it is filled when the answer is CB_EINVAL and the text is at fault. CB_EINVAL (the detail has
 * line and column), CB_ELIMIT, CB_ENOMEM. */
CB_API int cb_document_parse(cb_document **out, cb_slice text, cb_document_mistake *mistake);
/* A copy of its own. CB_ENOMEM. */
CB_API int cb_document_copy(cb_document **out, const cb_document *d);
CB_API void cb_document_free(cb_document *d); /* NULL is fine */

/* The part at a pointer as JSON, NUL-terminated, to be freed with cb_config_text_free(). CB_ENOENT, CB_EINVAL,
 * CB_ENOMEM, CB_ELIMIT (more than 16 MiB of white space). */
CB_API int cb_document_text(char **out, const cb_document *d, const char *pointer, enum cb_document_form form);
/* The text that stands at a pointer, without quotes and escapes, as long as the document is not changed; NULL: nothing
 * is there, or no text. */
CB_API const char *cb_document_string(const cb_document *d, const char *pointer);
/* Is there something? 1 or 0. */
CB_API int cb_document_has(const cb_document *d, const char *pointer);
/* How many parts it has: members, items, or 0. CB_ENOENT, CB_EINVAL. */
CB_API int64_t cb_document_count(const cb_document *d, const char *pointer);
/* The name of a member, as long as the document is not changed; NULL: there is none, or it is no object. */
CB_API const char *cb_document_member(const cb_document *d, const char *pointer, size_t index);
/* Do they mean the same? Members may stand in another order; numbers must be written alike. 1 or 0. */
CB_API int cb_document_equal(const cb_document *a, const cb_document *b);

/* Puts a value (JSON) at a pointer: replaces what is there, or adds a member, or, with "-" or the number of items as
 * the last part, an item at the end. What it is put into must be there. CB_ENOENT, CB_EINVAL, CB_ELIMIT, CB_ENOMEM. */
CB_API int cb_document_put(cb_document *d, const char *pointer, cb_slice value, cb_document_mistake *mistake);
/* Removes a member or an item; items behind it move up. "" is CB_EINVAL: a document has a value. */
CB_API int cb_document_remove(cb_document *d, const char *pointer);
/* A merge patch (RFC 7396) for the part at a pointer. CB_ENOENT, CB_EINVAL, CB_ELIMIT, CB_ENOMEM. */
CB_API int cb_document_merge(cb_document *d, const char *pointer, cb_slice patch, cb_document_mistake *mistake);
/* A JSON patch (RFC 6902) for the part at a pointer: all of its operations, or none. The detail says which operation
 * failed, and why. CB_ENOENT (a path leads nowhere), CB_EEXIST (a "test" found something else), CB_EINVAL (no patch; a
 * pointer is not one), CB_ELIMIT, CB_ENOMEM. */
CB_API int cb_document_patch(cb_document *d, const char *pointer, cb_slice patch, cb_document_mistake *mistake);

/* One difference. Valid during the call that tells it. */
typedef struct cb_document_change {
    const char *pointer;        /* where, when all that was told before has been done to the first document */
    const char *before, *after; /* JSON without white space; NULL: nothing is there */
} cb_document_change;

typedef void (*cb_document_change_fn)(const cb_document_change *c, void *user);

/* Tells how to get from a to b, in an order in which it can be done: items that are equal at the beginning and at the
 * end of an array stay, those between are compared one by one, and what is more or fewer is added or removed at their
 * end. CB_ELIMIT (all pointers and values together are more than 16 MiB), CB_ENOMEM: an unknown part was told. */
CB_API int cb_document_diff(const cb_document *a, const cb_document *b, cb_document_change_fn fn, void *user);
/* The same as a JSON patch (RFC 6902), compact, to be freed with cb_config_text_free(). CB_ELIMIT, CB_ENOMEM. */
CB_API int cb_document_diff_patch(char **out, const cb_document *a, const cb_document *b);
/* The same for people: "- pointer: before" and "+ pointer: after", a line each. To be freed as above. */
CB_API int cb_document_diff_text(char **out, const cb_document *a, const cb_document *b);

/* Line and column (from 1) of the value at a pointer in a text, or of the deepest that is there on the way: what a
 * message about a configuration needs. CB_EINVAL (no JSON, no pointer), CB_ELIMIT, CB_ENOMEM. */
CB_API int cb_document_where(cb_slice text, const char *pointer, uint32_t *line, uint32_t *column);

CB_END
#endif
