#include "http/route.h"
#include "base/error.h"
#include "base/mem.h"
#include "base/opts.h"
#include "config/draft.h"
#include "http/fields.h"
#include "lb/policy.h"
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { HOST_MAX = 255, PATH_MAX_NORMAL = 16384, ROUTER_MANY = 65536 };

int cb_router_new(cb_router **out) {
    if (!out) return cb_fail(CB_EINVAL, "cb_router_new: out is NULL");
    /* Hosts are asked for by strangers but put in by the operator: chains are as short as the table makes them. */
    static const uint8_t hash_key[16] = "libcb router map";
    cb_router *r = cb_mem_new(&cb_alloc_libc, sizeof *r);
    if (!r) return cb_fail(CB_ENOMEM, "no memory for a router");
    atomic_init(&r->refs, 1);
    cb_map_init(&r->exact, &cb_alloc_libc, hash_key);
    cb_map_init(&r->suffix, &cb_alloc_libc, hash_key);
    *out = r;
    return CB_OK;
}

cb_router *cb_router_ref(cb_router *r) {
    atomic_fetch_add_explicit(&r->refs, 1, memory_order_relaxed);
    return r;
}

static void group_free(cb_router_group_def *g) {
    for (size_t i = 0; i < g->n_origins; i++) {
        cb_mem_free(&cb_alloc_libc, g->origins[i].url);
        cb_mem_free(&cb_alloc_libc, g->origins[i].host);
    }
    cb_mem_free(&cb_alloc_libc, g->origins);
    cb_mem_free(&cb_alloc_libc, (char *)g->opts.name);
    cb_mem_free(&cb_alloc_libc, (char *)g->opts.server_name);
    cb_mem_free(&cb_alloc_libc, (char *)g->opts.host);
    cb_mem_free(&cb_alloc_libc, (char *)g->opts.tenant);
    cb_mem_free(&cb_alloc_libc, (char *)g->opts.owner);
    cb_identity_unref(g->opts.identity);
    cb_mem_free(&cb_alloc_libc, g);
}

static void route_free(cb_route *route) {
    cb_mem_free(&cb_alloc_libc, route->path);
    cb_mem_free(&cb_alloc_libc, route->name);
    cb_mem_free(&cb_alloc_libc, route->tenant);
}

void cb_router_unref(cb_router *r) {
    if (!r || atomic_fetch_sub_explicit(&r->refs, 1, memory_order_acq_rel) > 1) return;
    for (cb_host_routes *h = r->hosts, *next; h; h = next) {
        next = h->next;
        for (size_t i = 0; i < h->n; i++)
            route_free(&h->at[i]);
        cb_mem_free(&cb_alloc_libc, h->at);
        cb_mem_free(&cb_alloc_libc, h);
    }
    for (size_t i = 0; i < r->n_groups; i++)
        group_free(r->groups[i]);
    cb_mem_free(&cb_alloc_libc, r->groups);
    cb_mem_free(&cb_alloc_libc, r->trusted);
    cb_route_guards_free(r);
    cb_map_free(&r->exact);
    cb_map_free(&r->suffix);
    cb_mem_free(&cb_alloc_libc, r);
}

/* Makes room for one more of size bytes behind n. */
static void *grow(void *at, size_t n, size_t size) {
    if (n >= ROUTER_MANY) return NULL;
    return n & (n - 1) ? at : cb_mem_grow(&cb_alloc_libc, at, (n ? n * 2 : 1) * size);
}

static cb_router_group_def *group_named(const cb_router *r, const char *name) {
    for (size_t i = 0; i < r->n_groups; i++)
        if (strcmp(r->groups[i]->opts.name, name) == 0) return r->groups[i];
    return NULL;
}

static void group_defaults(cb_origin_group_opts *o) {
    const struct {
        uint32_t *at, value;
    } rows[] = {{&o->connect_timeout_ms, 5000},
                {&o->response_timeout_ms, 60000},
                {&o->idle_timeout_ms, 60000},
                {&o->tunnel_timeout_ms, 3600000},
                {&o->keep_alive_ms, 55000},
                {&o->max_conns, 256},
                {&o->max_idle, 64},
                {&o->max_queue, 1024},
                {&o->max_fails, 3},
                {&o->fail_window_ms, 10000},
                {&o->fail_out_ms, 10000},
                {&o->retries, 1}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (!*rows[i].at) *rows[i].at = rows[i].value;
    if (o->no_retry) o->retries = 0;
}

static bool label_ok(const char *text) {
    return !text || (*text && strlen(text) <= CB_ROUTE_TENANT_MAX);
}

static int outliers_read(const cb_origin_group_opts *o) {
    cb_outlier_opts read;
    int rc = cb_opts_read(&read, sizeof read, o->outliers, "cb_outlier_opts");
    return rc < 0 ? rc : cb_outlier_check(&read);
}

static int group_check(const cb_router *r, const cb_origin_group_opts *o) {
    const char *wrong = o->name ? cb_config_format_wrong(CB_FORMAT_NAME, o->name) : "is missing";
    if (wrong) return cb_fail(CB_EINVAL, "origin group: its name %s", wrong);
    if (group_named(r, o->name)) return cb_fail(CB_EEXIST, "origin group \"%s\" exists already", o->name);
    if (!cb_lb_policy_get(o->policy))
        return cb_fail(CB_EINVAL, "origin group \"%s\": policy %d is not known", o->name, o->policy);
    if (o->versions & ~(uint32_t)(CB_HTTP_1 | CB_HTTP_2 | CB_HTTP_3))
        return cb_fail(CB_EINVAL, "origin group \"%s\": versions %u are not known", o->name, o->versions);
    if (o->send_proxy > 2)
        return cb_fail(CB_EINVAL, "origin group \"%s\": PROXY protocol %u is not known", o->name, o->send_proxy);
    if (o->client_cert > 2)
        return cb_fail(CB_EINVAL, "origin group \"%s\": client_cert %u is not known", o->name, o->client_cert);
    if (o->verify > CB_VERIFY_NONE)
        return cb_fail(CB_EINVAL, "origin group \"%s\": verify %u is not known", o->name, o->verify);
    if (o->host && !cb_authority_ok(cb_slice_str(o->host)))
        return cb_fail(CB_EINVAL, "origin group \"%s\": host \"%s\" is not a host", o->name, o->host);
    if (!label_ok(o->tenant)) return cb_fail(CB_EINVAL, "origin group \"%s\": tenant is empty or too long", o->name);
    if (o->outliers && outliers_read(o) < 0)
        return cb_fail(CB_EINVAL, "origin group \"%s\": %s", o->name, cb_last_error());
    if (!label_ok(o->owner)) return cb_fail(CB_EINVAL, "origin group \"%s\": owner is empty or too long", o->name);
    return CB_OK;
}

int cb_router_group(cb_router *r, const cb_origin_group_opts *opts) {
    if (!r) return cb_fail(CB_EINVAL, "cb_router_group: r is NULL");
    cb_origin_group_opts o;
    int rc = cb_opts_read(&o, sizeof o, opts, "cb_origin_group_opts");
    if (rc == CB_OK) rc = group_check(r, &o);
    if (rc < 0) return rc;
    cb_router_group_def **groups = grow(r->groups, r->n_groups, sizeof *groups);
    if (!groups) return cb_fail(CB_ENOMEM, "no memory for one more origin group");
    r->groups = groups;
    cb_router_group_def *g = cb_mem_new(&cb_alloc_libc, sizeof *g);
    if (!g) return cb_fail(CB_ENOMEM, "no memory for an origin group");
    group_defaults(&o);
    const char **const texts[] = {&o.name, &o.server_name, &o.host, &o.tenant, &o.owner};
    bool copied = true;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        const char *given = *texts[i];
        *texts[i] = cb_mem_text(&cb_alloc_libc, given);
        copied = copied && (!given || *texts[i]);
    }
    if (o.identity) cb_identity_ref(o.identity);
    g->opts = o;
    if (o.outliers) {
        (void)cb_opts_read(&g->outliers, sizeof g->outliers, o.outliers, "cb_outlier_opts"); /* checked above */
        g->outliers.alloc = NULL;
        g->opts.outliers = &g->outliers;
    }
    if (!copied) {
        group_free(g);
        return cb_fail(CB_ENOMEM, "no memory for an origin group");
    }
    g->index = r->n_groups;
    r->groups[r->n_groups++] = g;
    return CB_OK;
}

static int origin_read(cb_router_origin_def *d, const char *url) {
    d->tls = strncmp(url, "https:", 6) == 0;
    const char *host = url + (d->tls ? 8 : 7), *end = host + strcspn(host, ":");
    if (*host == '[') {
        host++;
        end = strchr(host, ']');
    }
    const char *port = strchr(end, ':');
    d->port = (uint16_t)(port ? strtoul(port + 1, NULL, 10) : d->tls ? 443 : 80);
    d->url = cb_mem_text(&cb_alloc_libc, url);
    d->host = cb_mem_new(&cb_alloc_libc, (size_t)(end - host) + 1);
    if (!d->url || !d->host) {
        cb_mem_free(&cb_alloc_libc, d->url);
        cb_mem_free(&cb_alloc_libc, d->host);
        return cb_fail(CB_ENOMEM, "no memory for an origin");
    }
    memcpy(d->host, host, (size_t)(end - host));
    return CB_OK;
}

int cb_router_origin(cb_router *r, const char *group, const cb_origin_opts *opts) {
    if (!r) return cb_fail(CB_EINVAL, "cb_router_origin: r is NULL");
    cb_origin_opts o;
    int rc = cb_opts_read(&o, sizeof o, opts, "cb_origin_opts");
    if (rc < 0) return rc;
    if (!group) return cb_fail(CB_EINVAL, "cb_router_origin: group is NULL");
    cb_router_group_def *g = group_named(r, group);
    if (!g) return cb_fail(CB_ENOENT, "there is no origin group \"%s\"", group);
    const char *wrong = o.url ? cb_config_format_wrong(CB_FORMAT_ORIGIN, o.url) : "is missing";
    if (wrong) return cb_fail(CB_EINVAL, "origin \"%s\" %s", o.url ? o.url : "", wrong);
    if (o.weight > 1000) return cb_fail(CB_EINVAL, "origin \"%s\": a weight is 1 to 1,000", o.url);
    cb_router_origin_def d = {.weight = o.weight ? o.weight : 1, .priority = o.priority};
    cb_router_origin_def *origins = grow(g->origins, g->n_origins, sizeof *origins);
    if (!origins) return cb_fail(CB_ENOMEM, "no memory for one more origin");
    g->origins = origins;
    rc = origin_read(&d, o.url);
    if (rc < 0) return rc;
    if (!d.tls && g->opts.versions == CB_HTTP_3) {
        cb_mem_free(&cb_alloc_libc, d.url);
        cb_mem_free(&cb_alloc_libc, d.host);
        return cb_fail(CB_EINVAL, "origin \"%s\": HTTP/3 needs https", o.url);
    }
    g->origins[g->n_origins++] = d;
    return CB_OK;
}

/* ---- hosts ---- */

/* Lower case, without port and final dot. Returns the length, 0 when it is none or too long. */
static size_t host_normal(char out[HOST_MAX], cb_slice authority) {
    size_t n = authority.len;
    if (n && authority.base[0] == '[') {
        const uint8_t *close = memchr(authority.base, ']', n);
        n = close ? (size_t)(close - authority.base) + 1 : 0;
    } else {
        const uint8_t *colon = n ? memchr(authority.base, ':', n) : NULL;
        if (colon) n = (size_t)(colon - authority.base);
        if (n && authority.base[n - 1] == '.') n--;
    }
    if (n > HOST_MAX) return 0;
    for (size_t i = 0; i < n; i++) {
        uint8_t c = authority.base[i];
        out[i] = (char)(c >= 'A' && c <= 'Z' ? c | 0x20 : c);
    }
    return n;
}

static int host_routes(cb_router *r, const char *pattern, cb_host_routes **out) {
    char name[HOST_MAX];
    bool wild = strncmp(pattern, "*.", 2) == 0, any = strcmp(pattern, "*") == 0;
    size_t n = host_normal(name, cb_slice_str(pattern + (wild ? 2 : 0)));
    cb_map *map = wild ? &r->suffix : &r->exact;
    *out = any ? r->any : cb_map_get(map, name, n);
    if (*out) return CB_OK;
    cb_host_routes *h = cb_mem_new(&cb_alloc_libc, sizeof *h);
    if (!h) return cb_fail(CB_ENOMEM, "no memory for a route");
    int rc = any ? CB_OK : cb_map_put(map, name, n, h);
    if (rc < 0) {
        cb_mem_free(&cb_alloc_libc, h);
        return rc;
    }
    if (any) r->any = h;
    h->next = r->hosts;
    r->hosts = h;
    *out = h;
    return CB_OK;
}

/* Its path, its name and its tenant, as own copies. */
static int route_texts(cb_route *route, const char *host, const char *path, const char *tenant) {
    size_t n = strlen(host);
    route->path = cb_mem_new(&cb_alloc_libc, route->path_len + 1);
    route->name = cb_mem_new(&cb_alloc_libc, n + route->path_len + 1);
    route->tenant = cb_mem_text(&cb_alloc_libc, tenant);
    if (!route->path || !route->name || (tenant && !route->tenant)) {
        route_free(route);
        return cb_fail(CB_ENOMEM, "no memory for a route");
    }
    memcpy(route->path, path, route->path_len);
    memcpy(route->name, host, n);
    memcpy(route->name + n, path, route->path_len);
    return CB_OK;
}

int cb_router_route(cb_router *r, const cb_route_opts *opts) {
    if (!r) return cb_fail(CB_EINVAL, "cb_router_route: r is NULL");
    cb_route_opts o;
    char normal[PATH_MAX_NORMAL];
    cb_host_routes *h = NULL;
    int rc = cb_opts_read(&o, sizeof o, opts, "cb_route_opts");
    if (rc < 0) return rc;
    if (!o.group) return cb_fail(CB_EINVAL, "cb_route_opts: group is missing");
    if (!label_ok(o.tenant)) return cb_fail(CB_EINVAL, "cb_route_opts: tenant is empty or too long");
    const char *host = o.host ? o.host : "*", *path = o.path ? o.path : "/";
    const cb_router_group_def *g = group_named(r, o.group);
    if (!g) return cb_fail(CB_ENOENT, "a route names the origin group \"%s\", which does not exist", o.group);
    const char *wrong = cb_config_format_wrong(CB_FORMAT_HOST, host);
    if (wrong) return cb_fail(CB_EINVAL, "route host \"%s\" %s", host, wrong);
    wrong = cb_config_format_wrong(CB_FORMAT_PATH, path);
    int64_t n = wrong ? -1 : cb_path_normal(normal, sizeof normal, cb_slice_str(path));
    if (n < 0) return cb_fail(CB_EINVAL, "route path \"%s\" %s", path, wrong ? wrong : "is too long");
    rc = host_routes(r, host, &h);
    if (rc < 0) return rc;
    size_t at = 0;
    for (; at < h->n && h->at[at].path_len >= (size_t)n; at++)
        if (h->at[at].path_len == (size_t)n && memcmp(h->at[at].path, normal, (size_t)n) == 0)
            return cb_fail(CB_EEXIST, "there is a route for %s%s already", host, path);
    cb_route *routes = grow(h->at, h->n, sizeof *routes);
    if (!routes) return cb_fail(CB_ENOMEM, "no memory for a route");
    h->at = routes;
    cb_route_guard *guard = NULL;
    if (o.auth && (rc = cb_route_guard_new(&guard, r, o.auth)) < 0) return rc;
    cb_route route = {.path_len = (size_t)n, .group = g, .guard = guard, .index = r->n_routes};
    rc = route_texts(&route, host, normal, o.tenant ? o.tenant : g->opts.tenant);
    if (rc < 0) return rc;
    memmove(h->at + at + 1, h->at + at, (h->n - at) * sizeof *h->at);
    h->at[at] = route;
    h->n++;
    r->n_routes++;
    return CB_OK;
}

int cb_router_trust(cb_router *r, const char *prefix) {
    if (!r || !prefix) return cb_fail(CB_EINVAL, "cb_router_trust: %s is NULL", !r ? "r" : "prefix");
    cb_prefix p;
    int rc = cb_prefix_parse(&p, prefix);
    if (rc < 0) return rc;
    cb_prefix *trusted = grow(r->trusted, r->n_trusted, sizeof *trusted);
    if (!trusted) return cb_fail(CB_ENOMEM, "no memory for a trusted prefix");
    r->trusted = trusted;
    r->trusted[r->n_trusted++] = p;
    return CB_OK;
}

/* ---- finding ---- */

static int hex(uint8_t c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

static bool unreserved(int c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' || c == '.' ||
           c == '_' || c == '~';
}

/* Takes the last segment, which ends at n, off if it is "." or "..". */
static int64_t undot(const char *out, size_t n, bool last) {
    size_t from = n;
    while (from && out[from - 1] != '/')
        from--;
    size_t len = n - from;
    if (len == 1 && out[from] == '.') return (int64_t)from;
    if (len != 2 || out[from] != '.' || out[from + 1] != '.') return last ? (int64_t)n : -2;
    if (from <= 1) return -1;
    from--;
    while (from && out[from - 1] != '/')
        from--;
    return (int64_t)from;
}

int64_t cb_path_normal(char *out, size_t cap, cb_slice path) {
    size_t n = 0;
    for (size_t i = 0; i < path.len && path.base[i] != '?'; i++) {
        int c = path.base[i];
        if (c == '%' && path.len - i > 2) {
            int v = hex(path.base[i + 1]) * 16 + hex(path.base[i + 2]);
            if (hex(path.base[i + 1]) >= 0 && hex(path.base[i + 2]) >= 0 && unreserved(v)) {
                c = v;
                i += 2;
            }
        }
        if (c == '/' && n) {
            int64_t end = undot(out, n, false);
            if (end == -1) return -1;
            if (end >= 0) {
                n = (size_t)end;
                continue; /* the slash before the dots stands for this one */
            }
        }
        if (n == cap) return -1;
        out[n++] = (char)c;
    }
    return undot(out, n, true);
}

static const cb_host_routes *find_host(const cb_router *r, cb_slice authority) {
    char name[HOST_MAX];
    size_t n = host_normal(name, authority);
    const cb_host_routes *h = n ? cb_map_get(&r->exact, name, n) : NULL;
    if (h || !r->suffix.len) return h ? h : r->any;
    for (size_t i = 0; i < n; i++) {
        if (name[i] != '.') continue;
        h = cb_map_get(&r->suffix, name + i + 1, n - i - 1);
        if (h) return h;
    }
    return r->any;
}

static const cb_route *find_path(const cb_host_routes *h, const char *path, size_t n) {
    for (size_t i = 0; i < h->n; i++) {
        const cb_route *route = &h->at[i];
        size_t len = route->path_len;
        if (len > n || memcmp(route->path, path, len) != 0) continue;
        if (len == n || path[len] == '/' || route->path[len - 1] == '/') return route;
    }
    return NULL;
}

/* Is it in normal form already, as almost all are? */
static bool plain(const char *path, size_t n) {
    return !memchr(path, '%', n) && !memmem(path, n, "/.", 2);
}

/* As origins may read it that decode more than they must: all of %XX, a backslash as a slash, several slashes as one,
 * and nothing of a segment from ";" on. */
static int64_t path_loose(char *out, const char *path, size_t len) {
    char text[PATH_MAX_NORMAL];
    size_t n = 0;
    bool cut = false;
    for (size_t i = 0; i < len; i++) {
        int c = (unsigned char)path[i];
        if (c == '%' && len - i > 2 && hex((uint8_t)path[i + 1]) >= 0 && hex((uint8_t)path[i + 2]) >= 0) {
            c = hex((uint8_t)path[i + 1]) * 16 + hex((uint8_t)path[i + 2]);
            i += 2;
        }
        if (c == '\\') c = '/';
        if (c == '/') cut = false;
        if (c == ';' || c == '\0') cut = true;
        if (cut || (c == '/' && n && text[n - 1] == '/')) continue;
        if (n == sizeof text) return -1;
        text[n++] = (char)c;
    }
    for (size_t i = 0; i < n; i++)
        if (text[i] == '?') text[i] = '_'; /* it was %3f: no query begins here */
    return cb_path_normal(out, PATH_MAX_NORMAL, (cb_slice){(const uint8_t *)text, n});
}

static bool has_other_readings(const char *path, size_t n) {
    return memchr(path, '%', n) || memchr(path, '\\', n) || memchr(path, ';', n) || memmem(path, n, "//", 2);
}

/* Is there a way to read the path by which it is on a route with another guard? */
static bool is_ambiguous(const cb_router *r, const cb_host_routes *h, const cb_route *route, const char *path,
                         size_t n) {
    char loose[PATH_MAX_NORMAL];
    if (!r->guards || !n || !has_other_readings(path, n)) return false;
    int64_t len = path_loose(loose, path, n);
    const cb_route *other = len < 0 ? NULL : find_path(h, loose, (size_t)len);
    return !other || other->guard != route->guard;
}

const cb_route *cb_router_find(const cb_router *r, cb_slice authority, cb_slice path, int *miss) {
    char normal[PATH_MAX_NORMAL];
    const char *at = (const char *)path.base;
    const cb_host_routes *h = find_host(r, authority);
    *miss = CB_ROUTE_NO_HOST;
    if (!h) return NULL;
    const uint8_t *query = path.len ? memchr(path.base, '?', path.len) : NULL;
    const size_t raw = query ? (size_t)(query - path.base) : path.len;
    int64_t n = (int64_t)raw;
    if (!n || (n == 1 && *at == '*')) {
        at = "/"; /* OPTIONS *, CONNECT */
        n = 1;
    } else if (!plain(at, (size_t)n)) {
        n = cb_path_normal(normal, sizeof normal, path);
        at = normal;
    }
    *miss = n < 0 ? CB_ROUTE_BAD_PATH : CB_ROUTE_NO_PATH;
    const cb_route *route = n < 0 ? NULL : find_path(h, at, (size_t)n);
    if (!route || !is_ambiguous(r, h, route, (const char *)path.base, raw)) return route;
    *miss = CB_ROUTE_AMBIGUOUS;
    return NULL;
}
