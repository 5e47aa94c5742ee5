#include "auth/acme_read.h"
#include "base/error.h"
#include <string.h>

int cb_acme_json(cb_json *json, cb_slice body) {
    char why[200];
    *json = (cb_json){0};
    if (body.len == 0 || body.len > CB_ACME_ANSWER_BYTES) {
        return cb_fail(CB_EPROTO, "%zu bytes that are no JSON text", body.len);
    }
    int rc = cb_json_open(json, body);
    if (rc < 0) return rc;
    if (rc == 0 && json->nodes->kind == CB_JSON_OBJECT) return CB_OK;
    cb_web_plain(why, sizeof why, rc ? cb_last_error() : "not an object");
    cb_json_close(json);
    return cb_fail(CB_EPROTO, "%s", why);
}

cb_acme_value cb_acme_root(const cb_json *json) {
    return (cb_acme_value){json, json->nodes};
}

cb_acme_value cb_acme_member(cb_acme_value of, const char *name) {
    return (cb_acme_value){of.json, of.at ? cb_json_get(of.json, of.at, name, strlen(name)) : NULL};
}

const char *cb_acme_text(cb_acme_value of, const char *name) {
    return of.at ? cb_json_text(of.json, of.at, name) : NULL;
}

cb_acme_value cb_acme_first(cb_acme_value of) {
    return (cb_acme_value){of.json, of.at ? cb_json_first(of.json, of.at) : NULL};
}

cb_acme_value cb_acme_next(cb_acme_value of, cb_acme_value at) {
    return (cb_acme_value){of.json, cb_json_next(of.json, of.at, at.at)};
}
