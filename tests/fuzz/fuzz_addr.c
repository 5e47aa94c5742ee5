/* An address as text: what is read prints as a text that reads as the same address. */
#include "base/addr.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char text[256], printed[CB_ADDR_TEXT];
    cb_addr first, second;
    if (size >= sizeof text) return 0;
    memcpy(text, data, size);
    text[size] = '\0';
    if (cb_addr_parse(&first, text, 443) < 0) return 0;
    cb_addr_text(&first, printed);
    if (cb_addr_parse(&second, printed, 0) < 0 || !cb_addr_equal(&first, &second)) abort();
    return 0;
}
