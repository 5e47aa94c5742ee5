/* The inside of a cb_router: groups, hosts, paths, trusted peers. F1. */
#ifndef CB_HTTP_ROUTE_H
#define CB_HTTP_ROUTE_H

#include "base/map.h"
#include "http/proxy_headers.h"
#include <cb/proxy.h>
#include <stdbool.h>

enum { CB_ROUTE_TENANT_MAX = 256 };

typedef struct cb_router_origin_def {
    char *url;  /* as configured */
    char *host; /* without brackets */
    uint16_t port;
    bool tls;
    uint32_t weight, priority;
} cb_router_origin_def;

typedef struct cb_router_group_def {
    cb_origin_group_opts opts; /* zero fields filled with their defaults; texts are own copies */
    cb_outlier_opts outliers;  /* opts.outliers points here, or nowhere */
    cb_router_origin_def *origins;
    size_t n_origins;
    size_t index; /* in the router */
} cb_router_group_def;

/* Who may come in on a route, and what the origin is told of them. */
typedef struct cb_route_guard {
    struct cb_route_guard *next; /* of the router */
    cb_authn *authn;
    cb_policy *policy; /* NULL: none */
    cb_route_opa opa;  /* url NULL: none */
    size_t index;      /* in the router */
    char *names[CB_ROUTE_HEADERS], *from[CB_ROUTE_HEADERS];
    size_t n_headers;
    bool keep_credentials, pass_preflight;
} cb_route_guard;

typedef struct cb_route {
    char *path;
    size_t path_len;
    char *name;   /* host and path as they were given: "*.example.org/api" */
    char *tenant; /* of the route, or else of its group; NULL: nobody's */
    size_t index; /* in the router */
    const cb_router_group_def *group;
    const cb_route_guard *guard; /* NULL: everybody may */
} cb_route;

typedef struct cb_host_routes {
    struct cb_host_routes *next; /* of the router */
    cb_route *at;                /* longest path first */
    size_t n;
} cb_host_routes;

struct cb_router {
    _Atomic uint32_t refs;
    cb_router_group_def **groups;
    size_t n_groups;
    cb_map exact, suffix; /* of cb_host_routes; suffix without "*." */
    cb_host_routes *any, *hosts;
    size_t n_routes;
    cb_prefix *trusted;
    size_t n_trusted;
    cb_route_guard *guards;
    size_t n_guards;
    char **hidden; /* names of identity fields, which never pass from outside */
    size_t n_hidden;
};

enum cb_route_miss { CB_ROUTE_NO_HOST = 1, CB_ROUTE_NO_PATH = 2, CB_ROUTE_BAD_PATH = 3, CB_ROUTE_AMBIGUOUS = 4 };

/* The route for an authority and a path (with query), or NULL with *miss set. Paths are compared in normal form (RFC
 * 3986, 6.2.2: dot segments resolved, unreserved bytes decoded), so that no spelling of a path gets round a route.
 * Origins differ in what else they take for a slash (%2f, a backslash, several in a row) and whether they cut off ";":
 * a path that would be on a route with another guard if read so is ambiguous. */
const cb_route *cb_router_find(const cb_router *r, cb_slice authority, cb_slice path, int *miss);

/* --- route_guard.c --- */
/* Makes a guard of the router, and hides its fields. */
int cb_route_guard_new(cb_route_guard **out, cb_router *r, const cb_route_auth *auth);
void cb_route_guards_free(cb_router *r);

/* The normal form of a path without its query. Returns its length, or -1: it does not fit in cap or climbs above "/".
 */
int64_t cb_path_normal(char *out, size_t cap, cb_slice path);

#endif
