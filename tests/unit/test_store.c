#include "loop/loop_int.h"
#include "support/moved.h"
#include "support/scratch.h"
#include <cb/store.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* What every store must do, whatever is behind it: the tests above the line of dashes use the interface alone. */
typedef struct world {
    char folder[64], path[96];
    cb_store *s;
    cb_loop *loop;
    /* the last answer */
    int rc, calls;
    size_t n;
    uint64_t revision, oldest;
    struct {
        char key[64], value[64], note[64];
        uint64_t revision;
        int deleted;
    } got[64];
} world;

static void begin(world *w, cb_store_file_opts o) {
    *w = (world){0};
    scratch_folder(w->folder, sizeof w->folder, "store");
    snprintf(w->path, sizeof w->path, "%s/store", w->folder);
    o.size = sizeof o;
    o.path = w->path;
    cr_assert_eq(cb_store_open(&w->s, &o), CB_OK, "%s", cb_last_error());
    cr_assert_eq(cb_loop_new(&w->loop, NULL), CB_OK);
}

static void end(world *w) {
    char command[128];
    cb_loop_free(w->loop);
    cb_store_free(w->s);
    snprintf(command, sizeof command, "rm -rf %s", w->folder);
    cr_expect_eq(system(command), 0);
}

static void copy(char *out, cb_slice s) {
    size_t n = s.len < 63 ? s.len : 63;
    if (n > 0) memcpy(out, s.base, n);
    out[n] = '\0';
}

static void keep(world *w, size_t i, const cb_store_entry *e) {
    if (i >= 64) return;
    copy(w->got[i].key, e->key);
    copy(w->got[i].value, e->value);
    copy(w->got[i].note, e->note);
    w->got[i].revision = e->revision;
    w->got[i].deleted = e->deleted;
}

static void done(int rc, const cb_store_answer *a, void *user) {
    world *w = user;
    w->rc = rc;
    w->calls++;
    w->n = a->n;
    w->revision = a->revision;
    w->oldest = a->oldest;
    for (size_t i = 0; i < a->n; i++)
        keep(w, i, &a->entries[i]);
}

static int put(world *w, const char *key, const char *value, uint64_t expected) {
    const cb_store_put_opts o = {.size = sizeof o,
                                 .key = cb_slice_str(key),
                                 .value = cb_slice_str(value),
                                 .note = cb_slice_str("me"),
                                 .expected = expected,
                                 .time_ms = 1700000000000};
    return cb_store_put(w->s, NULL, NULL, &o, done, w);
}

static int get(world *w, const char *key, uint64_t at) {
    return cb_store_get(w->s, NULL, NULL, cb_slice_str(key), at, done, w);
}

static void turn_until(world *w, const int *value, int wanted) {
    for (int i = 0; i < 10000 && *value < wanted; i++) {
        struct timespec ms = {.tv_nsec = 1000000};
        cb_loop_step(w->loop);
        if (*value < wanted) nanosleep(&ms, NULL);
    }
    cr_assert_geq(*value, wanted);
}

Test(store, compare_and_set) {
    world w;
    begin(&w, (cb_store_file_opts){0});
    cr_expect_eq(get(&w, "a", 0), CB_ENOENT);
    cr_expect_eq(put(&w, "a", "1", 0), CB_OK, "%s", cb_last_error());
    cr_expect_eq(w.n, 1);
    cr_expect_eq(w.got[0].revision, 1);
    cr_expect_eq(put(&w, "a", "2", 0), CB_EEXIST, "it is there");
    cr_expect(w.n == 1 && w.got[0].revision == 1 && strcmp(w.got[0].value, "1") == 0, "the answer says what is there");
    cr_expect_eq(put(&w, "a", "2", 7), CB_EEXIST, "not at that revision");
    cr_expect_eq(put(&w, "a", "2", 1), CB_OK);
    cr_expect_eq(put(&w, "b", "x", 5), CB_EEXIST, "expected, and not there");
    cr_expect_eq(w.n, 0);
    cr_expect_eq(put(&w, "a", "3", CB_STORE_ANY), CB_OK);
    cr_expect_eq(get(&w, "a", 0), CB_OK);
    cr_expect(strcmp(w.got[0].value, "3") == 0 && strcmp(w.got[0].note, "me") == 0 && w.got[0].revision == 3);
    cr_expect_eq(w.revision, 3, "refused changes take no number");
    cb_metrics *m = NULL;
    cr_assert_eq(cb_metrics_new(&m, NULL), CB_OK);
    cr_assert_eq(cb_store_metrics(w.s, m, "config"), CB_OK, "%s", cb_last_error());
    cr_expect_eq(cb_store_metrics(w.s, m, "config"), CB_EEXIST);
    moved_scrape(m);
    EXPECT_MOVED(m, 3, "cb_store_revision", "config");
    EXPECT_MOVED(m, 3, "cb_store_changes", "config");
    EXPECT_MOVED(m, 3, "cb_store_conflicts", "config");
    EXPECT_MOVED(m, 0, "cb_store_failures", "config");
    EXPECT_MOVED(m, 0, "cb_store_waiting_questions", "config");
    EXPECT_MOVED_IN(m, 4096, 1e7, "cb_store_file_bytes", "config");
    end(&w);
    cb_metrics_unref(m);
}

Test(store, removing_and_making_again) {
    world w;
    begin(&w, (cb_store_file_opts){0});
    cr_expect_eq(put(&w, "a", NULL, CB_STORE_ANY), CB_ENOENT);
    cr_expect_eq(put(&w, "a", "1", 0), CB_OK);
    cr_expect_eq(put(&w, "a", NULL, 9), CB_EEXIST);
    cr_expect_eq(put(&w, "a", NULL, 1), CB_OK);
    cr_expect_eq(w.got[0].deleted, 1);
    cr_expect_eq(get(&w, "a", 0), CB_ENOENT);
    cr_expect_eq(get(&w, "a", 1), CB_OK, "as it was");
    cr_expect_eq(put(&w, "a", "again", 0), CB_OK, "a removed key is not there");
    cr_expect_eq(w.got[0].revision, 3);
    cr_expect_eq(cb_store_history(w.s, NULL, NULL, cb_slice_str("a"), 0, 10, done, &w), CB_OK);
    cr_expect(w.n == 3 && w.got[0].revision == 3 && w.got[1].deleted && w.got[2].revision == 1);
    cr_expect_eq(cb_store_history(w.s, NULL, NULL, cb_slice_str("a"), 3, 1, done, &w), CB_OK);
    cr_expect(w.n == 1 && w.got[0].revision == 2);
    cr_expect_eq(cb_store_history(w.s, NULL, NULL, cb_slice_str("z"), 0, 10, done, &w), CB_ENOENT);
    cr_expect_eq(put(&w, "empty", "", 0), CB_OK, "an empty value is a value");
    cr_expect_eq(get(&w, "empty", 0), CB_OK);
    cr_expect(w.got[0].value[0] == '\0' && !w.got[0].deleted);
    end(&w);
}

Test(store, lists_by_prefix_in_order) {
    static const char *const keys[] = {"/b/2", "/a/1", "/b/10", "/b", "/b/1", "/c", "/b\xC3\xBC"};
    world w;
    begin(&w, (cb_store_file_opts){0});
    for (size_t i = 0; i < 7; i++)
        cr_assert_eq(put(&w, keys[i], "v", 0), CB_OK);
    cr_assert_eq(put(&w, "/b/1", NULL, CB_STORE_ANY), CB_OK);
    cr_expect_eq(cb_store_list(w.s, NULL, NULL, cb_slice_str("/b"), (cb_slice){0}, 100, done, &w), CB_OK);
    cr_assert_eq(w.n, 4);
    cr_expect(strcmp(w.got[0].key, "/b") == 0 && strcmp(w.got[1].key, "/b/10") == 0 &&
              strcmp(w.got[2].key, "/b/2") == 0 && strcmp(w.got[3].key, "/b\xC3\xBC") == 0);
    cr_expect_eq(cb_store_list(w.s, NULL, NULL, cb_slice_str("/b"), cb_slice_str("/b/10"), 2, done, &w), CB_OK);
    cr_expect(w.n == 2 && strcmp(w.got[0].key, "/b/10") == 0 && strcmp(w.got[1].key, "/b/2") == 0);
    cr_expect_eq(cb_store_list(w.s, NULL, NULL, cb_slice_str("/b"), cb_slice_str("/a"), 9, done, &w), CB_OK);
    cr_expect_eq(w.n, 4, "from before the prefix");
    cr_expect_eq(cb_store_list(w.s, NULL, NULL, (cb_slice){0}, (cb_slice){0}, 100, done, &w), CB_OK);
    cr_expect_eq(w.n, 6);
    cr_expect_eq(cb_store_list(w.s, NULL, NULL, cb_slice_str("/x"), (cb_slice){0}, 100, done, &w), CB_OK);
    cr_expect_eq(w.n, 0);
    end(&w);
}

Test(store, old_changes_are_forgotten) {
    world w;
    char value[16];
    begin(&w, (cb_store_file_opts){.keep = 3});
    cr_assert_eq(put(&w, "other", "x", 0), CB_OK);
    for (int i = 0; i < 10; i++) {
        snprintf(value, sizeof value, "%d", i);
        cr_assert_eq(put(&w, "a", value, CB_STORE_ANY), CB_OK);
    }
    cr_expect_eq(w.oldest, 8);
    cb_metrics *m = NULL;
    cr_assert_eq(cb_metrics_new(&m, NULL), CB_OK);
    cr_assert_eq(cb_store_metrics(w.s, m, ""), CB_OK);
    moved_scrape(m);
    EXPECT_MOVED(m, 8, "cb_store_oldest_revision", "");
    cb_metrics_unref(m); /* the store holds it */
    cr_expect_eq(cb_store_history(w.s, NULL, NULL, cb_slice_str("a"), 0, 100, done, &w), CB_OK);
    cr_expect_eq(w.n, 4, "the latest and three");
    cr_expect_eq(get(&w, "a", 9), CB_OK);
    cr_expect_str_eq(w.got[0].value, "7");
    cr_expect_eq(get(&w, "a", 4), CB_ENOENT);
    cr_expect(strstr(cb_last_error(), "forgotten"), "%s", cb_last_error());
    cr_expect_eq(get(&w, "other", 0), CB_OK, "another key keeps its own");
    end(&w);
}

Test(store, bad_arguments_are_named) {
    world w;
    char longer[CB_STORE_KEY_BYTES + 2];
    begin(&w, (cb_store_file_opts){0});
    memset(longer, 'k', sizeof longer);
    longer[sizeof longer - 1] = '\0';
    static const cb_store_put_opts good = {
        .size = sizeof good, .key = {(const uint8_t *)"k", 1}, .value = {(const uint8_t *)"v", 1}, .time_ms = 1};
    cb_store_put_opts rows[5] = {good, good, good, good, good};
    rows[0].key = (cb_slice){0};
    rows[1].key = cb_slice_str(longer);
    rows[2].key = (cb_slice){(const uint8_t *)"a\0b", 3};
    rows[3].note = cb_slice_str("\xff");
    rows[4].time_ms = 0;
    for (int i = 0; i < 5; i++)
        cr_expect_eq(cb_store_put(w.s, NULL, NULL, &rows[i], done, &w), CB_EINVAL, "row %d", i);
    cr_expect_eq(cb_store_put(w.s, NULL, NULL, &good, NULL, &w), CB_EINVAL);
    cr_expect_eq(cb_store_list(w.s, NULL, NULL, (cb_slice){0}, (cb_slice){0}, 0, done, &w), CB_EINVAL);
    cr_expect_eq(cb_store_list(w.s, NULL, NULL, (cb_slice){0}, (cb_slice){0}, 1001, done, &w), CB_EINVAL);
    cr_expect_eq(w.calls, 0);
    end(&w);
}

Test(store, answers_come_on_the_loop) {
    world w;
    cb_store_ask *ask = NULL;
    begin(&w, (cb_store_file_opts){0});
    const cb_store_put_opts o = {
        .size = sizeof o, .key = cb_slice_str("a"), .value = cb_slice_str("1"), .expected = 0, .time_ms = 1};
    cr_assert_eq(cb_store_put(w.s, w.loop, NULL, &o, done, &w), CB_OK);
    cr_expect_eq(w.calls, 0);
    turn_until(&w, &w.calls, 1);
    cr_expect(w.rc == CB_OK && w.got[0].revision == 1);
    cr_assert_eq(cb_store_put(w.s, w.loop, NULL, &o, done, &w), CB_OK);
    turn_until(&w, &w.calls, 2);
    cr_expect_eq(w.rc, CB_EEXIST);
    cr_assert_eq(cb_store_get(w.s, w.loop, &ask, cb_slice_str("a"), 0, done, &w), CB_OK);
    cb_store_cancel(ask);
    cr_assert_eq(cb_store_get(w.s, w.loop, NULL, cb_slice_str("a"), 0, done, &w), CB_OK);
    turn_until(&w, &w.calls, 3);
    cr_expect_eq(w.calls, 3, "the cancelled one was before it");
    for (int i = 0; i < 20; i++) { /* cancelled at all stages of their way */
        cr_assert_eq(cb_store_get(w.s, w.loop, &ask, cb_slice_str("a"), 0, done, &w), CB_OK);
        struct timespec some = {.tv_nsec = i * 20000};
        nanosleep(&some, NULL);
        cb_store_cancel(ask);
    }
    end(&w); /* with some that were answered, but not told */
}

typedef struct seen {
    world *w;
    cb_store_watch *watch;
    int n, rc, free_at;
    uint64_t last;
    char keys[64][16];
} seen;

static void changed(cb_store_watch *watch, int rc, const cb_store_entry *e, void *user) {
    seen *s = user;
    if (rc < 0) {
        s->rc = rc;
        s->n++;
        return;
    }
    cr_expect_gt(e->revision, s->last, "in order");
    s->last = e->revision;
    if (s->n < 64)
        snprintf(s->keys[s->n], 16, "%s%.*s", e->deleted ? "-" : "", (int)e->key.len, (const char *)e->key.base);
    if (++s->n == s->free_at) cb_store_watch_free(watch);
}

static void count_changes(cb_store_watch *w, int rc, const cb_store_entry *e, void *user) {
    (void)w, (void)rc, (void)e;
    ++*(int *)user;
}

/* Answers and changes that are on their way to a loop: the loop, or nobody, has them in the end. */
Test(store, may_go_while_answers_are_on_their_way) {
    for (int store_first = 0; store_first < 2; store_first++) {
        world w;
        cb_store_watch *watch = NULL;
        cb_store_stats stats = {.size = sizeof stats};
        int changes = 0;
        begin(&w, (cb_store_file_opts){0});
        cr_assert_eq(cb_store_watch_new(&watch, w.s, w.loop, cb_slice_str(""), 1, count_changes, &changes), CB_OK);
        cr_assert_eq(put(&w, "a", "1", 0), CB_OK);
        for (int i = 0; i < 3; i++)
            cr_assert_eq(cb_store_get(w.s, w.loop, NULL, cb_slice_str("a"), 0, done, &w), CB_OK);
        do {
            usleep(1000);
            cr_assert_eq(cb_store_stats_get(w.s, &stats), CB_OK);
        } while (stats.waiting > 0);
        usleep(20000); /* and posted */
        w.calls = 0;
        if (store_first) {
            cb_store_free(w.s);
            w.s = NULL;
            cb_loop_step(w.loop);
        } else {
            cb_store_watch_free(watch);
        }
        end(&w);
        cr_expect_eq(w.calls + changes, 0, "%d and %d", w.calls, changes);
    }
}

Test(store, watchers_are_told_everything_once) {
    world w;
    begin(&w, (cb_store_file_opts){0});
    seen all = {.w = &w}, later = {.w = &w}, some = {.w = &w, .free_at = 2};
    cr_assert_eq(put(&w, "/a", "1", 0), CB_OK);
    cr_assert_eq(put(&w, "/b", "1", 0), CB_OK);
    cr_assert_eq(cb_store_watch_new(&all.watch, w.s, w.loop, (cb_slice){0}, 1, changed, &all), CB_OK);
    cr_assert_eq(cb_store_watch_new(&later.watch, w.s, w.loop, cb_slice_str("/b"), 0, changed, &later), CB_OK);
    cr_assert_eq(cb_store_watch_new(&some.watch, w.s, w.loop, (cb_slice){0}, 1, changed, &some), CB_OK);
    turn_until(&w, &all.n, 2);
    cr_assert_eq(put(&w, "/b", "2", 2), CB_OK);
    cr_assert_eq(put(&w, "/a", NULL, 1), CB_OK);
    cr_assert_eq(put(&w, "/b/c", "2", 0), CB_OK);
    turn_until(&w, &all.n, 5);
    turn_until(&w, &later.n, 2);
    cr_expect(strcmp(all.keys[0], "/a") == 0 && strcmp(all.keys[3], "-/a") == 0 && strcmp(all.keys[4], "/b/c") == 0);
    cr_expect(strcmp(later.keys[0], "/b") == 0 && strcmp(later.keys[1], "/b/c") == 0);
    turn_until(&w, &some.n, 2);
    for (int i = 0; i < 600; i++) /* more than one piece */
        cr_assert_eq(put(&w, "/many", "x", CB_STORE_ANY), CB_OK);
    turn_until(&w, &all.n, 605);
    cr_expect_eq(later.n, 2);
    cr_expect_eq(some.n, 2, "freed within its call");
    cb_store_watch_free(all.watch);
    cr_assert_eq(put(&w, "/b", "3", CB_STORE_ANY), CB_OK);
    turn_until(&w, &later.n, 3);
    cr_expect_eq(all.n, 605);
    cb_store_watch_free(later.watch);
    end(&w);
}

Test(store, a_watcher_too_late_is_told_so) {
    world w;
    begin(&w, (cb_store_file_opts){.keep = 1});
    seen s = {.w = &w};
    for (int i = 0; i < 5; i++)
        cr_assert_eq(put(&w, "a", "x", CB_STORE_ANY), CB_OK);
    cr_assert_eq(cb_store_watch_new(&s.watch, w.s, w.loop, (cb_slice){0}, 1, changed, &s), CB_OK);
    turn_until(&w, &s.n, 1);
    cr_expect_eq(s.rc, CB_ENOENT);
    cb_store_watch_free(s.watch);
    end(&w);
}

enum { THREADS = 4, EACH = 25 };

/* Counts up by compare and set: what another did first is tried again. */
static void *counter(void *user) {
    world *shared = user, mine = {.s = shared->s};
    for (int i = 0; i < EACH;) {
        char value[16];
        int rc = get(&mine, "n", 0);
        int n = rc == CB_OK ? atoi(mine.got[0].value) : 0;
        snprintf(value, sizeof value, "%d", n + 1);
        rc = put(&mine, "n", value, rc == CB_OK ? mine.got[0].revision : 0);
        if (rc == CB_OK)
            i++;
        else if (rc != CB_EEXIST)
            return NULL;
    }
    return user;
}

Test(store, threads_do_not_overwrite_each_other) {
    world w;
    pthread_t t[THREADS];
    begin(&w, (cb_store_file_opts){0});
    for (int i = 0; i < THREADS; i++)
        cr_assert_eq(pthread_create(&t[i], NULL, counter, &w), 0);
    for (int i = 0; i < THREADS; i++) {
        void *good = NULL;
        pthread_join(t[i], &good);
        cr_expect_eq(good, &w);
    }
    cr_expect_eq(get(&w, "n", 0), CB_OK);
    cr_expect_eq(atoi(w.got[0].value), THREADS * EACH);
    end(&w);
}

/* ---------------------------------------- the file ---------------------------------------- */

static int reopen(world *w, cb_store_file_opts o) {
    cb_store_free(w->s);
    w->s = NULL;
    o.size = sizeof o;
    o.path = w->path;
    return cb_store_open(&w->s, &o);
}

Test(store, what_was_stored_is_there_again) {
    world w;
    struct stat st;
    cb_store *second = NULL;
    begin(&w, (cb_store_file_opts){0});
    cr_assert_eq(put(&w, "a", "1", 0), CB_OK);
    cr_assert_eq(put(&w, "b", "1", 0), CB_OK);
    cr_assert_eq(put(&w, "b", NULL, 2), CB_OK);
    cr_expect_eq(cb_store_open(&second, CB_OPTS(cb_store_file_opts, .path = w.path)), CB_EEXIST);
    cr_assert_eq(cb_store_open(&second, CB_OPTS(cb_store_file_opts, .path = w.path, .read_only = 1)), CB_OK, "%s",
                 cb_last_error());
    cr_expect_eq(cb_store_get(second, NULL, NULL, cb_slice_str("a"), 0, done, &w), CB_OK);
    cr_expect_eq(cb_store_put(second, NULL, NULL,
                              CB_OPTS(cb_store_put_opts, .key = cb_slice_str("a"), .value = cb_slice_str("2"),
                                      .expected = 1, .time_ms = 1),
                              done, &w),
                 CB_EPERM);
    cb_store_watch *none = NULL;
    cr_expect_eq(cb_store_watch_new(&none, second, w.loop, (cb_slice){0}, 0, changed, &w), CB_ENOTSUP);
    cb_store_free(second);
    cr_assert_eq(stat(w.path, &st), 0);
    cr_expect_eq(st.st_mode & 0777, 0600);
    cr_assert_eq(reopen(&w, (cb_store_file_opts){0}), CB_OK, "%s", cb_last_error());
    cr_expect_eq(get(&w, "a", 0), CB_OK);
    cr_expect_eq(get(&w, "b", 0), CB_ENOENT);
    cr_expect_eq(w.revision, 3);
    cr_expect_eq(put(&w, "c", "1", 0), CB_OK);
    cr_expect_eq(w.got[0].revision, 4);
    end(&w);
}

Test(store, files_that_are_no_stores_are_left_alone) {
    static const char text[] =
        "this is a letter to my aunt, and no database at all; it is longer than a header of one would be";
    world w;
    struct stat st;
    begin(&w, (cb_store_file_opts){0});
    cr_assert_eq(put(&w, "a", "1", 0), CB_OK);
    cb_store_free(w.s);
    w.s = NULL;
    char other[128], command[320], after[sizeof text + 8];
    snprintf(other, sizeof other, "%s/letter", w.folder);
    FILE *f = fopen(other, "w");
    cr_assert(f && fputs(text, f) >= 0 && fclose(f) == 0);
    cr_expect_eq(cb_store_open(&w.s, CB_OPTS(cb_store_file_opts, .path = other)), CB_EPROTO, "%s", cb_last_error());
    f = fopen(other, "r");
    cr_assert(f);
    size_t n = fread(after, 1, sizeof after, f);
    fclose(f);
    cr_expect(n == strlen(text) && memcmp(after, text, n) == 0);
    /* a store with a page overwritten */
    snprintf(command, sizeof command, "dd if=/dev/urandom of=%s bs=4096 seek=1 count=1 conv=notrunc 2>/dev/null",
             w.path);
    cr_assert_eq(system(command), 0);
    int rc = cb_store_open(&w.s, CB_OPTS(cb_store_file_opts, .path = w.path));
    cr_expect_eq(rc, CB_EPROTO, "%d %s", rc, cb_last_error());
    cr_expect(strstr(cb_last_error(), w.path), "%s", cb_last_error());
    /* no folder, and none that may be made */
    snprintf(other, sizeof other, "%s/no/such", w.folder);
    cr_expect_eq(cb_store_open(&w.s, CB_OPTS(cb_store_file_opts, .path = other)), CB_ENOENT, "%s", cb_last_error());
    snprintf(other, sizeof other, "%s/none", w.folder);
    cr_expect_eq(cb_store_open(&w.s, CB_OPTS(cb_store_file_opts, .path = other, .read_only = 1)), CB_ENOENT, "%s",
                 cb_last_error());
    cr_expect_neq(stat(other, &st), 0, "reading makes no file");
    cr_expect_eq(cb_store_open(&w.s, NULL), CB_EINVAL);
    end(&w);
}

Test(store, a_full_store_refuses_and_keeps_what_it_has) {
    static char value[300000];
    world w;
    int rc = CB_OK, n = 0;
    memset(value, 'v', sizeof value - 1);
    begin(&w, (cb_store_file_opts){.max_mib = 2, .keep = 100});
    for (; n < 100 && rc == CB_OK; n++)
        rc = put(&w, "big", value, CB_STORE_ANY);
    cr_expect_eq(rc, CB_ELIMIT, "%s", cb_last_error());
    cr_expect_gt(n, 3);
    cr_expect_eq(get(&w, "big", 0), CB_OK);
    cr_expect_eq(w.got[0].revision, (uint64_t)n - 1);
    cr_expect_eq(put(&w, "big", value, CB_STORE_ANY), CB_ELIMIT);
    cr_assert_eq(reopen(&w, (cb_store_file_opts){.max_mib = 8}), CB_OK, "%s", cb_last_error());
    cr_expect_eq(put(&w, "big", value, (uint64_t)n - 1), CB_OK, "%s", cb_last_error());
    end(&w);
}

Test(store, a_file_that_is_gone_takes_no_changes) {
    world w;
    begin(&w, (cb_store_file_opts){0});
    cr_assert_eq(put(&w, "a", "1", 0), CB_OK);
    cr_assert_eq(unlink(w.path), 0);
    cr_expect_eq(put(&w, "a", "2", 1), CB_ENOENT, "%s", cb_last_error());
    cr_expect_eq(get(&w, "a", 0), CB_OK, "what is known can be read");
    end(&w);
}

/* A process that is killed while it writes: what it was told of is there, and nothing is half there. */
Test(processes, a_store_is_killed_while_it_writes) {
    world w;
    begin(&w, (cb_store_file_opts){0});
    cb_store_free(w.s);
    w.s = NULL;
    uint64_t told = 0;
    for (int round = 0; round < 20; round++) {
        int pipes[2];
        cr_assert_eq(pipe(pipes), 0);
        pid_t child = fork();
        if (child == 0) {
            world mine = {0};
            strcpy(mine.path, w.path);
            if (reopen(&mine, (cb_store_file_opts){.keep = 5}) < 0) _exit(1);
            for (;;) {
                if (put(&mine, "a", "1", CB_STORE_ANY) < 0 || write(pipes[1], &mine.got[0].revision, 8) != 8) _exit(1);
            }
        }
        close(pipes[1]);
        uint64_t revision;
        for (int i = 0; i <= round % 4; i++) /* some changes in, at another moment of the next each time */
            if (read(pipes[0], &revision, 8) == 8) told = revision;
        struct timespec some = {.tv_nsec = 300000L * (round % 7)};
        nanosleep(&some, NULL);
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
        while (read(pipes[0], &revision, 8) == 8)
            told = revision;
        close(pipes[0]);
        cr_assert_eq(reopen(&w, (cb_store_file_opts){.keep = 5}), CB_OK, "%s", cb_last_error());
        if (told == 0) continue; /* killed before the first change was done */
        cr_assert_eq(get(&w, "a", 0), CB_OK);
        cr_expect(w.got[0].revision == told || w.got[0].revision == told + 1, "%d of %d", (int)w.got[0].revision,
                  (int)told);
        told = w.got[0].revision;
        cb_store_free(w.s);
        w.s = NULL;
    }
    cr_expect_gt(told, 40);
    cr_assert_eq(reopen(&w, (cb_store_file_opts){0}), CB_OK);
    end(&w);
}
