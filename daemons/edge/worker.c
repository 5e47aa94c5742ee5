/* One worker: a loop on a thread, with its own servers, proxy and access log. */
#include "telemetry.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- servers ---- */

static void server_close(edge_server *s) {
    cb_http_server_free(s->http);
    edge_listener_unref(s->listener);
    free(s);
}

static void unlink_server(edge_worker *w, edge_server *s) {
    for (edge_server **at = &w->servers; *at; at = &(*at)->next) {
        if (*at != s) continue;
        *at = s->next;
        return;
    }
}

static void check_stopped(edge_worker *w) {
    if (!w->stopping || w->servers || w->done) return;
    w->done = true;
    cb_proxy_free(w->proxy);
    w->proxy = NULL;
    cb_access_log_free(w->log);
    w->log = NULL;
    edge_worker_stopped(w->edge);
    cb_loop_stop(w->loop);
}

static void on_drained(cb_loop *loop, void *user) {
    edge_server *s = user;
    edge_worker *w = s->worker;
    (void)loop;
    unlink_server(w, s);
    server_close(s);
    check_stopped(w);
}

/* yield: another server has the address now. */
static void server_drain(edge_server *s, uint64_t ms, bool yield) {
    cb_http_server_on_drained(s->http, on_drained, s);
    s->draining = true;
    if (yield)
        cb_http_server_yield(s->http, ms);
    else
        cb_http_server_drain(s->http, ms);
}

/* ---- life ---- */

static uint32_t https_port(const edge_conf *c) {
    const edge_listener_conf *l = c->listeners.at;
    for (size_t i = 0; i < c->listeners.len; i++) {
        const char *colon = strrchr(l[i].address, ':');
        unsigned long port = l[i].tls && colon ? strtoul(colon + 1, NULL, 10) : 0;
        if (port && port <= 65535) return (uint32_t)port;
    }
    return 443;
}

int edge_worker_open(edge_worker *w, edge_snapshot *s) {
    int rc = cb_loop_new(&w->loop, CB_OPTS(cb_loop_opts, .log = w->edge->log, .metrics = edge_metrics(w->edge)));
    if (rc == CB_OK)
        rc = cb_proxy_new(&w->proxy, w->loop,
                          CB_OPTS(cb_proxy_opts, .router = s->router, .resolver = s->conf->resolver,
                                  .via = s->conf->via, .https_port = https_port(s->conf)));
    for (edge_use *u = s->uses; u && rc == CB_OK; u = u->next) {
        edge_server *server = NULL;
        edge_given given;
        edge_inherit_given(w->edge, u->listener, w->number, &given);
        rc = edge_server_open(&server, w, u->listener, s->conf, given.n ? &given : NULL);
        if (rc < 0) break;
        server->next = w->servers;
        w->servers = server;
        if (w->number == 0)
            snprintf(u->listener->address, sizeof u->listener->address, "%s", cb_http_server_address(server->http));
    }
    return rc;
}

static int open_log(cb_access_log **out, edge_worker *w, const edge_snapshot *s) {
    if (!s->conf->access_log) return CB_OK;
    const cb_access_log_opts o = edge_access_log_opts(s->conf->access_log);
    return cb_access_log_open(out, w->loop, &o);
}

static void use_tracing(edge_worker *w, const edge_snapshot *s) {
    edge_tracing *before = w->tracing;
    w->tracing = edge_tracing_ref(s->tracing);
    edge_tracing_use(w->proxy, w->tracing);
    edge_tracing_unref(before);
}

int edge_worker_log(edge_worker *w, const edge_snapshot *s) {
    use_tracing(w, s);
    edge_checks_use(w, s);
    int rc = open_log(&w->log, w, s);
    if (rc == CB_OK) cb_proxy_set_log(w->proxy, w->log);
    return rc;
}

static void *run(void *user) {
    edge_worker *w = user;
    int rc = cb_loop_run(w->loop);
    if (rc < 0) edge_say(w->edge->log, CB_LOG_ERROR, "worker %u: %s", w->number, cb_last_error());
    return NULL;
}

int edge_worker_start(edge_worker *w) {
    char name[16];
    w->started = pthread_create(&w->thread, NULL, run, w) == 0;
    snprintf(name, sizeof name, "cb-worker-%u", w->number);
    if (w->started) pthread_setname_np(w->thread, name); /* for top -H and the like */
    return w->started ? CB_OK : CB_ESYS;
}

void edge_worker_close(edge_worker *w) {
    while (w->servers) {
        edge_server *s = w->servers;
        w->servers = s->next;
        server_close(s);
    }
    cb_proxy_free(w->proxy);
    cb_access_log_free(w->log);
    w->proxy = NULL;
    edge_tracing_unref(w->tracing);
    w->tracing = NULL;
    edge_shares_unref(w->shares);
    w->shares = NULL;
    w->log = NULL;
    edge_worker_abort(w->loop, w); /* a reload that was not decided any more */
    edge_snapshot_unref(w->told);
    w->told = NULL;
    if (w->loop) cb_loop_free(w->loop);
    w->loop = NULL;
}

/* ---- reload: prepare opens what is new, commit or abort follows when every worker has answered ---- */

static edge_server *server_of(const edge_worker *w, const edge_listener *l) {
    for (edge_server *s = w->servers; s; s = s->next)
        if (s->listener == l && !s->draining) return s;
    return NULL;
}

/* The server whose address a listener takes over. */
static edge_server *forerunner(const edge_worker *w, const edge_listener *l) {
    for (edge_server *s = w->servers; s; s = s->next)
        if (!s->draining && strcmp(s->listener->conf->address, l->conf->address) == 0) return s;
    return NULL;
}

static int prepare_server(edge_server **out, edge_worker *w, edge_listener *l, const edge_conf *c) {
    edge_server *before = forerunner(w, l);
    edge_given given = {.share = 0, .of = 1};
    int n = before ? cb_http_server_fds(before->http, given.fds, CB_HTTP_SERVER_FDS) : 0;
    given.n = n < CB_HTTP_SERVER_FDS ? (uint32_t)n : CB_HTTP_SERVER_FDS;
    return edge_server_open(out, w, l, c, n ? &given : NULL);
}

static void prepare(cb_loop *loop, void *worker) {
    edge_worker *w = worker;
    edge_snapshot *next = w->next = w->told;
    w->told = NULL;
    int rc = open_log(&w->prepared_log, w, next);
    (void)loop;
    snprintf(w->where, sizeof w->where, "/access_log/path");
    for (edge_use *u = next->uses; u && rc == CB_OK; u = u->next) {
        edge_server *s = NULL;
        if (server_of(w, u->listener)) continue;
        snprintf(w->where, sizeof w->where, "/listeners/%s", u->listener->conf->name);
        rc = prepare_server(&s, w, u->listener, next->conf);
        if (rc < 0) break;
        s->next = w->prepared;
        w->prepared = s;
    }
    edge_answer(w, rc, rc < 0 ? cb_last_error() : "");
}

int edge_worker_post_prepare(edge_worker *w, edge_snapshot *next) {
    w->told = edge_snapshot_ref(next);
    int rc = cb_loop_post(w->loop, prepare, w);
    if (rc == CB_OK) return CB_OK;
    edge_snapshot_unref(w->told);
    w->told = NULL;
    return rc;
}

void edge_worker_abort(cb_loop *loop, void *worker) {
    edge_worker *w = worker;
    (void)loop;
    while (w->prepared) {
        edge_server *s = w->prepared;
        w->prepared = s->next;
        server_close(s);
    }
    cb_access_log_free(w->prepared_log);
    w->prepared_log = NULL;
    edge_snapshot_unref(w->next);
    w->next = NULL;
}

static bool wanted(const edge_snapshot *s, const edge_listener *l) {
    for (const edge_use *u = s->uses; u; u = u->next)
        if (u->listener == l) return true;
    return false;
}

/* What is new begins before what is old ends: at no moment nobody is there. */
static void begin_prepared(edge_worker *w) {
    while (w->prepared) {
        edge_server *s = w->prepared;
        w->prepared = s->next;
        s->next = w->servers;
        w->servers = s;
        cb_http_server_resume(s->http);
    }
}

static bool address_stays(const edge_snapshot *s, const edge_listener *l) {
    for (const edge_use *u = s->uses; u; u = u->next)
        if (strcmp(u->listener->conf->address, l->conf->address) == 0) return true;
    return false;
}

void edge_worker_commit(cb_loop *loop, void *worker) {
    edge_worker *w = worker;
    edge_snapshot *next = w->next;
    const cb_http_limits limits = edge_limits_of(next->conf);
    (void)loop;
    if (cb_proxy_swap(w->proxy, next->router) < 0)
        edge_say(w->edge->log, CB_LOG_ERROR, "worker %u keeps its routes: %s", w->number, cb_last_error());
    edge_checks_use(w, next);
    use_tracing(w, next);
    cb_proxy_set_log(w->proxy, w->prepared_log);
    cb_access_log_free(w->log);
    w->log = w->prepared_log;
    w->prepared_log = NULL;
    begin_prepared(w);
    for (edge_server *s = w->servers, *after; s; s = after) {
        after = s->next;
        if (s->draining) continue;
        if (wanted(next, s->listener))
            cb_http_server_set_limits(s->http, &limits); /* the schema has seen to it that they are good */
        else
            server_drain(s, (uint64_t)next->conf->drain_timeout_ms, address_stays(next, s->listener));
    }
    edge_snapshot_unref(next);
    w->next = NULL;
    edge_took_over(w);
}

/* ---- the end ---- */

void edge_worker_drain(cb_loop *loop, void *worker) {
    edge_worker *w = worker;
    (void)loop;
    w->stopping = true;
    for (edge_server *s = w->servers, *after; s; s = after) {
        after = s->next;
        server_drain(s, w->edge->drain_ms, w->edge->yields);
    }
    check_stopped(w);
}

/* ---- one process after the other ---- */

void edge_worker_resume(cb_loop *loop, void *worker) {
    edge_worker *w = worker;
    (void)loop;
    for (edge_server *s = w->servers; s; s = s->next)
        cb_http_server_resume(s->http);
    edge_inherit_begun(w);
}

void edge_worker_save(cb_loop *loop, void *worker) {
    edge_worker *w = worker;
    char name[EDGE_NAME];
    int rc = CB_OK;
    (void)loop;
    for (edge_server *s = w->servers; s && rc == CB_OK; s = s->next) {
        edge_name(name, s->listener->conf->address, "sockets");
        rc = cb_http_server_save(s->http, edge_upgrade_handoff(w->edge), name);
    }
    edge_upgrade_saved(w, rc, rc < 0 ? cb_last_error() : "");
}

void edge_worker_reopen(cb_loop *loop, void *worker) {
    edge_worker *w = worker;
    (void)loop;
    if (w->log && cb_access_log_reopen(w->log) < 0)
        edge_say(w->edge->log, CB_LOG_ERROR, "worker %u keeps its old log: %s", w->number, cb_last_error());
}
