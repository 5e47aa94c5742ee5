/* What endpoints answer to checks: gRPC's health service (first byte 0 to 127), ICMP packets (above: version and socket
 * by bits). Reading stays in bounds; our own request is a reply when its type is changed. */
#include "lb/probe_wire.h"
#include <stdlib.h>
#include <string.h>

static void grpc(cb_slice in) {
    uint64_t serving = 0;
    if (cb_grpc_health_answer(&serving, in) == CB_OK && !*cb_grpc_serving_name(serving)) abort();
    const int status = cb_grpc_status(in);
    if (status < -1 || status > 16) abort();
    if (!*cb_grpc_status_name(status)) abort();
}

static void icmp(cb_slice in, uint8_t bits) {
    cb_icmp_echo echo = {.id = 0x1234, .seq = 7, .v6 = bits & 1, .raw = bits >> 1 & 1};
    uint8_t packet[CB_ICMP_ECHO_BYTES + 20] = {0x45};
    int code = -1;
    memcpy(echo.token, "sixteen bytes ok", sizeof echo.token);
    const int answer = cb_icmp_read(&echo, in, &code);
    if (answer == CB_ICMP_UNREACHABLE && (code < 0 || code > 255)) abort();
    if (answer < CB_ICMP_OTHER || answer > CB_ICMP_UNREACHABLE) abort();
    const size_t header = echo.raw && !echo.v6 ? 20 : 0;
    packet[9] = 1;
    cb_icmp_request(packet + header, &echo);
    packet[header] = echo.v6 ? 129 : 0;
    if (cb_icmp_read(&echo, (cb_slice){packet, header + CB_ICMP_ECHO_BYTES}, &code) != CB_ICMP_REPLY) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (!size) return 0;
    const cb_slice in = {data + 1, size - 1};
    if (data[0] < 128)
        grpc(in);
    else
        icmp(in, data[0]);
    return 0;
}
