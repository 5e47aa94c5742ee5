/* What a request must be before its resource sees it, and what comes back. */
#include "support/admin_fixture.h"
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static admin_reply r;

/* ---- a small program of its own: things with values, and a state with a tag ---- */

typedef struct thing_body {
    const char *kind;
    int64_t size;
} thing_body;

static const cb_config_rule thing_members[] = {
    {.name = "kind", .kind = CB_CONFIG_TEXT, .required = 1, .offset = offsetof(thing_body, kind), .doc = "Which kind."},
    {.name = "size",
     .kind = CB_CONFIG_INT,
     .min = 1,
     .max = 9,
     .fallback = "1",
     .offset = offsetof(thing_body, size),
     .doc = "How large."},
    {.name = NULL}};
static const cb_config_schema thing_schema = {
    .size = sizeof thing_schema, .title = "A thing", .members = thing_members, .root_size = sizeof(thing_body)};

static int n_calls, version;
static cb_admin_call *later;
static char kept[64];

static int get_thing(cb_admin_call *c, void *user) {
    cb_json_out *o = cb_admin_json(c);
    n_calls++;
    cb_json_put_object(o, NULL);
    cb_json_put_str(o, "user", user);
    cb_json_put_str(o, "name", cb_admin_param(c, "name"));
    cb_json_put_str(o, "colour", cb_admin_query(c, "colour"));
    cb_json_put_str(o, "path", cb_admin_path(c));
    cb_json_put_end(o);
    return cb_admin_send(c, 200);
}

static int put_thing(cb_admin_call *c, void *user) {
    const thing_body *body = cb_admin_document(c);
    char etag[16], text[64];
    (void)user;
    n_calls++;
    snprintf(etag, sizeof etag, "\"%d\"", version);
    if (cb_admin_check_match(c, etag) < 0) return CB_OK;
    if (!cb_admin_dry_run(c)) version++;
    snprintf(etag, sizeof etag, "\"%d\"", version);
    cb_admin_etag(c, etag);
    cb_admin_location(c, "/v1/things/x");
    snprintf(text, sizeof text, "{\"kind\":\"%s\",\"size\":%d,\"version\":%d}", body->kind, (int)body->size, version);
    return cb_admin_send_json(c, 200, cb_slice_str(text));
}

static int get_state(cb_admin_call *c, void *user) {
    char etag[16];
    (void)user;
    snprintf(etag, sizeof etag, "\"%d\"", version);
    if (cb_admin_check_match(c, etag) < 0) return CB_OK;
    return cb_admin_send_json(c, 200, cb_slice_str("{}"));
}

static int list_things(cb_admin_call *c, void *user) {
    const char *cursor = cb_admin_cursor(c);
    int at = cursor ? atoi(cursor) : 0;
    char next[16];
    (void)user;
    cb_admin_page_begin(c);
    for (uint32_t i = 0; i < cb_admin_limit(c) && at < 25; i++)
        cb_json_put_int(cb_admin_json(c), NULL, at++);
    snprintf(next, sizeof next, "%d", at);
    return cb_admin_page_end(c, at < 25 ? next : NULL);
}

static int wait_for_it(cb_admin_call *c, void *user) {
    (void)user;
    n_calls++;
    later = c;
    return CB_OK;
}

static int fails(cb_admin_call *c, void *user) {
    (void)user;
    const char *rc = cb_admin_query(c, "rc");
    return cb_error_set(rc ? atoi(rc) : CB_ESYS, "the detail");
}

static int raw(cb_admin_call *c, void *user) {
    const cb_slice body = cb_admin_body(c), type = cb_admin_content_type(c);
    (void)user;
    snprintf(kept, sizeof kept, "%.*s %zu", (int)type.len, (const char *)type.base, body.len);
    return cb_admin_send_nothing(c);
}

static const cb_admin_query_param colour[] = {{"colour", "Of which colour.", NULL}};
static const cb_admin_query_param rc_param[] = {{"rc", "What fails.", NULL}};

static const cb_admin_resource rows[] = {
    {.method = "GET",
     .path = "/v1/things/{name}",
     .id = "getThing",
     .summary = "A thing",
     .rights = CB_RIGHT_READ,
     .query = colour,
     .n_query = 1,
     .handle = get_thing},
    {.method = "PUT",
     .path = "/v1/things/{name}",
     .id = "putThing",
     .summary = "Puts a thing",
     .rights = CB_RIGHT_CHANGE | CB_RIGHT_CHANGE_OWNED,
     .flags = CB_ADMIN_CHANGES | CB_ADMIN_DRY_RUN,
     .document = &thing_schema,
     .handle = put_thing},
    {.method = "GET",
     .path = "/v1/things",
     .id = "listThings",
     .summary = "Things",
     .rights = CB_RIGHT_READ,
     .flags = CB_ADMIN_PAGES,
     .handle = list_things},
    {.method = "GET",
     .path = "/v1/state",
     .id = "getState",
     .summary = "The state",
     .rights = CB_RIGHT_READ,
     .handle = get_state},
    {.method = "PUT",
     .path = "/v1/state",
     .id = "putState",
     .summary = "Only with If-Match",
     .rights = CB_RIGHT_CHANGE,
     .flags = CB_ADMIN_CHANGES | CB_ADMIN_MATCH,
     .document = &thing_schema,
     .handle = put_thing},
    {.method = "POST",
     .path = "/v1/later",
     .id = "postLater",
     .summary = "Later",
     .rights = CB_RIGHT_OPERATE,
     .flags = CB_ADMIN_CHANGES,
     .handle = wait_for_it},
    {.method = "GET",
     .path = "/v1/fails",
     .id = "getFails",
     .summary = "Fails",
     .rights = CB_RIGHT_READ,
     .query = rc_param,
     .n_query = 1,
     .handle = fails},
    {.method = "PATCH",
     .path = "/v1/raw",
     .id = "patchRaw",
     .summary = "Bytes",
     .rights = CB_RIGHT_CHANGE,
     .flags = CB_ADMIN_CHANGES | CB_ADMIN_RAW | CB_ADMIN_OPTIONAL,
     .consumes = "application/merge-patch+json, application/json-patch+json",
     .handle = raw},
};

static void open_world(admin_world *w, const char *role, const cb_admin_opts *o) {
    admin_open(w, 0, role, o);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cb_admin_resource one = rows[i];
        one.size = sizeof one;
        cr_assert_eq(cb_admin_add(w->a, &one, "me"), CB_OK, "%s", cb_last_error());
    }
    n_calls = 0;
    version = 1;
    later = NULL;
}

/* A problem that says what it is (RFC 9457), and never a resource that was called. */
static void expect_problem(const char *what, int status) {
    char type[256], member[32];
    snprintf(member, sizeof member, "\"status\":%d", status);
    cr_expect_eq(r.status, status, "%s: %d %s", what, r.status, r.body);
    cr_expect_str_eq(admin_field(&r, "content-type", type), "application/problem+json", "%s", what);
    cr_expect(strstr(r.body, member) && strstr(r.body, "\"title\":\"") && strstr(r.body, "\"type\":\"about:blank\""),
              "%s: %s", what, r.body);
}

#define JSON "content-type: application/json"

Test(admin_calls, what_is_refused) {
    static const struct {
        const char *line, *fields, *body;
        int status;
    } cases[] = {
        {"GET /nothing", NULL, NULL, 404},
        {"GET /v1/things/a/b", NULL, NULL, 404},
        {"DELETE /v1/things/a", NULL, NULL, 405},
        {"OPTIONS /v1/things/a", NULL, NULL, 405},
        {"GET /v1/things/a?size=1", NULL, NULL, 400},
        {"GET /v1/things/a?colour=red&colour=red", NULL, NULL, 400},
        {"GET /v1/things/a?colour=red&colou%72=blue", NULL, NULL, 400},
        {"GET /v1/things/..", NULL, NULL, 400},
        {"GET /v1/things/%2e%2e/things/a", NULL, NULL, 400},
        {"GET /v1/things/a%2fb", NULL, NULL, 400},
        {"GET /v1/things/a%00", NULL, NULL, 400},
        {"GET /v1/things/", NULL, NULL, 400},
        {"GET //v1/things/a", NULL, NULL, 400},
        {"GET /v1/things/a", "accept: text/html", NULL, 406},
        {"GET /v1/things/a", "accept: application/json;q=0, text/html", NULL, 406},
        {"GET /v1/things/a", "accept: */*, application/json;q=0.0", NULL, 406},
        {"GET /v1/things/a", JSON, "{}", 400},
        {"GET /v1/things/a", "origin: https://evil.example", NULL, 403},
        {"GET /v1/things/a", "sec-fetch-site: cross-site", NULL, 403},
        {"PUT /v1/things/a", JSON, NULL, 411},
        {"PUT /v1/things/a", JSON, "", 400},
        {"PUT /v1/things/a", NULL, "{\"kind\":\"x\"}", 415},
        {"PUT /v1/things/a", "content-type: text/plain", "{\"kind\":\"x\"}", 415},
        {"PUT /v1/things/a", "content-type: application/jsonx", "{\"kind\":\"x\"}", 415},
        {"PUT /v1/things/a", JSON "\ncontent-encoding: gzip", "{\"kind\":\"x\"}", 415},
        {"PUT /v1/things/a", JSON, "{\"kind\":", 400},
        {"PUT /v1/things/a", JSON, "{\"kind\":\"x\",\"kind\":\"y\"}", 400},
        {"PUT /v1/things/a", JSON, "{\"kind\":\"x\"} // no comments here", 400},
        {"PUT /v1/things/a", JSON, "{\"kind\":\"x\",\"other\":1}", 400},
        {"PUT /v1/things/a", JSON, "{\"kind\":\"x\",\"size\":10}", 400},
        {"PUT /v1/things/a", JSON, "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]",
         400},
        {"PUT /v1/things/a?dry_run=yes", JSON, "{\"kind\":\"x\"}", 400},
        {"PUT /v1/things/a", JSON "\nidempotency-key: a b", "{\"kind\":\"x\"}", 400},
        {"PUT /v1/state", JSON, "{\"kind\":\"x\"}", 428},
        {"GET /v1/things?limit=0", NULL, NULL, 400},
        {"GET /v1/things?limit=1001", NULL, NULL, 400},
        {"GET /v1/things?limit=-1", NULL, NULL, 400},
        {"GET /v1/things?limit=99999999999999999999999", NULL, NULL, 400},
        {"GET /v1/things?limit=", NULL, NULL, 400},
        {"GET /v1/things?cursor=", NULL, NULL, 400},
        {"GET /v1/things?cursor=!", NULL, NULL, 400},
        {"GET /v1/things?cursor=AA", NULL, NULL, 400}, /* a NUL */
        {"GET /v1/state?dry_run=true", NULL, NULL, 400},
        {"PATCH /v1/raw", JSON, "{}", 415},
    };
    admin_world w;
    open_world(&w, "admin", NULL);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        admin_ask(&w, &r, cases[i].line, cases[i].fields, cases[i].body);
        expect_problem(cases[i].line, cases[i].status);
        cr_expect_eq(n_calls, 0, "%s: the resource was called", cases[i].line);
    }
    char allow[256];
    admin_ask(&w, &r, "DELETE /v1/things/a", NULL, NULL);
    cr_expect_str_eq(admin_field(&r, "allow", allow), "GET, HEAD, PUT");
    admin_close(&w);
}

Test(admin_calls, what_is_taken) {
    static const struct {
        const char *line, *fields, *body;
        int status;
        const char *answer;
    } cases[] = {
        {"GET /v1/things/a", NULL, NULL, 200,
         "{\"user\":\"me\",\"name\":\"a\",\"colour\":null,\"path\":\"/v1/things/a\"}"},
        {"GET /v1/things/a%20b?colour=r%C3%A9d", "accept: text/html, application/*;q=0.5", NULL, 200,
         "\"name\":\"a b\",\"colour\":\"r\xc3\xa9"
         "d\""},
        {"GET /v1/things/a", "accept: */*", NULL, 200, "me"},
        {"GET /v1/things/a", "sec-fetch-site: same-origin\norigin: http://x", NULL, 200, "me"},
        {"PUT /v1/things/a", "content-type: Application/JSON; charset=utf-8", "{\"kind\":\"x\"}", 200,
         "{\"kind\":\"x\",\"size\":1,\"version\":2}"},
        {"PUT /v1/things/a?dry_run=true", JSON, "{\"kind\":\"x\",\"size\":9}", 200, "\"size\":9,\"version\":2}"},
        {"PUT /v1/things/a?dry_run=false", JSON, "{\"kind\":\"x\",\"size\":9}", 200, "\"version\":3}"},
        {"PATCH /v1/raw", NULL, NULL, 204, ""},
        {"PATCH /v1/raw", "content-type: application/json-patch+json", "{no JSON", 204, ""},
    };
    admin_world w;
    char field[256];
    open_world(&w, "admin", NULL);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cr_expect_eq(admin_ask(&w, &r, cases[i].line, cases[i].fields, cases[i].body), cases[i].status, "%s: %s",
                     cases[i].line, r.text);
        cr_expect(strstr(r.body, cases[i].answer), "%s: %s", cases[i].line, r.body);
        cr_expect_str_eq(admin_field(&r, "cache-control", field), "no-store");
    }
    cr_expect_str_eq(kept, "application/json-patch+json 8");
    admin_ask(&w, &r, "PUT /v1/things/a", JSON, "{\"kind\":\"x\"}");
    cr_expect_str_eq(admin_field(&r, "etag", field), "\"4\"");
    cr_expect_str_eq(admin_field(&r, "location", field), "/v1/things/x");
    admin_close(&w);
}

Test(admin_calls, mistakes_of_a_body_are_listed) {
    admin_world w;
    open_world(&w, "admin", NULL);
    admin_ask(&w, &r, "PUT /v1/things/a", JSON, "{\n  \"size\": 10,\n  \"x\": 1\n}");
    expect_problem("two mistakes", 400);
    cr_expect(strstr(r.body, "\"pointer\":\"/size\"") && strstr(r.body, "\"line\":2"), "%s", r.body);
    cr_expect(strstr(r.body, "\"pointer\":\"/x\"") && strstr(r.body, "\"line\":3"), "%s", r.body);
    cr_expect_eq(n_calls, 0);
    admin_close(&w);
}

Test(admin_calls, conditions) {
    static const struct {
        const char *line, *fields;
        int status;
    } cases[] = {
        {"GET /v1/state", "if-none-match: \"1\"", 304},
        {"GET /v1/state", "if-none-match: \"0\"", 200},
        {"GET /v1/state", "if-match: \"0\"", 412},
        {"HEAD /v1/state", "if-none-match: *", 304},
        {"PUT /v1/state", JSON "\nif-match: \"0\"", 412},
        {"PUT /v1/state", JSON "\nif-match: x", 400},
        {"PUT /v1/state", JSON "\nif-match: \"1\"", 200},
        {"PUT /v1/state", JSON "\nif-match: \"1\"", 412},
        {"PUT /v1/state", JSON "\nif-match: *", 200},
        {"PUT /v1/things/x", JSON "\nif-none-match: *", 412},
        {"PUT /v1/things/x", JSON, 200},
    };
    admin_world w;
    char etag[256];
    open_world(&w, "admin", NULL);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const bool put = cases[i].line[0] == 'P';
        admin_ask(&w, &r, cases[i].line, cases[i].fields, put ? "{\"kind\":\"x\"}" : NULL);
        cr_expect_eq(r.status, cases[i].status, "case %zu %s: %s", i, cases[i].line, r.text);
        if (r.status == 412) cr_expect(*admin_field(&r, "etag", etag), "%s: which is it then?", cases[i].line);
    }
    cr_expect_eq(version, 4);
    admin_close(&w);
}

Test(admin_calls, pages) {
    admin_world w;
    char line[600], *next, seen[26] = "";
    int pages = 0;
    open_world(&w, "viewer", NULL);
    snprintf(line, sizeof line, "GET /v1/things?limit=7");
    for (; pages < 10; pages++) {
        cr_assert_eq(admin_ask(&w, &r, line, NULL, NULL), 200, "%s", r.text);
        for (char *at = strchr(r.body, '['); at && *at != ']'; at = strpbrk(at + 1, ",]"))
            seen[atoi(at + 1)]++;
        next = strstr(r.body, "\"next\":\"");
        if (!next) break;
        snprintf(line, sizeof line, "GET /v1/things?limit=7&cursor=%.*s", (int)strcspn(next + 8, "\""), next + 8);
    }
    cr_expect_eq(pages, 3);
    cr_expect(strstr(r.body, "\"next\":null"), "%s", r.body);
    for (int i = 0; i < 25; i++)
        cr_expect_eq(seen[i], 1, "%d came %d times", i, seen[i]);
    memset(line, 'A', sizeof line); /* more than any page gave */
    memcpy(line, "GET /v1/things?cursor=", 22);
    line[sizeof line - 1] = '\0';
    admin_ask(&w, &r, line, NULL, NULL);
    expect_problem("a huge cursor", 400);
    admin_close(&w);
}

Test(admin_calls, what_a_resource_returns) {
    static const struct {
        int rc, status;
    } cases[] = {{CB_EINVAL, 400}, {CB_EPERM, 403},   {CB_ENOENT, 404}, {CB_EEXIST, 409}, {CB_ELIMIT, 503},
                 {CB_EAGAIN, 503}, {CB_ENOTSUP, 501}, {CB_ESYS, 500},   {CB_ENOMEM, 500}, {CB_ETIMEOUT, 504}};
    admin_world w;
    char line[64];
    open_world(&w, "viewer", NULL);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        snprintf(line, sizeof line, "GET /v1/fails?rc=%d", cases[i].rc);
        admin_ask(&w, &r, line, NULL, NULL);
        expect_problem(line, cases[i].status);
        cr_expect(strstr(r.body, "the detail"), "%s", r.body);
    }
    admin_close(&w);
}

static int no_answer(cb_admin_call *c, void *user) {
    (void)user;
    cr_expect_eq(cb_admin_send_json(c, 100, cb_slice_str("1")), CB_EINVAL);
    cr_expect_eq(cb_admin_send_json(c, 600, cb_slice_str("1")), CB_EINVAL);
    cr_expect_eq(cb_admin_problem(c, 200, "no problem"), CB_EINVAL);
    cr_expect_eq(cb_admin_send_bytes(c, 200, "a\r\nb: c", cb_slice_str("1")), CB_EINVAL);
    cr_expect_eq(cb_admin_send_bytes(c, 200, NULL, cb_slice_str("1")), CB_EINVAL);
    cr_expect_eq(cb_admin_page_end(c, ""), CB_EINVAL);
    cb_admin_etag(c, "no quotes");
    cb_admin_location(c, "a\r\nb: c");
    cr_expect_eq(cb_admin_send(c, 200), CB_OK); /* nothing was written: a 500 says so */
    cr_expect_eq(cb_admin_send_nothing(c), CB_EINVAL, "twice");
    cr_expect_eq(cb_admin_problem(c, 500, NULL), CB_EINVAL, "twice");
    return CB_OK;
}

Test(admin_calls, answers_that_are_none) {
    admin_world w;
    char field[256];
    open_world(&w, "viewer", NULL);
    const cb_admin_resource row = {.size = sizeof row,
                                   .method = "GET",
                                   .path = "/v1/none",
                                   .id = "getNone",
                                   .summary = "None",
                                   .handle = no_answer};
    cr_assert_eq(cb_admin_add(w.a, &row, NULL), CB_OK);
    admin_ask(&w, &r, "GET /v1/none", NULL, NULL);
    expect_problem("nothing", 500);
    cr_expect(!*admin_field(&r, "etag", field) && !*admin_field(&r, "location", field), "%s", r.text);
    admin_close(&w);
}

Test(admin_calls, head_is_get_without_a_body) {
    admin_world w;
    char length[256];
    open_world(&w, "viewer", NULL);
    const int fd = admin_dial(w.path);
    static const char text[] = "HEAD /v1/things/a HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    cr_assert_eq(write(fd, text, sizeof text - 1), (ssize_t)sizeof text - 1);
    for (int i = 0; i < 50; i++)
        admin_turn(&w, 1);
    r.len = (size_t)read(fd, r.text, sizeof r.text - 1);
    r.text[r.len] = '\0';
    r.body = strstr(r.text, "\r\n\r\n") + 4;
    cr_expect(strncmp(r.text, "HTTP/1.1 200", 12) == 0, "%s", r.text);
    cr_expect_str_eq(r.body, "");
    cr_expect_gt(atoi(admin_field(&r, "content-length", length)), 10);
    close(fd);
    admin_close(&w);
}

/* ---- Idempotency-Key ---- */

#define KEY JSON "\nidempotency-key: \"k-1\""

Test(admin_calls, a_change_that_is_asked_twice_is_made_once) {
    admin_world w;
    char first[512], etag[256];
    open_world(&w, "admin", NULL);
    cr_assert_eq(admin_ask(&w, &r, "PUT /v1/things/a", KEY, "{\"kind\":\"x\"}"), 200, "%s", r.text);
    snprintf(first, sizeof first, "%s", r.body);
    cr_assert_eq(admin_ask(&w, &r, "PUT /v1/things/a", KEY, "{\"kind\":\"x\"}"), 200, "%s", r.text);
    cr_expect_str_eq(r.body, first);
    cr_expect_str_eq(admin_field(&r, "etag", etag), "\"2\"");
    cr_expect_str_eq(admin_field(&r, "location", etag), "/v1/things/x");
    cr_expect_eq(n_calls, 1);
    admin_ask(&w, &r, "PUT /v1/things/a", KEY, "{\"kind\":\"y\"}");
    expect_problem("another body", 422);
    admin_ask(&w, &r, "PUT /v1/things/b", KEY, "{\"kind\":\"x\"}");
    expect_problem("another path", 422);
    admin_ask(&w, &r, "PUT /v1/things/a?dry_run=true", KEY, "{\"kind\":\"x\"}");
    expect_problem("a dry run", 422);
    admin_ask(&w, &r, "PUT /v1/things/a", KEY "\nif-match: \"1\"", "{\"kind\":\"x\"}");
    expect_problem("another condition", 422);
    cr_expect_eq(n_calls, 1);
    cr_expect_eq(admin_ask(&w, &r, "PUT /v1/things/a", JSON, "{\"kind\":\"x\"}"), 200);
    cr_expect_eq(n_calls, 2, "without a key each is one");
    admin_close(&w);
}

Test(admin_calls, the_same_change_under_way) {
    static const char text[] = "POST /v1/later HTTP/1.1\r\nhost: x\r\nidempotency-key: k\r\ncontent-length: 0\r\n\r\n";
    admin_world w;
    open_world(&w, "operator", NULL);
    const int fd = admin_dial(w.path);
    cr_assert_eq(write(fd, text, sizeof text - 1), (ssize_t)sizeof text - 1);
    admin_turn(&w, 20);
    cr_assert(later, "the resource was not called");
    admin_ask(&w, &r, "POST /v1/later", "idempotency-key: k\ncontent-length: 0", NULL);
    expect_problem("under way", 409);
    cr_expect_eq(n_calls, 1);
    cr_assert_eq(cb_admin_problem(later, 503, "not now"), CB_OK);
    cr_expect_eq(admin_read(&w, fd, &r), 503);
    close(fd);
    later = NULL; /* what passes by itself is not kept: it may be asked again */
    const int again = admin_dial(w.path);
    cr_assert_eq(write(again, text, sizeof text - 1), (ssize_t)sizeof text - 1);
    admin_turn(&w, 20);
    cr_assert(later);
    close(again); /* a client that goes away ends nothing: its answer is there when it comes back */
    admin_turn(&w, 20);
    cr_assert_eq(cb_admin_send_json(later, 200, cb_slice_str("{\"done\":true}")), CB_OK);
    cr_expect_eq(admin_ask(&w, &r, "POST /v1/later", "idempotency-key: k\ncontent-length: 0", NULL), 200, "%s", r.text);
    cr_expect(strstr(r.body, "done"), "%s", r.body);
    cr_expect_eq(n_calls, 2);
    admin_close(&w);
}

/* ---- rights ---- */

Test(admin_calls, rights_by_role) {
    static const struct {
        const char *role;
        int read, change, operate; /* statuses */
    } cases[] = {{"viewer", 200, 403, 403},       {"operator", 200, 403, 204}, {"service-owner", 200, 200, 403},
                 {"tenant-admin", 403, 403, 403}, {"admin", 200, 200, 204},    {"auditor", 200, 403, 403}};
    admin_world w;
    open_world(&w, "viewer", NULL);
    const cb_admin_resource operate = {.size = sizeof operate,
                                       .method = "POST",
                                       .path = "/v1/now",
                                       .id = "postNow",
                                       .summary = "Now",
                                       .rights = CB_RIGHT_OPERATE,
                                       .flags = CB_ADMIN_CHANGES,
                                       .handle = raw};
    cr_assert_eq(cb_admin_add(w.a, &operate, NULL), CB_OK);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        admin_role(&w, cases[i].role);
        cr_expect_eq(admin_ask(&w, &r, "GET /v1/things/a", NULL, NULL), cases[i].read, "%s: %s", cases[i].role, r.text);
        cr_expect_eq(admin_ask(&w, &r, "PUT /v1/things/a", JSON, "{\"kind\":\"x\"}"), cases[i].change, "%s: %s",
                     cases[i].role, r.text);
        cr_expect_eq(admin_ask(&w, &r, "POST /v1/now", "content-length: 0", NULL), cases[i].operate, "%s: %s",
                     cases[i].role, r.text);
        cr_expect_eq(admin_ask(&w, &r, "GET /v1/whoami", NULL, NULL), 200, "%s", cases[i].role);
    }
    cb_admin_set_roles(w.a, NULL); /* nobody: nothing but health, not even what there is */
    static const char *const lines[] = {"GET /v1/things/a", "GET /v1/whoami", "GET /v1/openapi.json", "GET /nothing",
                                        "GET /v1/events"};
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        admin_ask(&w, &r, lines[i], NULL, NULL);
        expect_problem(lines[i], 403);
    }
    cr_expect_eq(admin_ask(&w, &r, "GET /livez", NULL, NULL), 200);
    admin_close(&w);
}

/* ---- answers to come, and the end ---- */

static int ends;

static void on_end(cb_admin_call *c, void *user) {
    ends++;
    cr_expect_eq(cb_admin_call_kept(c), user);
}

Test(admin_calls, freed_while_a_resource_has_it) {
    static const char text[] = "POST /v1/later HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n";
    admin_world w;
    char byte;
    open_world(&w, "operator", NULL);
    const int fd = admin_dial(w.path);
    cr_assert_eq(write(fd, text, sizeof text - 1), (ssize_t)sizeof text - 1);
    admin_turn(&w, 20);
    cr_assert(later);
    cb_admin_call_keep(later, &w);
    cb_admin_call_on_end(later, on_end, &w);
    ends = 0;
    cb_admin_free(w.a);
    w.a = NULL;
    cr_expect_eq(ends, 1);
    admin_turn(&w, 20);
    cr_expect_leq(read(fd, &byte, 1), 0, "an answer of nobody");
    close(fd);
    admin_close(&w);
}

Test(admin_calls, too_many_wait) {
    static const char text[] = "POST /v1/later HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n";
    const cb_admin_opts o = {.max_waiting = 2};
    admin_world w;
    char after[256];
    int fds[2];
    open_world(&w, "operator", &o);
    for (int i = 0; i < 2; i++) {
        fds[i] = admin_dial(w.path);
        cr_assert_eq(write(fds[i], text, sizeof text - 1), (ssize_t)sizeof text - 1);
        admin_turn(&w, 10);
    }
    admin_ask(&w, &r, "POST /v1/later", "content-length: 0", NULL);
    expect_problem("too many", 429);
    cr_expect_str_eq(admin_field(&r, "retry-after", after), "1");
    cr_assert_eq(cb_admin_send_nothing(later), CB_OK);
    cr_expect_eq(admin_ask(&w, &r, "GET /v1/things/a", NULL, NULL), 200, "%s", r.text);
    close(fds[0]);
    close(fds[1]);
    admin_close(&w);
}

Test(admin_calls, drain_waits_for_answers) {
    static const char text[] = "POST /v1/later HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n";
    admin_world w;
    open_world(&w, "operator", NULL);
    const int fd = admin_dial(w.path);
    cr_assert_eq(write(fd, text, sizeof text - 1), (ssize_t)sizeof text - 1);
    admin_turn(&w, 20);
    cr_assert(later);
    cr_assert_eq(cb_admin_drain(w.a, 5000, 0, NULL, NULL), CB_OK);
    cr_expect_neq(access(w.path, F_OK), 0, "the path is there, and nobody listens");
    admin_turn(&w, 20);
    cr_assert_eq(cb_admin_send_json(later, 200, cb_slice_str("1")), CB_OK);
    cr_expect_eq(admin_read(&w, fd, &r), 200, "%s", r.text);
    close(fd);
    admin_close(&w);
}
