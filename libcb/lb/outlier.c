/* Who fails more, or is slower, than the others is left out for a while. F1. */
#include "lb/outlier.h"
#include "base/error.h"
#include "base/mem.h"
#include "base/opts.h"
#include <stdlib.h>
#include <string.h>

#define MS    UINT64_C(1000000)
#define NEVER UINT64_MAX

enum { TIMES_MAX = 1000000, MILLE = 1000 };

static const char *const rules[CB_OUTLIER_RULES] = {
    "none", "failures", "errors in a row", "failed connections in a row", "error rate", "success rate", "latency"};

const char *cb_outlier_rule_name(int rule) {
    return rule < 0 || rule >= CB_OUTLIER_RULES ? NULL : rules[rule];
}

/* ---- options ---- */

int cb_outlier_check(const cb_outlier_opts *o) {
    if (o->error_percent > 100)
        return cb_fail(CB_EINVAL, "cb_outlier_opts: error_percent is %u; 100 is the most", (unsigned)o->error_percent);
    if (o->latency_percent && o->latency_percent <= 100)
        return cb_fail(CB_EINVAL, "cb_outlier_opts: latency_percent is %u; it has to be above 100",
                       (unsigned)o->latency_percent);
    if (o->max_eject_percent > 100)
        return cb_fail(CB_EINVAL, "cb_outlier_opts: max_eject_percent is %u; 1 to 100 are possible",
                       (unsigned)o->max_eject_percent);
    if (o->max_eject_ms && o->max_eject_ms < o->eject_ms)
        return cb_fail(CB_EINVAL, "cb_outlier_opts: max_eject_ms (%u) is below eject_ms (%u)",
                       (unsigned)o->max_eject_ms, (unsigned)o->eject_ms);
    return CB_OK;
}

static void defaults(cb_outlier_opts *o) {
    const struct {
        uint32_t *at, value;
    } rows[] = {{&o->fail_window_ms, 10000}, {&o->interval_ms, 10000}, {&o->min_requests, 20},
                {&o->min_endpoints, 3},      {&o->eject_ms, 30000},    {&o->max_eject_percent, 50}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (!*rows[i].at) *rows[i].at = rows[i].value;
    if (!o->max_eject_ms) o->max_eject_ms = o->eject_ms > 300000 ? o->eject_ms : 300000;
}

int cb_outlier_init(cb_outlier *o, const cb_outlier_opts *opts, const cb_alloc *alloc) {
    cb_outlier_opts read;
    int rc = cb_opts_read(&read, sizeof read, opts, "cb_outlier_opts");
    if (rc == CB_OK) rc = cb_outlier_check(&read);
    if (rc < 0) return rc;
    defaults(&read);
    *o = (cb_outlier){.alloc = alloc ? *alloc : cb_alloc_libc, .o = read};
    return CB_OK;
}

void cb_outlier_fini(cb_outlier *o) {
    cb_mem_free(&o->alloc, o->at);
    o->at = NULL;
    o->n = o->cap = 0;
}

int cb_outlier_new(cb_outlier **out, const cb_outlier_opts *opts) {
    if (!out) return cb_fail(CB_EINVAL, "cb_outlier_new: out is NULL");
    cb_outlier made;
    int rc = cb_outlier_init(&made, opts, opts ? opts->alloc : NULL);
    if (rc < 0) return rc;
    cb_outlier *o = cb_mem_new(&made.alloc, sizeof *o);
    if (!o) return cb_fail(CB_ENOMEM, "no memory for a set of endpoints");
    *o = made;
    *out = o;
    return CB_OK;
}

void cb_outlier_free(cb_outlier *o) {
    if (!o) return;
    const cb_alloc a = o->alloc;
    cb_outlier_fini(o);
    cb_mem_free(&a, o);
}

static int missing(uint32_t endpoint) {
    return cb_fail(CB_ENOENT, "there is no endpoint %u", (unsigned)endpoint);
}

int cb_outlier_add(cb_outlier *o) {
    if (o->n == CB_OUTLIER_ENDPOINTS_MAX)
        return cb_fail(CB_ELIMIT, "a set has at most %d endpoints", CB_OUTLIER_ENDPOINTS_MAX);
    if (o->n == o->cap) {
        const size_t cap = o->cap ? o->cap * 2 : 4;
        cb_outlier_endpoint *more = cb_mem_grow(&o->alloc, o->at, cap * sizeof *more);
        if (!more) return cb_fail(CB_ENOMEM, "no memory for an endpoint");
        o->at = more;
        o->cap = cap;
    }
    memset(&o->at[o->n], 0, sizeof o->at[0]);
    return (int)o->n++;
}

int cb_outlier_present(cb_outlier *o, uint32_t endpoint, int present) {
    if (endpoint >= o->n) return missing(endpoint);
    o->at[endpoint].gone = !present;
    return CB_OK;
}

/* ---- time ---- */

static void back(cb_time *at, uint64_t by) {
    if (*at) *at = *at > by ? *at - by : 1;
}

/* The clock went back: what was noted goes with it. */
static void saw(cb_outlier *o, cb_time now) {
    if (now < o->seen) {
        const uint64_t by = o->seen - now;
        back(&o->due, by);
        for (size_t i = 0; i < o->n; i++) {
            back(&o->at[i].until, by);
            back(&o->at[i].window, by);
        }
    }
    o->seen = now;
}

/* ---- out and in ---- */

static bool is_out(const cb_outlier *o, const cb_outlier_endpoint *e) {
    return e->until > o->seen;
}

/* May one more go? Those that are gone count nowhere. */
static bool may_go(const cb_outlier *o) {
    size_t all = 0, out = 0;
    for (size_t i = 0; i < o->n; i++) {
        if (o->at[i].gone) continue;
        all++;
        out += is_out(o, &o->at[i]);
    }
    if ((out + 1) * 100 > all * o->o.max_eject_percent) return false;
    return o->o.last_too || out + 1 < all;
}

static void forget(cb_outlier_endpoint *e) {
    e->fails = e->errors_in_a_row = e->connects_in_a_row = 0;
}

/* 1: it is out now, and was not. */
static int eject(cb_outlier *o, cb_outlier_endpoint *e, int rule) {
    const uint64_t most = o->o.max_eject_ms * MS;
    forget(e);
    if (is_out(o, e)) { /* it was tried all the same, and is no better: as long again, without growing */
        const cb_time until = o->seen + o->o.eject_ms * MS;
        if (until > e->until) e->until = until;
        return 0;
    }
    if (e->gone) return 0;
    if (!may_go(o)) {
        e->spared++;
        return 0;
    }
    if (e->times < TIMES_MAX) e->times++;
    const uint64_t long_ = (uint64_t)e->times * o->o.eject_ms * MS;
    e->until = o->seen + (long_ < most ? long_ : most);
    e->rule = (uint8_t)rule;
    e->fresh = true;
    e->ejections[rule]++;
    o->n_news += !e->news;
    e->news = true;
    return 1;
}

/* ---- each call ---- */

static bool within_window(const cb_outlier *o, const cb_outlier_endpoint *e) {
    return e->fails && o->seen - e->window <= o->o.fail_window_ms * MS;
}

/* The rule that this failure breaks. */
static int judge_call(const cb_outlier *o, cb_outlier_endpoint *e, int result) {
    if (e->errors_in_a_row < UINT32_MAX) e->errors_in_a_row++;
    e->connects_in_a_row = result == CB_OUTLIER_CONNECT ? e->connects_in_a_row + 1 : 0;
    if (result != CB_OUTLIER_ERROR) {
        if (!within_window(o, e)) {
            e->fails = 0;
            e->window = o->seen;
        }
        e->fails++;
    }
    if (o->o.max_fails && e->fails >= o->o.max_fails) return CB_OUTLIER_BY_FAILS;
    if (o->o.connect_fails && e->connects_in_a_row >= o->o.connect_fails) return CB_OUTLIER_BY_CONNECT;
    if (o->o.consecutive_errors && e->errors_in_a_row >= o->o.consecutive_errors) return CB_OUTLIER_BY_CONSECUTIVE;
    return CB_OUTLIER_NONE;
}

static void count(cb_outlier_endpoint *e, int result, uint64_t latency_ns) {
    e->results[result]++;
    if (result == CB_OUTLIER_WORKED)
        e->good++;
    else
        e->bad++;
    if (!latency_ns || latency_ns > UINT64_MAX - e->latency) return;
    e->latency += latency_ns;
    e->timed++;
}

int cb_outlier_report(cb_outlier *o, uint32_t endpoint, int result, uint64_t latency_ns, cb_time now) {
    if (endpoint >= o->n) return missing(endpoint);
    if (result < CB_OUTLIER_WORKED || result > CB_OUTLIER_CONNECT)
        return cb_fail(CB_EINVAL, "%d is not one of enum cb_outlier_result", result);
    cb_outlier_run(o, now);
    cb_outlier_endpoint *e = &o->at[endpoint];
    count(e, result, latency_ns);
    if (result <= CB_OUTLIER_ERROR && o->o.answer_readmits) e->until = 0;
    if (result == CB_OUTLIER_WORKED) {
        e->errors_in_a_row = e->connects_in_a_row = 0;
        return 0;
    }
    const int rule = judge_call(o, e, result);
    return rule ? eject(o, e, rule) : 0;
}

/* ---- each interval ---- */

static bool judged(const cb_outlier *o, const cb_outlier_endpoint *e) {
    return e->requests >= o->o.min_requests && !e->gone;
}

static void close_interval(cb_outlier_endpoint *e) {
    e->requests = e->good + e->bad;
    e->permille = e->requests ? (uint32_t)((uint64_t)e->good * MILLE / e->requests) : 0;
    e->mean = e->timed ? e->latency / e->timed : 0;
    e->good = e->bad = e->timed = 0;
    e->latency = 0;
}

static int by_number(const void *a, const void *b) {
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* The upper of both in the middle, so that of two peers the slower one is no outlier. */
static uint64_t median(uint64_t *of, size_t n) {
    qsort(of, n, sizeof *of, by_number);
    return of[n / 2];
}

/* Below the mean by so many deviations, squared: no roots are needed. */
static bool far_below(const cb_outlier *o, double mean, double variance, uint32_t permille) {
    const double gap = mean - permille, many = o->o.success_deviations / 1000.0;
    return gap > 0 && gap * gap > many * many * variance && gap >= 1;
}

static int judge_interval(cb_outlier *o, uint64_t *scratch) {
    size_t n = 0, timed = 0;
    double sum = 0, squares = 0;
    int out = 0;
    for (size_t i = 0; i < o->n; i++) {
        const cb_outlier_endpoint *e = &o->at[i];
        if (!judged(o, e)) continue;
        n++;
        sum += e->permille;
        squares += (double)e->permille * e->permille;
        if (e->mean && scratch) scratch[timed++] = e->mean;
    }
    const double mean = n ? sum / (double)n : 0, variance = n ? squares / (double)n - mean * mean : 0;
    const bool peers = n >= o->o.min_endpoints;
    const uint64_t middle = timed >= o->o.min_endpoints && timed ? median(scratch, timed) : 0;
    for (size_t i = 0; i < o->n; i++) {
        cb_outlier_endpoint *e = &o->at[i];
        int rule = CB_OUTLIER_NONE;
        if (!judged(o, e) || is_out(o, e)) continue;
        if (o->o.error_percent && (MILLE - e->permille) >= o->o.error_percent * 10)
            rule = CB_OUTLIER_BY_ERRORS;
        else if (o->o.success_deviations && peers && far_below(o, mean, variance, e->permille))
            rule = CB_OUTLIER_BY_SUCCESS;
        else if (o->o.latency_percent && middle && e->mean > middle / 100 * o->o.latency_percent)
            rule = CB_OUTLIER_BY_LATENCY;
        if (rule) out += eject(o, e, rule);
    }
    return out;
}

static void age(cb_outlier *o, uint64_t intervals) {
    for (size_t i = 0; i < o->n; i++) {
        cb_outlier_endpoint *e = &o->at[i];
        const uint64_t without = is_out(o, e) ? 0 : intervals - e->fresh;
        e->times -= without < e->times ? (uint32_t)without : e->times;
        e->fresh = false;
    }
}

int cb_outlier_run(cb_outlier *o, cb_time now) {
    const uint64_t interval = o->o.interval_ms * MS;
    int out = 0;
    saw(o, now);
    if (!o->due) o->due = now + interval;
    if (now < o->due) return 0;
    /* Much too late, and "an interval" would be any time: what was counted judges nobody. */
    const bool stale = now - o->due > interval;
    age(o, 1 + (now - o->due) / interval);
    o->due = now + interval;
    for (size_t i = 0; i < o->n; i++)
        close_interval(&o->at[i]);
    if (stale) return 0;
    uint64_t *scratch = o->o.latency_percent && o->n ? cb_mem_get(&o->alloc, o->n * sizeof *scratch) : NULL;
    out = judge_interval(o, scratch);
    cb_mem_free(&o->alloc, scratch);
    return out;
}

int64_t cb_outlier_take(cb_outlier *o) {
    for (size_t i = 0; i < o->n && o->n_news; i++) {
        if (!o->at[i].news) continue;
        o->at[i].news = false;
        o->n_news--;
        return (int64_t)i;
    }
    return CB_ENOENT;
}

cb_time cb_outlier_next(const cb_outlier *o) {
    return o->due ? o->due : NEVER;
}

int cb_outlier_is_out(const cb_outlier *o, uint32_t endpoint, cb_time now) {
    return endpoint < o->n ? cb_outlier_has_out(o, endpoint, now) : missing(endpoint);
}

int cb_outlier_readmit(cb_outlier *o, uint32_t endpoint) {
    if (endpoint >= o->n) return missing(endpoint);
    cb_outlier_endpoint *e = &o->at[endpoint];
    e->until = 0;
    e->times = 0;
    forget(e);
    return CB_OK;
}

int cb_outlier_stats_get(const cb_outlier *o, uint32_t endpoint, cb_outlier_stats *out) {
    if (endpoint >= o->n) return missing(endpoint);
    const cb_outlier_endpoint *e = &o->at[endpoint];
    cb_outlier_stats all = {.out_until = e->until,
                            .worked = e->results[CB_OUTLIER_WORKED],
                            .errors = e->results[CB_OUTLIER_ERROR],
                            .failed = e->results[CB_OUTLIER_FAILED],
                            .connects = e->results[CB_OUTLIER_CONNECT],
                            .spared = e->spared,
                            .mean_latency_ns = e->mean,
                            .requests = e->requests,
                            .success_permille = e->permille,
                            .times = e->times,
                            .fails = within_window(o, e) ? e->fails : 0,
                            .rule = e->rule,
                            .out = is_out(o, e),
                            .present = !e->gone};
    memcpy(all.ejections, e->ejections, sizeof all.ejections);
    return cb_stats_give(out, &all, sizeof all, "cb_outlier_stats");
}
