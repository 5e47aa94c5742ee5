/* A network namespace of its own for the calling thread: lo, addresses on it, sockets. Needs root; else the test is
 * skipped. */
#ifndef FW_NETNS_H
#define FW_NETNS_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

typedef struct fw_netns {
    int before; /* the namespace that the thread comes from */
} fw_netns;

static inline void fw_netns_run(const char *command) {
    cr_assert_eq(system(command), 0, "%s", command);
}

static inline void fw_netns_enter(fw_netns *n) {
    n->before = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    cr_assert(n->before >= 0);
    if (unshare(CLONE_NEWNET) != 0) {
        close(n->before);
        cr_skip_test("no network namespace may be made: %s", strerror(errno));
    }
    fw_netns_run("ip link set lo up");
}

static inline void fw_netns_leave(fw_netns *n) {
    cr_assert_eq(setns(n->before, CLONE_NEWNET), 0);
    close(n->before);
}

static inline void fw_netns_address(const char *address) {
    char command[128];
    const int six = strchr(address, ':') != NULL;
    snprintf(command, sizeof command, "ip %s addr add %s/%d dev lo %s", six ? "-6" : "-4", address, six ? 128 : 32,
             six ? "nodad" : "");
    fw_netns_run(command);
}

static inline void fw_netns_sysctl(const char *name, const char *value) {
    char path[128];
    snprintf(path, sizeof path, "/proc/sys/%s", name);
    const int fd = open(path, O_WRONLY | O_CLOEXEC);
    cr_assert(fd >= 0 && write(fd, value, strlen(value)) == (ssize_t)strlen(value), "%s", path);
    close(fd);
}

static inline socklen_t fw_netns_name(struct sockaddr_storage *out, const char *address, uint16_t port) {
    struct sockaddr_in *four = (struct sockaddr_in *)out;
    struct sockaddr_in6 *six = (struct sockaddr_in6 *)out;
    memset(out, 0, sizeof *out);
    if (inet_pton(AF_INET, address, &four->sin_addr) == 1) {
        four->sin_family = AF_INET;
        four->sin_port = htons(port);
        return sizeof *four;
    }
    cr_assert_eq(inet_pton(AF_INET6, address, &six->sin6_addr), 1);
    six->sin6_family = AF_INET6;
    six->sin6_port = htons(port);
    return sizeof *six;
}

/* A bound socket. port: of a raw one, the protocol. */
static inline int fw_netns_socket(const char *address, int type, uint16_t port) {
    struct sockaddr_storage at;
    const int on = 1;
    const socklen_t len = fw_netns_name(&at, address, type == SOCK_RAW ? 0 : port);
    const int fd = socket(at.ss_family, type | SOCK_CLOEXEC, type == SOCK_RAW ? port : 0);
    cr_assert(fd >= 0, "%s", strerror(errno));
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    cr_assert_eq(bind(fd, (struct sockaddr *)&at, len), 0, "%s: %s", address, strerror(errno));
    return fd;
}

static inline void fw_netns_send(int fd, const char *to, const void *data, size_t n) {
    struct sockaddr_storage at;
    const socklen_t len = fw_netns_name(&at, to, 0);
    cr_assert_eq(sendto(fd, data, n, 0, (struct sockaddr *)&at, len), (ssize_t)n, "%s", strerror(errno));
}

/* Routes to the addresses of a namespace that is only just there take a moment. */
static inline void fw_netns_reach(int fd, const char *to, uint16_t port) {
    struct sockaddr_storage at;
    const socklen_t len = fw_netns_name(&at, to, port);
    int rc = -1;
    for (int i = 0; i < 200 && rc != 0; i++) {
        rc = connect(fd, (struct sockaddr *)&at, len);
        if (rc != 0 && errno != ENETUNREACH && errno != EADDRNOTAVAIL) break;
        if (rc != 0) usleep(10000);
    }
    cr_assert_eq(rc, 0, "%s: %s", to, strerror(errno));
}

/* A TCP connection, and the client's port. */
static inline int fw_netns_connect(const char *from, const char *to, uint16_t port, uint16_t *client_port) {
    struct sockaddr_storage at;
    const int fd = fw_netns_socket(from, SOCK_STREAM, 0);
    socklen_t len = sizeof at;
    fw_netns_reach(fd, to, port);
    cr_assert_eq(getsockname(fd, (struct sockaddr *)&at, &len), 0);
    *client_port = ntohs(at.ss_family == AF_INET ? ((struct sockaddr_in *)&at)->sin_port
                                                 : ((struct sockaddr_in6 *)&at)->sin6_port);
    return fd;
}

#endif
