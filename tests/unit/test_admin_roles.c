/* Who has which role: the table, and what it makes of a process, a token, a certificate. */
#include "admin/roles.h"
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

static const char *const teams[] = {"team-a", "team-b"}, *const team_b[] = {"team-b", "team-c"};

static cb_admin_roles *table(const cb_admin_grant *rows, size_t n) {
    cb_admin_roles *r = NULL;
    cr_assert_eq(cb_admin_roles_new(&r), CB_OK);
    for (size_t i = 0; i < n; i++) {
        cb_admin_grant one = rows[i];
        one.size = sizeof one;
        cr_assert_eq(cb_admin_roles_add(r, &one), CB_OK, "row %zu: %s", i, cb_last_error());
    }
    return r;
}

Test(admin_roles, what_roles_may) {
    static const struct {
        const char *name;
        uint32_t may, may_not;
    } rows[] = {
        {"viewer", CB_RIGHT_READ | CB_RIGHT_METRICS,
         CB_RIGHT_OPERATE | CB_RIGHT_CHANGE | CB_RIGHT_CHANGE_OWNED | CB_RIGHT_CHANGE_TENANT | CB_RIGHT_AUDIT},
        {"operator", CB_RIGHT_READ | CB_RIGHT_METRICS | CB_RIGHT_OPERATE,
         CB_RIGHT_CHANGE | CB_RIGHT_CHANGE_OWNED | CB_RIGHT_CHANGE_TENANT | CB_RIGHT_AUDIT},
        {"service-owner", CB_RIGHT_READ | CB_RIGHT_METRICS | CB_RIGHT_CHANGE_OWNED,
         CB_RIGHT_OPERATE | CB_RIGHT_CHANGE | CB_RIGHT_CHANGE_TENANT | CB_RIGHT_AUDIT},
        {"tenant-admin", CB_RIGHT_READ_TENANT | CB_RIGHT_CHANGE_TENANT,
         CB_RIGHT_READ | CB_RIGHT_METRICS | CB_RIGHT_OPERATE | CB_RIGHT_CHANGE | CB_RIGHT_CHANGE_OWNED |
             CB_RIGHT_AUDIT},
        {"admin", 255, 0},
        {"auditor", CB_RIGHT_READ | CB_RIGHT_METRICS | CB_RIGHT_AUDIT,
         CB_RIGHT_OPERATE | CB_RIGHT_CHANGE | CB_RIGHT_CHANGE_OWNED | CB_RIGHT_CHANGE_TENANT},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const int role = cb_admin_role_named(rows[i].name);
        const uint32_t rights = cb_admin_rights_of((uint32_t)role);
        cr_expect_str_eq(cb_admin_role_name(role), rows[i].name);
        cr_expect_eq(rights & rows[i].may, rows[i].may, "%s", rows[i].name);
        cr_expect_eq(rights & rows[i].may_not, 0, "%s", rows[i].name);
    }
    cr_expect_eq(cb_admin_role_named("root"), 0);
    cr_expect_eq(cb_admin_role_named(NULL), 0);
    cr_expect_null(cb_admin_role_name(3));
    cr_expect_eq(cb_admin_rights_of(0), 0);
}

Test(admin_roles, processes) {
    static const cb_admin_grant rows[] = {{.who = "uid:1000", .role = "viewer"},
                                          {.who = "gid:27", .role = "operator"},
                                          {.who = "uid:1000", .role = "service-owner", .owned = teams, .n_owned = 2},
                                          {.who = "gid:30", .role = "service-owner", .owned = team_b, .n_owned = 2},
                                          {.who = "user:root", .role = "admin"},
                                          {.who = "group:root", .role = "auditor"},
                                          {.who = "uid:7", .role = "tenant-admin", .tenant = "acme"},
                                          {.who = "gid:27", .role = "tenant-admin", .tenant = "beta"},
                                          {.who = "subject:uid:1000", .role = "admin"}};
    static const uint32_t groups[] = {5, 27}, both[] = {27, 30};
    static const struct {
        uint32_t uid, gid, n;
        const uint32_t *groups;
        uint32_t roles;
        size_t owned, tenants;
    } cases[] = {
        {1001, 1001, 0, NULL, 0, 0, 0},
        {27, 1001, 0, NULL, 0, 0, 0}, /* a uid is no gid */
        {1001, 1000, 0, NULL, 0, 0, 0},
        {1000, 1000, 0, NULL, CB_ROLE_VIEWER | CB_ROLE_SERVICE_OWNER, 2, 0},
        {1001, 27, 0, NULL, CB_ROLE_OPERATOR | CB_ROLE_TENANT_ADMIN, 0, 1},
        {1001, 1001, 2, groups, CB_ROLE_OPERATOR | CB_ROLE_TENANT_ADMIN, 0, 1},
        {1000, 1, 2, both, CB_ROLE_VIEWER | CB_ROLE_SERVICE_OWNER | CB_ROLE_OPERATOR | CB_ROLE_TENANT_ADMIN, 3, 1},
        {7, 27, 0, NULL, CB_ROLE_OPERATOR | CB_ROLE_TENANT_ADMIN, 0, 2},
        {0, 1, 0, NULL, CB_ROLE_ADMIN, 0, 0},
        {1, 0, 0, NULL, CB_ROLE_AUDITOR, 0, 0},
    };
    cb_admin_roles *r = table(rows, sizeof rows / sizeof *rows);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char name[32];
        cb_admin_person who = {0};
        const cb_admin_facts f = {
            .local = true, .uid = cases[i].uid, .gid = cases[i].gid, .groups = cases[i].groups, .n_groups = cases[i].n};
        cr_assert_eq(cb_admin_roles_judge(r, &f, "unix:/x", &who), CB_OK);
        snprintf(name, sizeof name, "uid:%u", cases[i].uid);
        cr_expect_str_eq(who.p.name, name);
        cr_expect_eq(who.p.roles, cases[i].roles, "case %zu: %x", i, who.p.roles);
        cr_expect_eq(who.p.n_owned, cases[i].owned, "case %zu", i);
        cr_expect_eq(who.p.n_tenants, cases[i].tenants, "case %zu", i);
        cr_expect_eq(cb_admin_owns(&who.p, "team-c"), cases[i].owned == 3);
        cr_expect_eq(cb_admin_of_tenant(&who.p, "acme"), cases[i].uid == 7);
        cr_expect(!cb_admin_owns(&who.p, "") && !cb_admin_owns(&who.p, NULL) && !cb_admin_of_tenant(&who.p, "acm"));
        cb_admin_person_free(&who);
    }
    cb_admin_roles_unref(r);
}

Test(admin_roles, identities_of_gates) {
    static const cb_admin_grant rows[] = {
        {.who = "subject:alice", .role = "operator", .source = "staff"},
        {.who = "spiffe://td/ops/ci", .role = "viewer"},
        {.who = "spiffe://td/edge/", .role = "auditor"},
        {.who = "role:admins", .role = "admin", .source = "staff"},
        {.who = "role:tenant-admins", .role = "tenant-admin"},
        {.who = "subject:bob", .role = "tenant-admin", .tenant = "beta"},
        {.who = "uid:0", .role = "admin"},
    };
    static const cb_slice admins = {(const uint8_t *)"admins", 6}, tenants = {(const uint8_t *)"tenant-admins", 13};
    static const struct {
        cb_principal p;
        uint32_t roles;
        const char *name, *tenant;
    } cases[] = {
        {{.subject = "alice", .source = "staff"}, CB_ROLE_OPERATOR, "staff:alice", NULL},
        {{.subject = "alice", .source = "guests"}, 0, "guests:alice", NULL}, /* another one's alice */
        {{.subject = "alic", .source = "staff"}, 0, "staff:alic", NULL},
        {{.subject = "x", .source = "mtls", .spiffe_id = "spiffe://td/ops/ci", .with_cert = 1},
         CB_ROLE_VIEWER,
         "mtls:x",
         NULL},
        {{.subject = "x", .source = "mtls", .spiffe_id = "spiffe://td/ops/ci"}, 0, "mtls:x", NULL},
        {{.subject = "x", .source = "mtls", .spiffe_id = "spiffe://td/edge/7", .with_cert = 1},
         CB_ROLE_AUDITOR,
         "mtls:x",
         NULL},
        {{.subject = "x", .source = "mtls", .spiffe_id = "spiffe://td/edge/", .with_cert = 1}, 0, "mtls:x", NULL},
        {{.subject = "x", .source = "mtls", .spiffe_id = "spiffe://td/edges/7", .with_cert = 1}, 0, "mtls:x", NULL},
        {{.subject = "x", .source = "staff", .roles = &admins, .n_roles = 1}, CB_ROLE_ADMIN, "staff:x", NULL},
        {{.subject = "x", .source = "guests", .roles = &admins, .n_roles = 1}, 0, "guests:x", NULL},
        {{.subject = "x", .source = "staff", .roles = &tenants, .n_roles = 1, .tenant = "acme"},
         CB_ROLE_TENANT_ADMIN,
         "staff:x",
         "acme"},
        {{.subject = "x", .source = "staff", .roles = &tenants, .n_roles = 1}, 0, "staff:x", NULL}, /* whose? */
        {{.subject = "0", .source = "uid"}, 0, "gate:uid:0", NULL}, /* no source makes a name of this host's */
        {{.subject = "bob", .source = "staff", .tenant = "acme"}, CB_ROLE_TENANT_ADMIN, "staff:bob", "beta"},
    };
    cb_admin_roles *r = table(rows, sizeof rows / sizeof *rows);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cb_admin_person who = {0};
        const cb_admin_facts f = {.principal = &cases[i].p};
        cr_assert_eq(cb_admin_roles_judge(r, &f, "127.0.0.1:1", &who), CB_OK);
        cr_expect_str_eq(who.p.name, cases[i].name);
        cr_expect_eq(who.p.roles, cases[i].roles, "case %zu: %x", i, who.p.roles);
        cr_expect_eq(who.p.n_tenants, cases[i].tenant != NULL, "case %zu", i);
        if (cases[i].tenant) cr_expect(cb_admin_of_tenant(&who.p, cases[i].tenant), "case %zu", i);
        cb_admin_person_free(&who);
    }
    cb_admin_person nobody = {0};
    cr_assert_eq(cb_admin_roles_judge(NULL, &(cb_admin_facts){.local = true}, "unix:/x", &nobody), CB_OK);
    cr_expect_eq(nobody.p.roles, 0, "root without a table");
    cb_admin_person_free(&nobody);
    cb_admin_roles_unref(r);
}

Test(admin_roles, tables_that_are_the_same) {
    static const cb_admin_grant base[] = {
        {.who = "uid:1", .role = "viewer"},
        {.who = "subject:a", .role = "service-owner", .source = "s", .owned = teams, .n_owned = 2}};
    static const cb_admin_grant others[][2] = {
        {{.who = "uid:2", .role = "viewer"},
         {.who = "subject:a", .role = "service-owner", .source = "s", .owned = teams, .n_owned = 2}},
        {{.who = "gid:1", .role = "viewer"},
         {.who = "subject:a", .role = "service-owner", .source = "s", .owned = teams, .n_owned = 2}},
        {{.who = "uid:1", .role = "auditor"},
         {.who = "subject:a", .role = "service-owner", .source = "s", .owned = teams, .n_owned = 2}},
        {{.who = "uid:1", .role = "viewer"},
         {.who = "subject:b", .role = "service-owner", .source = "s", .owned = teams, .n_owned = 2}},
        {{.who = "uid:1", .role = "viewer"},
         {.who = "subject:a", .role = "service-owner", .source = "t", .owned = teams, .n_owned = 2}},
        {{.who = "uid:1", .role = "viewer"},
         {.who = "subject:a", .role = "service-owner", .owned = teams, .n_owned = 2}},
        {{.who = "uid:1", .role = "viewer"},
         {.who = "subject:a", .role = "service-owner", .source = "s", .owned = team_b, .n_owned = 2}},
        {{.who = "uid:1", .role = "viewer"},
         {.who = "subject:a", .role = "service-owner", .source = "s", .owned = teams, .n_owned = 1}},
    };
    cb_admin_roles *a = table(base, 2), *b = table(base, 2), *none = table(base, 0), *one = table(base, 1);
    cr_expect(cb_admin_roles_same(a, b) && cb_admin_roles_same(NULL, none) && cb_admin_roles_same(none, NULL));
    cr_expect(!cb_admin_roles_same(a, one) && !cb_admin_roles_same(NULL, a) && !cb_admin_roles_same(a, NULL));
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        cb_admin_roles *other = table(others[i], 2);
        cr_expect(!cb_admin_roles_same(a, other), "row %zu", i);
        cb_admin_roles_unref(other);
    }
    cb_admin_roles_unref(a);
    cb_admin_roles_unref(b);
    cb_admin_roles_unref(none);
    cb_admin_roles_unref(one);
}

Test(admin_roles, mistakes) {
    static const char *const none[] = {NULL}, *const empty[] = {""}, *const bad[] = {"\xff"};
    static const struct {
        cb_admin_grant g;
        int rc;
    } rows[] = {
        {{.who = NULL, .role = "viewer"}, CB_EINVAL},
        {{.who = "uid:1", .role = NULL}, CB_EINVAL},
        {{.who = "uid:1", .role = "root"}, CB_EINVAL},
        {{.who = "uid:1", .role = "Viewer"}, CB_EINVAL},
        {{.who = "uid:", .role = "viewer"}, CB_EINVAL},
        {{.who = "uid:-1", .role = "viewer"}, CB_EINVAL},
        {{.who = "uid:4294967295", .role = "viewer"}, CB_EINVAL}, /* (uid_t)-1 */
        {{.who = "uid:99999999999", .role = "viewer"}, CB_EINVAL},
        {{.who = "uid:1x", .role = "viewer"}, CB_EINVAL},
        {{.who = "1000", .role = "viewer"}, CB_EINVAL},
        {{.who = "*", .role = "viewer"}, CB_EINVAL},
        {{.who = "spiffe:x", .role = "viewer"}, CB_EINVAL},
        {{.who = "user:no-such-user-here", .role = "viewer"}, CB_ENOENT},
        {{.who = "group:no-such-group-here", .role = "viewer"}, CB_ENOENT},
        {{.who = "uid:1", .role = "service-owner"}, CB_EINVAL},
        {{.who = "uid:1", .role = "viewer", .owned = teams, .n_owned = 1}, CB_EINVAL},
        {{.who = "uid:1", .role = "service-owner", .owned = none, .n_owned = 1}, CB_EINVAL},
        {{.who = "uid:1", .role = "service-owner", .owned = empty, .n_owned = 1}, CB_EINVAL},
        {{.who = "uid:1", .role = "service-owner", .owned = bad, .n_owned = 1}, CB_EINVAL},
        {{.who = "uid:1", .role = "service-owner", .owned = NULL, .n_owned = 1}, CB_EINVAL},
        {{.who = "uid:1", .role = "tenant-admin"}, CB_EINVAL},
        {{.who = "uid:1", .role = "tenant-admin", .tenant = ""}, CB_EINVAL},
        {{.who = "uid:1", .role = "viewer", .tenant = "acme"}, CB_EINVAL},
        {{.who = "gid:1", .role = "viewer", .source = "staff"}, CB_EINVAL},
    };
    cb_admin_roles *r = NULL;
    cr_assert_eq(cb_admin_roles_new(&r), CB_OK);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cb_admin_grant g = rows[i].g;
        g.size = sizeof g;
        cr_expect_eq(cb_admin_roles_add(r, &g), rows[i].rc, "row %zu: %s", i, cb_last_error());
    }
    const cb_admin_grant good = {.size = sizeof good, .who = "uid:1", .role = "viewer"};
    for (int i = 0; i < 4096; i++)
        cr_assert_eq(cb_admin_roles_add(r, &good), CB_OK);
    cr_expect_eq(cb_admin_roles_add(r, &good), CB_ELIMIT);
    cb_admin_roles_unref(r);
    cr_assert_eq(cb_admin_roles_new(&r), CB_OK);
    cb_admin_roles_seal(r);
    cr_expect_eq(cb_admin_roles_add(r, &good), CB_EINVAL, "in use");
    cb_admin_roles_unref(r);
}
