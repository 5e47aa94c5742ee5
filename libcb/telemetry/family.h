/* The families of libcb itself: rows of catalogue.def, by number. */
#ifndef CB_TELEMETRY_FAMILY_H
#define CB_TELEMETRY_FAMILY_H

enum cb_metric_row {
#define X(id, module, kind, name, unit, decimals, labels, help) CB_F_##id,
#include "telemetry/catalogue.def"
#undef X
    CB_FAMILIES
};

#endif
