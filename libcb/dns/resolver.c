/* cb_resolver: a bounded cache of names, and lookups that wait for them. */
#include "base/addr.h"
#include "base/error.h"
#include "base/map.h"
#include "base/opts.h"
#include "dns/ares_driver.h"
#include "loop/turn.h"
#include "loop/virtual.h"
#include <string.h>

enum { NAME_MAX_BYTES = 254, DETAIL_BYTES = 160, TROUBLE_TTL_S = 1, HOST_ADDRESSES = 16 };

/* What is known of a name, or is being asked. One reference each: the cache, the question, every lookup. */
struct entry {
    cb_list link; /* in cb_resolver.order, oldest first, while it is in the cache */
    cb_list waiting;
    cb_resolver *resolver;
    unsigned refs;
    bool cached, asking;
    int rc;
    char detail[DETAIL_BYTES];
    cb_time asked;
    cb_time expires; /* CB_NEVER: literal */
    cb_host_address *at;
    size_t n;
    size_t key_len;
    char key[NAME_MAX_BYTES + 2]; /* family, then the name and a NUL */
};

struct cb_lookup {
    cb_list link; /* in entry.waiting, then in cb_resolver.ready */
    struct entry *entry;
    cb_lookup_fn fn;
    void *user;
};

struct cb_resolver {
    cb_loop *loop;
    const cb_alloc *alloc;
    cb_resolver_opts opts;
    cb_ares *ares;
    cb_map cache;
    cb_list order;
    cb_list ready;
    cb_defer deliver;
    size_t n_lookups;
};

/* ---- entries ---- */

static void entry_unref(struct entry *e) {
    if (--e->refs) return;
    cb_mem_free(e->resolver->alloc, e->at);
    cb_mem_free(e->resolver->alloc, e);
}

static struct entry *entry_new(cb_resolver *r, const char *name, int family) {
    struct entry *e = cb_mem_new(r->alloc, sizeof *e);
    if (!e) return NULL;
    e->resolver = r;
    e->refs = 1;
    cb_list_init(&e->link);
    cb_list_init(&e->waiting);
    e->key[0] = (char)family;
    e->key_len = strlen(name) + 1;
    memcpy(e->key + 1, name, e->key_len);
    return e;
}

static void cache_drop(cb_resolver *r, struct entry *e) {
    if (!e->cached) return;
    e->cached = false;
    cb_map_del(&r->cache, e->key, e->key_len);
    cb_cells_move(cb_loop_cells(r->loop), CB_C_DNS_CACHED, -1);
    cb_list_del(&e->link);
    entry_unref(e);
}

static int cache_add(cb_resolver *r, struct entry *e) {
    const cb_cells *cells = cb_loop_cells(r->loop);
    while (r->cache.len >= r->opts.cache_entries) {
        cache_drop(r, CB_CONTAINER(r->order.next, struct entry, link)); /* one that is being asked lives on */
        cb_cells_add(cells, CB_C_DNS_EVICTED, 1);
    }
    int rc = cb_map_put(&r->cache, e->key, e->key_len, e);
    if (rc < 0) return rc;
    cb_list_add_tail(&r->order, &e->link);
    cb_cells_move(cells, CB_C_DNS_CACHED, 1);
    e->cached = true;
    e->refs++;
    return CB_OK;
}

static int entry_set(struct entry *e, const cb_host_address *at, size_t n) {
    e->at = cb_mem_get(e->resolver->alloc, n * sizeof *at);
    if (!e->at) return cb_fail(CB_ENOMEM, "%s: %zu addresses", e->key + 1, n);
    memcpy(e->at, at, n * sizeof *at);
    e->n = n;
    return CB_OK;
}

static uint32_t clamp(uint32_t v, uint32_t low, uint32_t high) {
    if (v < low) v = low;
    return v > high ? high : v;
}

static void count_answer(const struct entry *e, bool lasting) {
    const cb_cells *cells = cb_loop_cells(e->resolver->loop);
    cb_cells_add(cells,
                 e->rc == CB_OK ? CB_C_DNS_ANSWERS_OK
                 : lasting      ? CB_C_DNS_ANSWERS_NONE
                                : CB_C_DNS_ANSWERS_TROUBLE,
                 1);
    cb_cells_observe(cells, CB_C_DNS_QUESTION, cb_loop_now(e->resolver->loop) - e->asked);
}

static void entry_answered(int rc, bool lasting, const cb_host_address *at, size_t n, void *user) {
    struct entry *e = user;
    cb_resolver *r = e->resolver;
    uint32_t ttl = lasting ? r->opts.negative_ttl_s : TROUBLE_TTL_S;
    if (rc == CB_OK) rc = entry_set(e, at, n);
    if (rc == CB_OK) {
        ttl = UINT32_MAX;
        for (size_t i = 0; i < n; i++)
            if (at[i].ttl_s < ttl) ttl = at[i].ttl_s;
        ttl = clamp(ttl, r->opts.min_ttl_s, r->opts.max_ttl_s);
    } else {
        strncpy(e->detail, cb_last_error(), sizeof e->detail - 1);
    }
    e->rc = rc;
    e->asking = false;
    count_answer(e, lasting);
    e->expires = cb_loop_now(r->loop) + ttl * CB_SEC;
    while (!cb_list_empty(&e->waiting)) {
        cb_list *l = e->waiting.next;
        cb_list_del(l);
        cb_list_add_tail(&r->ready, l);
        cb_defer_later(&r->deliver);
    }
    entry_unref(e);
}

/* ---- lookups ---- */

static void lookups_move(cb_resolver *r, int by) {
    r->n_lookups += (size_t)by;
    cb_cells_move(cb_loop_cells(r->loop), CB_C_DNS_WAITING, by);
}

static void answer(cb_resolver *r, cb_lookup *l) {
    struct entry *e = l->entry;
    const cb_lookup_fn fn = l->fn;
    void *user = l->user;
    cb_mem_free(r->alloc, l);
    lookups_move(r, -1);
    if (e->rc == CB_OK && e->expires != CB_NEVER) {
        cb_time now = cb_loop_now(r->loop);
        uint32_t left = e->expires > now ? (uint32_t)((e->expires - now + CB_SEC - 1) / CB_SEC) : 0;
        for (size_t i = 0; i < e->n; i++)
            e->at[i].ttl_s = left;
    }
    if (e->rc < 0) cb_fail(e->rc, "%s", e->detail);
    fn(e->rc, e->at, e->n, user);
    entry_unref(e);
}

static void on_deliver(cb_defer *d) {
    cb_resolver *r = CB_CONTAINER(d, cb_resolver, deliver);
    while (!cb_list_empty(&r->ready)) {
        cb_lookup *l = CB_CONTAINER(r->ready.next, cb_lookup, link);
        cb_list_del(&l->link);
        answer(r, l);
    }
}

static void host_of(cb_host_address *h, const cb_addr *a, uint32_t ttl_s) {
    memset(h, 0, sizeof *h);
    h->ttl_s = ttl_s;
    if (a->sa.sa_family == AF_INET) {
        h->family = CB_FAMILY_V4;
        memcpy(h->bytes, &a->v4.sin_addr, 4);
        return;
    }
    h->family = CB_FAMILY_V6;
    memcpy(h->bytes, &a->v6.sin6_addr, 16);
    h->scope = a->v6.sin6_scope_id;
}

/* "localhost" and what is below it (RFC 6761, 6.3): the question never leaves the host. */
static bool is_localhost(const char *name) {
    static const char tail[] = ".localhost";
    size_t n = strlen(name);
    return strcmp(name, tail + 1) == 0 || (n > sizeof tail - 1 && strcmp(name + n - (sizeof tail - 1), tail) == 0);
}

/* An IPv4 or IPv6 literal. One colon would make it an address with a port, which is no name. */
static bool is_literal(const char *name, cb_addr *out) {
    const char *colon = strchr(name, ':');
    if (strchr(name, '[') || (colon && !strchr(colon + 1, ':'))) return false;
    return (colon || name[strspn(name, "0123456789.")] == '\0') && cb_addr_parse(out, name, 0) == CB_OK;
}

/* Addresses of what needs no question; 0 when it does. */
static size_t known_addresses(const cb_resolver *r, const char *name, cb_addr out[HOST_ADDRESSES]) {
    if (is_localhost(name)) return is_literal("::1", &out[0]) && is_literal("127.0.0.1", &out[1]) ? 2 : 0;
    if (is_literal(name, &out[0])) return 1;
    return r->ares ? 0 : cb_loop_virtual_resolve(r->loop, name, out, HOST_ADDRESSES);
}

/* What needs no question: 1 and *out, 0 when it does, < 0. */
static int answer_here(struct entry **out, cb_resolver *r, const char *name, int family) {
    cb_host_address at[HOST_ADDRESSES];
    cb_addr addr[HOST_ADDRESSES];
    const size_t known = known_addresses(r, name, addr);
    size_t n = 0;
    if (!known && r->ares) return 0;
    for (size_t i = 0; i < known; i++) {
        host_of(&at[n], &addr[i], r->opts.max_ttl_s);
        if (family == CB_FAMILY_ANY || at[n].family == family) n++;
    }
    struct entry *e = entry_new(r, name, family);
    if (!e) return cb_fail(CB_ENOMEM, "%s: lookup", name);
    e->expires = CB_NEVER;
    if (n)
        e->rc = entry_set(e, at, n);
    else
        e->rc = known ? cb_fail(CB_EDNS, "%s: is no IPv%d address", name, family)
                      : cb_fail(CB_EDNS, "%s: the simulation has no host of this name", name);
    if (e->rc < 0) strncpy(e->detail, cb_last_error(), sizeof e->detail - 1);
    *out = e;
    return 1;
}

/* The entry of a name, with a reference for the caller; asks when it is not known. */
static int find(struct entry **out, cb_resolver *r, const char *name, int family) {
    const cb_cells *cells = cb_loop_cells(r->loop);
    int rc = answer_here(out, r, name, family);
    if (rc > 0) cb_cells_add(cells, CB_C_DNS_LOOKUPS_LITERAL, 1);
    if (rc != 0) return rc;
    struct entry *e = entry_new(r, name, family);
    if (!e) return cb_fail(CB_ENOMEM, "%s: lookup", name);
    struct entry *known = cb_map_get(&r->cache, e->key, e->key_len);
    if (known && !known->asking && known->expires <= cb_loop_now(r->loop)) {
        cache_drop(r, known);
        known = NULL;
    }
    if (known) {
        entry_unref(e);
        cb_cells_add(cells, known->asking ? CB_C_DNS_LOOKUPS_JOINED : CB_C_DNS_LOOKUPS_CACHE, 1);
        known->refs++;
        *out = known;
        return CB_OK;
    }
    rc = cache_add(r, e);
    if (rc < 0) {
        entry_unref(e);
        return rc;
    }
    e->asking = true;
    e->asked = cb_loop_now(r->loop);
    e->refs++;
    *out = e;
    cb_cells_add(cells, CB_C_DNS_LOOKUPS_QUESTION, 1);
    cb_ares_ask(r->ares, e->key + 1, family, entry_answered, e);
    return CB_OK;
}

static int normalise(char out[NAME_MAX_BYTES + 1], const char *name) {
    size_t n = strlen(name);
    if (n == 0 || n > NAME_MAX_BYTES) return cb_fail(CB_EINVAL, "a host name of %zu bytes", n);
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)name[i];
        if (c <= ' ' || c >= 0x7f) return cb_fail(CB_EINVAL, "a host name with byte 0x%02x in it", c);
        out[i] = (char)(c >= 'A' && c <= 'Z' ? c + 32 : c);
    }
    out[n] = '\0';
    return CB_OK;
}

int cb_resolver_lookup(cb_lookup **out, cb_resolver *r, const char *name, int family, cb_lookup_fn fn, void *user) {
    char low[NAME_MAX_BYTES + 1];
    struct entry *e = NULL;
    if (!r || !name || !fn) return cb_fail(CB_EINVAL, "cb_resolver_lookup: resolver, name and fn are required");
    if (family != CB_FAMILY_ANY && family != CB_FAMILY_V4 && family != CB_FAMILY_V6)
        return cb_fail(CB_EINVAL, "family %d: 0, 4 or 6", family);
    int rc = normalise(low, name);
    if (rc < 0) return rc;
    if (r->n_lookups >= r->opts.max_lookups) {
        cb_cells_add(cb_loop_cells(r->loop), CB_C_DNS_REJECTED, 1);
        return cb_fail(CB_ELIMIT, "%s: %zu lookups wait (max_lookups)", low, r->n_lookups);
    }
    cb_lookup *l = cb_mem_new(r->alloc, sizeof *l);
    if (!l) return cb_fail(CB_ENOMEM, "%s: lookup", low);
    rc = find(&e, r, low, family);
    if (rc < 0) {
        cb_mem_free(r->alloc, l);
        return rc;
    }
    l->entry = e;
    l->fn = fn;
    l->user = user;
    lookups_move(r, 1);
    cb_list_init(&l->link);
    if (e->asking) {
        cb_list_add_tail(&e->waiting, &l->link);
    } else {
        cb_list_add_tail(&r->ready, &l->link);
        cb_defer_later(&r->deliver);
    }
    if (out) *out = l;
    return CB_OK;
}

void cb_lookup_cancel(cb_lookup *l) {
    if (!l) return;
    cb_resolver *r = l->entry->resolver;
    cb_list_del(&l->link);
    lookups_move(r, -1);
    entry_unref(l->entry); /* the question goes on, for the cache */
    cb_mem_free(r->alloc, l);
}

/* ---- life ---- */

static uint32_t or_default(uint32_t v, uint32_t otherwise) {
    return v ? v : otherwise;
}

int cb_resolver_new(cb_resolver **out, cb_loop *loop, const cb_resolver_opts *opts) {
    if (!out || !loop) return cb_fail(CB_EINVAL, "cb_resolver_new: %s is NULL", !out ? "out" : "loop");
    const cb_alloc *alloc = cb_loop_alloc(loop);
    cb_resolver *r = cb_mem_new(alloc, sizeof *r);
    if (!r) return cb_fail(CB_ENOMEM, "resolver");
    r->loop = loop;
    r->alloc = alloc;
    cb_map_init(&r->cache, alloc, cb_loop_hash_key(loop));
    cb_list_init(&r->order);
    cb_list_init(&r->ready);
    cb_defer_init(&r->deliver, loop, on_deliver);
    int rc = cb_opts_read(&r->opts, sizeof r->opts, opts, "cb_resolver_opts");
    if (rc == CB_OK) {
        cb_resolver_opts *o = &r->opts;
        o->timeout_ms = or_default(o->timeout_ms, 2000);
        o->tries = or_default(o->tries, 2);
        o->cache_entries = or_default(o->cache_entries, 1024);
        o->min_ttl_s = or_default(o->min_ttl_s, 1);
        o->max_ttl_s = or_default(o->max_ttl_s, 3600);
        o->negative_ttl_s = or_default(o->negative_ttl_s, 5);
        o->max_lookups = or_default(o->max_lookups, 4096);
        if (o->min_ttl_s > o->max_ttl_s)
            rc = cb_fail(CB_EINVAL, "min_ttl_s %u is above max_ttl_s %u", o->min_ttl_s, o->max_ttl_s);
    }
    if (rc == CB_OK && !cb_loop_is_virtual(loop)) rc = cb_ares_new(&r->ares, loop, &r->opts);
    if (rc < 0) {
        cb_map_free(&r->cache);
        cb_mem_free(alloc, r);
        return rc;
    }
    r->opts.servers = NULL; /* the caller's */
    *out = r;
    return CB_OK;
}

void cb_resolver_flush(cb_resolver *r) {
    for (cb_list *l = r->order.next, *next; l != &r->order; l = next) {
        next = l->next;
        struct entry *e = CB_CONTAINER(l, struct entry, link);
        if (!e->asking) cache_drop(r, e);
    }
}

void cb_resolver_free(cb_resolver *r) {
    if (!r) return;
    cb_ares_free(r->ares); /* answers every question that is open */
    while (!cb_list_empty(&r->ready)) {
        cb_lookup *l = CB_CONTAINER(r->ready.next, cb_lookup, link);
        const cb_lookup_fn fn = l->fn;
        void *user = l->user;
        cb_lookup_cancel(l);
        fn(cb_fail(CB_ECLOSED, "the resolver is closed"), NULL, 0, user);
    }
    cb_defer_cancel(&r->deliver);
    cb_resolver_flush(r);
    cb_map_free(&r->cache);
    cb_mem_free(r->alloc, r);
}
