/* Requests are judged: sieved by the index, then rule by rule; and explained, by each rule's own words. */
#include "auth/claims.h"
#include "auth/jwt.h"
#include "auth/policy_table.h"
#include "base/error.h"
#include "base/opts.h"
#include <string.h>

/* A request, read once: what several rules look at. */
typedef struct ask {
    const cb_policy *p;
    cb_policy_request r;
    cb_slice path;
    cb_policy_host host;
    uint8_t source[16];
    bool has_source, has_target;
    char room[CB_POLICY_PATH_BYTES];
} ask;

static bool looks_at(const cb_policy *p, int condition) {
    return p->looks_at >> condition & 1;
}

static bool source_read(ask *a) {
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    const cb_slice s = a->r.source;
    a->has_source = s.len > 0;
    if (s.len == 16) memcpy(a->source, s.base, 16);
    if (s.len == 4) {
        memcpy(a->source, mapped, sizeof mapped);
        memcpy(a->source + 12, s.base, 4);
    }
    return s.len == 0 || s.len == 4 || s.len == 16;
}

static bool target_read(ask *a) {
    a->has_target = a->r.target_host.len > 0;
    if (!a->has_target || !looks_at(a->p, CB_POLICY_TARGETS)) return true;
    return a->r.target_port >= 1 && a->r.target_port <= UINT16_MAX && cb_policy_host_clear(a->r.target_host, &a->host);
}

/* 0, or the enum cb_policy_reason for which the request is denied whatever the rules say. */
static int ask_read(ask *a) {
    a->path = (cb_slice){NULL, 0};
    if (a->r.token) {
        const char *subject = cb_jwt_subject(a->r.token), *issuer = cb_jwt_issuer(a->r.token);
        if (!a->r.subject.len && subject) a->r.subject = cb_slice_str(subject);
        if (!a->r.issuer.len && issuer) a->r.issuer = cb_slice_str(issuer);
    }
    if (!a->r.tenant.len) return CB_POLICY_NO_TENANT;
    if (looks_at(a->p, CB_POLICY_PATHS) && !cb_policy_path_clear(a->r.path, a->room, &a->path)) return CB_POLICY_PATH;
    if (!target_read(a)) return CB_POLICY_TARGET;
    return source_read(a) ? 0 : CB_POLICY_SOURCE;
}

/* Who denies is not fooled by what he is not told. */
static bool unknown(const cb_policy_rule *r) {
    return r->doc->effect == 0;
}

static bool paths_fit(ask *a, const cb_policy_rule *r) {
    for (size_t i = 0; a->path.base && i < r->doc->paths.len; i++)
        if (cb_policy_segments_fit(&r->paths[i], a->path)) return true;
    return false;
}

/* What comes behind "spiffe://"; without a base when it is no SPIFFE ID. */
static cb_slice spiffe_of(const ask *a) {
    static const char scheme[9] = {'s', 'p', 'i', 'f', 'f', 'e', ':', '/', '/'};
    const cb_slice id = a->r.spiffe_id;
    if (id.len <= sizeof scheme || memcmp(id.base, scheme, sizeof scheme) != 0) return (cb_slice){NULL, 0};
    return (cb_slice){id.base + sizeof scheme, id.len - sizeof scheme};
}

static bool spiffe_fits(ask *a, const cb_policy_rule *r) {
    const cb_slice id = spiffe_of(a);
    for (size_t i = 0; id.base && i < r->doc->spiffe.len; i++)
        if (cb_policy_segments_fit(&r->spiffe[i], id)) return true;
    return false;
}

static bool targets_fit(ask *a, const cb_policy_rule *r) {
    for (size_t i = 0; a->has_target && i < r->doc->targets.len; i++)
        if (cb_policy_target_fits(&r->targets[i], &a->host, a->r.target_port)) return true;
    return false;
}

static bool sources_fit(ask *a, const cb_policy_rule *r) {
    if (!a->has_source) return unknown(r);
    for (size_t i = 0; i < r->doc->sources.len; i++)
        if (cb_prefix_has(&r->sources[i], a->source)) return true;
    return false;
}

static bool times_fit(ask *a, const cb_policy_rule *r) {
    if (a->r.now_s <= 0) return unknown(r);
    for (size_t i = 0; i < r->doc->times.len; i++)
        if (cb_policy_time_fits(&r->times[i], a->r.now_s)) return true;
    return false;
}

static bool dates_fit(ask *a, const cb_policy_rule *r) {
    if (a->r.now_s <= 0) return unknown(r);
    return a->r.now_s >= r->not_before && a->r.now_s < r->not_after;
}

static bool slice_is(cb_slice s, const char *text) {
    return s.len == strlen(text) && memcmp(s.base, text, s.len) == 0;
}

/* The values of a claim, one after the other. */
typedef struct values {
    const cb_json *json;
    const cb_json_node *of;
    const char *path;
    uint32_t it;
} values;

static values values_of(const ask *a, size_t path) {
    values v = {.path = a->p->claims[path].path};
    if (!a->r.token) return v;
    v.json = &a->r.token->claims;
    v.of = cb_claims_find(v.json, v.path);
    return v;
}

static bool next_value(const ask *a, values *v, cb_slice *out) {
    if (v->json) return cb_claims_value(v->json, v->of, &v->it, out);
    return a->r.claim && a->r.claim(v->path, &v->it, out, a->r.user) != 0;
}

static bool claim_fits(ask *a, const cb_policy_claim_ask *q) {
    const char *const *texts = q->any.at;
    cb_slice value;
    for (values v = values_of(a, q->path); next_value(a, &v, &value);)
        for (size_t i = 0; i < q->any.len; i++)
            if (slice_is(value, texts[i])) return true;
    return false;
}

static bool claims_fit(ask *a, const cb_policy_rule *r) {
    for (size_t i = 0; i < r->n_claims; i++)
        if (!claim_fits(a, &r->claims[i])) return false;
    return true;
}

/* What can be judged of one rule; those that the index let pass are judged for their `rest` only. */
static const struct {
    int condition;
    bool (*fits)(ask *a, const cb_policy_rule *r);
} judges[] = {{CB_POLICY_PATHS, paths_fit},     {CB_POLICY_SPIFFE, spiffe_fits}, {CB_POLICY_TARGETS, targets_fit},
              {CB_POLICY_SOURCES, sources_fit}, {CB_POLICY_TIMES, times_fit},    {CB_POLICY_DATES, dates_fit},
              {CB_POLICY_CLAIMS, claims_fit}};
enum { JUDGES = sizeof judges / sizeof *judges };

static bool rest_fits(ask *a, const cb_policy_rule *r) {
    for (size_t i = 0; i < JUDGES; i++)
        if (r->rest >> judges[i].condition & 1 && !judges[i].fits(a, r)) return false;
    return true;
}

/* ---- deciding ---- */

static const cb_slice *texts_of(const ask *a, size_t d, size_t *n) {
    *n = d == CB_POLICY_ROLE ? a->r.roles_len : 1;
    if (d == CB_POLICY_ROLE) return a->r.roles;
    return (const cb_slice *)(const void *)((const char *)&a->r + cb_policy_dims[d].request);
}

static bool meet(uint64_t *live, const uint64_t *good, size_t words) {
    uint64_t left = 0;
    for (size_t w = 0; w < words; w++)
        left |= live[w] &= good[w];
    return left != 0;
}

/* Leaves in `live` the rules that the request's texts satisfy; false: none. */
static bool sieve_texts(const ask *a, uint64_t *live) {
    const cb_policy *p = a->p;
    uint64_t good[CB_POLICY_WORDS];
    for (size_t d = 0; d < CB_POLICY_DIMS; d++) {
        size_t n;
        const cb_slice *texts = texts_of(a, d, &n);
        if (!p->texts[d].asked) continue;
        memcpy(good, p->texts[d].none, p->words * sizeof *good);
        for (size_t i = 0; i < n; i++)
            cb_policy_texts_find(&p->texts[d], p->words, texts[i], good);
        if (!meet(live, good, p->words)) return false;
    }
    return true;
}

static bool sieve_segments(const cb_policy *p, const cb_policy_tree *tree, cb_slice text, uint64_t *live) {
    uint64_t good[CB_POLICY_WORDS];
    memcpy(good, tree->none, p->words * sizeof *good);
    if (text.base) cb_policy_tree_find(tree, p->words, text, good);
    return meet(live, good, p->words);
}

/* A claim is looked for only where a rule that is left asks for it. */
static bool sieve_claims(const ask *a, uint64_t *live) {
    const cb_policy *p = a->p;
    uint64_t good[CB_POLICY_WORDS];
    bool left = true;
    for (size_t i = 0; left && i < p->n_claims; i++) {
        const cb_policy_texts *t = &p->claims[i].texts;
        cb_slice value;
        uint64_t asking = 0;
        for (size_t w = 0; w < p->words; w++)
            asking |= live[w] & ~t->none[w];
        if (!asking) continue;
        memcpy(good, t->none, p->words * sizeof *good);
        for (values v = values_of(a, i); next_value(a, &v, &value);)
            cb_policy_texts_find(t, p->words, value, good);
        left = meet(live, good, p->words);
    }
    return left;
}

static const cb_policy_rule *first_match(ask *a) {
    const cb_policy *p = a->p;
    uint64_t live[CB_POLICY_WORDS];
    memcpy(live, p->mtls[a->r.mtls != 0], p->words * sizeof *live);
    if (!sieve_texts(a, live)) return NULL;
    if (looks_at(p, CB_POLICY_PATHS) && !sieve_segments(p, &p->paths, a->path, live)) return NULL;
    if (looks_at(p, CB_POLICY_SPIFFE) && !sieve_segments(p, &p->spiffe, spiffe_of(a), live)) return NULL;
    if (!sieve_claims(a, live)) return NULL;
    for (size_t w = 0; w < p->words; w++) {
        for (uint64_t bits = live[w]; bits; bits &= bits - 1) {
            const cb_policy_rule *r = &p->rules[w * 64 + (size_t)__builtin_ctzll(bits)];
            if (!r->rest || rest_fits(a, r)) return r;
        }
    }
    return NULL;
}

static void tell(cb_policy_decision *out, const cb_policy_rule *r, int denied) {
    *out = (cb_policy_decision){.size = sizeof *out,
                                .rule = r ? r->doc->name : NULL,
                                .index = r ? r->index : 0,
                                .reason = denied ? denied
                                          : r    ? CB_POLICY_RULE
                                                 : CB_POLICY_NO_RULE,
                                .allowed = r && r->doc->effect == 1};
}

static int ask_begin(ask *a, const cb_policy *p, const cb_policy_request *request) {
    if (!p || !request) return cb_fail(CB_EINVAL, "cb_policy: %s is NULL", p ? "the request" : "the policy");
    a->p = p;
    int rc = cb_opts_read(&a->r, sizeof a->r, request, "cb_policy_request");
    if (rc == CB_OK && a->r.roles_len && !a->r.roles) return cb_fail(CB_EINVAL, "cb_policy_request: roles is NULL");
    return rc;
}

static int answer(const cb_policy_decision *d, cb_policy_decision *out) {
    int rc = out ? cb_stats_give(out, d, sizeof *d, "cb_policy_decision") : CB_OK;
    return rc < 0 ? rc : d->allowed ? CB_OK : CB_EAUTH;
}

int cb_policy_decide(const cb_policy *p, const cb_policy_request *request, cb_policy_decision *out) {
    ask a;
    cb_policy_decision d;
    int rc = ask_begin(&a, p, request);
    if (rc < 0) return rc;
    const int denied = ask_read(&a);
    tell(&d, denied ? NULL : first_match(&a), denied);
    return answer(&d, out);
}

/* ---- explaining ---- */

/* Does the request's text of dimension d satisfy the rule? By the list itself, not by the index. */
static bool dim_fits(const ask *a, size_t d, const cb_policy_doc_rule *doc) {
    const cb_config_list *list = cb_policy_list(doc, d);
    const char *const *want = list->at;
    size_t n;
    const cb_slice *texts = texts_of(a, d, &n);
    for (size_t i = 0; i < n; i++)
        for (size_t w = 0; texts[i].len && w < list->len; w++)
            if (strcmp(want[w], "*") == 0 || slice_is(texts[i], want[w])) return true;
    return false;
}

static uint32_t failed(ask *a, const cb_policy_rule *r) {
    uint32_t bits = 0;
    for (size_t d = 0; d < CB_POLICY_DIMS; d++)
        if (r->has >> cb_policy_dims[d].condition & 1 && !dim_fits(a, d, r->doc))
            bits |= 1u << cb_policy_dims[d].condition;
    for (size_t i = 0; i < JUDGES; i++)
        if (r->has >> judges[i].condition & 1 && !judges[i].fits(a, r)) bits |= 1u << judges[i].condition;
    if (r->doc->mtls && (r->doc->mtls == 1) != (a->r.mtls != 0)) bits |= 1u << CB_POLICY_MTLS;
    return bits;
}

int cb_policy_explain(const cb_policy *p, const cb_policy_request *request, cb_policy_decision *out,
                      void (*on_step)(const cb_policy_step *step, void *user), void *user) {
    ask a;
    cb_policy_decision d;
    const cb_policy_rule *found = NULL;
    int rc = ask_begin(&a, p, request);
    if (rc < 0) return rc;
    const int denied = ask_read(&a);
    for (size_t i = 0; !denied && i < p->len; i++) {
        const cb_policy_rule *r = p->in_order[i];
        const cb_policy_step step = {.size = sizeof step,
                                     .rule = r->doc->name,
                                     .index = r->index,
                                     .allow = r->doc->effect,
                                     .conditions = r->has,
                                     .failed = failed(&a, r)};
        cb_policy_step told = step;
        told.matches = step.failed == 0;
        if (told.matches && (!found || found->doc->effect > r->doc->effect)) found = r;
        if (on_step) on_step(&told, user);
    }
    tell(&d, found, denied);
    return answer(&d, out);
}

/* ---- names ---- */

const char *cb_policy_condition_text(int condition) {
    static const char *const names[CB_POLICY_CONDITIONS] = {"tenants", "roles",   "subjects", "issuers", "spiffe",
                                                            "claims",  "routes",  "methods",  "paths",   "targets",
                                                            "verbs",   "sources", "mtls",     "times",   "dates"};
    return condition >= 0 && condition < CB_POLICY_CONDITIONS ? names[condition] : "";
}

const char *cb_policy_reason_text(int reason) {
    static const char *const names[] = {"", "rule", "no-rule", "no-tenant", "unclear-path", "unclear-target", "source"};
    return reason > 0 && (size_t)reason < sizeof names / sizeof *names ? names[reason] : "";
}
