/* JSON of strangers, read strictly and in place: RFC 8259 without white space tricks, valid UTF-8, no member twice, no
 * U+0000 in texts, bounded in depth, values and members. The document becomes a flat table in document order (a value,
 * then what is within it), which points into the text. Texts and names are unescaped and NUL-terminated. */
#ifndef CB_AUTH_JSON_H
#define CB_AUTH_JSON_H

#include "base/buf.h"
#include <stdbool.h>

enum cb_json_kind {
    CB_JSON_NULL = 1,
    CB_JSON_FALSE,
    CB_JSON_TRUE,
    CB_JSON_NUMBER,
    CB_JSON_TEXT,
    CB_JSON_LIST,
    CB_JSON_OBJECT
};

typedef struct cb_json_node {
    uint32_t name, name_len; /* of a member; name 0: none (no name begins the document) */
    uint32_t at, len;        /* of a text or number: within the document; of containers, len is how many */
    uint32_t next;           /* the index behind all that is within */
    int32_t kind;            /* enum cb_json_kind */
} cb_json_node;

typedef struct cb_json {
    char *text;
    const cb_json_node *nodes; /* 0 is the whole document */
    uint32_t len;              /* nodes */
    uint32_t block_bytes;      /* of cb_json_open(); else 0 */
} cb_json;

enum { CB_JSON_DEPTH = 16, CB_JSON_MEMBERS = 512 };

/* What cb_json_read() answers beside CB_OK. */
enum cb_json_fault { CB_JSON_BAD = 1, CB_JSON_TWICE = 2 };

/* How many nodes the text can have at most. */
size_t cb_json_room(const char *text, size_t len);
/* Reads text, which changes and must live as long as j, into nodes (room of them). 0, or an enum cb_json_fault with the
 * detail set. */
int cb_json_read(cb_json *j, char *text, size_t len, cb_json_node *nodes, size_t room);

/* Reads a copy of text, in a block of its own, which cb_json_close() wipes and frees (also of a j that is all zero).
 * As cb_json_read(); CB_ENOMEM. */
int cb_json_open(cb_json *j, cb_slice text);
void cb_json_close(cb_json *j);

/* The member of an object; NULL: none. */
const cb_json_node *cb_json_get(const cb_json *j, const cb_json_node *object, const char *name, size_t len);
/* That member's text; NULL: none, or no text. */
const char *cb_json_text(const cb_json *j, const cb_json_node *object, const char *name);
/* The first value within, and the one behind; NULL at the end. */
const cb_json_node *cb_json_first(const cb_json *j, const cb_json_node *of);
const cb_json_node *cb_json_next(const cb_json *j, const cb_json_node *of, const cb_json_node *at);
/* The other way: appends text as a JSON text. CB_EINVAL (not UTF-8), CB_ENOMEM, CB_ELIMIT. */
int cb_json_quote(cb_buf *b, const char *text);
double cb_json_number(const cb_json *j, const cb_json_node *at);
static inline cb_slice cb_json_slice(const cb_json *j, const cb_json_node *at) {
    return (cb_slice){(const uint8_t *)j->text + at->at, at->len};
}
static inline bool cb_json_is(const cb_json_node *at, int kind) {
    return at && at->kind == kind;
}

#endif
