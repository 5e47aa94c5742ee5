/* cb/log_writer.h - where log lines go: a file, standard error, or syslog; as text, JSON lines or RFC 5424.
 *
 * A writer has a cb_log hook for any number of objects and threads. Lines wait in memory and a thread of the writer's
 * own writes them, so that a full disk or a reader that sleeps costs lines, which are counted, and never anybody's
 * time. Levels are set for each module, also while it runs.
 *
 * Threads. Everything here is thread-safe, but for what cb_log_writer_swap() says. Free a writer after all objects that
 * have its hook. */
#ifndef CB_LOG_WRITER_H
#define CB_LOG_WRITER_H

#include <cb/metrics.h>

CB_BEGIN

typedef struct cb_log_writer cb_log_writer;

enum cb_log_format {
    CB_LOG_TEXT = 0, /* 2026-11-25T21:08:38.123Z warn quic: the line */
    CB_LOG_JSON = 1, /* {"time":"...","level":"warn","module":"quic","text":"the line"} */
    CB_LOG_RFC5424 = 2
};

typedef struct cb_log_writer_opts {
    size_t size;
    const char *target;    /* a file; "-" = standard error; "syslog" = /dev/log, "udp:ADDRESS:PORT": always RFC 5424 */
    const char *levels;    /* "info", "warn,quic=debug,http=error": of modules, and of all others; NULL = "info" */
    const char *app_name;  /* of RFC 5424: printable ASCII, at most 48 bytes; NULL = "libcb" */
    int32_t format;        /* enum cb_log_format */
    uint32_t buffer_bytes; /* of lines that wait; 0 = 1 MiB, at most 64 MiB */
    uint32_t mode;         /* of a new file; 0 = 0640 */
    uint32_t facility;     /* of RFC 5424, 1 to 23; 0 = 3, daemons */
} cb_log_writer_opts;

/* CB_EINVAL (out; the detail names the option), CB_ENOENT (no such folder or socket), CB_EPERM, CB_ESYS, CB_ENOMEM,
 * CB_E2BIG. */
CB_API int cb_log_writer_open(cb_log_writer **out, const cb_log_writer_opts *opts);
/* Would that open? Checks the options and the target, and makes nothing. Errors as cb_log_writer_open(). */
CB_API int cb_log_writer_check(const cb_log_writer_opts *opts);
/* The hook. Its `level` is the least of all modules'. Lives as long as the writer. */
CB_API const cb_log *cb_log_writer_hook(const cb_log_writer *w);
/* Sets levels as in `levels` of the options: all at once, or nothing. A module that is not named has that of all
 * others. CB_EINVAL (w; what is wrong in the text), CB_ELIMIT (more than 32 modules). */
CB_API int cb_log_writer_levels(cb_log_writer *w, const char *levels);
/* The levels as text, for people: "info,quic=debug". Returns its length, or CB_ELIMIT (cap bytes with its NUL). */
CB_API int64_t cb_log_writer_levels_text(cb_log_writer *w, char *out, size_t cap);
/* Exchanges what two writers are: targets, formats, levels, lines that wait. Hooks stay where they are and may be in
 * use, and cb_log_writer_reopen() may run on `a`; no other call may run on either. So what logs to `a` goes to the
 * target of a `b` that was just opened, and freeing `b` writes what the old target still has to get: no line is lost,
 * nothing can fail. */
CB_API void cb_log_writer_swap(cb_log_writer *a, cb_log_writer *b);
/* Opens a file again (after rotation moved it). On failure the old one stays. Errors as on opening. */
CB_API int cb_log_writer_reopen(cb_log_writer *w);

typedef struct cb_log_writer_stats {
    size_t size;      /* set by the caller */
    uint64_t lines;   /* that found room */
    uint64_t dropped; /* that did not, or could not be written */
    uint64_t waiting_bytes;
} cb_log_writer_stats;

/* CB_EINVAL (w, out, size). */
CB_API int cb_log_writer_stats_get(cb_log_writer *w, cb_log_writer_stats *out);
/* Shows its statistics in a registry from now on, as the families cb_log_* of docs/metrics.md with this
 * value of their label "name" (NULL = ""), until it is freed. Once. CB_EINVAL, CB_EEXIST, CB_ENOMEM. */
CB_API int cb_log_writer_metrics(cb_log_writer *w, cb_metrics *m, const char *name);
/* Waits until everything that was logged before is written, at most timeout_ms. CB_ETIMEOUT. */
CB_API int cb_log_writer_flush(cb_log_writer *w, uint32_t timeout_ms);
/* Writes what can be written within a second. NULL is fine. */
CB_API void cb_log_writer_free(cb_log_writer *w);

CB_END
#endif
