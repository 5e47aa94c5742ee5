/* VIPs of a cb_forward. Part of libcb-xdp. */
#include "base/error.h"
#include "base/opts.h"
#include "base/prefix.h"
#include "lb/forward_int.h"
#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <errno.h>
#include <string.h>

/* ---- reading what was asked for ---- */

static int parse(fw_vip_entry *out, const cb_forward_vip_opts *vip) {
    cb_forward_vip_opts o;
    cb_prefix p;
    int rc = cb_opts_read(&o, sizeof o, vip, "cb_forward_vip_opts");
    if (rc < 0) return rc;
    if (!o.address || cb_prefix_parse(&p, o.address) < 0)
        return cb_fail(CB_EINVAL, "cb_forward_vip_opts: address \"%s\" is no IP address or prefix",
                       o.address ? o.address : "");
    if (o.protocol != CB_FORWARD_ANY && o.protocol != CB_FORWARD_TCP && o.protocol != CB_FORWARD_UDP)
        return cb_fail(CB_EINVAL, "cb_forward_vip_opts: protocol %d is not one of enum cb_forward_protocol",
                       (int)o.protocol);
    if (p.bits < 128 && o.port)
        return cb_fail(CB_EINVAL, "cb_forward_vip_opts: port %u: \"%s\" is a prefix, and those are for all ports",
                       (unsigned)o.port, o.address);
    if (o.quic && o.protocol == CB_FORWARD_TCP)
        return cb_fail(CB_EINVAL, "cb_forward_vip_opts: quic, and protocol is TCP");
    *out = (fw_vip_entry){
        .bits = p.bits, .protocol = (uint8_t)o.protocol, .quic = o.quic != 0, .port = o.port, .told = true};
    memcpy(out->address, p.bytes, sizeof out->address);
    return CB_OK;
}

static bool same_place(const fw_vip_entry *a, const fw_vip_entry *b) {
    return memcmp(a->address, b->address, sizeof a->address) == 0 && a->bits == b->bits && a->port == b->port;
}

/* Of prefixes there is one VIP; of addresses and ports one for each protocol, or one for both. */
static fw_vip_entry *find(const cb_forward *f, const fw_vip_entry *v, size_t *at) {
    for (size_t i = 0; i < f->vips.n; i++) {
        fw_vip_entry *e = fw_vip_at(f, i);
        if (!same_place(e, v) || (v->bits == 128 && e->protocol != v->protocol)) continue;
        *at = i;
        return e;
    }
    return NULL;
}

static int check_overlap(const cb_forward *f, const fw_vip_entry *v) {
    for (size_t i = 0; i < f->vips.n && v->bits == 128; i++) {
        const fw_vip_entry *e = fw_vip_at(f, i);
        if (!same_place(e, v) || e->protocol == v->protocol) continue;
        if (e->protocol == CB_FORWARD_ANY || v->protocol == CB_FORWARD_ANY)
            return cb_fail(CB_EEXIST, "cb_forward_vip: this address and port has a VIP for %s already",
                           e->protocol == CB_FORWARD_ANY ? "both protocols" : "one of the protocols");
    }
    return CB_OK;
}

/* ---- writing ---- */

static struct cb_fw_vip value_of(const fw_vip_entry *e) {
    struct cb_fw_vip v = {.index = e->index};
    if (e->protocol != CB_FORWARD_UDP) v.flags |= CB_FW_TCP;
    if (e->protocol != CB_FORWARD_TCP) v.flags |= CB_FW_UDP;
    if (e->quic) v.flags |= CB_FW_QUIC;
    return v;
}

static struct cb_fw_vip_key key_of(const fw_vip_entry *e, uint8_t protocol) {
    struct cb_fw_vip_key k = {.port = htons(e->port), .protocol = protocol};
    memcpy(k.address, e->address, sizeof k.address);
    if (!protocol) k.port = 0; /* the entry of the address */
    return k;
}

static struct cb_fw_prefix prefix_of(const fw_vip_entry *e) {
    struct cb_fw_prefix p = {.length = e->bits};
    memcpy(p.address, e->address, sizeof p.address);
    return p;
}

/* Flags before the entries that need them, and after those that needed them have gone. */
static void write_flags(cb_forward *f, const fw_vip_entry *coming) {
    uint32_t flags = 0;
    for (size_t i = 0; i <= f->vips.n; i++) {
        const fw_vip_entry *e = i < f->vips.n ? fw_vip_at(f, i) : coming;
        if (!e) continue;
        if (e->bits < 128)
            flags |= CB_FW_PREFIXES;
        else if (!e->port)
            flags |= CB_FW_ANY_PORT;
    }
    __atomic_store_n(&f->control->flags, flags, __ATOMIC_RELEASE);
}

static const uint8_t protocols[] = {CB_FORWARD_TCP, CB_FORWARD_UDP};

static int write_entry(cb_forward *f, const fw_vip_entry *e) {
    const struct cb_fw_vip v = value_of(e);
    if (e->bits < 128) {
        const struct cb_fw_prefix p = prefix_of(e);
        return fw_map_put(f, FW_PREFIXES, &p, &v);
    }
    const struct cb_fw_vip_key address = key_of(e, 0);
    int rc = fw_map_put(f, FW_VIPS, &address, &v);
    for (size_t i = 0; i < sizeof protocols && rc == CB_OK; i++) {
        if (e->protocol != CB_FORWARD_ANY && e->protocol != protocols[i]) continue;
        const struct cb_fw_vip_key k = key_of(e, protocols[i]);
        rc = fw_map_put(f, FW_VIPS, &k, &v);
    }
    return rc;
}

static bool address_is_used(const cb_forward *f, const fw_vip_entry *but) {
    for (size_t i = 0; i < f->vips.n; i++) {
        const fw_vip_entry *e = fw_vip_at(f, i);
        if (e != but && e->bits == 128 && !memcmp(e->address, but->address, sizeof e->address)) return true;
    }
    return false;
}

static int erase_entry(cb_forward *f, const fw_vip_entry *e) {
    int rc = CB_OK;
    if (e->bits < 128) {
        const struct cb_fw_prefix p = prefix_of(e);
        return fw_map_del(f, FW_PREFIXES, &p);
    }
    for (size_t i = 0; i < sizeof protocols && rc == CB_OK; i++) {
        if (e->protocol != CB_FORWARD_ANY && e->protocol != protocols[i]) continue;
        const struct cb_fw_vip_key k = key_of(e, protocols[i]);
        rc = fw_map_del(f, FW_VIPS, &k);
    }
    if (rc < 0 || address_is_used(f, e)) return rc;
    const struct cb_fw_vip_key address = key_of(e, 0);
    return fw_map_del(f, FW_VIPS, &address);
}

/* ---- adding and removing ---- */

static int free_index(cb_forward *f, uint32_t *out) {
    for (uint32_t i = 0; i < f->vips_max; i++) {
        if (f->index_used[i]) continue;
        *out = i;
        return CB_OK;
    }
    return cb_fail(CB_ELIMIT, "cb_forward_vip: vips_max is %u", (unsigned)f->vips_max);
}

/* Numbers of whoever had the place before. */
static void clear_traffic(const cb_forward *f, uint32_t index) {
    memset(f->percpu, 0, f->processors * sizeof *f->percpu);
    (void)fw_map_put(f, FW_VIP_COUNTERS, &index, f->percpu);
}

static int add(cb_forward *f, fw_vip_entry *v) {
    int rc = check_overlap(f, v);
    if (rc == CB_OK) rc = free_index(f, &v->index);
    if (rc < 0) return rc;
    clear_traffic(f, v->index);
    fw_vip_entry *e = fw_list_insert(f, &f->vips, f->vips.n);
    if (!e) return CB_ENOMEM;
    *e = *v;
    write_flags(f, NULL);
    rc = write_entry(f, e);
    if (rc == CB_OK) {
        f->index_used[e->index] = 1;
        return rc;
    }
    (void)erase_entry(f, e);
    fw_list_remove(&f->vips, f->vips.n - 1);
    write_flags(f, NULL);
    return rc;
}

static int change(cb_forward *f, fw_vip_entry *e, const fw_vip_entry *v) {
    const fw_vip_entry before = *e;
    e->told = true;
    e->quic = v->quic;
    e->protocol = v->protocol;
    int rc = write_entry(f, e);
    if (rc < 0) *e = before;
    return rc;
}

int cb_forward_vip(cb_forward *f, const cb_forward_vip_opts *vip) {
    fw_vip_entry v;
    size_t at;
    int rc = parse(&v, vip);
    if (rc < 0) return rc;
    FW_LOCK(f);
    fw_vip_entry *e = find(f, &v, &at);
    rc = e ? change(f, e, &v) : add(f, &v);
    FW_UNLOCK(f);
    return rc;
}

int fw_vip_remove_at(cb_forward *f, size_t i) {
    fw_vip_entry *e = fw_vip_at(f, i);
    int rc = erase_entry(f, e);
    if (rc < 0) return rc;
    f->index_used[e->index] = 0;
    fw_list_remove(&f->vips, i);
    write_flags(f, NULL);
    return CB_OK;
}

int cb_forward_vip_remove(cb_forward *f, const cb_forward_vip_opts *vip) {
    fw_vip_entry v;
    size_t at;
    int rc = parse(&v, vip);
    if (rc < 0) return rc;
    FW_LOCK(f);
    rc = find(f, &v, &at) ? fw_vip_remove_at(f, at) : cb_fail(CB_ENOENT, "cb_forward_vip_remove: there is no such VIP");
    FW_UNLOCK(f);
    return rc;
}

/* ---- asking ---- */

bool fw_vip_has(const cb_forward *f, const uint8_t address[16], const uint8_t port[2]) {
    const uint16_t number = (uint16_t)(port[0] << 8 | port[1]);
    for (size_t i = 0; i < f->vips.n; i++) {
        const fw_vip_entry *e = fw_vip_at(f, i);
        cb_prefix p = {.bits = e->bits};
        if (e->protocol == CB_FORWARD_UDP || (e->port && e->port != number)) continue;
        memcpy(p.bytes, e->address, sizeof p.bytes);
        if (cb_prefix_has(&p, address)) return true;
    }
    return false;
}

/* ---- taking over ---- */

static fw_vip_entry *of_index(const cb_forward *f, uint32_t index, bool prefix) {
    for (size_t i = 0; i < f->vips.n; i++)
        if (fw_vip_at(f, i)->index == index && (fw_vip_at(f, i)->bits < 128) == prefix) return fw_vip_at(f, i);
    return NULL;
}

static int adopt_one(cb_forward *f, const fw_vip_entry *v, const struct cb_fw_vip *value) {
    if (value->index >= f->vips_max) return cb_fail(CB_EEXIST, "pin_dir: a VIP has number %u", (unsigned)value->index);
    fw_vip_entry *e = of_index(f, value->index, v->bits < 128);
    if (e) { /* the same VIP, its other protocol */
        e->protocol = CB_FORWARD_ANY;
        return CB_OK;
    }
    e = fw_list_insert(f, &f->vips, f->vips.n);
    if (!e) return CB_ENOMEM;
    *e = *v;
    e->index = value->index;
    e->quic = (value->flags & CB_FW_QUIC) != 0;
    f->index_used[e->index] = 1;
    return CB_OK;
}

static int adopt_addresses(cb_forward *f) {
    struct cb_fw_vip_key key, next;
    struct cb_fw_vip value;
    const int fd = fw_map_fd(f, FW_VIPS);
    for (int more = bpf_map_get_next_key(fd, NULL, &next); more == 0; more = bpf_map_get_next_key(fd, &key, &next)) {
        key = next;
        if (!key.protocol || bpf_map_lookup_elem(fd, &key, &value) < 0) continue;
        fw_vip_entry v = {.bits = 128, .protocol = key.protocol, .port = ntohs(key.port)};
        memcpy(v.address, key.address, sizeof v.address);
        int rc = adopt_one(f, &v, &value);
        if (rc < 0) return rc;
    }
    return CB_OK;
}

int fw_vips_adopt(cb_forward *f) {
    struct cb_fw_prefix key, next;
    struct cb_fw_vip value;
    const int fd = fw_map_fd(f, FW_PREFIXES);
    int rc = adopt_addresses(f);
    for (int more = bpf_map_get_next_key(fd, NULL, &next); more == 0 && rc == CB_OK;
         more = bpf_map_get_next_key(fd, &key, &next)) {
        key = next;
        if (bpf_map_lookup_elem(fd, &key, &value) < 0) continue;
        const bool tcp = value.flags & CB_FW_TCP, udp = value.flags & CB_FW_UDP;
        fw_vip_entry v = {.bits = (uint8_t)key.length,
                          .protocol = tcp && udp ? CB_FORWARD_ANY
                                      : tcp      ? CB_FORWARD_TCP
                                                 : CB_FORWARD_UDP};
        memcpy(v.address, key.address, sizeof v.address);
        rc = adopt_one(f, &v, &value);
    }
    return rc;
}
