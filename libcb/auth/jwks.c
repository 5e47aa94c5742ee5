#include "auth/jwks.h"
#include "base/error.h"
#include "base/mem.h"
#include "base/opts.h"
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

enum { KEYS = 64, KEYS_MAX = 1024, BYTES = 256 * 1024, BYTES_MAX = 1024 * 1024 };

static int add_note(cb_jwks *set, const char *line) {
    char **more = cb_mem_grow(&cb_alloc_libc, set->notes, (set->notes_len + 1) * sizeof *more);
    if (!more) return cb_fail(CB_ENOMEM, "no memory for a key set");
    set->notes = more;
    char *text = cb_mem_text(&cb_alloc_libc, line);
    if (!text) return cb_fail(CB_ENOMEM, "no memory for a key set");
    set->notes[set->notes_len++] = text;
    return CB_OK;
}

static int note(cb_jwks *set, size_t at, const char *kid, const char *why) {
    char line[512];
    snprintf(line, sizeof line, "keys[%zu]%s%.64s%s: %s", at, kid ? " (kid \"" : "", kid ? kid : "", kid ? "\")" : "",
             why);
    return add_note(set, line);
}

static bool same_name(const cb_jwk *a, const cb_jwk *b) {
    if (a->jwa->alg != b->jwa->alg || !a->kid != !b->kid) return false;
    return a->kid ? strcmp(a->kid, b->kid) == 0 : memcmp(a->print, b->print, 32) == 0;
}

static bool taken(const cb_jwks *set, const cb_jwk *key) {
    for (size_t i = 0; i < set->len; i++)
        if (same_name(set->keys + i, key)) return true;
    return false;
}

static int read_one(cb_jwks *set, const cb_json *j, const cb_json_node *at, size_t index, const cb_jwks_opts *o) {
    cb_jwk *key = set->keys + set->len;
    const cb_json_node *name = cb_json_get(j, at, "kid", 3);
    const char *kid = cb_json_is(name, CB_JSON_TEXT) ? j->text + name->at : NULL;
    int rc = cb_jwk_read(key, j, at, o->symmetric ? CB_JWK_VERIFY_SECRET : CB_JWK_VERIFY,
                         o->rsa_alg ? o->rsa_alg : CB_JWT_RS256);
    if (rc == CB_OK && name && !kid) rc = cb_fail(CB_EINVAL, "its kid is no text");
    if (rc == CB_OK) rc = cb_jwk_name(key, kid);
    if (rc == CB_OK && taken(set, key)) rc = cb_fail(CB_EINVAL, "this kid with %s was there before", key->jwa->name);
    if (rc == CB_OK) {
        set->len++;
        return CB_OK;
    }
    cb_jwk_clear(key);
    return rc == CB_EINVAL ? note(set, index, kid, cb_last_error()) : rc;
}

static int read_keys(cb_jwks *set, const cb_json *j, const cb_jwks_opts *o, size_t room) {
    const cb_json_node *root = j->nodes, *keys = cb_json_get(j, root, "keys", 4);
    size_t i = 0;
    if (root->kind != CB_JSON_OBJECT) return cb_fail(CB_EINVAL, "a key set must be an object");
    if (!keys && cb_json_get(j, root, "kty", 3)) return room ? read_one(set, j, root, 0, o) : CB_ELIMIT;
    if (!cb_json_is(keys, CB_JSON_LIST)) return cb_fail(CB_EINVAL, "a key set must have a list \"keys\"");
    if (keys->len > room) return cb_fail(CB_ELIMIT, "%u keys: at most %zu are taken (max_keys)", keys->len, room);
    int rc = CB_OK;
    for (const cb_json_node *at = cb_json_first(j, keys); at && rc == CB_OK; at = cb_json_next(j, keys, at))
        rc = read_one(set, j, at, i++, o);
    return rc;
}

static int read_document(cb_jwks *set, const cb_jwks_opts *o, size_t room) {
    const size_t limit = o->max_bytes ? o->max_bytes : BYTES;
    cb_json j;
    if (!o->json.len) return CB_OK;
    if (o->json.len > limit)
        return cb_fail(CB_ELIMIT, "a key set of %zu bytes: at most %zu are taken", o->json.len, limit);
    int rc = cb_json_open(&j, o->json);
    if (rc != 0) return rc < 0 ? rc : CB_EINVAL;
    rc = read_keys(set, &j, o, room);
    cb_json_close(&j);
    return rc;
}

static int add_configured(cb_jwks *set, const cb_jwk_opts *given, size_t i) {
    cb_jwk_opts o;
    cb_jwk *key = set->keys + set->len;
    char why[256];
    int rc = cb_opts_read(&o, sizeof o, given, "cb_jwk_opts");
    if (rc < 0) return rc;
    if (!o.pem.len == !o.secret.len) return cb_fail(CB_EINVAL, "keys[%zu] needs either pem or secret", i);
    rc = o.pem.len ? cb_jwk_from_pem(key, o.pem, CB_JWK_VERIFY, o.alg) : cb_jwk_from_secret(key, o.secret, o.alg);
    if (rc == CB_OK) rc = cb_jwk_name(key, o.kid);
    if (rc == CB_OK && taken(set, key)) rc = cb_fail(CB_EINVAL, "this kid with %s was there before", key->jwa->name);
    if (rc == CB_OK) {
        set->len++;
        return CB_OK;
    }
    cb_jwk_clear(key);
    snprintf(why, sizeof why, "%s", cb_last_error());
    return cb_fail(rc, "keys[%zu]: %s", i, why);
}

static int check_opts(const cb_jwks_opts *o) {
    const cb_jwa *rsa = cb_jwa_get(o->rsa_alg);
    if (o->max_keys > KEYS_MAX || o->max_bytes > BYTES_MAX)
        return cb_fail(CB_EINVAL, "cb_jwks_opts: max_keys is at most %d, max_bytes %d", KEYS_MAX, BYTES_MAX);
    if (o->rsa_alg && (!rsa || rsa->family != CB_JWK_RSA))
        return cb_fail(CB_EINVAL, "cb_jwks_opts: rsa_alg must be one of RSA's");
    if ((o->keys_len && !o->keys) || (o->json.len && !o->json.base))
        return cb_fail(CB_EINVAL, "cb_jwks_opts: keys or json is missing");
    return CB_OK;
}

static cb_jwks *set_new(size_t room) {
    cb_jwks *set = cb_mem_new(&cb_alloc_libc, sizeof *set);
    if (set) set->keys = cb_mem_new(&cb_alloc_libc, (room + 1) * sizeof *set->keys);
    if (!set || !set->keys) {
        cb_mem_free(&cb_alloc_libc, set);
        cb_fail(CB_ENOMEM, "no memory for a key set");
        return NULL;
    }
    atomic_init(&set->refs, 1);
    return set;
}

int cb_jwks_new(cb_jwks **out, const cb_jwks_opts *opts) {
    cb_jwks_opts o;
    if (!out || !opts) return cb_fail(CB_EINVAL, "cb_jwks_new: out and opts are needed");
    int rc = cb_opts_read(&o, sizeof o, opts, "cb_jwks_opts");
    if (rc == CB_OK) rc = check_opts(&o);
    if (rc < 0) return rc;
    size_t room = o.max_keys ? o.max_keys : KEYS;
    if (o.keys_len > room) return cb_fail(CB_ELIMIT, "%zu keys: at most %zu are taken (max_keys)", o.keys_len, room);
    cb_jwks *set = set_new(room);
    if (!set) return CB_ENOMEM;
    for (size_t i = 0; i < o.keys_len && rc == CB_OK; i++)
        rc = add_configured(set, o.keys[i], i);
    if (rc == CB_OK) rc = read_document(set, &o, room - set->len);
    if (rc < 0) {
        cb_jwks_unref(set);
        return rc;
    }
    *out = set;
    return CB_OK;
}

static int copy_key(cb_jwk *to, const cb_jwk *from) {
    cb_json j;
    int rc = cb_json_open(&j, cb_slice_str(from->json));
    if (rc != 0) return rc < 0 ? rc : CB_EINVAL;
    rc = cb_jwk_read(to, &j, j.nodes, CB_JWK_VERIFY, from->jwa->alg);
    cb_json_close(&j);
    return rc < 0 ? rc : cb_jwk_name(to, from->kid);
}

int cb_jwks_union(cb_jwks **out, cb_jwks *const *sets, size_t n) {
    size_t room = 0;
    int rc = CB_OK;
    for (size_t i = 0; i < n; i++)
        room += sets[i]->len;
    cb_jwks *made = set_new(room);
    if (!made) return CB_ENOMEM;
    for (size_t i = 0; i < n; i++) {
        for (size_t k = 0; rc == CB_OK && k < sets[i]->len; k++) {
            const cb_jwk *key = sets[i]->keys + k;
            if (!key->json || taken(made, key)) continue;
            rc = copy_key(made->keys + made->len++, key); /* cleared with the set if that failed */
        }
    }
    for (size_t i = 0; rc == CB_OK && n && i < sets[0]->notes_len; i++)
        rc = add_note(made, sets[0]->notes[i]);
    if (rc < 0) {
        cb_jwks_unref(made);
        return rc;
    }
    *out = made;
    return CB_OK;
}

bool cb_jwks_same(const cb_jwks *a, const cb_jwks *b) {
    if (a->len != b->len) return false;
    for (size_t i = 0; i < a->len; i++)
        if (!cb_jwks_holds(b, a->keys[i].print)) return false;
    return true;
}

cb_jwks *cb_jwks_ref(cb_jwks *set) {
    atomic_fetch_add_explicit(&set->refs, 1, memory_order_relaxed);
    return set;
}

void cb_jwks_unref(cb_jwks *set) {
    if (!set || atomic_fetch_sub_explicit(&set->refs, 1, memory_order_acq_rel) != 1) return;
    for (size_t i = 0; i < set->len; i++)
        cb_jwk_clear(set->keys + i);
    for (size_t i = 0; i < set->notes_len; i++)
        cb_mem_free(&cb_alloc_libc, set->notes[i]);
    cb_mem_free(&cb_alloc_libc, set->notes);
    cb_mem_free(&cb_alloc_libc, set->keys);
    cb_mem_free(&cb_alloc_libc, set);
}

size_t cb_jwks_len(const cb_jwks *set) {
    return set->len;
}

const char *cb_jwks_kid(const cb_jwks *set, size_t i) {
    return i < set->len ? set->keys[i].kid : NULL;
}

int cb_jwks_alg(const cb_jwks *set, size_t i) {
    return i < set->len ? set->keys[i].jwa->alg : 0;
}

const char *cb_jwks_thumbprint(const cb_jwks *set, size_t i) {
    return i < set->len ? set->keys[i].thumbprint : "";
}

int cb_jwks_has(const cb_jwks *set, const char *kid) {
    for (size_t i = 0; i < set->len; i++)
        if (set->keys[i].kid && strcmp(set->keys[i].kid, kid) == 0) return 1;
    return 0;
}

const char *cb_jwks_note(const cb_jwks *set, size_t i) {
    return i < set->notes_len ? set->notes[i] : NULL;
}

bool cb_jwks_holds(const cb_jwks *set, const uint8_t print[32]) {
    for (size_t i = 0; i < set->len; i++)
        if (memcmp(set->keys[i].print, print, 32) == 0) return true;
    return false;
}
