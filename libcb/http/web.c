#include "http/web.h"
#include "base/error.h"
#include <stdio.h>
#include <string.h>
#include <strings.h>

enum { WEEK_S = 7 * 86400 };

bool cb_web_is_type(cb_slice type, const char *want) {
    const size_t n = strlen(want);
    if (type.len < n || strncasecmp((const char *)type.base, want, n) != 0) return false;
    return type.len == n || type.base[n] == ';' || type.base[n] == ' ' || type.base[n] == '\t';
}

static size_t origin_of(const char *url) {
    return 8 + strcspn(url + 8, "/?#");
}

int cb_web_url_check(const char *url, const char *base, bool any, const char *what) {
    char shown[120];
    if (!url) return cb_fail(CB_EPROTO, "the server gives no URL of %s", what);
    cb_web_plain(shown, sizeof shown, url);
    if (strlen(url) > CB_WEB_URL_BYTES) return cb_fail(CB_EPROTO, "%s: a URL longer than %d", what, CB_WEB_URL_BYTES);
    if (strncasecmp(url, "https://", 8) != 0) return cb_fail(CB_EPROTO, "%s: \"%s\" is not https", what, shown);
    for (const char *p = url; *p; p++) {
        if (*p <= ' ' || *p >= 0x7f || strchr("\"\\<>^`{|}", *p)) {
            return cb_fail(CB_EPROTO, "%s: \"%s\" is not a URL", what, shown);
        }
    }
    const size_t n = origin_of(url);
    if (n == 8 || memchr(url + 8, '@', n - 8)) return cb_fail(CB_EPROTO, "%s: \"%s\" is not a URL", what, shown);
    if (!any && (n != origin_of(base) || strncasecmp(url, base, n) != 0)) {
        return cb_fail(CB_EPROTO, "%s: \"%s\" leads to another host than the directory", what, shown);
    }
    return CB_OK;
}

bool cb_web_is_token(const char *text, size_t len, size_t max) {
    if (len == 0 || len > max) return false;
    for (size_t i = 0; i < len; i++) {
        const char c = text[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_')) {
            return false;
        }
    }
    return true;
}

void cb_web_plain(char *out, size_t cap, const char *text) {
    size_t n = 0;
    for (; text && *text && n + 1 < cap; text++) {
        out[n++] = *text < ' ' || *text >= 0x7f ? '?' : *text;
    }
    out[n] = '\0';
}

static int64_t days_of(int y, int m, int d) { /* since 1970-01-01, proleptic Gregorian */
    y -= m <= 2;
    const int era = y / 400, yoe = y - era * 400;
    const int doy = (153 * (m + (m > 2 ? -3 : 9)) + 2) / 5 + d - 1;
    return (int64_t)era * 146097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719468;
}

static bool clock_ok(int y, int mo, int d, int h, int mi, int s) {
    return y >= 1970 && y <= 9999 && mo >= 1 && mo <= 12 && d >= 1 && d <= 31 && h >= 0 && h <= 23 && mi >= 0 &&
           mi <= 59 && s >= 0 && s <= 60;
}

int64_t cb_web_date(const char *text) {
    int y, mo, d, h, mi, s, used = 0, oh = 0, om = 0, zone = 0;
    char sign = 'Z';
    if (!text || strlen(text) > 40 || sscanf(text, "%4d-%2d-%2dT%2d:%2d:%2d%n", &y, &mo, &d, &h, &mi, &s, &used) != 6 ||
        !clock_ok(y, mo, d, h, mi, s)) {
        return cb_fail(CB_EPROTO, "a date that is none");
    }
    text += used;
    if (*text == '.') text += 1 + strspn(text + 1, "0123456789");
    if (strcmp(text, "Z") != 0) {
        if (sscanf(text, "%c%2d:%2d%n", &sign, &oh, &om, &zone) != 3 || text[zone] || (sign != '+' && sign != '-') ||
            oh < 0 || oh > 23 || om < 0 || om > 59) {
            return cb_fail(CB_EPROTO, "a date without a time zone");
        }
    }
    const int64_t shift = (oh * 60 + om) * 60;
    return days_of(y, mo, d) * 86400 + h * 3600 + mi * 60 + s - (sign == '-' ? -shift : shift);
}

static int64_t http_date(const char *text) {
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    char name[4] = "", day[4] = "";
    int d, y, h, mi, s;
    if (sscanf(text, "%3[A-Za-z], %2d %3[A-Za-z] %4d %2d:%2d:%2d GMT", day, &d, name, &y, &h, &mi, &s) != 7) return 0;
    const char *at = strlen(name) == 3 ? strstr(months, name) : NULL;
    if (!at || (at - months) % 3) return 0;
    const int mo = (int)(at - months) / 3 + 1;
    return clock_ok(y, mo, d, h, mi, s) ? days_of(y, mo, d) * 86400 + h * 3600 + mi * 60 + s : 0;
}

int64_t cb_web_retry_after(cb_slice value, int64_t now_ms) {
    char text[64];
    int64_t at = 0, limit = now_ms + (int64_t)WEEK_S * 1000;
    if (value.len == 0 || value.len >= sizeof text) return 0;
    memcpy(text, value.base, value.len);
    text[value.len] = '\0';
    if (strspn(text, "0123456789") == value.len) {
        int64_t s = 0;
        for (const char *p = text; *p && s <= WEEK_S; p++)
            s = s * 10 + (*p - '0');
        at = s > WEEK_S ? limit : now_ms + s * 1000;
    } else {
        at = http_date(text) * 1000;
    }
    return at > limit ? limit : at;
}

int cb_web_put_text(cb_buf *out, const char *text) {
    int rc = cb_buf_text(out, "\"");
    for (; rc >= 0 && *text; text++) {
        const unsigned char c = (unsigned char)*text;
        if (c == '"' || c == '\\') {
            rc = cb_buf_printf(out, "\\%c", c);
        } else if (c < 0x20) {
            rc = cb_buf_printf(out, "\\u%04x", c);
        } else {
            rc = cb_buf_add(out, text, 1);
        }
    }
    return rc >= 0 ? cb_buf_text(out, "\"") : rc;
}
