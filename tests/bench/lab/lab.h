/* The congestion laboratory: flows of real QUIC endpoints over one bottleneck, in virtual time. What cclab and ccdraft
 * share; only public headers of libcb. */
#ifndef CB_BENCH_LAB_H
#define CB_BENCH_LAB_H

#include <cb.h>
#include <stdbool.h>

enum { LAB_FLOWS = 16 };

typedef struct lab lab;

/* A server that sends to a client. Every flow has hosts of its own. */
typedef struct lab_flow {
    lab *lab;
    size_t number;
    int cc;
    double start_s;
    double prior_s;  /* an earlier connection of this length ends just before: its server knows the path; 0 = none */
    uint64_t bytes;  /* of its answer; 0 = without end */
    double app_mbit; /* the application's own rate; 0 = as fast as the path takes it. May be changed at any time */
    cb_sim_host *server_host, *client_host;
    cb_sim_link *back; /* the way of acknowledgements */
    cb_quic_endpoint *server, *client;
    cb_quic_conn *up, *down; /* the client's and the server's end; NULL when there is none */
    int64_t stream;
    uint64_t received; /* in order */
    double done_s;     /* when `bytes` had come, since its start */
    double owed;       /* app_mbit: bytes that the application has made and not written */
} lab_flow;

struct lab {
    cb_sim *sim;
    cb_sim_link *bottleneck;
    cb_ca *ca;
    cb_identity *identity, *roots;
    double rtt_ms;
    lab_flow flows[LAB_FLOWS];
    size_t n;
};

/* rtt_ms: half of it belongs on the bottleneck, half is on the way back. l is zeroed. CB_OK or what libcb said. */
int lab_open(lab *l, uint64_t seed, double rtt_ms, const cb_sim_link_opts *bottleneck);
/* Adds a flow; fields that matter are set: cc, start_s, bytes, app_mbit. */
int lab_add(lab *l, const lab_flow *wanted);
void lab_close(lab *l);

static inline double lab_now(const lab *l) {
    return (double)cb_sim_now(l->sim) / 1e9;
}
/* Calls fn at that second. */
static inline int lab_at(lab *l, double s, cb_sim_fn fn, void *user) {
    return cb_sim_at(l->sim, (cb_time)(s * 1e9), fn, user);
}
static inline int lab_run(lab *l, double s) {
    return cb_sim_run_until(l->sim, (cb_time)(s * 1e9));
}

/* The share of a full packet of that size on the wire that is stream data. */
double lab_payload_share(uint32_t wire_bytes);

#endif
