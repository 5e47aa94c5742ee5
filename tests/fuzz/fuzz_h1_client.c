/* A client on HTTP/1.1, whatever the server says. The first byte chooses the request. */
#include "support/h1_peer.h"

static int on_head(cb_exchange *x, void *user) {
    h1_peer *p = user;
    size_t n;
    const cb_field *f = cb_exchange_fields(x, &n);
    for (size_t i = 0; i < n; i++)
        if (!cb_field_name_ok(f[i].name) || !cb_field_value_ok(f[i].value)) abort();
    h1_log(p, "head %d %zu;", cb_exchange_status(x), n);
    return CB_OK;
}

static int on_info(cb_exchange *x, int status, void *user) {
    (void)x;
    h1_log(user, "info %d;", status);
    return CB_OK;
}

static int64_t on_body(cb_exchange *x, cb_slice data, void *user) {
    (void)x;
    ((h1_peer *)user)->body += data.len;
    return (int64_t)data.len;
}

static int on_end(cb_exchange *x, void *user) {
    size_t n;
    cb_exchange_trailers(x, &n);
    h1_log(user, "end %zu;", n);
    return CB_OK;
}

static int on_datagram(cb_exchange *x, cb_slice payload, void *user) {
    (void)x;
    h1_log(user, "datagram %zu;", payload.len);
    return CB_OK;
}

static void on_close(cb_exchange *x, int rc, void *user) {
    (void)x;
    h1_peer *p = user;
    h1_log(p, "close %s;", rc < 0 ? "early" : "whole"); /* which of two faults is met first depends on the pieces */
    p->closed++;
}

static const cb_exchange_ops ops = {.size = sizeof ops,
                                    .on_head = on_head,
                                    .on_info = on_info,
                                    .on_body = on_body,
                                    .on_end = on_end,
                                    .on_datagram = on_datagram,
                                    .on_close = on_close};
static const cb_hconn_owner_ops owner = {.wake = h1_on_wake};

static void run(h1_peer *p, const uint8_t *data, size_t size, size_t step) {
    static const char *const methods[] = {"GET", "HEAD", "CONNECT", "POST"};
    uint8_t what = data[0];
    memset(p, 0, offsetof(h1_peer, out));
    memset(&p->out_len, 0, sizeof *p - offsetof(h1_peer, out_len));
    p->limits = (cb_http_limits){.max_head_bytes = 2048, .max_fields = 20};
    p->sink.shut = h1_sink_shut;
    h1_peer_open(p, false, &owner);
    const cb_head head = {.method = cb_slice_str(methods[what & 3]),
                          .authority = cb_slice_str("a:1"),
                          .path = cb_slice_str((what & 3) == 2 && !(what & 4) ? "" : "/"),
                          .protocol = cb_slice_str(what & 4 ? "connect-udp" : ""),
                          .length = -1};
    if (cb_exchange_new(&p->x, NULL, &p->alloc, false, &p->limits) < 0) abort();
    cb_exchange_handle(p->x, &ops, p);
    if (p->h->vt->open(p->h, p->x) < 0) abort();
    if (cb_exchange_send_request(p->x, &head, !(what & 8)) < 0) abort();
    h1_peer_feed(p, data + 1, size - 1, step, 1);
    h1_peer_eof(p, 2);
    h1_peer_close(p);
    if (p->closed != 1 || p->live) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static h1_peer whole, pieces;
    if (!size || size > 4096) return 0;
    run(&whole, data, size, 0);
    run(&pieces, data, size, 1);

    if (whole.log_len != pieces.log_len || memcmp(whole.log, pieces.log, whole.log_len) != 0) abort();
    return 0;
}
