/* What sieves the rules of a policy: for each text of a request, the set of the rules that it satisfies, a bit a rule.
 */
#ifndef CB_AUTH_POLICY_INDEX_H
#define CB_AUTH_POLICY_INDEX_H

#include "auth/policy.h"

enum { CB_POLICY_WORDS = CB_POLICY_RULES / 64 };

typedef struct cb_policy_block cb_policy_block;

/* Memory that goes at once, and how long sets are. */
typedef struct cb_policy_arena {
    cb_policy_block *blocks;
    size_t words; /* of a set */
    size_t sets;  /* made so far */
} cb_policy_arena;

void *cb_policy_arena_get(cb_policy_arena *a, size_t n, size_t size); /* zeroed; NULL: no memory */
void cb_policy_arena_free(cb_policy_arena *a);

static inline void cb_policy_set_add(uint64_t *set, size_t rule) {
    set[rule / 64] |= 1ull << rule % 64;
}

/* ---- whole texts ---- */

typedef struct cb_policy_texts {
    cb_map sets;    /* text -> rules that ask for it */
    uint64_t *none; /* rules that do not ask */
    uint64_t *any;  /* rules that ask for "*" */
    bool asked;     /* some rule asks */
    bool star;      /* "*" is any text; else it is a text like others */
} cb_policy_texts;

int cb_policy_texts_init(cb_policy_texts *t, cb_policy_arena *a, bool star);
void cb_policy_texts_free(cb_policy_texts *t);
/* The rule asks for one of these (const char *); for nothing when the list is empty. */
int cb_policy_texts_add(cb_policy_texts *t, cb_policy_arena *a, size_t rule, const cb_config_list *list);
/* Adds the rules that are satisfied by the text. */
void cb_policy_texts_find(const cb_policy_texts *t, size_t words, cb_slice text, uint64_t *good);

/* ---- segments: a tree, so that a path costs what it is long, however many patterns there are ---- */

typedef struct cb_policy_node {
    uint64_t *here, *below; /* rules with a pattern that ends here, and with one for all below; NULL: none */
    uint32_t star;          /* the child for "*"; 0: none */
    uint32_t children;      /* how many others */
} cb_policy_node;

typedef struct cb_policy_tree {
    cb_map children; /* number of a node (4 bytes) and a segment -> number of the child, as a pointer */
    cb_policy_node *nodes;
    size_t len;
    uint64_t *none; /* rules without a pattern */
} cb_policy_tree;

int cb_policy_tree_init(cb_policy_tree *t, cb_policy_arena *a);
void cb_policy_tree_free(cb_policy_tree *t);
int cb_policy_tree_add(cb_policy_tree *t, cb_policy_arena *a, size_t rule, const cb_policy_segments *p);
/* Adds the rules with a pattern that fits; the text begins as those of the patterns, with its `skip` bytes. */
void cb_policy_tree_find(const cb_policy_tree *t, size_t words, cb_slice text, uint64_t *good);

#endif
