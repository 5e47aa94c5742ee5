/* Revocations in a file: lines of JSON. */
#include "auth/claims.h"
#include "auth/file.h"
#include "base/error.h"
#include "base/mem.h"
#include "base/opts.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { FILE_BYTES = 32 << 20, LINE_BYTES = 8192 };

static int read_line(cb_revocation *out, const cb_json *j) {
    static const char *const known[] = {"issuer", "jti", "subject", "before", "until", "note"};
    int64_t before = 0, until = 0;
    if (j->nodes->kind != CB_JSON_OBJECT) return cb_fail(CB_EINVAL, "it is no JSON object");
    for (const cb_json_node *at = cb_json_first(j, j->nodes); at; at = cb_json_next(j, j->nodes, at)) {
        size_t i = 0, n = sizeof known / sizeof *known;
        while (i < n && strcmp(known[i], j->text + at->name) != 0)
            i++;
        if (i == n) return cb_fail(CB_EINVAL, "\"%.60s\" is not known here", j->text + at->name);
        bool date = i == 3 || i == 4;
        if (!date && at->kind != CB_JSON_TEXT) return cb_fail(CB_EINVAL, "\"%s\" must be a text", known[i]);
    }
    if (!cb_claims_date(j, "before", &before) || !cb_claims_date(j, "until", &until))
        return cb_fail(CB_EINVAL, "\"before\" and \"until\" are seconds since 1970");
    *out = (cb_revocation){.size = sizeof *out,
                           .issuer = cb_json_text(j, j->nodes, "issuer"),
                           .jti = cb_json_text(j, j->nodes, "jti"),
                           .subject = cb_json_text(j, j->nodes, "subject"),
                           .before_s = before,
                           .until_s = until ? until : INT64_MAX};
    if (!out->issuer) return cb_fail(CB_EINVAL, "\"issuer\" is missing");
    if (out->jti && out->subject) return cb_fail(CB_EINVAL, "\"jti\" or \"subject\", not both");
    if (!out->jti && !before) return cb_fail(CB_EINVAL, "\"before\" is missing");
    return CB_OK;
}

/* r NULL: only looks whether the line is good. */
static int take_line(cb_revocations *r, cb_slice line, int64_t now_s) {
    cb_revocation what;
    cb_json j;
    if (line.len > LINE_BYTES) return cb_fail(CB_ELIMIT, "it is longer than %d bytes", LINE_BYTES);
    int rc = cb_json_open(&j, line);
    if (rc != 0) return rc < 0 ? rc : CB_EINVAL;
    rc = read_line(&what, &j);
    if (rc == CB_OK && r && what.until_s > now_s) rc = cb_revocations_add(r, &what, now_s);
    cb_json_close(&j);
    return rc;
}

static int take_lines(cb_revocations *r, cb_slice text, const char *path, int64_t now_s) {
    size_t number = 0;
    char why[300];
    for (cb_slice line; cb_line_next(&text, &line, &number);) {
        int rc = take_line(r, line, now_s);
        if (rc == CB_OK) continue;
        snprintf(why, sizeof why, "%s", cb_last_error());
        return cb_fail(rc, "revocations \"%s\", line %zu: %s", path, number, why);
    }
    return CB_OK;
}

int cb_revocations_load(cb_revocations *r, const char *path, int64_t now_s) {
    char *text = NULL;
    size_t len = 0;
    if (!r || !path) return cb_fail(CB_EINVAL, "cb_revocations_load: r and path are needed");
    int rc = cb_file_read(&text, &len, path, "revocations", FILE_BYTES);
    if (rc < 0) return rc;
    const cb_slice all = {(const uint8_t *)text, len};
    rc = take_lines(NULL, all, path, now_s);
    if (rc == CB_OK) rc = take_lines(r, all, path, now_s);
    cb_mem_free(&cb_alloc_libc, text);
    return rc;
}

static int put_text(cb_buf *b, const char *name, const char *text) {
    int rc = text ? cb_buf_printf(b, "%s\"%s\": ", b->len ? ", " : "{", name) : CB_OK;
    return rc == CB_OK && text ? cb_json_quote(b, text) : rc;
}

int cb_revocation_line(char **out, const cb_revocation *what) {
    cb_revocation w;
    cb_buf b;
    if (!out || !what) return cb_fail(CB_EINVAL, "cb_revocation_line: out and what are needed");
    int rc = cb_opts_read(&w, sizeof w, what, "cb_revocation");
    if (rc < 0) return rc;
    if (!w.issuer || (w.jti && w.subject) || (!w.jti && w.before_s <= 0))
        return cb_fail(CB_EINVAL, "cb_revocation: issuer, and jti, or before_s with or without subject, are needed");
    cb_buf_init(&b, &cb_alloc_libc, LINE_BYTES);
    rc = put_text(&b, "issuer", w.issuer);
    if (rc == CB_OK) rc = put_text(&b, "jti", w.jti);
    if (rc == CB_OK) rc = put_text(&b, "subject", w.subject);
    if (rc == CB_OK && w.before_s > 0) rc = cb_buf_printf(&b, ", \"before\": %" PRId64, w.before_s);
    if (rc == CB_OK && w.until_s > 0) rc = cb_buf_printf(&b, ", \"until\": %" PRId64, w.until_s);
    if (rc == CB_OK) rc = cb_buf_add(&b, "}", 2);
    if (rc < 0)
        cb_buf_free(&b);
    else
        *out = (char *)b.base;
    return rc;
}
