/* cb/access_log.h - one line for each exchange, appended to a file: JSON with fields of one's choice, or the text form
 * that web servers call "combined".
 *
 * Secrets do not get in unless asked for: of fields such as Authorization, Cookie and Set-Cookie only REDACTED is
 * shown, and so are values of URLs' parameters whose names look like a token, key, password, session or signature.
 *
 * A log belongs to one loop: lines are gathered in memory for some milliseconds and leave in one append, which is all
 * that a loop ever waits for. Several logs (one a worker) may append to one file: each write holds whole lines. What
 * does not fit while the file cannot be written is dropped and counted, and a line says how much. */
#ifndef CB_ACCESS_LOG_H
#define CB_ACCESS_LOG_H

#include <cb/http.h>

CB_BEGIN

typedef struct cb_access_log cb_access_log;

typedef struct cb_access_log_opts {
    size_t size;
    const char *path;          /* "-" is standard output; required */
    uint32_t buffer_bytes;     /* kept while the file cannot be written; 0 = 1 MiB */
    uint32_t mode;             /* of a new file; 0 = 0640 */
    const char *const *fields; /* what a line has, in this order: names from below; "request.NAME" and
                                * "response.NAME" for a field of the message; "NAME=AS" calls it AS. JSON only. NULL =
                                * those named first below */
    size_t n_fields;           /* at most CB_ACCESS_FIELDS */
    int32_t format;            /* enum cb_access_format */
    uint32_t one_in;      /* one line in so many is written, and all of exchanges that failed (a reason, or a status
                           * of 500 and above); 0 = all */
    uint8_t show_secrets; /* 1: nothing is hidden */
    uint8_t reserved[7];
} cb_access_log_opts;

enum cb_access_format {
    CB_ACCESS_JSON = 0,    /* one object a line */
    CB_ACCESS_COMBINED = 1 /* remote - subject [time] "request" status bytes "referer" "user agent" */
};

enum { CB_ACCESS_FIELDS = 64 };

/* The names of fields. When nothing is chosen: time, remote, method, host, path (with query), status, version,
 * bytes_in, bytes_out, duration_ms, route, origin, reason, request_id, trace_id, span_id, subject, tenant, auth,
 * auth_reason, auth_rule. Beside these: local, scheme, sni, tls_version, tls_cipher, tls_resumed, early, retries,
 * pattern, and of enum cb_access_phase head_ms, auth_ms, wait_ms, connect_ms, first_byte_ms, body_ms. What is empty, or
 * did not happen, is left out of a line. */

/* Parts of the time that an exchange took. */
enum cb_access_phase {
    CB_ACCESS_HEAD = 0,       /* from its first byte to the end of the request's head */
    CB_ACCESS_AUTH = 1,       /* then until it was let in (or refused) */
    CB_ACCESS_WAIT = 2,       /* for a connection to an origin that was there, or being opened for others */
    CB_ACCESS_CONNECT = 3,    /* the opening of its own connection to the origin: TCP or QUIC, and TLS */
    CB_ACCESS_FIRST_BYTE = 4, /* from the request's head going out to the response's head */
    CB_ACCESS_BODY = 5,       /* from the response's head to the end */
    CB_ACCESS_PHASES = 6
};

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
    const char *pattern;          /* host and path of the route, as configured */
    const char *local;            /* "address:port" of our side */
    const char *sni, *tls_version, *tls_cipher;
    cb_slice scheme;
    cb_slice trace_id, span_id;                       /* in hexadecimal */
    const cb_field *request_fields, *response_fields; /* names in lower case */
    size_t n_request_fields, n_response_fields;
    uint64_t phase_us[CB_ACCESS_PHASES];
    uint32_t phases; /* which of these happened: bits 1 << enum cb_access_phase */
    uint32_t retries;
    uint8_t tls_resumed, early;
    uint8_t reserved[6];
} cb_access_record;

/* Are these good options? Opens nothing; for checks of a configuration. CB_EINVAL (the detail says what), CB_ENOMEM,
 * CB_E2BIG. */
CB_API int cb_access_log_check(const cb_access_log_opts *opts);
/* Opens the file (made when absent) for appending. CB_EINVAL (out, loop; the detail names the option), CB_ENOENT (no
 * such folder), CB_EPERM, CB_ESYS (the detail names the path), CB_ENOMEM, CB_E2BIG. */
CB_API int cb_access_log_open(cb_access_log **out, cb_loop *loop, const cb_access_log_opts *opts);
/* Adds a line, or leaves it out (one_in). One that finds no room is dropped and counted. record->size must be set. */
CB_API void cb_access_log_add(cb_access_log *log, const cb_access_record *record);
/* Opens the path again (after rotation moved the file). On failure the old file stays. Errors as on opening. */
CB_API int cb_access_log_reopen(cb_access_log *log);
/* How many lines were dropped since the log was opened. */
CB_API uint64_t cb_access_log_dropped(const cb_access_log *log);

typedef struct cb_access_log_stats {
    size_t size;       /* set by the caller */
    uint64_t lines;    /* that found room */
    uint64_t left_out; /* by one_in */
    uint64_t dropped;
    uint64_t written_bytes, waiting_bytes;
    uint64_t failures; /* writes that failed */
} cb_access_log_stats;

/* CB_EINVAL (out, size). */
CB_API int cb_access_log_stats_get(const cb_access_log *log, cb_access_log_stats *out);
/* Writes what can be written now. NULL is fine. */
CB_API void cb_access_log_free(cb_access_log *log);

CB_END
#endif
