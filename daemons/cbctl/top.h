/* What `cbctl top` shows: read from two scrapes (top_read.c), drawn (top_draw.c), again and again (top.c). */
#ifndef CBCTL_TOP_H
#define CBCTL_TOP_H

#include "json.h"
#include "prom.h"
#include <cb.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum { TOP_ORIGINS = 1024, TOP_NAME = 64, TOP_VERSIONS = 3 };

/* NaN everywhere: the daemon does not say. Rates are of a second. */
typedef struct top_origin {
    char group[TOP_NAME], name[TOP_NAME], state[16];
    double requests, errors, active, connections;
    double p50, p99; /* of the group */
} top_origin;

typedef struct top_view {
    char version[TOP_NAME], revision[24];
    double pid, uptime_s, draining;
    double interval_s;
    double requests, requests_total, running, class[6]; /* class[2]: of 2xx answers */
    double p50, p90, p99, mean;
    double bytes_in, bytes_out;
    double connections, by_version[TOP_VERSIONS], handshakes, handshakes_failed;
    double workers, loops, busy, cpu, memory, descriptors;
    top_origin origins[TOP_ORIGINS];
    size_t n_origins, n_left_out;
} top_view;

enum top_sort { TOP_BY_NAME, TOP_BY_STATE, TOP_BY_REQUESTS, TOP_BY_ERRORS, TOP_BY_LATENCY, TOP_SORTS };
extern const char *const top_sort_names[TOP_SORTS];

/* status and pools may be NULL. Both pages are of the same process, interval_s apart. */
void top_read(top_view *v, const prom_page *before, const prom_page *now, double interval_s, const json_node *status,
              const json_node *pools);
void top_read_nothing(top_view *v); /* before the first answers */
void top_sort(top_view *v, enum top_sort by);

typedef struct top_look {
    unsigned columns, rows; /* rows 0: as many as there are */
    size_t scroll;          /* origins that are above the first that is shown */
    enum top_sort sort;
    bool colours, paused, help, keys;
    double interval_s;
    const char *place, *trouble; /* trouble: NULL, or why there is nothing new */
} top_look;

/* Draws; lines end with erase and newline where `keys` says that it is a live terminal. Returns how many origins fit.
 */
size_t top_draw(FILE *f, const top_view *v, const top_look *look);
/* The same as one object in JSON. */
void top_json(cb_json_out *o, const top_view *v);

#endif
