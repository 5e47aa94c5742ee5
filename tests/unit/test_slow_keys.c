/* Private keys that take their time, as those on tokens do: handshakes wait, loops do not. The key here waits for a
 * gate that the test opens. Real tokens are in interop/test_tokens.py. */
#include "support/http_fixture.h"
#include "support/moved.h"
#include "transport/sign_wait.h"
#include "transport/tls_identity.h"
#include <criterion/criterion.h>
#include <gnutls/abstract.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct gate {
    pthread_mutex_t lock;
    pthread_cond_t moved;
    bool open, broken;
    int came; /* signatures that were begun */
    gnutls_privkey_t real;
};

struct slow_job {
    cb_sign_job base;
    struct gate *gate;
    gnutls_sign_algorithm_t algorithm;
    unsigned flags;
    bool hashed;
    gnutls_datum_t data;
};

static void slow_run(cb_sign_job *base) {
    struct slow_job *j = (struct slow_job *)base;
    struct gate *g = j->gate;
    pthread_mutex_lock(&g->lock);
    g->came++;
    pthread_cond_broadcast(&g->moved);
    while (!g->open) {
        pthread_cond_wait(&g->moved, &g->lock);
    }
    bool broken = g->broken;
    pthread_mutex_unlock(&g->lock);
    if (broken) {
        base->rc = GNUTLS_E_PKCS11_DEVICE_ERROR;
        return;
    }
    base->rc = j->hashed ? gnutls_privkey_sign_hash2(g->real, j->algorithm, j->flags, &j->data, &base->signature)
                         : gnutls_privkey_sign_data2(g->real, j->algorithm, j->flags, &j->data, &base->signature);
}

static void slow_drop(cb_sign_job *base) {
    struct slow_job *j = (struct slow_job *)base;
    gnutls_free(base->signature.data);
    free(j->data.data);
    free(j);
}

static int slow_sign(struct gate *g, gnutls_sign_algorithm_t algorithm, bool hashed, unsigned flags,
                     const gnutls_datum_t *data, gnutls_datum_t *signature) {
    struct slow_job *j = calloc(1, sizeof *j);
    j->base.run = slow_run;
    j->base.drop = slow_drop;
    j->gate = g;
    j->algorithm = algorithm;
    j->flags = flags;
    j->hashed = hashed;
    j->data.size = data->size;
    j->data.data = malloc(data->size);
    memcpy(j->data.data, data->data, data->size);
    return cb_sign_job_do(&j->base, signature);
}

static int slow_data(gnutls_privkey_t key, gnutls_sign_algorithm_t algorithm, void *user, unsigned flags,
                     const gnutls_datum_t *data, gnutls_datum_t *signature) {
    (void)key;
    return slow_sign(user, algorithm, false, flags, data, signature);
}

static int slow_hash(gnutls_privkey_t key, gnutls_sign_algorithm_t algorithm, void *user, unsigned flags,
                     const gnutls_datum_t *data, gnutls_datum_t *signature) {
    (void)key;
    return slow_sign(user, algorithm, true, flags, data, signature);
}

static int slow_info(gnutls_privkey_t key, unsigned flags, void *user) {
    struct gate *g = user;
    unsigned bits = 0;
    int algorithm = gnutls_privkey_get_pk_algorithm(g->real, &bits);
    (void)key;
    if (flags & GNUTLS_PRIVKEY_INFO_PK_ALGO) return algorithm;
    if (flags & GNUTLS_PRIVKEY_INFO_PK_ALGO_BITS) return (int)bits;
    return gnutls_sign_supports_pk_algorithm((gnutls_sign_algorithm_t)GNUTLS_FLAGS_TO_SIGN_ALGO(flags),
                                             (gnutls_pk_algorithm_t)algorithm) != 0;
}

/* Puts the gate before the key of an identity. */
static void slow_down(struct gate *g, cb_identity *id) {
    cb_identity_view *view = cb_identity_view_get(id);
    cb_tls_cert *cert = (cb_tls_cert *)(uintptr_t)cb_identity_view_choose(view, "", 0);
    *g = (struct gate){.real = cert->key};
    pthread_mutex_init(&g->lock, NULL);
    pthread_cond_init(&g->moved, NULL);
    cr_assert_eq(gnutls_privkey_init(&cert->key), 0);
    cr_assert_eq(gnutls_privkey_import_ext4(cert->key, g, slow_data, slow_hash, NULL, NULL, slow_info, 0), 0);
    cert->slow = true;
    cb_identity_view_unref(view);
}

static void set_gate(struct gate *g, bool open) {
    pthread_mutex_lock(&g->lock);
    g->open = open;
    pthread_cond_broadcast(&g->moved);
    pthread_mutex_unlock(&g->lock);
}

static int came(struct gate *g) {
    pthread_mutex_lock(&g->lock);
    int n = g->came;
    pthread_mutex_unlock(&g->lock);
    return n;
}

static void gate_drop(struct gate *g) {
    gnutls_privkey_deinit(g->real);
    pthread_mutex_destroy(&g->lock);
    pthread_cond_destroy(&g->moved);
}

/* Turns the loop until so many signatures were begun. */
static void until_came(http_world *w, struct gate *g, int n) {
    for (int i = 0; came(g) < n; i++) {
        cr_assert_lt(i, 30000, "%d of %d signatures were begun", came(g), n);
        cr_assert_eq(cb_loop_step(w->loop), CB_OK);
        struct timespec ms = {.tv_nsec = 1000000};
        nanosleep(&ms, NULL);
    }
}

/* A world whose server has a slow key, and beside it, on the same loop, one whose key is quick. */
struct both {
    http_world slow, quick;
    struct gate gate;
};

static void both_open(struct both *b) {
    http_world_open(&b->slow);
    b->quick = b->slow;
    b->quick.me = tls_pki_identity(&b->slow.pki, "localhost,127.0.0.1");
    slow_down(&b->gate, b->slow.me);
    http_serve(&b->slow, (cb_http_server_opts){.identity = b->slow.me});
    http_serve(&b->quick, (cb_http_server_opts){.identity = b->quick.me});
}

static void both_close(struct both *b) {
    cb_http_client_free(b->quick.client);
    cb_http_server_free(b->quick.server);
    cb_identity_unref(b->quick.me);
    http_world_close(&b->slow);
    gate_drop(&b->gate);
}

enum { MANY = 12 };
static const uint32_t versions[] = {CB_HTTP_1, CB_HTTP_2, CB_HTTP_3};

Test(slow_keys, a_loop_goes_on_while_handshakes_wait) {
    for (size_t v = 0; v < 3; v++) {
        struct both b;
        http_reply waiting[MANY] = {0};
        cb_http_client *clients[MANY];
        both_open(&b);
        for (size_t i = 0; i < MANY; i++) { /* each on a connection of its own */
            http_client_make(&b.slow, (cb_http_client_opts){.versions = versions[v]});
            clients[i] = b.slow.client;
            cr_assert_eq(http_begin(&waiting[i], &b.slow, (cb_request){0}, "/hello"), CB_OK);
        }
        until_came(&b.slow, &b.gate, 1);
        for (size_t i = 0; i < 10; i++) {
            http_reply r = {0};
            http_client_make(&b.quick, (cb_http_client_opts){.versions = versions[v]});
            http_fetch(&r, &b.quick, (cb_request){0}, "/hello");
            cr_expect(r.rc == CB_OK && r.status == 200, "beside: %d: %s", r.rc, r.detail);
            cb_http_client_free(b.quick.client);
            b.quick.client = NULL;
        }
        for (size_t i = 0; i < MANY; i++) {
            cr_expect_eq(waiting[i].closes, 0, "request %zu waits", i);
        }
        set_gate(&b.gate, true);
        for (size_t i = 0; i < MANY; i++) {
            if (!waiting[i].closes) http_run(&b.slow, &waiting[i].closes);
            cr_expect(waiting[i].rc == CB_OK && waiting[i].status == 200, "%zu: %d: %s", i, waiting[i].rc,
                      waiting[i].detail);
            cb_http_client_free(clients[i]);
        }
        cr_expect_eq(came(&b.gate), MANY);
        EXPECT_MOVED(b.slow.metrics, MANY, "cb_tls_signature_wait_seconds");
        b.slow.client = NULL;
        both_close(&b);
    }
}

Test(slow_keys, connections_end_while_their_handshakes_wait) {
    for (size_t v = 0; v < 3; v++) {
        for (int server_first = 0; server_first < 2; server_first++) {
            struct both b;
            http_reply r = {0};
            both_open(&b);
            http_client_make(&b.slow, (cb_http_client_opts){.versions = versions[v]});
            cr_assert_eq(http_begin(&r, &b.slow, (cb_request){0}, "/hello"), CB_OK);
            until_came(&b.slow, &b.gate, 1);
            if (server_first) {
                cb_http_server_free(b.slow.server);
                b.slow.server = NULL;
            } else {
                cb_http_client_free(b.slow.client);
                b.slow.client = NULL;
            }
            for (int i = 0; i < 20; i++) {
                cr_assert_eq(cb_loop_step(b.slow.loop), CB_OK);
            }
            set_gate(&b.gate, true); /* nobody waits for it any more */
            both_close(&b);
        }
    }
}

/* Signatures that nobody waits for any more do not keep the threads busy: libuv's pool has four. */
Test(slow_keys, what_is_not_wanted_any_more_is_not_signed) {
    enum { THREADS = 4 };
    struct both b;
    http_reply waiting[MANY] = {0};
    cb_http_client *clients[MANY];
    both_open(&b);
    for (size_t i = 0; i < MANY; i++) {
        http_client_make(&b.slow, (cb_http_client_opts){.versions = CB_HTTP_1});
        clients[i] = b.slow.client;
        cr_assert_eq(http_begin(&waiting[i], &b.slow, (cb_request){0}, "/hello"), CB_OK);
    }
    until_came(&b.slow, &b.gate, THREADS);
    cb_http_server_free(b.slow.server);
    b.slow.server = NULL;
    for (size_t i = 0; i < MANY; i++) {
        if (!waiting[i].closes) http_run(&b.slow, &waiting[i].closes);
        cb_http_client_free(clients[i]);
    }
    b.slow.client = NULL;
    set_gate(&b.gate, true);
    cb_http_client_free(b.quick.client);
    cb_http_server_free(b.quick.server);
    cb_identity_unref(b.quick.me);
    http_world_close(&b.slow); /* what is left of the work ends here */
    cr_expect_eq(came(&b.gate), THREADS);
    gate_drop(&b.gate);
}

Test(slow_keys, a_key_that_fails_ends_its_handshake_only) {
    for (size_t v = 0; v < 3; v++) {
        struct both b;
        both_open(&b);
        b.gate.open = b.gate.broken = true;
        for (int i = 0; i < 2; i++) {
            http_reply r = {0};
            http_client_make(&b.slow, (cb_http_client_opts){.versions = versions[v]});
            http_fetch(&r, &b.slow, (cb_request){0}, "/hello");
            cr_expect(i ? r.rc == CB_OK && r.status == 200 : r.rc < 0, "%zu, %d: %d: %s", v, i, r.rc, r.detail);
            cb_http_client_free(b.slow.client);
            b.slow.client = NULL;
            pthread_mutex_lock(&b.gate.lock);
            b.gate.broken = false;
            pthread_mutex_unlock(&b.gate.lock);
        }
        both_close(&b);
    }
}

Test(slow_keys, clients_have_them_too) {
    for (size_t v = 0; v < 3; v++) {
        http_world w;
        struct gate gate;
        http_world_open(&w);
        cb_identity *me = tls_pki_identity(&w.pki, "client.test");
        slow_down(&gate, me);
        http_serve(&w, (cb_http_server_opts){.identity = w.me, .request_client_cert = 2});
        http_client_make(&w, (cb_http_client_opts){.identity = me, .versions = versions[v]});
        http_reply r = {0};
        cr_assert_eq(http_begin(&r, &w, (cb_request){0}, "/hello"), CB_OK);
        until_came(&w, &gate, 1);
        cr_expect_eq(r.closes, 0);
        set_gate(&gate, true);
        if (!r.closes) http_run(&w, &r.closes);
        cr_expect(r.rc == CB_OK && r.status == 200, "%zu: %d: %s", v, r.rc, r.detail);
        cb_identity_unref(me);
        http_world_close(&w);
        gate_drop(&gate);
    }
}
