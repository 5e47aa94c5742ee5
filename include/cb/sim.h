/* cb/sim.h - a network in virtual time: hosts, links, NATs, and what runs on the hosts.
 *
 * A simulation holds hosts. Each host has an ordinary cb_loop whose clock is the simulation's: what uses UDP runs on it
 * unchanged (cb_quic_listen(), cb_quic_client(), cb_http_server_new() with versions = CB_HTTP_3, cb_http_client_new()
 * with versions = CB_HTTP_3), and so do timers and a protocol of your own on plain datagram sockets. Packets cross
 * links with a rate, a delay, a buffer and whatever else can happen to them. Waiting costs no time: an hour of an idle
 * connection takes microseconds, a gigabyte about as long as its encryption.
 *
 *     cb_sim_new(&sim, CB_OPTS(cb_sim_opts, .seed = 1));
 *     cb_sim_host_new(&client, sim, "client", "10.0.0.1");
 *     cb_sim_host_new(&server, sim, "server", "10.0.0.2");
 *     cb_sim_connect(client, server, CB_OPTS(cb_sim_link_opts, .rate_bps = 20000000, .delay_us = 20000), NULL, NULL,
 *                    NULL);
 *     cb_quic_listen(&endpoint, cb_sim_host_loop(server), ":443", &opts);
 *     ...
 *     cb_sim_run(sim);
 *
 * Repeatable. All that happens follows from the seed and the calls: on one build, two runs send the same packets at the
 * same nanosecond (cb_sim_digest() is the same, in another process too). Two conditions lie outside: the clock of this
 * machine and the randomness of TLS never reach a packet's time or size if certificates have Ed25519 keys, the issuer's
 * too (cb_ca_opts.key_type and cb_leaf_opts.key_type = CB_KEY_ED25519; ECDSA signatures vary in length); and other
 * threads must not post to the loops while it runs.
 *
 * Time begins at 0. Certificates and session tickets are judged by the real calendar; what else needs one (address
 * tokens, the Date field) sees the simulation's (wall_s).
 *
 * What a loop of a simulation does not have: TCP, watched descriptors, signals, DNS servers. Names of hosts resolve to
 * their addresses (not those of hosts behind a NAT); CB_ENOTSUP answers the rest. cb_loop_run() and cb_loop_free() are
 * not for these loops: the simulation runs and frees them; cb_loop_stop() ends a cb_sim_run() that is under way.
 *
 * One thread uses a simulation with everything in it; several simulations do not know of each other. What was made on
 * a host's loop is freed before cb_sim_free(). Text in options is copied. Functions that take objects of two
 * simulations refuse (CB_EINVAL). */
#ifndef CB_SIM_H
#define CB_SIM_H

#include <cb/loop.h>

CB_BEGIN

typedef struct cb_sim cb_sim;
typedef struct cb_sim_host cb_sim_host;
typedef struct cb_sim_link cb_sim_link;
typedef struct cb_sim_nat cb_sim_nat;
typedef struct cb_sim_socket cb_sim_socket;
typedef struct cb_sim_traffic cb_sim_traffic;

/* ---- the simulation ---- */

typedef struct cb_sim_opts {
    size_t size;
    const cb_alloc *alloc; /* copied; NULL = malloc */
    const cb_log *log;     /* borrowed for the life of the simulation, given to the loops; NULL = silent */
    uint64_t seed;         /* of all random numbers; each value is a world of its own, 0 too */
    uint64_t max_time_ms;  /* cb_sim_run() does not go beyond; 0 = 86,400,000 (a day) */
    uint64_t max_events;   /* that one cb_sim_run() or cb_sim_run_until() handles; 0 = no limit */
    int64_t wall_s;        /* the calendar at time 0, seconds since 1970; 0 = 1,767,225,600 (2026-01-01 00:00 UTC) */
    cb_metrics *metrics; /* referenced; given to the loops (cb_loop_opts), which share it; NULL = nothing is counted */
} cb_sim_opts;

/* opts may be NULL. CB_EINVAL (out; wall_s is negative), CB_ENOMEM, CB_E2BIG. */
CB_API int cb_sim_new(cb_sim **out, const cb_sim_opts *opts);
/* Frees everything: hosts with their loops, links, NATs, plain sockets. Not from inside a callback (it does nothing
 * then). NULL is fine. */
CB_API void cb_sim_free(cb_sim *sim);

/* Nanoseconds since the simulation began; the same as cb_loop_now() of its loops. */
CB_API cb_time cb_sim_now(const cb_sim *sim);

/* Runs until nothing is left to happen: no packet on its way, no timer, no script. Cross traffic does not count. CB_OK,
 * also after cb_sim_stop(); CB_ETIMEOUT: max_time_ms is reached; CB_ELIMIT: max_events, or a million things happen at
 * one instant and time does not move; CB_ENOMEM; CB_EINVAL: called from inside of a callback. */
CB_API int cb_sim_run(cb_sim *sim);
/* Runs until time t, and is at t then, unless it is stopped. A time that has passed does nothing. Results as above,
 * without CB_ETIMEOUT. */
CB_API int cb_sim_run_until(cb_sim *sim, cb_time t);
/* From a callback: the run under way returns after this instant's turn. */
CB_API void cb_sim_stop(cb_sim *sim);

typedef void (*cb_sim_fn)(cb_sim *sim, void *user);

/* Calls fn at time t (now, when t has passed): for scripts of changes. CB_EINVAL (sim, fn), CB_ENOMEM. */
CB_API int cb_sim_at(cb_sim *sim, cb_time t, cb_sim_fn fn, void *user);

/* The next number of a generator for the caller's own use; it depends on the seed only. */
CB_API uint64_t cb_sim_random(cb_sim *sim);

/* A running hash over time, size, link and fate of every packet: equal digests, equal runs. */
CB_API uint64_t cb_sim_digest(const cb_sim *sim);

/* ---- hosts ---- */

/* A host with its loop. name: at most 63 of a-z, 0-9, "-", "."; it resolves on all loops of this simulation. addresses:
 * a comma list of IPv4 and IPv6 literals without ports; the first of a family is what sockets send from. CB_EINVAL (the
 * detail says which), CB_EEXIST (a name or address is taken), CB_ENOMEM. */
CB_API int cb_sim_host_new(cb_sim_host **out, cb_sim *sim, const char *name, const char *addresses);
/* Its loop, valid as long as the simulation. */
CB_API cb_loop *cb_sim_host_loop(cb_sim_host *h);
/* As it was given. */
CB_API const char *cb_sim_host_name(const cb_sim_host *h);

/* One more address; it comes first for new packets of sockets that are bound to none (`first` 1) or last (0). CB_EINVAL
 * (the text), CB_EEXIST, CB_ENOMEM. */
CB_API int cb_sim_host_add_address(cb_sim_host *h, const char *address, int first);
/* The address is gone: nothing leaves from it, and what arrives for it is lost. It can be added again, by this host.
 * CB_ENOENT: the host has no such address. */
CB_API int cb_sim_host_remove_address(cb_sim_host *h, const char *address);

typedef struct cb_sim_host_stats {
    size_t size;                   /* set by the caller */
    uint64_t tx_packets, tx_bytes; /* sent by its sockets; bytes with UDP and IP headers */
    uint64_t rx_packets, rx_bytes; /* that reached a socket */
    uint64_t drop_no_route;        /* no address of the family, or no path to the destination: the sender is told */
    uint64_t drop_nobody;          /* sent to an address that no host ever had */
    uint64_t drop_address;         /* arrived for an address that has been removed */
    uint64_t drop_port;            /* arrived for a port without a socket: ICMP tells the sender (QUIC: CB_EUNREACH) */
    uint64_t drop_nat;             /* arrived at a NAT that knows no such flow */
} cb_sim_host_stats;

/* CB_EINVAL (out, size). */
CB_API int cb_sim_host_stats_get(const cb_sim_host *h, cb_sim_host_stats *out);

/* ---- links ---- */

/* One direction of a line. A packet meets in this order: up or down, MTU, policer, random loss, burst loss; then the
 * queue (ECN mark, drop when the buffer is full) and the rate; then, on the wire, corruption, duplication, delay,
 * jitter and reordering. Sizes are those on the wire: payload, 8 bytes of UDP, 20 (IPv4) or 40 (IPv6) of IP.
 * Probabilities are 0 to 1. */
typedef struct cb_sim_link_opts {
    size_t size;
    uint64_t rate_bps;      /* bits a second; 0 = infinite: nothing queues */
    uint64_t delay_us;      /* propagation */
    uint64_t buffer_bytes;  /* what may wait, beside the packet that is being sent; see buffer_bdp */
    double buffer_bdp;      /* the buffer as a multiple of rate x buffer_rtt_us; both 0 = one BDP, at least 64 KiB */
    uint64_t buffer_rtt_us; /* the round trip that buffer_bdp means; 0 = 2 x delay_us */
    double loss;            /* a packet is lost */
    double burst_enter;     /* Gilbert-Elliott: a packet turns the good state into the bad one ... */
    double burst_leave;     /* ... and back; required with burst_enter */
    double burst_loss;      /* loss in the bad state; 0 = 1 */
    double corrupt;         /* a packet has bits flipped and arrives all the same: UDP's checksum is not simulated */
    double duplicate;       /* a packet arrives twice */
    double reorder;         /* a packet comes later by reorder_us, so that others overtake it */
    uint64_t reorder_us;    /* required with reorder */
    uint64_t jitter_us;     /* of further delay, uniform from 0; it alone does not reorder */
    uint64_t mark_bytes;    /* CE on packets that carry ECT when so much waits before them; 0 = never */
    uint64_t police_bps;    /* token bucket: packets above this rate are dropped; 0 = none */
    uint64_t police_burst_bytes; /* the bucket; 0 = 50 ms of police_bps, at least 3,000 */
    uint32_t corrupt_bits;       /* to flip; 0 = 1 */
    uint32_t mtu_bytes;          /* larger packets (with headers) are dropped; 0 = 1,500 */
    uint8_t down;                /* 1 = drops everything: a black hole */
    uint8_t reserved[7];
    uint64_t batch_us; /* packets arrive only at multiples of this, those of an interval together: aggregation, as on
                        * radio links; 0 = each when it is due */
} cb_sim_link_opts;

/* opts may be NULL: a perfect line. CB_EINVAL names the option that is wrong; CB_ENOMEM, CB_E2BIG. */
CB_API int cb_sim_link_new(cb_sim_link **out, cb_sim *sim, const cb_sim_link_opts *opts);
/* Takes other options from now on, all of them. What waits stays, also above a smaller buffer; the packet that is being
 * sent goes on at the new rate; what is on the wire arrives as it was. On failure nothing changes. Errors as
 * cb_sim_link_new(). */
CB_API int cb_sim_link_set(cb_sim_link *l, const cb_sim_link_opts *opts);
/* The options as they are, defaults filled in. CB_EINVAL (out, size). */
CB_API int cb_sim_link_get(const cb_sim_link *l, cb_sim_link_opts *out);
/* Only `down`: 1 = drop everything, 0 = carry again. */
CB_API void cb_sim_link_down(cb_sim_link *l, int down);

/* The way of packets from one host to another: through these links, in this order; n 0 = at once. One direction: the
 * way back is another call. Hosts whose paths name the same link share it. Replaces the earlier path; packets on their
 * way keep theirs. from_address: only for packets from that address of `from`; NULL = from all others. CB_EINVAL
 * (hosts, links, from_address), CB_ENOMEM. */
CB_API int cb_sim_path(cb_sim_host *from, cb_sim_host *to, const char *from_address, cb_sim_link *const *links,
                       size_t n);
/* Two new links and the paths over them. back NULL = as there. The links go to *link_there and *link_back, which may be
 * NULL. Errors as cb_sim_link_new() and cb_sim_path(). */
CB_API int cb_sim_connect(cb_sim_host *a, cb_sim_host *b, const cb_sim_link_opts *there, const cb_sim_link_opts *back,
                          cb_sim_link **link_there, cb_sim_link **link_back);

typedef struct cb_sim_link_stats {
    size_t size;                     /* set by the caller */
    uint64_t in_packets, in_bytes;   /* came to the link */
    uint64_t out_packets, out_bytes; /* arrived at its end, copies too */
    uint64_t drop_down, drop_mtu, drop_policer, drop_loss, drop_burst, drop_queue;
    uint64_t marked, corrupted, duplicated, reordered;
    uint64_t queue_packets, queue_bytes, queue_bytes_max; /* now, and the most */
    uint64_t busy_ns;                                     /* the time in which it was sending */
    uint64_t since_ns;                                    /* when counting began */
    /* What packets waited before they were sent: mean, median, percentiles (to 1 %), the longest. */
    uint64_t wait_mean_ns, wait_p50_ns, wait_p95_ns, wait_p99_ns, wait_max_ns;
} cb_sim_link_stats;

/* CB_EINVAL (out, size). */
CB_API int cb_sim_link_stats_get(const cb_sim_link *l, cb_sim_link_stats *out);
/* Counts from zero: what came before (a warm-up) is forgotten. */
CB_API void cb_sim_link_stats_reset(cb_sim_link *l);

/* ---- taps ---- */

enum cb_sim_event {
    CB_SIM_ENTERED = 1,   /* came to the link and was not dropped at its entry */
    CB_SIM_DELIVERED = 2, /* arrived at its end */
    CB_SIM_DROPPED = 3
};

enum cb_sim_cause {
    CB_SIM_CAUSE_NONE = 0,
    CB_SIM_CAUSE_DOWN = 1,
    CB_SIM_CAUSE_MTU = 2,
    CB_SIM_CAUSE_POLICER = 3,
    CB_SIM_CAUSE_LOSS = 4,
    CB_SIM_CAUSE_BURST = 5,
    CB_SIM_CAUSE_QUEUE = 6
};

/* What happened to a packet. Valid during the call. */
typedef struct cb_sim_packet {
    size_t size;
    uint64_t id;            /* the same at every link; copies share it */
    cb_time at;             /* now */
    cb_time sent_at;        /* when its host sent it */
    cb_time entered_at;     /* when it came to this link */
    uint64_t wait_ns;       /* in this link's queue; 0 until it has left that */
    cb_sim_link *link;      /* here */
    cb_sim_host *from, *to; /* NULL for cross traffic */
    cb_slice data;          /* the payload of the datagram; empty for cross traffic */
    int32_t event, cause;   /* enum cb_sim_event, enum cb_sim_cause */
    uint32_t wire_bytes;
    uint16_t from_port, to_port; /* as on the wire */
    uint8_t ecn;                 /* 0 Not-ECT, 1 ECT(1), 2 ECT(0), 3 CE */
    uint8_t copy;                /* 1 = made by duplication */
    uint8_t icmp;                /* 1 = "port unreachable", with the beginning of what it is about in `data` */
    uint8_t reserved[5];
} cb_sim_packet;

typedef void (*cb_sim_tap_fn)(const cb_sim_packet *p, void *user);

/* Tells fn of each packet of this link; NULL ends it. One tap a link. fn must not change the simulation. */
CB_API void cb_sim_link_tap(cb_sim_link *l, cb_sim_tap_fn fn, void *user);

/* ---- NAT ---- */

typedef struct cb_sim_nat_opts {
    size_t size;
    const char *address; /* the public address; required. Flows of its family are translated */
    uint32_t idle_ms;    /* a flow is forgotten after so long without packets; 0 = 120,000 (RFC 4787, REQ-5) */
    uint32_t reserved;
} cb_sim_nat_opts;

/* Puts a NAT in front of a host, between it and all of its paths. Each flow (address and port of both ends) gets a port
 * of its own on the public address, and only its packets come back in, as the strictest NATs do (RFC 4787: address and
 * port-dependent mapping and filtering). CB_EINVAL (the detail says which option), CB_EEXIST (the address is taken, or
 * the host has a NAT), CB_ENOMEM. */
CB_API int cb_sim_nat_new(cb_sim_nat **out, cb_sim_host *host, const cb_sim_nat_opts *opts);
/* Forgets every flow: the next packet of each gets another port; and another public address, when one is given (NULL =
 * the same). Errors as cb_sim_nat_new(). */
CB_API int cb_sim_nat_rebind(cb_sim_nat *n, const char *address);
/* Flows that it knows now. */
CB_API size_t cb_sim_nat_flows(const cb_sim_nat *n);

/* ---- plain sockets ---- */

/* A datagram that came. Valid during the call. */
typedef struct cb_sim_datagram {
    size_t size;
    cb_slice data;
    const char *from; /* "10.0.0.1:7000" */
    const char *to;   /* where it came in */
    uint8_t ecn;      /* 0 Not-ECT, 1 ECT(1), 2 ECT(0), 3 CE */
    uint8_t reserved[7];
} cb_sim_datagram;

typedef void (*cb_sim_datagram_fn)(cb_sim_socket *s, const cb_sim_datagram *d, void *user);

/* A datagram socket on all addresses of a host, for a protocol of your own; port 0 = any. It can be freed at any time
 * and goes with the simulation at the latest. CB_EINVAL (out, host, fn), CB_EEXIST (the port is in use), CB_ENOMEM. */
CB_API int cb_sim_socket_new(cb_sim_socket **out, cb_sim_host *host, uint16_t port, cb_sim_datagram_fn fn, void *user);
/* Sends to "address:port" or "host:port". ecn: the two bits to send with, usually 0. CB_EINVAL (to: the detail says
 * what; more than 65,507 bytes; ecn), CB_EUNREACH (no address of the family, no path), CB_ENOENT (no host of this
 * name), CB_ENOMEM. What happens on the way is not told. */
CB_API int cb_sim_socket_send(cb_sim_socket *s, const char *to, cb_slice data, unsigned ecn);
/* The port it has. */
CB_API uint16_t cb_sim_socket_port(const cb_sim_socket *s);
CB_API void cb_sim_socket_free(cb_sim_socket *s); /* NULL is fine */

/* ---- cross traffic ---- */

typedef struct cb_sim_traffic_opts {
    size_t size;
    uint64_t rate_bps;     /* while it sends; required */
    uint32_t packet_bytes; /* on the wire; 0 = 1,250 */
    uint32_t on_ms;        /* it sends so long ... */
    uint32_t off_ms;       /* ... and is silent so long; both 0 = always on */
    uint8_t poisson;       /* 1 = random gaps between packets (exponential), 0 = equal ones */
    uint8_t ecn;           /* the two bits on its packets */
    uint8_t reserved[2];
} cb_sim_traffic_opts;

/* Packets of nobody that enter a link from now on and vanish at its end. CB_EINVAL (the detail says which option),
 * CB_ENOMEM, CB_E2BIG. */
CB_API int cb_sim_traffic_new(cb_sim_traffic **out, cb_sim_link *l, const cb_sim_traffic_opts *opts);
/* Ends it; what is under way arrives. NULL is fine. */
CB_API void cb_sim_traffic_free(cb_sim_traffic *t);

CB_END
#endif
