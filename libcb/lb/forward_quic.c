/* QUIC in a cb_forward: forms of connection IDs, server IDs, IDs that clients chose; and the keys of tags. Part of
 * libcb-xdp. */
#include "base/error.h"
#include "base/mem.h"
#include "base/opts.h"
#include "fw_cid.h"
#include "lb/forward_int.h"
#include <bpf/bpf.h>
#include <endian.h>
#include <errno.h>
#include <string.h>

_Static_assert((int)CB_FW_CID_CONFIGS == (int)CB_QUIC_LB_CONFIGS, "rotations");

/* ---- forms ---- */

/* What the hosts' codec would be, as the program needs it. libcb checks the options as for a codec of its own. */
static int form_of(struct cb_fw_cid *out, uint32_t *rotation, const cb_quic_lb_opts *form) {
    cb_quic_lb_opts o;
    cb_quic_lb *lb = NULL;
    int rc = cb_opts_read(&o, sizeof o, form, "cb_quic_lb_opts");
    if (rc < 0) return rc;
    o.size = sizeof o;
    o.alloc = NULL;
    o.server_id = NULL; /* a balancer's: it only reads */
    rc = cb_quic_lb_new(&lb, &o);
    if (rc < 0) return rc;
    *rotation = o.rotation;
    const uint32_t nonce_bytes = (uint32_t)cb_quic_lb_nonce_bytes(lb), body = o.server_id_bytes + nonce_bytes;
    if (fw_cid_prepare(out, o.codec, o.server_id_bytes, nonce_bytes, (uint32_t)cb_quic_lb_cid_bytes(lb) - 1 - body,
                       o.key) < 0)
        rc = cb_fail(CB_EINVAL, "cb_forward_cid: the program does not read this form");
    cb_quic_lb_free(lb);
    return rc;
}

static int read_form(const cb_forward *f, uint32_t rotation, struct cb_fw_cid *out) {
    memset(out, 0, sizeof *out);
    if (rotation < CB_FW_CID_CONFIGS && bpf_map_lookup_elem(fw_map_fd(f, FW_CIDS), &rotation, out) < 0)
        return cb_fail_errno(errno, "datapath: reading the form of rotation %u", (unsigned)rotation);
    return CB_OK;
}

static uint32_t rotation_of(const fw_server_entry *e) {
    return e->key.rotation_length >> 4;
}

static int forget_servers(cb_forward *f, uint32_t rotation) {
    for (size_t i = f->servers.n; i-- > 0;) {
        if (rotation_of(fw_server_at(f, i)) != rotation) continue;
        int rc = fw_server_remove_at(f, i);
        if (rc < 0) return rc;
    }
    return CB_OK;
}

int cb_forward_cid(cb_forward *f, const cb_quic_lb_opts *form) {
    struct cb_fw_cid c, before;
    uint32_t rotation = 0;
    int rc = form_of(&c, &rotation, form);
    if (rc < 0) return rc;
    FW_LOCK(f);
    rc = read_form(f, rotation, &before);
    if (rc == CB_OK && before.used && before.server_id_bytes != c.server_id_bytes) rc = forget_servers(f, rotation);
    if (rc == CB_OK) rc = fw_map_put(f, FW_CIDS, &rotation, &c);
    if (rc == CB_OK) f->cid_told |= (uint8_t)(1 << rotation);
    FW_UNLOCK(f);
    cb_mem_wipe(&c, sizeof c);
    cb_mem_wipe(&before, sizeof before);
    return rc;
}

int fw_cid_forget(cb_forward *f, uint32_t rotation) {
    const struct cb_fw_cid none = {.used = 0};
    int rc = fw_map_put(f, FW_CIDS, &rotation, &none);
    if (rc == CB_OK) rc = forget_servers(f, rotation);
    if (rc == CB_OK) f->cid_told &= (uint8_t) ~(1 << rotation);
    return rc;
}

int cb_forward_cid_remove(cb_forward *f, uint32_t rotation) {
    struct cb_fw_cid c;
    FW_LOCK(f);
    int rc = read_form(f, rotation, &c);
    if (rc == CB_OK)
        rc = c.used ? fw_cid_forget(f, rotation)
                    : cb_fail(CB_ENOENT, "cb_forward_cid_remove: rotation %u has no form", (unsigned)rotation);
    FW_UNLOCK(f);
    cb_mem_wipe(&c, sizeof c);
    return rc;
}

/* ---- servers ---- */

static int key_of(const cb_forward *f, struct cb_fw_server *out, uint32_t rotation, cb_slice id) {
    struct cb_fw_cid c;
    int rc = read_form(f, rotation, &c);
    if (rc < 0) return rc;
    const bool used = c.used;
    const size_t bytes = c.server_id_bytes;
    cb_mem_wipe(&c, sizeof c);
    if (!used)
        return cb_fail(CB_EINVAL, "cb_forward_server: rotation %u has no form (cb_forward_cid())", (unsigned)rotation);
    if (id.len != bytes)
        return cb_fail(CB_EINVAL, "cb_forward_server: a server ID of %zu bytes; rotation %u has them of %zu", id.len,
                       (unsigned)rotation, bytes);
    *out = (struct cb_fw_server){.rotation_length = (uint8_t)(rotation << 4 | bytes)};
    memcpy(out->server_id, id.base, id.len);
    return CB_OK;
}

static fw_server_entry *find(const cb_forward *f, const struct cb_fw_server *key, size_t *at) {
    size_t low = 0, high = f->servers.n;
    while (low < high) {
        const size_t middle = (low + high) / 2;
        if (memcmp(&fw_server_at(f, middle)->key, key, sizeof *key) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    *at = low;
    if (low == f->servers.n || memcmp(&fw_server_at(f, low)->key, key, sizeof *key) != 0) return NULL;
    return fw_server_at(f, low);
}

/* The slot where its member is by now. 1: it was written. */
static int write_server(cb_forward *f, fw_server_entry *e) {
    size_t at;
    const uint32_t slot = fw_member_find(f, e->member, &at) ? fw_member_at(f, at)->placed : CB_FW_NOBODY;
    if (slot == e->slot) return 0;
    int rc = slot == CB_FW_NOBODY ? fw_map_del(f, FW_SERVERS, &e->key) : fw_map_put(f, FW_SERVERS, &e->key, &slot);
    if (rc < 0) return rc;
    e->slot = slot;
    return 1;
}

int fw_servers_write(cb_forward *f) {
    int n = 0;
    for (size_t i = 0; i < f->servers.n; i++) {
        int rc = write_server(f, fw_server_at(f, i));
        if (rc < 0) return rc;
        n += rc;
    }
    return n;
}

static int put_server(cb_forward *f, const struct cb_fw_server *key, uint32_t member) {
    size_t at;
    fw_server_entry *e = find(f, key, &at);
    if (!e && f->servers.n >= (size_t)CB_FW_MEMBERS * CB_FW_CID_CONFIGS)
        return cb_fail(CB_ELIMIT, "cb_forward_server: %zu server IDs are known", f->servers.n);
    if (!e) {
        e = fw_list_insert(f, &f->servers, at);
        if (!e) return CB_ENOMEM;
        e->key = *key;
        e->slot = CB_FW_NOBODY;
    }
    e->member = member;
    e->told = true;
    int rc = write_server(f, e);
    return rc < 0 ? rc : CB_OK;
}

int cb_forward_server(cb_forward *f, uint32_t rotation, cb_slice server_id, uint32_t member) {
    struct cb_fw_server key;
    if (!member) return cb_fail(CB_EINVAL, "cb_forward_server: member is 0");
    FW_LOCK(f);
    int rc = key_of(f, &key, rotation, server_id);
    if (rc == CB_OK) rc = put_server(f, &key, member);
    FW_UNLOCK(f);
    return rc;
}

int fw_server_remove_at(cb_forward *f, size_t i) {
    int rc = fw_map_del(f, FW_SERVERS, &fw_server_at(f, i)->key);
    if (rc == CB_OK) fw_list_remove(&f->servers, i);
    return rc;
}

int cb_forward_server_remove(cb_forward *f, uint32_t rotation, cb_slice server_id) {
    struct cb_fw_server key;
    size_t at;
    FW_LOCK(f);
    int rc = key_of(f, &key, rotation, server_id);
    if (rc == CB_EINVAL || (rc == CB_OK && !find(f, &key, &at)))
        rc = cb_fail(CB_ENOENT, "cb_forward_server_remove: rotation %u has no such server ID", (unsigned)rotation);
    if (rc == CB_OK) rc = fw_server_remove_at(f, at);
    FW_UNLOCK(f);
    return rc;
}

/* ---- IDs that clients chose: no lock, for they come from the threads of servers ---- */

static bool live_key(struct cb_fw_dcid *out, cb_slice dcid) {
    *out = (struct cb_fw_dcid){.length = (uint8_t)dcid.len};
    if (!dcid.len || dcid.len > sizeof out->bytes) return false;
    memcpy(out->bytes, dcid.base, dcid.len);
    return true;
}

static int dcid_opened(cb_slice dcid, void *user) {
    cb_forward *f = user;
    struct cb_fw_dcid key;
    const uint64_t here = 1;
    if (!live_key(&key, dcid)) return CB_EINVAL;
    if (bpf_map_update_elem(f->live_fd, &key, &here, BPF_ANY) == 0) return CB_OK;
    atomic_fetch_add_explicit(&f->dcids_full, 1, memory_order_relaxed);
    return CB_ELIMIT;
}

static void dcid_closed(cb_slice dcid, void *user) {
    struct cb_fw_dcid key;
    if (live_key(&key, dcid)) (void)bpf_map_delete_elem(((cb_forward *)user)->live_fd, &key);
}

cb_dcid_hook cb_forward_dcid_hook(cb_forward *f) {
    return (cb_dcid_hook){.size = sizeof(cb_dcid_hook), .opened = dcid_opened, .closed = dcid_closed, .user = f};
}

/* ---- keys of tags ---- */

static bool is_known(const cb_forward *f, uint32_t index) {
    return (f->control->tag_key[index][0] | f->control->tag_key[index][1]) != 0;
}

bool fw_has_tag_key(const cb_forward *f) {
    return is_known(f, f->control->tag_current % CB_FW_TAG_KEYS);
}

static int set_tag_key(cb_forward *f, uint32_t index, const uint8_t *key, int current) {
    uint64_t words[2] = {0, 0};
    if (key) memcpy(words, key, sizeof words);
    if (key && !(words[0] | words[1])) return cb_fail(CB_EINVAL, "cb_forward_tag_key: the key is all zero");
    if (!key && current)
        return cb_fail(CB_EINVAL, "cb_forward_tag_key: key %u is forgotten, not made current", (unsigned)index);
    if (!key && index == f->control->tag_current && is_known(f, index))
        return cb_fail(CB_EINVAL, "cb_forward_tag_key: key %u is current: make another current first", (unsigned)index);
    for (int i = 0; i < 2; i++)
        __atomic_store_n(&f->control->tag_key[index][i], le64toh(words[i]), __ATOMIC_RELEASE);
    if (current) __atomic_store_n(&f->control->tag_current, index, __ATOMIC_RELEASE);
    cb_mem_wipe(words, sizeof words);
    return CB_OK;
}

int cb_forward_tag_key(cb_forward *f, uint32_t index, const uint8_t *key, int current) {
    if (index >= CB_FORWARD_TAG_KEYS)
        return cb_fail(CB_EINVAL, "cb_forward_tag_key: index is %u; 0 to %d are possible", (unsigned)index,
                       CB_FORWARD_TAG_KEYS - 1);
    FW_LOCK(f);
    int rc = set_tag_key(f, index, key, current);
    FW_UNLOCK(f);
    return rc;
}

/* ---- taking over ---- */

static int adopt_server(cb_forward *f, const struct cb_fw_server *key, uint32_t slot) {
    size_t at;
    if (slot >= CB_FW_MEMBERS || !f->slot_ids[slot]) return fw_map_del(f, FW_SERVERS, key);
    if (find(f, key, &at)) return CB_OK;
    fw_server_entry *e = fw_list_insert(f, &f->servers, at);
    if (!e) return CB_ENOMEM;
    e->key = *key;
    e->slot = slot;
    e->member = f->slot_ids[slot];
    return CB_OK;
}

int fw_quic_adopt(cb_forward *f) {
    struct cb_fw_server key, next;
    uint32_t slot;
    int rc = CB_OK;
    const int fd = fw_map_fd(f, FW_SERVERS);
    int more = bpf_map_get_next_key(fd, NULL, &next);
    while (more == 0 && rc == CB_OK) {
        key = next;
        more = bpf_map_get_next_key(fd, &key, &next); /* before this one may go */
        if (bpf_map_lookup_elem(fd, &key, &slot) == 0) rc = adopt_server(f, &key, slot);
    }
    return rc;
}
