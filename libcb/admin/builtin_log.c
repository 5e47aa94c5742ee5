/* Levels of log lines, and files that are opened anew. */
#include "admin/admin_int.h"
#include "base/error.h"
#include <stdio.h>

enum { LEVELS_TEXT = 2048 };

#define LOG_SCHEMA                                                                                                     \
    "{\"type\":\"object\",\"required\":[\"levels\"],\"properties\":{\"levels\":{\"type\":\"string\"},"                 \
    "\"lines\":{\"type\":\"integer\"},\"dropped\":{\"type\":\"integer\"},\"waiting_bytes\":{\"type\":\"integer\"}}}"

static int answer_log(cb_admin_call *c, cb_log_writer *w) {
    char levels[LEVELS_TEXT];
    cb_log_writer_stats stats = {.size = sizeof stats};
    const int64_t n = cb_log_writer_levels_text(w, levels, sizeof levels);
    int rc = n < 0 ? (int)n : cb_log_writer_stats_get(w, &stats);
    if (rc < 0) return rc;
    cb_json_out *o = cb_admin_json(c);
    cb_json_put_object(o, NULL);
    cb_json_put_str(o, "levels", levels);
    cb_json_put_uint(o, "lines", stats.lines);
    cb_json_put_uint(o, "dropped", stats.dropped);
    cb_json_put_uint(o, "waiting_bytes", stats.waiting_bytes);
    cb_json_put_end(o);
    return cb_admin_send(c, 200);
}

static int get_log(cb_admin_call *c, void *user) {
    cb_admin *a = user;
    return answer_log(c, a->o.log_writer);
}

typedef struct log_body {
    const char *levels;
} log_body;

static const cb_config_rule log_members[] = {{.name = "levels",
                                              .kind = CB_CONFIG_TEXT,
                                              .required = 1,
                                              .min = 1,
                                              .max = LEVELS_TEXT - 1,
                                              .offset = offsetof(log_body, levels),
                                              .doc = "Of modules, and of all others: info,quic=debug."},
                                             {.name = NULL}};
static const cb_config_schema log_schema = {
    .size = sizeof log_schema, .title = "Levels of log lines", .members = log_members, .root_size = sizeof(log_body)};

static int put_log(cb_admin_call *c, void *user) {
    cb_admin *a = user;
    const log_body *body = cb_admin_document(c);
    const int rc = cb_log_writer_levels(a->o.log_writer, body->levels);
    if (rc < 0) {
        cb_admin_mistake(c, "/levels", cb_last_error(), 0, 0);
        return rc;
    }
    cb_json_out *o = cb_admin_json(c);
    cb_json_put_object(o, NULL);
    cb_json_put_str(o, "levels", body->levels);
    cb_json_put_str(o, "by", cb_admin_who(c)->name);
    cb_json_put_end(o);
    cb_slice json;
    if (cb_json_out_text(o, &json) == CB_OK) (void)cb_admin_event(a, "log-levels", json);
    cb_json_out_clear(o);
    return answer_log(c, a->o.log_writer);
}

/* A folder that hangs shall not hold up the loop. */
typedef struct reopening {
    cb_admin_call *call; /* NULL: the admin is gone */
    cb_log_writer *w;
    int rc;
    char why[256];
} reopening;

static void reopen_run(void *job) {
    reopening *r = job;
    r->rc = cb_log_writer_reopen(r->w);
    if (r->rc < 0) snprintf(r->why, sizeof r->why, "%s", cb_last_error());
}

static void reopen_done(void *job) {
    reopening *r = job;
    if (!r->call) return;
    if (r->rc < 0)
        (void)cb_admin_problem(r->call, 500, r->why);
    else
        (void)cb_admin_send_nothing(r->call);
}

static void reopen_drop(void *job) {
    cb_mem_free(&cb_alloc_libc, job);
}

static void reopen_cut(cb_admin_call *c, void *user) {
    (void)c;
    ((reopening *)user)->call = NULL;
}

static int post_reopen(cb_admin_call *c, void *user) {
    static const cb_work_ops ops = {reopen_run, reopen_done, reopen_drop};
    cb_admin *a = user;
    cb_work *work = NULL;
    reopening *r = cb_mem_new(&cb_alloc_libc, sizeof *r);
    if (!r) return cb_fail(CB_ENOMEM, "opening the log anew");
    *r = (reopening){.call = c, .w = a->o.log_writer};
    const int rc = cb_work_start(&work, a->loop, &ops, r);
    if (rc < 0) {
        cb_mem_free(&cb_alloc_libc, r);
        return rc;
    }
    cb_admin_call_on_end(c, reopen_cut, r);
    return CB_OK;
}

int cb_admin_builtin_log(cb_admin *a) {
    static const cb_admin_resource rows[] = {{.size = sizeof rows[0],
                                              .method = "GET",
                                              .path = "/v1/log",
                                              .id = "getLog",
                                              .summary = "Levels of log lines, and how many there were",
                                              .rights = CB_RIGHT_READ,
                                              .answer_schema = LOG_SCHEMA,
                                              .handle = get_log},
                                             {.size = sizeof rows[0],
                                              .method = "PUT",
                                              .path = "/v1/log",
                                              .id = "putLog",
                                              .summary = "Sets the levels of log lines",
                                              .rights = CB_RIGHT_OPERATE,
                                              .flags = CB_ADMIN_CHANGES,
                                              .document = &log_schema,
                                              .answer_schema = LOG_SCHEMA,
                                              .handle = put_log},
                                             {.size = sizeof rows[0],
                                              .method = "POST",
                                              .path = "/v1/log/reopen",
                                              .id = "reopenLog",
                                              .summary = "Opens the log file anew, after rotation moved it",
                                              .rights = CB_RIGHT_OPERATE,
                                              .flags = CB_ADMIN_CHANGES,
                                              .handle = post_reopen}};
    int rc = CB_OK;
    for (size_t i = 0; i < sizeof rows / sizeof *rows && rc == CB_OK; i++)
        rc = cb_admin_router_add(&a->router, &rows[i], a, NULL);
    return rc;
}
