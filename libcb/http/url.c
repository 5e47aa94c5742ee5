#include "http/url.h"
#include "base/error.h"
#include "base/log.h"
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

static int bad(const char *text, const char *what) {
    char safe[200];
    return cb_fail(CB_EINVAL, "URL \"%s\": %s", cb_text_escape(safe, sizeof safe, cb_slice_str(text)), what);
}

static bool host_char(char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_';
}

static int read_port(cb_url *u, const char *text, const char *at, const char *end) {
    uint32_t port = 0;
    if (at == end) return CB_OK; /* "host:" is the scheme's port (RFC 3986, 3.2.3) */
    for (; at < end; at++) {
        if (*at < '0' || *at > '9') return bad(text, "the port is not a number");
        port = port * 10 + (uint32_t)(*at - '0');
        if (port > 65535) return bad(text, "the port is above 65535");
    }
    if (port == 0) return bad(text, "the port is 0");
    u->port = (uint16_t)port;
    return CB_OK;
}

static int read_v6(cb_url *u, const char *text, const char *at, const char *end) {
    struct in6_addr v6;
    if ((size_t)(end - at) > INET6_ADDRSTRLEN) return bad(text, "not an IPv6 address in brackets");
    memcpy(u->host, at, (size_t)(end - at));
    u->host[end - at] = '\0';
    u->v6 = true;
    return inet_pton(AF_INET6, u->host, &v6) == 1 ? CB_OK : bad(text, "not an IPv6 address in brackets");
}

static int read_name(cb_url *u, const char *text, const char *at, const char *end) {
    size_t n = 0;
    if (at == end) return bad(text, "there is no host");
    if (end - at > CB_URL_HOST_BYTES) return bad(text, "the host is longer than 255 bytes");
    for (; at < end; at++) {
        char c = *at >= 'A' && *at <= 'Z' ? (char)(*at + 32) : *at;
        if (!host_char(c)) return bad(text, "the host has a character that no host has (names beyond ASCII: as xn--)");
        u->host[n++] = c;
    }
    u->host[n] = '\0';
    return CB_OK;
}

static int read_authority(cb_url *u, const char *text, const char *at, const char *end) {
    const char *host_end = end, *port = NULL;
    int rc;
    if (memchr(at, '@', (size_t)(end - at))) return bad(text, "user names in URLs are not used; send a field");
    if (at < end && *at == '[') {
        host_end = memchr(at, ']', (size_t)(end - at));
        if (!host_end) return bad(text, "a bracket is not closed");
        if (host_end + 1 < end && host_end[1] != ':') return bad(text, "after the bracket only a port may come");
        if (host_end + 1 < end) port = host_end + 2;
        rc = read_v6(u, text, at + 1, host_end);
    } else {
        const char *colon = memchr(at, ':', (size_t)(end - at));
        if (colon) {
            host_end = colon;
            port = colon + 1;
        }
        rc = read_name(u, text, at, host_end);
    }
    if (rc == CB_OK && port) rc = read_port(u, text, port, end);
    return rc;
}

static int read_target(cb_url *u, const char *text, const char *at) {
    const char *end = at + strcspn(at, "#");
    for (const char *c = at; c < end; c++)
        if (*c <= ' ' || *c >= 0x7f || *c == '\\')
            return bad(text, "the path has a character that must be written as %XX");
    u->target = (cb_slice){(const uint8_t *)at, (size_t)(end - at)};
    u->add_slash = *at != '/';
    return CB_OK;
}

int cb_url_parse(cb_url *out, const char *text) {
    cb_url u = {0};
    if (!text) return cb_fail(CB_EINVAL, "URL: missing");
    if (strlen(text) > CB_URL_TEXT_MAX) return cb_fail(CB_EINVAL, "URL: longer than %d bytes", CB_URL_TEXT_MAX);
    if (strncasecmp(text, "https://", 8) == 0)
        u.tls = true;
    else if (strncasecmp(text, "http://", 7) != 0)
        return bad(text, "it must begin with http:// or https://");
    const char *at = text + (u.tls ? 8 : 7);
    const uint16_t usual = u.tls ? 443 : 80;
    u.port = usual;
    const char *end = at + strcspn(at, "/?#");
    int rc = read_authority(&u, text, at, end);
    if (rc == CB_OK) rc = read_target(&u, text, end);
    if (rc < 0) return rc;
    char port[8] = "";
    if (u.port != usual) snprintf(port, sizeof port, ":%u", u.port);
    snprintf(u.authority, sizeof u.authority, "%s%s%s%s", u.v6 ? "[" : "", u.host, u.v6 ? "]" : "", port);
    *out = u;
    return CB_OK;
}
