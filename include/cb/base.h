/* cb/base.h - floor 0: results, byte slices, time, the allocator, option structs. Needs only libc.
 *
 * Conventions that every libcb header follows:
 *  - A function that can fail returns int (or int64_t): >= 0 is success, < 0 is one of enum cb_error.
 *  - cb_x_new(cb_x **out, ...) writes *out only on success; cb_x_free(NULL) does nothing.
 *  - Option structs begin with `size`; a zero field means its default (named beside the field).
 *  - const char * is configuration text (UTF-8, NUL-terminated); cb_slice is wire bytes.
 *  - A handle belongs to the loop (thread) that made it, unless its header says that it is shared. */
#ifndef CB_BASE_H
#define CB_BASE_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define CB_API __attribute__((visibility("default")))
#else
#define CB_API
#endif

#ifdef __cplusplus
#define CB_BEGIN extern "C" {
#define CB_END   }
#else
#define CB_BEGIN
#define CB_END
/* An options literal for a call: CB_OPTS(cb_loop_opts, .log = my_log). Unset fields are zero, which
 * means default. A convenience for C; C++ and foreign callers zero the struct and set `size`. */
#define CB_OPTS(type, ...) (&(const type){.size = sizeof(type), __VA_ARGS__})
#endif

CB_BEGIN

/* What went wrong. The values are frozen: new ones are added, none is renumbered. They are not errno
 * values. cb_last_error() has the detail a person needs. */
enum cb_error {
    CB_OK = 0,
    CB_EINVAL = -1,   /* an argument or a configuration value is not valid */
    CB_ENOMEM = -2,   /* the allocator returned NULL */
    CB_EAGAIN = -3,   /* not now: a queue or window is full, or nothing is there yet */
    CB_ECLOSED = -4,  /* the connection, stream or object is closed */
    CB_ETIMEOUT = -5, /* a time limit passed */
    CB_EPROTO = -6,   /* the peer broke the protocol */
    CB_ETLS = -7,     /* the TLS handshake or a certificate failed */
    CB_EAUTH = -8,    /* the peer is not who or what it must be */
    CB_EDNS = -9,     /* a name did not resolve */
    CB_ESYS = -10,    /* a system call failed; the detail carries errno's text */
    CB_ELIMIT = -11,  /* a configured limit was reached */
    CB_E2BIG = -12,   /* an options struct carries fields that this library does not know */
    CB_ENOTSUP = -13, /* not supported by this build, machine or peer */
    CB_EUSER = -14,   /* a callback of the user failed */
    CB_ENOENT = -15,  /* no such file, name or member */
    CB_EEXIST = -16,  /* it exists already; an address is in use */
    CB_EPERM = -17,   /* the process lacks the right to do this */
    CB_EUNREACH = -18 /* the peer cannot be reached: refused, reset while connecting, no route */
};

/* A name for rc, such as "CB_ETLS: TLS failed". Never NULL; static storage. Thread-safe. */
CB_API const char *cb_strerror(int rc);

/* The detail of this thread's last failure: what, where, and what to do. Never NULL; empty when
 * nothing has failed yet; valid until this thread's next failing call. */
CB_API const char *cb_last_error(void);

/* Sets this thread's detail (copied, long texts are cut) and returns rc: for callbacks that fail, and for libraries on
 * top of libcb. */
CB_API int cb_error_set(int rc, const char *detail);

/* The version of the loaded library: major << 16 | minor << 8 | patch. Thread-safe. */
CB_API uint32_t cb_version(void);

/* The same as text, "0.1.0". Static storage. Thread-safe. */
CB_API const char *cb_version_text(void);

/* Monotonic time in nanoseconds; the origin has no meaning outside the process. */
typedef uint64_t cb_time;

/* Bytes that somebody else owns. base may be NULL when len is 0. */
typedef struct cb_slice {
    const uint8_t *base;
    size_t len;
} cb_slice;

/* The slice of a NUL-terminated text, without the NUL; NULL gives the empty slice. */
CB_API cb_slice cb_slice_str(const char *text);

/* An allocator. One function serves all: realloc(NULL, n) allocates, realloc(p, 0) frees and returns
 * NULL. It is called on the thread of the object that was given it. */
typedef struct cb_alloc {
    void *(*realloc)(void *ptr, size_t size, void *user);
    void *user;
} cb_alloc;

/* How grave a log line is. */
enum cb_log_level {
    CB_LOG_DEFAULT = 0, /* in options: CB_LOG_INFO */
    CB_LOG_DEBUG = 1,
    CB_LOG_INFO = 2,
    CB_LOG_WARN = 3,
    CB_LOG_ERROR = 4,
    CB_LOG_OFF = 5
};

/* Where log lines go. libcb prints nothing by itself: with no hook, lines are not even formatted.
 * `module` names the part ("quic", "http", "proxy", ...); `text` is one line without a newline, with
 * bytes of the network escaped; both are valid during the call. The struct and `user` must outlive
 * every object that was given it. Called on the thread of that object. */
typedef struct cb_log {
    void (*write)(int level, const char *module, const char *text, void *user);
    void *user;
    int32_t level; /* enum cb_log_level; 0 = CB_LOG_INFO */
    uint32_t reserved;
} cb_log;

CB_END
#endif
