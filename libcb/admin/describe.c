#include "admin/describe.h"
#include "base/error.h"
#include <stdio.h>
#include <string.h>

static const char PROBLEM[] =
    "{\"type\":\"object\",\"description\":\"An error (RFC 9457).\",\"required\":[\"type\",\"title\",\"status\"],"
    "\"properties\":{\"type\":{\"type\":\"string\"},\"title\":{\"type\":\"string\"},\"status\":{\"type\":\"integer\"},"
    "\"detail\":{\"type\":\"string\"},\"errors\":{\"type\":\"array\",\"items\":{\"type\":\"object\",\"required\":"
    "[\"pointer\",\"detail\"],\"properties\":{\"pointer\":{\"type\":\"string\"},\"detail\":{\"type\":\"string\"},"
    "\"line\":{\"type\":\"integer\"},\"column\":{\"type\":\"integer\"}}}}}}";

static const struct {
    uint32_t flag;
    cb_admin_query_param p;
} common[] = {
    {CB_ADMIN_PAGES,
     {"limit", "How many items at most.", "{\"type\":\"integer\",\"minimum\":1,\"maximum\":1000,\"default\":100}"}},
    {CB_ADMIN_PAGES, {"cursor", "Where to go on: `next` of the page before.", NULL}},
    {CB_ADMIN_DRY_RUN, {"dry_run", "Only check, and change nothing.", "{\"type\":\"boolean\",\"default\":false}"}},
};

static const struct {
    uint32_t flag, required;
    const char *name, *about;
} headers[] = {
    {CB_ADMIN_CHANGES, 0, "Idempotency-Key", "The same key and request again gives the first answer, for an hour."},
    {CB_ADMIN_CHANGES, CB_ADMIN_MATCH, "If-Match", "The entity tag of the state that this is a change of."},
};

static void put_json(cb_json_out *o, const char *name, const char *json) {
    cb_json_put_raw(o, name, cb_slice_str(json));
}

static void param_begin(cb_json_out *o, const char *name, const char *in, bool required) {
    cb_json_put_object(o, NULL);
    cb_json_put_str(o, "name", name);
    cb_json_put_str(o, "in", in);
    if (required) cb_json_put_bool(o, "required", 1);
}

static void param_end(cb_json_out *o, const char *about, const char *schema) {
    if (about) cb_json_put_str(o, "description", about);
    put_json(o, "schema", schema ? schema : "{\"type\":\"string\"}");
    cb_json_put_end(o);
}

static void put_params(cb_json_out *o, const cb_admin_row *row) {
    cb_json_put_list(o, "parameters");
    for (uint32_t i = 0; i < row->n_segments; i++) {
        if (!(row->params >> i & 1)) continue;
        param_begin(o, row->segments[i], "path", true);
        param_end(o, row->rest && i + 1 == row->n_segments ? "What is left of the path; it may have slashes." : NULL,
                  NULL);
    }
    for (size_t i = 0; i < row->r.n_query; i++) {
        param_begin(o, row->r.query[i].name, "query", false);
        param_end(o, row->r.query[i].about, row->r.query[i].schema);
    }
    for (size_t i = 0; i < sizeof common / sizeof *common; i++) {
        if (!(row->r.flags & common[i].flag)) continue;
        param_begin(o, common[i].p.name, "query", false);
        param_end(o, common[i].p.about, common[i].p.schema);
    }
    for (size_t i = 0; i < sizeof headers / sizeof *headers; i++) {
        if (!(row->r.flags & headers[i].flag)) continue;
        param_begin(o, headers[i].name, "header", row->r.flags & headers[i].required);
        param_end(o, headers[i].about, NULL);
    }
    cb_json_put_end(o);
}

/* A media type of a list by commas. */
static size_t next_type(const char **list, char out[64]) {
    while (**list == ' ' || **list == ',')
        ++*list;
    const size_t n = strcspn(*list, ", ");
    snprintf(out, 64, "%.*s", (int)(n < 63 ? n : 63), *list);
    *list += n;
    return n;
}

static int put_body(cb_json_out *o, const cb_admin_row *row) {
    const cb_admin_resource *r = &row->r;
    const char *list = r->consumes ? r->consumes : r->document || r->flags & CB_ADMIN_RAW ? "application/json" : NULL;
    char type[64], *schema = NULL;
    if (!list) return CB_OK;
    const int rc = r->document ? cb_config_schema_json(&schema, r->document) : CB_OK;
    if (rc < 0) return rc;
    cb_json_put_object(o, "requestBody");
    cb_json_put_bool(o, "required", !(r->flags & CB_ADMIN_OPTIONAL));
    cb_json_put_object(o, "content");
    while (next_type(&list, type)) {
        cb_json_put_object(o, type);
        put_json(o, "schema", schema ? schema : "{}");
        cb_json_put_end(o);
    }
    cb_json_put_end(o);
    cb_json_put_end(o);
    cb_config_text_free(schema);
    return CB_OK;
}

static void put_answers(cb_json_out *o, const cb_admin_row *row) {
    cb_json_put_object(o, "responses");
    cb_json_put_object(o, "2XX");
    cb_json_put_str(o, "description", row->r.summary);
    cb_json_put_object(o, "content");
    cb_json_put_object(o, row->r.produces ? row->r.produces : "application/json");
    put_json(o, "schema", row->r.answer_schema ? row->r.answer_schema : "{}");
    cb_json_put_end(o);
    cb_json_put_end(o);
    cb_json_put_end(o);
    cb_json_put_object(o, "default");
    cb_json_put_str(o, "$ref", "#/components/responses/Problem");
    cb_json_put_end(o);
    cb_json_put_end(o);
}

/* Which roles may: for people. */
static void put_roles(cb_json_out *o, const cb_admin_row *row) {
    cb_json_put_list(o, "x-roles");
    for (uint32_t role = CB_ROLE_VIEWER; role <= CB_ROLE_AUDITOR; role *= 2)
        if (!row->open && (!row->r.rights || row->r.rights & cb_admin_rights_of(role)))
            cb_json_put_str(o, NULL, cb_admin_role_name((int)role));
    cb_json_put_end(o);
}

static int put_operation(cb_json_out *o, const cb_admin_row *row) {
    char method[8];
    snprintf(method, sizeof method, "%s", row->r.method);
    for (char *c = method; *c; c++)
        *c = (char)(*c + 32);
    cb_json_put_object(o, method);
    cb_json_put_str(o, "operationId", row->r.id);
    cb_json_put_str(o, "summary", row->r.summary);
    put_roles(o, row);
    put_params(o, row);
    const int rc = put_body(o, row);
    put_answers(o, row);
    cb_json_put_end(o);
    return rc;
}

/* "{path...}" is "{path}" here. */
static void path_name(const char *path, char out[512 + 1]) {
    const char *dots = strstr(path, "...}");
    snprintf(out, 513, "%.*s%s", (int)(dots ? (size_t)(dots - path) : strlen(path)), path, dots ? "}" : "");
}

static int put_paths(cb_json_out *o, const cb_admin_router *r) {
    int rc = CB_OK;
    char path[512 + 1];
    cb_json_put_object(o, "paths");
    for (uint32_t i = 0; i < r->n && rc == CB_OK; i++) {
        const bool first = i == 0 || strcmp(r->rows[i - 1]->r.path, r->rows[i]->r.path) != 0;
        if (first && i) cb_json_put_end(o);
        path_name(r->rows[i]->r.path, path);
        if (first) cb_json_put_object(o, path);
        rc = put_operation(o, r->rows[i]);
    }
    if (r->n) cb_json_put_end(o);
    cb_json_put_end(o);
    return rc;
}

int cb_admin_describe_into(cb_json_out *o, const cb_admin_router *r, const char *title, const char *version) {
    cb_json_put_object(o, NULL);
    cb_json_put_str(o, "openapi", "3.1.0");
    cb_json_put_object(o, "info");
    cb_json_put_str(o, "title", title);
    cb_json_put_str(o, "version", version);
    cb_json_put_end(o);
    const int rc = put_paths(o, r);
    cb_json_put_object(o, "components");
    cb_json_put_object(o, "schemas");
    put_json(o, "Problem", PROBLEM);
    cb_json_put_end(o);
    cb_json_put_object(o, "responses");
    cb_json_put_object(o, "Problem");
    cb_json_put_str(o, "description", "It failed, and nothing was changed unless the detail says otherwise.");
    cb_json_put_object(o, "content");
    cb_json_put_object(o, "application/problem+json");
    put_json(o, "schema", "{\"$ref\":\"#/components/schemas/Problem\"}");
    for (int i = 0; i < 6; i++)
        cb_json_put_end(o);
    return rc;
}
