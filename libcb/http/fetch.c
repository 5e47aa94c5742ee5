#include "http/fetch.h"
#include "base/error.h"
#include "base/mem.h"
#include <stdio.h>

enum { FIELDS = 4 };

void cb_fetch_init(cb_fetch *f, size_t max_bytes, void (*done)(cb_fetch *fetch, cb_exchange *x, int rc)) {
    *f = (cb_fetch){.done = done};
    cb_buf_init(&f->answer, &cb_alloc_libc, max_bytes);
}

static int64_t on_body(cb_exchange *x, cb_slice data, void *user) {
    (void)x;
    cb_fetch *f = user;
    if (cb_buf_add(&f->answer, data.base, data.len) >= 0) return (int64_t)data.len;
    f->too_large = true;
    return CB_ELIMIT;
}

/* Nothing fits before there is a connection: then the rest goes when there is room. */
static int write_body(cb_exchange *x, void *user) {
    cb_fetch *f = user;
    if (f->body.len == 0) return CB_OK;
    while (f->sent < f->body.len) {
        int64_t n = cb_exchange_write(x, (cb_slice){f->body.base + f->sent, f->body.len - f->sent});
        if (n < 0) return n == CB_EAGAIN ? CB_OK : (int)n;
        f->sent += (size_t)n;
    }
    f->body.len = 0;
    return cb_exchange_finish(x);
}

static void on_close(cb_exchange *x, int rc, void *user) {
    cb_fetch *f = user;
    f->x = NULL;
    if (f->too_large) rc = cb_fail(CB_EPROTO, "an answer of more than %zu bytes", f->answer.max);
    f->done(f, x, rc); /* f may be gone */
}

int cb_fetch_start(cb_fetch *f, cb_http_client *client, const cb_fetch_request *r) {
    static const cb_exchange_ops ops = {
        .size = sizeof ops, .on_body = on_body, .on_writable = write_body, .on_close = on_close};
    char agent[48], length[24];
    cb_field fields[4 + FIELDS];
    size_t n = 0;
    const bool body = r->content_type != NULL;
    snprintf(agent, sizeof agent, "libcb/%s", cb_version_text());
    snprintf(length, sizeof length, "%zu", r->body.len);
    fields[n++] = (cb_field){cb_slice_str("user-agent"), cb_slice_str(agent)};
    fields[n++] = (cb_field){cb_slice_str("accept"), cb_slice_str(r->accept)};
    if (body) {
        fields[n++] = (cb_field){cb_slice_str("content-type"), cb_slice_str(r->content_type)};
        fields[n++] = (cb_field){cb_slice_str("content-length"), cb_slice_str(length)};
    }
    for (size_t i = 0; i < r->n_fields && i < FIELDS; i++)
        fields[n++] = r->fields[i];
    const cb_request req = {.size = sizeof req,
                            .method = r->method,
                            .url = r->url,
                            .fields = fields,
                            .n_fields = n,
                            .timeout_ms = r->timeout_ms,
                            .has_body = body && r->body.len};
    f->answer.len = f->sent = 0;
    f->too_large = false;
    f->body = r->body;
    int rc = cb_http_request(&f->x, client, &req, &ops, f);
    if (rc >= 0) rc = write_body(f->x, f);
    if (rc < 0) cb_fetch_stop(f);
    return rc;
}

void cb_fetch_stop(cb_fetch *f) {
    if (f->x) cb_exchange_abandon(f->x);
    f->x = NULL;
}

void cb_fetch_free(cb_fetch *f) {
    cb_fetch_stop(f);
    cb_buf_free(&f->answer);
}
