/* A helper thread. It gets no signals: those are the loops'. */
#ifndef CB_BASE_THREAD_H
#define CB_BASE_THREAD_H

#include <pthread.h>

/* name: at most 15 bytes, for tools that list threads. CB_ESYS, CB_ENOMEM (the detail names it). */
int cb_thread_start(pthread_t *out, const char *name, void *(*run)(void *user), void *user);

#endif
