/* A cb_forward's options and life. Part of libcb-xdp. */
#include "base/error.h"
#include "base/mem.h"
#include "base/opts.h"
#include "base/prefix.h"
#include "lb/forward_int.h"
#include <arpa/inet.h>
#include <bpf/libbpf.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

_Static_assert((int)CB_FORWARD_TAG_KEYS == (int)CB_FW_TAG_KEYS, "program and header agree");
_Static_assert((int)CB_FORWARD_INTERFACES == (int)CB_FW_INTERFACES, "program and header agree");
_Static_assert((int)CB_FORWARD_PORT == (int)CB_FW_GUE_PORT, "program and header agree");
_Static_assert((int)CB_FORWARD_OVERHEAD4 == 20 + 8 + (int)CB_FW_GUE_BYTES, "program and header agree");
_Static_assert((int)CB_FORWARD_OVERHEAD6 == 40 + 8 + (int)CB_FW_GUE_BYTES, "program and header agree");
_Static_assert((int)CB_FORWARD_EDGE == (int)CB_FW_EDGE && (int)CB_FORWARD_UNDERLAY == (int)CB_FW_UNDERLAY, "roles");
_Static_assert((int)CB_FORWARD_GUE == (int)CB_FW_GUE && (int)CB_FORWARD_IPIP == (int)CB_FW_IPIP &&
                   (int)CB_FORWARD_MAC == (int)CB_FW_MAC,
               "program and header agree");
_Static_assert((int)CB_FW_MEMBERS == (int)CB_LB_MEMBERS_MAX, "table and program agree");

/* ---- text and time ---- */

bool fw_is4(const uint8_t address[16]) {
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    return memcmp(address, mapped, sizeof mapped) == 0;
}

int fw_address_parse(uint8_t out[16], const char *text, const char *field) {
    uint8_t shift = 0;
    if (!text || !cb_prefix_address(out, text, &shift))
        return cb_fail(CB_EINVAL, "%s: \"%s\" is not an IP address", field, text ? text : "");
    return fw_is4(out) ? 4 : 6;
}

void fw_address_text(char out[CB_FORWARD_ADDRESS_TEXT], const uint8_t address[16], unsigned bits) {
    const bool four = fw_is4(address) && bits >= 96;
    char text[INET6_ADDRSTRLEN] = "";
    (void)inet_ntop(four ? AF_INET : AF_INET6, four ? address + 12 : address, text, sizeof text);
    if (bits == 128)
        snprintf(out, CB_FORWARD_ADDRESS_TEXT, "%s", text);
    else
        snprintf(out, CB_FORWARD_ADDRESS_TEXT, "%s/%u", text, four ? bits - 96 : bits);
}

uint32_t fw_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint32_t)t.tv_sec;
}

/* ---- lists ---- */

void *fw_list_insert(cb_forward *f, fw_list *l, size_t i) {
    if (l->n == l->cap) {
        const size_t cap = l->cap ? 2 * l->cap : 16;
        void *grown = cb_mem_grow(&f->alloc, l->at, cap * l->each);
        if (!grown) {
            cb_fail(CB_ENOMEM, "no memory for one more entry of a datapath");
            return NULL;
        }
        l->at = grown;
        l->cap = cap;
    }
    uint8_t *place = (uint8_t *)l->at + i * l->each;
    memmove(place + l->each, place, (l->n - i) * l->each);
    memset(place, 0, l->each);
    l->n++;
    return place;
}

void fw_list_remove(fw_list *l, size_t i) {
    uint8_t *place = (uint8_t *)l->at + i * l->each;
    l->n--;
    memmove(place, place + l->each, (l->n - i) * l->each);
}

void fw_list_free(cb_forward *f, fw_list *l) {
    cb_mem_free(&f->alloc, l->at);
    l->at = NULL;
    l->n = l->cap = 0;
}

/* ---- options ---- */

enum {
    VIPS = 1024,
    VIPS_MAX = 65536,
    DCIDS = 65536,
    FRAGMENTS = 16384,
    HOPS = 200000,
    ICMPS = 1000,
    MAP_MAX = 1 << 24
};
enum { MTU_MIN = 1280, MTU_MAX = 65535 };

static bool is_prime(uint32_t n) {
    if (n < 2 || n % 2 == 0) return n == 2;
    for (uint32_t d = 3; d <= n / d; d += 2)
        if (n % d == 0) return false;
    return true;
}

static int within(const char *field, uint32_t *value, uint32_t otherwise, uint32_t most) {
    if (!*value) *value = otherwise;
    if (*value <= most) return CB_OK;
    return cb_fail(CB_EINVAL, "cb_forward_opts: %s is %u; at most %u", field, (unsigned)*value, (unsigned)most);
}

static int check_address(const char *text, const char *field, int family) {
    uint8_t bytes[16];
    if (!text) return CB_OK;
    int rc = fw_address_parse(bytes, text, field);
    if (rc >= 0 && rc != family)
        return cb_fail(CB_EINVAL, "cb_forward_opts: %s \"%s\" is of the other family", field, text);
    return rc < 0 ? rc : CB_OK;
}

static int check(cb_forward_opts *o) {
    if (!o->hash_key) return cb_fail(CB_EINVAL, "cb_forward_opts: hash_key is missing (16 bytes)");
    int rc = check_address(o->address4, "address4", 4);
    if (rc == CB_OK) rc = check_address(o->address6, "address6", 6);
    if (rc == CB_OK) rc = within("buckets", &o->buckets, CB_LB_BUCKETS, CB_LB_BUCKETS_MAX);
    if (rc == CB_OK) rc = within("vips_max", &o->vips_max, VIPS, VIPS_MAX);
    if (rc == CB_OK) rc = within("dcids_max", &o->dcids_max, DCIDS, MAP_MAX);
    if (rc == CB_OK) rc = within("fragments_max", &o->fragments_max, FRAGMENTS, MAP_MAX);
    if (rc < 0) return rc;
    if (!is_prime(o->buckets))
        return cb_fail(CB_EINVAL, "cb_forward_opts: buckets is %u, and tables have a prime number of them",
                       (unsigned)o->buckets);
    if (o->underlay_mtu && (o->underlay_mtu < MTU_MIN || o->underlay_mtu > MTU_MAX))
        return cb_fail(CB_EINVAL, "cb_forward_opts: underlay_mtu is %u; %d to %d are possible",
                       (unsigned)o->underlay_mtu, MTU_MIN, MTU_MAX);
    if (!o->hop_rate) o->hop_rate = HOPS;
    if (!o->icmp_rate) o->icmp_rate = ICMPS;
    if (!o->gue_port) o->gue_port = CB_FORWARD_PORT;
    return CB_OK;
}

/* ---- life ---- */

static int make_room(cb_forward *f) {
    const int processors = libbpf_num_possible_cpus();
    if (processors < 1) return cb_fail(CB_ENOTSUP, "datapath: /sys does not tell how many processors there are");
    f->processors = (unsigned)processors;
    f->slot_ids = cb_mem_new(&f->alloc, CB_FW_MEMBERS * sizeof *f->slot_ids);
    f->moved_at = cb_mem_new(&f->alloc, f->buckets * sizeof *f->moved_at);
    f->index_used = cb_mem_new(&f->alloc, f->vips_max);
    f->percpu = cb_mem_new(&f->alloc, f->processors * sizeof *f->percpu);
    return f->slot_ids && f->moved_at && f->index_used && f->percpu ? CB_OK
                                                                    : cb_fail(CB_ENOMEM, "no memory for a datapath");
}

/* Of a datapath that was taken over. */
int fw_adopt(cb_forward *f) {
    const uint32_t now = fw_seconds();
    for (uint32_t i = 0; i < f->buckets; i++)
        f->moved_at[i] = now; /* who knows when */
    int rc = fw_vips_adopt(f);
    if (rc == CB_OK) rc = fw_members_adopt(f);
    if (rc == CB_OK) rc = fw_quic_adopt(f);
    return rc == CB_OK ? fw_attach_adopt(f) : rc;
}

static void release(cb_forward *f) {
    cb_alloc a = f->alloc;
    fw_metrics_close(f);
    fw_attach_close(f);
    fw_fan_close(f);
    if (f->routes >= 0) close(f->routes);
    if (f->diag >= 0) close(f->diag);
    fw_unload(f);
    fw_list_free(f, &f->vips);
    fw_list_free(f, &f->members);
    fw_list_free(f, &f->servers);
    fw_list_free(f, &f->interfaces);
    cb_mem_free(&a, f->slot_ids);
    cb_mem_free(&a, f->moved_at);
    cb_mem_free(&a, f->index_used);
    cb_mem_free(&a, f->percpu);
    cb_mem_free(&a, f->pin_dir);
    pthread_mutex_destroy(&f->lock);
    cb_mem_free(&a, f);
}

int cb_forward_new(cb_forward **out, const cb_forward_opts *opts) {
    if (!out) return cb_fail(CB_EINVAL, "cb_forward_new: out is NULL");
    cb_forward_opts o;
    int rc = cb_opts_read(&o, sizeof o, opts, "cb_forward_opts");
    if (rc >= 0) rc = check(&o);
    if (rc < 0) return rc;
    const cb_alloc *a = o.alloc ? o.alloc : &cb_alloc_libc;
    cb_forward *f = cb_mem_new(a, sizeof *f);
    if (!f) return cb_fail(CB_ENOMEM, "no memory for a datapath");
    f->alloc = *a;
    f->log = o.log;
    pthread_mutex_init(&f->lock, NULL);
    f->id = o.id;
    f->buckets = o.buckets;
    f->vips_max = o.vips_max;
    f->underlay_mtu = o.underlay_mtu;
    f->no_mss = o.no_mss;
    f->routes = f->diag = f->fan4 = f->fan6 = f->live_fd = -1;
    f->vips.each = sizeof(fw_vip_entry);
    f->members.each = sizeof(fw_member_entry);
    f->servers.each = sizeof(fw_server_entry);
    f->interfaces.each = sizeof(fw_interface_entry);
    f->pin_dir = cb_mem_text(a, o.pin_dir);
    rc = o.pin_dir && !f->pin_dir ? cb_fail(CB_ENOMEM, "no memory for a datapath") : make_room(f);
    if (rc == CB_OK) rc = fw_load(f, &o);
    if (rc < 0) {
        release(f);
        return rc;
    }
    *out = f;
    return CB_OK;
}

void cb_forward_free(cb_forward *f) {
    if (f) release(f);
}
