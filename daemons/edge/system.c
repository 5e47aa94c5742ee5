/* What cb-edge asks of the operating system: descriptors, users, capabilities, systemd, standard error. */
#include "edge.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <linux/capability.h>
#include <netdb.h>
#include <pwd.h>
#include <sched.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

void edge_raise_files(const cb_log *log) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur == limit.rlim_max) return;
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
        edge_say(log, CB_LOG_WARN, "RLIMIT_NOFILE stays at its soft limit: %s", strerror(errno));
}

uint32_t edge_cpus(void) {
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    return n < 1 ? 1 : n > EDGE_WORKERS_MAX ? EDGE_WORKERS_MAX : (uint32_t)n;
}

/* ---- what went wrong ---- */

static char detail[256]; /* of the main thread, while it starts */

static int fail(int rc, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static int fail(int rc, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(detail, sizeof detail, fmt, ap);
    va_end(ap);
    return rc;
}

const char *edge_why(void) {
    return *detail ? detail : cb_last_error();
}

static char *join(const char *folder, size_t len, const char *name) {
    char *path = NULL;
    return asprintf(&path, "%.*s/%s", (int)len, folder, name) < 0 ? NULL : path;
}

/* ---- addresses ---- */

/* Binds and does not listen: who connects while this looks must not be taken for a moment and then be reset, and who
 * waits for the port must not find it before it is served. Beside a socket that listens, binding fails already. */
static int probe(const struct addrinfo *a, const char *address, const char *kind) {
    int fd = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC, 0), on = 1;
    if (fd < 0) return CB_OK; /* the real one says it better */
    if (a->ai_socktype == SOCK_STREAM) setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    int error = bind(fd, a->ai_addr, a->ai_addrlen) < 0 ? errno : 0;
    close(fd);
    if (error == EADDRINUSE) return fail(CB_EEXIST, "%s is in use by another program (%s)", address, kind);
    if (error == EACCES) return fail(CB_EPERM, "%s: no right to open this port (%s)", address, kind);
    return CB_OK;
}

int edge_probe(const char *address, bool quic) {
    const char *colon = strrchr(address, ':');
    struct addrinfo *a = NULL;
    char host[64] = "::";
    size_t n = colon ? (size_t)(colon - address) : 0;
    int rc = CB_OK;
    if (!colon || strcmp(colon, ":0") == 0 || n >= sizeof host) return CB_OK;
    if (n) snprintf(host, sizeof host, "%.*s", (int)(*address == '[' ? n - 2 : n), address + (*address == '['));
    for (int type = 0; type < (quic ? 2 : 1) && rc == CB_OK; type++) {
        const struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE,
                                       .ai_socktype = type ? SOCK_DGRAM : SOCK_STREAM};
        if (getaddrinfo(host, colon + 1, &hints, &a) != 0) return CB_OK;
        rc = probe(a, address, type ? "UDP" : "TCP");
        freeaddrinfo(a);
    }
    return rc;
}

/* ---- users ---- */

static int find_ids(const edge_conf *c, uid_t *uid, gid_t *gid) {
    const struct passwd *user = getpwnam(c->user);
    if (!user) return fail(CB_EINVAL, "/user: there is no user \"%s\" on this machine", c->user);
    *uid = user->pw_uid;
    *gid = user->pw_gid;
    const struct group *group = c->group ? getgrnam(c->group) : NULL;
    if (c->group && !group) return fail(CB_EINVAL, "/group: there is no group \"%s\" on this machine", c->group);
    if (group) *gid = group->gr_gid;
    return CB_OK;
}

int edge_check_user(const edge_conf *c) {
    uid_t uid;
    gid_t gid;
    return c->user ? find_ids(c, &uid, &gid) : CB_OK;
}

static int keep_only(uint64_t capabilities) {
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {0};
    for (int i = 0; i < 2; i++)
        data[i].permitted = data[i].effective = data[i].inheritable = (uint32_t)(capabilities >> 32 * i);
    return (int)syscall(SYS_capset, &head, data);
}

/* A file of secrets that root made goes to the user, who rotates it later. */
static int give_file(const char *path, uid_t uid, gid_t gid) {
    struct stat st;
    if (!path) return CB_OK;
    int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT) return CB_OK; /* of somebody else, who brings it later */
    int bad = fd < 0 || fstat(fd, &st) < 0;
    if (!bad && S_ISREG(st.st_mode) && st.st_uid == 0 && st.st_nlink == 1) bad = fchown(fd, uid, gid) < 0;
    int error = errno;
    if (fd >= 0) close(fd);
    return bad ? fail(CB_EPERM, "cannot give %s to the user: %s", path, strerror(error)) : CB_OK;
}

int edge_give_folder(int at, const char *name, uid_t uid, gid_t gid, int deeper) {
    int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), rc = 0;
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    struct stat st;
    if (!d) {
        if (fd >= 0) close(fd);
        return -1;
    }
    if (fstat(fd, &st) == 0 && st.st_uid == 0) rc = fchown(fd, uid, gid);
    for (struct dirent *e; rc == 0 && (e = readdir(d));) {
        if (e->d_name[0] == '.' || fstatat(fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0) continue;
        if (S_ISDIR(st.st_mode) && deeper) rc = edge_give_folder(fd, e->d_name, uid, gid, deeper - 1);
        if (S_ISREG(st.st_mode) && st.st_uid == 0 && st.st_nlink == 1) /* a second name may be /etc/shadow */
            rc = fchownat(fd, e->d_name, uid, gid, AT_SYMLINK_NOFOLLOW);
    }
    const int error = errno;
    closedir(d);
    errno = error;
    return rc;
}

/* The folder of the admin socket, when it is not there (/run is empty after a boot): made for the user. One that is
 * there is left as it is. */
static int make_socket_folder(const edge_conf *c, uid_t uid, gid_t gid) {
    const char *path = c->admin ? c->admin->socket : "", *slash = strrchr(path, '/');
    if (!slash || slash == path) return CB_OK;
    char *folder = strndup(path, (size_t)(slash - path));
    if (!folder) return fail(CB_ENOMEM, "no memory for a path");
    int made = mkdir(folder, 0755), rc = CB_OK;    /* who may connect says the socket's own mode */
    if (made == 0 && lchown(folder, uid, gid) < 0) /* of no link that came in its place */
        rc = fail(CB_EPERM, "cannot give %s to the user: %s", folder, strerror(errno));
    free(folder); /* that it could not be made shows when the socket is opened */
    return rc;
}

/* A successor loads the datapath's program (the verifier takes it of who has CAP_PERFMON only: others' are checked for
 * what processors speculate), interfaces come back, and routes and neighbours are looked for. */
static uint64_t kept_capabilities(const edge_conf *c) {
    const uint64_t bind = UINT64_C(1) << CAP_NET_BIND_SERVICE;
    const uint64_t forward =
        UINT64_C(1) << CAP_NET_ADMIN | UINT64_C(1) << CAP_BPF | UINT64_C(1) << CAP_NET_RAW | UINT64_C(1) << CAP_PERFMON;
    return (c->keep_bind_capability ? bind : 0) | (c->forwarding && c->forwarding->interfaces.len ? forward : 0);
}

/* What is ambient goes to each program that is started: hooks and checks must not have it, and successors must. */
void edge_ambient(bool raise) {
    if (!raise) prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    for (unsigned long i = 0; raise && i < 64; i++)
        prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, i, 0, 0); /* those that are both permitted and inheritable */
}

int edge_drop_privileges(const edge_conf *c, const cb_log *log) {
    uid_t uid = 0;
    gid_t gid = 0;
    edge_ambient(false); /* a unit or a predecessor may have raised some */
    if (!c->user) {
        if (geteuid() == 0) edge_say(log, CB_LOG_WARN, "running as root: set \"user\" to give that up");
        prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        return CB_OK;
    }
    int rc = find_ids(c, &uid, &gid);
    if (rc < 0) return rc;
    if (geteuid() != 0 && geteuid() == uid) return CB_OK;
    if (geteuid() != 0) return fail(CB_EPERM, "/user: only root can become \"%s\"", c->user);
    rc = give_file(c->ticket_key_file, uid, gid);
    if (rc == CB_OK) rc = give_file(c->state_key, uid, gid);
    if (rc == CB_OK) rc = give_file(c->quic_secret_file, uid, gid);
    if (rc == CB_OK && c->quic_lb) rc = give_file(c->quic_lb->cid_key_file, uid, gid);
    if (rc == CB_OK && c->forwarding) rc = give_file(c->forwarding->key_file, uid, gid);
    for (size_t i = 0; c->forwarding && i < c->forwarding->cids.len && rc == CB_OK; i++)
        rc = give_file(((const edge_forward_cid_conf *)c->forwarding->cids.at)[i].cid_key_file, uid, gid);
    if (rc == CB_OK && c->forwarding) rc = give_file(c->forwarding->state_file, uid, gid);
    if (rc == CB_OK && c->forwarding && c->forwarding->pin_dir &&
        edge_give_folder(AT_FDCWD, c->forwarding->pin_dir, uid, gid, 2) < 0 && errno != ENOENT)
        rc = fail(CB_EPERM, "cannot give %s to the user: %s", c->forwarding->pin_dir, strerror(errno));
    if (rc == CB_OK && (rc = edge_acme_give(c, uid, gid)) < 0)
        fail(rc, "cannot give %s to the user: %s", c->acme->dir, strerror(errno));
    const char *state = c->admin ? c->admin->state_dir : NULL;
    if (rc == CB_OK && state && edge_give_folder(AT_FDCWD, state, uid, gid, 0) < 0 && errno != ENOENT)
        rc = fail(CB_EPERM, "cannot give %s to the user: %s", state, strerror(errno));
    if (rc == CB_OK) rc = make_socket_folder(c, uid, gid);
    if (rc < 0) return rc;
    const uint64_t kept = kept_capabilities(c);
    if (kept) prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0);
    if (initgroups(c->user, gid) < 0 || setresgid(gid, gid, gid) < 0 || setresuid(uid, uid, uid) < 0)
        return fail(CB_EPERM, "/user: cannot become \"%s\": %s", c->user, strerror(errno));
    if (keep_only(kept) < 0) return fail(CB_EPERM, "cannot set capabilities: %s", strerror(errno));
    prctl(PR_SET_KEEPCAPS, 0, 0, 0, 0);
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (uid != 0 && setuid(0) == 0) return fail(CB_EPERM, "root rights came back after they were given up");
    return CB_OK;
}

/* Threads have these flags each, and inherit them: before there is a second one. */
void edge_forbid_rights(void) {
    if (geteuid() == 0) prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
}

/* A socket belongs to who made it, and SO_REUSEPORT joins those of one user only. */
int edge_give_sockets(const edge *e, const edge_conf *c) {
    uid_t uid;
    gid_t gid;
    int32_t fds[CB_HTTP_SERVER_FDS];
    if (!c->user || geteuid() != 0) return CB_OK;
    int rc = find_ids(c, &uid, &gid);
    for (uint32_t i = 0; i < e->n_workers && rc == CB_OK; i++)
        for (const edge_server *s = e->workers[i].servers; s && rc == CB_OK; s = s->next) {
            int n = cb_http_server_fds(s->http, fds, CB_HTTP_SERVER_FDS);
            for (int k = 0; k < n && k < CB_HTTP_SERVER_FDS && rc == CB_OK; k++)
                if (fchown(fds[k], uid, gid) < 0)
                    rc = fail(CB_EPERM, "cannot give a socket to the user: %s", strerror(errno));
        }
    return rc;
}

/* ---- files ---- */

/* As execvp() would find it, but kept as a path: whatever is there when the time comes is the new program. */
char *edge_find_program(const char *argv0) {
    char path[PATH_MAX];
    const char *folders = getenv("PATH");
    if (*argv0 == '/') return strdup(argv0);
    if (strchr(argv0, '/'))
        return getcwd(path, sizeof path - strlen(argv0) - 2) ? join(path, strlen(path), argv0) : NULL;
    for (const char *at = folders ? folders : "/usr/bin:/bin"; *at; at += strcspn(at, ":"), at += *at == ':') {
        char *found = join(at, strcspn(at, ":"), argv0);
        if (!found || access(found, X_OK) == 0) return found;
        free(found);
    }
    return strdup("/proc/self/exe");
}

int edge_pid_file_write(const edge_conf *c) {
    char temp[PATH_MAX], text[32];
    if (!c->pid_file) return CB_OK;
    if (snprintf(temp, sizeof temp, "%s.%ld", c->pid_file, (long)getpid()) >= (int)sizeof temp)
        return fail(CB_EINVAL, "/pid_file: the path is too long");
    int n = snprintf(text, sizeof text, "%ld\n", (long)getpid());
    unlink(temp); /* in a container an earlier process, which died here, had our number */
    int fd = open(temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    bool good = fd >= 0 && write(fd, text, (size_t)n) == n && rename(temp, c->pid_file) == 0;
    int error = errno;
    if (fd >= 0) close(fd);
    if (fd >= 0 && !good) unlink(temp);
    return good ? CB_OK : fail(CB_ESYS, "/pid_file: cannot write %s: %s", c->pid_file, strerror(error));
}

/* Only our own: a successor may have written its number by now. */
void edge_pid_file_remove(const edge_conf *c) {
    char text[32] = "";
    int fd = c->pid_file ? open(c->pid_file, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0) return;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    if (n > 0 && strtol(text, NULL, 10) == (long)getpid()) unlink(c->pid_file);
}

/* ---- systemd ---- */

void edge_notify(const char *state) {
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    size_t n = path ? strlen(path) : 0;
    if (!n || n >= sizeof to.sun_path || (*path != '/' && *path != '@')) return;
    memcpy(to.sun_path, path, n);
    if (*path == '@') to.sun_path[0] = '\0';
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return;
    sendto(fd, state, strlen(state), MSG_NOSIGNAL, (const struct sockaddr *)&to,
           (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n));
    close(fd);
}

void edge_notify_reloading(void) {
    char state[96];
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    snprintf(state, sizeof state, "RELOADING=1\nMONOTONIC_USEC=%lld\nSTATUS=reloading",
             (long long)now.tv_sec * 1000000 + now.tv_nsec / 1000);
    edge_notify(state);
}
