/* What happens, for those who listen: each second sums, and what has changed since the second before. */
#include "admin.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void edge_event(edge *e, const char *type, const char *fmt, ...) {
    char text[1024];
    va_list ap;
    if (!e->admin) return;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (n > 0 && (size_t)n < sizeof text) cb_admin_event(e->admin, type, (cb_slice){(const uint8_t *)text, (size_t)n});
}

/* ---- each second ---- */

typedef struct stats_row {
    cb_proxy_stats proxy;
    uint64_t connections;
} stats_row;

static void look(edge_part *part, const void *arg) {
    const edge_worker *w = part->worker;
    stats_row *row = edge_part_row(part, sizeof *row);
    (void)arg;
    if (!row) return;
    row->proxy.size = sizeof row->proxy;
    if (w->proxy) cb_proxy_stats_get(w->proxy, &row->proxy);
    for (const edge_server *s = w->servers; s; s = s->next) {
        cb_http_server_stats st = {.size = sizeof st};
        if (cb_http_server_stats_get(s->http, &st) == CB_OK)
            row->connections += st.conns_h1 + st.conns_h2 + st.conns_h3;
    }
}

static void done(edge *e, const edge_part *parts, const void *arg, cb_admin_call *call) {
    stats_row sum = {.connections = 0};
    char text[512];
    (void)arg, (void)call;
    for (uint32_t i = 0; i < e->n_workers; i++) {
        const stats_row *row = parts[i].rows;
        if (!parts[i].there || !parts[i].n) continue;
        sum.connections += row->connections;
        sum.proxy.requests += row->proxy.requests;
        sum.proxy.active += row->proxy.active;
        sum.proxy.failed += row->proxy.failed;
        sum.proxy.refused += row->proxy.refused;
        sum.proxy.retries += row->proxy.retries;
        sum.proxy.origins_out += row->proxy.origins_out;
    }
    if (e->admin && (!e->stats_known || sum.proxy.origins_out != e->origins_out || e->origins_watched))
        edge_pools_watch(e);
    e->origins_out = sum.proxy.origins_out;
    e->stats_known = true;
    int n = snprintf(text, sizeof text,
                     "{\"connections\":%llu,\"requests\":%llu,\"active\":%llu,\"failed\":%llu,\"refused\":%llu,"
                     "\"retries\":%llu}",
                     (unsigned long long)sum.connections, (unsigned long long)sum.proxy.requests,
                     (unsigned long long)sum.proxy.active, (unsigned long long)sum.proxy.failed,
                     (unsigned long long)sum.proxy.refused, (unsigned long long)sum.proxy.retries);
    if (e->admin) cb_admin_event_passing(e->admin, "stats", (cb_slice){(const uint8_t *)text, (size_t)n});
}

static void see_first(const cb_identity_item *item, void *user) {
    int64_t *sum = user;
    *sum = *sum * 31 + item->until_s + item->kind;
}

/* A number that changes when what is presented does. */
static int64_t sum_of_certificates(const edge *e) {
    int64_t sum = 0;
    for (const edge_use *u = e->now->uses; u; u = u->next)
        if (u->listener->identity) cb_identity_list(u->listener->identity, see_first, &sum);
    return sum;
}

void edge_events_tick(edge *e) {
    static const edge_question q = {.look = look, .done = done, .row_size = sizeof(stats_row)};
    if (!e->admin || e->stopping) return;
    if (!cb_admin_listeners(e->admin)) {
        e->stats_known = false;
        return;
    }
    const int64_t certificates = sum_of_certificates(e);
    if (e->stats_known && certificates != e->certificates) edge_event(e, "certificate", "{\"changed\":true}");
    e->certificates = certificates;
    if (edge_ask(e, NULL, &q) < 0) edge_say_of(e->log, CB_LOG_WARN, "admin", "%s", cb_last_error());
}
