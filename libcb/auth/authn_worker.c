/* Introspectors of one loop, each with the HTTP client that it asks by. */
#include "auth/authn_int.h"
#include "base/error.h"
#include "base/list.h"
#include "base/mem.h"
#include "loop/loop_int.h"

/* Providers come and go with reloads; one that nobody has asked for so long is let go when another one comes. */
#define UNUSED (300 * CB_SEC)

typedef struct asked {
    cb_list link;
    cb_oidc *provider;
    cb_http_client *client;
    cb_introspector *in;
    cb_time used;
} asked;

int cb_authn_worker_new(cb_authn_worker **out, cb_loop *loop) {
    if (!out || !loop) return cb_fail(CB_EINVAL, "cb_authn_worker_new: %s is NULL", !out ? "out" : "loop");
    cb_authn_worker *w = cb_mem_new(cb_loop_alloc(loop), sizeof *w);
    if (!w) return cb_fail(CB_ENOMEM, "no memory for a worker of gates");
    w->loop = loop;
    cb_list_init(&w->all);
    cb_map_init(&w->decisions, cb_loop_alloc(loop), cb_loop_hash_key(loop));
    *out = w;
    return CB_OK;
}

static void drop(cb_authn_worker *w, asked *a) {
    cb_list_del(&a->link);
    cb_introspector_free(a->in);
    cb_http_client_free(a->client);
    cb_oidc_unref(a->provider);
    cb_mem_free(cb_loop_alloc(w->loop), a);
}

void cb_authn_worker_free(cb_authn_worker *w) {
    if (!w) return;
    while (!cb_list_empty(&w->all))
        drop(w, CB_CONTAINER(w->all.next, asked, link));
    cb_authn_count_end(w);
    cb_mem_free(cb_loop_alloc(w->loop), w);
}

/* Nothing waits as long as that: requests to a provider have a time limit of some seconds. */
static void drop_unused(cb_authn_worker *w) {
    const cb_time now = cb_loop_now(w->loop);
    for (cb_list *l = w->all.next, *after; l != &w->all; l = after) {
        asked *a = CB_CONTAINER(l, asked, link);
        after = l->next;
        if (now - a->used > UNUSED) drop(w, a);
    }
}

static int make(asked **out, cb_authn_worker *w, cb_oidc *provider, cb_identity *identity, const char *resolver) {
    const cb_http_client_opts how = {.size = sizeof how, .identity = identity, .resolver = resolver};
    asked *a = cb_mem_new(cb_loop_alloc(w->loop), sizeof *a);
    if (!a) return cb_fail(CB_ENOMEM, "no memory for an introspector");
    a->provider = cb_oidc_ref(provider);
    cb_list_add_tail(&w->all, &a->link);
    int rc = cb_http_client_new(&a->client, w->loop, &how);
    if (rc == CB_OK)
        rc = cb_introspector_new(&a->in, w->loop,
                                 CB_OPTS(cb_introspector_opts, .provider = provider, .client = a->client));
    if (rc < 0)
        drop(w, a);
    else
        *out = a;
    return rc;
}

int cb_authn_worker_ask(cb_introspector **out, cb_authn_worker *w, cb_oidc *provider, cb_identity *identity,
                        const char *resolver) {
    asked *a = NULL;
    for (cb_list *l = w->all.next; l != &w->all && !a; l = l->next)
        if (CB_CONTAINER(l, asked, link)->provider == provider) a = CB_CONTAINER(l, asked, link);
    if (!a) {
        drop_unused(w);
        int rc = make(&a, w, provider, identity, resolver);
        if (rc < 0) return rc;
    }
    a->used = cb_loop_now(w->loop);
    *out = a->in;
    return CB_OK;
}
