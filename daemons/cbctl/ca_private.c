/* cbctl ca: the private authority. One table of options serves all commands; each names those that it knows. */
#include "cbctl.h"
#include <cb.h>
#include <errno.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { NAMES_MAX = 100, REQUEST_MAX = 64 << 10, DAY = 86400 };

typedef struct args {
    const char *command, *dir, *parent, *cn, *organization, *out, *reason;
    const char *names[NAMES_MAX], *uris[NAMES_MAX];
    size_t names_len, uris_len;
    unsigned long days, hours, path_len;
    int key_type, profile;
    bool json, must_staple, revoked_only;
    char **rest;
    size_t rest_len;
} args;

static const struct option options[] = {
    {"dir", required_argument, NULL, 'd'},      {"parent", required_argument, NULL, 'P'},
    {"cn", required_argument, NULL, 'c'},       {"organization", required_argument, NULL, 'O'},
    {"out", required_argument, NULL, 'o'},      {"reason", required_argument, NULL, 'r'},
    {"name", required_argument, NULL, 'n'},     {"permit", required_argument, NULL, 'n'},
    {"uri", required_argument, NULL, 'u'},      {"days", required_argument, NULL, 'D'},
    {"hours", required_argument, NULL, 'H'},    {"path-len", required_argument, NULL, 'l'},
    {"key-type", required_argument, NULL, 'k'}, {"profile", required_argument, NULL, 'p'},
    {"json", no_argument, NULL, 'j'},           {"must-staple", no_argument, NULL, 's'},
    {"revoked", no_argument, NULL, 'R'},        {NULL, 0, NULL, 0},
};

struct word {
    const char *text;
    int value;
};
static const struct word profiles[] = {{"both", CB_CERT_BOTH}, {"server", CB_CERT_SERVER}, {"client", CB_CERT_CLIENT},
                                       {"svid", CB_CERT_SVID}, {"ocsp", CB_CERT_OCSP},     {NULL, 0}};
static const struct word reasons[] = {{"unspecified", CB_REVOKE_UNSPECIFIED},
                                      {"key-compromise", CB_REVOKE_KEY_COMPROMISE},
                                      {"ca-compromise", CB_REVOKE_CA_COMPROMISE},
                                      {"affiliation-changed", CB_REVOKE_AFFILIATION_CHANGED},
                                      {"superseded", CB_REVOKE_SUPERSEDED},
                                      {"cessation", CB_REVOKE_CESSATION},
                                      {"privilege-withdrawn", CB_REVOKE_PRIVILEGE_WITHDRAWN},
                                      {NULL, 0}};

static int value_of(const struct word *words, const char *text) {
    for (; words->text; words++) {
        if (strcmp(words->text, text) == 0) return words->value;
    }
    return -1;
}

static const char *text_of(const struct word *words, int value) {
    for (; words->text; words++) {
        if (words->value == value) return words->text;
    }
    return "authority";
}

static bool number(const char *text, unsigned long max, unsigned long *out) {
    char *end;
    errno = 0;
    *out = strtoul(text, &end, 10);
    return *text >= '0' && *text <= '9' && !*end && errno == 0 && *out <= max;
}

static int add(const char **list, size_t *len, const char *text, const char *what) {
    if (*len == NAMES_MAX) return cbctl_usage("%s: more than %d", what, NAMES_MAX);
    list[(*len)++] = text;
    return CBCTL_OK;
}

static int take_number(const char *what, unsigned long min, unsigned long max, unsigned long *out) {
    if (number(optarg, max, out) && *out >= min) return CBCTL_OK;
    return cbctl_usage("%s: \"%s\" is not a number from %lu to %lu", what, optarg, min, max);
}

static int take(args *a, int option) {
    switch (option) {
    case 'd':
        a->dir = optarg;
        break;
    case 'P':
        a->parent = optarg;
        break;
    case 'c':
        a->cn = optarg;
        break;
    case 'O':
        a->organization = optarg;
        break;
    case 'o':
        a->out = optarg;
        break;
    case 'r':
        a->reason = optarg;
        break;
    case 'n':
        return add(a->names, &a->names_len, optarg, "names");
    case 'u':
        return add(a->uris, &a->uris_len, optarg, "--uri");
    case 'D':
        return take_number("--days", 1, 36500, &a->days);
    case 'H':
        return take_number("--hours", 1, 24 * 366, &a->hours);
    case 'l':
        return take_number("--path-len", 0, 8, &a->path_len);
    case 'k':
        if ((a->key_type = cbctl_key_type(optarg)) >= 0) return CBCTL_OK;
        return cbctl_usage("--key-type: \"%s\" is not ecdsa-p256, ecdsa-p384, rsa-2048 or ed25519", optarg);
    case 'p':
        if ((a->profile = value_of(profiles, optarg)) >= 0) return CBCTL_OK;
        return cbctl_usage("--profile: \"%s\" is not both, server, client, svid or ocsp", optarg);
    case 'j':
        a->json = true;
        break;
    case 's':
        a->must_staple = true;
        break;
    default:
        a->revoked_only = true;
    }
    return CBCTL_OK;
}

/* `known`: the options of this command, separated and enclosed by spaces. */
static int parse(args *a, int argc, char **argv, const char *known) {
    *a = (args){.command = argv[0], .dir = "ca"};
    int option, at = -1;
    opterr = 0;
    while ((option = getopt_long(argc, argv, ":", options, &at)) != -1) {
        char word[32];
        if (option == ':') return cbctl_usage("%s needs a value", argv[optind - 1]);
        if (option != '?') snprintf(word, sizeof word, " %s ", options[at].name);
        if (option == '?' || !strstr(known, word)) {
            return cbctl_usage("ca %s: unknown option %s", a->command, argv[optind - 1]);
        }
        int code = take(a, option);
        if (code != CBCTL_OK) return code;
    }
    a->rest = argv + optind;
    a->rest_len = (size_t)(argc - optind);
    return CBCTL_OK;
}

static int fail(int rc) {
    int code = cbctl_failed(rc);
    return rc == CB_EINVAL ? CBCTL_USAGE : code;
}

static int open_ca(const args *a, cb_ca **ca) {
    return cb_ca_open(ca, CB_OPTS(cb_ca_opts, .dir = a->dir, .mode = CB_CA_OPEN));
}

static void print_pair(bool json, const char *label, const char *key, const char *value, bool first) {
    if (json) {
        printf("%s\"%s\": ", first ? "{" : ", ", key);
        cbctl_json_text(value);
    } else {
        printf("%-13s%s\n", label, value);
    }
}

/* --- authorities --- */

static int make(const args *a, cb_ca *parent) {
    cb_ca *ca = NULL;
    char path[3][4096];
    static const char *const names[3] = {"ca.pem", "ca-key.pem", "root.pem"};
    bool root = !parent;
    unsigned long path_len = a->path_len;
    int rc = cb_ca_open(&ca, CB_OPTS(cb_ca_opts, .dir = a->dir, .mode = CB_CA_MAKE, .parent = parent,
                                     .common_name = a->cn  ? a->cn
                                                    : root ? "Private root"
                                                           : "Private intermediate",
                                     .organization = a->organization,
                                     .days = (uint32_t)(a->days ? a->days
                                                        : root  ? 3650
                                                                : 1825),
                                     .key_type = a->key_type, .path_len = (uint32_t)path_len, .permitted = a->names,
                                     .permitted_len = a->names_len));
    if (rc < 0) return fail(rc);
    cb_ca_free(ca);
    for (size_t i = 0; i < 3; i++) {
        snprintf(path[i], sizeof path[i], "%s/%s", a->dir, names[i]);
    }
    print_pair(a->json, "certificate:", "certificate", path[0], true);
    print_pair(a->json, "key:", "key", path[1], false);
    print_pair(a->json, "trust:", "trust", path[2], false);
    if (a->json) puts("}");
    return CBCTL_OK;
}

int cbctl_ca_init(int argc, char **argv) {
    args a;
    int code = parse(&a, argc, argv, " dir cn organization days key-type path-len json ");
    if (code != CBCTL_OK) return code;
    if (a.rest_len) return cbctl_usage("ca init: what is \"%s\"?", a.rest[0]);
    bool given = false;
    for (int i = 1; i < argc; i++) {
        given |= strncmp(argv[i], "--path-len", 10) == 0;
    }
    if (!given) a.path_len = 1;
    return make(&a, NULL);
}

int cbctl_ca_intermediate(int argc, char **argv) {
    args a;
    cb_ca *parent = NULL;
    int code = parse(&a, argc, argv, " dir parent cn organization days key-type path-len permit json ");
    if (code != CBCTL_OK) return code;
    if (a.rest_len) return cbctl_usage("ca intermediate: what is \"%s\"?", a.rest[0]);
    if (!a.parent) return cbctl_usage("ca intermediate: which --parent DIR signs it?");
    int rc = cb_ca_open(&parent, CB_OPTS(cb_ca_opts, .dir = a.parent, .mode = CB_CA_OPEN));
    if (rc < 0) return fail(rc);
    code = make(&a, parent);
    cb_ca_free(parent);
    return code;
}

/* --- leaves --- */

static cb_leaf_opts leaf_of(const args *a) {
    return (cb_leaf_opts){
        .size = sizeof(cb_leaf_opts),
        .names = a->names,
        .names_len = a->names_len,
        .uris = a->uris,
        .uris_len = a->uris_len,
        .file_stem = a->out,
        .days = (uint32_t)a->days,
        .lifetime_s = (uint32_t)(a->hours * 3600),
        .key_type = a->key_type,
        .profile = a->profile,
        .must_staple = a->must_staple,
    };
}

int cbctl_ca_issue(int argc, char **argv) {
    args a;
    cb_ca *ca = NULL;
    char *cert = NULL, *key = NULL, trust[4096];
    int code = parse(&a, argc, argv, " dir days hours key-type profile uri out must-staple json ");
    if (code != CBCTL_OK) return code;
    if (a.days && a.hours) return cbctl_usage("ca issue: --days or --hours, not both");
    if (a.out && !*a.out) return cbctl_usage("ca issue: --out \"\" names no files");
    for (size_t i = 0; i < a.rest_len && code == CBCTL_OK; i++) {
        code = add(a.names, &a.names_len, a.rest[i], "names");
    }
    if (code != CBCTL_OK) return code;
    cb_leaf_opts leaf = leaf_of(&a);
    int rc = open_ca(&a, &ca);
    if (rc >= 0) rc = cb_ca_issue(ca, &leaf, &cert, &key);
    cb_ca_free(ca);
    if (rc < 0) return fail(rc);
    snprintf(trust, sizeof trust, "%s/root.pem", a.dir);
    print_pair(a.json, "trust:", "trust", trust, true);
    print_pair(a.json, "certificate:", "certificate", cert, false);
    print_pair(a.json, "key:", "key", key, false);
    if (a.json) puts("}");
    cb_ca_text_free(cert);
    cb_ca_text_free(key);
    return CBCTL_OK;
}

static int read_file(const char *path, uint8_t *to, size_t cap, size_t *len) {
    FILE *f = strcmp(path, "-") == 0 ? stdin : fopen(path, "rbe");
    if (!f) {
        fprintf(stderr, "cbctl: %s: %s\n", path, strerror(errno));
        return CBCTL_FAILED;
    }
    *len = fread(to, 1, cap, f);
    bool bad = ferror(f);
    if (f != stdin) fclose(f);
    if (!bad) return CBCTL_OK;
    fprintf(stderr, "cbctl: %s: cannot be read\n", path);
    return CBCTL_FAILED;
}

int cbctl_ca_sign(int argc, char **argv) {
    static uint8_t request[REQUEST_MAX + 1];
    args a;
    cb_ca *ca = NULL;
    char *cert = NULL;
    size_t len = 0;
    int code = parse(&a, argc, argv, " dir days hours profile name uri must-staple ");
    if (code != CBCTL_OK) return code;
    if (a.days && a.hours) return cbctl_usage("ca sign: --days or --hours, not both");
    if (a.rest_len != 1) return cbctl_usage("ca sign: one FILE with a signing request, or - for standard input");
    if (a.names_len + a.uris_len == 0) return cbctl_usage("ca sign: which --name or --uri may it have?");
    code = read_file(a.rest[0], request, sizeof request, &len);
    if (code != CBCTL_OK) return code;
    cb_leaf_opts leaf = leaf_of(&a);
    int rc = open_ca(&a, &ca);
    if (rc >= 0) rc = cb_ca_sign(ca, (cb_slice){request, len}, &leaf, &cert);
    cb_ca_free(ca);
    if (rc < 0) return cbctl_failed(rc);
    fputs(cert, stdout);
    cb_ca_text_free(cert);
    return CBCTL_OK;
}

/* --- what was issued --- */

int cbctl_ca_revoke(int argc, char **argv) {
    args a;
    cb_ca *ca = NULL;
    int code = parse(&a, argc, argv, " dir reason ");
    if (code != CBCTL_OK) return code;
    if (a.rest_len != 1) return cbctl_usage("ca revoke: which SERIAL? \"cbctl ca list\" has them");
    int reason = a.reason ? value_of(reasons, a.reason) : CB_REVOKE_UNSPECIFIED;
    if (reason < 0) return cbctl_usage("--reason: no such reason: \"%s\"", a.reason);
    int rc = open_ca(&a, &ca);
    if (rc >= 0) rc = cb_ca_revoke(ca, a.rest[0], reason);
    cb_ca_free(ca);
    return rc < 0 ? fail(rc) : CBCTL_OK;
}

int cbctl_ca_crl(int argc, char **argv) {
    args a;
    cb_ca *ca = NULL;
    int code = parse(&a, argc, argv, " dir days hours ");
    if (code != CBCTL_OK) return code;
    if (a.days && a.hours) return cbctl_usage("ca crl: --days or --hours, not both");
    if (a.days > 366) return cbctl_usage("--days: a CRL is valid for at most 366 days");
    if (a.rest_len) return cbctl_usage("ca crl: what is \"%s\"?", a.rest[0]);
    int rc = open_ca(&a, &ca);
    if (rc >= 0) rc = cb_ca_crl(ca, (uint32_t)(a.days * DAY + a.hours * 3600), NULL);
    cb_ca_free(ca);
    if (rc < 0) return fail(rc);
    printf("%s/ca.crl\n", a.dir);
    return CBCTL_OK;
}

struct listing {
    const args *a;
    size_t n;
};

static void print_time(int64_t at, char out[32]) {
    time_t when = (time_t)at;
    struct tm tm;
    gmtime_r(&when, &tm);
    strftime(out, 32, "%Y-%m-%dT%H:%M:%SZ", &tm);
}

static int print_entry(const cb_ca_entry *e, void *user) {
    struct listing *l = user;
    char from[32], until[32], revoked[32] = "";
    if (l->a->revoked_only && !e->revoked_s) return 0;
    print_time(e->not_before_s, from);
    print_time(e->not_after_s, until);
    if (e->revoked_s) print_time(e->revoked_s, revoked);
    bool first = l->n++ == 0;
    if (!l->a->json) {
        printf("%s  %s  %-9s  %s%s%s\n", e->serial, until, text_of(profiles, e->profile), e->names,
               e->revoked_s ? "  revoked: " : "", e->revoked_s ? text_of(reasons, e->reason) : "");
        return 0;
    }
    printf("%s{\"serial\": \"%s\", \"profile\": \"%s\", \"not_before\": \"%s\", \"not_after\": \"%s\", \"names\": ",
           first ? "" : ",\n ", e->serial, text_of(profiles, e->profile), from, until);
    cbctl_json_text(e->names);
    if (e->revoked_s) printf(", \"revoked\": \"%s\", \"reason\": \"%s\"", revoked, text_of(reasons, e->reason));
    putchar('}');
    return 0;
}

int cbctl_ca_list(int argc, char **argv) {
    args a;
    cb_ca *ca = NULL;
    int code = parse(&a, argc, argv, " dir revoked json ");
    if (code != CBCTL_OK) return code;
    if (a.rest_len) return cbctl_usage("ca list: what is \"%s\"?", a.rest[0]);
    struct listing l = {.a = &a};
    int rc = open_ca(&a, &ca);
    if (rc < 0) return fail(rc);
    if (a.json) putchar('[');
    rc = cb_ca_list(ca, print_entry, &l);
    if (a.json) puts("]");
    cb_ca_free(ca);
    return rc < 0 ? fail(rc) : CBCTL_OK;
}
