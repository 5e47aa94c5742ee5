/* Documents: the examples of RFC 6901, 6902 and 7396, limits, and differences that lead from one document to another.
 */
#include <cb/config.h>
#include <cb/document.h>
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static cb_document *parse(const char *text) {
    cb_document *d = NULL;
    cr_assert_eq(cb_document_parse(&d, cb_slice_str(text), NULL), CB_OK, "%s: %s", text, cb_last_error());
    return d;
}

static char *text_at(const cb_document *d, const char *pointer) {
    char *text = NULL;
    cr_assert_eq(cb_document_text(&text, d, pointer, CB_DOCUMENT_COMPACT), CB_OK, "%s", cb_last_error());
    return text;
}

static void expect_text(const cb_document *d, const char *pointer, const char *want) {
    char *text = text_at(d, pointer);
    cr_expect_str_eq(text, want, "%s: %s", pointer, text);
    cb_config_text_free(text);
}

Test(document, the_pointers_of_rfc_6901) {
    cb_document *d = parse("{\"foo\": [\"bar\", \"baz\"], \"\": 0, \"a/b\": 1, \"c%d\": 2, \"e^f\": 3, \"g|h\": 4,"
                           "\"i\\\\j\": 5, \"k\\\"l\": 6, \" \": 7, \"m~n\": 8}");
    static const char *const rows[][2] = {{"/foo", "[\"bar\",\"baz\"]"},
                                          {"/foo/0", "\"bar\""},
                                          {"/", "0"},
                                          {"/a~1b", "1"},
                                          {"/c%d", "2"},
                                          {"/e^f", "3"},
                                          {"/g|h", "4"},
                                          {"/i\\j", "5"},
                                          {"/k\"l", "6"},
                                          {"/ ", "7"},
                                          {"/m~0n", "8"}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        expect_text(d, rows[i][0], rows[i][1]);
    expect_text(d, "",
                "{\"foo\":[\"bar\",\"baz\"],\"\":0,\"a/b\":1,\"c%d\":2,\"e^f\":3,\"g|h\":4,\"i\\\\j\":5,"
                "\"k\\\"l\":6,\" \":7,\"m~n\":8}");
    static const struct {
        const char *pointer;
        int rc;
    } none[] = {{"foo", CB_EINVAL},
                {"/foo/2", CB_ENOENT},
                {"/foo/-", CB_ENOENT},
                {"/foo/01", CB_ENOENT},
                {"/foo/1e0", CB_ENOENT},
                {"/m~n", CB_EINVAL},
                {"/m~", CB_EINVAL},
                {"/m~2", CB_EINVAL},
                {"/foo/0/x", CB_ENOENT},
                {"/nobody/~", CB_EINVAL},
                {"/foo/-1", CB_ENOENT},
                {"/foo/", CB_ENOENT},
                {"/we\xfc"
                 "b",
                 CB_EINVAL}};
    for (size_t i = 0; i < sizeof none / sizeof *none; i++) {
        char *text = NULL;
        cr_expect_eq(cb_document_text(&text, d, none[i].pointer, CB_DOCUMENT_COMPACT), none[i].rc, "%s",
                     none[i].pointer);
        cr_expect_eq(cb_document_has(d, none[i].pointer), 0);
    }
    cr_expect(cb_document_count(d, "") == 10 && cb_document_count(d, "/foo") == 2 && cb_document_count(d, "/ ") == 0);
    cr_expect(cb_document_count(d, "/nobody") == CB_ENOENT && cb_document_count(d, "x") == CB_EINVAL);
    cr_expect_str_eq(cb_document_member(d, "", 2), "a/b");
    cr_expect(!cb_document_member(d, "", 10) && !cb_document_member(d, "/foo", 0));
    cr_expect_str_eq(cb_document_string(d, "/foo/1"), "baz");
    cr_expect_null(cb_document_string(d, "/foo"));
    cb_document_free(d);
}

/* Appendix A of RFC 6902; what must fail has no result. */
static const struct {
    const char *about, *before, *patch, *after;
    int rc;
} patches[] = {
    {"A.1", "{\"foo\":\"bar\"}", "[{\"op\":\"add\",\"path\":\"/baz\",\"value\":\"qux\"}]",
     "{\"foo\":\"bar\",\"baz\":\"qux\"}", 0},
    {"A.2", "{\"foo\":[\"bar\",\"baz\"]}", "[{\"op\":\"add\",\"path\":\"/foo/1\",\"value\":\"qux\"}]",
     "{\"foo\":[\"bar\",\"qux\",\"baz\"]}", 0},
    {"A.3", "{\"baz\":\"qux\",\"foo\":\"bar\"}", "[{\"op\":\"remove\",\"path\":\"/baz\"}]", "{\"foo\":\"bar\"}", 0},
    {"A.4", "{\"foo\":[\"bar\",\"qux\",\"baz\"]}", "[{\"op\":\"remove\",\"path\":\"/foo/1\"}]",
     "{\"foo\":[\"bar\",\"baz\"]}", 0},
    {"A.5", "{\"baz\":\"qux\",\"foo\":\"bar\"}", "[{\"op\":\"replace\",\"path\":\"/baz\",\"value\":\"boo\"}]",
     "{\"baz\":\"boo\",\"foo\":\"bar\"}", 0},
    {"A.6", "{\"foo\":{\"bar\":\"baz\",\"waldo\":\"fred\"},\"qux\":{\"corge\":\"grault\"}}",
     "[{\"op\":\"move\",\"from\":\"/foo/waldo\",\"path\":\"/qux/thud\"}]",
     "{\"foo\":{\"bar\":\"baz\"},\"qux\":{\"corge\":\"grault\",\"thud\":\"fred\"}}", 0},
    {"A.7", "{\"foo\":[\"all\",\"grass\",\"cows\",\"eat\"]}",
     "[{\"op\":\"move\",\"from\":\"/foo/1\",\"path\":\"/foo/3\"}]", "{\"foo\":[\"all\",\"cows\",\"eat\",\"grass\"]}",
     0},
    {"A.8", "{\"baz\":\"qux\",\"foo\":[\"a\",2,\"c\"]}",
     "[{\"op\":\"test\",\"path\":\"/baz\",\"value\":\"qux\"},{\"op\":\"test\",\"path\":\"/foo/1\",\"value\":2}]",
     "{\"baz\":\"qux\",\"foo\":[\"a\",2,\"c\"]}", 0},
    {"A.9", "{\"baz\":\"qux\"}", "[{\"op\":\"test\",\"path\":\"/baz\",\"value\":\"bar\"}]", NULL, CB_EEXIST},
    {"A.10", "{\"foo\":\"bar\"}", "[{\"op\":\"add\",\"path\":\"/child\",\"value\":{\"grandchild\":{}}}]",
     "{\"foo\":\"bar\",\"child\":{\"grandchild\":{}}}", 0},
    {"A.11", "{\"foo\":\"bar\"}", "[{\"op\":\"add\",\"path\":\"/baz\",\"value\":\"qux\",\"xyz\":123}]",
     "{\"foo\":\"bar\",\"baz\":\"qux\"}", 0},
    {"A.12", "{\"foo\":\"bar\"}", "[{\"op\":\"add\",\"path\":\"/baz/bat\",\"value\":\"qux\"}]", NULL, CB_ENOENT},
    {"A.13", "{\"foo\":\"bar\"}", "[{\"op\":\"add\",\"path\":\"/baz\",\"value\":\"qux\",\"op\":\"remove\"}]", NULL,
     CB_EINVAL},
    {"A.14", "{\"/\":9,\"~1\":10}", "[{\"op\":\"test\",\"path\":\"/~01\",\"value\":10}]", "{\"/\":9,\"~1\":10}", 0},
    {"A.15", "{\"/\":9,\"~1\":10}", "[{\"op\":\"test\",\"path\":\"/~01\",\"value\":\"10\"}]", NULL, CB_EEXIST},
    {"A.16", "{\"foo\":[\"bar\"]}", "[{\"op\":\"add\",\"path\":\"/foo/-\",\"value\":[\"abc\",\"def\"]}]",
     "{\"foo\":[\"bar\",[\"abc\",\"def\"]]}", 0},
    {"add replaces a member", "{\"a\":1}", "[{\"op\":\"add\",\"path\":\"/a\",\"value\":null}]", "{\"a\":null}", 0},
    {"add the whole", "{\"a\":1}", "[{\"op\":\"add\",\"path\":\"\",\"value\":[1]}]", "[1]", 0},
    {"add at the end by number", "[1]", "[{\"op\":\"add\",\"path\":\"/1\",\"value\":2}]", "[1,2]", 0},
    {"add beyond the end", "[1]", "[{\"op\":\"add\",\"path\":\"/2\",\"value\":2}]", NULL, CB_ENOENT},
    {"remove the whole", "[1]", "[{\"op\":\"remove\",\"path\":\"\"}]", NULL, CB_EINVAL},
    {"remove nothing", "[1]", "[{\"op\":\"remove\",\"path\":\"/1\"}]", NULL, CB_ENOENT},
    {"replace nothing", "{}", "[{\"op\":\"replace\",\"path\":\"/a\",\"value\":1}]", NULL, CB_ENOENT},
    {"replace the whole", "{}", "[{\"op\":\"replace\",\"path\":\"\",\"value\":7}]", "7", 0},
    {"move into itself", "{\"a\":{}}", "[{\"op\":\"move\",\"from\":\"/a\",\"path\":\"/a/b\"}]", NULL, CB_EINVAL},
    {"move beside itself", "{\"a\":1,\"ab\":2}", "[{\"op\":\"move\",\"from\":\"/a\",\"path\":\"/ab\"}]", "{\"ab\":1}",
     0},
    {"move to where it is", "{\"a\":1}", "[{\"op\":\"move\",\"from\":\"/a\",\"path\":\"/a\"}]", "{\"a\":1}", 0},
    {"copy into itself", "{\"a\":{}}", "[{\"op\":\"copy\",\"from\":\"\",\"path\":\"/a/b\"}]",
     "{\"a\":{\"b\":{\"a\":{}}}}", 0},
    {"test by value", "[1.0]", "[{\"op\":\"test\",\"path\":\"/0\",\"value\":10e-1}]", "[1.0]", 0},
    {"test of large integers", "[9007199254740993]", "[{\"op\":\"test\",\"path\":\"/0\",\"value\":9007199254740992}]",
     NULL, CB_EEXIST},
    {"test of signs", "[-0.0]", "[{\"op\":\"test\",\"path\":\"/0\",\"value\":0}]", "[-0.0]", 0},
    {"test in another order", "{\"a\":{\"x\":1,\"y\":2}}",
     "[{\"op\":\"test\",\"path\":\"/a\",\"value\":{\"y\":2,\"x\":1}}]", "{\"a\":{\"x\":1,\"y\":2}}", 0},
    {"no array", "{}", "{\"op\":\"add\"}", NULL, CB_EINVAL},
    {"no object", "{}", "[1]", NULL, CB_EINVAL},
    {"no path", "{}", "[{\"op\":\"add\",\"value\":1}]", NULL, CB_EINVAL},
    {"no value", "{}", "[{\"op\":\"add\",\"path\":\"/a\"}]", NULL, CB_EINVAL},
    {"no from", "{}", "[{\"op\":\"copy\",\"path\":\"/a\"}]", NULL, CB_EINVAL},
    {"an op of another kind", "{}", "[{\"op\":\"merge\",\"path\":\"/a\"}]", NULL, CB_EINVAL},
    {"no pointer", "{}", "[{\"op\":\"add\",\"path\":\"a\",\"value\":1}]", NULL, CB_EINVAL},
    {"all or nothing", "{\"a\":1}", "[{\"op\":\"remove\",\"path\":\"/a\"},{\"op\":\"remove\",\"path\":\"/a\"}]", NULL,
     CB_ENOENT},
};

Test(document, the_patches_of_rfc_6902) {
    for (size_t i = 0; i < sizeof patches / sizeof *patches; i++) {
        cb_document *d = parse(patches[i].before);
        cr_expect_eq(cb_document_patch(d, "", cb_slice_str(patches[i].patch), NULL), patches[i].rc, "%s: %s",
                     patches[i].about, cb_last_error());
        expect_text(d, "", patches[i].after ? patches[i].after : patches[i].before);
        cb_document_free(d);
    }
}

/* Appendix A of RFC 7396. */
static const char *const merges[][3] = {
    {"{\"a\":\"b\"}", "{\"a\":\"c\"}", "{\"a\":\"c\"}"},
    {"{\"a\":\"b\"}", "{\"b\":\"c\"}", "{\"a\":\"b\",\"b\":\"c\"}"},
    {"{\"a\":\"b\"}", "{\"a\":null}", "{}"},
    {"{\"a\":\"b\",\"b\":\"c\"}", "{\"a\":null}", "{\"b\":\"c\"}"},
    {"{\"a\":[\"b\"]}", "{\"a\":\"c\"}", "{\"a\":\"c\"}"},
    {"{\"a\":\"c\"}", "{\"a\":[\"b\"]}", "{\"a\":[\"b\"]}"},
    {"{\"a\":{\"b\":\"c\"}}", "{\"a\":{\"b\":\"d\",\"c\":null}}", "{\"a\":{\"b\":\"d\"}}"},
    {"{\"a\":[{\"b\":\"c\"}]}", "{\"a\":[1]}", "{\"a\":[1]}"},
    {"[\"a\",\"b\"]", "[\"c\",\"d\"]", "[\"c\",\"d\"]"},
    {"{\"a\":\"b\"}", "[\"c\"]", "[\"c\"]"},
    {"{\"a\":\"foo\"}", "null", "null"},
    {"{\"a\":\"foo\"}", "\"bar\"", "\"bar\""},
    {"{\"e\":null}", "{\"a\":1}", "{\"e\":null,\"a\":1}"},
    {"[1,2]", "{\"a\":\"b\",\"c\":null}", "{\"a\":\"b\"}"},
    {"{}", "{\"a\":{\"bb\":{\"ccc\":null}}}", "{\"a\":{\"bb\":{}}}"},
};

Test(document, the_merges_of_rfc_7396) {
    for (size_t i = 0; i < sizeof merges / sizeof *merges; i++) {
        cb_document *d = parse(merges[i][0]);
        cr_expect_eq(cb_document_merge(d, "", cb_slice_str(merges[i][1]), NULL), CB_OK, "%s", cb_last_error());
        expect_text(d, "", merges[i][2]);
        cb_document_free(d);
    }
}

Test(document, a_part_is_changed_by_its_pointer) {
    cb_document *d =
        parse("{\"groups\": {\"web\": {\"origins\": [{\"url\": \"http://a\"}]}}, \"n\": 18446744073709551615}");
    cr_expect_eq(cb_document_put(d, "/groups/api", cb_slice_str("{/* new */\"origins\": []}"), NULL), CB_OK);
    cr_expect_eq(cb_document_put(d, "/groups/api/origins/-", cb_slice_str("\"one\""), NULL), CB_OK);
    cr_expect_eq(cb_document_put(d, "/groups/api/origins/1", cb_slice_str("\"two\""), NULL), CB_OK);
    cr_expect_eq(cb_document_put(d, "/groups/api/origins/0", cb_slice_str("\"zero\""), NULL), CB_OK);
    cr_expect_eq(cb_document_put(d, "/groups/api/origins/3", cb_slice_str("1"), NULL), CB_ENOENT);
    cr_expect_eq(cb_document_put(d, "/nobody/x", cb_slice_str("1"), NULL), CB_ENOENT);
    cr_expect_eq(cb_document_put(d, "/n/x", cb_slice_str("1"), NULL), CB_ENOENT);
    expect_text(d, "/groups/api", "{\"origins\":[\"zero\",\"two\"]}");
    cr_expect_eq(cb_document_patch(d, "/groups/web",
                                   cb_slice_str("[{\"op\":\"copy\",\"from\":\"/origins/0\",\"path\":"
                                                "\"/origins/-\"}]"),
                                   NULL),
                 CB_OK, "%s", cb_last_error());
    cr_expect_eq(cb_document_patch(d, "/groups/web", cb_slice_str("[{\"op\":\"remove\",\"path\":\"/groups\"}]"), NULL),
                 CB_ENOENT);
    cr_expect_eq(cb_document_merge(d, "/groups", cb_slice_str("{\"api\":null}"), NULL), CB_OK);
    cr_expect_eq(cb_document_merge(d, "/groups/api", cb_slice_str("{}"), NULL), CB_ENOENT);
    expect_text(d, "",
                "{\"groups\":{\"web\":{\"origins\":[{\"url\":\"http://a\"},{\"url\":\"http://a\"}]}},"
                "\"n\":18446744073709551615}");
    cr_expect_eq(cb_document_remove(d, "/groups/web/origins/0"), CB_OK);
    cr_expect_eq(cb_document_remove(d, "/groups/web/origins/1"), CB_ENOENT);
    cr_expect_eq(cb_document_remove(d, ""), CB_EINVAL);
    expect_text(d, "/groups/web", "{\"origins\":[{\"url\":\"http://a\"}]}");
    cb_document_free(d);
}

Test(document, what_numbers_and_texts_are_stays) {
    const char *text = "{\"a\":-9223372036854775808,\"b\":0.10,\"c\":1E400,\"d\":\"\\u0001\\\"\\\\\\n\\t/\",\"e\":"
                       "\"\xf0\x9f\x98\x80\"}";
    cb_document *d = parse(text);
    expect_text(d, "", text);
    cb_document_free(d);
    d = parse("\"\\ud83d\\ude00\\/\\b\"");
    expect_text(d, "", "\"\xf0\x9f\x98\x80/\\u0008\"");
    cb_document_free(d);
    char *lines = NULL;
    d = parse("{\"a\":[1,{}],\"b\":[],\"c\":{\"d\":null}}");
    cr_expect_eq(cb_document_text(&lines, d, "", CB_DOCUMENT_LINES), CB_OK);
    cr_expect_str_eq(lines, "{\n  \"a\": [\n    1,\n    {}\n  ],\n  \"b\": [],\n  \"c\": {\n    \"d\": null\n  }\n}\n");
    cb_config_text_free(lines);
    cb_document_free(d);
}

Test(document, a_mistake_has_its_place) {
    static const struct {
        const char *text;
        uint32_t line, column;
    } rows[] = {{"{\n  \"a\": 1,\n  \"a\": 2\n}", 3, 3},
                {"{\"a\": tru}", 1, 7},
                {"", 1, 1},
                {"[1,\n2,]", 2, 3},
                {"\"\\u0000\"", 1, 2}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cb_document *d = NULL;
        cb_document_mistake m = {.size = sizeof m};
        cr_expect_eq(cb_document_parse(&d, cb_slice_str(rows[i].text), &m), CB_EINVAL);
        cr_expect_null(d);
        cr_expect(m.line == rows[i].line && m.column == rows[i].column, "%s: %u:%u %s", rows[i].text, m.line, m.column,
                  m.text);
    }
    uint32_t line = 0, column = 0;
    const cb_slice text = cb_slice_str("{ // first\n  \"a\": {\"b\": [1,\n 2]}\n}");
    cr_expect_eq(cb_document_where(text, "/a/b/1", &line, &column), CB_OK);
    cr_expect(line == 3 && column == 2, "%u:%u", line, column);
    cr_expect_eq(cb_document_where(text, "/a/nobody", &line, &column), CB_OK);
    cr_expect(line == 2 && column == 3, "%u:%u", line, column);
}

static void nest(char *out, int levels) {
    memset(out, '[', (size_t)levels);
    memset(out + levels, ']', (size_t)levels);
    out[2 * levels] = '\0';
}

Test(document, depth_is_bounded_in_all_that_is_made) {
    char text[80], more[400];
    cb_document *d = NULL;
    nest(text, 33);
    cr_expect_eq(cb_document_parse(&d, cb_slice_str(text), NULL), CB_EINVAL);
    nest(text, 32);
    d = parse(text);
    cr_expect_eq(cb_document_patch(d, "", cb_slice_str("[{\"op\":\"copy\",\"from\":\"\",\"path\":\"/-\"}]"), NULL),
                 CB_ELIMIT);
    cr_expect_eq(cb_document_put(d, "/0/-", cb_slice_str("[]"), NULL), CB_OK);
    nest(more, 31);
    cr_expect_eq(cb_document_put(d, "/0/-", cb_slice_str(more), NULL), CB_ELIMIT);
    cb_document_free(d);
    d = parse("{\"a\":{\"b\":{}}}");
    nest(text, 30);
    snprintf(more, sizeof more, "{\"a\":{\"c\":%s,\"d\":[%s]}}", text, text);
    cr_expect_eq(cb_document_merge(d, "", cb_slice_str(more), NULL), CB_EINVAL, "the patch itself is too deep");
    snprintf(more, sizeof more, "{\"c\":%s}", text);
    cr_expect_eq(cb_document_merge(d, "/a", cb_slice_str(more), NULL), CB_OK);
    cr_expect_eq(cb_document_merge(d, "/a/b", cb_slice_str(more), NULL), CB_ELIMIT);
    cb_document_free(d);
}

Test(document, size_is_bounded_in_all_that_is_made) {
    const size_t half = CB_DOCUMENT_BYTES / 2 + 100;
    char *text = malloc(CB_DOCUMENT_BYTES + 2);
    cb_document *d = NULL;
    memset(text, ' ', CB_DOCUMENT_BYTES + 1);
    cr_expect_eq(cb_document_parse(&d, (cb_slice){(uint8_t *)text, CB_DOCUMENT_BYTES + 1}, NULL), CB_ELIMIT);
    memset(text, 'x', half);
    text[0] = text[half - 1] = '"';
    const cb_slice value = {(uint8_t *)text, half};
    d = parse("[0]");
    cr_expect_eq(cb_document_put(d, "/0", value, NULL), CB_OK);
    cr_expect_eq(cb_document_put(d, "/-", value, NULL), CB_ELIMIT);
    cr_expect_eq(cb_document_put(d, "/0", value, NULL), CB_OK, "what is replaced makes room");
    cr_expect_eq(cb_document_patch(d, "", cb_slice_str("[{\"op\":\"copy\",\"from\":\"/0\",\"path\":\"/-\"}]"), NULL),
                 CB_ELIMIT);
    cr_expect_eq(cb_document_remove(d, "/0"), CB_OK);
    cr_expect_eq(cb_document_put(d, "/-", value, NULL), CB_OK);
    cb_document_free(d);
    free(text);
}

Test(document, copies_of_copies_end_at_a_limit) {
    char patch[64 * 80] = "[{\"op\":\"add\",\"path\":\"\",\"value\":[[\"0123456789\"]]}";
    for (int i = 0; i < 60; i++)
        strcat(patch, ",{\"op\":\"copy\",\"from\":\"/0\",\"path\":\"/0/-\"}");
    strcat(patch, "]");
    cb_document *d = parse("7");
    cr_expect_eq(cb_document_patch(d, "", cb_slice_str(patch), NULL), CB_ELIMIT);
    expect_text(d, "", "7");
    cb_document_free(d);
}

Test(document, names_and_operations_are_bounded) {
    char *text = malloc(64 * 1024);
    cb_document *d = NULL;
    int n = sprintf(text, "{\"");
    memset(text + n, 'n', 1025);
    sprintf(text + n + 1025, "\":1}");
    cr_expect_eq(cb_document_parse(&d, cb_slice_str(text), NULL), CB_ELIMIT);
    sprintf(text + n + 1024, "\":1}");
    cr_expect_eq(cb_document_parse(&d, cb_slice_str(text), NULL), CB_OK);
    cb_document_free(d);
    n = sprintf(text, "{\"");
    for (int i = 0; i < 1024; i++)
        n += sprintf(text + n, "\\u0041");
    sprintf(text + n, "\":1}");
    cr_expect_eq(cb_document_parse(&d, cb_slice_str(text), NULL), CB_OK, "%s", cb_last_error());
    n = sprintf(text, "[");
    for (int i = 0; i <= CB_DOCUMENT_PATCH_OPS; i++)
        n += sprintf(text + n, "%s{\"op\":\"test\",\"path\":\"\",\"value\":1}", i ? "," : "");
    sprintf(text + n, "]");
    cr_expect_eq(cb_document_patch(d, "", cb_slice_str(text), NULL), CB_ELIMIT);
    cb_document_free(d);
    free(text);
}

/* ---- differences ---- */

static void gather(const cb_document_change *c, void *user) {
    char *out = user;
    sprintf(out + strlen(out), "%s %s>%s;", c->pointer, c->before ? c->before : "", c->after ? c->after : "");
}

Test(document, differences_name_the_smallest_parts) {
    static const char *const rows[][3] = {
        {"{\"a\":1,\"b\":{\"c\":[1,2,3]}}", "{\"b\":{\"c\":[1,9,3]},\"d\":{}}", "/a 1>;/b/c/1 2>9;/d >{};"},
        {"{\"a\":1,\"b\":2}", "{\"b\":2,\"a\":1}", ""},
        {"[1,2,3]", "[0,1,2,3]", "/0 >0;"},
        {"[1,2,3,4]", "[1,4]", "/2 3>;/1 2>;"},
        {"[{\"u\":1},{\"u\":2}]", "[{\"u\":1},{\"u\":5},{\"u\":6}]", "/1/u 2>5;/2 >{\"u\":6};"},
        {"1", "1.0", " 1>1.0;"},
        {"{\"a/b\":{\"~\":1}}", "{\"a/b\":{\"~\":2}}", "/a~1b/~0 1>2;"},
        {"{\"a\":[]}", "{\"a\":{}}", "/a []>{};"},
        {"[1,1,1]", "[1,1]", "/2 1>;"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char told[400] = "";
        cb_document *a = parse(rows[i][0]), *b = parse(rows[i][1]);
        cr_expect_eq(cb_document_diff(a, b, gather, told), CB_OK);
        cr_expect_str_eq(told, rows[i][2], "%s", told);
        cb_document_free(a);
        cb_document_free(b);
    }
    cb_document *a = parse("{\"a\":1,\"b\":[\"x\"]}"), *b = parse("{\"a\":2,\"b\":[]}");
    char *text = NULL, *patch = NULL;
    cr_expect_eq(cb_document_diff_text(&text, a, b), CB_OK);
    cr_expect_str_eq(text, "- /a: 1\n+ /a: 2\n- /b/0: \"x\"\n");
    cr_expect_eq(cb_document_diff_patch(&patch, a, b), CB_OK);
    cr_expect_str_eq(patch, "[{\"op\":\"replace\",\"path\":\"/a\",\"value\":2},{\"op\":\"remove\",\"path\":\"/b/0\"}]");
    cb_config_text_free(text);
    cb_config_text_free(patch);
    cb_document_free(a);
    cb_document_free(b);
}

/* A document of chance, of few names and values so that two of them have much in common. */
static size_t make(char *out, uint32_t *seed, int depth) {
    static const char *const leaves[] = {"1", "2", "true", "null", "\"x\"", "\"y/~\"", "-3.5e2", "[]", "{}"};
    static const char *const names[] = {"a", "b", "c~", "d/e", ""};
    const uint32_t r = (*seed = *seed * 1664525u + 1013904223u) >> 8;
    if (depth == 0 || r % 3 == 0) return (size_t)sprintf(out, "%s", leaves[r / 3 % 9]);
    const bool object = r % 3 == 1;
    const uint32_t n = object ? r / 8 % 32 : r / 8 % 5;
    size_t at = (size_t)sprintf(out, object ? "{" : "[");
    bool any = false;
    for (uint32_t i = 0; i < 5; i++) {
        if (object ? !(n >> i & 1) : i >= n) continue;
        at += (size_t)sprintf(out + at, any ? "," : "");
        if (object) at += (size_t)sprintf(out + at, "\"%s\":", names[i]);
        at += make(out + at, seed, depth - 1);
        any = true;
    }
    return at + (size_t)sprintf(out + at, object ? "}" : "]");
}

Test(document, a_difference_leads_from_one_document_to_the_other) {
    static char one[1 << 18], two[1 << 18];
    uint32_t seed = 20261126, patched = 0;
    for (int i = 0; i < 3000; i++) {
        char *patch = NULL;
        make(one, &seed, 4);
        make(two, &seed, 4);
        cb_document *a = parse(one), *b = parse(two);
        cr_assert_eq(cb_document_diff_patch(&patch, a, b), CB_OK);
        int rc = cb_document_patch(a, "", cb_slice_str(patch), NULL);
        cr_assert_eq(rc, CB_OK, "%s to %s by %s: %s", one, two, patch, cb_last_error());
        cr_assert(cb_document_equal(a, b), "%s to %s by %s", one, two, patch);
        patched += strlen(patch) > 2;
        cb_config_text_free(patch);
        cb_document_free(a);
        cb_document_free(b);
    }
    cr_expect_gt(patched, 2000);
}
