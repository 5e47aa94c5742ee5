#include "auth/disk.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int cb_disk_write(int fd, cb_slice bytes) {
    while (bytes.len) {
        ssize_t n = write(fd, bytes.base, bytes.len);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return n < 0 ? errno : ENOSPC;
        bytes.base += n;
        bytes.len -= (size_t)n;
    }
    return 0;
}

int cb_disk_sync_folder(const char *path) {
    char folder[4096];
    const char *slash = strrchr(path, '/');
    const int len = slash ? (int)(slash - path) + 1 : 1;
    int n = snprintf(folder, sizeof folder, "%.*s", len, slash ? path : ".");
    if (n <= 0 || (size_t)n >= sizeof folder) return ENAMETOOLONG;
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int err = fd < 0 || fsync(fd) < 0 ? errno : 0;
    if (fd >= 0) close(fd);
    return err;
}
