/* Keeps a certificate fresh: waits on the loop, renews on another thread, reloads the identity. */
#include "auth/ca_int.h"
#include "auth/renew_time.h"
#include "base/error.h"
#include "base/mem.h"
#include "base/opts.h"
#include "loop/work.h"
#include <cb/renewal.h>
#include <stdio.h>
#include <string.h>

enum { RETRY_S = 60, RETRY_MAX_S = 3600, LOOK_AGAIN_S = 3600, DETAIL = 512 };

static const cb_alloc *const heap = &cb_alloc_libc;

/* What does not change; the renewal and the attempt that is under way hold it. */
typedef struct plan {
    unsigned refs;
    char *ca_dir, *cert_file, *key_file, *ocsp_file, *stem;
    char **names; /* and behind them the URIs */
    cb_leaf_opts leaf;
    bool has_leaf;
    cb_identity *identity;
} plan;

/* One attempt. Its own from start to end, for it may outlive the renewal. */
typedef struct attempt {
    cb_renewal *owner; /* looked at by done(), which does not come when that is gone */
    plan *plan;
    bool if_due;
    int rc;
    char detail[DETAIL];
    cb_renew_result result;
} attempt;

struct cb_renewal {
    cb_loop *loop;
    const cb_log *log;
    plan *plan;
    cb_alarm alarm;
    cb_work *work; /* NULL = nothing is under way */
    void (*on_done)(cb_renewal *r, int rc, void *user);
    void *user;
    uint32_t retry_s, retry_max_s;
    cb_renewal_status status;
};

/* --- the plan --- */

static void plan_unref(plan *p) {
    if (!p || --p->refs > 0) return;
    for (size_t i = 0; p->names && i < p->leaf.names_len + p->leaf.uris_len; i++) {
        cb_mem_free(heap, p->names[i]);
    }
    cb_mem_free(heap, p->names);
    cb_mem_free(heap, p->ca_dir);
    cb_mem_free(heap, p->cert_file);
    cb_mem_free(heap, p->key_file);
    cb_mem_free(heap, p->ocsp_file);
    cb_mem_free(heap, p->stem);
    cb_identity_unref(p->identity);
    cb_mem_free(heap, p);
}

static bool copy(char **to, const char *text) {
    *to = cb_mem_text(heap, text);
    return *to || !text;
}

static int copy_leaf(plan *p, const cb_leaf_opts *from) {
    cb_leaf_opts o;
    int rc = cb_opts_read(&o, sizeof o, from, "cb_leaf_opts");
    if (rc < 0) return rc;
    if ((o.names_len && !o.names) || (o.uris_len && !o.uris)) return cb_fail(CB_EINVAL, "cb_leaf_opts: names are NULL");
    p->leaf = o;
    p->has_leaf = true;
    size_t n = o.names_len + o.uris_len;
    bool whole = (p->names = cb_mem_new(heap, (n + 1) * sizeof *p->names)) != NULL && copy(&p->stem, o.file_stem);
    for (size_t i = 0; whole && i < n; i++) {
        whole = copy(&p->names[i], i < o.names_len ? o.names[i] : o.uris[i - o.names_len]);
    }
    p->leaf.size = sizeof p->leaf;
    p->leaf.names = (const char *const *)p->names;
    p->leaf.uris = p->names ? (const char *const *)p->names + o.names_len : NULL;
    p->leaf.file_stem = p->stem;
    return whole ? CB_OK : cb_fail(CB_ENOMEM, "no memory for a renewal");
}

static int plan_new(plan **out, const cb_renewal_opts *o) {
    cb_renew_opts what;
    int rc = cb_opts_read(&what, sizeof what, o->renew, "cb_renew_opts");
    if (rc < 0) return rc;
    if (!what.cert_file || !*what.cert_file) return cb_fail(CB_EINVAL, "cb_renew_opts: no cert_file");
    plan *p = cb_mem_new(heap, sizeof *p);
    if (!p) return cb_fail(CB_ENOMEM, "no memory for a renewal");
    p->refs = 1;
    if (!copy(&p->ca_dir, o->ca_dir) || !copy(&p->cert_file, what.cert_file) || !copy(&p->key_file, what.key_file) ||
        !copy(&p->ocsp_file, what.ocsp_file)) {
        rc = cb_fail(CB_ENOMEM, "no memory for a renewal");
    }
    if (rc >= 0 && what.leaf) rc = copy_leaf(p, what.leaf);
    if (rc < 0) {
        plan_unref(p);
        return rc;
    }
    p->identity = o->identity ? cb_identity_ref(o->identity) : NULL;
    *out = p;
    return CB_OK;
}

/* --- an attempt --- */

static void attempt_run(void *job) {
    attempt *a = job;
    const plan *p = a->plan;
    cb_ca *ca = NULL;
    a->rc = cb_ca_open(&ca, CB_OPTS(cb_ca_opts, .dir = p->ca_dir, .mode = CB_CA_OPEN));
    if (a->rc >= 0) {
        a->rc =
            cb_ca_renew(ca,
                        CB_OPTS(cb_renew_opts, .cert_file = p->cert_file, .key_file = p->key_file,
                                .leaf = p->has_leaf ? &p->leaf : NULL, .if_due = a->if_due, .ocsp_file = p->ocsp_file),
                        &a->result);
    }
    if (a->rc >= 0 && (a->result.renewed || a->result.stapled) && p->identity) a->rc = cb_identity_reload(p->identity);
    if (a->rc < 0) snprintf(a->detail, sizeof a->detail, "%s", cb_last_error());
    if (!ca) cb_renew_dates(p->cert_file, &a->result);
    cb_ca_free(ca);
}

static void attempt_drop(void *job) {
    attempt *a = job;
    plan_unref(a->plan);
    cb_mem_free(heap, a);
}

static int64_t wall_s(const cb_renewal *r) {
    return (int64_t)(cb_loop_wall(r->loop) / CB_SEC);
}

static uint32_t spread(cb_renewal *r) {
    uint32_t n = 0;
    (void)cb_loop_random(r->loop, &n, sizeof n);
    return n;
}

/* When to look again. A certificate that lives for seconds only would be due at once for ever: half of what is left of
 * it is waited for at least. */
static void schedule(cb_renewal *r) {
    cb_renewal_status *s = &r->status;
    int64_t now = wall_s(r), wait = s->next_s - now;
    if (s->failures) {
        wait = cb_renew_wait(s->failures, r->retry_s, r->retry_max_s, spread(r));
    } else if (wait < (s->not_after_s - now) / 2 && s->next_s <= now) {
        wait = (s->not_after_s - now) / 2;
    }
    if (wait < 1) wait = 1;
    s->next_s = now + wait;
    if (wait > LOOK_AGAIN_S) wait = LOOK_AGAIN_S; /* clocks are set, and files change */
    (void)cb_alarm_set(&r->alarm, cb_loop_now(r->loop) + (cb_time)wait * CB_SEC);
}

static void attempt_done(void *job) {
    attempt *a = job;
    cb_renewal *r = a->owner;
    cb_renewal_status *s = &r->status;
    r->work = NULL;
    s->error = a->rc;
    s->failures = a->rc < 0 ? s->failures + 1 : 0;
    if (a->result.not_after_s) {
        s->not_before_s = a->result.not_before_s;
        s->not_after_s = a->result.not_after_s;
        s->next_s = a->result.renew_at_s;
    }
    if (a->result.renewed) s->renewed++;
    schedule(r);
    int64_t left = s->not_after_s - wall_s(r);
    if (a->rc < 0) {
        cb_fail(a->rc, "%s", a->detail);
        cb_log_line(r->log, left > 0 ? CB_LOG_WARN : CB_LOG_ERROR, "renewal",
                    "%s was not renewed (failure %u; it %s; the next attempt comes in %lld s): %s", r->plan->cert_file,
                    s->failures, left > 0 ? "is still valid" : "has expired or is not there",
                    (long long)(s->next_s - wall_s(r)), a->detail);
    } else if (a->result.renewed) {
        cb_log_line(r->log, CB_LOG_INFO, "renewal", "%s was renewed and expires in %lld s", r->plan->cert_file,
                    (long long)left);
    }
    if (r->on_done && (a->rc < 0 || a->result.renewed)) r->on_done(r, a->rc, r->user); /* may free r */
}

static int begin(cb_renewal *r, bool if_due) {
    static const cb_work_ops ops = {attempt_run, attempt_done, attempt_drop};
    attempt *a = cb_mem_new(heap, sizeof *a);
    if (!a) return cb_fail(CB_ENOMEM, "no memory for a renewal");
    a->owner = r;
    a->plan = r->plan;
    a->if_due = if_due;
    a->result.size = sizeof a->result;
    int rc = cb_work_start(&r->work, r->loop, &ops, a);
    if (rc < 0) {
        cb_mem_free(heap, a);
        return rc;
    }
    r->plan->refs++;
    return CB_OK;
}

static void on_alarm(cb_alarm *alarm, cb_time now) {
    cb_renewal *r = CB_CONTAINER(alarm, cb_renewal, alarm);
    (void)now;
    if (r->work || begin(r, true) >= 0) return;
    r->status.failures++;
    r->status.error = CB_ENOMEM;
    schedule(r);
}

/* --- the object --- */

int cb_renewal_new(cb_renewal **out, cb_loop *loop, const cb_renewal_opts *opts) {
    if (!out || !loop) return cb_fail(CB_EINVAL, "cb_renewal_new: out or loop is NULL");
    cb_renewal_opts o;
    plan *p = NULL;
    int rc = cb_opts_read(&o, sizeof o, opts, "cb_renewal_opts");
    if (rc >= 0) rc = cb_loop_needs_kernel(loop, "renewal");
    if (rc < 0) return rc;
    if (!o.ca_dir || !*o.ca_dir) return cb_fail(CB_EINVAL, "cb_renewal_opts: no ca_dir");
    if (!o.renew) return cb_fail(CB_EINVAL, "cb_renewal_opts: no renew");
    if ((rc = plan_new(&p, &o)) < 0) return rc;
    cb_renewal *r = cb_mem_new(heap, sizeof *r);
    if (!r) {
        plan_unref(p);
        return cb_fail(CB_ENOMEM, "no memory for a renewal");
    }
    r->loop = loop;
    r->plan = p;
    r->log = o.log ? o.log : cb_loop_log(loop);
    r->on_done = o.on_done;
    r->user = o.user;
    r->retry_s = o.retry_s ? o.retry_s : RETRY_S;
    r->retry_max_s = o.retry_max_s ? o.retry_max_s : RETRY_MAX_S;
    r->status.size = sizeof r->status;
    cb_alarm_init(&r->alarm, loop, on_alarm);
    rc = cb_alarm_set(&r->alarm, cb_loop_now(loop));
    if (rc < 0) {
        cb_renewal_free(r);
        return cb_fail(rc, "no memory for a renewal");
    }
    *out = r;
    return CB_OK;
}

int cb_renewal_now(cb_renewal *r) {
    if (!r) return cb_fail(CB_EINVAL, "cb_renewal_now: r is NULL");
    if (r->work) return cb_fail(CB_EAGAIN, "a renewal is under way");
    cb_alarm_stop(&r->alarm);
    int rc = begin(r, false);
    if (rc < 0) schedule(r);
    return rc;
}

int cb_renewal_status_get(const cb_renewal *r, cb_renewal_status *out) {
    if (!r) return cb_fail(CB_EINVAL, "cb_renewal_status_get: r is NULL");
    return cb_stats_give(out, &r->status, sizeof r->status, "cb_renewal_status");
}

void cb_renewal_free(cb_renewal *r) {
    if (!r) return;
    cb_alarm_stop(&r->alarm);
    cb_work_forget(r->work);
    plan_unref(r->plan);
    cb_mem_free(heap, r);
}
