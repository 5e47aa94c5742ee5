/* What clients keep to resume, shared by the clients of a process and, with a file, by processes.
 *
 * Loops take from memory and put into memory; a thread of the store's own writes the file, some time after something
 * has changed. Two processes must not use one session, though both have read it: whoever takes one that is in the file
 * claims it by a lock on a byte of FILE.lock that stands for its id, and gives the lock back when the file has been
 * written without it. Whoever gets a lock looks whether the file has changed since it was read, and then reads again.
 */
#include "transport/sessions.h"
#include "base/error.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/opts.h"
#include "base/thread.h"
#include <errno.h>
#include <fcntl.h>
#include <gnutls/crypto.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { MAX_DEFAULT = 256, MAX_MOST = 4096, GATHER_MS = 100, REREADS = 4 };

struct cb_sessions {
    atomic_uint refs;
    uint32_t max;
    char *path; /* NULL: in memory only */
    int lock_fd;
    const cb_log *log;
    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t work, done;
    pthread_t thread;
    bool threaded, dirty, stopping;
    uint64_t asked, answered; /* flushes */
    int last_rc;              /* of the last writing or reading */
    char problem[512];        /* its reason; "" = none */
    cb_list all;              /* cb_saved_session, oldest first */
    size_t len;
    uint64_t *taken; /* ids that are claimed here and are in the file still; room for max */
    size_t taken_len;
    cb_sessions_stamp stamp; /* of the file as it was read or written last */
};

/* --- locks in FILE.lock: byte 0 is the writer's, the others stand for ids --- */

static int lock_byte(cb_sessions *s, uint64_t at, short type, bool wait) {
    struct flock l = {.l_type = type, .l_whence = SEEK_SET, .l_start = (off_t)at, .l_len = 1};
    int rc;
    do {
        rc = fcntl(s->lock_fd, wait ? F_OFD_SETLKW : F_OFD_SETLK, &l);
    } while (rc < 0 && errno == EINTR);
    return rc;
}

static uint64_t claim_byte(uint64_t id) {
    return 1 + (id >> 2);
}

static bool claim(cb_sessions *s, uint64_t id) {
    return s->taken_len < s->max && lock_byte(s, claim_byte(id), F_WRLCK, false) == 0;
}

static void unclaim(cb_sessions *s, uint64_t id) {
    (void)lock_byte(s, claim_byte(id), F_UNLCK, false);
}

/* --- the list; all with the lock --- */

static void drop(cb_sessions *s, cb_saved_session *e) {
    s->len--;
    cb_saved_session_free(e);
}

static cb_saved_session *by_id(cb_list *all, uint64_t id) {
    for (cb_list *l = all->next; l != all; l = l->next) {
        cb_saved_session *e = CB_CONTAINER(l, cb_saved_session, link);
        if (e->id == id) return e;
    }
    return NULL;
}

static bool is_taken(const cb_sessions *s, uint64_t id) {
    for (size_t i = 0; i < s->taken_len; i++) {
        if (s->taken[i] == id) return true;
    }
    return false;
}

static bool expired(const cb_saved_session *e, int64_t now) {
    return e->expires <= now || e->made > now + CB_SESSION_LIFE_MAX_S; /* a clock that went back far */
}

static void insert(cb_sessions *s, cb_saved_session *e) {
    cb_list *at = s->all.prev;
    while (at != &s->all && CB_CONTAINER(at, cb_saved_session, link)->made > e->made) {
        at = at->prev;
    }
    cb_list_add_tail(at->next, &e->link);
    s->len++;
}

static void trim(cb_sessions *s) {
    int64_t now = (int64_t)time(NULL);
    for (cb_list *l = s->all.next, *next; l != &s->all; l = next) {
        next = l->next;
        cb_saved_session *e = CB_CONTAINER(l, cb_saved_session, link);
        if (s->len > s->max || expired(e, now)) drop(s, e);
    }
}

/* Makes memory follow what was read from the file: what others added comes in, what others took goes. */
static void follow(cb_sessions *s, cb_list *found) {
    for (cb_list *l = s->all.next, *next; l != &s->all; l = next) {
        next = l->next;
        cb_saved_session *e = CB_CONTAINER(l, cb_saved_session, link);
        cb_saved_session *same = by_id(found, e->id);
        if (same)
            e->stored = true;
        else if (e->stored)
            drop(s, e);
        cb_saved_session_free(same);
    }
    while (!cb_list_empty(found)) {
        cb_saved_session *e = CB_CONTAINER(found->next, cb_saved_session, link);
        cb_list_del(&e->link);
        if (is_taken(s, e->id))
            cb_saved_session_free(e);
        else
            insert(s, e);
    }
    trim(s);
}

/* A file may be absent, or damaged (then the next writing mends it); any other failure leaves it alone. */
static bool usable(int read_rc) {
    return read_rc == CB_OK || read_rc == CB_ENOENT || read_rc == CB_EPROTO;
}

/* Says each problem once. */
static void note(cb_sessions *s, int rc) {
    const char *why = rc == CB_OK || rc == CB_ENOENT ? "" : cb_last_error();
    s->last_rc = *why ? rc : CB_OK;
    if (*why && strcmp(why, s->problem) != 0) cb_log_line(s->log, CB_LOG_WARN, "tls", "saved sessions: %s", why);
    snprintf(s->problem, sizeof s->problem, "%s", why);
}

static void reread(cb_sessions *s) {
    cb_list found;
    cb_list_init(&found);
    int rc = cb_sessions_file_read(&found, s->path, &s->stamp);
    if (usable(rc)) follow(s, &found);
    note(s, rc);
    cb_saved_sessions_free(&found);
}

/* --- the thread that writes --- */

static int write_merged(cb_sessions *s) {
    cb_buf content;
    cb_list found;
    cb_sessions_stamp stamp;
    cb_list_init(&found);
    cb_buf_init(&content, &cb_alloc_libc, CB_SESSIONS_FILE_MAX);
    int rc = cb_sessions_file_read(&found, s->path, &stamp);
    if (!usable(rc)) return rc;
    pthread_mutex_lock(&s->lock);
    follow(s, &found);
    size_t gone = s->taken_len;
    rc = cb_sessions_encode(&content, &s->all);
    pthread_mutex_unlock(&s->lock);
    if (rc == CB_OK) rc = cb_sessions_file_write(s->path, cb_buf_slice(&content), &stamp);
    if (content.base) cb_mem_wipe(content.base, content.len);
    cb_buf_free(&content);
    pthread_mutex_lock(&s->lock);
    for (cb_list *l = s->all.next; l != &s->all; l = l->next) {
        cb_saved_session *e = CB_CONTAINER(l, cb_saved_session, link);
        e->stored = e->stored || (e->writing && rc == CB_OK);
        e->writing = false;
    }
    if (rc == CB_OK) {
        s->stamp = stamp;
        for (size_t i = 0; i < gone; i++) {
            unclaim(s, s->taken[i]);
        }
        s->taken_len -= gone;
        memmove(s->taken, s->taken + gone, s->taken_len * sizeof *s->taken);
    }
    pthread_mutex_unlock(&s->lock);
    return rc;
}

static int write_out(cb_sessions *s) {
    if (lock_byte(s, 0, F_WRLCK, true) < 0) return cb_fail_errno(errno, "%s.lock", s->path);
    int rc = write_merged(s);
    (void)lock_byte(s, 0, F_UNLCK, false);
    return rc;
}

static void gather(cb_sessions *s) {
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += GATHER_MS * 1000000L;
    if (until.tv_nsec >= 1000000000L) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000L;
    }
    while (!s->stopping && s->asked == s->answered) {
        if (pthread_cond_timedwait(&s->work, &s->lock, &until) != 0) break;
    }
}

static void *run(void *user) {
    cb_sessions *s = user;
    pthread_mutex_lock(&s->lock);
    for (;;) {
        while (!s->dirty && !s->stopping && s->asked == s->answered) {
            pthread_cond_wait(&s->work, &s->lock);
        }
        if (!s->dirty && s->stopping) break;
        if (s->dirty) gather(s);
        uint64_t upto = s->asked;
        if (s->dirty) {
            s->dirty = false;
            pthread_mutex_unlock(&s->lock);
            int rc = write_out(s);
            pthread_mutex_lock(&s->lock);
            note(s, rc);
        }
        s->answered = upto;
        pthread_cond_broadcast(&s->done);
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

/* Something must be written. Called with the lock. */
static void touched(cb_sessions *s) {
    if (!s->path) return;
    s->dirty = true;
    if (s->threaded) {
        pthread_cond_signal(&s->work);
        return;
    }
    int rc = cb_thread_start(&s->thread, "cb-sessions", run, s);
    if (rc < 0) {
        note(s, rc);
        return;
    }
    s->threaded = true;
}

/* --- taking and keeping --- */

/* Is e, which is in the file, ours to use? What is not goes away. */
static bool win(cb_sessions *s, cb_saved_session *e) {
    uint64_t id = e->id;
    if (!claim(s, id)) {
        drop(s, e);
        return false;
    }
    if (cb_sessions_file_changed(s->path, &s->stamp)) {
        reread(s);
        if (!by_id(&s->all, id)) {
            unclaim(s, id);
            return false;
        }
    }
    s->taken[s->taken_len++] = id;
    return true;
}

/* common > 0: only so many bytes of the key must be equal. */
static cb_saved_session *newest(cb_sessions *s, const char *key, size_t common, int64_t now) {
    const size_t key_len = strlen(key) + 1;
    for (cb_list *l = s->all.prev; l != &s->all; l = l->prev) {
        cb_saved_session *e = CB_CONTAINER(l, cb_saved_session, link);
        const bool same = common ? e->key_len > common && memcmp(e->bytes, key, common) == 0
                                 : e->key_len == key_len && memcmp(e->bytes, key, key_len) == 0;
        if (same && !expired(e, now)) return e;
    }
    return NULL;
}

cb_saved_session *cb_sessions_take(cb_sessions *s, const char *key, size_t common) {
    cb_saved_session *e = NULL;
    pthread_mutex_lock(&s->lock);
    for (int tries = 0; tries < REREADS; tries++) {
        e = newest(s, key, common, (int64_t)time(NULL));
        if (!e || !(e->stored || e->writing) || win(s, e)) break;
        e = NULL;
    }
    if (e) {
        cb_list_del(&e->link);
        s->len--;
        touched(s);
    }
    pthread_mutex_unlock(&s->lock);
    return e;
}

int cb_sessions_put(cb_sessions *s, const char *key, cb_slice session, cb_slice extra, uint32_t lifetime_s) {
    size_t key_len = strlen(key) + 1;
    if (session.len == 0 || lifetime_s == 0) return CB_OK;
    if (key_len > UINT16_MAX || session.len > UINT16_MAX || extra.len > UINT16_MAX) {
        return cb_fail(CB_ELIMIT, "a TLS session of %zu bytes is too large to keep", session.len);
    }
    cb_saved_session *e = cb_saved_session_new((cb_slice){(const uint8_t *)key, key_len}, session, extra);
    if (!e) return cb_fail(CB_ENOMEM, "no memory to keep a TLS session");
    e->made = (int64_t)time(NULL);
    e->expires = e->made + (lifetime_s < CB_SESSION_LIFE_MAX_S ? lifetime_s : CB_SESSION_LIFE_MAX_S);
    if (gnutls_rnd(GNUTLS_RND_NONCE, &e->id, sizeof e->id) < 0) {
        cb_saved_session_free(e);
        return cb_fail(CB_ETLS, "no random bytes to keep a TLS session");
    }
    pthread_mutex_lock(&s->lock);
    insert(s, e);
    trim(s);
    touched(s);
    pthread_mutex_unlock(&s->lock);
    return CB_OK;
}

size_t cb_sessions_len(cb_sessions *s) {
    pthread_mutex_lock(&s->lock);
    size_t n = s->len;
    pthread_mutex_unlock(&s->lock);
    return n;
}

/* --- cb/tls.h --- */

static void sessions_free(cb_sessions *s) {
    if (s->threaded) {
        pthread_mutex_lock(&s->lock);
        s->stopping = true;
        pthread_cond_signal(&s->work);
        pthread_mutex_unlock(&s->lock);
        pthread_join(s->thread, NULL);
    }
    cb_saved_sessions_free(&s->all);
    if (s->lock_fd >= 0) close(s->lock_fd);
    pthread_mutex_destroy(&s->lock);
    pthread_cond_destroy(&s->work);
    pthread_cond_destroy(&s->done);
    cb_mem_free(&cb_alloc_libc, s->taken);
    cb_mem_free(&cb_alloc_libc, s->path);
    cb_mem_free(&cb_alloc_libc, s);
}

static int open_file(cb_sessions *s, const char *file) {
    char name[4096];
    if (!*file) return cb_fail(CB_EINVAL, "cb_sessions_opts.file: empty (NULL keeps them in memory)");
    int len = snprintf(name, sizeof name, "%s.lock", file);
    if (len < 0 || (size_t)len >= sizeof name) return cb_fail(CB_EINVAL, "cb_sessions_opts.file: the path is too long");
    s->path = cb_mem_text(&cb_alloc_libc, file);
    s->taken = cb_mem_new(&cb_alloc_libc, s->max * sizeof *s->taken);
    if (!s->path || !s->taken) return cb_fail(CB_ENOMEM, "no memory for saved sessions");
    s->lock_fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
    if (s->lock_fd < 0) return cb_fail_errno(errno, "%s", name);
    reread(s);
    return CB_OK;
}

int cb_sessions_new(cb_sessions **out, const cb_sessions_opts *opts) {
    pthread_condattr_t monotonic;
    cb_sessions_opts o;
    if (!out) return cb_fail(CB_EINVAL, "cb_sessions_new: out is NULL");
    int rc = cb_opts_read(&o, sizeof o, opts, "cb_sessions_opts");
    if (rc < 0) return rc;
    if (o.max_sessions > MAX_MOST) {
        return cb_fail(CB_EINVAL, "cb_sessions_opts.max_sessions %u: at most %d", o.max_sessions, MAX_MOST);
    }
    cb_sessions *s = cb_mem_new(&cb_alloc_libc, sizeof *s);
    if (!s) return cb_fail(CB_ENOMEM, "no memory for saved sessions");
    atomic_init(&s->refs, 1);
    s->max = o.max_sessions ? o.max_sessions : MAX_DEFAULT;
    s->log = o.log;
    s->lock_fd = -1;
    cb_list_init(&s->all);
    pthread_mutex_init(&s->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&s->work, &monotonic);
    pthread_cond_init(&s->done, NULL);
    pthread_condattr_destroy(&monotonic);
    if (o.file) rc = open_file(s, o.file);
    if (rc < 0) {
        sessions_free(s);
        return rc;
    }
    *out = s;
    return CB_OK;
}

int cb_sessions_flush(cb_sessions *s) {
    if (!s) return cb_fail(CB_EINVAL, "cb_sessions_flush: s is NULL");
    pthread_mutex_lock(&s->lock);
    if (s->threaded) {
        uint64_t ticket = ++s->asked;
        pthread_cond_signal(&s->work);
        while (s->answered < ticket) {
            pthread_cond_wait(&s->done, &s->lock);
        }
    }
    int rc = s->last_rc < 0 ? cb_fail(s->last_rc, "%s", s->problem) : CB_OK;
    pthread_mutex_unlock(&s->lock);
    return rc;
}

cb_sessions *cb_sessions_ref(cb_sessions *s) {
    atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
    return s;
}

void cb_sessions_unref(cb_sessions *s) {
    if (s && atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) == 1) sessions_free(s);
}
