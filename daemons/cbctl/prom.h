/* Reading a scrape: Prometheus' text format 0.0.4. */
#ifndef CBCTL_PROM_H
#define CBCTL_PROM_H

#include <stdbool.h>
#include <stddef.h>

enum { PROM_LABELS = 32, PROM_BUCKETS = 512 };

typedef struct prom_label {
    const char *name, *value;
} prom_label;

typedef struct prom_sample {
    const char *name; /* with the ending: "x_bucket" */
    size_t label, n;  /* of prom_page.labels */
    double value;
} prom_sample;

enum prom_type { PROM_UNTYPED, PROM_COUNTER, PROM_GAUGE, PROM_HISTOGRAM, PROM_SUMMARY };

typedef struct prom_family {
    const char *name, *help; /* help NULL: none */
    enum prom_type type;
    size_t first, n; /* of prom_page.samples */
} prom_family;

typedef struct prom_page {
    char *text; /* what all texts point into */
    prom_family *families;
    prom_sample *samples;
    prom_label *labels;
    size_t n_families, n_samples, n_labels;
    size_t line; /* where it is wrong */
} prom_page;

/* Reads len bytes at text (malloc'd, NUL-terminated), which become the page's. 0, or < 0: no memory, or p->line says in
 * which line it is not that format. Free it in any case. */
int prom_read(prom_page *p, char *text, size_t len);
void prom_free(prom_page *p);
const char *prom_type_name(enum prom_type type);
const prom_family *prom_find(const prom_page *p, const char *family); /* NULL: it is not there */
/* The value of a label; "" when the sample has none such. */
const char *prom_label_of(const prom_page *p, const prom_sample *s, const char *name);

/* match: labels and the values that samples must have to count, ended by NULL. NULL: all do. */
bool prom_fits(const prom_page *p, const prom_sample *s, const char *const *match);
/* The sum of the samples of a family (counters with and without _total); NaN: there is none. */
double prom_sum(const prom_page *p, const char *family, const char *const *match);

/* How many values fell at or below each bound and above the one before. */
typedef struct prom_histogram {
    double bound[PROM_BUCKETS], in[PROM_BUCKETS];
    double sum, count;
    size_t n;
} prom_histogram;

/* All series of a family that match, together. False: there is none. */
bool prom_histogram_read(prom_histogram *h, const prom_page *p, const char *family, const char *const *match);
/* What came since `before`. */
void prom_histogram_since(prom_histogram *h, const prom_histogram *before);
/* Interpolated within its bucket, as histogram_quantile() of Prometheus does; NaN: nothing is in there. */
double prom_quantile(const prom_histogram *h, double q);

/* ---- numbers for people ---- */

/* "12.3k", "4.50M"; "-" for NaN. */
void prom_short(char out[16], double v);
void prom_seconds(char out[16], double v); /* "1.25ms" */
void prom_bytes(char out[16], double v);   /* "3.4MiB" */

#endif
