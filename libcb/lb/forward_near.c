/* The map `near`: copies of what each packet asks for (bpf/fw_near.h). Part of libcb-xdp.
 *
 * Nothing is decided here: an entry that finds both of its places taken is only in its hash map, and control.near says
 * from then on that the program has to look there, too. */
#include "base/error.h"
#include "fw_near.h"
#include "lb/forward_int.h"
#include <bpf/bpf.h>
#include <errno.h>
#include <string.h>

_Static_assert(sizeof(struct cb_fw_vip) == sizeof(((struct cb_fw_near *)0)->value), "a VIP is a value");

enum { PLACES = 1 << CB_FW_NEAR_BITS };

static uint64_t word(const void *p, size_t at) {
    uint64_t w;
    memcpy(&w, (const uint8_t *)p + at, sizeof w);
    return w;
}

/* The kind, or 0: the map has nothing here. */
static uint32_t key_of(struct fw_near_key *k, enum fw_map map, const void *key) {
    if (map == FW_INTERFACES) {
        uint32_t ifindex;
        memcpy(&ifindex, key, sizeof ifindex);
        *k = fw_near_interface(ifindex);
        return CB_FW_NEAR_INTERFACE;
    }
    if (map == FW_SERVERS) {
        *k = fw_near_server(word(key, 0), word(key, 8));
        return CB_FW_NEAR_SERVER;
    }
    if (map != FW_VIPS) return 0;
    struct cb_fw_vip_key vip;
    memcpy(&vip, key, sizeof vip);
    *k = fw_near_vip(word(&vip, 0), word(&vip, 8), vip.port, vip.protocol);
    return vip.protocol ? CB_FW_NEAR_VIP : 0; /* who asks for an address alone is in no hurry */
}

static int read_place(const cb_forward *f, uint32_t at, struct cb_fw_near *out) {
    if (bpf_map_lookup_elem(fw_map_fd(f, FW_NEAR), &at, out) == 0) return CB_OK;
    return cb_fail_errno(errno, "datapath: reading the map \"near\"");
}

static int write_place(const cb_forward *f, uint32_t at, const struct cb_fw_near *e) {
    return fw_map_put(f, FW_NEAR, &at, e);
}

/* The place that has the key (*found), or else a free one; PLACES: neither. */
static int find(const cb_forward *f, const struct fw_near_key *k, uint32_t *place, bool *found) {
    const uint32_t first = fw_near_place(k);
    *place = PLACES;
    *found = false;
    for (uint32_t i = 0; i < 2 && !*found; i++) {
        struct cb_fw_near e;
        int rc = read_place(f, first ^ i, &e);
        if (rc < 0) return rc;
        *found = fw_near_is(&e, k);
        if (*found || (!e.key[2] && *place == PLACES)) *place = first ^ i;
    }
    return CB_OK;
}

/* *kind is 0 when there is nothing to copy, *full when both places are taken. */
static int put(const cb_forward *f, enum fw_map map, const void *key, const void *value, uint32_t *kind, bool *full) {
    struct fw_near_key k;
    uint32_t at = 0;
    bool found;
    *kind = key_of(&k, map, key);
    int rc = *kind ? find(f, &k, &at, &found) : CB_OK;
    *full = at == PLACES;
    if (!*kind || rc < 0 || *full) return rc;
    struct cb_fw_near e = {.key = {k.word[0], k.word[1], k.word[2]}};
    memcpy(e.value, value, map == FW_SERVERS ? sizeof e.value[0] : sizeof e.value);
    return write_place(f, at, &e);
}

int fw_near_put(const cb_forward *f, enum fw_map map, const void *key, const void *value) {
    uint32_t kind;
    bool full;
    int rc = put(f, map, key, value, &kind, &full);
    if (full) __atomic_and_fetch(&f->control->near, ~(1U << kind), __ATOMIC_ACQ_REL);
    return rc;
}

int fw_near_del(const cb_forward *f, enum fw_map map, const void *key) {
    static const struct cb_fw_near none;
    struct fw_near_key k;
    uint32_t at;
    bool found;
    if (!key_of(&k, map, key)) return CB_OK;
    int rc = find(f, &k, &at, &found);
    return rc == CB_OK && found ? write_place(f, at, &none) : rc;
}

/* ---- anew, from the hash maps ---- */

static int clear(const cb_forward *f) {
    static const struct cb_fw_near none;
    int rc = CB_OK;
    for (uint32_t at = 0; at < PLACES && rc == CB_OK; at++) {
        struct cb_fw_near e;
        rc = read_place(f, at, &e);
        if (rc == CB_OK && e.key[2]) rc = write_place(f, at, &none);
    }
    return rc;
}

static int copy(const cb_forward *f, enum fw_map map, uint32_t *near) {
    struct cb_fw_vip_key key, next; /* the largest of the three */
    uint32_t value[2] = {0}, kind;
    const int fd = fw_map_fd(f, map);
    for (int more = bpf_map_get_next_key(fd, NULL, &next); more == 0; more = bpf_map_get_next_key(fd, &key, &next)) {
        bool full;
        key = next;
        if (bpf_map_lookup_elem(fd, &key, value) < 0) continue;
        int rc = put(f, map, &key, value, &kind, &full);
        if (rc < 0) return rc;
        if (full) *near &= ~(1U << kind);
    }
    return CB_OK;
}

int fw_near_build(cb_forward *f) {
    uint32_t near = 1U << CB_FW_NEAR_INTERFACE | 1U << CB_FW_NEAR_VIP | 1U << CB_FW_NEAR_SERVER;
    __atomic_store_n(&f->control->near, 0, __ATOMIC_RELEASE); /* meanwhile the hash maps are asked, too */
    int rc = clear(f);
    if (rc == CB_OK) rc = copy(f, FW_INTERFACES, &near);
    if (rc == CB_OK) rc = copy(f, FW_VIPS, &near);
    if (rc == CB_OK) rc = copy(f, FW_SERVERS, &near);
    if (rc == CB_OK) __atomic_store_n(&f->control->near, near, __ATOMIC_RELEASE);
    return rc;
}
