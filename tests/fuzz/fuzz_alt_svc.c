/* Whatever Alt-Svc says: what is taken has a port, a bounded life, and a host of harmless characters. */
#include "http/alt_svc.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    cb_alt_value out[3];
    bool clear;
    int n = cb_alt_svc_read((cb_slice){data, size}, out, 3, &clear);
    if (n > 3 || (clear && n)) abort();
    for (int i = 0; i < n; i++) {
        if (!out[i].port || out[i].ma_s > CB_ALT_MA_MAX || strlen(out[i].host) > CB_ALT_HOST_BYTES) abort();
        for (const char *c = out[i].host; *c; c++)
            if (*c <= ' ' || *c >= 0x7f || *c == '"' || *c == '/' || *c == '[') abort();
    }
    return 0;
}
