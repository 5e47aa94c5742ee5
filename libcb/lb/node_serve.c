/* The writer's side of the wire: who may speak, and what they get. */
#include "base/error.h"
#include "lb/node_drive.h"
#include "lb/node_int.h"
#include <stdio.h>
#include <string.h>

typedef struct call {
    cb_list link;
    cb_lb_node *n;
    cb_exchange *x;
    cb_buf body;
    bool asked; /* the core has it */
} call;

static int64_t on_body(cb_exchange *x, cb_slice data, void *user) {
    call *c = user;
    (void)x;
    return cb_buf_add(&c->body, data.base, data.len) < 0 ? CB_ELIMIT : (int64_t)data.len;
}

/* Its certificate must be that of the member that it says it is. Of who is none, the core says more. */
static bool may_speak(const cb_lb_node *n, call *c) {
    char text[512];
    const uint32_t id = c->body.len >= 12 ? (uint32_t)cb_lb_get(c->body.base + 8, 4) : 0;
    const cb_lb_host *h = cb_lb_core_host(n->core, id);
    const cb_peer *peer = cb_exchange_peer(c->x);
    if (peer && (!h || !h->peer || cb_peer_is(peer, h->peer))) return true;
    snprintf(text, sizeof text, "the certificate (%s) is not that of member %u", peer ? cb_peer_subject(peer) : "none",
             (unsigned)id);
    cb_lb_core_stranger(n->core, cb_exchange_remote(c->x), text, cb_loop_now(n->loop));
    (void)cb_exchange_send_text(c->x, 403, text);
    return false;
}

static int on_end(cb_exchange *x, void *user) {
    call *c = user;
    if (c->asked || !may_speak(c->n, c)) return CB_OK;
    c->asked = true;
    cb_lb_core_asked(c->n->core, cb_buf_slice(&c->body), cb_exchange_remote(x), c, cb_loop_now(c->n->loop));
    cb_buf_free(&c->body);
    cb_lb_node_soon(c->n);
    return CB_OK;
}

static void on_close(cb_exchange *x, int rc, void *user) {
    call *c = user;
    (void)x;
    (void)rc;
    if (c->asked) cb_lb_core_gone(c->n->core, c);
    cb_list_del(&c->link);
    cb_buf_free(&c->body);
    cb_mem_free(cb_loop_alloc(c->n->loop), c);
}

static bool says(cb_slice s, const char *text) {
    return s.len == strlen(text) && !memcmp(s.base, text, s.len);
}

static int on_head(cb_exchange *x, void *user) {
    static const cb_exchange_ops ops = {.size = sizeof ops, .on_body = on_body, .on_end = on_end, .on_close = on_close};
    cb_lb_node *n = user;
    if (!says(cb_exchange_path(x), CB_LB_PATH)) return cb_exchange_send_text(x, 404, "there is " CB_LB_PATH " here\n");
    if (!says(cb_exchange_method(x), "POST")) return cb_exchange_send_text(x, 405, "POST only\n");
    call *c = cb_mem_new(cb_loop_alloc(n->loop), sizeof *c);
    if (!c) return CB_ENOMEM;
    c->n = n;
    c->x = x;
    cb_buf_init(&c->body, cb_loop_alloc(n->loop), n->body_max);
    cb_list_add_tail(&n->calls, &c->link);
    return cb_exchange_handle(x, &ops, c);
}

void cb_lb_serve_answer(void *held, cb_slice answer) {
    call *c = held;
    const cb_field type = {cb_slice_str("content-type"), cb_slice_str(CB_LB_MEDIA)};
    c->asked = false; /* the core has it no more */
    if (!answer.len)
        (void)cb_exchange_send_text(c->x, 503, "no memory\n");
    else if (cb_exchange_send(c->x, 200, &type, 1, answer) < 0)
        cb_exchange_reset(c->x, CB_RESET_INTERNAL);
}

int cb_lb_serve_open(cb_lb_node *n, const char *listen) {
    static const cb_exchange_ops ops = {.size = sizeof ops, .on_head = on_head};
    const cb_http_limits limits = {.size = sizeof limits,
                                   .max_body_bytes = n->body_max,
                                   .idle_timeout_ms = 180000,
                                   .send_buffer_bytes = (uint32_t)n->body_max};
    return cb_http_server_new(&n->server, n->loop,
                              CB_OPTS(cb_http_server_opts, .listen = listen, .identity = n->identity, .ops = &ops,
                                      .user = n, .limits = &limits, .versions = CB_HTTP_2, .request_client_cert = 2,
                                      .name = "lb"));
}
