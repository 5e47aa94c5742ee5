/* The page that Prometheus scrapes, as the answer of an exchange. */
#include "base/buf.h"
#include "base/error.h"
#include "base/mem.h"
#include <cb/http.h>
#include <stdbool.h>
#include <string.h>
#include <time.h>

enum { PAGE_MAX_BYTES = 256 << 20 };

static int gather(cb_slice piece, void *user) {
    return cb_buf_add(user, piece.base, piece.len);
}

static bool is(cb_slice method, const char *text) {
    return method.len == strlen(text) && memcmp(method.base, text, method.len) == 0;
}

int cb_exchange_send_metrics(cb_exchange *x, cb_metrics *m) {
    if (!x || !m) return cb_fail(CB_EINVAL, "cb_exchange_send_metrics: x and m are needed");
    if (!is(cb_exchange_method(x), "GET") && !is(cb_exchange_method(x), "HEAD")) {
        const cb_field allow = {cb_slice_str("allow"), cb_slice_str("GET, HEAD")};
        return cb_exchange_send(x, 405, &allow, 1, (cb_slice){0});
    }
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    int format = cb_metrics_negotiate(cb_exchange_field(x, "accept"));
    const cb_field fields[] = {{cb_slice_str("content-type"), cb_slice_str(cb_metrics_content_type(format))},
                               {cb_slice_str("cache-control"), cb_slice_str("no-store")}};
    cb_buf page;
    cb_buf_init(&page, &cb_alloc_libc, PAGE_MAX_BYTES);
    int rc = cb_metrics_render(m, format, (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000, gather, &page);
    if (rc == CB_OK) rc = cb_exchange_send(x, 200, fields, 2, cb_buf_slice(&page));
    cb_buf_free(&page);
    return rc;
}
