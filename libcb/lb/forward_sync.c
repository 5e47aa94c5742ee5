/* The table into the datapath, so that no packet ever meets a bucket whose owner is not there yet; and the end of what
 * was taken over and is not wanted any more. Part of libcb-xdp. */
#include "base/error.h"
#include "base/log.h"
#include "lb/forward_int.h"
#include <bpf/bpf.h>
#include <string.h>

/* ---- members ---- */

/* Who is in the table, and in which slot. Those without an address are counted. */
static uint32_t read_members(cb_forward *f, const cb_lb_table *table, uint32_t *self_slot) {
    cb_lb_member_stats m = {.size = sizeof m};
    uint32_t unknown = 0;
    size_t at;
    *self_slot = CB_FW_NOBODY;
    for (size_t i = 0; i < f->members.n; i++) {
        fw_member_at(f, i)->slot = CB_FW_NOBODY;
        fw_member_at(f, i)->live = false;
    }
    for (size_t i = 0; cb_lb_table_member(table, i, &m) == CB_OK; i++, m.size = sizeof m) {
        if (m.id == f->id) *self_slot = m.slot;
        if (!fw_member_find(f, m.id, &at)) {
            unknown++;
            continue;
        }
        fw_member_at(f, at)->slot = m.slot;
        fw_member_at(f, at)->live = m.state != CB_LB_DEAD;
    }
    return unknown;
}

static int write_members(cb_forward *f) {
    int n = 0;
    for (size_t i = 0; i < f->members.n; i++) {
        int rc = fw_member_write(f, fw_member_at(f, i));
        if (rc < 0) return rc;
        n += rc;
    }
    return n;
}

static int unplace_members(cb_forward *f) {
    int n = 0;
    for (size_t i = 0; i < f->members.n; i++) {
        fw_member_entry *m = fw_member_at(f, i);
        if (m->slot != CB_FW_NOBODY || m->placed == CB_FW_NOBODY) continue;
        int rc = fw_member_unplace(f, m);
        if (rc < 0) return rc;
        n++;
    }
    return n;
}

/* ---- words ---- */

static bool same_owners(uint64_t a, uint64_t b) {
    const uint64_t version = (uint64_t)INT32_MAX << 32;
    return ((a ^ b) & ~version) == 0;
}

static int write_words(cb_forward *f, const uint64_t *words) {
    const uint32_t now = fw_seconds();
    int n = 0;
    for (uint32_t i = 0; i < f->buckets; i++) {
        const uint64_t word = __atomic_load_n(&words[i], __ATOMIC_RELAXED);
        const uint64_t had = __atomic_load_n(&f->words[i], __ATOMIC_RELAXED);
        if (word == had) continue;
        if (!same_owners(word, had)) f->moved_at[i] = now;
        __atomic_store_n(&f->words[i], word, __ATOMIC_RELEASE); /* after the members that it names */
        n++;
    }
    return n;
}

/* ---- all of it ---- */

static int write_all(cb_forward *f, const cb_lb_table *table, const uint64_t *words) {
    uint32_t self_slot;
    const uint32_t unknown = read_members(f, table, &self_slot);
    int members = write_members(f), servers = 0, gone = 0;
    if (members < 0) return members;
    servers = fw_servers_write(f);
    if (servers < 0) return servers;
    __atomic_store_n(&f->control->self_slot, self_slot, __ATOMIC_RELEASE);
    const int buckets = write_words(f, words);
    gone = unplace_members(f);
    if (gone > 0) servers = fw_servers_write(f); /* those of who has gone */
    if (gone < 0 || servers < 0) return gone < 0 ? gone : servers;
    if (unknown != f->unknown && unknown)
        cb_log_line(f->log, CB_LOG_WARN, "forward",
                    "%u members of the table have no address: packets for them are dropped", (unsigned)unknown);
    f->unknown = unknown;
    return members + gone + buckets;
}

static int sync_locked(cb_forward *f, const cb_lb_table *table) {
    cb_lb_table_stats s = {.size = sizeof s};
    size_t n = 0;
    int rc = cb_lb_table_stats_get(table, &s);
    const uint64_t *words = cb_lb_table_words(table, &n);
    if (rc < 0) return rc;
    if (!words) return cb_fail(CB_ENOENT, "cb_forward_sync: the table is empty");
    if (n != f->buckets)
        return cb_fail(CB_EINVAL, "cb_forward_sync: the table has %zu buckets, the datapath %u", n,
                       (unsigned)f->buckets);
    if (f->synced && !f->members_changed && f->table_version == s.version && f->table_content == s.content) return 0;
    rc = write_all(f, table, words);
    if (rc < 0) return rc;
    __atomic_store_n(&f->control->table_version, (uint32_t)s.version, __ATOMIC_RELEASE);
    f->table_version = s.version;
    f->table_content = s.content;
    f->members_changed = false;
    f->synced = true;
    return rc;
}

int cb_forward_sync(cb_forward *f, const cb_lb_table *table) {
    FW_LOCK(f);
    int rc = sync_locked(f, table);
    FW_UNLOCK(f);
    return rc;
}

/* ---- pruning ---- */

typedef int (*removal)(cb_forward *f, size_t i);

static bool vip_told(const cb_forward *f, size_t i) {
    return fw_vip_at(f, i)->told;
}
static bool member_told(const cb_forward *f, size_t i) {
    return fw_member_at(f, i)->told;
}
static bool server_told(const cb_forward *f, size_t i) {
    return fw_server_at(f, i)->told;
}
static bool interface_told(const cb_forward *f, size_t i) {
    return fw_interface_at(f, i)->told;
}

static int prune_list(cb_forward *f, fw_list *l, bool (*told)(const cb_forward *, size_t), removal remove) {
    int n = 0;
    for (size_t i = l->n; i-- > 0;) {
        if (told(f, i)) continue;
        int rc = remove(f, i);
        if (rc < 0) return rc;
        n++;
    }
    return n;
}

static int prune_forms(cb_forward *f) {
    int n = 0;
    for (uint32_t r = 0; r < CB_FW_CID_CONFIGS; r++) {
        struct cb_fw_cid c;
        if (f->cid_told >> r & 1 || bpf_map_lookup_elem(fw_map_fd(f, FW_CIDS), &r, &c) < 0 || !c.used) continue;
        int rc = fw_cid_forget(f, r);
        if (rc < 0) return rc;
        n++;
    }
    return n;
}

static int prune(cb_forward *f) {
    const struct {
        fw_list *list;
        bool (*told)(const cb_forward *, size_t);
        removal remove;
    } all[] = {{&f->interfaces, interface_told, fw_detach_at},
               {&f->vips, vip_told, fw_vip_remove_at},
               {&f->servers, server_told, fw_server_remove_at},
               {&f->members, member_told, fw_member_remove_at}};
    int n = prune_forms(f);
    for (size_t i = 0; i < sizeof all / sizeof *all && n >= 0; i++) {
        int rc = prune_list(f, all[i].list, all[i].told, all[i].remove);
        n = rc < 0 ? rc : n + rc;
    }
    const int rc = n < 0 ? n : fw_underlay_prune(f);
    return rc < 0 ? rc : n;
}

int cb_forward_prune(cb_forward *f) {
    FW_LOCK(f);
    int rc = prune(f);
    FW_UNLOCK(f);
    return rc;
}
