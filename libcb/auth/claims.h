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
/* The same of the claim itself, where numbers, true and false are compared as they are written, too. */
bool cb_claims_is(const cb_json *j, const cb_json_node *of, const char *text);
/* A date: false when it is there and no whole number of seconds from 0 to 2^53; *out is 0 when it is absent. */
bool cb_claims_date(const cb_json *j, const char *name, int64_t *out);

#endif
