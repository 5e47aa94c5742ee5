/* What cb-edge counts of itself, and who may see it: the registry (telemetry.c) and its listener (observe.c). */
#ifndef CB_EDGE_TELEMETRY_H
#define CB_EDGE_TELEMETRY_H

#include "edge.h"

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
void edge_telemetry_decided(edge *e, enum edge_outcome o);
void edge_telemetry_upgraded(edge *e, enum edge_outcome o);
uint64_t edge_revision(const edge *e);
/* What runs has this number from now on; without it they are counted. */
void edge_set_revision(edge *e, uint64_t number);
void edge_telemetry_look(edge *e); /* now and then */
/* The snapshot that runs: a reference. Any thread. NULL: none yet. */
edge_snapshot *edge_shown(edge *e);

/* --- health.c --- */
void edge_health_ask(edge *e); /* now and then, on the main thread */
/* How long ago a worker answered. Any thread, as the two below. */
int64_t edge_silence_ms(const edge *e, uint32_t worker);
bool edge_is_ready(const edge *e, const char **why);
bool edge_is_alive(const edge *e, char why[EDGE_SAID]);

#endif
