/* URLs as they come are shown in logs: never more than fits, and never the value of a parameter that is a secret. */
#include "telemetry/redact.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char tail[] = "&token=HUSH-HUSH";
    static uint8_t url[8192];
    char out[CB_REDACT_MAX];
    bool cut = false;
    cb_redact_field((cb_slice){data, size});
    cb_redact_is_url((cb_slice){data, size});
    if (size + sizeof tail > sizeof url || memmem(data, size, "HUSH", 4)) return 0;
    memcpy(url, data, size);
    memcpy(url + size, "?", 1);
    memcpy(url + size + 1, tail, sizeof tail - 1);
    cb_slice shown = cb_redact_url((cb_slice){url, size + sizeof tail}, out, &cut);
    if (shown.len > CB_REDACT_MAX || memmem(shown.base, shown.len, "HUSH", 4)) abort();
    return 0;
}
