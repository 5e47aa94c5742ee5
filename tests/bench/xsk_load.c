/* Sends datagrams to an echo and counts what comes back: xsk_load ADDRESS PORT [count N] [size BYTES] [answer BYTES]
 * [window N] [flows N] [rate PER_SECOND] [gso N] [step BYTES]. At most `window` of them are under way. With step, sizes
 * go from 1 to size by it. Prints "sent S received R bad B wall_ns T". */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/udp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

enum { BATCH = 32, FLOWS = 256, BYTES = 65536, PATIENCE_MS = 3000 };

typedef struct plan {
    uint64_t count, size, answer, window, flows, rate, gso, step;
} plan;

static plan p = {.count = 100000, .size = 64, .window = 256, .flows = 1};
static int fds[FLOWS];
static uint64_t sent, received, bad, lost;
static uint8_t out_bytes[BATCH][BYTES], in_bytes[BATCH][BYTES];

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t size_of(uint64_t number) {
    return p.step ? 1 + number * p.step % p.size : p.size;
}

/* Who is echoed can tell by the first bytes which one it was; the others follow from them. */
static void fill(uint8_t *to, uint64_t number, uint64_t size) {
    const uint32_t id = (uint32_t)number;
    for (uint64_t i = 0; i < size; i++)
        to[i] = i < 4 ? (uint8_t)(id >> (8 * i)) : (uint8_t)(id + i * 31);
}

static int good(const uint8_t *got, size_t len) {
    uint32_t id = 0;
    if (p.answer) return len == p.answer;
    if (len < 4) return len > 0;
    memcpy(&id, got, 4);
    if (len != size_of(id)) return 0;
    for (size_t i = 4; i < len; i++)
        if (got[i] != (uint8_t)(id + i * 31)) return 0;
    return 1;
}

static uint64_t send_some(int fd, uint64_t most) {
    struct mmsghdr m[BATCH];
    struct iovec v[BATCH];
    unsigned n = 0;
    memset(m, 0, sizeof m);
    for (; n < BATCH && n < most; n++) {
        const uint64_t size = size_of(sent + n);
        fill(out_bytes[n], sent + n, size);
        v[n] = (struct iovec){out_bytes[n], size};
        m[n].msg_hdr.msg_iov = &v[n];
        m[n].msg_hdr.msg_iovlen = 1;
    }
    const int done = sendmmsg(fd, m, n, MSG_DONTWAIT);
    return done > 0 ? (uint64_t)done : 0;
}

/* A train that the kernel cuts: one call, one pass through its stack. */
static uint64_t send_train(int fd, uint64_t most) {
    uint64_t n = p.gso < most ? p.gso : most;
    if (n > BATCH) n = BATCH;
    for (uint64_t i = 0; i < n; i++)
        fill(out_bytes[0] + i * p.size, sent + i, p.size);
    return send(fd, out_bytes[0], n * p.size, MSG_DONTWAIT) > 0 ? n : 0;
}

static void receive_some(int fd) {
    struct mmsghdr m[BATCH];
    struct iovec v[BATCH];
    memset(m, 0, sizeof m);
    for (int i = 0; i < BATCH; i++) {
        v[i] = (struct iovec){in_bytes[i], BYTES};
        m[i].msg_hdr.msg_iov = &v[i];
        m[i].msg_hdr.msg_iovlen = 1;
    }
    const int n = recvmmsg(fd, m, BATCH, MSG_DONTWAIT, NULL);
    for (int i = 0; i < n; i++) {
        received++;
        bad += !good(in_bytes[i], m[i].msg_len);
    }
}

/* Waits for answers. 0: nothing came for long, and what was under way is lost. */
static int wait_for_answers(int ms) {
    struct pollfd f[FLOWS];
    for (uint64_t i = 0; i < p.flows; i++)
        f[i] = (struct pollfd){.fd = fds[i], .events = POLLIN};
    if (poll(f, p.flows, ms) <= 0) return 0;
    for (uint64_t i = 0; i < p.flows; i++)
        if (f[i].revents) receive_some(fds[i]);
    return 1;
}

static uint64_t under_way(void) {
    const uint64_t done = received + lost;
    return done < sent ? sent - done : 0;
}

static void run(void) {
    const uint64_t begin = now_ns();
    uint64_t turn = 0;
    for (int silent = 0; sent < p.count && silent < 5;) {
        uint64_t most = p.window > under_way() ? p.window - under_way() : 0;
        if (most > p.count - sent) most = p.count - sent;
        if (p.rate) {
            const uint64_t due = (now_ns() - begin) * p.rate / 1000000000u;
            if (due <= sent)
                most = 0;
            else if (most > due - sent)
                most = due - sent;
        }
        const int fd = fds[turn++ % p.flows];
        if (most) sent += p.gso ? send_train(fd, most) : send_some(fd, most);
        const int full = under_way() >= p.window;
        if (wait_for_answers(full ? PATIENCE_MS : p.rate && !most ? 1 : 0)) {
            silent = 0;
        } else if (full) {
            lost += under_way();
            silent++;
        }
    }
    while (under_way() && wait_for_answers(PATIENCE_MS)) {}
}

static int open_flows(const char *address, uint16_t port) {
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    const int is4 = inet_pton(AF_INET, address, &v4.sin_addr) == 1;
    const int bytes = 4 * 1024 * 1024, segment = (int)p.size;
    if (!is4 && inet_pton(AF_INET6, address, &v6.sin6_addr) != 1) return -1;
    for (uint64_t i = 0; i < p.flows; i++) {
        fds[i] = socket(is4 ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        setsockopt(fds[i], SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof bytes);
        setsockopt(fds[i], SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof bytes);
        if (p.gso && setsockopt(fds[i], IPPROTO_UDP, UDP_SEGMENT, &segment, sizeof segment) < 0) return -1;
        const struct sockaddr *to = is4 ? (const void *)&v4 : (const void *)&v6;
        if (connect(fds[i], to, is4 ? sizeof v4 : sizeof v6) < 0) return -1;
    }
    return 0;
}

int main(int argc, char **argv) {
    static const struct {
        const char *name;
        uint64_t *to;
    } words[] = {{"count", &p.count}, {"size", &p.size}, {"answer", &p.answer}, {"window", &p.window},
                 {"flows", &p.flows}, {"rate", &p.rate}, {"gso", &p.gso},       {"step", &p.step}};
    if (argc < 3) return 2;
    for (int i = 3; i + 1 < argc; i += 2)
        for (size_t w = 0; w < sizeof words / sizeof *words; w++)
            if (!strcmp(argv[i], words[w].name)) *words[w].to = strtoull(argv[i + 1], NULL, 10);
    if (!p.flows || p.flows > FLOWS || !p.size || p.size > 65000 || p.size * (p.gso ? p.gso : 1) > BYTES) return 2;
    if (open_flows(argv[1], (uint16_t)strtoul(argv[2], NULL, 10)) < 0) {
        fprintf(stderr, "xsk_load: %s: %s\n", argv[1], strerror(errno));
        return 1;
    }
    const uint64_t begin = now_ns();
    run();
    printf("sent %llu received %llu bad %llu wall_ns %llu\n", (unsigned long long)sent, (unsigned long long)received,
           (unsigned long long)bad, (unsigned long long)(now_ns() - begin));
    return 0;
}
