/* One endpoint that is checked. F1: time is an argument, chance comes from a seed. */
#include "base/error.h"
#include "base/mem.h"
#include "base/opts.h"
#include "lb/mix.h"
#include <cb/lb.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define MS    UINT64_C(1000000)
#define NEVER UINT64_MAX

enum { FLAP = 1000, STEPS = 20, HALVINGS_MAX = 63 };

typedef struct event {
    cb_health_change at;
    char reason[CB_HEALTH_REASON_BYTES];
} event;

struct cb_health {
    cb_alloc alloc;
    cb_health_opts o;
    cb_time seen;            /* the latest time that was told */
    cb_time due, deadline;   /* the next check; the end of the one that runs */
    cb_time began;           /* the last check */
    cb_time since, up_since; /* of the state; of the ramp */
    cb_time checked_at, penalty_at, reuse_at;
    double penalty;
    uint64_t chance, duration_ns;
    uint64_t passed, failed, timeouts, voided, changes, flaps, suppressed;
    uint64_t numbers;
    int view;  /* what checks say: unknown, up, down */
    int state; /* what counts */
    int cause, override_kind;
    uint32_t in_a_row, weight; /* weight: as it was told last */
    bool last_passed, checking, damped, ramping;
    event events[CB_HEALTH_EVENTS], taken;
    size_t n_events;
    char reason[CB_HEALTH_REASON_BYTES], last[CB_HEALTH_REASON_BYTES], why[CB_HEALTH_REASON_BYTES];
};

static const char *const states[] = {"unknown", "up", "down", "draining"};
static const char *const causes[] = {"start", "checks", "damping", "override", "ramp"};

const char *cb_health_state_name(int state) {
    return state < 0 || state > CB_HEALTH_DRAINING ? NULL : states[state];
}

const char *cb_health_cause_name(int cause) {
    return cause < 0 || cause > CB_HEALTH_BY_RAMP ? NULL : causes[cause];
}

static void text_set(char to[CB_HEALTH_REASON_BYTES], const char *from) {
    snprintf(to, CB_HEALTH_REASON_BYTES, "%s", from ? from : "");
}

/* ---- options ---- */

static void defaults(cb_health_opts *o) {
    const struct {
        uint32_t *at, value;
    } rows[] = {{&o->interval_ms, 5000},
                {&o->timeout_ms, 2000},
                {&o->jitter_percent, 10},
                {&o->rise, 2},
                {&o->fall, 3},
                {&o->slow_start_percent, 10},
                {&o->flap_half_life_ms, 60000},
                {&o->flap_suppress, 2500},
                {&o->flap_reuse, 750},
                {&o->flap_max_ms, 300000}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (!*rows[i].at) *rows[i].at = rows[i].value;
    if (!o->fast_interval_ms) o->fast_interval_ms = o->interval_ms / 5 ? o->interval_ms / 5 : 1;
    if (o->no_jitter) o->jitter_percent = 0;
}

static int check(const cb_health_opts *o) {
    if (o->jitter_percent > 50)
        return cb_fail(CB_EINVAL, "cb_health_opts: jitter_percent is %u; 50 is the most", (unsigned)o->jitter_percent);
    if (o->slow_start_percent > 100)
        return cb_fail(CB_EINVAL, "cb_health_opts: slow_start_percent is %u; 1 to 100 are possible",
                       (unsigned)o->slow_start_percent);
    if (o->flap_suppress <= o->flap_reuse)
        return cb_fail(CB_EINVAL, "cb_health_opts: flap_suppress (%u) has to be above flap_reuse (%u)",
                       (unsigned)o->flap_suppress, (unsigned)o->flap_reuse);
    if (o->fast_interval_ms > o->interval_ms)
        return cb_fail(CB_EINVAL, "cb_health_opts: fast_interval_ms (%u) is above interval_ms (%u)",
                       (unsigned)o->fast_interval_ms, (unsigned)o->interval_ms);
    return CB_OK;
}

/* ---- time ---- */

/* From 0 to below n. */
static uint64_t draw(cb_health *h, uint64_t n) {
    return n ? cb_lb_mix(h->chance += 0x9e3779b97f4a7c15u) % n : 0;
}

static cb_time jittered(cb_health *h, uint32_t ms) {
    const uint64_t whole = ms * MS, part = whole / 100 * h->o.jitter_percent;
    return whole - part + draw(h, 2 * part + 1);
}

/* The clock went back: all that was noted goes back with it, so that what was due in a second still is. */
static void moved_back(cb_health *h, uint64_t by) {
    cb_time *const all[] = {&h->due,      &h->deadline,   &h->began,      &h->since,
                            &h->up_since, &h->checked_at, &h->penalty_at, &h->reuse_at};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (*all[i] && *all[i] != NEVER) *all[i] = *all[i] > by ? *all[i] - by : 1;
}

static void saw(cb_health *h, cb_time now) {
    if (now < h->seen) moved_back(h, h->seen - now);
    h->seen = now;
}

/* ---- damping: an exponentially fading penalty, as RFC 2439 has it for routes ---- */

static double faded(double penalty, uint64_t ns, uint32_t half_life_ms) {
    const uint64_t half = half_life_ms * MS, halvings = ns / half;
    if (halvings > HALVINGS_MAX) return 0;
    penalty /= (double)(UINT64_C(1) << halvings);
    /* 2^-x between 0 and 1 without libm: to a ten-thousandth */
    const double x = (double)(ns % half) / (double)half;
    return penalty * (1 - x * (0.693147 - x * (0.240227 - x * (0.055504 - x * (0.009618 - x * 0.001240)))));
}

static double penalty_of(const cb_health *h, cb_time now) {
    return now > h->penalty_at ? faded(h->penalty, now - h->penalty_at, h->o.flap_half_life_ms) : h->penalty;
}

/* When what is left is little enough: halved, and then the rest by bisection. */
static cb_time reuse_time(const cb_health *h, cb_time now) {
    const uint64_t half = h->o.flap_half_life_ms * MS;
    uint64_t low = 0, high = h->o.flap_max_ms * MS;
    double left = h->penalty;
    uint64_t halvings = 0;
    while (left > h->o.flap_reuse && halvings <= HALVINGS_MAX) {
        left /= 2;
        halvings++;
    }
    if (halvings * half < high) high = halvings * half;
    for (int i = 0; i < 64 && low < high; i++) {
        const uint64_t middle = low + (high - low) / 2;
        if (faded(h->penalty, middle, h->o.flap_half_life_ms) > h->o.flap_reuse)
            low = middle + 1;
        else
            high = middle;
    }
    return now + high;
}

static void flapped(cb_health *h, cb_time now) {
    h->flaps++;
    h->penalty = penalty_of(h, now) + FLAP;
    h->penalty_at = now;
    if (h->o.no_damping || (!h->damped && h->penalty < h->o.flap_suppress)) return;
    h->suppressed += !h->damped;
    h->damped = true;
    h->reuse_at = reuse_time(h, now);
}

/* ---- state and weight ---- */

static uint32_t ramp(const cb_health *h, cb_time now) {
    const uint64_t whole = h->o.slow_start_ms * MS;
    const uint32_t first = h->o.slow_start_percent;
    if (!whole || !h->ramping) return 100;
    const uint64_t gone = now > h->up_since ? now - h->up_since : 0;
    if (gone >= whole) return 100;
    const uint32_t step = (uint32_t)(gone / (whole / STEPS ? whole / STEPS : 1));
    return first + (100 - first) * (step < STEPS ? step : STEPS) / STEPS;
}

static uint32_t weight_of(const cb_health *h, cb_time now) {
    switch (h->state) {
    case CB_HEALTH_UP:
        return h->override_kind == CB_HEALTH_FORCE_UP ? 100 : ramp(h, now);
    case CB_HEALTH_UNKNOWN:
        return h->o.unknown_is_down ? 0 : 100;
    default:
        return 0;
    }
}

static cb_time until_of(const cb_health *h) {
    return h->cause == CB_HEALTH_BY_DAMPING ? h->reuse_at : 0;
}

static void tell(cb_health *h, int from, int cause, cb_time now) {
    if (h->n_events == CB_HEALTH_EVENTS) {
        memmove(h->events, h->events + 1, (CB_HEALTH_EVENTS - 1) * sizeof *h->events);
        h->n_events--;
    }
    event *e = &h->events[h->n_events++];
    e->at = (cb_health_change){.size = sizeof e->at,
                               .at = now,
                               .until = until_of(h),
                               .number = ++h->numbers,
                               .name = "",
                               .weight = h->weight,
                               .from = from,
                               .to = h->state,
                               .cause = cause};
    text_set(e->reason, h->reason);
}

static void judge(const cb_health *h, int *state, int *cause) {
    static const int forced[] = {[CB_HEALTH_FORCE_UP] = CB_HEALTH_UP,
                                 [CB_HEALTH_FORCE_DOWN] = CB_HEALTH_DOWN,
                                 [CB_HEALTH_FORCE_DRAIN] = CB_HEALTH_DRAINING};
    *state = h->view;
    *cause = h->view == CB_HEALTH_UNKNOWN ? CB_HEALTH_BY_START : CB_HEALTH_BY_CHECKS;
    if (h->override_kind) {
        *state = forced[h->override_kind];
        *cause = CB_HEALTH_BY_OVERRIDE;
    } else if (h->damped && h->view == CB_HEALTH_UP) {
        *state = CB_HEALTH_DOWN;
        *cause = CB_HEALTH_BY_DAMPING;
    }
}

static void explain(cb_health *h) {
    switch (h->cause) {
    case CB_HEALTH_BY_OVERRIDE:
        snprintf(h->reason, sizeof h->reason, "an operator said so%s%.200s", *h->why ? ": " : "", h->why);
        break;
    case CB_HEALTH_BY_DAMPING:
        snprintf(h->reason, sizeof h->reason, "it went up and down too often: left out although checks pass");
        break;
    case CB_HEALTH_BY_CHECKS:
        text_set(h->reason, h->last);
        break;
    default:
        text_set(h->reason, "not checked yet");
        break;
    }
}

/* 1: what counts is another now. */
static int settle(cb_health *h, cb_time now) {
    const int from = h->state, before = h->cause;
    int state, cause;
    judge(h, &state, &cause);
    if (state != from || cause != before) {
        h->state = state;
        h->cause = cause;
        if (state != from) {
            h->changes++;
            h->since = now;
            /* Who comes from "not known" may have been used all the time. */
            const bool was_used = from == CB_HEALTH_UNKNOWN && !h->o.unknown_is_down;
            h->ramping = state == CB_HEALTH_UP && !was_used;
            h->up_since = now;
        }
        explain(h);
    }
    const uint32_t weight = weight_of(h, now);
    const bool ramps = state == from && weight != h->weight;
    h->weight = weight;
    if (state != from || cause != before) {
        tell(h, from, cause, now);
        return 1;
    }
    if (ramps) tell(h, from, CB_HEALTH_BY_RAMP, now);
    return ramps;
}

/* ---- life ---- */

int cb_health_new(cb_health **out, const cb_health_opts *opts, cb_time now) {
    cb_health_opts o;
    const cb_health_opts none = {.size = sizeof none};
    if (!out) return cb_fail(CB_EINVAL, "cb_health_new: out is NULL");
    int rc = cb_opts_read(&o, sizeof o, opts ? opts : &none, "cb_health_opts");
    if (rc < 0) return rc;
    defaults(&o);
    rc = check(&o);
    if (rc < 0) return rc;
    const cb_alloc *a = o.alloc ? o.alloc : &cb_alloc_libc;
    cb_health *h = cb_mem_new(a, sizeof *h);
    if (!h) return cb_fail(CB_ENOMEM, "no memory for the health of an endpoint");
    h->alloc = *a;
    h->o = o;
    h->chance = o.seed;
    h->seen = now;
    h->since = now;
    h->due = now + (o.no_jitter ? 0 : draw(h, o.fast_interval_ms * MS));
    h->weight = weight_of(h, now);
    explain(h);
    *out = h;
    return CB_OK;
}

void cb_health_free(cb_health *h) {
    if (!h) return;
    const cb_alloc a = h->alloc;
    cb_mem_free(&a, h);
}

/* ---- checks ---- */

/* Does the last result speak against what counts, or is nothing known? */
static bool in_doubt(const cb_health *h) {
    return h->view == CB_HEALTH_UNKNOWN || (h->in_a_row && h->last_passed != (h->view == CB_HEALTH_UP));
}

static void plan(cb_health *h, cb_time now) {
    h->due = now + jittered(h, in_doubt(h) ? h->o.fast_interval_ms : h->o.interval_ms);
}

static int count(cb_health *h, bool passed, const char *reason, uint64_t duration_ns, cb_time now) {
    const int before = h->view;
    h->in_a_row = h->checked_at && h->last_passed == passed ? h->in_a_row + 1 : 1;
    if (h->in_a_row == 0) h->in_a_row = UINT32_MAX; /* it has been so for a very long time */
    h->last_passed = passed;
    h->checked_at = now ? now : 1;
    h->duration_ns = duration_ns;
    text_set(h->last, reason && *reason ? reason : passed ? "the check passed" : "the check failed");
    if (passed)
        h->passed++;
    else
        h->failed++;
    if (h->view == CB_HEALTH_UNKNOWN || h->in_a_row >= (passed ? h->o.rise : h->o.fall))
        h->view = passed ? CB_HEALTH_UP : CB_HEALTH_DOWN;
    if (before == CB_HEALTH_UP && h->view == CB_HEALTH_DOWN) flapped(h, now);
    plan(h, now);
    return settle(h, now);
}

static int time_over(cb_health *h, cb_time now) {
    char reason[64];
    const bool slept = now - h->deadline > h->o.timeout_ms * MS;
    h->checking = false;
    h->deadline = NEVER;
    if (slept) {
        h->voided++;
        h->due = now + jittered(h, h->o.fast_interval_ms);
        settle(h, now);
        return CB_HEALTH_GIVE_UP;
    }
    snprintf(reason, sizeof reason, "no answer within %u ms", (unsigned)h->o.timeout_ms);
    h->timeouts++;
    count(h, false, reason, h->o.timeout_ms * MS, now);
    return CB_HEALTH_GIVE_UP;
}

int cb_health_run(cb_health *h, cb_time now) {
    saw(h, now);
    if (h->damped && now >= h->reuse_at) {
        h->damped = false;
        h->penalty = penalty_of(h, now);
        h->penalty_at = now;
    }
    if (h->checking && now >= h->deadline) return time_over(h, now);
    settle(h, now);
    if (h->checking || now < h->due) return CB_HEALTH_WAIT;
    h->checking = true;
    h->began = now;
    h->deadline = now + h->o.timeout_ms * MS;
    h->due = NEVER;
    return CB_HEALTH_CHECK;
}

/* When the ramp's next step is. */
static cb_time next_step(const cb_health *h) {
    const uint64_t whole = h->o.slow_start_ms * MS, step = whole / STEPS ? whole / STEPS : 1;
    if (!whole || !h->ramping || h->state != CB_HEALTH_UP || h->weight >= 100) return NEVER;
    const uint64_t gone = h->seen > h->up_since ? h->seen - h->up_since : 0;
    if (gone >= whole) return h->seen;
    const uint64_t end = (gone / step + 1) * step;
    return h->up_since + (end < whole ? end : whole);
}

cb_time cb_health_next(const cb_health *h) {
    cb_time next = h->checking ? h->deadline : h->due;
    const cb_time step = next_step(h);
    if (h->damped && h->reuse_at < next) next = h->reuse_at;
    return step < next ? step : next;
}

int cb_health_feed(cb_health *h, const cb_health_result *result, cb_time now) {
    cb_health_result r;
    int rc = result ? cb_opts_read(&r, sizeof r, result, "cb_health_result")
                    : cb_fail(CB_EINVAL, "cb_health_feed: result is NULL");
    if (rc < 0) return rc;
    saw(h, now);
    if (!h->checking) return cb_fail(CB_EAGAIN, "no check runs");
    h->checking = false;
    h->deadline = NEVER;
    return count(h, r.passed != 0, r.reason, r.duration_ns, now);
}

void cb_health_suspect(cb_health *h, cb_time now) {
    saw(h, now);
    if (h->checking) return;
    const cb_time soonest = h->began + h->o.fast_interval_ms * MS;
    const cb_time at = h->began && soonest > now ? soonest : now;
    if (at < h->due) h->due = at;
}

int cb_health_override(cb_health *h, int kind, const char *why, cb_time now) {
    if (kind < CB_HEALTH_AS_CHECKED || kind > CB_HEALTH_FORCE_DRAIN)
        return cb_fail(CB_EINVAL, "%d is not one of enum cb_health_override_kind", kind);
    saw(h, now);
    h->override_kind = kind;
    text_set(h->why, why);
    return settle(h, now);
}

/* ---- telling ---- */

int cb_health_take(cb_health *h, cb_health_change *out) {
    if (!h->n_events) return CB_ENOENT;
    h->taken = h->events[0];
    h->taken.at.reason = h->taken.reason;
    int rc = cb_stats_give(out, &h->taken.at, sizeof h->taken.at, "cb_health_change");
    if (rc < 0) return rc;
    h->n_events--;
    memmove(h->events, h->events + 1, h->n_events * sizeof *h->events);
    return CB_OK;
}

int cb_health_status_get(const cb_health *h, cb_health_status *out, cb_time now) {
    const cb_health_status all = {.since = h->since,
                                  .until = until_of(h),
                                  .checked_at = h->checked_at,
                                  .duration_ns = h->duration_ns,
                                  .passed = h->passed,
                                  .failed = h->failed,
                                  .timeouts = h->timeouts,
                                  .voided = h->voided,
                                  .changes = h->changes,
                                  .flaps = h->flaps,
                                  .suppressed = h->suppressed,
                                  .reason = h->reason,
                                  .last = h->last,
                                  .weight = weight_of(h, now),
                                  .penalty = (uint32_t)penalty_of(h, now),
                                  .state = h->state,
                                  .cause = h->cause,
                                  .override_kind = h->override_kind,
                                  .in_a_row = h->in_a_row,
                                  .checking = h->checking,
                                  .last_passed = h->last_passed};
    return cb_stats_give(out, &all, sizeof all, "cb_health_status");
}

int cb_lb_member_health(cb_lb_member *out, uint32_t weight, const cb_health_change *change) {
    if (!out || !change || weight > CB_LB_WEIGHT_MAX)
        return cb_fail(CB_EINVAL, "cb_lb_member_health: out, change or a weight up to %d is missing", CB_LB_WEIGHT_MAX);
    const uint32_t part = (uint32_t)((uint64_t)weight * change->weight / 100);
    *out = (cb_lb_member){.size = sizeof *out,
                          .id = change->id,
                          .weight = weight && change->weight && !part ? 1 : part,
                          .state = CB_LB_UP};
    if (change->to == CB_HEALTH_DRAINING) {
        out->weight = weight;
        out->state = CB_LB_DRAINING;
    } else if (!change->weight) {
        out->weight = weight;
        out->state = CB_LB_DEAD;
    }
    return CB_OK;
}
