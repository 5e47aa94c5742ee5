/* What a link may be told. */
#include "base/error.h"
#include "base/opts.h"
#include "sim/sim_int.h"
#include <stddef.h>

enum { BUFFER_MIN = 64 << 10, MTU_DEFAULT = 1500, MTU_MIN = 68, MTU_MAX = 65575, BURST_MIN = 3000 };

static const uint64_t rate_max = 10000000000000u; /* 10 Tbit/s: a byte is no longer visible in nanoseconds */
static const uint64_t time_max_us = 86400000000u; /* a day */

static const struct {
    const char *name;
    size_t at;
} shares[] = {
    {"loss", offsetof(cb_sim_link_opts, loss)},
    {"burst_enter", offsetof(cb_sim_link_opts, burst_enter)},
    {"burst_leave", offsetof(cb_sim_link_opts, burst_leave)},
    {"burst_loss", offsetof(cb_sim_link_opts, burst_loss)},
    {"corrupt", offsetof(cb_sim_link_opts, corrupt)},
    {"duplicate", offsetof(cb_sim_link_opts, duplicate)},
    {"reorder", offsetof(cb_sim_link_opts, reorder)},
};

static const struct {
    const char *name;
    size_t at;
    const uint64_t *max;
} numbers[] = {
    {"rate_bps", offsetof(cb_sim_link_opts, rate_bps), &rate_max},
    {"police_bps", offsetof(cb_sim_link_opts, police_bps), &rate_max},
    {"delay_us", offsetof(cb_sim_link_opts, delay_us), &time_max_us},
    {"buffer_rtt_us", offsetof(cb_sim_link_opts, buffer_rtt_us), &time_max_us},
    {"reorder_us", offsetof(cb_sim_link_opts, reorder_us), &time_max_us},
    {"jitter_us", offsetof(cb_sim_link_opts, jitter_us), &time_max_us},
    {"batch_us", offsetof(cb_sim_link_opts, batch_us), &time_max_us},
};

static int check(const cb_sim_link_opts *o) {
    for (size_t i = 0; i < sizeof shares / sizeof shares[0]; i++) {
        double v = *(const double *)(const void *)((const char *)o + shares[i].at);
        if (!(v >= 0 && v <= 1)) return cb_fail(CB_EINVAL, "cb_sim_link_opts.%s %g: 0 to 1", shares[i].name, v);
    }
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        uint64_t v = *(const uint64_t *)(const void *)((const char *)o + numbers[i].at);
        if (v > *numbers[i].max)
            return cb_fail(CB_EINVAL, "cb_sim_link_opts.%s %llu: at most %llu", numbers[i].name, (unsigned long long)v,
                           (unsigned long long)*numbers[i].max);
    }
    if (!(o->buffer_bdp >= 0 && o->buffer_bdp <= 1e6))
        return cb_fail(CB_EINVAL, "cb_sim_link_opts.buffer_bdp %g: 0 to 1,000,000", o->buffer_bdp);
    if (o->buffer_bdp > 0 && o->buffer_bytes)
        return cb_fail(CB_EINVAL, "cb_sim_link_opts.buffer_bdp and buffer_bytes: one of them");
    if (o->buffer_bdp > 0 && !o->rate_bps)
        return cb_fail(CB_EINVAL, "cb_sim_link_opts.buffer_bdp: an infinite rate has no bandwidth-delay product");
    if (o->buffer_bdp > 0 && !o->buffer_rtt_us && !o->delay_us)
        return cb_fail(CB_EINVAL, "cb_sim_link_opts.buffer_bdp: needs delay_us or buffer_rtt_us");
    if (o->burst_enter > 0 && !(o->burst_leave > 0))
        return cb_fail(CB_EINVAL, "cb_sim_link_opts.burst_leave: required with burst_enter");
    if (o->reorder > 0 && !o->reorder_us)
        return cb_fail(CB_EINVAL, "cb_sim_link_opts.reorder_us: required with reorder");
    if (o->mtu_bytes && (o->mtu_bytes < MTU_MIN || o->mtu_bytes > MTU_MAX))
        return cb_fail(CB_EINVAL, "cb_sim_link_opts.mtu_bytes %u: %d to %d", o->mtu_bytes, MTU_MIN, MTU_MAX);
    if (o->down > 1) return cb_fail(CB_EINVAL, "cb_sim_link_opts.down %u: 0 or 1", o->down);
    return CB_OK;
}

uint64_t sim_link_buffer(const cb_sim_link_opts *o) {
    if (o->buffer_bytes) return o->buffer_bytes;
    uint64_t rtt_us = o->buffer_rtt_us ? o->buffer_rtt_us : 2 * o->delay_us;
    double bdp = (double)o->rate_bps / 8 * (double)rtt_us / 1e6;
    if (o->buffer_bdp > 0) return (uint64_t)(bdp * o->buffer_bdp);
    return bdp > BUFFER_MIN ? (uint64_t)bdp : BUFFER_MIN;
}

int sim_link_opts_read(cb_sim_link_opts *out, const cb_sim_link_opts *opts) {
    cb_sim_link_opts o;
    int rc = cb_opts_read(&o, sizeof o, opts, "cb_sim_link_opts");
    if (rc >= 0) rc = check(&o);
    if (rc < 0) return rc;
    if (o.burst_enter > 0 && !(o.burst_loss > 0)) o.burst_loss = 1;
    if (o.police_bps && !o.police_burst_bytes) {
        o.police_burst_bytes = o.police_bps / 8 / 20;
        if (o.police_burst_bytes < BURST_MIN) o.police_burst_bytes = BURST_MIN;
    }
    if (!o.corrupt_bits) o.corrupt_bits = 1;
    if (!o.mtu_bytes) o.mtu_bytes = MTU_DEFAULT;
    o.size = sizeof o;
    *out = o;
    return CB_OK;
}
