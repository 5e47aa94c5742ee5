#include "auth/token_source.h"
#include "auth/oidc_int.h"
#include "base/error.h"
#include "base/mem.h"
#include "base/opts.h"
#include "loop/loop_int.h"
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { SECOND_MS = 1000, RETRY_MAX_MS = 60000, LIFETIME_S = 300, TEXTS = 6 };

static const cb_alloc *const heap = &cb_alloc_libc;

struct cb_token_source {
    cb_loop *loop;
    cb_oidc_request_opts request; /* with texts of our own */
    char *texts[TEXTS];
    void (*on_token)(cb_token_source *s, int rc, const cb_oidc_tokens *tokens, void *user);
    void *user;
    uint32_t lifetime_s;
    unsigned failures;
    bool freed;
    cb_oidc_request *under_way;
    cb_alarm alarm;
    cb_grave grave;
    pthread_mutex_t lock; /* guards what follows */
    char *token;
    int64_t expires_s;
    char error[300];
};

static int64_t less(int64_t ms, int64_t part, uint32_t random) {
    return ms - (int64_t)((uint64_t)(ms / part) * (random >> 8) >> 24);
}

int64_t cb_token_renew_ms(int64_t lifetime_ms, uint32_t random) {
    const int64_t at = less(lifetime_ms / 10 * 8, 8, random);
    return at > SECOND_MS ? at : SECOND_MS;
}

int64_t cb_token_retry_ms(unsigned n, uint32_t random) {
    int64_t ms = (int64_t)SECOND_MS << (n < 7 ? n - 1 : 6);
    return less(ms < RETRY_MAX_MS ? ms : RETRY_MAX_MS, 4, random);
}

static int replace(char **to, const char *from) {
    char *copy = cb_mem_text(heap, from);
    if (from && !copy) return cb_fail(CB_ENOMEM, "no memory for a token");
    if (*to) cb_mem_wipe(*to, strlen(*to));
    cb_mem_free(heap, *to);
    *to = copy;
    return CB_OK;
}

static const char **text_at(cb_oidc_request_opts *o, size_t i) {
    const char **const at[TEXTS] = {&o->scope, &o->audience, &o->resource, &o->subject, &o->token_hint, &o->token};
    return at[i];
}

/* ---- asking ---- */

static void keep(cb_token_source *s, const cb_oidc_tokens *t) {
    pthread_mutex_lock(&s->lock);
    const int rc = replace(&s->token, t->access_token);
    if (rc == CB_OK) s->expires_s = t->expires_at_s ? t->expires_at_s : t->received_at_s + s->lifetime_s;
    s->error[0] = '\0';
    pthread_mutex_unlock(&s->lock);
    /* Without memory for a new refresh token the old one is tried. */
    if (s->request.type == CB_OIDC_REFRESH && t->refresh_token &&
        replace(&s->texts[TEXTS - 1], t->refresh_token) == CB_OK)
        s->request.token = s->texts[TEXTS - 1];
}

static void plan(cb_token_source *s, int64_t after_ms) {
    cb_alarm_set(&s->alarm, cb_loop_now(s->loop) + (cb_time)after_ms * CB_MS);
}

static void on_done(cb_oidc_request *r, int rc, const cb_oidc_tokens *t, const char *error, void *user) {
    cb_token_source *s = user;
    char why[300];
    uint32_t random = 0;
    (void)error;
    snprintf(why, sizeof why, "%s", rc < 0 ? cb_last_error() : "");
    cb_loop_random(s->loop, &random, sizeof random);
    if (rc == CB_OK) {
        const int64_t lifetime_s = t->expires_at_s ? t->expires_at_s - t->received_at_s : (int64_t)s->lifetime_s;
        s->failures = 0;
        keep(s, t);
        plan(s, cb_token_renew_ms(lifetime_s * SECOND_MS, random));
    } else {
        pthread_mutex_lock(&s->lock);
        snprintf(s->error, sizeof s->error, "%s", why);
        pthread_mutex_unlock(&s->lock);
        plan(s, cb_token_retry_ms(++s->failures, random));
    }
    s->under_way = NULL;
    cb_error_set(rc, why);
    if (s->on_token) s->on_token(s, rc, t, s->user); /* s may be gone */
    cb_oidc_request_free(r);
}

static void on_alarm(cb_alarm *alarm, cb_time now) {
    cb_token_source *s = CB_CONTAINER(alarm, cb_token_source, alarm);
    uint32_t random = 0;
    (void)now;
    if (cb_oidc_request_start(&s->under_way, s->loop, &s->request, on_done, s) == CB_OK) return;
    cb_loop_random(s->loop, &random, sizeof random);
    plan(s, cb_token_retry_ms(++s->failures, random)); /* no memory */
}

/* ---- the interface ---- */

static int copy_request(cb_token_source *s, const cb_oidc_request_opts *o) {
    int rc = CB_OK;
    s->request = *o;
    s->request.size = sizeof s->request;
    for (size_t i = 0; rc == CB_OK && i < TEXTS; i++) {
        rc = replace(&s->texts[i], *text_at(&s->request, i));
        *text_at(&s->request, i) = s->texts[i];
    }
    s->request.provider = cb_oidc_ref(o->provider);
    s->request.key = o->key ? cb_jwt_signer_ref(o->key) : NULL;
    return rc;
}

int cb_token_source_new(cb_token_source **out, cb_loop *loop, const cb_token_source_opts *opts) {
    cb_token_source_opts o;
    cb_oidc_request_opts request;
    if (!out || !loop || !opts) return cb_fail(CB_EINVAL, "cb_token_source_new: out, loop and opts are needed");
    int rc = cb_opts_read(&o, sizeof o, opts, "cb_token_source_opts");
    if (rc == CB_OK && !o.request) rc = cb_fail(CB_EINVAL, "cb_token_source_opts: request is needed");
    if (rc == CB_OK) rc = cb_opts_read(&request, sizeof request, o.request, "cb_oidc_request_opts");
    if (rc < 0) return rc;
    if (!request.provider) return cb_fail(CB_EINVAL, "cb_oidc_request_opts: provider is needed");
    if (request.type != CB_OIDC_CLIENT_CREDENTIALS && request.type != CB_OIDC_JWT_BEARER &&
        request.type != CB_OIDC_REFRESH)
        return cb_fail(CB_EINVAL, "cb_token_source_opts: type %d gives no token again and again", request.type);
    cb_token_source *s = cb_mem_new(heap, sizeof *s);
    if (!s) return cb_fail(CB_ENOMEM, "no memory for a token");
    s->loop = loop;
    s->on_token = o.on_token;
    s->user = o.user;
    s->lifetime_s = o.lifetime_s ? o.lifetime_s : LIFETIME_S;
    pthread_mutex_init(&s->lock, NULL);
    cb_alarm_init(&s->alarm, loop, on_alarm);
    rc = copy_request(s, &request);
    if (rc == CB_OK) rc = cb_oidc_request_start(&s->under_way, loop, &s->request, on_done, s);
    if (rc < 0) {
        cb_token_source_free(s);
        return rc;
    }
    *out = s;
    return CB_OK;
}

static void bury(cb_grave *grave) {
    cb_mem_free(heap, CB_CONTAINER(grave, cb_token_source, grave));
}

void cb_token_source_free(cb_token_source *s) {
    if (!s || s->freed) return;
    s->freed = true;
    cb_alarm_stop(&s->alarm);
    cb_oidc_request_free(s->under_way);
    for (size_t i = 0; i < TEXTS; i++)
        replace(&s->texts[i], NULL);
    replace(&s->token, NULL);
    cb_jwt_signer_unref(s->request.key);
    cb_oidc_unref(s->request.provider);
    pthread_mutex_destroy(&s->lock);
    cb_loop_bury(s->loop, &s->grave, bury);
}

int64_t cb_token_source_get(cb_token_source *s, char *out, size_t cap, int64_t *expires_s) {
    int64_t n;
    if (!s || !out) return cb_fail(CB_EINVAL, "cb_token_source_get: s and out are needed");
    const int64_t now_s = (int64_t)time(NULL);
    pthread_mutex_lock(&s->lock);
    if (!s->token || s->expires_s <= now_s) {
        n = cb_fail(CB_EAGAIN, "there is no token%s%s", *s->error ? ": " : " yet", s->error);
    } else if (strlen(s->token) >= cap) {
        n = cb_fail(CB_ELIMIT, "the token has %zu bytes", strlen(s->token));
    } else {
        n = (int64_t)strlen(s->token);
        memcpy(out, s->token, (size_t)n + 1);
        if (expires_s) *expires_s = s->expires_s;
    }
    pthread_mutex_unlock(&s->lock);
    return n;
}
