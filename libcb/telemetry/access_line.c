#include "telemetry/access_line.h"
#include "base/date.h"
#include "http/fields.h"
#include "telemetry/redact.h"
#include <string.h>

enum { VALUE_MAX = CB_REDACT_MAX }; /* bytes of one text; longer ones are cut and marked */

typedef struct line {
    cb_buf *out;
    const cb_access_plan *plan;
    int rc;
    bool any; /* a member is there already */
} line;

static void put(line *l, const void *text, size_t n) {
    if (l->rc == CB_OK) l->rc = cb_buf_add(l->out, text, n);
}

static void put_str(line *l, const char *text) {
    put(l, text, strlen(text));
}

static void put_number(line *l, uint64_t value, size_t least_digits) {
    char text[24];
    size_t at = sizeof text;
    do
        text[--at] = (char)('0' + value % 10);
    while ((value /= 10) || sizeof text - at < least_digits);
    put(l, text + at, sizeof text - at);
}

static const char hex[] = "0123456789abcdef";

/* Bytes beyond ASCII become \u00XX, or \xXX in the text form: the log stays valid whatever clients send. */
static void put_escaped(line *l, cb_slice s, bool json) {
    size_t from = 0;
    for (size_t i = 0; i < s.len; i++) {
        const uint8_t c = s.base[i];
        if (c >= 0x20 && c < 0x7f && c != '"' && c != '\\') continue;
        put(l, s.base + from, i - from);
        if (c == '"' || c == '\\')
            put(l, (const char[]){'\\', (char)c}, 2);
        else if (json)
            put(l, (const char[]){'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]}, 6);
        else
            put(l, (const char[]){'\\', 'x', hex[c >> 4], hex[c & 15]}, 4);
        from = i + 1;
    }
    if (s.len > from) put(l, s.base + from, s.len - from);
}

/* What stands between quotation marks. */
static void put_inner(line *l, cb_slice s, bool url, bool json) {
    char shown[CB_REDACT_MAX];
    bool cut = false;
    if (url) s = cb_redact_url(s, shown, &cut);
    if (s.len > VALUE_MAX) {
        s.len = VALUE_MAX;
        cut = true;
    }
    put_escaped(l, s, json);
    if (cut) put(l, "...", 3);
}

static void put_text(line *l, cb_slice s, bool url, bool json) {
    put(l, "\"", 1);
    put_inner(l, s, url, json);
    put(l, "\"", 1);
}

static const char *version_text(int version) {
    return version == CB_HTTP_3 ? "3" : version == CB_HTTP_2 ? "2" : "1.1";
}

/* ---- JSON ---- */

static void key(line *l, const cb_access_column *c) {
    if (!l->any) put(l, "{", 1);
    put(l, c->key + !l->any, c->key_len - !l->any);
    l->any = true;
}

static void text_member(line *l, const cb_access_column *c, cb_slice value, bool url) {
    if (!value.len) return;
    key(l, c);
    put_text(l, value, url, true);
}

static void number_member(line *l, const cb_access_column *c, uint64_t value) {
    key(l, c);
    put_number(l, value, 1);
}

static void ms_member(line *l, const cb_access_column *c, uint64_t us) {
    key(l, c);
    put_number(l, us / 1000, 1);
    put(l, ".", 1);
    put_number(l, us % 1000, 3);
}

static void time_member(line *l, const cb_access_column *c, int64_t ms) {
    char text[CB_DATE_BYTES];
    cb_date_text(text, ms);
    key(l, c);
    put(l, "\"", 1);
    put_str(l, text);
    put(l, "\"", 1);
}

/* All values of that name, as one list (RFC 9110, 5.3). */
static void field_member(line *l, const cb_access_column *c, const cb_field *fields, size_t n) {
    bool any = false;
    for (size_t i = 0; i < n; i++) {
        if (!cb_slice_eq(fields[i].name, c->field)) continue;
        if (!any) key(l, c);
        put(l, any ? ", " : "\"", any ? 2 : 1);
        put_inner(l, c->secret ? cb_slice_str(CB_REDACTED) : fields[i].value, c->url, true);
        any = true;
        if (c->secret) break;
    }
    if (any) put(l, "\"", 1);
}

static void row_member(line *l, const cb_access_column *c, const cb_access_record *r) {
    const void *at = (const uint8_t *)r + c->row->at;
    const bool hide = !l->plan->show_secrets;
    switch (c->row->kind) {
    case CB_ACCESS_TIME:
        time_member(l, c, *(const int64_t *)at);
        break;
    case CB_ACCESS_TEXT:
        text_member(l, c, cb_slice_str(*(const char *const *)at), false);
        break;
    case CB_ACCESS_SLICE:
    case CB_ACCESS_URL:
        text_member(l, c, *(const cb_slice *)at, c->row->kind == CB_ACCESS_URL && hide);
        break;
    case CB_ACCESS_STATUS:
        number_member(l, c, (uint64_t)(r->status > 0 ? r->status : 0));
        break;
    case CB_ACCESS_VERSION:
        text_member(l, c, cb_slice_str(version_text(r->version)), false);
        break;
    case CB_ACCESS_COUNT:
        number_member(l, c, *(const uint64_t *)at);
        break;
    case CB_ACCESS_SMALL:
        if (*(const uint32_t *)at) number_member(l, c, *(const uint32_t *)at);
        break;
    case CB_ACCESS_FLAG:
        if (!*(const uint8_t *)at) break;
        key(l, c);
        put(l, "true", 4);
        break;
    case CB_ACCESS_US:
        ms_member(l, c, *(const uint64_t *)at);
        break;
    case CB_ACCESS_PHASE:
        if (r->phases & 1u << c->row->at) ms_member(l, c, r->phase_us[c->row->at]);
        break;
    }
}

static void json_line(line *l, const cb_access_record *r) {
    for (size_t i = 0; i < l->plan->n; i++) {
        const cb_access_column *c = &l->plan->at[i];
        if (c->row)
            row_member(l, c, r);
        else if (c->response)
            field_member(l, c, r->response_fields, r->n_response_fields);
        else
            field_member(l, c, r->request_fields, r->n_request_fields);
    }
    put(l, &"{}\n"[l->any], 3 - l->any);
}

/* ---- combined ---- */

static cb_slice field_named(const cb_field *fields, size_t n, const char *name) {
    for (size_t i = 0; i < n; i++)
        if (cb_slice_eq(fields[i].name, name)) return fields[i].value;
    return cb_slice_str("-");
}

/* What is between spaces must have none. */
static void put_word(line *l, const char *text) {
    cb_slice s = cb_slice_str(text && *text ? text : "-");
    for (size_t i = 0; i < s.len && i < VALUE_MAX; i++) {
        if (s.base[i] == ' ')
            put(l, "\\x20", 4);
        else
            put_escaped(l, (cb_slice){s.base + i, 1}, false);
    }
}

/* "2026-11-25T21:08:38.123Z" as [25/Nov/2026:21:08:38 +0000] */
static void put_combined_time(line *l, int64_t ms) {
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    char text[CB_DATE_BYTES];
    cb_date_text(text, ms);
    const char *day = strchr(text + 1, '-'); /* a year may have more digits */
    const size_t month = (size_t)(day[1] - '0') * 10 + (size_t)(day[2] - '0');
    put(l, "[", 1);
    put(l, day + 4, 2);
    put(l, "/", 1);
    put(l, months + 3 * (month - 1), 3);
    put(l, "/", 1);
    put(l, text, (size_t)(day - text));
    put(l, ":", 1);
    put(l, day + 7, 8);
    put_str(l, " +0000]");
}

static void combined_line(line *l, const cb_access_record *r) {
    const bool hide = !l->plan->show_secrets;
    char shown[CB_REDACT_MAX];
    bool cut = false;
    cb_slice path = hide ? cb_redact_url(r->path, shown, &cut) : r->path;
    if (path.len > VALUE_MAX) path.len = VALUE_MAX;
    put_word(l, r->remote);
    put_str(l, " - ");
    put_word(l, r->subject);
    put(l, " ", 1);
    put_combined_time(l, r->time_ms);
    put_str(l, " \"");
    put_escaped(l, r->method, false);
    put(l, " ", 1);
    put_escaped(l, path, false);
    put_str(l, " HTTP/");
    put_str(l, version_text(r->version));
    put_str(l, "\" ");
    put_number(l, (uint64_t)(r->status > 0 ? r->status : 0), 3);
    put(l, " ", 1);
    put_number(l, r->bytes_out, 1);
    put(l, " ", 1);
    put_text(l, field_named(r->request_fields, r->n_request_fields, "referer"), hide, false);
    put(l, " ", 1);
    put_text(l, field_named(r->request_fields, r->n_request_fields, "user-agent"), false, false);
    put(l, "\n", 1);
}

int cb_access_line(cb_buf *out, const cb_access_plan *plan, const cb_access_record *r) {
    line l = {.out = out, .plan = plan, .rc = CB_OK};
    const size_t before = out->len;
    if (plan->format == CB_ACCESS_COMBINED)
        combined_line(&l, r);
    else
        json_line(&l, r);
    if (l.rc < 0) out->len = before;
    return l.rc;
}
