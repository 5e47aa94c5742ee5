/* Configuration and revisions over HTTP: what runs, what was, and what differs. */
#include "admin/admin_int.h"
#include "admin/revisions_http.h"
#include "base/error.h"
#include "config/document.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const cb_alloc *const heap = &cb_alloc_libc;

/* ---- what runs ---- */

int cb_revisions_visible(const cb_document **out, cb_document **copy, const cb_revisions_http *h,
                         const cb_admin_principal *who) {
    *out = h->r->document;
    if (!*out) return cb_fail(CB_EAGAIN, "nothing runs yet");
    if (who->rights & CB_RIGHT_READ) return CB_OK;
    if (!h->o.show) return cb_fail(CB_EPERM, "nothing of the configuration may be seen by who asks");
    int rc = cb_document_copy(copy, *out);
    if (rc == CB_OK) rc = h->o.show(who, *copy, h->o.user);
    *out = *copy;
    return rc;
}

static int get_config(cb_admin_call *call, void *user) {
    cb_revisions_http *h = user;
    char pointer[CB_REVISIONS_POINTER], tag[CB_REVISIONS_TAG], *text = NULL;
    const cb_document *d = NULL;
    cb_document *copy = NULL;
    int rc = cb_revisions_pointer(pointer, call);
    if (rc == CB_OK) rc = cb_revisions_visible(&d, &copy, h, cb_admin_who(call));
    if (rc == CB_OK) rc = cb_document_text(&text, d, pointer, CB_DOCUMENT_LINES);
    if (rc == CB_OK) {
        cb_revisions_tag(tag, h->r);
        if (cb_admin_check_match(call, tag) == CB_OK) rc = cb_admin_send_json(call, 200, cb_slice_str(text));
    }
    cb_config_text_free(text);
    cb_document_free(copy);
    return rc;
}

/* ---- what was ---- */

typedef struct asking {
    cb_revisions_http *h;
    cb_admin_call *call;
    cb_revisions_ask *ask;
    uint64_t number, against;
    bool as_text;
    cb_document *first; /* of a comparison: the later one */
} asking;

static void asking_free(asking *q) {
    cb_document_free(q->first);
    cb_mem_free(heap, q);
}

static void on_end(cb_admin_call *call, void *user) {
    asking *q = user;
    (void)call;
    cb_revisions_forget(q->ask);
    asking_free(q);
}

static int asking_new(asking **out, cb_revisions_http *h, cb_admin_call *call) {
    asking *q = cb_mem_new(heap, sizeof *q);
    if (!q) return cb_fail(CB_ENOMEM, "no memory for a question");
    q->h = h;
    q->call = call;
    *out = q;
    return CB_OK;
}

/* rc of the question that was asked for q. */
static int waits(asking *q, int rc) {
    if (rc < 0)
        asking_free(q);
    else
        cb_admin_call_on_end(q->call, on_end, q);
    return rc;
}

static void answered(asking *q, int rc) {
    cb_admin_call_on_end(q->call, NULL, NULL);
    if (rc < 0) (void)cb_admin_fail(q->call, rc);
    asking_free(q);
}

static void put_about(cb_json_out *o, const cb_revision *r, const cb_revisions *all) {
    char time[CB_DATE_BYTES];
    cb_date_text(time, r->time_ms);
    cb_json_put_uint(o, "revision", r->number);
    cb_json_put_str(o, "time", time);
    cb_json_put_str(o, "actor", r->actor);
    cb_json_put_str(o, "reason", r->reason);
    cb_json_put_str(o, "how", r->how);
    cb_json_put_str(o, "pointer", r->pointer);
    if (r->from) cb_json_put_uint(o, "from", r->from);
    if (r->before) cb_json_put_uint(o, "before", r->before);
    cb_json_put_bool(o, "running", r->number == all->number);
}

static void on_page(int rc, const cb_revision *all, size_t n, uint64_t more, void *user) {
    asking *q = user;
    char next[24];
    if (rc == CB_OK || rc == CB_ENOENT) { /* a key without changes has an empty page */
        cb_json_out *o = cb_admin_json(q->call);
        cb_admin_page_begin(q->call);
        for (size_t i = 0; i < n; i++) {
            cb_json_put_object(o, NULL);
            put_about(o, &all[i], q->h->r);
            cb_json_put_end(o);
        }
        snprintf(next, sizeof next, "%" PRIu64, more);
        cb_admin_call_on_end(q->call, NULL, NULL);
        (void)cb_admin_page_end(q->call, more ? next : NULL);
        asking_free(q);
        return;
    }
    answered(q, rc);
}

static int list_revisions(cb_admin_call *call, void *user) {
    cb_revisions_http *h = user;
    const char *cursor = cb_admin_cursor(call);
    char *end = NULL;
    const uint64_t before = cursor ? strtoull(cursor, &end, 10) : 0;
    if (cursor && (*end || !before || *cursor == '-')) return cb_admin_problem(call, 400, "cursor: no page gave this");
    asking *q = NULL;
    int rc = asking_new(&q, h, call);
    if (rc < 0) return rc;
    return waits(q, cb_revisions_history(h->r, &q->ask, before, cb_admin_limit(call), on_page, q));
}

static void on_one(int rc, const cb_revision *r, size_t n, uint64_t more, void *user) {
    asking *q = user;
    cb_document *d = NULL;
    char *text = NULL;
    (void)n;
    (void)more;
    if (rc == CB_OK) rc = cb_document_parse(&d, r->text, NULL);
    if (rc == CB_OK) rc = cb_document_text(&text, d, "", CB_DOCUMENT_COMPACT);
    if (rc == CB_OK) {
        char tag[CB_REVISIONS_TAG];
        cb_json_out *o = cb_admin_json(q->call);
        snprintf(tag, sizeof tag, "\"%" PRIu64 "\"", r->number);
        cb_json_put_object(o, NULL);
        put_about(o, r, q->h->r);
        cb_json_put_raw(o, "document", cb_slice_str(text));
        cb_json_put_text(o, "text", r->text);
        cb_json_put_end(o);
        if (cb_admin_check_match(q->call, tag) == CB_OK) rc = cb_admin_send(q->call, 200);
    }
    cb_config_text_free(text);
    cb_document_free(d);
    answered(q, rc);
}

static int get_revision(cb_admin_call *call, void *user) {
    cb_revisions_http *h = user;
    const uint64_t n = cb_revisions_number_of(call);
    asking *q = NULL;
    if (!n) return CB_OK; /* answered */
    int rc = asking_new(&q, h, call);
    if (rc < 0) return rc;
    return waits(q, cb_revisions_get(h->r, &q->ask, n, on_one, q));
}

/* ---- what differs ---- */

static void put_change(const cb_document_change *c, void *user) {
    cb_json_out *o = user;
    cb_json_put_object(o, NULL);
    cb_json_put_str(o, "pointer", c->pointer);
    if (c->before) cb_json_put_raw(o, "before", cb_slice_str(c->before));
    if (c->after) cb_json_put_raw(o, "after", cb_slice_str(c->after));
    cb_json_put_end(o);
}

static int compare(asking *q, const cb_document *other) {
    char *text = NULL;
    int rc;
    if (q->as_text) {
        rc = cb_document_diff_text(&text, other, q->first);
        if (rc == CB_OK) rc = cb_admin_send_bytes(q->call, 200, "text/plain; charset=utf-8", cb_slice_str(text));
        cb_config_text_free(text);
        return rc;
    }
    cb_json_out *o = cb_admin_json(q->call);
    cb_json_put_object(o, NULL);
    cb_json_put_uint(o, "revision", q->number);
    cb_json_put_uint(o, "against", q->against);
    cb_json_put_list(o, "changes");
    rc = cb_document_diff(other, q->first, put_change, o);
    cb_json_put_end(o);
    cb_json_put_end(o);
    return rc < 0 ? rc : cb_admin_send(q->call, 200);
}

static void on_second(int rc, const cb_revision *r, size_t n, uint64_t more, void *user) {
    asking *q = user;
    cb_document *d = NULL;
    (void)n;
    (void)more;
    if (rc == CB_OK) rc = cb_document_parse(&d, r->text, NULL);
    if (rc == CB_OK) rc = compare(q, d);
    cb_document_free(d);
    answered(q, rc);
}

static void on_first(int rc, const cb_revision *r, size_t n, uint64_t more, void *user) {
    asking *q = user;
    (void)n;
    (void)more;
    q->ask = NULL;
    if (rc == CB_OK) rc = cb_document_parse(&q->first, r->text, NULL);
    if (rc == CB_OK && !q->against) q->against = r->before;
    if (rc == CB_OK && q->against) {
        rc = cb_revisions_get(q->h->r, &q->ask, q->against, on_second, q);
        if (rc == CB_OK) return;
    } else if (rc == CB_OK) { /* the first of all: against nothing */
        cb_document *nothing = NULL;
        rc = cb_document_parse(&nothing, cb_slice_str("{}"), NULL);
        if (rc == CB_OK) rc = compare(q, nothing);
        cb_document_free(nothing);
    }
    answered(q, rc);
}

static int get_diff(cb_admin_call *call, void *user) {
    cb_revisions_http *h = user;
    const char *form = cb_admin_query(call, "form");
    const uint64_t n = cb_revisions_number_of(call);
    uint64_t against = 0;
    asking *q = NULL;
    if (!n || cb_admin_query_uint(call, "against", INT64_MAX, &against) == CB_EINVAL) return CB_OK; /* answered */
    if (form && strcmp(form, "json") != 0 && strcmp(form, "text") != 0)
        return cb_admin_problem(call, 400, "form: json or text");
    int rc = asking_new(&q, h, call);
    if (rc < 0) return rc;
    q->number = n;
    q->against = against;
    q->as_text = form && strcmp(form, "text") == 0;
    return waits(q, cb_revisions_get(h->r, &q->ask, n, on_first, q));
}

/* ---- the table ---- */

static const cb_admin_query_param diff_query[] = {
    {"against", "The revision to compare with; without it the one that ran before.",
     "{\"type\":\"integer\",\"minimum\":1}"},
    {"form", "json, or text for people.", "{\"enum\":[\"json\",\"text\"]}"}};

#define READERS CB_RIGHT_READ | CB_RIGHT_READ_TENANT

static const cb_admin_resource rows[] = {
    {.size = sizeof(cb_admin_resource),
     .method = "GET",
     .path = "/v1/config",
     .id = "getConfig",
     .summary = "The configuration that runs",
     .rights = READERS,
     .handle = get_config},
    {.size = sizeof(cb_admin_resource),
     .method = "GET",
     .path = "/v1/config/{path...}",
     .id = "getConfigPart",
     .summary = "The part of the configuration at a JSON pointer",
     .rights = READERS,
     .handle = get_config},
    {.size = sizeof(cb_admin_resource),
     .method = "GET",
     .path = "/v1/revisions",
     .id = "listRevisions",
     .summary = "What was accepted, by whom and when, the latest first",
     .rights = CB_RIGHT_READ,
     .flags = CB_ADMIN_PAGES,
     .handle = list_revisions},
    {.size = sizeof(cb_admin_resource),
     .method = "GET",
     .path = "/v1/revisions/{n}",
     .id = "getRevision",
     .summary = "One revision with its document",
     .rights = CB_RIGHT_READ,
     .handle = get_revision},
    {.size = sizeof(cb_admin_resource),
     .method = "GET",
     .path = "/v1/revisions/{n}/diff",
     .id = "diffRevision",
     .summary = "What a revision changed",
     .rights = CB_RIGHT_READ,
     .query = diff_query,
     .n_query = 2,
     .handle = get_diff},
};

int cb_revisions_add_pages(cb_revisions_http *h) {
    int rc = CB_OK;
    for (size_t i = 0; i < sizeof rows / sizeof *rows && rc == CB_OK; i++)
        rc = cb_admin_add(h->a, &rows[i], h);
    return rc;
}
