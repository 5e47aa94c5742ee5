/* The families of libcb itself: rows of catalogue.def, by number. */
#ifndef CB_TELEMETRY_CATALOGUE_H
#define CB_TELEMETRY_CATALOGUE_H

#include <cb/metrics.h>

enum cb_family {
#define X(id, module, kind, name, unit, decimals, labels, help) CB_F_##id,
#include "telemetry/catalogue.def"
#undef X
    CB_FAMILIES
};

/* The family of a row, defined at the first call. Errors as cb_metrics_define(). */
int cb_catalogue_define(cb_metric **out, cb_metrics *m, enum cb_family family);

#endif
