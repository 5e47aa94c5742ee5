/* Moved buckets in which nothing lives on this host any more. Part of libcb-xdp. */
#include "base/error.h"
#include "base/mem.h"
#include "lb/forward_int.h"
#include <bpf/bpf.h>
#include <errno.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { DUMP_BYTES = 1 << 18, QUIC_SECONDS = 30 /* longer than a handshake takes (RFC 9000, 10.1: idle timeouts) */ };

/* The buckets that are asked about: bits of `asked`, and of `busy` where something lives. */
typedef struct look {
    cb_forward *f;
    uint8_t *asked, *busy;
    uint32_t n;
    /* the latest end of a socket on this host, and whether it is a VIP: most are the same */
    uint8_t own[16], port[2];
    bool known, vip;
} look;

static bool has_quic(const cb_forward *f) {
    for (size_t i = 0; i < f->vips.n; i++)
        if (fw_vip_at(f, i)->quic) return true;
    return false;
}

/* Handshakes under way, in whatever bucket: an ID that a client chose has no tuple. */
static bool has_handshakes(const cb_forward *f) {
    struct cb_fw_dcid any;
    return bpf_map_get_next_key(f->live_fd, NULL, &any) == 0;
}

/* We are second, and were first: bits 16-31 are our slot, and it is not announced (bit 63). */
static void ask(look *l) {
    const cb_forward *f = l->f;
    const uint32_t slot = f->control->self_slot, now = fw_seconds();
    const bool wait = has_quic(f) && has_handshakes(f);
    if (slot == CB_FW_NOBODY) return;
    for (uint32_t i = 0; i < f->buckets; i++) {
        const uint64_t w = __atomic_load_n(&f->words[i], __ATOMIC_RELAXED);
        if ((w >> 16 & 0xffff) != slot || w >> 63) continue;
        if (wait && now - f->moved_at[i] < QUIC_SECONDS) continue;
        l->asked[i / 8] |= (uint8_t)(1 << i % 8);
        l->n++;
    }
}

static bool is_vip(look *l, const cb_nl_socket *s) {
    if (l->known && !memcmp(l->own, s->own, sizeof l->own) && !memcmp(l->port, s->own_port, sizeof l->port))
        return l->vip;
    memcpy(l->own, s->own, sizeof l->own);
    memcpy(l->port, s->own_port, sizeof l->port);
    l->known = true;
    l->vip = fw_vip_has(l->f, s->own, s->own_port);
    return l->vip;
}

/* The bucket of what the peer sends, as the program computes it. */
static uint32_t bucket_of(const cb_forward *f, const cb_nl_socket *s) {
    const size_t from = fw_is4(s->own) ? 12 : 0, len = 16 - from;
    const uint64_t key[2] = {f->control->hash_key[0], f->control->hash_key[1]};
    uint8_t tuple[37], bytes[16];
    for (int i = 0; i < 16; i++)
        bytes[i] = (uint8_t)(key[i / 8] >> 8 * (i % 8));
    memcpy(tuple, s->peer + from, len);
    memcpy(tuple + len, s->own + from, len);
    memcpy(tuple + 2 * len, s->peer_port, 2);
    memcpy(tuple + 2 * len + 2, s->own_port, 2);
    tuple[2 * len + 4] = CB_FORWARD_TCP;
    return cb_lb_bucket(cb_lb_hash(bytes, tuple, 2 * len + 5), f->buckets);
}

static void note_socket(look *l, const cb_nl_message *m) {
    cb_nl_socket s;
    if (!cb_nl_read_socket(&s, m) || !is_vip(l, &s)) return;
    const uint32_t b = bucket_of(l->f, &s);
    l->busy[b / 8] |= (uint8_t)(1 << b % 8);
}

/* 1: the dump is over; 0: there is more. */
static int note_datagram(look *l, cb_slice rest, uint32_t seq) {
    cb_nl_message m;
    while (cb_nl_next(&rest, &m)) {
        if (m.seq != seq) continue; /* of a dump that was given up */
        if (m.flags & NLM_F_DUMP_INTR) return cb_fail(CB_EAGAIN, "the list of sockets changed under the look");
        if (m.type == NLMSG_DONE) return 1;
        if (m.type == NLMSG_ERROR) return cb_fail_errno(cb_nl_error(m.body), "asking for TCP sockets");
        if (m.type == SOCK_DIAG_BY_FAMILY) note_socket(l, &m);
    }
    return 0;
}

static int dump(look *l, int family, uint8_t *buf) {
    uint8_t request[CB_NL_REQUEST_MAX];
    const uint32_t seq = ++l->f->seq;
    const size_t len = cb_nl_ask_sockets(request, seq, family);
    if (send(l->f->diag, request, len, 0) != (ssize_t)len) return cb_fail_errno(errno, "asking for TCP sockets");
    for (;;) {
        ssize_t n = recv(l->f->diag, buf, DUMP_BYTES, 0);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return cb_fail_errno(n < 0 ? errno : EPIPE, "reading the list of TCP sockets");
        int rc = note_datagram(l, (cb_slice){buf, (size_t)n}, seq);
        if (rc) return rc < 0 ? rc : CB_OK;
    }
}

static int look_at_sockets(look *l) {
    uint8_t *buf = cb_mem_get(&l->f->alloc, DUMP_BYTES);
    if (!buf) return cb_fail(CB_ENOMEM, "no memory to look at sockets");
    int rc = fw_netlink_open(&l->f->diag, NETLINK_SOCK_DIAG);
    if (rc == CB_OK) rc = dump(l, 4, buf);
    if (rc == CB_OK) rc = dump(l, 6, buf);
    cb_mem_free(&l->f->alloc, buf);
    if (rc < 0 && l->f->diag >= 0) { /* what is left of an answer goes with the socket */
        close(l->f->diag);
        l->f->diag = -1;
    }
    return rc;
}

static int tell(const look *l, int (*on_idle)(uint32_t bucket, void *user), void *user) {
    int n = 0;
    for (uint32_t i = 0; i < l->f->buckets; i++) {
        if (!(l->asked[i / 8] >> i % 8 & 1) || l->busy[i / 8] >> i % 8 & 1) continue;
        int rc = on_idle(i, user);
        if (rc < 0) return rc;
        n++;
    }
    return n;
}

int cb_forward_idle(cb_forward *f, int (*on_idle)(uint32_t bucket, void *user), void *user) {
    if (!on_idle) return cb_fail(CB_EINVAL, "cb_forward_idle: on_idle is NULL");
    const size_t bytes = (f->buckets + 7) / 8;
    look l = {.f = f};
    FW_LOCK(f);
    uint8_t *bits = cb_mem_new(&f->alloc, 2 * bytes);
    int rc = bits ? CB_OK : cb_fail(CB_ENOMEM, "no memory to look at sockets");
    if (rc == CB_OK) {
        l.asked = bits;
        l.busy = bits + bytes;
        ask(&l);
        if (l.n) rc = look_at_sockets(&l);
    }
    FW_UNLOCK(f);
    if (rc == CB_OK && l.n) rc = tell(&l, on_idle, user); /* may call back into f */
    cb_mem_free(&f->alloc, bits);
    return rc;
}
