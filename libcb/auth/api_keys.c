/* API keys: lines of JSON that hold keyed hashes, and the making of new ones. */
#include "auth/api_keys.h"
#include "auth/base64url.h"
#include "auth/claims.h"
#include "auth/file.h"
#include "base/error.h"
#include "base/map.h"
#include "base/mem.h"
#include "base/opts.h"
#include <gnutls/crypto.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

enum { FILE_BYTES = 8 << 20, LINE_BYTES = 16384, HASH_KEY_BYTES = 32, PREFIX = 4, TEXT = PREFIX + 12 + 1 + 43 };

struct cb_api_keys {
    _Atomic uint32_t refs;
    cb_map by_id; /* of cb_api_key, each a block with its claims */
    uint8_t hash_key[HASH_KEY_BYTES];
};

/* ---- the text of a key: cbk_ID_SECRET ---- */

static bool is_id(const uint8_t *p, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!((p[i] >= '0' && p[i] <= '9') || (p[i] >= 'a' && p[i] <= 'z') || (p[i] >= 'A' && p[i] <= 'Z')))
            return false;
    return n == CB_API_KEY_ID;
}

static int keyed_hash(const cb_api_keys *keys, cb_slice text, uint8_t out[CB_API_KEY_HASH_BYTES]) {
    int rc = gnutls_hmac_fast(GNUTLS_MAC_SHA256, keys->hash_key, HASH_KEY_BYTES, text.base, text.len, out);
    return rc < 0 ? cb_fail(CB_ESYS, "HMAC-SHA-256 does not work here") : CB_OK;
}

const cb_api_key *cb_api_keys_find(const cb_api_keys *keys, cb_slice text) {
    static const cb_api_key nobody = {.iat = 0};
    uint8_t hash[CB_API_KEY_HASH_BYTES];
    if (text.len != TEXT || memcmp(text.base, "cbk_", PREFIX) != 0 || !is_id(text.base + PREFIX, CB_API_KEY_ID))
        return NULL;
    const cb_api_key *key = cb_map_get(&keys->by_id, text.base + PREFIX, CB_API_KEY_ID);
    if (keyed_hash(keys, text, hash) < 0) return NULL;
    bool same = gnutls_memcmp(hash, key ? key->hash : nobody.hash, sizeof hash) == 0;
    return same ? key : NULL;
}

/* ---- lines ---- */

static int hex_digit(char c) {
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool read_hash(uint8_t out[CB_API_KEY_HASH_BYTES], const char *text) {
    if (!text || strlen(text) != 2 * (size_t)CB_API_KEY_HASH_BYTES) return false;
    for (size_t i = 0; i < CB_API_KEY_HASH_BYTES; i++) {
        int high = hex_digit(text[2 * i]), low = hex_digit(text[2 * i + 1]);
        if (high < 0 || low < 0) return false;
        out[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

static int read_members(cb_api_key *key) {
    const cb_json *j = &key->claims;
    if (j->nodes->kind != CB_JSON_OBJECT) return cb_fail(CB_EINVAL, "it is no JSON object");
    const char *id = cb_json_text(j, j->nodes, "key"), *sub = cb_json_text(j, j->nodes, "sub");
    if (!id || !is_id((const uint8_t *)id, strlen(id)))
        return cb_fail(CB_EINVAL, "\"key\" must be %d letters and digits", CB_API_KEY_ID);
    if (!read_hash(key->hash, cb_json_text(j, j->nodes, "hash")))
        return cb_fail(CB_EINVAL, "\"hash\" must be %d hexadecimal digits in lower case", 2 * CB_API_KEY_HASH_BYTES);
    if (!sub || !*sub) return cb_fail(CB_EINVAL, "\"sub\" is missing, empty or no text");
    if (!cb_claims_date(j, "iat", &key->iat) || !cb_claims_date(j, "exp", &key->exp))
        return cb_fail(CB_EINVAL, "\"iat\" and \"exp\" are seconds since 1970");
    memcpy(key->id, id, sizeof key->id);
    return CB_OK;
}

static int read_line(cb_api_keys *keys, cb_slice line) {
    size_t room = cb_json_room((const char *)line.base, line.len);
    if (line.len > LINE_BYTES) return cb_fail(CB_ELIMIT, "it is longer than %d bytes", LINE_BYTES);
    if (keys->by_id.len == CB_API_KEYS_MAX) return cb_fail(CB_ELIMIT, "more than %d keys", CB_API_KEYS_MAX);
    cb_api_key *key = cb_mem_new(&cb_alloc_libc, sizeof *key + room * sizeof(cb_json_node) + line.len + 1);
    if (!key) return cb_fail(CB_ENOMEM, "no memory for a key");
    cb_json_node *nodes = (cb_json_node *)(void *)(key + 1);
    char *text = (char *)(nodes + room);
    memcpy(text, line.base, line.len);
    int rc = cb_json_read(&key->claims, text, line.len, nodes, room) ? CB_EINVAL : read_members(key);
    if (rc == CB_OK && cb_map_get(&keys->by_id, key->id, CB_API_KEY_ID))
        rc = cb_fail(CB_EINVAL, "the key \"%s\" is there twice", key->id);
    if (rc == CB_OK) rc = cb_map_put(&keys->by_id, key->id, CB_API_KEY_ID, key);
    if (rc < 0) cb_mem_free(&cb_alloc_libc, key);
    return rc;
}

static int read_lines(cb_api_keys *keys, cb_slice text) {
    size_t number = 0;
    char why[300];
    for (cb_slice line; cb_line_next(&text, &line, &number);) {
        int rc = read_line(keys, line);
        if (rc == CB_OK) continue;
        snprintf(why, sizeof why, "%s", cb_last_error());
        return cb_fail(rc, "line %zu: %s", number, why);
    }
    return CB_OK;
}

int cb_api_keys_new(cb_api_keys **out, cb_slice text, cb_slice hash_key) {
    uint8_t map_key[16];
    if (!out) return cb_fail(CB_EINVAL, "cb_api_keys_new: out is NULL");
    if (hash_key.len != HASH_KEY_BYTES) return cb_fail(CB_EINVAL, "a hash key has %d bytes", HASH_KEY_BYTES);
    if (text.len > FILE_BYTES) return cb_fail(CB_ELIMIT, "more than %d bytes of API keys", FILE_BYTES);
    if (gnutls_rnd(GNUTLS_RND_NONCE, map_key, sizeof map_key) < 0) return cb_fail(CB_ETLS, "no random bytes");
    cb_api_keys *keys = cb_mem_new(&cb_alloc_libc, sizeof *keys);
    if (!keys) return cb_fail(CB_ENOMEM, "no memory for API keys");
    atomic_init(&keys->refs, 1);
    cb_map_init(&keys->by_id, &cb_alloc_libc, map_key);
    memcpy(keys->hash_key, hash_key.base, HASH_KEY_BYTES);
    int rc = read_lines(keys, text);
    if (rc < 0) {
        cb_api_keys_unref(keys);
        return rc;
    }
    *out = keys;
    return CB_OK;
}

size_t cb_api_keys_len(const cb_api_keys *keys) {
    return keys->by_id.len;
}

cb_api_keys *cb_api_keys_ref(cb_api_keys *keys) {
    atomic_fetch_add_explicit(&keys->refs, 1, memory_order_relaxed);
    return keys;
}

void cb_api_keys_unref(cb_api_keys *keys) {
    size_t it = 0;
    if (!keys || atomic_fetch_sub_explicit(&keys->refs, 1, memory_order_acq_rel) != 1) return;
    for (void *key; (key = cb_map_next(&keys->by_id, &it, NULL));)
        cb_mem_free(&cb_alloc_libc, key);
    cb_map_free(&keys->by_id);
    cb_mem_wipe(keys->hash_key, sizeof keys->hash_key);
    cb_mem_free(&cb_alloc_libc, keys);
}

/* ---- new keys ---- */

/* An ID without "-" and "_", so that it can be told from the rest and typed; 62^12 of them. */
static int random_id(char out[CB_API_KEY_ID + 1]) {
    static const char digits[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    for (size_t i = 0; i < CB_API_KEY_ID;) {
        uint8_t byte = 0;
        if (gnutls_rnd(GNUTLS_RND_KEY, &byte, 1) < 0) return cb_fail(CB_ETLS, "no random bytes");
        if (byte < 248) out[i++] = digits[byte % 62];
    }
    out[CB_API_KEY_ID] = '\0';
    return CB_OK;
}

static int random_text(char *key, char id[CB_API_KEY_ID + 1]) {
    uint8_t secret[32];
    char text[CB_API_KEY_SECRET + 1];
    int rc = random_id(id);
    if (rc == CB_OK && gnutls_rnd(GNUTLS_RND_KEY, secret, sizeof secret) < 0) rc = cb_fail(CB_ETLS, "no random bytes");
    if (rc == CB_OK) {
        cb_base64url_encode(text, secret, sizeof secret);
        snprintf(key, CB_API_KEY_BYTES, "cbk_%s_%s", id, text);
    }
    cb_mem_wipe(secret, sizeof secret);
    cb_mem_wipe(text, sizeof text);
    return rc;
}

static int put_pair(cb_buf *b, const char *name, const char *text) {
    int rc = cb_buf_printf(b, ", \"%s\": ", name);
    return rc == CB_OK ? cb_json_quote(b, text) : rc;
}

static int put_roles(cb_buf *b, const cb_api_key_opts *o) {
    int rc = o->n_roles ? cb_buf_text(b, ", \"roles\": [") : CB_OK;
    for (size_t i = 0; i < o->n_roles && rc == CB_OK; i++) {
        if (i) rc = cb_buf_text(b, ", ");
        if (rc == CB_OK) rc = cb_json_quote(b, o->roles[i]);
    }
    return rc == CB_OK && o->n_roles ? cb_buf_text(b, "]") : rc;
}

static int put_line(cb_buf *b, const char *id, const uint8_t hash[CB_API_KEY_HASH_BYTES], const cb_api_key_opts *o) {
    int rc = cb_buf_printf(b, "{\"key\": \"%s\", \"hash\": \"", id);
    for (size_t i = 0; i < CB_API_KEY_HASH_BYTES && rc == CB_OK; i++)
        rc = cb_buf_printf(b, "%02x", hash[i]);
    if (rc == CB_OK) rc = cb_buf_text(b, "\"");
    if (rc == CB_OK) rc = put_pair(b, "sub", o->subject);
    if (rc == CB_OK && o->tenant) rc = put_pair(b, "tenant", o->tenant);
    if (rc == CB_OK) rc = put_roles(b, o);
    if (rc == CB_OK) rc = cb_buf_printf(b, ", \"iat\": %" PRId64, o->now_s);
    if (rc == CB_OK && o->expires_s) rc = cb_buf_printf(b, ", \"exp\": %" PRId64, o->expires_s);
    return rc == CB_OK ? cb_buf_add(b, "}", 2) : rc;
}

int cb_api_key_make(char *key, char **line, const cb_api_keys *keys, const cb_api_key_opts *opts) {
    cb_api_key_opts o;
    char text[CB_API_KEY_BYTES] = "", id[CB_API_KEY_ID + 1];
    uint8_t hash[CB_API_KEY_HASH_BYTES];
    cb_buf b;
    if (!key || !line || !keys) return cb_fail(CB_EINVAL, "cb_api_key_make: key, line and keys are needed");
    int rc = cb_opts_read(&o, sizeof o, opts, "cb_api_key_opts");
    if (rc < 0) return rc;
    if (!o.subject || !*o.subject || o.now_s <= 0 || (o.n_roles && !o.roles))
        return cb_fail(CB_EINVAL, "cb_api_key_opts: subject and now_s are needed");
    if (o.expires_s && o.expires_s <= o.now_s) return cb_fail(CB_EINVAL, "cb_api_key_opts: expires_s is past");
    cb_buf_init(&b, &cb_alloc_libc, LINE_BYTES);
    rc = random_text(text, id);
    if (rc == CB_OK) rc = keyed_hash(keys, cb_slice_str(text), hash);
    if (rc == CB_OK) rc = put_line(&b, id, hash, &o);
    if (rc == CB_OK) {
        memcpy(key, text, sizeof text);
        *line = (char *)b.base;
    } else {
        cb_buf_free(&b);
    }
    cb_mem_wipe(text, sizeof text);
    return rc;
}
