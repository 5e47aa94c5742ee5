/* From one configuration to the next: what a change goes through in this process, be it by the file or by
 * administration. The workers open what is new beforehand; only when all have succeeded, and the revision is written,
 * each takes over. */
#include "telemetry.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- prepare ---- */

static void undo(edge *e) {
    if (e->workers_told) edge_post_all(e, edge_worker_abort);
    if (e->next && !e->only_check) edge_parts_abort(e);
    edge_snapshot_unref(e->next);
    e->next = NULL;
    e->workers_told = false;
    edge_providers_prune(e);
    if (e->only_check) return;
    edge_telemetry_decided(e, EDGE_BAD, e->by_file);
    edge_notify("READY=1\nSTATUS=serving");
}

static void refuse(edge *e, int rc) {
    char why[sizeof e->from.mistakes->text];
    snprintf(why, sizeof why, "%s", e->from.n ? e->from.mistakes[0].text : cb_last_error());
    undo(e);
    for (size_t i = 0; i < e->from.n; i++) {
        const edge_mistake *m = &e->from.mistakes[i];
        const cb_config_error told = {
            .file = e->from.name, .pointer = m->pointer, .text = m->text, .line = m->line, .column = m->column};
        cb_revisions_mistake(e->revisions, &told);
    }
    cb_revisions_prepared(e->revisions, cb_error_set(rc, why));
}

static void on_answer(cb_loop *loop, void *user) {
    edge_worker *w = user;
    edge *e = w->edge;
    (void)loop;
    if (w->answer < 0 && !e->failed) {
        edge_wrong(&e->from, w->why, "%s", w->where);
        e->failed = true;
    }
    if (++e->answers < e->n_workers) return;
    if (e->failed)
        refuse(e, CB_EINVAL);
    else
        cb_revisions_prepared(e->revisions, CB_OK);
}

void edge_answer(edge_worker *w, int rc, const char *detail) {
    w->answer = rc;
    snprintf(w->why, sizeof w->why, "%s", detail);
    cb_loop_post(w->edge->loop, on_answer, w);
}

static int make_next(edge *e) {
    int rc = e->stopping ? cb_error_set(CB_EAGAIN, "this process drains") : CB_OK;
    if (rc == CB_OK) rc = edge_snapshot_load(&e->next, &e->from, e);
    if (rc == CB_OK) rc = edge_check_fixed(&e->from, e, e->next);
    if (rc == CB_OK) rc = edge_check_addresses(&e->from, e, e->next, true);
    if (rc == CB_OK)
        rc = e->only_check ? edge_parts_check(e->next, &e->from) : edge_parts_prepare(e, e->next, &e->from);
    return rc;
}

static void prepare(cb_revisions *r, const cb_revisions_draft *draft, void *user) {
    edge *e = user;
    e->from = (edge_source){
        .name = draft->name, .text = draft->text, .log = e->log, .quiet = draft->how != CB_REVISIONS_FILE};
    e->only_check = draft->dry_run;
    e->by_file = draft->how == CB_REVISIONS_FILE;
    e->answers = 0;
    e->failed = false;
    if (!e->only_check) {
        edge_notify_reloading();
        edge_telemetry_offered(e);
    }
    int rc = make_next(e);
    if (rc < 0) {
        refuse(e, rc);
        return;
    }
    if (e->only_check) {
        cb_revisions_prepared(r, CB_OK);
        return;
    }
    edge_providers_run(e); /* keys may be there before the workers are ready */
    e->workers_told = true;
    for (uint32_t i = 0; i < e->n_workers; i++) {
        if (edge_worker_post_prepare(&e->workers[i], e->next) == CB_OK) continue;
        e->workers[i].where[0] = '\0';
        edge_answer(&e->workers[i], CB_ENOMEM, "a worker cannot be told");
    }
}

static void abort_change(cb_revisions *r, void *user) {
    (void)r;
    undo(user);
}

/* ---- commit ---- */

static void follow_acme(edge *e) {
    if (edge_acme_configure(e->acme, e->now) < 0)
        edge_say_of(e->log, CB_LOG_ERROR, "acme", "cannot begin: %s", cb_last_error());
}

static void all_took_over(edge *e) {
    edge_telemetry_decided(e, EDGE_GOOD, e->by_file);
    edge_notify("READY=1\nSTATUS=serving");
    cb_revisions_committed(e->revisions);
}

static void on_took_over(cb_loop *loop, void *user) {
    edge *e = ((edge_worker *)user)->edge;
    (void)loop;
    if (++e->answers == e->n_workers) all_took_over(e);
}

void edge_took_over(edge_worker *w) {
    cb_loop_post(w->edge->loop, on_took_over, w);
}

/* A worker that cannot be told goes on as it is; the others do not wait for it. */
static void tell_commit(edge *e) {
    e->answers = 0;
    for (uint32_t i = 0; i < e->n_workers; i++) {
        edge_worker *w = &e->workers[i];
        if (cb_loop_post(w->loop, edge_worker_commit, w) == CB_OK) continue;
        edge_say(e->log, CB_LOG_ERROR, "worker %u cannot be told: %s", i, cb_last_error());
        edge_took_over(w);
    }
}

static void commit(cb_revisions *r, const cb_revisions_draft *draft, void *user) {
    edge *e = user;
    edge_snapshot *next = e->next;
    e->next = NULL;
    e->workers_told = false;
    edge_snapshot_certificates(next);
    edge_parts_commit(e, next);
    if (cb_revisions_kept(r)) edge_set_revision(e, draft->revision);
    tell_commit(e);
    edge_snapshot_unref(e->now);
    e->now = next;
    edge_providers_prune(e);
    if (edge_snapshot_settle(e, next) < 0) edge_say(e->log, CB_LOG_ERROR, "no memory to keep an address");
    follow_acme(e);
    if (draft->how != CB_REVISIONS_FILE)
        edge_say(e->log, CB_LOG_INFO, "revision %llu runs", (unsigned long long)draft->revision);
}

const cb_revisions_ops edge_revisions_ops = {
    .size = sizeof edge_revisions_ops, .prepare = prepare, .commit = commit, .abort = abort_change};

/* ---- the file ---- */

typedef struct file_change {
    edge *edge;
    cb_revisions_done done;
    void *user;
} file_change;

static void say_failed(const edge *e, const cb_revisions_result *result) {
    const cb_config_error *m = result->mistakes;
    if (result->step == CB_REVISIONS_MADE && result->n_mistakes)
        edge_say(e->log, CB_LOG_ERROR, "%s:%u:%u: %s", e->file, m->line, m->column, m->text);
    else if (result->step != CB_REVISIONS_PREPARED) /* those mistakes were said as they were found */
        edge_say(e->log, CB_LOG_ERROR, "%s: %s", e->file, cb_last_error());
    edge_say(e->log, CB_LOG_ERROR, "%s was not reloaded: the old configuration goes on", e->file);
}

/* A reload that ended before anything was prepared: who waits for it (systemd) is told, and it is counted. */
static void count_early(edge *e, int rc) {
    edge_telemetry_offered(e);
    edge_telemetry_decided(e, EDGE_BAD, rc != CB_EAGAIN); /* that says nothing of the file */
    if (e->upgrade || !e->serving) return;
    edge_notify_reloading();
    edge_notify("READY=1\nSTATUS=serving");
}

static void on_file_done(int rc, const cb_revisions_result *result, void *user) {
    file_change *f = user;
    edge *e = f->edge;
    if (rc < 0)
        say_failed(e, result);
    else
        edge_say(e->log, CB_LOG_INFO, "reloaded %s", e->file);
    if (f->done) f->done(rc, result, f->user); /* which may want the detail */
    if (rc < 0 && result->step < CB_REVISIONS_PREPARED) count_early(e, rc);
    free(f);
}

static int propose_file(edge *e, cb_revisions_done done, void *user) {
    edge_source from = {.name = e->file, .log = e->log};
    file_change *f = calloc(1, sizeof *f);
    char *text = NULL;
    int rc = f ? edge_source_read(&from, &text, e->file) : cb_error_set(CB_ENOMEM, "no memory for a reload");
    if (rc == CB_OK) {
        *f = (file_change){e, done, user};
        const cb_revisions_change_opts o = {
            .size = sizeof o, .how = CB_REVISIONS_FILE, .body = from.text, .expected = CB_STORE_ANY, .actor = "file"};
        rc = cb_revisions_propose(e->revisions, NULL, &o, on_file_done, f);
    }
    if (rc < 0) free(f);
    free(text);
    return rc;
}

int edge_reload(edge *e, cb_revisions_done done, void *user) {
    int rc = e->stopping ? cb_error_set(CB_EAGAIN, "this process drains") : CB_OK;
    if (rc == CB_OK && (e->upgrade || !e->serving))
        rc = cb_error_set(CB_EAGAIN, "an upgrade is under way, and reads it anyway");
    if (rc == CB_OK) edge_state_retry(e);
    if (rc == CB_OK) rc = propose_file(e, done, user);
    if (rc == CB_OK || e->stopping) return rc;
    edge_say(e->log, CB_LOG_ERROR, "%s was not reloaded: %s: the old configuration goes on", e->file, cb_last_error());
    count_early(e, rc);
    return rc;
}

static void on_signal_done(int rc, const cb_revisions_result *result, void *user) {
    edge *e = user;
    (void)rc;
    (void)result;
    e->reloads = false;
    if (!e->again) return;
    e->again = false;
    edge_on_reload(e->loop, e);
}

/* SIGHUP. One that comes in the middle is one more when that has ended. */
void edge_on_reload(cb_loop *loop, void *user) {
    edge *e = user;
    (void)loop;
    if (e->reloads)
        e->again = true;
    else
        e->reloads = edge_reload(e, on_signal_done, e) == CB_OK;
}
