/* Rules as JSON Schema 2020-12, for editors and for people. */
#include "base/error.h"
#include "base/mem.h"
#include "base/opts.h"
#include "config/draft.h"
#include <inttypes.h>
#include <string.h>

enum { TEXT_MAX = 4 * 1024 * 1024 };

typedef struct writer {
    cb_buf out;
    int rc;
    int depth;
    bool first; /* of the object or array at hand */
} writer;

static void put(writer *w, const char *text) {
    if (w->rc == CB_OK) w->rc = cb_buf_text(&w->out, text);
}

static void put_quoted(writer *w, const char *text, size_t len) {
    put(w, "\"");
    for (size_t i = 0; i < len && w->rc == CB_OK; i++) {
        if (text[i] == '"' || text[i] == '\\') put(w, "\\");
        w->rc = cb_buf_add(&w->out, text + i, 1);
    }
    put(w, "\"");
}

static void line(writer *w) {
    put(w, w->first ? "\n" : ",\n");
    w->first = false;
    for (int i = 0; i < w->depth; i++)
        put(w, "  ");
}

static void key(writer *w, const char *name) {
    line(w);
    put_quoted(w, name, strlen(name));
    put(w, ": ");
}

static void begin(writer *w, const char *bracket) {
    put(w, bracket);
    w->depth++;
    w->first = true;
}

static void finish(writer *w, const char *bracket) {
    bool empty = w->first;
    w->depth--;
    w->first = true;
    if (!empty) line(w);
    put(w, bracket);
    w->first = false;
}

static void text_member(writer *w, const char *name, const char *value) {
    if (!value) return;
    key(w, name);
    put_quoted(w, value, strlen(value));
}

static void int_member(writer *w, const char *name, int64_t v) {
    key(w, name);
    if (w->rc == CB_OK) w->rc = cb_buf_printf(&w->out, "%" PRId64, v);
}

static void names_member(writer *w, const char *const *names) {
    key(w, "enum");
    put(w, "[");
    for (size_t i = 0; names && names[i]; i++) {
        put(w, i ? ", " : "");
        put_quoted(w, names[i], strlen(names[i]));
    }
    put(w, "]");
}

static void fallback_member(writer *w, const cb_config_rule *r) {
    if (!r->fallback) return;
    key(w, "default");
    switch (r->kind) {
    case CB_CONFIG_TEXT:
    case CB_CONFIG_ENUM:
        put_quoted(w, r->fallback, strlen(r->fallback));
        break;
    case CB_CONFIG_SET:
        put(w, "[");
        for (const char *p = r->fallback; *p;) {
            size_t n = strcspn(p, ",");
            put_quoted(w, p, n);
            p += n;
            if (*p == ',') {
                put(w, ", ");
                p++;
            }
        }
        put(w, "]");
        break;
    default:
        put(w, r->fallback);
        break;
    }
}

static void object_body(writer *w, const cb_config_rule *rules);

static void bounds(writer *w, const cb_config_rule *r, const char *min, const char *max) {
    if (r->min) int_member(w, min, r->min);
    int_member(w, max, r->min || r->max ? r->max : CB_CONFIG_ITEMS);
}

static void text_body(writer *w, const cb_config_rule *r, bool bounded) {
    text_member(w, "type", "string");
    text_member(w, "format", cb_config_format_name(r->format));
    if (bounded && r->max) bounds(w, r, "minLength", "maxLength");
}

static void items_body(writer *w, const cb_config_rule *r) {
    begin(w, "{");
    if (r->kind == CB_CONFIG_SET) {
        text_member(w, "type", "string");
        names_member(w, r->names);
    } else if (r->members) {
        object_body(w, r->members);
    } else if (r->kind == CB_CONFIG_MAP) {
        text_member(w, "type", "string"); /* the format is that of the names */
    } else {
        text_body(w, r, false);
    }
    finish(w, "}");
}

static void rule_body(writer *w, const cb_config_rule *r) {
    static const char *const types[] = {
        [CB_CONFIG_INT] = "integer", [CB_CONFIG_BOOL] = "boolean", [CB_CONFIG_ENUM] = "string",
        [CB_CONFIG_SET] = "array",   [CB_CONFIG_ARRAY] = "array",  [CB_CONFIG_MAP] = "object",
        [CB_CONFIG_OBJECT] = NULL};
    if (r->kind < CB_CONFIG_TEXT || r->kind > CB_CONFIG_MAP) {
        w->rc = cb_fail(CB_EINVAL, "configuration rule \"%s\": its kind is %d", r->name, r->kind);
        return;
    }
    text_member(w, "description", r->doc);
    if (r->kind == CB_CONFIG_TEXT)
        text_body(w, r, true);
    else
        text_member(w, "type", types[r->kind]);
    if (r->kind == CB_CONFIG_INT && (r->min || r->max)) {
        int_member(w, "minimum", r->min);
        int_member(w, "maximum", r->max);
    }
    if (r->kind == CB_CONFIG_ENUM) names_member(w, r->names);
    if (r->kind == CB_CONFIG_ARRAY) bounds(w, r, "minItems", "maxItems");
    if (r->kind == CB_CONFIG_MAP) bounds(w, r, "minProperties", "maxProperties");
    if (r->kind == CB_CONFIG_SET) {
        int_member(w, "minItems", 1);
        key(w, "uniqueItems");
        put(w, "true");
    }
    if (r->kind == CB_CONFIG_SET || r->kind == CB_CONFIG_ARRAY) {
        key(w, "items");
        items_body(w, r);
    }
    if (r->kind == CB_CONFIG_MAP) {
        key(w, "additionalProperties");
        items_body(w, r);
    }
    if (r->kind == CB_CONFIG_OBJECT) object_body(w, r->members);
    fallback_member(w, r);
}

static void object_body(writer *w, const cb_config_rule *rules) {
    bool any = false;
    if (!rules || w->depth > 2 * CB_CONFIG_DEPTH) {
        w->rc = cb_fail(CB_EINVAL, "a configuration object has no rules or is nested too deep");
        return;
    }
    text_member(w, "type", "object");
    key(w, "properties");
    begin(w, "{");
    for (const cb_config_rule *r = rules; r->name && w->rc == CB_OK; r++) {
        key(w, r->name);
        begin(w, "{");
        rule_body(w, r);
        finish(w, "}");
    }
    finish(w, "}");
    for (const cb_config_rule *r = rules; r->name; r++) {
        if (!r->required) continue;
        if (!any) {
            key(w, "required");
            put(w, "[");
        } else {
            put(w, ", ");
        }
        any = true;
        put_quoted(w, r->name, strlen(r->name));
    }
    if (any) put(w, "]");
    key(w, "additionalProperties");
    put(w, "false");
}

int cb_config_schema_json(char **out, const cb_config_schema *schema_in) {
    if (!out || !schema_in) return cb_fail(CB_EINVAL, "cb_config_schema_json: %s is NULL", !out ? "out" : "schema_in");
    cb_config_schema schema;
    int rc = cb_opts_read(&schema, sizeof schema, schema_in, "cb_config_schema");
    if (rc < 0) return rc;
    writer w = {.rc = CB_OK};
    cb_buf_init(&w.out, &cb_alloc_libc, TEXT_MAX);
    begin(&w, "{");
    text_member(&w, "$schema", "https://json-schema.org/draft/2020-12/schema");
    text_member(&w, "title", schema.title);
    object_body(&w, schema.members);
    finish(&w, "}");
    put(&w, "\n");
    if (w.rc == CB_OK) w.rc = cb_buf_add(&w.out, "", 1);
    if (w.rc < 0) {
        cb_buf_free(&w.out);
        return w.rc;
    }
    *out = (char *)w.out.base;
    return CB_OK;
}

void cb_config_text_free(char *text) {
    cb_mem_free(&cb_alloc_libc, text);
}
