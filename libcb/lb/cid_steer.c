/* Loads bpf/cid_steer.bpf.c, keeps its maps, and puts sockets under it. Part of libcb-xdp. */
#include "cid_steer.h"
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
#include <sys/socket.h>
#include <unistd.h>

/* The order of cb_steering_fds(). */
enum { FD_PROGRAM, FD_SOCKETS, FD_STATE, FD_COUNTERS };
_Static_assert((int)FD_COUNTERS + 1 == (int)CB_STEERING_FDS, "every descriptor has its place");
_Static_assert((int)CB_STEER_GENERATIONS == (int)CB_STEERING_GENERATIONS, "program and header agree");

struct cb_steering {
    int32_t fd[CB_STEERING_FDS];
    bool adopted;
    pthread_mutex_t lock; /* one change of the state at a time */
};

static const uint32_t only = 0; /* key of the maps with one element */

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

static int load(cb_steering *s) {
    libbpf_print_fn_t print = libbpf_set_print(quiet); /* libcb prints nothing; libbpf's hook is of the process */
    struct cid_steer_bpf *skel = cid_steer_bpf__open_and_load();
    int err = errno;
    libbpf_set_print(print);
    if (!skel) return load_failed(err);
    const int fds[CB_STEERING_FDS] = {bpf_program__fd(skel->progs.cid_steer), bpf_map__fd(skel->maps.sockets),
                                      bpf_map__fd(skel->maps.state), bpf_map__fd(skel->maps.counters)};
    int rc = CB_OK;
    for (int i = 0; i < CB_STEERING_FDS && rc == CB_OK; i++)
        rc = keep_copy(&s->fd[i], fds[i]);
    cid_steer_bpf__destroy(skel);
    return rc;
}

static bool is_map(int fd, uint32_t type, uint32_t entries, uint32_t value_size) {
    struct bpf_map_info info = {0};
    uint32_t len = sizeof info;
    return bpf_obj_get_info_by_fd(fd, &info, &len) == 0 && info.type == type && info.max_entries == entries &&
           info.value_size == value_size;
}

static bool is_program(int fd) {
    struct bpf_prog_info info = {0};
    uint32_t len = sizeof info;
    return bpf_obj_get_info_by_fd(fd, &info, &len) == 0 && info.type == BPF_PROG_TYPE_SK_REUSEPORT;
}

static int adopt(cb_steering *s, const int32_t *fds) {
    int rc = CB_OK;
    s->adopted = true;
    for (int i = 0; i < CB_STEERING_FDS && rc == CB_OK; i++)
        rc = keep_copy(&s->fd[i], fds[i]);
    if (rc < 0) return rc;
    if (is_program(fds[FD_PROGRAM]) &&
        is_map(fds[FD_SOCKETS], BPF_MAP_TYPE_REUSEPORT_SOCKARRAY, CB_STEER_SOCKETS, sizeof(uint64_t)) &&
        is_map(fds[FD_STATE], BPF_MAP_TYPE_ARRAY, 1, sizeof(struct cb_steer_state)) &&
        is_map(fds[FD_COUNTERS], BPF_MAP_TYPE_PERCPU_ARRAY, CB_STEER_COUNTERS, sizeof(uint64_t)))
        return CB_OK;
    return cb_fail(CB_EINVAL, "cb_steering_opts: adopt_fds (%d, %d, %d, %d) are not those of a steering", fds[0],
                   fds[1], fds[2], fds[3]);
}

int cb_steering_new(cb_steering **out, const cb_steering_opts *opts) {
    cb_steering_opts o;
    int rc = cb_opts_read(&o, sizeof o, opts, "cb_steering_opts");
    if (rc < 0) return rc;
    cb_steering *s = cb_mem_new(&cb_alloc_libc, sizeof *s);
    if (!s) return cb_fail(CB_ENOMEM, "no memory for a steering");
    for (int i = 0; i < CB_STEERING_FDS; i++)
        s->fd[i] = -1;
    pthread_mutex_init(&s->lock, NULL);
    rc = o.adopt_fds ? adopt(s, o.adopt_fds) : load(s);
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
    pthread_mutex_destroy(&s->lock);
    cb_mem_free(&cb_alloc_libc, s);
}

/* ---- the state ---- */

static int read_state(const cb_steering *s, struct cb_steer_state *state) {
    if (bpf_map_lookup_elem(s->fd[FD_STATE], &only, state) == 0) return CB_OK;
    return cb_fail_errno(errno, "steering: reading the state");
}

static int write_state(cb_steering *s, const struct cb_steer_state *state) {
    if (bpf_map_update_elem(s->fd[FD_STATE], &only, state, BPF_ANY) == 0) return CB_OK;
    return cb_fail_errno(errno, "steering: writing the state");
}

static bool is_empty(const struct cb_steer_state *state) {
    for (int i = 0; i < CB_STEER_GENERATIONS; i++)
        if (state->workers[i]) return false;
    return true;
}

static int agree_on_key(struct cb_steer_state *state, const uint8_t *cid_key) {
    unsigned long long key[2];
    memcpy(key, cid_key, sizeof key);
    key[0] = le64toh(key[0]);
    key[1] = le64toh(key[1]);
    if (!is_empty(state) && memcmp(state->key, key, sizeof key) != 0)
        return cb_fail(CB_EINVAL, "steering: this key for connection IDs is not the one of the sockets added before");
    memcpy(state->key, key, sizeof key);
    return CB_OK;
}

/* Makes the place of a generation its own: sockets of a generation four before it are forgotten. */
static void claim_place(cb_steering *s, struct cb_steer_state *state, uint32_t generation) {
    uint32_t place = generation % CB_STEER_GENERATIONS;
    if (state->workers[place] && state->generation[place] == generation) return;
    for (uint32_t w = 0; w < state->workers[place]; w++) {
        uint32_t at = place * CB_STEER_WORKERS + w;
        bpf_map_delete_elem(s->fd[FD_SOCKETS], &at);
    }
    state->generation[place] = generation;
    state->workers[place] = 0;
}

/* ---- sockets ---- */

static int put_socket(cb_steering *s, uint32_t at, int fd) {
    uint64_t value = (uint64_t)fd;
    if (bpf_map_update_elem(s->fd[FD_SOCKETS], &at, &value, BPF_ANY) == 0) return CB_OK;
    if (errno == EINVAL || errno == EBADF || errno == ENOTSOCK || errno == ENOTSUP || errno == ENOENT)
        return cb_fail(CB_EINVAL, "steering: descriptor %d is not a bound UDP socket with SO_REUSEPORT", fd);
    if (errno == EBUSY) return cb_fail(CB_EEXIST, "steering: the socket %d is under steering already", fd);
    return cb_fail_errno(errno, "steering: adding socket %d", fd);
}

static int add_locked(cb_steering *s, uint32_t worker, uint32_t generation, int fd, const uint8_t *cid_key) {
    struct cb_steer_state state;
    uint32_t place = generation % CB_STEER_GENERATIONS;
    int rc = read_state(s, &state);
    if (rc == CB_OK) rc = agree_on_key(&state, cid_key);
    if (rc < 0) return rc;
    claim_place(s, &state, generation);
    rc = put_socket(s, place * CB_STEER_WORKERS + worker, fd);
    if (rc < 0) return rc;
    if (state.workers[place] <= worker) state.workers[place] = worker + 1;
    if (!s->adopted) state.current = generation;
    rc = write_state(s, &state);
    if (rc < 0) return rc;
    if (setsockopt(fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_EBPF, &s->fd[FD_PROGRAM], sizeof s->fd[FD_PROGRAM]) < 0)
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

int cb_steering_activate(cb_steering *s, uint32_t generation) {
    struct cb_steer_state state;
    uint32_t place = generation % CB_STEER_GENERATIONS;
    pthread_mutex_lock(&s->lock);
    int rc = read_state(s, &state);
    if (rc == CB_OK && (!state.workers[place] || state.generation[place] != generation))
        rc = cb_fail(CB_EINVAL, "steering: generation %u has no workers", (unsigned)generation);
    if (rc == CB_OK) {
        state.current = generation;
        rc = write_state(s, &state);
    }
    pthread_mutex_unlock(&s->lock);
    return rc;
}

static int hook_add(uint32_t worker, uint32_t generation, int fd, const uint8_t cid_key[16], void *user) {
    return cb_steering_add(user, worker, generation, fd, cid_key);
}

cb_steering_hook cb_steering_hook_of(cb_steering *s) {
    return (cb_steering_hook){.size = sizeof(cb_steering_hook), .add = hook_add, .user = s};
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
    if (out->size < sizeof got.size || out->size > 4096)
        return cb_fail(CB_EINVAL, "cb_steering_stats: its size member is %zu; set it to sizeof(cb_steering_stats)",
                       out->size);
    int cpus = libbpf_num_possible_cpus();
    if (cpus <= 0) return cb_fail_errno(-cpus, "steering: counting processors");
    uint64_t *values = cb_mem_get(&cb_alloc_libc, (size_t)cpus * sizeof *values);
    if (!values) return cb_fail(CB_ENOMEM, "no memory to read counters");
    int rc = sum(s, CB_STEER_BY_CID, values, cpus, &got.by_cid);
    if (rc == CB_OK) rc = sum(s, CB_STEER_BY_HASH, values, cpus, &got.by_hash);
    if (rc == CB_OK) rc = sum(s, CB_STEER_GONE, values, cpus, &got.gone);
    cb_mem_free(&cb_alloc_libc, values);
    if (rc < 0) return rc;
    size_t known = out->size < sizeof got ? out->size : sizeof got;
    got.size = out->size;
    memcpy(out, &got, known);
    return CB_OK;
}
