/* JSON (RFC 8259) that a daemon answered with, as a tree. */
#ifndef CBCTL_JSON_H
#define CBCTL_JSON_H

#include <stdbool.h>
#include <stddef.h>

enum json_kind { JSON_NULL, JSON_FALSE, JSON_TRUE, JSON_NUMBER, JSON_TEXT, JSON_LIST, JSON_OBJECT };

enum { JSON_DEPTH = 128, JSON_NODES = 1 << 20 };

typedef struct json_node {
    const char *name; /* of a member; NULL: it is none */
    const char *text; /* JSON_TEXT: without quotes and escapes (U+0000 as U+FFFD); JSON_NUMBER: as it was written */
    const char *raw;  /* the value as it came */
    size_t raw_len;
    struct json_node *child, *next; /* in their order */
    enum json_kind kind;
} json_node;

typedef struct json_tree json_tree;

/* NULL: not JSON, deeper than JSON_DEPTH, larger than JSON_NODES values, or no memory. */
json_tree *json_read(const char *text, size_t len);
const json_node *json_root(const json_tree *t); /* NULL of NULL */
void json_free(json_tree *t);                   /* NULL is fine */

/* All of these take NULL for a value that is not there. */
bool json_is(const json_node *v, enum json_kind kind);
const json_node *json_get(const json_node *o, const char *name); /* the first member of that name; NULL: none */
const char *json_text(const json_node *o, const char *name);     /* of a member that is a text, else NULL */
double json_number(const json_node *v);                          /* NaN: it is none */
const json_node *json_first(const json_node *v);                 /* of a list or an object */
size_t json_count(const json_node *v);

#endif
