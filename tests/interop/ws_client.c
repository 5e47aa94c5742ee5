/* ws_client - opens a WebSocket (RFC 6455, 8441, 9220) through libcb, sends text, prints what comes back.
 *   ws_client 1|2|3 CA URL TEXT COUNT */
#include <cb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct chat {
    cb_loop *loop;
    const char *text;
    long left; /* answers that are still to come */
    uint8_t in[70000];
    size_t in_len;
    int rc, status;
};

/* A masked text frame. */
static int say(cb_exchange *x, const struct chat *c) {
    uint8_t frame[200];
    size_t n = strlen(c->text);
    if (n > 125) return CB_EINVAL;
    frame[0] = 0x81;
    frame[1] = (uint8_t)(0x80 | n);
    memcpy(frame + 2, "\x11\x22\x33\x44", 4);
    for (size_t i = 0; i < n; i++)
        frame[6 + i] = (uint8_t)c->text[i] ^ frame[2 + i % 4];
    int64_t sent = cb_exchange_write(x, (cb_slice){frame, 6 + n});
    return sent == (int64_t)(6 + n) ? CB_OK : CB_EUSER;
}

static int on_head(cb_exchange *x, void *user) {
    struct chat *c = user;
    c->status = cb_exchange_status(x);
    printf("status %d\n", c->status);
    int good = cb_exchange_version(x) == CB_HTTP_1 ? 101 : 200;
    return c->status == good ? say(x, c) : CB_OK;
}

static int64_t on_body(cb_exchange *x, cb_slice data, void *user) {
    struct chat *c = user;
    if (data.len > sizeof c->in - c->in_len) return CB_ELIMIT;
    memcpy(c->in + c->in_len, data.base, data.len);
    c->in_len += data.len;
    while (c->in_len >= 2 && c->in_len >= 2u + (c->in[1] & 0x7f)) {
        size_t n = c->in[1] & 0x7f;
        if (c->in[0] == 0x81) {
            printf("text %.*s\n", (int)n, (const char *)c->in + 2);
            int rc = --c->left > 0 ? say(x, c) : cb_exchange_finish(x);
            if (rc < 0) return rc;
        }
        memmove(c->in, c->in + 2 + n, c->in_len - 2 - n);
        c->in_len -= 2 + n;
    }
    return (int64_t)data.len;
}

static void on_close(cb_exchange *x, int rc, void *user) {
    struct chat *c = user;
    (void)x;
    c->rc = rc;
    if (rc < 0) printf("closed: %s: %s\n", cb_strerror(rc), cb_last_error());
    cb_loop_stop(c->loop);
}

int main(int argc, char **argv) {
    static const cb_exchange_ops ops = {
        .size = sizeof ops, .on_head = on_head, .on_body = on_body, .on_close = on_close};
    static struct chat c;
    cb_identity *trust = NULL;
    cb_http_client *client = NULL;
    cb_exchange *x = NULL;
    if (argc != 6) return 2;
    c.text = argv[4];
    c.left = strtol(argv[5], NULL, 10);
    uint32_t version = 1u << (strtoul(argv[1], NULL, 10) - 1);
    const cb_field fields[] = {{cb_slice_str("sec-websocket-version"), cb_slice_str("13")},
                               {cb_slice_str("sec-websocket-key"), cb_slice_str("dGhlIHNhbXBsZSBub25jZQ==")}};
    int rc = cb_loop_new(&c.loop, NULL);
    if (rc == CB_OK) rc = cb_identity_new(&trust, CB_OPTS(cb_identity_opts, .ca_file = argv[2]));
    if (rc == CB_OK)
        rc = cb_http_client_new(&client, c.loop, CB_OPTS(cb_http_client_opts, .identity = trust, .versions = version));
    if (rc == CB_OK)
        rc = cb_http_request(&x, client,
                             CB_OPTS(cb_request, .url = argv[3], .protocol = "websocket", .fields = fields,
                                     .n_fields = version == CB_HTTP_1 ? 2 : 1, .timeout_ms = 10000),
                             &ops, &c);
    if (rc == CB_OK) rc = cb_loop_run(c.loop);
    if (rc < 0) fprintf(stderr, "ws_client: %s: %s\n", cb_strerror(rc), cb_last_error());
    cb_http_client_free(client);
    cb_identity_unref(trust);
    cb_loop_free(c.loop);
    return rc < 0 || c.left > 0;
}
