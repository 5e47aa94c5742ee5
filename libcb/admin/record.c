/* The audit log: a record for each change and each denial, on its way while the call waits. */
#include "admin/admin_int.h"
#include "base/error.h"
#include <gnutls/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BURST = 5 };

/* Outlives its call: the log's thread tells when it wants to. */
typedef struct cb_admin_recording {
    cb_admin_call *call; /* NULL: it is gone */
    cb_admin_recorded done;
} recording;

static void tell(recording *r, int rc) {
    cb_admin_call *c = r->call;
    const cb_admin_recorded done = r->done;
    cb_mem_free(&cb_alloc_libc, r);
    if (!c) return;
    c->recording = NULL;
    done(c, rc);
    cb_admin_call_settle(c);
}

static void on_durable(int rc, uint64_t seq, void *user) {
    (void)seq;
    tell(user, rc);
}

static void without(cb_loop *loop, void *user) {
    (void)loop;
    tell(user, CB_OK);
}

static cb_slice cut(cb_slice text, size_t max) {
    return (cb_slice){text.base, text.len < max ? text.len : max};
}

static cb_slice text_or(const char *text, const char *other, size_t max) {
    return cut(cb_slice_str(text && *text ? text : other), max);
}

static int append(cb_admin_call *c, int outcome, const cb_admin_change *change, recording *r) {
    char detail[256];
    uint8_t hash[CB_AUDIT_HASH];
    const cb_slice method = c->row ? cb_admin_method(c) : cb_slice_str("");
    const int n = snprintf(detail, sizeof detail, "%.*s at %.120s", (int)method.len, (const char *)method.base,
                           c->who.p.door ? c->who.p.door : cb_http_server_address(c->door->srv));
    const size_t used = (size_t)n < sizeof detail ? (size_t)n : sizeof detail - 1;
    if (c->answered) snprintf(detail + used, sizeof detail - used, ": %d", c->status);
    cb_audit_record record = {.size = sizeof record,
                              .time_us = (int64_t)(cb_loop_wall(c->a->loop) / 1000),
                              .actor = text_or(c->who.p.name, "unknown", CB_AUDIT_TEXT_MAX),
                              .tenant = text_or(c->who.p.tenant, "-", CB_AUDIT_TEXT_MAX),
                              .action = text_or(c->row ? c->row->r.id : NULL, "request", CB_AUDIT_TEXT_MAX),
                              .object = text_or(c->target.path, "/", CB_AUDIT_OBJECT_MAX),
                              .detail = cb_slice_str(detail),
                              .outcome = outcome};
    if (change && change->object.len) record.object = cut(change->object, CB_AUDIT_OBJECT_MAX);
    if (change && change->detail.len) record.detail = cut(change->detail, CB_AUDIT_DETAIL_MAX);
    if (change) record.before = change->before, record.after = change->after;
    if (!change && c->body.len && gnutls_hash_fast(GNUTLS_DIG_SHA256, c->body.base, c->body.len, hash) == 0)
        record.after = (cb_slice){hash, sizeof hash};
    return cb_audit_append_loop(c->a->o.audit, &record, c->a->loop, on_durable, r);
}

int cb_admin_record(cb_admin_call *c, int outcome, const cb_admin_change *change, cb_admin_recorded done) {
    if (!c->a->o.audit && c->a->o.needs_audit) return cb_fail(CB_ESYS, "it is not open");
    recording *r = cb_mem_new(&cb_alloc_libc, sizeof *r);
    if (!r) return cb_fail(CB_ENOMEM, "an audit record");
    *r = (recording){.call = c, .done = done};
    const int rc = c->a->o.audit ? append(c, outcome, change, r) : cb_loop_post(c->a->loop, without, r);
    if (rc < 0)
        cb_mem_free(&cb_alloc_libc, r);
    else
        c->recording = r;
    return rc;
}

void cb_admin_record_forget(cb_admin_call *c) {
    if (c->recording) c->recording->call = NULL;
    c->recording = NULL;
}

/* ---- commits of resources ---- */

static void on_committed(cb_admin_call *c, int rc) {
    const cb_admin_committed done = c->committed;
    if (rc == CB_OK)
        c->recorded = true;
    else
        (void)cb_admin_problemf(c, 507, "the audit log cannot be written, so nothing is changed: %s", cb_last_error());
    done(c, rc, c->committed_user);
}

static void refused(cb_loop *loop, void *user) {
    (void)loop;
    const cb_admin_call *c = ((recording *)user)->call;
    const bool open = !c || c->a->o.audit;
    tell(user, cb_fail(CB_ESYS, open ? "the queue of the audit log is full" : "it is not open"));
}

int cb_admin_commit(cb_admin_call *c, const cb_admin_change *change, cb_admin_committed done, void *user) {
    if (!done) return cb_fail(CB_EINVAL, "cb_admin_commit: done is NULL");
    if (!(c->row->r.flags & CB_ADMIN_COMMITS) || c->dry_run || c->committed || c->answered)
        return cb_fail(CB_EINVAL, "cb_admin_commit: once, by a resource that commits, and not in a dry run");
    c->committed = done;
    c->committed_user = user;
    const int rc = cb_admin_record(c, CB_AUDIT_DONE, change, on_committed);
    if (rc == CB_OK) return CB_OK;
    recording *r = cb_mem_new(&cb_alloc_libc, sizeof *r); /* told later all the same */
    if (!r) return cb_fail(CB_ENOMEM, "an audit record");
    *r = (recording){.call = c, .done = on_committed};
    const int posted = cb_loop_post(c->a->loop, refused, r);
    if (posted < 0)
        cb_mem_free(&cb_alloc_libc, r);
    else
        c->recording = r;
    return posted;
}

/* ---- denials: whoever knocks a thousand times a second shall not fill the disk ---- */

static void refill(cb_admin *a) {
    const cb_time now = cb_loop_now(a->loop);
    const double most = (double)a->o.denials_per_s * BURST;
    a->tokens += (double)(now - a->tokens_at) / (double)CB_SEC * a->o.denials_per_s;
    if (a->tokens > most) a->tokens = most;
    a->tokens_at = now;
}

static void on_denials(cb_alarm *alarm, cb_time now) {
    cb_admin *a = CB_CONTAINER(alarm, cb_admin, denials);
    char detail[80];
    (void)now;
    snprintf(detail, sizeof detail, "%llu further denials were not recorded", (unsigned long long)a->denied);
    const cb_audit_record record = {.size = sizeof record,
                                    .time_us = (int64_t)(cb_loop_wall(a->loop) / 1000),
                                    .actor = cb_slice_str(a->name),
                                    .tenant = cb_slice_str("-"),
                                    .action = cb_slice_str("denials"),
                                    .detail = cb_slice_str(detail),
                                    .outcome = CB_AUDIT_DENIED};
    if (a->o.audit && cb_audit_append(a->o.audit, &record, NULL, NULL) == CB_OK)
        a->denied = 0;
    else
        (void)cb_alarm_set(&a->denials, cb_loop_now(a->loop) + CB_SEC);
}

void cb_admin_denials_init(cb_admin *a) {
    cb_alarm_init(&a->denials, a->loop, on_denials);
    a->tokens = (double)a->o.denials_per_s * BURST;
    a->tokens_at = cb_loop_now(a->loop);
}

bool cb_admin_may_record_denial(cb_admin *a) {
    if (!a->o.audit) return false;
    refill(a);
    if (a->tokens >= 1) {
        a->tokens -= 1;
        return true;
    }
    if (a->denied++ == 0) (void)cb_alarm_set(&a->denials, cb_loop_now(a->loop) + CB_SEC);
    return false;
}
