/* What an HTTP server counts. */
#include "http/server_int.h"
#include "telemetry/cells.h"
#include <string.h>

/* Of families with version=1.1|2|3, in this order. */
static int index_of(int version) {
    return version == CB_HTTP_3 ? 2 : version == CB_HTTP_2 ? 1 : 0;
}

const cb_cells *cb_server_cells(const cb_http_server *s) {
    return s->uncounted ? NULL : cb_loop_cells(s->loop);
}

void cb_server_uncount(cb_http_server *s) {
    s->uncounted = true;
    memset(s->counts, 0, sizeof s->counts);
}

/* ---- connections ---- */

static const enum cb_cell_id conns[] = {CB_C_HTTP_CONNS_1_1, CB_C_HTTP_CONNS_2, CB_C_HTTP_CONNS_3};
static const enum cb_cell_id opened[] = {CB_C_HTTP_OPENED_1_1, CB_C_HTTP_OPENED_2, CB_C_HTTP_OPENED_3};

void cb_server_count_opened(cb_server_conn *c, const cb_hconn *h) {
    const cb_cells *cells = cb_server_cells(c->server);
    const int v = index_of(h->vt->version);
    if (!cells) return;
    c->counts = &c->server->counts[v];
    cb_cells_move(cells, conns[v], 1);
    cb_cells_add(cells, opened[v], 1);
}

static enum cb_cell_id end_of(const cb_http_server *s, int rc) {
    static const struct {
        int rc;
        enum cb_cell_id cell;
    } rows[] = {{CB_ECLOSED, CB_C_HTTP_CLOSED_PEER}, {CB_ETIMEOUT, CB_C_HTTP_CLOSED_TIMEOUT},
                {CB_ELIMIT, CB_C_HTTP_CLOSED_LIMIT}, {CB_EPROTO, CB_C_HTTP_CLOSED_PROTOCOL},
                {CB_ETLS, CB_C_HTTP_CLOSED_TLS},     {CB_EAUTH, CB_C_HTTP_CLOSED_TLS},
                {CB_EUNREACH, CB_C_HTTP_CLOSED_PEER}};
    if (s->draining || s->freed) return CB_C_HTTP_CLOSED_DRAIN;
    if (rc == CB_OK) return CB_C_HTTP_CLOSED_DONE;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (rows[i].rc == rc) return rows[i].cell;
    return CB_C_HTTP_CLOSED_OTHER;
}

void cb_server_count_closed(const cb_http_server *s, const cb_hconn *h, int rc) {
    const cb_cells *cells = cb_server_cells(s);
    if (!cells) return;
    cb_cells_move(cells, conns[index_of(h->vt->version)], -1);
    cb_cells_add(cells, end_of(s, rc), 1);
    cb_cells_observe(cells, CB_C_HTTP_PER_CONN, h->n_served + h->n_exchanges);
    cb_cells_observe(cells, CB_C_HTTP_LIFE, cb_loop_now(s->loop) - h->accepted);
}

/* ---- requests: each instruction here is one of every request ---- */

void cb_server_count_start(cb_http_server *s) {
    static const enum cb_cell_id active[] = {CB_C_HTTP_ACTIVE_1_1, CB_C_HTTP_ACTIVE_2, CB_C_HTTP_ACTIVE_3};
    static const enum cb_cell_id lasted[] = {CB_C_HTTP_SECONDS_1_1, CB_C_HTTP_SECONDS_2, CB_C_HTTP_SECONDS_3};
    const cb_cells *cells = cb_server_cells(s);
    for (int v = 0; cells && v < 3; v++) {
        s->counts[v].active = cells->at[active[v]];
        s->counts[v].lasted = cells->at[lasted[v]];
    }
}

void cb_server_count_begun(const cb_server_conn *c, const cb_exchange *x) {
    if (!c->counts) return;
    cb_cell_move(c->counts->active, 1);
    if (x->early) cb_cells_add(cb_server_cells(c->server), CB_C_HTTP_EARLY_TAKEN, 1);
}

static const char *const methods[SERVER_METHODS] = {"other", "GET",    "POST",    "HEAD",   "PUT",
                                                    "PATCH", "DELETE", "OPTIONS", "CONNECT"};

enum { GET = 1, GOOD = 2 }; /* what most requests are: a method, and the class of a status */

static bool is_get(cb_slice m) {
    return m.len == 3 && m.base[0] == 'G'; /* no other that is registered looks so */
}

static size_t method_of(cb_slice m) {
    if (is_get(m)) return GET;
    for (size_t i = GET + 1; i < SERVER_METHODS; i++)
        if (cb_slice_eq(m, methods[i])) return i;
    return 0;
}

/* A request's series of the listener, got when the first such one is over. Not inline: what it needs of registers and
 * stack would be made and taken down for each request. */
static __attribute__((noinline)) cb_cell *requests_of(cb_http_server *s, cb_server_counts *c, const cb_exchange *x) {
    static const char *const versions[] = {"1.1", "2", "3"};
    static const char *const classes[SERVER_CLASSES] = {"none", "1xx", "2xx", "3xx", "4xx", "5xx"};
    const size_t method = method_of(x->method), class = x->out_status / 100u;
    if (c->requests[method][class]) return c->requests[method][class];
    const cb_slice values[] = {cb_slice_str(s->label), cb_slice_str(versions[c - s->counts]),
                               cb_slice_str(methods[method]), cb_slice_str(classes[class])};
    return c->requests[method][class] = cb_cells_series(cb_server_cells(s), CB_F_HTTP_REQUESTS, values);
}

void cb_server_count_done(const cb_server_conn *conn, const cb_exchange *x) {
    cb_server_counts *c = conn->counts;
    if (!c) return;
    cb_http_server *s = conn->server;
    const bool usual = is_get(x->method) && x->out_status - 200u < 100;
    cb_cell *requests = usual ? c->requests[GET][GOOD] : NULL;
    cb_cell_move(c->active, -1);
    cb_cell_observe(c->lasted, cb_turn_now(s->loop) - x->started);
    cb_cell_add(requests ? requests : requests_of(s, c, x), 1);
    if (x->tunnel) return; /* what went through a tunnel is no body */
    const cb_cells *cells = cb_server_cells(s);
    if (x->in_bytes) cb_cells_add(cells, CB_C_HTTP_BODIES_IN, (uint64_t)x->in_bytes);
    if (x->out_bytes) cb_cells_add(cells, CB_C_HTTP_BODIES_OUT, (uint64_t)x->out_bytes);
}

void cb_server_count_misdirected(const cb_http_server *s, bool certificate) {
    cb_cells_add(cb_server_cells(s), certificate ? CB_C_HTTP_MISDIRECTED_CERTIFICATE : CB_C_HTTP_MISDIRECTED_HOST, 1);
}

/* ---- limits ---- */

void cb_server_count_limit(const cb_http_server *s, const char *what) {
    static const struct {
        const char *what;
        enum cb_cell_id cell;
    } rows[] = {{"head", CB_C_HTTP_LIMITS_HEAD},
                {"head bytes", CB_C_HTTP_LIMITS_HEAD},
                {"target bytes", CB_C_HTTP_LIMITS_TARGET},
                {"body bytes", CB_C_HTTP_LIMITS_BODY},
                {"head timeout", CB_C_HTTP_LIMITS_HEAD_TIMEOUT},
                {"body timeout", CB_C_HTTP_LIMITS_BODY_TIMEOUT},
                {"send timeout", CB_C_HTTP_LIMITS_SEND_TIMEOUT},
                {"chunk extensions", CB_C_HTTP_LIMITS_CHUNK_EXTENSIONS},
                {"resets", CB_C_HTTP_LIMITS_RESETS},
                {"CONTINUATION frames", CB_C_HTTP_LIMITS_CONTINUATIONS},
                {"unidirectional streams", CB_C_HTTP_LIMITS_STREAMS}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (strcmp(what, rows[i].what) != 0) continue;
        cb_cells_add(cb_server_cells(s), rows[i].cell, 1);
        return;
    }
    cb_cells_add(cb_server_cells(s), CB_C_HTTP_LIMITS_CONTROL, 1); /* floods of frames, by kind */
}

void cb_server_count_end(cb_http_server *s) {
    for (int v = 0; v < 3; v++)
        for (int m = 0; m < SERVER_METHODS; m++)
            for (int c = 0; c < SERVER_CLASSES; c++)
                cb_cell_release(s->counts[v].requests[m][c]);
}
