#include "http/fields.h"
#include "telemetry/redact.h"
#include <criterion/criterion.h>
#include <string.h>

Test(redact, fields) {
    static const struct {
        const char *name;
        bool secret;
    } rows[] = {{"authorization", true},    {"Authorization", true},        {"proxy-authorization", true},
                {"cookie", true},           {"set-cookie", true},           {"Set_Cookie", true},
                {"x-api-key", true},        {"x-amz-security-token", true}, {"x-csrf-token", true},
                {"x-goog-signature", true}, {"x-session-id", true},         {"dpop", true},
                {"user-agent", false},      {"content-type", false},        {"cookies-eaten", false},
                {"referer", false},         {"x-request-id", false},        {"", false}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        cr_expect_eq(cb_redact_field(cb_slice_str(rows[i].name)), rows[i].secret, "%s", rows[i].name);
    cr_expect(cb_redact_is_url(cb_slice_str("Referer")));
    cr_expect(!cb_redact_is_url(cb_slice_str("refer")));
}

Test(redact, urls) {
    static const struct {
        const char *url, *shown;
    } rows[] = {
        {"/", "/"},
        {"", ""},
        {"*", "*"},
        {"/a?b=c&d=e", "/a?b=c&d=e"},
        {"/a?access_token=abc", "/a?access_token=REDACTED"},
        {"/a?x=1&TOKEN=abc&y=2", "/a?x=1&TOKEN=REDACTED&y=2"},
        {"/a?x=1;token=abc;y=2", "/a?x=1;token=REDACTED;y=2"},
        {"/a?%74oken=abc", "/a?%74oken=REDACTED"},
        {"/a?to%6Ben=abc", "/a?to%6Ben=REDACTED"},
        {"/a?token=", "/a?token="},
        {"/a?token", "/a?token"},
        {"/a?token=a=b=c", "/a?token=REDACTED"},
        {"/cb?code=4/0Ab&state=xyz", "/cb?code=REDACTED&state=xyz"},
        {"/cb?codes=1", "/cb?codes=1"},
        {"/a?api-key=1&api_key=2&apikey=3", "/a?api-key=REDACTED&api_key=REDACTED&apikey=REDACTED"},
        {"/o?X-Amz-Signature=ff&X-Amz-Date=1", "/o?X-Amz-Signature=REDACTED&X-Amz-Date=1"},
        {"/a;jsessionid=77/b;v=1?x=1", "/a;jsessionid=REDACTED/b;v=1?x=1"},
        {"/a?redirect=https://x/?token=1", "/a?redirect=https://x/?token=REDACTED"},
        {"/a?password=1#x", "/a?password=REDACTED#x"},
        {"/#access_token=1&x=2", "/#access_token=REDACTED&x=2"},
        {"https://u:pw@host/a?b=c", "https://u:REDACTED@host/a?b=c"},
        {"https://u:p@w@host/", "https://u:REDACTED@host/"},
        {"https://host:80/a@b:c", "https://host:80/a@b:c"},
        {"/a%", "/a%"},
        {"/a?%=1&%4=2&secret=3", "/a?%=1&%4=2&secret=REDACTED"},
    };
    char out[CB_REDACT_MAX];
    bool cut = true;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cb_slice got = cb_redact_url(cb_slice_str(rows[i].url), out, &cut);
        cr_expect(cb_slice_eq(got, rows[i].shown) && !cut, "%s: %.*s", rows[i].url, (int)got.len,
                  (const char *)got.base);
    }
}

Test(redact, long_ones_are_cut_and_leak_nothing) {
    static char url[3 * CB_REDACT_MAX], out[CB_REDACT_MAX];
    bool cut = false;
    for (size_t from = CB_REDACT_MAX - 30; from < CB_REDACT_MAX + 2; from++) {
        memset(url, 'x', sizeof url - 1);
        url[0] = '/';
        memcpy(url + from, "?token=", 7);
        memset(url + from + 7, 'S', sizeof url - 1 - from - 7);
        cb_slice got = cb_redact_url(cb_slice_str(url), out, &cut);
        cr_expect(got.len <= CB_REDACT_MAX && !memchr(got.base, 'S', got.len), "at %zu", from);
        cr_expect_eq(cut, from + 7 + 8 > CB_REDACT_MAX, "at %zu", from);
    }
}
