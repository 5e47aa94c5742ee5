/* cb/audit.h - an audit log that shows when somebody touched it: chained, signed, durable before anybody is told.
 *
 * A log is a file of length-prefixed records, and the files that went before it (cb_audit_opts.rotate_bytes). Each
 * carries the SHA-256 of the whole record before it; every commit ends in a checkpoint signed with Ed25519. What is
 * committed has been through fdatasync(). A helper thread ("cb-audit") commits whatever has gathered while the last
 * commit was under way, so no loop waits for a disk and many records share one sync. The format is in
 * docs/guide/auth.md.
 *
 * Whoever can write to the disk can also cut off the end of a log at a checkpoint, and with the key can write it anew:
 * therefore heads (number and hash of a checkpoint) go off the host, through on_head, and a log is verified against
 * one. */
#ifndef CB_AUDIT_H
#define CB_AUDIT_H

#include <cb/base.h>
#include <cb/loop.h>

CB_BEGIN

typedef struct cb_audit cb_audit;
typedef struct cb_audit_verifier cb_audit_verifier;

enum {
    CB_AUDIT_HASH = 32,      /* bytes of SHA-256, and of an Ed25519 public key */
    CB_AUDIT_TEXT_MAX = 256, /* actor, tenant, action */
    CB_AUDIT_OBJECT_MAX = 1024,
    CB_AUDIT_DETAIL_MAX = 4096,
    CB_AUDIT_LINE_MAX = 40960, /* enough for every record as a line */
    CB_AUDIT_HEAD_MAX = 88     /* enough for every head as text */
};

enum cb_audit_outcome { CB_AUDIT_DONE = 1, CB_AUDIT_DENIED = 2, CB_AUDIT_FAILED = 3 };

/* Who did what to what. actor, tenant and action must be there: a tenant is named, never assumed. Texts are bytes as
 * they came; what shows them escapes them. before and after are hashes of the object, 32 bytes or empty. */
typedef struct cb_audit_record {
    size_t size;
    uint64_t seq;    /* set by the log: records and checkpoints count from 1, without a gap */
    int64_t time_us; /* microseconds since 1970; 0 on append = now */
    cb_slice actor, tenant, action, object, detail, before, after;
    int32_t outcome; /* enum cb_audit_outcome */
    uint32_t reserved;
} cb_audit_record;

/* The end of a log at some time: a checkpoint's number and the hash of the whole of it. */
typedef struct cb_audit_head {
    uint64_t seq;
    int64_t time_us;
    uint8_t hash[CB_AUDIT_HASH];
} cb_audit_head;

typedef struct cb_audit_opts {
    size_t size;
    const char *path;            /* the file */
    const char *key_file;        /* Ed25519 key, PEM (PKCS#8), mode 0600; made when absent */
    uint32_t queue_bytes;        /* what may wait for the disk; 0 = 16 MiB, at least 64 KiB */
    uint32_t checkpoint_records; /* a checkpoint at least so often inside a large commit; 0 = 1,000 */
    uint32_t mode;               /* of a new log; 0 = 0640 */
    uint32_t rotate_s; /* the first commit so long after a file was begun puts it aside and begins another; 0 = never */
    /* After each commit, on the helper thread: the place to send heads off the host. Must not call this log. */
    void (*on_head)(const cb_audit_head *head, void *user);
    void *user;
    /* Each record that has become durable, on the helper thread, before its done: the place to export records as they
     * come (cb_audit_line()). Must not call this log. */
    void (*on_record)(const cb_audit_record *record, void *user);
    const char *head_file; /* gets each head as text (cb_audit_head_text()) and a newline, by replacing it: put it on
                            * another machine's disk. When that fails, stats.head_failed counts. NULL = none */
    uint64_t rotate_bytes; /* a file that has grown to so much is put aside after its commit; 0 = never */
    int32_t despite_flaw;  /* 1: a log that cb_audit_verify() finds flawed is put aside as PATH.flawed-TIME, and another
                            * begins, whose first record, "audit.flaw", names that file, its SHA-256 and the flaw. 0:
                            * such a log is not opened */
    uint32_t reserved;
} cb_audit_opts;

typedef struct cb_audit_stats {
    size_t size;
    uint64_t records;       /* durable, of this object */
    uint64_t commits;       /* syncs that they shared */
    uint64_t failed;        /* records that could not be written; their callers were told */
    uint64_t cut_bytes;     /* uncommitted end that was cut when the log was opened */
    uint64_t rotated;       /* files that were put aside */
    uint64_t rotate_failed; /* attempts that failed; the old file goes on */
    uint64_t head_failed;   /* heads that head_file did not get */
} cb_audit_stats;

/* Opens or makes a log; an existing one is verified from its beginning. What a crash left after the last checkpoint was
 * never reported as durable: it is cut, and a record "audit.tail" tells how much and its hash. Any other flaw is
 * CB_EPROTO, unless despite_flaw, and the detail says where: also files that were put aside without one that goes on.
 * Of those the last one only is looked at, for its end. CB_EINVAL (options, key file, not a regular file), CB_EPERM
 * (others may read the key), CB_EEXIST (somebody writes this log), CB_ENOENT, CB_ESYS, CB_ETLS. */
CB_API int cb_audit_open(cb_audit **out, const cb_audit_opts *opts);
/* Commits what is queued, then frees. No other thread may be using it. NULL is fine. */
CB_API void cb_audit_free(cb_audit *log);

/* Tells that a record is durable (rc CB_OK and its number) or that it is not and never will be (rc < 0): then the
 * caller must fail, too. On the helper thread, in the order of the records; must not wait and must not call this log.
 * A loop is told with cb_loop_post(). */
typedef void (*cb_audit_done_fn)(int rc, uint64_t seq, void *user);

/* Queues a record. Never waits for the disk. Any thread. done may be NULL. CB_EAGAIN (the disk is too slow: the queue
 * is full), CB_EINVAL (a text is missing or too long, a hash is not 32 bytes, no outcome), CB_ENOMEM. */
CB_API int cb_audit_append(cb_audit *log, const cb_audit_record *record, cb_audit_done_fn done, void *user);
/* The same, and waits until the record is durable: not for loops. Any thread. *seq may be NULL. Errors as append, or
 * why it could not be written: CB_ESYS (a full disk), CB_EPERM, CB_ETLS. */
CB_API int cb_audit_write(cb_audit *log, const cb_audit_record *record, uint64_t *seq);

/* Queues a record, and tells by a task of the loop (cb_loop_post()) on whose thread `done` then runs; cb_last_error()
 * is that of the failure. The loop must live until then, and this does not keep it running. Errors as append. */
CB_API int cb_audit_append_loop(cb_audit *log, const cb_audit_record *record, cb_loop *loop, cb_audit_done_fn done,
                                void *user);
/* Commits what is queued, puts the file aside as PATH.NNNNNN (its number, from 1) and begins the next: its first item
 * is chained to the last checkpoint of the file before, numbers go on. Waits: not for loops. Any thread. CB_EEXIST
 * (that name is taken), CB_ESYS, CB_EPERM, CB_ETLS: the old file goes on. */
CB_API int cb_audit_rotate(cb_audit *log);

/* The last checkpoint. Any thread. */
CB_API void cb_audit_head_get(cb_audit *log, cb_audit_head *head);
/* The public key of the checkpoints. Any thread. */
CB_API void cb_audit_key(const cb_audit *log, uint8_t out[CB_AUDIT_HASH]);
/* CB_EINVAL. Any thread. */
CB_API int cb_audit_stats_get(cb_audit *log, cb_audit_stats *out);
/* Shows its statistics in a registry from now on, as the families cb_audit_* of docs/metrics.md with this
 * value of their label "name" (NULL = ""), until it is freed. Once. CB_EINVAL, CB_EEXIST, CB_ENOMEM. */
CB_API int cb_audit_metrics(cb_audit *log, cb_metrics *m, const char *name);

/* What is wrong with a log. */
enum cb_audit_flaw {
    CB_AUDIT_SOUND = 0,
    CB_AUDIT_MALFORMED = 1, /* bytes that no log has */
    CB_AUDIT_CHANGED = 2,   /* a record is not the one that its successor was chained to */
    CB_AUDIT_LOST = 3,      /* numbers are missing: records were taken out */
    CB_AUDIT_ORDER = 4,     /* a number comes again: records were moved or repeated */
    CB_AUDIT_SIGNATURE = 5, /* a checkpoint was not signed by this key */
    CB_AUDIT_KEY = 6,       /* the log names another key than was expected */
    CB_AUDIT_CUT = 7,       /* the log ends before the head that is known */
    CB_AUDIT_HEAD = 8,      /* at the head's number stands something else: the log was written anew */
    CB_AUDIT_EARLIER = 9    /* the known head lies before the first file that is here */
};

typedef struct cb_audit_report {
    size_t size;
    uint64_t records;    /* whole ones that were read, committed or not */
    uint64_t offset;     /* of the flaw, in bytes of its file */
    uint64_t seq;        /* the number at which it shows */
    uint64_t tail_bytes; /* after the last checkpoint: not committed (yet), thus not proven; of a sound log */
    cb_audit_head head;  /* of the last checkpoint */
    uint8_t key[CB_AUDIT_HASH];
    int32_t flaw; /* enum cb_audit_flaw */
    uint32_t reserved;
    uint64_t first_file, file; /* numbers of the first file, and of that with the flaw or else the last */
} cb_audit_report;

typedef struct cb_audit_verify_opts {
    size_t size;
    const uint8_t *key;        /* 32 bytes: the key to expect; NULL = the one that the log names, which proves less */
    const cb_audit_head *head; /* NULL = none: then nobody can say that the end is there */
    /* Each record, before it is proven: what a callback does must wait for the verdict if it matters. The slices live
     * during the call. Not 0 ends the verification with this code. */
    int (*on_record)(const cb_audit_record *record, void *user);
    void *user;
    uint32_t every_signature; /* not 0: check each checkpoint's; else the last, which covers all before */
    uint32_t alone;           /* cb_audit_verify(): not 0: this file only, without those that were put aside before */
} cb_audit_verify_opts;

/* Verifies bytes from anywhere; no I/O. Files of one log come one after the other, as if they were one. A log may begin
 * with any of its files: what went before is not missed unless a head is known. One verifier, one thread. */
CB_API int cb_audit_verifier_new(cb_audit_verifier **out, const cb_audit_verify_opts *opts);
/* Takes whole items in order and returns how many bytes it took; give the rest again with more behind it. CB_EPROTO: a
 * flaw, see the report. Else what on_record returned. */
CB_API int64_t cb_audit_verifier_feed(cb_audit_verifier *v, cb_slice bytes);
/* The verdict: the log ends with `rest`, what feed has not taken. CB_OK, or CB_EPROTO, which cb_last_error() describes
 * and the report, which may be NULL, locates. Once. */
CB_API int cb_audit_verifier_end(cb_audit_verifier *v, cb_slice rest, cb_audit_report *report);
CB_API void cb_audit_verifier_free(cb_audit_verifier *v); /* NULL is fine */

/* A file, which may be in use, and before it those of the same log that lie beside it as PATH.NNNNNN. Also CB_ENOENT,
 * CB_EPERM, CB_ESYS, CB_EINVAL, CB_ENOMEM; else what on_record returned. */
CB_API int cb_audit_verify(const char *path, const cb_audit_verify_opts *opts, cb_audit_report *report);

/* ---- as text ---- */

enum cb_audit_form {
    CB_AUDIT_JSON = 1,  /* one object; bytes that are not printable ASCII as \u00XX */
    CB_AUDIT_SYSLOG = 2 /* RFC 5424, facility 13 (log audit); what is not printable ASCII is "?" */
};

/* A record as a line without its end, NUL-terminated, into out (CB_AUDIT_LINE_MAX bytes are enough). host: of the
 * syslog form; NULL = "-". Returns its length. CB_EINVAL (form, host is no host name), CB_ELIMIT (cap). Any thread. */
CB_API int cb_audit_line(char *out, size_t cap, const cb_audit_record *record, int form, const char *host);
/* A head as "NUMBER:HASH", as cbctl audit verify --head takes it, NUL-terminated, into out (CB_AUDIT_HEAD_MAX bytes).
 */
CB_API void cb_audit_head_text(const cb_audit_head *head, char *out);
/* Reads one; white space at its end is fine. CB_EINVAL. */
CB_API int cb_audit_head_read(cb_audit_head *out, const char *text);

CB_END
#endif
