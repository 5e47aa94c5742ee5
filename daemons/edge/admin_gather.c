/* A question to all workers: each looks at what is its own, on its own thread, and the main thread puts the answers
 * together. Nobody waits for anybody. */
#include "admin.h"
#include <stdlib.h>
#include <string.h>

enum { PATIENCE_MS = 2000 };

typedef struct ask {
    edge_gather *gather;
    edge_part part;
    bool out; /* posted, and not back yet */
} ask;

struct edge_gather {
    edge_gather *next; /* of the edge: those that are out */
    edge *edge;
    cb_admin_call *call; /* NULL: nobody waits any more */
    cb_timer *patience;
    edge_question q;
    void *arg;
    uint32_t n, n_out;
    bool told;
    ask asks[];
};

void *edge_part_row(edge_part *part, size_t row_size) {
    if (part->n == EDGE_ROWS_MAX) return NULL;
    if (part->n == part->cap) {
        size_t cap = part->cap ? part->cap * 2 : 16;
        void *grown = realloc(part->rows, cap * row_size);
        if (!grown) return NULL;
        part->rows = grown;
        part->cap = cap;
    }
    char *row = (char *)part->rows + part->n++ * row_size;
    memset(row, 0, row_size);
    return row;
}

static void gather_free(edge_gather *g) {
    for (edge_gather **at = &g->edge->gathers; *at; at = &(*at)->next) {
        if (*at != g) continue;
        *at = g->next;
        break;
    }
    for (uint32_t i = 0; i < g->n; i++) {
        edge_part *p = &g->asks[i].part;
        for (size_t k = 0; g->q.row_free && k < p->n; k++)
            g->q.row_free((char *)p->rows + k * g->q.row_size);
        free(p->rows);
    }
    cb_timer_free(g->patience);
    free(g->arg);
    free(g);
}

/* Answers with what there is. Those that come later find nobody. */
static void tell(edge_gather *g) {
    edge_part *parts = g->told ? NULL : calloc(g->n, sizeof *parts);
    if (g->told) return;
    g->told = true;
    for (uint32_t i = 0; parts && i < g->n; i++)
        if (!g->asks[i].out) parts[i] = g->asks[i].part;
    cb_admin_call *call = g->call;
    g->call = NULL;
    if (call) cb_admin_call_on_end(call, NULL, NULL);
    if (parts)
        g->q.done(g->edge, parts, g->arg, call);
    else if (call)
        cb_admin_problem(call, 500, "no memory");
    free(parts);
}

static void on_patience(cb_loop *loop, void *user) {
    (void)loop;
    tell(user);
}

static void on_back(cb_loop *loop, void *user) {
    ask *a = user;
    edge_gather *g = a->gather;
    (void)loop;
    a->out = false;
    a->part.there = true;
    if (--g->n_out) return;
    tell(g);
    gather_free(g);
}

static void on_worker(cb_loop *loop, void *user) {
    ask *a = user;
    (void)loop;
    a->gather->q.look(&a->part, a->gather->arg);
    cb_loop_post(a->gather->edge->loop, on_back, a);
}

static void on_call_end(cb_admin_call *call, void *user) {
    (void)call;
    ((edge_gather *)user)->call = NULL;
}

int edge_ask(edge *e, cb_admin_call *call, const edge_question *q) {
    edge_gather *g = calloc(1, sizeof *g + e->n_workers * sizeof g->asks[0]);
    if (!g) return cb_error_set(CB_ENOMEM, "no memory to ask the workers");
    g->edge = e;
    g->q = *q;
    g->n = e->n_workers;
    if (q->arg_size && !(g->arg = malloc(q->arg_size))) {
        free(g);
        return cb_error_set(CB_ENOMEM, "no memory to ask the workers");
    }
    if (q->arg_size) memcpy(g->arg, q->arg, q->arg_size);
    g->next = e->gathers;
    e->gathers = g;
    int rc = cb_timer_start(&g->patience, e->loop, PATIENCE_MS, 0, on_patience, g);
    for (uint32_t i = 0; i < g->n && rc == CB_OK; i++) {
        ask *a = &g->asks[i];
        *a = (ask){.gather = g, .part = {.worker = &e->workers[i]}};
        a->out = cb_loop_post(e->workers[i].loop, on_worker, a) == CB_OK;
        g->n_out += a->out;
    }
    if (rc < 0 || !g->n_out) {
        gather_free(g);
        return rc < 0 ? rc : cb_error_set(CB_EAGAIN, "no worker can be asked");
    }
    g->call = call;
    if (call) cb_admin_call_on_end(call, on_call_end, g);
    return CB_OK;
}

void edge_asks_free(edge *e) {
    while (e->gathers)
        gather_free(e->gathers);
    free(e->origin_states);
    e->origin_states = NULL;
}
