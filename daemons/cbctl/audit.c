/* Audit logs: verified, and shown line by line. */
#include "cbctl.h"
#include <cb.h>
#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { FILTERS = 4 };
#define HOST_CHARS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.:_-"
static const char *const outcomes[] = {"?", "done", "denied", "failed"};

static bool read_hex(const char *text, uint8_t out[CB_AUDIT_HASH]) {
    if (strlen(text) != 2 * CB_AUDIT_HASH) return false;
    for (size_t i = 0; i < CB_AUDIT_HASH; i++) {
        unsigned v;
        if (!isxdigit((unsigned char)text[2 * i]) || !isxdigit((unsigned char)text[2 * i + 1])) return false;
        sscanf(text + 2 * i, "%2x", &v);
        out[i] = (uint8_t)v;
    }
    return true;
}

static bool read_head(const char *text, cb_audit_head *out) {
    char *end;
    errno = 0;
    out->seq = strtoull(text, &end, 10);
    return isdigit((unsigned char)*text) && !errno && out->seq > 0 && *end == ':' && read_hex(end + 1, out->hash);
}

static void print_hex(const uint8_t *p, size_t len) {
    for (size_t i = 0; i < len; i++)
        printf("%02x", p[i]);
}

/* ---- verify ---- */

static void print_report(const cb_audit_report *r, int rc, bool json) {
    const char *sep = json ? "," : "\n";
    printf(json ? "{\"sound\":%s" : "sound: %s", rc == CB_OK ? json ? "true" : "yes" : json ? "false" : "no");
    printf(json ? "%s\"records\":%" PRIu64 : "%srecords: %" PRIu64, sep, r->records);
    printf(json ? "%s\"head\":\"%" PRIu64 ":" : "%shead: %" PRIu64 ":", sep, r->head.seq);
    print_hex(r->head.hash, CB_AUDIT_HASH);
    printf(json ? "\"%s\"key\":\"" : "%skey: ", sep);
    print_hex(r->key, CB_AUDIT_HASH);
    printf(json ? "\"%s\"tail_bytes\":%" PRIu64 : "%suncommitted bytes at the end: %" PRIu64, sep, r->tail_bytes);
    if (rc < 0)
        printf(json ? "%s\"offset\":%" PRIu64 ",\"seq\":%" PRIu64 ",\"flaw\":%d"
                    : "%sflaw at byte %" PRIu64 ", number %" PRIu64 ", kind %d",
               sep, r->offset, r->seq, (int)r->flaw);
    puts(json ? "}" : "");
}

int cbctl_audit_verify(int argc, char **argv) {
    static const struct option options[] = {{"head", required_argument, NULL, 'h'},
                                            {"key", required_argument, NULL, 'k'},
                                            {"json", no_argument, NULL, 'j'},
                                            {NULL, 0, NULL, 0}};
    cb_audit_head head = {.seq = 0};
    uint8_t key[CB_AUDIT_HASH];
    cb_audit_verify_opts o = {.size = sizeof o};
    cb_audit_report report = {.size = sizeof report};
    bool json = false;
    int option;
    opterr = 0;
    while ((option = getopt_long(argc, argv, ":", options, NULL)) != -1) {
        switch (option) {
        case 'h':
            if (!read_head(optarg, &head)) return cbctl_usage("--head: \"%s\" is not NUMBER:HASH", optarg);
            o.head = &head;
            break;
        case 'k':
            if (!read_hex(optarg, key)) return cbctl_usage("--key: \"%s\" is not 64 hexadecimal digits", optarg);
            o.key = key;
            break;
        case 'j':
            json = true;
            break;
        case ':':
            return cbctl_usage("%s needs a value", argv[optind - 1]);
        default:
            return cbctl_usage("audit verify: unknown option %s", argv[optind - 1]);
        }
    }
    if (optind + 1 != argc) return cbctl_usage("audit verify: one FILE");
    int rc = cb_audit_verify(argv[optind], &o, &report);
    if (rc == CB_EPROTO && !o.every_signature && report.flaw == CB_AUDIT_SIGNATURE) {
        o.every_signature = 1; /* the last is bad: which is the first? */
        rc = cb_audit_verify(argv[optind], &o, &report);
    }
    if (rc == CB_OK || rc == CB_EPROTO) print_report(&report, rc, json);
    return rc < 0 ? cbctl_failed(rc) : CBCTL_OK;
}

/* ---- show ---- */

typedef struct filters {
    const char *texts[FILTERS]; /* actor, tenant, action, object */
    const char *outcome;
    const char *host; /* not NULL: RFC 5424 instead of JSON */
} filters;

static bool equals(cb_slice s, const char *text) {
    return !text || (s.len == strlen(text) && memcmp(s.base, text, s.len) == 0);
}

static void member(const char *name, cb_slice s) {
    if (!s.len) return;
    printf(",\"%s\":\"", name);
    for (size_t i = 0; i < s.len; i++) {
        const uint8_t c = s.base[i];
        if (c == '"' || c == '\\')
            printf("\\%c", c);
        else if (c < 0x20 || c >= 0x7f)
            printf("\\u00%02x", c);
        else
            putchar(c);
    }
    putchar('"');
}

static void hash_member(const char *name, cb_slice s) {
    if (!s.len) return;
    printf(",\"%s\":\"", name);
    print_hex(s.base, s.len);
    putchar('"');
}

/* One parameter of RFC 5424 6.3.3: '"', '\\' and ']' are escaped; what is not printable ASCII becomes '?', for the
 * parameter must be UTF-8. The JSON form keeps every byte. */
static void param(const char *name, cb_slice s) {
    if (!s.len) return;
    printf(" %s=\"", name);
    for (size_t i = 0; i < s.len; i++) {
        const uint8_t c = s.base[i];
        if (c == '"' || c == '\\' || c == ']') putchar('\\');
        putchar(c < 0x20 || c >= 0x7f ? '?' : c);
    }
    putchar('"');
}

/* Facility 13 (log audit); notice, and warning for what was denied or failed. */
static void show_syslog(const cb_audit_record *r, const char *when, const char *host) {
    printf("<%d>1 %s %s cb-audit - - [audit@32473 seq=\"%" PRIu64 "\" outcome=\"%s\"",
           13 * 8 + (r->outcome == CB_AUDIT_DONE ? 5 : 4), when, host, r->seq, outcomes[r->outcome]);
    param("actor", r->actor);
    param("tenant", r->tenant);
    param("action", r->action);
    param("object", r->object);
    param("detail", r->detail);
    puts("]");
}

static void show_json(const cb_audit_record *r, const char *when) {
    printf("{\"seq\":%" PRIu64 ",\"time\":\"%s\",\"outcome\":\"%s\"", r->seq, when, outcomes[r->outcome]);
    member("actor", r->actor);
    member("tenant", r->tenant);
    member("action", r->action);
    member("object", r->object);
    member("detail", r->detail);
    hash_member("before", r->before);
    hash_member("after", r->after);
    puts("}");
}

static int show(const cb_audit_record *r, void *user) {
    const filters *f = user;
    const cb_slice texts[FILTERS] = {r->actor, r->tenant, r->action, r->object};
    const time_t s = (time_t)(r->time_us / 1000000);
    struct tm tm;
    char when[48] = "-";
    for (int i = 0; i < FILTERS; i++) {
        if (!equals(texts[i], f->texts[i])) return CB_OK;
    }
    if (f->outcome && strcmp(f->outcome, outcomes[r->outcome]) != 0) return CB_OK;
    if (r->time_us >= 0 && gmtime_r(&s, &tm)) {
        size_t n = strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%S", &tm);
        snprintf(when + n, sizeof when - n, ".%06dZ", (int)(r->time_us % 1000000));
    }
    if (f->host)
        show_syslog(r, when, f->host);
    else
        show_json(r, when);
    return CB_OK;
}

int cbctl_audit_show(int argc, char **argv) {
    static const struct option options[] = {{"actor", required_argument, NULL, 0},
                                            {"tenant", required_argument, NULL, 1},
                                            {"action", required_argument, NULL, 2},
                                            {"object", required_argument, NULL, 3},
                                            {"outcome", required_argument, NULL, 4},
                                            {"syslog", required_argument, NULL, 5},
                                            {NULL, 0, NULL, 0}};
    filters f = {.outcome = NULL};
    int option;
    opterr = 0;
    while ((option = getopt_long(argc, argv, ":", options, NULL)) != -1) {
        if (option == ':') return cbctl_usage("%s needs a value", argv[optind - 1]);
        if (option == '?') return cbctl_usage("audit show: unknown option %s", argv[optind - 1]);
        *(option < FILTERS ? &f.texts[option] : option == 4 ? &f.outcome : &f.host) = optarg;
    }
    if (optind + 1 != argc) return cbctl_usage("audit show: one FILE");
    if (f.host && (!*f.host || strlen(f.host) > 255 || strspn(f.host, HOST_CHARS) != strlen(f.host)))
        return cbctl_usage("--syslog: \"%s\" is no host name", f.host);
    if (f.outcome && strcmp(f.outcome, "done") != 0 && strcmp(f.outcome, "denied") != 0 &&
        strcmp(f.outcome, "failed") != 0)
        return cbctl_usage("--outcome: \"%s\" is not done, denied or failed", f.outcome);
    int rc = cb_audit_verify(argv[optind], CB_OPTS(cb_audit_verify_opts, .on_record = show, .user = &f), NULL);
    return rc < 0 ? cbctl_failed(rc) : CBCTL_OK;
}
