/* For tests over QUIC: a server and a client on one loop, each with a record of what it was told. */
#ifndef CB_TEST_QUIC_FIXTURE_H
#define CB_TEST_QUIC_FIXTURE_H

#include "support/tls_fixture.h"
#include <cb/loop.h>
#include <cb/quic.h>
#include <cb/sim.h>

enum { QT_STREAMS = 512 };

typedef struct qt_world qt_world;

/* What one side does and what it was told. */
typedef struct qt_side {
    qt_world *w;
    bool echo;            /* streams and datagrams come back */
    bool close_streams;   /* answers FIN with FIN */
    size_t take;          /* of each delivery at most this; SIZE_MAX = all */
    bool hold;            /* take nothing until qt_release() */
    const char *free_in;  /* the callback in which to free the endpoint, or NULL */
    const char *close_in; /* ... to close the connection */
    const char *fail_in;  /* ... to return an error */
    cb_quic_endpoint *endpoint;
    cb_quic_conn *conn; /* the latest */
    int handshakes, opened, resets, stream_closes, fins, datagrams, path_changes, closes, available;
    int after_close; /* callbacks that came after on_close: must stay 0 */
    int close_rc;
    char detail[256];
    uint64_t reset_code, stream_close_code;
    uint64_t bytes;                    /* received on streams */
    uint64_t sum;                      /* of those of stream 0: order-sensitive */
    uint64_t stream_bytes[QT_STREAMS]; /* by stream ID / 4 */
    size_t datagram_len;
    int64_t last_stream;
    /* a source of bytes for one stream */
    uint64_t to_send, sent;
    int64_t send_stream;
} qt_side;

struct qt_world {
    cb_metrics *metrics; /* what all loops count in */
    tls_pki pki;
    cb_loop *loop;        /* the server's */
    cb_loop *client_loop; /* the same, but in a simulation */
    cb_sim *sim;          /* NULL: real time, over loopback */
    cb_sim_host *client_host, *server_host;
    cb_sim_link *there, *back; /* from the client to the server, and back */
    cb_identity *server_id, *client_id;
    qt_side server, client;
    char remote[64]; /* the server's address */
};

void qt_world_make(qt_world *w);
/* Both in virtual time: the client 10.0.0.1, the server 10.0.0.2, a line between them with these options; back NULL =
 * as there. qt_until() and the like then mean virtual time, and wait for 10 minutes of it. */
void qt_world_make_sim(qt_world *w, uint64_t seed, const cb_sim_link_opts *there, const cb_sim_link_opts *back);
void qt_world_drop(qt_world *w); /* asserts that nothing came after on_close */
cb_quic_opts qt_server_opts(qt_world *w);
cb_quic_opts qt_client_opts(qt_world *w);
void qt_listen(qt_world *w, const cb_quic_opts *o);
void qt_client_open(qt_world *w, const cb_quic_opts *o);
void qt_connect(qt_world *w); /* starts only */
/* With default options: both ends, connected. */
void qt_start(qt_world *w);
/* Turns the loop until *value >= target. False: not within half a minute. */
bool qt_until(qt_world *w, const int *value, int target);
bool qt_until_bytes(qt_world *w, const uint64_t *value, uint64_t target);
void qt_turn(qt_world *w, int ms); /* for so long */
/* Sends n bytes of the test pattern on a new stream, with FIN. */
void qt_send(qt_side *s, uint64_t n);
void qt_release(qt_side *s, int64_t stream);
uint64_t qt_sum_of(uint64_t n); /* what qt_side.sum must be after n bytes of the pattern */

#endif
