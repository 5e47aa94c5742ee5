#include "base/mem.h"
#include "support/scratch.h"
#include "support/tls_fixture.h"
#include "transport/sessions.h"
#include "transport/ticket_file.h"
#include "transport/tls_tickets.h"
#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
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

Test(tls_tickets, how_old_the_newest_key_is) {
    cb_tickets *t = NULL;
    cb_tickets_stats s = {.size = sizeof s};
    const int64_t now = (int64_t)time(NULL);
    cr_assert_eq(cb_tickets_new(&t, CB_OPTS(cb_tickets_opts, .rotate_s = 600, .lead_s = 100)), CB_OK);
    cr_assert_eq(cb_tickets_stats_get(t, &s), CB_OK);
    cr_expect(s.newest_s >= now && s.newest_s <= now + 5 && s.rotate_s == 600 && !s.own);
    cr_assert_eq(cb_tickets_rotate(t, 1), CB_OK);
    cr_assert_eq(cb_tickets_stats_get(t, &s), CB_OK);
    cr_expect(s.newest_s >= now + 100 && s.newest_s <= now + 105, "the next one waits for its time");
    cr_expect_eq(cb_tickets_stats_get(NULL, &s), CB_EINVAL);
    cb_tickets_unref(t);
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

static cb_seal *seal_of(char letter, char old) {
    uint8_t secret[32];
    char file[SCRATCH_TEXT] = "";
    const char *olds[] = {file};
    cb_seal *s = NULL;
    memset(secret, letter, sizeof secret);
    if (old) {
        uint8_t before[32];
        memset(before, old, sizeof before);
        int fd = scratch_file(file, sizeof file, "old-key");
        cr_assert_eq(write(fd, before, sizeof before), 32);
        close(fd);
    }
    cr_assert_eq(
        cb_seal_new(&s, CB_OPTS(cb_seal_opts, .secret = {secret, 32}, .old_keys = olds, .n_old_keys = old != 0)), CB_OK,
        "%s", cb_last_error());
    if (*file) unlink(file);
    return s;
}

Test(tls_tickets, a_file_can_be_sealed) {
    tls_pki p;
    char path[160];
    cb_tickets *t = NULL;
    cb_seal *a = seal_of('a', 0), *b = seal_of('b', 0), *b_and_a = seal_of('b', 'a');
    tls_pki_make(&p);
    tls_pki_path(&p, "ring", path);
    for (int i = 0; i < 2; i++) { /* made, and read */
        cr_assert_eq(cb_tickets_new(&t, CB_OPTS(cb_tickets_opts, .file = path, .seal = a)), CB_OK, "%s",
                     cb_last_error());
        if (i) cr_expect_eq(cb_tickets_rotate(t, 1), CB_OK, "%s", cb_last_error());
        cb_tickets_unref(t);
    }
    cr_expect_eq(cb_tickets_new(&t, CB_OPTS(cb_tickets_opts, .file = path)), CB_EINVAL);
    cr_expect_not_null(strstr(cb_last_error(), "sealed"), "%s", cb_last_error());
    cr_expect_eq(cb_tickets_new(&t, CB_OPTS(cb_tickets_opts, .file = path, .seal = b)), CB_EINVAL);
    cr_assert_eq(cb_tickets_new(&t, CB_OPTS(cb_tickets_opts, .file = path, .seal = b_and_a)), CB_OK, "%s",
                 cb_last_error());
    cb_tickets_unref(t);
    cr_assert_eq(cb_tickets_new(&t, CB_OPTS(cb_tickets_opts, .file = path, .seal = b)), CB_OK, "sealed anew: %s",
                 cb_last_error());
    cb_tickets_unref(t);
    cr_assert_eq(cb_tickets_new(&t, CB_OPTS(cb_tickets_opts, .file = path, .seal = b, .follow = 1)), CB_OK);
    cb_tickets_unref(t);
    unlink(path);
    cr_assert_eq(cb_tickets_new(&t, CB_OPTS(cb_tickets_opts, .file = path)), CB_OK);
    cb_tickets_unref(t);
    cr_expect_eq(cb_tickets_new(&t, CB_OPTS(cb_tickets_opts, .file = path, .seal = b)), CB_EINVAL,
                 "one that is not sealed");
    cb_seal_unref(a);
    cb_seal_unref(b);
    cb_seal_unref(b_and_a);
    tls_pki_drop(&p);
}

Test(tls_tickets, the_client_cache_is_bounded_and_newest_first) {
    cb_session_cache *c;
    cb_slice s, x;
    cr_assert_eq(cb_session_cache_new(&c, &cb_alloc_libc, 2, NULL), CB_OK);
    cr_expect_eq(cb_session_cache_put(c, "a", cb_slice_str("1"), cb_slice_str("x"), 60), CB_OK);
    cr_expect_eq(cb_session_cache_put(c, "a", cb_slice_str("2"), cb_slice_str(""), 60), CB_OK);
    cr_expect_eq(cb_session_cache_put(c, "b", cb_slice_str("3"), cb_slice_str("yy"), 60), CB_OK); /* "1" goes */
    cr_expect_not(cb_session_cache_take(c, "", 0, &s, &x));
    cr_assert(cb_session_cache_take(c, "a", 0, &s, &x));
    cr_expect(s.len == 1 && s.base[0] == '2' && x.len == 0);
    cr_expect_not(cb_session_cache_take(c, "a", 0, &s, &x), "used once");
    cr_assert(cb_session_cache_take(c, "b", 0, &s, &x));
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

Test(tls_tickets, turns_of_a_ring) {
    enum { H = 3600, T = 1700000000 };
    static const cb_ticket_turns plain = {12 * H, 0}, ahead = {12 * H, H};
    static const struct {
        const cb_ticket_turns *turns;
        int64_t newest, second, now;
        bool due;
        int sealing;
        int64_t next; /* when the next key seals */
    } rows[] = {
        {&plain, 0, 0, T, true, 0, T},
        {&plain, T, 0, T, false, 0, T},
        {&plain, T, 0, T + 12 * H - 1, false, 0, 0},
        {&plain, T, 0, T + 12 * H, true, 0, T + 12 * H},
        {&ahead, 0, 0, T, true, 0, T}, /* the first seals at once: there is no other */
        {&ahead, T, 0, T + 11 * H - 1, false, 0, 0},
        {&ahead, T, 0, T + 11 * H, true, 0, T + 12 * H},
        {&ahead, T + 12 * H, T, T + 11 * H, false, 1, 0}, /* made, and not in use yet */
        {&ahead, T + 12 * H, T, T + 12 * H, false, 0, 0},
        {&plain, T, 0, T - 60, false, 0, 0},             /* a clock that is a little behind */
        {&plain, T, T - 99, T - 60, false, 1, 0},        /* it uses the key before */
        {&plain, T, 0, T - 13 * H, true, 0, T - 13 * H}, /* far behind: all anew */
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cb_ticket_ring r = {0};
        r.keys[0].made = rows[i].newest;
        r.keys[1].made = rows[i].second;
        cr_expect_eq(cb_ticket_ring_due(&r, rows[i].turns, rows[i].now), rows[i].due, "row %zu", i);
        cr_expect_eq(cb_ticket_ring_sealing(&r, rows[i].now), rows[i].sealing, "row %zu", i);
        if (!rows[i].due) continue;
        cr_assert_eq(cb_ticket_ring_renew(&r, rows[i].turns, rows[i].now), CB_OK);
        cr_expect_eq(r.keys[0].made, rows[i].next, "row %zu: %lld", i, (long long)r.keys[0].made);
        cr_expect_not(cb_ticket_ring_due(&r, rows[i].turns, rows[i].now), "row %zu", i);
    }
}

/* Makes every key of a ring's file older. */
static void age_file(const char *path, int64_t seconds) {
    uint8_t raw[256];
    int fd = open(path, O_RDWR);
    ssize_t n = read(fd, raw, sizeof raw);
    cr_assert_eq(n, 128);
    for (size_t i = 0; i < CB_TICKET_RING; i++) {
        uint8_t *p = raw + 8 + i * 40;
        uint64_t made = 0;
        for (size_t b = 0; b < 8; b++)
            made = made << 8 | p[b];
        if (made) made -= (uint64_t)seconds;
        for (size_t b = 0; b < 8; b++)
            p[b] = (uint8_t)(made >> (56 - 8 * b));
    }
    cr_assert_eq(pwrite(fd, raw, sizeof raw / 2, 0), 128);
    close(fd);
}

static void copy_file(const char *from, const char *to) {
    uint8_t raw[256];
    char temp[170];
    int fd = open(from, O_RDONLY);
    ssize_t n = read(fd, raw, sizeof raw);
    close(fd);
    snprintf(temp, sizeof temp, "%s.came", to);
    fd = open(temp, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    cr_assert_eq(write(fd, raw, (size_t)n), n);
    close(fd);
    cr_assert_eq(rename(temp, to), 0);
}

/* Two hosts: one turns the ring, the other follows a copy that arrives later. */
Test(tls_tickets, hosts_that_share_keys) {
    enum { HOUR = 3600 };
    world w;
    char here[160], there[160];
    cb_tickets *writer = NULL, *follower = NULL;
    struct stat before, after;
    begin(&w);
    tls_pki_path(&w.pki, "here", here);
    tls_pki_path(&w.pki, "there", there);
    cr_assert_eq(cb_tickets_new(&writer, CB_OPTS(cb_tickets_opts, .file = here, .rotate_s = 12 * HOUR, .lead_s = HOUR)),
                 CB_OK);
    /* a host that starts before the file has come works with keys of its own */
    cr_assert_eq(cb_tickets_new(&follower, CB_OPTS(cb_tickets_opts, .file = there, .rotate_s = 12 * HOUR, .follow = 1)),
                 CB_OK, "%s", cb_last_error());
    cr_expect_eq(cb_tickets_rotate(follower, 0), CB_ENOENT);
    cr_expect_neq(access(there, F_OK), 0, "a follower made the file");
    w.server.tickets = follower;
    cr_expect_not(connect_resumed(&w));
    cr_expect(connect_resumed(&w));
    forget(&w);
    copy_file(here, there);
    cr_expect_eq(cb_tickets_rotate(follower, 0), CB_OK, "%s", cb_last_error());
    cr_expect_eq(cb_tickets_rotate(follower, 1), CB_ENOTSUP);
    w.server.tickets = writer;
    cr_expect_not(connect_resumed(&w));
    w.server.tickets = follower;
    cr_expect(connect_resumed(&w), "made by the writer, opened by the follower");
    w.server.tickets = writer;
    cr_expect(connect_resumed(&w), "and the other way");
    forget(&w);
    /* the writer turns the ring; the copy has not come yet: the new key does not seal yet */
    cr_assert_eq(cb_tickets_rotate(writer, 1), CB_OK);
    cr_expect_not(connect_resumed(&w));
    w.server.tickets = follower;
    cr_expect(connect_resumed(&w), "sealed by a key that the other host does not have");
    copy_file(here, there);
    cr_expect_eq(cb_tickets_rotate(follower, 0), CB_OK);
    /* time goes by: it seals now, on both */
    age_file(here, HOUR + 1);
    age_file(there, HOUR + 1);
    cr_expect_eq(cb_tickets_rotate(writer, 0), CB_OK);
    cr_expect_eq(cb_tickets_rotate(follower, 0), CB_OK);
    forget(&w);
    w.server.tickets = writer;
    cr_expect_not(connect_resumed(&w));
    w.server.tickets = follower;
    cr_expect(connect_resumed(&w));
    forget(&w);
    /* nobody turns it any more: the follower does not seal with it for ever, and touches no file */
    cr_expect_not(connect_resumed(&w));
    age_file(there, 24 * HOUR);
    cr_assert_eq(stat(there, &before), 0);
    cr_expect_eq(cb_tickets_rotate(follower, 0), CB_ETIMEOUT);
    cr_expect_eq(cb_tickets_rotate(follower, 0), CB_ETIMEOUT);
    cr_assert_eq(stat(there, &after), 0);
    cr_expect(before.st_ino == after.st_ino && before.st_mtim.tv_nsec == after.st_mtim.tv_nsec);
    forget(&w);
    cr_expect_not(connect_resumed(&w));
    w.server.tickets = writer;
    cr_expect_not(connect_resumed(&w), "sealed by a key of another host that is far too old");
    /* a fresh file comes */
    copy_file(here, there);
    cr_expect_eq(cb_tickets_rotate(follower, 0), CB_OK, "%s", cb_last_error());
    /* one that is spoiled: what was read before stays */
    cr_assert_eq(truncate(there, 100), 0);
    cr_expect_eq(cb_tickets_rotate(follower, 0), CB_EINVAL);
    forget(&w);
    w.server.tickets = writer;
    cr_expect_not(connect_resumed(&w));
    w.server.tickets = follower;
    cr_expect(connect_resumed(&w));
    cb_tickets_unref(follower);
    cb_tickets_unref(writer);
    static const cb_tickets_opts bad[] = {{.size = sizeof bad[0], .follow = 1},
                                          {.size = sizeof bad[0], .follow = 2, .file = "/tmp/x"},
                                          {.size = sizeof bad[0], .rotate_s = 100, .lead_s = 100},
                                          {.size = sizeof bad[0], .skew_s = 3601}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        cr_expect_eq(cb_tickets_new(&writer, &bad[i]), CB_EINVAL, "row %zu", i);
    }
    end(&w);
}

/* What comes from the writer is spoiled and stays so, or the file cannot be turned: no key seals for ever. */
Test(tls_tickets, a_file_that_stays_bad_does_not_keep_its_key_sealing) {
    world w;
    char here[160], there[2][160];
    cb_tickets *first = NULL, *second[2] = {NULL, NULL}; /* by `follow` */
    begin(&w);
    tls_pki_path(&w.pki, "here", here);
    cr_assert_eq(cb_tickets_new(&first, CB_OPTS(cb_tickets_opts, .file = here)), CB_OK);
    for (int follow = 0; follow < 2; follow++) {
        tls_pki_path(&w.pki, follow ? "followed" : "turned", there[follow]);
        copy_file(here, there[follow]);
        const cb_tickets_opts o = {.size = sizeof o, .file = there[follow], .rotate_s = 2, .follow = (uint8_t)follow};
        cr_assert_eq(cb_tickets_new(&second[follow], &o), CB_OK, "%s", cb_last_error());
        cr_assert_eq(truncate(there[follow], 100), 0);
    }
    sleep(4); /* twice rotate_s */
    for (int follow = 0; follow < 2; follow++) {
        cr_expect_eq(cb_tickets_rotate(second[follow], 0), CB_EINVAL, "follow %d", follow);
        w.server.tickets = second[follow];
        cr_expect_not(connect_resumed(&w));
        cr_expect(connect_resumed(&w), "follow %d: our own key serves", follow);
        w.server.tickets = first;
        cr_expect_not(connect_resumed(&w), "follow %d: sealed by the key of the spoiled file", follow);
        forget(&w);
        cb_tickets_unref(second[follow]);
    }
    cb_tickets_unref(first);
    w.server.tickets = NULL;
    end(&w);
}

/* Loops look after the file: another process that has it locked must not hold them up. */
Test(tls_tickets, a_locked_file_holds_nobody_up) {
    world w;
    char here[160];
    struct stat before, after;
    cb_tickets *t = NULL;
    begin(&w);
    tls_pki_path(&w.pki, "here", here);
    cr_assert_eq(cb_tickets_new(&t, CB_OPTS(cb_tickets_opts, .file = here, .rotate_s = 1000)), CB_OK);
    age_file(here, 1500);
    int fd = open(here, O_RDWR | O_CLOEXEC);
    cr_assert(fd >= 0 && flock(fd, LOCK_EX) == 0 && fstat(fd, &before) == 0);
    cr_expect_eq(cb_tickets_rotate(t, 0), CB_OK, "%s", cb_last_error());
    w.server.tickets = t;
    cr_expect_not(connect_resumed(&w));
    cr_expect(connect_resumed(&w));
    cr_expect(stat(here, &after) == 0 && before.st_ino == after.st_ino);
    close(fd);
    cr_expect_eq(cb_tickets_rotate(t, 0), CB_OK);
    cr_expect(stat(here, &after) == 0 && before.st_ino != after.st_ino, "it is due, and nobody has the lock");
    cb_tickets_unref(t);
    w.server.tickets = NULL;
    end(&w);
}

/* A ring in memory turns by itself when its time has come, without anybody asking. */
Test(tls_tickets, a_private_ring_turns_too) {
    world w;
    begin(&w);
    cr_assert_eq(cb_tickets_new(&w.server.tickets, CB_OPTS(cb_tickets_opts, .rotate_s = 1)), CB_OK);
    cr_expect_not(connect_resumed(&w));
    cr_expect(connect_resumed(&w));
    forget(&w);
    cr_expect_not(connect_resumed(&w)); /* two tickets */
    sleep(2);
    cr_expect(connect_resumed(&w), "the key before is known still");
    cr_expect(connect_resumed(&w));
    cr_expect_not(connect_resumed(&w), "but it seals no more");
    cb_tickets_unref(w.server.tickets);
    end(&w);
}

static uint8_t told_ticket[1024];
static size_t told_ticket_len;

static int read_ticket(gnutls_session_t session, unsigned type, unsigned when, unsigned incoming,
                       const gnutls_datum_t *message) {
    const uint8_t *p = message->data + 8; /* lifetime, age_add */
    (void)session;
    (void)type;
    (void)when;
    (void)incoming;
    p += 1 + p[0]; /* nonce */
    told_ticket_len = (size_t)p[0] << 8 | p[1];
    cr_assert_leq(told_ticket_len, sizeof told_ticket);
    memcpy(told_ticket, p + 2, told_ticket_len);
    return 0;
}

/* The newest session of a file, with its key. */
static cb_saved_session *read_one(const char *path, cb_list *all) {
    cb_sessions_stamp stamp;
    cb_list_init(all);
    cr_assert_eq(cb_sessions_file_read(all, path, &stamp), CB_OK);
    return CB_CONTAINER(all->prev, cb_saved_session, link);
}

/* Tickets that are not as they were made: a full handshake, nothing else. */
Test(tls_tickets, changed_in_any_way_they_are_worth_nothing) {
    world w;
    char path[160];
    cb_list all;
    cb_sessions *store = NULL;
    begin(&w);
    w.server.tickets = ring(NULL);
    tls_pki_path(&w.pki, "sessions", path);
    cb_session_cache_free(w.cache);
    cr_assert_eq(cb_sessions_new(&store, CB_OPTS(cb_sessions_opts, .file = path)), CB_OK);
    cr_assert_eq(cb_session_cache_new(&w.cache, &cb_alloc_libc, 8, store), CB_OK);
    w.client.cache = w.cache;
    tls_end c, s;
    tls_end_prepare(&c, &w.client);
    tls_end_start(&c);
    tls_end_make(&s, &w.server);
    tls_talk(&c, &s, 0);
    cr_assert_eq(c.rc, CB_OK);
    tls_end_drop(&c);
    tls_end_drop(&s);
    cb_session_cache_free(w.cache);
    w.client.cache = NULL;
    /* what a ticket looks like: from a session of its own, to find it in what GnuTLS keeps */
    cb_sessions_unref(store);
    cb_saved_session *e = read_one(path, &all);
    uint8_t *data = e->bytes + e->key_len;
    /* GnuTLS keeps it as it came: the name of the key (16), the IV (16), the length (2), the state, the MAC (20) */
    cb_tickets *t = w.server.tickets;
    const cb_ticket_scope scope = {.context = "", .host = "localhost"};
    uint8_t key[CB_TICKET_KEY];
    bool newest = false;
    size_t at = 0, len = 0;
    cr_assert_eq(cb_tickets_key(t, &scope, (cb_slice){NULL, 0}, key, &newest), CB_OK);
    tls_end_prepare(&c, &w.client);
    gnutls_handshake_set_hook_function(cb_tls_session_handle(c.tls), GNUTLS_HANDSHAKE_NEW_SESSION_TICKET,
                                       GNUTLS_HOOK_PRE, read_ticket);
    tls_end_start(&c);
    tls_end_make(&s, &w.server);
    tls_talk(&c, &s, 0);
    tls_end_drop(&c);
    tls_end_drop(&s);
    len = told_ticket_len;
    cr_assert_gt(len, 54);
    for (size_t i = 0; i + len <= e->session_len && !at; i++) {
        if (memcmp(data + i, told_ticket, 16) == 0) at = i; /* the name is the same in both */
    }
    cr_assert_gt(at, 0, "the ticket is not in the session");
    int resumed = 0, tried = 0;
    for (size_t bit = 0; bit <= len * 8; bit++) {
        if (bit < len * 8 && bit >= 256 && bit % 8) continue; /* all of name and IV, then one of each byte */
        cb_sessions *one = NULL;
        uint8_t flip = bit < len * 8 ? (uint8_t)(1 << (bit < 256 ? bit % 8 : (bit / 8) % 8)) : 0;
        if (flip) data[at + bit / 8] ^= flip;
        cr_assert_eq(cb_sessions_new(&one, NULL), CB_OK);
        cr_assert_eq(cb_sessions_put(one, (const char *)e->bytes, cb_saved_session_data(e), (cb_slice){NULL, 0}, 3600),
                     CB_OK);
        cr_assert_eq(cb_session_cache_new(&w.client.cache, &cb_alloc_libc, 0, one), CB_OK);
        bool yes = connect_resumed(&w); /* asserts that both ends are happy */
        cr_expect_eq(yes, flip == 0, "bit %zu of %zu", bit, len * 8);
        resumed += yes;
        tried++;
        cb_session_cache_free(w.client.cache);
        cb_sessions_unref(one);
        if (flip) data[at + bit / 8] ^= flip;
    }
    cr_expect_eq(resumed, 1); /* the one that was not changed */
    cr_expect_gt(tried, 256);
    /* cut off anywhere, or anything at all, as a ticket on the wire */
    for (size_t n = 0; n <= len; n++) {
        cr_expect_eq(cb_tickets_key(t, &scope, (cb_slice){data + at, n}, key, &newest), CB_OK);
        cr_expect(newest, "%zu bytes", n);
    }
    /* what GnuTLS keeps, cut off */
    for (size_t n = 1; n < e->session_len; n += 1 + e->session_len / 60) {
        cb_sessions *one = NULL;
        cr_assert_eq(cb_sessions_new(&one, NULL), CB_OK);
        cr_assert_eq(cb_sessions_put(one, (const char *)e->bytes, (cb_slice){data, n}, (cb_slice){NULL, 0}, 3600),
                     CB_OK);
        cr_assert_eq(cb_session_cache_new(&w.client.cache, &cb_alloc_libc, 0, one), CB_OK);
        cr_expect_not(connect_resumed(&w), "%zu of %u bytes", n, e->session_len);
        cb_session_cache_free(w.client.cache);
        cb_sessions_unref(one);
    }
    w.client.cache = NULL;
    cb_saved_sessions_free(&all);
    cb_tickets_unref(w.server.tickets);
    w.cache = NULL;
    end(&w);
}
