/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* What bpf/cid_steer.bpf.c and libcb/lb/cid_steer.c share: the form of our connection IDs and the maps' layout. */
#ifndef CB_CID_STEER_H
#define CB_CID_STEER_H

enum {
    CB_STEER_GENERATIONS = 4, /* processes of a service that may live at once; generation g has the place g mod 4 */
    CB_STEER_WORKERS = 256,
    CB_STEER_SITES = 16, /* addresses that the workers listen at; each has its SO_REUSEPORT group and program */
    CB_STEER_SITE_SOCKETS = CB_STEER_GENERATIONS * CB_STEER_WORKERS,
    CB_STEER_SOCKETS = CB_STEER_SITES * CB_STEER_SITE_SOCKETS,
    CB_STEER_BLOCK = 17, /* QUIC-LB block; the two bytes behind it are worker and generation, masked */
    CB_STEER_CID = CB_STEER_BLOCK + 2
};

enum { CB_STEER_BY_CID, CB_STEER_BY_HASH, CB_STEER_GONE, CB_STEER_COUNTERS };

/* Of one site. */
struct cb_steer_state {
    unsigned long long key[2]; /* of the mask, little endian */
    unsigned int current;      /* the generation that gets new connections */
    unsigned int used;
    unsigned int generation[CB_STEER_GENERATIONS]; /* whose sockets a place holds */
    unsigned int workers[CB_STEER_GENERATIONS];    /* 0 = the place is empty */
    unsigned char address[32];                     /* the bound address; only user space looks at it */
};

#endif
