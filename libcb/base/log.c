#include "base/log.h"
#include <stdarg.h>
#include <stdio.h>

bool cb_log_on(const cb_log *log, int level) {
    if (!log || !log->write) return false;
    int least = __atomic_load_n(&log->level, __ATOMIC_RELAXED); /* a writer may be told another one while it runs */
    if (least == CB_LOG_DEFAULT) least = CB_LOG_INFO;
    return level >= least && level < CB_LOG_OFF;
}

void cb_log_line(const cb_log *log, int level, const char *module, const char *fmt, ...) {
    if (!cb_log_on(log, level)) return;
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (n < 0) return;
    /* One line, whatever a text of some library brought along. */
    for (char *p = text; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f) *p = ' ';
    log->write(level, module, text, log->user);
}

const char *cb_text_escape(char *out, size_t cap, cb_slice in) {
    static const char hex[] = "0123456789abcdef";
    static const char more[] = "...";
    size_t at = 0, fit = 0; /* fit: where "..." can still follow */
    if (!cap) return out;
    for (size_t i = 0; i < in.len; i++) {
        uint8_t b = in.base[i];
        bool plain = b >= 0x20 && b < 0x7f && b != '\\';
        size_t need = plain ? 1 : 4;
        if (at + sizeof more <= cap) fit = at;
        if (need > cap - 1 - at) {
            at = fit;
            for (const char *p = more; *p && at + 1 < cap; p++)
                out[at++] = *p;
            break;
        }
        if (plain) {
            out[at++] = (char)b;
            continue;
        }
        out[at++] = '\\';
        out[at++] = 'x';
        out[at++] = hex[b >> 4];
        out[at++] = hex[b & 15];
    }
    out[at] = '\0';
    return out;
}
