#include "auth/acme_cert.h"
#include "auth/acme_core.h"
#include "auth/renew_time.h"
#include "base/mem.h"
#include <criterion/criterion.h>
#include <string.h>

Test(acme, http_01_is_answered_from_the_thumbprint_alone) {
    static const char print[] = "LPJNul-wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ"; /* RFC 8555 8.1 */
    static const struct {
        const char *path;
        int64_t want;
    } rows[] = {
        {"/.well-known/acme-challenge/evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA", 87},
        {"/.well-known/acme-challenge/", CB_ENOENT},
        {"/.well-known/acme-challenge/a/../b", CB_ENOENT},
        {"/.well-known/acme-challenge/a?b", CB_ENOENT},
        {"/.well-known/acme-challenge/%41", CB_ENOENT},
        {"/.well-known/acme-challenge", CB_ENOENT},
        {"", CB_ENOENT},
    };
    char out[CB_ACME_HTTP01_BYTES];
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cr_expect_eq(cb_acme_http01(out, sizeof out, print, cb_slice_str(rows[i].path)), rows[i].want, "row %zu", i);
    }
    cr_expect_eq(cb_acme_http01(out, sizeof out, print, cb_slice_str(rows[0].path)), 87);
    cr_expect_str_eq(out, "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA.LPJNul-wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ");
    cr_expect_eq(cb_acme_http01(out, 10, print, cb_slice_str(rows[0].path)), CB_EINVAL);
    cr_expect_eq(cb_acme_http01(out, sizeof out, "short", cb_slice_str(rows[0].path)), CB_EINVAL);
    char path[400] = "/.well-known/acme-challenge/";
    memset(path + strlen(path), 'a', 257);
    cr_expect_eq(cb_acme_http01(out, sizeof out, print, cb_slice_str(path)), CB_ENOENT, "a token beyond 256");
}

Test(acme, dates_and_waits) {
    static const struct {
        const char *text;
        int64_t want;
    } dates[] = {
        {"1970-01-01T00:00:00Z", 0},
        {"2025-01-02T04:00:00Z", 1735790400},
        {"2025-01-02T04:00:00.123456Z", 1735790400},
        {"2025-01-02T05:30:00+01:30", 1735790400},
        {"2025-01-02T03:00:00-01:00", 1735790400},
        {"2024-02-29T00:00:00Z", 1709164800},
        {"2025-01-02T04:00:00", CB_EPROTO},
        {"2025-13-02T04:00:00Z", CB_EPROTO},
        {"2025-01-02T04:00:00Zx", CB_EPROTO},
        {"yesterday", CB_EPROTO},
    };
    static const struct {
        const char *text;
        int64_t want;
    } waits[] = {
        {"5", 1700000005000},
        {"99999999999999999999", 1700000000000 + 604800000},
        {"Tue, 14 Nov 2023 22:13:30 GMT", 1700000010000},
        {"Tue, 14 Nov 2093 22:13:30 GMT", 1700000000000 + 604800000},
        {"-5", 0},
        {"", 0},
        {"soon", 0},
    };
    for (size_t i = 0; i < sizeof dates / sizeof *dates; i++) {
        cr_expect_eq(cb_web_date(dates[i].text), dates[i].want, "%s", dates[i].text);
    }
    for (size_t i = 0; i < sizeof waits / sizeof *waits; i++) {
        cr_expect_eq(cb_web_retry_after(cb_slice_str(waits[i].text), 1700000000000), waits[i].want, "%s",
                     waits[i].text);
    }
}

Test(acme, renewal_follows_the_lifetime) {
    static const struct {
        int64_t days, want_hours;
    } rows[] = {{90, 60 * 24}, {64, 1024}, {47, 752}, {10, 160}, {6, 72}, {1, 12}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cr_expect_eq(cb_renew_at(1000, 1000 + rows[i].days * 86400, 0), 1000 + rows[i].want_hours * 3600, "row %zu", i);
    }
}

Test(acme, urls_stay_with_the_directory) {
    static const char base[] = "https://ca.example:14000/dir";
    static const struct {
        const char *url;
        bool any;
        int want;
    } rows[] = {
        {"https://ca.example:14000/order/1?x=y", false, CB_OK},
        {"https://CA.example:14000/", false, CB_OK},
        {"https://ca.example/order", false, CB_EPROTO},
        {"https://ca.example:140001/", false, CB_EPROTO},
        {"https://ca.example:14000@evil/", false, CB_EPROTO},
        {"https://other.example/", false, CB_EPROTO},
        {"https://other.example/", true, CB_OK},
        {"https://user@other.example/", true, CB_EPROTO},
        {"http://ca.example:14000/", true, CB_EPROTO},
        {"https:///x", true, CB_EPROTO},
        {"https://ca.example:14000/\"x", false, CB_EPROTO},
        {"https://ca.example:14000/\nx", false, CB_EPROTO},
        {"/order", false, CB_EPROTO},
        {NULL, false, CB_EPROTO},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cr_expect_eq(cb_web_url_check(rows[i].url, base, rows[i].any, "x"), rows[i].want, "row %zu", i);
    }
}

Test(acme, base64url_is_strict) {
    static const struct {
        const char *text;
        int64_t want;
    } rows[] = {{"", 0},           {"AA", 1},           {"AAA", 2},          {"AAAA", 3}, {"A", CB_EINVAL},
                {"AB", CB_EINVAL}, {"AA==", CB_EINVAL}, {"A+AA", CB_EINVAL}, {"-_-_", 3}};
    uint8_t out[16];
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cr_expect_eq(cb_acme_base64url_decode(out, sizeof out, rows[i].text), rows[i].want, "%s", rows[i].text);
    }
    cr_expect_eq(cb_acme_base64url_decode(out, 2, "AAAA"), CB_EINVAL);
}

/* A job of a virtual day: a server that is down, then says when to come back. */
Test(acme, an_unanswered_request_is_sent_again_some_times) {
    cb_acme_core c;
    cb_acme_key none = {0};
    const cb_acme_plan plan = {
        .job = CB_ACME_JOB_ACCOUNT, .directory = "https://ca.example/dir", .patience_ms = 600000, .key = &none};
    int64_t now = 1000;
    int sent = 0;
    cr_assert_eq(cb_acme_core_init(&c, &plan, NULL, NULL), CB_OK);
    for (int turn = 0; turn < 100 && !c.ended; turn++) {
        const enum cb_acme_what what = cb_acme_core_next(&c, now);
        if (what == CB_ACME_SEND) {
            sent++;
            cb_error_set(CB_EUNREACH, "nobody there");
            cb_acme_core_unanswered(&c, CB_EUNREACH, now);
        } else if (what == CB_ACME_WAIT) {
            now = c.wake_ms;
        }
    }
    cr_expect_eq(sent, 6);
    cr_expect_eq(c.rc, CB_EUNREACH);
    cr_expect_str_eq(c.detail, "nobody there");
    cr_expect_eq(now, 1000 + 15500, "half a second, doubled four times");
    cb_acme_core_clear(&c);
}
