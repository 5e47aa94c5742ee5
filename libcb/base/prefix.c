#include "base/prefix.h"
#include "base/error.h"
#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

bool cb_prefix_address(uint8_t out[16], const char *text, uint8_t *shift) {
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    *shift = 0;
    if (inet_pton(AF_INET6, text, out) == 1) return true;
    memcpy(out, mapped, sizeof mapped);
    *shift = 96;
    return inet_pton(AF_INET, text, out + 12) == 1;
}

int cb_prefix_parse(cb_prefix *out, const char *text) {
    char address[INET6_ADDRSTRLEN];
    const char *slash = text ? strchr(text, '/') : NULL;
    size_t n = slash ? (size_t)(slash - text) : text ? strlen(text) : 0;
    cb_prefix p;
    uint8_t shift = 0;
    if (!n || n >= sizeof address) return cb_fail(CB_EINVAL, "\"%s\" is not an IP prefix", text ? text : "");
    memcpy(address, text, n);
    address[n] = '\0';
    if (!cb_prefix_address(p.bytes, address, &shift)) return cb_fail(CB_EINVAL, "\"%s\" is not an IP prefix", text);
    unsigned long bits = 128u - shift;
    if (slash) {
        size_t digits = strspn(slash + 1, "0123456789");
        unsigned long asked = digits && digits <= 3 && !slash[1 + digits] ? strtoul(slash + 1, NULL, 10) : 999;
        if (asked > bits) return cb_fail(CB_EINVAL, "\"%s\": the prefix length does not fit", text);
        bits = asked;
    }
    p.bits = (uint8_t)(bits + shift);
    for (unsigned i = p.bits; i < 128; i++)
        p.bytes[i / 8] &= (uint8_t) ~(0x80u >> i % 8);
    *out = p;
    return CB_OK;
}

bool cb_prefix_has(const cb_prefix *p, const uint8_t address[16]) {
    const size_t whole = p->bits / 8;
    const uint8_t mask = (uint8_t)(0xff00u >> p->bits % 8);
    if (memcmp(address, p->bytes, whole) != 0) return false;
    return whole == 16 || (address[whole] & mask) == p->bytes[whole];
}
