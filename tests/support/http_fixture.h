/* For tests of whole HTTP: a server with a few paths and a client on one loop, over every version. */
#ifndef CB_TEST_HTTP_FIXTURE_H
#define CB_TEST_HTTP_FIXTURE_H

#include "loop/loop_int.h"
#include "support/tls_fixture.h"
#include <cb/http.h>

/* The ways to talk: version, and TLS or not. */
typedef struct http_way {
    const char *name;
    uint32_t version;
    bool tls;
} http_way;
extern const http_way http_ways[5];
enum { HTTP_WAYS = 5 };

/* What the server's handler saw. Paths: /hello; /echo; /big?N (N bytes); /head (the request's head as text); /never (no
 * answer); /later (answered by http_answer_later()); /cut?N (N bytes of N + 1, then reset); /free (frees the server).
 */
typedef struct http_world {
    cb_metrics *metrics; /* what its loop counts in */
    cb_loop *loop;
    tls_pki pki;
    cb_identity *me, *roots;
    cb_http_server *server;
    cb_http_client *client;
    const cb_exchange_ops *ops; /* of its server */
    cb_exchange *later;
    int heads, closes, last_rc;
    char url[96]; /* without path */
    char log[4096];
    cb_log hook;
} http_world;

void http_world_open(http_world *w);                   /* loop and PKI */
void http_serve(http_world *w, cb_http_server_opts o); /* fills listen, identity (if `o.identity` is set: me), ops */
void http_client_make(http_world *w, cb_http_client_opts o);
void http_world_close(http_world *w);
void http_answer_later(http_world *w);
const char *http_url(const http_world *w, const char *path, char out[160]);

/* One request and what came of it. */
typedef struct http_reply {
    http_world *world;
    cb_exchange *x;
    int status, version, rc, heads, infos, ends, closes;
    size_t bytes;
    uint32_t sum; /* of the bytes, in order */
    char body[2048];
    char head[2048]; /* "name: value\n" of each field */
    char detail[512];
    const uint8_t *send;
    size_t send_len, sent;
    bool keep_running; /* do not stop the loop at the end */
} http_reply;

int http_begin(http_reply *r, http_world *w, cb_request req, const char *path);
void http_run(http_world *w, const int *until_not_zero); /* turns until *until_not_zero; fails after some seconds */
void http_fetch(http_reply *r, http_world *w, cb_request req, const char *path); /* begin and run to its on_close */
uint32_t http_sum(uint32_t sum, const uint8_t *data, size_t len);

#endif
