#include "loop/unix.h"
#include "base/error.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BACKLOG = 128, NAME_TRIES = 16 };

int cb_unix_listenable(struct sockaddr_un *out, const char *path) {
    if (*path == '@' || *path == '\0')
        return cb_fail(CB_EINVAL, "unix:%.40s: an abstract socket has no permissions; name a path", path);
    if (strlen(path) >= CB_UNIX_PATH)
        return cb_fail(CB_EINVAL, "unix:%.40s...: a path to listen at has at most %d bytes", path, CB_UNIX_PATH - 1);
    return cb_unix_addr(out, path);
}

/* Does anybody take connections there? Never waits: a full queue is somebody's. */
static int somebody(const struct sockaddr_un *at) {
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return cb_fail_errno(errno, "opening a unix socket");
    const int err = connect(fd, (const struct sockaddr *)at, sizeof *at) == 0 ? 0 : errno;
    close(fd);
    return err != ECONNREFUSED && err != ENOENT;
}

/* May the path be ours? *there: something is to be replaced. */
static int look(const struct sockaddr_un *at, bool replace, bool *there) {
    struct stat st;
    *there = false;
    if (lstat(at->sun_path, &st) < 0) return errno == ENOENT ? CB_OK : cb_fail_errno(errno, "unix:%s", at->sun_path);
    *there = true;
    if (!S_ISSOCK(st.st_mode)) return cb_fail(CB_EEXIST, "unix:%s: it is no socket, and stays", at->sun_path);
    if (replace) return CB_OK;
    const int used = somebody(at);
    if (used < 0) return used;
    return used ? cb_fail(CB_EEXIST, "unix:%s: a process listens there", at->sun_path) : CB_OK;
}

/* Binds under a name beside the path that nobody uses. */
static int bind_aside(int fd, struct sockaddr_un *aside, const char *path) {
    for (int i = 0; i < NAME_TRIES; i++) {
        uint32_t random = 0;
        if (getrandom(&random, sizeof random, 0) != (ssize_t)sizeof random) return cb_fail_errno(errno, "getrandom");
        snprintf(aside->sun_path, sizeof aside->sun_path, "%.99s.%06x", path, random & 0xffffff);
        if (bind(fd, (const struct sockaddr *)aside, sizeof *aside) == 0) return CB_OK;
        if (errno != EADDRINUSE) break;
    }
    return cb_fail_errno(errno, "unix:%s", path);
}

/* Some file systems cannot keep a name that somebody else makes at the same moment; then the last one has it. */
static int move(const char *from, const char *to, bool over) {
    if (!over && renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE) == 0) return 0;
    return over || errno == EINVAL || errno == ENOSYS ? rename(from, to) : -1;
}

/* The socket gets its mode before anybody can connect, and its path after that. */
static int place_it(int fd, const struct sockaddr_un *at, struct sockaddr_un *aside, uint32_t mode, bool replace) {
    bool there;
    int rc = look(at, replace, &there);
    if (rc == CB_OK) rc = bind_aside(fd, aside, at->sun_path);
    if (rc < 0) return rc;
    if (chmod(aside->sun_path, mode) < 0 || listen(fd, BACKLOG) < 0)
        rc = cb_fail_errno(errno, "unix:%s", at->sun_path);
    else if (move(aside->sun_path, at->sun_path, there) < 0)
        rc = cb_fail_errno(errno, "unix:%s", at->sun_path);
    if (rc < 0) unlink(aside->sun_path);
    return rc;
}

int cb_unix_listen(int *fd, cb_unix_place *place, const char *path, uint32_t mode, bool replace) {
    struct sockaddr_un at, aside = {.sun_family = AF_UNIX};
    struct stat st;
    int rc = cb_unix_listenable(&at, path);
    if (rc < 0) return rc;
    if (mode & ~0777u) return cb_fail(CB_EINVAL, "unix:%s: %#o are no permissions", path, mode);
    const int made = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (made < 0) return cb_fail_errno(errno, "opening a unix socket");
    rc = place_it(made, &at, &aside, mode ? mode : CB_UNIX_MODE, replace);
    if (rc == CB_OK && lstat(path, &st) < 0) rc = cb_fail_errno(errno, "unix:%s", path);
    if (rc < 0) {
        close(made);
        return rc;
    }
    *place = (cb_unix_place){.dev = st.st_dev, .ino = st.st_ino, .ours = true};
    memcpy(place->path, path, strlen(path) + 1);
    *fd = made;
    return CB_OK;
}

void cb_unix_leave(cb_unix_place *place) {
    struct stat st;
    if (!place->ours) return;
    place->ours = false;
    if (lstat(place->path, &st) == 0 && st.st_dev == place->dev && st.st_ino == place->ino) unlink(place->path);
}
