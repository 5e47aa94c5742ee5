#include "auth/oidc_flow.h"
#include "base/error.h"
#include <stdio.h>
#include <string.h>

static int64_t now_ms(const cb_oidc_flow *f) {
    return (int64_t)(cb_loop_now(f->loop) / CB_MS);
}

static int64_t now_s(const cb_oidc_flow *f) {
    return (int64_t)(cb_loop_wall(f->loop) / CB_SEC);
}

static int ask(cb_oidc_flow *f) {
    const cb_oidc_job *j = &f->job;
    const bool post = strcmp(j->method, "POST") == 0;
    const cb_field who = {cb_slice_str("authorization"), cb_buf_slice(&j->authorization)};
    return cb_fetch_start(&f->fetch, f->client,
                          &(cb_fetch_request){.method = j->method,
                                              .url = j->url,
                                              .accept = "application/json",
                                              .content_type = post ? "application/x-www-form-urlencoded" : NULL,
                                              .body = cb_buf_slice(&j->body),
                                              .fields = &who,
                                              .n_fields = j->authorization.len > 0,
                                              .timeout_ms = j->conf->timeout_ms});
}

static void drive(cb_oidc_flow *f) {
    cb_oidc_job *j = &f->job;
    for (;;) {
        uint8_t random[16];
        int rc = cb_loop_random(f->loop, random, sizeof random);
        switch (cb_oidc_job_next(j, now_ms(f), now_s(f), random)) {
        case CB_OIDC_JOB_SEND:
            if (rc >= 0) rc = ask(f);
            if (rc >= 0) return;
            cb_oidc_job_unanswered(j, rc, now_ms(f));
            break;
        case CB_OIDC_JOB_WAIT:
            if (j->wake_ms != INT64_MAX) cb_alarm_set(&f->alarm, (cb_time)j->wake_ms * CB_MS);
            return;
        case CB_OIDC_JOB_PROMPT:
            cb_oidc_job_prompted(j, now_ms(f));
            if (f->prompt) f->prompt(f);
            if (!f->provider) return; /* freed; its memory lives until the end of the turn */
            break;
        case CB_OIDC_JOB_DONE:
            if (j->new_meta) cb_oidc_meta_offer(f->provider, j->meta);
            cb_error_set(j->rc, j->detail);
            f->done(f); /* f may be gone */
            return;
        }
    }
}

static void on_alarm(cb_alarm *alarm, cb_time now) {
    (void)now;
    drive(CB_CONTAINER(alarm, cb_oidc_flow, alarm));
}

static void on_begin(cb_defer *begin) {
    drive(CB_CONTAINER(begin, cb_oidc_flow, begin));
}

static void on_answer(cb_fetch *fetch, cb_exchange *x, int rc) {
    cb_oidc_flow *f = CB_CONTAINER(fetch, cb_oidc_flow, fetch);
    cb_oidc_answer a;
    char why[400];
    if (rc < 0) {
        snprintf(why, sizeof why, "%s", cb_last_error());
        cb_oidc_job_unanswered(&f->job, cb_fail(rc, "%s: %s", f->job.conf->issuer, why), now_ms(f));
    } else {
        cb_oidc_answer_of(&a, x, fetch);
        cb_oidc_job_answer(&f->job, &a, now_ms(f), now_s(f));
    }
    drive(f);
}

void cb_oidc_flow_init(cb_oidc_flow *f, cb_oidc *provider, cb_loop *loop, cb_http_client *client, int kind) {
    *f = (cb_oidc_flow){.provider = cb_oidc_ref(provider), .loop = loop, .client = client};
    cb_oidc_job_init(&f->job, &provider->conf, kind);
    cb_fetch_init(&f->fetch, CB_OIDC_ANSWER_BYTES, on_answer);
    cb_alarm_init(&f->alarm, loop, on_alarm);
    cb_defer_init(&f->begin, loop, on_begin);
}

void cb_oidc_flow_start(cb_oidc_flow *f) {
    f->job.meta = cb_oidc_meta_get(f->provider);
    f->job.keys = cb_oidc_keys(f->provider);
    cb_defer_later(&f->begin);
}

void cb_oidc_flow_free(cb_oidc_flow *f) {
    if (!f->provider) return;
    cb_alarm_stop(&f->alarm);
    cb_defer_cancel(&f->begin);
    cb_fetch_free(&f->fetch);
    cb_oidc_job_clear(&f->job);
    cb_oidc_unref(f->provider);
    f->provider = NULL;
}
