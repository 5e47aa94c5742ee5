/* A table without chains: a host has one place, and the latest note in it stays. */
#include "transport/path_memory.h"
#include "base/siphash.h"
#include <netinet/in.h>
#include <string.h>

static const cb_time FORGOTTEN_AFTER = 600 * 1000000000ull; /* paths change */

static uint64_t hash_of(const cb_path_memory *m, const cb_addr *host) {
    uint8_t id[9] = {4};
    if (host->sa.sa_family == AF_INET) {
        memcpy(id + 1, &host->v4.sin_addr, 4);
    } else if (IN6_IS_ADDR_V4MAPPED(&host->v6.sin6_addr)) {
        memcpy(id + 1, (const uint8_t *)&host->v6.sin6_addr + 12, 4);
    } else {
        id[0] = 6;
        memcpy(id + 1, &host->v6.sin6_addr, 8);
    }
    uint64_t h = cb_siphash(m->key, id, sizeof id);
    return h ? h : 1;
}

void cb_path_memory_put(cb_path_memory *m, const cb_addr *host, bool lossy, cb_time now) {
    uint64_t h = hash_of(m, host);
    m->note[h % CB_PATHS] = (cb_path_note){.host = h, .at = now, .lossy = lossy};
}

bool cb_path_memory_lossy(const cb_path_memory *m, const cb_addr *host, cb_time now) {
    uint64_t h = hash_of(m, host);
    const cb_path_note *n = &m->note[h % CB_PATHS];
    return n->host == h && n->lossy && now - n->at < FORGOTTEN_AFTER;
}
