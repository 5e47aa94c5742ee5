#include "base/error.h"
#include "sim/sim_int.h"
#include <string.h>

sim_packet *sim_packet_new(cb_sim *sim, size_t len) {
    const bool large = len > SIM_PACKET_ROOM;
    sim_packet *p = large ? NULL : sim->spare;
    if (p)
        sim->spare = (sim_packet *)(void *)p->link.next;
    else
        p = cb_mem_get(&sim->alloc, sizeof *p + (large ? len : (size_t)SIM_PACKET_ROOM));
    if (!p) {
        sim->failed = cb_fail(CB_ENOMEM, "no memory for a simulated packet");
        return NULL;
    }
    memset(p, 0, sizeof *p);
    cb_list_init(&p->link);
    p->len = (uint32_t)len;
    p->large = large;
    return p;
}

sim_packet *sim_packet_copy(cb_sim *sim, const sim_packet *p) {
    sim_packet *copy = sim_packet_new(sim, p->len);
    if (!copy) return NULL;
    memcpy(copy, p, sizeof *p + p->len);
    cb_list_init(&copy->link);
    copy->copy = 1;
    if (copy->path) sim->flying++;
    return copy;
}

void sim_packet_free(cb_sim *sim, sim_packet *p) {
    if (p->path) sim->flying--;
    if (p->large) {
        cb_mem_free(&sim->alloc, p);
        return;
    }
    p->link.next = (cb_list *)(void *)sim->spare;
    sim->spare = p;
}

void sim_packets_drop(cb_sim *sim, cb_list *list) {
    while (!cb_list_empty(list)) {
        sim_packet *p = CB_CONTAINER(list->next, sim_packet, link);
        cb_list_del(&p->link);
        sim_packet_free(sim, p);
    }
}
