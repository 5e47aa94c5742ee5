/* Records and heads as text. */
#include "base/error.h"
#include <cb/audit.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define HOST_CHARS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.:_-"
static const char *const outcomes[] = {"?", "done", "denied", "failed"};

typedef struct line {
    char *out;
    size_t cap, len;
    bool full;
} line;

static void put(line *l, const char *text, size_t len) {
    l->full = l->full || l->cap - l->len <= len;
    if (l->full) return;
    memcpy(l->out + l->len, text, len);
    l->len += len;
}

static void put_text(line *l, const char *text) {
    put(l, text, strlen(text));
}

static void put_hex(line *l, const uint8_t *p, size_t len) {
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < len; i++)
        put(l, (char[]){digits[p[i] >> 4], digits[p[i] & 15]}, 2);
}

static void put_number(line *l, uint64_t v) {
    char text[24];
    put(l, text, (size_t)snprintf(text, sizeof text, "%" PRIu64, v));
}

static void put_time(line *l, int64_t time_us) {
    const time_t s = (time_t)(time_us / 1000000);
    struct tm tm;
    char when[48];
    if (time_us < 0 || !gmtime_r(&s, &tm) || tm.tm_year > 8099) {
        put_text(l, "-");
        return;
    }
    size_t n = strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%S", &tm);
    n += (size_t)snprintf(when + n, sizeof when - n, ".%06dZ", (int)(time_us % 1000000));
    put(l, when, n);
}

/* ---- JSON ---- */

static void json_name(line *l, const char *name) {
    put_text(l, ",\"");
    put_text(l, name);
    put_text(l, "\":\"");
}

static void json_member(line *l, const char *name, cb_slice s) {
    if (!s.len) return;
    json_name(l, name);
    for (size_t i = 0; i < s.len; i++) {
        const uint8_t c = s.base[i];
        if (c < 0x20 || c >= 0x7f) {
            put_text(l, "\\u00");
            put_hex(l, &c, 1);
            continue;
        }
        if (c == '"' || c == '\\') put_text(l, "\\");
        put(l, (const char *)&c, 1);
    }
    put_text(l, "\"");
}

static void json_hash(line *l, const char *name, cb_slice s) {
    if (!s.len) return;
    json_name(l, name);
    put_hex(l, s.base, s.len);
    put_text(l, "\"");
}

static void json_line(line *l, const cb_audit_record *r) {
    put_text(l, "{\"seq\":");
    put_number(l, r->seq);
    put_text(l, ",\"time\":\"");
    put_time(l, r->time_us);
    put_text(l, "\",\"outcome\":\"");
    put_text(l, outcomes[r->outcome]);
    put_text(l, "\"");
    json_member(l, "actor", r->actor);
    json_member(l, "tenant", r->tenant);
    json_member(l, "action", r->action);
    json_member(l, "object", r->object);
    json_member(l, "detail", r->detail);
    json_hash(l, "before", r->before);
    json_hash(l, "after", r->after);
    put_text(l, "}");
}

/* ---- syslog ---- */

/* One parameter of RFC 5424 6.3.3: '"', '\\' and ']' are escaped; what is not printable ASCII becomes '?', for the
 * parameter must be UTF-8. The JSON form keeps every byte. */
static void param(line *l, const char *name, cb_slice s) {
    if (!s.len) return;
    put_text(l, " ");
    put_text(l, name);
    put_text(l, "=\"");
    for (size_t i = 0; i < s.len; i++) {
        const uint8_t c = s.base[i];
        if (c == '"' || c == '\\' || c == ']') put_text(l, "\\");
        put(l, c < 0x20 || c >= 0x7f ? "?" : (const char *)&c, 1);
    }
    put_text(l, "\"");
}

/* Facility 13 (log audit); notice, and warning for what was denied or failed. */
static void syslog_line(line *l, const cb_audit_record *r, const char *host) {
    put_text(l, "<");
    put_number(l, 13 * 8 + (r->outcome == CB_AUDIT_DONE ? 5 : 4));
    put_text(l, ">1 ");
    put_time(l, r->time_us);
    put_text(l, " ");
    put_text(l, host ? host : "-");
    put_text(l, " cb-audit - - [audit@32473 seq=\"");
    put_number(l, r->seq);
    put_text(l, "\" outcome=\"");
    put_text(l, outcomes[r->outcome]);
    put_text(l, "\"");
    param(l, "actor", r->actor);
    param(l, "tenant", r->tenant);
    param(l, "action", r->action);
    param(l, "object", r->object);
    param(l, "detail", r->detail);
    put_text(l, "]");
}

int cb_audit_line(char *out, size_t cap, const cb_audit_record *r, int form, const char *host) {
    line l = {.out = out, .cap = cap};
    if (!out || !r) return cb_fail(CB_EINVAL, "cb_audit_line: %s is NULL", out ? "record" : "out");
    if (r->outcome < CB_AUDIT_DONE || r->outcome > CB_AUDIT_FAILED)
        return cb_fail(CB_EINVAL, "cb_audit_line: %d is no outcome", (int)r->outcome);
    if (host && (!*host || strlen(host) > 255 || strspn(host, HOST_CHARS) != strlen(host)))
        return cb_fail(CB_EINVAL, "\"%.80s\" is no host name", host);
    if (form == CB_AUDIT_JSON)
        json_line(&l, r);
    else if (form == CB_AUDIT_SYSLOG)
        syslog_line(&l, r, host);
    else
        return cb_fail(CB_EINVAL, "cb_audit_line: %d is no form", form);
    if (l.full || !cap) return cb_fail(CB_ELIMIT, "cb_audit_line: %zu bytes are too few", cap);
    out[l.len] = '\0';
    return (int)l.len;
}

/* ---- heads ---- */

void cb_audit_head_text(const cb_audit_head *head, char *out) {
    line l = {.out = out, .cap = CB_AUDIT_HEAD_MAX};
    put_number(&l, head->seq);
    put_text(&l, ":");
    put_hex(&l, head->hash, CB_AUDIT_HASH);
    out[l.len] = '\0';
}

static int digit(char c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

int cb_audit_head_read(cb_audit_head *out, const char *text) {
    cb_audit_head head = {.seq = 0};
    const char *p = text;
    if (!out || !text) return cb_fail(CB_EINVAL, "cb_audit_head_read: %s is NULL", out ? "text" : "out");
    for (; *p >= '0' && *p <= '9' && head.seq <= UINT64_MAX / 10 - 1; p++)
        head.seq = head.seq * 10 + (uint64_t)(*p - '0');
    bool fine = head.seq > 0 && *p++ == ':';
    for (size_t i = 0; fine && i < CB_AUDIT_HASH; i++, p += 2) {
        const int high = digit(p[0]), low = high < 0 ? -1 : digit(p[1]);
        fine = low >= 0;
        if (fine) head.hash[i] = (uint8_t)(high << 4 | low);
    }
    if (!fine || p[strspn(p, " \r\n\t")]) return cb_fail(CB_EINVAL, "\"%.100s\" is not NUMBER:HASH", text);
    *out = head;
    return CB_OK;
}
