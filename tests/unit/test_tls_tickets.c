#include "base/mem.h"
#include "support/tls_fixture.h"
#include "transport/ticket_file.h"
#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct world {
    tls_pki pki;
    cb_identity *server_id, *client_id;
    cb_session_cache *cache;
    cb_tls_opts server, client;
} world;

static void begin(world *w) {
    memset(w, 0, sizeof *w);
    tls_pki_make(&w->pki);
    w->server_id = tls_pki_identity(&w->pki, "localhost,*.example.org");
    w->client_id = tls_pki_client(&w->pki);
    cb_session_cache_new(&w->cache, &cb_alloc_libc, 8, NULL);
    w->server = (cb_tls_opts){.server = true, .identity = w->server_id, .alpn = "h2"};
    w->client = (cb_tls_opts){.identity = w->client_id,
                              .alpn = "h2",
                              .server_name = "localhost",
                              .cache = w->cache,
                              .cache_key = "localhost:443/h2"};
}

static void end(world *w) {
    cb_session_cache_free(w->cache);
    cb_identity_unref(w->server_id);
    cb_identity_unref(w->client_id);
    tls_pki_drop(&w->pki);
}

/* One connection from start to end: was it resumed? */
static bool connect_resumed(world *w) {
    tls_end c, s;
    tls_end_make(&c, &w->client);
    tls_end_make(&s, &w->server);
    tls_talk(&c, &s, 0);
    cr_assert_eq(c.rc, CB_OK, "%s", c.error);
    cr_assert_eq(s.rc, CB_OK, "%s", s.error);
    cr_assert(c.opened && s.opened);
    bool resumed = cb_tls_session_resumed(c.tls);
    cr_expect_eq(resumed, cb_tls_session_resumed(s.tls));
    tls_end_drop(&c);
    tls_end_drop(&s);
    return resumed;
}

static void forget(world *w) {
    cb_session_cache_free(w->cache);
    cr_assert_eq(cb_session_cache_new(&w->cache, &cb_alloc_libc, 8, NULL), CB_OK);
    w->client.cache = w->cache;
}

static cb_tickets *ring(const char *file) {
    cb_tickets *t = NULL;
    int rc = cb_tickets_new(&t, CB_OPTS(cb_tickets_opts, .file = file));
    cr_assert_eq(rc, CB_OK, "%s", cb_last_error());
    return t;
}

Test(tls_tickets, resume_with_each_key_that_is_in_the_ring) {
    for (int tls12 = 0; tls12 < 2; tls12++) {
        world w;
        begin(&w);
        w.server.tls12 = tls12;
        cr_expect_not(connect_resumed(&w), "no ring, no resumption");
        w.server.tickets = ring(NULL);
        cr_expect_not(connect_resumed(&w));
        cr_expect(connect_resumed(&w));
        for (int turns = 0; turns < 4; turns++) {
            forget(&w);
            cr_expect_not(connect_resumed(&w));
            for (int i = 0; i < turns; i++) {
                cr_assert_eq(cb_tickets_rotate(w.server.tickets, 1), CB_OK);
            }
            cr_expect_eq(connect_resumed(&w), turns < CB_TICKET_RING, "after %d turns", turns);
        }
        cb_tickets_unref(w.server.tickets);
        end(&w);
    }
}

Test(tls_tickets, an_old_key_seals_no_new_ticket) {
    world w;
    begin(&w);
    w.server.tickets = ring(NULL);
    cr_expect_not(connect_resumed(&w));
    forget(&w);
    cr_expect_not(connect_resumed(&w)); /* two tickets are there now */
    cb_tickets_rotate(w.server.tickets, 1);
    cr_expect(connect_resumed(&w)); /* uses one, on the old key */
    cr_expect(connect_resumed(&w)); /* the other */
    cr_expect_not(connect_resumed(&w), "a session on an old key was given a ticket");
    cr_expect(connect_resumed(&w), "a session on the new key was given none");
    cb_tickets_unref(w.server.tickets);
    end(&w);
}

Test(tls_tickets, are_bound_to_host_context_and_roots) {
    world w;
    tls_pki other;
    begin(&w);
    tls_pki_make(&other);
    w.server.tickets = ring(NULL);
    w.server.ticket_context = "tenant 1";
    cr_expect_not(connect_resumed(&w));
    cr_expect(connect_resumed(&w));
    w.server.ticket_context = "tenant 2";
    cr_expect_not(connect_resumed(&w), "another context");
    w.server.ticket_context = "tenant 1";

    forget(&w);
    w.client.server_name = "a.example.org";
    cr_expect_not(connect_resumed(&w), "the cache keeps names apart");
    w.client.server_name = "localhost";
    cr_expect_not(connect_resumed(&w));
    cb_identity *same = tls_pki_client(&w.pki), *mine = w.client.identity;
    cb_identity *other_self = tls_pki_identity(&w.pki, "client,localhost");
    w.client.identity = other_self; /* sessions in which the client was somebody else are not its own */
    cr_expect_not(connect_resumed(&w), "another identity");
    w.client.identity = same; /* equal in all that counts */
    cr_expect(connect_resumed(&w));
    w.client.identity = mine;
    cb_identity_unref(same);
    cb_identity_unref(other_self);
    forget(&w);
    cr_expect_not(connect_resumed(&w));
    w.server.request_client_cert = true; /* the ticket of a session in which nobody was asked */
    cr_expect_not(connect_resumed(&w), "client certificates are requested now");
    cr_expect(connect_resumed(&w));
    w.server.require_client_cert = true; /* a ticket that was earned without a certificate */
    tls_end c, s;
    tls_end_make(&c, &w.client);
    tls_end_make(&s, &w.server);
    tls_talk(&c, &s, 0);
    cr_expect_eq(s.rc, CB_EAUTH, "a client without a certificate came in");
    tls_end_drop(&c);
    tls_end_drop(&s);
    cb_tickets_unref(w.server.tickets);
    tls_pki_drop(&other);
    end(&w);
}

Test(tls_tickets, two_processes_share_a_file) {
    world w;
    char path[160];
    struct stat st;
    begin(&w);
    tls_pki_path(&w.pki, "tickets", path);
    cb_tickets *a = ring(path), *b = ring(path);
    cr_assert_eq(stat(path, &st), 0);
    cr_expect_eq(st.st_mode & 0777, 0600);
    w.server.tickets = a;
    cr_expect_not(connect_resumed(&w));
    w.server.tickets = b;
    cr_expect(connect_resumed(&w), "made by a, opened by b");
    forget(&w);
    cb_tickets_rotate(a, 1);
    cb_tickets_rotate(b, 0); /* b reads what a made */
    w.server.tickets = a;
    cr_expect_not(connect_resumed(&w));
    w.server.tickets = b;
    cr_expect(connect_resumed(&w), "after a turn in a");
    cb_tickets *c = ring(path); /* a process that starts later */
    w.server.tickets = c;
    cr_expect(connect_resumed(&w));
    cb_tickets_unref(a);
    cb_tickets_unref(b);
    cb_tickets_unref(c);
    end(&w);
}

Test(tls_tickets, files_that_are_refused) {
    tls_pki p;
    char path[160];
    cb_tickets *t = NULL;
    tls_pki_make(&p);
    tls_pki_path(&p, "ring", path);
    static const struct {
        size_t size;
        mode_t mode;
        int rc;
        const char *says;
    } rows[] = {
        {0, 0600, CB_OK, ""}, /* an empty file counts as absent */
        {5, 0600, CB_EINVAL, "not a ring"},
        {128, 0600, CB_EINVAL, "not a ring"},
        {4096, 0600, CB_EINVAL, "not a ring"},
        {0, 0640, CB_EINVAL, "others may read"},
        {128, 0604, CB_EINVAL, "others may read"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char junk[4096] = "junk";
        unlink(path);
        int fd = open(path, O_WRONLY | O_CREAT, 0600);
        cr_assert_eq(write(fd, junk, rows[i].size), (ssize_t)rows[i].size);
        fchmod(fd, rows[i].mode);
        close(fd);
        int rc = cb_tickets_new(&t, CB_OPTS(cb_tickets_opts, .file = path));
        cr_expect_eq(rc, rows[i].rc, "row %zu: %d %s", i, rc, cb_last_error());
        if (rc < 0) cr_expect(strstr(cb_last_error(), rows[i].says) != NULL, "row %zu: %s", i, cb_last_error());
        if (rc == CB_OK) cb_tickets_unref(t);
    }
    unlink(path);
    cr_expect_eq(symlink("/etc/passwd", path), 0);
    cr_expect_eq(cb_tickets_new(&t, CB_OPTS(cb_tickets_opts, .file = path)), CB_ESYS);
    cr_expect_eq(cb_tickets_new(&t, CB_OPTS(cb_tickets_opts, .file = "/nonexistent/ring")), CB_ENOENT);
    cr_expect_eq(cb_tickets_new(&t, CB_OPTS(cb_tickets_opts, .lifetime_s = 604801)), CB_EINVAL);
    unlink(path);
    t = ring(path); /* a ring that is spoiled while it is used: the old keys stay */
    cr_assert_eq(chmod(path, 0644), 0);
    cr_expect_eq(cb_tickets_rotate(t, 1), CB_EINVAL);
    cb_tickets_unref(t);
    tls_pki_drop(&p);
}

Test(tls_tickets, the_client_cache_is_bounded_and_newest_first) {
    cb_session_cache *c;
    cb_slice s, x;
    cr_assert_eq(cb_session_cache_new(&c, &cb_alloc_libc, 2, NULL), CB_OK);
    cr_expect_eq(cb_session_cache_put(c, "a", cb_slice_str("1"), cb_slice_str("x"), 60), CB_OK);
    cr_expect_eq(cb_session_cache_put(c, "a", cb_slice_str("2"), cb_slice_str(""), 60), CB_OK);
    cr_expect_eq(cb_session_cache_put(c, "b", cb_slice_str("3"), cb_slice_str("yy"), 60), CB_OK); /* "1" goes */
    cr_expect_not(cb_session_cache_take(c, "", &s, &x));
    cr_assert(cb_session_cache_take(c, "a", &s, &x));
    cr_expect(s.len == 1 && s.base[0] == '2' && x.len == 0);
    cr_expect_not(cb_session_cache_take(c, "a", &s, &x), "used once");
    cr_assert(cb_session_cache_take(c, "b", &s, &x));
    cr_expect(s.len == 1 && s.base[0] == '3' && x.len == 2);
    cb_session_cache_put(c, "c", cb_slice_str("4"), cb_slice_str(""), 60);
    cb_session_cache_free(c);
}

Test(tls_tickets, a_client_that_is_nobody_is_made_once_for_a_cache) {
    world w;
    begin(&w);
    w.client.identity = NULL;
    w.client.verify = CB_VERIFY_NONE;
    w.server.tickets = ring(NULL);
    cr_expect_null(cb_session_cache_attached(w.cache));
    cr_expect_not(connect_resumed(&w));
    void *nobody = cb_session_cache_attached(w.cache);
    cr_expect_not_null(nobody);
    cr_expect(connect_resumed(&w));
    cr_expect_eq(cb_session_cache_attached(w.cache), nobody);
    w.client.cache = NULL;
    cr_expect_not(connect_resumed(&w));
    cb_tickets_unref(w.server.tickets);
    end(&w);
}

static uint32_t told_lifetime;

static int read_lifetime(gnutls_session_t session, unsigned type, unsigned when, unsigned incoming,
                         const gnutls_datum_t *message) {
    (void)session;
    (void)type;
    (void)when;
    (void)incoming;
    told_lifetime = (uint32_t)message->data[0] << 24 | (uint32_t)message->data[1] << 16 |
                    (uint32_t)message->data[2] << 8 | message->data[3];
    return 0;
}

Test(tls_tickets, live_as_long_as_they_were_set_to) {
    static const uint32_t rows[][2] = {{0, 7200}, {60, 60}, {604800, 604800}};
    world w;
    begin(&w);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        tls_end c, s;
        int rc = cb_tickets_new(&w.server.tickets, CB_OPTS(cb_tickets_opts, .lifetime_s = rows[i][0]));
        cr_assert_eq(rc, CB_OK, "%s", cb_last_error());
        tls_end_prepare(&c, &w.client);
        gnutls_handshake_set_hook_function(cb_tls_session_handle(c.tls), GNUTLS_HANDSHAKE_NEW_SESSION_TICKET,
                                           GNUTLS_HOOK_PRE, read_lifetime);
        tls_end_start(&c);
        tls_end_make(&s, &w.server);
        told_lifetime = 0;
        tls_talk(&c, &s, 0);
        cr_expect_eq(told_lifetime, rows[i][1], "row %zu: %u s", i, told_lifetime);
        tls_end_drop(&c);
        tls_end_drop(&s);
        cb_tickets_unref(w.server.tickets);
    }
    end(&w);
}
