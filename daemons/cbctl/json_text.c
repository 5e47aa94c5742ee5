/* JSON of others for people and pipes. */
#include "prom.h"
#include "text.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { SHORT_LIST = 8 };

/* ---- printing again ---- */

static void newline(FILE *f, int depth) {
    fprintf(f, "\n%*s", depth * 2, "");
}

/* A text with its quotes, from text[i]; returns where it ends. */
static size_t print_text(FILE *f, const char *text, size_t len, size_t i) {
    size_t end = i + 1;
    uint32_t c = 0;
    while (end < len && text[end] != '"')
        end += text[end] == '\\' ? 2 : 1;
    end = end < len ? end + 1 : len;
    while (i < end) {
        bool harmless = false;
        const size_t step = cbctl_read_char(text + i, end - i, &c, &harmless);
        if (harmless)
            fwrite(text + i, 1, step, f);
        else if (!step)
            fputs("\\ufffd", f);
        else if (c > 0xffff)
            fprintf(f, "\\u%04x\\u%04x", 0xd800 + ((c - 0x10000) >> 10), 0xdc00 + (c & 0x3ff));
        else
            fprintf(f, "\\u%04x", c);
        i += step ? step : 1;
    }
    return end;
}

static void reprint(FILE *f, const char *text, size_t len, bool lines) {
    int depth = 0;
    for (size_t i = 0; i < len;) {
        const char c = text[i];
        size_t next = i + 1;
        while (next < len && strchr(" \t\r\n", text[next]))
            next++;
        if (c == '"') {
            i = print_text(f, text, len, i);
            continue;
        }
        if ((c == '{' || c == '[') && next < len && (text[next] == '}' || text[next] == ']')) {
            fprintf(f, "%c%c", c, text[next]);
            i = next + 1;
            continue;
        }
        if (c == '}' || c == ']') {
            depth--;
            if (lines) newline(f, depth);
        }
        if (!strchr(" \t\r\n", c)) putc(c, f);
        if (c == ':' && lines) putc(' ', f);
        if (c == '{' || c == '[') depth++;
        if (lines && (c == '{' || c == '[' || c == ',')) newline(f, depth);
        i++;
    }
    putc('\n', f);
}

void cbctl_json_print(FILE *f, const char *text, size_t len) {
    reprint(f, text, len, true);
}

void cbctl_json_line(FILE *f, const char *text, size_t len) {
    reprint(f, text, len, false);
}

/* ---- cells ---- */

/* Integers as they are, whatever their size; others without needless digits. */
static char *number_cell(const char *text) {
    char out[40];
    if (text[strspn(text, "-0123456789")] == '\0') return strdup(text);
    const double v = strtod(text, NULL);
    snprintf(out, sizeof out, fabs(v) < 1e15 && v == floor(v) ? "%.0f" : "%.6g", v);
    return strdup(out);
}

/* Scalars with commas between them; what is more than a line, in short. */
static char *list_cell(const json_node *v) {
    const int n = (int)json_count(v);
    char *out = NULL;
    size_t len = 0;
    FILE *f = open_memstream(&out, &len);
    if (!f) return NULL;
    const json_node *first = v->child;
    if (!n) {
        putc('-', f);
    } else if (n > SHORT_LIST || (first && (json_is(first, JSON_OBJECT) || json_is(first, JSON_LIST)))) {
        fprintf(f, "(%d)", n);
    } else {
        for (const json_node *i = first; i; i = i->next) {
            char *cell = cbctl_json_cell(i);
            fprintf(f, "%s%s", i == first ? "" : ",", cell ? cell : "");
            free(cell);
        }
    }
    if (fclose(f) == 0) return out;
    free(out);
    return NULL;
}

char *cbctl_json_cell(const json_node *v) {
    if (!v) return strdup("-");
    switch (v->kind) {
    case JSON_NULL:
        return strdup("-");
    case JSON_FALSE:
    case JSON_TRUE:
        return strdup(v->kind == JSON_TRUE ? "yes" : "no");
    case JSON_NUMBER:
        return number_cell(v->text);
    case JSON_TEXT:
        return strdup(v->text);
    case JSON_LIST:
        return list_cell(v);
    case JSON_OBJECT:
        break;
    }
    char *out = malloc(v->raw_len + 1); /* not strndup(): no NUL ends the document */
    if (!out) return NULL;
    memcpy(out, v->raw, v->raw_len);
    out[v->raw_len] = '\0';
    return out;
}

/* ---- cells that say by their name what they are ---- */

enum unit { NONE, MILLISECONDS, SECONDS, DATE };

static bool ends(const char *name, const char *ending) {
    const size_t n = strlen(name), m = strlen(ending);
    return n >= m && strcmp(name + n - m, ending) == 0;
}

static enum unit unit_of(const char *name) {
    static const char *const dates[] = {"since", "until", "due", "started_at"};
    for (size_t i = 0; i < sizeof dates / sizeof *dates; i++)
        if (strcmp(name, dates[i]) == 0) return DATE;
    return ends(name, "_ms") ? MILLISECONDS : ends(name, "_s") ? SECONDS : NONE;
}

char *cbctl_json_head(const char *name) {
    const enum unit u = unit_of(name);
    return strndup(name, strlen(name) - (u == MILLISECONDS ? 3 : u == SECONDS ? 2 : 0));
}

char *cbctl_json_named(const char *name, const json_node *v) {
    const enum unit u = json_is(v, JSON_NUMBER) ? unit_of(name) : NONE;
    const double n = json_number(v);
    char text[32];
    if (u == NONE || n < 0 || n > 253402300799.0) return cbctl_json_cell(v);
    if (u == DATE) {
        const time_t at = (time_t)n;
        struct tm tm;
        if (!gmtime_r(&at, &tm) || !strftime(text, sizeof text, "%Y-%m-%d %H:%M:%SZ", &tm)) return cbctl_json_cell(v);
    } else {
        char time[16];
        prom_seconds(time, u == MILLISECONDS ? n / 1000 : n);
        snprintf(text, sizeof text, "%s", n > 0 ? time : "0");
    }
    return strdup(text);
}
