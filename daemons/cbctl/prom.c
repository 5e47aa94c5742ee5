#include "prom.h"
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- room ---- */

static void *grown(void *at, size_t n, size_t each) {
    if (n & (n - 1)) return at; /* it doubles at powers of two */
    return realloc(at, (n ? n * 2 : 1) * each);
}

static prom_family *add_family(prom_page *p, const char *name) {
    prom_family *f = grown(p->families, p->n_families, sizeof *f);
    if (!f) return NULL;
    p->families = f;
    f += p->n_families++;
    *f = (prom_family){.name = name, .first = p->n_samples};
    return f;
}

static prom_family *last_family(const prom_page *p) {
    return p->n_families ? &p->families[p->n_families - 1] : NULL;
}

/* ---- lines ---- */

static size_t name_length(const char *at) {
    size_t n = 0;
    while ((at[n] >= 'a' && at[n] <= 'z') || (at[n] >= 'A' && at[n] <= 'Z') || at[n] == '_' || at[n] == ':' ||
           (n && at[n] >= '0' && at[n] <= '9'))
        n++;
    return n;
}

static char *skip(char *at) {
    return at + strspn(at, " \t");
}

/* The family that a sample's name belongs to: the one of the lines before, when the name is that or has an ending. */
static bool belongs(const prom_family *f, const char *name) {
    static const char *const endings[] = {"", "_bucket", "_sum", "_count", "_total", "_created"};
    const size_t n = f ? strlen(f->name) : 0;
    if (!f || strncmp(name, f->name, n) != 0) return false;
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++)
        if (strcmp(name + n, endings[i]) == 0) return true;
    return false;
}

static int family_of(prom_page *p, const char *name, prom_family **out) {
    prom_family *f = last_family(p);
    if (!belongs(f, name)) f = add_family(p, name);
    *out = f;
    return f ? 0 : -1;
}

/* "# HELP name text" and "# TYPE name word"; other comments are nothing. */
static int read_comment(prom_page *p, char *at) {
    prom_family *f = NULL;
    at = skip(at + 1);
    const bool help = strncmp(at, "HELP", 4) == 0, type = strncmp(at, "TYPE", 4) == 0;
    if ((!help && !type) || (at[4] != ' ' && at[4] != '\t')) return 0;
    char *name = skip(at + 4);
    const size_t n = name_length(name);
    char *rest = name + n;
    if (!n) return -1;
    if (*rest) {
        *rest++ = '\0';
        rest = skip(rest);
    }
    f = last_family(p);
    if (!f || strcmp(f->name, name) != 0) f = add_family(p, name);
    if (!f) return -1;
    if (help) f->help = rest;
    for (int t = PROM_UNTYPED; type && t <= PROM_SUMMARY; t++)
        if (strcmp(rest, prom_type_name((enum prom_type)t)) == 0) f->type = (enum prom_type)t;
    return 0;
}

/* The text behind a quote, its escapes undone in place. Returns what is behind its end; NULL: it has none. */
static char *read_quoted(char *at) {
    char *to = at;
    for (; *at != '"'; at++) {
        if (!*at) return NULL;
        if (*at == '\\') {
            at++;
            if (*at != '\\' && *at != '"' && *at != 'n') return NULL;
            *to++ = *at == 'n' ? '\n' : *at;
        } else {
            *to++ = *at;
        }
    }
    *to = '\0';
    return at + 1;
}

/* Behind "{"; returns what is behind "}". */
static char *read_labels(prom_page *p, prom_sample *s, char *at) {
    for (at = skip(at); *at != '}'; at = skip(at)) {
        const size_t n = name_length(at);
        char *eq = skip(at + n);
        if (!n || *eq != '=' || s->n == PROM_LABELS) return NULL;
        char *value = skip(eq + 1);
        if (*value != '"') return NULL;
        prom_label *l = grown(p->labels, p->n_labels, sizeof *l);
        if (!l) return NULL;
        p->labels = l;
        char *end = read_quoted(++value);
        if (!end) return NULL;
        at[n] = '\0';
        l[p->n_labels++] = (prom_label){at, value};
        s->n++;
        at = skip(end);
        if (*at == ',')
            at++;
        else if (*at != '}')
            return NULL;
    }
    return at + 1;
}

/* "name{label="value"} 1.5 [time]" */
static int read_sample(prom_page *p, char *at) {
    const size_t n = name_length(at);
    prom_sample s = {.name = at, .label = p->n_labels};
    prom_family *f = NULL;
    if (!n) return -1;
    char *rest = skip(at + n);
    if (*rest == '{')
        rest = read_labels(p, &s, rest + 1);
    else if (rest == at + n)
        return -1;
    if (!rest) return -1;
    at[n] = '\0';
    rest = skip(rest);
    char *end = NULL;
    s.value = strtod(rest, &end);
    if (end == rest || (*end && *end != ' ' && *end != '\t')) return -1;
    if (family_of(p, s.name, &f) < 0) return -1;
    prom_sample *all = grown(p->samples, p->n_samples, sizeof *all);
    if (!all) return -1;
    p->samples = all;
    all[p->n_samples++] = s;
    f->n++;
    return 0;
}

int prom_read(prom_page *p, char *text, size_t len) {
    *p = (prom_page){.text = text};
    if (len != strlen(text)) { /* a NUL in it */
        p->line = 1;
        return -1;
    }
    for (char *at = text; at < text + len;) {
        char *end = at + strcspn(at, "\n"), *next = end + 1;
        *end = '\0';
        if (end > at && end[-1] == '\r') end[-1] = '\0';
        at = skip(at);
        p->line++;
        int rc = *at == '#' ? read_comment(p, at) : *at ? read_sample(p, at) : 0;
        if (rc < 0) return rc;
        at = next;
    }
    return 0;
}

void prom_free(prom_page *p) {
    free(p->text);
    free(p->families);
    free(p->samples);
    free(p->labels);
    *p = (prom_page){0};
}

/* ---- asking ---- */

const char *prom_type_name(enum prom_type type) {
    static const char *const names[] = {"untyped", "counter", "gauge", "histogram", "summary"};
    return names[type];
}

const prom_family *prom_find(const prom_page *p, const char *family) {
    const size_t n = strlen(family);
    for (size_t i = 0; i < p->n_families; i++) {
        const char *name = p->families[i].name;
        if (strncmp(name, family, n) == 0 && (!name[n] || strcmp(name + n, "_total") == 0)) return &p->families[i];
    }
    return NULL;
}

const char *prom_label_of(const prom_page *p, const prom_sample *s, const char *name) {
    for (size_t i = 0; i < s->n; i++)
        if (strcmp(p->labels[s->label + i].name, name) == 0) return p->labels[s->label + i].value;
    return "";
}

bool prom_fits(const prom_page *p, const prom_sample *s, const char *const *match) {
    for (; match && *match; match += 2)
        if (strcmp(prom_label_of(p, s, match[0]), match[1]) != 0) return false;
    return true;
}

double prom_sum(const prom_page *p, const char *family, const char *const *match) {
    const prom_family *f = prom_find(p, family);
    double sum = NAN;
    for (size_t i = 0; f && i < f->n; i++) {
        const prom_sample *s = &p->samples[f->first + i];
        if (prom_fits(p, s, match)) sum = isnan(sum) ? s->value : sum + s->value;
    }
    return sum;
}

/* ---- histograms ---- */

/* Adds to the bucket that ends at bound; the list stays in order. */
static void put(prom_histogram *h, double bound, double in) {
    size_t i = h->n;
    while (i && h->bound[i - 1] >= bound)
        i--;
    if (i < h->n && h->bound[i] == bound) {
        h->in[i] += in;
        return;
    }
    if (h->n == PROM_BUCKETS) return;
    memmove(&h->bound[i + 1], &h->bound[i], (h->n - i) * sizeof *h->bound);
    memmove(&h->in[i + 1], &h->in[i], (h->n - i) * sizeof *h->in);
    h->bound[i] = bound;
    h->in[i] = in;
    h->n++;
}

static bool ends(const char *text, const char *ending) {
    const size_t n = strlen(text), m = strlen(ending);
    return n >= m && strcmp(text + n - m, ending) == 0;
}

bool prom_histogram_read(prom_histogram *h, const prom_page *p, const char *family, const char *const *match) {
    const prom_family *f = prom_find(p, family);
    double before = 0;
    *h = (prom_histogram){.n = 0};
    for (size_t i = 0; f && i < f->n; i++) { /* buckets of a series come in order, up to +Inf */
        const prom_sample *s = &p->samples[f->first + i];
        if (!prom_fits(p, s, match)) continue;
        if (ends(s->name, "_sum")) h->sum += s->value;
        if (ends(s->name, "_count")) h->count += s->value;
        if (!ends(s->name, "_bucket")) continue;
        const double bound = strtod(prom_label_of(p, s, "le"), NULL);
        put(h, bound, s->value > before ? s->value - before : 0);
        before = isinf(bound) ? 0 : s->value;
    }
    return h->n > 0;
}

void prom_histogram_since(prom_histogram *h, const prom_histogram *before) {
    for (size_t i = 0, k = 0; i < h->n; i++) {
        while (k < before->n && before->bound[k] < h->bound[i])
            k++;
        if (k < before->n && before->bound[k] == h->bound[i])
            h->in[i] = h->in[i] > before->in[k] ? h->in[i] - before->in[k] : 0;
    }
    h->sum = h->sum > before->sum ? h->sum - before->sum : 0;
    h->count = h->count > before->count ? h->count - before->count : 0;
}

double prom_quantile(const prom_histogram *h, double q) {
    double all = 0, below = 0;
    for (size_t i = 0; i < h->n; i++)
        all += h->in[i];
    if (all <= 0) return NAN;
    for (size_t i = 0; i < h->n; i++) {
        if (below + h->in[i] < q * all) {
            below += h->in[i];
            continue;
        }
        const double from = i ? h->bound[i - 1] : 0;
        if (isinf(h->bound[i])) return from;
        return h->in[i] > 0 ? from + (h->bound[i] - from) * (q * all - below) / h->in[i] : h->bound[i];
    }
    return h->n ? h->bound[h->n - 1] : NAN;
}

/* ---- numbers for people ---- */

static void scaled(char out[16], double v, double step, const char *const *units, size_t n) {
    size_t i = 0;
    while (i + 1 < n && fabs(v) >= step) {
        v /= step;
        i++;
    }
    const int digits = v == floor(v) && !i ? 0 : fabs(v) < 10 ? 2 : fabs(v) < 100 ? 1 : 0;
    snprintf(out, 16, "%.*f%s", digits, v, units[i]);
}

void prom_short(char out[16], double v) {
    static const char *const units[] = {"", "k", "M", "G", "T", "P"};
    if (isfinite(v))
        scaled(out, v, 1000, units, 6);
    else
        snprintf(out, 16, isnan(v) ? "-" : "inf");
}

void prom_bytes(char out[16], double v) {
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
    if (isfinite(v))
        scaled(out, v, 1024, units, 6);
    else
        snprintf(out, 16, "-");
}

void prom_seconds(char out[16], double v) {
    static const char *const units[] = {"ns", "us", "ms"};
    if (!isfinite(v))
        snprintf(out, 16, "-");
    else if (fabs(v) < 1)
        scaled(out, v * 1e9, 1000, units, 3);
    else if (v < 100)
        snprintf(out, 16, v < 10 ? "%.2fs" : "%.1fs", v);
    else
        snprintf(out, 16,
                 v < 6000     ? "%.0fs"
                 : v < 360000 ? "%.1fh"
                              : "%.0fd",
                 v < 6000     ? v
                 : v < 360000 ? v / 3600
                              : v / 86400);
}
