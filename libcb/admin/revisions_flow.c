/* The way of a change: made, expected, allowed, prepared, agreed, stored, committed. One at a time. */
#include "admin/revisions_int.h"
#include "base/error.h"
#include "base/log.h"
#include "base/opts.h"
#include "config/document.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define HELD "no changes for now: another process takes over"

static const cb_alloc *const heap = &cb_alloc_libc;
static const char *const hows[] = {
    [CB_REVISIONS_PUT] = "put",     [CB_REVISIONS_DELETE] = "delete",     [CB_REVISIONS_MERGE] = "merge",
    [CB_REVISIONS_PATCH] = "patch", [CB_REVISIONS_ROLLBACK] = "rollback", [CB_REVISIONS_FILE] = "file"};

/* ---- life of a change ---- */

/* Its memory. */
static void release(cb_revisions_change *c) {
    cb_store_cancel(c->ask);
    for (uint32_t i = 0; i < c->n_mistakes; i++) {
        cb_mem_free(heap, (char *)(uintptr_t)c->mistakes[i].pointer);
        cb_mem_free(heap, (char *)(uintptr_t)c->mistakes[i].text);
    }
    if (c->text != c->body) cb_config_text_free(c->text);
    cb_document_free(c->document);
    cb_mem_free(heap, c->pointer);
    cb_mem_free(heap, c->actor);
    cb_mem_free(heap, c->reason);
    cb_mem_free(heap, c->body);
    cb_mem_free(heap, c);
}

void cb_revisions_change_free(cb_revisions_change *c) {
    if (c->state == CB_CHANGE_WAITS) c->r->n_waiting--;
    cb_list_del(&c->node);
    if (c->r->now == c) c->r->now = NULL;
    release(c);
}

static void run_next(cb_loop *loop, void *user);

void cb_revisions_kick(cb_revisions *r) {
    if (r->now || r->kick || cb_list_empty(&r->waiting)) return;
    if (cb_timer_start(&r->kick, r->loop, 0, 0, run_next, r) < 0)
        cb_log_line(r->log, CB_LOG_ERROR, "revisions", "no memory: changes wait for the next one");
}

/* The end: the asker is told, the next one begins. The asker may free everything. */
static void finish(cb_revisions_change *c, int rc, int step) {
    cb_revisions *r = c->r;
    const cb_revisions_result result = {.size = sizeof result,
                                        .step = step,
                                        .n_mistakes = c->n_mistakes,
                                        .mistakes = c->mistakes,
                                        .revision = r->number,
                                        .document = step == CB_REVISIONS_CHECKED ? c->document : r->document};
    r->now = NULL;
    cb_revisions_kick(r);
    if (step == CB_REVISIONS_COMMITTED && r->announce) r->announce(r, c);
    if (c->done && !c->gone) c->done(rc, &result, c->user);
    release(c);
}

static void keep_mistake(cb_revisions_change *c, const char *pointer, const char *text, uint32_t line,
                         uint32_t column) {
    if (c->n_mistakes == CB_REVISIONS_MISTAKES) return;
    cb_config_error *e = &c->mistakes[c->n_mistakes];
    *e = (cb_config_error){.file = c->name,
                           .pointer = cb_mem_text(heap, pointer),
                           .text = cb_mem_text(heap, text),
                           .line = line,
                           .column = column};
    if (e->pointer && e->text) {
        c->n_mistakes++;
        return;
    }
    cb_mem_free(heap, (char *)(uintptr_t)e->pointer);
    cb_mem_free(heap, (char *)(uintptr_t)e->text);
}

/* ---- make ---- */

static cb_slice body_of(const cb_revisions_change *c) {
    return (cb_slice){(const uint8_t *)c->body, c->body_len};
}

/* The whole document is what the asker sent. */
static bool is_whole(const cb_revisions_change *c) {
    return c->how == CB_REVISIONS_FILE || c->how == CB_REVISIONS_ROLLBACK ||
           (c->how == CB_REVISIONS_PUT && !*c->pointer);
}

static int apply(const cb_revisions_change *c, cb_document *d, cb_document_mistake *m) {
    switch (c->how) {
    case CB_REVISIONS_PUT:
        return cb_document_put(d, c->pointer, body_of(c), m);
    case CB_REVISIONS_DELETE:
        return cb_document_remove(d, c->pointer);
    case CB_REVISIONS_MERGE:
        return cb_document_merge(d, c->pointer, body_of(c), m);
    default:
        return cb_document_patch(d, c->pointer, body_of(c), m);
    }
}

/* What becomes of a document by the change. */
static int change(cb_document **out, const cb_revisions_change *c, const cb_document *d, cb_document_mistake *m) {
    if (is_whole(c)) return cb_document_parse(out, body_of(c), m);
    int rc = cb_document_copy(out, d);
    return rc < 0 ? rc : apply(c, *out, m);
}

/* What the change does to that part of the document which the asker sees, as a patch. */
static int change_seen(char **out, const cb_revisions_change *c, cb_document_mistake *m) {
    cb_document *seen = NULL, *after = NULL;
    int rc = cb_document_copy(&seen, c->r->document);
    if (rc == CB_OK) rc = c->see(seen, c->user);
    if (rc == CB_OK) rc = change(&after, c, seen, m);
    if (rc == CB_OK) rc = cb_document_diff_patch(out, seen, after);
    cb_document_free(seen);
    cb_document_free(after);
    return rc;
}

static bool does(const cb_revisions_change *c, const char *patch) {
    char *real = NULL;
    const bool same = cb_document_diff_patch(&real, c->r->document, c->document) == CB_OK && strcmp(real, patch) == 0;
    cb_config_text_free(real);
    return same;
}

/* Who does not see all of the document learns nothing of the rest by what can be written: a patch that copies or tests
 * it, a value that turns out to be there. So the change must do to all of it what it does to the part that they see. */
static int change_blindly(cb_revisions_change *c, cb_document_mistake *m) {
    char *seen = NULL;
    int rc = change_seen(&seen, c, m);
    if (rc < 0) return rc;
    rc = change(&c->document, c, c->r->document, m);
    if (rc != CB_ENOMEM && (rc < 0 || !does(c, seen))) {
        c->step = CB_REVISIONS_ALLOWED;
        rc = cb_fail(CB_EPERM, "it is about a part that who asks does not see");
        keep_mistake(c, c->pointer, cb_last_error(), 0, 0);
    }
    cb_config_text_free(seen);
    return rc;
}

/* Fixed members that a whole document leaves out are as they were; a rollback does not bring back others. */
static int fix(cb_revisions_change *c) {
    const cb_revisions *r = c->r;
    if (c->how == CB_REVISIONS_FILE && !c->reload) return 0;
    if (c->how == CB_REVISIONS_ROLLBACK || c->reload) return cb_revisions_fix(r, c->document, r->document);
    for (size_t i = 0; is_whole(c) && i < r->n_fixed; i++)
        if (c->document->root->kind == CB_DOC_OBJECT &&
            cb_doc_find(c->document->root, r->fixed[i], strlen(r->fixed[i])) < 0)
            return cb_revisions_fix(r, c->document, r->document);
    return 0;
}

static int make(cb_revisions_change *c) {
    cb_document_mistake m = {.size = sizeof m};
    c->step = CB_REVISIONS_MADE;
    int rc =
        c->see && c->how != CB_REVISIONS_ROLLBACK ? change_blindly(c, &m) : change(&c->document, c, c->r->document, &m);
    if (rc == CB_EINVAL && m.line) keep_mistake(c, "", m.text, m.line, m.column);
    if (rc < 0) return rc;
    const int fixed = fix(c);
    if (fixed < 0) return fixed;
    c->given = is_whole(c) && !fixed && !c->reload && c->how != CB_REVISIONS_ROLLBACK;
    if (is_whole(c) && !fixed) {
        c->text = c->body;
        c->text_len = c->body_len;
        return CB_OK;
    }
    return cb_revisions_own_text(&c->text, &c->text_len, c->document);
}

/* ---- allow ---- */

static bool is_fixed(const cb_revisions *r, const char *pointer) {
    for (size_t i = 0; i < r->n_fixed; i++) {
        const size_t n = strlen(r->fixed[i]);
        if (*pointer == '/' && strncmp(pointer + 1, r->fixed[i], n) == 0 && (!pointer[n + 1] || pointer[n + 1] == '/'))
            return true;
    }
    return r->n_fixed && !*pointer;
}

static void on_difference(const cb_document_change *d, void *user) {
    cb_revisions_change *c = user;
    char why[200] = "it comes from the file alone: change it there";
    bool good = c->how == CB_REVISIONS_FILE || !is_fixed(c->r, d->pointer);
    if (good && c->allow) {
        cb_fail(CB_EPERM, "it may not be changed by who asks");
        good = c->allow(d, c->r->document, c->document, c->user) == CB_OK;
        snprintf(why, sizeof why, "%s", cb_last_error());
    }
    if (good) return;
    c->denied++;
    keep_mistake(c, d->pointer, why, 0, 0);
}

static int allow(cb_revisions_change *c) {
    c->step = CB_REVISIONS_ALLOWED;
    int rc = cb_document_diff(c->r->document, c->document, on_difference, c);
    if (rc < 0 || !c->denied) return rc;
    return cb_fail(CB_EPERM, "%u of the differences may not be: %.400s%s%s", c->denied,
                   c->n_mistakes ? c->mistakes[0].pointer : "", c->n_mistakes ? ": " : "",
                   c->n_mistakes ? c->mistakes[0].text : "");
}

/* ---- run ---- */

static int expect(cb_revisions_change *c) {
    c->step = CB_REVISIONS_EXPECTED;
    if (c->expected == CB_STORE_ANY || c->expected == c->r->number) return CB_OK;
    return cb_fail(CB_EEXIST, "the configuration is at revision %" PRIu64 ", not %" PRIu64, c->r->number, c->expected);
}

static void prepare(cb_revisions_change *c) {
    cb_revisions *r = c->r;
    const bool own = c->how == CB_REVISIONS_FILE && !c->reload;
    if (!c->name[0]) snprintf(c->name, sizeof c->name, "%.60s", own ? r->file : "the change");
    c->draft = (cb_revisions_draft){.size = sizeof c->draft,
                                    .text = {(const uint8_t *)c->text, c->text_len},
                                    .document = c->document,
                                    .name = own ? r->file : c->name,
                                    .revision = c->reload ? r->head : 0,
                                    .how = c->how,
                                    .dry_run = c->dry_run,
                                    .given = c->given};
    c->state = CB_CHANGE_PREPARES;
    c->step = CB_REVISIONS_PREPARED;
    r->ops->prepare(r, &c->draft, r->user);
}

/* A change has its document; the rest of its way. */
static void go_on(cb_revisions_change *c) {
    int rc = expect(c);
    if (rc == CB_OK) rc = make(c);
    if (rc == CB_OK && c->how != CB_REVISIONS_FILE && cb_document_equal(c->r->document, c->document)) {
        finish(c, CB_OK, CB_REVISIONS_SAME);
        return;
    }
    if (rc == CB_OK) rc = allow(c);
    if (rc < 0)
        finish(c, rc, c->step);
    else
        prepare(c);
}

/* The text of the revision that was asked for takes the place of the body. */
static int take_entry(cb_revisions_change *c, const cb_store_answer *a) {
    if (a->n != 1 || a->entries[0].revision != c->from)
        return cb_fail(CB_ENOENT, "there is no revision %" PRIu64, c->from);
    const cb_slice value = a->entries[0].value;
    char *body = cb_mem_get(heap, value.len + 1);
    if (!body) return cb_fail(CB_ENOMEM, "no memory for a revision");
    if (value.len) memcpy(body, value.base, value.len);
    body[value.len] = '\0';
    cb_mem_free(heap, c->body);
    c->body = body;
    c->body_len = value.len;
    snprintf(c->name, sizeof c->name, "revision %" PRIu64, c->from);
    return CB_OK;
}

static void on_fetched(int rc, const cb_store_answer *a, void *user) {
    cb_revisions_change *c = user;
    c->ask = NULL;
    if (rc == CB_OK) rc = take_entry(c, a);
    if (rc < 0)
        finish(c, rc, CB_REVISIONS_MADE);
    else
        go_on(c);
}

static int fetch(cb_revisions_change *c, uint64_t number) {
    cb_revisions *r = c->r;
    c->from = number;
    c->state = CB_CHANGE_FETCHES;
    return cb_store_get(r->store, r->loop, &c->ask, cb_slice_str(r->key), number, on_fetched, c);
}

/* The file was not edited: the last revision is in force, which is what runs unless it could not be run at the start. A
 * store that is new gets what runs. */
static int reload(cb_revisions_change *c) {
    cb_revisions *r = c->r;
    c->reload = r->head != 0;
    if (r->store && r->head && r->number != r->head) return fetch(c, r->head);
    cb_mem_free(heap, c->body);
    c->body = NULL;
    char *own = NULL;
    int rc = cb_revisions_own_text(&own, &c->body_len, r->document);
    if (rc == CB_OK) c->body = own; /* both are of the heap */
    if (rc == CB_OK && r->number) snprintf(c->name, sizeof c->name, "revision %" PRIu64, r->number);
    return rc;
}

static int run(cb_revisions_change *c) {
    cb_revisions *r = c->r;
    int rc = r->held ? cb_fail(CB_EAGAIN, HELD) : r->document ? CB_OK : cb_fail(CB_EAGAIN, "nothing runs yet");
    if (rc == CB_OK && c->how == CB_REVISIONS_FILE) {
        rc = cb_revisions_hash(c->file_hash, body_of(c));
        if (rc == CB_OK && r->store && strcmp(c->file_hash, r->file_hash) == 0) rc = reload(c);
    } else if (rc == CB_OK) {
        memcpy(c->file_hash, r->file_hash, sizeof c->file_hash);
        if (!r->store && (!c->dry_run || c->how == CB_REVISIONS_ROLLBACK)) {
            c->step = CB_REVISIONS_STORED;
            return cb_fail(CB_ENOTSUP, "changes are not kept, so they are not made: there is no store");
        }
        if (c->how == CB_REVISIONS_ROLLBACK) rc = fetch(c, c->from);
    }
    return rc;
}

static void run_next(cb_loop *loop, void *user) {
    cb_revisions *r = user;
    (void)loop;
    cb_timer_free(r->kick);
    r->kick = NULL;
    if (r->now || cb_list_empty(&r->waiting)) return;
    cb_revisions_change *c = CB_CONTAINER(r->waiting.next, cb_revisions_change, node);
    cb_list_del(&c->node);
    r->n_waiting--;
    r->now = c;
    c->state = CB_CHANGE_PREPARES;
    c->step = CB_REVISIONS_MADE;
    int rc = run(c);
    if (rc < 0)
        finish(c, rc, c->step);
    else if (c->state != CB_CHANGE_FETCHES)
        go_on(c);
}

/* ---- after it is prepared ---- */

static void commit(cb_revisions_change *c) {
    cb_revisions *r = c->r;
    c->state = CB_CHANGE_COMMITS;
    c->draft.revision = r->number;
    r->ops->commit(r, &c->draft, r->user);
}

/* What runs is the new one from now on. */
static void take_over(cb_revisions_change *c, uint64_t number) {
    cb_revisions *r = c->r;
    cb_document_free(r->document);
    r->document = c->document;
    c->document = NULL;
    c->draft.document = r->document;
    if (number) r->head = number;
    r->counted = !r->store;
    r->number = number ? number : r->store ? r->head : r->number + 1;
    memcpy(r->file_hash, c->file_hash, sizeof r->file_hash);
    commit(c);
}

static void on_stored(int rc, const cb_store_answer *a, void *user) {
    cb_revisions_change *c = user;
    cb_revisions *r = c->r;
    c->ask = NULL;
    if (rc == CB_OK) {
        take_over(c, a->entries[0].revision);
        return;
    }
    char why[600];
    snprintf(why, sizeof why, "%s", cb_last_error());
    if (rc == CB_EEXIST && a->n) r->head = a->entries[0].revision; /* the next one follows it */
    r->ops->abort(r, r->user);
    cb_fail(rc, "%s", why);
    finish(c, rc, CB_REVISIONS_STORED);
}

static int store(cb_revisions_change *c) {
    cb_revisions *r = c->r;
    cb_revision_note note = {.actor = c->actor,
                             .reason = c->reason,
                             .how = hows[c->how],
                             .pointer = c->pointer,
                             .from = c->how == CB_REVISIONS_ROLLBACK ? c->from : 0,
                             .before = r->number};
    cb_buf text;
    memcpy(note.file, c->file_hash, sizeof note.file);
    cb_buf_init(&text, heap, 2 * CB_STORE_NOTE_BYTES);
    c->state = CB_CHANGE_STORES;
    c->step = CB_REVISIONS_STORED;
    int rc = cb_revision_note_write(&text, &note);
    const cb_store_put_opts put = {.size = sizeof put,
                                   .key = cb_slice_str(r->key),
                                   .value = {(const uint8_t *)c->text, c->text_len},
                                   .note = cb_buf_slice(&text),
                                   .expected = r->head,
                                   .time_ms = cb_revisions_time()};
    if (rc == CB_OK) rc = cb_store_put(r->store, r->loop, &c->ask, &put, on_stored, c);
    cb_buf_free(&text);
    return rc;
}

/* The prepared change is given up. */
static void give_up(cb_revisions_change *c, int rc, int step) {
    char why[600];
    snprintf(why, sizeof why, "%s", cb_last_error());
    c->r->ops->abort(c->r, c->r->user);
    if (rc < 0) cb_fail(rc, "%s", why);
    finish(c, rc, step);
}

void cb_revisions_agree(cb_revisions_change *c, int rc) {
    if (c->state != CB_CHANGE_ASKS) return;
    c->step = CB_REVISIONS_AGREED;
    if (rc == CB_OK && (c->reload || !c->r->store)) {
        take_over(c, 0);
        return;
    }
    if (rc == CB_OK) rc = store(c);
    if (rc < 0) give_up(c, rc, c->step);
}

void cb_revisions_prepared(cb_revisions *r, int rc) {
    cb_revisions_change *c = r->now;
    if (!c || c->state != CB_CHANGE_PREPARES) return;
    if (rc < 0) {
        finish(c, rc, CB_REVISIONS_PREPARED);
        return;
    }
    if (c->gone || c->dry_run) {
        give_up(c, CB_OK, CB_REVISIONS_CHECKED);
        return;
    }
    c->state = CB_CHANGE_ASKS;
    if (c->agree)
        c->agree(c, r->document, c->document, c->user);
    else
        cb_revisions_agree(c, CB_OK);
}

void cb_revisions_mistake(cb_revisions *r, const cb_config_error *e) {
    cb_revisions_change *c = r->now;
    if (!c || !e || c->state != CB_CHANGE_PREPARES) return;
    keep_mistake(c, e->pointer ? e->pointer : "", e->text ? e->text : "", c->given ? e->line : 0,
                 c->given ? e->column : 0);
}

void cb_revisions_committed(cb_revisions *r) {
    if (r->now && r->now->state == CB_CHANGE_COMMITS) finish(r->now, CB_OK, CB_REVISIONS_COMMITTED);
}

/* ---- asking ---- */

static int check(const cb_revisions_change_opts *o) {
    if (o->how < CB_REVISIONS_PUT || o->how > CB_REVISIONS_FILE)
        return cb_fail(CB_EINVAL, "cb_revisions_propose: how is %d", o->how);
    if (!o->actor || !*o->actor) return cb_fail(CB_EINVAL, "cb_revisions_propose: actor is needed");
    if (o->body.len > CB_DOCUMENT_BYTES) return cb_fail(CB_ELIMIT, "a change of more than 1 MiB");
    cb_doc_walk w = {.rest = o->pointer ? o->pointer : ""};
    int rc;
    while ((rc = cb_doc_token(&w)) > 0)
        ;
    if (rc < 0) return rc;
    const cb_revision_note note = {.actor = o->actor, .reason = o->reason, .how = hows[o->how]};
    cb_buf text;
    cb_buf_init(&text, heap, 2 * CB_STORE_NOTE_BYTES);
    rc = cb_revision_note_write(&text, &note);
    cb_buf_free(&text);
    return rc;
}

static int copy(cb_revisions_change *c, const cb_revisions_change_opts *o) {
    c->pointer = cb_mem_text(heap, o->pointer ? o->pointer : "");
    c->actor = cb_mem_text(heap, o->actor);
    c->reason = cb_mem_text(heap, o->reason ? o->reason : "");
    c->body = cb_mem_get(heap, o->body.len + 1);
    if (!c->pointer || !c->actor || !c->reason || !c->body) return cb_fail(CB_ENOMEM, "no memory for a change");
    if (o->body.len) memcpy(c->body, o->body.base, o->body.len);
    c->body[o->body.len] = '\0';
    c->body_len = o->body.len;
    return CB_OK;
}

int cb_revisions_propose(cb_revisions *r, cb_revisions_change **out, const cb_revisions_change_opts *opts,
                         cb_revisions_done done, void *user) {
    cb_revisions_change_opts o;
    int rc = cb_opts_read(&o, sizeof o, opts, "cb_revisions_change_opts");
    if (rc == CB_OK) rc = check(&o);
    if (rc < 0) return rc;
    if (r->held) return cb_fail(CB_EAGAIN, HELD);
    if (r->n_waiting >= r->max_waiting) return cb_fail(CB_EAGAIN, "%u changes wait already", r->n_waiting);
    cb_revisions_change *c = cb_mem_new(heap, sizeof *c);
    if (!c) return cb_fail(CB_ENOMEM, "no memory for a change");
    c->r = r;
    c->how = o.how;
    c->dry_run = o.dry_run != 0;
    c->from = o.from;
    c->expected = o.expected;
    c->allow = o.allow;
    c->agree = o.agree;
    c->done = done;
    c->user = user;
    cb_list_add_tail(&r->waiting, &c->node);
    r->n_waiting++;
    rc = copy(c, &o);
    if (rc < 0) {
        cb_revisions_change_free(c);
        return rc;
    }
    cb_revisions_kick(r);
    if (out) *out = c;
    return CB_OK;
}

void cb_revisions_cancel(cb_revisions_change *c) {
    if (!c) return;
    cb_revisions *r = c->r;
    switch (c->state) {
    case CB_CHANGE_WAITS:
        cb_revisions_change_free(c);
        break;
    case CB_CHANGE_FETCHES:
        cb_revisions_change_free(c);
        cb_revisions_kick(r);
        break;
    case CB_CHANGE_ASKS:
        c->gone = true;
        give_up(c, CB_OK, CB_REVISIONS_AGREED);
        break;
    default:
        c->gone = true; /* also: nobody is asked any more */
        c->allow = NULL;
        c->agree = NULL;
        break;
    }
}
