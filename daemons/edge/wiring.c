/* The main thread: starts the workers, hands signals on, and ends. */
#include "telemetry.h"
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { TURN_KEYS_MS = 30000, LOOK_MS = 500 };

void edge_post_all(edge *e, cb_task_fn fn) {
    for (uint32_t i = 0; i < e->n_workers; i++)
        if (cb_loop_post(e->workers[i].loop, fn, &e->workers[i]) < 0)
            edge_say(e->log, CB_LOG_ERROR, "worker %u cannot be told: %s", i, cb_last_error());
}

/* ---- what a configuration may be for this process ---- */

static bool address_is_ours(const edge *e, const char *address) {
    for (const edge_use *u = e->now ? e->now->uses : NULL; u; u = u->next)
        if (strcmp(u->listener->address, address) == 0) return true;
    return false;
}

int edge_check_addresses(edge_source *from, const edge *e, const edge_snapshot *next, bool started) {
    int worst = CB_OK;
    for (const edge_use *u = next->uses; u; u = u->next) {
        const edge_listener *l = u->listener;
        char name[EDGE_NAME];
        if (started && address_is_ours(e, l->address)) continue;
        if (e->inherited && cb_handoff_fds(e->inherited, edge_name(name, l->conf->address, "sockets"), NULL, 0))
            continue;
        int rc = edge_probe(l->address, edge_speaks_quic(l->conf));
        if (rc == CB_OK) continue;
        worst = edge_wrong(from, edge_why(), "/listeners/%s/address", l->conf->name);
    }
    return worst;
}

static bool differs(const char *a, const char *b) {
    return strcmp(a ? a : "", b ? b : "") != 0;
}

static const char *state_dir(const edge_conf *c) {
    return c->admin ? c->admin->state_dir : NULL;
}

static bool quic_lb_differs(const edge_quic_lb_conf *a, const edge_quic_lb_conf *b) {
    if (!a || !b) return a != b;
    return differs(a->server_id, b->server_id) || differs(a->cid_key_file, b->cid_key_file) ||
           a->rotation != b->rotation;
}

/* What a reload does not change. */
int edge_check_fixed(edge_source *from, const edge *e, const edge_snapshot *next) {
    const edge_conf *a = e->now->conf, *b = next->conf;
    char why[160];
    int worst = CB_OK;
    const struct {
        const char *name, *way;
        bool changed;
    } rows[] = {
        {"workers", "an upgrade (SIGUSR2)", edge_workers_of(a) != edge_workers_of(b)},
        {"user", "an upgrade (SIGUSR2) of a process that is root, or a restart", differs(a->user, b->user)},
        {"via", "an upgrade (SIGUSR2)", differs(a->via, b->via)},
        {"resolver", "an upgrade (SIGUSR2)", differs(a->resolver, b->resolver)},
        {"pid_file", "an upgrade (SIGUSR2)", differs(a->pid_file, b->pid_file)},
        {"quic_secret_file", "a restart", differs(a->quic_secret_file, b->quic_secret_file)},
        {"quic_lb", "a restart", quic_lb_differs(a->quic_lb, b->quic_lb)},
        {"forwarding", "an upgrade (SIGUSR2) or a restart", edge_forwarding_differs(a->forwarding, b->forwarding)},
        {"admin/state_dir", "an upgrade (SIGUSR2)", differs(state_dir(a), state_dir(b))},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (!rows[i].changed) continue;
        snprintf(why, sizeof why, "it changed, and that needs %s", rows[i].way);
        worst = edge_wrong(from, why, "/%s", rows[i].name);
    }
    return worst;
}

/* ---- the end ---- */

static void on_stopped(cb_loop *loop, void *user) {
    edge *e = user;
    if (++e->stopped == e->n_workers) cb_loop_stop(loop);
}

void edge_worker_stopped(edge *e) {
    cb_loop_post(e->loop, on_stopped, e);
}

void edge_leave(edge *e, bool yields) {
    if (e->stopping) return;
    e->stopping = true;
    e->yields = yields;
    edge_acme_stop(e->acme);
    edge_forwarding_leave(e, yields);
    edge_admin_drain(e);
    if (!e->drain_said) e->drain_ms = (uint64_t)e->now->conf->drain_timeout_ms;
    edge_say(e->log, CB_LOG_INFO, "draining: running requests have %llu ms", (unsigned long long)e->drain_ms);
    if (yields)
        edge_observe_leave(e);
    else
        edge_observe_tell(e);
    edge_post_all(e, edge_worker_drain);
}

void edge_drain(edge *e) {
    if (e->stopping) return;
    edge_upgrade_abort(e);
    edge_notify("STOPPING=1\nSTATUS=draining");
    edge_leave(e, false);
}

static void on_term(cb_loop *loop, void *user) {
    (void)loop;
    edge_drain(user);
}

static void on_int(cb_loop *loop, void *user) {
    edge *e = user;
    if (!e->stopping) {
        edge_drain(e);
        return;
    }
    edge_say(e->log, CB_LOG_INFO, "stopping at once");
    for (uint32_t i = 0; i < e->n_workers; i++)
        cb_loop_stop(e->workers[i].loop);
    cb_loop_stop(loop);
}

static void on_reopen(cb_loop *loop, void *user) {
    (void)loop;
    edge_log_reopen(user);
    edge_post_all(user, edge_worker_reopen);
}

/* ---- start ---- */

static int open_workers(edge *e) {
    int rc = CB_OK;
    e->n_workers = edge_workers_of(e->now->conf);
    for (uint32_t i = 0; i < e->n_workers && rc == CB_OK; i++) {
        e->workers[i].edge = e;
        e->workers[i].number = i;
        rc = edge_worker_open(&e->workers[i], e->now);
    }
    return rc;
}

static int start_workers(edge *e) {
    sigset_t all, before;
    int rc = CB_OK;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are the main thread's */
    for (uint32_t i = 0; i < e->n_workers && rc == CB_OK; i++)
        rc = edge_worker_start(&e->workers[i]);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rc;
}

static int take_signals(edge *e) {
    const struct {
        int number;
        cb_task_fn fn;
    } rows[] = {{SIGHUP, edge_on_reload},
                {SIGTERM, on_term},
                {SIGINT, on_int},
                {SIGUSR1, on_reopen},
                {SIGUSR2, edge_upgrade_begin}};
    int rc = CB_OK;
    signal(SIGPIPE, SIG_IGN);
    for (size_t i = 0; i < sizeof rows / sizeof *rows && rc == CB_OK; i++)
        rc = cb_loop_on_signal(e->loop, rows[i].number, rows[i].fn, e);
    return rc;
}

static int start_parts(edge *e) {
    edge_source from = {.name = e->file, .log = e->log};
    int rc = edge_parts_prepare(e, e->now, &from);
    if (rc == CB_OK) edge_parts_commit(e, e->now);
    return rc;
}

static int start(edge *e) {
    const edge_conf *c = e->now->conf;
    edge_raise_files(e->log);
    int rc = take_signals(e);
    if (rc == CB_OK) rc = open_workers(e);
    if (rc == CB_OK) rc = edge_forwarding_begin(e);
    if (rc == CB_OK) rc = edge_give_sockets(e, c);
    if (rc == CB_OK) rc = edge_drop_privileges(c, e->log);
    if (rc == CB_OK) rc = start_parts(e); /* files are the user's */
    for (uint32_t i = 0; i < e->n_workers && rc == CB_OK; i++)
        rc = edge_worker_log(&e->workers[i], e->now);
    if (rc == CB_OK) rc = start_workers(e);
    return rc;
}

void edge_serving(edge *e) {
    if (edge_pid_file_write(e->now->conf) < 0) edge_say(e->log, CB_LOG_ERROR, "%s: %s", e->file, edge_why());
    for (const edge_use *u = e->now->uses; u; u = u->next)
        edge_say(e->log, CB_LOG_INFO, "listener %s: %s://%s", u->listener->conf->name,
                 u->listener->conf->tls ? "https" : "http", u->listener->address);
    e->serving = true;
    edge_observe_tell(e);
    edge_say(e->log, CB_LOG_INFO, "libcb %s: ready with %u worker%s", cb_version_text(), e->n_workers,
             e->n_workers == 1 ? "" : "s");
    edge_state_begun(e);
    edge_admin_open(e);
    edge_forwarding_open(e);
    if (edge_acme_configure(e->acme, e->now) < 0)
        edge_say_of(e->log, CB_LOG_ERROR, "acme", "cannot begin: %s", cb_last_error());
    if (e->elder < 0) edge_notify("READY=1\nSTATUS=serving"); /* else the process before tells who is the main one */
}

/* Servers do this at a handshake; without one keys must turn too, and somebody must say when they cannot. */
static void turn_keys(cb_loop *loop, void *user) {
    edge *e = user;
    (void)loop;
    edge_snapshot_turn_keys(e->now, e->log);
}

/* Also while it drains: what is revoked then is revoked for the connections of before, too. */
static void look_around(cb_loop *loop, void *user) {
    edge *e = user;
    (void)loop;
    edge_auth_look(e->now->auth, e->log);
    edge_providers_look(e);
    edge_trust_tick(e->now, e->log);
    edge_telemetry_look(e);
    edge_health_ask(e);
    edge_forwarding_tick(e);
    edge_admin_tick(e);
}

/* The handlers go with the loop: another SIGTERM on the way out would end an orderly end by force. */
static void hold_signals(void) {
    static const int numbers[] = {SIGHUP, SIGTERM, SIGINT, SIGUSR1, SIGUSR2};
    sigset_t set;
    sigemptyset(&set);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        sigaddset(&set, numbers[i]);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
}

static int load(edge *e) {
    if (edge_inherit(e) < 0) return CB_EINVAL;
    edge_telemetry_inherit(e);
    edge_steering_open(e);
    if (cb_jwt_cache_new(&e->verdicts, NULL) < 0 || cb_jwt_cache_metrics(e->verdicts, edge_metrics(e), "tokens") < 0 ||
        cb_dpop_new(&e->proofs, NULL) < 0) {
        edge_say(e->log, CB_LOG_ERROR, "%s", cb_last_error());
        return CB_ENOMEM;
    }
    edge_source from = {.name = e->file};
    int rc = cb_loop_new(&e->loop, CB_OPTS(cb_loop_opts, .log = e->log, .metrics = edge_metrics(e)));
    if (rc == CB_OK) rc = edge_state_begin(e);
    if (rc == CB_OK && !edge_log_is_file(e->now->conf)) rc = edge_log_prepare(e, e->now, &from);
    if (rc == CB_OK && !edge_log_is_file(e->now->conf)) edge_log_commit(e, e->now);
    return rc;
}

static int run(edge *e) {
    cb_timer *timer = NULL, *look = NULL; /* signals alone do not keep a loop going */
    int rc = edge_check_user(e->now->conf);
    if (rc == CB_OK) rc = start(e);
    if (rc == CB_OK) rc = edge_snapshot_settle(e, e->now);
    if (rc == CB_OK) edge_providers_run(e);
    if (rc == CB_OK) rc = cb_timer_start(&timer, e->loop, 0, TURN_KEYS_MS, turn_keys, e);
    if (rc == CB_OK) rc = cb_timer_start(&look, e->loop, LOOK_MS, LOOK_MS, look_around, e);
    if (rc == CB_OK) rc = edge_inherit_ready(e);
    if (rc == CB_OK) {
        if (e->elder < 0) edge_serving(e);
        rc = cb_loop_run(e->loop);
    }
    if (rc < 0) edge_say(e->log, CB_LOG_ERROR, "%s: %s", e->file, edge_why());
    hold_signals();
    edge_upgrade_abort(e);
    cb_timer_free(timer);
    cb_timer_free(look);
    return rc;
}

static void stop_workers(edge *e, bool at_once) {
    for (uint32_t i = 0; i < e->n_workers; i++) {
        edge_worker *w = &e->workers[i];
        if (w->started) {
            if (at_once) cb_loop_stop(w->loop);
            pthread_join(w->thread, NULL);
        }
        edge_worker_close(w);
    }
}

static void edge_free(edge *e) {
    edge_upgrade_end(e);
    if (e->now && e->serving && !e->yields) edge_pid_file_remove(e->now->conf);
    edge_observe_free(e);
    edge_telemetry_show(e, NULL);
    edge_admin_free(e);
    edge_forwarding_free(e);
    cb_revisions_free(e->revisions);
    edge_acme_free(e->acme);
    edge_checks_free(e);
    edge_snapshot_unref(e->now);
    edge_snapshot_unref(e->next);
    e->now = e->next = NULL;
    edge_providers_prune(e);
    edge_places_free(e);
    cb_dpop_unref(e->proofs);
    cb_jwt_cache_unref(e->verdicts);
    cb_handoff_free(e->inherited);
    for (uint32_t i = 0; i < e->n_elders; i++)
        close(e->elders[i]);
    if (e->loop) cb_loop_free(e->loop);
    edge_state_free(e); /* after the loop that it answers */
    edge_steering_close(e);
    edge_tracing_wait(e);
    edge_side_end(e);
    edge_telemetry_free(e);
    edge_log_end(e);
    free(e->program);
    free(e);
}

int edge_run(const char *file, char **argv) {
    edge *e = calloc(1, sizeof *e);
    edge_forbid_rights();
    if (!e || !(e->program = edge_find_program(argv[0])) || edge_log_begin(e) < 0 || edge_telemetry_new(e) < 0 ||
        !(e->acme = edge_acme_new(e)) || !(e->forwarding = edge_forwarding_new(e))) {
        if (e) edge_acme_free(e->acme);
        if (e) edge_telemetry_free(e);
        if (e) edge_log_end(e);
        if (e) free(e->program);
        free(e);
        return CB_ENOMEM;
    }
    e->file = file;
    e->argv = argv;
    e->started_s = (int64_t)time(NULL);
    int rc = load(e); /* tells what is wrong */
    if (rc == CB_OK) rc = run(e);
    stop_workers(e, rc < 0);
    edge_free(e);
    return rc;
}
