#include "base/thread.h"
#include "base/error.h"
#include <signal.h>

int cb_thread_start(pthread_t *out, const char *name, void *(*run)(void *user), void *user) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    int err = pthread_create(out, NULL, run, user);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (err) return cb_fail_errno(err, "the thread %s", name);
    (void)pthread_setname_np(*out, name);
    return CB_OK;
}
