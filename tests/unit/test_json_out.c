/* cb/json.h: what is written is JSON, or it is told why not. */
#include "auth/json.h"
#include <cb/json.h>
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static cb_json_out *o;

static void setup(void) {
    cr_assert_eq(cb_json_out_new(&o, 0), CB_OK);
}

static void teardown(void) {
    cb_json_out_free(o);
}

static void expect(const char *wanted) {
    cb_slice text = {0};
    const int rc = cb_json_out_text(o, &text);
    cr_assert_eq(rc, CB_OK, "%s: %s", wanted, cb_last_error());
    cr_expect(text.len == strlen(wanted) && memcmp(text.base, wanted, text.len) == 0, "%.*s instead of %s",
              (int)text.len, (const char *)text.base, wanted);
    cb_json_out_clear(o);
}

Test(json_out, values, .init = setup, .fini = teardown) {
    cb_json_put_object(o, NULL);
    cb_json_put_str(o, "a", "x");
    cb_json_put_list(o, "b");
    cb_json_put_int(o, NULL, INT64_MIN);
    cb_json_put_uint(o, NULL, UINT64_MAX);
    cb_json_put_bool(o, NULL, 5);
    cb_json_put_null(o, NULL);
    cb_json_put_object(o, NULL);
    cb_json_put_end(o);
    cb_json_put_end(o);
    cb_json_put_raw(o, "c", cb_slice_str("[1,2]"));
    cb_json_put_str(o, "d", NULL);
    cb_json_put_end(o);
    expect("{\"a\":\"x\",\"b\":[-9223372036854775808,18446744073709551615,true,null,{}],\"c\":[1,2],\"d\":null}");
    cb_json_put_list(o, NULL);
    cb_json_put_end(o);
    expect("[]");
    cb_json_put_bool(o, NULL, 0);
    expect("false");
}

Test(json_out, texts_are_quoted, .init = setup, .fini = teardown) {
    static const struct {
        const char *in;
        size_t len;
        const char *out;
    } rows[] = {
        {"", 0, "\"\""},
        {"a\"b\\c/d", 7, "\"a\\\"b\\\\c/d\""},
        {"\x00\x01\n\x1f\x7f", 5, "\"\\u0000\\u0001\\u000a\\u001f\x7f\""},
        {"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", 9, "\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\""},
        {"a\xff"
         "b\xc3",
         4,
         "\"a\xef\xbf\xbd"
         "b\xef\xbf\xbd\""},                                             /* no UTF-8, and one cut off */
        {"\xed\xa0\x80", 3, "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\""}, /* a surrogate */
        {"\xc0\xaf", 2, "\"\xef\xbf\xbd\xef\xbf\xbd\""},                 /* an overlong slash */
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cb_json_put_text(o, NULL, (cb_slice){(const uint8_t *)rows[i].in, rows[i].len});
        expect(rows[i].out);
    }
    cb_json_put_object(o, NULL);
    cb_json_put_int(o, "a\"\n", 1);
    cb_json_put_end(o);
    expect("{\"a\\\"\\u000a\":1}");
}

Test(json_out, numbers_read_back, .init = setup, .fini = teardown) {
    static const double rows[] = {0, 0.1, 1.0 / 3, 1e300, -1e-300, 123456789.125, 5e-324, 1.7976931348623157e308};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cb_slice text;
        char copy[64];
        cb_json_put_number(o, NULL, rows[i]);
        cr_assert_eq(cb_json_out_text(o, &text), CB_OK);
        snprintf(copy, sizeof copy, "%.*s", (int)text.len, (const char *)text.base);
        cr_expect(strtod(copy, NULL) == rows[i], "row %zu: %s", i, copy);
        cb_json json = {0};
        cr_expect_eq(cb_json_open(&json, text), CB_OK, "%s: %s", copy, cb_last_error());
        cb_json_close(&json);
        cb_json_out_clear(o);
    }
    cb_json_put_number(o, NULL, NAN);
    expect("null");
    cb_json_put_number(o, NULL, -INFINITY);
    expect("null");
}

typedef void (*step)(void);
static void object(void) {
    cb_json_put_object(o, NULL);
}
static void member(void) {
    cb_json_put_int(o, "x", 1);
}
static void value(void) {
    cb_json_put_int(o, NULL, 1);
}
static void end(void) {
    cb_json_put_end(o);
}

Test(json_out, mistakes_are_told, .init = setup, .fini = teardown) {
    static const step rows[][4] = {{NULL},         {object}, {object, value},   {member},
                                   {value, value}, {end},    {object, end, end}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cb_slice text;
        for (size_t k = 0; k < 4 && rows[i][k]; k++)
            rows[i][k]();
        cr_expect_eq(cb_json_out_text(o, &text), CB_EINVAL, "row %zu", i);
        cb_json_out_clear(o);
    }
    for (int i = 0; i < 40; i++)
        cb_json_put_list(o, NULL);
    for (int i = 0; i < 40; i++)
        cb_json_put_end(o);
    cb_slice text;
    cr_expect_eq(cb_json_out_text(o, &text), CB_EINVAL, "40 levels");
    cb_json_out *small = NULL;
    cr_assert_eq(cb_json_out_new(&small, 8), CB_OK);
    cb_json_put_str(small, NULL, "too long for it");
    cr_expect_eq(cb_json_out_text(small, &text), CB_ELIMIT, "%s", cb_last_error());
    cb_json_out_free(small);
}

Test(json_out, all_levels_that_are_allowed, .init = setup, .fini = teardown) {
    char wanted[2 * CB_JSON_OUT_DEPTH + 1];
    for (int i = 0; i < CB_JSON_OUT_DEPTH; i++) {
        cb_json_put_list(o, NULL);
        wanted[i] = '[';
        wanted[2 * CB_JSON_OUT_DEPTH - 1 - i] = ']';
    }
    for (int i = 0; i < CB_JSON_OUT_DEPTH; i++)
        cb_json_put_end(o);
    wanted[2 * CB_JSON_OUT_DEPTH] = '\0';
    expect(wanted);
}
