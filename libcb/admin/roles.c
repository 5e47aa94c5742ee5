#include "admin/roles.h"
#include "base/error.h"
#include "base/mem.h"
#include "base/opts.h"
#include "base/utf8.h"
#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS = 4096, TEXT_BYTES = 1024, OWNED = 1024, NSS_BYTES = 65536, NSS_MAX_BYTES = 1 << 24 };

enum kind { BY_UID, BY_GID, BY_SUBJECT, BY_SPIFFE, BY_ROLE };

typedef struct grant {
    enum kind kind;
    uint32_t id;  /* uid, gid */
    char *what;   /* subject, SPIFFE ID, role */
    char *source; /* NULL = any */
    char *tenant; /* NULL = the identity's */
    char **owned;
    size_t n_owned;
    uint32_t role;
} grant;

struct cb_admin_roles {
    grant *rows;
    size_t n, cap;
    atomic_uint refs;
    atomic_bool sealed;
};

/* ---- the table ---- */

int cb_admin_roles_new(cb_admin_roles **out) {
    if (!out) return cb_fail(CB_EINVAL, "cb_admin_roles_new: out is NULL");
    cb_admin_roles *r = cb_mem_new(&cb_alloc_libc, sizeof *r);
    if (!r) return cb_fail(CB_ENOMEM, "a table of roles");
    atomic_init(&r->refs, 1);
    *out = r;
    return CB_OK;
}

cb_admin_roles *cb_admin_roles_ref(cb_admin_roles *r) {
    atomic_fetch_add_explicit(&r->refs, 1, memory_order_relaxed);
    return r;
}

static void grant_clear(grant *g) {
    cb_mem_free(&cb_alloc_libc, g->what);
    cb_mem_free(&cb_alloc_libc, g->source);
    cb_mem_free(&cb_alloc_libc, g->tenant);
    for (size_t i = 0; i < g->n_owned; i++)
        cb_mem_free(&cb_alloc_libc, g->owned[i]);
    cb_mem_free(&cb_alloc_libc, g->owned);
}

void cb_admin_roles_unref(cb_admin_roles *r) {
    if (!r || atomic_fetch_sub_explicit(&r->refs, 1, memory_order_acq_rel) != 1) return;
    for (size_t i = 0; i < r->n; i++)
        grant_clear(&r->rows[i]);
    cb_mem_free(&cb_alloc_libc, r->rows);
    cb_mem_free(&cb_alloc_libc, r);
}

void cb_admin_roles_seal(cb_admin_roles *r) {
    atomic_store_explicit(&r->sealed, true, memory_order_relaxed);
}

static bool same_text(const char *a, const char *b) {
    return a && b ? strcmp(a, b) == 0 : a == b;
}

static bool same_row(const grant *a, const grant *b) {
    bool same = a->kind == b->kind && a->id == b->id && a->role == b->role && a->n_owned == b->n_owned &&
                same_text(a->what, b->what) && same_text(a->source, b->source) && same_text(a->tenant, b->tenant);
    for (size_t i = 0; same && i < a->n_owned; i++)
        same = same_text(a->owned[i], b->owned[i]);
    return same;
}

bool cb_admin_roles_same(const cb_admin_roles *a, const cb_admin_roles *b) {
    const size_t n = a ? a->n : 0;
    if (n != (b ? b->n : 0)) return false;
    for (size_t i = 0; i < n; i++)
        if (!same_row(&a->rows[i], &b->rows[i])) return false;
    return true;
}

/* ---- adding ---- */

static int read_id(const char *text, uint32_t *out) {
    uint64_t n = 0;
    size_t i = 0;
    for (; text[i] >= '0' && text[i] <= '9' && i < 10; i++)
        n = n * 10 + (uint64_t)(text[i] - '0');
    if (i == 0 || text[i] || n >= UINT32_MAX)
        return cb_fail(CB_EINVAL, "who: \"%.40s\" is not a number of a user or group", text);
    *out = (uint32_t)n;
    return CB_OK;
}

/* User or group of that name; asks NSS with as much room as it wants. */
static int look_up(const char *name, bool group, uint32_t *out) {
    int err = ERANGE;
    bool found = false;
    for (size_t cap = NSS_BYTES; err == ERANGE && cap <= NSS_MAX_BYTES; cap *= 4) {
        char *room = cb_mem_get(&cb_alloc_libc, cap);
        struct passwd user, *u = NULL;
        struct group members, *g = NULL;
        if (!room) return cb_fail(CB_ENOMEM, "who: %.80s", name);
        err = group ? getgrnam_r(name, &members, room, cap, &g) : getpwnam_r(name, &user, room, cap, &u);
        found = err == 0 && (u || g);
        if (found) *out = group ? members.gr_gid : user.pw_uid;
        cb_mem_free(&cb_alloc_libc, room);
    }
    if (found) return CB_OK;
    return err == 0 || err == ENOENT
               ? cb_fail(CB_ENOENT, "who: there is no %s \"%.80s\"", group ? "group" : "user", name)
               : cb_fail_errno(err, "who: looking up \"%.80s\"", name);
}

static int read_who(grant *g, const char *who) {
    static const struct {
        const char *begins;
        enum kind kind;
        bool look;
    } kinds[] = {{"uid:", BY_UID, false},      {"gid:", BY_GID, false},         {"user:", BY_UID, true},
                 {"group:", BY_GID, true},     {"subject:", BY_SUBJECT, false}, {"role:", BY_ROLE, false},
                 {"spiffe:", BY_SPIFFE, false}};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        const size_t n = strlen(kinds[i].begins);
        const char *rest = who + n;
        if (strncmp(who, kinds[i].begins, n) != 0) continue;
        g->kind = kinds[i].kind;
        if (!*rest) break;
        if (kinds[i].look) return look_up(rest, g->kind == BY_GID, &g->id);
        if (g->kind == BY_UID || g->kind == BY_GID) return read_id(rest, &g->id);
        if (g->kind == BY_SPIFFE && strncmp(who, "spiffe://", 9) != 0) break;
        g->what = cb_mem_text(&cb_alloc_libc, g->kind == BY_SPIFFE ? who : rest);
        return g->what ? CB_OK : cb_fail(CB_ENOMEM, "who");
    }
    return cb_fail(CB_EINVAL,
                   "who: \"%.80s\": write uid:N, gid:N, user:NAME, group:NAME, subject:NAME, role:NAME or spiffe://...",
                   who);
}

static int copy(char **out, const char *text, const char *field) {
    if (!text) return CB_OK;
    if (!*text || strlen(text) > TEXT_BYTES || !cb_utf8_valid(text, strlen(text)))
        return cb_fail(CB_EINVAL, "%s: a text of 1 to %d bytes", field, TEXT_BYTES);
    *out = cb_mem_text(&cb_alloc_libc, text);
    return *out ? CB_OK : cb_fail(CB_ENOMEM, "%s", field);
}

static int copy_owned(grant *g, const cb_admin_grant *from) {
    if (from->n_owned > OWNED || (from->n_owned && !from->owned)) return cb_fail(CB_EINVAL, "owned: at most %d", OWNED);
    if (!from->n_owned) return CB_OK;
    g->owned = cb_mem_new(&cb_alloc_libc, from->n_owned * sizeof *g->owned);
    if (!g->owned) return cb_fail(CB_ENOMEM, "owned");
    for (size_t i = 0; i < from->n_owned; i++) {
        int rc = from->owned[i] ? copy(&g->owned[i], from->owned[i], "owned") : cb_fail(CB_EINVAL, "owned: NULL");
        if (rc < 0) return rc;
        g->n_owned = i + 1;
    }
    return CB_OK;
}

static int check(const grant *g) {
    const bool local = g->kind == BY_UID || g->kind == BY_GID;
    if (local && g->source) return cb_fail(CB_EINVAL, "source: users of this host come through no gate");
    if ((g->role == CB_ROLE_SERVICE_OWNER) != (g->n_owned > 0))
        return cb_fail(CB_EINVAL, "owned: a service-owner needs at least one, and nobody else has any");
    if (g->role != CB_ROLE_TENANT_ADMIN && g->tenant) return cb_fail(CB_EINVAL, "tenant: only a tenant-admin has one");
    if (g->role == CB_ROLE_TENANT_ADMIN && local && !g->tenant)
        return cb_fail(CB_EINVAL, "tenant: a tenant-admin of this host needs one");
    return CB_OK;
}

static int fill(grant *g, const cb_admin_grant *o) {
    if (!o->who) return cb_fail(CB_EINVAL, "who: required");
    if (strlen(o->who) > TEXT_BYTES) return cb_fail(CB_EINVAL, "who: more than %d bytes", TEXT_BYTES);
    g->role = (uint32_t)cb_admin_role_named(o->role);
    if (!g->role)
        return cb_fail(CB_EINVAL,
                       "role: \"%.40s\" is none of viewer, operator, service-owner, tenant-admin, admin, auditor",
                       o->role ? o->role : "");
    int rc = read_who(g, o->who);
    if (rc == CB_OK) rc = copy(&g->source, o->source, "source");
    if (rc == CB_OK) rc = copy(&g->tenant, o->tenant, "tenant");
    if (rc == CB_OK) rc = copy_owned(g, o);
    return rc == CB_OK ? check(g) : rc;
}

int cb_admin_roles_add(cb_admin_roles *r, const cb_admin_grant *opts) {
    cb_admin_grant o;
    grant g = {0};
    if (!r) return cb_fail(CB_EINVAL, "cb_admin_roles_add: no table");
    int rc = cb_opts_read(&o, sizeof o, opts, "cb_admin_grant");
    if (rc < 0) return rc;
    if (atomic_load_explicit(&r->sealed, memory_order_relaxed))
        return cb_fail(CB_EINVAL, "the table of roles is in use");
    if (r->n == ROWS) return cb_fail(CB_ELIMIT, "a table of roles has at most %d rows", ROWS);
    rc = fill(&g, &o);
    if (rc == CB_OK && r->n == r->cap) {
        const size_t cap = r->cap ? r->cap * 2 : 8;
        grant *rows = cb_mem_grow(&cb_alloc_libc, r->rows, cap * sizeof *rows);
        if (rows) {
            r->rows = rows;
            r->cap = cap;
        } else {
            rc = cb_fail(CB_ENOMEM, "a table of roles");
        }
    }
    if (rc == CB_OK)
        r->rows[r->n++] = g;
    else
        grant_clear(&g);
    return rc;
}

/* ---- judging ---- */

static bool in_group(const cb_admin_facts *f, uint32_t gid) {
    bool in = f->gid == gid;
    for (uint32_t i = 0; i < f->n_groups && !in; i++)
        in = f->groups[i] == gid;
    return in;
}

static bool has_role(const cb_principal *p, const char *role) {
    for (size_t i = 0; i < p->n_roles; i++)
        if (p->roles[i].len == strlen(role) && memcmp(p->roles[i].base, role, p->roles[i].len) == 0) return true;
    return false;
}

/* A SPIFFE ID, or with a slash at its end all below. */
static bool is_spiffe(const cb_principal *p, const char *id) {
    const size_t n = strlen(id);
    if (!p->spiffe_id || !p->with_cert) return false;
    return id[n - 1] == '/' ? strncmp(p->spiffe_id, id, n) == 0 && p->spiffe_id[n] : strcmp(p->spiffe_id, id) == 0;
}

static bool fits(const grant *g, const cb_admin_facts *f) {
    const cb_principal *p = f->principal;
    if (f->local) return g->kind == BY_UID ? g->id == f->uid : g->kind == BY_GID && in_group(f, g->id);
    if (!p || (g->source && (!p->source || strcmp(g->source, p->source) != 0))) return false;
    if (g->role == CB_ROLE_TENANT_ADMIN && !g->tenant && !p->tenant) return false;
    switch (g->kind) {
    case BY_SUBJECT:
        return p->subject && strcmp(g->what, p->subject) == 0;
    case BY_SPIFFE:
        return is_spiffe(p, g->what);
    case BY_ROLE:
        return has_role(p, g->what);
    default:
        return false;
    }
}

/* "uid:1000", or "staff:alice"; behind it the tenant. No source can name somebody as the kernel does. */
static int name_it(cb_admin_person *w, const cb_admin_facts *f) {
    const cb_principal *p = f->principal;
    const char *source = p && p->source ? p->source : "", *subject = p && p->subject ? p->subject : "";
    const char *tenant = p && p->tenant ? p->tenant : "";
    const size_t head = strlen(source) + strlen(subject) + 16, tail = strlen(tenant) + 1;
    w->block = cb_mem_get(&cb_alloc_libc, head + tail);
    if (!w->block) return cb_fail(CB_ENOMEM, "who asks");
    if (f->local)
        snprintf(w->block, head, "uid:%u", f->uid);
    else
        snprintf(w->block, head, "%s%s:%s", strcmp(source, "uid") == 0 ? "gate:" : "", source, subject);
    w->p.name = w->block;
    memcpy(w->block + head, tenant, tail);
    w->p.tenant = *tenant ? w->block + head : NULL;
    return CB_OK;
}

static bool among(const char *const *list, size_t n, const char *text) {
    for (size_t i = 0; text && *text && i < n; i++)
        if (strcmp(list[i], text) == 0) return true;
    return false;
}

/* Walks the rows that fit: first counting, then with room for the names. */
static void gather(cb_admin_person *w, const cb_admin_facts *f, size_t *n_owned, size_t *n_tenants) {
    const char **owned = w->names, **tenants = w->names ? w->names + *n_owned : NULL;
    *n_owned = *n_tenants = 0;
    for (size_t i = 0; w->table && i < w->table->n; i++) {
        const grant *g = &w->table->rows[i];
        if (!fits(g, f)) continue;
        w->p.roles |= g->role;
        const char *tenant = g->tenant ? g->tenant : w->p.tenant;
        for (size_t k = 0; k < g->n_owned; k++)
            if (!owned)
                ++*n_owned;
            else if (!among(owned, *n_owned, g->owned[k]))
                owned[(*n_owned)++] = g->owned[k];
        if (g->role != CB_ROLE_TENANT_ADMIN) continue;
        if (!tenants)
            ++*n_tenants;
        else if (!among(tenants, *n_tenants, tenant))
            tenants[(*n_tenants)++] = tenant;
    }
}

int cb_admin_roles_judge(cb_admin_roles *table, const cb_admin_facts *f, const char *door, cb_admin_person *out) {
    size_t n_owned = 0, n_tenants = 0;
    out->table = table ? cb_admin_roles_ref(table) : NULL;
    out->p.door = door;
    int rc = name_it(out, f);
    if (rc < 0) return rc;
    gather(out, f, &n_owned, &n_tenants);
    out->p.rights = cb_admin_rights_of(out->p.roles);
    if (n_owned + n_tenants == 0) return CB_OK;
    out->names = cb_mem_new(&cb_alloc_libc, (n_owned + n_tenants) * sizeof *out->names);
    if (!out->names) return cb_fail(CB_ENOMEM, "who asks");
    out->p.owned = out->names;
    out->p.tenants = out->names + n_owned;
    gather(out, f, &n_owned, &n_tenants);
    out->p.n_owned = n_owned;
    out->p.n_tenants = n_tenants;
    return CB_OK;
}

void cb_admin_person_free(cb_admin_person *w) {
    cb_admin_roles_unref(w->table);
    cb_mem_free(&cb_alloc_libc, w->block);
    cb_mem_free(&cb_alloc_libc, w->names);
    *w = (cb_admin_person){0};
}

int cb_admin_owns(const cb_admin_principal *who, const char *owner) {
    return among(who->owned, who->n_owned, owner);
}

int cb_admin_of_tenant(const cb_admin_principal *who, const char *tenant) {
    return among(who->tenants, who->n_tenants, tenant);
}
