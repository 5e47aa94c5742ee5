#include "packet/address.h"
#include "base/error.h"
#include <stdio.h>
#include <string.h>

void cb_packet_addr_from(cb_packet_addr *out, const cb_addr *a) {
    *out = (cb_packet_addr){.port = cb_addr_port(a)};
    if (a->sa.sa_family == AF_INET) {
        out->family = 4;
        memcpy(out->ip, &a->v4.sin_addr, 4);
    } else if (a->sa.sa_family == AF_INET6) {
        out->family = 6;
        out->scope = a->v6.sin6_scope_id;
        memcpy(out->ip, &a->v6.sin6_addr, 16);
    }
}

void cb_packet_addr_to(cb_addr *out, const cb_packet_addr *a) {
    memset(out, 0, sizeof *out);
    if (a->family == 4) {
        out->v4.sin_family = AF_INET;
        memcpy(&out->v4.sin_addr, a->ip, 4);
    } else if (a->family == 6) {
        out->v6.sin6_family = AF_INET6;
        out->v6.sin6_scope_id = a->scope;
        memcpy(&out->v6.sin6_addr, a->ip, 16);
    } else {
        return;
    }
    cb_addr_set_port(out, a->port);
}

int cb_packet_addr_parse(cb_packet_addr *out, const char *text) {
    cb_addr a;
    if (!out || !text) return cb_fail(CB_EINVAL, "cb_packet_addr_parse: out or text is NULL");
    int rc = cb_addr_parse(&a, text, 0);
    if (rc < 0) return rc;
    if (!cb_addr_port(&a)) return cb_fail(CB_EINVAL, "address \"%s\": a port is missing", text);
    cb_addr_unmap(&a);
    cb_packet_addr_from(out, &a);
    return CB_OK;
}

const char *cb_packet_addr_text(const cb_packet_addr *a, char *out, size_t cap) {
    char text[CB_ADDR_TEXT] = "-";
    cb_addr whole;
    cb_packet_addr_to(&whole, a);
    if (a->family == 4 || a->family == 6) cb_addr_text(&whole, text);
    if (cap) snprintf(out, cap, "%s", text);
    return out;
}

int cb_packet_addr_equal(const cb_packet_addr *a, const cb_packet_addr *b) {
    return a->family == b->family && a->port == b->port && memcmp(a->ip, b->ip, a->family == 4 ? 4 : 16) == 0;
}
