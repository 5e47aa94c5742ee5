/* Answers: JSON, bytes, pages, problems; what a resource asks of its call. */
#include "admin/admin_int.h"
#include "admin/match.h"
#include "admin/problem.h"
#include "auth/base64url.h"
#include "base/error.h"
#include "http/fields.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MISTAKES = 20, FIELDS = 12, DETAIL_BYTES = 1024, ANSWER_BYTES = 64 << 20 };

/* ---- out it goes ---- */

static void add(cb_field *fields, size_t *n, const char *name, const char *value) {
    if (value && *value && *n < FIELDS) fields[(*n)++] = (cb_field){cb_slice_str(name), cb_slice_str(value)};
}

static void send(cb_admin_call *c, cb_slice body) {
    cb_field fields[FIELDS];
    size_t n = 0;
    add(fields, &n, "content-type", c->type);
    add(fields, &n, "cache-control", "no-store");
    add(fields, &n, "x-content-type-options", "nosniff");
    add(fields, &n, "etag", c->etag);
    add(fields, &n, "location", c->location);
    add(fields, &n, "allow", c->status == 405 ? c->allow : NULL);
    add(fields, &n, "retry-after", c->status == 429 || c->status == 503 ? "1" : NULL);
    for (size_t i = 0; i < c->n_challenges && n < FIELDS; i++)
        fields[n++] = c->challenges[i];
    (void)cb_exchange_send(c->x, c->status, fields, n, body);
    if (c->x && !c->body_done) cb_exchange_resume(c->x); /* what still comes is thrown away, until it is due */
}

/* Is an answer worth to be given again? What passes by itself is not. */
static bool lasting(int status) {
    return status < 500 && status != 429 && status != 403;
}

static void keep_answer(cb_admin_call *c, cb_slice body) {
    cb_replay *e = c->replay;
    c->replay = NULL;
    if (!lasting(c->status)) {
        cb_replays_forget(&c->a->replays, e);
        return;
    }
    e->status = c->status;
    snprintf(e->etag, sizeof e->etag, "%s", c->etag);
    snprintf(e->type, sizeof e->type, "%s", c->type);
    e->location = c->location ? cb_mem_text(c->a->alloc, c->location) : NULL;
    cb_replays_answered(&c->a->replays, e, body);
}

void cb_admin_deliver(cb_admin_call *c, cb_slice body) {
    if (c->replay) keep_answer(c, body);
    if (c->x) send(c, body);
    cb_admin_call_settle(c);
}

static void on_recorded(cb_admin_call *c, int rc) {
    char name[128];
    if (rc < 0)
        cb_log_line(c->a->log, CB_LOG_ERROR, "admin", "audit: %s: not recorded: %s",
                    cb_text_escape(name, sizeof name, cb_slice_str(c->who.p.name)), cb_last_error());
    cb_admin_deliver(c, cb_buf_slice(&c->answer));
}

/* What must be in the audit log before the answer: denials, and changes that were recorded and then failed. */
static int outcome_of(cb_admin_call *c) {
    if ((c->status == 403 || c->status == 401) && cb_admin_may_record_denial(c->a)) return CB_AUDIT_DENIED;
    return c->recorded && c->status >= 400 ? CB_AUDIT_FAILED : 0;
}

static bool reads(const cb_admin_call *c) {
    return c->row && strcmp(c->row->r.method, "GET") == 0;
}

/* What is read with a tag that the client has need not be sent, also when its resource did not ask. */
static bool unchanged(const cb_admin_call *c, int status) {
    return status == 200 && *c->etag && reads(c) &&
           cb_admin_match((cb_slice){0}, cb_slice_str(c->if_none_match), c->etag, true) == CB_MATCH_SAME;
}

#define CODES(method)                                                                                                  \
    {                                                                                                                  \
        CB_C_ADMIN_REQUESTS_##method##_2XX, CB_C_ADMIN_REQUESTS_##method##_3XX, CB_C_ADMIN_REQUESTS_##method##_4XX,    \
            CB_C_ADMIN_REQUESTS_##method##_5XX                                                                         \
    }

void cb_admin_count(cb_admin_call *c, int status) {
    static const struct {
        const char *method;
        enum cb_cell_id codes[4]; /* 2xx to 5xx */
    } rows[] = {{"GET", CODES(GET)},     {"POST", CODES(POST)},     {"PUT", CODES(PUT)},
                {"PATCH", CODES(PATCH)}, {"DELETE", CODES(DELETE)}, {"", CODES(OTHER)}};
    const cb_cells *cells = cb_loop_cells(c->a->loop);
    const char *method = c->row ? c->row->r.method : "";
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (strcmp(rows[i].method, method) == 0) cb_cells_add(cells, rows[i].codes[status / 100 - 2], 1);
    cb_cells_observe(cells, CB_C_ADMIN_SECONDS, cb_loop_now(c->a->loop) - c->began);
    if (c->handed) cb_cells_move(cells, CB_C_ADMIN_WAITING, -1);
    if (status == 401 || status == 403) cb_cells_add(cells, c->denied, 1);
    if (!c->row || !(c->row->r.flags & CB_ADMIN_CHANGES) || c->dry_run) return;
    if (status == 507)
        cb_cells_add(cells, CB_C_ADMIN_CHANGES_UNRECORDED, 1);
    else if (c->recorded)
        cb_cells_add(cells, status < 400 ? CB_C_ADMIN_CHANGES_DONE : CB_C_ADMIN_CHANGES_FAILED, 1);
}

int cb_admin_answer(cb_admin_call *c, int status, const char *type, cb_slice body) {
    if (c->answered) return cb_fail(CB_EINVAL, "the call was answered before");
    if (status < 200 || status > 599) return cb_fail(CB_EINVAL, "an answer has a status of 200 to 599, not %d", status);
    if (unchanged(c, status)) return cb_admin_answer(c, 304, NULL, (cb_slice){0});
    c->answered = true;
    if (c->handed) c->a->n_waiting--;
    cb_admin_count(c, status);
    c->status = status;
    snprintf(c->type, sizeof c->type, "%s", type ? type : "");
    const int outcome = outcome_of(c);
    if (!outcome || cb_buf_add(&c->answer, body.base, body.len) < 0) {
        cb_admin_deliver(c, body);
        return CB_OK;
    }
    const int rc = cb_admin_record(c, outcome, NULL, on_recorded);
    if (rc < 0) on_recorded(c, rc);
    return CB_OK;
}

/* ---- what resources send ---- */

cb_json_out *cb_admin_json(cb_admin_call *c) {
    return c->out;
}

int cb_admin_send_json(cb_admin_call *c, int status, cb_slice json) {
    return cb_admin_answer(c, status, "application/json", json);
}

int cb_admin_send(cb_admin_call *c, int status) {
    cb_slice json;
    const int rc = cb_json_out_text(c->out, &json);
    return rc < 0 ? cb_admin_problemf(c, 500, "%s", cb_last_error()) : cb_admin_send_json(c, status, json);
}

int cb_admin_send_bytes(cb_admin_call *c, int status, const char *content_type, cb_slice bytes) {
    if (!content_type || strlen(content_type) >= sizeof c->type || !cb_field_value_ok(cb_slice_str(content_type)))
        return cb_fail(CB_EINVAL, "content_type: not one");
    return cb_admin_answer(c, status, content_type, bytes);
}

int cb_admin_send_nothing(cb_admin_call *c) {
    return cb_admin_answer(c, 204, NULL, (cb_slice){0});
}

void cb_admin_page_begin(cb_admin_call *c) {
    cb_json_out_clear(c->out);
    cb_json_put_object(c->out, NULL);
    cb_json_put_list(c->out, "items");
}

int cb_admin_page_end(cb_admin_call *c, const char *next) {
    char text[CB_ADMIN_CURSOR_BYTES * 4 / 3 + 4];
    const size_t n = next ? strlen(next) : 0;
    if (next && (n == 0 || n >= CB_ADMIN_CURSOR_BYTES))
        return cb_fail(CB_EINVAL, "a cursor has 1 to %d bytes", CB_ADMIN_CURSOR_BYTES - 1);
    if (next) cb_base64url_encode(text, next, n);
    cb_json_put_end(c->out);
    cb_json_put_str(c->out, "next", next ? text : NULL);
    cb_json_put_end(c->out);
    return cb_admin_send(c, 200);
}

void cb_admin_etag(cb_admin_call *c, const char *etag) {
    const bool fits = etag && strlen(etag) < sizeof c->etag && cb_admin_is_etag(etag);
    snprintf(c->etag, sizeof c->etag, "%s", fits ? etag : "");
}

void cb_admin_location(cb_admin_call *c, const char *path) {
    cb_mem_free(c->a->alloc, c->location);
    c->location = path && cb_field_value_ok(cb_slice_str(path)) ? cb_mem_text(c->a->alloc, path) : NULL;
}

int cb_admin_check_match(cb_admin_call *c, const char *etag) {
    cb_admin_etag(c, etag);
    const int verdict = cb_admin_match(cb_slice_str(c->if_match), cb_slice_str(c->if_none_match), etag, reads(c));
    if (verdict == CB_MATCH_GO) return CB_OK;
    if (verdict == CB_MATCH_SAME)
        (void)cb_admin_answer(c, 304, NULL, (cb_slice){0});
    else if (verdict == CB_MATCH_BAD)
        (void)cb_admin_problemf(c, 400, "If-Match, If-None-Match: a list of entity tags, or *");
    else
        (void)cb_admin_problemf(c, 412, "it has changed: it is %s now", etag ? etag : "not there");
    return cb_fail(CB_EEXIST, "the precondition failed");
}

/* ---- problems ---- */

void cb_admin_mistake(cb_admin_call *c, const char *pointer, const char *detail, uint32_t line, uint32_t column) {
    if (c->n_mistakes >= MISTAKES || c->answered) return;
    if (!c->mistakes) {
        if (cb_json_out_new(&c->mistakes, 0) < 0) return;
        cb_json_put_list(c->mistakes, NULL);
    }
    cb_json_out *o = c->mistakes;
    c->n_mistakes++;
    cb_json_put_object(o, NULL);
    cb_json_put_str(o, "pointer", pointer ? pointer : "");
    cb_json_put_str(o, "detail", detail ? detail : "");
    if (line) cb_json_put_uint(o, "line", line);
    if (column) cb_json_put_uint(o, "column", column);
    cb_json_put_end(o);
}

int cb_admin_problem(cb_admin_call *c, int status, const char *detail) {
    cb_json_out *o = NULL;
    cb_slice text = {0}, errors;
    if (status < 400 || status > 599) return cb_fail(CB_EINVAL, "a problem has a status of 400 to 599");
    if (c->answered) return cb_fail(CB_EINVAL, "the call was answered before");
    if (cb_json_out_new(&o, ANSWER_BYTES) == CB_OK) {
        cb_json_put_object(o, NULL);
        cb_json_put_str(o, "type", "about:blank");
        cb_json_put_str(o, "title", cb_admin_status_text(status));
        cb_json_put_int(o, "status", status);
        if (detail) cb_json_put_str(o, "detail", detail);
        if (c->mistakes) cb_json_put_end(c->mistakes);
        if (c->mistakes && cb_json_out_text(c->mistakes, &errors) == CB_OK) cb_json_put_raw(o, "errors", errors);
        cb_json_put_end(o);
        (void)cb_json_out_text(o, &text);
    }
    const int rc = cb_admin_answer(c, status, "application/problem+json", text);
    cb_json_out_free(o);
    return rc;
}

int cb_admin_problemf(cb_admin_call *c, int status, const char *fmt, ...) {
    char detail[DETAIL_BYTES];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(detail, sizeof detail, fmt, ap);
    va_end(ap);
    return cb_admin_problem(c, status, detail);
}

int cb_admin_fail(cb_admin_call *c, int rc) {
    static const struct {
        int rc, status;
    } rows[] = {{CB_EINVAL, 400}, {CB_E2BIG, 400},  {CB_EPERM, 403},  {CB_EAUTH, 403},   {CB_ENOENT, 404},
                {CB_EEXIST, 409}, {CB_ELIMIT, 503}, {CB_EAGAIN, 503}, {CB_ENOTSUP, 501}, {CB_ETIMEOUT, 504}};
    int status = 500;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (rows[i].rc == rc) status = rows[i].status;
    return cb_admin_problemf(c, status, "%s", *cb_last_error() ? cb_last_error() : cb_strerror(rc));
}
