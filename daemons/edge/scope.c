/* Who may see and change which part of the configuration, beside those who may everything: owners of services their
 * groups, administrators of tenants their groups and routes. What changes is judged, not what was asked for.
 *
 * Owners and tenants of groups, their names, what names files and programs of the host, and fields that are hidden on
 * all routes are the admin's. So are hosts: a tenant routes those that it has been given a route for, and to its own
 * groups. */
#include "edge.h"
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { POINTER = 600 };

/* "/groups/web/origins/0" in its parts. */
typedef struct place {
    char kind[16], name[512];
    const char *rest; /* "" or "/origins/0" */
} place;

static bool read_place(place *p, const char *pointer) {
    const char *name = *pointer == '/' ? strchr(pointer + 1, '/') : NULL;
    if (!name) return false;
    const size_t kind = (size_t)(name - pointer) - 1, len = strcspn(name + 1, "/");
    if (kind >= sizeof p->kind || len >= sizeof p->name) return false;
    snprintf(p->kind, sizeof p->kind, "%.*s", (int)kind, pointer + 1);
    snprintf(p->name, sizeof p->name, "%.*s", (int)len, name + 1);
    p->rest = name + 1 + len;
    return true;
}

static const char *text_at(const cb_document *d, const char *kind, const char *name, const char *member) {
    char at[POINTER];
    snprintf(at, sizeof at, "/%s/%s/%s", kind, name, member);
    return cb_document_string(d, at);
}

static bool is_there(const cb_document *d, const place *p) {
    char at[POINTER];
    snprintf(at, sizeof at, "/%s/%s", p->kind, p->name);
    return cb_document_has(d, at);
}

/* Names of configuration have no characters that a pointer would escape; others name no group. */
static const char *group_tenant(const cb_document *d, const char *group) {
    return group && !strpbrk(group, "/~") && strlen(group) < 512 ? text_at(d, "groups", group, "tenant") : NULL;
}

/* A route without a tenant is that of its group's. */
static const char *route_tenant(const cb_document *d, const char *index) {
    const char *own = text_at(d, "routes", index, "tenant");
    return own ? own : group_tenant(d, text_at(d, "routes", index, "group"));
}

/* ---- changes ---- */

/* A member's name ends so, here or within a value: its quotes tell it from a text. */
static bool names_files(const cb_document_change *c) {
    const size_t n = strlen(c->pointer);
    return (n >= 5 && strcmp(c->pointer + n - 5, "_file") == 0) || strstr(c->pointer, "_file/") ||
           (c->after && strstr(c->after, "_file\":")) || (c->before && strstr(c->before, "_file\":"));
}

/* What checks of origins run on this host. */
static bool names_programs(const cb_document_change *c) {
    const size_t n = strlen(c->pointer);
    return (n >= 8 && strcmp(c->pointer + n - 8, "/command") == 0) || strstr(c->pointer, "/command/") ||
           (c->after && strstr(c->after, "\"command\":")) || (c->before && strstr(c->before, "\"command\":"));
}

static const char *judge_group(const cb_admin_principal *who, const place *p, const cb_document *before) {
    const char *owner = text_at(before, "groups", p->name, "owner"),
               *tenant = text_at(before, "groups", p->name, "tenant");
    const bool owns = who->rights & CB_RIGHT_CHANGE_OWNED && cb_admin_owns(who, owner),
               has = who->rights & CB_RIGHT_CHANGE_TENANT && cb_admin_of_tenant(who, tenant);
    if (!owns && !has) return "this group is not theirs";
    if (!*p->rest) return "groups come and go by the admin";
    if (strcmp(p->rest, "/owner") == 0 || strcmp(p->rest, "/tenant") == 0) return "that is the admin's to say";
    return NULL;
}

static bool has_host(const cb_admin_principal *who, const cb_document *before, const char *host) {
    const int64_t n = cb_document_count(before, "/routes");
    char index[24];
    for (int64_t i = 0; i < n; i++) {
        snprintf(index, sizeof index, "%lld", (long long)i);
        const char *other = text_at(before, "routes", index, "host");
        if (cb_admin_of_tenant(who, route_tenant(before, index)) &&
            strcasecmp(other ? other : "*", host ? host : "*") == 0)
            return true;
    }
    return false;
}

/* Fields that tell origins who it is: no route of anybody lets their names pass from outside. */
static bool names_fields(const place *p, const cb_document_change *c) {
    static const char at[] = "/auth/headers";
    return strncmp(p->rest, at, sizeof at - 1) == 0 || (c->after && strstr(c->after, "\"headers\":"));
}

static const char *judge_route(const cb_admin_principal *who, const cb_document_change *c, const place *p,
                               const cb_document *before, const cb_document *after) {
    const bool added = !*p->rest && !c->before, removed = !*p->rest && !c->after;
    if (!(who->rights & CB_RIGHT_CHANGE_TENANT)) return "routes are not theirs";
    if (!added && !(is_there(before, p) && cb_admin_of_tenant(who, route_tenant(before, p->name))))
        return "this route is not theirs";
    if (removed) return NULL;
    if (names_fields(p, c)) return "what it hides is hidden on every route: the admin's to name";
    if (!cb_admin_of_tenant(who, route_tenant(after, p->name))) return "it would not be theirs";
    if (!cb_admin_of_tenant(who, group_tenant(after, text_at(after, "routes", p->name, "group"))))
        return "its group is not theirs";
    if (!has_host(who, before, text_at(after, "routes", p->name, "host"))) return "its host is not theirs";
    return NULL;
}

int edge_scope_allow(const cb_admin_principal *who, const cb_document_change *c, const cb_document *before,
                     const cb_document *after, void *user) {
    place p;
    const char *why = "this part is the admin's";
    (void)user;
    if (names_files(c))
        why = "files of the host are the admin's to name";
    else if (names_programs(c))
        why = "programs of the host are the admin's to name";
    else if (read_place(&p, c->pointer) && strcmp(p.kind, "groups") == 0)
        why = judge_group(who, &p, before);
    else if (read_place(&p, c->pointer) && strcmp(p.kind, "routes") == 0)
        why = judge_route(who, c, &p, before, after);
    return why ? cb_error_set(CB_EPERM, why) : CB_OK;
}

/* ---- what may be seen ---- */

/* Members that who may not see; from the end, as those behind move up. */
static int keep_members(cb_document *d, const char *at,
                        bool (*keeps)(const cb_admin_principal *who, const cb_document *d, const char *name),
                        const cb_admin_principal *who) {
    char pointer[POINTER];
    int rc = CB_OK;
    for (int64_t i = cb_document_count(d, at); i > 0 && rc == CB_OK; i--) {
        const char *name = cb_document_member(d, at, (size_t)i - 1);
        if (!name || keeps(who, d, name)) continue;
        snprintf(pointer, sizeof pointer, "%s/%s", at, name);
        rc = cb_document_remove(d, pointer);
    }
    return rc;
}

static bool is_theirs(const cb_admin_principal *who, const cb_document *d, const char *group) {
    return cb_admin_of_tenant(who, group_tenant(d, group));
}

static bool has_theirs(const cb_admin_principal *who, const cb_document *d, const char *member) {
    (void)who;
    (void)d;
    return strcmp(member, "groups") == 0 || strcmp(member, "routes") == 0;
}

/* Routes keep their numbers, by which they are changed: null stands for those of others. */
int edge_scope_show(const cb_admin_principal *who, cb_document *copy, void *user) {
    char index[24], pointer[POINTER];
    (void)user;
    int rc = keep_members(copy, "", has_theirs, who);
    for (int64_t i = 0, n = cb_document_count(copy, "/routes"); i < n && rc == CB_OK; i++) {
        snprintf(index, sizeof index, "%lld", (long long)i);
        if (cb_admin_of_tenant(who, route_tenant(copy, index))) continue;
        snprintf(pointer, sizeof pointer, "/routes/%s", index);
        rc = cb_document_put(copy, pointer, cb_slice_str("null"), NULL);
    }
    return rc == CB_OK ? keep_members(copy, "/groups", is_theirs, who) : rc;
}
