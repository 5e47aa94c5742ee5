/* What all kinds of checks need: how they end, and words for it. F3. */
#include "lb/probe.h"
#include "base/error.h"
#include <stdio.h>
#include <string.h>

const char *cb_probe_took(const cb_probe *p, char out[24]) {
    const cb_time now = cb_loop_now(p->loop);
    snprintf(out, 24, "%.1f ms", (double)(now > p->began ? now - p->began : 0) / 1e6);
    return out;
}

const char *cb_probe_quote(cb_slice bytes, char out[80]) {
    enum { ROOM = 70 };
    size_t n = 0;
    if (!bytes.len) return strcpy(out, "nothing");
    out[n++] = '"';
    for (size_t i = 0; i < bytes.len && n < ROOM; i++)
        out[n++] = bytes.base[i] >= ' ' && bytes.base[i] < 0x7f && bytes.base[i] != '"' ? (char)bytes.base[i] : '.';
    snprintf(out + n, 80 - n, n < ROOM ? "\"" : "\"...");
    return out;
}

void cb_probe_over(cb_probe *p, bool passed, const char *fmt, ...) {
    va_list ap;
    if (p->is_over) return;
    p->is_over = true;
    p->passed = passed;
    va_start(ap, fmt);
    vsnprintf(p->reason, sizeof p->reason, fmt, ap);
    va_end(ap);
    cb_defer_later(&p->over);
}

void cb_probe_failed(cb_probe *p) {
    char took[24];
    cb_probe_over(p, false, "%.200s, after %s", cb_last_error(), cb_probe_took(p, took));
}
