#include "auth/audit_set.h"
#include "base/error.h"
#include "base/mem.h"
#include "base/opts.h"
#include "base/thread.h"
#include "telemetry/shown.h"
#include <errno.h>
#include <fcntl.h>
#include <gnutls/crypto.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { QUEUE_DEFAULT = 16 * 1024 * 1024, QUEUE_MIN = 64 * 1024, CHECKPOINT_DEFAULT = 1000 };

typedef struct waiter {
    struct waiter *next;
    cb_audit_done_fn done;
    void *user;
    uint64_t record; /* the how many-th of its batch */
    uint64_t seq;
} waiter;

typedef struct batch {
    cb_buf frames;
    uint64_t records;
    waiter *first, **last;
} batch;

struct cb_audit {
    cb_shown *shown; /* NULL: in no registry */
    pthread_mutex_t lock;
    pthread_cond_t work, turned;
    pthread_t thread;
    gnutls_privkey_t key;
    char *path, *head_file;
    cb_audit_opts opts;
    batch queue,
        under_way; /* under_way and what follows it is the thread's alone, but for what is read under the lock */
    cb_buf out;
    cb_audit_head head;   /* lock */
    cb_audit_stats stats; /* lock */
    uint64_t seq, size;   /* committed: number of the last item, bytes of the file */
    uint64_t number;      /* of the file */
    int64_t begun_us;     /* when it was */
    uint64_t turns;       /* lock: how often it was asked for another and tried */
    char turn_why[256];   /* lock: what came of the last time */
    int turn_rc;          /* lock */
    bool turn_wanted;     /* lock */
    uint8_t chain[CB_AUDIT_HASH], pub[CB_AUDIT_HASH], id[CB_AUDIT_ID];
    int fd;
    bool ending, threaded, dirty; /* dirty: bytes after `size` that could not be taken back */
};

static int64_t now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static void batch_init(batch *b, size_t max) {
    *b = (batch){.first = NULL};
    cb_buf_init(&b->frames, &cb_alloc_libc, max);
}

/* ---- committing: on the helper thread, and while the log is opened ---- */

typedef struct tip {
    uint64_t seq;
    uint8_t chain[CB_AUDIT_HASH];
} tip;

static int add_checkpoint(cb_audit *log, tip *t, uint64_t records, int64_t time_us) {
    uint8_t c[CB_AUDIT_CHECK_BYTES], text[CB_AUDIT_SIGNED_BYTES];
    gnutls_datum_t signature = {NULL, 0};
    cb_audit_frame_check(c, records, time_us);
    cb_audit_frame_place(c, ++t->seq, t->chain);
    cb_audit_signed(c, text);
    int grc = gnutls_privkey_sign_data2(log->key, GNUTLS_SIGN_EDDSA_ED25519, 0, &(gnutls_datum_t){text, sizeof text},
                                        &signature);
    if (grc < 0 || signature.size != CB_AUDIT_SIGNATURE_BYTES) {
        gnutls_free(signature.data);
        return cb_fail(CB_ETLS, "%s: cannot sign: %s", log->path, gnutls_strerror(grc));
    }
    memcpy(c + sizeof c - CB_AUDIT_SIGNATURE_BYTES, signature.data, CB_AUDIT_SIGNATURE_BYTES);
    gnutls_free(signature.data);
    cb_audit_hash(c, sizeof c, t->chain);
    return cb_buf_add(&log->out, c, sizeof c);
}

/* Chains what gathered, with checkpoints between and at the end, into log->out. */
static int chain_batch(cb_audit *log, batch *b, tip *t, int64_t time_us) {
    size_t at = 0;
    uint64_t done = 0, unsigned_records = 0;
    waiter *w = b->first;
    while (at < b->frames.len) {
        uint8_t *p = b->frames.base + at;
        const size_t len = 4 + ((size_t)p[0] << 24 | (size_t)p[1] << 16 | (size_t)p[2] << 8 | p[3]);
        cb_audit_frame_chain(p, len, ++t->seq, t->chain);
        int rc = cb_buf_add(&log->out, p, len);
        for (; w && w->record == done; w = w->next)
            w->seq = t->seq;
        done++;
        at += len;
        if (rc == CB_OK && (++unsigned_records == log->opts.checkpoint_records || at == b->frames.len)) {
            rc = add_checkpoint(log, t, unsigned_records, time_us);
            unsigned_records = 0;
        }
        if (rc < 0) return rc;
    }
    return CB_OK;
}

static int write_all(const cb_audit *log) {
    for (size_t done = 0; done < log->out.len;) {
        ssize_t n = pwrite(log->fd, log->out.base + done, log->out.len - done, (off_t)(log->size + done));
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return cb_fail_errno(n < 0 ? errno : ENOSPC, "%s", log->path);
        done += (size_t)n;
    }
    return fdatasync(log->fd) < 0 ? cb_fail_errno(errno, "%s", log->path) : CB_OK;
}

/* What was not committed must not be in the file when the next commit comes: it was reported as failed. */
static int take_back(cb_audit *log) {
    if (!log->dirty) return CB_OK;
    if (ftruncate(log->fd, (off_t)log->size) < 0) return cb_fail_errno(errno, "%s", log->path);
    log->dirty = false;
    return CB_OK;
}

static int commit_out(cb_audit *log, const tip *t, int64_t time_us) {
    int rc = take_back(log);
    if (rc < 0) return rc;
    log->dirty = true;
    rc = write_all(log);
    if (rc < 0) {
        char why[256];
        snprintf(why, sizeof why, "%s", cb_last_error());
        (void)take_back(log); /* else the next commit tries again */
        return cb_error_set(rc, why);
    }
    log->dirty = false;
    log->size += log->out.len;
    log->seq = t->seq;
    memcpy(log->chain, t->chain, CB_AUDIT_HASH);
    pthread_mutex_lock(&log->lock);
    log->head = (cb_audit_head){.seq = t->seq, .time_us = time_us};
    memcpy(log->head.hash, t->chain, CB_AUDIT_HASH);
    pthread_mutex_unlock(&log->lock);
    return CB_OK;
}

/* What became durable, to those who look on. */
static void export_records(const cb_audit *log) {
    const char *why;
    cb_audit_frame f;
    for (size_t at = 0; at < log->out.len; at += f.whole.len) {
        if (cb_audit_frame_read((cb_slice){log->out.base + at, log->out.len - at}, &f, &why) < 0) return;
        if (f.kind == 'R') log->opts.on_record(&f.u.record, log->opts.user);
    }
}

static void export_head(cb_audit *log, const cb_audit_head *head) {
    char text[CB_AUDIT_HEAD_MAX + 2];
    if (log->opts.on_head) log->opts.on_head(head, log->opts.user);
    if (!log->head_file) return;
    cb_audit_head_text(head, text);
    strcat(text, "\n");
    if (cb_audit_small_write(log->head_file, text) == CB_OK) return;
    pthread_mutex_lock(&log->lock);
    log->stats.head_failed++;
    pthread_mutex_unlock(&log->lock);
}

static void answer(waiter *w, int rc) {
    while (w) {
        waiter *next = w->next;
        w->done(rc, rc < 0 ? 0 : w->seq, w->user);
        cb_mem_free(&cb_alloc_libc, w);
        w = next;
    }
}

static void commit(cb_audit *log, batch *b) {
    const int64_t time_us = now_us();
    tip t = {.seq = log->seq};
    memcpy(t.chain, log->chain, sizeof t.chain);
    log->out.len = 0;
    int rc = chain_batch(log, b, &t, time_us);
    if (rc == CB_OK) rc = commit_out(log, &t, time_us);
    pthread_mutex_lock(&log->lock);
    const cb_audit_head head = log->head;
    if (rc == CB_OK) log->stats.commits++;
    *(rc < 0 ? &log->stats.failed : &log->stats.records) += b->records;
    pthread_mutex_unlock(&log->lock);
    if (rc == CB_OK && log->opts.on_record) export_records(log);
    if (rc == CB_OK) export_head(log, &head);
    answer(b->first, rc);
    b->first = NULL;
    b->records = 0;
    b->frames.len = 0;
}

/* ---- files: one is put aside, the next begins ---- */

/* What a file begins with, into log->out: its link, chained to the file before, and a checkpoint. */
static int write_link(cb_audit *log, tip *t, uint64_t number, int64_t time_us) {
    uint8_t l[CB_AUDIT_LINK_BYTES];
    log->out.len = 0;
    cb_audit_frame_link(l, log->pub, log->id, number, time_us);
    cb_audit_frame_chain(l, sizeof l, ++t->seq, t->chain);
    int rc = cb_buf_add(&log->out, l, sizeof l);
    return rc < 0 ? rc : add_checkpoint(log, t, 0, time_us);
}

static int turn(cb_audit *log) {
    const int64_t time_us = now_us();
    tip t = {.seq = log->seq};
    memcpy(t.chain, log->chain, sizeof t.chain);
    int rc = take_back(log); /* a file that is put aside ends in a checkpoint */
    if (rc == CB_OK) rc = write_link(log, &t, log->number + 1, time_us);
    int fd = rc < 0 ? rc : cb_audit_set_fresh(log->path, cb_buf_slice(&log->out), log->opts.mode);
    if (fd < 0) return fd;
    rc = cb_audit_set_turn(log->path, log->number);
    if (rc < 0) {
        close(fd);
        return rc;
    }
    close(log->fd);
    log->fd = fd;
    log->number++;
    log->begun_us = time_us;
    log->size = log->out.len;
    log->seq = t.seq;
    memcpy(log->chain, t.chain, CB_AUDIT_HASH);
    pthread_mutex_lock(&log->lock);
    log->head = (cb_audit_head){.seq = t.seq, .time_us = time_us};
    memcpy(log->head.hash, t.chain, CB_AUDIT_HASH);
    const cb_audit_head head = log->head;
    pthread_mutex_unlock(&log->lock);
    export_head(log, &head);
    return CB_OK;
}

static bool turn_due(const cb_audit *log) {
    const int64_t age_us = now_us() - log->begun_us;
    return (log->opts.rotate_bytes && log->size >= log->opts.rotate_bytes) ||
           (log->opts.rotate_s && age_us >= (int64_t)log->opts.rotate_s * 1000000);
}

/* Under the lock: what came of a turn. */
static void turn_told(cb_audit *log, int rc, bool wanted) {
    *(rc < 0 ? &log->stats.rotate_failed : &log->stats.rotated) += 1;
    if (!wanted) return;
    log->turn_wanted = false;
    log->turn_rc = rc;
    snprintf(log->turn_why, sizeof log->turn_why, "%s", rc < 0 ? cb_last_error() : "");
    log->turns++;
    pthread_cond_broadcast(&log->turned);
}

static void *run(void *user) {
    cb_audit *log = user;
    pthread_mutex_lock(&log->lock);
    while (!log->ending || log->queue.records || log->turn_wanted) {
        const bool wanted = log->turn_wanted;
        if (!log->queue.records && !wanted) {
            pthread_cond_wait(&log->work, &log->lock);
            continue;
        }
        batch spare = log->under_way;
        log->under_way = log->queue;
        log->queue = spare;
        log->queue.last = NULL;
        pthread_mutex_unlock(&log->lock);
        if (log->under_way.records) commit(log, &log->under_way);
        const bool turning = wanted || turn_due(log);
        const int rc = turning ? turn(log) : CB_OK;
        pthread_mutex_lock(&log->lock);
        if (turning) turn_told(log, rc, wanted);
    }
    pthread_mutex_unlock(&log->lock);
    return NULL;
}

int cb_audit_rotate(cb_audit *log) {
    char why[256];
    if (!log) return cb_fail(CB_EINVAL, "cb_audit_rotate: log is NULL");
    pthread_mutex_lock(&log->lock);
    const uint64_t before = log->turns;
    log->turn_wanted = true;
    pthread_cond_signal(&log->work);
    while (log->turns == before)
        pthread_cond_wait(&log->turned, &log->lock);
    const int rc = log->turn_rc;
    memcpy(why, log->turn_why, sizeof why);
    pthread_mutex_unlock(&log->lock);
    return rc < 0 ? cb_error_set(rc, why) : CB_OK;
}

/* ---- appending ---- */

int cb_audit_append(cb_audit *log, const cb_audit_record *record, cb_audit_done_fn done, void *user) {
    cb_audit_record r;
    if (!log || !record) return cb_fail(CB_EINVAL, "cb_audit_append: %s is NULL", log ? "record" : "log");
    int rc = cb_opts_read(&r, sizeof r, record, "cb_audit_record");
    if (rc < 0) return rc;
    waiter *w = done ? cb_mem_new(&cb_alloc_libc, sizeof *w) : NULL;
    if (done && !w) return cb_fail(CB_ENOMEM, "no memory for an audit record");
    const int64_t time_us = r.time_us ? r.time_us : now_us();
    pthread_mutex_lock(&log->lock);
    batch *b = &log->queue;
    rc = cb_audit_frame_record(&b->frames, &r, time_us);
    if (rc == CB_ELIMIT) rc = cb_fail(CB_EAGAIN, "%s: the queue is full, the disk is too slow", log->path);
    if (rc == CB_OK && w) {
        *w = (waiter){.done = done, .user = user, .record = b->records};
        *(b->last ? b->last : &b->first) = w;
        b->last = &w->next;
    }
    if (rc == CB_OK && b->records++ == 0) pthread_cond_signal(&log->work);
    pthread_mutex_unlock(&log->lock);
    if (rc < 0) cb_mem_free(&cb_alloc_libc, w);
    return rc;
}

typedef struct pause {
    pthread_mutex_t lock;
    pthread_cond_t over;
    uint64_t seq;
    int rc;
    bool done;
    char why[256];
} pause_t;

static void wake(int rc, uint64_t seq, void *user) {
    pause_t *p = user;
    pthread_mutex_lock(&p->lock);
    p->rc = rc;
    p->seq = seq;
    p->done = true;
    if (rc < 0) snprintf(p->why, sizeof p->why, "%s", cb_last_error());
    pthread_cond_signal(&p->over);
    pthread_mutex_unlock(&p->lock);
}

int cb_audit_write(cb_audit *log, const cb_audit_record *record, uint64_t *seq) {
    pause_t p = {.lock = PTHREAD_MUTEX_INITIALIZER, .over = PTHREAD_COND_INITIALIZER};
    int rc = cb_audit_append(log, record, wake, &p);
    if (rc < 0) return rc;
    pthread_mutex_lock(&p.lock);
    while (!p.done)
        pthread_cond_wait(&p.over, &p.lock);
    pthread_mutex_unlock(&p.lock);
    if (p.rc < 0) return cb_error_set(p.rc, p.why);
    if (seq) *seq = p.seq;
    return CB_OK;
}

/* ---- opening ---- */

/* The first file of a log, or of one that begins anew. */
static int begin_log(cb_audit *log, uint64_t number) {
    tip t = {.seq = 0};
    const int64_t time_us = now_us();
    if (gnutls_rnd(GNUTLS_RND_NONCE, log->id, sizeof log->id) < 0) return cb_fail(CB_ETLS, "no random bytes");
    int rc = write_link(log, &t, number, time_us);
    if (rc == CB_OK) rc = commit_out(log, &t, time_us);
    log->number = number;
    log->begun_us = time_us;
    return rc < 0 ? rc : cb_audit_folder_sync(log->path);
}

/* The end that nobody was told is durable goes, and leaves a record of it. */
static int cut_tail(cb_audit *log, uint64_t bytes) {
    char detail[160];
    uint8_t hash[CB_AUDIT_HASH];
    int rc = cb_audit_file_hash(log->fd, log->path, log->size, bytes, hash);
    if (rc < 0) return rc;
    int n = snprintf(detail, sizeof detail, "cut %" PRIu64 " uncommitted bytes at %" PRIu64, bytes, log->size);
    const cb_audit_record r = {.size = sizeof r,
                               .actor = cb_slice_str("cb-audit"),
                               .tenant = cb_slice_str("-"),
                               .action = cb_slice_str("audit.tail"),
                               .detail = {(const uint8_t *)detail, (size_t)n},
                               .before = {hash, sizeof hash},
                               .outcome = CB_AUDIT_DONE};
    log->dirty = true;
    rc = take_back(log);
    log->stats.cut_bytes = bytes;
    return rc < 0 ? rc : cb_audit_write(log, &r, NULL);
}

/* A flawed log that was opened all the same is remembered by the first record of the next. */
typedef struct flawed {
    char name[CB_AUDIT_PATH], why[256];
    uint8_t hash[CB_AUDIT_HASH];
} flawed;

static int record_flaw(cb_audit *log, const flawed *f) {
    const char *slash = strrchr(f->name, '/');
    const cb_slice object = cb_slice_str(slash ? slash + 1 : f->name);
    const cb_audit_record r = {.size = sizeof r,
                               .actor = cb_slice_str("cb-audit"),
                               .tenant = cb_slice_str("-"),
                               .action = cb_slice_str("audit.flaw"),
                               .object = {object.base, object.len < CB_AUDIT_OBJECT_MAX ? object.len : 0},
                               .detail = cb_slice_str(f->why),
                               .before = {f->hash, *f->name ? sizeof f->hash : 0},
                               .outcome = CB_AUDIT_DONE};
    return cb_audit_write(log, &r, NULL);
}

/* Opens and locks the file that has the path now: a rotation may just give it to another. */
static int open_locked(cb_audit *log, struct stat *st) {
    struct stat named;
    log->fd = open(log->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, (mode_t)log->opts.mode);
    if (log->fd < 0) return cb_fail_errno(errno, "%s", log->path);
    if (flock(log->fd, LOCK_EX | LOCK_NB) < 0)
        return errno == EWOULDBLOCK ? cb_fail(CB_EEXIST, "%s: somebody else writes this log", log->path)
                                    : cb_fail_errno(errno, "%s", log->path);
    if (fstat(log->fd, st) < 0 || stat(log->path, &named) < 0) return cb_fail_errno(errno, "%s", log->path);
    if (st->st_ino != named.st_ino || st->st_dev != named.st_dev)
        return cb_fail(CB_EEXIST, "%s: somebody else writes this log", log->path);
    return S_ISREG(st->st_mode) ? CB_OK : cb_fail(CB_EINVAL, "%s: not a regular file", log->path);
}

static int go_on(cb_audit *log, const cb_audit_set *set, uint64_t *tail) {
    cb_audit_report report = {.size = sizeof report};
    cb_audit_place place;
    const cb_audit_verify_opts vo = {.size = sizeof vo, .key = log->pub};
    int rc = cb_audit_fd_verify(log->fd, log->path, &vo, &report, &place);
    if (rc == CB_OK) rc = cb_audit_set_joined(log->fd, log->path, set);
    if (rc < 0) return rc;
    log->size = place.committed;
    log->seq = place.seq;
    log->head = report.head;
    log->number = place.number;
    log->begun_us = place.begun_us;
    memcpy(log->id, place.id, CB_AUDIT_ID);
    memcpy(log->chain, place.chain, CB_AUDIT_HASH);
    *tail = report.tail_bytes;
    return CB_OK;
}

/* Another log in the place of a flawed one, whose file is kept. */
static int begin_despite(cb_audit *log, uint64_t number, flawed *f) {
    struct stat st;
    snprintf(f->why, sizeof f->why, "%s", cb_last_error());
    int rc = cb_audit_set_aside(log->fd, log->path, now_us(), f->name, f->hash);
    close(log->fd);
    log->fd = -1;
    if (rc == CB_OK) rc = open_locked(log, &st);
    return rc < 0 ? rc : begin_log(log, number);
}

static int use_set(cb_audit *log, const cb_audit_set *set, uint64_t *tail, flawed *f) {
    const uint64_t last = set->len ? set->numbers[set->len - 1] : 0;
    struct stat st;
    if (last && !log->opts.despite_flaw && access(log->path, F_OK) < 0 && errno == ENOENT)
        return cb_fail(CB_EPROTO, "%s: the last file is gone; file %" PRIu64 " is there", log->path, last);
    int rc = open_locked(log, &st);
    if (rc < 0) return rc;
    if (st.st_size == 0 && last && !log->opts.despite_flaw)
        return cb_fail(CB_EPROTO, "%s: the last file is empty; file %" PRIu64 " is there", log->path, last);
    if (st.st_size == 0) {
        if (last) snprintf(f->why, sizeof f->why, "the last file is gone; file %" PRIu64 " is there", last);
        return begin_log(log, last + 1);
    }
    rc = go_on(log, set, tail);
    return rc == CB_EPROTO && log->opts.despite_flaw ? begin_despite(log, last + 1, f) : rc;
}

static int use_file(cb_audit *log, uint64_t *tail, flawed *f) {
    cb_audit_set set;
    int rc = cb_audit_set_list(&set, log->path);
    if (rc == CB_OK) rc = cb_audit_set_recover(log->path, &set);
    if (rc == CB_OK) { /* what was undone is not there any more */
        cb_audit_set_free(&set);
        rc = cb_audit_set_list(&set, log->path);
    }
    if (rc == CB_OK) rc = use_set(log, &set, tail, f);
    cb_audit_set_free(&set);
    return rc;
}

static int start_thread(cb_audit *log) {
    int rc = cb_thread_start(&log->thread, "cb-audit", run, log);
    log->threaded = rc == CB_OK;
    return rc;
}

static int check_opts(cb_audit_opts *o, const cb_audit_opts *opts) {
    int rc = cb_opts_read(o, sizeof *o, opts, "cb_audit_opts");
    if (rc < 0) return rc;
    if (!o->path || !*o->path) return cb_fail(CB_EINVAL, "cb_audit_opts: path is missing");
    if (!o->key_file || !*o->key_file) return cb_fail(CB_EINVAL, "cb_audit_opts: key_file is missing");
    if (!o->queue_bytes) o->queue_bytes = QUEUE_DEFAULT;
    if (o->queue_bytes < QUEUE_MIN) return cb_fail(CB_EINVAL, "cb_audit_opts: queue_bytes must be 65,536 at least");
    if (!o->checkpoint_records) o->checkpoint_records = CHECKPOINT_DEFAULT;
    if (!o->mode) o->mode = 0640;
    return CB_OK;
}

int cb_audit_open(cb_audit **out, const cb_audit_opts *opts) {
    cb_audit_opts o;
    uint64_t tail = 0;
    flawed flaw = {.name = ""};
    if (!out) return cb_fail(CB_EINVAL, "cb_audit_open: out is NULL");
    int rc = check_opts(&o, opts);
    if (rc < 0) return rc;
    cb_audit *log = cb_mem_new(&cb_alloc_libc, sizeof *log);
    if (!log) return cb_fail(CB_ENOMEM, "no memory for an audit log");
    log->opts = o;
    log->fd = -1;
    pthread_mutex_init(&log->lock, NULL);
    pthread_cond_init(&log->work, NULL);
    pthread_cond_init(&log->turned, NULL);
    batch_init(&log->queue, o.queue_bytes);
    batch_init(&log->under_way, o.queue_bytes);
    cb_buf_init(&log->out, &cb_alloc_libc, SIZE_MAX / 4);
    log->path = cb_mem_text(&cb_alloc_libc, o.path);
    log->head_file = cb_mem_text(&cb_alloc_libc, o.head_file);
    rc = log->path && (log->head_file || !o.head_file) ? cb_audit_key_open(&log->key, log->pub, o.key_file)
                                                       : cb_fail(CB_ENOMEM, "no memory for a path");
    if (rc == CB_OK) rc = use_file(log, &tail, &flaw);
    if (rc == CB_OK) rc = start_thread(log);
    if (rc == CB_OK && tail) rc = cut_tail(log, tail);
    if (rc == CB_OK && *flaw.why) rc = record_flaw(log, &flaw);
    if (rc < 0) {
        cb_audit_free(log);
        return rc;
    }
    *out = log;
    return CB_OK;
}

void cb_audit_free(cb_audit *log) {
    if (!log) return;
    cb_shown_end(log->shown);
    if (log->threaded) {
        pthread_mutex_lock(&log->lock);
        log->ending = true;
        pthread_cond_signal(&log->work);
        pthread_mutex_unlock(&log->lock);
        pthread_join(log->thread, NULL);
    }
    if (log->fd >= 0) close(log->fd);
    if (log->key) gnutls_privkey_deinit(log->key);
    cb_buf_free(&log->queue.frames);
    cb_buf_free(&log->under_way.frames);
    cb_buf_free(&log->out);
    cb_mem_free(&cb_alloc_libc, log->path);
    cb_mem_free(&cb_alloc_libc, log->head_file);
    pthread_cond_destroy(&log->turned);
    pthread_cond_destroy(&log->work);
    pthread_mutex_destroy(&log->lock);
    cb_mem_free(&cb_alloc_libc, log);
}

/* ---- asking ---- */

void cb_audit_head_get(cb_audit *log, cb_audit_head *head) {
    pthread_mutex_lock(&log->lock);
    *head = log->head;
    pthread_mutex_unlock(&log->lock);
}

void cb_audit_key(const cb_audit *log, uint8_t out[CB_AUDIT_HASH]) {
    memcpy(out, log->pub, CB_AUDIT_HASH);
}

const char *cb_audit_path(const cb_audit *log) {
    return log->path;
}

int cb_audit_stats_get(cb_audit *log, cb_audit_stats *out) {
    pthread_mutex_lock(&log->lock);
    cb_audit_stats all = log->stats;
    pthread_mutex_unlock(&log->lock);
    return cb_stats_give(out, &all, sizeof all, "cb_audit_stats");
}

static int stats_for_metrics(void *log, void *out) {
    return cb_audit_stats_get(log, out);
}

int cb_audit_metrics(cb_audit *log, cb_metrics *m, const char *name) {
    static const cb_shown_row rows[] = {{CB_F_AUDIT_RECORDS, offsetof(cb_audit_stats, records), NULL},
                                        {CB_F_AUDIT_COMMITS, offsetof(cb_audit_stats, commits), NULL},
                                        {CB_F_AUDIT_FAILED, offsetof(cb_audit_stats, failed), NULL},
                                        {CB_F_AUDIT_CUT, offsetof(cb_audit_stats, cut_bytes), NULL},
                                        {CB_F_AUDIT_ROTATIONS, offsetof(cb_audit_stats, rotated), "ok"},
                                        {CB_F_AUDIT_ROTATIONS, offsetof(cb_audit_stats, rotate_failed), "failed"},
                                        {CB_F_AUDIT_HEADS, offsetof(cb_audit_stats, head_failed), NULL}};
    static const cb_shown_what what = {rows, sizeof rows / sizeof *rows, sizeof(cb_audit_stats), stats_for_metrics};
    if (!log) return cb_fail(CB_EINVAL, "cb_audit_metrics: log is needed");
    return cb_shown_begin(&log->shown, m, name, &what, log);
}
