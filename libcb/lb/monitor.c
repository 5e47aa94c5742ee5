/* Endpoints that are checked on a loop. F3. */
#include "base/error.h"
#include "base/map.h"
#include "base/opts.h"
#include "lb/check_conf.h"
#include "loop/turn.h"
#include "telemetry/cells.h"
#include <stdio.h>
#include <string.h>

enum { STATES = 4, RESULTS = 4 };
enum { PASSED, FAILED, TIMEOUT, VOIDED };

typedef struct target {
    cb_monitor *monitor;
    cb_probe_conf conf;
    cb_health *health;
    cb_probe probe;
    cb_alarm alarm;
    cb_defer tell; /* changes, when nobody else's call is on the stack */
    cb_grave grave;
    bool gone;
    cb_cell *up, *share, *state[STATES], *checks[RESULTS], *changes, *suppressed;
    uint64_t was_suppressed;
} target;

struct cb_monitor {
    cb_loop *loop;
    const cb_alloc *alloc;
    cb_monitor_opts o;
    cb_resolver *resolver;
    cb_identity *roots; /* the system's, made when somebody needs them */
    cb_map targets;     /* by ID */
};

/* ---- metrics ---- */

static cb_cell *series(const target *t, enum cb_metric_row family, const char *last) {
    const cb_slice values[] = {cb_slice_str(t->conf.c.group), cb_slice_str(t->conf.c.name), cb_slice_str(last)};
    return cb_cells_series(cb_loop_cells(t->monitor->loop), family, values);
}

static void count_begin(target *t) {
    static const char *const results[RESULTS] = {"passed", "failed", "timeout", "void"};
    for (int i = 0; i < STATES; i++)
        t->state[i] = series(t, CB_F_HEALTH_STATE, cb_health_state_name(i));
    for (int i = 0; i < RESULTS; i++)
        t->checks[i] = series(t, CB_F_HEALTH_CHECKS, results[i]);
    t->up = series(t, CB_F_HEALTH_UP, NULL);
    t->share = series(t, CB_F_HEALTH_SHARE, NULL);
    t->changes = series(t, CB_F_HEALTH_CHANGES, NULL);
    t->suppressed = series(t, CB_F_HEALTH_SUPPRESSIONS, NULL);
}

static void count_end(target *t) {
    cb_cell *const gauges[] = {t->up, t->share, t->state[0], t->state[1], t->state[2], t->state[3]};
    for (size_t i = 0; i < sizeof gauges / sizeof *gauges; i++) {
        cb_cell_set(gauges[i], 0);
        cb_cell_release(gauges[i]);
    }
    for (int i = 0; i < RESULTS; i++)
        cb_cell_release(t->checks[i]);
    cb_cell_release(t->changes);
    cb_cell_release(t->suppressed);
}

static void count_check(const target *t, int result, cb_time took) {
    static const enum cb_cell_id seconds[] = {[CB_CHECK_TCP] = CB_C_HEALTH_SECONDS_TCP,
                                              [CB_CHECK_HTTP] = CB_C_HEALTH_SECONDS_HTTP,
                                              [CB_CHECK_GRPC] = CB_C_HEALTH_SECONDS_GRPC,
                                              [CB_CHECK_ICMP] = CB_C_HEALTH_SECONDS_ICMP,
                                              [CB_CHECK_EXEC] = CB_C_HEALTH_SECONDS_EXEC};
    cb_cell_add(t->checks[result], 1);
    if (result != VOIDED) cb_cells_observe(cb_loop_cells(t->monitor->loop), seconds[t->conf.c.kind], took);
}

static cb_health_status status_of(const target *t) {
    cb_health_status s = {.size = sizeof s};
    (void)cb_health_status_get(t->health, &s, cb_loop_now(t->monitor->loop));
    return s;
}

static void show(target *t) {
    const cb_health_status s = status_of(t);
    for (int i = 0; i < STATES; i++)
        cb_cell_set(t->state[i], s.state == i);
    cb_cell_set(t->up, s.weight > 0);
    cb_cell_set(t->share, (int64_t)s.weight);
    cb_cell_add(t->suppressed, s.suppressed - t->was_suppressed);
    t->was_suppressed = s.suppressed;
}

/* ---- telling ---- */

static void say(const target *t, const cb_health_change *c) {
    const int level = c->to == CB_HEALTH_DOWN ? CB_LOG_WARN : CB_LOG_INFO;
    const cb_log *log = cb_loop_log(t->monitor->loop);
    const char *group = t->conf.c.group, *slash = *group ? " of " : "";
    const cb_time now = cb_loop_now(t->monitor->loop);
    char until[48] = "";
    if (c->cause == CB_HEALTH_BY_RAMP) return;
    if (c->until > now)
        snprintf(until, sizeof until, " (for %llu s)", (unsigned long long)((c->until - now) / CB_SEC) + 1);
    cb_log_line(log, level, "health", "%s%s%s is %s: %s%s", t->conf.c.name, slash, group, cb_health_state_name(c->to),
                c->reason, until);
}

static void tell(cb_defer *d) {
    target *t = CB_CONTAINER(d, target, tell);
    cb_monitor *m = t->monitor;
    cb_health_change c = {.size = sizeof c};
    show(t);
    while (!t->gone && cb_health_take(t->health, &c) == CB_OK) {
        c.name = t->conf.c.name;
        c.id = t->conf.c.id;
        if (c.from != c.to) cb_cell_add(t->changes, 1);
        say(t, &c);
        if (m->o.on_change) m->o.on_change(&c, m->o.user);
    }
}

/* ---- checks ---- */

static void plan(target *t) {
    cb_defer_later(&t->tell);
    cb_alarm_set(&t->alarm, cb_health_next(t->health));
}

static void end_probe(target *t) {
    cb_defer_cancel(&t->probe.over);
    t->probe.kind->end(&t->probe);
}

static void feed(target *t, bool passed, const char *reason) {
    const cb_time now = cb_loop_now(t->monitor->loop), took = now > t->probe.began ? now - t->probe.began : 0;
    const cb_health_result r = {.size = sizeof r, .reason = reason, .passed = passed, .duration_ns = took};
    if (cb_health_feed(t->health, &r, now) >= 0) count_check(t, passed ? PASSED : FAILED, took);
    plan(t);
}

static void on_over(cb_defer *d) {
    target *t = CB_CONTAINER(CB_CONTAINER(d, cb_probe, over), target, probe);
    char reason[CB_HEALTH_REASON_BYTES];
    memcpy(reason, t->probe.reason, sizeof reason);
    end_probe(t);
    feed(t, t->probe.passed, reason);
}

static void begin_probe(target *t) {
    cb_probe *p = &t->probe;
    p->began = cb_loop_now(t->monitor->loop);
    p->is_over = false;
    if (p->kind->begin(p) == CB_OK) return;
    char reason[CB_HEALTH_REASON_BYTES];
    snprintf(reason, sizeof reason, "%s", cb_last_error());
    end_probe(t);
    feed(t, false, reason);
}

static void on_alarm(cb_alarm *a, cb_time now) {
    target *t = CB_CONTAINER(a, target, alarm);
    const cb_health_status before = status_of(t);
    switch (cb_health_run(t->health, now)) {
    case CB_HEALTH_CHECK:
        begin_probe(t);
        break;
    case CB_HEALTH_GIVE_UP:
        end_probe(t);
        count_check(t, status_of(t).voided > before.voided ? VOIDED : TIMEOUT, t->probe.timeout);
        break;
    default:
        break;
    }
    plan(t);
}

/* ---- life ---- */

int cb_monitor_new(cb_monitor **out, cb_loop *loop, const cb_monitor_opts *opts) {
    cb_monitor_opts o;
    if (!out || !loop) return cb_fail(CB_EINVAL, "cb_monitor_new: %s is NULL", !out ? "out" : "loop");
    int rc = cb_opts_read(&o, sizeof o, opts, "cb_monitor_opts");
    if (rc < 0) return rc;
    const cb_alloc *alloc = cb_loop_alloc(loop);
    cb_monitor *m = cb_mem_new(alloc, sizeof *m);
    if (!m) return cb_fail(CB_ENOMEM, "no memory for a monitor");
    m->loop = loop;
    m->alloc = alloc;
    m->o = o;
    m->o.resolver = NULL;
    cb_map_init(&m->targets, alloc, cb_loop_hash_key(loop));
    rc = cb_resolver_new(&m->resolver, loop, CB_OPTS(cb_resolver_opts, .servers = o.resolver));
    if (rc < 0)
        cb_monitor_free(m);
    else
        *out = m;
    return rc;
}

static void bury(cb_grave *g) {
    target *t = CB_CONTAINER(g, target, grave);
    const cb_alloc *alloc = t->probe.alloc;
    cb_health_free(t->health);
    cb_probe_conf_free(&t->conf, alloc);
    cb_mem_free(alloc, t);
}

static void drop(target *t) {
    t->gone = true;
    cb_alarm_stop(&t->alarm);
    cb_defer_cancel(&t->tell);
    end_probe(t);
    count_end(t);
    cb_loop_bury(t->monitor->loop, &t->grave, bury);
}

void cb_monitor_free(cb_monitor *m) {
    size_t it = 0;
    cb_slice key;
    if (!m) return;
    for (target *t; (t = cb_map_next(&m->targets, &it, &key)) != NULL;)
        drop(t);
    cb_map_free(&m->targets);
    if (m->resolver) cb_resolver_free(m->resolver);
    cb_identity_unref(m->roots);
    cb_mem_free(m->alloc, m);
}

static target *find(const cb_monitor *m, uint32_t id) {
    target *t = cb_map_get(&m->targets, &id, sizeof id);
    if (!t) (void)cb_fail(CB_ENOENT, "there is no endpoint %u", (unsigned)id);
    return t;
}

/* Reading the system's roots takes a while: once for all endpoints. */
static int give_roots(cb_monitor *m, cb_check *c) {
    if (!c->tls || c->identity) return CB_OK;
    int rc = m->roots ? CB_OK : cb_identity_new(&m->roots, NULL);
    if (rc == CB_OK) c->identity = cb_identity_ref(m->roots);
    return rc;
}

static int make_health(target *t, const cb_health_opts *given) {
    cb_health_opts o;
    int rc = cb_opts_read(&o, sizeof o, given, "cb_health_opts");
    o.alloc = t->probe.alloc;
    if (rc == CB_OK && !o.seed) rc = cb_loop_random(t->monitor->loop, &o.seed, sizeof o.seed);
    if (rc == CB_OK) rc = cb_health_new(&t->health, &o, cb_loop_now(t->monitor->loop));
    t->probe.timeout = (o.timeout_ms ? o.timeout_ms : 2000) * CB_MS;
    return rc;
}

int cb_monitor_add(cb_monitor *m, const cb_check *check) {
    int rc = cb_loop_needs_kernel(m->loop, "a check");
    if (rc < 0) return rc;
    target *t = cb_mem_new(m->alloc, sizeof *t);
    if (!t) return cb_fail(CB_ENOMEM, "no memory for an endpoint");
    t->monitor = m;
    t->probe = (cb_probe){.loop = m->loop, .alloc = m->alloc, .resolver = m->resolver, .conf = &t->conf};
    rc = cb_probe_conf_init(&t->conf, check, m->alloc);
    if (rc == CB_OK && m->targets.len >= CB_MONITOR_MAX)
        rc = cb_fail(CB_ELIMIT, "a monitor has at most %d endpoints", CB_MONITOR_MAX);
    if (rc == CB_OK && cb_map_get(&m->targets, &t->conf.c.id, sizeof t->conf.c.id))
        rc = cb_fail(CB_EEXIST, "two endpoints have the ID %u", (unsigned)t->conf.c.id);
    if (rc == CB_OK) rc = give_roots(m, &t->conf.c);
    if (rc == CB_OK) rc = make_health(t, check->health);
    if (rc == CB_OK) rc = cb_map_put(&m->targets, &t->conf.c.id, sizeof t->conf.c.id, t);
    if (rc < 0) {
        bury(&t->grave);
        return rc;
    }
    t->probe.kind = cb_probe_kind_get(t->conf.c.kind);
    cb_defer_init(&t->probe.over, m->loop, on_over);
    cb_defer_init(&t->tell, m->loop, tell);
    cb_alarm_init(&t->alarm, m->loop, on_alarm);
    count_begin(t);
    show(t);
    cb_alarm_set(&t->alarm, cb_health_next(t->health));
    return CB_OK;
}

int cb_monitor_trust(cb_monitor *m, uint32_t id, cb_identity *identity) {
    target *t = find(m, id);
    if (!t) return CB_ENOENT;
    if (!identity) return cb_fail(CB_EINVAL, "cb_monitor_trust: identity is NULL");
    cb_identity *before = t->conf.c.identity;
    t->conf.c.identity = cb_identity_ref(identity);
    cb_identity_unref(before); /* a check that runs has its own reference */
    return CB_OK;
}

int cb_monitor_remove(cb_monitor *m, uint32_t id) {
    target *t = find(m, id);
    if (!t) return CB_ENOENT;
    cb_map_del(&m->targets, &id, sizeof id);
    drop(t);
    return CB_OK;
}

int cb_monitor_override(cb_monitor *m, uint32_t id, int kind, const char *why) {
    target *t = find(m, id);
    if (!t) return CB_ENOENT;
    const int rc = cb_health_override(t->health, kind, why, cb_loop_now(m->loop));
    if (rc >= 0) plan(t);
    return rc < 0 ? rc : CB_OK;
}

int cb_monitor_suspect(cb_monitor *m, uint32_t id) {
    target *t = find(m, id);
    if (!t) return CB_ENOENT;
    cb_health_suspect(t->health, cb_loop_now(m->loop));
    plan(t);
    return CB_OK;
}

int cb_monitor_status(const cb_monitor *m, uint32_t id, cb_health_status *out) {
    const target *t = find(m, id);
    return t ? cb_health_status_get(t->health, out, cb_loop_now(m->loop)) : CB_ENOENT;
}
