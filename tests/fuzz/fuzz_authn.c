/* Any bytes as what a request carries, as claims of an opaque token, and as a file of API keys: let in or refused, with
 * a status, a reason and fields that can be sent. Fields are "name: value" lines; claims follow a NUL. */
#include "http/fields.h"
#include <cb/authn.h>
#include <stdlib.h>
#include <string.h>

enum { FIELDS = 16, NOW = 1700000000 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static cb_slice claims;

static int look(cb_authn_call *call, cb_slice token, void *user) {
    (void)user;
    if (!token.len) abort();
    cb_authn_answer(call, CB_OK, claims);
    return CB_OK;
}

static void must(int rc) {
    if (rc < 0) abort();
}

static cb_authn *make(int all) {
    static const cb_authn_token_ops ops = {.size = sizeof ops, .look = look};
    static const char line[] =
        "{\"key\":\"abcdefghijkl\",\"hash\":\"0000000000000000000000000000000000000000000000000000000000000000\","
        "\"sub\":\"robot\"}";
    static const uint8_t hash_key[32] = "hash key";
    static const char *const scopes[] = {"read"};
    const cb_authn_claims where = {.size = sizeof where, .tenant = "/org/0", .roles = "roles"};
    const cb_jwt_rules rules = {.size = sizeof rules, .issuer = "me", .any_audience = 1};
    cb_authn_source *s[4] = {NULL};
    cb_jwks *keys = NULL;
    cb_dpop *dpop = NULL;
    cb_api_keys *robots = NULL;
    cb_authn *a = NULL;
    must(cb_jwks_new(&keys, CB_OPTS(cb_jwks_opts, .json = cb_slice_str("{\"keys\":[]}"))));
    must(cb_dpop_new(&dpop, CB_OPTS(cb_dpop_opts, .max_proofs = 16)));
    must(cb_api_keys_new(&robots, cb_slice_str(line), (cb_slice){hash_key, sizeof hash_key}));
    must(cb_authn_source_jwt(&s[0],
                             CB_OPTS(cb_authn_jwt_opts, .name = "jwt", .keys = keys, .rules = &rules, .dpop = dpop)));
    must(cb_authn_source_api_key(&s[1], CB_OPTS(cb_authn_api_key_opts, .name = "key", .keys = robots)));
    must(cb_authn_source_token(&s[2], CB_OPTS(cb_authn_token_opts, .name = "token", .ops = &ops, .claims = &where)));
    must(cb_authn_new(&a, CB_OPTS(cb_authn_opts, .sources = all ? s + 2 : s, .n_sources = all ? 1 : 3, .all = all,
                                  .scopes = scopes, .n_scopes = (size_t)all, .need_tenant = all)));
    for (size_t i = 0; i < 3; i++)
        cb_authn_source_unref(s[i]);
    cb_jwks_unref(keys);
    cb_dpop_unref(dpop);
    cb_api_keys_unref(robots);
    return a;
}

static size_t split(cb_field out[FIELDS], cb_slice text) {
    size_t n = 0;
    while (text.len && n < FIELDS) {
        const uint8_t *end = memchr(text.base, '\n', text.len);
        size_t len = end ? (size_t)(end - text.base) : text.len, skip = len + (end != NULL);
        const uint8_t *colon = len ? memchr(text.base, ':', len) : NULL;
        size_t name = colon ? (size_t)(colon - text.base) : len, from = name + (colon != NULL);
        if (colon && from < len && text.base[from] == ' ') from++;
        out[n++] = (cb_field){{text.base, name}, {text.base + from, len - from}};
        text = (cb_slice){text.base + skip, text.len - skip};
    }
    return n;
}

static void judge(cb_authn_call *call, cb_authn *gate, const cb_authn_request *request) {
    static const int statuses[] = {200, 400, 401, 403, 503};
    int rc = cb_authn_begin(call, gate, request, NULL, NULL), status = cb_authn_status(call), known = 0;
    size_t n = 0;
    const cb_field *f = cb_authn_challenges(call, &n);
    for (size_t i = 0; i < sizeof statuses / sizeof *statuses; i++)
        known |= status == statuses[i];
    if (!known || (rc == CB_OK) != (status == 200) || (rc != CB_OK && rc != CB_EAUTH)) abort();
    if ((rc == CB_OK) != !*cb_authn_reason(call)) abort();
    if (rc == CB_OK && (n || !cb_authn_principal(call)->subject || !*cb_authn_principal(call)->subject)) abort();
    if (status == 401 && !n) abort();
    for (size_t i = 0; i < n; i++)
        if (!cb_field_name_ok(f[i].name) || !cb_field_value_ok(f[i].value)) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static cb_authn *gates[2];
    static cb_authn_call *call;
    static const uint8_t hash_key[32] = "hash key";
    cb_field fields[FIELDS];
    cb_api_keys *keys = NULL;
    if (!size) return 0;
    for (int all = 0; all < 2 && !gates[all]; all++)
        gates[all] = make(all);
    if (!call) must(cb_authn_call_new(&call, NULL));
    const uint8_t *nul = memchr(data, '\0', size);
    size_t head = nul ? (size_t)(nul - data) : size;
    claims = nul ? (cb_slice){nul + 1, size - head - 1} : (cb_slice){data, 0};
    const cb_authn_request request = {.size = sizeof request,
                                      .fields = fields,
                                      .n_fields = split(fields, (cb_slice){data, head}),
                                      .method = cb_slice_str("GET"),
                                      .scheme = cb_slice_str("https"),
                                      .authority = cb_slice_str("api.example"),
                                      .path = cb_slice_str("/"),
                                      .now_s = NOW};
    judge(call, gates[0], &request);
    judge(call, gates[1], &request);
    cb_authn_call_reset(call);
    if (cb_api_keys_new(&keys, (cb_slice){data, size}, (cb_slice){hash_key, sizeof hash_key}) == CB_OK)
        cb_api_keys_unref(keys);
    return 0;
}
