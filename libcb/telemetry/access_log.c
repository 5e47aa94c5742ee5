#include "base/error.h"
#include "base/mem.h"
#include "base/opts.h"
#include "loop/loop_int.h"
#include "loop/turn.h"
#include "telemetry/access_line.h"
#include "telemetry/access_log_int.h"
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
    cb_access_plan plan;
    cb_buf lines;
    uint64_t lot; /* a linear congruential sequence: which lines are written */
    uint32_t one_in;
    cb_access_log_stats stats;
    cb_alarm later; /* when to write: soon after the first line, or when to try again */
    cb_grave grave;
    uint64_t told; /* of stats.dropped, in the file already */
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
    const bool json = log->plan.format == CB_ACCESS_JSON;
    if (log->stats.dropped == log->told) return;
    if (cb_buf_printf(&log->lines, json ? "{\"dropped_lines\":%" PRIu64 "}\n" : "# %" PRIu64 " dropped lines\n",
                      log->stats.dropped - log->told) == CB_OK)
        log->told = log->stats.dropped;
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
    log->stats.failures += bad;
    if (bad) cb_cells_add(cb_loop_cells(log->loop), CB_C_ACCESS_FAILURES, 1);
    if (n > 0) {
        log->stats.written_bytes += (uint64_t)n;
        cb_cells_add(cb_loop_cells(log->loop), CB_C_ACCESS_BYTES, (uint64_t)n);
        cb_buf_drop(&log->lines, (size_t)n);
    }
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

static int read_opts(cb_access_log_opts *o, const cb_access_log_opts *opts) {
    int rc = cb_opts_read(o, sizeof *o, opts, "cb_access_log_opts");
    if (rc < 0) return rc;
    return o->path && *o->path ? CB_OK : cb_fail(CB_EINVAL, "cb_access_log_opts: path is missing");
}

int cb_access_log_check(const cb_access_log_opts *opts) {
    cb_access_log_opts o;
    cb_access_plan plan;
    int rc = read_opts(&o, opts);
    if (rc == CB_OK) rc = cb_access_plan_make(&plan, &cb_alloc_libc, &o);
    if (rc == CB_OK) cb_access_plan_free(&plan);
    return rc;
}

int cb_access_log_open(cb_access_log **out, cb_loop *loop, const cb_access_log_opts *opts) {
    if (!out || !loop) return cb_fail(CB_EINVAL, "cb_access_log_open: %s is NULL", !out ? "out" : "loop");
    cb_access_log_opts o;
    int rc = read_opts(&o, opts);
    if (rc < 0) return rc;
    const cb_alloc *alloc = cb_loop_alloc(loop);
    cb_access_log *log = cb_mem_new(alloc, sizeof *log);
    if (!log) return cb_fail(CB_ENOMEM, "no memory for an access log");
    log->loop = loop;
    log->alloc = alloc;
    log->mode = o.mode ? (mode_t)o.mode : 0640;
    cb_buf_init(&log->lines, alloc, o.buffer_bytes ? o.buffer_bytes : BUFFER_DEFAULT);
    cb_alarm_init(&log->later, loop, on_later);
    log->one_in = o.one_in;
    log->lot = cb_loop_now(loop);
    rc = cb_access_plan_make(&log->plan, alloc, &o);
    log->path = rc == CB_OK ? cb_mem_text(alloc, o.path) : NULL;
    if (rc == CB_OK) rc = log->path ? open_path(log) : cb_fail(CB_ENOMEM, "no memory for an access log");
    if (rc < 0) {
        cb_access_plan_free(&log->plan);
        cb_mem_free(alloc, log->path);
        cb_mem_free(alloc, log);
        return rc;
    }
    use_fd(log, rc);
    *out = log;
    return CB_OK;
}

/* Those that failed are all kept. */
static bool left_out(cb_access_log *log, const cb_access_record *r) {
    if (log->one_in < 2 || r->reason || r->status >= 500) return false;
    log->lot = log->lot * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (log->lot >> 32) % log->one_in != 0;
}

void cb_access_log_add(cb_access_log *log, const cb_access_record *record) {
    cb_access_record r;
    if (cb_opts_read(&r, sizeof r, record, "cb_access_record") < 0) return;
    if (left_out(log, &r)) {
        log->stats.left_out++;
        cb_cells_add(cb_loop_cells(log->loop), CB_C_ACCESS_LINES_LEFT_OUT, 1);
        return;
    }
    if (cb_access_line(&log->lines, &log->plan, &r) < 0) {
        log->stats.dropped++;
        cb_cells_add(cb_loop_cells(log->loop), CB_C_ACCESS_LINES_DROPPED, 1);
        return;
    }
    log->stats.lines++;
    cb_cells_add(cb_loop_cells(log->loop), CB_C_ACCESS_LINES_TAKEN, 1);
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
    return log->stats.dropped;
}

int cb_access_log_stats_get(const cb_access_log *log, cb_access_log_stats *out) {
    cb_access_log_stats now = log->stats;
    now.waiting_bytes = log->lines.len;
    return cb_stats_give(out, &now, sizeof now, "cb_access_log_stats");
}

const char *const *cb_access_log_response_fields(const cb_access_log *log, size_t *n) {
    *n = log->plan.n_response;
    return log->plan.response;
}

static void bury(cb_grave *grave) {
    cb_access_log *log = CB_CONTAINER(grave, cb_access_log, grave);
    cb_buf_free(&log->lines);
    cb_access_plan_free(&log->plan);
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
