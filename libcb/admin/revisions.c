/* Revisions: the start, and what was. Changes are in revisions_flow.c. */
#include "admin/revisions_int.h"
#include "base/error.h"
#include "base/log.h"
#include "base/opts.h"
#include "config/document.h"
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { BYTES_TOLD = 32 << 20 };
static const cb_alloc *const heap = &cb_alloc_libc;

struct cb_revisions_ask {
    cb_list node; /* first: the list's node is the question */
    cb_store_ask *ask;
    cb_revisions *r;
    uint64_t number; /* the one that is wanted, or 0 */
    uint32_t most;
    cb_revisions_told told;
    void *user;
};

/* ---- life ---- */

static int check_ops(const cb_revisions_ops *ops) {
    if (!ops) return cb_fail(CB_EINVAL, "cb_revisions_new: ops is NULL");
    int rc = cb_ops_check(ops, sizeof *ops, "cb_revisions_ops");
    if (rc < 0) return rc;
    return ops->prepare && ops->commit && ops->abort
               ? CB_OK
               : cb_fail(CB_EINVAL, "cb_revisions_ops: prepare, commit and abort are needed");
}

static int copy_texts(cb_revisions *r, const cb_revisions_opts *o) {
    r->key = cb_mem_text(heap, o->key ? o->key : "config");
    r->file = cb_mem_text(heap, o->file);
    bool good = r->key && r->file;
    for (size_t i = 0; i < o->n_fixed && good; i++) {
        r->fixed[i] = cb_mem_text(heap, o->fixed[i]);
        good = r->fixed[i] != NULL;
        r->n_fixed += good;
    }
    return good ? CB_OK : cb_fail(CB_ENOMEM, "no memory for revisions");
}

int cb_revisions_new(cb_revisions **out, cb_loop *loop, const cb_revisions_opts *opts) {
    cb_revisions_opts o;
    int rc = cb_opts_read(&o, sizeof o, opts, "cb_revisions_opts");
    if (rc < 0) return rc;
    if (!out || !loop || !o.file) return cb_fail(CB_EINVAL, "cb_revisions_new: out, loop and file are needed");
    if (o.n_fixed > CB_REVISIONS_FIXED)
        return cb_fail(CB_EINVAL, "cb_revisions_new: n_fixed is above %d", CB_REVISIONS_FIXED);
    rc = check_ops(o.ops);
    if (rc < 0) return rc;
    cb_revisions *r = cb_mem_new(heap, sizeof *r);
    if (!r) return cb_fail(CB_ENOMEM, "no memory for revisions");
    r->loop = loop;
    r->store = o.store;
    r->ops = o.ops;
    r->user = o.user;
    r->log = o.log;
    r->max_waiting = o.max_waiting ? o.max_waiting : CB_REVISIONS_WAITING;
    cb_list_init(&r->waiting);
    cb_list_init(&r->asks);
    rc = copy_texts(r, &o);
    if (rc < 0) {
        cb_revisions_free(r);
        return rc;
    }
    *out = r;
    return CB_OK;
}

void cb_revisions_free(cb_revisions *r) {
    if (!r) return;
    while (!cb_list_empty(&r->asks))
        cb_revisions_forget((cb_revisions_ask *)(void *)r->asks.next);
    while (!cb_list_empty(&r->waiting))
        cb_revisions_change_free(CB_CONTAINER(r->waiting.next, cb_revisions_change, node));
    if (r->now) cb_revisions_change_free(r->now);
    cb_timer_free(r->kick);
    cb_document_free(r->document);
    for (size_t i = 0; i < r->n_fixed; i++)
        cb_mem_free(heap, r->fixed[i]);
    cb_mem_free(heap, r->http);
    cb_mem_free(heap, r->unwritten);
    cb_mem_free(heap, r->key);
    cb_mem_free(heap, r->file);
    cb_mem_free(heap, r);
}

static void on_head(int rc, const cb_store_answer *a, void *user) {
    cb_revisions *r = user;
    cb_revision_note note;
    char *bytes = NULL;
    if (rc < 0 || cb_revision_note_read(&note, &bytes, a->entries[0].note) < 0) return;
    r->head = a->entries[0].revision;
    memcpy(r->file_hash, note.file, sizeof r->file_hash);
    cb_mem_free(heap, bytes);
}

static void drop_asks(cb_revisions *r) {
    while (!cb_list_empty(&r->asks)) {
        cb_revisions_ask *a = (cb_revisions_ask *)(void *)r->asks.next;
        cb_store_cancel(a->ask);
        cb_list_del(&a->node);
        a->told(cb_fail(CB_EAGAIN, "the store was changed: ask again"), NULL, 0, 0, a->user);
        cb_mem_free(heap, a);
    }
}

int cb_revisions_use(cb_revisions *r, cb_store *store) {
    if (r->now) return cb_fail(CB_EAGAIN, "a change is under way");
    r->store = store;
    if (r->counted) r->number = 0; /* that was no number of a store */
    r->counted = false;
    drop_asks(r);
    int rc = store ? cb_store_get(store, NULL, NULL, cb_slice_str(r->key), 0, on_head, r) : CB_OK;
    if (rc == CB_ENOENT) { /* it is new: what runs is no revision of it */
        r->head = r->number = 0;
        return CB_OK;
    }
    return rc == CB_OK && r->head != r->number ? 1 : rc;
}

void cb_revisions_hold(cb_revisions *r, int hold) {
    r->held = hold != 0;
}

int cb_revisions_busy(const cb_revisions *r) {
    return r->now != NULL;
}

const cb_document *cb_revisions_document(const cb_revisions *r) {
    return r->document;
}

uint64_t cb_revisions_number(const cb_revisions *r) {
    return r->number;
}

int cb_revisions_kept(const cb_revisions *r) {
    return r->store != NULL;
}

/* ---- pieces ---- */

int cb_revisions_hash(char out[CB_REVISION_HASH + 1], cb_slice text) {
    static const char digits[] = "0123456789abcdef";
    uint8_t sum[CB_REVISION_HASH / 2];
    if (gnutls_hash_fast(GNUTLS_DIG_SHA256, text.base ? text.base : sum, text.len, sum) < 0)
        return cb_fail(CB_ESYS, "SHA-256 is not to be had");
    for (size_t i = 0; i < sizeof sum; i++) {
        out[2 * i] = digits[sum[i] >> 4];
        out[2 * i + 1] = digits[sum[i] & 15];
    }
    out[CB_REVISION_HASH] = '\0';
    return CB_OK;
}

int64_t cb_revisions_time(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

int cb_revisions_own_text(char **out, size_t *len, const cb_document *d) {
    int rc = cb_document_text(out, d, "", CB_DOCUMENT_LINES);
    if (rc == CB_OK) *len = strlen(*out);
    return rc;
}

static int fix_one(cb_document *d, const char *name, const cb_document *like) {
    cb_doc_value *wanted = NULL, *there = NULL;
    cb_buf pointer;
    char *text = NULL;
    int changed = 0;
    cb_buf_init(&pointer, heap, 4 * CB_DOC_NAME);
    int rc = cb_doc_push(&pointer, name, strlen(name));
    if (rc == CB_OK) rc = cb_buf_add(&pointer, "", 1);
    if (rc == CB_OK) {
        const char *at = (const char *)pointer.base;
        const bool has = cb_doc_at(&wanted, like->root, at) == CB_OK, had = cb_doc_at(&there, d->root, at) == CB_OK;
        changed = has != had || (has && !cb_doc_equal(wanted, there, false));
        if (changed && has) rc = cb_document_text(&text, like, at, CB_DOCUMENT_COMPACT);
        if (rc == CB_OK && changed)
            rc = has ? cb_document_put(d, at, cb_slice_str(text), NULL) : cb_document_remove(d, at);
    }
    cb_config_text_free(text);
    cb_buf_free(&pointer);
    return rc < 0 ? rc : changed;
}

int cb_revisions_fix(const cb_revisions *r, cb_document *d, const cb_document *like) {
    int changed = 0;
    if (!like || d->root->kind != CB_DOC_OBJECT) return 0;
    for (size_t i = 0; i < r->n_fixed; i++) {
        int rc = fix_one(d, r->fixed[i], like);
        if (rc < 0) return rc;
        changed |= rc;
    }
    return changed;
}

/* ---- the start ---- */

typedef struct start {
    cb_revisions *r;
    cb_slice file;
    cb_document *like; /* the file read, if it can be */
    cb_revisions_try fn;
    void *user;
    int first;       /* what the first candidate said */
    bool any, tried; /* the file was */
    char hash[CB_REVISION_HASH + 1];
} start;

static void failed(start *s, const char *name, int rc) {
    char why[600];
    snprintf(why, sizeof why, "%s", cb_last_error());
    if (s->r->store) cb_log_line(s->r->log, CB_LOG_ERROR, "revisions", "%s cannot be run: %s", name, why);
    if (!s->any) s->first = rc;
    s->any = true;
    cb_fail(rc, "%s", why);
}

/* Takes d when it succeeds. */
static int try_one(start *s, cb_document *d, cb_slice text, const char *name, uint64_t number) {
    const cb_revisions_draft draft = {
        .size = sizeof draft, .text = text, .document = d, .name = name, .revision = number, .given = number == 0};
    int rc = s->fn(&draft, s->user);
    if (rc < 0) {
        failed(s, name, rc);
        return rc;
    }
    s->r->document = d;
    s->r->number = number;
    return CB_OK;
}

static int keep_unwritten(start *s) {
    cb_revisions *r = s->r;
    r->unwritten = cb_mem_get(heap, s->file.len + 1);
    if (!r->unwritten) return cb_fail(CB_ENOMEM, "no memory for a configuration");
    memcpy(r->unwritten, s->file.base, s->file.len);
    r->unwritten[s->file.len] = '\0';
    r->unwritten_len = s->file.len;
    memcpy(r->unwritten_hash, s->hash, sizeof r->unwritten_hash);
    return CB_OK;
}

static int try_file(start *s) {
    cb_document *d = NULL;
    s->tried = true;
    int rc = s->file.base ? cb_document_parse(&d, s->file, NULL) : cb_fail(CB_ENOENT, "the file cannot be read");
    if (rc < 0) {
        /* What is no JSON is told by the program as its other mistakes are, with their places. */
        if (s->file.base && rc == CB_EINVAL) {
            const cb_revisions_draft draft = {.size = sizeof draft, .text = s->file, .name = s->r->file, .given = 1};
            rc = s->fn(&draft, s->user);
        }
        failed(s, s->r->file, rc < 0 ? rc : CB_EINVAL);
        return rc < 0 ? rc : CB_EINVAL;
    }
    rc = keep_unwritten(s);
    if (rc == CB_OK) rc = try_one(s, d, s->file, s->r->file, 0);
    if (rc < 0) {
        cb_document_free(d);
        cb_mem_free(heap, s->r->unwritten);
        s->r->unwritten = NULL;
    }
    return rc;
}

static int try_entry(start *s, const cb_store_entry *e) {
    cb_document *d = NULL;
    char *own = NULL, name[48];
    size_t len = 0;
    cb_slice text = e->value;
    snprintf(name, sizeof name, "revision %" PRIu64, e->revision);
    int rc = e->deleted ? cb_fail(CB_ENOENT, "it was removed") : cb_document_parse(&d, e->value, NULL);
    const int changed = rc == CB_OK ? cb_revisions_fix(s->r, d, s->like) : rc;
    rc = changed < 0 ? changed : CB_OK;
    if (changed > 0) rc = cb_revisions_own_text(&own, &len, d);
    if (changed > 0 && rc == CB_OK) text = (cb_slice){(const uint8_t *)own, len};
    if (rc < 0)
        failed(s, name, rc);
    else
        rc = try_one(s, d, text, name, e->revision);
    if (rc < 0) cb_document_free(d);
    cb_config_text_free(own);
    return rc;
}

static void on_history(int rc, const cb_store_answer *a, void *user) {
    start *s = user;
    cb_revisions *r = s->r;
    cb_revision_note note;
    char *bytes = NULL;
    if (rc < 0 && rc != CB_ENOENT) {
        cb_log_line(r->log, CB_LOG_ERROR, "revisions", "no revision can be read: %s", cb_last_error());
        return;
    }
    if (a->n && cb_revision_note_read(&note, &bytes, a->entries[0].note) == CB_OK) {
        memcpy(r->file_hash, note.file, sizeof r->file_hash);
        cb_mem_free(heap, bytes);
    }
    if (a->n) r->head = a->entries[0].revision;
    const bool edited = s->file.base && strcmp(r->file_hash, s->hash) != 0;
    if (edited && try_file(s) == CB_OK) return;
    for (size_t i = 0; i < a->n && !r->document; i++)
        if (try_entry(s, &a->entries[i]) == CB_OK && i)
            cb_log_line(r->log, CB_LOG_WARN, "revisions", "revision %" PRIu64 " runs, the latest that can", r->number);
}

int cb_revisions_begin(cb_revisions *r, cb_slice file, cb_revisions_try fn, void *user) {
    start s = {.r = r, .file = file, .fn = fn, .user = user};
    if (!fn || r->document) return cb_fail(CB_EINVAL, "cb_revisions_begin: %s", !fn ? "fn is NULL" : "it has begun");
    int rc = cb_revisions_hash(s.hash, file);
    if (rc < 0) return rc;
    if (file.base && cb_document_parse(&s.like, file, NULL) < 0) s.like = NULL;
    if (r->store)
        rc = cb_store_history(r->store, NULL, NULL, cb_slice_str(r->key), 0, CB_REVISIONS_BACK + 1, on_history, &s);
    if (!r->document && !s.tried) (void)try_file(&s);
    cb_document_free(s.like);
    if (r->document) {
        r->counted = !r->store;
        if (r->counted) r->number = 1;
        return CB_OK;
    }
    return s.any ? cb_fail(s.first, "nothing can be run") : cb_fail(CB_ENOENT, "there is no configuration");
}

static void on_begun(int rc, const cb_store_answer *a, void *user) {
    cb_revisions *r = user;
    if (rc == CB_EEXIST && a->n) r->head = a->entries[0].revision;
    if (rc < 0) return;
    r->number = r->head = a->entries[0].revision;
    memcpy(r->file_hash, r->unwritten_hash, sizeof r->file_hash);
}

int cb_revisions_begun(cb_revisions *r) {
    cb_revision_note note = {.actor = "file", .how = "file", .before = r->head};
    cb_buf text;
    int rc = CB_OK;
    if (!r->unwritten) return CB_OK;
    cb_buf_init(&text, heap, 2 * CB_STORE_NOTE_BYTES);
    memcpy(note.file, r->unwritten_hash, sizeof note.file);
    if (r->store) rc = cb_revision_note_write(&text, &note);
    if (r->store && rc == CB_OK) {
        const cb_store_put_opts put = {.size = sizeof put,
                                       .key = cb_slice_str(r->key),
                                       .value = {(const uint8_t *)r->unwritten, r->unwritten_len},
                                       .note = cb_buf_slice(&text),
                                       .expected = r->head,
                                       .time_ms = cb_revisions_time()};
        rc = cb_store_put(r->store, NULL, NULL, &put, on_begun, r);
    }
    cb_buf_free(&text);
    cb_mem_free(heap, r->unwritten);
    r->unwritten = NULL;
    return rc;
}

/* ---- what was ---- */

void cb_revisions_forget(cb_revisions_ask *a) {
    if (!a) return;
    cb_store_cancel(a->ask);
    cb_list_del(&a->node);
    cb_mem_free(heap, a);
}

static int read_entry(cb_revision *out, char **bytes, const cb_store_entry *e) {
    cb_revision_note note;
    int rc = cb_revision_note_read(&note, bytes, e->note);
    if (rc < 0) return rc;
    *out = (cb_revision){.size = sizeof *out,
                         .number = e->revision,
                         .time_ms = e->time_ms,
                         .actor = note.actor,
                         .reason = note.reason,
                         .how = note.how,
                         .pointer = note.pointer,
                         .from = note.from,
                         .before = note.before,
                         .text = e->value};
    return CB_OK;
}

static void tell_entries(cb_revisions_ask *a, const cb_store_answer *answer) {
    const size_t n = answer->n;
    cb_revision *all = cb_mem_new(heap, (n + 1) * sizeof *all);
    char **bytes = cb_mem_new(heap, (n + 1) * sizeof *bytes);
    int rc = all && bytes ? CB_OK : cb_fail(CB_ENOMEM, "no memory for revisions");
    for (size_t i = 0; i < n && rc == CB_OK; i++)
        rc = read_entry(&all[i], &bytes[i], &answer->entries[i]);
    size_t bytes_told = 0;
    for (size_t i = 0; i < n; i++)
        bytes_told += answer->entries[i].value.len;
    const bool cut = n && (n == a->most || bytes_told > BYTES_TOLD); /* a store ends an answer that becomes too large */
    const uint64_t more = rc == CB_OK && !a->number && cut ? all[n - 1].number : 0;
    a->told(rc, rc == CB_OK ? all : NULL, rc == CB_OK ? n : 0, more, a->user);
    for (size_t i = 0; bytes && i < n; i++)
        cb_mem_free(heap, bytes[i]);
    cb_mem_free(heap, bytes);
    cb_mem_free(heap, all);
}

static void on_told(int rc, const cb_store_answer *answer, void *user) {
    cb_revisions_ask *a = user;
    cb_list_del(&a->node);
    if (rc == CB_OK && a->number && (answer->n != 1 || answer->entries[0].revision != a->number))
        rc = cb_fail(CB_ENOENT, "there is no revision %" PRIu64, a->number);
    if (rc < 0)
        a->told(rc, NULL, 0, 0, a->user);
    else
        tell_entries(a, answer);
    cb_mem_free(heap, a);
}

static int ask_new(cb_revisions_ask **out, cb_revisions *r, cb_revisions_told told, void *user) {
    if (!told) return cb_fail(CB_EINVAL, "revisions: told is NULL");
    if (!r->store) return cb_fail(CB_ENOTSUP, "no revisions are kept: there is no store");
    cb_revisions_ask *a = cb_mem_new(heap, sizeof *a);
    if (!a) return cb_fail(CB_ENOMEM, "no memory for a question");
    a->r = r;
    a->told = told;
    a->user = user;
    cb_list_add_tail(&r->asks, &a->node);
    *out = a;
    return CB_OK;
}

static int asked(cb_revisions_ask *a, cb_revisions_ask **out, int rc) {
    if (rc < 0) cb_revisions_forget(a);
    if (rc == CB_OK && out) *out = a;
    return rc;
}

int cb_revisions_history(cb_revisions *r, cb_revisions_ask **out, uint64_t before, uint32_t most,
                         cb_revisions_told told, void *user) {
    cb_revisions_ask *a = NULL;
    int rc = ask_new(&a, r, told, user);
    if (rc < 0) return rc;
    a->most = most;
    return asked(a, out, cb_store_history(r->store, r->loop, &a->ask, cb_slice_str(r->key), before, most, on_told, a));
}

int cb_revisions_get(cb_revisions *r, cb_revisions_ask **out, uint64_t number, cb_revisions_told told, void *user) {
    cb_revisions_ask *a = NULL;
    int rc = number ? ask_new(&a, r, told, user) : cb_fail(CB_EINVAL, "revisions begin with 1");
    if (rc < 0) return rc;
    a->number = number;
    return asked(a, out, cb_store_get(r->store, r->loop, &a->ask, cb_slice_str(r->key), number, on_told, a));
}
