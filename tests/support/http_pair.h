/* Two HTTP connections that talk to each other in memory: side 0 is the client, side 1 the server. Bytes
 * (HTTP/2) or stream data (HTTP/3, over fake_quic.h) move in pieces of random sizes; time is what the test says. */
#ifndef TESTS_HTTP_PAIR_H
#define TESTS_HTTP_PAIR_H

#include "base/buf.h"
#include "http/hconn.h"

typedef struct pair pair;
struct fake_quic;

typedef struct pair_pipe {
    cb_sink sink;
    cb_buf bytes; /* written by this side, not yet fed to the other */
    size_t cap;   /* what the sink says it has room for */
    bool hold;    /* do not carry them over */
} pair_pipe;

struct pair {
    int version; /* CB_HTTP_2 or CB_HTTP_3 */
    cb_hconn *side[2];
    cb_hconn_env env[2];
    cb_http_limits limits[2];
    pair_pipe pipe[2];
    struct fake_quic *quic;
    const cb_exchange_ops *serve; /* given to every request */
    void *serve_user;
    cb_time now;
    uint32_t seed;
    int rc[2]; /* first failure of a side; it was closed with it */
    unsigned woken[2], done[2], fresh, capacity;
    char limit[2][64]; /* the last limit that was hit */
    unsigned fail_at;  /* this allocation from now on fails; 0: none */
    bool failed;
    size_t live, peak; /* memory of both sides together, in bytes */
    cb_alloc alloc;
    bool hold_ready; /* HTTP/3: the test says when QUIC is ready */
    bool gone[2];    /* closed by the test or by a failure */
};

void pair_init(pair *p, int version); /* defaults; change limits and env before pair_start() */
void pair_start(pair *p);
bool pair_step(pair *p);               /* flushes both and carries what there is once; false: nothing happened */
void pair_run(pair *p);                /* until nothing happens */
void pair_pass(pair *p, cb_time span); /* time goes by: expires what is due on both sides */
void pair_stop(pair *p);               /* closes both and checks that no memory is left */
uint32_t pair_random(pair *p, uint32_t below);

/* A client request with a given head; what came back is recorded. */
typedef struct call {
    cb_exchange *x;
    cb_buf body;
    int status, infos, heads, ends, closes, rc, info_status;
    char trailer[64], header[64], reason[160]; /* values of "x-trailer" and "x-echo" */
    cb_buf datagrams;                          /* payloads, each followed by ';' */
    cb_slice source;                           /* still to be sent as the body */
    size_t repeat;                             /* so many bytes of a pattern are sent after source */
    uint64_t received;
    uint64_t sum; /* of the bytes received, if count_only */
    bool count_only, no_finish, stalled, send_trailer, writable;
} call;

typedef struct call_head {
    const char *method, *path, *protocol, *scheme;
    const cb_field *fields;
    size_t n;
    bool end;
} call_head;

void call_start(pair *p, call *c, const call_head *h); /* h NULL: GET / */
int call_try(pair *p, call *c, const call_head *h);
void call_pump(call *c); /* writes of source and repeat what fits */
void call_free(call *c);

uint8_t pattern_at(uint64_t i);

#endif
