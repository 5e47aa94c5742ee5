/* API keys as a source. */
#include "auth/api_keys.h"
#include "auth/authn_int.h"
#include "auth/claims.h"
#include "auth/revocations.h"
#include "base/error.h"
#include "base/mem.h"
#include "base/opts.h"
#include "http/fields.h"
#include <math.h>
#include <string.h>

typedef struct key_source {
    cb_authn_source head;
    cb_api_keys *keys;
} key_source;

static void key_free(cb_authn_source *head) {
    cb_api_keys_unref(((key_source *)head)->keys);
}

static int key_judge(const cb_authn_source *head, cb_authn_call *c, cb_authn_part *out) {
    const key_source *s = (const key_source *)head;
    const cb_authn_request *r = &c->request;
    cb_slice text = {.base = NULL};
    size_t n = 0;
    for (size_t i = 0; i < r->n_fields; i++) {
        if (!cb_slice_eq(r->fields[i].name, head->field)) continue;
        text = r->fields[i].value;
        n++;
    }
    if (!n) return CB_ENOENT;
    if (n > 1) return cb_authn_deny(c, 400, CB_AUTHN_INVALID_REQUEST, 1, "two-credentials");
    const cb_api_key *key = cb_api_keys_find(s->keys, text);
    if (!key) return cb_authn_deny(c, 401, CB_AUTHN_INVALID_TOKEN, 1, "unknown-key");
    if (key->exp && r->now_s >= key->exp)
        return cb_authn_deny(c, 401, CB_AUTHN_INVALID_TOKEN, 1, cb_jwt_reason_text(CB_JWT_EXPIRED));
    if (head->revocations &&
        cb_revocations_hit(head->revocations, head->name, key->id, cb_claims_text(&key->claims, head->subject),
                           key->iat ? (double)key->iat : (double)NAN))
        return cb_authn_deny(c, 401, CB_AUTHN_INVALID_TOKEN, 1, cb_jwt_reason_text(CB_JWT_REVOKED));
    out->claims = key->claims; /* the gate, which the call holds, holds the keys */
    return CB_OK;
}

static const cb_authn_source_vt key_vt = {
    .kind = CB_AUTHN_API_KEY, .carrier = CB_CARRIER_FIELD, .judge = key_judge, .free = key_free};

int cb_authn_source_api_key(cb_authn_source **out, const cb_authn_api_key_opts *opts) {
    static const cb_authn_claims usual = {.size = sizeof usual, .tenant = "tenant", .roles = "roles"};
    cb_authn_api_key_opts o;
    cb_authn_source *head = NULL;
    if (!out) return cb_fail(CB_EINVAL, "cb_authn_source_api_key: out is NULL");
    int rc = cb_opts_read(&o, sizeof o, opts, "cb_authn_api_key_opts");
    if (rc < 0) return rc;
    const char *field = o.field ? o.field : "x-api-key";
    if (!o.keys) return cb_fail(CB_EINVAL, "cb_authn_api_key_opts: keys are needed");
    if (!cb_field_name_ok(cb_slice_str(field)) || !cb_field_name_no_upper(cb_slice_str(field)) ||
        strcmp(field, "authorization") == 0 || strcmp(field, "dpop") == 0)
        return cb_fail(CB_EINVAL,
                       "cb_authn_api_key_opts: \"%.60s\" is not the name of a field of its own, in lower case", field);
    rc = cb_authn_source_make(&head, sizeof(key_source), &key_vt, o.name, o.claims ? o.claims : &usual, o.revocations);
    if (rc < 0) return rc;
    key_source *s = (key_source *)head;
    s->keys = cb_api_keys_ref(o.keys);
    head->field = cb_mem_text(&cb_alloc_libc, field);
    if (!head->field) {
        cb_authn_source_unref(head);
        return cb_fail(CB_ENOMEM, "no memory for a source of identities");
    }
    *out = head;
    return CB_OK;
}
