#include "lb/node_file.h"
#include "auth/disk.h"
#include "auth/file.h"
#include "base/error.h"
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { WAITS = 0, REPLACES = 1, DONE = 2, CANCELLED = 3, PATH_BYTES = 4096 };

int cb_lb_file_read(char **out, size_t *len, const char *path, size_t most) {
    struct stat st;
    if (stat(path, &st) < 0) return cb_fail_errno(errno, "state file \"%s\"", path);
    if (st.st_mode & 077)
        return cb_fail(CB_EPERM, "state file \"%s\" is open to others (mode %03o); it must be 0600", path,
                       (unsigned)st.st_mode & 0777);
    return cb_file_read(out, len, path, "state file", most);
}

void cb_lb_file_put_aside(const char *path) {
    char aside[PATH_BYTES];
    const int n = snprintf(aside, sizeof aside, "%s.bad", path);
    if (n > 0 && (size_t)n < sizeof aside) (void)rename(path, aside);
}

static int write_temporary(const cb_lb_file_job *job, const char *name) {
    int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) return errno;
    int err = fchmod(fd, 0600) < 0 ? errno : 0;
    if (!err) err = cb_disk_write(fd, (cb_slice){job->bytes, job->len});
    if (!err && fsync(fd) < 0) err = errno;
    if (close(fd) < 0 && !err) err = errno;
    return err;
}

void cb_lb_file_write(cb_lb_file_job *job) {
    char name[PATH_BYTES];
    int waits = WAITS;
    const int n = snprintf(name, sizeof name, "%s.%u.new", job->path, (unsigned)job->number);
    int err = n > 0 && (size_t)n < sizeof name ? write_temporary(job, name) : ENAMETOOLONG;
    if (!err && !atomic_compare_exchange_strong(&job->stage, &waits, REPLACES)) err = ECANCELED;
    if (!err && rename(name, job->path) < 0) err = errno;
    if (!err)
        err = cb_disk_sync_folder(job->path);
    else
        (void)unlink(name);
    if (waits != CANCELLED) atomic_store(&job->stage, DONE);
    job->rc = err ? cb_fail_errno(err, "state file \"%s\"", job->path) : CB_OK;
    snprintf(job->detail, sizeof job->detail, "%s", err ? cb_last_error() : "");
}

void cb_lb_file_cancel(cb_lb_file_job *job) {
    int stage = WAITS;
    if (atomic_compare_exchange_strong(&job->stage, &stage, CANCELLED)) return;
    while (atomic_load(&job->stage) == REPLACES)
        sched_yield();
}
