#include "base/error.h"
#include "base/mem.h"
#include "base/opts.h"
#include "loop/loop_int.h"
#include "telemetry/access_line.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { BUFFER_DEFAULT = 1024 * 1024, FLUSH_AT = 64 * 1024, FLUSH_MS = 25, RETRY_MS = 200 };

struct cb_access_log {
    cb_loop *loop;
    const cb_alloc *alloc;
    char *path;
    cb_buf lines;
    cb_alarm later; /* when to write: soon after the first line, or when to try again */
    cb_grave grave;
    uint64_t dropped, told; /* told: of dropped, in the file already */
    mode_t mode;
    int fd;
    bool pipe;   /* not a regular file: writing may raise SIGPIPE */
    bool broken; /* the last write failed; said once */
};

static int open_path(const cb_access_log *log) {
    bool standard = strcmp(log->path, "-") == 0;
    int fd = standard ? fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3)
                      : open(log->path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NONBLOCK, log->mode);
    return fd < 0 ? cb_fail_errno(errno, "access log %s", log->path) : fd;
}

static void use_fd(cb_access_log *log, int fd) {
    struct stat st;
    log->fd = fd;
    log->pipe = fstat(fd, &st) < 0 || !S_ISREG(st.st_mode);
}

static void tell_drops(cb_access_log *log) {
    if (log->dropped == log->told) return;
    if (cb_buf_printf(&log->lines, "{\"dropped_lines\":%" PRIu64 "}\n", log->dropped - log->told) == CB_OK)
        log->told = log->dropped;
}

static void write_later(cb_access_log *log, cb_time ms) {
    cb_alarm_set(&log->later, cb_loop_now(log->loop) + ms * CB_MS);
}

/* A pipe whose reader is gone answers a write with SIGPIPE: a library must not end its program by that. The signal of
 * this write comes to this thread, where it is held back and taken off. Files need none of it. */
static ssize_t write_quietly(const cb_access_log *log) {
    sigset_t pipe_only, pending, before;
    if (!log->pipe) return write(log->fd, log->lines.base, log->lines.len);
    sigemptyset(&pipe_only);
    sigaddset(&pipe_only, SIGPIPE);
    sigemptyset(&pending);
    sigpending(&pending);
    pthread_sigmask(SIG_BLOCK, &pipe_only, &before);
    ssize_t n = write(log->fd, log->lines.base, log->lines.len);
    int err = errno;
    if (n < 0 && err == EPIPE && !sigismember(&pending, SIGPIPE))
        (void)sigtimedwait(&pipe_only, NULL, &(struct timespec){0});
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    errno = err;
    return n;
}

/* One append. A disk that is full or a reader that is slow costs lines, never the loop's time. */
static void write_out(cb_access_log *log) {
    if (!log->lines.len) return;
    ssize_t n = write_quietly(log);
    bool bad = n < 0 && errno != EAGAIN && errno != EINTR;
    if (bad && !log->broken)
        cb_log_line(cb_loop_log(log->loop), CB_LOG_ERROR, "log", "access log %s: %s", log->path, strerror(errno));
    log->broken = bad;
    if (n > 0) cb_buf_drop(&log->lines, (size_t)n);
    if (log->lines.len) {
        write_later(log, RETRY_MS);
        return;
    }
    tell_drops(log);
    if (log->lines.len) write_later(log, FLUSH_MS);
}

static void on_later(cb_alarm *a, cb_time now) {
    (void)now;
    write_out(CB_CONTAINER(a, cb_access_log, later));
}

int cb_access_log_open(cb_access_log **out, cb_loop *loop, const cb_access_log_opts *opts) {
    if (!out || !loop) return cb_fail(CB_EINVAL, "cb_access_log_open: %s is NULL", !out ? "out" : "loop");
    cb_access_log_opts o;
    int rc = cb_opts_read(&o, sizeof o, opts, "cb_access_log_opts");
    if (rc < 0) return rc;
    if (!o.path || !*o.path) return cb_fail(CB_EINVAL, "cb_access_log_opts: path is missing");
    const cb_alloc *alloc = cb_loop_alloc(loop);
    cb_access_log *log = cb_mem_new(alloc, sizeof *log);
    if (!log) return cb_fail(CB_ENOMEM, "no memory for an access log");
    log->loop = loop;
    log->alloc = alloc;
    log->mode = o.mode ? (mode_t)o.mode : 0640;
    cb_buf_init(&log->lines, alloc, o.buffer_bytes ? o.buffer_bytes : BUFFER_DEFAULT);
    cb_alarm_init(&log->later, loop, on_later);
    log->path = cb_mem_text(alloc, o.path);
    log->fd = log->path ? open_path(log) : cb_fail(CB_ENOMEM, "no memory for an access log");
    if (log->fd < 0) {
        rc = log->fd;
        cb_mem_free(alloc, log->path);
        cb_mem_free(alloc, log);
        return rc;
    }
    use_fd(log, log->fd);
    *out = log;
    return CB_OK;
}

void cb_access_log_add(cb_access_log *log, const cb_access_record *record) {
    cb_access_record r;
    if (cb_opts_read(&r, sizeof r, record, "cb_access_record") < 0) return;
    if (cb_access_line(&log->lines, &r) < 0) {
        log->dropped++;
        return;
    }
    if (cb_alarm_at(&log->later) == CB_NEVER)
        write_later(log, FLUSH_MS);
    else if (log->lines.len >= FLUSH_AT)
        write_out(log);
}

int cb_access_log_reopen(cb_access_log *log) {
    int fd = open_path(log);
    if (fd < 0) return fd;
    write_out(log);
    close(log->fd);
    use_fd(log, fd);
    return CB_OK;
}

uint64_t cb_access_log_dropped(const cb_access_log *log) {
    return log->dropped;
}

static void bury(cb_grave *grave) {
    cb_access_log *log = CB_CONTAINER(grave, cb_access_log, grave);
    cb_buf_free(&log->lines);
    cb_mem_free(log->alloc, log->path);
    cb_mem_free(log->alloc, log);
}

void cb_access_log_free(cb_access_log *log) {
    if (!log) return;
    write_out(log);
    cb_alarm_stop(&log->later);
    close(log->fd);
    log->fd = -1;
    cb_loop_bury(log->loop, &log->grave, bury);
}
