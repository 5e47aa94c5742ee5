#include "base/error.h"
#include "http/fields.h"
#include "http/hconn.h"
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static cb_slice str(const char *s) {
    return cb_slice_str(s);
}

static bool is_authority(cb_slice s) {
    return cb_authority_ok(s);
}

Test(http_fields, syntax) {
    static const struct {
        bool (*ok)(cb_slice s);
        const char *text;
        bool want;
    } rows[] = {{cb_field_name_ok, "x", true},
                {cb_field_name_ok, "X-Name_1!#$%&'*+.^`|~", true},
                {cb_field_name_ok, "", false},
                {cb_field_name_ok, "a b", false},
                {cb_field_name_ok, "a:", false},
                {cb_field_name_ok, ":path", false},
                {cb_field_name_ok, "a\x80", false},
                {cb_field_name_ok, "a(b)", false},
                {cb_field_name_ok, "a\t", false},
                {cb_field_value_ok, "", true},
                {cb_field_value_ok, "a \t b", true},
                {cb_field_value_ok, "\xff\x80", true},
                {cb_field_value_ok, " a", false},
                {cb_field_value_ok, "a ", false},
                {cb_field_value_ok, "a\t", false},
                {cb_field_value_ok, "a\nb", false},
                {cb_field_value_ok, "a\rb", false},
                {cb_field_value_ok,
                 "a\x7f"
                 "b",
                 false},
                {cb_field_value_ok,
                 "a\x1f"
                 "b",
                 false},
                {is_authority, "a", true},
                {is_authority, "a.example:80", true},
                {is_authority, "a.example:", true},
                {is_authority, "127.0.0.1:1", true},
                {is_authority, "[::1]", true},
                {is_authority, "[::1]:443", true},
                {is_authority, "[::ffff:1.2.3.4]:1", true},
                {is_authority, "a%41b", true},
                {is_authority, "", false},
                {is_authority, ":80", false},
                {is_authority, "a:b", false},
                {is_authority, "a:65536", false},
                {is_authority, "a:000080", false},
                {is_authority, "a@b", false},
                {is_authority, "a/b", false},
                {is_authority, "a?b", false},
                {is_authority, "a#b", false},
                {is_authority, "a b", false},
                {is_authority, "a,b:1:2", false},
                {is_authority, "a%4", false},
                {is_authority, "a%zz", false},
                {is_authority, "[::1", false},
                {is_authority, "[::1]x", false},
                {is_authority, "[a]", false},
                {is_authority, "[fe80::1%25eth0]", false},
                {is_authority, "[]", false},
                {is_authority, "a\x80", false},
                {is_authority, "a\\b", false},
                {cb_method_ok, "GET", true},
                {cb_method_ok, "M-SEARCH", true},
                {cb_method_ok, "", false},
                {cb_method_ok, "G T", false},
                {cb_method_ok, "G\r\nT", false},
                {cb_target_ok, "/", true},
                {cb_target_ok, "/a?b=c&d|{}", true},
                {cb_target_ok, "*", true},
                {cb_target_ok, "", false},
                {cb_target_ok, "a", false},
                {cb_target_ok, "*x", false},
                {cb_target_ok, "/a b", false},
                {cb_target_ok, "/a#b", false},
                {cb_target_ok, "/a\x01", false},
                {cb_target_ok, "/a\x7f", false},
                {cb_target_ok, "/a\x80", false},
                {cb_field_is_hop, "connection", true},
                {cb_field_is_hop, "Transfer-Encoding", true},
                {cb_field_is_hop, "te", true},
                {cb_field_is_hop, "trailer", false},
                {cb_field_is_hop, "content-length", false}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        cr_expect(rows[i].ok(str(rows[i].text)) == rows[i].want, "row %zu: %s", i, rows[i].text);
    static const uint8_t nul[] = {'/', 0, 'a'};
    cr_expect(!cb_target_ok((cb_slice){nul, 3}));
    cr_expect(!cb_field_value_ok((cb_slice){nul, 3}));
    cr_expect(!cb_field_name_ok((cb_slice){nul + 1, 2}));
    cr_expect(!cb_authority_ok((cb_slice){nul + 1, 2}));
}

Test(http_fields, names_fold_or_are_refused) {
    static const struct {
        const char *in, *out; /* NULL: no name */
    } rows[] = {{"Content-Type", "content-type"},
                {"x", "x"},
                {"X-Name_1!#$%&'*+.^`|~", "x-name_1!#$%&'*+.^`|~"},
                {"", NULL},
                {"Name ", NULL},
                {"a:b", NULL},
                {"a-rather-long-name\r", NULL},
                {"caf\xc3\xa9", NULL}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        uint8_t name[64];
        size_t n = strlen(rows[i].in);
        memcpy(name, rows[i].in, n);
        bool is_name = cb_field_name_fold(name, n);
        cr_expect_eq(is_name, rows[i].out != NULL, "%s", rows[i].in);
        if (is_name && rows[i].out) cr_expect_eq(memcmp(name, rows[i].out, n), 0, "%s", rows[i].in);
    }
}

Test(http_fields, content_length) {
    static const struct {
        const char *text;
        int64_t want;
    } rows[] = {{"0", 0},        {"007", 7},   {"123456789012345678", 123456789012345678},
                {"5, 5", 5},     {"5,5,5", 5}, {"5, 6", -1},
                {"", -1},        {"-1", -1},   {"+1", -1},
                {"1 1", -1},     {"0x1", -1},  {"1.0", -1},
                {"5,", -1},      {",5", -1},   {"1234567890123456789", -1},
                {"\xd9\xa1", -1}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        cr_expect(cb_content_length(str(rows[i].text)) == rows[i].want, "row %zu: %s", i, rows[i].text);
}

Test(http_fields, lists) {
    cb_slice list = str(" a, ,b c\t,,D"), item;
    static const char *const want[] = {"a", "b c", "D"};
    for (size_t i = 0; i < 3; i++) {
        cr_assert(cb_list_next(&list, &item));
        cr_expect(cb_slice_eq(item, want[i]), "element %zu", i);
    }
    cr_assert(!cb_list_next(&list, &item));
    cr_expect(cb_field_has_token(str("x, Chunked"), "chunked"));
    cr_expect(!cb_field_has_token(str("xchunked"), "chunked"));
    cr_expect(!cb_field_has_token(str(""), "chunked"));
}

Test(http_fields, a_section_is_bounded_and_moves_until_sealed) {
    cb_fields f;
    cb_fields_init(&f, NULL, 2000, 20);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 20; i++) {
            char value[32];
            snprintf(value, sizeof value, "value-%d", i);
            cr_assert_eq(cb_fields_add(&f, str(i % 2 ? "X-Odd" : "x-even"), str(value)), CB_OK);
        }
        cr_assert_eq(cb_fields_add(&f, str("one"), str("more")), CB_ELIMIT);
        cr_assert(cb_fields_get(&f, "x-odd").base == NULL);
        cb_fields_seal(&f);
        cr_assert(cb_slice_eq(cb_fields_get(&f, "x-odd"), "value-1"));
        cr_assert(cb_slice_eq(cb_fields_get(&f, "x-even"), "value-0"));
        cr_assert(cb_slice_eq(f.at[19].value, "value-19"));
        cr_assert(cb_fields_get(&f, "x").base == NULL);
        cb_fields_clear(&f);
    }
    char big[2000];
    memset(big, 'b', sizeof big);
    cr_assert_eq(cb_fields_add(&f, str("n"), (cb_slice){(uint8_t *)big, 1967}), CB_OK); /* 1 + 1967 + 32 */
    cr_assert_eq(cb_fields_add(&f, str("n"), str("")), CB_ELIMIT);
    cb_fields_free(&f);
}

Test(http_fields, limits_have_defaults) {
    cb_http_limits l;
    cr_assert_eq(cb_http_limits_fill(&l, NULL), CB_OK);
    cr_expect_eq(l.max_head_bytes, 65536);
    cr_expect_eq(l.max_body_bytes, 0);
    cr_expect_eq(l.head_timeout_ms, 10000);
    cb_http_limits in = {.size = sizeof in, .max_fields = 7, .max_body_bytes = 9};
    cr_assert_eq(cb_http_limits_fill(&l, &in), CB_OK);
    cr_expect_eq(l.max_fields, 7);
    cr_expect_eq(l.max_body_bytes, 9);
    cr_expect_eq(l.max_streams, 128);
    in.size = 1;
    cr_expect_eq(cb_http_limits_fill(&l, &in), CB_EINVAL);
}

/* These look at eight bytes at once: each byte at each place, beside the rule for one byte. */
Test(http_fields, every_byte_at_every_place) {
    for (size_t len = 1; len <= 20; len++) {
        for (size_t at = 0; at < len; at++) {
            for (int c = 0; c < 256; c++) {
                uint8_t *text = malloc(len); /* exact: the sanitizer sees a read beyond it */
                cr_assert_not_null(text);
                memset(text, 'q', len);
                text[at] = (uint8_t)c;
                bool edge = at == 0 || at == len - 1, control = (c < 0x20 && c != '\t') || c == 0x7f;
                bool blank = c == ' ' || c == '\t', upper = c >= 'A' && c <= 'Z';
                cb_slice s = {text, len};
                cr_expect_eq(cb_field_name_ok(s), cb_token_lower[c] != 0, "name, %d", c);
                cr_expect_eq(cb_field_value_ok(s), !control && !(blank && edge), "value, %d", c);
                cr_expect_eq(cb_field_name_no_upper(s), !upper, "upper, %d", c);
                cb_field_name_lower(text, len);
                cr_expect_eq(text[at], upper ? c + 32 : c, "lower, %d", c);
                cr_expect_eq(text[at ? 0 : len - 1], len == 1 ? text[0] : 'q', "others, %d", c);
                free(text);
            }
        }
    }
}
