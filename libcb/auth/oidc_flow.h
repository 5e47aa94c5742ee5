/* Runs a job (auth/oidc_job.h) on a loop, through an HTTP client. Embedded in its owner. */
#ifndef CB_AUTH_OIDC_FLOW_H
#define CB_AUTH_OIDC_FLOW_H

#include "auth/oidc_int.h"
#include "auth/oidc_job.h"
#include "loop/loop_int.h"

typedef struct cb_oidc_flow cb_oidc_flow;
struct cb_oidc_flow {
    cb_oidc_job job;
    cb_oidc *provider; /* referenced while the flow lives */
    cb_loop *loop;
    cb_http_client *client;
    cb_fetch fetch;
    cb_alarm alarm;
    cb_defer begin;
    void (*prompt)(cb_oidc_flow *flow); /* NULL: there is none */
    /* The job is over: job->rc, job->detail. May free the flow. Never inside cb_oidc_flow_start(). */
    void (*done)(cb_oidc_flow *flow);
};

void cb_oidc_flow_init(cb_oidc_flow *f, cb_oidc *provider, cb_loop *loop, cb_http_client *client, int kind);
/* The job is prepared (or has failed): it begins at the end of this turn. */
void cb_oidc_flow_start(cb_oidc_flow *f);
/* Ends it without done(); everything goes. */
void cb_oidc_flow_free(cb_oidc_flow *f);

#endif
