/* Policies: what each condition takes, that denials win, that nothing is allowed by chance, that the table decides as a
 * naive reading of the same rules does, and what is said of bad documents. */
#include <cb.h>
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static cb_policy *policy_of(const char *rules) {
    cb_policy *p = NULL;
    char text[8192];
    snprintf(text, sizeof text, "{\"rules\": [%s]}", rules);
    cr_assert_eq(cb_policy_parse(&p, cb_slice_str(text), "test", NULL, NULL), CB_OK, "%s", cb_last_error());
    return p;
}

/* One rule that allows, with these further members. */
static cb_policy *allowing(const char *members) {
    char text[4096];
    snprintf(text, sizeof text, "{\"name\": \"r\", \"effect\": \"allow\", \"tenants\": [\"*\"]%s%s}",
             *members ? ", " : "", members);
    return policy_of(text);
}

static cb_policy_request request_of(const char *tenant) {
    return (cb_policy_request){.size = sizeof(cb_policy_request), .tenant = cb_slice_str(tenant)};
}

static void expect(const cb_policy *p, const cb_policy_request *r, int allowed, const char *what) {
    cb_policy_decision d = {.size = sizeof d}, e = {.size = sizeof e};
    cr_expect_eq(cb_policy_decide(p, r, &d), allowed ? CB_OK : CB_EAUTH, "%s", what);
    cr_expect_eq(d.allowed, allowed, "%s", what);
    cb_policy_explain(p, r, &e, NULL, NULL);
    cr_expect(e.allowed == d.allowed && e.reason == d.reason && e.index == d.index && e.rule == d.rule, "%s", what);
}

Test(policy, default_deny_and_denials_win) {
    cb_policy_decision d = {.size = sizeof d};
    cb_policy *p = policy_of(""), *q = policy_of("{\"name\": \"yes\", \"effect\": \"allow\", \"tenants\": [\"acme\"]},"
                                                 "{\"name\": \"no\", \"effect\": \"deny\", \"tenants\": [\"*\"],"
                                                 " \"methods\": [\"DELETE\"]}");
    cb_policy_request r = request_of("acme");
    r.method = cb_slice_str("GET");
    cr_expect_eq(cb_policy_decide(p, &r, &d), CB_EAUTH);
    cr_expect_eq(d.reason, CB_POLICY_NO_RULE);
    cr_expect_null(d.rule);
    cr_expect_eq(cb_policy_decide(q, &r, &d), CB_OK);
    cr_expect_str_eq(d.rule, "yes");
    cr_expect_eq(d.index, 0);
    r.method = cb_slice_str("DELETE");
    cr_expect_eq(cb_policy_decide(q, &r, &d), CB_EAUTH);
    cr_expect_str_eq(d.rule, "no");
    cr_expect_eq(d.index, 1);
    cr_expect_eq(d.reason, CB_POLICY_RULE);
    r.method = cb_slice_str("GET");
    r.tenant = cb_slice_str("other");
    cr_expect_eq(cb_policy_decide(q, &r, &d), CB_EAUTH);
    cr_expect_eq(d.reason, CB_POLICY_NO_RULE);
    r.tenant = (cb_slice){NULL, 0};
    cr_expect_eq(cb_policy_decide(q, &r, &d), CB_EAUTH, "a tenant is never assumed");
    cr_expect_eq(d.reason, CB_POLICY_NO_TENANT);
    cr_expect_eq(cb_policy_decide(NULL, &r, &d), CB_EINVAL);
    cr_expect_eq(cb_policy_decide(q, NULL, &d), CB_EINVAL);
    cr_expect_eq(cb_policy_decide(q, &r, NULL), CB_EAUTH);
    cr_expect_eq(cb_policy_len(q), 2);
    cb_policy_unref(p);
    cb_policy_unref(cb_policy_ref(q));
    cb_policy_unref(q);
    cb_policy_unref(NULL);
}

Test(policy, paths) {
    static const struct {
        const char *pattern, *path;
        int allowed; /* -1: unclear */
    } rows[] = {{"/v1", "/v1", 1},
                {"/v1", "/v1/", 1},
                {"/v1/", "/v1", 1},
                {"/v1", "/v1?x=/..", 1},
                {"/v1", "/v1#x", 1},
                {"/v1", "/v1x", 0},
                {"/v1", "/v1/x", 0},
                {"/v1", "/V1", 0},
                {"/", "/", 1},
                {"/", "//", 1},
                {"/", "/a", 0},
                {"/**", "/", 1},
                {"/**", "/a/b", 1},
                {"/v1/**", "/v1", 1},
                {"/v1/**", "/v1/a/b", 1},
                {"/v1/**", "//v1///a", 1},
                {"/v1/**", "/v10", 0},
                {"/v1/**", "/%761/a", 1},
                {"/v1/*/name", "/v1/ada/name", 1},
                {"/v1/*/name", "/v1/ada/bob/name", 0},
                {"/v1/*/name", "/v1/name", 0},
                {"/v1/*/name", "/v1//name", 0},
                {"/v1/*/name/**", "/v1/ada/name", 1},
                {"/v1/*/name/**", "/v1/ada/name/x/y", 1},
                {"/v1/*/name/**", "/v1/ada/namex", 0},
                {"/*", "/a", 1},
                {"/*", "/", 0},
                {"/*", "/a/b", 0},
                {"/caf%C3%A9", "/caf\xc3\xa9", 1},
                {"/a/b", "/a/%2a", 0},
                {"/a/*", "/a/%2a", 1},
                {"/a/**", "/a/../b", -1},
                {"/a/**", "/a/%2e%2e/b", -1},
                {"/a/**", "/a/.", -1},
                {"/a/**", "/a/%2E", -1},
                {"/a/**", "/a/..", -1},
                {"/a/**", "/a/...", 1},
                {"/a/**", "/a%2fb", -1},
                {"/a/**", "/a/b%5Cc", -1},
                {"/a/**", "/a/b\\c", -1},
                {"/a/**", "/a/%00", -1},
                {"/a/**", "/a/b;c=d", -1},
                {"/a/**", "/a/b%3Bc", 1},
                {"/a/**", "/a/%", -1},
                {"/a/**", "/a/%4", -1},
                {"/a/**", "/a/%zz", -1},
                {"/a/**", "a/b", -1},
                {"/a/**", "/a/\x01", -1},
                {"/**", "*", 0},
                {"/**", "", 0}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char members[256];
        cb_policy_decision d = {.size = sizeof d};
        snprintf(members, sizeof members, "\"paths\": [\"%s\"]", rows[i].pattern);
        cb_policy *p = allowing(members);
        cb_policy_request r = request_of("t");
        r.path = cb_slice_str(rows[i].path);
        expect(p, &r, rows[i].allowed == 1, rows[i].path);
        cb_policy_decide(p, &r, &d);
        cr_expect_eq(d.reason == CB_POLICY_PATH, rows[i].allowed < 0, "%s of %s", rows[i].path, rows[i].pattern);
        cb_policy_unref(p);
    }
}

Test(policy, a_path_longer_than_any) {
    char *path = malloc(6001);
    cb_policy *p = allowing("\"paths\": [\"/**\"]");
    cb_policy_request r = request_of("t");
    memset(path, 'a', 6000);
    path[0] = '/';
    r.path = (cb_slice){(const uint8_t *)path, 6000};
    expect(p, &r, 0, "long");
    r.path.len = 4096;
    expect(p, &r, 1, "at the limit");
    cb_policy_unref(p);
    free(path);
}

Test(policy, targets) {
    static const struct {
        const char *pattern, *host;
        int port, allowed;
    } rows[] = {{"db.example.org:5432", "db.example.org", 5432, 1},
                {"db.example.org:5432", "DB.Example.ORG.", 5432, 1},
                {"DB.example.org:5432", "db.example.org", 5432, 1},
                {"db.example.org:5432", "db.example.org", 5433, 0},
                {"db.example.org:8000-8099", "db.example.org", 8099, 1},
                {"db.example.org:8000-8099", "db.example.org", 8100, 0},
                {"db.example.org:*", "db.example.org", 1, 1},
                {"*.example.org:443", "a.b.example.org", 443, 1},
                {"*.example.org:443", "example.org", 443, 0},
                {"*.example.org:443", "badexample.org", 443, 0},
                {"*.example.org:443", ".example.org", 443, 0},
                {"10.0.0.0/8:22", "10.1.2.3", 22, 1},
                {"10.0.0.0/8:22", "11.1.2.3", 22, 0},
                {"10.0.0.1:22", "10.0.0.1", 22, 1},
                {"[2001:db8::/32]:22", "2001:db8::1", 22, 1},
                {"[2001:db8::1]:22", "2001:DB8:0::1", 22, 1},
                {"[2001:db8::/32]:22", "2001:db9::1", 22, 0},
                {"10.0.0.0/8:22", "::ffff:10.1.2.3", 22, 1},
                {"*:443", "anything", 443, 1},
                {"*:443", "192.0.2.1", 443, 1},
                {"*:*", "127.1", 80, 0},
                {"*:*", "2130706433", 80, 0},
                {"*:*", "0x7f000001", 80, 0},
                {"*:*", "a.0x7f", 80, 0},
                {"*:*", "1.2.3.4.5", 80, 0},
                {"*:*", "fe80::1%1", 80, 0},
                {"*:*", "a b", 80, 0},
                {"*:*", "a..b", 80, 0},
                {"*:*", "a", 0, 0},
                {"*:*", "a", 65536, 0},
                {"*:*", "a", -1, 0},
                {"*:*", "", 80, 0}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char members[256];
        snprintf(members, sizeof members, "\"targets\": [\"%s\"]", rows[i].pattern);
        cb_policy *p = allowing(members);
        cb_policy_request r = request_of("t");
        r.target_host = cb_slice_str(rows[i].host);
        r.target_port = rows[i].port;
        expect(p, &r, rows[i].allowed, rows[i].host);
        cb_policy_unref(p);
    }
}

Test(policy, spiffe_ids) {
    static const struct {
        const char *pattern, *id;
        int allowed;
    } rows[] = {{"spiffe://a.example/web", "spiffe://a.example/web", 1},
                {"spiffe://a.example/web", "spiffe://b.example/web", 0},
                {"spiffe://a.example/web", "spiffe://a.example/web/x", 0},
                {"spiffe://a.example/**", "spiffe://a.example/web/x", 1},
                {"spiffe://a.example/", "spiffe://a.example/web/x", 1},
                {"spiffe://a.example/ns/", "spiffe://a.example/ns/x", 1},
                {"spiffe://a.example/ns/", "spiffe://a.example/nsx", 0},
                {"spiffe://a.example/**", "spiffe://a.example.evil/web", 0},
                {"spiffe://a.example/ns/*/web", "spiffe://a.example/ns/prod/web", 1},
                {"spiffe://a.example/ns/*/web", "spiffe://a.example/ns/a/b/web", 0},
                {"spiffe://a.example/ns/*/**", "spiffe://a.example/ns/a/b/web", 1},
                {"spiffe://a.example/**", "", 0}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char members[256];
        snprintf(members, sizeof members, "\"spiffe\": [\"%s\"]", rows[i].pattern);
        cb_policy *p = allowing(members);
        cb_policy_request r = request_of("t");
        r.spiffe_id = cb_slice_str(rows[i].id);
        expect(p, &r, rows[i].allowed, rows[i].id);
        cb_policy_unref(p);
    }
}

static int64_t at(const char *utc) {
    struct tm tm = {0};
    cr_assert_not_null(strptime(utc, "%Y-%m-%d %H:%M:%S", &tm), "%s", utc);
    return (int64_t)timegm(&tm);
}

Test(policy, times) {
    static const struct {
        const char *members, *utc;
        int allowed;
    } rows[] = {
        {"\"times\": [{\"from\": \"08:00\", \"to\": \"18:00\"}]", "2026-11-25 08:00:00", 1},
        {"\"times\": [{\"from\": \"08:00\", \"to\": \"18:00\"}]", "2026-11-25 17:59:59", 1},
        {"\"times\": [{\"from\": \"08:00\", \"to\": \"18:00\"}]", "2026-11-25 18:00:00", 0},
        {"\"times\": [{\"from\": \"08:00\", \"to\": \"18:00\"}]", "2026-11-25 07:59:59", 0},
        {"\"times\": [{\"from\": \"08:00\", \"offset\": \"+02:00\"}]", "2026-11-25 06:00:00", 1},
        {"\"times\": [{\"to\": \"08:00\", \"offset\": \"-05:30\"}]", "2026-11-25 13:29:59", 1},
        {"\"times\": [{\"to\": \"08:00\", \"offset\": \"-05:30\"}]", "2026-11-25 13:30:00", 0},
        {"\"times\": [{\"days\": [\"wed\"]}]", "2026-11-25 00:00:00", 1},
        {"\"times\": [{\"days\": [\"wed\"]}]", "2026-11-26 00:00:00", 0},
        {"\"times\": [{\"days\": [\"mon\", \"sun\"]}]", "2026-11-29 12:00:00", 1},
        {"\"times\": [{\"days\": [\"wed\"], \"from\": \"22:00\", \"to\": \"06:00\"}]", "2026-11-26 05:59:59", 1},
        {"\"times\": [{\"days\": [\"wed\"], \"from\": \"22:00\", \"to\": \"06:00\"}]", "2026-11-25 05:59:59", 0},
        {"\"times\": [{\"days\": [\"wed\"], \"from\": \"22:00\", \"to\": \"06:00\"}]", "2026-11-25 22:00:00", 1},
        {"\"times\": [{\"days\": [\"mon\"]}, {\"days\": [\"wed\"]}]", "2026-11-25 22:00:00", 1},
        {"\"not_before\": \"2026-11-25\"", "2026-11-25 00:00:00", 1},
        {"\"not_before\": \"2026-11-25\"", "2026-11-24 23:59:59", 0},
        {"\"not_after\": \"2026-11-25T10:00:00+01:00\"", "2026-11-25 08:59:59", 1},
        {"\"not_after\": \"2026-11-25T10:00:00+01:00\"", "2026-11-25 09:00:00", 0},
        {"\"not_before\": \"2024-02-29\", \"not_after\": \"2024-03-01\"", "2024-02-29 12:00:00", 1},
        {"\"not_before\": \"2024-02-29\", \"not_after\": \"2024-03-01\"", "2024-03-01 00:00:00", 0},
        {"\"not_after\": \"2100-03-01\"", "2100-02-28 23:59:59", 1},
        {"\"not_after\": \"2100-03-01\"", "2100-03-01 00:00:00", 0}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cb_policy *p = allowing(rows[i].members);
        cb_policy_request r = request_of("t");
        r.now_s = at(rows[i].utc);
        expect(p, &r, rows[i].allowed, rows[i].members);
        r.now_s = 0;
        expect(p, &r, 0, "an unknown time allows nothing");
        cb_policy_unref(p);
    }
}

Test(policy, what_is_unknown_does_not_help) {
    static const char *const members[] = {"\"sources\": [\"10.0.0.0/8\"]", "\"times\": [{\"days\": [\"mon\"]}]",
                                          "\"not_after\": \"2030-01-01\""};
    for (size_t i = 0; i < sizeof members / sizeof *members; i++) {
        char rules[512];
        snprintf(rules, sizeof rules,
                 "{\"name\": \"all\", \"effect\": \"allow\", \"tenants\": [\"*\"]},"
                 "{\"name\": \"not\", \"effect\": \"deny\", \"tenants\": [\"*\"], %s}",
                 members[i]);
        cb_policy *p = policy_of(rules);
        cb_policy_request r = request_of("t");
        expect(p, &r, 0, members[i]);
        r.now_s = at("2031-01-01 00:00:00"); /* a Wednesday */
        r.source = (cb_slice){(const uint8_t *)"\xc0\x00\x02\x01", 4};
        expect(p, &r, 1, members[i]);
        cb_policy_unref(p);
    }
}

Test(policy, sources) {
    static const uint8_t v4[] = {10, 1, 2, 3}, mapped[] = {[10] = 0xff, 0xff, 10, 1, 2, 3},
                         v6[16] = {0x20, 1, 0xd, 0xb8};
    cb_policy *p = allowing("\"sources\": [\"10.0.0.0/8\", \"2001:db8::/32\"]");
    cb_policy_request r = request_of("t");
    r.source = (cb_slice){v4, 4};
    expect(p, &r, 1, "v4");
    r.source = (cb_slice){mapped, 16};
    expect(p, &r, 1, "v4-mapped");
    r.source = (cb_slice){v6, 16};
    expect(p, &r, 1, "v6");
    r.source = (cb_slice){(const uint8_t *)"\x0b\0\0\1", 4};
    expect(p, &r, 0, "another");
    r.source = (cb_slice){v6, 5};
    expect(p, &r, 0, "no address");
    cb_policy_unref(p);
}

Test(policy, texts) {
    const cb_slice roles[] = {cb_slice_str("viewer"), cb_slice_str("operator")};
    cb_policy *p = allowing("\"roles\": [\"operator\"], \"verbs\": [\"*\"], \"mtls\": \"present\"");
    cb_policy_request r = request_of("t");
    r.roles = roles;
    r.roles_len = 2;
    r.mtls = 1;
    r.verb = cb_slice_str("reload");
    expect(p, &r, 1, "all there");
    r.mtls = 0;
    expect(p, &r, 0, "no certificate");
    r.mtls = 1;
    r.verb = (cb_slice){NULL, 0};
    expect(p, &r, 0, "any verb, but none was named");
    r.verb = cb_slice_str("reload");
    r.roles_len = 1;
    expect(p, &r, 0, "the first role only");
    cb_policy_unref(p);
    p = allowing("\"mtls\": \"absent\", \"subjects\": [\"ada\"], \"issuers\": [\"https://i\"]");
    r = request_of("t");
    r.subject = cb_slice_str("ada");
    r.issuer = cb_slice_str("https://i");
    expect(p, &r, 1, "subject");
    r.issuer = cb_slice_str("https://j");
    expect(p, &r, 0, "another issuer's");
    cb_policy_unref(p);
}

/* A token with these roles, and the keys that verify it; both are the caller's. */
static char *sign(const char *roles, cb_jwks **keys) {
    static const uint8_t secret[32] = "0123456789abcdef0123456789abcde";
    const cb_slice s = {secret, sizeof secret};
    const cb_jwt_field claims[] = {{.name = "iss", .text = "https://issuer.example"},
                                   {.name = "sub", .text = "ada"},
                                   {.name = "exp", .number = 2000000000},
                                   {.name = "tid", .text = "acme"},
                                   {.name = "acr", .text = "urn:two"},
                                   {.name = "amr", .json = "[\"pwd\",\"otp\"]"},
                                   {.name = "email_verified", .json = "true"},
                                   {.name = "level", .json = "3"},
                                   {.name = "realm_access", .json = roles}};
    const cb_jwk_opts key = {.size = sizeof key, .secret = s, .alg = CB_JWT_HS256};
    const cb_jwk_opts *all[] = {&key};
    cb_jwt_signer *signer = NULL;
    char *text = NULL;
    cr_assert_eq(cb_jwt_signer_new(&signer, CB_OPTS(cb_jwt_signer_opts, .secret = s, .alg = CB_JWT_HS256)), CB_OK);
    cr_assert_eq(cb_jwt_sign(&text, signer, NULL, 0, claims, sizeof claims / sizeof *claims), CB_OK);
    cr_assert_eq(cb_jwks_new(keys, CB_OPTS(cb_jwks_opts, .keys = all, .keys_len = 1)), CB_OK);
    cb_jwt_signer_unref(signer);
    return text;
}

static const cb_jwt_rules token_rules = {
    .size = sizeof token_rules, .issuer = "https://issuer.example", .any_audience = 1};

static cb_jwt *token_of(const char *roles) {
    cb_jwks *set = NULL;
    cb_jwt *token = NULL;
    char *text = sign(roles, &set);
    cr_assert_eq(
        cb_jwt_verify(&token, cb_slice_str(text), set, &token_rules, CB_OPTS(cb_jwt_facts, .now_s = 1900000000), NULL),
        CB_OK, "%s", cb_last_error());
    cb_jwt_text_free(text);
    cb_jwks_unref(set);
    return token;
}

Test(policy, of_who_a_gate_let_in) {
    cb_jwks *keys = NULL;
    cb_authn_source *source = NULL;
    cb_authn *gate = NULL;
    cb_authn_call *call = NULL;
    char *text = sign("{\"roles\":[\"admin\"]}", &keys), bearer[1024];
    const cb_authn_claims claims = {.size = sizeof claims, .tenant = "tid", .roles = "/realm_access/roles"};
    cb_policy *p =
        policy_of("{\"name\": \"r\", \"effect\": \"allow\", \"tenants\": [\"acme\"], \"roles\": [\"admin\"],"
                  " \"subjects\": [\"ada\"], \"issuers\": [\"https://issuer.example\"], \"amr\": [\"otp\"],"
                  " \"mtls\": \"absent\", \"claims\": [{\"path\": \"level\", \"any\": [\"3\"]}], \"paths\": [\"/a\"]}");
    cb_policy_request r;
    snprintf(bearer, sizeof bearer, "Bearer %s", text);
    const cb_field field = {.name = cb_slice_str("authorization"), .value = cb_slice_str(bearer)};
    cr_assert_eq(cb_authn_source_jwt(&source, CB_OPTS(cb_authn_jwt_opts, .name = "s", .keys = keys,
                                                      .rules = &token_rules, .claims = &claims)),
                 CB_OK, "%s", cb_last_error());
    cr_assert_eq(cb_authn_new(&gate, CB_OPTS(cb_authn_opts, .sources = &source, .n_sources = 1)), CB_OK);
    cr_assert_eq(cb_authn_call_new(&call, NULL), CB_OK);
    cr_assert_eq(cb_policy_request_of(&r, call), CB_OK);
    r.path = cb_slice_str("/a");
    expect(p, &r, 0, "nobody");
    cr_assert_eq(cb_authn_begin(call, gate,
                                CB_OPTS(cb_authn_request, .fields = &field, .n_fields = 1, .now_s = 1900000000), NULL,
                                NULL),
                 CB_OK, "%s", cb_authn_reason(call));
    cr_assert_eq(cb_policy_request_of(&r, call), CB_OK);
    expect(p, &r, 0, "no path");
    r.path = cb_slice_str("/a");
    expect(p, &r, 1, "who was let in");
    cr_expect_eq(cb_policy_request_of(NULL, call), CB_EINVAL);
    cr_expect_eq(cb_policy_request_of(&r, NULL), CB_EINVAL);
    cb_policy_unref(p);
    cb_authn_call_free(call);
    cb_authn_unref(gate);
    cb_authn_source_unref(source);
    cb_jwt_text_free(text);
    cb_jwks_unref(keys);
}

static int told(const char *path, uint32_t *it, cb_slice *value, void *user) {
    ++*(int *)user;
    *value = cb_slice_str(*it ? "urn:two" : "urn:none");
    return strcmp(path, "acr") == 0 && (*it)++ < 2;
}

Test(policy, claims) {
    static const struct {
        const char *members;
        int allowed;
    } rows[] = {
        {"\"claims\": [{\"path\": \"/realm_access/roles\", \"any\": [\"x\", \"admin\"]}]", 1},
        {"\"claims\": [{\"path\": \"/realm_access/roles\", \"any\": [\"x\"]}]", 0},
        {"\"claims\": [{\"path\": \"/realm_access\", \"any\": [\"roles\"]}]", 1},
        {"\"claims\": [{\"path\": \"level\", \"any\": [\"3\"]}]", 1},
        {"\"claims\": [{\"path\": \"email_verified\", \"any\": [\"true\"]}]", 1},
        {"\"claims\": [{\"path\": \"email_verified\", \"any\": [\"false\"]}]", 0},
        {"\"claims\": [{\"path\": \"level\", \"any\": [\"3\"]}, {\"path\": \"gone\", \"any\": [\"3\"]}]", 0},
        {"\"acr\": [\"urn:two\"], \"amr\": [\"hwk\", \"otp\"]", 1},
        {"\"acr\": [\"urn:three\"]", 0},
        {"\"amr\": [\"hwk\"]", 0},
        {"\"subjects\": [\"ada\"], \"issuers\": [\"https://issuer.example\"]", 1},
        {"\"subjects\": [\"bob\"]", 0},
        {"\"claims\": [{\"path\": \"amr\", \"any\": [\"pwd\"]}, {\"path\": \"amr\", \"any\": [\"otp\", \"x\"]}]", 1},
        {"\"amr\": [\"pwd\"], \"claims\": [{\"path\": \"amr\", \"any\": [\"hwk\"]}]", 0}};
    cb_jwt *token = token_of("{\"roles\":[\"user\",\"admin\"]}");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cb_policy *p = allowing(rows[i].members);
        cb_policy_request r = request_of("t");
        expect(p, &r, 0, rows[i].members);
        r.token = token;
        expect(p, &r, rows[i].allowed, rows[i].members);
        cb_policy_unref(p);
    }
    int asked = 0;
    cb_policy *p = allowing("\"acr\": [\"urn:one\", \"urn:two\"]");
    cb_policy_request r = request_of("t");
    r.claim = told;
    r.user = &asked;
    expect(p, &r, 1, "claims from elsewhere");
    cr_expect_gt(asked, 0);
    asked = 0;
    r.token = token;
    expect(p, &r, 1, "a token goes before");
    cr_expect_eq(asked, 0);
    cb_policy_unref(p);
    cb_jwt_unref(token);
}

/* ---- explaining ---- */

static void on_step(const cb_policy_step *s, void *user) {
    cb_policy_step *steps = user;
    steps[s->index] = *s;
}

Test(policy, explains_each_rule) {
    cb_policy_step steps[2] = {{0}};
    cb_policy_decision d = {.size = sizeof d};
    cb_policy *p = policy_of("{\"name\": \"a\", \"effect\": \"allow\", \"tenants\": [\"acme\"], \"methods\": [\"GET\"],"
                             " \"paths\": [\"/a/**\"], \"mtls\": \"present\"},"
                             "{\"name\": \"b\", \"effect\": \"deny\", \"tenants\": [\"*\"], \"paths\": [\"/b\"]}");
    cb_policy_request r = request_of("acme");
    r.method = cb_slice_str("POST");
    r.path = cb_slice_str("/b");
    cr_expect_eq(cb_policy_explain(p, &r, &d, on_step, steps), CB_EAUTH);
    cr_expect_str_eq(d.rule, "b");
    cr_expect_str_eq(steps[0].rule, "a");
    cr_expect_eq(steps[0].allow, 1);
    cr_expect_eq(steps[0].matches, 0);
    cr_expect_eq(steps[0].conditions,
                 1u << CB_POLICY_TENANTS | 1u << CB_POLICY_METHODS | 1u << CB_POLICY_PATHS | 1u << CB_POLICY_MTLS);
    cr_expect_eq(steps[0].failed, 1u << CB_POLICY_METHODS | 1u << CB_POLICY_PATHS | 1u << CB_POLICY_MTLS);
    cr_expect_eq(steps[1].matches, 1);
    cr_expect_eq(steps[1].failed, 0);
    cb_policy_unref(p);
    for (int c = 0; c < CB_POLICY_CONDITIONS; c++)
        cr_expect(*cb_policy_condition_text(c));
    cr_expect_str_eq(cb_policy_condition_text(CB_POLICY_DATES), "dates");
    cr_expect_str_eq(cb_policy_condition_text(99), "");
    cr_expect_str_eq(cb_policy_reason_text(CB_POLICY_NO_TENANT), "no-tenant");
    cr_expect_str_eq(cb_policy_reason_text(0), "");
}

/* ---- bad documents ---- */

typedef struct seen {
    char pointer[256];
    int n;
} seen;

static void on_error(const cb_config_error *e, void *user) {
    seen *s = user;
    if (s->n++ == 0) snprintf(s->pointer, sizeof s->pointer, "%s", e->pointer);
}

Test(policy, bad_documents) {
    static const struct {
        const char *rule, *pointer;
    } rows[] = {
        {"\"effect\": \"allow\", \"tenants\": [\"a\"]", "/rules/0"},
        {"\"name\": \"r\", \"tenants\": [\"a\"]", "/rules/0"},
        {"\"name\": \"r\", \"effect\": \"allow\"", "/rules/0"},
        {"\"name\": \"r\", \"effect\": \"allow\", \"tenants\": []", "/rules/0/tenants"},
        {"\"name\": \"r\", \"effect\": \"maybe\", \"tenants\": [\"a\"]", "/rules/0/effect"},
        {"\"name\": \"r\", \"effect\": \"deny\", \"tenants\": [\"\"]", "/rules/0/tenants/0"},
        {"\"name\": \"r\", \"effect\": \"deny\", \"tenants\": [\"a\"], \"role\": [\"x\"]", "/rules/0/role"},
        {"\"name\": \"r\", \"effect\": \"deny\", \"tenants\": [\"a\"], \"roles\": []", "/rules/0/roles"},
        {"\"name\": \"r\", \"effect\": \"deny\", \"tenants\": [\"a\"], \"paths\": [\"/a\", \"b\"]", "/rules/0/paths/1"},
        {"\"name\": \"r\", \"effect\": \"deny\", \"tenants\": [\"a\"], \"paths\": [\"/a*\"]", "/rules/0/paths/0"},
        {"\"name\": \"r\", \"effect\": \"deny\", \"tenants\": [\"a\"], \"paths\": [\"/**/a\"]", "/rules/0/paths/0"},
        {"\"name\": \"r\", \"effect\": \"deny\", \"tenants\": [\"a\"], \"paths\": [\"/a/../b\"]", "/rules/0/paths/0"},
        {"\"name\": \"r\", \"effect\": \"deny\", \"tenants\": [\"a\"], \"paths\": [\"/%2A\"]", "/rules/0/paths/0"},
        {"\"name\": \"r\", \"effect\": \"deny\", \"tenants\": [\"a\"], \"spiffe\": [\"spiffe://*/a\"]",
         "/rules/0/spiffe/0"},
        {"\"name\": \"r\", \"effect\": \"deny\", \"tenants\": [\"a\"], \"spiffe\": [\"spiffe://a\"]",
         "/rules/0/spiffe/0"},
        {"\"name\": \"r\", \"effect\": \"deny\", \"tenants\": [\"a\"], \"spiffe\": [\"https://a/b\"]",
         "/rules/0/spiffe/0"},
        {"\"name\": \"r\", \"effect\": \"deny\", \"tenants\": [\"a\"], \"targets\": [\"a\"]", "/rules/0/targets/0"},
        {"\"name\": \"r\", \"effect\": \"deny\", \"tenants\": [\"a\"], \"targets\": [\"a:0\"]", "/rules/0/targets/0"},
        {"\"name\": \"r\", \"effect\": \"deny\", \"tenants\": [\"a\"], \"targets\": [\"a:9-8\"]", "/rules/0/targets/0"},
        {"\"name\": \"r\", \"effect\": \"deny\", \"tenants\": [\"a\"], \"targets\": [\"10.0.0.1/8:1\"]",
         "/rules/0/targets/0"},
        {"\"name\": \"r\", \"effect\": \"deny\", \"tenants\": [\"a\"], \"targets\": [\"127.1:1\"]",
         "/rules/0/targets/0"},
        {"\"name\": \"r\", \"effect\": \"deny\", \"tenants\": [\"a\"], \"targets\": [\"[::1:1\"]",
         "/rules/0/targets/0"},
        {"\"name\": \"r\", \"effect\": \"deny\", \"tenants\": [\"a\"], \"sources\": [\"10.0.0.1/8\"]",
         "/rules/0/sources/0"},
        {"\"name\": \"r\", \"effect\": \"deny\", \"tenants\": [\"a\"], \"times\": [{\"from\": \"25:00\"}]",
         "/rules/0/times/0"},
        {"\"name\": \"r\", \"effect\": \"deny\", \"tenants\": [\"a\"], \"times\": [{\"to\": \"00:00\"}]",
         "/rules/0/times/0"},
        {"\"name\": \"r\", \"effect\": \"deny\", \"tenants\": [\"a\"], \"times\": [{\"offset\": \"1\"}]",
         "/rules/0/times/0"},
        {"\"name\": \"r\", \"effect\": \"deny\", \"tenants\": [\"a\"], \"times\": [{\"days\": [\"x\"]}]",
         "/rules/0/times/0/days/0"},
        {"\"name\": \"r\", \"effect\": \"deny\", \"tenants\": [\"a\"], \"not_before\": \"2025-02-29\"",
         "/rules/0/not_before"},
        {"\"name\": \"r\", \"effect\": \"deny\", \"tenants\": [\"a\"], \"not_before\": \"2027-01-01\", "
         "\"not_after\": \"2027-01-01\"",
         "/rules/0/not_after"},
        {"\"name\": \"r\", \"effect\": \"deny\", \"tenants\": [\"a\"], \"claims\": [{\"path\": \"/~2\", "
         "\"any\": [\"x\"]}]",
         "/rules/0/claims/0/path"},
        {"\"name\": \"r\", \"effect\": \"deny\", \"tenants\": [\"a\"]}, {\"name\": \"r\", \"effect\": "
         "\"deny\", \"tenants\": [\"a\"]",
         "/rules/1/name"}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char text[1024];
        cb_policy *p = NULL;
        seen s = {.n = 0};
        snprintf(text, sizeof text, "{\"rules\": [{%s}]}", rows[i].rule);
        cr_expect_eq(cb_policy_parse(&p, cb_slice_str(text), "bad", on_error, &s), CB_EINVAL, "%s", rows[i].rule);
        cr_expect_null(p);
        cr_expect_str_eq(s.pointer, rows[i].pointer, "%s: %s", rows[i].rule, s.pointer);
        cr_expect_not_null(strstr(cb_last_error(), "bad:1:"), "%s", cb_last_error());
    }
    cb_policy *p = NULL;
    cr_expect_eq(cb_policy_parse(&p, cb_slice_str("{}"), NULL, NULL, NULL), CB_EINVAL);
    cr_expect_eq(cb_policy_parse(NULL, cb_slice_str("{}"), NULL, NULL, NULL), CB_EINVAL);
    cr_expect_eq(cb_policy_load(&p, "/nonexistent/policy.json", NULL, NULL), CB_ENOENT);
    cr_expect_eq(cb_policy_load(&p, NULL, NULL, NULL), CB_EINVAL);
    char *schema = NULL;
    cr_expect_eq(cb_policy_schema_json(&schema), CB_OK);
    cr_expect_not_null(strstr(schema, "\"not_after\""));
    cb_config_text_free(schema);
}

/* ---- the table against a naive reading ---- */

enum { MAX_VALUES = 3, VOCABULARY = 5 };

static const char *const words[] = {"t1", "t2", "a", "b", "*"};
static const char *const patterns[] = {"/**", "/a/**", "/a/*/c", "/b", "/a/*"};
static const char *const paths[] = {"/", "/a", "/a/b", "/a/b/c", "/b"};
static const char *const prefixes[] = {"10.0.0.0/8", "10.1.0.0/16", "192.0.2.1", "0.0.0.0/0", "10.1.2.0/24"};
static const uint8_t sources[][4] = {{10, 0, 0, 1}, {10, 1, 2, 3}, {192, 0, 2, 1}, {8, 8, 8, 8}, {10, 1, 3, 1}};

/* How the patterns and prefixes above stand to the paths and sources above, by hand. */
static const uint8_t path_fits[VOCABULARY][VOCABULARY] = {
    {1, 1, 1, 1, 1}, {0, 1, 1, 1, 0}, {0, 0, 0, 1, 0}, {0, 0, 0, 0, 1}, {0, 0, 1, 0, 0}};
static const uint8_t source_fits[VOCABULARY][VOCABULARY] = {
    {1, 1, 0, 0, 1}, {0, 1, 0, 0, 1}, {0, 0, 1, 0, 0}, {1, 1, 1, 1, 1}, {0, 1, 0, 0, 0}};

typedef struct choice {
    int n; /* 0: the rule does not ask */
    int of[MAX_VALUES];
} choice;

typedef struct naive {
    int allow, mtls;
    choice tenants, roles, verbs, methods, paths, sources;
} naive;

static uint64_t seed;

static int dice(int n) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (int)(seed % (uint64_t)n);
}

static choice choose(int required) {
    choice c = {.n = required || dice(3) == 0 ? 1 + dice(MAX_VALUES) : 0};
    for (int i = 0; i < c.n; i++)
        c.of[i] = dice(VOCABULARY);
    return c;
}

static size_t print(char *out, size_t room, const char *member, const choice *c, const char *const *vocabulary) {
    size_t n = 0;
    if (!c->n) return 0;
    n += (size_t)snprintf(out, room, ", \"%s\": [", member);
    for (int i = 0; i < c->n; i++)
        n += (size_t)snprintf(out + n, room - n, "%s\"%s\"", i ? ", " : "", vocabulary[c->of[i]]);
    return n + (size_t)snprintf(out + n, room - n, "]");
}

static int word_fits(const choice *c, int word) {
    for (int i = 0; i < c->n; i++)
        if (word >= 0 && (c->of[i] == VOCABULARY - 1 || c->of[i] == word)) return 1;
    return c->n == 0;
}

static int place_fits(const choice *c, int at_place, const uint8_t fits[VOCABULARY][VOCABULARY]) {
    for (int i = 0; i < c->n; i++)
        if (at_place >= 0 && fits[c->of[i]][at_place]) return 1;
    return c->n == 0;
}

static cb_slice word_slice(int word) {
    return word < 0 ? (cb_slice){NULL, 0} : cb_slice_str(words[word]);
}

/* -1: not there. "*" is never the text of a request here. */
static int maybe(int n) {
    return dice(5) == 0 ? -1 : dice(n);
}

static void compare(const cb_policy *p, const naive *rules, int n) {
    const int tenant = dice(4), verb = maybe(4), method = maybe(4), path = maybe(VOCABULARY), mtls = dice(2);
    const int source = dice(VOCABULARY), role[2] = {maybe(4), maybe(4)};
    const cb_slice roles[2] = {word_slice(role[0]), word_slice(role[1])};
    cb_policy_decision d = {.size = sizeof d}, e = {.size = sizeof e};
    cb_policy_request r = request_of(words[tenant]);
    int want = -1;
    r.verb = word_slice(verb);
    r.method = word_slice(method);
    r.roles = roles;
    r.roles_len = 2;
    r.mtls = mtls;
    if (path >= 0) r.path = cb_slice_str(paths[path]);
    r.source = (cb_slice){sources[source], 4};
    for (int i = 0; i < n; i++) {
        const naive *q = &rules[i];
        if (!word_fits(&q->tenants, tenant) || !word_fits(&q->verbs, verb) || !word_fits(&q->methods, method)) continue;
        if (!word_fits(&q->roles, role[0]) && !word_fits(&q->roles, role[1])) continue;
        if (!place_fits(&q->paths, path, path_fits) || !place_fits(&q->sources, source, source_fits)) continue;
        if ((q->mtls == 1 && !mtls) || (q->mtls == 2 && mtls)) continue;
        if (want < 0 || (rules[want].allow && !q->allow)) want = i;
    }
    int rc = cb_policy_decide(p, &r, &d);
    cr_assert_eq(rc, want >= 0 && rules[want].allow ? CB_OK : CB_EAUTH);
    cr_assert_eq(d.reason, want < 0 ? CB_POLICY_NO_RULE : CB_POLICY_RULE);
    if (want >= 0) cr_assert_eq(d.index, (uint32_t)want);
    cr_assert_eq(cb_policy_explain(p, &r, &e, NULL, NULL), rc);
    cr_assert(e.rule == d.rule && e.reason == d.reason);
}

Test(policy, decides_as_a_naive_reading_does) {
    enum { RULES = 150, ROOM = 100000 };
    static const char *const mtls[] = {"any", "present", "absent"};
    naive *rules = calloc(RULES, sizeof *rules);
    char *text = malloc(ROOM);
    seed = 0x9e3779b97f4a7c15ull;
    for (int round = 0; round < 60; round++) {
        const int n = round % 3 == 0 ? RULES : 1 + dice(12);
        cb_policy *p = NULL;
        size_t len = (size_t)snprintf(text, ROOM, "{\"rules\": [");
        for (int i = 0; i < n; i++) {
            naive *q = &rules[i];
            *q = (naive){dice(4) != 0, dice(3), choose(1), choose(0), choose(0), choose(0), choose(0), choose(0)};
            if (q->tenants.n == 1 && n == RULES) q->tenants.of[0] = dice(4);
            len +=
                (size_t)snprintf(text + len, ROOM - len, "%s{\"name\": \"r%d\", \"effect\": \"%s\", \"mtls\": \"%s\"",
                                 i ? ", " : "", i, q->allow ? "allow" : "deny", mtls[q->mtls]);
            len += print(text + len, ROOM - len, "tenants", &q->tenants, words);
            len += print(text + len, ROOM - len, "roles", &q->roles, words);
            len += print(text + len, ROOM - len, "verbs", &q->verbs, words);
            len += print(text + len, ROOM - len, "methods", &q->methods, words);
            len += print(text + len, ROOM - len, "paths", &q->paths, patterns);
            len += print(text + len, ROOM - len, "sources", &q->sources, prefixes);
            len += (size_t)snprintf(text + len, ROOM - len, "}");
        }
        len += (size_t)snprintf(text + len, ROOM - len, "]}");
        cr_assert_eq(cb_policy_parse(&p, (cb_slice){(const uint8_t *)text, len}, "random", NULL, NULL), CB_OK, "%s",
                     cb_last_error());
        for (int i = 0; i < 300; i++)
            compare(p, rules, n);
        cb_policy_unref(p);
    }
    free(text);
    free(rules);
}
