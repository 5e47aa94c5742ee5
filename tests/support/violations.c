#include "support/violations.h"
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int violation_next(const char **how, violation_step *out) {
    const char *at = *how + strspn(*how, " ;");
    if (!*at) return 0;
    size_t len = strcspn(at, ";"), verb = strcspn(at, ":; ");
    cr_assert(verb < sizeof out->verb && len < sizeof out->text, "a step is too long: %s", at);
    *out = (violation_step){{0}, {0}};
    memcpy(out->verb, at, verb);
    *how = at + len;
    if (verb < len) {
        size_t skip = verb + 1 + strspn(at + verb + 1, " ");
        if (skip < len) memcpy(out->text, at + skip, len - skip);
    }
    return 1;
}

static size_t put_stream(uint8_t *out, const char *token, int peer_is_server) {
    int peer = token[0] == 'P', uni = token[1] == 'U';
    uint8_t id = (uint8_t)((uni ? 2 : 0) + (peer == peer_is_server ? 1 : 0));
    if (token[2] == '*') { /* four bytes: far away */
        memcpy(out, "\x80\x40\x00", 3);
        out[3] = id;
        return 4;
    }
    out[0] = (uint8_t)(id + (token[2] == '+' ? atoi(token + 3) : 0));
    return 1;
}

size_t violation_bytes(uint8_t *out, size_t cap, const char *text, int peer_is_server) {
    size_t n = 0;
    for (text += strspn(text, " "); *text; text += strspn(text, " ")) {
        unsigned v = 0, times = 1;
        if (*text == 'P' || *text == 'E') {
            n += put_stream(out + n, text, peer_is_server);
        } else {
            cr_assert_eq(sscanf(text, "%2x", &v), 1, "not hex: %s", text);
            if (text[2] == 'x') times = (unsigned)atoi(text + 3); /* 00x20: twenty of them */
            while (times--)
                out[n++] = (uint8_t)v;
        }
        text += strcspn(text, " ");
        cr_assert_lt(n + 8, cap);
    }
    return n;
}
