/* ClientHellos, as a server sees them before GnuTLS does. */
#include "transport/client_hello.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void inside(cb_slice part, const uint8_t *data, size_t size) {
    if (part.len == 0) return;
    if (part.base < data || part.len > size || part.base > data + size - part.len) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    cb_client_hello h;
    (void)cb_client_hello_read(&h, (cb_slice){data, size});
    if (!memchr(h.sni, '\0', sizeof h.sni)) abort();
    for (const char *p = h.sni; *p; p++) {
        if (!strchr("abcdefghijklmnopqrstuvwxyz0123456789-._", *p)) abort();
    }
    inside(h.psk_identity, data, size);
    inside(h.ticket, data, size);
    return 0;
}
