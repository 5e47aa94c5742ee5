/* cb/config.h - configuration documents: JSON with comments, checked against a declared schema, decoded into a struct.
 *
 * A schema is a table of rules: each names a member, its kind, its range, its default, a sentence about it, and where
 * in a C struct the value goes. One table serves four ends: checking (every mistake is told with its JSON pointer, line
 * and column), decoding, defaults, and a published JSON Schema. The result is an immutable snapshot that threads share.
 *
 *   typedef struct { const char *listen; int64_t workers; } my_config;
 *   static const cb_config_rule members[] = {
 *       {.name = "listen", .kind = CB_CONFIG_TEXT, .format = CB_FORMAT_LISTEN, .required = 1,
 *        .offset = offsetof(my_config, listen), .doc = "Address and port to listen on."},
 *       {.name = "workers", .kind = CB_CONFIG_INT, .min = 1, .max = 256, .fallback = "1",
 *        .offset = offsetof(my_config, workers), .doc = "Threads that serve."},
 *       {.name = NULL}};
 *
 * Documents: JSON (RFC 8259) in UTF-8 with // and block comments, at most 1 MiB and 32 levels deep. Members that appear
 * twice are refused; so are trailing commas. Whole numbers are exact in 64 bits. A root member "$schema" is allowed and
 * ignored. */
#ifndef CB_CONFIG_H
#define CB_CONFIG_H

#include <cb/base.h>

CB_BEGIN

typedef struct cb_config cb_config;
typedef struct cb_config_draft cb_config_draft;

/* What a member is, and what lies at its offset in the struct of the object that it belongs to. */
enum cb_config_kind {
    CB_CONFIG_TEXT = 1,   /* const char *; NULL when absent without a fallback. min and max are bytes */
    CB_CONFIG_INT = 2,    /* int64_t; min and max are values */
    CB_CONFIG_BOOL = 3,   /* int32_t: 0 or 1 */
    CB_CONFIG_ENUM = 4,   /* int32_t: the index in `names` */
    CB_CONFIG_SET = 5,    /* uint32_t: an array of texts of `names`, without repeats; 1 << index each, or-ed */
    CB_CONFIG_OBJECT = 6, /* const struct *, see `item_size`; NULL when absent. With fallback "{}": all defaults */
    CB_CONFIG_ARRAY = 7,  /* cb_config_list: of structs when `members` is set, else of const char *. min, max: items */
    CB_CONFIG_MAP = 8     /* cb_config_list of structs for an object with free names; each struct begins with a
                           * const char * that gets the name. Without `members` the values are texts, and the structs
                           * are cb_config_pair. min and max are entries */
};

/* The items of an array or map, in the order of the document. */
typedef struct cb_config_list {
    const void *at;
    size_t len;
} cb_config_list;

/* A name and its text: an entry of a map without members. */
typedef struct cb_config_pair {
    const char *name, *text;
} cb_config_pair;

/* Formats of texts. A text that does not fit is refused with what is wrong with it. */
enum cb_config_format {
    CB_FORMAT_ANY = 0,
    CB_FORMAT_LISTEN = 1, /* "127.0.0.1:443", "[::1]:443", ":443" */
    CB_FORMAT_CIDR = 2,   /* "10.0.0.0/8", "2001:db8::/32", or one address */
    CB_FORMAT_ORIGIN = 3, /* "http://host[:port]" or "https://host[:port]" */
    CB_FORMAT_HOST = 4,   /* a host pattern: "www.example.org", "*.example.org" or "*" */
    CB_FORMAT_PATH = 5,   /* a URL path: begins with "/", without query, fragment, spaces and "." segments */
    CB_FORMAT_FILE = 6,   /* a file's path: not empty */
    CB_FORMAT_NAME = 7    /* letters, digits, "-", "_" and "."; begins with a letter or digit */
};

typedef struct cb_config_rule cb_config_rule;

/* One member of an object. A table of rules ends with a rule without a name. All texts are borrowed: schemas are
 * static data. */
struct cb_config_rule {
    const char *name;
    const char *doc;               /* a sentence; goes into the JSON Schema */
    const char *fallback;          /* the default, NULL = none. TEXT, ENUM: the text without quotes; INT: "8080"; BOOL:
                                    * "true"; SET: "h1,h2"; OBJECT: "{}" */
    const char *const *names;      /* ENUM, SET: ends with NULL */
    const cb_config_rule *members; /* OBJECT, ARRAY of structs, MAP */
    size_t item_size;              /* OBJECT, ARRAY, MAP: size of the struct that `members` describe */
    size_t offset;                 /* in the struct of the object that this member belongs to */
    int64_t min, max;              /* 0 and 0: no bounds (TEXT, ARRAY and MAP: at most 4,096) */
    uint8_t kind;                  /* enum cb_config_kind */
    uint8_t format;                /* TEXT, and ARRAY of texts: enum cb_config_format; MAP: of the names */
    uint8_t required;
    uint8_t reserved[5];
};

typedef struct cb_config_schema {
    size_t size;
    const char *title;             /* "cb-edge configuration" */
    const cb_config_rule *members; /* of the root object */
    size_t root_size;              /* of its struct */
    /* Checks what rules cannot say (names that refer to each other) and complains with cb_config_complain(). Called
     * only when the document fits the rules. May be NULL. */
    void (*check)(cb_config_draft *d, const void *root);
} cb_config_schema;

/* One mistake. Valid during the call that tells it. */
typedef struct cb_config_error {
    const char *file;    /* the name of the document */
    const char *pointer; /* RFC 6901; "" is the root */
    const char *text;
    uint32_t line, column; /* from 1; the column counts bytes */
} cb_config_error;

typedef void (*cb_config_error_fn)(const cb_config_error *e, void *user);

/* Checks and decodes a document. `name` stands for it in messages. Every mistake (the first 20) is told to on_error,
 * which may be NULL, in the order of the document; a document that is not JSON has one. On CB_EINVAL cb_last_error() is
 * the first of them, as "name:line:column: pointer: text". *out is to be given back with cb_config_unref(). The schema
 * and its tables must outlive the snapshot. Thread-safe. CB_EINVAL, CB_ELIMIT (larger than 1 MiB), CB_ENOMEM, CB_E2BIG.
 */
CB_API int cb_config_parse(cb_config **out, const cb_config_schema *schema, cb_slice text, const char *name,
                           cb_config_error_fn on_error, void *user);
/* The same for a regular file. Also CB_ENOENT, CB_EPERM, CB_ESYS. */
CB_API int cb_config_load(cb_config **out, const cb_config_schema *schema, const char *file,
                          cb_config_error_fn on_error, void *user);

/* Tells a mistake at a JSON pointer; only inside a schema's check(). Both texts are copied. */
CB_API void cb_config_complain(cb_config_draft *d, const char *pointer, const char *text);

/* The struct of the root object. Everything in it lives as long as the snapshot and never changes. Thread-safe. */
CB_API const void *cb_config_root(const cb_config *c);
/* One more reference; returns c. Thread-safe, as is unref. */
CB_API cb_config *cb_config_ref(cb_config *c);
CB_API void cb_config_unref(cb_config *c); /* NULL is fine */

/* The schema as JSON Schema (2020-12), one text to be freed with cb_config_text_free(). CB_ENOMEM, CB_EINVAL (the
 * tables are not consistent: the detail says where), CB_E2BIG. */
CB_API int cb_config_schema_json(char **out, const cb_config_schema *schema);
/* NULL is fine. */
CB_API void cb_config_text_free(char *text);

CB_END
#endif
