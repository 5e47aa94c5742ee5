/* Policies are compiled. What a rule asks of texts (tenant, roles, paths, claims ...) goes into an index
 * (policy_index.h): each gives the set of the rules that a request satisfies, and all rules are sieved by a few ands.
 * What is left, denials first, is judged rule by rule (policy_decide.c). */
#include "auth/policy_table.h"
#include "base/error.h"
#include "base/mem.h"
#include <stdatomic.h>
#include <string.h>

#define DIM(list_, request_, condition_)                                                                               \
    { offsetof(cb_policy_doc_rule, list_), offsetof(cb_policy_request, request_), condition_ }

const cb_policy_dim_def cb_policy_dims[CB_POLICY_DIMS] = {[CB_POLICY_TENANT] = DIM(tenants, tenant, CB_POLICY_TENANTS),
                                                          [CB_POLICY_ROLE] = DIM(roles, roles, CB_POLICY_ROLES),
                                                          [CB_POLICY_SUBJECT] =
                                                              DIM(subjects, subject, CB_POLICY_SUBJECTS),
                                                          [CB_POLICY_ISSUER] = DIM(issuers, issuer, CB_POLICY_ISSUERS),
                                                          [CB_POLICY_ROUTE] = DIM(routes, route, CB_POLICY_ROUTES),
                                                          [CB_POLICY_METHOD] = DIM(methods, method, CB_POLICY_METHODS),
                                                          [CB_POLICY_VERB] = DIM(verbs, verb, CB_POLICY_VERBS)};

static void *get(cb_policy *p, size_t n, size_t size) {
    return cb_policy_arena_get(&p->arena, n, size);
}

typedef const char *(*segments_fn)(cb_policy_segments *out, char *room, const char *text);

static int add_segments(cb_policy *p, size_t at, const cb_policy_segments **out, const cb_config_list *list,
                        segments_fn read, cb_policy_tree *tree) {
    const char *const *texts = list->at;
    cb_policy_segments *all = get(p, list->len, sizeof *all);
    if (!all) return CB_ENOMEM;
    if (!list->len) cb_policy_set_add(tree->none, at);
    for (size_t i = 0; i < list->len; i++) {
        char *room = get(p, strlen(texts[i]) + 1, 1);
        if (!room) return CB_ENOMEM;
        (void)read(&all[i], room, texts[i]); /* was judged with the document */
        int rc = cb_policy_tree_add(tree, &p->arena, at, &all[i]);
        if (rc < 0) return rc;
    }
    *out = all;
    return CB_OK;
}

static int add_targets(cb_policy *p, cb_policy_rule *r) {
    const char *const *texts = r->doc->targets.at;
    cb_policy_target *all = get(p, r->doc->targets.len, sizeof *all);
    for (size_t i = 0; all && i < r->doc->targets.len; i++) {
        char *room = get(p, strlen(texts[i]) + 1, 1);
        if (!room) return CB_ENOMEM;
        (void)cb_policy_target_read(&all[i], room, texts[i]);
    }
    r->targets = all;
    return all ? CB_OK : CB_ENOMEM;
}

static int add_places_and_times(cb_policy *p, cb_policy_rule *r) {
    const char *const *texts = r->doc->sources.at;
    const cb_policy_doc_time *windows = r->doc->times.at;
    cb_prefix *sources = get(p, r->doc->sources.len, sizeof *sources);
    cb_policy_time *times = get(p, r->doc->times.len, sizeof *times);
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

/* ---- claims: an index for each path that some rule looks at ---- */

static uint32_t claim_path(const cb_policy *p, const char *path) {
    uint32_t at = 0;
    while (at < p->n_claims && strcmp(p->claims[at].path, path) != 0)
        at++;
    return at;
}

static int note_path(cb_policy *p, const char *path) {
    const uint32_t at = claim_path(p, path);
    if (at < p->n_claims) return CB_OK;
    p->claims[p->n_claims++].path = path; /* the document has no more than fit */
    return cb_policy_texts_init(&p->claims[at].texts, &p->arena, false);
}

static int note_paths(cb_policy *p, const cb_policy_doc_rule *doc) {
    const cb_policy_doc_claim *claims = doc->claims.at;
    int rc = CB_OK;
    for (size_t i = 0; rc == CB_OK && i < doc->claims.len; i++)
        rc = note_path(p, claims[i].path);
    if (rc == CB_OK && doc->acr.len) rc = note_path(p, "acr");
    if (rc == CB_OK && doc->amr.len) rc = note_path(p, "amr");
    return rc;
}

/* A set says that one of the texts is there. A rule that asks twice of one path is judged by itself. */
static int index_claims(cb_policy *p, size_t at, cb_policy_rule *r) {
    static const cb_config_list nothing;
    const cb_config_list *lists[CB_POLICY_CLAIM_PATHS] = {NULL};
    int rc = CB_OK;
    bool twice = false;
    for (size_t i = 0; i < r->n_claims; i++) {
        twice = twice || lists[r->claims[i].path];
        lists[r->claims[i].path] = &r->claims[i].any;
    }
    for (size_t i = 0; rc == CB_OK && i < p->n_claims; i++)
        rc = cb_policy_texts_add(&p->claims[i].texts, &p->arena, at, twice || !lists[i] ? &nothing : lists[i]);
    if (twice) r->rest |= 1u << CB_POLICY_CLAIMS;
    return rc;
}

static void ask_claim(const cb_policy *p, cb_policy_claim_ask *asks, size_t *n, const char *path,
                      const cb_config_list *any) {
    if (any->len) asks[(*n)++] = (cb_policy_claim_ask){*any, claim_path(p, path), 0};
}

static int add_claims(cb_policy *p, size_t at, cb_policy_rule *r) {
    const cb_policy_doc_claim *claims = r->doc->claims.at;
    cb_policy_claim_ask *asks = get(p, r->doc->claims.len + 2, sizeof *asks);
    if (!asks) return CB_ENOMEM;
    for (size_t i = 0; i < r->doc->claims.len; i++)
        ask_claim(p, asks, &r->n_claims, claims[i].path, &claims[i].any);
    ask_claim(p, asks, &r->n_claims, "acr", &r->doc->acr);
    ask_claim(p, asks, &r->n_claims, "amr", &r->doc->amr);
    r->claims = asks;
    return index_claims(p, at, r);
}

/* ---- rules ---- */

static uint32_t conditions_of(const cb_policy_rule *r) {
    const struct {
        int condition;
        bool there;
    } rows[] = {{CB_POLICY_SPIFFE, r->doc->spiffe.len},   {CB_POLICY_CLAIMS, r->n_claims},
                {CB_POLICY_PATHS, r->doc->paths.len},     {CB_POLICY_TARGETS, r->doc->targets.len},
                {CB_POLICY_SOURCES, r->doc->sources.len}, {CB_POLICY_MTLS, r->doc->mtls},
                {CB_POLICY_TIMES, r->doc->times.len},     {CB_POLICY_DATES, r->doc->not_before || r->doc->not_after}};
    uint32_t bits = 0;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        bits |= (uint32_t)rows[i].there << rows[i].condition;
    for (size_t d = 0; d < CB_POLICY_DIMS; d++)
        bits |= (uint32_t)(cb_policy_list(r->doc, d)->len > 0) << cb_policy_dims[d].condition;
    return bits;
}

static int add_rule(cb_policy *p, size_t at, const cb_policy_doc_rule *doc, uint32_t index) {
    static const uint32_t one_by_one =
        1u << CB_POLICY_TARGETS | 1u << CB_POLICY_SOURCES | 1u << CB_POLICY_TIMES | 1u << CB_POLICY_DATES;
    cb_policy_rule *r = &p->rules[at];
    int rc = CB_OK;
    r->doc = doc;
    r->index = index;
    p->in_order[index] = r;
    for (size_t d = 0; rc == CB_OK && d < CB_POLICY_DIMS; d++)
        rc = cb_policy_texts_add(&p->texts[d], &p->arena, at, cb_policy_list(doc, d));
    if (rc == CB_OK) rc = add_segments(p, at, &r->paths, &doc->paths, cb_policy_path_read, &p->paths);
    if (rc == CB_OK) rc = add_segments(p, at, &r->spiffe, &doc->spiffe, cb_policy_spiffe_read, &p->spiffe);
    if (rc == CB_OK) rc = add_targets(p, r);
    if (rc == CB_OK) rc = add_places_and_times(p, r);
    if (rc == CB_OK) rc = add_claims(p, at, r);
    if (doc->mtls != 1) cb_policy_set_add(p->mtls[0], at);
    if (doc->mtls != 2) cb_policy_set_add(p->mtls[1], at);
    r->has = conditions_of(r);
    r->rest |= r->has & one_by_one;
    p->looks_at |= r->has;
    return rc;
}

static int prepare(cb_policy *p, const cb_policy_doc *doc) {
    const cb_policy_doc_rule *rules = doc->rules.at;
    int rc = CB_OK;
    p->len = doc->rules.len;
    p->words = p->arena.words = (p->len + 63) / 64;
    p->rules = get(p, p->len, sizeof *p->rules);
    p->in_order = get(p, p->len, sizeof *p->in_order);
    p->mtls[0] = get(p, p->words, sizeof **p->mtls);
    p->mtls[1] = get(p, p->words, sizeof **p->mtls);
    if (!p->rules || !p->in_order || !p->mtls[0] || !p->mtls[1]) return CB_ENOMEM;
    for (size_t d = 0; rc == CB_OK && d < CB_POLICY_DIMS; d++)
        rc = cb_policy_texts_init(&p->texts[d], &p->arena, true);
    if (rc == CB_OK) rc = cb_policy_tree_init(&p->paths, &p->arena);
    if (rc == CB_OK) rc = cb_policy_tree_init(&p->spiffe, &p->arena);
    for (size_t i = 0; rc == CB_OK && i < p->len; i++)
        rc = note_paths(p, &rules[i]);
    return rc;
}

static int compile(cb_policy *p, const cb_policy_doc *doc) {
    const cb_policy_doc_rule *rules = doc->rules.at;
    size_t at = 0;
    int rc = prepare(p, doc);
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
    for (size_t d = 0; d < CB_POLICY_DIMS; d++)
        cb_policy_texts_free(&p->texts[d]);
    for (size_t i = 0; i < p->n_claims; i++)
        cb_policy_texts_free(&p->claims[i].texts);
    cb_policy_tree_free(&p->paths);
    cb_policy_tree_free(&p->spiffe);
    cb_policy_arena_free(&p->arena);
    cb_config_unref(p->doc);
    cb_mem_free(&cb_alloc_libc, p);
}

size_t cb_policy_len(const cb_policy *p) {
    return p->len;
}
