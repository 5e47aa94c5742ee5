/* Numbers of a cb_forward. Part of libcb-xdp. */
#include "base/error.h"
#include "base/mem.h"
#include "base/opts.h"
#include "lb/forward_int.h"
#include "telemetry/catalogue.h"
#include <bpf/bpf.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

static const struct {
    const char *name, *help;
} counters[] = {
#define ROW(id, name, help) {name, help},
    CB_FW_COUNTERS(ROW)
#undef ROW
};
_Static_assert(sizeof counters / sizeof *counters == CB_FW_N_ALL, "each counter has its row");

static int sum_counter(cb_forward *f, uint32_t i, uint64_t *out) {
    uint64_t *values = (uint64_t *)f->percpu; /* twice as large as it must be */
    if (bpf_map_lookup_elem(fw_map_fd(f, FW_COUNTERS), &i, values) < 0)
        return cb_fail_errno(errno, "datapath: reading a counter");
    *out = 0;
    for (unsigned p = 0; p < f->processors; p++)
        *out += values[p];
    return CB_OK;
}

static int sum_traffic(cb_forward *f, enum fw_map map, uint32_t at, uint64_t *packets, uint64_t *bytes) {
    if (bpf_map_lookup_elem(fw_map_fd(f, map), &at, f->percpu) < 0)
        return cb_fail_errno(errno, "datapath: reading traffic");
    for (unsigned p = 0; p < f->processors; p++) {
        *packets += f->percpu[p].packets;
        *bytes += f->percpu[p].bytes;
    }
    return CB_OK;
}

int cb_forward_count(cb_forward *f, uint32_t i, const char **name, const char **help, uint64_t *value) {
    uint64_t sum = 0;
    if (i >= CB_FW_N_ALL) return CB_ENOENT;
    FW_LOCK(f);
    int rc = value ? sum_counter(f, i, &sum) : CB_OK;
    FW_UNLOCK(f);
    if (rc < 0) return rc;
    if (name) *name = counters[i].name;
    if (help) *help = counters[i].help;
    if (value) *value = sum;
    return CB_OK;
}

int cb_forward_stats_get(cb_forward *f, cb_forward_stats *out) {
    FW_LOCK(f);
    cb_forward_stats all = {.table_version = f->control->table_version,
                            .fanned = f->fanned,
                            .fan_failed = f->fan_failed,
                            .reattached = f->reattached,
                            .dcids_full = atomic_load_explicit(&f->dcids_full, memory_order_relaxed),
                            .vips = (uint32_t)f->vips.n,
                            .members = (uint32_t)f->members.n,
                            .interfaces = (uint32_t)f->interfaces.n,
                            .servers = (uint32_t)f->servers.n,
                            .unresolved = f->unresolved,
                            .program_id = fw_program_id(f),
                            .adopted = f->adopted};
    for (size_t i = 0; i < f->interfaces.n; i++)
        all.missing += fw_interface_at(f, i)->ifindex == 0;
    FW_UNLOCK(f);
    return cb_stats_give(out, &all, sizeof all, "cb_forward_stats");
}

static int fill_vip(cb_forward *f, size_t i, cb_forward_vip_stats *out) {
    if (i >= f->vips.n) return CB_ENOENT;
    const fw_vip_entry *e = fw_vip_at(f, i);
    *out =
        (cb_forward_vip_stats){.protocol = e->protocol, .port = e->port, .quic = e->quic, .adopted = (uint8_t)!e->told};
    fw_address_text(out->address, e->address, e->bits);
    return sum_traffic(f, FW_VIP_COUNTERS, e->index, &out->packets, &out->bytes);
}

int cb_forward_vip_stats_get(cb_forward *f, size_t i, cb_forward_vip_stats *out) {
    cb_forward_vip_stats all;
    FW_LOCK(f);
    int rc = fill_vip(f, i, &all);
    FW_UNLOCK(f);
    return rc < 0 ? rc : cb_stats_give(out, &all, sizeof all, "cb_forward_vip_stats");
}

static int fill_member(cb_forward *f, size_t i, cb_forward_member_stats *out) {
    if (i >= f->members.n) return CB_ENOENT;
    const fw_member_entry *m = fw_member_at(f, i);
    const bool self = m->id == f->id;
    *out = (cb_forward_member_stats){.id = m->id,
                                     .slot = m->slot,
                                     .encapsulation = m->encapsulation,
                                     .mtu = self ? 0 : m->way_mtu,
                                     .ifindex = self ? 0 : m->ifindex,
                                     .live = m->live,
                                     .self = self,
                                     .resolved = self || m->ifindex,
                                     .adopted = (uint8_t)!m->told};
    memcpy(out->next_hop, m->next_hop, sizeof out->next_hop);
    fw_address_text(out->address, m->address, 128);
    if (!out->resolved) snprintf(out->why, sizeof out->why, "%s", m->why);
    if (m->placed == CB_FW_NOBODY) return CB_OK;
    return sum_traffic(f, FW_MEMBER_COUNTERS, m->placed, &out->packets, &out->bytes);
}

int cb_forward_member_stats_get(cb_forward *f, size_t i, cb_forward_member_stats *out) {
    cb_forward_member_stats all;
    FW_LOCK(f);
    int rc = fill_member(f, i, &all);
    FW_UNLOCK(f);
    return rc < 0 ? rc : cb_stats_give(out, &all, sizeof all, "cb_forward_member_stats");
}

int cb_forward_interface_stats_get(cb_forward *f, size_t i, cb_forward_interface_stats *out) {
    cb_forward_interface_stats all = {.ifindex = 0};
    FW_LOCK(f);
    int rc = i < f->interfaces.n ? CB_OK : CB_ENOENT;
    if (rc == CB_OK) {
        const fw_interface_entry *e = fw_interface_at(f, i);
        memcpy(all.name, e->name, sizeof all.name);
        all.ifindex = e->ifindex;
        all.roles = e->roles;
        all.mode = e->mode;
        all.adopted = !e->told;
    }
    FW_UNLOCK(f);
    return rc < 0 ? rc : cb_stats_give(out, &all, sizeof all, "cb_forward_interface_stats");
}

/* ---- metrics: read at each scrape ---- */

static void show(cb_meter *meter, cb_metrics *m, enum cb_metric_row row, const char *label, uint64_t value) {
    cb_metric *family = NULL;
    cb_counter *counter = NULL;
    cb_gauge *gauge = NULL;
    const cb_slice labels[] = {cb_slice_str(label)};
    if (cb_catalogue_define(&family, m, row) < 0) return;
    if (cb_meter_counter(&counter, meter, family, label ? labels : NULL) == CB_OK)
        cb_counter_set(counter, value);
    else if (cb_meter_gauge(&gauge, meter, family, label ? labels : NULL) == CB_OK)
        cb_gauge_set(gauge, (int64_t)value);
}

static void show_totals(cb_forward *f, cb_meter *meter) {
    cb_forward_stats s = {.size = sizeof s};
    if (cb_forward_stats_get(f, &s) < 0) return;
    show(meter, f->metrics, CB_F_FORWARD_VERSION, NULL, s.table_version);
    show(meter, f->metrics, CB_F_FORWARD_MEMBERS, NULL, s.members);
    show(meter, f->metrics, CB_F_FORWARD_UNRESOLVED, NULL, s.unresolved);
    show(meter, f->metrics, CB_F_FORWARD_INTERFACES, NULL, s.interfaces - s.missing);
    show(meter, f->metrics, CB_F_FORWARD_MISSING, NULL, s.missing);
    show(meter, f->metrics, CB_F_FORWARD_DCIDS_FULL, NULL, s.dcids_full);
    show(meter, f->metrics, CB_F_FORWARD_FANNED, "sent", s.fanned);
    show(meter, f->metrics, CB_F_FORWARD_FANNED, "failed", s.fan_failed);
}

static void vip_label(char out[CB_FORWARD_ADDRESS_TEXT + 24], const cb_forward_vip_stats *v) {
    const char *protocol = v->protocol == CB_FORWARD_TCP ? "/tcp" : v->protocol == CB_FORWARD_UDP ? "/udp" : "";
    const bool six = strchr(v->address, ':') != NULL && v->port;
    if (v->port)
        snprintf(out, CB_FORWARD_ADDRESS_TEXT + 24, "%s%s%s:%u%s", six ? "[" : "", v->address, six ? "]" : "",
                 (unsigned)v->port, protocol);
    else
        snprintf(out, CB_FORWARD_ADDRESS_TEXT + 24, "%s%s", v->address, protocol);
}

static void collect(cb_meter *meter, void *user) {
    cb_forward *f = user;
    char label[CB_FORWARD_ADDRESS_TEXT + 24];
    const char *name = NULL;
    uint64_t value = 0;
    cb_forward_vip_stats v = {.size = sizeof v};
    cb_forward_member_stats m = {.size = sizeof m};
    show_totals(f, meter);
    for (uint32_t i = 0; cb_forward_count(f, i, &name, NULL, &value) == CB_OK; i++)
        show(meter, f->metrics, CB_F_FORWARD_PACKETS, name, value);
    for (size_t i = 0; cb_forward_vip_stats_get(f, i, &v) == CB_OK; i++, v.size = sizeof v) {
        vip_label(label, &v);
        show(meter, f->metrics, CB_F_FORWARD_VIP_PACKETS, label, v.packets);
        show(meter, f->metrics, CB_F_FORWARD_VIP_BYTES, label, v.bytes);
    }
    for (size_t i = 0; cb_forward_member_stats_get(f, i, &m) == CB_OK; i++, m.size = sizeof m) {
        if (m.self) continue;
        snprintf(label, sizeof label, "%u", (unsigned)m.id);
        show(meter, f->metrics, CB_F_FORWARD_MEMBER_PACKETS, label, m.packets);
        show(meter, f->metrics, CB_F_FORWARD_MEMBER_BYTES, label, m.bytes);
    }
}

int cb_forward_metrics(cb_forward *f, cb_metrics *m) {
    if (!m) return cb_fail(CB_EINVAL, "cb_forward_metrics: m is NULL");
    if (f->metrics) return cb_fail(CB_EEXIST, "cb_forward_metrics: it is shown already");
    int rc = cb_metrics_collector(m, collect, f);
    if (rc == CB_OK) f->metrics = cb_metrics_ref(m);
    return rc;
}

void fw_metrics_close(cb_forward *f) {
    if (!f->metrics) return;
    cb_metrics_collector_remove(f->metrics, collect, f);
    cb_metrics_unref(f->metrics);
}
