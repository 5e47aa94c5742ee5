/* Audit logs: verified, and shown line by line. */
#include "cbctl.h"
#include <cb.h>
#include <ctype.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

enum { FILTERS = 4 };
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

static void print_hex(const uint8_t *p, size_t len) {
    for (size_t i = 0; i < len; i++)
        printf("%02x", p[i]);
}

/* ---- verify ---- */

static void print_report(const cb_audit_report *r, int rc, bool json) {
    const char *sep = json ? "," : "\n";
    char head[CB_AUDIT_HEAD_MAX];
    cb_audit_head_text(&r->head, head);
    printf(json ? "{\"sound\":%s" : "sound: %s", rc == CB_OK ? json ? "true" : "yes" : json ? "false" : "no");
    printf(json ? "%s\"records\":%" PRIu64 : "%srecords: %" PRIu64, sep, r->records);
    printf(json ? "%s\"first_file\":%" PRIu64 ",\"file\":%" PRIu64 : "%sfiles: %" PRIu64 " to %" PRIu64, sep,
           r->first_file, r->file);
    printf(json ? "%s\"head\":\"%s\"" : "%shead: %s", sep, head);
    printf(json ? "%s\"key\":\"" : "%skey: ", sep);
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
                                            {"alone", no_argument, NULL, 'a'},
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
            if (cb_audit_head_read(&head, optarg) < 0) return cbctl_usage("--head: \"%s\" is not NUMBER:HASH", optarg);
            o.head = &head;
            break;
        case 'k':
            if (!read_hex(optarg, key)) return cbctl_usage("--key: \"%s\" is not 64 hexadecimal digits", optarg);
            o.key = key;
            break;
        case 'j':
            json = true;
            break;
        case 'a':
            o.alone = 1;
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
    const char *host; /* of syslog lines */
    int form;         /* enum cb_audit_form */
    char line[CB_AUDIT_LINE_MAX];
} filters;

static bool equals(cb_slice s, const char *text) {
    return !text || (s.len == strlen(text) && memcmp(s.base, text, s.len) == 0);
}

static int show(const cb_audit_record *r, void *user) {
    filters *f = user;
    const cb_slice texts[FILTERS] = {r->actor, r->tenant, r->action, r->object};
    for (int i = 0; i < FILTERS; i++) {
        if (!equals(texts[i], f->texts[i])) return CB_OK;
    }
    if (f->outcome && strcmp(f->outcome, outcomes[r->outcome]) != 0) return CB_OK;
    int rc = cb_audit_line(f->line, sizeof f->line, r, f->form, f->host);
    if (rc > 0) puts(f->line);
    return rc < 0 ? rc : CB_OK;
}

/* "json", "syslog" or "syslog:HOST". */
static bool read_form(filters *f, const char *text) {
    static const cb_audit_record any = {.size = sizeof any, .outcome = CB_AUDIT_DONE};
    f->form = strncmp(text, "syslog", 6) == 0 ? CB_AUDIT_SYSLOG : CB_AUDIT_JSON;
    f->host = strncmp(text, "syslog:", 7) == 0 ? text + 7 : NULL;
    return (f->host || strcmp(text, "json") == 0 || strcmp(text, "syslog") == 0) &&
           cb_audit_line(f->line, sizeof f->line, &any, f->form, f->host) > 0;
}

int cbctl_audit_show(int argc, char **argv) {
    static const struct option options[] = {
        {"actor", required_argument, NULL, 0},   {"tenant", required_argument, NULL, 1},
        {"action", required_argument, NULL, 2},  {"object", required_argument, NULL, 3},
        {"outcome", required_argument, NULL, 4}, {"format", required_argument, NULL, 5},
        {"alone", no_argument, NULL, 6},         {NULL, 0, NULL, 0}};
    static filters f = {.form = CB_AUDIT_JSON};
    cb_audit_verify_opts o = {.size = sizeof o, .on_record = show, .user = &f};
    int option;
    opterr = 0;
    while ((option = getopt_long(argc, argv, ":", options, NULL)) != -1) {
        if (option == ':') return cbctl_usage("%s needs a value", argv[optind - 1]);
        if (option == '?') return cbctl_usage("audit show: unknown option %s", argv[optind - 1]);
        if (option < FILTERS) f.texts[option] = optarg;
        if (option == 4) f.outcome = optarg;
        if (option == 5 && !read_form(&f, optarg))
            return cbctl_usage("--format: \"%s\" is not json, syslog or syslog:HOST", optarg);
        if (option == 6) o.alone = 1;
    }
    if (optind + 1 != argc) return cbctl_usage("audit show: one FILE");
    if (f.outcome && strcmp(f.outcome, "done") != 0 && strcmp(f.outcome, "denied") != 0 &&
        strcmp(f.outcome, "failed") != 0)
        return cbctl_usage("--outcome: \"%s\" is not done, denied or failed", f.outcome);
    int rc = cb_audit_verify(argv[optind], &o, NULL);
    return rc < 0 ? cbctl_failed(rc) : CBCTL_OK;
}
