/* The rows about HTTP/3. The peer's control stream with empty SETTINGS is there before the first step, unless that is
 * "bare". "The message" is a request of the peer, or its response to our client's GET. Steps
 * (test_h3_violations.c runs them):
 *   control: 04 00       bytes on the control stream; control-fin, control-reset
 *   uni: 00 04 00        a new unidirectional stream, its type in front; bidi: a bidirectional one
 *   head: A= b|C= d      a HEADERS frame of the message; GET, POST5 and OK stand for what is needed
 *   data: text           a DATA frame; frames: 00 01 78 any bytes of the message; big: 70000 HEADERS with so long a
 * field fin                  the end of the message stop                 STOP_SENDING for the endpoint's control stream
 *   datagram: 40         a QUIC datagram */
#include "support/violations.h"

/* clang-format off */
const violation h3_violations[] = {
    /* control and other critical streams */
    {"settings and nothing else", "9114 6.2.1", BOTH, "", IGNORE, NONE, NONE, NULL},
    {"a control stream that begins with another frame than SETTINGS", "9114 6.2.1", BOTH, "bare; uni: 00 07 01 00", CLOSE, H3_MISSING_SETTINGS, NONE, NULL},
    {"a control stream that begins with DATA", "9114 6.2.1", BOTH, "bare; uni: 00 00 01 78", CLOSE, H3_MISSING_SETTINGS, NONE, NULL},
    {"SETTINGS twice", "9114 7.2.4", BOTH, "control: 04 00", CLOSE, H3_FRAME_UNEXPECTED, NONE, NULL},
    {"a second control stream", "9114 6.2.1", BOTH, "uni: 00", CLOSE, H3_STREAM_CREATION_ERROR, NONE, NULL},
    {"a second encoder stream of QPACK", "9204 4.2", BOTH, "uni: 02; uni: 02", CLOSE, H3_STREAM_CREATION_ERROR, NONE, NULL},
    {"a second decoder stream of QPACK", "9204 4.2", BOTH, "uni: 03; uni: 03", CLOSE, H3_STREAM_CREATION_ERROR, NONE, NULL},
    {"the control stream ends", "9114 6.2.1", BOTH, "control-fin", CLOSE, H3_CLOSED_CRITICAL_STREAM, NONE, NULL},
    {"the control stream is reset", "9114 6.2.1", BOTH, "control-reset", CLOSE, H3_CLOSED_CRITICAL_STREAM, NONE, NULL},
    {"the encoder stream of QPACK ends", "9204 4.2", BOTH, "uni: 02 fin", CLOSE, H3_CLOSED_CRITICAL_STREAM, NONE, NULL},
    {"the decoder stream of QPACK ends", "9204 4.2", BOTH, "uni: 03 fin", CLOSE, H3_CLOSED_CRITICAL_STREAM, NONE, NULL},
    {"the endpoint's control stream is refused", "9114 6.2.1", BOTH, "stop", CLOSE, H3_CLOSED_CRITICAL_STREAM, NONE, NULL},
    {"a unidirectional stream of an unknown type", "9114 6.2", BOTH, "uni: 21 01 02 03 fin", IGNORE, NONE, NONE, NULL},
    {"a unidirectional stream that ends before its type", "9114 6.2", BOTH, "uni: fin", IGNORE, NONE, NONE, NULL},
    {"a push stream of a client", "9114 6.2.2", SERVER, "uni: 01 00", CLOSE, H3_STREAM_CREATION_ERROR, NONE, NULL},
    {"a push stream that nobody allowed", "9114 4.6", CLIENT, "uni: 01 00", CLOSE, H3_ID_ERROR, H3_STREAM_CREATION_ERROR, "nghttp3 1.8 knows no push: H3_STREAM_CREATION_ERROR"},
    {"a bidirectional stream of a server", "9114 6.1", CLIENT, "bidi: 00 01 78", CLOSE, H3_STREAM_CREATION_ERROR, NONE, NULL},

    /* settings */
    {"an unknown setting", "9114 7.2.4.1", BOTH, "bare; uni: 00 04 02 21 07", IGNORE, NONE, NONE, NULL},
    {"the setting 0x02 of HTTP/2", "9114 7.2.4.1", BOTH, "bare; uni: 00 04 02 02 01", CLOSE, H3_SETTINGS_ERROR, NONE, NULL},
    {"the setting 0x03 of HTTP/2", "9114 7.2.4.1", BOTH, "bare; uni: 00 04 02 03 01", CLOSE, H3_SETTINGS_ERROR, NONE, NULL},
    {"the setting 0x04 of HTTP/2", "9114 7.2.4.1", BOTH, "bare; uni: 00 04 02 04 01", CLOSE, H3_SETTINGS_ERROR, NONE, NULL},
    {"the setting 0x05 of HTTP/2", "9114 7.2.4.1", BOTH, "bare; uni: 00 04 02 05 01", CLOSE, H3_SETTINGS_ERROR, NONE, NULL},
    {"a setting that is there twice", "9114 7.2.4", BOTH, "bare; uni: 00 04 04 06 10 06 20", IGNORE, NONE, NONE, "the RFC allows H3_SETTINGS_ERROR; nghttp3 1.8 takes the last one"},
    {"a setting without a value", "9114 7.1", BOTH, "bare; uni: 00 04 01 06", CLOSE, H3_FRAME_ERROR, NONE, NULL},
    {"H3_DATAGRAM with the value 2", "9297 2.1.1", BOTH, "bare; uni: 00 04 02 33 02", CLOSE, H3_SETTINGS_ERROR, NONE, NULL},
    {"ENABLE_CONNECT_PROTOCOL with the value 2", "9220 3", BOTH, "bare; uni: 00 04 02 08 02", CLOSE, H3_SETTINGS_ERROR, NONE, NULL},

    /* frames in the wrong place */
    {"an unknown frame on the control stream", "9114 9", BOTH, "control: 21 03 01 02 03", IGNORE, NONE, NONE, NULL},
    {"DATA on the control stream", "9114 7.2.1", BOTH, "control: 00 01 78", CLOSE, H3_FRAME_UNEXPECTED, NONE, NULL},
    {"HEADERS on the control stream", "9114 7.2.2", BOTH, "control: 01 02 00 00", CLOSE, H3_FRAME_UNEXPECTED, NONE, NULL},
    {"PUSH_PROMISE on the control stream", "9114 7.2.5", BOTH, "control: 05 03 00 00 00", CLOSE, H3_FRAME_UNEXPECTED, NONE, NULL},
    {"the frame 0x02 of HTTP/2 (PRIORITY)", "9114 7.2.8", BOTH, "control: 02 00", CLOSE, H3_FRAME_UNEXPECTED, NONE, NULL},
    {"the frame 0x06 of HTTP/2 (PING)", "9114 7.2.8", BOTH, "control: 06 00", CLOSE, H3_FRAME_UNEXPECTED, NONE, NULL},
    {"the frame 0x08 of HTTP/2 (WINDOW_UPDATE)", "9114 7.2.8", BOTH, "control: 08 00", CLOSE, H3_FRAME_UNEXPECTED, NONE, NULL},
    {"the frame 0x09 of HTTP/2 (CONTINUATION)", "9114 7.2.8", BOTH, "control: 09 00", CLOSE, H3_FRAME_UNEXPECTED, NONE, NULL},
    {"a frame of HTTP/2 on a stream of a message", "9114 7.2.8", BOTH, "frames: 06 00", CLOSE, H3_FRAME_UNEXPECTED, NONE, NULL},
    {"an unknown frame before HEADERS", "9114 9", SERVER, "frames: 21 02 61 62; head: GET; fin", IGNORE, NONE, NONE, NULL},
    {"an unknown frame before HEADERS", "9114 9", CLIENT, "frames: 21 02 61 62; head: OK; fin", IGNORE, NONE, NONE, NULL},
    {"DATA before HEADERS", "9114 4.1", BOTH, "frames: 00 01 78", CLOSE, H3_FRAME_UNEXPECTED, NONE, NULL},
    {"SETTINGS on a stream of a message", "9114 7.2.4", BOTH, "frames: 04 00", CLOSE, H3_FRAME_UNEXPECTED, NONE, NULL},
    {"GOAWAY on a stream of a message", "9114 7.2.6", BOTH, "frames: 07 01 00", CLOSE, H3_FRAME_UNEXPECTED, NONE, NULL},
    {"CANCEL_PUSH on a stream of a message", "9114 7.2.3", BOTH, "frames: 03 01 00", CLOSE, H3_FRAME_UNEXPECTED, NONE, NULL},
    {"MAX_PUSH_ID on a stream of a message", "9114 7.2.7", BOTH, "frames: 0d 01 00", CLOSE, H3_FRAME_UNEXPECTED, NONE, NULL},
    {"PRIORITY_UPDATE on a stream of a message", "9218 7.2", BOTH, "frames: 80 0f 07 00 04 00 75 3d 33", CLOSE, H3_FRAME_UNEXPECTED, NONE, NULL},
    {"PUSH_PROMISE of a client", "9114 7.2.5", SERVER, "frames: 05 03 00 00 00", CLOSE, H3_FRAME_UNEXPECTED, NONE, NULL},
    {"PUSH_PROMISE that nobody allowed", "9114 7.2.5", CLIENT, "frames: 05 03 00 00 00", CLOSE, H3_ID_ERROR, H3_FRAME_UNEXPECTED, "nghttp3 1.8 knows no push: H3_FRAME_UNEXPECTED"},
    {"HEADERS after the trailers", "9114 4.1", SERVER, "head: POST5; data: hello; head: x= y; head: x= z", CLOSE, H3_FRAME_UNEXPECTED, NONE, NULL},
    {"HEADERS after the trailers", "9114 4.1", CLIENT, "head: OK; data: hello; head: x= y; head: x= z", RESET, H3_MESSAGE_ERROR, NONE, "the RFC asks for H3_FRAME_UNEXPECTED; nghttp3 1.8 calls it malformed on a client"},
    {"DATA after the trailers", "9114 4.1", SERVER, "head: POST5; data: hello; head: x= y; data: x", CLOSE, H3_FRAME_UNEXPECTED, NONE, NULL},
    {"DATA after the trailers", "9114 4.1", CLIENT, "head: OK; data: hello; head: x= y; data: x", RESET, H3_MESSAGE_ERROR, NONE, "the RFC asks for H3_FRAME_UNEXPECTED; nghttp3 1.8 calls it malformed on a client"},
    {"MAX_PUSH_ID of a server", "9114 7.2.7", CLIENT, "control: 0d 01 00", CLOSE, H3_FRAME_UNEXPECTED, NONE, NULL},
    {"PRIORITY_UPDATE of a server", "9218 7.2", CLIENT, "control: 80 0f 07 00 04 00 75 3d 33", CLOSE, H3_FRAME_UNEXPECTED, NONE, NULL},


    /* IDs */
    {"MAX_PUSH_ID that becomes less", "9114 7.2.7", SERVER, "control: 0d 01 05 0d 01 04", CLOSE, H3_ID_ERROR, NONE, NULL},
    {"CANCEL_PUSH of what was never promised", "9114 7.2.3", BOTH, "control: 03 01 05", CLOSE, H3_ID_ERROR, NONE, NULL},
    {"GOAWAY with a number that grows", "9114 5.2", BOTH, "control: 07 01 08 07 01 0c", CLOSE, H3_ID_ERROR, NONE, NULL},
    {"GOAWAY that names no request", "9114 5.2", CLIENT, "control: 07 01 07", CLOSE, H3_ID_ERROR, NONE, NULL},
    {"PRIORITY_UPDATE for a stream that is no request", "9218 7.2", SERVER, "control: 80 0f 07 00 04 03 75 3d 33", CLOSE, H3_ID_ERROR, NONE, NULL},
    {"PRIORITY_UPDATE for a push that was never promised", "9218 7.2", SERVER, "control: 80 0f 07 01 04 03 75 3d 33", CLOSE, H3_ID_ERROR, NONE, NULL},

    /* frames that cannot be read */
    {"a stream that ends in a frame", "9114 7.1", BOTH, "frames: 01 20 00 00; fin", CLOSE, H3_FRAME_ERROR, NONE, NULL},
    {"a stream that ends in DATA", "9114 7.1", SERVER, "head: POST5; frames: 00 05 61 62; fin", CLOSE, H3_FRAME_ERROR, NONE, NULL},
    {"a stream that ends in DATA", "9114 7.1", CLIENT, "head: OK; frames: 00 05 61 62; fin", CLOSE, H3_FRAME_ERROR, NONE, NULL},
    {"GOAWAY without a number", "9114 7.1", BOTH, "control: 07 00", CLOSE, H3_FRAME_ERROR, NONE, NULL},
    {"GOAWAY with bytes after its number", "9114 7.1", BOTH, "control: 07 02 00 00", CLOSE, H3_FRAME_ERROR, NONE, NULL},
    {"MAX_PUSH_ID with bytes after its number", "9114 7.1", SERVER, "control: 0d 02 00 00", CLOSE, H3_FRAME_ERROR, NONE, NULL},
    {"CANCEL_PUSH without a number", "9114 7.1", BOTH, "control: 03 00", CLOSE, H3_FRAME_ERROR, NONE, NULL},
    {"PRIORITY_UPDATE without a number", "9114 7.1", SERVER, "control: 80 0f 07 00 00", CLOSE, H3_FRAME_ERROR, NONE, NULL},
    {"PRIORITY_UPDATE whose value cannot be read", "9218 7", SERVER, "control: 80 0f 07 00 02 00 2c", CLOSE, H3_GENERAL_PROTOCOL_ERROR, NONE, NULL},
    {"a datagram without a whole Quarter Stream ID", "9297 2.1", BOTH, "datagram: 40", CLOSE, H3_DATAGRAM_ERROR, NONE, NULL},
    {"a datagram with a Quarter Stream ID above 2^60-1", "9297 2.1", BOTH, "datagram: d0 00 00 00 00 00 00 00", CLOSE, H3_DATAGRAM_ERROR, NONE, NULL},

    /* QPACK */
    {"a field of the static table that does not exist", "9204 3.1", BOTH, "frames: 01 04 00 00 ff 24", CLOSE, QPACK_DECOMPRESSION_FAILED, NONE, NULL},
    {"a dynamic field without Required Insert Count", "9204 2.2.3", BOTH, "frames: 01 03 00 00 80", CLOSE, QPACK_DECOMPRESSION_FAILED, NONE, NULL},
    {"a Required Insert Count beyond the table", "9204 4.5.1.1", BOTH, "frames: 01 04 ff ff 01 00", CLOSE, QPACK_DECOMPRESSION_FAILED, NONE, NULL},
    {"a field section without its prefix", "9204 4.5.1", BOTH, "frames: 01 00", RESET, H3_MESSAGE_ERROR, NONE, "the RFC asks for QPACK_DECOMPRESSION_FAILED; nghttp3 1.8 sees a message without fields"},
    {"a field section that is cut short", "9204 2.2", BOTH, "frames: 01 04 00 00 23 61", CLOSE, QPACK_DECOMPRESSION_FAILED, NONE, NULL},
    {"a name whose Huffman code is wrong", "7541 5.2", BOTH, "frames: 01 04 00 00 29 00", CLOSE, QPACK_DECOMPRESSION_FAILED, NONE, NULL},
    {"an integer without end", "9204 4.1.1", BOTH, "frames: 01 0f 00 00 27 ff ff ff ff ff ff ff ff ff ff ff 7f", CLOSE, QPACK_DECOMPRESSION_FAILED, NONE, NULL},
    {"an encoder stream with too large a capacity", "9204 4.3.1", BOTH, "uni: 02 3f ff ff 7f", CLOSE, QPACK_ENCODER_STREAM_ERROR, NONE, NULL},
    {"an insertion with the name of a field that does not exist", "9204 4.3.2", BOTH, "uni: 02 3f e1 1f 85 01 78", CLOSE, QPACK_ENCODER_STREAM_ERROR, NONE, NULL},
    {"a duplicate of a field that does not exist", "9204 4.3.4", BOTH, "uni: 02 3f e1 1f 03", CLOSE, QPACK_ENCODER_STREAM_ERROR, NONE, NULL},
    {"an insertion that is larger than the table", "9204 3.2.2", BOTH, "uni: 02 20 41 61 01 62", CLOSE, QPACK_ENCODER_STREAM_ERROR, NONE, NULL},
    {"a decoder stream that acknowledges a section of nobody", "9204 4.4.1", BOTH, "uni: 03 bf 20", CLOSE, QPACK_DECODER_STREAM_ERROR, NONE, NULL},
    {"an Insert Count Increment of 0", "9204 4.4.3", BOTH, "uni: 03 00", CLOSE, QPACK_DECODER_STREAM_ERROR, NONE, NULL},
    {"an Insert Count Increment beyond what was sent", "9204 4.4.3", BOTH, "uni: 03 3f 20", CLOSE, QPACK_DECODER_STREAM_ERROR, NONE, NULL},

    /* malformed requests */
    {"a request without :path", "9114 4.3.1", SERVER, "head: :method= GET|:scheme= https|:authority= a; fin", RESET, H3_MESSAGE_ERROR, NONE, NULL},
    {"a request without :scheme", "9114 4.3.1", SERVER, "head: :method= GET|:authority= a|:path= /; fin", RESET, H3_MESSAGE_ERROR, NONE, NULL},
    {"a request without :method", "9114 4.3.1", SERVER, "head: :scheme= https|:authority= a|:path= /; fin", RESET, H3_MESSAGE_ERROR, NONE, NULL},
    {"a request without :authority and Host", "9114 4.3.1", SERVER, "head: :method= GET|:scheme= https|:path= /; fin", RESET, H3_MESSAGE_ERROR, NONE, NULL},
    {":authority and Host that differ", "9114 4.3.1", SERVER, "head: GET|host= b; fin", RESET, H3_MESSAGE_ERROR, NONE, NULL},
    {"an empty :path", "9114 4.3.1", SERVER, "head: :method= GET|:scheme= https|:authority= a|:path= ; fin", RESET, H3_MESSAGE_ERROR, NONE, NULL},
    {"user information in :authority", "9114 4.3.1", SERVER, "head: :method= GET|:scheme= https|:authority= u@a|:path= /; fin", RESET, H3_MESSAGE_ERROR, NONE, NULL},
    {"a pseudo-header field that is there twice", "9114 4.3.1", SERVER, "head: GET|:path= /; fin", RESET, H3_MESSAGE_ERROR, NONE, NULL},
    {"an unknown pseudo-header field", "9114 4.3", SERVER, "head: :foo= x|GET; fin", RESET, H3_MESSAGE_ERROR, NONE, NULL},
    {"a pseudo-header field of a response", "9114 4.3", SERVER, "head: :status= 200|GET; fin", RESET, H3_MESSAGE_ERROR, NONE, NULL},
    {"a pseudo-header field after another", "9114 4.3", SERVER, "head: :method= GET|x= y|:scheme= https|:authority= a|:path= /; fin", RESET, H3_MESSAGE_ERROR, NONE, NULL},
    {"a pseudo-header field in the trailers", "9114 4.3", SERVER, "head: POST5; data: hello; head: :path= /; fin", RESET, H3_MESSAGE_ERROR, NONE, NULL},
    {"a name with upper-case letters", "9114 4.2", SERVER, "head: GET|X-Upper= y; fin", RESET, H3_MESSAGE_ERROR, NONE, NULL},
    {"a name that is no token", "9114 10.3", SERVER, "head: GET|na me= y; fin", IGNORE, NONE, NONE, "the RFC asks for H3_MESSAGE_ERROR; nghttp3 1.8 leaves the field out and does not tell"},
    {"a value with CR in it", "9114 10.3", SERVER, "head: GET|x= a\rb; fin", IGNORE, NONE, NONE, "the RFC asks for H3_MESSAGE_ERROR; nghttp3 1.8 leaves the field out and does not tell"},
    {"Connection", "9114 4.2", SERVER, "head: GET|connection= close; fin", RESET, H3_MESSAGE_ERROR, NONE, NULL},
    {"Keep-Alive", "9114 4.2", SERVER, "head: GET|keep-alive= 1; fin", RESET, H3_MESSAGE_ERROR, NONE, NULL},
    {"Proxy-Connection", "9114 4.2", SERVER, "head: GET|proxy-connection= x; fin", RESET, H3_MESSAGE_ERROR, NONE, NULL},
    {"Transfer-Encoding", "9114 4.2", SERVER, "head: GET|transfer-encoding= chunked; fin", RESET, H3_MESSAGE_ERROR, NONE, NULL},
    {"Upgrade", "9114 4.2", SERVER, "head: GET|upgrade= websocket; fin", RESET, H3_MESSAGE_ERROR, NONE, NULL},
    {"TE with another value than trailers", "9114 4.2", SERVER, "head: GET|te= gzip; fin", RESET, H3_MESSAGE_ERROR, NONE, NULL},
    {"Content-Length that is no number", "9114 4.1.2", SERVER, "head: GET|content-length= -1; fin", RESET, H3_MESSAGE_ERROR, NONE, NULL},
    {"two values of Content-Length", "9114 4.1.2", SERVER, "head: POST5|content-length= 6; data: hello; fin", RESET, H3_MESSAGE_ERROR, NONE, NULL},
    {"a body longer than Content-Length", "9114 4.1.2", SERVER, "head: POST5; data: hello and more; fin", RESET, H3_MESSAGE_ERROR, NONE, NULL},
    {"a body shorter than Content-Length", "9114 4.1.2", SERVER, "head: POST5; data: hell; fin", RESET, H3_MESSAGE_ERROR, NONE, NULL},
    {"CONNECT with :scheme and :path", "9114 4.4", SERVER, "head: :method= CONNECT|:scheme= https|:authority= a:1|:path= /; fin", RESET, H3_MESSAGE_ERROR, NONE, NULL},
    {"CONNECT without :authority", "9114 4.4", SERVER, "head: :method= CONNECT; fin", RESET, H3_MESSAGE_ERROR, NONE, NULL},
    {":protocol without CONNECT", "9220 3", SERVER, "head: GET|:protocol= websocket; fin", RESET, H3_MESSAGE_ERROR, NONE, NULL},
    {"a field of more than 64 KiB", "9114 10.5.1", BOTH, "huge: 70000; fin", CLOSE, H3_EXCESSIVE_LOAD, NONE, NULL},
    {"more fields than SETTINGS_MAX_FIELD_SECTION_SIZE allows", "9114 4.2.2", SERVER, "big: 90000; fin", IGNORE, NONE, NONE, "answered with status 431"},
    {"a request stream that ends before a request", "9114 4.1.1", SERVER, "fin", RESET, H3_REQUEST_INCOMPLETE, NONE, NULL},
    {"a request stream that ends after an unknown frame", "9114 4.1.1", SERVER, "frames: 21 01 61; fin", RESET, H3_REQUEST_INCOMPLETE, NONE, NULL},

    /* malformed responses */
    {"a response without :status", "9114 4.3.2", CLIENT, "head: x= y; fin", RESET, H3_MESSAGE_ERROR, NONE, NULL},
    {"two :status", "9114 4.3.2", CLIENT, "head: :status= 200|:status= 200; fin", RESET, H3_MESSAGE_ERROR, NONE, NULL},
    {":status that is no number of three digits", "9114 4.3.2", CLIENT, "head: :status= abc; fin", RESET, H3_MESSAGE_ERROR, NONE, NULL},
    {"status 101", "9114 4.5", CLIENT, "head: :status= 101; head: OK; fin", RESET, H3_MESSAGE_ERROR, NONE, NULL},
    {"a pseudo-header field of a request", "9114 4.3", CLIENT, "head: :status= 200|:path= /; fin", RESET, H3_MESSAGE_ERROR, NONE, NULL},
    {"a pseudo-header field after another, in a response", "9114 4.3", CLIENT, "head: x= y|:status= 200; fin", RESET, H3_MESSAGE_ERROR, NONE, NULL},
    {"a pseudo-header field in the trailers of a response", "9114 4.3", CLIENT, "head: OK; data: x; head: :status= 200; fin", RESET, H3_MESSAGE_ERROR, NONE, NULL},
    {"a name with upper-case letters, in a response", "9114 4.2", CLIENT, "head: OK|X-Upper= y; fin", RESET, H3_MESSAGE_ERROR, NONE, NULL},
    {"Connection in a response", "9114 4.2", CLIENT, "head: OK|connection= close; fin", RESET, H3_MESSAGE_ERROR, NONE, NULL},
    {"Transfer-Encoding in a response", "9114 4.2", CLIENT, "head: OK|transfer-encoding= chunked; fin", RESET, H3_MESSAGE_ERROR, NONE, NULL},
    {"a response longer than Content-Length", "9114 4.1.2", CLIENT, "head: OK|content-length= 1; data: xy; fin", RESET, H3_MESSAGE_ERROR, NONE, NULL},
    {"a response shorter than Content-Length", "9114 4.1.2", CLIENT, "head: OK|content-length= 3; data: xy; fin", RESET, H3_MESSAGE_ERROR, NONE, NULL},
    {"more fields than SETTINGS_MAX_FIELD_SECTION_SIZE allows, in a response", "9114 4.2.2", CLIENT, "big: 90000; fin", RESET, H3_EXCESSIVE_LOAD, NONE, NULL},
    {"a stream that ends before a response", "9114 4.1", CLIENT, "fin", RESET, H3_MESSAGE_ERROR, NONE, NULL},
    {"a stream that ends after an interim response", "9114 4.1", CLIENT, "head: :status= 103; fin", RESET, H3_MESSAGE_ERROR, NONE, NULL},
};
/* clang-format on */
const size_t n_h3_violations = sizeof h3_violations / sizeof *h3_violations;
