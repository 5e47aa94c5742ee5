/* Which resource a request is for: templates of paths, and the methods at each. */
#ifndef CB_ADMIN_ROUTER_H
#define CB_ADMIN_ROUTER_H

#include "admin/target.h"
#include <cb/admin.h>
#include <stdbool.h>

enum { CB_ROUTER_SEGMENTS = 16, CB_ROUTER_ROWS = 1024 };

/* A resource as it was added. The texts are the caller's of cb_admin_add(). */
typedef struct cb_admin_row {
    cb_admin_resource r;
    void *user;
    char *parts;                              /* the path's segments, with their ends */
    const char *segments[CB_ROUTER_SEGMENTS]; /* a fixed one, or the name of a parameter */
    uint32_t n_segments;
    uint32_t params; /* bits: these are parameters */
    bool rest;       /* the last is "{path...}" */
    bool open;       /* everybody may, without being known */
    bool scrape;     /* the same, at a door that is public only */
} cb_admin_row;

typedef struct cb_admin_router {
    cb_admin_row **rows; /* in the order of their paths, then of their methods' names */
    uint32_t n, cap;
    const cb_alloc *alloc;
} cb_admin_router;

void cb_admin_router_init(cb_admin_router *r, const cb_alloc *alloc);
void cb_admin_router_free(cb_admin_router *r);
/* out may be NULL. CB_EINVAL (the detail names the field), CB_EEXIST, CB_ELIMIT, CB_ENOMEM. */
int cb_admin_router_add(cb_admin_router *r, const cb_admin_resource *resource, void *user, cb_admin_row **out);

/* The row for a target and method (HEAD is GET's), of all rows or only of those that are open or scrape. NULL: *allow
 * says which methods there are at the path ("GET, HEAD, PUT"), or is empty when there is no such path. */
const cb_admin_row *cb_admin_router_find(const cb_admin_router *r, const cb_admin_target *t, cb_slice method,
                                         bool open_only, char allow[64]);
/* The value of a parameter of the row's path; NULL: it has none of that name. */
const char *cb_admin_row_param(const cb_admin_row *row, const cb_admin_target *t, const char *name);

#endif
