/* Statistics of an object that has no loop of its own (an audit log, a store, a log writer, a tracer), shown in a
 * registry: a collector reads them at each scrape. */
#ifndef CB_TELEMETRY_SHOWN_H
#define CB_TELEMETRY_SHOWN_H

#include "telemetry/family.h"
#include <cb/metrics.h>

typedef struct cb_shown cb_shown;

/* One series: its family, whose first label is "name", and where its uint64_t is among the statistics. */
typedef struct cb_shown_row {
    enum cb_metric_row family;
    size_t at;
    const char *label; /* value of the second label; NULL: there is none */
} cb_shown_row;

enum { CB_SHOWN_STATS = 256 }; /* bytes of the statistics at most */

typedef struct cb_shown_what {
    const cb_shown_row *rows;
    size_t n_rows, size;                   /* size: of the statistics, which begin with it */
    int (*get)(void *object, void *stats); /* on any thread; < 0: nothing is shown now */
} cb_shown_what;

/* *out must be NULL: an object is shown once. References m. name: NULL = "". CB_EINVAL, CB_EEXIST, CB_ENOMEM. */
int cb_shown_begin(cb_shown **out, cb_metrics *m, const char *name, const cb_shown_what *what, void *object);
/* When this returns the object is not asked any more. NULL is fine. */
void cb_shown_end(cb_shown *s);

#endif
