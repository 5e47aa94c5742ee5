/* flood - QUIC Initials with whole ClientHellos, each from another address of 127.0.0.0/8, none of which ever answers.
 *
 *   flood 127.0.0.1:8443 SECONDS PACKETS_A_SECOND
 *
 * For measurements on this machine only: it can send to loopback, and to nothing else. The packets are real ones: a
 * client of libcb's made them for a socket that keeps them. */
#include <arpa/inet.h>
#include <cb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { KINDS = 2000, PACKET_MAX = 1500, BATCH = 32, INITIAL_MIN = 1200 };

static uint8_t packets[KINDS][PACKET_MAX];
static size_t lengths[KINDS];

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Takes the first packet of each connection that goes to `sink`. */
static int gather(cb_loop *loop, int sink) {
    struct sockaddr_in at;
    socklen_t len = sizeof at;
    char remote[32];
    cb_quic_endpoint *e = NULL;
    int n = 0;
    const cb_quic_opts o = {.size = sizeof o, .alpn = "h3", .verify = CB_VERIFY_NONE, .no_gso = 1, .no_pmtud = 1};
    if (getsockname(sink, (struct sockaddr *)&at, &len) < 0) return CB_ESYS;
    snprintf(remote, sizeof remote, "127.0.0.1:%u", ntohs(at.sin_port));
    while (n < KINDS) {
        cb_quic_conn *c;
        int rc = e ? CB_OK : cb_quic_client(&e, loop, NULL, &o);
        if (rc == CB_OK) rc = cb_quic_connect(&c, e, remote, "localhost");
        if (rc == CB_OK) rc = cb_loop_step(loop);
        if (rc < 0) return rc;
        ssize_t got = recv(sink, packets[n], PACKET_MAX, MSG_DONTWAIT);
        if (got >= INITIAL_MIN) lengths[n++] = (size_t)got;
        while (recv(sink, packets[KINDS - 1 < n ? 0 : n], 0, MSG_DONTWAIT | MSG_TRUNC) > 0)
            continue; /* what else it had to say */
        if (n % 100 != 0) continue;
        cb_quic_endpoint_free(e); /* before they try again */
        e = NULL;
        cb_loop_step(loop);
        while (recv(sink, packets[KINDS - 1 < n ? 0 : n], 0, MSG_DONTWAIT | MSG_TRUNC) > 0)
            continue;
    }
    cb_quic_endpoint_free(e);
    return CB_OK;
}

typedef union control {
    struct cmsghdr head;
    uint8_t room[CMSG_SPACE(sizeof(struct in_pktinfo))];
} control;

static unsigned send_batch(int fd, struct sockaddr_in *to, unsigned long from, unsigned n) {
    struct mmsghdr m[BATCH] = {0};
    struct iovec iov[BATCH];
    control c[BATCH];
    memset(c, 0, sizeof c);
    for (unsigned i = 0; i < n; i++) {
        unsigned long k = from + i;
        struct in_pktinfo info = {.ipi_spec_dst.s_addr = htonl(0x7f010000U + (uint32_t)(k % 0xfd0000))};
        iov[i] = (struct iovec){packets[k % KINDS], lengths[k % KINDS]};
        m[i].msg_hdr = (struct msghdr){.msg_name = to,
                                       .msg_namelen = sizeof *to,
                                       .msg_iov = &iov[i],
                                       .msg_iovlen = 1,
                                       .msg_control = c[i].room,
                                       .msg_controllen = sizeof c[i].room};
        struct cmsghdr *h = CMSG_FIRSTHDR(&m[i].msg_hdr);
        h->cmsg_level = IPPROTO_IP;
        h->cmsg_type = IP_PKTINFO;
        h->cmsg_len = CMSG_LEN(sizeof info);
        memcpy(CMSG_DATA(h), &info, sizeof info);
    }
    int sent = sendmmsg(fd, m, n, 0);
    return sent > 0 ? (unsigned)sent : 0;
}

int main(int argc, char **argv) {
    cb_loop *loop = NULL;
    struct sockaddr_in to = {.sin_family = AF_INET}, any = {.sin_family = AF_INET};
    char *colon = argc == 4 ? strchr(argv[1], ':') : NULL;
    if (!colon) {
        fprintf(stderr, "usage: flood 127.0.0.1:PORT SECONDS PACKETS_A_SECOND\n");
        return 2;
    }
    *colon = '\0';
    to.sin_port = htons((uint16_t)atoi(colon + 1));
    double seconds = atof(argv[2]), rate = atof(argv[3]);
    if (inet_pton(AF_INET, argv[1], &to.sin_addr) != 1 || (ntohl(to.sin_addr.s_addr) >> 24) != 127 || seconds > 60) {
        fprintf(stderr, "flood: an address of 127.0.0.0/8 and at most 60 seconds\n");
        return 2;
    }
    any.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int sink = socket(AF_INET, SOCK_DGRAM, 0), fd = socket(AF_INET, SOCK_DGRAM, 0);
    int rc = cb_loop_new(&loop, NULL);
    if (rc == CB_OK && bind(sink, (struct sockaddr *)&any, sizeof any) < 0) rc = CB_ESYS;
    if (rc == CB_OK) rc = gather(loop, sink);
    if (rc < 0) {
        fprintf(stderr, "flood: %s: %s\n", cb_strerror(rc), cb_last_error());
        return 1;
    }
    printf("go\n");
    fflush(stdout);
    double begin = now();
    unsigned long sent = 0, tried = 0;
    while (now() - begin < seconds) {
        unsigned long due = (unsigned long)((now() - begin) * rate);
        unsigned n = due - tried < BATCH ? (unsigned)(due - tried) : BATCH;
        if (n == 0) {
            usleep(200);
            continue;
        }
        sent += send_batch(fd, &to, tried, n);
        tried += n;
    }
    printf("%lu\n", sent);
    cb_loop_free(loop);
    close(sink);
    close(fd);
    return 0;
}
