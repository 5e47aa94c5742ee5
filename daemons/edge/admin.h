/* Administration of cb-edge: the door (admin.c), and what is behind it beside configuration and revisions. */
#ifndef CB_EDGE_ADMIN_H
#define CB_EDGE_ADMIN_H

#include "telemetry.h"

/* --- admin_gather.c: a question to all workers, answered when all have answered --- */
typedef struct edge_gather edge_gather;

/* What a worker knows; its memory is the answer's. */
typedef struct edge_part {
    edge_worker *worker;
    void *rows; /* malloc(): of the answer */
    size_t n, cap;
    bool there; /* it has answered */
} edge_part;

typedef struct edge_question {
    void (*look)(edge_part *part, const void *arg);                                      /* on the worker's thread */
    void (*done)(edge *e, const edge_part *parts, const void *arg, cb_admin_call *call); /* on the main thread */
    void (*row_free)(void *row);                                                         /* may be NULL */
    size_t row_size;
    const void *arg; /* copied */
    size_t arg_size;
} edge_question;

/* Asks; call may be NULL. A worker that does not answer within two seconds is left out. Workers that are about to end
 * answer too. CB_ENOMEM. */
int edge_ask(edge *e, cb_admin_call *call, const edge_question *q);
/* Another row of a part, zeroed; NULL: no memory, or EDGE_ROWS_MAX are there. */
void *edge_part_row(edge_part *part, size_t row_size);
void edge_asks_free(edge *e); /* after the workers' loops */
enum { EDGE_ROWS_MAX = 65536, EDGE_LABEL = 128, EDGE_URL = 300 };

/* --- admin_status.c, admin_pools.c, admin_connections.c, admin_operate.c: resources --- */
int edge_admin_status(edge *e, cb_admin *a);
int edge_admin_pools(edge *e, cb_admin *a);
void edge_pools_watch(edge *e); /* tells listeners which origins have changed */
int edge_admin_connections(edge *e, cb_admin *a);
int edge_admin_operate(edge *e, cb_admin *a);
int edge_admin_lb(edge *e, cb_admin *a); /* admin_lb.c */
int edge_admin_add(cb_admin *a, const cb_admin_resource *rows, size_t n, edge *e);

/* --- admin_events.c --- */
void edge_events_tick(edge *e); /* once a second, while somebody listens */
void edge_event(edge *e, const char *type, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

#endif
