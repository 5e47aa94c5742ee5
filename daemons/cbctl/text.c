/* Texts of others made fit for a terminal, and tables. */
#include "text.h"
#include "cbctl.h"
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- characters ---- */

/* The character at p in UTF-8 and its length; 0: that is none. Overlong forms and surrogates are none. */
static size_t read_utf8(const unsigned char *p, size_t len, uint32_t *out) {
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    const size_t n = *p < 0x80 ? 1 : *p >> 5 == 6 ? 2 : *p >> 4 == 14 ? 3 : *p >> 3 == 30 ? 4 : 0;
    if (!n || n > len) return 0;
    uint32_t c = n == 1 ? *p : *p & (0xffu >> (n + 1));
    for (size_t i = 1; i < n; i++) {
        if (p[i] >> 6 != 2) return 0;
        c = c << 6 | (p[i] & 0x3f);
    }
    if (c < least[n] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000)) return 0;
    *out = c;
    return n;
}

/* Controls, what breaks lines, marks of direction and what is not seen at all. */
static bool is_harmless(uint32_t c) {
    static const struct {
        uint32_t from, to;
    } bad[] = {{0, 0x1f},        {0x7f, 0x9f},     {0xad, 0xad},     {0x61c, 0x61c},
               {0x180e, 0x180e}, {0x200b, 0x200f}, {0x2028, 0x202e}, {0x2060, 0x206f},
               {0xfe00, 0xfe0f}, {0xfeff, 0xfeff}, {0xfff0, 0xfffb}, {0xe0000, 0x10ffff}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (c >= bad[i].from && c <= bad[i].to) return false;
    return true;
}

size_t cbctl_read_char(const char *p, size_t len, uint32_t *c, bool *harmless) {
    const size_t n = read_utf8((const unsigned char *)p, len, c);
    *harmless = n && is_harmless(*c);
    return n;
}

char *cbctl_safe(const char *text, size_t len) {
    char *out = len > SIZE_MAX / 16 ? NULL : malloc(len * 6 + 1); /* the worst is one byte that becomes "\\u009b" */
    size_t n = 0;
    uint32_t c = 0;
    if (!out) return NULL;
    for (size_t i = 0, step; i < len; i += step) {
        bool harmless = false;
        step = cbctl_read_char(text + i, len - i, &c, &harmless);
        if (harmless) {
            memcpy(out + n, text + i, step);
            n += step;
        } else if (!step) {
            n += (size_t)sprintf(out + n, "\\x%02x", (unsigned char)text[i]);
            step = 1;
        } else if (c == '\n' || c == '\t') {
            n += (size_t)sprintf(out + n, c == '\n' ? "\\n" : "\\t");
        } else {
            n += (size_t)sprintf(out + n, c > 0xffff ? "\\U%08x" : "\\u%04x", c);
        }
    }
    out[n] = '\0';
    return out;
}

void cbctl_put(FILE *f, const char *text) {
    char *safe = cbctl_safe(text, strlen(text));
    if (safe) fputs(safe, f);
    free(safe);
}

size_t cbctl_columns(const char *safe) {
    size_t n = 0;
    for (; *safe; safe++)
        n += ((unsigned char)*safe & 0xc0) != 0x80;
    return n;
}

/* ---- colours ---- */

bool cbctl_colours(FILE *f) {
    const char *no = getenv("NO_COLOR"), *term = getenv("TERM");
    return (!no || !*no) && term && strcmp(term, "dumb") != 0 && isatty(fileno(f));
}

const char *cbctl_tone_on(bool colours, enum cbctl_tone tone) {
    static const char *const codes[] = {
        [CBCTL_PLAIN] = "",         [CBCTL_GOOD] = "\033[32m", [CBCTL_WARN] = "\033[33m",
        [CBCTL_BAD] = "\033[1;31m", [CBCTL_DIM] = "\033[2m",   [CBCTL_BOLD] = "\033[1m"};
    return colours ? codes[tone] : "";
}

const char *cbctl_tone_off(bool colours, enum cbctl_tone tone) {
    return colours && tone != CBCTL_PLAIN ? "\033[0m" : "";
}

enum cbctl_tone cbctl_tone_of(const char *word) {
    static const struct {
        const char *word;
        enum cbctl_tone tone;
    } words[] = {{"up", CBCTL_GOOD},         {"ready", CBCTL_GOOD},    {"healthy", CBCTL_GOOD},  {"ok", CBCTL_GOOD},
                 {"serving", CBCTL_GOOD},    {"current", CBCTL_GOOD},  {"valid", CBCTL_GOOD},    {"done", CBCTL_GOOD},
                 {"down", CBCTL_BAD},        {"unhealthy", CBCTL_BAD}, {"failed", CBCTL_BAD},    {"expired", CBCTL_BAD},
                 {"ejected", CBCTL_BAD},     {"revoked", CBCTL_BAD},   {"denied", CBCTL_BAD},    {"error", CBCTL_BAD},
                 {"draining", CBCTL_WARN},   {"out", CBCTL_WARN},      {"expiring", CBCTL_WARN}, {"warn", CBCTL_WARN},
                 {"recovering", CBCTL_WARN}, {"slow", CBCTL_WARN},     {"failing", CBCTL_WARN}};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strcmp(words[i].word, word) == 0) return words[i].tone;
    return CBCTL_PLAIN;
}

/* ---- tables ---- */

void cbctl_table_begin(cbctl_table *t, size_t columns) {
    *t = (cbctl_table){.columns = columns, .right = calloc(columns ? columns : 1, sizeof(bool))};
    t->failed = !t->right || !columns;
}

void cbctl_table_right(cbctl_table *t, size_t column) {
    if (t->right && column < t->columns) t->right[column] = true;
}

void cbctl_table_cell(cbctl_table *t, const char *text) {
    if (t->cells == t->cap) {
        const size_t cap = t->cap ? t->cap * 2 : 64;
        char **grown = realloc(t->cell, cap * sizeof *grown);
        if (!grown) {
            t->failed = true;
            return;
        }
        t->cell = grown;
        t->cap = cap;
    }
    t->cell[t->cells] = cbctl_safe(text, strlen(text));
    t->failed |= !t->cell[t->cells];
    t->cells++;
}

void cbctl_table_take(cbctl_table *t, char *text) {
    cbctl_table_cell(t, text ? text : "");
    t->failed |= !text;
    free(text);
}

static void print_row(const cbctl_table *t, size_t first, const size_t *width, FILE *f, bool colours) {
    for (size_t c = 0; c < t->columns && first + c < t->cells; c++) {
        const char *text = t->cell[first + c];
        const size_t pad = width[c] - cbctl_columns(text);
        const bool last = c + 1 == t->columns;
        const enum cbctl_tone tone = first ? cbctl_tone_of(text) : CBCTL_DIM;
        fprintf(f, "%*s%s%s%s%*s", t->right[c] ? (int)pad : 0, "", cbctl_tone_on(colours, tone), text,
                cbctl_tone_off(colours, tone), t->right[c] || last ? 0 : (int)pad, "");
        fputs(last ? "\n" : "  ", f);
    }
}

static void print_rows(const cbctl_table *t, size_t *width, FILE *f, const char *indent) {
    const bool colours = cbctl_colours(f);
    for (size_t i = 0; i < t->cells; i++) {
        const size_t n = cbctl_columns(t->cell[i]);
        if (n > width[i % t->columns]) width[i % t->columns] = n;
    }
    for (size_t i = 0; i < t->cells; i += t->columns) {
        fputs(indent, f);
        print_row(t, i, width, f, colours);
    }
}

int cbctl_table_print(cbctl_table *t, FILE *f, const char *indent) {
    size_t *width = t->failed ? NULL : calloc(t->columns, sizeof *width);
    const bool good = width != NULL;
    if (good) print_rows(t, width, f, indent);
    for (size_t i = 0; i < t->cells; i++)
        free(t->cell[i]);
    free(width);
    free(t->cell);
    free(t->right);
    *t = (cbctl_table){0};
    if (good) return CBCTL_OK;
    fputs("cbctl: out of memory\n", stderr);
    return CBCTL_FAILED;
}
