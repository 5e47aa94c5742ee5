/* What a configuration has beside what the workers serve: each part opens what is new beforehand, which may fail, and
 * then goes over to it, which cannot. */
#include "telemetry.h"

static void nothing(edge *e) {
    (void)e; /* it goes with its snapshot */
}

static void workers_do(edge *e, edge_snapshot *next) {
    (void)e; /* at their own commit */
    (void)next;
}

static const struct {
    int (*prepare)(edge *e, edge_snapshot *next, edge_source *from);
    void (*commit)(edge *e, edge_snapshot *next);
    void (*abort)(edge *e);
} parts[] = {{edge_log_prepare, edge_log_commit, edge_log_abort},
             {edge_checks_prepare, edge_checks_commit, edge_checks_abort},
             {edge_tracing_prepare, workers_do, nothing},
             {edge_observe_prepare, edge_observe_commit, edge_observe_abort},
             {edge_forwarding_prepare, edge_forwarding_commit, edge_forwarding_abort},
             {edge_admin_prepare, edge_admin_commit, edge_admin_abort}};

enum { PARTS = sizeof parts / sizeof *parts };

int edge_parts_prepare(edge *e, edge_snapshot *next, edge_source *from) {
    int rc = CB_OK;
    for (size_t i = 0; i < PARTS && rc == CB_OK; i++)
        rc = parts[i].prepare(e, next, from);
    if (rc < 0) edge_parts_abort(e);
    return rc;
}

void edge_parts_commit(edge *e, edge_snapshot *next) {
    for (size_t i = 0; i < PARTS; i++)
        parts[i].commit(e, next);
    edge_telemetry_show(e, next);
}

void edge_parts_abort(edge *e) {
    for (size_t i = 0; i < PARTS; i++)
        parts[i].abort(e);
}

int edge_parts_check(const edge_snapshot *s, edge_source *from) {
    int rc = edge_log_check(s->conf, from);
    if (rc == CB_OK) rc = edge_tracing_check(s->conf, from);
    if (rc == CB_OK) rc = edge_forwarding_check(s, from);
    return rc < 0 ? rc : edge_admin_check(s, from);
}
