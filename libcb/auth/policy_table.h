/* A policy, compiled. */
#ifndef CB_AUTH_POLICY_TABLE_H
#define CB_AUTH_POLICY_TABLE_H

#include "auth/policy_index.h"

/* Conditions on whole texts. */
enum cb_policy_dim {
    CB_POLICY_TENANT,
    CB_POLICY_ROLE,
    CB_POLICY_SUBJECT,
    CB_POLICY_ISSUER,
    CB_POLICY_ROUTE,
    CB_POLICY_METHOD,
    CB_POLICY_VERB,
    CB_POLICY_DIMS
};

typedef struct cb_policy_dim_def {
    size_t list;    /* in cb_policy_doc_rule */
    size_t request; /* in cb_policy_request; of roles it is not used */
    int condition;
} cb_policy_dim_def;

extern const cb_policy_dim_def cb_policy_dims[CB_POLICY_DIMS];

typedef struct cb_policy_claim_ask {
    cb_config_list any; /* const char * */
    uint32_t path;      /* index of cb_policy.claims */
    uint32_t reserved;
} cb_policy_claim_ask;

typedef struct cb_policy_rule {
    const cb_policy_doc_rule *doc;
    const cb_policy_segments *paths, *spiffe;
    const cb_policy_target *targets;
    const cb_prefix *sources;
    const cb_policy_time *times;
    const cb_policy_claim_ask *claims;
    size_t n_claims;
    int64_t not_before, not_after; /* INT64_MIN, INT64_MAX: none */
    uint32_t index;                /* in the document */
    uint32_t has;                  /* bits of enum cb_policy_condition */
    uint32_t rest;                 /* of `has`, what the index does not say */
} cb_policy_rule;

typedef struct cb_policy_claim_index {
    const char *path;
    cb_policy_texts texts;
} cb_policy_claim_index;

struct cb_policy {
    _Atomic uint32_t refs;
    cb_config *doc;
    cb_policy_arena arena;
    cb_policy_rule *rules; /* denials first, else in the order of the document */
    const cb_policy_rule **in_order;
    size_t len, words;
    cb_policy_texts texts[CB_POLICY_DIMS];
    cb_policy_tree paths, spiffe;
    uint64_t *mtls[2]; /* rules that are satisfied without and with a certificate */
    cb_policy_claim_index claims[CB_POLICY_CLAIM_PATHS];
    size_t n_claims;
    uint32_t looks_at; /* bits: conditions that any rule has */
};

static inline const cb_config_list *cb_policy_list(const cb_policy_doc_rule *r, size_t dim) {
    return (const cb_config_list *)((const char *)r + cb_policy_dims[dim].list);
}

#endif
