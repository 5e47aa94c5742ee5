/* Values into structs, by rule. A wrong value is told and decoding goes on, so that all mistakes are found at once. */
#include "base/error.h"
#include "config/draft.h"
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void decode_members(cb_config_draft *d, const cJSON *object, const cb_config_rule *rules, char *into);

static const char *kind_text(const cJSON *item) {
    if (cJSON_IsString(item)) return "a text";
    if (cJSON_IsNumber(item)) return "a number";
    if (cJSON_IsBool(item)) return cJSON_IsTrue(item) ? "true" : "false";
    if (cJSON_IsNull(item)) return "null";
    return cJSON_IsArray(item) ? "an array" : "an object";
}

static size_t names_len(const char *const *names) {
    size_t n = 0;
    while (names && names[n])
        n++;
    return n;
}

static int name_index(const char *const *names, const char *text, size_t len) {
    for (int i = 0; names && names[i]; i++)
        if (strlen(names[i]) == len && memcmp(names[i], text, len) == 0) return i;
    return -1;
}

static void say_unknown_name(cb_config_draft *d, const cJSON *item, const char *const *names) {
    char list[200] = "";
    const char *near = cb_config_nearest(item->valuestring, names, names_len(names));
    for (size_t i = 0, at = 0; names[i] && at + 1 < sizeof list; i++) {
        int n = snprintf(list + at, sizeof list - at, "%s\"%s\"", i ? ", " : "", names[i]);
        if (n > 0) at += (size_t)n;
    }
    if (near)
        cb_config_wrong(d, item, false, "\"%.60s\" is not one of %s; did you mean \"%s\"?", item->valuestring, list,
                        near);
    else
        cb_config_wrong(d, item, false, "\"%.60s\" is not one of %s", item->valuestring, list);
}

/* ---- scalars ---- */

static bool in_range(cb_config_draft *d, const cJSON *item, const cb_config_rule *r, size_t n, const char *of) {
    int64_t max = r->min || r->max ? r->max : CB_CONFIG_ITEMS;
    if ((int64_t)n >= r->min && (int64_t)n <= max) return true;
    if (r->min == max)
        cb_config_wrong(d, item, false, "has %zu %s, must have %" PRId64, n, of, max);
    else
        cb_config_wrong(d, item, false, "has %zu %s, must have %" PRId64 " to %" PRId64, n, of, r->min, max);
    return false;
}

static const char *decode_text(cb_config_draft *d, const cJSON *item, const cb_config_rule *r, bool bounded) {
    if (!cJSON_IsString(item)) {
        cb_config_wrong(d, item, false, "must be a text, not %s", kind_text(item));
        return NULL;
    }
    size_t n = strlen(item->valuestring);
    const cb_config_rule loose = {0};
    if (!in_range(d, item, bounded ? r : &loose, n, "bytes")) return NULL;
    const char *wrong = cb_config_format_wrong(r->format, item->valuestring);
    if (wrong) {
        cb_config_wrong(d, item, false, "\"%.100s\": %s", item->valuestring, wrong);
        return NULL;
    }
    char *copy = cb_config_arena(d, n + 1);
    return copy ? memcpy(copy, item->valuestring, n + 1) : NULL;
}

static void decode_int(cb_config_draft *d, const cJSON *item, const cb_config_rule *r, char *into) {
    const cb_config_spot *spot = cb_config_scan_at(&d->scan, (size_t)item->valueint);
    char *end = NULL;
    if (!cJSON_IsNumber(item)) {
        cb_config_wrong(d, item, false, "must be a whole number, not %s", kind_text(item));
        return;
    }
    errno = 0;
    long long v = strtoll(d->text + spot->value, &end, 10);
    if (end != d->text + spot->value + spot->value_len)
        cb_config_wrong(d, item, false, "must be a whole number, written without \".\" and \"e\"");
    else if (errno == ERANGE || ((r->min || r->max) && (v < r->min || v > r->max)))
        cb_config_wrong(d, item, false, "%.*s is out of range: %" PRId64 " to %" PRId64, (int)spot->value_len,
                        d->text + spot->value, r->min || r->max ? r->min : INT64_MIN,
                        r->min || r->max ? r->max : INT64_MAX);
    else
        memcpy(into, &(int64_t){v}, sizeof(int64_t));
}

static void decode_bool(cb_config_draft *d, const cJSON *item, char *into) {
    if (!cJSON_IsBool(item))
        cb_config_wrong(d, item, false, "must be true or false, not %s", kind_text(item));
    else
        memcpy(into, &(int32_t){cJSON_IsTrue(item)}, sizeof(int32_t));
}

static int decode_name(cb_config_draft *d, const cJSON *item, const cb_config_rule *r) {
    if (!cJSON_IsString(item)) {
        cb_config_wrong(d, item, false, "must be a text, not %s", kind_text(item));
        return -1;
    }
    int i = name_index(r->names, item->valuestring, strlen(item->valuestring));
    if (i < 0) say_unknown_name(d, item, r->names);
    return i;
}

static void decode_set(cb_config_draft *d, const cJSON *item, const cb_config_rule *r, char *into) {
    const cJSON *child = NULL;
    uint32_t set = 0;
    size_t i = 0, path = d->path_len;
    if (!cJSON_IsArray(item)) {
        cb_config_wrong(d, item, false, "must be an array of texts, not %s", kind_text(item));
        return;
    }
    cJSON_ArrayForEach(child, item) {
        cb_config_push_index(d, i++);
        int at = decode_name(d, child, r);
        if (at >= 0 && set & 1u << at) cb_config_wrong(d, child, false, "\"%s\" is there twice", child->valuestring);
        if (at >= 0) set |= 1u << at;
        cb_config_pop(d, path);
    }
    if (!i) cb_config_wrong(d, item, false, "is empty: name at least one");
    memcpy(into, &set, sizeof set);
}

/* ---- objects, arrays, maps ---- */

static void decode_object(cb_config_draft *d, const cJSON *item, const cb_config_rule *r, char *into) {
    if (!cJSON_IsObject(item)) {
        cb_config_wrong(d, item, false, "must be an object, not %s", kind_text(item));
        return;
    }
    char *object = cb_config_arena(d, r->item_size);
    if (!object) return;
    decode_members(d, item, r->members, object);
    memcpy(into, &object, sizeof object);
}

static void decode_list(cb_config_draft *d, const cJSON *item, const cb_config_rule *r, char *into) {
    static const cb_config_rule any_text = {.kind = CB_CONFIG_TEXT}; /* a map's format is that of its names */
    bool map = r->kind == CB_CONFIG_MAP;
    const cJSON *child = NULL;
    size_t n = 0, path = d->path_len;
    if (map ? !cJSON_IsObject(item) : !cJSON_IsArray(item)) {
        cb_config_wrong(d, item, false, "must be an %s, not %s", map ? "object" : "array", kind_text(item));
        return;
    }
    size_t len = (size_t)cJSON_GetArraySize(item);
    if (!in_range(d, item, r, len, map ? "members" : "items") || !len) return;
    size_t size = r->members ? r->item_size : map ? sizeof(cb_config_pair) : sizeof(char *);
    char *items = cb_config_arena(d, len * size);
    if (!items) return;
    cJSON_ArrayForEach(child, item) {
        char *at = items + n * size;
        if (map)
            cb_config_push(d, child->string);
        else
            cb_config_push_index(d, n);
        if (!r->members) {
            const char *text = map ? decode_text(d, child, &any_text, false) : decode_text(d, child, r, false);
            memcpy(at + (map ? offsetof(cb_config_pair, text) : 0), &text, sizeof text);
        } else if (!cJSON_IsObject(child)) {
            cb_config_wrong(d, child, false, "must be an object, not %s", kind_text(child));
        } else {
            decode_members(d, child, r->members, at);
        }
        if (map) {
            size_t bytes = strlen(child->string) + 1;
            const char *wrong = cb_config_format_wrong(r->format, child->string);
            if (wrong) cb_config_wrong(d, child, true, "the name \"%.60s\": %s", child->string, wrong);
            char *name = cb_config_arena(d, bytes);
            if (name) memcpy(name, child->string, bytes);
            memcpy(at, &name, sizeof name);
        }
        n++;
        cb_config_pop(d, path);
    }
    cb_config_list list = {.at = items, .len = n};
    memcpy(into, &list, sizeof list);
}

static void decode_value(cb_config_draft *d, const cJSON *item, const cb_config_rule *r, char *into) {
    const char *text = NULL;
    switch (r->kind) {
    case CB_CONFIG_TEXT:
        text = decode_text(d, item, r, true);
        memcpy(into, &text, sizeof text);
        break;
    case CB_CONFIG_INT:
        decode_int(d, item, r, into);
        break;
    case CB_CONFIG_BOOL:
        decode_bool(d, item, into);
        break;
    case CB_CONFIG_ENUM:
        memcpy(into, &(int32_t){decode_name(d, item, r)}, sizeof(int32_t));
        break;
    case CB_CONFIG_SET:
        decode_set(d, item, r, into);
        break;
    case CB_CONFIG_OBJECT:
        decode_object(d, item, r, into);
        break;
    default:
        decode_list(d, item, r, into);
        break;
    }
}

static uint32_t fallback_set(const cb_config_rule *r) {
    uint32_t set = 0;
    for (const char *p = r->fallback; *p;) {
        size_t n = strcspn(p, ",");
        int at = name_index(r->names, p, n);
        if (at >= 0) set |= 1u << at;
        p += n + (p[n] == ',');
    }
    return set;
}

static void set_fallback(cb_config_draft *d, const cJSON *object, const cb_config_rule *r, char *into) {
    char *inner = NULL;
    switch (r->kind) {
    case CB_CONFIG_TEXT:
        memcpy(into, &r->fallback, sizeof r->fallback);
        break;
    case CB_CONFIG_INT:
        memcpy(into, &(int64_t){strtoll(r->fallback, NULL, 10)}, sizeof(int64_t));
        break;
    case CB_CONFIG_BOOL:
        memcpy(into, &(int32_t){strcmp(r->fallback, "true") == 0}, sizeof(int32_t));
        break;
    case CB_CONFIG_ENUM:
        memcpy(into, &(int32_t){name_index(r->names, r->fallback, strlen(r->fallback))}, sizeof(int32_t));
        break;
    case CB_CONFIG_SET:
        memcpy(into, &(uint32_t){fallback_set(r)}, sizeof(uint32_t));
        break;
    case CB_CONFIG_OBJECT:
        inner = cb_config_arena(d, r->item_size);
        if (!inner) return;
        memcpy(into, &inner, sizeof inner);
        for (const cb_config_rule *m = r->members; m->name; m++)
            if (m->fallback) set_fallback(d, object, m, inner + m->offset);
        break;
    default:
        break;
    }
}

static const cb_config_rule *rule_of(const cb_config_rule *rules, const char *name) {
    for (; rules->name; rules++)
        if (strcmp(rules->name, name) == 0) return rules;
    return NULL;
}

static void say_unknown_member(cb_config_draft *d, const cJSON *item, const cb_config_rule *rules) {
    const char *names[128];
    size_t n = 0;
    for (; rules[n].name && n < sizeof names / sizeof *names; n++)
        names[n] = rules[n].name;
    const char *near = cb_config_nearest(item->string, names, n);
    if (near)
        cb_config_wrong(d, item, true, "\"%.60s\" is not known here; did you mean \"%s\"?", item->string, near);
    else
        cb_config_wrong(d, item, true, "\"%.60s\" is not known here", item->string);
}

static bool seen_before(const cJSON *object, const cJSON *item) {
    const cJSON *other = NULL;
    cJSON_ArrayForEach(other, object) {
        if (other == item) return false;
        if (strcmp(other->string, item->string) == 0) return true;
    }
    return false;
}

static void decode_members(cb_config_draft *d, const cJSON *object, const cb_config_rule *rules, char *into) {
    const cJSON *item = NULL;
    size_t path = d->path_len;
    cJSON_ArrayForEach(item, object) {
        if (d->n_mistakes == CB_CONFIG_ERRORS || d->no_memory) return;
        const cb_config_rule *r = rule_of(rules, item->string);
        cb_config_push(d, item->string);
        if (!r && !(object == d->root && strcmp(item->string, "$schema") == 0))
            say_unknown_member(d, item, rules);
        else if (r)
            decode_value(d, item, r, into + r->offset);
        cb_config_pop(d, path);
    }
    for (const cb_config_rule *r = rules; r->name; r++) {
        const cJSON *found = NULL;
        cJSON_ArrayForEach(found, object) if (strcmp(found->string, r->name) == 0) break;
        if (found) continue;
        if (r->required) cb_config_wrong(d, object, false, "\"%s\" is missing", r->name);
        if (r->fallback) set_fallback(d, object, r, into + r->offset);
    }
}

/* Members that appear twice are a mistake at any depth, also in parts that no rule knows. */
static void find_twins(cb_config_draft *d, const cJSON *at) {
    const cJSON *child = NULL;
    size_t path = d->path_len, i = 0;
    if (cJSON_IsObject(at) && cJSON_GetArraySize(at) > CB_CONFIG_ITEMS) {
        cb_config_wrong(d, at, false, "has more than %d members", CB_CONFIG_ITEMS);
        return;
    }
    cJSON_ArrayForEach(child, at) {
        if (child->string)
            cb_config_push(d, child->string);
        else
            cb_config_push_index(d, i++);
        if (child->string && seen_before(at, child)) cb_config_wrong(d, child, true, "is there twice");
        find_twins(d, child);
        cb_config_pop(d, path);
    }
}

void cb_config_decode(cb_config_draft *d, const cb_config_schema *schema) {
    if (!cJSON_IsObject(d->root)) {
        cb_config_wrong(d, d->root, false, "the document must be an object, not %s", kind_text(d->root));
        return;
    }
    find_twins(d, d->root);
    if (d->n_mistakes) return;
    char *root = cb_config_arena(d, schema->root_size);
    if (!root) return;
    decode_members(d, d->root, schema->members, root);
    d->out->root = root;
}
