/* API keys from the inside. */
#ifndef CB_AUTH_API_KEYS_H
#define CB_AUTH_API_KEYS_H

#include "auth/json.h"
#include <cb/authn.h>

enum { CB_API_KEY_ID = 12, CB_API_KEY_SECRET = 43 };

typedef struct cb_api_key {
    uint8_t hash[CB_API_KEY_HASH_BYTES];
    int64_t iat, exp; /* 0: none */
    cb_json claims;
    char id[CB_API_KEY_ID + 1];
} cb_api_key;

/* The key whose text this is, or NULL. Takes as long for an ID that is not there. */
const cb_api_key *cb_api_keys_find(const cb_api_keys *keys, cb_slice text);

#endif
