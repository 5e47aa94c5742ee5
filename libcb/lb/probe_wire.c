#include "lb/probe_wire.h"
#include "base/error.h"
#include <string.h>

/* ---- grpc.health.v1 (a message is: 0, its length in 4 bytes, itself) ---- */

enum { PREFIX = 5, VARINT_MAX = 10 };

static size_t put_varint(uint8_t *out, uint64_t v) {
    size_t n = 0;
    for (; v >= 0x80; v >>= 7)
        out[n++] = (uint8_t)(v | 0x80);
    out[n++] = (uint8_t)v;
    return n;
}

size_t cb_grpc_health_request(uint8_t out[CB_GRPC_REQUEST_MAX], const char *service) {
    const size_t len = service ? strlen(service) : 0;
    uint8_t *body = out + PREFIX;
    size_t n = 0;
    if (len && len <= CB_GRPC_SERVICE_MAX) { /* string service = 1; empty is left out, as proto3 has it */
        body[n++] = 1 << 3 | 2;
        n += put_varint(body + n, len);
        memcpy(body + n, service, len);
        n += len;
    }
    out[0] = 0;
    for (int i = 0; i < 4; i++)
        out[1 + i] = (uint8_t)(n >> (24 - 8 * i));
    return PREFIX + n;
}

static bool get_varint(cb_slice *s, uint64_t *v) {
    *v = 0;
    for (size_t i = 0; i < VARINT_MAX && i < s->len; i++) {
        const uint8_t byte = s->base[i];
        if (i == VARINT_MAX - 1 && byte > 1) return false;
        *v |= (uint64_t)(byte & 0x7f) << (7 * i);
        if (byte & 0x80) continue;
        *s = (cb_slice){s->base + i + 1, s->len - i - 1};
        return true;
    }
    return false;
}

static bool skip(cb_slice *s, uint64_t n) {
    if (n > s->len) return false;
    *s = (cb_slice){s->base + n, s->len - (size_t)n};
    return true;
}

/* Passes over a field that we do not know. */
static bool skip_field(cb_slice *s, uint64_t type) {
    uint64_t v;
    switch (type) {
    case 0:
        return get_varint(s, &v);
    case 1:
        return skip(s, 8);
    case 2:
        return get_varint(s, &v) && skip(s, v);
    case 5:
        return skip(s, 4);
    default:
        return false;
    }
}

int cb_grpc_health_answer(uint64_t *serving, cb_slice body) {
    uint64_t status = CB_GRPC_UNKNOWN, len = 0, key;
    if (body.len < PREFIX) return cb_fail(CB_EPROTO, "an answer of %zu bytes is no gRPC message", body.len);
    if (body.base[0]) return cb_fail(CB_EPROTO, "the answer is compressed, which nobody asked for");
    for (int i = 1; i < PREFIX; i++)
        len = len << 8 | body.base[i];
    cb_slice s = {body.base + PREFIX, body.len - PREFIX};
    if (len != s.len)
        return cb_fail(CB_EPROTO, "the answer says that it has %llu bytes, and has %zu", (unsigned long long)len,
                       s.len);
    while (s.len) {
        if (!get_varint(&s, &key) || !(key >> 3)) return cb_fail(CB_EPROTO, "the answer is no HealthCheckResponse");
        if (key == 1 << 3 ? !get_varint(&s, &status) : !skip_field(&s, key & 7))
            return cb_fail(CB_EPROTO, "the answer is no HealthCheckResponse: field %llu is cut off or of no known kind",
                           (unsigned long long)(key >> 3));
    }
    *serving = status;
    return CB_OK;
}

const char *cb_grpc_serving_name(uint64_t serving) {
    static const char *const names[] = {"UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"};
    return serving < sizeof names / sizeof *names ? names[serving] : "a status that is not known";
}

static const char *const statuses[] = {
    "OK",        "CANCELLED",      "UNKNOWN",           "INVALID_ARGUMENT",   "DEADLINE_EXCEEDED",
    "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION",
    "ABORTED",   "OUT_OF_RANGE",   "UNIMPLEMENTED",     "INTERNAL",           "UNAVAILABLE",
    "DATA_LOSS", "UNAUTHENTICATED"};

enum { STATUSES = sizeof statuses / sizeof *statuses };

int cb_grpc_status(cb_slice text) {
    int n = 0;
    if (!text.len || text.len > 2) return -1;
    for (size_t i = 0; i < text.len; i++) {
        if (text.base[i] < '0' || text.base[i] > '9') return -1;
        n = n * 10 + (text.base[i] - '0');
    }
    return n < STATUSES ? n : -1;
}

const char *cb_grpc_status_name(int status) {
    return status < 0 || status >= STATUSES ? "?" : statuses[status];
}

/* ---- ICMP echo: RFC 792, RFC 4443 ---- */

enum {
    REPLY4 = 0,
    UNREACHABLE4 = 3,
    REQUEST4 = 8,
    UNREACHABLE6 = 1,
    REQUEST6 = 128,
    REPLY6 = 129,
    HEADER = 8,
    IPV6 = 40
};

static void put16(uint8_t *at, uint16_t v) {
    at[0] = (uint8_t)(v >> 8);
    at[1] = (uint8_t)v;
}

static uint16_t get16(const uint8_t *at) {
    return (uint16_t)(at[0] << 8 | at[1]);
}

static uint16_t checksum(const uint8_t *at, size_t len) {
    uint32_t sum = 0;
    for (size_t i = 0; i + 1 < len; i += 2)
        sum += get16(at + i);
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)~sum;
}

void cb_icmp_request(uint8_t out[CB_ICMP_ECHO_BYTES], const cb_icmp_echo *echo) {
    memset(out, 0, CB_ICMP_ECHO_BYTES);
    out[0] = echo->v6 ? REQUEST6 : REQUEST4;
    put16(out + 4, echo->id);
    put16(out + 6, echo->seq);
    memcpy(out + HEADER, echo->token, CB_ICMP_TOKEN);
    if (!echo->v6) put16(out + 2, checksum(out, CB_ICMP_ECHO_BYTES)); /* of version 6: the kernel's */
}

/* Cuts an IPv4 header off; false: it is none with ICMP behind it. */
static bool strip4(cb_slice *s) {
    const size_t len = s->len ? (size_t)(s->base[0] & 15) * 4 : 0;
    if (len < 20 || s->len < len || s->base[0] >> 4 != 4 || s->base[9] != 1) return false;
    *s = (cb_slice){s->base + len, s->len - len};
    return true;
}

static bool strip6(cb_slice *s) {
    if (s->len < IPV6 || s->base[0] >> 4 != 6 || s->base[6] != 58) return false;
    *s = (cb_slice){s->base + IPV6, s->len - IPV6};
    return true;
}

/* Of ping sockets the kernel chooses the identifier. */
static bool is_ours(const cb_icmp_echo *echo, cb_slice s) {
    return get16(s.base + 6) == echo->seq && (!echo->raw || get16(s.base + 4) == echo->id);
}

int cb_icmp_read(const cb_icmp_echo *echo, cb_slice packet, int *code) {
    cb_slice s = packet;
    if (echo->raw && !echo->v6 && !strip4(&s)) return CB_ICMP_OTHER;
    if (s.len < HEADER) return CB_ICMP_OTHER;
    if (s.base[0] == (echo->v6 ? REPLY6 : REPLY4)) {
        const bool all = s.len >= CB_ICMP_ECHO_BYTES && memcmp(s.base + HEADER, echo->token, CB_ICMP_TOKEN) == 0;
        return all && is_ours(echo, s) ? CB_ICMP_REPLY : CB_ICMP_OTHER;
    }
    if (s.base[0] != (echo->v6 ? UNREACHABLE6 : UNREACHABLE4)) return CB_ICMP_OTHER;
    *code = s.base[1];
    s = (cb_slice){s.base + HEADER, s.len - HEADER}; /* our packet, as far as it is quoted */
    if (!(echo->v6 ? strip6(&s) : strip4(&s)) || s.len < HEADER) return CB_ICMP_OTHER;
    return s.base[0] == (echo->v6 ? REQUEST6 : REQUEST4) && is_ours(echo, s) ? CB_ICMP_UNREACHABLE : CB_ICMP_OTHER;
}
