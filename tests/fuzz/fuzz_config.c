/* Any bytes as a configuration document: an answer with places, no crash, no leak. */
#include <cb/config.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct item {
    const char *name, *text;
    int64_t number;
    int32_t flag, choice;
    uint32_t set;
    uint32_t reserved;
    cb_config_list texts;
} item;

static const char *const names[] = {"one", "two", NULL};
static const cb_config_rule item_rules[] = {
    {.name = "text", .kind = CB_CONFIG_TEXT, .format = CB_FORMAT_ORIGIN, .offset = offsetof(item, text)},
    {.name = "number", .kind = CB_CONFIG_INT, .min = -5, .max = 5, .fallback = "1", .offset = offsetof(item, number)},
    {.name = "flag", .kind = CB_CONFIG_BOOL, .fallback = "true", .offset = offsetof(item, flag)},
    {.name = "choice", .kind = CB_CONFIG_ENUM, .names = names, .fallback = "two", .offset = offsetof(item, choice)},
    {.name = "set", .kind = CB_CONFIG_SET, .names = names, .offset = offsetof(item, set)},
    {.name = "texts", .kind = CB_CONFIG_ARRAY, .format = CB_FORMAT_CIDR, .offset = offsetof(item, texts)},
    {.name = NULL}};

typedef struct root {
    const item *object;
    cb_config_list map, list;
} root;

static const cb_config_rule root_rules[] = {{.name = "object",
                                             .kind = CB_CONFIG_OBJECT,
                                             .members = item_rules,
                                             .item_size = sizeof(item),
                                             .fallback = "{}",
                                             .offset = offsetof(root, object)},
                                            {.name = "map",
                                             .kind = CB_CONFIG_MAP,
                                             .format = CB_FORMAT_NAME,
                                             .members = item_rules,
                                             .item_size = sizeof(item),
                                             .offset = offsetof(root, map)},
                                            {.name = "list",
                                             .kind = CB_CONFIG_ARRAY,
                                             .members = item_rules,
                                             .item_size = sizeof(item),
                                             .offset = offsetof(root, list)},
                                            {.name = NULL}};

static void told(const cb_config_error *e, void *user) {
    if (!e->line || !e->column || !*e->text || ++*(int *)user > 20) abort();
}

static void check(cb_config_draft *d, const void *at) {
    const root *r = at;
    if (!r->object || (r->map.len && !((const item *)r->map.at)->name)) abort();
    if (r->list.len == 3) cb_config_complain(d, "/list/2/text", "three");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const cb_config_schema schema = {
        .size = sizeof schema, .title = "fuzz", .members = root_rules, .root_size = sizeof(root), .check = check};
    cb_config *c = NULL;
    int errors = 0;
    int rc = cb_config_parse(&c, &schema, (cb_slice){data, size}, "fuzz", told, &errors);
    if ((rc == CB_OK) != (c != NULL) || (rc == CB_EINVAL) != (errors > 0)) abort();
    cb_config_unref(c);
    return 0;
}
