/* What the lines of an access log have. */
#include "base/error.h"
#include "base/mem.h"
#include "http/fields.h"
#include "telemetry/access_line.h"
#include "telemetry/redact.h"
#include <stddef.h>
#include <stdio.h>
#include <string.h>

enum { NAME_MAX = 64, SPEC_MAX = 256 };

#define AT(member) offsetof(cb_access_record, member)
static const cb_access_row rows[] = {{"time", CB_ACCESS_TIME, AT(time_ms), true},
                                     {"remote", CB_ACCESS_TEXT, AT(remote), true},
                                     {"method", CB_ACCESS_SLICE, AT(method), true},
                                     {"host", CB_ACCESS_SLICE, AT(host), true},
                                     {"path", CB_ACCESS_URL, AT(path), true},
                                     {"status", CB_ACCESS_STATUS, AT(status), true},
                                     {"version", CB_ACCESS_VERSION, AT(version), true},
                                     {"bytes_in", CB_ACCESS_COUNT, AT(bytes_in), true},
                                     {"bytes_out", CB_ACCESS_COUNT, AT(bytes_out), true},
                                     {"duration_ms", CB_ACCESS_US, AT(duration_us), true},
                                     {"route", CB_ACCESS_TEXT, AT(route), true},
                                     {"origin", CB_ACCESS_TEXT, AT(origin), true},
                                     {"reason", CB_ACCESS_TEXT, AT(reason), true},
                                     {"request_id", CB_ACCESS_SLICE, AT(request_id), true},
                                     {"trace_id", CB_ACCESS_SLICE, AT(trace_id), true},
                                     {"span_id", CB_ACCESS_SLICE, AT(span_id), true},
                                     {"subject", CB_ACCESS_TEXT, AT(subject), true},
                                     {"tenant", CB_ACCESS_TEXT, AT(tenant), true},
                                     {"auth", CB_ACCESS_TEXT, AT(auth), true},
                                     {"auth_reason", CB_ACCESS_TEXT, AT(auth_reason), true},
                                     {"auth_rule", CB_ACCESS_TEXT, AT(auth_rule), true},
                                     {"local", CB_ACCESS_TEXT, AT(local), false},
                                     {"scheme", CB_ACCESS_SLICE, AT(scheme), false},
                                     {"sni", CB_ACCESS_TEXT, AT(sni), false},
                                     {"tls_version", CB_ACCESS_TEXT, AT(tls_version), false},
                                     {"tls_cipher", CB_ACCESS_TEXT, AT(tls_cipher), false},
                                     {"tls_resumed", CB_ACCESS_FLAG, AT(tls_resumed), false},
                                     {"early", CB_ACCESS_FLAG, AT(early), false},
                                     {"retries", CB_ACCESS_SMALL, AT(retries), false},
                                     {"pattern", CB_ACCESS_TEXT, AT(pattern), false},
                                     {"head_ms", CB_ACCESS_PHASE, CB_ACCESS_HEAD, false},
                                     {"auth_ms", CB_ACCESS_PHASE, CB_ACCESS_AUTH, false},
                                     {"wait_ms", CB_ACCESS_PHASE, CB_ACCESS_WAIT, false},
                                     {"connect_ms", CB_ACCESS_PHASE, CB_ACCESS_CONNECT, false},
                                     {"first_byte_ms", CB_ACCESS_PHASE, CB_ACCESS_FIRST_BYTE, false},
                                     {"body_ms", CB_ACCESS_PHASE, CB_ACCESS_BODY, false}};
enum { ROWS = sizeof rows / sizeof *rows };

static const cb_access_row *row_named(const char *name) {
    for (size_t i = 0; i < ROWS; i++)
        if (strcmp(rows[i].name, name) == 0) return &rows[i];
    return NULL;
}

static bool as_ok(const char *text) {
    size_t n = strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.@");
    return n > 0 && n <= NAME_MAX && !text[n];
}

/* "request.NAME" or "response.NAME": the name, in place; else NULL. */
static char *field_of(char *name, bool *response) {
    static const char request[] = "request.", reply[] = "response.";
    *response = strncmp(name, reply, sizeof reply - 1) == 0;
    if (*response) return name + sizeof reply - 1;
    return strncmp(name, request, sizeof request - 1) == 0 ? name + sizeof request - 1 : NULL;
}

static int fill_field(cb_access_plan *p, cb_access_column *c, char *field) {
    cb_slice name = cb_slice_str(field);
    if (!cb_field_name_ok(name)) return cb_fail(CB_EINVAL, "cb_access_log_opts: \"%s\" is no name of a field", field);
    cb_field_name_lower((uint8_t *)field, name.len);
    c->secret = !p->show_secrets && cb_redact_field(name);
    c->url = !p->show_secrets && cb_redact_is_url(name);
    c->field = cb_mem_text(p->alloc, field);
    if (!c->field) return cb_fail(CB_ENOMEM, "no memory for an access log");
    if (c->response) p->response[p->n_response++] = c->field;
    return CB_OK;
}

static int set_key(cb_access_plan *p, cb_access_column *c, const char *as) {
    char key[NAME_MAX + 8];
    int n = snprintf(key, sizeof key, ",\"%s\":", as);
    for (const cb_access_column *o = p->at; o < c; o++)
        if (strcmp(o->key, key) == 0) return cb_fail(CB_EINVAL, "cb_access_log_opts: two fields are called \"%s\"", as);
    c->key = cb_mem_text(p->alloc, key);
    c->key_len = (size_t)n;
    return c->key ? CB_OK : cb_fail(CB_ENOMEM, "no memory for an access log");
}

/* "NAME" or "NAME=AS". */
static int fill(cb_access_plan *p, const char *spec) {
    cb_access_column *c = &p->at[p->n++];
    char name[SPEC_MAX];
    if (!spec || strlen(spec) >= sizeof name)
        return cb_fail(CB_EINVAL, "cb_access_log_opts: a field is missing or too long");
    memcpy(name, spec, strlen(spec) + 1);
    char *as = strchr(name, '=');
    if (as) *as++ = '\0';
    char *field = field_of(name, &c->response);
    const char *shown = as ? as : field ? field : name;
    if (!as_ok(shown))
        return cb_fail(CB_EINVAL, "cb_access_log_opts: \"%s\" cannot be called \"%s\"; use letters, digits and _-.@",
                       name, shown);
    int rc = set_key(p, c, shown);
    if (rc < 0 || field) return rc < 0 ? rc : fill_field(p, c, field);
    c->row = row_named(name);
    return c->row ? CB_OK : cb_fail(CB_EINVAL, "cb_access_log_opts: there is no field \"%s\"", name);
}

static int fill_all(cb_access_plan *p, const cb_access_log_opts *o) {
    int rc = CB_OK;
    for (size_t i = 0; i < o->n_fields && rc == CB_OK; i++)
        rc = fill(p, o->fields[i]);
    for (size_t i = 0; i < ROWS && !o->n_fields && rc == CB_OK; i++)
        if (rows[i].usual) rc = fill(p, rows[i].name);
    return rc;
}

int cb_access_plan_make(cb_access_plan *out, const cb_alloc *alloc, const cb_access_log_opts *o) {
    *out = (cb_access_plan){.alloc = alloc, .format = o->format, .show_secrets = o->show_secrets != 0};
    if (o->format != CB_ACCESS_JSON && o->format != CB_ACCESS_COMBINED)
        return cb_fail(CB_EINVAL, "cb_access_log_opts: format %d is not known", o->format);
    if (o->n_fields && o->format != CB_ACCESS_JSON)
        return cb_fail(CB_EINVAL, "cb_access_log_opts: fields are for JSON, the combined format has its own");
    if (o->n_fields > CB_ACCESS_FIELDS || (o->n_fields && !o->fields))
        return cb_fail(CB_EINVAL, "cb_access_log_opts: at most %d fields", CB_ACCESS_FIELDS);
    if (o->format != CB_ACCESS_JSON) return CB_OK;
    out->at = cb_mem_new(alloc, (o->n_fields ? o->n_fields : (size_t)ROWS) * sizeof *out->at);
    if (!out->at) return cb_fail(CB_ENOMEM, "no memory for an access log");
    int rc = fill_all(out, o);
    if (rc < 0) cb_access_plan_free(out);
    return rc;
}

void cb_access_plan_free(cb_access_plan *p) {
    for (size_t i = 0; i < p->n; i++) {
        cb_mem_free(p->alloc, p->at[i].key);
        cb_mem_free(p->alloc, p->at[i].field);
    }
    cb_mem_free(p->alloc, p->at);
    p->at = NULL;
    p->n = 0;
}
