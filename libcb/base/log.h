/* Log lines through the hook of a loop. Formatting happens only when somebody listens at that level. */
#ifndef CB_BASE_LOG_H
#define CB_BASE_LOG_H

#include <cb/base.h>
#include <stdbool.h>

bool cb_log_on(const cb_log *log, int level); /* log may be NULL */
void cb_log_line(const cb_log *log, int level, const char *module, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* Copies bytes of the network into a text that is safe to print: \xNN for what is not printable ASCII,
 * "..." when it was cut. Returns out. */
const char *cb_text_escape(char *out, size_t cap, cb_slice in);

#endif
