/* Names decide: a list of those in use, and parts of names that few others have. Hiding too much costs a reader a
 * guess, hiding too little a secret. */
#include "telemetry/redact.h"
#include <string.h>

enum { NAME_MAX = 64 };

static int hex_digit(uint8_t c) {
    if (c >= '0' && c <= '9') return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Lower case without "-", "_" and "."; percent-escapes are resolved. Longer names are cut. */
static size_t folded(char out[NAME_MAX], cb_slice name) {
    size_t n = 0;
    for (size_t i = 0; i < name.len && n < NAME_MAX; i++) {
        uint8_t c = name.base[i];
        const bool escape = c == '%' && i + 2 < name.len;
        const int high = escape ? hex_digit(name.base[i + 1]) : -1, low = escape ? hex_digit(name.base[i + 2]) : -1;
        if (high >= 0 && low >= 0) {
            c = (uint8_t)(high * 16 + low);
            i += 2;
        }
        if (c == '-' || c == '_' || c == '.') continue;
        out[n++] = (char)(c >= 'A' && c <= 'Z' ? c + 32 : c);
    }
    return n;
}

static bool secret_name(cb_slice name, const char *const *whole, size_t n_whole) {
    static const char *const parts[] = {"token",     "secret",     "passw",   "signature", "apikey",
                                        "accesskey", "credential", "session", "assertion", "samlresponse"};
    char text[NAME_MAX];
    const size_t n = folded(text, name);
    for (size_t i = 0; i < n_whole; i++)
        if (n == strlen(whole[i]) && memcmp(text, whole[i], n) == 0) return true;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (memmem(text, n, parts[i], strlen(parts[i]))) return true;
    return false;
}

bool cb_redact_field(cb_slice name) {
    static const char *const whole[] = {"authorization", "proxyauthorization", "cookie", "setcookie",
                                        "dpop",          "authenticationinfo"};
    return secret_name(name, whole, sizeof whole / sizeof *whole);
}

bool cb_redact_is_url(cb_slice name) {
    static const char *const names[] = {"referer", "location", "contentlocation", "xoriginalurl", "xrewriteurl"};
    char text[NAME_MAX];
    const size_t n = folded(text, name);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (n == strlen(names[i]) && memcmp(text, names[i], n) == 0) return true;
    return false;
}

static bool secret_parameter(cb_slice name) {
    static const char *const whole[] = {"sig", "code", "key",  "jwt",    "auth", "authorization",
                                        "pwd", "otp",  "pass", "ticket", "pin",  "nonce"};
    return secret_name(name, whole, sizeof whole / sizeof *whole);
}

/* ---- URLs ---- */

typedef struct writer {
    char *out;
    size_t n;
    bool cut;
} writer;

static void put(writer *w, const void *at, size_t n) {
    const size_t room = CB_REDACT_MAX - w->n;
    w->cut = w->cut || n > room;
    if (n > room) n = room;
    if (n) memcpy(w->out + w->n, at, n);
    w->n += n;
}

/* Where "user:password@" of "scheme://user:password@host" has its password; 0: there is none. */
static size_t password_of(cb_slice url, size_t *len) {
    const uint8_t *authority = url.len > 3 ? memmem(url.base, url.len, "://", 3) : NULL;
    if (!authority || url.base[0] == '/') return 0;
    size_t at = (size_t)(authority - url.base) + 3, end = at;
    while (end < url.len && !strchr("/?#", url.base[end]))
        end++;
    const uint8_t *host = memrchr(url.base + at, '@', end - at);
    const uint8_t *colon = host ? memchr(url.base + at, ':', (size_t)(host - url.base) - at) : NULL;
    if (!colon) return 0;
    *len = (size_t)(host - colon) - 1;
    return (size_t)(colon - url.base) + 1;
}

/* Where parameters begin and end: of the path ";", of the query "?", "&" and ";", of the fragment "#". */
enum { STARTS = 1, ENDS_IN_PATH = 2, ENDS_IN_QUERY = 4 };
static const uint8_t marks[256] = {['?'] = STARTS | ENDS_IN_PATH | ENDS_IN_QUERY,
                                   [';'] = STARTS | ENDS_IN_PATH | ENDS_IN_QUERY,
                                   ['#'] = STARTS | ENDS_IN_PATH | ENDS_IN_QUERY,
                                   ['/'] = ENDS_IN_PATH,
                                   ['&'] = ENDS_IN_QUERY};

static size_t until(cb_slice url, size_t at, int mark) {
    while (at < url.len && !(marks[url.base[at]] & mark))
        at++;
    return at;
}

/* From a "?", "&" or ";" on: writes the parameter, without its value when that is secret. Returns where it ends. */
static size_t parameter(writer *w, cb_slice url, size_t at, bool in_query) {
    const size_t name = at + 1, end = until(url, name, in_query ? ENDS_IN_QUERY : ENDS_IN_PATH);
    const uint8_t *sign = memchr(url.base + name, '=', end - name);
    const size_t value = sign ? (size_t)(sign - url.base) + 1 : end;
    const bool hide = end > value && secret_parameter((cb_slice){url.base + name, value - 1 - name});
    put(w, url.base + at, (hide ? value : end) - at);
    if (hide) put(w, CB_REDACTED, sizeof CB_REDACTED - 1);
    return end;
}

cb_slice cb_redact_url(cb_slice url, char *out, bool *cut) {
    writer w = {.out = out};
    size_t at = 0, password_len = 0, password = 0;
    bool in_query = false;
    *cut = false;
    if (url.len <= CB_REDACT_MAX && (!url.len || !memchr(url.base, '=', url.len)) && (!url.len || url.base[0] == '/'))
        return url; /* nearly all */
    password = password_of(url, &password_len);
    if (password) {
        put(&w, url.base, password);
        put(&w, CB_REDACTED, sizeof CB_REDACTED - 1);
        at = password + password_len;
    }
    while (at < url.len && !w.cut) {
        const size_t next = until(url, at, in_query ? ENDS_IN_QUERY : STARTS);
        put(&w, url.base + at, next - at);
        if (next == url.len) break;
        in_query = in_query || url.base[next] != ';'; /* fragments of OAuth's implicit answers look like queries */
        at = parameter(&w, url, next, in_query);
    }
    *cut = w.cut;
    return (cb_slice){(const uint8_t *)out, w.n};
}
