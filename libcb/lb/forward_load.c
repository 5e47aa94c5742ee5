/* The program of a cb_forward and its maps: loading, pinning, taking over. Part of libcb-xdp. */
#include "base/error.h"
#include "base/log.h"
#include "base/mem.h"
#include "forward.skel.h"
#include "lb/forward_int.h"
#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <dirent.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/vfs.h>
#include <unistd.h>

enum { BPF_FILES = (int)0xcafe4a11, PATH_BYTES = 4096, VERIFIER_BYTES = 1 << 20, LAST_LINES = 4 };
#define LINK_FILE "link_"

/* ---- libbpf's own lines ---- */

static int quiet(enum libbpf_print_level level, const char *fmt, va_list ap) {
    (void)level;
    (void)fmt;
    (void)ap;
    return 0;
}

void *fw_quiet(void) {
    return (void *)libbpf_set_print(quiet); /* the hook is of the process */
}

void fw_loud(void *before) {
    libbpf_set_print((libbpf_print_fn_t)before);
}

/* ---- what went wrong ---- */

/* The names of those of the three capabilities that this process lacks; "" when it has all. Who has no CAP_PERFMON may
 * load simpler programs only: the verifier lets no address of a packet depend on what was read from it. */
static const char *missing_capabilities(void) {
    static const char *const names[] = {"",
                                        "CAP_BPF",
                                        "CAP_NET_ADMIN",
                                        "CAP_BPF and CAP_NET_ADMIN",
                                        "CAP_PERFMON",
                                        "CAP_BPF and CAP_PERFMON",
                                        "CAP_NET_ADMIN and CAP_PERFMON",
                                        "CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON"};
    struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct d[2] = {{0}};
    if (syscall(SYS_capget, &h, d) < 0) return "";
    const uint64_t have = d[0].effective | (uint64_t)d[1].effective << 32;
    const bool all = have >> CAP_SYS_ADMIN & 1;
    const unsigned bpf = all || have >> CAP_BPF & 1, net = have >> CAP_NET_ADMIN & 1;
    const unsigned perfmon = all || have >> CAP_PERFMON & 1;
    return names[(1 - bpf) + 2 * (1 - net) + 4 * (1 - perfmon)];
}

static int not_allowed(const char *what) {
    const char *lacks = missing_capabilities();
    if (*lacks) return cb_fail(CB_EPERM, "%s: this process lacks %s", what, lacks);
    return cb_fail(CB_EPERM,
                   "%s: this process may not, although it has CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON; look for a "
                   "seccomp filter, a lockdown of the kernel or a user namespace",
                   what);
}

/* The last lines of a verifier's log on one line, without its statistics. */
static void last_words(char *out, size_t cap, const char *log) {
    static const char *const numbers[] = {"processed ", "verification time", "stack depth", "mark_precise",
                                          "max_states"};
    const char *lines[LAST_LINES] = {0};
    size_t n = 0, used = 0;
    for (const char *at = log; *at; at += strcspn(at, "\n"), at += *at == '\n') {
        bool dull = *at == '\n';
        for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
            dull = dull || strncmp(at, numbers[i], strlen(numbers[i])) == 0;
        if (!dull) lines[n++ % LAST_LINES] = at;
    }
    *out = '\0';
    for (size_t i = n > LAST_LINES ? n - LAST_LINES : 0; i < n; i++) {
        const char *line = lines[i % LAST_LINES];
        int wrote = snprintf(out + used, cap - used, "%s%.*s", used ? " | " : "", (int)strcspn(line, "\n"), line);
        if (wrote < 0 || (size_t)wrote >= cap - used) return;
        used += (size_t)wrote;
    }
}

int fw_load_failed(int err, const char *program, const char *log) {
    static const int lacking[] = {EINVAL, ENOSYS, EOPNOTSUPP, E2BIG, ENOENT, EACCES, ENOSPC, 524 /* ENOTSUPP */};
    struct utsname kernel = {.release = "?"};
    char words[700];
    (void)uname(&kernel);
    if (err == EPERM || (err == EACCES && (!*log || *missing_capabilities())))
        return not_allowed("forwarding packets in the kernel");
    last_words(words, sizeof words, log);
    for (size_t i = 0; i < sizeof lacking / sizeof *lacking; i++)
        if (err == lacking[i])
            return cb_fail(CB_ENOTSUP, "forwarding packets: kernel %s does not take the program \"%s\" (errno %d)%s%s",
                           kernel.release, program, err, *words ? ": " : "", words);
    return cb_fail_errno(err, "forwarding packets: loading the program \"%s\" into kernel %s", program, kernel.release);
}

/* ---- maps ---- */

static const char *const map_names[] = {[FW_CONTROL] = "control",
                                        [FW_TABLE] = "table",
                                        [FW_MEMBERS] = "members",
                                        [FW_IDS] = "ids",
                                        [FW_UNDERLAY] = "underlay",
                                        [FW_VIPS] = "vips",
                                        [FW_PREFIXES] = "prefixes",
                                        [FW_CIDS] = "cids",
                                        [FW_SERVERS] = "servers",
                                        [FW_LIVE] = "live",
                                        [FW_INTERFACES] = "interfaces",
                                        [FW_COUNTERS] = "counters",
                                        [FW_VIP_COUNTERS] = "vip_counters",
                                        [FW_MEMBER_COUNTERS] = "member_counters",
                                        [FW_FANOUT] = "fanout",
                                        [FW_NEAR] = "near"};

int fw_map_fd(const cb_forward *f, enum fw_map map) {
    struct bpf_map *const maps[] = {[FW_CONTROL] = f->skel->maps.control,
                                    [FW_TABLE] = f->skel->maps.table,
                                    [FW_MEMBERS] = f->skel->maps.members,
                                    [FW_IDS] = f->skel->maps.ids,
                                    [FW_UNDERLAY] = f->skel->maps.underlay,
                                    [FW_VIPS] = f->skel->maps.vips,
                                    [FW_PREFIXES] = f->skel->maps.prefixes,
                                    [FW_CIDS] = f->skel->maps.cids,
                                    [FW_SERVERS] = f->skel->maps.servers,
                                    [FW_LIVE] = f->skel->maps.live,
                                    [FW_INTERFACES] = f->skel->maps.interfaces,
                                    [FW_COUNTERS] = f->skel->maps.counters,
                                    [FW_VIP_COUNTERS] = f->skel->maps.vip_counters,
                                    [FW_MEMBER_COUNTERS] = f->skel->maps.member_counters,
                                    [FW_FANOUT] = f->skel->maps.fanout,
                                    [FW_NEAR] = f->skel->maps.near};
    return bpf_map__fd(maps[map]);
}

int fw_map_put(const cb_forward *f, enum fw_map map, const void *key, const void *value) {
    if (bpf_map_update_elem(fw_map_fd(f, map), key, value, BPF_ANY) == 0) return fw_near_put(f, map, key, value);
    if (errno == E2BIG || errno == ENOSPC)
        return cb_fail(CB_ELIMIT, "datapath: the map \"%s\" is full", map_names[map]);
    return cb_fail_errno(errno, "datapath: writing to the map \"%s\"", map_names[map]);
}

int fw_map_del(const cb_forward *f, enum fw_map map, const void *key) {
    int rc = fw_near_del(f, map, key);
    if (rc < 0 || bpf_map_delete_elem(fw_map_fd(f, map), key) == 0 || errno == ENOENT) return rc;
    return cb_fail_errno(errno, "datapath: deleting from the map \"%s\"", map_names[map]);
}

/* Maps whose size the options say; the others are as they were compiled. */
static void set_sizes(struct forward_bpf *skel, const cb_forward_opts *o) {
    (void)bpf_map__set_max_entries(skel->maps.table, o->buckets);
    (void)bpf_map__set_max_entries(skel->maps.vips, o->vips_max * FW_VIP_ENTRIES);
    (void)bpf_map__set_max_entries(skel->maps.prefixes, o->vips_max);
    (void)bpf_map__set_max_entries(skel->maps.vip_counters, o->vips_max);
    (void)bpf_map__set_max_entries(skel->maps.live, o->dcids_max);
    (void)bpf_map__set_max_entries(skel->maps.fragments, o->fragments_max);
}

/* Those that are pinned: all but what the compiler makes for constants. */
static bool is_ours(const struct bpf_map *map) {
    return bpf_map__name(map)[0] != '.' && !strchr(bpf_map__name(map), '.');
}

static int path_of(char out[PATH_BYTES], const char *dir, const char *name) {
    int n = snprintf(out, PATH_BYTES, "%s/%s", dir, name);
    return n > 0 && n < PATH_BYTES ? CB_OK : cb_fail(CB_EINVAL, "pin_dir: \"%s\" is too long", dir);
}

void fw_link_path(const char *dir, uint32_t ifindex, char *out, size_t cap) {
    snprintf(out, cap, "%s/" LINK_FILE "%u", dir, (unsigned)ifindex);
}

/* ---- the directory ---- */

static bool in_bpf_files(const char *path) {
    struct statfs s;
    return statfs(path, &s) == 0 && (int)s.f_type == BPF_FILES;
}

static void parent_of(char out[PATH_BYTES], const char *path) {
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/')
        n--;
    while (n && path[n - 1] != '/')
        n--;
    snprintf(out, PATH_BYTES, "%.*s", n ? (int)n : 1, n ? path : ".");
}

/* Makes the directory, or looks at the one that is there. */
static int open_dir(const char *dir, int *fd) {
    char parent[PATH_BYTES];
    struct stat st;
    if (strlen(dir) > PATH_BYTES - 64) return cb_fail(CB_EINVAL, "pin_dir: \"%s\" is too long", dir);
    parent_of(parent, dir);
    const bool there = stat(dir, &st) == 0;
    if (!in_bpf_files(there ? dir : parent))
        return cb_fail(CB_EINVAL, "pin_dir: \"%s\" is in no BPF file system (mount -t bpf bpf /sys/fs/bpf)", dir);
    if (!there && mkdir(dir, 0700) < 0 && errno != EEXIST) return cb_fail_errno(errno, "pin_dir: making \"%s\"", dir);
    *fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (*fd < 0 || fstat(*fd, &st) < 0) return cb_fail_errno(errno, "pin_dir: \"%s\"", dir);
    if ((st.st_uid != geteuid() && st.st_uid != 0) || (st.st_mode & 022))
        return cb_fail(CB_EINVAL, "pin_dir: \"%s\" belongs to another user, or others may write there", dir);
    for (int tries = 0; flock(*fd, LOCK_EX | LOCK_NB) < 0; tries++) {
        if (errno != EWOULDBLOCK || tries == 100)
            return cb_fail(CB_EEXIST, "pin_dir: another process is about to take over \"%s\"", dir);
        usleep(10000);
    }
    return CB_OK;
}

/* ---- taking over ---- */

static int other_map(const char *dir, const char *name, const char *what, unsigned long long has,
                     unsigned long long wanted) {
    return cb_fail(CB_EEXIST,
                   "pin_dir: \"%s\" has another datapath: the map \"%s\" has %s %llu and not %llu; end it by "
                   "cb_forward_unpin()",
                   dir, name, what, has, wanted);
}

static int check_map(const char *dir, const struct bpf_map *map, int fd) {
    struct bpf_map_info i = {0};
    uint32_t len = sizeof i;
    const char *name = bpf_map__name(map);
    if (bpf_obj_get_info_by_fd(fd, &i, &len) < 0) return cb_fail_errno(errno, "pin_dir: the map \"%s\"", name);
    if (i.type != bpf_map__type(map)) return other_map(dir, name, "type", i.type, bpf_map__type(map));
    if (i.key_size != bpf_map__key_size(map))
        return other_map(dir, name, "keys of bytes", i.key_size, bpf_map__key_size(map));
    if (i.value_size != bpf_map__value_size(map))
        return other_map(dir, name, "values of bytes", i.value_size, bpf_map__value_size(map));
    if (i.max_entries != bpf_map__max_entries(map))
        return other_map(dir, name, "entries", i.max_entries, bpf_map__max_entries(map));
    return CB_OK;
}

/* How many of the maps are pinned; *all is how many there are. */
static size_t count_pinned(const char *dir, const struct forward_bpf *skel, size_t *all) {
    char path[PATH_BYTES];
    size_t n = 0;
    const struct bpf_map *map;
    *all = 0;
    bpf_object__for_each_map(map, skel->obj) {
        if (!is_ours(map)) continue;
        ++*all;
        n += path_of(path, dir, bpf_map__name(map)) == CB_OK && access(path, F_OK) == 0;
    }
    return n;
}

static bool has_links(const char *dir) {
    bool found = false;
    DIR *d = opendir(dir);
    for (struct dirent *e; d && (e = readdir(d)) != NULL;)
        found = found || strncmp(e->d_name, LINK_FILE, strlen(LINK_FILE)) == 0;
    if (d) closedir(d);
    return found;
}

static void unpin_maps(const char *dir, const struct bpf_object *obj) {
    char path[PATH_BYTES];
    struct bpf_map *map;
    bpf_object__for_each_map(map, obj) if (is_ours(map) && path_of(path, dir, bpf_map__name(map)) == CB_OK)(void)
        unlink(path);
}

static int reuse_maps(const char *dir, struct forward_bpf *skel) {
    char path[PATH_BYTES];
    struct bpf_map *map;
    bpf_object__for_each_map(map, skel->obj) {
        if (!is_ours(map)) continue;
        int rc = path_of(path, dir, bpf_map__name(map));
        if (rc < 0) return rc;
        int fd = bpf_obj_get(path);
        if (fd < 0) return cb_fail_errno(errno, "pin_dir: opening \"%s\"", path);
        rc = check_map(dir, map, fd);
        if (rc == CB_OK && bpf_map__reuse_fd(map, fd) < 0)
            rc = cb_fail_errno(errno, "pin_dir: taking over \"%s\"", path);
        close(fd);
        if (rc < 0) return rc;
    }
    return CB_OK;
}

/* What was left of a start that did not come to its end is removed; a whole datapath is taken over. */
static int look_into_dir(cb_forward *f) {
    size_t all = 0, there = count_pinned(f->pin_dir, f->skel, &all);
    if (there == all) {
        f->adopted = true;
        return reuse_maps(f->pin_dir, f->skel);
    }
    if (has_links(f->pin_dir))
        return cb_fail(CB_EEXIST,
                       "pin_dir: \"%s\" has another datapath: %zu of %zu maps are there; end it by "
                       "cb_forward_unpin()",
                       f->pin_dir, there, all);
    unpin_maps(f->pin_dir, f->skel->obj);
    return CB_OK;
}

static int pin_maps(cb_forward *f) {
    char path[PATH_BYTES];
    struct bpf_map *map;
    bpf_object__for_each_map(map, f->skel->obj) {
        if (!is_ours(map)) continue;
        int rc = path_of(path, f->pin_dir, bpf_map__name(map));
        if (rc < 0) return rc;
        if (bpf_obj_pin(bpf_map__fd(map), path) < 0) {
            rc = cb_fail_errno(errno, "pin_dir: pinning \"%s\"", path);
            unpin_maps(f->pin_dir, f->skel->obj);
            return rc;
        }
    }
    return CB_OK;
}

/* ---- loading ---- */

/* Each program has its part of the log, so that the one with words in it is the one that failed. */
static int load_programs(cb_forward *f) {
    char *log = cb_mem_new(&f->alloc, 2 * VERIFIER_BYTES);
    struct bpf_program *p;
    size_t n = 0;
    if (!log) return cb_fail(CB_ENOMEM, "no memory for a verifier's log");
    bpf_object__for_each_program(p, f->skel->obj) if (n < 2)(void)
        bpf_program__set_log_buf(p, log + n++ * VERIFIER_BYTES, VERIFIER_BYTES);
    int rc = 0, err = -forward_bpf__load(f->skel);
    if (err) {
        const char *name = "forward", *words = "";
        n = 0;
        bpf_object__for_each_program(p, f->skel->obj) {
            if (n < 2 && log[n * VERIFIER_BYTES]) {
                name = bpf_program__name(p);
                words = log + n * VERIFIER_BYTES;
            }
            n++;
        }
        rc = fw_load_failed(err, name, words);
    }
    cb_mem_free(&f->alloc, log);
    return rc;
}

static int open_and_load(cb_forward *f, const cb_forward_opts *o) {
    void *before = fw_quiet();
    int rc = CB_OK;
    f->skel = forward_bpf__open();
    if (!f->skel) {
        rc = fw_load_failed(errno, "forward", "");
    } else {
        set_sizes(f->skel, o);
        if (f->pin_dir) rc = look_into_dir(f);
        if (rc == CB_OK) rc = load_programs(f);
    }
    fw_loud(before);
    return rc;
}

static size_t whole_pages(size_t bytes) {
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    return (bytes + page - 1) / page * page;
}

static int map_memory(cb_forward *f) {
    f->words_bytes = whole_pages(f->buckets * sizeof *f->words);
    f->control =
        mmap(NULL, whole_pages(sizeof *f->control), PROT_READ | PROT_WRITE, MAP_SHARED, fw_map_fd(f, FW_CONTROL), 0);
    if (f->control == MAP_FAILED) f->control = NULL;
    if (f->control)
        f->words = mmap(NULL, f->words_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fw_map_fd(f, FW_TABLE), 0);
    if (f->words == MAP_FAILED) f->words = NULL;
    return f->words ? CB_OK : cb_fail_errno(errno, "datapath: mapping the table into memory");
}

static void key_words(uint64_t out[2], const uint8_t key[16]) {
    memcpy(out, key, 16);
    out[0] = le64toh(out[0]);
    out[1] = le64toh(out[1]);
}

static int check_control(const cb_forward *f, const cb_forward_opts *o) {
    uint64_t key[2];
    const struct cb_fw_control *c = f->control;
    key_words(key, o->hash_key);
    if (c->layout != CB_FW_LAYOUT)
        return cb_fail(CB_EEXIST,
                       "pin_dir: \"%s\" has a datapath of layout %u, this library knows %d; end it by "
                       "cb_forward_unpin()",
                       f->pin_dir, (unsigned)c->layout, CB_FW_LAYOUT);
    if (memcmp(c->hash_key, key, sizeof key) != 0)
        return cb_fail(CB_EEXIST, "pin_dir: \"%s\" has a datapath with another hash_key; end it by cb_forward_unpin()",
                       f->pin_dir);
    return CB_OK;
}

static void own_address(uint8_t *out, size_t len, const char *text) {
    uint8_t bytes[16] = {0};
    if (text) (void)fw_address_parse(bytes, text, "address"); /* was checked */
    memcpy(out, bytes + sizeof bytes - len, len);
}

/* A key that is known already stays where it is; a new one becomes key 0, and current. */
static void first_tag_key(struct cb_fw_control *c, const uint8_t *key) {
    uint64_t words[2];
    if (!key) return;
    key_words(words, key);
    for (uint32_t i = 0; i < CB_FW_TAG_KEYS; i++)
        if (memcmp(c->tag_key[i], words, sizeof words) == 0) return;
    memcpy(c->tag_key[0], words, sizeof words);
    __atomic_store_n(&c->tag_current, 0, __ATOMIC_RELEASE);
}

static void write_control(cb_forward *f, const cb_forward_opts *o) {
    struct cb_fw_control *c = f->control;
    if (!f->adopted) {
        uint64_t key[2];
        key_words(key, o->hash_key);
        memcpy(c->hash_key, key, sizeof key);
        c->buckets = o->buckets;
        c->self_slot = CB_FW_NOBODY;
        c->layout = CB_FW_LAYOUT;
    }
    if (c->self != o->id) c->self_slot = CB_FW_NOBODY;
    c->self = o->id;
    c->hop_rate = o->hop_rate;
    c->icmp_rate = o->icmp_rate;
    c->gue_port = htons(o->gue_port);
    c->underlay_mtu = (uint16_t)o->underlay_mtu;
    own_address(c->address4, sizeof c->address4, o->address4);
    own_address(c->address6, sizeof c->address6, o->address6);
    first_tag_key(c, o->tag_key);
}

/* Nobody's, until the table says whose. */
static void empty_table(cb_forward *f) {
    for (uint32_t i = 0; i < f->buckets; i++)
        f->words[i] = (uint64_t)CB_FW_NOBODY << 16 | CB_FW_NOBODY;
}

static int begin(cb_forward *f, const cb_forward_opts *o) {
    int rc = open_and_load(f, o);
    if (rc == CB_OK) rc = map_memory(f);
    if (rc == CB_OK && f->adopted) rc = check_control(f, o);
    if (rc == CB_OK) rc = fw_fan_open(f);
    if (rc == CB_OK) rc = fw_near_build(f);
    if (rc < 0) return rc;
    f->live_fd = fw_map_fd(f, FW_LIVE);
    if (!f->adopted) {
        write_control(f, o);
        empty_table(f);
        return f->pin_dir ? pin_maps(f) : CB_OK;
    }
    /* The program changes last: what fails before leaves the predecessor's alone. */
    rc = fw_adopt(f);
    if (rc == CB_OK) write_control(f, o);
    return rc;
}

int fw_load(cb_forward *f, const cb_forward_opts *o) {
    int dir = -1;
    int rc = o->pin_dir ? open_dir(o->pin_dir, &dir) : CB_OK;
    if (rc == CB_OK) rc = begin(f, o);
    if (rc < 0 && dir >= 0) {
        if (f->skel && !f->adopted && rc != CB_EEXIST) unpin_maps(f->pin_dir, f->skel->obj);
        (void)rmdir(o->pin_dir); /* if it is empty */
    }
    if (dir >= 0) close(dir); /* and the lock */
    return rc;
}

void fw_unload(cb_forward *f) {
    if (f->control) munmap(f->control, whole_pages(sizeof *f->control));
    if (f->words) munmap(f->words, f->words_bytes);
    forward_bpf__destroy(f->skel);
}

int fw_program(const cb_forward *f) {
    return bpf_program__fd(f->skel->progs.forward);
}

int fw_program_mss(const cb_forward *f) {
    struct bpf_program *p;
    bpf_object__for_each_program(p, f->skel->obj) {
        if (bpf_program__type(p) == BPF_PROG_TYPE_SCHED_CLS && !f->no_mss) return bpf_program__fd(p);
    }
    return -1;
}

uint32_t fw_program_id(const cb_forward *f) {
    struct bpf_prog_info i = {0};
    uint32_t len = sizeof i;
    return bpf_obj_get_info_by_fd(fw_program(f), &i, &len) < 0 ? 0 : i.id;
}

/* ---- ending what is pinned ---- */

static bool is_map_name(const struct bpf_object *obj, const char *name) {
    return bpf_object__find_map_by_name(obj, name) != NULL;
}

/* Only names that a datapath uses, of this version at least. */
static int check_dir(const char *dir, const struct bpf_object *obj) {
    int rc = CB_OK;
    DIR *d = opendir(dir);
    if (!d) return cb_fail_errno(errno, "pin_dir: \"%s\"", dir);
    for (struct dirent *e; rc == CB_OK && (e = readdir(d)) != NULL;) {
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..") || is_map_name(obj, e->d_name)) continue;
        if (strncmp(e->d_name, LINK_FILE, strlen(LINK_FILE)) != 0)
            rc = cb_fail(CB_EINVAL, "pin_dir: \"%s/%s\" is not a datapath's", dir, e->d_name);
    }
    closedir(d);
    return rc;
}

static int end_link(const char *dir, const char *name) {
    char path[PATH_BYTES];
    int rc = path_of(path, dir, name);
    if (rc < 0) return rc;
    int fd = bpf_obj_get(path);
    if (fd < 0) return cb_fail_errno(errno, "pin_dir: opening \"%s\"", path);
    if (bpf_link_detach(fd) < 0 && errno != ENOLINK && errno != ENODEV && errno != EINVAL)
        rc = cb_fail_errno(errno, "pin_dir: detaching \"%s\"", path);
    close(fd);
    if (rc == CB_OK && unlink(path) < 0) rc = cb_fail_errno(errno, "pin_dir: removing \"%s\"", path);
    return rc;
}

static int end_links(const char *dir) {
    int rc = CB_OK;
    DIR *d = opendir(dir);
    if (!d) return cb_fail_errno(errno, "pin_dir: \"%s\"", dir);
    for (struct dirent *e; rc == CB_OK && (e = readdir(d)) != NULL;) {
        if (strncmp(e->d_name, LINK_FILE, strlen(LINK_FILE)) != 0) continue;
        fw_mss_detach((uint32_t)strtoul(e->d_name + strlen(LINK_FILE), NULL, 10));
        rc = end_link(dir, e->d_name);
    }
    closedir(d);
    return rc;
}

int cb_forward_unpin(const char *pin_dir) {
    if (!pin_dir) return cb_fail(CB_EINVAL, "cb_forward_unpin: pin_dir is NULL");
    struct stat st;
    int lock = -1;
    if (stat(pin_dir, &st) < 0) return cb_fail_errno(errno, "pin_dir: \"%s\"", pin_dir);
    void *before = fw_quiet();
    struct forward_bpf *skel = forward_bpf__open();
    int rc = skel ? open_dir(pin_dir, &lock) : fw_load_failed(errno, "forward", "");
    if (rc == CB_OK) rc = check_dir(pin_dir, skel->obj);
    if (rc == CB_OK) rc = end_links(pin_dir);
    if (rc == CB_OK) unpin_maps(pin_dir, skel->obj);
    if (rc == CB_OK && rmdir(pin_dir) < 0) rc = cb_fail_errno(errno, "pin_dir: removing \"%s\"", pin_dir);
    if (lock >= 0) close(lock);
    forward_bpf__destroy(skel);
    fw_loud(before);
    return rc;
}
