#include "telemetry/shown.h"
#include "base/error.h"
#include "base/mem.h"
#include "telemetry/catalogue.h"
#include <stdalign.h>
#include <string.h>

struct cb_shown {
    cb_metrics *metrics;
    const cb_shown_what *what;
    void *object;
    char *name;
};

static void show(cb_meter *meter, cb_metrics *m, const cb_shown_row *row, const cb_slice *labels, uint64_t value) {
    cb_metric *family = NULL;
    cb_counter *counter = NULL;
    cb_gauge *gauge = NULL;
    if (cb_catalogue_define(&family, m, row->family) < 0) return;
    if (cb_meter_counter(&counter, meter, family, labels) == CB_OK)
        cb_counter_set(counter, value);
    else if (cb_meter_gauge(&gauge, meter, family, labels) == CB_OK)
        cb_gauge_set(gauge, (int64_t)value);
}

static void collect(cb_meter *meter, void *user) {
    const cb_shown *s = user;
    alignas(8) uint8_t stats[CB_SHOWN_STATS] = {0};
    memcpy(stats, &s->what->size, sizeof s->what->size);
    if (s->what->get(s->object, stats) < 0) return;
    for (size_t i = 0; i < s->what->n_rows; i++) {
        const cb_shown_row *row = &s->what->rows[i];
        const cb_slice labels[] = {cb_slice_str(s->name), cb_slice_str(row->label)};
        uint64_t value;
        memcpy(&value, stats + row->at, sizeof value);
        show(meter, s->metrics, row, labels, value);
    }
}

int cb_shown_begin(cb_shown **out, cb_metrics *m, const char *name, const cb_shown_what *what, void *object) {
    if (!object || !m) return cb_fail(CB_EINVAL, "metrics of an object: it, and a registry, are needed");
    if (*out) return cb_fail(CB_EEXIST, "it is shown already");
    cb_shown *s = cb_mem_new(&cb_alloc_libc, sizeof *s);
    if (!s) return cb_fail(CB_ENOMEM, "no memory for metrics");
    *s = (cb_shown){.metrics = cb_metrics_ref(m), .what = what, .object = object};
    s->name = cb_mem_text(&cb_alloc_libc, name ? name : "");
    int rc = s->name ? cb_metrics_collector(m, collect, s) : cb_fail(CB_ENOMEM, "no memory for metrics");
    if (rc == CB_OK) {
        *out = s;
        return CB_OK;
    }
    cb_metrics_unref(m);
    cb_mem_free(&cb_alloc_libc, s->name);
    cb_mem_free(&cb_alloc_libc, s);
    return rc;
}

void cb_shown_end(cb_shown *s) {
    if (!s) return;
    cb_metrics_collector_remove(s->metrics, collect, s);
    cb_metrics_unref(s->metrics);
    cb_mem_free(&cb_alloc_libc, s->name);
    cb_mem_free(&cb_alloc_libc, s);
}
