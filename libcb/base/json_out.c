/* Writes JSON. Where a value may stand is told by two bits for each level: is it an object, and has it a value yet. */
#include "base/buf.h"
#include "base/error.h"
#include "base/mem.h"
#include "base/utf8.h"
#include <cb/json.h>
#include <locale.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_BYTES = 64 << 20, NUMBER_TEXT = 32 };

struct cb_json_out {
    cb_buf text;
    uint64_t objects, filled; /* a bit a level; level 0 is the document itself */
    uint32_t depth;
    int rc; /* the first failure */
    const char *wrong;
};

int cb_json_out_new(cb_json_out **out, size_t max_bytes) {
    if (!out) return cb_fail(CB_EINVAL, "cb_json_out_new: out is NULL");
    cb_json_out *o = cb_mem_new(&cb_alloc_libc, sizeof *o);
    if (!o) return cb_fail(CB_ENOMEM, "no memory to write JSON");
    cb_buf_init(&o->text, &cb_alloc_libc, max_bytes ? max_bytes : MAX_BYTES);
    *out = o;
    return CB_OK;
}

void cb_json_out_free(cb_json_out *o) {
    if (!o) return;
    cb_buf_free(&o->text);
    cb_mem_free(&cb_alloc_libc, o);
}

void cb_json_out_clear(cb_json_out *o) {
    o->text.len = 0;
    o->objects = o->filled = 0;
    o->depth = 0;
    o->rc = CB_OK;
    o->wrong = NULL;
}

static void wrong(cb_json_out *o, const char *what) {
    if (o->rc < 0) return;
    o->rc = CB_EINVAL;
    o->wrong = what;
}

static void add(cb_json_out *o, const void *bytes, size_t len) {
    if (o->rc == CB_OK) o->rc = cb_buf_add(&o->text, bytes, len);
}

/* What must be escaped is rare: the rest goes in pieces. */
static void put_quoted(cb_json_out *o, cb_slice text) {
    size_t from = 0, at = 0;
    add(o, "\"", 1);
    while (at < text.len && o->rc == CB_OK) {
        const unsigned char c = text.base[at];
        const size_t n = c < 0x80 ? 1 : cb_utf8_len(text.base + at, text.len - at);
        if (n && c >= 0x20 && c != '"' && c != '\\') {
            at += n;
            continue;
        }
        char escape[8];
        if (!n)
            memcpy(escape, "\xef\xbf\xbd", 4);
        else if (c < 0x20)
            snprintf(escape, sizeof escape, "\\u%04x", c);
        else
            snprintf(escape, sizeof escape, "\\%c", c);
        add(o, text.base + from, at - from);
        add(o, escape, strlen(escape));
        from = ++at;
    }
    add(o, text.base + from, at - from);
    add(o, "\"", 1);
}

/* Everything before a value: the comma, and the name. */
static bool begin(cb_json_out *o, const char *name) {
    const uint64_t bit = (uint64_t)1 << o->depth;
    const bool member = o->objects & bit;
    if (o->rc < 0) return false;
    if (member && !name) wrong(o, "a member of an object needs a name");
    if (!member && name) wrong(o, "a name where there is no object");
    if (o->depth == 0 && o->filled & bit) wrong(o, "a second value after the end");
    if (o->rc < 0) return false;
    if (o->filled & bit) add(o, ",", 1);
    o->filled |= bit;
    if (!name) return o->rc == CB_OK;
    put_quoted(o, cb_slice_str(name));
    add(o, ":", 1);
    return o->rc == CB_OK;
}

static void word(cb_json_out *o, const char *name, const char *text) {
    if (begin(o, name)) add(o, text, strlen(text));
}

static void open_level(cb_json_out *o, const char *name, bool object) {
    if (o->depth >= CB_JSON_OUT_DEPTH) wrong(o, "objects and lists within each other: too deep");
    if (!begin(o, name)) return;
    add(o, object ? "{" : "[", 1);
    const uint64_t bit = (uint64_t)1 << ++o->depth;
    o->filled &= ~bit;
    o->objects = object ? o->objects | bit : o->objects & ~bit;
}

void cb_json_put_object(cb_json_out *o, const char *name) {
    open_level(o, name, true);
}

void cb_json_put_list(cb_json_out *o, const char *name) {
    open_level(o, name, false);
}

void cb_json_put_end(cb_json_out *o) {
    if (o->rc < 0) return;
    if (o->depth == 0) {
        wrong(o, "an end without a beginning");
        return;
    }
    add(o, o->objects & (uint64_t)1 << o->depth ? "}" : "]", 1);
    o->depth--;
}

void cb_json_put_text(cb_json_out *o, const char *name, cb_slice text) {
    if (begin(o, name)) put_quoted(o, text);
}

void cb_json_put_str(cb_json_out *o, const char *name, const char *text) {
    if (text)
        cb_json_put_text(o, name, cb_slice_str(text));
    else
        cb_json_put_null(o, name);
}

void cb_json_put_int(cb_json_out *o, const char *name, int64_t value) {
    char text[NUMBER_TEXT];
    snprintf(text, sizeof text, "%lld", (long long)value);
    word(o, name, text);
}

void cb_json_put_uint(cb_json_out *o, const char *name, uint64_t value) {
    char text[NUMBER_TEXT];
    snprintf(text, sizeof text, "%llu", (unsigned long long)value);
    word(o, name, text);
}

void cb_json_put_number(cb_json_out *o, const char *name, double value) {
    char text[NUMBER_TEXT];
    if (!isfinite(value)) {
        cb_json_put_null(o, name);
        return;
    }
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (strtod(text, NULL) == value) break;
    }
    const char *point = localeconv()->decimal_point; /* printf follows the locale; JSON does not */
    char *at = strcmp(point, ".") ? strstr(text, point) : NULL;
    if (at) {
        *at = '.';
        memmove(at + 1, at + strlen(point), strlen(at + strlen(point)) + 1);
    }
    word(o, name, text);
}

void cb_json_put_bool(cb_json_out *o, const char *name, int value) {
    word(o, name, value ? "true" : "false");
}

void cb_json_put_null(cb_json_out *o, const char *name) {
    word(o, name, "null");
}

void cb_json_put_raw(cb_json_out *o, const char *name, cb_slice json) {
    if (begin(o, name)) add(o, json.base, json.len);
}

int cb_json_out_text(const cb_json_out *o, cb_slice *out) {
    if (o->wrong) return cb_fail(CB_EINVAL, "JSON, after %zu bytes: %s", o->text.len, o->wrong);
    if (o->rc < 0) return cb_fail(o->rc, "JSON of more than %zu bytes, or no memory for it", o->text.len);
    if (o->depth || !(o->filled & 1)) return cb_fail(CB_EINVAL, "JSON: %s", o->depth ? "not ended" : "nothing was put");
    *out = cb_buf_slice(&o->text);
    return CB_OK;
}
