/* A store's thread: questions in a queue, answers posted to loops, changes told to watchers. */
#include "base/error.h"
#include "base/list.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/opts.h"
#include "base/thread.h"
#include "base/utf8.h"
#include "loop/loop_int.h"
#include "store/store_db.h"
#include "telemetry/shown.h"
#include <stdio.h>
#include <string.h>

enum { QUESTIONS = 1024, MOST = 1000, MIB_MOST = 1 << 20, WATCH_PIECE = 256, WHY_BYTES = 512 };
static const cb_alloc *const heap = &cb_alloc_libc;

enum kind { PUT, GET, LIST, HISTORY };

/* A question, then its answer. In one list of the store at a time: waiting, or answered until its loop has run it. */
struct cb_store_ask {
    cb_list node;
    cb_store *store;
    cb_loop *loop; /* NULL: the caller waits */
    enum kind kind;
    cb_slice key, second, note; /* copied behind the struct; second: value, or where a list goes on */
    uint64_t number;            /* expected, at, before */
    int64_t time_ms;
    uint32_t most;
    bool remove;
    cb_store_done done; /* NULL: cancelled */
    void *user;
    enum { WAITS, SERVED, POSTED } state;
    bool answered;
    int rc;
    char why[WHY_BYTES];
    cb_store_rows rows;
    uint64_t revision, oldest;
};

/* Entries that go to a watcher: read by the store's thread, told by its loop. */
struct cb_store_watch {
    cb_list node;
    cb_store *store;
    cb_loop *loop;
    cb_slice prefix; /* copied behind the struct */
    uint64_t next;   /* the first revision that was not told yet; of the store's thread */
    cb_store_change changed;
    void *user;
    /* guarded by the store's lock */
    cb_store_rows rows;
    int rc;
    char why[WHY_BYTES];
    bool posted; /* its loop has a task for it */
    bool freed;  /* by its owner; the task frees the memory */
    bool over;   /* after an error */
};

struct cb_store {
    cb_shown *shown; /* NULL: in no registry */
    cb_store_db *db;
    const cb_log *log;
    uint32_t max_questions;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t work, answered;
    cb_list waiting, posted, watches;
    uint32_t n_waiting;
    bool ending, look; /* look: a watcher is new */
    bool read_only;
    cb_store_stats stats;
};

/* ---- on the store's thread ---- */

static int answer(cb_store *s, cb_store_ask *a) {
    const cb_store_put_opts put = {.size = sizeof put,
                                   .key = a->key,
                                   .value = a->remove ? (cb_slice){0} : a->second,
                                   .note = a->note,
                                   .expected = a->number,
                                   .time_ms = a->time_ms};
    switch (a->kind) {
    case PUT:
        return cb_store_db_put(s->db, &put, &a->rows);
    case GET:
        return cb_store_db_get(s->db, a->key, a->number, &a->rows);
    case LIST:
        return cb_store_db_list(s->db, a->key, a->second, a->most, &a->rows);
    case HISTORY:
        return cb_store_db_history(s->db, a->key, a->number, a->most, &a->rows);
    }
    return CB_EINVAL;
}

static void ask_free(cb_store_ask *a) {
    cb_store_rows_free(&a->rows);
    cb_mem_free(heap, a);
}

/* On the asker's thread. */
static void tell(cb_store_ask *a) {
    const cb_store_answer out = {
        .size = sizeof out, .entries = a->rows.at, .n = a->rows.n, .revision = a->revision, .oldest = a->oldest};
    if (a->rc < 0) cb_fail(a->rc, "%s", a->why);
    if (a->done) a->done(a->rc, &out, a->user);
}

/* Its loop has it now, or drops it. */
static void leave_posted(cb_store_ask *a) {
    cb_store *s = a->store; /* NULL: freed meanwhile */
    if (!s) return;
    pthread_mutex_lock(&s->lock);
    cb_list_del(&a->node);
    pthread_mutex_unlock(&s->lock);
}

static void on_answer(cb_loop *loop, void *user) {
    (void)loop;
    cb_store_ask *a = user;
    leave_posted(a);
    tell(a);
    ask_free(a);
}

static void drop_answer(void *user) {
    leave_posted(user);
    ask_free(user);
}

static void count(cb_store *s, const cb_store_ask *a) {
    if (a->rc == CB_EEXIST) s->stats.conflicts++;
    if (a->kind == PUT && a->rc == CB_OK) s->stats.changes++;
    if (a->rc < 0 && a->rc != CB_EEXIST && a->rc != CB_ENOENT) s->stats.failures++;
}

/* With the lock held; without it while the disk works. */
static void serve(cb_store *s, cb_store_ask *a) {
    uint64_t revision = 0, oldest = 0, bytes = 0;
    cb_list_del(&a->node);
    a->state = SERVED;
    pthread_mutex_unlock(&s->lock);
    a->rc = answer(s, a);
    if (a->rc < 0) snprintf(a->why, sizeof a->why, "%s", cb_last_error());
    bool state = cb_store_db_state(s->db, &revision, &oldest, &bytes) == CB_OK;
    a->revision = revision;
    a->oldest = oldest;
    if (a->rc == CB_ESYS || a->rc == CB_EPROTO || a->rc == CB_ELIMIT)
        cb_log_line(s->log, CB_LOG_ERROR, "store", "%s", a->why);
    pthread_mutex_lock(&s->lock);
    s->n_waiting--;
    count(s, a);
    if (state) {
        s->stats.revision = revision;
        s->stats.oldest = oldest;
        s->stats.file_bytes = bytes;
    }
    a->answered = true;
    if (!a->loop) {
        pthread_cond_broadcast(&s->answered);
        return;
    }
    a->state = POSTED;
    cb_list_add_tail(&s->posted, &a->node);
    /* Who has cancelled it may have freed the loop; a loop that takes no task is going. */
    if (!a->done || cb_loop_post_owner(a->loop, on_answer, drop_answer, a) < 0) {
        cb_list_del(&a->node);
        ask_free(a);
    }
}

static void watch_free(cb_store_watch *w) {
    cb_store_rows_free(&w->rows);
    cb_mem_free(heap, w);
}

/* Tells what was read. The owner may free it, or the store, in each call. */
static void on_changes(cb_loop *loop, void *user) {
    (void)loop;
    cb_store_watch *w = user;
    cb_store *s = w->store;
    if (!s) { /* freed meanwhile */
        watch_free(w);
        return;
    }
    pthread_mutex_lock(&s->lock);
    cb_store_rows rows = w->rows;
    int rc = w->rc;
    w->rows = (cb_store_rows){0};
    pthread_mutex_unlock(&s->lock);
    for (size_t i = 0; i < rows.n && !w->freed && w->store; i++)
        w->changed(w, CB_OK, &rows.at[i], w->user);
    if (rc < 0 && !w->freed && w->store) {
        cb_fail(rc, "%s", w->why);
        w->changed(w, rc, NULL, w->user);
    }
    cb_store_rows_free(&rows);
    if (!w->store) {
        watch_free(w);
        return;
    }
    pthread_mutex_lock(&s->lock);
    w->posted = false;
    s->look = true; /* there may be more */
    if (w->freed) cb_list_del(&w->node);
    bool freed = w->freed;
    pthread_cond_signal(&s->work);
    pthread_mutex_unlock(&s->lock);
    if (freed) watch_free(w);
}

/* The loop ends, so the owner has freed it. */
static void drop_changes(void *user) {
    cb_store_watch *w = user;
    if (w->store) {
        pthread_mutex_lock(&w->store->lock);
        cb_list_del(&w->node);
        pthread_mutex_unlock(&w->store->lock);
    }
    watch_free(w);
}

/* Reads what a watcher has not been told. With the lock held; without it while the disk works: the watcher is marked as
 * posted then, so it stays. */
static void look_for(cb_store *s, cb_store_watch *w) {
    cb_store_rows rows = {0};
    w->posted = true;
    pthread_mutex_unlock(&s->lock);
    int rc = cb_store_db_changes(s->db, w->prefix, w->next, WATCH_PIECE, &rows);
    pthread_mutex_lock(&s->lock);
    if (w->freed) {
        cb_list_del(&w->node);
        cb_store_rows_free(&rows);
        watch_free(w);
        return;
    }
    if (rc < 0) snprintf(w->why, sizeof w->why, "%s", cb_last_error());
    if (rows.n > 0) w->next = rows.at[rows.n - 1].revision + 1;
    w->rows = rows;
    w->rc = rc;
    w->over = rc < 0;
    if ((rc < 0 || rows.n > 0) && cb_loop_post_owner(w->loop, on_changes, drop_changes, w) == CB_OK) return;
    cb_store_rows_free(&w->rows);
    w->posted = false;
}

static void look(cb_store *s) {
    s->look = false;
    for (cb_list *n = s->watches.next, *next; n != &s->watches; n = next) {
        cb_store_watch *w = CB_CONTAINER(n, cb_store_watch, node);
        cb_list mark; /* stays where we are while the lock is open */
        mark.next = n->next;
        mark.prev = n;
        n->next->prev = &mark;
        n->next = &mark;
        if (!w->posted && !w->over && !w->freed) look_for(s, w);
        next = mark.next;
        cb_list_del(&mark);
    }
}

static void *work(void *user) {
    cb_store *s = user;
    pthread_mutex_lock(&s->lock);
    while (!s->ending) {
        if (!cb_list_empty(&s->waiting)) {
            cb_store_ask *a = CB_CONTAINER(s->waiting.next, cb_store_ask, node);
            bool changes = a->kind == PUT;
            serve(s, a);
            if (changes) s->look = true;
        } else if (s->look) {
            look(s);
        } else {
            pthread_cond_wait(&s->work, &s->lock);
        }
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

/* ---- asking ---- */

static bool is_text(cb_slice s, size_t max) {
    return s.len <= max && (s.len == 0 || (!memchr(s.base, 0, s.len) && cb_utf8_valid(s.base, s.len)));
}

/* A question with its bytes behind it. */
static int ask_new(cb_store_ask **out, cb_store *s, const cb_store_ask *like, cb_store_done done) {
    if (!s || !done) return cb_fail(CB_EINVAL, "store: it, and done, are needed");
    if (like->kind != LIST && like->key.len == 0) return cb_fail(CB_EINVAL, "store: a key is needed");
    if (!is_text(like->key, CB_STORE_KEY_BYTES))
        return cb_fail(CB_EINVAL, "store: a key is UTF-8 without NUL, at most %d bytes", CB_STORE_KEY_BYTES);
    if (like->second.len > CB_STORE_VALUE_BYTES)
        return cb_fail(CB_EINVAL, "store: a value of %zu bytes; %d are the most", like->second.len,
                       CB_STORE_VALUE_BYTES);
    if (!is_text(like->note, CB_STORE_NOTE_BYTES))
        return cb_fail(CB_EINVAL, "store: a note is UTF-8 without NUL, at most %d bytes", CB_STORE_NOTE_BYTES);
    cb_store_ask *a = cb_mem_new(heap, sizeof *a + like->key.len + like->second.len + like->note.len + 1);
    if (!a) return cb_fail(CB_ENOMEM, "no memory for a question to a store");
    *a = *like;
    uint8_t *at = (uint8_t *)(a + 1);
    cb_slice *parts[] = {&a->key, &a->second, &a->note};
    for (size_t i = 0; i < 3; i++) {
        if (parts[i]->len > 0) memcpy(at, parts[i]->base, parts[i]->len);
        parts[i]->base = at;
        at += parts[i]->len;
    }
    a->store = s;
    a->done = done;
    *out = a;
    return CB_OK;
}

static int ask(cb_store *s, cb_store_ask **out, const cb_store_ask *like, cb_store_done done) {
    cb_store_ask *a = NULL;
    int rc = ask_new(&a, s, like, done);
    if (rc < 0) return rc;
    pthread_mutex_lock(&s->lock);
    bool room = s->n_waiting < s->max_questions;
    if (room) {
        s->n_waiting++;
        cb_list_add_tail(&s->waiting, &a->node);
        pthread_cond_signal(&s->work);
        while (!a->loop && !a->answered)
            pthread_cond_wait(&s->answered, &s->lock);
    }
    pthread_mutex_unlock(&s->lock);
    if (!room) {
        ask_free(a);
        return cb_fail(CB_ELIMIT, "store: %u questions wait already", s->max_questions);
    }
    if (like->loop) {
        if (out) *out = a;
        return CB_OK;
    }
    rc = a->rc;
    tell(a);
    ask_free(a);
    return rc;
}

int cb_store_put(cb_store *s, cb_loop *loop, cb_store_ask **out, const cb_store_put_opts *opts, cb_store_done done,
                 void *user) {
    cb_store_put_opts o;
    int rc = cb_opts_read(&o, sizeof o, opts, "cb_store_put_opts");
    if (rc < 0) return rc;
    if (o.time_ms <= 0) return cb_fail(CB_EINVAL, "store: time_ms is needed");
    return ask(s, out,
               &(cb_store_ask){.loop = loop,
                               .kind = PUT,
                               .key = o.key,
                               .second = o.value,
                               .note = o.note,
                               .number = o.expected,
                               .time_ms = o.time_ms,
                               .remove = !o.value.base,
                               .user = user},
               done);
}

int cb_store_get(cb_store *s, cb_loop *loop, cb_store_ask **out, cb_slice key, uint64_t at, cb_store_done done,
                 void *user) {
    return ask(s, out, &(cb_store_ask){.loop = loop, .kind = GET, .key = key, .number = at, .user = user}, done);
}

static int check_most(uint32_t most) {
    return most >= 1 && most <= MOST ? CB_OK
                                     : cb_fail(CB_EINVAL, "store: %u entries; 1 to %d can be asked for", most, MOST);
}

int cb_store_list(cb_store *s, cb_loop *loop, cb_store_ask **out, cb_slice prefix, cb_slice from, uint32_t most,
                  cb_store_done done, void *user) {
    int rc = check_most(most);
    if (rc < 0) return rc;
    return ask(s, out,
               &(cb_store_ask){.loop = loop, .kind = LIST, .key = prefix, .second = from, .most = most, .user = user},
               done);
}

int cb_store_history(cb_store *s, cb_loop *loop, cb_store_ask **out, cb_slice key, uint64_t before, uint32_t most,
                     cb_store_done done, void *user) {
    int rc = check_most(most);
    if (rc < 0) return rc;
    return ask(s, out,
               &(cb_store_ask){.loop = loop, .kind = HISTORY, .key = key, .number = before, .most = most, .user = user},
               done);
}

void cb_store_cancel(cb_store_ask *a) {
    if (!a) return;
    cb_store *s = a->store;
    pthread_mutex_lock(&s->lock);
    bool waits = a->state == WAITS;
    a->done = NULL; /* else the store's thread frees it, or the task on its loop */
    if (waits) {
        cb_list_del(&a->node);
        s->n_waiting--;
    }
    pthread_mutex_unlock(&s->lock);
    if (waits) ask_free(a);
}

int cb_store_watch_new(cb_store_watch **out, cb_store *s, cb_loop *loop, cb_slice prefix, uint64_t from,
                       cb_store_change changed, void *user) {
    if (!out || !s || !loop || !changed)
        return cb_fail(CB_EINVAL, "cb_store_watch_new: out, s, loop and changed are needed");
    if (!is_text(prefix, CB_STORE_KEY_BYTES)) return cb_fail(CB_EINVAL, "store: a prefix is the beginning of a key");
    if (s->read_only) return cb_fail(CB_ENOTSUP, "store: who only reads is not told what another process changes");
    cb_store_watch *w = cb_mem_new(heap, sizeof *w + prefix.len + 1);
    if (!w) return cb_fail(CB_ENOMEM, "no memory to watch a store");
    if (prefix.len > 0) memcpy(w + 1, prefix.base, prefix.len);
    w->prefix = (cb_slice){(const uint8_t *)(w + 1), prefix.len};
    w->store = s;
    w->loop = loop;
    w->changed = changed;
    w->user = user;
    pthread_mutex_lock(&s->lock);
    w->next = from ? from : s->stats.revision + 1;
    cb_list_add_tail(&s->watches, &w->node);
    s->look = true;
    pthread_cond_signal(&s->work);
    pthread_mutex_unlock(&s->lock);
    *out = w;
    return CB_OK;
}

void cb_store_watch_free(cb_store_watch *w) {
    if (!w) return;
    cb_store *s = w->store;
    pthread_mutex_lock(&s->lock);
    bool now = !w->posted; /* else who has it frees it */
    w->freed = true;
    if (now) cb_list_del(&w->node);
    pthread_mutex_unlock(&s->lock);
    if (now) watch_free(w);
}

int cb_store_stats_get(cb_store *s, cb_store_stats *out) {
    if (!s) return cb_fail(CB_EINVAL, "cb_store_stats_get: s is needed");
    pthread_mutex_lock(&s->lock);
    cb_store_stats all = s->stats;
    all.waiting = s->n_waiting;
    pthread_mutex_unlock(&s->lock);
    return cb_stats_give(out, &all, sizeof all, "cb_store_stats");
}

static int stats_for_metrics(void *s, void *out) {
    return cb_store_stats_get(s, out);
}

int cb_store_metrics(cb_store *s, cb_metrics *m, const char *name) {
    static const cb_shown_row rows[] = {{CB_F_STORE_REVISION, offsetof(cb_store_stats, revision), NULL},
                                        {CB_F_STORE_OLDEST, offsetof(cb_store_stats, oldest), NULL},
                                        {CB_F_STORE_CHANGES, offsetof(cb_store_stats, changes), NULL},
                                        {CB_F_STORE_CONFLICTS, offsetof(cb_store_stats, conflicts), NULL},
                                        {CB_F_STORE_FAILURES, offsetof(cb_store_stats, failures), NULL},
                                        {CB_F_STORE_WAITING, offsetof(cb_store_stats, waiting), NULL},
                                        {CB_F_STORE_SIZE, offsetof(cb_store_stats, file_bytes), NULL}};
    static const cb_shown_what what = {rows, sizeof rows / sizeof *rows, sizeof(cb_store_stats), stats_for_metrics};
    if (!s) return cb_fail(CB_EINVAL, "cb_store_metrics: s is needed");
    return cb_shown_begin(&s->shown, m, name, &what, s);
}

/* ---- opening ---- */

int cb_store_open(cb_store **out, const cb_store_file_opts *opts) {
    cb_store_file_opts o;
    int rc = cb_opts_read(&o, sizeof o, opts, "cb_store_file_opts");
    if (rc < 0) return rc;
    if (!out || !o.path || !*o.path) return cb_fail(CB_EINVAL, "cb_store_open: out and path are needed");
    if (o.max_mib > MIB_MOST) return cb_fail(CB_EINVAL, "cb_store_open: max_mib above %d", MIB_MOST);
    cb_store *s = cb_mem_new(heap, sizeof *s);
    if (!s) return cb_fail(CB_ENOMEM, "no memory for a store");
    rc = cb_store_db_open(&s->db, &o);
    if (rc == CB_OK) rc = cb_store_db_state(s->db, &s->stats.revision, &s->stats.oldest, &s->stats.file_bytes);
    s->log = o.log;
    s->read_only = o.read_only;
    s->max_questions = o.max_questions ? o.max_questions : QUESTIONS;
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->work, NULL);
    pthread_cond_init(&s->answered, NULL);
    cb_list_init(&s->waiting);
    cb_list_init(&s->posted);
    cb_list_init(&s->watches);
    if (rc == CB_OK) rc = cb_thread_start(&s->thread, "cb-store", work, s);
    if (rc < 0) {
        cb_store_db_close(s->db);
        cb_mem_free(heap, s);
        return rc;
    }
    *out = s;
    return CB_OK;
}

/* What loops have a task for is theirs to free. */
static void let_go(cb_store *s) {
    while (!cb_list_empty(&s->waiting)) {
        cb_store_ask *a = CB_CONTAINER(s->waiting.next, cb_store_ask, node);
        cb_list_del(&a->node);
        ask_free(a);
    }
    while (!cb_list_empty(&s->posted)) {
        cb_store_ask *a = CB_CONTAINER(s->posted.next, cb_store_ask, node);
        cb_list_del(&a->node);
        a->done = NULL;
        a->store = NULL;
    }
    while (!cb_list_empty(&s->watches)) {
        cb_store_watch *w = CB_CONTAINER(s->watches.next, cb_store_watch, node);
        cb_list_del(&w->node);
        w->store = NULL;
        if (!w->posted) watch_free(w);
    }
}

void cb_store_free(cb_store *s) {
    if (!s) return;
    cb_shown_end(s->shown);
    pthread_mutex_lock(&s->lock);
    s->ending = true;
    pthread_cond_signal(&s->work);
    pthread_mutex_unlock(&s->lock);
    pthread_join(s->thread, NULL);
    let_go(s);
    cb_store_db_close(s->db);
    pthread_cond_destroy(&s->work);
    pthread_cond_destroy(&s->answered);
    pthread_mutex_destroy(&s->lock);
    cb_mem_free(heap, s);
}
