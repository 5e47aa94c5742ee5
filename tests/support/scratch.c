#include "support/scratch.h"
#include <criterion/criterion.h>
#include <ftw.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct made {
    struct made *next;
    char path[SCRATCH_TEXT];
} made;

static struct {
    pthread_mutex_t lock;
    made *first;
    pid_t owner; /* children that tests fork leave their parent's alone */
} all = {.lock = PTHREAD_MUTEX_INITIALIZER};

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *at) {
    (void)st;
    (void)type;
    (void)at;
    (void)remove(path);
    return 0;
}

void scratch_drop(const char *path) {
    (void)nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void drop_all(void) {
    if (getpid() != all.owner) return;
    while (all.first) {
        made *m = all.first;
        all.first = m->next;
        scratch_drop(m->path);
        free(m);
    }
}

/* Paths of unix sockets are short: a long $TMPDIR is not used. */
static void choose(char *out, size_t cap, const char *name) {
    const char *top = getenv("TMPDIR");
    if (cap > SCRATCH_TEXT) cap = SCRATCH_TEXT;
    if (!top || !*top || (size_t)snprintf(out, cap, "%s/cb-%s-XXXXXX", top, name) >= cap)
        cr_assert_lt((size_t)snprintf(out, cap, "/tmp/cb-%s-XXXXXX", name), cap);
}

static void note(const char *path) {
    made *m = calloc(1, sizeof *m);
    cr_assert_not_null(m);
    snprintf(m->path, sizeof m->path, "%s", path);
    pthread_mutex_lock(&all.lock);
    if (all.owner != getpid()) { /* the first one, or the first one in a child */
        all.owner = getpid();
        all.first = NULL;
        atexit(drop_all);
    }
    m->next = all.first;
    all.first = m;
    pthread_mutex_unlock(&all.lock);
}

void scratch_folder(char *out, size_t cap, const char *name) {
    choose(out, cap, name);
    cr_assert(mkdtemp(out) != NULL, "no folder %s", out);
    note(out);
}

int scratch_file(char *out, size_t cap, const char *name) {
    choose(out, cap, name);
    int fd = mkstemp(out);
    cr_assert(fd >= 0, "no file %s", out);
    note(out);
    return fd;
}
