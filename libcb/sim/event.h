/* What is going to happen, in order of time; what was set first comes first at one instant. */
#ifndef CB_SIM_EVENT_H
#define CB_SIM_EVENT_H

#include <cb/base.h>

typedef struct sim_event sim_event;
struct sim_event {
    size_t pos; /* 1-based place in the heap; 0 = not set */
    void (*fire)(sim_event *e, cb_time now);
};

typedef struct sim_slot {
    cb_time at;
    uint64_t order;
    sim_event *event;
} sim_slot;

typedef struct sim_events {
    sim_slot *slots;
    size_t len, cap;
    uint64_t order;
    const cb_alloc *alloc;
} sim_events;

void sim_events_init(sim_events *q, const cb_alloc *alloc);
void sim_events_free(sim_events *q);
int sim_events_set(sim_events *q, sim_event *e, cb_time at); /* or moves it; CB_ENOMEM when newly set */
void sim_events_drop(sim_events *q, sim_event *e);           /* not set: nothing */
static inline cb_time sim_events_next(const sim_events *q) {
    return q->len ? q->slots[0].at : UINT64_MAX;
}
/* Takes the first one out; there must be one. */
sim_event *sim_events_take(sim_events *q);

#endif
