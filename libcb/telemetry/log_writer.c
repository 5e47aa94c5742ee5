#include "base/addr.h"
#include "base/date.h"
#include "base/error.h"
#include "base/mem.h"
#include "base/opts.h"
#include "base/thread.h"
#include "telemetry/shown.h"
#include "telemetry/text.h"
#include <cb/log_writer.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum {
    BUFFER = 1 << 20,
    BUFFER_MOST = 64 << 20,
    MODULES = 32,
    MODULE_BYTES = 24,
    APP_BYTES = 48,
    TEXT_MAX = 4096,
    PIECE = PIPE_BUF, /* a pipe that polls writable takes so much without waiting */
    RETRY_MS = 200,
    LINGER_MS = 1000,
    DAEMONS = 3
};
static const cb_alloc *const heap = &cb_alloc_libc;

typedef struct module_level {
    char name[MODULE_BYTES];
    int32_t level;
} module_level;

/* Levels as a whole: the first is that of all modules that are not named. */
typedef struct levels {
    module_level at[1 + MODULES];
    size_t n;
} levels;

typedef struct line {
    int level;
    const char *module, *text;
    char when[CB_DATE_BYTES];
} line;

/* A target with its thread. */
typedef struct sink {
    char *target;
    char app[APP_BYTES + 1], host[256];
    int32_t format;
    uint32_t facility;
    mode_t mode;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t work, idle;
    levels levels;
    cb_buf lines;      /* that wait */
    bool busy, ending; /* busy: the thread has lines that are not written yet */
    int fd;
    int next_fd;      /* to be used from now on; -1 = none */
    uint64_t dropped; /* since the last line that said so */
    cb_log_writer_stats stats;
} sink;

struct cb_log_writer {
    cb_log hook;
    cb_shown *shown;      /* NULL: in no registry */
    pthread_mutex_t lock; /* of `sink`: lines find the one that cb_log_writer_swap() has given */
    sink *sink;
};

/* ---- levels ---- */

static const char *const names[] = {"default", "debug", "info", "warn", "error", "off"};

static int level_of(const char *text, size_t len) {
    for (int i = CB_LOG_DEBUG; i <= CB_LOG_OFF; i++)
        if (strlen(names[i]) == len && strncasecmp(text, names[i], len) == 0) return i;
    return CB_ENOENT;
}

static int level_add(levels *out, const char *item, size_t len) {
    const char *equals = memchr(item, '=', len);
    size_t name = equals ? (size_t)(equals - item) : 0, skip = equals ? name + 1 : 0;
    int level = level_of(item + skip, len - skip);
    if (level < 0)
        return cb_fail(CB_EINVAL, "log levels: \"%.*s\": a level is debug, info, warn, error or off", (int)len, item);
    if (!equals) {
        out->at[0].level = level;
        return CB_OK;
    }
    if (name == 0 || name >= MODULE_BYTES)
        return cb_fail(CB_EINVAL, "log levels: \"%.*s\": a module has 1 to %d bytes", (int)len, item, MODULE_BYTES - 1);
    if (out->n > MODULES) return cb_fail(CB_ELIMIT, "log levels: more than %d modules", MODULES);
    memcpy(out->at[out->n].name, item, name);
    out->at[out->n++].level = level;
    return CB_OK;
}

static int levels_read(levels *out, const char *text) {
    *out = (levels){.at[0].level = CB_LOG_INFO, .n = 1};
    int rc = CB_OK;
    while (text && *text && rc == CB_OK) {
        size_t len = strcspn(text, ",");
        rc = level_add(out, text, len);
        text += len + (text[len] == ',');
    }
    return rc;
}

static int level_for(const levels *l, const char *module) {
    for (size_t i = 1; i < l->n; i++)
        if (strcmp(l->at[i].name, module) == 0) return l->at[i].level;
    return l->at[0].level;
}

/* With the writer's lock held. */
static void hook_level(cb_log_writer *w) {
    const levels *l = &w->sink->levels;
    int least = CB_LOG_OFF;
    for (size_t i = 0; i < l->n; i++)
        if (l->at[i].level < least) least = l->at[i].level;
    __atomic_store_n(&w->hook.level, least, __ATOMIC_RELAXED);
}

static sink *sink_hold(cb_log_writer *w) {
    pthread_mutex_lock(&w->lock);
    pthread_mutex_lock(&w->sink->lock);
    return w->sink;
}

static void sink_let_go(cb_log_writer *w) {
    pthread_mutex_unlock(&w->sink->lock);
    pthread_mutex_unlock(&w->lock);
}

int cb_log_writer_levels(cb_log_writer *w, const char *text) {
    levels l;
    if (!w) return cb_fail(CB_EINVAL, "cb_log_writer_levels: w is needed");
    int rc = levels_read(&l, text);
    if (rc < 0) return rc;
    sink_hold(w)->levels = l;
    hook_level(w);
    sink_let_go(w);
    return CB_OK;
}

int64_t cb_log_writer_levels_text(cb_log_writer *w, char *out, size_t cap) {
    levels l = sink_hold(w)->levels;
    sink_let_go(w);
    size_t len = 0;
    for (size_t i = 0; i < l.n; i++) {
        int n = snprintf(len < cap ? out + len : NULL, len < cap ? cap - len : 0, "%s%s%s%s", i ? "," : "",
                         l.at[i].name, i ? "=" : "", names[l.at[i].level]);
        len += (size_t)n;
    }
    return len < cap ? (int64_t)len : cb_fail(CB_ELIMIT, "log levels take %zu bytes", len + 1);
}

/* ---- lines ---- */

static int put_text(cb_buf *out, const sink *s, const line *l) {
    (void)s;
    int rc = cb_buf_printf(out, "%s %s %s: ", l->when, names[l->level], l->module);
    return rc < 0 ? rc : cb_text_clean(out, cb_slice_str(l->text), TEXT_MAX);
}

static int put_json(cb_buf *out, const sink *s, const line *l) {
    (void)s;
    int rc = cb_buf_printf(out, "{\"time\":\"%s\",\"level\":\"%s\",\"module\":", l->when, names[l->level]);
    if (rc >= 0) rc = cb_text_json(out, cb_slice_str(l->module), MODULE_BYTES);
    if (rc >= 0) rc = cb_buf_text(out, ",\"text\":");
    if (rc >= 0) rc = cb_text_json(out, cb_slice_str(l->text), TEXT_MAX);
    return rc < 0 ? rc : cb_buf_text(out, "}");
}

static int put_rfc5424(cb_buf *out, const sink *s, const line *l) {
    static const unsigned severities[] = {[CB_LOG_DEBUG] = 7, [CB_LOG_INFO] = 6, [CB_LOG_WARN] = 4, [CB_LOG_ERROR] = 3};
    int rc = cb_buf_printf(out, "<%u>1 %s %s %s %ld %.*s - ", s->facility * 8 + severities[l->level], l->when, s->host,
                           s->app, (long)getpid(), 32, l->module);
    return rc < 0 ? rc : cb_text_clean(out, cb_slice_str(l->text), TEXT_MAX);
}

static int (*const formats[])(cb_buf *, const sink *, const line *) = {
    [CB_LOG_TEXT] = put_text, [CB_LOG_JSON] = put_json, [CB_LOG_RFC5424] = put_rfc5424};

/* One line, all or nothing; with the lock held. */
static bool put_line(sink *s, int level, const char *module, const char *text) {
    struct timespec now;
    line l = {.level = level, .module = module, .text = text};
    size_t before = s->lines.len;
    clock_gettime(CLOCK_REALTIME, &now);
    cb_date_text(l.when, (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000);
    int rc = formats[s->format](&s->lines, s, &l);
    if (rc >= 0) rc = cb_buf_add(&s->lines, "\n", 1);
    if (rc < 0) s->lines.len = before;
    return rc >= 0;
}

/* A line that found no room is made up for by one that counts. */
static void tell_drops(sink *s) {
    char text[80];
    if (s->dropped == 0) return;
    snprintf(text, sizeof text, "%llu lines were dropped", (unsigned long long)s->dropped);
    if (put_line(s, CB_LOG_WARN, "log", text)) s->dropped = 0;
}

static void drop(sink *s, uint64_t n) {
    s->dropped += n;
    s->stats.dropped += n;
}

static void write_hook(int level, const char *module, const char *text, void *user) {
    cb_log_writer *w = user;
    if (level < CB_LOG_DEBUG || level >= CB_LOG_OFF) return;
    sink *s = sink_hold(w);
    if (level >= level_for(&s->levels, module)) {
        tell_drops(s);
        if (s->dropped == 0 && put_line(s, level, module, text))
            s->stats.lines++;
        else
            drop(s, 1);
        pthread_cond_signal(&s->work);
    }
    sink_let_go(w);
}

/* ---- writing, on a thread of its own ---- */

static bool is_syslog(const char *target) {
    return strcmp(target, "syslog") == 0 || strncmp(target, "udp:", 4) == 0;
}

static int open_socket(const char *target) {
    enum { SYSLOG_PORT = 514 };
    struct sockaddr_un local = {.sun_family = AF_UNIX, .sun_path = "/dev/log"};
    cb_addr addr;
    bool here = strcmp(target, "syslog") == 0;
    int rc = here ? CB_OK : cb_addr_parse(&addr, target + 4, SYSLOG_PORT);
    if (rc < 0) return rc;
    int fd = socket(here ? AF_UNIX : addr.sa.sa_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return cb_fail_errno(errno, "log %s", target);
    const struct sockaddr *to = here ? (const struct sockaddr *)(void *)&local : &addr.sa;
    if (connect(fd, to, here ? sizeof local : cb_addr_len(&addr)) == 0) return fd;
    int err = errno;
    close(fd);
    return cb_fail_errno(err, "log %s", target);
}

static int open_target(const char *target, mode_t mode) {
    if (is_syslog(target)) return open_socket(target);
    int fd = strcmp(target, "-") == 0 ? fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3)
                                      : open(target, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NONBLOCK, mode);
    return fd < 0 ? cb_fail_errno(errno, "log %s", target) : fd;
}

static int64_t monotonic_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* Writes a piece that does not make the thread wait for ever: a line to a socket, up to PIECE bytes elsewhere. Returns
 * how much is done with, or 0 for another try. */
static size_t write_piece(const sink *s, cb_slice rest, uint64_t *lost) {
    const uint8_t *end = memchr(rest.base, '\n', rest.len);
    struct pollfd p = {.fd = s->fd, .events = POLLOUT};
    if (is_syslog(s->target)) { /* a datagram each; what the other side does not take is lost */
        size_t len = end ? (size_t)(end - rest.base) : rest.len;
        if (send(s->fd, rest.base, len, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) ++*lost;
        return len + 1;
    }
    if (poll(&p, 1, RETRY_MS) <= 0) return 0;
    ssize_t n = write(s->fd, rest.base, rest.len < PIECE ? rest.len : PIECE);
    if (n > 0) return (size_t)n;
    if (n < 0 && errno != EINTR) poll(NULL, 0, RETRY_MS); /* a full disk, a reader that is gone */
    return 0;
}

/* The new file begins with a whole line: the rest of one that was under way is lost. Returns how much that is. */
static size_t change_fd(sink *s, cb_slice rest, bool begun) {
    close(s->fd);
    s->fd = s->next_fd;
    s->next_fd = -1;
    if (!begun || rest.len == 0 || rest.base[-1] == '\n') return 0;
    const uint8_t *end = memchr(rest.base, '\n', rest.len);
    drop(s, 1);
    return end ? (size_t)(end - rest.base) + 1 : rest.len;
}

static void *run(void *user) {
    sink *s = user;
    cb_buf mine;
    size_t at = 0;
    int64_t last = INT64_MAX; /* when to give up */
    cb_buf_init(&mine, heap, s->lines.max);
    pthread_mutex_lock(&s->lock);
    for (;;) {
        if (s->next_fd >= 0) at += change_fd(s, (cb_slice){mine.base + at, mine.len - at}, at > 0);
        if (s->ending && last == INT64_MAX) last = monotonic_ms() + LINGER_MS;
        if (at == mine.len) {
            cb_buf swap = mine;
            at = 0;
            mine = s->lines;
            s->lines = swap;
            s->lines.len = 0;
            tell_drops(s);
            s->busy = mine.len > 0;
        }
        if (!s->busy) {
            pthread_cond_broadcast(&s->idle);
            if (s->ending) break;
            if (s->lines.len == 0) pthread_cond_wait(&s->work, &s->lock);
            continue;
        }
        pthread_mutex_unlock(&s->lock);
        uint64_t lost = 0;
        at += write_piece(s, (cb_slice){mine.base + at, mine.len - at}, &lost);
        if (at > mine.len) at = mine.len;
        bool late = monotonic_ms() >= last;
        pthread_mutex_lock(&s->lock);
        drop(s, lost);
        if (late) break;
    }
    pthread_mutex_unlock(&s->lock);
    cb_buf_free(&mine);
    return NULL;
}

/* ---- the interface ---- */

static int check(const cb_log_writer_opts *o) {
    if (!o->target || !*o->target) return cb_fail(CB_EINVAL, "cb_log_writer_opts: target is missing");
    if (o->format < CB_LOG_TEXT || o->format > CB_LOG_RFC5424)
        return cb_fail(CB_EINVAL, "cb_log_writer_opts: format %d", o->format);
    if (o->buffer_bytes > BUFFER_MOST)
        return cb_fail(CB_EINVAL, "cb_log_writer_opts: buffer_bytes above %d", BUFFER_MOST);
    if (o->facility > 23) return cb_fail(CB_EINVAL, "cb_log_writer_opts: facility %u; 23 is the last", o->facility);
    for (const char *p = o->app_name; p && *p; p++)
        if (*p < 0x21 || *p > 0x7E) return cb_fail(CB_EINVAL, "cb_log_writer_opts: app_name is printable ASCII");
    if (o->app_name && strlen(o->app_name) > APP_BYTES)
        return cb_fail(CB_EINVAL, "cb_log_writer_opts: app_name has more than %d bytes", APP_BYTES);
    return CB_OK;
}

/* A name as RFC 5424 has it; "-" where there is none. */
static void name_host(sink *s) {
    if (gethostname(s->host, sizeof s->host - 1) < 0) s->host[0] = '\0';
    for (char *p = s->host; *p; p++)
        if (*p < 0x21 || *p > 0x7E) *p = '?';
    if (!s->host[0]) strcpy(s->host, "-");
}

static void sink_free(sink *s) {
    cb_buf_free(&s->lines);
    pthread_cond_destroy(&s->work);
    pthread_cond_destroy(&s->idle);
    pthread_mutex_destroy(&s->lock);
    cb_mem_free(heap, s->target);
    cb_mem_free(heap, s);
}

static int sink_new(sink **out, const cb_log_writer_opts *o, const levels *l) {
    sink *s = cb_mem_new(heap, sizeof *s);
    if (!s || !(s->target = cb_mem_text(heap, o->target))) {
        cb_mem_free(heap, s);
        return cb_fail(CB_ENOMEM, "no memory for a log");
    }
    s->format = is_syslog(o->target) ? CB_LOG_RFC5424 : o->format;
    s->facility = o->facility ? o->facility : DAEMONS;
    s->mode = o->mode ? (mode_t)o->mode : 0640;
    s->next_fd = -1;
    s->levels = *l;
    snprintf(s->app, sizeof s->app, "%s", o->app_name && *o->app_name ? o->app_name : "libcb");
    name_host(s);
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->work, NULL);
    pthread_cond_init(&s->idle, NULL);
    cb_buf_init(&s->lines, heap, o->buffer_bytes ? o->buffer_bytes : BUFFER);
    int rc = s->fd = open_target(s->target, s->mode);
    if (rc >= 0 && (rc = cb_thread_start(&s->thread, "cb-log", run, s)) < 0) close(s->fd);
    if (rc < 0) {
        sink_free(s);
        return rc;
    }
    *out = s;
    return CB_OK;
}

static int read_opts(cb_log_writer_opts *o, levels *l, const cb_log_writer_opts *opts) {
    int rc = cb_opts_read(o, sizeof *o, opts, "cb_log_writer_opts");
    if (rc == CB_OK) rc = check(o);
    return rc < 0 ? rc : levels_read(l, o->levels);
}

int cb_log_writer_open(cb_log_writer **out, const cb_log_writer_opts *opts) {
    cb_log_writer_opts o;
    levels l;
    if (!out) return cb_fail(CB_EINVAL, "cb_log_writer_open: out is needed");
    int rc = read_opts(&o, &l, opts);
    if (rc < 0) return rc;
    cb_log_writer *w = cb_mem_new(heap, sizeof *w);
    if (!w) return cb_fail(CB_ENOMEM, "no memory for a log");
    if ((rc = sink_new(&w->sink, &o, &l)) < 0) {
        cb_mem_free(heap, w);
        return rc;
    }
    w->hook = (cb_log){.write = write_hook, .user = w};
    pthread_mutex_init(&w->lock, NULL);
    hook_level(w);
    *out = w;
    return CB_OK;
}

/* A file that is not there yet can be made when its folder lets us. */
static int check_file(const char *path) {
    const char *slash = strrchr(path, '/');
    int fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC | O_NONBLOCK);
    if (fd >= 0) close(fd);
    if (fd >= 0) return CB_OK;
    if (errno != ENOENT) return cb_fail_errno(errno, "log %s", path);
    char *folder = slash > path ? cb_mem_text(heap, path) : cb_mem_text(heap, slash ? "/" : ".");
    if (!folder) return cb_fail(CB_ENOMEM, "no memory for a path");
    if (slash > path) folder[slash - path] = '\0';
    bool bad = faccessat(AT_FDCWD, folder, W_OK | X_OK, AT_EACCESS) < 0;
    int err = errno;
    cb_mem_free(heap, folder);
    return bad ? cb_fail_errno(err, "log %s", path) : CB_OK;
}

int cb_log_writer_check(const cb_log_writer_opts *opts) {
    cb_log_writer_opts o;
    levels l;
    int rc = read_opts(&o, &l, opts);
    if (rc < 0 || strcmp(o.target, "-") == 0) return rc;
    if (!is_syslog(o.target)) return check_file(o.target);
    rc = open_socket(o.target);
    if (rc >= 0) close(rc);
    return rc < 0 ? rc : CB_OK;
}

const cb_log *cb_log_writer_hook(const cb_log_writer *w) {
    return &w->hook;
}

void cb_log_writer_swap(cb_log_writer *a, cb_log_writer *b) {
    if (a == b) return;
    cb_log_writer *first = (uintptr_t)a < (uintptr_t)b ? a : b, *second = first == a ? b : a;
    pthread_mutex_lock(&first->lock);
    pthread_mutex_lock(&second->lock);
    sink *of_a = a->sink;
    a->sink = b->sink;
    b->sink = of_a;
    hook_level(a);
    hook_level(b);
    pthread_mutex_unlock(&second->lock);
    pthread_mutex_unlock(&first->lock);
}

/* The target is opened without a lock, as its folder may hang: meanwhile another one may have come in its place, which
 * is as new. */
int cb_log_writer_reopen(cb_log_writer *w) {
    if (!w) return cb_fail(CB_EINVAL, "cb_log_writer_reopen: w is needed");
    const sink *asked = sink_hold(w);
    const mode_t mode = asked->mode;
    char *target = cb_mem_text(heap, asked->target);
    sink_let_go(w);
    if (!target) return cb_fail(CB_ENOMEM, "no memory for a log");
    int fd = open_target(target, mode);
    const int rc = fd < 0 ? fd : CB_OK;
    sink *s = sink_hold(w);
    if (fd >= 0 && strcmp(s->target, target) == 0) {
        const int before = s->next_fd;
        s->next_fd = fd;
        fd = before;
        pthread_cond_signal(&s->work);
    }
    sink_let_go(w);
    if (fd >= 0) close(fd);
    cb_mem_free(heap, target);
    return rc;
}

int cb_log_writer_stats_get(cb_log_writer *w, cb_log_writer_stats *out) {
    if (!w) return cb_fail(CB_EINVAL, "cb_log_writer_stats_get: w is needed");
    const sink *s = sink_hold(w);
    cb_log_writer_stats all = s->stats;
    all.waiting_bytes = s->lines.len;
    sink_let_go(w);
    return cb_stats_give(out, &all, sizeof all, "cb_log_writer_stats");
}

static int stats_for_metrics(void *w, void *out) {
    return cb_log_writer_stats_get(w, out);
}

int cb_log_writer_metrics(cb_log_writer *w, cb_metrics *m, const char *name) {
    static const cb_shown_row rows[] = {{CB_F_LOG_LINES, offsetof(cb_log_writer_stats, lines), NULL},
                                        {CB_F_LOG_DROPPED, offsetof(cb_log_writer_stats, dropped), NULL},
                                        {CB_F_LOG_WAITING, offsetof(cb_log_writer_stats, waiting_bytes), NULL}};
    static const cb_shown_what what = {rows, sizeof rows / sizeof *rows, sizeof(cb_log_writer_stats),
                                       stats_for_metrics};
    if (!w) return cb_fail(CB_EINVAL, "cb_log_writer_metrics: w is needed");
    return cb_shown_begin(&w->shown, m, name, &what, w);
}

int cb_log_writer_flush(cb_log_writer *w, uint32_t timeout_ms) {
    struct timespec until;
    int err = 0;
    if (!w) return cb_fail(CB_EINVAL, "cb_log_writer_flush: w is needed");
    sink *s = w->sink;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += timeout_ms / 1000;
    until.tv_nsec += (long)(timeout_ms % 1000) * 1000000;
    if (until.tv_nsec >= 1000000000) until.tv_sec++, until.tv_nsec -= 1000000000;
    pthread_mutex_lock(&s->lock);
    pthread_cond_signal(&s->work);
    while ((s->lines.len > 0 || s->busy) && !err)
        err = pthread_cond_timedwait(&s->idle, &s->lock, &until);
    pthread_mutex_unlock(&s->lock);
    return err ? cb_fail(CB_ETIMEOUT, "log %s: not everything was written in %u ms", s->target, timeout_ms) : CB_OK;
}

void cb_log_writer_free(cb_log_writer *w) {
    if (!w) return;
    cb_shown_end(w->shown);
    sink *s = w->sink;
    pthread_mutex_lock(&s->lock);
    s->ending = true;
    pthread_cond_signal(&s->work);
    pthread_mutex_unlock(&s->lock);
    pthread_join(s->thread, NULL);
    close(s->fd);
    if (s->next_fd >= 0) close(s->next_fd);
    sink_free(s);
    pthread_mutex_destroy(&w->lock);
    cb_mem_free(heap, w);
}
