/* Weights by the load that servers report. F1.
 *
 * Each step takes a part of the difference away: weight × (1 + gain × (mean / load − 1)), within a maximal step, then
 * what that adds or takes in sum is spread again. With the gain g and d steps until a change shows in the reports the
 * loop is stable for g < 2 sin(π / (4d + 2)): 0.28 at five steps, so the default of 0.2 is stable up to there, and
 * differences within the dead band move nothing at all. */
#include "base/error.h"
#include "base/mem.h"
#include "base/opts.h"
#include <cb/health.h>
#include <cb/lb.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

#define MS    UINT64_C(1000000)
#define NEVER UINT64_MAX

enum { ROUNDS = 8 };

typedef struct member {
    double load;   /* smoothed; < 0 = unknown */
    double weight; /* exact */
    double wanted;
    cb_time at; /* of the latest report */
    uint32_t own, told;
    bool gone;
} member;

struct cb_lb_adapt {
    cb_alloc alloc;
    cb_lb_adapt_opts o;
    member *at;
    size_t n, cap;
    cb_time seen, due; /* due 0: no report yet */
};

static void defaults(cb_lb_adapt_opts *o) {
    const struct {
        uint32_t *at, value;
    } rows[] = {{&o->step_ms, 10000},       {&o->smooth_ms, 5000},  {&o->stale_ms, 30000},
                {&o->dead_band_percent, 5}, {&o->gain_percent, 20}, {&o->max_step_percent, 10},
                {&o->min_percent, 20},      {&o->max_percent, 300}, {&o->idle_percent, 10}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (!*rows[i].at) *rows[i].at = rows[i].value;
}

static int check(const cb_lb_adapt_opts *o) {
    const struct {
        const char *name;
        uint32_t value, least, most;
    } rows[] = {{"gain_percent", o->gain_percent, 1, 100},
                {"max_step_percent", o->max_step_percent, 1, 100},
                {"min_percent", o->min_percent, 1, 100},
                {"max_percent", o->max_percent, 101, 1000000},
                {"dead_band_percent", o->dead_band_percent, 1, 100},
                {"idle_percent", o->idle_percent, 1, 100}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (rows[i].value < rows[i].least || rows[i].value > rows[i].most)
            return cb_fail(CB_EINVAL, "cb_lb_adapt_opts: %s is %u; %u to %u are possible", rows[i].name,
                           (unsigned)rows[i].value, (unsigned)rows[i].least, (unsigned)rows[i].most);
    return CB_OK;
}

int cb_lb_adapt_new(cb_lb_adapt **out, const cb_lb_adapt_opts *opts) {
    cb_lb_adapt_opts o;
    if (!out) return cb_fail(CB_EINVAL, "cb_lb_adapt_new: out is NULL");
    int rc = cb_opts_read(&o, sizeof o, opts, "cb_lb_adapt_opts");
    if (rc < 0) return rc;
    defaults(&o);
    rc = check(&o);
    if (rc < 0) return rc;
    const cb_alloc *alloc = o.alloc ? o.alloc : &cb_alloc_libc;
    cb_lb_adapt *a = cb_mem_new(alloc, sizeof *a);
    if (!a) return cb_fail(CB_ENOMEM, "no memory for weights by load");
    a->alloc = *alloc;
    a->o = o;
    *out = a;
    return CB_OK;
}

void cb_lb_adapt_free(cb_lb_adapt *a) {
    if (!a) return;
    const cb_alloc alloc = a->alloc;
    cb_mem_free(&alloc, a->at);
    cb_mem_free(&alloc, a);
}

int cb_lb_adapt_add(cb_lb_adapt *a, uint32_t weight) {
    if (!weight || weight > CB_LB_WEIGHT_MAX)
        return cb_fail(CB_EINVAL, "a member's weight is %u; 1 to %d are possible", (unsigned)weight, CB_LB_WEIGHT_MAX);
    if (a->n == CB_LB_ADAPT_MEMBERS_MAX)
        return cb_fail(CB_ELIMIT, "there are at most %d members", CB_LB_ADAPT_MEMBERS_MAX);
    if (a->n == a->cap) {
        const size_t cap = a->cap ? a->cap * 2 : 8;
        member *more = cb_mem_grow(&a->alloc, a->at, cap * sizeof *more);
        if (!more) return cb_fail(CB_ENOMEM, "no memory for a member");
        a->at = more;
        a->cap = cap;
    }
    a->at[a->n] = (member){.load = -1, .weight = weight, .own = weight, .told = weight};
    return (int)a->n++;
}

static int missing(uint32_t i) {
    return cb_fail(CB_ENOENT, "there is no member %u", (unsigned)i);
}

/* The clock went back: what was noted goes with it. */
static void saw(cb_lb_adapt *a, cb_time now) {
    if (now < a->seen) {
        const uint64_t by = a->seen - now;
        if (a->due) a->due = a->due > by ? a->due - by : 1;
        for (size_t i = 0; i < a->n; i++)
            a->at[i].at = a->at[i].at > by ? a->at[i].at - by : 0;
    }
    a->seen = now;
}

static bool is_stale(const cb_lb_adapt *a, const member *m) {
    return a->seen - m->at > a->o.stale_ms * MS;
}

int cb_lb_adapt_report(cb_lb_adapt *a, uint32_t i, double load, cb_time now) {
    if (i >= a->n) return missing(i);
    saw(a, now);
    member *m = &a->at[i];
    if (!isfinite(load) || load < 0) {
        m->load = -1;
        return CB_OK;
    }
    if (!a->due) a->due = now + a->o.step_ms * MS;
    if (m->load < 0 || is_stale(a, m)) {
        m->load = load;
    } else {
        const double age = (double)(now - m->at), smooth = (double)a->o.smooth_ms * (double)MS;
        m->load += (load - m->load) * age / (age + smooth);
    }
    m->at = now;
    return CB_OK;
}

int cb_lb_adapt_present(cb_lb_adapt *a, uint32_t i, int present) {
    if (i >= a->n) return missing(i);
    if (a->at[i].gone && present) a->at[i].load = -1; /* what it said before is of another time */
    a->at[i].gone = !present;
    return CB_OK;
}

/* ---- a step ---- */

static bool counts(const cb_lb_adapt *a, const member *m) {
    return m->load >= 0 && !m->gone && !is_stale(a, m);
}

static double limited(double value, double least, double most) {
    return value < least ? least : value > most ? most : value;
}

/* What a member may have after this step at least and at most. */
static double floor_of(const cb_lb_adapt *a, const member *m) {
    const double least = m->own * (a->o.min_percent / 100.0), step = m->weight * (1 - a->o.max_step_percent / 100.0);
    return step > least ? step : least < m->weight ? least : m->weight;
}

static double ceiling_of(const cb_lb_adapt *a, const member *m) {
    double most = m->own * (a->o.max_percent / 100.0);
    const double step = m->weight * (1 + a->o.max_step_percent / 100.0);
    if (most > CB_LB_WEIGHT_MAX) most = CB_LB_WEIGHT_MAX;
    return step < most ? step : most > m->weight ? most : m->weight;
}

/* The mean load by weight: what all would have if all were equal. false: nothing to go by. */
static bool mean_of(const cb_lb_adapt *a, double *mean, double *weights) {
    double load = 0;
    size_t n = 0;
    *weights = 0;
    for (size_t i = 0; i < a->n; i++) {
        if (!counts(a, &a->at[i])) continue;
        load += a->at[i].load * a->at[i].weight;
        *weights += a->at[i].weight;
        n++;
    }
    if (n < 2 || load <= 0) return false;
    *mean = load / *weights;
    return *mean * 100 >= a->o.idle_percent;
}

/* What each should have; false: all are equal enough. */
static bool wish(cb_lb_adapt *a, double mean) {
    const double band = a->o.dead_band_percent / 100.0, gain = a->o.gain_percent / 100.0;
    bool some = false;
    for (size_t i = 0; i < a->n; i++) {
        member *m = &a->at[i];
        if (!counts(a, m)) continue;
        const double off = m->load / mean - 1;
        double factor = 1;
        if (off > band || off < -band) {
            factor = 1 + gain * (mean / (m->load > mean / 100 ? m->load : mean / 100) - 1);
            some = true;
        }
        m->wanted = limited(m->weight * factor, floor_of(a, m), ceiling_of(a, m));
    }
    return some;
}

/* The sum has to be what it was: what is missing, or too much, is spread over those that still can move. */
static void level(cb_lb_adapt *a, double sum) {
    for (int round = 0; round < ROUNDS; round++) {
        double has = 0, room = 0;
        for (size_t i = 0; i < a->n; i++)
            if (counts(a, &a->at[i])) has += a->at[i].wanted;
        const double lacks = sum - has;
        for (size_t i = 0; i < a->n; i++) {
            const member *m = &a->at[i];
            if (!counts(a, m)) continue;
            room += lacks > 0 ? ceiling_of(a, m) - m->wanted : m->wanted - floor_of(a, m);
        }
        if (fabs(lacks) < 1e-9 || room <= 0) return;
        const double part = fabs(lacks) < room ? lacks / room : lacks > 0 ? 1 : -1;
        for (size_t i = 0; i < a->n; i++) {
            member *m = &a->at[i];
            if (!counts(a, m)) continue;
            m->wanted += part * (lacks > 0 ? ceiling_of(a, m) - m->wanted : m->wanted - floor_of(a, m));
        }
    }
}

/* Whole numbers with the same sum: parts carry over to the next, as each keeps its exact weight. */
static bool round_off(cb_lb_adapt *a) {
    double exact = 0;
    int64_t told = 0;
    bool changed = false;
    for (size_t i = 0; i < a->n; i++) {
        member *m = &a->at[i];
        if (!counts(a, m)) continue;
        exact += m->weight;
        int64_t whole = (int64_t)(exact + 0.5) - told;
        if (whole < 1) whole = 1;
        if (whole > CB_LB_WEIGHT_MAX) whole = CB_LB_WEIGHT_MAX;
        told += whole;
        changed |= m->told != (uint32_t)whole;
        m->told = (uint32_t)whole;
    }
    return changed;
}

int cb_lb_adapt_run(cb_lb_adapt *a, cb_time now) {
    double mean = 0, sum = 0;
    saw(a, now);
    if (!a->due || now < a->due) return 0;
    a->due = now + a->o.step_ms * MS; /* from now on: a clock that jumps forward makes one step, not many */
    if (!mean_of(a, &mean, &sum) || !wish(a, mean)) return 0;
    level(a, sum);
    for (size_t i = 0; i < a->n; i++)
        if (counts(a, &a->at[i])) a->at[i].weight = a->at[i].wanted;
    return round_off(a);
}

cb_time cb_lb_adapt_next(const cb_lb_adapt *a) {
    return a->due ? a->due : NEVER;
}

int64_t cb_lb_adapt_weight(const cb_lb_adapt *a, uint32_t i) {
    return i < a->n ? (int64_t)a->at[i].told : missing(i);
}
