/* What is kept of configurations: a store of revisions in admin.state_dir, and what of it runs at a start. */
#include "telemetry.h"
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { KEEP = 1000 };

int edge_state_check(const char *folder) {
    char why[PATH_MAX + 100];
    struct stat st;
    if (stat(folder, &st) < 0 || !(st.st_mode & (S_IWGRP | S_IWOTH))) return CB_OK;
    snprintf(why, sizeof why, "%s: others may write there, and what it has would run (mode %03o): chmod 700", folder,
             st.st_mode & 07777u);
    return cb_error_set(CB_EPERM, why);
}

void edge_state_warn(const char *folder, const edge_source *from) {
    const char *slash = strrchr(folder, '/');
    char above[PATH_MAX];
    struct stat st;
    if (edge_state_check(folder) < 0)
        edge_warn(from, cb_last_error(), "/admin/state_dir");
    else if (stat(folder, &st) == 0 && !S_ISDIR(st.st_mode))
        edge_warn(from, "it is no directory, so only the file will change anything", "/admin/state_dir");
    if (stat(folder, &st) == 0 || !slash || slash == folder) return;
    snprintf(above, sizeof above, "%.*s", (int)(slash - folder), folder);
    if (stat(above, &st) < 0)
        edge_warn(from, "the directory that it is to be made in is not there, so only the file will change anything",
                  "/admin/state_dir");
}

static int open_store(edge *e) {
    char path[PATH_MAX], why[PATH_MAX + 100];
    if (snprintf(path, sizeof path, "%s/revisions", e->state_dir) >= (int)sizeof path)
        return cb_error_set(CB_EINVAL, "its name is too long");
    if (mkdir(e->state_dir, 0700) < 0 && errno != EEXIST) {
        snprintf(why, sizeof why, "%s: %s", e->state_dir, strerror(errno));
        return cb_error_set(CB_ESYS, why);
    }
    int rc = edge_state_check(e->state_dir);
    if (rc == CB_OK)
        rc = cb_store_open(&e->store, CB_OPTS(cb_store_file_opts, .path = path, .keep = KEEP, .log = e->log));
    if (rc == CB_OK && cb_store_metrics(e->store, edge_metrics(e), "revisions") < 0)
        edge_say(e->log, CB_LOG_WARN, "the store of revisions is not counted: %s", cb_last_error());
    return rc;
}

static void say_closed(const edge *e) {
    edge_say(e->log, CB_LOG_ERROR, "/admin/state_dir: %s: the configuration can only be changed by its file",
             cb_last_error());
}

/* Of a file that may have other mistakes: with it they do no harm. */
static char *state_dir_of(cb_slice text) {
    cb_document *d = NULL;
    const char *dir = NULL;
    if (text.base && cb_document_parse(&d, text, NULL) == CB_OK) dir = cb_document_string(d, "/admin/state_dir");
    char *copy = dir && *dir ? strdup(dir) : NULL;
    cb_document_free(d);
    return copy;
}

static int try_draft(const cb_revisions_draft *draft, void *user) {
    edge *e = user;
    edge_source from = {.name = draft->name, .text = draft->text};
    edge_snapshot *s = NULL;
    int rc = edge_snapshot_load(&s, &from, e);
    if (rc == CB_OK) rc = edge_check_addresses(&from, e, s, false);
    if (rc < 0)
        edge_snapshot_unref(s);
    else
        e->now = s;
    return rc;
}

int edge_state_begin(edge *e) {
    static const char *const fixed[] = {"admin"};
    edge_source from = {.name = e->file};
    char *text = NULL;
    int rc = edge_source_read(&from, &text, e->file);
    if (rc < 0) return rc; /* where the revisions are stands in it */
    e->state_dir = state_dir_of(from.text);
    if (e->state_dir && open_store(e) < 0) say_closed(e);
    rc = cb_revisions_new(&e->revisions, e->loop,
                          CB_OPTS(cb_revisions_opts, .store = e->store, .file = e->file, .fixed = fixed, .n_fixed = 1,
                                  .ops = &edge_revisions_ops, .user = e, .log = e->log));
    if (rc == CB_OK) rc = cb_revisions_begin(e->revisions, from.text, try_draft, e);
    free(text);
    return rc;
}

void edge_state_begun(edge *e) {
    if (cb_revisions_begun(e->revisions) < 0)
        edge_say(e->log, CB_LOG_ERROR, "%s runs, but is no revision: %s", e->file, cb_last_error());
    if (!e->store) return;
    const uint64_t number = cb_revisions_number(e->revisions);
    if (!number) return;
    edge_set_revision(e, number);
    edge_say(e->log, CB_LOG_INFO, "revision %llu runs", (unsigned long long)number);
}

/* The store's file was removed, or its folder. */
static bool is_lost(const edge *e) {
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/revisions", e->state_dir);
    return e->store && access(path, F_OK) < 0 && errno == ENOENT;
}

void edge_state_retry(edge *e) {
    if (!e->state_dir || cb_revisions_busy(e->revisions)) return;
    const bool lost = is_lost(e) && cb_revisions_use(e->revisions, NULL) == CB_OK;
    if (lost) edge_state_close(e); /* and the audit log, which was beside it */
    if (e->store) return;
    if (open_store(e) < 0 || cb_revisions_use(e->revisions, e->store) < 0) say_closed(e);
    if (lost) edge_admin_take_back(e);
}

/* ---- one process after the other: only one may write ---- */

void edge_state_pause(edge *e) {
    cb_revisions_hold(e->revisions, 1);
    (void)cb_revisions_use(e->revisions, NULL); /* none is under way: an upgrade has looked */
}

void edge_state_close(edge *e) {
    edge_admin_lend(e);
    cb_store_free(e->store);
    e->store = NULL;
}

void edge_state_resume(edge *e) {
    cb_revisions_hold(e->revisions, 0);
    edge_admin_take_back(e);
    if (e->stopping || !e->state_dir) return;
    int rc = e->store ? CB_OK : open_store(e);
    if (rc == CB_OK) rc = cb_revisions_use(e->revisions, e->store);
    if (rc < 0) say_closed(e);
    if (rc == 1) edge_on_reload(e->loop, e); /* the successor has written one before it failed */
}

void edge_state_free(edge *e) {
    edge_state_close(e);
    free(e->state_dir);
}
