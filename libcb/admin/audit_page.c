/* GET /v1/audit: pages of the audit log, the latest first. Files are read and verified on another thread, one page at a
 * time. */
#include "admin/admin_int.h"
#include "auth/audit_set.h"
#include "base/error.h"
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FILTER_BYTES = CB_AUDIT_TEXT_MAX + 1 };

typedef struct reading {
    cb_admin_call *call; /* NULL: the admin is gone */
    cb_admin *a;
    char path[CB_AUDIT_PATH]; /* a copy: the log may be gone before we are */
    char actor[FILTER_BYTES], action[FILTER_BYTES];
    int outcome;
    int64_t since_us;
    uint64_t before; /* records with lower numbers; 0 = all */
    char **lines;    /* a ring of `limit`: the last that fit */
    uint64_t *numbers;
    size_t limit, seen;
    int rc;
    atomic_bool stop; /* a long log shall not hold up the end of a loop */
    cb_audit_report report;
    char why[256];
} reading;

static bool same(cb_slice text, const char *filter) {
    return !*filter || (text.len == strlen(filter) && memcmp(text.base, filter, text.len) == 0);
}

static int on_record(const cb_audit_record *record, void *user) {
    reading *r = user;
    char line[CB_AUDIT_LINE_MAX];
    if (atomic_load_explicit(&r->stop, memory_order_relaxed)) return cb_fail(CB_ECLOSED, "nobody waits for it");
    if (r->before && record->seq >= r->before) return CB_OK;
    if (record->time_us < r->since_us || (r->outcome && record->outcome != r->outcome)) return CB_OK;
    if (!same(record->actor, r->actor) || !same(record->action, r->action)) return CB_OK;
    const int n = cb_audit_line(line, sizeof line, record, CB_AUDIT_JSON, NULL);
    if (n < 0) return n;
    char *kept = cb_mem_text(&cb_alloc_libc, line);
    if (!kept) return cb_fail(CB_ENOMEM, "a page of the audit log");
    const size_t at = r->seen++ % (r->limit + 1); /* one more than a page: is there another? */
    cb_mem_free(&cb_alloc_libc, r->lines[at]);
    r->lines[at] = kept;
    r->numbers[at] = record->seq;
    return CB_OK;
}

static void run(void *job) {
    reading *r = job;
    r->report.size = sizeof r->report;
    r->rc = cb_audit_verify(r->path, CB_OPTS(cb_audit_verify_opts, .on_record = on_record, .user = r), &r->report);
    if (r->rc < 0) snprintf(r->why, sizeof r->why, "%s", cb_last_error());
}

static void answer(reading *r) {
    const size_t have = r->seen < r->limit + 1 ? r->seen : r->limit + 1;
    const size_t n = have < r->limit ? have : r->limit;
    char next[24] = "";
    cb_json_out *o = cb_admin_json(r->call);
    cb_admin_page_begin(r->call);
    for (size_t i = 0; i < n; i++) {
        const size_t at = (r->seen - 1 - i) % (r->limit + 1);
        cb_json_put_raw(o, NULL, cb_slice_str(r->lines[at]));
        snprintf(next, sizeof next, "%llu", (unsigned long long)r->numbers[at]);
    }
    (void)cb_admin_page_end(r->call, have > r->limit ? next : NULL);
}

static void done(void *job) {
    reading *r = job;
    if (!r->call) return;
    r->a->reading = NULL;
    if (r->rc < 0)
        (void)cb_admin_problemf(r->call, 500, "the audit log: %s", r->why);
    else
        answer(r);
}

static void drop(void *job) {
    reading *r = job;
    for (size_t i = 0; r->lines && i < r->limit + 1; i++)
        cb_mem_free(&cb_alloc_libc, r->lines[i]);
    cb_mem_free(&cb_alloc_libc, r->lines);
    cb_mem_free(&cb_alloc_libc, r->numbers);
    cb_mem_free(&cb_alloc_libc, r);
}

static void on_end(cb_admin_call *c, void *user) {
    (void)c;
    reading *r = user;
    r->call = NULL;
    atomic_store_explicit(&r->stop, true, memory_order_relaxed);
}

/* False: the call was answered. */
static bool read_filters(cb_admin_call *c, reading *r) {
    static const char *const outcomes[] = {"done", "denied", "failed"};
    const char *actor = cb_admin_query(c, "actor"), *action = cb_admin_query(c, "action");
    const char *outcome = cb_admin_query(c, "outcome"), *cursor = cb_admin_cursor(c);
    uint64_t since = 0;
    if (cb_admin_query_uint(c, "since", INT64_MAX / 1000000, &since) == CB_EINVAL) return false;
    if ((actor && strlen(actor) >= FILTER_BYTES) || (action && strlen(action) >= FILTER_BYTES)) {
        (void)cb_admin_problem(c, 400, "actor, action: too long");
        return false;
    }
    for (int i = 0; outcome && i < 3; i++)
        if (strcmp(outcome, outcomes[i]) == 0) r->outcome = i + 1;
    char *end = NULL;
    if (cursor) r->before = strtoull(cursor, &end, 10);
    if ((outcome && !r->outcome) || (cursor && (*end || !r->before))) {
        (void)cb_admin_problem(
            c, 400, cursor && !r->before ? "cursor: this is none that a page gave" : "outcome: done, denied or failed");
        return false;
    }
    snprintf(r->actor, sizeof r->actor, "%s", actor ? actor : "");
    snprintf(r->action, sizeof r->action, "%s", action ? action : "");
    r->since_us = (int64_t)since * 1000000;
    return true;
}

static int get_audit(cb_admin_call *c, void *user) {
    static const cb_work_ops ops = {run, done, drop};
    cb_admin *a = user;
    if (!a->o.audit) return cb_admin_problem(c, 503, "the audit log is not open");
    if (a->reading) return cb_admin_problem(c, 503, "another page of the audit log is being read");
    reading *r = cb_mem_new(&cb_alloc_libc, sizeof *r);
    if (!r) return cb_fail(CB_ENOMEM, "a page of the audit log");
    r->call = c;
    r->a = a;
    snprintf(r->path, sizeof r->path, "%s", cb_audit_path(a->o.audit));
    r->limit = cb_admin_limit(c);
    r->lines = cb_mem_new(&cb_alloc_libc, (r->limit + 1) * sizeof *r->lines);
    r->numbers = cb_mem_new(&cb_alloc_libc, (r->limit + 1) * sizeof *r->numbers);
    int rc = r->lines && r->numbers ? CB_OK : cb_fail(CB_ENOMEM, "a page of the audit log");
    if (rc == CB_OK && !read_filters(c, r)) rc = 1;
    if (rc == CB_OK) rc = cb_work_start(&a->reading, a->loop, &ops, r);
    if (rc == CB_OK)
        cb_admin_call_on_end(c, on_end, r);
    else
        drop(r);
    return rc;
}

int cb_admin_builtin_audit(cb_admin *a) {
    static const cb_admin_query_param query[] = {
        {"actor", "Only of this one.", NULL},
        {"action", "Only this: the operationId of a change.", NULL},
        {"outcome", "Only these.", "{\"enum\":[\"done\",\"denied\",\"failed\"]}"},
        {"since", "Only from then on, in seconds since 1970.", "{\"type\":\"integer\",\"minimum\":0}"}};
    static const cb_admin_resource row = {.size = sizeof row,
                                          .method = "GET",
                                          .path = "/v1/audit",
                                          .id = "getAudit",
                                          .summary = "Records of the audit log, the latest first",
                                          .rights = CB_RIGHT_AUDIT,
                                          .flags = CB_ADMIN_PAGES,
                                          .query = query,
                                          .n_query = sizeof query / sizeof *query,
                                          .handle = get_audit};
    return cb_admin_router_add(&a->router, &row, a, NULL);
}
