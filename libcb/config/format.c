/* Formats of texts, and which known name is near to an unknown one. */
#include "base/addr.h"
#include "base/error.h"
#include "config/draft.h"
#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

static bool alnum(char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static const char *wrong_listen(const char *text) {
    cb_addr a;
    if (!strchr(text, ':')) return "must be \"address:port\" or \":port\"";
    if (cb_addr_parse(&a, text, 0) == CB_OK) return NULL;
    return "must be \"address:port\" with a literal address (IPv6 in brackets), or \":port\"";
}

static const char *wrong_cidr(const char *text) {
    char address[64];
    uint8_t bytes[16];
    const char *slash = strchr(text, '/');
    size_t n = slash ? (size_t)(slash - text) : strlen(text);
    if (n >= sizeof address) return "is not an IP prefix";
    memcpy(address, text, n);
    address[n] = '\0';
    int bits = inet_pton(AF_INET, address, bytes) == 1 ? 32 : inet_pton(AF_INET6, address, bytes) == 1 ? 128 : 0;
    if (!bits) return "is not an IP prefix such as \"10.0.0.0/8\" or \"2001:db8::/32\"";
    if (!slash) return NULL;
    size_t digits = strspn(slash + 1, "0123456789");
    long len = digits && digits <= 3 && !slash[1 + digits] ? strtol(slash + 1, NULL, 10) : -1;
    if (len < 0 || len > bits) return "has a prefix length that does not fit its address family";
    for (int i = (int)len; i < bits; i++)
        if (bytes[i / 8] & 0x80 >> i % 8) return "has bits set beyond its prefix length";
    return NULL;
}

/* A DNS name of letters, digits, "-" and "_". */
static const char *wrong_name(const char *text, size_t len) {
    size_t label = 0;
    if (!len) return "has no host name";
    if (len > 253) return "the host name is longer than 253 bytes";
    for (size_t i = 0; i < len; i++) {
        if (text[i] == '.') {
            if (!label) return "the host name has an empty label";
            label = 0;
            continue;
        }
        if (!alnum(text[i]) && text[i] != '-' && text[i] != '_') return "the host name has a character that none has";
        if (++label > 63) return "the host name has a label of more than 63 bytes";
    }
    return NULL;
}

static const char *wrong_port(const char *text) {
    size_t n = strspn(text, "0123456789");
    if (n && n <= 5 && !text[n] && strtol(text, NULL, 10) > 0 && strtol(text, NULL, 10) <= 65535) return NULL;
    return "the port must be 1 to 65535";
}

static const char *wrong_origin(const char *text) {
    uint8_t bytes[16];
    char literal[64];
    const char *host = strncmp(text, "http://", 7) == 0    ? text + 7
                       : strncmp(text, "https://", 8) == 0 ? text + 8
                                                           : NULL;
    if (!host) return "must begin with \"http://\" or \"https://\"";
    if (strpbrk(host, "/?#@ ")) return "must be only \"scheme://host:port\", without a path or user";
    const char *rest;
    if (*host == '[') {
        const char *close = strchr(host, ']');
        size_t n = close ? (size_t)(close - host) - 1 : sizeof literal;
        if (n >= sizeof literal) return "has a \"[\" without an IPv6 address and \"]\"";
        memcpy(literal, host + 1, n);
        literal[n] = '\0';
        if (inet_pton(AF_INET6, literal, bytes) != 1) return "has no IPv6 address in its brackets";
        rest = close + 1;
        if (*rest && *rest != ':') return "has something after \"]\" that is no port";
    } else {
        size_t n = strcspn(host, ":");
        const char *wrong = wrong_name(host, n);
        if (wrong) return wrong;
        rest = host + n;
    }
    return *rest ? wrong_port(rest + 1) : NULL;
}

static const char *wrong_host(const char *text) {
    uint8_t bytes[16];
    char literal[64];
    size_t n = strlen(text);
    if (strcmp(text, "*") == 0) return NULL;
    if (*text == '[' && n > 2 && n < sizeof literal && text[n - 1] == ']') {
        memcpy(literal, text + 1, n - 2);
        literal[n - 2] = '\0';
        return inet_pton(AF_INET6, literal, bytes) == 1 ? NULL : "has no IPv6 address in its brackets";
    }
    if (strncmp(text, "*.", 2) == 0) text += 2;
    if (strchr(text, '*')) return "\"*\" may only stand alone or as the first label";
    if (strchr(text, ':')) return "is a host without a port";
    return wrong_name(text, strlen(text));
}

static const char *wrong_path(const char *text) {
    if (*text != '/') return "must begin with \"/\"";
    for (const char *p = text; *p; p++) {
        if ((unsigned char)*p <= ' ' || (unsigned char)*p >= 0x7f) return "has a byte that must be percent-encoded";
        if (*p == '?' || *p == '#') return "must be a path without query and fragment";
        if (*p != '/') continue;
        size_t n = strcspn(p + 1, "/");
        if ((n == 1 && p[1] == '.') || (n == 2 && p[1] == '.' && p[2] == '.')) return "has a \".\" or \"..\" segment";
    }
    return NULL;
}

static const char *wrong_label(const char *text) {
    if (!alnum(*text)) return "must begin with a letter or digit";
    for (; *text; text++)
        if (!alnum(*text) && !strchr("-_.", *text)) return "may have letters, digits, \"-\", \"_\" and \".\" only";
    return NULL;
}

static const char *wrong_file(const char *text) {
    return *text ? NULL : "is an empty path";
}

static const struct {
    const char *name;
    const char *(*wrong)(const char *text);
} formats[] = {
    [CB_FORMAT_LISTEN] = {"listen-address", wrong_listen},
    [CB_FORMAT_CIDR] = {"ip-prefix", wrong_cidr},
    [CB_FORMAT_ORIGIN] = {"origin-url", wrong_origin},
    [CB_FORMAT_HOST] = {"host-pattern", wrong_host},
    [CB_FORMAT_PATH] = {"url-path", wrong_path},
    [CB_FORMAT_FILE] = {"file-path", wrong_file},
    [CB_FORMAT_NAME] = {"name", wrong_label},
};

const char *cb_config_format_wrong(int format, const char *text) {
    size_t f = (size_t)format;
    return f < sizeof formats / sizeof *formats && formats[f].wrong ? formats[f].wrong(text) : NULL;
}

const char *cb_config_format_name(int format) {
    size_t f = (size_t)format;
    return f < sizeof formats / sizeof *formats ? formats[f].name : NULL;
}

/* ---- near names ---- */

enum { NEAR_LEN = 48 };

static size_t least(size_t a, size_t b) {
    return a < b ? a : b;
}

/* Edits (insert, delete, replace, swap neighbours) between two short texts, upper and lower case alike. */
static size_t edits(const char *a, const char *b) {
    size_t rows[3][NEAR_LEN + 1], n = strlen(a), m = strlen(b);
    if (n > NEAR_LEN || m > NEAR_LEN) return NEAR_LEN;
    size_t *before = rows[0], *last = rows[1], *now = rows[2];
    for (size_t j = 0; j <= m; j++)
        last[j] = j;
    for (size_t i = 1; i <= n; i++) {
        now[0] = i;
        for (size_t j = 1; j <= m; j++) {
            size_t same = (a[i - 1] | 0x20) == (b[j - 1] | 0x20) ? 0 : 1;
            now[j] = least(least(now[j - 1], last[j]) + 1, last[j - 1] + same);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                now[j] = least(now[j], before[j - 2] + 1);
        }
        size_t *oldest = before;
        before = last;
        last = now;
        now = oldest;
    }
    return last[m];
}

const char *cb_config_nearest(const char *text, const char *const *names, size_t n) {
    const char *best = NULL;
    size_t best_edits = 1 + least(strlen(text) / 3 + 1, 3);
    for (size_t i = 0; i < n; i++) {
        size_t e = edits(text, names[i]);
        if (e >= best_edits || e >= strlen(names[i])) continue;
        best_edits = e;
        best = names[i];
    }
    return best;
}
