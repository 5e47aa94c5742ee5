#include "sim/event.h"
#include "base/error.h"
#include "base/mem.h"
#include <stdbool.h>

enum { ARITY = 4 };

void sim_events_init(sim_events *q, const cb_alloc *alloc) {
    *q = (sim_events){.alloc = alloc};
}

void sim_events_free(sim_events *q) {
    cb_mem_free(q->alloc, q->slots);
    q->slots = NULL;
    q->len = q->cap = 0;
}

static bool before(const sim_slot *a, const sim_slot *b) {
    return a->at < b->at || (a->at == b->at && a->order < b->order);
}

static void put(sim_events *q, size_t i, const sim_slot *s) {
    q->slots[i] = *s;
    s->event->pos = i + 1;
}

static void rise(sim_events *q, size_t i, const sim_slot *s) {
    while (i && before(s, &q->slots[(i - 1) / ARITY])) {
        put(q, i, &q->slots[(i - 1) / ARITY]);
        i = (i - 1) / ARITY;
    }
    put(q, i, s);
}

static void sink(sim_events *q, size_t i, const sim_slot *s) {
    for (;;) {
        size_t first = i * ARITY + 1, best = first;
        if (first >= q->len) break;
        for (size_t k = first + 1; k < first + ARITY && k < q->len; k++)
            if (before(&q->slots[k], &q->slots[best])) best = k;
        if (!before(&q->slots[best], s)) break;
        put(q, i, &q->slots[best]);
        i = best;
    }
    put(q, i, s);
}

static void place(sim_events *q, size_t i, const sim_slot *s) {
    if (i && before(s, &q->slots[(i - 1) / ARITY]))
        rise(q, i, s);
    else
        sink(q, i, s);
}

int sim_events_set(sim_events *q, sim_event *e, cb_time at) {
    const sim_slot s = {at, ++q->order, e};
    if (e->pos) {
        place(q, e->pos - 1, &s);
        return CB_OK;
    }
    if (q->len == q->cap) {
        size_t cap = q->cap ? 2 * q->cap : 64;
        sim_slot *slots = cb_mem_grow(q->alloc, q->slots, cap * sizeof *slots);
        if (!slots) return cb_fail(CB_ENOMEM, "no memory for an event");
        q->slots = slots;
        q->cap = cap;
    }
    q->len++;
    rise(q, q->len - 1, &s);
    return CB_OK;
}

void sim_events_drop(sim_events *q, sim_event *e) {
    if (!e->pos) return;
    size_t i = e->pos - 1;
    e->pos = 0;
    q->len--;
    if (i == q->len) return;
    const sim_slot last = q->slots[q->len];
    place(q, i, &last);
}

sim_event *sim_events_take(sim_events *q) {
    sim_event *e = q->slots[0].event;
    sim_events_drop(q, e);
    return e;
}
