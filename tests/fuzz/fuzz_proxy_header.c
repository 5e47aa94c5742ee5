/* PROXY protocol headers: what is read never depends on bytes behind it, and can be written and read again. */
#include "transport/proxy_header.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    cb_proxy_header h, again;
    uint8_t out[128];
    int64_t len = cb_proxy_header_read(&h, (cb_slice){data, size});
    if (len < 0) return 0;
    if (len == 0 || (size_t)len > size || len > CB_PROXY_HEADER_MAX) abort();
    uint8_t *exact = malloc((size_t)len); /* so that the sanitizer sees a read beyond the header */
    if (!exact) return 0;
    memcpy(exact, data, (size_t)len);
    if (cb_proxy_header_read(&again, (cb_slice){exact, (size_t)len}) != len) abort();
    if (cb_proxy_header_read(&again, (cb_slice){exact, (size_t)len - 1}) != CB_EAGAIN) abort();
    free(exact);
    for (int version = 1; version <= 2 && h.named; version++) {
        int n = cb_proxy_header_write(out, version, &h.source, &h.dest);
        if (n <= 0 || n > 107 || cb_proxy_header_read(&again, (cb_slice){out, (size_t)n}) != n) abort();
        if (!again.named || cb_addr_port(&again.source) != cb_addr_port(&h.source)) abort();
    }
    return 0;
}
