/* What paths showed: for the next connection to the same host. Bounded, of one loop. */
#ifndef CB_TRANSPORT_PATH_MEMORY_H
#define CB_TRANSPORT_PATH_MEMORY_H

#include "base/addr.h"
#include <cb/base.h>

enum { CB_PATHS = 256 };

typedef struct cb_path_note {
    uint64_t host; /* hash; 0 = free */
    cb_time at;
    uint8_t lossy;
    uint8_t reserved[7];
} cb_path_note;

typedef struct cb_path_memory {
    uint8_t key[16]; /* random: nobody chooses which hosts push each other out */
    cb_path_note note[CB_PATHS];
} cb_path_memory;

/* By host: IPv4 address, or the /64 of an IPv6 one. */
void cb_path_memory_put(cb_path_memory *m, const cb_addr *host, bool lossy, cb_time now);
/* False: not known, or too long ago. */
bool cb_path_memory_lossy(const cb_path_memory *m, const cb_addr *host, cb_time now);

#endif
