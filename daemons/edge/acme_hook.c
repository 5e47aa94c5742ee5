/* The program that changes the DNS. */
#include "acme.h"
#include <errno.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>

extern char **environ;

enum { STEP_MS = 20, PATIENCE_MS = 60000 };

static int failed(const char *program, const char *verb, const char *name, const char *why) {
    char text[512];
    snprintf(text, sizeof text, "%.200s %s %.200s: %s", program, verb, name, why);
    return cb_error_set(CB_EUSER, text);
}

/* With no signal blocked, which is so on this thread. */
static int begin(pid_t *pid, const char *program, char *const argv[]) {
    posix_spawnattr_t attr;
    sigset_t none, pipe_signal;
    sigemptyset(&none);
    sigemptyset(&pipe_signal);
    sigaddset(&pipe_signal, SIGPIPE);
    int err = posix_spawnattr_init(&attr);
    if (err) return err;
    posix_spawnattr_setsigmask(&attr, &none);
    posix_spawnattr_setsigdefault(&attr, &pipe_signal);
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    err = posix_spawnp(pid, program, NULL, &attr, argv, environ);
    posix_spawnattr_destroy(&attr);
    return err;
}

/* Its status; < 0: it was ended, for it took too long or nobody waits for it any more. */
static int wait_for(pid_t pid, const _Atomic bool *stopping) {
    const struct timespec step = {.tv_nsec = STEP_MS * 1000000L};
    int status = 0;
    for (int waited = 0;; waited += STEP_MS) {
        pid_t got = waitpid(pid, &status, WNOHANG);
        if (got == pid) return status;
        if (got < 0 && errno != EINTR) return -1;
        if (waited > PATIENCE_MS || *stopping) break;
        nanosleep(&step, NULL);
    }
    kill(pid, SIGKILL);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    return -1;
}

int edge_acme_hook(const char *program, const char *verb, const cb_acme_challenge *c, const _Atomic bool *stopping) {
    char *const argv[] = {(char *)(uintptr_t)program, (char *)(uintptr_t)verb, (char *)(uintptr_t)c->name,
                          (char *)(uintptr_t)c->dns_value, NULL};
    char why[80];
    pid_t pid;
    int err = begin(&pid, program, argv);
    if (err) return failed(program, verb, c->name, strerror(err));
    const int status = wait_for(pid, stopping);
    if (status < 0) return failed(program, verb, c->name, "it took more than a minute");
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return CB_OK;
    snprintf(why, sizeof why, WIFEXITED(status) ? "exit status %d" : "signal %d",
             WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
    return failed(program, verb, c->name, why);
}
