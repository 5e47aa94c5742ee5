/* HTTP/3 of either side: pieces of streams, resets, stops, closes, acknowledgements, datagrams and time, in any order.
 *
 * The first byte: bit 0 client. Then records: one byte with what (high 4 bits) and which stream (low 4), one byte of
 * length, that many bytes. */
#include "http/h3_conn.h"
#include "support/fuzz_http.h"

enum { STREAMS = 16 };

/* Which streams there are: by the number in a record. Requests, the peer's and our own unidirectional ones. */
typedef struct fake {
    fuzz f;
    cb_quic_app *app;
    int64_t opened[2];                                 /* by the application: uni, bidi */
    bool open[STREAMS], fin[STREAMS], unread[STREAMS]; /* of the peer's streams and requests */
    bool shut[STREAMS];
    bool failed;
} fake;

static int64_t id_of(const fake *k, unsigned n) {
    int peer = k->f.env.server ? 0 : 1;
    return n < 8 ? (int64_t)n * 4 : (int64_t)(n - 8) * 4 + 2 + peer;
}

static int number_of(const fake *k, int64_t id) {
    for (unsigned n = 0; n < STREAMS; n++)
        if (id_of(k, n) == id) return (int)n;
    return -1;
}

static fake *of(const cb_quic_conn *q) {
    return (fake *)(uintptr_t)q;
}
static int open_stream(cb_quic_conn *q, bool bidi, int64_t *id) {
    fake *k = of(q);
    if (k->opened[bidi] >= 8) return CB_EAGAIN;
    int64_t n = k->opened[bidi]++;
    *id = n * 4 + (bidi ? 0 : 2) + k->f.env.server;
    if (bidi) k->open[n] = true;
    return CB_OK;
}
static void wake(cb_quic_conn *q) {
    (void)q;
}
static void credit(cb_quic_conn *q, int64_t id, size_t n) {
    (void)q, (void)id, (void)n;
}
static void reset_stream(cb_quic_conn *q, int64_t id, uint64_t code) {
    (void)code;
    int n = number_of(of(q), id);
    if (n >= 0) of(q)->shut[n] = true;
}
static void stop_stream(cb_quic_conn *q, int64_t id, uint64_t code) {
    (void)code;
    int n = number_of(of(q), id);
    if (n >= 0) of(q)->unread[n] = true;
}
static void extend_streams(cb_quic_conn *q, bool bidi, size_t n) {
    (void)q, (void)bidi, (void)n;
}
static int fail(cb_quic_conn *q, uint64_t error, const char *reason) {
    (void)q, (void)error, (void)reason;
    return CB_EPROTO;
}
static int datagram(cb_quic_conn *q, const cb_slice *v, size_t n) {
    for (size_t i = 0; i < n; i++)
        for (size_t b = 0; b < v[i].len; b++)
            of(q)->f.sum += v[i].base[b];
    return of(q)->f.sum % 3 ? CB_OK : CB_ENOTSUP;
}
static cb_time now(const cb_quic_conn *q) {
    return of(q)->f.now;
}
static cb_time rtt(const cb_quic_conn *q) {
    (void)q;
    return 0;
}
static bool in_early_data(const cb_quic_conn *q) {
    return of(q)->f.sum & 1;
}
static const h3_below below = {open_stream, wake,     credit, reset_stream, stop_stream,   extend_streams,
                               fail,        datagram, now,    rtt,          in_early_data, NULL};

static void check(fake *k, int rc) {
    if (rc < 0) k->failed = true;
}

static void pull(fake *k, bool block) {
    for (int i = 0; i < 200 && !k->failed; i++) {
        cb_slice v[16];
        int64_t id;
        bool fin;
        size_t bytes = 0;
        int n = k->app->ops->pull(k->app, &id, &fin, v, 16);
        check(k, n);
        if (n < 0 || id < 0 || (!n && !fin)) return;
        int s = number_of(k, id);
        if (s >= 0 && k->shut[s]) {
            k->app->ops->shut(k->app, id);
            continue;
        }
        if (block && s >= 0) {
            k->app->ops->blocked(k->app, id);
            continue;
        }
        for (int j = 0; j < n; j++) {
            bytes += v[j].len;
            for (size_t b = 0; b < v[j].len; b++)
                k->f.sum += v[j].base[b];
        }
        check(k, k->app->ops->committed(k->app, id, bytes));
        if (!k->failed && bytes && !(k->f.sum & 3)) k->app->ops->acked(k->app, id, bytes);
    }
}

static void record(fake *k, unsigned what, unsigned n, cb_slice data) {
    const cb_quic_app_ops *o = k->app->ops;
    int64_t id = id_of(k, n);
    bool client = !k->f.env.server;
    if (what <= 5 && !k->open[n]) {
        if (client && n < 8) return; /* its own requests only */
        k->open[n] = true;
        check(k, o->stream_open(k->app, id));
        if (k->failed) return;
    }
    switch (what) {
    case 0:
    case 1:
    case 2:
        if (k->fin[n] || k->unread[n]) return;
        k->fin[n] = what == 1;
        check(k, o->recv(k->app, id, what == 1 ? CB_QUIC_FIN : 0, data));
        break;
    case 3:
        if (k->fin[n]) return;
        k->fin[n] = true;
        check(k, o->stream_reset(k->app, id, data.len ? data.base[0] + 0x100 : 0));
        break;
    case 4:
        if (n >= 8) return;
        k->shut[n] = true;
        check(k, o->stream_stop(k->app, id, data.len ? data.base[0] + 0x100 : 0));
        break;
    case 5:
        if (!k->fin[n] && !k->unread[n]) return;
        if (n < 8) k->open[n] = false;
        k->fin[n] = k->unread[n] = true; /* never again */
        k->shut[n] = true;
        check(k, o->stream_close(k->app, id, data.len ? data.base[0] + (uint64_t)0x100 : UINT64_MAX));
        k->open[n] = n >= 8 || k->open[n];
        break;
    case 6:
        check(k, o->datagram(k->app, data));
        break;
    case 7:
        pull(k, false);
        break;
    case 8:
        pull(k, true);
        break;
    case 9:
        if (k->open[n]) o->unblocked(k->app, id);
        break;
    case 10:
        fuzz_time(&k->f, n * CB_SEC);
        break;
    case 11:
        k->f.h->vt->drain(k->f.h);
        break;
    case 12:
        if (k->f.held) cb_exchange_resume(k->f.held);
        break;
    case 13:
        if (client && k->f.h->vt->capacity(k->f.h)) fuzz_request(&k->f, n & 1 ? "POST" : "GET", "", !(n & 1));
        break;
    case 14:
        if (client) o->streams_available(k->app);
        break;
    default:
        check(k, k->f.h->vt->flush(k->f.h, k->f.now));
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static fake k;
    if (size < 1 || size > 4096) return 0;
    memset(&k, 0, sizeof k);
    fuzz_init(&k.f, !(data[0] & 1));
    if (cb_h3_new_on(&k.f.h, &k.f.env, (cb_quic_conn *)&k, &below) < 0) abort();
    k.app = cb_h3_app(k.f.h);
    check(&k, k.app->ops->ready(k.app));
    if (!k.f.env.server) {
        fuzz_request(&k.f, "GET", "", true);
        fuzz_request(&k.f, "POST", "", false);
        fuzz_request(&k.f, "CONNECT", "connect-udp", false);
        fuzz_request(&k.f, "HEAD", "", true);
    }
    pull(&k, false);
    for (size_t at = 1; at + 2 <= size && !k.failed;) {
        size_t len = data[at + 1];
        if (len > size - at - 2) len = size - at - 2;
        uint8_t *piece = malloc(len ? len : 1);
        memcpy(piece, data + at + 2, len);
        record(&k, data[at] >> 4, data[at] & 15, (cb_slice){piece, len});
        free(piece);
        at += 2 + len;
        k.f.now += CB_MS;
    }
    k.app->ops->closed(k.app, CB_ECLOSED);
    k.f.h->vt->free(k.f.h);
    fuzz_check(&k.f);
    return 0;
}
