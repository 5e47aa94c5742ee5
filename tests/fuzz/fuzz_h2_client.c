/* An HTTP/2 client with requests under way: whatever the server says. */
#include "support/fuzz_http.h"

static void run(const uint8_t *data, size_t size, size_t step) {
    static fuzz f;
    const uint8_t *end = data + size;
    fuzz_init(&f, false);
    if (cb_h2_new(&f.h, &f.env) < 0) abort();
    fuzz_request(&f, "GET", "", true);
    fuzz_request(&f, "POST", "", false);
    fuzz_request(&f, "HEAD", "", true);
    fuzz_request(&f, "CONNECT", "connect-udp", false);
    int64_t rc = f.h->vt->flush(f.h, f.now);
    while (data < end && rc >= 0) {
        size_t len = step && step < (size_t)(end - data) ? step : (size_t)(end - data);
        uint8_t *piece = malloc(len);
        memcpy(piece, data, len);
        rc = f.h->vt->feed(f.h, (cb_slice){piece, len}, f.now);
        free(piece);
        data += len;
        if (rc >= 0) rc = f.h->vt->flush(f.h, f.now);
        f.now += CB_MS;
        if (f.h->vt->capacity(f.h)) fuzz_request(&f, "GET", "", true);
        if (f.h->vt->done(f.h)) break;
    }
    if (rc >= 0 && size % 2) fuzz_time(&f, 31 * CB_SEC);
    f.h->vt->closed(f.h, CB_ECLOSED);
    f.h->vt->free(f.h);
    fuzz_check(&f);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size > 4096) return 0;
    run(data, size, 0);
    run(data, size, 5);
    return 0;
}
