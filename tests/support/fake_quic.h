/* A pair of QUIC connections without packets, for tests of HTTP/3: streams with flow control, acknowledgements that
 * come late, resets, stops, closes and datagrams, in memory. It checks what the application promises QUIC: bytes stay
 * where they are until they are acknowledged, and credit is given back exactly once. */
#ifndef TESTS_FAKE_QUIC_H
#define TESTS_FAKE_QUIC_H

#include "support/http_pair.h"
#include "transport/quic_app.h"

enum { FQ_STREAMS = 1024, FQ_SPANS = 4096 };

typedef struct fq_span {
    const uint8_t *at; /* the application's memory */
    size_t len;
    uint64_t sum; /* of its bytes when they were sent */
} fq_span;

/* One direction of a stream. */
typedef struct fq_way {
    cb_buf sent; /* not yet delivered */
    fq_span *spans;
    size_t first_span, n_spans;
    uint64_t offset, delivered, acked, max; /* max: the receiver's credit */
    uint64_t reset_code, stop_code;
    bool fin, fin_delivered, reset, reset_delivered, stop, stop_delivered, shut, unread, blocked;
} fq_way;

typedef struct fq_stream {
    int64_t id;
    fq_way way[2]; /* by the sending side */
    bool seen[2], closed[2];
} fq_stream;

typedef struct fake_quic fake_quic;
typedef struct fq_side {
    fake_quic *q;
    int index;
    cb_quic_app *app;
    int64_t opened[2], limit[2]; /* by this side: uni, bidi */
    uint64_t conn_max, conn_sent, received, credited;
    cb_buf dgrams; /* to the other side: 2 bytes of length, then the datagram */
    uint64_t error;
    char reason[80];
    unsigned rests; /* it was told that nothing is expected soon */
    bool failed, early, no_datagrams;
} fq_side;

struct fake_quic {
    pair *p;
    fq_side side[2];
    fq_stream *streams;
    size_t n;
    bool hold_acks, started;
};

fake_quic *fake_quic_start(pair *p); /* makes both HTTP/3 connections */
void fake_quic_ready(fake_quic *q);  /* streams can be opened */
bool fake_quic_step(fake_quic *q);
void fake_quic_stop(fake_quic *q);
/* The client's early data was refused: what it sent is forgotten. Only before anything was carried. */
void fake_quic_reject_early(fake_quic *q);
/* Raw access of tests that attack the server: the client has no application. */
void fake_quic_only_server(fake_quic *q);
int64_t fake_quic_open(fake_quic *q, int side, bool bidi);
void fake_quic_send(fake_quic *q, int side, int64_t id, const void *data, size_t len, bool fin);
void fake_quic_reset(fake_quic *q, int side, int64_t id, uint64_t code);
void fake_quic_stop_stream(fake_quic *q, int side, int64_t id, uint64_t code);
fq_stream *fake_quic_stream(fake_quic *q, int64_t id);
extern const struct h3_below fake_quic_below;

#endif
