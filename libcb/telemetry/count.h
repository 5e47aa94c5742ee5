/* Counting into the families of libcb. A loop that was given a registry has `cells`, one for each series of the
 * catalogue whose label values are all written there; another has NULL, and everything here does nothing then. Whoever
 * counts names a series by its number (CB_C_...; cells.def has them) and knows nothing of texts. */
#ifndef CB_TELEMETRY_COUNT_H
#define CB_TELEMETRY_COUNT_H

#include "telemetry/cell.h"
#include "telemetry/family.h"

enum cb_cell_id {
#define X(id, family, values) CB_C_##id,
#include "telemetry/cells.def"
#undef X
    CB_CELLS
};

/* Of a family with side=server|client: the series of what `server` says. */
#define CB_SIDE(server, name) ((server) ? CB_C_##name##_SERVER : CB_C_##name##_CLIENT)

typedef struct cb_cells {
    cb_meter *meter; /* of the loop's thread, as everything else here */
    cb_metric *families[CB_FAMILIES];
    cb_cell *at[CB_CELLS];
} cb_cells;

/* A counter grows by n. */
static inline void cb_cells_add(const cb_cells *cells, enum cb_cell_id id, uint64_t n) {
    if (cells) cb_cell_grow(&cells->at[id]->value, n);
}

/* A gauge goes up or down by n. */
static inline void cb_cells_move(const cb_cells *cells, enum cb_cell_id id, int64_t n) {
    if (cells) cb_cell_grow(&cells->at[id]->value, (uint64_t)n);
}

/* A gauge's part of this loop is `value` from now on. */
static inline void cb_cells_set(const cb_cells *cells, enum cb_cell_id id, int64_t value) {
    if (cells) cb_cell_set(cells->at[id], value);
}

/* One more value in a histogram, in the family's smallest unit: nanoseconds, bytes. */
static inline void cb_cells_observe(const cb_cells *cells, enum cb_cell_id id, uint64_t value) {
    if (cells) cb_cell_observe(cells->at[id], value);
}

#endif
