/* cb/access_log.h - one JSON line for each exchange, appended to a file.
 *
 * A log belongs to one loop: lines are gathered in memory for some milliseconds and leave in one append, which is all
 * that a loop ever waits for. Several logs (one a worker) may append to one file: each write holds whole lines. What
 * does not fit while the file cannot be written is dropped and counted, and a line says how much. */
#ifndef CB_ACCESS_LOG_H
#define CB_ACCESS_LOG_H

#include <cb/loop.h>

CB_BEGIN

typedef struct cb_access_log cb_access_log;

typedef struct cb_access_log_opts {
    size_t size;
    const char *path;      /* "-" is standard output; required */
    uint32_t buffer_bytes; /* kept while the file cannot be written; 0 = 1 MiB */
    uint32_t mode;         /* of a new file; 0 = 0640 */
} cb_access_log_opts;

/* What is told about one exchange. Slices and texts need to live during cb_access_log_add() only; empty ones are left
 * out of the line. Bytes of the network are escaped. */
typedef struct cb_access_record {
    size_t size;
    int64_t time_ms; /* when the request began: milliseconds since 1970 */
    const char *remote;
    cb_slice method, host, path;
    const char *route;  /* name of the origin group */
    const char *origin; /* "address:port" or URL of the origin that answered */
    const char *reason; /* why it failed; NULL when it did not */
    cb_slice request_id;
    uint64_t bytes_in, bytes_out; /* bodies */
    uint64_t duration_us;
    int32_t status;               /* 0: none was sent */
    int32_t version;              /* enum cb_http_version */
    const char *subject, *tenant; /* who was let in; NULL = unknown */
    const char *auth;             /* the source of identities that knew them */
    const char *auth_reason;      /* why a gate refused; NULL when it did not */
    const char *auth_rule;        /* of a policy, that decided; NULL: none did */
} cb_access_record;

/* Opens the file (made when absent) for appending. CB_EINVAL (out, loop, path missing), CB_ENOENT (no such folder),
 * CB_EPERM, CB_ESYS (the detail names the path), CB_ENOMEM, CB_E2BIG. */
CB_API int cb_access_log_open(cb_access_log **out, cb_loop *loop, const cb_access_log_opts *opts);
/* Adds a line. One that finds no room is dropped and counted. record->size must be set. */
CB_API void cb_access_log_add(cb_access_log *log, const cb_access_record *record);
/* Opens the path again (after rotation moved the file). On failure the old file stays. Errors as on opening. */
CB_API int cb_access_log_reopen(cb_access_log *log);
/* How many lines were dropped since the log was opened. */
CB_API uint64_t cb_access_log_dropped(const cb_access_log *log);
/* Writes what can be written now. NULL is fine. */
CB_API void cb_access_log_free(cb_access_log *log);

CB_END
#endif
