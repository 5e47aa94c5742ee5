/* The patterns of policies, and what they are compared with. */
#include "auth/policy.h"
#include "config/draft.h"
#include <string.h>

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

static int hex(uint8_t c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* ---- segments ---- */

/* Takes a "**" at the end off; NULL, or what is wrong. */
static const char *segments_read(cb_policy_segments *p, const char *text, size_t len) {
    *p = (cb_policy_segments){.text = text, .len = (uint32_t)len};
    for (size_t i = 0; i < len;) {
        const char *end = memchr(text + i, '/', len - i);
        const size_t n = end ? (size_t)(end - text) - i : len - i;
        if (n == 2 && memcmp(text + i, "**", 2) == 0) {
            if (end) return "\"**\" may stand at the end only";
            p->below = 1;
            p->len = (uint32_t)(i ? i - 1 : 0);
        } else if (memchr(text + i, '*', n) && n > 1) {
            return "\"*\" stands for a whole segment, and \"**\" for all below";
        }
        i += n + 1;
    }
    return NULL;
}

bool cb_policy_segments_fit(const cb_policy_segments *p, cb_slice text) {
    const char *s = (const char *)text.base;
    size_t i = 0, j = 0;
    while (i < p->len) {
        const char *pe = memchr(p->text + i, '/', p->len - i),
                   *se = j < text.len ? memchr(s + j, '/', text.len - j) : NULL;
        const size_t pn = pe ? (size_t)(pe - p->text) - i : p->len - i;
        if (j >= text.len) return false;
        const size_t sn = se ? (size_t)(se - s) - j : text.len - j;
        const bool one = pn == 1 && p->text[i] == '*' && sn > 0;
        if (!one && (pn != sn || memcmp(p->text + i, s + j, pn) != 0)) return false;
        i += pn + 1;
        j += sn + 1;
    }
    return p->below || j >= text.len;
}

/* ---- paths ---- */

/* The byte at path[i] (i moves behind it), or -1: it can be read in several ways. */
static int path_byte(cb_slice path, size_t *i) {
    int c = path.base[(*i)++];
    if (c == '%') {
        const int high = *i < path.len ? hex(path.base[*i]) : -1, low = *i + 1 < path.len ? hex(path.base[*i + 1]) : -1;
        c = high < 0 || low < 0 ? -1 : high * 16 + low;
        *i += 2;
        if (c == '/' || c == ';') return c == ';' ? c : -1;
    } else if (c == ';') {
        return -1; /* parameters of a segment: some origins drop them */
    }
    return c < 0x20 || c == 0x7f || c == '\\' ? -1 : c;
}

static bool dots(const char *segment, size_t n) {
    return n && n <= 2 && segment[0] == '.' && segment[n - 1] == '.';
}

bool cb_policy_path_clear(cb_slice path, char *room, cb_slice *out) {
    size_t n = 0, begun = 0; /* begun: of the segment at hand */
    *out = (cb_slice){NULL, 0};
    for (size_t i = 0; i < path.len; i++)
        if (path.base[i] == '?' || path.base[i] == '#') path.len = i;
    if (!path.len || (path.len == 1 && *path.base == '*')) return true;
    if (*path.base != '/') return false;
    for (size_t i = 0; i < path.len;) {
        const int c = path_byte(path, &i);
        if (c < 0 || n == CB_POLICY_PATH_BYTES) return false;
        if (c == '/') {
            if (dots(room + begun, n - begun)) return false;
            if (n && begun == n) continue; /* a second one */
            begun = n + 1;
        }
        room[n++] = (char)c;
    }
    if (dots(room + begun, n - begun)) return false;
    if (n > 1 && room[n - 1] == '/') n--;
    *out = (cb_slice){(const uint8_t *)room + 1, n - 1};
    return true;
}

const char *cb_policy_path_read(cb_policy_segments *out, char *room, const char *text) {
    char clear[CB_POLICY_PATH_BYTES];
    cb_slice path;
    const size_t len = strlen(text);
    if (len > CB_POLICY_TEXT) return "is longer than 1,024 bytes";
    if (*text != '/') return "must begin with \"/\"";
    if (strpbrk(text, "?#")) return "must be a path without query and fragment";
    if (strstr(text, "%2a") || strstr(text, "%2A"))
        return "an encoded \"*\" cannot be told from one that stands for all";
    if (!cb_policy_path_clear((cb_slice){(const uint8_t *)text, len}, clear, &path))
        return "can be read in several ways (\".\" and \"..\" segments, \";\", \"\\\", an encoded \"/\" or a bad "
               "\"%\")";
    memcpy(room, path.base, path.len);
    room[path.len] = '\0';
    return segments_read(out, room, path.len);
}

/* ---- SPIFFE IDs ---- */

const char *cb_policy_spiffe_read(cb_policy_segments *out, char *room, const char *text) {
    enum { SCHEME = 9 };
    const size_t len = strlen(text);
    if (len > CB_POLICY_TEXT) return "is longer than 1,024 bytes";
    if (strncmp(text, "spiffe://", SCHEME) != 0) return "must begin with \"spiffe://\"";
    const size_t domain = strspn(text + SCHEME, "abcdefghijklmnopqrstuvwxyz0123456789.-_");
    if (!domain) return "has no trust domain (in lower case, never \"*\")";
    const char *path = text + SCHEME + domain;
    if (*path && *path != '/') return "has a trust domain with a byte that none has";
    for (const char *p = path; *p; p++) {
        if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_*/", *p))
            return "has a byte that no SPIFFE ID has";
        if (*p != '/') continue;
        const size_t n = strcspn(p + 1, "/");
        if (dots(p + 1, n)) return "has a \".\" or \"..\" segment";
        if (!n && p[1]) return "has an empty segment";
    }
    if (!*path) return "has no path; all of the trust domain is \"spiffe://domain/**\"";
    memcpy(room, text + SCHEME, len - SCHEME + 1);
    const bool all = text[len - 1] == '/'; /* "spiffe://domain/a/" is all below, as for cb_peer_is() */
    const char *wrong = segments_read(out, room, len - SCHEME - all);
    if (all && out->below) return "ends in \"/\" behind \"**\"";
    if (all) out->below = 1;
    return wrong;
}

/* ---- targets ---- */

static const char name_bytes[] = "abcdefghijklmnopqrstuvwxyz0123456789-_.";

static bool name_ok(const char *name, size_t len) {
    size_t label = 0;
    for (size_t i = 0; i < len; i++) {
        if (!memchr(name_bytes, name[i], sizeof name_bytes - 1)) return false;
        label = name[i] == '.' ? 0 : label + 1;
        if (label > 63 || (name[i] == '.' && (i == 0 || name[i - 1] == '.'))) return false;
    }
    return len > 0 && len <= 253 && label > 0;
}

/* Would getaddrinfo() and browsers read the name as an IPv4 address? By its last label. */
static bool numeric(const char *name, size_t len) {
    size_t from = len;
    while (from && name[from - 1] != '.')
        from--;
    if (len - from >= 2 && name[from] == '0' && name[from + 1] == 'x') return true;
    while (from < len && is_digit(name[from]))
        from++;
    return from == len;
}

static void lower(char *out, const char *text, size_t len) {
    for (size_t i = 0; i < len; i++)
        out[i] = text[i] >= 'A' && text[i] <= 'Z' ? (char)(text[i] + 32) : text[i];
    out[len] = '\0';
}

bool cb_policy_host_clear(cb_slice host, cb_policy_host *out) {
    uint8_t shift;
    out->is_address = false;
    out->len = 0;
    if (!host.len || host.len >= sizeof out->name || memchr(host.base, 0, host.len)) return false;
    lower(out->name, (const char *)host.base, host.len);
    out->len = host.len;
    if ((is_digit(*out->name) || strchr(out->name, ':')) && cb_prefix_address(out->address, out->name, &shift)) {
        out->is_address = true;
        return true;
    }
    if (out->name[out->len - 1] == '.') out->name[--out->len] = '\0';
    return name_ok(out->name, out->len) && !numeric(out->name, out->len);
}

static bool port_read(const char **text, uint16_t *out) {
    uint32_t n = 0;
    const char *p = *text;
    for (; is_digit(*p) && n <= UINT16_MAX; p++)
        n = n * 10 + (uint32_t)(*p - '0');
    if (p == *text || n == 0 || n > UINT16_MAX) return false;
    *text = p;
    *out = (uint16_t)n;
    return true;
}

static const char *ports_read(cb_policy_target *out, const char *text) {
    static const char wrong[] = "must end in \":PORT\", \":FROM-TO\" or \":*\"";
    out->port_min = 1;
    out->port_max = UINT16_MAX;
    if (strcmp(text, "*") == 0) return NULL;
    if (!port_read(&text, &out->port_min)) return wrong;
    out->port_max = out->port_min;
    if (*text == '-' && (text++, !port_read(&text, &out->port_max))) return wrong;
    if (*text) return wrong;
    return out->port_max < out->port_min ? "has a range of ports that ends before it begins" : NULL;
}

static const char *prefix_read(cb_prefix *out, const char *text) {
    const char *wrong = cb_config_format_wrong(CB_FORMAT_CIDR, text);
    return wrong ? wrong : cb_prefix_parse(out, text) < 0 ? "is not an IP prefix" : NULL;
}

const char *cb_policy_target_read(cb_policy_target *out, char *room, const char *text) {
    *out = (cb_policy_target){.host = NULL};
    const char *colon = strrchr(text, ':');
    size_t len = colon ? (size_t)(colon - text) : 0;
    if (strlen(text) > 300) return "is longer than 300 bytes";
    if (!len) return "must be \"HOST:PORT\"; either may be \"*\"";
    const char *wrong = ports_read(out, colon + 1);
    if (wrong) return wrong;
    const bool bracket = *text == '[' && text[len - 1] == ']';
    lower(room, text + bracket, len - 2 * bracket);
    len -= 2 * bracket;
    out->any = strcmp(room, "*") == 0;
    if (out->any) return NULL;
    if (bracket != (strchr(room, ':') != NULL)) return "an IPv6 address stands in brackets, and nothing else does";
    if (bracket || strchr(room, '/') || (is_digit(*room) && numeric(room, len))) return prefix_read(&out->prefix, room);
    out->below = strncmp(room, "*.", 2) == 0;
    out->host = room + out->below;
    out->host_len = (uint32_t)(len - out->below);
    if (!name_ok(out->host + out->below, out->host_len - out->below))
        return "has a host that is neither a name, \"*.name\", a prefix of addresses nor \"*\"";
    return NULL;
}

bool cb_policy_target_fits(const cb_policy_target *p, const cb_policy_host *host, int32_t port) {
    if (port < p->port_min || port > p->port_max) return false;
    if (p->any) return true;
    if (!p->host) return host->is_address && cb_prefix_has(&p->prefix, host->address);
    if (host->is_address || host->len < p->host_len || (host->len == p->host_len && p->below)) return false;
    const size_t before = host->len - p->host_len;
    return (p->below || !before) && memcmp(host->name + before, p->host, p->host_len) == 0;
}

/* ---- times ---- */

enum { DAY_S = 86400, DAY_MIN = 1440 };

static bool two_digits(const char *p, int max, int *out) {
    if (!is_digit(p[0]) || !is_digit(p[1])) return false;
    *out = (p[0] - '0') * 10 + p[1] - '0';
    return *out <= max;
}

/* "08:30" in minutes. */
static bool clock_read(const char *text, int *out) {
    int h, m;
    if (strlen(text) != 5 || text[2] != ':' || !two_digits(text, 24, &h) || !two_digits(text + 3, 59, &m)) return false;
    *out = h * 60 + m;
    return *out <= DAY_MIN;
}

static bool offset_read(const char *text, int32_t *out) {
    int minutes;
    *out = 0;
    if (strcmp(text, "Z") == 0) return true;
    if ((*text != '+' && *text != '-') || !clock_read(text + 1, &minutes) || minutes >= DAY_MIN) return false;
    *out = (*text == '-' ? -60 : 60) * minutes;
    return true;
}

const char *cb_policy_time_read(cb_policy_time *out, const cb_policy_doc_time *doc) {
    *out = (cb_policy_time){.days = doc->days ? doc->days : 0x7f};
    if (!clock_read(doc->from, &out->from) || out->from == DAY_MIN) return "from must be \"00:00\" to \"23:59\"";
    if (!clock_read(doc->to, &out->to)) return "to must be \"00:00\" to \"24:00\"";
    if (out->from == out->to) return "from and to are the same; all day is \"00:00\" to \"24:00\"";
    return offset_read(doc->offset, &out->offset_s) ? NULL : "offset must be \"Z\", or as \"+01:00\"";
}

bool cb_policy_time_fits(const cb_policy_time *p, int64_t now_s) {
    const int64_t t = now_s + p->offset_s;
    const int64_t day = t / DAY_S; /* since a Thursday */
    const int minute = (int)(t % DAY_S / 60);
    const bool today = p->days >> ((day + 3) % 7) & 1, yesterday = p->days >> ((day + 2) % 7) & 1;
    if (p->from < p->to) return today && minute >= p->from && minute < p->to;
    return (today && minute >= p->from) || (yesterday && minute < p->to);
}

/* Days since 1970-01-01 of a date of the Gregorian calendar: whole years before this one, with their leap days. */
static int64_t days_since_epoch(int y, int month, int day) {
    static const int before[12] = {0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334};
    const bool leap = (y % 4 == 0 && y % 100 != 0) || y % 400 == 0;
    const int64_t p = y - 1;
    return 365 * (int64_t)(y - 1970) + (p / 4 - p / 100 + p / 400) - 477 + before[month - 1] + (leap && month > 2) +
           day - 1;
}

const char *cb_policy_date_read(int64_t *out, const char *text) {
    static const char wrong[] = "must be as \"2027-01-31T08:00:00Z\" or \"2027-01-31\"";
    static const int lengths[12] = {31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    int high, low, month, day, h = 0, m = 0, s = 0;
    int32_t offset = 0;
    const size_t len = strlen(text);
    if (len < 10 || !two_digits(text, 99, &high) || !two_digits(text + 2, 99, &low) || text[4] != '-' ||
        !two_digits(text + 5, 12, &month) || text[7] != '-' || !two_digits(text + 8, 31, &day))
        return wrong;
    const int y = high * 100 + low;
    if (y < 1970 || !month || !day || day > lengths[month - 1]) return wrong;
    if (month == 2 && day == 29 && !((y % 4 == 0 && y % 100 != 0) || y % 400 == 0)) return wrong;
    if (len > 10 && (len < 20 || text[10] != 'T' || !two_digits(text + 11, 23, &h) || text[13] != ':' ||
                     !two_digits(text + 14, 59, &m) || text[16] != ':' || !two_digits(text + 17, 59, &s) ||
                     !offset_read(text + 19, &offset)))
        return wrong;
    *out = days_since_epoch(y, month, day) * DAY_S + h * 3600 + m * 60 + s - offset;
    return NULL;
}

/* ---- claims ---- */

const char *cb_policy_pointer_wrong(const char *text) {
    if (!*text) return "is empty";
    if (strlen(text) > 256) return "is longer than 256 bytes";
    if (*text != '/') return NULL;
    for (const char *p = strchr(text, '~'); p; p = strchr(p + 1, '~'))
        if (p[1] != '0' && p[1] != '1') return "is no JSON pointer: \"~\" stands before 0 or 1 only";
    return NULL;
}
