/* Loads bpf/xsk.bpf.c, puts it on an interface that has no other XDP program, and keeps its rules. Part of libcb-xdp.
 */
#include "packet/program.h"
#include "base/addr.h"
#include "base/error.h"
#include "base/mem.h"
#include "base/opts.h"
#include "xsk.h"
#include "xsk.skel.h"
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <linux/if_link.h>
#include <net/if_arp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/utsname.h>
#include <unistd.h>

_Static_assert((int)CB_XSK_MAP_QUEUES == (int)CB_XSK_QUEUES, "program and header agree");
_Static_assert((int)CB_XSK_MAP_RULES == (int)CB_XSK_RULES, "program and header agree");
_Static_assert((int)CB_XSK_PROTOCOL_ANY == (int)CB_XSK_ANY_PROTOCOL, "program and header agree");

enum { VERIFIER_LOG = 64 * 1024, VERIFIER_TAIL = 600, KERNEL_ENOTSUPP = 524 };

typedef struct kept_rule {
    struct cb_xsk_key key;
    uint32_t shape, times;
} kept_rule;

struct cb_xsk_program {
    atomic_uint refs;
    pthread_mutex_t lock; /* guards rules, state and taken */
    xsk_interface interface;
    struct xsk_bpf *skel;
    int link; /* the program is on the interface as long as this is open */
    bool native;
    uint32_t id;
    kept_rule rules[CB_XSK_RULES];
    uint32_t n_rules;
    struct cb_xsk_state state;
    uint8_t taken[CB_XSK_QUEUES]; /* the queue has a socket of ours */
};

/* ---- the interface ---- */

int xsk_interface_read(xsk_interface *out, const char *name) {
    struct ifreq r = {0};
    size_t len = strlen(name);
    int rc = CB_OK;

    if (!len || len >= sizeof r.ifr_name) return cb_fail(CB_ENOENT, "there is no interface \"%s\"", name);
    memcpy(r.ifr_name, name, len);
    memcpy(out->name, r.ifr_name, sizeof out->name);
    out->index = if_nametoindex(name);
    if (!out->index) return cb_fail(CB_ENOENT, "there is no interface \"%s\" in this network namespace", name);
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return cb_fail_errno(errno, "looking at interface %s", name);
    if (ioctl(fd, SIOCGIFHWADDR, &r) < 0) {
        rc = cb_fail_errno(errno, "reading the address of interface %s", name);
    } else if (r.ifr_hwaddr.sa_family != ARPHRD_ETHER) {
        rc = cb_fail(CB_ENOENT, "interface %s is no Ethernet", name);
    } else {
        memcpy(out->mac, r.ifr_hwaddr.sa_data, sizeof out->mac);
        if (ioctl(fd, SIOCGIFMTU, &r) < 0) rc = cb_fail_errno(errno, "reading the MTU of interface %s", name);
        out->mtu = (uint32_t)r.ifr_mtu;
    }
    close(fd);
    return rc;
}

/* ---- loading ---- */

static int quiet(enum libbpf_print_level level, const char *fmt, va_list ap) {
    (void)level;
    (void)fmt;
    (void)ap;
    return 0;
}

static int no_rights(const char *interface) {
    return cb_fail(CB_EPERM,
                   "AF_XDP on %s: this process may not load and attach XDP programs; it needs root, or CAP_BPF, "
                   "CAP_NET_ADMIN and CAP_NET_RAW",
                   interface);
}

/* The end of what the verifier wrote, which says why. */
static int load_failed(const char *interface, int err, const char *log) {
    struct utsname u;
    const char *release = uname(&u) == 0 ? u.release : "?";
    if (err == EPERM || err == EACCES) {
        if (!*log) return no_rights(interface);
    } else if (err == ENOSYS || err == EOPNOTSUPP || err == KERNEL_ENOTSUPP) {
        return cb_fail(CB_ENOTSUP, "AF_XDP: kernel %s has no XDP (errno %d)", release, err);
    }
    const size_t len = strlen(log);
    if (!len) return cb_fail_errno(err, "loading the XDP program cb_xsk on kernel %s", release);
    return cb_fail(CB_ENOTSUP, "kernel %s refuses the XDP program cb_xsk (errno %d): %s", release, err,
                   log + (len > VERIFIER_TAIL ? len - VERIFIER_TAIL : 0));
}

static int load(cb_xsk_program *p) {
    char *log = cb_mem_new(&cb_alloc_libc, VERIFIER_LOG);
    if (!log) return cb_fail(CB_ENOMEM, "no memory for the verifier's words");
    LIBBPF_OPTS(bpf_object_open_opts, o, .kernel_log_buf = log, .kernel_log_size = VERIFIER_LOG);
    libbpf_print_fn_t print = libbpf_set_print(quiet); /* libcb prints nothing; libbpf's hook is of the process */
    p->skel = xsk_bpf__open_opts(&o);
    int err = p->skel ? -xsk_bpf__load(p->skel) : errno;
    libbpf_set_print(print);
    int rc = err ? load_failed(p->interface.name, err, log) : CB_OK;
    cb_mem_free(&cb_alloc_libc, log);
    return rc;
}

/* ---- attaching ---- */

/* Who is on the interface; 0 = nobody. */
static uint32_t program_there(uint32_t index) {
    LIBBPF_OPTS(bpf_xdp_query_opts, q);
    if (bpf_xdp_query((int)index, 0, &q) < 0) return 0;
    return q.prog_id ? q.prog_id : q.drv_prog_id ? q.drv_prog_id : q.skb_prog_id ? q.skb_prog_id : q.hw_prog_id;
}

static int taken_by(const xsk_interface *i, uint32_t id) {
    struct bpf_prog_info info = {0};
    uint32_t len = sizeof info;
    char name[BPF_OBJ_NAME_LEN + 1] = "?";
    int fd = bpf_prog_get_fd_by_id(id);
    if (fd >= 0) {
        if (bpf_obj_get_info_by_fd(fd, &info, &len) == 0 && info.name[0]) memcpy(name, info.name, BPF_OBJ_NAME_LEN);
        close(fd);
    }
    return cb_fail(CB_EEXIST,
                   "AF_XDP on %s: the XDP program \"%s\" (id %u) is on this interface already, and it takes one only; "
                   "use another interface, or take that one off",
                   i->name, name, (unsigned)id);
}

static int try_attach(cb_xsk_program *p, uint32_t flags) {
    LIBBPF_OPTS(bpf_link_create_opts, o, .flags = flags);
    p->link = bpf_link_create(bpf_program__fd(p->skel->progs.cb_xsk), (int)p->interface.index, BPF_XDP, &o);
    p->native = p->link >= 0 && flags == XDP_FLAGS_DRV_MODE;
    return p->link < 0 ? -p->link : 0;
}

static int attach(cb_xsk_program *p, int how) {
    int err = EOPNOTSUPP;
    if (how != CB_XSK_ATTACH_GENERIC) err = try_attach(p, XDP_FLAGS_DRV_MODE);
    /* A driver that has no XDP, or not with this MTU or these offloads. */
    const bool next = err == EOPNOTSUPP || err == EINVAL || err == KERNEL_ENOTSUPP || err == ENOMEM || err == ERANGE;
    if (err && next && how != CB_XSK_ATTACH_NATIVE) err = try_attach(p, XDP_FLAGS_SKB_MODE);
    if (!err) return CB_OK;
    const uint32_t there = program_there(p->interface.index);
    if (err == EBUSY || err == EEXIST || there) return taken_by(&p->interface, there);
    if (err == EPERM || err == EACCES) return no_rights(p->interface.name);
    if (next)
        return cb_fail(CB_ENOTSUP, "AF_XDP: interface %s (MTU %u) takes no XDP program%s (errno %d)", p->interface.name,
                       (unsigned)p->interface.mtu, how == CB_XSK_ATTACH_NATIVE ? " in its driver" : "", err);
    return cb_fail_errno(err, "putting the XDP program on interface %s", p->interface.name);
}

static int write_state(cb_xsk_program *p) {
    uint32_t zero = 0;
    if (bpf_map_update_elem(bpf_map__fd(p->skel->maps.state), &zero, &p->state, BPF_ANY) == 0) return CB_OK;
    return cb_fail_errno(errno, "telling the XDP program its rules");
}

static void note_id(cb_xsk_program *p) {
    struct bpf_prog_info info = {0};
    uint32_t len = sizeof info;
    if (bpf_obj_get_info_by_fd(bpf_program__fd(p->skel->progs.cb_xsk), &info, &len) == 0) p->id = info.id;
}

/* ---- life ---- */

static void destroy(cb_xsk_program *p) {
    if (p->link >= 0) close(p->link);
    xsk_bpf__destroy(p->skel);
    pthread_mutex_destroy(&p->lock);
    cb_mem_free(&cb_alloc_libc, p);
}

int cb_xsk_program_new(cb_xsk_program **out, const cb_xsk_program_opts *opts) {
    cb_xsk_program_opts o;
    if (!out) return cb_fail(CB_EINVAL, "cb_xsk_program_new: out is NULL");
    int rc = cb_opts_read(&o, sizeof o, opts, "cb_xsk_program_opts");
    if (rc < 0) return rc;
    if (!o.interface) return cb_fail(CB_EINVAL, "cb_xsk_program_opts: interface is missing");
    if (o.attach > CB_XSK_ATTACH_GENERIC)
        return cb_fail(CB_EINVAL, "cb_xsk_program_opts: attach is %u; 0 to 2 are possible", o.attach);
    cb_xsk_program *p = cb_mem_new(&cb_alloc_libc, sizeof *p);
    if (!p) return cb_fail(CB_ENOMEM, "no memory for an XDP program");
    p->link = -1;
    atomic_init(&p->refs, 1);
    pthread_mutex_init(&p->lock, NULL);
    rc = xsk_interface_read(&p->interface, o.interface);
    if (rc == CB_OK) {
        const uint32_t there = program_there(p->interface.index); /* before any work; attaching would say it too */
        if (there) rc = taken_by(&p->interface, there);
    }
    if (rc == CB_OK) rc = load(p);
    memcpy(p->state.mac, p->interface.mac, sizeof p->state.mac);
    if (rc == CB_OK) rc = write_state(p);
    if (rc == CB_OK) rc = attach(p, o.attach);
    if (rc < 0) {
        destroy(p);
        return rc;
    }
    note_id(p);
    *out = p;
    return CB_OK;
}

cb_xsk_program *cb_xsk_program_ref(cb_xsk_program *p) {
    atomic_fetch_add_explicit(&p->refs, 1, memory_order_relaxed);
    return p;
}

void cb_xsk_program_unref(cb_xsk_program *p) {
    if (p && atomic_fetch_sub_explicit(&p->refs, 1, memory_order_acq_rel) == 1) destroy(p);
}

const xsk_interface *xsk_program_interface(const cb_xsk_program *p) {
    return &p->interface;
}

bool xsk_program_native(const cb_xsk_program *p) {
    return p->native;
}

/* ---- sockets ---- */

static int join_locked(cb_xsk_program *p, uint32_t queue, int fd) {
    uint32_t value = (uint32_t)fd;
    if (p->taken[queue])
        return cb_fail(CB_EEXIST, "AF_XDP on %s: queue %u has a socket already", p->interface.name, (unsigned)queue);
    if (bpf_map_update_elem(bpf_map__fd(p->skel->maps.sockets), &queue, &value, BPF_ANY) < 0)
        return cb_fail_errno(errno, "AF_XDP on %s: giving queue %u its socket", p->interface.name, (unsigned)queue);
    p->taken[queue] = 1;
    return CB_OK;
}

int xsk_program_join(cb_xsk_program *p, uint32_t queue, int fd) {
    pthread_mutex_lock(&p->lock);
    int rc = join_locked(p, queue, fd);
    pthread_mutex_unlock(&p->lock);
    return rc;
}

void xsk_program_leave(cb_xsk_program *p, uint32_t queue) {
    pthread_mutex_lock(&p->lock);
    bpf_map_delete_elem(bpf_map__fd(p->skel->maps.sockets), &queue);
    p->taken[queue] = 0;
    pthread_mutex_unlock(&p->lock);
}

/* ---- rules ---- */

static int read_address(struct cb_xsk_key *key, const char *text) {
    cb_addr a;
    int rc = cb_addr_parse(&a, text, 0);
    if (rc < 0) return rc;
    if (cb_addr_port(&a))
        return cb_fail(CB_EINVAL, "cb_xsk_rule: address \"%s\" has a port; it goes into `port`", text);
    cb_addr_unmap(&a);
    key->family = a.sa.sa_family == AF_INET ? 4 : 6;
    if (key->family == 4)
        memcpy(key->address, &a.v4.sin_addr, 4);
    else
        memcpy(key->address, &a.v6.sin6_addr, 16);
    return CB_OK;
}

/* What a rule says, as one key (or two, one a family) and what it leaves open. */
static int read_rule(const cb_xsk_rule *rule, struct cb_xsk_key keys[2], uint32_t *shape, uint32_t *n) {
    static const uint8_t any[16];
    cb_xsk_rule r;
    int rc = cb_opts_read(&r, sizeof r, rule, "cb_xsk_rule");
    if (rc < 0) return rc;
    if (r.family && r.family != 4 && r.family != 6)
        return cb_fail(CB_EINVAL, "cb_xsk_rule: family %u is neither 4 nor 6", r.family);
    const uint8_t protocol = r.protocol ? r.protocol : IPPROTO_UDP;
    if (r.port && protocol != IPPROTO_UDP && protocol != IPPROTO_TCP)
        return cb_fail(CB_EINVAL, "cb_xsk_rule: only UDP and TCP have ports, protocol %u has not", protocol);
    keys[0] = (struct cb_xsk_key){.port = htons(r.port), .protocol = protocol, .family = r.family ? r.family : 4};
    *shape = (r.port ? 0 : CB_XSK_OPEN_PORT) | (protocol == CB_XSK_ANY_PROTOCOL ? CB_XSK_OPEN_PROTOCOL : 0);
    *n = 1;
    if (r.address) {
        rc = read_address(&keys[0], r.address);
        if (rc < 0) return rc;
        if (r.family && r.family != keys[0].family)
            return cb_fail(CB_EINVAL, "cb_xsk_rule: address \"%s\" is not of family %u", r.address, r.family);
    } else if (!r.family) {
        keys[1] = keys[0];
        keys[1].family = 6;
        *n = 2;
    }
    if (memcmp(keys[0].address, any, sizeof any) == 0) *shape |= CB_XSK_OPEN_ADDRESS;
    return CB_OK;
}

static kept_rule *find_rule(cb_xsk_program *p, const struct cb_xsk_key *key) {
    for (uint32_t i = 0; i < p->n_rules; i++)
        if (memcmp(&p->rules[i].key, key, sizeof *key) == 0) return &p->rules[i];
    return NULL;
}

static int tell_shapes(cb_xsk_program *p) {
    uint32_t shapes = 0;
    for (uint32_t i = 0; i < p->n_rules; i++)
        shapes |= 1U << p->rules[i].shape;
    if (shapes == p->state.shapes) return CB_OK;
    p->state.shapes = shapes;
    return write_state(p);
}

static int add_key(cb_xsk_program *p, const struct cb_xsk_key *key, uint32_t shape) {
    uint32_t one = 1;
    kept_rule *there = find_rule(p, key);
    if (there) {
        there->times++;
        return CB_OK;
    }
    if (p->n_rules == CB_XSK_RULES)
        return cb_fail(CB_ELIMIT, "AF_XDP on %s: it has %d rules already", p->interface.name, CB_XSK_RULES);
    if (bpf_map_update_elem(bpf_map__fd(p->skel->maps.rules), key, &one, BPF_ANY) < 0)
        return cb_fail_errno(errno, "AF_XDP on %s: adding a rule", p->interface.name);
    p->rules[p->n_rules++] = (kept_rule){.key = *key, .shape = shape, .times = 1};
    return tell_shapes(p);
}

static void remove_key(cb_xsk_program *p, kept_rule *there) {
    if (--there->times) return;
    bpf_map_delete_elem(bpf_map__fd(p->skel->maps.rules), &there->key);
    *there = p->rules[--p->n_rules];
    tell_shapes(p);
}

static int add_locked(cb_xsk_program *p, const struct cb_xsk_key *keys, uint32_t shape, uint32_t n) {
    int rc = add_key(p, &keys[0], shape);
    if (rc < 0 || n == 1) return rc;
    rc = add_key(p, &keys[1], shape);
    if (rc < 0) remove_key(p, find_rule(p, &keys[0])); /* all or nothing */
    return rc;
}

int cb_xsk_program_add(cb_xsk_program *p, const cb_xsk_rule *rule) {
    struct cb_xsk_key keys[2];
    uint32_t shape, n;
    int rc = read_rule(rule, keys, &shape, &n);
    if (rc < 0) return rc;
    pthread_mutex_lock(&p->lock);
    rc = add_locked(p, keys, shape, n);
    pthread_mutex_unlock(&p->lock);
    return rc;
}

int cb_xsk_program_remove(cb_xsk_program *p, const cb_xsk_rule *rule) {
    struct cb_xsk_key keys[2];
    uint32_t shape, n, found = 0;
    int rc = read_rule(rule, keys, &shape, &n);
    if (rc < 0) return rc;
    pthread_mutex_lock(&p->lock);
    for (uint32_t i = 0; i < n; i++) {
        kept_rule *there = find_rule(p, &keys[i]);
        if (!there) continue;
        remove_key(p, there);
        found++;
    }
    pthread_mutex_unlock(&p->lock);
    return found ? CB_OK : cb_fail(CB_ENOENT, "AF_XDP on %s: there is no such rule", p->interface.name);
}

/* ---- numbers ---- */

int cb_xsk_program_stats_get(const cb_xsk_program *p, cb_xsk_program_stats *out) {
    cb_xsk_program_stats got = {.size = sizeof got, .id = p->id, .native = p->native};
    uint64_t *into[CB_XSK_COUNTERS] = {&got.taken, &got.passed, &got.unsuitable, &got.no_socket};
    int rc = cb_stats_give(out, &got, sizeof got, "cb_xsk_program_stats"); /* names mistakes before any work */
    if (rc < 0) return rc;
    const int cpus = libbpf_num_possible_cpus();
    if (cpus <= 0) return cb_fail_errno(-cpus, "counting processors");
    uint64_t *values = cb_mem_get(&cb_alloc_libc, (size_t)cpus * sizeof *values);
    if (!values) return cb_fail(CB_ENOMEM, "no memory to read counters");
    for (uint32_t c = 0; c < CB_XSK_COUNTERS && rc == CB_OK; c++) {
        if (bpf_map_lookup_elem(bpf_map__fd(p->skel->maps.counters), &c, values) < 0)
            rc = cb_fail_errno(errno, "reading the counters of the XDP program");
        for (int i = 0; i < cpus && rc == CB_OK; i++)
            *into[c] += values[i];
    }
    cb_mem_free(&cb_alloc_libc, values);
    return rc < 0 ? rc : cb_stats_give(out, &got, sizeof got, "cb_xsk_program_stats");
}
