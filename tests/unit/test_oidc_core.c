/* A provider's keys in virtual time: a simulated provider, hours of it in milliseconds. */
#include "auth/oidc_core.h"
#include "support/jwt_keys.h"
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#define ISSUER    "https://id.example"
#define META      "{\"issuer\":\"" ISSUER "\",\"jwks_uri\":\"" ISSUER "/keys\",\"token_endpoint\":\"" ISSUER "/token\"}"
#define KEY_ED    "{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"kid\":\"ed\"," ED_X "}"
#define KEY_EC    "{\"kty\":\"EC\",\"crv\":\"P-256\",\"kid\":\"ec\"," EC_XY "}"
#define SET(keys) "{\"keys\":[" keys "]}"

enum { SECOND = 1000, MINUTE = 60 * SECOND, HOUR = 60 * MINUTE, LATENCY = 40 };

static const cb_oidc_conf conf = {.issuer = (char *)(uintptr_t)ISSUER,
                                  .refresh_ms = 5 * MINUTE,
                                  .grace_ms = 5 * MINUTE,
                                  .stale_ms = 24 * HOUR,
                                  .seed = 7};

/* What the provider answers now, and what it saw. */
typedef struct provider {
    cb_oidc_core core;
    int64_t now, answer_at; /* answer_at 0: nothing is under way */
    bool down, matches;     /* matches: knows ETags */
    const char *meta, *keys, *cache_control, *type;
    int meta_status;
    int discoveries, fetches, unchanged;
} provider;

static provider start(const char *keys) {
    provider p = {.now = 1000000, .meta = META, .keys = keys, .type = "application/json", .meta_status = 200};
    cb_oidc_core_init(&p.core, &conf, p.now);
    return p;
}

static void respond(provider *p) {
    const bool keys = p->core.asking_keys;
    const bool same = keys && p->matches && strcmp(p->core.etag, p->keys[8] ? "\"v\"" : "") == 0;
    const cb_oidc_answer a = {.status = same   ? 304
                                        : keys ? 200
                                               : p->meta_status,
                              .content_type = cb_slice_str(p->type),
                              .cache_control = cb_slice_str(p->cache_control),
                              .etag = cb_slice_str(p->matches ? "\"v\"" : NULL),
                              .body = cb_slice_str(same   ? NULL
                                                   : keys ? p->keys
                                                          : p->meta)};
    p->answer_at = 0;
    p->unchanged += same;
    if (p->down) {
        cb_error_set(CB_EUNREACH, "nobody is there");
        cb_oidc_core_unanswered(&p->core, p->now);
    } else {
        cb_oidc_core_answer(&p->core, &a, p->now);
    }
}

/* Time goes by until `to`. */
static void pass(provider *p, int64_t to) {
    while (p->now < to) {
        if (p->answer_at && p->now >= p->answer_at) respond(p);
        if (cb_oidc_core_next(&p->core, p->now) == CB_OIDC_SEND) {
            cr_assert_str_eq(p->core.url, p->core.asking_keys ? ISSUER "/keys"
                                          : p->core.alt       ? ISSUER "/.well-known/oauth-authorization-server"
                                                              : ISSUER "/.well-known/openid-configuration");
            *(p->core.asking_keys ? &p->fetches : &p->discoveries) += 1;
            p->answer_at = p->now + LATENCY;
            continue;
        }
        int64_t next = p->core.wake_ms;
        if (p->answer_at && p->answer_at < next) next = p->answer_at;
        cr_assert_gt(next, p->now);
        p->now = next < to ? next : to;
    }
}

static bool has(const provider *p, const char *kid) {
    return p->core.keys && cb_jwks_has(p->core.keys, kid);
}

Test(oidc_core, rotates_with_overlap_and_grace) {
    provider p = start(SET(KEY_ED));
    const int64_t begin = p.now;
    pass(&p, begin + SECOND);
    cr_assert(has(&p, "ed") && !has(&p, "ec"));
    cr_expect_eq(p.discoveries, 1);
    cr_expect_eq(p.fetches, 1);
    p.keys = SET(KEY_ED "," KEY_EC); /* published before it signs */
    pass(&p, p.now + 5 * MINUTE + SECOND);
    cr_assert(has(&p, "ed") && has(&p, "ec"), "known within refresh_s, without a token that asks for it");
    p.keys = SET(KEY_EC ",{\"kty\":\"new\",\"kid\":\"n\"}");
    const int64_t gone = p.now;
    while (p.core.rotations < 2) {
        cr_assert(has(&p, "ed") && has(&p, "ec"), "at every moment of it");
        pass(&p, p.now + 100);
    }
    cr_expect_leq(p.now - gone, 5 * MINUTE + SECOND);
    const char *left_out = cb_jwks_note(p.core.keys, 0);
    cr_expect(left_out && strstr(left_out, "kid \"n\""), "what was left out is told in the grace time too");
    const int64_t seen = p.now;
    while (has(&p, "ed"))
        pass(&p, p.now + 100);
    cr_expect(p.now - seen >= 5 * MINUTE - SECOND && p.now - seen <= 5 * MINUTE + SECOND, "grace: %lld ms",
              (long long)(p.now - seen));
    cr_expect(has(&p, "ec"));
    cb_oidc_core_clear(&p.core);
}

Test(oidc_core, an_outage_changes_nothing_until_keys_are_stale) {
    provider p = start(SET(KEY_ED));
    pass(&p, p.now + SECOND);
    p.down = true;
    const int64_t begin = p.now;
    const int before = p.fetches;
    pass(&p, begin + 10 * MINUTE);
    cr_expect(has(&p, "ed"), "ten minutes");
    cr_expect(p.fetches - before >= 5 && p.fetches - before <= 14, "asked %d times", p.fetches - before);
    cr_expect_str_eq(p.core.detail, "nobody is there");
    p.down = false;
    pass(&p, p.now + MINUTE + SECOND);
    cr_expect_str_empty(p.core.detail);
    p.down = true;
    pass(&p, p.now + 23 * HOUR);
    cr_expect(has(&p, "ed"), "23 hours");
    pass(&p, p.now + HOUR + MINUTE);
    cr_expect_null(p.core.keys, "24 hours");
    p.down = false;
    pass(&p, p.now + MINUTE + SECOND);
    cr_expect(has(&p, "ed"), "and they come back");
    cb_oidc_core_clear(&p.core);
}

Test(oidc_core, floods_of_unknown_keys_ask_every_ten_seconds_and_delay_nothing) {
    provider p = start(SET(KEY_ED));
    pass(&p, p.now + SECOND);
    const int64_t begin = p.now;
    const int before = p.fetches;
    for (int i = 0; i < 20 * 60 * 10; i++) { /* 20 minutes, a hundred tokens a second in ten at a time */
        for (int n = 0; n < 10; n++)
            cb_oidc_core_miss(&p.core, p.now);
        pass(&p, p.now + 100);
        if (i == 6000) {
            p.keys = SET(KEY_ED "," KEY_EC);
            cr_assert(!has(&p, "ec"));
        }
        if (i == 6110) cr_expect(has(&p, "ec"), "a rotation is seen within 10 s of its publication");
    }
    const int asked = p.fetches - before;
    cr_expect(asked >= 110 && asked <= (p.now - begin) / (10 * SECOND) + 2, "asked %d times", asked);
    p.down = true;
    pass(&p, p.now + MINUTE);
    const int failing = p.fetches;
    for (int i = 0; i < 10 * 60 * 10; i++) {
        cb_oidc_core_miss(&p.core, p.now);
        pass(&p, p.now + 100);
    }
    cr_expect_leq(p.fetches - failing, 13, "a flood does not press a provider that is down: %d", p.fetches - failing);
    cb_oidc_core_clear(&p.core);
}

Test(oidc_core, heeds_caching) {
    static const struct {
        const char *control;
        int low, high; /* fetches in an hour */
    } rows[] = {{NULL, 12, 14},
                {"max-age=60", 60, 67},
                {"public, max-age=60, must-revalidate", 60, 67},
                {"max-age=86400", 12, 14},
                {"no-store", 120, 134},
                {"max-age=0", 120, 134},
                {"max-age=", 120, 134},
                {"max-age=99999999999999999999", 12, 14}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        provider p = start(SET(KEY_ED));
        p.cache_control = rows[i].control;
        p.matches = true;
        pass(&p, p.now + HOUR);
        cr_expect(p.fetches >= rows[i].low && p.fetches <= rows[i].high, "row %zu: %d", i, p.fetches);
        cr_expect_eq(p.unchanged, p.fetches - 1, "row %zu", i);
        cr_expect(has(&p, "ed"));
        cr_expect_eq(p.core.rotations, 0);
        cb_oidc_core_clear(&p.core);
    }
}

Test(oidc_core, hostile_answers_leave_the_keys_as_they_are) {
    static const struct {
        const char *keys, *type, *why;
    } rows[] = {
        {SET(KEY_EC), "text/html", "another content type"},
        {SET(KEY_EC), NULL, "no content type"},
        {SET(KEY_EC), "application/jsonx", "another content type"},
        {SET(""), "application/json", "not one can be used"},
        {"{\"keys\":[],\"keys\":[]}", "application/json", "twice"},
        {"{\"keys\":{}}", "application/json", "list"},
        {"[]", "application/json", "object"},
        {"", "application/json", "none is there"},
        {SET(KEY_EC) "x", "application/json", "end of the document"},
        {SET("{\"kty\":\"oct\",\"kid\":\"s\",\"alg\":\"HS256\",\"k\":\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\"}"),
         "application/json", "not one can be used"},
        {SET("{\"kty\":\"EC\",\"crv\":\"P-256\",\"kid\":\"ec\"," EC_XY "," EC_D "}"), "application/json",
         "not one can be used"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        provider p = start(SET(KEY_ED));
        pass(&p, p.now + SECOND);
        p.keys = rows[i].keys;
        p.type = rows[i].type;
        pass(&p, p.now + 10 * MINUTE);
        cr_expect(has(&p, "ed") && !has(&p, "ec") && !has(&p, "s"), "row %zu", i);
        cr_expect(strstr(p.core.detail, rows[i].why) != NULL, "row %zu: %s", i, p.core.detail);
        cr_expect_gt(p.core.failures, 0);
        cb_oidc_core_clear(&p.core);
    }
}

Test(oidc_core, a_name_that_comes_back_with_another_key_is_the_new_key) {
    provider p = start(SET("{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"kid\":\"k\"," ED_X "}"));
    pass(&p, p.now + SECOND);
    char before[44];
    snprintf(before, sizeof before, "%s", cb_jwks_thumbprint(p.core.keys, 0));
    p.keys = SET(
        "{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"kid\":\"k\",\"x\":\"PUAXw-hDiVqStwqnTRt-vJyYLM8uxJaMwM1V8Sr0Zgw\"}");
    pass(&p, p.now + 5 * MINUTE + SECOND);
    cr_assert_eq(cb_jwks_len(p.core.keys), 1);
    cr_expect_str_neq(cb_jwks_thumbprint(p.core.keys, 0), before);
    cb_oidc_core_clear(&p.core);
}

Test(oidc_core, discovery_is_judged) {
    static const struct {
        const char *meta, *why;
        int status;
        bool others, loopback;
    } rows[] = {
        {META, "", 200, false, false},
        {META, "redirects are not followed", 302, false, false},
        {META, "status 500", 500, false, false},
        {META, "status 403", 403, false, false},
        {"{\"issuer\":\"https://id.example/\"}", "the issuer is", 200, false, false},
        {"{\"issuer\":\"https://ID.example\"}", "the issuer is", 200, false, false},
        {"{\"jwks_uri\":\"https://id.example/k\"}", "the issuer is", 200, false, false},
        {"{\"issuer\":\"" ISSUER "\",\"issuer\":\"" ISSUER "\"}", "twice", 200, false, false},
        {"{\"issuer\":\"" ISSUER "\",\"jwks_uri\":\"https://evil.example/k\"}", "another host", 200, false, false},
        {"{\"issuer\":\"" ISSUER "\",\"jwks_uri\":\"https://id.example:444/k\"}", "another host", 200, false, false},
        {"{\"issuer\":\"" ISSUER "\",\"jwks_uri\":\"https://id.example@evil.example/k\"}", "user names", 200, false,
         false},
        {"{\"issuer\":\"" ISSUER "\",\"jwks_uri\":\"https://evil.example/k\"}", "", 200, true, false},
        {"{\"issuer\":\"" ISSUER "\",\"jwks_uri\":\"http://id.example/k\"}", "not https", 200, true, false},
        {"{\"issuer\":\"" ISSUER "\",\"jwks_uri\":\"http://127.0.0.1/k\"}", "not https", 200, true, false},
        {"{\"issuer\":\"" ISSUER "\",\"jwks_uri\":\"http://127.0.0.1/k\"}", "", 200, true, true},
        {"{\"issuer\":\"" ISSUER "\",\"jwks_uri\":\"http://127.evil.example/k\"}", "not https", 200, true, true},
        {"{\"issuer\":\"" ISSUER "\",\"jwks_uri\":\"file:///etc/passwd\"}", "http", 200, true, true},
        {"{\"issuer\":\"" ISSUER "\",\"token_endpoint\":\"https://id.example/t#x\"}", "fragment", 200, false, false},
        {"{\"issuer\":\"" ISSUER "\",\"token_endpoint\":7}", "no text", 200, false, false},
        {"\"" ISSUER "\"", "object", 200, false, false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cb_oidc_conf c = conf;
        cb_oidc_meta *m = NULL;
        c.other_hosts = rows[i].others;
        c.loopback_http = rows[i].loopback;
        const cb_oidc_answer a = {.status = rows[i].status,
                                  .content_type = cb_slice_str("application/json; charset=utf-8"),
                                  .body = cb_slice_str(rows[i].meta)};
        cb_error_set(CB_OK, NULL);
        const int rc = cb_oidc_meta_read(&m, &c, &a);
        cr_expect_eq(rc == CB_OK, *rows[i].why == '\0', "row %zu: %s", i, cb_last_error());
        cr_expect(strstr(cb_last_error(), rows[i].why) != NULL, "row %zu: %s", i, cb_last_error());
        cb_oidc_meta_unref(m);
    }
}

Test(oidc_core, discovery_asks_at_both_places) {
    static const struct {
        const char *issuer, *oidc, *oauth;
    } rows[] = {{"https://a.example", "https://a.example/.well-known/openid-configuration",
                 "https://a.example/.well-known/oauth-authorization-server"},
                {"https://a.example/", "https://a.example/.well-known/openid-configuration",
                 "https://a.example/.well-known/oauth-authorization-server"},
                {"https://a.example:8443/t/1/", "https://a.example:8443/t/1/.well-known/openid-configuration",
                 "https://a.example:8443/.well-known/oauth-authorization-server/t/1"}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char url[CB_OIDC_URL_BYTES + 1];
        const cb_oidc_conf c = {.issuer = (char *)(uintptr_t)rows[i].issuer};
        cr_expect_eq(cb_oidc_discovery_url(&c, false, url), CB_OK);
        cr_expect_str_eq(url, rows[i].oidc);
        cr_expect_eq(cb_oidc_discovery_url(&c, true, url), CB_OK);
        cr_expect_str_eq(url, rows[i].oauth);
    }
    provider p = start(SET(KEY_ED));
    p.meta_status = 404;
    const int64_t begin = p.now;
    while (!p.core.alt)
        pass(&p, p.now + 10);
    p.meta_status = 200; /* only the second place has it */
    pass(&p, p.now + SECOND);
    cr_expect(has(&p, "ed"));
    cr_expect_eq(p.discoveries, 2);
    cr_expect_leq(p.now - begin, 2 * SECOND);
    cb_oidc_core_clear(&p.core);
}
