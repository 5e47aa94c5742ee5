/* upgrade_load - asks a server without pause, over HTTP/1.1, /2 and /3: on kept connections, on fresh ones, and by long
 * downloads whose every byte is compared. SIGTERM: what is under way ends, then it tells how it went.
 *   upgrade_load CA BASE-URL DRIP-BYTES DRIP-MS
 * The server answers /name with a short text, and /drip?BYTES,MS with byte i = i mod 251, slowly. */
#include <cb.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { KINDS = 3, PAUSE_MS = 10, FRESH_PAUSE_MS = 40 };

static const char *const kinds[KINDS] = {"kept", "fresh", "long"};

struct flow {
    struct load *load;
    int kind, version; /* version: 0, 1, 2 */
    cb_http_client *client;
    uint64_t got;
    int status, wrong;
    cb_timer *timer;
};

struct load {
    cb_loop *loop;
    cb_identity *roots;
    const char *base;
    unsigned long long drip_bytes, drip_ms;
    struct flow flow[KINDS][3];
    unsigned long good[KINDS][3], bad[KINDS][3];
    int running, stopping;
};

static void begin(cb_loop *loop, void *user);

static int on_head(cb_exchange *x, void *user) {
    struct flow *f = user;
    f->status = cb_exchange_status(x);
    if (cb_exchange_version(x) != 1 << f->version) f->wrong = 1;
    return CB_OK;
}

static int64_t on_body(cb_exchange *x, cb_slice data, void *user) {
    struct flow *f = user;
    (void)x;
    for (size_t i = 0; i < data.len && f->kind == 2; i++)
        if (data.base[i] != (f->got + i) % 251) f->wrong = 1;
    f->got += data.len;
    return (int64_t)data.len;
}

static void on_close(cb_exchange *x, int rc, void *user) {
    struct flow *f = user;
    struct load *l = f->load;
    (void)x;
    const uint64_t wanted = f->kind == 2 ? l->drip_bytes : 6;
    const int good = rc == CB_OK && f->status == 200 && f->got == wanted && !f->wrong;
    if (good)
        l->good[f->kind][f->version]++;
    else
        l->bad[f->kind][f->version]++;
    if (!good)
        printf("failed: %s h%d: %s (%s), status %d, %llu bytes%s\n", kinds[f->kind], f->version + 1, cb_strerror(rc),
               rc < 0 ? cb_last_error() : "", f->status, (unsigned long long)f->got, f->wrong ? ", wrong ones" : "");
    if (f->kind == 1) {
        cb_http_client_free(f->client);
        f->client = NULL;
    }
    if (l->stopping) {
        if (--l->running == 0) cb_loop_stop(l->loop);
        return;
    }
    cb_timer_free(f->timer);
    f->timer = NULL;
    if (cb_timer_start(&f->timer, l->loop, f->kind == 1 ? FRESH_PAUSE_MS : PAUSE_MS, 0, begin, f) < 0) abort();
}

static const cb_exchange_ops ops = {.size = sizeof ops, .on_head = on_head, .on_body = on_body, .on_close = on_close};

static void begin(cb_loop *loop, void *user) {
    struct flow *f = user;
    struct load *l = f->load;
    char url[300];
    cb_exchange *x = NULL;
    if (l->stopping) {
        if (--l->running == 0) cb_loop_stop(loop);
        return;
    }
    if (f->kind == 2)
        snprintf(url, sizeof url, "%s/drip?%llu,%llu", l->base, l->drip_bytes, l->drip_ms);
    else
        snprintf(url, sizeof url, "%s/name", l->base);
    f->got = 0;
    f->status = f->wrong = 0;
    const cb_http_client_opts o = {.size = sizeof o, .identity = l->roots, .versions = 1U << f->version};
    const cb_request req = {.size = sizeof req, .url = url, .versions = 1U << f->version, .timeout_ms = 30000};
    if ((!f->client && cb_http_client_new(&f->client, loop, &o) < 0) ||
        cb_http_request(&x, f->client, &req, &ops, f) < 0) {
        printf("failed: cannot ask: %s\n", cb_last_error());
        exit(1);
    }
}

static void stop(cb_loop *loop, void *user) {
    (void)loop;
    ((struct load *)user)->stopping = 1;
}

int main(int argc, char **argv) {
    static struct load l;
    unsigned long bad = 0;
    if (argc != 5) return 2;
    l.base = argv[2];
    l.drip_bytes = strtoull(argv[3], NULL, 10);
    l.drip_ms = strtoull(argv[4], NULL, 10);
    if (cb_loop_new(&l.loop, NULL) < 0 ||
        cb_identity_new(&l.roots, CB_OPTS(cb_identity_opts, .ca_file = argv[1])) < 0 ||
        cb_loop_on_signal(l.loop, SIGTERM, stop, &l) < 0)
        return 1;
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (int k = 0; k < KINDS; k++)
        for (int v = 0; v < 3; v++) {
            l.flow[k][v] = (struct flow){.load = &l, .kind = k, .version = v};
            l.running++;
            begin(l.loop, &l.flow[k][v]);
        }
    printf("asking\n");
    cb_loop_run(l.loop);
    for (int k = 0; k < KINDS; k++)
        for (int v = 0; v < 3; v++) {
            printf("total: %s h%d: %lu good, %lu failed\n", kinds[k], v + 1, l.good[k][v], l.bad[k][v]);
            bad += l.bad[k][v];
            cb_timer_free(l.flow[k][v].timer);
            cb_http_client_free(l.flow[k][v].client);
        }
    cb_identity_unref(l.roots);
    cb_loop_step(l.loop);
    cb_loop_free(l.loop);
    return bad != 0;
}
