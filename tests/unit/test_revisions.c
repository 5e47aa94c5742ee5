/* Revisions: each step of a change, the file beside the store, starts, what was, and ends in the middle. */
#include "admin/revision_note.h"
#include "base/mem.h"
#include "support/scratch.h"
#include <cb/revisions.h>
#include <criterion/criterion.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A program that runs documents of which "bad" is false, and answers within the call or later. */
typedef struct world {
    char folder[64], path[96];
    cb_loop *loop;
    cb_store *store;
    cb_revisions *r;
    int later;          /* prepare and commit answer in a turn of their own */
    int refuse;         /* agree() says no */
    int tries;          /* of a start */
    const char *cannot; /* what has this in its text cannot be run */
    char tried[400];
    /* what happened */
    char log[2000];
    char text[2000]; /* of the last draft */
    char runs[2000]; /* what was committed, in its own form */
    int given, draft_how;
    uint64_t draft_revision;
    /* the last answer */
    int calls, rc, step;
    uint64_t number;
    uint32_t n_mistakes;
    char pointer[200], mistake[300], detail[600];
    uint32_t line;
    const char *forbidden; /* a pointer */
    char seen[1000];       /* differences that allow() saw */
    /* history */
    size_t n;
    uint64_t more, numbers[64];
    char told[64][300], value[2000];
} world;

static void note(world *w, const char *what) {
    if (strlen(w->log) + strlen(what) + 2 < sizeof w->log) sprintf(w->log + strlen(w->log), "%s ", what);
}

static void keep_draft(world *w, const cb_revisions_draft *d) {
    snprintf(w->text, sizeof w->text, "%.*s", (int)d->text.len, (const char *)d->text.base);
    w->given = d->given;
    w->draft_how = d->how;
    w->draft_revision = d->revision;
}

static void run_document(world *w, const cb_document *d) {
    char *text = NULL;
    cr_assert_eq(cb_document_text(&text, d, "", CB_DOCUMENT_COMPACT), CB_OK);
    snprintf(w->runs, sizeof w->runs, "%s", text);
    cb_config_text_free(text);
}

static int judge(const world *w) {
    const bool bad = strstr(w->text, "\"bad\"") || (w->cannot && strstr(w->text, w->cannot));
    return bad ? cb_error_set(CB_EINVAL, "it is not good") : CB_OK;
}

static void answer_prepare(cb_loop *loop, void *user) {
    world *w = user;
    (void)loop;
    int rc = judge(w);
    const cb_config_error e = {.pointer = "/bad", .text = "is not good", .line = 3, .column = 7};
    if (rc < 0) cb_revisions_mistake(w->r, &e);
    note(w, rc < 0 ? "refused" : "prepared");
    cb_revisions_prepared(w->r, rc);
}

static void prepare(cb_revisions *r, const cb_revisions_draft *d, void *user) {
    world *w = user;
    keep_draft(w, d);
    cr_assert_not_null(d->document);
    cr_assert_eq(cb_revisions_busy(r), 1);
    if (!w->later)
        answer_prepare(w->loop, w);
    else
        cr_assert_eq(cb_loop_post(w->loop, answer_prepare, w), CB_OK);
}

static void answer_commit(cb_loop *loop, void *user) {
    world *w = user;
    (void)loop;
    cb_revisions_committed(w->r);
}

static void commit(cb_revisions *r, const cb_revisions_draft *d, void *user) {
    world *w = user;
    note(w, "committed");
    run_document(w, d->document);
    cr_expect_eq(d->revision, cb_revisions_number(r));
    if (!w->later)
        answer_commit(w->loop, w);
    else
        cr_assert_eq(cb_loop_post(w->loop, answer_commit, w), CB_OK);
}

static void give_up(cb_revisions *r, void *user) {
    (void)r;
    note(user, "aborted");
}

static const cb_revisions_ops ops = {.size = sizeof ops, .prepare = prepare, .commit = commit, .abort = give_up};
static const char *const fixed[] = {"admin"};

static int try_it(const cb_revisions_draft *d, void *user) {
    world *w = user;
    w->tries++;
    snprintf(w->tried + strlen(w->tried), sizeof w->tried - strlen(w->tried), "%s;", d->name);
    keep_draft(w, d);
    int rc = d->document ? judge(w) : cb_error_set(CB_EINVAL, "no JSON");
    if (rc == CB_OK) run_document(w, d->document);
    return rc;
}

static void open_revisions(world *w) {
    cr_assert_eq(cb_revisions_new(&w->r, w->loop,
                                  CB_OPTS(cb_revisions_opts, .store = w->store, .file = "my.json", .fixed = fixed,
                                          .n_fixed = 1, .ops = &ops, .user = w, .max_waiting = 4)),
                 CB_OK, "%s", cb_last_error());
}

static void open_store(world *w) {
    cr_assert_eq(cb_store_open(&w->store, CB_OPTS(cb_store_file_opts, .path = w->path)), CB_OK, "%s", cb_last_error());
}

static int begin_with(world *w, const char *file) {
    w->tries = 0;
    w->tried[0] = '\0';
    return cb_revisions_begin(w->r, file ? cb_slice_str(file) : (cb_slice){0}, try_it, w);
}

static void begin(world *w, const char *file) {
    *w = (world){.rc = 1};
    scratch_folder(w->folder, sizeof w->folder, "revisions");
    snprintf(w->path, sizeof w->path, "%s/store", w->folder);
    cr_assert_eq(cb_loop_new(&w->loop, NULL), CB_OK);
    open_store(w);
    open_revisions(w);
    if (!file) return;
    cr_assert_eq(begin_with(w, file), CB_OK, "%s", cb_last_error());
    cr_assert_eq(cb_revisions_begun(w->r), CB_OK, "%s", cb_last_error());
}

static void close_all(world *w) {
    cb_revisions_free(w->r);
    cb_loop_step(w->loop); /* answers that were on their way when they were cancelled */
    cb_store_free(w->store);
    w->r = NULL;
    w->store = NULL;
}

static void end(world *w) {
    char command[128];
    close_all(w);
    cb_loop_free(w->loop);
    snprintf(command, sizeof command, "rm -rf %s", w->folder);
    cr_expect_eq(system(command), 0);
}

/* The process ends and begins again. */
static int again(world *w, const char *file) {
    close_all(w);
    open_store(w);
    open_revisions(w);
    int rc = begin_with(w, file);
    return rc < 0 ? rc : cb_revisions_begun(w->r);
}

static void done(int rc, const cb_revisions_result *res, void *user) {
    world *w = user;
    w->calls++;
    w->rc = rc;
    w->step = res->step;
    w->number = res->revision;
    w->n_mistakes = res->n_mistakes;
    w->pointer[0] = w->mistake[0] = '\0';
    snprintf(w->detail, sizeof w->detail, "%s", rc < 0 ? cb_last_error() : "");
    if (!res->n_mistakes) return;
    snprintf(w->pointer, sizeof w->pointer, "%s", res->mistakes[0].pointer);
    snprintf(w->mistake, sizeof w->mistake, "%s", res->mistakes[0].text);
    w->line = res->mistakes[0].line;
}

static int allow(const cb_document_change *c, const cb_document *before, const cb_document *after, void *user) {
    world *w = user;
    cr_assert(before && after);
    sprintf(w->seen + strlen(w->seen), "%s;", c->pointer);
    if (!w->forbidden || strncmp(c->pointer, w->forbidden, strlen(w->forbidden)) != 0) return CB_OK;
    return cb_error_set(CB_EPERM, "not yours");
}

static void agree(cb_revisions_change *c, const cb_document *before, const cb_document *after, void *user) {
    world *w = user;
    cr_assert(before && after && !cb_document_equal(before, after));
    note(w, "asked");
    cb_revisions_agree(c, w->refuse ? cb_error_set(CB_ESYS, "no audit log") : CB_OK);
}

static void wait_for(world *w, int calls) {
    for (int i = 0; i < 10000 && w->calls < calls; i++) {
        cb_loop_step(w->loop);
        usleep(200);
    }
    cr_assert_eq(w->calls, calls);
}

static cb_revisions_change_opts opts_of(int how, const char *pointer, const char *body) {
    return (cb_revisions_change_opts){.size = sizeof(cb_revisions_change_opts),
                                      .how = how,
                                      .pointer = pointer,
                                      .body = cb_slice_str(body),
                                      .expected = CB_STORE_ANY,
                                      .actor = "uid:1000",
                                      .reason = "because",
                                      .allow = allow};
}

static void propose(world *w, const cb_revisions_change_opts *o) {
    const int calls = w->calls;
    w->log[0] = w->seen[0] = '\0';
    cr_assert_eq(cb_revisions_propose(w->r, NULL, o, done, w), CB_OK, "%s", cb_last_error());
    cr_assert_eq(w->calls, calls, "never within the call");
    wait_for(w, calls + 1);
}

static void change(world *w, int how, const char *pointer, const char *body) {
    const cb_revisions_change_opts o = opts_of(how, pointer, body);
    propose(w, &o);
}

#define EXPECT_DONE(w, want_rc, want_step)                                                                             \
    cr_expect((w)->rc == (want_rc) && (w)->step == (want_step), "rc %d step %d: %s", (w)->rc, (w)->step, (w)->detail)

Test(revisions, a_change_goes_its_way) {
    world w;
    for (int later = 0; later < 2; later++) {
        begin(&w, "{\"a\": 1} // mine\n");
        w.later = later;
        cr_expect_eq(cb_revisions_number(w.r), 1);
        change(&w, CB_REVISIONS_PUT, "/b", "{\"c\": [1, 2]}");
        EXPECT_DONE(&w, CB_OK, CB_REVISIONS_COMMITTED);
        cr_expect_str_eq(w.log, "prepared committed ");
        cr_expect_str_eq(w.runs, "{\"a\":1,\"b\":{\"c\":[1,2]}}");
        cr_expect_str_eq(w.seen, "/b;");
        cr_expect(w.number == 2 && w.given == 0);
        change(&w, CB_REVISIONS_MERGE, "/b", "{\"d\": null, \"e\": 5}");
        change(&w, CB_REVISIONS_PATCH, "", "[{\"op\": \"remove\", \"path\": \"/b/c/0\"}]");
        change(&w, CB_REVISIONS_DELETE, "/a", "");
        EXPECT_DONE(&w, CB_OK, CB_REVISIONS_COMMITTED);
        cr_expect_str_eq(w.runs, "{\"b\":{\"c\":[2],\"e\":5}}");
        change(&w, CB_REVISIONS_PUT, "", "{\"b\": 1 /* kept */}");
        EXPECT_DONE(&w, CB_OK, CB_REVISIONS_COMMITTED);
        cr_expect(w.number == 6 && w.given == 1);
        cr_expect_str_eq(w.text, "{\"b\": 1 /* kept */}");
        change(&w, CB_REVISIONS_PUT, "", "{\"b\":1}");
        EXPECT_DONE(&w, CB_OK, CB_REVISIONS_SAME);
        cr_expect(w.number == 6 && !*w.log, "%s", w.log);
        end(&w);
    }
}

Test(revisions, each_step_can_refuse) {
    world w;
    begin(&w, "{\"a\": 1, \"admin\": {\"socket\": \"s\"}}");
    change(&w, CB_REVISIONS_PUT, "/x/y", "1");
    EXPECT_DONE(&w, CB_ENOENT, CB_REVISIONS_MADE);
    change(&w, CB_REVISIONS_PUT, "/x", "{\n \"a\": tru}");
    EXPECT_DONE(&w, CB_EINVAL, CB_REVISIONS_MADE);
    cr_expect(w.n_mistakes == 1 && w.line == 2);
    change(&w, CB_REVISIONS_PATCH, "", "[{\"op\":\"test\",\"path\":\"/a\",\"value\":2}]");
    EXPECT_DONE(&w, CB_EEXIST, CB_REVISIONS_MADE);
    cb_revisions_change_opts o = opts_of(CB_REVISIONS_PUT, "/a", "2");
    o.expected = 7;
    propose(&w, &o);
    EXPECT_DONE(&w, CB_EEXIST, CB_REVISIONS_EXPECTED);
    w.forbidden = "/a";
    change(&w, CB_REVISIONS_PUT, "/a", "2");
    EXPECT_DONE(&w, CB_EPERM, CB_REVISIONS_ALLOWED);
    cr_expect(strcmp(w.pointer, "/a") == 0 && strcmp(w.mistake, "not yours") == 0, "%s %s", w.pointer, w.mistake);
    w.forbidden = NULL;
    change(&w, CB_REVISIONS_MERGE, "", "{\"bad\": 1}");
    EXPECT_DONE(&w, CB_EINVAL, CB_REVISIONS_PREPARED);
    cr_expect(strcmp(w.pointer, "/bad") == 0 && w.line == 0, "lines of our own text mean nothing to the asker");
    change(&w, CB_REVISIONS_PUT, "", "{\"admin\": {\"socket\": \"s\"},\n\n\"bad\": 1}");
    cr_expect(w.rc == CB_EINVAL && w.line == 3);
    w.refuse = 1;
    o = opts_of(CB_REVISIONS_PUT, "/a", "2");
    o.agree = agree;
    propose(&w, &o);
    EXPECT_DONE(&w, CB_ESYS, CB_REVISIONS_AGREED);
    cr_expect_str_eq(w.detail, "no audit log");
    cr_expect_str_eq(w.log, "prepared asked aborted ");
    cr_expect(cb_revisions_number(w.r) == 1);
    w.refuse = 0;
    propose(&w, &o);
    EXPECT_DONE(&w, CB_OK, CB_REVISIONS_COMMITTED);
    cr_expect_str_eq(w.log, "prepared asked committed ");
    end(&w);
}

Test(revisions, a_dry_run_only_checks) {
    world w;
    begin(&w, "{\"a\": 1}");
    cb_revisions_change_opts o = opts_of(CB_REVISIONS_PUT, "/b", "2");
    o.dry_run = 1;
    o.agree = agree;
    propose(&w, &o);
    EXPECT_DONE(&w, CB_OK, CB_REVISIONS_CHECKED);
    cr_expect_str_eq(w.log, "prepared aborted ");
    cr_expect(w.number == 1 && !cb_document_has(cb_revisions_document(w.r), "/b"));
    o = opts_of(CB_REVISIONS_PUT, "/bad", "2");
    o.dry_run = 1;
    propose(&w, &o);
    EXPECT_DONE(&w, CB_EINVAL, CB_REVISIONS_PREPARED);
    end(&w);
}

Test(revisions, what_is_fixed_comes_from_the_file) {
    world w;
    begin(&w, "{\"a\": 1, \"admin\": {\"dir\": \"x\"}}");
    static const struct {
        int how;
        const char *pointer, *body;
    } bad[] = {{CB_REVISIONS_PUT, "/admin/dir", "\"y\""},
               {CB_REVISIONS_DELETE, "/admin", ""},
               {CB_REVISIONS_MERGE, "", "{\"admin\": null}"},
               {CB_REVISIONS_PUT, "", "{\"a\": 1, \"admin\": {}}"},
               {CB_REVISIONS_PUT, "", "[]"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        change(&w, bad[i].how, bad[i].pointer, bad[i].body);
        EXPECT_DONE(&w, CB_EPERM, CB_REVISIONS_ALLOWED);
    }
    change(&w, CB_REVISIONS_PUT, "/adminer", "1");
    EXPECT_DONE(&w, CB_OK, CB_REVISIONS_COMMITTED);
    change(&w, CB_REVISIONS_PUT, "", "{\"a\": 2}");
    EXPECT_DONE(&w, CB_OK, CB_REVISIONS_COMMITTED);
    cr_expect_str_eq(w.runs, "{\"a\":2,\"admin\":{\"dir\":\"x\"}}");
    /* The file moves on; old revisions keep their own, and run with the file's. */
    change(&w, CB_REVISIONS_FILE, "", "{\"a\": 3, \"admin\": {\"dir\": \"z\"}}");
    EXPECT_DONE(&w, CB_OK, CB_REVISIONS_COMMITTED);
    cb_revisions_change_opts o = opts_of(CB_REVISIONS_ROLLBACK, "", "");
    o.from = 2;
    propose(&w, &o);
    EXPECT_DONE(&w, CB_OK, CB_REVISIONS_COMMITTED);
    cr_expect_str_eq(w.runs, "{\"a\":1,\"admin\":{\"dir\":\"z\"},\"adminer\":1}");
    cr_expect_eq(again(&w, "{\"a\": 3, \"admin\": {\"dir\": \"z\"}}"), CB_OK);
    cr_expect_str_eq(w.runs, "{\"a\":1,\"admin\":{\"dir\":\"z\"},\"adminer\":1}");
    end(&w);
}

Test(revisions, whoever_wrote_last_wins) {
    world w;
    const char *one = "{\"n\": 1} // one", *two = "{\"n\": 2}";
    begin(&w, one);
    cr_expect_str_eq(w.tried, "my.json;");
    cr_expect_eq(again(&w, one), CB_OK);
    cr_expect_str_eq(w.tried, "revision 1;");
    cr_expect_eq(cb_revisions_number(w.r), 1);
    change(&w, CB_REVISIONS_PUT, "/api", "true");
    cr_expect_eq(again(&w, one), CB_OK);
    cr_expect_str_eq(w.runs, "{\"n\":1,\"api\":true}");
    cr_expect_eq(cb_revisions_number(w.r), 2);
    cr_expect_eq(again(&w, two), CB_OK, "edited while it did not run");
    cr_expect_str_eq(w.runs, "{\"n\":2}");
    cr_expect_eq(cb_revisions_number(w.r), 3);
    change(&w, CB_REVISIONS_FILE, "", two);
    EXPECT_DONE(&w, CB_OK, CB_REVISIONS_COMMITTED);
    cr_expect(w.number == 3 && w.draft_revision == 3, "a reload makes no revision");
    change(&w, CB_REVISIONS_PUT, "/api", "1");
    change(&w, CB_REVISIONS_FILE, "", two);
    cr_expect_str_eq(w.runs, "{\"n\":2,\"api\":1}", "the file was not edited");
    change(&w, CB_REVISIONS_FILE, "", one);
    cr_expect_str_eq(w.runs, "{\"n\":1}");
    cr_expect_eq(w.number, 5);
    change(&w, CB_REVISIONS_FILE, "", "{\"bad\": 1}");
    EXPECT_DONE(&w, CB_EINVAL, CB_REVISIONS_PREPARED);
    cr_expect_eq(again(&w, "{\"bad\": 1}"), CB_OK, "the last revision runs when the file cannot");
    cr_expect_str_eq(w.tried, "my.json;revision 5;");
    cr_expect_eq(again(&w, "{ not json"), CB_OK);
    cr_expect_str_eq(w.tried, "my.json;revision 5;");
    cr_expect_eq(again(&w, NULL), CB_OK, "no file at all");
    cr_expect_str_eq(w.tried, "revision 5;");
    end(&w);
}

Test(revisions, an_earlier_one_runs_when_the_last_cannot) {
    world w;
    const char *file = "{\"n\": 1}";
    begin(&w, file);
    change(&w, CB_REVISIONS_PUT, "/n", "2");
    change(&w, CB_REVISIONS_PUT, "/n", "3");
    w.cannot = "\"n\": 3";
    cr_expect_eq(again(&w, file), CB_OK);
    cr_expect_str_eq(w.tried, "revision 3;revision 2;");
    cr_expect_eq(cb_revisions_number(w.r), 2);
    change(&w, CB_REVISIONS_FILE, "", file);
    EXPECT_DONE(&w, CB_EINVAL, CB_REVISIONS_PREPARED);
    cr_expect_str_eq(w.runs, "{\"n\":2}");
    w.cannot = NULL;
    change(&w, CB_REVISIONS_FILE, "", file);
    EXPECT_DONE(&w, CB_OK, CB_REVISIONS_COMMITTED);
    cr_expect_str_eq(w.runs, "{\"n\":3}", "a reload goes to the last revision");
    cr_expect_eq(w.number, 3);
    w.cannot = "\"n\"";
    cr_expect_eq(again(&w, file), CB_EINVAL);
    cr_expect_str_eq(w.tried, "revision 3;revision 2;revision 1;my.json;");
    end(&w);
}

Test(revisions, a_change_follows_an_earlier_one_that_runs) {
    world w;
    const char *file = "{\"n\": 1}";
    begin(&w, file);
    change(&w, CB_REVISIONS_PUT, "/n", "2");
    change(&w, CB_REVISIONS_PUT, "/n", "3");
    w.cannot = "\"n\": 3";
    cr_expect_eq(again(&w, file), CB_OK);
    change(&w, CB_REVISIONS_PUT, "/m", "4");
    EXPECT_DONE(&w, CB_OK, CB_REVISIONS_COMMITTED);
    cr_expect_str_eq(w.runs, "{\"n\":2,\"m\":4}");
    cr_expect_eq(w.number, 4);
    end(&w);
}

static void told(int rc, const cb_revision *all, size_t n, uint64_t more, void *user) {
    world *w = user;
    w->calls++;
    w->rc = rc;
    w->n = n;
    w->more = more;
    for (size_t i = 0; i < n && i < 64; i++) {
        w->numbers[i] = all[i].number;
        snprintf(w->told[i], sizeof w->told[i], "%s %s %s %s %d %d", all[i].actor, all[i].how, all[i].pointer,
                 all[i].reason, (int)all[i].from, (int)all[i].before);
        cr_expect(all[i].time_ms > 1700000000000);
    }
    if (n) snprintf(w->value, sizeof w->value, "%.*s", (int)all[0].text.len, (const char *)all[0].text.base);
}

static void history(world *w, uint64_t before, uint32_t most) {
    const int calls = w->calls;
    cr_assert_eq(cb_revisions_history(w->r, NULL, before, most, told, w), CB_OK);
    wait_for(w, calls + 1);
}

static void get(world *w, uint64_t number) {
    const int calls = w->calls;
    cr_assert_eq(cb_revisions_get(w->r, NULL, number, told, w), CB_OK);
    wait_for(w, calls + 1);
}

Test(revisions, what_was_is_told_and_can_be_again) {
    world w;
    begin(&w, "{\"a\": 1} // mine");
    change(&w, CB_REVISIONS_PUT, "/b", "2");
    change(&w, CB_REVISIONS_DELETE, "/a", "");
    cb_revisions_change_opts o = opts_of(CB_REVISIONS_ROLLBACK, "", "");
    o.from = 1;
    o.reason = "it was \"better\"";
    propose(&w, &o);
    EXPECT_DONE(&w, CB_OK, CB_REVISIONS_COMMITTED);
    cr_expect_str_eq(w.runs, "{\"a\":1}");
    history(&w, 0, 3);
    cr_expect(w.n == 3 && w.more == 2 && w.numbers[0] == 4);
    cr_expect_str_eq(w.told[0], "uid:1000 rollback  it was \"better\" 1 3");
    cr_expect_str_eq(w.told[1], "uid:1000 delete /a because 0 2");
    cr_expect_str_eq(w.value, "{\"a\": 1} // mine", "its text with its comments");
    history(&w, w.more, 3);
    cr_expect(w.n == 1 && w.more == 0);
    cr_expect_str_eq(w.told[0], "file file   0 0");
    get(&w, 2);
    cr_expect(w.n == 1 && w.numbers[0] == 2);
    cr_expect_str_eq(w.value, "{\n  \"a\": 1,\n  \"b\": 2\n}\n");
    get(&w, 9);
    cr_expect_eq(w.rc, CB_ENOENT);
    o.from = 9;
    propose(&w, &o);
    EXPECT_DONE(&w, CB_ENOENT, CB_REVISIONS_MADE);
    o.from = 4;
    propose(&w, &o);
    EXPECT_DONE(&w, CB_OK, CB_REVISIONS_SAME);
    end(&w);
}

Test(revisions, a_store_that_cannot_write_changes_nothing) {
    world w;
    char command[160];
    begin(&w, "{\"a\": 1}");
    snprintf(command, sizeof command, "rm -rf %s", w.folder);
    cr_assert_eq(system(command), 0);
    change(&w, CB_REVISIONS_PUT, "/a", "2");
    cr_expect(w.rc < 0 && w.step == CB_REVISIONS_STORED, "%d %d", w.rc, w.step);
    cr_expect_str_eq(w.log, "prepared aborted ");
    cr_expect_str_eq(w.runs, "{\"a\":1}");
    change(&w, CB_REVISIONS_FILE, "", "{\"a\": 1}");
    EXPECT_DONE(&w, CB_OK, CB_REVISIONS_COMMITTED);
    cr_expect_eq(w.number, 1, "a reload of what is there needs no store");
    end(&w);
}

Test(revisions, a_new_store_gets_what_runs) {
    world w;
    char other[sizeof w.path + 8];
    const char *file = "{\"a\": 1}";
    begin(&w, file);
    change(&w, CB_REVISIONS_PUT, "/a", "2");
    cr_expect_eq(cb_revisions_use(w.r, NULL), CB_OK);
    cb_store_free(w.store);
    snprintf(other, sizeof other, "%s-2", w.path);
    cr_assert_eq(cb_store_open(&w.store, CB_OPTS(cb_store_file_opts, .path = other)), CB_OK);
    cr_expect_eq(cb_revisions_use(w.r, w.store), CB_OK);
    cr_expect_eq(cb_revisions_number(w.r), 0);
    change(&w, CB_REVISIONS_FILE, "", file);
    EXPECT_DONE(&w, CB_OK, CB_REVISIONS_COMMITTED);
    cr_expect(w.number == 1 && strcmp(w.runs, "{\"a\":2}") == 0, "%s", w.runs);
    change(&w, CB_REVISIONS_PUT, "/a", "3");
    EXPECT_DONE(&w, CB_OK, CB_REVISIONS_COMMITTED);
    cr_expect_eq(w.number, 2);
    end(&w);
}

Test(revisions, without_a_store_only_the_file_changes_anything) {
    world w;
    begin(&w, NULL);
    close_all(&w);
    open_revisions(&w);
    cr_assert_eq(begin_with(&w, "{\"a\": 1}"), CB_OK);
    cr_expect_eq(cb_revisions_begun(w.r), CB_OK);
    cr_expect(cb_revisions_number(w.r) == 1 && !cb_revisions_kept(w.r));
    change(&w, CB_REVISIONS_PUT, "/a", "2");
    EXPECT_DONE(&w, CB_ENOTSUP, CB_REVISIONS_STORED);
    cb_revisions_change_opts o = opts_of(CB_REVISIONS_PUT, "/a", "2");
    o.dry_run = 1;
    propose(&w, &o);
    EXPECT_DONE(&w, CB_OK, CB_REVISIONS_CHECKED);
    change(&w, CB_REVISIONS_FILE, "", "{\"a\": 3}");
    EXPECT_DONE(&w, CB_OK, CB_REVISIONS_COMMITTED);
    cr_expect(w.number == 2 && strcmp(w.runs, "{\"a\":3}") == 0);
    cr_expect_eq(cb_revisions_history(w.r, NULL, 0, 10, told, &w), CB_ENOTSUP);
    open_store(&w);
    cr_expect_eq(cb_revisions_use(w.r, w.store), CB_OK);
    change(&w, CB_REVISIONS_PUT, "/a", "4");
    EXPECT_DONE(&w, CB_OK, CB_REVISIONS_COMMITTED);
    end(&w);
}

Test(revisions, changes_wait_in_a_line_that_has_an_end) {
    world w;
    cb_revisions_change *c[4];
    begin(&w, "{\"list\": []}");
    w.later = 1;
    for (int i = 0; i < 4; i++) {
        char body[8];
        snprintf(body, sizeof body, "%d", i);
        const cb_revisions_change_opts o = opts_of(CB_REVISIONS_PUT, "/list/-", body);
        cr_assert_eq(cb_revisions_propose(w.r, &c[i], &o, done, &w), CB_OK);
    }
    const cb_revisions_change_opts o = opts_of(CB_REVISIONS_PUT, "/list/-", "9");
    cr_expect_eq(cb_revisions_propose(w.r, NULL, &o, done, &w), CB_EAGAIN);
    cb_revisions_cancel(c[1]);
    wait_for(&w, 3);
    cr_expect_str_eq(w.runs, "{\"list\":[0,2,3]}");
    end(&w);
}

Test(revisions, a_change_can_be_cancelled_at_any_time) {
    for (int turns = 0; turns < 40; turns++) {
        world w;
        cb_revisions_change *c = NULL;
        begin(&w, "{\"a\": 1}");
        w.later = 1;
        cb_revisions_change_opts o = opts_of(turns % 2 ? CB_REVISIONS_PUT : CB_REVISIONS_ROLLBACK, "/a", "2");
        o.from = 1;
        cr_assert_eq(cb_revisions_propose(w.r, &c, &o, done, &w), CB_OK);
        for (int i = 0; i < turns / 2 && w.calls == 0; i++) {
            cb_loop_step(w.loop);
            usleep(100);
        }
        if (w.calls == 0) cb_revisions_cancel(c);
        const int calls = w.calls;
        o = opts_of(CB_REVISIONS_PUT, "/b", "3");
        cr_assert_eq(cb_revisions_propose(w.r, &c, &o, done, &w), CB_OK);
        wait_for(&w, calls + 1);
        EXPECT_DONE(&w, CB_OK, CB_REVISIONS_COMMITTED);
        cr_expect(strcmp(w.runs, "{\"a\":1,\"b\":3}") == 0 || strcmp(w.runs, "{\"a\":2,\"b\":3}") == 0, "%s", w.runs);
        end(&w);
    }
}

Test(revisions, everything_can_be_freed_at_any_time) {
    for (int turns = 0; turns < 30; turns++) {
        world w;
        begin(&w, "{\"a\": 1}");
        w.later = 1;
        const cb_revisions_change_opts o = opts_of(CB_REVISIONS_PUT, "/a", "2");
        cr_assert_eq(cb_revisions_propose(w.r, NULL, &o, done, &w), CB_OK);
        cr_assert_eq(cb_revisions_propose(w.r, NULL, &o, done, &w), CB_OK);
        cr_assert_eq(cb_revisions_history(w.r, NULL, 0, 10, told, &w), CB_OK);
        w.later = 0;
        for (int i = 0; i < turns && w.calls < 3; i++) {
            cb_loop_step(w.loop);
            usleep(100);
        }
        const int calls = w.calls;
        close_all(&w);
        cb_loop_step(w.loop);
        cr_expect_eq(w.calls, calls);
        end(&w);
    }
}

Test(revisions, nothing_changes_while_another_process_takes_over) {
    world w;
    begin(&w, "{\"a\": 1}");
    w.later = 1;
    const cb_revisions_change_opts o = opts_of(CB_REVISIONS_PUT, "/a", "2");
    cr_assert_eq(cb_revisions_propose(w.r, NULL, &o, done, &w), CB_OK);
    cr_assert_eq(cb_revisions_propose(w.r, NULL, &o, done, &w), CB_OK);
    while (!cb_revisions_busy(w.r))
        cb_loop_step(w.loop);
    cb_revisions_hold(w.r, 1);
    cr_expect_eq(cb_revisions_use(w.r, NULL), CB_EAGAIN, "one is under way");
    wait_for(&w, 2);
    cr_expect_str_eq(w.log, "prepared committed ");
    cr_expect_eq(w.rc, CB_EAGAIN);
    cr_expect_eq(cb_revisions_propose(w.r, NULL, &o, done, &w), CB_EAGAIN);
    cr_assert_eq(cb_revisions_history(w.r, NULL, 0, 10, told, &w), CB_OK);
    cr_expect_eq(cb_revisions_use(w.r, NULL), CB_OK);
    cr_expect(w.calls == 3 && w.rc == CB_EAGAIN);
    cb_store_free(w.store);
    open_store(&w);
    cr_expect_eq(cb_revisions_use(w.r, w.store), CB_OK);
    cb_revisions_hold(w.r, 0);
    change(&w, CB_REVISIONS_PUT, "/a", "3");
    EXPECT_DONE(&w, CB_OK, CB_REVISIONS_COMMITTED);
    end(&w);
}

Test(revisions, what_a_successor_wrote_is_followed) {
    world w;
    begin(&w, "{\"a\": 1}");
    cr_expect_eq(cb_revisions_use(w.r, NULL), CB_OK);
    cb_revisions *mine = w.r;
    open_revisions(&w); /* the other process */
    cr_assert_eq(begin_with(&w, "{\"a\": 2}"), CB_OK);
    cr_expect_eq(cb_revisions_begun(w.r), CB_OK);
    cb_revisions_free(w.r);
    w.r = mine;
    cr_expect_eq(cb_revisions_use(w.r, w.store), 1);
    cr_expect_eq(cb_revisions_number(w.r), 1);
    change(&w, CB_REVISIONS_FILE, "", "{\"a\": 2}");
    EXPECT_DONE(&w, CB_OK, CB_REVISIONS_COMMITTED);
    cr_expect(w.number == 2 && strcmp(w.runs, "{\"a\":2}") == 0);
    end(&w);
}

Test(revisions, what_is_asked_wrongly_is_refused) {
    world w;
    char name[300];
    begin(&w, "{\"a\": 1}");
    cb_revisions_change_opts o = opts_of(0, "", "1");
    cr_expect_eq(cb_revisions_propose(w.r, NULL, &o, done, &w), CB_EINVAL);
    o = opts_of(CB_REVISIONS_PUT, "a", "1");
    cr_expect_eq(cb_revisions_propose(w.r, NULL, &o, done, &w), CB_EINVAL);
    o = opts_of(CB_REVISIONS_PUT, "/a", "1");
    o.actor = NULL;
    cr_expect_eq(cb_revisions_propose(w.r, NULL, &o, done, &w), CB_EINVAL);
    memset(name, 'n', sizeof name);
    name[256] = '\0';
    o.actor = name;
    cr_expect_eq(cb_revisions_propose(w.r, NULL, &o, done, &w), CB_EINVAL);
    o.actor = "new\nline";
    cr_expect_eq(cb_revisions_propose(w.r, NULL, &o, done, &w), CB_EINVAL);
    o.actor = "me";
    o.body.len = CB_DOCUMENT_BYTES + 1;
    cr_expect_eq(cb_revisions_propose(w.r, NULL, &o, done, &w), CB_ELIMIT);
    cr_expect_eq(w.calls, 0);
    end(&w);
}

Test(revisions, a_note_keeps_what_it_is_given) {
    cb_buf b;
    cb_revision_note in = {.actor = "uid:\"0\"",
                           .reason = "a \\ b \xc3\xa9",
                           .how = "put",
                           .pointer = "/a~1b",
                           .from = 3,
                           .before = UINT64_MAX},
                     out;
    char *bytes = NULL, long_pointer[2000];
    memset(in.file, 'f', CB_REVISION_HASH);
    cb_buf_init(&b, &cb_alloc_libc, 4096);
    cr_assert_eq(cb_revision_note_write(&b, &in), CB_OK);
    cr_assert_eq(cb_revision_note_read(&out, &bytes, cb_buf_slice(&b)), CB_OK);
    cr_expect(strcmp(in.actor, out.actor) == 0 && strcmp(in.reason, out.reason) == 0 && strcmp("put", out.how) == 0);
    cr_expect(strcmp(in.pointer, out.pointer) == 0 && out.from == 3 && out.before == UINT64_MAX);
    cr_expect_str_eq(in.file, out.file);
    cb_mem_free(&cb_alloc_libc, bytes);
    b.len = 0;
    memset(long_pointer, '/', sizeof long_pointer);
    long_pointer[sizeof long_pointer - 1] = '\0';
    in.pointer = long_pointer;
    cr_assert_eq(cb_revision_note_write(&b, &in), CB_OK);
    cr_assert_eq(cb_revision_note_read(&out, &bytes, cb_buf_slice(&b)), CB_OK);
    cr_expect(!*out.pointer && strcmp(in.actor, out.actor) == 0);
    cb_mem_free(&cb_alloc_libc, bytes);
    static const char *const others[] = {"", "by hand", "{", "[]", "{\"by\": \"x\"}", "{\"how\": 1}"};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        cr_assert_eq(cb_revision_note_read(&out, &bytes, cb_slice_str(others[i])), CB_OK);
        cr_expect(!*out.actor && strcmp(out.reason, others[i]) == 0 && !*out.file);
        cb_mem_free(&cb_alloc_libc, bytes);
    }
    cb_buf_free(&b);
}
