#include "auth/oidc_core.h"
#include "base/error.h"
#include <stdio.h>
#include <string.h>
#include <strings.h>

enum {
    DISCOVERY_MS = 3600 * 1000,
    FRESH_MIN_MS = 30 * 1000,
    MISS_MS = 10 * 1000, /* between two fetches for unknown keys */
    RETRY_MS = 1000,
    RETRY_MAX_MS = 60 * 1000
};

void cb_oidc_core_init(cb_oidc_core *c, const cb_oidc_conf *conf, int64_t now_ms) {
    *c = (cb_oidc_core){.conf = conf, .meta_at = now_ms, .keys_at = now_ms, .random = conf->seed | 1};
}

static void drop_old(cb_oidc_core *c, size_t n) {
    for (size_t i = 0; i < n; i++)
        cb_jwks_unref(c->old[i].set);
    c->old_len -= n;
    memmove(c->old, c->old + n, c->old_len * sizeof *c->old);
}

void cb_oidc_core_clear(cb_oidc_core *c) {
    drop_old(c, c->old_len);
    cb_jwks_unref(c->published);
    cb_jwks_unref(c->keys);
    cb_oidc_meta_unref(c->meta);
    memset(c, 0, sizeof *c);
}

/* ms less up to a tenth, so that many hosts do not ask at one time (xorshift32). */
static int64_t jitter(cb_oidc_core *c, int64_t ms) {
    c->random ^= c->random << 13;
    c->random ^= c->random >> 17;
    c->random ^= c->random << 5;
    return ms - (int64_t)((uint64_t)ms / 10 * (c->random >> 8) >> 24);
}

/* ---- keys ---- */

static int unite(cb_oidc_core *c) {
    cb_jwks *sets[CB_OIDC_OLD_SETS + 1] = {c->published}, *all = NULL;
    size_t n = 1;
    for (size_t i = c->old_len; i-- > 0;) /* the newest first: it wins where a name comes twice */
        sets[n++] = c->old[i].set;
    int rc = n == 1 ? CB_OK : cb_jwks_union(&all, sets, n);
    if (rc < 0) return rc;
    cb_jwks_unref(c->keys);
    c->keys = n == 1 ? cb_jwks_ref(c->published) : all;
    c->changed = true;
    return CB_OK;
}

/* Takes what was fetched. Of a set that is replaced the keys stay for their grace time. */
static int take_keys(cb_oidc_core *c, cb_jwks *set, int64_t now_ms) {
    cb_jwks *before = c->published;
    if (before && cb_jwks_same(before, set)) {
        cb_jwks_unref(set);
        return unite(c);
    }
    c->published = set;
    if (before) c->rotations++;
    if (before && c->conf->grace_ms) {
        if (c->old_len == CB_OIDC_OLD_SETS) drop_old(c, 1);
        c->old[c->old_len].set = before;
        c->old[c->old_len++].until_ms = now_ms + c->conf->grace_ms;
    } else {
        cb_jwks_unref(before);
    }
    return unite(c);
}

static void expire(cb_oidc_core *c, int64_t now_ms) {
    size_t n = 0;
    if (c->keys && now_ms - c->good_ms >= c->conf->stale_ms) {
        drop_old(c, c->old_len);
        cb_jwks_unref(c->keys);
        cb_jwks_unref(c->published);
        c->keys = c->published = NULL;
        c->etag[0] = '\0';
        c->changed = true;
    }
    while (n < c->old_len && c->old[n].until_ms <= now_ms)
        n++;
    if (!n) return;
    drop_old(c, n);
    unite(c); /* without memory the old ones stay for now */
}

/* ---- when ---- */

static int64_t earliest(const cb_oidc_core *c) {
    int64_t at = INT64_MAX;
    if (!c->sent) at = c->meta && c->keys_at < c->meta_at ? c->keys_at : c->meta_at;
    if (c->keys && c->good_ms + c->conf->stale_ms < at) at = c->good_ms + c->conf->stale_ms;
    if (c->old_len && c->old[0].until_ms < at) at = c->old[0].until_ms;
    return at;
}

static void failed(cb_oidc_core *c, int64_t now_ms, int64_t retry_after_ms) {
    unsigned *times = c->asking_keys ? &c->keys_failures : &c->meta_failures;
    int64_t wait = RETRY_MS << (*times < 6 ? *times : 6);
    if (wait > RETRY_MAX_MS) wait = RETRY_MAX_MS;
    if (retry_after_ms > wait) wait = retry_after_ms < c->conf->refresh_ms ? retry_after_ms : c->conf->refresh_ms;
    if (*times < 1000) ++*times;
    *(c->asking_keys ? &c->keys_at : &c->meta_at) = now_ms + jitter(c, wait);
    c->failures++;
    snprintf(c->detail, sizeof c->detail, "%s", cb_last_error());
}

enum cb_oidc_what cb_oidc_core_next(cb_oidc_core *c, int64_t now_ms) {
    expire(c, now_ms);
    if (!c->sent && now_ms >= c->meta_at) {
        c->asking_keys = false;
        c->sent = cb_oidc_discovery_url(c->conf, c->alt, c->url) >= 0;
        if (c->sent) return CB_OIDC_SEND;
        failed(c, now_ms, 0);
    } else if (!c->sent && c->meta && now_ms >= c->keys_at) {
        c->asking_keys = true;
        c->keys_asked_ms = now_ms;
        c->missed = false;
        c->sent = c->meta->endpoints[CB_OIDC_JWKS] != NULL;
        if (c->sent) {
            snprintf(c->url, sizeof c->url, "%s", c->meta->endpoints[CB_OIDC_JWKS]);
            return CB_OIDC_SEND;
        }
        cb_fail(CB_EPROTO, "keys: the provider has no jwks_uri");
        failed(c, now_ms, 0);
    }
    c->wake_ms = earliest(c);
    return CB_OIDC_WAIT;
}

void cb_oidc_core_miss(cb_oidc_core *c, int64_t now_ms) {
    const int64_t at = c->keys_asked_ms + MISS_MS;
    c->missed = true;
    if (!c->meta || c->keys_failures || c->sent) return;
    if (at < c->keys_at) c->keys_at = at > now_ms ? at : now_ms;
}

/* ---- answers ---- */

/* max-age of a Cache-Control; -1: nothing is said; 0: no-store, no-cache. */
static int64_t max_age_s(cb_slice field) {
    char text[256];
    int64_t age = -1;
    if (field.len >= sizeof text) return -1;
    if (field.len) memcpy(text, field.base, field.len);
    text[field.len] = '\0';
    char *save = NULL;
    for (char *word = strtok_r(text, ", \t", &save); word; word = strtok_r(NULL, ", \t", &save)) {
        if (strcasecmp(word, "no-store") == 0 || strcasecmp(word, "no-cache") == 0) return 0;
        if (strncasecmp(word, "max-age=", 8) != 0) continue;
        age = 0;
        for (const char *p = word + 8; *p >= '0' && *p <= '9' && age < 1000000000; p++)
            age = age * 10 + (*p - '0');
    }
    return age;
}

static int64_t number(cb_slice field) {
    int64_t n = 0;
    for (size_t i = 0; i < field.len && field.base[i] >= '0' && field.base[i] <= '9' && n < 1000000000; i++)
        n = n * 10 + (field.base[i] - '0');
    return n;
}

static void keep_etag(cb_oidc_core *c, cb_slice etag) {
    bool fine = etag.len > 0 && etag.len < sizeof c->etag;
    for (size_t i = 0; fine && i < etag.len; i++)
        fine = etag.base[i] > ' ' && etag.base[i] < 0x7f;
    if (fine) memcpy(c->etag, etag.base, etag.len);
    c->etag[fine ? etag.len : 0] = '\0';
}

static void plan_keys(cb_oidc_core *c, const cb_oidc_answer *a, int64_t now_ms) {
    int64_t wait = c->conf->refresh_ms;
    const int64_t age = max_age_s(a->cache_control);
    int64_t fresh = age < 0 ? wait : (age - number(a->age)) * 1000;
    if (fresh < FRESH_MIN_MS) fresh = FRESH_MIN_MS;
    if (fresh < wait) wait = fresh;
    c->keys_at = now_ms + jitter(c, wait);
    if (c->missed && c->keys_asked_ms + MISS_MS < c->keys_at) c->keys_at = c->keys_asked_ms + MISS_MS;
}

static int keys_answer(cb_oidc_core *c, const cb_oidc_answer *a, int64_t now_ms) {
    cb_jwks *set = NULL;
    int rc = CB_OK;
    if (a->status != 304 || !c->published || !c->etag[0]) {
        rc = cb_oidc_keys_read(&set, a);
        if (rc == CB_OK) rc = take_keys(c, set, now_ms);
        if (rc < 0) return rc;
        keep_etag(c, a->etag);
    }
    c->good_ms = now_ms;
    c->fetches++;
    c->keys_failures = 0;
    c->changed = true; /* the driver notes when keys were good */
    plan_keys(c, a, now_ms);
    return CB_OK;
}

static int meta_answer(cb_oidc_core *c, const cb_oidc_answer *a, int64_t now_ms) {
    cb_oidc_meta *m = NULL;
    if (a->status == 404 && !c->meta) { /* the other place is asked at once, then it counts as a failure */
        c->alt = !c->alt;
        c->meta_at = now_ms;
        if (c->alt) return CB_OK;
    }
    int rc = cb_oidc_meta_read(&m, c->conf, a);
    if (rc < 0) return rc;
    const char *before = c->meta ? c->meta->endpoints[CB_OIDC_JWKS] : NULL, *now = m->endpoints[CB_OIDC_JWKS];
    if (!before || !now || strcmp(before, now) != 0) { /* the keys have moved */
        c->etag[0] = '\0';
        c->keys_at = now_ms;
    }
    cb_oidc_meta_unref(c->meta);
    c->meta = m;
    c->meta_failures = 0;
    c->changed = true;
    c->meta_at = now_ms + jitter(c, DISCOVERY_MS);
    return CB_OK;
}

void cb_oidc_core_answer(cb_oidc_core *c, const cb_oidc_answer *a, int64_t now_ms) {
    if (!c->sent) return;
    c->sent = false;
    int rc = c->asking_keys ? keys_answer(c, a, now_ms) : meta_answer(c, a, now_ms);
    if (rc >= 0) {
        c->detail[0] = '\0';
        return;
    }
    failed(c, now_ms, a->retry_ms);
    if (c->asking_keys && (a->status == 404 || a->status == 410) && c->meta_at > c->keys_at)
        c->meta_at = c->keys_at; /* they may have moved */
}

void cb_oidc_core_unanswered(cb_oidc_core *c, int64_t now_ms) {
    c->sent = false;
    failed(c, now_ms, 0);
}
