/* What gates said, by the loop that they were asked on. */
#include "auth/authn_int.h"
#include "loop/loop_int.h"
#include "loop/turn.h"
#include "telemetry/cells.h"
#include <stdio.h>

enum { DECISIONS_MAX = 1024 };

static const char *outcome_of(int status) {
    switch (status) {
    case 200:
        return "allowed";
    case 400:
        return "malformed";
    case 401:
        return "unauthorized";
    case 403:
        return "forbidden";
    default:
        return "unavailable";
    }
}

/* Names of sources are an operator's, reasons are the library's: reloads could make many of the former. */
void cb_authn_count(cb_authn_worker *w, const char *source, int status, const char *reason) {
    char key[256];
    const cb_cells *cells = w ? cb_loop_cells(w->loop) : NULL;
    if (!cells) return;
    const int n = snprintf(key, sizeof key, "%d %s %s", status, reason, source);
    const size_t len = n > 0 && (size_t)n < sizeof key ? (size_t)n : sizeof key - 1;
    cb_cell *c = cb_map_get(&w->decisions, key, len);
    if (!c) {
        const cb_slice values[] = {cb_slice_str(source), cb_slice_str(outcome_of(status)), cb_slice_str(reason)};
        c = cb_cells_series(cells, CB_F_AUTH_DECISIONS, values);
        if (c && (w->decisions.len >= DECISIONS_MAX || cb_map_put(&w->decisions, key, len, c) < 0)) {
            cb_cell_add(c, 1);
            cb_cell_release(c);
            return;
        }
    }
    cb_cell_add(c, 1);
}

cb_time cb_authn_count_wait(cb_authn_worker *w, cb_time since) {
    const cb_cells *cells = w ? cb_loop_cells(w->loop) : NULL;
    if (!cells) return 0;
    cb_cells_move(cells, CB_C_AUTH_WAITING, since ? -1 : 1);
    if (since) cb_cells_observe(cells, CB_C_AUTH_WAIT, cb_loop_now(w->loop) - since);
    return since ? 0 : cb_loop_now(w->loop);
}

void cb_authn_count_end(cb_authn_worker *w) {
    cb_slice key;
    size_t it = 0;
    for (cb_cell *c; (c = cb_map_next(&w->decisions, &it, &key)) != NULL;)
        cb_cell_release(c);
    cb_map_free(&w->decisions);
}
