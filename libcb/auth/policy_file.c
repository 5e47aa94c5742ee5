/* Policies from files. */
#include "auth/policy.h"
#include "base/error.h"

int cb_policy_load(cb_policy **out, const char *file, cb_config_error_fn on_error, void *user) {
    cb_config *doc = NULL;
    if (!out || !file) return cb_fail(CB_EINVAL, "cb_policy_load: %s is NULL", out ? "file" : "out");
    int rc = cb_config_load(&doc, &cb_policy_schema, file, on_error, user);
    return rc < 0 ? rc : cb_policy_compile(out, doc);
}
