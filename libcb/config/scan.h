/* The text of a configuration document: syntax, comments, and where each value stands. */
#ifndef CB_CONFIG_SCAN_H
#define CB_CONFIG_SCAN_H

#include "base/buf.h"

enum { CB_CONFIG_DEPTH = 32, CB_CONFIG_BYTES = 1024 * 1024 };

/* A value in document order (pre-order), as cJSON's tree has them too. */
typedef struct cb_config_spot {
    uint32_t value;     /* offset of the value */
    uint32_t value_len; /* scalars: of its text, quotes included */
    uint32_t key;       /* offset of the member's name (its quote); that of the value when there is none */
} cb_config_spot;

typedef struct cb_config_scan {
    cb_buf spots; /* of cb_config_spot */
    size_t n;
    uint32_t error_at; /* where the syntax error is */
} cb_config_scan;

void cb_config_scan_init(cb_config_scan *s);
void cb_config_scan_free(cb_config_scan *s);
/* Checks the syntax of all of text and notes every value. Comments become spaces in place, so that offsets stay.
 * CB_EINVAL: error_at and the detail say what is wrong; CB_ELIMIT; CB_ENOMEM. */
int cb_config_scan_text(cb_config_scan *s, char *text, size_t len);
const cb_config_spot *cb_config_scan_at(const cb_config_scan *s, size_t i);
void cb_config_line_column(const char *text, size_t at, uint32_t *line, uint32_t *column);

#endif
