#include "telemetry/cells.h"
#include "base/error.h"
#include "base/mem.h"
#include "telemetry/catalogue.h"
#include "telemetry/metrics_int.h"
#include <string.h>

/* In order of families; values end in NUL each. */
static const struct {
    enum cb_metric_row family;
    const char *values;
} series[] = {
#define X(id, family, values) {CB_F_##family, values},
#include "telemetry/cells.def"
#undef X
};

/* A collector shows these; a loop counts nothing in them. */
enum { COUNTED_FROM = CB_F_SOFTNET_SQUEEZED + 1 };

static int define(cb_cells *cells, cb_metrics *m) {
    int rc = CB_OK;
    for (int f = COUNTED_FROM; f < CB_FAMILIES && rc == CB_OK; f++)
        rc = cb_catalogue_define(&cells->families[f], m, (enum cb_metric_row)f);
    return rc;
}

static int get(cb_cells *cells, size_t i) {
    cb_slice values[CB_METRIC_LABELS_MAX];
    cb_metric *family = cells->families[series[i].family];
    const char *text = series[i].values;
    for (uint32_t k = 0; k < family->shape.n_labels; k++, text += strlen(text) + 1)
        values[k] = cb_slice_str(text);
    return cb_cell_get(&cells->at[i], cells->meter, family, values);
}

int cb_cells_new(cb_cells **out, cb_metrics *m) {
    cb_cells *cells = cb_mem_new(&m->alloc, sizeof *cells);
    if (!cells) return cb_fail(CB_ENOMEM, "no memory to count");
    int rc = cb_meter_new(&cells->meter, m);
    if (rc == CB_OK) rc = define(cells, m);
    for (size_t i = 0; i < CB_CELLS && rc == CB_OK; i++)
        rc = get(cells, i);
    if (rc == CB_OK) {
        *out = cells;
        return CB_OK;
    }
    cb_meter_free(cells->meter);
    cb_mem_free(&m->alloc, cells);
    return rc;
}

void cb_cells_free(cb_cells *cells) {
    if (!cells) return;
    cb_meter *meter = cells->meter;
    cb_mem_free(&meter->registry->alloc, cells);
    cb_meter_free(meter);
}

cb_cell *cb_cells_series(const cb_cells *cells, enum cb_metric_row family, const cb_slice *values) {
    cb_cell *c = NULL;
    if (!cells || cb_cell_get(&c, cells->meter, cells->families[family], values) < 0) return NULL;
    return c;
}
