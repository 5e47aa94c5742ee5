/* Any bytes as a policy, and as what it is asked: a line parts the request from the document. The table and the
 * explanation give the same answer. */
#include <cb/policy.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static cb_slice part(const uint8_t **at, const uint8_t *end) {
    const uint8_t *from = *at, *stop = from < end ? memchr(from, '|', (size_t)(end - from)) : NULL;
    *at = stop ? stop + 1 : end;
    return (cb_slice){from, (size_t)((stop ? stop : end) - from)};
}

static int claim(const char *path, uint32_t *it, cb_slice *value, void *user) {
    (void)user;
    *value = cb_slice_str(*it ? "otp" : "x");
    return (*it)++ < strlen(path) % 3;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const uint8_t *line = size ? memchr(data, '\n', size) : NULL, *at = data;
    cb_policy *p = NULL;
    if (!line) return 0;
    const cb_slice text = {line + 1, (size_t)(data + size - line) - 1};
    if (cb_policy_parse(&p, text, "fuzz", NULL, NULL) < 0) {
        if (p) abort();
        return 0;
    }
    cb_policy_request r = {.size = sizeof r, .claim = claim};
    cb_slice *const parts[] = {&r.tenant, &r.path, &r.target_host, &r.spiffe_id,
                               &r.method, &r.verb, &r.route,       &r.subject};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        *parts[i] = part(&at, line);
    const cb_slice role = part(&at, line);
    r.roles = &role;
    r.roles_len = 1;
    r.source = part(&at, line);
    r.target_port = (int32_t)(size % 70000);
    r.now_s = (int64_t)size * 7919 * 1000;
    r.mtls = (int32_t)(size & 1);
    cb_policy_decision d = {.size = sizeof d}, e = {.size = sizeof e};
    int rc = cb_policy_decide(p, &r, &d);
    if ((rc != CB_OK && rc != CB_EAUTH) || (rc == CB_OK) != d.allowed || (d.allowed && !d.rule)) abort();
    if (cb_policy_explain(p, &r, &e, NULL, NULL) != rc || d.rule != e.rule || d.reason != e.reason) abort();
    cb_policy_unref(p);
    return 0;
}
