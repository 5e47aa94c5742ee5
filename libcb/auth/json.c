#include "auth/json.h"
#include "base/error.h"
#include "base/json_lex.h"
#include "base/mem.h"
#include "base/utf8.h"
#include <string.h>

typedef struct reader {
    char *text;
    cb_json_node *nodes;
    size_t len, at, room;
    uint32_t n;
    int depth;
} reader;

static int read_value(reader *r, uint32_t name, uint32_t name_len);

static int bad(const reader *r, const char *what) {
    cb_fail(CB_EINVAL, "JSON, byte %zu: %s", r->at, what);
    return CB_JSON_BAD;
}

static int peek(const reader *r) {
    return r->at < r->len ? (unsigned char)r->text[r->at] : -1;
}

static void skip_space(reader *r) {
    while (r->at < r->len &&
           (r->text[r->at] == ' ' || r->text[r->at] == '\t' || r->text[r->at] == '\n' || r->text[r->at] == '\r'))
        r->at++;
}

/* At the backslash: writes what it stands for to *to, which never overtakes the reader. */
static int unescape(reader *r, size_t *to) {
    const char *wrong;
    uint32_t code;
    const size_t n = cb_json_lex_escape(r->text + r->at, r->len - r->at, &code, &wrong);
    if (!n) return bad(r, wrong);
    r->at += n;
    *to += cb_utf8_put(r->text + *to, code);
    return 0;
}

static int read_text(reader *r, uint32_t *start, uint32_t *len) {
    size_t to = ++r->at;
    *start = (uint32_t)to;
    for (;;) {
        int c = peek(r);
        if (c < 0) return bad(r, "a text without its closing quote");
        if (c < 0x20) return bad(r, "a control character in a text");
        if (c == '"') break;
        if (c == '\\') {
            int rc = unescape(r, &to);
            if (rc) return rc;
            continue;
        }
        size_t n = c < 0x80 ? 1 : cb_utf8_len((const unsigned char *)r->text + r->at, r->len - r->at);
        if (!n) return bad(r, "this is not UTF-8");
        if (to != r->at) memmove(r->text + to, r->text + r->at, n);
        to += n;
        r->at += n;
    }
    r->text[to] = '\0';
    r->at++;
    *len = (uint32_t)to - *start;
    return 0;
}

static int read_number(reader *r) {
    const char *wrong;
    const size_t n = cb_json_lex_number(r->text + r->at, r->len - r->at, &wrong);
    r->at += n;
    return n ? 0 : bad(r, wrong);
}

static int read_word(reader *r, int32_t *kind) {
    static const struct {
        const char *text;
        size_t len;
        int32_t kind;
    } words[] = {{"null", 4, CB_JSON_NULL}, {"false", 5, CB_JSON_FALSE}, {"true", 4, CB_JSON_TRUE}};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (r->len - r->at < words[i].len || memcmp(r->text + r->at, words[i].text, words[i].len) != 0) continue;
        r->at += words[i].len;
        *kind = words[i].kind;
        return 0;
    }
    return bad(r, "a value is missing here");
}

static int check_name(const reader *r, uint32_t object, uint32_t count, uint32_t name, uint32_t len) {
    uint32_t at = object + 1;
    for (uint32_t i = 0; i < count; i++, at = r->nodes[at].next) {
        if (r->nodes[at].name_len != len || memcmp(r->text + r->nodes[at].name, r->text + name, len) != 0) continue;
        cb_fail(CB_EINVAL, "JSON, byte %u: the member \"%.60s\" is there twice", name, r->text + name);
        return CB_JSON_TWICE;
    }
    return 0;
}

static int read_member(reader *r, uint32_t object, uint32_t count) {
    uint32_t name = 0, len = 0;
    if (peek(r) != '"') return bad(r, "a member's name is missing here");
    if (count == CB_JSON_MEMBERS) return bad(r, "an object with too many members");
    int rc = read_text(r, &name, &len);
    if (!rc) rc = check_name(r, object, count, name, len);
    if (rc) return rc;
    skip_space(r);
    if (peek(r) != ':') return bad(r, "a colon is missing here");
    r->at++;
    skip_space(r);
    return read_value(r, name, len);
}

static int read_container(reader *r, uint32_t index) {
    bool object = r->text[r->at] == '{';
    char close = object ? '}' : ']';
    uint32_t count = 0;
    if (++r->depth > CB_JSON_DEPTH) return bad(r, "nested too deep");
    r->at++;
    skip_space(r);
    if (peek(r) == close) goto done;
    for (;;) {
        int rc = object ? read_member(r, index, count) : read_value(r, 0, 0);
        if (rc) return rc;
        count++;
        skip_space(r);
        if (peek(r) == close) break;
        if (peek(r) != ',') return bad(r, "a comma or a closing bracket is missing here");
        r->at++;
        skip_space(r);
    }
done:
    r->at++;
    r->depth--;
    r->nodes[index].kind = object ? CB_JSON_OBJECT : CB_JSON_LIST;
    r->nodes[index].len = count;
    return 0;
}

static int read_value(reader *r, uint32_t name, uint32_t name_len) {
    if (r->n == r->room) return bad(r, "too many values");
    uint32_t index = r->n++;
    cb_json_node *node = r->nodes + index;
    *node = (cb_json_node){.name = name, .name_len = name_len, .at = (uint32_t)r->at};
    int c = peek(r), rc = 0;
    if (c == '{' || c == '[') {
        rc = read_container(r, index);
    } else if (c == '"') {
        node->kind = CB_JSON_TEXT;
        rc = read_text(r, &node->at, &node->len);
    } else if (c == '-' || (c >= '0' && c <= '9')) {
        node->kind = CB_JSON_NUMBER;
        rc = read_number(r);
        node->len = (uint32_t)r->at - node->at;
    } else {
        rc = read_word(r, &node->kind);
    }
    node->next = r->n;
    return rc;
}

size_t cb_json_room(const char *text, size_t len) {
    size_t n = 1;
    for (size_t i = 0; i < len; i++)
        n += text[i] == ',' || text[i] == '[' || text[i] == '{';
    return n;
}

int cb_json_read(cb_json *j, char *text, size_t len, cb_json_node *nodes, size_t room) {
    reader r = {.text = text, .nodes = nodes, .len = len, .room = room};
    skip_space(&r);
    int rc = read_value(&r, 0, 0);
    if (rc) return rc;
    skip_space(&r);
    if (r.at < len) return bad(&r, "more text after the end of the document");
    *j = (cb_json){.text = text, .nodes = nodes, .len = r.n};
    return 0;
}

int cb_json_open(cb_json *j, cb_slice text) {
    const size_t room = cb_json_room((const char *)text.base, text.len), head = room * sizeof(cb_json_node);
    if (head + text.len >= UINT32_MAX) return cb_fail(CB_ENOMEM, "a document of %zu bytes", text.len);
    cb_json_node *nodes = cb_mem_get(&cb_alloc_libc, head + text.len + 1);
    if (!nodes) return cb_fail(CB_ENOMEM, "no memory for a document");
    char *copy = (char *)(nodes + room);
    if (text.len) memcpy(copy, text.base, text.len);
    copy[text.len] = '\0';
    int rc = cb_json_read(j, copy, text.len, nodes, room);
    if (rc != 0) *j = (cb_json){.nodes = nodes};
    j->block_bytes = (uint32_t)(head + text.len + 1);
    if (rc != 0) cb_json_close(j);
    return rc;
}

void cb_json_close(cb_json *j) {
    if (j->nodes) cb_mem_wipe((void *)(uintptr_t)j->nodes, j->block_bytes);
    cb_mem_free(&cb_alloc_libc, (void *)(uintptr_t)j->nodes);
    *j = (cb_json){0};
}

const cb_json_node *cb_json_first(const cb_json *j, const cb_json_node *of) {
    (void)j;
    return (of->kind == CB_JSON_OBJECT || of->kind == CB_JSON_LIST) && of->len ? of + 1 : NULL;
}

const cb_json_node *cb_json_next(const cb_json *j, const cb_json_node *of, const cb_json_node *at) {
    return at->next < of->next ? j->nodes + at->next : NULL;
}

const cb_json_node *cb_json_get(const cb_json *j, const cb_json_node *object, const char *name, size_t len) {
    if (object->kind != CB_JSON_OBJECT) return NULL;
    for (const cb_json_node *at = cb_json_first(j, object); at; at = cb_json_next(j, object, at))
        if (at->name_len == len && memcmp(j->text + at->name, name, len) == 0) return at;
    return NULL;
}

const char *cb_json_text(const cb_json *j, const cb_json_node *object, const char *name) {
    const cb_json_node *at = cb_json_get(j, object, name, strlen(name));
    return cb_json_is(at, CB_JSON_TEXT) ? j->text + at->at : NULL;
}

/* Without strtod(), which heeds the locale. Integers below 2^53 are exact; the rest is right to the last few bits. */
double cb_json_number(const cb_json *j, const cb_json_node *at) {
    const char *p = j->text + at->at, *end = p + at->len;
    bool minus = *p == '-', fraction = false;
    double v = 0;
    int scale = 0, exponent = 0;
    for (p += minus; p < end && *p != 'e' && *p != 'E'; p++) {
        if (*p == '.') {
            fraction = true;
            continue;
        }
        v = v * 10 + (*p - '0');
        scale -= fraction;
    }
    if (p < end) {
        bool down = *++p == '-';
        for (p += *p == '-' || *p == '+'; p < end; p++)
            if (exponent < 10000) exponent = exponent * 10 + (*p - '0');
        scale += down ? -exponent : exponent;
    }
    double power = 10, factor = 1;
    for (int n = scale < 0 ? -scale : scale; n; n >>= 1, power *= power)
        if (n & 1) factor *= power;
    v = v == 0 ? 0 : scale < 0 ? v / factor : v * factor;
    return minus ? -v : v;
}
