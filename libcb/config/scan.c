#include "config/scan.h"
#include "base/error.h"
#include "base/json_lex.h"
#include "base/mem.h"
#include "base/utf8.h"
#include <stdbool.h>
#include <string.h>

typedef struct scanner {
    cb_config_scan *out;
    char *text;
    size_t len, at;
    int depth;
} scanner;

static int scan_value(scanner *s, size_t key);

void cb_config_scan_init(cb_config_scan *s) {
    *s = (cb_config_scan){0};
    cb_buf_init(&s->spots, &cb_alloc_libc, sizeof(cb_config_spot) * (size_t)CB_CONFIG_BYTES);
}

void cb_config_scan_free(cb_config_scan *s) {
    cb_buf_free(&s->spots);
}

const cb_config_spot *cb_config_scan_at(const cb_config_scan *s, size_t i) {
    return (const cb_config_spot *)(const void *)s->spots.base + i;
}

void cb_config_line_column(const char *text, size_t at, uint32_t *line, uint32_t *column) {
    *line = *column = 1;
    for (size_t i = 0; i < at; i++) {
        if (text[i] == '\n') {
            ++*line;
            *column = 1;
        } else {
            ++*column;
        }
    }
}

static int bad(scanner *s, size_t at, const char *what) {
    s->out->error_at = (uint32_t)at;
    return cb_fail(CB_EINVAL, "%s", what);
}

static int peek(const scanner *s) {
    return s->at < s->len ? (unsigned char)s->text[s->at] : -1;
}

static void blank(scanner *s, size_t from, size_t to) {
    for (size_t i = from; i < to; i++)
        if (s->text[i] != '\n') s->text[i] = ' ';
}

static int skip_comment(scanner *s) {
    size_t from = s->at;
    char kind = s->at + 1 < s->len ? s->text[s->at + 1] : 0;
    if (kind == '/') {
        char *end = memchr(s->text + from, '\n', s->len - from);
        s->at = end ? (size_t)(end - s->text) : s->len;
    } else if (kind == '*') {
        char *end = memmem(s->text + from + 2, s->len - from - 2, "*/", 2);
        if (!end) return bad(s, from, "this comment has no end");
        s->at = (size_t)(end - s->text) + 2;
    } else {
        return bad(s, from, "a lone \"/\": comments begin with // or /*");
    }
    blank(s, from, s->at);
    return CB_OK;
}

static int skip_space(scanner *s) {
    for (;;) {
        int c = peek(s);
        if (c == ' ' || c == '\t' || c == '\n' || c == '\r') {
            s->at++;
            continue;
        }
        if (c != '/') return CB_OK;
        int rc = skip_comment(s);
        if (rc < 0) return rc;
    }
}

static int scan_escape(scanner *s) { /* at the backslash */
    const char *wrong;
    uint32_t code;
    const size_t n = cb_json_lex_escape(s->text + s->at, s->len - s->at, &code, &wrong);
    if (!n) return bad(s, s->at, wrong);
    s->at += n;
    return CB_OK;
}

static int scan_string(scanner *s) {
    size_t from = s->at++;
    for (;;) {
        int c = peek(s);
        if (c < 0 || c == '\n') return bad(s, from, "this text has no closing quote");
        if (c < 0x20) return bad(s, s->at, "a control character in a text: write it as an escape");
        if (c == '"') {
            s->at++;
            return CB_OK;
        }
        if (c == '\\') {
            int rc = scan_escape(s);
            if (rc < 0) return rc;
            continue;
        }
        size_t n = cb_utf8_len((const unsigned char *)s->text + s->at, s->len - s->at);
        if (!n) return bad(s, s->at, "this is not UTF-8");
        s->at += n;
    }
}

static int scan_number(scanner *s) {
    const char *wrong;
    const size_t n = cb_json_lex_number(s->text + s->at, s->len - s->at, &wrong);
    if (!n) return bad(s, s->at, wrong);
    s->at += n;
    return CB_OK;
}

static int scan_word(scanner *s) {
    static const char *const words[] = {"true", "false", "null"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        size_t n = strlen(words[i]);
        if (s->len - s->at < n || memcmp(s->text + s->at, words[i], n) != 0) continue;
        s->at += n;
        return CB_OK;
    }
    int c = peek(s);
    if (c < 0) return bad(s, s->at, "the document ends where a value should be");
    if (c == '\'') return bad(s, s->at, "texts stand in double quotes");
    if (c == ']' || c == '}') return bad(s, s->at, "a value is missing here (a comma too many before it?)");
    return bad(s, s->at, "this is not a value of JSON");
}

static int scan_member(scanner *s) {
    size_t key = s->at;
    if (peek(s) == '}') return bad(s, key, "a comma too many: no member follows it");
    if (peek(s) != '"') return bad(s, key, "a member's name in double quotes is missing here");
    int rc = scan_string(s);
    if (rc == CB_OK) rc = skip_space(s);
    if (rc < 0) return rc;
    if (peek(s) != ':') return bad(s, s->at, "a colon is missing after the member's name");
    s->at++;
    rc = skip_space(s);
    return rc < 0 ? rc : scan_value(s, key);
}

/* An object or array, at its opening bracket. */
static int scan_container(scanner *s) {
    bool object = s->text[s->at] == '{';
    char close = object ? '}' : ']';
    size_t from = s->at++;
    if (++s->depth > CB_CONFIG_DEPTH) return bad(s, from, "nested more than 32 levels deep");
    int rc = skip_space(s);
    if (rc < 0) return rc;
    bool more = peek(s) != close;
    while (more) {
        rc = object ? scan_member(s) : scan_value(s, s->at);
        if (rc == CB_OK) rc = skip_space(s);
        if (rc < 0) return rc;
        if (peek(s) < 0) return bad(s, from, object ? "this object has no end" : "this array has no end");
        more = peek(s) == ',';
        if (!more && peek(s) != close)
            return bad(s, s->at,
                       object ? "a comma or \"}\" is missing before this" : "a comma or \"]\" is missing before this");
        if (!more) break;
        s->at++;
        rc = skip_space(s);
        if (rc < 0) return rc;
    }
    s->at++;
    s->depth--;
    return CB_OK;
}

static int scan_value(scanner *s, size_t key) {
    size_t index = s->out->n, from = s->at;
    cb_config_spot spot = {.value = (uint32_t)from, .key = (uint32_t)key};
    int rc = cb_buf_add(&s->out->spots, &spot, sizeof spot);
    if (rc < 0) return rc;
    s->out->n++;
    int c = peek(s);
    if (c == '{' || c == '[')
        rc = scan_container(s);
    else if (c == '"')
        rc = scan_string(s);
    else if (c == '-' || (c >= '0' && c <= '9'))
        rc = scan_number(s);
    else
        rc = scan_word(s);
    if (rc < 0) return rc;
    cb_config_spot *done = (cb_config_spot *)(void *)s->out->spots.base + index;
    done->value_len = (uint32_t)(s->at - from);
    return CB_OK;
}

int cb_config_scan_text(cb_config_scan *out, char *text, size_t len) {
    scanner s = {.out = out, .text = text, .len = len};
    if (len > CB_CONFIG_BYTES) return cb_fail(CB_ELIMIT, "the document is larger than 1 MiB");
    if (len >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) blank(&s, 0, 3);
    int rc = skip_space(&s);
    if (rc < 0) return rc;
    if (peek(&s) < 0) return bad(&s, s.at, "the document is empty");
    rc = scan_value(&s, s.at);
    if (rc == CB_OK) rc = skip_space(&s);
    if (rc < 0) return rc;
    if (s.at < len) return bad(&s, s.at, "more text after the end of the document");
    return CB_OK;
}
