/* The scrape for people: counters and gauges as they are, histograms as count, mean and quantiles. */
#include "admin.h"
#include "prom.h"
#include "text.h"
#include <fnmatch.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { LABELS_BYTES = 1024, JSON_MAX = 512 << 20 };

static const double quantiles[] = {0.5, 0.9, 0.99};

/* Patterns, or beginnings of names. */
static bool chosen(const cbctl_args *g, const char *name) {
    for (size_t i = 0; i < g->n_words; i++) {
        const char *w = g->words[i];
        if (fnmatch(w, name, 0) == 0 || strncmp(name, w, strlen(w)) == 0) return true;
    }
    return g->n_words == 0;
}

static bool ends(const char *text, const char *ending) {
    const size_t n = strlen(text), m = strlen(ending);
    return n >= m && strcmp(text + n - m, ending) == 0;
}

/* "a=1,b=2" without le. */
static void labels_text(char out[LABELS_BYTES], const prom_page *p, const prom_sample *s) {
    size_t n = 0;
    out[0] = '\0';
    for (size_t i = 0; i < s->n && n < LABELS_BYTES; i++) {
        const prom_label *l = &p->labels[s->label + i];
        if (strcmp(l->name, "le") == 0) continue;
        n += (size_t)snprintf(out + n, LABELS_BYTES - n, "%s%s=%s", n ? "," : "", l->name, l->value);
    }
}

static void exact(char out[40], double v) {
    snprintf(out, 40, fabs(v) < 1e15 && v == floor(v) ? "%.0f" : "%.9g", v);
}

/* ---- histograms ---- */

/* The labels of a series, for prom_fits(); without le. */
static void match_of(const char *out[2 * PROM_LABELS + 1], const prom_page *p, const prom_sample *s) {
    size_t n = 0;
    for (size_t i = 0; i < s->n; i++) {
        const prom_label *l = &p->labels[s->label + i];
        if (strcmp(l->name, "le") == 0) continue;
        out[n++] = l->name;
        out[n++] = l->value;
    }
    out[n] = NULL;
}

static void value_text(char out[16], const prom_family *f, double v) {
    if (ends(f->name, "_seconds"))
        prom_seconds(out, v);
    else if (ends(f->name, "_bytes"))
        prom_bytes(out, v);
    else
        prom_short(out, v);
}

/* s is the series' _count. */
static void histogram_text(char *out, size_t cap, const prom_page *p, const prom_family *f, const prom_sample *s,
                           prom_histogram *h) {
    const char *match[2 * PROM_LABELS + 1];
    char count[16], v[4][16];
    match_of(match, p, s);
    prom_histogram_read(h, p, f->name, match);
    prom_short(count, h->count);
    value_text(v[0], f, h->count > 0 ? h->sum / h->count : NAN);
    for (size_t i = 0; i < 3; i++)
        value_text(v[1 + i], f, prom_quantile(h, quantiles[i]));
    snprintf(out, cap, "%s: mean %s, p50 %s, p90 %s, p99 %s", count, v[0], v[1], v[2], v[3]);
}

/* ---- the forms ---- */

static int print_people(const cbctl_args *g, const prom_page *p) {
    prom_histogram *h = malloc(sizeof *h);
    cbctl_table t;
    if (!h) return cbctl_failed(CB_ENOMEM);
    cbctl_table_begin(&t, 3);
    cbctl_table_cell(&t, "metric");
    cbctl_table_cell(&t, "labels");
    cbctl_table_cell(&t, "value");
    for (size_t k = 0; k < p->n_samples && !t.failed; k++) {
        const prom_sample *s = &p->samples[k];
        const prom_family *f = p->families;
        while (f->first + f->n <= k)
            f++;
        char labels[LABELS_BYTES], value[128];
        if (!chosen(g, f->name) || (f->type == PROM_HISTOGRAM && !ends(s->name, "_count"))) continue;
        labels_text(labels, p, s);
        if (f->type == PROM_HISTOGRAM)
            histogram_text(value, sizeof value, p, f, s, h);
        else
            exact(value, s->value);
        cbctl_table_cell(&t, f->type == PROM_HISTOGRAM ? f->name : s->name);
        cbctl_table_cell(&t, labels);
        cbctl_table_cell(&t, value);
    }
    free(h);
    return cbctl_table_print(&t, stdout, "");
}

static void put_sample(cb_json_out *out, const prom_page *p, const prom_sample *s) {
    cb_json_put_object(out, NULL);
    cb_json_put_str(out, "name", s->name);
    cb_json_put_object(out, "labels");
    for (size_t i = 0; i < s->n; i++)
        cb_json_put_str(out, p->labels[s->label + i].name, p->labels[s->label + i].value);
    cb_json_put_end(out);
    if (isfinite(s->value))
        cb_json_put_number(out, "value", s->value);
    else
        cb_json_put_str(out, "value", isnan(s->value) ? "NaN" : s->value > 0 ? "+Inf" : "-Inf");
    cb_json_put_end(out);
}

/* [{"name", "type", "help", "samples": [{"name", "labels", "value"}]}] */
static int print_json(const cbctl_args *g, const prom_page *p) {
    cb_json_out *out = NULL;
    cb_slice s = {NULL, 0};
    int rc = cb_json_out_new(&out, JSON_MAX);
    if (rc < 0) return cbctl_failed(rc);
    cb_json_put_list(out, NULL);
    for (size_t i = 0; i < p->n_families; i++) {
        const prom_family *f = &p->families[i];
        if (!chosen(g, f->name)) continue;
        cb_json_put_object(out, NULL);
        cb_json_put_str(out, "name", f->name);
        cb_json_put_str(out, "type", prom_type_name(f->type));
        if (f->help) cb_json_put_str(out, "help", f->help);
        cb_json_put_list(out, "samples");
        for (size_t k = 0; k < f->n; k++)
            put_sample(out, p, &p->samples[f->first + k]);
        cb_json_put_end(out);
        cb_json_put_end(out);
    }
    cb_json_put_end(out);
    rc = cb_json_out_text(out, &s);
    if (rc >= 0) cbctl_json_print(stdout, (const char *)s.base, s.len);
    cb_json_out_free(out);
    return rc < 0 ? cbctl_failed(rc) : CBCTL_OK;
}

/* Lines as they came, of the families that were chosen. */
static void print_raw(const cbctl_args *g, const char *text) {
    char name[256];
    bool print = g->n_words == 0;
    for (const char *at = text; *at; at += strcspn(at, "\n"), at += *at == '\n') {
        const char *word = at;
        if (*at == '#') word = strncmp(at, "# HELP ", 7) == 0 || strncmp(at, "# TYPE ", 7) == 0 ? at + 7 : NULL;
        if (word) {
            snprintf(name, sizeof name, "%.*s", (int)strcspn(word, " {\n"), word);
            print = chosen(g, name);
        }
        if (!print) continue;
        char *safe = cbctl_safe(at, strcspn(at, "\r\n"));
        if (safe) puts(safe);
        free(safe);
    }
}

int cbctl_metrics(cbctl_admin *a) {
    cbctl_answer r;
    prom_page p;
    if (a->args.raw && a->args.json) return cbctl_usage("metrics: --raw or --json, not both");
    int code = cbctl_ask(a, &(cbctl_question){.path = "/metrics", .accept = "text/plain"}, &r);
    if (code != CBCTL_OK) return code;
    if (strncmp(r.type, "text/plain", 10) != 0) {
        fprintf(stderr, "cbctl: %s: the answer is ", a->place);
        cbctl_put(stderr, *r.type ? r.type : "of no type");
        fputs(", not text/plain: is that an admin interface?\n", stderr);
        cbctl_answer_free(&r);
        return CBCTL_FAILED;
    }
    if (a->args.raw) {
        print_raw(&a->args, r.body ? r.body : "");
        cbctl_answer_free(&r);
        return CBCTL_OK;
    }
    char *text = r.body ? r.body : strdup("");
    if (!text) return cbctl_failed(CB_ENOMEM);
    if (prom_read(&p, text, r.len) < 0) {
        fprintf(stderr, "cbctl: %s: line %zu of the metrics is none\n", a->place, p.line);
        code = CBCTL_FAILED;
    } else {
        code = a->args.json ? print_json(&a->args, &p) : print_people(&a->args, &p);
    }
    prom_free(&p);
    return code;
}
