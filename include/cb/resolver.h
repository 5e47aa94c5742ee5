/* cb/resolver.h - names to addresses without blocking: both families, TTLs, a bounded cache.
 *
 * Order: IP literals; "localhost" and names below it (always loopback, RFC 6761, 6.3); the cache; /etc/hosts; DNS.
 * Questions for the same name that are under way are asked once. Everything runs on the loop's thread. */
#ifndef CB_RESOLVER_H
#define CB_RESOLVER_H

#include <cb/loop.h>

CB_BEGIN

typedef struct cb_resolver cb_resolver;
typedef struct cb_lookup cb_lookup;

typedef struct cb_resolver_opts {
    size_t size;
    const char *servers;     /* "address[:port],..." (IPv6 with a port in brackets); NULL = /etc/resolv.conf */
    uint32_t timeout_ms;     /* of the first try at a server; 0 = 2,000 */
    uint32_t tries;          /* at each server; 0 = 2 */
    uint32_t cache_entries;  /* names kept; 0 = 1,024 */
    uint32_t min_ttl_s;      /* answers are kept at least so long; 0 = 1 */
    uint32_t max_ttl_s;      /* and at most so long; 0 = 3,600 */
    uint32_t negative_ttl_s; /* "no such name" is kept so long; 0 = 5. Other failures are kept 1 s */
    uint32_t max_lookups;    /* waiting at one time; 0 = 4,096 */
    uint32_t reserved;
} cb_resolver_opts;

/* One address of a name. */
typedef struct cb_host_address {
    uint8_t bytes[16]; /* network order; IPv4 uses the first 4 */
    uint8_t family;    /* 4 or 6 */
    uint8_t reserved[3];
    uint32_t scope; /* interface index of a link-local IPv6 literal, else 0 */
    uint32_t ttl_s; /* seconds that are left of its life; of literals: max_ttl_s */
} cb_host_address;

/* Which addresses to ask for. */
enum cb_family { CB_FAMILY_ANY = 0, CB_FAMILY_V4 = 4, CB_FAMILY_V6 = 6 };

/* The answer of one lookup. rc CB_OK: n >= 1 addresses in the order of RFC 6724 (families are not
 * interleaved), valid during the call. CB_EDNS: the name does not exist, has no such address, or the servers refuse;
 * CB_ETIMEOUT: no server answered; CB_EINVAL: not a name; CB_ENOMEM; CB_ECLOSED: the resolver was freed. The detail is
 * in cb_last_error(). The lookup is gone after the call. */
typedef void (*cb_lookup_fn)(int rc, const cb_host_address *at, size_t n, void *user);

/* opts may be NULL. CB_EINVAL (out, loop; servers: names the part; min_ttl_s above max_ttl_s), CB_ENOMEM, CB_ESYS,
 * CB_E2BIG. */
CB_API int cb_resolver_new(cb_resolver **out, cb_loop *loop, const cb_resolver_opts *opts);
/* Asks for the addresses of a name; family is enum cb_family. fn is called later from the loop, never inside this call,
 * and exactly once unless the lookup is cancelled. out may be NULL. CB_EINVAL (r, name or fn is NULL; family; the name
 * is empty, too long or has bytes that no name has), CB_ELIMIT (max_lookups wait), CB_ENOMEM. */
CB_API int cb_resolver_lookup(cb_lookup **out, cb_resolver *r, const char *name, int family, cb_lookup_fn fn,
                              void *user);
CB_API void cb_lookup_cancel(cb_lookup *l);    /* fn is not called any more; NULL is fine */
CB_API void cb_resolver_flush(cb_resolver *r); /* forgets the cache; questions under way go on */
/* What waits gets CB_ECLOSED during this call. Must not be called inside fn. NULL is fine. */
CB_API void cb_resolver_free(cb_resolver *r);

CB_END
#endif
