#include "base/addr.h"
#include "base/error.h"
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

enum { HOST_TEXT = 60 };

static bool read_number(const char *text, uint32_t max, uint32_t *out) {
    uint64_t n = 0;
    if (!*text) return false;
    for (; *text; text++) {
        if (*text < '0' || *text > '9') return false;
        n = n * 10 + (uint64_t)(*text - '0');
        if (n > max) return false;
    }
    *out = (uint32_t)n;
    return true;
}

/* "address" or "address%scope"; host is changed. */
static bool read_v6(char *host, struct sockaddr_in6 *out) {
    char *scope = strchr(host, '%');
    if (scope) {
        *scope++ = '\0';
        if (!read_number(scope, UINT32_MAX, &out->sin6_scope_id)) return false;
    }
    return inet_pton(AF_INET6, host, &out->sin6_addr) == 1;
}

/* Splits at the port: host gets the address without brackets; *port the text after ':' or NULL. */
static bool split(const char *text, char host[HOST_TEXT], const char **port) {
    const char *end = NULL;
    *port = NULL;
    if (*text == '[') {
        end = strchr(++text, ']');
        if (!end) return false;
        if (end[1] == ':') {
            *port = end + 2;
        } else if (end[1]) {
            return false;
        }
    } else {
        const char *colon = strchr(text, ':');
        bool bare_v6 = colon && strchr(colon + 1, ':');
        end = colon && !bare_v6 ? colon : text + strlen(text);
        if (colon && !bare_v6) *port = colon + 1;
    }
    if ((size_t)(end - text) >= HOST_TEXT) return false;
    memcpy(host, text, (size_t)(end - text));
    host[end - text] = '\0';
    return true;
}

const char *cb_unix_path(const char *text) {
    return text && strncmp(text, "unix:", 5) == 0 ? text + 5 : NULL;
}

int cb_unix_addr(struct sockaddr_un *out, const char *path) {
    const size_t n = strlen(path);
    if (*path != '/') return cb_fail(CB_EINVAL, "unix:%.80s: write unix:/PATH, an absolute path", path);
    if (n >= sizeof out->sun_path)
        return cb_fail(CB_EINVAL, "unix:%.80s...: a path of %zu bytes; the kernel takes %zu", path, n,
                       sizeof out->sun_path - 1);
    *out = (struct sockaddr_un){.sun_family = AF_UNIX};
    memcpy(out->sun_path, path, n);
    return CB_OK;
}

int cb_addr_parse(cb_addr *out, const char *text, uint16_t default_port) {
    char host[HOST_TEXT];
    const char *port_text = NULL;
    uint32_t port = default_port;
    cb_addr a;

    memset(&a, 0, sizeof a);
    if (!text || !*text) return cb_fail(CB_EINVAL, "an address is empty; write ADDRESS:PORT or [IPV6]:PORT");
    if (!split(text, host, &port_text))
        return cb_fail(CB_EINVAL, "address \"%.80s\": brackets do not match; write [IPV6]:PORT", text);
    if (port_text && !read_number(port_text, 65535, &port))
        return cb_fail(CB_EINVAL, "address \"%.80s\": \"%.20s\" is not a port (0 to 65535)", text, port_text);
    if (inet_pton(AF_INET, host, &a.v4.sin_addr) == 1 && *text != '[') {
        a.v4.sin_family = AF_INET;
        a.v4.sin_port = htons((uint16_t)port);
        *out = a;
        return CB_OK;
    }
    memset(&a, 0, sizeof a);
    if (host[0] ? !read_v6(host, &a.v6) : !port_text || *text == '[')
        return cb_fail(CB_EINVAL, "address \"%.80s\": not an IPv4 or IPv6 address (names are not resolved here)", text);
    a.v6.sin6_family = AF_INET6;
    a.v6.sin6_port = htons((uint16_t)port);
    *out = a;
    return CB_OK;
}

void cb_addr_unmap(cb_addr *a) {
    if (a->sa.sa_family != AF_INET6 || !IN6_IS_ADDR_V4MAPPED(&a->v6.sin6_addr)) return;
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = a->v6.sin6_port};
    memcpy(&v4.sin_addr, a->v6.sin6_addr.s6_addr + 12, 4);
    memset(a, 0, sizeof *a);
    a->v4 = v4;
}

/* Addresses are written for every request: by hand this costs a tenth of what printf does. */
static char *put_number(char *at, unsigned n) {
    char digits[10];
    size_t len = 0;
    do
        digits[len++] = (char)('0' + n % 10);
    while (n /= 10);
    while (len)
        *at++ = digits[--len];
    return at;
}

static char *put_v4(char *at, const struct in_addr *v4) {
    const uint8_t *b = (const uint8_t *)v4;
    for (int i = 0; i < 4; i++) {
        if (i) *at++ = '.';
        at = put_number(at, b[i]);
    }
    return at;
}

static const char *put_host(const cb_addr *a, char out[CB_ADDR_TEXT]) {
    cb_addr u = *a;
    cb_addr_unmap(&u);
    if (u.sa.sa_family == AF_INET) {
        *put_v4(out, &u.v4.sin_addr) = '\0';
    } else if (u.sa.sa_family == AF_INET6) {
        inet_ntop(AF_INET6, &u.v6.sin6_addr, out, CB_ADDR_TEXT);
        size_t n = strlen(out);
        if (u.v6.sin6_scope_id) snprintf(out + n, CB_ADDR_TEXT - n, "%%%u", (unsigned)u.v6.sin6_scope_id);
    } else {
        snprintf(out, CB_ADDR_TEXT, "%s", u.sa.sa_family == AF_UNIX ? "unix" : "none");
    }
    return out;
}

const char *cb_addr_host(const cb_addr *a, char out[CB_ADDR_TEXT]) {
    return put_host(a, out);
}

const char *cb_addr_text(const cb_addr *a, char out[CB_ADDR_TEXT]) {
    char host[CB_ADDR_TEXT];
    if (a->sa.sa_family == AF_INET) {
        char *at = put_v4(out, &a->v4.sin_addr);
        *at++ = ':';
        *put_number(at, ntohs(a->v4.sin_port)) = '\0';
        return out;
    }
    put_host(a, host);
    bool v6 = strchr(host, ':') != NULL;
    if (a->sa.sa_family != AF_INET && a->sa.sa_family != AF_INET6) return memcpy(out, host, sizeof host);
    snprintf(out, CB_ADDR_TEXT, v6 ? "[%.56s]:%u" : "%.56s:%u", host, (unsigned)cb_addr_port(a));
    return out;
}

socklen_t cb_addr_len(const cb_addr *a) {
    if (a->sa.sa_family == AF_INET) return sizeof a->v4;
    return a->sa.sa_family == AF_INET6 ? sizeof a->v6 : 0;
}

uint16_t cb_addr_port(const cb_addr *a) {
    if (a->sa.sa_family == AF_INET) return ntohs(a->v4.sin_port);
    return a->sa.sa_family == AF_INET6 ? ntohs(a->v6.sin6_port) : 0;
}

void cb_addr_set_port(cb_addr *a, uint16_t port) {
    if (a->sa.sa_family == AF_INET) a->v4.sin_port = htons(port);
    if (a->sa.sa_family == AF_INET6) a->v6.sin6_port = htons(port);
}

bool cb_addr_same_host(const cb_addr *a, const cb_addr *b) {
    cb_addr x = *a, y = *b;
    cb_addr_unmap(&x);
    cb_addr_unmap(&y);
    if (x.sa.sa_family != y.sa.sa_family) return false;
    if (x.sa.sa_family == AF_INET) return x.v4.sin_addr.s_addr == y.v4.sin_addr.s_addr;
    if (x.sa.sa_family != AF_INET6) return false;
    if (memcmp(&x.v6.sin6_addr, &y.v6.sin6_addr, sizeof x.v6.sin6_addr)) return false;
    return !IN6_IS_ADDR_LINKLOCAL(&x.v6.sin6_addr) || x.v6.sin6_scope_id == y.v6.sin6_scope_id;
}

bool cb_addr_is_any(const cb_addr *a) {
    if (a->sa.sa_family == AF_INET) return a->v4.sin_addr.s_addr == INADDR_ANY;
    return a->sa.sa_family == AF_INET6 && IN6_IS_ADDR_UNSPECIFIED(&a->v6.sin6_addr);
}

bool cb_addr_equal(const cb_addr *a, const cb_addr *b) {
    return cb_addr_port(a) == cb_addr_port(b) && cb_addr_same_host(a, b);
}
