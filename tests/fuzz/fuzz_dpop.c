/* Any bytes as a proof, and as a URL: what is normal once stays as it is. */
#include "auth/dpop.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static char text[4096], once[CB_DPOP_URL_BYTES], twice[CB_DPOP_URL_BYTES];
    cb_dpop_proof p;
    int32_t reason = CB_JWT_GOOD;
    const cb_dpop_request r = {.size = sizeof r,
                               .proof = {data, size},
                               .method = "POST",
                               .url = "https://server.example.com/token",
                               .now_s = 1562262617};
    int rc = cb_dpop_read(&p, &r, 60, 10, &reason);
    if ((rc == CB_OK) != (reason == CB_JWT_GOOD) || (rc == CB_OK && strlen(p.jkt) != 43)) abort();
    if (size >= sizeof text) return 0;
    memcpy(text, data, size);
    text[size] = '\0';
    if (cb_dpop_url(once, text) < 0) return 0;
    if (cb_dpop_url(twice, once) < 0 || strcmp(once, twice) != 0) abort();
    return 0;
}
