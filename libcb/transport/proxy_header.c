#include "transport/proxy_header.h"
#include "base/error.h"
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

enum { V1_MAX = 107, V2_FIXED = 16, V2_IP4 = 12, V2_IP6 = 36 };
enum { CMD_LOCAL = 0x20, CMD_PROXY = 0x21, FAM_TCP4 = 0x11, FAM_TCP6 = 0x21 };

static const uint8_t v1_sign[] = {'P', 'R', 'O', 'X', 'Y', ' '};
static const uint8_t v2_sign[] = {'\r', '\n', '\r', '\n', 0, '\r', '\n', 'Q', 'U', 'I', 'T', '\n'};

static int64_t bad(const char *what) {
    return cb_fail(CB_EPROTO, "PROXY protocol: %s", what);
}

static cb_addr addr4(const uint8_t *ip, uint16_t port) {
    cb_addr a;
    memset(&a, 0, sizeof a);
    a.v4.sin_family = AF_INET;
    memcpy(&a.v4.sin_addr, ip, 4);
    a.v4.sin_port = htons(port);
    return a;
}

static cb_addr addr6(const uint8_t *ip, uint16_t port) {
    cb_addr a;
    memset(&a, 0, sizeof a);
    a.v6.sin6_family = AF_INET6;
    memcpy(&a.v6.sin6_addr, ip, 16);
    a.v6.sin6_port = htons(port);
    return a;
}

/* --- version 1: one line of text --- */

/* Decimal without sign, space or leading zero, as the protocol demands. */
static bool read_port(const char *text, uint16_t *out) {
    unsigned n = 0;
    size_t len = strspn(text, "0123456789");
    if (len == 0 || len > 5 || text[len] || (text[0] == '0' && len > 1)) return false;
    for (size_t i = 0; i < len; i++) {
        n = n * 10 + (unsigned)(text[i] - '0');
    }
    *out = (uint16_t)n;
    return n <= 65535;
}

static bool read_address(const char *text, const char *port_text, bool six, cb_addr *out) {
    uint8_t ip[16];
    uint16_t port;
    if (inet_pton(six ? AF_INET6 : AF_INET, text, ip) != 1 || !read_port(port_text, &port)) return false;
    *out = six ? addr6(ip, port) : addr4(ip, port);
    return true;
}

/* Cuts at single spaces; false when there are not exactly n words. */
static bool split(char *line, char *words[], size_t n) {
    for (size_t i = 0; i < n; i++) {
        words[i] = line;
        char *space = strchr(line, ' ');
        if (!*line || *line == ' ' || !space != (i + 1 == n)) return false;
        if (space) {
            *space = '\0';
            line = space + 1;
        }
    }
    return true;
}

static int64_t read_v1(cb_proxy_header *out, cb_slice in) {
    char line[V1_MAX + 1];
    size_t scan = in.len < V1_MAX ? in.len : V1_MAX;
    const uint8_t *end = memchr(in.base, '\n', scan);
    if (!end) return in.len < V1_MAX ? CB_EAGAIN : bad("the line is longer than 107 bytes");
    size_t len = (size_t)(end - in.base) + 1;
    if (in.base[len - 2] != '\r') return bad("the line does not end with CR LF");
    memcpy(line, in.base, len - 2);
    line[len - 2] = '\0';
    if (strlen(line) != len - 2) return bad("a NUL in the line");
    out->version = 1;
    char *rest = line + sizeof v1_sign;
    if (strncmp(rest, "UNKNOWN", 7) == 0 && (rest[7] == '\0' || rest[7] == ' ')) return (int64_t)len;
    char *words[5];
    if (!split(rest, words, 5)) return bad("not five words after PROXY");
    bool six = strcmp(words[0], "TCP6") == 0;
    if (!six && strcmp(words[0], "TCP4") != 0) return bad("the protocol is not TCP4, TCP6 or UNKNOWN");
    if (!read_address(words[1], words[3], six, &out->source) || !read_address(words[2], words[4], six, &out->dest)) {
        return bad("an address or port cannot be read");
    }
    out->named = true;
    return (int64_t)len;
}

/* --- version 2: binary --- */

static uint16_t be16(const uint8_t *p) {
    return (uint16_t)(p[0] << 8 | p[1]);
}

static int64_t read_v2(cb_proxy_header *out, cb_slice in) {
    if (in.len < V2_FIXED) return CB_EAGAIN;
    const uint8_t command = in.base[12], family = in.base[13];
    const size_t body = be16(in.base + 14), total = V2_FIXED + body;
    const uint8_t *p = in.base + V2_FIXED;
    if (command != CMD_LOCAL && command != CMD_PROXY) return bad("unknown version or command");
    if (total > CB_PROXY_HEADER_MAX) return bad("the header is longer than 4096 bytes");
    if (command == CMD_PROXY && family == FAM_TCP4 && body < V2_IP4) return bad("too short for IPv4 addresses");
    if (command == CMD_PROXY && family == FAM_TCP6 && body < V2_IP6) return bad("too short for IPv6 addresses");
    if (in.len < total) return CB_EAGAIN;
    out->version = 2;
    if (command == CMD_PROXY && family == FAM_TCP4) {
        out->source = addr4(p, be16(p + 8));
        out->dest = addr4(p + 4, be16(p + 10));
        out->named = true;
    } else if (command == CMD_PROXY && family == FAM_TCP6) {
        out->source = addr6(p, be16(p + 32));
        out->dest = addr6(p + 16, be16(p + 34));
        out->named = true;
    }
    if (out->named) {
        cb_addr_unmap(&out->source);
        cb_addr_unmap(&out->dest);
    }
    return (int64_t)total;
}

/* Does `in` begin as `sign` does, as far as it goes? */
static bool begins(cb_slice in, const uint8_t *sign, size_t len) {
    return memcmp(in.base, sign, in.len < len ? in.len : len) == 0;
}

int64_t cb_proxy_header_read(cb_proxy_header *out, cb_slice in) {
    memset(out, 0, sizeof *out);
    if (in.len == 0) return CB_EAGAIN;
    if (begins(in, v1_sign, sizeof v1_sign)) return in.len < sizeof v1_sign ? CB_EAGAIN : read_v1(out, in);
    if (begins(in, v2_sign, sizeof v2_sign)) return in.len < sizeof v2_sign ? CB_EAGAIN : read_v2(out, in);
    return bad("the connection does not begin with a header");
}

/* --- writing --- */

static void as_v6(const cb_addr *a, uint8_t ip[16]) {
    if (a->sa.sa_family == AF_INET6) {
        memcpy(ip, &a->v6.sin6_addr, 16);
        return;
    }
    static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    memcpy(ip, mapped, 12);
    memcpy(ip + 12, &a->v4.sin_addr, 4);
}

static int write_v1(uint8_t *out, const cb_addr *s, const cb_addr *d, bool six) {
    char source[INET6_ADDRSTRLEN], dest[INET6_ADDRSTRLEN];
    uint8_t ip[16];
    if (six) {
        as_v6(s, ip);
        inet_ntop(AF_INET6, ip, source, sizeof source);
        as_v6(d, ip);
        inet_ntop(AF_INET6, ip, dest, sizeof dest);
    } else {
        inet_ntop(AF_INET, &s->v4.sin_addr, source, sizeof source);
        inet_ntop(AF_INET, &d->v4.sin_addr, dest, sizeof dest);
    }
    return snprintf((char *)out, 128, "PROXY TCP%d %s %s %u %u\r\n", six ? 6 : 4, source, dest, cb_addr_port(s),
                    cb_addr_port(d));
}

static int write_v2(uint8_t *out, const cb_addr *s, const cb_addr *d, bool six) {
    const uint16_t ports[2] = {cb_addr_port(s), cb_addr_port(d)};
    uint8_t *p = out + V2_FIXED;
    out[12] = CMD_PROXY;
    out[13] = six ? FAM_TCP6 : FAM_TCP4;
    out[14] = 0;
    out[15] = six ? V2_IP6 : V2_IP4;
    if (six) {
        as_v6(s, p);
        as_v6(d, p + 16);
        p += 32;
    } else {
        memcpy(p, &s->v4.sin_addr, 4);
        memcpy(p + 4, &d->v4.sin_addr, 4);
        p += 8;
    }
    for (size_t i = 0; i < 2; i++) {
        *p++ = (uint8_t)(ports[i] >> 8);
        *p++ = (uint8_t)ports[i];
    }
    return (int)(p - out);
}

int cb_proxy_header_write(uint8_t out[128], int version, const cb_addr *source, const cb_addr *dest) {
    if (version != 1 && version != 2) return cb_fail(CB_EINVAL, "PROXY protocol: there is no version %d", version);
    if (version == 1 && (!source || !dest)) return snprintf((char *)out, 128, "PROXY UNKNOWN\r\n");
    if (version == 2) memcpy(out, v2_sign, sizeof v2_sign);
    if (!source || !dest) {
        memcpy(out + 12, (uint8_t[4]){CMD_LOCAL, 0, 0, 0}, 4);
        return V2_FIXED;
    }
    cb_addr s = *source, d = *dest;
    cb_addr_unmap(&s);
    cb_addr_unmap(&d);
    bool six = s.sa.sa_family != AF_INET || d.sa.sa_family != AF_INET;
    return version == 1 ? write_v1(out, &s, &d, six) : write_v2(out, &s, &d, six);
}
