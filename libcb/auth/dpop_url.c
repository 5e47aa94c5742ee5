#include "auth/dpop.h"
#include <stdlib.h>
#include <string.h>
#include <strings.h>

typedef struct writer {
    char *out;
    size_t len;
    bool full;
} writer;

static void put(writer *w, char c) {
    if (w->len + 1 >= CB_DPOP_URL_BYTES)
        w->full = true;
    else
        w->out[w->len++] = c;
}

static char lower(char c) {
    return c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
}

static int hex(char c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

static bool unreserved(int c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '.' ||
           c == '_' || c == '~';
}

/* host[:port] up to `end`, in lower case and without the scheme's own port. */
static bool put_authority(writer *w, const char *p, const char *end, const char *own_port) {
    const char *colon = NULL, *at = p, *close = p < end && *p == '[' ? memchr(p, ']', (size_t)(end - p)) : NULL;
    if (p < end && *p == '[' && (!close || (close + 1 < end && close[1] != ':'))) return false;
    for (; at < end; at++)
        if ((unsigned char)*at <= ' ' || (unsigned char)*at >= 0x7f || strchr("@%\\", *at)) return false;
    for (at = close ? close + 1 : p; at < end; at++) {
        if (*at == '[' || *at == ']' || (*at == ':' && colon)) return false;
        if (*at == ':') colon = at;
    }
    const char *host_end = colon ? colon : end;
    if (host_end == p) return false;
    for (at = p; at < host_end; at++)
        put(w, lower(*at));
    if (!colon || colon + 1 == end) return true;
    for (at = colon + 1; at < end; at++)
        if (*at < '0' || *at > '9') return false;
    for (at = colon + 1; at + 1 < end && *at == '0';)
        at++;
    if ((size_t)(end - at) == strlen(own_port) && memcmp(at, own_port, (size_t)(end - at)) == 0) return true;
    put(w, ':');
    for (; at < end; at++)
        put(w, *at);
    return true;
}

/* Percent-encoding as RFC 3986 6.2.2 wants it: upper case, and none where none is needed. */
static bool put_path(writer *w, const char *p, const char *end) {
    static const char digits[] = "0123456789ABCDEF";
    for (; p < end; p++) {
        if ((unsigned char)*p <= ' ' || (unsigned char)*p >= 0x7f || *p == '\\') return false;
        if (*p != '%') {
            put(w, *p);
            continue;
        }
        int high = end - p >= 3 ? hex(p[1]) : -1, low = end - p >= 3 ? hex(p[2]) : -1;
        if (high < 0 || low < 0) return false;
        int c = high << 4 | low;
        if (unreserved(c)) {
            put(w, (char)c);
        } else {
            put(w, '%');
            put(w, digits[high]);
            put(w, digits[low]);
        }
        p += 2;
    }
    return true;
}

/* RFC 3986 5.2.4, in place; path begins with a slash. Returns its new length. */
static size_t drop_dots(char *path, size_t len) {
    size_t to = 0;
    for (size_t at = 0; at < len;) {
        size_t n = 1;
        while (at + n < len && path[at + n] != '/')
            n++;
        bool last = at + n == len;
        if (n == 2 && path[at + 1] == '.') {
            if (last) path[to++] = '/';
        } else if (n == 3 && path[at + 1] == '.' && path[at + 2] == '.') {
            while (to && path[--to] != '/')
                ;
            if (last) path[to++] = '/';
        } else {
            memmove(path + to, path + at, n);
            to += n;
        }
        at += n;
    }
    return to;
}

int cb_dpop_url(char *out, const char *url) {
    writer w = {.out = out};
    bool tls = strncasecmp(url, "https://", 8) == 0;
    if (!tls && strncasecmp(url, "http://", 7) != 0) return CB_EINVAL;
    const char *host = url + (tls ? 8 : 7), *path = host + strcspn(host, "/?#"), *end = path + strcspn(path, "?#");
    for (const char *p = tls ? "https://" : "http://"; *p; p++)
        put(&w, *p);
    if (!put_authority(&w, host, path, tls ? "443" : "80")) return CB_EINVAL;
    size_t start = w.len;
    if (path == end) put(&w, '/');
    if (!put_path(&w, path, end) || w.full) return CB_EINVAL;
    w.len = start + drop_dots(out + start, w.len - start);
    out[w.len] = '\0';
    return CB_OK;
}
