/* Policies, compiled. What a rule asks of single texts (tenant, roles, verb ...) becomes sets of bits, a bit a rule:
 * for each text of a request the set of the rules that it satisfies, so that all rules are sieved by a few ands. What
 * is left, denials first, is judged rule by rule for what needs more than a look: prefixes, patterns, times, claims. */
#include "auth/policy.h"
#include "auth/claims.h"
#include "auth/jwt.h"
#include "base/error.h"
#include "base/mem.h"
#include "base/opts.h"
#include <stdatomic.h>
#include <string.h>

enum { WORDS = CB_POLICY_RULES / 64, VALUES_MAX = 65536 };

/* Conditions on single texts. */
enum dim { TENANT, ROLE, SUBJECT, ISSUER, ROUTE, METHOD, VERB, DIMS };

static const struct {
    size_t list;    /* in cb_policy_doc_rule */
    size_t request; /* in cb_policy_request; SIZE_MAX: roles */
    int condition;
} dims[DIMS] = {
    [TENANT] = {offsetof(cb_policy_doc_rule, tenants), offsetof(cb_policy_request, tenant), CB_POLICY_TENANTS},
    [ROLE] = {offsetof(cb_policy_doc_rule, roles), SIZE_MAX, CB_POLICY_ROLES},
    [SUBJECT] = {offsetof(cb_policy_doc_rule, subjects), offsetof(cb_policy_request, subject), CB_POLICY_SUBJECTS},
    [ISSUER] = {offsetof(cb_policy_doc_rule, issuers), offsetof(cb_policy_request, issuer), CB_POLICY_ISSUERS},
    [ROUTE] = {offsetof(cb_policy_doc_rule, routes), offsetof(cb_policy_request, route), CB_POLICY_ROUTES},
    [METHOD] = {offsetof(cb_policy_doc_rule, methods), offsetof(cb_policy_request, method), CB_POLICY_METHODS},
    [VERB] = {offsetof(cb_policy_doc_rule, verbs), offsetof(cb_policy_request, verb), CB_POLICY_VERBS},
};

typedef struct claim_ask {
    cb_config_list any; /* const char * */
    uint32_t path;      /* index of cb_policy.claim_paths */
    uint32_t reserved;
} claim_ask;

typedef struct rule {
    const cb_policy_doc_rule *doc;
    const cb_policy_segments *paths, *spiffe;
    const cb_policy_target *targets;
    const cb_prefix *sources;
    const cb_policy_time *times;
    const claim_ask *claims;
    size_t n_claims;
    int64_t not_before, not_after; /* INT64_MIN, INT64_MAX: none */
    uint32_t index;                /* in the document */
    uint32_t has;                  /* bits of enum cb_policy_condition */
    uint32_t rest;                 /* of `has`, what the sets do not say */
} rule;

typedef struct block {
    struct block *next;
    max_align_t bytes[];
} block;

struct cb_policy {
    _Atomic uint32_t refs;
    cb_config *doc;
    block *blocks; /* all memory of below */
    rule *rules;   /* denials first, else in the order of the document */
    const rule **in_order;
    size_t len, words, values;
    cb_map texts[DIMS];                   /* text -> set of the rules that ask for it */
    uint64_t *none[DIMS], *present[DIMS]; /* rules that do not ask; rules that ask for "*" */
    uint64_t *mtls[2];                    /* rules that are satisfied without and with a certificate */
    const char *claim_paths[CB_POLICY_CLAIM_PATHS];
    size_t n_claim_paths;
    uint32_t looks_at; /* bits: conditions that any rule has */
};

/* ---- compiling ---- */

static void *arena(cb_policy *p, size_t n, size_t size) {
    if (!n) n = 1;
    block *b = cb_mem_new(&cb_alloc_libc, sizeof *b + n * size);
    if (!b) return NULL;
    b->next = p->blocks;
    p->blocks = b;
    return b->bytes;
}

static void set_bit(uint64_t *set, size_t i) {
    set[i / 64] |= 1ull << i % 64;
}

static const cb_config_list *list_of(const cb_policy_doc_rule *r, size_t d) {
    return (const cb_config_list *)((const char *)r + dims[d].list);
}

/* The rule at place `at` asks for these texts. */
static int add_texts(cb_policy *p, size_t d, size_t at, const cb_config_list *list) {
    const char *const *texts = list->at;
    if (!list->len) set_bit(p->none[d], at);
    for (size_t i = 0; i < list->len; i++) {
        const size_t len = strlen(texts[i]);
        if (strcmp(texts[i], "*") == 0) {
            set_bit(p->present[d], at);
            continue;
        }
        uint64_t *set = cb_map_get(&p->texts[d], texts[i], len);
        if (!set) {
            if (++p->values > VALUES_MAX)
                return cb_fail(CB_ELIMIT, "a policy has at most %d different texts", VALUES_MAX);
            set = arena(p, p->words, sizeof *set);
            int rc = set ? cb_map_put(&p->texts[d], texts[i], len, set) : CB_ENOMEM;
            if (rc < 0) return rc;
        }
        set_bit(set, at);
    }
    return CB_OK;
}

typedef const char *(*segments_fn)(cb_policy_segments *out, char *room, const char *text);

static int add_segments(cb_policy *p, const cb_policy_segments **out, const cb_config_list *list, segments_fn read) {
    const char *const *texts = list->at;
    cb_policy_segments *all = arena(p, list->len, sizeof *all);
    for (size_t i = 0; all && i < list->len; i++) {
        char *room = arena(p, strlen(texts[i]) + 1, 1);
        if (!room) return CB_ENOMEM;
        (void)read(&all[i], room, texts[i]); /* was judged with the document */
    }
    *out = all;
    return all ? CB_OK : CB_ENOMEM;
}

static int add_targets(cb_policy *p, rule *r) {
    const char *const *texts = r->doc->targets.at;
    cb_policy_target *all = arena(p, r->doc->targets.len, sizeof *all);
    for (size_t i = 0; all && i < r->doc->targets.len; i++) {
        char *room = arena(p, strlen(texts[i]) + 1, 1);
        if (!room) return CB_ENOMEM;
        (void)cb_policy_target_read(&all[i], room, texts[i]);
    }
    r->targets = all;
    return all ? CB_OK : CB_ENOMEM;
}

static int add_places_and_times(cb_policy *p, rule *r) {
    const char *const *texts = r->doc->sources.at;
    const cb_policy_doc_time *windows = r->doc->times.at;
    cb_prefix *sources = arena(p, r->doc->sources.len, sizeof *sources);
    cb_policy_time *times = arena(p, r->doc->times.len, sizeof *times);
    if (!sources || !times) return CB_ENOMEM;
    for (size_t i = 0; i < r->doc->sources.len; i++)
        (void)cb_prefix_parse(&sources[i], texts[i]);
    for (size_t i = 0; i < r->doc->times.len; i++)
        (void)cb_policy_time_read(&times[i], &windows[i]);
    r->sources = sources;
    r->times = times;
    r->not_before = INT64_MIN;
    r->not_after = INT64_MAX;
    if (r->doc->not_before) (void)cb_policy_date_read(&r->not_before, r->doc->not_before);
    if (r->doc->not_after) (void)cb_policy_date_read(&r->not_after, r->doc->not_after);
    return CB_OK;
}

static void ask_claim(cb_policy *p, claim_ask *asks, size_t *n, const char *path, const cb_config_list *any) {
    uint32_t at = 0;
    if (!any->len) return;
    while (at < p->n_claim_paths && strcmp(p->claim_paths[at], path) != 0)
        at++;
    if (at == p->n_claim_paths) p->claim_paths[p->n_claim_paths++] = path; /* the document has no more than fit */
    asks[(*n)++] = (claim_ask){*any, at, 0};
}

static int add_claims(cb_policy *p, rule *r) {
    const cb_policy_doc_claim *claims = r->doc->claims.at;
    claim_ask *asks = arena(p, r->doc->claims.len + 2, sizeof *asks);
    if (!asks) return CB_ENOMEM;
    for (size_t i = 0; i < r->doc->claims.len; i++)
        ask_claim(p, asks, &r->n_claims, claims[i].path, &claims[i].any);
    ask_claim(p, asks, &r->n_claims, "acr", &r->doc->acr);
    ask_claim(p, asks, &r->n_claims, "amr", &r->doc->amr);
    r->claims = asks;
    return CB_OK;
}

static int add_rule(cb_policy *p, size_t at, const cb_policy_doc_rule *doc, uint32_t index) {
    static const uint32_t in_sets = 1u << CB_POLICY_TENANTS | 1u << CB_POLICY_ROLES | 1u << CB_POLICY_SUBJECTS |
                                    1u << CB_POLICY_ISSUERS | 1u << CB_POLICY_ROUTES | 1u << CB_POLICY_METHODS |
                                    1u << CB_POLICY_VERBS | 1u << CB_POLICY_MTLS;
    rule *r = &p->rules[at];
    int rc = CB_OK;
    r->doc = doc;
    r->index = index;
    p->in_order[index] = r;
    for (size_t d = 0; rc == CB_OK && d < DIMS; d++) {
        rc = add_texts(p, d, at, list_of(doc, d));
        if (list_of(doc, d)->len) r->has |= 1u << dims[d].condition;
    }
    if (rc == CB_OK) rc = add_segments(p, &r->paths, &doc->paths, cb_policy_path_read);
    if (rc == CB_OK) rc = add_segments(p, &r->spiffe, &doc->spiffe, cb_policy_spiffe_read);
    if (rc == CB_OK) rc = add_targets(p, r);
    if (rc == CB_OK) rc = add_places_and_times(p, r);
    if (rc == CB_OK) rc = add_claims(p, r);
    if (doc->mtls != 1) set_bit(p->mtls[0], at);
    if (doc->mtls != 2) set_bit(p->mtls[1], at);
    r->has |= (uint32_t)(doc->mtls != 0) << CB_POLICY_MTLS | (uint32_t)(doc->paths.len > 0) << CB_POLICY_PATHS |
              (uint32_t)(doc->spiffe.len > 0) << CB_POLICY_SPIFFE |
              (uint32_t)(doc->targets.len > 0) << CB_POLICY_TARGETS |
              (uint32_t)(doc->sources.len > 0) << CB_POLICY_SOURCES |
              (uint32_t)(doc->times.len > 0) << CB_POLICY_TIMES | (uint32_t)(r->n_claims > 0) << CB_POLICY_CLAIMS |
              (uint32_t)(doc->not_before || doc->not_after) << CB_POLICY_DATES;
    r->rest = r->has & ~in_sets;
    p->looks_at |= r->has;
    return rc;
}

static int compile(cb_policy *p, const cb_policy_doc *doc) {
    static const uint8_t hash_key[16] = "libcb policy tab";
    const cb_policy_doc_rule *rules = doc->rules.at;
    size_t at = 0;
    int rc = CB_OK;
    p->len = doc->rules.len;
    p->words = (p->len + 63) / 64;
    p->rules = arena(p, p->len, sizeof *p->rules);
    p->in_order = arena(p, p->len, sizeof *p->in_order);
    for (size_t d = 0; d < DIMS; d++) {
        cb_map_init(&p->texts[d], &cb_alloc_libc, hash_key); /* the operator puts in, strangers only ask */
        p->none[d] = arena(p, p->words, sizeof **p->none);
        p->present[d] = arena(p, p->words, sizeof **p->present);
        if (!p->none[d] || !p->present[d]) rc = CB_ENOMEM;
    }
    p->mtls[0] = arena(p, p->words, sizeof **p->mtls);
    p->mtls[1] = arena(p, p->words, sizeof **p->mtls);
    if (!p->rules || !p->in_order || !p->mtls[0] || !p->mtls[1]) rc = CB_ENOMEM;
    for (int32_t effect = 0; effect < 2; effect++)
        for (size_t i = 0; rc == CB_OK && i < p->len; i++)
            if (rules[i].effect == effect) rc = add_rule(p, at++, &rules[i], (uint32_t)i);
    return rc;
}

int cb_policy_compile(cb_policy **out, cb_config *doc) {
    cb_policy *p = cb_mem_new(&cb_alloc_libc, sizeof *p);
    if (!p) {
        cb_config_unref(doc);
        return cb_fail(CB_ENOMEM, "no memory for a policy");
    }
    atomic_init(&p->refs, 1);
    p->doc = doc;
    int rc = compile(p, cb_config_root(doc));
    if (rc < 0) {
        cb_policy_unref(p);
        return rc == CB_ENOMEM ? cb_fail(rc, "no memory for a policy") : rc;
    }
    *out = p;
    return CB_OK;
}

cb_policy *cb_policy_ref(cb_policy *p) {
    atomic_fetch_add_explicit(&p->refs, 1, memory_order_relaxed);
    return p;
}

void cb_policy_unref(cb_policy *p) {
    if (!p || atomic_fetch_sub_explicit(&p->refs, 1, memory_order_acq_rel) > 1) return;
    for (size_t d = 0; d < DIMS; d++)
        cb_map_free(&p->texts[d]);
    for (block *b = p->blocks, *next; b; b = next) {
        next = b->next;
        cb_mem_free(&cb_alloc_libc, b);
    }
    cb_config_unref(p->doc);
    cb_mem_free(&cb_alloc_libc, p);
}

size_t cb_policy_len(const cb_policy *p) {
    return p->len;
}

/* ---- judging ---- */

/* A request, read once: what several rules look at. */
typedef struct ask {
    const cb_policy *p;
    cb_policy_request r;
    cb_slice path;
    cb_policy_host host;
    uint8_t source[16];
    bool has_source, has_target;
    uint64_t claims_read; /* bits: these of claims are looked for */
    const cb_json_node *claims[CB_POLICY_CLAIM_PATHS];
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
    a->claims_read = 0;
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
static bool unknown(const rule *r) {
    return r->doc->effect == 0;
}

static bool paths_fit(ask *a, const rule *r) {
    for (size_t i = 0; a->path.len && i < r->doc->paths.len; i++)
        if (cb_policy_segments_fit(&r->paths[i], (const char *)a->path.base, a->path.len)) return true;
    return false;
}

static bool spiffe_fits(ask *a, const rule *r) {
    const cb_slice id = a->r.spiffe_id;
    for (size_t i = 0; id.len && i < r->doc->spiffe.len; i++)
        if (cb_policy_segments_fit(&r->spiffe[i], (const char *)id.base, id.len)) return true;
    return false;
}

static bool targets_fit(ask *a, const rule *r) {
    for (size_t i = 0; a->has_target && i < r->doc->targets.len; i++)
        if (cb_policy_target_fits(&r->targets[i], &a->host, a->r.target_port)) return true;
    return false;
}

static bool sources_fit(ask *a, const rule *r) {
    if (!a->has_source) return unknown(r);
    for (size_t i = 0; i < r->doc->sources.len; i++)
        if (cb_prefix_has(&r->sources[i], a->source)) return true;
    return false;
}

static bool times_fit(ask *a, const rule *r) {
    if (a->r.now_s <= 0) return unknown(r);
    for (size_t i = 0; i < r->doc->times.len; i++)
        if (cb_policy_time_fits(&r->times[i], a->r.now_s)) return true;
    return false;
}

static bool dates_fit(ask *a, const rule *r) {
    if (a->r.now_s <= 0) return unknown(r);
    return a->r.now_s >= r->not_before && a->r.now_s < r->not_after;
}

static bool slice_is(cb_slice s, const char *text, size_t len) {
    return s.len == len && memcmp(s.base, text, len) == 0;
}

/* The claim at a path, looked for once a request. NULL: none. */
static const cb_json_node *claim_of(ask *a, uint32_t path) {
    const uint64_t bit = 1ull << path;
    if (!(a->claims_read & bit)) a->claims[path] = cb_claims_find(&a->r.token->claims, a->p->claim_paths[path]);
    a->claims_read |= bit;
    return a->claims[path];
}

static bool claim_fits(ask *a, const claim_ask *q) {
    const char *const *texts = q->any.at;
    const cb_json_node *c = a->r.token ? claim_of(a, q->path) : NULL;
    for (size_t i = 0; i < q->any.len; i++) {
        if (c && cb_claims_is(&a->r.token->claims, c, texts[i])) return true;
        if (!a->r.token && a->r.claim && a->r.claim(a->p->claim_paths[q->path], texts[i], a->r.user)) return true;
    }
    return false;
}

static bool claims_fit(ask *a, const rule *r) {
    for (size_t i = 0; i < r->n_claims; i++)
        if (!claim_fits(a, &r->claims[i])) return false;
    return true;
}

/* What the sets do not say, the cheap before the dear. */
static const struct {
    int condition;
    bool (*fits)(ask *a, const rule *r);
} rest[] = {{CB_POLICY_PATHS, paths_fit},     {CB_POLICY_SPIFFE, spiffe_fits}, {CB_POLICY_TARGETS, targets_fit},
            {CB_POLICY_SOURCES, sources_fit}, {CB_POLICY_TIMES, times_fit},    {CB_POLICY_DATES, dates_fit},
            {CB_POLICY_CLAIMS, claims_fit}};
enum { REST = sizeof rest / sizeof *rest };

static bool rest_fits(ask *a, const rule *r) {
    for (size_t i = 0; i < REST; i++)
        if (r->rest >> rest[i].condition & 1 && !rest[i].fits(a, r)) return false;
    return true;
}

/* ---- deciding ---- */

/* Leaves in `live` the rules that the request's text of dimension d satisfies. */
static void sieve(const ask *a, size_t d, uint64_t *live) {
    const cb_policy *p = a->p;
    const cb_slice *texts =
        d == ROLE ? a->r.roles : (const cb_slice *)(const void *)((const char *)&a->r + dims[d].request);
    const size_t n = d == ROLE ? a->r.roles_len : 1;
    uint64_t good[WORDS];
    if (!looks_at(p, dims[d].condition)) return;
    memcpy(good, p->none[d], p->words * sizeof *good);
    for (size_t i = 0; i < n; i++) {
        if (!texts[i].len) continue;
        const uint64_t *set = cb_map_get(&p->texts[d], texts[i].base, texts[i].len);
        for (size_t w = 0; w < p->words; w++)
            good[w] |= p->present[d][w] | (set ? set[w] : 0);
    }
    for (size_t w = 0; w < p->words; w++)
        live[w] &= good[w];
}

static const rule *first_match(ask *a) {
    const cb_policy *p = a->p;
    uint64_t live[WORDS];
    memcpy(live, p->mtls[a->r.mtls != 0], p->words * sizeof *live);
    for (size_t d = 0; d < DIMS; d++)
        sieve(a, d, live);
    for (size_t w = 0; w < p->words; w++) {
        for (uint64_t bits = live[w]; bits; bits &= bits - 1) {
            const rule *r = &p->rules[w * 64 + (size_t)__builtin_ctzll(bits)];
            if (!r->rest || rest_fits(a, r)) return r;
        }
    }
    return NULL;
}

static void tell(cb_policy_decision *out, const rule *r, int denied) {
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

/* Does the request's text of dimension d satisfy the rule? By the list itself, not by the sets. */
static bool dim_fits(const ask *a, size_t d, const cb_policy_doc_rule *doc) {
    const cb_config_list *list = list_of(doc, d);
    const char *const *want = list->at;
    const cb_slice *texts =
        d == ROLE ? a->r.roles : (const cb_slice *)(const void *)((const char *)&a->r + dims[d].request);
    const size_t n = d == ROLE ? a->r.roles_len : 1;
    for (size_t i = 0; i < n; i++)
        for (size_t w = 0; texts[i].len && w < list->len; w++)
            if (strcmp(want[w], "*") == 0 || slice_is(texts[i], want[w], strlen(want[w]))) return true;
    return false;
}

static uint32_t failed(ask *a, const rule *r) {
    uint32_t bits = 0;
    for (size_t d = 0; d < DIMS; d++)
        if (r->has >> dims[d].condition & 1 && !dim_fits(a, d, r->doc)) bits |= 1u << dims[d].condition;
    for (size_t i = 0; i < REST; i++)
        if (r->has >> rest[i].condition & 1 && !rest[i].fits(a, r)) bits |= 1u << rest[i].condition;
    if (r->doc->mtls && (r->doc->mtls == 1) != (a->r.mtls != 0)) bits |= 1u << CB_POLICY_MTLS;
    return bits;
}

int cb_policy_explain(const cb_policy *p, const cb_policy_request *request, cb_policy_decision *out,
                      void (*on_step)(const cb_policy_step *step, void *user), void *user) {
    ask a;
    cb_policy_decision d;
    const rule *found = NULL;
    int rc = ask_begin(&a, p, request);
    if (rc < 0) return rc;
    const int denied = ask_read(&a);
    for (size_t i = 0; !denied && i < p->len; i++) {
        const rule *r = p->in_order[i];
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
