/* Who has which address, and had it once. */
#include "base/error.h"
#include "sim/sim_int.h"
#include <string.h>

static void key_of(uint8_t out[16], const cb_addr *a) {
    if (a->sa.sa_family == AF_INET6) {
        memcpy(out, &a->v6.sin6_addr, 16);
        return;
    }
    memset(out, 0, 10);
    out[10] = out[11] = 0xff;
    memcpy(out + 12, &a->v4.sin_addr, 4);
}

int sim_address_parse(cb_addr *out, const char *text) {
    char bracketed[CB_ADDR_TEXT + 2];
    size_t len = strlen(text);
    if (!len || len >= CB_ADDR_TEXT) return cb_fail(CB_EINVAL, "\"%.80s\" is no IPv4 or IPv6 address", text);
    const char *colon = strchr(text, ':');
    const bool v6 = colon && strchr(colon + 1, ':') && text[0] != '['; /* one colon: a port, which is told below */
    memcpy(bracketed + v6, text, len + 1);
    if (v6) {
        bracketed[0] = '[';
        memcpy(bracketed + 1 + len, "]", 2);
    }
    int rc = cb_addr_parse(out, bracketed, 0);
    if (rc < 0) return rc;
    cb_addr_unmap(out);
    if (cb_addr_port(out)) return cb_fail(CB_EINVAL, "\"%s\": an address without a port is wanted", text);
    const bool any = out->sa.sa_family == AF_INET ? out->v4.sin_addr.s_addr == INADDR_ANY
                                                  : IN6_IS_ADDR_UNSPECIFIED(&out->v6.sin6_addr);
    return any ? cb_fail(CB_EINVAL, "\"%s\" is no address of one host", text) : CB_OK;
}

cb_sim_host *sim_host_named(const cb_sim *sim, const char *name, size_t len) {
    return cb_map_get(&sim->names, name, len);
}

sim_address *sim_address_find(const cb_sim *sim, const cb_addr *addr) {
    uint8_t key[16];
    key_of(key, addr);
    return cb_map_get(&sim->addresses, key, sizeof key);
}

bool sim_address_alive(const cb_sim_host *h, const cb_addr *addr) {
    for (const cb_list *l = h->addresses.next; l != &h->addresses; l = l->next)
        if (cb_addr_same_host(&CB_CONTAINER(l, sim_address, link)->addr, addr)) return true;
    return false;
}

const cb_addr *sim_address_of(const cb_sim_host *h, int family) {
    for (const cb_list *l = h->addresses.next; l != &h->addresses; l = l->next) {
        const sim_address *a = CB_CONTAINER(l, sim_address, link);
        if (a->addr.sa.sa_family == family) return &a->addr;
    }
    return NULL;
}

int sim_address_add(cb_sim_host *h, const cb_addr *addr, bool first, bool nat) {
    cb_sim *sim = h->sim;
    char text[CB_ADDR_TEXT];
    uint8_t key[16];
    sim_address *a = sim_address_find(sim, addr);
    if (a && !(a->dead && a->host == h && a->nat == nat))
        return cb_fail(CB_EEXIST, "address %s belongs to host \"%s\"", cb_addr_host(addr, text), a->host->name);
    if (!a) {
        a = cb_mem_new(&sim->alloc, sizeof *a);
        key_of(key, addr);
        if (!a || cb_map_put(&sim->addresses, key, sizeof key, a) < 0) {
            cb_mem_free(&sim->alloc, a);
            return cb_fail(CB_ENOMEM, "no memory for an address");
        }
        a->addr = *addr;
        a->host = h;
        a->nat = nat;
        cb_list_init(&a->link);
    }
    a->dead = false;
    if (nat) return CB_OK;
    cb_list_add_tail(first ? h->addresses.next : &h->addresses, &a->link);
    return CB_OK;
}

void sim_address_forget(cb_sim *sim, sim_address *a) {
    uint8_t key[16];
    key_of(key, &a->addr);
    cb_list_del(&a->link);
    (void)cb_map_del(&sim->addresses, key, sizeof key);
    cb_mem_free(&sim->alloc, a);
}

int cb_sim_host_add_address(cb_sim_host *h, const char *address, int first) {
    cb_addr a;
    if (!h || !address) return cb_fail(CB_EINVAL, "cb_sim_host_add_address: %s is NULL", !h ? "h" : "address");
    int rc = sim_address_parse(&a, address);
    return rc < 0 ? rc : sim_address_add(h, &a, first != 0, false);
}

int cb_sim_host_remove_address(cb_sim_host *h, const char *address) {
    cb_addr addr;
    if (!h || !address) return cb_fail(CB_EINVAL, "cb_sim_host_remove_address: %s is NULL", !h ? "h" : "address");
    int rc = sim_address_parse(&addr, address);
    if (rc < 0) return rc;
    sim_address *a = sim_address_find(h->sim, &addr);
    if (!a || a->host != h || a->dead || a->nat)
        return cb_fail(CB_ENOENT, "host \"%s\" has no address %s", h->name, address);
    a->dead = true;
    cb_list_del(&a->link);
    return CB_OK;
}
