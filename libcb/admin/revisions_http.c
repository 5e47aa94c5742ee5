/* Changes of the configuration over HTTP. */
#include "admin/revisions_http.h"
#include "admin/admin_int.h"
#include "base/error.h"
#include "base/opts.h"
#include "config/document.h"
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HASH = 32, DETAIL = 400 };
static const cb_alloc *const heap = &cb_alloc_libc;

/* A call that waits for its change. */
typedef struct waiting {
    cb_revisions_http *h;
    cb_admin_call *call;
    cb_revisions_change *change;
    int32_t how;
    bool answered; /* by the audit log, which could not write */
} waiting;

void cb_revisions_tag(char out[CB_REVISIONS_TAG], const cb_revisions *r) {
    snprintf(out, CB_REVISIONS_TAG, "\"%" PRIu64 "\"", r->number);
}

int cb_revisions_pointer(char out[CB_REVISIONS_POINTER], const cb_admin_call *call) {
    const char *path = cb_admin_param(call, "path");
    const int n = snprintf(out, CB_REVISIONS_POINTER, "%s%s", path ? "/" : "", path ? path : "");
    return n < CB_REVISIONS_POINTER ? CB_OK : cb_fail(CB_EINVAL, "the path is too long");
}

uint64_t cb_revisions_number_of(cb_admin_call *call) {
    const char *text = cb_admin_param(call, "n");
    char *end = NULL;
    const uint64_t n = text && *text >= '1' && *text <= '9' && strlen(text) < 20 ? strtoull(text, &end, 10) : 0;
    if (n && !*end) return n;
    (void)cb_admin_problem(call, 404, "revisions are numbers, from 1");
    return 0;
}

/* ---- what a change was, for audit ---- */

static int hash_of(uint8_t out[HASH], const cb_document *d) {
    char *text = NULL;
    int rc = cb_document_text(&text, d, "", CB_DOCUMENT_COMPACT);
    if (rc == CB_OK && gnutls_hash_fast(GNUTLS_DIG_SHA256, text, strlen(text), out) < 0)
        rc = cb_fail(CB_ESYS, "SHA-256 is not to be had");
    cb_config_text_free(text);
    return rc;
}

typedef struct list {
    char text[DETAIL];
    size_t len;
    uint32_t n;
} list;

static void name_difference(const cb_document_change *c, void *user) {
    list *l = user;
    l->n++;
    if (l->len + 1 >= sizeof l->text) return;
    const int n = snprintf(l->text + l->len, sizeof l->text - l->len, "%s%s %s", l->len ? ", " : "",
                           !c->before ? "added"
                           : c->after ? "changed"
                                      : "removed",
                           *c->pointer ? c->pointer : "all");
    l->len += n > 0 ? (size_t)n : 0;
}

static void on_recorded(cb_admin_call *call, int rc, void *user) {
    waiting *w = user;
    (void)call;
    w->answered = rc < 0;
    cb_revisions_agree(w->change, rc);
}

static void agree(cb_revisions_change *c, const cb_document *before, const cb_document *after, void *user) {
    waiting *w = user;
    uint8_t was[HASH], is[HASH];
    list l = {.len = 0};
    int rc = hash_of(was, before);
    if (rc == CB_OK) rc = hash_of(is, after);
    if (rc == CB_OK) rc = cb_document_diff(before, after, name_difference, &l);
    if (rc == CB_OK)
        rc = cb_admin_commit(
            w->call,
            CB_OPTS(cb_admin_change, .detail = cb_slice_str(l.text), .before = {was, HASH}, .after = {is, HASH}),
            on_recorded, w);
    if (rc < 0) cb_revisions_agree(c, rc);
}

static int allow(const cb_document_change *c, const cb_document *before, const cb_document *after, void *user) {
    const waiting *w = user;
    const cb_revisions_admin_opts *o = &w->h->o;
    const cb_admin_principal *who = cb_admin_who(w->call);
    if (who->rights & CB_RIGHT_CHANGE) return CB_OK;
    if (!o->allow) return cb_fail(CB_EPERM, "nothing may be changed by who asks");
    return o->allow(who, c, before, after, o->user);
}

static int see(cb_document *copy, void *user) {
    const waiting *w = user;
    const cb_revisions_admin_opts *o = &w->h->o;
    if (!o->show) return cb_fail(CB_EPERM, "nothing of the configuration may be seen by who asks");
    return o->show(cb_admin_who(w->call), copy, o->user);
}

/* ---- answers ---- */

static int status_of(int rc, int step, int how) {
    if (rc == CB_EAGAIN) return 503;
    if (rc == CB_ENOMEM) return 503;
    switch (step) {
    case CB_REVISIONS_MADE:
        if (rc == CB_ENOENT) return how == CB_REVISIONS_PATCH ? 409 : 404;
        if (rc == CB_EEXIST) return 409;
        return rc == CB_EINVAL ? 400 : rc == CB_ELIMIT ? 422 : 507;
    case CB_REVISIONS_EXPECTED:
        return 412;
    case CB_REVISIONS_ALLOWED:
        return rc == CB_EPERM ? 403 : 422;
    case CB_REVISIONS_PREPARED:
        return 422;
    case CB_REVISIONS_STORED:
        return rc == CB_EEXIST ? 409 : rc == CB_ENOTSUP ? 501 : 507;
    default:
        return 500;
    }
}

/* A mistake names a place, which may be of a part that who asks does not see. What is new, they have sent; by a
 * rollback it comes from a revision, which they do not see either. */
static bool may_tell(const waiting *w, const cb_document *seen, const char *pointer) {
    char asked[CB_REVISIONS_POINTER];
    if (seen == w->h->r->document) return true;
    if (!seen) return false;
    if (cb_document_has(seen, pointer)) return true;
    if (w->how == CB_REVISIONS_ROLLBACK) return false;
    return !cb_document_has(w->h->r->document, pointer) ||
           (cb_revisions_pointer(asked, w->call) == CB_OK && strcmp(asked, pointer) == 0);
}

static void tell_failure(waiting *w, int rc, const cb_revisions_result *result) {
    const cb_document *seen = NULL;
    cb_document *copy = NULL;
    char why[600];
    snprintf(why, sizeof why, "%s", cb_last_error());
    if (cb_revisions_visible(&seen, &copy, w->h, cb_admin_who(w->call)) < 0) seen = NULL;
    for (uint32_t i = 0; i < result->n_mistakes; i++) {
        const cb_config_error *m = &result->mistakes[i];
        if (may_tell(w, seen, m->pointer))
            cb_admin_mistake(w->call, m->pointer, m->text, m->line, m->column);
        else
            snprintf(why, sizeof why, "it cannot be, for parts that who asks does not see");
    }
    cb_document_free(copy);
    (void)cb_admin_problem(w->call, status_of(rc, result->step, w->how), why);
}

static void on_done(int rc, const cb_revisions_result *result, void *user) {
    waiting *w = user;
    char tag[CB_REVISIONS_TAG];
    cb_admin_call_on_end(w->call, NULL, NULL);
    if (!w->answered) {
        cb_revisions_tag(tag, w->h->r);
        cb_admin_etag(w->call, tag);
    }
    if (!w->answered && rc < 0) tell_failure(w, rc, result);
    if (!w->answered && rc == CB_OK) {
        cb_json_out *o = cb_admin_json(w->call);
        cb_json_put_object(o, NULL);
        cb_json_put_uint(o, "revision", result->revision);
        cb_json_put_bool(o, "changed", result->step != CB_REVISIONS_SAME);
        if (cb_admin_dry_run(w->call)) cb_json_put_bool(o, "dry_run", 1);
        cb_json_put_end(o);
        (void)cb_admin_send(w->call, 200);
    }
    cb_mem_free(heap, w);
}

static void on_end(cb_admin_call *call, void *user) {
    waiting *w = user;
    (void)call;
    cb_revisions_cancel(w->change);
    cb_mem_free(heap, w);
}

/* ---- requests ---- */

/* The revision that a request has seen: who names one may not overwrite another that comes in between. */
static uint64_t expected_of(const cb_admin_call *call, const cb_revisions *r) {
    const cb_slice match = cb_admin_if_match(call);
    const bool any = !match.len || (match.len == 1 && match.base[0] == '*');
    return any ? CB_STORE_ANY : r->number;
}

static int propose(cb_revisions_http *h, cb_admin_call *call, cb_revisions_change_opts o) {
    const char *reason = cb_admin_query(call, "reason");
    char pointer[CB_REVISIONS_POINTER], tag[CB_REVISIONS_TAG];
    cb_revisions_tag(tag, h->r);
    int rc = cb_revisions_pointer(pointer, call);
    if (rc < 0) return rc;
    if (cb_admin_check_match(call, tag) < 0) return CB_OK; /* answered */
    waiting *w = cb_mem_new(heap, sizeof *w);
    if (!w) return cb_fail(CB_ENOMEM, "no memory for a change");
    *w = (waiting){.h = h, .call = call, .how = o.how};
    o.size = sizeof o;
    o.pointer = pointer;
    o.dry_run = cb_admin_dry_run(call);
    o.expected = expected_of(call, h->r);
    o.actor = cb_admin_who(call)->name;
    o.reason = reason;
    o.allow = allow;
    o.agree = agree;
    rc = cb_revisions_propose(h->r, &w->change, &o, on_done, w);
    if (rc < 0) {
        cb_mem_free(heap, w);
        return rc;
    }
    if (!(cb_admin_who(call)->rights & CB_RIGHT_READ)) w->change->see = see; /* it begins in a turn to come */
    cb_admin_call_on_end(call, on_end, w);
    return CB_OK;
}

static int put_config(cb_admin_call *call, void *user) {
    return propose(user, call, (cb_revisions_change_opts){.how = CB_REVISIONS_PUT, .body = cb_admin_body(call)});
}

static int patch_config(cb_admin_call *call, void *user) {
    const cb_slice type = cb_admin_content_type(call), merge = cb_slice_str("application/merge-patch+json");
    const bool merges = type.len == merge.len && memcmp(type.base, merge.base, merge.len) == 0;
    const int32_t how = merges ? CB_REVISIONS_MERGE : CB_REVISIONS_PATCH;
    return propose(user, call, (cb_revisions_change_opts){.how = how, .body = cb_admin_body(call)});
}

static int delete_config(cb_admin_call *call, void *user) {
    return propose(user, call, (cb_revisions_change_opts){.how = CB_REVISIONS_DELETE});
}

static int roll_back(cb_admin_call *call, void *user) {
    const uint64_t n = cb_revisions_number_of(call);
    if (!n) return CB_OK; /* answered */
    return propose(user, call, (cb_revisions_change_opts){.how = CB_REVISIONS_ROLLBACK, .from = n});
}

/* ---- events ---- */

static void announce(cb_revisions *r, const cb_revisions_change *c) {
    const cb_revisions_http *h = r->http;
    static const char *const hows[] = {
        [CB_REVISIONS_PUT] = "put",     [CB_REVISIONS_DELETE] = "delete",     [CB_REVISIONS_MERGE] = "merge",
        [CB_REVISIONS_PATCH] = "patch", [CB_REVISIONS_ROLLBACK] = "rollback", [CB_REVISIONS_FILE] = "file"};
    cb_json_out *o = NULL;
    cb_slice text;
    if (c->reload || cb_json_out_new(&o, 0) < 0) return;
    cb_json_put_object(o, NULL);
    cb_json_put_uint(o, "revision", r->number);
    cb_json_put_str(o, "actor", c->actor);
    cb_json_put_str(o, "how", hows[c->how]);
    cb_json_put_str(o, "pointer", c->pointer);
    cb_json_put_str(o, "reason", c->reason);
    cb_json_put_end(o);
    if (cb_json_out_text(o, &text) == CB_OK) (void)cb_admin_event(h->a, "config", text);
    cb_json_out_free(o);
}

/* ---- the table ---- */

#define CHANGERS CB_RIGHT_CHANGE | CB_RIGHT_CHANGE_OWNED | CB_RIGHT_CHANGE_TENANT
#define CHANGES  CB_ADMIN_CHANGES | CB_ADMIN_COMMITS | CB_ADMIN_DRY_RUN
#define PATCHES  "application/merge-patch+json,application/json-patch+json"
#define ANSWER                                                                                                         \
    "{\"type\":\"object\",\"required\":[\"revision\",\"changed\"],\"properties\":{\"revision\":{\"type\":\"integer\"}" \
    ","                                                                                                                \
    "\"changed\":{\"type\":\"boolean\"},\"dry_run\":{\"type\":\"boolean\"}}}"

static const cb_admin_query_param reason[] = {{"reason", "Why; it stands with the revision.", NULL}};

#define ROW(m, p, i, s, f, c, fn)                                                                                      \
    {                                                                                                                  \
        .size = sizeof(cb_admin_resource), .method = m, .path = p, .id = i, .summary = s, .rights = CHANGERS,          \
        .flags = CHANGES | (f), .query = reason, .n_query = 1, .consumes = c, .answer_schema = ANSWER, .handle = fn    \
    }

static const cb_admin_resource rows[] = {
    ROW("PUT", "/v1/config", "putConfig", "Replaces the configuration", CB_ADMIN_RAW, "application/json", put_config),
    ROW("PATCH", "/v1/config", "patchConfig", "Changes the configuration by a merge patch or a JSON patch",
        CB_ADMIN_RAW, PATCHES, patch_config),
    ROW("PUT", "/v1/config/{path...}", "putConfigPart", "Replaces or adds the part at a JSON pointer", CB_ADMIN_RAW,
        "application/json", put_config),
    ROW("PATCH", "/v1/config/{path...}", "patchConfigPart", "Changes the part at a JSON pointer by a patch",
        CB_ADMIN_RAW, PATCHES, patch_config),
    ROW("DELETE", "/v1/config/{path...}", "deleteConfigPart", "Removes the part at a JSON pointer", 0, NULL,
        delete_config),
    ROW("POST", "/v1/revisions/{n}/rollback", "rollBack",
        "Makes that document the current one again, as a new revision", 0, NULL, roll_back),
};

int cb_revisions_admin(cb_revisions *r, cb_admin *a, const cb_revisions_admin_opts *opts) {
    cb_revisions_admin_opts o;
    if (!r) return cb_fail(CB_EINVAL, "cb_revisions_admin: r is NULL");
    cb_revisions_http *h = r->http;
    if (!a) {
        r->announce = NULL;
        if (h) h->a = NULL;
        return CB_OK;
    }
    int rc = cb_opts_read(&o, sizeof o, opts, "cb_revisions_admin_opts");
    if (rc < 0) return rc;
    if (h && h->a) return cb_fail(CB_EEXIST, "cb_revisions_admin: these have an admin");
    if (!h) h = cb_mem_new(heap, sizeof *h);
    if (!h) return cb_fail(CB_ENOMEM, "no memory for revisions");
    *h = (cb_revisions_http){.r = r, .a = a, .o = o};
    r->http = h; /* freed with it, as rows may have been added */
    for (size_t i = 0; i < sizeof rows / sizeof *rows && rc == CB_OK; i++)
        rc = cb_admin_add(a, &rows[i], h);
    if (rc == CB_OK) rc = cb_revisions_add_pages(h);
    if (rc == CB_OK) r->announce = announce;
    return rc;
}
