/* What checks say on the wire, and what answers say: gRPC health (grpc.health.v1) and ICMP echo. F1. */
#ifndef CB_LB_PROBE_WIRE_H
#define CB_LB_PROBE_WIRE_H

#include <cb/base.h>
#include <stdbool.h>

enum {
    CB_GRPC_SERVICE_MAX = 1024, /* bytes of a service's name */
    CB_GRPC_REQUEST_MAX = CB_GRPC_SERVICE_MAX + 16,
    CB_GRPC_ANSWER_MAX = 4096,
    CB_ICMP_TOKEN = 16,
    CB_ICMP_ECHO_BYTES = 8 + CB_ICMP_TOKEN
};

/* HealthCheckResponse.ServingStatus; others that may come are none of these. */
enum cb_grpc_serving { CB_GRPC_UNKNOWN = 0, CB_GRPC_SERVING = 1, CB_GRPC_NOT_SERVING = 2, CB_GRPC_SERVICE_UNKNOWN = 3 };

/* A length-prefixed HealthCheckRequest. Returns its length. */
size_t cb_grpc_health_request(uint8_t out[CB_GRPC_REQUEST_MAX], const char *service);
/* The status of the one length-prefixed HealthCheckResponse that a body is. CB_EPROTO: it is none; the detail says why.
 */
int cb_grpc_health_answer(uint64_t *serving, cb_slice body);
const char *cb_grpc_serving_name(uint64_t serving);
/* grpc-status as text, 0 to 16: its number, or -1. */
int cb_grpc_status(cb_slice text);
const char *cb_grpc_status_name(int status);

typedef struct cb_icmp_echo {
    uint8_t token[CB_ICMP_TOKEN];
    uint16_t id, seq;
    bool v6, raw; /* raw: we choose id; version 4 comes with its IP header */
} cb_icmp_echo;

void cb_icmp_request(uint8_t out[CB_ICMP_ECHO_BYTES], const cb_icmp_echo *echo);
enum cb_icmp_answer { CB_ICMP_OTHER = 0, CB_ICMP_REPLY = 1, CB_ICMP_UNREACHABLE = 2 };
/* Is this packet the reply to our request, or an error about it (*code is its ICMP code)? */
int cb_icmp_read(const cb_icmp_echo *echo, cb_slice packet, int *code);

#endif
