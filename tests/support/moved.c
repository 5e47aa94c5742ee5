#include "moved.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static size_t read_values(va_list args, cb_slice values[CB_METRIC_LABELS_MAX]) {
    size_t n = 0;
    for (const char *text; (text = va_arg(args, const char *)) && n < CB_METRIC_LABELS_MAX;)
        values[n++] = cb_slice_str(text);
    return n;
}

double moved(cb_metrics *m, const char *name, ...) {
    cb_slice values[CB_METRIC_LABELS_MAX] = {{0}};
    va_list args;
    double got = 0;
    va_start(args, name);
    read_values(args, values);
    va_end(args);
    cr_assert(cb_metrics_find(m, name) != NULL, "there is no family %s", name);
    return cb_metrics_value(m, name, values, &got) == CB_OK ? got : 0;
}

typedef struct page {
    char *text;
    size_t len;
} page;

static int take(cb_slice piece, void *user) {
    page *p = user;
    p->text = realloc(p->text, p->len + piece.len + 1);
    memcpy(p->text + p->len, piece.base, piece.len);
    p->len += piece.len;
    p->text[p->len] = '\0';
    return CB_OK;
}

static int ignore(cb_slice piece, void *user) {
    (void)piece;
    (void)user;
    return CB_OK;
}

void moved_scrape(cb_metrics *m) {
    cr_assert_eq(cb_metrics_render(m, CB_METRICS_TEXT, 0, ignore, NULL), CB_OK, "%s", cb_last_error());
}

/* The text format says it: NAME_sum{a="x",b="y"} 1.5 */
double moved_sum(cb_metrics *m, const char *name, ...) {
    cb_slice values[CB_METRIC_LABELS_MAX] = {{0}};
    page p = {0};
    double sum = 0;
    va_list args;
    va_start(args, name);
    size_t n = read_values(args, values), found = 0;
    va_end(args);
    cr_assert_eq(cb_metrics_render(m, CB_METRICS_TEXT, 0, take, &p), CB_OK);
    for (char *rest = p.text, *line; (line = strsep(&rest, "\n"));) {
        size_t len = strlen(name);
        if (strncmp(line, name, len) != 0 || strncmp(line + len, "_sum", 4) != 0) continue;
        bool same = true;
        for (size_t i = 0; i < n && same; i++) {
            char quoted[300];
            snprintf(quoted, sizeof quoted, "=\"%.*s\"", (int)values[i].len, (const char *)values[i].base);
            same = strstr(line, quoted) != NULL;
        }
        if (!same) continue;
        sum += strtod(strrchr(line, ' '), NULL);
        found++;
    }
    free(p.text);
    cr_assert(found == 1, "%zu series of %s fit", found, name);
    return sum;
}
