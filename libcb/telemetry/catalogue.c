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

int cb_catalogue_define(cb_metric **out, cb_metrics *m, enum cb_family family) {
    char text[LABELS_BYTES];
    const char *names[CB_METRIC_LABELS_MAX];
    cb_metric_opts o = {.size = sizeof o,
                        .name = rows[family].name,
                        .help = rows[family].help,
                        .unit = rows[family].unit,
                        .kind = rows[family].kind,
                        .decimals = rows[family].decimals,
                        .labels = names};
    o.labels_len = label_names(rows[family].labels, text, names);
    return cb_metrics_define(out, m, &o);
}
