/* Connections of clients, page by page. A page is put together from what each worker has after the cursor, so nothing
 * that has been shown comes again, and what came meanwhile is at the end of its worker. */
#include "admin.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* Where a page begins: after that connection. */
typedef struct place {
    uint32_t worker;
    uint64_t serial, number; /* of its server, and there */
} place;

typedef struct connections_arg {
    place after;
    uint32_t limit;
    bool begun;
} connections_arg;

typedef struct connection_row {
    place at;
    char listener[EDGE_LABEL], remote[64], sni[256], tls[8];
    cb_http_conn conn;
} connection_row;

typedef struct looking {
    edge_part *part;
    const connections_arg *arg;
    const edge_server *server;
} looking;

static int see(const cb_http_conn *c, void *user) {
    const looking *l = user;
    if (l->part->n > l->arg->limit) return CB_ELIMIT; /* one more than a page: there is another one */
    connection_row *row = edge_part_row(l->part, sizeof *row);
    if (!row) return CB_ENOMEM;
    row->at = (place){l->part->worker->number, l->server->serial, c->number};
    row->conn = *c;
    row->conn.remote = row->conn.sni = row->conn.tls = NULL;
    snprintf(row->listener, sizeof row->listener, "%s", l->server->listener->conf->name);
    snprintf(row->remote, sizeof row->remote, "%s", c->remote);
    snprintf(row->sni, sizeof row->sni, "%s", c->sni);
    snprintf(row->tls, sizeof row->tls, "%s", c->tls);
    return CB_OK;
}

/* The server with the next serial number. */
static const edge_server *next_server(const edge_worker *w, uint64_t after) {
    const edge_server *found = NULL;
    for (const edge_server *s = w->servers; s; s = s->next)
        if (s->serial > after && (!found || s->serial < found->serial)) found = s;
    return found;
}

static void look(edge_part *part, const void *user) {
    const connections_arg *arg = user;
    const edge_worker *w = part->worker;
    const bool here = arg->begun && w->number == arg->after.worker;
    looking l = {.part = part, .arg = arg};
    if (arg->begun && w->number < arg->after.worker) return;
    uint64_t serial = here ? arg->after.serial - 1 : 0;
    while ((l.server = next_server(w, serial))) {
        const uint64_t after = here && l.server->serial == arg->after.serial ? arg->after.number : 0;
        if (cb_http_server_conns(l.server->http, after, see, &l) < 0) return;
        serial = l.server->serial;
    }
}

static void put(cb_json_out *o, const connection_row *row) {
    static const char *const versions[] = {[CB_HTTP_1] = "1.1", [CB_HTTP_2] = "2", [CB_HTTP_3] = NULL};
    const cb_http_conn *c = &row->conn;
    char id[64];
    snprintf(id, sizeof id, "%u.%" PRIu64 ".%" PRIu64, row->at.worker, row->at.serial, row->at.number);
    cb_json_put_object(o, NULL);
    cb_json_put_str(o, "id", id);
    cb_json_put_str(o, "listener", row->listener);
    cb_json_put_int(o, "worker", row->at.worker);
    cb_json_put_str(o, "remote", *row->remote ? row->remote : NULL);
    cb_json_put_str(o, "version", c->version == CB_HTTP_3 ? "3" : c->version ? versions[c->version] : NULL);
    cb_json_put_str(o, "tls", *row->tls ? row->tls : NULL);
    cb_json_put_str(o, "sni", *row->sni ? row->sni : NULL);
    cb_json_put_uint(o, "age_ms", c->age_ms);
    cb_json_put_uint(o, "requests", c->requests);
    cb_json_put_int(o, "active", c->active);
    cb_json_put_bool(o, "draining", c->draining);
    cb_json_put_end(o);
}

static void done(edge *e, const edge_part *parts, const void *user, cb_admin_call *call) {
    const connections_arg *arg = user;
    const connection_row *last = NULL;
    uint32_t room = arg->limit;
    char next[64];
    if (!call) return;
    cb_admin_page_begin(call);
    for (uint32_t i = 0; i < e->n_workers; i++) {
        const connection_row *rows = parts[i].rows;
        for (size_t k = 0; k < parts[i].n; k++) {
            if (!room) { /* last is there: a page has one item at least */
                snprintf(next, sizeof next, "%u.%" PRIu64 ".%" PRIu64, last->at.worker, last->at.serial,
                         last->at.number);
                cb_admin_page_end(call, next);
                return;
            }
            put(cb_admin_json(call), last = &rows[k]);
            room--;
        }
    }
    cb_admin_page_end(call, NULL);
}

static int get_connections(cb_admin_call *call, void *user) {
    connections_arg arg = {.limit = cb_admin_limit(call)};
    const char *cursor = cb_admin_cursor(call);
    int used = 0;
    if (cursor && (sscanf(cursor, "%" SCNu32 ".%" SCNu64 ".%" SCNu64 "%n", &arg.after.worker, &arg.after.serial,
                          &arg.after.number, &used) != 3 ||
                   cursor[used] || !arg.after.serial))
        return cb_admin_problem(call, 400, "that cursor is not of this list");
    arg.begun = cursor != NULL;
    return edge_ask(
        user, call,
        &(edge_question){
            .look = look, .done = done, .row_size = sizeof(connection_row), .arg = &arg, .arg_size = sizeof arg});
}

int edge_admin_connections(edge *e, cb_admin *a) {
    static const cb_admin_resource rows[] = {{.size = sizeof rows[0],
                                              .method = "GET",
                                              .path = "/v1/connections",
                                              .id = "getConnections",
                                              .summary = "Connections of clients, worker by worker",
                                              .rights = CB_RIGHT_READ,
                                              .flags = CB_ADMIN_PAGES,
                                              .handle = get_connections}};
    return edge_admin_add(a, rows, sizeof rows / sizeof *rows, e);
}
