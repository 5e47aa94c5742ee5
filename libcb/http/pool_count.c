/* What a pool counts. */
#include "http/pool_int.h"
#include "telemetry/count.h"

static const cb_cells *cells_of(const cb_origin *o) {
    return cb_loop_cells(o->pool->loop);
}

static int index_of(const cb_pool_conn *c) {
    const int version = c->version;
    return version == CB_HTTP_3 ? 2 : version == CB_HTTP_2 ? 1 : 0;
}

static const enum cb_cell_id conns[] = {CB_C_POOL_CONNS_1_1, CB_C_POOL_CONNS_2, CB_C_POOL_CONNS_3};
static const enum cb_cell_id opened[] = {CB_C_POOL_OPENED_1_1, CB_C_POOL_OPENED_2, CB_C_POOL_OPENED_3};

void cb_pool_count_opened(const cb_pool_conn *c, bool resumed) {
    const cb_cells *cells = cells_of(c->origin);
    if (!cells) return;
    cb_cells_move(cells, conns[index_of(c)], 1);
    cb_cells_add(cells, opened[index_of(c)], 1);
    cb_cells_observe(cells, c->is_quic ? CB_C_POOL_CONNECT_QUIC : CB_C_POOL_CONNECT_TCP, c->ready - c->began);
    if (resumed) cb_cells_add(cells, CB_C_POOL_RESUMED, 1);
    if (c->alt_port) cb_cells_add(cells, CB_C_POOL_ALTERNATIVES_USED, 1);
}

void cb_pool_count_closed(const cb_pool_conn *c, int rc) {
    static const struct {
        int rc;
        enum cb_cell_id cell;
    } rows[] = {{CB_OK, CB_C_POOL_CLOSED_DONE},
                {CB_ECLOSED, CB_C_POOL_CLOSED_ORIGIN},
                {CB_EUNREACH, CB_C_POOL_CLOSED_ORIGIN},
                {CB_ETIMEOUT, CB_C_POOL_CLOSED_TIMEOUT},
                {CB_EPROTO, CB_C_POOL_CLOSED_PROTOCOL}};
    enum cb_cell_id cell = CB_C_POOL_CLOSED_OTHER;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (rows[i].rc == rc) cell = rows[i].cell;
    if (c->origin->pool->freed) cell = CB_C_POOL_CLOSED_POOL;
    cb_cells_move(cells_of(c->origin), conns[index_of(c)], -1);
    cb_cells_add(cells_of(c->origin), cell, 1);
}

void cb_pool_count_failed(const cb_origin *o, int rc) {
    static const struct {
        int rc;
        enum cb_cell_id cell;
    } rows[] = {{CB_EDNS, CB_C_POOL_FAILED_NAME},         {CB_EUNREACH, CB_C_POOL_FAILED_UNREACHABLE},
                {CB_ETIMEOUT, CB_C_POOL_FAILED_TIMEOUT},  {CB_ETLS, CB_C_POOL_FAILED_TLS},
                {CB_EAUTH, CB_C_POOL_FAILED_CERTIFICATE}, {CB_EPROTO, CB_C_POOL_FAILED_PROTOCOL},
                {CB_ECLOSED, CB_C_POOL_FAILED_PROTOCOL}};
    enum cb_cell_id cell = CB_C_POOL_FAILED_OTHER;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (rows[i].rc == rc) cell = rows[i].cell;
    cb_cells_add(cells_of(o), cell, 1);
}

void cb_pool_count_sent(const cb_pool_req *r) {
    const cb_cells *cells = cells_of(r->origin);
    if (!cells) return;
    cb_cells_add(cells, r->reused ? CB_C_POOL_REQUESTS_USED : CB_C_POOL_REQUESTS_NEW, 1);
    if (r->times.sent != r->times.queued) cb_cells_observe(cells, CB_C_POOL_WAIT, r->times.sent - r->times.queued);
    if (r->x->early) cb_cells_add(cells, CB_C_POOL_EARLY, 1);
}

void cb_pool_count_retried(const cb_pool_req *r, bool silent) {
    const cb_exchange *x = r->x;
    cb_cells_add(cells_of(r->origin),
                 silent         ? CB_C_POOL_RETRIED_SILENT
                 : x->too_early ? CB_C_POOL_RETRIED_TOO_EARLY
                 : x->refused   ? CB_C_POOL_RETRIED_REFUSED
                                : CB_C_POOL_RETRIED_LOST,
                 1);
}
