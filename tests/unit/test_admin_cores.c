/* The cores of an administration interface: targets, routes, conditions, kept answers, kept events. */
#include "admin/match.h"
#include "admin/replay.h"
#include "admin/ring.h"
#include "admin/router.h"
#include "base/mem.h"
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

/* ---- targets ---- */

static const char *read_target(cb_admin_target *t, const char *text) {
    return cb_admin_target_read(t, &cb_alloc_libc, cb_slice_str(text));
}

Test(admin_target, what_is_read) {
    static const struct {
        const char *text, *path, *segments; /* with | between them */
    } rows[] = {
        {"/", "/", ""},
        {"/livez", "/livez", "livez"},
        {"/v1/pools/web", "/v1/pools/web", "v1|pools|web"},
        {"/v1/a%20b/%C3%A9/~1x", "/v1/a b/\xc3\xa9/~1x", "v1|a b|\xc3\xa9|~1x"},
        {"/a+b?x=a+b", "/a+b", "a+b"},
        {"/.hidden/...?", NULL, NULL}, /* an empty query has a parameter without a name */
        {"/.hidden/...", "/.hidden/...", ".hidden|..."},
        {"/%25", "/%", "%"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cb_admin_target t;
        char joined[256] = "";
        const char *wrong = read_target(&t, rows[i].text);
        cr_expect_eq(wrong == NULL, rows[i].path != NULL, "%s: %s", rows[i].text, wrong ? wrong : "read");
        for (uint32_t k = 0; k < t.n_segments; k++) {
            if (k) strcat(joined, "|");
            strcat(joined, t.segments[k]);
        }
        if (rows[i].path) {
            cr_expect_str_eq(t.path, rows[i].path);
            cr_expect_str_eq(joined, rows[i].segments);
        }
        cb_admin_target_free(&t, &cb_alloc_libc);
    }
}

/* What two readers could take for different things, and what is no text. */
Test(admin_target, what_is_refused) {
    static const char *const rows[] = {
        "",         "*",         "livez",      "//livez", "/livez/",      "/a//b",    "/./livez",    "/a/../livez",
        "/..",      "/%2e%2e/x", "/.%2E/x",    "/%2e",    "/a%2fb",       "/a%2Fb",   "/a%5cb",      "/a\\b",
        "/a%00b",   "/a%0ab",    "/a%7f",      "/%",      "/%4",          "/%4g",     "/%g4",        "/%c0%af",
        "/%ff",     "/a#b",      "/a?b#c",     "/a?",     "/a?&",         "/a?b=1&",  "/a?b=1&&c=2", "/a?=1",
        "/a?b=%zz", "/a?b=%ff",  "/a?b=1&b=2", "/a?b&b",  "/a?b=1&%62=2", "/a?b=%00", "/a?%=1",      "/%u002f",
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cb_admin_target t;
        cr_expect(read_target(&t, rows[i]), "%s was read", rows[i]);
        cr_expect_eq(t.n_segments + t.n_query, 0, "%s", rows[i]);
        cb_admin_target_free(&t, &cb_alloc_libc);
    }
}

Test(admin_target, its_bounds) {
    cb_admin_target t;
    char text[8300] = "/";
    for (int i = 0; i < CB_TARGET_SEGMENTS; i++)
        strcat(text, i ? "/x" : "x");
    cr_expect_null(read_target(&t, text));
    cr_expect_eq(t.n_segments, CB_TARGET_SEGMENTS);
    cr_expect_str_eq(t.rests[46], "x/x");
    cb_admin_target_free(&t, &cb_alloc_libc);
    strcat(text, "/x");
    cr_expect(read_target(&t, text));
    cb_admin_target_free(&t, &cb_alloc_libc);
    strcpy(text, "/x?");
    for (int i = 0; i < CB_TARGET_QUERY; i++)
        snprintf(text + strlen(text), 8, "%s%c", i ? "&" : "", 'a' + i);
    cr_expect_null(read_target(&t, text));
    cr_expect_str_eq(cb_admin_target_query(&t, "p"), "");
    cr_expect_null(cb_admin_target_query(&t, "q"));
    cb_admin_target_free(&t, &cb_alloc_libc);
    strcat(text, "&q");
    cr_expect(read_target(&t, text));
    cb_admin_target_free(&t, &cb_alloc_libc);
    memset(text, 'a', 8192);
    text[0] = '/';
    text[8192] = '\0';
    cr_expect_null(read_target(&t, text));
    cr_expect_eq(strlen(t.segments[0]), 8191);
    cb_admin_target_free(&t, &cb_alloc_libc);
}

Test(admin_target, parameters) {
    cb_admin_target t;
    cr_expect_null(read_target(&t, "/x?a=1%2B1&b=two+words&c=%C3%A9&d==&e="));
    static const char *const rows[][2] = {{"a", "1+1"}, {"b", "two words"}, {"c", "\xc3\xa9"}, {"d", "="}, {"e", ""}};
    for (size_t i = 0; i < 5; i++)
        cr_expect_str_eq(cb_admin_target_query(&t, rows[i][0]), rows[i][1]);
    cb_admin_target_free(&t, &cb_alloc_libc);
}

/* ---- routes ---- */

static int nothing(cb_admin_call *call, void *user) {
    (void)call;
    (void)user;
    return CB_OK;
}

static int add(cb_admin_router *r, const char *method, const char *path, const char *id) {
    return cb_admin_router_add(
        r, CB_OPTS(cb_admin_resource, .method = method, .path = path, .id = id, .summary = "x", .handle = nothing),
        NULL, NULL);
}

Test(admin_router, the_closest_is_found) {
    static const char *const paths[][3] = {
        {"GET", "/v1/pools", "a"},        {"GET", "/v1/pools/{group}", "b"},    {"GET", "/v1/pools/all", "c"},
        {"GET", "/v1/config", "d"},       {"GET", "/v1/config/{path...}", "e"}, {"PUT", "/v1/config/{path...}", "f"},
        {"GET", "/v1/config/{a}/x", "g"}, {"GET", "/v1/{any}/{x}/{y}", "h"},    {"POST", "/v1/pools/{group}", "i"},
    };
    static const struct {
        const char *method, *target, *id, *allow;
    } rows[] = {
        {"GET", "/v1/pools", "a", "GET, HEAD"},
        {"HEAD", "/v1/pools", "a", "GET, HEAD"},
        {"GET", "/v1/pools/web", "b", "GET, HEAD, POST"},
        {"POST", "/v1/pools/web", "i", "GET, HEAD, POST"},
        {"GET", "/v1/pools/all", "c", "GET, HEAD"},
        {"POST", "/v1/pools/all", NULL, "GET, HEAD"}, /* the closest path says which methods there are */
        {"GET", "/v1/config", "d", "GET, HEAD"},
        {"GET", "/v1/config/x", "e", "GET, HEAD, PUT"},
        {"GET", "/v1/config/q/x", "g", "GET, HEAD"},
        {"GET", "/v1/config/q/y/z", "e", "GET, HEAD, PUT"},
        {"GET", "/v1/q/y/z", "h", "GET, HEAD"},
        {"get", "/v1/pools", NULL, "GET, HEAD"},
        {"DELETE", "/v1/pools", NULL, "GET, HEAD"},
        {"GET", "/v1", NULL, ""},
        {"GET", "/v1/pools/a/b/c", NULL, ""},
        {"GET", "/V1/pools", NULL, ""},
        {"GET", "/", NULL, ""},
    };
    cb_admin_router r;
    cb_admin_router_init(&r, &cb_alloc_libc);
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
        cr_assert_eq(add(&r, paths[i][0], paths[i][1], paths[i][2]), CB_OK, "%s: %s", paths[i][1], cb_last_error());
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cb_admin_target t;
        char allow[64];
        cr_assert_null(read_target(&t, rows[i].target));
        const cb_admin_row *row = cb_admin_router_find(&r, &t, cb_slice_str(rows[i].method), false, allow);
        cr_expect_eq(row != NULL, rows[i].id != NULL, "%s %s", rows[i].method, rows[i].target);
        if (row && rows[i].id) cr_expect_str_eq(row->r.id, rows[i].id, "%s: %s", rows[i].target, row->r.path);
        cr_expect_str_eq(allow, rows[i].allow);
        if (row && strcmp(row->r.id, "e") == 0)
            cr_expect_str_eq(cb_admin_row_param(row, &t, "path"), strstr(rows[i].target, "config/") + 7);
        if (row && strcmp(row->r.id, "b") == 0) cr_expect_str_eq(cb_admin_row_param(row, &t, "group"), "web");
        if (row) cr_expect_null(cb_admin_row_param(row, &t, "v1"));
        cb_admin_target_free(&t, &cb_alloc_libc);
    }
    cb_admin_router_free(&r);
}

Test(admin_router, rows_and_their_mistakes) {
    static const cb_config_rule none[] = {{.name = NULL}};
    static const cb_config_schema document = {.size = sizeof document, .members = none};
    static const cb_admin_resource rows[] = {
        {.method = NULL},
        {.method = "TRACE"},
        {.method = "get"},
        {.path = NULL},
        {.path = "v1"},
        {.path = "/"},
        {.path = "/v1/"},
        {.path = "//v1"},
        {.path = "/{}"},
        {.path = "/{a"},
        {.path = "/a}"},
        {.path = "/x{a}"},
        {.path = "/{a}/{a}"},
        {.path = "/{a...}/b"},
        {.path = "/{a....}"},
        {.path = "/{1}"},
        {.path = "/a%20b"},
        {.path = "/{...}"},
        {.id = NULL},
        {.id = "a b"},
        {.id = ""},
        {.summary = NULL},
        {.summary = ""},
        {.handle = NULL},
        {.flags = 1 << 20},
        {.rights = 1 << 20},
        {.flags = CB_ADMIN_CHANGES}, /* of GET */
        {.consumes = "text/plain"},
        {.flags = CB_ADMIN_COMMITS, .method = "PUT"},
        {.flags = CB_ADMIN_MATCH, .method = "PUT"},
        {.flags = CB_ADMIN_RAW, .method = "PUT", .document = &document},
        {.n_query = 1},
    };
    cb_admin_router r;
    cb_admin_router_init(&r, &cb_alloc_libc);
    cr_assert_eq(add(&r, "GET", "/a/{b}", "one"), CB_OK);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cb_admin_resource one = rows[i];
        one.size = sizeof one;
        if (!one.method && i > 0) one.method = "GET";
        if (!one.path && i != 3) one.path = "/x";
        if (!one.id && i != 18) one.id = "x";
        if (!one.summary && i != 21) one.summary = "x";
        if (!one.handle && i != 23) one.handle = nothing;
        cr_expect_eq(cb_admin_router_add(&r, &one, NULL, NULL), CB_EINVAL, "row %zu", i);
    }
    cr_expect_eq(add(&r, "GET", "/a/{b}", "two"), CB_EEXIST);
    cr_expect_eq(add(&r, "PUT", "/a/{c}", "two"), CB_EEXIST, "the same path under another name");
    cr_expect_eq(add(&r, "GET", "/b", "one"), CB_EEXIST, "the same id");
    cr_expect_eq(add(&r, "PUT", "/a/{b}", "two"), CB_OK, "%s", cb_last_error());
    cr_expect_eq(r.n, 2);
    cb_admin_router_free(&r);
}

/* ---- conditions ---- */

Test(admin_match, tags_and_what_is_asked) {
    static const struct {
        const char *if_match, *if_none_match, *etag;
        bool reads;
        int verdict;
    } rows[] = {
        {NULL, NULL, "\"1\"", true, CB_MATCH_GO},
        {"\"1\"", NULL, "\"1\"", false, CB_MATCH_GO},
        {"\"2\"", NULL, "\"1\"", false, CB_MATCH_FAILED},
        {"\"2\", \"1\"", NULL, "\"1\"", false, CB_MATCH_GO},
        {"\"2\",\"1\"", NULL, "\"1\"", false, CB_MATCH_GO},
        {"W/\"1\"", NULL, "\"1\"", false, CB_MATCH_FAILED}, /* strong comparison (RFC 9110, 13.1.1) */
        {"\"1\"", NULL, "W/\"1\"", false, CB_MATCH_FAILED},
        {"*", NULL, "\"1\"", false, CB_MATCH_GO},
        {"*", NULL, NULL, false, CB_MATCH_FAILED},
        {"\"1\"", NULL, NULL, false, CB_MATCH_FAILED},
        {NULL, "*", "\"1\"", false, CB_MATCH_FAILED},
        {NULL, "*", NULL, false, CB_MATCH_GO},
        {NULL, "\"1\"", "\"1\"", true, CB_MATCH_SAME},
        {NULL, "W/\"1\"", "\"1\"", true, CB_MATCH_SAME}, /* weak comparison */
        {NULL, "\"1\"", "\"1\"", false, CB_MATCH_FAILED},
        {NULL, "\"2\"", "\"1\"", true, CB_MATCH_GO},
        {"\"2\"", "\"1\"", "\"1\"", true, CB_MATCH_FAILED}, /* If-Match first (13.2.2) */
        {"1", NULL, "\"1\"", false, CB_MATCH_BAD},
        {"", NULL, "\"1\"", false, CB_MATCH_BAD},
        {"\"1", NULL, "\"1\"", false, CB_MATCH_BAD},
        {"\"1\" \"2\"", NULL, "\"1\"", false, CB_MATCH_BAD},
        {"\"1\",", NULL, "\"1\"", false, CB_MATCH_BAD},
        {"*, \"1\"", NULL, "\"1\"", false, CB_MATCH_BAD},
        {"\"a b\"", NULL, "\"1\"", false, CB_MATCH_BAD},
        {NULL, "x", "\"1\"", true, CB_MATCH_BAD},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        cr_expect_eq(cb_admin_match(cb_slice_str(rows[i].if_match), cb_slice_str(rows[i].if_none_match), rows[i].etag,
                                    rows[i].reads),
                     rows[i].verdict, "row %zu", i);
    cr_expect(cb_admin_is_etag("\"17\"") && cb_admin_is_etag("W/\"\"") && !cb_admin_is_etag("17") &&
              !cb_admin_is_etag("\"17\" ") && !cb_admin_is_etag(""));
}

/* ---- kept answers ---- */

static const uint8_t key16[16];
static const uint64_t hour = 3600ull * 1000000000;

static int enter(cb_replays *r, const char *who, const char *key, uint8_t print, uint64_t now, cb_replay **out) {
    uint8_t p[CB_REPLAY_PRINT] = {print};
    return cb_replays_enter(r, who, cb_slice_str(key), p, now, out);
}

Test(admin_replay, an_answer_is_kept_for_an_hour) {
    cb_replays r;
    cb_replay *e = NULL, *again = NULL;
    cb_replays_init(&r, &cb_alloc_libc, key16, 16);
    cr_assert_eq(enter(&r, "uid:1", "k", 1, 5, &e), CB_OK);
    cr_expect_eq(enter(&r, "uid:1", "k", 1, 6, &again), 1);
    cr_expect(again == e && !e->done, "the first is under way");
    e->status = 200;
    cb_replays_answered(&r, e, cb_slice_str("body"));
    cr_expect_eq(enter(&r, "uid:1", "k", 2, hour, &again), 1);
    cr_expect(again == e && e->done && e->len == 4 && memcmp(e->body, "body", 4) == 0 && e->print[0] == 1);
    cr_expect_eq(enter(&r, "uid:2", "k", 1, 7, &again), CB_OK, "the key of another one");
    cr_expect_eq(enter(&r, "uid:1", "k", 9, 5 + hour, &again), CB_OK, "after an hour it is new");
    cr_expect_eq(again->print[0], 9);
    cr_expect_eq(r.bytes, 0);
    cb_replays_free(&r);
}

Test(admin_replay, room_is_shared) {
    cb_replays r;
    cb_replay *e = NULL;
    char key[16];
    cb_replays_init(&r, &cb_alloc_libc, key16, 16);
    for (int i = 0; i < 100; i++) { /* one who asks a lot pushes out their own only */
        if (i == 2) cr_assert_eq(enter(&r, "uid:2", "theirs", 1, 1, &e), CB_OK);
        if (i == 2) cb_replays_answered(&r, e, (cb_slice){0});
        snprintf(key, sizeof key, "k%d", i);
        cr_assert_eq(enter(&r, "uid:1", key, 1, 1, &e), CB_OK, "%d", i);
        cb_replays_answered(&r, e, (cb_slice){0});
    }
    cr_expect_eq(r.n, 5, "%zu", r.n);
    cr_expect_eq(enter(&r, "uid:2", "theirs", 1, 1, &e), 1);
    cr_expect_eq(enter(&r, "uid:1", "k99", 1, 1, &e), 1);
    cr_expect_eq(enter(&r, "uid:1", "k95", 1, 1, &e), CB_OK, "the oldest went");
    for (int i = 0; i < 3; i++) { /* all of theirs under way: nothing can go */
        snprintf(key, sizeof key, "w%d", i);
        cr_assert_eq(enter(&r, "uid:3", key, 1, 1, &e), CB_OK);
    }
    cr_assert_eq(enter(&r, "uid:3", "w3", 1, 1, &e), CB_OK);
    cr_expect_eq(enter(&r, "uid:3", "w4", 1, 1, &e), CB_ELIMIT);
    cb_replays_free(&r);
}

Test(admin_replay, bodies_are_bounded) {
    static uint8_t big[CB_REPLAY_BODY + 1];
    cb_replays r;
    cb_replay *e = NULL;
    char key[16];
    size_t large = 0;
    cb_replays_init(&r, &cb_alloc_libc, key16, 4096);
    for (int i = 0; i < 200; i++) {
        snprintf(key, sizeof key, "k%d", i);
        cr_assert_eq(enter(&r, "uid:1", key, 1, 1, &e), CB_OK);
        cb_replays_answered(&r, e, (cb_slice){big, CB_REPLAY_BODY});
        large += e->large;
    }
    cr_expect_eq(r.bytes, 8 << 20, "%zu", r.bytes);
    cr_expect_eq(large, 200 - 128);
    cr_assert_eq(enter(&r, "uid:2", "k", 1, 1, &e), CB_OK);
    cb_replays_answered(&r, e, (cb_slice){big, sizeof big});
    cr_expect(e->large && !e->body);
    cb_replays_free(&r);
}

Test(admin_replay, keys) {
    static const struct {
        const char *field, *key;
    } rows[] = {{"\"abc\"", "abc"}, {"abc", "abc"}, {"a-b_c.1", "a-b_c.1"}, {"\"\"", NULL}, {"", NULL},
                {"a b", NULL},      {"a\"b", NULL}, {"\"a", NULL},          {"a\\b", NULL}, {"\x7f", NULL}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const cb_slice key = cb_replay_key(cb_slice_str(rows[i].field));
        cr_expect(rows[i].key ? key.len == strlen(rows[i].key) && memcmp(key.base, rows[i].key, key.len) == 0
                              : !key.len,
                  "%s", rows[i].field);
    }
    char long_one[CB_REPLAY_KEY + 2];
    memset(long_one, 'k', sizeof long_one);
    long_one[CB_REPLAY_KEY] = '\0';
    cr_expect_eq(cb_replay_key(cb_slice_str(long_one)).len, CB_REPLAY_KEY);
    long_one[CB_REPLAY_KEY] = 'k';
    long_one[CB_REPLAY_KEY + 1] = '\0';
    cr_expect_eq(cb_replay_key(cb_slice_str(long_one)).len, 0);
}

/* ---- kept events ---- */

Test(admin_ring, keeps_the_last) {
    cb_admin_ring r;
    cb_slice text;
    const char *type;
    cr_assert_eq(cb_ring_init(&r, &cb_alloc_libc, 4, 1000, 0xabc), CB_OK);
    for (int i = 0; i < 10; i++)
        cr_assert_eq(cb_ring_add(&r, i % 2 ? "odd" : "even", cb_slice_str("{}")), CB_OK);
    cr_expect_eq(r.first, 7);
    cr_expect_eq(r.next, 11);
    cr_expect(!cb_ring_get(&r, 6, &text, &type) && !cb_ring_get(&r, 11, &text, &type));
    cr_assert(cb_ring_get(&r, 10, &text, &type));
    cr_expect_str_eq(type, "odd");
    static const char wire[] = "id: abc-10\nevent: odd\ndata: {}\n\n";
    cr_expect(text.len == sizeof wire - 1 && memcmp(text.base, wire, text.len) == 0, "%.*s", (int)text.len,
              (const char *)text.base);
    static char big[600];
    memset(big, '1', sizeof big - 1);
    for (int i = 0; i < 3; i++) { /* bytes are bounded, too */
        cr_assert_eq(cb_ring_add(&r, "big", cb_slice_str(big)), CB_OK);
        cr_expect_leq(r.bytes, 1000);
    }
    cr_expect_eq(r.next - r.first, 1);
    cb_ring_free(&r);
}

Test(admin_ring, where_to_go_on) {
    cb_admin_ring r;
    cr_assert_eq(cb_ring_init(&r, &cb_alloc_libc, 4, 1000, 0xabc), CB_OK);
    for (int i = 0; i < 5; i++)
        cr_assert_eq(cb_ring_add(&r, "x", cb_slice_str("1")), CB_OK);
    static const struct {
        const char *id;
        uint64_t after;
    } rows[] = {{"abc-3", 4},
                {"abc-5", 6},
                {"abc-0", 1},
                {"abc-6", 0},
                {"abd-3", 0},
                {"abc-", 0},
                {"abc", 0},
                {"", 0},
                {"abc-x", 0},
                {"abc--1", 0},
                {"abc-99999999999999999999", 0},
                {"abc-18446744073709551615", 0}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        cr_expect_eq(cb_ring_after(&r, cb_slice_str(rows[i].id)), rows[i].after, "%s", rows[i].id);
    cb_ring_free(&r);
}
