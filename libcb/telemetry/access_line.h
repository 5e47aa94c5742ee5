/* The text of an access record, without I/O. F1. */
#ifndef CB_TELEMETRY_ACCESS_LINE_H
#define CB_TELEMETRY_ACCESS_LINE_H

#include "base/buf.h"
#include <cb/access_log.h>
#include <stdbool.h>

/* One member of a line. */
typedef struct cb_access_column {
    const struct cb_access_row *row; /* of the table; NULL: a field of a message */
    char *key;                       /* ,"name": */
    size_t key_len;
    char *field; /* its name in lower case */
    bool response, secret, url;
} cb_access_column;

/* What lines look like. */
typedef struct cb_access_plan {
    cb_access_column *at;
    size_t n;
    const char *response[CB_ACCESS_FIELDS]; /* names of response fields that are needed */
    size_t n_response;
    int format; /* enum cb_access_format */
    bool show_secrets;
    const cb_alloc *alloc;
} cb_access_plan;

/* o: its own and whole (cb_opts_read()). CB_EINVAL, CB_ENOMEM: there is nothing to free then. */
int cb_access_plan_make(cb_access_plan *out, const cb_alloc *alloc, const cb_access_log_opts *o);
void cb_access_plan_free(cb_access_plan *plan);
/* Appends one line. CB_ELIMIT (the buffer is full: it is as it was), CB_ENOMEM. */
int cb_access_line(cb_buf *out, const cb_access_plan *plan, const cb_access_record *r);

/* --- access_plan.c --- */
/* The table of fields. */
enum cb_access_kind {
    CB_ACCESS_TIME,
    CB_ACCESS_TEXT,   /* const char * */
    CB_ACCESS_SLICE,  /* cb_slice */
    CB_ACCESS_URL,    /* cb_slice, with parameters to hide */
    CB_ACCESS_STATUS, /* int32_t */
    CB_ACCESS_VERSION,
    CB_ACCESS_COUNT, /* uint64_t */
    CB_ACCESS_SMALL, /* uint32_t, left out when it is 0 */
    CB_ACCESS_FLAG,  /* uint8_t, left out when it is 0 */
    CB_ACCESS_US,    /* uint64_t microseconds, shown as milliseconds */
    CB_ACCESS_PHASE  /* of phase_us */
};
typedef struct cb_access_row {
    const char *name;
    enum cb_access_kind kind;
    size_t at; /* in cb_access_record; of CB_ACCESS_PHASE: which */
    bool usual;
} cb_access_row;

#endif
