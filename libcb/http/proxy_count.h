/* What a proxy counts: cells of the routes, groups and origins of a table. Without a registry there are none, and each
 * function returns at once. */
#ifndef CB_HTTP_PROXY_COUNT_H
#define CB_HTTP_PROXY_COUNT_H

#include "base/map.h"
#include "telemetry/cells.h"
#include <cb/health.h>

enum { CB_COUNT_CLASSES = 6, CB_COUNT_REASONS = 16, CB_COUNT_TENANTS = 1000 };

/* Cells by a reason, which is a static text; those beyond the table are got anew each time. */
typedef struct cb_reason_cells {
    struct {
        const char *reason;
        cb_cell *cell;
    } at[CB_COUNT_REASONS];
    size_t n;
} cb_reason_cells;

typedef struct cb_target_cells {
    cb_cell *up, *ejections, *active, *requests[CB_COUNT_CLASSES], *outliers[CB_OUTLIER_RULES];
    cb_reason_cells failures;
} cb_target_cells;

typedef struct cb_group_cells {
    cb_cell *active, *tunnels, *retries, *first;
    cb_reason_cells failures;
    cb_target_cells *targets;
} cb_group_cells;

/* Of a route and a tenant. */
typedef struct cb_tenant_cells {
    cb_cell *requests[CB_COUNT_CLASSES], *bytes[2];
} cb_tenant_cells;

typedef struct cb_route_cells {
    cb_cell *seconds;
    cb_tenant_cells own; /* of the route's own tenant */
} cb_route_cells;

typedef struct cb_table_cells {
    const cb_cells *cells;
    cb_group_cells *groups;
    cb_route_cells *routes;
    cb_map tenants; /* of others: cb_tenant_cells by route and name */
} cb_table_cells;

#endif
