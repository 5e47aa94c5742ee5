/* Identities out of certificates that nobody has verified: texts are safe to print, and a SPIFFE ID is one. */
#include "transport/peer.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const char *text) {
    for (; *text; text++)
        if (*text < ' ' || *text > '~') abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    cb_peer *p = NULL;
    cb_slice chain[2] = {{data, size}, {data, size}};
    if (cb_peer_read(&p, chain, 2) < 0) return 0;
    check(cb_peer_subject(p));
    check(cb_peer_issuer(p));
    check(cb_peer_common_name(p));
    check(cb_peer_serial(p));
    for (int kind = CB_SAN_DNS; kind <= CB_SAN_URI; kind++) {
        size_t n = cb_peer_names(p, kind);
        for (size_t i = 0; i < n; i++) {
            const char *name = cb_peer_name(p, kind, i);
            check(name);
            (void)cb_peer_is(p, name);
        }
    }
    const char *id = cb_peer_spiffe_id(p);
    if (*id && (!cb_spiffe_leaf_ok(id) || !cb_peer_is(p, id) || cb_peer_names(p, CB_SAN_URI) != 1)) abort();
    if (cb_peer_cert(p, 1).len != size || cb_peer_cert(p, 2).len) abort();
    cb_peer_unref(p);
    return 0;
}
