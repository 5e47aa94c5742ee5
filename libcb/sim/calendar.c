/* What time it is, and what was asked to happen when. */
#include "base/error.h"
#include "sim/sim_int.h"

int sim_set(cb_sim *sim, sim_event *e, cb_time at) {
    int rc = sim_events_set(&sim->events, e, at);
    if (rc < 0) sim->failed = rc;
    return rc;
}

void sim_digest(cb_sim *sim, const cb_sim_link *l, const sim_packet *p, int event) {
    uint64_t what = (uint64_t)p->wire << 32 | (uint64_t)l->number << 8 | (uint64_t)event << 4 | p->ecn;
    sim->digest = sim_mix(sim->digest ^ sim_mix(sim->now) ^ what);
}

cb_time cb_sim_now(const cb_sim *sim) {
    return sim->now;
}

uint64_t cb_sim_random(cb_sim *sim) {
    return sim_rng_next(&sim->rng);
}

uint64_t cb_sim_digest(const cb_sim *sim) {
    return sim->digest;
}

/* ---- scripts ---- */

static void free_script(sim_script *s) {
    cb_sim *sim = s->sim;
    sim_events_drop(&sim->events, &s->event);
    cb_list_del(&s->link);
    sim->pending--;
    cb_mem_free(&sim->alloc, s);
}

static void on_script(sim_event *e, cb_time now) {
    sim_script *s = CB_CONTAINER(e, sim_script, event);
    cb_sim *sim = s->sim;
    cb_sim_fn fn = s->fn;
    void *user = s->user;
    (void)now;
    free_script(s);
    fn(sim, user);
}

int cb_sim_at(cb_sim *sim, cb_time t, cb_sim_fn fn, void *user) {
    if (!sim || !fn) return cb_fail(CB_EINVAL, "cb_sim_at: %s is NULL", !sim ? "sim" : "fn");
    sim_script *s = cb_mem_new(&sim->alloc, sizeof *s);
    if (!s) return cb_fail(CB_ENOMEM, "no memory for a script");
    s->event.fire = on_script;
    s->sim = sim;
    s->fn = fn;
    s->user = user;
    int rc = sim_events_set(&sim->events, &s->event, t < sim->now ? sim->now : t);
    if (rc < 0) {
        cb_mem_free(&sim->alloc, s);
        return rc;
    }
    cb_list_add_tail(&sim->scripts, &s->link);
    sim->pending++;
    return CB_OK;
}

void sim_scripts_free(cb_sim *sim) {
    while (!cb_list_empty(&sim->scripts))
        free_script(CB_CONTAINER(sim->scripts.next, sim_script, link));
}
