#include "auth/oidc_flow.h"
#include "base/error.h"
#include "base/mem.h"
#include "base/opts.h"
#include <string.h>

static const cb_alloc *const heap = &cb_alloc_libc;

struct cb_oidc_request {
    cb_oidc_flow flow;
    cb_grave grave;
    cb_oidc_request_fn done;
    void (*on_device)(cb_oidc_request *r, const cb_oidc_device *device, void *user);
    void *user;
    cb_jwt_signer *key;
    char *subject, *nonce, *token;
    int type;
};

static void on_prompt(cb_oidc_flow *flow) {
    cb_oidc_request *r = CB_CONTAINER(flow, cb_oidc_request, flow);
    r->on_device(r, &flow->job.device, r->user);
}

static void on_done(cb_oidc_flow *flow) {
    cb_oidc_request *r = CB_CONTAINER(flow, cb_oidc_request, flow);
    const cb_oidc_job *j = &flow->job;
    const bool tokens = j->rc == CB_OK && r->type != CB_OIDC_REVOKE;
    /* Also when the provider did not take it: it is asked again then. */
    if (r->type == CB_OIDC_REVOKE) cb_oidc_forget(flow->provider, cb_slice_str(r->token));
    r->done(r, j->rc, tokens ? &j->tokens : NULL, j->error, r->user);
}

/* What a type needs, and what it sends. */
typedef struct row {
    const char *grant; /* NULL: none is sent */
    int kind;          /* enum cb_oidc_job_kind */
    bool client;       /* needs a client_id */
    bool once;
} row;

static const row rows[] = {
    [CB_OIDC_CLIENT_CREDENTIALS] = {"client_credentials", CB_OIDC_JOB_TOKEN, true, false},
    [CB_OIDC_JWT_BEARER] = {"urn:ietf:params:oauth:grant-type:jwt-bearer", CB_OIDC_JOB_TOKEN, false, false},
    [CB_OIDC_CODE] = {"authorization_code", CB_OIDC_JOB_TOKEN, true, true},
    [CB_OIDC_REFRESH] = {"refresh_token", CB_OIDC_JOB_TOKEN, false, true},
    [CB_OIDC_DEVICE_CODE] = {NULL, CB_OIDC_JOB_DEVICE, true, false},
    [CB_OIDC_REVOKE] = {NULL, CB_OIDC_JOB_REVOKE, false, false},
};

static int check(const cb_oidc_request_opts *o) {
    if (!o->provider || !o->client) return cb_fail(CB_EINVAL, "cb_oidc_request_opts: provider and client are needed");
    if (o->type < CB_OIDC_CLIENT_CREDENTIALS || o->type > CB_OIDC_REVOKE)
        return cb_fail(CB_EINVAL, "cb_oidc_request_opts: type %d", o->type);
    const struct {
        int type;
        bool fine;
        const char *what;
    } needs[] = {
        {CB_OIDC_CLIENT_CREDENTIALS, o->provider->conf.client_auth != CB_OIDC_AUTH_NONE,
         "a secret or key of the client"},
        {CB_OIDC_JWT_BEARER, o->key && o->subject, "key and subject"},
        {CB_OIDC_CODE, o->code && o->redirect_uri && o->verifier, "code, redirect_uri and verifier"},
        {CB_OIDC_REFRESH, o->token != NULL, "token"},
        {CB_OIDC_REVOKE, o->token != NULL, "token"},
        {CB_OIDC_DEVICE_CODE, o->on_device != NULL, "on_device"},
    };
    if (rows[o->type].client && !o->provider->conf.client_id)
        return cb_fail(CB_EINVAL, "cb_oidc_opts: client_id is needed for this request");
    for (size_t i = 0; i < sizeof needs / sizeof *needs; i++)
        if (needs[i].type == o->type && !needs[i].fine)
            return cb_fail(CB_EINVAL, "cb_oidc_request_opts: %s: needed for type %d", needs[i].what, o->type);
    return CB_OK;
}

static int fill_form(cb_buf *form, const cb_oidc_request_opts *o) {
    const bool grants = o->type != CB_OIDC_REVOKE, refresh = o->type == CB_OIDC_REFRESH, code = o->type == CB_OIDC_CODE;
    const struct {
        const char *name, *value;
    } fields[] = {
        {"grant_type", rows[o->type].grant},
        {"scope", grants && !code ? o->scope : NULL},
        {"audience", grants ? o->audience : NULL},
        {"resource", grants ? o->resource : NULL},
        {"code", code ? o->code : NULL},
        {"redirect_uri", code ? o->redirect_uri : NULL},
        {"code_verifier", code ? o->verifier : NULL},
        {"refresh_token", refresh ? o->token : NULL},
        {"token", grants ? NULL : o->token},
        {"token_type_hint", grants ? NULL : o->token_hint},
    };
    int rc = CB_OK;
    for (size_t i = 0; rc >= 0 && i < sizeof fields / sizeof *fields; i++)
        rc = cb_oidc_form_add(form, fields[i].name, fields[i].value);
    return rc;
}

static int copy(char **to, const char *from) {
    *to = cb_mem_text(heap, from);
    return from && !*to ? cb_fail(CB_ENOMEM, "no memory for a request") : CB_OK;
}

static int prepare(cb_oidc_request *r, const cb_oidc_request_opts *o) {
    cb_oidc_job *j = &r->flow.job;
    int rc = fill_form(&j->form, o);
    if (rc >= 0) rc = copy(&r->subject, o->subject);
    if (rc >= 0) rc = copy(&r->nonce, o->nonce);
    if (rc >= 0) rc = copy(&r->token, o->type == CB_OIDC_REVOKE ? o->token : NULL);
    if (o->type == CB_OIDC_JWT_BEARER) r->key = cb_jwt_signer_ref(o->key);
    j->assertion_key = r->key;
    j->assertion_subject = r->subject;
    j->nonce = o->type == CB_OIDC_CODE ? r->nonce : NULL;
    j->max_age_s = o->type == CB_OIDC_CODE ? o->max_age_s : 0;
    j->need_id = j->nonce != NULL;
    j->once = rows[o->type].once;
    return rc;
}

int cb_oidc_request_start(cb_oidc_request **out, cb_loop *loop, const cb_oidc_request_opts *opts,
                          cb_oidc_request_fn done, void *user) {
    cb_oidc_request_opts o;
    if (!out || !loop || !opts || !done)
        return cb_fail(CB_EINVAL, "cb_oidc_request_start: out, loop, opts and done are needed");
    int rc = cb_opts_read(&o, sizeof o, opts, "cb_oidc_request_opts");
    if (rc >= 0) rc = check(&o);
    if (rc < 0) return rc;
    cb_oidc_request *r = cb_mem_new(heap, sizeof *r);
    if (!r) return cb_fail(CB_ENOMEM, "no memory for a request");
    cb_oidc_flow_init(&r->flow, o.provider, loop, o.client, rows[o.type].kind);
    r->flow.done = on_done;
    r->flow.prompt = on_prompt;
    r->type = o.type;
    r->done = done;
    r->on_device = o.on_device;
    r->user = user;
    rc = prepare(r, &o);
    if (rc < 0) {
        cb_oidc_request_free(r);
        return rc;
    }
    cb_oidc_flow_start(&r->flow);
    *out = r;
    return CB_OK;
}

static void bury(cb_grave *grave) {
    cb_mem_free(heap, CB_CONTAINER(grave, cb_oidc_request, grave));
}

void cb_oidc_request_free(cb_oidc_request *r) {
    if (!r) return;
    cb_oidc_flow_free(&r->flow);
    cb_jwt_signer_unref(r->key);
    if (r->token) cb_mem_wipe(r->token, strlen(r->token));
    cb_mem_free(heap, r->token);
    cb_mem_free(heap, r->subject);
    cb_mem_free(heap, r->nonce);
    cb_loop_bury(r->flow.loop, &r->grave, bury);
}
