/* Configuration and revisions over HTTP: by parts, by patches, with conditions, by who may, and what was. */
#include "support/admin_fixture.h"
#include <cb/revisions.h>
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct world {
    admin_world w;
    cb_store *store;
    cb_revisions *r;
    char path[80];
    int commits;
    bool later;
} world;

static admin_reply r;

static void answer(cb_loop *loop, void *user) {
    world *w = user;
    (void)loop;
    const bool bad = !cb_document_has(cb_revisions_document(w->r), "/groups");
    cb_revisions_prepared(w->r, bad ? cb_error_set(CB_EINVAL, "no groups") : CB_OK);
}

static void prepare(cb_revisions *revisions, const cb_revisions_draft *d, void *user) {
    world *w = user;
    if (cb_document_has(d->document, "/groups/bad")) {
        const cb_config_error e = {.pointer = "/groups/bad", .text = "is not good", .line = 2, .column = 5};
        cb_revisions_mistake(revisions, &e);
        cb_revisions_prepared(revisions, cb_error_set(CB_EINVAL, "is not good"));
    } else if (w->later) {
        cr_assert_eq(cb_loop_post(w->w.loop, answer, w), CB_OK);
    } else {
        cb_revisions_prepared(revisions, CB_OK);
    }
}

static void commit(cb_revisions *revisions, const cb_revisions_draft *d, void *user) {
    (void)d;
    ((world *)user)->commits++;
    cb_revisions_committed(revisions);
}

static void give_up(cb_revisions *revisions, void *user) {
    (void)revisions;
    (void)user;
}

static const cb_revisions_ops ops = {.size = sizeof ops, .prepare = prepare, .commit = commit, .abort = give_up};
static const char *const fixed[] = {"admin"};
static const char file[] =
    "{ // mine\n"
    "  \"groups\": {\"web\": {\"owner\": \"team-a\", \"tenant\": \"acme\", \"n\": 1},\n"
    "             \"api\": {\"owner\": \"team-z\", \"tenant\": \"other\", \"n\": 9007199254740993}},\n"
    "  \"admin\": {\"state_dir\": \"/x\"}}";

static int try_it(const cb_revisions_draft *d, void *user) {
    (void)user;
    return d->document ? CB_OK : cb_error_set(CB_EINVAL, "no JSON");
}

/* Whose a group is: as a daemon would say it. */
static int allow(const cb_admin_principal *who, const cb_document_change *c, const cb_document *before,
                 const cb_document *after, void *user) {
    char at[64];
    (void)after;
    (void)user;
    if (sscanf(c->pointer, "/groups/%40[^/]/", at) != 1 || !strstr(c->pointer, "/n")) return CB_EPERM;
    char owner[80];
    snprintf(owner, sizeof owner, "/groups/%s/owner", at);
    const char *is = cb_document_string(before, owner);
    return cb_admin_owns(who, is) ? CB_OK : cb_error_set(CB_EPERM, "it is not theirs");
}

static int show(const cb_admin_principal *who, cb_document *copy, void *user) {
    (void)user;
    const char *tenant = cb_document_string(copy, "/groups/api/tenant");
    return cb_admin_of_tenant(who, tenant) ? CB_OK : cb_document_remove(copy, "/groups/api");
}

static void begin_with(world *w, const char *role, bool stored) {
    memset(w, 0, sizeof *w);
    admin_open(&w->w, ADMIN_AUDIT, role, NULL);
    snprintf(w->path, sizeof w->path, "%s/store", w->w.folder);
    if (stored) cr_assert_eq(cb_store_open(&w->store, CB_OPTS(cb_store_file_opts, .path = w->path)), CB_OK);
    cr_assert_eq(cb_revisions_new(&w->r, w->w.loop,
                                  CB_OPTS(cb_revisions_opts, .store = w->store, .file = "my.json", .fixed = fixed,
                                          .n_fixed = 1, .ops = &ops, .user = w)),
                 CB_OK);
    cr_assert_eq(cb_revisions_begin(w->r, cb_slice_str(file), try_it, w), CB_OK);
    cr_assert_eq(cb_revisions_begun(w->r), CB_OK);
    cr_assert_eq(cb_revisions_admin(w->r, w->w.a, CB_OPTS(cb_revisions_admin_opts, .allow = allow, .show = show)),
                 CB_OK, "%s", cb_last_error());
}

static void begin(world *w, const char *role) {
    begin_with(w, role, true);
}

static void end(world *w) {
    cb_admin_free(w->w.a);
    w->w.a = NULL;
    cb_revisions_free(w->r);
    admin_turn(&w->w, 5);
    cb_store_free(w->store);
    admin_close(&w->w);
}

#define JSON  "content-type: application/json"
#define MERGE "content-type: application/merge-patch+json"
#define PATCH "content-type: application/json-patch+json"

static int ask(world *w, const char *line, const char *fields, const char *body) {
    return admin_ask(&w->w, &r, line, fields, body);
}

static void expect_tag(const char *tag) {
    char value[256];
    cr_expect_str_eq(admin_field(&r, "etag", value), tag, "%s", r.text);
}

Test(revisions_http, parts_are_read_and_changed) {
    world w;
    begin(&w, "admin");
    cr_expect_eq(ask(&w, "GET /v1/config", NULL, NULL), 200, "%s", r.text);
    cr_expect(strstr(r.body, "9007199254740993") && !strstr(r.body, "mine"), "%s", r.body);
    expect_tag("\"1\"");
    cr_expect_eq(ask(&w, "GET /v1/config/groups/web/n", NULL, NULL), 200, "%s", r.text);
    cr_expect_str_eq(r.body, "1\n");
    cr_expect_eq(ask(&w, "GET /v1/config/groups/nobody", NULL, NULL), 404, "%s", r.text);
    cr_expect_eq(ask(&w, "GET /v1/config", "if-none-match: \"1\"", NULL), 304, "%s", r.text);
    cr_expect_eq(ask(&w, "PUT /v1/config/groups/web/n?reason=more", JSON, "2"), 200, "%s", r.text);
    cr_expect_str_eq(r.body, "{\"revision\":2,\"changed\":true}");
    expect_tag("\"2\"");
    cr_expect_eq(ask(&w, "PUT /v1/config/groups/web/n", JSON, "2"), 200, "%s", r.text);
    cr_expect_str_eq(r.body, "{\"revision\":2,\"changed\":false}");
    cr_expect_eq(ask(&w, "PATCH /v1/config", MERGE, "{\"groups\":{\"web\":{\"m\":3}}}"), 200, "%s", r.text);
    cr_expect_eq(ask(&w, "PATCH /v1/config/groups/web", PATCH, "[{\"op\":\"move\",\"from\":\"/m\",\"path\":\"/k\"}]"),
                 200, "%s", r.text);
    cr_expect_eq(ask(&w, "DELETE /v1/config/groups/api", NULL, NULL), 200, "%s", r.text);
    cr_expect_eq(ask(&w, "GET /v1/config/groups", NULL, NULL), 200, "%s", r.text);
    cr_expect(strstr(r.body, "\"k\": 3") && !strstr(r.body, "api"), "%s", r.body);
    expect_tag("\"5\"");
    cr_expect_eq(w.commits, 4);
    cr_expect_eq(ask(&w, "PUT /v1/config/a~1b", JSON, "{}"), 200, "%s", r.text);
    cr_expect(cb_document_has(cb_revisions_document(w.r), "/a~1b"));
    cr_expect_eq(ask(&w, "PUT /v1/config", JSON, "{\"groups\": {}} // all new"), 200, "%s", r.text);
    cr_expect(cb_document_has(cb_revisions_document(w.r), "/admin/state_dir"), "the file's own stays");
    end(&w);
}

Test(revisions_http, what_cannot_be_says_why_and_where) {
    world w;
    begin(&w, "admin");
    cr_expect_eq(ask(&w, "PUT /v1/config", JSON, "{\n\"groups\": }"), 400, "%s", r.text);
    cr_expect(strstr(r.body, "\"line\":2"), "%s", r.body);
    cr_expect_eq(ask(&w, "PUT /v1/config/x/y", JSON, "1"), 404, "%s", r.text);
    cr_expect_eq(ask(&w, "PATCH /v1/config", PATCH, "[{\"op\":\"test\",\"path\":\"/x\",\"value\":1}]"), 409, "%s",
                 r.text);
    cr_expect(strstr(r.body, "operation 0"), "%s", r.body);
    cr_expect_eq(ask(&w, "PATCH /v1/config", PATCH, "{}"), 400, "%s", r.text);
    cr_expect_eq(ask(&w, "PATCH /v1/config", JSON, "{}"), 415, "%s", r.text);
    cr_expect_eq(ask(&w, "DELETE /v1/config", NULL, NULL), 405, "%s", r.text);
    cr_expect_eq(ask(&w, "PUT /v1/config/groups/bad", JSON, "{}"), 422, "%s", r.text);
    cr_expect(strstr(r.body, "\"pointer\":\"/groups/bad\"") && !strstr(r.body, "\"line\""), "%s", r.body);
    cr_expect_eq(ask(&w, "PUT /v1/config", JSON, "{\"admin\": {\"state_dir\": \"/x\"},\n\"groups\": {\"bad\": 1}}"),
                 422, "%s", r.text);
    cr_expect(strstr(r.body, "\"line\":2"), "%s", r.body);
    cr_expect_eq(ask(&w, "PUT /v1/config/admin/state_dir", JSON, "\"/y\""), 403, "%s", r.text);
    cr_expect(strstr(r.body, "/admin/state_dir"), "%s", r.body);
    cr_expect_eq(ask(&w, "PUT /v1/config/groups/web/n?sure=1", JSON, "2"), 400, "%s", r.text);
    expect_tag("");
    cr_expect(w.commits == 0 && cb_revisions_number(w.r) == 1);
    end(&w);
}

Test(revisions_http, a_change_says_what_it_has_seen) {
    world w;
    begin(&w, "admin");
    cr_expect_eq(ask(&w, "PUT /v1/config/groups/web/n", JSON "\nif-match: \"1\"", "2"), 200, "%s", r.text);
    cr_expect_eq(ask(&w, "PUT /v1/config/groups/web/n", JSON "\nif-match: \"1\"", "3"), 412, "%s", r.text);
    expect_tag("\"2\"");
    cr_expect_eq(ask(&w, "PUT /v1/config/groups/web/n", JSON "\nif-match: *", "3"), 200, "%s", r.text);
    /* Two that have seen the same come at once: one of them is told. */
    int fds[2];
    const char *text = "PUT /v1/config/groups/web/n HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
                       "if-match: \"3\"\r\ncontent-length: 1\r\n\r\n";
    w.later = true;
    for (int i = 0; i < 2; i++) {
        fds[i] = admin_dial(w.w.path);
        cr_assert(write(fds[i], text, strlen(text)) > 0 && write(fds[i], i ? "7" : "8", 1) == 1);
    }
    int one = admin_read(&w.w, fds[0], &r), two = admin_read(&w.w, fds[1], &r);
    cr_expect((one == 200 && two == 412) || (one == 412 && two == 200), "%d %d", one, two);
    close(fds[0]);
    close(fds[1]);
    end(&w);
}

Test(revisions_http, a_dry_run_changes_nothing) {
    world w;
    begin(&w, "admin");
    cr_expect_eq(ask(&w, "PUT /v1/config/groups/web/n?dry_run=true", JSON, "2"), 200, "%s", r.text);
    cr_expect_str_eq(r.body, "{\"revision\":1,\"changed\":true,\"dry_run\":true}");
    cr_expect_eq(ask(&w, "PUT /v1/config/groups/bad?dry_run=true", JSON, "2"), 422, "%s", r.text);
    cr_expect(w.commits == 0 && cb_revisions_number(w.r) == 1);
    end(&w);
}

Test(revisions_http, what_was_is_shown_and_comes_back) {
    world w;
    begin(&w, "admin");
    cr_expect_eq(ask(&w, "PUT /v1/config/groups/web/n?reason=more", JSON, "2"), 200);
    cr_expect_eq(ask(&w, "DELETE /v1/config/groups/api", NULL, NULL), 200);
    cr_expect_eq(ask(&w, "GET /v1/revisions?limit=2", NULL, NULL), 200, "%s", r.text);
    cr_expect(strstr(r.body, "\"revision\":3") && strstr(r.body, "\"reason\":\"more\"") &&
                  strstr(r.body, "\"next\":\"Mg\""),
              "%s", r.body);
    cr_expect_eq(ask(&w, "GET /v1/revisions?limit=2&cursor=Mg", NULL, NULL), 200, "%s", r.text);
    cr_expect(strstr(r.body, "\"actor\":\"file\"") && strstr(r.body, "\"next\":null"), "%s", r.body);
    cr_expect_eq(ask(&w, "GET /v1/revisions/1", NULL, NULL), 200, "%s", r.text);
    cr_expect(strstr(r.body, "// mine") && strstr(r.body, "\"document\":{\"groups\""), "%s", r.body);
    cr_expect_eq(ask(&w, "GET /v1/revisions/9", NULL, NULL), 404, "%s", r.text);
    cr_expect_eq(ask(&w, "GET /v1/revisions/x", NULL, NULL), 404, "%s", r.text);
    cr_expect_eq(ask(&w, "GET /v1/revisions?cursor=LTI", NULL, NULL), 400, "%s", r.text);
    cr_expect_eq(ask(&w, "GET /v1/revisions/2/diff", NULL, NULL), 200, "%s", r.text);
    cr_expect_str_eq(r.body, "{\"revision\":2,\"against\":1,\"changes\":[{\"pointer\":\"/groups/web/n\",\"before\":1,"
                             "\"after\":2}]}");
    cr_expect_eq(ask(&w, "GET /v1/revisions/3/diff?against=1&form=text", NULL, NULL), 200, "%s", r.text);
    cr_expect(strstr(r.body, "+ /groups/web/n: 2\n- /groups/api: {"), "%s", r.body);
    cr_expect_eq(ask(&w, "GET /v1/revisions/1/diff", NULL, NULL), 200, "%s", r.text);
    cr_expect_eq(ask(&w, "GET /v1/revisions/1/diff?against=77", NULL, NULL), 404, "%s", r.text);
    cr_expect_eq(ask(&w, "POST /v1/revisions/1/rollback?dry_run=true", NULL, NULL), 200, "%s", r.text);
    cr_expect_eq(ask(&w, "POST /v1/revisions/1/rollback?reason=back", NULL, NULL), 200, "%s", r.text);
    cr_expect_str_eq(r.body, "{\"revision\":4,\"changed\":true}");
    cr_expect(cb_document_has(cb_revisions_document(w.r), "/groups/api"));
    cr_expect_eq(ask(&w, "POST /v1/revisions/99/rollback", NULL, NULL), 404, "%s", r.text);
    cr_expect_eq(ask(&w, "GET /v1/audit?limit=1", NULL, NULL), 200, "%s", r.text);
    cr_expect(strstr(r.body, "rollBack") && strstr(r.body, "added /groups/api"), "%s", r.body);
    end(&w);
}

Test(revisions_http, who_may_change_what) {
    world w;
    begin(&w, "service-owner");
    cr_expect_eq(ask(&w, "PUT /v1/config/groups/web/n", JSON, "5"), 200, "%s", r.text);
    cr_expect_eq(ask(&w, "PUT /v1/config/groups/api/n", JSON, "5"), 403, "%s", r.text);
    cr_expect(strstr(r.body, "/groups/api/n") && strstr(r.body, "it is not theirs"), "%s", r.body);
    /* What is asked for is the owner's, what changes is not. */
    cr_expect_eq(ask(&w, "PATCH /v1/config", MERGE, "{\"groups\":{\"web\":{\"n\":6},\"api\":{\"n\":6}}}"), 403, "%s",
                 r.text);
    cr_expect_eq(ask(&w, "PUT /v1/config", JSON, "{\"groups\":{}}"), 403, "%s", r.text);
    cr_expect_eq(ask(&w, "PATCH /v1/config/groups/web", PATCH,
                     "[{\"op\":\"replace\",\"path\":\"/owner\",\"value\":\"team-b\"}]"),
                 403, "%s", r.text);
    cr_expect_eq(ask(&w, "GET /v1/config/groups/api", NULL, NULL), 200, "%s", r.text);
    admin_role(&w.w, "viewer");
    cr_expect_eq(ask(&w, "PUT /v1/config/groups/web/n", JSON, "7"), 403, "%s", r.text);
    cr_expect_eq(ask(&w, "POST /v1/revisions/1/rollback", NULL, NULL), 403, "%s", r.text);
    admin_role(&w.w, "tenant-admin");
    cr_expect_eq(ask(&w, "GET /v1/config/groups/web", NULL, NULL), 200, "%s", r.text);
    cr_expect_eq(ask(&w, "GET /v1/config/groups/api", NULL, NULL), 404, "%s", r.text);
    cr_expect_eq(ask(&w, "GET /v1/revisions", NULL, NULL), 403, "%s", r.text);
    cr_expect_eq(cb_revisions_number(w.r), 2);
    end(&w);
}

Test(revisions_http, trouble_with_the_disk_is_507_and_no_change) {
    world w;
    begin(&w, "admin");
    unlink(w.path);
    cr_expect_eq(ask(&w, "PUT /v1/config/groups/web/n", JSON, "5"), 507, "%s", r.text);
    cr_expect(w.commits == 0 && cb_revisions_number(w.r) == 1);
    cr_expect_eq(ask(&w, "GET /v1/config/groups/web/n", NULL, NULL), 200, "%s", r.text);
    cr_expect_str_eq(r.body, "1\n");
    end(&w);
}

Test(revisions_http, without_a_store_it_can_be_read) {
    world w;
    begin_with(&w, "admin", false);
    cr_expect_eq(ask(&w, "GET /v1/config", NULL, NULL), 200, "%s", r.text);
    cr_expect_eq(ask(&w, "PUT /v1/config/groups/web/n", JSON, "5"), 501, "%s", r.text);
    cr_expect_eq(ask(&w, "PUT /v1/config/groups/web/n?dry_run=true", JSON, "5"), 200, "%s", r.text);
    cr_expect_eq(ask(&w, "GET /v1/revisions", NULL, NULL), 501, "%s", r.text);
    end(&w);
}

Test(revisions_http, calls_end_with_their_admin) {
    static const char *const lines[] = {"PUT /v1/config/groups/web/n", "GET /v1/revisions/1",
                                        "GET /v1/revisions/1/diff", "GET /v1/revisions",
                                        "POST /v1/revisions/1/rollback"};
    for (int turns = 0; turns < 12; turns++) {
        world w;
        begin(&w, "admin");
        w.later = true;
        int fds[5];
        for (int i = 0; i < 5; i++) {
            char text[256];
            fds[i] = admin_dial(w.w.path);
            const int n = snprintf(
                text, sizeof text, "%s HTTP/1.1\r\nhost: x\r\n%s\r\n%s", lines[i],
                i ? "content-length: 0\r\n" : "content-type: application/json\r\ncontent-length: 1\r\n", i ? "" : "7");
            cr_assert(write(fds[i], text, (size_t)n) == n);
        }
        for (int i = 0; i < turns * 3; i++)
            cb_loop_step(w.w.loop);
        end(&w);
        for (int i = 0; i < 5; i++)
            close(fds[i]);
    }
}
