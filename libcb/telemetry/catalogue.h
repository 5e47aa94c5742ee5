/* Defining the families of libcb in a registry. */
#ifndef CB_TELEMETRY_CATALOGUE_H
#define CB_TELEMETRY_CATALOGUE_H

#include "telemetry/family.h"
#include <cb/metrics.h>

/* The family of a row, defined at the first call. Errors as cb_metrics_define(). */
int cb_catalogue_define(cb_metric **out, cb_metrics *m, enum cb_metric_row family);

#endif
