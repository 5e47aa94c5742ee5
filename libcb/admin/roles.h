/* Who has which role: a table of rows, and what they make of somebody. */
#ifndef CB_ADMIN_ROLES_H
#define CB_ADMIN_ROLES_H

#include "base/buf.h"
#include <cb/admin.h>
#include <stdbool.h>

/* What is known of somebody who asks. */
typedef struct cb_admin_facts {
    bool local; /* of a unix socket: uid, gid and groups; else `principal` */
    uint32_t uid, gid, n_groups;
    const uint32_t *groups;
    const cb_principal *principal;
} cb_admin_facts;

/* A principal with what it points to: rows of the table, and a block of its own. */
typedef struct cb_admin_person {
    cb_admin_principal p;
    cb_admin_roles *table; /* referenced */
    char *block;           /* name and tenant */
    const char **names;    /* owned, then tenants */
} cb_admin_person;

/* Fills out, which is all zero; cb_admin_person_free() afterwards, also when it failed. door is borrowed. Somebody
 * without a row has no roles. CB_ENOMEM. */
int cb_admin_roles_judge(cb_admin_roles *table, const cb_admin_facts *facts, const char *door, cb_admin_person *out);
void cb_admin_person_free(cb_admin_person *who);
/* Do both give everybody the same? NULL: a table without rows. */
bool cb_admin_roles_same(const cb_admin_roles *a, const cb_admin_roles *b);
/* The table is in use: no more rows. */
void cb_admin_roles_seal(cb_admin_roles *table);

#endif
