/* What roles are called, and what they may. */
#include <cb/admin.h>
#include <string.h>

static const struct {
    const char *name;
    uint32_t role, rights;
} roles[] = {
    {"viewer", CB_ROLE_VIEWER, CB_RIGHT_READ | CB_RIGHT_METRICS},
    {"operator", CB_ROLE_OPERATOR, CB_RIGHT_READ | CB_RIGHT_METRICS | CB_RIGHT_OPERATE},
    {"service-owner", CB_ROLE_SERVICE_OWNER, CB_RIGHT_READ | CB_RIGHT_METRICS | CB_RIGHT_CHANGE_OWNED},
    {"tenant-admin", CB_ROLE_TENANT_ADMIN, CB_RIGHT_READ_TENANT | CB_RIGHT_CHANGE_TENANT},
    {"admin", CB_ROLE_ADMIN, CB_RIGHT_AUDIT * 2 - 1},
    {"auditor", CB_ROLE_AUDITOR, CB_RIGHT_READ | CB_RIGHT_METRICS | CB_RIGHT_AUDIT},
};

enum { ROLES = sizeof roles / sizeof *roles };

uint32_t cb_admin_rights_of(uint32_t held) {
    uint32_t rights = 0;
    for (size_t i = 0; i < ROLES; i++)
        if (held & roles[i].role) rights |= roles[i].rights;
    return rights;
}

int cb_admin_role_named(const char *name) {
    for (size_t i = 0; name && i < ROLES; i++)
        if (strcmp(name, roles[i].name) == 0) return (int)roles[i].role;
    return 0;
}

const char *cb_admin_role_name(int role) {
    for (size_t i = 0; i < ROLES; i++)
        if (role == (int)roles[i].role) return roles[i].name;
    return NULL;
}
