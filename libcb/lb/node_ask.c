/* A follower's side of the wire. */
#include "base/error.h"
#include "lb/node_drive.h"
#include "lb/node_int.h"
#include <stdio.h>
#include <string.h>

static void keep_reason(cb_lb_asking *a, int rc) {
    a->rc = rc;
    snprintf(a->detail, sizeof a->detail, "%s", *cb_last_error() ? cb_last_error() : cb_strerror(rc));
}

static int write_body(cb_exchange *x, void *user) {
    cb_lb_asking *a = &((cb_lb_node *)user)->asking;
    while (a->sent < a->body.len) {
        const int64_t n = cb_exchange_write(x, (cb_slice){a->body.base + a->sent, a->body.len - a->sent});
        if (n < 0) return n == CB_EAGAIN ? CB_OK : (int)n;
        a->sent += (size_t)n;
    }
    if (!a->body.len) return CB_OK;
    a->body.len = a->sent = 0;
    return cb_exchange_finish(x);
}

/* Only the writer may give records: its certificate has to say that it is. */
static int on_head(cb_exchange *x, void *user) {
    cb_lb_node *n = user;
    const cb_lb_host *writer = cb_lb_core_host(n->core, n->writer);
    const cb_peer *peer = cb_exchange_peer(x);
    if (!writer->peer || (peer && cb_peer_is(peer, writer->peer))) return CB_OK;
    int rc = cb_fail(CB_EAUTH, "the certificate of %s (%s) is not that of the writer (%s)", writer->control,
                     peer ? cb_peer_subject(peer) : "none", writer->peer);
    keep_reason(&n->asking, rc);
    return rc;
}

static int64_t on_body(cb_exchange *x, cb_slice data, void *user) {
    cb_lb_asking *a = &((cb_lb_node *)user)->asking;
    (void)x;
    if (cb_buf_add(&a->answer, data.base, data.len) == CB_OK) return (int64_t)data.len;
    keep_reason(a, CB_ELIMIT);
    return CB_ELIMIT;
}

static void on_close(cb_exchange *x, int rc, void *user) {
    cb_lb_node *n = user;
    cb_lb_asking *a = &n->asking;
    const cb_time now = cb_loop_now(n->loop);
    const int status = cb_exchange_status(x);
    a->x = NULL;
    if (a->rc == CB_OK && rc < 0) keep_reason(a, rc);
    if (a->rc == CB_OK && status != 200) {
        char text[200];
        cb_text_escape(text, sizeof text, cb_buf_slice(&a->answer));
        keep_reason(a, cb_fail(CB_EPROTO, "status %d: %s", status, text));
    }
    if (a->rc == CB_OK) {
        cb_lb_core_answered(n->core, cb_buf_slice(&a->answer), now);
    } else { /* a connection of which nothing comes is not used again */
        cb_http_client_free(a->client);
        a->client = NULL;
        cb_fail(a->rc, "%s", a->detail);
        cb_lb_core_unanswered(n->core, now);
    }
    if (a->answer.cap > 65536) cb_buf_free(&a->answer);
    cb_lb_node_soon(n);
}

static int open_client(cb_lb_node *n, const cb_lb_host *writer) {
    cb_lb_asking *a = &n->asking;
    const bool full = !writer->peer;
    if (a->client && a->full == full) return CB_OK;
    cb_http_client_free(a->client);
    a->client = NULL;
    a->full = full;
    return cb_http_client_new(&a->client, n->loop,
                              CB_OPTS(cb_http_client_opts, .identity = n->identity, .versions = CB_HTTP_2,
                                      .connect_timeout_ms = 3000, .idle_timeout_ms = 120000, .alt_svc = 1,
                                      .verify = full ? CB_VERIFY_FULL : CB_VERIFY_CHAIN));
}

static int send_ask(cb_lb_node *n) {
    static const cb_exchange_ops ops = {
        .size = sizeof ops, .on_head = on_head, .on_body = on_body, .on_writable = write_body, .on_close = on_close};
    cb_lb_asking *a = &n->asking;
    const cb_lb_host *writer = cb_lb_core_host(n->core, n->writer);
    char url[192], length[24];
    snprintf(url, sizeof url, "https://%s" CB_LB_PATH, writer->control);
    snprintf(length, sizeof length, "%zu", a->body.len);
    const cb_field fields[] = {{cb_slice_str("content-type"), cb_slice_str(CB_LB_MEDIA)},
                               {cb_slice_str("content-length"), cb_slice_str(length)}};
    int rc = open_client(n, writer);
    if (rc < 0) return rc;
    const cb_time lease = cb_lb_core_lease(n->core) / CB_LB_MS;
    const cb_request req = {.size = sizeof req,
                            .method = "POST",
                            .url = url,
                            .fields = fields,
                            .n_fields = 2,
                            .timeout_ms = lease < 2500 ? 5000 : (uint32_t)lease * 2,
                            .has_body = 1};
    rc = cb_http_request(&a->x, a->client, &req, &ops, n);
    return rc < 0 ? rc : write_body(a->x, n);
}

void cb_lb_ask_pump(cb_lb_node *n) {
    cb_lb_asking *a = &n->asking;
    if (a->x) return;
    a->body.len = a->answer.len = a->sent = 0;
    a->rc = CB_OK;
    *a->detail = 0;
    if (cb_lb_core_ask(n->core, &a->body, cb_loop_now(n->loop)) != 1) return;
    if (send_ask(n) >= 0) return;
    if (a->x) cb_exchange_abandon(a->x);
    a->x = NULL;
    cb_lb_core_unanswered(n->core, cb_loop_now(n->loop));
}

void cb_lb_ask_stop(cb_lb_node *n) {
    if (n->asking.x) cb_exchange_abandon(n->asking.x);
    n->asking.x = NULL;
    cb_http_client_free(n->asking.client);
    n->asking.client = NULL;
}

void cb_lb_ask_free(cb_lb_node *n) {
    cb_buf_free(&n->asking.body);
    cb_buf_free(&n->asking.answer);
}
