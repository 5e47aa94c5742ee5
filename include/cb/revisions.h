/* cb/revisions.h - numbered revisions of a configuration document: proposed, checked, written, taken over.
 *
 * A cb_revisions has one document of a cb_store, and a program that runs it. A change goes through these steps, one
 * change at a time, and has no effect when one of them fails:
 *
 *   expect    the document must be at the revision that the asker has seen, if they said one
 *   make      the change is applied to the document that runs, in memory
 *   allow     every difference must be allowed
 *   prepare   the program checks the document and opens what it needs           prepare()
 *   agree     the asker may still say no, for example after an audit log        agree()
 *   store     the revision is written, and on the disk
 *   commit    the program takes over; this cannot fail                          commit()
 *
 * A change that leaves the document as it is succeeds without a revision. Without a store there is a document that
 * runs, but no history, and only the file can change it.
 *
 * The file. Programs have a configuration file as well. The hash of the file as it was last taken over stands with each
 * revision: a file that was edited becomes a new revision (by "file"), one that was not leaves the last revision in
 * force. So whoever wrote last wins. Members that are `fixed` come from the file alone, whatever a revision says.
 *
 * Text. A revision that was given whole (by the file or by a PUT) keeps its text with its comments; one that was made
 * by a patch or of a part is written in the document's own form (cb/document.h).
 *
 * Threads. Everything belongs to the loop. The store is borrowed and must live until cb_revisions_use() or
 * cb_revisions_free(). */
#ifndef CB_REVISIONS_H
#define CB_REVISIONS_H

#include <cb/admin.h>
#include <cb/config.h>
#include <cb/document.h>
#include <cb/store.h>

CB_BEGIN

typedef struct cb_revisions cb_revisions;
typedef struct cb_revisions_change cb_revisions_change; /* one that waits or is under way */
typedef struct cb_revisions_ask cb_revisions_ask;       /* a question for history */

enum {
    CB_REVISIONS_NAME_BYTES = 255,   /* of an actor: UTF-8 without control characters */
    CB_REVISIONS_REASON_BYTES = 300, /* the same of a reason */
    CB_REVISIONS_MISTAKES = 20       /* that are kept of a change */
};

/* What a change does to the document. */
enum cb_revisions_how {
    CB_REVISIONS_PUT = 1,      /* body takes the place of the part at the pointer; "" is the whole document */
    CB_REVISIONS_DELETE = 2,   /* the part at the pointer is removed */
    CB_REVISIONS_MERGE = 3,    /* body is a merge patch (RFC 7396) for the part at the pointer */
    CB_REVISIONS_PATCH = 4,    /* body is a JSON patch (RFC 6902) for the part at the pointer */
    CB_REVISIONS_ROLLBACK = 5, /* the document of the revision `from` is the current one again, as a new revision */
    CB_REVISIONS_FILE = 6      /* body is the file's text: a new revision if it was edited; else the document that runs
                                * is prepared and committed anew, which is a reload */
};

/* Where a change ended. */
enum cb_revisions_step {
    CB_REVISIONS_MADE = 1,      /* failed: the pointer, the patch or its text; or the revision `from` is not there */
    CB_REVISIONS_EXPECTED = 2,  /* failed: the document is at another revision (CB_EEXIST) */
    CB_REVISIONS_ALLOWED = 3,   /* failed: allow() said no, or a fixed member would change (CB_EPERM) */
    CB_REVISIONS_PREPARED = 4,  /* failed: the program refused it, with mistakes */
    CB_REVISIONS_AGREED = 5,    /* failed: agree() said no */
    CB_REVISIONS_STORED = 6,    /* failed: the store cannot write, or there is none */
    CB_REVISIONS_COMMITTED = 7, /* done */
    CB_REVISIONS_CHECKED = 8,   /* a dry run: nothing speaks against it */
    CB_REVISIONS_SAME = 9       /* there was nothing to change */
};

/* What a program is to run. Valid until it has answered. */
typedef struct cb_revisions_draft {
    size_t size;
    cb_slice text;               /* JSON, with comments as they were given */
    const cb_document *document; /* the same, read */
    const char *name;            /* for messages: opts.file, or "revision 17", or "the change" */
    uint64_t revision;           /* 0: none has been written of it yet */
    int32_t how;                 /* enum cb_revisions_how; 0 at a start */
    int32_t dry_run;             /* 1: only checked; commit() will not follow, but abort() will */
    int32_t given;               /* 1: text is what the asker sent, so that lines mean something to them */
    int32_t reserved;
} cb_revisions_draft;

/* What the program does. Each is answered once, within the call or later: prepare() by cb_revisions_prepared(),
 * commit() by cb_revisions_committed(). abort() is not: what was prepared is given up at once. */
typedef struct cb_revisions_ops {
    size_t size;
    void (*prepare)(cb_revisions *r, const cb_revisions_draft *draft, void *user);
    void (*commit)(cb_revisions *r, const cb_revisions_draft *draft, void *user);
    void (*abort)(cb_revisions *r, void *user);
} cb_revisions_ops;

typedef struct cb_revisions_opts {
    size_t size;
    cb_store *store;             /* borrowed; NULL: none */
    const char *key;             /* of the document in the store; NULL = "config" */
    const char *file;            /* the name of the file, for messages; required */
    const char *const *fixed;    /* names of members that are the file's alone; copied */
    size_t n_fixed;              /* at most 8 */
    const cb_revisions_ops *ops; /* all members are required */
    void *user;
    const cb_log *log;    /* borrowed; NULL = silent */
    uint32_t max_waiting; /* changes that wait for their turn; 0 = 64 */
    uint32_t reserved;
} cb_revisions_opts;

/* CB_EINVAL (out, loop, file, ops; the detail names it), CB_ENOMEM, CB_E2BIG. */
CB_API int cb_revisions_new(cb_revisions **out, cb_loop *loop, const cb_revisions_opts *opts);
/* Changes that wait or are under way are dropped, their askers are not told. What the program has prepared is its own
 * to give up. NULL is fine. */
CB_API void cb_revisions_free(cb_revisions *r);

/* ---- the start ---- */

/* Tries to make what draft says; CB_OK: it runs from now on. Else the next candidate is tried. */
typedef int (*cb_revisions_try)(const cb_revisions_draft *draft, void *user);

/* Finds what is to run, and blocks: the file if it was edited or nothing was ever written, else the last revision; if
 * that fails, the last and the 16 before it. file base NULL: there is none that can be read. The log says what was
 * left out and why. CB_OK: what try() took is the document that runs. Otherwise what try() said of the first candidate,
 * CB_ENOENT (there was none), or what failed in the store when that was all. */
CB_API int cb_revisions_begin(cb_revisions *r, cb_slice file, cb_revisions_try fn, void *user);
/* The program runs: writes the revision of an edited file that began, if there is one to be written. Blocks. What the
 * store says, and then the program runs on. */
CB_API int cb_revisions_begun(cb_revisions *r);
/* From now on with another store, or none (NULL): a successor has it. Questions for history are answered with
 * CB_EAGAIN. Blocks, as it looks what the latest revision is: 1 if that is not the one that runs; a change by the file
 * goes to it. In a store that is new, a change by the file writes what runs. CB_EAGAIN: a change is under way. Else as
 * the store answers, and the store is used. */
CB_API int cb_revisions_use(cb_revisions *r, cb_store *store);
/* 1: changes are refused (CB_EAGAIN), those that wait as well, until it is 0 again. One that is under way goes on. */
CB_API void cb_revisions_hold(cb_revisions *r, int hold);
/* Is a change under way? 1 or 0. */
CB_API int cb_revisions_busy(const cb_revisions *r);

/* ---- changes ---- */

typedef struct cb_revisions_result {
    size_t size;
    int32_t step; /* enum cb_revisions_step */
    uint32_t n_mistakes;
    const cb_config_error *mistakes; /* line 0: not known. Pointers are of the new document */
    uint64_t revision;               /* of what runs now; 0: it has none */
    const cb_document *document;     /* what runs now, or would (a dry run) */
} cb_revisions_result;

/* rc and what came of it, valid during the call. The change is gone. */
typedef void (*cb_revisions_done)(int rc, const cb_revisions_result *result, void *user);

typedef struct cb_revisions_change_opts {
    size_t size;
    int32_t how;         /* enum cb_revisions_how */
    int32_t dry_run;     /* 1: nothing is written or taken over */
    const char *pointer; /* copied; NULL = "" */
    cb_slice body;       /* copied */
    uint64_t from;       /* ROLLBACK: the revision */
    uint64_t expected;   /* the revision that must run; CB_STORE_ANY = any */
    const char *actor;   /* who; required; copied */
    const char *reason;  /* why; copied; NULL = "" */
    /* May this difference be? CB_OK or CB_EPERM. NULL: all of them. before and after are the whole documents; a
     * pointer into an array leads to the same item in both, or in the one that has it. */
    int (*allow)(const cb_document_change *c, const cb_document *before, const cb_document *after, void *user);
    /* The change will be written and taken over when the asker agrees, by cb_revisions_agree(). NULL: they do. */
    void (*agree)(cb_revisions_change *c, const cb_document *before, const cb_document *after, void *user);
} cb_revisions_change_opts;

/* Begins a change. done is called once, on the loop, not within this call; *out (may be NULL) can cancel that.
 * CB_EINVAL (the detail names the field), CB_ELIMIT (body above 1 MiB), CB_EAGAIN (max_waiting, or held), CB_ENOMEM,
 * CB_E2BIG: done is not called. */
CB_API int cb_revisions_propose(cb_revisions *r, cb_revisions_change **out, const cb_revisions_change_opts *opts,
                                cb_revisions_done done, void *user);
/* None of its callbacks is called any more. A change that has not been agreed to ends; one that has goes on. Before
 * done. NULL is fine. */
CB_API void cb_revisions_cancel(cb_revisions_change *c);
/* The asker's answer to agree(), now or later: CB_OK, or why not (with cb_last_error()). */
CB_API void cb_revisions_agree(cb_revisions_change *c, int rc);

/* The program's answer to prepare(): CB_OK, or why not (with cb_last_error()). */
CB_API void cb_revisions_prepared(cb_revisions *r, int rc);
/* A mistake in what prepare() was given, before it is answered; copied. What exceeds CB_REVISIONS_MISTAKES is dropped.
 */
CB_API void cb_revisions_mistake(cb_revisions *r, const cb_config_error *e);
/* Taken over: everybody runs it. */
CB_API void cb_revisions_committed(cb_revisions *r);

/* ---- what runs, and what was ---- */

/* The document that runs; NULL: none yet. Lives until the next change ends. */
CB_API const cb_document *cb_revisions_document(const cb_revisions *r);
/* Its revision; 0: it has none, as it could not be written. Without a store what runs is counted, from 1. */
CB_API uint64_t cb_revisions_number(const cb_revisions *r);
/* Is there a store? 1 or 0. */
CB_API int cb_revisions_kept(const cb_revisions *r);

typedef struct cb_revision {
    size_t size;
    uint64_t number;
    int64_t time_ms;   /* since 1970 */
    const char *actor; /* "file" for the file */
    const char *reason;
    const char *how; /* "put", "delete", "merge", "patch", "rollback", "file" */
    const char *pointer;
    uint64_t from;   /* a rollback's */
    uint64_t before; /* the revision that ran before it */
    cb_slice text;   /* as it was given */
} cb_revision;

/* rc, and n revisions, the latest first; `more` is what to ask for as `before` to go on, 0 = that was all. Valid during
 * the call. CB_ENOENT: that revision is not there, or not any more. Else as the store's answers. */
typedef void (*cb_revisions_told)(int rc, const cb_revision *revisions, size_t n, uint64_t more, void *user);

/* Those before a revision (0 = all), at most `most` (1 to 1,000). CB_ENOTSUP (no store), else as cb_store_history(). */
CB_API int cb_revisions_history(cb_revisions *r, cb_revisions_ask **out, uint64_t before, uint32_t most,
                                cb_revisions_told told, void *user);
/* One. As above. */
CB_API int cb_revisions_get(cb_revisions *r, cb_revisions_ask **out, uint64_t number, cb_revisions_told told,
                            void *user);
/* told is not called any more. NULL is fine. */
CB_API void cb_revisions_forget(cb_revisions_ask *a);

/* ---- over HTTP ---- */

typedef struct cb_revisions_admin_opts {
    size_t size;
    /* Principals with CB_RIGHT_CHANGE may change everything (but fixed members). May this one, who has only
     * CB_RIGHT_CHANGE_OWNED or _TENANT, make this difference? As cb_revisions_change_opts.allow. NULL: no. */
    int (*allow)(const cb_admin_principal *who, const cb_document_change *c, const cb_document *before,
                 const cb_document *after, void *user);
    /* Takes out of a copy what a principal with only CB_RIGHT_READ_TENANT may not see. CB_OK, or why they may see
     * nothing. NULL: they see nothing. */
    int (*show)(const cb_admin_principal *who, cb_document *copy, void *user);
    void *user;
} cb_revisions_admin_opts;

/* Adds the resources of configuration and revisions (docs/design/admin.md) to an admin, and tells its listeners of
 * each change ("config"). The admin must be freed first. One at a time: an admin that is freed before the revisions is
 * given up by a NULL in its place (opts too), and then there may be another one. CB_EINVAL, CB_EEXIST, CB_ENOMEM,
 * CB_E2BIG. */
CB_API int cb_revisions_admin(cb_revisions *r, cb_admin *a, const cb_revisions_admin_opts *opts);

CB_END
#endif
