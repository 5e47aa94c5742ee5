/* Members of a cb_forward: where they are, and what the datapath has of them in their slots. Part of libcb-xdp. */
#include "base/error.h"
#include "base/log.h"
#include "base/opts.h"
#include "lb/forward_int.h"
#include <bpf/bpf.h>
#include <stdio.h>
#include <string.h>

enum { MTU_MIN = 576, MTU_MAX = 65535 };

int fw_member_family(const fw_member_entry *m) {
    return fw_is4(m->address) ? 4 : 6;
}

bool fw_member_find(const cb_forward *f, uint32_t id, size_t *at) {
    size_t low = 0, high = f->members.n;
    while (low < high) {
        const size_t middle = (low + high) / 2;
        if (fw_member_at(f, middle)->id < id)
            low = middle + 1;
        else
            high = middle;
    }
    *at = low;
    return low < f->members.n && fw_member_at(f, low)->id == id;
}

/* ---- what the datapath has ---- */

static struct cb_fw_member record_of(const cb_forward *f, const fw_member_entry *m) {
    const int family = fw_member_family(m);
    struct cb_fw_member r = {.id = m->id,
                             .ifindex = m->id == f->id ? 0 : m->ifindex,
                             .flags = CB_FW_HERE | (m->live ? CB_FW_LIVE : 0),
                             .family = (uint8_t)family,
                             .encapsulation = m->encapsulation,
                             .mtu = m->way_mtu};
    memcpy(r.next_hop, m->next_hop, sizeof r.next_hop);
    memcpy(r.source, m->source, sizeof r.source);
    memcpy(r.address, m->address + (family == 4 ? 12 : 0), family == 4 ? 4 : 16);
    return r;
}

static void clear_traffic(const cb_forward *f, uint32_t slot) {
    memset(f->percpu, 0, f->processors * sizeof *f->percpu);
    (void)fw_map_put(f, FW_MEMBER_COUNTERS, &slot, f->percpu);
}

/* Encapsulated packets without a tag are taken from there. */
static int allow(const cb_forward *f, const uint8_t address[16], uint32_t slot) {
    return fw_map_put(f, FW_UNDERLAY, address, &slot);
}

int fw_member_unplace(cb_forward *f, fw_member_entry *m) {
    const struct cb_fw_member nobody = {.flags = 0};
    if (m->placed == CB_FW_NOBODY) return CB_OK;
    int rc = CB_OK;
    if (f->slot_ids[m->placed] == m->id) {
        rc = fw_map_put(f, FW_MEMBERS, &m->placed, &nobody);
        if (rc == CB_OK) f->slot_ids[m->placed] = 0;
    }
    if (rc == CB_OK && m->slot == CB_FW_NOBODY) { /* else they name its new slot by now */
        rc = fw_map_del(f, FW_IDS, &m->id);
        if (rc == CB_OK) rc = allow(f, m->address, CB_FW_ELSEWHERE);
    }
    if (rc == CB_OK) m->placed = CB_FW_NOBODY;
    memset(&m->written, 0, sizeof m->written);
    return rc;
}

/* Into the slot that the table says: the record first, then the ways to find it. */
static int place(cb_forward *f, fw_member_entry *m, const struct cb_fw_member *r) {
    if (f->slot_ids[m->slot] != m->id) clear_traffic(f, m->slot);
    int rc = fw_map_put(f, FW_MEMBERS, &m->slot, r);
    if (rc == CB_OK) rc = fw_map_put(f, FW_IDS, &m->id, &m->slot);
    if (rc == CB_OK) rc = allow(f, m->address, m->slot);
    if (rc < 0) return rc;
    f->slot_ids[m->slot] = m->id;
    if (m->placed != m->slot) rc = fw_member_unplace(f, m);
    m->placed = m->slot;
    m->written = *r;
    return rc;
}

int fw_member_write(cb_forward *f, fw_member_entry *m) {
    if (m->slot == CB_FW_NOBODY) return 0;
    const struct cb_fw_member r = record_of(f, m);
    if (m->placed == m->slot && memcmp(&r, &m->written, sizeof r) == 0) return 0;
    int rc = place(f, m, &r);
    return rc < 0 ? rc : 1;
}

/* ---- adding and removing ---- */

static bool has_address(const cb_forward *f, int family) {
    static const uint8_t none[16] = {0};
    const struct cb_fw_control *c = f->control;
    return family == 4 ? memcmp(c->address4, none, sizeof c->address4) != 0
                       : memcmp(c->address6, none, sizeof c->address6) != 0;
}

static int check(const cb_forward *f, const cb_forward_member_opts *o, uint8_t address[16]) {
    if (!o->id) return cb_fail(CB_EINVAL, "cb_forward_member_opts: id is 0");
    int family = fw_address_parse(address, o->address, "cb_forward_member_opts: address");
    if (family < 0) return family;
    if (o->encapsulation < CB_FORWARD_GUE || o->encapsulation > CB_FORWARD_MAC)
        return cb_fail(CB_EINVAL,
                       "cb_forward_member_opts: encapsulation %d is not one of enum cb_forward_encapsulation",
                       (int)o->encapsulation);
    if (o->mtu && (o->mtu < MTU_MIN || o->mtu > MTU_MAX))
        return cb_fail(CB_EINVAL, "cb_forward_member_opts: mtu is %u; %d to %d are possible", (unsigned)o->mtu, MTU_MIN,
                       MTU_MAX);
    if (o->id == f->id) return CB_OK; /* nothing is sent there */
    if (o->encapsulation == CB_FORWARD_GUE && !fw_has_tag_key(f))
        return cb_fail(CB_EINVAL, "cb_forward_member_opts: encapsulation is GUE, and there is no tag_key yet");
    if (o->encapsulation != CB_FORWARD_MAC && !has_address(f, family))
        return cb_fail(CB_EINVAL,
                       "cb_forward_member_opts: address \"%s\": this host has no address of that family "
                       "(address%d)",
                       o->address, family);
    return CB_OK;
}

static int check_others(const cb_forward *f, uint32_t id, const uint8_t address[16]) {
    for (size_t i = 0; i < f->members.n; i++) {
        const fw_member_entry *m = fw_member_at(f, i);
        if (m->id != id && memcmp(m->address, address, sizeof m->address) == 0)
            return cb_fail(CB_EEXIST, "cb_forward_member: member %u has the address of member %u", (unsigned)id,
                           (unsigned)m->id);
    }
    return CB_OK;
}

static fw_member_entry *add(cb_forward *f, uint32_t id, size_t at) {
    if (f->members.n >= CB_FW_MEMBERS) {
        cb_fail(CB_ELIMIT, "cb_forward_member: at most %d members are possible", CB_FW_MEMBERS);
        return NULL;
    }
    fw_member_entry *m = fw_list_insert(f, &f->members, at);
    if (!m) return NULL;
    m->id = id;
    m->slot = m->placed = CB_FW_NOBODY;
    snprintf(m->why, sizeof m->why, "not looked for yet");
    return m;
}

/* Another address: where it was is forgotten, and found anew by the next cb_forward_resolve(). */
static int change(cb_forward *f, fw_member_entry *m, const cb_forward_member_opts *o, const uint8_t address[16]) {
    const bool moved = memcmp(m->address, address, sizeof m->address) != 0;
    if (moved) {
        int rc = allow(f, address, m->placed == CB_FW_NOBODY ? CB_FW_ELSEWHERE : m->placed);
        if (rc == CB_OK) rc = fw_map_del(f, FW_UNDERLAY, m->address); /* where it was */
        if (rc < 0) return rc;
    }
    memcpy(m->address, address, sizeof m->address);
    m->encapsulation = (uint8_t)o->encapsulation;
    m->mtu = o->mtu;
    m->told = true;
    if (moved) {
        m->ifindex = 0;
        snprintf(m->why, sizeof m->why, "not looked for yet");
    }
    if (m->mtu && m->way_mtu > m->mtu) m->way_mtu = m->mtu;
    int rc = fw_member_write(f, m);
    return rc < 0 ? rc : CB_OK;
}

int cb_forward_member(cb_forward *f, const cb_forward_member_opts *member) {
    cb_forward_member_opts o;
    uint8_t address[16];
    size_t at;
    int rc = cb_opts_read(&o, sizeof o, member, "cb_forward_member_opts");
    if (rc < 0) return rc;
    FW_LOCK(f);
    rc = check(f, &o, address);
    if (rc == CB_OK) rc = check_others(f, o.id, address);
    if (rc == CB_OK) {
        const bool there = fw_member_find(f, o.id, &at);
        fw_member_entry *m = there ? fw_member_at(f, at) : add(f, o.id, at);
        if (!m)
            rc = f->members.n >= CB_FW_MEMBERS ? CB_ELIMIT : CB_ENOMEM;
        else
            rc = change(f, m, &o, address);
        f->members_changed = f->members_changed || !there;
    }
    FW_UNLOCK(f);
    return rc;
}

int fw_member_remove_at(cb_forward *f, size_t i) {
    fw_member_entry *m = fw_member_at(f, i);
    m->slot = CB_FW_NOBODY;
    int rc = fw_member_unplace(f, m);
    if (rc == CB_OK) rc = fw_map_del(f, FW_UNDERLAY, m->address);
    if (rc < 0) return rc;
    fw_list_remove(&f->members, i);
    f->members_changed = true;
    return CB_OK;
}

int cb_forward_member_remove(cb_forward *f, uint32_t id) {
    size_t at;
    FW_LOCK(f);
    int rc = fw_member_find(f, id, &at) ? fw_member_remove_at(f, at)
                                        : cb_fail(CB_ENOENT, "cb_forward_member_remove: there is no member %u", id);
    FW_UNLOCK(f);
    return rc;
}

/* ---- taking over ---- */

int fw_underlay_prune(cb_forward *f) {
    uint8_t key[16], next[16];
    const int fd = fw_map_fd(f, FW_UNDERLAY);
    int rc = CB_OK, more = bpf_map_get_next_key(fd, NULL, next);
    while (more == 0 && rc == CB_OK) {
        bool known = false;
        memcpy(key, next, sizeof key);
        more = bpf_map_get_next_key(fd, key, next); /* before this one may go */
        for (size_t i = 0; i < f->members.n && !known; i++)
            known = memcmp(fw_member_at(f, i)->address, key, sizeof key) == 0;
        if (!known) rc = fw_map_del(f, FW_UNDERLAY, key);
    }
    return rc;
}

static int adopt_one(cb_forward *f, uint32_t slot, const struct cb_fw_member *r) {
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    size_t at;
    if (fw_member_find(f, r->id, &at)) return cb_fail(CB_EEXIST, "pin_dir: member %u is there twice", (unsigned)r->id);
    fw_member_entry *m = add(f, r->id, at);
    if (!m) return CB_ENOMEM;
    if (r->family == 4) {
        memcpy(m->address, mapped, sizeof mapped);
        memcpy(m->address + sizeof mapped, r->address, 4);
    } else {
        memcpy(m->address, r->address, sizeof m->address);
    }
    m->encapsulation = r->encapsulation;
    m->live = r->flags & CB_FW_LIVE;
    m->slot = m->placed = slot;
    m->written = *r;
    m->ifindex = r->ifindex;
    m->way_mtu = r->mtu;
    memcpy(m->next_hop, r->next_hop, sizeof m->next_hop);
    memcpy(m->source, r->source, sizeof m->source);
    if (m->ifindex) m->why[0] = '\0';
    f->slot_ids[slot] = r->id;
    return CB_OK;
}

int fw_members_adopt(cb_forward *f) {
    struct cb_fw_member r;
    int rc = CB_OK;
    for (uint32_t slot = 0; slot < CB_FW_MEMBERS && rc == CB_OK; slot++) {
        if (bpf_map_lookup_elem(fw_map_fd(f, FW_MEMBERS), &slot, &r) < 0 || !(r.flags & CB_FW_HERE)) continue;
        rc = adopt_one(f, slot, &r);
    }
    return rc;
}
