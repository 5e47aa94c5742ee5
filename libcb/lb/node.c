/* A node on a loop: life, turns, the disk. */
#include "base/error.h"
#include "base/opts.h"
#include "lb/node_drive.h"
#include "lb/node_int.h"
#include "lb/node_shown.h"
#include <stdio.h>
#include <string.h>

typedef struct cb_lb_node_job { /* of writing the file */
    cb_lb_file_job file;
    cb_lb_node *n;
} cb_lb_node_job;

/* ---- what the core asks for ---- */

static void on_answer(void *held, cb_slice answer, void *user) {
    (void)user;
    cb_lb_serve_answer(held, answer);
}

static int on_table(void *user) {
    cb_lb_node *n = user;
    n->told = true;
    cb_lb_node_soon(n);
    return n->ops.on_table && !n->freed ? n->ops.on_table(n, cb_lb_core_table(n->core), n->user) : CB_OK;
}

static void on_state(void *user) {
    cb_lb_node *n = user;
    n->told = true;
    cb_lb_node_soon(n);
}

static void on_log(int level, const char *text, void *user) {
    const cb_lb_node *n = user;
    cb_log_line(cb_loop_log(n->loop), level, "lb", "%s", text);
}

/* ---- the disk ---- */

static void job_free(cb_lb_node_job *job, const cb_alloc *a) {
    cb_lb_table_saved_free(job->file.bytes);
    cb_mem_free(a, job->file.path);
    cb_mem_free(a, job);
}

static void job_run(void *user) {
    cb_lb_file_write(&((cb_lb_node_job *)user)->file);
}

static void job_done(void *user) {
    cb_lb_node_job *job = user;
    cb_lb_node *n = job->n;
    n->work = NULL;
    n->job = NULL;
    if (job->file.rc < 0) cb_fail(job->file.rc, "%s", job->file.detail);
    cb_lb_core_saved(n->core, job->file.rc, cb_loop_now(n->loop));
    cb_lb_node_soon(n);
}

static void job_drop(void *user) {
    cb_lb_node_job *job = user;
    job_free(job, &cb_alloc_libc);
}

static cb_lb_node_job *job_new(cb_lb_node *n, uint8_t *bytes, size_t len) {
    cb_lb_node_job *job = cb_mem_new(&cb_alloc_libc, sizeof *job);
    char *path = job ? cb_mem_text(&cb_alloc_libc, n->state_file) : NULL;
    if (!path) {
        cb_mem_free(&cb_alloc_libc, job);
        cb_lb_table_saved_free(bytes);
        return NULL;
    }
    job->n = n;
    job->file.path = path;
    job->file.bytes = bytes;
    job->file.len = len;
    job->file.number = ++n->jobs;
    return job;
}

static void save(cb_lb_node *n) {
    static const cb_work_ops ops = {.run = job_run, .done = job_done, .drop = job_drop};
    uint8_t *bytes = NULL;
    size_t len = 0;
    const cb_time now = cb_loop_now(n->loop);
    if (!n->state_file || n->work || cb_lb_core_save(n->core, &bytes, &len, 0, now) != 1) return;
    cb_lb_node_job *job = job_new(n, bytes, len);
    int rc = job ? cb_work_start(&n->work, n->loop, &ops, job) : cb_fail(CB_ENOMEM, "no memory to write a file");
    if (rc == CB_OK) {
        n->job = job;
        return;
    }
    if (job) job_free(job, &cb_alloc_libc);
    cb_lb_core_saved(n->core, rc, now);
}

/* At the end, what is not on the disk goes there at once. */
static void save_now(cb_lb_node *n) {
    uint8_t *bytes = NULL;
    size_t len = 0;
    const cb_time now = cb_loop_now(n->loop);
    const bool unfinished = n->work != NULL;
    if (n->job) cb_lb_file_cancel(&n->job->file);
    cb_work_forget(n->work);
    n->work = NULL;
    n->job = NULL;
    if (!n->state_file) return;
    if (unfinished) cb_lb_core_saved(n->core, cb_fail(CB_ECLOSED, "interrupted"), now);
    if (cb_lb_core_save(n->core, &bytes, &len, 1, now) != 1) return;
    cb_lb_node_job *job = job_new(n, bytes, len);
    if (!job) return;
    cb_lb_file_write(&job->file);
    if (job->file.rc < 0) on_log(CB_LOG_ERROR, job->file.detail, n);
    job_free(job, &cb_alloc_libc);
}

/* ---- turns ---- */

void cb_lb_node_soon(cb_lb_node *n) {
    if (!n->freed) cb_defer_later(&n->defer);
}

static void turn(cb_lb_node *n, cb_time now) {
    cb_lb_core_run(n->core, now);
    if (!n->freed) cb_lb_ask_pump(n);
    if (!n->freed) save(n);
    if (n->freed) return;
    cb_time at = cb_lb_core_next(n->core, now);
    if (at <= now) at = now + CB_MS; /* nothing that a core can want is more urgent */
    cb_lb_shown_update(n, now);
    (void)cb_alarm_set(&n->alarm, at);
    if (!n->told) return;
    n->told = false;
    if (n->ops.on_state) n->ops.on_state(n, n->user);
}

static void on_defer(cb_defer *d) {
    cb_lb_node *n = CB_CONTAINER(d, cb_lb_node, defer);
    turn(n, cb_loop_now(n->loop));
}

static void on_alarm(cb_alarm *a, cb_time now) {
    turn(CB_CONTAINER(a, cb_lb_node, alarm), now);
}

/* ---- birth and death ---- */

static const cb_lb_node_member *member_of(const cb_lb_node_opts *o, uint32_t id) {
    for (size_t i = 0; i < o->n_members; i++) {
        const uint8_t *at = (const uint8_t *)o->members + i * o->members->size;
        const cb_lb_node_member *m = (const cb_lb_node_member *)(const void *)at;
        if (m->id == id) return m;
    }
    return NULL;
}

/* What a driver needs beside what the core checks. */
static int check(const cb_lb_node_opts *o) {
    if (!o->members || !o->n_members || !o->members->size)
        return cb_fail(CB_EINVAL, "cb_lb_node_opts: members are needed, with their size");
    const cb_lb_node_member *writer = member_of(o, o->writer);
    if (o->n_members > 1 && !o->identity)
        return cb_fail(CB_EINVAL, "cb_lb_node_opts: identity is needed where there are others");
    if (o->n_members > 1 && writer && (!writer->control || !*writer->control))
        return cb_fail(CB_EINVAL, "cb_lb_node_opts: control of member %u, the writer, is needed", (unsigned)o->writer);
    if (o->id == o->writer && !o->state_file)
        return cb_fail(CB_EINVAL, "cb_lb_node_opts: state_file is needed on the writer");
    return CB_OK;
}

static size_t most_bytes(uint32_t buckets) {
    return (size_t)buckets * 8 + (size_t)CB_LB_MEMBERS_MAX * 32 + (2 << 20);
}

static int read_state(cb_lb_node *n, char **out, size_t *len) {
    *out = NULL;
    *len = 0;
    if (!n->state_file) return CB_OK;
    int rc = cb_lb_file_read(out, len, n->state_file, n->body_max);
    return rc == CB_ENOENT ? CB_OK : rc;
}

static int make_core(cb_lb_node *n, const cb_lb_node_opts *o) {
    const cb_lb_core_ops ops = {.answer = on_answer, .table = on_table, .state = on_state, .log = on_log, .user = n};
    const cb_time now = cb_loop_now(n->loop);
    char *saved;
    size_t len;
    uint64_t instance = 0;
    int rc = cb_loop_random(n->loop, &instance, sizeof instance);
    if (rc == CB_OK) rc = read_state(n, &saved, &len);
    if (rc < 0) return rc;
    rc = cb_lb_core_new(&n->core, o, &ops, cb_loop_alloc(n->loop), (cb_slice){(uint8_t *)saved, len}, instance, now);
    if (rc == CB_EPROTO) {
        cb_log_line(cb_loop_log(n->loop), CB_LOG_WARN, "lb", "state file \"%s\" is put aside (.bad): %s", n->state_file,
                    cb_last_error());
        cb_lb_file_put_aside(n->state_file);
        rc = cb_lb_core_new(&n->core, o, &ops, cb_loop_alloc(n->loop), (cb_slice){NULL, 0}, instance, now);
    }
    cb_mem_free(&cb_alloc_libc, saved);
    return rc;
}

static int open_door(cb_lb_node *n, const cb_lb_node_opts *o) {
    const cb_lb_node_member *us = member_of(o, o->id);
    if (o->id != o->writer || o->n_members < 2) return CB_OK;
    return cb_lb_serve_open(n, o->listen ? o->listen : us->control);
}

static void bury(cb_grave *g) {
    cb_lb_node *n = CB_CONTAINER(g, cb_lb_node, grave);
    const cb_alloc *a = cb_loop_alloc(n->loop);
    cb_lb_core_free(n->core);
    cb_lb_ask_free(n);
    cb_lb_shown_free(n);
    cb_identity_unref(n->identity);
    cb_mem_free(a, n->state_file);
    cb_mem_free(a, n);
}

int cb_lb_node_new(cb_lb_node **out, cb_loop *loop, const cb_lb_node_opts *opts) {
    cb_lb_node_opts o;
    if (!out || !loop) return cb_fail(CB_EINVAL, "cb_lb_node_new: out or loop is NULL");
    int rc = cb_opts_read(&o, sizeof o, opts, "cb_lb_node_opts");
    if (rc == CB_OK) rc = cb_lb_core_opts(&o);
    if (rc == CB_OK) rc = check(&o);
    if (rc == CB_OK && o.ops) rc = cb_ops_check(o.ops, sizeof *o.ops, "cb_lb_node_ops");
    if (rc < 0) return rc;
    const cb_alloc *a = cb_loop_alloc(loop);
    cb_lb_node *n = cb_mem_new(a, sizeof *n);
    if (!n) return cb_fail(CB_ENOMEM, "no memory for a node of a forwarding table");
    n->loop = loop;
    if (o.ops) n->ops = *o.ops;
    n->user = o.user;
    n->id = o.id;
    n->writer = o.writer;
    n->body_max = most_bytes(o.buckets);
    n->identity = o.identity ? cb_identity_ref(o.identity) : NULL;
    n->state_file = cb_mem_text(a, o.state_file);
    cb_list_init(&n->calls);
    cb_buf_init(&n->asking.body, a, n->body_max);
    cb_buf_init(&n->asking.answer, a, n->body_max);
    cb_alarm_init(&n->alarm, loop, on_alarm);
    cb_defer_init(&n->defer, loop, on_defer);
    rc = n->state_file || !o.state_file ? make_core(n, &o) : cb_fail(CB_ENOMEM, "no memory for a path");
    if (rc == CB_OK) rc = open_door(n, &o);
    if (rc < 0) {
        bury(&n->grave);
        return rc;
    }
    cb_lb_node_soon(n);
    (void)cb_alarm_set(&n->alarm, cb_loop_now(loop) + CB_MS);
    *out = n;
    return CB_OK;
}

void cb_lb_node_free(cb_lb_node *n) {
    if (!n || n->freed) return;
    n->freed = true;
    cb_alarm_stop(&n->alarm);
    cb_defer_cancel(&n->defer);
    cb_lb_ask_stop(n);
    save_now(n);
    cb_http_server_free(n->server);
    n->server = NULL;
    cb_loop_bury(n->loop, &n->grave, bury);
}

/* ---- the rest is the core's ---- */

const cb_lb_table *cb_lb_node_table(const cb_lb_node *n) {
    return cb_lb_core_table(n->core);
}

const char *cb_lb_node_address(const cb_lb_node *n) {
    return n->server ? cb_http_server_address(n->server) : "";
}

int cb_lb_node_members(cb_lb_node *n, const cb_lb_node_member *members, size_t n_members) {
    cb_lb_node_opts o = {.members = members,
                         .n_members = n_members,
                         .id = n->id,
                         .writer = n->writer,
                         .identity = n->identity,
                         .state_file = n->state_file};
    int rc = check(&o);
    if (rc == CB_OK) rc = cb_lb_core_members(n->core, members, n_members, cb_loop_now(n->loop));
    if (rc == CB_OK && !n->server) rc = open_door(n, &o);
    cb_lb_node_soon(n);
    return rc;
}

int cb_lb_node_idle(cb_lb_node *n, uint32_t bucket) {
    int rc = cb_lb_core_idle(n->core, bucket, cb_loop_now(n->loop));
    cb_lb_node_soon(n);
    return rc;
}

void cb_lb_node_load(cb_lb_node *n, uint32_t permille) {
    cb_lb_core_load(n->core, permille);
}

void cb_lb_node_leave(cb_lb_node *n, int leaves) {
    cb_lb_core_leave(n->core, leaves, cb_loop_now(n->loop));
    cb_lb_node_soon(n);
}

int cb_lb_node_state(cb_lb_node *n, uint32_t id, int state, uint32_t percent) {
    int rc = cb_lb_core_state(n->core, id, state, percent, cb_loop_now(n->loop));
    cb_lb_node_soon(n);
    return rc;
}

int cb_lb_node_drain(cb_lb_node *n, uint32_t id, int drains) {
    int rc = cb_lb_core_drain(n->core, id, drains, cb_loop_now(n->loop));
    cb_lb_node_soon(n);
    return rc;
}

int cb_lb_node_weight(cb_lb_node *n, uint32_t id, uint32_t weight) {
    int rc = cb_lb_core_weight(n->core, id, weight, cb_loop_now(n->loop));
    cb_lb_node_soon(n);
    return rc;
}

int cb_lb_node_stats_get(const cb_lb_node *n, cb_lb_node_stats *out) {
    cb_lb_node_stats all;
    cb_lb_core_stats(n->core, &all, cb_loop_now(n->loop));
    return cb_stats_give(out, &all, sizeof all, "cb_lb_node_stats");
}

int cb_lb_node_member_get(const cb_lb_node *n, size_t i, cb_lb_node_info *out) {
    cb_lb_node_info all;
    int rc = cb_lb_core_info(n->core, i, &all, cb_loop_now(n->loop));
    return rc == CB_OK ? cb_stats_give(out, &all, sizeof all, "cb_lb_node_info") : rc;
}
