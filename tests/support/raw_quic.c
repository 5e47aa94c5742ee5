/* The packets of a peer driven by hand (RFC 9000). */
#include "support/raw_quic.h"
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* ---- bytes ---- */

void raw_varint_add(cb_buf *b, uint64_t v, unsigned bytes) {
    uint8_t out[8] = {0};
    for (unsigned i = 0; i < bytes; i++)
        out[i] = (uint8_t)(v >> 8 * (bytes - 1 - i));
    out[0] |= (uint8_t)(bytes == 1 ? 0 : bytes == 2 ? 0x40 : bytes == 4 ? 0x80 : 0xc0);
    cb_buf_add(b, out, bytes);
}

void raw_varint(cb_buf *b, uint64_t v) {
    raw_varint_add(b, v, v < 64 ? 1 : v < 16384 ? 2 : v < 1 << 30 ? 4 : 8);
}

uint64_t raw_varint_get(cb_slice *in) {
    if (!in->len) return UINT64_MAX;
    size_t n = (size_t)1 << (in->base[0] >> 6);
    if (in->len < n) return UINT64_MAX;
    uint64_t v = in->base[0] & 0x3f;
    for (size_t i = 1; i < n; i++)
        v = v << 8 | in->base[i];
    *in = (cb_slice){in->base + n, in->len - n};
    return v;
}

static cb_slice take(cb_slice *in, uint64_t n) {
    if (n > in->len) n = in->len;
    cb_slice out = {in->base, (size_t)n};
    *in = (cb_slice){in->base + n, in->len - (size_t)n};
    return out;
}

raw_stream *raw_stream_of(raw_quic *r, int64_t id) {
    for (size_t i = 0; i < r->n_streams; i++)
        if (r->streams[i].id == id) return &r->streams[i];
    cr_assert_lt(r->n_streams, RAW_STREAMS);
    raw_stream *s = &r->streams[r->n_streams++];
    *s = (raw_stream){.id = id};
    return s;
}

/* ---- packets out ---- */

void raw_datagram(raw_quic *r, const void *data, size_t len) {
    ssize_t n = sendto(r->fd, data, len, 0, (const struct sockaddr *)&r->to, sizeof r->to);
    cr_assert_eq(n, (ssize_t)len, "sendto");
}

static size_t put_head(raw_quic *r, const raw_packet *p, cb_buf *b, size_t payload) {
    static const uint8_t first[] = {0xc3, 0xe3, 0x43, 0xd3};
    uint8_t byte = first[p->level];
    if (p->level == RAW_APP && r->phase) byte |= 0x04;
    byte ^= p->first_xor;
    cb_buf_add(b, &byte, 1);
    const uint8_t *dcid = p->dcid ? p->dcid : r->dcid;
    size_t dcid_len = p->short_cid ? 4 : p->dcid ? RAW_CID : r->dcid_len;
    if (p->level == RAW_APP) {
        cb_buf_add(b, dcid, dcid_len);
    } else {
        uint32_t version = htonl(p->version ? p->version : 1);
        uint8_t scid[RAW_CID], len = (uint8_t)dcid_len;
        memcpy(scid, r->scid, RAW_CID);
        if (p->other_scid) scid[0] ^= 1;
        cb_buf_add(b, &version, 4);
        cb_buf_add(b, &len, 1);
        cb_buf_add(b, dcid, dcid_len);
        len = RAW_CID;
        cb_buf_add(b, &len, 1);
        cb_buf_add(b, scid, RAW_CID);
        if (p->level == RAW_INITIAL) {
            raw_varint(b, p->token ? strlen(p->token) : 0);
            if (p->token) cb_buf_add(b, p->token, strlen(p->token));
        }
        raw_varint_add(b, 4 + payload + 16, 2);
    }
    size_t at = b->len;
    uint32_t pn = htonl((uint32_t)r->pn[p->level == RAW_EARLY ? RAW_APP : p->level]);
    cb_buf_add(b, &pn, 4);
    return at;
}

void raw_send(raw_quic *r, const raw_packet *p) {
    uint8_t sealed[2048], nonce[12], mask[16];
    size_t room = sizeof sealed, len = p->len;
    enum raw_level space = p->level == RAW_EARLY ? RAW_APP : p->level;
    raw_keys *k = &r->tx[p->level];
    cb_buf b, plain;
    if (!k->have) return;
    cb_buf_init(&b, NULL, 1 << 16);
    cb_buf_init(&plain, NULL, 1 << 16);
    cb_buf_add(&plain, p->frames, p->len);
    while (p->level == RAW_INITIAL && !p->small && !p->pad_outside && len++ < 1162)
        cb_buf_add(&plain, "", 1); /* PADDING */
    size_t at = put_head(r, p, &b, plain.len);
    memcpy(nonce, k->iv, 12);
    for (int i = 0; i < 8; i++)
        nonce[11 - i] ^= (uint8_t)(r->pn[space] >> 8 * i);
    cr_assert_eq(
        gnutls_aead_cipher_encrypt(k->aead, nonce, 12, b.base, b.len, 16, plain.base, plain.len, sealed, &room), 0);
    cb_buf_add(&b, sealed, room);
    raw_keys_mask(k, b.base + at + 4, mask);
    b.base[0] ^= mask[0] & (p->level == RAW_APP ? 0x1f : 0x0f);
    for (int i = 0; i < 4; i++)
        b.base[at + (size_t)i] ^= mask[1 + i];
    if (p->corrupt) b.base[b.len - 1] ^= 1;
    while (p->pad_outside && b.len < 1200)
        cb_buf_add(&b, "", 1);
    r->pn[space]++;
    raw_datagram(r, b.base, b.len);
    cb_buf_free(&b);
    cb_buf_free(&plain);
}

void raw_frames(raw_quic *r, enum raw_level level, const void *frames, size_t len) {
    raw_send(r, &(raw_packet){.level = level, .frames = frames, .len = len});
}

void raw_next_keys(raw_quic *r) {
    raw_keys_next(&r->tx[RAW_APP]);
    r->phase = !r->phase;
}

void raw_stream_send(raw_quic *r, int64_t id, const void *data, size_t len, bool fin) {
    raw_stream *s = raw_stream_of(r, id);
    const uint8_t *at = data;
    do {
        size_t n = len < 1000 ? len : 1000;
        cb_buf b;
        cb_buf_init(&b, NULL, 2048);
        cb_buf_add(&b, fin && n == len ? "\x0f" : "\x0e", 1);
        raw_varint(&b, (uint64_t)id);
        raw_varint(&b, s->sent);
        raw_varint(&b, n);
        cb_buf_add(&b, at, n);
        raw_frames(r, RAW_APP, b.base, b.len);
        cb_buf_free(&b);
        s->sent += n;
        at += n;
        len -= n;
    } while (len);
}

static void add_ack(raw_quic *r, enum raw_level l, cb_buf *b) {
    if (!r->ack_due[l]) return;
    r->ack_due[l] = false;
    cb_buf_add(b, "\x02", 1);
    raw_varint(b, r->last_rx[l]);
    raw_varint(b, 0);
    raw_varint(b, 0);
    raw_varint(b, r->last_rx[l] - r->first_rx[l]);
}

void raw_flush(raw_quic *r) {
    for (enum raw_level l = RAW_INITIAL; l <= RAW_APP; l++) {
        do {
            cb_buf b;
            if (!r->tx[l].have || r->closed) break;
            cb_buf_init(&b, NULL, 2048);
            add_ack(r, l, &b);
            size_t n = l >= r->hold_from ? 0 : r->crypto[l].len < 1000 ? r->crypto[l].len : 1000;
            if (n) {
                cb_buf_add(&b, "\x06", 1);
                raw_varint(&b, r->crypto_sent[l]);
                raw_varint(&b, n);
                cb_buf_add(&b, r->crypto[l].base, n);
                cb_buf_drop(&r->crypto[l], n);
                r->crypto_sent[l] += n;
            }
            if (b.len) raw_frames(r, l, b.base, b.len);
            cb_buf_free(&b);
        } while (r->crypto[l].len && l < r->hold_from);
    }
    if (r->server && r->complete && !r->confirmed) {
        r->confirmed = true;
        if (r->hold_from == RAW_LEVELS) raw_frames(r, RAW_APP, "\x1e\x01\x00\x00", 4);
    }
}

/* ---- frames in ---- */

static void got_crypto(raw_quic *r, enum raw_level level, cb_slice *in) {
    uint64_t offset = raw_varint_get(in), len = raw_varint_get(in);
    cb_slice data = take(in, len);
    if (offset > r->crypto_got[level] || offset + data.len <= r->crypto_got[level]) return;
    take(&data, r->crypto_got[level] - offset);
    r->crypto_got[level] += data.len;
    raw_tls_feed(r, level, data.base, data.len);
}

static void got_stream(raw_quic *r, uint64_t type, cb_slice *in) {
    raw_stream *s = raw_stream_of(r, (int64_t)raw_varint_get(in));
    if (type & 4) (void)raw_varint_get(in);
    uint64_t len = type & 2 ? raw_varint_get(in) : in->len;
    s->bytes += take(in, len).len;
    if (type & 1) s->fin = true;
}

static void got_close(raw_quic *r, uint64_t type, cb_slice *in) {
    uint64_t code = raw_varint_get(in), frame = type == 0x1c ? raw_varint_get(in) : 0;
    take(in, raw_varint_get(in));
    if (r->closed) return;
    r->closed = true;
    r->close_app = type == 0x1d;
    r->close_code = code;
    r->close_frame = frame;
}

static void got_ack(raw_quic *r, enum raw_level level, uint64_t type, cb_slice *in) {
    uint64_t largest = raw_varint_get(in);
    (void)raw_varint_get(in);
    uint64_t ranges = raw_varint_get(in);
    (void)raw_varint_get(in);
    for (uint64_t i = 0; i < 2 * ranges + (type == 3 ? 3 : 0); i++)
        (void)raw_varint_get(in);
    if (largest + 1 > r->acked[level]) r->acked[level] = largest + 1;
}

static void skip_numbers(cb_slice *in, int n) {
    while (n--)
        (void)raw_varint_get(in);
}

static void got_cid(raw_quic *r, cb_slice *in) {
    skip_numbers(in, 2);
    size_t len = take(in, 1).base[0];
    cb_slice cid = take(in, len);
    if (len && len <= sizeof r->last_cid) memcpy(r->last_cid, cid.base, r->last_cid_len = len);
    if (len == RAW_CID && r->n_cids < RAW_CIDS) memcpy(r->cids[r->n_cids++], cid.base, RAW_CID);
    take(in, 16);
}

static void got_frame(raw_quic *r, enum raw_level level, cb_slice *in) {
    uint64_t type = raw_varint_get(in);
    if (type < 64) r->frames[type]++;
    if (type > 3 && type != 0x1c && type != 0x1d) r->ack_due[level] = true;
    if (type == 1) r->ack_due[level] = true;
    raw_stream *s;
    switch (type) {
    case 0x00:
    case 0x01:
        return;
    case 0x02:
    case 0x03:
        got_ack(r, level, type, in);
        return;
    case 0x04:
        s = raw_stream_of(r, (int64_t)raw_varint_get(in));
        s->reset = true;
        s->reset_code = raw_varint_get(in);
        (void)raw_varint_get(in);
        return;
    case 0x05:
        s = raw_stream_of(r, (int64_t)raw_varint_get(in));
        s->stopped = true;
        s->stop_code = raw_varint_get(in);
        return;
    case 0x06:
        got_crypto(r, level, in);
        return;
    case 0x07:
        take(in, raw_varint_get(in));
        return;
    case 0x11:
    case 0x15:
        skip_numbers(in, 2);
        return;
    case 0x18:
        got_cid(r, in);
        return;
    case 0x1a:
        memcpy(r->challenge, take(in, 8).base, 8);
        return;
    case 0x1b:
        take(in, 8);
        return;
    case 0x1c:
    case 0x1d:
        got_close(r, type, in);
        return;
    case 0x1e:
        r->confirmed = true;
        return;
    case 0x30:
        take(in, in->len);
        return;
    case 0x31:
        take(in, raw_varint_get(in));
        return;
    default:
        break;
    }
    if (type >= 8 && type < 16) {
        got_stream(r, type, in);
        return;
    }
    cr_assert(type >= 0x10 && type <= 0x19, "the endpoint sent a frame of type 0x%llx", (unsigned long long)type);
    skip_numbers(in, 1);
}

/* ---- packets in ---- */

static void note_packet(raw_quic *r, enum raw_level level, uint64_t pn) {
    if (!r->any_rx[level] || pn != r->last_rx[level] + 1) r->first_rx[level] = pn;
    r->any_rx[level] = true;
    r->last_rx[level] = pn;
}

static uint64_t whole_number(const raw_quic *r, enum raw_level level, uint64_t pn, unsigned bytes) {
    uint64_t window = 1ULL << 8 * bytes, expected = r->any_rx[level] ? r->last_rx[level] + 1 : 0;
    uint64_t got = (expected & ~(window - 1)) | pn;
    if (got + window / 2 <= expected) return got + window;
    return got > expected + window / 2 && got >= window ? got - window : got;
}

static void open_packet(raw_quic *r, enum raw_level level, uint8_t *p, size_t at, size_t len) {
    uint8_t mask[16], nonce[12], plain[2048];
    raw_keys *k = &r->rx[level];
    size_t room = sizeof plain;
    r->packets++;
    if (!k->have || at + 20 > len) {
        r->undecryptable++;
        return;
    }
    raw_keys_mask(k, p + at + 4, mask);
    p[0] ^= mask[0] & (level == RAW_APP ? 0x1f : 0x0f);
    unsigned bytes = (p[0] & 3) + 1u;
    uint64_t pn = 0;
    for (unsigned i = 0; i < bytes; i++)
        pn = pn << 8 | (p[at + i] ^= mask[1 + i]);
    pn = whole_number(r, level, pn, bytes);
    if (level == RAW_APP && ((p[0] & 4) != 0) != r->rx_phase) { /* it follows a key update, or makes one */
        r->rx_phase = !r->rx_phase;
        raw_keys_next(k);
    }
    memcpy(nonce, k->iv, 12);
    for (int i = 0; i < 8; i++)
        nonce[11 - i] ^= (uint8_t)(pn >> 8 * i);
    int rc = gnutls_aead_cipher_decrypt(k->aead, nonce, 12, p, at + bytes, 16, p + at + bytes, len - at - bytes, plain,
                                        &room);
    if (rc < 0) {
        r->undecryptable++;
        return;
    }
    note_packet(r, level, pn);
    cb_slice in = {plain, room};
    while (in.len)
        got_frame(r, level, &in);
}

/* A long header; returns the length of the packet. */
static size_t long_packet(raw_quic *r, uint8_t *p, size_t len) {
    cb_slice in = {p + 5, len - 5};
    cb_slice dcid = take(&in, take(&in, 1).base[0]), scid = take(&in, take(&in, 1).base[0]);
    int type = p[0] >> 4 & 3;
    if (!(p[1] | p[2] | p[3] | p[4])) {
        r->vn_packets++;
        return len;
    }
    if (type == 3) {
        r->retries++;
        return len;
    }
    if (r->server && !r->tx[RAW_INITIAL].have && type == 0) {
        memcpy(r->odcid, dcid.base, r->odcid_len = dcid.len);
        raw_keys_initial(r, dcid.base, dcid.len);
        raw_params_default(r);
        if (r->prepare) r->prepare(r);
    }
    if (type == 0) take(&in, raw_varint_get(&in));
    uint64_t rest = raw_varint_get(&in);
    size_t at = (size_t)(in.base - p), whole = at + (size_t)rest;
    if (whole > len) return len;
    if (type == 0) memcpy(r->dcid, scid.base, r->dcid_len = scid.len);
    open_packet(r, type == 0 ? RAW_INITIAL : RAW_HANDSHAKE, p, at, whole);
    return whole;
}

static void got_datagram(raw_quic *r, uint8_t *p, size_t len) {
    while (len > 20 && p[0] & 0x80) {
        size_t n = long_packet(r, p, len);
        p += n;
        len -= n;
    }
    if (len > 20 && !(p[0] & 0x80)) open_packet(r, RAW_APP, p, 1 + RAW_CID, len);
}

static bool read_all(raw_quic *r) {
    uint8_t data[2048];
    struct sockaddr_in from;
    socklen_t from_len = sizeof from;
    ssize_t n;
    bool any = false;
    while ((n = recvfrom(r->fd, data, sizeof data, MSG_DONTWAIT, (struct sockaddr *)&from, &from_len)) > 0) {
        if (r->server) r->to = from;
        got_datagram(r, data, (size_t)n);
        any = true;
    }
    return any;
}

/* ---- life ---- */

static int64_t now_ms(void) {
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static void step(raw_quic *r, int64_t left) {
    int64_t wait = cb_loop_timeout_ms(r->loop);
    if (wait < 0 || wait > left) wait = left;
    struct pollfd p[2] = {{.fd = cb_loop_fd(r->loop), .events = POLLIN}, {.fd = r->fd, .events = POLLIN}};
    poll(p, 2, (int)wait);
    cb_loop_step(r->loop);
    if (read_all(r)) raw_flush(r);
}

void raw_turn(raw_quic *r, int ms) {
    int64_t end = now_ms() + ms, now;
    while ((now = now_ms()) < end)
        step(r, end - now);
}

bool raw_wait(raw_quic *r, const bool *flag) {
    int64_t end = now_ms() + 10000, now;
    while (!*flag && !r->closed && (now = now_ms()) < end)
        step(r, end - now);
    return *flag;
}

bool raw_answered(raw_quic *r) {
    int64_t end = now_ms() + 10000, now;
    raw_frames(r, RAW_APP, "\x01\x00\x00\x00", 4);
    uint64_t want = r->pn[RAW_APP];
    while (r->acked[RAW_APP] < want && !r->closed && (now = now_ms()) < end)
        step(r, end - now);
    return !r->closed && r->acked[RAW_APP] >= want;
}

void raw_make(raw_quic *r, cb_loop *loop, const char *alpn, const char *cert, const char *key) {
    const struct sockaddr_in any = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    memset(r, 0, sizeof *r);
    r->server = cert != NULL;
    r->loop = loop;
    r->hold_from = RAW_LEVELS;
    r->alpn = alpn;
    r->fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(bind(r->fd, (const struct sockaddr *)&any, sizeof any), 0);
    cr_assert_eq(gnutls_rnd(GNUTLS_RND_NONCE, r->scid, RAW_CID), 0);
    cr_assert_eq(gnutls_rnd(GNUTLS_RND_NONCE, r->odcid, RAW_CID), 0);
    r->odcid_len = RAW_CID;
    cb_buf_init(&r->params, NULL, 1 << 16);
    cb_buf_init(&r->peer_params, NULL, 1 << 16);
    for (int i = 0; i < RAW_LEVELS; i++)
        cb_buf_init(&r->crypto[i], NULL, 1 << 20);
    if (r->server) raw_tls_make(r, cert, key, NULL);
}

uint16_t raw_port(const raw_quic *r) {
    struct sockaddr_in a;
    socklen_t len = sizeof a;
    cr_assert_eq(getsockname(r->fd, (struct sockaddr *)&a, &len), 0);
    return ntohs(a.sin_port);
}

void raw_client(raw_quic *r, const char *remote, const char *sni) {
    r->to = (struct sockaddr_in){.sin_family = AF_INET,
                                 .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                                 .sin_port = htons((uint16_t)atoi(strrchr(remote, ':') + 1))};
    memcpy(r->dcid, r->odcid, r->dcid_len = r->odcid_len);
    raw_keys_initial(r, r->dcid, r->dcid_len);
    raw_params_default(r);
    if (r->prepare) r->prepare(r);
    raw_tls_make(r, NULL, NULL, sni);
    raw_tls_feed(r, RAW_INITIAL, NULL, 0);
}

bool raw_connect(raw_quic *r) {
    raw_flush(r);
    return raw_wait(r, &r->confirmed) && r->complete;
}

void raw_drop(raw_quic *r) {
    if (r->tls) gnutls_deinit(r->tls);
    gnutls_free(r->session.data);
    if (r->cred) gnutls_certificate_free_credentials(r->cred);
    for (int i = 0; i < RAW_LEVELS; i++) {
        raw_keys_free(&r->rx[i]);
        raw_keys_free(&r->tx[i]);
        cb_buf_free(&r->crypto[i]);
    }
    cb_buf_free(&r->params);
    cb_buf_free(&r->peer_params);
    close(r->fd);
}
