/* A server on HTTP/1.1: whatever comes, in one piece and in small ones, the users sees the same and every exchange
 * that it saw is closed once. */
#include "support/h1_peer.h"

static int on_head(cb_exchange *x, void *user) {
    h1_peer *p = user;
    cb_slice m = cb_exchange_method(x), t = cb_exchange_path(x);
    h1_log(p, "head %zu %zu %zu;", m.len, t.len, cb_exchange_authority(x).len);
    size_t n, all = 0;
    const cb_field *f = cb_exchange_fields(x, &n);
    for (size_t i = 0; i < n; i++) {
        if (!cb_field_name_ok(f[i].name) || !cb_field_value_ok(f[i].value)) abort();
        for (size_t k = 0; k < f[i].value.len; k++)
            all += f[i].value.base[k];
    }
    h1_log(p, "fields %zu %zu;", n, all);
    p->opened++;
    if (t.len && t.base[t.len - 1] == 'p' && cb_exchange_protocol(x).len) return cb_exchange_reply(x, 101, NULL, 0);
    if (t.len && t.base[t.len - 1] == 'e') return cb_exchange_send_text(x, 200, "early");
    if (t.len && t.base[t.len - 1] == 'f') return CB_EINVAL;
    if (x->connect) return cb_exchange_reply(x, 200, NULL, 0);
    return CB_OK;
}

static int64_t on_body(cb_exchange *x, cb_slice data, void *user) {
    h1_peer *p = user;
    p->body += data.len;
    if (x->tunnel) cb_exchange_write(x, data);
    return (int64_t)data.len;
}

static int on_end(cb_exchange *x, void *user) {
    h1_log(user, "end;");
    if (x->tunnel) return cb_exchange_finish(x);
    return x->head_out ? CB_OK : cb_exchange_send_text(x, 200, "ok");
}

static int on_datagram(cb_exchange *x, cb_slice payload, void *user) {
    h1_log(user, "datagram %zu;", payload.len);
    cb_exchange_datagram_send(x, payload);
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
                                    .on_body = on_body,
                                    .on_end = on_end,
                                    .on_datagram = on_datagram,
                                    .on_close = on_close};

static void exchange_new(cb_hconn *h, cb_exchange *x) {
    cb_exchange_handle(x, &ops, h->env.owner_user);
}

static const cb_hconn_owner_ops owner = {.exchange_new = exchange_new, .wake = h1_on_wake};

static void run(h1_peer *p, const uint8_t *data, size_t size, size_t step) {
    memset(p, 0, offsetof(h1_peer, out));
    memset(&p->out_len, 0, sizeof *p - offsetof(h1_peer, out_len));
    p->limits = (cb_http_limits){.max_head_bytes = 2048, .max_fields = 20, .max_target_bytes = 256};
    p->sink.shut = h1_sink_shut;
    h1_peer_open(p, true, &owner);
    h1_peer_feed(p, data, size, step, 1);
    h1_peer_eof(p, 2);
    h1_peer_close(p);
    if (p->opened != p->closed || p->live) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static h1_peer whole, pieces;
    if (size > 4096) return 0;
    run(&whole, data, size, 0);
    run(&pieces, data, size, 1);
    if (whole.log_len != pieces.log_len || memcmp(whole.log, pieces.log, whole.log_len) != 0) abort();
    return 0;
}
