/* ICMP errors whose owner nobody can tell: a copy for each member, as GUE from a socket. Part of libcb-xdp. */
#include "base/error.h"
#include "base/log.h"
#include "lb/forward_int.h"
#include <arpa/inet.h>
#include <bpf/libbpf.h>
#include <endian.h>
#include <errno.h>
#include <netinet/udp.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { UDP_WITHOUT_CHECKSUM6 = 101 /* UDP_NO_CHECK6_TX of <linux/udp.h> */ };
enum { IP4_BYTES = 20, IP6_BYTES = 40, PROTOCOL_IPIP = 4, PROTOCOL_IPV6 = 41 };

/* The tag of the design page: of eight bytes of the inner addresses, and seven of the header. */
static uint64_t tag_of(const cb_forward *f, uint32_t at, const uint8_t *head, const uint8_t *packet, bool four) {
    uint64_t key[2] = {htole64(f->control->tag_key[at][0]), htole64(f->control->tag_key[at][1])};
    uint8_t bytes[15], raw[CB_FORWARD_KEY_BYTES];
    memcpy(raw, key, sizeof raw);
    memcpy(bytes, packet + (four ? 12 : 20), 4);
    memcpy(bytes + 4, packet + (four ? 16 : 36), 4);
    memcpy(bytes + 8, head + 4, 4);  /* the other owner */
    memcpy(bytes + 12, head + 1, 3); /* hop, its flags, the key's number */
    return cb_lb_hash(raw, bytes, sizeof bytes);
}

static void write_gue(const cb_forward *f, uint8_t out[CB_FW_GUE_BYTES], const uint8_t *packet, bool four) {
    const uint32_t at = f->control->tag_current % CB_FW_TAG_KEYS;
    struct cb_fw_gue g = {.variant_length = CB_FW_GUE_WORDS,
                          .protocol = four ? PROTOCOL_IPIP : PROTOCOL_IPV6,
                          .flags = htons(1),
                          .private = CB_FW_PRIVATE,
                          .hop = 1,
                          .hop_flags = CB_FW_FINAL,
                          .tag_key = (uint8_t)at,
                          .table_version = htonl(f->control->table_version)};
    memcpy(out, &g, sizeof g);
    const uint64_t tag = htole64(tag_of(f, at, out + 4, packet, four));
    memcpy(out + offsetof(struct cb_fw_gue, tag), &tag, sizeof tag);
}

/* ---- sockets ---- */

static int open_socket(const cb_forward *f, int family) {
    struct sockaddr_in v4 = {.sin_family = AF_INET};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};
    const int on = 1;
    int fd = socket(family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), rc;
    if (fd < 0) return -1;
    if (family == AF_INET) {
        memcpy(&v4.sin_addr, f->control->address4, sizeof v4.sin_addr);
        (void)setsockopt(fd, SOL_SOCKET, SO_NO_CHECK, &on, sizeof on);
        rc = bind(fd, (struct sockaddr *)&v4, sizeof v4);
    } else {
        memcpy(&v6.sin6_addr, f->control->address6, sizeof v6.sin6_addr);
        (void)setsockopt(fd, SOL_UDP, UDP_WITHOUT_CHECKSUM6, &on, sizeof on);
        rc = bind(fd, (struct sockaddr *)&v6, sizeof v6);
    }
    if (rc == 0) return fd;
    close(fd);
    return -1;
}

static bool send_to(cb_forward *f, const fw_member_entry *m, const struct iovec *parts) {
    const bool four = fw_member_family(m) == 4;
    int *fd = four ? &f->fan4 : &f->fan6;
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = f->control->gue_port};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = f->control->gue_port};
    struct msghdr h = {.msg_iov = (struct iovec *)parts, .msg_iovlen = 2};
    if (*fd < 0) *fd = open_socket(f, four ? AF_INET : AF_INET6);
    if (*fd < 0) return false;
    if (four)
        memcpy(&v4.sin_addr, m->address + 12, sizeof v4.sin_addr);
    else
        memcpy(&v6.sin6_addr, m->address, sizeof v6.sin6_addr);
    h.msg_name = four ? (void *)&v4 : (void *)&v6;
    h.msg_namelen = four ? sizeof v4 : sizeof v6;
    return sendmsg(*fd, &h, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0;
}

/* ---- what the program hands over ---- */

/* The packet as the program cut it: is it as long as its addresses need, and of IP? */
static bool is_whole(const struct cb_fw_fanned *e, size_t size, bool *four) {
    if (size < offsetof(struct cb_fw_fanned, packet) + IP4_BYTES) return false;
    if (e->length > CB_FW_FANNED_BYTES || e->length > size - offsetof(struct cb_fw_fanned, packet)) return false;
    *four = e->packet[0] >> 4 == 4;
    return *four ? e->length >= IP4_BYTES : e->packet[0] >> 4 == 6 && e->length >= IP6_BYTES;
}

static int on_event(void *user, void *data, size_t size) {
    cb_forward *f = user;
    const struct cb_fw_fanned *e = data;
    uint8_t head[CB_FW_GUE_BYTES];
    bool four;
    if (!is_whole(e, size, &four) || !fw_has_tag_key(f)) return 0;
    write_gue(f, head, e->packet, four);
    const struct iovec parts[] = {{head, sizeof head}, {(void *)e->packet, e->length}};
    for (size_t i = 0; i < f->members.n; i++) {
        const fw_member_entry *m = fw_member_at(f, i);
        if (!m->live || m->id == f->id || m->placed == CB_FW_NOBODY || m->placed == e->slot) continue;
        if (send_to(f, m, parts))
            f->fanned++;
        else
            f->fan_failed++;
    }
    return 0;
}

int fw_fan_open(cb_forward *f) {
    f->ring = ring_buffer__new(fw_map_fd(f, FW_FANOUT), on_event, f, NULL);
    return f->ring ? CB_OK : cb_fail_errno(errno, "datapath: the ring of ICMP errors");
}

void fw_fan_close(cb_forward *f) {
    ring_buffer__free(f->ring);
    if (f->fan4 >= 0) close(f->fan4);
    if (f->fan6 >= 0) close(f->fan6);
}

int cb_forward_fd(const cb_forward *f) {
    return ring_buffer__epoll_fd(f->ring);
}

int cb_forward_run(cb_forward *f) {
    FW_LOCK(f);
    int n = ring_buffer__consume(f->ring);
    FW_UNLOCK(f);
    return n < 0 ? cb_fail_errno(-n, "datapath: reading the ring of ICMP errors") : n;
}
