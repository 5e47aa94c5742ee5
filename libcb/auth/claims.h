/* Claims: a JSON object that says who somebody is, wherever it came from. */
#ifndef CB_AUTH_CLAIMS_H
#define CB_AUTH_CLAIMS_H

#include "auth/json.h"
#include <cb/auth.h>

/* Paths are those of cb_jwt_claim(). NULL: there is none. */
const cb_json_node *cb_claims_find(const cb_json *j, const char *path);
/* Its text; NULL: none, or no text. */
const char *cb_claims_text(const cb_json *j, const char *path);
void cb_claims_give(const cb_json *j, const cb_json_node *at, cb_claim *out);
int cb_claims_next(const cb_json *j, const cb_claim *of, uint32_t *it, cb_claim *out);
bool cb_claims_has(const cb_json *j, const char *path, const char *text);
bool cb_claims_has_scope(const cb_json *j, const char *scope);
/* The next value of a claim (NULL: has none), from *it = 0: a scalar is one, as it is written; a list has its scalars,
 * an object the names of its members. False at the end. */
bool cb_claims_value(const cb_json *j, const cb_json_node *of, uint32_t *it, cb_slice *value);
/* A date: false when it is there and no whole number of seconds from 0 to 2^53; *out is 0 when it is absent. */
bool cb_claims_date(const cb_json *j, const char *name, int64_t *out);

#endif
