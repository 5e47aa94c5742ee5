#include "packet/peers.h"
#include "base/error.h"
#include "lb/mix.h"
#include <string.h>

int cb_peers_init(cb_peers *p, const cb_alloc *a, uint64_t seed) {
    *p = (cb_peers){.ways = cb_mem_new(a, sizeof *p->ways * PEERS_SETS * PEERS_WAYS), .seed = seed};
    return p->ways ? CB_OK : cb_fail(CB_ENOMEM, "no memory for the table of peers");
}

void cb_peers_clear(cb_peers *p, const cb_alloc *a) {
    cb_mem_free(a, p->ways);
    p->ways = NULL;
}

static cb_peer_way *set_of(const cb_peers *p, const cb_packet_addr *a) {
    uint64_t word[2];
    memcpy(word, a->ip, sizeof word);
    const uint64_t h = cb_lb_mix(cb_lb_mix(p->seed ^ word[0]) ^ word[1]);
    return p->ways + h % PEERS_SETS * PEERS_WAYS;
}

cb_peer_way *cb_peers_find(cb_peers *p, const cb_packet_addr *a, cb_time now, bool make) {
    cb_peer_way *set = set_of(p, a), *oldest = set;
    for (int i = 0; i < PEERS_WAYS; i++) {
        cb_peer_way *w = &set[i];
        if (w->family == a->family && memcmp(w->ip, a->ip, sizeof w->ip) == 0) {
            w->used = now;
            return w;
        }
        if (w->used < oldest->used) oldest = w;
    }
    if (!make) return NULL;
    *oldest = (cb_peer_way){.family = a->family, .used = now};
    memcpy(oldest->ip, a->ip, sizeof oldest->ip);
    return oldest;
}
