/* The cells that a loop counts with (count.h), and series of families whose label values come from outside. */
#ifndef CB_TELEMETRY_CELLS_H
#define CB_TELEMETRY_CELLS_H

#include "telemetry/count.h"

/* Defines every family that libcb counts and gets their cells. References m. CB_EEXIST (the program has a family of
 * such a name, made otherwise), CB_ENOMEM. */
int cb_cells_new(cb_cells **out, cb_metrics *m);
/* What was counted stays in the registry; what was got by cb_cells_series() goes too. NULL is fine. */
void cb_cells_free(cb_cells *cells);

/* The part of a series that these cells' thread counts with: one value a label of the family, in its order. NULL when
 * cells are NULL or there is no memory for it; counting into that does nothing (cell.h). Takes a lock: get it when what
 * it stands for is made (a listener, a route, an origin), keep it, release it with that. */
cb_cell *cb_cells_series(const cb_cells *cells, enum cb_metric_row family, const cb_slice *values);
/* As often as it was got. NULL is fine. */
void cb_cell_release(cb_cell *c);

#endif
