/* One small request at a time through an HTTP client: a body that is at hand, an answer that is bounded. Embedded in
 * its owner. Redirects are answers like others. */
#ifndef CB_HTTP_FETCH_H
#define CB_HTTP_FETCH_H

#include "base/buf.h"
#include <cb/http.h>
#include <stdbool.h>

typedef struct cb_fetch cb_fetch;
struct cb_fetch {
    cb_exchange *x; /* NULL: nothing is under way */
    cb_buf answer;
    cb_slice body; /* of the request */
    size_t sent;   /* of it */
    bool too_large;
    /* The answer is there: fetch->answer, and x for its status and fields, during the call. rc: CB_OK, CB_EPROTO (more
     * than max_bytes) or why there is none, with the detail. May start the next request, or free its owner. */
    void (*done)(cb_fetch *fetch, cb_exchange *x, int rc);
};

typedef struct cb_fetch_request {
    const char *method, *url, *accept;
    const char *content_type; /* NULL: no body */
    cb_slice body;            /* borrowed until done */
    const cb_field *fields;   /* further ones, at most 4; copied */
    size_t n_fields;
    uint32_t timeout_ms;
} cb_fetch_request;

void cb_fetch_init(cb_fetch *f, size_t max_bytes, void (*done)(cb_fetch *fetch, cb_exchange *x, int rc));
/* Fails as cb_http_request(), and then done() is not called. */
int cb_fetch_start(cb_fetch *f, cb_http_client *client, const cb_fetch_request *request);
/* Nothing is under way any more, and done() is not called. */
void cb_fetch_stop(cb_fetch *f);
void cb_fetch_free(cb_fetch *f); /* stops it; memory back */

#endif
