/* Is all well? The main thread asks the workers once a second whether they still turn. */
#include "telemetry.h"
#include <stdio.h>
#include <time.h>

enum { ASK_MS = 1000, SILENT_MS = 15000 };

static int64_t now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void on_asked(cb_loop *loop, void *worker) {
    edge_worker *w = worker;
    (void)loop;
    atomic_store(&w->answered_ms, now_ms());
    atomic_store(&w->asked, false);
}

void edge_health_ask(edge *e) {
    const int64_t now = now_ms();
    atomic_store(&e->looked_ms, now);
    for (uint32_t i = 0; i < e->n_workers && !e->stopping; i++) {
        edge_worker *w = &e->workers[i];
        int64_t never = 0;
        atomic_compare_exchange_strong(&w->answered_ms, &never,
                                       now - ASK_MS); /* silence counts from the first question */
        if (now - atomic_load(&w->answered_ms) < ASK_MS || atomic_exchange(&w->asked, true)) continue;
        if (cb_loop_post(w->loop, on_asked, w) < 0) atomic_store(&w->asked, false);
    }
}

static int64_t since(const _Atomic int64_t *at) {
    const int64_t then = atomic_load(at), gone = now_ms() - then;
    return then == 0 || gone < 0 ? 0 : gone;
}

int64_t edge_silence_ms(const edge *e, uint32_t worker) {
    return since(&e->workers[worker].answered_ms);
}

bool edge_is_ready(const edge *e, const char **why) {
    *why = !atomic_load(&e->serving)   ? "it starts"
           : atomic_load(&e->yields)   ? "a successor serves, and it drains"
           : atomic_load(&e->stopping) ? "it drains"
                                       : NULL;
    return *why == NULL;
}

bool edge_is_alive(const edge *e, char why[EDGE_SAID]) {
    const bool ends = atomic_load(&e->stopping); /* workers that have ended answer no more */
    why[0] = '\0';
    if (since(&e->looked_ms) > SILENT_MS) snprintf(why, EDGE_SAID, "the main thread does not answer");
    for (uint32_t i = 0; i < e->n_workers && !ends && !*why; i++)
        if (edge_silence_ms(e, i) > SILENT_MS) snprintf(why, EDGE_SAID, "worker %u does not answer", i);
    return *why == '\0';
}
