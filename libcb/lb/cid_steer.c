/* Loads bpf/cid_steer.bpf.c, keeps its maps, and puts sockets under it. Part of libcb-xdp. */
#include "cid_steer.h"
#include "base/addr.h"
#include "base/error.h"
#include "base/mem.h"
#include "base/opts.h"
#include "cid_steer.skel.h"
#include <bpf/bpf.h>
#include <cb/xdp.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

/* The order of cb_steering_fds(). */
enum { FD_SOCKETS, FD_STATE, FD_COUNTERS };
_Static_assert((int)FD_COUNTERS + 1 == (int)CB_STEERING_FDS, "every descriptor has its place");
_Static_assert((int)CB_STEER_GENERATIONS == (int)CB_STEERING_GENERATIONS, "program and header agree");
_Static_assert((int)CB_STEER_SITES == (int)CB_STEERING_ADDRESSES, "program and header agree");
_Static_assert(sizeof(cb_addr) <= sizeof(((struct cb_steer_state *)0)->address), "every address has room");

struct cb_steering {
    int32_t fd[CB_STEERING_FDS];
    int program[CB_STEER_SITES]; /* -1: not loaded by this object */
    pthread_mutex_t lock;        /* one change of the state at a time */
};

/* ---- loading and adopting ---- */

static int quiet(enum libbpf_print_level level, const char *fmt, va_list ap) {
    (void)level;
    (void)fmt;
    (void)ap;
    return 0;
}

static int load_failed(int err) {
    static const int lacking[] = {EINVAL, ENOSYS, EOPNOTSUPP, E2BIG, ENOENT, 524 /* the kernel's ENOTSUPP */};
    if (err == EPERM || err == EACCES)
        return cb_fail(CB_EPERM, "steering QUIC packets in the kernel: this process may not load BPF programs; give it "
                                 "CAP_BPF, or let user space hand packets over");
    for (size_t i = 0; i < sizeof lacking / sizeof *lacking; i++)
        if (err == lacking[i])
            return cb_fail(CB_ENOTSUP,
                           "steering QUIC packets in the kernel: this kernel does not take the program (errno %d)",
                           err);
    return cb_fail_errno(err, "steering QUIC packets in the kernel: loading the program");
}

static int keep_copy(int32_t *to, int from) {
    *to = fcntl(from, F_DUPFD_CLOEXEC, 3);
    return *to < 0 ? cb_fail_errno(errno, "descriptor %d", from) : CB_OK;
}

/* All sites share the maps: the first program makes them, the others take them over. */
static int share_maps(cb_steering *s, struct cid_steer_bpf *skel) {
    if (s->fd[0] < 0) return 0;
    int rc = bpf_map__reuse_fd(skel->maps.sockets, s->fd[FD_SOCKETS]);
    if (!rc) rc = bpf_map__reuse_fd(skel->maps.state, s->fd[FD_STATE]);
    return rc ? rc : bpf_map__reuse_fd(skel->maps.counters, s->fd[FD_COUNTERS]);
}

static int keep_loaded(cb_steering *s, uint32_t site, const struct cid_steer_bpf *skel) {
    const int maps[CB_STEERING_FDS] = {bpf_map__fd(skel->maps.sockets), bpf_map__fd(skel->maps.state),
                                       bpf_map__fd(skel->maps.counters)};
    int rc = keep_copy(&s->program[site], bpf_program__fd(skel->progs.cid_steer));
    for (int i = 0; i < CB_STEERING_FDS && rc == CB_OK; i++)
        if (s->fd[i] < 0) rc = keep_copy(&s->fd[i], maps[i]);
    return rc;
}

static int load(cb_steering *s, uint32_t site) {
    int rc = CB_OK, err = 0;
    if (s->program[site] >= 0) return CB_OK;
    libbpf_print_fn_t print = libbpf_set_print(quiet); /* libcb prints nothing; libbpf's hook is of the process */
    struct cid_steer_bpf *skel = cid_steer_bpf__open();
    if (!skel) {
        err = errno;
    } else {
        skel->rodata->site = site;
        err = -share_maps(s, skel);
        if (!err) err = -cid_steer_bpf__load(skel);
    }
    libbpf_set_print(print);
    rc = err ? load_failed(err) : keep_loaded(s, site, skel);
    cid_steer_bpf__destroy(skel);
    return rc;
}

static bool is_map(int fd, uint32_t type, uint32_t entries, uint32_t value_size) {
    struct bpf_map_info info = {0};
    uint32_t len = sizeof info;
    return bpf_obj_get_info_by_fd(fd, &info, &len) == 0 && info.type == type && info.max_entries == entries &&
           info.value_size == value_size;
}

static int adopt(cb_steering *s, const int32_t *fds) {
    int rc = CB_OK;
    for (int i = 0; i < CB_STEERING_FDS && rc == CB_OK; i++)
        rc = keep_copy(&s->fd[i], fds[i]);
    if (rc < 0) return rc;
    if (is_map(fds[FD_SOCKETS], BPF_MAP_TYPE_REUSEPORT_SOCKARRAY, CB_STEER_SOCKETS, sizeof(uint64_t)) &&
        is_map(fds[FD_STATE], BPF_MAP_TYPE_ARRAY, CB_STEER_SITES, sizeof(struct cb_steer_state)) &&
        is_map(fds[FD_COUNTERS], BPF_MAP_TYPE_PERCPU_ARRAY, CB_STEER_COUNTERS, sizeof(uint64_t)))
        return CB_OK;
    return cb_fail(CB_EINVAL, "cb_steering_opts: adopt_fds (%d, %d, %d) are not those of a steering", fds[0], fds[1],
                   fds[2]);
}

int cb_steering_new(cb_steering **out, const cb_steering_opts *opts) {
    if (!out) return cb_fail(CB_EINVAL, "cb_steering_new: out is NULL");
    cb_steering_opts o;
    int rc = cb_opts_read(&o, sizeof o, opts, "cb_steering_opts");
    if (rc < 0) return rc;
    cb_steering *s = cb_mem_new(&cb_alloc_libc, sizeof *s);
    if (!s) return cb_fail(CB_ENOMEM, "no memory for a steering");
    for (int i = 0; i < CB_STEERING_FDS; i++)
        s->fd[i] = -1;
    for (int i = 0; i < CB_STEER_SITES; i++)
        s->program[i] = -1;
    pthread_mutex_init(&s->lock, NULL);
    if (o.adopt_fds)
        rc = adopt(s, o.adopt_fds);
    else
        rc = load(s, 0); /* tells at once whether it may and can */
    if (rc < 0) {
        cb_steering_free(s);
        return rc;
    }
    *out = s;
    return CB_OK;
}

void cb_steering_free(cb_steering *s) {
    if (!s) return;
    for (int i = 0; i < CB_STEERING_FDS; i++)
        if (s->fd[i] >= 0) close(s->fd[i]);
    for (int i = 0; i < CB_STEER_SITES; i++)
        if (s->program[i] >= 0) close(s->program[i]);
    pthread_mutex_destroy(&s->lock);
    cb_mem_free(&cb_alloc_libc, s);
}

/* ---- the state of a site ---- */

static int read_state(const cb_steering *s, uint32_t site, struct cb_steer_state *state) {
    if (bpf_map_lookup_elem(s->fd[FD_STATE], &site, state) == 0) return CB_OK;
    return cb_fail_errno(errno, "steering: reading the state");
}

static int write_state(cb_steering *s, uint32_t site, const struct cb_steer_state *state) {
    if (bpf_map_update_elem(s->fd[FD_STATE], &site, state, BPF_ANY) == 0) return CB_OK;
    return cb_fail_errno(errno, "steering: writing the state");
}

static uint32_t socket_place(uint32_t site, uint32_t generation, uint32_t worker) {
    return site * CB_STEER_SITE_SOCKETS + generation % CB_STEER_GENERATIONS * CB_STEER_WORKERS + worker;
}

/* Closed sockets leave the map by themselves. */
static bool place_has_sockets(const cb_steering *s, uint32_t site, const struct cb_steer_state *state, uint32_t place) {
    for (uint32_t w = 0; w < state->workers[place]; w++) {
        uint32_t at = socket_place(site, place, w);
        uint64_t cookie = 0;
        if (bpf_map_lookup_elem(s->fd[FD_SOCKETS], &at, &cookie) == 0) return true;
    }
    return false;
}

static bool has_sockets(const cb_steering *s, uint32_t site, const struct cb_steer_state *state) {
    for (uint32_t g = 0; g < CB_STEER_GENERATIONS; g++)
        if (place_has_sockets(s, site, state, g)) return true;
    return false;
}

/* The site of an address: the one it has, or a free one, or one whose sockets have all been closed. */
static int find_site(const cb_steering *s, const cb_addr *address, uint32_t *site, struct cb_steer_state *state) {
    uint32_t unused = CB_STEER_SITES;
    for (uint32_t i = 0; i < CB_STEER_SITES; i++) {
        int rc = read_state(s, i, state);
        if (rc < 0) return rc;
        if (state->used && !memcmp(state->address, address, sizeof *address)) {
            *site = i;
            return CB_OK;
        }
        if (unused == CB_STEER_SITES && !state->used) unused = i;
    }
    for (uint32_t i = 0; i < CB_STEER_SITES && unused == CB_STEER_SITES; i++) {
        int rc = read_state(s, i, state);
        if (rc < 0) return rc;
        if (!has_sockets(s, i, state)) unused = i;
    }
    if (unused == CB_STEER_SITES)
        return cb_fail(CB_ELIMIT, "steering: the workers listen at more than %d addresses", CB_STEER_SITES);
    *site = unused;
    memset(state, 0, sizeof *state);
    memcpy(state->address, address, sizeof *address);
    state->used = 1;
    return CB_OK;
}

static int take_key(struct cb_steer_state *state, const uint8_t *cid_key) {
    unsigned long long key[2];
    bool empty = true;
    for (int i = 0; i < CB_STEER_GENERATIONS; i++)
        empty = empty && !state->workers[i];
    memcpy(key, cid_key, sizeof key);
    key[0] = le64toh(key[0]);
    key[1] = le64toh(key[1]);
    if (!empty && memcmp(state->key, key, sizeof key) != 0)
        return cb_fail(CB_EINVAL, "steering: this key for connection IDs is not the one of the sockets added before");
    memcpy(state->key, key, sizeof key);
    return CB_OK;
}

/* Makes the place of a generation its own: sockets of a generation four before it are forgotten, and so is an earlier
 * attempt of this one that came to nothing. */
static void claim_place(cb_steering *s, uint32_t site, struct cb_steer_state *state, uint32_t generation) {
    uint32_t place = generation % CB_STEER_GENERATIONS;
    if (state->generation[place] == generation && place_has_sockets(s, site, state, place)) return;
    for (uint32_t w = 0; w < state->workers[place]; w++) {
        uint32_t at = socket_place(site, generation, w);
        bpf_map_delete_elem(s->fd[FD_SOCKETS], &at);
    }
    state->generation[place] = generation;
    state->workers[place] = 0;
}

/* ---- sockets ---- */

static int put_socket(cb_steering *s, uint32_t at, int fd) {
    uint64_t value = (uint64_t)fd;
    if (bpf_map_update_elem(s->fd[FD_SOCKETS], &at, &value, BPF_ANY) == 0) return CB_OK;
    if (errno == EINVAL || errno == ENOTSUP || errno == ENOENT)
        return cb_fail(CB_EINVAL, "steering: descriptor %d is not a bound UDP socket with SO_REUSEPORT", fd);
    if (errno == EBUSY) return cb_fail(CB_EEXIST, "steering: the socket %d is under steering already", fd);
    return cb_fail_errno(errno, "steering: adding socket %d", fd);
}

static int read_address(int fd, cb_addr *out) {
    socklen_t len = sizeof *out;
    memset(out, 0, sizeof *out);
    if (getsockname(fd, &out->sa, &len) == 0 && cb_addr_len(out)) return CB_OK;
    return cb_fail(CB_EINVAL, "steering: descriptor %d is not a bound UDP socket with SO_REUSEPORT", fd);
}

static int add_locked(cb_steering *s, uint32_t worker, uint32_t generation, int fd, const uint8_t *cid_key) {
    struct cb_steer_state state;
    uint32_t place = generation % CB_STEER_GENERATIONS, site = 0;
    cb_addr address;
    int rc = read_address(fd, &address);
    if (rc == CB_OK) rc = find_site(s, &address, &site, &state);
    if (rc < 0) return rc;
    const bool first = !has_sockets(s, site, &state);
    if (first) memset(state.workers, 0, sizeof state.workers);
    rc = take_key(&state, cid_key);
    if (rc == CB_OK && first) rc = load(s, site);
    if (rc < 0) return rc;
    claim_place(s, site, &state, generation);
    rc = put_socket(s, socket_place(site, generation, worker), fd);
    if (rc < 0) return rc;
    if (state.workers[place] <= worker) state.workers[place] = worker + 1;
    if (first) state.current = generation;
    rc = write_state(s, site, &state);
    if (rc < 0 || !first) return rc; /* sockets that join later are under the program of those that were there */
    if (setsockopt(fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_EBPF, &s->program[site], sizeof s->program[site]) < 0)
        return cb_fail_errno(errno, "steering: attaching the program to socket %d", fd);
    return CB_OK;
}

int cb_steering_add(cb_steering *s, uint32_t worker, uint32_t generation, int fd, const uint8_t *cid_key) {
    if (worker >= CB_STEER_WORKERS || generation > 255)
        return cb_fail(CB_EINVAL, "steering: worker %u, generation %u: 0 to 255 are possible", (unsigned)worker,
                       (unsigned)generation);
    pthread_mutex_lock(&s->lock);
    int rc = add_locked(s, worker, generation, fd, cid_key);
    pthread_mutex_unlock(&s->lock);
    return rc;
}

static bool activates(const struct cb_steer_state *state, uint32_t generation, const cb_addr *only) {
    const uint32_t place = generation % CB_STEER_GENERATIONS;
    if (!state->used || !state->workers[place] || state->generation[place] != generation) return false;
    return !only || !memcmp(state->address, only, sizeof *only);
}

static int activate_locked(cb_steering *s, uint32_t generation, const cb_addr *only) {
    struct cb_steer_state state;
    int found = 0;
    for (uint32_t site = 0; site < CB_STEER_SITES; site++) {
        int rc = read_state(s, site, &state);
        if (rc < 0) return rc;
        if (!activates(&state, generation, only)) continue;
        if (!place_has_sockets(s, site, &state, generation % CB_STEER_GENERATIONS)) continue;
        state.current = generation;
        rc = write_state(s, site, &state);
        if (rc < 0) return rc;
        found++;
    }
    return found ? CB_OK : cb_fail(CB_EINVAL, "steering: generation %u has no workers", (unsigned)generation);
}

int cb_steering_activate(cb_steering *s, uint32_t generation) {
    pthread_mutex_lock(&s->lock);
    int rc = activate_locked(s, generation, NULL);
    pthread_mutex_unlock(&s->lock);
    return rc;
}

int cb_steering_activate_at(cb_steering *s, uint32_t generation, int fd) {
    cb_addr address;
    int rc = read_address(fd, &address);
    if (rc < 0) return rc;
    pthread_mutex_lock(&s->lock);
    rc = activate_locked(s, generation, &address);
    pthread_mutex_unlock(&s->lock);
    return rc;
}

static int hook_add(uint32_t worker, uint32_t generation, int fd, const uint8_t cid_key[16], void *user) {
    return cb_steering_add(user, worker, generation, fd, cid_key);
}

static int hook_activate(uint32_t generation, int fd, void *user) {
    return cb_steering_activate_at(user, generation, fd);
}

cb_steering_hook cb_steering_hook_of(cb_steering *s) {
    return (cb_steering_hook){.size = sizeof(cb_steering_hook), .add = hook_add, .user = s, .activate = hook_activate};
}

void cb_steering_fds(const cb_steering *s, int32_t *fds) {
    memcpy(fds, s->fd, sizeof s->fd);
}

/* ---- numbers ---- */

static int sum(const cb_steering *s, uint32_t counter, uint64_t *values, int cpus, uint64_t *out) {
    *out = 0;
    if (bpf_map_lookup_elem(s->fd[FD_COUNTERS], &counter, values) < 0)
        return cb_fail_errno(errno, "steering: reading counters");
    for (int i = 0; i < cpus; i++)
        *out += values[i];
    return CB_OK;
}

int cb_steering_stats_get(const cb_steering *s, cb_steering_stats *out) {
    cb_steering_stats got = {.size = sizeof got};
    int rc = cb_stats_give(out, &got, sizeof got, "cb_steering_stats"); /* names mistakes before any work */
    if (rc < 0) return rc;
    int cpus = libbpf_num_possible_cpus();
    if (cpus <= 0) return cb_fail_errno(-cpus, "steering: counting processors");
    uint64_t *values = cb_mem_get(&cb_alloc_libc, (size_t)cpus * sizeof *values);
    if (!values) return cb_fail(CB_ENOMEM, "no memory to read counters");
    rc = sum(s, CB_STEER_BY_CID, values, cpus, &got.by_cid);
    if (rc == CB_OK) rc = sum(s, CB_STEER_BY_HASH, values, cpus, &got.by_hash);
    if (rc == CB_OK) rc = sum(s, CB_STEER_GONE, values, cpus, &got.gone);
    cb_mem_free(&cb_alloc_libc, values);
    return rc < 0 ? rc : cb_stats_give(out, &got, sizeof got, "cb_steering_stats");
}
