/* This host as one of a PoP: its node, which shares the table, and its datapath, which forwards by it. */
#ifndef CB_EDGE_FORWARDING_H
#define CB_EDGE_FORWARDING_H

#include "telemetry.h"

typedef struct edge_path edge_path;
typedef struct edge_watch edge_watch;

typedef struct edge_pop_keys {
    uint8_t secret[CB_LB_SECRET_BYTES], chain[CB_LB_KEY_BYTES], hash[CB_LB_KEY_BYTES];
} edge_pop_keys;

struct edge_forwarding {
    edge *e;
    cb_lb_node *node;  /* NULL: it could not be opened, or has been left */
    edge_path *path;   /* NULL: nothing forwards */
    edge_watch *watch; /* NULL: members are not checked here */
    cb_identity *identity, *next_identity;
    cb_identity *roots, *next_roots; /* of https members, for their checks; NULL = the system's */
    edge_pop_keys keys;
    bool has_keys, left, tried;
    uint32_t ticks, open_at;
    char said[EDGE_SAID];      /* why there is no node */
    char path_was[EDGE_SAID];  /* the same, before the latest try */
    char path_said[EDGE_SAID]; /* why there is no datapath, or what is wrong with it; "" = nothing */
};

/* --- forwarding_path.c: the datapath, where libcb-xdp is built in and allowed --- */
/* Loads it, or takes over what is pinned. What hinders it is in f->path_said; the proxy goes on. */
void edge_path_open(edge_forwarding *f, const edge_forwarding_conf *c);
/* VIPs, members, interfaces, connection IDs and keys as the configuration says; what it does not name goes. */
void edge_path_update(edge_forwarding *f, const edge_conf *c);
int edge_path_sync(edge_forwarding *f, const cb_lb_table *table);
void edge_path_tick(edge_forwarding *f); /* once a second */
void edge_path_put(const edge_forwarding *f, cb_json_out *o);
void edge_path_close(edge_forwarding *f); /* what is pinned goes on */
extern const bool edge_path_built_in;

/* --- forwarding_health.c: checks and loads of members, on the writer --- */
void edge_watch_begin(edge_forwarding *f, const edge_forwarding_conf *c); /* anew */
void edge_watch_tick(edge_forwarding *f);                                 /* once a second */
void edge_watch_end(edge_forwarding *f);

/* --- forwarding_addresses.c: VIPs on lo --- */
/* Says which are not there, or adds them. */
void edge_addresses_look(const edge *e, const edge_forwarding_conf *c);

#endif
