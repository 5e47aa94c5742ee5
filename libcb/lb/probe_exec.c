/* A check by a program: no shell, a process group of its own, bounded in time and output. Its end is a readable pidfd,
 * so no signal handler is needed, and no process is ended by a number that may be another's by then. F3. */
#include "base/buf.h"
#include "base/error.h"
#include "lb/probe.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef P_PIDFD
#define P_PIDFD 3
#endif

enum { VARIABLES = 5, VARIABLE_BYTES = 600 };

/* A program that runs. It may outlive its check: killed, and not yet gone. */
typedef struct child {
    cb_loop *loop;
    cb_probe *probe; /* NULL: nobody waits */
    cb_watch *watch, *output;
    cb_buf said;
    cb_orphan orphan;
    pid_t pid;
    int pidfd, pipe;
} child;

static void close_output(child *c) {
    cb_watch_free(c->output);
    c->output = NULL;
    if (c->pipe >= 0) close(c->pipe);
    c->pipe = -1;
}

static void child_free(child *c) {
    cb_orphan_gone(&c->orphan);
    close_output(c);
    cb_watch_free(c->watch);
    if (c->pidfd >= 0) close(c->pidfd);
    cb_buf_free(&c->said);
    cb_mem_free(cb_loop_alloc(c->loop), c);
}

static void read_output(child *c) {
    uint8_t bytes[1024];
    while (c->pipe >= 0) {
        const ssize_t n = read(c->pipe, bytes, sizeof bytes);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && errno == EAGAIN) return;
        if (n <= 0) {
            close_output(c);
            return;
        }
        const size_t room = CB_CHECK_OUTPUT_MAX - c->said.len;
        (void)cb_buf_add(&c->said, bytes, (size_t)n < room ? (size_t)n : room); /* beyond: thrown away */
        if (c->said.len == CB_CHECK_OUTPUT_MAX) return; /* not all at once: it may write for ever */
    }
}

static void on_output(cb_watch *w, unsigned events, void *user) {
    (void)w, (void)events;
    read_output(user);
}

/* Whatever it has started and left behind goes, too. The group exists until its leader is reaped, so its number is
 * ours.
 */
static void kill_group(const child *c) {
    kill(-c->pid, SIGKILL);
}

/* false: it has not ended. */
static bool reap(const child *c, siginfo_t *info) {
    memset(info, 0, sizeof *info);
    return waitid(P_PIDFD, (id_t)c->pidfd, info, WEXITED | WNOHANG) < 0 || info->si_pid != 0;
}

static void tell(child *c, const siginfo_t *info) {
    const char *program = c->probe->conf->argv[0];
    const uint8_t *line = c->said.base ? memchr(c->said.base, '\n', c->said.len) : NULL;
    const cb_slice first = {c->said.base, line ? (size_t)(line - c->said.base) : c->said.len};
    char took[24], seen[80];
    cb_probe_took(c->probe, took);
    cb_probe_quote(first, seen);
    if (info->si_code == CLD_EXITED)
        cb_probe_over(c->probe, info->si_status == 0, "%.80s: exit status %d after %s, and said %s", program,
                      info->si_status, took, seen);
    else if (info->si_pid)
        cb_probe_over(c->probe, false, "%.80s: ended by signal %d after %s", program, info->si_status, took);
    else
        cb_probe_over(c->probe, false, "%.80s: its exit status was taken by somebody else", program);
}

static void on_ended(cb_watch *w, unsigned events, void *user) {
    child *c = user;
    siginfo_t info;
    (void)w, (void)events;
    read_output(c);
    kill_group(c); /* before it is reaped */
    if (!reap(c, &info)) return;
    if (c->probe) {
        tell(c, &info);
        c->probe->state = NULL;
    }
    child_free(c);
}

static void cut(cb_orphan *o) {
    child *c = CB_CONTAINER(o, child, orphan);
    siginfo_t info;
    kill_group(c);
    while (waitid(P_PIDFD, (id_t)c->pidfd, &info, WEXITED) < 0 && errno == EINTR) /* it was killed: this is soon */
        continue;
    child_free(c);
}

/* ---- beginning ---- */

typedef struct variables {
    char text[VARIABLES][VARIABLE_BYTES];
    char *at[VARIABLES + 1];
} variables;

static void fill_variables(variables *v, const cb_probe *p) {
    const char *path = getenv("PATH");
    const cb_check *c = &p->conf->c;
    snprintf(v->text[0], VARIABLE_BYTES, "PATH=%s", path && strlen(path) < VARIABLE_BYTES - 6 ? path : "/usr/bin:/bin");
    snprintf(v->text[1], VARIABLE_BYTES, "CB_CHECK_NAME=%s", c->name);
    snprintf(v->text[2], VARIABLE_BYTES, "CB_CHECK_GROUP=%s", c->group);
    snprintf(v->text[3], VARIABLE_BYTES, "CB_CHECK_ADDRESS=%s", c->address ? c->address : "");
    snprintf(v->text[4], VARIABLE_BYTES, "CB_CHECK_TIMEOUT_MS=%llu", (unsigned long long)(p->timeout / CB_MS));
    for (int i = 0; i < VARIABLES; i++)
        v->at[i] = v->text[i];
    v->at[VARIABLES] = NULL;
}

static int spawn(child *c, const cb_probe *p, int out) {
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attr;
    sigset_t none, all;
    variables v;
    fill_variables(&v, p);
    sigemptyset(&none);
    sigfillset(&all);
    int err = posix_spawn_file_actions_init(&files);
    if (err) return err;
    err = posix_spawnattr_init(&attr);
    if (err) {
        posix_spawn_file_actions_destroy(&files);
        return err;
    }
    if (!err) err = posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
    if (!err) err = posix_spawn_file_actions_adddup2(&files, out, 1);
    if (!err) err = posix_spawn_file_actions_adddup2(&files, out, 2);
    if (!err) err = posix_spawn_file_actions_addchdir_np(&files, "/");
    if (!err) err = posix_spawnattr_setsigmask(&attr, &none);
    if (!err) err = posix_spawnattr_setsigdefault(&attr, &all);
    if (!err) err = posix_spawnattr_setpgroup(&attr, 0);
    if (!err)
        err = posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
    if (!err) err = posix_spawnp(&c->pid, p->conf->argv[0], &files, &attr, p->conf->argv, v.at);
    posix_spawnattr_destroy(&attr);
    posix_spawn_file_actions_destroy(&files);
    return err;
}

/* Without a way to wait for it, it must not go on. */
static int forsaken(child *c, int rc) {
    kill_group(c);
    while (waitpid(c->pid, NULL, 0) < 0 && errno == EINTR) {}
    child_free(c);
    return rc;
}

static int exec_begin(cb_probe *p) {
    child *c = cb_mem_new(p->alloc, sizeof *c);
    int ends[2];
    if (!c) return cb_fail(CB_ENOMEM, "no memory for a check");
    c->loop = p->loop;
    c->pidfd = c->pipe = -1;
    cb_buf_init(&c->said, p->alloc, CB_CHECK_OUTPUT_MAX);
    if (pipe2(ends, O_CLOEXEC) < 0) {
        child_free(c);
        return cb_fail_errno(errno, "opening a pipe for %s", p->conf->argv[0]);
    }
    c->pipe = ends[0];
    const int err = spawn(c, p, ends[1]);
    close(ends[1]);
    (void)fcntl(c->pipe, F_SETFL, O_NONBLOCK);
    if (err) {
        child_free(c);
        return cb_fail_errno(err, "starting %s", p->conf->argv[0]);
    }
    c->pidfd = (int)syscall(SYS_pidfd_open, c->pid, 0);
    if (c->pidfd < 0) return forsaken(c, cb_fail_errno(errno, "waiting for %s (Linux 5.4 can)", p->conf->argv[0]));
    (void)fcntl(c->pidfd, F_SETFD, FD_CLOEXEC);
    int rc = cb_watch_new(&c->watch, c->loop, c->pidfd, CB_READABLE, on_ended, c);
    if (rc == CB_OK) rc = cb_watch_new(&c->output, c->loop, c->pipe, CB_READABLE, on_output, c);
    if (rc < 0) return forsaken(c, rc);
    cb_loop_adopt(c->loop, &c->orphan, cut);
    c->probe = p;
    p->state = c;
    return CB_OK;
}

/* It is killed, and reaped when it is gone. */
static void exec_end(cb_probe *p) {
    child *c = p->state;
    if (!c) return;
    c->probe = NULL;
    p->state = NULL;
    close_output(c);
    kill_group(c);
}

const cb_probe_kind cb_probe_exec = {.name = "exec", .begin = exec_begin, .end = exec_end};
