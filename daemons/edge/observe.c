/* The listener for scrapers and health checks: loopback only, on the side thread. */
#include "telemetry.h"
#include <cb/admin.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { LOOK_MS = 250, LEAVE_MS = 2000, STEP_MS = 5 };

/* A listener: of the side thread, but for its texts. */
typedef struct page {
    struct page *next; /* among those that leave */
    edge_observe *observe;
    cb_admin *admin;
    char *conf_address; /* as the configuration has it */
    char address[64];
} page;

struct edge_observe {
    edge *edge;
    page *now, *prepared; /* changed while the main thread waits */
    page *leaving;
    _Atomic int n_leaving;
    cb_timer *look;
    bool keeps; /* the reload under way changes nothing here */
    int32_t late[CB_HTTP_SERVER_FDS];
    uint32_t n_late; /* sockets of the process before, which are read when this one serves */
};

void edge_health_show(const edge *e, cb_admin *a) {
    char text[EDGE_SAID];
    const char *why;
    const bool ready = edge_is_ready(e, &why), alive = edge_is_alive(e, text);
    cb_admin_ready(a, ready, why);
    cb_admin_alive(a, alive, alive ? NULL : text);
}

/* ---- on the side thread ---- */

static void page_free(page *p) {
    if (!p) return;
    for (page **at = &p->observe->leaving; *at; at = &(*at)->next) {
        if (*at != p) continue;
        *at = p->next;
        atomic_fetch_sub(&p->observe->n_leaving, 1);
        break;
    }
    cb_admin_free(p->admin);
    free(p->conf_address);
    free(p);
}

static void on_look(cb_loop *loop, void *user) {
    const edge_observe *o = user;
    (void)loop;
    if (o->now && o->now->admin) edge_health_show(o->edge, o->now->admin);
}

static int open_page(edge *e, void *arg) {
    edge_observe *o = e->observe;
    page *p = arg;
    cb_loop *loop = edge_side_loop(e);
    int rc = cb_admin_new(&p->admin, loop, CB_OPTS(cb_admin_opts, .name = EDGE_WHAT, .metrics = edge_metrics(e)));
    if (rc == CB_OK)
        rc = cb_admin_listen(p->admin, CB_OPTS(cb_admin_door_opts, .address = p->conf_address, .public_only = 1,
                                               .fds = o->late, .n_fds = o->n_late));
    if (rc >= 0 && !o->look) rc = cb_timer_start(&o->look, loop, LOOK_MS, LOOK_MS, on_look, o);
    if (rc < 0) return rc;
    o->n_late = 0; /* the server's now */
    snprintf(p->address, sizeof p->address, "%s", cb_admin_address(p->admin, 0));
    edge_health_show(e, p->admin);
    return CB_OK;
}

static int drop_page(edge *e, void *arg) {
    (void)e;
    page_free(arg);
    return CB_OK;
}

static void on_drained(cb_loop *loop, void *user) {
    (void)loop;
    page_free(user);
}

/* What was prepared, or nothing, is the page from now on; a scrape that runs on the old one ends. */
static int change_page(edge *e, void *arg) {
    edge_observe *o = e->observe;
    page *before = o->now;
    (void)arg;
    o->now = o->prepared;
    o->prepared = NULL;
    if (!before) return CB_OK;
    before->next = o->leaving;
    o->leaving = before;
    atomic_fetch_add(&o->n_leaving, 1);
    const int yields = atomic_load(&e->yields); /* a successor has the sockets */
    if (!before->admin || cb_admin_drain(before->admin, LEAVE_MS, yields, on_drained, before) < 0) page_free(before);
    return CB_OK;
}

static int save_page(edge *e, void *arg) {
    const page *p = e->observe->now;
    char name[EDGE_NAME];
    return cb_http_server_save(cb_admin_server(p->admin, 0), arg, edge_name(name, p->conf_address, "metrics"));
}

static int end_pages(edge *e, void *arg) {
    edge_observe *o = e->observe;
    (void)arg;
    page_free(o->now);
    page_free(o->prepared);
    while (o->leaving)
        page_free(o->leaving);
    cb_timer_free(o->look);
    return CB_OK;
}

static int show_health(edge *e, void *arg) {
    (void)arg;
    on_look(NULL, e->observe);
    return CB_OK;
}

/* ---- on the main thread ---- */

static const char *address_of(const edge_conf *c) {
    return c->metrics ? c->metrics->listen : NULL;
}

/* What does not serve yet must not answer in the place of what does. */
static bool inherits(edge_observe *o, const char *address) {
    int32_t fds[CB_HTTP_SERVER_FDS];
    char name[EDGE_NAME];
    if (!o->edge->inherited) return false;
    int n = cb_handoff_fds(o->edge->inherited, edge_name(name, address, "metrics"), fds, CB_HTTP_SERVER_FDS);
    for (int i = 0; i < n && i < CB_HTTP_SERVER_FDS; i++) {
        int copy = fcntl(fds[i], F_DUPFD_CLOEXEC, 3);
        if (copy >= 0) o->late[o->n_late++] = copy;
    }
    return o->n_late > 0;
}

static page *page_new(edge_observe *o, const char *address) {
    page *p = calloc(1, sizeof *p);
    if (!p || !(p->conf_address = strdup(address))) {
        free(p);
        return NULL;
    }
    p->observe = o;
    return p;
}

int edge_observe_prepare(edge *e, edge_snapshot *next, edge_source *from) {
    const char *address = address_of(next->conf);
    edge_observe *o = e->observe;
    if (!o && address && (o = e->observe = calloc(1, sizeof *o))) o->edge = e;
    if (!o) return address ? edge_wrong(from, "no memory", "/metrics") : CB_OK;
    o->keeps = address && o->now && strcmp(o->now->conf_address, address) == 0;
    if (o->keeps || !address) return CB_OK;
    const bool late = inherits(o, address);
    if (!late && edge_probe(address, false) < 0) return edge_wrong(from, edge_why(), "/metrics/listen");
    page *p = page_new(o, address);
    int rc = p ? edge_side_begin(e) : CB_ENOMEM;
    if (rc == CB_OK && !late) rc = edge_side_do(e, open_page, p);
    if (rc == CB_OK) {
        o->prepared = p;
        return CB_OK;
    }
    rc = edge_wrong(from, cb_last_error(), "/metrics/listen");
    if (e->side) edge_side_do(e, drop_page, p);
    return rc;
}

void edge_observe_abort(edge *e) {
    edge_observe *o = e->observe;
    if (o && o->prepared) edge_side_do(e, drop_page, o->prepared);
    if (o) o->prepared = NULL;
}

void edge_observe_commit(edge *e, edge_snapshot *next) {
    edge_observe *o = e->observe;
    (void)next;
    if (!o || o->keeps || (!o->now && !o->prepared)) return;
    edge_side_do(e, change_page, NULL);
}

void edge_observe_tell(edge *e) {
    edge_observe *o = e->observe;
    if (!o || !o->now) return;
    const bool opens = !o->now->admin && e->serving;
    if (edge_side_do(e, opens ? open_page : show_health, o->now) < 0)
        edge_say(e->log, CB_LOG_ERROR, "%s: /metrics/listen: %s", e->file, cb_last_error());
}

int edge_observe_save(edge *e, cb_handoff *h) {
    const edge_observe *o = e->observe;
    return o && o->now && o->now->admin ? edge_side_do(e, save_page, h) : CB_OK;
}

void edge_observe_leave(edge *e) {
    if (e->observe && e->observe->now) edge_side_do(e, change_page, NULL);
}

/* A scrape that runs, or is on its way to us, is answered. */
static void wait_for_the_last(edge *e) {
    const struct timespec step = {.tv_nsec = STEP_MS * 1000000L};
    edge_observe_leave(e);
    while (atomic_load(&e->observe->n_leaving))
        nanosleep(&step, NULL);
}

void edge_observe_free(edge *e) {
    edge_observe *o = e->observe;
    if (!o) return;
    wait_for_the_last(e);
    if (e->side) edge_side_do(e, end_pages, NULL);
    while (o->n_late)
        close(o->late[--o->n_late]);
    free(o);
    e->observe = NULL;
}
