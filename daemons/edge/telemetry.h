/* What cb-edge counts of itself, and who may see it: the registry (telemetry.c) and its listener (observe.c). */
#ifndef CB_EDGE_TELEMETRY_H
#define CB_EDGE_TELEMETRY_H

#include "edge.h"
#include <cb/admin.h>

/* --- telemetry.c: of the main thread, but for what is atomic and what collectors read --- */
enum edge_outcome { EDGE_GOOD, EDGE_BAD, EDGE_OUTCOMES };

int edge_telemetry_new(edge *e);
void edge_telemetry_free(edge *e);
cb_metrics *edge_metrics(const edge *e);
/* From the process before, and for the one after. */
void edge_telemetry_inherit(edge *e);
int edge_telemetry_save(const edge *e, cb_handoff *h);
/* This configuration runs from now on; NULL: the end. */
void edge_telemetry_show(edge *e, edge_snapshot *s);
/* A configuration is offered; then what became of it. */
void edge_telemetry_offered(edge *e);
void edge_telemetry_decided(edge *e, enum edge_outcome o, bool by_file);
void edge_telemetry_upgraded(edge *e, enum edge_outcome o);
uint64_t edge_revision(const edge *e);
/* What runs has this number from now on; without it they are counted. */
void edge_set_revision(edge *e, uint64_t number);
void edge_telemetry_look(edge *e); /* now and then */
/* The snapshot that runs: a reference. Any thread. NULL: none yet. */
edge_snapshot *edge_shown(edge *e);

/* For the pages of an admin, on its loop. */
void edge_health_show(const edge *e, cb_admin *a);

/* --- side.c: a thread for what must not hold up others --- */
int edge_side_begin(edge *e); /* once is enough */
cb_loop *edge_side_loop(const edge *e);
/* Does something over there and waits: what opens sockets must say whether it could. On the main thread. */
int edge_side_do(edge *e, int (*fn)(edge *e, void *arg), void *arg);
void edge_side_end(edge *e); /* everything on it has been freed */

/* --- trace.c --- */
/* The tracer of a configuration, into it: the one of before where nothing has changed. */
int edge_tracing_prepare(edge *e, edge_snapshot *next, edge_source *from);
int edge_tracing_check(const edge_conf *c, edge_source *from); /* sends nothing */
edge_tracing *edge_tracing_ref(edge_tracing *t);
/* NULL is fine. The last one lets what waits leave, for two seconds at most. Any thread. */
void edge_tracing_unref(edge_tracing *t);
void edge_tracing_wait(const edge *e);                     /* until that is over */
void edge_tracing_use(cb_proxy *p, const edge_tracing *t); /* NULL: none */
int edge_tracing_stats(const edge_tracing *t, cb_tracer_stats *out);

/* --- observe.c: the page of metrics and health --- */
int edge_observe_prepare(edge *e, edge_snapshot *next, edge_source *from);
void edge_observe_commit(edge *e, edge_snapshot *next);
void edge_observe_abort(edge *e);
int edge_observe_save(edge *e, cb_handoff *h);
/* This process serves, and so does what it took over; or it drains. */
void edge_observe_tell(edge *e);
void edge_observe_leave(edge *e); /* a successor has the address */
void edge_observe_free(edge *e);

/* --- health.c --- */
void edge_health_ask(edge *e); /* now and then, on the main thread */
/* How long ago a worker answered. Any thread, as the two below. */
int64_t edge_silence_ms(const edge *e, uint32_t worker);
bool edge_is_ready(const edge *e, const char **why);
bool edge_is_alive(const edge *e, char why[EDGE_SAID]);

#endif
