/* link_shim - a wire between two network devices that takes time, has a rate and loses frames. As root:
 *   link_shim DEVICE DEVICE
 * Lines on standard input say what is to be, in both directions, from now on: "delay MILLISECONDS", "loss PERCENT",
 * "rate MBIT" (0 = no limit), "seed NUMBER", "counts" (prints how many frames came through and were lost, by
 * direction). At its end the program ends. Frames keep their order. Offloads of the devices at the other ends must be
 * off: frames are taken as they come. */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { FRAME = 2048, QUEUE = 8192, BATCH = 64 };

struct frame {
    int64_t due;
    uint32_t len;
    uint8_t bytes[FRAME];
};

struct way {
    int from, to;
    struct frame *queue;
    uint32_t head, count;
    int64_t busy_until;
    unsigned long through, lost;
};

struct shim {
    struct way ways[2];
    int64_t delay, ns_per_byte_1024; /* nanoseconds; 1024ths of them */
    uint64_t loss;                   /* of 2^32 */
    uint64_t random;
    char line[256];
    size_t typed;
};

static int64_t now(void) {
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * INT64_C(1000000000) + ts.tv_nsec;
}

static uint32_t chance(struct shim *s) { /* SplitMix64 */
    uint64_t z = s->random += 0x9e3779b97f4a7c15U;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
    return (uint32_t)((z ^ (z >> 31)) >> 32);
}

static int open_device(const char *name) {
    const int yes = 1, size = 4 << 20;
    struct sockaddr_ll at = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL)};
    at.sll_ifindex = (int)if_nametoindex(name);
    const int fd = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || at.sll_ifindex == 0) return -1;
    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size);
    if (setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &yes, sizeof yes) < 0) return -1;
    return bind(fd, (struct sockaddr *)&at, sizeof at) < 0 ? -1 : fd;
}

static void take(struct shim *s, struct way *w) {
    for (int i = 0; i < BATCH; i++) {
        uint8_t dropped[FRAME];
        struct frame *f = w->count < QUEUE ? &w->queue[(w->head + w->count) % QUEUE] : NULL;
        const ssize_t n = recv(w->from, f ? f->bytes : dropped, FRAME, MSG_TRUNC);
        if (n < 0) return;
        if (!f || n > FRAME || chance(s) < s->loss) {
            w->lost++;
            continue;
        }
        const int64_t t = now(), begins = w->busy_until > t ? w->busy_until : t;
        w->busy_until = begins + n * s->ns_per_byte_1024 / 1024;
        f->due = w->busy_until + s->delay;
        f->len = (uint32_t)n;
        w->count++;
    }
}

static void give(struct way *w) {
    const int64_t t = now();
    while (w->count && w->queue[w->head].due <= t) {
        const struct frame *f = &w->queue[w->head];
        if (send(w->to, f->bytes, f->len, 0) < 0) {
            if (errno == EAGAIN || errno == ENOBUFS) return; /* the next turn tries it again */
            w->lost++;                                       /* the device is down */
        } else {
            w->through++;
        }
        w->head = (w->head + 1) % QUEUE;
        w->count--;
    }
}

static void obey(struct shim *s, const char *line) {
    char what[16];
    double value = 0;
    if (sscanf(line, "%15s %lf", what, &value) < 1 || value < 0) return;
    if (!strcmp(what, "delay")) {
        s->delay = (int64_t)(value * 1e6);
    } else if (!strcmp(what, "loss")) {
        s->loss = value >= 100 ? UINT64_C(1) << 32 : (uint64_t)(value / 100 * 4294967296.0);
    } else if (!strcmp(what, "rate")) {
        s->ns_per_byte_1024 = value > 0 ? (int64_t)(8192 * 1000 / value) : 0;
    } else if (!strcmp(what, "seed")) {
        s->random = (uint64_t)value;
    } else if (!strcmp(what, "counts")) {
        printf("counts %lu %lu %lu %lu\n", s->ways[0].through, s->ways[0].lost, s->ways[1].through, s->ways[1].lost);
    } else {
        printf("unknown: %s\n", what);
    }
    fflush(stdout);
}

/* < 0: the input has ended. */
static int listen_to_input(struct shim *s) {
    const ssize_t n = read(STDIN_FILENO, s->line + s->typed, sizeof s->line - 1 - s->typed);
    if (n <= 0) return -1;
    s->typed += (size_t)n;
    s->line[s->typed] = 0;
    char *end;
    while ((end = strchr(s->line, '\n'))) {
        *end = 0;
        obey(s, s->line);
        s->typed -= (size_t)(end + 1 - s->line);
        memmove(s->line, end + 1, s->typed + 1);
    }
    if (s->typed == sizeof s->line - 1) s->typed = 0; /* no line is that long */
    return 0;
}

static struct timespec until_due(const struct shim *s) {
    int64_t due = INT64_MAX;
    for (int i = 0; i < 2; i++)
        if (s->ways[i].count && s->ways[i].queue[s->ways[i].head].due < due)
            due = s->ways[i].queue[s->ways[i].head].due;
    if (due == INT64_MAX) return (struct timespec){.tv_sec = 3600};
    const int64_t left = due - now();
    /* not less than 50 us: a device that takes nothing for a moment is not asked in a busy loop */
    return left > 50000 ? (struct timespec){left / 1000000000, left % 1000000000} : (struct timespec){0, 50000};
}

int main(int argc, char **argv) {
    static struct shim s = {.random = 1};
    if (argc != 3) {
        fprintf(stderr, "usage: %s DEVICE DEVICE\n", argv[0]);
        return 2;
    }
    const int fds[2] = {open_device(argv[1]), open_device(argv[2])};
    for (int i = 0; i < 2; i++) {
        s.ways[i] = (struct way){.from = fds[i], .to = fds[1 - i], .queue = malloc(QUEUE * sizeof(struct frame))};
        if (fds[i] < 0 || !s.ways[i].queue) {
            fprintf(stderr, "link_shim: %s: %s\n", argv[i + 1], strerror(errno));
            return 1;
        }
    }
    puts("shim ready");
    fflush(stdout);
    for (;;) {
        struct pollfd p[] = {
            {.fd = fds[0], .events = POLLIN}, {.fd = fds[1], .events = POLLIN}, {.fd = STDIN_FILENO, .events = POLLIN}};
        const struct timespec wait = until_due(&s);
        if (ppoll(p, 3, &wait, NULL) < 0 && errno != EINTR) return 1;
        if (p[2].revents && listen_to_input(&s) < 0) return 0;
        for (int i = 0; i < 2; i++)
            if (p[i].revents) take(&s, &s.ways[i]);
        for (int i = 0; i < 2; i++)
            give(&s.ways[i]);
    }
}
