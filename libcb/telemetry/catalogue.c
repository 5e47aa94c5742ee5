#include "telemetry/catalogue.h"
#include "base/error.h"
#include <string.h>

enum { LABELS_BYTES = 128 };

static const struct {
    const char *name, *unit, *labels, *help;
    uint8_t kind, decimals;
} rows[] = {
#define X(id, module, kind, name, unit, decimals, labels, help) {name, unit, labels, help, CB_METRIC_##kind, decimals},
#include "telemetry/catalogue.def"
#undef X
};

/* Classic buckets by unit: those of http.server.request.duration and finer ones before them, powers of four, of two. */
static const double seconds[] = {1e-5,  1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05,
                                 0.075, 0.1,  0.25,   0.5,  0.75, 1,      2.5,  5,    7.5,   10};
static const double bytes[] = {64,      256,     1024,     4096,     16384,     65536,     262144,
                               1048576, 4194304, 16777216, 67108864, 268435456, 1073741824};
static const double counts[] = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024};

static const struct {
    const char *unit;
    const double *bounds;
    size_t len;
} buckets[] = {{"seconds", seconds, sizeof seconds / sizeof *seconds},
               {"bytes", bytes, sizeof bytes / sizeof *bytes},
               {"bytes_per_second", bytes, sizeof bytes / sizeof *bytes},
               {"", counts, sizeof counts / sizeof *counts}};

static void choose_buckets(cb_metric_opts *o) {
    for (size_t i = 0; i < sizeof buckets / sizeof *buckets; i++) {
        if (strcmp(o->unit, buckets[i].unit) != 0) continue;
        o->bounds = buckets[i].bounds;
        o->bounds_len = buckets[i].len;
        o->max = o->bounds[o->bounds_len - 1] * 16;
    }
}

/* Cuts "version=4|6,code" into its names, in `text`. */
static size_t label_names(const char *labels, char text[LABELS_BYTES], const char *names[CB_METRIC_LABELS_MAX]) {
    size_t n = 0;
    char *rest = NULL;
    strncpy(text, labels, LABELS_BYTES - 1);
    text[LABELS_BYTES - 1] = '\0';
    for (char *name = strtok_r(text, ",", &rest); name && n < CB_METRIC_LABELS_MAX; name = strtok_r(NULL, ",", &rest)) {
        name[strcspn(name, "=")] = '\0';
        names[n++] = name;
    }
    return n;
}

int cb_catalogue_define(cb_metric **out, cb_metrics *m, enum cb_metric_row family) {
    char text[LABELS_BYTES];
    const char *names[CB_METRIC_LABELS_MAX];
    cb_metric_opts o = {.size = sizeof o,
                        .name = rows[family].name,
                        .help = rows[family].help,
                        .unit = rows[family].unit,
                        .kind = rows[family].kind,
                        .decimals = rows[family].decimals,
                        .labels = names};
    o.exemplars = family == CB_F_PROXY_SECONDS;
    o.labels_len = label_names(rows[family].labels, text, names);
    if (o.kind == CB_METRIC_HISTOGRAM) choose_buckets(&o);
    return cb_metrics_define(out, m, &o);
}
