/* This process is replaced: it starts its successor, hands it sockets and secrets, waits until it serves, and drains.
 * When the successor fails, at whatever point, nothing has changed here.
 *
 *   predecessor                                  successor (inherit.c)
 *   sockets, groups, tickets, steering  ------>  opens everything, at rest
 *   learns the way to its workers       <------  ready: its groups
 *   go                                  ------>  begins
 *   drains                              <------  serves
 *
 * A thread of its own talks and waits, the main thread and the workers serve on. */
#include "telemetry.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CHANGE_MS = 5 };

extern char **environ;

struct edge_upgrade {
    edge *edge;
    cb_handoff *handoff;
    edge_snapshot *snapshot; /* whose listeners pass */
    uint32_t saved;
    int rc;
    char why[600];
    pthread_t thread;
    bool threaded, aborted;
    int sock, theirs; /* to the successor, and its end */
    pid_t child;
};

cb_handoff *edge_upgrade_handoff(const edge *e) {
    return e->upgrade->handoff;
}

static void fail(edge_upgrade *u, int rc, const char *why) {
    if (u->rc < 0) return;
    u->rc = rc;
    snprintf(u->why, sizeof u->why, "%s", why);
}

static void upgrade_free(edge_upgrade *u) {
    if (u->threaded) pthread_join(u->thread, NULL);
    if (u->sock >= 0 && u->rc < 0) close(u->sock); /* else it stays open: its end tells the successor of ours */
    if (u->theirs >= 0) close(u->theirs);
    cb_handoff_free(u->handoff);
    edge_snapshot_unref(u->snapshot);
    u->edge->upgrade = NULL;
    free(u);
}

static void finish(edge_upgrade *u) {
    edge *e = u->edge;
    const int rc = u->rc;
    const pid_t child = u->child;
    char state[96];
    if (u->aborted) {
        upgrade_free(u);
        return;
    }
    if (rc < 0) edge_say(e->log, CB_LOG_ERROR, "upgrade: %s: this process goes on", u->why);
    upgrade_free(u);
    edge_telemetry_upgraded(e, rc < 0 ? EDGE_BAD : EDGE_GOOD);
    if (rc < 0) {
        edge_steering_restore(e);
        edge_forwarding_restore(e);
        if (!e->stopping) (void)edge_pid_file_write(e->now->conf); /* the other one may have written its own */
        if (!e->stopping) edge_notify("READY=1\nSTATUS=serving");
        edge_state_resume(e);
        return;
    }
    snprintf(state, sizeof state, "MAINPID=%ld\nREADY=1\nSTATUS=serving", (long)child);
    edge_notify(state);
    edge_say(e->log, CB_LOG_INFO, "upgrade: process %ld has taken over", (long)child);
    edge_leave(e, true);
}

/* ---- the successor ---- */

static char *variable(int fd) {
    char *text = NULL;
    return asprintf(&text, "%s=%d", EDGE_UPGRADE_VARIABLE, fd) < 0 ? NULL : text;
}

/* The environment with one variable more. Only the array is new. */
static char **environment_with(char *more) {
    size_t n = 0;
    while (environ[n])
        n++;
    char **all = calloc(n + 2, sizeof *all);
    if (!all) return NULL;
    memcpy(all, environ, n * sizeof *all);
    all[n] = more;
    return all;
}

static int spawn_with(edge_upgrade *u, char **env) {
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &all);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    /* Onto itself: the one descriptor that stays open across exec. */
    int error = posix_spawn_file_actions_adddup2(&actions, u->theirs, u->theirs);
    edge_ambient(true);
    if (!error) error = posix_spawn(&u->child, u->edge->program, &actions, &attributes, u->edge->argv, env);
    edge_ambient(false);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    return error;
}

static int start_successor(edge_upgrade *u) {
    char *more = variable(u->theirs), why[500];
    char **env = more ? environment_with(more) : NULL;
    int error = env ? spawn_with(u, env) : ENOMEM;
    close(u->theirs); /* its end shows at ours */
    u->theirs = -1;
    free(env);
    free(more);
    if (!error) return CB_OK;
    snprintf(why, sizeof why, "%s cannot be started: %s", u->edge->program, strerror(error));
    fail(u, CB_ESYS, why);
    return CB_ESYS;
}

/* It went away from its end of the socket, or we did: a moment to get to its own end. */
static bool ended_by_itself(pid_t child, int *status) {
    enum { STEPS = 100 };
    const struct timespec step = {.tv_nsec = 20000000};
    for (int i = 0; i < STEPS; i++) {
        if (waitpid(child, status, WNOHANG) == child) return true;
        nanosleep(&step, NULL);
    }
    return false;
}

/* What became of a successor that did not get to its end. */
static void tell_end(edge_upgrade *u, int rc) {
    char why[400];
    int status = 0;
    snprintf(why, sizeof why, "%s", cb_last_error());
    shutdown(u->sock, SHUT_RDWR);
    if (rc != CB_ECLOSED || !ended_by_itself(u->child, &status)) {
        kill(u->child, SIGKILL);
        while (waitpid(u->child, &status, 0) < 0 && errno == EINTR)
            ;
    }
    if (rc == CB_ETIMEOUT)
        snprintf(why, sizeof why, "the new process %ld did not serve within %lld ms and was ended", (long)u->child,
                 (long long)u->snapshot->conf->upgrade_timeout_ms);
    else if (rc == CB_ECLOSED && WIFEXITED(status))
        snprintf(why, sizeof why, "the new process %ld ended with status %d before it served (its lines say why)",
                 (long)u->child, WEXITSTATUS(status));
    else if (rc == CB_ECLOSED && WIFSIGNALED(status))
        snprintf(why, sizeof why, "the new process %ld was killed by signal %d before it served", (long)u->child,
                 WTERMSIG(status));
    fail(u, rc, why);
}

/* ---- the conversation, on a thread of its own ---- */

static int meet_all(edge_upgrade *u, const cb_handoff *ready) {
    char name[EDGE_NAME];
    cb_slice kept;
    for (const edge_use *use = u->snapshot->uses; use; use = use->next) {
        edge_name(name, use->listener->conf->address, "group");
        if (cb_handoff_get(ready, name, &kept) < 0) continue; /* the address is not served any more */
        int rc = cb_group_meet(use->listener->group, ready, name);
        if (rc < 0) return rc;
    }
    return CB_OK;
}

static uint32_t left_of(const struct timespec *begin, uint32_t ms) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    int64_t gone = (now.tv_sec - begin->tv_sec) * 1000 + (now.tv_nsec - begin->tv_nsec) / 1000000;
    return gone < ms ? ms - (uint32_t)gone : 0;
}

static int talk(edge_upgrade *u) {
    const uint32_t ms = (uint32_t)u->snapshot->conf->upgrade_timeout_ms;
    cb_handoff *ready = NULL, *go = NULL, *serves = NULL;
    struct timespec begin;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    int rc = cb_handoff_send(u->handoff, u->sock, ms);
    if (rc == CB_OK) rc = cb_handoff_receive(&ready, u->sock, left_of(&begin, ms));
    if (rc == CB_OK) rc = meet_all(u, ready);
    if (rc == CB_OK) rc = cb_handoff_new(&go);
    if (rc == CB_OK) rc = cb_handoff_send(go, u->sock, left_of(&begin, ms));
    if (rc == CB_OK) rc = cb_handoff_receive(&serves, u->sock, left_of(&begin, ms));
    cb_handoff_free(ready);
    cb_handoff_free(go);
    cb_handoff_free(serves);
    return rc;
}

static void on_end(cb_loop *loop, void *user) {
    edge *e = user;
    (void)loop;
    if (e->upgrade) finish(e->upgrade);
}

static void *converse(void *user) {
    edge_upgrade *u = user;
    int rc = start_successor(u);
    if (rc == CB_OK && (rc = talk(u)) < 0) tell_end(u, rc);
    cb_loop_post(u->edge->loop, on_end, u->edge);
    return NULL;
}

/* ---- before it: every worker gives what it has ---- */

static int fill(edge_upgrade *u) {
    edge *e = u->edge;
    const char *version = cb_version_text();
    char name[EDGE_NAME];
    int rc = cb_handoff_put(u->handoff, EDGE_WHAT, (cb_slice){(const uint8_t *)version, strlen(version)});
    if (rc == CB_OK) rc = cb_tickets_save(u->snapshot->tickets, u->handoff, "tickets");
    if (rc == CB_OK) rc = edge_steering_save(e, u->handoff);
    if (rc == CB_OK) rc = edge_telemetry_save(e, u->handoff);
    if (rc == CB_OK) rc = edge_observe_save(e, u->handoff);
    for (uint32_t i = 0; i < e->n_elders && rc == CB_OK; i++)
        rc = cb_handoff_put_fd(u->handoff, "elder", e->elders[i]);
    for (const edge_use *use = u->snapshot->uses; use && rc == CB_OK; use = use->next) {
        const edge_listener *l = use->listener;
        rc = cb_group_room(l->group);
        if (rc == CB_OK) rc = cb_group_save(l->group, u->handoff, edge_name(name, l->conf->address, "group"));
    }
    return rc;
}

static void start_conversation(edge_upgrade *u) {
    int pair[2];
    sigset_t all, before;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) {
        fail(u, CB_ESYS, strerror(errno));
        return;
    }
    u->sock = pair[0];
    u->theirs = pair[1];
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are the main thread's */
    u->threaded = pthread_create(&u->thread, NULL, converse, u) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (!u->threaded) fail(u, CB_ESYS, "no thread for it");
}

static void on_saved(cb_loop *loop, void *user) {
    edge_worker *w = user;
    edge_upgrade *u = w->edge->upgrade;
    (void)loop;
    if (!u) return;
    if (w->answer < 0) fail(u, w->answer, w->why);
    if (++u->saved < w->edge->n_workers) return;
    if (u->rc == CB_OK && fill(u) < 0) fail(u, CB_ESYS, cb_last_error());
    if (u->rc == CB_OK) edge_state_close(u->edge);
    if (u->rc == CB_OK) start_conversation(u);
    if (!u->threaded) finish(u); /* else rc is the thread's until on_end() */
}

void edge_upgrade_saved(edge_worker *w, int rc, const char *detail) {
    w->answer = rc;
    snprintf(w->why, sizeof w->why, "%s", detail);
    cb_loop_post(w->edge->loop, on_saved, w);
}

static const char *hindrance(edge *e) {
    if (e->stopping) return "this process drains already";
    if (e->upgrade || e->upgrade_waits) return "one is under way";
    if (e->elder >= 0 && !e->serving) return "this process does not serve yet";
    if (edge_elders(e) >= EDGE_ELDERS_MAX)
        return "4 generations of this process live already: the oldest must end first (drain_timeout_ms)";
    return NULL;
}

static void on_waited(cb_loop *loop, void *user) {
    edge *e = user;
    cb_timer_free(e->upgrade_waits);
    e->upgrade_waits = NULL;
    edge_upgrade_begin(loop, e);
}

/* A change of the configuration that is under way ends first, and no other begins. */
static bool waits_for_change(edge *e) {
    if (!cb_revisions_busy(e->revisions)) return false;
    if (cb_timer_start(&e->upgrade_waits, e->loop, CHANGE_MS, 0, on_waited, e) < 0) return false;
    cb_revisions_hold(e->revisions, 1);
    return true;
}

void edge_upgrade_begin(cb_loop *loop, void *user) {
    edge *e = user;
    const char *why = hindrance(e);
    if (!why && waits_for_change(e)) return;
    if (!why && cb_revisions_busy(e->revisions)) why = "no memory";
    edge_upgrade *u = why ? NULL : calloc(1, sizeof *u);
    (void)loop;
    if (u && cb_handoff_new(&u->handoff) < 0) {
        free(u);
        u = NULL;
    }
    if (!u) {
        edge_say(e->log, CB_LOG_ERROR, "upgrade: refused: %s", why ? why : "no memory");
        if (!e->upgrade && !e->upgrade_waits) cb_revisions_hold(e->revisions, 0);
        return;
    }
    u->edge = e;
    u->sock = u->theirs = -1;
    u->snapshot = edge_snapshot_ref(e->now);
    e->upgrade = u;
    edge_state_pause(e);
    edge_notify_reloading();
    edge_say(e->log, CB_LOG_INFO, "upgrade: starting %s", e->program);
    edge_post_all(e, edge_worker_save);
}

void edge_upgrade_abort(edge *e) {
    edge_upgrade *u = e->upgrade;
    cb_timer_free(e->upgrade_waits);
    e->upgrade_waits = NULL;
    if (!u) return;
    if (u->threaded) {
        shutdown(u->sock, SHUT_RDWR); /* the successor ends by it, and the thread */
        pthread_join(u->thread, NULL);
        u->threaded = false;
    }
    fail(u, CB_ECLOSED, "this process ends");
    u->aborted = true;
    if (u->saved == e->n_workers)
        upgrade_free(u); /* else workers still give what they have; the last answer is its end */
}

void edge_upgrade_end(edge *e) {
    if (e->upgrade) upgrade_free(e->upgrade);
}
