/* cb_admin: its life and its doors. */
#include "admin/admin_int.h"
#include "admin/describe.h"
#include "base/addr.h"
#include "base/error.h"
#include "base/opts.h"
#include "http/server_int.h"
#include <stdio.h>
#include <string.h>

enum { BODY_MAX = 64 << 20, STREAMS_OF_CONN = 8, SEND_BUFFER = 65536 };

/* ---- options ---- */

static const struct {
    size_t offset;
    uint32_t fallback, max;
    const char *name;
} numbers[] = {
    {offsetof(cb_admin_opts, max_conns), 64, 65536, "max_conns"},
    {offsetof(cb_admin_opts, max_body_bytes), 1 << 20, BODY_MAX, "max_body_bytes"},
    {offsetof(cb_admin_opts, request_timeout_ms), 10000, 3600000, "request_timeout_ms"},
    {offsetof(cb_admin_opts, send_timeout_ms), 10000, 3600000, "send_timeout_ms"},
    {offsetof(cb_admin_opts, max_waiting), 128, 65536, "max_waiting"},
    {offsetof(cb_admin_opts, keep_events), 1024, 1 << 20, "keep_events"},
    {offsetof(cb_admin_opts, keep_event_bytes), 1 << 20, 1 << 30, "keep_event_bytes"},
    {offsetof(cb_admin_opts, keep_answers), 1024, 65536, "keep_answers"},
    {offsetof(cb_admin_opts, denials_per_s), 20, 1000000, "denials_per_s"},
};

static int fill_numbers(cb_admin_opts *o) {
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        uint32_t n;
        memcpy(&n, (char *)o + numbers[i].offset, sizeof n);
        if (n > numbers[i].max) return cb_fail(CB_EINVAL, "%s: at most %u", numbers[i].name, numbers[i].max);
        if (!n) memcpy((char *)o + numbers[i].offset, &numbers[i].fallback, sizeof n);
    }
    return CB_OK;
}

static int fill(cb_admin *a, const cb_admin_opts *opts) {
    cb_admin_opts *o = &a->o;
    int rc = cb_opts_read(o, sizeof *o, opts, "cb_admin_opts");
    cb_admin_roles *roles = rc == CB_OK ? o->roles : NULL;
    cb_metrics *metrics = rc == CB_OK ? o->metrics : NULL;
    o->roles = NULL; /* ours only from here on */
    o->metrics = NULL;
    if (rc == CB_OK) rc = fill_numbers(o);
    if (rc < 0) return rc;
    cb_admin_set_roles(a, roles);
    o->metrics = metrics ? cb_metrics_ref(metrics) : NULL;
    a->name = cb_mem_text(a->alloc, o->name && *o->name ? o->name : "libcb");
    a->version = cb_mem_text(a->alloc, o->version && *o->version ? o->version : cb_version_text());
    if (!a->name || !a->version) return cb_fail(CB_ENOMEM, "an administration interface");
    return cb_ring_init(&a->ring, a->alloc, o->keep_events, o->keep_event_bytes, cb_loop_wall(a->loop) / CB_MS);
}

/* ---- life ---- */

static void on_no_doors(cb_defer *d) {
    cb_admin *a = CB_CONTAINER(d, cb_admin, no_doors);
    const cb_task_fn fn = a->drained;
    a->drained = NULL;
    if (fn) fn(a->loop, a->drained_user);
}

int cb_admin_new(cb_admin **out, cb_loop *loop, const cb_admin_opts *opts) {
    if (!out || !loop) return cb_fail(CB_EINVAL, "cb_admin_new: %s is NULL", out ? "loop" : "out");
    cb_admin *a = cb_mem_new(cb_loop_alloc(loop), sizeof *a);
    if (!a) return cb_fail(CB_ENOMEM, "an administration interface");
    a->loop = loop;
    a->alloc = cb_loop_alloc(loop);
    a->log = cb_loop_log(loop);
    a->alive = true;
    snprintf(a->why_ready, sizeof a->why_ready, "starting");
    cb_list_init(&a->calls);
    cb_list_init(&a->streams);
    cb_defer_init(&a->no_doors, loop, on_no_doors);
    cb_admin_router_init(&a->router, a->alloc);
    int rc = fill(a, opts);
    cb_admin_denials_init(a);
    cb_replays_init(&a->replays, a->alloc, cb_loop_hash_key(loop), a->o.keep_answers);
    if (rc == CB_OK) rc = cb_admin_builtin(a);
    if (rc < 0) {
        cb_admin_free(a);
        return rc;
    }
    *out = a;
    return CB_OK;
}

void cb_admin_set_roles(cb_admin *a, cb_admin_roles *roles) {
    cb_admin_roles *old = a->roles;
    if (roles) cb_admin_roles_seal(roles);
    a->roles = roles ? cb_admin_roles_ref(roles) : NULL;
    if (!cb_admin_roles_same(old, roles)) cb_admin_streams_end(a, false); /* who may still listen comes again */
    cb_admin_roles_unref(old);
}

static void door_drained(cb_loop *loop, void *user) {
    cb_admin *a = user;
    (void)loop;
    if (--a->draining == 0) on_no_doors(&a->no_doors);
}

int cb_admin_set_audit(cb_admin *a, cb_audit *audit) {
    if (!a || !a->o.needs_audit) return cb_fail(CB_EINVAL, "cb_admin_set_audit: an admin that needs one");
    a->o.audit = audit;
    return CB_OK;
}

int cb_admin_drain(cb_admin *a, uint64_t deadline_ms, int yields, cb_task_fn done, void *user) {
    if (!a) return cb_fail(CB_EINVAL, "cb_admin_drain: no admin");
    const bool again = a->ending; /* only the deadline is new */
    a->ending = true;
    a->drained = done;
    a->drained_user = user;
    if (!again) a->draining = a->n_doors;
    cb_admin_streams_end(a, false);
    int rc = CB_OK;
    for (int i = 0; i < a->n_doors; i++) {
        cb_http_server *srv = a->doors[i].srv;
        if (!again) cb_http_server_on_drained(srv, door_drained, a);
        const int one = yields ? cb_http_server_yield(srv, deadline_ms) : cb_http_server_drain(srv, deadline_ms);
        if (one < 0) rc = one;
    }
    if (!a->draining) cb_defer_later(&a->no_doors); /* there is no door, or all were drained before */
    return rc;
}

void cb_admin_free(cb_admin *a) {
    if (!a) return;
    while (!cb_list_empty(&a->calls))
        cb_admin_call_cut(CB_CONTAINER(a->calls.next, cb_admin_call, link));
    cb_admin_streams_end(a, true);
    for (int i = 0; i < a->n_doors; i++) {
        cb_http_server_free(a->doors[i].srv);
        cb_authn_unref(a->doors[i].gate);
    }
    cb_defer_cancel(&a->no_doors);
    cb_alarm_stop(&a->denials);
    cb_authn_worker_free(a->worker);
    cb_admin_router_free(&a->router);
    cb_replays_free(&a->replays);
    cb_ring_free(&a->ring);
    cb_admin_roles_unref(a->roles);
    cb_metrics_unref(a->o.metrics);
    cb_mem_free(a->alloc, a->description);
    cb_mem_free(a->alloc, a->name);
    cb_mem_free(a->alloc, a->version);
    cb_mem_free(a->alloc, a);
}

/* ---- doors ---- */

static bool loopback(const char *address) {
    cb_addr at;
    if (cb_addr_parse(&at, address, 0) < 0) return false;
    cb_addr_unmap(&at);
    if (at.sa.sa_family == AF_INET) return ntohl(at.v4.sin_addr.s_addr) >> 24 == 127;
    return IN6_IS_ADDR_LOOPBACK(&at.v6.sin6_addr);
}

static int check_door(const cb_admin *a, const cb_admin_door_opts *o) {
    if (!o->address) return cb_fail(CB_EINVAL, "address: required, such as unix:/run/cb/admin.sock");
    const bool local = cb_unix_path(o->address) != NULL;
    if (a->ending) return cb_fail(CB_EINVAL, "%s: the administration interface is ending", o->address);
    if (a->n_doors == CB_ADMIN_DOORS) return cb_fail(CB_ELIMIT, "at most %d doors", CB_ADMIN_DOORS);
    if (o->client_cert > 2) return cb_fail(CB_EINVAL, "client_cert: 0, 1 or 2");
    if (o->public_only > 1) return cb_fail(CB_EINVAL, "public_only: 0 or 1");
    if (!local && (o->mode || o->replace))
        return cb_fail(CB_EINVAL, "%s: mode and replace are for unix sockets", o->address);
    if (local && (o->public_only || o->identity || o->gate))
        return cb_fail(CB_EINVAL, "%s: a unix socket knows its peers: no gate, no TLS, not public", o->address);
    if (o->public_only && (o->identity || o->gate))
        return cb_fail(CB_EINVAL, "%s: a public door has no gate and no TLS", o->address);
    if (o->public_only && !loopback(o->address))
        return cb_fail(CB_EINVAL, "%s: a public door needs a loopback address (127.0.0.1 or [::1])", o->address);
    if (!local && !o->public_only && (!o->identity || !o->gate))
        return cb_fail(CB_EINVAL, "%s: over TCP only with TLS (identity) and a gate: %s is missing", o->address,
                       o->identity ? "the gate" : "the identity");
    return CB_OK;
}

static int open_door(cb_admin *a, cb_admin_door *door, const cb_admin_door_opts *o) {
    const cb_http_limits limits = {.size = sizeof limits,
                                   .head_timeout_ms = a->o.request_timeout_ms,
                                   .body_timeout_ms = a->o.request_timeout_ms,
                                   .idle_timeout_ms = 3 * a->o.request_timeout_ms,
                                   .send_timeout_ms = a->o.send_timeout_ms,
                                   .max_streams = STREAMS_OF_CONN,
                                   .send_buffer_bytes = SEND_BUFFER};
    const cb_http_server_opts opts = {.size = sizeof opts,
                                      .listen = o->address,
                                      .identity = o->identity,
                                      .ops = &cb_admin_door_ops,
                                      .user = door,
                                      .limits = &limits,
                                      .versions = CB_HTTP_1 | CB_HTTP_2,
                                      .max_conns = 2 * a->o.max_conns, /* half of them are only told that it is full */
                                      .request_client_cert = o->identity ? o->client_cert == 2 ? 2 : 1 : 0,
                                      .unix_mode = o->mode,
                                      .unix_replace = o->replace,
                                      .fds = o->fds,
                                      .n_fds = o->n_fds};
    int rc = cb_http_server_new(&door->srv, a->loop, &opts);
    if (rc == CB_OK)
        cb_server_uncount(door->srv); /* what people look at is no traffic: there are families of its own */
    return rc;
}

int cb_admin_listen(cb_admin *a, const cb_admin_door_opts *opts) {
    cb_admin_door_opts o;
    if (!a) return cb_fail(CB_EINVAL, "cb_admin_listen: no admin");
    int rc = cb_opts_read(&o, sizeof o, opts, "cb_admin_door_opts");
    if (rc == CB_OK) rc = check_door(a, &o);
    if (rc == CB_OK && o.gate && !a->worker) rc = cb_authn_worker_new(&a->worker, a->loop);
    if (rc < 0) return rc;
    cb_admin_door *door = &a->doors[a->n_doors];
    *door = (cb_admin_door){.a = a, .local = cb_unix_path(o.address) != NULL, .open = o.public_only};
    rc = open_door(a, door, &o);
    if (rc < 0) return rc;
    door->gate = o.gate ? cb_authn_ref(o.gate) : NULL;
    cb_log_line(a->log, CB_LOG_INFO, "admin", "%s: administration%s", cb_http_server_address(door->srv),
                door->open ? ": health and metrics, for everybody on this host" : "");
    return a->n_doors++;
}

int cb_admin_set_gate(cb_admin *a, int door, cb_authn *gate) {
    if (!a || !gate || door < 0 || door >= a->n_doors || !a->doors[door].gate)
        return cb_fail(CB_EINVAL, "cb_admin_set_gate: a door that has a gate, and another one");
    cb_authn *before = a->doors[door].gate;
    a->doors[door].gate = cb_authn_ref(gate);
    if (before != gate) cb_admin_streams_end_at(a, &a->doors[door]); /* who is still let in comes again */
    cb_authn_unref(before);                                          /* requests on their way keep it */
    return CB_OK;
}

const char *cb_admin_address(const cb_admin *a, int door) {
    return door >= 0 && door < a->n_doors ? cb_http_server_address(a->doors[door].srv) : NULL;
}

cb_http_server *cb_admin_server(cb_admin *a, int door) {
    return door >= 0 && door < a->n_doors ? a->doors[door].srv : NULL;
}

uint64_t cb_admin_door_conns(const cb_admin_door *door) {
    cb_http_server_stats st = {.size = sizeof st};
    return cb_http_server_stats_get(door->srv, &st) == CB_OK ? st.conns_h1 + st.conns_h2 : 0;
}

/* ---- health ---- */

void cb_admin_ready(cb_admin *a, int ready, const char *why) {
    a->ready = ready;
    snprintf(a->why_ready, sizeof a->why_ready, "%s", why ? why : "");
}

void cb_admin_alive(cb_admin *a, int alive, const char *why) {
    a->alive = alive;
    snprintf(a->why_alive, sizeof a->why_alive, "%s", why ? why : "");
}

/* ---- resources ---- */

int cb_admin_add(cb_admin *a, const cb_admin_resource *r, void *user) {
    if (!a) return cb_fail(CB_EINVAL, "cb_admin_add: no admin");
    const int rc = cb_admin_router_add(&a->router, r, user, NULL);
    if (rc < 0) return rc;
    cb_mem_free(a->alloc, a->description);
    a->description = NULL;
    return CB_OK;
}

int cb_admin_describe(cb_admin *a, cb_slice *out) {
    cb_json_out *o = NULL;
    cb_slice text;
    if (!a->description) {
        int rc = cb_json_out_new(&o, 0);
        if (rc == CB_OK) rc = cb_admin_describe_into(o, &a->router, a->name, a->version);
        if (rc == CB_OK) rc = cb_json_out_text(o, &text);
        if (rc == CB_OK && !(a->description = cb_mem_get(a->alloc, text.len)))
            rc = cb_fail(CB_ENOMEM, "the description");
        if (rc == CB_OK) memcpy(a->description, text.base, text.len);
        if (rc == CB_OK) a->description_len = text.len;
        cb_json_out_free(o);
        if (rc < 0) return rc;
    }
    *out = (cb_slice){(const uint8_t *)a->description, a->description_len};
    return CB_OK;
}
