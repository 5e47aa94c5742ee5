/* What a worker of another process writes: reading stays in bounds, and what was read is written as it came. */
#include "transport/mail.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static uint8_t in[CB_MAIL_MAX], out[CB_MAIL_MAX];
    enum cb_mail_kind kind;
    cb_datagram d;
    if (size > sizeof in) return 0;
    memcpy(in, data, size);
    uint8_t *at = in;
    size_t left = size, before = size;
    for (; cb_mail_read(&at, &left, &kind, &d); before = left) {
        size_t n = cb_mail_write(out, sizeof out, kind, &d);
        if (n != before - left || memcmp(out + CB_MAIL_HEAD, d.data, d.len) != 0 ||
            memcmp(out + 4, at - n + 4, 56) != 0)
            abort();
    }
    return 0;
}
