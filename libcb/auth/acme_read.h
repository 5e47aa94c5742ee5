/* Reading what an ACME server says, which is not trusted. */
#ifndef CB_AUTH_ACME_READ_H
#define CB_AUTH_ACME_READ_H

#include "auth/json.h"
#include "http/web.h"

enum { CB_ACME_ANSWER_BYTES = 131072, CB_ACME_TOKEN_BYTES = 256 };

/* A value of a document; at is NULL where there is none, and then everything within is none too. */
typedef struct cb_acme_value {
    const cb_json *json;
    const cb_json_node *at;
} cb_acme_value;

/* Opens a document that has to be one JSON object; to be closed with cb_json_close() in any case. CB_EPROTO,
 * CB_ENOMEM. */
int cb_acme_json(cb_json *json, cb_slice body);
/* Of what cb_acme_json() opened; none where it failed. */
cb_acme_value cb_acme_root(const cb_json *json);
cb_acme_value cb_acme_member(cb_acme_value of, const char *name);
/* NULL: there is no such text. */
const char *cb_acme_text(cb_acme_value of, const char *name);
cb_acme_value cb_acme_first(cb_acme_value of);
cb_acme_value cb_acme_next(cb_acme_value of, cb_acme_value at);

static inline bool cb_acme_is(cb_acme_value v, int kind) {
    return cb_json_is(v.at, kind);
}

#endif
