#include "admin/router.h"
#include "base/error.h"
#include "base/mem.h"
#include "base/opts.h"
#include <stdlib.h>
#include <string.h>

enum { PARAM_NAME_BYTES = 32, PATH_BYTES = 512 };

static const char *const methods[] = {"GET", "POST", "PUT", "PATCH", "DELETE"};

void cb_admin_router_init(cb_admin_router *r, const cb_alloc *alloc) {
    *r = (cb_admin_router){.alloc = alloc};
}

static void row_free(const cb_alloc *alloc, cb_admin_row *row) {
    if (row) cb_mem_free(alloc, row->parts);
    cb_mem_free(alloc, row);
}

void cb_admin_router_free(cb_admin_router *r) {
    for (uint32_t i = 0; i < r->n; i++)
        row_free(r->alloc, r->rows[i]);
    cb_mem_free(r->alloc, r->rows);
    *r = (cb_admin_router){.alloc = r->alloc};
}

static bool is_name(const char *text) {
    const size_t n = strlen(text);
    if (n == 0 || n > PARAM_NAME_BYTES) return false;
    for (size_t i = 0; i < n; i++) {
        const char c = text[i];
        const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        if (!letter && !(i && ((c >= '0' && c <= '9') || c == '_' || c == '-'))) return false;
    }
    return true;
}

/* A segment in braces: a parameter, whose name takes its place. */
static int read_param(cb_admin_row *row, char *segment, bool last) {
    const size_t n = strlen(segment);
    if (segment[0] != '{') return strpbrk(segment, "{}%") ? CB_EINVAL : CB_OK;
    if (n < 3 || segment[n - 1] != '}') return CB_EINVAL;
    segment[n - 1] = '\0';
    char *dots = strstr(++segment, "...");
    if (dots && (dots[3] || !last)) return CB_EINVAL;
    if (dots) *dots = '\0';
    if (!is_name(segment)) return CB_EINVAL;
    for (uint32_t i = 0; i + 1 < row->n_segments; i++)
        if (row->params >> i & 1 && strcmp(row->segments[i], segment) == 0) return CB_EINVAL;
    row->segments[row->n_segments - 1] = segment;
    row->params |= 1u << (row->n_segments - 1);
    row->rest = dots != NULL;
    return CB_OK;
}

static int read_template(cb_admin_row *row) {
    char *at = row->parts;
    if (*at != '/') return CB_EINVAL;
    for (char *next = at; next;) {
        at = next + 1;
        next = strchr(at, '/');
        if (next) *next = '\0';
        if (!*at || row->n_segments == CB_ROUTER_SEGMENTS) return CB_EINVAL;
        row->segments[row->n_segments++] = at;
        if (read_param(row, at, !next) < 0) return CB_EINVAL;
    }
    return CB_OK;
}

static int check(const cb_admin_resource *r) {
    const uint32_t all = CB_ADMIN_OPTIONAL * 2 - 1;
    bool known = false;
    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++)
        known |= r->method && strcmp(r->method, methods[i]) == 0;
    if (!known) return cb_fail(CB_EINVAL, "method: GET, POST, PUT, PATCH or DELETE");
    if (!r->path || strlen(r->path) > PATH_BYTES) return cb_fail(CB_EINVAL, "path: missing, or too long");
    if (!r->id || !is_name(r->id)) return cb_fail(CB_EINVAL, "%s: id: a name of letters and digits", r->path);
    if (!r->summary || !*r->summary) return cb_fail(CB_EINVAL, "%s: summary: one line is needed", r->path);
    if (!r->handle) return cb_fail(CB_EINVAL, "%s: handle: missing", r->path);
    if (r->flags & ~all) return cb_fail(CB_EINVAL, "%s: flags: 0x%x has unknown bits", r->path, r->flags);
    if (r->rights & ~cb_admin_rights_of(CB_ROLE_ADMIN))
        return cb_fail(CB_EINVAL, "%s: rights: 0x%x has unknown bits", r->path, r->rights);
    if (strcmp(r->method, "GET") == 0 && (r->flags & CB_ADMIN_CHANGES || r->consumes || r->document))
        return cb_fail(CB_EINVAL, "%s: GET neither changes anything nor has a body", r->path);
    if (r->flags & (CB_ADMIN_COMMITS | CB_ADMIN_MATCH) && !(r->flags & CB_ADMIN_CHANGES))
        return cb_fail(CB_EINVAL, "%s: flags: COMMITS and MATCH are of what CHANGES", r->path);
    if (r->document && r->flags & CB_ADMIN_RAW) return cb_fail(CB_EINVAL, "%s: a raw body has no document", r->path);
    if (r->n_query > CB_TARGET_QUERY || (r->n_query && !r->query))
        return cb_fail(CB_EINVAL, "%s: query: at most %d parameters", r->path, CB_TARGET_QUERY);
    return CB_OK;
}

static int order(const void *a, const void *b) {
    const cb_admin_row *x = *(cb_admin_row *const *)a, *y = *(cb_admin_row *const *)b;
    const int paths = strcmp(x->r.path, y->r.path);
    return paths ? paths : strcmp(x->r.method, y->r.method);
}

/* The same path under other names of its parameters would be found by chance. */
static bool same_place(const cb_admin_row *a, const cb_admin_row *b) {
    if (a->n_segments != b->n_segments || a->params != b->params || a->rest != b->rest) return false;
    for (uint32_t i = 0; i < a->n_segments; i++)
        if (!(a->params >> i & 1) && strcmp(a->segments[i], b->segments[i]) != 0) return false;
    return true;
}

static int insert(cb_admin_router *r, cb_admin_row *row) {
    for (uint32_t i = 0; i < r->n; i++) {
        const cb_admin_row *o = r->rows[i];
        if (strcmp(o->r.id, row->r.id) == 0)
            return cb_fail(CB_EEXIST, "%s: id \"%s\" is taken", row->r.path, row->r.id);
        if (!same_place(o, row)) continue;
        if (strcmp(o->r.path, row->r.path) != 0)
            return cb_fail(CB_EEXIST, "%s: the same path as %s", row->r.path, o->r.path);
        if (strcmp(o->r.method, row->r.method) == 0)
            return cb_fail(CB_EEXIST, "%s %s is there already", row->r.method, row->r.path);
    }
    if (r->n == CB_ROUTER_ROWS) return cb_fail(CB_ELIMIT, "%d resources are there already", CB_ROUTER_ROWS);
    if (r->n == r->cap) {
        const uint32_t cap = r->cap ? r->cap * 2 : 32;
        cb_admin_row **rows = cb_mem_grow(r->alloc, r->rows, cap * sizeof *rows);
        if (!rows) return cb_fail(CB_ENOMEM, "resources");
        r->rows = rows;
        r->cap = cap;
    }
    r->rows[r->n++] = row;
    qsort(r->rows, r->n, sizeof(cb_admin_row *), order);
    return CB_OK;
}

int cb_admin_router_add(cb_admin_router *r, const cb_admin_resource *resource, void *user, cb_admin_row **out) {
    cb_admin_row *row = cb_mem_new(r->alloc, sizeof *row);
    if (!row) return cb_fail(CB_ENOMEM, "a resource");
    int rc = cb_opts_read(&row->r, sizeof row->r, resource, "cb_admin_resource");
    row->user = user;
    if (rc == CB_OK) rc = check(&row->r);
    if (rc == CB_OK && !(row->parts = cb_mem_text(r->alloc, row->r.path))) rc = cb_fail(CB_ENOMEM, "a resource");
    if (rc == CB_OK && read_template(row) < 0)
        rc = cb_fail(CB_EINVAL, "path \"%s\": not a template such as /v1/things/{name}", row->r.path);
    if (rc == CB_OK) rc = insert(r, row);
    if (rc < 0) row_free(r->alloc, row);
    if (rc == CB_OK && out) *out = row;
    return rc;
}

/* ---- finding ---- */

static bool fits(const cb_admin_row *row, const cb_admin_target *t) {
    if (row->rest ? t->n_segments < row->n_segments : t->n_segments != row->n_segments) return false;
    for (uint32_t i = 0; i < row->n_segments; i++)
        if (!(row->params >> i & 1) && strcmp(row->segments[i], t->segments[i]) != 0) return false;
    return true;
}

/* Is a more to the point than b? Both fit: a fixed segment is more than a parameter, and that more than the rest. */
static bool closer(const cb_admin_row *a, const cb_admin_row *b) {
    for (uint32_t i = 0; i < a->n_segments && i < b->n_segments; i++) {
        const int x = !(a->params >> i & 1) * 2 + !(a->rest && i + 1 == a->n_segments);
        const int y = !(b->params >> i & 1) * 2 + !(b->rest && i + 1 == b->n_segments);
        if (x != y) return x > y;
    }
    return a->n_segments > b->n_segments;
}

static bool method_is(const cb_admin_row *row, cb_slice method) {
    const bool head = method.len == 4 && memcmp(method.base, "HEAD", 4) == 0;
    const cb_slice wanted = head ? cb_slice_str("GET") : method;
    return strlen(row->r.method) == wanted.len && memcmp(row->r.method, wanted.base, wanted.len) == 0;
}

static void add_allowed(char allow[64], const char *method) {
    if (*allow) strcat(allow, ", ");
    strcat(allow, method);
    if (strcmp(method, "GET") == 0) strcat(allow, ", HEAD");
}

const cb_admin_row *cb_admin_router_find(const cb_admin_router *r, const cb_admin_target *t, cb_slice method,
                                         bool open_only, char allow[64]) {
    const cb_admin_row *best = NULL, *found = NULL;
    *allow = '\0';
    for (uint32_t i = 0; i < r->n; i++) {
        const cb_admin_row *row = r->rows[i];
        if (open_only && !row->open && !row->scrape) continue;
        if (fits(row, t) && (!best || closer(row, best))) best = row;
    }
    for (uint32_t i = 0; best && i < r->n; i++) {
        if (strcmp(r->rows[i]->r.path, best->r.path) != 0) continue;
        add_allowed(allow, r->rows[i]->r.method); /* five methods and HEAD at most */
        if (method_is(r->rows[i], method)) found = r->rows[i];
    }
    return found;
}

const char *cb_admin_row_param(const cb_admin_row *row, const cb_admin_target *t, const char *name) {
    for (uint32_t i = 0; i < row->n_segments; i++) {
        if (!(row->params >> i & 1) || strcmp(row->segments[i], name) != 0) continue;
        return row->rest && i + 1 == row->n_segments ? t->rests[i] : t->segments[i];
    }
    return NULL;
}
