/* cb/store.h - a small store of values with revisions: get, compare and set, history, watch.
 *
 * Each change gets the next number of the whole store, its revision, and is durable before anybody is told of it. What
 * configures an edge lives here: an operator sees who changed what, goes back, and never overwrites a change that they
 * have not seen. The interface is made so that a store of several machines can stand behind it, too; the one here is a
 * file of SQLite, of one process at a time.
 *
 * A store works on a thread of its own: no caller waits for a disk. Answers come on the caller's loop; callers without
 * a loop (a tool, or a program that starts) give NULL and wait.
 *
 * Threads. A cb_store is thread-safe. An answer runs on the thread of the loop that was given. Before a loop is freed,
 * its questions must have been answered or cancelled, and its watchers freed; the store is freed after those loops, or
 * after a task that was posted to each of them when there was no question and no watcher any more has run. */
#ifndef CB_STORE_H
#define CB_STORE_H

#include <cb/loop.h>

CB_BEGIN

typedef struct cb_store cb_store;
typedef struct cb_store_ask cb_store_ask;     /* a question that waits for its answer */
typedef struct cb_store_watch cb_store_watch; /* somebody who is told of changes */

enum {
    CB_STORE_KEY_BYTES = 512,        /* of a key: valid UTF-8 without NUL, not empty */
    CB_STORE_VALUE_BYTES = 16 << 20, /* of a value */
    CB_STORE_NOTE_BYTES = 1024       /* of a note: valid UTF-8 without NUL */
};

#define CB_STORE_ANY UINT64_MAX /* expected revision: whatever is there */

typedef struct cb_store_file_opts {
    size_t size;
    const char *path;       /* made with mode 0600 when it is absent; required */
    uint32_t keep;          /* changes that are kept of each key, beside the latest; 0 = 1,000 */
    uint32_t max_mib;       /* the file may grow to this; then CB_ELIMIT. 0 = 1,024 */
    uint32_t read_only;     /* 1: beside the process that writes */
    uint32_t max_questions; /* that wait; 0 = 1,024 */
    const cb_log *log;      /* borrowed; called on the store's thread; NULL = silent */
} cb_store_file_opts;

/* Opens a file. Blocks. CB_EINVAL (out; the detail names the option), CB_EEXIST (another process writes to it),
 * CB_ENOENT (read_only, and there is none; no such folder), CB_EPERM, CB_EPROTO (the file is damaged, no store, or of a
 * later version: nothing was changed), CB_ESYS, CB_ENOMEM, CB_E2BIG. */
CB_API int cb_store_open(cb_store **out, const cb_store_file_opts *opts);
/* Finishes what is under way; no question is answered any more, and watches end with it. On the thread of the loops
 * that have any, or when these rest. NULL is fine. */
CB_API void cb_store_free(cb_store *s);

/* A key as it was after a change. */
typedef struct cb_store_entry {
    size_t size;
    cb_slice key, value;
    cb_slice note;     /* who and why, as the change said */
    uint64_t revision; /* of that change */
    int64_t time_ms;   /* of that change, since 1970 */
    int32_t deleted;   /* 1: the change removed the key */
    uint32_t reserved;
} cb_store_entry;

typedef struct cb_store_answer {
    size_t size;
    const cb_store_entry *entries;
    size_t n;
    uint64_t revision; /* of the store when it answered */
    uint64_t oldest;   /* changes before this one may have been forgotten */
} cb_store_answer;

/* rc and what came of it, valid during the call. CB_OK; CB_EEXIST (compare and set: the key is not at the expected
 * revision; the entry is what is there, or none); CB_ENOENT (there is no such key; that revision was forgotten);
 * CB_ELIMIT (the store is full), CB_ESYS (the disk: full, gone, broken), CB_EPERM (read only), CB_EPROTO (the file is
 * damaged), CB_ENOMEM: nothing was changed, and cb_last_error() has the detail. */
typedef void (*cb_store_done)(int rc, const cb_store_answer *answer, void *user);

/* Each begins a question. With a loop: done is called on it once, not within this call; *ask (may be NULL) can cancel
 * that. With loop NULL: done is called before this returns what done got. Otherwise: CB_EINVAL (s, done; key, value,
 * note: too long or not UTF-8), CB_ELIMIT (max_questions), CB_ENOMEM, CB_E2BIG: done is not called. */

typedef struct cb_store_put_opts {
    size_t size;
    cb_slice key;
    cb_slice value;    /* base NULL: remove the key */
    cb_slice note;     /* kept with the change */
    uint64_t expected; /* the revision that the key must be at: 0 = it must not be there; CB_STORE_ANY */
    int64_t time_ms;   /* of the change, since 1970; required */
} cb_store_put_opts;

/* Changes one key, if it is as expected. The entry of the answer is the new one. */
CB_API int cb_store_put(cb_store *s, cb_loop *loop, cb_store_ask **ask, const cb_store_put_opts *opts,
                        cb_store_done done, void *user);
/* A key as it was at a revision (0 = now). A removed key is CB_ENOENT. */
CB_API int cb_store_get(cb_store *s, cb_loop *loop, cb_store_ask **ask, cb_slice key, uint64_t at, cb_store_done done,
                        void *user);
/* All keys that begin with prefix (empty: all), in the order of their bytes, from `from` on (empty: the first), at most
 * `most` (1 to 1,000). */
CB_API int cb_store_list(cb_store *s, cb_loop *loop, cb_store_ask **ask, cb_slice prefix, cb_slice from, uint32_t most,
                         cb_store_done done, void *user);
/* The changes of a key, the latest first, those before revision `before` (0 = all), at most `most` (1 to 1,000). */
CB_API int cb_store_history(cb_store *s, cb_loop *loop, cb_store_ask **ask, cb_slice key, uint64_t before,
                            uint32_t most, cb_store_done done, void *user);
/* No answer any more, and the loop may be freed; on the loop's thread, before the answer. A change may have been made
 * all the same. NULL is fine. */
CB_API void cb_store_cancel(cb_store_ask *ask);

/* Told on its loop of each change to keys that begin with prefix, in order, each once, from revision `from` on (0 =
 * from now on): rc CB_OK and one entry, also for removed keys. CB_ENOENT: changes from `from` on were forgotten; read
 * with cb_store_list() and watch from answer->revision + 1. Other codes: the store cannot be read. After an error
 * nothing more comes; free it. */
typedef void (*cb_store_change)(cb_store_watch *w, int rc, const cb_store_entry *entry, void *user);

/* CB_EINVAL (out, s, loop, changed), CB_ENOTSUP (a store that is read only: another process changes it), CB_ENOMEM. */
CB_API int cb_store_watch_new(cb_store_watch **out, cb_store *s, cb_loop *loop, cb_slice prefix, uint64_t from,
                              cb_store_change changed, void *user);
/* On the loop's thread, also inside `changed`. NULL is fine. */
CB_API void cb_store_watch_free(cb_store_watch *w);

typedef struct cb_store_stats {
    size_t size;                           /* set by the caller */
    uint64_t revision;                     /* the latest */
    uint64_t oldest;                       /* the first that was not forgotten */
    uint64_t changes, conflicts, failures; /* since it was opened */
    uint64_t waiting;                      /* questions */
    uint64_t file_bytes;
} cb_store_stats;

/* CB_EINVAL (s, out, size). */
CB_API int cb_store_stats_get(cb_store *s, cb_store_stats *out);
/* Shows its statistics in a registry from now on, as the families cb_store_* of docs/metrics.md with this
 * value of their label "name" (NULL = ""), until it is freed. Once. CB_EINVAL, CB_EEXIST, CB_ENOMEM. */
CB_API int cb_store_metrics(cb_store *s, cb_metrics *m, const char *name);

CB_END
#endif
