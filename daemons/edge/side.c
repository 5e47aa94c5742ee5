/* A thread beside the workers and the main one: pages of metrics are rendered there and spans sent, so that neither
 * holds up requests or reloads. It begins when something needs it. */
#include "telemetry.h"
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

struct edge_side {
    cb_loop *loop;
    pthread_t thread;
    cb_timer *alive; /* the loop goes on while nothing is open */
    bool threaded;
};

static void on_nothing(cb_loop *loop, void *user) {
    (void)loop;
    (void)user;
}

static void *run(void *user) {
    edge *e = user;
    int rc = cb_loop_run(e->side->loop);
    if (rc < 0) edge_say(e->log, CB_LOG_ERROR, "the thread for telemetry: %s", cb_last_error());
    return NULL;
}

static int begin(edge *e, edge_side *s) {
    enum { HOUR_MS = 3600000 };
    sigset_t all, before;
    int rc = cb_loop_new(&s->loop, CB_OPTS(cb_loop_opts, .log = e->log));
    if (rc == CB_OK) rc = cb_timer_start(&s->alive, s->loop, HOUR_MS, HOUR_MS, on_nothing, NULL);
    if (rc < 0) return rc;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are the main thread's */
    s->threaded = pthread_create(&s->thread, NULL, run, e) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (s->threaded) pthread_setname_np(s->thread, "cb-telemetry");
    return s->threaded ? CB_OK : cb_error_set(CB_ESYS, "no thread for telemetry");
}

static void side_free(edge_side *s) {
    cb_timer_free(s->alive);
    if (s->loop) cb_loop_free(s->loop);
    free(s);
}

int edge_side_begin(edge *e) {
    if (e->side) return CB_OK;
    edge_side *s = e->side = calloc(1, sizeof *s);
    if (!s) return cb_error_set(CB_ENOMEM, "no memory for telemetry");
    int rc = begin(e, s);
    if (rc == CB_OK) return CB_OK;
    side_free(s);
    e->side = NULL;
    return rc;
}

cb_loop *edge_side_loop(const edge *e) {
    return e->side->loop;
}

typedef struct errand {
    edge *edge;
    int (*fn)(edge *e, void *arg);
    void *arg;
    int rc;
    char why[512];
    sem_t done;
} errand;

static void do_errand(cb_loop *loop, void *user) {
    errand *r = user;
    (void)loop;
    r->rc = r->fn(r->edge, r->arg);
    snprintf(r->why, sizeof r->why, "%s", r->rc < 0 ? cb_last_error() : "");
    sem_post(&r->done);
}

int edge_side_do(edge *e, int (*fn)(edge *e, void *arg), void *arg) {
    errand r = {.edge = e, .fn = fn, .arg = arg};
    sem_init(&r.done, 0, 0);
    int rc = cb_loop_post(e->side->loop, do_errand, &r);
    while (rc == CB_OK && sem_wait(&r.done) < 0) {}
    sem_destroy(&r.done);
    if (rc < 0) return rc;
    return r.rc < 0 ? cb_error_set(r.rc, r.why) : r.rc;
}

void edge_side_end(edge *e) {
    edge_side *s = e->side;
    if (!s) return;
    cb_loop_stop(s->loop);
    pthread_join(s->thread, NULL);
    side_free(s);
    e->side = NULL;
}
