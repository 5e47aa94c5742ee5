#include "config/draft.h"
#include "config/scan.h"
#include "support/scratch.h"
#include <cb/config.h>
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char *const policies[] = {"round_robin", "least_connections", NULL};
static const char *const versions[] = {"h1", "h2", "h3", NULL};

typedef struct tls_part {
    const char *cert;
    int32_t tls12;
} tls_part;

typedef struct limits_part {
    int64_t max_body_bytes, idle_timeout_ms;
} limits_part;

typedef struct group_part {
    const char *name;
    cb_config_list origins;
    int32_t policy;
    uint32_t versions;
} group_part;

typedef struct root_part {
    const char *listen, *user;
    int64_t workers;
    int32_t quiet;
    const tls_part *tls;
    const limits_part *limits;
    cb_config_list groups, trusted, parts;
} root_part;

#define AT(type, member) .offset = offsetof(type, member)

static const cb_config_rule tls_rules[] = {
    {.name = "cert",
     .kind = CB_CONFIG_TEXT,
     .format = CB_FORMAT_FILE,
     .required = 1,
     AT(tls_part, cert),
     .doc = "A file."},
    {.name = "tls12", .kind = CB_CONFIG_BOOL, .fallback = "false", AT(tls_part, tls12)},
    {.name = NULL}};
static const cb_config_rule limits_rules[] = {{.name = "max_body_bytes",
                                               .kind = CB_CONFIG_INT,
                                               .min = 0,
                                               .max = INT64_MAX,
                                               .fallback = "0",
                                               AT(limits_part, max_body_bytes)},
                                              {.name = "idle_timeout_ms",
                                               .kind = CB_CONFIG_INT,
                                               .min = 1,
                                               .max = 3600000,
                                               .fallback = "60000",
                                               AT(limits_part, idle_timeout_ms)},
                                              {.name = NULL}};
static const cb_config_rule group_rules[] = {
    {.name = "origins",
     .kind = CB_CONFIG_ARRAY,
     .format = CB_FORMAT_ORIGIN,
     .min = 1,
     .max = 3,
     .required = 1,
     AT(group_part, origins)},
    {.name = "policy",
     .kind = CB_CONFIG_ENUM,
     .names = policies,
     .fallback = "least_connections",
     AT(group_part, policy)},
    {.name = "versions", .kind = CB_CONFIG_SET, .names = versions, .fallback = "h1,h2", AT(group_part, versions)},
    {.name = NULL}};
static const cb_config_rule root_rules[] = {
    {.name = "listen",
     .kind = CB_CONFIG_TEXT,
     .format = CB_FORMAT_LISTEN,
     .required = 1,
     AT(root_part, listen),
     .doc = "Say \"where\"."},
    {.name = "user", .kind = CB_CONFIG_TEXT, .min = 1, .max = 9, AT(root_part, user)},
    {.name = "workers", .kind = CB_CONFIG_INT, .min = 1, .max = 256, .fallback = "2", AT(root_part, workers)},
    {.name = "quiet", .kind = CB_CONFIG_BOOL, AT(root_part, quiet)},
    {.name = "tls", .kind = CB_CONFIG_OBJECT, .members = tls_rules, .item_size = sizeof(tls_part), AT(root_part, tls)},
    {.name = "limits",
     .kind = CB_CONFIG_OBJECT,
     .members = limits_rules,
     .item_size = sizeof(limits_part),
     .fallback = "{}",
     AT(root_part, limits)},
    {.name = "groups",
     .kind = CB_CONFIG_MAP,
     .format = CB_FORMAT_NAME,
     .members = group_rules,
     .item_size = sizeof(group_part),
     AT(root_part, groups)},
    {.name = "trusted", .kind = CB_CONFIG_ARRAY, .format = CB_FORMAT_CIDR, AT(root_part, trusted)},
    {.name = "parts",
     .kind = CB_CONFIG_ARRAY,
     .members = tls_rules,
     .item_size = sizeof(tls_part),
     AT(root_part, parts)},
    {.name = NULL}};

static void check_user(cb_config_draft *d, const void *root) {
    const root_part *r = root;
    if (r->user && strcmp(r->user, "root") == 0) cb_config_complain(d, "/user", "root is not wanted");
    for (size_t i = 0; i < r->groups.len; i++)
        if (strcmp(((const group_part *)r->groups.at)[i].name, "bad") == 0)
            cb_config_complain(d, "/groups/bad/origins/0", "bad group");
}

static const cb_config_schema schema = {
    .size = sizeof schema, .title = "test", .members = root_rules, .root_size = sizeof(root_part), .check = check_user};

typedef struct told {
    char text[8000];
    int n;
} told;

static void tell(const cb_config_error *e, void *user) {
    told *t = user;
    size_t at = strlen(t->text);
    snprintf(t->text + at, sizeof t->text - at, "%s%u:%u %s %s", t->n++ ? "\n" : "", e->line, e->column, e->pointer,
             e->text);
}

static int parse(cb_config **out, const char *text, told *t) {
    *t = (told){.n = 0};
    return cb_config_parse(out, &schema, cb_slice_str(text), "x.json", tell, t);
}

Test(config, a_whole_document) {
    cb_config *c = NULL;
    told t;
    int rc =
        parse(&c,
              "\xef\xbb\xbf// the edge\n{\"$schema\": \"./x\", \"listen\": \":443\", /* \"user\": 1, */ \"user\": "
              "\"caf\\u00e9\\ud83d\\ude00\",\n"
              "\"groups\": {\"web\": {\"origins\": [\"http://a\", \"https://[::1]:8443\"], \"versions\": [\"h3\", "
              "\"h1\"], \"policy\": \"round_robin\"},\n"
              "  \"api.2\": {\"origins\": [\"http://b:80\"]}}, \"limits\": {\"max_body_bytes\": 9223372036854775807},\n"
              "\"trusted\": [\"10.0.0.0/8\", \"::1\", \"2001:db8::/32\"], \"parts\": [{\"cert\": \"a//b\", \"tls12\": "
              "true}, {\"cert\": \"/*c\"}]}\n",
              &t);
    cr_assert_eq(rc, CB_OK, "%s", cb_last_error());
    const root_part *r = cb_config_root(c);
    const group_part *g = r->groups.at;
    cr_expect_str_eq(r->listen, ":443");
    cr_expect_str_eq(r->user, "caf\xc3\xa9\xf0\x9f\x98\x80");
    cr_expect_eq(r->workers, 2);
    cr_expect_eq(r->quiet, 0);
    cr_expect_null(r->tls);
    cr_assert_not_null(r->limits);
    cr_expect_eq(r->limits->max_body_bytes, INT64_MAX);
    cr_expect_eq(r->limits->idle_timeout_ms, 60000);
    cr_assert_eq(r->groups.len, 2);
    cr_expect_str_eq(g[0].name, "web");
    cr_expect_eq(g[0].policy, 0);
    cr_expect_eq(g[0].versions, 5);
    cr_assert_eq(g[0].origins.len, 2);
    cr_expect_str_eq(((const char *const *)g[0].origins.at)[1], "https://[::1]:8443");
    cr_expect_str_eq(g[1].name, "api.2");
    cr_expect_eq(g[1].policy, 1);
    cr_expect_eq(g[1].versions, 3);
    cr_expect_eq(r->trusted.len, 3);
    cr_assert_eq(r->parts.len, 2);
    cr_expect_str_eq(((const tls_part *)r->parts.at)[0].cert, "a//b");
    cr_expect_eq(((const tls_part *)r->parts.at)[0].tls12, 1);
    cr_expect_str_eq(((const tls_part *)r->parts.at)[1].cert, "/*c");
    cr_expect_eq(cb_config_ref(c), c);
    cb_config_unref(c);
    cb_config_unref(c);
    cr_expect_eq(t.n, 0);
    cr_assert_eq(parse(&c, "{\"listen\":\":1\"}", &t), CB_OK);
    r = cb_config_root(c);
    cr_assert_not_null(r->limits);
    cr_expect_eq(r->limits->idle_timeout_ms, 60000);
    cr_expect_eq(r->groups.len, 0);
    cb_config_unref(c);
}

Test(config, mistakes_are_told_with_their_place) {
    static const struct {
        const char *text, *told;
    } rows[] = {
        /* syntax: the first mistake only */
        {"", "1:1  the document is empty"},
        {" // c", "1:6  the document is empty"},
        {"{\"listen\": \":1\",}", "1:17  a comma too many: no member follows it"},
        {"{\"trusted\": [\"::1\",]}", "1:20  a value is missing here (a comma too many before it?)"},
        {"{\"listen\": \":1\"", "1:1  this object has no end"},
        {"{\n \"listen\" \":1\"}", "2:11  a colon is missing after the member's name"},
        {"{\"a\": 1 \"b\": 2}", "1:9  a comma or \"}\" is missing before this"},
        {"[1 2]", "1:4  a comma or \"]\" is missing before this"},
        {"{listen: 1}", "1:2  a member's name in double quotes is missing here"},
        {"{'a': 1}", "1:2  a member's name in double quotes is missing here"},
        {"{\"a\": 'b'}", "1:7  texts stand in double quotes"},
        {"{\"a\": /* x", "1:7  this comment has no end"},
        {"{\"a\": / 1}", "1:7  a lone \"/\": comments begin with // or /*"},
        {"{\"a\": \"x\n\"}", "1:7  this text has no closing quote"},
        {"{\"a\": \"x\t\"}", "1:9  a control character in a text: write it as an escape"},
        {"{\"a\": \"\\x\"}", "1:8  this escape is not one of JSON's"},
        {"{\"a\": \"\\u12g4\"}", "1:8  this escape is not one of JSON's"},
        {"{\"a\": \"\\u0000\"}", "1:8  \\u0000 cannot be part of a text"},
        {"{\"a\": \"\\ud800x\"}", "1:8  half of a surrogate pair"},
        {"{\"a\": \"\\udc00\"}", "1:8  half of a surrogate pair"},
        {"{\"a\": \"\xc0\xaf\"}", "1:8  this is not UTF-8"},
        {"{\"a\": \"\xed\xa0\x80\"}", "1:8  this is not UTF-8"},
        {"{\"a\": 01}", "1:7  this is not a number of JSON"},
        {"{\"a\": 1.}", "1:7  this is not a number of JSON"},
        {"{\"a\": 1e}", "1:7  this is not a number of JSON"},
        {"{\"a\": -}", "1:7  this is not a number of JSON"},
        {"{\"a\": +1}", "1:7  this is not a value of JSON"},
        {"{\"a\": NaN}", "1:7  this is not a value of JSON"},
        {"{\"a\": 1111111111111111111111111111111111111111111111111111111111111}", "1:7  this number is too long"},
        {"{} {}", "1:4  more text after the end of the document"},
        {"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[", "1:33  nested more than 32 levels deep"},
        /* kinds */
        {"[]", "1:1  the document must be an object, not an array"},
        {"{}", "1:1  \"listen\" is missing"},
        {"{\"listen\": 443}", "1:12 /listen must be a text, not a number"},
        {"{\"listen\": null}", "1:12 /listen must be a text, not null"},
        {"{\"listen\": \":1\", \"workers\": \"2\"}", "1:29 /workers must be a whole number, not a text"},
        {"{\"listen\": \":1\", \"workers\": 2.0}",
         "1:29 /workers must be a whole number, written without \".\" and \"e\""},
        {"{\"listen\": \":1\", \"workers\": 0}", "1:29 /workers 0 is out of range: 1 to 256"},
        {"{\"listen\": \":1\", \"workers\": 18446744073709551617}",
         "1:29 /workers 18446744073709551617 is out of range: 1 to 256"},
        {"{\"listen\": \":1\", \"quiet\": 1}", "1:27 /quiet must be true or false, not a number"},
        {"{\"listen\": \":1\", \"tls\": []}", "1:25 /tls must be an object, not an array"},
        {"{\"listen\": \":1\", \"tls\": {}}", "1:25 /tls \"cert\" is missing"},
        {"{\"listen\": \":1\", \"parts\": {}}", "1:27 /parts must be an array, not an object"},
        {"{\"listen\": \":1\", \"parts\": [1]}", "1:28 /parts/0 must be an object, not a number"},
        {"{\"listen\": \":1\", \"parts\": [{\"cert\":\"\"}]}", "1:36 /parts/0/cert \"\": is an empty path"},
        {"{\"listen\": \":1\", \"groups\": []}", "1:28 /groups must be an object, not an array"},
        {"{\"listen\": \":1\", \"groups\": {\"a b\": {\"origins\": [\"http://x\"]}}}",
         "1:29 /groups/a b the name \"a b\": may have letters, digits, \"-\", \"_\" and \".\" only"},
        {"{\"listen\": \":1\", \"groups\": {\"a\": {\"origins\": []}}}",
         "1:46 /groups/a/origins has 0 items, must have 1 to 3"},
        {"{\"listen\": \":1\", \"groups\": {\"a\": {\"origins\": [1]}}}",
         "1:47 /groups/a/origins/0 must be a text, not a number"},
        {"{\"listen\": \":1\", \"user\": \"1234567890\"}", "1:26 /user has 10 bytes, must have 1 to 9"},
        {"{\"listen\": \":1\", \"user\": \"root\"}", "1:26 /user root is not wanted"},
        {"{\"listen\": \":1\",\n \"groups\": {\"bad\": {\"origins\": [\"http://x\"]}}}",
         "2:33 /groups/bad/origins/0 bad group"},
        /* names */
        {"{\"lisen\": \":1\"}",
         "1:1  \"listen\" is missing\n1:2 /lisen \"lisen\" is not known here; did you mean \"listen\"?"},
        {"{\"listen\": \":1\", \"zzz\": 1}", "1:18 /zzz \"zzz\" is not known here"},
        {"{\"listen\": \":1\", \"limits\": {\"idel_timeout_ms\": 1}}",
         "1:29 /limits/idel_timeout_ms \"idel_timeout_ms\" is not known here; did you mean \"idle_timeout_ms\"?"},
        {"{\"listen\": \":1\", \"limits\": {\"$schema\": 1}}", "1:29 /limits/$schema \"$schema\" is not known here"},
        {"{\"listen\": \":1\", \"a/b~c\": 1}", "1:18 /a~1b~0c \"a/b~c\" is not known here"},
        {"{\"listen\": \":1\", \"groups\": {\"a\": {\"origins\": [\"http://x\"], \"policy\": \"round-robin\"}}}",
         "1:70 /groups/a/policy \"round-robin\" is not one of \"round_robin\", \"least_connections\"; did you mean "
         "\"round_robin\"?"},
        {"{\"listen\": \":1\", \"groups\": {\"a\": {\"origins\": [\"http://x\"], \"versions\": [\"h1\", \"h1\"]}}}",
         "1:79 /groups/a/versions/1 \"h1\" is there twice"},
        {"{\"listen\": \":1\", \"groups\": {\"a\": {\"origins\": [\"http://x\"], \"versions\": []}}}",
         "1:72 /groups/a/versions is empty: name at least one"},
        {"{\"listen\": \":1\", \"listen\": \":2\"}", "1:18 /listen is there twice"},
        {"{\"listen\": \":1\", \"x\": {\"a\": 1, \"a\": 1}}", "1:32 /x/a is there twice"},
        /* several */
        {"{\"listen\": 1,\n\"workers\": 0,\n\"what\": [1,2,{\"a\":[]}],\n\"trusted\": [\"10.0.0.1/8\", \"1.2.3.4/33\", "
         "\"::/129\", \"x\"]}",
         "1:12 /listen must be a text, not a number\n2:12 /workers 0 is out of range: 1 to 256\n3:1 /what \"what\" is "
         "not known here\n"
         "4:13 /trusted/0 \"10.0.0.1/8\": has bits set beyond its prefix length\n"
         "4:27 /trusted/1 \"1.2.3.4/33\": has a prefix length that does not fit its address family\n"
         "4:41 /trusted/2 \"::/129\": has a prefix length that does not fit its address family\n"
         "4:51 /trusted/3 \"x\": is not an IP prefix such as \"10.0.0.0/8\" or \"2001:db8::/32\""},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cb_config *c = NULL;
        told t;
        cr_expect_eq(parse(&c, rows[i].text, &t), CB_EINVAL, "%s", rows[i].text);
        cr_expect_str_eq(t.text, rows[i].told, "%s\n told %s\n want %s", rows[i].text, t.text, rows[i].told);
        cr_expect(strncmp(cb_last_error(), "x.json:", 7) == 0, "%s", cb_last_error());
        cr_expect_null(c);
    }
}

Test(config, at_most_twenty_mistakes_and_other_bounds) {
    static char big[CB_CONFIG_BYTES + 2];
    cb_config *c = NULL;
    told t;
    strcpy(big, "{");
    for (int i = 0; i < 40; i++)
        sprintf(big + strlen(big), "%s\"k%d\": 1", i ? ", " : "", i);
    strcat(big, "}");
    cr_expect_eq(parse(&c, big, &t), CB_EINVAL);
    cr_expect_eq(t.n, 20);
    memset(big, ' ', sizeof big - 1);
    cr_expect_eq(parse(&c, big, &t), CB_ELIMIT);
    const char nul[] = "{\"listen\": \":1\"}\0";
    cr_expect_eq(cb_config_parse(&c, &schema, (cb_slice){(const uint8_t *)nul, sizeof nul - 1}, "n", NULL, NULL),
                 CB_EINVAL);
    cr_expect_eq(cb_config_load(&c, &schema, "/nonexistent/x", NULL, NULL), CB_ENOENT);
    cr_expect_eq(cb_config_load(&c, &schema, "/dev", NULL, NULL), CB_EINVAL);
    cr_expect_null(c);
    char path[SCRATCH_TEXT];
    int fd = scratch_file(path, sizeof path, "config");
    const char *text = "{\"listen\": \"[::1]:4433\"}";
    cr_assert(write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    close(fd);
    cr_expect_eq(cb_config_load(&c, &schema, path, NULL, NULL), CB_OK, "%s", cb_last_error());
    unlink(path);
    cr_assert_not_null(c);
    cr_expect_str_eq(((const root_part *)cb_config_root(c))->listen, "[::1]:4433");
    cb_config_unref(c);
}

Test(config, formats) {
    static const struct {
        int format;
        bool good;
        const char *text;
    } rows[] = {
        {CB_FORMAT_LISTEN, true, "127.0.0.1:80"},
        {CB_FORMAT_LISTEN, true, ":0"},
        {CB_FORMAT_LISTEN, true, "[::]:443"},
        {CB_FORMAT_LISTEN, false, "localhost:80"},
        {CB_FORMAT_LISTEN, false, "80"},
        {CB_FORMAT_LISTEN, false, ":65536"},
        {CB_FORMAT_LISTEN, false, "127.0.0.1"},
        {CB_FORMAT_CIDR, true, "0.0.0.0/0"},
        {CB_FORMAT_CIDR, true, "::ffff:0:0/96"},
        {CB_FORMAT_CIDR, false, "1.2.3.4/"},
        {CB_FORMAT_CIDR, false, "1.2.3.4/ 8"},
        {CB_FORMAT_CIDR, false, "1.2.3/8"},
        {CB_FORMAT_CIDR, false, "fe80::1/10"},
        {CB_FORMAT_ORIGIN, true, "http://localhost:8080"},
        {CB_FORMAT_ORIGIN, true, "https://a-b.example_x.org"},
        {CB_FORMAT_ORIGIN, true, "http://[::1]"},
        {CB_FORMAT_ORIGIN, false, "ftp://a"},
        {CB_FORMAT_ORIGIN, false, "http://"},
        {CB_FORMAT_ORIGIN, false, "http://a/"},
        {CB_FORMAT_ORIGIN, false, "http://u@a"},
        {CB_FORMAT_ORIGIN, false, "http://a:0"},
        {CB_FORMAT_ORIGIN, false, "http://a:"},
        {CB_FORMAT_ORIGIN, false, "http://[::1"},
        {CB_FORMAT_ORIGIN, false, "http://[1]:2"},
        {CB_FORMAT_ORIGIN, false, "http://[::1]x"},
        {CB_FORMAT_ORIGIN, false, "http://a..b"},
        {CB_FORMAT_HOST, true, "*"},
        {CB_FORMAT_HOST, true, "*.example.org"},
        {CB_FORMAT_HOST, true, "[2001:db8::1]"},
        {CB_FORMAT_HOST, false, "a.*.b"},
        {CB_FORMAT_HOST, false, "*x.org"},
        {CB_FORMAT_HOST, false, "a:80"},
        {CB_FORMAT_HOST, false, ""},
        {CB_FORMAT_PATH, true, "/"},
        {CB_FORMAT_PATH, true, "/a/b.c"},
        {CB_FORMAT_PATH, true, "/..."},
        {CB_FORMAT_PATH, false, "a"},
        {CB_FORMAT_PATH, false, "/a/../b"},
        {CB_FORMAT_PATH, false, "/."},
        {CB_FORMAT_PATH, false, "/a?b"},
        {CB_FORMAT_PATH, false, "/a b"},
        {CB_FORMAT_PATH, false, "/\xc3\xa9"},
        {CB_FORMAT_NAME, true, "a-b_c.9"},
        {CB_FORMAT_NAME, false, "-a"},
        {CB_FORMAT_NAME, false, ""},
        {CB_FORMAT_ANY, true, ""},
        {99, true, "unknown formats check nothing"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        cr_expect_eq(cb_config_format_wrong(rows[i].format, rows[i].text) == NULL, rows[i].good, "%d \"%s\"",
                     rows[i].format, rows[i].text);
}

Test(config, near_names) {
    static const char *const names[] = {"listeners", "routes", "workers", "user", "group", "x"};
    static const struct {
        const char *text, *near;
    } rows[] = {{"listener", "listeners"},
                {"LISTENERS", "listeners"},
                {"ruotes", "routes"},
                {"worker", "workers"},
                {"usr", "user"},
                {"groups", "group"},
                {"zzzzzz", NULL},
                {"y", NULL},
                {"", NULL}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const char *near = cb_config_nearest(rows[i].text, names, sizeof names / sizeof *names);
        cr_expect_str_eq(near ? near : "none", rows[i].near ? rows[i].near : "none", "%s: %s", rows[i].text,
                         near ? near : "none");
    }
}

Test(config, the_schema_is_json_schema) {
    char *text = NULL;
    cr_assert_eq(cb_config_schema_json(&text, &schema), CB_OK, "%s", cb_last_error());
    cJSON *tree = cJSON_Parse(text);
    cr_assert_not_null(tree, "%s", text);
    const cJSON *members = cJSON_GetObjectItem(tree, "properties");
    cr_expect_eq(cJSON_GetArraySize(members), 9);
    cr_expect_str_eq(cJSON_GetObjectItem(cJSON_GetObjectItem(members, "listen"), "description")->valuestring,
                     "Say \"where\".");
    cr_expect_eq(cJSON_GetObjectItem(cJSON_GetObjectItem(members, "workers"), "maximum")->valueint, 256);
    const cJSON *group = cJSON_GetObjectItem(cJSON_GetObjectItem(members, "groups"), "additionalProperties");
    const cJSON *inner = cJSON_GetObjectItem(group, "properties");
    cr_expect_eq(cJSON_GetArraySize(cJSON_GetObjectItem(cJSON_GetObjectItem(inner, "versions"), "default")), 2);
    cr_expect_str_eq(cJSON_GetObjectItem(cJSON_GetObjectItem(inner, "policy"), "default")->valuestring,
                     "least_connections");
    cr_expect_str_eq(cJSON_GetObjectItem(group, "required")->child->valuestring, "origins");
    cr_expect(cJSON_IsFalse(cJSON_GetObjectItem(tree, "additionalProperties")));
    cJSON_Delete(tree);
    cb_config_text_free(text);
    const cb_config_rule odd[] = {{.name = "a", .kind = 77}, {.name = NULL}};
    const cb_config_schema wrong = {.size = sizeof wrong, .members = odd, .root_size = 8};
    cr_expect_eq(cb_config_schema_json(&text, &wrong), CB_EINVAL);
    const cb_config_schema none = {.size = sizeof none};
    cb_config *c = NULL;
    cr_expect_eq(cb_config_parse(&c, &none, cb_slice_str("{}"), NULL, NULL, NULL), CB_EINVAL);
}

Test(config, maps_of_texts) {
    typedef struct part {
        cb_config_list labels;
    } part;
    static const cb_config_rule rules[] = {
        {.name = "labels", .kind = CB_CONFIG_MAP, .format = CB_FORMAT_NAME, .offset = offsetof(part, labels)},
        {.name = NULL}};
    static const cb_config_schema map = {
        .size = sizeof map, .title = "map", .members = rules, .root_size = sizeof(part)};
    static const struct {
        const char *text, *says;
    } bad[] = {{"{\"labels\": {\"a\": 1}}", "/labels/a: must be a text, not a number"},
               {"{\"labels\": {\"a b\": \"x\"}}", "the name \"a b\""},
               {"{\"labels\": [\"x\"]}", "/labels: must be an object, not an array"}};
    cb_config *c = NULL;
    char *json = NULL;
    cr_assert_eq(
        cb_config_parse(&c, &map, cb_slice_str("{\"labels\": {\"x-user\": \"/sub\", \"b\": \"\"}}"), "m", NULL, NULL),
        CB_OK, "%s", cb_last_error());
    const part *p = cb_config_root(c);
    const cb_config_pair *pairs = p->labels.at;
    cr_assert_eq(p->labels.len, 2);
    cr_expect_str_eq(pairs[0].name, "x-user");
    cr_expect_str_eq(pairs[0].text, "/sub");
    cr_expect_str_eq(pairs[1].text, "");
    cb_config_unref(c);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        cr_expect_eq(cb_config_parse(&c, &map, cb_slice_str(bad[i].text), "m", NULL, NULL), CB_EINVAL);
        cr_expect(strstr(cb_last_error(), bad[i].says), "%s", cb_last_error());
    }
    cr_assert_eq(cb_config_schema_json(&json, &map), CB_OK);
    cr_expect(strstr(json, "\"additionalProperties\": {\n        \"type\": \"string\""), "%s", json);
    cb_config_text_free(json);
}
