/* The document of a policy: its form, and what the form cannot say. */
#include "auth/policy.h"
#include "base/error.h"
#include "base/mem.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const char *const effect_names[] = {"deny", "allow", NULL};
static const char *const mtls_names[] = {"any", "present", "absent", NULL};
static const char *const day_names[] = {"mon", "tue", "wed", "thu", "fri", "sat", "sun", NULL};

#define MEMBER(type, member) .name = #member, .offset = offsetof(type, member)
#define TEXTS                .kind = CB_CONFIG_ARRAY, .min = 1, .max = CB_POLICY_RULES
#define END                                                                                                            \
    { .name = NULL }

static const cb_config_rule claim_rules[] = {
    {MEMBER(cb_policy_doc_claim, path), .kind = CB_CONFIG_TEXT, .required = 1,
     .doc = "A claim's name, or, beginning with \"/\", a JSON pointer (RFC 6901)."},
    {MEMBER(cb_policy_doc_claim, any), TEXTS, .required = 1,
     .doc = "The claim is one of these texts, a list with one, or an object with a member of that name. Numbers, true "
            "and false are compared as they are written."},
    END};

static const cb_config_rule time_rules[] = {
    {MEMBER(cb_policy_doc_time, days), .kind = CB_CONFIG_SET, .names = day_names,
     .doc = "Days on which it begins; every day when absent."},
    {MEMBER(cb_policy_doc_time, from), .kind = CB_CONFIG_TEXT, .fallback = "00:00", .doc = "Begins then."},
    {MEMBER(cb_policy_doc_time, to), .kind = CB_CONFIG_TEXT, .fallback = "24:00",
     .doc = "Ends then; on the next day when that lies before \"from\"."},
    {MEMBER(cb_policy_doc_time, offset), .kind = CB_CONFIG_TEXT, .fallback = "Z",
     .doc = "From UTC, such as \"+01:00\". There is no summer time."},
    END};

static const cb_config_rule rule_rules[] = {
    {MEMBER(cb_policy_doc_rule, name), .kind = CB_CONFIG_TEXT, .format = CB_FORMAT_NAME, .required = 1,
     .doc = "Names the rule in decisions and logs."},
    {MEMBER(cb_policy_doc_rule, effect), .kind = CB_CONFIG_ENUM, .names = effect_names, .required = 1,
     .doc = "What a request that fits gets. A denial wins over every permission."},
    {MEMBER(cb_policy_doc_rule, tenants), TEXTS, .required = 1, .doc = "Tenants; \"*\" is whichever was named."},
    {MEMBER(cb_policy_doc_rule, roles), TEXTS, .doc = "One of these roles; \"*\" is any."},
    {MEMBER(cb_policy_doc_rule, subjects), TEXTS,
     .doc = "Subjects. They are unique to an issuer: name that in \"issuers\"."},
    {MEMBER(cb_policy_doc_rule, issuers), TEXTS, .doc = "Issuers of the token."},
    {MEMBER(cb_policy_doc_rule, spiffe), TEXTS,
     .doc = "SPIFFE IDs: \"spiffe://domain/ns/*/web\" (\"*\" is one segment), \"spiffe://domain/ns/**\" (all below)."},
    {MEMBER(cb_policy_doc_rule, claims), .kind = CB_CONFIG_ARRAY, .members = claim_rules,
     .item_size = sizeof(cb_policy_doc_claim), .min = 1, .max = 64, .doc = "Claims of the token; all must fit."},
    {MEMBER(cb_policy_doc_rule, acr), TEXTS, .doc = "Authentication context classes: claim \"acr\" is one of these."},
    {MEMBER(cb_policy_doc_rule, amr), TEXTS, .doc = "Authentication methods: claim \"amr\" has one of these."},
    {MEMBER(cb_policy_doc_rule, routes), TEXTS, .doc = "Names of routes; \"*\" is any."},
    {MEMBER(cb_policy_doc_rule, methods), TEXTS, .doc = "HTTP methods; \"*\" is any."},
    {MEMBER(cb_policy_doc_rule, paths), TEXTS,
     .doc = "Paths: \"/v1/users\" (that one), \"/v1/*/name\" (\"*\" is one segment), \"/v1/**\" (it and all below)."},
    {MEMBER(cb_policy_doc_rule, targets), TEXTS,
     .doc =
         "Targets of tunnels, \"HOST:PORT\": a name, \"*.name\", an address or prefix (IPv6 in brackets) or \"*\"; a "
         "port, a range such as 8000-8099, or \"*\"."},
    {MEMBER(cb_policy_doc_rule, verbs), TEXTS, .doc = "Verbs of an administrator; \"*\" is any."},
    {MEMBER(cb_policy_doc_rule, sources), TEXTS, .format = CB_FORMAT_CIDR, .doc = "Prefixes of the client's address."},
    {MEMBER(cb_policy_doc_rule, mtls), .kind = CB_CONFIG_ENUM, .names = mtls_names, .fallback = "any",
     .doc = "Whether the client showed a certificate that was verified."},
    {MEMBER(cb_policy_doc_rule, times), .kind = CB_CONFIG_ARRAY, .members = time_rules,
     .item_size = sizeof(cb_policy_doc_time), .min = 1, .max = 64, .doc = "When it holds: in one of these windows."},
    {MEMBER(cb_policy_doc_rule, not_before), .kind = CB_CONFIG_TEXT,
     .doc = "It holds from then on: \"2027-01-31T08:00:00Z\" or \"2027-01-31\" (UTC)."},
    {MEMBER(cb_policy_doc_rule, not_after), .kind = CB_CONFIG_TEXT, .doc = "It does not hold from then on."},
    END};

static const cb_config_rule root_rules[] = {
    {MEMBER(cb_policy_doc, rules), .kind = CB_CONFIG_ARRAY, .members = rule_rules,
     .item_size = sizeof(cb_policy_doc_rule), .max = CB_POLICY_RULES, .required = 1,
     .doc = "What matches a \"deny\" is denied; else what matches an \"allow\" is allowed; else it is denied."},
    END};

/* ---- what the form cannot say ---- */

static void complain(cb_config_draft *d, size_t rule, const char *member, size_t i, const char *fmt, const char *text) {
    char pointer[128], said[256];
    snprintf(pointer, sizeof pointer, i == SIZE_MAX ? "/rules/%zu/%s" : "/rules/%zu/%s/%zu", rule, member, i);
    snprintf(said, sizeof said, "\"%.80s\" %s", text, fmt);
    cb_config_complain(d, pointer, said);
}

/* Each text of a list, judged by a pattern's reader. */
typedef const char *(*judge_fn)(const char *text);

static const char *judge_text(const char *text) {
    return !*text ? "is empty" : strlen(text) > CB_POLICY_TEXT ? "is longer than 1,024 bytes" : NULL;
}
static const char *judge_path(const char *text) {
    char room[CB_POLICY_TEXT + 1];
    return cb_policy_path_read(&(cb_policy_segments){.text = NULL}, room, text);
}
static const char *judge_spiffe(const char *text) {
    char room[CB_POLICY_TEXT + 1];
    return cb_policy_spiffe_read(&(cb_policy_segments){.text = NULL}, room, text);
}
static const char *judge_target(const char *text) {
    char room[CB_POLICY_TEXT + 1];
    return cb_policy_target_read(&(cb_policy_target){.host = NULL}, room, text);
}

static void check_texts(cb_config_draft *d, const cb_policy_doc_rule *r, size_t at) {
    const struct {
        const char *member;
        const cb_config_list *list;
        judge_fn judge;
    } lists[] = {{"tenants", &r->tenants, judge_text},   {"roles", &r->roles, judge_text},
                 {"subjects", &r->subjects, judge_text}, {"issuers", &r->issuers, judge_text},
                 {"spiffe", &r->spiffe, judge_spiffe},   {"acr", &r->acr, judge_text},
                 {"amr", &r->amr, judge_text},           {"routes", &r->routes, judge_text},
                 {"methods", &r->methods, judge_text},   {"paths", &r->paths, judge_path},
                 {"targets", &r->targets, judge_target}, {"verbs", &r->verbs, judge_text}};
    for (size_t l = 0; l < sizeof lists / sizeof *lists; l++) {
        const char *const *texts = lists[l].list->at;
        for (size_t i = 0; i < lists[l].list->len; i++) {
            const char *wrong = lists[l].judge(texts[i]);
            if (wrong) complain(d, at, lists[l].member, i, wrong, texts[i]);
        }
    }
}

static void check_claims(cb_config_draft *d, const cb_policy_doc_rule *r, size_t at) {
    const cb_policy_doc_claim *claims = r->claims.at;
    for (size_t i = 0; i < r->claims.len; i++) {
        const char *wrong = cb_policy_pointer_wrong(claims[i].path);
        char member[64];
        snprintf(member, sizeof member, "claims/%zu/path", i);
        if (wrong) complain(d, at, member, SIZE_MAX, wrong, claims[i].path);
    }
}

static void check_times(cb_config_draft *d, const cb_policy_doc_rule *r, size_t at) {
    const cb_policy_doc_time *times = r->times.at;
    int64_t before = 0, after = 0;
    const char *wrong;
    for (size_t i = 0; i < r->times.len; i++) {
        char pointer[64];
        wrong = cb_policy_time_read(&(cb_policy_time){.days = 0}, &times[i]);
        snprintf(pointer, sizeof pointer, "/rules/%zu/times/%zu", at, i);
        if (wrong) cb_config_complain(d, pointer, wrong);
    }
    wrong = r->not_before ? cb_policy_date_read(&before, r->not_before) : NULL;
    if (wrong) complain(d, at, "not_before", SIZE_MAX, wrong, r->not_before);
    const char *wrong_after = r->not_after ? cb_policy_date_read(&after, r->not_after) : NULL;
    if (wrong_after) complain(d, at, "not_after", SIZE_MAX, wrong_after, r->not_after);
    if (!wrong && !wrong_after && r->not_before && r->not_after && after <= before)
        complain(d, at, "not_after", SIZE_MAX, "is not after not_before: the rule would never hold", r->not_after);
}

static int check_names(cb_config_draft *d, const cb_policy_doc *doc) {
    static const uint8_t hash_key[16] = "libcb rule names";
    const cb_policy_doc_rule *rules = doc->rules.at;
    cb_map seen;
    int rc = CB_OK;
    cb_map_init(&seen, &cb_alloc_libc, hash_key);
    for (size_t i = 0; rc == CB_OK && i < doc->rules.len; i++) {
        const char *name = rules[i].name;
        if (cb_map_get(&seen, name, strlen(name)))
            complain(d, i, "name", SIZE_MAX, "is the name of an earlier rule", name);
        rc = cb_map_put(&seen, name, strlen(name), (void *)(uintptr_t)name);
    }
    cb_map_free(&seen);
    return rc;
}

static void check_claim_paths(cb_config_draft *d, const cb_policy_doc *doc) {
    const cb_policy_doc_rule *rules = doc->rules.at;
    const char *paths[CB_POLICY_CLAIM_PATHS] = {"acr", "amr"};
    size_t n = 2;
    for (size_t i = 0; i < doc->rules.len; i++) {
        const cb_policy_doc_claim *claims = rules[i].claims.at;
        for (size_t c = 0; c < rules[i].claims.len; c++) {
            size_t known = 0;
            while (known < n && strcmp(paths[known], claims[c].path) != 0)
                known++;
            if (known < n) continue;
            if (n == CB_POLICY_CLAIM_PATHS) {
                complain(d, i, "claims", c, "is one path too many: a policy looks at 62 of them", claims[c].path);
                return;
            }
            paths[n++] = claims[c].path;
        }
    }
}

static void check(cb_config_draft *d, const void *root) {
    const cb_policy_doc *doc = root;
    const cb_policy_doc_rule *rules = doc->rules.at;
    for (size_t i = 0; i < doc->rules.len; i++) {
        check_texts(d, &rules[i], i);
        check_claims(d, &rules[i], i);
        check_times(d, &rules[i], i);
    }
    check_claim_paths(d, doc);
    if (check_names(d, doc) < 0) cb_config_complain(d, "/rules", "there is no memory to compare the names");
}

const cb_config_schema cb_policy_schema = {.size = sizeof cb_policy_schema,
                                           .title = "libcb policy",
                                           .members = root_rules,
                                           .root_size = sizeof(cb_policy_doc),
                                           .check = check};

int cb_policy_schema_json(char **out) {
    return cb_config_schema_json(out, &cb_policy_schema);
}

int cb_policy_parse(cb_policy **out, cb_slice text, const char *name, cb_config_error_fn on_error, void *user) {
    cb_config *doc = NULL;
    if (!out) return cb_fail(CB_EINVAL, "cb_policy_parse: out is NULL");
    int rc = cb_config_parse(&doc, &cb_policy_schema, text, name ? name : "policy", on_error, user);
    return rc < 0 ? rc : cb_policy_compile(out, doc);
}
