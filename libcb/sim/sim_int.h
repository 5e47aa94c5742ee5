/* What the files of a simulation share. world.c runs it, calendar.c has the time, packet.c the packets, link.c the
 * lines, path.c the ways, nat.c translation, traffic.c cross traffic; host.c has hosts with their loops, port.c what
 * sockets of both kinds have in common, socket.c the plain ones, udp.c those below QUIC. */
#ifndef CB_SIM_SIM_INT_H
#define CB_SIM_SIM_INT_H

#include "base/addr.h"
#include "base/list.h"
#include "base/log.h"
#include "base/map.h"
#include "base/mem.h"
#include "sim/event.h"
#include "sim/rng.h"
#include "sim/waits.h"
#include <cb/sim.h>
#include <stdatomic.h>
#include <stdbool.h>

#define SIM_NS_US ((cb_time)1000)
#define SIM_NS_MS ((cb_time)1000000)
#define SIM_NS_S  ((cb_time)1000000000)

enum { SIM_PACKET_ROOM = 1600, SIM_PAYLOAD_MAX = 65507 };

typedef struct sim_path {
    struct sim_path *other; /* between the same hosts: for another source */
    bool any;               /* for all sources that have no path of their own */
    cb_addr from;
    uint32_t n;
    cb_sim_link *links[];
} sim_path;

typedef struct sim_packet {
    cb_list link;
    uint64_t id;
    cb_time sent_at, entered_at, due, wait_ns;
    const sim_path *path; /* NULL: cross traffic */
    cb_sim_host *origin, *target;
    cb_addr from, to; /* as on the wire now */
    uint32_t hop, wire, len;
    uint8_t ecn, copy;
    bool large, late, icmp; /* icmp: "port unreachable" */
    uint8_t data[];         /* SIM_PACKET_ROOM bytes, or len when large */
} sim_packet;

/* An address that some host has, or had. */
typedef struct sim_address {
    cb_list link; /* in its host, in order of preference; alone when dead */
    cb_addr addr; /* port 0 */
    cb_sim_host *host;
    bool dead, nat;
} sim_address;

typedef struct sim_socket_port sim_port;

/* What waits in the calendar for cb_sim_at(). */
typedef struct sim_script {
    cb_list link;
    sim_event event;
    cb_sim *sim;
    cb_sim_fn fn;
    void *user;
} sim_script;

struct cb_sim {
    cb_alloc alloc;
    const cb_log *log;
    cb_sim_opts o;
    cb_time now;
    sim_events events;
    sim_rng rng;
    uint8_t hash_key[16];
    cb_list hosts, links, traffic, scripts, sockets;
    cb_list ready;            /* hosts that have something to do at this instant */
    cb_map addresses, names;  /* sim_address by 16 bytes; hosts by name */
    sim_packet *spare;        /* through link.next */
    uint64_t digest, next_id; /* of packets */
    uint32_t host_count, link_count, traffic_count;
    uint64_t flying, timers, pending; /* what keeps cb_sim_run() going: packets, hosts with a deadline, scripts */
    bool running, stop;
    int failed;        /* CB_ENOMEM: some event could not be set */
    atomic_bool woken; /* by another thread, or by cb_loop_stop() */
    /* The end of a packet's path; world.c sets it: links are below hosts. */
    void (*arrived)(cb_sim *sim, sim_packet *p);
};

struct cb_sim_link {
    cb_list link;
    cb_sim *sim;
    cb_sim_link_opts o; /* defaults filled in */
    uint32_t number;
    uint64_t buffer;
    sim_rng rng;
    bool bad; /* the state of the burst model */
    cb_list queue, flight;
    sim_packet *serving;
    cb_time served_at; /* when it has been sent */
    cb_time serving_since;
    uint64_t carry;    /* of the division by the rate */
    cb_time last_due;  /* of the packets that are not late */
    double tokens;     /* of the policer, in bytes */
    cb_time tokens_at; /* as of then */
    sim_event served, arrival;
    cb_sim_tap_fn tap;
    void *tap_user;
    cb_sim_link_stats stats;
    sim_waits waits;
};

struct cb_sim_host {
    cb_list link, ready; /* in the simulation */
    cb_sim *sim;
    cb_loop *loop;
    uint32_t number;
    sim_rng rng;
    sim_event wake;
    cb_time wake_at; /* UINT64_MAX: not set */
    bool timed;      /* counts in sim->timers */
    cb_list addresses, inbox;
    cb_map ports; /* sim_port by its number */
    sim_port *last_port;
    uint16_t next_port;
    sim_path **paths; /* by the number of the other host */
    sim_path *old_paths;
    uint32_t paths_cap;
    cb_sim_nat *nat;
    cb_sim_host_stats stats;
    char name[64];
};

/* calendar.c */
int sim_set(cb_sim *sim, sim_event *e, cb_time at); /* a failure ends the run */
void sim_digest(cb_sim *sim, const cb_sim_link *l, const sim_packet *p, int event);

void sim_scripts_free(cb_sim *sim);

/* packet.c */
sim_packet *sim_packet_new(cb_sim *sim, size_t len);
sim_packet *sim_packet_copy(cb_sim *sim, const sim_packet *p);
void sim_packet_free(cb_sim *sim, sim_packet *p);
void sim_packets_drop(cb_sim *sim, cb_list *list);

/* link_opts.c */
int sim_link_opts_read(cb_sim_link_opts *out, const cb_sim_link_opts *opts);
uint64_t sim_link_buffer(const cb_sim_link_opts *o);
/* link.c */
void sim_link_enter(cb_sim_link *l, sim_packet *p);
void sim_link_destroy(cb_sim_link *l);

/* path.c */
void sim_packet_go(cb_sim *sim, sim_packet *p); /* to its next link, or to its end */
const sim_path *sim_path_find(const cb_sim_host *from, const cb_addr *source, const cb_sim_host *to);
void sim_paths_free(cb_sim_host *h);

/* address.c */
cb_sim_host *sim_host_named(const cb_sim *sim, const char *name, size_t len);
int sim_address_add(cb_sim_host *h, const cb_addr *addr, bool first, bool nat);
sim_address *sim_address_find(const cb_sim *sim, const cb_addr *addr);
bool sim_address_alive(const cb_sim_host *h, const cb_addr *addr);
const cb_addr *sim_address_of(const cb_sim_host *h, int family); /* NULL: none of this family */
int sim_address_parse(cb_addr *out, const char *text);
void sim_address_forget(cb_sim *sim, sim_address *a); /* as if it had never been */

/* nat.c. False: nobody knows this flow. */
bool sim_nat_in(cb_sim_nat *n, sim_packet *p);
int sim_nat_out(cb_sim_nat *n, sim_packet *p);
void sim_nat_destroy(cb_sim_nat *n);

/* traffic.c */
void sim_traffic_free_all(cb_sim *sim);

/* socket.c */
void sim_sockets_free(cb_sim *sim);

/* host.c */
void sim_host_ready(cb_sim_host *h);
void sim_host_turn(cb_sim_host *h);
void sim_host_take(cb_sim_host *h, sim_packet *p); /* a packet at its end */
void sim_host_destroy(cb_sim_host *h);

#endif
