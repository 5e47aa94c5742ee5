#include "telemetry/access_line.h"
#include "base/date.h"
#include <cb/http.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { VALUE_MAX = 2048 }; /* bytes of one text; longer ones are cut and marked */

typedef struct line {
    cb_buf *out;
    int rc;
} line;

static void put(line *l, const char *text, size_t n) {
    if (l->rc == CB_OK) l->rc = cb_buf_add(l->out, text, n);
}

/* One JSON text. Bytes beyond ASCII become \u00XX: the log stays valid whatever clients send. */
static void put_text(line *l, cb_slice s) {
    static const char hex[] = "0123456789abcdef";
    size_t len = s.len > VALUE_MAX ? VALUE_MAX : s.len, from = 0;
    put(l, "\"", 1);
    for (size_t i = 0; i < len; i++) {
        uint8_t c = s.base[i];
        if (c >= 0x20 && c < 0x7f && c != '"' && c != '\\') continue;
        put(l, (const char *)s.base + from, i - from);
        if (c == '"' || c == '\\')
            put(l, (const char[]){'\\', (char)c}, 2);
        else
            put(l, (const char[]){'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]}, 6);
        from = i + 1;
    }
    if (len > from) put(l, (const char *)s.base + from, len - from);
    put(l, s.len > len ? "...\"" : "\"", s.len > len ? 4 : 1);
}

static void member(line *l, const char *name, cb_slice value) {
    if (!value.len) return;
    put(l, ",\"", 2);
    put(l, name, strlen(name));
    put(l, "\":", 2);
    put_text(l, value);
}

static void number(line *l, const char *name, uint64_t value) {
    char text[64];
    int n = snprintf(text, sizeof text, ",\"%s\":%" PRIu64, name, value);
    put(l, text, (size_t)n);
}

static void put_time(line *l, int64_t ms) {
    char text[CB_DATE_BYTES];
    cb_date_text(text, ms);
    put(l, "{\"time\":\"", 9);
    put(l, text, strlen(text));
    put(l, "\"", 1);
}

static const char *version_text(int version) {
    return version == CB_HTTP_3 ? "3" : version == CB_HTTP_2 ? "2" : "1.1";
}

int cb_access_line(cb_buf *out, const cb_access_record *r) {
    line l = {.out = out, .rc = CB_OK};
    size_t before = out->len;
    char duration[48];
    put_time(&l, r->time_ms);
    member(&l, "remote", cb_slice_str(r->remote));
    member(&l, "method", r->method);
    member(&l, "host", r->host);
    member(&l, "path", r->path);
    number(&l, "status", (uint64_t)(r->status > 0 ? r->status : 0));
    member(&l, "version", cb_slice_str(version_text(r->version)));
    number(&l, "bytes_in", r->bytes_in);
    number(&l, "bytes_out", r->bytes_out);
    int n = snprintf(duration, sizeof duration, ",\"duration_ms\":%" PRIu64 ".%03u", r->duration_us / 1000,
                     (unsigned)(r->duration_us % 1000));
    put(&l, duration, (size_t)n);
    member(&l, "route", cb_slice_str(r->route));
    member(&l, "origin", cb_slice_str(r->origin));
    member(&l, "reason", cb_slice_str(r->reason));
    member(&l, "request_id", r->request_id);
    member(&l, "subject", cb_slice_str(r->subject));
    member(&l, "tenant", cb_slice_str(r->tenant));
    member(&l, "auth", cb_slice_str(r->auth));
    member(&l, "auth_reason", cb_slice_str(r->auth_reason));
    member(&l, "auth_rule", cb_slice_str(r->auth_rule));
    put(&l, "}\n", 2);
    if (l.rc < 0) out->len = before;
    return l.rc;
}
