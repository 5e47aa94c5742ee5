/* The ways between hosts, written by hand: a list of links each. */
#include "base/error.h"
#include "sim/sim_int.h"
#include <string.h>

static const sim_path direct = {.any = true}; /* a host to itself */

const sim_path *sim_path_find(const cb_sim_host *from, const cb_addr *source, const cb_sim_host *to) {
    const sim_path *any = from == to ? &direct : NULL;
    const sim_path *p = to->number < from->paths_cap ? from->paths[to->number] : NULL;
    for (; p; p = p->other) {
        if (p->any)
            any = p;
        else if (cb_addr_same_host(&p->from, source))
            return p;
    }
    return any;
}

void sim_packet_go(cb_sim *sim, sim_packet *p) {
    if (!p->path)
        sim_packet_free(sim, p);
    else if (p->hop < p->path->n)
        sim_link_enter(p->path->links[p->hop++], p);
    else
        sim->arrived(sim, p);
}

static int make_room(cb_sim_host *h, uint32_t number) {
    if (number < h->paths_cap) return CB_OK;
    uint32_t cap = h->paths_cap ? h->paths_cap : 8;
    while (cap <= number)
        cap *= 2;
    sim_path **paths = cb_mem_grow(&h->sim->alloc, h->paths, cap * sizeof *paths);
    if (!paths) return cb_fail(CB_ENOMEM, "no memory for a path");
    memset(paths + h->paths_cap, 0, (cap - h->paths_cap) * sizeof *paths);
    h->paths = paths;
    h->paths_cap = cap;
    return CB_OK;
}

static int check(const cb_sim_host *from, const cb_sim_host *to, cb_sim_link *const *links, size_t n) {
    if (!from || !to) return cb_fail(CB_EINVAL, "cb_sim_path: %s is NULL", !from ? "from" : "to");
    if (from->sim != to->sim) return cb_fail(CB_EINVAL, "cb_sim_path: hosts of two simulations");
    if (from == to) return cb_fail(CB_EINVAL, "cb_sim_path: a host reaches itself without a path");
    if (n > 64 || (n && !links)) return cb_fail(CB_EINVAL, "cb_sim_path: 0 to 64 links");
    for (size_t i = 0; i < n; i++)
        if (!links[i] || links[i]->sim != from->sim)
            return cb_fail(CB_EINVAL, "cb_sim_path: links[%zu] %s", i,
                           links[i] ? "is of another simulation" : "is NULL");
    return CB_OK;
}

/* Everything that can fail. */
static int prepare(sim_path **out, cb_sim_host *from, const cb_sim_host *to, cb_sim_link *const *links, size_t n) {
    int rc = make_room(from, to->number);
    if (rc < 0) return rc;
    sim_path *p = cb_mem_new(&from->sim->alloc, sizeof *p + n * sizeof p->links[0]);
    if (!p) return cb_fail(CB_ENOMEM, "no memory for a path");
    p->any = true;
    p->n = (uint32_t)n;
    for (size_t i = 0; i < n; i++)
        p->links[i] = links[i];
    *out = p;
    return CB_OK;
}

/* The one that it replaces stays for the packets that are on it. */
static void enter(cb_sim_host *from, const cb_sim_host *to, sim_path *p) {
    sim_path **at = &from->paths[to->number];
    while (*at && !((*at)->any == p->any && (p->any || cb_addr_same_host(&(*at)->from, &p->from))))
        at = &(*at)->other;
    sim_path *old = *at;
    p->other = old ? old->other : NULL;
    *at = p;
    if (!old) return;
    old->other = from->old_paths;
    from->old_paths = old;
}

int cb_sim_path(cb_sim_host *from, cb_sim_host *to, const char *from_address, cb_sim_link *const *links, size_t n) {
    cb_addr source = {0};
    sim_path *p = NULL;
    int rc = check(from, to, links, n);
    if (rc >= 0 && from_address) rc = sim_address_parse(&source, from_address);
    if (rc >= 0) rc = prepare(&p, from, to, links, n);
    if (rc < 0) return rc;
    p->any = !from_address;
    p->from = source;
    enter(from, to, p);
    return CB_OK;
}

int cb_sim_connect(cb_sim_host *a, cb_sim_host *b, const cb_sim_link_opts *there, const cb_sim_link_opts *back,
                   cb_sim_link **link_there, cb_sim_link **link_back) {
    cb_sim_link *one = NULL, *two = NULL;
    sim_path *to_b = NULL, *to_a = NULL;
    int rc = check(a, b, NULL, 0);
    if (rc >= 0) rc = cb_sim_link_new(&one, a->sim, there);
    if (rc >= 0) rc = cb_sim_link_new(&two, a->sim, back ? back : there);
    if (rc >= 0) rc = prepare(&to_b, a, b, &one, 1);
    if (rc >= 0) rc = prepare(&to_a, b, a, &two, 1);
    if (rc < 0) {
        if (to_b) cb_mem_free(&a->sim->alloc, to_b);
        if (two) sim_link_destroy(two);
        if (one) sim_link_destroy(one);
        return rc;
    }
    enter(a, b, to_b);
    enter(b, a, to_a);
    if (link_there) *link_there = one;
    if (link_back) *link_back = two;
    return CB_OK;
}

static void free_all(const cb_alloc *alloc, sim_path *p) {
    while (p) {
        sim_path *other = p->other;
        cb_mem_free(alloc, p);
        p = other;
    }
}

void sim_paths_free(cb_sim_host *h) {
    const cb_alloc *alloc = &h->sim->alloc;
    for (uint32_t i = 0; i < h->paths_cap; i++)
        free_all(alloc, h->paths[i]);
    free_all(alloc, h->old_paths);
    cb_mem_free(alloc, h->paths);
}
