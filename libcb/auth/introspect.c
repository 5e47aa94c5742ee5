#include "auth/jwt.h"
#include "auth/oidc_flow.h"
#include "auth/revocations.h"
#include "base/error.h"
#include "base/map.h"
#include "base/mem.h"
#include "base/opts.h"
#include <gnutls/crypto.h>
#include <stdio.h>
#include <string.h>

enum { WAITING = 4096, REQUESTS = 64, TOKEN_BYTES = 8192, SUM = 32 };

static const cb_alloc *const heap = &cb_alloc_libc;

/* One token that is asked about, here or by another introspector. */
typedef struct question {
    cb_list link; /* introspector->queued, ->asking or ->elsewhere */
    cb_introspector *in;
    uint8_t sum[SUM];
    cb_list asks;
    bool mine, over;   /* mine: this introspector asks; over: it has its answer */
    cb_oidc_flow flow; /* while it is asked here */
    cb_grave grave;
    size_t len;
    char text[]; /* NUL-terminated */
} question;

struct cb_introspection {
    cb_list link; /* question->asks */
    question *q;
    cb_introspect_fn done;
    void *user;
};

struct cb_introspector {
    cb_oidc *provider;
    cb_loop *loop;
    cb_http_client *client;
    cb_bell *bell;
    cb_introspect_reader reader;
    cb_map questions;                  /* by sum */
    cb_list queued, asking, elsewhere; /* MINE and not sent yet; sent; BUSY */
    uint32_t n_asks, n_asking, max_waiting, max_requests;
    bool freed;
    cb_grave grave;
};

static int64_t now_s(const cb_introspector *in) {
    return (int64_t)(cb_loop_wall(in->loop) / CB_SEC);
}

/* ---- questions ---- */

static void bury_question(cb_grave *grave) {
    question *q = CB_CONTAINER(grave, question, grave);
    cb_mem_wipe(q->text, q->len);
    cb_mem_free(heap, q);
}

/* It is out of its list and of the map; its asks are gone. */
static void free_question(question *q) {
    cb_oidc_flow_free(&q->flow);
    cb_loop_bury(q->in->loop, &q->grave, bury_question);
}

static void take_out(question *q) {
    q->over = true;
    cb_list_del(&q->link);
    cb_map_del(&q->in->questions, q->sum, SUM);
}

/* What holds for every route: the others judge the claims as those of a verified token. */
static int judge(const cb_introspector *in, const cb_jwt *t, int64_t at_s, int32_t *reason) {
    cb_revocations *gone = in->provider->revocations;
    int rc = cb_jwt_judge_time(t, at_s, reason);
    if (rc < 0 || !gone || !cb_revocations_hit(gone, t->issuer, t->jti, t->subject, t->iat)) return rc;
    return cb_jwt_refuse(reason, CB_JWT_REVOKED, "the token was revoked");
}

/* Tells everybody who waits. Any of them may cancel others, ask anew, or free the introspector. */
static void answer(question *q, int rc, cb_jwt *token, int32_t reason) {
    cb_introspector *in = q->in;
    char detail[512];
    snprintf(detail, sizeof detail, "%s", rc < 0 ? cb_last_error() : "");
    if (rc == CB_OK) rc = judge(in, token, now_s(in), &reason);
    if (rc < 0 && !*detail) snprintf(detail, sizeof detail, "%s", cb_last_error());
    while (!cb_list_empty(&q->asks)) {
        cb_introspection *a = CB_CONTAINER(q->asks.next, cb_introspection, link);
        const cb_introspect_fn done = a->done;
        void *user = a->user;
        cb_list_del(&a->link);
        cb_mem_free(heap, a);
        in->n_asks--;
        cb_error_set(rc, detail);
        done(rc, rc == CB_OK ? token : NULL, reason, user);
    }
}

static void pump(cb_introspector *in);

static void on_done(cb_oidc_flow *flow) {
    question *q = CB_CONTAINER(flow, question, flow);
    cb_introspector *in = q->in;
    cb_jwt *token = flow->job.token ? cb_jwt_ref(flow->job.token) : NULL;
    const int rc = flow->job.rc;
    const int32_t reason = flow->job.reason;
    take_out(q);
    in->n_asking--;
    cb_introspect_cache_settle(in->provider->answers, q->sum, &in->reader, rc, token, now_s(in));
    answer(q, rc, token, reason);
    cb_jwt_unref(token);
    free_question(q);
    if (!in->freed) pump(in);
}

static void start(question *q) {
    cb_introspector *in = q->in;
    cb_oidc_flow_init(&q->flow, in->provider, in->loop, in->client, CB_OIDC_JOB_INTROSPECT);
    q->flow.done = on_done;
    int rc = cb_oidc_form_add(&q->flow.job.form, "token", q->text);
    if (rc >= 0) rc = cb_oidc_form_add(&q->flow.job.form, "token_type_hint", "access_token");
    if (rc < 0) cb_oidc_job_fail(&q->flow.job, rc);
    cb_oidc_flow_start(&q->flow);
}

/* Asks as much as may be asked at a time. */
static void pump(cb_introspector *in) {
    while (!cb_list_empty(&in->queued) && in->n_asking < in->max_requests) {
        question *q = CB_CONTAINER(in->queued.next, question, link);
        cb_list_del(&q->link);
        cb_list_add_tail(&in->asking, &q->link);
        in->n_asking++;
        start(q);
    }
}

static void place(question *q, enum cb_introspect_state state) {
    q->mine = state == CB_INTROSPECT_MINE;
    cb_list_add_tail(q->mine ? &q->in->queued : &q->in->elsewhere, &q->link);
}

/* Another introspector has an answer, or gave up. */
static void on_rung(void *user) {
    cb_introspector *in = user;
    cb_list all;
    cb_list_init(&all);
    while (!cb_list_empty(&in->elsewhere)) {
        cb_list *l = in->elsewhere.next;
        cb_list_del(l);
        cb_list_add_tail(&all, l);
    }
    while (!in->freed && !cb_list_empty(&all)) {
        question *q = CB_CONTAINER(all.next, question, link);
        cb_jwt *token = NULL;
        int rc = CB_OK;
        const enum cb_introspect_state state =
            cb_introspect_cache_look(in->provider->answers, q->sum, &in->reader, now_s(in), &token, &rc);
        cb_list_del(&q->link);
        if (state == CB_INTROSPECT_MINE || state == CB_INTROSPECT_BUSY) {
            place(q, state);
            continue;
        }
        take_out(q);
        cb_fail(rc, "%s", rc == CB_EAUTH ? "the token is not active" : "the provider did not answer");
        answer(q, rc, token, rc == CB_EAUTH ? CB_JWT_INACTIVE : CB_JWT_GOOD);
        cb_jwt_unref(token);
        free_question(q);
    }
    if (!in->freed) pump(in);
}

/* ---- asking ---- */

/* RFC 6750 2.1: b64token. */
static bool fine_token(cb_slice t) {
    size_t i = 0;
    while (i < t.len && ((t.base[i] >= 'a' && t.base[i] <= 'z') || (t.base[i] >= 'A' && t.base[i] <= 'Z') ||
                         (t.base[i] >= '0' && t.base[i] <= '9') || (t.base[i] && strchr("-._~+/", t.base[i]))))
        i++;
    if (i == 0) return false;
    while (i < t.len && t.base[i] == '=')
        i++;
    return i == t.len && t.len <= TOKEN_BYTES;
}

static question *add_question(cb_introspector *in, cb_slice text, const uint8_t sum[SUM]) {
    question *q = cb_mem_new(heap, sizeof *q + text.len + 1);
    if (!q) return NULL;
    q->in = in;
    q->len = text.len;
    memcpy(q->text, text.base, text.len);
    memcpy(q->sum, sum, SUM);
    cb_list_init(&q->link);
    cb_list_init(&q->asks);
    if (cb_map_put(&in->questions, sum, SUM, q) == CB_OK) return q;
    cb_mem_free(heap, q);
    return NULL;
}

static int wait_for(cb_introspector *in, question *q, cb_introspection **ask, cb_introspect_fn done, void *user) {
    cb_introspection *a = cb_mem_new(heap, sizeof *a);
    if (!a) return cb_fail(CB_ENOMEM, "no memory to ask about a token");
    a->q = q;
    a->done = done;
    a->user = user;
    cb_list_add_tail(&q->asks, &a->link);
    in->n_asks++;
    if (ask) *ask = a;
    return CB_EAGAIN;
}

static int known(const cb_introspector *in, enum cb_introspect_state state, int rc, cb_jwt *found, int64_t at_s,
                 cb_jwt **token, int32_t *reason) {
    if (state == CB_INTROSPECT_INACTIVE) return cb_jwt_refuse(reason, CB_JWT_INACTIVE, "the token is not active");
    if (state == CB_INTROSPECT_FAILED) return cb_fail(rc, "%s did not answer a moment ago", in->provider->conf.issuer);
    rc = judge(in, found, at_s, reason);
    if (rc < 0)
        cb_jwt_unref(found);
    else
        *token = found;
    return rc;
}

int cb_introspect(cb_introspector *in, cb_introspection **ask, cb_slice text, int64_t at_s, cb_jwt **token,
                  int32_t *reason, cb_introspect_fn done, void *user) {
    uint8_t sum[SUM];
    cb_jwt *found = NULL;
    int32_t why = CB_JWT_GOOD;
    int rc = CB_OK;
    if (!in || !token || !done || at_s <= 0)
        return cb_fail(CB_EINVAL, "cb_introspect: in, now_s, token and done are needed");
    if (reason) *reason = CB_JWT_GOOD;
    if (!fine_token(text)) return cb_fail(CB_EINVAL, "%zu bytes that are no bearer token", text.len);
    if (in->n_asks >= in->max_waiting) return cb_fail(CB_ELIMIT, "%u questions wait for the provider", in->n_asks);
    if (gnutls_hash_fast(GNUTLS_DIG_SHA256, text.base, text.len, sum) < 0) return cb_fail(CB_ENOMEM, "no SHA-256");
    question *q = cb_map_get(&in->questions, sum, SUM);
    if (q) return wait_for(in, q, ask, done, user);
    const enum cb_introspect_state state =
        cb_introspect_cache_look(in->provider->answers, sum, &in->reader, at_s, &found, &rc);
    if (state != CB_INTROSPECT_MINE && state != CB_INTROSPECT_BUSY) {
        rc = known(in, state, rc, found, at_s, token, &why);
        if (reason) *reason = why;
        return rc;
    }
    q = add_question(in, text, sum);
    rc = q ? wait_for(in, q, ask, done, user) : cb_fail(CB_ENOMEM, "no memory to ask about a token");
    if (rc != CB_EAGAIN) {
        if (q) take_out(q);
        if (q) free_question(q);
        if (state == CB_INTROSPECT_MINE) cb_introspect_cache_give_up(in->provider->answers, sum, &in->reader);
        return rc;
    }
    place(q, state);
    pump(in);
    return CB_EAGAIN;
}

static void forget_ask(cb_introspection *a) {
    a->q->in->n_asks--;
    cb_list_del(&a->link);
    cb_mem_free(heap, a);
}

/* A question that was sent goes on: its answer is worth remembering. */
void cb_introspection_cancel(cb_introspection *a) {
    if (!a) return;
    question *q = a->q;
    forget_ask(a);
    if (!cb_list_empty(&q->asks) || q->over || q->flow.provider) return;
    take_out(q);
    if (q->mine) cb_introspect_cache_give_up(q->in->provider->answers, q->sum, &q->in->reader);
    free_question(q);
}

/* ---- the introspector ---- */

int cb_introspector_new(cb_introspector **out, cb_loop *loop, const cb_introspector_opts *opts) {
    cb_introspector_opts o;
    if (!out || !loop || !opts) return cb_fail(CB_EINVAL, "cb_introspector_new: out, loop and opts are needed");
    int rc = cb_opts_read(&o, sizeof o, opts, "cb_introspector_opts");
    if (rc < 0) return rc;
    if (!o.provider || !o.client) return cb_fail(CB_EINVAL, "cb_introspector_opts: provider and client are needed");
    if (!o.provider->conf.client_id) return cb_fail(CB_EINVAL, "cb_oidc_opts: client_id is needed for introspection");
    cb_introspector *in = cb_mem_new(heap, sizeof *in);
    if (!in) return cb_fail(CB_ENOMEM, "no memory for an introspector");
    in->loop = loop;
    rc = cb_bell_new(&in->bell, loop, on_rung, in);
    if (rc < 0) {
        cb_mem_free(heap, in);
        return rc;
    }
    in->provider = cb_oidc_ref(o.provider);
    in->client = o.client;
    in->max_waiting = o.max_waiting ? o.max_waiting : WAITING;
    in->max_requests = o.max_requests ? o.max_requests : REQUESTS;
    in->reader.bell = in->bell;
    cb_map_init(&in->questions, heap, cb_loop_hash_key(loop));
    cb_list_init(&in->queued);
    cb_list_init(&in->asking);
    cb_list_init(&in->elsewhere);
    cb_introspect_cache_join(in->provider->answers, &in->reader);
    *out = in;
    return CB_OK;
}

static void bury_introspector(cb_grave *grave) {
    cb_mem_free(heap, CB_CONTAINER(grave, cb_introspector, grave));
}

void cb_introspector_free(cb_introspector *in) {
    if (!in || in->freed) return;
    size_t it = 0;
    in->freed = true;
    cb_introspect_cache_leave(in->provider->answers, &in->reader);
    cb_bell_free(in->bell);
    for (question *q = cb_map_next(&in->questions, &it, NULL); q; q = cb_map_next(&in->questions, &it, NULL)) {
        while (!cb_list_empty(&q->asks))
            forget_ask(CB_CONTAINER(q->asks.next, cb_introspection, link));
        cb_list_del(&q->link);
        free_question(q);
    }
    cb_map_free(&in->questions);
    cb_oidc_unref(in->provider);
    cb_loop_bury(in->loop, &in->grave, bury_introspector);
}
