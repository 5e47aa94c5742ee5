/* The error table: what a peer may do wrong, and what RFC 9000, 9001, 9114, 9204 and their kin say to it. The rows are
 * run by tests/unit/test_quic_violations.c and tests/unit/test_h3_violations.c; docs/protocol-errors.md lists them. */
#ifndef CB_TEST_VIOLATIONS_H
#define CB_TEST_VIOLATIONS_H

#include <stddef.h>
#include <stdint.h>

/* Who is attacked: our server, our client, or each in turn. */
enum violation_of { SERVER = 1, CLIENT = 2, BOTH = 3 };

/* What must come of it. */
enum violation_end {
    CLOSE,  /* CONNECTION_CLOSE with the code */
    RESET,  /* the stream is reset with the code, and the connection goes on */
    IGNORE, /* nothing: the connection goes on */
    DROP    /* the packet counts as if it had never come */
};

enum violation_code {
    NONE = 0,
    FLOW_CONTROL_ERROR = 0x03,
    STREAM_LIMIT_ERROR = 0x04,
    STREAM_STATE_ERROR = 0x05,
    FINAL_SIZE_ERROR = 0x06,
    FRAME_ENCODING_ERROR = 0x07,
    TRANSPORT_PARAMETER_ERROR = 0x08,
    CONNECTION_ID_LIMIT_ERROR = 0x09,
    PROTOCOL_VIOLATION = 0x0a,
    INVALID_TOKEN = 0x0b,
    CRYPTO_BUFFER_EXCEEDED = 0x0d,
    KEY_UPDATE_ERROR = 0x0e,
    VERSION_NEGOTIATION_ERROR = 0x11,
    TLS_unexpected_message = 0x10a,
    TLS_bad_record_mac = 0x114,
    TLS_handshake_failure = 0x128,
    TLS_bad_certificate = 0x12a,
    TLS_illegal_parameter = 0x12f,
    TLS_unknown_ca = 0x130,
    TLS_decode_error = 0x132,
    TLS_decrypt_error = 0x133,
    TLS_protocol_version = 0x146,
    TLS_internal_error = 0x150,
    TLS_missing_extension = 0x16d,
    TLS_no_application_protocol = 0x178,
    H3_DATAGRAM_ERROR = 0x33,
    H3_NO_ERROR = 0x100,
    H3_GENERAL_PROTOCOL_ERROR = 0x101,
    H3_STREAM_CREATION_ERROR = 0x103,
    H3_CLOSED_CRITICAL_STREAM = 0x104,
    H3_FRAME_UNEXPECTED = 0x105,
    H3_FRAME_ERROR = 0x106,
    H3_EXCESSIVE_LOAD = 0x107,
    H3_ID_ERROR = 0x108,
    H3_SETTINGS_ERROR = 0x109,
    H3_MISSING_SETTINGS = 0x10a + 0x10000, /* the number is TLS's too: HTTP/3's codes are told apart by the frame */
    H3_REQUEST_INCOMPLETE = 0x10d,
    H3_MESSAGE_ERROR = 0x10e,
    QPACK_DECOMPRESSION_FAILED = 0x200,
    QPACK_ENCODER_STREAM_ERROR = 0x201,
    QPACK_DECODER_STREAM_ERROR = 0x202
};

typedef struct violation {
    const char *what; /* the peer does */
    const char *rfc;  /* number and section */
    enum violation_of who;
    const char *how; /* steps, separated by ";" (see the test that runs them) */
    enum violation_end end;
    enum violation_code code;
    enum violation_code also; /* what an implementation below us says instead; NONE: the RFC's */
    const char *note;         /* of such a row: which implementation, and what it does */
} violation;

extern const violation quic_violations[], h3_violations[];
extern const size_t n_quic_violations, n_h3_violations;

/* The next step of a row: its verb and the rest; false: there is none. *how moves on. */
typedef struct violation_step {
    char verb[16], text[512];
} violation_step;
int violation_next(const char **how, violation_step *out);
/* Hex, with names of streams: PB PU bidirectional and unidirectional of the peer, EB EU of the endpoint; "PB+4" is the
 * next one, "PB*" one far beyond every limit. */
size_t violation_bytes(uint8_t *out, size_t cap, const char *text, int peer_is_server);

#endif
