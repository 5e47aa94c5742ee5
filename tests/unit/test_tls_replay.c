#include "base/buf.h"
#include "base/mem.h"
#include "support/tls_fixture.h"
#include "transport/tls_replay.h"
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

/* One end of plain GnuTLS in memory: the guard is GnuTLS's affair, whatever carries the bytes. */
typedef struct side {
    gnutls_session_t tls;
    cb_buf out;
    cb_buf *in;
    bool done;
} side;

static ssize_t push(gnutls_transport_ptr_t ptr, const void *data, size_t len) {
    side *s = ptr;
    return cb_buf_add(&s->out, data, len) < 0 ? -1 : (ssize_t)len;
}

static ssize_t pull(gnutls_transport_ptr_t ptr, void *data, size_t len) {
    side *s = ptr;
    if (s->in->len == 0) {
        gnutls_transport_set_errno(s->tls, EAGAIN);
        return -1;
    }
    size_t n = s->in->len < len ? s->in->len : len;
    memcpy(data, s->in->base, n);
    cb_buf_drop(s->in, n);
    return (ssize_t)n;
}

static void side_new(side *s, unsigned flags, gnutls_certificate_credentials_t cred, cb_buf *in) {
    memset(s, 0, sizeof *s);
    cb_buf_init(&s->out, &cb_alloc_libc, 1 << 20);
    s->in = in;
    gnutls_init(&s->tls, flags | GNUTLS_NONBLOCK | GNUTLS_ENABLE_EARLY_DATA);
    gnutls_priority_set_direct(s->tls, "NORMAL:-VERS-ALL:+VERS-TLS1.3", NULL);
    gnutls_credentials_set(s->tls, GNUTLS_CRD_CERTIFICATE, cred);
    gnutls_transport_set_ptr(s->tls, s);
    gnutls_transport_set_push_function(s->tls, push);
    gnutls_transport_set_pull_function(s->tls, pull);
}

static void side_free(side *s) {
    gnutls_deinit(s->tls);
    cb_buf_free(&s->out);
}

static void step(side *s) {
    char byte;
    if (!s->done) s->done = gnutls_handshake(s->tls) == 0;
    if (s->done) (void)gnutls_record_recv(s->tls, &byte, 1); /* takes tickets in */
}

typedef struct world {
    tls_pki pki;
    gnutls_certificate_credentials_t server, client;
    gnutls_datum_t key;
} world;

static void begin(world *w) {
    char cert[160], key[160];
    tls_pki_make(&w->pki);
    tls_pki_leaf(&w->pki, "localhost", 0, "leaf", 0, 0);
    gnutls_certificate_allocate_credentials(&w->server);
    gnutls_certificate_allocate_credentials(&w->client);
    cr_assert_eq(gnutls_certificate_set_x509_key_file(w->server, tls_pki_path(&w->pki, "leaf.pem", cert),
                                                      tls_pki_path(&w->pki, "leaf-key.pem", key), GNUTLS_X509_FMT_PEM),
                 0);
    gnutls_session_ticket_key_generate(&w->key);
}

static void end(world *w) {
    gnutls_free(w->key.data);
    gnutls_certificate_free_credentials(w->server);
    gnutls_certificate_free_credentials(w->client);
    tls_pki_drop(&w->pki);
}

static void server_new(world *w, side *s, cb_replay_guard *guard, cb_buf *in) {
    side_new(s, GNUTLS_SERVER, w->server, in);
    gnutls_session_ticket_enable_server(s->tls, &w->key);
    cb_replay_guard_enable(guard, s->tls);
}

/* A session to resume, from a full handshake now. */
static gnutls_datum_t earn_ticket(world *w, cb_replay_guard *guard) {
    side c, s;
    gnutls_datum_t saved;
    side_new(&c, GNUTLS_CLIENT, w->client, NULL);
    server_new(w, &s, guard, &c.out);
    c.in = &s.out;
    for (int i = 0; i < 10; i++) {
        step(&c);
        step(&s);
    }
    cr_assert(c.done && s.done);
    cr_assert_eq(gnutls_session_get_data2(c.tls, &saved), 0);
    side_free(&c);
    side_free(&s);
    return saved;
}

/* The first flight of a client that sends early data. */
static void early_flight(world *w, const gnutls_datum_t *saved, cb_buf *out) {
    side c;
    cb_buf nothing;
    cb_buf_init(&nothing, &cb_alloc_libc, 1);
    side_new(&c, GNUTLS_CLIENT, w->client, &nothing);
    cr_assert_eq(gnutls_session_set_data(c.tls, saved->data, saved->size), 0);
    cr_assert(gnutls_record_send_early_data(c.tls, "early", 5) >= 0); /* 0 on some versions, 5 on others */
    (void)gnutls_handshake(c.tls);
    cb_buf_init(out, &cb_alloc_libc, 1 << 20);
    cr_assert_eq(cb_buf_add(out, c.out.base, c.out.len), CB_OK);
    side_free(&c);
}

/* Does a server take the early data of this flight? */
static bool taken(world *w, cb_replay_guard *guard, const cb_buf *flight) {
    side s;
    cb_buf in;
    cb_buf_init(&in, &cb_alloc_libc, 1 << 20);
    cb_buf_add(&in, flight->base, flight->len);
    server_new(w, &s, guard, &in);
    step(&s);
    bool yes = (gnutls_session_get_flags(s.tls) & GNUTLS_SFLAGS_EARLY_DATA) != 0;
    cr_expect(gnutls_session_is_resumed(s.tls), "it was not even resumed");
    side_free(&s);
    cb_buf_free(&in);
    return yes;
}

Test(tls_replay, early_data_is_taken_once) {
    world w;
    cb_replay_guard *guard, *later;
    cb_buf first, second;
    begin(&w);
    cr_assert_eq(cb_replay_guard_new(&guard, 3600, 0), CB_OK);
    gnutls_datum_t a = earn_ticket(&w, guard), b = earn_ticket(&w, guard);
    early_flight(&w, &a, &first);
    early_flight(&w, &b, &second);
    cr_expect(taken(&w, guard, &first));
    cr_expect_not(taken(&w, guard, &first), "a replay was taken");
    cr_expect(taken(&w, guard, &second), "another ClientHello was taken for a replay");
    cr_expect_not(taken(&w, guard, &second));
    cr_expect_not(taken(&w, guard, &first));
    /* After a restart nothing is remembered, so tickets from before it get no early data. */
    cr_assert_eq(cb_replay_guard_new(&later, 3600, 0), CB_OK);
    cr_expect_not(taken(&w, later, &first));
    cb_replay_guard_free(later);
    cb_replay_guard_free(guard);
    gnutls_free(a.data);
    gnutls_free(b.data);
    cb_buf_free(&first);
    cb_buf_free(&second);
    end(&w);
}

/* Hosts whose clocks differ: after a start no early data for so long, and none of tickets from before, though their
 * clock says that they are younger. */
Test(tls_replay, waits_for_the_skew_of_clocks) {
    world w;
    cb_replay_guard *guard, *shared;
    begin(&w);
    cr_assert_eq(cb_replay_guard_new(&guard, 3600, 0), CB_OK);
    cr_assert_eq(cb_replay_guard_new(&shared, 3600, 1), CB_OK);
    cr_expect_not(cb_replay_guard_ready(shared));
    gnutls_datum_t saved = earn_ticket(&w, guard); /* made after the start of `shared`, and within the skew */
    for (int i = 0; i < 400 && !cb_replay_guard_ready(shared); i++)
        usleep(10000);
    cr_assert(cb_replay_guard_ready(shared));
    cb_buf early;
    early_flight(&w, &saved, &early);
    cr_expect_not(taken(&w, shared, &early), "a ticket of a time in which an old one could look new");
    cr_expect(taken(&w, guard, &early), "where clocks agree it is taken");
    cb_buf_free(&early);
    gnutls_free(saved.data);
    cb_replay_guard_free(guard);
    cb_replay_guard_free(shared);
    end(&w);
}

/* A successor is there, at rest, while its predecessor takes early data still: what that has taken it must not take. */
Test(tls_replay, a_successor_begins_with_its_first_use) {
    world w;
    cb_replay_guard *before, *after;
    cb_buf flight, next;
    begin(&w);
    cr_assert_eq(cb_replay_guard_new(&before, 3600, 0), CB_OK);
    cr_assert_eq(cb_replay_guard_new(&after, 3600, 0), CB_OK);
    gnutls_datum_t saved = earn_ticket(&w, before);
    early_flight(&w, &saved, &flight);
    cr_expect(taken(&w, before, &flight));
    usleep(2000);
    cr_expect_not(taken(&w, after, &flight), "taken by both");
    gnutls_datum_t own = earn_ticket(&w, after);
    early_flight(&w, &own, &next);
    cr_expect(taken(&w, after, &next));
    cb_buf_free(&flight);
    cb_buf_free(&next);
    gnutls_free(saved.data);
    gnutls_free(own.data);
    cb_replay_guard_free(before);
    cb_replay_guard_free(after);
    end(&w);
}
