/* What an operator does: reload, drain. */
#include "admin.h"

/* ---- POST /v1/reload ---- */

static void on_call_end(cb_admin_call *call, void *user) {
    (void)call;
    *(cb_admin_call **)user = NULL;
}

static void put_mistakes(cb_admin_call *call, const cb_revisions_result *result) {
    for (uint32_t i = 0; i < result->n_mistakes; i++) {
        const cb_config_error *m = &result->mistakes[i];
        cb_admin_mistake(call, m->pointer, m->text, m->line, m->column);
    }
}

static void on_reloaded(int rc, const cb_revisions_result *result, void *user) {
    edge *e = user;
    cb_admin_call *call = e->reload_call;
    e->reload_call = NULL;
    if (!call) return;
    cb_admin_call_on_end(call, NULL, NULL);
    if (rc < 0 && result->n_mistakes) {
        put_mistakes(call, result);
        cb_admin_problem(call, 400, cb_last_error());
        return;
    }
    if (rc < 0) {
        cb_admin_problem(call, result->step == CB_REVISIONS_STORED ? 507 : 503, cb_last_error());
        return;
    }
    cb_json_out *o = cb_admin_json(call);
    cb_json_put_object(o, NULL);
    cb_json_put_uint(o, "revision", edge_revision(e));
    cb_json_put_end(o);
    cb_admin_send(call, 200);
}

static int post_reload(cb_admin_call *call, void *user) {
    edge *e = user;
    if (e->reload_call) return cb_admin_problem(call, 503, "another reload is under way");
    e->reload_call = call;
    cb_admin_call_on_end(call, on_call_end, &e->reload_call);
    int rc = edge_reload(e, on_reloaded, e);
    if (rc == CB_OK) return CB_OK;
    e->reload_call = NULL;
    cb_admin_call_on_end(call, NULL, NULL);
    return cb_admin_problem(call, rc == CB_EAGAIN ? 503 : 400, cb_last_error());
}

/* ---- POST /v1/drain ---- */

typedef struct drain_body {
    int64_t timeout_ms;
} drain_body;

static const cb_config_rule drain_rules[] = {
    {.name = "timeout_ms",
     .offset = offsetof(drain_body, timeout_ms),
     .kind = CB_CONFIG_INT,
     .min = -1,
     .max = 86400000,
     .fallback = "-1",
     .doc = "How long running requests may take; drain_timeout_ms when absent, or -1."},
    {.name = NULL}};
static const cb_config_schema drain_schema = {
    .size = sizeof drain_schema, .title = "Drain", .members = drain_rules, .root_size = sizeof(drain_body)};

static void drain_now(cb_loop *loop, void *user) {
    (void)loop;
    edge_drain(user);
}

/* It is answered before it begins: the door drains, too. */
static int post_drain(cb_admin_call *call, void *user) {
    edge *e = user;
    const drain_body *body = cb_admin_document(call);
    if (e->stopping) return cb_admin_problem(call, 409, "it drains already");
    if (e->upgrade) return cb_admin_problem(call, 409, "an upgrade is under way");
    e->drain_ms = body && body->timeout_ms >= 0 ? (uint64_t)body->timeout_ms : (uint64_t)e->now->conf->drain_timeout_ms;
    e->drain_said = true;
    int rc = cb_loop_post(e->loop, drain_now, e);
    if (rc < 0) return rc;
    cb_json_out *o = cb_admin_json(call);
    cb_json_put_object(o, NULL);
    cb_json_put_bool(o, "draining", 1);
    cb_json_put_uint(o, "timeout_ms", e->drain_ms);
    cb_json_put_end(o);
    return cb_admin_send(call, 202);
}

int edge_admin_operate(edge *e, cb_admin *a) {
    static const cb_admin_resource rows[] = {{.size = sizeof rows[0],
                                              .method = "POST",
                                              .path = "/v1/reload",
                                              .id = "reload",
                                              .summary = "Read the configuration file and all certificates again",
                                              .rights = CB_RIGHT_OPERATE,
                                              .flags = CB_ADMIN_CHANGES,
                                              .handle = post_reload},
                                             {.size = sizeof rows[0],
                                              .method = "POST",
                                              .path = "/v1/drain",
                                              .id = "drain",
                                              .summary = "Take no new requests, let those that run end, and end",
                                              .rights = CB_RIGHT_OPERATE,
                                              .flags = CB_ADMIN_CHANGES | CB_ADMIN_OPTIONAL,
                                              .document = &drain_schema,
                                              .handle = post_drain}};
    return edge_admin_add(a, rows, sizeof rows / sizeof *rows, e);
}
