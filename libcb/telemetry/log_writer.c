#include "base/addr.h"
#include "base/date.h"
#include "base/error.h"
#include "base/mem.h"
#include "base/opts.h"
#include "base/thread.h"
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

struct cb_log_writer {
    cb_log hook;
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

/* With the lock held. */
static void levels_use(cb_log_writer *w, const levels *l) {
    int least = CB_LOG_OFF;
    w->levels = *l;
    for (size_t i = 0; i < l->n; i++)
        if (l->at[i].level < least) least = l->at[i].level;
    __atomic_store_n(&w->hook.level, least, __ATOMIC_RELAXED);
}

int cb_log_writer_levels(cb_log_writer *w, const char *text) {
    levels l;
    if (!w) return cb_fail(CB_EINVAL, "cb_log_writer_levels: w is needed");
    int rc = levels_read(&l, text);
    if (rc < 0) return rc;
    pthread_mutex_lock(&w->lock);
    levels_use(w, &l);
    pthread_mutex_unlock(&w->lock);
    return CB_OK;
}

int64_t cb_log_writer_levels_text(cb_log_writer *w, char *out, size_t cap) {
    pthread_mutex_lock(&w->lock);
    levels l = w->levels;
    pthread_mutex_unlock(&w->lock);
    size_t len = 0;
    for (size_t i = 0; i < l.n; i++) {
        int n = snprintf(len < cap ? out + len : NULL, len < cap ? cap - len : 0, "%s%s%s%s", i ? "," : "",
                         l.at[i].name, i ? "=" : "", names[l.at[i].level]);
        len += (size_t)n;
    }
    return len < cap ? (int64_t)len : cb_fail(CB_ELIMIT, "log levels take %zu bytes", len + 1);
}

/* ---- lines ---- */

static int put_text(cb_buf *out, const cb_log_writer *w, const line *l) {
    (void)w;
    int rc = cb_buf_printf(out, "%s %s %s: ", l->when, names[l->level], l->module);
    return rc < 0 ? rc : cb_text_clean(out, cb_slice_str(l->text), TEXT_MAX);
}

static int put_json(cb_buf *out, const cb_log_writer *w, const line *l) {
    (void)w;
    int rc = cb_buf_printf(out, "{\"time\":\"%s\",\"level\":\"%s\",\"module\":", l->when, names[l->level]);
    if (rc >= 0) rc = cb_text_json(out, cb_slice_str(l->module), MODULE_BYTES);
    if (rc >= 0) rc = cb_buf_text(out, ",\"text\":");
    if (rc >= 0) rc = cb_text_json(out, cb_slice_str(l->text), TEXT_MAX);
    return rc < 0 ? rc : cb_buf_text(out, "}");
}

static int put_rfc5424(cb_buf *out, const cb_log_writer *w, const line *l) {
    static const unsigned severities[] = {[CB_LOG_DEBUG] = 7, [CB_LOG_INFO] = 6, [CB_LOG_WARN] = 4, [CB_LOG_ERROR] = 3};
    int rc = cb_buf_printf(out, "<%u>1 %s %s %s %ld %.*s - ", w->facility * 8 + severities[l->level], l->when, w->host,
                           w->app, (long)getpid(), 32, l->module);
    return rc < 0 ? rc : cb_text_clean(out, cb_slice_str(l->text), TEXT_MAX);
}

static int (*const formats[])(cb_buf *, const cb_log_writer *, const line *) = {
    [CB_LOG_TEXT] = put_text, [CB_LOG_JSON] = put_json, [CB_LOG_RFC5424] = put_rfc5424};

/* One line, all or nothing; with the lock held. */
static bool put_line(cb_log_writer *w, int level, const char *module, const char *text) {
    struct timespec now;
    line l = {.level = level, .module = module, .text = text};
    size_t before = w->lines.len;
    clock_gettime(CLOCK_REALTIME, &now);
    cb_date_text(l.when, (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000);
    int rc = formats[w->format](&w->lines, w, &l);
    if (rc >= 0) rc = cb_buf_add(&w->lines, "\n", 1);
    if (rc < 0) w->lines.len = before;
    return rc >= 0;
}

/* A line that found no room is made up for by one that counts. */
static void tell_drops(cb_log_writer *w) {
    char text[80];
    if (w->dropped == 0) return;
    snprintf(text, sizeof text, "%llu lines were dropped", (unsigned long long)w->dropped);
    if (put_line(w, CB_LOG_WARN, "log", text)) w->dropped = 0;
}

static void drop(cb_log_writer *w, uint64_t n) {
    w->dropped += n;
    w->stats.dropped += n;
}

static void write_hook(int level, const char *module, const char *text, void *user) {
    cb_log_writer *w = user;
    if (level < CB_LOG_DEBUG || level >= CB_LOG_OFF) return;
    pthread_mutex_lock(&w->lock);
    if (level >= level_for(&w->levels, module)) {
        tell_drops(w);
        if (w->dropped == 0 && put_line(w, level, module, text))
            w->stats.lines++;
        else
            drop(w, 1);
        pthread_cond_signal(&w->work);
    }
    pthread_mutex_unlock(&w->lock);
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

static int open_target(const cb_log_writer *w) {
    if (is_syslog(w->target)) return open_socket(w->target);
    int fd = strcmp(w->target, "-") == 0
                 ? fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3)
                 : open(w->target, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NONBLOCK, w->mode);
    return fd < 0 ? cb_fail_errno(errno, "log %s", w->target) : fd;
}

static int64_t monotonic_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* Writes a piece that does not make the thread wait for ever: a line to a socket, up to PIECE bytes elsewhere. Returns
 * how much is done with, or 0 for another try. */
static size_t write_piece(const cb_log_writer *w, cb_slice rest, uint64_t *lost) {
    const uint8_t *end = memchr(rest.base, '\n', rest.len);
    struct pollfd p = {.fd = w->fd, .events = POLLOUT};
    if (is_syslog(w->target)) { /* a datagram each; what the other side does not take is lost */
        size_t len = end ? (size_t)(end - rest.base) : rest.len;
        if (send(w->fd, rest.base, len, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) ++*lost;
        return len + 1;
    }
    if (poll(&p, 1, RETRY_MS) <= 0) return 0;
    ssize_t n = write(w->fd, rest.base, rest.len < PIECE ? rest.len : PIECE);
    if (n > 0) return (size_t)n;
    if (n < 0 && errno != EINTR) poll(NULL, 0, RETRY_MS); /* a full disk, a reader that is gone */
    return 0;
}

/* The new file begins with a whole line: the rest of one that was under way is lost. Returns how much that is. */
static size_t change_fd(cb_log_writer *w, cb_slice rest, bool begun) {
    close(w->fd);
    w->fd = w->next_fd;
    w->next_fd = -1;
    if (!begun || rest.len == 0 || rest.base[-1] == '\n') return 0;
    const uint8_t *end = memchr(rest.base, '\n', rest.len);
    drop(w, 1);
    return end ? (size_t)(end - rest.base) + 1 : rest.len;
}

static void *run(void *user) {
    cb_log_writer *w = user;
    cb_buf mine;
    size_t at = 0;
    int64_t last = INT64_MAX; /* when to give up */
    cb_buf_init(&mine, heap, w->lines.max);
    pthread_mutex_lock(&w->lock);
    for (;;) {
        if (w->next_fd >= 0) at += change_fd(w, (cb_slice){mine.base + at, mine.len - at}, at > 0);
        if (w->ending && last == INT64_MAX) last = monotonic_ms() + LINGER_MS;
        if (at == mine.len) {
            cb_buf swap = mine;
            at = 0;
            mine = w->lines;
            w->lines = swap;
            w->lines.len = 0;
            tell_drops(w);
            w->busy = mine.len > 0;
        }
        if (!w->busy) {
            pthread_cond_broadcast(&w->idle);
            if (w->ending) break;
            if (w->lines.len == 0) pthread_cond_wait(&w->work, &w->lock);
            continue;
        }
        pthread_mutex_unlock(&w->lock);
        uint64_t lost = 0;
        at += write_piece(w, (cb_slice){mine.base + at, mine.len - at}, &lost);
        if (at > mine.len) at = mine.len;
        bool late = monotonic_ms() >= last;
        pthread_mutex_lock(&w->lock);
        drop(w, lost);
        if (late) break;
    }
    pthread_mutex_unlock(&w->lock);
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
static void name_host(cb_log_writer *w) {
    if (gethostname(w->host, sizeof w->host - 1) < 0) w->host[0] = '\0';
    for (char *p = w->host; *p; p++)
        if (*p < 0x21 || *p > 0x7E) *p = '?';
    if (!w->host[0]) strcpy(w->host, "-");
}

int cb_log_writer_open(cb_log_writer **out, const cb_log_writer_opts *opts) {
    cb_log_writer_opts o;
    levels l;
    int rc = cb_opts_read(&o, sizeof o, opts, "cb_log_writer_opts");
    if (rc < 0) return rc;
    if (!out) return cb_fail(CB_EINVAL, "cb_log_writer_open: out is needed");
    if ((rc = check(&o)) < 0 || (rc = levels_read(&l, o.levels)) < 0) return rc;
    cb_log_writer *w = cb_mem_new(heap, sizeof *w);
    if (!w || !(w->target = cb_mem_text(heap, o.target))) {
        cb_mem_free(heap, w);
        return cb_fail(CB_ENOMEM, "no memory for a log");
    }
    w->hook = (cb_log){.write = write_hook, .user = w};
    w->format = is_syslog(o.target) ? CB_LOG_RFC5424 : o.format;
    w->facility = o.facility ? o.facility : DAEMONS;
    w->mode = o.mode ? (mode_t)o.mode : 0640;
    w->next_fd = -1;
    snprintf(w->app, sizeof w->app, "%s", o.app_name && *o.app_name ? o.app_name : "libcb");
    name_host(w);
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->work, NULL);
    pthread_cond_init(&w->idle, NULL);
    levels_use(w, &l);
    cb_buf_init(&w->lines, heap, o.buffer_bytes ? o.buffer_bytes : BUFFER);
    rc = w->fd = open_target(w);
    if (rc >= 0 && (rc = cb_thread_start(&w->thread, "cb-log", run, w)) < 0) close(w->fd);
    if (rc < 0) {
        cb_mem_free(heap, w->target);
        cb_mem_free(heap, w);
        return rc;
    }
    *out = w;
    return CB_OK;
}

const cb_log *cb_log_writer_hook(const cb_log_writer *w) {
    return &w->hook;
}

int cb_log_writer_reopen(cb_log_writer *w) {
    if (!w) return cb_fail(CB_EINVAL, "cb_log_writer_reopen: w is needed");
    int fd = open_target(w);
    if (fd < 0) return fd;
    pthread_mutex_lock(&w->lock);
    if (w->next_fd >= 0) close(w->next_fd);
    w->next_fd = fd;
    pthread_cond_signal(&w->work);
    pthread_mutex_unlock(&w->lock);
    return CB_OK;
}

int cb_log_writer_stats_get(cb_log_writer *w, cb_log_writer_stats *out) {
    if (!w) return cb_fail(CB_EINVAL, "cb_log_writer_stats_get: w is needed");
    pthread_mutex_lock(&w->lock);
    cb_log_writer_stats all = w->stats;
    all.waiting_bytes = w->lines.len;
    pthread_mutex_unlock(&w->lock);
    return cb_stats_give(out, &all, sizeof all, "cb_log_writer_stats");
}

int cb_log_writer_flush(cb_log_writer *w, uint32_t timeout_ms) {
    struct timespec until;
    int err = 0;
    if (!w) return cb_fail(CB_EINVAL, "cb_log_writer_flush: w is needed");
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += timeout_ms / 1000;
    until.tv_nsec += (long)(timeout_ms % 1000) * 1000000;
    if (until.tv_nsec >= 1000000000) until.tv_sec++, until.tv_nsec -= 1000000000;
    pthread_mutex_lock(&w->lock);
    pthread_cond_signal(&w->work);
    while ((w->lines.len > 0 || w->busy) && !err)
        err = pthread_cond_timedwait(&w->idle, &w->lock, &until);
    pthread_mutex_unlock(&w->lock);
    return err ? cb_fail(CB_ETIMEOUT, "log %s: not everything was written in %u ms", w->target, timeout_ms) : CB_OK;
}

void cb_log_writer_free(cb_log_writer *w) {
    if (!w) return;
    pthread_mutex_lock(&w->lock);
    w->ending = true;
    pthread_cond_signal(&w->work);
    pthread_mutex_unlock(&w->lock);
    pthread_join(w->thread, NULL);
    close(w->fd);
    if (w->next_fd >= 0) close(w->next_fd);
    cb_buf_free(&w->lines);
    pthread_cond_destroy(&w->work);
    pthread_cond_destroy(&w->idle);
    pthread_mutex_destroy(&w->lock);
    cb_mem_free(heap, w->target);
    cb_mem_free(heap, w);
}
