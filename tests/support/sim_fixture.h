/* For tests of the simulation: two hosts, a line between them, a plain socket on each, and a record of what came. */
#ifndef CB_TEST_SIM_FIXTURE_H
#define CB_TEST_SIM_FIXTURE_H

#include <cb/sim.h>
#include <stdbool.h>

enum { ST_KEPT = 40000, ST_PAYLOAD = 1000, ST_WIRE = ST_PAYLOAD + 28 };

#define ST_MS ((cb_time)1000000)
#define ST_S  ((cb_time)1000000000)

/* A packet of st_send() that arrived. */
typedef struct st_arrival {
    uint32_t number; /* in the order of sending, from 0 */
    cb_time sent, at;
    uint8_t ecn;
    uint8_t flipped; /* bits that are not as they were sent, behind the number */
} st_arrival;

typedef struct st_pair {
    cb_sim *sim;
    cb_sim_host *a, *b;
    cb_sim_link *ab, *ba;
    cb_sim_socket *from, *to;
    uint32_t sent;
    size_t count;
    char last_from[64];
    cb_time sent_at[ST_KEPT];
    st_arrival got[ST_KEPT];
} st_pair;

/* a = 10.0.0.1, b = 10.0.0.2 with port 7000. back NULL = a perfect line. */
st_pair *st_make(uint64_t seed, const cb_sim_link_opts *there, const cb_sim_link_opts *back);
void st_drop(st_pair *p);
void st_send(st_pair *p, size_t n, unsigned ecn);                     /* now */
void st_send_each(st_pair *p, size_t n, cb_time every, unsigned ecn); /* from now on, by scripts */
void st_run(st_pair *p);                                              /* until nothing is left */
void st_until(cb_sim *sim, cb_time t);
cb_sim_link_stats st_stats(const cb_sim_link *l);
cb_sim_host_stats st_host_stats(const cb_sim_host *h);

#endif
