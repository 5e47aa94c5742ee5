/* Which format a scraper asks for (RFC 9110 12.5.1, as far as scrapers use it). */
#include <cb/metrics.h>
#include <stdbool.h>
#include <string.h>
#include <strings.h>

static const char *const types[] = {
    [CB_METRICS_TEXT] = "text/plain; version=0.0.4; charset=utf-8",
    [CB_METRICS_OPENMETRICS] = "application/openmetrics-text; version=1.0.0; charset=utf-8",
    [CB_METRICS_PROTOBUF] =
        "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"};

const char *cb_metrics_content_type(int format) {
    return format >= 0 && format < (int)(sizeof types / sizeof *types) ? types[format] : types[CB_METRICS_TEXT];
}

static cb_slice trim(cb_slice s) {
    while (s.len > 0 && (*s.base == ' ' || *s.base == '\t'))
        s.base++, s.len--;
    while (s.len > 0 && (s.base[s.len - 1] == ' ' || s.base[s.len - 1] == '\t'))
        s.len--;
    return s;
}

/* Takes what stands before the next separator off the front. */
static cb_slice take(cb_slice *rest, char separator) {
    const uint8_t *at = rest->len > 0 ? memchr(rest->base, separator, rest->len) : NULL;
    cb_slice piece = {rest->base, at ? (size_t)(at - rest->base) : rest->len};
    size_t used = at ? piece.len + 1 : piece.len;
    *rest = (cb_slice){rest->len > 0 ? rest->base + used : rest->base, rest->len - used};
    return trim(piece);
}

static bool is(cb_slice s, const char *text) {
    return s.len == strlen(text) && (s.len == 0 || strncasecmp((const char *)s.base, text, s.len) == 0);
}

/* A quality of 0 to 1 with up to three digits, as thousandths; -1 when it is none. */
static int quality(cb_slice s) {
    if (s.len == 0 || s.len > 5 || s.base[0] > '1' || s.base[0] < '0' || (s.len > 1 && s.base[1] != '.')) return -1;
    int q = (s.base[0] - '0') * 1000, worth = 100;
    for (size_t i = 2; i < s.len; i++, worth /= 10) {
        if (s.base[i] < '0' || s.base[i] > '9') return -1;
        q += (s.base[i] - '0') * worth;
    }
    return q > 1000 ? -1 : q;
}

/* One element: its quality in thousandths, and the format; -1: nothing that is made here. */
static int element(cb_slice text, int *format) {
    static const struct {
        const char *type;
        int format;
        const char *name, *value; /* a parameter that must be so when it is there */
    } known[] = {{"text/plain", CB_METRICS_TEXT, "version", "0.0.4"},
                 {"text/*", CB_METRICS_TEXT, "", ""},
                 {"*/*", CB_METRICS_TEXT, "", ""},
                 {"application/openmetrics-text", CB_METRICS_OPENMETRICS, "version", "1.0.0"},
                 {"application/vnd.google.protobuf", CB_METRICS_PROTOBUF, "encoding", "delimited"}};
    cb_slice type = take(&text, ';');
    size_t i = 0, n = sizeof known / sizeof *known;
    int q = 1000;
    while (i < n && !is(type, known[i].type))
        i++;
    if (i == n) return -1;
    while (text.len > 0) {
        cb_slice value = take(&text, ';'), name = take(&value, '=');
        value = trim(value);
        if (is(name, "q") && (q = quality(value)) < 0) return -1;
        if (is(name, known[i].name) && !is(value, known[i].value)) return -1;
        if (is(name, "proto") && !is(value, "io.prometheus.client.MetricFamily")) return -1;
    }
    *format = known[i].format;
    return q;
}

int cb_metrics_negotiate(cb_slice accept) {
    int best = 0, chosen = CB_METRICS_TEXT;
    while (accept.len > 0) {
        int format = CB_METRICS_TEXT, q = element(take(&accept, ','), &format);
        if (q <= best) continue;
        best = q;
        chosen = format;
    }
    return chosen;
}
