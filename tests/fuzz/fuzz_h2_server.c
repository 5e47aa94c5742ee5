/* An HTTP/2 server: whatever follows the client's preface, in one piece and in small ones. */
#include "support/fuzz_http.h"

static void run(const uint8_t *data, size_t size, size_t step) {
    static fuzz f;
    const uint8_t *end = data + size;
    fuzz_init(&f, true);
    if (cb_h2_new(&f.h, &f.env) < 0) abort();
    if (size && data[0] == 'S') f.room = 30; /* a peer that reads slowly */
    int64_t rc = f.h->vt->feed(f.h, cb_slice_str("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), f.now);
    for (int n = 0; data < end && rc >= 0; n++) {
        size_t len = step && step < (size_t)(end - data) ? step : (size_t)(end - data);
        uint8_t *piece = malloc(len);
        memcpy(piece, data, len);
        rc = f.h->vt->feed(f.h, (cb_slice){piece, len}, f.now);
        free(piece);
        data += len;
        if (rc >= 0) rc = f.h->vt->flush(f.h, f.now);
        f.room += 50;
        f.now += CB_MS;
        if (n == 20 && f.held) cb_exchange_resume(f.held);
        if (f.h->vt->done(f.h)) break;
    }
    if (rc >= 0 && size % 3 == 0) f.h->vt->drain(f.h);
    if (rc >= 0 && size % 2 == 0)
        for (int i = 0; i < 5; i++)
            fuzz_time(&f, 11 * CB_SEC);
    f.h->vt->closed(f.h, CB_ECLOSED);
    f.h->vt->free(f.h);
    fuzz_check(&f);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size > 8192) return 0;
    run(data, size, 0);
    run(data, size, 7);
    return 0;
}
