#include "http/route.h"
#include <criterion/criterion.h>
#include <string.h>

static cb_slice text(const char *s) {
    return cb_slice_str(s);
}

static void group(cb_router *r, const char *name) {
    cr_assert_eq(cb_router_group(r, CB_OPTS(cb_origin_group_opts, .name = name)), CB_OK, "%s", cb_last_error());
}

static void route(cb_router *r, const char *host, const char *path, const char *name) {
    cr_assert_eq(cb_router_route(r, CB_OPTS(cb_route_opts, .host = host, .path = path, .group = name)), CB_OK, "%s",
                 cb_last_error());
}

Test(route, hosts_and_prefixes) {
    static const struct {
        const char *authority, *path, *group;
        int miss;
    } rows[] = {
        {"www.example.org", "/", "web", 0},
        {"WWW.Example.ORG:8443", "/x?y", "web", 0},
        {"www.example.org.", "/", "web", 0},
        {"www.example.org", "/api", "api", 0},
        {"www.example.org", "/api/", "api", 0},
        {"www.example.org", "/api/v2", "v2", 0},
        {"www.example.org", "/api/v2?x=/api/v3", "v2", 0},
        {"www.example.org", "/api/v22", "api", 0},
        {"www.example.org", "/apix", "web", 0},
        {"www.example.org", "/API", "web", 0},
        {"www.example.org", "/x/../api", "api", 0},
        {"www.example.org", "/x/%2e%2E/api", "api", 0},
        {"www.example.org", "/%61pi", "api", 0},
        {"www.example.org", "/api/..", "web", 0},
        {"www.example.org", "/api/./v2", "v2", 0},
        {"www.example.org", "/api%2fv2", "web", 0},
        {"www.example.org", "/../api", NULL, CB_ROUTE_BAD_PATH},
        {"www.example.org", "/a/../../api", NULL, CB_ROUTE_BAD_PATH},
        {"www.example.org", "*", "web", 0},
        {"www.example.org", "", "web", 0},
        {"only.example.org", "/api", "api", 0},
        {"only.example.org", "/", NULL, CB_ROUTE_NO_PATH},
        {"only.example.org", "/dir/", "v2", 0},
        {"only.example.org", "/dir/a", "v2", 0},
        {"only.example.org", "/dir", NULL, CB_ROUTE_NO_PATH},
        {"a.wild.org", "/", "web", 0},
        {"a.b.wild.org", "/", "web", 0},
        {"a.b.deep.wild.org", "/", "api", 0},
        {"deep.wild.org", "/", "web", 0},
        {"wild.org", "/", NULL, CB_ROUTE_NO_HOST},
        {"xwild.org", "/", NULL, CB_ROUTE_NO_HOST},
        {"[2001:db8::1]:443", "/", "web", 0},
        {"[2001:db8::1]", "/", "web", 0},
        {"[2001:db8::1", "/", NULL, CB_ROUTE_NO_HOST},
        {"", "/", NULL, CB_ROUTE_NO_HOST},
    };
    cb_router *r = NULL;
    cr_assert_eq(cb_router_new(&r), CB_OK);
    group(r, "web");
    group(r, "api");
    group(r, "v2");
    route(r, "www.example.org", NULL, "web");
    route(r, "www.example.org", "/api/v2", "v2");
    route(r, "www.example.org", "/api", "api");
    route(r, "only.example.org", "/api", "api");
    route(r, "only.example.org", "/dir/", "v2");
    route(r, "*.wild.org", "/", "web");
    route(r, "*.deep.wild.org", "/", "api");
    route(r, "[2001:db8::1]", "/", "web");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        int miss = 0;
        const cb_route *route = cb_router_find(r, text(rows[i].authority), text(rows[i].path), &miss);
        const cb_router_group_def *g = route ? route->group : NULL;
        cr_expect_str_eq(g ? g->opts.name : "none", rows[i].group ? rows[i].group : "none", "%s%s: %s",
                         rows[i].authority, rows[i].path, g ? g->opts.name : "none");
        if (!g) cr_expect_eq(miss, rows[i].miss, "%s%s: %d", rows[i].authority, rows[i].path, miss);
    }
    int miss = 0;
    route(r, NULL, "/", "v2");
    const cb_route *g = cb_router_find(r, text("other"), text("/a"), &miss);
    cr_assert_not_null(g);
    cr_expect_str_eq(g->group->opts.name, "v2");
    cr_expect_eq(cb_router_ref(r), r);
    cb_router_unref(r);
    cb_router_unref(r);
}

Test(route, what_is_refused) {
    cb_router *r = NULL;
    cr_assert_eq(cb_router_new(&r), CB_OK);
    group(r, "web");
    cr_expect_eq(cb_router_group(r, CB_OPTS(cb_origin_group_opts, .name = "web")), CB_EEXIST);
    cr_expect_eq(cb_router_group(r, CB_OPTS(cb_origin_group_opts, .name = NULL)), CB_EINVAL);
    cr_expect_eq(cb_router_group(r, CB_OPTS(cb_origin_group_opts, .name = "a b")), CB_EINVAL);
    cr_expect_eq(cb_router_group(r, CB_OPTS(cb_origin_group_opts, .name = "a", .policy = 9)), CB_EINVAL);
    cr_expect_eq(cb_router_group(r, CB_OPTS(cb_origin_group_opts, .name = "a", .versions = 8)), CB_EINVAL);
    cr_expect_eq(cb_router_group(r, CB_OPTS(cb_origin_group_opts, .name = "a", .send_proxy = 3)), CB_EINVAL);
    cr_expect_eq(cb_router_group(r, CB_OPTS(cb_origin_group_opts, .name = "a", .host = "u@h")), CB_EINVAL);
    cr_expect_eq(cb_router_origin(r, "api", CB_OPTS(cb_origin_opts, .url = "http://a")), CB_ENOENT);
    static const char *const urls[] = {NULL,          "",       "a", "ftp://a", "http://a/b", "http://a:99999",
                                       "http://[::1", "http://"};
    for (size_t i = 0; i < sizeof urls / sizeof *urls; i++)
        cr_expect_eq(cb_router_origin(r, "web", CB_OPTS(cb_origin_opts, .url = urls[i])), CB_EINVAL, "%s",
                     urls[i] ? urls[i] : "NULL");
    cr_expect_eq(cb_router_origin(r, "web", CB_OPTS(cb_origin_opts, .url = "http://a", .weight = 1001)), CB_EINVAL);
    static const struct {
        const char *url, *host;
        int port;
        bool tls;
    } good[] = {{"http://a", "a", 80, false},
                {"https://b.example", "b.example", 443, true},
                {"http://[::1]:8080", "::1", 8080, false},
                {"https://[2001:db8::2]", "2001:db8::2", 443, true},
                {"http://127.0.0.1:1", "127.0.0.1", 1, false}};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        cr_assert_eq(cb_router_origin(r, "web", CB_OPTS(cb_origin_opts, .url = good[i].url)), CB_OK, "%s",
                     cb_last_error());
        const cb_router_origin_def *d = &r->groups[0]->origins[i];
        cr_expect_str_eq(d->host, good[i].host);
        cr_expect_eq(d->port, good[i].port);
        cr_expect_eq(d->tls, good[i].tls);
        cr_expect_eq(d->weight, 1);
    }
    route(r, "h", "/a", "web");
    cr_expect_eq(cb_router_route(r, CB_OPTS(cb_route_opts, .host = "H", .path = "/a", .group = "web")), CB_EEXIST);
    cr_expect_eq(cb_router_route(r, CB_OPTS(cb_route_opts, .host = "h", .path = "/%61", .group = "web")), CB_EEXIST);
    cr_expect_eq(cb_router_route(r, CB_OPTS(cb_route_opts, .group = "nope")), CB_ENOENT);
    cr_expect_eq(cb_router_route(r, CB_OPTS(cb_route_opts, .host = "a:80", .group = "web")), CB_EINVAL);
    cr_expect_eq(cb_router_route(r, CB_OPTS(cb_route_opts, .path = "a", .group = "web")), CB_EINVAL);
    cr_expect_eq(cb_router_trust(r, "10.0.0.0/33"), CB_EINVAL);
    cr_expect_eq(cb_router_trust(r, "10.0.0.0/8"), CB_OK);
    cb_router_unref(r);
    cb_router_unref(NULL);
}

Test(route, normal_paths) {
    static const struct {
        const char *path, *normal;
    } rows[] = {
        {"/", "/"},          {"/a/b", "/a/b"},    {"/a/./b", "/a/b"},     {"/a/../b", "/b"},       {"/a/b/..", "/a/"},
        {"/a/b/.", "/a/b/"}, {"/a//b", "/a//b"},  {"/%7Euser", "/~user"}, {"/%2F", "/%2F"},        {"/%zz", "/%zz"},
        {"/%", "/%"},        {"/a?b/../c", "/a"}, {"/...", "/..."},       {"/.a", "/.a"},          {"/a/.%2e/b", "/b"},
        {"/..", NULL},       {"/a/../..", NULL},  {"/a/..//../b", "/b"},  {"/%25%32%65", "/%252e"}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char out[64];
        int64_t n = cb_path_normal(out, sizeof out - 1, text(rows[i].path));
        if (n >= 0) out[n] = '\0';
        cr_expect_eq(n >= 0, rows[i].normal != NULL, "%s: %d", rows[i].path, (int)n);
        if (n >= 0 && rows[i].normal) cr_expect_str_eq(out, rows[i].normal, "%s: %s", rows[i].path, out);
    }
    char small[3];
    cr_expect_eq(cb_path_normal(small, sizeof small, text("/abc")), -1);
}

static int look(cb_authn_call *call, cb_slice token, void *user) {
    (void)call, (void)token, (void)user;
    return CB_EAUTH;
}

/* What some origin would take for another path than we do must not lead past a guard. */
Test(route, paths_that_can_be_read_in_two_ways) {
    static const cb_authn_token_ops ops = {.size = sizeof ops, .look = look};
    static const struct {
        const char *path;
        int found; /* 'o'pen, 'g'uarded, 'a'mbiguous */
    } rows[] = {{"/open/x", 'o'},
                {"/secret", 'g'},
                {"/secret/x", 'g'},
                {"/open/../secret", 'g'},
                {"/open/..%2fsecret", 'a'},
                {"/open/..%2Fsecret", 'a'},
                {"/open/..%5csecret", 'a'},
                {"/open/..\\secret", 'a'},
                {"//secret", 'a'},
                {"/open//../../secret", 'a'},
                {"/;x/secret", 'a'},
                {"/open;/../secret", 'g'},
                {"/open/..;/secret", 'a'},
                {"/open/..;x=1/secret", 'a'},
                {"/%73ecret", 'g'},
                {"/open/%252e%252e/secret", 'a'},
                {"/open/a%2fb", 'o'},
                {"/open//a", 'o'},
                {"/open/a;b=c", 'o'},
                {"/secret/a%2fb", 'g'},
                {"/secret%2fx", 'a'},
                {"/secret/..%2fopen", 'a'},
                {"/open/%3f/../secret", 'o'},
                {"/open//../secret", 'a'},
                {"/open/..%2f..%2f..%2fx", 'a'},
                {"/open/x?y=//..%2fsecret", 'o'}};
    cb_router *r = NULL;
    cb_authn_source *source = NULL;
    cb_authn *gate = NULL;
    cr_assert_eq(cb_authn_source_token(&source, CB_OPTS(cb_authn_token_opts, .name = "k", .ops = &ops)), CB_OK);
    cr_assert_eq(cb_authn_new(&gate, CB_OPTS(cb_authn_opts, .sources = &source, .n_sources = 1)), CB_OK);
    const cb_route_auth auth = {.size = sizeof auth, .authn = gate};
    cr_assert_eq(cb_router_new(&r), CB_OK);
    cr_assert_eq(cb_router_group(r, CB_OPTS(cb_origin_group_opts, .name = "g")), CB_OK);
    cr_assert_eq(cb_router_route(r, CB_OPTS(cb_route_opts, .group = "g")), CB_OK);
    cr_assert_eq(cb_router_route(r, CB_OPTS(cb_route_opts, .group = "g", .path = "/secret", .auth = &auth)), CB_OK);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        int miss = 0;
        const cb_route *route = cb_router_find(r, text("host"), text(rows[i].path), &miss);
        int found = route ? route->guard ? 'g' : 'o' : miss == CB_ROUTE_AMBIGUOUS ? 'a' : '?';
        cr_expect_eq(found, rows[i].found, "%s: %c", rows[i].path, found);
    }
    cb_router_unref(r);
    cb_authn_unref(gate);
    cb_authn_source_unref(source);
}

Test(route, tenants_and_names) {
    static const struct {
        const char *path, *name, *tenant;
    } rows[] = {
        {"/", "www.example.org/", "acme"}, {"/own/x", "www.example.org/own", "other"}, {"/none", "*/none", NULL}};
    char big[CB_ROUTE_TENANT_MAX + 2] = "";
    cb_router *r = NULL;
    int miss = 0;
    memset(big, 'x', sizeof big - 1);
    cr_assert_eq(cb_router_new(&r), CB_OK);
    cr_assert_eq(cb_router_group(r, CB_OPTS(cb_origin_group_opts, .name = "web", .tenant = "acme", .owner = "team")),
                 CB_OK);
    cr_expect_eq(cb_router_group(r, CB_OPTS(cb_origin_group_opts, .name = "a", .tenant = "")), CB_EINVAL);
    cr_expect_eq(cb_router_group(r, CB_OPTS(cb_origin_group_opts, .name = "a", .owner = big)), CB_EINVAL);
    group(r, "free");
    route(r, "www.example.org", "/", "web");
    cr_assert_eq(cb_router_route(r, CB_OPTS(cb_route_opts, .host = "www.example.org", .path = "/own", .group = "web",
                                            .tenant = "other")),
                 CB_OK);
    cr_expect_eq(cb_router_route(r, CB_OPTS(cb_route_opts, .path = "/big", .group = "web", .tenant = big)), CB_EINVAL);
    big[CB_ROUTE_TENANT_MAX] = '\0';
    cr_expect_eq(cb_router_route(r, CB_OPTS(cb_route_opts, .path = "/big", .group = "web", .tenant = big)), CB_OK);
    route(r, NULL, "/none", "free");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const cb_route *got =
            cb_router_find(r, text(i == 2 ? "elsewhere.org" : "www.example.org"), text(rows[i].path), &miss);
        cr_assert_not_null(got);
        cr_expect_str_eq(got->name, rows[i].name);
        cr_expect(rows[i].tenant ? got->tenant && !strcmp(got->tenant, rows[i].tenant) : !got->tenant, "%s",
                  rows[i].path);
        cr_expect_lt(got->index, 4);
    }
    cr_expect_str_eq(r->groups[0]->opts.owner, "team");
    cb_router_unref(r);
}
