#include "json.h"
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK = 256 };

typedef struct block {
    struct block *next;
    json_node nodes[BLOCK];
} block;

struct json_tree {
    block *blocks;
    size_t n;
    char *source; /* a copy, which `raw` points into */
    char *texts;  /* no text is longer than what it was read from */
    size_t used;
    json_node *root;
};

typedef struct reader {
    json_tree *t;
    const char *at, *end;
    json_node *open[JSON_DEPTH]; /* lists and objects that are being read */
    json_node *last[JSON_DEPTH]; /* their last item */
    size_t depth;
} reader;

static json_node *new_node(json_tree *t) {
    if (t->n == JSON_NODES) return NULL;
    if (t->n % BLOCK == 0) {
        block *b = calloc(1, sizeof *b);
        if (!b) return NULL;
        b->next = t->blocks;
        t->blocks = b;
    }
    return &t->blocks->nodes[t->n++ % BLOCK];
}

static void skip(reader *r) {
    while (r->at < r->end && strchr(" \t\r\n", *r->at))
        r->at++;
}

static bool take(reader *r, char c) {
    skip(r);
    if (r->at == r->end || *r->at != c) return false;
    r->at++;
    return true;
}

/* ---- texts ---- */

static bool read_hex(reader *r, uint32_t *out) {
    *out = 0;
    if (r->end - r->at < 4) return false;
    for (int i = 0; i < 4; i++) {
        static const char digits[] = "0123456789abcdef0123456789ABCDEF";
        const char *d = memchr(digits, *r->at++, sizeof digits - 1);
        if (!d) return false;
        *out = *out << 4 | ((uint32_t)(d - digits) & 15);
    }
    return true;
}

static void put_char(json_tree *t, uint32_t c) {
    char *to = t->texts + t->used;
    const int n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (int i = n - 1; i > 0; i--, c >>= 6)
        to[i] = (char)(0x80 | (c & 0x3f));
    to[0] = (char)(n == 1 ? c : (0xf00u >> n & 0xf0) | c);
    t->used += (size_t)n;
}

/* Behind "\u". Half a pair, and U+0000, are U+FFFD. */
static bool read_unicode(reader *r) {
    uint32_t c, low = 0;
    if (!read_hex(r, &c)) return false;
    if (c >= 0xd800 && c < 0xdc00 && r->end - r->at >= 6 && r->at[0] == '\\' && r->at[1] == 'u') {
        const char *here = r->at;
        r->at += 2;
        if (!read_hex(r, &low)) return false;
        if (low >= 0xdc00 && low < 0xe000)
            c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
        else
            r->at = here;
    }
    put_char(r->t, !c || (c >= 0xd800 && c < 0xe000) ? 0xfffd : c);
    return true;
}

/* Behind the first quote; NULL: it is no text. */
static const char *read_text(reader *r) {
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    const size_t begin = r->t->used;
    while (r->at < r->end && *r->at != '"') {
        const char c = *r->at++;
        if ((unsigned char)c < 0x20) return NULL;
        if (c != '\\') {
            r->t->texts[r->t->used++] = c;
            continue;
        }
        if (r->at == r->end) return NULL;
        const char *escape = memchr(from, *r->at, sizeof from - 1);
        const bool unicode = *r->at++ == 'u';
        if (escape)
            r->t->texts[r->t->used++] = to[escape - from];
        else if (!unicode || !read_unicode(r))
            return NULL;
    }
    if (r->at == r->end) return NULL;
    r->at++;
    r->t->texts[r->t->used++] = '\0';
    return r->t->texts + begin;
}

/* ---- values ---- */

static size_t digits(const reader *r, const char *at) {
    size_t n = 0;
    while (at + n < r->end && at[n] >= '0' && at[n] <= '9')
        n++;
    return n;
}

static bool read_number(reader *r, json_node *v) {
    const char *begin = r->at, *at = begin + (*begin == '-');
    size_t n = digits(r, at);
    if (!n || (n > 1 && *at == '0')) return false;
    at += n;
    if (at < r->end && *at == '.') {
        n = digits(r, ++at);
        if (!n) return false;
        at += n;
    }
    if (at < r->end && (*at == 'e' || *at == 'E')) {
        at++;
        at += at < r->end && (*at == '+' || *at == '-');
        n = digits(r, at);
        if (!n) return false;
        at += n;
    }
    char *to = r->t->texts + r->t->used;
    memcpy(to, begin, (size_t)(at - begin));
    to[at - begin] = '\0';
    r->t->used += (size_t)(at - begin) + 1;
    r->at = at;
    v->kind = JSON_NUMBER;
    v->text = to;
    return true;
}

static bool read_word(reader *r, json_node *v) {
    static const struct {
        const char *word;
        enum json_kind kind;
    } words[] = {{"null", JSON_NULL}, {"false", JSON_FALSE}, {"true", JSON_TRUE}};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        const size_t n = strlen(words[i].word);
        if ((size_t)(r->end - r->at) < n || memcmp(r->at, words[i].word, n) != 0) continue;
        r->at += n;
        v->kind = words[i].kind;
        return true;
    }
    return false;
}

static bool begin_group(reader *r, json_node *v) {
    if (r->depth == JSON_DEPTH) return false;
    v->kind = *r->at++ == '{' ? JSON_OBJECT : JSON_LIST;
    r->open[r->depth] = v;
    r->last[r->depth++] = NULL;
    return true;
}

static bool read_value(reader *r, json_node *v) {
    skip(r);
    if (r->at == r->end) return false;
    v->raw = r->at;
    if (*r->at == '{' || *r->at == '[') return begin_group(r, v);
    if (*r->at == '"') {
        r->at++;
        v->kind = JSON_TEXT;
        v->text = read_text(r);
        if (!v->text) return false;
    } else if (!read_word(r, v) && !read_number(r, v)) {
        return false;
    }
    v->raw_len = (size_t)(r->at - v->raw);
    return true;
}

/* The next item of the innermost group, or its end. */
static bool go_on(reader *r) {
    json_node *group = r->open[r->depth - 1], **last = &r->last[r->depth - 1];
    const bool object = group->kind == JSON_OBJECT;
    if (take(r, object ? '}' : ']')) {
        group->raw_len = (size_t)(r->at - group->raw);
        r->depth--;
        return true;
    }
    if (*last && !take(r, ',')) return false;
    json_node *v = new_node(r->t);
    if (!v) return false;
    if (object) {
        if (!take(r, '"') || !(v->name = read_text(r)) || !take(r, ':')) return false;
    }
    if (*last)
        (*last)->next = v;
    else
        group->child = v;
    *last = v;
    return read_value(r, v);
}

json_tree *json_read(const char *text, size_t len) {
    json_tree *t = calloc(1, sizeof *t);
    if (!t) return NULL;
    t->source = malloc(len + 1);
    t->texts = malloc(len + 2);
    t->root = new_node(t);
    bool good = t->source && t->texts && t->root;
    if (good) {
        if (len) memcpy(t->source, text, len);
        reader r = {.t = t, .at = t->source, .end = t->source + len};
        good = read_value(&r, t->root);
        while (good && r.depth)
            good = go_on(&r);
        skip(&r);
        good = good && r.at == r.end;
    }
    if (good) return t;
    json_free(t);
    return NULL;
}

void json_free(json_tree *t) {
    if (!t) return;
    while (t->blocks) {
        block *b = t->blocks;
        t->blocks = b->next;
        free(b);
    }
    free(t->source);
    free(t->texts);
    free(t);
}

/* ---- asking ---- */

const json_node *json_root(const json_tree *t) {
    return t ? t->root : NULL;
}

bool json_is(const json_node *v, enum json_kind kind) {
    return v && v->kind == kind;
}

const json_node *json_get(const json_node *o, const char *name) {
    const json_node *v = json_is(o, JSON_OBJECT) ? o->child : NULL;
    while (v && strcmp(v->name, name) != 0)
        v = v->next;
    return v;
}

const char *json_text(const json_node *o, const char *name) {
    const json_node *v = json_get(o, name);
    return json_is(v, JSON_TEXT) ? v->text : NULL;
}

double json_number(const json_node *v) {
    return json_is(v, JSON_NUMBER) ? strtod(v->text, NULL) : NAN;
}

const json_node *json_first(const json_node *v) {
    return v ? v->child : NULL;
}

size_t json_count(const json_node *v) {
    size_t n = 0;
    for (const json_node *i = json_first(v); i; i = i->next)
        n++;
    return n;
}
