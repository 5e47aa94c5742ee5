#include "base/error.h"
#include "base/list.h"
#include "base/mem.h"
#include "transport/tls_session.h"
#include <string.h>

struct entry {
    cb_list link;
    size_t key_len, session_len, extra_len;
    uint8_t bytes[]; /* key with its NUL, session, extra */
};

struct cb_session_cache {
    const cb_alloc *alloc;
    cb_list entries; /* oldest first */
    size_t len, max;
    struct entry *taken; /* what the last take handed out */
    void *object;        /* attached */
    void (*drop)(void *object);
};

enum { DATA_MAX = 64 << 10 };

static void entry_free(cb_session_cache *c, struct entry *e) {
    if (!e) return;
    cb_mem_wipe(e->bytes + e->key_len, e->session_len); /* holds the resumption secret */
    cb_mem_free(c->alloc, e);
}

static void forget_taken(cb_session_cache *c) {
    entry_free(c, c->taken);
    c->taken = NULL;
}

int cb_session_cache_new(cb_session_cache **out, const cb_alloc *alloc, size_t max_entries) {
    cb_session_cache *c = cb_mem_new(alloc, sizeof *c);
    if (!c) return cb_fail(CB_ENOMEM, "no memory for a session cache");
    c->alloc = alloc;
    c->max = max_entries;
    cb_list_init(&c->entries);
    *out = c;
    return CB_OK;
}

void cb_session_cache_free(cb_session_cache *c) {
    if (!c) return;
    if (c->drop) c->drop(c->object);
    forget_taken(c);
    while (!cb_list_empty(&c->entries)) {
        struct entry *e = CB_CONTAINER(c->entries.next, struct entry, link);
        cb_list_del(&e->link);
        entry_free(c, e);
    }
    cb_mem_free(c->alloc, c);
}

bool cb_session_cache_take(cb_session_cache *c, const char *key, cb_slice *session, cb_slice *extra) {
    size_t key_len = strlen(key) + 1;
    forget_taken(c);
    for (cb_list *l = c->entries.prev; l != &c->entries; l = l->prev) {
        struct entry *e = CB_CONTAINER(l, struct entry, link);
        if (e->key_len != key_len || memcmp(e->bytes, key, key_len) != 0) continue;
        cb_list_del(&e->link);
        c->len--;
        c->taken = e;
        *session = (cb_slice){e->bytes + key_len, e->session_len};
        *extra = (cb_slice){e->bytes + key_len + e->session_len, e->extra_len};
        return true;
    }
    return false;
}

int cb_session_cache_put(cb_session_cache *c, const char *key, cb_slice session, cb_slice extra) {
    size_t key_len = strlen(key) + 1;
    if (c->max == 0 || session.len == 0) return CB_OK;
    if (key_len > DATA_MAX || session.len > DATA_MAX || extra.len > DATA_MAX) {
        return cb_fail(CB_ELIMIT, "a TLS session of %zu bytes is too large to keep", session.len);
    }
    struct entry *e = cb_mem_get(c->alloc, sizeof *e + key_len + session.len + extra.len);
    if (!e) return cb_fail(CB_ENOMEM, "no memory to keep a TLS session");
    e->key_len = key_len;
    e->session_len = session.len;
    e->extra_len = extra.len;
    memcpy(e->bytes, key, key_len);
    memcpy(e->bytes + key_len, session.base, session.len);
    if (extra.len) memcpy(e->bytes + key_len + session.len, extra.base, extra.len);
    if (c->len == c->max) {
        struct entry *oldest = CB_CONTAINER(c->entries.next, struct entry, link);
        cb_list_del(&oldest->link);
        entry_free(c, oldest);
        c->len--;
    }
    cb_list_add_tail(&c->entries, &e->link);
    c->len++;
    return CB_OK;
}

void *cb_session_cache_attached(const cb_session_cache *c) {
    return c->object;
}

void cb_session_cache_attach(cb_session_cache *c, void *object, void (*drop)(void *object)) {
    if (c->drop) c->drop(c->object);
    c->object = object;
    c->drop = drop;
}
