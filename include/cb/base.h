/* cb/base.h - floor 0: results, byte slices, time, the allocator, option structs. Needs only libc.
 *
 * Conventions that every libcb header follows:
 *  - Results. A function that can fail returns int (or int64_t): >= 0 is success, < 0 is one of enum cb_error, and
 *    cb_last_error() tells the detail. Beside the codes that a function lists, those that take an options struct can
 *    give CB_E2BIG and (size not set) CB_EINVAL, and those that make something CB_ENOMEM.
 *  - Outputs are written on success only. What makes an object (cb_x_new, _open, _listen, _connect, _start, _parse,
 *    _request) refuses NULL for what it needs with CB_EINVAL and names it; getters and void functions take a live
 *    handle for granted. cb_x_free(NULL) and cb_x_unref(NULL) do nothing.
 *  - Structs that a caller fills begin with `size`, so that they can grow at the end: set it to sizeof the struct. In
 *    options a field of zero means its default (named beside the field); fields called reserved stay zero. A library
 *    that is older than its caller answers CB_E2BIG to a field that it does not know and that is set. Options are read
 *    during the call: what they point to is copied unless "borrowed" or "referenced" stands beside it.
 *    C:      cb_loop_new(&loop, CB_OPTS(cb_loop_opts, .log = &log));
 *    C++:    cb_loop_opts o{}; o.size = sizeof o; o.log = &log;
 *    cffi:   o = ffi.new("cb_loop_opts *", {"size": ffi.sizeof("cb_loop_opts"), "log": log})
 *  - Tables of callbacks (_ops) begin with `size` too, are borrowed and must outlive what was given them; every member
 *    may be NULL. Callbacks run on the loop's thread. Unless a header says otherwise, a callback may free any object,
 *    its own as well: it is dead to the caller at once, its memory goes at the end of the turn, and on_close comes
 *    exactly once and last, so user data must live until then.
 *  - Statistics: the caller sets `size`; it becomes the number of bytes filled, and what this library does not know is
 *    zeroed.
 *  - Text. const char * is configuration text (UTF-8, NUL-terminated); cb_slice is wire bytes. What getters return is
 *    borrowed from the handle: it lives as long as the header says, and nobody frees it.
 *  - Units are in names: _ms, _s, _ns, _bytes. cb_time is monotonic nanoseconds.
 *  - Threads. A handle belongs to the loop (thread) that made it, unless its header says that it is shared. There is no
 *    global state: loops of several threads do not know of each other.
 *  - Processes. Every descriptor closes on exec, no call raises SIGPIPE, no signal's disposition is changed but by
 *    cb_loop_on_signal(). After fork() without exec, the child must not touch objects that exist. errno is not part of
 *    any result and is not kept. */
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
/* An options literal for a call, which lives as long as the enclosing block: CB_OPTS(cb_loop_opts, .log = &my_log).
 * Unset fields are zero, which means default. For C only; others see the conventions above. */
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

/* Sets this thread's detail (copied, cut at 1,023 bytes; NULL = none) and returns rc: for callbacks that fail, and for
 * libraries on top of libcb. Thread-safe. */
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

/* An allocator. One function serves all: realloc(NULL, n) allocates, realloc(p, 0) frees and returns NULL; NULL for
 * n > 0 means no memory. It is called on the thread of the object that was given it, and must not call libcb. The
 * libraries below (libuv, c-ares, cJSON, GnuTLS) allocate with malloc(). */
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
 * every object that was given it. Called on the thread of that object;
 * must not call libcb. */
typedef struct cb_log {
    void (*write)(int level, const char *module, const char *text, void *user);
    void *user;
    int32_t level; /* enum cb_log_level; 0 = CB_LOG_INFO */
    uint32_t reserved;
} cb_log;

CB_END
#endif
