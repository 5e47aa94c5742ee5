#include "auth/oidc_job.h"
#include "auth/oidc_answer.h"
#include "base/error.h"
#include "base/mem.h"
#include <stdio.h>
#include <string.h>

enum { TRIES = 3, RETRY_MS = 200, RETRY_MAX_MS = 5000, POLL_MAX_MS = 60000 };

static const cb_alloc *const heap = &cb_alloc_libc;

void cb_oidc_job_init(cb_oidc_job *job, const cb_oidc_conf *conf, int kind) {
    *job = (cb_oidc_job){.conf = conf, .kind = kind};
    cb_buf_init(&job->form, heap, CB_OIDC_FORM_BYTES);
    cb_buf_init(&job->body, heap, CB_OIDC_FORM_BYTES);
    cb_buf_init(&job->authorization, heap, CB_OIDC_FORM_BYTES);
}

static void wipe(cb_buf *b) {
    if (b->base) cb_mem_wipe(b->base, b->cap);
    cb_buf_free(b);
}

void cb_oidc_job_clear(cb_oidc_job *job) {
    wipe(&job->form);
    wipe(&job->body);
    wipe(&job->authorization);
    cb_json_close(&job->answer);
    cb_json_close(&job->prompt_answer);
    cb_jwt_unref(job->tokens.identity);
    cb_jwt_unref(job->token);
    cb_jwks_unref(job->keys);
    cb_oidc_meta_unref(job->meta);
    memset(job, 0, sizeof *job);
}

void cb_oidc_job_fail(cb_oidc_job *job, int rc) {
    job->step = CB_OIDC_STEP_END;
    job->rc = rc;
    snprintf(job->detail, sizeof job->detail, "%s", cb_last_error());
}

static void succeed(cb_oidc_job *job) {
    job->step = CB_OIDC_STEP_END;
    job->rc = CB_OK;
    job->detail[0] = '\0';
}

/* ---- requests ---- */

static int endpoint_of(const cb_oidc_job *job) {
    static const int first[] = {[CB_OIDC_JOB_TOKEN] = CB_OIDC_TOKEN,
                                [CB_OIDC_JOB_DEVICE] = CB_OIDC_DEVICE,
                                [CB_OIDC_JOB_REVOKE] = CB_OIDC_REVOCATION,
                                [CB_OIDC_JOB_INTROSPECT] = CB_OIDC_INTROSPECTION};
    return job->step == CB_OIDC_STEP_KEYS   ? CB_OIDC_JWKS
           : job->step == CB_OIDC_STEP_POLL ? CB_OIDC_TOKEN
                                            : first[job->kind];
}

static const char *const endpoint_names[CB_OIDC_ENDPOINTS] = {[CB_OIDC_TOKEN] = "token endpoint",
                                                              [CB_OIDC_DEVICE] = "device authorization endpoint",
                                                              [CB_OIDC_REVOCATION] = "revocation endpoint",
                                                              [CB_OIDC_INTROSPECTION] = "introspection endpoint",
                                                              [CB_OIDC_JWKS] = "jwks_uri"};

static int add_bearer(cb_oidc_job *job, const uint8_t random[16], int64_t now_s) {
    char *text = NULL;
    uint8_t other[16]; /* not the jti of the assertion that says who we are */
    for (size_t i = 0; i < sizeof other; i++)
        other[i] = random[i] ^ 0xff;
    int rc =
        cb_oidc_assertion(&text, job->assertion_key, job->assertion_subject, job->conf->assertion_aud, other, now_s);
    if (rc >= 0) rc = cb_oidc_form_add(&job->body, "assertion", text);
    cb_jwt_text_free(text);
    return rc;
}

static int make_form(cb_oidc_job *job, const uint8_t random[16], int64_t now_s) {
    int rc = CB_OK;
    if (job->step == CB_OIDC_STEP_POLL) {
        rc = cb_oidc_form_add(&job->body, "grant_type", "urn:ietf:params:oauth:grant-type:device_code");
        if (rc >= 0) rc = cb_oidc_form_add(&job->body, "device_code", job->device_code);
    } else {
        rc = cb_buf_add(&job->body, job->form.base, job->form.len);
    }
    if (rc >= 0 && job->assertion_key) rc = add_bearer(job, random, now_s);
    if (rc >= 0) rc = cb_oidc_form_client(&job->body, &job->authorization, job->conf, random, now_s);
    return rc;
}

static int make_request(cb_oidc_job *job, const uint8_t random[16], int64_t now_s) {
    job->body.len = job->authorization.len = 0;
    job->method = "GET";
    if (job->step == CB_OIDC_STEP_DISCOVER) return cb_oidc_discovery_url(job->conf, job->alt, job->url);
    const int at = endpoint_of(job);
    const char *url = job->meta->endpoints[at];
    if (!url) return cb_fail(CB_ENOTSUP, "%s has no %s", job->conf->issuer, endpoint_names[at]);
    snprintf(job->url, sizeof job->url, "%s", url);
    if (at == CB_OIDC_JWKS) return CB_OK;
    job->method = "POST";
    return make_form(job, random, now_s);
}

enum cb_oidc_job_what cb_oidc_job_next(cb_oidc_job *job, int64_t now_ms, int64_t now_s, const uint8_t random[16]) {
    if (job->step == CB_OIDC_STEP_DISCOVER && job->meta) job->step = CB_OIDC_STEP_ASK;
    if (job->step == CB_OIDC_STEP_END) return CB_OIDC_JOB_DONE;
    if (job->prompt) return CB_OIDC_JOB_PROMPT;
    if (job->sent) {
        job->wake_ms = INT64_MAX;
        return CB_OIDC_JOB_WAIT;
    }
    if (job->step == CB_OIDC_STEP_POLL && now_ms >= job->end_ms) {
        cb_oidc_job_fail(job, cb_fail(CB_ETIMEOUT, "nobody has agreed in time (device flow)"));
        return CB_OIDC_JOB_DONE;
    }
    if (now_ms < job->wake_ms) return CB_OIDC_JOB_WAIT;
    int rc = make_request(job, random, now_s);
    if (rc < 0) {
        cb_oidc_job_fail(job, rc);
        return CB_OIDC_JOB_DONE;
    }
    job->sent = true;
    return CB_OIDC_JOB_SEND;
}

void cb_oidc_job_prompted(cb_oidc_job *job, int64_t now_ms) {
    job->prompt = false;
    job->step = CB_OIDC_STEP_POLL;
    job->tries = 0;
    job->wake_ms = now_ms + job->interval_ms;
}

/* ---- answers ---- */

/* Later, if that may help and do no harm. */
static void again(cb_oidc_job *job, int rc, int64_t retry_ms, int64_t now_ms) {
    const bool spent = job->step == CB_OIDC_STEP_ASK && job->once;
    const bool temporary =
        rc == CB_EUNREACH || rc == CB_ELIMIT || rc == CB_ECLOSED || rc == CB_ETIMEOUT || rc == CB_EDNS;
    int64_t wait = (int64_t)RETRY_MS << 2 * job->tries;
    if (job->step == CB_OIDC_STEP_POLL && temporary) { /* RFC 8628 3.5: more slowly, until the code expires */
        if (job->interval_ms < POLL_MAX_MS / 2) job->interval_ms *= 2;
        job->wake_ms = now_ms + job->interval_ms;
        return;
    }
    if (!temporary || spent || ++job->tries >= TRIES || retry_ms > RETRY_MAX_MS) {
        cb_oidc_job_fail(job, rc);
        return;
    }
    if (retry_ms > wait) wait = retry_ms;
    job->wake_ms = now_ms + wait;
}

void cb_oidc_job_unanswered(cb_oidc_job *job, int rc, int64_t now_ms) {
    job->sent = false;
    again(job, rc, 0, now_ms);
}

static int take_discovery(cb_oidc_job *job, const cb_oidc_answer *a) {
    if (a->status == 404 && !job->alt) {
        job->alt = true;
        return CB_OK;
    }
    int rc = cb_oidc_meta_read(&job->meta, job->conf, a);
    if (rc < 0) return rc;
    job->new_meta = true;
    job->tries = 0;
    job->step = CB_OIDC_STEP_ASK;
    return CB_OK;
}

static int judge_identity(cb_oidc_job *job, int64_t now_s) {
    const cb_oidc_asked asked = {.nonce = job->nonce, .max_age_s = job->max_age_s};
    int32_t reason = CB_JWT_GOOD;
    int rc = cb_oidc_identity_check(&job->tokens.identity, job->conf, job->keys, &job->tokens, &asked, now_s, &reason);
    if (rc == CB_EAUTH && reason == CB_JWT_UNKNOWN_KEY && !job->fresh_keys) {
        job->step = CB_OIDC_STEP_KEYS;
        return CB_OK;
    }
    if (rc == CB_EAUTH) job->reason = reason;
    if (rc == CB_OK) succeed(job);
    return rc;
}

/* What device codes wait for (RFC 8628 3.5). */
static bool still_pending(cb_oidc_job *job, int64_t now_ms) {
    const bool slower = strcmp(job->error, "slow_down") == 0;
    if (job->step != CB_OIDC_STEP_POLL || (!slower && strcmp(job->error, "authorization_pending") != 0)) return false;
    if (slower && job->interval_ms < POLL_MAX_MS) job->interval_ms += 5000;
    job->error[0] = '\0';
    job->wake_ms = now_ms + job->interval_ms;
    return true;
}

static int take_tokens(cb_oidc_job *job, const cb_oidc_answer *a, int64_t now_ms, int64_t now_s) {
    int rc = cb_oidc_error_read(a, "token", job->error);
    if (rc < 0) return still_pending(job, now_ms) ? CB_OK : rc;
    cb_json_close(&job->answer);
    rc = cb_oidc_tokens_read(&job->tokens, &job->answer, a, now_s);
    if (rc < 0) return rc;
    if (!job->tokens.id_token || !job->conf->client_id) {
        if (job->need_id) return cb_fail(CB_EPROTO, "token: there is no id_token");
        succeed(job);
        return CB_OK;
    }
    if (job->keys) return judge_identity(job, now_s);
    job->step = CB_OIDC_STEP_KEYS;
    return CB_OK;
}

static int take_device(cb_oidc_job *job, const cb_oidc_answer *a, int64_t now_ms, int64_t now_s) {
    const char *code = NULL;
    uint32_t interval_s = 0;
    int rc = cb_oidc_error_read(a, "device", job->error);
    if (rc >= 0) rc = cb_oidc_device_read(&job->device, &code, &interval_s, &job->prompt_answer, job->conf, a, now_s);
    if (rc < 0) return rc;
    job->device_code = code; /* lives in prompt_answer */
    job->interval_ms = (int64_t)interval_s * 1000;
    if (job->interval_ms < 1000) job->interval_ms = 1000;
    job->end_ms = now_ms + (job->device.expires_at_s - now_s) * 1000;
    job->prompt = true;
    return CB_OK;
}

static int take_revoked(cb_oidc_job *job, const cb_oidc_answer *a) {
    int rc = cb_oidc_error_read(a, "revocation", job->error);
    if (rc < 0) return rc;
    if (a->status != 200 && a->status != 204) return cb_oidc_answer_check(a, "revocation");
    succeed(job);
    return CB_OK;
}

static int take_active(cb_oidc_job *job, const cb_oidc_answer *a) {
    int rc = cb_oidc_active_read(&job->token, job->conf, a, &job->reason);
    if (rc == CB_OK) succeed(job);
    return rc;
}

static int take_keys(cb_oidc_job *job, const cb_oidc_answer *a, int64_t now_s) {
    cb_jwks *keys = NULL;
    int rc = cb_oidc_keys_read(&keys, a);
    if (rc < 0) return rc;
    cb_jwks_unref(job->keys);
    job->keys = keys;
    job->fresh_keys = true;
    return judge_identity(job, now_s);
}

void cb_oidc_job_answer(cb_oidc_job *job, const cb_oidc_answer *a, int64_t now_ms, int64_t now_s) {
    int rc = CB_OK;
    if (!job->sent) return;
    job->sent = false;
    job->wake_ms = now_ms;
    if (job->step == CB_OIDC_STEP_DISCOVER) {
        rc = take_discovery(job, a);
    } else if (job->step == CB_OIDC_STEP_KEYS) {
        rc = take_keys(job, a, now_s);
    } else if (job->step == CB_OIDC_STEP_POLL || job->kind == CB_OIDC_JOB_TOKEN) {
        rc = take_tokens(job, a, now_ms, now_s);
    } else if (job->kind == CB_OIDC_JOB_DEVICE) {
        rc = take_device(job, a, now_ms, now_s);
    } else {
        rc = job->kind == CB_OIDC_JOB_REVOKE ? take_revoked(job, a) : take_active(job, a);
    }
    if (rc < 0) again(job, rc, a->retry_ms, now_ms);
}
