/* Policies: checked, and asked what they would decide and why. */
#include "cbctl.h"
#include <arpa/inet.h>
#include <cb.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { DENIED = 3, MANY = 64 };

/* ---- check ---- */

typedef struct mistakes {
    bool json;
    int n;
} mistakes;

static void on_mistake(const cb_config_error *e, void *user) {
    mistakes *m = user;
    if (!m->json) {
        fprintf(stderr, "cbctl: %s:%" PRIu32 ":%" PRIu32 ": %s%s%s\n", e->file, e->line, e->column, e->pointer,
                *e->pointer ? ": " : "", e->text);
    } else {
        printf("%s{\"pointer\":", m->n ? "," : "{\"errors\":[");
        cbctl_json_text(e->pointer);
        printf(",\"line\":%" PRIu32 ",\"column\":%" PRIu32 ",\"text\":", e->line, e->column);
        cbctl_json_text(e->text);
        putchar('}');
    }
    m->n++;
}

static int load(cb_policy **out, const char *file, bool json) {
    mistakes m = {.json = json};
    int rc = cb_policy_load(out, file, on_mistake, &m);
    if (m.n && json) puts("]}");
    if (rc < 0 && !m.n) (void)cbctl_failed(rc);
    return rc;
}

int cbctl_policy_check(int argc, char **argv) {
    static const struct option options[] = {{"json", no_argument, NULL, 'j'}, {NULL, 0, NULL, 0}};
    cb_policy *p = NULL;
    bool json = false;
    int option;
    opterr = 0;
    while ((option = getopt_long(argc, argv, ":", options, NULL)) != -1) {
        if (option != 'j') return cbctl_usage("policy check: unknown option %s", argv[optind - 1]);
        json = true;
    }
    if (optind + 1 != argc) return cbctl_usage("policy check: one FILE");
    if (load(&p, argv[optind], json) < 0) return CBCTL_FAILED;
    printf(json ? "{\"rules\":%zu,\"errors\":[]}\n" : "%zu rules\n", cb_policy_len(p));
    cb_policy_unref(p);
    return CBCTL_OK;
}

int cbctl_policy_schema(int argc, char **argv) {
    char *text = NULL;
    if (argc != 1) return cbctl_usage("policy schema: no argument; \"%s\" is one", argv[1]);
    int rc = cb_policy_schema_json(&text);
    if (rc < 0) return cbctl_failed(rc);
    puts(text);
    cb_config_text_free(text);
    return CBCTL_OK;
}

/* ---- explain ---- */

typedef struct claim {
    const char *path, *text;
    size_t path_len;
} claim;

typedef struct asked {
    cb_policy_request r;
    cb_slice roles[MANY];
    claim claims[MANY];
    size_t n_claims;
    uint8_t source[16];
    bool json, begun;
} asked;

static int claim_next(const char *path, uint32_t *it, cb_slice *value, void *user) {
    const asked *a = user;
    while (*it < a->n_claims) {
        const claim *c = &a->claims[(*it)++];
        if (strlen(path) != c->path_len || memcmp(path, c->path, c->path_len) != 0) continue;
        *value = cb_slice_str(c->text);
        return 1;
    }
    return 0;
}

static bool add_claim(asked *a, const char *text) {
    const char *eq = strchr(text, '=');
    if (!eq || eq == text || a->n_claims == MANY) return false;
    a->claims[a->n_claims++] = (claim){text, eq + 1, (size_t)(eq - text)};
    return true;
}

static bool add_role(asked *a, const char *text) {
    if (!*text || a->r.roles_len == MANY) return false;
    a->roles[a->r.roles_len++] = cb_slice_str(text);
    return true;
}

static bool read_source(asked *a, const char *text) {
    const bool v4 = inet_pton(AF_INET, text, a->source) == 1;
    if (!v4 && inet_pton(AF_INET6, text, a->source) != 1) return false;
    a->r.source = (cb_slice){a->source, v4 ? 4 : 16};
    return true;
}

/* "HOST:PORT", an IPv6 address in brackets. */
static bool read_target(asked *a, const char *text) {
    const char *colon = strrchr(text, ':');
    char *end = NULL;
    const long port = colon ? strtol(colon + 1, &end, 10) : 0;
    if (!colon || colon == text || !end || *end || end == colon + 1 || port < 1 || port > 65535) return false;
    const bool bracket = *text == '[' && colon[-1] == ']';
    a->r.target_host = (cb_slice){(const uint8_t *)text + bracket, (size_t)(colon - text) - 2u * bracket};
    a->r.target_port = (int32_t)port;
    return true;
}

static bool read_time(asked *a, const char *text) {
    struct tm tm = {0};
    const char *end = strptime(text, "%Y-%m-%dT%H:%M:%SZ", &tm);
    if (!end || *end) return false;
    a->r.now_s = (int64_t)timegm(&tm);
    return a->r.now_s > 0;
}

static const struct option explain_options[] = {
    {"tenant", required_argument, NULL, 0},   {"subject", required_argument, NULL, 1},
    {"issuer", required_argument, NULL, 2},   {"spiffe", required_argument, NULL, 3},
    {"route", required_argument, NULL, 4},    {"method", required_argument, NULL, 5},
    {"path", required_argument, NULL, 6},     {"verb", required_argument, NULL, 7},
    {"role", required_argument, NULL, 'r'},   {"claim", required_argument, NULL, 'c'},
    {"source", required_argument, NULL, 's'}, {"target", required_argument, NULL, 'T'},
    {"time", required_argument, NULL, 't'},   {"mtls", no_argument, NULL, 'm'},
    {"json", no_argument, NULL, 'j'},         {NULL, 0, NULL, 0}};

/* What an option's value is, for those that can be wrong. */
static const struct {
    int option;
    bool (*read)(asked *a, const char *text);
    const char *name, *wrong;
} readers[] = {{'r', add_role, "role", "is empty, or one of more than 64"},
               {'c', add_claim, "claim", "is not PATH=TEXT, or one of more than 64"},
               {'s', read_source, "source", "is no IP address"},
               {'T', read_target, "target", "is not HOST:PORT"},
               {'t', read_time, "time", "is not as 2027-01-31T08:00:00Z"}};

static int take(asked *a, int option) {
    cb_slice *const texts[] = {&a->r.tenant, &a->r.subject, &a->r.issuer, &a->r.spiffe_id,
                               &a->r.route,  &a->r.method,  &a->r.path,   &a->r.verb};
    if (option >= 0 && (size_t)option < sizeof texts / sizeof *texts) *texts[option] = cb_slice_str(optarg);
    if (option == 'm') a->r.mtls = 1;
    if (option == 'j') a->json = true;
    for (size_t i = 0; i < sizeof readers / sizeof *readers; i++) {
        if (readers[i].option == option && !readers[i].read(a, optarg))
            return cbctl_usage("--%s: \"%s\" %s", readers[i].name, optarg, readers[i].wrong);
    }
    return CBCTL_OK;
}

static void print_conditions(uint32_t bits, bool json) {
    const char *sep = "";
    if (json) putchar('[');
    for (int c = 0; c < CB_POLICY_CONDITIONS; c++) {
        if (!(bits >> c & 1)) continue;
        printf(json ? "%s\"%s\"" : "%s%s", sep, cb_policy_condition_text(c));
        sep = json ? "," : " ";
    }
    fputs(json ? "]" : bits ? "" : "-", stdout);
}

static void on_step(const cb_policy_step *s, void *user) {
    asked *a = user;
    const char *effect = s->allow ? "allow" : "deny";
    if (a->json) {
        printf("%s{\"rule\":", a->begun ? "," : "{\"rules\":[");
        cbctl_json_text(s->rule);
        printf(",\"effect\":\"%s\",\"matches\":%s,\"conditions\":", effect, s->matches ? "true" : "false");
        print_conditions(s->conditions, true);
        fputs(",\"failed\":", stdout);
        print_conditions(s->failed, true);
        putchar('}');
    } else {
        if (!a->begun) printf("%-24s %-6s %-8s %s\n", "RULE", "EFFECT", "MATCHES", "DOES NOT FIT");
        printf("%-24s %-6s %-8s ", s->rule, effect, s->matches ? "yes" : "no");
        print_conditions(s->failed, false);
        putchar('\n');
    }
    a->begun = true;
}

static void print_decision(const asked *a, const cb_policy_decision *d) {
    const char *reason = cb_policy_reason_text(d->reason);
    if (a->json) {
        printf("%s],\"allowed\":%s,\"reason\":\"%s\",\"rule\":", a->begun ? "" : "{\"rules\":[",
               d->allowed ? "true" : "false", reason);
        if (d->rule)
            cbctl_json_text(d->rule);
        else
            fputs("null", stdout);
        puts("}");
    } else if (d->rule) {
        printf("%s by \"%s\"\n", d->allowed ? "allowed" : "denied", d->rule);
    } else {
        printf("denied: %s\n", reason);
    }
}

int cbctl_policy_explain(int argc, char **argv) {
    asked a = {.r = {.size = sizeof a.r, .claim = claim_next, .now_s = (int64_t)time(NULL)}};
    cb_policy_decision d = {.size = sizeof d};
    cb_policy *p = NULL;
    int option;
    opterr = 0;
    while ((option = getopt_long(argc, argv, ":", explain_options, NULL)) != -1) {
        if (option == ':') return cbctl_usage("%s needs a value", argv[optind - 1]);
        if (option == '?') return cbctl_usage("policy explain: unknown option %s", argv[optind - 1]);
        int code = take(&a, option);
        if (code != CBCTL_OK) return code;
    }
    if (optind + 1 != argc) return cbctl_usage("policy explain: one FILE");
    if (load(&p, argv[optind], a.json) < 0) return CBCTL_FAILED;
    a.r.roles = a.roles;
    a.r.user = &a;
    int rc = cb_policy_explain(p, &a.r, &d, on_step, &a);
    if (rc == CB_OK || rc == CB_EAUTH) print_decision(&a, &d);
    cb_policy_unref(p);
    return rc == CB_OK ? CBCTL_OK : rc == CB_EAUTH ? DENIED : cbctl_failed(rc);
}
