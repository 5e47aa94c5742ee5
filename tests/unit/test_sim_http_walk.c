/* Random walks over HTTP/3: a client and a server on a bad line, half of them with a reverse proxy between, and a hand
 * that answers late, in pieces, too little or not at all, gives up, resets, drains, frees. Each exchange ends once (or
 * was abandoned), and all memory comes back.
 */
#include "sim/rng.h"
#include "support/counting.h"
#include "support/sim_fixture.h"
#include "support/tls_fixture.h"
#include <cb/http.h>
#include <cb/proxy.h>
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

enum { ENDS_MAX = 600, STEPS = 200 };

typedef struct walk walk;

/* One side of an exchange; never reused, so that a late callback is seen. */
typedef struct end {
    walk *w;
    cb_exchange *x; /* NULL: over, or abandoned */
    bool client, over, replied;
    int64_t left; /* of the body; -1 = the message is complete */
} end;

struct walk {
    counting memory;
    sim_rng rng;
    cb_sim *sim;
    cb_sim_host *client_host, *server_host;
    cb_sim_link *up, *down;
    cb_sim_host *edge_host; /* NULL: the client asks the server itself */
    cb_sim_link *far_up, *far_down;
    cb_router *router;
    cb_proxy *proxy;
    cb_http_server *edge;
    cb_identity *server_id, *client_id;
    cb_http_server *server;
    cb_http_client *client;
    end ends[ENDS_MAX];
    size_t made, closed, abandoned, late;
    uint64_t bytes, complete;
    int left;
};

static uint64_t pick(walk *w, uint64_t n) {
    return sim_rng_below(&w->rng, n);
}

/* ---- one side ---- */

static void write_body(end *e) {
    static const uint8_t block[5000];
    while (e->x && e->left > 0) {
        size_t n = (size_t)e->left < sizeof block ? (size_t)e->left : sizeof block;
        int64_t rc = cb_exchange_write(e->x, (cb_slice){block, n});
        if (rc <= 0) return;
        e->left -= rc;
    }
    if (!e->x || e->left) return;
    const cb_field trailer = {cb_slice_str("x-end"), cb_slice_str("yes")};
    int rc = pick(e->w, 2) ? cb_exchange_finish(e->x) : cb_exchange_finish_trailers(e->x, &trailer, 1);
    if (rc != CB_EAGAIN) e->left = -1;
}

static void abandon(end *e) {
    cb_exchange *x = e->x;
    e->x = NULL;
    e->over = true;
    e->w->abandoned++;
    cb_exchange_abandon(x);
}

/* In callbacks, too: now and then the exchange is reset, or an error comes back. */
static int anything(end *e) {
    e->w->late += e->over;
    uint64_t dice = pick(e->w, 50);
    if (dice == 0 && e->x) cb_exchange_reset(e->x, CB_RESET_CANCEL);
    return dice == 1 ? CB_EUSER : CB_OK;
}

static int on_head(cb_exchange *x, void *user) {
    (void)x;
    return anything(user);
}

static int on_info(cb_exchange *x, int status, void *user) {
    (void)x;
    (void)status;
    return anything(user);
}

static int64_t on_body(cb_exchange *x, cb_slice data, void *user) {
    end *e = user;
    (void)x;
    e->w->late += e->over;
    e->w->bytes += data.len;
    uint64_t dice = pick(e->w, 25);
    if (dice == 0) return CB_EUSER;
    return dice < 3 ? (int64_t)(data.len / 2)
                    : (int64_t)data.len; /* the rest waits for a resume that the hand may give */
}

static int on_end(cb_exchange *x, void *user) {
    (void)x;
    return anything(user);
}

static int on_writable(cb_exchange *x, void *user) {
    (void)x;
    write_body(user);
    return CB_OK;
}

static void on_close(cb_exchange *x, int rc, void *user) {
    end *e = user;
    (void)x;
    e->w->late += e->over;
    e->w->closed++;
    e->w->complete += rc == CB_OK;
    e->over = true;
    e->x = NULL;
}

static const cb_exchange_ops end_ops = {.size = sizeof end_ops,
                                        .on_head = on_head,
                                        .on_info = on_info,
                                        .on_body = on_body,
                                        .on_end = on_end,
                                        .on_writable = on_writable,
                                        .on_close = on_close};

static end *new_end(walk *w, bool client) {
    if (w->made == ENDS_MAX) return NULL;
    end *e = &w->ends[w->made++];
    *e = (end){.w = w, .client = client, .left = -1};
    return e;
}

static void reply(end *e) {
    if (!e->x || e->client || e->replied) return;
    if (pick(e->w, 5) == 0) (void)cb_exchange_reply(e->x, 103, NULL, 0);
    e->replied = true;
    if (pick(e->w, 3) == 0) {
        (void)cb_exchange_send_text(e->x, 404, "no\n");
        return;
    }
    e->left = (int64_t)pick(e->w, 100000);
    if (cb_exchange_reply(e->x, 200, NULL, 0) == CB_OK) write_body(e);
}

static int on_request(cb_exchange *x, void *user) {
    walk *w = user;
    end *e = new_end(w, false);
    if (!e) return CB_ELIMIT;
    e->x = x;
    cr_assert_eq(cb_exchange_handle(x, &end_ops, e), CB_OK);
    if (pick(w, 3)) reply(e); /* else the hand does, or nobody */
    return CB_OK;
}

static const cb_exchange_ops accepting = {.size = sizeof accepting, .on_head = on_request};

/* ---- the hand ---- */

static void open_server(walk *w) {
    const cb_http_limits limits = {
        .size = sizeof limits, .idle_timeout_ms = 6000, .head_timeout_ms = 5000, .max_streams = 8};
    int rc = cb_http_server_new(&w->server, cb_sim_host_loop(w->server_host),
                                CB_OPTS(cb_http_server_opts, .listen = ":443", .identity = w->server_id,
                                        .versions = CB_HTTP_3, .limits = &limits, .early_data = pick(w, 2) != 0,
                                        .ops = &accepting, .user = w));
    cr_assert_eq(rc, CB_OK, "%s", cb_last_error());
}

static void open_client(walk *w) {
    int rc = cb_http_client_new(&w->client, cb_sim_host_loop(w->client_host),
                                CB_OPTS(cb_http_client_opts, .identity = w->client_id, .versions = CB_HTTP_3,
                                        .connect_timeout_ms = 4000, .idle_timeout_ms = 3000,
                                        .early_data = pick(w, 2) != 0, .max_conns_per_host = 3));
    cr_assert_eq(rc, CB_OK, "%s", cb_last_error());
}

static const char *const direct[] = {"https://server/a", "https://10.0.0.2/b"};
static const char *const proxied[] = {"https://edge/a", "https://10.0.0.3/b"};

static void do_request(walk *w) {
    const bool post = pick(w, 2) != 0;
    end *e = new_end(w, true);
    if (!e) return;
    int rc =
        cb_http_request(&e->x, w->client,
                        CB_OPTS(cb_request, .url = (w->edge_host ? proxied : direct)[pick(w, 2)],
                                .method = post ? "POST" : NULL, .has_body = post, .timeout_ms = pick(w, 2) ? 3000 : 0),
                        &end_ops, e);
    cr_assert_eq(rc, CB_OK, "%s", cb_last_error());
    if (!post) return;
    e->left = (int64_t)pick(w, 60000);
    if (pick(w, 4)) write_body(e);
}

static end *any_end(walk *w) {
    for (int tries = 0; w->made && tries < 10; tries++) {
        end *e = &w->ends[pick(w, w->made)];
        if (e->x) return e;
    }
    return NULL;
}

static void do_resume(walk *w) {
    end *e = any_end(w);
    if (e) cb_exchange_resume(e->x);
}

static void do_reply(walk *w) {
    end *e = any_end(w);
    if (e) reply(e);
}

static void do_write(walk *w) {
    end *e = any_end(w);
    if (e) write_body(e);
}

static void do_reset(walk *w) {
    end *e = any_end(w);
    if (e) cb_exchange_reset(e->x, CB_RESET_CANCEL);
}

static void do_abandon(walk *w) {
    end *e = any_end(w);
    if (e) abandon(e);
}

static void do_line(walk *w) {
    const cb_sim_link_opts o = {.size = sizeof o,
                                .rate_bps = 1000000 << pick(w, 6),
                                .delay_us = 1000 << pick(w, 7),
                                .loss = pick(w, 3) ? 0 : 0.3,
                                .corrupt = pick(w, 3) ? 0 : 0.1,
                                .duplicate = pick(w, 3) ? 0 : 0.3,
                                .reorder = pick(w, 3) ? 0 : 0.3,
                                .reorder_us = 30000,
                                .down = pick(w, 6) == 0};
    cb_sim_link *const lines[] = {w->up, w->down, w->far_up, w->far_down};
    cr_assert_eq(cb_sim_link_set(lines[pick(w, w->edge_host ? 4 : 2)], &o), CB_OK, "%s", cb_last_error());
}

static void do_drain(walk *w) {
    if (pick(w, 6) == 0) cb_http_server_drain(w->server, pick(w, 2000));
}

static void do_server_anew(walk *w) {
    if (pick(w, 6)) return;
    cb_http_server_free(w->server);
    open_server(w);
}

static void do_client_anew(walk *w) {
    if (pick(w, 8)) return;
    cb_http_client_free(w->client);
    open_client(w);
}

static void (*const deeds[])(walk *) = {do_request, do_request, do_request, do_request,     do_resume,     do_resume,
                                        do_reply,   do_reply,   do_write,   do_write,       do_reset,      do_abandon,
                                        do_line,    do_line,    do_drain,   do_server_anew, do_client_anew};

static void on_step(cb_sim *sim, void *user) {
    walk *w = user;
    deeds[pick(w, sizeof deeds / sizeof deeds[0])](w);
    if (--w->left > 0) cb_sim_at(sim, cb_sim_now(sim) + pick(w, 150 * ST_MS), on_step, w);
}

/* A reverse proxy between the two: HTTP/3 on both sides. */
static void open_edge(walk *w) {
    const cb_sim_link_opts line = {.size = sizeof line, .rate_bps = 50000000, .delay_us = 2000};
    int rc = cb_sim_host_new(&w->edge_host, w->sim, "edge", "10.0.0.3");
    if (rc == CB_OK) rc = cb_sim_path(w->client_host, w->edge_host, NULL, &w->up, 1);
    if (rc == CB_OK) rc = cb_sim_path(w->edge_host, w->client_host, NULL, &w->down, 1);
    if (rc == CB_OK) rc = cb_sim_connect(w->edge_host, w->server_host, &line, NULL, &w->far_up, &w->far_down);
    if (rc == CB_OK) rc = cb_router_new(&w->router);
    if (rc == CB_OK)
        rc = cb_router_group(w->router,
                             CB_OPTS(cb_origin_group_opts, .name = "origin", .identity = w->client_id,
                                     .versions = CB_HTTP_3, .connect_timeout_ms = 3000, .response_timeout_ms = 4000,
                                     .idle_timeout_ms = 5000, .keep_alive_ms = 2000));
    if (rc == CB_OK) rc = cb_router_origin(w->router, "origin", CB_OPTS(cb_origin_opts, .url = "https://server"));
    if (rc == CB_OK) rc = cb_router_route(w->router, CB_OPTS(cb_route_opts, .path = "/", .group = "origin"));
    if (rc == CB_OK)
        rc = cb_proxy_new(&w->proxy, cb_sim_host_loop(w->edge_host), CB_OPTS(cb_proxy_opts, .router = w->router));
    if (rc == CB_OK)
        rc = cb_http_server_new(&w->edge, cb_sim_host_loop(w->edge_host),
                                CB_OPTS(cb_http_server_opts, .listen = ":443", .identity = w->server_id,
                                        .versions = CB_HTTP_3, .ops = cb_proxy_exchange_ops(), .user = w->proxy));
    cr_assert_eq(rc, CB_OK, "%s", cb_last_error());
}

static void walk_once(uint64_t seed, cb_identity *server_id, cb_identity *client_id, uint64_t *complete) {
    walk *w = calloc(1, sizeof *w);
    const unsigned long long which = seed;
    cr_assert_not_null(w);
    const cb_alloc alloc = counting_alloc(&w->memory);
    const cb_sim_link_opts line = {.size = sizeof line, .rate_bps = 20000000, .delay_us = 5000};
    sim_rng_init(&w->rng, seed, 98);
    w->server_id = server_id;
    w->client_id = client_id;
    w->left = STEPS;
    int rc = cb_sim_new(&w->sim, CB_OPTS(cb_sim_opts, .seed = seed, .alloc = &alloc));
    if (rc == CB_OK) rc = cb_sim_host_new(&w->client_host, w->sim, "client", "10.0.0.1");
    if (rc == CB_OK) rc = cb_sim_host_new(&w->server_host, w->sim, "server", "10.0.0.2");
    if (rc == CB_OK) rc = cb_sim_connect(w->client_host, w->server_host, &line, NULL, &w->up, &w->down);
    cr_assert_eq(rc, CB_OK, "%s", cb_last_error());
    open_server(w);
    if (seed % 2) open_edge(w);
    open_client(w);
    cb_sim_at(w->sim, 0, on_step, w);
    rc = cb_sim_run_until(w->sim, 60 * ST_S);
    cr_assert_eq(rc, CB_OK, "seed %llu: %s", which, cb_last_error());
    cb_http_client_free(w->client);
    cr_assert_eq(cb_sim_run(w->sim), CB_OK, "seed %llu: %s", which, cb_last_error());
    cb_http_server_free(w->server);
    cb_http_server_free(w->edge);
    cb_proxy_free(w->proxy);
    cb_router_unref(w->router);
    cr_assert_eq(cb_sim_run(w->sim), CB_OK, "seed %llu: %s", which, cb_last_error());
    for (size_t i = 0; i < w->made; i++) /* whose message had come whole, and waited for a resume */
        if (w->ends[i].x) cb_exchange_reset(w->ends[i].x, CB_RESET_CANCEL);
    cr_assert_eq(cb_sim_run(w->sim), CB_OK, "seed %llu: %s", which, cb_last_error());
    cr_assert_eq(w->late, 0, "seed %llu: told after its end", which);
    cr_assert_eq(w->closed + w->abandoned, w->made, "seed %llu: %zu closed, %zu abandoned, of %zu", which, w->closed,
                 w->abandoned, w->made);
    cb_sim_free(w->sim);
    cr_assert_eq(w->memory.now, 0, "seed %llu: %zu bytes are left", which, w->memory.now);
    *complete += w->complete;
    free(w);
}

Test(sim_http_walk, anything_at_any_time) {
    enum { WALKS = 30 };
    uint64_t complete[2] = {0, 0}; /* direct, by way of the proxy */
    tls_pki pki;
    tls_pki_make_of(&pki, CB_KEY_ED25519);
    cb_identity *server_id = tls_pki_identity(&pki, "server,10.0.0.2,edge,10.0.0.3"), *client_id = tls_pki_client(&pki);
    for (uint64_t seed = 1; seed <= WALKS; seed++)
        walk_once(seed, server_id, client_id, &complete[seed % 2]);
    for (int i = 0; i < 2; i++)
        cr_assert_gt(complete[i], (uint64_t)WALKS * 2, "walks must get somewhere: %llu exchanges were complete",
                     (unsigned long long)complete[i]);
    cb_identity_unref(server_id);
    cb_identity_unref(client_id);
    tls_pki_drop(&pki);
}

/* ---- found by a walk: what is complete and not taken outlives its connection, and even its client ---- */

typedef struct sleeper {
    cb_exchange *x;
    size_t take, got;
    int closed, rc;
} sleeper;

static int64_t take_some(cb_exchange *x, cb_slice data, void *user) {
    sleeper *s = user;
    size_t n = s->take < data.len ? s->take : data.len;
    (void)x;
    s->take -= n;
    s->got += n;
    return (int64_t)n;
}

static void sleeper_closed(cb_exchange *x, int rc, void *user) {
    sleeper *s = user;
    (void)x;
    s->closed++;
    s->rc = rc;
    s->x = NULL;
}

static int serve_text(cb_exchange *x, void *user) {
    (void)user;
    return cb_exchange_send_text(x, 200,
                                 "a hundred bytes or so, of which the first few are taken at once and the rest later");
}

Test(sim_http_walk, a_response_that_waits_outlives_its_connection) {
    static const cb_exchange_ops serving = {.size = sizeof serving, .on_head = serve_text};
    static const cb_exchange_ops sleeping = {.size = sizeof sleeping, .on_body = take_some, .on_close = sleeper_closed};
    enum { RESUME, RESET, ABANDON, WAYS };
    tls_pki pki;
    tls_pki_make_of(&pki, CB_KEY_ED25519);
    cb_identity *server_id = tls_pki_identity(&pki, "server"), *client_id = tls_pki_client(&pki);
    for (int way = 0; way < WAYS; way++) {
        walk w = {.server_id = server_id, .client_id = client_id};
        sleeper s = {.take = 5};
        const cb_sim_link_opts line = {.size = sizeof line, .delay_us = 5000};
        int rc = cb_sim_new(&w.sim, NULL);
        if (rc == CB_OK) rc = cb_sim_host_new(&w.client_host, w.sim, "client", "10.0.0.1");
        if (rc == CB_OK) rc = cb_sim_host_new(&w.server_host, w.sim, "server", "10.0.0.2");
        if (rc == CB_OK) rc = cb_sim_connect(w.client_host, w.server_host, &line, NULL, NULL, NULL);
        if (rc == CB_OK)
            rc = cb_http_server_new(&w.server, cb_sim_host_loop(w.server_host),
                                    CB_OPTS(cb_http_server_opts, .listen = ":443", .identity = server_id,
                                            .versions = CB_HTTP_3, .ops = &serving));
        cr_assert_eq(rc, CB_OK, "%s", cb_last_error());
        open_client(&w);
        rc = cb_http_request(&s.x, w.client, CB_OPTS(cb_request, .url = "https://server/"), &sleeping, &s);
        cr_assert_eq(rc, CB_OK, "%s", cb_last_error());
        st_until(w.sim, ST_S);
        cr_assert_eq(s.got, 5);
        cb_http_server_free(w.server); /* its connection goes ... */
        st_until(w.sim, 2 * ST_S);
        if (way != RESUME) cb_http_client_free(w.client); /* ... and its client */
        st_until(w.sim, 3 * ST_S);
        cr_assert_eq(s.closed, 0);
        s.take = SIZE_MAX;
        if (way == RESUME) cb_exchange_resume(s.x);
        if (way == RESET) cb_exchange_reset(s.x, CB_RESET_CANCEL);
        if (way == ABANDON) cb_exchange_abandon(s.x);
        st_until(w.sim, 4 * ST_S);
        cr_assert_eq(s.closed, way == ABANDON ? 0 : 1);
        cr_assert_eq(s.rc, way == RESET ? CB_ECLOSED : CB_OK);
        if (way == RESUME) cr_assert_gt(s.got, 50);
        if (way == RESUME) cb_http_client_free(w.client);
        cb_sim_free(w.sim);
    }
    cb_identity_unref(server_id);
    cb_identity_unref(client_id);
    tls_pki_drop(&pki);
}
