#include "auth/policy_index.h"
#include "base/error.h"
#include "base/mem.h"
#include <string.h>

enum { SETS_MAX = 65536 };

struct cb_policy_block {
    cb_policy_block *next;
    max_align_t bytes[];
};

/* The operator puts texts in, strangers only ask for them: chains are as short as the table makes them. */
static const uint8_t hash_key[16] = "libcb policy tab";

void *cb_policy_arena_get(cb_policy_arena *a, size_t n, size_t size) {
    cb_policy_block *b = cb_mem_new(&cb_alloc_libc, sizeof *b + (n ? n : 1) * size);
    if (!b) return NULL;
    b->next = a->blocks;
    a->blocks = b;
    return b->bytes;
}

void cb_policy_arena_free(cb_policy_arena *a) {
    for (cb_policy_block *b = a->blocks, *next; b; b = next) {
        next = b->next;
        cb_mem_free(&cb_alloc_libc, b);
    }
    a->blocks = NULL;
}

static int set_new(cb_policy_arena *a, uint64_t **out) {
    if (++a->sets > SETS_MAX) return cb_fail(CB_ELIMIT, "a policy has at most %d different texts", SETS_MAX);
    *out = cb_policy_arena_get(a, a->words, sizeof **out);
    return *out ? CB_OK : CB_ENOMEM;
}

static void merge(uint64_t *into, const uint64_t *set, size_t words) {
    for (size_t w = 0; set && w < words; w++)
        into[w] |= set[w];
}

/* ---- whole texts ---- */

int cb_policy_texts_init(cb_policy_texts *t, cb_policy_arena *a, bool star) {
    *t = (cb_policy_texts){.star = star};
    cb_map_init(&t->sets, &cb_alloc_libc, hash_key);
    int rc = set_new(a, &t->none);
    return rc < 0 ? rc : set_new(a, &t->any);
}

void cb_policy_texts_free(cb_policy_texts *t) {
    cb_map_free(&t->sets);
}

int cb_policy_texts_add(cb_policy_texts *t, cb_policy_arena *a, size_t rule, const cb_config_list *list) {
    const char *const *texts = list->at;
    if (!list->len) cb_policy_set_add(t->none, rule);
    t->asked = t->asked || list->len;
    for (size_t i = 0; i < list->len; i++) {
        const size_t len = strlen(texts[i]);
        if (t->star && strcmp(texts[i], "*") == 0) {
            cb_policy_set_add(t->any, rule);
            continue;
        }
        uint64_t *set = cb_map_get(&t->sets, texts[i], len);
        int rc = set ? CB_OK : set_new(a, &set);
        if (rc == CB_OK) rc = cb_map_put(&t->sets, texts[i], len, set);
        if (rc < 0) return rc;
        cb_policy_set_add(set, rule);
    }
    return CB_OK;
}

void cb_policy_texts_find(const cb_policy_texts *t, size_t words, cb_slice text, uint64_t *good) {
    if (!text.len) return;
    merge(good, t->any, words);
    if (t->sets.len) merge(good, cb_map_get(&t->sets, text.base, text.len), words);
}

/* ---- segments ---- */

typedef struct segment {
    const char *at;
    size_t len;
} segment;

/* Takes the next segment of the text from *at; false at its end. */
static bool next_segment(const char *text, size_t len, size_t *at, segment *out) {
    if (*at >= len) return false;
    const char *end = memchr(text + *at, '/', len - *at);
    *out = (segment){text + *at, end ? (size_t)(end - text) - *at : len - *at};
    *at += out->len + 1;
    return true;
}

static uint32_t child(const cb_policy_tree *t, uint32_t node, segment s) {
    char key[sizeof node + CB_POLICY_TEXT];
    if (!t->nodes[node].children || s.len > CB_POLICY_TEXT) return 0;
    memcpy(key, &node, sizeof node);
    memcpy(key + sizeof node, s.at, s.len);
    return (uint32_t)(uintptr_t)cb_map_get(&t->children, key, sizeof node + s.len);
}

static int node_new(cb_policy_tree *t, uint32_t *out) {
    if (!(t->len & (t->len - 1))) { /* full: twice as many */
        void *nodes = cb_mem_grow(&cb_alloc_libc, t->nodes, (t->len ? t->len * 2 : 1) * sizeof *t->nodes);
        if (!nodes) return CB_ENOMEM;
        t->nodes = nodes;
    }
    t->nodes[t->len] = (cb_policy_node){.here = NULL};
    *out = (uint32_t)t->len++;
    return CB_OK;
}

static int child_make(cb_policy_tree *t, uint32_t node, segment s, uint32_t *out) {
    char key[sizeof node + CB_POLICY_TEXT];
    const bool star = s.len == 1 && *s.at == '*';
    uint32_t found = star ? t->nodes[node].star : child(t, node, s);
    int rc = found ? CB_OK : node_new(t, out);
    if (found || rc < 0) {
        if (found) *out = found;
        return rc;
    }
    if (star) {
        t->nodes[node].star = *out;
        return CB_OK;
    }
    t->nodes[node].children++;
    memcpy(key, &node, sizeof node);
    memcpy(key + sizeof node, s.at, s.len);
    return cb_map_put(&t->children, key, sizeof node + s.len, (void *)(uintptr_t)*out);
}

int cb_policy_tree_init(cb_policy_tree *t, cb_policy_arena *a) {
    uint32_t root;
    *t = (cb_policy_tree){.nodes = NULL};
    cb_map_init(&t->children, &cb_alloc_libc, hash_key);
    int rc = set_new(a, &t->none);
    return rc < 0 ? rc : node_new(t, &root);
}

void cb_policy_tree_free(cb_policy_tree *t) {
    cb_map_free(&t->children);
    cb_mem_free(&cb_alloc_libc, t->nodes);
}

int cb_policy_tree_add(cb_policy_tree *t, cb_policy_arena *a, size_t rule, const cb_policy_segments *p) {
    uint32_t node = 0;
    segment s;
    for (size_t at = 0; next_segment(p->text, p->len, &at, &s);) {
        int rc = child_make(t, node, s, &node);
        if (rc < 0) return rc;
    }
    uint64_t **set = p->below ? &t->nodes[node].below : &t->nodes[node].here;
    int rc = *set ? CB_OK : set_new(a, set);
    if (rc == CB_OK) cb_policy_set_add(*set, rule);
    return rc;
}

/* A node of the tree lies at one place of the text only, so each is looked at once at most. Of two ways on, one waits:
 * as many wait as a pattern has segments. */
void cb_policy_tree_find(const cb_policy_tree *t, size_t words, cb_slice text, uint64_t *good) {
    struct {
        uint32_t node, at;
    } wait[CB_POLICY_TEXT];
    size_t waiting = 0, at = 0;
    uint32_t node = 0;
    segment s;
    for (;;) {
        const cb_policy_node *n = &t->nodes[node];
        merge(good, n->below, words);
        const bool more = next_segment((const char *)text.base, text.len, &at, &s);
        if (!more) merge(good, n->here, words);
        const uint32_t exact = more ? child(t, node, s) : 0, star = more && s.len ? n->star : 0;
        if (exact && star && waiting < CB_POLICY_TEXT) {
            wait[waiting].node = star;
            wait[waiting++].at = (uint32_t)at;
        }
        node = exact ? exact : star;
        if (node) continue;
        if (!waiting) return;
        node = wait[--waiting].node;
        at = wait[waiting].at;
    }
}
